package stepfunctions

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sfn"
	"github.com/cenkalti/backoff/v5"

	"bellhop"
	"bellhop/bridge"
)

// Activity is an entry under step_functions_activities: an activity of Step Functions whose tasks are operations. The
// task's input is the operation; its token becomes the address of a callback, by which the operation ends the task.
type Activity struct {
	// ARN names the activity, "arn:aws:states:REGION:ACCOUNT:activity:NAME". Required.
	ARN string `json:"arn"`
	// Target names the entry under targets, of type stepfunctions, that completes the tasks. The activity is polled with
	// its region, role and endpoint too. Required.
	Target string `json:"target"`
	// Verb is what the activity's tasks do: "provision", "update" or "delete". Default: what a task's input says in
	// operation_type.
	Verb bellhop.Verb `json:"verb"`
	// Tenant is whose compute the activity's tasks may touch; an input need not name it then. Default: that of the input,
	// so whoever may start a state machine with the activity can act for any tenant.
	Tenant string `json:"tenant"`
	// Polls is how many tasks are asked for at once, 1 to 1000. A poll is kept open for a minute. AWS advises 100 and
	// more where many tasks are started in a second. Default 4.
	Polls int `json:"polls"`
	// Heartbeat is how often a task is told that it is still being worked for, "1s" to "1h", so that its state may have
	// HeartbeatSeconds: three times as long is a good measure. A task's input may ask for another. Default "0s": never.
	Heartbeat bellhop.Duration `json:"heartbeat"`
}

// CodeOperationConflict is the error of a task whose input names an operation that exists and is another one, or belongs
// to another task.
const CodeOperationConflict bellhop.Code = "OPERATION_CONFLICT"

// CodeTooManyOperations is the error of a task whose tenant has as many open operations as it may, and as many tasks that
// wait for that to change. It can be retried.
const CodeTooManyOperations bellhop.Code = "TOO_MANY_OPERATIONS"

const (
	defaultPolls = 4
	maxPolls     = 1000 // of one activity, as AWS has it
	// pollTimeout is more than the minute for which the service keeps a poll open.
	pollTimeout = 70 * time.Second
	// maxPause bounds the wait between two tries of whatever failed.
	maxPause = time.Minute
)

var arnPattern = regexp.MustCompile(`^arn:aws[a-z-]*:states:([a-z0-9-]+):[0-9]{12}:activity:[A-Za-z0-9_.-]{1,80}$`)

// Check says what is wrong with the entry, as [bellhop.Faults], where targets are those that it may name.
func (a Activity) Check(targets map[string]bridge.Target) error {
	var faults bellhop.Faults
	region := ""
	parts := arnPattern.FindStringSubmatch(a.ARN)
	switch {
	case a.ARN == "":
		faults.Add("arn", "is required")
	case len(parts) != 2:
		faults.Add("arn", "must be the ARN of an activity, arn:aws:states:REGION:ACCOUNT:activity:NAME")
	default:
		region = parts[1]
	}
	target, ok := targets[a.Target].(*Target)
	switch {
	case a.Target == "":
		faults.Add("target", "is required")
	case !ok:
		faults.Add("target", "must name a target of type stepfunctions")
	case region != "" && region != target.client.Options().Region:
		faults.Add("target", "is in %s, the activity in %s: a task token is good in its own region only",
			target.client.Options().Region, region)
	}
	if a.Verb != "" && !slices.Contains(bellhop.Verbs(), a.Verb) {
		faults.Add("verb", `must be "provision", "update" or "delete", or be left out`)
	}
	if a.Tenant != "" {
		faults.Note("tenant", bellhop.CheckName(a.Tenant))
	}
	if a.Polls < 0 || a.Polls > maxPolls {
		faults.Add("polls", "must be 1 to %d", maxPolls)
	}
	if beat := time.Duration(a.Heartbeat); beat != 0 && (beat < bellhop.MinHeartbeat || beat > bellhop.MaxHeartbeat) {
		faults.Add("heartbeat", "must be 1s to 1h")
	}
	return faults.Err()
}

// Poller starts the operations that an activity's tasks ask for.
type Poller struct {
	Activity
	// Through is the target that the activity names.
	Through *Target
	// Start starts an operation, as [bridge.Operations] does.
	Start func(ctx context.Context, id string, verb bellhop.Verb, input []byte) (before bool, err error)
	// MakeID makes the id of an operation whose task's input names none, as [bridge.Operations] does.
	MakeID func(tenant, derived string) string
	// Drain is how long polls that are open, and tasks that they bring, may take once the poller is told to stop.
	Drain time.Duration
	Log   *slog.Logger

	mu      sync.Mutex
	trouble string
	// aside is how many tasks of each tenant wait until it may open an operation, and queue waits for all of them.
	aside map[string]int
	queue sync.WaitGroup
}

// Run polls until ctx ends. Then it asks for no further tasks, but waits for those that it has asked for: a task that is
// given to a poll that has been dropped is lost until its state times out.
func (p *Poller) Run(ctx context.Context) {
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(p.Drain, cancel) })()
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	p.Log = p.Log.With("activity", p.ARN)
	polls := p.Polls
	if polls == 0 {
		polls = defaultPolls
	}
	var polling sync.WaitGroup
	for range polls {
		polling.Go(func() {
			for ctx.Err() == nil {
				if token, input, ok := p.poll(ctx, working); ok {
					p.take(ctx, working, token, input)
				}
			}
		})
	}
	polling.Wait()
	p.queue.Wait()
}

// poll asks for a task, again and again until there is one or ctx ends.
func (p *Poller) poll(ctx, working context.Context) (token, input string, ok bool) {
	ask := func() (*sfn.GetActivityTaskOutput, error) {
		if ctx.Err() != nil {
			return nil, backoff.Permanent(ctx.Err())
		}
		within, cancel := context.WithTimeout(working, pollTimeout)
		defer cancel()
		task, err := p.Through.client.GetActivityTask(within, &sfn.GetActivityTaskInput{
			ActivityArn: &p.ARN, WorkerName: aws.String("bellhop"),
		})
		if err != nil && working.Err() != nil {
			return nil, backoff.Permanent(working.Err())
		}
		p.tell(err)
		return task, err
	}
	task, err := backoff.Retry(ctx, ask, backoff.WithBackOff(pauses()), backoff.WithMaxElapsedTime(0))
	if err != nil || aws.ToString(task.TaskToken) == "" {
		return "", "", false
	}
	return *task.TaskToken, aws.ToString(task.Input), true
}

// tell logs trouble with the polls once, and its end.
func (p *Poller) tell(err error) {
	now := ""
	if err != nil {
		now = classify(err, false).Err.Error()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case now == p.trouble:
	case now != "":
		p.Log.Warn("the activity cannot be polled; it is tried again", "error", now)
	default:
		p.Log.Info("the activity is polled again")
	}
	p.trouble = now
}

// take starts the operation of a task, however long that takes, or fails the task if there is none in its input. A task
// whose tenant has too many open operations waits beside the polls, which are there for the others.
func (p *Poller) take(ctx, working context.Context, token, input string) {
	ask, failure := p.read(token, []byte(input))
	if failure != nil {
		p.fail(working, token, ask, failure)
		return
	}
	err := p.start(working, ask)
	if !errors.Is(err, bellhop.ErrTooMany) || !p.setAside(ask.tenant, 1) {
		p.settle(working, token, ask, err)
		return
	}
	p.Log.Info("a task waits until its tenant may open an operation", "operation", ask.id)
	p.queue.Go(func() {
		defer p.setAside(ask.tenant, -1)
		p.wait(ctx, working, token, ask, err)
	})
}

// start starts an operation, however often that has to be tried.
func (p *Poller) start(ctx context.Context, ask request) error {
	start := func() (bool, error) {
		before, err := p.Start(ctx, ask.id, ask.verb, ask.input)
		_, refused := errors.AsType[bellhop.Faults](err)
		if refused || errors.Is(err, bellhop.ErrConflict) || errors.Is(err, bellhop.ErrTooMany) {
			err = backoff.Permanent(err)
		}
		return before, err
	}
	_, err := backoff.Retry(ctx, start, backoff.WithBackOff(pauses()), backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(err error, in time.Duration) {
			p.Log.Warn("a task's operation cannot be started yet", "operation", ask.id, "error", err, "again_in", in)
		}))
	return err
}

// settle fails a task whose operation could not be started.
func (p *Poller) settle(ctx context.Context, token string, ask request, err error) {
	faults, refused := errors.AsType[bellhop.Faults](err)
	switch {
	case err == nil:
		p.Log.Debug("a task's operation is started", "operation", ask.id)
	case refused:
		p.fail(ctx, token, ask, bellhop.InvalidOperation(faults))
	case errors.Is(err, bellhop.ErrConflict):
		p.fail(ctx, token, ask, conflict(ask.id))
	case errors.Is(err, bellhop.ErrTooMany):
		p.fail(ctx, token, ask, &bellhop.Failure{
			Code: CodeTooManyOperations, Retryable: true,
			Message: fmt.Sprintf("%s; retry the state, with a backoff", err),
		})
	default:
		p.Log.Error("the worker ends before a task's operation could be started; the task ends when its state times out",
			"operation", ask.id, "error", err)
	}
}

const (
	// maxAside is how many tasks of one tenant wait at a worker.
	maxAside = 64
	// maxAsidePause bounds the wait between two tries for a task that waits.
	maxAsidePause = 10 * time.Second
)

// setAside notes a task that waits, or that waits no longer. It says no if too many of its tenant do already.
func (p *Poller) setAside(tenant string, more int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.aside[tenant]+more > maxAside {
		return false
	}
	if p.aside == nil {
		p.aside = map[string]int{}
	}
	if p.aside[tenant] += more; p.aside[tenant] == 0 {
		delete(p.aside, tenant)
	}
	return true
}

// wait tries to start an operation until its tenant may open it. The task is kept alive meanwhile; one whose state has
// ended is dropped. A worker that stops fails the task, since nobody else could take it up.
func (p *Poller) wait(ctx, working context.Context, token string, ask request, refused error) {
	pause := pauses()
	pause.MaxInterval = maxAsidePause
	try := func() (ended bool, err error) {
		told := p.Through.Heartbeat(working, taskAddress(token)).Verdict
		if told == bridge.Closed || told == bridge.Undeliverable {
			p.Log.Info("a task has ended that waited", "operation", ask.id)
			return true, nil
		}
		if refused = p.start(working, ask); errors.Is(refused, bellhop.ErrTooMany) {
			return false, refused
		}
		return false, nil
	}
	ended, _ := backoff.Retry(ctx, try, backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(0)) //nolint:errcheck // it is in refused
	if !ended {
		p.settle(working, token, ask, refused)
	}
}

func conflict(id string) *bellhop.Failure {
	return &bellhop.Failure{
		Code: CodeOperationConflict,
		Message: fmt.Sprintf("operation %s exists and is another one, or an earlier try's; leave operation_id out, or make it differ from "+
			"try to try with $$.State.RetryCount", id),
		RequiresIntervention: true,
	}
}

// fail fails a task that asked for no operation that can be started.
func (p *Poller) fail(ctx context.Context, token string, ask request, failure *bellhop.Failure) {
	now := time.Now().UTC()
	outcome := bellhop.Outcome{
		SchemaVersion: bellhop.SchemaVersion, CallbackID: bellhop.CallbackID(ask.id, bellhop.Failed), Event: bellhop.EventFailed,
		OperationID: ask.id, OperationType: ask.verb, TenantID: ask.tenant, Resource: ask.resource, Provider: ask.provider,
		State: bellhop.Failed, Error: failure.Clean([]string{token}), RequestedAt: now, FinishedAt: now,
	}
	body, err := json.Marshal(outcome)
	if err != nil {
		p.Log.Error("a task cannot be failed", "operation", ask.id, "error", err)
		return
	}
	message := bridge.Message{
		ID: outcome.CallbackID, Event: outcome.Event, State: outcome.State, ReachedAt: now, Failures: bellhop.AsError, Body: body,
	}
	end := func() (bool, error) {
		within, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		switch result := p.Through.Deliver(within, taskAddress(token), message); result.Verdict {
		case bridge.Acknowledged, bridge.Closed: // closed by an earlier try, or by its state
			return true, nil
		case bridge.Undeliverable:
			return false, backoff.Permanent(result.Err)
		default:
			return false, result.Err
		}
	}
	if _, err := backoff.Retry(ctx, end, backoff.WithBackOff(pauses()), backoff.WithMaxElapsedTime(0)); err != nil {
		p.Log.Error("a task cannot be failed; it ends when its state times out", "operation", ask.id, "code", failure.Code,
			"error", bellhop.Scrub(err.Error(), []string{token})) // the service may repeat it
		return
	}
	p.Log.Info("a task is refused", "operation", ask.id, "code", failure.Code)
}

// request is an operation that a task asks for.
type request struct {
	id                         string
	verb                       bellhop.Verb
	tenant, resource, provider string
	input                      []byte
}

// read makes a task's input into the input of an operation that ends the task. The operation's id is the input's, or
// else follows from the token: each try of a state has a token of its own, and so each is an operation of its own.
func (p *Poller) read(token string, input []byte) (request, *bellhop.Failure) {
	var members map[string]json.RawMessage
	if len(input) <= bellhop.MaxOperationBytes { // a larger one is refused unread
		_ = json.Unmarshal(input, &members) //nolint:errcheck // AcceptOperation says what is wrong
	}
	sum := sha256.Sum256([]byte(token))
	given := bellhop.Identify(input)
	own := p.MakeID(cmp.Or(p.Tenant, given.Tenant), "sfn-"+hex.EncodeToString(sum[:16]))
	ask := request{id: cmp.Or(given.ID, own), verb: cmp.Or(p.Verb, given.Verb)}
	var faults bellhop.Faults
	if ask.verb == "" && members != nil {
		faults.Add("operation_type", `is required: "provision", "update" or "delete"`)
		ask.verb = bellhop.Provision // to find what else is wrong
	}
	op, err := bellhop.AcceptOperation(ask.id, ask.verb, input)
	faults.Note("", err)
	// What is no id and no verb may be too long for the cause that fails the task, and for a log.
	if bellhop.CheckID(ask.id) != nil {
		ask.id = own
	}
	if !slices.Contains(bellhop.Verbs(), ask.verb) {
		ask.verb = ""
	}
	if p.Tenant != "" && members != nil {
		switch op.TenantID {
		case p.Tenant:
		case "":
			members["tenant_id"], op.TenantID = json.RawMessage(strconv.Quote(p.Tenant)), p.Tenant
			faults = slices.DeleteFunc(faults, func(f bellhop.Fault) bool { return f.Path == "tenant_id" && f.Problem == "is required" })
		default:
			faults.Add("tenant_id", "must be %q, for which this activity is, or be left out", p.Tenant)
		}
	}
	ask.tenant, ask.resource, ask.provider = op.TenantID, op.Resource, op.Provider
	callbacks := p.callbacks(members["callbacks"], token, &faults)
	if err := faults.Err(); err != nil {
		sorted, _ := errors.AsType[bellhop.Faults](err)
		return ask, bellhop.InvalidOperation(sorted)
	}
	members["callbacks"] = callbacks
	if ask.input, err = json.Marshal(members); err != nil {
		return ask, bellhop.Fail(bellhop.CodeInternal, "encode operation: %s", err)
	}
	return ask, nil
}

// callbacks adds the task to the callbacks of its input, or completes the one that stands for it: the one for the
// activity's target that has no address.
func (p *Poller) callbacks(given json.RawMessage, token string, faults *bellhop.Faults) json.RawMessage {
	var raw []json.RawMessage
	_ = json.Unmarshal(given, &raw) //nolint:errcheck // AcceptOperation says what is wrong
	if len(raw) > bellhop.MaxCallbacks {
		return nil // as above
	}
	callbacks := make([]map[string]json.RawMessage, 0, len(raw)+1)
	for i := range raw {
		var callback map[string]json.RawMessage
		_ = json.Unmarshal(raw[i], &callback) //nolint:errcheck // as above
		callbacks = append(callbacks, callback)
	}
	var found bool
	for i, callback := range callbacks {
		var target string
		_ = json.Unmarshal(callback["target"], &target) //nolint:errcheck // as above
		if target != p.Target || callback["address"] != nil {
			continue
		}
		if found {
			faults.Add(fmt.Sprintf("callbacks[%d]", i), "is a second one for the task")
		}
		if callback["states"] != nil {
			faults.Add(fmt.Sprintf("callbacks[%d].states", i), "must be left out: the task ends when the operation does")
		}
		found = true
		p.complete(callback, token)
	}
	if !found {
		task := map[string]json.RawMessage{"target": json.RawMessage(strconv.Quote(p.Target))}
		p.complete(task, token)
		callbacks = append(callbacks, task)
	}
	text, err := json.Marshal(callbacks)
	faults.Note("callbacks", err)
	return text
}

func (p *Poller) complete(callback map[string]json.RawMessage, token string) {
	callback["address"] = taskAddress(token)
	if callback["heartbeat"] == nil && p.Heartbeat != 0 {
		callback["heartbeat"] = json.RawMessage(strconv.Quote(p.Heartbeat.String()))
	}
}

func taskAddress(token string) json.RawMessage {
	address, _ := json.Marshal(Address{TaskToken: token}) //nolint:errcheck,errchkjson // a string can be encoded
	return address
}

// pauses are the waits between two tries of whatever failed.
func pauses() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.Multiplier, b.MaxInterval = time.Second, 2, maxPause
	return b
}

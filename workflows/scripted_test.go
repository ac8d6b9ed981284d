package workflows_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	commonpb "go.temporal.io/api/common/v1"
	sdkpb "go.temporal.io/api/sdk/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"bellhop"
	"bellhop/activities"
	"bellhop/bridge"
	"bellhop/workflows"
)

// start is when the operations of these tests are requested.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// The secrets of every operation of these tests: they may show up nowhere.
const (
	secretToken = "AAAA-task-token-of-order-42"
	secretEnv   = "correct horse battery staple"
)

// stage is one operation on a clock that skips time: the real workflows and the real activities, over a platform and
// callers that do what the test's script says.
type stage struct {
	*testsuite.TestWorkflowEnvironment
	t        *testing.T
	id       string
	platform *platform
	// callers are the configured targets, by name; "orders" is there from the beginning.
	callers    map[string]*caller
	activities *activities.Activities
}

func setup(t *testing.T) *stage {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestWorkflowEnvironment()
	// The machine may be busy with other things: what is slow is not stuck.
	env.SetTestTimeout(time.Minute)
	env.SetWorkerOptions(worker.Options{DeadlockDetectionTimeout: time.Minute})
	env.SetStartTime(start)
	s := &stage{
		TestWorkflowEnvironment: env, t: t,
		platform: &platform{}, callers: map[string]*caller{}, activities: &activities.Activities{Elsewhere: 2 * time.Second},
	}
	s.platform.now = s.now
	s.identify("op-1")
	s.activities.Providers = map[string]activities.Provider{"sim": s.platform}
	s.activities.Targets = map[string]bridge.Target{}
	s.caller("orders")
	workflows.Register(env)
	env.RegisterActivity(s.activities)
	return s
}

func (s *stage) identify(id string) {
	s.id = id
	s.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: id})
}

// caller configures a target; it answers its attempts with results, the last one for ever.
func (s *stage) caller(name string, results ...bridge.Result) *caller {
	s.t.Helper()
	c := &caller{now: s.now, answer: func(n int, _ bridge.Message) bridge.Result {
		if len(results) == 0 {
			return bridge.Result{Verdict: bridge.Acknowledged}
		}
		return results[min(n, len(results))-1]
	}}
	s.callers[name] = c
	s.activities.Targets[name] = c
	return c
}

func (s *stage) now() time.Time { return s.Now().UTC() }

// observed has a watcher tell the operation what it saw, a time after the start.
func (s *stage) observed(after time.Duration, seen bellhop.Observation) {
	if seen.OperationID == "" {
		seen.OperationID = s.id
	}
	s.RegisterDelayedCallback(func() { s.SignalWorkflow(workflows.SignalObserved, seen) }, after)
}

// at runs f while time stands still, a time after the start.
func (s *stage) at(after time.Duration, f func()) { s.RegisterDelayedCallback(f, after) }

// meanwhile runs f from within an activity: in the middle of an ask, a look or a delivery.
func (s *stage) meanwhile(f func()) {
	done := make(chan struct{})
	s.RegisterDelayedCallback(func() { defer close(done); f() }, 0)
	<-done
}

// status asks for the status, as a user does; it must not be called from within an activity but by meanwhile.
func (s *stage) status() bellhop.Status {
	s.t.Helper()
	answer, err := s.QueryWorkflow(workflows.QueryStatus)
	if err != nil {
		s.t.Errorf("query: %s", err)
		return bellhop.Status{}
	}
	var status bellhop.Status
	if err := answer.Get(&status); err != nil {
		s.t.Errorf("decode status: %s", err)
	}
	return status
}

// details are what Temporal's UI shows.
func (s *stage) details() string {
	s.t.Helper()
	answer, err := s.QueryWorkflow("__temporal_workflow_metadata")
	if err != nil {
		s.t.Errorf("query metadata: %s", err)
		return ""
	}
	var metadata sdkpb.WorkflowMetadata
	if err := answer.Get(&metadata); err != nil {
		s.t.Errorf("decode metadata: %s", err)
	}
	return metadata.GetCurrentDetails()
}

// fields are the members of a JSON object.
type fields = map[string]any

// order is what a caller asks for; with replaces or adds members.
func order(verb bellhop.Verb, with fields) []byte {
	members := fields{
		"tenant_id": "acme", "resource": "web", "provider": "sim", "metadata": fields{"order": "42"},
		"callbacks": []fields{callback("orders", nil)},
	}
	if verb != bellhop.Delete {
		members["spec"] = fields{"image": "nginx:1.27", "replicas": 2, "env": fields{"PASSWORD": secretEnv}}
	}
	maps.Copy(members, with)
	text, err := json.Marshal(members)
	if err != nil {
		panic(err)
	}
	return text
}

func callback(target string, with fields) fields {
	members := fields{"target": target, "address": fields{"workflow_id": "order-42", "task_token": secretToken}}
	maps.Copy(members, with)
	return members
}

func jsonPayload(data []byte) *commonpb.Payload {
	return &commonpb.Payload{
		Metadata: map[string][]byte{converter.MetadataEncoding: []byte(converter.MetadataEncodingJSON)},
		Data:     data,
	}
}

// close says how a workflow was closed, as Temporal lists it.
type closed string

const (
	completed closed = "Completed"
	failed    closed = "Failed"
	canceled  closed = "Canceled"
)

// ending is all that can be known of an operation once its workflow is closed.
type ending struct {
	closed  closed
	outcome bellhop.Outcome
	status  bellhop.Status
	details string
}

// carryOut runs an operation to its end.
func (s *stage) carryOut(verb bellhop.Verb, input []byte) ending {
	s.t.Helper()
	return s.start(workflows.TypeFor(verb), verb, converter.NewRawValue(jsonPayload(input)))
}

func (s *stage) start(workflowType any, verb bellhop.Verb, args ...any) ending {
	s.t.Helper()
	s.ExecuteWorkflow(workflowType, args...)
	if !s.IsWorkflowCompleted() {
		s.t.Fatal("the workflow did not close")
	}
	end := ending{status: s.status(), details: s.details()}
	err := s.GetWorkflowError()
	var application *temporal.ApplicationError
	var cancelled *temporal.CanceledError
	switch {
	case err == nil:
		end.closed = completed
		err = s.GetWorkflowResult(&end.outcome)
	case errors.As(err, &cancelled):
		end.closed = canceled
		err = cancelled.Details(&end.outcome)
	case errors.As(err, &application):
		end.closed = failed
		if !application.NonRetryable() {
			s.t.Error("a workflow that fails may be retried by whoever started it: the operation would run twice")
		}
		err = application.Details(&end.outcome)
		if end.outcome.Error == nil || application.Type() != string(end.outcome.Error.Code) || application.Message() != end.outcome.Error.Message {
			s.t.Errorf("workflow failed with %s: %s, but the outcome says %v", application.Type(), application.Message(), end.outcome.Error)
		}
	}
	if err != nil {
		s.t.Fatalf("the workflow closed without an outcome: %s", err)
	}
	s.laws(verb, end)
	return end
}

// laws hold at every end, whatever came before.
func (s *stage) laws(verb bellhop.Verb, end ending) {
	t := s.t
	t.Helper()
	o := end.outcome
	if diff := cmp.Diff(o, end.status.Outcome); diff != "" {
		t.Errorf("the workflow's result and the status differ (-result +status):\n%s", diff)
	}
	want := map[bellhop.State]closed{bellhop.Succeeded: completed, bellhop.Failed: failed, bellhop.Cancelled: canceled}
	if want[o.State] != end.closed {
		t.Errorf("workflow closed as %s though the operation is %s", end.closed, o.State)
	}
	if o.SchemaVersion != 1 || o.OperationID != s.id || o.OperationType != verb || o.CallbackID != s.id+"/"+string(o.State) ||
		o.Event != bellhop.EventFor(verb, o.State) || o.Event == "" {
		t.Errorf("outcome names itself %+v", o)
	}
	if (o.Error != nil) != (o.State != bellhop.Succeeded) {
		t.Errorf("outcome is %s with the error %v", o.State, o.Error)
	}
	if o.Error != nil {
		if info := o.Error.Code.Info(); info.Code != o.Error.Code || info.Retryable != o.Error.Retryable ||
			info.RequiresIntervention != o.Error.RequiresIntervention || o.Error.Message == "" {
			t.Errorf("error does not say what can be done: %+v", o.Error)
		}
	}
	if o.RequestedAt != start || o.StartedAt.Before(o.RequestedAt) || o.FinishedAt.Before(o.StartedAt) ||
		o.DurationMS != o.FinishedAt.Sub(o.StartedAt).Milliseconds() {
		t.Errorf("times: requested %s, started %s, finished %s, took %d ms", o.RequestedAt, o.StartedAt, o.FinishedAt, o.DurationMS)
	}
	s.lawsOfTransitions(end)
	s.lawsOfCallbacks(end)
	shown, err := json.Marshal(end.status)
	if err != nil {
		t.Errorf("encode status: %s", err)
	}
	for name, text := range map[string]string{"status": string(shown), "details": end.details, "error": fmt.Sprint(s.GetWorkflowError())} {
		if strings.Contains(text, secretToken) || strings.Contains(text, secretEnv) {
			t.Errorf("%s shows a secret: %s", name, text)
		}
	}
	for _, c := range s.platform.calls {
		if len(c.op.Callbacks) > 0 {
			t.Errorf("%s was given the callers' tokens", c.name)
		}
		if c.op.ID != s.id || c.op.RequestedAt != start {
			t.Errorf("%s was asked for operation %s of %s", c.name, c.op.ID, c.op.RequestedAt)
		}
	}
}

func (s *stage) lawsOfTransitions(end ending) {
	t := s.t
	t.Helper()
	at := end.status.Transitions
	if len(at) < 3 || at[0] != (bellhop.Transition{State: bellhop.Pending, At: start}) || at[1].State != bellhop.Queued {
		t.Errorf("transitions begin with %v", at)
	}
	last := at[len(at)-1]
	if last.State != end.outcome.State || last.At != end.outcome.FinishedAt {
		t.Errorf("transitions end with %v", last)
	}
	for i := range at[1:] {
		if at[i+1].At.Before(at[i].At) {
			t.Errorf("transitions go back in time: %v", at)
		}
		if slices.ContainsFunc(at[:i+1], func(earlier bellhop.Transition) bool { return earlier.State == at[i+1].State }) {
			t.Errorf("a state is reached twice: %v", at)
		}
	}
}

func (s *stage) lawsOfCallbacks(end ending) {
	t := s.t
	t.Helper()
	for _, receipt := range end.status.Callbacks {
		if receipt.State == bellhop.ReceiptDelivering || receipt.State == bellhop.ReceiptBlocked {
			t.Errorf("the workflow closed over a callback that is %s", receipt.State)
		}
	}
	bodies := map[string][]byte{}
	for name, c := range s.callers {
		ended := map[string]bool{}
		for _, ring := range c.rings() {
			if before, ok := bodies[ring.ID]; ok && !bytes.Equal(before, ring.Body) {
				t.Errorf("%s was sent in two versions:\n%s\n%s", ring.ID, before, ring.Body)
			}
			bodies[ring.ID] = ring.Body
			if ended[ring.Address] && !ring.State.Terminal() {
				t.Errorf("%s was told %s after the end", name, ring.ID)
			}
			ended[ring.Address] = ended[ring.Address] || ring.State.Terminal()
			var told bellhop.Outcome
			if err := json.Unmarshal(ring.Body, &told); err != nil {
				t.Errorf("%s was sent what is no outcome: %s", name, err)
				continue
			}
			if told.State != ring.State || told.Event != ring.Event || told.CallbackID != ring.ID {
				t.Errorf("%s was told %s %s %s in the message and %s %s %s in its body", name,
					ring.ID, ring.State, ring.Event, told.CallbackID, told.State, told.Event)
			}
			if ring.State.Terminal() {
				if diff := cmp.Diff(end.outcome, told); diff != "" {
					t.Errorf("%s was told something else than the outcome (-outcome +told):\n%s", name, diff)
				}
			}
			if bytes.Contains(ring.Body, []byte(secretToken)) || bytes.Contains(ring.Body, []byte(secretEnv)) {
				t.Errorf("%s was sent a secret: %s", name, ring.Body)
			}
		}
	}
}

// states are the states that were reached, in order.
func (e ending) states() []bellhop.State {
	states := make([]bellhop.State, len(e.status.Transitions))
	for i, transition := range e.status.Transitions {
		states[i] = transition.State
	}
	return states
}

func (e ending) receipt(t *testing.T, target string) bellhop.Receipt {
	t.Helper()
	for _, receipt := range e.status.Callbacks {
		if receipt.Target == target {
			return receipt
		}
	}
	t.Fatalf("there is no receipt of %s among %v", target, e.status.Callbacks)
	return bellhop.Receipt{}
}

// platform is a provider that does what its script says. A nil function is the one that has nothing to tell.
type platform struct {
	check   func(op bellhop.Operation) error
	ask     func(ctx context.Context, op bellhop.Operation, n int) (bellhop.Observation, error)
	observe func(ctx context.Context, op bellhop.Operation, n int) (bellhop.Observation, error)

	now   func() time.Time
	mu    sync.Mutex
	calls []call
}

// call is one call of a provider.
type call struct {
	name string
	op   bellhop.Operation
	at   time.Time
}

func (c call) String() string { return c.name + " at " + c.at.Format(time.TimeOnly) }

var _ activities.Provider = (*platform)(nil)

// note records a call and counts those of its name.
func (p *platform) note(name string, op bellhop.Operation) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, call{name: name, op: op, at: p.now()})
	n := 0
	for _, c := range p.calls {
		if c.name == name {
			n++
		}
	}
	return n
}

func (p *platform) named(name string) []call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.calls), func(c call) bool { return c.name != name })
}

func (p *platform) Check(op bellhop.Operation) error {
	p.note("check", op)
	if p.check == nil {
		return nil
	}
	return p.check(op)
}

func (p *platform) Provision(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	return p.asked(ctx, "provision", op)
}

func (p *platform) Update(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	return p.asked(ctx, "update", op)
}

func (p *platform) Delete(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	return p.asked(ctx, "delete", op)
}

func (p *platform) asked(ctx context.Context, name string, op bellhop.Operation) (bellhop.Observation, error) {
	n := p.note(name, op)
	if name != string(op.Verb) {
		return bellhop.Observation{}, fmt.Errorf("%s was asked to %s", name, op.Verb)
	}
	if p.ask == nil {
		return pending(), nil
	}
	return p.ask(ctx, op, n)
}

func (p *platform) Observe(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	n := p.note("observe", op)
	if p.observe == nil {
		return pending(), nil
	}
	return p.observe(ctx, op, n)
}

// Inventory lists nothing: no workflow of an operation asks for it.
func (*platform) Inventory(context.Context) ([]bellhop.Holding, error) { return nil, nil }

func (p *platform) Watch(ctx context.Context, _ func(bellhop.Observation)) error {
	<-ctx.Done()
	return ctx.Err()
}

// in turn: the n-th call gets the n-th answer, later ones the last.
func inTurn(answers ...any) func(context.Context, bellhop.Operation, int) (bellhop.Observation, error) {
	return func(_ context.Context, _ bellhop.Operation, n int) (bellhop.Observation, error) {
		switch answer := answers[min(n, len(answers))-1].(type) {
		case bellhop.Observation:
			return answer, nil
		case error:
			return bellhop.Observation{}, answer
		default:
			panic(fmt.Sprintf("script has a %T", answer))
		}
	}
}

func ids(names ...string) bellhop.ResourceIDs { return bellhop.ResourceIDs{SimulatedIDs: names} }

func pending() bellhop.Observation {
	return bellhop.Observation{
		Phase: bellhop.PhasePending, ResourceIDs: ids("web-1"),
		Progress: bellhop.Progress{Message: "1 of 2 is healthy", Ready: 1, Desired: 2},
	}
}

func ready() bellhop.Observation {
	return bellhop.Observation{
		Phase: bellhop.PhaseReady, ResourceIDs: ids("web-1", "web-2"),
		Endpoints: []bellhop.Endpoint{{Name: "http", Host: "10.0.0.7", Port: 80}},
		Progress:  bellhop.Progress{Ready: 2, Desired: 2},
	}
}

func gone() bellhop.Observation { return bellhop.Observation{Phase: bellhop.PhaseGone} }

func superseded() bellhop.Observation {
	return bellhop.Observation{Phase: bellhop.PhaseSuperseded, ResourceIDs: ids("web-1")}
}

// broken is a resource that failed. Its failure repeats a secret, as logs do.
func broken(code bellhop.Code) bellhop.Observation {
	return bellhop.Observation{
		Phase: bellhop.PhaseFailed, ResourceIDs: ids("web-1", "web-2"),
		Failure: bellhop.Fail(code, "it broke with %s", secretToken).
			Because(errors.New("said with "+secretToken)).With("last_log_line", "token is "+secretToken),
	}
}

// done is what an operation of verb wants to see.
func done(verb bellhop.Verb) bellhop.Observation {
	if verb == bellhop.Delete {
		return gone()
	}
	return ready()
}

// caller is a target that answers as its script says.
type caller struct {
	check func(bellhop.Callback) error
	// answer answers the n-th attempt.
	answer func(n int, m bridge.Message) bridge.Result
	// beat answers the n-th heartbeat; nil acknowledges.
	beat func(n int) bridge.Result

	now   func() time.Time
	mu    sync.Mutex
	rung  []ring
	beats []time.Time
}

// ring is one attempt to deliver.
type ring struct {
	bridge.Message
	Address string
	At      time.Time
}

var _ bridge.Target = (*caller)(nil)

func (c *caller) Check(callback bellhop.Callback) error {
	if c.check == nil {
		return nil
	}
	return c.check(callback)
}

func (c *caller) Deliver(_ context.Context, address json.RawMessage, m bridge.Message) bridge.Result {
	c.mu.Lock()
	c.rung = append(c.rung, ring{Message: m, Address: string(address), At: c.now()})
	n := len(c.rung)
	c.mu.Unlock()
	return c.answer(n, m)
}

func (c *caller) rings() []ring {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.rung)
}

func (c *caller) Heartbeat(context.Context, json.RawMessage) bridge.Result {
	c.mu.Lock()
	c.beats = append(c.beats, c.now())
	n := len(c.beats)
	c.mu.Unlock()
	if c.beat == nil {
		return acknowledged
	}
	return c.beat(n)
}

// beaten is when the heartbeats came, counted from the start.
func (c *caller) beaten() []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	after := make([]time.Duration, len(c.beats))
	for i, at := range c.beats {
		after[i] = at.Sub(start)
	}
	return after
}

func (r ring) String() string { return r.ID + " at " + r.At.Format(time.TimeOnly) }

// told are the callback ids of the attempts, in order.
func (c *caller) told() []string {
	var told []string
	for _, ring := range c.rings() {
		told = append(told, ring.ID)
	}
	return told
}

// The answers of a target.
var (
	acknowledged = bridge.Result{Verdict: bridge.Acknowledged}
	refused      = bridge.Result{Verdict: bridge.Retry, Err: errors.New("connection refused")}
	lost         = bridge.Result{Verdict: bridge.Retry, Unknown: true, Err: errors.New("connection reset after " + secretToken)}
	blocked      = bridge.Result{Verdict: bridge.Blocked, Err: errors.New("permission denied for " + secretToken)}
	gone404      = bridge.Result{Verdict: bridge.Closed, Err: errors.New("no such workflow")}
	badAddress   = bridge.Result{Verdict: bridge.Undeliverable, Err: errors.New("bad token " + secretToken)}
)

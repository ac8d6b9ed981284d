package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"bellhop"
	"bellhop/activities"
	"bellhop/activities/simulated"
	"bellhop/bridge"
	"bellhop/bridge/temporal"
	"bellhop/operations"
	"bellhop/tests/peers"
	"bellhop/workflows"
)

// The histories of what has landed are never written anew: a red replay means workflow.GetVersion, or another way for
// the code to know by which rules an operation was begun. A change that makes other histories from now on records them
// beside the older ones, in a folder of its own:
//
//	go test ./tests -run TestRecordHistories -record
var (
	record     = flag.Bool("record", false, "run the scenarios against a real server and write their histories")
	recordOnly = flag.String("record-only", "", "record the scenarios whose name matches this expression")
)

const (
	histories = "histories"
	// latest is the folder of the histories that are made today.
	//
	// 1: BellhopState is set by the starter and by each change of state.
	// 2: BellhopState is set only while it lasts.
	// 3: heartbeats, redeliveries, and BellhopUndelivered where a callback was given up.
	// 4: activities have ids that cannot be guessed; the build id says so, or a marker where a worker has a version of its own.
	latest = "4"
)

// scenario is one way from a start to an end. Its file is histories/<latest>/<type>-<name>.json.
type scenario struct {
	name string
	// verb is what is asked for; empty for the watch and for a report.
	verb bellhop.Verb
	// state and code are how the operation must have ended for the file to be what its name says.
	state bellhop.State
	code  bellhop.Code
	// with replaces or adds members of the operation.
	with map[string]any
	// raw starts the workflow with this input as it is, as the temporal CLI does, instead of through bellhop.
	raw string
	// meanwhile is done after the start.
	meanwhile func(r *recorder, id string)
	// has are the event types without which the history shows nothing.
	has []enumspb.EventType
	// receipt is the state of a receipt without which it shows nothing either.
	receipt bellhop.ReceiptState
	// redelivered says that the history is that of the redelivery of the operation's first callback.
	redelivered bool
	// orphansAt is the provider that a report of orphans is asked for.
	orphansAt string
}

func (s scenario) workflowType() string {
	if s.orphansAt != "" {
		return "ReportOrphans"
	}
	if s.verb == "" {
		return "WatchProvider"
	}
	if s.redelivered {
		return "RedeliverCallback"
	}
	return workflows.TypeFor(s.verb)
}

func (s scenario) file() string {
	return filepath.Join(histories, latest, s.workflowType()+"-"+s.name+".json")
}

func script(s string) map[string]any { return map[string]any{"provider_config": json.RawMessage(s)} }

func and(more ...map[string]any) map[string]any {
	all := map[string]any{}
	for _, m := range more {
		maps.Copy(all, m)
	}
	return all
}

// told are callbacks with all states, to the targets named.
func told(targets ...map[string]any) map[string]any {
	for _, target := range targets {
		if target["states"] == nil {
			target["states"] = []string{"running", "succeeded", "failed", "cancelled"}
		}
	}
	return map[string]any{"callbacks": targets}
}

func to(target, workflowID string) map[string]any {
	return map[string]any{"target": target, "address": map[string]string{"workflow_id": workflowID}}
}

func scenarios() []scenario {
	const (
		timer    = enumspb.EVENT_TYPE_TIMER_FIRED
		signal   = enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
		update   = enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED
		ringing  = enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
		marker   = enumspb.EVENT_TYPE_MARKER_RECORDED
		canceled = enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED
		failed   = enumspb.EVENT_TYPE_ACTIVITY_TASK_FAILED
		upsert   = enumspb.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES
	)
	cancel := func(r *recorder, id string) {
		r.await(id, bellhop.Running)
		r.must(r.ops.Cancel(r.ctx, id))
	}
	var all []scenario
	for _, verb := range bellhop.Verbs() {
		all = append(
			all,
			scenario{name: "succeeded-at-once", verb: verb, state: bellhop.Succeeded, with: told(to("temporal", "caller"))},
			scenario{
				name: "succeeded", verb: verb, state: bellhop.Succeeded,
				with: and(script(`{"ready_after": "700ms"}`), told(to("temporal", "caller"))), has: []enumspb.EventType{signal},
			},
			scenario{
				name: "succeeded-by-backstop", verb: verb, state: bellhop.Succeeded, has: []enumspb.EventType{timer},
				with: and(script(`{"ready_after": "1s"}`), map[string]any{"provider": "unwatched"}),
			},
			scenario{
				name: "succeeded-by-refresh", verb: verb, state: bellhop.Succeeded, has: []enumspb.EventType{update},
				with: and(script(`{"ready_after": "1s"}`), map[string]any{"provider": "patient"}),
				meanwhile: func(r *recorder, id string) {
					r.until("a refresh sees the end of "+id, func() bool {
						report, err := r.ops.Refresh(r.ctx, id)
						return err == nil && report.State.Terminal()
					})
				},
			},
			scenario{
				name: "succeeded-after-retries", verb: verb, state: bellhop.Succeeded,
				with: and(script(`{"throttle": 2, "lose_answers": 1}`), told(to("forgetful", "caller"))),
				// A server that forgot the first attempt over the second would call it undeliverable.
				receipt: bellhop.ReceiptAckPresumed,
			},
			scenario{
				name: "failed", verb: verb, state: bellhop.Failed, code: bellhop.CodeContainerExited, has: []enumspb.EventType{signal},
				with: and(script(`{"ready_after": "1h", "fail": {"code": "CONTAINER_EXITED", "after": "700ms"}}`), told(to("temporal", "caller"))),
			},
			scenario{
				name: "failed-at-once", verb: verb, state: bellhop.Failed, code: bellhop.CodeQuotaExceeded,
				with: and(script(`{"fail": {"code": "QUOTA_EXCEEDED", "at": "ask"}}`), told(to("temporal", "gone"))),
			},
			scenario{
				name: "superseded", verb: verb, state: bellhop.Failed, code: bellhop.CodeSuperseded, has: []enumspb.EventType{signal},
				with: script(`{"ready_after": "1h"}`),
				meanwhile: func(r *recorder, id string) {
					r.await(id, bellhop.Running)
					r.start(id+"-newer", bellhop.Provision, map[string]any{"resource": id})
				},
			},
			scenario{
				name: "timed-out", verb: verb, state: bellhop.Failed, code: bellhop.CodeTimeout, has: []enumspb.EventType{timer},
				with: and(script(`{"ready_after": "1h"}`), map[string]any{"timeout": "1s"}, told(to("temporal", "caller"))),
			},
			scenario{
				name: "timed-out-asking", verb: verb, state: bellhop.Failed, code: bellhop.CodeTimeout,
				// The server ends the ask as failed or as timed out, depending on when the next attempt was due.
				with: and(script(`{"fail": {"code": "PROVIDER_UNAVAILABLE", "at": "ask"}}`), map[string]any{"timeout": "2s"}),
			},
			scenario{
				name: "cancelled", verb: verb, state: bellhop.Cancelled, code: bellhop.CodeCancelled, has: []enumspb.EventType{canceled},
				with: and(script(`{"ready_after": "1h"}`), told(to("temporal", "caller"))), meanwhile: cancel,
			},
			scenario{
				name: "cancelled-asking", verb: verb, state: bellhop.Cancelled, code: bellhop.CodeCancelled, has: []enumspb.EventType{canceled},
				with: script(`{"fail": {"code": "PROVIDER_UNAVAILABLE", "at": "ask"}}`),
				meanwhile: func(r *recorder, id string) {
					r.await(id, bellhop.Queued)
					r.must(r.ops.Cancel(r.ctx, id))
				},
			},
			scenario{
				name: "cancelled-during-an-ask", verb: verb, state: bellhop.Cancelled, code: bellhop.CodeCancelled,
				// The attempt fails by itself after it was cancelled.
				with: map[string]any{"provider": "stubborn"},
				has:  []enumspb.EventType{canceled, marker},
				meanwhile: func(r *recorder, id string) {
					r.until("the ask of "+id+" is under way", func() bool {
						found, err := r.client.DescribeWorkflowExecution(r.ctx, id, "")
						return err == nil && len(found.GetPendingActivities()) == 1 &&
							found.GetPendingActivities()[0].GetState() == enumspb.PENDING_ACTIVITY_STATE_STARTED
					})
					r.must(r.ops.Cancel(r.ctx, id))
				},
			},
			scenario{
				name: "invalid", verb: verb, state: bellhop.Failed, code: bellhop.CodeInvalidOperation, has: []enumspb.EventType{upsert},
				raw: `{"tenant_id": "acme", "provider": "simulated", "spec": {"image": "nginx:1.27", "replicas": "two"}, "tenant": "acme",
					"callbacks": [{"target": "temporal", "address": {"workflow_id": "caller"}}, {"target": "nowhere"}]}`,
			},
			scenario{
				name: "invalid-names", verb: verb, state: bellhop.Failed, code: bellhop.CodeInvalidOperation,
				raw: `{"tenant_id": "` + strings.Repeat("a", 3000) + `", "provider": "simulated",
					"callbacks": [{"target": "temporal", "address": {"workflow_id": "caller"}}]}`,
			},
			scenario{name: "invalid-input", verb: verb, state: bellhop.Failed, code: bellhop.CodeInvalidOperation, raw: `[]`},
			scenario{
				name: "invalid-at-worker", verb: verb, state: bellhop.Failed, code: bellhop.CodeInvalidOperation,
				with: map[string]any{"provider": "nowhere"},
			},
		)
	}
	beating := func(target, onAbandoned string) map[string]any {
		callback := and(to(target, "caller"), map[string]any{"heartbeat": "1s"})
		if onAbandoned != "" {
			callback["on_abandoned"] = onAbandoned
		}
		return told(callback, to("temporal", "caller"))
	}
	removed := and(script(`{"ready_after": "1h"}`), map[string]any{"on_cancel": "remove"})
	all = append(
		all,
		scenario{name: "open"},
		scenario{name: "reported", orphansAt: "simulated", has: []enumspb.EventType{enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED}},
		scenario{name: "refused", orphansAt: "nowhere", has: []enumspb.EventType{enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED}},
		scenario{
			name: "succeeded-by-cli", verb: bellhop.Provision, state: bellhop.Succeeded, has: []enumspb.EventType{upsert},
			raw: `{"tenant_id": "acme", "resource": "by-cli", "provider": "simulated", "spec": {"image": "nginx:1.27"},
				"provider_config": {"ready_after": "500ms"}, "callbacks": [{"target": "temporal", "address": {"workflow_id": "caller"}}]}`,
		},
		scenario{
			name: "succeeded-undelivered", verb: bellhop.Provision, state: bellhop.Succeeded, has: []enumspb.EventType{failed, marker},
			with: told(
				and(to("deaf", "caller"), map[string]any{"deadline": "2s"}), to("temporal", "gone"), to("temporal", "caller"),
			),
		},
		scenario{
			name: "succeeded-heartbeats", verb: bellhop.Provision, state: bellhop.Succeeded,
			with: and(script(`{"ready_after": "2500ms"}`), beating("patient", "")),
		},
		scenario{
			name: "succeeded-abandoned", verb: bellhop.Provision, state: bellhop.Succeeded, has: []enumspb.EventType{marker},
			with: and(script(`{"ready_after": "2500ms"}`), beating("leaver", "")),
		},
		scenario{
			name: "cancelled-abandoned", verb: bellhop.Provision, state: bellhop.Cancelled, code: bellhop.CodeCancelled,
			with: and(script(`{"ready_after": "1h"}`), beating("leaver", "cancel")), has: []enumspb.EventType{marker},
		},
		scenario{
			name: "arrived", verb: bellhop.Provision, redelivered: true, has: []enumspb.EventType{ringing},
			with: told(to("recovering", "caller")), receipt: bellhop.ReceiptAcknowledged,
		},
		scenario{
			name: "given-up", verb: bellhop.Provision, redelivered: true, has: []enumspb.EventType{failed},
			with: told(and(to("deaf", "caller"), map[string]any{"deadline": "1s"})),
		},
		scenario{
			name: "cancelled-removed", verb: bellhop.Provision, state: bellhop.Cancelled, code: bellhop.CodeCancelled,
			with: and(removed, map[string]any{"provider": "leaving"}, told(to("temporal", "caller"))), has: []enumspb.EventType{canceled}, meanwhile: cancel,
		},
		scenario{
			name: "cancelled-removed-slowly", verb: bellhop.Provision, state: bellhop.Cancelled, code: bellhop.CodeCancelled,
			with:      and(removed, map[string]any{"provider": "leaving-slowly"}),
			meanwhile: cancel, has: []enumspb.EventType{canceled, timer},
		},
	)
	return all
}

// endings are those that every verb must have a history of.
var endings = []string{
	"succeeded", "succeeded-at-once", "succeeded-by-backstop", "succeeded-by-refresh", "succeeded-after-retries", "failed", "failed-at-once",
	"superseded", "timed-out", "timed-out-asking", "cancelled", "cancelled-asking",
	"cancelled-during-an-ask", "invalid", "invalid-names", "invalid-input", "invalid-at-worker",
}

func TestReplay(t *testing.T) {
	for _, workflowType := range []string{"ProvisionCompute", "UpdateCompute", "DeleteCompute"} {
		for _, ending := range endings {
			if _, err := os.Stat(filepath.Join(histories, latest, workflowType+"-"+ending+".json")); err != nil {
				t.Errorf("%s has no history of the ending %s: %s", workflowType, ending, err)
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(histories, "*", "*.json"))
	require.NoError(t, err)
	known := map[string]scenario{}
	for _, s := range scenarios() {
		known[s.file()] = s
		require.Contains(t, files, s.file(), "a scenario has no history")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(strings.TrimPrefix(file, histories+"/"), ".json"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			history, err := client.HistoryFromJSON(bytes.NewReader(text), client.HistoryJSONOptions{})
			require.NoError(t, err)
			started := history.Events[0].GetWorkflowExecutionStartedEventAttributes()
			replayer := worker.NewWorkflowReplayer()
			workflows.Register(replayer)
			// The operation's id is the workflow's, so the replay needs the one that it had.
			err = replayer.ReplayWorkflowHistoryWithOptions(quiet{}, history, worker.ReplayWorkflowHistoryOptions{
				OriginalExecution: workflow.Execution{ID: started.GetWorkflowId(), RunID: started.GetOriginalExecutionRunId()},
			})
			require.NoError(t, err, "what was started by an older version cannot be carried on by this one: workflow.GetVersion")
			if s, ok := known[file]; ok {
				require.NoError(t, s.check(history))
			}
			for _, private := range []string{"/root/", "/home/", "/tmp/", "@", "127.0.0.1"} {
				require.NotContains(t, string(text), private, "a history tells where it was recorded")
			}
		})
	}
}

// check says whether a history is what its name says.
func (s scenario) check(history *historypb.History) error {
	for _, kind := range s.has {
		if !slices.ContainsFunc(history.Events, func(e *historypb.HistoryEvent) bool { return e.EventType == kind }) {
			return fmt.Errorf("there is no %s in it", kind)
		}
	}
	if s.receipt != "" && !slices.ContainsFunc(history.Events, func(e *historypb.HistoryEvent) bool {
		var receipt bellhop.Receipt
		result := e.GetActivityTaskCompletedEventAttributes().GetResult()
		return result != nil && converter.GetDefaultDataConverter().FromPayloads(result, &receipt) == nil && receipt.State == s.receipt
	}) {
		return fmt.Errorf("no callback in it is %s", s.receipt)
	}
	if s.verb == "" || s.redelivered {
		return nil
	}
	last := history.Events[len(history.Events)-1]
	var payloads *commonpb.Payloads
	switch last.EventType {
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
		payloads = last.GetWorkflowExecutionCompletedEventAttributes().GetResult()
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED:
		payloads = last.GetWorkflowExecutionFailedEventAttributes().GetFailure().GetApplicationFailureInfo().GetDetails()
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED:
		payloads = last.GetWorkflowExecutionCanceledEventAttributes().GetDetails()
	}
	var outcome bellhop.Outcome
	if err := converter.GetDefaultDataConverter().FromPayloads(payloads, &outcome); err != nil {
		return err
	}
	var code bellhop.Code
	var says string
	if outcome.Error != nil {
		code, says = outcome.Error.Code, outcome.Error.Message
	}
	if outcome.State != s.state || code != s.code || outcome.OperationType != s.verb {
		return fmt.Errorf("it is of a %s that ended as %s %s (%s), want %s %s", outcome.OperationType, outcome.State, code, says, s.state, s.code)
	}
	return nil
}

// impatient is the task queue of a worker that looks by itself every now and then. Nobody watches its platforms.
const impatient = "impatient"

// recorder runs scenarios.
type recorder struct{ *bench }

func (r *recorder) must(err error) {
	r.Helper()
	require.NoError(r, err)
}

// await waits until an operation has reached a state, or one after it.
func (r *recorder) await(id string, state bellhop.State) {
	r.Helper()
	r.until(id+" is "+string(state), func() bool {
		report, err := r.ops.Status(r.ctx, id)
		return err == nil && report.Silence == nil && (report.State == state || report.State.Terminal())
	})
}

// closes waits until a workflow is closed.
func (r *recorder) closes(id string) {
	r.Helper()
	r.until(id+" closes", func() bool {
		found, err := r.client.DescribeWorkflowExecution(r.ctx, id, "")
		return err == nil && found.GetWorkflowExecutionInfo().GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
	})
}

func (r *recorder) start(id string, verb bellhop.Verb, with map[string]any) {
	r.Helper()
	members := map[string]any{"tenant_id": "acme", "resource": id, "provider": "simulated", "metadata": map[string]string{"order": "42"}}
	if verb != bellhop.Delete {
		members["spec"] = map[string]any{
			"image": "nginx:1.27", "replicas": 2, "ports": []map[string]any{{"name": "http", "container_port": 80}},
		}
	}
	input, err := json.Marshal(and(members, with))
	r.must(err)
	ops := r.ops
	if provider := with["provider"]; provider == "unwatched" || provider == "leaving" || provider == "leaving-slowly" {
		ops = operations.New(r.client, "default", impatient)
	}
	_, err = ops.Start(r.ctx, id, verb, input)
	r.must(err)
}

// deaf never hears.
type deaf struct{}

func (deaf) Check(bellhop.Callback) error { return nil }

func (deaf) Deliver(context.Context, json.RawMessage, bridge.Message) bridge.Result {
	return bridge.Result{Verdict: bridge.Retry, Err: errors.New("connection refused")}
}

// forgetful hears everything, and each callback's first answer is lost.
type forgetful struct {
	mu    sync.Mutex
	heard map[string]bool
}

func (*forgetful) Check(bellhop.Callback) error { return nil }

func (f *forgetful) Deliver(_ context.Context, _ json.RawMessage, m bridge.Message) bridge.Result {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.heard[m.ID] {
		return bridge.Result{Verdict: bridge.Closed, Err: errors.New("no longer waiting")}
	}
	f.heard[m.ID] = true
	return bridge.Result{Verdict: bridge.Retry, Unknown: true, Err: errors.New("connection reset")}
}

// patient waits as long as it hears heartbeats; leaver is gone at the second.
type patient struct{ deaf }

func (*patient) Deliver(context.Context, json.RawMessage, bridge.Message) bridge.Result {
	return bridge.Result{Verdict: bridge.Acknowledged}
}

func (*patient) Heartbeat(context.Context, json.RawMessage) bridge.Result {
	return bridge.Result{Verdict: bridge.Acknowledged}
}

type leaver struct {
	patient
	beats sync.Map
}

func (l *leaver) Heartbeat(ctx context.Context, _ json.RawMessage) bridge.Result {
	if _, beaten := l.beats.LoadOrStore(activity.GetInfo(ctx).WorkflowExecution.ID, true); beaten {
		return bridge.Result{Verdict: bridge.Closed, Err: errors.New("no longer waiting")}
	}
	return bridge.Result{Verdict: bridge.Acknowledged}
}

// recovering has nobody there for an operation; for a redelivery it has.
type recovering struct{ deaf }

func (recovering) Deliver(ctx context.Context, _ json.RawMessage, _ bridge.Message) bridge.Result {
	if activity.GetInfo(ctx).WorkflowType.Name == "RedeliverCallback" {
		return bridge.Result{Verdict: bridge.Acknowledged}
	}
	return bridge.Result{Verdict: bridge.Closed, Err: errors.New("no longer waiting")}
}

// stubborn does not answer an ask for a while, whatever happens meanwhile, and then is not there.
type stubborn struct{ activities.Provider }

func (s stubborn) Provision(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	if strings.HasSuffix(op.ID, "-before") {
		return s.Provider.Provision(ctx, op)
	}
	return s.Update(ctx, op)
}

func (stubborn) Update(context.Context, bellhop.Operation) (bellhop.Observation, error) {
	time.Sleep(time.Second)
	return bellhop.Observation{}, bellhop.Fail(bellhop.CodeProviderUnavailable, "it does not answer")
}

func (s stubborn) Delete(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	return s.Update(ctx, op)
}

// leaving removes what a cancelled operation provisioned, within its own time whatever the script of the provision says.
// The simulated platform knows one verb of an operation only, so the removal has an id of its own there.
type leaving struct {
	activities.Provider
	within string
}

func (l leaving) removal(op bellhop.Operation) bellhop.Operation {
	op.ID += "-removal"
	op.ProviderConfig = json.RawMessage(`{"ready_after": "` + l.within + `"}`)
	return op
}

func (l leaving) Delete(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	return l.Provider.Delete(ctx, l.removal(op))
}

func (l leaving) Observe(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	if op.Verb == bellhop.Delete {
		op = l.removal(op)
	}
	return l.Provider.Observe(ctx, op)
}

func TestRecordHistories(t *testing.T) {
	if !*record {
		t.Skip("without -record the histories stay as they are")
	}
	wanted := regexp.MustCompile(*recordOnly)
	newRecorder(t).each(func(s scenario) bool { return wanted.MatchString(s.workflowType() + "-" + s.name) }, (*recorder).record)
}

// newRecorder starts a server with workers for every scenario.
func newRecorder(t *testing.T) *recorder {
	t.Helper()
	b := setup(t)
	r := &recorder{bench: b}
	// What is recorded is kept for ever and shown to everybody: it names no machine.
	c, err := client.Dial(client.Options{HostPort: b.server.Address, Logger: quiet{}, Identity: "bellhop"})
	r.must(err)
	t.Cleanup(c.Close)
	b.client, b.ops = c, operations.New(c, "default", "")
	r.must(b.ops.EnsureSearchAttributes(b.ctx))
	platform := func(name string) activities.Provider {
		provider, err := simulated.New(simulated.Config{Path: filepath.Join(b.folder, name+".db")})
		r.must(err)
		t.Cleanup(func() { provider.Close() }) //nolint:errcheck // the folder goes with it
		return provider
	}
	worker.SetBinaryChecksum(workflows.Build + "/recorded")
	work := func(queue string, backstop activities.Backstop, providers map[string]activities.Provider) {
		acts := &activities.Activities{
			Providers: providers,
			Targets: map[string]bridge.Target{
				"temporal": temporal.NewTarget(c.WorkflowService(), "default"), "deaf": deaf{}, "forgetful": &forgetful{heard: map[string]bool{}},
				"patient": &patient{}, "leaver": &leaver{}, "recovering": recovering{},
			},
			Backstop:  backstop,
			Waiters:   b.ops,
			Records:   b.ops,
			Elsewhere: time.Second, // there are no other workers
		}
		w := worker.New(c, queue, worker.Options{Identity: "bellhop"})
		workflows.Register(w)
		all := []worker.Worker{w}
		for _, kind := range workflows.Queues() {
			all = append(all, worker.New(c, workflows.Queue(queue, kind), worker.Options{Identity: "bellhop", DisableWorkflowWorker: true}))
		}
		for _, w := range all {
			w.RegisterActivity(acts)
			r.must(w.Start())
			t.Cleanup(w.Stop)
		}
	}
	work(workflows.TaskQueue, activities.Backstop{}, map[string]activities.Provider{
		"simulated": platform("simulated"), "patient": platform("patient"), "stubborn": stubborn{platform("stubborn")},
	})
	work(impatient, activities.Backstop{First: 300 * time.Millisecond, Max: time.Second}, map[string]activities.Provider{
		"unwatched": platform("unwatched"), "leaving": leaving{platform("leaving"), "0s"},
		"leaving-slowly": leaving{platform("leaving-slowly"), "1s"},
	})
	r.must(b.ops.Watch(b.ctx, "simulated"))
	_, err = c.ExecuteWorkflow(b.ctx, client.StartWorkflowOptions{ID: "caller", TaskQueue: "nobody"}, "caller")
	r.must(err)
	return r
}

// each does the same with every scenario that is wanted, all at once.
func (r *recorder) each(wanted func(scenario) bool, do func(*recorder, scenario)) {
	for _, s := range scenarios() {
		if !wanted(s) {
			continue
		}
		r.Run(s.workflowType()+"-"+s.name, func(t *testing.T) {
			t.Parallel()
			own := *r.bench
			own.T, own.ctx = t, t.Context()
			do(&recorder{bench: &own}, s)
		})
	}
}

// play runs a scenario to its end and answers the id of its workflow.
func (r *recorder) play(s scenario) string {
	r.Helper()
	if s.orphansAt != "" {
		id := "bellhop-orphans/" + s.name
		_, err := r.client.ExecuteWorkflow(r.ctx, client.StartWorkflowOptions{ID: id, TaskQueue: workflows.TaskQueue},
			workflows.ReportOrphans, s.orphansAt)
		r.must(err)
		r.closes(id)
		return id
	}
	id := workflows.WatchID(workflows.TaskQueue, "simulated")
	if s.verb != "" {
		id = string(s.verb) + "-" + s.name
		if s.verb != bellhop.Provision && s.raw == "" {
			before := and(map[string]any{"resource": id, "callbacks": nil}, map[string]any{"provider": s.with["provider"]})
			if before["provider"] == nil {
				before["provider"] = "simulated"
			}
			if before["provider"] != "nowhere" {
				r.start(id+"-before", bellhop.Provision, before)
				_, err := r.ops.Wait(r.ctx, id+"-before")
				r.must(err)
			}
		}
		if s.raw != "" {
			_, err := r.client.ExecuteWorkflow(r.ctx, client.StartWorkflowOptions{ID: id, TaskQueue: workflows.TaskQueue},
				workflows.TypeFor(s.verb), json.RawMessage(s.raw))
			r.must(err)
		} else {
			r.start(id, s.verb, s.with)
		}
		if s.meanwhile != nil {
			s.meanwhile(r, id)
		}
		r.closes(id)
	}
	if s.redelivered {
		rung, err := r.ops.Redeliver(r.ctx, id, "")
		r.must(err)
		require.Len(r, rung, 1)
		report, err := r.ops.Status(r.ctx, id)
		r.must(err)
		id = workflows.RedeliverID(id, report.RequestedAt, 0, bellhop.Succeeded)
		r.closes(id)
	}
	return id
}

func (r *recorder) record(s scenario) {
	id := r.play(s)
	history := &historypb.History{}
	events := r.client.GetWorkflowHistory(r.ctx, id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		r.must(err)
		history.Events = append(history.Events, event)
	}
	r.must(s.check(history))
	text, err := temporalproto.CustomJSONMarshalOptions{Indent: " "}.Marshal(history)
	r.must(err)
	r.must(os.WriteFile(filepath.Join(peers.Root(), "tests", s.file()), append(text, '\n'), 0o600))
}

package receive_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"bellhop"
	"bellhop/bridge/temporal/receive"
	"bellhop/tests/peers"
)

var silent = log.NewStructuredLogger(slog.New(slog.DiscardHandler))

// stage starts a real Temporal server, a bellhop worker, and a worker of the calling workflows.
func stage(t *testing.T, callers ...any) client.Client {
	t.Helper()
	server := peers.ServerFor(t)
	platform := filepath.Join(t.TempDir(), "simulated.db")
	peers.WorkerFor(t, server, "providers: {simulated: {type: simulated, path: "+platform+"}}")
	c, err := client.Dial(client.Options{HostPort: server.Address, Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	own := worker.New(c, "callers", worker.Options{})
	for _, caller := range callers {
		own.RegisterWorkflow(caller)
	}
	if err := own.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(own.Stop)
	return c
}

func simulated(id, resource, config string) bellhop.Operation {
	op := provision(id)
	op.Resource, op.Provider, op.ProviderConfig = resource, "simulated", json.RawMessage(config)
	return op
}

// juggle does everything that an inbox can, over two runs.
func juggle(ctx workflow.Context, before receive.Snapshot) error {
	all := []bellhop.State{bellhop.Running, bellhop.Succeeded, bellhop.Failed, bellhop.Cancelled}
	inbox := receive.New(ctx, receive.Options{States: all, Carried: before})
	slow := simulated("slow", "a", `{"ready_after": "1500ms"}`)
	quick := simulated("quick", "b", `{"ready_after": "500ms"}`)
	doomed := simulated("doomed", "c", `{"fail": {"code": "OUT_OF_MEMORY", "after": "700ms"}}`)
	endless := simulated("endless", "d", `{"ready_after": "1h"}`)
	if len(before.Answered) > 0 {
		// What the run before has started is not started again, and is answered from the status.
		if err := inbox.Start(ctx, quick); err != nil {
			return err
		}
		got, err := inbox.Await(ctx, "quick", time.Minute)
		return errors.Join(err, expect("quick", got.State, bellhop.Succeeded), expect("what is left", len(inbox.Drain()), 0))
	}
	for _, op := range []bellhop.Operation{slow, quick, doomed, endless} {
		if err := inbox.Start(ctx, op); err != nil {
			return err
		}
	}
	if _, err := inbox.AwaitRunning(ctx, "slow", time.Minute); err != nil {
		return err
	}
	polled, err := inbox.Poll(ctx, "endless")
	if err != nil {
		return err
	}
	_, err = inbox.Await(ctx, "doomed", time.Minute)
	var failed *receive.Failed
	if !errors.As(err, &failed) {
		return err
	}
	first, err := inbox.Await(ctx, "slow", time.Minute)
	if err != nil {
		return err
	}
	second, err := inbox.Await(ctx, "quick", time.Minute)
	if err != nil {
		return err
	}
	if err := inbox.Cancel(ctx, "endless"); err != nil {
		return err
	}
	_, err = inbox.Await(ctx, "endless", time.Minute)
	var cancelled *receive.Failed
	if !errors.As(err, &cancelled) {
		return err
	}
	_, nobody := inbox.Await(ctx, "nobody", 0)
	// Its callback never comes, for want of a target.
	lost := receive.New(ctx, receive.Options{Target: "nowhere"})
	hurried := simulated("lost", "e", "")
	hurried.Timeout = bellhop.Duration(4 * time.Second) // else other workers are asked for a minute whether they know the target
	if err := lost.Start(ctx, hurried); err != nil {
		return err
	}
	_, err = lost.Await(ctx, "lost", time.Hour)
	var invalid *receive.Failed
	if !errors.As(err, &invalid) {
		return err
	}
	err = errors.Join(
		expect("polled", polled.State == bellhop.Queued || polled.State == bellhop.Running, true),
		expect("doomed", failed.Outcome.Error.Code, bellhop.CodeOutOfMemory),
		expect("evidence", failed.Outcome.Error.Evidence["exit_code"], "137"),
		expect("slow", len(first.ResourceIDs.SimulatedIDs), 1),
		expect("quick", second.State, bellhop.Succeeded),
		expect("endless", cancelled.Outcome.State, bellhop.Cancelled),
		expect("nobody", errors.Is(nobody, receive.ErrNotFound), true),
		expect("lost", invalid.Outcome.Error.Code, bellhop.CodeInvalidOperation))
	if err != nil {
		return err
	}
	return workflow.NewContinueAsNewError(ctx, juggle, inbox.Snapshot())
}

// leave starts an operation and ends.
func leave(ctx workflow.Context) error {
	return receive.New(ctx, receive.Options{}).Start(ctx, simulated("left", "f", `{"ready_after": "1s"}`))
}

func TestAgainstServer(t *testing.T) {
	c := stage(t, juggle, leave)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()

	left, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: "leave", TaskQueue: "callers"}, leave)
	if err != nil {
		t.Fatal(err)
	}
	caller, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: "juggle", TaskQueue: "callers"}, juggle, receive.Snapshot{})
	if err != nil {
		t.Fatal(err)
	}
	firstRun := caller.GetRunID()
	if err := errors.Join(left.Get(ctx, nil), caller.Get(ctx, nil)); err != nil {
		t.Fatal(err)
	}

	// The operation has outlived its caller.
	var outcome bellhop.Outcome
	if err := c.GetWorkflow(ctx, "left", "").Get(ctx, &outcome); err != nil || outcome.State != bellhop.Succeeded {
		t.Errorf("the operation of a caller that has ended is %s: %v", outcome.State, err)
	}
	// The caller was rung, and not only told the end of a child.
	first := historyOf(ctx, t, c, "juggle", firstRun)
	var rung []string
	for _, event := range first.Events {
		if signal := event.GetWorkflowExecutionSignaledEventAttributes().GetSignalName(); signal != "" {
			rung = append(rung, signal)
		}
	}
	slices.Sort(rung)
	want := "compute-cancelled compute-failed compute-provisioned compute-provisioned compute-running compute-running compute-running compute-running"
	if got := strings.Join(rung, " "); got != want {
		t.Errorf("it was rung by\n%s, want\n%s", got, want)
	}
	// What was started twice has run once.
	second := historyOf(ctx, t, c, "juggle", "")
	if !slices.ContainsFunc(second.Events, func(event *historypb.HistoryEvent) bool {
		return event.GetEventType() == enumspb.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_FAILED
	}) {
		t.Error("the second run has started an operation again")
	}

	replayer := worker.NewWorkflowReplayer()
	replayer.RegisterWorkflow(juggle)
	for run, history := range map[string]*historypb.History{"first": first, "second": second} {
		if err := replayer.ReplayWorkflowHistory(silent, history); err != nil {
			t.Errorf("replay the %s run: %s", run, err)
		}
	}
}

func historyOf(ctx context.Context, t *testing.T, c client.Client, id, run string) *historypb.History {
	t.Helper()
	history := &historypb.History{}
	events := c.GetWorkflowHistory(ctx, id, run, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		if err != nil {
			t.Fatal(err)
		}
		history.Events = append(history.Events, event)
	}
	return history
}

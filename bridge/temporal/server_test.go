package temporal_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	sdktemporal "go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"bellhop"
	"bellhop/bridge"
	"bellhop/bridge/temporal"
	"bellhop/tests/peers"
)

// waiting asks for compute in an activity that is completed from outside, and answers with what that was told.
func waiting(ctx workflow.Context) (bellhop.Outcome, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		ActivityID: "compute", StartToCloseTimeout: time.Hour, RetryPolicy: &sdktemporal.RetryPolicy{MaximumAttempts: 1},
	})
	var outcome bellhop.Outcome
	err := workflow.ExecuteActivity(ctx, "ask").Get(ctx, &outcome)
	return outcome, err
}

func TestAgainstServer(t *testing.T) {
	server := peers.ServerFor(t)
	c, err := client.Dial(client.Options{HostPort: server.Address, Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	target := temporal.NewTarget(c.WorkflowService(), "default")

	tokens := make(chan []byte, 1)
	w := worker.New(c, "callers", worker.Options{})
	w.RegisterWorkflow(waiting)
	w.RegisterActivityWithOptions(func(ctx context.Context) (bellhop.Outcome, error) {
		tokens <- activity.GetInfo(ctx).TaskToken
		return bellhop.Outcome{}, activity.ErrResultPending
	}, activity.RegisterOptions{Name: "ask"})
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)

	// idle starts a workflow that nobody works on: what it is sent stays in its history.
	idle := func(t *testing.T, id string) client.WorkflowRun {
		t.Helper()
		run, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: id, TaskQueue: "nobody"}, "idle")
		if err != nil {
			t.Fatal(err)
		}
		return run
	}
	signals := func(t *testing.T, id string) []*historypb.WorkflowExecutionSignaledEventAttributes {
		t.Helper()
		var got []*historypb.WorkflowExecutionSignaledEventAttributes
		events := c.GetWorkflowHistory(t.Context(), id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			event, err := events.Next()
			if err != nil {
				t.Fatal(err)
			}
			if signal := event.GetWorkflowExecutionSignaledEventAttributes(); signal != nil {
				got = append(got, signal)
			}
		}
		return got
	}
	deliver := func(t *testing.T, address string, state bellhop.State) bridge.Result {
		t.Helper()
		return target.Deliver(t.Context(), json.RawMessage(address), message(state))
	}
	want := func(t *testing.T, got bridge.Result, verdict bridge.Verdict) {
		t.Helper()
		if got.Verdict != verdict || got.Unknown {
			t.Errorf("the verdict is %+v, want %s", got, verdict)
		}
	}

	t.Run("OneSignalThoughSentThrice", func(t *testing.T) {
		idle(t, "thrice")
		for range 3 {
			want(t, deliver(t, `{"workflow_id": "thrice"}`, bellhop.Running), bridge.Acknowledged)
		}
		for range 3 {
			want(t, deliver(t, `{"workflow_id": "thrice"}`, bellhop.Succeeded), bridge.Acknowledged)
		}
		got := signals(t, "thrice")
		if len(got) != 2 || got[0].SignalName != "compute-running" || got[1].SignalName != "compute-provisioned" {
			t.Fatalf("the workflow was signalled %v", got)
		}
		if diff := cmp.Diff(string(message(bellhop.Succeeded).Body), string(got[1].Input.Payloads[0].Data)); diff != "" {
			t.Errorf("the signal carries (-want +got):\n%s", diff)
		}
	})
	t.Run("Run", func(t *testing.T) {
		first := idle(t, "runs")
		if err := c.TerminateWorkflow(t.Context(), "runs", "", "test"); err != nil {
			t.Fatal(err)
		}
		idle(t, "runs")
		want(t, deliver(t, fmt.Sprintf(`{"workflow_id": "runs", "run_id": %q}`, first.GetRunID()), bellhop.Succeeded), bridge.Closed)
		want(t, deliver(t, `{"workflow_id": "runs"}`, bellhop.Succeeded), bridge.Acknowledged)
		if got := signals(t, "runs"); len(got) != 1 {
			t.Errorf("the current run was signalled %v", got)
		}
	})
	t.Run("Closed", func(t *testing.T) {
		idle(t, "closed")
		if err := c.TerminateWorkflow(t.Context(), "closed", "", "test"); err != nil {
			t.Fatal(err)
		}
		want(t, deliver(t, `{"workflow_id": "closed"}`, bellhop.Succeeded), bridge.Closed)
	})
	t.Run("Missing", func(t *testing.T) {
		want(t, deliver(t, `{"workflow_id": "never-started"}`, bellhop.Succeeded), bridge.Closed)
		want(t, deliver(t, `{"workflow_id": "never-started", "activity_id": "a"}`, bellhop.Succeeded), bridge.Closed)
	})
	t.Run("MissingNamespace", func(t *testing.T) {
		for way, address := range addresses {
			got := temporal.NewTarget(c.WorkflowService(), "nowhere").Deliver(t.Context(), address, message(bellhop.Succeeded))
			if way == "token" { // a token is looked at before its namespace
				if got.Verdict != bridge.Undeliverable && got.Verdict != bridge.Blocked {
					t.Errorf("a token in a namespace that is missing is %+v", got)
				}
				continue
			}
			want(t, got, bridge.Blocked)
		}
	})
	t.Run("BadAddress", func(t *testing.T) {
		idle(t, "bad")
		want(t, deliver(t, `{"workflow_id": "bad", "run_id": "no uuid"}`, bellhop.Succeeded), bridge.Undeliverable)
		want(t, deliver(t, string(tokenAddress), bellhop.Succeeded), bridge.Undeliverable)
	})
	for _, way := range []string{"ID", "Token"} {
		for _, state := range []bellhop.State{bellhop.Succeeded, bellhop.Failed, bellhop.Cancelled} {
			t.Run("ActivityBy"+way+"/"+string(state), func(t *testing.T) {
				id := "waiting-" + way + "-" + string(state)
				run, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: id, TaskQueue: "callers"}, waiting)
				if err != nil {
					t.Fatal(err)
				}
				token := <-tokens
				address := fmt.Sprintf(`{"workflow_id": %q, "activity_id": "compute"}`, id)
				if way == "Token" {
					address = fmt.Sprintf(`{"task_token": %q}`, base64.StdEncoding.EncodeToString(token))
				}
				want(t, deliver(t, address, state), bridge.Acknowledged)
				var told bellhop.Outcome
				err = run.Get(t.Context(), &told)
				if failure, ok := errors.AsType[*sdktemporal.ApplicationError](err); ok {
					if failure.Type() != map[bellhop.State]string{bellhop.Failed: "CAPACITY_UNAVAILABLE", bellhop.Cancelled: "CANCELLED"}[state] ||
						failure.NonRetryable() != (state == bellhop.Cancelled) {
						t.Errorf("the activity failed with %s, retryable %t", failure.Type(), !failure.NonRetryable())
					}
					err = failure.Details(&told)
				}
				if err != nil {
					t.Fatal(err)
				}
				if written, err := json.Marshal(told); err != nil || string(written) != string(message(state).Body) {
					t.Errorf("the caller was told %s, %v", written, err)
				}
				want(t, deliver(t, address, state), bridge.Closed)
			})
		}
	}
}

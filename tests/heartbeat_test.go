package tests

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"bellhop"
)

// patience is how long the callers of these tests wait without hearing anything.
const patience = 10 * time.Second

// waiter is a workflow whose activity asks for compute and is completed by the callback. Its result is the outcome.
func waiter(ctx workflow.Context, operation string, members json.RawMessage) (bellhop.Outcome, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		ActivityID:          "compute",
		StartToCloseTimeout: 5 * time.Minute,
		HeartbeatTimeout:    patience,
		RetryPolicy:         &temporal.RetryPolicy{MaximumAttempts: 1},
	})
	var outcome bellhop.Outcome
	err := workflow.ExecuteActivity(ctx, "ask", operation, members).Get(ctx, &outcome)
	return outcome, err
}

// wait starts a waiter, whose operation has the script and the members of its callback.
func (b *bench) wait(id, script string, callback map[string]any) client.WorkflowRun {
	b.Helper()
	w := worker.New(b.client, "waiters-"+id, worker.Options{})
	w.RegisterWorkflowWithOptions(waiter, workflow.RegisterOptions{Name: "waiter"})
	w.RegisterActivityWithOptions(func(ctx context.Context, operation string, members json.RawMessage) error {
		if _, err := b.ops.Start(ctx, operation, bellhop.Provision, members); err != nil {
			return err
		}
		return activity.ErrResultPending
	}, activity.RegisterOptions{Name: "ask"})
	require.NoError(b, w.Start())
	b.Cleanup(w.Stop)
	given := and(map[string]any{"target": "temporal", "address": map[string]string{"workflow_id": id, "activity_id": "compute"}}, callback)
	operation, err := json.Marshal(map[string]any{
		"tenant_id": "acme", "resource": id, "provider": "simulated", "spec": map[string]any{"image": "nginx:1.27"},
		"provider_config": json.RawMessage(script), "callbacks": []any{given},
	})
	require.NoError(b, err)
	run, err := b.client.ExecuteWorkflow(b.ctx, client.StartWorkflowOptions{ID: id, TaskQueue: "waiters-" + id}, "waiter",
		"op-"+id, json.RawMessage(operation))
	require.NoError(b, err)
	return run
}

// Compute takes several times longer than its callers have patience, and workers are killed meanwhile.
func TestHeartbeatsKeepCallersAliveWhileWorkersAreKilled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	workers := []interface{ Kill() }{b.work(b.config()), b.work(b.config())}
	const callers = 10
	var runs []client.WorkflowRun
	for i := range callers {
		runs = append(runs, b.wait(fmt.Sprintf("waiter-%d", i), `{"ready_after": "40s"}`, map[string]any{"heartbeat": "1s"}))
	}
	b.until("operations run", func() bool {
		report, err := b.ops.Status(b.ctx, "op-waiter-0")
		return err == nil && report.State == bellhop.Running
	})
	for _, victim := range workers {
		time.Sleep(patience + 2*time.Second) // longer than a caller waits without a heartbeat
		victim.Kill()
		b.work(b.config())
	}
	timedOut := 0
	for _, run := range runs {
		var outcome bellhop.Outcome
		if err := run.Get(b.ctx, &outcome); err != nil {
			timedOut++
			t.Log(err)
			continue
		}
		require.Equal(t, bellhop.Succeeded, outcome.State)
		b.until("the receipt is there", func() bool {
			return b.status(outcome.OperationID).Callbacks[0].State == bellhop.ReceiptAcknowledged
		})
	}
	require.Zero(t, timedOut, "callers that ran out of patience, out of %d", callers)
}

// Without heartbeats the same caller gives up, so it is they that keep it waiting.
func TestCallerWithoutHeartbeatsGivesUp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.work(b.config())
	run := b.wait("hasty", `{"ready_after": "25s"}`, nil)
	var timeout *temporal.TimeoutError
	require.ErrorAs(t, run.Get(b.ctx, nil), &timeout)
	b.until("the callback is given up", func() bool {
		return b.status("op-hasty").Callbacks[0].State == bellhop.ReceiptUndeliverable
	})
	require.Equal(t, bellhop.Succeeded, b.status("op-hasty").State)
}

func TestCallerThatWaitsNoLonger(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.work(b.config())
	for _, row := range []struct{ policy, readyAfter string }{{"cancel", "1h"}, {"continue", "40s"}} {
		policy, id := row.policy, "gone-"+row.policy
		b.wait(id, fmt.Sprintf(`{"ready_after": %q}`, row.readyAfter), map[string]any{"heartbeat": "1s", "on_abandoned": policy})
		b.until("the operation runs", func() bool {
			report, err := b.ops.Status(b.ctx, "op-"+id)
			return err == nil && report.State == bellhop.Running
		})
		require.NoError(t, b.client.TerminateWorkflow(b.ctx, id, "", "nobody wants it any more"))
		b.until("the callback is given up", func() bool {
			return b.status("op-" + id).Callbacks[0].State == bellhop.ReceiptUndeliverable
		})
	}
	require.Equal(t, bellhop.Running, b.status("op-gone-continue").State, "it goes on")
	b.until("the other is cancelled, without waiting for the compute", func() bool {
		return b.status("op-gone-cancel").State == bellhop.Cancelled
	})
	cancelled := b.status("op-gone-cancel")
	require.Contains(t, cancelled.Error.Message, "its caller, of target temporal, waits no longer")
	require.NotEmpty(t, cancelled.ResourceIDs.SimulatedIDs)
	require.Equal(t, 0, cancelled.Callbacks[0].Attempts)
	outcome, err := b.ops.Wait(b.ctx, "op-gone-continue")
	require.NoError(t, err)
	require.Equal(t, bellhop.Succeeded, outcome.State)
	for _, id := range []string{"op-gone-continue", "op-gone-cancel"} {
		b.until("it is listed as undelivered", func() bool {
			stdout, _, _ := b.run("", "bellhop", "list", "--undelivered")
			return regexp.MustCompile(`(?m)^` + id + ` .*temporal undeliverable$`).MatchString(stdout)
		})
	}
}

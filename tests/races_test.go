package tests

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"bellhop"
	"bellhop/bridge/temporal/receive"
	"bellhop/tests/peers"
)

// gatherer is a caller that awaits operations which somebody else has started, one after the other, and continues as new
// after every second. It does so only once it was told to begin.
func gatherer(ctx workflow.Context, ids []string, got map[string]bellhop.State, before receive.Snapshot) (map[string]bellhop.State, error) {
	inbox := receive.New(ctx, receive.Options{Carried: before})
	if len(got) == 0 {
		workflow.GetSignalChannel(ctx, "begin").Receive(ctx, nil)
		got = map[string]bellhop.State{}
	}
	for n := 0; n < 2 && len(ids) > 0; n++ {
		// Nothing but a callback answers it: a poll would come too late for the test.
		outcome, err := inbox.Await(ctx, ids[0], time.Hour)
		if err != nil {
			return nil, err
		}
		got[ids[0]], ids = outcome.State, ids[1:]
	}
	if len(ids) == 0 {
		inbox.Drain()
		return got, nil
	}
	return nil, workflow.NewContinueAsNewError(ctx, gatherer, ids, got, inbox.Snapshot())
}

func toCaller(id string) string {
	return fmt.Sprintf(`{"target": "temporal", "address": {"workflow_id": %q}}`, id)
}

// TestFaultCallerContinuesAsNew has operations end before their caller waits for them, and while it continues as new.
func TestFaultCallerContinuesAsNew(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.work(b.config(noBackstop))
	w := worker.New(b.client, "gatherers", worker.Options{})
	w.RegisterWorkflow(gatherer)
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)

	n := count(15, 200)
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprintf("early-%d", i))
	}
	for i := range n {
		ids = append(ids, fmt.Sprintf("meanwhile-%d", i))
	}
	run, err := b.client.ExecuteWorkflow(b.ctx, client.StartWorkflowOptions{ID: "gatherer", TaskQueue: "gatherers"},
		gatherer, ids, map[string]bellhop.State{}, receive.Snapshot{})
	require.NoError(t, err)
	first := run.GetRunID()
	early := b.begins(n, "early", func(_ int, id string) string { return provision(id, toCaller("gatherer")) })
	for _, id := range early { // the caller has not looked yet
		require.Equal(t, bellhop.ReceiptAcknowledged, b.closed(id).Callbacks[0].State)
	}
	require.NoError(t, b.client.SignalWorkflow(b.ctx, "gatherer", "", "begin", nil))
	meanwhile := b.begins(n, "meanwhile", func(_ int, id string) string { return provision(id, toCaller("gatherer")) })
	got := map[string]bellhop.State{}
	require.NoError(t, run.Get(b.ctx, &got))
	require.Len(t, got, 2*n)
	for id, state := range got {
		require.Equal(t, bellhop.Succeeded, state, id)
	}
	for _, id := range meanwhile {
		require.Equal(t, bellhop.ReceiptAcknowledged, b.closed(id).Callbacks[0].State)
	}
	last, err := b.client.DescribeWorkflowExecution(b.ctx, "gatherer", "")
	require.NoError(t, err)
	require.NotEqual(t, first, last.GetWorkflowExecutionInfo().GetExecution().GetRunId(), "it has continued as new")

	// A callback that pins the run that is over finds nobody; one to the workflow is no better, now that it has ended.
	for id, address := range map[string]string{
		"pinned": fmt.Sprintf(`{"workflow_id": "gatherer", "run_id": %q}`, first),
		"closed": `{"workflow_id": "gatherer"}`,
		"never":  `{"workflow_id": "nobody"}`,
	} {
		_, err := b.ops.Start(b.ctx, id, bellhop.Provision, []byte(provision(id, `{"target": "temporal", "address": `+address+`}`)))
		require.NoError(t, err)
		status := b.closed(id)
		require.Equal(t, bellhop.Succeeded, status.State, "a caller that is gone is no failure")
		require.Equal(t, bellhop.ReceiptUndeliverable, status.Callbacks[0].State)
		require.Equal(t, 1, status.Callbacks[0].Attempts, status.Callbacks[0].LastError)
	}
}

// TestFaultCallerIsReset has a caller be reset to its beginning while it is being called back.
func TestFaultCallerIsReset(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.work(b.config(noBackstop))
	got := b.call("caller")
	n := count(30, 300)
	ids := b.begins(n, "reset", func(i int, id string) string {
		return fmt.Sprintf(`{"tenant_id": "acme", "resource": %q, "provider": "simulated", "spec": {"image": "nginx:1.27"},
			"provider_config": {"ready_after": "%dms"}, "callbacks": [%s]}`, id, 100*(i+1), toCaller("caller"))
	})
	const resets = 3
	for i := range resets {
		b.until("it was called back some more", func() bool { return len(got()) >= (i+1)*n/(resets+1) })
		_, err := b.client.ResetWorkflowExecution(b.ctx, &workflowservice.ResetWorkflowExecutionRequest{
			Namespace: "default", WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: "caller"}, Reason: "a test",
			WorkflowTaskFinishEventId: b.firstWorkflowTask("caller"), RequestId: fmt.Sprintf("reset-%d", i),
		})
		require.NoError(t, err)
	}
	// What came before was applied to the new run by Temporal, what came since went there.
	b.settle(ids, got)
}

// firstWorkflowTask is the event by which a workflow's first task ended.
func (b *bench) firstWorkflowTask(id string) int64 {
	b.Helper()
	var all []*historypb.HistoryEvent
	history := b.client.GetWorkflowHistory(b.ctx, id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for history.HasNext() {
		event, err := history.Next()
		require.NoError(b, err)
		all = append(all, event)
	}
	first := slices.IndexFunc(all, func(e *historypb.HistoryEvent) bool {
		return e.GetEventType() == enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
	})
	require.GreaterOrEqual(b, first, 0)
	return all[first].GetEventId()
}

// TestFaultRedeliveryDuringBackoff has somebody ask for a redelivery, over and over, while deliveries back off.
func TestFaultRedeliveryDuringBackoff(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.shop()
	proxy := peers.StartFaultyProxy(s.URL, func(_ string, nth int) peers.Fault {
		switch {
		case nth <= 3:
			return peers.Unavailable
		case nth == 4:
			return peers.AppliedThenReset
		default:
			return peers.NoFault
		}
	})
	t.Cleanup(proxy.Close)
	b.work(b.config(noBackstop, "targets:\n"+s.target("shop", proxy.URL)))
	n := count(5, 100)
	ids := b.begins(n, "again", func(_ int, id string) string { return provision(id, `{"target": "shop"}`) })
	for _, id := range ids {
		b.until(id+" is told", func() bool {
			_, err := b.ops.Redeliver(b.ctx, id, "")
			return b.status(id).Callbacks[0].State == bellhop.ReceiptAcknowledged || err != nil
		})
	}
	b.ledger(ids, bellhop.ReceiptAcknowledged, proxy)
	callbacks, came, charged := b.effects(s)
	require.Equal(t, n, callbacks)
	require.Equal(t, n, charged)
	require.Equal(t, 2*n, came, "each was applied twice, had one effect, and was not sent again after that")
}

// TestFaultReceiverIsKilled has the receiver be killed while it is called back, between any two of its steps.
func TestFaultReceiverIsKilled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.patience = 5 * time.Minute // the pause after an attempt, when many have failed
	s := b.shop()
	b.work(b.config(noBackstop, "targets:\n"+s.target("shop", s.URL)))
	n, kills := 0, 0
	var ids []string
	// On a slow machine many arrive between two kills, and more operations are started.
	for batch := 0; kills <= 3; batch++ {
		ids = append(ids, b.begins(count(60, 1000), fmt.Sprintf("killed-%d", batch), func(i int, id string) string {
			return fmt.Sprintf(`{"tenant_id": "acme", "resource": %q, "provider": "simulated", "spec": {"image": "nginx:1.27"},
				"provider_config": {"ready_after": "%dms"}, "callbacks": [{"target": "shop"}]}`, id, 1000+50*i)
		})...)
		n = len(ids)
		for {
			noted, _, _ := b.effects(s)
			if noted >= n*9/10 {
				break
			}
			b.until("it takes some more", func() bool {
				more, _, _ := b.effects(s)
				return more > noted
			})
			s.Kill()
			require.NoError(t, s.open())
			kills++
		}
	}
	for _, id := range ids {
		require.Equal(t, bellhop.ReceiptAcknowledged, b.closed(id).Callbacks[0].State)
	}
	noted, came, charged := b.effects(s)
	t.Logf("killed %d times: %d callbacks came %d times", kills, noted, came)
	require.Equal(t, n, noted, "lost, or told of what is not")
	require.Equal(t, n, charged, "an effect was doubled")
}

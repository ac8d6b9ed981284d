package tests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/restatedev/sdk-go"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"bellhop"
	"bellhop/tests/peers"
)

// chance is a number from 0 to 99 for the nth attempt of a callback, the same in every run of a test.
func chance(callbackID string, nth int) int {
	hash := fnv.New32a()
	fmt.Fprintf(hash, "%s %d", callbackID, nth)
	return int(hash.Sum32() % 100)
}

// losing lets a fifth of all requests be applied, and then the connection be reset.
func losing(id string, nth int) peers.Fault {
	if chance(id, nth) < 20 {
		return peers.AppliedThenReset
	}
	return peers.NoFault
}

// ledger waits until operations have ended, and compares what their receipts say with what a proxy saw.
func (b *bench) ledger(ids []string, want bellhop.ReceiptState, proxy *peers.FaultyProxy) {
	b.Helper()
	for _, id := range ids {
		b.closed(id)
	}
	wrong, attempts, tries := 0, 0, proxy.Tries()
	for _, id := range ids {
		receipt := b.status(id).Callbacks[0]
		attempts += receipt.Attempts
		if receipt.State != want {
			wrong++
			b.Errorf("%s: the callback is %s, want %s: %s", id, receipt.State, want, receipt.LastError)
		}
		if seen := tries[receipt.CallbackID]; receipt.Attempts != seen {
			wrong++
			b.Errorf("%s: the receipt tells of %d attempts; %d were seen", id, receipt.Attempts, seen)
		}
	}
	b.Logf("%d callbacks in %d attempts: %d wrong receipts", len(ids), attempts, wrong)
}

func TestFaultLostAcknowledgementOfAWebhook(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.shop()
	proxy := peers.StartFaultyProxy(s.URL, losing)
	t.Cleanup(proxy.Close)
	b.work(b.config(noBackstop, "targets:\n"+s.target("shop", proxy.URL)))
	n := count(100, 1000)
	ids := b.begins(n, "lost", func(_ int, id string) string { return provision(id, `{"target": "shop"}`) })
	b.ledger(ids, bellhop.ReceiptAcknowledged, proxy)
	callbacks, came, charged := b.effects(s)
	require.Equal(t, n, callbacks, "lost, or told of what is not")
	require.Equal(t, n, charged, "an effect was doubled")
	require.Equal(t, len(proxy.Calls()), came, "each attempt was applied")
	require.Greater(t, came, n*110/100, "answers were lost")
	b.alike(proxy)
}

// alike makes sure that every attempt of a callback has sent the same bytes.
func (b *bench) alike(proxy *peers.FaultyProxy) {
	b.Helper()
	first := map[string]string{}
	for _, call := range proxy.Calls() {
		if before, again := first[call.CallbackID]; again && before != string(call.Body) {
			b.Errorf("%s was sent as\n%s\nand as\n%s", call.CallbackID, before, call.Body)
		}
		first[call.CallbackID] = string(call.Body)
	}
}

func TestFaultLostAcknowledgementOfASignal(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got := b.call("caller")
	proxy, config, env := b.through()
	var lost atomic.Int32
	tries := sync.Map{}
	proxy.Lose(func(request any) bool {
		in, ok := request.(*workflowservice.SignalWorkflowExecutionRequest)
		if !ok {
			return false
		}
		nth, _ := tries.LoadOrStore(in.GetRequestId(), new(atomic.Int32))
		if chance(in.GetRequestId(), int(nth.(*atomic.Int32).Add(1))) >= 20 { //nolint:forcetypeassert // we store nothing else
			return false
		}
		lost.Add(1)
		return true
	})
	b.work(config, env)
	n := count(100, 1000)
	ids := b.begins(n, "lost", func(_ int, id string) string {
		return provision(id, `{"target": "caller", "address": {"workflow_id": "caller"}}`)
	})
	b.settle(ids, got) // lost 0, doubled 0, wrongly reported 0
	require.Greater(t, int(lost.Load()), n/10)
	t.Logf("%d of %d answers were lost", lost.Load(), n+int(lost.Load()))
}

// asker is a caller whose activities wait for operations, and answers how many came to which end.
func asker(ctx workflow.Context, n int) (map[string]int, error) {
	var pending []workflow.Future
	for i := range n {
		ctx := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
			ActivityID: fmt.Sprint(i), StartToCloseTimeout: time.Hour, RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 1},
		})
		pending = append(pending, workflow.ExecuteActivity(ctx, "wait"))
	}
	ends := map[string]int{}
	for i, future := range pending {
		var outcome bellhop.Outcome
		err := future.Get(ctx, &outcome)
		var failed *temporal.ApplicationError
		switch {
		case err == nil && outcome.OperationID == fmt.Sprintf("asked-%d", i):
			ends[string(outcome.State)]++
		case errors.As(err, &failed) && failed.Details(&outcome) == nil && outcome.OperationID == fmt.Sprintf("asked-%d", i):
			ends[failed.Type()]++
		default:
			ends[fmt.Sprintf("%s: %v", outcome.OperationID, err)]++
		}
	}
	return ends, nil
}

// An activity can be completed only once: whose answer was lost is gone when it is tried again.
func TestFaultLostAcknowledgementOfAnActivity(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := count(60, 1000)
	w := worker.New(b.client, "askers", worker.Options{})
	w.RegisterWorkflow(asker)
	w.RegisterActivityWithOptions(func(context.Context) error { return activity.ErrResultPending }, activity.RegisterOptions{Name: "wait"})
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)
	run, err := b.client.ExecuteWorkflow(b.ctx, client.StartWorkflowOptions{ID: "asker", TaskQueue: "askers"}, asker, n)
	require.NoError(t, err)
	b.until("all activities wait", func() bool {
		found, err := b.client.DescribeWorkflowExecution(b.ctx, "asker", "")
		return err == nil && len(found.GetPendingActivities()) == n &&
			!slices.ContainsFunc(found.GetPendingActivities(), func(info *workflowpb.PendingActivityInfo) bool {
				return info.GetState() != enumspb.PENDING_ACTIVITY_STATE_STARTED
			})
	})
	proxy, config, env := b.through()
	var lost atomic.Int32
	proxy.Lose(func(request any) bool {
		var id string
		switch in := request.(type) {
		case *workflowservice.RespondActivityTaskCompletedByIdRequest:
			id = in.GetActivityId()
		case *workflowservice.RespondActivityTaskFailedByIdRequest:
			id = in.GetActivityId()
		default:
			return false
		}
		if chance(id, 1) >= 20 {
			return false
		}
		lost.Add(1)
		return true
	})
	b.work(config, env)
	ids := b.begins(n, "asked", func(i int, id string) string {
		script := "{}"
		if i%2 == 1 {
			script = `{"fail": {"code": "QUOTA_EXCEEDED"}}`
		}
		return fmt.Sprintf(`{"tenant_id": "acme", "resource": %q, "provider": "simulated", "spec": {"image": "nginx:1.27"},
			"provider_config": %s, "callbacks": [{"target": "caller", "address": {"workflow_id": "asker", "activity_id": "%d"}}]}`,
			id, script, i)
	})
	ends := map[string]int{}
	require.NoError(t, run.Get(b.ctx, &ends))
	require.Equal(t, map[string]int{"succeeded": n - n/2, "QUOTA_EXCEEDED": n / 2}, ends)
	states := map[bellhop.ReceiptState]int{}
	for _, id := range ids {
		states[b.closed(id).Callbacks[0].State]++
	}
	t.Logf("%d of %d answers were lost: %v", lost.Load(), n, states)
	require.Equal(t, n, states[bellhop.ReceiptAcknowledged]+states[bellhop.ReceiptAckPresumed])
	require.GreaterOrEqual(t, states[bellhop.ReceiptAckPresumed], int(lost.Load()))
	require.Greater(t, int(lost.Load()), n/10)
}

// Desk is a caller in Restate that is called as a handler, and notes what it was told.
type Desk struct{ told chan bellhop.Outcome }

// Told is called with an outcome.
func (d *Desk) Told(ctx restate.Context, outcome bellhop.Outcome) error {
	_, err := restate.Run(ctx, func(restate.RunContext) (restate.Void, error) {
		d.told <- outcome
		return restate.Void{}, nil
	})
	return err
}

func TestFaultLostAcknowledgementOfRestate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := peers.RestateFor(t)
	proxy := peers.StartFaultyProxy(r.Ingress, losing)
	t.Cleanup(proxy.Close)
	b.work(b.config(noBackstop, "targets: {restate: {type: restate, ingress: '"+proxy.URL+"'}}"))
	n := count(50, 1000)
	order := &Order{
		ended: make(chan bellhop.Outcome, 10*n),
		start: func(id, awakeable string) error {
			_, err := b.ops.Start(b.ctx, id, bellhop.Provision, []byte(provision(id,
				fmt.Sprintf(`{"target": "restate", "address": {"awakeable": %q}}`, awakeable))))
			return err
		},
	}
	desk := &Desk{told: make(chan bellhop.Outcome, 10*n)}
	b.serve(r, order, desk)

	ids := b.begins(n, "handled", func(_ int, id string) string {
		return provision(id, `{"target": "restate", "address": {"service": "Desk", "handler": "Told"}}`)
	})
	var waiting []string
	for i := range n {
		id := fmt.Sprintf("awaited-%d", i)
		waiting = append(waiting, id)
		response, err := http.Post(r.Ingress+"/Order/Place/send", "application/json", strings.NewReader(fmt.Sprintf("%q", id))) //nolint:noctx // a test
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
	}
	for _, id := range waiting {
		b.until(id+" is begun", func() bool {
			_, err := b.ops.Status(b.ctx, id)
			return err == nil
		})
	}
	b.ledger(ids, bellhop.ReceiptAcknowledged, proxy)
	b.ledger(waiting, bellhop.ReceiptAccepted, proxy)
	b.alike(proxy)
	for what, told := range map[string]chan bellhop.Outcome{"handler": desk.told, "awakeable": order.ended} {
		seen := map[string]int{}
		for range n {
			outcome := <-told
			seen[outcome.CallbackID]++
		}
		// Whatever came twice is written down in Restate by now, and would be here.
		require.Empty(t, told, "the %s was told twice", what)
		require.Len(t, seen, n, "the %s was not told of all", what)
	}
	require.Greater(t, len(proxy.Calls()), 2*n*110/100, "answers were lost")
}

// TestFaultDuplicateStorm has one callback delivered to the same receiver by many targets, and then a hundred times at
// once.
func TestFaultDuplicateStorm(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.shop()
	proxy := peers.StartFaultyProxy(s.URL, func(string, int) peers.Fault { return peers.NoFault })
	t.Cleanup(proxy.Close)
	targets := "targets:\n"
	var callbacks []string
	for i := range bellhop.MaxCallbacks {
		targets += s.target(fmt.Sprintf("shop-%d", i), proxy.URL)
		callbacks = append(callbacks, fmt.Sprintf(`{"target": "shop-%d"}`, i))
	}
	b.work(b.config(noBackstop, targets))
	storms := count(3, 100)
	ids := b.begins(storms, "storm", func(_ int, id string) string { return provision(id, strings.Join(callbacks, ", ")) })
	for _, id := range ids {
		for _, receipt := range b.closed(id).Callbacks {
			require.Equal(t, bellhop.ReceiptAcknowledged, receipt.State)
		}
	}
	b.alike(proxy)
	calls := map[string]peers.Call{}
	for _, call := range proxy.Calls() {
		calls[call.CallbackID] = call
	}
	require.Len(t, calls, storms)
	const copies = 100
	for _, call := range calls {
		var storm sync.WaitGroup
		begin := make(chan struct{})
		for range copies {
			storm.Go(func() {
				<-begin
				request, err := http.NewRequestWithContext(b.ctx, http.MethodPost, s.URL, strings.NewReader(string(call.Body)))
				if err != nil {
					t.Error(err)
					return
				}
				request.Header = call.Header.Clone()
				answer, err := http.DefaultClient.Do(request)
				if err != nil {
					t.Error(err)
					return
				}
				if answer.StatusCode != http.StatusNoContent {
					t.Errorf("a copy is answered %s", answer.Status)
				}
				_ = answer.Body.Close() //nolint:errcheck // only the status matters
			})
		}
		close(begin)
		storm.Wait()
	}
	noted, came, charged := b.effects(s)
	require.Equal(t, storms, noted)
	require.Equal(t, storms*(bellhop.MaxCallbacks+copies), came)
	require.Equal(t, storms, charged, "one effect each, however often it came")
	var outcome struct{ Data bellhop.Outcome }
	require.NoError(t, json.Unmarshal(calls["storm-0/succeeded"].Body, &outcome))
	require.Equal(t, "storm-0", outcome.Data.OperationID)
}

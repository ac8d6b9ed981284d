package activities_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	enumspb "go.temporal.io/api/enums/v1"
	failurepb "go.temporal.io/api/failure/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"bellhop"
	"bellhop/activities"
	"bellhop/bridge"
)

const token = "AAAA-task-token-of-order-42"

func newSuite() *testsuite.WorkflowTestSuite {
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	return &suite
}

// step is what one attempt meets.
type step struct {
	result bridge.Result
	// died lets the attempt end without a trace, as with its worker.
	died bool
}

func does(verdict bridge.Verdict) step {
	return step{result: bridge.Result{Verdict: verdict, Err: errors.New("said " + string(verdict))}}
}

func unknown(verdict bridge.Verdict) step {
	s := does(verdict)
	s.result.Unknown = true
	return s
}

var dies = step{died: true}

// target takes its steps, the last one for ever.
type target struct {
	steps  []step
	bodies []string
	at     []time.Time
	now    func() time.Time
	// down is how long after the first attempt nobody answers.
	down time.Duration
}

func (*target) Check(bellhop.Callback) error { return nil }

func (t *target) Deliver(_ context.Context, _ json.RawMessage, m bridge.Message) bridge.Result {
	t.bodies = append(t.bodies, string(m.Body))
	t.at = append(t.at, t.now())
	if t.down > 0 && t.at[len(t.at)-1].Sub(t.at[0]) < t.down {
		return unknown(bridge.Retry).result
	}
	s := t.steps[min(len(t.bodies), len(t.steps))-1]
	if s.died {
		panic("the worker is gone")
	}
	return s.result
}

func delivery() activities.Delivery {
	return activities.Delivery{
		Callback:   bellhop.Callback{Target: "orders", Address: json.RawMessage(`{"task_token": "` + token + `"}`)},
		CallbackID: "op-1/succeeded", Event: bellhop.EventProvisioned, State: bellhop.Succeeded,
		Outcome: json.RawMessage(`{"state":"succeeded"}`), ReachedAt: time.Now(),
	}
}

// deliver lets a workflow repeat the activity as long as it fails; within, if not 0, is the callback's deadline.
func deliver(t *testing.T, to *target, within time.Duration) (bellhop.Receipt, error) {
	t.Helper()
	env := newSuite().NewTestWorkflowEnvironment()
	env.SetTestTimeout(time.Minute)
	env.SetWorkerOptions(worker.Options{DeadlockDetectionTimeout: time.Minute})
	to.now = env.Now
	acts := &activities.Activities{Targets: map[string]bridge.Target{"orders": to}}
	env.RegisterActivity(acts)
	deliverOnce := func(ctx workflow.Context) (bellhop.Receipt, error) {
		ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
			StartToCloseTimeout: time.Minute, ScheduleToCloseTimeout: within,
			RetryPolicy: &temporal.RetryPolicy{
				InitialInterval: activities.FirstRetry, MaximumInterval: activities.MaxRetry,
				MaximumAttempts: 1000, // the test environment makes ten of none
			},
		})
		var receipt bellhop.Receipt
		err := workflow.ExecuteActivity(ctx, acts.Deliver, delivery()).Get(ctx, &receipt)
		if err != nil {
			activities.GaveUp(&receipt, err)
			receipt.LastError = err.Error()
		}
		return receipt, nil
	}
	env.ExecuteWorkflow(deliverOnce)
	var receipt bellhop.Receipt
	err := env.GetWorkflowResult(&receipt)
	return receipt, err
}

func TestMemoryOfAttempts(t *testing.T) {
	rows := []struct {
		name, reason string
		steps        []step
		state        bellhop.ReceiptState
		says         string
	}{
		{"Closed", "who is gone at the first attempt was not told", []step{does(bridge.Closed)}, bellhop.ReceiptUndeliverable, "said closed"},
		{
			"ClosedAfterRetries", "attempts that surely did not arrive prove nothing",
			[]step{does(bridge.Retry), does(bridge.Blocked), does(bridge.Closed)},
			bellhop.ReceiptUndeliverable, "said closed",
		},
		{
			"ClosedAfterUnknown", "an answer that was lost long ago is not forgotten",
			[]step{unknown(bridge.Retry), does(bridge.Retry), does(bridge.Blocked), does(bridge.Closed)},
			bellhop.ReceiptAckPresumed, "said closed",
		},
		{
			"ClosedAfterUnknownBlock", "a blocked attempt may have arrived as well",
			[]step{unknown(bridge.Blocked), does(bridge.Closed)},
			bellhop.ReceiptAckPresumed, "said closed",
		},
		{
			"ClosedAfterDeath", "what an attempt did that died with its worker is unknown",
			[]step{dies, does(bridge.Closed)},
			bellhop.ReceiptAckPresumed, "said closed",
		},
		{
			"ClosedAfterLateDeath", "also when the attempts before it had left their traces",
			[]step{does(bridge.Retry), dies, does(bridge.Retry), does(bridge.Closed)},
			bellhop.ReceiptAckPresumed, "said closed",
		},
		{
			"UndeliverableAfterUnknown", "a bad address is bad, whatever came before",
			[]step{unknown(bridge.Retry), does(bridge.Undeliverable)},
			bellhop.ReceiptUndeliverable, "said undeliverable",
		},
		{
			"AcknowledgedAfterDeath", "an acknowledgement needs no presumption",
			[]step{dies, dies, {result: bridge.Result{Verdict: bridge.Acknowledged}}},
			bellhop.ReceiptAcknowledged, "",
		},
		{
			"AcceptedAfterRetry", "the last error stays, as the story of a late callback",
			[]step{does(bridge.Retry), {result: bridge.Result{Verdict: bridge.Accepted}}},
			bellhop.ReceiptAccepted, "said retry",
		},
		{
			"UnknownVerdict", "an engine that answers nonsense is tried again, visibly",
			[]step{{result: bridge.Result{Verdict: "maybe"}}, {result: bridge.Result{Verdict: bridge.Acknowledged}}},
			bellhop.ReceiptAcknowledged, "",
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			to := &target{steps: row.steps}
			receipt, err := deliver(t, to, 0)
			if err != nil {
				t.Fatal(err)
			}
			if receipt.State != row.state || receipt.LastError != row.says || receipt.Attempts != len(row.steps) || receipt.CallbackID != "op-1/succeeded" {
				t.Errorf("receipt is %+v, want it %s after %d attempts, saying %q: %s", receipt, row.state, len(row.steps), row.says, row.reason)
			}
			if receipt.FirstAttemptAt.IsZero() || receipt.AcknowledgedAt.IsZero() != (row.state == bellhop.ReceiptUndeliverable) {
				t.Errorf("receipt has the times %s and %s", receipt.FirstAttemptAt, receipt.AcknowledgedAt)
			}
			for i, body := range to.bodies {
				if body != `{"state":"succeeded"}` {
					t.Errorf("attempt %d sent %s", i+1, body)
				}
			}
		})
	}
}

// A target that is spared has not been called: the receipt's attempts are those that the caller can have seen.
func TestUntriedIsNoAttempt(t *testing.T) {
	t.Parallel()
	spared := does(bridge.Untried)
	to := &target{steps: []step{spared, spared, unknown(bridge.Retry), spared, spared, {result: bridge.Result{Verdict: bridge.Acknowledged}}}}
	receipt, err := deliver(t, to, 0)
	if err != nil {
		t.Fatal(err)
	}
	if receipt.Attempts != 2 || receipt.State != bellhop.ReceiptAcknowledged || receipt.FirstAttemptAt.IsZero() {
		t.Errorf("receipt is %+v; called at %s", receipt, to.at)
	}
	// It is asked after less and less often, as if it had been tried.
	for i, want := range []time.Duration{time.Second, 2 * time.Second, time.Second, 8 * time.Second, 16 * time.Second} {
		if got := to.at[i+1].Sub(to.at[i]); got < want*4/5 || got > want*6/5 {
			t.Errorf("call %d came after %s, want %s give or take a fifth", i+2, got, want)
		}
	}

	gone := &target{steps: []step{spared, spared, does(bridge.Closed)}}
	if receipt, err = deliver(t, gone, 0); err != nil {
		t.Fatal(err)
	}
	if receipt.State != bellhop.ReceiptUndeliverable || receipt.Attempts != 1 {
		t.Errorf("receipt is %+v: nothing that was not tried can have arrived", receipt)
	}
}

func TestRetryAfterIsBounded(t *testing.T) {
	t.Parallel()
	greedy := does(bridge.Retry)
	greedy.result.RetryAfter = 1000 * time.Hour
	to := &target{steps: []step{greedy, {result: bridge.Result{Verdict: bridge.Acknowledged}}}}
	if _, err := deliver(t, to, 0); err != nil {
		t.Fatal(err)
	}
	if waited := to.at[1].Sub(to.at[0]); waited != activities.MaxRetryAfter {
		t.Errorf("a target that asked for weeks was left alone for %s", waited)
	}
}

func TestGivenUpAtItsDeadline(t *testing.T) {
	t.Parallel()
	secret := does(bridge.Retry)
	secret.result.Err = fmt.Errorf("POST with %s: connection refused", token)
	to := &target{steps: []step{secret}}
	receipt, err := deliver(t, to, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if receipt.Attempts != len(to.bodies) || receipt.Attempts < 3 || receipt.FirstAttemptAt.IsZero() {
		t.Errorf("receipt is %+v after %d attempts", receipt, len(to.bodies))
	}
	if strings.Contains(receipt.LastError, token) || !strings.Contains(receipt.LastError, "POST with [redacted]: connection refused") {
		t.Errorf("the error is %q", receipt.LastError)
	}
}

// A redelivery by hand resets the activity: Temporal counts from 1 again, and the memory goes on.
func TestMemorySurvivesReset(t *testing.T) {
	first := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		name   string
		memory map[string]any
		step   step
		want   bellhop.Receipt
	}{
		{
			"Unknown",
			map[string]any{"first_attempt_at": first, "attempts": 7, "ended": 7, "unknown": true, "last_error": "reset"},
			does(bridge.Closed),
			bellhop.Receipt{State: bellhop.ReceiptAckPresumed, Attempts: 8, LastError: "said closed", FirstAttemptAt: first},
		},
		{
			"Known",
			map[string]any{"first_attempt_at": first, "attempts": 7, "ended": 7, "unknown": false, "last_error": "refused"},
			does(bridge.Closed),
			bellhop.Receipt{State: bellhop.ReceiptUndeliverable, Attempts: 8, LastError: "said closed", FirstAttemptAt: first},
		},
		{
			"Acknowledged",
			map[string]any{"first_attempt_at": first, "attempts": 2, "ended": 2, "last_error": "refused"},
			step{result: bridge.Result{Verdict: bridge.Acknowledged}},
			bellhop.Receipt{State: bellhop.ReceiptAcknowledged, Attempts: 3, LastError: "refused", FirstAttemptAt: first},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			env := newSuite().NewTestActivityEnvironment()
			acts := &activities.Activities{Targets: map[string]bridge.Target{"orders": &target{steps: []step{row.step}, now: time.Now}}}
			env.RegisterActivity(acts)
			env.SetHeartbeatDetails(row.memory)
			answer, err := env.ExecuteActivity(acts.Deliver, delivery())
			if err != nil {
				t.Fatal(err)
			}
			var got bellhop.Receipt
			if err := answer.Get(&got); err != nil {
				t.Fatal(err)
			}
			got.AcknowledgedAt = time.Time{}
			row.want.Target, row.want.CallbackID = "orders", "op-1/succeeded"
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("receipt (-want +got):\n%s", diff)
			}
		})
	}
}

// The first attempt after a reset has the number of an earlier one. What it did is unknown when it dies all the same.
func TestAttemptAfterAResetThatDied(t *testing.T) {
	t.Parallel()
	env := newSuite().NewTestActivityEnvironment()
	acts := &activities.Activities{Targets: map[string]bridge.Target{"orders": &target{steps: []step{dies}, now: time.Now}}}
	env.RegisterActivity(acts)
	env.SetHeartbeatDetails(map[string]any{"attempts": 1, "ended": 1, "last_error": "refused"})
	var left map[string]any
	env.SetOnActivityHeartbeatListener(func(_ *activity.Info, details converter.EncodedValues) {
		if err := details.Get(&left); err != nil {
			t.Error(err)
		}
	})
	func() {
		defer func() { recover() }() //nolint:errcheck // the worker is gone
		_, err := env.ExecuteActivity(acts.Deliver, delivery())
		t.Log(err)
	}()
	if left["ended"] != 0.0 || left["attempts"] != 1.0 {
		t.Errorf("it left %v: the next attempt would take it for one that ended", left)
	}
}

func TestRedeliveryKnowsThatAnAttemptMayHaveArrived(t *testing.T) {
	t.Parallel()
	env := newSuite().NewTestActivityEnvironment()
	acts := &activities.Activities{Targets: map[string]bridge.Target{"orders": &target{steps: []step{does(bridge.Closed)}, now: time.Now}}}
	env.RegisterActivity(acts)
	again := delivery()
	again.Unknown = true
	answer, err := env.ExecuteActivity(acts.Deliver, again)
	if err != nil {
		t.Fatal(err)
	}
	var receipt bellhop.Receipt
	if err := answer.Get(&receipt); err != nil || receipt.State != bellhop.ReceiptAckPresumed {
		t.Errorf("the receipt is %+v, %v", receipt, err)
	}
}

func TestWaitsBetweenAttempts(t *testing.T) {
	t.Parallel()
	throttled := does(bridge.Retry)
	throttled.result.RetryAfter = time.Hour
	to := &target{steps: []step{
		does(bridge.Retry), does(bridge.Retry), does(bridge.Retry), does(bridge.Blocked), throttled, does(bridge.Retry),
		{result: bridge.Result{Verdict: bridge.Acknowledged}},
	}}
	if _, err := deliver(t, to, 0); err != nil {
		t.Fatal(err)
	}
	for i, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Minute, time.Hour, 32 * time.Second} {
		got := to.at[i+1].Sub(to.at[i])
		if want == time.Hour {
			if got != want {
				t.Errorf("a target that asked for an hour was left alone for %s", got)
			}
		} else if got < want*4/5 || got > want*6/5 {
			t.Errorf("attempt %d came after %s, want %s give or take a fifth", i+2, got, want)
		}
	}
}

func TestOutageOfADay(t *testing.T) {
	t.Parallel()
	const down = 24 * time.Hour
	var back []time.Duration
	for range 20 {
		to := &target{down: down, steps: []step{{result: bridge.Result{Verdict: bridge.Acknowledged}}}}
		receipt, err := deliver(t, to, 0)
		if err != nil {
			t.Fatal(err)
		}
		// Nine in the first ten minutes, then one every five.
		if receipt.State != bellhop.ReceiptAcknowledged || receipt.Attempts != len(to.at) || receipt.Attempts < 270 || receipt.Attempts > 320 {
			t.Errorf("it is %s after %d attempts, of which the target saw %d; want some 300: %s", receipt.State, receipt.Attempts, len(to.at), receipt.LastError)
		}
		back = append(back, to.at[len(to.at)-1].Sub(to.at[0])-down)
	}
	slices.Sort(back)
	if last, spread := back[len(back)-1], back[len(back)-1]-back[0]; last > activities.MaxRetry*6/5 || spread < time.Minute {
		t.Errorf("up again, they come within %s, %s apart; want them spread, and none later than a pause", last, spread)
	}
}

func TestPendingTellsWhatTemporalKnows(t *testing.T) {
	first := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	details := func(memory map[string]any) *workflowpb.PendingActivityInfo {
		payloads, err := converter.GetDefaultDataConverter().ToPayloads(memory)
		if err != nil {
			t.Fatal(err)
		}
		return &workflowpb.PendingActivityInfo{HeartbeatDetails: payloads}
	}
	failure := func(info *workflowpb.PendingActivityInfo, kind, message string) *workflowpb.PendingActivityInfo {
		info.LastFailure = &failurepb.Failure{Message: message, FailureInfo: &failurepb.Failure_ApplicationFailureInfo{
			ApplicationFailureInfo: &failurepb.ApplicationFailureInfo{Type: kind},
		}}
		return info
	}
	for _, row := range []struct {
		name, reason string
		info         func() *workflowpb.PendingActivityInfo
		want         bellhop.Receipt
	}{
		{
			"Scheduled", "nothing has been tried yet",
			func() *workflowpb.PendingActivityInfo { return &workflowpb.PendingActivityInfo{Attempt: 1} },
			bellhop.Receipt{State: bellhop.ReceiptDelivering},
		},
		{
			"First", "the attempt under way counts",
			func() *workflowpb.PendingActivityInfo {
				return &workflowpb.PendingActivityInfo{Attempt: 1, State: enumspb.PENDING_ACTIVITY_STATE_STARTED}
			},
			bellhop.Receipt{State: bellhop.ReceiptDelivering, Attempts: 1},
		},
		{
			"Backoff", "what failed is told while the next attempt waits",
			func() *workflowpb.PendingActivityInfo {
				info := failure(details(map[string]any{"first_attempt_at": first, "attempts": 3, "ended": 3, "last_error": "refused"}), "delivering", "refused")
				info.Attempt = 4
				return info
			},
			bellhop.Receipt{State: bellhop.ReceiptDelivering, Attempts: 3, LastError: "refused", FirstAttemptAt: first},
		},
		{
			"Blocked", "an operator sees that it is an operator's turn",
			func() *workflowpb.PendingActivityInfo {
				info := failure(details(map[string]any{"first_attempt_at": first, "attempts": 1, "ended": 1, "last_error": "denied"}), "blocked", "denied")
				info.Attempt = 2
				return info
			},
			bellhop.Receipt{State: bellhop.ReceiptBlocked, Attempts: 1, LastError: "denied", FirstAttemptAt: first},
		},
		{
			"Reset", "a reset does not make the attempts before it undone",
			func() *workflowpb.PendingActivityInfo {
				info := details(map[string]any{"first_attempt_at": first, "attempts": 9, "ended": 9, "last_error": "refused"})
				info.Attempt, info.State = 1, enumspb.PENDING_ACTIVITY_STATE_STARTED
				return info
			},
			bellhop.Receipt{State: bellhop.ReceiptDelivering, Attempts: 10, LastError: "refused", FirstAttemptAt: first},
		},
		{
			"Spared", "what was not tried is no attempt, whatever Temporal counts",
			func() *workflowpb.PendingActivityInfo {
				info := failure(details(map[string]any{"first_attempt_at": first, "attempts": 2, "ended": 6, "last_error": "not tried"}), "delivering", "not tried")
				info.Attempt = 7
				return info
			},
			bellhop.Receipt{State: bellhop.ReceiptDelivering, Attempts: 2, LastError: "not tried", FirstAttemptAt: first},
		},
		{
			"Died", "an attempt that left nothing is counted by Temporal, and its failure told",
			func() *workflowpb.PendingActivityInfo {
				return failure(&workflowpb.PendingActivityInfo{Attempt: 2}, "", "activity StartToClose timeout")
			},
			bellhop.Receipt{State: bellhop.ReceiptDelivering, Attempts: 1, LastError: "activity StartToClose timeout"},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			var got bellhop.Receipt
			activities.Pending(&got, row.info(), converter.GetDefaultDataConverter())
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("receipt (-want +got): %s\n%s", row.reason, diff)
			}
		})
	}
}

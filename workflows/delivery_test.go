package workflows_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bellhop"
	"bellhop/bridge"
)

func TestDelivery(t *testing.T) {
	throttled := bridge.Result{Verdict: bridge.Retry, RetryAfter: 40 * time.Second, Err: errors.New("slow down")}
	rows := []struct {
		name, reason string
		answers      []bridge.Result
		deadline     string
		receipt      bellhop.ReceiptState
		attempts     int
		says         string
		// first is the time between the first two attempts, from and to.
		first [2]time.Duration
	}{
		{
			name: "Acknowledged", reason: "the first answer settles it", answers: []bridge.Result{acknowledged},
			receipt: bellhop.ReceiptAcknowledged, attempts: 1,
		},
		{
			name: "Accepted", reason: "what a protocol cannot prove is not called acknowledged",
			answers: []bridge.Result{{Verdict: bridge.Accepted}}, receipt: bellhop.ReceiptAccepted, attempts: 1,
		},
		{
			name: "Retried", reason: "a caller that is away for a while is told when it is back",
			answers: []bridge.Result{refused, lost, refused, acknowledged}, receipt: bellhop.ReceiptAcknowledged, attempts: 4,
			says: "connection refused", first: [2]time.Duration{800 * time.Millisecond, 1200 * time.Millisecond},
		},
		{
			name: "RetryAfter", reason: "a target that asks to be left alone is left alone",
			answers: []bridge.Result{throttled, acknowledged}, receipt: bellhop.ReceiptAcknowledged, attempts: 2,
			says: "slow down", first: [2]time.Duration{40 * time.Second, 40 * time.Second},
		},
		{
			name: "Blocked", reason: "what an operator must mend is tried slowly, and delivered once it is mended",
			answers: []bridge.Result{blocked, acknowledged}, receipt: bellhop.ReceiptAcknowledged, attempts: 2,
			says: "permission denied for [redacted]", first: [2]time.Duration{4 * time.Minute, 6 * time.Minute},
		},
		{
			name: "Closed", reason: "a caller that is gone was not told", answers: []bridge.Result{gone404},
			receipt: bellhop.ReceiptUndeliverable, attempts: 1, says: "no such workflow",
		},
		{
			name: "ClosedAfterRefusal", reason: "an attempt that surely did not arrive proves nothing",
			answers: []bridge.Result{refused, gone404}, receipt: bellhop.ReceiptUndeliverable, attempts: 2, says: "no such workflow",
		},
		{
			name: "ClosedAfterUnknown", reason: "a caller that is gone after an answer was lost presumably went because it was told",
			answers: []bridge.Result{lost, refused, gone404}, receipt: bellhop.ReceiptAckPresumed, attempts: 3, says: "no such workflow",
		},
		{
			name: "ClosedUnknown", reason: "the attempt itself may be the one that arrived",
			answers: []bridge.Result{{Verdict: bridge.Closed, Unknown: true, Err: errors.New("gone")}},
			receipt: bellhop.ReceiptAckPresumed, attempts: 1, says: "gone",
		},
		{
			name: "Undeliverable", reason: "a token that is refused is refused for ever, whatever came before",
			answers: []bridge.Result{lost, badAddress}, receipt: bellhop.ReceiptUndeliverable, attempts: 2, says: "bad token [redacted]",
		},
		{
			name: "DeadlineWhileRetrying", reason: "after its deadline a callback is given up, and the receipt still tells what was tried",
			answers: []bridge.Result{lost}, deadline: "20s", receipt: bellhop.ReceiptUndeliverable, attempts: 5,
			says: "its deadline passed: delivering: connection reset after [redacted]",
		},
		{
			name: "DeadlineWhileBlocked", reason: "an operator who comes too late comes too late",
			answers: []bridge.Result{blocked}, deadline: "1m", receipt: bellhop.ReceiptUndeliverable, attempts: 1,
			says: "its deadline passed: blocked: permission denied",
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := setup(t)
			s.platform.ask = inTurn(ready())
			s.caller("orders", row.answers...)
			with := fields{}
			if row.deadline != "" {
				with["callbacks"] = []fields{callback("orders", fields{"deadline": row.deadline})}
			}
			end := s.carryOut(bellhop.Provision, order(bellhop.Provision, with))
			if end.outcome.State != bellhop.Succeeded {
				t.Fatalf("the operation is %s: what becomes of a callback changes nothing of it", end.outcome.State)
			}
			receipt := end.receipt(t, "orders")
			if receipt.State != row.receipt || !strings.Contains(receipt.LastError, row.says) || row.says == "" && receipt.LastError != "" {
				t.Errorf("receipt is %+v, want it %s, saying %q: %s", receipt, row.receipt, row.says, row.reason)
			}
			rings := s.callers["orders"].rings()
			if receipt.Attempts != len(rings) || receipt.FirstAttemptAt.IsZero() {
				t.Errorf("receipt is %+v though there were %d attempts", receipt, len(rings))
			}
			// How many attempts a deadline leaves room for depends on the jitter.
			if len(rings) != row.attempts && !(row.deadline != "" && len(rings) >= row.attempts-1 && len(rings) <= row.attempts+1) {
				t.Errorf("there were %d attempts, want %d: %s", len(rings), row.attempts, row.reason)
			}
			if settledWell := row.receipt != bellhop.ReceiptUndeliverable; settledWell == receipt.AcknowledgedAt.IsZero() {
				t.Errorf("receipt of what is %s is acknowledged at %s", row.receipt, receipt.AcknowledgedAt)
			}
			if row.first[1] > 0 && len(rings) > 1 {
				if wait := rings[1].At.Sub(rings[0].At); wait < row.first[0] || wait > row.first[1] {
					t.Errorf("the second attempt came after %s, want %s to %s: %s", wait, row.first[0], row.first[1], row.reason)
				}
			}
			for _, ring := range rings {
				if row.deadline == "20s" && ring.At.Sub(rings[0].At) > 20*time.Second {
					t.Errorf("an attempt was made %s after the end: its deadline had passed", ring.At.Sub(rings[0].At))
				}
				if !strings.Contains(ring.Address, secretToken) {
					t.Errorf("the target was given the address %s, want it as the caller gave it", ring.Address)
				}
			}
			if !strings.Contains(end.details, "| `orders` | "+string(row.receipt)+" |") {
				t.Errorf("Temporal's UI shows %q, want the receipt", end.details)
			}
		})
	}
}

func TestBackoffOfDelivery(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.platform.ask = inTurn(ready())
	s.caller("orders", refused, refused, refused, refused, refused, refused, refused, refused, refused, acknowledged)
	s.carryOut(bellhop.Provision, order(bellhop.Provision, nil))
	rings := s.callers["orders"].rings()
	for i := range rings[1:] {
		wait, want := rings[i+1].At.Sub(rings[i].At), time.Second<<i
		if wait < want*4/5 || wait > want*6/5 {
			t.Errorf("attempt %d came after %s, want %s give or take a fifth", i+2, wait, want)
		}
	}
}

func TestRunningComesBeforeTheEnd(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.caller("orders", refused, lost, acknowledged)
	s.caller("billing", refused, acknowledged)
	s.observed(time.Second, ready()) // while running is still being delivered
	states := []string{"running", "succeeded", "failed", "cancelled"}
	end := s.carryOut(bellhop.Provision, order(bellhop.Provision, fields{"callbacks": []fields{
		callback("orders", fields{"states": states}), callback("billing", nil),
	}}))
	want := []string{"op-1/running", "op-1/running", "op-1/running", "op-1/succeeded"}
	if diff := cmp.Diff(want, s.callers["orders"].told()); diff != "" {
		t.Errorf("orders was told (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"op-1/succeeded", "op-1/succeeded"}, s.callers["billing"].told()); diff != "" {
		t.Errorf("billing, which did not ask for running, was told (-want +got):\n%s", diff)
	}
	first := s.callers["orders"].rings()[0]
	if first.Event != bellhop.EventRunning || first.At != start {
		t.Errorf("running was told as %s at %s", first.Event, first.At)
	}
	if !strings.Contains(string(first.Body), `"web-1"`) {
		t.Errorf("running was told as %s, want the ids that are known", first.Body)
	}
	if receipt := end.receipt(t, "orders"); receipt.CallbackID != "op-1/succeeded" || receipt.State != bellhop.ReceiptAcknowledged {
		t.Errorf("receipt is %+v", receipt)
	}
}

func TestRunningIsToldOfWhatWasDoneAtOnce(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.platform.ask = inTurn(ready())
	s.carryOut(bellhop.Provision, order(bellhop.Provision, fields{"callbacks": []fields{
		callback("orders", fields{"states": []string{"running", "succeeded"}}),
	}}))
	if diff := cmp.Diff([]string{"op-1/running", "op-1/succeeded"}, s.callers["orders"].told()); diff != "" {
		t.Errorf("orders was told (-want +got):\n%s", diff)
	}
}

func TestOnlyStatesThatWereAskedFor(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.caller("pager")
	s.platform.ask = inTurn(ready())
	end := s.carryOut(bellhop.Provision, order(bellhop.Provision, fields{"callbacks": []fields{
		callback("orders", nil), callback("pager", fields{"states": []string{"failed"}}),
	}}))
	if told := s.callers["pager"].told(); len(told) > 0 {
		t.Errorf("pager, which asked for failed only, was told %v", told)
	}
	if receipt := end.receipt(t, "pager"); receipt.State != bellhop.ReceiptPending || receipt.Attempts != 0 {
		t.Errorf("receipt is %+v, want it pending", receipt)
	}
}

func TestBrokenTargetDelaysNoOther(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.caller("blackhole", lost)
	s.caller("forbidden", blocked)
	var during bellhop.Status
	s.callers["blackhole"].answer = func(n int, _ bridge.Message) bridge.Result {
		if n == 3 {
			s.meanwhile(func() { during = s.status() })
		}
		return lost
	}
	s.observed(time.Second, ready())
	end := s.carryOut(bellhop.Provision, order(bellhop.Provision, fields{"callbacks": []fields{
		callback("blackhole", fields{"deadline": "1m"}), callback("forbidden", fields{"deadline": "1m"}), callback("orders", nil),
	}}))
	rings := s.callers["orders"].rings()
	if len(rings) != 1 || rings[0].At != end.outcome.FinishedAt {
		t.Errorf("orders was rung at %v, want it once at %s", rings, end.outcome.FinishedAt)
	}
	if len(during.Callbacks) != 3 || during.Callbacks[2].State != bellhop.ReceiptAcknowledged ||
		during.Callbacks[0].State != bellhop.ReceiptDelivering || during.Callbacks[0].CallbackID != "op-1/succeeded" {
		t.Errorf("receipts are %+v while the black hole is tried, want orders acknowledged", during.Callbacks)
	}
	if during.State != bellhop.Succeeded || during.FinishedAt != start.Add(time.Second) {
		t.Errorf("the operation is %s while the black hole is tried: it does not wait for its callers", during.State)
	}
}

func TestUnconfiguredTarget(t *testing.T) {
	t.Run("Unchecked", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		end := s.carryOut(bellhop.Provision, order(bellhop.Provision, fields{
			"provider": "", "callbacks": []fields{callback("nowhere", nil)},
		}))
		if receipt := end.receipt(t, "nowhere"); receipt.State != bellhop.ReceiptUndeliverable || receipt.Attempts != 1 {
			t.Errorf("receipt is %+v: the caller's mistake is nothing that an operator would mend", receipt)
		}
	})
	t.Run("Checked", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		target := s.callers["orders"]
		s.platform.observe = inTurn(ready())
		s.at(30*time.Second, func() { delete(s.activities.Targets, "orders") })
		var during bellhop.Status
		s.at(2*time.Minute, func() { during = s.status() })
		s.at(3*time.Minute, func() { s.activities.Targets["orders"] = target })
		end := s.carryOut(bellhop.Provision, order(bellhop.Provision, nil))
		if during.State != bellhop.Succeeded || during.Callbacks[0].State != bellhop.ReceiptDelivering {
			t.Errorf("status is %s, %+v while the target is missing", during.State, during.Callbacks)
		}
		receipt := end.receipt(t, "orders")
		if receipt.State != bellhop.ReceiptAcknowledged || receipt.Attempts != 2 || !strings.Contains(receipt.LastError, `"orders" is not configured`) {
			t.Errorf("receipt is %+v: a target that an operator took away is told once it is back", receipt)
		}
	})
}

func TestNoCallbacks(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.platform.ask = inTurn(ready())
	end := s.carryOut(bellhop.Provision, order(bellhop.Provision, fields{"callbacks": nil}))
	if end.status.Callbacks == nil || len(end.status.Callbacks) != 0 {
		t.Errorf("callbacks are %v, want an empty list, which JSON writes as []", end.status.Callbacks)
	}
}

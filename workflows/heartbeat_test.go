package workflows_test

import (
	"context"
	"maps"
	"strings"
	"testing"
	"time"

	"bellhop"
	"bellhop/bridge"
)

func beating(with fields) fields {
	members := fields{"heartbeat": "10s"}
	maps.Copy(members, with)
	return callback("orders", members)
}

// The tests' own clockwork gives an activity no more than ten attempts, so none of these takes more beats than that.

// withoutGap fails the test where a caller heard nothing for longer than allowed.
func withoutGap(t *testing.T, beats []time.Duration, allowed, until time.Duration) {
	t.Helper()
	last := time.Duration(0)
	for _, at := range append(beats, until) {
		if at-last > allowed {
			t.Errorf("the caller heard nothing from %s to %s; beats came after %s", last, at, beats)
		}
		last = at
	}
}

func TestHeartbeatsFromTheStartUntilTheCallerHasIt(t *testing.T) {
	t.Parallel()
	s := setup(t)
	orders := s.caller("orders", refused, refused, refused, refused, acknowledged)
	s.observed(time.Minute, ready())
	s.carryOut(bellhop.Provision, order(bellhop.Provision, fields{"callbacks": []fields{beating(nil)}}))
	rings := orders.rings()
	rung := rings[len(rings)-1].At.Sub(start)
	beats := orders.beaten()
	withoutGap(t, beats, 10*time.Second, rung)
	if beats[0] > time.Second {
		t.Errorf("the first beat came after %s; a caller's patience begins with the operation", beats[0])
	}
	if last := beats[len(beats)-1]; last > rung {
		t.Errorf("a beat came after %s though the caller had its callback after %s", last, rung)
	}
}

func TestHeartbeatsEndWithTheirOwnCallback(t *testing.T) {
	for name, states := range map[string][]string{"Rung": {"succeeded"}, "NotToBeRung": {"failed"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setup(t)
			s.caller("pager", refused, refused, refused, refused, refused, refused, acknowledged)
			s.observed(15*time.Second, ready())
			s.carryOut(bellhop.Provision, order(bellhop.Provision, fields{"callbacks": []fields{
				beating(fields{"states": states}), callback("pager", nil),
			}}))
			if beats := s.callers["orders"].beaten(); len(beats) != 2 {
				t.Errorf("the callback was settled after 15s and the beats came after %s", beats)
			}
		})
	}
}

func TestCancelledOperationKeepsItsCallerAlive(t *testing.T) {
	t.Parallel()
	s := setup(t)
	orders := s.caller("orders", refused, refused, refused, refused, refused, acknowledged)
	s.at(20*time.Second, s.CancelWorkflow)
	end := s.carryOut(bellhop.Provision, order(bellhop.Provision, fields{"callbacks": []fields{beating(nil)}}))
	rings := orders.rings()
	withoutGap(t, orders.beaten(), 10*time.Second, rings[len(rings)-1].At.Sub(start))
	if end.outcome.State != bellhop.Cancelled {
		t.Errorf("the operation is %s", end.outcome.State)
	}
}

func TestFailedHeartbeatsFailNothing(t *testing.T) {
	t.Parallel()
	s := setup(t)
	orders := s.caller("orders")
	orders.beat = func(n int) bridge.Result {
		switch {
		case n%3 == 0:
			return blocked
		case n%2 == 0:
			return lost
		case n == 7:
			panic("the worker is gone")
		default:
			return refused
		}
	}
	s.observed(40*time.Second, ready())
	end := s.carryOut(bellhop.Provision, order(bellhop.Provision, fields{"callbacks": []fields{beating(nil)}}))
	withoutGap(t, orders.beaten(), 10*time.Second, 40*time.Second)
	if end.outcome.State != bellhop.Succeeded || end.receipt(t, "orders").State != bellhop.ReceiptAcknowledged {
		t.Errorf("the operation is %s and the callback %+v", end.outcome.State, end.receipt(t, "orders"))
	}
}

func TestAbandoned(t *testing.T) {
	for _, row := range []struct {
		name, reason string
		onAbandoned  string
		onCancel     string
		answer       bridge.Result
		state        bellhop.State
		says         string
	}{
		{"Default", "the compute may be wanted all the same", "", "", gone404, bellhop.Succeeded, ""},
		{"Continue", "so it was asked", "continue", "", gone404, bellhop.Succeeded, ""},
		{"BadToken", "a token that was never good is no better", "", "", badAddress, bellhop.Succeeded, ""},
		{
			"Cancel", "nobody wants it any more", "cancel", "", gone404, bellhop.Cancelled,
			"the operation was cancelled because its caller, of target orders, waits no longer; what exists was left as it is",
		},
		{
			"CancelAndRemove", "on_cancel says what becomes of what exists", "cancel", "remove", gone404, bellhop.Cancelled,
			"the operation was cancelled because its caller, of target orders, waits no longer and what existed was removed",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := setup(t)
			orders := s.caller("orders")
			orders.beat = func(n int) bridge.Result {
				if n >= 4 {
					return row.answer
				}
				return acknowledged
			}
			s.caller("pager")
			var during bellhop.Status
			s.at(40*time.Second, func() { during = s.status() })
			s.observed(time.Minute, ready())
			// What is removed is gone at once.
			s.platform.ask = func(_ context.Context, op bellhop.Operation, _ int) (bellhop.Observation, error) {
				if op.Verb == bellhop.Delete {
					return gone(), nil
				}
				return pending(), nil
			}
			given := beating(nil)
			if row.onAbandoned != "" {
				given["on_abandoned"] = row.onAbandoned
			}
			with := fields{"callbacks": []fields{given, callback("pager", nil)}}
			if row.onCancel != "" {
				with["on_cancel"] = row.onCancel
			}
			end := s.carryOut(bellhop.Provision, order(bellhop.Provision, with))
			if end.outcome.State != row.state || row.says != "" && end.outcome.Error.Message != row.says {
				t.Errorf("the operation is %s: %v; %s", end.outcome.State, end.outcome.Error, row.reason)
			}
			if len(orders.beaten()) != 4 || len(orders.rings()) != 0 {
				t.Errorf("a caller that is gone had the beats %s and was rung %v", orders.beaten(), orders.told())
			}
			if row.state == bellhop.Succeeded && during.Callbacks[0].State != bellhop.ReceiptUndeliverable {
				t.Errorf("the receipt is %+v a moment after the caller was found gone", during.Callbacks[0])
			}
			receipt := end.receipt(t, "orders")
			if receipt.State != bellhop.ReceiptUndeliverable || receipt.CallbackID != end.outcome.CallbackID ||
				!strings.HasPrefix(receipt.LastError, "the caller waits no longer: ") {
				t.Errorf("the receipt is %+v", receipt)
			}
			if told := s.callers["pager"].told(); len(told) != 1 || told[0] != end.outcome.CallbackID {
				t.Errorf("the other caller was told %v", told)
			}
		})
	}
}

// A beat that crosses the delivery finds the task closed because it was completed.
func TestHeartbeatThatCrossesTheDelivery(t *testing.T) {
	t.Parallel()
	s := setup(t)
	orders := s.callers["orders"]
	orders.beat = func(int) bridge.Result {
		if len(orders.rings()) > 0 {
			return gone404
		}
		return acknowledged
	}
	orders.answer = func(n int, _ bridge.Message) bridge.Result {
		if n < 7 { // for longer than the time between two beats
			return lost
		}
		return gone404
	}
	s.observed(time.Minute, ready())
	end := s.carryOut(bellhop.Provision, order(bellhop.Provision, fields{"callbacks": []fields{
		beating(fields{"on_abandoned": "cancel"}),
	}}))
	if receipt := end.receipt(t, "orders"); end.outcome.State != bellhop.Succeeded || receipt.State != bellhop.ReceiptAckPresumed {
		t.Errorf("the operation is %s and the receipt %+v", end.outcome.State, receipt)
	}
}

func TestHeartbeatsThatNobodyCanSend(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.activities.Targets["orders"] = struct{ bridge.Target }{s.callers["orders"]} // it has no Heartbeat
	end := s.carryOut(bellhop.Provision, order(bellhop.Provision, fields{"callbacks": []fields{beating(nil)}}))
	if end.outcome.Error == nil || end.outcome.Error.Code != bellhop.CodeInvalidOperation ||
		end.outcome.Error.Evidence["callbacks[0].heartbeat"] == "" {
		t.Errorf("the operation is %s: %v", end.outcome.State, end.outcome.Error)
	}
}

package workflows_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bellhop"
	"bellhop/bridge"
	"bellhop/workflows"
)

// These are looks and deliveries that are under way while the operation turns another way.

func TestRefreshThatAnswersAfterTheEnd(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.platform.observe = func(context.Context, bellhop.Operation, int) (bellhop.Observation, error) {
		seen := ready()
		seen.OperationID = s.id
		s.meanwhile(func() { s.SignalWorkflow(workflows.SignalObserved, seen) })
		s.meanwhile(func() {})
		return gone(), nil
	}
	s.at(5*time.Second, func() { s.refresh("r") })
	end := s.carryOut(bellhop.Provision, order(bellhop.Provision, nil)) // its laws: what was told is what stays
	if diff := cmp.Diff(ready().ResourceIDs, end.outcome.ResourceIDs); end.outcome.State != bellhop.Succeeded || diff != "" {
		t.Errorf("the operation is %s; ids (-want +got):\n%s", end.outcome.State, diff)
	}
}

// A look that began while the compute was wanted reports what dies as a failure.
func TestRefreshThatCrossesAnAbandonment(t *testing.T) {
	t.Parallel()
	s := setup(t)
	orders := s.caller("orders")
	orders.beat = func(n int) bridge.Result {
		if n >= 2 {
			return gone404
		}
		return acknowledged
	}
	s.platform.ask = inTurn(pending())
	removing := make(chan struct{})
	s.platform.ask = func(_ context.Context, op bellhop.Operation, _ int) (bellhop.Observation, error) {
		if op.Verb == bellhop.Delete {
			close(removing)
		}
		return pending(), nil
	}
	s.platform.observe = func(context.Context, bellhop.Operation, int) (bellhop.Observation, error) {
		<-removing
		s.meanwhile(func() {})
		return broken(bellhop.CodeContainerExited), nil
	}
	s.at(9*time.Second, func() { s.refresh("a") })
	s.observed(40*time.Second, gone())
	end := s.carryOut(bellhop.Provision, order(bellhop.Provision, fields{
		"on_cancel": "remove", "callbacks": []fields{beating(fields{"on_abandoned": "cancel"})},
	}))
	want := "the operation was cancelled because its caller, of target orders, waits no longer and what existed was removed"
	if end.outcome.Error == nil || end.outcome.Error.Message != want {
		t.Errorf("the operation is %s: %v", end.outcome.State, end.outcome.Error)
	}
}

func TestRefreshDuringRemovalIsRefused(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.at(10*time.Second, s.CancelWorkflow)
	var during *answer
	s.at(20*time.Second, func() { during = s.refresh("a") })
	s.observed(40*time.Second, gone())
	s.carryOut(bellhop.Provision, order(bellhop.Provision, fields{"on_cancel": "remove"}))
	if !during.refusedAs(workflows.ErrorFresh) {
		t.Errorf("it was answered %+v: what is being removed is not observed for whoever polls", during)
	}
}

func TestCallerFoundGoneWhileItIsRung(t *testing.T) {
	t.Parallel()
	s := setup(t)
	orders := s.caller("orders", refused, refused, refused, refused, acknowledged)
	orders.beat = func(n int) bridge.Result {
		if n >= 2 {
			return gone404
		}
		return acknowledged
	}
	s.observed(time.Minute, ready())
	end := s.carryOut(bellhop.Provision, order(bellhop.Provision, fields{"callbacks": []fields{
		beating(fields{"heartbeat": "2s", "states": []string{"running", "succeeded"}}),
	}}))
	if receipt := end.receipt(t, "orders"); receipt.State != bellhop.ReceiptUndeliverable {
		t.Errorf("it was told %v and its receipt is %+v", orders.told(), receipt)
	}
}

// Whoever asked a provider, in vain, had found the callbacks in order: a target that is missing later is an operator's
// business.
func TestTargetThatIsMissingAfterAnAskInVain(t *testing.T) {
	t.Parallel()
	s := setup(t)
	orders := s.callers["orders"]
	s.platform.ask = inTurn(bellhop.Fail(bellhop.CodeProviderUnavailable, "it does not answer"))
	s.at(20*time.Second, func() { delete(s.activities.Targets, "orders") })
	s.at(2*time.Minute, func() { s.activities.Targets["orders"] = orders })
	end := s.carryOut(bellhop.Provision, order(bellhop.Provision, fields{"timeout": "30s"}))
	if receipt := end.receipt(t, "orders"); receipt.State != bellhop.ReceiptAcknowledged {
		t.Errorf("the receipt is %+v", receipt)
	}
}

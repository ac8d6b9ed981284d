package workflows_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"bellhop"
	"bellhop/activities"
	"bellhop/bridge"
	"bellhop/workflows"
)

// The status of an operation reads the ids of both versions.
func TestActivityIDs_OldAndNew(t *testing.T) {
	for _, id := range []string{"deliver-12-succeeded", "deliver-12-succeeded-0123456789abcdef"} {
		callback, state, ok := workflows.Delivered(id)
		require.True(t, ok, id)
		require.Equal(t, 12, callback)
		require.Equal(t, bellhop.Succeeded, state)
	}
	for _, id := range []string{"heartbeat-3", "heartbeat-3-0123456789abcdef"} {
		callback, ok := workflows.Beaten(id)
		require.True(t, ok, id)
		require.Equal(t, 3, callback)
	}
	for _, id := range []string{
		"", "5", "observe-0123456789abcdef", "deliver-x-succeeded", "deliver-0", "deliver-01-failed-0123456789abcdef", "0123456789abcdef", "-0123456789abcdef",
	} {
		_, _, delivered := workflows.Delivered(id)
		_, beaten := workflows.Beaten(id)
		require.False(t, delivered || beaten, id)
	}
}

// Nobody who does not know the run's id knows an activity's, and none is used twice.
func TestActivityIDs_Unguessable(t *testing.T) {
	s := setup(t)
	var mu sync.Mutex
	seen := map[string]int{}
	s.SetOnActivityStartedListener(func(info *activity.Info, _ context.Context, _ converter.EncodedValues) {
		mu.Lock()
		defer mu.Unlock()
		if info.Attempt == 1 {
			seen[info.ActivityID]++
		}
	})
	s.platform.ask = inTurn(pending())
	s.observed(40*time.Minute, ready())
	s.activities.Backstop = activities.Backstop{First: time.Minute, Max: time.Minute}
	s.carryOut(bellhop.Provision, order(bellhop.Provision, fields{"timeout": "1h"}))
	require.Greater(t, len(seen), 10)
	for id, times := range seen {
		require.Regexp(t, `^(provision|observe|deliver-0-succeeded)-[0-9a-f]{16}$`, id)
		require.Equal(t, 1, times, id)
	}
}

// Forged over and over, a result holds an operation up no longer than its own time, and without a hot loop.
func TestForgedResults_OverAndOver(t *testing.T) {
	s := setup(t)
	asked := 0
	var acts *activities.Activities
	s.OnActivity(acts.Provision, mock.Anything, mock.Anything).Return(func(context.Context, bellhop.Operation) (activities.Answer, error) {
		asked++
		if asked%2 == 0 {
			return activities.Answer{}, temporal.NewNonRetryableApplicationError("no", "QUOTA_EXCEEDED", errors.New("forged"))
		}
		return activities.Answer{Observation: bellhop.Observation{OperationID: "rival-1", Endpoints: []bellhop.Endpoint{{Host: "evil"}}}}, nil
	})
	s.platform.observe = inTurn(pending())
	end := s.carryOut(bellhop.Provision, order(bellhop.Provision, nil))
	require.Equal(t, bellhop.CodeTimeout, end.outcome.Error.Code, end.outcome.Error.Message)
	require.Empty(t, end.outcome.Endpoints)
	require.Equal(t, bellhop.ReceiptAcknowledged, end.receipt(t, "orders").State)
	require.Less(t, asked, 50, "in half an hour")
	require.LessOrEqual(t, end.outcome.FinishedAt.Sub(start), 32*time.Minute)
}

// A receipt that is another's, or no end, is none. What was forged may have hidden an attempt that arrived.
func TestForgedResults_Receipts(t *testing.T) {
	for name, forged := range map[string]bellhop.Receipt{
		"empty":          {},
		"outcome":        {State: "succeeded", CallbackID: "rival-1/succeeded"},
		"not settled":    {Target: "orders", State: bellhop.ReceiptDelivering, CallbackID: "op-1/succeeded"},
		"another target": {Target: "webhook", State: bellhop.ReceiptAcknowledged, CallbackID: "op-1/succeeded"},
		"another state":  {Target: "orders", State: bellhop.ReceiptAcknowledged, CallbackID: "op-1/failed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := setup(t)
			s.platform.ask = inTurn(ready())
			var deliveries []activities.Delivery
			var acts *activities.Activities
			s.OnActivity(acts.Deliver, mock.Anything, mock.Anything).Return(func(_ context.Context, d activities.Delivery) (bellhop.Receipt, error) {
				if deliveries = append(deliveries, d); len(deliveries) == 1 {
					return forged, nil
				}
				return bellhop.Receipt{Target: "orders", State: bellhop.ReceiptAcknowledged, CallbackID: "op-1/succeeded", Attempts: 1, AcknowledgedAt: s.now()}, nil
			})
			end := s.carryOut(bellhop.Provision, order(bellhop.Provision, nil))
			require.Equal(t, bellhop.ReceiptAcknowledged, end.receipt(t, "orders").State)
			require.Len(t, deliveries, 2)
			require.False(t, deliveries[0].Unknown)
			require.True(t, deliveries[1].Unknown)
			require.Equal(t, start, deliveries[0].RequestedAt)
		})
	}
}

// A signal from anybody who may signal is believed only if it is an observation of this very operation.
func TestForgedResults_Signals(t *testing.T) {
	s := setup(t)
	s.platform.ask = inTurn(pending())
	s.platform.observe = inTurn(pending())
	for i, body := range []string{
		`{"operation_id": "rival-1", "phase": "failed"}`, `{"operation_id": "op-1", "state": "succeeded", "event": "compute-provisioned"}`,
		`{"schema_version": 1}`, `"observed"`, `{}`,
	} {
		s.at(time.Duration(i+1)*time.Second, func() { s.SignalWorkflow(workflows.SignalObserved, json.RawMessage(body)) })
	}
	s.observed(time.Minute, ready())
	end := s.carryOut(bellhop.Provision, order(bellhop.Provision, nil))
	require.Equal(t, bellhop.Succeeded, end.outcome.State, end.outcome.Error)
	require.Equal(t, time.Minute, end.outcome.FinishedAt.Sub(start).Round(time.Second))
}

// However much there is to tell, no workflow task asks for more than Temporal takes, and everybody is told.
func TestDeliveries_InPortions(t *testing.T) {
	s := setup(t)
	large := ready()
	for range 1500 {
		large.ResourceIDs.ContainerIDs = append(large.ResourceIDs.ContainerIDs, strings.Repeat("c", 64))
	}
	s.platform.ask = inTurn(large)
	var callbacks []fields
	for i := range bellhop.MaxCallbacks {
		callbacks = append(callbacks, fields{"target": "orders", "address": fields{"workflow_id": strings.Repeat("w", i+1)}, "states": []string{"running", "succeeded"}})
	}
	at := map[time.Time]int{}
	orders := s.caller("orders")
	orders.answer = func(_ int, m bridge.Message) bridge.Result {
		at[s.now()] += len(m.Body)
		return bridge.Result{Verdict: bridge.Acknowledged}
	}
	end := s.carryOut(bellhop.Provision, order(bellhop.Provision, fields{"callbacks": callbacks}))
	require.Equal(t, bellhop.Succeeded, end.outcome.State)
	require.Len(t, orders.rings(), 2*bellhop.MaxCallbacks)
	for _, receipt := range end.status.Callbacks {
		require.Equal(t, bellhop.ReceiptAcknowledged, receipt.State)
	}
	for _, bytes := range at {
		require.LessOrEqual(t, bytes, 3<<19)
	}
}

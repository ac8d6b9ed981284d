package workflows_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"

	"bellhop"
	"bellhop/activities"
	"bellhop/bridge"
	"bellhop/workflows"
)

func TestRedelivery(t *testing.T) {
	for _, row := range []struct {
		name, reason string
		answers      []bridge.Result
		deadline     time.Duration
		state        bellhop.ReceiptState
		says         string
		attempts     int
	}{
		{"Arrives", "that is what it is for", []bridge.Result{refused, refused, acknowledged}, 0, bellhop.ReceiptAcknowledged, "connection refused", 3},
		{"NobodyThere", "it is as it was", []bridge.Result{gone404}, 0, bellhop.ReceiptUndeliverable, "no such workflow", 1},
		{"LostAnswer", "an attempt of its own may have arrived", []bridge.Result{lost, gone404}, 0, bellhop.ReceiptAckPresumed, "no such workflow", 2},
		{
			"Deadline", "the callback's deadline counts anew",
			[]bridge.Result{refused},
			10 * time.Second,
			bellhop.ReceiptUndeliverable, "its deadline passed: delivering: connection refused", 4,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := setup(t)
			orders := s.caller("orders", row.answers...)
			body := json.RawMessage(`{"state":"succeeded","tenant_id":"acme"}`)
			s.ExecuteWorkflow(workflows.RedeliverCallback, 0, activities.Delivery{
				Callback: bellhop.Callback{
					Target: "orders", Address: json.RawMessage(`{"task_token":"` + secretToken + `"}`), Deadline: bellhop.Duration(row.deadline),
				},
				CallbackID: "op-1/succeeded", Event: bellhop.EventProvisioned, State: bellhop.Succeeded, Outcome: body,
				ReachedAt: start.Add(-30 * 24 * time.Hour),
			})
			var receipt bellhop.Receipt
			err := s.GetWorkflowError()
			var failed *temporal.ApplicationError
			switch {
			case err == nil:
				err = s.GetWorkflowResult(&receipt)
			case errors.As(err, &failed) && failed.Type() == workflows.ErrorUndeliverable:
				err = failed.Details(&receipt)
			}
			if err != nil {
				t.Fatal(err)
			}
			if receipt.State != row.state || receipt.LastError != row.says || receipt.Attempts != row.attempts ||
				receipt.Target != "orders" || receipt.CallbackID != "op-1/succeeded" {
				t.Errorf("the receipt is %+v: %s", receipt, row.reason)
			}
			if (s.GetWorkflowError() != nil) != (row.state == bellhop.ReceiptUndeliverable) {
				t.Errorf("the workflow closed with %v: its close status tells the truth", s.GetWorkflowError())
			}
			for _, ring := range orders.rings() {
				if string(ring.Body) != string(body) {
					t.Errorf("it was sent as %s", ring.Body)
				}
			}
		})
	}
}

package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/restatedev/sdk-go"

	"bellhop"
)

// Order is the input of Orders/Place: what a customer ordered.
type Order struct {
	ID       string       `json:"id"`
	Tenant   string       `json:"tenant"`
	Resource string       `json:"resource"`
	Provider string       `json:"provider"`
	Spec     bellhop.Spec `json:"spec"`
	// FirstAttempt is the provider_config of the first attempt. It is here to see the simulated provider fail; a
	// second attempt is left alone.
	FirstAttempt json.RawMessage `json:"first_attempt,omitempty"`
	// Patience is how long to wait for a callback before the status is polled.
	Patience bellhop.Duration `json:"patience"`
}

// Delivery is what became of an order.
type Delivery struct {
	// Served says that the compute is there. Otherwise Note says what a person has to see to.
	Served      bool                `json:"served"`
	Attempts    int                 `json:"attempts"`
	OperationID string              `json:"operation_id"`
	ResourceIDs bellhop.ResourceIDs `json:"resource_ids"`
	Endpoints   []bellhop.Endpoint  `json:"endpoints,omitempty"`
	Note        string              `json:"note,omitempty"`
	Failure     *bellhop.Failure    `json:"failure,omitempty"`
}

// Reference names an operation.
type Reference struct {
	OperationID string `json:"operation_id"`
}

const maxAttempts = 3

// Orders is a Restate service.
type Orders struct{}

// Place serves an order: it asks bellhop for compute, waits for the callback and branches on it.
func (Orders) Place(ctx restate.Context, order Order) (Delivery, error) {
	for attempt := 1; ; attempt++ {
		// Who has the awakeable's id can complete it, so bellhop gets it and nobody else.
		awakeable := restate.Awakeable[bellhop.Outcome](ctx)
		address, err := json.Marshal(map[string]string{"awakeable": awakeable.Id()})
		if err != nil {
			return Delivery{}, err
		}
		// Each attempt is an operation of its own. Its id is the same however often this code is replayed.
		op := bellhop.Operation{
			ID:   fmt.Sprintf("%s-provision-%d", order.ID, attempt),
			Verb: bellhop.Provision, TenantID: order.Tenant, Resource: order.Resource, Provider: order.Provider,
			Spec: order.Spec, Timeout: bellhop.Duration(10 * time.Minute),
			Callbacks: []bellhop.Callback{{Target: "restate", Address: address}},
		}
		if attempt == 1 {
			op.ProviderConfig = order.FirstAttempt
		}
		if _, err := restate.Service[Reference](ctx, "Compute", "Start").Request(op); err != nil {
			return Delivery{}, err // every fault of the operation, say
		}

		// Here the handler sleeps, at no cost, until bellhop rings.
		outcome, err := await(ctx, op.ID, awakeable, time.Duration(order.Patience))
		if err != nil {
			return Delivery{}, err
		}

		delivery := Delivery{
			Served: outcome.State == bellhop.Succeeded, Attempts: attempt, OperationID: op.ID,
			ResourceIDs: outcome.ResourceIDs, // of a failed operation: what exists nevertheless
			Endpoints:   outcome.Endpoints,
			Failure:     outcome.Error,
		}
		switch {
		case delivery.Served:
			return delivery, nil

		case outcome.Error.Retryable && attempt < maxAttempts:
			ctx.Log().Info("once more, under a new id", "code", outcome.Error.Code)
			if err := restate.Sleep(ctx, time.Duration(attempt)*time.Second); err != nil {
				return Delivery{}, err
			}

		default:
			delivery.Note = "given up"
			if outcome.Error.RequiresIntervention {
				delivery.Note = "a person has to see to it"
			}
			return delivery, nil
		}
	}
}

// await waits for the callback. When it does not come in time, the status is polled.
func await(ctx restate.Context, id string, awakeable restate.AwakeableFuture[bellhop.Outcome], patience time.Duration) (bellhop.Outcome, error) {
	for {
		first, cancelled := restate.WaitFirst(ctx, awakeable, restate.After(ctx, patience))
		if cancelled != nil {
			// What nobody waits for any more is not wanted either. It may have ended meanwhile, which is an error.
			if _, err := restate.Service[Reference](ctx, "Compute", "Cancel").Request(Reference{id}); err != nil {
				ctx.Log().Warn("the operation could not be cancelled", "operation_id", id, "error", err)
			}
			return bellhop.Outcome{}, cancelled
		}
		if first == awakeable {
			return awakeable.Result()
		}
		status, err := restate.Service[bellhop.Status](ctx, "Compute", "Status").Request(Reference{id})
		if err != nil {
			return bellhop.Outcome{}, err
		}
		if status.State.Terminal() {
			return status.Outcome, nil
		}
	}
}

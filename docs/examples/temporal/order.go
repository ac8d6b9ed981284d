package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"bellhop"
	"bellhop/bridge/temporal/receive"
)

// Order is the input of OrderWorkflow: what a customer ordered.
type Order struct {
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

const maxAttempts = 3

// OrderWorkflow serves an order: it asks bellhop for compute, awaits the callback and branches on it.
func OrderWorkflow(ctx workflow.Context, order Order) (Delivery, error) {
	inbox := receive.New(ctx, receive.Options{PollInterval: 10 * time.Second})
	for attempt := 1; ; attempt++ {
		// Each attempt is an operation of its own. Its id is the same however often this code is replayed.
		op := bellhop.Operation{
			ID:   fmt.Sprintf("%s-provision-%d", workflow.GetInfo(ctx).WorkflowExecution.ID, attempt),
			Verb: bellhop.Provision, TenantID: order.Tenant, Resource: order.Resource, Provider: order.Provider,
			Spec: order.Spec, Timeout: bellhop.Duration(10 * time.Minute),
		}
		if attempt == 1 {
			op.ProviderConfig = order.FirstAttempt
		}
		if err := inbox.Start(ctx, op); err != nil {
			return Delivery{}, err
		}

		// Here the workflow sleeps, at no cost, until bellhop rings. When it does not in time, the status is polled.
		outcome, err := inbox.Await(ctx, op.ID, time.Duration(order.Patience))

		delivery := Delivery{Attempts: attempt, OperationID: op.ID}
		var failed *receive.Failed
		switch {
		case err == nil:
			delivery.Served = true
			delivery.ResourceIDs, delivery.Endpoints = outcome.ResourceIDs, outcome.Endpoints
			inbox.Drain() // the last look before the workflow ends
			return delivery, nil

		case !errors.As(err, &failed):
			return Delivery{}, err // this workflow was cancelled, say

		case failed.Outcome.Error.Retryable && attempt < maxAttempts:
			workflow.GetLogger(ctx).Info("once more, under a new id", "code", failed.Outcome.Error.Code)
			if err := workflow.Sleep(ctx, time.Duration(attempt)*time.Second); err != nil {
				return Delivery{}, err
			}

		default:
			delivery.Failure = failed.Outcome.Error
			delivery.ResourceIDs = failed.Outcome.ResourceIDs // what exists nevertheless
			delivery.Note = "given up"
			if failed.Outcome.Error.RequiresIntervention {
				delivery.Note = "a person has to see to it"
			}
			inbox.Drain()
			return delivery, nil
		}
	}
}

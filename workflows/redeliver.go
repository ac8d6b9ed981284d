package workflows

import (
	"encoding/json"
	"strconv"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"bellhop"
	"bellhop/activities"
	"bellhop/internal/own"
)

// RedeliverID is the id of the workflow that rings a caller again after the operation has given its callback up. There is
// one for each callback and state of an operation, which its id and the time of its request name: a delivery that is under
// way is never doubled, and one of an earlier operation under the same id is not in the way.
func RedeliverID(operationID string, requestedAt time.Time, callback int, state bellhop.State) string {
	return own.RedeliverPrefix + operationID + "/" + strconv.FormatInt(requestedAt.UnixNano(), 36) + "/" + ActivityID(callback, state)
}

// OldRedeliverID is the id that the first version gave it.
func OldRedeliverID(operationID string, callback int, state bellhop.State) string {
	return own.RedeliverPrefix + operationID + "/" + ActivityID(callback, state)
}

// ErrorUndeliverable is the type of the error with which a redelivery ends that was given up as well. Its detail is the
// receipt.
const ErrorUndeliverable = "UNDELIVERABLE"

// RedeliverCallback delivers a callback that an operation has given up, with the same bytes, and answers the receipt. The
// callback's deadline, if it has one, counts anew.
func RedeliverCallback(ctx workflow.Context, callback int, delivery activities.Delivery) (bellhop.Receipt, error) {
	delivery.Unchecked = false // a target that is not configured here is now for an operator to mend
	var outcome bellhop.Outcome
	_ = json.Unmarshal(delivery.Outcome, &outcome) //nolint:errcheck // it is an outcome; without a tenant fairness has no key
	options := deliverOptions(delivery, temporal.Priority{FairnessKey: bellhop.SoundName(outcome.TenantID)})
	options.ScheduleToCloseTimeout = time.Duration(delivery.Callback.Deadline)
	receipt, err := performDelivery(ctx, newSteps(ctx, secondRules(ctx)), callback, options, delivery)
	if err != nil {
		receipt = bellhop.Receipt{
			Target: delivery.Callback.Target, State: bellhop.ReceiptUndeliverable, CallbackID: delivery.CallbackID,
			LastError: "its deadline passed: " + lastError(err),
		}
		if temporal.IsCanceledError(err) {
			receipt.LastError = "its redelivery was cancelled"
		}
		activities.GaveUp(&receipt, err)
	}
	if receipt.State == bellhop.ReceiptUndeliverable {
		return bellhop.Receipt{}, temporal.NewApplicationErrorWithOptions(receipt.LastError, ErrorUndeliverable,
			temporal.ApplicationErrorOptions{NonRetryable: true, Details: []any{receipt}})
	}
	return receipt, nil
}

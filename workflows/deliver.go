package workflows

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"bellhop"
	"bellhop/activities"
)

// deliveries rings every caller of an operation. Callers are rung in parallel, so that one that cannot be reached
// delays no other; what one caller asked for reaches it in order.
type deliveries struct {
	o *operation
	// last is the latest delivery to each callback, by index; nil before the first.
	last []workflow.Future
	// open counts the deliveries under way.
	open int
}

func newDeliveries(o *operation) deliveries {
	for _, callback := range o.Callbacks {
		o.status.Callbacks = append(o.status.Callbacks, bellhop.Receipt{
			Target: callback.Target,
			State:  bellhop.ReceiptPending,
		})
	}
	return deliveries{o: o, last: make([]workflow.Future, len(o.Callbacks))}
}

// ActivityID is the id of the activity that delivers a state to the callback with the given index. The status finds
// the attempts of a pending delivery by it.
func ActivityID(callback int, state bellhop.State) string {
	return fmt.Sprintf("deliver-%d-%s", callback, state)
}

// Delivered is the inverse of [ActivityID].
func Delivered(activityID string) (callback int, state bellhop.State, ok bool) {
	index, name, _ := strings.Cut(strings.TrimPrefix(activityID, "deliver-"), "-")
	callback, err := strconv.Atoi(index)
	state = bellhop.State(name)
	return callback, state, err == nil && activityID == ActivityID(callback, state)
}

// ring tells everybody who asked for state. The outcome is frozen here: every attempt sends these bytes.
func (d *deliveries) ring(ctx workflow.Context, state bellhop.State) {
	var frozen json.RawMessage
	for i, callback := range d.o.Callbacks {
		if !callback.Wants(state) {
			continue
		}
		if frozen == nil {
			var err error
			if frozen, err = json.Marshal(d.o.status.Outcome); err != nil {
				panic(fmt.Sprintf("encode outcome: %s", err)) // fails the workflow task, visibly; it holds no such type
			}
		}
		d.start(ctx, i, activities.Delivery{
			Callback:   callback,
			CallbackID: d.o.status.CallbackID,
			Event:      d.o.status.Event,
			State:      state,
			Outcome:    frozen,
			ReachedAt:  workflow.Now(ctx).UTC(),
			Unchecked:  !d.o.checked,
		})
	}
}

func (d *deliveries) start(ctx workflow.Context, i int, delivery activities.Delivery) {
	// A cancelled operation rings all the same.
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	before := d.last[i]
	done, settle := workflow.NewFuture(ctx)
	d.last[i] = done
	d.open++
	workflow.Go(ctx, func(ctx workflow.Context) {
		if before != nil {
			_ = before.Get(ctx, nil) //nolint:errcheck // only its end matters
		}
		d.deliver(ctx, i, delivery)
		d.open--
		settle.SetValue(nil)
	})
}

func (d *deliveries) deliver(ctx workflow.Context, i int, delivery activities.Delivery) {
	receipt := &d.o.status.Callbacks[i]
	*receipt = bellhop.Receipt{Target: receipt.Target, State: bellhop.ReceiptDelivering, CallbackID: delivery.CallbackID}
	options := workflow.ActivityOptions{
		ActivityID:          ActivityID(i, delivery.State),
		StartToCloseTimeout: activities.AttemptTimeout + 5*time.Second,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: activities.FirstRetry, MaximumInterval: activities.MaxRetry},
		Summary:             fmt.Sprintf("ring %s: %s", delivery.Callback.Target, delivery.Event),
		Priority:            d.o.priority(),
	}
	if deadline := time.Duration(delivery.Callback.Deadline); deadline > 0 {
		remaining := deadline - workflow.Now(ctx).Sub(delivery.ReachedAt)
		if remaining <= 0 {
			d.giveUp(ctx, receipt, "its deadline passed before it could be tried")
			return
		}
		options.ScheduleToCloseTimeout = remaining
	}
	var settled bellhop.Receipt
	err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), acts.Deliver, delivery).Get(ctx, &settled)
	if err != nil {
		// Attempts are repeated for ever, so the deadline has passed.
		activities.GaveUp(receipt, err)
		d.giveUp(ctx, receipt, "its deadline passed: "+lastError(err))
		return
	}
	*receipt = settled
	d.o.describe(ctx)
}

func (d *deliveries) giveUp(ctx workflow.Context, receipt *bellhop.Receipt, why string) {
	receipt.State = bellhop.ReceiptUndeliverable
	receipt.LastError = why
	d.o.describe(ctx)
}

// wait waits until no delivery is under way.
func (d *deliveries) wait(ctx workflow.Context) error {
	return workflow.Await(ctx, func() bool { return d.open == 0 })
}

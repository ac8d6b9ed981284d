package workflows

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"bellhop"
	"bellhop/activities"
	"bellhop/bridge"
)

// deliveries rings every caller of an operation. Callers are rung in parallel, so that one that cannot be reached
// delays no other; what one caller asked for reaches it in order.
type deliveries struct {
	o *operation
	// callers are what is known of each callback's caller, by index.
	callers []caller
	// open counts the deliveries under way.
	open int
}

// caller is who asked for one callback.
type caller struct {
	// last is the latest delivery to it; nil before the first.
	last workflow.Future
	// concluded says that the operation's last state was reached: what becomes of the caller now is its delivery's
	// business.
	concluded bool
	// gone says that a heartbeat found that nobody waits any more.
	gone bool
	// rest ends its heartbeats; nil when it has none.
	rest workflow.CancelFunc
}

func newDeliveries(o *operation) deliveries {
	for _, callback := range o.Callbacks {
		o.status.Callbacks = append(o.status.Callbacks, bellhop.Receipt{
			Target: callback.Target,
			State:  bellhop.ReceiptPending,
		})
	}
	return deliveries{o: o, callers: make([]caller, len(o.Callbacks))}
}

// ActivityID is the id of the activity that delivers a state to the callback with the given index. The status finds
// the attempts of a pending delivery by it.
func ActivityID(callback int, state bellhop.State) string {
	return fmt.Sprintf("deliver-%d-%s", callback, state)
}

// HeartbeatID is the id of the activity that sends heartbeats to the caller of the callback with the given index.
func HeartbeatID(callback int) string { return fmt.Sprintf("heartbeat-%d", callback) }

// Delivered is the inverse of [ActivityID].
func Delivered(activityID string) (callback int, state bellhop.State, ok bool) {
	index, name, _ := strings.Cut(strings.TrimPrefix(activityID, "deliver-"), "-")
	callback, err := strconv.Atoi(index)
	state = bellhop.State(name)
	return callback, state, err == nil && activityID == ActivityID(callback, state)
}

// Beaten is the inverse of [HeartbeatID].
func Beaten(activityID string) (callback int, ok bool) {
	callback, err := strconv.Atoi(strings.TrimPrefix(activityID, "heartbeat-"))
	return callback, err == nil && activityID == HeartbeatID(callback)
}

// ring tells everybody who asked for state. The outcome is frozen here: every attempt sends these bytes.
func (d *deliveries) ring(ctx workflow.Context, state bellhop.State) {
	var frozen json.RawMessage
	for i, callback := range d.o.Callbacks {
		c := &d.callers[i]
		c.concluded = state.Terminal()
		if c.gone && c.concluded {
			d.o.status.Callbacks[i].CallbackID = d.o.status.CallbackID
		}
		if c.gone || !callback.Wants(state) {
			if c.concluded && c.rest != nil {
				c.rest()
			}
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
	before := d.callers[i].last
	done, settle := workflow.NewFuture(ctx)
	d.callers[i].last = done
	d.open++
	workflow.Go(ctx, func(ctx workflow.Context) {
		if before != nil {
			_ = before.Get(ctx, nil) //nolint:errcheck // only its end matters
		}
		d.deliver(ctx, i, delivery)
		if rest := d.callers[i].rest; rest != nil && delivery.State.Terminal() {
			rest()
		}
		d.open--
		settle.SetValue(nil)
	})
}

func (d *deliveries) deliver(ctx workflow.Context, i int, delivery activities.Delivery) {
	receipt := &d.o.status.Callbacks[i]
	*receipt = bellhop.Receipt{Target: receipt.Target, State: bellhop.ReceiptDelivering, CallbackID: delivery.CallbackID}
	options := deliverOptions(i, delivery, d.o.priority())
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
	if d.callers[i].gone {
		return // what is told of it by now is the end
	}
	*receipt = settled
	d.o.describe(ctx)
}

func deliverOptions(callback int, delivery activities.Delivery, priority temporal.Priority) workflow.ActivityOptions {
	return workflow.ActivityOptions{
		ActivityID:          ActivityID(callback, delivery.State),
		StartToCloseTimeout: bridge.AttemptTimeout + 5*time.Second,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: activities.FirstRetry, MaximumInterval: activities.MaxRetry},
		Summary:             fmt.Sprintf("ring %s: %s", delivery.Callback.Target, delivery.Event),
		Priority:            priority,
	}
}

func (d *deliveries) giveUp(ctx workflow.Context, receipt *bellhop.Receipt, why string) {
	receipt.State = bellhop.ReceiptUndeliverable
	receipt.LastError = why
	workflow.GetMetricsHandler(ctx).WithTags(map[string]string{"target": receipt.Target, "state": string(receipt.State)}).
		Counter("bellhop_callbacks").Inc(1)
	d.o.describe(ctx)
}

// keepAlive sends heartbeats to the callers that asked for them, until each one's callback is settled. One that waits no
// longer is rung no more, and cancel is called where it asked for that.
func (d *deliveries) keepAlive(ctx workflow.Context, cancel func()) {
	for i, callback := range d.o.Callbacks {
		if callback.Heartbeat == 0 {
			continue
		}
		// A cancelled operation keeps its callers alive until they have been rung.
		detached, _ := workflow.NewDisconnectedContext(ctx)
		beating, rest := workflow.WithCancel(detached)
		d.callers[i].rest = rest
		workflow.Go(detached, func(ctx workflow.Context) {
			var abandoned activities.Abandoned
			if workflow.ExecuteActivity(d.beatOptions(beating, i), acts.Heartbeat, callback).Get(ctx, &abandoned) != nil {
				return // the callback is settled; beats that fail are repeated for ever
			}
			c := &d.callers[i]
			if c.concluded {
				return // it may be gone because it was rung: its delivery finds out
			}
			c.gone = true
			d.giveUp(ctx, &d.o.status.Callbacks[i], abandoned.LastError())
			if callback.OnAbandoned == bellhop.CancelAbandoned {
				d.o.abandonedBy = callback.Target
				cancel()
			}
		})
	}
}

func (d *deliveries) beatOptions(ctx workflow.Context, i int) workflow.Context {
	callback := d.o.Callbacks[i]
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		ActivityID: HeartbeatID(i),
		TaskQueue:  Queue(workflow.GetInfo(ctx).TaskQueueName, QueueHeartbeats),
		// The beat of a worker that died is missed, and repeated while the caller still has patience.
		StartToCloseTimeout: min(time.Duration(callback.Heartbeat), bridge.AttemptTimeout),
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: 100 * time.Millisecond, BackoffCoefficient: 1},
		Summary:             "heartbeat " + callback.Target,
		Priority:            d.o.priority(),
	})
}

// undelivered are the targets of the callbacks that were given up, each once.
func (d *deliveries) undelivered() []string {
	var targets []string
	for _, receipt := range d.o.status.Callbacks {
		if receipt.State == bellhop.ReceiptUndeliverable && !slices.Contains(targets, receipt.Target) {
			targets = append(targets, receipt.Target)
		}
	}
	return targets
}

// wait waits until no delivery is under way.
func (d *deliveries) wait(ctx workflow.Context) error {
	return workflow.Await(ctx, func() bool { return d.open == 0 })
}

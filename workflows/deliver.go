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
	// asked is how much was asked of Temporal since the last pause, in bytes, and pause the one under way.
	asked int
	pause workflow.Future
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

// ActivityID is the name of the activity that delivers a state to the callback with the given index: its id, or what
// that begins with. The status finds the attempts of a pending delivery by it.
func ActivityID(callback int, state bellhop.State) string {
	return fmt.Sprintf("deliver-%d-%s", callback, state)
}

// HeartbeatID is the name of the activity that sends heartbeats to the caller of the callback with the given index.
func HeartbeatID(callback int) string { return fmt.Sprintf("heartbeat-%d", callback) }

// Delivered is the inverse of [ActivityID].
func Delivered(activityID string) (callback int, state bellhop.State, ok bool) {
	activityID = named(activityID)
	index, name, _ := strings.Cut(strings.TrimPrefix(activityID, "deliver-"), "-")
	callback, err := strconv.Atoi(index)
	state = bellhop.State(name)
	return callback, state, err == nil && activityID == ActivityID(callback, state)
}

// Beaten is the inverse of [HeartbeatID].
func Beaten(activityID string) (callback int, ok bool) {
	activityID = named(activityID)
	callback, err := strconv.Atoi(strings.TrimPrefix(activityID, "heartbeat-"))
	return callback, err == nil && activityID == HeartbeatID(callback)
}

// ring tells everybody who asked for state. The outcome is frozen here: every attempt sends these bytes.
func (d *deliveries) ring(ctx workflow.Context, state bellhop.State) {
	var frozen json.RawMessage
	if state.Terminal() && d.o.second {
		frozen = d.freeze() // also where nobody is called back: it is the workflow's result
	}
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
			frozen = d.freeze()
		}
		delivery := activities.Delivery{
			Callback:   callback,
			CallbackID: d.o.status.CallbackID,
			Event:      d.o.status.Event,
			State:      state,
			Outcome:    frozen,
			ReachedAt:  workflow.Now(ctx).UTC(),
			Unchecked:  !d.o.checked,
		}
		if d.o.second {
			delivery.RequestedAt = d.o.RequestedAt
		}
		d.start(ctx, i, delivery)
	}
}

// freeze encodes the outcome. One that is too large for some engine is cut for all of them, for the status and for the
// workflow's result: what is told is the same everywhere. One that cannot be cut, since it is the operation's own names
// that are too long, is told as it is.
func (d *deliveries) freeze() json.RawMessage {
	if d.o.second {
		if bounded, frozen, err := bellhop.BoundOutcome(d.o.status.Outcome); err == nil {
			d.o.status.Outcome = bounded
			return frozen
		}
	}
	frozen, err := json.Marshal(d.o.status.Outcome)
	if err != nil {
		panic(fmt.Sprintf("encode outcome: %s", err)) // fails the workflow task, visibly; it holds no such type
	}
	return frozen
}

// maxAsked is how many bytes of deliveries are asked of Temporal at once. It takes 4 MiB in one message, and ends a
// workflow that asks for more.
const maxAsked = 3 << 19

// portionPause is long enough for what was asked for to have been sent.
const portionPause = 10 * time.Millisecond

// takeTurn waits until a delivery of a size can be asked for without its workflow task becoming too large.
func (d *deliveries) takeTurn(ctx workflow.Context, size int) {
	if !d.o.second {
		return
	}
	for d.asked > 0 && d.asked+size > maxAsked {
		if d.pause == nil {
			d.pause = workflow.NewTimerWithOptions(ctx, portionPause, workflow.TimerOptions{Summary: "next portion of callbacks"})
		}
		pause := d.pause
		_ = pause.Get(ctx, nil) //nolint:errcheck // nobody cancels it
		if d.pause == pause {
			d.pause, d.asked = nil, 0
		}
	}
	d.asked += size
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
	d.takeTurn(ctx, len(delivery.Outcome)+len(delivery.Callback.Address))
	receipt := &d.o.status.Callbacks[i]
	*receipt = bellhop.Receipt{Target: receipt.Target, State: bellhop.ReceiptDelivering, CallbackID: delivery.CallbackID}
	options := deliverOptions(delivery, d.o.priority())
	if deadline := time.Duration(delivery.Callback.Deadline); deadline > 0 {
		remaining := deadline - workflow.Now(ctx).Sub(delivery.ReachedAt)
		if remaining <= 0 {
			d.giveUp(ctx, receipt, "its deadline passed before it could be tried")
			return
		}
		options.ScheduleToCloseTimeout = remaining
	}
	settled, err := performDelivery(ctx, d.o.steps, i, options, delivery)
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

func performDelivery(ctx workflow.Context, s *steps, callback int, options workflow.ActivityOptions, delivery activities.Delivery,
) (bellhop.Receipt, error) {
	name := ActivityID(callback, delivery.State)
	return perform(ctx, s, step{
		name: name, old: name, kind: "deliver", options: options, activity: acts.Deliver,
		args: func(again bool) []any {
			// What was forged took the place of an attempt that may have arrived.
			delivery.Unknown = delivery.Unknown || again
			return []any{delivery}
		},
	}, fitsDelivery(delivery))
}

func deliverOptions(delivery activities.Delivery, priority temporal.Priority) workflow.ActivityOptions {
	return workflow.ActivityOptions{
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
		workflow.Go(beating, func(ctx workflow.Context) {
			name := HeartbeatID(i)
			abandoned, err := perform(ctx, d.o.steps, step{
				name: name, old: name, kind: "heartbeat", queue: QueueHeartbeats, options: d.beatOptions(i), activity: acts.Heartbeat, args: once(callback),
			}, func(a activities.Abandoned) bool { return a.Reason != "" })
			if err != nil {
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

func (d *deliveries) beatOptions(i int) workflow.ActivityOptions {
	callback := d.o.Callbacks[i]
	return workflow.ActivityOptions{
		// The beat of a worker that died is missed, and repeated while the caller still has patience.
		StartToCloseTimeout: min(time.Duration(callback.Heartbeat), bridge.AttemptTimeout),
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: 100 * time.Millisecond, BackoffCoefficient: 1},
		Summary:             "heartbeat " + callback.Target,
		Priority:            d.o.priority(),
	}
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

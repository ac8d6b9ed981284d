package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"bellhop"
	"bellhop/bridge"
)

// Delivery is one callback that is due.
type Delivery struct {
	Callback bellhop.Callback `json:"callback"`
	// CallbackID, Event, State and Outcome are what is sent.
	CallbackID string          `json:"callback_id"`
	Event      bellhop.Event   `json:"event"`
	State      bellhop.State   `json:"state"`
	Outcome    json.RawMessage `json:"outcome"`
	// ReachedAt is when the state was reached.
	ReachedAt time.Time `json:"reached_at"`
	// RequestedAt is when the operation was started. Zero in a delivery that the first version began, whose attempts all
	// have the key that it gave them.
	RequestedAt time.Time `json:"requested_at,omitzero"`
	// Unchecked says that no worker has checked the callback, because the operation never got that far. A target
	// that is not configured then is the caller's mistake, and nothing that an operator would still mend.
	Unchecked bool `json:"unchecked,omitempty"`
	// Unknown says that an attempt of a delivery that was given up, and of which this is another, may have reached the
	// caller.
	Unknown bool `json:"unknown,omitempty"`
}

// Timing of deliveries.
const (
	// FirstRetry and MaxRetry bound the wait between two attempts, which doubles from one to the other.
	FirstRetry = time.Second
	MaxRetry   = 5 * time.Minute
	// MaxRetryAfter bounds how long a target may ask to be left alone.
	MaxRetryAfter = time.Hour
)

// Types of the errors by which an attempt asks to be repeated. They show in the pending activity, which is where the
// status reads them.
const (
	ErrorDelivering = "delivering"
	ErrorBlocked    = "blocked"
)

// memory is what one attempt leaves for the next. It is kept in the heartbeat's details, which survive a retry, and is
// written only when an attempt fails: a delivery that succeeds at once pays nothing for it. An attempt that left
// nothing died with its worker, so what it did is unknown.
type memory struct {
	FirstAttemptAt time.Time `json:"first_attempt_at"`
	// Attempts is how many there were; unlike Temporal's own count it survives a reset of the activity.
	Attempts int `json:"attempts"`
	// Ended is Temporal's number of the attempt that wrote this.
	Ended int32 `json:"ended"`
	// Unknown says that an attempt may have reached the caller without our having seen its answer.
	Unknown   bool   `json:"unknown"`
	LastError string `json:"last_error"`
}

// Deliver makes one attempt to deliver a callback. Temporal repeats it until it returns a receipt.
func (a *Activities) Deliver(ctx context.Context, d Delivery) (bellhop.Receipt, error) {
	now := time.Now().UTC()
	past := remember(ctx)
	result := a.attempt(ctx, d)
	metrics := activity.GetMetricsHandler(ctx).WithTags(map[string]string{"target": d.Callback.Target})
	metrics.WithTags(map[string]string{"verdict": string(result.Verdict)}).Counter("bellhop_callback_attempts").Inc(1)
	why := ""
	if result.Err != nil {
		why = bellhop.Scrub(result.Err.Error(), d.Callback.Secrets())
	}
	if result.Verdict == bridge.Untried {
		if past.LastError == "" { // why an attempt failed says more
			past.LastError = why
		}
		return bellhop.Receipt{}, again(ctx, result, past)
	}
	past.Attempts++
	if past.FirstAttemptAt.IsZero() {
		past.FirstAttemptAt = now
	}
	if why != "" {
		past.LastError = why
	}
	receipt := bellhop.Receipt{
		Target:         d.Callback.Target,
		CallbackID:     d.CallbackID,
		Attempts:       past.Attempts,
		LastError:      past.LastError,
		FirstAttemptAt: past.FirstAttemptAt,
	}
	switch result.Verdict {
	case bridge.Acknowledged:
		receipt.State = bellhop.ReceiptAcknowledged
	case bridge.Accepted:
		receipt.State = bellhop.ReceiptAccepted
	case bridge.Closed:
		receipt.State = bellhop.ReceiptUndeliverable
		if past.Unknown || result.Unknown || d.Unknown {
			receipt.State = bellhop.ReceiptAckPresumed
		}
	case bridge.Undeliverable:
		receipt.State = bellhop.ReceiptUndeliverable
	case bridge.Retry, bridge.Blocked:
		past.Unknown = past.Unknown || result.Unknown
		return bellhop.Receipt{}, again(ctx, result, past)
	default:
		return bellhop.Receipt{}, fmt.Errorf("target %s answered with an unknown verdict %q", d.Callback.Target, result.Verdict)
	}
	if receipt.State != bellhop.ReceiptUndeliverable {
		receipt.AcknowledgedAt = time.Now().UTC()
	}
	metrics = metrics.WithTags(map[string]string{"state": string(receipt.State)})
	metrics.Counter("bellhop_callbacks").Inc(1)
	metrics.Timer("bellhop_callback_lag").Record(time.Since(d.ReachedAt))
	return receipt, nil
}

// remember tells what earlier attempts left.
func remember(ctx context.Context) memory {
	var past memory
	attempt := activity.GetInfo(ctx).Attempt
	if activity.HasHeartbeatDetails(ctx) {
		_ = activity.GetHeartbeatDetails(ctx, &past) //nolint:errcheck // details that cannot be read are as good as none
	}
	if attempt == 1 && past.Ended > 0 {
		// Temporal counts anew after a reset. Were this attempt to die, the number of an earlier one would pass for its own.
		past.Ended = 0
		activity.RecordHeartbeat(ctx, past)
	}
	if attempt > 1 && past.Ended != attempt-1 {
		// The attempt before this one left nothing: its worker died, or the answer came too late.
		past.Unknown = true
		past.Attempts += untold(past, attempt)
		if past.FirstAttemptAt.IsZero() {
			past.FirstAttemptAt = activity.GetInfo(ctx).ScheduledTime.UTC()
		}
	}
	return past
}

// untold counts the attempts before the given one of which the memory does not know.
func untold(past memory, attempt int32) int {
	since := past.Ended
	if since >= attempt { // Temporal counts from 1 again after a reset
		since = 0
	}
	return int(attempt - 1 - since)
}

func (a *Activities) attempt(ctx context.Context, d Delivery) bridge.Result {
	since := activity.GetInfo(ctx).ScheduledTime
	var outcome bellhop.Outcome
	if d.Unchecked {
		if err := json.Unmarshal(d.Outcome, &outcome); err != nil {
			return bridge.Result{Verdict: bridge.Undeliverable, Err: fmt.Errorf("read the outcome: %w", err)}
		}
		if outcome.FinishedAt.Sub(outcome.StartedAt) >= elsewhereAfter {
			since = time.Time{} // the operation itself has been sent on to the other workers
		}
	}
	elsewhere := a.mayBeElsewhereSince(ctx, since, time.Duration(d.Callback.Deadline))
	target, ok := a.Targets[d.Callback.Target]
	switch {
	case !ok:
		err := fmt.Errorf("target %q is not configured at this worker", d.Callback.Target)
		switch {
		case elsewhere:
			return sentOn(err)
		case d.Unchecked:
			return bridge.Result{Verdict: bridge.Undeliverable, Err: err}
		default:
			return bridge.Result{Verdict: bridge.Blocked, Err: err}
		}
	case d.Unchecked && !bridge.Serves(target, outcome.TenantID):
		err := fmt.Errorf("target %q is not for tenant %q", d.Callback.Target, outcome.TenantID)
		if elsewhere {
			return sentOn(err)
		}
		return bridge.Result{Verdict: bridge.Undeliverable, Err: err}
	case d.Unchecked:
		if err := target.Check(d.Callback); err != nil {
			return bridge.Result{Verdict: bridge.Undeliverable, Err: err}
		}
	}
	leave, full := a.Places.enter(kindDeliveries, "")
	if full != "" {
		return bridge.Result{Verdict: bridge.Untried, Err: errors.New("not tried: " + full)}
	}
	defer leave()
	ctx, cancel := withLastWord(ctx)
	defer cancel()
	return target.Deliver(ctx, d.Callback.Address, bridge.Message{
		ID:          d.CallbackID,
		Event:       d.Event,
		State:       d.State,
		ReachedAt:   d.ReachedAt,
		RequestedAt: d.RequestedAt,
		Failures:    d.Callback.Failures,
		Body:        d.Outcome,
	})
}

// sentOn is the result of a delivery that this worker is not configured for and another one may be.
func sentOn(err error) bridge.Result {
	return bridge.Result{Verdict: bridge.Untried, Err: elsewhereError{err}}
}

// elsewhereError marks the error of a delivery that is offered to all workers again, and soon.
type elsewhereError struct{ error }

// lastWord is how long before the callback's deadline an attempt ends: one that the deadline itself ends can leave
// nothing, and would be missing in the receipt.
const lastWord = 500 * time.Millisecond

func withLastWord(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, deadline.Add(-min(lastWord, time.Until(deadline)/2)))
}

// again leaves what is known for the next attempt, and makes the error upon which Temporal makes it. One that was not
// tried waits longer each time as well, by Temporal's count: the target is no better off for being asked after.
func again(ctx context.Context, result bridge.Result, past memory) error {
	past.Ended = activity.GetInfo(ctx).Attempt
	activity.RecordHeartbeat(ctx, past)
	kind, tries := ErrorDelivering, past.Attempts
	switch result.Verdict { //nolint:exhaustive // with the others it is not made again
	case bridge.Untried:
		if _, sentOn := errors.AsType[elsewhereError](result.Err); !sentOn {
			tries = int(past.Ended)
		}
	case bridge.Blocked:
		kind, tries = ErrorBlocked, maxDoublings
	}
	delay := min(FirstRetry<<min(max(tries-1, 0), maxDoublings), MaxRetry)
	least := min(result.RetryAfter, MaxRetryAfter)
	return repeat(kind, past.LastError, max(delay*4/5, least), max(delay*6/5, least),
		memory{FirstAttemptAt: past.FirstAttemptAt, Attempts: past.Attempts, Unknown: past.Unknown})
}

// maxDoublings of FirstRetry are more than MaxRetry.
const maxDoublings = 16

// repeat makes the error upon which Temporal repeats an activity after a time between least and most. Our own time,
// since the server's backoff has no jitter: a thousand callbacks that failed together must not come back together. It
// is nothing to alarm anybody.
func repeat(kind, why string, least, most time.Duration, details ...any) error {
	return temporal.NewApplicationErrorWithOptions(why, kind, temporal.ApplicationErrorOptions{
		NextRetryDelay: least + rand.N(most-least+1), //nolint:gosec // spreading load needs no unpredictable numbers
		Category:       temporal.ApplicationErrorCategoryBenign,
		Details:        details,
	})
}

// GaveUp fills in what is known of the attempts of a delivery whose deadline passed: the last of them left it in its
// error.
func GaveUp(receipt *bellhop.Receipt, err error) {
	var last *temporal.ApplicationError
	var past memory
	if errors.As(err, &last) && last.HasDetails() && last.Details(&past) == nil {
		receipt.Attempts = past.Attempts
		receipt.FirstAttemptAt = past.FirstAttemptAt
	}
}

// MayHaveArrived says of a delivery that was given up whether one of its attempts may have reached the caller.
func MayHaveArrived(err error) bool {
	var last *temporal.ApplicationError
	var past memory
	return errors.As(err, &last) && last.HasDetails() && last.Details(&past) == nil && past.Unknown
}

// Pending fills in what Temporal knows of a delivery that is still being tried: it was started by the workflow, which
// hears of it only at its end. The converter is the one of the delivery's workflow.
func Pending(receipt *bellhop.Receipt, info *workflowpb.PendingActivityInfo, data converter.DataConverter) {
	receipt.State = bellhop.ReceiptDelivering
	var past memory
	details := info.GetHeartbeatDetails()
	_ = data.FromPayloads(details, &past) //nolint:errcheck // as above
	receipt.FirstAttemptAt = past.FirstAttemptAt
	receipt.LastError = past.LastError
	receipt.Attempts = past.Attempts + untold(past, max(info.GetAttempt(), 1))
	if info.GetState() == enumspb.PENDING_ACTIVITY_STATE_STARTED {
		receipt.Attempts++
	}
	failure := info.GetLastFailure()
	if failure != nil && receipt.LastError == "" {
		converter.DecodeCommonFailureAttributes(data, failure)
		receipt.LastError = failure.GetMessage()
	}
	if failure.GetApplicationFailureInfo().GetType() == ErrorBlocked {
		receipt.State = bellhop.ReceiptBlocked
	}
}

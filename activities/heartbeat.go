package activities

import (
	"context"
	"fmt"
	"time"

	"go.temporal.io/sdk/activity"

	"bellhop"
	"bellhop/bridge"
)

// ErrorBeating is the type of the error by which a heartbeat asks to be repeated.
const ErrorBeating = "beating"

// Abandoned says why a caller waits no longer.
type Abandoned struct {
	Reason string `json:"reason"`
}

// LastError is what the receipt says of it.
func (a Abandoned) LastError() string { return "the caller waits no longer: " + a.Reason }

// Heartbeat tells a caller's engine once that the caller is still being worked for. Temporal repeats it, which costs no
// history and outlives any worker, until the workflow cancels it or the engine says that nobody waits any more: that is
// its result. What else goes wrong is tried again sooner, since the caller's patience is running out.
func (a *Activities) Heartbeat(ctx context.Context, callback bellhop.Callback) (Abandoned, error) {
	every := time.Duration(callback.Heartbeat)
	// Another worker may be configured for it.
	result := bridge.Result{Verdict: bridge.Retry, Err: fmt.Errorf("target %q knows no heartbeats at this worker", callback.Target)}
	if target, ok := a.Targets[callback.Target].(bridge.Heartbeater); ok {
		result = target.Heartbeat(ctx, callback.Address)
	}
	activity.GetMetricsHandler(ctx).WithTags(map[string]string{"target": callback.Target, "verdict": string(result.Verdict)}).
		Counter("bellhop_callback_heartbeats").Inc(1)
	why := ""
	if result.Err != nil {
		why = bellhop.Scrub(result.Err.Error(), callback.Secrets())
	}
	delay := every
	switch result.Verdict {
	case bridge.Closed, bridge.Undeliverable:
		return Abandoned{Reason: why}, nil
	case bridge.Retry, bridge.Untried:
		delay = max(every/4, min(result.RetryAfter, every))
	case bridge.Acknowledged, bridge.Accepted, bridge.Blocked:
	}
	return Abandoned{}, repeat(ErrorBeating, why, delay*9/10, delay) // never later than promised
}

package activities

import (
	"context"
	"encoding/json"
	"errors"

	"bellhop"
)

// Provider runs tenants' compute on one platform: one entry under providers in the worker's configuration.
//
// The law, which providertest checks on every implementation:
//
//   - Provision, Update and Delete ask for the change and return promptly with what is known by then; they do not
//     wait for it. Work that cannot be left to the platform, such as pulling an image, may take longer, as long as it
//     ends when ctx does and can be begun again.
//   - Each is safe to repeat, also after a crash at any point and from two workers at once: the same operation yields
//     the same resources, never a second set. Names, labels and client tokens derive from tenant, resource and
//     operation id.
//   - Every resource carries tenant, resource, operation id and generation. An operation never touches what carries a
//     newer [bellhop.Generation]: it is told PhaseSuperseded. What carries an older one it takes over.
//   - What is not ours is never touched: RESOURCE_CONFLICT.
//   - Deleting the absent succeeds with PhaseGone. Updating the absent fails with RESOURCE_NOT_FOUND.
//   - Ready means observed: what this operation asked for runs and is healthy. Gone means observed: nothing is left.
//     What cannot be told is PhasePending, never a success.
//   - An observation lists every resource id known, also when it reports a failure. It reports what stands now: the
//     replica that failed as well as the one that still serves.
//   - An end is an observation (PhaseFailed with a [bellhop.Failure] and its evidence), not an error. An error says
//     that the provider could not be asked: a *bellhop.Failure with PROVIDER_UNAVAILABLE or PROVIDER_THROTTLED, which
//     is tried again until the operation's time is up. A *bellhop.Failure with any other code ends the operation. Any
//     other error is bellhop's fault: it is tried again a few times, then ends the operation with INTERNAL.
//   - No call retries on its own: the one retrier is Temporal.
type Provider interface {
	// Check says what is wrong with an operation's provider_config and with what this platform cannot do of its
	// spec, as [bellhop.Faults]; nil when nothing is. It asks nobody.
	Check(op bellhop.Operation) error
	// Provision, Update and Delete ask for the change. Delete is also asked for a provision that is given up, under its
	// id and with its spec and provider_config, and then removes what it brought into being and what it took over.
	Provision(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error)
	Update(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error)
	Delete(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error)
	// Observe tells where the operation stands. It changes nothing that was asked for; it may finish what the ask began
	// and the platform does not finish by itself, such as removing what a ready operation has replaced, idempotently
	// and within the fences above. Of an operation that nobody asked for it says neither ready nor failed.
	Observe(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error)
	// Watch reports every resource of ours as it stands, then each change, until ctx ends or the platform can no
	// longer be watched, which is an error; it is then called again. It may repeat itself; it must not miss an end
	// (a phase other than pending) for longer than its resync interval. It calls report from one goroutine. What is
	// pending and mere progress need no report, and neither does an end that the answer of an ask carried: a signal
	// for each would cost Temporal more than the operation itself.
	Watch(ctx context.Context, report func(bellhop.Observation)) error
	// Inventory lists everything of ours that stands on the platform, by the operation that brought it into being: what
	// the platform says now, not what anybody remembers. Nothing that an outcome would list may be missing.
	Inventory(ctx context.Context) ([]bellhop.Holding, error)
}

// Ended is the failure with which err ends the operation. It is nil when err is none, and when the provider could not be
// asked, which is tried again.
func Ended(err error) *bellhop.Failure {
	failure, ok := errors.AsType[*bellhop.Failure](err)
	if !ok || failure.Code.Unavailable() {
		return nil
	}
	return failure
}

// progressKey carries the function behind [ReportProgress].
type progressKey struct{}

// WithProgress gives the calls under ctx a place to report progress to.
func WithProgress(ctx context.Context, report func(message string)) context.Context {
	return context.WithValue(ctx, progressKey{}, report)
}

// ReportProgress tells how far a long call of a provider has come ("pulling nginx:1.27, 34 %"). It may be called as
// often as wanted.
func ReportProgress(ctx context.Context, message string) {
	if report, ok := ctx.Value(progressKey{}).(func(string)); ok {
		report(message)
	}
}

// DecodeConfig reads an operation's provider_config strictly into config, whose present values are the defaults. Its
// faults carry their paths within the operation.
func DecodeConfig(raw json.RawMessage, config any) error {
	if len(raw) == 0 {
		return nil
	}
	err := bellhop.DecodeStrict(raw, config)
	if faults, ok := err.(bellhop.Faults); ok { //nolint:errorlint // DecodeStrict returns faults as they are
		return faults.Within("provider_config")
	}
	return err
}

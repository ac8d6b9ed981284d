// Package activities is what bellhop does outside of its workflows: it asks providers, observes and watches them, and
// delivers callbacks. The contract of a [Provider] is here, one folder per provider beside it.
package activities

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"bellhop"
	"bellhop/bridge"
	"bellhop/internal/tenancy"
)

// Activities are registered with a worker; their fields are what they depend on.
type Activities struct {
	// Providers and Targets are the worker's configuration, by name.
	Providers map[string]Provider
	Targets   map[string]bridge.Target
	// Backstop is how often an operation that waits is observed although no watcher said anything.
	Backstop Backstop
	// Waiters are told what watches observe.
	Waiters Waiters
	// Records tell whose it is what stands at a provider.
	Records Records
	// Elsewhere is how long an activity that this worker is not configured for is sent on to other workers before it is
	// anybody's fault. Default one minute.
	Elsewhere time.Duration
	// Places bound the calls of each tenant. Nil stands for no bound.
	Places *Places
	// Policy is what each tenant may name, also in operations that were started at Temporal directly. Nil bounds nobody.
	Policy *tenancy.Policy
}

// Backstop is how often an operation that waits is observed although no watcher said anything: first after First,
// then at intervals that double up to Max. The zero value stands for the defaults, one minute and ten.
type Backstop struct {
	First time.Duration `json:"first"`
	Max   time.Duration `json:"max"`
}

// Defaults of the backstop.
const (
	DefaultBackstopFirst = time.Minute
	DefaultBackstopMax   = 10 * time.Minute
)

// jittered spreads the first observation of operations that were asked for together. The workflow gets it with the
// answer: it has no randomness of its own, and the configuration is the worker's.
func (b Backstop) jittered() Backstop {
	if b.First <= 0 {
		b.First = DefaultBackstopFirst
	}
	if b.Max <= 0 {
		b.Max = DefaultBackstopMax
	}
	b.First += rand.N(b.First/4 + 1) //nolint:gosec // spreading load needs no unpredictable numbers
	b.Max = max(b.Max, b.First)
	return b
}

// Answer is what asking a provider came to.
type Answer struct {
	bellhop.Observation
	Backstop Backstop `json:"backstop"`
}

// Provision asks the operation's provider to provision.
func (a *Activities) Provision(ctx context.Context, op bellhop.Operation) (Answer, error) {
	return a.ask(ctx, op, "provision", Provider.Provision)
}

// Update asks the operation's provider to update.
func (a *Activities) Update(ctx context.Context, op bellhop.Operation) (Answer, error) {
	return a.ask(ctx, op, "update", Provider.Update)
}

// Delete asks the operation's provider to delete.
func (a *Activities) Delete(ctx context.Context, op bellhop.Operation) (Answer, error) {
	return a.ask(ctx, op, "delete", Provider.Delete)
}

// Observe asks the operation's provider where the operation stands.
func (a *Activities) Observe(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	leave, err := a.Places.take(ctx, kindLooks, op.TenantID)
	if err != nil {
		return bellhop.Observation{}, err
	}
	defer leave()
	return a.call(ctx, op, "observe", Provider.Observe)
}

type providerCall func(Provider, context.Context, bellhop.Operation) (bellhop.Observation, error)

func (a *Activities) ask(ctx context.Context, op bellhop.Operation, name string, call providerCall) (Answer, error) {
	if faults := a.check(op); len(faults) > 0 {
		if faults.OnlyHere() && a.mayBeElsewhere(ctx, time.Duration(op.Timeout)) {
			return Answer{}, notHere(bellhop.InvalidOperation(faults).Clean(op.Secrets()).Message)
		}
		return Answer{Observation: bellhop.Observation{
			OperationID: op.ID,
			Phase:       bellhop.PhaseFailed,
			Failure:     bellhop.InvalidOperation(faults).Clean(op.Secrets()),
		}}, nil
	}
	leave, err := a.Places.take(ctx, kindAsks, op.TenantID)
	if err != nil {
		return Answer{}, err
	}
	defer leave()
	observation, err := a.call(ctx, op, name, call)
	return Answer{Observation: observation, Backstop: a.Backstop.jittered()}, err
}

// defaultElsewhere is how long an activity is sent on by default. While a configuration is rolled out, a worker of the old
// or of the new one may be given it.
const defaultElsewhere = time.Minute

// mayBeElsewhere says whether another worker may still be configured for what this one is not. Of an operation that has
// little time, half is left for saying so.
func (a *Activities) mayBeElsewhere(ctx context.Context, timeout time.Duration) bool {
	return a.mayBeElsewhereSince(ctx, activity.GetInfo(ctx).ScheduledTime, timeout)
}

// mayBeElsewhereSince counts from another moment than that in which the activity was scheduled.
func (a *Activities) mayBeElsewhereSince(ctx context.Context, since time.Time, timeout time.Duration) bool {
	within := cmp.Or(a.Elsewhere, defaultElsewhere)
	if timeout > 0 {
		within = min(within, timeout/2)
	}
	return time.Since(since) < within && time.Duration(activity.GetInfo(ctx).Attempt)*elsewhereAfter <= within
}

// notHere makes the error by which an activity is sent on to another worker.
func notHere(why string) error {
	return temporal.NewApplicationErrorWithOptions(why, ErrorNotConfigured, temporal.ApplicationErrorOptions{
		NextRetryDelay: elsewhereAfter,
		Category:       temporal.ApplicationErrorCategoryBenign,
	})
}

// elsewhereAfter is after how long an activity is offered to all workers again. With one worker of ten configured for it,
// it finds that one within a minute in 998 of 1000 cases.
const elsewhereAfter = time.Second

// check finds every fault that only a worker can see: what is not configured, and what a provider or a target refuses.
func (a *Activities) check(op bellhop.Operation) bellhop.Faults {
	rules := a.Policy.For(op.TenantID)
	faults := rules.CheckOperation(op)
	provider, ok := a.Providers[op.Provider]
	switch {
	case ok:
		asked := op
		asked.Callbacks = nil // tokens are no provider's business
		faults.Note("", provider.Check(asked))
	case rules.MayNameProvider(op.Provider): // else that is the fault
		mayName := func(name string, _ Provider) bool { return rules.MayNameProvider(name) }
		faults.AddHere("provider", "%q is not configured; configured are %s", op.Provider, names(a.Providers, mayName))
	}
	for i, callback := range op.Callbacks {
		path := fmt.Sprintf("callbacks[%d]", i)
		target, ok := a.Targets[callback.Target]
		switch {
		case ok:
			if !bridge.Serves(target, op.TenantID) {
				faults.AddHere(path+".target", "%q is not for tenant %q", callback.Target, op.TenantID)
			}
			faults.Note(path, target.Check(callback))
			if callback.Heartbeat > 0 && !bridge.Heartbeats(target) {
				faults.Add(path+".heartbeat", "must be left out: the engine of target %s waits without heartbeats", callback.Target)
			}
		case rules.MayNameTarget(callback.Target):
			mayName := func(name string, target bridge.Target) bool {
				return rules.MayNameTarget(name) && bridge.Serves(target, op.TenantID)
			}
			faults.AddHere(path+".target", "%q is not configured; configured are %s", callback.Target, names(a.Targets, mayName))
		}
	}
	return faults
}

// names lists the entries that somebody may know of.
func names[V any](entries map[string]V, may func(name string, entry V) bool) string {
	var known []string
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		if may(name, entries[name]) {
			known = append(known, name)
		}
	}
	if len(known) == 0 {
		return "none"
	}
	return strings.Join(known, ", ")
}

// all is for an operator, who knows every entry.
func all[V any](string, V) bool { return true }

// callMemory is what one attempt of a call leaves for the next, in the heartbeat's details. Temporal's own count of
// attempts also has those that found no place and those that other workers sent on.
type callMemory struct {
	// Progress is what the provider reported last, for a person who looks at the pending activity.
	Progress string `json:"progress,omitempty"`
	// Unforeseen is how many attempts failed for a reason nobody foresaw.
	Unforeseen int `json:"unforeseen,omitempty"`
}

// maxInternalAttempts is how often a call is tried that fails for a reason nobody foresaw. It is bellhop's own fault,
// and a caller should not wait for the operation's whole timeout to hear of it.
const maxInternalAttempts = 6

// call runs one call of a provider, with heartbeats while it lasts, and is the one place that turns what a provider
// says into what Temporal understands: an end is a result, an error is tried again.
func (a *Activities) call(ctx context.Context, op bellhop.Operation, name string, call providerCall,
) (bellhop.Observation, error) {
	provider, ok := a.Providers[op.Provider]
	if !ok {
		return bellhop.Observation{}, notHere(fmt.Sprintf("provider %q is not configured at this worker", op.Provider))
	}
	secrets := op.Secrets()
	op.Callbacks = nil // tokens are no provider's business

	began := time.Now()
	var past callMemory
	if activity.HasHeartbeatDetails(ctx) {
		_ = activity.GetHeartbeatDetails(ctx, &past) //nolint:errcheck // details that cannot be read are as good as none
	}
	beating, stop := beat(ctx, func(progress string) any {
		return callMemory{Progress: bellhop.Scrub(progress, secrets), Unforeseen: past.Unforeseen}
	})
	observation, err := guarded(beating, secrets, func() (bellhop.Observation, error) { return call(provider, beating, op) })
	stop()

	observation.OperationID = op.ID
	observation = observation.Clean(secrets)
	result := "ok"
	defer func() {
		metrics := activity.GetMetricsHandler(ctx).WithTags(map[string]string{"provider": op.Provider, "call": name, "result": result})
		metrics.Counter("bellhop_provider_calls").Inc(1)
		metrics.Timer("bellhop_provider_call_duration").Record(time.Since(began))
	}()
	if err == nil {
		return bellhop.BoundObservation(observation, bellhop.MaxObservationBytes), nil
	}
	if ctx.Err() != nil { // cancelled, or this worker is stopping
		result = "cancelled"
		return bellhop.Observation{}, ctx.Err()
	}
	var failure *bellhop.Failure
	if !errors.As(err, &failure) {
		failure = bellhop.Fail(bellhop.CodeInternal, "%s", err)
	}
	failure = failure.Clean(secrets)
	result = string(failure.Code)
	if failure.Code == bellhop.CodeInternal {
		if past.Unforeseen++; past.Unforeseen < maxInternalAttempts {
			activity.RecordHeartbeat(ctx, past)
			return bellhop.Observation{}, tryAgain(failure)
		}
	}
	if failure.Code.Unavailable() {
		return bellhop.Observation{}, tryAgain(failure)
	}
	observation.Phase = bellhop.PhaseFailed
	observation.Failure = failure
	return bellhop.BoundObservation(observation, bellhop.MaxObservationBytes), nil
}

// guarded turns a panic of a provider into an error of bellhop's own. Left to the SDK it would be tried again until the
// operation's time is up, with the heartbeats of the dead call going on.
func guarded(ctx context.Context, secrets []string, call func() (bellhop.Observation, error)) (seen bellhop.Observation, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			message := bellhop.Scrub(fmt.Sprintf("the provider panicked: %v", reason), secrets)
			activity.GetLogger(ctx).Error(message, "stack", string(debug.Stack()))
			err = bellhop.Fail(bellhop.CodeInternal, "%s", message)
		}
	}()
	return call()
}

// tryAgain makes the error upon which Temporal tries an activity again.
func tryAgain(failure *bellhop.Failure) error {
	message := failure.Message
	if failure.ProviderError != "" {
		message += ": " + failure.ProviderError
	}
	return temporal.NewApplicationErrorWithOptions(message, string(failure.Code), temporal.ApplicationErrorOptions{
		NextRetryDelay: failure.RetryAfter, // 0: as the retry policy says
	})
}

// HeartbeatTimeout is after how long without a sign of life a call or a watch is given to another worker.
const HeartbeatTimeout = 10 * time.Second

// asTold makes details of progress alone.
func asTold(progress string) any { return progress }

// beat sends heartbeats while a long call lasts, with details made of the progress that it reports. A call that is over
// within the first interval costs none.
func beat(ctx context.Context, details func(progress string) any) (context.Context, func()) {
	done := make(chan struct{})
	stopped := make(chan struct{})
	progress := make(chan string, 1)
	ctx = WithProgress(ctx, func(message string) {
		select {
		case <-progress: // what nobody has read yet is stale
		default:
		}
		select {
		case progress <- message:
		default:
		}
	})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(HeartbeatTimeout / 5)
		defer ticker.Stop()
		last := ""
		for {
			select {
			case <-done:
				return
			case last = <-progress:
			case <-ticker.C:
				activity.RecordHeartbeat(ctx, details(last))
			}
		}
	}()
	return ctx, func() { close(done); <-stopped }
}

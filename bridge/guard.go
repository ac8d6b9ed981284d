package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sony/gobreaker/v2"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"bellhop"
)

// Limits say who may call a target, and keep one that is slow, down or short of quota from costing the others anything.
// Each worker counts for itself.
type Limits struct {
	// Concurrency is how many calls to the target are under way at once. Default: a quarter of limits.activities, so that
	// one target that answers nothing leaves the others their places.
	Concurrency int `json:"concurrency"`
	// PerSecond is how many calls to the target begin in a second, heartbeats included. Default 0: as many as come; for
	// a target of type stepfunctions 300, the quota of AWS's smaller regions.
	PerSecond float64 `json:"per_second"`
	// Tenants are those whose operations may name the target in a callback. Default: all.
	Tenants Tenants `json:"tenants"`
}

// Check says what is wrong with the limits, as [bellhop.Faults].
func (l Limits) Check() error {
	var faults bellhop.Faults
	if l.Concurrency < 0 {
		faults.Add("concurrency", "must be at least 1, or be left out")
	}
	if l.PerSecond < 0 {
		faults.Add("per_second", "must not be negative")
	}
	faults.Note("tenants", l.Tenants.Check())
	return faults.Err()
}

// AttemptTimeout bounds one call to a target.
const AttemptTimeout = 10 * time.Second

const (
	// tripAfter is how many calls in a row must find a target out of order until it is spared.
	tripAfter = 5
	// spareFor is how long it is spared. Then one call tries it, upon which it is open to all or spared again: one place is
	// what a dead target costs, and one that works again is found out soon.
	spareFor = 2 * time.Second
	// queueFor is how long a call waits for its turn under PerSecond before it is sent back to where it came from.
	queueFor = 200 * time.Millisecond
)

// Guarded is a target with a circuit breaker and limits. A call that it does not let through is answered at once with
// Untried, so that it takes no place from the calls to other targets.
type Guarded struct {
	target  Target
	tenants Tenants
	slots   *semaphore.Weighted
	rate    *rate.Limiter
	breaker *gobreaker.TwoStepCircuitBreaker[Result]
}

// Guard puts limits around a target. The function is told when the target begins to be spared and when that ends; it may
// be nil.
func Guard(target Target, limits Limits, spared func(bool)) *Guarded {
	pace := rate.Inf
	if limits.PerSecond > 0 {
		pace = rate.Limit(limits.PerSecond)
	}
	settings := gobreaker.Settings{
		MaxRequests: 1,
		Timeout:     spareFor,
		ReadyToTrip: func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= tripAfter },
		IsExcluded:  func(err error) bool { return errors.Is(err, errHurried) },
	}
	if spared != nil {
		settings.OnStateChange = func(_ string, from, to gobreaker.State) {
			if from == gobreaker.StateClosed || to == gobreaker.StateClosed {
				spared(to != gobreaker.StateClosed)
			}
		}
	}
	return &Guarded{
		target:  target,
		tenants: limits.Tenants,
		slots:   semaphore.NewWeighted(int64(max(1, limits.Concurrency))),
		rate:    rate.NewLimiter(pace, max(1, int(limits.PerSecond/10))),
		breaker: gobreaker.NewTwoStepCircuitBreaker[Result](settings),
	}
}

// Serves says whether the operations of a tenant may name a target in a callback.
func Serves(target Target, tenant string) bool {
	guarded, ok := target.(*Guarded)
	return !ok || guarded.tenants.Include(tenant)
}

// Check is the target's.
func (g *Guarded) Check(callback bellhop.Callback) error { return g.target.Check(callback) }

// Deliver is the target's, if it may be called now.
func (g *Guarded) Deliver(ctx context.Context, address json.RawMessage, m Message) Result {
	return g.call(ctx, func(ctx context.Context) Result { return g.target.Deliver(ctx, address, m) })
}

// Heartbeat is the target's, if it may be called now.
func (g *Guarded) Heartbeat(ctx context.Context, address json.RawMessage) Result {
	heartbeater, ok := g.target.(Heartbeater)
	if !ok {
		return Result{Verdict: Blocked, Err: errors.New("the target's engine knows no heartbeats")}
	}
	return g.call(ctx, func(ctx context.Context) Result { return heartbeater.Heartbeat(ctx, address) })
}

// Heartbeats says whether a target's engine knows heartbeats.
func Heartbeats(target Target) bool {
	if guarded, ok := target.(*Guarded); ok {
		target = guarded.target
	}
	_, ok := target.(Heartbeater)
	return ok
}

// errHurried is what the breaker hears of a call that had to end before the target had its time: by a deadline that a
// caller chose, or because the worker stops. It says nothing of the target, good or bad.
var errHurried = errors.New("the target was not given its time")

func (g *Guarded) call(ctx context.Context, call func(context.Context) Result) Result {
	const spared = "the target is out of order and is spared for a while"
	if g.breaker.State() == gobreaker.StateOpen { // first of all: what is refused uses up no rate
		return untried(0, spared)
	}
	if !g.slots.TryAcquire(1) {
		return untried(0, "too many calls to the target are under way")
	}
	defer g.slots.Release(1)
	if wait := g.turn(ctx); wait > 0 {
		return untried(wait, "the target's calls per second are used up")
	}
	done, err := g.breaker.Allow()
	if err != nil {
		return untried(0, spared)
	}
	result := Result{Verdict: Retry, Unknown: true, Err: errors.New("the call broke off")} // should it panic
	defer func() {
		var broken error
		if result.Verdict == Retry && !result.Caller {
			broken = result.Err
			if ctx.Err() != nil {
				broken = errHurried
			}
		}
		done(broken)
	}()
	attempt, cancel := context.WithTimeout(ctx, AttemptTimeout)
	defer cancel()
	result = call(attempt)
	return result
}

// turn waits for the call's turn. When that would take too long it answers how long.
func (g *Guarded) turn(ctx context.Context) time.Duration {
	place := g.rate.Reserve()
	wait := place.Delay()
	if wait == 0 {
		return 0
	}
	if wait <= queueFor {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
			return 0
		case <-ctx.Done():
		}
	}
	place.Cancel()
	return wait
}

func untried(after time.Duration, why string) Result {
	return Result{Verdict: Untried, RetryAfter: after, Err: fmt.Errorf("not tried: %s", why)}
}

package activities

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"bellhop"
)

// Waiters are the operations of one provider that wait, as Temporal knows them.
type Waiters interface {
	// Open lists the ids of the operations at a provider that are under way. The list may lag behind by a second or
	// two.
	Open(ctx context.Context, provider string) (map[string]bool, error)
	// Observed tells an operation what was observed of it. A serviceerror.NotFound says that it is under way no more.
	Observed(ctx context.Context, seen bellhop.Observation) error
}

const (
	// signallers is how many operations are woken up at once.
	signallers = 16
	// openLag is how old an operation must be for the list of those under way to be trusted about it.
	openLag = 30 * time.Second
	// betweenWatches is after how long a watch that failed is begun anew.
	betweenWatches = time.Second
	// remembered is how many operations a watch remembers having told of their end, lest each resync tells them again.
	remembered = 200_000
)

// errorWatch is the type of the error of a watch that could not be kept up.
const errorWatch = "WATCH_FAILED"

// Watch watches a provider for at most the given time and tells the operations that wait what was observed of them.
// When the platform can no longer be watched it ends with an error, and Temporal starts it anew, here or elsewhere.
func (a *Activities) Watch(ctx context.Context, provider string, within time.Duration) error {
	platform, ok := a.Providers[provider]
	if !ok {
		return notHere(fmt.Sprintf("provider %q is not configured at this worker; configured are %s", provider, names(a.Providers, all)))
	}
	ctx, stop := beat(ctx, asTold)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	// A worker that is stopping hands its watch over at once instead of at the end of its grace period.
	unhook := context.AfterFunc(stopping(ctx), cancel)
	defer unhook()

	failed := func(err error) error {
		var options temporal.ApplicationErrorOptions
		if ctx.Err() == nil {
			options.NextRetryDelay = betweenWatches
		}
		return temporal.NewApplicationErrorWithOptions(fmt.Sprintf("watch %s: %s", provider, err), errorWatch, options)
	}
	open, err := a.Waiters.Open(ctx, provider)
	if err != nil {
		return failed(fmt.Errorf("list open operations: %w", err))
	}
	told, err := lru.New[string, bellhop.Phase](remembered)
	if err != nil {
		return fmt.Errorf("remember operations: %w", err)
	}
	w := &watch{waiters: a.Waiters, open: open, since: time.Now(), told: told}
	ends := make(chan bellhop.Observation, 4*signallers)
	var workers sync.WaitGroup
	for range signallers {
		workers.Go(func() {
			for seen := range ends {
				w.tell(ctx, seen)
			}
		})
	}
	err = platform.Watch(ctx, func(seen bellhop.Observation) {
		if !w.news(seen) {
			return
		}
		select {
		case ends <- seen:
		case <-ctx.Done():
		}
	})
	close(ends)
	workers.Wait()
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return nil // the time is up: the workflow begins a new run
	}
	if err == nil {
		err = errors.New("the watch ended without an error")
	}
	return failed(err)
}

// watch decides who is told what.
type watch struct {
	waiters Waiters
	// open are the operations that were under way at since. Each report about an older one that is not among them is
	// about an operation that ended before.
	open  map[string]bool
	since time.Time
	told  *lru.Cache[string, bellhop.Phase]
}

// news says whether an operation is to be told what was seen of it: an end, of an operation that may still wait, and
// that it was not told yet. What is lost nevertheless, the operation's own backstop finds.
func (w *watch) news(seen bellhop.Observation) bool {
	if seen.Phase == bellhop.PhasePending || seen.OperationID == "" {
		return false
	}
	if !w.open[seen.OperationID] && !seen.RequestedAt.IsZero() && w.since.Sub(seen.RequestedAt) > openLag {
		return false
	}
	phase, known := w.told.Get(seen.OperationID)
	if known && phase == seen.Phase {
		return false
	}
	w.told.Add(seen.OperationID, seen.Phase)
	return true
}

func (w *watch) tell(ctx context.Context, seen bellhop.Observation) {
	err := w.waiters.Observed(ctx, bellhop.BoundObservation(seen, bellhop.MaxObservationBytes))
	var gone *serviceerror.NotFound
	if err == nil || errors.As(err, &gone) {
		return
	}
	w.told.Remove(seen.OperationID) // the next resync tells it again
	if ctx.Err() == nil {
		activity.GetLogger(ctx).Warn("operation was not told what was observed",
			"operation", seen.OperationID, "phase", seen.Phase, "error", err)
	}
}

// stopping returns a context that ends when the worker begins to stop.
func stopping(ctx context.Context) context.Context {
	stopped, cancel := context.WithCancel(ctx)
	channel := activity.GetWorkerStopChannel(ctx)
	go func() {
		defer cancel()
		select {
		case <-channel:
		case <-ctx.Done():
		}
	}()
	return stopped
}

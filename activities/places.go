package activities

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
)

// Places bound how many calls to providers one tenant has under way at a worker, so that a tenant whose calls are slow
// leaves slots to the others. Asks and looks count separately. A call that finds no place gives its slot back at once, and
// Temporal makes it again later: a queue that occupies nothing.
type Places struct {
	// limit is how many calls of a kind a tenant may have under way.
	limit func(tenant string) int

	mu    sync.Mutex
	taken map[share]int
}

// share is what is counted by itself.
type share struct {
	kind   string
	tenant string
}

// NewPlaces makes places of which each tenant has as many as limit says; 0 is no limit.
func NewPlaces(limit func(tenant string) int) *Places {
	return &Places{limit: limit, taken: map[share]int{}}
}

// ErrorWaiting is the type of the error by which a call asks to be made again because its tenant has no place left.
const ErrorWaiting = "WAITING_FOR_A_PLACE"

// Pauses of a call that found no place: they double from the first to the longest. A look is worth nothing a minute later.
const (
	firstPause       = time.Second
	longestAskPause  = time.Minute
	longestLookPause = 10 * time.Second
)

// Kinds of calls that count separately, as messages name them.
const (
	kindAsks  = "asks"
	kindLooks = "looks"
)

// take takes a place; leave gives it back. The error says that there is none now. Without places everything is let in.
func (p *Places) take(ctx context.Context, kind, tenant string) (leave func(), err error) {
	if p == nil {
		return func() {}, nil
	}
	at := share{kind, tenant}
	limit := p.limit(tenant)
	p.mu.Lock()
	full := limit > 0 && p.taken[at] >= limit
	if !full {
		p.taken[at]++
	}
	p.mu.Unlock()
	if full {
		activity.GetMetricsHandler(ctx).WithTags(map[string]string{"kind": kind}).Counter("bellhop_calls_waiting").Inc(1)
		return nil, p.pause(ctx, at, limit)
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.taken[at]--; p.taken[at] == 0 {
			delete(p.taken, at) // tenants come and go
		}
	}, nil
}

// pause makes the error by which a call asks to be made again. Calls that came together do not come back together.
func (p *Places) pause(ctx context.Context, at share, limit int) error {
	longest := longestAskPause
	if at.kind == kindLooks {
		longest = longestLookPause
	}
	pause := min(firstPause<<min(activity.GetInfo(ctx).Attempt-1, 10), longest)
	return temporal.NewApplicationErrorWithOptions(
		fmt.Sprintf("tenant %s has %d %s under way at this worker, as many as it may; the next begins when one has ended", at.tenant, limit, at.kind),
		ErrorWaiting, temporal.ApplicationErrorOptions{
			NextRetryDelay: pause/2 + rand.N(pause), //nolint:gosec // spreading load needs no unpredictable numbers
			Category:       temporal.ApplicationErrorCategoryBenign,
		})
}

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

// Places bound how many calls of each kind are under way at a worker, in all and for each tenant, so that neither one kind
// nor one tenant leaves the others without slots. A call that finds no place gives its slot back at once, and Temporal
// makes it again later: a queue that occupies nothing.
//
// Asks and deliveries share a task queue with the workflows, from where Temporal hands an activity to the worker that
// scheduled it without a detour; the worker has slots there for as many of both as there are places, and some more.
type Places struct {
	// total is how many calls of a kind may be under way.
	total int
	// limit is how many of them one tenant may have.
	limit func(tenant string) int

	mu    sync.Mutex
	taken map[share]int
}

// share is what is counted by itself: the calls of a kind of one tenant, or of all.
type share struct {
	kind   string
	tenant string
}

// NewPlaces makes places for total calls of each kind, of which each tenant has as many as limit says; 0 is no limit.
func NewPlaces(total int, limit func(tenant string) int) *Places {
	return &Places{total: total, limit: limit, taken: map[share]int{}}
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
	kindAsks       = "asks"
	kindLooks      = "looks"
	kindDeliveries = "deliveries"
)

// enter takes a place; leave gives it back. Where there is none, it says why. Without places everything is let in.
func (p *Places) enter(kind, tenant string) (leave func(), full string) {
	if p == nil {
		return func() {}, ""
	}
	everybody, own := share{kind: kind}, share{kind, tenant}
	limit := 0
	if tenant != "" {
		limit = p.limit(tenant)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case limit > 0 && p.taken[own] >= limit:
		return nil, fmt.Sprintf("tenant %s has %d %s under way at this worker, as many as it may; the next begins when one has ended", tenant, limit, kind)
	case p.total > 0 && p.taken[everybody] >= p.total:
		return nil, fmt.Sprintf("%d %s are under way at this worker, as many as it takes; the next begins when one has ended", p.total, kind)
	}
	p.taken[everybody]++
	if own != everybody {
		p.taken[own]++
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.taken[everybody]--
		if own == everybody {
			return
		}
		if p.taken[own]--; p.taken[own] == 0 {
			delete(p.taken, own) // tenants come and go
		}
	}, ""
}

// take is enter for a call to a provider; the error asks for it to be made again.
func (p *Places) take(ctx context.Context, kind, tenant string) (leave func(), err error) {
	leave, full := p.enter(kind, tenant)
	if full != "" {
		activity.GetMetricsHandler(ctx).WithTags(map[string]string{"kind": kind}).Counter("bellhop_calls_waiting").Inc(1)
		return nil, pause(ctx, kind, full)
	}
	return leave, nil
}

// pause makes the error by which a call asks to be made again. Calls that came together do not come back together.
func pause(ctx context.Context, kind, why string) error {
	longest := longestAskPause
	if kind == kindLooks {
		longest = longestLookPause
	}
	wait := min(firstPause<<min(activity.GetInfo(ctx).Attempt-1, 10), longest)
	return temporal.NewApplicationErrorWithOptions(why, ErrorWaiting, temporal.ApplicationErrorOptions{
		NextRetryDelay: wait/2 + rand.N(wait), //nolint:gosec // spreading load needs no unpredictable numbers
		Category:       temporal.ApplicationErrorCategoryBenign,
	})
}

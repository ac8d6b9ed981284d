package operations

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.temporal.io/api/workflowservice/v1"

	"bellhop"
	"bellhop/internal/tenancy"
)

// quotas bound the open operations of each tenant. How many are open Temporal's search says, which is asked now and then;
// in between the starts are counted here. So a start costs no search, several workers together may exceed the limit by
// what each of them starts in a moment, and what is started by other means counts as well.
type quotas struct {
	count counter

	mu      sync.Mutex
	ledgers map[string]*ledger
}

// counter counts the operations of a tenant that search knows: those that are open, and those that were started since a
// time, open or not.
type counter func(ctx context.Context, tenant string, since time.Time) (open, started int, err error)

const (
	// countEvery is how long a count is good for, with the starts since.
	countEvery = 5 * time.Second
	// countPause is what is left between two counts of a tenant that has reached its limit. Nobody is refused by a count
	// from before it asked, so this is how long a refusal may take.
	countPause = 200 * time.Millisecond
	// countWithin bounds what search may take.
	countWithin = 2 * time.Second
	// searchLag is after how long search knows of a start for sure.
	searchLag = 2 * time.Second
	// keptLedgers is how many tenants are remembered before those are forgotten who have started nothing for a while.
	keptLedgers = 1000
)

func newQuotas(count counter) *quotas { return &quotas{count: count, ledgers: map[string]*ledger{}} }

// ledger is what is known of one tenant.
type ledger struct {
	// turn is held by who reads or writes the rest.
	turn chan struct{}
	// open is how many operations were open at the time of counted; tried is when that was last asked.
	open           int
	counted, tried time.Time
	// starts are when operations were started here, the latest last: all since counted, and all that search may not know of.
	starts []time.Time
}

// take counts a start that is about to be made, or refuses it. Where nothing was started after all, it is undone.
func (q *quotas) take(ctx context.Context, rules tenancy.Rules) (undo func(), err error) {
	limit := rules.Limits.OpenOperations
	if q == nil || limit <= 0 {
		return func() {}, nil
	}
	l, asked := q.ledger(rules.Tenant), time.Now()
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-l.turn }()
	if time.Since(l.tried) >= countEvery {
		err = l.recount(ctx, rules.Tenant, q.count)
	}
	if l.estimate() >= limit && l.tried.Before(asked) {
		select {
		case <-time.After(time.Until(l.tried.Add(countPause))):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		err = l.recount(ctx, rules.Tenant, q.count)
	}
	if l.estimate() >= limit {
		if err != nil { // whether it is so cannot be told
			return nil, err
		}
		return nil, fmt.Errorf("%w: %d for tenant %s; try again once one has ended", bellhop.ErrTooMany, limit, rules.Tenant)
	}
	// Where search does not answer, what is known has to do: a start needs no search.
	began := time.Now()
	l.starts = append(l.starts, began)
	return func() {
		l.turn <- struct{}{}
		defer func() { <-l.turn }()
		if i := slices.Index(l.starts, began); i >= 0 {
			l.starts = slices.Delete(l.starts, i, i+1)
		}
	}, nil
}

// ledger answers a tenant's ledger.
func (q *quotas) ledger(tenant string) *ledger {
	q.mu.Lock()
	defer q.mu.Unlock()
	if known, ok := q.ledgers[tenant]; ok {
		return known
	}
	if len(q.ledgers) >= keptLedgers {
		q.forget()
	}
	made := &ledger{turn: make(chan struct{}, 1)}
	q.ledgers[tenant] = made
	return made
}

// forget drops the tenants who have started nothing for a while.
func (q *quotas) forget() {
	for tenant, l := range q.ledgers {
		select {
		case l.turn <- struct{}{}:
		default: // it starts something right now
			continue
		}
		if time.Since(l.tried) > 2*countEvery {
			delete(q.ledgers, tenant)
		}
		<-l.turn
	}
}

func (l *ledger) estimate() int { return l.open + l.since(l.counted) }

// since is how many operations were started here since a time.
func (l *ledger) since(t time.Time) int {
	first, _ := slices.BinarySearchFunc(l.starts, t, time.Time.Compare)
	return len(l.starts) - first
}

// recount asks search. What was started here a moment ago and search does not know yet is open all the same.
func (l *ledger) recount(ctx context.Context, tenant string, count counter) error {
	now := time.Now()
	l.tried = now
	young := now.Add(-searchLag)
	ctx, cancel := context.WithTimeout(ctx, countWithin)
	defer cancel()
	open, started, err := count(ctx, tenant, young)
	if err != nil {
		return err
	}
	l.open, l.counted = open+max(0, l.since(young)-started), now
	l.starts = slices.Delete(l.starts, 0, len(l.starts)-l.since(young))
	return nil
}

// countOpen is a [counter] by Temporal's search.
func (c *Client) countOpen(ctx context.Context, tenant string, since time.Time) (open, started int, err error) {
	count := func(more string) int {
		if err != nil {
			return 0
		}
		var answer *workflowservice.CountWorkflowExecutionsResponse
		answer, err = c.temporal.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{
			Namespace: c.namespace, Query: query(bellhop.Filter{Tenant: tenant}) + " AND " + more,
		})
		return int(answer.GetCount())
	}
	// In this order: what search gets to know in between is counted twice rather than not at all.
	started = count("StartTime >= " + quote(since.UTC().Format(time.RFC3339Nano)))
	open = count("ExecutionStatus = 'Running'")
	if err != nil {
		err = fmt.Errorf("count the open operations of tenant %s: %w", tenant, explain(err))
	}
	return open, started, err
}

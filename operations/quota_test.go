package operations

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"bellhop"
	"bellhop/internal/tenancy"
)

// searched stands for Temporal's search: what it tells, and how often it was asked.
type searched struct {
	open, started atomic.Int64
	asked         atomic.Int64
	fails         atomic.Bool
}

func (s *searched) count(context.Context, string, time.Time) (open, started int, err error) {
	s.asked.Add(1)
	if s.fails.Load() {
		return 0, 0, errors.New("search is away")
	}
	return int(s.open.Load()), int(s.started.Load()), nil
}

func limited(tenant string, limit int) tenancy.Rules {
	return tenancy.Rules{Tenant: tenant, Limits: tenancy.Limits{OpenOperations: limit}}
}

func TestQuota_StartsCostNoSearch(t *testing.T) {
	t.Parallel()
	search := &searched{}
	q := newQuotas(search.count)
	began := time.Now()
	var starts sync.WaitGroup
	for range 20 {
		starts.Go(func() {
			for range 500 {
				if _, err := q.take(t.Context(), limited("acme", 20_000)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	starts.Wait()
	require.LessOrEqual(t, search.asked.Load(), 1+int64(time.Since(began)/countEvery))
}

func TestQuota_TheLimitIsExactAtOneWorker(t *testing.T) {
	t.Parallel()
	search := &searched{} // which knows of nothing yet
	q := newQuotas(search.count)
	var taken atomic.Int64
	var starts sync.WaitGroup
	for range 50 {
		starts.Go(func() {
			if _, err := q.take(t.Context(), limited("acme", 20)); err == nil {
				taken.Add(1)
			} else if !errors.Is(err, bellhop.ErrTooMany) {
				t.Error(err)
			}
		})
	}
	starts.Wait()
	require.Equal(t, int64(20), taken.Load())
	require.Less(t, search.asked.Load(), int64(5), "they are refused by one count")
	_, err := q.take(t.Context(), limited("rival", 20))
	require.NoError(t, err, "another tenant has its own")

	search.started.Store(20) // it knows of them now, and that most have ended
	search.open.Store(19)
	undo, err := q.take(t.Context(), limited("acme", 20))
	require.NoError(t, err)
	_, err = q.take(t.Context(), limited("acme", 20))
	require.ErrorIs(t, err, bellhop.ErrTooMany)
	undo() // it was not started after all
	undo()
	_, err = q.take(t.Context(), limited("acme", 20))
	require.NoError(t, err)
}

func TestQuota_WithoutSearchStartsGoOn(t *testing.T) {
	t.Parallel()
	search := &searched{}
	search.fails.Store(true)
	q := newQuotas(search.count)
	for range 3 {
		_, err := q.take(t.Context(), limited("acme", 3))
		require.NoError(t, err)
	}
	_, err := q.take(t.Context(), limited("acme", 3))
	require.Error(t, err)
	require.NotErrorIs(t, err, bellhop.ErrTooMany, "whether it is so cannot be told")
}

func TestQuota_ForgetsWhoStartsNothing(t *testing.T) {
	t.Parallel()
	q := newQuotas((&searched{}).count)
	for i := range 3 * keptLedgers {
		_, err := q.take(t.Context(), limited(fmt.Sprintf("tenant-%d", i), 10))
		require.NoError(t, err)
		q.ledgers[fmt.Sprintf("tenant-%d", i)].tried = time.Now().Add(-time.Hour)
	}
	require.LessOrEqual(t, len(q.ledgers), keptLedgers)
}

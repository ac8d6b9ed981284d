package httpapi

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// shares bound how much of something each of several may have at once, by key, so that nobody takes all of it.
type shares struct {
	mu    sync.Mutex
	taken map[string]*share
}

type share struct {
	free *semaphore.Weighted
	// users are those who have a part of it or wait for one.
	users int
}

// take takes a place, waiting for it that long, and answers how to give it back; giving it back twice does no harm. A
// limit of 0 is none.
func (s *shares) take(ctx context.Context, key string, limit int, within time.Duration) (giveBack func(), ok bool) {
	if limit <= 0 {
		return func() {}, true
	}
	s.mu.Lock()
	if s.taken == nil {
		s.taken = map[string]*share{}
	}
	one := s.taken[key]
	if one == nil {
		one = &share{free: semaphore.NewWeighted(int64(limit))}
		s.taken[key] = one
	}
	one.users++
	s.mu.Unlock()

	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(s.taken, key)
		}
	}
	if !one.free.TryAcquire(1) {
		ctx, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		if one.free.Acquire(ctx, 1) != nil {
			leave()
			return nil, false
		}
	}
	return sync.OnceFunc(func() { one.free.Release(1); leave() }), true
}

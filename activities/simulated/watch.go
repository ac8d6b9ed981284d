package simulated

import (
	"container/heap"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"bellhop"
)

// Watch reports every operation that the file remembers as it stands, then each end, except those that the answer to
// the ask carried already.
//
// It reads what changed by the sequence of changes, and keeps of what is yet to happen no more than when: 50,000
// operations that wait cost some megabytes and no CPU. While nothing happens it asks SQLite every [Config].PollInterval
// for the number of commits by others.
func (p *Provider) Watch(ctx context.Context, report func(bellhop.Observation)) error {
	conn, err := p.store.reads.Conn(ctx)
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	defer conn.Close() //nolint:errcheck // it only read
	version, err := conn.PrepareContext(ctx, "PRAGMA data_version")
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	defer version.Close() //nolint:errcheck // it only read
	rang, hangUp := p.bell.listen()
	defer hangUp()
	w := &watcher{store: p.store, version: version, report: report, starting: true}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if err := w.look(ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("watch: %w", err)
		}
		w.starting = false
		wait := p.poll
		if due := w.upcoming.due(); due != 0 {
			wait = max(0, min(wait, time.Duration(due-time.Now().UnixNano())))
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-rang:
		case <-timer.C:
		}
	}
}

// batch bounds how many rows are held at once.
const batch = 256

// watcher is one Watch: what it has seen, and when it has to look again.
type watcher struct {
	store    *store
	version  *sql.Stmt
	report   func(bellhop.Observation)
	starting bool
	commits  int64
	seen     int64
	upcoming schedule
}

// look reports what changed since it last looked, then what time brought.
func (w *watcher) look(ctx context.Context) error {
	// data_version changes with each commit by any other connection, and is read without the file.
	var commits int64
	if err := w.version.QueryRowContext(context.WithoutCancel(ctx)).Scan(&commits); err != nil {
		return err
	}
	if commits != w.commits || w.starting {
		if err := w.changes(ctx); err != nil {
			return err
		}
		w.commits = commits
	}
	return w.fire(ctx)
}

// changes reports what was changed, in order. While starting, it also reports what is pending.
func (w *watcher) changes(ctx context.Context) error {
	for {
		found, err := records(ctx, w.store.since, w.seen, batch)
		if err != nil {
			return err
		}
		now := time.Now().UnixNano()
		for i := range found {
			r := &found[i]
			w.seen = r.change
			w.upcoming.add(r, now)
			phase := r.phase(now)
			if w.starting && phase == bellhop.PhaseGone && now-r.doneAt > int64(remembersEnded) {
				continue // it is remembered for its generation only
			}
			if w.starting || phase != bellhop.PhasePending && !r.answered() {
				w.report(r.observe(now))
			}
		}
		if len(found) < batch {
			return nil
		}
	}
}

// fire reports what is due.
func (w *watcher) fire(ctx context.Context) error {
	for {
		due := w.upcoming.take(time.Now().UnixNano(), batch)
		if len(due) == 0 {
			return nil
		}
		change := make(map[string]int64, len(due))
		for _, entry := range due {
			change[entry.id] = max(change[entry.id], entry.change)
		}
		wanted, err := json.Marshal(slices.Collect(maps.Keys(change)))
		if err != nil {
			return err
		}
		found, err := records(ctx, w.store.find, string(wanted))
		if err != nil {
			return err
		}
		now := time.Now().UnixNano()
		for i := range found {
			r := &found[i]
			if r.change != change[r.id] {
				continue // it was changed since, and will be seen, or was, as a change
			}
			w.upcoming.add(r, now)
			w.report(r.observe(now))
		}
	}
}

// schedule is a heap of what is yet to happen, the next first.
type schedule []upcoming

type upcoming struct {
	at     int64
	id     string
	change int64
}

// due is when something happens next; 0 is never.
func (s schedule) due() int64 {
	if len(s) == 0 {
		return 0
	}
	return s[0].at
}

// add notes when r changes its phase after now, if it does.
func (s *schedule) add(r *record, now int64) {
	if at := r.next(now); at != 0 {
		heap.Push(s, upcoming{at, r.id, r.change})
	}
}

// take removes at most limit that are due.
func (s *schedule) take(now int64, limit int) []upcoming {
	var due []upcoming
	for len(*s) > 0 && (*s)[0].at <= now && len(due) < limit {
		due = append(due, heap.Pop(s).(upcoming)) //nolint:forcetypeassert // nothing else is pushed
	}
	return due
}

func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(i, j int) bool { return s[i].at < s[j].at }
func (s schedule) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }

// Push is for container/heap.
func (s *schedule) Push(x any) { *s = append(*s, x.(upcoming)) } //nolint:forcetypeassert // see take

// Pop is for container/heap.
func (s *schedule) Pop() any {
	old := *s
	last := old[len(old)-1]
	old[len(old)-1] = upcoming{}
	*s = old[:len(old)-1]
	return last
}

// bell wakes the watchers of this process when it changed something itself.
type bell struct {
	mu        sync.Mutex
	listeners map[chan struct{}]struct{}
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for listener := range b.listeners {
		select {
		case listener <- struct{}{}:
		default: // it was woken already and has not looked yet
		}
	}
}

func (b *bell) listen() (<-chan struct{}, func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.listeners == nil {
		b.listeners = map[chan struct{}]struct{}{}
	}
	listener := make(chan struct{}, 1)
	b.listeners[listener] = struct{}{}
	return listener, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.listeners, listener)
	}
}

package bridge_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bellhop"
	"bellhop/bridge"
)

// scripted is a target whose calls do what a test wants.
type scripted struct {
	calls atomic.Int32
	call  func(n int32) bridge.Result
}

func (s *scripted) Check(bellhop.Callback) error { return nil }

func (s *scripted) Deliver(context.Context, json.RawMessage, bridge.Message) bridge.Result {
	return s.call(s.calls.Add(1))
}

// beating is one whose engine knows heartbeats.
type beating struct{ *scripted }

func (b beating) Heartbeat(context.Context, json.RawMessage) bridge.Result {
	return b.call(b.calls.Add(1))
}

var (
	fine   = bridge.Result{Verdict: bridge.Acknowledged}
	broken = bridge.Result{Verdict: bridge.Retry, Unknown: true, Err: errors.New("connection refused")}
)

func TestTargetOutOfOrderIsSpared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := broken
		target := &scripted{call: func(int32) bridge.Result { return answer }}
		var told []bool
		guarded := bridge.Guard(target, bridge.Limits{Concurrency: 10}, func(spared bool) { told = append(told, spared) })
		ring := func() bridge.Result { return guarded.Deliver(t.Context(), nil, bridge.Message{}) }
		for range 5 {
			if result := ring(); result.Verdict != bridge.Retry || !result.Unknown {
				t.Fatalf("an attempt that was made is answered %+v", result)
			}
		}
		for range 100 {
			if result := ring(); result.Verdict != bridge.Untried || result.Unknown || result.Err == nil {
				t.Fatalf("an attempt that was spared is answered %+v", result)
			}
		}
		if n := target.calls.Load(); n != 5 {
			t.Errorf("a target that is out of order was called %d times", n)
		}
		time.Sleep(3 * time.Second)
		for range 100 {
			ring()
		}
		if n := target.calls.Load(); n != 6 {
			t.Errorf("one call shall try a target that may work again; %d did", n-5)
		}
		answer = fine
		time.Sleep(3 * time.Second)
		for range 100 {
			if result := ring(); result.Verdict != bridge.Acknowledged {
				t.Fatalf("a target that works again is answered for with %+v", result)
			}
		}
		if len(told) != 2 || !told[0] || told[1] {
			t.Errorf("the operator was told %v, want that it began and that it ended", told)
		}
	})
}

// A caller that is gone or an operator's fault says nothing about the target.
func TestOnlyATargetOutOfOrderIsSpared(t *testing.T) {
	for _, verdict := range []bridge.Verdict{bridge.Closed, bridge.Blocked, bridge.Undeliverable, bridge.Accepted, bridge.Retry} {
		target := &scripted{call: func(int32) bridge.Result {
			return bridge.Result{Verdict: verdict, Caller: true, Err: errors.New("so")}
		}}
		guarded := bridge.Guard(target, bridge.Limits{Concurrency: 10}, nil)
		for range 20 {
			if result := guarded.Deliver(t.Context(), nil, bridge.Message{}); result.Verdict != verdict {
				t.Fatalf("%s became %+v", verdict, result)
			}
		}
	}
}

// slow is a target that answers nothing until the time for it is up.
type slow struct{ scripted }

func (s *slow) Deliver(ctx context.Context, _ json.RawMessage, _ bridge.Message) bridge.Result {
	s.calls.Add(1)
	<-ctx.Done()
	return bridge.Result{Verdict: bridge.Retry, Unknown: true, Err: ctx.Err()}
}

// A tenant whose callbacks have deadlines of a second must not shut the others out of a target that takes two.
func TestWhoIsInAHurrySparesNobodyATarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := &slow{}
		guarded := bridge.Guard(target, bridge.Limits{Concurrency: 10}, nil)
		ring := func(within time.Duration) (bridge.Verdict, time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			began := time.Now()
			return guarded.Deliver(ctx, nil, bridge.Message{}).Verdict, time.Since(began)
		}
		for range 20 {
			if verdict, _ := ring(time.Second); verdict != bridge.Retry {
				t.Fatalf("a call in a hurry is answered %s", verdict)
			}
		}
		for range 5 {
			if verdict, took := ring(time.Hour); verdict != bridge.Retry || took != bridge.AttemptTimeout {
				t.Fatalf("a call with time is answered %s after %s", verdict, took)
			}
		}
		if verdict, _ := ring(time.Hour); verdict != bridge.Untried {
			t.Errorf("a target that was given its time and answered nothing is not spared: %s", verdict)
		}
		// Nor does a hurried call that finds nothing out bring the target back.
		time.Sleep(3 * time.Second)
		ring(time.Second)
		if verdict, _ := ring(time.Hour); verdict != bridge.Retry {
			t.Fatalf("the next call shall try the target; it is answered %s", verdict)
		}
		if verdict, _ := ring(time.Hour); verdict != bridge.Untried {
			t.Errorf("a target that answers nothing was taken for one that works again: %s", verdict)
		}
	})
}

func TestBlackHoleTakesNoMoreThanItsPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		target := &scripted{call: func(int32) bridge.Result { <-hold; return fine }}
		guarded := bridge.Guard(target, bridge.Limits{Concurrency: 3}, nil)
		for range 3 {
			go guarded.Deliver(t.Context(), nil, bridge.Message{})
		}
		synctest.Wait()
		before := time.Now()
		for range 100 {
			if result := guarded.Deliver(t.Context(), nil, bridge.Message{}); result.Verdict != bridge.Untried {
				t.Fatalf("the fourth call at once is answered %+v", result)
			}
		}
		if waited := time.Since(before); waited != 0 {
			t.Errorf("calls that find no place were kept for %s", waited)
		}
		close(hold)
		synctest.Wait()
		if result := guarded.Deliver(t.Context(), nil, bridge.Message{}); result.Verdict != bridge.Acknowledged {
			t.Errorf("a place that was given back is answered for with %+v", result)
		}
	})
}

func TestCallsPerSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := &scripted{call: func(int32) bridge.Result { return fine }}
		guarded := bridge.Guard(beating{target}, bridge.Limits{Concurrency: 10, PerSecond: 100}, nil)
		began := time.Now()
		sent := 0
		for time.Since(began) < 10*time.Second {
			result := guarded.Heartbeat(t.Context(), nil) // heartbeats count as well
			if result.Verdict == bridge.Untried {
				time.Sleep(result.RetryAfter)
				continue
			}
			sent++
		}
		if sent < 900 || sent > 1020 {
			t.Errorf("%d calls in ten seconds, want 100 in each", sent)
		}
	})
}

func TestTenantsOfATarget(t *testing.T) {
	target := &scripted{}
	all, one := bridge.Guard(target, bridge.Limits{}, nil), bridge.Guard(target, bridge.Limits{Tenants: []string{"acme"}}, nil)
	if !bridge.Serves(all, "rival") || !bridge.Serves(target, "rival") || !bridge.Serves(one, "acme") || bridge.Serves(one, "rival") || bridge.Serves(one, "") {
		t.Error("a target is for those it names, or for all")
	}
}

func TestHeartbeats(t *testing.T) {
	target := &scripted{call: func(int32) bridge.Result { return fine }}
	for _, row := range []struct {
		name   string
		target bridge.Target
		want   bool
	}{
		{"Without", target, false},
		{"With", beating{target}, true},
		{"GuardedWithout", bridge.Guard(target, bridge.Limits{Concurrency: 10}, nil), false},
		{"GuardedWith", bridge.Guard(beating{target}, bridge.Limits{Concurrency: 10}, nil), true},
	} {
		if bridge.Heartbeats(row.target) != row.want {
			t.Errorf("%s: want %t", row.name, row.want)
		}
	}
	if result := bridge.Guard(target, bridge.Limits{Concurrency: 10}, nil).Heartbeat(t.Context(), nil); result.Verdict != bridge.Blocked {
		t.Errorf("a heartbeat that nobody can send is answered %+v", result)
	}
}

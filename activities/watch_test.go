package activities_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/temporal"

	"bellhop"
	"bellhop/activities"
)

// watched is a platform of which only Watch matters.
type watched struct {
	activities.Provider
	watch func(ctx context.Context, report func(bellhop.Observation)) error
}

func (w watched) Watch(ctx context.Context, report func(bellhop.Observation)) error {
	return w.watch(ctx, report)
}

// waiters remember who was told what.
type waiters struct {
	open    map[string]bool
	openErr error
	// refuse answers the n-th attempt to tell an operation.
	refuse func(id string, n int) error

	mu    sync.Mutex
	tries map[string]int
	told  []string
	// heard gets each attempt once it was answered.
	heard chan string
}

func (w *waiters) Open(context.Context, string) (map[string]bool, error) { return w.open, w.openErr }

func (w *waiters) Observed(_ context.Context, seen bellhop.Observation) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tries == nil {
		w.tries = map[string]int{}
	}
	w.tries[seen.OperationID]++
	var err error
	if w.refuse != nil {
		err = w.refuse(seen.OperationID, w.tries[seen.OperationID])
	}
	what := seen.OperationID + " " + string(seen.Phase)
	if err == nil {
		w.told = append(w.told, what)
	}
	if w.heard != nil {
		w.heard <- what
	}
	return err
}

// watch runs the activity until the platform's watch ends.
func watch(t *testing.T, w *waiters, platform func(ctx context.Context, report func(bellhop.Observation)) error) error {
	t.Helper()
	env := newSuite().NewTestActivityEnvironment()
	acts := &activities.Activities{Providers: map[string]activities.Provider{"sim": watched{watch: platform}}, Waiters: w}
	env.RegisterActivity(acts)
	_, err := env.ExecuteActivity(acts.Watch, "sim", time.Hour)
	return err
}

var errBroken = errors.New("the event stream broke")

func TestWatchTellsWhoWaits(t *testing.T) {
	long, now := time.Now().Add(-time.Hour), time.Now()
	rows := []struct {
		name, reason string
		reports      []bellhop.Observation
		want         []string
	}{
		{
			"Ends", "each end is told, of whatever kind",
			[]bellhop.Observation{
				{OperationID: "a", Phase: bellhop.PhaseReady, RequestedAt: now},
				{OperationID: "b", Phase: bellhop.PhaseGone, RequestedAt: now},
				{OperationID: "c", Phase: bellhop.PhaseFailed, RequestedAt: now},
				{OperationID: "d", Phase: bellhop.PhaseSuperseded, RequestedAt: now},
			},
			[]string{"a ready", "b gone", "c failed", "d superseded"},
		},
		{
			"Pending", "mere progress wakes nobody up", []bellhop.Observation{{OperationID: "a", Phase: bellhop.PhasePending, RequestedAt: now}}, nil,
		},
		{
			"Nameless", "what carries no operation's id has nobody who waits", []bellhop.Observation{{Phase: bellhop.PhaseReady}}, nil,
		},
		{
			"ClosedLongAgo", "the list after a take-over does not wake up the dead",
			[]bellhop.Observation{{OperationID: "old", Phase: bellhop.PhaseReady, RequestedAt: long}},
			nil,
		},
		{
			"OpenForLong", "an operation may wait for hours",
			[]bellhop.Observation{{OperationID: "open", Phase: bellhop.PhaseReady, RequestedAt: long}},
			[]string{"open ready"},
		},
		{
			"TooNewForTheList", "the list lags, so a new operation may wait although it is not in it",
			[]bellhop.Observation{{OperationID: "new", Phase: bellhop.PhaseReady, RequestedAt: now.Add(-10 * time.Second)}},
			[]string{"new ready"},
		},
		{
			"NoDate", "what does not tell how old it is may be new", []bellhop.Observation{{OperationID: "a", Phase: bellhop.PhaseReady}}, []string{"a ready"},
		},
		{
			"ToldBefore", "a resync repeats itself, and nobody is told twice",
			[]bellhop.Observation{
				{OperationID: "a", Phase: bellhop.PhaseReady, RequestedAt: now},
				{OperationID: "a", Phase: bellhop.PhasePending, RequestedAt: now},
				{OperationID: "a", Phase: bellhop.PhaseReady, RequestedAt: now},
			},
			[]string{"a ready"},
		},
		{
			"AnotherEnd", "ready and then failed are two things",
			[]bellhop.Observation{{OperationID: "a", Phase: bellhop.PhaseReady, RequestedAt: now}, {OperationID: "a", Phase: bellhop.PhaseFailed, RequestedAt: now}},
			[]string{"a failed", "a ready"},
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := &waiters{open: map[string]bool{"open": true}}
			err := watch(t, w, func(_ context.Context, report func(bellhop.Observation)) error {
				for _, seen := range row.reports {
					report(seen)
				}
				return errBroken
			})
			if err == nil || !strings.Contains(err.Error(), "watch sim: the event stream broke") {
				t.Errorf("the watch ended with %v: Temporal starts it anew only upon an error", err)
			}
			if failed, ok := errors.AsType[*temporal.ApplicationError](err); !ok || failed.NextRetryDelay() != time.Second {
				t.Errorf("what is out of order is asked again and again without a pause: %#v", err)
			}
			slices.Sort(w.told)
			if diff := cmp.Diff(row.want, w.told); diff != "" {
				t.Errorf("told (-want +got): %s\n%s", row.reason, diff)
			}
		})
	}
}

func TestWatchTellsAgainWhatWasNotHeard(t *testing.T) {
	t.Parallel()
	w := &waiters{heard: make(chan string, 10), refuse: func(id string, n int) error {
		switch {
		case id == "gone":
			return serviceerror.NewNotFound("workflow execution already completed")
		case n == 1:
			return serviceerror.NewUnavailable("down")
		}
		return nil
	}}
	err := watch(t, w, func(_ context.Context, report func(bellhop.Observation)) error {
		gone := bellhop.Observation{OperationID: "gone", Phase: bellhop.PhaseReady}
		late := bellhop.Observation{OperationID: "late", Phase: bellhop.PhaseReady}
		report(gone)
		<-w.heard
		report(late)
		<-w.heard
		for began := time.Now(); time.Since(began) < 30*time.Second; { // a resync comes minutes later; this one until it is heard
			report(gone)
			report(late)
			select {
			case <-w.heard:
				return errBroken
			default:
				runtime.Gosched()
			}
		}
		return errBroken
	})
	if err == nil {
		t.Error("the watch ended without an error")
	}
	if w.tries["gone"] != 1 {
		t.Errorf("an operation that had closed was told %d times", w.tries["gone"])
	}
	if !slices.Contains(w.told, "late ready") || w.tries["late"] != 2 {
		t.Errorf("an operation that could not be told was tried %d times, told are %v", w.tries["late"], w.told)
	}
}

func TestWatchThatCannotBegin(t *testing.T) {
	t.Run("NotConfigured", func(t *testing.T) {
		t.Parallel()
		env := newSuite().NewTestActivityEnvironment()
		acts := &activities.Activities{Providers: map[string]activities.Provider{"sim": watched{}}}
		env.RegisterActivity(acts)
		_, err := env.ExecuteActivity(acts.Watch, "ecs", time.Hour)
		if err == nil || !strings.Contains(err.Error(), `"ecs" is not configured at this worker; configured are sim`) {
			t.Errorf("the watch ended with %v", err)
		}
	})
	t.Run("NoList", func(t *testing.T) {
		t.Parallel()
		err := watch(t, &waiters{openErr: errors.New("visibility is down")}, func(context.Context, func(bellhop.Observation)) error {
			t.Error("it was watched without knowing who waits")
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), "list open operations: visibility is down") {
			t.Errorf("the watch ended with %v", err)
		}
	})
	t.Run("EndsWithoutReason", func(t *testing.T) {
		t.Parallel()
		err := watch(t, &waiters{}, func(context.Context, func(bellhop.Observation)) error { return nil })
		if err == nil {
			t.Error("a watch that ended too early is not begun anew")
		}
	})
}

func TestWatchEndsWithItsTime(t *testing.T) {
	t.Parallel()
	env := newSuite().NewTestActivityEnvironment()
	acts := &activities.Activities{Waiters: &waiters{}, Providers: map[string]activities.Provider{
		"sim": watched{watch: func(ctx context.Context, _ func(bellhop.Observation)) error {
			<-ctx.Done()
			return ctx.Err()
		}},
	}}
	env.RegisterActivity(acts)
	if _, err := env.ExecuteActivity(acts.Watch, "sim", 20*time.Millisecond); err != nil {
		t.Errorf("a watch whose time is up ended with %v: the workflow would not begin a new run", err)
	}
}

func TestWatchIsHandedOverByWorkerThatStops(t *testing.T) {
	t.Parallel()
	env := newSuite().NewTestActivityEnvironment()
	stop := make(chan struct{})
	env.SetWorkerStopChannel(stop)
	acts := &activities.Activities{Waiters: &waiters{}, Providers: map[string]activities.Provider{
		"sim": watched{watch: func(ctx context.Context, report func(bellhop.Observation)) error {
			report(bellhop.Observation{OperationID: "a", Phase: bellhop.PhaseReady})
			close(stop)
			<-ctx.Done() // at once, and not only when the worker's grace period is over
			return ctx.Err()
		}},
	}}
	env.RegisterActivity(acts)
	_, err := env.ExecuteActivity(acts.Watch, "sim", time.Hour)
	failed, ok := errors.AsType[*temporal.ApplicationError](err)
	if !ok {
		t.Fatal("the watch of a worker that stops ended as if its time were up: nobody would take over before the next run")
	}
	if failed.NextRetryDelay() != 0 {
		t.Errorf("it is taken over after %s only", failed.NextRetryDelay())
	}
}

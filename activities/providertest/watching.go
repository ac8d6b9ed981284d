package providertest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"bellhop"
	"bellhop/activities"
)

func watching(suite Suite) []article {
	articles := []article{
		{"WhatStandsIsReportedFirst", "a watcher that takes over from a dead one knows nothing: it must be told again what " +
			"stands, ready and failed alike", whatStandsFirst},
		{"ReadyIsReported", "an operation that waits is woken by this report and by nothing else until the backstop", readyIsReported},
		{"SupersededIsReported", "an operation whose resource was taken over waits in vain and must be told", supersededIsReported},
		{"GoneIsReported", "a deletion waits too", goneIsReported},
		{"BreakingIsReported", "what breaks after it was ready may have an operation that waits", breakingIsReported},
		{"EveryWatcherIsTold", "for a moment there may be two watchers, when one that was given up for dead still lives", everyWatcher},
		{"WatchEndsWithItsContext", "a worker that shuts down hands the watch over", watchEnds},
	}
	for _, failing := range suite.Failing {
		articles = append(articles, article{
			"FailureIsReported/" + failing.Name, "an operation that waits must hear of its failure, with all that is known of it",
			func(c *corner) { failureIsReported(c, failing) },
		})
	}
	return articles
}

func whatStandsFirst(c *corner) {
	op := c.provision(web, c.suite.Ready)
	ready := c.ready(op)
	var left []bellhop.Operation
	for _, failing := range c.suite.Failing {
		if failing.Leaves {
			op := c.provision("failing-"+failing.Name, failing.Template)
			c.failed(c.end(op), failing.Codes...)
			left = append(left, op)
		}
	}
	for range 2 { // the second watcher begins as the first one did
		watcher := c.watch(c.suite.New(c.T))
		seen := watcher.told(op, bellhop.PhaseReady)
		c.same("ids that the watcher reports", replicas(seen.ResourceIDs), replicas(ready.ResourceIDs))
		for _, op := range left {
			c.lists(watcher.told(op, bellhop.PhaseFailed), replicas(c.observe(op).ResourceIDs))
		}
		watcher.stop()
	}
}

func readyIsReported(c *corner) {
	watcher := c.watch(c.worker)
	first := c.provision(web, c.suite.Ready)
	watcher.toldAfter(c.ask(first), first, bellhop.PhaseReady)
	second := c.update(web, c.suite.Ready)
	seen := watcher.toldAfter(c.ask(second), second, bellhop.PhaseReady)
	c.stand(second.Spec.Replicas)
	// The old replicas may still have stood when the new ones became ready.
	c.lists(seen, replicas(c.observe(second).ResourceIDs))
}

func failureIsReported(c *corner, failing Failing) {
	watcher := c.watch(c.worker)
	op := c.provision(web, failing.Template)
	seen := watcher.toldAfter(c.ask(op), op, bellhop.PhaseFailed)
	c.failed(seen, failing.Codes...)
	c.lists(seen, replicas(c.observe(op).ResourceIDs))
}

func supersededIsReported(c *corner) {
	waits := c.suite.Ready
	if c.suite.Slow != nil {
		waits = *c.suite.Slow
	}
	watcher := c.watch(c.worker)
	older := c.provision(web, waits)
	c.ask(older)
	newer := c.provision(web, c.suite.Ready)
	// It is another worker that takes over: the watcher must not depend on having asked itself.
	answer := c.askAs(c.suite.New(c.T), newer)
	watcher.told(older, bellhop.PhaseSuperseded)
	watcher.toldAfter(answer, newer, bellhop.PhaseReady)
}

func goneIsReported(c *corner) {
	if !c.suite.WatchTellsGone {
		c.Skip("this platform does not tell which deletion removed what is gone")
	}
	op := c.provision(web, c.suite.Ready)
	c.ready(op)
	watcher := c.watch(c.worker)
	watcher.told(op, bellhop.PhaseReady)
	deletion := c.delete(web)
	watcher.toldAfter(c.ask(deletion), deletion, bellhop.PhaseGone)
}

func breakingIsReported(c *corner) {
	if c.suite.Break == nil {
		c.Skip("what is ready cannot be reached from outside")
	}
	op := c.provision(web, c.suite.Ready)
	c.ready(op)
	watcher := c.watch(c.worker)
	watcher.told(op, bellhop.PhaseReady)
	c.suite.Break(c.T, c.tenant, web)
	watcher.told(op, bellhop.PhaseFailed)
}

func everyWatcher(c *corner) {
	one, two := c.watch(c.worker), c.watch(c.suite.New(c.T))
	op := c.provision(web, c.suite.Ready)
	answer := c.ask(op)
	one.toldAfter(answer, op, bellhop.PhaseReady)
	two.toldAfter(answer, op, bellhop.PhaseReady)
}

func watchEnds(c *corner) {
	op := c.provision(web, c.suite.Ready)
	c.ready(op)
	watcher := c.watch(c.worker)
	watcher.told(op, bellhop.PhaseReady)
	began := time.Now()
	watcher.stop()
	if took := time.Since(began); took > c.suite.Prompt {
		c.Errorf("watch returned %s after its context ended, want at most %s", took, c.suite.Prompt)
	}
	reported := watcher.reports.Load()
	c.ready(c.update(web, c.suite.Ready))
	if n := watcher.reports.Load(); n != reported {
		c.Errorf("watch reported %d times more after it had returned", n-reported)
	}
}

// watcher runs Watch as bellhop does, again when it breaks off, and remembers what it was told of its corner.
type watcher struct {
	c       *corner
	cancel  context.CancelFunc
	done    chan struct{}
	reports atomic.Int64
	talking atomic.Int32

	mu   sync.Mutex
	seen []bellhop.Observation
}

func (c *corner) watch(worker activities.Provider) *watcher {
	c.Helper()
	ctx, cancel := context.WithCancel(c.ctx)
	w := &watcher{c: c, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for ctx.Err() == nil {
			err := worker.Watch(ctx, w.report)
			switch {
			case ctx.Err() == nil && err == nil:
				c.Error("watch returned nil although its context had not ended: a watch that cannot go on is an error")
				return
			case ctx.Err() == nil:
				c.Logf("watch broke off and is called again: %s", err)
			case err != nil && !errors.Is(err, context.Canceled):
				c.Errorf("watch returned %q at the end of its context, want nil or the context's error", err)
			}
		}
	}()
	c.Cleanup(w.stop)
	return w
}

// stop ends the watch and waits until it has returned.
func (w *watcher) stop() {
	w.cancel()
	<-w.done
}

func (w *watcher) report(seen bellhop.Observation) {
	if w.talking.Add(1) != 1 {
		w.c.Error("watch reports from two goroutines at once")
	}
	defer w.talking.Add(-1)
	w.reports.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, seen)
}

// toldAfter is told for an operation that was asked for while the watcher was there. When the answer carried the end
// already, nobody waits for a report, and none need come.
func (w *watcher) toldAfter(answer bellhop.Observation, op bellhop.Operation, phase bellhop.Phase) bellhop.Observation {
	w.c.Helper()
	if answer.Phase == phase {
		return answer
	}
	return w.told(op, phase)
}

// told waits until op was reported in phase.
func (w *watcher) told(op bellhop.Operation, phase bellhop.Phase) bellhop.Observation {
	w.c.Helper()
	var found bellhop.Observation
	w.c.until("the watcher is told that "+op.ID+" is "+string(phase), func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		i := slices.IndexFunc(w.seen, func(seen bellhop.Observation) bool {
			return seen.OperationID == op.ID && seen.Phase == phase
		})
		if i >= 0 {
			found = w.seen[i]
		}
		return i >= 0
	})
	w.c.sound(op, found)
	return found
}

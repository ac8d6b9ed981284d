package providertest

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"bellhop"
)

func asking(Suite) []article {
	return []article{
		{"ReadyMeansObserved", "ready is said of what runs and is healthy, with the ids of exactly as many replicas as were " +
			"asked for: the caller goes on with them", readyMeansObserved},
		{"AskingAgainIsTheSameAsk", "a worker may die after it asked and before it said so; its successor asks again and must " +
			"find the same resources, not make a second set", askingAgain},
		{"TwoWorkersAskAtOnce", "Temporal may run an activity twice at once, when a worker that was given up for dead still " +
			"lives; they share one set", twoWorkersAtOnce},
		{"AnotherWorkerGoesOn", "a worker holds no state: whatever one asked for, another observes", anotherWorker},
		{"ObservingChangesNothing", "polls, backstops and watchers observe as often as they like, also what nobody asked " +
			"for yet", observingChangesNothing},
		{"PendingUntilThen", "what is not there yet is pending, never a success: the workflow would call back too early", pendingUntilThen},
		{"TenantsAreApart", "the same name at another tenant is another resource", tenantsAreApart},
		{"ResourcesAreApart", "a tenant's resources live and end on their own", resourcesAreApart},
		{"CallsEndWithTheirContext", "a worker that shuts down, and an operation that is cancelled, must not wait for the " +
			"provider", callsEnd},
		{"ALongAskEndsWithItsContext", "an ask that takes long ends when it is told to, and can be begun again", longAskEnds},
		{"CheckNamesEveryFault", "an operation that cannot succeed is refused before anybody is asked, with every fault " +
			"under its path", checkNamesFaults},
	}
}

func readyMeansObserved(c *corner) {
	op := c.provision(web, c.suite.Ready)
	seen := c.ready(op)
	if got := len(replicas(seen.ResourceIDs)); got != op.Spec.Replicas {
		c.Errorf("lists %d replicas: %q, want %d", got, replicas(seen.ResourceIDs), op.Spec.Replicas)
	}
	if seen.Progress.Ready != op.Spec.Replicas || seen.Progress.Desired != op.Spec.Replicas {
		c.Errorf("progress is %d of %d, want %d of them", seen.Progress.Ready, seen.Progress.Desired, op.Spec.Replicas)
	}
	for _, endpoint := range seen.Endpoints {
		if endpoint.Host == "" || endpoint.Port == 0 || !slices.ContainsFunc(op.Spec.Ports, func(port bellhop.Port) bool { return port.Name == endpoint.Name }) {
			c.Errorf("endpoint %+v leads nowhere or is none of the spec's ports", endpoint)
		}
	}
}

func askingAgain(c *corner) {
	op := c.provision(web, c.suite.Ready)
	first := c.ask(op)
	c.ask(op) // while it is pending, if it ever is
	seen := c.ready(op)
	c.lists(seen, replicas(first.ResourceIDs))
	for range 3 {
		again := c.ask(op)
		if again.Phase != bellhop.PhaseReady {
			c.Errorf("asked again it is %s, not ready%s", again.Phase, because(again.Failure))
		}
		c.same("ids when asked again", replicas(again.ResourceIDs), replicas(seen.ResourceIDs))
		if n := c.suite.Count(c.T, c.tenant); n != op.Spec.Replicas {
			c.Errorf("%d replicas stand when asked again, want %d", n, op.Spec.Replicas)
		}
	}
}

func twoWorkersAtOnce(c *corner) {
	op := c.provision(web, c.suite.Ready)
	other := c.suite.New(c.T)
	var workers sync.WaitGroup
	for range 4 {
		// Errors are no matter here: the one that lost a race may be told to come again. What counts is what stands.
		workers.Go(func() { _, _ = c.worker.Provision(c.ctx, op) }) //nolint:errcheck // see above
		workers.Go(func() { _, _ = other.Provision(c.ctx, op) })    //nolint:errcheck // see above
	}
	workers.Wait()
	seen := c.ready(op)
	again := c.askAs(other, op)
	c.same("ids that the other worker sees", replicas(again.ResourceIDs), replicas(seen.ResourceIDs))
	c.stand(op.Spec.Replicas)
}

func anotherWorker(c *corner) {
	op := c.provision(web, c.suite.Ready)
	c.ask(op)
	other := c.suite.New(c.T)
	c.until("another worker sees it ready", func() bool {
		return c.call(op, "observe", other.Observe).Phase == bellhop.PhaseReady
	})
	c.stand(op.Spec.Replicas)
}

func observingChangesNothing(c *corner) {
	op := c.provision(web, c.suite.Ready)
	for range 3 {
		if seen := c.observe(op); seen.Phase == bellhop.PhaseReady || seen.Phase == bellhop.PhaseFailed {
			c.Errorf("nobody asked for it yet, and it is %s%s", seen.Phase, because(seen.Failure))
		}
	}
	c.stand(0)
	seen := c.ready(op)
	for range 3 {
		again := c.observe(op)
		if again.Phase != bellhop.PhaseReady {
			c.Errorf("observed again it is %s, not ready%s", again.Phase, because(again.Failure))
		}
		c.same("ids when observed again", replicas(again.ResourceIDs), replicas(seen.ResourceIDs))
	}
	c.stand(op.Spec.Replicas)
}

func pendingUntilThen(c *corner) {
	slow := c.slow()
	op := c.provision(web, slow)
	seen := c.ask(op)
	for range 3 {
		if seen.Phase != bellhop.PhasePending {
			c.Errorf("it is %s, not pending%s", seen.Phase, because(seen.Failure))
		}
		seen = c.observe(op)
	}
	c.until("what is pending lists its ids", func() bool { return len(replicas(c.observe(op).ResourceIDs)) > 0 })
	if seen.Progress.Desired != op.Spec.Replicas || seen.Progress.Ready > seen.Progress.Desired {
		c.Errorf("progress is %d of %d, want at most %d of them", seen.Progress.Ready, seen.Progress.Desired, op.Spec.Replicas)
	}
}

func tenantsAreApart(c *corner) {
	here := c.ready(c.provision(web, c.suite.Ready))
	other := newCorner(c.T, c.suite, c.tenant+"-neighbour")
	there := other.ready(other.provision(web, c.suite.Ready))
	for _, id := range replicas(there.ResourceIDs) {
		if slices.Contains(replicas(here.ResourceIDs), id) {
			c.Errorf("both tenants have %q", id)
		}
	}
	other.gone(other.delete(web))
	c.stand(len(replicas(here.ResourceIDs)))
}

func resourcesAreApart(c *corner) {
	kept := c.provision(web, c.suite.Ready)
	before := c.ready(kept)
	if seen := c.end(c.provision("db", c.suite.Ready)); seen.Phase != bellhop.PhaseReady {
		c.Fatalf("the second resource is %s, not ready%s", seen.Phase, because(seen.Failure))
	}
	c.stand(2 * kept.Spec.Replicas)
	if seen := c.end(c.delete("db")); seen.Phase != bellhop.PhaseGone {
		c.Errorf("the second resource is %s, not gone%s", seen.Phase, because(seen.Failure))
	}
	c.stand(kept.Spec.Replicas)
	after := c.observe(kept)
	if after.Phase != bellhop.PhaseReady {
		c.Errorf("the first resource is %s, not ready%s", after.Phase, because(after.Failure))
	}
	c.same("ids of the first resource", replicas(after.ResourceIDs), replicas(before.ResourceIDs))
}

func callsEnd(c *corner) {
	over, cancel := context.WithCancel(c.ctx)
	cancel()
	op := c.provision(web, c.suite.Ready)
	for name, call := range map[string]providerCall{
		"provision": c.worker.Provision, "update": c.worker.Update, "delete": c.worker.Delete, "observe": c.worker.Observe,
	} {
		if _, err := c.promptly(over, op, name, call); err == nil {
			c.Errorf("%s answered although its context was over; nobody listens any more, and an answer that nobody "+
				"got must not have been needed", name)
		}
	}
	c.ready(op)
}

func longAskEnds(c *corner) {
	if c.suite.SlowAsk == nil {
		c.Skip("no ask of this provider takes long")
	}
	op := c.provision(web, *c.suite.SlowAsk)
	ctx, cancel := context.WithTimeout(c.ctx, 50*time.Millisecond)
	defer cancel()
	for range 2 {
		if _, err := c.promptly(ctx, op, "provision", c.worker.Provision); err == nil {
			c.Error("the ask has an answer although its context was over before")
		}
	}
	c.ready(c.provision(web, c.suite.Ready))
}

func checkNamesFaults(c *corner) {
	good := c.provision(web, c.suite.Ready)
	if err := c.worker.Check(good); err != nil {
		c.Errorf("check refuses the suite's own template: %s", err)
	}
	bad := good
	bad.ProviderConfig = json.RawMessage(`{"no_such_field": 1, "nor_this": 2}`)
	err := c.worker.Check(bad)
	var faults bellhop.Faults
	if !errors.As(err, &faults) {
		c.Fatalf("check answers %v to two unknown fields, want bellhop.Faults", err)
	}
	for _, path := range []string{"provider_config.no_such_field", "provider_config.nor_this"} {
		if !slices.ContainsFunc(faults, func(fault bellhop.Fault) bool { return fault.Path == path }) {
			c.Errorf("check says %q and nothing of %s", faults, path)
		}
	}
}

// slow is the suite's template that stays pending.
func (c *corner) slow() Template {
	c.Helper()
	if c.suite.Slow == nil {
		c.Skip("nothing can be kept pending at this provider")
	}
	return *c.suite.Slow
}

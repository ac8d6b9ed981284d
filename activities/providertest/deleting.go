package providertest

import (
	"bellhop"
)

func deleting(suite Suite) []article {
	articles := []article{
		{"GoneMeansObserved", "gone is said when nothing is left, and stays true however often it is asked", goneMeansObserved},
		{"DeletingTheAbsent", "what is not there need not be removed: a delete that is repeated under a new id succeeds", deletingTheAbsent},
		{"DeletingWhatIsNotReadyYet", "a deletion does not wait for what it deletes", deletingThePending},
		{"GivingUp", "an operation that is given up removes what it brought into being, under its own id", givingUp},
		{
			"GivingUpWhatWasTakenOver", "an operation that is given up removes the resource, also what an older one had made of it",
			givingUpWhatWasTakenOver,
		},
		{"ProvisionAfterDelete", "a name can be used again", provisionAfterDelete},
		{"Foreign", "what is not ours is never touched, neither taken over nor removed, and the caller is told that the name " +
			"is taken", foreign},
	}
	for _, failing := range suite.Failing {
		articles = append(articles, article{
			"DeletingWhatFailed/" + failing.Name, "what a failed operation left can be removed",
			func(c *corner) {
				c.failed(c.end(c.provision(web, failing.Template)), failing.Codes...)
				c.gone(c.delete(web))
			},
		})
	}
	return articles
}

func goneMeansObserved(c *corner) {
	c.ready(c.provision(web, c.suite.Ready))
	op := c.delete(web)
	seen := c.ask(op)
	c.until("the deletion comes to an end", func() bool {
		if seen.Phase == bellhop.PhaseGone {
			return true
		}
		seen = c.observe(op)
		return seen.Phase != bellhop.PhasePending
	})
	if n := c.suite.Count(c.T, c.tenant); seen.Phase != bellhop.PhaseGone || n != 0 {
		c.Fatalf("the deletion is %s and %d replicas stand, want gone and none%s", seen.Phase, n, because(seen.Failure))
	}
	for range 2 {
		for name, seen := range map[string]bellhop.Observation{"observed": c.observe(op), "asked": c.ask(op)} {
			if seen.Phase != bellhop.PhaseGone {
				c.Errorf("%s again, the deletion is %s, not gone%s", name, seen.Phase, because(seen.Failure))
			}
		}
	}
	if ids := replicas(seen.ResourceIDs); len(ids) > 0 {
		c.Errorf("gone lists %q as if they stood", ids)
	}
}

func givingUp(c *corner) {
	op := c.provision(web, c.suite.Ready)
	c.ready(op)
	op.Verb = bellhop.Delete
	c.gone(op)
	if n := c.suite.Count(c.T, c.tenant); n != 0 {
		c.Errorf("%d replicas stand after it, want none", n)
	}
}

func givingUpWhatWasTakenOver(c *corner) {
	c.ready(c.provision(web, c.suite.Ready))
	op := c.provision(web, c.slow())
	c.ask(op)
	op.Verb = bellhop.Delete
	c.gone(op)
	if n := c.suite.Count(c.T, c.tenant); n != 0 {
		c.Errorf("%d replicas stand after it, want none", n)
	}
}

func deletingTheAbsent(c *corner) {
	first := c.delete(web)
	c.gone(first)
	c.gone(c.delete(web))
	c.gone(c.delete("never-there"))
}

func deletingThePending(c *corner) {
	op := c.provision(web, c.slow())
	c.ask(op)
	c.gone(c.delete(web))
	if seen := c.observe(op); seen.Phase != bellhop.PhaseSuperseded && seen.Phase != bellhop.PhaseGone {
		c.Errorf("what was deleted before it was ready is %s, not superseded or gone%s", seen.Phase, because(seen.Failure))
	}
}

func provisionAfterDelete(c *corner) {
	before := c.ready(c.provision(web, c.suite.Ready))
	c.gone(c.delete(web))
	after := c.ready(c.provision(web, c.suite.Ready))
	for _, id := range replicas(after.ResourceIDs) {
		for _, old := range replicas(before.ResourceIDs) {
			if id == old {
				c.Errorf("%q was deleted and is back", id)
			}
		}
	}
}

func foreign(c *corner) {
	if c.suite.Foreign == nil {
		c.Skip("names of this provider cannot collide with what is not ours")
	}
	intact := c.suite.Foreign(c.T, c.tenant, web)
	untouched := func(after bellhop.Verb) {
		c.Helper()
		if err := intact(); err != nil {
			c.Errorf("%s touched what is not ours: %s", after, err)
		}
		c.stand(0)
	}
	op := c.provision(web, c.suite.Ready)
	c.failed(c.end(op), bellhop.CodeResourceConflict)
	untouched(bellhop.Provision)
	if seen := c.observe(op); seen.Phase == bellhop.PhaseReady {
		c.Error("observed, somebody else's resource counts as ours")
	}
	c.failed(c.end(c.update(web, c.suite.Ready)), bellhop.CodeResourceConflict, bellhop.CodeResourceNotFound)
	untouched(bellhop.Update)
	if seen := c.end(c.delete(web)); seen.Phase != bellhop.PhaseGone { // ours is absent
		c.failed(seen, bellhop.CodeResourceConflict)
	}
	untouched(bellhop.Delete)
}

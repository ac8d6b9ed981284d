package providertest

import (
	"bellhop"
)

func replacing(suite Suite) []article {
	articles := []article{
		{"UpdateReplaces", "an update ends with what it asked for and nothing of what was there before", func(c *corner) {
			replaces(c, c.update)
		}},
		{"ProvisionReplaces", "provisioning what exists makes it match the spec: what carries an older generation is taken " +
			"over", func(c *corner) {
			replaces(c, c.provision)
		}},
		{"TheOldServesUntilTheNewIsReady", "a tenant must not be without service because it asked for an update", oldServes},
		{"ATakenOverUpdateLeavesNothing", "an update that is replaced before it was ready leaves nothing behind, and the old " +
			"goes on serving until the third is ready", takenOver},
		{"UpdateOfTheAbsent", "there is nothing to update, and a typo in a name must not make a second resource", updateOfTheAbsent},
		{"UpdateAfterDelete", "what was deleted is absent", updateAfterDelete},
	}
	for _, failing := range suite.Failing {
		articles = append(articles, article{
			"AFailingUpdateLeavesTheOld/" + failing.Name,
			"an update that fails leaves what served before serving, lists both, and the next operation cleans up",
			func(c *corner) { failingUpdate(c, failing) },
		})
	}
	return articles
}

func replaces(c *corner, verb func(string, Template) bellhop.Operation) {
	old := c.provision(web, c.suite.Ready)
	before := c.ready(old)
	op := verb(web, c.suite.Ready)
	after := c.ready(op)
	for _, id := range replicas(before.ResourceIDs) {
		for _, now := range replicas(after.ResourceIDs) {
			if id == now {
				c.Errorf("%q is still there after the update", id)
			}
		}
	}
	c.superseded(c.observe(old))
}

func oldServes(c *corner) {
	old := c.provision(web, c.suite.Ready)
	before := c.ready(old)
	op := c.update(web, c.suite.Ready)
	seen := c.ask(op)
	c.until("the update comes to an end", func() bool {
		if seen.Phase == bellhop.PhasePending {
			if n := c.suite.Count(c.T, c.tenant); n < old.Spec.Replicas {
				c.Errorf("%d replicas stand while the update is pending, want at least the old %d", n, old.Spec.Replicas)
			}
			seen = c.observe(op)
		}
		return seen.Phase != bellhop.PhasePending
	})
	if seen.Phase != bellhop.PhaseReady {
		c.Fatalf("the update is %s, not ready%s", seen.Phase, because(seen.Failure))
	}
	if c.suite.Slow == nil {
		return
	}
	before = c.observe(op)
	pending := c.update(web, *c.suite.Slow)
	c.ask(pending)
	c.until("a pending update lists the new beside the old", func() bool {
		return len(replicas(c.observe(pending).ResourceIDs)) > len(replicas(before.ResourceIDs))
	})
	c.lists(c.observe(pending), replicas(before.ResourceIDs))
}

func takenOver(c *corner) {
	slow := c.slow()
	served := c.ready(c.provision(web, c.suite.Ready))
	second := c.update(web, slow)
	c.ask(second)
	third := c.update(web, slow)
	c.ask(third)
	c.superseded(c.observe(second))
	c.lists(c.observe(third), replicas(served.ResourceIDs))
	c.ready(c.update(web, c.suite.Ready))
}

func updateOfTheAbsent(c *corner) {
	op := c.update(web, c.suite.Ready)
	for range 2 {
		c.failed(c.end(op), bellhop.CodeResourceNotFound)
	}
	c.stand(0)
}

func updateAfterDelete(c *corner) {
	c.ready(c.provision(web, c.suite.Ready))
	c.gone(c.delete(web))
	c.failed(c.end(c.update(web, c.suite.Ready)), bellhop.CodeResourceNotFound)
	c.stand(0)
}

func failingUpdate(c *corner, failing Failing) {
	old := c.provision(web, c.suite.Ready)
	served := c.ready(old)
	op := c.update(web, failing.Template)
	seen := c.end(op)
	c.failed(seen, failing.Codes...)
	c.lists(seen, replicas(served.ResourceIDs))
	if n := len(replicas(seen.ResourceIDs)) - len(replicas(served.ResourceIDs)); failing.Leaves && n <= 0 {
		c.Errorf("lists %q: the replica that failed is missing", replicas(seen.ResourceIDs))
	}
	if n := c.suite.Count(c.T, c.tenant); n < old.Spec.Replicas {
		c.Errorf("%d replicas stand after the update failed, want at least the old %d", n, old.Spec.Replicas)
	}
	c.ready(c.update(web, c.suite.Ready))
}

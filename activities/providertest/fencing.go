package providertest

import (
	"bellhop"
)

// late is an older operation whose worker was slow: it asks after a newer one did.
type late struct {
	name   string
	older  bellhop.Verb
	newer  bellhop.Verb
	reason string
}

func fencing(Suite) []article {
	var articles []article
	for _, row := range []late{
		{"ProvisionAfterProvision", bellhop.Provision, bellhop.Provision, "the newest start wins, whoever comes last"},
		{"UpdateAfterUpdate", bellhop.Update, bellhop.Update, "an old version must not replace a new one"},
		{"UpdateAfterProvision", bellhop.Update, bellhop.Provision, "the verb does not matter, the generation does"},
		{"DeleteAfterProvision", bellhop.Delete, bellhop.Provision, "a deletion that was held up must not remove what was " +
			"provisioned since"},
		{"DeleteAfterUpdate", bellhop.Delete, bellhop.Update, "nor what was updated since"},
		{"ProvisionAfterDelete", bellhop.Provision, bellhop.Delete, "nor may a provision that was held up bring back what " +
			"was deleted since"},
	} {
		articles = append(articles, article{row.name, row.reason, func(c *corner) { fenced(c, row) }})
	}
	return append(articles,
		article{"SameInstant", "of two operations that started in one instant the id decides, the same at every worker", sameInstant},
		article{"TakingOverThePending", "an operation that waits is told that a newer one took over", takingOverThePending},
		article{"ObservingTheOlder", "an operation that waits, and whose resource belongs to a newer one by now, is told so " +
			"and not that it succeeded", observingTheOlder},
	)
}

func fenced(c *corner, row late) {
	if row.newer == bellhop.Delete && !c.suite.RemembersDeletions {
		c.Skip("this platform keeps no trace of what was deleted")
	}
	c.ready(c.provision(web, c.suite.Ready)) // something to update and to delete
	older := c.operation(row.older, web, c.templateFor(row.older))
	newer := c.operation(row.newer, web, c.templateFor(row.newer))
	var before bellhop.Observation
	if row.newer == bellhop.Delete {
		before = c.gone(newer)
	} else {
		before = c.ready(newer)
	}
	for range 2 {
		c.superseded(c.ask(older))
		c.superseded(c.observe(older))
		after := c.observe(newer)
		if after.Phase != before.Phase {
			c.Errorf("the newer operation was %s and is %s%s", before.Phase, after.Phase, because(after.Failure))
		}
		c.same("ids of the newer operation", replicas(after.ResourceIDs), replicas(before.ResourceIDs))
		if n, want := c.suite.Count(c.T, c.tenant), newer.Spec.Replicas; n != want {
			c.Errorf("%d replicas stand after the older operation asked, want %d", n, want)
		}
	}
}

func sameInstant(c *corner) {
	one, two := c.provision(web, c.suite.Ready), c.provision(web, c.suite.Ready)
	two.RequestedAt = one.RequestedAt
	if one.Generation().After(two.Generation()) {
		one, two = two, one
	}
	c.ready(two)
	c.superseded(c.ask(one))
	c.superseded(c.observe(one))
	c.ready(two)
}

func takingOverThePending(c *corner) {
	older := c.provision(web, c.slow())
	c.ask(older)
	c.ready(c.provision(web, c.suite.Ready)) // and nothing of the older one stands
	c.superseded(c.observe(older))
	c.superseded(c.ask(older))
}

func observingTheOlder(c *corner) {
	older := c.provision(web, c.suite.Ready)
	c.ready(older)
	c.ready(c.update(web, c.suite.Ready))
	c.superseded(c.observe(older))
}

func (c *corner) templateFor(verb bellhop.Verb) Template {
	if verb == bellhop.Delete {
		return Template{ProviderConfig: c.suite.Deletion}
	}
	return c.suite.Ready
}

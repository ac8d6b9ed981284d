package providertest

import (
	"bellhop"
)

func failing(suite Suite) []article {
	var articles []article
	for _, failing := range suite.Failing {
		articles = append(articles, article{
			"Provision/" + failing.Name,
			"a failure says what went wrong in bellhop's words, keeps what proves it, and lists what stands nevertheless",
			func(c *corner) { failingProvision(c, failing) },
		})
	}
	return append(articles,
		article{"BrokenFromOutside", "what was ready and broke is failed: an operation that still waits for something else " +
			"must not take it for a success", brokenFromOutside},
	)
}

func failingProvision(c *corner, failing Failing) {
	op := c.provision(web, failing.Template)
	seen := c.end(op)
	c.failed(seen, failing.Codes...)
	if failing.Evidence != "" && seen.Failure.Evidence[failing.Evidence] == "" {
		c.Errorf("the evidence %v has no %q", seen.Failure.Evidence, failing.Evidence)
	}
	if failing.Leaves {
		if len(replicas(seen.ResourceIDs)) == 0 {
			c.Error("no id is listed, and a replica stands")
		}
		if c.suite.Count(c.T, c.tenant) == 0 {
			c.Error("nothing stands, and the suite says that this failure leaves replicas")
		}
	}
	again := c.end(op)
	c.failed(again, failing.Codes...)
	c.same("ids when asked again", replicas(again.ResourceIDs), replicas(seen.ResourceIDs))
	c.ready(c.provision(web, c.suite.Ready)) // a newer operation repairs it, and nothing of the old is left
}

func brokenFromOutside(c *corner) {
	if c.suite.Break == nil {
		c.Skip("what is ready cannot be reached from outside")
	}
	op := c.provision(web, c.suite.Ready)
	before := c.ready(op)
	c.suite.Break(c.T, c.tenant, web)
	var seen bellhop.Observation
	c.until("what broke is observed failed", func() bool {
		seen = c.observe(op)
		return seen.Phase == bellhop.PhaseFailed
	})
	c.lists(seen, replicas(before.ResourceIDs))
	c.ready(c.update(web, c.suite.Ready))
}

package providertest

import (
	"fmt"
	"slices"

	"bellhop"
)

// inventory is what finds orphans, long after everybody who knew of them is gone.
func inventory(suite Suite) []article {
	articles := []article{
		{"WhatIsReadyIsListed", "what serves is listed whole, under the operation that brought it into being, for whoever " +
			"looks it up there", readyIsListed},
		{"WhatWasReplacedIsNot", "an operation of which nothing is left is none that anything is listed under", replacedIsNot},
		{"WhatIsPendingIsListed", "what was begun stands, also when nobody is left to finish it", pendingIsListed},
		{"WhatWasDeletedIsNot", "the list says what the platform has, not what anybody remembers", deletedIsNot},
		{"TenantsAreListedApart", "every tenant is listed, and every resource of each", tenantsAreListed},
		{"TheForeignIsNot", "what is not ours is nobody's orphan, and must not be removed as one", foreignIsNot},
	}
	for _, failing := range suite.Failing {
		articles = append(articles, article{
			"WhatFailedIsListed/" + failing.Name, "what a failed operation left is what the report of orphans is for",
			func(c *corner) { failedIsListed(c, failing) },
		}, article{
			"AFailedUpdateHidesNothing/" + failing.Name, "what serves on is listed beside what failed",
			func(c *corner) { failedUpdateHidesNothing(c, failing) },
		})
	}
	return articles
}

// holdings are what the inventory lists for the corner's tenant; every worker lists the same. It checks what holds of each.
func (c *corner) holdings() []bellhop.Holding {
	c.Helper()
	listed, err := c.worker.Inventory(c.ctx)
	if err != nil {
		c.Fatalf("inventory: %s", err)
	}
	seen := map[string]bool{}
	return slices.DeleteFunc(listed, func(held bellhop.Holding) bool {
		if held.TenantID != c.tenant {
			return true
		}
		key := held.Resource + "/" + held.OperationID
		if seen[key] {
			c.Errorf("%s is listed twice; all that one operation holds of a resource is one entry", key)
		}
		seen[key] = true
		if held.Resource == "" || held.OperationID == "" || held.RequestedAt.IsZero() || held.ResourceIDs.IsZero() {
			c.Errorf("the entry %+v does not say whose it is, or what it is", held)
		}
		return false
	})
}

// holds waits until exactly the given operations hold something of their resources: what was replaced, or is being removed,
// may be listed a moment longer.
func (c *corner) holds(ops ...bellhop.Operation) []bellhop.Holding {
	c.Helper()
	var listed []bellhop.Holding
	want := make([]string, len(ops))
	for i, op := range ops {
		want[i] = op.Resource + "/" + op.ID
	}
	slices.Sort(want)
	c.until(fmt.Sprintf("the inventory lists what these hold and nothing else: %q", want), func() bool {
		c.Helper()
		listed = c.holdings()
		got := make([]string, len(listed))
		for i, held := range listed {
			got[i] = held.Resource + "/" + held.OperationID
		}
		slices.Sort(got)
		return slices.Equal(got, want)
	})
	for _, held := range listed {
		for _, op := range ops {
			if held.OperationID == op.ID && !held.RequestedAt.Equal(op.RequestedAt) {
				c.Errorf("%s is listed as requested at %s, not at %s", op.ID, held.RequestedAt, op.RequestedAt)
			}
		}
	}
	return listed
}

func readyIsListed(c *corner) {
	op := c.provision(web, c.suite.Ready)
	seen := c.ready(op)
	held := c.holds(op)[0]
	c.same("replicas in the inventory", replicas(held.ResourceIDs), replicas(seen.ResourceIDs))
	if held.Running != op.Spec.Replicas {
		c.Errorf("%d replicas are said to run, want %d", held.Running, op.Spec.Replicas)
	}
	other := newCorner(c.T, c.suite, c.tenant)
	other.resources = nil // it only looks
	c.same("replicas that another worker lists", replicas(other.holds(op)[0].ResourceIDs), replicas(seen.ResourceIDs))
}

func replacedIsNot(c *corner) {
	c.ready(c.provision(web, c.suite.Ready))
	op := c.update(web, c.suite.Ready)
	seen := c.ready(op)
	c.same("replicas in the inventory", replicas(c.holds(op)[0].ResourceIDs), replicas(seen.ResourceIDs))
}

func pendingIsListed(c *corner) {
	op := c.provision(web, c.slow())
	c.ask(op)
	c.until("what is pending has ids", func() bool { return len(replicas(c.observe(op).ResourceIDs)) > 0 })
	c.holds(op)
}

func deletedIsNot(c *corner) {
	c.ready(c.provision(web, c.suite.Ready))
	c.gone(c.delete(web))
	c.holds()
}

func tenantsAreListed(c *corner) {
	here, beside := c.provision(web, c.suite.Ready), c.provision("db", c.suite.Ready)
	c.ready(here)
	c.end(beside)
	other := newCorner(c.T, c.suite, c.tenant+"-neighbour")
	there := other.provision(web, c.suite.Ready)
	other.ready(there)
	c.holds(here, beside)
	other.holds(there)
	other.gone(other.delete(web))
	other.holds()
	c.holds(here, beside)
}

func foreignIsNot(c *corner) {
	if c.suite.Foreign == nil {
		c.Skip("names of this provider cannot collide with what is not ours")
	}
	c.suite.Foreign(c.T, c.tenant, web)
	c.holds()
}

func failedIsListed(c *corner, failing Failing) {
	op := c.provision(web, failing.Template)
	seen := c.end(op)
	c.failed(seen, failing.Codes...)
	if failing.Leaves {
		c.until("what it left is listed", func() bool { // a platform may go on replacing what fails
			held := c.holds(op)[0]
			return slices.Equal(replicas(held.ResourceIDs), replicas(c.observe(op).ResourceIDs))
		})
	}
	c.gone(c.delete(web))
	c.holds()
}

func failedUpdateHidesNothing(c *corner, failing Failing) {
	served := c.ready(c.provision(web, c.suite.Ready))
	seen := c.end(c.update(web, failing.Template))
	c.failed(seen, failing.Codes...)
	var listed []string
	for _, held := range c.holdings() {
		listed = append(listed, replicas(held.ResourceIDs)...)
	}
	for _, id := range replicas(served.ResourceIDs) {
		if !slices.Contains(listed, id) {
			c.Errorf("%q serves on, and the inventory lists %q", id, listed)
		}
	}
}

package main

import (
	"log/slog"
	"maps"
	"slices"

	"bellhop/internal/tenancy"
)

// warnOfSharedIDs says that tenants can take each other's ids, where more than one of them may start operations here whose
// ids have no prefix.
func (c *Config) warnOfSharedIDs(policy *tenancy.Policy, logger *slog.Logger) {
	served := map[string]bool{}
	add := func(tenants ...string) {
		for _, tenant := range tenants {
			if tenant != "" && policy.For(tenant).IDPrefix == "" {
				served[tenant] = true
			}
		}
	}
	if c.API != nil {
		for _, token := range c.API.Tokens {
			add(token.Tenants...)
		}
	}
	if c.Restate != nil {
		add(c.Restate.Tenants...)
	}
	if c.Nexus != nil {
		add(c.Nexus.Tenants...)
	}
	for _, activity := range c.StepFunctionsActivities {
		add(activity.Tenant)
	}
	if len(served) > 1 {
		logger.Warn("tenants share their operations' ids: one can take an id that another one needs, and learns which are taken; "+
			"give them a prefix: tenants.default.id_prefix", "tenants", slices.Sorted(maps.Keys(served)))
	}
}

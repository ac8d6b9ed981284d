// Package tenancy is what each tenant may name and how much it may use at once: the section tenants of the worker's
// configuration, and the rules that follow from it for one tenant.
package tenancy

import (
	"maps"
	"slices"
	"strings"

	"bellhop"
)

// Config is the section tenants.
type Config struct {
	// Default is for every tenant that is not named.
	Default Tenant `json:"default"`
	// Named are the tenants with rules of their own, by name. What an entry leaves out is the default's.
	Named map[string]Tenant `json:"named"`
}

// Tenant is what one tenant may name and how much it may use at once.
type Tenant struct {
	// Providers are the entries of providers that its operations may name; an empty list is none. Default: all.
	Providers []string `json:"providers"`
	// Targets are the entries of targets that its callbacks may name; an empty list is none. An operation that comes in
	// through Restate or an activity of Step Functions calls their target back. Default: all.
	Targets []string `json:"targets"`
	// IDPrefix is what its operation ids must begin with at bellhop's own ways in, and what the ids begin with that bellhop
	// makes. It begins with "{tenant}:", where {tenant} is the tenant's name, so that no two tenants share an id; empty is
	// no prefix. Default "{tenant}:".
	IDPrefix *string `json:"id_prefix"`
	// Priority is the most urgent priority that its operations may have, 1 to 5; 1 is the most urgent. Default 3.
	Priority *int `json:"priority"`
	// Weight is its share of the workers beside other tenants that wait too, 0.001 to 1000. Default 1.
	Weight *float64 `json:"weight"`
	// Limits bound what it uses at once.
	Limits TenantLimits `json:"limits"`
}

// TenantLimits bound what one tenant uses at once.
type TenantLimits struct {
	// OpenOperations is how many of its operations may be open, those included whose callbacks are still being delivered.
	// Default 10000.
	OpenOperations *int `json:"open_operations"`
	// Asks is how many of its operations one worker asks providers for at once. Default: a quarter of what the worker does.
	Asks *int `json:"asks"`
	// Requests is how many of its requests to the HTTP API one worker handles at once, those that wait excepted. Default 50.
	Requests *int `json:"requests"`
	// Waits is how many of its requests to the HTTP API may wait at once, at one worker, for an operation to end. Default: a
	// quarter of api.waits.
	Waits *int `json:"waits"`
}

const (
	// prefixStart is what every prefix begins with. No name of a tenant has a ':', so what is before the first ':' of an
	// id says whose it is.
	prefixStart = "{tenant}:"
	// maxPrefix leaves room for ids beside the longest name: those that bellhop makes have up to 42 characters.
	maxPrefix = len(prefixStart) + 22

	// MostUrgent, NormalPriority and LeastUrgent are Temporal's priorities.
	MostUrgent, NormalPriority, LeastUrgent = 1, 3, 5

	minWeight, maxWeight = 0.001, 1000

	defaultOpenOperations = 10_000
	defaultRequests       = 50
)

// Check says what is wrong with the section, as [bellhop.Faults], where providers and targets are those that the
// configuration has.
func (c *Config) Check(providers, targets []string) error {
	var faults bellhop.Faults
	faults.Note("default", c.Default.check(providers, targets))
	for _, name := range slices.Sorted(maps.Keys(c.Named)) {
		path := "named." + name
		if err := bellhop.CheckName(name); err != nil {
			faults.Add(path, "the name %s", err)
		}
		tenant := c.Named[name]
		faults.Note(path, tenant.check(providers, targets))
	}
	return faults.Err()
}

func (t *Tenant) check(providers, targets []string) error {
	var faults bellhop.Faults
	checkEntries("providers", t.Providers, providers, &faults)
	checkEntries("targets", t.Targets, targets, &faults)
	if t.IDPrefix != nil && *t.IDPrefix != "" {
		rest, begins := strings.CutPrefix(*t.IDPrefix, prefixStart)
		switch {
		case !begins:
			faults.Add("id_prefix", "must be empty or begin with %q: else tenants share ids", prefixStart)
		case rest != "" && bellhop.CheckID(rest) != nil:
			faults.Add("id_prefix", "may have only A-Z a-z 0-9 . _ : - after %q", prefixStart)
		case len(*t.IDPrefix) > maxPrefix:
			faults.Add("id_prefix", "may have at most %d characters", maxPrefix)
		}
	}
	if t.Priority != nil && (*t.Priority < MostUrgent || *t.Priority > LeastUrgent) {
		faults.Add("priority", "must be %d to %d", MostUrgent, LeastUrgent)
	}
	if t.Weight != nil && (*t.Weight < minWeight || *t.Weight > maxWeight) {
		faults.Add("weight", "must be %v to %v", minWeight, maxWeight)
	}
	for _, limit := range []struct {
		name  string
		value *int
	}{
		{"open_operations", t.Limits.OpenOperations},
		{"asks", t.Limits.Asks},
		{"requests", t.Limits.Requests},
		{"waits", t.Limits.Waits},
	} {
		if limit.value != nil && *limit.value < 1 {
			faults.Add("limits."+limit.name, "must be at least 1")
		}
	}
	return faults.Err()
}

// checkEntries finds names of entries that the configuration does not have.
func checkEntries(path string, names, configured []string, faults *bellhop.Faults) {
	for i, name := range names {
		at := bellhop.Faults{}
		if !slices.Contains(configured, name) {
			at.Add("", "%q is not configured; configured are %s", name, listed(configured))
		} else if slices.Contains(names[:i], name) {
			at.Add("", "%q is given twice", name)
		}
		*faults = append(*faults, at.Within(path+index(i))...)
	}
}

package tenancy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"bellhop"
)

// Policy is what each tenant may name and use. A nil Policy bounds nobody.
type Policy struct {
	fallback Tenant
	named    map[string]Tenant
	totals   Totals
	// closed says that the configuration has the section: its defaults are stricter than without it.
	closed bool
	// prefixed says that some tenants' ids have a prefix.
	prefixed bool
}

// Totals are the worker's own limits, of which a tenant has a share.
type Totals struct {
	// Asks is how many operations the worker asks providers for at once.
	Asks int
	// Waits is how many requests to the HTTP API may wait at once.
	Waits int
}

// NewPolicy makes the policy of a section that is in order, see [Config.Check]; nil is one that the configuration does
// not have. Tenants then may name everything and choose any id; only their shares of the worker are bounded.
func NewPolicy(config *Config, totals Totals) *Policy {
	p := &Policy{totals: totals, closed: config != nil}
	if config == nil {
		return p
	}
	p.fallback, p.named = config.Default, config.Named
	p.prefixed = p.For("tenant").IDPrefix != ""
	for name := range p.named {
		p.prefixed = p.prefixed || p.For(name).IDPrefix != ""
	}
	return p
}

// Rules are what one tenant may name and use.
type Rules struct {
	// Tenant is whose they are.
	Tenant string
	// IDPrefix is what its operation ids begin with; empty when there is no such rule.
	IDPrefix string
	// Priority is the most urgent priority that its operations may have, 1 to 5.
	Priority int
	// Weight is its Temporal fairness weight.
	Weight float32
	// Limits bound what it uses at once; 0 is no limit.
	Limits Limits

	// providers and targets are what it may name; nil is all.
	providers, targets []string
	// prefixed says that other tenants' ids may have a prefix.
	prefixed bool
}

// Limits bound what one tenant uses at once; 0 is no limit.
type Limits struct {
	OpenOperations int
	Asks           int
	Requests       int
	Waits          int
}

// For answers the rules for a tenant.
func (p *Policy) For(tenant string) Rules {
	if p == nil {
		return Rules{Tenant: tenant, Priority: mostUrgent, Weight: 1}
	}
	own, everybody := p.named[tenant], p.fallback
	rules := Rules{
		Tenant:    tenant,
		Priority:  first(mostUrgent),
		Weight:    float32(first(1.0, own.Weight, everybody.Weight)),
		providers: own.Providers,
		targets:   own.Targets,
		prefixed:  p.prefixed,
		Limits: Limits{
			Asks:     first(share(p.totals.Asks), own.Limits.Asks, everybody.Limits.Asks),
			Requests: first(defaultRequests, own.Limits.Requests, everybody.Limits.Requests),
			Waits:    first(share(p.totals.Waits), own.Limits.Waits, everybody.Limits.Waits),
		},
	}
	if !p.closed {
		return rules
	}
	if rules.providers == nil {
		rules.providers = everybody.Providers
	}
	if rules.targets == nil {
		rules.targets = everybody.Targets
	}
	rules.Priority = first(normalPriority, own.Priority, everybody.Priority)
	rules.Limits.OpenOperations = first(defaultOpenOperations, own.Limits.OpenOperations, everybody.Limits.OpenOperations)
	prefix := first(prefixStart, own.IDPrefix, everybody.IDPrefix)
	rules.IDPrefix = strings.ReplaceAll(prefix, "{tenant}", tenant)
	return rules
}

// first is the first value that is given, else the default.
func first[T any](otherwise T, values ...*T) T {
	for _, value := range values {
		if value != nil {
			return *value
		}
	}
	return otherwise
}

// share keeps a tenant that nothing was said about from taking all of something.
func share(total int) int {
	if total <= 0 {
		return 0
	}
	return max(total/4, 1)
}

// Prefixed says whether the ids of some tenants have a prefix.
func (p *Policy) Prefixed() bool { return p != nil && p.prefixed }

// maxHeartbeats is how many heartbeats a second the callbacks of one operation may cost together.
const maxHeartbeats = 1.0

// CheckOperation finds what the tenant may not name or ask for. It tells the tenant what it may name, and nothing of what
// else is configured.
func (r Rules) CheckOperation(op bellhop.Operation) bellhop.Faults {
	var faults bellhop.Faults
	if op.Provider != "" && !allowed(r.providers, op.Provider) {
		faults.AddHere("provider", "%q is not for tenant %q, which may name %s", op.Provider, r.Tenant, listed(r.providers))
	}
	beats := 0.0
	for i, callback := range op.Callbacks {
		if callback.Target != "" && !allowed(r.targets, callback.Target) {
			faults.AddHere(fmt.Sprintf("callbacks[%d].target", i), "%q is not for tenant %q, which may name %s",
				callback.Target, r.Tenant, listed(r.targets))
		}
		if callback.Heartbeat > 0 {
			beats += time.Second.Seconds() / time.Duration(callback.Heartbeat).Seconds()
		}
	}
	if beats > maxHeartbeats*1.0001 { // sums of fractions are not exact
		faults.Add("callbacks", "ask for %.1f heartbeats a second together; at most %v is sent: give each a longer heartbeat", beats, maxHeartbeats)
	}
	if op.Priority != 0 && op.Priority < r.Priority {
		faults.AddHere("priority", "must be %d to %d, or be left out, for tenant %q", r.Priority, leastUrgent, r.Tenant)
	}
	return faults
}

// Check finds what is wrong with an operation beside what was found when it was read, and, apart from the rest, what is
// wrong with its id for the tenant. Of a tenant that has no name there are no rules.
func (p *Policy) Check(op bellhop.Operation, read error) (faults, id bellhop.Faults) {
	faults.Note("", read)
	if bellhop.CheckName(op.TenantID) != nil {
		return faults, nil
	}
	ofCallback := func(f bellhop.Fault) bool { return strings.HasPrefix(f.Path, "callbacks") }
	if slices.ContainsFunc(faults, ofCallback) {
		op.Callbacks = nil // those that are left have other places than in the input
	}
	rules := p.For(op.TenantID)
	faults = append(faults, rules.CheckOperation(op)...)
	if bellhop.CheckID(op.ID) == nil {
		id = rules.CheckID(op.ID)
	}
	return faults, id
}

// MayNameProvider and MayNameTarget say whether the tenant's operations may name an entry.
func (r Rules) MayNameProvider(name string) bool { return allowed(r.providers, name) }

// MayNameTarget is MayNameProvider for targets.
func (r Rules) MayNameTarget(name string) bool { return allowed(r.targets, name) }

func allowed(names []string, name string) bool { return names == nil || slices.Contains(names, name) }

func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(slices.Sorted(slices.Values(names)), ", ")
}

func index(i int) string { return fmt.Sprintf("[%d]", i) }

// CheckID finds what is wrong with an id that the tenant chose for an operation.
func (r Rules) CheckID(id string) bellhop.Faults {
	var faults bellhop.Faults
	owner, _, marked := strings.Cut(id, ":")
	switch {
	case r.IDPrefix != "" && !strings.HasPrefix(id, r.IDPrefix):
		faults.AddHere("operation_id", "must begin with %q for tenant %q", r.IDPrefix, r.Tenant)
	case r.IDPrefix != "" && id == r.IDPrefix:
		faults.AddHere("operation_id", "must have something after %q", r.IDPrefix)
	case r.IDPrefix == "" && r.prefixed && marked && owner != r.Tenant && bellhop.CheckName(owner) == nil:
		// Whether there is such a tenant is not this one's business.
		faults.AddHere("operation_id", "must not begin with another tenant's name and ':'")
	}
	return faults
}

// MakeID makes an id that bellhop derived from a request into one of the tenant's.
func (r Rules) MakeID(derived string) string {
	if bellhop.CheckName(r.Tenant) != nil { // the operation is refused for that, under the id as it was derived
		return derived
	}
	return r.IDPrefix + derived
}

// PriorityOf is Temporal's priority of an operation; 0 is Temporal's default.
func (r Rules) PriorityOf(op bellhop.Operation) int {
	if op.Priority == 0 && r.Priority <= normalPriority {
		return 0
	}
	return cmp.Or(op.Priority, r.Priority)
}

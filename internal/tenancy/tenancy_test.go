package tenancy

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"bellhop"
)

// section reads the section as an operator writes it.
func section(t *testing.T, text string) *Config {
	t.Helper()
	var config Config
	require.NoError(t, bellhop.DecodeStrict([]byte(text), &config))
	return &config
}

var (
	providers = []string{"docker", "simulated"}
	targets   = []string{"orders", "temporal"}
)

func TestConfig_EveryFaultIsNamed(t *testing.T) {
	for _, tc := range []struct {
		reason, section string
		want            []string
	}{
		{"empty, which closes ids", `{}`, nil},
		{"a sound one", `{"default": {"providers": ["docker"], "targets": [], "id_prefix": "{tenant}:x-", "priority": 1, "weight": 0.001,
			"limits": {"open_operations": 1, "asks": 1, "requests": 1, "waits": 1}}, "named": {"acme": {"id_prefix": ""}}}`, nil},
		{"what is not configured", `{"default": {"providers": ["ecs"], "targets": ["temporal", "nobody"]}}`, []string{"default.providers[0]", "default.targets[1]"}},
		{"a name twice", `{"named": {"acme": {"providers": ["docker", "docker"]}}}`, []string{"named.acme.providers[1]"}},
		{"a prefix that another tenant could have too", `{"default": {"id_prefix": "{tenant}"}, "named": {"acme": {"id_prefix": "acme:"}}}`, []string{"default.id_prefix", "named.acme.id_prefix"}},
		{"a prefix that no id can have", `{"default": {"id_prefix": "{tenant}:a b"}}`, []string{"default.id_prefix"}},
		{"a second tenant in a prefix", `{"default": {"id_prefix": "{tenant}:{tenant}"}}`, []string{"default.id_prefix"}},
		{"a prefix without room for an id", `{"default": {"id_prefix": "{tenant}:12345678901234567890123"}}`, []string{"default.id_prefix"}},
		{"numbers out of range", `{"default": {"priority": 0, "weight": 0, "limits": {"open_operations": 0, "asks": -1, "requests": 0, "waits": 0}}}`, []string{
			"default.limits.asks", "default.limits.open_operations", "default.limits.requests", "default.limits.waits", "default.priority", "default.weight",
		}},
		{"the other ends", `{"default": {"priority": 6, "weight": 1000.5}}`, []string{"default.priority", "default.weight"}},
		{"a name that is none", `{"named": {"a:b": {}, "": {}}}`, []string{"named.", "named.a:b"}},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			var paths []string
			if err := section(t, tc.section).Check(providers, targets); err != nil {
				for _, fault := range err.(bellhop.Faults) { //nolint:errorlint // Check returns faults as they are
					paths = append(paths, fault.Path)
				}
			}
			require.Empty(t, cmp.Diff(tc.want, paths))
		})
	}
}

func TestPolicy_WhatATenantDoesNotSayIsTheDefaults(t *testing.T) {
	totals := Totals{Asks: 200, Waits: 500}
	for _, tc := range []struct {
		reason string
		policy *Policy
		tenant string
		want   Rules
	}{
		{"no policy", nil, "acme", Rules{Tenant: "acme", Priority: 1, Weight: 1}},
		{"no section", NewPolicy(nil, totals), "acme", Rules{
			Tenant: "acme", Priority: 1, Weight: 1, Limits: Limits{Asks: 50, Requests: 50, Waits: 125},
		}},
		{"an empty section", NewPolicy(section(t, `{}`), totals), "acme", Rules{
			Tenant: "acme", IDPrefix: "acme:", Priority: 3, Weight: 1,
			Limits: Limits{OpenOperations: 10_000, Asks: 50, Requests: 50, Waits: 125},
		}},
		{"a default", NewPolicy(section(t, `{"default": {"id_prefix": "", "weight": 2.5, "limits": {"asks": 7, "open_operations": 9}}}`), totals), "acme", Rules{
			Tenant: "acme", Priority: 3, Weight: 2.5, Limits: Limits{OpenOperations: 9, Asks: 7, Requests: 50, Waits: 125},
		}},
		{
			"a name",
			NewPolicy(section(t, `{"default": {"id_prefix": "", "weight": 2, "limits": {"asks": 7, "waits": 1}},
				"named": {"acme": {"id_prefix": "{tenant}:{x}", "weight": 3, "priority": 5, "limits": {"waits": 600}}}}`), totals),
			"acme",
			Rules{
				Tenant: "acme", IDPrefix: "acme:{x}", Priority: 5, Weight: 3,
				Limits: Limits{OpenOperations: 10_000, Asks: 7, Requests: 50, Waits: 600},
			},
		},
		{"a worker with few places", NewPolicy(nil, Totals{Asks: 3, Waits: 1}), "acme", Rules{
			Tenant: "acme", Priority: 1, Weight: 1, Limits: Limits{Asks: 1, Requests: 50, Waits: 1},
		}},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			got := tc.policy.For(tc.tenant)
			got.providers, got.targets, got.prefixed = nil, nil, false
			require.Empty(t, cmp.Diff(tc.want, got, cmp.AllowUnexported(Rules{})))
		})
	}
}

func TestRules_WhatAnOperationMayName(t *testing.T) {
	policy := NewPolicy(section(t, `{
		"default": {"providers": ["simulated"], "targets": []},
		"named": {"acme": {"targets": ["temporal", "orders"], "priority": 1}, "labs": {"providers": [], "targets": ["temporal"]}}
	}`), Totals{})
	second := bellhop.Duration(time.Second)
	type callbacks = []bellhop.Callback
	for _, tc := range []struct {
		reason, tenant string
		policy         *Policy
		op             bellhop.Operation
		want           []string
	}{
		{"what the default gives", "rival", policy, bellhop.Operation{Provider: "simulated", Priority: 3}, nil},
		{"a provider of others", "rival", policy, bellhop.Operation{Provider: "docker"}, []string{`provider: "docker" is not for tenant "rival", which may name simulated`}},
		{
			"targets of others, each", "rival", policy, bellhop.Operation{Provider: "simulated", Callbacks: callbacks{{Target: "temporal"}, {Target: "orders"}}},
			[]string{
				`callbacks[0].target: "temporal" is not for tenant "rival", which may name none`,
				`callbacks[1].target: "orders" is not for tenant "rival", which may name none`,
			},
		},
		{"targets of its own, the default's providers", "acme", policy, bellhop.Operation{Provider: "simulated", Callbacks: callbacks{{Target: "orders"}}}, nil},
		{"an empty list is none", "labs", policy, bellhop.Operation{Provider: "simulated"}, []string{`provider: "simulated" is not for tenant "labs", which may name none`}},
		{"before everybody else", "rival", policy, bellhop.Operation{Provider: "simulated", Priority: 1}, []string{`priority: must be 3 to 5, or be left out, for tenant "rival"`}},
		{"who may be first", "acme", policy, bellhop.Operation{Provider: "simulated", Priority: 1}, nil},
		{"without the section", "rival", NewPolicy(nil, Totals{}), bellhop.Operation{Provider: "docker", Priority: 1, Callbacks: callbacks{{Target: "orders"}}}, nil},
		{"one heartbeat a second", "rival", nil, bellhop.Operation{Callbacks: callbacks{{Heartbeat: 3 * second}, {Heartbeat: 3 * second}, {Heartbeat: 3 * second}, {}}}, nil},
		{
			"many heartbeats a second", "rival", nil, bellhop.Operation{Callbacks: callbacks{{Heartbeat: second}, {Heartbeat: 2 * second}}},
			[]string{"callbacks: ask for 1.5 heartbeats a second together; at most 1 is sent: give each a longer heartbeat"},
		},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			var got []string
			for _, fault := range tc.policy.For(tc.tenant).CheckOperation(tc.op) {
				got = append(got, fault.String())
				require.Equal(t, fault.Path != "callbacks", fault.Here, "another worker may be configured differently")
			}
			require.Empty(t, cmp.Diff(tc.want, got))
		})
	}
}

func TestRules_IDsOfTwoTenantsNeverMeet(t *testing.T) {
	policies := map[string]*Policy{
		"all":  NewPolicy(section(t, `{}`), Totals{}),
		"some": NewPolicy(section(t, `{"default": {"id_prefix": ""}, "named": {"acme": {"id_prefix": "{tenant}:"}}}`), Totals{}),
		"long": NewPolicy(section(t, `{"default": {"id_prefix": "{tenant}:ops-"}}`), Totals{}),
		"none": NewPolicy(section(t, `{"default": {"id_prefix": ""}}`), Totals{}),
	}
	for _, tc := range []struct {
		policy, tenant, id string
		sound              bool
	}{
		{"all", "acme", "acme:web-1", true},
		{"all", "acme", "web-1", false},
		{"all", "acme", "acme-web-1", false},
		{"all", "acme", "acme:", false},
		{"all", "rival", "acme:web-1", false},
		{"all", "acme", "acme:labs:web-1", true},
		{"all", "acm", "acme:web-1", false},
		{"long", "acme", "acme:ops-1", true},
		{"long", "acme", "acme:web-1", false},
		{"some", "rival", "web-1", true},
		{"some", "rival", "rival:web-1", true},
		{"some", "rival", "acme:web-1", false},
		{"some", "rival", "nobody:web-1", false}, // else it could find out who is named
		{"some", "rival", ":web-1", true},
		{"some", "rival", "-x:web-1", true},
		{"some", "acme", "web-1", false},
		{"none", "rival", "acme:web-1", true},
	} {
		t.Run(tc.policy+" "+tc.tenant+" "+tc.id, func(t *testing.T) {
			require.Equal(t, tc.sound, len(policies[tc.policy].For(tc.tenant).CheckID(tc.id)) == 0)
		})
	}
	for _, policy := range policies {
		for _, derived := range []string{"restate-0123456789abcdef0123456789abcdef", "nexus-01234567-89ab-cdef-0123-456789abcdef"} {
			rules := policy.For("a23456789.123456789.123456789.123456789.123456789.123456789.123")
			made := rules.MakeID(derived)
			require.Empty(t, rules.CheckID(made))
			require.NoError(t, bellhop.CheckID(made))
		}
	}
	require.Equal(t, "sfn-1", policies["all"].For("no name").MakeID("sfn-1"), "an id that can be one, for the refusal")
}

func TestRules_PriorityOf(t *testing.T) {
	for _, tc := range []struct {
		section string
		asked   int
		want    int
	}{
		{`{}`, 0, 0},
		{`{}`, 4, 4},
		{`{"default": {"priority": 1}}`, 0, 0},
		{`{"default": {"priority": 1}}`, 2, 2},
		{`{"default": {"priority": 5}}`, 0, 5},
	} {
		got := NewPolicy(section(t, tc.section), Totals{}).For("acme").PriorityOf(bellhop.Operation{Priority: tc.asked})
		require.Equal(t, tc.want, got, "%s, asked for %d", tc.section, tc.asked)
	}
}

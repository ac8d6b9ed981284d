package ecs

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"bellhop"
	"bellhop/tests/peers/scriptedecs"
)

// Where a tenant may put its tasks, and what it is told when it may not.
func TestCheck_OnlyWhatTheOperatorAllows(t *testing.T) {
	credentials(t)
	entry := func(change func(*Config)) Config {
		made := Config{
			Region: "eu-central-1", Cluster: "default", Subnets: []string{"subnet-1", "subnet-2"}, SecurityGroups: []string{"sg-1"},
		}
		if change != nil {
			change(&made)
		}
		return made
	}
	providers := func(c *Config) { c.CapacityProviders = []CapacityProvider{{Name: "FARGATE"}, {Name: "own"}} }
	refused := func(path, list string) string {
		return path + ": is not allowed to tenant acme; the operator allows it in the provider's " + list
	}
	const at = "provider_config."
	for _, row := range []struct {
		reason string
		entry  Config
		image  string
		config string
		want   string
	}{
		{reason: "nothing is named", entry: entry(nil)},
		{
			reason: "the provider's own may be named", entry: entry(nil),
			config: `{"launch_type": "FARGATE", "subnets": ["subnet-2"], "security_groups": ["sg-1"], "assign_public_ip": false}`,
		},
		{
			reason: "everything at once, such as the database's subnet and security group", entry: entry(nil),
			config: `{"launch_type": "EC2", "subnets": ["subnet-1", "subnet-9"], "security_groups": ["sg-database"], "assign_public_ip": true}`,
			want: strings.Join([]string{
				refused(at+"assign_public_ip", "allow.assign_public_ip"), refused(at+"launch_type", "allow.launch_types"),
				refused(at+"security_groups[0]", "allow.security_groups"), refused(at+"subnets[1]", "allow.subnets"),
			}, "; "),
		},
		{
			reason: "what the operator allows", entry: entry(func(c *Config) {
				c.Allow = AllowConfig{Subnets: []string{"subnet-9"}, SecurityGroups: []string{"sg-*"}, LaunchTypes: []string{"EC2"}, AssignPublicIP: true}
			}),
			config: `{"launch_type": "EC2", "subnets": ["subnet-1", "subnet-9"], "security_groups": ["sg-web"], "assign_public_ip": true}`,
		},
		{reason: "an id that goes on", entry: entry(nil), config: `{"subnets": ["subnet-11"]}`, want: refused(at+"subnets[0]", "allow.subnets")},
		{reason: "another spelling", entry: entry(nil), config: `{"security_groups": ["SG-1"]}`, want: refused(at+"security_groups[0]", "allow.security_groups")},
		{reason: "nothing, as an id", entry: entry(nil), config: `{"subnets": [""]}`, want: refused(at+"subnets[0]", "allow.subnets")},
		{reason: "a pattern, as an id", entry: entry(nil), config: `{"subnets": ["*"]}`, want: refused(at+"subnets[0]", "allow.subnets")},
		{
			reason: "where all tasks get public addresses one may", entry: entry(func(c *Config) { c.AssignPublicIP = true }),
			config: `{"assign_public_ip": true}`,
		},
		{
			reason: "a capacity provider", entry: entry(nil), config: `{"capacity_providers": [{"name": "FARGATE_SPOT"}]}`,
			want: refused(at+"capacity_providers[0].name", "allow.capacity_providers"),
		},
		{reason: "the provider's own capacity providers", entry: entry(providers), config: `{"capacity_providers": [{"name": "own", "weight": 3}]}`},
		{
			reason: "a launch type beside them", entry: entry(providers), config: `{"launch_type": "FARGATE"}`,
			want: refused(at+"launch_type", "allow.launch_types"),
		},
		{
			reason: "another tenant's machines", entry: entry(func(c *Config) { c.Allow.CapacityProviders = []string{"tenant-{tenant}"} }),
			config: `{"capacity_providers": [{"name": "tenant-acme"}, {"name": "tenant-rival"}, {"name": "tenant-acme-2"}]}`,
			want: refused(at+"capacity_providers[1].name", "allow.capacity_providers") + "; " +
				refused(at+"capacity_providers[2].name", "allow.capacity_providers"),
		},
		{
			reason: "another tenant's image, which the execution role could pull", image: "1.dkr.ecr.eu-central-1.amazonaws.com/rival/web:1",
			entry: entry(func(c *Config) { c.Images = []string{"1.dkr.ecr.eu-central-1.amazonaws.com/{tenant}/*"} }),
			want:  refused("spec.image", "images"),
		},
		{
			reason: "its own image", image: "1.dkr.ecr.eu-central-1.amazonaws.com/acme/web:1",
			entry: entry(func(c *Config) { c.Images = []string{"1.dkr.ecr.eu-central-1.amazonaws.com/{tenant}/*"} }),
		},
	} {
		if row.image == "" {
			row.image = "nginx:1.27"
		}
		op := bellhop.Operation{
			Verb: bellhop.Provision, TenantID: "acme", Resource: "web", Spec: bellhop.Spec{Image: row.image, Replicas: 1},
			ProviderConfig: json.RawMessage(row.config),
		}
		provider := made(t, row.entry)
		faults, _ := provider.Check(op).(bellhop.Faults) //nolint:errorlint // Check returns faults as they are
		if got := faults.Error(); got != row.want {
			t.Errorf("%s:\ngot  %s\nwant %s", row.reason, got, row.want)
		}
		if row.want == "" {
			continue
		}
		assert.True(t, faults.OnlyHere(), "%s: another worker may allow it", row.reason)
		assert.NotContains(t, faults.Error(), "rival", row.reason)
		_, err := provider.Provision(t.Context(), op) // which asks nobody
		require.ErrorContains(t, err, "INVALID_SPEC", "%s: asked all the same", row.reason)
		op.Verb, op.Spec = bellhop.Delete, bellhop.Spec{}
		require.NoError(t, provider.Check(op), "%s: what was made can no longer be deleted", row.reason)
	}
}

// Whatever is wrong with an operation at every worker is not said to depend on this one.
func TestCheck_WhatIsWrongEverywhere(t *testing.T) {
	for config, want := range map[string]string{
		`{"target_groups": [{"arn": "arn:x", "container": "sidecar"}]}`: "provider_config.target_groups[0].container: must be \"main\"",
	} {
		err := Check(bellhop.Operation{
			Verb: bellhop.Provision, TenantID: "acme", Resource: "web", ProviderConfig: json.RawMessage(config),
			Spec: bellhop.Spec{Image: "sha256:0123456789ab", Replicas: 1, Ports: []bellhop.Port{{Name: "http", ContainerPort: 80, Protocol: "tcp"}}},
		})
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "spec.image: must be the name of an image and not its id")
		faults, _ := err.(bellhop.Faults) //nolint:errorlint // Check returns faults as they are
		require.False(t, faults.OnlyHere())
	}
}

func TestConfig_PatternsKeepTenantsApart(t *testing.T) {
	credentials(t)
	_, err := New(Config{
		Region: "eu-central-1", Cluster: "default", Subnets: []string{"subnet-1"}, LogGroup: "/{tennant}",
		Secrets:          []string{"arn:aws:secretsmanager:eu-central-1:1:secret:{tenant}-*", "arn:aws:secretsmanager:*:secret:{tenant}/*"},
		ExecutionRoleARN: "arn:aws:iam::111122223333:role/execution",
		TaskDefinitions:  []string{"arn:aws:ecs:eu-central-1:1:task-definition/{tenant}-*"},
		TargetGroups:     []string{"arn:aws:elasticloadbalancing:eu-central-1:1:targetgroup/{tenant}*/1"},
		Images:           []string{"{tenant}/*"},
		Allow:            AllowConfig{CapacityProviders: []string{"{tenant}"}, SecurityGroups: []string{""}, Subnets: []string{"*{tenant}"}, LaunchTypes: []string{"EXTERNAL"}},
	})
	var faults bellhop.Faults
	require.ErrorAs(t, err, &faults)
	var paths []string
	for _, fault := range faults {
		paths = append(paths, fault.Path)
	}
	assert.Equal(t, []string{
		"allow.capacity_providers[0]", "allow.launch_types[0]", "allow.security_groups[0]", "allow.subnets[0]", "images[0]", "log_group",
		"secrets[0]", "secrets[1]", "target_groups[0]", "task_definitions[0]",
	}, paths, "%s", err)
}

// A reference may end with a key and a version, which must not look like another tenant's secret.
func TestAllowed_SecretWithinAnotherReference(t *testing.T) {
	credentials(t)
	provider := made(t, Config{
		Region: "eu-central-1", Cluster: "default", Subnets: []string{"subnet-1"},
		ExecutionRoleARN: "arn:aws:iam::111122223333:role/execution",
		Secrets:          []string{"arn:aws:secretsmanager:eu-central-1:1:secret:bellhop/{tenant}/*", "arn:aws:ssm:eu-central-1:1:parameter/bellhop/{tenant}/*"},
	})
	const secret, parameter = "arn:aws:secretsmanager:eu-central-1:1:secret:", "arn:aws:ssm:eu-central-1:1:parameter/"
	for reference, allowed := range map[string]bool{
		secret + "bellhop/acme/db-AbCdEf":                                     true,
		secret + "bellhop/acme/db-AbCdEf:password::":                          true,
		parameter + "bellhop/acme/db":                                         true,
		secret + "bellhop/rival/db-AbCdEf":                                    false,
		secret + "bellhop/rival/db-AbCdEf:secret:bellhop/acme/x":              false,
		secret + "bellhop/acme2/db-AbCdEf":                                    false,
		secret + "bellhop/ACME/db-AbCdEf":                                     false,
		secret + "x/bellhop/acme/db-AbCdEf":                                   false,
		parameter + "bellhop/rival/db":                                        false,
		"arn:aws:secretsmanager:eu-west-1:1:secret:bellhop/acme/db-AbCdEf":    false,
		"arn:aws:secretsmanager:eu-central-1:2:secret:bellhop/acme/db-AbCdEf": false,
	} {
		err := provider.Check(bellhop.Operation{
			Verb: bellhop.Provision, TenantID: "acme", Resource: "web",
			Spec: bellhop.Spec{Image: "nginx:1.27", Replicas: 1, Secrets: map[string]string{"DB": reference}},
		})
		assert.Equal(t, allowed, err == nil, "%s: %v", reference, err)
	}
}

// CloudTrail tells tenants apart, also when one role is assumed for all of them.
func TestSession_OfEachTenant(t *testing.T) {
	long := strings.Repeat("a", 62)
	d := setup(t, scriptedecs.Options{}, func(c *Config) { c.RoleARN = "arn:aws:iam::111122223333:role/bellhop" })
	for _, tenant := range []string{"acme", "rival", long + "b", long + "c", "acme"} {
		op := d.operation(bellhop.Provision, "web", image("ready"), "")
		op.TenantID = tenant
		require.Equal(t, bellhop.PhaseReady, d.end(op).Phase)
	}
	sessions := map[string]int{}
	for _, call := range d.server.Calls() {
		if call.Action == "sts:AssumeRole" {
			form, err := url.ParseQuery(string(call.Body))
			require.NoError(t, err)
			sessions[form.Get("RoleSessionName")]++
			assert.LessOrEqual(t, len(form.Get("RoleSessionName")), 64)
		}
	}
	assert.Len(t, sessions, 4, "%v", sessions)
	assert.Equal(t, 1, sessions["bellhop-acme"], "a session's credentials are kept")
	assert.Equal(t, 1, sessions["bellhop-rival"])
}

package ecs

import (
	"testing"
	"time"

	"bellhop"
	"bellhop/activities"
	"bellhop/activities/providertest"
	"bellhop/tests/peers/scriptedecs"
)

// config is that of a provider that works at a scripted server, in a hurry.
func config(server *scriptedecs.Server) Config {
	return Config{
		Region: "eu-central-1", Endpoint: server.URL, Cluster: "default", Subnets: []string{"subnet-1"},
		ReadsPerSecond: 1e6, WritesPerSecond: 1e6, DefinitionsPerSecond: 1e6,
		PollMin: bellhop.Duration(20 * time.Millisecond), PollMax: bellhop.Duration(200 * time.Millisecond),
		Resync: bellhop.Duration(200 * time.Millisecond),
	}
}

// credentials are such as the SDK finds; the scripted server takes any.
func credentials(t *testing.T) {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIABELLHOPTEST")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
}

func made(t *testing.T, config Config) *Provider {
	t.Helper()
	provider, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = provider.Close() }) //nolint:errcheck // the test is over
	return provider
}

func image(name string) bellhop.Spec {
	return bellhop.Spec{Image: "bellhop.test/" + name + ":1", Replicas: 2}
}

func TestLaw(t *testing.T) {
	credentials(t)
	server := scriptedecs.For(t, scriptedecs.Options{Step: 20 * time.Millisecond, MissingDescribes: 2, KeepInactive: 10 * time.Minute})
	ready := image("ready")
	ready.Ports = []bellhop.Port{{ContainerPort: 80}}
	checked := image("unhealthy")
	checked.HealthCheck = &bellhop.HealthCheck{Command: []string{"/bin/check"}}
	slow := image("slow")

	failing := func(name string, spec bellhop.Spec, evidence string, code bellhop.Code) providertest.Failing {
		return providertest.Failing{
			Name: name, Template: providertest.Template{Spec: spec},
			// The first deployment of a service has nothing to go back to.
			Codes: []bellhop.Code{code, bellhop.CodeRolledBack}, Evidence: evidence,
		}
	}
	providertest.Run(t, providertest.Suite{
		New: func(t *testing.T) activities.Provider {
			t.Helper()
			return made(t, config(server))
		},
		Ready: providertest.Template{Spec: ready},
		Slow:  &providertest.Template{Spec: slow},
		Failing: []providertest.Failing{
			failing("Exits", image("exits"), "exit_code", bellhop.CodeContainerExited),
			failing("PullError", image("pull-error"), "stop_reason", bellhop.CodeImagePullFailed),
			failing("OutOfMemory", image("out-of-memory"), "stopped_tasks", bellhop.CodeOutOfMemory),
			failing("Unhealthy", checked, "service_events", bellhop.CodeHealthCheckFailed),
			failing("SecretMissing", image("secret-missing"), "stop_reason", bellhop.CodeInvalidSpec),
		},
		Count: func(t *testing.T, tenant string) int {
			t.Helper()
			return len(server.Standing(tagTenant, tenant))
		},
		Foreign: func(t *testing.T, tenant, resource string) func() error {
			t.Helper()
			name := key{tenant, resource}.name()
			intact, err := server.Foreign("default", name)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { server.Remove("default", name) })
			return intact
		},
		// What breaks after it was ready, ECS replaces.
		Break:              nil,
		RemembersDeletions: true, // as long as ECS tells of INACTIVE services
		WatchTellsGone:     true,
	})
}

package docker

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"bellhop"
	"bellhop/activities"
	"bellhop/activities/providertest"
)

func TestLaw(t *testing.T) {
	b := setup(t, Config{})
	never := json.RawMessage(`{"pull": "never", "restart_policy": {"name": "no"}}`)
	spec := func(args ...string) bellhop.Spec { return bellhop.Spec{Image: b.image, Args: args} }
	healthy := spec("serve")
	healthy.HealthCheck = healthCheck()
	healthy.Replicas = 2
	healthy.Ports = []bellhop.Port{{Name: "http", ContainerPort: 8080}}
	slow := spec("serve", "-after", "1h")
	slow.HealthCheck = healthCheck()
	slow.HealthCheck.StartPeriod = bellhop.Duration(time.Hour)
	unhealthy := spec("serve", "-after", "1h")
	unhealthy.HealthCheck = failingCheck()
	memory := spec("allocate")
	memory.MemoryMiB = 16
	config := Config{
		// What fails without a health check must never count as ready before, however slow the machine is.
		SteadyAfter: bellhop.Duration(time.Minute),
		Images:      []string{"*"}, // for those that are never pulled
	}
	var slowAsk *providertest.Template
	if _, here := engineHere(b); here {
		stuck := newShelf(b)
		stuck.hold = make(chan struct{}) // for ever
		config.DockerConfig = stuck.credentialsFile(t)
		slowAsk = &providertest.Template{Spec: bellhop.Spec{Image: stuck.image()}}
	}
	providertest.Run(t, providertest.Suite{
		New: func(t *testing.T) activities.Provider {
			t.Helper()
			return setup(t, config).Provider
		},
		// Starting a container takes a tenth of a second, or ten on a machine that compiles on all its cores.
		Prompt: time.Minute, Patience: 3 * time.Minute,
		Ready:   providertest.Template{Spec: healthy, ProviderConfig: never},
		SlowAsk: slowAsk,
		Slow:    &providertest.Template{Spec: slow, ProviderConfig: never},
		Failing: []providertest.Failing{
			{
				Name: "Exits", Template: providertest.Template{Spec: spec("exit", "-code", "3"), ProviderConfig: never},
				Codes: []bellhop.Code{bellhop.CodeContainerExited}, Leaves: true, Evidence: "logs",
			}, {
				Name: "Unhealthy", Template: providertest.Template{Spec: unhealthy, ProviderConfig: never},
				Codes: []bellhop.Code{bellhop.CodeHealthCheckFailed}, Leaves: true, Evidence: "health_log",
			}, {
				Name: "OutOfMemory", Template: providertest.Template{Spec: memory, ProviderConfig: never},
				// An engine under load may lose the notice; the exit code is then all there is.
				Codes: []bellhop.Code{bellhop.CodeOutOfMemory, bellhop.CodeContainerExited}, Leaves: true, Evidence: "exit_code",
			}, {
				Name: "NoSuchCommand", Template: providertest.Template{
					Spec: bellhop.Spec{Image: b.image, Command: []string{"/no/such"}}, ProviderConfig: never,
				},
				Codes: []bellhop.Code{bellhop.CodeContainerExited}, Leaves: true, Evidence: "exit_code",
			}, {
				Name: "NoSuchImage", Template: providertest.Template{
					Spec: bellhop.Spec{Image: "bellhop.test/no-such:1"}, ProviderConfig: never,
				},
				Codes: []bellhop.Code{bellhop.CodeImagePullFailed},
			},
		},
		Count: func(t *testing.T, tenant string) int {
			t.Helper()
			return len(listRaw(context.WithoutCancel(t.Context()), t, raw(t), tenant))
		},
		// A name has the operation's id in its hash; TestForeignContainer takes one.
		Foreign: nil,
		Break: func(t *testing.T, tenant, _ string) {
			t.Helper()
			docker := raw(t)
			for _, item := range listRaw(t.Context(), t, docker, tenant) {
				if _, err := docker.ContainerKill(t.Context(), item.ID, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
					t.Fatal(err)
				}
			}
		},
	})
}

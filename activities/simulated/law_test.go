package simulated_test

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"bellhop"
	"bellhop/activities"
	"bellhop/activities/providertest"
	"bellhop/activities/simulated"
)

// open is one more worker's provider on the platform at path.
func open(tb testing.TB, path string) *simulated.Provider {
	tb.Helper()
	provider, err := simulated.New(simulated.Config{Path: path})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := provider.Close(); err != nil {
			tb.Error(err)
		}
	})
	return provider
}

func TestLaw(t *testing.T) {
	path := filepath.Join(t.TempDir(), "platform.db")
	outside := open(t, path)
	spec := bellhop.Spec{
		Image: "nginx:1.27", Replicas: 2, Ports: []bellhop.Port{{Name: "http", ContainerPort: 80, Protocol: "tcp"}},
	}
	script := func(text string) providertest.Template {
		return providertest.Template{Spec: spec, ProviderConfig: json.RawMessage(text)}
	}
	slow, slowAsk := script(`{"ready_after": "1h"}`), script(`{"ask_takes": "1h"}`)
	providertest.Run(t, providertest.Suite{
		New: func(t *testing.T) activities.Provider {
			t.Helper()
			return open(t, path)
		},
		Provider: "simulated",
		Ready:    script(`{"ready_after": "40ms"}`),
		Slow:     &slow,
		SlowAsk:  &slowAsk,
		Deletion: json.RawMessage(`{"ready_after": "20ms"}`),
		Failing: []providertest.Failing{
			{
				Name: "AtAsk", Template: script(`{"fail": {"code": "QUOTA_EXCEEDED", "at": "ask"}}`),
				Codes: []bellhop.Code{bellhop.CodeQuotaExceeded},
			},
			{
				Name: "WhileWaiting", Template: script(`{"ready_after": "1h", "fail": {"code": "CONTAINER_EXITED", "after": "30ms"}}`),
				Codes: []bellhop.Code{bellhop.CodeContainerExited}, Leaves: true, Evidence: "exit_code",
			},
			{
				Name: "RolledBack", Template: script(`{"ready_after": "30ms", "fail": {"code": "ROLLED_BACK"}}`),
				Codes: []bellhop.Code{bellhop.CodeRolledBack}, Evidence: "last_log_line",
			},
			{
				Name: "LosingAnswers", Template: script(`{"lose_answers": 2, "throttle": 1, "retry_after": "1ms", "unavailable": 2,
					"fail": {"code": "OUT_OF_MEMORY"}}`),
				Codes: []bellhop.Code{bellhop.CodeOutOfMemory}, Leaves: true, Evidence: "exit_code",
			},
		},
		Count: func(t *testing.T, tenant string) int {
			t.Helper()
			resources, err := outside.Resources(context.WithoutCancel(t.Context()), tenant)
			if err != nil {
				t.Error(err)
			}
			count := 0
			for _, resource := range resources {
				count += len(resource.IDs)
			}
			return count
		},
		Foreign: func(t *testing.T, tenant, resource string) func() error {
			t.Helper()
			if err := outside.Occupy(t.Context(), tenant, resource, "somebody else"); err != nil {
				t.Fatal(err)
			}
			return func() error {
				resources, err := outside.Resources(t.Context(), tenant)
				if err == nil && (len(resources) != 1 || resources[0].Owner != "somebody else") {
					err = fmt.Errorf("stands: %+v", resources)
				}
				return err
			}
		},
		Break: func(t *testing.T, tenant, resource string) {
			t.Helper()
			if err := outside.Break(t.Context(), tenant, resource, bellhop.CodeOutOfMemory); err != nil {
				t.Fatal(err)
			}
		},
		RemembersDeletions: true,
		WatchTellsGone:     true,
		Patience:           20 * time.Second,
	})
}

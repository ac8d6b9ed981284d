package tests

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"bellhop"
)

func TestOperationThroughTheTemporalCLI(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.work(b.config())
	got := b.call("caller")
	start := func(input string) (string, string, int) {
		return b.run("", "temporal", "workflow", "start", "--type", "ProvisionCompute", "--task-queue", "bellhop",
			"--workflow-id", "web-1", "--id-conflict-policy", "UseExisting", "--id-reuse-policy", "RejectDuplicate",
			"--input", input)
	}
	input := `{"tenant_id": "acme", "resource": "web", "provider": "simulated", "spec": {"image": "nginx:1.27"},
		"provider_config": {"ready_after": "300ms"},
		"callbacks": [{"target": "temporal", "address": {"workflow_id": "caller"}}]}`
	for range 2 { // the second finds the first
		_, stderr, code := start(input)
		require.Zero(t, code, stderr)
	}
	stdout, stderr, code := b.run("", "temporal", "workflow", "result", "--workflow-id", "web-1", "-o", "json")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, `compute-provisioned`)
	_, stderr, code = start(input)
	require.Zero(t, code, stderr)

	rings := got()
	require.Len(t, rings, 1)
	require.Equal(t, 1, rings["web-1/succeeded"].Times, "it ran once, however often it was started")

	stdout, stderr, code = b.run("", "temporal", "workflow", "query", "--workflow-id", "web-1", "--name", "status", "-o", "json")
	require.Zero(t, code, stderr)
	var answer struct {
		QueryResult []bellhop.Status `json:"queryResult"`
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &answer))
	status := answer.QueryResult[0]
	require.Equal(t, bellhop.Succeeded, status.State)
	require.Equal(t, bellhop.ReceiptAcknowledged, status.Callbacks[0].State)
	require.NotEmpty(t, status.ResourceIDs.SimulatedIDs)

	b.until("it is found by its search attributes", func() bool {
		stdout, _, _ := b.run("", "temporal", "workflow", "list", "--query", `BellhopTenant="acme" AND BellhopState="succeeded"`)
		return strings.Contains(stdout, "web-1")
	})
}

func TestInputThatCannotBeReadEndsTheOperation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.work(b.config())
	got := b.call("caller")
	for i, tc := range []struct {
		reason string
		args   []string
		want   []string
	}{
		{"a stranger's first try", nil, []string{"there is none"}},
		{"a string where an object belongs", []string{"--input", `"web"`}, []string{"must be an object, not a string"}},
		{
			"typing errors, of which none may hide another",
			[]string{"--input", `{"tenant_id": 7, "provder": "simulated", "spec": {"replicas": "two"}}`},
			[]string{
				"tenant_id: must be a string, not a number", "provder: is not a known field", "provider: is required",
				"spec.image: is required", "spec.replicas: must be a whole number, not a string",
			},
		},
		{
			"what only a worker knows",
			[]string{"--input", `{"tenant_id": "acme", "provider": "ecs", "spec": {"image": "nginx"},
			"callbacks": [{"target": "nobody"}, {"target": "temporal", "address": {"workflow": "x"}}]}`},
			[]string{
				`provider: "ecs" is not configured; configured are simulated`, `callbacks[0].target: "nobody" is not configured`,
				"callbacks[1].address.workflow: is not a known field",
			},
		},
	} {
		id := fmt.Sprintf("invalid-%d", i)
		args := append([]string{"workflow", "start", "--type", "ProvisionCompute", "--task-queue", "bellhop", "--workflow-id", id}, tc.args...)
		_, stderr, code := b.run("", "temporal", args...)
		require.Zero(t, code, stderr)
		outcome, err := b.ops.Wait(b.ctx, id)
		require.NoError(t, err, tc.reason)
		require.Equal(t, bellhop.Failed, outcome.State, tc.reason)
		require.Equal(t, bellhop.CodeInvalidOperation, outcome.Error.Code, tc.reason)
		for _, fault := range tc.want {
			require.Contains(t, outcome.Error.Message, fault, tc.reason)
		}
	}

	// Who can be told, is told.
	_, stderr, code := b.run("", "temporal", "workflow", "start", "--type", "UpdateCompute", "--task-queue", "bellhop", "--workflow-id", "told",
		"--input", `{"tenant_id": "acme", "callbacks": [{"target": "temporal", "address": {"workflow_id": "caller"}}]}`)
	require.Zero(t, code, stderr)
	b.until("the caller hears of it", func() bool { return got()["told/failed"].Times == 1 })
}

func TestOperationThroughBellhop(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.work(b.config())
	got := b.call("caller")
	operation := `{tenant_id: acme, resource: web, provider: simulated, spec: {image: "nginx:1.27"},
		provider_config: {ready_after: 300ms}, callbacks: [{target: temporal, address: {workflow_id: caller}}]}`

	_, stderr, code := b.run(operation, "bellhop", "provision", "--id", "web-1", "--wait", "-f", "-")
	require.Zero(t, code, stderr)
	_, stderr, code = b.run(operation, "bellhop", "provision", "--id", "web-1", "-f", "-")
	require.Zero(t, code, "the same again is no error: %s", stderr)
	_, stderr, code = b.run(strings.Replace(operation, "web", "api", 1), "bellhop", "provision", "--id", "web-1", "-f", "-")
	require.Equal(t, 2, code, "another operation under the id is: %s", stderr)
	_, stderr, code = b.run(operation, "bellhop", "update", "--id", "web-2", "--wait", "-f", "-")
	require.Zero(t, code, stderr)
	_, stderr, code = b.run(`{tenant_id: acme, resource: web, provider: simulated}`, "bellhop", "delete", "--id", "web-3", "--wait", "-f", "-")
	require.Zero(t, code, stderr)
	_, stderr, code = b.run(operation, "bellhop", "update", "--id", "web-4", "--wait", "-f", "-")
	require.Equal(t, 1, code, "there is nothing left to update: %s", stderr)

	var status bellhop.Status
	stdout, stderr, code := b.run("", "bellhop", "status", "web-4", "-o", "json")
	require.Zero(t, code, stderr)
	require.NoError(t, json.Unmarshal([]byte(stdout), &status))
	require.Equal(t, bellhop.CodeResourceNotFound, status.Error.Code)
	require.True(t, status.Error.RequiresIntervention)

	_, stderr, code = b.run(strings.Replace(operation, "300ms", "1h", 1), "bellhop", "provision", "--id", "web-5", "-f", "-")
	require.Zero(t, code, stderr)
	_, stderr, code = b.run("", "bellhop", "cancel", "web-5")
	require.Zero(t, code, stderr)
	_, stderr, code = b.run("", "bellhop", "wait", "web-5")
	require.Equal(t, 1, code, stderr)

	removing := strings.Replace(strings.Replace(operation, "300ms", "1h", 1), "callbacks", "on_cancel: remove, callbacks", 1)
	_, stderr, code = b.run(removing, "bellhop", "provision", "--id", "web-6", "-f", "-")
	require.Zero(t, code, stderr)
	b.until("web-6 is running", func() bool { return b.status("web-6").State == bellhop.Running })
	_, stderr, code = b.run("", "bellhop", "cancel", "web-6")
	require.Zero(t, code, stderr)
	_, stderr, code = b.run("", "bellhop", "wait", "web-6")
	require.Equal(t, 1, code, stderr)
	resources, err := b.platform().Resources(b.ctx, "acme")
	require.NoError(t, err)
	require.Empty(t, resources, "what it provisioned was removed")

	for id, state := range map[string]bellhop.State{
		"web-6": bellhop.Cancelled, "web-1": bellhop.Succeeded, "web-2": bellhop.Succeeded, "web-4": bellhop.Failed, "web-5": bellhop.Cancelled,
	} {
		b.until(fmt.Sprintf("the caller hears once that %s is %s", id, state), func() bool {
			return got()[bellhop.CallbackID(id, state)].Times == 1
		})
	}
	_, _, code = b.run("", "bellhop", "status", "nothing")
	require.Equal(t, 3, code)
}

func TestWorkerTellsOfItself(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.work(b.config())
	b.begin("web", "temporal", `{}`) // its caller does not exist
	_, err := b.ops.Wait(b.ctx, "web")
	require.NoError(t, err)
	get := func(path string) (int, string) {
		answer, err := http.Get("http://" + w.Listen + path) //nolint:noctx // the test's own timeout is enough
		require.NoError(t, err)
		defer answer.Body.Close() //nolint:errcheck // it was only read
		body, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		return answer.StatusCode, string(body)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		code, _ := get(path)
		require.Equal(t, http.StatusOK, code, path)
	}
	b.until("the callback is counted", func() bool {
		_, metrics := get("/metrics")
		return strings.Contains(metrics, `state="undeliverable"`)
	})
	_, metrics := get("/metrics")
	for _, name := range []string{
		"bellhop_operations_total", "bellhop_operation_duration_seconds", "bellhop_operations_open", "bellhop_callbacks_total",
		"bellhop_callback_attempts_total", "bellhop_callback_lag_seconds", "bellhop_provider_calls_total",
		"bellhop_provider_call_duration_seconds",
	} {
		require.True(t, strings.Contains(metrics, "\n"+name), "docs/configuration.md promises %s", name)
	}
	require.NoError(t, w.Stop(soon), "SIGTERM ends it in good order: %s", w.Output())
}

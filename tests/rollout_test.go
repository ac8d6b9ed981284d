package tests

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"bellhop"
	"bellhop/workflows"
)

// A configuration is changed by restarting one worker after the other. In between, any worker may be given any operation,
// also one that names what only the new configuration has.
func TestRollout_NewNamesBesideTheOldConfiguration(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got := b.call("caller")
	old := b.config(noBackstop, "targets:\n  temporal: {type: temporal}")
	b.work(old)
	b.work(old)
	b.work(strings.Replace(old, "providers:\n", fmt.Sprintf("providers:\n  second: {type: simulated, path: %s-second}\n", b.state()), 1) +
		"  orders: {type: temporal}\n")
	const n = 12
	var ids []string
	for i := range n {
		id := fmt.Sprintf("rolled-%d", i)
		provider, target := "second", "temporal"
		if i%2 == 0 {
			provider, target = "simulated", "orders"
		}
		_, err := b.ops.Start(b.ctx, id, bellhop.Provision, fmt.Appendf(nil, `{"tenant_id": "acme", "resource": %q, "provider": %q,
			"spec": {"image": "nginx:1.27"}, "provider_config": {"ready_after": "1s"},
			"callbacks": [{"target": %q, "address": {"workflow_id": "caller"}}]}`, id, provider, target))
		require.NoError(t, err)
		ids = append(ids, id)
	}
	// An operation that fails before any worker has looked at its callback.
	_, err := b.client.ExecuteWorkflow(b.ctx, client.StartWorkflowOptions{ID: "rolled-invalid", TaskQueue: workflows.TaskQueue}, "ProvisionCompute", map[string]any{
		"tenant_id": "acme", "provider": "simulated",
		"callbacks": []any{map[string]any{"target": "orders", "address": map[string]any{"workflow_id": "caller"}}},
	})
	require.NoError(t, err)
	for _, id := range ids {
		b.until(id+" has ended", func() bool { return b.status(id).State.Terminal() })
		require.Equal(t, bellhop.Succeeded, b.status(id).State, "%v", b.status(id).Error)
	}
	b.until("all are told", func() bool { return len(got()) == n+1 })
	for id, ring := range got() {
		require.Equal(t, 1, ring.Times, id)
	}
	require.Contains(t, got(), "rolled-invalid/failed")
}

// A name that no worker knows is the caller's mistake, and said within a while.
func TestRollout_UnknownNames(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.work(b.config())
	_, err := b.ops.Start(b.ctx, "typo", bellhop.Provision, []byte(`{"tenant_id": "acme", "provider": "dokcer",
		"spec": {"image": "nginx:1.27"}, "timeout": "6s"}`))
	require.NoError(t, err)
	b.until("it has failed", func() bool { return b.status("typo").State == bellhop.Failed })
	status := b.status("typo")
	require.Equal(t, bellhop.CodeInvalidOperation, status.Error.Code)
	require.Contains(t, status.Error.Message, `"dokcer" is not configured; configured are simulated`)
	require.Less(t, status.FinishedAt.Sub(status.RequestedAt), 6*time.Second, "not as a timeout")
}

// What one tenant asks for, and what takes long, delays nobody else.
func TestPlaces_SlowAsksOfOneTenant(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got := b.call("caller")
	const places = 8
	b.work(b.config(noBackstop, fmt.Sprintf("limits: {activities: %d}", places)))
	start := func(id, tenant, script string) {
		_, err := b.ops.Start(b.ctx, id, bellhop.Provision, fmt.Appendf(nil, `{"tenant_id": %q, "resource": %q, "provider": "simulated",
			"spec": {"image": "nginx:1.27"}, "provider_config": %s, "timeout": "1h",
			"callbacks": [{"target": "temporal", "address": {"workflow_id": "caller"}}]}`, tenant, id, script))
		require.NoError(t, err)
	}
	for i := range 3 * places {
		start(fmt.Sprintf("slow-%d", i), "rival", `{"ask_takes": "10m"}`)
	}
	platform := b.platform()
	rivals := func() int {
		resources, err := platform.Resources(b.ctx, "rival") // an ask takes effect when it begins
		require.NoError(t, err)
		return len(resources)
	}
	b.until("the rival has all places that one tenant may have", func() bool { return rivals() == places/4 })
	for i := range 4 {
		id := fmt.Sprintf("quick-%d", i)
		start(id, "victim", `{"ready_after": "1s"}`)
		b.until(id+" is told", func() bool { return got()[id+"/succeeded"].Times == 1 })
	}
	require.Equal(t, places/4, rivals(), "a tenant has more asks under way than it may")
}

package tests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nexus-rpc/sdk-go/nexus"
	"github.com/stretchr/testify/require"
	nexuspb "go.temporal.io/api/nexus/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"bellhop"
	"bellhop/bridge/temporal/compute"
	"bellhop/tests/peers"
)

// Errand is what a workflow in another namespace asks bellhop for.
type Errand struct {
	// Operation is the Nexus operation, Input its input as it is.
	Operation string
	Input     json.RawMessage
	// Cancel cancels it once it has been started.
	Cancel bool
}

// Return is what the workflow got.
type Return struct {
	Outcome bellhop.Outcome
	Failed  bool
	// Refused is the type of the error of what could not be started.
	Refused   string
	Cancelled bool
	Message   string
}

// errand runs an errand by Nexus, as Go code does that has nothing of bellhop but the contract.
func errand(ctx workflow.Context, e Errand) (Return, error) {
	ctx, cancel := workflow.WithCancel(ctx)
	nexusClient := workflow.NewNexusClient("bellhop", compute.Service)
	future := nexusClient.ExecuteOperation(ctx, e.Operation, e.Input, workflow.NexusOperationOptions{})
	if e.Cancel {
		if err := future.GetNexusOperationExecution().Get(ctx, nil); err != nil {
			return Return{}, err
		}
		cancel()
	}
	var got Return
	err := future.Get(ctx, &got.Outcome)
	if err == nil {
		return got, nil
	}
	got.Message = err.Error()
	got.Cancelled = temporal.IsCanceledError(errors.Unwrap(err))
	if outcome, ok := compute.Failed(err); ok {
		got.Outcome, got.Failed = outcome, true
	}
	if refused, ok := errors.AsType[*nexus.HandlerError](err); ok {
		got.Refused = string(refused.Type)
		got.Message = refused.Error()
	}
	return got, nil
}

// inGo asks as the documentation says.
func inGo(ctx workflow.Context, op bellhop.Operation) (string, error) {
	nexusClient := workflow.NewNexusClient("bellhop", compute.Service)
	var outcome bellhop.Outcome
	err := nexusClient.ExecuteOperation(ctx, compute.Provision, op, workflow.NexusOperationOptions{}).Get(ctx, &outcome)
	if failed, ok := compute.Failed(err); ok && failed.Error.Retryable {
		op.ID, op.ProviderConfig = op.ID+"-again", nil
		err = nexusClient.ExecuteOperation(ctx, compute.Provision, op, workflow.NexusOperationOptions{}).Get(ctx, &outcome)
	}
	if err != nil {
		return "", err
	}
	var status bellhop.Status
	err = nexusClient.ExecuteOperation(ctx, compute.Status, compute.Reference{OperationID: op.ID}, workflow.NexusOperationOptions{}).Get(ctx, &status)
	return fmt.Sprintf("%s %s", status.OperationID, status.State), err
}

// nexusBench has a namespace of callers beside bellhop's own.
type nexusBench struct {
	*bench
	orders client.Client
	config string
	worker *peers.Worker
}

func setupNexus(t *testing.T, config string) *nexusBench {
	t.Helper()
	b := setup(t, "--namespace", "default", "--namespace", "orders")
	n := &nexusBench{bench: b, config: b.config(noBackstop, "nexus: "+config)}
	n.worker = b.work(n.config)
	_, err := b.client.OperatorService().CreateNexusEndpoint(b.ctx, &operatorservice.CreateNexusEndpointRequest{Spec: &nexuspb.EndpointSpec{
		Name: "bellhop",
		Target: &nexuspb.EndpointTarget{Variant: &nexuspb.EndpointTarget_Worker_{
			Worker: &nexuspb.EndpointTarget_Worker{Namespace: "default", TaskQueue: "bellhop"},
		}},
	}})
	require.NoError(t, err)
	n.orders, err = client.DialContext(b.ctx, peers.Encrypt(client.Options{HostPort: b.server.Address, Namespace: "orders", Logger: quiet{}}))
	require.NoError(t, err)
	t.Cleanup(n.orders.Close)
	w := worker.New(n.orders, "orders", worker.Options{})
	w.RegisterWorkflowWithOptions(errand, workflow.RegisterOptions{Name: "errand"})
	w.RegisterWorkflowWithOptions(inGo, workflow.RegisterOptions{Name: "inGo"})
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)
	return n
}

// begin has a workflow in the other namespace run an errand.
func (n *nexusBench) begin(t *testing.T, e Errand) client.WorkflowRun {
	t.Helper()
	run, err := n.orders.ExecuteWorkflow(n.ctx, client.StartWorkflowOptions{TaskQueue: "orders"}, "errand", e)
	require.NoError(t, err)
	return run
}

func (n *nexusBench) await(t *testing.T, run client.WorkflowRun) Return {
	t.Helper()
	ctx, cancel := context.WithTimeout(n.ctx, soon)
	defer cancel()
	var got Return
	require.NoError(t, run.Get(ctx, &got))
	return got
}

func (n *nexusBench) do(t *testing.T, operation, input string) Return {
	t.Helper()
	return n.await(t, n.begin(t, Errand{Operation: operation, Input: json.RawMessage(input)}))
}

// TestNexusCallsIn has workflows in another namespace ask for compute by Nexus.
func TestNexusCallsIn(t *testing.T) {
	t.Parallel()
	n := setupNexus(t, "{}")

	t.Run("Life", func(t *testing.T) {
		for _, step := range []struct {
			operation, body string
			event           bellhop.Event
		}{
			{"Provision", ask("web", `, "operation_id": "web-1", "metadata": {"order": "42"}, "provider_config": {"ready_after": "2s"}`), bellhop.EventProvisioned},
			{"Update", ask("web", ""), bellhop.EventUpdated},
			{"Delete", `{"tenant_id": "acme", "resource": "web", "provider": "simulated"}`, bellhop.EventDeleted},
		} {
			got := n.do(t, step.operation, step.body)
			require.Equal(t, step.event, got.Outcome.Event, got.Message)
			require.Equal(t, n.status(got.Outcome.OperationID).Outcome, got.Outcome)
			if step.operation == "Provision" {
				require.Equal(t, "web-1", got.Outcome.OperationID)
			} else {
				require.Regexp(t, "^nexus-", got.Outcome.OperationID)
			}
		}
		// As everybody's, they are found by what they are about.
		n.until("they are listed", func() bool {
			items, _, err := n.ops.List(n.ctx, bellhop.Filter{Tenant: "acme", Resource: "web", State: bellhop.Succeeded}, 10, nil)
			require.NoError(t, err)
			return len(items) == 3
		})
	})
	t.Run("InGo", func(t *testing.T) {
		run, err := n.orders.ExecuteWorkflow(n.ctx, client.StartWorkflowOptions{TaskQueue: "orders"}, "inGo", bellhop.Operation{
			ID: "go-1", TenantID: "acme", Provider: "simulated", Spec: bellhop.Spec{Image: "nginx:1.27"},
			ProviderConfig: json.RawMessage(`{"fail": {"code": "CAPACITY_UNAVAILABLE", "after": "1s"}}`),
		})
		require.NoError(t, err)
		var got string
		require.NoError(t, run.Get(n.ctx, &got))
		require.Equal(t, "go-1-again succeeded", got)
	})
	t.Run("Failed", func(t *testing.T) {
		body := ask("full", `, "operation_id": "full-1", "provider_config": {"fail": {"code": "CAPACITY_UNAVAILABLE", "after": "1s"}}`)
		for range 2 { // while it runs, and once it has ended
			got := n.do(t, "Provision", body)
			require.True(t, got.Failed, got.Message)
			require.Equal(t, bellhop.EventFailed, got.Outcome.Event)
			require.Equal(t, bellhop.CodeCapacityUnavailable, got.Outcome.Error.Code)
			require.True(t, got.Outcome.Error.Retryable)
		}
	})
	t.Run("Invalid", func(t *testing.T) {
		for _, operation := range []string{"Provision", "Start"} {
			got := n.do(t, operation, `{"tenant": "acme", "operation_type": "provision", "timeout": "soon", "callbacks": [{}]}`)
			require.Equal(t, "BAD_REQUEST", got.Refused, got.Message)
			for _, fault := range []string{"INVALID_OPERATION", "provider: is required", "spec.image: is required", "tenant: is not a known field", "tenant_id: is required", "timeout: must be a duration", "callbacks[0].target: is required"} {
				require.Contains(t, got.Message, fault, operation)
			}
		}
		for _, nonsense := range []string{`[]`, `null`, `"x"`} {
			require.Equal(t, "BAD_REQUEST", n.do(t, "Provision", nonsense).Refused, nonsense)
		}
	})
	t.Run("SameTwice", func(t *testing.T) {
		body := ask("twice", `, "operation_id": "twice-1", "provider_config": {"ready_after": "2s"}`)
		first := n.begin(t, Errand{Operation: "Provision", Input: json.RawMessage(body)})
		second := n.begin(t, Errand{Operation: "Provision", Input: json.RawMessage(body)})
		one, two := n.await(t, first), n.await(t, second)
		require.Equal(t, bellhop.EventProvisioned, one.Outcome.Event, one.Message)
		require.Equal(t, one, two)
		require.Equal(t, one, n.do(t, "Provision", body), "once it has ended the answer is the same")
		for _, operation := range []string{"Provision", "Update"} {
			got := n.do(t, operation, ask("another", `, "operation_id": "twice-1"`))
			require.Equal(t, "CONFLICT", got.Refused, got.Message)
		}
	})
	t.Run("CancelledByItsCaller", func(t *testing.T) {
		body := ask("unwanted", `, "operation_id": "unwanted-1", "on_cancel": "remove", "provider_config": {"ready_after": "1h"}`)
		got := n.await(t, n.begin(t, Errand{Operation: "Provision", Input: json.RawMessage(body), Cancel: true}))
		require.True(t, got.Cancelled, got.Message)
		require.Equal(t, bellhop.EventCancelled, got.Outcome.Event, got.Message)
		require.Equal(t, bellhop.Cancelled, n.status("unwanted-1").State)
		got = n.do(t, "Provision", body)
		require.True(t, got.Cancelled, got.Message)
		require.Equal(t, bellhop.EventCancelled, got.Outcome.Event, "once it has ended the answer is the same")
	})
	t.Run("StartStatusCancel", func(t *testing.T) {
		body := ask("slow", `, "operation_id": "slow-1", "operation_type": "provision", "provider_config": {"ready_after": "1h"}`)
		for range 2 {
			got := n.do(t, "Start", body)
			require.Equal(t, "slow-1", got.Outcome.OperationID, got.Message)
		}
		reference := `{"operation_id": "slow-1"}`
		n.until("it runs", func() bool { return n.do(t, "Status", reference).Outcome.State == bellhop.Running })
		require.Empty(t, n.do(t, "Cancel", reference).Message)
		n.until("it is cancelled", func() bool { return n.do(t, "Status", reference).Outcome.State == bellhop.Cancelled })
		require.Equal(t, "CONFLICT", n.do(t, "Cancel", reference).Refused)
		for _, operation := range []string{"Status", "Cancel"} {
			require.Equal(t, "NOT_FOUND", n.do(t, operation, `{"operation_id": "nothing"}`).Refused)
		}
	})
}

// TestNexusCallsInForItsTenants has workflows ask for the compute of a tenant that is not theirs.
func TestNexusCallsInForItsTenants(t *testing.T) {
	t.Parallel()
	n := setupNexus(t, "{tenants: [acme, acme-labs]}")
	require.Equal(t, bellhop.EventProvisioned, n.do(t, "Provision", ask("web", `, "operation_id": "web-1"`)).Outcome.Event)
	require.Equal(t, bellhop.Succeeded, n.do(t, "Status", `{"operation_id": "web-1"}`).Outcome.State)
	require.Equal(t, "CONFLICT", n.do(t, "Cancel", `{"operation_id": "web-1"}`).Refused, "it has ended")

	rivals := []byte(strings.Replace(ask("web", `, "provider_config": {"ready_after": "1h"}`), "acme", "rival", 1))
	_, err := n.ops.Start(n.ctx, "rival-1", bellhop.Provision, rivals)
	require.NoError(t, err)
	for _, operation := range []string{"Provision", "Update", "Start"} {
		body := strings.Replace(ask("web", `, "operation_id": "rival-2", "operation_type": "provision"`), "acme", "rival", 1)
		if operation == "Update" {
			body = strings.Replace(body, `"provision"`, `"update"`, 1)
		}
		got := n.do(t, operation, body)
		require.Equal(t, "BAD_REQUEST", got.Refused, got.Message)
		require.Contains(t, got.Message, "tenant_id: must be one that may be acted for from here: acme, acme-labs")
	}
	for _, operation := range []string{"Status", "Cancel"} {
		none, others := n.do(t, operation, `{"operation_id": "nobody-1"}`), n.do(t, operation, `{"operation_id": "rival-1"}`)
		require.Equal(t, "NOT_FOUND", others.Refused)
		require.Equal(t, strings.ReplaceAll(none.Message, "nobody", "rival"), others.Message, "another's operation is none")
	}
	require.Equal(t, bellhop.Running, n.status("rival-1").State)
	_, err = n.ops.Status(n.ctx, "rival-2")
	require.ErrorIs(t, err, bellhop.ErrNotFound)
}

// TestNexusCallsInThroughCrashes kills the worker while callers wait.
func TestNexusCallsInThroughCrashes(t *testing.T) {
	t.Parallel()
	n := setupNexus(t, "{}")
	const orders = 5
	var runs []client.WorkflowRun
	for i := range orders {
		body := ask(fmt.Sprintf("order-%d", i), `, "provider_config": {"ready_after": "4s"}`)
		runs = append(runs, n.begin(t, Errand{Operation: "Provision", Input: json.RawMessage(body)}))
	}
	n.until("one has been started", func() bool { return n.operations() > 0 })
	n.worker.Kill()
	n.work(n.config)
	seen := map[string]bool{}
	for _, run := range runs {
		got := n.await(t, run)
		require.Equal(t, bellhop.EventProvisioned, got.Outcome.Event, got.Message)
		require.False(t, seen[got.Outcome.OperationID])
		seen[got.Outcome.OperationID] = true
	}
	require.Equal(t, orders, n.operations(), "an operation was started twice")
}

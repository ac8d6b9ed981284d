package tests

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	failurepb "go.temporal.io/api/failure/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"google.golang.org/protobuf/encoding/protowire"

	"bellhop"
	"bellhop/tests/peers"
	"bellhop/workflows"
)

// prey are victims' workflows in all phases, each with an activity that is pending.
type prey struct {
	*bench
	worker *peers.Worker
	hook   *counter
	waiter client.WorkflowRun
	// ids are the workflows, by what is pending in them.
	ids map[string]string
}

func preyFor(t *testing.T) *prey {
	t.Helper()
	b := setup(t)
	p := &prey{bench: b, hook: b.counter(), ids: map[string]string{
		"deliver": "V1", "heartbeat": "op-waiter", "ask": "V3", "remove": "V4", "watch": workflows.WatchID(workflows.TaskQueue, "simulated"),
	}}
	p.hook.blocked.Store(true)
	p.worker = b.work(b.config("targets:\n  temporal: {type: temporal}\n" + b.shop().target("hook", p.hook.URL)))
	start := func(id, members string) {
		_, err := b.ops.Start(b.ctx, id, bellhop.Provision, []byte(`{"tenant_id": "victim", "resource": "`+id+`", "provider": "simulated",
			"spec": {"image": "nginx:1.27", "ports": [{"name": "http", "container_port": 80}]}, `+members+`}`))
		require.NoError(b, err)
	}
	start("V1", `"callbacks": [{"target": "hook"}]`)
	start("V3", `"provider_config": {"ask_takes": "20s"}, "callbacks": [{"target": "hook"}]`)
	start("V4", `"provider_config": {"ready_after": "1h", "ask_takes": "4s"}, "on_cancel": "remove"`)
	p.waiter = b.wait("waiter", `{"ready_after": "30s"}`, map[string]any{"heartbeat": "1s", "on_abandoned": "cancel"})
	b.until("V4 runs", func() bool { return b.status("V4").State == bellhop.Running })
	require.NoError(b, b.ops.Cancel(b.ctx, "V4"))
	for kind, id := range p.ids {
		b.until(kind+" is pending", func() bool { return p.pending(id) != "" })
	}
	b.until("V1 is blocked", func() bool { return b.status("V1").Callbacks[0].State == bellhop.ReceiptBlocked })
	return p
}

// pending is the id of a workflow's pending activity, which nobody could guess.
func (p *prey) pending(id string) string {
	found, err := p.client.DescribeWorkflowExecution(p.ctx, id, "")
	if err != nil || len(found.GetPendingActivities()) == 0 {
		return ""
	}
	return found.GetPendingActivities()[0].GetActivityId()
}

// unharmed waits until the victims have ended as they should.
func (p *prey) unharmed() {
	p.Helper()
	p.hook.blocked.Store(false)
	for _, id := range []string{"V1", "V3"} {
		p.until(id+" is delivered", func() bool { // what was blocked waits for minutes otherwise
			_, err := p.ops.Redeliver(p.ctx, id, "")
			require.NoError(p, err)
			return p.status(id).Callbacks[0].State == bellhop.ReceiptAcknowledged
		})
		status := p.closed(id)
		require.Equal(p, bellhop.Succeeded, status.State, "%s: %v", id, status.Error)
		require.Equal(p, bellhop.ReceiptAcknowledged, status.Callbacks[0].State, status.Callbacks[0].LastError)
		require.Contains(p, status.Endpoints[0].Host, "victim")
		require.Equal(p, "victim", status.TenantID)
	}
	var outcome bellhop.Outcome
	require.NoError(p, p.waiter.Get(p.ctx, &outcome))
	require.Equal(p, bellhop.Succeeded, outcome.State)
	status := p.closed("V4")
	require.Equal(p, bellhop.Cancelled, status.State)
	require.Contains(p, status.Error.Message, "and what existed was removed")
	require.Equal(p, enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, p.described(p.ids["watch"]).GetWorkflowExecutionInfo().GetStatus())
}

func (p *prey) described(id string) *workflowservice.DescribeWorkflowExecutionResponse {
	p.Helper()
	found, err := p.client.DescribeWorkflowExecution(p.ctx, id, "")
	require.NoError(p, err)
	return found
}

// token is a task token as Temporal's server makes it, of an activity that is pending.
func (p *prey) token(id string) string {
	p.Helper()
	namespace, err := p.client.WorkflowService().DescribeNamespace(p.ctx, &workflowservice.DescribeNamespaceRequest{Namespace: "default"})
	require.NoError(p, err)
	found := p.described(id)
	activity := found.GetPendingActivities()[0]
	scheduled := int64(0)
	events := p.client.GetWorkflowHistory(p.ctx, id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		require.NoError(p, err)
		if event.GetActivityTaskScheduledEventAttributes().GetActivityId() == activity.GetActivityId() {
			scheduled = event.GetEventId()
		}
	}
	var token []byte
	text := func(number protowire.Number, value string) {
		token = protowire.AppendString(protowire.AppendTag(token, number, protowire.BytesType), value)
	}
	integer := func(number protowire.Number, value int64) {
		token = protowire.AppendVarint(protowire.AppendTag(token, number, protowire.VarintType), uint64(value))
	}
	text(1, namespace.GetNamespaceInfo().GetId())
	text(2, id)
	text(3, found.GetWorkflowExecutionInfo().GetExecution().GetRunId())
	integer(4, scheduled)
	integer(5, int64(activity.GetAttempt()))
	text(6, activity.GetActivityId())
	text(7, "a-callers-own-type")
	return base64.StdEncoding.EncodeToString(token)
}

// C1 and S0: whatever is put into an address, in every form and with whatever can be known, nothing of bellhop's own is
// reached. The attacker knows even what cannot be guessed.
func TestWalls_Addresses(t *testing.T) {
	t.Parallel()
	p := preyFor(t)
	guesses := map[string]string{"V1": "deliver-0-succeeded", "op-waiter": "heartbeat-0", "V3": "5", "V4": "11", p.ids["watch"]: "5"}
	attacks, refused := 0, 0
	attack := func(address map[string]string) {
		t.Helper()
		attacks++
		text, err := json.Marshal(address)
		require.NoError(t, err)
		for i, script := range []string{`{}`, `{"fail": {"code": "QUOTA_EXCEEDED", "at": "ask"}}`} {
			id := fmt.Sprintf("rival-%d-%d", attacks, i)
			_, err = p.ops.Start(p.ctx, id, bellhop.Provision, []byte(fmt.Sprintf(`{"tenant_id": "rival", "resource": %q, "provider": "simulated",
				"spec": {"image": "evil:1", "ports": [{"name": "http", "container_port": 80}]}, "provider_config": %s,
				"callbacks": [{"target": "temporal", "address": %s}]}`, id, script, text)))
			require.NoError(t, err)
			status := p.closed(id)
			require.Equal(t, bellhop.ReceiptUndeliverable, status.Callbacks[0].State, "%s: %s", text, status.Callbacks[0].LastError)
			require.Regexp(t, "bellhop's own|INVALID_OPERATION|must be that of the caller|must not be", status.Callbacks[0].LastError)
			refused++
		}
	}
	for _, kind := range []string{"watch", "ask", "remove", "heartbeat", "deliver"} {
		id := p.ids[kind]
		found := p.described(id)
		run, pending := found.GetWorkflowExecutionInfo().GetExecution().GetRunId(), found.GetPendingActivities()[0].GetActivityId()
		require.NotEqual(t, guesses[id], pending)
		require.Regexp(t, `-[0-9a-f]{16}$`, pending)
		attack(map[string]string{"workflow_id": id, "activity_id": guesses[id]})
		attack(map[string]string{"workflow_id": id, "activity_id": pending})
		attack(map[string]string{"workflow_id": id, "run_id": run, "activity_id": pending})
		attack(map[string]string{"workflow_id": id, "signal": "observed"})
		attack(map[string]string{"workflow_id": id, "run_id": run, "signal": "flood"})
		attack(map[string]string{"workflow_id": id})
		attack(map[string]string{"task_token": p.token(id)})
	}
	t.Logf("%d addresses, %d attacks, all refused", attacks, refused)
	for kind, id := range p.ids {
		events := p.client.GetWorkflowHistory(p.ctx, id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			event, err := events.Next()
			require.NoError(t, err)
			require.NotContains(t, event.String(), "rival", "something of the attacker's got into %s of %s", kind, id)
		}
	}
	p.unharmed()
	require.NotContains(t, p.metrics(p.worker), "bellhop_forged_results_total{")
}

// Somebody gets past the walls before, and tells Temporal results for bellhop's own activities. No workflow believes them.
func TestWalls_ForgedResults(t *testing.T) {
	t.Parallel()
	p := preyFor(t)
	evil, err := json.Marshal(bellhop.Outcome{
		SchemaVersion: 1, CallbackID: "rival-1/succeeded", Event: bellhop.EventProvisioned, OperationID: "rival-1", OperationType: bellhop.Provision,
		TenantID: "rival", State: bellhop.Succeeded, Endpoints: []bellhop.Endpoint{{Name: "http", Host: "evil", Port: 80}},
		Metadata: map[string]string{"phase": "ready", "reason": "gone"},
	})
	require.NoError(t, err)
	body, err := converter.GetDefaultDataConverter().ToPayloads(json.RawMessage(evil))
	require.NoError(t, err)
	forged := 0
	forge := func(kind string, fail bool) {
		t.Helper()
		id := p.ids[kind]
		activity := ""
		p.until(kind+" is pending", func() bool { activity = p.pending(id); return activity != "" })
		if fail {
			_, err = p.client.WorkflowService().RespondActivityTaskFailedById(p.ctx, &workflowservice.RespondActivityTaskFailedByIdRequest{
				Namespace: "default", WorkflowId: id, ActivityId: activity,
				Failure: &failurepb.Failure{Message: "no", FailureInfo: &failurepb.Failure_ApplicationFailureInfo{
					ApplicationFailureInfo: &failurepb.ApplicationFailureInfo{Type: "QUOTA_EXCEEDED", NonRetryable: true, Details: body},
				}},
			})
		} else {
			_, err = p.client.WorkflowService().RespondActivityTaskCompletedById(p.ctx, &workflowservice.RespondActivityTaskCompletedByIdRequest{
				Namespace: "default", WorkflowId: id, ActivityId: activity, Result: body,
			})
		}
		require.NoError(t, err)
		forged++
		p.until(kind+" is repeated under another id", func() bool { now := p.pending(id); return now != "" && now != activity })
	}
	forge("remove", false) // repeated, it is done at once
	for _, kind := range []string{"ask", "heartbeat", "deliver", "watch"} {
		forge(kind, false)
		if kind == "ask" || kind == "watch" { // the others wait for their next attempt, and cannot be failed
			forge(kind, true)
		}
	}
	p.unharmed()
	counted := 0
	metrics := p.metrics(p.worker)
	for _, found := range regexp.MustCompile(`bellhop_forged_results_total\{[^}]*activity="(\w+)"[^}]*\} (\d+)`).FindAllStringSubmatch(metrics, -1) {
		n, err := strconv.Atoi(found[2])
		require.NoError(t, err)
		counted += n
	}
	require.Equal(t, forged, counted, "what was forged is counted")
	for _, activity := range []string{"deliver", "heartbeat", "provision", "delete", "watch"} {
		require.Contains(t, metrics, `activity="`+activity+`"`)
	}
}

// L2 and S2: a refresh, a cancel and a redelivery touch operations only.
func TestWalls_CallersAreNoOperations(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.work(b.config())
	b.call("a-caller")
	const before = 4
	b.until("the caller waits", func() bool { return b.events("a-caller") == before })
	for _, id := range []string{"a-caller", workflows.WatchID(workflows.TaskQueue, "simulated")} {
		_, err := b.ops.Refresh(b.ctx, id)
		require.ErrorIs(t, err, bellhop.ErrNotFound)
		require.ErrorIs(t, b.ops.Cancel(b.ctx, id), bellhop.ErrNotFound)
		_, err = b.ops.Redeliver(b.ctx, id, "")
		require.ErrorIs(t, err, bellhop.ErrNotFound)
	}
	require.Equal(t, before, b.events("a-caller"), "a caller's workflow was touched")
}

// H4: what was begun is told to all of its callbacks, however large the outcome is.
func TestWalls_LargeOutcomes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.work(b.config(noBackstop))
	const callers = 16
	var callbacks []string
	for i := range callers {
		id := fmt.Sprintf("caller-%d", i)
		_, err := b.client.ExecuteWorkflow(b.ctx, client.StartWorkflowOptions{ID: id, TaskQueue: "nobody"}, "caller")
		require.NoError(t, err)
		callbacks = append(callbacks, fmt.Sprintf(`{"target": "temporal", "address": {"workflow_id": %q}}`, id))
	}
	var ports []string
	for i := range bellhop.MaxPorts {
		ports = append(ports, fmt.Sprintf(`{"name": "p%d", "container_port": %d}`, i, 1000+i))
	}
	name := strings.Repeat("n", 80<<10)
	for id, row := range map[string]struct {
		state bellhop.State
		input string
	}{
		"most-that-is-taken": {bellhop.Succeeded, fmt.Sprintf(`{"tenant_id": "acme", "resource": "large", "provider": "simulated",
			"spec": {"image": "nginx:1.27", "replicas": 1000, "ports": [%s]}, "metadata": {"note": %q}, "callbacks": [%s]}`,
			strings.Join(ports, ","), strings.Repeat("€", 5400), strings.Join(callbacks, ","))},
		// Started past every check, as the temporal CLI does. The outcome repeats the names.
		"more-than-is-taken": {bellhop.Failed, fmt.Sprintf(`{"tenant_id": %q, "resource": %q, "provider": %q, "spec": {"image": "nginx:1.27"}, "callbacks": [%s]}`,
			name, name, name, strings.Join(callbacks, ","))},
	} {
		_, err := b.client.ExecuteWorkflow(b.ctx, client.StartWorkflowOptions{ID: id, TaskQueue: workflows.TaskQueue}, "ProvisionCompute", json.RawMessage(row.input))
		require.NoError(t, err)
		status := b.closed(id)
		require.Equal(t, row.state, status.State, "%v", status.Error)
		require.Len(t, status.Callbacks, callers)
		for i, receipt := range status.Callbacks {
			require.Equal(t, bellhop.ReceiptAcknowledged, receipt.State, "%s %d: %s", id, i, receipt.LastError)
		}
		asked := map[int64]int{}
		events := b.client.GetWorkflowHistory(b.ctx, id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			event, err := events.Next()
			require.NoError(t, err)
			if scheduled := event.GetActivityTaskScheduledEventAttributes(); scheduled != nil {
				asked[scheduled.GetWorkflowTaskCompletedEventId()] += size(scheduled.GetInput())
			}
		}
		for _, bytes := range asked {
			require.Less(t, bytes, 2<<20, "one workflow task asked for too much")
		}
		text, err := json.Marshal(status.Outcome)
		require.NoError(t, err)
		t.Logf("%s: the outcome has %d bytes; asked at once %v", id, len(text), asked)
	}
}

func size(payloads *commonpb.Payloads) int {
	n := 0
	for _, payload := range payloads.GetPayloads() {
		n += len(payload.GetData())
	}
	return n
}

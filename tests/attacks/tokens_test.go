package attacks

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	failurepb "go.temporal.io/api/failure/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/protobuf/encoding/protowire"

	"bellhop"
)

func (h *harness) must(err error) {
	h.Helper()
	require.NoError(h, err)
}

// rawOrder is an operation as the input of a workflow.
func rawOrder(order string) json.RawMessage { return json.RawMessage(order) }

func listing(query string) *workflowservice.ListWorkflowExecutionsRequest {
	return &workflowservice.ListWorkflowExecutionsRequest{Query: query, PageSize: 1000}
}

// elsewhere starts a bellhop in a namespace of its own, once.
func (s *stage) elsewhere() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fleets["elsewhere"] == nil {
		s.fleets["elsewhere"] = s.work(fmt.Sprintf("providers:\n  simulated: {type: simulated, path: %s}\n",
			filepath.Join(s.folder, "elsewhere.db")), "TEMPORAL_NAMESPACE="+elsewhere)
	}
}

// taskToken makes a task token as the server does, of what an outsider can know or guess. They are not signed.
func (h *harness) taskToken(workflowID, runID string, scheduled, started int64, attempt int32, activityID, activityType string) string {
	h.Helper()
	found, err := h.client.WorkflowService().DescribeNamespace(h.ctx, &workflowservice.DescribeNamespaceRequest{Namespace: own})
	h.must(err)
	var raw []byte
	text := func(field protowire.Number, value string) {
		if value != "" {
			raw = protowire.AppendTag(raw, field, protowire.BytesType)
			raw = protowire.AppendString(raw, value)
		}
	}
	number := func(field protowire.Number, value int64) {
		if value != 0 {
			raw = protowire.AppendTag(raw, field, protowire.VarintType)
			raw = protowire.AppendVarint(raw, uint64(value)) //nolint:gosec // as the wire has it
		}
	}
	text(1, found.GetNamespaceInfo().GetId())
	text(2, workflowID)
	text(3, runID)
	number(4, scheduled)
	number(5, int64(attempt))
	text(6, activityID)
	text(8, activityType)
	number(10, started)
	return base64.StdEncoding.EncodeToString(raw)
}

// scheduled finds the event that scheduled an activity.
func (h *harness) scheduled(workflowID, activityID string) int64 {
	h.Helper()
	events := h.client.GetWorkflowHistory(h.ctx, workflowID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		h.must(err)
		if event.GetActivityTaskScheduledEventAttributes().GetActivityId() == activityID {
			return event.GetEventId()
		}
	}
	h.Fatalf("no event schedules %s", activityID)
	return 0
}

// byToken addresses an activity by a task token that the rival made itself.
func byToken(activityType, script string, token func(h *harness, workflowID string, info *workflowpb.PendingActivityInfo) string) forge {
	return func(h *harness, workflowID string) string {
		info := h.pending(workflowID, activityType)
		return h.strike(script, callback("temporal", fmt.Sprintf(`{"task_token": %q}`, token(h, workflowID, info)), ""))
	}
}

// exact is a token with everything in it.
func exact(h *harness, workflowID string, info *workflowpb.PendingActivityInfo) string {
	return h.taskToken(workflowID, h.run(workflowID), h.scheduled(workflowID, info.GetActivityId()), 0, info.GetAttempt(), info.GetActivityId(), info.GetActivityType().GetName())
}

// byName is a token with the names alone, as the server makes for calls by id.
func byName(h *harness, workflowID string, info *workflowpb.PendingActivityInfo) string {
	return h.taskToken(workflowID, "", 0, 0, 0, info.GetActivityId(), "")
}

func tokenAttacks() []attack {
	return []attack{
		{name: "token-deliver", finding: "S0", reason: "a callback is lost", run: losesCallback(8*time.Second, byToken("Deliver", `{}`, exact))},
		{name: "token-deliver-by-name", finding: "S0", reason: "a callback is lost", run: losesCallback(0, byToken("Deliver", `{}`, byName))},
		{name: "token-deliver-fails", finding: "S0", reason: "a callback is lost", run: losesCallback(8*time.Second, byToken("Deliver", failing, exact))},
		{name: "token-ask", finding: "S0", reason: "an operation fails, or has another's endpoints", run: spoilsAsk(byToken("Provision", `{}`, exact))},
		{name: "token-ask-by-name", finding: "S0", reason: "an operation fails, or has another's endpoints", run: spoilsAsk(byToken("Provision", `{}`, byName))},
		{name: "token-ask-brute-force", finding: "S0", reason: "an operation fails, or has another's endpoints", run: spoilsAsk(func(h *harness, workflowID string) string {
			var callbacks []string
			for i := int64(1); i <= 16; i++ { // whatever the ids are made of, the event that schedules the ask is one of the first
				callbacks = append(callbacks, callback("temporal", fmt.Sprintf(`{"task_token": %q}`, h.taskToken(workflowID, "", i, 0, 1, "", "")), ""))
			}
			return h.strike(`{}`, callbacks...)
		})},
		{name: "token-heartbeat", finding: "S0", reason: "an operation is cancelled and its compute removed", run: abandons(byToken("Heartbeat", `{}`, byName))},
		{name: "token-watch", finding: "S0", reason: "nobody's operation is told what was observed", run: endsWatch(byToken("Watch", `{}`, exact))},
		{name: "token-of-a-workflow-task", finding: "S0", reason: "a worker is killed by what it cannot read", run: oddTokens},
	}
}

// oddTokens sends tokens that are none.
func oddTokens(h *harness) (bool, string) {
	var callbacks []string
	for _, raw := range []string{
		"x", "\x0a\xff\xff\xff\xff\x0f", strings.Repeat("\x0a\x01a", 500), "\x72\x05\x0a\x03abc", strings.Repeat("\xff", 64), "\x00", "\x52\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
	} {
		callbacks = append(callbacks, callback("temporal", fmt.Sprintf(`{"task_token": %q}`, base64.StdEncoding.EncodeToString([]byte(raw))), ""))
	}
	told := h.strike(`{}`, callbacks...)
	id := h.begin(`{}`, "")
	status := h.ended(id)
	return status.State != bellhop.Succeeded, fmt.Sprintf("an operation of the victim's after it: %s; the rival was told: %s", status.State, told)
}

// forgedResult answers an activity of the victim's directly, as if every wall before the workflow had fallen: with what the
// rival's operation would send.
func forgedResult(workflowID string, info *workflowpb.PendingActivityInfo, h *harness, body string) string {
	_, err := h.client.WorkflowService().RespondActivityTaskCompletedById(h.ctx, &workflowservice.RespondActivityTaskCompletedByIdRequest{
		Namespace: own, WorkflowId: workflowID, ActivityId: info.GetActivityId(), Result: payloads(body),
	})
	return fmt.Sprintf("%v", err)
}

// believed answers an activity with a body, or fails it.
func believed(activityType, body string) forge {
	return func(h *harness, workflowID string) string {
		return forgedResult(workflowID, h.pending(workflowID, activityType), h, body)
	}
}

func believedFailure(activityType, kind string) forge {
	return func(h *harness, workflowID string) string {
		info := h.pending(workflowID, activityType)
		_, err := h.client.WorkflowService().RespondActivityTaskFailedById(h.ctx, &workflowservice.RespondActivityTaskFailedByIdRequest{
			Namespace: own, WorkflowId: workflowID, ActivityId: info.GetActivityId(),
			Failure: &failurepb.Failure{Message: "forged", FailureInfo: &failurepb.Failure_ApplicationFailureInfo{
				ApplicationFailureInfo: &failurepb.ApplicationFailureInfo{Type: kind, NonRetryable: true, Details: &commonpb.Payloads{}},
			}},
		})
		return fmt.Sprintf("%v", err)
	}
}

// outcomes of the rival's, as bellhop sends them.
const (
	succeededOutcome = `{"schema_version":1,"callback_id":"rival:x/succeeded","event":"compute-provisioned","operation_id":"rival:x",` +
		`"operation_type":"provision","tenant_id":"rival","resource":"x","provider":"simulated","state":"succeeded","endpoints":[{"name":"http","host":"x.rival.simulated.invalid","port":80}]}`
	failedOutcome = `{"schema_version":1,"callback_id":"rival:x/failed","event":"compute-failed","operation_id":"rival:x","operation_type":"provision",` +
		`"tenant_id":"rival","resource":"x","provider":"simulated","state":"failed","error":{"code":"QUOTA_EXCEEDED","message":"forged","retryable":false}}`
)

func believedAttacks() []attack {
	reason := "a workflow believes a result that does not fit what it asked for"
	return []attack{
		{name: "believed-deliver", finding: "C1", reason: reason, run: losesCallback(8*time.Second, believed("Deliver", succeededOutcome))},
		{name: "believed-deliver-failed", finding: "C1", reason: reason, run: losesCallback(8*time.Second, believed("Deliver", failedOutcome))},
		{name: "believed-deliver-error", finding: "C1", reason: reason, run: losesCallback(8*time.Second, believedFailure("Deliver", "QUOTA_EXCEEDED"))},
		{name: "believed-deliver-nothing", finding: "C1", reason: reason, run: losesCallback(8*time.Second, believed("Deliver", `null`))},
		{name: "believed-deliver-garbage", finding: "C1", reason: reason, run: losesCallback(8*time.Second, believed("Deliver", `"x"`))},
		{name: "believed-ask", finding: "C1", reason: reason, run: spoilsAsk(believed("Provision", succeededOutcome))},
		{name: "believed-ask-failed", finding: "C1", reason: reason, run: spoilsAsk(believed("Provision", failedOutcome))},
		{name: "believed-ask-error", finding: "C1", reason: reason, run: spoilsAsk(believedFailure("Provision", "CAPACITY_UNAVAILABLE"))},
		{name: "believed-ask-garbage", finding: "C1", reason: reason, run: spoilsAsk(believed("Provision", `[]`))},
		{name: "believed-heartbeat", finding: "C1", reason: reason, run: abandons(believed("Heartbeat", succeededOutcome))},
		{name: "believed-heartbeat-error", finding: "C1", reason: reason, run: abandons(believedFailure("Heartbeat", "CANCELLED"))},
		{name: "believed-watch", finding: "C1", reason: "nobody's operation is told what was observed", run: endsWatchForGood(believedFailure("Watch", "QUOTA_EXCEEDED"))},
	}
}

// endsWatchForGood tries to have a watch end that nobody begins again.
func endsWatchForGood(try forge) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		id := fmt.Sprintf("bellhop-watch/watched-%d", h.watches.Add(1)-1)
		told := try(h, id)
		if !h.within(10*time.Second, func() bool {
			infos, info := h.describe(id)
			return info.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING && len(infos) == 1 && infos[0].GetLastHeartbeatTime() != nil
		}) {
			_, info := h.describe(id)
			return true, fmt.Sprintf("the watch is %s and does not come back", info.GetStatus())
		}
		return false, "the watch goes on; the server said: " + told
	}
}

func execution(id string) *commonpb.WorkflowExecution {
	return &commonpb.WorkflowExecution{WorkflowId: id}
}

package temporal_test

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/protobuf/encoding/protowire"

	"bellhop"
	"bellhop/bridge"
	"bellhop/bridge/temporal"
	"bellhop/internal/own"
)

const (
	open   = enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
	closed = enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED
)

// ways are all ways to call at an address of each form.
func ways(s *stage) map[string]func(context.Context, json.RawMessage) bridge.Result {
	told := func(state bellhop.State) func(context.Context, json.RawMessage) bridge.Result {
		return func(ctx context.Context, address json.RawMessage) bridge.Result {
			return s.Deliver(ctx, address, message(state))
		}
	}
	return map[string]func(context.Context, json.RawMessage) bridge.Result{
		"succeeded": told(bellhop.Succeeded), "failed": told(bellhop.Failed), "heartbeat": s.Heartbeat,
	}
}

// No form of address reaches a workflow of bellhop's, whatever it is called and whichever of its runs is meant.
func TestDeliver_BellhopsOwn(t *testing.T) {
	s := setup(t)
	s.service.found = func(*workflowservice.DescribeWorkflowExecutionRequest) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
		return nil, serviceerror.NewNotFound("workflow not found for ID: V1")
	}
	nowhere := s.Deliver(t.Context(), json.RawMessage(`{"workflow_id": "V1"}`), message(bellhop.Succeeded)).Err.Error()
	forms := map[string]json.RawMessage{
		"signal":    json.RawMessage(`{"workflow_id": "V1", "signal": "anything"}`),
		"event":     json.RawMessage(`{"workflow_id": "V1"}`),
		"run":       json.RawMessage(`{"workflow_id": "V1", "run_id": "r-1", "signal": "observed"}`),
		"activity":  json.RawMessage(`{"workflow_id": "V1", "activity_id": "deliver-0-succeeded"}`),
		"pinned":    json.RawMessage(`{"workflow_id": "V1", "run_id": "r-1", "activity_id": "5"}`),
		"token":     byToken(taskToken("the-shops-id", "V1", "r-1")),
		"elsewhere": byToken(taskToken("another-namespace", "V1", "r-1")),
	}
	for _, status := range []enumspb.WorkflowExecutionStatus{open, closed} {
		for _, workflowType := range own.Types() {
			s.service.found = finds(workflowType, status)
			for form, address := range forms {
				for way, call := range ways(s) {
					got := call(t.Context(), address)
					require.Equal(t, bridge.Undeliverable, got.Verdict, "%s %s %s: %+v", workflowType, form, way, got)
					require.EqualError(t, got.Err, nowhere, "%s %s: it says no more than of a workflow that there is not", workflowType, form)
				}
			}
		}
	}
	require.Empty(t, s.service.requests(), "bellhop's own was called")
}

// What no address may have is refused at the door, and given up where it got through before there was the rule.
func TestDeliver_ReservedAddresses(t *testing.T) {
	s := setup(t)
	standalone := protowire.AppendBytes(protowire.AppendTag(taskToken("ns", "V1", "r-1"), 14, protowire.BytesType), []byte("component"))
	sound := taskToken("ns", "V1", "r-1")
	twice := append(append([]byte{}, sound...), protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), "mine")...)
	number := protowire.AppendVarint(protowire.AppendTag(slices.Clip(sound), 3, protowire.VarintType), 7)
	for name, row := range map[string]struct{ address, fault string }{
		"watch":       {`{"workflow_id": "bellhop-watch/simulated", "activity_id": "5"}`, "address.workflow_id: must be that of the caller"},
		"redelivery":  {`{"workflow_id": "bellhop-redeliver/V1/deliver-0-succeeded"}`, "address.workflow_id: must be that of the caller"},
		"orphans":     {`{"workflow_id": "bellhop-orphans/X"}`, "address.workflow_id: must be that of the caller"},
		"temporal's":  {`{"workflow_id": "w", "signal": "__temporal_x"}`, "address.signal: must not be one of Temporal's own"},
		"long":        {`{"workflow_id": "` + strings.Repeat("w", 1001) + `"}`, "address.workflow_id: has 1001 bytes; Temporal takes 1000 at most"},
		"long signal": {`{"workflow_id": "w", "signal": "` + strings.Repeat("s", 2000) + `"}`, "address.signal: has 2000 bytes"},
		"garbage":     {string(byToken([]byte("garbage"))), "address.task_token: is no task token"},
		"empty":       {string(byToken(protowire.AppendVarint(protowire.AppendTag(nil, 4, protowire.VarintType), 5))), "address.task_token: is no task token"},
		"no run":      {string(byToken(taskToken("ns", "V1", ""))), "address.task_token: is no task token"},
		"no workflow": {string(byToken(taskToken("ns", "", "r-1"))), "address.task_token: is no task token"},
		"no ns":       {string(byToken(taskToken("", "V1", "r-1"))), "address.task_token: is no task token"},
		"two ways":    {string(byToken(standalone)), "address.task_token: is no task token"},
		"twice":       {string(byToken(twice)), "address.task_token: is no task token"},
		"other form":  {string(byToken(number)), "address.task_token: is no task token"},
		"cut off":     {string(byToken(sound[:len(sound)-4])), "address.task_token: is no task token"},
	} {
		callback := bellhop.Callback{Address: json.RawMessage(row.address), States: []bellhop.State{bellhop.Succeeded}}
		require.ErrorContains(t, s.Check(callback), row.fault, name)
		for way, call := range ways(s) {
			got := call(t.Context(), callback.Address)
			require.Equal(t, bridge.Undeliverable, got.Verdict, "%s %s: %+v", name, way, got)
			require.NotContains(t, got.Err.Error(), bearer)
		}
	}
	require.Empty(t, s.service.requests())

	observed := bellhop.Callback{Address: json.RawMessage(`{"workflow_id": "w", "signal": "observed"}`), States: []bellhop.State{bellhop.Succeeded}}
	require.ErrorContains(t, s.Check(observed), `address.signal: must not be "observed"`)
	require.Equal(t, bridge.Acknowledged, s.Deliver(t.Context(), observed.Address, message(bellhop.Succeeded)).Verdict,
		"a caller that named a signal of its own so before there was the rule is called back")
}

// A token of a standalone activity leads to no workflow, and to this namespace only.
func TestDeliver_StandaloneActivity(t *testing.T) {
	s := setup(t)
	token := func(namespace string) json.RawMessage {
		return byToken(protowire.AppendBytes(protowire.AppendTag(taskToken(namespace, "", ""), 14, protowire.BytesType), []byte("component")))
	}
	require.Equal(t, bridge.Acknowledged, s.Deliver(t.Context(), token("the-shops-id"), message(bellhop.Succeeded)).Verdict)
	require.Len(t, s.service.requests(), 1)
	got := s.Deliver(t.Context(), token("another"), message(bellhop.Succeeded))
	require.Equal(t, bridge.Undeliverable, got.Verdict)
	require.Len(t, s.service.requests(), 1)
}

// An attempt that got no further than looking has told nobody.
func TestDeliver_LookFails(t *testing.T) {
	s := setup(t)
	for name, row := range map[string]struct {
		err     error
		verdict bridge.Verdict
		says    string
	}{
		"unavailable":  {serviceerror.NewUnavailable("down"), bridge.Retry, "down"},
		"late":         {serviceerror.NewDeadlineExceeded("late"), bridge.Retry, "late"},
		"internal":     {serviceerror.NewInternal("nil"), bridge.Retry, "nil"},
		"busy":         {serviceerror.NewResourceExhausted(enumspb.RESOURCE_EXHAUSTED_CAUSE_RPS_LIMIT, "slow"), bridge.Retry, "slow"},
		"gone":         {serviceerror.NewNotFound("no such workflow"), bridge.Closed, "either there is none"},
		"no namespace": {serviceerror.NewNamespaceNotFound("shop"), bridge.Blocked, "shop"},
		"bad run":      {serviceerror.NewInvalidArgument("Invalid RunId"), bridge.Undeliverable, "Invalid RunId"},
		"not allowed": {
			serviceerror.NewPermissionDenied("no", ""), bridge.Blocked,
			"let the target's credentials call DescribeWorkflowExecution in namespace shop",
		},
	} {
		s.service.found = func(*workflowservice.DescribeWorkflowExecutionRequest) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
			return nil, row.err
		}
		for form, address := range addresses {
			got := s.Deliver(t.Context(), address, message(bellhop.Succeeded))
			require.Equal(t, row.verdict, got.Verdict, "%s %s: %+v", name, form, got)
			require.False(t, got.Unknown, "%s %s", name, form)
			require.ErrorContains(t, got.Err, row.says)
		}
	}
	s.service.found = nil
	s.server.Stop()
	for form, address := range addresses {
		got := s.Deliver(t.Context(), address, message(bellhop.Succeeded))
		require.Equal(t, bridge.Retry, got.Verdict, form)
		require.False(t, got.Unknown, "%s: nobody could be connected to", form)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	require.False(t, s.Deliver(over, workflowAddress, message(bellhop.Succeeded)).Unknown, "there was no time to begin")
	require.Empty(t, s.service.requests())
}

// Between the look and the call the caller may go on as another run, or end.
func TestDeliver_InBetween(t *testing.T) {
	type look = *workflowservice.DescribeWorkflowExecutionResponse
	waits := func(l look, activity string) look {
		l.PendingActivities = []*workflowpb.PendingActivityInfo{{ActivityId: activity}}
		return l
	}
	free, activity := json.RawMessage(`{"workflow_id": "order-42"}`), json.RawMessage(`{"workflow_id": "order-42", "activity_id": "compute"}`)
	for name, row := range map[string]struct {
		address       json.RawMessage
		before, after look
		verdict       bridge.Verdict
	}{
		"continued as new":             {free, described("order", "r-1", open), described("order", "r-2", open), bridge.Retry},
		"ended":                        {free, described("order", "r-1", open), described("order", "r-1", closed), bridge.Retry},
		"had ended":                    {free, described("order", "r-1", closed), nil, bridge.Closed},
		"pinned, ended":                {activityAddress, described("order", "run-1", open), described("order", "run-1", closed), bridge.Closed},
		"activity, continued as new":   {activity, described("order", "r-1", open), described("order", "r-2", open), bridge.Retry},
		"activity, waits for its turn": {activity, described("order", "r-1", open), waits(described("order", "r-1", open), "compute"), bridge.Retry},
		"activity, another waits":      {activity, described("order", "r-1", open), waits(described("order", "r-1", open), "5"), bridge.Closed},
		"activity, ended":              {activity, described("order", "r-1", open), described("order", "r-1", closed), bridge.Closed},
		"now an operation":             {free, described("order", "r-1", open), described(own.Provision, "r-2", open), bridge.Retry},
	} {
		s := setup(t)
		var looks int
		s.service.found = func(*workflowservice.DescribeWorkflowExecutionRequest) (look, error) {
			if looks++; looks == 1 {
				return row.before, nil
			}
			if row.after == nil {
				return nil, errors.New("one look is enough")
			}
			return row.after, nil
		}
		s.service.answer = func(context.Context) error { return serviceerror.NewNotFound("not that run") }
		got := s.Deliver(t.Context(), row.address, message(bellhop.Succeeded))
		require.Equal(t, row.verdict, got.Verdict, "%s: %+v", name, got)
		require.Equal(t, got.Verdict == bridge.Retry, got.Caller, name)
		require.False(t, got.Unknown, name)
		require.Len(t, s.service.requests(), 1, name)
		pinned := s.service.requests()[0]
		switch r := pinned.(type) {
		case *workflowservice.SignalWorkflowExecutionRequest:
			require.Equal(t, row.before.GetWorkflowExecutionInfo().GetExecution().GetRunId(), r.GetWorkflowExecution().GetRunId(), name)
		case *workflowservice.RespondActivityTaskCompletedByIdRequest:
			require.Equal(t, row.before.GetWorkflowExecutionInfo().GetExecution().GetRunId(), r.GetRunId(), name)
		}
	}
}

// A use of an operation's id after Temporal has forgotten the first one is another callback.
func TestDeliver_RequestIDs(t *testing.T) {
	s := setup(t)
	id := func(m bridge.Message) string {
		require.Equal(t, bridge.Acknowledged, s.Deliver(t.Context(), workflowAddress, m).Verdict)
		requests := s.service.requests()
		return requests[len(requests)-1].(*workflowservice.SignalWorkflowExecutionRequest).RequestId
	}
	first, second, before := message(bellhop.Succeeded), message(bellhop.Succeeded), message(bellhop.Succeeded)
	first.RequestedAt = first.RequestedAt.Add(1)
	second.RequestedAt = second.RequestedAt.Add(2)
	require.NotEqual(t, id(first), id(second))
	require.NotEqual(t, id(first), id(before))
	require.Equal(t, id(first), id(first))
	require.Equal(t, "bellhop-0bfffcb303c819604b7ef856af145b3c", id(before),
		"a delivery that the first version began keeps its id, or Temporal could not drop what it has taken already")
}

func FuzzTaskToken(f *testing.F) {
	f.Add(taskToken("ns", "V1", "r-1"))
	f.Add([]byte(nil))
	f.Add([]byte("garbage"))
	f.Add(protowire.AppendBytes(protowire.AppendTag(taskToken("ns", "", ""), 14, protowire.BytesType), []byte("component")))
	target := temporal.NewTarget(nil, "shop")
	f.Fuzz(func(t *testing.T, token []byte) {
		address := fmt.Sprintf(`{"task_token": %q}`, base64.StdEncoding.EncodeToString(token))
		err := target.Check(bellhop.Callback{Address: json.RawMessage(address), States: []bellhop.State{bellhop.Succeeded}})
		if err != nil && len(token) > 8 && strings.Contains(err.Error(), cmp.Or(base64.StdEncoding.EncodeToString(token), "-")) {
			t.Errorf("the token is shown: %s", err)
		}
	})
}

// A caller that was looked at is not looked at again, until its run does not take what it is sent: then the next run is
// looked at like any other.
func TestDeliver_KnownCaller(t *testing.T) {
	s := setup(t)
	deliver := func() bridge.Result {
		return s.Deliver(t.Context(), json.RawMessage(`{"workflow_id": "order-42"}`), message(bellhop.Succeeded))
	}
	looks := 0
	run, kind := "run-1", "order"
	s.service.found = func(*workflowservice.DescribeWorkflowExecutionRequest) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
		looks++
		return described(kind, run, enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING), nil
	}
	open := "run-1"
	s.service.answer = func(context.Context) error {
		sent := s.service.got[len(s.service.got)-1].(*workflowservice.SignalWorkflowExecutionRequest)
		if sent.GetWorkflowExecution().GetRunId() != open {
			return serviceerror.NewNotFound("workflow execution already completed")
		}
		return nil
	}
	for range 3 {
		require.Equal(t, bridge.Acknowledged, deliver().Verdict)
	}
	require.Equal(t, 1, looks)

	open, run = "run-2", "run-2"
	require.Equal(t, bridge.Acknowledged, deliver().Verdict, "it continued as new")
	require.Equal(t, 2, looks)

	// The id is given to an operation of bellhop's.
	open, run, kind = "run-3", "run-3", "ProvisionCompute"
	before := len(s.service.requests())
	require.Equal(t, bridge.Undeliverable, deliver().Verdict)
	for _, request := range s.service.requests()[before:] {
		require.NotEqual(t, "run-3", request.(*workflowservice.SignalWorkflowExecutionRequest).GetWorkflowExecution().GetRunId())
	}
}

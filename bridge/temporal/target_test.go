package temporal_test

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	namespacepb "go.temporal.io/api/namespace/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"bellhop"
	"bellhop/bridge"
	"bellhop/bridge/temporal"
)

var silent = log.NewStructuredLogger(slog.New(slog.DiscardHandler))

// service is a Temporal service that answers every way of calling back as its script says.
type service struct {
	workflowservice.UnimplementedWorkflowServiceServer

	answer func(ctx context.Context) error
	// found answers what a workflow is; nil for a caller's that runs.
	found func(*workflowservice.DescribeWorkflowExecutionRequest) (*workflowservice.DescribeWorkflowExecutionResponse, error)
	mu    sync.Mutex
	got   []any
}

// current is the run of a workflow that an address without one leads to.
const current = "the-current-run"

func (s *service) DescribeWorkflowExecution(_ context.Context, r *workflowservice.DescribeWorkflowExecutionRequest) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	s.mu.Lock()
	found := s.found
	s.mu.Unlock()
	if found != nil {
		answer, err := found(r)
		if err != nil {
			return nil, serviceerror.ToStatus(err).Err()
		}
		return answer, nil
	}
	return described("order", cmp.Or(r.GetExecution().GetRunId(), current), enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING), nil
}

func (s *service) DescribeNamespace(context.Context, *workflowservice.DescribeNamespaceRequest) (*workflowservice.DescribeNamespaceResponse, error) {
	return &workflowservice.DescribeNamespaceResponse{NamespaceInfo: &namespacepb.NamespaceInfo{Id: "the-shops-id"}}, nil
}

// finds is a service that knows a workflow of a type and a status.
func finds(workflowType string, is enumspb.WorkflowExecutionStatus,
) func(*workflowservice.DescribeWorkflowExecutionRequest) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	return func(r *workflowservice.DescribeWorkflowExecutionRequest) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
		return described(workflowType, cmp.Or(r.GetExecution().GetRunId(), current), is), nil
	}
}

func described(workflowType, run string, is enumspb.WorkflowExecutionStatus) *workflowservice.DescribeWorkflowExecutionResponse {
	return &workflowservice.DescribeWorkflowExecutionResponse{WorkflowExecutionInfo: &workflowpb.WorkflowExecutionInfo{
		Execution: &commonpb.WorkflowExecution{WorkflowId: "order-42", RunId: run},
		Type:      &commonpb.WorkflowType{Name: workflowType},
		Status:    is,
	}}
}

func (s *service) take(ctx context.Context, request any) error {
	s.mu.Lock()
	s.got = append(s.got, request)
	answer := s.answer
	s.mu.Unlock()
	if answer == nil {
		return nil
	}
	err := answer(ctx)
	if err == nil {
		return nil
	}
	return serviceerror.ToStatus(err).Err()
}

func (s *service) requests() []any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got
}

func (s *service) GetSystemInfo(context.Context, *workflowservice.GetSystemInfoRequest) (*workflowservice.GetSystemInfoResponse, error) {
	return &workflowservice.GetSystemInfoResponse{Capabilities: &workflowservice.GetSystemInfoResponse_Capabilities{}}, nil
}

func (s *service) SignalWorkflowExecution(ctx context.Context, r *workflowservice.SignalWorkflowExecutionRequest) (*workflowservice.SignalWorkflowExecutionResponse, error) {
	return &workflowservice.SignalWorkflowExecutionResponse{}, s.take(ctx, r)
}

func (s *service) RecordActivityTaskHeartbeatById(ctx context.Context, r *workflowservice.RecordActivityTaskHeartbeatByIdRequest) (*workflowservice.RecordActivityTaskHeartbeatByIdResponse, error) {
	return &workflowservice.RecordActivityTaskHeartbeatByIdResponse{}, s.take(ctx, r)
}

func (s *service) RecordActivityTaskHeartbeat(ctx context.Context, r *workflowservice.RecordActivityTaskHeartbeatRequest) (*workflowservice.RecordActivityTaskHeartbeatResponse, error) {
	return &workflowservice.RecordActivityTaskHeartbeatResponse{}, s.take(ctx, r)
}

func (s *service) RespondActivityTaskCompletedById(ctx context.Context, r *workflowservice.RespondActivityTaskCompletedByIdRequest) (*workflowservice.RespondActivityTaskCompletedByIdResponse, error) {
	return &workflowservice.RespondActivityTaskCompletedByIdResponse{}, s.take(ctx, r)
}

func (s *service) RespondActivityTaskCompleted(ctx context.Context, r *workflowservice.RespondActivityTaskCompletedRequest) (*workflowservice.RespondActivityTaskCompletedResponse, error) {
	return &workflowservice.RespondActivityTaskCompletedResponse{}, s.take(ctx, r)
}

func (s *service) RespondActivityTaskFailedById(ctx context.Context, r *workflowservice.RespondActivityTaskFailedByIdRequest) (*workflowservice.RespondActivityTaskFailedByIdResponse, error) {
	return &workflowservice.RespondActivityTaskFailedByIdResponse{}, s.take(ctx, r)
}

func (s *service) RespondActivityTaskFailed(ctx context.Context, r *workflowservice.RespondActivityTaskFailedRequest) (*workflowservice.RespondActivityTaskFailedResponse, error) {
	return &workflowservice.RespondActivityTaskFailedResponse{}, s.take(ctx, r)
}

// stage is a target behind the SDK's own client, and the service it speaks to.
type stage struct {
	*temporal.Target
	service *service
	server  *grpc.Server
}

func setup(t *testing.T) *stage {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{service: &service{}, server: grpc.NewServer()}
	workflowservice.RegisterWorkflowServiceServer(s.server, s.service)
	go s.server.Serve(listener) //nolint:errcheck // it ends with the test
	t.Cleanup(s.server.Stop)
	c, err := client.Dial(client.Options{HostPort: listener.Addr().String(), Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	s.Target = temporal.NewTarget(c.WorkflowService(), "shop")
	return s
}

const bearer = "a token that nobody may read"

// taskToken is a token as Temporal makes it. The activity's name is of no account, and stands for what nobody may read.
func taskToken(namespaceID, workflowID, runID string) []byte {
	var token []byte
	for number, text := range []string{1: namespaceID, 2: workflowID, 3: runID, 6: bearer} {
		if text != "" {
			token = protowire.AppendTag(token, protowire.Number(number), protowire.BytesType)
			token = protowire.AppendString(token, text)
		}
	}
	token = protowire.AppendTag(token, 4, protowire.VarintType)
	return protowire.AppendVarint(token, 5)
}

// byToken is an address.
func byToken(token []byte) json.RawMessage {
	return json.RawMessage(`{"task_token": "` + base64.StdEncoding.EncodeToString(token) + `"}`)
}

var (
	workflowAddress = json.RawMessage(`{"workflow_id": "order-42"}`)
	activityAddress = json.RawMessage(`{"workflow_id": "order-42", "run_id": "run-1", "activity_id": "compute"}`)
	tokenAddress    = byToken(taskToken("the-shops-id", "order-42", "run-1"))
	addresses       = map[string]json.RawMessage{"signal": workflowAddress, "activity": activityAddress, "token": tokenAddress}
)

func message(state bellhop.State) bridge.Message {
	outcome := bellhop.Outcome{
		SchemaVersion: 1, CallbackID: bellhop.CallbackID("op-1", state), Event: bellhop.EventFor(bellhop.Provision, state),
		OperationID: "op-1", OperationType: bellhop.Provision, TenantID: "acme", Resource: "web", Provider: "docker", State: state,
	}
	switch state {
	case bellhop.Failed:
		outcome.Error = bellhop.Fail(bellhop.CodeCapacityUnavailable, "no room").Because(errors.New("RESOURCE:MEMORY"))
	case bellhop.Cancelled:
		outcome.Error = bellhop.Fail(bellhop.CodeCancelled, "the operation was cancelled; what exists was left as it is")
	}
	body, err := json.Marshal(outcome)
	if err != nil {
		panic(err)
	}
	return bridge.Message{ID: outcome.CallbackID, Event: outcome.Event, State: state, Body: body}
}

func TestAnswersOfTheService(t *testing.T) {
	type answer struct {
		name, reason string
		err          error
		verdict      bridge.Verdict
		unknown      bool
	}
	retry := func(name string, err error) answer {
		return answer{name, "it may have been applied, and may be the next time", err, bridge.Retry, true}
	}
	refused := func(name string, err error) answer {
		return answer{name, "it was surely not applied, and may be the next time", err, bridge.Retry, false}
	}
	blocked := func(name string, err error) answer {
		return answer{name, "an operator must act", err, bridge.Blocked, false}
	}
	answers := []answer{
		{"OK", "the caller has it", nil, bridge.Acknowledged, false},
		retry("Unavailable", serviceerror.NewUnavailable("shard is moving")),
		retry("NamespaceUnavailable", serviceerror.NewNamespaceUnavailable("shop")),
		retry("Aborted", serviceerror.NewAborted("conflict")),
		retry("MultiOperationAborted", serviceerror.NewMultiOperationAborted("conflict")),
		retry("DeadlineExceeded", serviceerror.NewDeadlineExceeded("too slow")),
		retry("Canceled", serviceerror.NewCanceled("cancelled")),
		retry("Internal", serviceerror.NewInternal("nil pointer")),
		retry("Unknown", errors.New("what")),
		retry("DataLoss", serviceerror.NewDataLoss("lost")),
		retry("NobodyListedIt", status.Error(codes.Code(42), "from the future")),
		retry("AlreadyExists", serviceerror.NewCancellationAlreadyRequested("cancel")),
		refused("ResourceExhausted", serviceerror.NewResourceExhausted(enumspb.RESOURCE_EXHAUSTED_CAUSE_RPS_LIMIT, "slow down")),
		refused("BusyWorkflow", serviceerror.NewResourceExhausted(enumspb.RESOURCE_EXHAUSTED_CAUSE_BUSY_WORKFLOW, "busy")),
		refused("WorkflowNotReady", serviceerror.NewWorkflowNotReady("not yet")),
		refused("NamespaceNotActive", serviceerror.NewNamespaceNotActive("shop", "here", "there")),
		{"NotFound", "the caller is gone", serviceerror.NewNotFound("workflow execution already completed"), bridge.Closed, false},
		blocked("NamespaceNotFound", serviceerror.NewNamespaceNotFound("shop")),
		blocked("PermissionDenied", serviceerror.NewPermissionDenied("no", "policy")),
		blocked("Unauthenticated", status.Error(codes.Unauthenticated, "who")),
		blocked("Unimplemented", serviceerror.NewUnimplemented("what")),
		blocked("ClientVersionNotSupported", serviceerror.NewClientVersionNotSupported("1.50", "temporal-go", ">2")),
		blocked("ServerVersionNotSupported", serviceerror.NewServerVersionNotSupported("1.0", ">2")),
		blocked("NamespaceInvalidState", serviceerror.NewNamespaceInvalidState("shop", enumspb.NAMESPACE_STATE_DELETED, nil)),
		blocked("FailedPrecondition", serviceerror.NewFailedPrecondition("not so")),
		{"InvalidArgument", "the address or the message is refused for ever", serviceerror.NewInvalidArgument("invalid TaskToken"), bridge.Undeliverable, false},
	}
	for _, answer := range answers {
		for way, address := range addresses {
			t.Run(answer.name+"/"+way, func(t *testing.T) {
				s := setup(t)
				s.service.mu.Lock()
				s.service.got, s.service.answer = nil, func(context.Context) error { return answer.err }
				s.service.found = nil
				if answer.name == "NotFound" {
					s.service.found = finds("order", enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
				}
				s.service.mu.Unlock()
				got := s.Deliver(t.Context(), address, message(bellhop.Succeeded))
				if got.Verdict != answer.verdict || got.Unknown != answer.unknown || got.RetryAfter != 0 {
					t.Errorf("the verdict is %+v, want %s, unknown %t: %s", got, answer.verdict, answer.unknown, answer.reason)
				}
				if (got.Err == nil) != (answer.err == nil) {
					t.Errorf("the error is %v, want %v", got.Err, answer.err)
				}
				if n := len(s.service.requests()); n != 1 {
					t.Errorf("the service was called %d times: the one retrier is the workflow that delivers", n)
				}
			})
		}
	}
}

// What breaks on the way says nothing of whether it arrived.
func TestBrokenConnections(t *testing.T) {
	t.Run("LostAnswer", func(t *testing.T) {
		s := setup(t)
		s.service.answer = func(context.Context) error {
			go s.server.Stop() // the request was applied, and the connection breaks before the answer
			return status.Error(codes.Unavailable, "transport is closing")
		}
		if got := s.Deliver(t.Context(), workflowAddress, message(bellhop.Succeeded)); got.Verdict != bridge.Retry || !got.Unknown {
			t.Errorf("a connection that broke is %+v", got)
		}
	})
	t.Run("BlackHole", func(t *testing.T) {
		s := setup(t)
		s.service.answer = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if got := s.Deliver(ctx, workflowAddress, message(bellhop.Succeeded)); got.Verdict != bridge.Retry || !got.Unknown {
			t.Errorf("no answer in time is %+v", got)
		}
	})
	t.Run("Stopping", func(t *testing.T) {
		s := setup(t)
		ctx, cancel := context.WithCancel(t.Context())
		s.service.answer = func(ctx context.Context) error { cancel(); <-ctx.Done(); return ctx.Err() }
		if got := s.Deliver(ctx, workflowAddress, message(bellhop.Succeeded)); got.Verdict != bridge.Retry || !got.Unknown {
			t.Errorf("a worker that stops in the middle leaves %+v", got)
		}
	})
	t.Run("NobodyThere", func(t *testing.T) {
		s := setup(t)
		s.server.Stop()
		if got := s.Deliver(t.Context(), workflowAddress, message(bellhop.Succeeded)); got.Verdict != bridge.Retry || got.Err == nil {
			t.Errorf("a service that is down is %+v", got)
		}
	})
}

func TestWhatIsSent(t *testing.T) {
	s := setup(t)
	send := func(t *testing.T, address json.RawMessage, state bellhop.State) any {
		t.Helper()
		s.service.mu.Lock()
		s.service.got = nil
		s.service.mu.Unlock()
		if got := s.Deliver(t.Context(), address, message(state)); got.Verdict != bridge.Acknowledged {
			t.Fatalf("the verdict is %+v", got)
		}
		return s.service.requests()[0]
	}
	t.Run("Signal", func(t *testing.T) {
		for state, name := range map[bellhop.State]string{
			bellhop.Running: "compute-running", bellhop.Succeeded: "compute-provisioned", bellhop.Failed: "compute-failed", bellhop.Cancelled: "compute-cancelled",
		} {
			r := send(t, workflowAddress, state).(*workflowservice.SignalWorkflowExecutionRequest)
			if r.SignalName != name || r.Namespace != "shop" || r.WorkflowExecution.WorkflowId != "order-42" || r.WorkflowExecution.RunId != current {
				t.Errorf("%s is signalled as %v", state, r)
			}
			body := r.Input.Payloads[0]
			if len(r.Input.Payloads) != 1 || string(body.Data) != string(message(state).Body) || string(body.Metadata["encoding"]) != "json/plain" {
				t.Errorf("%s carries %v", state, r.Input)
			}
		}
	})
	t.Run("OwnName", func(t *testing.T) {
		r := send(t, json.RawMessage(`{"workflow_id": "w", "run_id": "r", "signal": "compute"}`), bellhop.Succeeded).(*workflowservice.SignalWorkflowExecutionRequest)
		if r.SignalName != "compute" || r.WorkflowExecution.RunId != "r" {
			t.Errorf("it is signalled as %v", r)
		}
	})
	t.Run("RequestID", func(t *testing.T) {
		id := func(address string, state bellhop.State) string {
			return send(t, json.RawMessage(address), state).(*workflowservice.SignalWorkflowExecutionRequest).RequestId
		}
		first := id(`{"workflow_id": "order-42"}`, bellhop.Succeeded)
		if first == "" || first != id(`{"workflow_id": "order-42"}`, bellhop.Succeeded) {
			t.Error("two attempts have two request ids: the server could not tell that they are one")
		}
		if first == id(`{"workflow_id": "order-42"}`, bellhop.Running) || first == id(`{"workflow_id": "order-42", "signal": "compute"}`, bellhop.Succeeded) {
			t.Error("two callbacks have one request id: the server would drop the second")
		}
	})
	t.Run("Completed", func(t *testing.T) {
		byID := send(t, activityAddress, bellhop.Succeeded).(*workflowservice.RespondActivityTaskCompletedByIdRequest)
		if byID.ActivityId != "compute" || byID.WorkflowId != "order-42" || byID.RunId != "run-1" || byID.Namespace != "shop" ||
			string(byID.Result.Payloads[0].Data) != string(message(bellhop.Succeeded).Body) {
			t.Errorf("it is completed as %v", byID)
		}
		byToken := send(t, tokenAddress, bellhop.Succeeded).(*workflowservice.RespondActivityTaskCompletedRequest)
		if !strings.Contains(string(byToken.TaskToken), bearer) || string(byToken.Result.Payloads[0].Data) != string(message(bellhop.Succeeded).Body) {
			t.Errorf("it is completed as %v", byToken)
		}
	})
	for _, row := range []struct {
		state        bellhop.State
		code         string
		says         string
		nonRetryable bool
	}{
		{bellhop.Failed, "CAPACITY_UNAVAILABLE", "CAPACITY_UNAVAILABLE: no room: RESOURCE:MEMORY", false},
		{bellhop.Cancelled, "CANCELLED", "CANCELLED: the operation was cancelled; what exists was left as it is", true},
	} {
		t.Run(string(row.state), func(t *testing.T) {
			byID := send(t, activityAddress, row.state).(*workflowservice.RespondActivityTaskFailedByIdRequest)
			byToken := send(t, tokenAddress, row.state).(*workflowservice.RespondActivityTaskFailedRequest)
			if byID.ActivityId != "compute" || !strings.Contains(string(byToken.TaskToken), bearer) {
				t.Errorf("it is failed as %v and %v", byID, byToken)
			}
			for _, failure := range []any{byID.Failure, byToken.Failure} {
				f := failure.(interface{ GetMessage() string })
				if f.GetMessage() != row.says {
					t.Errorf("the failure says %q, want %q", f.GetMessage(), row.says)
				}
			}
			info := byID.Failure.GetApplicationFailureInfo()
			if info.Type != row.code || info.NonRetryable != row.nonRetryable || string(info.Details.Payloads[0].Data) != string(message(row.state).Body) {
				t.Errorf("the failure is %v", info)
			}
		})
	}
	t.Run("BodyOfALaterVersion", func(t *testing.T) {
		m := message(bellhop.Failed)
		m.Body = json.RawMessage(`{"state": "failed", "error": "in another form"}`)
		s.service.mu.Lock()
		s.service.got = nil
		s.service.mu.Unlock()
		if got := s.Deliver(t.Context(), activityAddress, m); got.Verdict != bridge.Acknowledged {
			t.Fatalf("the verdict is %+v", got)
		}
		r := s.service.requests()[0].(*workflowservice.RespondActivityTaskFailedByIdRequest)
		if r.Failure.GetApplicationFailureInfo().GetType() != "INTERNAL" {
			t.Errorf("a failure that cannot be read fails the activity as %v", r.Failure)
		}
	})
}

func TestFailuresAsResults(t *testing.T) {
	s := setup(t)
	send := func(address json.RawMessage) any {
		s.service.mu.Lock()
		s.service.got = nil
		s.service.mu.Unlock()
		m := message(bellhop.Failed)
		m.Failures = bellhop.AsResult
		if got := s.Deliver(t.Context(), address, m); got.Verdict != bridge.Acknowledged {
			t.Fatalf("the verdict is %+v", got)
		}
		return s.service.requests()[0]
	}
	want := string(message(bellhop.Failed).Body)
	byID, ok := send(activityAddress).(*workflowservice.RespondActivityTaskCompletedByIdRequest)
	if !ok || string(byID.Result.Payloads[0].Data) != want {
		t.Errorf("a failure that is wanted as a result is told as %v", byID)
	}
	byToken, ok := send(tokenAddress).(*workflowservice.RespondActivityTaskCompletedRequest)
	if !ok || string(byToken.Result.Payloads[0].Data) != want {
		t.Errorf("a failure that is wanted as a result is told as %v", byToken)
	}
	err := s.Check(bellhop.Callback{Address: workflowAddress, Failures: bellhop.AsResult})
	if err == nil || !strings.Contains(err.Error(), "failures: must be left out") {
		t.Errorf("for a signal it is %v, want it refused: it would change nothing", err)
	}
	if err := s.Check(bellhop.Callback{Address: activityAddress, Failures: bellhop.AsResult}); err != nil {
		t.Errorf("for an activity it is refused: %s", err)
	}
}

func TestCheck(t *testing.T) {
	target := temporal.NewTarget(nil, "shop")
	terminal := []bellhop.State{bellhop.Succeeded, bellhop.Failed, bellhop.Cancelled}
	running := append([]bellhop.State{bellhop.Running}, terminal...)
	sound := base64.StdEncoding.EncodeToString(taskToken("ns", "w", "r"))
	for _, row := range []struct {
		name, reason, address string
		states                []bellhop.State
		faults                []string
	}{
		{"Signal", "a workflow's id is enough", `{"workflow_id": "w"}`, running, nil},
		{"Pinned", "a run and a signal may be named", `{"workflow_id": "w", "run_id": "r", "signal": "s"}`, running, nil},
		{"Activity", "an activity is completed by its id", `{"workflow_id": "w", "activity_id": "a"}`, terminal, nil},
		{"Token", "or by its token", `{"task_token": "` + sound + `"}`, terminal, nil},
		{"None", "bellhop cannot guess who asked", ``, terminal, []string{`address: is required, such as {"workflow_id": "order-42"}`}},
		{"Empty", "an empty address finds nobody", `{}`, terminal, []string{"address: must have a workflow_id or a task_token"}},
		{"EmptyToken", "an empty token is none", `{"task_token": ""}`, terminal, []string{"address: must have a workflow_id or a task_token"}},
		{"ActivityAlone", "an activity's id is unique in its workflow only", `{"activity_id": "a"}`, terminal, []string{"address: must have a workflow_id or a task_token"}},
		{"Both", "two ways at once would complete one activity and leave another", `{"workflow_id": "w", "task_token": "` + sound + `"}`, terminal, []string{"address: must be a task_token alone, or have none"}},
		{"SignalAndActivity", "an activity gets no signals", `{"workflow_id": "w", "activity_id": "a", "signal": "s"}`, terminal, []string{"address: must have a signal or an activity_id, not both"}},
		{"RunningActivity", "an activity can be completed only once", `{"workflow_id": "w", "activity_id": "a"}`, running, []string{`states: must not have "running": an activity can be completed only once`}},
		{"RunningToken", "also by its token", `{"task_token": "` + sound + `"}`, running, []string{`states: must not have "running": an activity can be completed only once`}},
		{"Unknown", "a typo is told", `{"workflowId": "w"}`, terminal, []string{`address.workflowId: is not a known field (did you mean "workflow_id"?)`}},
		{"WrongType", "so is a number", `{"workflow_id": 7}`, terminal, []string{"address.workflow_id: must be a string, not a number"}},
		{"NoObject", "a bare text is no address", `"order-42"`, terminal, []string{"address: must be an object, not a string"}},
		{"BadToken", "what is no base64 was damaged on its way, and is not shown", `{"task_token": "` + bearer + `"}`, terminal, []string{"address.task_token: must be a task token in base64"}},
		{"TokenNumber", "a token that lost its quotes is not shown either", `{"task_token": 12345678901}`, terminal, []string{"address.task_token: must be a string, not a number"}},
		{"TokenList", "nor one in a list", `{"task_token": ["` + bearer + `"]}`, terminal, []string{"address.task_token: must be a string, not a list"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			callback := bellhop.Callback{Target: "orders", Address: json.RawMessage(row.address), States: row.states}
			err := target.Check(callback)
			var faults bellhop.Faults
			if err != nil && !errors.As(err, &faults) {
				t.Fatalf("the error is a %T", err)
			}
			var got []string
			for _, fault := range faults {
				got = append(got, fault.String())
			}
			if diff := gocmp.Diff(row.faults, got); diff != "" {
				t.Errorf("faults (-want +got): %s\n%s", row.reason, diff)
			}
			for _, secret := range []string{bearer, "12345678901", sound} {
				if strings.Contains(fmt.Sprint(err), secret) {
					t.Errorf("the error shows the token: %s", err)
				}
			}
			if row.faults == nil || row.states[0] == bellhop.Running {
				return
			}
			// What slipped through, because the target was changed meanwhile, is given up instead of tried for ever.
			got2 := target.Deliver(t.Context(), callback.Address, message(bellhop.Succeeded))
			if got2.Verdict != bridge.Undeliverable || strings.Contains(got2.Err.Error(), bearer) {
				t.Errorf("it is delivered as %+v", got2)
			}
		})
	}
}

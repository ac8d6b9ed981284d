// Package temporal calls Temporal workflows and activities back. Its folder receive holds the other end: what a
// workflow in Go needs to start an operation and to await its callback.
package temporal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"
	commonpb "go.temporal.io/api/common/v1"
	failurepb "go.temporal.io/api/failure/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc/codes"

	"bellhop"
	"bellhop/bridge"
	"bellhop/encryption"
	"bellhop/internal/own"
)

// Address finds a caller in Temporal, in one of three ways: a workflow to signal ("workflow_id"), an activity that
// waits for its completion from outside ("workflow_id" and "activity_id"), or the same by its token ("task_token").
// Of the latter two the id is the sturdier: a retry of the activity makes its token void.
type Address struct {
	WorkflowID string `json:"workflow_id,omitempty"`
	// RunID pins one run. Default: the current one.
	RunID string `json:"run_id,omitempty"`
	// Signal names the signal. Default: the event, such as "compute-provisioned".
	Signal     string `json:"signal,omitempty"`
	ActivityID string `json:"activity_id,omitempty"`
	// TaskToken is the activity's task token in base64, as JSON writes bytes.
	TaskToken []byte `json:"-"`
}

// wireAddress is Address with the token as text.
type wireAddress struct {
	Address
	TaskToken token `json:"task_token,omitempty"`
}

// token reads base64 and never puts it into an error.
type token []byte

// UnmarshalText reads the token.
func (t *token) UnmarshalText(text []byte) error {
	var raw []byte
	if json.Unmarshal([]byte(`"`+string(text)+`"`), &raw) != nil {
		return errors.New("must be a task token in base64")
	}
	*t = raw
	return nil
}

// maxID is how long an id or a name may be in Temporal, in bytes.
const maxID = 1000

func parseAddress(raw json.RawMessage) (Address, bellhop.Faults) {
	var faults bellhop.Faults
	if len(raw) == 0 {
		faults.Add("address", `is required, such as {"workflow_id": "order-42"}`)
		return Address{}, faults
	}
	var wire wireAddress
	faults.Note("address", bellhop.DecodeStrict(raw, &wire))
	address := wire.Address
	address.TaskToken = wire.TaskToken
	for _, id := range []struct{ name, value string }{
		{"workflow_id", address.WorkflowID}, {"run_id", address.RunID}, {"signal", address.Signal}, {"activity_id", address.ActivityID},
	} {
		if len(id.value) > maxID {
			faults.Add("address."+id.name, "has %d bytes; Temporal takes %d at most", len(id.value), maxID)
		}
	}
	if own.ID(address.WorkflowID) {
		faults.Add("address.workflow_id", "must be that of the caller, not of a workflow of bellhop's own")
	}
	if strings.HasPrefix(address.Signal, "__temporal") {
		faults.Add("address.signal", "must not be one of Temporal's own, which begin with __temporal")
	}
	if len(address.TaskToken) > 0 {
		if _, err := parseToken(address.TaskToken); err != nil {
			faults.Add("address.task_token", "%s", err)
		}
	}
	switch byToken := len(address.TaskToken) > 0; {
	case byToken && (address.WorkflowID != "" || address.ActivityID != "" || address.RunID != "" || address.Signal != ""):
		faults.Add("address", "must be a task_token alone, or have none")
	case !byToken && address.WorkflowID == "" && len(faults) == 0:
		faults.Add("address", "must have a workflow_id or a task_token")
	case address.ActivityID != "" && address.Signal != "":
		faults.Add("address", "must have a signal or an activity_id, not both")
	}
	return address, faults
}

// Target calls workflows of one namespace back.
type Target struct {
	service    workflowservice.WorkflowServiceClient
	namespace  string
	converters encryption.Converters
	// namespaceID is what standalone activities' tokens are compared with, once it was asked for.
	namespaceID atomic.Pointer[string]
	// callers are the runs that were found to be callers' and open.
	callers *lru.Cache[caller, string]
}

// NewTarget makes a target for the workflows of a namespace. It speaks to the raw service, whose calls take a request
// id of ours and are not retried: the one retrier is the workflow that delivers.
func NewTarget(service workflowservice.WorkflowServiceClient, namespace string) *Target {
	callers, err := lru.New[caller, string](knownCallers)
	if err != nil { // it would be for the number
		panic(err)
	}
	return &Target{service: service, namespace: namespace, callers: callers}
}

// With has the target write what its callers read by these converters, which are Temporal's own by default.
func (t *Target) With(converters encryption.Converters) *Target {
	t.converters = converters
	return t
}

// Check says what is wrong with a callback's address and states.
func (t *Target) Check(callback bellhop.Callback) error {
	address, faults := parseAddress(callback.Address)
	activity := address.ActivityID != "" || len(address.TaskToken) > 0
	if address.Signal == own.SignalObserved {
		// It would not reach an operation all the same. A callback of before there was this rule is still delivered.
		faults.Add("address.signal", "must not be %q, by which bellhop wakes up its own operations", own.SignalObserved)
	}
	if activity && callback.Wants(bellhop.Running) {
		faults.Add("states", `must not have "running": an activity can be completed only once`)
	}
	if !activity && callback.Heartbeat != 0 && len(faults) == 0 {
		faults.Add("heartbeat", "must be left out: a workflow waits for its signal without heartbeats")
	}
	if !activity && callback.Failures != "" && len(faults) == 0 {
		faults.Add("failures", "must be left out: a signal tells of every state alike")
	}
	return faults.Err()
}

const identity = "bellhop"

// Deliver signals the workflow or completes the activity. A failed or cancelled operation fails the activity with an
// application error whose type is the failure's code and whose detail is the outcome, unless the caller wants it as a
// result.
func (t *Target) Deliver(ctx context.Context, raw json.RawMessage, m bridge.Message) bridge.Result {
	address, faults := parseAddress(raw)
	if err := faults.Err(); err != nil {
		return bridge.Result{Verdict: bridge.Undeliverable, Err: err}
	}
	converters := t.converters
	if address.WorkflowID != "" {
		converters = converters.In(t.namespace, address.WorkflowID)
	}
	body, err := converters.Data().ToPayloads(m.Body)
	var failure *failurepb.Failure
	if err == nil && m.Failed(bellhop.AsError) {
		failure = activityFailure(m, body)
		err = converters.SealFailure(failure)
	}
	if err != nil { // the outcome is JSON, so it is the codec that does not work
		return bridge.Result{Verdict: bridge.Blocked, Err: fmt.Errorf("encode the outcome: %w", err)}
	}
	return t.reach(ctx, address, func(to Address) error { return t.send(ctx, to, m, body, failure, requestID(raw, m)) })
}

func (t *Target) send(ctx context.Context, to Address, m bridge.Message, body *commonpb.Payloads, failure *failurepb.Failure,
	request string,
) error {
	activity := len(to.TaskToken) > 0 || to.ActivityID != ""
	switch {
	case !activity:
		signal := to.Signal
		if signal == "" {
			signal = string(m.Event)
		}
		_, err := t.service.SignalWorkflowExecution(ctx, &workflowservice.SignalWorkflowExecutionRequest{
			Namespace:         t.namespace,
			WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: to.WorkflowID, RunId: to.RunID},
			SignalName:        signal,
			Input:             body,
			Identity:          identity,
			RequestId:         request,
		})
		return err
	case failure == nil && to.ActivityID != "":
		_, err := t.service.RespondActivityTaskCompletedById(ctx, &workflowservice.RespondActivityTaskCompletedByIdRequest{
			Namespace:  t.namespace,
			WorkflowId: to.WorkflowID,
			RunId:      to.RunID,
			ActivityId: to.ActivityID,
			Result:     body,
			Identity:   identity,
		})
		return err
	case failure == nil:
		_, err := t.service.RespondActivityTaskCompleted(ctx, &workflowservice.RespondActivityTaskCompletedRequest{
			Namespace: t.namespace,
			TaskToken: to.TaskToken,
			Result:    body,
			Identity:  identity,
		})
		return err
	case to.ActivityID != "":
		_, err := t.service.RespondActivityTaskFailedById(ctx, &workflowservice.RespondActivityTaskFailedByIdRequest{
			Namespace:  t.namespace,
			WorkflowId: to.WorkflowID,
			RunId:      to.RunID,
			ActivityId: to.ActivityID,
			Failure:    failure,
			Identity:   identity,
		})
		return err
	default:
		_, err := t.service.RespondActivityTaskFailed(ctx, &workflowservice.RespondActivityTaskFailedRequest{
			Namespace: t.namespace,
			TaskToken: to.TaskToken,
			Failure:   failure,
			Identity:  identity,
		})
		return err
	}
}

// Heartbeat keeps the activity from its heartbeat timeout. An activity that was asked to cancel is still waiting: what to
// do about it is its workflow's business.
func (t *Target) Heartbeat(ctx context.Context, raw json.RawMessage) bridge.Result {
	address, faults := parseAddress(raw)
	if err := faults.Err(); err != nil {
		return bridge.Result{Verdict: bridge.Undeliverable, Err: err}
	}
	return t.reach(ctx, address, func(to Address) error {
		if to.ActivityID != "" {
			_, err := t.service.RecordActivityTaskHeartbeatById(ctx, &workflowservice.RecordActivityTaskHeartbeatByIdRequest{
				Namespace:  t.namespace,
				WorkflowId: to.WorkflowID,
				RunId:      to.RunID,
				ActivityId: to.ActivityID,
				Identity:   identity,
			})
			return err
		}
		_, err := t.service.RecordActivityTaskHeartbeat(ctx, &workflowservice.RecordActivityTaskHeartbeatRequest{
			Namespace: t.namespace,
			TaskToken: to.TaskToken,
			Identity:  identity,
		})
		return err
	})
}

func activityFailure(m bridge.Message, body *commonpb.Payloads) *failurepb.Failure {
	failure := m.Failure()
	return &failurepb.Failure{
		Message: failure.Error(),
		Source:  identity,
		FailureInfo: &failurepb.Failure_ApplicationFailureInfo{ApplicationFailureInfo: &failurepb.ApplicationFailureInfo{
			Type:         string(failure.Code),
			NonRetryable: !failure.Retryable,
			Details:      body,
		}},
	}
}

// requestID is the same in every attempt, so that the server itself drops a signal that it has taken already.
func requestID(address json.RawMessage, m bridge.Message) string {
	sum := sha256.Sum256(append([]byte(m.Key()+"\x00"), address...))
	return "bellhop-" + hex.EncodeToString(sum[:16])
}

// classify says what an answer of the Temporal service means.
func classify(err error) bridge.Result {
	if err == nil {
		return bridge.Result{Verdict: bridge.Acknowledged}
	}
	// A client that the SDK dialled answers with Temporal's own errors, a bare one with gRPC's.
	grpcStatus := serviceerror.ToStatus(err)
	err = serviceerror.FromStatus(grpcStatus)
	result := bridge.Result{Verdict: bridge.Retry, Err: err}
	switch grpcStatus.Code() {
	case codes.NotFound:
		result.Verdict = bridge.Closed
		if _, ok := errors.AsType[*serviceerror.NamespaceNotFound](err); ok { // an operator's fault, not a caller that is gone
			result.Verdict = bridge.Blocked
		}
	case codes.InvalidArgument:
		result.Verdict = bridge.Undeliverable
	case codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		result.Verdict = bridge.Blocked
	case codes.FailedPrecondition:
		var (
			notReady  *serviceerror.WorkflowNotReady
			notActive *serviceerror.NamespaceNotActive
		)
		result.Caller = errors.As(err, &notReady)
		if !result.Caller && !errors.As(err, &notActive) {
			result.Verdict = bridge.Blocked // the namespace's state, or a version that is not supported
		}
	case codes.ResourceExhausted:
		// Refused, and surely not applied.
	default:
		// Unavailable, a deadline, a broken connection, an error nobody listed: it may have been applied.
		result.Unknown = true
	}
	return result
}

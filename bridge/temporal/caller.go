package temporal

import (
	"context"
	"errors"
	"fmt"
	"slices"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc/codes"

	"bellhop/bridge"
	"bellhop/internal/own"
)

// reach calls whoever is at an address, once it is known that it is a caller and nothing of bellhop's own. The call goes
// to the run that was looked at, so that nothing can come in between. What fails before the call has surely reached
// nobody.
func (t *Target) reach(ctx context.Context, address Address, call func(to Address) error) bridge.Result {
	of, err := t.whereabouts(ctx, address)
	if err != nil {
		return *err
	}
	if of.WorkflowID == "" { // a standalone activity, of which bellhop has none
		return classify(call(address))
	}
	// A run that was found to be a caller's stays one. Heartbeats, and callers of many operations, need no second look.
	key := caller{of.WorkflowID, of.RunID}
	if run, known := t.callers.Get(key); known {
		to := address
		if len(to.TaskToken) == 0 {
			to.RunID = run
		}
		result := classify(call(to))
		if result.Verdict != bridge.Closed {
			return result
		}
		t.callers.Remove(key) // it may have ended, or continued as new; nothing was applied
	}
	found, failed := t.look(ctx, of)
	if failed != nil {
		return *failed
	}
	info := found.GetWorkflowExecutionInfo()
	if own.Type(info.GetType().GetName()) {
		return bridge.Result{Verdict: bridge.Undeliverable, Err: noCaller(of.WorkflowID)}
	}
	if running(found) {
		t.callers.Add(key, info.GetExecution().GetRunId())
	}
	to := address
	if len(to.TaskToken) == 0 {
		to.RunID = info.GetExecution().GetRunId()
	}
	if err := ctx.Err(); err != nil {
		return bridge.Result{Verdict: bridge.Retry, Err: err}
	}
	result := classify(call(to))
	if result.Verdict != bridge.Closed || len(to.TaskToken) > 0 || !running(found) {
		return result
	}
	return t.missed(ctx, address, to, result)
}

// caller is how an address finds a workflow; without a run it is the current one.
type caller struct{ workflowID, runID string }

// knownCallers is how many callers a target remembers, some 200 bytes each.
const knownCallers = 10_000

// missed says what it means that a workflow that ran a moment ago did not take a call. Nothing was applied.
func (t *Target) missed(ctx context.Context, address, to Address, result bridge.Result) bridge.Result {
	again := func(why string) bridge.Result {
		return bridge.Result{Verdict: bridge.Retry, Caller: true, Err: errors.New(why)}
	}
	found, failed := t.look(ctx, address)
	switch {
	case failed != nil:
		return *failed
	case !running(found):
		if address.RunID == "" && to.ActivityID == "" {
			return again("the workflow ended at this very moment") // the next attempt sees whether it went on
		}
		return result
	case found.GetWorkflowExecutionInfo().GetExecution().GetRunId() != to.RunID:
		return again("the workflow continued as new, or was reset, at this very moment")
	case to.ActivityID == "":
		return again("the workflow did not take the signal, and runs")
	}
	// An activity that waits for its next attempt is not found by its id either, and yet its workflow waits for it.
	waits := func(info *workflowpb.PendingActivityInfo) bool { return info.GetActivityId() == to.ActivityID }
	if slices.ContainsFunc(found.GetPendingActivities(), waits) {
		return again("the activity waits for its next attempt")
	}
	return result
}

func running(found *workflowservice.DescribeWorkflowExecutionResponse) bool {
	return found.GetWorkflowExecutionInfo().GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
}

// whereabouts is the workflow that an address leads to; none for a standalone activity.
func (t *Target) whereabouts(ctx context.Context, address Address) (Address, *bridge.Result) {
	if len(address.TaskToken) == 0 {
		return address, nil
	}
	token, err := parseToken(address.TaskToken)
	if err != nil {
		return address, &bridge.Result{Verdict: bridge.Undeliverable, Err: err}
	}
	if !token.standalone {
		// Its namespace need not be compared: no run of another namespace is found in this one.
		return Address{WorkflowID: token.workflowID, RunID: token.runID}, nil
	}
	id, failed := t.ownNamespace(ctx)
	if failed == nil && token.namespaceID != id {
		failed = &bridge.Result{Verdict: bridge.Undeliverable, Err: errors.New("the task token is of another namespace than the target's")}
	}
	return Address{}, failed
}

func (t *Target) ownNamespace(ctx context.Context) (string, *bridge.Result) {
	if known := t.namespaceID.Load(); known != nil {
		return *known, nil
	}
	found, err := t.service.DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: t.namespace})
	if err != nil {
		return "", unseen(err, "the namespace", "DescribeNamespace", t.namespace)
	}
	id := found.GetNamespaceInfo().GetId()
	t.namespaceID.Store(&id)
	return id, nil
}

func (t *Target) look(ctx context.Context, of Address) (*workflowservice.DescribeWorkflowExecutionResponse, *bridge.Result) {
	found, err := t.service.DescribeWorkflowExecution(ctx, &workflowservice.DescribeWorkflowExecutionRequest{
		Namespace: t.namespace,
		Execution: &commonpb.WorkflowExecution{WorkflowId: of.WorkflowID, RunId: of.RunID},
	})
	if err != nil {
		failed := unseen(err, "the caller's workflow", "DescribeWorkflowExecution", t.namespace)
		if failed.Verdict == bridge.Closed {
			failed.Err = noCaller(of.WorkflowID)
		}
		return nil, failed
	}
	return found, nil
}

// noCaller says the same of a workflow that there is not and of one of bellhop's own: a tenant must not learn which
// operations of others there are.
func noCaller(workflowID string) error {
	return fmt.Errorf("no caller has workflow %q: either there is none, or it is bellhop's own, which no callback reaches", workflowID)
}

// unseen says what it means that something could not be looked at. Nobody has been called by then.
func unseen(err error, what, right, namespace string) *bridge.Result {
	result := classify(err)
	result.Unknown = false
	switch serviceerror.ToStatus(err).Code() {
	case codes.PermissionDenied, codes.Unauthenticated:
		result.Err = fmt.Errorf("bellhop looks at %s before it calls back, and may not: "+
			"let the target's credentials call %s in namespace %s, which reading does: %w", what, right, namespace, result.Err)
	}
	return &result
}

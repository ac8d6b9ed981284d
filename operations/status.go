package operations

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	failurepb "go.temporal.io/api/failure/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"bellhop"
	"bellhop/activities"
	"bellhop/workflows"
)

// queryTimeout is how long a worker may take to answer a query before the status is told without it.
const queryTimeout = 3 * time.Second

// Status tells where an operation stands.
func (c *Client) Status(ctx context.Context, id string) (bellhop.Report, error) {
	found, err := c.describe(ctx, id)
	if err != nil {
		return bellhop.Report{}, err
	}
	status, silence := c.query(ctx, id)
	if silence != nil {
		if ctx.Err() != nil {
			return bellhop.Report{}, ctx.Err()
		}
		if status, err = c.recall(ctx, found); err != nil {
			return bellhop.Report{}, err
		}
	} else if closed(found) && !status.State.Terminal() {
		// The workflow was terminated: it cannot know.
		if status.Outcome, err = c.outcome(ctx, id, status.Outcome); err != nil {
			return bellhop.Report{}, err
		}
		status.Transitions = append(status.Transitions, bellhop.Transition{State: status.State, At: status.FinishedAt})
	}
	pending(&status, found.GetPendingActivities())
	if err := c.redelivered(ctx, &status, closed(found)); err != nil {
		return bellhop.Report{}, err
	}
	return bellhop.Report{Status: status, Silence: silence}, nil
}

func closed(found *workflowservice.DescribeWorkflowExecutionResponse) bool {
	return found.GetWorkflowExecutionInfo().GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
}

func (c *Client) query(ctx context.Context, id string) (bellhop.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	var status bellhop.Status
	answer, err := c.temporal.QueryWorkflow(ctx, id, "", workflows.QueryStatus)
	if err != nil {
		return status, err
	}
	if err := answer.Get(&status); err != nil {
		return status, err
	}
	return status, nil
}

// Refresh has the resource observed now and tells where the operation stands. When it was observed a moment ago, has
// finished or cannot be refreshed, it is [Client.Status].
func (c *Client) Refresh(ctx context.Context, id string) (bellhop.Report, error) {
	updating, cancel := context.WithTimeout(ctx, 2*queryTimeout)
	defer cancel()
	handle, err := c.temporal.UpdateWorkflow(updating, client.UpdateWorkflowOptions{
		WorkflowID:   id,
		UpdateName:   workflows.UpdateRefresh,
		WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err == nil {
		// Its answer lacks the deliveries that are being tried, so the status is asked for all the same.
		err = handle.Get(updating, nil)
	}
	if err != nil && ctx.Err() != nil {
		return bellhop.Report{}, ctx.Err()
	}
	return c.Status(ctx, id)
}

// pending fills in the deliveries that are still being tried.
func pending(status *bellhop.Status, tried []*workflowpb.PendingActivityInfo) {
	for _, info := range tried {
		if i, state, ok := workflows.Delivered(info.GetActivityId()); ok && i < len(status.Callbacks) {
			// Afresh: what is there may be the receipt of an earlier state.
			status.Callbacks[i] = bellhop.Receipt{
				Target:     status.Callbacks[i].Target,
				CallbackID: bellhop.CallbackID(status.OperationID, state),
			}
			activities.Pending(&status.Callbacks[i], info)
		}
	}
}

// recall puts a status together without any worker: from what was asked for, from the deliveries that were settled, and
// from how the workflow was closed.
func (c *Client) recall(ctx context.Context, found *workflowservice.DescribeWorkflowExecutionResponse) (bellhop.Status, error) {
	info := found.GetWorkflowExecutionInfo()
	id, verb := info.GetExecution().GetWorkflowId(), workflows.VerbOf(info.GetType().GetName())
	input, receipts, err := c.history(ctx, id)
	if err != nil {
		return bellhop.Status{}, err
	}
	op, _ := bellhop.ParseOperation(id, verb, info.GetStartTime().AsTime(), input) //nolint:errcheck // an operation with faults fails and says so
	status := bellhop.Status{
		Outcome: bellhop.Outcome{
			SchemaVersion: bellhop.SchemaVersion,
			OperationID:   id,
			OperationType: verb,
			TenantID:      op.TenantID,
			Resource:      op.Resource,
			Provider:      op.Provider,
			State:         visibleState(info),
			RequestedAt:   op.RequestedAt,
			Metadata:      op.Metadata,
		},
		Progress:    bellhop.Progress{Desired: op.Spec.Replicas},
		Transitions: []bellhop.Transition{{State: bellhop.Pending, At: op.RequestedAt}},
		Callbacks:   []bellhop.Receipt{},
	}
	for i, callback := range op.Callbacks {
		receipt := bellhop.Receipt{Target: callback.Target, State: bellhop.ReceiptPending}
		if settled, ok := receipts[i]; ok {
			receipt = settled
			receipt.Target = callback.Target
		}
		status.Callbacks = append(status.Callbacks, receipt)
	}
	if closed(found) {
		if status.Outcome, err = c.outcome(ctx, id, status.Outcome); err != nil {
			return bellhop.Status{}, err
		}
		status.Transitions = append(status.Transitions, bellhop.Transition{State: status.State, At: status.FinishedAt})
		if status.State == bellhop.Succeeded { // which means observed: all of them
			status.Progress.Ready = status.Progress.Desired
		}
	}
	status.CallbackID = bellhop.CallbackID(id, status.State)
	status.Event = bellhop.EventFor(verb, status.State)
	return status, nil
}

// history reads what the operation's workflow was started with, and the receipts of the deliveries that were settled,
// by callback.
func (c *Client) history(ctx context.Context, id string) ([]byte, map[int]bellhop.Receipt, error) {
	var input []byte
	scheduled := map[int64]string{} // activity ids by event
	receipts := map[int]bellhop.Receipt{}
	events := c.temporal.GetWorkflowHistory(ctx, id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		if err != nil {
			return nil, nil, fmt.Errorf("read history of %s: %w", id, notFound(err))
		}
		switch event.GetEventType() {
		case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
			input = firstPayload(event.GetWorkflowExecutionStartedEventAttributes().GetInput())
		case enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
			scheduled[event.GetEventId()] = event.GetActivityTaskScheduledEventAttributes().GetActivityId()
		case enumspb.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
			completed := event.GetActivityTaskCompletedEventAttributes()
			abandoned(receipts, scheduled[completed.GetScheduledEventId()], completed.GetResult())
			callback, _, ok := workflows.Delivered(scheduled[completed.GetScheduledEventId()])
			var receipt bellhop.Receipt
			if ok && converter.GetDefaultDataConverter().FromPayloads(completed.GetResult(), &receipt) == nil {
				receipts[callback] = receipt
			}
		case enumspb.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT:
			attributes := event.GetActivityTaskTimedOutEventAttributes()
			late(receipts, id, scheduled[attributes.GetScheduledEventId()], attributes.GetFailure())
		case enumspb.EVENT_TYPE_ACTIVITY_TASK_FAILED:
			attributes := event.GetActivityTaskFailedEventAttributes()
			late(receipts, id, scheduled[attributes.GetScheduledEventId()], attributes.GetFailure())
		}
	}
	return input, receipts, nil
}

// abandoned notes a caller of whom a heartbeat found that it waits no longer. Nothing is delivered to it afterwards, and
// a delivery that has begun before finds out by itself.
func abandoned(receipts map[int]bellhop.Receipt, activityID string, result *commonpb.Payloads) {
	var callback int
	if _, err := fmt.Sscanf(activityID, "heartbeat-%d", &callback); err != nil || activityID != workflows.HeartbeatID(callback) {
		return
	}
	var found activities.Abandoned
	if _, known := receipts[callback]; !known && converter.GetDefaultDataConverter().FromPayloads(result, &found) == nil {
		receipts[callback] = bellhop.Receipt{State: bellhop.ReceiptUndeliverable, LastError: found.LastError()}
	}
}

// late notes a delivery that did not end well. Attempts are repeated for ever, so its deadline has passed.
func late(receipts map[int]bellhop.Receipt, id, activityID string, failure *failurepb.Failure) {
	callback, state, ok := workflows.Delivered(activityID)
	if !ok {
		return
	}
	receipt := bellhop.Receipt{
		State:      bellhop.ReceiptUndeliverable,
		CallbackID: bellhop.CallbackID(id, state),
		LastError:  "its deadline passed",
	}
	err := temporal.GetDefaultFailureConverter().FailureToError(failure)
	activities.GaveUp(&receipt, err)
	if last, ok := errors.AsType[*temporal.ApplicationError](err); ok {
		receipt.LastError = fmt.Sprintf("its deadline passed: %s: %s", last.Type(), last.Message())
	}
	receipts[callback] = receipt
}

// outcome is how the operation's workflow was closed. One that was closed by other means than its own code, which
// nothing of ours does, has failed as far as anybody can know; known is what is known of it besides.
func (c *Client) outcome(ctx context.Context, id string, known bellhop.Outcome) (bellhop.Outcome, error) {
	history := c.temporal.GetWorkflowHistory(ctx, id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT)
	if !history.HasNext() {
		return known, fmt.Errorf("read history of %s: %w", id, bellhop.ErrNotFound)
	}
	event, err := history.Next()
	if err != nil {
		return known, fmt.Errorf("read history of %s: %w", id, notFound(err))
	}
	var payloads *commonpb.Payloads
	reason := "ended in a way that bellhop does not end it"
	switch event.GetEventType() {
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
		payloads = event.GetWorkflowExecutionCompletedEventAttributes().GetResult()
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED:
		failure := event.GetWorkflowExecutionFailedEventAttributes().GetFailure()
		payloads = failure.GetApplicationFailureInfo().GetDetails()
		reason = "failed by itself: " + failure.GetMessage()
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED:
		payloads = event.GetWorkflowExecutionCanceledEventAttributes().GetDetails()
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED:
		reason = "terminated: " + event.GetWorkflowExecutionTerminatedEventAttributes().GetReason()
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT:
		reason = "timed out as a whole"
	}
	var outcome bellhop.Outcome
	if converter.GetDefaultDataConverter().FromPayloads(payloads, &outcome) == nil && outcome.OperationID != "" {
		return outcome, nil
	}
	known.State = bellhop.Failed
	known.CallbackID = bellhop.CallbackID(id, bellhop.Failed)
	known.Event = bellhop.EventFailed
	known.FinishedAt = event.GetEventTime().AsTime()
	known.Error = bellhop.Fail(bellhop.CodeInternal, "the operation's workflow was %s; nobody was called back", reason)
	return known, nil
}

// visibleState is an operation's state as Temporal's visibility has it.
func visibleState(info *workflowpb.WorkflowExecutionInfo) bellhop.State {
	switch info.GetStatus() {
	case enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED:
		return bellhop.Succeeded
	case enumspb.WORKFLOW_EXECUTION_STATUS_CANCELED:
		return bellhop.Cancelled
	case enumspb.WORKFLOW_EXECUTION_STATUS_FAILED, enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED,
		enumspb.WORKFLOW_EXECUTION_STATUS_TIMED_OUT:
		return bellhop.Failed
	}
	if state := keyword(info, workflows.State); state != "" {
		return bellhop.State(state)
	}
	return bellhop.Pending
}

func keyword(info *workflowpb.WorkflowExecutionInfo, key temporal.SearchAttributeKeyKeyword) string {
	var value string
	payload, ok := info.GetSearchAttributes().GetIndexedFields()[key.GetName()]
	if !ok || json.Unmarshal(payload.GetData(), &value) != nil {
		return ""
	}
	return value
}

// Unreachable says whether an error means that Temporal itself could not be reached.
func Unreachable(err error) bool {
	var unavailable *serviceerror.Unavailable
	var deadline *serviceerror.DeadlineExceeded
	return errors.As(err, &unavailable) || errors.As(err, &deadline) || errors.Is(err, context.DeadlineExceeded)
}

package operations

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
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

// Status tells where an operation stands. One whose workflow is closed is told from its history, as long as Temporal
// retains it: to query it would have a worker replay it.
func (c *Client) Status(ctx context.Context, id string) (bellhop.Report, error) {
	sight, err := c.look(ctx, id)
	return sight.Report, err
}

// sight is what a look at an operation finds: first its workflow as Temporal has it, and then its status.
type sight struct {
	bellhop.Report
	found *workflowservice.DescribeWorkflowExecutionResponse
	// past is nil where it was not needed.
	past *past
}

func (c *Client) look(ctx context.Context, id string) (sight, error) {
	found, err := c.describe(ctx, id)
	if err != nil {
		return sight{}, err
	}
	s := sight{found: found}
	if !closed(found) {
		s.Status, s.Silence = c.query(ctx, found.GetWorkflowExecutionInfo().GetExecution())
	}
	if closed(found) || s.Silence != nil {
		if ctx.Err() != nil {
			return sight{}, ctx.Err()
		}
		if s.past, err = c.read(ctx, found); err != nil {
			return sight{}, err
		}
		s.Status = recall(found, s.past)
	}
	if !closed(found) {
		c.pending(&s.Status, found.GetPendingActivities())
	}
	if err := c.redelivered(ctx, &s.Status, closed(found)); err != nil {
		return sight{}, err
	}
	return s, nil
}

func closed(found *workflowservice.DescribeWorkflowExecutionResponse) bool {
	return found.GetWorkflowExecutionInfo().GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
}

func (c *Client) query(ctx context.Context, of *commonpb.WorkflowExecution) (bellhop.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	var status bellhop.Status
	answer, err := c.temporal.QueryWorkflow(ctx, of.GetWorkflowId(), of.GetRunId(), workflows.QueryStatus)
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
	found, err := c.describe(ctx, id)
	if err != nil {
		return bellhop.Report{}, err
	}
	updating, cancel := context.WithTimeout(ctx, 2*queryTimeout)
	defer cancel()
	handle, err := c.temporal.UpdateWorkflow(updating, client.UpdateWorkflowOptions{
		WorkflowID: id,
		// It goes to the operation that was found, and to no other workflow that may have the id by then.
		FirstExecutionRunID: found.GetWorkflowExecutionInfo().GetFirstRunId(),
		UpdateName:          workflows.UpdateRefresh,
		WaitForStage:        client.WorkflowUpdateStageCompleted,
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
func (c *Client) pending(status *bellhop.Status, tried []*workflowpb.PendingActivityInfo) {
	for _, info := range tried {
		if i, state, ok := workflows.Delivered(info.GetActivityId()); ok && i < len(status.Callbacks) {
			// Afresh: what is there may be the receipt of an earlier state.
			status.Callbacks[i] = bellhop.Receipt{
				Target:     status.Callbacks[i].Target,
				CallbackID: bellhop.CallbackID(status.OperationID, state),
			}
			activities.Pending(&status.Callbacks[i], info, c.in(status.OperationID).Data())
		}
	}
}

// recall puts a status together without any worker: from what the history of the operation's workflow tells.
func recall(found *workflowservice.DescribeWorkflowExecutionResponse, past *past) bellhop.Status {
	info, op := found.GetWorkflowExecutionInfo(), past.op
	status := bellhop.Status{
		Outcome: bellhop.Outcome{
			SchemaVersion: bellhop.SchemaVersion,
			OperationID:   op.ID,
			OperationType: op.Verb,
			TenantID:      op.TenantID,
			Resource:      op.Resource,
			Provider:      op.Provider,
			State:         visibleState(info),
			ResourceIDs:   past.seen.ResourceIDs,
			Endpoints:     past.seen.Endpoints,
			RequestedAt:   op.RequestedAt,
			Metadata:      op.Metadata,
		},
		Progress:    bellhop.Progress{Desired: op.Spec.Replicas},
		Transitions: past.transitions,
		Callbacks:   []bellhop.Receipt{},
	}
	if past.seen.Progress != (bellhop.Progress{}) {
		status.Progress = past.seen.Progress
	}
	if reached := past.transitions; len(reached) > 1 {
		status.StartedAt = reached[1].At
		status.DurationMS = reached[len(reached)-1].At.Sub(status.StartedAt).Milliseconds()
	}
	switch {
	case closed(found):
		status.Outcome = past.concluded(op.ID, status.Outcome)
	case past.outcome != nil: // its callers are still being rung
		status.Outcome = *past.outcome
	default:
		status.State = past.transitions[len(past.transitions)-1].State
	}
	if status.State.Terminal() {
		status.Transitions = append(status.Transitions, bellhop.Transition{State: status.State, At: status.FinishedAt})
		if status.Error != nil {
			status.Progress.Message = ""
		}
	}
	for i, callback := range op.Callbacks {
		status.Callbacks = append(status.Callbacks, past.receipt(i, callback, status.State))
	}
	status.CallbackID = bellhop.CallbackID(op.ID, status.State)
	status.Event = bellhop.EventFor(op.Verb, status.State)
	return status
}

// concluded is how the operation's workflow was closed. One that was closed by other means than its own code, which nothing
// of ours does, has failed as far as anybody can know, unless it had concluded before, and told it; known is what is known
// of it besides.
func (p *past) concluded(id string, known bellhop.Outcome) bellhop.Outcome {
	event := p.last
	var payloads *commonpb.Payloads
	reason := "ended in a way that bellhop does not end it"
	switch event.GetEventType() {
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
		payloads = event.GetWorkflowExecutionCompletedEventAttributes().GetResult()
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED:
		failure := event.GetWorkflowExecutionFailedEventAttributes().GetFailure()
		payloads = failure.GetApplicationFailureInfo().GetDetails()
		converter.DecodeCommonFailureAttributes(p.converters.Data(), failure)
		reason = "failed by itself: " + failure.GetMessage()
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED:
		payloads = event.GetWorkflowExecutionCanceledEventAttributes().GetDetails()
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED:
		reason = "terminated: " + event.GetWorkflowExecutionTerminatedEventAttributes().GetReason()
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT:
		reason = "timed out as a whole"
	}
	var outcome bellhop.Outcome
	if p.decode(payloads, &outcome) && outcome.OperationID != "" {
		return outcome
	}
	if p.outcome != nil {
		return *p.outcome
	}
	known.State = bellhop.Failed
	known.CallbackID = bellhop.CallbackID(id, bellhop.Failed)
	known.Event = bellhop.EventFailed
	known.FinishedAt = event.GetEventTime().AsTime()
	known.Error = bellhop.Fail(bellhop.CodeInternal, "the operation's workflow was %s; nobody was called back", reason)
	return known
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
	if state := keyword(info.GetSearchAttributes(), workflows.State); state != "" {
		return bellhop.State(state)
	}
	return bellhop.Pending
}

func keyword(attributes *commonpb.SearchAttributes, key temporal.SearchAttributeKeyKeyword) string {
	var value string
	payload, ok := attributes.GetIndexedFields()[key.GetName()]
	if !ok || json.Unmarshal(payload.GetData(), &value) != nil {
		return ""
	}
	return value
}

// Exhausted says whether an error means that too much was asked for: of Temporal, or by a tenant. It may be asked for
// again.
func Exhausted(err error) bool {
	var exhausted *serviceerror.ResourceExhausted
	return errors.As(err, &exhausted) || errors.Is(err, bellhop.ErrTooMany)
}

// Unreachable says whether an error means that Temporal itself could not be reached.
func Unreachable(err error) bool {
	var unavailable *serviceerror.Unavailable
	var deadline *serviceerror.DeadlineExceeded
	return errors.As(err, &unavailable) || errors.As(err, &deadline) || errors.Is(err, context.DeadlineExceeded)
}

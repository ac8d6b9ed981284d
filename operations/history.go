package operations

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	failurepb "go.temporal.io/api/failure/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/temporal"

	"bellhop"
	"bellhop/activities"
	"bellhop/encryption"
	"bellhop/workflows"
)

// past is what the history of an operation's workflow tells of it: what the workflow itself would answer, without a
// worker that replays it.
type past struct {
	// op is what was asked for.
	op bellhop.Operation
	// transitions are the states that were reached, the last one excepted.
	transitions []bellhop.Transition
	// seen is what was observed of the resource, ids and endpoints as they were last known.
	seen bellhop.Observation
	// receipts are the callbacks that were begun to be delivered, by index, and deliveries what was last sent: nil where it
	// cannot be read. Unknown says there that it was given up and may have arrived all the same.
	receipts   map[int]bellhop.Receipt
	deliveries map[int]*activities.Delivery
	// gone are the callbacks whose caller was found to wait no longer, with what the receipt says of it.
	gone map[int]string
	// outcome is how the operation ended, as it is told to callbacks that ask for it; nil while it is not.
	outcome *bellhop.Outcome
	// last is the event that closed the workflow, if it is closed.
	last *historypb.HistoryEvent

	// scheduled are the activities by the event that scheduled them.
	scheduled map[int64]*historypb.ActivityTaskScheduledEventAttributes
	// taken says that the provider took the request, which the workflow has yet to hear.
	taken bool
	// converters are those of the operation's workflow.
	converters encryption.Converters
	// began is when the workflow task began that is not completed yet: the workflow's time while it runs.
	began map[int64]time.Time
}

// read reads the history of an operation's workflow.
func (c *Client) read(ctx context.Context, found *workflowservice.DescribeWorkflowExecutionResponse) (*past, error) {
	info := found.GetWorkflowExecutionInfo()
	id := info.GetExecution().GetWorkflowId()
	p := &past{
		receipts: map[int]bellhop.Receipt{}, deliveries: map[int]*activities.Delivery{},
		gone: map[int]string{}, began: map[int64]time.Time{},
		scheduled:  map[int64]*historypb.ActivityTaskScheduledEventAttributes{},
		converters: c.in(id),
	}
	events := c.temporal.GetWorkflowHistory(ctx, id, info.GetExecution().GetRunId(), false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		if err != nil {
			return nil, fmt.Errorf("read history of %s: %w", id, notFound(err))
		}
		if started := event.GetWorkflowExecutionStartedEventAttributes(); started != nil {
			input, err := firstPayload(started.GetInput(), p.converters)
			if err != nil {
				return nil, fmt.Errorf("read history of %s: %w", id, err)
			}
			//nolint:errcheck // an operation with faults fails and says so
			p.op, _ = bellhop.ParseOperation(id, workflows.VerbOf(info.GetType().GetName()), event.GetEventTime().AsTime(),
				input)
		}
		p.note(event)
		p.last = event
	}
	if len(p.transitions) == 0 { // it was removed a moment ago
		return nil, fmt.Errorf("read history of %s: %w", id, bellhop.ErrNotFound)
	}
	return p, nil
}

func (p *past) note(event *historypb.HistoryEvent) {
	switch event.GetEventType() {
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
		p.reach(bellhop.Pending, event.GetEventTime().AsTime())
	case enumspb.EVENT_TYPE_WORKFLOW_TASK_STARTED:
		p.began[event.GetEventId()] = event.GetEventTime().AsTime()
	case enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
		// The workflow advances by these. What happened since the last one it heard of in this one.
		now := p.began[event.GetWorkflowTaskCompletedEventAttributes().GetStartedEventId()]
		if len(p.transitions) == 1 {
			p.reach(bellhop.Queued, now)
		}
		if p.taken {
			p.taken = false
			p.reach(bellhop.Running, now)
		}
	case enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
		attributes := event.GetActivityTaskScheduledEventAttributes()
		p.scheduled[event.GetEventId()] = attributes
		if callback, state, ok := workflows.Delivered(attributes.GetActivityId()); ok {
			p.deliver(callback, state, attributes.GetInput())
		}
	case enumspb.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
		attributes := event.GetActivityTaskCompletedEventAttributes()
		p.completed(p.scheduled[attributes.GetScheduledEventId()], attributes.GetResult())
	case enumspb.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT:
		attributes := event.GetActivityTaskTimedOutEventAttributes()
		p.late(p.scheduled[attributes.GetScheduledEventId()], attributes.GetFailure())
	case enumspb.EVENT_TYPE_ACTIVITY_TASK_FAILED:
		attributes := event.GetActivityTaskFailedEventAttributes()
		p.late(p.scheduled[attributes.GetScheduledEventId()], attributes.GetFailure())
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
		attributes := event.GetWorkflowExecutionSignaledEventAttributes()
		var seen bellhop.Observation
		if attributes.GetSignalName() == workflows.SignalObserved && p.decode(attributes.GetInput(), &seen) && seen.OperationID == p.op.ID {
			p.see(seen)
		}
	}
}

// deliver notes that a callback began to be delivered.
func (p *past) deliver(callback int, state bellhop.State, input *commonpb.Payloads) {
	p.receipts[callback] = bellhop.Receipt{
		State:      bellhop.ReceiptDelivering,
		CallbackID: bellhop.CallbackID(p.op.ID, state),
	}
	p.deliveries[callback] = nil
	var delivery activities.Delivery
	if !p.decode(input, &delivery) {
		return
	}
	p.deliveries[callback] = &delivery
	var outcome bellhop.Outcome
	if state.Terminal() && json.Unmarshal(delivery.Outcome, &outcome) == nil {
		p.outcome = &outcome
	}
}

func (p *past) reach(state bellhop.State, at time.Time) {
	p.transitions = append(p.transitions, bellhop.Transition{State: state, At: at.UTC()})
}

// completed notes the result of an activity: a callback that was delivered, or something that was seen of the resource.
func (p *past) completed(scheduled *historypb.ActivityTaskScheduledEventAttributes, result *commonpb.Payloads) {
	if callback, _, ok := workflows.Delivered(scheduled.GetActivityId()); ok {
		var receipt bellhop.Receipt
		if p.decode(result, &receipt) {
			p.receipts[callback] = receipt
		}
		return
	}
	if callback, ok := workflows.Beaten(scheduled.GetActivityId()); ok {
		var abandoned activities.Abandoned
		if p.outcome == nil && p.decode(result, &abandoned) { // else its delivery finds out
			p.gone[callback] = abandoned.LastError()
		}
		return
	}
	var answer activities.Answer
	if !p.decode(result, &answer) || answer.Phase == "" {
		return
	}
	running := func(t bellhop.Transition) bool { return t.State == bellhop.Running }
	if asks := scheduled.GetActivityType().GetName() != "Observe"; asks && !slices.ContainsFunc(p.transitions, running) {
		switch answer.Phase {
		case bellhop.PhasePending, bellhop.PhaseReady:
			p.taken = true
		case bellhop.PhaseGone:
			p.taken = p.op.Verb == bellhop.Delete
		case bellhop.PhaseFailed, bellhop.PhaseSuperseded:
		}
	}
	p.see(answer.Observation)
}

// see takes an observation over as the workflow does: ids that are known are not lost to an observation that has none.
func (p *past) see(seen bellhop.Observation) {
	if seen.ResourceIDs.IsZero() && (seen.Phase != bellhop.PhaseGone || p.op.Verb == bellhop.Delete) {
		seen.ResourceIDs, seen.Endpoints = p.seen.ResourceIDs, p.seen.Endpoints
	}
	if seen.Progress == (bellhop.Progress{}) {
		seen.Progress = p.seen.Progress
	}
	p.seen = seen
}

// late notes a delivery that did not end well. Attempts are repeated for ever, so its deadline has passed.
func (p *past) late(scheduled *historypb.ActivityTaskScheduledEventAttributes, failure *failurepb.Failure) {
	callback, state, ok := workflows.Delivered(scheduled.GetActivityId())
	if !ok {
		return
	}
	receipt := bellhop.Receipt{
		State:      bellhop.ReceiptUndeliverable,
		CallbackID: bellhop.CallbackID(p.op.ID, state),
		LastError:  "its deadline passed: no answer came",
	}
	err := p.converters.Failure().FailureToError(failure)
	activities.GaveUp(&receipt, err)
	if last, ok := errors.AsType[*temporal.ApplicationError](err); ok {
		receipt.LastError = fmt.Sprintf("its deadline passed: %s: %s", last.Type(), last.Message())
	}
	p.receipts[callback] = receipt
	if delivery := p.deliveries[callback]; delivery != nil {
		delivery.Unknown = activities.MayHaveArrived(err)
	}
}

// receipt tells what became of a callback of an operation that reached a state.
func (p *past) receipt(i int, callback bellhop.Callback, reached bellhop.State) bellhop.Receipt {
	receipt, begun := p.receipts[i]
	receipt.Target = callback.Target
	if why, ok := p.gone[i]; ok {
		receipt.State, receipt.LastError = bellhop.ReceiptUndeliverable, why
		if reached.Terminal() {
			receipt.CallbackID = bellhop.CallbackID(p.op.ID, reached)
		}
		return receipt
	}
	last := bellhop.CallbackID(p.op.ID, reached)
	switch p.last.GetEventType() {
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED, enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT:
		if receipt.State == bellhop.ReceiptDelivering || !begun && callback.Wants(reached) {
			receipt.State, receipt.CallbackID = bellhop.ReceiptUndeliverable, last
			receipt.LastError = "the operation's workflow was ended by other means before it was answered"
			return receipt
		}
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED, enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
		enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED:
		if begun && callback.Wants(reached) && receipt.CallbackID != last {
			// The state before was delivered too late for this one to be tried.
			return bellhop.Receipt{
				Target: callback.Target, State: bellhop.ReceiptUndeliverable, CallbackID: last,
				LastError: "its deadline passed before it could be tried",
			}
		}
	}
	if !begun {
		receipt.State = bellhop.ReceiptPending
	}
	return receipt
}

func (p *past) decode(payloads *commonpb.Payloads, into any) bool {
	return p.converters.Data().FromPayloads(payloads, into) == nil
}

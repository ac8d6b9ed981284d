package operations

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"bellhop"
	"bellhop/activities"
	"bellhop/workflows"
)

// Redeliver rings callers again whose callback has not reached them: one that waits for its next attempt is tried at
// once, and one that was given up is delivered anew, with the same bytes, also when the operation has closed. One that is
// being rung at this moment is left alone, so no delivery is ever doubled. An empty target stands for all. It answers the
// targets that are rung, each once: none when every callback is settled.
func (c *Client) Redeliver(ctx context.Context, id, target string) ([]string, error) {
	return c.redeliver(ctx, id, target, time.Time{})
}

// redeliver is Redeliver for an operation that has ended at since or later.
func (c *Client) redeliver(ctx context.Context, id, target string, since time.Time) ([]string, error) {
	seen, err := c.look(ctx, id)
	if err != nil {
		return nil, err
	}
	if !seen.FinishedAt.IsZero() && seen.FinishedAt.Before(since) {
		return nil, nil
	}
	var rung []string
	for i, receipt := range seen.Callbacks {
		if target != "" && receipt.Target != target {
			continue
		}
		rings, err := c.ring(ctx, &seen, i)
		if err != nil {
			return rung, fmt.Errorf("redeliver to %s: %w", receipt.Target, err)
		}
		if rings && !slices.Contains(rung, receipt.Target) {
			rung = append(rung, receipt.Target)
		}
	}
	return rung, nil
}

// RedeliverAll redelivers what a filter finds, telling each operation, the targets that are rung and what went wrong. It
// goes on after an error with one operation.
func (c *Client) RedeliverAll(ctx context.Context, filter bellhop.Filter, target string, tell func(id string, rung []string, err error)) error {
	filter.Undelivered = true
	var page []byte
	for {
		found, next, err := c.inspectPage(ctx, filter, inspectedAtOnce, page)
		if err != nil {
			return err
		}
		for _, one := range found {
			if one.err == nil && len(one.Undelivered) == 0 {
				continue
			}
			rung, err := []string(nil), one.err
			if err == nil {
				rung, err = c.redeliver(ctx, one.OperationID, target, filter.Since)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			tell(one.OperationID, rung, err)
		}
		if page = next; len(page) == 0 {
			return nil
		}
	}
}

// ring rings the caller of one callback, unless it has been reached.
func (c *Client) ring(ctx context.Context, seen *sight, i int) (bool, error) {
	id, receipt := seen.OperationID, seen.Callbacks[i]
	if receipt.State.Settled() && receipt.State != bellhop.ReceiptUndeliverable {
		return false, nil
	}
	if rings, err := c.hasten(ctx, seen.found, i); rings || err != nil {
		return rings, err
	}
	if !closed(seen.found) && receipt.State != bellhop.ReceiptUndeliverable {
		return false, nil // its state is not reached, or it has been settled by now
	}
	if seen.past == nil {
		var err error
		if seen.past, err = c.read(ctx, seen.found); err != nil {
			return false, err
		}
	}
	delivery, err := seen.givenUp(i)
	if err != nil || delivery == nil {
		return false, err
	}
	under, err := c.redelivery(ctx, seen.Outcome, i, delivery.State)
	if err != nil {
		return false, err
	}
	if under != nil && !closed(under) {
		_, err := c.hasten(ctx, under, i)
		return true, err
	}
	if under != nil && under.GetWorkflowExecutionInfo().GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED {
		return false, nil // it has reached the caller
	}
	again := workflows.RedeliverID(id, seen.RequestedAt, i, delivery.State)
	_, err = c.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID:        again,
		TaskQueue: c.taskQueue,
		// Somebody else may have been faster, and even have reached the caller since the status was asked for.
		WorkflowIDConflictPolicy:                 enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		WorkflowIDReusePolicy:                    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
		StaticSummary:                            fmt.Sprintf("ring %s again: %s", receipt.Target, delivery.CallbackID),
		Priority:                                 temporal.Priority{FairnessKey: seen.TenantID, FairnessWeight: c.policy.For(seen.TenantID).Weight},
		TypedSearchAttributes:                    temporal.NewSearchAttributes(workflows.Tenant.ValueSet(seen.TenantID)),
		Memo:                                     seen.remaining(),
	}, workflows.RedeliverCallback, i, *delivery)
	if _, reached := errors.AsType[*serviceerror.WorkflowExecutionAlreadyStarted](err); reached {
		return false, nil
	}
	return err == nil, err
}

// hasten has the delivery to a callback tried at once, if one is pending. One whose attempt is under way is left alone:
// to reset it would make Temporal forget that it began, and whether a caller that has ended since was reached could not
// be told.
func (c *Client) hasten(ctx context.Context, of *workflowservice.DescribeWorkflowExecutionResponse, callback int) (bool, error) {
	for _, info := range of.GetPendingActivities() {
		if i, _, ok := workflows.Delivered(info.GetActivityId()); !ok || i != callback {
			continue
		}
		if info.GetState() == enumspb.PENDING_ACTIVITY_STATE_STARTED {
			return true, nil
		}
		_, err := c.temporal.WorkflowService().ResetActivity(ctx, &workflowservice.ResetActivityRequest{
			Namespace: c.namespace,
			Execution: of.GetWorkflowExecutionInfo().GetExecution(),
			Identity:  "bellhop",
			Activity:  &workflowservice.ResetActivityRequest_Id{Id: info.GetActivityId()},
		})
		if _, settled := errors.AsType[*serviceerror.NotFound](err); settled { // in the meantime
			return false, nil
		}
		return err == nil, err
	}
	return false, nil
}

// givenUp is the delivery that was given up, as the operation's workflow made it. Where it never came to that, because
// the caller was found gone before, or the workflow was terminated, it is made of how the operation ended; nil when the
// caller did not ask for that.
func (s *sight) givenUp(callback int) (*activities.Delivery, error) {
	delivery, begun := s.past.deliveries[callback]
	if begun && delivery == nil {
		return nil, fmt.Errorf("read history of %s: the delivery to callback %d cannot be read", s.OperationID, callback)
	}
	if begun && (delivery.State == s.State || !s.State.Terminal()) {
		return delivery, nil
	}
	callbacks := s.past.op.Callbacks
	if !s.State.Terminal() || callback >= len(callbacks) || !callbacks[callback].Wants(s.State) {
		return nil, nil //nolint:nilnil // nothing to deliver, and nothing wrong
	}
	outcome, err := json.Marshal(s.Outcome)
	if err != nil {
		return nil, fmt.Errorf("encode outcome: %w", err)
	}
	return &activities.Delivery{
		Callback:    callbacks[callback],
		CallbackID:  s.CallbackID,
		Event:       s.Event,
		State:       s.State,
		Outcome:     outcome,
		ReachedAt:   s.FinishedAt,
		RequestedAt: s.RequestedAt,
	}, nil
}

// redelivery finds the workflow that rings a caller of an operation again; nil when there is none.
func (c *Client) redelivery(ctx context.Context, of bellhop.Outcome, callback int, state bellhop.State,
) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	for _, id := range []string{
		workflows.RedeliverID(of.OperationID, of.RequestedAt, callback, state),
		workflows.OldRedeliverID(of.OperationID, callback, state),
	} {
		found, err := c.temporal.DescribeWorkflowExecution(ctx, id, "")
		if _, none := errors.AsType[*serviceerror.NotFound](err); none {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("find redelivery of %s: %w", bellhop.CallbackID(of.OperationID, state), err)
		}
		// One of the first version may be of an earlier operation under the same id: nothing rings for this one before it
		// was requested.
		if started := found.GetWorkflowExecutionInfo().GetStartTime().AsTime(); started.After(of.RequestedAt) {
			return found, nil
		}
	}
	return nil, nil //nolint:nilnil // there is none, and nothing wrong
}

// redelivered fills in what became of the callbacks that were rung again after they had been given up.
func (c *Client) redelivered(ctx context.Context, status *bellhop.Status, closed bool) error {
	for i := range status.Callbacks {
		receipt := &status.Callbacks[i]
		state := status.State
		if receipt.CallbackID != "" {
			state = bellhop.State(receipt.CallbackID[strings.LastIndexByte(receipt.CallbackID, '/')+1:])
		}
		if receipt.State != bellhop.ReceiptUndeliverable && (receipt.State.Settled() || !closed) {
			continue
		}
		found, err := c.redelivery(ctx, status.Outcome, i, state)
		if err != nil {
			return err
		}
		if found == nil {
			continue
		}
		if found.GetWorkflowExecutionInfo().GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
			*receipt = bellhop.Receipt{
				Target: receipt.Target, CallbackID: bellhop.CallbackID(status.OperationID, state), State: bellhop.ReceiptDelivering,
			}
			for _, info := range found.GetPendingActivities() {
				activities.Pending(receipt, info, c.in(found.GetWorkflowExecutionInfo().GetExecution().GetWorkflowId()).Data())
			}
			continue
		}
		var settled bellhop.Receipt
		run := found.GetWorkflowExecutionInfo().GetExecution()
		err = c.temporal.GetWorkflow(ctx, run.GetWorkflowId(), run.GetRunId()).Get(ctx, &settled)
		if failed, ok := errors.AsType[*temporal.ApplicationError](err); ok && failed.Type() == workflows.ErrorUndeliverable {
			err = failed.Details(&settled)
		}
		if err == nil {
			*receipt = settled
		} else if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

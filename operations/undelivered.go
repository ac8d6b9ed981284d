package operations

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"golang.org/x/sync/errgroup"

	"bellhop"
	"bellhop/internal/own"
	"bellhop/workflows"
)

// This file finds the operations whose callbacks did not reach their callers. Search knows which operations gave callbacks
// up, and which workflows have redelivered some since; the rest is in the history of each operation that is shown.

const (
	// inspectedAtOnce is how many operations are inspected between two looks at the clock.
	inspectedAtOnce = 50
	// inspectors is how many histories are read at once.
	inspectors = 8
)

// inspected is an operation with the callbacks that did not reach their callers.
type inspected struct {
	bellhop.Item

	err error
}

// inspectPage inspects what a page of the list has: one search for the page, one for the redeliveries of its operations, and
// for each operation that has something undelivered its history. One that is open is asked besides how its deliveries go.
func (c *Client) inspectPage(ctx context.Context, filter bellhop.Filter, limit int, page []byte) ([]inspected, []byte, error) {
	infos, next, err := c.page(ctx, filter, limit, page)
	if err != nil {
		return nil, nil, err
	}
	again, err := c.redeliveries(ctx, infos)
	if err != nil {
		return nil, nil, err
	}
	found := make([]inspected, len(infos))
	var reading errgroup.Group
	reading.SetLimit(inspectors)
	for i, info := range infos {
		found[i].Item = itemOf(info)
		redelivered := again[info.GetExecution().GetWorkflowId()].of(info)
		if isClosed(info) && redelivered.everything(c) {
			continue
		}
		reading.Go(func() error {
			found[i].Undelivered, found[i].err = c.undelivered(ctx, info, redelivered)
			return nil
		})
	}
	return found, next, reading.Wait()
}

// redeliveries are the workflows that rang an operation's callers again.
type redeliveries []*workflowpb.WorkflowExecutionInfo

// redeliveries finds those of several operations, by operation id.
func (c *Client) redeliveries(ctx context.Context, of []*workflowpb.WorkflowExecutionInfo) (map[string]redeliveries, error) {
	found := map[string]redeliveries{}
	if len(of) == 0 {
		return found, nil
	}
	prefixes := make([]string, len(of))
	for i, info := range of {
		prefixes[i] = "WorkflowId STARTS_WITH " + quote(own.RedeliverPrefix+info.GetExecution().GetWorkflowId()+"/")
	}
	query := "WorkflowType = " + quote(own.Redeliver) + " AND (" + strings.Join(prefixes, " OR ") + ")"
	var page []byte
	for {
		answer, err := c.temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			Namespace: c.namespace, PageSize: 1000, NextPageToken: page, Query: query,
		})
		if err != nil {
			return nil, fmt.Errorf("list redeliveries: %w", explain(err))
		}
		for _, info := range answer.GetExecutions() {
			id, _, _ := redelivery(info)
			found[id] = append(found[id], info)
		}
		if page = answer.GetNextPageToken(); len(page) == 0 {
			return found, nil
		}
	}
}

// of are those of one run of an operation: an id may be used again.
func (r redeliveries) of(operation *workflowpb.WorkflowExecutionInfo) redeliveries {
	return slices.DeleteFunc(slices.Clone(r), func(info *workflowpb.WorkflowExecutionInfo) bool {
		began := operation.GetStartTime().AsTime()
		if !info.GetStartTime().AsTime().After(began) {
			return true
		}
		_, requested, _ := redelivery(info)
		at, err := strconv.ParseInt(requested, 36, 64)
		return err == nil && time.Unix(0, at).Sub(began).Abs() > time.Millisecond // as exact as any search is
	})
}

// redelivery reads the id that [workflows.RedeliverID] makes: of which operation, when that was requested, which versions
// before do not say, and of which delivery, as [workflows.ActivityID] names it.
func redelivery(info *workflowpb.WorkflowExecutionInfo) (operation, requested, delivery string) {
	operation, rest, _ := strings.Cut(strings.TrimPrefix(info.GetExecution().GetWorkflowId(), own.RedeliverPrefix), "/")
	if i := strings.LastIndexByte(rest, '/'); i >= 0 {
		return operation, rest[:i], rest[i+1:]
	}
	return operation, "", rest
}

// status tells how the redelivery of a delivery went; unspecified when there was none.
func (r redeliveries) status(delivery string) enumspb.WorkflowExecutionStatus {
	status := enumspb.WORKFLOW_EXECUTION_STATUS_UNSPECIFIED
	for _, info := range r { // the latest comes first, but one that reached the caller is the last of all
		switch _, _, name := redelivery(info); {
		case name != delivery:
		case status == enumspb.WORKFLOW_EXECUTION_STATUS_UNSPECIFIED, info.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED:
			status = info.GetStatus()
		}
	}
	return status
}

// memoRemaining names the memo of a redelivery with all deliveries that an operation that has closed had left over then.
const memoRemaining = "bellhop_undelivered"

// remaining is that memo.
func (s *sight) remaining() map[string]any {
	if !closed(s.found) {
		return nil // there may be more of them in the end
	}
	var left []string
	for i, receipt := range s.Callbacks {
		if unreached(receipt) {
			left = append(left, workflows.ActivityID(i, stateOf(receipt, s.State)))
		}
	}
	return map[string]any{memoRemaining: left}
}

// everything says whether all that an operation had left over when it had closed has been redelivered since.
func (r redeliveries) everything(c *Client) bool {
	for _, info := range r {
		var left []string
		payload, ok := info.GetMemo().GetFields()[memoRemaining]
		if !ok || c.in(info.GetExecution().GetWorkflowId()).Read(payload, &left) != nil || len(left) == 0 {
			continue
		}
		return !slices.ContainsFunc(left, func(delivery string) bool {
			return r.status(delivery) != enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED
		})
	}
	return false
}

// unreached says of a callback whose state was reached that its caller was not.
func unreached(receipt bellhop.Receipt) bool {
	return receipt.State != bellhop.ReceiptPending && (!receipt.State.Settled() || receipt.State == bellhop.ReceiptUndeliverable)
}

// stateOf is the state of which a callback tells, or was to tell: that of its operation when it has not begun.
func stateOf(receipt bellhop.Receipt, reached bellhop.State) bellhop.State {
	if receipt.CallbackID == "" {
		return reached
	}
	return bellhop.State(receipt.CallbackID[strings.LastIndexByte(receipt.CallbackID, '/')+1:])
}

// undelivered are the callbacks of an operation that has ended that did not reach their callers.
func (c *Client) undelivered(ctx context.Context, info *workflowpb.WorkflowExecutionInfo, again redeliveries) ([]bellhop.Receipt, error) {
	found := &workflowservice.DescribeWorkflowExecutionResponse{WorkflowExecutionInfo: info}
	var err error
	if !isClosed(info) {
		found, err = c.temporal.DescribeWorkflowExecution(ctx, info.GetExecution().GetWorkflowId(), info.GetExecution().GetRunId())
	}
	var past *past
	if err == nil {
		past, err = c.read(ctx, found)
	}
	switch {
	case errors.Is(notFound(err), bellhop.ErrNotFound): // its retention is over
		return nil, nil
	case err != nil:
		return nil, err
	}
	status := recall(found, past)
	if !closed(found) {
		c.pending(&status, found.GetPendingActivities())
	}
	var left []bellhop.Receipt
	for i, receipt := range status.Callbacks {
		state := stateOf(receipt, status.State)
		if receipt.State == bellhop.ReceiptUndeliverable || closed(found) && !receipt.State.Settled() {
			rung := again.status(workflows.ActivityID(i, state))
			if rung == enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED {
				continue
			}
			if rung == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
				receipt = bellhop.Receipt{
					Target: receipt.Target, CallbackID: bellhop.CallbackID(status.OperationID, state), State: bellhop.ReceiptDelivering,
				}
			}
		}
		if unreached(receipt) {
			left = append(left, receipt)
		}
	}
	return left, nil
}

func isClosed(info *workflowpb.WorkflowExecutionInfo) bool {
	return info.GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING
}

package operations

import (
	"context"
	"errors"
	"fmt"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/temporal"

	"bellhop"
)

// ActivityStatus is the activity by which a workflow that was not called back in time asks for the status instead. It
// runs on bellhop's workers and its argument is the operation's id.
const ActivityStatus = "bellhop.Status"

// ErrorNotFound is the type of the error with which ActivityStatus answers when there is no such operation.
const ErrorNotFound = "OPERATION_NOT_FOUND"

// CallerStatus is [Client.Status] as an activity.
func (c *Client) CallerStatus(ctx context.Context, id string) (bellhop.Status, error) {
	report, err := c.Status(ctx, id)
	if errors.Is(err, bellhop.ErrNotFound) {
		return bellhop.Status{}, temporal.NewNonRetryableApplicationError(err.Error(), ErrorNotFound, err)
	}
	return report.Status, err
}

// Complete adds to a workflow's own status what only Temporal knows of it: the attempts of deliveries that are still
// being tried. When Temporal does not answer, the status stays as it is.
func (c *Client) Complete(ctx context.Context, status *bellhop.Status) {
	found, err := c.temporal.DescribeWorkflowExecution(ctx, status.OperationID, "")
	if err == nil {
		c.pending(status, found.GetPendingActivities())
	}
}

// Count counts operations, as Temporal's visibility has them.
func (c *Client) Count(ctx context.Context, filter bellhop.Filter) (int64, error) {
	answer, err := c.temporal.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{
		Namespace: c.namespace,
		Query:     query(filter),
	})
	if err != nil {
		return 0, fmt.Errorf("count operations: %w", explain(err))
	}
	return answer.GetCount(), nil
}

package operations

import (
	"context"
	"errors"
	"time"

	"go.temporal.io/sdk/temporal"

	"bellhop"
)

// pollInterval is how often a wait looks for an operation that has ended and whose callers are still being rung.
const pollInterval = 2 * time.Second

// Wait waits until an operation has reached its last state and answers its outcome; it does not wait for its
// callbacks. It ends early with ctx.
func (c *Client) Wait(ctx context.Context, id string) (bellhop.Outcome, error) {
	if _, err := c.describe(ctx, id); err != nil {
		return bellhop.Outcome{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	closed := make(chan error, 1)
	go func() { // a long poll: it costs Temporal next to nothing
		err := c.temporal.GetWorkflow(ctx, id, "").Get(ctx, nil)
		if _, ended := errors.AsType[*temporal.WorkflowExecutionError](err); ended {
			err = nil
		}
		closed <- err
	}()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return bellhop.Outcome{}, ctx.Err()
		case err := <-closed:
			if err != nil {
				return bellhop.Outcome{}, err
			}
			report, err := c.Status(ctx, id)
			return report.Outcome, err
		case <-ticker.C:
			if status, err := c.query(ctx, id); err == nil && status.State.Terminal() {
				return status.Outcome, nil
			}
		}
	}
}

package operations

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"bellhop"
	"bellhop/activities"
	"bellhop/internal/own"
	"bellhop/workflows"
)

// Orphans asks a worker to report what stands at a provider, or at all when it is empty, and is nobody's. It takes a worker
// to ask, and as long as the providers take to list what they have; it ends early with ctx.
func (c *Client) Orphans(ctx context.Context, provider string) (bellhop.OrphanReport, error) {
	about := provider
	if about == "" {
		about = "every provider"
	}
	options := client.StartWorkflowOptions{
		ID:            own.OrphansPrefix + rand.Text(),
		TaskQueue:     c.taskQueue,
		StaticSummary: "orphans at " + about,
	}
	if until, ok := ctx.Deadline(); ok {
		options.WorkflowExecutionTimeout = max(time.Until(until), time.Second) // nobody waits for it any longer
	}
	var report bellhop.OrphanReport
	run, err := c.temporal.ExecuteWorkflow(ctx, options, workflows.ReportOrphans, provider)
	if err == nil {
		err = run.Get(ctx, &report)
	}
	refused, _ := errors.AsType[*temporal.ApplicationError](err)
	_, elapsed := errors.AsType[*temporal.TimeoutError](err)
	if _, late := errors.AsType[*serviceerror.DeadlineExceeded](err); late { // it may say so a moment before ctx does
		elapsed = true
	}
	switch {
	case err == nil:
		return report, nil
	case refused != nil && refused.Type() == activities.ErrorNotConfigured:
		return report, bellhop.Faults{{Path: "provider", Problem: refused.Message()}}
	case elapsed:
		return report, fmt.Errorf("ask for orphans: %w", context.DeadlineExceeded)
	default:
		return report, fmt.Errorf("ask for orphans: %w", explain(err))
	}
}

const (
	// soughtAtOnce is how many operations one search finds by their ids.
	soughtAtOnce = 50
	// settledAfter is after how long Temporal's list tells of an operation for sure.
	settledAfter = 5 * time.Minute
)

// Find finds operations by id: in Temporal's list, and those that may be too young for that by asking for each.
func (c *Client) Find(ctx context.Context, sought []bellhop.Generation) (map[string]bellhop.Item, error) {
	found := map[string]bellhop.Item{}
	for chunk := range slices.Chunk(sought, soughtAtOnce) {
		ids := make([]string, 0, len(chunk))
		for _, one := range chunk {
			if bellhop.CheckID(one.OperationID) == nil { // labels are written by whoever may
				ids = append(ids, quote(one.OperationID))
			}
		}
		if len(ids) == 0 {
			continue
		}
		items, err := c.search(ctx, query(bellhop.Filter{})+" AND WorkflowId IN ("+strings.Join(ids, ", ")+")")
		if err != nil {
			return nil, err
		}
		for _, item := range items {
			// An id that was used again by other means has several. The one under way counts, else the latest.
			if before, again := found[item.OperationID]; !again || !item.State.Terminal() ||
				before.State.Terminal() && item.RequestedAt.After(before.RequestedAt) {
				found[item.OperationID] = item
			}
		}
	}
	for _, one := range sought {
		if _, ok := found[one.OperationID]; ok || !one.RequestedAt.IsZero() && time.Since(one.RequestedAt) > settledAfter {
			continue
		}
		described, err := c.describe(ctx, one.OperationID)
		if errors.Is(err, bellhop.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found[one.OperationID] = itemOf(described.GetWorkflowExecutionInfo())
	}
	return found, nil
}

// search finds all operations that a query does.
func (c *Client) search(ctx context.Context, query string) ([]bellhop.Item, error) {
	var items []bellhop.Item
	var page []byte
	for {
		answer, err := c.temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			Namespace: c.namespace, PageSize: 1000, NextPageToken: page, Query: query,
		})
		if err != nil {
			return nil, fmt.Errorf("list operations: %w", explain(err))
		}
		for _, info := range answer.GetExecutions() {
			items = append(items, itemOf(info))
		}
		if page = answer.GetNextPageToken(); len(page) == 0 {
			return items, nil
		}
	}
}

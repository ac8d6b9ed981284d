package operations

import (
	"context"
	"fmt"
	"strings"
	"time"

	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"

	"bellhop"
	"bellhop/workflows"
)

// query is the filter as Temporal's visibility takes it.
func query(f bellhop.Filter) string {
	types := make([]string, 0, len(bellhop.Verbs()))
	for _, verb := range bellhop.Verbs() {
		types = append(types, quote(workflows.TypeFor(verb)))
	}
	terms := []string{"WorkflowType IN (" + strings.Join(types, ", ") + ")"}
	add := func(name, value string) {
		if value != "" {
			terms = append(terms, name+" = "+quote(value))
		}
	}
	add(workflows.Tenant.GetName(), f.Tenant)
	if len(f.Tenants) > 0 {
		tenants := make([]string, len(f.Tenants))
		for i, tenant := range f.Tenants {
			tenants[i] = quote(tenant)
		}
		terms = append(terms, workflows.Tenant.GetName()+" IN ("+strings.Join(tenants, ", ")+")")
	}
	add(workflows.Resource.GetName(), f.Resource)
	add(workflows.Provider.GetName(), f.Provider)
	if f.State != "" {
		terms = append(terms, stateTerm(f.State))
	}
	if f.Open {
		terms = append(terms, "ExecutionStatus = 'Running'")
	}
	if f.Undelivered {
		// A workflow that is open although its operation has ended waits for its callbacks; one that was ended by other
		// means may have rung nobody.
		terms = append(terms, fmt.Sprintf("(%s IS NOT NULL OR ExecutionStatus IN ('Terminated', 'TimedOut') OR "+
			"ExecutionStatus = 'Running' AND %s IN (%s, %s, %s))",
			workflows.Undelivered.GetName(), workflows.State.GetName(),
			quote(string(bellhop.Succeeded)), quote(string(bellhop.Failed)), quote(string(bellhop.Cancelled))))
	}
	if !f.Since.IsZero() {
		terms = append(terms, fmt.Sprintf("(ExecutionStatus = 'Running' OR CloseTime >= %s)", quote(f.Since.UTC().Format(time.RFC3339Nano))))
	}
	return strings.Join(terms, " AND ")
}

// stateTerm finds what visibleState tells as state. A workflow that was closed by other means than its own code keeps
// the search attribute that it had; and an operation that nothing has been published of yet has none, since each change of
// it costs the server about as much as an activity.
func stateTerm(state bellhop.State) string {
	attribute := workflows.State.GetName() + " = " + quote(string(state))
	switch state {
	case bellhop.Failed:
		return "(" + attribute + " OR ExecutionStatus IN ('Failed', 'Terminated', 'TimedOut'))"
	case bellhop.Succeeded:
		return "(" + attribute + " OR ExecutionStatus = 'Completed')"
	case bellhop.Cancelled:
		return "(" + attribute + " OR ExecutionStatus = 'Canceled')"
	case bellhop.Pending, bellhop.Queued:
		name := workflows.State.GetName()
		return "(ExecutionStatus = 'Running' AND (" + name + " IS NULL OR " + name + " IN ('pending', 'queued')))"
	case bellhop.Running:
		return "(ExecutionStatus = 'Running' AND " + attribute + ")"
	default:
		return attribute
	}
}

func quote(s string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), "'", `\'`) + "'"
}

// List lists operations, the newest first, as Temporal's visibility has them, which may lag behind by a second. It
// answers at most limit of them (1000 at most) and the token that asks for the next page. A page of operations with
// undelivered callbacks may have fewer, even none: it ends when half of the time is up that ctx gives.
func (c *Client) List(ctx context.Context, filter bellhop.Filter, limit int, page []byte) ([]bellhop.Item, []byte, error) {
	limit = min(max(limit, 1), 1000)
	items := []bellhop.Item{}
	if !filter.Undelivered {
		found, next, err := c.page(ctx, filter, limit, page)
		for _, info := range found {
			items = append(items, itemOf(info))
		}
		return items, next, err
	}
	enough := halfTime(ctx)
	for {
		found, next, err := c.inspectPage(ctx, filter, min(inspectedAtOnce, limit-len(items)), page)
		var shown []bellhop.Item
		for _, one := range found {
			if one.err != nil && err == nil {
				err = one.err
			}
			if len(one.Undelivered) > 0 { // else they were redelivered, or arrived meanwhile
				shown = append(shown, one.Item)
			}
		}
		switch {
		case err != nil && len(items) > 0:
			return items, page, nil // who asks for the next page is told, if it is still so
		case err != nil:
			return nil, nil, err
		}
		items, page = append(items, shown...), next
		if len(page) == 0 || len(items) >= limit || time.Now().After(enough) {
			return items, page, nil
		}
	}
}

// halfTime is when half of the time is up that ctx gives: what is begun by then can be ended.
func halfTime(ctx context.Context) time.Time {
	until, bounded := ctx.Deadline()
	if !bounded {
		until = time.Now().Add(2 * time.Hour)
	}
	return time.Now().Add(time.Until(until) / 2)
}

// page is a page of the list as search has it.
func (c *Client) page(ctx context.Context, filter bellhop.Filter, limit int, page []byte) ([]*workflowpb.WorkflowExecutionInfo, []byte, error) {
	answer, err := c.temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
		Namespace:     c.namespace,
		PageSize:      int32(limit), //nolint:gosec // it is bounded
		NextPageToken: page,
		Query:         query(filter),
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list operations: %w", explain(err))
	}
	return answer.GetExecutions(), answer.GetNextPageToken(), nil
}

// itemOf is an operation as Temporal tells of it without its history.
func itemOf(info *workflowpb.WorkflowExecutionInfo) bellhop.Item {
	item := bellhop.Item{
		OperationID:   info.GetExecution().GetWorkflowId(),
		OperationType: workflows.VerbOf(info.GetType().GetName()),
		TenantID:      keyword(info.GetSearchAttributes(), workflows.Tenant),
		Resource:      keyword(info.GetSearchAttributes(), workflows.Resource),
		Provider:      keyword(info.GetSearchAttributes(), workflows.Provider),
		State:         visibleState(info),
		RequestedAt:   info.GetStartTime().AsTime(),
	}
	if info.GetCloseTime() != nil {
		item.ClosedAt = info.GetCloseTime().AsTime()
	}
	return item
}

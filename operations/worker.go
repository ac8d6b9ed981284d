package operations

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"bellhop"
	"bellhop/workflows"
)

// This file is what a worker needs: the search attributes, the watches, and the operations that wait.

// searchAttributes are bellhop's search attributes.
func searchAttributes() []temporal.SearchAttributeKey {
	return []temporal.SearchAttributeKey{
		workflows.Tenant, workflows.Resource, workflows.Provider, workflows.State, workflows.Undelivered,
	}
}

// SearchAttributeCommand is what an operator runs to add the search attributes.
func SearchAttributeCommand(namespace string) string {
	var b strings.Builder
	b.WriteString("temporal operator search-attribute create")
	if namespace != "" {
		fmt.Fprintf(&b, " --namespace %s", namespace)
	}
	for _, key := range searchAttributes() {
		fmt.Fprintf(&b, " --name %s --type %s", key.GetName(), key.GetValueType())
	}
	return b.String()
}

// EnsureSearchAttributes adds the search attributes that the namespace lacks. Where it may not, the error has the
// command that an operator runs instead.
func (c *Client) EnsureSearchAttributes(ctx context.Context) error {
	missing, err := c.missingSearchAttributes(ctx)
	if err != nil || len(missing) == 0 {
		return err
	}
	wanted := map[string]enumspb.IndexedValueType{}
	var names []string
	for _, key := range missing {
		wanted[key.GetName()] = key.GetValueType()
		names = append(names, key.GetName())
	}
	_, err = c.temporal.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
		Namespace:        c.namespace,
		SearchAttributes: wanted,
	})
	var exists *serviceerror.AlreadyExists // another worker was faster
	if err != nil && !errors.As(err, &exists) {
		return fmt.Errorf("namespace %s lacks the search attributes %s and they may not be added from here: %w\nrun: %s",
			c.namespace, strings.Join(names, ", "), err, SearchAttributeCommand(c.namespace))
	}
	return nil
}

func (c *Client) missingSearchAttributes(ctx context.Context) ([]temporal.SearchAttributeKey, error) {
	have, err := c.temporal.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{
		Namespace: c.namespace,
	})
	var denied *serviceerror.PermissionDenied
	var unimplemented *serviceerror.Unimplemented
	if errors.As(err, &denied) || errors.As(err, &unimplemented) {
		return c.unsearchable(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("list search attributes of namespace %s: %w", c.namespace, err)
	}
	var missing []temporal.SearchAttributeKey
	for _, key := range searchAttributes() {
		kind, ok := have.GetCustomAttributes()[key.GetName()]
		switch {
		case !ok:
			missing = append(missing, key)
		case kind != key.GetValueType():
			return nil, fmt.Errorf("namespace %s has the search attribute %s as %s; bellhop needs it as %s",
				c.namespace, key.GetName(), kind, key.GetValueType())
		}
	}
	return missing, nil
}

// unsearchable finds the search attributes that are missing where the operator's API is out of reach, as it is in
// Temporal Cloud: a search by an unknown one is refused.
func (c *Client) unsearchable(ctx context.Context) ([]temporal.SearchAttributeKey, error) {
	var missing []temporal.SearchAttributeKey
	for _, key := range searchAttributes() {
		_, err := c.temporal.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{
			Namespace: c.namespace,
			Query:     key.GetName() + " = 'bellhop'",
		})
		if _, ok := errors.AsType[*serviceerror.InvalidArgument](err); ok {
			missing = append(missing, key)
		} else if err != nil {
			return nil, fmt.Errorf("search namespace %s by %s: %w", c.namespace, key.GetName(), err)
		}
	}
	return missing, nil
}

// Watch makes sure that the one workflow runs that watches a provider.
func (c *Client) Watch(ctx context.Context, provider string) error {
	_, err := c.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID:                       workflows.WatchID(c.taskQueue, provider),
		TaskQueue:                c.taskQueue,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		StaticSummary:            "watch " + provider,
	}, workflows.WatchProvider, provider)
	if err != nil {
		return fmt.Errorf("start the watch of %s: %w", provider, err)
	}
	return nil
}

// Open lists the operations at a provider that are under way.
func (c *Client) Open(ctx context.Context, provider string) (map[string]bool, error) {
	open := map[string]bool{}
	var page []byte
	for {
		items, next, err := c.List(ctx, bellhop.Filter{Provider: provider, Open: true}, 1000, page)
		if err != nil {
			return nil, err
		}
		for _, item := range items {
			open[item.OperationID] = true
		}
		if page = next; len(page) == 0 {
			return open, nil
		}
	}
}

// observedTimeout bounds one signal with its retries.
const observedTimeout = 30 * time.Second

// Observed tells an operation what was observed of it.
func (c *Client) Observed(ctx context.Context, seen bellhop.Observation) error {
	ctx, cancel := context.WithTimeout(ctx, observedTimeout)
	defer cancel()
	return c.temporal.SignalWorkflow(ctx, seen.OperationID, "", workflows.SignalObserved, seen)
}

// Package operations is bellhop as its callers see it: start an operation, ask for its status, wait for it, list,
// cancel, redeliver. It speaks to Temporal; the command line and the worker's ways in speak through it.
package operations

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"bellhop"
	"bellhop/bridge"
	"bellhop/encryption"
	"bellhop/internal/tenancy"
	"bellhop/workflows"
)

// Client starts and finds operations in one Temporal namespace. It is what the ways in know as [bridge.Operations].
type Client struct {
	temporal   client.Client
	namespace  string
	taskQueue  string
	converters encryption.Converters
	// policy is what tenants may name and use; nil bounds nobody, as for the command line, whose users have Temporal's own
	// rights.
	policy *tenancy.Policy
	quotas *quotas
}

// New makes a client. The task queue is the one that the workers poll; empty stands for "bellhop".
func New(c client.Client, namespace, taskQueue string) *Client {
	if taskQueue == "" {
		taskQueue = workflows.TaskQueue
	}
	return &Client{temporal: c, namespace: namespace, taskQueue: taskQueue}
}

// With has the client read payloads by the converters of its connection, which are Temporal's own by default.
func (c *Client) With(converters encryption.Converters) *Client {
	c.converters = converters
	return c
}

// in are the converters for what belongs to a workflow.
func (c *Client) in(id string) encryption.Converters { return c.converters.In(c.namespace, id) }

// Govern makes a client keep tenants within a policy. It comes before anything is started.
func (c *Client) Govern(policy *tenancy.Policy) {
	c.policy = policy
	c.quotas = newQuotas(c.countOpen)
}

// MakeID makes an id of the tenant's of what a way in derived from a request.
func (c *Client) MakeID(tenant, derived string) string { return c.policy.For(tenant).MakeID(derived) }

var _ bridge.Operations = (*Client)(nil)

// memoRequest names the memo with the hash of what was asked for, by which the same request is told from another one
// under the same id.
const memoRequest = "bellhop_request"

// Start starts an operation. Starting the same one again under its id is no error and starts nothing, which before says;
// another one under the same id is [bellhop.ErrConflict]. An invalid operation is refused with [bellhop.Faults] and not
// started; a tenant that has as many open operations as it may, with [bellhop.ErrTooMany].
func (c *Client) Start(ctx context.Context, id string, verb bellhop.Verb, input []byte) (before bool, err error) {
	op, err := bellhop.AcceptOperation(id, verb, input)
	faults, stray := c.policy.Check(op, err)
	if len(faults) > 0 {
		return false, append(faults, stray...).Err()
	}
	request, err := requestHash(op)
	if err != nil {
		return false, err
	}
	if len(stray) > 0 {
		// Who started it before there was this rule, and asks again, is answered as before. Whether the id belongs to another
		// operation is not told.
		before, err := c.startedBefore(ctx, id, verb, request)
		if errors.Is(err, bellhop.ErrNotFound) || errors.Is(err, bellhop.ErrConflict) {
			err = stray.Err()
		}
		return before, err
	}
	rules := c.policy.For(op.TenantID)
	cancelled, err := c.quotas.take(ctx, rules)
	if errors.Is(err, bellhop.ErrTooMany) {
		if before, found := c.startedBefore(ctx, id, verb, request); !errors.Is(found, bellhop.ErrNotFound) {
			return before, found
		}
	}
	if err != nil {
		return false, fmt.Errorf("start operation %s: %w", id, err)
	}
	before, err = c.execute(ctx, op, rules, request, input)
	if before || err != nil {
		cancelled()
	}
	return before, err
}

// execute starts the workflow of an operation that is in order.
func (c *Client) execute(ctx context.Context, op bellhop.Operation, rules tenancy.Rules, request string, input []byte) (before bool, err error) {
	id, verb := op.ID, op.Verb
	var compact bytes.Buffer
	if err := json.Compact(&compact, input); err != nil {
		return false, fmt.Errorf("read operation: %w", err)
	}
	options := client.StartWorkflowOptions{
		ID:                                       id,
		TaskQueue:                                c.taskQueue,
		WorkflowIDReusePolicy:                    enumspb.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
		WorkflowIDConflictPolicy:                 enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
		Memo:                                     map[string]any{memoRequest: request},
		// What the starter sets, the workflow need not. It leaves the state to the workflow, which spares itself the
		// states that do not last.
		TypedSearchAttributes: temporal.NewSearchAttributes(
			workflows.Tenant.ValueSet(op.TenantID),
			workflows.Resource.ValueSet(op.Resource),
			workflows.Provider.ValueSet(op.Provider),
		),
		StaticSummary: fmt.Sprintf("%s %s/%s on %s", verb, op.TenantID, op.Resource, op.Provider),
		Priority: temporal.Priority{
			PriorityKey: rules.PriorityOf(op), FairnessKey: op.TenantID, FairnessWeight: rules.Weight,
		},
	}
	_, err = c.temporal.ExecuteWorkflow(ctx, options, workflows.TypeFor(verb), json.RawMessage(compact.Bytes()))
	var exists *serviceerror.WorkflowExecutionAlreadyStarted
	switch {
	case errors.As(err, &exists):
		return c.startedBefore(ctx, id, verb, request)
	case err != nil:
		return false, fmt.Errorf("start operation %s: %w", id, explain(err))
	}
	return false, nil
}

// explain adds what to do to errors that a new installation meets.
func explain(err error) error {
	if _, invalid := errors.AsType[*serviceerror.InvalidArgument](err); invalid && strings.Contains(err.Error(), "search attribute") {
		return fmt.Errorf("%w\nbellhop's search attributes are missing; a worker adds them when it starts, or run\n  %s",
			err, SearchAttributeCommand(""))
	}
	return err
}

func (c *Client) startedBefore(ctx context.Context, id string, verb bellhop.Verb, request string) (bool, error) {
	found, err := c.describe(ctx, id)
	if err != nil {
		return false, err
	}
	info := found.GetWorkflowExecutionInfo()
	var earlier string
	if payload, ok := info.GetMemo().GetFields()[memoRequest]; ok {
		if err := c.in(id).Read(payload, &earlier); err != nil {
			return false, fmt.Errorf("read memo of %s: %w", id, err)
		}
	} else if input, err := c.input(ctx, id); err == nil { // started by other means
		if op, err := bellhop.ParseOperation(id, verb, time.Time{}, input); err == nil {
			earlier, _ = requestHash(op) //nolint:errcheck // no hash, no match
		}
	}
	if info.GetType().GetName() != workflows.TypeFor(verb) || earlier != request {
		return false, fmt.Errorf("start operation %s: %w", id, bellhop.ErrConflict)
	}
	return true, nil
}

// requestHash is the same for two operations that ask for the same.
func requestHash(op bellhop.Operation) (string, error) {
	op.RequestedAt = time.Time{}
	text, err := json.Marshal(op)
	if err != nil {
		return "", fmt.Errorf("encode operation: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// Cancel asks an operation to give up. It still rings its callers, and lists what exists. For one that has ended, also
// while its callers are still being rung, it is [bellhop.ErrEnded].
func (c *Client) Cancel(ctx context.Context, id string) error {
	found, err := c.describe(ctx, id)
	if err != nil {
		return err
	}
	state := visibleState(found.GetWorkflowExecutionInfo())
	if !state.Terminal() { // it may have ended a moment ago
		if status, err := c.query(ctx, found.GetWorkflowExecutionInfo().GetExecution()); err == nil {
			state = status.State
		}
	}
	if state.Terminal() {
		return fmt.Errorf("cancel operation %s: %w", id, bellhop.ErrEnded)
	}
	err = c.temporal.CancelWorkflow(ctx, id, found.GetWorkflowExecutionInfo().GetExecution().GetRunId())
	if _, gone := errors.AsType[*serviceerror.NotFound](err); gone { // it was there a moment ago
		return fmt.Errorf("cancel operation %s: %w", id, bellhop.ErrEnded)
	}
	if err != nil {
		return fmt.Errorf("cancel operation %s: %w", id, err)
	}
	return nil
}

// describe finds the workflow of an operation; a workflow of another kind is no operation.
func (c *Client) describe(ctx context.Context, id string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	if bellhop.CheckID(id) != nil { // Temporal takes some of them for a failure of its own
		return nil, fmt.Errorf("find operation: %w", bellhop.ErrNotFound)
	}
	found, err := c.temporal.DescribeWorkflowExecution(ctx, id, "")
	if err != nil {
		return nil, fmt.Errorf("find operation %s: %w", id, notFound(err))
	}
	if workflows.VerbOf(found.GetWorkflowExecutionInfo().GetType().GetName()) == "" {
		return nil, fmt.Errorf("find operation %s: %w", id, bellhop.ErrNotFound)
	}
	return found, nil
}

func notFound(err error) error {
	if _, missing := errors.AsType[*serviceerror.NotFound](err); missing {
		return bellhop.ErrNotFound
	}
	return err
}

// input is what the operation's workflow was started with.
func (c *Client) input(ctx context.Context, id string) ([]byte, error) {
	history := c.temporal.GetWorkflowHistory(ctx, id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	if !history.HasNext() {
		return nil, bellhop.ErrNotFound
	}
	event, err := history.Next()
	if err != nil {
		return nil, fmt.Errorf("read history of %s: %w", id, notFound(err))
	}
	return firstPayload(event.GetWorkflowExecutionStartedEventAttributes().GetInput(), c.in(id))
}

// firstPayload is the data of the first of the payloads, whatever it says: that a payload is no operation is for the
// operation itself to tell. The error says that it cannot be read here.
func firstPayload(payloads *commonpb.Payloads, converters encryption.Converters) ([]byte, error) {
	if len(payloads.GetPayloads()) == 0 {
		return nil, nil
	}
	var raw converter.RawValue
	if err := converters.Read(payloads.GetPayloads()[0], &raw); err != nil {
		return nil, err
	}
	return raw.Payload().GetData(), nil
}

package receive

import (
	"errors"
	"fmt"
	"slices"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"bellhop"
)

// Names by which Temporal knows bellhop. They are part of its wire format.
const (
	activityStatus = "bellhop.Status"
	errorNotFound  = "OPERATION_NOT_FOUND"
)

// What the starter of an operation sets, its workflow need not.
var (
	searchTenant   = temporal.NewSearchAttributeKeyKeyword("BellhopTenant")
	searchResource = temporal.NewSearchAttributeKeyKeyword("BellhopResource")
	searchProvider = temporal.NewSearchAttributeKeyKeyword("BellhopProvider")
	searchState    = temporal.NewSearchAttributeKeyKeyword("BellhopState")
)

// workflowType is the type of the workflow that carries out a verb.
func workflowType(verb bellhop.Verb) (string, error) {
	switch verb {
	case bellhop.Provision:
		return "ProvisionCompute", nil
	case bellhop.Update:
		return "UpdateCompute", nil
	case bellhop.Delete:
		return "DeleteCompute", nil
	default:
		return "", fmt.Errorf("its verb must be provision, update or delete, not %q", verb)
	}
}

// Start starts an operation and returns once it is recorded. ID and Verb are required; choose an id that is the same
// when the workflow is replayed, reset or continued, such as one made of the workflow's own id and a number. This
// workflow is called back, besides whom the operation's own callbacks name. What is wrong with the operation apart from
// that is an outcome like others: the failure INVALID_OPERATION, which names every fault.
//
// Starting an operation that was started before starts nothing. It is an error, [ErrConflict], when the id belongs to
// an operation of another verb, tenant, resource or provider, or to a workflow that is none.
//
// The operation is not bound to ctx: cancelling ctx later does not cancel it.
func (in *Inbox) Start(ctx workflow.Context, op bellhop.Operation) error {
	if err := in.start(ctx, op); err != nil {
		return fmt.Errorf("start operation %s: %w", op.ID, err)
	}
	return nil
}

func (in *Inbox) start(ctx workflow.Context, op bellhop.Operation) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// Without an id Temporal would make one up. What else there is to check is left to the operation: a rule that
	// changes from one version of bellhop to the next must not change how a workflow is replayed.
	if op.ID == "" {
		return errors.New("it has no id")
	}
	typeName, err := workflowType(op.Verb)
	if err != nil {
		return err
	}
	op = withDefaults(op)
	op.Callbacks = append(slices.Clone(op.Callbacks), in.Callback())

	// A cancelled ctx would cancel the child, whatever its close policy says.
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	ctx = workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:            op.ID,
		TaskQueue:             in.options.TaskQueue,
		WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
		ParentClosePolicy:     enumspb.PARENT_CLOSE_POLICY_ABANDON,
		TypedSearchAttributes: temporal.NewSearchAttributes(
			searchTenant.ValueSet(bellhop.SoundName(op.TenantID)),
			searchResource.ValueSet(bellhop.SoundName(op.Resource)),
			searchProvider.ValueSet(bellhop.SoundName(op.Provider)),
			searchState.ValueSet(string(bellhop.Pending)),
		),
		StaticSummary: fmt.Sprintf("%s %s/%s on %s", op.Verb, op.TenantID, op.Resource, op.Provider),
		Priority:      temporal.Priority{FairnessKey: bellhop.SoundName(op.TenantID)},
	})
	earlier := in.about(op.ID)
	future := workflow.ExecuteChildWorkflow(in.speak(ctx), typeName, op)
	switch err := future.GetChildWorkflowExecution().Get(ctx, nil); {
	case temporal.IsWorkflowExecutionAlreadyStartedError(err):
		return in.startedBefore(ctx, op)
	case err != nil:
		return err
	}
	in.children[op.ID] = &child{Operation: op, end: future}
	// What came before was of an operation that Temporal has forgotten, since it took the id once more. Workflows of before
	// this version took the earlier callback for the new one's.
	if len(earlier) > 0 && workflow.GetVersion(ctx, "bellhop-receive-id-used-again", workflow.DefaultVersion, 1) == 1 {
		in.forget(earlier)
	}
	return nil
}

// speak has what is said to bellhop written as bellhop reads it: it does not have this workflow's converter, nor its keys.
func (in *Inbox) speak(ctx workflow.Context) workflow.Context {
	return workflow.WithDataConverter(ctx, in.converter())
}

func (in *Inbox) converter() converter.DataConverter {
	if in.options.DataConverter == nil {
		//nolint:forbidigo // the caller says that bellhop does not encrypt
		return converter.GetDefaultDataConverter()
	}
	return in.options.DataConverter
}

// withDefaults fills in what a zero value would say wrongly in JSON.
func withDefaults(op bellhop.Operation) bellhop.Operation {
	if op.Resource == "" {
		op.Resource = bellhop.DefaultResource
	}
	if op.Timeout == 0 {
		op.Timeout = bellhop.Duration(bellhop.DefaultTimeout)
	}
	if op.OnCancel == "" {
		op.OnCancel = bellhop.Leave
	}
	return op
}

// startedBefore makes sure that the operation that has the id is the one that was meant, and takes its outcome in if
// there is one already: its callback may have come and gone.
func (in *Inbox) startedBefore(ctx workflow.Context, op bellhop.Operation) error {
	if c := in.children[op.ID]; c != nil { // by this very run, which listens
		return same(op, c.Verb, c.TenantID, c.Resource, c.Provider)
	}
	status, err := in.Poll(ctx, op.ID)
	switch {
	case errors.Is(err, ErrNotFound):
		return ErrConflict // a workflow has the id, and it is no operation
	case err != nil:
		in.log.Warn("the operation was started before, and its status could not be polled", "operation_id", op.ID, "error", err)
		return nil
	}
	if status.Event != "" {
		in.file(status.Outcome)
	}
	return same(op, status.OperationType, status.TenantID, status.Resource, status.Provider)
}

func same(op bellhop.Operation, verb bellhop.Verb, tenant, resource, provider string) error {
	if op.Verb != verb || op.TenantID != tenant || op.Resource != resource || op.Provider != provider {
		return ErrConflict
	}
	return nil
}

// Cancel asks an operation to give up, also when ctx is cancelled. It ends by its policy, on_cancel, and calls back as
// cancelled, unless it ended otherwise before. An operation that has ended is an error.
func (in *Inbox) Cancel(ctx workflow.Context, operationID string) error {
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	if err := workflow.RequestCancelExternalWorkflow(ctx, operationID, "").Get(ctx, nil); err != nil {
		return fmt.Errorf("cancel operation %s: %w", operationID, err)
	}
	return nil
}

// pollWithin bounds one poll with its retries. With no worker of bellhop's at work it ends without an answer.
const pollWithin = 30 * time.Second

// Poll asks where an operation stands now. The error is [ErrNotFound] when there is none of that id. A bellhop that
// does not answer within 30 s is an error too.
func (in *Inbox) Poll(ctx workflow.Context, operationID string) (bellhop.Status, error) {
	return told(ctx, operationID, in.ask(ctx, operationID))
}

func (in *Inbox) ask(ctx workflow.Context, id string) workflow.Future {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:              in.options.TaskQueue,
		ScheduleToCloseTimeout: pollWithin,
		StartToCloseTimeout:    pollWithin / 2,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: time.Second},
		Summary:                "poll " + id,
	})
	return workflow.ExecuteActivity(in.speak(ctx), activityStatus, id)
}

func told(ctx workflow.Context, id string, answer workflow.Future) (bellhop.Status, error) {
	var status bellhop.Status
	err := answer.Get(ctx, &status)
	var application *temporal.ApplicationError
	if errors.As(err, &application) && application.Type() == errorNotFound {
		return status, fmt.Errorf("poll operation %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return status, fmt.Errorf("poll operation %s: %w", id, err)
	}
	return status, nil
}

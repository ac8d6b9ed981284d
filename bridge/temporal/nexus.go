package temporal

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nexus-rpc/sdk-go/nexus"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/temporalnexus"

	"bellhop"
	"bellhop/bridge"
	"bellhop/bridge/temporal/compute"
	"bellhop/internal/own"
)

// NewService makes the Nexus service whose contract is package compute.
func NewService(ops bridge.Compute) *nexus.Service {
	s := &service{ops: ops}
	made := nexus.NewService(compute.Service)
	made.MustRegister(
		s.carryOut(compute.Provision.Name(), bellhop.Provision, own.Provision),
		s.carryOut(compute.Update.Name(), bellhop.Update, own.Update),
		s.carryOut(compute.Delete.Name(), bellhop.Delete, own.Delete),
		nexus.NewSyncOperation(compute.Start.Name(), s.start),
		nexus.NewSyncOperation(compute.Status.Name(), s.status),
		nexus.NewSyncOperation(compute.Cancel.Name(), s.cancel),
	)
	return made
}

type service struct{ ops bridge.Compute }

// carryOut is a Nexus operation that ends as the operation's workflow does. The operation is started as by anybody else
// and the Nexus operation attached to it, so that any number of callers may wait for one operation.
func (s *service) carryOut(name string, verb bellhop.Verb, workflowType string) nexus.RegisterableOperation {
	attach := temporalnexus.MustNewWorkflowRunOperationWithOptions(temporalnexus.WorkflowRunOperationOptions[converter.RawValue, bellhop.Outcome]{
		Name: name,
		Handler: func(ctx context.Context, input converter.RawValue, nexusOptions nexus.StartOperationOptions) (temporalnexus.WorkflowHandle[bellhop.Outcome], error) {
			id, err := s.begin(ctx, verb, input, nexusOptions)
			if err != nil {
				return nil, err
			}
			return temporalnexus.ExecuteUntypedWorkflow[bellhop.Outcome](ctx, nexusOptions, client.StartWorkflowOptions{
				ID:                       id,
				WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
				WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
			}, workflowType, input)
		},
	})
	return &carryOut{Operation: attach, service: s}
}

type carryOut struct {
	nexus.Operation[converter.RawValue, bellhop.Outcome]

	service *service
}

// Start is part of [nexus.Operation]. An operation that has ended already answers at once.
func (c *carryOut) Start(ctx context.Context, input converter.RawValue, options nexus.StartOperationOptions,
) (nexus.HandlerStartOperationResult[bellhop.Outcome], error) {
	result, err := c.Operation.Start(ctx, input, options)
	if _, ended := errors.AsType[*serviceerror.WorkflowExecutionAlreadyStarted](err); !ended {
		return result, err
	}
	report, err := c.service.ops.Status(ctx, c.service.identify(input, options))
	if err != nil {
		return nil, refused(err)
	}
	outcome := report.Outcome
	switch outcome.State {
	case bellhop.Succeeded:
		return &nexus.HandlerStartOperationResultSync[bellhop.Outcome]{Value: outcome}, nil
	case bellhop.Failed:
		return nil, &nexus.OperationError{
			State:   nexus.OperationStateFailed,
			Message: outcome.Error.Message,
			Cause: temporal.NewApplicationErrorWithOptions(outcome.Error.Message, string(outcome.Error.Code),
				temporal.ApplicationErrorOptions{NonRetryable: true, Details: []any{outcome}}),
		}
	case bellhop.Cancelled:
		return nil, &nexus.OperationError{
			State: nexus.OperationStateCanceled, Message: outcome.Error.Message, Cause: temporal.NewCanceledError(outcome),
		}
	default:
		return nil, nexus.NewHandlerErrorf(nexus.HandlerErrorTypeUnavailable, "the operation has closed and is told to be %s", outcome.State)
	}
}

// runToken is the operation token that the SDK gives to whoever starts a workflow by Nexus. It is not signed: anybody who
// may call the endpoint can make one up.
type runToken struct {
	Version    int    `json:"v"`
	Type       int    `json:"t"`
	Namespace  string `json:"ns"`
	WorkflowID string `json:"wid"`
}

// typeWorkflowRun is the type of such a token.
const typeWorkflowRun = 1

// Cancel is part of [nexus.Operation]. The SDK's own would cancel any workflow that a token names; this one cancels
// operations, of the tenants that may be acted for from here.
func (c *carryOut) Cancel(ctx context.Context, text string, _ nexus.CancelOperationOptions) error {
	var token runToken
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(data, &token)
	}
	if err != nil || token.Version != 0 || token.Type != typeWorkflowRun || token.WorkflowID == "" ||
		token.Namespace != temporalnexus.GetOperationInfo(ctx).Namespace {
		return nexus.NewHandlerErrorf(nexus.HandlerErrorTypeBadRequest, "this is not the token of an operation of this service")
	}
	err = c.service.ops.Cancel(ctx, token.WorkflowID)
	if errors.Is(err, bellhop.ErrEnded) {
		return nil // the caller hears how it ended
	}
	return refused(err)
}

// begin starts an operation and answers its id.
func (s *service) begin(ctx context.Context, verb bellhop.Verb, input converter.RawValue, options nexus.StartOperationOptions) (string, error) {
	id := s.identify(input, options)
	data, err := readInput(input)
	if err == nil {
		_, err = s.ops.Start(ctx, id, verb, data)
	}
	return id, refused(err)
}

func (s *service) start(ctx context.Context, input converter.RawValue, options nexus.StartOperationOptions) (compute.Reference, error) {
	var given struct {
		Verb bellhop.Verb `json:"operation_type"`
	}
	_ = json.Unmarshal(input.Payload().GetData(), &given) //nolint:errcheck // what is wrong with it is found when it is started
	id, err := s.begin(ctx, given.Verb, input, options)
	return compute.Reference{OperationID: id}, err
}

func (s *service) status(ctx context.Context, of compute.Reference, _ nexus.StartOperationOptions) (bellhop.Status, error) {
	report, err := s.ops.Refresh(ctx, of.OperationID)
	return report.Status, refused(err)
}

func (s *service) cancel(ctx context.Context, of compute.Reference, _ nexus.StartOperationOptions) (compute.Reference, error) {
	return of, refused(s.ops.Cancel(ctx, of.OperationID))
}

// identify is the operation's id: the one in the input, else one that stays the same however often the request is tried.
func (s *service) identify(input converter.RawValue, options nexus.StartOperationOptions) string {
	var members map[string]json.RawMessage
	var id, tenant string
	_ = json.Unmarshal(input.Payload().GetData(), &members) //nolint:errcheck // what is wrong with it is found when it is started
	_ = json.Unmarshal(members["operation_id"], &id)        //nolint:errcheck // as above
	if id != "" {
		return id
	}
	_ = json.Unmarshal(members["tenant_id"], &tenant) //nolint:errcheck // as above
	return s.ops.MakeID(tenant, "nexus-"+options.RequestID)
}

// readInput takes the JSON out of the input, to be read with all its faults.
func readInput(input converter.RawValue) ([]byte, error) {
	if encoding := string(input.Payload().GetMetadata()[converter.MetadataEncoding]); encoding != converter.MetadataEncodingJSON {
		return nil, bellhop.Faults{{Problem: fmt.Sprintf("the input must be an operation as JSON (%s), not %q", converter.MetadataEncodingJSON, encoding)}}
	}
	return input.Payload().GetData(), nil
}

// refused tells what is refused for ever from what Temporal tries again.
func refused(err error) error {
	faults, invalid := errors.AsType[bellhop.Faults](err)
	switch {
	case err == nil:
		return nil
	case invalid:
		return nexus.NewHandlerErrorf(nexus.HandlerErrorTypeBadRequest, "%s", bellhop.InvalidOperation(faults).Error())
	case errors.Is(err, bellhop.ErrNotFound):
		return nexus.NewHandlerErrorf(nexus.HandlerErrorTypeNotFound, "%s", err)
	case errors.Is(err, bellhop.ErrConflict), errors.Is(err, bellhop.ErrEnded):
		return nexus.NewHandlerErrorf(nexus.HandlerErrorTypeConflict, "%s", err)
	case errors.Is(err, bellhop.ErrTooMany):
		return nexus.NewHandlerErrorf(nexus.HandlerErrorTypeResourceExhausted, "%s", err)
	default:
		return nexus.NewHandlerErrorf(nexus.HandlerErrorTypeUnavailable, "%w", err)
	}
}

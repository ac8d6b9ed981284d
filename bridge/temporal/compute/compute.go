// Package compute is what a Temporal workflow needs to call bellhop from another namespace: the contract of the Nexus
// service Compute, which bellhop's worker serves.
//
//	client := workflow.NewNexusClient("bellhop", compute.Service) // the endpoint that an operator has made
//	var outcome bellhop.Outcome
//	err := client.ExecuteOperation(ctx, compute.Provision, bellhop.Operation{…}, workflow.NexusOperationOptions{}).Get(ctx, &outcome)
//	if failed, ok := compute.Failed(err); ok && failed.Error.Retryable {
//		// once more, under a new id
//	}
//
// What cannot be started is a [nexus.HandlerError] in the error's chain: BAD_REQUEST names every fault of the
// operation, CONFLICT says that its id belongs to another one, NOT_FOUND that there is none.
package compute

import (
	"errors"

	"github.com/nexus-rpc/sdk-go/nexus"
	"go.temporal.io/sdk/temporal"

	"bellhop"
)

// Service is the name of the Nexus service.
const Service = "Compute"

// Reference names an operation.
type Reference struct {
	OperationID string `json:"operation_id"`
}

// The operations that end when the compute is there, changed or gone, with the outcome. When it fails they fail; see
// [Failed]. An operation without an id is given one. Who asks for the same under the same id waits for the same, and
// whoever of them cancels, cancels it for all.
var (
	Provision = nexus.NewOperationReference[bellhop.Operation, bellhop.Outcome]("Provision")
	Update    = nexus.NewOperationReference[bellhop.Operation, bellhop.Outcome]("Update")
	Delete    = nexus.NewOperationReference[bellhop.Operation, bellhop.Outcome]("Delete")
)

// The operations that answer at once. Start starts an operation, whose Verb says what to do; Status tells where one
// stands now; Cancel asks one to give up.
var (
	Start  = nexus.NewOperationReference[bellhop.Operation, Reference]("Start")
	Status = nexus.NewOperationReference[Reference, bellhop.Status]("Status")
	Cancel = nexus.NewOperationReference[Reference, Reference]("Cancel")
)

// Failed finds the outcome of an operation that failed or was cancelled in the error of who waited for it.
func Failed(err error) (bellhop.Outcome, bool) {
	for ; err != nil; err = errors.Unwrap(err) {
		var outcome bellhop.Outcome
		var details interface{ Details(d ...any) error }
		switch e := err.(type) { //nolint:errorlint // each error of the chain is looked at
		case *temporal.ApplicationError:
			details = e
		case *temporal.CanceledError:
			details = e
		default:
			continue
		}
		if details.Details(&outcome) == nil && outcome.Error != nil {
			return outcome, true
		}
	}
	return bellhop.Outcome{}, false
}

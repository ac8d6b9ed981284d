package bridge

import (
	"context"

	"bellhop"
)

// Operations is bellhop as a way in sees it: what an engine or a service that calls in can ask for. Package operations
// implements it on Temporal, which no way in needs to know. Its errors are [bellhop.Faults], [bellhop.ErrNotFound],
// [bellhop.ErrConflict], [bellhop.ErrEnded] and [bellhop.ErrTooMany]; any other says that Temporal could not be asked.
type Operations interface {
	Compute
	// Wait waits for the last state, not for its callbacks, and tells where the operation stands then.
	Wait(ctx context.Context, id string) (bellhop.Report, error)
	// List answers at most limit operations, the newest first, and the token that asks for the next page.
	List(ctx context.Context, filter bellhop.Filter, limit int, page []byte) ([]bellhop.Item, []byte, error)
	// Redeliver rings callers again whose callback did not reach them, of one target or of all, and answers which.
	Redeliver(ctx context.Context, id, target string) ([]string, error)
}

// Compute is what the services of that name ask for, Restate's and Nexus'. [Tenants.For] bounds it to some tenants.
type Compute interface {
	// Start starts an operation. Starting the same one again under its id starts nothing, which before says; another one
	// under the same id is ErrConflict. An invalid one is refused with every fault and not started. A tenant that has as many
	// open operations as it may is refused another one with ErrTooMany.
	Start(ctx context.Context, id string, verb bellhop.Verb, input []byte) (before bool, err error)
	// Status tells where an operation stands, as it was last observed. Refresh has it observed now.
	Status(ctx context.Context, id string) (bellhop.Report, error)
	Refresh(ctx context.Context, id string) (bellhop.Report, error)
	// Cancel asks an operation to give up.
	Cancel(ctx context.Context, id string) error
	// MakeID is the id of an operation whose caller named none: made of what stays the same however often it calls, so that
	// it is one of the tenant's own.
	MakeID(tenant, derived string) string
}

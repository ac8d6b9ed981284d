package bellhop

import (
	"errors"
	"time"
)

// Errors that whoever asks about operations tells apart.
var (
	// ErrNotFound: there is no such operation.
	ErrNotFound = errors.New("no such operation")
	// ErrConflict: the id belongs to another operation.
	ErrConflict = errors.New("the id belongs to another operation")
	// ErrEnded: the operation has ended, and nothing can be changed about it.
	ErrEnded = errors.New("the operation has ended")
	// ErrTooMany: the tenant has as many open operations as it may. The same request can be repeated later.
	ErrTooMany = errors.New("the tenant has as many open operations as it may")
)

// Report is an operation's status and how it came about.
type Report struct {
	Status
	// Silence is why no worker answered for an operation that is under way. The status then is what Temporal itself has
	// recorded, which may be behind.
	Silence error `json:"-"`
}

// Filter says which operations to list; an empty field asks for all.
type Filter struct {
	Tenant string
	// Tenants asks for those of any of them.
	Tenants  []string
	Resource string
	Provider string
	State    State
	// Open asks for those under way only.
	Open bool
	// Undelivered asks for those that have ended and have a callback that did not reach its caller: it was given up, is
	// blocked or is still being tried.
	Undelivered bool
	// Since asks for those that have closed at this time or later, or not yet.
	Since time.Time
}

// Item is one line of a list of operations.
type Item struct {
	OperationID   string    `json:"operation_id"`
	OperationType Verb      `json:"operation_type"`
	TenantID      string    `json:"tenant_id"`
	Resource      string    `json:"resource"`
	Provider      string    `json:"provider"`
	State         State     `json:"state"`
	RequestedAt   time.Time `json:"requested_at"`
	ClosedAt      time.Time `json:"closed_at,omitzero"`
	// Undelivered are the callbacks that did not reach their callers, in a list of operations that have some.
	Undelivered []Receipt `json:"undelivered,omitempty"`
}

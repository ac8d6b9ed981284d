// Package bellhop holds the nouns of bellhop: durable compute operations for any workflow engine.
//
// An [Operation] says what to do with a tenant's compute: provision, update or delete it. It runs as a durable
// Temporal workflow whose id is the operation's id. When it reaches a [State], every [Callback] that asked for that
// state is sent the same [Outcome], at least once, until the caller acknowledges it; a [Receipt] tells what became
// of each. The [Status] of an operation can be polled besides.
//
// The package is light on purpose: it knows neither Temporal nor any provider, so that a caller can import it to
// build operations and to read outcomes.
package bellhop

import (
	"fmt"
	"time"
)

// Verb is the kind of an operation.
type Verb string

const (
	// Provision brings a tenant's compute into being, or makes what is there match the spec.
	Provision Verb = "provision"
	// Update replaces what is there by what the spec says; there must be something to replace.
	Update Verb = "update"
	// Delete removes the compute. Deleting what is absent succeeds.
	Delete Verb = "delete"
)

// Verbs are all verbs, in the order in which a resource lives through them.
func Verbs() []Verb { return []Verb{Provision, Update, Delete} }

// State is where an operation stands.
//
//	pending → queued → running → succeeded | failed | cancelled
type State string

const (
	// Pending operations are recorded; no worker has picked them up yet.
	Pending State = "pending"
	// Queued operations wait for the provider to take the request.
	Queued State = "queued"
	// Running operations were taken by the provider; bellhop waits until what was asked for is observed.
	Running State = "running"
	// Succeeded means observed: provisioned and healthy, or gone.
	Succeeded State = "succeeded"
	// Failed operations carry a [Failure]. What exists nevertheless is in their resource ids.
	Failed State = "failed"
	// Cancelled operations were given up on request. What exists nevertheless is in their resource ids.
	Cancelled State = "cancelled"
)

// Terminal says whether nothing follows s.
func (s State) Terminal() bool { return s == Succeeded || s == Failed || s == Cancelled }

// Event names what a callback reports. It is also the default name of the signal by which a Temporal workflow is
// called back.
type Event string

// The events: one for a running operation, one for each success by verb, one for each other end.
const (
	EventRunning     Event = "compute-running"
	EventProvisioned Event = "compute-provisioned"
	EventUpdated     Event = "compute-updated"
	EventDeleted     Event = "compute-deleted"
	EventFailed      Event = "compute-failed"
	EventCancelled   Event = "compute-cancelled"
)

// EventFor names the event of an operation of verb v that reached s. It is empty for pending and queued, of which
// nobody is told.
func EventFor(v Verb, s State) Event {
	switch s {
	case Running:
		return EventRunning
	case Failed:
		return EventFailed
	case Cancelled:
		return EventCancelled
	case Succeeded:
		switch v {
		case Provision:
			return EventProvisioned
		case Update:
			return EventUpdated
		case Delete:
			return EventDeleted
		}
	case Pending, Queued:
	}
	return ""
}

// CallbackID is the deduplication key of a callback: the operation's id and the state that was reached. It stays the
// same however often a callback is delivered, to however many targets.
func CallbackID(operationID string, s State) string { return operationID + "/" + string(s) }

// Duration is a [time.Duration] that is written as Go writes it: "15m", "1h30m", "500ms".
type Duration time.Duration

// String writes the duration as Go does.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes the duration as Go does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a Go duration.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf(`must be a duration such as "90s" or "15m", not %q`, text)
	}
	*d = Duration(v)
	return nil
}

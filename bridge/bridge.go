// Package bridge is how bellhop calls workflow engines back, and how they call in: the contract of a [Target] here,
// one folder per engine beside it.
package bridge

import (
	"context"
	"encoding/json"
	"time"

	"bellhop"
)

// Target calls one workflow engine back: one entry under targets in the worker's configuration.
type Target interface {
	// Check says what is wrong with a callback's address and with the states it asks for, as [bellhop.Faults] with
	// paths within the callback ("address.workflow_id"); nil when nothing is. It asks nobody: a caller that does
	// not exist is found out by Deliver.
	Check(callback bellhop.Callback) error
	// Deliver makes one attempt to hand m over to the caller at address, and classifies the answer. It never
	// retries, sends m.Body as it is and ends when ctx does.
	Deliver(ctx context.Context, address json.RawMessage, m Message) Result
}

// Heartbeater is a target whose engine gives up on a caller of which it hears nothing for a while.
type Heartbeater interface {
	// Heartbeat tells the engine once that the caller at address is still being worked for. Closed and Undeliverable say
	// that nobody waits there any more.
	Heartbeat(ctx context.Context, address json.RawMessage) Result
}

// Message is what a callback says.
type Message struct {
	// ID is the deduplication key, "<operation id>/<state>", the same in every attempt.
	ID string
	// Event names what is reported.
	Event bellhop.Event
	// State is the state that was reached.
	State bellhop.State
	// ReachedAt is when it was reached.
	ReachedAt time.Time
	// RequestedAt is when the operation was started, by which two uses of its id are told apart. Zero for a delivery that
	// a version of bellhop began that did not tell.
	RequestedAt time.Time
	// Failures is how the caller wants to be told of a failure; empty for what is usual in its engine.
	Failures bellhop.Failures
	// Body is the outcome as JSON, the same bytes in every attempt.
	Body json.RawMessage
}

// Key is what an engine drops duplicates by: the same in every attempt, and another one when the operation's id is used
// again after Temporal has forgotten its first use.
func (m Message) Key() string {
	if m.RequestedAt.IsZero() {
		return m.ID
	}
	return m.ID + "@" + m.RequestedAt.UTC().Format(time.RFC3339Nano)
}

// Failed says whether m is to be told as an error, where byDefault is what the engine is used to.
func (m Message) Failed(byDefault bellhop.Failures) bool {
	as := m.Failures
	if as == "" {
		as = byDefault
	}
	return as == bellhop.AsError && m.State != bellhop.Succeeded && m.State.Terminal()
}

// Failure is why the operation that m tells of failed or was cancelled.
func (m Message) Failure() *bellhop.Failure {
	var outcome bellhop.Outcome
	if json.Unmarshal(m.Body, &outcome) == nil && outcome.Error != nil {
		return outcome.Error
	}
	return bellhop.Fail(bellhop.CodeInternal, "the operation ended as %s", m.State)
}

// Verdict is what the answer to an attempt means.
type Verdict string

const (
	// Acknowledged: the caller has it.
	Acknowledged Verdict = "acknowledged"
	// Accepted: it was taken, by a protocol that cannot prove that somebody waits for it.
	Accepted Verdict = "accepted"
	// Closed: the caller is finished, unknown or no longer waiting. After an attempt whose answer was lost this is
	// presumably the trace of that attempt; else the callback cannot be delivered.
	Closed Verdict = "closed"
	// Retry: try again later.
	Retry Verdict = "retry"
	// Untried: try later. No attempt was made, since the target is spared: it is [Guard]'s answer, never a target's.
	Untried Verdict = "untried"
	// Blocked: an operator must act first: a permission, a namespace or a service is missing.
	Blocked Verdict = "blocked"
	// Undeliverable: never again, whatever came before: the address or the message is refused.
	Undeliverable Verdict = "undeliverable"
)

// Result is what became of one attempt.
type Result struct {
	Verdict Verdict
	// Caller says of Retry that it is this caller who cannot be reached now, and nothing of others at the target.
	Caller bool
	// Unknown says of Retry, Blocked or Closed that this very attempt may have reached the caller all the same: the
	// connection broke or the time was up before an answer came.
	Unknown bool
	// RetryAfter is how long the target asked to be left alone; 0 when it did not.
	RetryAfter time.Duration
	// Err is why, for every verdict but Acknowledged and Accepted.
	Err error
}

// Package workflows carries out operations as durable Temporal workflows. The exported workflows are one-liners over
// one path, in operation.go: ask, wait, conclude, deliver, close truthfully.
//
// Everything here is replayed from history and so must be deterministic; the histories in tests/histories are
// replayed by the tests for ever. A change that alters the commands of an older history is made behind
// workflow.GetVersion.
package workflows

import (
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"bellhop"
	"bellhop/internal/own"
)

// Names by which Temporal knows bellhop. They are part of the wire format.
const (
	// TaskQueue is the default task queue.
	TaskQueue = "bellhop"
	// QueryStatus answers a [bellhop.Status], at any time, also after the end.
	QueryStatus = "status"
	// UpdateRefresh observes the resource now and answers the fresh [bellhop.Status].
	UpdateRefresh = "refresh"
	// SignalObserved carries a [bellhop.Observation] from a watcher. It is internal.
	SignalObserved = own.SignalObserved
)

// The search attributes, by which operations are found.
var (
	Tenant   = temporal.NewSearchAttributeKeyKeyword("BellhopTenant")
	Resource = temporal.NewSearchAttributeKeyKeyword("BellhopResource")
	Provider = temporal.NewSearchAttributeKeyKeyword("BellhopProvider")
	State    = temporal.NewSearchAttributeKeyKeyword("BellhopState")
	// Undelivered are the targets of the callbacks that were given up, once the operation's workflow has closed.
	Undelivered = temporal.NewSearchAttributeKeyKeywordList("BellhopUndelivered")
)

// ProvisionCompute provisions. Its input is an operation as JSON, its id the operation's.
func ProvisionCompute(ctx workflow.Context, input converter.RawValue) (bellhop.Outcome, error) {
	return run(ctx, bellhop.Provision, input)
}

// UpdateCompute updates. Its input is an operation as JSON, its id the operation's.
func UpdateCompute(ctx workflow.Context, input converter.RawValue) (bellhop.Outcome, error) {
	return run(ctx, bellhop.Update, input)
}

// DeleteCompute deletes. Its input is an operation as JSON, its id the operation's.
func DeleteCompute(ctx workflow.Context, input converter.RawValue) (bellhop.Outcome, error) {
	return run(ctx, bellhop.Delete, input)
}

// TypeFor is the workflow type that carries out a verb.
func TypeFor(verb bellhop.Verb) string {
	switch verb {
	case bellhop.Provision:
		return own.Provision
	case bellhop.Update:
		return own.Update
	case bellhop.Delete:
		return own.Delete
	default:
		return ""
	}
}

// VerbOf is the verb that a workflow type carries out; empty for another type.
func VerbOf(workflowType string) bellhop.Verb {
	for _, verb := range bellhop.Verbs() {
		if TypeFor(verb) == workflowType {
			return verb
		}
	}
	return ""
}

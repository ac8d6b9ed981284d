// Package own names what belongs to bellhop itself in Temporal: the one place from which the workflows are registered,
// and by which a target tells them from a caller's.
package own

import (
	"slices"
	"strings"
)

// Workflow types. They are part of the wire format.
const (
	Provision = "ProvisionCompute"
	Update    = "UpdateCompute"
	Delete    = "DeleteCompute"
	Redeliver = "RedeliverCallback"
	Orphans   = "ReportOrphans"
	Watch     = "WatchProvider"
)

// Types are all workflow types.
func Types() []string { return []string{Provision, Update, Delete, Redeliver, Orphans, Watch} }

// Type says whether a workflow type is one of bellhop's.
func Type(name string) bool { return slices.Contains(Types(), name) }

// What the ids of workflows begin with that are no operations. An operation's id has no "/".
const (
	RedeliverPrefix = "bellhop-redeliver/"
	OrphansPrefix   = "bellhop-orphans/"
	WatchPrefix     = "bellhop-watch/"
)

// ID says whether a workflow's id is reserved for bellhop. The id of an operation is chosen by whoever starts it, so it
// takes a look at the workflow's type to know one.
func ID(workflowID string) bool {
	return slices.ContainsFunc([]string{RedeliverPrefix, OrphansPrefix, WatchPrefix}, func(prefix string) bool {
		return strings.HasPrefix(workflowID, prefix)
	})
}

// SignalObserved is the signal by which a watch wakes up an operation.
const SignalObserved = "observed"

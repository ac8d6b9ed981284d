package workflows

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"bellhop"
)

// minRefresh is how old an observation must be before a refresh looks again.
const minRefresh = 2 * time.Second

// maxRefreshed is how long the history may be for a refresh to be taken, which adds some ten events. Temporal ends a
// workflow at 51,200, which nobody's polling may bring about.
const maxRefreshed = 20_000

// Types of the errors by which a refresh is refused. A refused one leaves no trace in the history; the status query
// answers what is known.
const (
	ErrorFresh    = "ALREADY_FRESH"
	ErrorFinished = "ALREADY_FINISHED"
)

// serve answers status and refresh from the first moment to the last.
func (o *operation) serve(ctx workflow.Context) error {
	err := workflow.SetQueryHandlerWithOptions(ctx, QueryStatus, o.snapshot, workflow.QueryHandlerOptions{
		Description: "The operation as it stands: the outcome so far, progress, transitions and callbacks.",
	})
	if err != nil {
		return fmt.Errorf("serve %s: %w", QueryStatus, err)
	}
	err = workflow.SetUpdateHandlerWithOptions(ctx, UpdateRefresh, o.refresh, workflow.UpdateHandlerOptions{
		Validator:   o.mayRefresh,
		Description: "Observes the resource now, at most once in 2 s, and answers the fresh status.",
	})
	if err != nil {
		return fmt.Errorf("serve %s: %w", UpdateRefresh, err)
	}
	return nil
}

// snapshot is a copy: whoever answers a query may add to it what only Temporal knows.
func (o *operation) snapshot() (bellhop.Status, error) {
	status := o.status
	status.Transitions = slices.Clone(status.Transitions)
	status.Callbacks = slices.Clone(status.Callbacks)
	return status, nil
}

func (o *operation) mayRefresh(ctx workflow.Context) error {
	if o.concluded {
		return temporal.NewApplicationError("the operation has finished; query its status", ErrorFinished)
	}
	if workflow.GetInfo(ctx).GetCurrentHistoryLength() > maxRefreshed {
		return temporal.NewApplicationError("it was refreshed too often; query its status", ErrorFresh)
	}
	if o.aim != o.Verb {
		return temporal.NewApplicationError("it is cancelled and being removed; query its status", ErrorFresh)
	}
	if o.looking > 0 {
		return temporal.NewApplicationError("it is being observed; query its status", ErrorFresh)
	}
	if age := workflow.Now(ctx).Sub(o.seenAt); age < minRefresh {
		return temporal.NewApplicationError(fmt.Sprintf("it was observed %s ago; query its status", age), ErrorFresh)
	}
	return nil
}

func (o *operation) refresh(ctx workflow.Context) (bellhop.Status, error) {
	if o.status.State == bellhop.Running { // before, there is nothing to observe
		if end := o.look(ctx); end != nil {
			// The operation ends with what was seen, and the answer says so.
			ended := func() bool { return o.concluded || judge(o.aim, o.seen) == nil }
			_ = workflow.Await(ctx, ended) //nolint:errcheck // when it is cancelled meanwhile, the answer is what is known
		}
	}
	return o.snapshot()
}

// publish makes the state findable. What the starter has set already is not set again: each upsert costs the server
// about as much as an activity.
func (o *operation) publish(ctx workflow.Context) {
	o.describe(ctx)
	known := workflow.GetTypedSearchAttributes(ctx)
	var updates []temporal.SearchAttributeUpdate
	set := func(key temporal.SearchAttributeKeyKeyword, value string) {
		if have, ok := known.GetKeyword(key); (!ok || have != value) && value != "" {
			updates = append(updates, key.ValueSet(value))
		}
	}
	set(Tenant, bellhop.SoundName(o.TenantID))
	set(Resource, bellhop.SoundName(o.Resource))
	set(Provider, bellhop.SoundName(o.Provider))
	_, told := known.GetKeyword(State)
	if !told && !o.sparing || o.status.State == bellhop.Running || o.status.State.Terminal() {
		set(State, string(o.status.State))
	}
	if len(updates) == 0 {
		return
	}
	if err := workflow.UpsertTypedSearchAttributes(ctx, updates...); err != nil {
		workflow.GetLogger(ctx).Error("search attributes could not be set", "error", err)
	}
}

// publishUndelivered makes the operation findable by the targets whose callbacks were given up.
func (o *operation) publishUndelivered(ctx workflow.Context) {
	targets := o.deliveries.undelivered()
	// Histories of before this version end without it.
	if len(targets) == 0 || workflow.GetVersion(ctx, "publish-undelivered", workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return
	}
	if err := workflow.UpsertTypedSearchAttributes(ctx, Undelivered.ValueSet(targets)); err != nil {
		workflow.GetLogger(ctx).Error("search attributes could not be set", "error", err)
	}
}

// describe writes what Temporal's UI shows of the workflow. It is no event in the history.
func (o *operation) describe(ctx workflow.Context) {
	var b strings.Builder
	s := &o.status
	fmt.Fprintf(&b, "**%s** %s %s on %s\n\n", s.State, s.OperationType, verbatim(s.TenantID+"/"+s.Resource), verbatim(s.Provider))
	if s.Error != nil {
		fmt.Fprintf(&b, "**%s** %s\n\n", s.Error.Code, verbatim(s.Error.Message))
	}
	if s.Progress.Desired > 0 {
		fmt.Fprintf(&b, "%d of %d ready", s.Progress.Ready, s.Progress.Desired)
		if s.Progress.Message != "" {
			fmt.Fprintf(&b, ": %s", verbatim(s.Progress.Message))
		}
		b.WriteString("\n\n")
	}
	if len(s.Callbacks) > 0 {
		b.WriteString("| callback | state |\n|---|---|\n")
		for _, receipt := range s.Callbacks {
			fmt.Fprintf(&b, "| %s | %s |\n", verbatim(receipt.Target), receipt.State)
		}
	}
	workflow.SetCurrentDetails(ctx, b.String())
}

// verbatim is text as Markdown that shows it and does nothing else. A tenant's own text must not have the UI load an image
// or show a link.
func verbatim(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '`':
			return '\''
		case r == '|': // it would end a cell of the table
			return '¦'
		case !unicode.IsPrint(r):
			return ' '
		}
		return r
	}, text)
	return "`" + text + "`"
}

// Package receive is what a Temporal workflow in Go needs to use bellhop: start an operation, go on with other things,
// and branch on the callback.
//
//	inbox := receive.New(ctx, receive.Options{})
//	if err := inbox.Start(ctx, bellhop.Operation{ID: "order-42-1", Verb: bellhop.Provision, …}); err != nil {
//		return err
//	}
//	outcome, err := inbox.Await(ctx, "order-42-1", 10*time.Minute)
//	var failed *receive.Failed
//	if errors.As(err, &failed) && failed.Outcome.Error.Retryable {
//		// once more, under a new id
//	}
//
// # How a callback arrives
//
// [Inbox.Start] starts the operation as a child workflow on bellhop's task queue and asks bellhop to call this workflow
// back, by a signal named after the event: "compute-provisioned", "compute-updated", "compute-deleted",
// "compute-failed", "compute-cancelled", "compute-running". The inbox listens to all of them, or to one signal with a
// name of your choice. It gives each callback to whoever awaits the operation, keeps those that came before anybody
// asked, and drops those that came before: bellhop delivers at least once, and (operation id, state) says what is the
// same. A signal that is no callback is logged and skipped.
//
// # When no callback arrives
//
// [Inbox.Await] is given a timeout for that, by an estimate of how long the operation takes. After it the status is
// polled: by the activity "bellhop.Status", which bellhop's own workers run. When the operation has ended, its outcome
// is the answer, as if the callback had come; else Await goes on listening, and polls at an interval. An operation
// always ends, at the latest by its own timeout. That an operation started here has ended is heard from Temporal
// besides, without any callback: if bellhop's operator knows no target of the name given in [Options], that is how the
// failure INVALID_OPERATION gets here.
//
// # How long things live
//
// An operation outlives its caller: it is neither terminated with the workflow that started it nor cancelled with it.
// [Inbox.Cancel] cancels it. Starting the same operation twice, as a workflow does that was reset or continued as new,
// runs it once.
//
// The callback is addressed to the workflow's id and not to one of its runs, so that it finds the workflow after it
// continued as new or was reset. A workflow that continues as new hands over what the inbox knows as a [Snapshot]. One
// that completes calls [Inbox.Drain] first: a signal that has arrived and was not received is lost with the workflow.
//
// # Determinism
//
// All of this is workflow code: it is replayed, and asks the world for nothing but through Temporal. Make one inbox
// per workflow, at its beginning. It is safe to use from several of the workflow's coroutines.
package receive

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"bellhop"
)

// Defaults of [Options].
const (
	DefaultTarget       = "temporal"
	DefaultTaskQueue    = "bellhop"
	DefaultPollInterval = time.Minute
)

// Options say how bellhop and this workflow find each other. The zero value fits a bellhop in the workflow's own
// namespace with the default configuration.
type Options struct {
	// Target names the entry under targets in bellhop's configuration by which this workflow is called back. It is of
	// type temporal and means this workflow's namespace. Default "temporal".
	Target string
	// Signal is the one signal by which this workflow is called back. Default: one for each event, named after it.
	Signal string
	// States are those of which this workflow is called back. Default: succeeded, failed and cancelled. To be told of
	// running too, for [Inbox.AwaitRunning], name all four.
	States []bellhop.State
	// TaskQueue is where bellhop's workers work. Default "bellhop".
	TaskQueue string
	// PollInterval is the time between two polls once the timeout of an Await has passed. Default 1m.
	PollInterval time.Duration
	// DataConverter is how bellhop writes and reads: where it encrypts, that of its keyset, see package encryption; it is
	// then the one of this workflow's client as well. Default: plain JSON, whatever this workflow's own is.
	DataConverter converter.DataConverter
	// Carried is what the inbox of the run before knew, for a workflow that continues as new. Default: nothing.
	Carried Snapshot
}

// Snapshot is what an inbox hands over when its workflow continues as new. It is JSON, so it can be part of the
// workflow's input.
type Snapshot struct {
	// Kept are the callbacks that nobody has asked for yet, in the order of their arrival. Temporal takes inputs up to
	// 2 MiB, and one callback rarely has more than a few KiB.
	Kept []bellhop.Outcome `json:"kept,omitempty"`
	// Answered are the ids of the callbacks that somebody has asked for, the oldest first, by which their duplicates
	// are known. At most [MaxAnswered].
	Answered []string `json:"answered,omitempty"`
}

// MaxAnswered is how many ids a [Snapshot] carries over. A duplicate comes within the moments in which bellhop waits
// for an acknowledgement, so the newest are plenty; one that is older would be kept as if it were new.
const MaxAnswered = 1000

// ErrNotFound says that bellhop knows no such operation: it was never started, or it ended so long ago that Temporal
// has forgotten it.
var ErrNotFound = bellhop.ErrNotFound

// ErrConflict says that the id belongs to another operation, or to a workflow that is none.
var ErrConflict = bellhop.ErrConflict

// Failed is the error of an operation that failed or was cancelled. What may be done about it is in Outcome.Error,
// which is never nil: its code, whether it is retryable, whether it requires intervention, and the evidence. What
// exists nevertheless is in Outcome.ResourceIDs.
type Failed struct {
	Outcome bellhop.Outcome
}

func (f *Failed) Error() string {
	o := &f.Outcome
	return fmt.Sprintf("%s %s/%s, operation %s: %s", o.OperationType, o.TenantID, o.Resource, o.OperationID, o.Error)
}

// Unwrap is the [bellhop.Failure].
func (f *Failed) Unwrap() error { return f.Outcome.Error }

// Inbox receives the callbacks of a workflow's operations. It is made by [New].
type Inbox struct {
	options    Options
	workflowID string
	log        log.Logger
	channels   []workflow.ReceiveChannel
	// letters are in the order of their arrival, and known has them by callback id.
	letters []*letter
	known   map[string]*letter
	// children are the operations that were started in this run, by id.
	children map[string]*child
}

// letter is a callback that was received, by whichever way.
type letter struct {
	outcome bellhop.Outcome
	// answered says that somebody has asked for it.
	answered bool
	// bare says that an earlier run has received it, and that only its id is known.
	bare bool
}

// child is an operation that was started in this run.
type child struct {
	bellhop.Operation
	end workflow.Future
	// heard says that its end was taken note of.
	heard bool
}

// New makes the inbox of a workflow. Make it before anything else: what it listens to is then known from the first
// moment on.
func New(ctx workflow.Context, options Options) *Inbox {
	if options.Target == "" {
		options.Target = DefaultTarget
	}
	if options.TaskQueue == "" {
		options.TaskQueue = DefaultTaskQueue
	}
	if options.PollInterval <= 0 {
		options.PollInterval = DefaultPollInterval
	}
	in := &Inbox{
		options:    options,
		workflowID: workflow.GetInfo(ctx).WorkflowExecution.ID,
		log:        workflow.GetLogger(ctx),
		known:      map[string]*letter{},
		children:   map[string]*child{},
	}
	for _, name := range in.signals() {
		in.channels = append(in.channels, workflow.GetSignalChannelWithOptions(ctx, name, workflow.SignalChannelOptions{
			Description: "A callback of bellhop: the outcome of a compute operation.",
		}))
	}
	for _, id := range options.Carried.Answered {
		in.keep(&letter{outcome: bellhop.Outcome{CallbackID: id}, answered: true, bare: true})
	}
	for _, outcome := range options.Carried.Kept {
		in.file(outcome)
	}
	return in
}

func (in *Inbox) signals() []string {
	if in.options.Signal != "" {
		return []string{in.options.Signal}
	}
	return []string{
		string(bellhop.EventRunning), string(bellhop.EventProvisioned), string(bellhop.EventUpdated),
		string(bellhop.EventDeleted), string(bellhop.EventFailed), string(bellhop.EventCancelled),
	}
}

// Callback is what an operation needs to call this workflow back. Start puts it in; it is of use for operations that
// somebody else starts. It names no run, so that it outlives the current one.
func (in *Inbox) Callback() bellhop.Callback {
	address, err := json.Marshal(struct {
		WorkflowID string `json:"workflow_id"`
		Signal     string `json:"signal,omitempty"`
	}{in.workflowID, in.options.Signal})
	if err != nil {
		panic(fmt.Sprintf("encode address: %s", err)) // two strings
	}
	return bellhop.Callback{Target: in.options.Target, Address: address, States: slices.Clone(in.options.States)}
}

// Await answers the outcome of an operation that has ended. One that failed or was cancelled is answered as an error,
// a [*Failed]. When no callback comes within the timeout the status is polled, then and at the poll interval; a
// timeout of 0 polls at once.
//
// It may be asked again, and of several operations in any order. Other errors are [ErrNotFound] and, once ctx is
// cancelled, the one that [temporal.IsCanceledError] knows; the operation itself goes on then.
func (in *Inbox) Await(ctx workflow.Context, operationID string, timeout time.Duration) (bellhop.Outcome, error) {
	return in.await(ctx, operationID, timeout, bellhop.State.Terminal)
}

// AwaitRunning is [Inbox.Await] that is content with less: with an operation that the provider has taken. It is told
// by a callback only when the state running is among those in [Options].
func (in *Inbox) AwaitRunning(ctx workflow.Context, operationID string, timeout time.Duration) (bellhop.Outcome, error) {
	return in.await(ctx, operationID, timeout, func(s bellhop.State) bool { return s == bellhop.Running || s.Terminal() })
}

func (in *Inbox) await(ctx workflow.Context, id string, timeout time.Duration, enough func(bellhop.State) bool,
) (bellhop.Outcome, error) {
	// Signals buffer in their channels until somebody looks, so looking is part of the condition that is waited for,
	// and no coroutine has to.
	news := func() bool {
		in.collect()
		return in.find(id, enough) != nil || in.children[id].ended()
	}
	for wait := timeout; ; wait = in.options.PollInterval {
		if !news() && wait > 0 && !in.forgotten(id, enough) {
			_, err := workflow.AwaitWithOptions(ctx, workflow.AwaitOptions{
				Timeout:      wait,
				TimerOptions: workflow.TimerOptions{Summary: "await " + id},
			}, news)
			if err != nil {
				return bellhop.Outcome{}, fmt.Errorf("await operation %s: %w", id, err)
			}
		}
		in.hear(ctx, in.children[id])
		if found := in.find(id, enough); found != nil {
			return found.open()
		}
		answer := in.ask(ctx, id)
		if err := workflow.Await(ctx, func() bool { return answer.IsReady() || news() }); err != nil {
			return bellhop.Outcome{}, fmt.Errorf("await operation %s: %w", id, err)
		}
		if !answer.IsReady() {
			continue // news overtook it
		}
		status, err := told(ctx, id, answer)
		switch {
		case errors.Is(err, ErrNotFound):
			return bellhop.Outcome{}, err
		case err != nil:
			in.log.Warn("the status of an operation could not be polled, will be asked again", "operation_id", id, "error", err)
		case status.Event != "":
			in.file(status.Outcome)
		}
	}
}

// open answers what the letter says.
func (l *letter) open() (bellhop.Outcome, error) {
	l.answered = true
	if l.outcome.State == bellhop.Failed || l.outcome.State == bellhop.Cancelled {
		return l.outcome, &Failed{Outcome: l.outcome}
	}
	return l.outcome, nil
}

// Drain receives what has arrived, without waiting, and answers the callbacks that nobody has asked for, the oldest
// first. Call it as the last thing before the workflow completes: what arrives after it makes Temporal run the end of
// the workflow again, so nothing is missed.
func (in *Inbox) Drain() []bellhop.Outcome {
	in.collect()
	var left []bellhop.Outcome
	for _, l := range in.letters {
		if in.unasked(l) {
			left = append(left, l.outcome)
		}
		l.answered = true
	}
	return left
}

// Snapshot receives what has arrived, without waiting, and answers what the inbox of the next run must know. Call it as
// the last thing before the workflow continues as new.
func (in *Inbox) Snapshot() Snapshot {
	in.collect()
	var s Snapshot
	for _, l := range in.letters {
		if in.unasked(l) {
			s.Kept = append(s.Kept, l.outcome)
		} else {
			s.Answered = append(s.Answered, l.outcome.CallbackID)
		}
	}
	if old := len(s.Answered) - MaxAnswered; old > 0 {
		s.Answered = s.Answered[old:]
	}
	return s
}

// unasked says that nobody has asked for a letter yet. Whoever was told of an end need not hear that it was running.
func (in *Inbox) unasked(l *letter) bool {
	if l.answered {
		return false
	}
	end := in.latest(l.outcome.OperationID, bellhop.State.Terminal)
	return l.outcome.State != bellhop.Running || end == nil || !end.answered
}

// collect takes in the signals that have arrived.
func (in *Inbox) collect() {
	for _, channel := range in.channels {
		for {
			// Decoding by the SDK would drop what is malformed with an error of its own, and fill in what it could.
			var raw converter.RawValue
			if !channel.ReceiveAsync(&raw) {
				break
			}
			outcome, err := in.read(raw)
			if err != nil {
				in.log.Warn("a signal that is no callback was skipped", "signal", channel.Name(), "error", err)
				continue
			}
			in.file(outcome)
		}
	}
}

// read takes an outcome out of a signal or a result. Bellhop has its own converter, whichever this workflow has.
func (in *Inbox) read(raw converter.RawValue) (bellhop.Outcome, error) {
	var outcome bellhop.Outcome
	if raw.Payload() == nil {
		return outcome, errors.New("it is empty")
	}
	if err := in.converter().FromPayload(raw.Payload(), &outcome); err != nil {
		return outcome, err
	}
	return outcome, check(outcome)
}

func check(outcome bellhop.Outcome) error {
	if outcome.OperationID == "" {
		return errors.New("it has no operation_id")
	}
	if outcome.State != bellhop.Running && !outcome.State.Terminal() {
		return fmt.Errorf("it has no state of which callbacks tell, but %q", outcome.State)
	}
	return nil
}

// file keeps an outcome, unless it is known.
func (in *Inbox) file(outcome bellhop.Outcome) {
	outcome.CallbackID = bellhop.CallbackID(outcome.OperationID, outcome.State)
	if outcome.Error == nil && (outcome.State == bellhop.Failed || outcome.State == bellhop.Cancelled) {
		outcome.Error = bellhop.Fail(bellhop.CodeInternal, "the callback does not say why")
	}
	switch known := in.known[outcome.CallbackID]; {
	case known == nil:
		in.keep(&letter{outcome: outcome})
	case known.bare:
		known.outcome, known.bare = outcome, false
	}
}

func (in *Inbox) keep(l *letter) {
	in.letters = append(in.letters, l)
	in.known[l.outcome.CallbackID] = l
}

// about are the letters about an operation that have come.
func (in *Inbox) about(id string) []*letter {
	in.collect()
	var about []*letter
	for _, l := range in.letters {
		if strings.HasPrefix(l.outcome.CallbackID, id+"/") {
			about = append(about, l)
		}
	}
	return about
}

// forget makes room for callbacks with the same ids. What nobody has asked for stays for Drain.
func (in *Inbox) forget(letters []*letter) {
	for _, l := range letters {
		if in.known[l.outcome.CallbackID] == l {
			delete(in.known, l.outcome.CallbackID)
		}
	}
	in.letters = slices.DeleteFunc(in.letters, func(l *letter) bool { return l.answered && slices.Contains(letters, l) })
}

// find looks for the news that are enough; bare ones are none.
func (in *Inbox) find(id string, enough func(bellhop.State) bool) *letter {
	if l := in.latest(id, enough); l != nil && !l.bare {
		return l
	}
	return nil
}

// forgotten says that an earlier run was told what is asked for. No callback will tell it again.
func (in *Inbox) forgotten(id string, enough func(bellhop.State) bool) bool {
	l := in.latest(id, enough)
	return l != nil && l.bare
}

// latest looks for a letter about an operation that is enough. An end comes after running, however the letters came.
func (in *Inbox) latest(id string, enough func(bellhop.State) bool) *letter {
	for _, state := range []bellhop.State{bellhop.Succeeded, bellhop.Failed, bellhop.Cancelled, bellhop.Running} {
		if l := in.known[bellhop.CallbackID(id, state)]; l != nil && enough(state) {
			return l
		}
	}
	return nil
}

// ended says that the operation's workflow has closed and that nobody has heard yet.
func (c *child) ended() bool { return c != nil && !c.heard && c.end.IsReady() }

// hear takes in how an operation's workflow closed: its result is the outcome, or its error has it. One that was
// terminated from outside has none, and is polled for it.
func (in *Inbox) hear(ctx workflow.Context, c *child) {
	if !c.ended() {
		return
	}
	c.heard = true
	var raw converter.RawValue
	err := c.end.Get(ctx, &raw)
	var outcome bellhop.Outcome
	var failed *temporal.ApplicationError
	var cancelled *temporal.CanceledError
	switch {
	case err == nil:
		outcome, err = in.read(raw)
	case errors.As(err, &failed):
		err = failed.Details(&outcome)
	case errors.As(err, &cancelled):
		err = cancelled.Details(&outcome)
	}
	if err == nil {
		err = check(outcome)
	}
	if err == nil && outcome.OperationID == c.ID {
		in.file(outcome)
	}
}

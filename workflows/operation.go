package workflows

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"bellhop"
	"bellhop/activities"
)

// acts names the activities; it is never filled.
var acts *activities.Activities

// operation is one operation on its way.
type operation struct {
	bellhop.Operation

	status bellhop.Status
	// aim is what is waited for: the verb, or delete once a cancelled operation removes what exists.
	aim bellhop.Verb
	// seen is the last observation of the resource, seenAt when it was made. Seen news wakes up who waits.
	seen   bellhop.Observation
	seenAt time.Time
	news   workflow.Channel
	// looking counts the looks under way.
	looking int
	// checked says that a worker found provider, targets and addresses in order.
	checked bool
	// concluded says that the last state was reached.
	concluded bool
	// sparing says that the state is published only where it lasts: the starter left it to us. Where the starter set
	// it, or set nothing, it is published at once.
	sparing bool
	// deliveries are the callbacks on their way, by callback.
	deliveries deliveries
	// second says that the operation was begun by the second rules.
	second bool
	steps  *steps
	// abandonedBy is the target of the caller that waits no longer and for whose sake the operation is cancelled.
	abandonedBy string
}

// run is the path of every operation.
func run(ctx workflow.Context, verb bellhop.Verb, input converter.RawValue) (bellhop.Outcome, error) {
	o, invalid := begin(ctx, verb, input)
	if err := o.serve(ctx); err != nil {
		return bellhop.Outcome{}, err
	}
	o.publish(ctx)

	var end ending
	if invalid != nil {
		end = failed(invalid)
	} else {
		working, cancel := workflow.WithCancel(ctx)
		o.deliveries.keepAlive(ctx, cancel)
		end = o.carryOut(working)
	}
	o.conclude(ctx, end)
	return o.close(ctx)
}

// begin reads the input. It never fails: an input that cannot be read is an operation that failed.
func begin(ctx workflow.Context, verb bellhop.Verb, input converter.RawValue) (*operation, *bellhop.Failure) {
	info := workflow.GetInfo(ctx)
	second := secondRules(ctx)
	data, err := readInput(input)
	var invalid *bellhop.Failure
	var op bellhop.Operation
	if err == nil {
		op, err = bellhop.ParseOperation(info.WorkflowExecution.ID, verb, info.WorkflowStartTime, data)
	} else {
		//nolint:errcheck // what is wrong is known already
		op, _ = bellhop.ParseOperation(info.WorkflowExecution.ID, verb, info.WorkflowStartTime, []byte("{}"))
		op.Callbacks = nil
	}
	faults, _ := errors.AsType[bellhop.Faults](err)
	if second { // an operation of before these limits is carried on
		faults.Note("", bellhop.CheckLimits(op).Err())
	}
	if len(faults) > 0 {
		invalid = bellhop.InvalidOperation(faults)
	}
	o := &operation{
		Operation: op, aim: op.Verb, news: workflow.NewBufferedChannel(ctx, 1), second: second, steps: newSteps(ctx, second),
	}
	_, tenant := workflow.GetTypedSearchAttributes(ctx).GetKeyword(Tenant)
	_, state := workflow.GetTypedSearchAttributes(ctx).GetKeyword(State)
	o.sparing = tenant && !state
	o.status = bellhop.Status{
		Outcome: bellhop.Outcome{
			SchemaVersion: bellhop.SchemaVersion,
			OperationID:   op.ID,
			OperationType: op.Verb,
			TenantID:      op.TenantID,
			Resource:      op.Resource,
			Provider:      op.Provider,
			RequestedAt:   op.RequestedAt,
			Metadata:      op.Metadata,
		},
		Progress:  bellhop.Progress{Desired: op.Spec.Replicas},
		Callbacks: []bellhop.Receipt{},
	}
	o.deliveries = newDeliveries(o)
	o.transition(bellhop.Pending, op.RequestedAt)
	o.status.StartedAt = workflow.Now(ctx).UTC()
	o.transition(bellhop.Queued, o.status.StartedAt)
	return o, invalid
}

// readInput takes the JSON out of the workflow's raw input. Decoding by the SDK would fail the workflow task of an
// input of the wrong type, over and over, and nobody would be told.
func readInput(input converter.RawValue) ([]byte, error) {
	payload := input.Payload()
	if payload == nil {
		return nil, bellhop.Faults{{Problem: "the workflow's input must be an operation as JSON; there is none"}}
	}
	if encoding := string(payload.GetMetadata()[converter.MetadataEncoding]); encoding != converter.MetadataEncodingJSON {
		return nil, bellhop.Faults{{Problem: fmt.Sprintf("the workflow's input must be JSON (%s), not %s",
			converter.MetadataEncodingJSON, encoding)}}
	}
	return payload.GetData(), nil
}

// transition notes that the operation reached a state.
func (o *operation) transition(state bellhop.State, at time.Time) {
	o.status.State = state
	o.status.CallbackID = bellhop.CallbackID(o.ID, state)
	o.status.Event = bellhop.EventFor(o.Verb, state)
	o.status.Transitions = append(o.status.Transitions, bellhop.Transition{State: state, At: at})
	if !o.status.StartedAt.IsZero() {
		o.status.DurationMS = at.Sub(o.status.StartedAt).Milliseconds()
	}
}

// enter is transition, made visible: to Temporal's UI and to the callers who asked for the state.
func (o *operation) enter(ctx workflow.Context, state bellhop.State) {
	o.transition(state, workflow.Now(ctx).UTC())
	if o.sparing && state.Terminal() {
		o.describe(ctx) // once the workflow is closed it tells the state by itself; see close
	} else {
		o.publish(ctx)
	}
	o.deliveries.ring(ctx, state)
}

// see takes an observation over. Ids that are known already are not lost to an observation that has none.
func (o *operation) see(ctx workflow.Context, seen bellhop.Observation) {
	if o.concluded {
		return // what was told stays as it was told
	}
	o.seen, o.seenAt = seen, workflow.Now(ctx)
	if !seen.ResourceIDs.IsZero() || seen.Phase == bellhop.PhaseGone && o.Verb != bellhop.Delete {
		o.status.ResourceIDs = seen.ResourceIDs
		o.status.Endpoints = seen.Endpoints
		o.status.Truncated = seen.Truncated
	}
	if seen.Progress != (bellhop.Progress{}) {
		o.status.Progress = seen.Progress
	}
	o.describe(ctx)
}

// carryOut asks for what the operation wants and waits until it is observed.
func (o *operation) carryOut(ctx workflow.Context) ending {
	end, backstop := o.ask(ctx)
	if end == nil {
		o.enter(ctx, bellhop.Running)
		end = o.wait(ctx, o.deadline(), backstop)
	}
	switch {
	case end.state == bellhop.Cancelled:
		return o.giveUp(ctx, backstop)
	case end.state == bellhop.Failed && end.failure.Code == bellhop.CodeTimeout:
		// What exists is to be listed; and what turns out to be there after all, or to have failed, is told as it is.
		// That nothing is there is no news: the provider may never have taken the request.
		if last := o.lookOnce(ctx); last != nil && (last.state == bellhop.Succeeded || o.seen.Phase != bellhop.PhaseGone) {
			return *last
		}
	}
	return *end
}

func (o *operation) deadline() time.Time { return o.RequestedAt.Add(time.Duration(o.Timeout)) }

// ending is how an operation ended.
type ending struct {
	state   bellhop.State
	failure *bellhop.Failure
}

func failed(failure *bellhop.Failure) ending { return ending{bellhop.Failed, failure} }

// judge says whether an observation ends an operation of a verb, and how; nil while it does not.
func judge(verb bellhop.Verb, seen bellhop.Observation) *ending {
	end := func(e ending) *ending { return &e }
	switch seen.Phase {
	case bellhop.PhaseFailed:
		failure := seen.Failure
		if failure == nil {
			failure = bellhop.Fail(bellhop.CodeInternal, "the provider reported a failure and did not say which")
		}
		return end(failed(failure))
	case bellhop.PhaseSuperseded:
		return end(failed(bellhop.Fail(bellhop.CodeSuperseded, "a newer operation on the same resource took over")))
	case bellhop.PhaseGone:
		if verb == bellhop.Delete {
			return end(ending{state: bellhop.Succeeded})
		}
		return end(failed(bellhop.Fail(bellhop.CodeResourceNotFound, "what was asked for has been removed by somebody else")))
	case bellhop.PhaseReady:
		if verb != bellhop.Delete {
			return end(ending{state: bellhop.Succeeded})
		}
		return nil // still there
	case bellhop.PhasePending:
		return nil
	default:
		return end(failed(bellhop.Fail(bellhop.CodeInternal, "the provider reported an unknown phase %q", seen.Phase)))
	}
}

// ask asks the provider for the change. It answers how the operation ended, nil while it goes on.
func (o *operation) ask(ctx workflow.Context) (*ending, activities.Backstop) {
	remaining := o.deadline().Sub(workflow.Now(ctx))
	if remaining <= 0 {
		end := failed(o.timedOut("no worker took the operation up in time"))
		return &end, activities.Backstop{}
	}
	answer, err := o.askOnce(ctx, string(o.Verb), askActivity(o.Verb), o.Operation, remaining)
	// Whoever asked a provider, and failed, had found everything else in order.
	_, o.checked = errors.AsType[*temporal.ApplicationError](err)
	switch {
	case temporal.IsCanceledError(err), err != nil && cancelledMeanwhile(ctx):
		return &ending{state: bellhop.Cancelled}, activities.Backstop{}
	case err != nil:
		end := failed(o.timedOut("the provider did not take the request in time: " + lastError(err)))
		return &end, activities.Backstop{}
	}
	o.checked = answer.Failure == nil || answer.Failure.Code != bellhop.CodeInvalidOperation
	o.see(ctx, answer.Observation)
	end := judge(o.Verb, answer.Observation)
	if end != nil && end.state == bellhop.Succeeded {
		// It has been running, if for no time; who asked to be told is told. Nobody could have searched for it.
		o.transition(bellhop.Running, workflow.Now(ctx).UTC())
		o.deliveries.ring(ctx, bellhop.Running)
	}
	return end, answer.Backstop
}

// cancelledMeanwhile says whether the operation was cancelled while an attempt of an ask was under way that then failed:
// the server tells the failure then, and no longer that the ask was cancelled.
func cancelledMeanwhile(ctx workflow.Context) bool {
	// Histories of before this version took it for a timeout.
	return ctx.Err() != nil && workflow.GetVersion(ctx, "cancelled-while-asking", workflow.DefaultVersion, 1) == 1
}

func askActivity(verb bellhop.Verb) any {
	switch verb {
	case bellhop.Update:
		return acts.Update
	case bellhop.Delete:
		return acts.Delete
	case bellhop.Provision:
		return acts.Provision
	default:
		return acts.Provision // begin has refused it
	}
}

// maxAsk bounds one call to a provider. Pulling a large image is the longest that one may take.
const maxAsk = 15 * time.Minute

func (o *operation) askOnce(ctx workflow.Context, name string, ask any, op bellhop.Operation, within time.Duration) (activities.Answer, error) {
	return perform(ctx, o.steps, step{
		name: name, kind: string(o.aim), options: o.askOptions(within), activity: ask, args: once(op),
	}, func(answer activities.Answer) bool { return fitsObservation(o.ID, answer.Observation) })
}

func (o *operation) askOptions(within time.Duration) workflow.ActivityOptions {
	return workflow.ActivityOptions{
		ScheduleToCloseTimeout: within,
		StartToCloseTimeout:    min(within, maxAsk),
		HeartbeatTimeout:       activities.HeartbeatTimeout,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: time.Second, MaximumInterval: 30 * time.Second},
		// Only a call that has come to its end says truthfully what exists.
		WaitForCancellation: true,
		Summary:             fmt.Sprintf("%s %s/%s on %s", o.aim, o.TenantID, o.Resource, o.Provider),
		Priority:            o.priority(),
	}
}

// priority shares the workers fairly between tenants, where the server does so. What it leaves out, an activity inherits
// from the workflow: the tenant's weight, and the priority where the operation asks for none.
func (o *operation) priority() temporal.Priority {
	return temporal.Priority{PriorityKey: o.Priority, FairnessKey: bellhop.SoundName(o.TenantID)}
}

// wait waits until an observation ends the operation: a watcher's signal, or our own look when none came for a while.
func (o *operation) wait(ctx workflow.Context, until time.Time, backstop activities.Backstop) *ending {
	signals := workflow.GetSignalChannel(ctx, SignalObserved)
	interval := backstop.First
	for {
		remaining := until.Sub(workflow.Now(ctx))
		if remaining <= 0 {
			end := failed(o.timedOut("it was not observed in time"))
			return &end
		}
		// The timer is left to itself when the operation ends before it: cancelling it would only be one more event
		// in the history. Its context is the operation's own, so that a cancelled operation wakes up.
		timer := workflow.NewTimerWithOptions(ctx, min(interval, remaining), workflow.TimerOptions{Summary: "backstop"})
		for rung := false; !rung; {
			cancelled := false
			selector := workflow.NewSelector(ctx)
			selector.AddReceive(signals, func(channel workflow.ReceiveChannel, _ bool) {
				var seen bellhop.Observation
				channel.Receive(ctx, &seen)
				// Whoever may signal this workflow could forge one. No callback can: it carries an outcome, which has no phase.
				if fitsObservation(o.ID, seen) && o.concerns(seen) {
					o.see(ctx, seen)
				}
			})
			selector.AddReceive(o.news, func(channel workflow.ReceiveChannel, _ bool) { channel.Receive(ctx, nil) })
			selector.AddFuture(timer, func(f workflow.Future) {
				rung = true
				cancelled = f.Get(ctx, nil) != nil
			})
			selector.Select(ctx)
			if cancelled {
				return &ending{state: bellhop.Cancelled}
			}
			if end := judge(o.aim, o.seen); end != nil {
				return end
			}
		}
		if until.Sub(workflow.Now(ctx)) > 0 {
			if end := o.look(ctx); end != nil {
				return end
			}
		}
		interval = min(interval*2, max(backstop.Max, backstop.First))
	}
}

// concerns says whether what a watcher saw is about what is waited for. A watcher judges by what was asked for first:
// of an operation that removes what it provisioned it reports what dies as a failure, and only gone is news.
func (o *operation) concerns(seen bellhop.Observation) bool {
	return o.aim == o.Verb || seen.Phase == bellhop.PhaseGone
}

// look observes the resource once. A provider that cannot be asked now is asked again at the next backstop.
func (o *operation) look(ctx workflow.Context) *ending {
	o.looking++
	defer func() { o.looking-- }()
	aim := o.aim
	seen, err := perform(ctx, o.steps, step{
		name: "observe", kind: "observe", queue: QueueLooks, options: o.lookOptions(), activity: acts.Observe, args: once(o.observable()),
	}, func(seen bellhop.Observation) bool { return fitsObservation(o.ID, seen) })
	if temporal.IsCanceledError(err) {
		return &ending{state: bellhop.Cancelled}
	}
	if err != nil {
		if !o.concluded {
			o.status.Progress.Message = "could not be observed: " + lastError(err)
		}
		return nil
	}
	if o.aim != aim && seen.Phase != bellhop.PhaseGone {
		return nil // it was looked at with other eyes: what is being removed since then is no failure
	}
	o.see(ctx, seen)
	o.news.SendAsync(nil)
	return judge(o.aim, seen)
}

// lookWithin bounds a look with its retries.
const lookWithin = time.Minute

func (o *operation) lookOptions() workflow.ActivityOptions {
	return workflow.ActivityOptions{
		ScheduleToCloseTimeout: lookWithin,
		StartToCloseTimeout:    lookWithin / 2,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: time.Second},
		Summary:                fmt.Sprintf("observe %s/%s on %s", o.TenantID, o.Resource, o.Provider),
		Priority:               o.priority(),
	}
}

// observable is the operation with what an observation needs: it is repeated in the history with each look.
func (o *operation) observable() bellhop.Operation {
	op := o.Operation
	op.Verb = o.aim
	op.Callbacks, op.Metadata = nil, nil
	return op
}

// lookOnce learns what exists when an operation ends without its provider having said so. When that cannot be learnt,
// the ids that are known stay.
func (o *operation) lookOnce(ctx workflow.Context) *ending {
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	return o.look(ctx)
}

// removeWithin bounds how long a cancelled operation waits for what it removes.
const removeWithin = 15 * time.Minute

// giveUp ends a cancelled operation as its policy says, and sees what remains.
func (o *operation) giveUp(ctx workflow.Context, backstop activities.Backstop) ending {
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	cancelled := "the operation was cancelled"
	if o.abandonedBy != "" {
		cancelled = fmt.Sprintf("the operation was cancelled because its caller, of target %s, waits no longer", o.abandonedBy)
	}
	failure := bellhop.Fail(bellhop.CodeCancelled, "%s; what exists was left as it is", cancelled)
	if o.OnCancel != bellhop.Remove {
		o.lookOnce(ctx)
		return ending{bellhop.Cancelled, failure}
	}
	o.aim = bellhop.Delete
	answer, err := o.askOnce(ctx, "remove", acts.Delete, o.observable(), removeWithin)
	if err != nil {
		failure.Message = cancelled + "; what exists could not be removed: " + lastError(err)
		return ending{bellhop.Cancelled, failure}
	}
	o.see(ctx, answer.Observation)
	removed := judge(bellhop.Delete, answer.Observation)
	if removed == nil {
		if backstop.First == 0 {
			backstop = answer.Backstop
		}
		removed = o.wait(ctx, workflow.Now(ctx).Add(removeWithin), backstop)
	}
	switch {
	case removed.state == bellhop.Succeeded:
		failure.Message = cancelled + " and what existed was removed"
	case removed.failure != nil && removed.failure.Code == bellhop.CodeTimeout:
		failure.Message = fmt.Sprintf("%s; removing what exists did not end well: it was not gone within %s", cancelled, removeWithin)
	case removed.failure != nil:
		failure.Message = cancelled + "; removing what exists did not end well: " + removed.failure.Message
		failure.ProviderError = removed.failure.ProviderError
		failure.Evidence = removed.failure.Evidence
	}
	return ending{bellhop.Cancelled, failure}
}

func (o *operation) timedOut(why string) *bellhop.Failure {
	return bellhop.Fail(bellhop.CodeTimeout, "the operation did not end within %s: %s", o.Timeout, why)
}

// lastError digs out of what Temporal reports what the last attempt said.
func lastError(err error) string {
	if application, ok := errors.AsType[*temporal.ApplicationError](err); ok {
		return fmt.Sprintf("%s: %s", application.Type(), application.Message())
	}
	if _, ok := errors.AsType[*temporal.TimeoutError](err); ok {
		return "no answer came"
	}
	return err.Error()
}

// conclude freezes the outcome and tells everybody who asked.
func (o *operation) conclude(ctx workflow.Context, end ending) {
	o.concluded = true
	o.status.FinishedAt = workflow.Now(ctx).UTC()
	o.status.Error = end.failure.Clean(o.Secrets())
	if end.failure != nil {
		o.status.Progress.Message = ""
	}
	o.enter(ctx, end.state)

	metrics := workflow.GetMetricsHandler(ctx).WithTags(map[string]string{
		"verb": string(o.Verb), "provider": o.Provider, "state": string(end.state),
	})
	metrics.Counter("bellhop_operations").Inc(1)
	metrics.Timer("bellhop_operation_duration").Record(o.status.FinishedAt.Sub(o.status.StartedAt))
}

// publishAfter is how long callers may take to be rung before the last state of an operation is made searchable. Until
// then search finds it in the state before.
const publishAfter = 10 * time.Second

// SummaryPublish is the summary of the timer that measures it: by then the operation has reached its last state.
const SummaryPublish = "publish the state"

// close waits until every callback is settled and ends the workflow as the operation ended.
func (o *operation) close(ctx workflow.Context) (bellhop.Outcome, error) {
	detached, _ := workflow.NewDisconnectedContext(ctx)
	if o.sparing && o.deliveries.open > 0 {
		// As in wait, the timer is left to itself.
		late := workflow.NewTimerWithOptions(detached, publishAfter, workflow.TimerOptions{Summary: SummaryPublish})
		if err := workflow.Await(detached, func() bool { return o.deliveries.open == 0 || late.IsReady() }); err != nil {
			return bellhop.Outcome{}, err
		}
		if o.deliveries.open > 0 {
			o.publish(detached)
		}
	}
	if err := o.deliveries.wait(detached); err != nil {
		return bellhop.Outcome{}, err
	}
	if err := workflow.Await(detached, func() bool { return workflow.AllHandlersFinished(detached) }); err != nil {
		return bellhop.Outcome{}, err
	}
	o.publishUndelivered(ctx)
	outcome := o.status.Outcome
	switch outcome.State {
	case bellhop.Succeeded:
		return outcome, nil
	case bellhop.Cancelled:
		return bellhop.Outcome{}, temporal.NewCanceledError(outcome)
	default:
		return bellhop.Outcome{}, temporal.NewApplicationErrorWithOptions(outcome.Error.Message, string(outcome.Error.Code),
			temporal.ApplicationErrorOptions{NonRetryable: true, Details: []any{outcome}})
	}
}

package providertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"bellhop"
	"bellhop/activities"
)

// corner is one article's own corner of the platform: a tenant nobody else has, a worker, and operations each newer
// than the one before. It is swept out at the end.
type corner struct {
	*testing.T
	suite  Suite
	tenant string
	// worker is the provider of the first worker; more come from suite.New.
	worker activities.Provider
	// clock is when the latest operation was requested. It goes on by one nanosecond per operation: a generation that
	// is rounded anywhere on its way loses the order.
	clock     time.Time
	resources []string
	// ctx outlives the test, so that the sweep can still ask.
	ctx context.Context //nolint:containedctx // a corner is a test's scope
}

func newCorner(t *testing.T, suite Suite, tenant string) *corner {
	t.Helper()
	c := &corner{
		T: t, suite: suite, tenant: tenant, worker: suite.New(t),
		clock: time.Now().UTC().Round(0), ctx: context.WithoutCancel(t.Context()),
	}
	t.Cleanup(c.sweep)
	return c
}

// sweep deletes what the article left, so that a shared backend stays clean.
func (c *corner) sweep() {
	if c.suite.Count(c.T, c.tenant) == 0 {
		return
	}
	for _, resource := range c.resources {
		c.end(c.delete(resource))
	}
}

const web = "web"

func (c *corner) provision(resource string, what Template) bellhop.Operation {
	c.Helper()
	return c.operation(bellhop.Provision, resource, what)
}

func (c *corner) update(resource string, what Template) bellhop.Operation {
	c.Helper()
	return c.operation(bellhop.Update, resource, what)
}

func (c *corner) delete(resource string) bellhop.Operation {
	c.Helper()
	return c.operation(bellhop.Delete, resource, Template{ProviderConfig: c.suite.Deletion})
}

// operation makes the next operation, read from JSON as a worker reads it. Nobody is asked yet.
func (c *corner) operation(verb bellhop.Verb, resource string, what Template) bellhop.Operation {
	c.Helper()
	c.clock = c.clock.Add(time.Nanosecond)
	id := fmt.Sprintf("%s:%s-%d", c.tenant, verb, c.clock.UnixNano()%1e9)
	if verb != bellhop.Delete {
		env := map[string]string{"BELLHOP_LAW": id}
		maps.Copy(env, what.Spec.Env)
		what.Spec.Env = env
		what.Spec.Replicas = max(what.Spec.Replicas, 1)
	}
	text, err := json.Marshal(bellhop.Operation{
		TenantID: c.tenant, Resource: resource, Provider: c.suite.Provider,
		Spec: what.Spec, ProviderConfig: what.ProviderConfig,
		Timeout: bellhop.Duration(bellhop.DefaultTimeout), OnCancel: bellhop.Leave,
	})
	if err != nil {
		c.Fatal(err)
	}
	op, err := bellhop.ParseOperation(id, verb, c.clock, text)
	if err != nil {
		c.Fatalf("the suite's template makes no operation: %s", err)
	}
	if !slices.Contains(c.resources, resource) {
		c.resources = append(c.resources, resource)
	}
	return op
}

// ask asks for op as the first worker.
func (c *corner) ask(op bellhop.Operation) bellhop.Observation {
	c.Helper()
	return c.askAs(c.worker, op)
}

func (c *corner) askAs(worker activities.Provider, op bellhop.Operation) bellhop.Observation {
	c.Helper()
	return c.call(op, "ask", verbOf(worker, op))
}

func (c *corner) observe(op bellhop.Operation) bellhop.Observation {
	c.Helper()
	return c.call(op, "observe", c.worker.Observe)
}

type providerCall func(context.Context, bellhop.Operation) (bellhop.Observation, error)

func verbOf(worker activities.Provider, op bellhop.Operation) providerCall {
	switch op.Verb {
	case bellhop.Update:
		return worker.Update
	case bellhop.Delete:
		return worker.Delete
	case bellhop.Provision:
		return worker.Provision
	default:
		panic("providertest: no such verb: " + op.Verb)
	}
}

// call makes one call as bellhop does: what was unavailable or throttled is tried again, and any other failure that
// came as an error is an end. It checks what every observation must keep.
func (c *corner) call(op bellhop.Operation, name string, call providerCall) bellhop.Observation {
	c.Helper()
	var seen bellhop.Observation
	c.until(fmt.Sprintf("%s %s is answered", name, op.ID), func() bool {
		c.Helper()
		observation, err := c.promptly(c.ctx, op, name, call)
		var failure *bellhop.Failure
		switch {
		case err == nil:
			seen = observation
			c.sound(op, seen)
			return true
		case !errors.As(err, &failure):
			c.Fatalf("%s %s: %s: an error that is no *bellhop.Failure is bellhop's own fault", name, op.ID, err)
			return false
		case failure.Code.Unavailable():
			return false
		default:
			seen = bellhop.Observation{OperationID: op.ID, RequestedAt: op.RequestedAt, Phase: bellhop.PhaseFailed, Failure: failure}
			c.sound(op, seen)
			return true
		}
	})
	return seen
}

// promptly makes one call, which must come back soon. One that never does ends the article rather than hold it up.
func (c *corner) promptly(ctx context.Context, op bellhop.Operation, name string, call providerCall) (bellhop.Observation, error) {
	c.Helper()
	var seen bellhop.Observation
	var err error
	back := make(chan struct{})
	began := time.Now()
	go func() {
		defer close(back)
		seen, err = call(ctx, op)
	}()
	select {
	case <-back:
	case <-time.After(c.suite.Patience):
		c.Fatalf("%s %s has not returned after %s", name, op.ID, c.suite.Patience)
	}
	if took := time.Since(began); took > c.suite.Prompt {
		c.Errorf("%s %s took %s; it must return promptly, at most after %s", name, op.ID, took, c.suite.Prompt)
	}
	return seen, err
}

// sound checks what every observation must keep, whoever made it.
func (c *corner) sound(op bellhop.Operation, seen bellhop.Observation) {
	c.Helper()
	if seen.OperationID != op.ID {
		c.Errorf("the observation of %s is about %q", op.ID, seen.OperationID)
	}
	if !seen.RequestedAt.Equal(op.RequestedAt) {
		c.Errorf("the observation of %s says it was requested at %s, not at %s", op.ID,
			seen.RequestedAt.Format(time.RFC3339Nano), op.RequestedAt.Format(time.RFC3339Nano))
	}
	switch seen.Phase {
	case bellhop.PhasePending, bellhop.PhaseReady, bellhop.PhaseGone, bellhop.PhaseFailed, bellhop.PhaseSuperseded:
	default:
		c.Errorf("%s: %q is no phase", op.ID, seen.Phase)
	}
	if seen.Phase == bellhop.PhaseReady && op.Verb == bellhop.Delete {
		c.Errorf("%s is a deletion and cannot be ready", op.ID)
	}
	failure := seen.Failure
	if (failure != nil) != (seen.Phase == bellhop.PhaseFailed) {
		c.Errorf("%s: a failure belongs to a failed phase and to no other: phase %s, failure %v", op.ID, seen.Phase, failure)
	}
	if failure == nil {
		return
	}
	info := failure.Code.Info()
	if info.Code != failure.Code {
		c.Errorf("%s: %q is no code", op.ID, failure.Code)
	}
	if failure.Retryable != info.Retryable || failure.RequiresIntervention != info.RequiresIntervention {
		c.Errorf("%s: %s says retryable %t, requires_intervention %t; its code says %t, %t", op.ID, failure.Code,
			failure.Retryable, failure.RequiresIntervention, info.Retryable, info.RequiresIntervention)
	}
	if failure.Message == "" {
		c.Errorf("%s: %s has no message", op.ID, failure.Code)
	}
}

// end asks for op and waits until nothing more happens to it.
func (c *corner) end(op bellhop.Operation) bellhop.Observation {
	c.Helper()
	seen := c.ask(op)
	c.until(op.ID+" comes to an end", func() bool {
		c.Helper()
		if seen.Phase == bellhop.PhasePending {
			seen = c.observe(op)
		}
		return seen.Phase != bellhop.PhasePending
	})
	return seen
}

// ready asks for op, waits until it is ready, and checks that exactly its replicas stand.
func (c *corner) ready(op bellhop.Operation) bellhop.Observation {
	c.Helper()
	seen := c.end(op)
	if seen.Phase != bellhop.PhaseReady {
		c.Fatalf("%s is %s, not ready%s", op.ID, seen.Phase, because(seen.Failure))
	}
	c.stand(op.Spec.Replicas)
	// What the last observation listed may have been replaced an instant later.
	return c.observe(op)
}

// gone asks for op, a deletion, and waits until it is gone and nothing stands.
func (c *corner) gone(op bellhop.Operation) bellhop.Observation {
	c.Helper()
	seen := c.end(op)
	if seen.Phase != bellhop.PhaseGone {
		c.Fatalf("%s is %s, not gone%s", op.ID, seen.Phase, because(seen.Failure))
	}
	c.stand(0)
	return seen
}

// superseded checks that seen says that a newer operation took over.
func (c *corner) superseded(seen bellhop.Observation) {
	c.Helper()
	if seen.Phase != bellhop.PhaseSuperseded {
		c.Errorf("%s is %s, not superseded%s", seen.OperationID, seen.Phase, because(seen.Failure))
	}
}

// failed checks that seen failed with one of codes.
func (c *corner) failed(seen bellhop.Observation, codes ...bellhop.Code) {
	c.Helper()
	if seen.Phase != bellhop.PhaseFailed {
		c.Fatalf("%s is %s, not failed with %v", seen.OperationID, seen.Phase, codes)
	}
	if !slices.Contains(codes, seen.Failure.Code) {
		c.Errorf("%s failed with %s, not with one of %v: %s", seen.OperationID, seen.Failure.Code, codes, seen.Failure)
	}
}

// stand waits until exactly n replicas stand. Taking down what was replaced may take a moment longer than being ready.
func (c *corner) stand(n int) {
	c.Helper()
	c.until(fmt.Sprintf("%d replicas stand", n), func() bool {
		c.Helper()
		return c.suite.Count(c.T, c.tenant) == n
	})
}

// until waits for a condition. It looks again soon at first, then less often, so that a busy platform is left in peace.
func (c *corner) until(what string, holds func() bool) {
	c.Helper()
	deadline := time.Now().Add(c.suite.Patience)
	for pause := time.Millisecond; !holds(); pause = min(2*pause, 200*time.Millisecond) {
		if time.Now().After(deadline) {
			c.Fatalf("waited %s in vain until %s", c.suite.Patience, what)
		}
		<-time.After(pause)
	}
}

// replicas are the ids that change when a set of replicas is replaced by another. A service's name stays.
func replicas(ids bellhop.ResourceIDs) []string {
	all := slices.Concat(ids.TaskARNs, ids.ContainerIDs, ids.PodNames, ids.SimulatedIDs)
	slices.Sort(all)
	return all
}

// lists checks that seen lists every one of ids.
func (c *corner) lists(seen bellhop.Observation, ids []string) {
	c.Helper()
	listed := replicas(seen.ResourceIDs)
	for _, id := range ids {
		if !slices.Contains(listed, id) {
			c.Errorf("%s (%s) lists %q and not %q, which stands", seen.OperationID, seen.Phase, listed, id)
		}
	}
}

func (c *corner) same(what string, got, want []string) {
	c.Helper()
	if !slices.Equal(got, want) {
		c.Errorf("%s: %q, want %q", what, got, want)
	}
}

func because(failure *bellhop.Failure) string {
	if failure == nil {
		return ""
	}
	return ": " + failure.Error()
}

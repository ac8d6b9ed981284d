// Package docker runs tenants' compute on a Docker engine: one container per replica.
//
// Everything is in the containers' names and labels; the provider itself remembers nothing. A container's name derives
// from tenant, resource, operation and replica, so that asking twice, or from two workers at once, makes one set. Every
// operation gets containers of its own: those of an update start beside those that served before, which are removed
// once every new one is observed ready, and which go on serving when one fails. The containers of a failed operation
// stay as they are, as evidence, until a later operation on the resource becomes ready or deletes it.
//
// Containers run without privileges that they could gain (no-new-privileges), with a limit of processes, without swap
// beyond their memory, and with their ports published on loopback only, unless the configuration says otherwise.
// Without cpu_millis and memory_mib there is no limit of either. An image's own HEALTHCHECK counts when the spec has
// none, as it does for Docker.
package docker

import (
	"context"
	"sync"
	"time"

	"github.com/moby/moby/client"

	"bellhop"
	"bellhop/activities"
)

// Provider is one Docker engine. It keeps the law of [activities.Provider].
type Provider struct {
	config Config
	docker *client.Client
	// clock is the engine's.
	clock activities.Clock
}

var _ activities.Provider = (*Provider)(nil)

// New makes the provider of one engine. It reports everything that is wrong with the configuration at once and asks
// the engine nothing: one that is down is no fault of the configuration.
func New(config Config) (*Provider, error) { return newProvider(config) }

func newProvider(config Config, more ...client.Opt) (*Provider, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	p := &Provider{config: config}
	options := []client.Opt{client.FromEnv, client.WithUserAgent("bellhop"), client.WithHTTPResponseHook(p.clock.Note)}
	if config.Host != "" {
		options = append(options, client.WithHost(config.Host))
	}
	p.docker, err = client.New(append(options, more...)...)
	if err != nil {
		return nil, bellhop.Faults{{Path: "host", Problem: err.Error()}}
	}
	return p, nil
}

// Close lets go of the connections to the engine.
func (p *Provider) Close() error { return p.docker.Close() }

// Check is [Check], and also reports what the provider's entry does not allow the tenant.
func (p *Provider) Check(op bellhop.Operation) error {
	_, faults := p.check(op)
	return faults.Err()
}

func (p *Provider) check(op bellhop.Operation) (OperationConfig, bellhop.Faults) {
	config, faults := check(op)
	if op.Verb != bellhop.Delete {
		p.config.permits(op, config, &faults)
		p.config.Secrets.permits(op.Spec, &faults)
	}
	return config, faults
}

// Provision creates and starts the operation's containers, after pulling the image if need be.
func (p *Provider) Provision(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	return p.ask(ctx, op)
}

// Update does the same beside the containers that are there, of which there must be some.
func (p *Provider) Update(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	return p.ask(ctx, op)
}

func (p *Provider) ask(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	observation, err := p.bringUp(ctx, op)
	if failure := activities.Ended(err); failure != nil {
		return p.failed(ctx, op, failure), nil
	}
	return observation, err
}

func (p *Provider) bringUp(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	config, faults := p.check(op)
	if len(faults) > 0 {
		return bellhop.Observation{}, bellhop.Fail(bellhop.CodeInvalidSpec, "%s", faults)
	}
	members, err := p.list(ctx, keyOf(op))
	if err != nil {
		return bellhop.Observation{}, err
	}
	there := stand(members, op.Generation())
	switch {
	case len(there.newer) > 0:
		return there.superseded(op.Generation()), nil
	case op.Verb == bellhop.Update && len(there.mine)+len(there.older) == 0:
		return bellhop.Observation{}, bellhop.Fail(bellhop.CodeResourceNotFound,
			"there is no container of tenant %s, resource %s to update", op.TenantID, op.Resource)
	}
	env, err := p.config.Secrets.environment(op)
	if err != nil {
		return bellhop.Observation{}, err
	}
	if len(there.mine) < op.Spec.Replicas {
		if err := p.ensureImage(ctx, op.TenantID, op.Spec.Image, config.Pull); err != nil {
			return bellhop.Observation{}, err
		}
	}
	network, err := p.network(ctx, op.TenantID, config.Network)
	if err != nil {
		return bellhop.Observation{}, err
	}
	// All are created before any is started: so one that is missing beside one that ran was removed by somebody.
	ids := make([]string, op.Spec.Replicas)
	err = inParallel(ctx, op.Spec.Replicas, func(ctx context.Context, i int) error {
		id, err := p.create(ctx, op, config, network, env, i+1)
		ids[i] = id
		return err
	})
	if err != nil {
		return bellhop.Observation{}, err
	}
	// A newer operation may have come and seen none of these. It must not find them left over.
	if members, err = p.list(ctx, keyOf(op)); err != nil {
		return bellhop.Observation{}, err
	}
	if there = stand(members, op.Generation()); len(there.newer) > 0 {
		if err := p.remove(ctx, there.mine); err != nil {
			return bellhop.Observation{}, err
		}
		there.mine = nil
		return there.superseded(op.Generation()), nil
	}
	err = inParallel(ctx, len(ids), func(ctx context.Context, i int) error { return p.start(ctx, ids[i]) })
	if err != nil {
		return bellhop.Observation{}, err
	}
	return p.Observe(ctx, op)
}

// failed is the end of an operation that could not be carried out, with what stands nevertheless.
func (p *Provider) failed(ctx context.Context, op bellhop.Operation, failure *bellhop.Failure) bellhop.Observation {
	observation := standing{}.observation(op.Generation())
	if members, err := p.list(ctx, keyOf(op)); err == nil { // else the failure is worth more than the list
		there := stand(members, op.Generation())
		observation = there.observation(op.Generation())
	}
	observation.Phase = bellhop.PhaseFailed
	observation.Failure = failure.Clean(secretsOf(envList(op.Spec.Env)))
	observation.Progress = bellhop.Progress{Message: observation.Failure.Message, Desired: op.Spec.Replicas}
	return observation
}

// Delete stops and removes every container of the resource up to the operation's generation. It takes as long as the
// containers take to stop, StopTimeout at the most, and then some: the engine has no way to be asked and left alone.
// What the engine goes on removing for longer is an error, so that Delete is asked for again: nothing else could tell a
// removal that takes long from one that the engine gave up.
func (p *Provider) Delete(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	members, err := p.list(ctx, keyOf(op))
	if err != nil {
		return bellhop.Observation{}, err
	}
	there := stand(members, op.Generation())
	if len(there.newer) > 0 {
		return there.superseded(op.Generation()), nil
	}
	activities.ReportProgress(ctx, removing(len(members)))
	err = p.remove(ctx, members)
	if failure := activities.Ended(err); failure != nil {
		return p.failed(ctx, op, failure), nil
	}
	if err != nil {
		return bellhop.Observation{}, err
	}
	return p.Observe(ctx, op)
}

// parallel is how many calls to the engine one call of the provider makes at once.
const parallel = 8

// inParallel calls do for 0 … n-1, a few at a time, and returns the first error. After an error it begins no more.
func inParallel(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		wait  sync.WaitGroup
		slots = make(chan struct{}, parallel)
	)
	for i := range n {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wait.Go(func() {
			defer func() { <-slots }()
			if err := do(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	wait.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// pollEvery is how often the engine is asked about a change that it is making and tells nobody of.
const pollEvery = 50 * time.Millisecond

// poll asks until it is so, at most for limit; it says whether it became so.
func (p *Provider) poll(ctx context.Context, limit time.Duration, so func() (bool, error)) (bool, error) {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		done, err := so()
		if done || err != nil {
			return done, err
		}
		select {
		case <-bounded.Done():
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			return false, nil
		case <-ticker.C:
		}
	}
}

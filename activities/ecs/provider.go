// Package ecs runs tenants' compute on Amazon ECS: a service for each resource, or tasks that run once.
//
// Everything is in the names and tags of what stands at ECS; the provider itself remembers nothing. A resource's service
// has one name for ever, and its tags say whose it is, which operation asked for what it runs, and which deployment that
// began. An operation writes its tags before it changes the service, so an older one finds them, and reads them again
// after; ECS has no way to make this one step. Task definitions are called after their content.
//
// ECS itself replaces and rolls back: the circuit breaker is always on. An operation is ready when the deployment that it
// began is complete and runs the task definition that it asked for. A rollback, however well it went, is a failure.
package ecs

import (
	"context"
	"fmt"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	lru "github.com/hashicorp/golang-lru/v2"

	"bellhop"
	"bellhop/activities"
)

// Provider is one ECS cluster. It keeps the law of [activities.Provider].
type Provider struct {
	config Config
	aws    aws.Config
	region string
	rates  rates
	roles  *lru.Cache[string, *clients]

	// hints are the watches of this process, which are told of what was asked for here. Those of others find it by
	// themselves, later.
	lock  sync.Mutex
	hints map[chan<- hint]bool
}

var _ activities.Provider = (*Provider)(nil)

// New makes the provider of one cluster. It reports everything that is wrong with the configuration at once and asks AWS
// nothing.
func New(config Config) (*Provider, error) {
	var faults bellhop.Faults
	config, err := config.withDefaults()
	faults.Note("", err)
	loaded, err := load(config)
	switch {
	case err != nil:
		faults.Add("", "AWS's configuration cannot be read: %s", err)
	case loaded.Region == "":
		faults.Add("region", "is required: the environment names none either (AWS_REGION)")
	}
	if err := faults.Err(); err != nil {
		return nil, err
	}
	roles, err := lru.New[string, *clients](maxRoles)
	if err != nil {
		return nil, fmt.Errorf("remember roles: %w", err)
	}
	return &Provider{
		config: config, aws: loaded, region: loaded.Region, rates: newRates(config), roles: roles, hints: map[chan<- hint]bool{},
	}, nil
}

// Close has nothing to let go of: connections that are idle end by themselves.
func (p *Provider) Close() error { return nil }

// Check says what is wrong with provider_config, what ECS cannot do of the spec, and what this provider does not allow.
func (p *Provider) Check(op bellhop.Operation) error {
	config, faults := check(op)
	if op.Verb != bellhop.Delete {
		p.checkAllowed(op, config, &faults)
	}
	return faults.Err()
}

// Provision creates the resource's service or makes it what the operation asks for, or starts tasks that run once.
func (p *Provider) Provision(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	return p.ask(ctx, op)
}

// Update does the same to what is there. Tasks that run once cannot be updated.
func (p *Provider) Update(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	return p.ask(ctx, op)
}

func (p *Provider) ask(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	if err := ctx.Err(); err != nil {
		return bellhop.Observation{}, err
	}
	config, faults := check(op)
	p.checkAllowed(op, config, &faults)
	if len(faults) > 0 {
		return bellhop.Observation{}, bellhop.Fail(bellhop.CodeInvalidSpec, "%s", faults)
	}
	c := p.forTenant(op.TenantID)
	var seen bellhop.Observation
	var err error
	if config.Kind == KindTask {
		seen, err = p.run(ctx, c, op, config)
		p.hint(hint{tasks: true})
	} else {
		seen, err = p.serve(ctx, c, op, config)
		p.hint(hint{service: keyOf(op).name()})
	}
	return p.told(ctx, op, seen, err)
}

// Delete removes the service and the tasks of the resource. What they leave is removed as it becomes possible, by whoever
// observes the deletion.
func (p *Provider) Delete(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	if err := ctx.Err(); err != nil {
		return bellhop.Observation{}, err
	}
	seen, err := p.remove(ctx, p.forTenant(op.TenantID), op)
	p.hint(hint{service: keyOf(op).name()})
	return p.told(ctx, op, seen, err)
}

// told gives a failure that ends the operation the ids of what stands nevertheless.
func (p *Provider) told(ctx context.Context, op bellhop.Operation, seen bellhop.Observation, err error) (bellhop.Observation, error) {
	failure := activities.Ended(err)
	if failure == nil {
		return seen, err
	}
	c := p.forTenant(op.TenantID)
	seen = bellhop.Observation{}
	if found, err := c.find(ctx, op); err == nil && found.ours { // else the failure is worth more than the list
		if tasks, err := c.serviceTasks(ctx, found.service); err == nil {
			seen.ResourceIDs = found.ids(tasks)
		}
	}
	seen.OperationID, seen.RequestedAt = op.ID, op.RequestedAt
	seen.Phase, seen.Failure = bellhop.PhaseFailed, failure
	seen.Progress = bellhop.Progress{Message: failure.Message, Desired: op.Spec.Replicas}
	return seen, nil
}

// hint says what is worth looking at: a service, or the tasks that run once.
type hint struct {
	service string
	tasks   bool
}

// hint tells the watches of this process what is worth looking at.
func (p *Provider) hint(what hint) {
	p.lock.Lock()
	defer p.lock.Unlock()
	for watch := range p.hints {
		select {
		case watch <- what:
		default: // it has plenty to look at
		}
	}
}

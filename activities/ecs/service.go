package ecs

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"bellhop"
)

// States of a service.
const (
	statusActive   = "ACTIVE"
	statusDraining = "DRAINING"
	statusInactive = "INACTIVE"
)

// found is a resource's service as ECS describes it.
type found struct {
	// service is nil when ECS knows none of the name.
	service *types.Service
	// identity is what its tags say, if they are ours.
	identity
	ours bool
}

func foundIn(service types.Service) found {
	id, ours := identify(service.Tags)
	return found{service: &service, identity: id, ours: ours}
}

// status is the service's, and INACTIVE for none.
func (f found) status() string {
	if f.service == nil {
		return statusInactive
	}
	return aws.ToString(f.service.Status)
}

// find describes the service of an operation's resource.
func (c *clients) find(ctx context.Context, op bellhop.Operation) (found, error) {
	services, err := c.describe(ctx, []string{keyOf(op).name()})
	if err != nil || len(services) == 0 {
		return found{}, err
	}
	f := foundIn(services[0])
	f.ours = f.ours && f.key == keyOf(op)
	return f, nil
}

// describeAtOnce is how many services one call describes.
const describeAtOnce = 10

// describe describes at most ten services by name. Those that ECS does not know are missing from the answer.
func (c *clients) describe(ctx context.Context, names []string) ([]types.Service, error) {
	answer, err := c.ecs.DescribeServices(ctx, &ecs.DescribeServicesInput{
		Cluster: aws.String(c.cluster), Services: names, Include: []types.ServiceField{types.ServiceFieldTags},
	})
	if err != nil {
		return nil, classify(err, "describe service "+names[0])
	}
	for _, failure := range answer.Failures {
		if reason := aws.ToString(failure.Reason); reason != "MISSING" {
			return nil, bellhop.Fail(bellhop.CodeProviderUnavailable, "ECS does not describe service %s", lastPart(aws.ToString(failure.Arn))).
				With("reason", reason)
		}
	}
	return answer.Services, nil
}

// busy is the error upon which the same is asked for again soon.
func busy(format string, args ...any) error {
	failure := bellhop.Fail(bellhop.CodeProviderUnavailable, format, args...)
	failure.RetryAfter = settleIn
	return failure
}

// serve brings the service of an operation about.
func (p *Provider) serve(ctx context.Context, c *clients, op bellhop.Operation, config OperationConfig) (bellhop.Observation, error) {
	f, err := c.find(ctx, op)
	if err != nil {
		return bellhop.Observation{}, err
	}
	absent := f.status() == statusInactive
	switch {
	case f.ours && f.generation.After(op.Generation()):
		return f.superseded(op), nil
	case !f.ours && !absent:
		return bellhop.Observation{}, f.conflict()
	case f.status() == statusDraining:
		return bellhop.Observation{}, busy("service %s is still being removed", keyOf(op).name())
	case absent && op.Verb == bellhop.Update:
		return bellhop.Observation{}, bellhop.Fail(bellhop.CodeResourceNotFound,
			"there is no service of tenant %s, resource %s to update", op.TenantID, op.Resource)
	case f.ours && !absent && f.generation.Equal(op.Generation()) && f.deployment != "":
		return p.Observe(ctx, op) // it was asked for before
	}
	definition, err := p.ensureDefinition(ctx, c, op, config)
	if err != nil {
		return bellhop.Observation{}, err
	}
	if absent {
		return p.create(ctx, c, op, config, definition)
	}
	return p.change(ctx, c, op, config, f, definition)
}

func (f found) conflict() error {
	return bellhop.Fail(bellhop.CodeResourceConflict,
		"there is a service %s without bellhop's tags; rename or remove it, or use another resource name",
		aws.ToString(f.service.ServiceName))
}

func (p *Provider) create(ctx context.Context, c *clients, op bellhop.Operation, config OperationConfig, definition string,
) (bellhop.Observation, error) {
	id := identityOf(op, revision(definition))
	name := keyOf(op).name()
	launchType, providers := p.placement(config)
	answer, err := c.ecs.CreateService(ctx, &ecs.CreateServiceInput{
		ServiceName: aws.String(name), Cluster: aws.String(c.cluster), ClientToken: aws.String(token(op)),
		TaskDefinition: aws.String(definition), DesiredCount: aws.Int32(int32(op.Spec.Replicas)), //nolint:gosec // at most 1000
		LaunchType: types.LaunchType(launchType), CapacityProviderStrategy: strategy(providers),
		NetworkConfiguration: p.network(config), LoadBalancers: config.loadBalancers(), HealthCheckGracePeriodSeconds: config.grace(),
		DeploymentConfiguration: config.deployment(),
		DeploymentController:    &types.DeploymentController{Type: types.DeploymentControllerTypeEcs},
		PropagateTags:           types.PropagateTagsService, Tags: id.tags(),
	})
	if nameTaken(err) {
		// It has come into being since, or was there already and could not be seen yet. Asked again, we see whose it is.
		return bellhop.Observation{}, busy("service %s was created by somebody else at the same moment", name)
	}
	if err != nil {
		return bellhop.Observation{}, classify(err, "create service "+name)
	}
	f := found{service: answer.Service, identity: id, ours: true}
	if f.deployment, err = c.record(ctx, f); err != nil {
		return bellhop.Observation{}, err
	}
	seen := f.sight(op.Generation())
	seen.ResourceIDs = f.ids(nil)
	if seen.Phase != bellhop.PhasePending { // it was ready or failed before: created by this very operation
		return p.Observe(ctx, op)
	}
	return seen, nil
}

// change makes a service of ours what the operation asks for. The tags are written first, so that an operation which is
// older keeps off, and read again after, since an older one may have been about to write.
func (p *Provider) change(ctx context.Context, c *clients, op bellhop.Operation, config OperationConfig, f found, definition string,
) (bellhop.Observation, error) {
	name := keyOf(op).name()
	f, err := c.claim(ctx, op, f, revision(definition))
	if err != nil {
		return bellhop.Observation{}, err
	}
	if f.generation.After(op.Generation()) {
		return f.superseded(op), nil
	}
	input := &ecs.UpdateServiceInput{
		Service: aws.String(name), Cluster: aws.String(c.cluster),
		TaskDefinition: aws.String(definition), DesiredCount: aws.Int32(int32(op.Spec.Replicas)), //nolint:gosec // at most 1000
		HealthCheckGracePeriodSeconds: config.grace(), DeploymentConfiguration: config.deployment(),
		PropagateTags: types.PropagateTagsService,
	}
	p.changes(input, f.service, config)
	answer, err := c.ecs.UpdateService(ctx, input)
	if absent(err) {
		return bellhop.Observation{}, busy("service %s was removed at the same moment", name)
	}
	if err != nil {
		return bellhop.Observation{}, classify(err, "update service "+name)
	}
	f.service = answer.Service
	if _, err := c.record(ctx, f); err != nil {
		return bellhop.Observation{}, err
	}
	if f, err = c.find(ctx, op); err != nil {
		return bellhop.Observation{}, err
	}
	if f.ours && op.Generation().After(f.generation) {
		return bellhop.Observation{}, busy("the older operation %s changed service %s at the same moment", f.generation.OperationID, name)
	}
	return p.observe(ctx, c, op, f)
}

// changes asks for what makes ECS begin a new deployment by being asked for, only if it differs from what is there: an
// update that is asked for twice must not begin two.
func (p *Provider) changes(input *ecs.UpdateServiceInput, there *types.Service, config OperationConfig) {
	if network := p.network(config); !sameNetwork(network, there.NetworkConfiguration) {
		input.NetworkConfiguration = network
	}
	// A launch type stays what it was: ECS changes it by a capacity provider strategy only.
	_, providers := p.placement(config)
	if wanted := strategy(providers); len(wanted) > 0 && !sameStrategy(wanted, there.CapacityProviderStrategy) {
		input.CapacityProviderStrategy = wanted
	}
	if wanted := config.loadBalancers(); !sameBalancers(wanted, there.LoadBalancers) {
		input.LoadBalancers = append([]types.LoadBalancer{}, wanted...) // an empty list is none any more, nil is no change
	}
}

func sameNetwork(a, b *types.NetworkConfiguration) bool {
	if b == nil || b.AwsvpcConfiguration == nil {
		return false
	}
	x, y := a.AwsvpcConfiguration, b.AwsvpcConfiguration
	return sameSet(x.Subnets, y.Subnets) && sameSet(x.SecurityGroups, y.SecurityGroups) && x.AssignPublicIp == y.AssignPublicIp
}

// sameSet compares without regard to the order, which ECS does not keep.
func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func sameStrategy(a, b []types.CapacityProviderStrategyItem) bool {
	texts := func(items []types.CapacityProviderStrategyItem) []string {
		var all []string
		for _, item := range items {
			all = append(all, fmt.Sprintf("%s %d %d", aws.ToString(item.CapacityProvider), item.Base, item.Weight))
		}
		return all
	}
	return sameSet(texts(a), texts(b))
}

func sameBalancers(a, b []types.LoadBalancer) bool {
	texts := func(balancers []types.LoadBalancer) []string {
		var all []string
		for _, balancer := range balancers {
			all = append(all, fmt.Sprintf("%s %s %d", aws.ToString(balancer.TargetGroupArn), aws.ToString(balancer.ContainerName), aws.ToInt32(balancer.ContainerPort)))
		}
		return all
	}
	return sameSet(texts(a), texts(b))
}

// claim writes the operation's tags to the service and returns the service as it stands then: with tags of a newer
// operation, if one came meanwhile.
func (c *clients) claim(ctx context.Context, op bellhop.Operation, f found, definition string) (found, error) {
	id := identityOf(op, definition)
	switch {
	case !f.generation.Equal(op.Generation()):
		id.previous = f.generation
	case f.verb == op.Verb && f.definition == definition:
		return f, nil // claimed before
	default:
		id.previous = f.previous
	}
	_, err := c.ecs.TagResource(ctx, &ecs.TagResourceInput{ResourceArn: f.service.ServiceArn, Tags: id.tags()})
	if err != nil {
		return found{}, classify(err, "tag service "+op.TenantID+"/"+op.Resource)
	}
	after, err := c.find(ctx, op)
	if err != nil {
		return found{}, err
	}
	switch {
	case !after.ours || after.status() == statusInactive:
		return found{}, busy("service %s was removed at the same moment", keyOf(op).name())
	case op.Generation().After(after.generation):
		// An older operation wrote at the same moment, or what we read lags behind.
		return found{}, busy("the older operation %s tagged service %s at the same moment", after.generation.OperationID, keyOf(op).name())
	}
	return after, nil
}

// record writes down which deployment the operation began, and returns it.
func (c *clients) record(ctx context.Context, f found) (string, error) {
	deployment := primary(f.service)
	if deployment == nil {
		return "", busy("service %s has no deployment yet", aws.ToString(f.service.ServiceName))
	}
	f.deployment, f.begun = aws.ToString(deployment.Id), aws.ToTime(deployment.CreatedAt)
	all := f.tags()
	for _, t := range all {
		if *t.Key != tagDeployment {
			continue
		}
		if _, err := c.ecs.TagResource(ctx, &ecs.TagResourceInput{ResourceArn: f.service.ServiceArn, Tags: []types.Tag{t}}); err != nil {
			return "", classify(err, "tag service "+aws.ToString(f.service.ServiceName))
		}
	}
	return f.deployment, nil
}

// primary is the deployment that ECS is about to make, or has made, the only one.
func primary(service *types.Service) *types.Deployment {
	for i, deployment := range service.Deployments {
		if aws.ToString(deployment.Status) == "PRIMARY" {
			return &service.Deployments[i]
		}
	}
	return nil
}

func (c *OperationConfig) deployment() *types.DeploymentConfiguration {
	return &types.DeploymentConfiguration{
		DeploymentCircuitBreaker: &types.DeploymentCircuitBreaker{Enable: true, Rollback: true},
		MinimumHealthyPercent:    aws.Int32(int32(*c.MinimumHealthyPercent)), //nolint:gosec // a percentage
		MaximumPercent:           aws.Int32(int32(*c.MaximumPercent)),        //nolint:gosec // a percentage
	}
}

func (c *OperationConfig) loadBalancers() []types.LoadBalancer {
	var balancers []types.LoadBalancer
	for _, group := range c.TargetGroups {
		name := group.Container
		if name == "" {
			name = container
		}
		balancers = append(balancers, types.LoadBalancer{
			TargetGroupArn: aws.String(group.ARN), ContainerName: aws.String(name), ContainerPort: aws.Int32(int32(group.Port)), //nolint:gosec // a port
		})
	}
	return balancers
}

// grace is nil without load balancers: ECS refuses it then.
func (c *OperationConfig) grace() *int32 {
	if len(c.TargetGroups) == 0 {
		return nil
	}
	return aws.Int32(int32(time.Duration(c.HealthCheckGrace) / time.Second)) //nolint:gosec // checked
}

// remove begins to remove the service and the tasks of a resource.
func (p *Provider) remove(ctx context.Context, c *clients, op bellhop.Operation) (bellhop.Observation, error) {
	f, err := c.find(ctx, op)
	if err != nil {
		return bellhop.Observation{}, err
	}
	switch {
	case f.ours && f.generation.After(op.Generation()):
		return f.superseded(op), nil
	case !f.ours && f.status() != statusInactive:
		return bellhop.Observation{}, f.conflict()
	}
	left, err := c.tasksOf(ctx, op, "")
	if err != nil {
		return bellhop.Observation{}, err
	}
	if newer := left.newer(op.Generation()); newer.OperationID != "" {
		return superseded(op, newer, left.ids(c)), nil
	}
	if f.service == nil && len(left.tasks) == 0 {
		lately, err := c.registeredLately(ctx, left.families)
		if err != nil {
			return bellhop.Observation{}, err
		}
		if lately { // so its service may have been created just now, and ECS does not describe it yet
			return bellhop.Observation{}, busy("ECS describes no service %s, and its task definition is new", keyOf(op).name())
		}
	}
	if f.status() == statusActive {
		if f, err = c.claim(ctx, op, f, f.definition); err != nil {
			return bellhop.Observation{}, err
		}
		if f.generation.After(op.Generation()) {
			return f.superseded(op), nil
		}
		// By force is what scales it to nothing first: one call instead of two, of which a crash could leave one.
		_, err := c.ecs.DeleteService(ctx, &ecs.DeleteServiceInput{
			Service: f.service.ServiceArn, Cluster: aws.String(c.cluster), Force: aws.Bool(true),
		})
		if err != nil && !absent(err) {
			return bellhop.Observation{}, classify(err, "delete service "+keyOf(op).name())
		}
	}
	if err := c.stop(ctx, left.running(), "removed by operation "+op.ID); err != nil {
		return bellhop.Observation{}, err
	}
	if f, err = c.find(ctx, op); err != nil {
		return bellhop.Observation{}, err
	}
	if f.status() == statusActive && !f.generation.After(op.Generation()) {
		return bellhop.Observation{}, busy("service %s was created at the same moment, or is not yet seen to be removed", keyOf(op).name())
	}
	return p.observe(ctx, c, op, f)
}

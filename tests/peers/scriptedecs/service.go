package scriptedecs

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// The states of a service.
const (
	active   = "ACTIVE"
	draining = "DRAINING"
	inactive = "INACTIVE"
)

// service is a service. What is told of it is in types.Service, except for what told adds.
type service struct {
	types.Service
	cluster string
	tags    []types.Tag
	// asked is the request that created it, without its token.
	asked, token string
	// deployments has the primary one first.
	deployments []*deployment
	// completed is the last deployment that completed: where a rollback leads to.
	completed *deployment
	// records are the service deployments, the newest first.
	records []*record
	// hidden is how often it is still said to be missing.
	hidden int
	// due says that the scheduler is about to look at it.
	due bool
	// broken lets all of its tasks exit, whatever their images do.
	broken bool
}

func (svc *service) name() string { return *svc.ServiceName }

// live are the tasks that shall run.
func (svc *service) live() []*task {
	var tasks []*task
	for _, d := range svc.deployments {
		tasks = append(tasks, d.live()...)
	}
	return tasks
}

func (s *Server) createService(in *ecs.CreateServiceInput) (*ecs.CreateServiceOutput, error) {
	cluster, err := s.cluster(in.Cluster)
	if err != nil {
		return nil, err
	}
	name := aws.ToString(in.ServiceName)
	if !ecsName.MatchString(name) {
		return nil, invalid("Invalid service name: up to 255 letters, numbers, underscores and hyphens are allowed.")
	}
	if err := checkToken(in.ClientToken, 36); err != nil {
		return nil, err
	}
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	given := aws.ToString(in.ClientToken)
	in.ClientToken = nil
	asked, err := write(in)
	if err != nil {
		return nil, err
	}
	arn := s.arn("service", cluster, name)
	if there := s.services[arn]; there != nil {
		switch *there.Status {
		case active:
			if there.token != given || there.asked != string(asked) {
				return nil, invalid("Creation of service was not idempotent.")
			}
			return &ecs.CreateServiceOutput{Service: s.told(there, true)}, nil
		case draining:
			return nil, invalid("Unable to Start a service that is still Draining.")
		}
	}
	definition, err := s.usable(in.TaskDefinition)
	if err != nil {
		return nil, err
	}
	place := placement{in.LaunchType, in.CapacityProviderStrategy, in.NetworkConfiguration}
	if err := place.check(definition); err != nil {
		return nil, err
	}
	if err := checkLoadBalancers(in.LoadBalancers, definition); err != nil {
		return nil, err
	}
	if place.launch == "" && len(place.strategy) == 0 {
		place.launch = types.LaunchTypeEc2
	}
	svc := &service{
		cluster: cluster, asked: string(asked), token: given, tags: in.Tags, hidden: s.options.MissingDescribes,
		Service: types.Service{
			ServiceArn: &arn, ServiceName: &name, ClusterArn: aws.String(s.arn("cluster", cluster)), Status: aws.String(active),
			DesiredCount: aws.ToInt32(in.DesiredCount), LaunchType: place.launch, CapacityProviderStrategy: place.strategy,
			NetworkConfiguration: place.network, LoadBalancers: in.LoadBalancers, ServiceRegistries: in.ServiceRegistries,
			DeploymentConfiguration: configuration(nil, in.DeploymentConfiguration),
			DeploymentController:    cmp.Or(in.DeploymentController, &types.DeploymentController{Type: types.DeploymentControllerTypeEcs}),
			SchedulingStrategy:      cmp.Or(in.SchedulingStrategy, types.SchedulingStrategyReplica),
			EnableECSManagedTags:    in.EnableECSManagedTags, EnableExecuteCommand: in.EnableExecuteCommand,
			HealthCheckGracePeriodSeconds: in.HealthCheckGracePeriodSeconds, PropagateTags: cmp.Or(in.PropagateTags, types.PropagateTagsNone),
			PlacementConstraints: in.PlacementConstraints, PlacementStrategy: in.PlacementStrategy,
			PlatformVersion: in.PlatformVersion, RoleArn: in.Role,
			AvailabilityZoneRebalancing: in.AvailabilityZoneRebalancing,
			CreatedAt:                   aws.Time(time.Now()), CreatedBy: aws.String("arn:aws:iam::" + s.options.Account + ":user/bellhop"),
		},
	}
	s.services[arn] = svc
	s.deploy(svc, definition)
	return &ecs.CreateServiceOutput{Service: s.told(svc, true)}, nil
}

func checkLoadBalancers(balancers []types.LoadBalancer, d *taskDefinition) error {
	for _, balancer := range balancers {
		name, port := aws.ToString(balancer.ContainerName), aws.ToInt32(balancer.ContainerPort)
		at := slices.IndexFunc(d.ContainerDefinitions, func(c types.ContainerDefinition) bool { return aws.ToString(c.Name) == name })
		if at < 0 {
			return invalid("The container %s does not exist in the task definition.", name)
		}
		if !slices.ContainsFunc(d.ContainerDefinitions[at].PortMappings, func(p types.PortMapping) bool { return aws.ToInt32(p.ContainerPort) == port }) {
			return invalid("The container %s did not have a container port %d defined.", name, port)
		}
	}
	return nil
}

// configuration is a deployment configuration with what is left out of it: from before, or the defaults.
func configuration(before, given *types.DeploymentConfiguration) *types.DeploymentConfiguration {
	if before == nil {
		before = &types.DeploymentConfiguration{
			MaximumPercent: aws.Int32(200), MinimumHealthyPercent: aws.Int32(100), Strategy: types.DeploymentStrategyRolling,
			DeploymentCircuitBreaker: &types.DeploymentCircuitBreaker{},
		}
	}
	merged := *before
	if given != nil {
		merged.MaximumPercent = cmp.Or(given.MaximumPercent, before.MaximumPercent)
		merged.MinimumHealthyPercent = cmp.Or(given.MinimumHealthyPercent, before.MinimumHealthyPercent)
		merged.DeploymentCircuitBreaker = cmp.Or(given.DeploymentCircuitBreaker, before.DeploymentCircuitBreaker)
		merged.Alarms = cmp.Or(given.Alarms, before.Alarms)
		if given.LifecycleHooks != nil {
			merged.LifecycleHooks = given.LifecycleHooks
		}
	}
	return &merged
}

// find finds a service by its name or ARN.
func (s *Server) find(cluster *string, service string) (*service, error) {
	in, err := s.cluster(cluster)
	if err != nil {
		return nil, err
	}
	if found := s.services[s.arn("service", in, service[strings.LastIndex(service, "/")+1:])]; found != nil {
		return found, nil
	}
	return nil, refuse("ServiceNotFoundException", "Service not found.")
}

func (s *Server) updateService(in *ecs.UpdateServiceInput) (*ecs.UpdateServiceOutput, error) {
	svc, err := s.find(in.Cluster, aws.ToString(in.Service))
	if err != nil {
		return nil, err
	}
	if *svc.Status != active {
		return nil, refuse("ServiceNotActiveException", "Service was not ACTIVE.")
	}
	before, primary := svc.Service, svc.deployments[0]
	definition := primary.definition
	if in.TaskDefinition != nil {
		if definition, err = s.usable(in.TaskDefinition); err != nil {
			return nil, err
		}
	}
	place := placement{svc.LaunchType, svc.CapacityProviderStrategy, cmp.Or(in.NetworkConfiguration, svc.NetworkConfiguration)}
	if in.CapacityProviderStrategy != nil {
		place.launch, place.strategy = "", in.CapacityProviderStrategy
	}
	if err := place.check(definition); err != nil {
		return nil, err
	}
	if in.LoadBalancers != nil {
		if err := checkLoadBalancers(in.LoadBalancers, definition); err != nil {
			return nil, err
		}
		svc.LoadBalancers = in.LoadBalancers
	}
	svc.LaunchType, svc.CapacityProviderStrategy, svc.NetworkConfiguration = place.launch, place.strategy, place.network
	svc.DeploymentConfiguration = configuration(svc.DeploymentConfiguration, in.DeploymentConfiguration)
	svc.HealthCheckGracePeriodSeconds = cmp.Or(in.HealthCheckGracePeriodSeconds, svc.HealthCheckGracePeriodSeconds)
	svc.PropagateTags = cmp.Or(in.PropagateTags, svc.PropagateTags)
	svc.PlatformVersion = cmp.Or(in.PlatformVersion, svc.PlatformVersion)
	if in.EnableExecuteCommand != nil {
		svc.EnableExecuteCommand = *in.EnableExecuteCommand
	}
	if in.EnableECSManagedTags != nil {
		svc.EnableECSManagedTags = *in.EnableECSManagedTags
	}
	if in.DesiredCount != nil {
		svc.DesiredCount = *in.DesiredCount
	}
	// Only a change of what tasks are, or of where they run, is a new deployment.
	changed := before.LaunchType != svc.LaunchType || !reflect.DeepEqual(before.CapacityProviderStrategy, svc.CapacityProviderStrategy) ||
		!reflect.DeepEqual(before.NetworkConfiguration, svc.NetworkConfiguration) ||
		!reflect.DeepEqual(before.LoadBalancers, svc.LoadBalancers) || !reflect.DeepEqual(before.PlatformVersion, svc.PlatformVersion)
	if in.ForceNewDeployment || definition != primary.definition || changed {
		s.deploy(svc, definition)
	}
	s.look(svc)
	return &ecs.UpdateServiceOutput{Service: s.told(svc, true)}, nil
}

func (s *Server) deleteService(in *ecs.DeleteServiceInput) (*ecs.DeleteServiceOutput, error) {
	svc, err := s.find(in.Cluster, aws.ToString(in.Service))
	if err != nil {
		return nil, err
	}
	force := aws.ToBool(in.Force)
	switch {
	case *svc.Status == inactive:
		return nil, refuse("ServiceNotActiveException", "Service was not ACTIVE.")
	case *svc.Status == draining:
		return &ecs.DeleteServiceOutput{Service: s.told(svc, true)}, nil
	case !force && svc.DesiredCount > 0:
		return nil, invalid("The service cannot be stopped while it is scaled above 0.")
	case !force && len(svc.deployments) > 1:
		return nil, invalid("The service cannot be stopped while deployments are active.")
	}
	svc.Status, svc.DesiredCount = aws.String(draining), 0
	for _, r := range svc.records {
		r.end(types.ServiceDeploymentStatusStopped, "Service deployment stopped because the service was deleted.")
	}
	s.look(svc)
	return &ecs.DeleteServiceOutput{Service: s.told(svc, true)}, nil
}

// drain takes a deleted service one step further.
func (s *Server) drain(svc *service) {
	for _, t := range svc.live() {
		s.stop(t, types.TaskStopCodeServiceSchedulerInitiated, scaling(t.deployment))
	}
	for _, d := range svc.deployments {
		if len(d.tasks) > 0 {
			return // the last of them to stop comes back here
		}
	}
	svc.Status, svc.deployments = aws.String(inactive), nil
	forget := func() {
		if s.services[*svc.ServiceArn] == svc { // the name may have been taken anew
			delete(s.services, *svc.ServiceArn)
		}
	}
	if s.options.KeepInactive < 0 {
		forget()
		return
	}
	s.afterTime(s.options.KeepInactive, forget)
}

func (s *Server) describeServices(in *ecs.DescribeServicesInput) (*ecs.DescribeServicesOutput, error) {
	if len(in.Services) == 0 {
		return nil, invalid("Services cannot be empty.")
	}
	if len(in.Services) > 10 {
		return nil, invalid("Services cannot have more than 10 items.")
	}
	cluster, err := s.cluster(in.Cluster)
	if err != nil {
		return nil, err
	}
	out := &ecs.DescribeServicesOutput{}
	for _, name := range in.Services {
		svc, err := s.find(in.Cluster, name)
		if err == nil && svc.hidden > 0 {
			svc.hidden--
			svc = nil
		}
		if err != nil || svc == nil {
			out.Failures = append(out.Failures, types.Failure{
				Arn: aws.String(s.arn("service", cluster, name[strings.LastIndex(name, "/")+1:])), Reason: aws.String("MISSING"),
			})
			continue
		}
		out.Services = append(out.Services, *s.told(svc, slices.Contains(in.Include, types.ServiceFieldTags)))
	}
	return out, nil
}

// listServices lists what is not INACTIVE, the draining too.
func (s *Server) listServices(in *ecs.ListServicesInput) (*ecs.ListServicesOutput, error) {
	cluster, err := s.cluster(in.Cluster)
	if err != nil {
		return nil, err
	}
	var arns []string
	for _, arn := range slices.Sorted(maps.Keys(s.services)) {
		svc := s.services[arn]
		if svc.cluster != cluster || *svc.Status == inactive || in.LaunchType != "" && in.LaunchType != svc.LaunchType {
			continue
		}
		if svc.hidden > 0 {
			svc.hidden--
			continue
		}
		arns = append(arns, arn)
	}
	page, next, err := page(arns, in.MaxResults, in.NextToken, 10)
	return &ecs.ListServicesOutput{ServiceArns: page, NextToken: next}, err
}

// told is a service as it is told now.
func (s *Server) told(svc *service, tags bool) *types.Service {
	said := svc.Service
	for _, d := range svc.deployments {
		told := d.told()
		said.RunningCount += told.RunningCount
		said.PendingCount += told.PendingCount
		said.Deployments = append(said.Deployments, told)
	}
	if len(svc.records) > 0 {
		said.CurrentServiceDeployment = svc.records[0].ServiceDeploymentArn
		said.CurrentServiceRevisions = svc.records[0].revisions()
	}
	if tags {
		said.Tags = svc.tags
	}
	return &said
}

// say adds an event to a service's stream.
func (s *Server) say(svc *service, format string, args ...any) {
	id := s.hex()
	event := types.ServiceEvent{
		Id:        aws.String(id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:]),
		CreatedAt: aws.Time(time.Now()), Message: aws.String(fmt.Sprintf("(service %s) ", svc.name()) + fmt.Sprintf(format, args...)),
	}
	svc.Events = append([]types.ServiceEvent{event}, svc.Events...)
	if len(svc.Events) > 100 {
		svc.Events = svc.Events[:100]
	}
}

func (s *Server) describeClusters(in *ecs.DescribeClustersInput) (*ecs.DescribeClustersOutput, error) {
	out := &ecs.DescribeClustersOutput{}
	asked := in.Clusters
	if len(asked) == 0 {
		asked = []string{"default"}
	}
	for _, given := range asked {
		name, err := s.cluster(&given)
		if err != nil {
			out.Failures = append(out.Failures, types.Failure{Arn: aws.String(s.arn("cluster", given)), Reason: aws.String("MISSING")})
			continue
		}
		cluster := types.Cluster{ClusterArn: aws.String(s.arn("cluster", name)), ClusterName: &name, Status: aws.String(active)}
		for _, svc := range s.services {
			if svc.cluster == name && *svc.Status != inactive {
				cluster.ActiveServicesCount++
			}
		}
		out.Clusters = append(out.Clusters, cluster)
	}
	return out, nil
}

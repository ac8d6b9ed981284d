package ecs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"bellhop"
)

// States of a task.
const (
	taskRunning = "RUNNING"
	taskStopped = "STOPPED"
)

// startedBy marks tasks that run once, so that the watch finds them all with one list.
const startedBy = "bellhop"

// describeTasksAtOnce is how many tasks one call describes.
const describeTasksAtOnce = 100

// listTasks lists tasks by a filter that the caller gives, for each of states as desired.
func (c *clients) listTasks(ctx context.Context, filter ecs.ListTasksInput, states ...types.DesiredStatus) ([]string, error) {
	var arns []string
	for _, state := range states {
		filter.Cluster, filter.DesiredStatus = aws.String(c.cluster), state
		pages := ecs.NewListTasksPaginator(c.ecs, &filter)
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if absent(err) { // the service that they are to be of
				return arns, nil
			}
			if err != nil {
				return nil, classify(err, "list tasks")
			}
			arns = append(arns, page.TaskArns...)
		}
	}
	return arns, nil
}

// describeTasks describes tasks with their tags. Those that ECS has forgotten are missing.
func (c *clients) describeTasks(ctx context.Context, arns []string) ([]types.Task, error) {
	var tasks []types.Task
	for chunk := range slices.Chunk(arns, describeTasksAtOnce) {
		answer, err := c.ecs.DescribeTasks(ctx, &ecs.DescribeTasksInput{
			Cluster: aws.String(c.cluster), Tasks: chunk, Include: []types.TaskField{types.TaskFieldTags},
		})
		if err != nil {
			return nil, classify(err, "describe tasks")
		}
		tasks = append(tasks, answer.Tasks...)
	}
	slices.SortFunc(tasks, func(a, b types.Task) int { return strings.Compare(aws.ToString(a.TaskArn), aws.ToString(b.TaskArn)) })
	return tasks, nil
}

// serviceTasks are the tasks that a service wants to run.
func (c *clients) serviceTasks(ctx context.Context, service *types.Service) ([]types.Task, error) {
	arns, err := c.listTasks(ctx, ecs.ListTasksInput{ServiceName: service.ServiceName}, types.DesiredStatusRunning)
	if err != nil {
		return nil, err
	}
	tasks, err := c.describeTasks(ctx, arns)
	return slices.DeleteFunc(tasks, stopped), err
}

func stopped(task types.Task) bool { return aws.ToString(task.LastStatus) == taskStopped }

// once says whether a task runs once, as against those of a service.
func once(task types.Task) bool { return aws.ToString(task.StartedBy) == startedBy }

// resourceTasks are the tasks of a resource, also those that have stopped as long as ECS remembers them.
type resourceTasks struct {
	families []string
	tasks    []types.Task
}

// tasksOf finds all tasks of an operation's resource: those of its families, and of one besides, which the operator's
// own task definitions are of.
func (c *clients) tasksOf(ctx context.Context, op bellhop.Operation, besides string) (resourceTasks, error) {
	beginning := keyOf(op).name() + "-"
	families, err := c.families(ctx, beginning)
	if err != nil {
		return resourceTasks{}, err
	}
	// Another resource's families may begin like this too. They are longer.
	families = slices.DeleteFunc(families, func(family string) bool { return len(family) != len(beginning)+contentHash })
	all := resourceTasks{families: families}
	if besides != "" && !slices.Contains(families, besides) {
		families = append(slices.Clone(families), besides)
	}
	for _, family := range families {
		arns, err := c.listTasks(ctx, ecs.ListTasksInput{Family: aws.String(family)}, types.DesiredStatusRunning, types.DesiredStatusStopped)
		if err != nil {
			return resourceTasks{}, err
		}
		tasks, err := c.describeTasks(ctx, arns)
		if err != nil {
			return resourceTasks{}, err
		}
		for _, task := range tasks {
			if id, ours := identify(task.Tags); ours && id.key == keyOf(op) {
				all.tasks = append(all.tasks, task)
			}
		}
	}
	return all, nil
}

func (r resourceTasks) filter(keep func(types.Task) bool) resourceTasks {
	kept := resourceTasks{families: r.families}
	for _, task := range r.tasks {
		if keep(task) {
			kept.tasks = append(kept.tasks, task)
		}
	}
	return kept
}

func (r resourceTasks) alive() resourceTasks {
	return r.filter(func(task types.Task) bool { return !stopped(task) })
}

// running are the tasks that run once and were not told to stop.
func (r resourceTasks) running() resourceTasks {
	return r.filter(func(task types.Task) bool { return once(task) && aws.ToString(task.DesiredStatus) != taskStopped })
}

// of are the tasks that run once of one operation.
func (r resourceTasks) of(operation string) resourceTasks {
	return r.filter(func(task types.Task) bool {
		id, _ := identify(task.Tags)
		return once(task) && id.generation.OperationID == operation
	})
}

// newer is the newest operation after of that has tasks which run once.
func (r resourceTasks) newer(of bellhop.Generation) bellhop.Generation {
	var newest bellhop.Generation
	for _, task := range r.tasks {
		if id, ours := identify(task.Tags); ours && once(task) && id.generation.After(of) {
			newest, of = id.generation, id.generation
		}
	}
	return newest
}

func (r resourceTasks) ids(c *clients) bellhop.ResourceIDs {
	var ids bellhop.ResourceIDs
	for _, task := range r.tasks {
		ids.ClusterARN = aws.ToString(task.ClusterArn)
		ids.TaskDefinitionARN = aws.ToString(task.TaskDefinitionArn)
		ids.TaskARNs = append(ids.TaskARNs, aws.ToString(task.TaskArn))
	}
	if ids.ClusterARN == "" && strings.HasPrefix(c.cluster, "arn:") {
		ids.ClusterARN = c.cluster
	}
	slices.Sort(ids.TaskARNs)
	return ids
}

func (c *clients) stop(ctx context.Context, these resourceTasks, why string) error {
	const longest = 255
	for _, task := range these.tasks {
		_, err := c.ecs.StopTask(ctx, &ecs.StopTaskInput{
			Cluster: aws.String(c.cluster), Task: task.TaskArn, Reason: aws.String(why[:min(len(why), longest)]),
		})
		if err != nil && !says(err, "not found") { // it has stopped and is forgotten
			return classify(err, "stop task "+lastPart(aws.ToString(task.TaskArn)))
		}
	}
	return nil
}

// run starts the tasks of an operation that run once, unless they were started before.
func (p *Provider) run(ctx context.Context, c *clients, op bellhop.Operation, config OperationConfig) (bellhop.Observation, error) {
	if op.Verb == bellhop.Update {
		return bellhop.Observation{}, bellhop.Fail(bellhop.CodeInvalidSpec, "tasks that run once cannot be updated; provision them again")
	}
	f, err := c.find(ctx, op)
	if err != nil {
		return bellhop.Observation{}, err
	}
	if f.status() != statusInactive {
		return bellhop.Observation{}, bellhop.Fail(bellhop.CodeResourceConflict,
			"resource %s of tenant %s is a service; delete it first, or use another resource name", op.Resource, op.TenantID)
	}
	all, err := c.tasksOf(ctx, op, familyOf(config.TaskDefinition))
	if err != nil {
		return bellhop.Observation{}, err
	}
	if newer := all.newer(op.Generation()); newer.OperationID != "" {
		return superseded(op, newer, all.ids(c)), nil
	}
	if mine := all.of(op.ID); len(mine.tasks) > 0 {
		return p.judgeTasks(ctx, c, op.Generation(), mine)
	}
	definition, err := p.ensureDefinition(ctx, c, op, config)
	if err != nil {
		return bellhop.Observation{}, err
	}
	mine, failure, err := p.start(ctx, c, op, config, definition)
	if err != nil {
		return bellhop.Observation{}, err
	}
	if err := c.stop(ctx, all.running(), "operation "+op.ID+" took over"); err != nil {
		return bellhop.Observation{}, err
	}
	seen, err := p.judgeTasks(ctx, c, op.Generation(), mine)
	if err == nil && failure != nil {
		seen.Phase, seen.Failure, seen.Progress.Message = bellhop.PhaseFailed, failure, failure.Message
	}
	return seen, err
}

// start calls RunTask. Its failure is that of an answer 200 which says that some or all of the tasks could not be started.
func (p *Provider) start(ctx context.Context, c *clients, op bellhop.Operation, config OperationConfig, definition string,
) (resourceTasks, *bellhop.Failure, error) {
	launchType, providers := p.placement(config)
	id := identityOf(op, revision(definition))
	answer, err := c.ecs.RunTask(ctx, &ecs.RunTaskInput{
		Cluster: aws.String(c.cluster), TaskDefinition: aws.String(definition), Count: aws.Int32(int32(op.Spec.Replicas)), //nolint:gosec // at most 10
		ClientToken: aws.String(token(op)), StartedBy: aws.String(startedBy), Group: aws.String(keyOf(op).name()),
		LaunchType: types.LaunchType(launchType), CapacityProviderStrategy: strategy(providers),
		NetworkConfiguration: p.network(config), Tags: id.tags(),
	})
	if conflict, ok := errors.AsType[*types.ConflictException](err); ok && len(conflict.ResourceIds) > 0 {
		// The token was used before, by this operation: these are its tasks.
		tasks, err := c.describeTasks(ctx, conflict.ResourceIds)
		return resourceTasks{tasks: tasks}, nil, err
	}
	if err != nil {
		return resourceTasks{}, nil, classify(err, "run task "+revision(definition))
	}
	mine := resourceTasks{tasks: answer.Tasks}
	if len(answer.Failures) == 0 {
		return mine, nil, nil
	}
	reasons := make([]string, len(answer.Failures))
	for i, failure := range answer.Failures {
		reasons[i] = strings.TrimSpace(aws.ToString(failure.Reason) + " " + aws.ToString(failure.Detail))
	}
	slices.Sort(reasons)
	failure := bellhop.Fail(codeOfRefusal(reasons[0]), "ECS started %d of %d tasks: %s",
		len(answer.Tasks), op.Spec.Replicas, reasons[0]).
		With("failures", strings.Join(slices.Compact(reasons), "\n"))
	return mine, failure, nil
}

func (p *Provider) observeTasks(ctx context.Context, c *clients, op bellhop.Operation, config OperationConfig) (bellhop.Observation, error) {
	all, err := c.tasksOf(ctx, op, familyOf(config.TaskDefinition))
	if err != nil {
		return bellhop.Observation{}, err
	}
	if newer := all.newer(op.Generation()); newer.OperationID != "" {
		return superseded(op, newer, all.ids(c)), nil
	}
	return p.judgeTasks(ctx, c, op.Generation(), all.of(op.ID))
}

// judgeTasks says where tasks stand that run once: ready when all that were asked for have stopped and every container
// without which they would not go on ended with exit code 0.
func (p *Provider) judgeTasks(ctx context.Context, c *clients, of bellhop.Generation, mine resourceTasks) (bellhop.Observation, error) {
	seen := bellhop.Observation{
		OperationID: of.OperationID, RequestedAt: of.RequestedAt, Phase: bellhop.PhasePending, ResourceIDs: mine.ids(c),
	}
	if len(mine.tasks) == 0 {
		seen.Progress.Message = "no task is known"
		return seen, nil
	}
	id, ours := identify(mine.tasks[0].Tags)
	if !ours { // RunTask's answer may come without them
		id.replicas = len(mine.tasks)
	}
	var bad []types.Task
	for _, task := range mine.tasks {
		if !stopped(task) {
			continue
		}
		good, err := c.succeeded(ctx, task)
		if err != nil {
			return bellhop.Observation{}, err
		}
		if good {
			seen.Progress.Ready++
		} else {
			bad = append(bad, task)
		}
	}
	seen.Progress.Desired = max(id.replicas, len(mine.tasks))
	seen.Progress.Message = fmt.Sprintf("%d of %d tasks have ended well", seen.Progress.Ready, seen.Progress.Desired)
	switch {
	case len(bad) > 0:
		slices.SortFunc(bad, byEnd)
		failure := bellhop.Fail(codeOfTask(bad[0]), "task %s ended badly: %s", lastPart(aws.ToString(bad[0].TaskArn)), reasonOf(bad[0]))
		seen.Phase, seen.Failure = bellhop.PhaseFailed, p.evidence(ctx, c, failure, id.key, bad)
		seen.Progress.Message = seen.Failure.Message
	case seen.Progress.Ready == seen.Progress.Desired:
		seen.Phase = bellhop.PhaseReady
	}
	return seen, nil
}

func byEnd(a, b types.Task) int {
	return cmp.Or(aws.ToTime(a.StoppedAt).Compare(aws.ToTime(b.StoppedAt)), strings.Compare(aws.ToString(a.TaskArn), aws.ToString(b.TaskArn)))
}

// succeeded says whether a task that stopped did what it was to do.
func (c *clients) succeeded(ctx context.Context, task types.Task) (bool, error) {
	if task.StopCode != types.TaskStopCodeEssentialContainerExited {
		return false, nil
	}
	essential, err := c.essential(ctx, task)
	if err != nil {
		return false, err
	}
	for _, ended := range task.Containers {
		if essential(aws.ToString(ended.Name)) && (ended.ExitCode == nil || *ended.ExitCode != 0) {
			return false, nil
		}
	}
	return true, nil
}

// essential tells which containers a task cannot do without. Of bellhop's own task definitions it is the only one; of
// the operator's, they say so.
func (c *clients) essential(ctx context.Context, task types.Task) (func(name string) bool, error) {
	all := func(string) bool { return true }
	if strings.HasPrefix(familyOf(aws.ToString(task.TaskDefinitionArn)), prefix) || len(task.Containers) == 1 {
		return all, nil
	}
	described, err := c.describeDefinition(ctx, aws.ToString(task.TaskDefinitionArn))
	if err != nil {
		return nil, err
	}
	needed := map[string]bool{}
	for _, has := range described.ContainerDefinitions {
		needed[aws.ToString(has.Name)] = has.Essential == nil || *has.Essential
	}
	return func(name string) bool { return needed[name] }, nil
}

// endpoints are where a task's ports are reached: at the address of its network interface.
func endpoints(task types.Task, ports []bellhop.Port) []bellhop.Endpoint {
	host := ""
	for _, has := range task.Containers {
		for _, network := range has.NetworkInterfaces {
			host = cmp.Or(host, aws.ToString(network.PrivateIpv4Address), aws.ToString(network.Ipv6Address))
		}
	}
	if host == "" {
		return nil
	}
	var found []bellhop.Endpoint
	for _, port := range ports {
		found = append(found, bellhop.Endpoint{Name: port.Name, Host: host, Port: port.ContainerPort})
	}
	return found
}

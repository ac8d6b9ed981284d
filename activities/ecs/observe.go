package ecs

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"bellhop"
	"bellhop/activities"
)

// Observe tells where the operation stands. Of a deletion it gives up the task definitions once nothing runs any more; it
// changes nothing else.
func (p *Provider) Observe(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	if err := ctx.Err(); err != nil {
		return bellhop.Observation{}, err
	}
	c := p.forTenant(op.TenantID)
	config, _ := check(op) //nolint:errcheck // it was checked when it was asked for
	if config.Kind == KindTask && op.Verb != bellhop.Delete {
		return p.observeTasks(ctx, c, op, config)
	}
	f, err := c.find(ctx, op)
	if err != nil {
		return bellhop.Observation{}, err
	}
	return p.observe(ctx, c, op, f)
}

func (p *Provider) observe(ctx context.Context, c *clients, op bellhop.Operation, f found) (bellhop.Observation, error) {
	pending := bellhop.Observation{
		OperationID: op.ID, RequestedAt: op.RequestedAt, Phase: bellhop.PhasePending,
		Progress: bellhop.Progress{Message: "the service is not there yet", Desired: op.Spec.Replicas},
	}
	switch {
	case f.ours && f.generation.After(op.Generation()):
		return f.superseded(op), nil
	case op.Verb == bellhop.Delete:
		return p.observeDeletion(ctx, c, op, f)
	case !f.ours: // ECS may not describe yet what it has just created
		return pending, nil
	case f.generation.OperationID != op.ID:
		pending.Progress.Message = "the service was not changed yet"
		return pending, nil
	}
	return p.assess(ctx, c, f, true)
}

// assess says where the operation in a service's tags stands, with the ids of its tasks. In full it also looks for what
// is only worth showing.
func (p *Provider) assess(ctx context.Context, c *clients, f found, full bool) (bellhop.Observation, error) {
	if f.status() == statusInactive {
		seen := f.sight(f.generation)
		seen.Phase, seen.Progress.Message = bellhop.PhaseGone, "the service was removed"
		return seen, nil
	}
	var rollout *types.ServiceDeploymentBrief
	if f.uncertain() {
		var err error
		if rollout, err = c.rollout(ctx, f); err != nil {
			return bellhop.Observation{}, err
		}
	}
	v := f.judge(rollout)
	tasks, err := c.serviceTasks(ctx, f.service)
	if err != nil {
		return bellhop.Observation{}, err
	}
	if full && v.phase == bellhop.PhasePending && f.deployment != "" {
		if v.message, err = c.awaits(ctx, f, v.message); err != nil {
			return bellhop.Observation{}, err
		}
	}
	return p.conclude(ctx, c, f, v, tasks)
}

// conclude makes the observation of a verdict.
func (p *Provider) conclude(ctx context.Context, c *clients, f found, v verdict, tasks []types.Task) (bellhop.Observation, error) {
	seen := bellhop.Observation{
		OperationID: f.generation.OperationID, RequestedAt: f.generation.RequestedAt, Phase: v.phase,
		ResourceIDs: f.ids(tasks),
		Progress:    bellhop.Progress{Message: v.message, Ready: min(v.ready, v.desired), Desired: v.desired},
	}
	for _, task := range tasks {
		if aws.ToString(task.LastStatus) == taskRunning {
			seen.Endpoints = append(seen.Endpoints, endpoints(task, f.ports)...)
		}
	}
	if n := f.running(tasks); v.phase == bellhop.PhaseReady && n < v.desired { // what is listed lags behind what is counted
		seen.Phase = bellhop.PhasePending
		seen.Progress.Message = fmt.Sprintf("%d of %d tasks are listed", n, v.desired)
	}
	if v.phase == bellhop.PhaseFailed {
		failure, err := p.failure(ctx, c, f, v)
		if err != nil {
			return bellhop.Observation{}, err
		}
		seen.Failure = failure
		seen.Progress.Message = failure.Message
	}
	return seen, nil
}

// running counts the tasks that run what the operation asked for.
func (f found) running(tasks []types.Task) int {
	n := 0
	for _, task := range tasks {
		if aws.ToString(task.LastStatus) == taskRunning && revision(aws.ToString(task.TaskDefinitionArn)) == f.definition {
			n++
		}
	}
	return n
}

// sight is an observation of what describing the service alone tells.
func (f found) sight(of bellhop.Generation) bellhop.Observation {
	seen := bellhop.Observation{OperationID: of.OperationID, RequestedAt: of.RequestedAt, Phase: bellhop.PhasePending}
	if f.service != nil {
		v := f.judge(nil)
		seen.Phase = v.phase
		seen.Progress = bellhop.Progress{Message: v.message, Ready: min(v.ready, v.desired), Desired: v.desired}
	}
	return seen
}

func (f found) superseded(op bellhop.Operation) bellhop.Observation {
	return superseded(op, f.generation, f.ids(nil))
}

func superseded(op bellhop.Operation, by bellhop.Generation, ids bellhop.ResourceIDs) bellhop.Observation {
	return bellhop.Observation{
		OperationID: op.ID, RequestedAt: op.RequestedAt, Phase: bellhop.PhaseSuperseded, ResourceIDs: ids,
		Progress: bellhop.Progress{Message: fmt.Sprintf("operation %s took over", by.OperationID)},
	}
}

// ids are those of the service, of the task definition that was asked for, and of the tasks.
func (f found) ids(tasks []types.Task) bellhop.ResourceIDs {
	var ids bellhop.ResourceIDs
	if f.service != nil && f.status() != statusInactive {
		ids.ClusterARN, ids.ServiceARN = aws.ToString(f.service.ClusterArn), aws.ToString(f.service.ServiceArn)
		// The service names the one it runs now, which after a rollback is another revision of another family.
		arn := aws.ToString(f.service.TaskDefinition)
		if base := strings.LastIndexByte(arn, '/'); base >= 0 && f.definition != "" {
			arn = arn[:base+1] + f.definition
		}
		ids.TaskDefinitionARN = arn
	}
	for _, task := range tasks {
		ids.TaskARNs = append(ids.TaskARNs, aws.ToString(task.TaskArn))
	}
	slices.Sort(ids.TaskARNs)
	return ids
}

// rollout finds our deployment in the service deployment API: the one of our task definition that was made when ours was,
// since both have ids of their own. It is nil where that API does not answer: the caller may not be allowed to use it, it
// is told of a deployment a moment later, and emulators have none.
func (c *clients) rollout(ctx context.Context, f found) (*types.ServiceDeploymentBrief, error) {
	begun := f.begun
	if ours := f.ourDeployment(); ours != nil && ours.CreatedAt != nil {
		begun = *ours.CreatedAt
	}
	doing := "list deployments of service " + aws.ToString(f.service.ServiceName)
	listed, err := c.ecs.ListServiceDeployments(ctx, &ecs.ListServiceDeploymentsInput{
		Cluster: aws.String(c.cluster), Service: f.service.ServiceArn, MaxResults: aws.Int32(listAtOnce), // the newest
	})
	if err != nil || len(listed.ServiceDeployments) == 0 {
		return nil, unlessEnded(classify(err, doing))
	}
	distance := func(rollout types.ServiceDeploymentBrief) time.Duration {
		return aws.ToTime(rollout.CreatedAt).Sub(begun).Abs()
	}
	nearest := slices.MinFunc(listed.ServiceDeployments, func(a, b types.ServiceDeploymentBrief) int {
		return cmp.Compare(distance(a), distance(b))
	})
	if distance(nearest) > aboutThen {
		return nil, nil //nolint:nilnil // it is told of later
	}
	revisions, err := c.ecs.DescribeServiceRevisions(ctx, &ecs.DescribeServiceRevisionsInput{
		ServiceRevisionArns: []string{aws.ToString(nearest.TargetServiceRevisionArn)},
	})
	if err != nil || len(revisions.ServiceRevisions) == 0 ||
		revision(aws.ToString(revisions.ServiceRevisions[0].TaskDefinition)) != f.definition {
		return nil, unlessEnded(classify(err, doing))
	}
	return &nearest, nil
}

// aboutThen is how far apart the two records of one deployment may be.
const aboutThen = 5 * time.Second

// unlessEnded is the error, unless trying again does not help: what is asked for can be done without.
func unlessEnded(err error) error {
	if activities.Ended(err) == nil {
		return err
	}
	return nil
}

// awaits adds to a message whether the deployment waits for somebody.
func (c *clients) awaits(ctx context.Context, f found, message string) (string, error) {
	rollout, err := c.rollout(ctx, f)
	if err != nil || rollout == nil || rollout.Status != types.ServiceDeploymentStatusInProgress {
		return message, err
	}
	described, err := c.ecs.DescribeServiceDeployments(ctx, &ecs.DescribeServiceDeploymentsInput{
		ServiceDeploymentArns: []string{aws.ToString(rollout.ServiceDeploymentArn)},
	})
	if err != nil {
		return message, unlessEnded(classify(err, "describe deployment of service "+aws.ToString(f.service.ServiceName)))
	}
	for _, deployment := range described.ServiceDeployments {
		for _, hook := range deployment.LifecycleHookDetails {
			if hook.Status == types.DeploymentLifecycleHookStatusAwaitingAction {
				return fmt.Sprintf("awaiting action: the deployment is paused at %s until somebody continues it; %s",
					deployment.LifecycleStage, message), nil
			}
		}
	}
	return message, nil
}

// observeDeletion says whether anything is left.
func (p *Provider) observeDeletion(ctx context.Context, c *clients, op bellhop.Operation, f found) (bellhop.Observation, error) {
	seen := bellhop.Observation{OperationID: op.ID, RequestedAt: op.RequestedAt, Phase: bellhop.PhasePending}
	if f.status() != statusInactive {
		if !f.ours {
			seen.Progress.Message = "there is a service that is not ours"
			return seen, nil
		}
		tasks, err := c.serviceTasks(ctx, f.service)
		seen.ResourceIDs = f.ids(tasks)
		seen.Progress.Message = fmt.Sprintf("the service is %s; %d tasks run", strings.ToLower(f.status()), f.service.RunningCount)
		return seen, err
	}
	left, err := c.tasksOf(ctx, op, familyOf(f.definition))
	if err != nil {
		return bellhop.Observation{}, err
	}
	if newer := left.newer(op.Generation()); newer.OperationID != "" {
		return superseded(op, newer, left.ids(c)), nil
	}
	if alive := left.alive(); len(alive.tasks) > 0 {
		seen.ResourceIDs = alive.ids(c)
		seen.Progress.Message = fmt.Sprintf("%d tasks are stopping", len(alive.tasks))
		return seen, nil
	}
	if err := c.deregister(ctx, left.families); err != nil {
		return bellhop.Observation{}, err
	}
	seen.Phase, seen.Progress.Message = bellhop.PhaseGone, "nothing is left"
	return seen, nil
}

package scriptedecs

import (
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// deployment is one rollout of a task definition: what DescribeServices tells under deployments.
type deployment struct {
	types.Deployment
	service    *service
	definition *taskDefinition
	// tasks are those that have not stopped.
	tasks []*task
	// launched counts the tasks, those that stopped included.
	launched int
	// record is the service deployment that this is part of. Nil: it has not appeared yet.
	record *record
	// hook is the id of the lifecycle hook at which it is paused. Empty: it is not.
	hook string
	// starved is when it was last said that there is no capacity.
	starved time.Time
}

// live are the tasks that shall run.
func (d *deployment) live() []*task {
	return slices.DeleteFunc(slices.Clone(d.tasks), func(t *task) bool { return *t.DesiredStatus != running })
}

// failed says whether the deployment has ended without success.
func (d *deployment) failed() bool { return d.RolloutState == types.DeploymentRolloutStateFailed }

func (d *deployment) told() types.Deployment {
	said := d.Deployment
	for _, t := range d.tasks {
		switch {
		case *t.DesiredStatus != running:
		case *t.LastStatus == running:
			said.RunningCount++
		default:
			said.PendingCount++
		}
	}
	return said
}

func (d *deployment) roll(state types.DeploymentRolloutState, reason string) {
	d.RolloutState, d.RolloutStateReason, d.UpdatedAt = state, aws.String(reason), aws.Time(time.Now())
}

// deploy makes a new primary deployment. Those that are not through yet are given up.
func (s *Server) deploy(svc *service, definition *taskDefinition) {
	now := time.Now()
	id := "ecs-svc/" + s.digits()
	d := &deployment{service: svc, definition: definition, Deployment: types.Deployment{
		Id: &id, Status: aws.String("PRIMARY"), TaskDefinition: definition.TaskDefinitionArn, CreatedAt: &now, UpdatedAt: &now,
		LaunchType: svc.LaunchType, CapacityProviderStrategy: svc.CapacityProviderStrategy, NetworkConfiguration: svc.NetworkConfiguration,
	}}
	d.roll(types.DeploymentRolloutStateInProgress, fmt.Sprintf("ECS deployment %s in progress.", id))
	if definition.does().pauses || slices.ContainsFunc(svc.DeploymentConfiguration.LifecycleHooks, func(hook types.DeploymentLifecycleHook) bool {
		return hook.TargetType == types.DeploymentLifecycleHookTargetTypePause
	}) {
		d.hook = s.hex()
	}
	for _, old := range svc.deployments {
		old.Status = aws.String(active)
	}
	svc.deployments = append([]*deployment{d}, svc.deployments...)
	svc.TaskDefinition = definition.TaskDefinitionArn
	s.emitDeployment(d, "SERVICE_DEPLOYMENT_IN_PROGRESS", *d.RolloutStateReason)
	s.after(1, func() { s.recorded(d) })
	s.look(svc)
}

// look lets the service scheduler look at a service, one step from now.
func (s *Server) look(svc *service) {
	if svc.due {
		return
	}
	svc.due = true
	s.after(1, func() {
		svc.due = false
		switch *svc.Status {
		case active:
			s.schedule(svc)
		case draining:
			s.drain(svc)
		}
	})
}

// schedule is one look of the scheduler: it launches what is missing, stops what is no longer needed, within what the
// deployment configuration allows, and finds that a rollout is through.
func (s *Server) schedule(svc *service) {
	primary, desired := svc.deployments[0], int(svc.DesiredCount)
	most := max(desired*int(*svc.DeploymentConfiguration.MaximumPercent)/100, 1)
	least := (desired*int(*svc.DeploymentConfiguration.MinimumHealthyPercent) + 99) / 100
	primary.DesiredCount = int32(desired) //nolint:gosec // it came as one

	mine, all := primary.live(), len(svc.live())
	for ; len(mine) < desired && all < most && !primary.failed() && primary.hook == ""; all++ {
		if primary.definition.does().noCapacity && !svc.broken {
			s.starve(primary)
			break
		}
		mine = append(mine, s.launch(primary))
	}
	for len(mine) > desired {
		s.stop(mine[0], types.TaskStopCodeServiceSchedulerInitiated, scaling(primary))
		mine = mine[1:]
	}
	healthy := 0
	for _, t := range svc.live() {
		if t.steady {
			healthy++
		}
	}
	for _, old := range svc.deployments[1:] {
		old.DesiredCount = 0
		for _, t := range old.live() {
			if t.steady && healthy <= least {
				old.DesiredCount++
				continue
			}
			if t.steady {
				healthy--
			}
			s.stop(t, types.TaskStopCodeServiceSchedulerInitiated, scaling(old))
		}
	}
	svc.deployments = slices.DeleteFunc(svc.deployments, func(d *deployment) bool { return d != primary && len(d.tasks) == 0 })
	through := len(svc.deployments) == 1 && len(mine) == desired && len(primary.tasks) == desired && healthy == desired
	if through && primary.RolloutState == types.DeploymentRolloutStateInProgress && primary.hook == "" && primary.record != nil {
		s.complete(primary)
	}
}

func (s *Server) complete(d *deployment) {
	d.roll(types.DeploymentRolloutStateCompleted, fmt.Sprintf("ECS deployment %s completed.", *d.Id))
	d.service.completed = d
	d.FailedTasks = 0
	s.say(d.service, "(deployment %s) deployment completed.", *d.Id)
	s.say(d.service, "has reached a steady state.")
	s.emitDeployment(d, "SERVICE_DEPLOYMENT_COMPLETED", *d.RolloutStateReason)
	if newest := d.service.records[0]; newest.rollsBackTo == d {
		newest.end(types.ServiceDeploymentStatusRollbackSuccessful, *newest.StatusReason)
		return
	}
	d.record.end(types.ServiceDeploymentStatusSuccessful, "")
}

// starve says that there is no capacity, now and then, and looks again.
func (s *Server) starve(d *deployment) {
	if time.Since(d.starved) > 10*s.options.Step {
		d.starved = time.Now()
		reason := "was unable to place a task because no container instance met all of its requirements. Reason: No Container " +
			"Instances were found in your cluster."
		if d.LaunchType == types.LaunchTypeFargate || len(d.CapacityProviderStrategy) > 0 {
			reason = "was unable to place a task. Reason: " + noFargate + "."
		}
		s.say(d.service, "%s", reason)
		s.emitAction(d.service, "SERVICE_TASK_PLACEMENT_FAILURE", reason)
	}
	s.look(d.service)
}

// noFargate is how Fargate says that it has no room.
const noFargate = "Capacity is unavailable at this time. Please try again later or in a different availability zone"

// lost takes note of a task that failed to start, or whose health check failed: the circuit breaker counts them until the
// rollout is through.
func (s *Server) lost(d *deployment) {
	if d.RolloutState != types.DeploymentRolloutStateInProgress || *d.service.Status != active {
		return
	}
	d.FailedTasks++
	if d.FailedTasks == 3 {
		s.say(d.service, "is unable to consistently start tasks successfully.")
		s.emitAction(d.service, "SERVICE_TASK_START_IMPAIRED", "tasks fail to start")
	}
	breaker := d.service.DeploymentConfiguration.DeploymentCircuitBreaker
	if d != d.service.deployments[0] || !breaker.Enable || d.FailedTasks < threshold(d.service) {
		return
	}
	s.fail(d, "ECS deployment circuit breaker: tasks failed to start.",
		"the deployment circuit breaker threshold was exceeded.", breaker.Rollback)
}

// threshold is how many failures in a row the circuit breaker takes.
func threshold(svc *service) int32 { return min(max((svc.DesiredCount+1)/2, 3), 200) }

// fail ends a deployment without success. With rollback the last one that completed becomes the primary one again.
func (s *Server) fail(d *deployment, reason, because string, rollback bool) {
	svc := d.service
	s.recorded(d)
	d.roll(types.DeploymentRolloutStateFailed, reason)
	d.hook = ""
	s.say(svc, "(deployment %s) deployment failed: tasks failed to start.", *d.Id)
	s.emitDeployment(d, "SERVICE_DEPLOYMENT_FAILED", reason)
	if !rollback {
		d.record.end(types.ServiceDeploymentStatusStopped, "Service deployment stopped because "+because)
		return
	}
	to := svc.completed
	if to == nil || to == d {
		d.record.end(types.ServiceDeploymentStatusRollbackFailed, "Service deployment failed to roll back because "+because)
		return
	}
	s.say(svc, "rolling back to deployment %s.", *to.Id)
	d.Status, to.Status = aws.String(active), aws.String("PRIMARY")
	to.roll(types.DeploymentRolloutStateInProgress, "ECS deployment circuit breaker: rolling back to deploymentId "+*to.Id)
	to.FailedTasks = 0
	svc.deployments = append([]*deployment{to}, slices.DeleteFunc(svc.deployments, func(other *deployment) bool { return other == to })...)
	svc.TaskDefinition, svc.NetworkConfiguration = to.TaskDefinition, to.NetworkConfiguration
	d.record.rollBack(to, "Service deployment rolled back because "+because)
	s.look(svc)
}

// scaling is why the scheduler stops a task.
func scaling(d *deployment) string {
	return fmt.Sprintf("Scaling activity initiated by (deployment %s)", *d.Id)
}

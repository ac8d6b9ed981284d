package ecs

import (
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"bellhop"
)

// verdict is where a service stands with respect to the operation in its tags.
type verdict struct {
	phase          bellhop.Phase
	message        string
	ready, desired int
	// rolledBack says of a failure that ECS went back to what ran before.
	rolledBack bool
	// taken says of a failure that somebody else changed the service, after which nothing is known of our deployment.
	taken bool
	// reason is ECS's own, of a failure or a rollback.
	reason string
}

// judge decides from what ECS describes, and asks nobody. The rollout is our deployment's in the service deployment API,
// which remembers how it ended; nil when it does not answer.
//
// A service that is stable is no success: after a rollback it is stable too, at the revision before.
func (f found) judge(rollout *types.ServiceDeploymentBrief) verdict {
	now := primary(f.service)
	ours := f.ourDeployment()
	v := verdict{phase: bellhop.PhasePending, desired: int(f.service.DesiredCount)}
	switch {
	case f.verb == bellhop.Delete || f.status() == statusDraining:
		v.message = fmt.Sprintf("the service is being removed; %d tasks run", f.service.RunningCount)
		return v
	case now == nil:
		v.message = "the service has no deployment yet"
		return v
	case ours == nil && f.deployment == "":
		v.message = "the service was not changed yet"
		return v
	case ours != nil:
		v.ready = int(ours.RunningCount)
	}
	if rollout != nil {
		if ended, said := f.judgeRollout(v, *rollout, now, ours); said {
			return ended
		}
	}
	switch {
	case ours != nil && ours == now:
		return f.judgePrimary(v, *now)
	case ours == nil && f.runs(now) && !rollingBack(now):
		// Somebody began a deployment of the same: it is what the operation asked for.
		v.ready = int(now.RunningCount)
		return f.judgePrimary(v, *now)
	}
	v.rolledBack, v.reason = true, aws.ToString(now.RolloutStateReason)
	if ours != nil && ours.RolloutStateReason != nil {
		v.reason = *ours.RolloutStateReason
	}
	if now.RolloutState == types.DeploymentRolloutStateCompleted {
		v.phase = bellhop.PhaseFailed
		return v
	}
	v.message = "the deployment failed and ECS goes back to " + revision(aws.ToString(now.TaskDefinition)) + ": " + v.reason
	return v
}

// judgeRollout decides by the service deployment API, as far as that says more than the deployments themselves.
func (f found) judgeRollout(v verdict, rollout types.ServiceDeploymentBrief, now, ours *types.Deployment) (verdict, bool) {
	v.reason = aws.ToString(rollout.StatusReason)
	switch rollout.Status {
	case types.ServiceDeploymentStatusRollbackSuccessful:
		v.phase, v.rolledBack = bellhop.PhaseFailed, true
		return v, true
	case types.ServiceDeploymentStatusStopped, types.ServiceDeploymentStatusRollbackFailed:
		v.phase = bellhop.PhaseFailed
		return v, true
	case types.ServiceDeploymentStatusStopRequested, types.ServiceDeploymentStatusRollbackRequested,
		types.ServiceDeploymentStatusRollbackInProgress:
		v.message = "the deployment failed and ECS goes back to what ran before: " + v.reason
		return v, true
	case types.ServiceDeploymentStatusSuccessful:
		if ours != now && !f.runs(now) {
			v.phase, v.taken = bellhop.PhaseFailed, true
			return v, true
		}
	case types.ServiceDeploymentStatusPending, types.ServiceDeploymentStatusInProgress:
		if ours == now && ours.RolloutState == types.DeploymentRolloutStateFailed {
			v.message = "the deployment failed: " + aws.ToString(ours.RolloutStateReason)
			return v, true
		}
	}
	return v, false
}

func (f found) judgePrimary(v verdict, now types.Deployment) verdict {
	v.reason = aws.ToString(now.RolloutStateReason)
	steady := f.service.RunningCount == f.service.DesiredCount && now.RunningCount == f.service.DesiredCount && f.service.PendingCount == 0
	switch now.RolloutState {
	case types.DeploymentRolloutStateFailed:
		if len(f.service.Deployments) > 1 { // there is something to go back to
			v.message = "the deployment failed and ECS goes back to what ran before: " + v.reason
			return v
		}
		v.phase = bellhop.PhaseFailed
		return v
	case types.DeploymentRolloutStateCompleted:
		if steady && f.runs(&now) {
			v.phase = bellhop.PhaseReady
		}
	case types.DeploymentRolloutStateInProgress:
	default: // ECS says it only of deployments that it controls itself
		if steady && f.runs(&now) && len(f.service.Deployments) == 1 {
			v.phase = bellhop.PhaseReady
		}
	}
	v.message = fmt.Sprintf("%d of %d tasks run", v.ready, v.desired)
	if now.FailedTasks > 0 {
		v.message += fmt.Sprintf(", %d failed", now.FailedTasks)
	}
	if v.phase == bellhop.PhasePending {
		if latest := f.latestEvent(); latest != "" {
			v.message += "; " + latest
		}
	}
	return v
}

// ourDeployment is the one that the operation began, as long as ECS lists it. When a crash kept it from being written
// down, it is the one that runs what was asked for.
func (f found) ourDeployment() *types.Deployment {
	for i, deployment := range f.service.Deployments {
		if f.deployment != "" && aws.ToString(deployment.Id) == f.deployment {
			return &f.service.Deployments[i]
		}
	}
	if now := primary(f.service); f.deployment == "" && f.runs(now) {
		return now
	}
	return nil
}

// runs says whether a deployment is of the task definition that the operation asked for.
func (f found) runs(deployment *types.Deployment) bool {
	return deployment != nil && revision(aws.ToString(deployment.TaskDefinition)) == f.definition
}

func rollingBack(deployment *types.Deployment) bool {
	return strings.Contains(strings.ToLower(aws.ToString(deployment.RolloutStateReason)), "rolling back")
}

// uncertain says whether the service deployment API knows more about our deployment than is described.
func (f found) uncertain() bool {
	if f.service == nil || f.status() != statusActive || f.deployment == "" {
		return false
	}
	ours := f.ourDeployment()
	return ours == nil || ours != primary(f.service) || ours.RolloutState == types.DeploymentRolloutStateFailed
}

// latestEvent is the newest of the service's events since the operation.
func (f found) latestEvent() string {
	if len(f.service.Events) == 0 {
		return ""
	}
	event := f.service.Events[0]
	if event.CreatedAt != nil && event.CreatedAt.Before(f.generation.RequestedAt) {
		return ""
	}
	return aws.ToString(event.Message)
}

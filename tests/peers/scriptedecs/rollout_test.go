package scriptedecs_test

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"bellhop/tests/peers/scriptedecs"
)

func TestARolloutIsPendingAndThenThrough(t *testing.T) {
	a := setup(t, scriptedecs.Options{})
	service := a.created("web", "ready")
	primary := service.Deployments[0]
	if primary.RolloutState != types.DeploymentRolloutStateInProgress || service.RunningCount != 0 {
		t.Fatalf("just created, and it is %s with %d running", primary.RolloutState, service.RunningCount)
	}
	service = a.rolled("web", types.DeploymentRolloutStateCompleted)
	if *service.Deployments[0].Id != *primary.Id || service.RunningCount != 1 || !says(service, "has reached a steady state") {
		t.Errorf("through, and it is %+v", service)
	}
	records := a.records("web")
	if len(records) != 1 || records[0].Status != types.ServiceDeploymentStatusSuccessful || *service.CurrentServiceDeployment != *records[0].ServiceDeploymentArn {
		t.Errorf("its records are %+v", records)
	}
	task := a.tasks(&ecs.ListTasksInput{ServiceName: aws.String("web")})[0]
	if *task.StartedBy != *primary.Id || *task.LastStatus != "RUNNING" || task.Containers[0].NetworkInterfaces[0].PrivateIpv4Address == nil {
		t.Errorf("its task is %+v", task)
	}
}

func TestAFailingUpdateIsRolledBackByTheCircuitBreaker(t *testing.T) {
	a := setup(t, scriptedecs.Options{})
	before := a.completed("web", "ready")
	failing := a.update("web", "pull-error")
	a.until("the rollback", func() bool {
		return len(a.records("web")) == 2 && a.records("web")[0].Status == types.ServiceDeploymentStatusRollbackSuccessful
	})
	after := a.describe("web")
	if *after.Deployments[0].Id != *before.Deployments[0].Id || *after.TaskDefinition != *before.TaskDefinition ||
		after.Deployments[0].RolloutState != types.DeploymentRolloutStateCompleted || len(after.Deployments) != 1 {
		t.Errorf("rolled back, and it is %+v", after)
	}
	gone := a.tasks(&ecs.ListTasksInput{StartedBy: &failing, DesiredStatus: types.DesiredStatusStopped})
	if len(gone) != 3 {
		t.Fatalf("the circuit breaker took %d tasks, want 3", len(gone))
	}
	for _, task := range gone {
		if task.StopCode != types.TaskStopCodeTaskFailedToStart || !strings.HasPrefix(*task.StoppedReason, "CannotPullContainerError: ") {
			t.Errorf("it stopped by %s: %s", task.StopCode, *task.StoppedReason)
		}
	}
}

func TestAFailingCreateHasNothingToRollBackTo(t *testing.T) {
	a := setup(t, scriptedecs.Options{})
	a.created("web", "exits")
	service := a.rolled("web", types.DeploymentRolloutStateFailed)
	if *service.Status != "ACTIVE" || *service.Deployments[0].Status != "PRIMARY" || service.Deployments[0].FailedTasks != 3 {
		t.Errorf("failed, and it is %+v", service)
	}
	if status := a.records("web")[0].Status; status != types.ServiceDeploymentStatusRollbackFailed {
		t.Errorf("its record is %s", status)
	}
	for _, task := range a.tasks(&ecs.ListTasksInput{ServiceName: aws.String("web"), DesiredStatus: types.DesiredStatusStopped}) {
		if task.StopCode != types.TaskStopCodeEssentialContainerExited || aws.ToInt32(task.Containers[0].ExitCode) != 3 {
			t.Errorf("a task ended with %s and %+v", task.StopCode, task.Containers)
		}
	}
}

func TestTheOldServeUntilTheNewDo(t *testing.T) {
	a := setup(t, scriptedecs.Options{})
	a.completed("web", "ready")
	slow := a.update("web", "slow")
	a.until("the new task", func() bool { return len(a.tasks(&ecs.ListTasksInput{StartedBy: &slow})) == 1 })
	if service := a.describe("web"); service.RunningCount != 1 || service.PendingCount != 1 || len(service.Deployments) != 2 {
		t.Errorf("while the update is pending the service is %+v", service)
	}
	third := a.update("web", "ready")
	service := a.rolled("web", types.DeploymentRolloutStateCompleted)
	if *service.Deployments[0].Id != third || len(service.Deployments) != 1 || service.RunningCount != 1 {
		t.Errorf("through, and it is %+v", service)
	}
	if records := a.records("web"); records[1].Status != types.ServiceDeploymentStatusStopped {
		t.Errorf("the record of what was overtaken is %s", records[1].Status)
	}
}

func TestAPausedRolloutWaitsForSomebody(t *testing.T) {
	a := setup(t, scriptedecs.Options{})
	a.created("web", "paused")
	a.until("its record", func() bool { return len(a.records("web")) == 1 })
	record := a.records("web")[0]
	if len(record.LifecycleHookDetails) != 1 || record.LifecycleHookDetails[0].Status != types.DeploymentLifecycleHookStatusAwaitingAction {
		t.Fatalf("it awaits no action: %+v", record)
	}
	a.completed("clock", "ready") // in this time it would have started, too
	if seen := a.describe("web"); seen.PendingCount+seen.RunningCount != 0 {
		t.Errorf("paused, and it is %+v", seen)
	}
	_, err := a.client.ContinueServiceDeployment(t.Context(), &ecs.ContinueServiceDeploymentInput{
		ServiceDeploymentArn: record.ServiceDeploymentArn, HookId: record.LifecycleHookDetails[0].HookId,
	})
	if err != nil {
		t.Fatal(err)
	}
	a.rolled("web", types.DeploymentRolloutStateCompleted)
}

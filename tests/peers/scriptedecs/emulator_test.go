package scriptedecs_test

import (
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/google/go-cmp/cmp"

	"bellhop/tests/peers"
	"bellhop/tests/peers/scriptedecs"
)

// The emulator reads and writes the wire by itself. Where it goes as far as ECS does, both must tell the same story.
func TestAnEmulatorTellsTheSameStory(t *testing.T) {
	emulator := peers.MinistackFor(t)
	other := &account{t, nil, ecs.New(ecs.Options{
		BaseEndpoint: &emulator.Endpoint, Region: "eu-central-1", Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	})}
	scripted := setup(t, scriptedecs.Options{Account: "000000000000"})
	if diff := cmp.Diff(other.story(), scripted.story()); diff != "" {
		t.Errorf("the emulator (-) and the scripted server (+) differ:\n%s", diff)
	}
}

// story is a service's life in lines.
func (a *account) story() []string {
	var lines []string
	tell := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	tags := []types.Tag{{Key: aws.String("tenant"), Value: aws.String("acme")}}

	definition := a.define("ready")
	tell("task definition %s", definition)
	_, err := a.client.DescribeServices(a.Context(), &ecs.DescribeServicesInput{Cluster: aws.String("elsewhere"), Services: []string{"web"}})
	tell("another cluster: %s", code(err))
	created := a.created("web", "ready", func(in *ecs.CreateServiceInput) { in.DesiredCount, in.Tags = aws.Int32(2), tags })
	tell("created %s in %s: %s, %s, wants %d", *created.ServiceArn, *created.ClusterArn, *created.Status, created.LaunchType, created.DesiredCount)
	through := a.rolled("web", types.DeploymentRolloutStateCompleted)
	for _, d := range through.Deployments {
		tell("deployment %s of %s: %s, %d of %d run", *d.Status, *d.TaskDefinition, d.RolloutState, d.RunningCount, d.DesiredCount)
	}
	tell("tagged %s=%s, subnets %q, breaker %t", *through.Tags[0].Key, *through.Tags[0].Value,
		through.NetworkConfiguration.AwsvpcConfiguration.Subnets, through.DeploymentConfiguration.DeploymentCircuitBreaker.Enable)
	for _, task := range a.tasks(&ecs.ListTasksInput{ServiceName: aws.String("web")}) {
		tell("task of %s in %s: %s, shall be %s, %s, container %s is %s", *task.TaskDefinitionArn, *task.Group, *task.LastStatus, *task.DesiredStatus,
			task.LaunchType, *task.Containers[0].Name, *task.Containers[0].LastStatus)
	}
	_, err = a.client.UpdateService(a.Context(), &ecs.UpdateServiceInput{Service: aws.String("nobody"), DesiredCount: aws.Int32(1)})
	tell("update of nobody: %s", code(err))
	a.update("web", "ready")
	tell("updated to %s", *a.rolled("web", types.DeploymentRolloutStateCompleted).TaskDefinition)
	_, err = a.client.DeleteService(a.Context(), &ecs.DeleteServiceInput{Service: aws.String("web")})
	tell("deleted while it is wanted: %s", code(err))
	_, err = a.client.DeleteService(a.Context(), &ecs.DeleteServiceInput{Service: aws.String("web"), Force: aws.Bool(true)})
	tell("deleted all the same: %s", code(err))
	a.until("inactive", func() bool { return *a.describe("web").Status == "INACTIVE" })
	tell("running %d, nobody %v", a.describe("web").RunningCount, a.describe("nobody"))
	_, err = a.client.DeleteService(a.Context(), &ecs.DeleteServiceInput{Service: aws.String("nobody")})
	tell("delete of nobody: %s", code(err))

	ran, err := a.client.RunTask(a.Context(), &ecs.RunTaskInput{
		TaskDefinition: &definition, LaunchType: types.LaunchTypeFargate, NetworkConfiguration: network(), StartedBy: aws.String("op-1"), Tags: tags,
	})
	if err != nil {
		a.Fatal(err)
	}
	tell("ran %d, failed %d, started by %s", len(ran.Tasks), len(ran.Failures), *ran.Tasks[0].StartedBy)
	listed, err := a.client.ListTasks(a.Context(), &ecs.ListTasksInput{StartedBy: aws.String("op-1")})
	if err != nil {
		a.Fatal(err)
	}
	tell("listed the same: %t", len(listed.TaskArns) == 1 && listed.TaskArns[0] == *ran.Tasks[0].TaskArn)
	_, err = a.client.StopTask(a.Context(), &ecs.StopTaskInput{Task: ran.Tasks[0].TaskArn, Reason: aws.String("enough")})
	tell("stopped: %s", code(err))
	gone := a.tasks(&ecs.ListTasksInput{StartedBy: aws.String("op-1"), DesiredStatus: types.DesiredStatusStopped})
	tell("by %s: %s", gone[0].StopCode, *gone[0].StoppedReason)
	_, err = a.client.StopTask(a.Context(), &ecs.StopTaskInput{Task: aws.String("nobody")})
	tell("stop of nobody: %s", code(err))
	off, err := a.client.DeregisterTaskDefinition(a.Context(), &ecs.DeregisterTaskDefinitionInput{TaskDefinition: &definition})
	if err != nil {
		a.Fatal(err)
	}
	tell("deregistered: %s", off.TaskDefinition.Status)
	_, err = a.client.DescribeTaskDefinition(a.Context(), &ecs.DescribeTaskDefinitionInput{TaskDefinition: aws.String("nobody:1")})
	tell("describe of no definition: %s", code(err))
	return lines
}

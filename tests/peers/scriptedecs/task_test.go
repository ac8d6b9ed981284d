package scriptedecs_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"bellhop/tests/peers/scriptedecs"
)

func (a *account) run(image, token string, change ...func(*ecs.RunTaskInput)) (*ecs.RunTaskOutput, error) {
	a.Helper()
	in := &ecs.RunTaskInput{
		TaskDefinition: aws.String(a.define(image)), ClientToken: &token, LaunchType: types.LaunchTypeFargate, NetworkConfiguration: network(),
		StartedBy: aws.String("op-1"),
	}
	for _, change := range change {
		change(in)
	}
	return a.client.RunTask(a.Context(), in)
}

// ended waits until a task has stopped.
func (a *account) ended(arn string) types.Task {
	a.Helper()
	var seen types.Task
	a.until("the end of "+arn, func() bool {
		out, err := a.client.DescribeTasks(a.Context(), &ecs.DescribeTasksInput{Tasks: []string{arn}})
		if err != nil {
			a.Fatal(err)
		}
		seen = out.Tasks[0]
		return *seen.LastStatus == "STOPPED"
	})
	return seen
}

func TestTasksEndAsTheirImagesSay(t *testing.T) {
	a := setup(t, scriptedecs.Options{})
	for image, want := range map[string]string{
		"done":             "EssentialContainerExited: Essential container in task exited; exit 0",
		"team/exits":       "EssentialContainerExited: Essential container in task exited; exit 3",
		"crash-loops":      "EssentialContainerExited: Essential container in task exited; exit 3",
		"out-of-memory":    "EssentialContainerExited: OutOfMemoryError: Container killed due to memory usage; exit 137",
		"spot-interrupted": "SpotInterruption: Your Spot Task was interrupted.; exit 143",
		"secret-missing":   "TaskFailedToStart: ResourceInitializationError: unable to pull secrets",
		"pull-error":       "TaskFailedToStart: CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref bellhop.test/pull-error:1",
	} {
		out, err := a.run(image, image)
		if err != nil {
			t.Fatal(err)
		}
		task := a.ended(*out.Tasks[0].TaskArn)
		got := fmt.Sprintf("%s: %s", task.StopCode, *task.StoppedReason)
		if exit := task.Containers[0].ExitCode; exit != nil {
			got += fmt.Sprintf("; exit %d", *exit)
		}
		if !strings.HasPrefix(got, want) {
			t.Errorf("%s ended by %s\nwant %s", image, got, want)
		}
	}
}

func TestARunIsSafeToRepeatWithItsToken(t *testing.T) {
	a := setup(t, scriptedecs.Options{})
	definition := a.define("done")
	same := func(in *ecs.RunTaskInput) { in.TaskDefinition = &definition }
	first, err := a.run("done", "token", same)
	if err != nil {
		t.Fatal(err)
	}
	arn := *first.Tasks[0].TaskArn
	a.ended(arn)
	again, err := a.run("done", "token", same)
	if err != nil || *again.Tasks[0].TaskArn != arn || *again.Tasks[0].LastStatus != "STOPPED" {
		t.Errorf("asked again: %+v, %v", again, err)
	}
	_, err = a.run("done", "token", same, func(in *ecs.RunTaskInput) { in.StartedBy = aws.String("op-2") })
	conflict, ok := errors.AsType[*types.ConflictException](err)
	if !ok || !slices.Equal(conflict.ResourceIds, []string{arn}) {
		t.Errorf("the same token for something else: %v", err)
	}
	if another, err := a.run("done", "another", same); err != nil || *another.Tasks[0].TaskArn == arn {
		t.Errorf("another token: %+v, %v", another, err)
	}
}

func TestARunWithoutCapacityIsAnAnswerWithFailures(t *testing.T) {
	a := setup(t, scriptedecs.Options{})
	out, err := a.run("no-capacity", "1")
	if err != nil || len(out.Tasks) != 0 || len(out.Failures) != 1 || !strings.HasPrefix(*out.Failures[0].Reason, "Capacity is unavailable at this time") {
		t.Errorf("on Fargate: %+v, %v", out, err)
	}
	out, err = a.run("no-capacity", "2", func(in *ecs.RunTaskInput) {
		in.LaunchType, in.NetworkConfiguration = types.LaunchTypeEc2, nil
		in.TaskDefinition = aws.String(a.define("no-capacity", func(in *ecs.RegisterTaskDefinitionInput) {
			in.NetworkMode, in.RequiresCompatibilities = types.NetworkModeBridge, nil
		}))
	})
	if err != nil || len(out.Failures) != 1 || *out.Failures[0].Reason != "RESOURCE:CPU" {
		t.Errorf("on EC2: %+v, %v", out, err)
	}
}

func TestStoppedTasksAreForgotten(t *testing.T) {
	a := setup(t, scriptedecs.Options{KeepStopped: 50 * time.Millisecond})
	out, err := a.run("slow", "1")
	if err != nil {
		t.Fatal(err)
	}
	arn := out.Tasks[0].TaskArn
	if _, err = a.client.StopTask(t.Context(), &ecs.StopTaskInput{Task: arn, Reason: aws.String("enough")}); err != nil {
		t.Fatal(err)
	}
	a.until("forgotten", func() bool {
		out, err := a.client.DescribeTasks(t.Context(), &ecs.DescribeTasksInput{Tasks: []string{*arn}})
		return err == nil && len(out.Failures) == 1 && *out.Failures[0].Reason == "MISSING"
	})
}

func TestTheFiltersOfListTasks(t *testing.T) {
	a := setup(t, scriptedecs.Options{})
	a.completed("web", "ready")
	if _, err := a.run("slow", "1"); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		in   ecs.ListTasksInput
		want int
	}{
		"all":        {ecs.ListTasksInput{}, 2},
		"service":    {ecs.ListTasksInput{ServiceName: aws.String("web")}, 1},
		"started by": {ecs.ListTasksInput{StartedBy: aws.String("op-1")}, 1},
		"family":     {ecs.ListTasksInput{Family: aws.String("web")}, 2},
		"no family":  {ecs.ListTasksInput{Family: aws.String("we")}, 0},
		"stopped":    {ecs.ListTasksInput{DesiredStatus: types.DesiredStatusStopped}, 0},
	} {
		if got := len(a.tasks(&row.in)); got != row.want {
			t.Errorf("%s: %d tasks, want %d", name, got, row.want)
		}
	}
	_, err := a.client.ListTasks(t.Context(), &ecs.ListTasksInput{ServiceName: aws.String("web"), StartedBy: aws.String("op-1")})
	if code(err) != "InvalidParameterException" {
		t.Errorf("startedBy beside another filter: %v", err)
	}
}

func TestWhatAWorkloadPrintedCanBeRead(t *testing.T) {
	a := setup(t, scriptedecs.Options{})
	out, err := a.run("leaks", "1")
	if err != nil {
		t.Fatal(err)
	}
	arn := *out.Tasks[0].TaskArn
	a.ended(arn)
	logs := cloudwatchlogs.New(cloudwatchlogs.Options{
		BaseEndpoint: &a.server.URL, Region: "eu-central-1", Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	})
	stream := "web/main/" + arn[strings.LastIndex(arn, "/")+1:]
	read, err := logs.GetLogEvents(t.Context(), &cloudwatchlogs.GetLogEventsInput{LogGroupName: aws.String("/tenants"), LogStreamName: &stream, Limit: aws.Int32(1)})
	if err != nil {
		t.Fatal(err)
	}
	if len(read.Events) != 1 || *read.Events[0].Message != "fatal: said too much" {
		t.Errorf("the last that it printed is %+v", read.Events)
	}
	read, err = logs.GetLogEvents(t.Context(), &cloudwatchlogs.GetLogEventsInput{LogGroupName: aws.String("/tenants"), LogStreamName: &stream})
	if err != nil || len(read.Events) != 2 || *read.Events[0].Message != "MODE=prod" {
		t.Errorf("it printed %+v, %v", read, err)
	}
	_, err = logs.GetLogEvents(t.Context(), &cloudwatchlogs.GetLogEventsInput{LogGroupName: aws.String("/other"), LogStreamName: &stream})
	if code(err) != "ResourceNotFoundException" {
		t.Errorf("of another group: %v", err)
	}
}

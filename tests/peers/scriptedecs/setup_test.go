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
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/smithy-go"

	"bellhop/tests/peers/scriptedecs"
)

// account is a server and the real client of it.
type account struct {
	*testing.T
	server *scriptedecs.Server
	client *ecs.Client
}

func setup(t *testing.T, options scriptedecs.Options) *account {
	t.Helper()
	t.Parallel()
	if options.Step == 0 {
		options.Step = 5 * time.Millisecond
	}
	server := scriptedecs.For(t, options)
	return &account{t, server, ecs.New(ecs.Options{
		BaseEndpoint: &server.URL, Region: "eu-central-1", Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
		Retryer: aws.NopRetryer{},
	})}
}

// code is an error's code.
func code(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return fmt.Sprint(err)
}

func (a *account) until(what string, done func() bool) {
	a.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			a.Fatalf("%s did not happen", what)
		}
	}
}

// define registers a task definition for Fargate that runs an image of bellhop.test.
func (a *account) define(image string, change ...func(*ecs.RegisterTaskDefinitionInput)) string {
	a.Helper()
	in := &ecs.RegisterTaskDefinitionInput{
		Family: aws.String("web"), Cpu: aws.String("256"), Memory: aws.String("512"), NetworkMode: types.NetworkModeAwsvpc,
		RequiresCompatibilities: []types.Compatibility{types.CompatibilityFargate}, ExecutionRoleArn: aws.String("arn:aws:iam::111122223333:role/execution"),
		ContainerDefinitions: []types.ContainerDefinition{{
			Name: aws.String("main"), Image: aws.String("bellhop.test/" + image + ":1"),
			Environment: []types.KeyValuePair{{Name: aws.String("MODE"), Value: aws.String("prod")}},
			LogConfiguration: &types.LogConfiguration{LogDriver: types.LogDriverAwslogs, Options: map[string]string{
				"awslogs-group": "/tenants", "awslogs-region": "eu-central-1", "awslogs-stream-prefix": "web",
			}},
		}},
	}
	for _, change := range change {
		change(in)
	}
	out, err := a.client.RegisterTaskDefinition(a.Context(), in)
	if err != nil {
		a.Fatal(err)
	}
	return *out.TaskDefinition.TaskDefinitionArn
}

func network() *types.NetworkConfiguration {
	return &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{Subnets: []string{"subnet-1"}}}
}

// create asks for a service whose circuit breaker is on.
func (a *account) create(name, image string, change ...func(*ecs.CreateServiceInput)) (*types.Service, error) {
	a.Helper()
	in := &ecs.CreateServiceInput{
		ServiceName: &name, TaskDefinition: aws.String(a.define(image)), DesiredCount: aws.Int32(1), LaunchType: types.LaunchTypeFargate,
		NetworkConfiguration: network(), ClientToken: aws.String("token-" + name),
		DeploymentConfiguration: &types.DeploymentConfiguration{
			DeploymentCircuitBreaker: &types.DeploymentCircuitBreaker{Enable: true, Rollback: true},
		},
		Tags: []types.Tag{{Key: aws.String("tenant"), Value: aws.String("acme")}},
	}
	for _, change := range change {
		change(in)
	}
	out, err := a.client.CreateService(a.Context(), in)
	if err != nil {
		return nil, err
	}
	return out.Service, nil
}

// created is a service that was created.
func (a *account) created(name, image string, change ...func(*ecs.CreateServiceInput)) *types.Service {
	a.Helper()
	service, err := a.create(name, image, change...)
	if err != nil {
		a.Fatal(err)
	}
	return service
}

// completed is a service whose first rollout is through.
func (a *account) completed(name, image string) *types.Service {
	a.Helper()
	a.created(name, image)
	return a.rolled(name, types.DeploymentRolloutStateCompleted)
}

// rolled waits until the primary deployment is in a state.
func (a *account) rolled(name string, state types.DeploymentRolloutState) *types.Service {
	a.Helper()
	var seen *types.Service
	a.until(fmt.Sprintf("%s: rollout %s", name, state), func() bool {
		seen = a.describe(name)
		return seen != nil && len(seen.Deployments) > 0 && seen.Deployments[0].RolloutState == state
	})
	return seen
}

// describe is a service as it is, or nil.
func (a *account) describe(name string) *types.Service {
	a.Helper()
	out, err := a.client.DescribeServices(a.Context(), &ecs.DescribeServicesInput{Services: []string{name}, Include: []types.ServiceField{types.ServiceFieldTags}})
	if err != nil {
		a.Fatal(err)
	}
	if len(out.Services) == 0 {
		if len(out.Failures) != 1 || aws.ToString(out.Failures[0].Reason) != "MISSING" {
			a.Fatalf("neither a service nor MISSING: %+v", out)
		}
		return nil
	}
	return &out.Services[0]
}

// update rolls out another image and answers the id of the deployment.
func (a *account) update(name, image string) string {
	a.Helper()
	out, err := a.client.UpdateService(a.Context(), &ecs.UpdateServiceInput{Service: &name, TaskDefinition: aws.String(a.define(image))})
	if err != nil {
		a.Fatal(err)
	}
	return *out.Service.Deployments[0].Id
}

// records are the service deployments of a service, the newest first.
func (a *account) records(name string) []types.ServiceDeployment {
	a.Helper()
	listed, err := a.client.ListServiceDeployments(a.Context(), &ecs.ListServiceDeploymentsInput{Service: &name})
	if err != nil {
		a.Fatal(err)
	}
	var arns []string
	for _, brief := range listed.ServiceDeployments {
		arns = append(arns, *brief.ServiceDeploymentArn)
	}
	if len(arns) == 0 {
		return nil
	}
	out, err := a.client.DescribeServiceDeployments(a.Context(), &ecs.DescribeServiceDeploymentsInput{ServiceDeploymentArns: arns})
	if err != nil {
		a.Fatal(err)
	}
	return out.ServiceDeployments
}

// tasks are a service's tasks that shall be in a state.
func (a *account) tasks(in *ecs.ListTasksInput) []types.Task {
	a.Helper()
	listed, err := a.client.ListTasks(a.Context(), in)
	if err != nil {
		a.Fatal(err)
	}
	if len(listed.TaskArns) == 0 {
		return nil
	}
	out, err := a.client.DescribeTasks(a.Context(), &ecs.DescribeTasksInput{Tasks: listed.TaskArns})
	if err != nil {
		a.Fatal(err)
	}
	return out.Tasks
}

// says whether a service's events have one like this.
func says(service *types.Service, message string) bool {
	return slices.ContainsFunc(service.Events, func(event types.ServiceEvent) bool {
		return strings.Contains(*event.Message, message)
	})
}

package scriptedecs_test

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"bellhop/tests/peers/scriptedecs"
)

func TestTaskDefinitionsThatECSRefuses(t *testing.T) {
	a := setup(t, scriptedecs.Options{})
	for name, change := range map[string]func(*ecs.RegisterTaskDefinitionInput){
		"a family with a dot":    func(in *ecs.RegisterTaskDefinitionInput) { in.Family = aws.String("a.b") },
		"a family too long":      func(in *ecs.RegisterTaskDefinitionInput) { in.Family = aws.String(strings.Repeat("a", 256)) },
		"no such size":           func(in *ecs.RegisterTaskDefinitionInput) { in.Memory = aws.String("4096") },
		"no size":                func(in *ecs.RegisterTaskDefinitionInput) { in.Cpu = nil },
		"another network mode":   func(in *ecs.RegisterTaskDefinitionInput) { in.NetworkMode = types.NetworkModeBridge },
		"logs without a role":    func(in *ecs.RegisterTaskDefinitionInput) { in.ExecutionRoleArn = nil },
		"secrets without a role": secretsWithoutRole,
		"a health check without a kind": func(in *ecs.RegisterTaskDefinitionInput) {
			in.ContainerDefinitions[0].HealthCheck = &types.HealthCheck{Command: []string{"/check"}}
		},
		"a health check too often": func(in *ecs.RegisterTaskDefinitionInput) {
			in.ContainerDefinitions[0].HealthCheck = &types.HealthCheck{Command: []string{"CMD", "/check"}, Interval: aws.Int32(1)}
		},
	} {
		in := &ecs.RegisterTaskDefinitionInput{
			Family: aws.String("web"), Cpu: aws.String("256"), Memory: aws.String("512"), NetworkMode: types.NetworkModeAwsvpc,
			RequiresCompatibilities: []types.Compatibility{types.CompatibilityFargate}, ExecutionRoleArn: aws.String("arn:aws:iam::1:role/x"),
			ContainerDefinitions: []types.ContainerDefinition{{
				Name: aws.String("main"), Image: aws.String("bellhop.test/ready"),
				LogConfiguration: &types.LogConfiguration{LogDriver: types.LogDriverAwslogs, Options: map[string]string{
					"awslogs-group": "/tenants", "awslogs-region": "eu-central-1", "awslogs-stream-prefix": "web",
				}},
			}},
		}
		change(in)
		if _, err := a.client.RegisterTaskDefinition(t.Context(), in); code(err) != "ClientException" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func secretsWithoutRole(in *ecs.RegisterTaskDefinitionInput) {
	in.ExecutionRoleArn, in.ContainerDefinitions[0].LogConfiguration = nil, nil
	in.ContainerDefinitions[0].Secrets = []types.Secret{{Name: aws.String("PASSWORD"), ValueFrom: aws.String("arn:aws:secretsmanager:x")}}
}

func TestServicesThatECSRefuses(t *testing.T) {
	a := setup(t, scriptedecs.Options{})
	for name, row := range map[string]struct {
		change func(*ecs.CreateServiceInput)
		want   string
	}{
		"a name with a dot": {func(in *ecs.CreateServiceInput) { in.ServiceName = aws.String("a.b") }, "InvalidParameterException"},
		"a token too long":  {func(in *ecs.CreateServiceInput) { in.ClientToken = aws.String(strings.Repeat("a", 37)) }, "InvalidParameterException"},
		"a tag's bad characters": {func(in *ecs.CreateServiceInput) {
			in.Tags = []types.Tag{{Key: aws.String("a"), Value: aws.String("{}")}}
		}, "InvalidParameterException"},
		"a tag too long": {func(in *ecs.CreateServiceInput) {
			in.Tags = []types.Tag{{Key: aws.String("a"), Value: aws.String(strings.Repeat("a", 257))}}
		}, "InvalidParameterException"},
		"a launch type and a strategy": {func(in *ecs.CreateServiceInput) {
			in.CapacityProviderStrategy = []types.CapacityProviderStrategyItem{{CapacityProvider: aws.String("FARGATE_SPOT")}}
		}, "InvalidParameterException"},
		"no network":         {func(in *ecs.CreateServiceInput) { in.NetworkConfiguration = nil }, "InvalidParameterException"},
		"another cluster":    {func(in *ecs.CreateServiceInput) { in.Cluster = aws.String("elsewhere") }, "ClusterNotFoundException"},
		"no such definition": {func(in *ecs.CreateServiceInput) { in.TaskDefinition = aws.String("nobody") }, "ClientException"},
		"a container unknown": {func(in *ecs.CreateServiceInput) {
			in.LoadBalancers = []types.LoadBalancer{{ContainerName: aws.String("other"), ContainerPort: aws.Int32(80), TargetGroupArn: aws.String("arn:x")}}
		}, "InvalidParameterException"},
	} {
		if _, err := a.create("web", "ready", row.change); code(err) != row.want {
			t.Errorf("%s: %v, want %s", name, err, row.want)
		}
	}
}

func TestTaskDefinitionsGoInTwoSteps(t *testing.T) {
	a := setup(t, scriptedecs.Options{})
	arn := a.define("ready")
	remove := func() *ecs.DeleteTaskDefinitionsOutput {
		out, err := a.client.DeleteTaskDefinitions(t.Context(), &ecs.DeleteTaskDefinitionsInput{TaskDefinitions: []string{arn}})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if out := remove(); len(out.Failures) != 1 {
		t.Errorf("deleted while it is active: %+v", out)
	}
	if _, err := a.client.DeregisterTaskDefinition(t.Context(), &ecs.DeregisterTaskDefinitionInput{TaskDefinition: &arn}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.create("web", "ready", func(in *ecs.CreateServiceInput) { in.TaskDefinition = &arn }); code(err) != "ClientException" {
		t.Errorf("an inactive one was run: %v", err)
	}
	listed, err := a.client.ListTaskDefinitions(t.Context(), &ecs.ListTaskDefinitionsInput{FamilyPrefix: aws.String("web"), Status: types.TaskDefinitionStatusInactive})
	if err != nil || len(listed.TaskDefinitionArns) != 1 {
		t.Errorf("inactive are %+v, %v", listed, err)
	}
	if out := remove(); len(out.TaskDefinitions) != 1 {
		t.Errorf("not deleted: %+v", out)
	}
	a.until("it is gone", func() bool {
		_, err := a.client.DescribeTaskDefinition(t.Context(), &ecs.DescribeTaskDefinitionInput{TaskDefinition: &arn})
		return code(err) == "ClientException"
	})
}

package ecs

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"bellhop"
	"bellhop/internal/allowlist"
)

// container is the name of the one container of a task definition that bellhop makes.
const container = "main"

// contentHash is how much of the hash of a task definition's content is the end of its family's name.
const contentHash = 12

// definition makes the task definition of an operation. Its family has its content's hash in it: what has the same
// content is the same task definition, whoever asks for it, so none is registered twice.
func (p *Provider) definition(op bellhop.Operation, config OperationConfig) (*ecs.RegisterTaskDefinitionInput, error) {
	spec := op.Spec
	main := types.ContainerDefinition{
		Name: aws.String(container), Image: aws.String(spec.Image), Essential: aws.Bool(true),
		EntryPoint: spec.Command, Command: spec.Args,
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Env)) {
		main.Environment = append(main.Environment, types.KeyValuePair{Name: aws.String(name), Value: aws.String(spec.Env[name])})
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Secrets)) {
		main.Secrets = append(main.Secrets, types.Secret{Name: aws.String(name), ValueFrom: aws.String(spec.Secrets[name])})
	}
	for _, port := range spec.Ports {
		main.PortMappings = append(main.PortMappings, types.PortMapping{
			Name: aws.String(port.Name), ContainerPort: aws.Int32(int32(port.ContainerPort)), //nolint:gosec // 1 to 65535
			Protocol: types.TransportProtocol(port.Protocol),
		})
	}
	if health := spec.HealthCheck; health != nil {
		main.HealthCheck = &types.HealthCheck{
			Command:  append([]string{"CMD"}, health.Command...),
			Interval: seconds(health.Interval), Timeout: seconds(health.Timeout), Retries: aws.Int32(int32(health.Retries)), //nolint:gosec // 1 to 10
			StartPeriod: seconds(health.StartPeriod),
		}
	}
	if group := allowlist.ForTenant(p.config.LogGroup, op.TenantID); group != "" {
		main.LogConfiguration = &types.LogConfiguration{LogDriver: types.LogDriverAwslogs, Options: map[string]string{
			"awslogs-group": group, "awslogs-region": p.region, "awslogs-stream-prefix": keyOf(op).name(),
		}}
	}
	made := &ecs.RegisterTaskDefinitionInput{
		ContainerDefinitions: []types.ContainerDefinition{main},
		NetworkMode:          types.NetworkModeAwsvpc,
	}
	if role := allowlist.ForTenant(p.config.ExecutionRoleARN, op.TenantID); role != "" {
		made.ExecutionRoleArn = aws.String(role)
	}
	if role := allowlist.ForTenant(p.config.TaskRoleARN, op.TenantID); role != "" {
		made.TaskRoleArn = aws.String(role)
	}
	if config.Architecture != "" {
		made.RuntimePlatform = &types.RuntimePlatform{
			CpuArchitecture: types.CPUArchitecture(config.Architecture), OperatingSystemFamily: types.OSFamilyLinux,
		}
	}
	p.size(made, spec, config)

	content := struct {
		*ecs.RegisterTaskDefinitionInput
		Kind, Restart string
	}{RegisterTaskDefinitionInput: made, Kind: config.Kind}
	if config.Restart {
		content.Restart = op.ID
	}
	text, err := json.Marshal(content)
	if err != nil {
		return nil, fmt.Errorf("hash task definition: %w", err)
	}
	made.Family = aws.String(keyOf(op).name() + "-" + digest(string(text))[:contentHash])
	made.Tags = []types.Tag{tag(tagTenant, op.TenantID), tag(tagResource, op.Resource), tag(tagKind, config.Kind)}
	return made, nil
}

func seconds(d bellhop.Duration) *int32 {
	return aws.Int32(int32(time.Duration(d) / time.Second)) //nolint:gosec // minutes at the most
}

// defaultMemoryMiB is the memory of a task on EC2 that asks for none: ECS takes no task without.
const defaultMemoryMiB = 512

// size asks for CPU and memory: for a size that Fargate has, at least as large as was asked for, or just that on EC2.
func (p *Provider) size(made *ecs.RegisterTaskDefinitionInput, spec bellhop.Spec, config OperationConfig) {
	launchType, providers := p.placement(config)
	if launchType == LaunchEC2 {
		made.RequiresCompatibilities = []types.Compatibility{types.CompatibilityEc2}
		made.Memory = aws.String(strconv.Itoa(max(spec.MemoryMiB, 0)))
		if spec.MemoryMiB == 0 {
			made.Memory = aws.String(strconv.Itoa(defaultMemoryMiB))
		}
		if spec.CPUMillis > 0 {
			made.Cpu = aws.String(strconv.Itoa(max(spec.CPUMillis*1024/1000, 1)))
		}
		return
	}
	// Of capacity providers nobody knows whether they are Fargate's but by their names; a size of Fargate's fits all.
	if len(providers) == 0 {
		made.RequiresCompatibilities = []types.Compatibility{types.CompatibilityFargate}
	}
	cpu, memory, _ := fargateSize(spec.CPUMillis, spec.MemoryMiB)
	made.Cpu, made.Memory = aws.String(strconv.Itoa(cpu)), aws.String(strconv.Itoa(memory))
}

// fargateSizes are the sizes of Fargate: for each CPU the least and the most memory, and the step in between.
// https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-cpu-memory-error.html
var fargateSizes = []struct{ cpu, least, most, step int }{
	{256, 512, 512, 512},
	{256, 1024, 2048, 1024},
	{512, 1024, 4096, 1024},
	{1024, 2048, 8192, 1024},
	{2048, 4096, 16384, 1024},
	{4096, 8192, 30720, 1024},
	{8192, 16384, 61440, 4096},
	{16384, 32768, 122880, 8192},
}

// fargateSize is the smallest size of Fargate with so much CPU and memory.
func fargateSize(millis, mib int) (cpu, memory int, ok bool) {
	units := (millis*1024 + 999) / 1000
	for _, size := range fargateSizes {
		if units <= size.cpu && mib <= size.most {
			steps := (max(mib, size.least) - size.least + size.step - 1) / size.step
			return size.cpu, size.least + steps*size.step, true
		}
	}
	return 0, 0, false
}

// placement is where tasks run: a launch type, or else capacity providers.
func (p *Provider) placement(config OperationConfig) (string, []CapacityProvider) {
	switch {
	case config.LaunchType != "":
		return config.LaunchType, nil
	case len(config.CapacityProviders) > 0:
		return "", config.CapacityProviders
	}
	return p.config.LaunchType, p.config.CapacityProviders
}

func strategy(providers []CapacityProvider) []types.CapacityProviderStrategyItem {
	var items []types.CapacityProviderStrategyItem
	for _, provider := range providers {
		items = append(items, types.CapacityProviderStrategyItem{
			CapacityProvider: aws.String(provider.Name),
			Base:             int32(provider.Base), Weight: int32(orDefault(provider.Weight, 1)), //nolint:gosec // bounded when checked
		})
	}
	return items
}

func (p *Provider) network(config OperationConfig) *types.NetworkConfiguration {
	vpc := &types.AwsVpcConfiguration{
		Subnets: p.config.Subnets, SecurityGroups: p.config.SecurityGroups, AssignPublicIp: types.AssignPublicIpDisabled,
	}
	if len(config.Subnets) > 0 {
		vpc.Subnets = config.Subnets
	}
	if len(config.SecurityGroups) > 0 {
		vpc.SecurityGroups = config.SecurityGroups
	}
	public := p.config.AssignPublicIP
	if config.AssignPublicIP != nil {
		public = *config.AssignPublicIP
	}
	if launchType, _ := p.placement(config); public && launchType != LaunchEC2 { // which refuses it
		vpc.AssignPublicIp = types.AssignPublicIpEnabled
	}
	return &types.NetworkConfiguration{AwsvpcConfiguration: vpc}
}

// ensureDefinition returns the ARN of the operation's task definition, which it registers unless it is there.
func (p *Provider) ensureDefinition(ctx context.Context, c *clients, op bellhop.Operation, config OperationConfig) (string, error) {
	if config.TaskDefinition != "" {
		return config.TaskDefinition, p.checkImage(ctx, c, op, config)
	}
	made, err := p.definition(op, config)
	if err != nil {
		return "", err
	}
	there, err := c.firstDefinition(ctx, *made.Family)
	if err != nil || there != "" {
		return there, err
	}
	registered, err := c.ecs.RegisterTaskDefinition(ctx, made)
	if err != nil {
		return "", classify(err, "register task definition "+*made.Family)
	}
	// Another worker may have registered the same at this moment. Both take the first, lest one rolls out what runs already.
	there, err = c.firstDefinition(ctx, *made.Family)
	if err != nil {
		return "", err
	}
	if there == "" { // the list lags behind
		there = aws.ToString(registered.TaskDefinition.TaskDefinitionArn)
	}
	return there, nil
}

// firstDefinition is the ARN of a family's oldest active revision.
func (c *clients) firstDefinition(ctx context.Context, family string) (string, error) {
	listed, err := c.ecs.ListTaskDefinitions(ctx, &ecs.ListTaskDefinitionsInput{
		FamilyPrefix: aws.String(family), Status: types.TaskDefinitionStatusActive, Sort: types.SortOrderAsc, MaxResults: aws.Int32(1),
	})
	if err != nil {
		return "", classify(err, "list task definitions of family "+family)
	}
	if len(listed.TaskDefinitionArns) == 0 {
		return "", nil
	}
	return listed.TaskDefinitionArns[0], nil
}

// checkImage says whether a task definition of the operator's runs the image that the operation names: an outcome that
// says it was provisioned must be true of the spec as well.
func (p *Provider) checkImage(ctx context.Context, c *clients, op bellhop.Operation, config OperationConfig) error {
	described, err := c.describeDefinition(ctx, config.TaskDefinition)
	if err != nil {
		return err
	}
	for _, has := range described.ContainerDefinitions {
		if aws.ToString(has.Image) == op.Spec.Image {
			return nil
		}
	}
	return bellhop.Fail(bellhop.CodeInvalidSpec, "task definition %s does not run the image %s of the spec",
		revision(config.TaskDefinition), op.Spec.Image)
}

func (c *clients) describeDefinition(ctx context.Context, arn string) (*types.TaskDefinition, error) {
	described, err := c.ecs.DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: aws.String(arn)})
	if err != nil {
		return nil, classify(err, "describe task definition "+revision(arn))
	}
	return described.TaskDefinition, nil
}

// families lists the families that begin like this and have active task definitions.
func (c *clients) families(ctx context.Context, beginning string) ([]string, error) {
	var families []string
	pages := ecs.NewListTaskDefinitionFamiliesPaginator(c.ecs, &ecs.ListTaskDefinitionFamiliesInput{
		FamilyPrefix: aws.String(beginning), Status: types.TaskDefinitionFamilyStatusActive,
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, classify(err, "list families of task definitions")
		}
		families = append(families, page.Families...)
	}
	return families, nil
}

// seenWithin is how long a service that was created may be missing from what ECS describes. ECS names no time; seconds
// are usual.
const seenWithin = time.Minute

// registeredLately says whether a service's task definition of families is so new that the service may not be seen yet.
func (c *clients) registeredLately(ctx context.Context, families []string) (bool, error) {
	for _, family := range families {
		described, err := c.ecs.DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{
			TaskDefinition: aws.String(family), Include: []types.TaskDefinitionField{types.TaskDefinitionFieldTags},
		})
		if err != nil {
			return false, classify(err, "describe task definition "+family)
		}
		ofTask := slices.ContainsFunc(described.Tags, func(t types.Tag) bool {
			return aws.ToString(t.Key) == tagKind && aws.ToString(t.Value) == KindTask
		})
		if !ofTask && time.Since(aws.ToTime(described.TaskDefinition.RegisteredAt)) < seenWithin {
			return true, nil
		}
	}
	return false, nil
}

// deregister gives up all task definitions of families.
func (c *clients) deregister(ctx context.Context, families []string) error {
	for _, family := range families {
		pages := ecs.NewListTaskDefinitionsPaginator(c.ecs, &ecs.ListTaskDefinitionsInput{
			FamilyPrefix: aws.String(family), Status: types.TaskDefinitionStatusActive,
		})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return classify(err, "list task definitions of family "+family)
			}
			for _, arn := range page.TaskDefinitionArns {
				if _, err := c.ecs.DeregisterTaskDefinition(ctx, &ecs.DeregisterTaskDefinitionInput{TaskDefinition: aws.String(arn)}); err != nil {
					return classify(err, "deregister task definition "+revision(arn))
				}
			}
		}
	}
	return nil
}

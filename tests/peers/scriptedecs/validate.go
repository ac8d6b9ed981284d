package scriptedecs

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

var (
	ecsName  = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,255}$`)
	tagChars = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`)
	token    = regexp.MustCompile(`^[[:graph:]]*$`)
)

func checkToken(given *string, longest int) error {
	if given != nil && (len(*given) > longest || !token.MatchString(*given)) {
		return invalid("Invalid clientToken: it must be at most %d characters in the range of 33-126.", longest)
	}
	return nil
}

func checkTags(tags []types.Tag) error {
	if len(tags) > 50 {
		return invalid("Too many tags: at most 50 are allowed.")
	}
	seen := map[string]bool{}
	for _, tag := range tags {
		key, value := aws.ToString(tag.Key), aws.ToString(tag.Value)
		switch {
		case key == "" || utf8.RuneCountInString(key) > 128 || utf8.RuneCountInString(value) > 256:
			return invalid("Invalid tag %q: a key has 1 to 128 characters, a value at most 256.", key)
		case !tagChars.MatchString(key) || !tagChars.MatchString(value):
			return invalid("Invalid tag %q: it contains characters that are not allowed.", key)
		case strings.HasPrefix(strings.ToLower(key), "aws:"):
			return invalid("Invalid tag %q: aws: is reserved.", key)
		case seen[key]:
			return invalid("Duplicate tag %q.", key)
		}
		seen[key] = true
	}
	return nil
}

// fargate is how much memory, from, to and in steps of MiB, goes with how many CPU units.
var fargate = map[int][3]int{
	256: {512, 2048, 512}, 512: {1024, 4096, 1024}, 1024: {2048, 8192, 1024}, 2048: {4096, 16384, 1024},
	4096: {8192, 30720, 1024}, 8192: {16384, 61440, 4096}, 16384: {32768, 122880, 8192},
}

func fargateHas(cpu, memory string) bool {
	units, _ := strconv.Atoi(cpu)    //nolint:errcheck // what is no number is no size
	mib, _ := strconv.Atoi(memory)   //nolint:errcheck // as above
	if units == 256 && mib == 1536 { // 512, 1024 and 2048 only
		return false
	}
	sizes, found := fargate[units]
	return found && mib >= sizes[0] && mib <= sizes[1] && mib%sizes[2] == 0
}

func checkTaskDefinition(in *ecs.RegisterTaskDefinitionInput) error {
	if !ecsName.MatchString(aws.ToString(in.Family)) {
		return client("Family contains invalid characters, or is longer than 255.")
	}
	if err := checkTags(in.Tags); err != nil {
		return err
	}
	if len(in.ContainerDefinitions) == 0 {
		return client("Container list cannot be empty.")
	}
	onFargate := slices.Contains(in.RequiresCompatibilities, types.CompatibilityFargate)
	if onFargate {
		switch {
		case in.NetworkMode != types.NetworkModeAwsvpc:
			return client("Fargate only supports network mode 'awsvpc'.")
		case in.Cpu == nil:
			return client("Fargate requires that 'cpu' be defined at the task level.")
		case in.Memory == nil:
			return client("Fargate requires that 'memory' be defined at the task level.")
		case !fargateHas(*in.Cpu, *in.Memory):
			return client("No Fargate configuration exists for given values: %s CPU, %s memory. See the Amazon ECS "+
				"documentation for the valid values.", *in.Cpu, *in.Memory)
		}
	}
	names := map[string]bool{}
	essential := false
	for _, c := range in.ContainerDefinitions {
		if err := checkContainer(in, c, onFargate); err != nil {
			return err
		}
		if names[*c.Name] {
			return client("Container names must be unique.")
		}
		names[*c.Name] = true
		essential = essential || c.Essential == nil || *c.Essential
	}
	if !essential {
		return client("At least one container must be essential.")
	}
	return nil
}

func checkContainer(in *ecs.RegisterTaskDefinitionInput, c types.ContainerDefinition, onFargate bool) error {
	switch {
	case !ecsName.MatchString(aws.ToString(c.Name)):
		return client("Container.name contains invalid characters.")
	case aws.ToString(c.Image) == "":
		return client("Container.image should not be null or empty.")
	case c.Memory == nil && c.MemoryReservation == nil && in.Memory == nil:
		return client("Invalid setting for container '%s'. At least one of 'memory' or 'memoryReservation' must be specified.", *c.Name)
	case len(c.Secrets) > 0 && in.ExecutionRoleArn == nil:
		return client("When you are specifying container secrets, you must also specify a value for 'executionRoleArn'.")
	}
	if log := c.LogConfiguration; log != nil && log.LogDriver == types.LogDriverAwslogs {
		switch {
		case onFargate && in.ExecutionRoleArn == nil:
			return client("Fargate requires task definition to have execution role ARN to support log driver awslogs.")
		case log.Options["awslogs-group"] == "" || log.Options["awslogs-region"] == "":
			return client("Log driver awslogs requires options: awslogs-region, awslogs-group")
		case onFargate && log.Options["awslogs-stream-prefix"] == "":
			return client("Log driver awslogs requires option 'awslogs-stream-prefix' for FARGATE.")
		}
	}
	if check := c.HealthCheck; check != nil {
		between := func(value *int32, least, most int32) bool { return value == nil || *value >= least && *value <= most }
		switch {
		case len(check.Command) == 0 || !slices.Contains([]string{"CMD", "CMD-SHELL", "NONE"}, check.Command[0]):
			return client("Health check command must start with CMD, CMD-SHELL or NONE.")
		case !between(check.Interval, 5, 300), !between(check.Timeout, 2, 60), !between(check.Retries, 1, 10), !between(check.StartPeriod, 0, 300):
			return client("Health check values out of range: interval 5-300, timeout 2-60, retries 1-10, startPeriod 0-300.")
		}
	}
	for _, port := range c.PortMappings {
		if in.NetworkMode == types.NetworkModeAwsvpc && port.HostPort != nil && *port.HostPort != 0 && *port.HostPort != aws.ToInt32(port.ContainerPort) {
			return client("When networkMode=awsvpc, the host ports and container ports in port mappings must match.")
		}
	}
	return nil
}

// placement is where CreateService, UpdateService and RunTask want tasks to run.
type placement struct {
	launch   types.LaunchType
	strategy []types.CapacityProviderStrategyItem
	network  *types.NetworkConfiguration
}

func (p placement) check(d *taskDefinition) error {
	onFargate := p.launch == types.LaunchTypeFargate
	for _, item := range p.strategy {
		onFargate = onFargate || strings.HasPrefix(aws.ToString(item.CapacityProvider), "FARGATE")
	}
	awsvpc := d.NetworkMode == types.NetworkModeAwsvpc
	switch {
	case p.launch != "" && len(p.strategy) > 0:
		return invalid("Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.")
	case len(p.strategy) > 20:
		return invalid("A capacity provider strategy can contain a maximum of 20 capacity providers.")
	case onFargate && !slices.Contains(d.Compatibilities, types.CompatibilityFargate),
		onFargate && len(d.RequiresCompatibilities) > 0 && !slices.Contains(d.RequiresCompatibilities, types.CompatibilityFargate):
		return invalid("Task definition does not support launch_type FARGATE.")
	case p.launch == types.LaunchTypeEc2 && len(d.RequiresCompatibilities) > 0 && !slices.Contains(d.RequiresCompatibilities, types.CompatibilityEc2):
		return invalid("Task definition does not support launch_type EC2.")
	case awsvpc && (p.network == nil || p.network.AwsvpcConfiguration == nil):
		return invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified.")
	case !awsvpc && p.network != nil:
		return invalid("Network Configuration is not valid for the given networkMode of this task definition.")
	}
	if p.network == nil {
		return nil
	}
	vpc := p.network.AwsvpcConfiguration
	switch {
	case len(vpc.Subnets) == 0:
		return invalid("subnets can not be empty.")
	case len(vpc.Subnets) > 16:
		return invalid("subnets can have at most 16 items.")
	case len(vpc.SecurityGroups) > 5:
		return invalid("securityGroups can have at most 5 items.")
	case !onFargate && vpc.AssignPublicIp == types.AssignPublicIpEnabled:
		return invalid("Assign public IP is not supported for this launch type.")
	}
	return nil
}

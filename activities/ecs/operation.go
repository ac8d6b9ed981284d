package ecs

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"bellhop"
	"bellhop/activities"
	"bellhop/internal/allowlist"
)

// OperationConfig is the provider_config of an operation.
type OperationConfig struct {
	// Kind is "service" (the default), which is kept running, or "task", which runs once and is provisioned when all of it
	// has ended with exit code 0. Tasks have at most 10 replicas.
	Kind string `json:"kind"`
	// TaskDefinition is the ARN, with its revision, of a task definition to run instead of one made from the spec; the
	// provider's task_definitions must allow it. The spec then has nothing but image, which must be one of its images,
	// replicas and ports. Default: none.
	TaskDefinition string `json:"task_definition"`
	// LaunchType is "FARGATE" or "EC2". Beyond the provider's own, its allow must hold it, as it must what the next four
	// fields name. Default: the provider's.
	LaunchType string `json:"launch_type"`
	// CapacityProviders is a capacity provider strategy, instead of a launch type. Default: the provider's.
	CapacityProviders []CapacityProvider `json:"capacity_providers"`
	// Subnets are where tasks get their addresses. Default: the provider's.
	Subnets []string `json:"subnets"`
	// SecurityGroups are those of tasks. Default: the provider's.
	SecurityGroups []string `json:"security_groups"`
	// AssignPublicIP says whether tasks get public addresses. Default: as the provider says.
	AssignPublicIP *bool `json:"assign_public_ip"`
	// Architecture is "X86_64" or "ARM64". Default: "X86_64".
	Architecture string `json:"architecture"`
	// TargetGroups are the target groups of load balancers at which a service's tasks register; the provider's
	// target_groups must allow them. Default: none.
	TargetGroups []TargetGroup `json:"target_groups"`
	// HealthCheckGrace is how long a load balancer's health checks do not count after a task's start. Only with
	// target_groups. Default "0s".
	HealthCheckGrace bellhop.Duration `json:"health_check_grace"`
	// MinimumHealthyPercent is how many of a service's replicas must stand while it is updated. Default 100.
	MinimumHealthyPercent *int `json:"minimum_healthy_percent"`
	// MaximumPercent is how many may, the old beside the new. Default 200.
	MaximumPercent *int `json:"maximum_percent"`
	// Restart begins a new deployment even when nothing in the spec has changed, such as to pull an image again whose tag
	// has moved. Default false.
	Restart bool `json:"restart"`
}

// TargetGroup is a target group of a load balancer.
type TargetGroup struct {
	// ARN is the target group's. Required.
	ARN string `json:"arn"`
	// Port is the container's port, which must be one of spec.ports. Default: the only one there is.
	Port int `json:"port"`
	// Container is the container's name. Default: "main", the one of task definitions made from the spec.
	Container string `json:"container"`
}

// Values of a [Config] and an [OperationConfig].
const (
	KindService = "service"
	KindTask    = "task"

	LaunchFargate = "FARGATE"
	LaunchEC2     = "EC2"

	DefaultMinimumHealthyPercent = 100
	DefaultMaximumPercent        = 200
)

// maxTasks is how many tasks one RunTask starts.
const maxTasks = 10

// Check says what is wrong with an operation's provider_config, and with what ECS cannot do of its spec, as far as that
// can be told without the provider's own configuration.
func Check(op bellhop.Operation) error {
	_, faults := check(op)
	return faults.Err()
}

func check(op bellhop.Operation) (OperationConfig, bellhop.Faults) {
	var (
		config OperationConfig
		faults bellhop.Faults
	)
	faults.Note("", activities.DecodeConfig(op.ProviderConfig, &config))
	config.check(op, &faults)
	if op.Verb != bellhop.Delete {
		checkSpec(op.Spec, config, &faults)
	}
	return config, faults
}

var definitionPattern = regexp.MustCompile(`^arn:[a-z-]+:ecs:[a-z0-9-]+:[0-9]{12}:task-definition/[A-Za-z0-9_-]{1,255}:[0-9]+$`)

func (c *OperationConfig) check(op bellhop.Operation, faults *bellhop.Faults) {
	const at = "provider_config."
	switch c.Kind {
	case "":
		c.Kind = KindService
	case KindService:
	case KindTask:
		if op.Spec.Replicas > maxTasks {
			faults.Add("spec.replicas", "must be at most %d for tasks", maxTasks)
		}
		if len(c.TargetGroups) > 0 {
			faults.Add(at+"target_groups", "must be left out for tasks: ECS registers services only")
		}
	default:
		faults.Add(at+"kind", `must be "service" or "task"`)
	}
	if c.TaskDefinition != "" && !definitionPattern.MatchString(c.TaskDefinition) {
		faults.Add(at+"task_definition", "must be the ARN of a task definition with its revision")
	}
	checkPlacement(at, c.LaunchType, c.CapacityProviders, faults)
	checkNetwork(at, c.Subnets, c.SecurityGroups, faults)
	switch c.Architecture {
	case "", "X86_64", "ARM64":
	default:
		faults.Add(at+"architecture", `must be "X86_64" or "ARM64"`)
	}
	for i := range c.TargetGroups {
		c.TargetGroups[i].check(fmt.Sprintf("%starget_groups[%d].", at, i), c.TaskDefinition == "", op.Spec.Ports, faults)
	}
	if grace := time.Duration(c.HealthCheckGrace); grace < 0 || grace%time.Second != 0 {
		faults.Add(at+"health_check_grace", "must be whole seconds")
	} else if grace > 0 && len(c.TargetGroups) == 0 {
		faults.Add(at+"health_check_grace", "must be left out without target_groups")
	}
	least, most := orDefault(c.MinimumHealthyPercent, DefaultMinimumHealthyPercent), orDefault(c.MaximumPercent, DefaultMaximumPercent)
	c.MinimumHealthyPercent, c.MaximumPercent = &least, &most
	if least < 0 || least > 100 {
		faults.Add(at+"minimum_healthy_percent", "must be 0 to 100")
	}
	if most < 100 || most > 200 {
		faults.Add(at+"maximum_percent", "must be 100 to 200")
	}
	if least == 100 && most == 100 {
		faults.Add(at+"maximum_percent", "must be more than 100 when minimum_healthy_percent is 100: nothing could ever be replaced")
	}
}

func orDefault(value *int, standard int) int {
	if value == nil {
		return standard
	}
	return *value
}

func (g *TargetGroup) check(at string, ownDefinition bool, ports []bellhop.Port, faults *bellhop.Faults) {
	if !strings.HasPrefix(g.ARN, "arn:") {
		faults.Add(at+"arn", "must be the ARN of a target group")
	}
	if ownDefinition && g.Container != "" && g.Container != container {
		faults.Add(at+"container", "must be %q, or be left out, without provider_config.task_definition", container)
	}
	if g.Port == 0 && len(ports) == 1 {
		g.Port = ports[0].ContainerPort
	}
	for _, port := range ports {
		if port.ContainerPort == g.Port {
			return
		}
	}
	faults.Add(at+"port", "must be one of spec.ports")
}

// Bounds of ECS's health checks.
const (
	minInterval, maxInterval = 5 * time.Second, 300 * time.Second
	minTimeout, maxTimeout   = 2 * time.Second, 60 * time.Second
	maxStartPeriod           = 300 * time.Second
)

func checkSpec(spec bellhop.Spec, config OperationConfig, faults *bellhop.Faults) {
	if config.TaskDefinition != "" {
		if len(spec.Command)+len(spec.Args)+len(spec.Env)+len(spec.Secrets) > 0 || spec.CPUMillis > 0 || spec.MemoryMiB > 0 ||
			spec.HealthCheck != nil {
			faults.Add("spec", "must have nothing but image, replicas and ports beside provider_config.task_definition")
		}
	}
	if fargate := config.LaunchType != LaunchEC2; fargate {
		if _, _, ok := fargateSize(spec.CPUMillis, spec.MemoryMiB); !ok {
			faults.Add("spec", "must ask for at most 16000 cpu_millis and 122880 memory_mib: Fargate has no larger size")
		}
	}
	faults.Note("spec.image", allowlist.CheckImage(spec.Image))
	for name, reference := range spec.Secrets {
		if !strings.HasPrefix(reference, "arn:") {
			faults.Add("spec.secrets."+name, "must be the ARN of a secret or of a parameter")
		}
	}
	if len(portsText(spec.Ports)) > maxTag {
		faults.Add("spec.ports", "are too many: their names and numbers must fit into a tag of %d characters", maxTag)
	}
	health := spec.HealthCheck
	if health == nil {
		return
	}
	for _, d := range []struct {
		path        string
		value       bellhop.Duration
		least, most time.Duration
	}{
		{"interval", health.Interval, minInterval, maxInterval},
		{"timeout", health.Timeout, minTimeout, maxTimeout},
		{"start_period", health.StartPeriod, 0, maxStartPeriod},
	} {
		if value := time.Duration(d.value); value < d.least || value > d.most || value%time.Second != 0 {
			faults.Add("spec.health_check."+d.path, "must be %s to %s in whole seconds for ECS", d.least, d.most)
		}
	}
}

// checkAllowed reports what of an operation the provider's entry does not allow its tenant. The messages do not repeat the
// lists, which may name other tenants.
func (p *Provider) checkAllowed(op bellhop.Operation, config OperationConfig, faults *bellhop.Faults) {
	const at = "provider_config."
	refuse := func(path, list string) {
		faults.AddHere(path, "is not allowed to tenant %s; the operator allows it in the provider's %s", op.TenantID, list)
	}
	allows := func(patterns []string, name string) bool { return allowlist.Allows(patterns, op.TenantID, name) }
	for name, reference := range op.Spec.Secrets {
		if strings.HasPrefix(reference, "arn:") && !allows(p.config.Secrets, reference) {
			refuse("spec.secrets."+name, "secrets")
		}
	}
	if op.Spec.Image != "" && p.config.Images != nil && !allowlist.AllowsImage(p.config.Images, op.TenantID, op.Spec.Image) {
		refuse("spec.image", "images")
	}
	if config.TaskDefinition != "" && !allows(p.config.TaskDefinitions, config.TaskDefinition) {
		refuse(at+"task_definition", "task_definitions")
	}
	for i, group := range config.TargetGroups {
		if strings.HasPrefix(group.ARN, "arn:") && !allows(p.config.TargetGroups, group.ARN) {
			refuse(fmt.Sprintf(at+"target_groups[%d].arn", i), "target_groups")
		}
	}
	own, allow := p.config, p.config.Allow
	if config.LaunchType != "" && config.LaunchType != own.LaunchType && !slices.Contains(allow.LaunchTypes, config.LaunchType) {
		refuse(at+"launch_type", "allow.launch_types")
	}
	for i, provider := range config.CapacityProviders {
		isOwn := slices.ContainsFunc(own.CapacityProviders, func(c CapacityProvider) bool { return c.Name == provider.Name })
		if !isOwn && !allows(allow.CapacityProviders, provider.Name) {
			refuse(fmt.Sprintf(at+"capacity_providers[%d].name", i), "allow.capacity_providers")
		}
	}
	for i, subnet := range config.Subnets {
		if !slices.Contains(own.Subnets, subnet) && !allows(allow.Subnets, subnet) {
			refuse(fmt.Sprintf(at+"subnets[%d]", i), "allow.subnets")
		}
	}
	for i, group := range config.SecurityGroups {
		if !slices.Contains(own.SecurityGroups, group) && !allows(allow.SecurityGroups, group) {
			refuse(fmt.Sprintf(at+"security_groups[%d]", i), "allow.security_groups")
		}
	}
	if public := config.AssignPublicIP; public != nil && *public && !own.AssignPublicIP && !allow.AssignPublicIP {
		refuse(at+"assign_public_ip", "allow.assign_public_ip")
	}
}

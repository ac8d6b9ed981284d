package ecs

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"bellhop"
	"bellhop/internal/allowlist"
)

// Config is an entry of type ecs under providers in the worker's configuration: one ECS cluster. Credentials come from
// where AWS's own tools find them: the environment, the shared configuration files, the container's or the instance's
// role. In fields that say so, "{tenant}" stands for the operation's tenant.
type Config struct {
	// Region is the cluster's AWS region. Default: that of the environment or of the configuration files.
	Region string `json:"region"`
	// Endpoint is the URL of an emulator that answers for ECS, STS, CloudWatch Logs and SQS alike. For VPC endpoints set
	// AWS_ENDPOINT_URL_ECS and the like instead. Default: AWS's own.
	Endpoint string `json:"endpoint"`
	// Cluster is the cluster's name or ARN; it must exist. Required.
	Cluster string `json:"cluster"`
	// RoleARN is a role to assume for whatever is done for a tenant. It may hold {tenant}. It must lead to the cluster's
	// account: tenants with accounts of their own need entries of their own. Default: none, the worker's own credentials.
	RoleARN string `json:"role_arn"`
	// ExternalID is given to STS with role_arn. It may hold {tenant}. Default: none.
	ExternalID string `json:"external_id"`
	// WatchRoleARN is a role to assume for what is done for all tenants at once: to watch, and to list what stands. Default:
	// role_arn when it is the same for all tenants, else the worker's own credentials.
	WatchRoleARN string `json:"watch_role_arn"`
	// LaunchType is where tasks run unless an operation says otherwise: "FARGATE" or "EC2". Default: "FARGATE", or none
	// when there are capacity_providers.
	LaunchType string `json:"launch_type"`
	// CapacityProviders is the strategy by which tasks are placed unless an operation says otherwise. Not beside
	// launch_type. Default: none.
	CapacityProviders []CapacityProvider `json:"capacity_providers"`
	// Subnets are where tasks get their addresses, at most 16. Required.
	Subnets []string `json:"subnets"`
	// SecurityGroups are those of tasks, at most 5. Default: the VPC's default one.
	SecurityGroups []string `json:"security_groups"`
	// AssignPublicIP gives tasks public addresses, which Fargate needs in a subnet without NAT. Default false.
	AssignPublicIP bool `json:"assign_public_ip"`
	// ExecutionRoleARN is the role with which ECS pulls images, looks up secrets and writes logs. It may hold {tenant}.
	// Needed for spec.secrets, log_group and images in ECR. Default: none.
	ExecutionRoleARN string `json:"execution_role_arn"`
	// TaskRoleARN is the role that a tenant's own code has. It may hold {tenant}. Operations cannot choose one. Default: none.
	TaskRoleARN string `json:"task_role_arn"`
	// Secrets are patterns of the ARNs that spec.secrets may name, in Secrets Manager or in Systems Manager's parameters. "*"
	// stands for any text, and they may hold {tenant}: "arn:aws:secretsmanager:eu-west-1:123456789012:secret:{tenant}/*".
	// Default: none, spec.secrets are refused.
	Secrets []string `json:"secrets"`
	// Images are patterns of the repositories whose images operations may run, in full and without a tag, in the same
	// form: "docker.io/library/*", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/{tenant}/*". Default: all.
	Images []string `json:"images"`
	// Allow is where operations may put their tasks other than where the provider puts them. Default: nowhere.
	Allow AllowConfig `json:"allow"`
	// TaskDefinitions are patterns of the ARNs of task definitions of your own that operations may run, in the same form. They
	// bring roles of their own along. Default: none.
	TaskDefinitions []string `json:"task_definitions"`
	// TargetGroups are patterns of the ARNs of load balancers' target groups that operations may register at, in the same
	// form. Default: none.
	TargetGroups []string `json:"target_groups"`
	// LogGroup is the CloudWatch log group of the containers' output; it must exist. It may hold {tenant}. Default: none,
	// the output is dropped.
	LogGroup string `json:"log_group"`
	// LogLines is how many of its last lines a failure carries as evidence, 0 to 100. Default 20.
	LogLines *int `json:"log_lines"`
	// ReadsPerSecond is how many calls that describe and list this worker makes in a second; with three workers the account's
	// quota is to be divided by three. AWS refills 20 each second. Default 15.
	ReadsPerSecond float64 `json:"reads_per_second"`
	// WritesPerSecond is how many calls that create, update, tag and delete services, and start and stop tasks. AWS refills 5.
	// Default 4.
	WritesPerSecond float64 `json:"writes_per_second"`
	// DefinitionsPerSecond is how many task definitions are registered and deregistered. AWS refills 1. Default 0.8.
	DefinitionsPerSecond float64 `json:"definitions_per_second"`
	// PollMin is how often a service that changes is looked at. Default "5s".
	PollMin bellhop.Duration `json:"poll_min"`
	// PollMax is up to what that grows while nothing changes. Default "30s".
	PollMax bellhop.Duration `json:"poll_max"`
	// Resync is how often everything is looked at, whether it is waited for or not. It takes longer when reads_per_second
	// would not allow it. Default "1m".
	Resync bellhop.Duration `json:"resync"`
	// EventsQueueURL is an SQS queue to which an EventBridge rule sends the cluster's events. They only wake the poller up.
	// Default: none.
	EventsQueueURL string `json:"events_queue_url"`
}

// CapacityProvider is a part of a capacity provider strategy.
type CapacityProvider struct {
	// Name is the capacity provider's, such as "FARGATE_SPOT". Required.
	Name string `json:"name"`
	// Base is how many tasks run there at least. Default 0.
	Base int `json:"base"`
	// Weight is its share of all others. Default 1.
	Weight *int `json:"weight"`
}

// AllowConfig is what operations may name in provider_config beyond what the provider's entry gives to all. The entry's own
// launch type, capacity providers, subnets and security groups may always be named. Patterns may hold "*" and {tenant}, as
// those of secrets.
type AllowConfig struct {
	// Subnets are patterns of subnets' ids. Default: none.
	Subnets []string `json:"subnets"`
	// SecurityGroups are patterns of security groups' ids. Default: none.
	SecurityGroups []string `json:"security_groups"`
	// CapacityProviders are patterns of capacity providers' names: "FARGATE_SPOT", "tenant-{tenant}". Default: none.
	CapacityProviders []string `json:"capacity_providers"`
	// LaunchTypes may hold "FARGATE" and "EC2". Default: none.
	LaunchTypes []string `json:"launch_types"`
	// AssignPublicIP lets operations give their tasks public addresses. Default false.
	AssignPublicIP bool `json:"assign_public_ip"`
}

// Defaults of a [Config].
const (
	DefaultLogLines             = 20
	DefaultReadsPerSecond       = 15
	DefaultWritesPerSecond      = 4
	DefaultDefinitionsPerSecond = 0.8
	DefaultPollEvery            = 5 * time.Second
	DefaultPollUpTo             = 30 * time.Second
	DefaultResync               = time.Minute
)

// What ECS takes.
const (
	maxSubnets        = 16
	maxSecurityGroups = 5
	maxLogLines       = 100
)

// withDefaults fills in the defaults and reports everything that is wrong, as [bellhop.Faults].
func (c Config) withDefaults() (Config, error) {
	var faults bellhop.Faults
	if c.Cluster == "" {
		faults.Add("cluster", "is required: the name or the ARN of the ECS cluster")
	}
	for _, field := range []struct{ path, value string }{{"endpoint", c.Endpoint}, {"events_queue_url", c.EventsQueueURL}} {
		if u, err := url.Parse(field.value); field.value != "" &&
			(err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
			faults.Add(field.path, "must be an http or https URL")
		}
	}
	c.checkRoles(&faults)
	checkPlacement("", c.LaunchType, c.CapacityProviders, &faults)
	if c.LaunchType == "" && len(c.CapacityProviders) == 0 {
		c.LaunchType = LaunchFargate
	}
	if len(c.Subnets) == 0 {
		faults.Add("subnets", "is required: where tasks get their addresses")
	}
	checkNetwork("", c.Subnets, c.SecurityGroups, &faults)
	for _, list := range []struct {
		path     string
		patterns []string
	}{{"secrets", c.Secrets}, {"task_definitions", c.TaskDefinitions}, {"target_groups", c.TargetGroups}} {
		allowlist.Check(list.path, list.patterns, &faults)
		for i, pattern := range list.patterns {
			if !strings.HasPrefix(pattern, "arn:") {
				faults.Add(fmt.Sprintf("%s[%d]", list.path, i), `must be the pattern of an ARN and begin with "arn:"`)
			}
		}
	}
	allowlist.Check("images", c.Images, &faults)
	allowlist.CheckTemplate("log_group", c.LogGroup, &faults)
	c.Allow.check(&faults)
	if c.LogLines == nil {
		lines := DefaultLogLines
		c.LogLines = &lines
	}
	if *c.LogLines < 0 || *c.LogLines > maxLogLines {
		faults.Add("log_lines", "must be 0 to %d", maxLogLines)
	}
	c.fillRates(&faults)
	return c, faults.Err()
}

var rolePattern = regexp.MustCompile(`^arn:[a-z-]+:iam::\d{12}:role/[^\s{}]+$`)

func (c Config) checkRoles(faults *bellhop.Faults) {
	for _, role := range []struct {
		path, value string
		template    bool
	}{
		{"role_arn", c.RoleARN, true},
		{"watch_role_arn", c.WatchRoleARN, false},
		{"execution_role_arn", c.ExecutionRoleARN, true},
		{"task_role_arn", c.TaskRoleARN, true},
	} {
		value := role.value
		if role.template {
			value = allowlist.ForTenant(value, "tenant")
		}
		if role.value != "" && !rolePattern.MatchString(value) {
			faults.Add(role.path, "must be the ARN of a role, such as arn:aws:iam::123456789012:role/bellhop")
		}
	}
	if c.ExternalID != "" && c.RoleARN == "" {
		faults.Add("external_id", "must be left out without role_arn")
	}
	if len(c.Secrets) > 0 && c.ExecutionRoleARN == "" {
		faults.Add("execution_role_arn", "is required beside secrets: it is the role with which ECS looks them up")
	}
	if c.LogGroup != "" && c.ExecutionRoleARN == "" {
		faults.Add("execution_role_arn", "is required beside log_group: it is the role with which ECS writes logs")
	}
}

func (c *Config) fillRates(faults *bellhop.Faults) {
	for _, rate := range []struct {
		path     string
		value    *float64
		standard float64
	}{
		{"reads_per_second", &c.ReadsPerSecond, DefaultReadsPerSecond},
		{"writes_per_second", &c.WritesPerSecond, DefaultWritesPerSecond},
		{"definitions_per_second", &c.DefinitionsPerSecond, DefaultDefinitionsPerSecond},
	} {
		if *rate.value == 0 {
			*rate.value = rate.standard
		}
		if *rate.value < 0.01 {
			faults.Add(rate.path, "must be at least 0.01")
		}
	}
	for _, d := range []struct {
		path     string
		value    *bellhop.Duration
		standard time.Duration
	}{
		{"poll_min", &c.PollMin, DefaultPollEvery},
		{"poll_max", &c.PollMax, max(DefaultPollUpTo, time.Duration(c.PollMin))},
		{"resync", &c.Resync, max(DefaultResync, time.Duration(c.PollMin))},
	} {
		if *d.value == 0 {
			*d.value = bellhop.Duration(d.standard)
		}
		if time.Duration(*d.value) < time.Millisecond {
			faults.Add(d.path, "must be at least 1ms")
		}
	}
	if c.PollMax < c.PollMin {
		faults.Add("poll_max", "must not be less than poll_min")
	}
	if c.Resync < c.PollMin {
		faults.Add("resync", "must not be less than poll_min")
	}
}

func (a AllowConfig) check(faults *bellhop.Faults) {
	allowlist.Check("allow.subnets", a.Subnets, faults)
	allowlist.Check("allow.security_groups", a.SecurityGroups, faults)
	allowlist.Check("allow.capacity_providers", a.CapacityProviders, faults)
	for i, launchType := range a.LaunchTypes {
		if launchType != LaunchFargate && launchType != LaunchEC2 {
			faults.Add(fmt.Sprintf("allow.launch_types[%d]", i), `must be "FARGATE" or "EC2"`)
		}
	}
}

func checkPlacement(at, launchType string, providers []CapacityProvider, faults *bellhop.Faults) {
	switch launchType {
	case "", LaunchFargate, LaunchEC2:
	default:
		faults.Add(at+"launch_type", `must be "FARGATE" or "EC2"`)
	}
	if launchType != "" && len(providers) > 0 {
		faults.Add(at+"launch_type", "must be left out beside capacity_providers")
	}
	for i, provider := range providers {
		path := fmt.Sprintf("%scapacity_providers[%d].", at, i)
		if provider.Name == "" {
			faults.Add(path+"name", "is required")
		}
		if provider.Base < 0 || provider.Base > 100_000 {
			faults.Add(path+"base", "must be 0 to 100000")
		}
		if provider.Weight != nil && (*provider.Weight < 0 || *provider.Weight > 1000) {
			faults.Add(path+"weight", "must be 0 to 1000")
		}
	}
}

func checkNetwork(at string, subnets, groups []string, faults *bellhop.Faults) {
	if len(subnets) > maxSubnets {
		faults.Add(at+"subnets", "must be at most %d", maxSubnets)
	}
	if len(groups) > maxSecurityGroups {
		faults.Add(at+"security_groups", "must be at most %d", maxSecurityGroups)
	}
}

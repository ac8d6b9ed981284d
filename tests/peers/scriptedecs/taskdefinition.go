package scriptedecs

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// taskDefinition is one revision of a family.
type taskDefinition struct {
	types.TaskDefinition
	tags []types.Tag
}

func (d *taskDefinition) does() Workload {
	return workload(aws.ToString(leading(&d.TaskDefinition).Image))
}

// checked says whether health checks decide when a task is ready.
func (d *taskDefinition) checked() bool {
	return slices.ContainsFunc(d.ContainerDefinitions, func(c types.ContainerDefinition) bool { return c.HealthCheck != nil })
}

// definition finds what a request means: an ARN, family:revision, or a family, which is its newest active revision.
func (s *Server) definition(given *string) *taskDefinition {
	name := aws.ToString(given)
	name = name[strings.LastIndex(name, "/")+1:]
	family, revision, exact := strings.Cut(name, ":")
	for _, d := range slices.Backward(s.families[family]) {
		if exact && strconv.Itoa(int(d.Revision)) == revision || !exact && d.Status == types.TaskDefinitionStatusActive {
			return d
		}
	}
	return nil
}

// usable finds a task definition that can be run.
func (s *Server) usable(given *string) (*taskDefinition, error) {
	d := s.definition(given)
	switch {
	case d == nil:
		return nil, client("TaskDefinition not found.")
	case d.Status != types.TaskDefinitionStatusActive:
		return nil, client("TaskDefinition is inactive")
	}
	return d, nil
}

func (s *Server) registerTaskDefinition(in *ecs.RegisterTaskDefinitionInput) (*ecs.RegisterTaskDefinitionOutput, error) {
	if err := checkTaskDefinition(in); err != nil {
		return nil, err
	}
	family := aws.ToString(in.Family)
	revision := int32(1)
	if of := s.families[family]; len(of) > 0 {
		revision = of[len(of)-1].Revision + 1
	}
	for i := range in.ContainerDefinitions {
		if in.ContainerDefinitions[i].Essential == nil {
			in.ContainerDefinitions[i].Essential = aws.Bool(true)
		}
	}
	compatible := []types.Compatibility{types.CompatibilityExternal, types.CompatibilityEc2}
	if in.NetworkMode == types.NetworkModeAwsvpc {
		compatible = []types.Compatibility{types.CompatibilityEc2, types.CompatibilityFargate}
	}
	d := &taskDefinition{tags: in.Tags, TaskDefinition: types.TaskDefinition{
		TaskDefinitionArn: aws.String(s.arn("task-definition", family+":"+strconv.Itoa(int(revision)))),
		Family:            in.Family, Revision: revision, Status: types.TaskDefinitionStatusActive,
		ContainerDefinitions: in.ContainerDefinitions, Cpu: in.Cpu, Memory: in.Memory,
		NetworkMode: cmp.Or(in.NetworkMode, types.NetworkModeBridge), Compatibilities: compatible, RequiresCompatibilities: in.RequiresCompatibilities,
		ExecutionRoleArn: in.ExecutionRoleArn, TaskRoleArn: in.TaskRoleArn, RuntimePlatform: in.RuntimePlatform,
		EphemeralStorage: in.EphemeralStorage, Volumes: in.Volumes, PlacementConstraints: in.PlacementConstraints,
		RegisteredAt: aws.Time(time.Now()), RegisteredBy: aws.String(s.arn("user", "bellhop")),
	}}
	s.families[family] = append(s.families[family], d)
	return &ecs.RegisterTaskDefinitionOutput{TaskDefinition: &d.TaskDefinition, Tags: d.tags}, nil
}

func (s *Server) describeTaskDefinition(in *ecs.DescribeTaskDefinitionInput) (*ecs.DescribeTaskDefinitionOutput, error) {
	d := s.definition(in.TaskDefinition)
	if d == nil {
		return nil, client("Unable to describe task definition.")
	}
	out := &ecs.DescribeTaskDefinitionOutput{TaskDefinition: &d.TaskDefinition}
	if slices.Contains(in.Include, types.TaskDefinitionFieldTags) {
		out.Tags = d.tags
	}
	return out, nil
}

func (s *Server) deregisterTaskDefinition(in *ecs.DeregisterTaskDefinitionInput) (*ecs.DeregisterTaskDefinitionOutput, error) {
	if !strings.Contains(aws.ToString(in.TaskDefinition), ":") {
		return nil, invalid("Invalid revision number. Number: null")
	}
	d := s.definition(in.TaskDefinition)
	if d == nil {
		return nil, client("The specified task definition does not exist. Specify a valid account, family, revision and try again.")
	}
	if d.Status == types.TaskDefinitionStatusActive {
		d.Status, d.DeregisteredAt = types.TaskDefinitionStatusInactive, aws.Time(time.Now())
	}
	return &ecs.DeregisterTaskDefinitionOutput{TaskDefinition: &d.TaskDefinition}, nil
}

func (s *Server) deleteTaskDefinitions(in *ecs.DeleteTaskDefinitionsInput) (*ecs.DeleteTaskDefinitionsOutput, error) {
	if len(in.TaskDefinitions) > 10 {
		return nil, invalid("The maximum number of task definitions to delete is 10.")
	}
	out := &ecs.DeleteTaskDefinitionsOutput{}
	fail := func(name, reason, detail string) {
		out.Failures = append(out.Failures, types.Failure{Arn: &name, Reason: &reason, Detail: &detail})
	}
	for _, name := range in.TaskDefinitions {
		d := s.definition(&name)
		switch {
		case d == nil:
			fail(name, "MISSING", "The specified task definition does not exist.")
		case d.Status == types.TaskDefinitionStatusActive:
			fail(name, "The specified task definition is still in ACTIVE status. Please deregister the target and try again.", "")
		default:
			d.Status, d.DeleteRequestedAt = types.TaskDefinitionStatusDeleteInProgress, aws.Time(time.Now())
			out.TaskDefinitions = append(out.TaskDefinitions, d.TaskDefinition)
			s.after(2, func() {
				if !s.referenced(d) {
					s.families[*d.Family] = slices.DeleteFunc(s.families[*d.Family], func(other *taskDefinition) bool { return other == d })
				}
			})
		}
	}
	return out, nil
}

// referenced says whether something runs of a task definition.
func (s *Server) referenced(d *taskDefinition) bool {
	for _, svc := range s.services {
		if slices.ContainsFunc(svc.deployments, func(deployment *deployment) bool { return deployment.definition == d }) {
			return true
		}
	}
	return slices.ContainsFunc(s.order, func(t *task) bool { return t.definition == d && aws.ToString(t.LastStatus) != stopped })
}

func (s *Server) listTaskDefinitions(in *ecs.ListTaskDefinitionsInput) (*ecs.ListTaskDefinitionsOutput, error) {
	status := cmp.Or(in.Status, types.TaskDefinitionStatusActive)
	var arns []string
	for _, family := range slices.Sorted(maps.Keys(s.families)) {
		if in.FamilyPrefix != nil && *in.FamilyPrefix != family {
			continue
		}
		for _, d := range s.families[family] {
			if d.Status == status {
				arns = append(arns, *d.TaskDefinitionArn)
			}
		}
	}
	if in.Sort == types.SortOrderDesc {
		slices.Reverse(arns)
	}
	page, next, err := page(arns, in.MaxResults, in.NextToken, 100)
	return &ecs.ListTaskDefinitionsOutput{TaskDefinitionArns: page, NextToken: next}, err
}

func (s *Server) listTaskDefinitionFamilies(in *ecs.ListTaskDefinitionFamiliesInput) (*ecs.ListTaskDefinitionFamiliesOutput, error) {
	status := cmp.Or(in.Status, types.TaskDefinitionFamilyStatusAll)
	var names []string
	for _, family := range slices.Sorted(maps.Keys(s.families)) {
		of := s.families[family]
		active := slices.ContainsFunc(of, func(d *taskDefinition) bool { return d.Status == types.TaskDefinitionStatusActive })
		wanted := status == types.TaskDefinitionFamilyStatusAll || active == (status == types.TaskDefinitionFamilyStatusActive)
		if wanted && len(of) > 0 && strings.HasPrefix(family, aws.ToString(in.FamilyPrefix)) {
			names = append(names, family)
		}
	}
	page, next, err := page(names, in.MaxResults, in.NextToken, 100)
	return &ecs.ListTaskDefinitionFamiliesOutput{Families: page, NextToken: next}, err
}

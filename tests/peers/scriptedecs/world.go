package scriptedecs

import (
	"errors"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// Break lets all tasks of the services that carry a tag exit, and every one that is launched in their place.
func (s *Server) Break(key, value string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	broken := 0
	for _, svc := range s.services {
		if !carries(svc.tags, key, value) {
			continue
		}
		svc.broken = true
		broken++
		for _, t := range svc.live() {
			t.does = Workloads["exits"]
			s.exit(t)
		}
	}
	return broken
}

// Foreign makes a service of somebody else's, which runs one task, and returns a check that it is still as it was made.
func (s *Server) Foreign(cluster, name string) (intact func() error, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err = s.registerTaskDefinition(&ecs.RegisterTaskDefinitionInput{
		Family: aws.String("somebody-elses"), ContainerDefinitions: []types.ContainerDefinition{
			{Name: aws.String("main"), Image: aws.String("somebody/elses:1"), Memory: aws.Int32(64)},
		},
	})
	if err != nil {
		return nil, err
	}
	tag := types.Tag{Key: aws.String("owner"), Value: aws.String("somebody else")}
	_, err = s.createService(&ecs.CreateServiceInput{
		Cluster: &cluster, ServiceName: &name, TaskDefinition: aws.String("somebody-elses"), DesiredCount: aws.Int32(1), Tags: []types.Tag{tag},
	})
	if err != nil {
		return nil, err
	}
	svc, err := s.find(&cluster, name)
	if err != nil {
		return nil, err
	}
	svc.hidden = 0 // it has been there for long
	deployment := svc.deployments[0]
	return func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case s.services[*svc.ServiceArn] != svc || *svc.Status != active:
			return fmt.Errorf("service %s of somebody else was deleted", name)
		case svc.DesiredCount != 1 || len(svc.deployments) != 1 || svc.deployments[0] != deployment:
			return fmt.Errorf("service %s of somebody else was updated", name)
		case !slices.Equal(svc.tags, []types.Tag{tag}):
			return errors.New("the tags of somebody else's service were changed")
		}
		return nil
	}, nil
}

// Remove makes a service and its tasks disappear at once, as if they never had been.
func (s *Server) Remove(cluster, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	svc, err := s.find(&cluster, name)
	if err != nil {
		return
	}
	for _, t := range svc.live() {
		s.stop(t, types.TaskStopCodeServiceSchedulerInitiated, scaling(t.deployment))
	}
	svc.Status = aws.String(inactive)
	delete(s.services, *svc.ServiceArn)
}

// Standing are the ARNs of the tasks that stand, healthy or not: those that carry a tag, and those whose service does.
func (s *Server) Standing(key, value string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var arns []string
	for _, t := range s.order {
		if *t.LastStatus != stopped && (carries(t.Tags, key, value) || t.deployment != nil && carries(t.deployment.service.tags, key, value)) {
			arns = append(arns, *t.TaskArn)
		}
	}
	return arns
}

// Remains are the ARNs of everything with a tag's key that is not gone: services that are not INACTIVE, tasks that have
// not stopped, task definitions that are ACTIVE.
func (s *Server) Remains(key string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	has := func(tags []types.Tag) bool {
		return slices.ContainsFunc(tags, func(tag types.Tag) bool { return aws.ToString(tag.Key) == key })
	}
	var arns []string
	for arn, svc := range s.services {
		if *svc.Status != inactive && has(svc.tags) {
			arns = append(arns, arn)
		}
	}
	for arn, t := range s.tasks {
		if *t.LastStatus != stopped && (has(t.Tags) || t.deployment != nil && has(t.deployment.service.tags)) {
			arns = append(arns, arn)
		}
	}
	for _, family := range s.families {
		for _, d := range family {
			if d.Status == types.TaskDefinitionStatusActive && has(d.tags) {
				arns = append(arns, *d.TaskDefinitionArn)
			}
		}
	}
	slices.Sort(arns)
	return arns
}

package scriptedecs

import (
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// tagged finds the tags of whatever has an ARN.
func (s *Server) tagged(arn *string) (*[]types.Tag, error) {
	if svc := s.services[aws.ToString(arn)]; svc != nil && *svc.Status != inactive {
		return &svc.tags, nil
	}
	if t := s.tasks[aws.ToString(arn)]; t != nil {
		return &t.Tags, nil
	}
	if d := s.definition(arn); d != nil && *d.TaskDefinitionArn == *arn {
		return &d.tags, nil
	}
	return nil, invalid("The specified resource is inactive or does not exist. Specify a valid resource and try again.")
}

func (s *Server) tagResource(in *ecs.TagResourceInput) (*ecs.TagResourceOutput, error) {
	tags, err := s.tagged(in.ResourceArn)
	if err != nil {
		return nil, err
	}
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	merged := without(*tags, func(tag types.Tag) bool {
		return slices.ContainsFunc(in.Tags, func(given types.Tag) bool { return *given.Key == *tag.Key })
	})
	merged = append(merged, in.Tags...)
	if err := checkTags(merged); err != nil {
		return nil, err
	}
	*tags = merged
	return &ecs.TagResourceOutput{}, nil
}

func (s *Server) untagResource(in *ecs.UntagResourceInput) (*ecs.UntagResourceOutput, error) {
	tags, err := s.tagged(in.ResourceArn)
	if err != nil {
		return nil, err
	}
	*tags = without(*tags, func(tag types.Tag) bool { return slices.Contains(in.TagKeys, *tag.Key) })
	return &ecs.UntagResourceOutput{}, nil
}

// without is a new list: tasks may share their service's.
func without(tags []types.Tag, gone func(types.Tag) bool) []types.Tag {
	return slices.DeleteFunc(slices.Clone(tags), gone)
}

func (s *Server) listTagsForResource(in *ecs.ListTagsForResourceInput) (*ecs.ListTagsForResourceOutput, error) {
	tags, err := s.tagged(in.ResourceArn)
	if err != nil {
		return nil, err
	}
	return &ecs.ListTagsForResourceOutput{Tags: *tags}, nil
}

// carries says whether tags have a key with a value.
func carries(tags []types.Tag, key, value string) bool {
	return slices.ContainsFunc(tags, func(tag types.Tag) bool { return aws.ToString(tag.Key) == key && aws.ToString(tag.Value) == value })
}

package scriptedecs

import (
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	logstypes "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// getLogEvents answers what a container printed: of a container with the log driver awslogs the stream is named
// PREFIX/CONTAINER/TASK.
func (s *Server) getLogEvents(in *cloudwatchlogs.GetLogEventsInput) (*cloudwatchlogs.GetLogEventsOutput, error) {
	stream := strings.Split(aws.ToString(in.LogStreamName), "/")
	if len(stream) >= 3 {
		name, id := stream[len(stream)-2], stream[len(stream)-1]
		for _, t := range s.order {
			if t.id() != id {
				continue
			}
			for _, c := range t.definition.ContainerDefinitions {
				if *c.Name == name && logsTo(c, aws.ToString(in.LogGroupName), strings.Join(stream[:len(stream)-2], "/")) {
					return events(t.logs[name], in), nil
				}
			}
		}
	}
	return nil, refuse("ResourceNotFoundException", "The specified log stream does not exist.")
}

func logsTo(c types.ContainerDefinition, group, prefix string) bool {
	log := c.LogConfiguration
	return log != nil && log.LogDriver == types.LogDriverAwslogs && log.Options["awslogs-group"] == group && log.Options["awslogs-stream-prefix"] == prefix
}

func events(lines []string, in *cloudwatchlogs.GetLogEventsInput) *cloudwatchlogs.GetLogEventsOutput {
	if limit := int(aws.ToInt32(in.Limit)); limit > 0 && len(lines) > limit {
		if aws.ToBool(in.StartFromHead) {
			lines = lines[:limit]
		} else {
			lines = lines[len(lines)-limit:]
		}
	}
	out := &cloudwatchlogs.GetLogEventsOutput{NextForwardToken: aws.String("f/0"), NextBackwardToken: aws.String("b/0")}
	for _, line := range lines {
		out.Events = append(out.Events, logstypes.OutputLogEvent{Message: aws.String(line), Timestamp: aws.Int64(time.Now().UnixMilli())})
	}
	return out
}

package ecs

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"bellhop/activities"
)

// How messages are taken off the queue.
const (
	messagesAtOnce = 10
	// longPoll is how many seconds the queue waits for a message.
	longPoll = 20
)

// receive takes events off the queue and has the services looked at that they are about, until ctx ends or the queue
// cannot be read, which is an error of the configuration. What they say is not believed: they come twice, late, in any
// order, or never.
func (p *Provider) receive(ctx context.Context, c *clients) error {
	queue := aws.String(p.config.EventsQueueURL)
	for ctx.Err() == nil {
		answer, err := c.sqs.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
			QueueUrl: queue, MaxNumberOfMessages: messagesAtOnce, WaitTimeSeconds: longPoll,
		})
		if failure := activities.Ended(classify(err, "receive events from the queue")); failure != nil {
			return failure
		}
		if err != nil || len(answer.Messages) == 0 {
			// A queue that answers at once, with nothing or an error, is left in peace for a while. The poller goes on.
			select {
			case <-time.After(time.Duration(p.config.PollMin)):
			case <-ctx.Done():
			}
			continue
		}
		done := make([]types.DeleteMessageBatchRequestEntry, len(answer.Messages))
		for i, message := range answer.Messages {
			if what, ours := parseEvent(aws.ToString(message.Body)); ours {
				p.hint(what)
			}
			done[i] = types.DeleteMessageBatchRequestEntry{Id: message.MessageId, ReceiptHandle: message.ReceiptHandle}
		}
		_, err = c.sqs.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: queue, Entries: done})
		if failure := activities.Ended(classify(err, "delete events from the queue")); failure != nil {
			return failure
		}
	}
	return ctx.Err()
}

// event is as much of an EventBridge event of ECS as tells what it is about.
type event struct {
	Resources []string `json:"resources"`
	Detail    struct {
		Group     string `json:"group"`
		StartedBy string `json:"startedBy"`
	} `json:"detail"`
}

// parseEvent says what an event is about: the service that it names as its resource or as its task's group, or tasks that
// run once.
func parseEvent(body string) (hint, bool) {
	var said event
	if err := json.Unmarshal([]byte(body), &said); err != nil {
		return hint{}, false // somebody else's message
	}
	if said.Detail.StartedBy == startedBy {
		return hint{tasks: true}, true
	}
	if name, ok := strings.CutPrefix(said.Detail.Group, "service:"); ok {
		return hint{service: name}, strings.HasPrefix(name, prefix)
	}
	for _, arn := range said.Resources {
		if name := lastPart(arn); strings.Contains(arn, ":service/") && strings.HasPrefix(name, prefix) {
			return hint{service: name}, true
		}
	}
	return hint{}, false
}

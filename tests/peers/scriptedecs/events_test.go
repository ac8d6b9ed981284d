package scriptedecs_test

import (
	"encoding/json"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"bellhop/tests/peers/scriptedecs"
)

func TestEventsComeThroughTheQueue(t *testing.T) {
	a := setup(t, scriptedecs.Options{Events: &scriptedecs.Events{Duplicates: true, Disorder: true}})
	queue := sqs.New(sqs.Options{
		BaseEndpoint: &a.server.URL, Region: "eu-central-1", Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""), Retryer: aws.NopRetryer{},
	})
	service := a.created("web", "ready")
	times := map[string]int{} // by the event's id
	completed := false
	a.until("all events", func() bool {
		out, err := queue.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &a.server.QueueURL, MaxNumberOfMessages: 10, WaitTimeSeconds: 1})
		if err != nil {
			t.Fatal(err)
		}
		var done []sqstypes.DeleteMessageBatchRequestEntry
		for _, message := range out.Messages {
			var event struct {
				ID         string `json:"id"`
				Source     string `json:"source"`
				DetailType string `json:"detail-type"`
				Detail     struct {
					EventName    string `json:"eventName"`
					DeploymentID string `json:"deploymentId"`
				} `json:"detail"`
			}
			if err := json.Unmarshal([]byte(*message.Body), &event); err != nil || event.Source != "aws.ecs" {
				t.Fatalf("%v: %s", err, *message.Body)
			}
			times[event.ID]++
			completed = completed || event.DetailType == "ECS Deployment State Change" &&
				event.Detail.EventName == "SERVICE_DEPLOYMENT_COMPLETED" && event.Detail.DeploymentID == *service.Deployments[0].Id
			done = append(done, sqstypes.DeleteMessageBatchRequestEntry{Id: message.MessageId, ReceiptHandle: message.ReceiptHandle})
		}
		if len(done) > 0 {
			if _, err := queue.DeleteMessageBatch(t.Context(), &sqs.DeleteMessageBatchInput{QueueUrl: &a.server.QueueURL, Entries: done}); err != nil {
				t.Fatal(err)
			}
		}
		return completed && len(out.Messages) == 0
	})
	for id, n := range times {
		if n != 2 {
			t.Errorf("event %s came %d times, want 2", id, n)
		}
	}
}

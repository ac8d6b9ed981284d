package scriptedecs

import (
	"crypto/md5" //nolint:gosec // SQS says it
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// Events say how the events of the cluster reach the queue.
type Events struct {
	// Duplicates lets every message come twice.
	Duplicates bool
	// Disorder lets messages come out of order.
	Disorder bool
	// LoseEvery lets every nth message be lost; 1 loses all. 0: none.
	LoseEvery int
}

// message is one in the queue.
type message struct {
	id, body string
	receipt  string
	// hidden is until when nobody else gets it.
	hidden time.Time
}

// emit puts an event into the queue, as EventBridge would.
func (s *Server) emit(kind string, resources []string, detail any) {
	how := s.options.Events
	if how == nil {
		return
	}
	s.emitted++
	if how.LoseEvery > 0 && s.emitted%how.LoseEvery == 0 {
		return
	}
	body, err := json.Marshal(map[string]any{
		"version": "0", "id": s.hex(), "detail-type": kind, "source": "aws.ecs", "account": s.options.Account,
		"time": time.Now().UTC().Format(time.RFC3339), "region": s.options.Region, "resources": resources, "detail": detail,
	})
	if err != nil {
		panic(err) // it is made of strings and numbers
	}
	times := 1
	if how.Duplicates {
		times = 2
	}
	for range times {
		at := len(s.queue)
		if how.Disorder {
			at = s.random.IntN(at + 1)
		}
		s.queue = slices.Insert(s.queue, at, &message{id: s.hex(), body: string(body)})
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// emitTask tells that a task changed. The detail is the task, as DescribeTasks tells it, with its times as text.
func (s *Server) emitTask(t *task) {
	if s.options.Events == nil {
		return
	}
	containers := []map[string]any{}
	for _, c := range t.Containers {
		container := map[string]any{"containerArn": c.ContainerArn, "name": c.Name, "image": c.Image, "lastStatus": c.LastStatus, "taskArn": c.TaskArn}
		if c.ExitCode != nil {
			container["exitCode"] = *c.ExitCode
		}
		if c.Reason != nil {
			container["reason"] = *c.Reason
		}
		containers = append(containers, container)
	}
	detail := map[string]any{
		"clusterArn": t.ClusterArn, "taskArn": t.TaskArn, "taskDefinitionArn": t.TaskDefinitionArn, "group": t.Group,
		"startedBy": t.StartedBy, "lastStatus": t.LastStatus, "desiredStatus": t.DesiredStatus, "launchType": t.LaunchType,
		"version": t.Version, "containers": containers, "createdAt": t.CreatedAt.UTC().Format(time.RFC3339Nano),
		"updatedAt": time.Now().UTC().Format(time.RFC3339Nano),
	}
	if t.StopCode != "" {
		detail["stopCode"], detail["stoppedReason"] = t.StopCode, t.StoppedReason
	}
	s.emit("ECS Task State Change", []string{*t.TaskArn}, detail)
}

func (s *Server) emitDeployment(d *deployment, name, reason string) {
	kind := "INFO"
	if name == "SERVICE_DEPLOYMENT_FAILED" {
		kind = "ERROR"
	}
	s.emit("ECS Deployment State Change", []string{*d.service.ServiceArn}, map[string]any{
		"eventType": kind, "eventName": name, "deploymentId": d.Id, "updatedAt": time.Now().UTC().Format(time.RFC3339), "reason": reason,
	})
}

func (s *Server) emitAction(svc *service, name, reason string) {
	s.emit("ECS Service Action", []string{*svc.ServiceArn}, map[string]any{
		"eventType": "WARN", "eventName": name, "clusterArn": svc.ClusterArn, "reason": reason,
		"createdAt": time.Now().UTC().Format(time.RFC3339),
	})
}

// receiveMessage waits for messages, and so is not called with the server locked.
func (s *Server) receiveMessage(body []byte) ([]byte, error) {
	in := &sqs.ReceiveMessageInput{}
	if err := read(body, in); err != nil {
		return nil, refuse("SerializationException", "%s", err)
	}
	if aws.ToString(in.QueueUrl) != s.QueueURL {
		return nil, refuse("com.amazonaws.sqs#QueueDoesNotExist", "The specified queue does not exist.")
	}
	if in.MaxNumberOfMessages > 10 || in.WaitTimeSeconds > 20 {
		return nil, refuse("com.amazonaws.sqs#InvalidParameterValue", "At most 10 messages, and 20 seconds.")
	}
	until := time.After(time.Duration(in.WaitTimeSeconds) * time.Second)
	for {
		answer, changed, err := s.take(in)
		if err != nil || len(answer) > 0 {
			return answer, err
		}
		select {
		case <-changed:
		case <-until:
			return write(&sqs.ReceiveMessageOutput{})
		}
	}
}

// take answers a request for messages; without any it is told what to wait for, unless nobody wants to.
func (s *Server) take(in *sqs.ReceiveMessageInput) ([]byte, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	visibility := 30 * time.Second
	if in.VisibilityTimeout > 0 {
		visibility = time.Duration(in.VisibilityTimeout) * time.Second
	}
	out := &sqs.ReceiveMessageOutput{}
	for _, m := range s.queue {
		if len(out.Messages) == int(max(in.MaxNumberOfMessages, 1)) {
			break
		}
		if time.Now().Before(m.hidden) {
			continue
		}
		m.hidden, m.receipt = time.Now().Add(visibility), s.hex()
		sum := md5.Sum([]byte(m.body)) //nolint:gosec // as above
		out.Messages = append(out.Messages, sqstypes.Message{
			MessageId: aws.String(m.id), ReceiptHandle: aws.String(m.receipt), Body: aws.String(m.body), MD5OfBody: aws.String(hex.EncodeToString(sum[:])),
		})
	}
	if len(out.Messages) == 0 && !s.closed && in.WaitTimeSeconds > 0 {
		return nil, s.changed, nil
	}
	answer, err := write(out)
	return answer, nil, err
}

func (s *Server) forgetMessage(receipt *string) {
	s.queue = slices.DeleteFunc(s.queue, func(m *message) bool { return m.receipt != "" && m.receipt == aws.ToString(receipt) })
}

func (s *Server) deleteMessage(in *sqs.DeleteMessageInput) (*sqs.DeleteMessageOutput, error) {
	s.forgetMessage(in.ReceiptHandle)
	return &sqs.DeleteMessageOutput{}, nil
}

func (s *Server) deleteMessageBatch(in *sqs.DeleteMessageBatchInput) (*sqs.DeleteMessageBatchOutput, error) {
	if n := len(in.Entries); n == 0 || n > 10 {
		return nil, refuse("com.amazonaws.sqs#TooManyEntriesInBatchRequest", "A batch has 1 to 10 entries.")
	}
	out := &sqs.DeleteMessageBatchOutput{}
	for _, entry := range in.Entries {
		s.forgetMessage(entry.ReceiptHandle)
		out.Successful = append(out.Successful, sqstypes.DeleteMessageBatchResultEntry{Id: entry.Id})
	}
	return out, nil
}

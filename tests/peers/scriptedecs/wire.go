package scriptedecs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ecs/schemas"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/aws/smithy-go/transport/http/protocol/awsjson"
)

// refusal is an error as AWS words it.
type refusal struct {
	code, message string
	resources     []string // of a ConflictException
}

func (r *refusal) Error() string { return r.code + ": " + r.message }

func refuse(code, format string, args ...any) error {
	return &refusal{code: code, message: fmt.Sprintf(format, args...)}
}

// invalid and client are the two ways in which ECS says that a request is wrong.
func invalid(format string, args ...any) error {
	return refuse("InvalidParameterException", format, args...)
}
func client(format string, args ...any) error { return refuse("ClientException", format, args...) }

// operation answers one request: its body in, the answer's body out.
type operation func(s *Server, body []byte) ([]byte, error)

// read reads a request. The SDK's types of requests are named as the wire's fields are, but for the case; what they do not
// know is an error, so that nothing that is asked is passed over.
func read(body []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

// The SDK's implementation of the protocol, turned around: what it writes as a request is an answer here. Of the schema it
// only wants to know that there is something to write; the types know their own fields.
var (
	protocol = awsjson.New11(schemas.AmazonEC2ContainerServiceV20141113)
	anything = smithy.NewOperationSchema(schemas.DescribeServices, schemas.DescribeServicesRequest, schemas.DescribeServicesResponse)
)

func write(answer smithy.Serializable) ([]byte, error) {
	message, _ := smithyhttp.NewStackRequest().(*smithyhttp.Request)
	if err := protocol.SerializeRequest(context.Background(), anything, answer, message); err != nil {
		return nil, err
	}
	return io.ReadAll(message.GetStream())
}

// locked makes an operation of a function that is called with the server locked.
func locked[In any, Out smithy.Serializable](do func(*Server, *In) (Out, error)) operation {
	return func(s *Server, body []byte) ([]byte, error) {
		in := new(In)
		if err := read(body, in); err != nil {
			return nil, refuse("SerializationException", "%s", err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		out, err := do(s, in)
		if err != nil {
			return nil, err
		}
		return write(out) // while locked: the answer is made of what changes
	}
}

var targets = map[string]string{
	"AmazonEC2ContainerServiceV20141113": "ecs",
	"Logs_20140328":                      "logs",
	"AmazonSQS":                          "sqs",
}

var operations = map[string]operation{
	"ecs:CreateService":              locked((*Server).createService),
	"ecs:UpdateService":              locked((*Server).updateService),
	"ecs:DeleteService":              locked((*Server).deleteService),
	"ecs:DescribeServices":           locked((*Server).describeServices),
	"ecs:ListServices":               locked((*Server).listServices),
	"ecs:ListServiceDeployments":     locked((*Server).listServiceDeployments),
	"ecs:DescribeServiceDeployments": locked((*Server).describeServiceDeployments),
	"ecs:DescribeServiceRevisions":   locked((*Server).describeServiceRevisions),
	"ecs:ContinueServiceDeployment":  locked((*Server).continueServiceDeployment),
	"ecs:StopServiceDeployment":      locked((*Server).stopServiceDeployment),
	"ecs:RunTask":                    locked((*Server).runTask),
	"ecs:StopTask":                   locked((*Server).stopTask),
	"ecs:DescribeTasks":              locked((*Server).describeTasks),
	"ecs:ListTasks":                  locked((*Server).listTasks),
	"ecs:RegisterTaskDefinition":     locked((*Server).registerTaskDefinition),
	"ecs:DescribeTaskDefinition":     locked((*Server).describeTaskDefinition),
	"ecs:DeregisterTaskDefinition":   locked((*Server).deregisterTaskDefinition),
	"ecs:DeleteTaskDefinitions":      locked((*Server).deleteTaskDefinitions),
	"ecs:ListTaskDefinitions":        locked((*Server).listTaskDefinitions),
	"ecs:ListTaskDefinitionFamilies": locked((*Server).listTaskDefinitionFamilies),
	"ecs:TagResource":                locked((*Server).tagResource),
	"ecs:UntagResource":              locked((*Server).untagResource),
	"ecs:ListTagsForResource":        locked((*Server).listTagsForResource),
	"ecs:DescribeClusters":           locked((*Server).describeClusters),
	"logs:GetLogEvents":              locked((*Server).getLogEvents),
	"sqs:ReceiveMessage":             (*Server).receiveMessage,
	"sqs:DeleteMessage":              locked((*Server).deleteMessage),
	"sqs:DeleteMessageBatch":         locked((*Server).deleteMessageBatch),
}

// ServeHTTP is the server.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the caller is gone
	}
	prefix, name, found := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	if !found {
		s.serveSTS(w, r, body)
		return
	}
	action := targets[prefix] + ":" + name
	do := operations[action]
	fault := s.admit(action, r, body)
	var answer []byte
	switch {
	case fault != nil && fault.refusal != nil:
		err = fault.refusal
	case do == nil:
		err = refuse("UnknownOperationException", "%s is not played", action)
	default:
		answer, err = do(s, body)
	}
	if fault != nil && fault.lost {
		panic(http.ErrAbortHandler) // it was done, and nobody hears of it
	}
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	s.mu.Lock()
	w.Header().Set("X-Amzn-Requestid", s.hex())
	s.mu.Unlock()
	if err != nil {
		status, said := told(err)
		w.WriteHeader(status)
		answer = said
	}
	_, _ = w.Write(answer) // the caller may have hung up
}

// told is an error on the wire.
func told(err error) (int, []byte) {
	var r *refusal
	if !errors.As(err, &r) {
		r = &refusal{code: "ServerException", message: err.Error()}
	}
	said := map[string]any{"__type": r.code, "message": r.message}
	if r.resources != nil {
		said["resourceIds"] = r.resources
	}
	body, err := json.Marshal(said)
	if err != nil {
		panic(err) // strings can be told
	}
	status := http.StatusBadRequest
	if r.code == "ServerException" {
		status = http.StatusInternalServerError
	}
	return status, body
}

package peers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sfn"
)

// StepFunctions is a Step Functions engine. What is in it is lost with it.
type StepFunctions struct {
	*Process
	// Endpoint is its URL. It takes any credentials.
	Endpoint string
	// Client speaks to it.
	Client *sfn.Client
}

// StepFunctionsRegion is where the engine says it is.
const StepFunctionsRegion = "eu-central-1"

// ErrNoStepFunctions says that there is no engine to start.
var ErrNoStepFunctions = errors.New("the Step Functions engine is not installed; run: make tools")

// StartStepFunctions starts a Step Functions engine that keeps its files in a folder.
func StartStepFunctions(ctx context.Context, folder string) (*StepFunctions, error) {
	python := filepath.Join(Root(), ".tools", "bin", "stepfunctions", "bin", "python")
	if _, err := os.Stat(python); err != nil {
		return nil, ErrNoStepFunctions
	}
	ports, err := FreePorts(1)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	process, err := Start(ctx, python, []string{filepath.Join(Root(), "tests", "peers", "stepfunctions.py")},
		[]string{"HOME=" + folder, "FILESYSTEM_ROOT=" + folder, "TMPDIR=" + folder, "GATEWAY_LISTEN=" + ports[0], "LOCALSTACK_HOST=" + ports[0]},
		func(line string) bool { return line == "Ready." })
	if err != nil {
		return nil, err
	}
	s := &StepFunctions{Process: process, Endpoint: "http://" + ports[0]}
	s.Client = sfn.New(sfn.Options{
		BaseEndpoint: aws.String(s.Endpoint), Region: StepFunctionsRegion,
		Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	})
	return s, nil
}

// StepFunctionsFor starts a Step Functions engine that lives as long as the test.
func StepFunctionsFor(tb testing.TB) *StepFunctions {
	tb.Helper()
	s, err := StartStepFunctions(tb.Context(), tb.TempDir())
	if errors.Is(err, ErrNoStepFunctions) {
		Missing(tb, err.Error())
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Kill)
	return s
}

// AWSEnvironment gives a process credentials that are worth nothing, and nothing of the machine's own configuration.
func AWSEnvironment() []string {
	return []string{
		"AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_SESSION_TOKEN=", "AWS_PROFILE=", "AWS_REGION=", "AWS_DEFAULT_REGION=",
		"AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull, "AWS_EC2_METADATA_DISABLED=true",
	}
}

// Activity makes an activity, or finds it, and returns its ARN.
func (s *StepFunctions) Activity(ctx context.Context, name string) (string, error) {
	made, err := s.Client.CreateActivity(ctx, &sfn.CreateActivityInput{Name: &name})
	if err != nil {
		return "", err
	}
	return *made.ActivityArn, nil
}

// StateMachine makes a state machine of a definition in Amazon States Language and returns its ARN.
func (s *StepFunctions) StateMachine(ctx context.Context, name, definition string) (string, error) {
	made, err := s.Client.CreateStateMachine(ctx, &sfn.CreateStateMachineInput{
		Name: &name, Definition: &definition, RoleArn: aws.String("arn:aws:iam::000000000000:role/tests"),
	})
	if err != nil {
		return "", err
	}
	return *made.StateMachineArn, nil
}

// Run starts an execution of a state machine and returns its ARN.
func (s *StepFunctions) Run(ctx context.Context, machine, name, input string) (string, error) {
	started, err := s.Client.StartExecution(ctx, &sfn.StartExecutionInput{StateMachineArn: &machine, Name: &name, Input: &input})
	if err != nil {
		return "", err
	}
	return *started.ExecutionArn, nil
}

// Events tells the history of an execution, for a person: one line an event.
func (s *StepFunctions) Events(ctx context.Context, execution string) string {
	history, err := s.Client.GetExecutionHistory(ctx, &sfn.GetExecutionHistoryInput{ExecutionArn: &execution, MaxResults: 1000})
	if err != nil {
		return err.Error()
	}
	var lines strings.Builder
	for _, event := range history.Events {
		fmt.Fprintf(&lines, "%s", event.Type)
		if entered := event.StateEnteredEventDetails; entered != nil {
			fmt.Fprintf(&lines, " %s", aws.ToString(entered.Name))
		}
		if failed := event.ActivityFailedEventDetails; failed != nil {
			fmt.Fprintf(&lines, " %s", aws.ToString(failed.Error))
		}
		lines.WriteString("\n")
	}
	return lines.String()
}

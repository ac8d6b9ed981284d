package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sfn"
	sfntypes "github.com/aws/aws-sdk-go-v2/service/sfn/types"
	"github.com/stretchr/testify/require"

	"bellhop"
	"bellhop/tests/peers"
)

// states is a Step Functions engine with an activity "compute".
type states struct {
	*bench
	engine   *peers.StepFunctions
	activity string
}

// stepFunctionsConfig is the part of a worker's configuration that a test of Step Functions needs, where entry is the rest of the
// activity's entry.
func stepFunctionsConfig(endpoint, activity, entry string) string {
	return fmt.Sprintf(`targets:
  machines: {type: stepfunctions, region: %s, endpoint: '%s'}
step_functions_activities:
- {arn: '%s', target: machines%s}
`, peers.StepFunctionsRegion, endpoint, activity, entry)
}

// setupStates starts an engine and a Temporal server; workers are the test's business.
func setupStates(t *testing.T) *states {
	t.Helper()
	s := &states{bench: setup(t), engine: peers.StepFunctionsFor(t)}
	var err error
	s.activity, err = s.engine.Activity(s.ctx, "compute")
	require.NoError(t, err)
	return s
}

// workThrough starts a worker that knows the engine under an endpoint.
func (s *states) workThrough(endpoint, entry string) *peers.Worker {
	s.Helper()
	return s.work(s.served(noBackstop, stepFunctionsConfig(endpoint, s.activity, entry)), peers.AWSEnvironment()...)
}

// example reads a definition out of the documentation and fills in its placeholders. HTTP tasks, which the engine does not
// have, become tasks of an activity that the test carries out.
func (s *states) example(name string, fill map[string]string) string {
	s.Helper()
	text, err := os.ReadFile(filepath.Join(peers.Root(), "docs", "examples", "stepfunctions", name))
	require.NoError(s, err)
	filled := string(text)
	for placeholder, value := range fill {
		filled = strings.ReplaceAll(filled, "${"+placeholder+"}", value)
	}
	require.NotContains(s, filled, "${", "a placeholder is left")
	if strings.Contains(filled, "arn:aws:states:::http:invoke") {
		web, err := s.engine.Activity(s.ctx, "http")
		require.NoError(s, err)
		filled = strings.ReplaceAll(filled, "arn:aws:states:::http:invoke", web)
	}
	return filled
}

// carryOutHTTP does what Step Functions does for an HTTP task, until the test ends.
func (s *states) carryOutHTTP() {
	s.Helper()
	web, err := s.engine.Activity(s.ctx, "http")
	require.NoError(s, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.ctx))
	done := make(chan struct{})
	s.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			task, err := s.engine.Client.GetActivityTask(ctx, &sfn.GetActivityTaskInput{ActivityArn: &web})
			if err != nil || task.TaskToken == nil {
				continue
			}
			output, status, err := carryOut(ctx, *task.Input)
			switch {
			case err != nil:
				_, err = s.engine.Client.SendTaskFailure(ctx, &sfn.SendTaskFailureInput{
					TaskToken: task.TaskToken, Error: aws.String("States.Http.Socket"), Cause: aws.String(err.Error()),
				})
			case status >= http.StatusBadRequest:
				_, err = s.engine.Client.SendTaskFailure(ctx, &sfn.SendTaskFailureInput{
					TaskToken: task.TaskToken, Error: aws.String(fmt.Sprintf("States.Http.StatusCode.%d", status)), Cause: &output,
				})
			default:
				_, err = s.engine.Client.SendTaskSuccess(ctx, &sfn.SendTaskSuccessInput{TaskToken: task.TaskToken, Output: &output})
			}
			if err != nil && ctx.Err() == nil {
				s.Errorf("an HTTP task cannot be ended: %s", err)
			}
		}
	}()
}

func carryOut(ctx context.Context, input string) (output string, status int, err error) {
	var task struct {
		Method, ApiEndpoint string //nolint:revive,staticcheck // Amazon's names
		QueryParameters     map[string]string
		RequestBody         json.RawMessage
	}
	if err := json.Unmarshal([]byte(input), &task); err != nil {
		return "", 0, err
	}
	query := url.Values{}
	for name, value := range task.QueryParameters {
		query.Set(name, value)
	}
	request, err := http.NewRequestWithContext(ctx, task.Method, task.ApiEndpoint+"?"+query.Encode(), bytes.NewReader(task.RequestBody))
	if err != nil {
		return "", 0, err
	}
	request.Header.Set("Authorization", "Bearer "+acme) // what the connection of the task does
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", 0, err
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return "", 0, err
	}
	text, err := json.Marshal(map[string]any{"StatusCode": response.StatusCode, "ResponseBody": json.RawMessage(body)})
	return string(text), response.StatusCode, err
}

// machine makes a state machine.
func (s *states) machine(name, definition string) string {
	s.Helper()
	arn, err := s.engine.StateMachine(s.ctx, name, definition)
	require.NoError(s, err)
	return arn
}

// begin starts an execution.
func (s *states) begin(machine, name, input string) string {
	s.Helper()
	execution, err := s.engine.Run(s.ctx, machine, name, input)
	require.NoError(s, err)
	return execution
}

// ended waits for the end of an execution.
func (s *states) ended(execution string) *sfn.DescribeExecutionOutput {
	s.Helper()
	var found *sfn.DescribeExecutionOutput
	s.Cleanup(func() {
		if s.Failed() {
			s.Logf("the execution %s:\n%s", execution, s.engine.Events(context.WithoutCancel(s.ctx), execution))
		}
	})
	s.until("the execution "+execution+" has ended", func() bool {
		var err error
		found, err = s.engine.Client.DescribeExecution(s.ctx, &sfn.DescribeExecutionInput{ExecutionArn: &execution})
		require.NoError(s, err)
		return found.Status != sfntypes.ExecutionStatusRunning
	})
	return found
}

// task is a state machine of one task of the activity "compute". More is what else its state has.
func (s *states) task(more string) string {
	return fmt.Sprintf(`{"StartAt": "Compute", "States": {"Compute": {"Type": "Task", "Resource": %q%s, "End": true}}}`, s.activity, more)
}

// one waits until there is an operation that fits, and returns it.
func (s *states) one(filter bellhop.Filter) bellhop.Item {
	s.Helper()
	var items []bellhop.Item
	s.until(fmt.Sprintf("there is one operation for %+v", filter), func() bool {
		var err error
		items, _, err = s.ops.List(s.ctx, filter, 10, nil)
		require.NoError(s, err)
		return len(items) == 1
	})
	return items[0]
}

// TestStepFunctionsExamples runs the state machines of the documentation.
func TestStepFunctionsExamples(t *testing.T) {
	t.Parallel()
	s := setupStates(t)
	api := "http://" + s.workThrough(s.engine.Endpoint, ", heartbeat: 30s").API
	s.carryOutHTTP()
	fill := map[string]string{
		"ActivityArn": s.activity, "Provider": "simulated", "Target": "machines", "StatusEndpoint": api,
		"ConnectionArn": "arn:aws:events:eu-central-1:000000000000:connection/bellhop/1",
	}
	fill["StartStateMachineArn"] = s.machine("start", s.example("start.json", fill))
	activity := s.machine("activity", s.example("activity.json", fill))
	fallback := s.machine("fallback", s.example("fallback.json", fill))
	// The patience of the example, shortened. The operation must have been started by then, or there is nothing to poll.
	impatient := s.machine("impatient", strings.Replace(s.example("fallback.json", fill), `"TimeoutSeconds": 300`, `"TimeoutSeconds": 15`, 1))
	token := s.machine("task-token", s.example("task-token.json", fill))
	const input = `{"tenant_id": "acme", "resource": %q, "image": "nginx:1.27", "provider_config": %s}`

	for _, row := range []struct {
		name, machine, script, reason string
		status                        sfntypes.ExecutionStatus
		failure, output               string
	}{
		{
			"activity-succeeds", activity, `{"ready_after": "300ms"}`, "the outcome is the state's result",
			sfntypes.ExecutionStatusSucceeded, "", `"event":"compute-provisioned"`,
		},
		{
			"activity-fails", activity, `{"fail": {"code": "IMAGE_PULL_FAILED"}}`, "its code is caught",
			sfntypes.ExecutionStatusFailed, "IMAGE_PULL_FAILED", "",
		},
		{
			"activity-needs-an-operator", activity, `{"fail": {"code": "PERMISSION_DENIED"}}`, "the cause is read for requires_intervention",
			sfntypes.ExecutionStatusFailed, "PERMISSION_DENIED", "",
		},
		{
			"activity-is-invalid", activity, `{"speed": 3}`, "the provider refuses its configuration",
			sfntypes.ExecutionStatusFailed, "INVALID_OPERATION", "",
		},
		{
			"fallback-in-time", fallback, `{"ready_after": "300ms"}`, "nothing is polled",
			sfntypes.ExecutionStatusSucceeded, "", `"event":"compute-provisioned"`,
		},
		{
			"fallback-late", impatient, `{"ready_after": "30s"}`, "the callback comes too late, the status tells",
			sfntypes.ExecutionStatusSucceeded, "", `"event":"compute-provisioned"`,
		},
		{
			"fallback-late-failure", impatient, `{"fail": {"code": "OUT_OF_MEMORY", "after": "30s"}}`, "the status tells of failures too",
			sfntypes.ExecutionStatusFailed, "OUT_OF_MEMORY", "",
		},
		{
			"token-succeeds", token, `{"ready_after": "300ms"}`, "the token was given away over HTTP",
			sfntypes.ExecutionStatusSucceeded, "", `"event":"compute-provisioned"`,
		},
		{
			"token-retryable", token, `{"fail": {"code": "CAPACITY_UNAVAILABLE"}}`, "a failure is a result, and its flag is branched on",
			sfntypes.ExecutionStatusSucceeded, "", `"advice":"try again when there is room"`,
		},
		{
			"token-fails", token, `{"fail": {"code": "CONTAINER_EXITED"}}`, "a failure is a result",
			sfntypes.ExecutionStatusFailed, "CONTAINER_EXITED", "",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := s.in(t)
			execution := s.begin(row.machine, row.name, fmt.Sprintf(input, row.name, row.script))
			ended := s.ended(execution)
			told := fmt.Sprintf("%s: %s %s", row.reason, aws.ToString(ended.Error), aws.ToString(ended.Cause))
			require.Equal(t, row.status, ended.Status, told)
			require.Equal(t, row.failure, aws.ToString(ended.Error), told)
			require.Contains(t, aws.ToString(ended.Output), row.output, told)
			if strings.HasPrefix(row.name, "fallback-late") {
				id := s.one(bellhop.Filter{Tenant: "acme", Resource: row.name}).OperationID
				s.until("the callback found nobody", func() bool {
					return s.status(id).Callbacks[0].State == bellhop.ReceiptUndeliverable
				})
			}
		})
	}
}

// in is the same for a test within the test.
func (s *states) in(t *testing.T) *states {
	t.Helper()
	b := *s.bench
	b.T, b.ctx = t, t.Context()
	within := *s
	within.bench = &b
	return &within
}

// TestStepFunctionsTasks has tasks of an activity end in every way.
func TestStepFunctionsTasks(t *testing.T) {
	t.Parallel()
	s := setupStates(t)
	s.workThrough(s.engine.Endpoint, ", heartbeat: 1s, verb: provision, tenant: acme")
	operation := func(resource, script string) string {
		return fmt.Sprintf(`{"resource": %q, "provider": "simulated", "spec": {"image": "nginx:1.27"}, "provider_config": %s}`, resource, script)
	}
	plain := s.machine("plain", s.task(""))

	t.Run("RetryIsANewOperation", func(t *testing.T) {
		t.Parallel()
		s := s.in(t)
		again := s.machine("again", s.task(`, "Retry": [{"ErrorEquals": ["PROVIDER_THROTTLED"], "IntervalSeconds": 1, "MaxAttempts": 2}]`))
		ended := s.ended(s.begin(again, "again", operation("again", `{"fail": {"code": "PROVIDER_THROTTLED"}}`)))
		require.Equal(t, "PROVIDER_THROTTLED", aws.ToString(ended.Error))
		var items []bellhop.Item
		s.until("each try is an operation", func() bool {
			var err error
			items, _, err = s.ops.List(s.ctx, bellhop.Filter{Tenant: "acme", Resource: "again"}, 10, nil)
			require.NoError(t, err)
			return len(items) == 3
		})
		for _, item := range items {
			s.until("each told its own try", func() bool { return s.status(item.OperationID).Callbacks[0].State == bellhop.ReceiptAcknowledged })
		}
	})
	t.Run("EveryFaultIsNamed", func(t *testing.T) {
		t.Parallel()
		s := s.in(t)
		ended := s.ended(s.begin(plain, "faults", `{"tenant_id": "other", "provider": "simulated", "operation_id": "a b", "colour": "red",
			"callbacks": [{"target": "machines", "states": ["succeeded"]}]}`))
		require.Equal(t, "INVALID_OPERATION", aws.ToString(ended.Error))
		var outcome bellhop.Outcome
		require.NoError(t, json.Unmarshal([]byte(aws.ToString(ended.Cause)), &outcome), aws.ToString(ended.Cause))
		for _, path := range []string{"tenant_id", "operation_id", "colour", "callbacks[0].states", "spec.image"} {
			require.Contains(t, outcome.Error.Evidence, path)
		}
		require.Equal(t, bellhop.Failed, outcome.State)
		require.False(t, outcome.Error.Retryable)
	})
	t.Run("AnIDIsTakenOnce", func(t *testing.T) {
		t.Parallel()
		s := s.in(t)
		named := strings.Replace(operation("named", `{}`), "{", `{"operation_id": "named", `, 1)
		require.Equal(t, sfntypes.ExecutionStatusSucceeded, s.ended(s.begin(plain, "named", named)).Status)
		ended := s.ended(s.begin(plain, "named-again", named))
		require.Equal(t, "OPERATION_CONFLICT", aws.ToString(ended.Error))
		require.Contains(t, aws.ToString(ended.Cause), "$$.State.RetryCount")
	})
	t.Run("FailureAsResult", func(t *testing.T) {
		t.Parallel()
		s := s.in(t)
		input := strings.Replace(operation("result", `{"fail": {"code": "OUT_OF_MEMORY"}}`), "{",
			`{"callbacks": [{"target": "machines", "failures": "result"}], `, 1)
		ended := s.ended(s.begin(plain, "result", input))
		require.Equal(t, sfntypes.ExecutionStatusSucceeded, ended.Status)
		require.Contains(t, aws.ToString(ended.Output), `"code":"OUT_OF_MEMORY"`)
	})
	t.Run("HeartbeatsKeepATask", func(t *testing.T) {
		t.Parallel()
		s := s.in(t)
		beating := s.machine("beating", s.task(`, "HeartbeatSeconds": 8`))
		ended := s.ended(s.begin(beating, "beating", operation("beating", `{"ready_after": "24s"}`)))
		require.Equal(t, sfntypes.ExecutionStatusSucceeded, ended.Status, "three times its heartbeat timeout")
	})
	t.Run("WhoeverStopsIsNotWaitedFor", func(t *testing.T) {
		t.Parallel()
		s := s.in(t)
		execution := s.begin(plain, "stopped", operation("stopped", `{"ready_after": "1h"}`))
		id := s.one(bellhop.Filter{Tenant: "acme", Resource: "stopped"}).OperationID
		_, err := s.engine.Client.StopExecution(s.ctx, &sfn.StopExecutionInput{ExecutionArn: &execution})
		require.NoError(t, err)
		s.until("the callback is undeliverable before the operation has ended", func() bool {
			return s.status(id).Callbacks[0].State == bellhop.ReceiptUndeliverable
		})
		require.Equal(t, bellhop.Running, s.status(id).State)
	})
	t.Run("AHeartbeatThatIsNotRelayedTimesOut", func(t *testing.T) {
		t.Parallel()
		s := s.in(t)
		input := strings.Replace(operation("silent", `{"ready_after": "10s"}`), "{",
			`{"callbacks": [{"target": "machines", "heartbeat": "1h"}], `, 1)
		silent := s.machine("silent", s.task(`, "HeartbeatSeconds": 1`))
		require.Equal(t, sfntypes.ExecutionStatusFailed, s.ended(s.begin(silent, "silent", input)).Status)
		id := s.one(bellhop.Filter{Tenant: "acme", Resource: "silent"}).OperationID
		s.until("the callback is undeliverable", func() bool {
			return s.status(id).Callbacks[0].State == bellhop.ReceiptUndeliverable
		})
		s.until("the operation goes on", func() bool { return s.status(id).State == bellhop.Succeeded })
	})
}

// lossy stands between a worker and the engine. It hands every call on; what becomes of the answer its hook decides.
type lossy struct {
	*httptest.Server
	hook atomic.Pointer[func(action string, again bool) fate]
	// tokens are those of tasks that were completed, or kept alive.
	tokens sync.Map
	// polls counts the polls for tasks that the engine holds open. A poll leaves it before its answer is handed on.
	polls atomic.Int64
}

// fate is what becomes of a call.
type fate int

const (
	passed fate = iota
	lost        // it was applied, and the connection broke
)

func newLossy(t *testing.T, endpoint string) *lossy {
	t.Helper()
	upstream, err := url.Parse(endpoint)
	require.NoError(t, err)
	proxy := &httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(upstream) },
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	l := &lossy{}
	// A poll stays open at the engine when the worker that asked for it dies, as it does when there is a network between.
	polling, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client hung up
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		var call struct {
			TaskToken string `json:"taskToken"`
		}
		again := false
		if json.Unmarshal(body, &call) == nil && call.TaskToken != "" {
			_, again = l.tokens.LoadOrStore(call.TaskToken, true)
		}
		action := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AWSStepFunctions.")
		decide := passed
		if hook := l.hook.Load(); hook != nil {
			decide = (*hook)(action, again)
		}
		if action == "GetActivityTask" {
			l.polls.Add(1)
			answer := httptest.NewRecorder()
			proxy.ServeHTTP(answer, r.WithContext(polling))
			l.polls.Add(-1)
			maps.Copy(w.Header(), answer.Header())
			w.WriteHeader(answer.Code)
			_, _ = w.Write(answer.Body.Bytes()) // the worker may be dead
			return
		}
		switch decide {
		case lost:
			proxy.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		case passed:
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() { cancel(); l.Close() })
	return l
}

// TestStepFunctionsAcknowledgementIsLost completes tasks, loses the first answer to every other one, and must neither lose
// nor double nor misreport one.
func TestStepFunctionsAcknowledgementIsLost(t *testing.T) {
	t.Parallel()
	s := setupStates(t)
	front := newLossy(t, s.engine.Endpoint)
	var applied atomic.Int64
	hook := func(action string, again bool) fate {
		if strings.HasPrefix(action, "SendTask") && !again && applied.Add(1)%2 == 1 {
			return lost
		}
		return passed
	}
	front.hook.Store(&hook)
	worker := s.workThrough(front.URL, ", verb: provision, polls: 4")
	machine := s.machine("lossy", s.task(""))
	n := count(10, 500)
	executions := make([]string, n)
	for i := range n {
		executions[i] = s.begin(machine, fmt.Sprintf("lossy-%d", i), fmt.Sprintf(`{"operation_id": "lossy-%d", "tenant_id": "acme", "resource": "lossy-%d",
			"provider": "simulated", "spec": {"image": "nginx:1.27"}}`, i, i))
	}
	presumed := 0
	for i, execution := range executions {
		ended := s.ended(execution)
		require.Equal(t, sfntypes.ExecutionStatusSucceeded, ended.Status)
		require.Contains(t, aws.ToString(ended.Output), fmt.Sprintf(`"callback_id":"lossy-%d/succeeded"`, i))
		id := fmt.Sprintf("lossy-%d", i)
		s.until(id+" is settled", func() bool { return s.status(id).Callbacks[0].State.Settled() })
		switch receipt := s.status(id).Callbacks[0]; receipt.State {
		case bellhop.ReceiptAcknowledged:
			require.Equal(t, 1, receipt.Attempts)
		case bellhop.ReceiptAckPresumed:
			require.GreaterOrEqual(t, receipt.Attempts, 2, receipt.LastError)
			presumed++
		default:
			t.Errorf("the receipt of %s is %+v", id, receipt)
		}
		require.Equal(t, 1, strings.Count(s.engine.Events(s.ctx, execution), "ActivitySucceeded"))
	}
	require.GreaterOrEqual(t, presumed, (n+1)/2, "every answer that was lost leaves a receipt that presumes")
	t.Logf("%d of %d answers were lost", presumed, n)
	metrics, err := http.Get("http://" + worker.Listen + "/metrics") //nolint:noctx // a test
	require.NoError(t, err)
	text, err := io.ReadAll(metrics.Body)
	require.NoError(t, errors.Join(err, metrics.Body.Close()))
	said, _, code := s.run("", "bellhop", "status", "lossy-0", "-o", "json")
	require.Zero(t, code)
	tokens := 0
	front.tokens.Range(func(token, _ any) bool {
		tokens++
		require.NotContains(t, said+string(text)+worker.Output(), token, "a token shows")
		return true
	})
	require.Equal(t, n, tokens)
}

// TestStepFunctionsWorkerDies kills the worker between the poll and the start, and while operations wait.
func TestStepFunctionsWorkerDies(t *testing.T) {
	t.Parallel()
	s := setupStates(t)
	front := newLossy(t, s.engine.Endpoint)
	worker := s.workThrough(front.URL, ", verb: provision, heartbeat: 1s, polls: 1")
	machine := s.machine("dying", s.task(`, "HeartbeatSeconds": 20, "Retry": [{"ErrorEquals": ["States.Timeout", "States.HeartbeatTimeout"], "IntervalSeconds": 1}]`))
	input := `{"tenant_id": "acme", "resource": %q, "provider": "simulated", "spec": {"image": "nginx:1.27"}, "provider_config": {"ready_after": "5s"}}`

	// It waits for longer than its state is patient, over the death of the worker.
	kept := s.machine("kept", s.task(`, "HeartbeatSeconds": 20`))
	waiting := s.begin(kept, "waiting", strings.Replace(fmt.Sprintf(input, "waiting"), "5s", "40s", 1))
	s.one(bellhop.Filter{Tenant: "acme", Resource: "waiting"})
	s.until("the worker polls for another task", func() bool { return front.polls.Load() == 1 })
	worker.Kill()
	// The engine still holds the dead worker's poll open: the poll takes the next task, and no worker knows of it.
	swallowed := s.begin(machine, "swallowed", fmt.Sprintf(input, "swallowed"))
	s.until("a poll of the dead worker has taken the task", func() bool {
		return strings.Contains(s.engine.Events(s.ctx, swallowed), "ActivityStarted")
	})
	s.workThrough(s.engine.Endpoint, ", verb: provision, heartbeat: 1s")
	for _, execution := range []string{waiting, swallowed} {
		require.Equal(t, sfntypes.ExecutionStatusSucceeded, s.ended(execution).Status, s.engine.Events(s.ctx, execution))
	}
	require.Equal(t, 1, strings.Count(s.engine.Events(s.ctx, waiting), "ActivityStarted"), "whoever waited was not told again")
	require.Equal(t, 2, strings.Count(s.engine.Events(s.ctx, swallowed), "ActivityStarted"), "the heartbeat timeout showed the loss")
	s.one(bellhop.Filter{Tenant: "acme", Resource: "swallowed"})
}

// TestStepFunctionsWorkerStops has a worker told to stop while its polls are open: what they bring is started.
func TestStepFunctionsWorkerStops(t *testing.T) {
	t.Parallel()
	s := setupStates(t)
	front := newLossy(t, s.engine.Endpoint)
	worker := s.workThrough(front.URL, ", verb: provision, polls: 1")
	machine := s.machine("stopping", s.task(""))
	s.until("the worker polls", func() bool { return front.polls.Load() == 1 })
	stopped := make(chan error, 1)
	go func() { stopped <- worker.Stop(soon) }()
	s.until("the worker stops", func() bool { return strings.Contains(worker.Output(), "stopping") })
	execution := s.begin(machine, "stopping", `{"tenant_id": "acme", "provider": "simulated", "spec": {"image": "nginx:1.27"}}`)
	s.one(bellhop.Filter{Tenant: "acme"})
	began := time.Now()
	require.NoError(t, <-stopped)
	require.Less(t, time.Since(began), 20*time.Second, "it waited for further tasks")
	s.workThrough(s.engine.Endpoint, ", verb: provision")
	require.Equal(t, sfntypes.ExecutionStatusSucceeded, s.ended(execution).Status)
}

// TestStepFunctionsTemporalIsAway takes a task while Temporal cannot be asked, and starts it when it can.
func TestStepFunctionsTemporalIsAway(t *testing.T) {
	t.Parallel()
	_, port, _ := strings.Cut(peers.FreeAddress(t), ":")
	s := &states{bench: setup(t, "--db", t.TempDir()+"/temporal.db", "--port", port), engine: peers.StepFunctionsFor(t)}
	var err error
	s.activity, err = s.engine.Activity(s.ctx, "compute")
	require.NoError(t, err)
	worker := s.workThrough(s.engine.Endpoint, ", verb: provision")
	s.server.Kill()
	execution := s.begin(s.machine("away", s.task("")), "away", `{"tenant_id": "acme", "provider": "simulated", "spec": {"image": "nginx:1.27"}}`)
	s.until("a task is taken and cannot be started", func() bool {
		return strings.Contains(worker.Output(), "a task's operation cannot be started yet")
	})
	again, err := peers.StartServer(s.ctx, s.server.Args()...)
	require.NoError(t, err)
	t.Cleanup(again.Kill)
	require.Equal(t, sfntypes.ExecutionStatusSucceeded, s.ended(execution).Status)
	require.Equal(t, 1, strings.Count(s.engine.Events(s.ctx, execution), "ActivityStarted"))
}

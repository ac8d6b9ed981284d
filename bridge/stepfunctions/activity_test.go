package stepfunctions_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bellhop"
	"bellhop/bridge"
	"bellhop/bridge/stepfunctions"
)

const arn = "arn:aws:states:eu-central-1:123456789012:activity:compute"

// engine hands one task out, with the given input, and tells how it is ended.
type engine struct {
	*httptest.Server
	input string
	ended chan call

	mu sync.Mutex
	// tasks is how many there are to hand out.
	tasks int
	// gone is the error with which heartbeats are answered; empty when there is none.
	gone string
	// refuse is how many calls are refused with the error of this name, before any is taken.
	refuse int
	name   string
}

func newEngine(t *testing.T, input string) *engine {
	t.Helper()
	e := &engine{input: input, ended: make(chan call, 1), tasks: 1}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var c call
		if json.NewDecoder(r.Body).Decode(&c.body) != nil {
			return // the client hung up
		}
		c.action = strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AWSStepFunctions.")
		e.mu.Lock()
		refused, given := e.refuse > 0, e.tasks == 0
		if refused {
			e.refuse--
		} else if c.action == "GetActivityTask" && !given {
			e.tasks--
		}
		e.mu.Unlock()
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		answer := map[string]string{}
		switch {
		case refused:
			w.WriteHeader(http.StatusBadRequest)
			answer["__type"] = "com.amazonaws.sfn#" + e.name
		case c.action == "SendTaskHeartbeat" && e.gone != "":
			w.WriteHeader(http.StatusBadRequest)
			answer["__type"] = "com.amazonaws.sfn#" + e.gone
		case c.action != "GetActivityTask":
			e.ended <- c
		case given: // there is no other
			select {
			case <-r.Context().Done():
			case <-time.After(10 * time.Millisecond):
			}
		default:
			if c.body["activityArn"] != arn {
				t.Errorf("%s is polled", c.body["activityArn"])
			}
			answer["taskToken"], answer["input"] = token, e.input
		}
		_ = json.NewEncoder(w).Encode(answer) //nolint:errcheck // the client hung up
	}))
	t.Cleanup(e.Close)
	return e
}

// started is what an operation was started with.
type started struct {
	id    string
	verb  bellhop.Verb
	input string
}

// logged is a log that can be read while it is written.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// poll lets a poller take the engine's task. Errs are what the first starts meet.
func poll(t *testing.T, e *engine, activity stepfunctions.Activity, errs ...error) (<-chan started, *logged) {
	t.Helper()
	target, err := stepfunctions.New(stepfunctions.Config{Region: "eu-central-1", Endpoint: e.URL})
	if err != nil {
		t.Fatal(err)
	}
	activity.ARN, activity.Target, activity.Polls = arn, "machines", 1
	if err := activity.Check(map[string]bridge.Target{"machines": target}); err != nil {
		t.Fatal(err)
	}
	starts, log := make(chan started, 1), &logged{}
	var mu sync.Mutex
	poller := &stepfunctions.Poller{
		Activity: activity, Through: target, Log: slog.New(slog.NewTextHandler(log, nil)),
		Drain:  5 * time.Second,
		MakeID: func(tenant, derived string) string { return tenant + ":" + derived },
		Start: func(_ context.Context, id string, verb bellhop.Verb, input []byte) (bool, error) {
			mu.Lock()
			defer mu.Unlock()
			if len(errs) > 0 {
				err := errs[0]
				errs = errs[1:]
				return false, err
			}
			if _, err := bellhop.ParseOperation(id, verb, time.Time{}, input); err != nil {
				return false, err
			}
			starts <- started{id, verb, string(input)}
			return false, nil
		},
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		poller.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
		if strings.Contains(log.String(), token) {
			t.Errorf("the token is logged:\n%s", log)
		}
	})
	return starts, log
}

func TestTaskBecomesAnOperation(t *testing.T) {
	t.Parallel()
	const operation = `"provider": "docker", "spec": {"image": "nginx:1.27"}`
	task := `{"address":{"task_token":"` + token + `"},%s"target":"machines"}`
	plain := `[` + fmt.Sprintf(task, "") + `]`
	provision := stepfunctions.Activity{Verb: bellhop.Provision}
	beating := stepfunctions.Activity{Verb: bellhop.Provision, Heartbeat: bellhop.Duration(30 * time.Second)}
	for _, row := range []struct {
		name, input, reason string
		activity            stepfunctions.Activity
		id                  string
		verb                bellhop.Verb
		callbacks           string
	}{
		{
			"IDAndVerbInTheInput",
			`{"operation_id": "web-1", "operation_type": "update", "tenant_id": "acme", ` + operation + `}`,
			"as they are",
			stepfunctions.Activity{},
			"web-1", bellhop.Update, plain,
		},
		{
			"IDOfTheToken",
			`{"tenant_id": "acme", ` + operation + `}`,
			"each try has its own, with the prefix of its tenant", provision, "acme:sfn-7a47fead8a01fe5da6e237a9013b08a9", bellhop.Provision, plain,
		},
		{
			"TenantOfTheActivity",
			`{` + operation + `}`,
			"the input need not say it",
			stepfunctions.Activity{Verb: bellhop.Provision, Tenant: "acme"},
			"acme:sfn-7a47fead8a01fe5da6e237a9013b08a9", bellhop.Provision, plain,
		},
		{
			"Heartbeat",
			`{"tenant_id": "acme", ` + operation + `}`,
			"that of the activity", beating, "", bellhop.Provision, `[` + fmt.Sprintf(task, `"heartbeat":"30s",`) + `]`,
		},
		{
			"TaskAmongTheCallbacks",
			`{"tenant_id": "acme", "callbacks": [{"target": "hook"}, {"target": "machines", "failures": "result", "heartbeat": "5s"}], ` + operation + `}`,
			"what it says of the task holds", beating, "", bellhop.Provision,
			`[{"target":"hook"},` + fmt.Sprintf(task, `"failures":"result","heartbeat":"5s",`) + `]`,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			starts, _ := poll(t, newEngine(t, row.input), row.activity)
			got := <-starts
			if row.id != "" && got.id != row.id || got.verb != row.verb {
				t.Errorf("%s: started was %s %s", row.reason, got.verb, got.id)
			}
			var input struct {
				TenantID  string          `json:"tenant_id"`
				Callbacks json.RawMessage `json:"callbacks"`
			}
			if err := json.Unmarshal([]byte(got.input), &input); err != nil || input.TenantID != "acme" {
				t.Errorf("%s: started was %s, %v", row.reason, got.input, err)
			}
			if diff := cmp.Diff(row.callbacks, string(input.Callbacks)); diff != "" {
				t.Errorf("%s: the callbacks (-want +got):\n%s", row.reason, diff)
			}
		})
	}
}

func TestTaskThatIsRefused(t *testing.T) {
	t.Parallel()
	const sound = `{"tenant_id": "acme", "provider": "docker", "spec": {"image": "nginx:1.27"}}`
	provision := stepfunctions.Activity{Verb: bellhop.Provision}
	for _, row := range []struct {
		name, input string
		activity    stepfunctions.Activity
		start       []error
		code        bellhop.Code
		paths       []string
	}{
		{"NoJSON", `{`, provision, nil, bellhop.CodeInvalidOperation, []string{"operation"}},
		{"NoObject", `[]`, stepfunctions.Activity{}, nil, bellhop.CodeInvalidOperation, []string{"operation"}},
		{
			"NoVerb", `{}`,
			stepfunctions.Activity{},
			nil, bellhop.CodeInvalidOperation,
			[]string{"operation_type", "tenant_id", "provider", "spec.image"},
		},
		{
			"OtherVerb", `{"operation_type": "delete"}`, provision, nil, bellhop.CodeInvalidOperation,
			[]string{"operation_type", "tenant_id"},
		},
		{
			"OtherTenant", sound,
			stepfunctions.Activity{Verb: bellhop.Provision, Tenant: "umbrella"},
			nil, bellhop.CodeInvalidOperation,
			[]string{"tenant_id"},
		},
		{
			"TwiceTheTask", `{"callbacks": [{"target": "machines"}, {"target": "machines", "states": ["failed"]}], "provider": 3}`,
			provision, nil, bellhop.CodeInvalidOperation,
			[]string{"callbacks[1]", "callbacks[1].states", "provider"},
		},
		{
			"Conflict", sound, provision,
			[]error{fmt.Errorf("start: %w", bellhop.ErrConflict)},
			stepfunctions.CodeOperationConflict, nil,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t, row.input)
			poll(t, e, row.activity, row.start...)
			got := <-e.ended
			if got.action != "SendTaskFailure" || got.body["error"] != string(row.code) || got.body["taskToken"] != token {
				t.Fatalf("the task was ended by %+v", got)
			}
			var outcome bellhop.Outcome
			if err := bellhop.DecodeStrict([]byte(got.body["cause"]), &outcome); err != nil {
				t.Fatalf("the cause is no outcome: %s", err)
			}
			if outcome.State != bellhop.Failed || outcome.Error.Code != row.code || outcome.Error.Retryable {
				t.Errorf("the outcome is %+v", outcome)
			}
			for _, path := range row.paths {
				if outcome.Error.Evidence[path] == "" {
					t.Errorf("no fault is named at %s: %v", path, outcome.Error.Evidence)
				}
			}
		})
	}
}

// TestTroubleIsSatOut has the polls refused, and then the start fail.
func TestTroubleIsSatOut(t *testing.T) {
	t.Parallel()
	e := newEngine(t, `{"tenant_id": "acme", "provider": "docker", "spec": {"image": "nginx:1.27"}}`)
	e.refuse, e.name = 2, "ActivityDoesNotExist"
	starts, log := poll(t, e, stepfunctions.Activity{Verb: bellhop.Provision}, errors.New("Temporal is away"))
	<-starts
	for _, once := range []string{"ActivityDoesNotExist", "polled again", "Temporal is away"} {
		if strings.Count(log.String(), once) != 1 {
			t.Errorf("%q is not logged once:\n%s", once, log)
		}
	}
}

// TestTask_WaitsWhileItsTenantHasTooManyOperations has the first starts refused for that.
func TestTask_WaitsWhileItsTenantHasTooManyOperations(t *testing.T) {
	t.Parallel()
	const input = `{"tenant_id": "acme", "provider": "docker", "spec": {"image": "nginx:1.27"}}`
	provision := stepfunctions.Activity{Verb: bellhop.Provision}
	tooMany := fmt.Errorf("start: %w", bellhop.ErrTooMany)
	isFailure := func(c call) bool {
		return c.action == "SendTaskFailure" && c.body["error"] == string(stepfunctions.CodeTooManyOperations)
	}
	t.Run("ItIsStartedInTheEnd", func(t *testing.T) {
		t.Parallel()
		e := newEngine(t, input)
		starts, _ := poll(t, e, provision, tooMany, tooMany)
		for range 2 {
			if got := <-e.ended; got.action != "SendTaskHeartbeat" {
				t.Fatalf("the task was told %+v", got)
			}
		}
		<-starts
	})
	t.Run("NobodyWaitsForItAnyMore", func(t *testing.T) {
		t.Parallel()
		e := newEngine(t, input)
		e.gone = "TaskTimedOut"
		starts, log := poll(t, e, provision, tooMany)
		for deadline := time.Now().Add(10 * time.Second); !strings.Contains(log.String(), "has ended that waited"); {
			if time.Now().After(deadline) {
				t.Fatalf("the task is waited for:\n%s", log)
			}
			time.Sleep(5 * time.Millisecond)
		}
		if len(starts) > 0 {
			t.Error("its operation was started all the same")
		}
	})
	t.Run("TheWorkerStops", func(t *testing.T) {
		t.Parallel()
		e := newEngine(t, input)
		told := make(chan []call)
		t.Run("Run", func(t *testing.T) { // at its end the poller is stopped
			poll(t, e, provision, slices.Repeat([]error{tooMany}, 1000)...)
			<-e.ended
			go func() {
				var calls []call
				for c := range e.ended {
					calls = append(calls, c)
				}
				told <- calls
			}()
		})
		close(e.ended)
		if calls := <-told; len(calls) == 0 || !isFailure(calls[len(calls)-1]) {
			t.Errorf("the task was told %+v", calls)
		}
	})
	t.Run("TooManyWait", func(t *testing.T) {
		t.Parallel()
		e := newEngine(t, input)
		e.tasks = 65
		poll(t, e, provision, slices.Repeat([]error{tooMany}, 1000)...)
		for !isFailure(<-e.ended) {
		}
		go func() { // at the end all of them fail
			for range e.ended {
			}
		}()
	})
}

func TestActivityIsChecked(t *testing.T) {
	t.Parallel()
	target, _ := service(t, http.StatusOK, "")
	targets := map[string]bridge.Target{"machines": target, "hook": nil}
	for _, row := range []struct {
		activity stepfunctions.Activity
		want     string
	}{
		{stepfunctions.Activity{ARN: arn, Target: "machines", Verb: bellhop.Delete, Tenant: "acme", Polls: 1000}, "<nil>"},
		{stepfunctions.Activity{}, "arn: is required; target: is required"},
		{
			stepfunctions.Activity{ARN: "compute", Target: "hook", Verb: "run", Tenant: "a b", Polls: 1001, Heartbeat: 1},
			"arn: must be the ARN of an activity, arn:aws:states:REGION:ACCOUNT:activity:NAME; heartbeat: must be 1s to 1h; " +
				"polls: must be 1 to 1000; target: must name a target of type stepfunctions; tenant: " + bellhop.CheckName("a b").Error() +
				`; verb: must be "provision", "update" or "delete", or be left out`,
		},
		{
			stepfunctions.Activity{ARN: strings.Replace(arn, "eu-central-1", "us-east-1", 1), Target: "machines"},
			"target: is in eu-central-1, the activity in us-east-1: a task token is good in its own region only",
		},
	} {
		if got := fmt.Sprint(row.activity.Check(targets)); got != row.want {
			t.Errorf("%+v: the fault is %s, want %s", row.activity, got, row.want)
		}
	}
}

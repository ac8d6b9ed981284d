package stepfunctions_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"bellhop"
	"bellhop/bridge"
	"bellhop/bridge/stepfunctions"
)

const token = "AQCEAAAAKgAAAAMAAAAAAAAAAbellhop"

// TestMain gives the AWS client credentials, and nothing of the machine's own configuration.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_REGION": "",
		"AWS_DEFAULT_REGION": "", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_EC2_METADATA_DISABLED": "true",
	} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// call is what the service got.
type call struct {
	action string
	body   map[string]string
}

// recorded are the calls that a service got.
type recorded struct {
	mu    sync.Mutex
	calls []call
}

func (r *recorded) add(c call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, c)
}

func (r *recorded) all() []call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// service answers every call alike: with an error's name, a status, or nothing at all.
func service(t *testing.T, status int, name string) (*stepfunctions.Target, *recorded) {
	t.Helper()
	calls := &recorded{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var c call
		text, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(text, &c.body)
		}
		if err != nil {
			t.Errorf("what came cannot be read: %s", err)
		}
		c.action = strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AWSStepFunctions.")
		calls.add(c)
		if status == 0 {
			panic(http.ErrAbortHandler) // the connection breaks
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		w.WriteHeader(status)
		if name == "" {
			_, _ = io.WriteString(w, "{}") //nolint:errcheck // the client hung up
			return
		}
		_, _ = fmt.Fprintf(w, `{"__type": "com.amazonaws.sfn#%s", "message": "so it is"}`, name) //nolint:errcheck // as above
	}))
	t.Cleanup(server.Close)
	target, err := stepfunctions.New(stepfunctions.Config{Region: "eu-central-1", Endpoint: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return target, calls
}

func address() json.RawMessage { return json.RawMessage(`{"task_token": "` + token + `"}`) }

func message(t *testing.T, o bellhop.Outcome, failures bellhop.Failures) bridge.Message {
	t.Helper()
	o.SchemaVersion = bellhop.SchemaVersion
	o.OperationID, o.OperationType, o.TenantID, o.Resource, o.Provider = "op-1", bellhop.Provision, "acme", "web", "ecs"
	o.CallbackID = "op-1/" + string(o.State)
	body, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return bridge.Message{ID: o.CallbackID, State: o.State, ReachedAt: time.Unix(0, 0), Failures: failures, Body: body}
}

func failed(evidence string) bellhop.Outcome {
	failure := bellhop.Fail(bellhop.CodeImagePullFailed, "no such image")
	failure.Evidence = map[string]string{"logs": evidence}
	return bellhop.Outcome{State: bellhop.Failed, Error: failure, Metadata: map[string]string{"order": "42"}}
}

func TestTaskIsCompleted(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name     string
		outcome  bellhop.Outcome
		failures bellhop.Failures
		action   string
	}{
		{"Succeeded", bellhop.Outcome{State: bellhop.Succeeded}, "", "SendTaskSuccess"},
		{"SucceededAsError", bellhop.Outcome{State: bellhop.Succeeded}, bellhop.AsError, "SendTaskSuccess"},
		{"Failed", failed("Gräfin"), "", "SendTaskFailure"},
		{"FailedAsError", failed("Gräfin"), bellhop.AsError, "SendTaskFailure"},
		{"FailedAsResult", failed("Gräfin"), bellhop.AsResult, "SendTaskSuccess"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			target, calls := service(t, http.StatusOK, "")
			m := message(t, row.outcome, row.failures)
			if got := target.Deliver(t.Context(), address(), m); got.Verdict != bridge.Acknowledged {
				t.Fatalf("the verdict is %+v", got)
			}
			want := call{row.action, map[string]string{"taskToken": token}}
			if row.action == "SendTaskSuccess" {
				want.body["output"] = string(m.Body)
			} else {
				want.body["error"], want.body["cause"] = "IMAGE_PULL_FAILED", string(m.Body)
			}
			if diff := cmp.Diff([]call{want}, calls.all(), cmp.AllowUnexported(call{})); diff != "" {
				t.Errorf("the service was called (-want +got):\n%s", diff)
			}
		})
	}
}

// TestSizes tries outcomes that just fit and that just do not, of characters that are cut in the middle by who counts
// bytes, and of some that JSON writes with six bytes each.
func TestSizes(t *testing.T) {
	t.Parallel()
	for _, limit := range []struct {
		field    string
		bytes    int
		failures bellhop.Failures
	}{{"cause", 32768, ""}, {"output", 262144, bellhop.AsResult}} {
		for _, filler := range []string{"x", "ü", "\x01"} {
			for _, over := range []int{-1, 0, 1, 1000} {
				t.Run(fmt.Sprintf("%s/%q/%+d", limit.field, filler, over), func(t *testing.T) {
					t.Parallel()
					target, calls := service(t, http.StatusOK, "")
					empty := len(message(t, failed(""), limit.failures).Body)
					one := len(message(t, failed(filler), limit.failures).Body) - empty
					room := limit.bytes + over - empty
					m := message(t, failed(strings.Repeat(filler, room/one)+strings.Repeat("x", room%one)), limit.failures)
					if len(m.Body) != limit.bytes+over {
						t.Fatalf("the outcome has %d bytes", len(m.Body))
					}
					if got := target.Deliver(t.Context(), address(), m); got.Verdict != bridge.Acknowledged {
						t.Fatalf("the verdict is %+v", got)
					}
					got := calls.all()[0].body[limit.field]
					if over <= 0 && got != string(m.Body) {
						t.Errorf("what fits was changed: %d bytes became %d", len(m.Body), len(got))
					}
					var outcome bellhop.Outcome
					if err := bellhop.DecodeStrict([]byte(got), &outcome); err != nil || len(got) > limit.bytes || !utf8.ValidString(got) {
						t.Fatalf("%d bytes were sent, which are an outcome? %v", len(got), err)
					}
					if logs := outcome.Error.Evidence["logs"]; logs == "" || !utf8.ValidString(logs) || strings.Contains(logs, "\ufffd") {
						t.Errorf("the evidence is %.40q", logs)
					}
					if outcome.Error.Code != bellhop.CodeImagePullFailed || outcome.Metadata["order"] != "42" {
						t.Errorf("the outcome became %+v", outcome)
					}
				})
			}
		}
	}
}

func TestMetadataThatDoesNotFit(t *testing.T) {
	t.Parallel()
	target, calls := service(t, http.StatusOK, "")
	outcome := failed("short")
	outcome.Metadata["big"] = strings.Repeat("x", 40000)
	outcome.ResourceIDs.ServiceARN = "arn:of:the:service"
	if got := target.Deliver(t.Context(), address(), message(t, outcome, "")); got.Verdict != bridge.Acknowledged {
		t.Fatalf("the verdict is %+v", got)
	}
	var got bellhop.Outcome
	if err := json.Unmarshal([]byte(calls.all()[0].body["cause"]), &got); err != nil {
		t.Fatal(err)
	}
	if got.ResourceIDs.ServiceARN == "" || got.Error == nil || got.Error.Message == "" || got.Metadata != nil {
		t.Errorf("the outcome became %+v, want it whole but for the metadata", got)
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	rows := []struct {
		names   []string
		status  int
		verdict bridge.Verdict
		unknown bool
	}{
		{[]string{"TaskTimedOut"}, 400, bridge.Closed, false},
		{[]string{"TaskDoesNotExist", "InvalidToken", "InvalidOutput", "ValidationException"}, 400, bridge.Undeliverable, false},
		{
			[]string{"KmsThrottlingException", "Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded"},
			400, bridge.Retry, false,
		},
		{[]string{"SomethingNew"}, 400, bridge.Retry, false},
		{[]string{"InternalFailure", "ServiceUnavailable"}, 500, bridge.Retry, true},
		{[]string{""}, 502, bridge.Retry, true},
		{[]string{""}, 503, bridge.Retry, true},
		{[]string{""}, 504, bridge.Retry, true},
		{[]string{""}, 0, bridge.Retry, true},
		{
			[]string{
				"AccessDeniedException", "ExpiredTokenException", "UnrecognizedClientException", "InvalidSignatureException",
				"KmsAccessDeniedException", "KmsInvalidStateException",
			}, 400, bridge.Blocked, false,
		},
	}
	for _, row := range rows {
		for _, name := range row.names {
			t.Run(fmt.Sprint(row.status, name), func(t *testing.T) {
				t.Parallel()
				target, calls := service(t, row.status, name)
				got := target.Deliver(t.Context(), address(), message(t, bellhop.Outcome{State: bellhop.Succeeded}, ""))
				if got.Verdict != row.verdict || got.Unknown != row.unknown || got.Err == nil {
					t.Errorf("the result is %+v, want %s, unknown %t", got, row.verdict, row.unknown)
				}
				if got.Err != nil && (!strings.Contains(got.Err.Error(), name) || strings.Contains(got.Err.Error(), token)) {
					t.Errorf("the error is %q, want it to name %s and no token", got.Err, name)
				}
				if len(calls.all()) != 1 {
					t.Errorf("the service was called %d times in one attempt", len(calls.all()))
				}
			})
		}
	}
}

func TestConfiguration(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		config stepfunctions.Config
		want   string
	}{
		{stepfunctions.Config{}, "region: is required: the environment names none either (AWS_REGION)"},
		{stepfunctions.Config{Endpoint: "localhost", Region: "eu-central-1"}, "endpoint: must be an http or https URL"},
	} {
		if _, err := stepfunctions.New(row.config); err == nil || err.Error() != row.want {
			t.Errorf("%+v: the error is %v, want %s", row.config, err, row.want)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	target, _ := service(t, http.StatusOK, "")
	ends := []bellhop.State{bellhop.Succeeded, bellhop.Failed}
	for _, row := range []struct {
		callback bellhop.Callback
		want     string
	}{
		{bellhop.Callback{Address: address(), States: ends}, "<nil>"},
		{bellhop.Callback{States: ends}, `address: is required, such as {"task_token": "…"}`},
		{bellhop.Callback{Address: json.RawMessage(`{}`), States: ends}, "address.task_token: is required"},
		{
			bellhop.Callback{Address: json.RawMessage(`{"task_token": "` + strings.Repeat("x", 2049) + `"}`), States: ends},
			"address.task_token: has 2049 bytes; a task token has 2048 at most",
		},
		{
			bellhop.Callback{Address: address(), States: append(ends, bellhop.Running)},
			`states: must not have "running": a task can be completed only once`,
		},
	} {
		if got := fmt.Sprint(target.Check(row.callback)); got != row.want {
			t.Errorf("%s: the fault is %s, want %s", row.callback, got, row.want)
		}
	}
}

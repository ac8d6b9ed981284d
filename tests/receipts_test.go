package tests

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"bellhop"
	"bellhop/activities"
	"bellhop/bridge"
	"bellhop/bridge/stepfunctions"
	"bellhop/tests/peers"
)

// What an attempt meets besides an error's name.
const (
	breaks  = "the connection breaks"
	succeed = ""
)

// TestReceiptsOfStepFunctions delivers a callback to a service that answers with every error there is, at the first attempt and after one
// of which nobody knows whether it was applied.
func TestReceiptsOfStepFunctions(t *testing.T) {
	for _, variable := range peers.AWSEnvironment() {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
	const (
		given    = bellhop.ReceiptAcknowledged
		presumed = bellhop.ReceiptAckPresumed
		lost     = bellhop.ReceiptUndeliverable
	)
	for _, row := range []struct {
		names         []string
		status        int
		first, second bellhop.ReceiptState
		// ends says that no attempt follows.
		ends bool
	}{
		{[]string{"TaskTimedOut"}, 400, lost, presumed, true},
		{[]string{"TaskDoesNotExist", "InvalidToken", "InvalidOutput", "ValidationException"}, 400, lost, lost, true},
		{
			[]string{
				"KmsThrottlingException", "Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded",
				"AccessDeniedException", "ExpiredTokenException", "UnrecognizedClientException", "KmsAccessDeniedException",
				"KmsInvalidStateException", "SomethingNew",
			}, 400, given, given, false,
		},
		{[]string{"InternalFailure"}, 500, given, given, false},
		{[]string{"BadGateway"}, 502, given, given, false},
		{[]string{"ServiceUnavailable"}, 503, given, given, false},
		{[]string{"GatewayTimeout"}, 504, given, given, false},
	} {
		for _, name := range row.names {
			t.Run(name, func(t *testing.T) {
				for _, try := range []struct {
					answers []string
					want    bellhop.ReceiptState
				}{{[]string{name, succeed}, row.first}, {[]string{breaks, name, succeed}, row.second}} {
					attempts := len(try.answers)
					if row.ends {
						attempts--
					}
					receipt, calls := deliverTo(t, row.status, try.answers)
					if receipt.State != try.want || receipt.Attempts != attempts || calls != attempts {
						t.Errorf("%q: after %d calls the receipt is %+v, want %s after %d", try.answers, calls, receipt, try.want, attempts)
					}
				}
			})
		}
	}
	t.Run("ClosedAfterTrouble", func(t *testing.T) {
		for _, row := range []struct {
			answers []string
			want    bellhop.ReceiptState
			reason  string
		}{
			{[]string{breaks, "AccessDeniedException", "TaskTimedOut"}, presumed, "what was unknown stays so"},
			{[]string{"AccessDeniedException", "ThrottlingException", "TaskTimedOut"}, lost, "nothing was ever applied"},
		} {
			if receipt, _ := deliverTo(t, 400, row.answers); receipt.State != row.want {
				t.Errorf("%s: %q: the receipt is %+v, want %s", row.reason, row.answers, receipt, row.want)
			}
		}
	})
}

// deliverTo lets Temporal repeat the delivery of one callback to a service that gives these answers, the last for ever.
func deliverTo(t *testing.T, status int, answers []string) (receipt bellhop.Receipt, calls int) {
	t.Helper()
	var called atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := int(called.Add(1))
		answer := answers[min(n, len(answers))-1]
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		switch answer {
		case breaks:
			panic(http.ErrAbortHandler)
		case succeed:
			_, _ = io.WriteString(w, "{}") //nolint:errcheck // the client hung up
		default:
			w.WriteHeader(status)
			_, _ = fmt.Fprintf(w, `{"__type": "com.amazonaws.sfn#%s", "message": "so it is"}`, answer) //nolint:errcheck // as above
		}
	}))
	defer server.Close()
	target, err := stepfunctions.New(stepfunctions.Config{Region: "eu-central-1", Endpoint: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestWorkflowEnvironment()
	env.SetTestTimeout(time.Minute)
	env.SetWorkerOptions(worker.Options{DeadlockDetectionTimeout: time.Minute})
	acts := &activities.Activities{Targets: map[string]bridge.Target{"machines": target}}
	env.RegisterActivity(acts)
	env.ExecuteWorkflow(func(ctx workflow.Context) (bellhop.Receipt, error) {
		ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
			StartToCloseTimeout: time.Minute,
			RetryPolicy:         &temporal.RetryPolicy{InitialInterval: activities.FirstRetry, MaximumInterval: activities.MaxRetry},
		})
		var receipt bellhop.Receipt
		err := workflow.ExecuteActivity(ctx, acts.Deliver, activities.Delivery{
			Callback:   bellhop.Callback{Target: "machines", Address: json.RawMessage(`{"task_token": "AQCEAAAAKgAAAAMAAAAAAAAAAbellhop"}`)},
			CallbackID: "op-1/succeeded", Event: bellhop.EventProvisioned, State: bellhop.Succeeded,
			Outcome: json.RawMessage(`{"state":"succeeded"}`), ReachedAt: time.Now(),
		}).Get(ctx, &receipt)
		return receipt, err
	})
	if err := env.GetWorkflowResult(&receipt); err != nil {
		t.Fatalf("%q: %s", answers, err)
	}
	return receipt, int(called.Load())
}

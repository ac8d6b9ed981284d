package activities_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/temporal"

	"bellhop"
	"bellhop/activities"
)

// asked is a platform of which only the asks matter.
type asked struct {
	activities.Provider
	provision func(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error)
}

func (asked) Check(bellhop.Operation) error { return nil }

func (a asked) Provision(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	return a.provision(ctx, op)
}

func operation() bellhop.Operation {
	return bellhop.Operation{
		ID: "op-1", Verb: bellhop.Provision, TenantID: "acme", Resource: "web", Provider: "sim",
		Spec: bellhop.Spec{Image: "nginx", Env: map[string]string{"PASSWORD": "correct horse battery staple"}},
	}
}

func ask(t *testing.T, backstop activities.Backstop, answer bellhop.Observation, err error) (activities.Answer, error) {
	t.Helper()
	env := newSuite().NewTestActivityEnvironment()
	acts := &activities.Activities{Backstop: backstop, Providers: map[string]activities.Provider{
		"sim": asked{provision: func(context.Context, bellhop.Operation) (bellhop.Observation, error) { return answer, err }},
	}}
	env.RegisterActivity(acts)
	value, err := env.ExecuteActivity(acts.Provision, operation())
	if err != nil {
		return activities.Answer{}, err
	}
	var got activities.Answer
	err = value.Get(&got)
	return got, err
}

// What a provider says becomes either an end or another attempt, in one place.
func TestWhatErrorsMean(t *testing.T) {
	for _, info := range bellhop.Codes() {
		t.Run(string(info.Code), func(t *testing.T) {
			t.Parallel()
			seen := bellhop.Observation{ResourceIDs: bellhop.ResourceIDs{SimulatedIDs: []string{"web-1"}}}
			failure := bellhop.Fail(info.Code, "no luck with correct horse battery staple").Because(errors.New("raw"))
			failure.RetryAfter = 3 * time.Second
			answer, err := ask(t, activities.Backstop{}, seen, failure)
			var again *temporal.ApplicationError
			switch info.Code {
			case bellhop.CodeProviderUnavailable, bellhop.CodeProviderThrottled, bellhop.CodeInternal:
				if !errors.As(err, &again) || again.NonRetryable() || again.Type() != string(info.Code) || again.NextRetryDelay() != 3*time.Second {
					t.Fatalf("the answer is %v, want another attempt in 3 s", err)
				}
				if again.Message() != "no luck with [redacted]: raw" {
					t.Errorf("the error says %q", again.Message())
				}
			default:
				if err != nil {
					t.Fatalf("the answer is %v, want an end", err)
				}
				if answer.Phase != bellhop.PhaseFailed || answer.Failure.Code != info.Code || answer.OperationID != "op-1" ||
					answer.Failure.Message != "no luck with [redacted]" || answer.Failure.ProviderError != "raw" {
					t.Errorf("the answer is %+v, %v", answer, answer.Failure)
				}
				if diff := cmp.Diff(seen.ResourceIDs, answer.ResourceIDs); diff != "" {
					t.Errorf("ids that came with the error (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestBackstopIsSpread(t *testing.T) {
	for _, row := range []struct{ given, from, to activities.Backstop }{
		{activities.Backstop{}, activities.Backstop{First: time.Minute, Max: 10 * time.Minute}, activities.Backstop{First: 75 * time.Second, Max: 10 * time.Minute}},
		{activities.Backstop{First: time.Second, Max: time.Minute}, activities.Backstop{First: time.Second, Max: time.Minute}, activities.Backstop{First: 1250 * time.Millisecond, Max: time.Minute}},
		{activities.Backstop{First: 4 * time.Minute, Max: time.Minute}, activities.Backstop{First: 4 * time.Minute, Max: 4 * time.Minute}, activities.Backstop{First: 5 * time.Minute, Max: 5 * time.Minute}},
	} {
		firsts := map[time.Duration]bool{}
		for range 20 {
			answer, err := ask(t, row.given, bellhop.Observation{Phase: bellhop.PhasePending}, nil)
			if err != nil {
				t.Fatal(err)
			}
			got := answer.Backstop
			if got.First < row.from.First || got.First > row.to.First || got.Max < row.from.Max || got.Max > row.to.Max {
				t.Errorf("backstop %v becomes %v, want %v to %v", row.given, got, row.from, row.to)
			}
			firsts[got.First] = true
		}
		if len(firsts) < 15 {
			t.Errorf("of 20 operations asked for together only %d look at different times", len(firsts))
		}
	}
}

func TestPanicOfProviderEndsLikeAnyFaultOfOurs(t *testing.T) {
	t.Parallel()
	env := newSuite().NewTestActivityEnvironment()
	acts := &activities.Activities{Providers: map[string]activities.Provider{
		"sim": asked{provision: func(context.Context, bellhop.Operation) (bellhop.Observation, error) {
			panic("index out of range: correct horse battery staple")
		}},
	}}
	env.RegisterActivity(acts)
	_, err := env.ExecuteActivity(acts.Provision, operation())
	var again *temporal.ApplicationError
	if !errors.As(err, &again) || again.Type() != string(bellhop.CodeInternal) || !strings.Contains(again.Message(), "the provider panicked: index out of range: [redacted]") {
		t.Errorf("a provider that panics is answered by %v, want INTERNAL, which is tried a few times", err)
	}
}

func TestProgressIsHeartbeat(t *testing.T) {
	if raw, err := json.Marshal(activities.Answer{Observation: bellhop.Observation{OperationID: "op-1", Phase: bellhop.PhasePending}}); err != nil ||
		!strings.Contains(string(raw), `"operation_id":"op-1"`) || !strings.Contains(string(raw), `"backstop":`) {
		t.Errorf("an answer is written as %s, %v: histories hold it", raw, err)
	}
	// Nobody has to listen, and nobody has to be there.
	activities.ReportProgress(t.Context(), "pulling nginx")
	var heard []string
	ctx := activities.WithProgress(t.Context(), func(message string) { heard = append(heard, message) })
	activities.ReportProgress(ctx, "pulling nginx, 34 %")
	if len(heard) != 1 || heard[0] != "pulling nginx, 34 %" {
		t.Errorf("progress was heard as %v", heard)
	}
}

func TestDecodeConfig(t *testing.T) {
	var config struct {
		Subnet string `json:"subnet"`
		Size   int    `json:"size"`
	}
	config.Size = 3
	if err := activities.DecodeConfig(nil, &config); err != nil || config.Size != 3 {
		t.Errorf("no provider_config is read as %+v, %v", config, err)
	}
	err := activities.DecodeConfig(json.RawMessage(`{"subnet": 5, "sise": 1}`), &config)
	if err == nil || err.Error() != `provider_config.sise: is not a known field (known are size, subnet); provider_config.subnet: must be a string, not a number` {
		t.Errorf("the faults are %v", err)
	}
}

package workflows_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"bellhop"
	"bellhop/workflows"
)

// reached are the states of an operation that ended.
func reached(end bellhop.State) []bellhop.State {
	return []bellhop.State{bellhop.Pending, bellhop.Queued, bellhop.Running, end}
}

func TestEndings(t *testing.T) {
	type row struct {
		name   string
		reason string
		script func(s *stage, verb bellhop.Verb)
		verbs  []bellhop.Verb // default: all
		state  bellhop.State
		code   bellhop.Code
		states []bellhop.State // default: all up to state
		// took says how long it took from the first answer to the end, from and to.
		took     [2]time.Duration
		asked    int // default: 1
		observed int
		ids      bellhop.ResourceIDs
	}
	both := ids("web-1", "web-2")
	rows := []row{
		{
			name: "Answered", reason: "an answer that says done leaves nothing to wait for, and who asked for running hears of it",
			script: func(s *stage, verb bellhop.Verb) { s.platform.ask = inTurn(done(verb)) },
			state:  bellhop.Succeeded,
		},
		{
			name: "Observed", reason: "a watcher's signal ends the wait, without a look of our own",
			script: func(s *stage, verb bellhop.Verb) { s.observed(3*time.Second, done(verb)) },
			state:  bellhop.Succeeded, took: [2]time.Duration{3 * time.Second, 3 * time.Second},
		},
		{
			name: "Missed", reason: "a signal that never comes delays the end by the backstop, no more",
			script: func(s *stage, verb bellhop.Verb) { s.platform.observe = inTurn(done(verb)) },
			state:  bellhop.Succeeded, observed: 1, took: [2]time.Duration{time.Minute, 75 * time.Second},
		},
		{
			name: "Misdirected", reason: "what was seen of another operation on the resource is no news",
			script: func(s *stage, verb bellhop.Verb) {
				other := broken(bellhop.CodeContainerExited)
				other.OperationID = "op-0"
				s.observed(time.Second, other)
				s.observed(3*time.Second, done(verb))
			},
			state: bellhop.Succeeded, took: [2]time.Duration{3 * time.Second, 3 * time.Second},
		},
		{
			name: "Unavailable", reason: "a provider that cannot be asked now is asked again",
			script: func(s *stage, verb bellhop.Verb) {
				down := bellhop.Fail(bellhop.CodeProviderUnavailable, "no answer")
				s.platform.ask = inTurn(down, down, down, done(verb))
			},
			state: bellhop.Succeeded, asked: 4,
		},
		{
			name: "BlindBackstop", reason: "a look that fails ends nothing; the next one sees",
			script: func(s *stage, verb bellhop.Verb) {
				down := any(bellhop.Fail(bellhop.CodeProviderUnavailable, "down"))
				// The test environment gives a look ten attempts, where a server gives it a minute.
				s.platform.observe = inTurn(append(slices.Repeat([]any{down}, 10), done(verb))...)
			},
			state: bellhop.Succeeded, observed: 11, took: [2]time.Duration{3 * time.Minute, 4 * time.Minute},
		},
		{
			name: "RefusedLook", reason: "an error that no retry mends is an end, of a look as of an ask",
			script: func(s *stage, _ bellhop.Verb) {
				s.platform.observe = inTurn(bellhop.Fail(bellhop.CodePermissionDenied, "refused"))
			},
			state: bellhop.Failed, code: bellhop.CodePermissionDenied, observed: 1, took: [2]time.Duration{time.Minute, 75 * time.Second},
		},
		{
			name: "Unforeseen", reason: "an error that nobody foresaw is bellhop's fault, and the caller hears of it within a minute or so",
			script: func(s *stage, _ bellhop.Verb) { s.platform.ask = inTurn(errors.New("index out of range")) },
			state:  bellhop.Failed, code: bellhop.CodeInternal, asked: 6,
			states: []bellhop.State{bellhop.Pending, bellhop.Queued, bellhop.Failed},
		},
		{
			name: "UnforeseenOnce", reason: "what goes wrong once is tried again",
			script: func(s *stage, verb bellhop.Verb) {
				s.platform.ask = inTurn(errors.New("index out of range"), done(verb))
			},
			state: bellhop.Succeeded, asked: 2,
		},
		{
			name: "SupersededAtOnce", reason: "the newest start wins: an older one is told so and touches nothing",
			script: func(s *stage, _ bellhop.Verb) { s.platform.ask = inTurn(superseded()) },
			state:  bellhop.Failed, code: bellhop.CodeSuperseded, ids: ids("web-1"),
			states: []bellhop.State{bellhop.Pending, bellhop.Queued, bellhop.Failed},
		},
		{
			name: "SupersededLater", reason: "a newer operation may take over while the older one waits",
			script: func(s *stage, _ bellhop.Verb) { s.observed(time.Second, superseded()) },
			state:  bellhop.Failed, code: bellhop.CodeSuperseded, ids: ids("web-1"), took: [2]time.Duration{time.Second, time.Second},
		},
		{
			name: "RemovedBySomebody", reason: "unknown is never success, and what vanished is not there",
			script: func(s *stage, _ bellhop.Verb) { s.observed(time.Second, gone()) },
			verbs:  []bellhop.Verb{bellhop.Provision, bellhop.Update},
			state:  bellhop.Failed, code: bellhop.CodeResourceNotFound, took: [2]time.Duration{time.Second, time.Second},
		},
		{
			name: "StillThere", reason: "a deletion is over when it is gone, not while what shall go is healthy",
			script: func(s *stage, _ bellhop.Verb) {
				s.observed(time.Second, ready())
				s.observed(3*time.Second, gone())
			},
			verbs: []bellhop.Verb{bellhop.Delete},
			state: bellhop.Succeeded, ids: both, took: [2]time.Duration{3 * time.Second, 3 * time.Second},
		},
		{
			name: "UnknownPhase", reason: "what bellhop does not understand it does not call a success",
			script: func(s *stage, _ bellhop.Verb) {
				s.observed(time.Second, bellhop.Observation{Phase: "dancing", ResourceIDs: ids("web-1")})
			},
			state: bellhop.Failed, code: bellhop.CodeInternal, ids: ids("web-1"), took: [2]time.Duration{time.Second, time.Second},
		},
		{
			name: "FailedWithoutReason", reason: "a provider that breaks its law is at fault, not the caller",
			script: func(s *stage, _ bellhop.Verb) {
				s.observed(time.Second, bellhop.Observation{Phase: bellhop.PhaseFailed})
			},
			state: bellhop.Failed, code: bellhop.CodeInternal, took: [2]time.Duration{time.Second, time.Second},
		},
	}
	for _, info := range bellhop.Codes() {
		switch info.Code {
		case bellhop.CodeProviderUnavailable, bellhop.CodeProviderThrottled: // no end
		case bellhop.CodeTimeout, bellhop.CodeCancelled, bellhop.CodeSuperseded: // not a provider's to say
		default:
			rows = append(rows, row{
				name: "Answered" + string(info.Code), reason: "an answer that says failed is the end, with ids and evidence",
				script: func(s *stage, _ bellhop.Verb) { s.platform.ask = inTurn(broken(info.Code)) },
				state:  bellhop.Failed, code: info.Code, ids: both,
				states: []bellhop.State{bellhop.Pending, bellhop.Queued, bellhop.Failed},
			}, row{
				name: "Observed" + string(info.Code), reason: "what is observed to have failed is the end, with ids and evidence",
				script: func(s *stage, _ bellhop.Verb) { s.observed(time.Second, broken(info.Code)) },
				state:  bellhop.Failed, code: info.Code, ids: both, took: [2]time.Duration{time.Second, time.Second},
			})
			if info.Code == bellhop.CodeInternal {
				continue
			}
			rows = append(rows, row{
				name: "Refused" + string(info.Code), reason: "an error with a code that no retry mends is the end at once",
				script: func(s *stage, _ bellhop.Verb) {
					s.platform.ask = inTurn(broken(info.Code).Failure)
				},
				state: bellhop.Failed, code: info.Code,
				states: []bellhop.State{bellhop.Pending, bellhop.Queued, bellhop.Failed},
			})
		}
	}
	for _, verb := range bellhop.Verbs() {
		for _, row := range rows {
			if row.verbs != nil && !slices.Contains(row.verbs, verb) {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s", verb, row.name), func(t *testing.T) {
				t.Parallel()
				s := setup(t)
				row.script(s, verb)
				end := s.carryOut(verb, order(verb, nil))

				o := end.outcome
				if o.State != row.state || o.Error != nil && o.Error.Code != row.code {
					t.Fatalf("the operation is %s, %v; want %s %s: %s", o.State, o.Error, row.state, row.code, row.reason)
				}
				want := row.states
				if want == nil {
					want = reached(row.state)
				}
				if diff := cmp.Diff(want, end.states()); diff != "" {
					t.Errorf("states (-want +got): %s\n%s", row.reason, diff)
				}
				if o.TenantID != "acme" || o.Resource != "web" || o.Provider != "sim" || o.Metadata["order"] != "42" {
					t.Errorf("the outcome does not say whose it is: %+v", o)
				}
				wantIDs, wantEndpoints := row.ids, []bellhop.Endpoint(nil)
				if row.state == bellhop.Succeeded && verb != bellhop.Delete {
					wantIDs, wantEndpoints = both, ready().Endpoints
				}
				if wantIDs.IsZero() && len(end.states()) == 4 && verb == bellhop.Delete {
					wantIDs = pendingIDs(end) // what was there is still named after it is gone
				}
				if !wantIDs.IsZero() {
					if diff := cmp.Diff(wantIDs, o.ResourceIDs); diff != "" {
						t.Errorf("resource ids (-want +got): %s\n%s", row.reason, diff)
					}
				}
				if wantEndpoints != nil {
					if diff := cmp.Diff(wantEndpoints, o.Endpoints); diff != "" {
						t.Errorf("endpoints (-want +got):\n%s", diff)
					}
				}
				if strings.HasSuffix(row.name, string(row.code)) && row.code != "" {
					if o.Error.Message != "it broke with [redacted]" || o.Error.ProviderError != "said with [redacted]" ||
						o.Error.Evidence["last_log_line"] != "token is [redacted]" {
						t.Errorf("error is %+v: what happened is told without the secret in it", o.Error)
					}
				}
				if row.took[1] > 0 {
					if took := time.Duration(o.DurationMS) * time.Millisecond; took < row.took[0] || took > row.took[1] {
						t.Errorf("took %s, want %s to %s: %s", took, row.took[0], row.took[1], row.reason)
					}
				}
				if asked := len(s.platform.named(string(verb))); asked != max(row.asked, 1) {
					t.Errorf("the provider was asked %d times, want %d: %s", asked, max(row.asked, 1), row.reason)
				}
				if observed := len(s.platform.named("observe")); observed != row.observed {
					t.Errorf("it was observed %d times, want %d: %s", observed, row.observed, row.reason)
				}
				if diff := cmp.Diff([]string{"op-1/" + string(row.state)}, s.callers["orders"].told()); diff != "" {
					t.Errorf("the caller was told (-want +got):\n%s", diff)
				}
				if receipt := end.receipt(t, "orders"); receipt.State != bellhop.ReceiptAcknowledged || receipt.Attempts != 1 ||
					receipt.CallbackID != o.CallbackID || receipt.FirstAttemptAt.IsZero() || receipt.AcknowledgedAt.IsZero() {
					t.Errorf("receipt is %+v", receipt)
				}
			})
		}
	}
}

// pendingIDs are the ids that the answer to the ask told.
func pendingIDs(end ending) bellhop.ResourceIDs {
	if end.status.Transitions[2].At.Equal(end.outcome.FinishedAt) {
		return bellhop.ResourceIDs{} // the answer said gone at once
	}
	return pending().ResourceIDs
}

func TestThrottledProviderIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := setup(t)
	throttled := bellhop.Fail(bellhop.CodeProviderThrottled, "slow down")
	throttled.RetryAfter = 7 * time.Second
	s.platform.ask = inTurn(throttled, ready())
	end := s.carryOut(bellhop.Provision, order(bellhop.Provision, nil))
	if end.outcome.State != bellhop.Succeeded {
		t.Fatalf("the operation is %s, %v", end.outcome.State, end.outcome.Error)
	}
	asks := s.platform.named("provision")
	if len(asks) != 2 || asks[1].at.Sub(asks[0].at) != 7*time.Second {
		t.Errorf("the provider that asked to be left alone for 7 s was asked at %v", asks)
	}
}

func TestEnvironmentIsNotRepeated(t *testing.T) {
	t.Parallel()
	s := setup(t)
	seen := broken(bellhop.CodeContainerExited)
	seen.Failure = bellhop.Fail(bellhop.CodeContainerExited, "exited with code 1").With("logs", "cannot log in with "+secretEnv)
	s.observed(time.Second, seen)
	end := s.carryOut(bellhop.Provision, order(bellhop.Provision, nil))
	if got := end.outcome.Error.Evidence["logs"]; got != "cannot log in with [redacted]" {
		t.Errorf("evidence is %q", got)
	}
}

func TestTimeouts(t *testing.T) {
	rows := []struct {
		name, reason string
		timeout      string
		script       func(s *stage)
		start        any // default: the workflow type
		state        bellhop.State
		code         bellhop.Code
		says         string
		ids          bellhop.ResourceIDs
		took         time.Duration // 0: not asserted
		states       []bellhop.State
	}{
		{
			name: "NeverReady", reason: "what exists is looked for at the end, listed and left alone", timeout: "5m",
			script: func(s *stage) {
				last := pending()
				last.ResourceIDs = ids("web-1", "web-3")
				s.platform.observe = inTurn(pending(), pending(), last)
			},
			state: bellhop.Failed, code: bellhop.CodeTimeout, says: "did not end within 5m0s", ids: ids("web-1", "web-3"),
			took: 5 * time.Minute, states: reached(bellhop.Failed),
		},
		{
			name: "ReadyAfterAll", reason: "what turns out to be there at the last look is no failure", timeout: "30s",
			script: func(s *stage) { s.platform.observe = inTurn(ready()) },
			state:  bellhop.Succeeded, ids: ids("web-1", "web-2"), took: 30 * time.Second, states: reached(bellhop.Succeeded),
		},
		{
			name: "BrokenAfterAll", reason: "a reason is worth more than a timeout", timeout: "30s",
			script: func(s *stage) { s.platform.observe = inTurn(broken(bellhop.CodeOutOfMemory)) },
			state:  bellhop.Failed, code: bellhop.CodeOutOfMemory, ids: ids("web-1", "web-2"), took: 30 * time.Second,
			states: reached(bellhop.Failed),
		},
		{
			name: "BlindAtTheEnd", reason: "ids that are known are not lost to a provider that cannot be asked", timeout: "30s",
			script: func(s *stage) { s.platform.observe = inTurn(bellhop.Fail(bellhop.CodeProviderUnavailable, "down")) },
			state:  bellhop.Failed, code: bellhop.CodeTimeout, ids: ids("web-1"), states: reached(bellhop.Failed),
		},
		{
			name: "ProviderDown", reason: "the caller hears of its timeout, and why, though the provider never answered", timeout: "1m",
			script: func(s *stage) {
				down := bellhop.Fail(bellhop.CodeProviderUnavailable, "the engine does not answer")
				s.platform.ask, s.platform.observe = inTurn(down), inTurn(down)
			},
			state: bellhop.Failed, code: bellhop.CodeTimeout,
			says:   "the provider did not take the request in time: PROVIDER_UNAVAILABLE: the engine does not answer",
			states: []bellhop.State{bellhop.Pending, bellhop.Queued, bellhop.Failed},
		},
		{
			name: "NothingIsThere", reason: "nobody has removed what the provider never took", timeout: "1m",
			script: func(s *stage) {
				s.platform.ask = inTurn(bellhop.Fail(bellhop.CodeProviderThrottled, "later"))
				s.platform.observe = inTurn(bellhop.Observation{Phase: bellhop.PhaseGone})
			},
			state: bellhop.Failed, code: bellhop.CodeTimeout, says: "PROVIDER_THROTTLED: later",
			states: []bellhop.State{bellhop.Pending, bellhop.Queued, bellhop.Failed},
		},
		{
			name: "NoWorkerInTime", reason: "an operation that nobody took up in time is not begun late", timeout: "1m",
			script: func(s *stage) { s.platform.observe = inTurn(bellhop.Observation{Phase: bellhop.PhasePending}) },
			start: func(ctx workflow.Context, input converter.RawValue) (bellhop.Outcome, error) {
				// All workers were down; the first one to come back finds it.
				if err := workflow.Sleep(ctx, 2*time.Minute); err != nil {
					return bellhop.Outcome{}, err
				}
				return workflows.ProvisionCompute(ctx, input)
			},
			state: bellhop.Failed, code: bellhop.CodeTimeout, says: "no worker took the operation up in time",
			states: []bellhop.State{bellhop.Pending, bellhop.Queued, bellhop.Failed},
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := setup(t)
			row.script(s)
			began := row.start
			if began == nil {
				began = workflows.TypeFor(bellhop.Provision)
			}
			input := order(bellhop.Provision, fields{"timeout": row.timeout})
			end := s.start(began, bellhop.Provision, converter.NewRawValue(jsonPayload(input)))
			o := end.outcome
			if o.State != row.state || o.Error != nil && o.Error.Code != row.code {
				t.Fatalf("the operation is %s, %v; want %s %s: %s", o.State, o.Error, row.state, row.code, row.reason)
			}
			if row.says != "" && !strings.Contains(o.Error.Message, row.says) {
				t.Errorf("the error says %q, want %q in it", o.Error.Message, row.says)
			}
			if diff := cmp.Diff(row.ids, o.ResourceIDs); diff != "" {
				t.Errorf("resource ids (-want +got): %s\n%s", row.reason, diff)
			}
			if diff := cmp.Diff(row.states, end.states()); diff != "" {
				t.Errorf("states (-want +got): %s\n%s", row.reason, diff)
			}
			if took := time.Duration(o.DurationMS) * time.Millisecond; row.took > 0 && took != row.took {
				t.Errorf("took %s, want %s: %s", took, row.took, row.reason)
			}
			if removed := s.platform.named("delete"); len(removed) > 0 {
				t.Error("an operation that timed out removed what exists")
			}
			if diff := cmp.Diff([]string{o.CallbackID}, s.callers["orders"].told()); diff != "" {
				t.Errorf("the caller was told (-want +got):\n%s", diff)
			}
		})
	}
}

package workflows_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bellhop"
	"bellhop/bridge"
)

// cancelDuring is an ask or a look in the middle of which the operation is cancelled. It ends once something else is
// called, as one that is told of the cancellation does.
func cancelDuring(s *stage, answer bellhop.Observation, released <-chan struct{}) (bellhop.Observation, error) {
	s.CancelWorkflow()
	<-released
	return answer, nil
}

// once is a channel and what closes it, however often it is called.
func once() (<-chan struct{}, func()) {
	channel := make(chan struct{})
	return channel, sync.OnceFunc(func() { close(channel) })
}

func TestCancel(t *testing.T) {
	type script = func(s *stage)
	// The phases in which an operation may be cancelled; each is given what is seen next.
	phases := []struct {
		name   string
		states []bellhop.State
		script script
	}{
		{"Asking", []bellhop.State{bellhop.Pending, bellhop.Queued, bellhop.Cancelled}, func(s *stage) {
			released, release := once()
			ask, observe := s.platform.ask, s.platform.observe
			s.platform.ask = func(ctx context.Context, op bellhop.Operation, n int) (bellhop.Observation, error) {
				if op.Verb == bellhop.Delete {
					release()
					return ask(ctx, op, n)
				}
				return cancelDuring(s, pending(), released)
			}
			s.platform.observe = func(ctx context.Context, op bellhop.Operation, n int) (bellhop.Observation, error) {
				if n == 1 && op.Verb != bellhop.Delete {
					release()
				}
				return observe(ctx, op, n)
			}
		}},
		{"AskingAgain", []bellhop.State{bellhop.Pending, bellhop.Queued, bellhop.Cancelled}, func(s *stage) {
			ask := s.platform.ask
			s.platform.ask = func(ctx context.Context, op bellhop.Operation, n int) (bellhop.Observation, error) {
				if op.Verb == bellhop.Delete {
					return ask(ctx, op, n)
				}
				return bellhop.Observation{}, bellhop.Fail(bellhop.CodeProviderUnavailable, "down")
			}
			s.at(500*time.Millisecond, s.CancelWorkflow)
		}},
		{"Waiting", reached(bellhop.Cancelled), func(s *stage) { s.at(10*time.Second, s.CancelWorkflow) }},
		{"Looking", reached(bellhop.Cancelled), func(s *stage) {
			released, release := once()
			ask, observe := s.platform.ask, s.platform.observe
			s.platform.ask = func(ctx context.Context, op bellhop.Operation, n int) (bellhop.Observation, error) {
				if op.Verb == bellhop.Delete {
					release()
				}
				return ask(ctx, op, n)
			}
			s.platform.observe = func(ctx context.Context, op bellhop.Operation, n int) (bellhop.Observation, error) {
				if n == 1 {
					return cancelDuring(s, pending(), released)
				}
				if n == 2 && op.Verb != bellhop.Delete {
					release()
				}
				return observe(ctx, op, n)
			}
		}},
	}
	two := func() bellhop.Observation {
		seen := pending()
		seen.ResourceIDs = ids("web-1", "web-2")
		return seen
	}
	policies := []struct {
		name, reason string
		with         fields
		script       script
		says         string
		ids          bellhop.ResourceIDs
		removed      bool
	}{
		{
			name: "Leave", reason: "what exists is looked for, listed and left", script: func(s *stage) {
				s.platform.observe = inTurn(two())
			},
			says: "the operation was cancelled; what exists was left as it is", ids: ids("web-1", "web-2"),
		},
		{
			name: "Remove", reason: "what exists is removed before the caller is told", with: fields{"on_cancel": "remove"},
			script: func(s *stage) {
				s.platform.ask = func(_ context.Context, op bellhop.Operation, _ int) (bellhop.Observation, error) {
					if op.Verb == bellhop.Delete {
						return gone(), nil
					}
					return pending(), nil
				}
			},
			says: "the operation was cancelled and what existed was removed", removed: true,
		},
		{
			name: "RemoveSlowly", reason: "gone is observed, not assumed; until then it is listed", with: fields{"on_cancel": "remove"},
			script: func(s *stage) {
				s.platform.ask = inTurn(pending())
				s.platform.observe = func(_ context.Context, op bellhop.Operation, n int) (bellhop.Observation, error) {
					if n >= 3 && op.Verb == bellhop.Delete {
						return gone(), nil
					}
					return pending(), nil
				}
			},
			says: "the operation was cancelled and what existed was removed", removed: true,
		},
		{
			name: "RemoveFails", reason: "what remains is listed, with the reason why", with: fields{"on_cancel": "remove"},
			script: func(s *stage) {
				s.platform.ask = func(_ context.Context, op bellhop.Operation, _ int) (bellhop.Observation, error) {
					if op.Verb == bellhop.Delete {
						return broken(bellhop.CodePermissionDenied), nil
					}
					return pending(), nil
				}
			},
			says: "removing what exists did not end well: it broke with [redacted]", ids: ids("web-1", "web-2"), removed: true,
		},
		{
			name: "RemoveNeverAnswered", reason: "a provider that is down does not keep the caller waiting for ever", with: fields{"on_cancel": "remove"},
			script: func(s *stage) {
				s.platform.ask = func(_ context.Context, op bellhop.Operation, _ int) (bellhop.Observation, error) {
					if op.Verb == bellhop.Delete {
						return bellhop.Observation{}, bellhop.Fail(bellhop.CodeProviderUnavailable, "down")
					}
					return pending(), nil
				}
			},
			says: "what exists could not be removed: PROVIDER_UNAVAILABLE: down", removed: true,
		},
		{
			name: "RemoveNeverGone", reason: "what does not go in a quarter of an hour is listed", with: fields{"on_cancel": "remove"},
			script:  func(s *stage) { s.platform.ask, s.platform.observe = inTurn(pending()), inTurn(two()) },
			says:    "removing what exists did not end well: it was not gone within 15m0s",
			ids:     ids("web-1", "web-2"),
			removed: true,
		},
	}
	for _, phase := range phases {
		for _, policy := range policies {
			t.Run(phase.name+"/"+policy.name, func(t *testing.T) {
				t.Parallel()
				s := setup(t)
				s.platform.ask, s.platform.observe = inTurn(pending()), inTurn(pending())
				policy.script(s)
				phase.script(s)
				end := s.carryOut(bellhop.Provision, order(bellhop.Provision, policy.with))
				o := end.outcome
				if o.State != bellhop.Cancelled || o.Error.Code != bellhop.CodeCancelled {
					t.Fatalf("the operation is %s, %v; want it cancelled: %s", o.State, o.Error, policy.reason)
				}
				if !strings.Contains(o.Error.Message, policy.says) {
					t.Errorf("the error says %q, want %q in it: %s", o.Error.Message, policy.says, policy.reason)
				}
				if diff := cmp.Diff(phase.states, end.states()); diff != "" {
					t.Errorf("states (-want +got):\n%s", diff)
				}
				if removed := s.platform.named("delete"); policy.removed != (len(removed) > 0) {
					t.Errorf("the removal was asked for %d times: %s", len(removed), policy.reason)
				}
				if !policy.ids.IsZero() || policy.says == "the operation was cancelled and what existed was removed" {
					if diff := cmp.Diff(policy.ids, o.ResourceIDs); diff != "" {
						t.Errorf("resource ids (-want +got): %s\n%s", policy.reason, diff)
					}
				}
				if diff := cmp.Diff([]string{"op-1/cancelled"}, s.callers["orders"].told()); diff != "" {
					t.Errorf("the caller was told (-want +got):\n%s", diff)
				}
			})
		}
	}
}

func TestCancelOfOtherVerbsLeaves(t *testing.T) {
	for _, verb := range []bellhop.Verb{bellhop.Update, bellhop.Delete} {
		t.Run(string(verb), func(t *testing.T) {
			t.Parallel()
			s := setup(t)
			s.at(10*time.Second, s.CancelWorkflow)
			end := s.carryOut(verb, order(verb, nil))
			if end.outcome.State != bellhop.Cancelled {
				t.Fatalf("the operation is %s, %v", end.outcome.State, end.outcome.Error)
			}
			if diff := cmp.Diff(pending().ResourceIDs, end.outcome.ResourceIDs); diff != "" {
				t.Errorf("resource ids (-want +got):\n%s", diff)
			}
		})
	}
}

// What a cancelled operation removes dies, and a watcher that knows nothing of the removal reports that as the failure
// of what was provisioned.
func TestRemovalIsNotFailedByWhatItKills(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.platform.ask = inTurn(pending())
	s.at(10*time.Second, s.CancelWorkflow)
	s.observed(11*time.Second, broken(bellhop.CodeContainerExited))
	s.observed(12*time.Second, gone())
	end := s.carryOut(bellhop.Provision, order(bellhop.Provision, fields{"on_cancel": "remove"}))
	o := end.outcome
	if o.State != bellhop.Cancelled || o.Error.Message != "the operation was cancelled and what existed was removed" || o.Error.Evidence != nil {
		t.Fatalf("the operation is %s, %v", o.State, o.Error)
	}
	if o.DurationMS != 12_000 || !o.ResourceIDs.IsZero() {
		t.Errorf("it took %d ms and lists %+v", o.DurationMS, o.ResourceIDs)
	}
}

func TestCancelComesTooLate(t *testing.T) {
	t.Run("Delivering", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		s.platform.ask = inTurn(ready())
		s.caller("orders", refused, refused, refused, acknowledged)
		s.at(2*time.Second, s.CancelWorkflow)
		end := s.carryOut(bellhop.Provision, order(bellhop.Provision, nil))
		if end.outcome.State != bellhop.Succeeded {
			t.Errorf("the operation is %s: what has succeeded cannot be cancelled any more", end.outcome.State)
		}
		if receipt := end.receipt(t, "orders"); receipt.State != bellhop.ReceiptAcknowledged || receipt.Attempts != 4 {
			t.Errorf("receipt is %+v: the caller is told all the same", receipt)
		}
	})
	t.Run("LastLook", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		s.platform.observe = func(context.Context, bellhop.Operation, int) (bellhop.Observation, error) {
			s.CancelWorkflow()
			s.meanwhile(func() {})
			return pending(), nil
		}
		end := s.carryOut(bellhop.Provision, order(bellhop.Provision, fields{"timeout": "30s"}))
		if o := end.outcome; o.State != bellhop.Failed || o.Error.Code != bellhop.CodeTimeout {
			t.Errorf("the operation is %s, %v: it had timed out already", o.State, o.Error)
		}
	})
	t.Run("AnswerWasDone", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		s.caller("orders").answer = func(int, bridge.Message) bridge.Result {
			s.CancelWorkflow()
			s.meanwhile(func() {})
			return acknowledged
		}
		s.platform.ask = inTurn(ready())
		end := s.carryOut(bellhop.Provision, order(bellhop.Provision, nil))
		if end.outcome.State != bellhop.Succeeded {
			t.Errorf("the operation is %s", end.outcome.State)
		}
	})
}

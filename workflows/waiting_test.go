package workflows_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"bellhop"
	"bellhop/activities"
	"bellhop/bridge"
	"bellhop/workflows"
)

func TestBackstopGrows(t *testing.T) {
	rows := []struct {
		name, reason string
		backstop     activities.Backstop
		first, max   time.Duration
		timeout      string
	}{
		{
			name: "Default", reason: "one minute, doubling to ten: a day of waiting costs some 150 looks",
			first: time.Minute, max: 10 * time.Minute, timeout: "2h",
		},
		{
			name: "Configured", reason: "the worker's configuration reaches the workflow with the answer to the ask",
			backstop: activities.Backstop{First: 10 * time.Second, Max: 30 * time.Second},
			first:    10 * time.Second, max: 30 * time.Second, timeout: "10m",
		},
		{
			name: "MaxBelowFirst", reason: "a bound below the first interval does not shrink it",
			backstop: activities.Backstop{First: 10 * time.Minute, Max: time.Minute},
			first:    10 * time.Minute, max: 10 * time.Minute, timeout: "2h",
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := setup(t)
			s.activities.Backstop = row.backstop
			s.carryOut(bellhop.Provision, order(bellhop.Provision, fields{"timeout": row.timeout}))
			looks := s.platform.named("observe")
			if len(looks) < 5 {
				t.Fatalf("there were %d looks in %s", len(looks), row.timeout)
			}
			first := looks[0].at.Sub(start)
			if first < row.first || first > row.first*5/4 {
				t.Errorf("the first look came after %s, want %s to a quarter more: %s", first, row.first, row.reason)
			}
			interval := first
			for i := range looks[1 : len(looks)-1] { // the last one is the look at the end of the timeout
				interval = min(interval*2, max(row.max, first))
				if got := looks[i+1].at.Sub(looks[i].at); got != interval {
					t.Errorf("look %d came after %s, want %s: %s", i+2, got, interval, row.reason)
				}
			}
			for _, look := range looks {
				if len(look.op.Metadata) > 0 || look.op.Verb != bellhop.Provision || look.op.Spec.Image == "" {
					t.Errorf("a look was given %v", look.op)
				}
			}
		})
	}
}

// answer is what came of an update.
type answer struct {
	rejected, completed bool
	err                 error
	status              bellhop.Status
	at                  time.Time
}

// refresh asks for a refresh; the answer is filled in once there is one.
func (s *stage) refresh(id string) *answer {
	a := &answer{}
	s.UpdateWorkflow(workflows.UpdateRefresh, id, &testsuite.TestUpdateCallback{
		OnAccept: func() {},
		OnReject: func(err error) { a.rejected, a.err, a.at = true, err, s.Now() },
		OnComplete: func(result any, err error) {
			a.completed, a.err, a.at = true, err, s.Now()
			if status, ok := result.(bellhop.Status); ok {
				a.status = status
			}
		},
	})
	return a
}

func (a *answer) refusedAs(kind string) bool {
	var application *temporal.ApplicationError
	return a.rejected && errors.As(a.err, &application) && application.Type() == kind
}

func TestRefreshObserves(t *testing.T) {
	t.Parallel()
	s := setup(t)
	fresh := pending()
	fresh.ResourceIDs, fresh.Progress = ids("web-1", "web-2"), bellhop.Progress{Message: "almost", Ready: 1, Desired: 2}
	s.platform.observe = inTurn(fresh)
	var early, now *answer
	s.at(1999*time.Millisecond, func() { early = s.refresh("early") })
	s.at(2*time.Second, func() { now = s.refresh("now") })
	var details string
	s.at(5*time.Second, func() { details = s.details() })
	s.observed(10*time.Second, ready())
	s.carryOut(bellhop.Provision, order(bellhop.Provision, nil))
	if !strings.Contains(details, "1 of 2 ready: `almost`") {
		t.Errorf("Temporal's UI shows %q, want what was observed last", details)
	}
	if !early.refusedAs(workflows.ErrorFresh) {
		t.Errorf("a refresh within 2 s of the last observation was answered %+v, want it refused", early)
	}
	if !now.completed || now.err != nil {
		t.Fatalf("a refresh was answered %+v", now)
	}
	if diff := cmp.Diff(fresh.ResourceIDs, now.status.ResourceIDs); diff != "" || now.status.Progress.Message != "almost" || now.status.State != bellhop.Running {
		t.Errorf("a refresh answered %+v, want what was observed", now.status)
	}
	if observed := s.platform.named("observe"); len(observed) != 1 || observed[0].at != start.Add(2*time.Second) {
		t.Errorf("the platform was observed %v, want it once at 2 s", observed)
	}
}

func TestRefreshThatSeesTheEnd(t *testing.T) {
	for _, verb := range bellhop.Verbs() {
		t.Run(string(verb), func(t *testing.T) {
			t.Parallel()
			s := setup(t)
			s.platform.observe = inTurn(done(verb))
			var refreshed *answer
			s.at(5*time.Second, func() { refreshed = s.refresh("r") })
			end := s.carryOut(verb, order(verb, nil))
			if end.outcome.State != bellhop.Succeeded || end.outcome.DurationMS != 5000 {
				t.Errorf("the operation is %s after %d ms, want it to end with what the refresh saw", end.outcome.State, end.outcome.DurationMS)
			}
			if !refreshed.completed || refreshed.status.State != bellhop.Succeeded {
				t.Errorf("the refresh that saw the end answered %s", refreshed.status.State)
			}
		})
	}
}

func TestRefreshesTogetherLookOnce(t *testing.T) {
	t.Parallel()
	s := setup(t)
	var answers []*answer
	s.platform.observe = func(context.Context, bellhop.Operation, int) (bellhop.Observation, error) {
		s.meanwhile(func() {
			if len(answers) < 3 {
				answers = append(answers, s.refresh("third"))
			}
		})
		s.meanwhile(func() {})
		return pending(), nil
	}
	s.at(5*time.Second, func() { answers = append(answers, s.refresh("first"), s.refresh("second")) })
	s.observed(20*time.Second, ready())
	s.carryOut(bellhop.Provision, order(bellhop.Provision, nil))
	if looks := len(s.platform.named("observe")); looks != 1 {
		t.Errorf("three refreshes at once looked %d times, want one look in 2 s", looks)
	}
	refused := 0
	for _, a := range answers {
		if a.refusedAs(workflows.ErrorFresh) {
			refused++
		}
	}
	if len(answers) != 3 || refused != 2 {
		t.Errorf("%d of %d refreshes were refused, want those that came while the first one looked", refused, len(answers))
	}
}

func TestRefreshOfWhatCannotBeAsked(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.platform.observe = inTurn(bellhop.Fail(bellhop.CodeProviderUnavailable, "the engine does not answer"))
	var refreshed *answer
	s.at(5*time.Second, func() { refreshed = s.refresh("r") })
	s.observed(50*time.Second, ready())
	end := s.carryOut(bellhop.Provision, order(bellhop.Provision, nil))
	if !refreshed.completed || refreshed.status.State != bellhop.Running ||
		refreshed.status.Progress.Message != "could not be observed: PROVIDER_UNAVAILABLE: the engine does not answer" {
		t.Errorf("the refresh was answered %+v, want what is known and why it is no more", refreshed)
	}
	if end.status.Progress.Message != "" {
		t.Errorf("the operation that succeeded still says %q", end.status.Progress.Message)
	}
}

func TestRefreshInOtherPhases(t *testing.T) {
	t.Run("Asking", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		var refreshed *answer
		s.platform.ask = func(context.Context, bellhop.Operation, int) (bellhop.Observation, error) {
			s.meanwhile(func() { refreshed = s.refresh("r") })
			s.meanwhile(func() {})
			return ready(), nil
		}
		s.carryOut(bellhop.Provision, order(bellhop.Provision, nil))
		if !refreshed.completed || refreshed.status.State != bellhop.Queued || len(s.platform.named("observe")) > 0 {
			t.Errorf("a refresh while the provider is asked was answered %+v: there is nothing to observe yet", refreshed)
		}
	})
	t.Run("TooOften", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		var before, after *answer
		s.at(10*time.Second, func() { before = s.refresh("a") })
		s.at(20*time.Second, func() { s.SetCurrentHistoryLength(20_001); after = s.refresh("b") })
		s.observed(30*time.Second, ready())
		s.carryOut(bellhop.Provision, order(bellhop.Provision, nil))
		if !before.completed || !after.refusedAs(workflows.ErrorFresh) {
			t.Errorf("refreshes were answered %+v and %+v; nobody's polling may end the workflow", before, after)
		}
	})
	t.Run("Finished", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		s.platform.ask = inTurn(ready())
		s.caller("orders", refused, refused, refused, refused, acknowledged)
		var refreshed *answer
		s.at(5*time.Second, func() { refreshed = s.refresh("r") })
		s.carryOut(bellhop.Provision, order(bellhop.Provision, nil))
		if !refreshed.refusedAs(workflows.ErrorFinished) {
			t.Errorf("a refresh after the end was answered %+v, want it refused", refreshed)
		}
	})
}

func TestStatusInEveryPhase(t *testing.T) {
	t.Parallel()
	s := setup(t)
	var asking, running, delivering bellhop.Status
	var askingDetails, runningDetails string
	s.platform.ask = func(context.Context, bellhop.Operation, int) (bellhop.Observation, error) {
		s.meanwhile(func() { asking, askingDetails = s.status(), s.details() })
		return pending(), nil
	}
	s.at(10*time.Second, func() { running, runningDetails = s.status(), s.details() })
	s.observed(30*time.Second, broken(bellhop.CodeHealthCheckFailed))
	s.caller("orders").answer = func(n int, _ bridge.Message) bridge.Result {
		if n == 1 {
			s.meanwhile(func() { delivering = s.status() })
			return refused
		}
		return acknowledged
	}
	end := s.carryOut(bellhop.Provision, order(bellhop.Provision, nil))

	if asking.State != bellhop.Queued || asking.CallbackID != "op-1/queued" || asking.Event != "" || asking.Error != nil ||
		len(asking.Transitions) != 2 || asking.Progress != (bellhop.Progress{Desired: 2}) ||
		!asking.ResourceIDs.IsZero() || asking.Callbacks[0] != (bellhop.Receipt{Target: "orders", State: bellhop.ReceiptPending}) {
		t.Errorf("status while asking is %+v", asking)
	}
	if running.State != bellhop.Running || running.CallbackID != "op-1/running" || running.Event != bellhop.EventRunning ||
		running.Progress != pending().Progress || !cmp.Equal(running.ResourceIDs, pending().ResourceIDs) || !running.FinishedAt.IsZero() {
		t.Errorf("status while waiting is %+v", running)
	}
	if delivering.State != bellhop.Failed || delivering.Error == nil || delivering.FinishedAt != start.Add(30*time.Second) ||
		delivering.Callbacks[0] != (bellhop.Receipt{Target: "orders", State: bellhop.ReceiptDelivering, CallbackID: "op-1/failed"}) {
		t.Errorf("status while delivering is %+v", delivering)
	}
	if end.status.Progress.Message != "" || end.status.Progress.Desired != 2 {
		t.Errorf("progress at the end is %+v: the error says what happened", end.status.Progress)
	}
	for _, shown := range []struct{ phase, details, want string }{
		{"asking", askingDetails, "**queued** provision `acme/web` on `sim`"},
		{"asking", askingDetails, "0 of 2 ready"},
		{"asking", askingDetails, "| `orders` | pending |"},
		{"waiting", runningDetails, "**running** provision `acme/web` on `sim`"},
		{"waiting", runningDetails, "1 of 2 ready: `1 of 2 is healthy`"},
		{"closed", end.details, "**failed** provision `acme/web` on `sim`"},
		{"closed", end.details, "**HEALTH_CHECK_FAILED** `it broke with [redacted]`"},
		{"closed", end.details, "| `orders` | acknowledged |"},
	} {
		if !strings.Contains(shown.details, shown.want) {
			t.Errorf("Temporal's UI shows while %s:\n%s\nwant in it: %s", shown.phase, shown.details, shown.want)
		}
	}
}

// TestDetails_OfATenantsOwnText has a failure say what Temporal's UI would act on.
func TestDetails_OfATenantsOwnText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"![x](http://evil.invalid/x.png)":       "`![x](http://evil.invalid/x.png)`",
		"a `code` ![x](http://evil.invalid)":    "`a 'code' ![x](http://evil.invalid)`",
		"<img src=x onerror=alert(1)>\n# title": "`<img src=x onerror=alert(1)> # title`",
		"\x1b]0;owned\x07":                      "` ]0;owned `",
	} {
		s := setup(t)
		failing := broken(bellhop.CodeContainerExited)
		failing.Failure.Message = text
		s.observed(10*time.Second, failing)
		end := s.carryOut(bellhop.Provision, order(bellhop.Provision, nil))
		if !strings.Contains(end.details, want) {
			t.Errorf("of %q Temporal's UI shows %q, want in it %q", text, end.details, want)
		}
	}
}

func TestSearchAttributes(t *testing.T) {
	all := map[string]string{"BellhopTenant": "acme", "BellhopResource": "web", "BellhopProvider": "sim"}
	set := func(more ...string) map[string]string {
		want := maps.Clone(all)
		want["BellhopState"] = more[0]
		return want
	}
	state := func(s string) map[string]string { return map[string]string{"BellhopState": s} }
	byBellhop := []temporal.SearchAttributeUpdate{
		workflows.Tenant.ValueSet("acme"), workflows.Resource.ValueSet("web"), workflows.Provider.ValueSet("sim"),
	}
	rows := []struct {
		name, reason string
		// starter are the search attributes that the workflow is started with.
		starter []temporal.SearchAttributeUpdate
		script  func(s *stage)
		input   fields
		want    []map[string]string
	}{
		{
			name: "StartedByAnybody", reason: "an operation is found by what it is, however it was started",
			script: func(s *stage) { s.observed(time.Second, ready()) },
			want:   []map[string]string{set("queued"), state("running"), state("succeeded")},
		},
		{
			name: "StartedByBellhop", reason: "each upsert costs as much as an activity: what the starter has set is not set again",
			starter: byBellhop, script: func(s *stage) { s.observed(time.Second, ready()) },
			want: []map[string]string{state("running")},
		},
		{
			name: "DoneAtOnce", reason: "nobody can search for a state that lasts no time; a closed workflow tells the last by itself",
			starter: byBellhop, script: func(s *stage) { s.platform.ask = inTurn(ready()) },
		},
		{
			name: "RungSlowly", reason: "while a caller cannot be reached the operation is found by its state",
			starter: byBellhop, script: func(s *stage) {
				s.platform.ask = inTurn(ready())
				s.caller("orders", lost, lost, lost, lost, lost, acknowledged)
			},
			input: fields{"callbacks": []fields{callback("orders", nil)}},
			want:  []map[string]string{state("succeeded")},
		},
		{
			name: "StartedByAnOlderBellhop", reason: "where the state was set at the start each change of it is published",
			starter: append(byBellhop, workflows.State.ValueSet("pending")),
			script:  func(s *stage) { s.observed(time.Second, ready()) },
			want:    []map[string]string{state("running"), state("succeeded")},
		},
		{
			name: "GivenUp", reason: "an operator finds whom nothing reached, each target once",
			starter: byBellhop, script: func(s *stage) {
				s.platform.ask = inTurn(ready())
				s.caller("orders", gone404)
				s.caller("pager", badAddress)
				s.caller("third")
			},
			input: fields{"callbacks": []fields{
				callback("orders", nil), callback("third", nil), callback("pager", nil), callback("orders", fields{"address": fields{"workflow_id": "b"}}),
			}},
			want: []map[string]string{{"BellhopUndelivered": "[orders pager]"}},
		},
		{
			name:   "NoNames",
			reason: "a server refuses a workflow task over an attribute that is too long, for ever, and nobody would be told",
			script: func(*stage) {}, input: fields{"tenant_id": strings.Repeat("a", 3000), "resource": "../..", "provider": ""},
			want: []map[string]string{state("queued"), state("failed")},
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := setup(t)
			row.script(s)
			var got []map[string]string
			s.OnUpsertTypedSearchAttributes(mock.Anything).Run(func(args mock.Arguments) {
				upserted := map[string]string{}
				for key, value := range args.Get(0).(temporal.SearchAttributes).GetUntypedValues() {
					upserted[key.GetName()] = fmt.Sprint(value)
				}
				got = append(got, upserted)
			})
			if row.starter != nil {
				if err := s.SetTypedSearchAttributesOnStart(temporal.NewSearchAttributes(row.starter...)); err != nil {
					t.Fatal(err)
				}
			}
			s.carryOut(bellhop.Provision, order(bellhop.Provision, row.input))
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("upserts (-want +got): %s\n%s", row.reason, diff)
			}
		})
	}
}

package simulated

import (
	"errors"
	"slices"
	"testing"
	"time"

	"bellhop"
)

func TestCheckNamesEveryFault(t *testing.T) {
	for _, row := range []struct {
		reason string
		verb   bellhop.Verb
		script string
		paths  []string
	}{
		{"nothing is required", bellhop.Provision, ``, nil},
		{"not even a field", bellhop.Provision, `{}`, nil},
		{"all fields at once", bellhop.Provision, `{"ready_after": "1s", "ask_takes": "1ms", "lose_answers": 1, "throttle": 2,
			"retry_after": "1s", "unavailable": 3,
			"fail": {"code": "OUT_OF_MEMORY", "at": "after", "after": "2s", "message": "too much"}}`, nil},
		{
			"a typo is found, and does not hide another", bellhop.Provision, `{"ready_afterwards": "1s", "loose_answers": 1}`,
			[]string{"provider_config.loose_answers", "provider_config.ready_afterwards"},
		},
		{
			"nothing happens before it was asked for", bellhop.Provision,
			`{"ready_after": "-1s", "ask_takes": "-1s", "retry_after": "-1s", "lose_answers": -1, "throttle": -1, "unavailable": -1,
				"fail": {"code": "INTERNAL", "after": "-1s"}}`,
			[]string{
				"provider_config.ask_takes", "provider_config.fail.after", "provider_config.lose_answers",
				"provider_config.ready_after", "provider_config.retry_after", "provider_config.throttle", "provider_config.unavailable",
			},
		},
		{
			"a failure needs a code of bellhop's", bellhop.Provision, `{"fail": {"code": "BAD_LUCK", "at": "never"}}`,
			[]string{"provider_config.fail.at", "provider_config.fail.code"},
		},
		{"a code is required", bellhop.Provision, `{"fail": {}}`, []string{"provider_config.fail.code"}},
		{
			"an ask that is refused is refused at once", bellhop.Provision,
			`{"fail": {"code": "QUOTA_EXCEEDED", "at": "ask", "after": "1s"}}`,
			[]string{"provider_config.fail.after"},
		},
		{
			"what is gone cannot become unhealthy", bellhop.Delete, `{"fail": {"code": "INTERNAL", "at": "after"}}`,
			[]string{"provider_config.fail.at"},
		},
		{"it is an object", bellhop.Provision, `["1s"]`, []string{"provider_config"}},
	} {
		t.Run(row.reason, func(t *testing.T) {
			err := new(Provider).Check(bellhop.Operation{Verb: row.verb, ProviderConfig: []byte(row.script)})
			var faults bellhop.Faults
			if err != nil && !errors.As(err, &faults) {
				t.Fatalf("the error is %v, want bellhop.Faults", err)
			}
			var paths []string
			for _, fault := range faults {
				paths = append(paths, fault.Path)
			}
			if !slices.Equal(paths, row.paths) {
				t.Errorf("found faults at %q, want %q (%v)", paths, row.paths, err)
			}
		})
	}
}

// TestTime plays a script on paper: no clock runs, so every instant can be looked at.
func TestTime(t *testing.T) {
	const start = int64(1_000_000 * time.Second)
	type at struct {
		after   time.Duration
		phase   bellhop.Phase
		ready   int // of 4
		ids     int // 4 of its own, 2 of the old
		comment string
	}
	for _, row := range []struct {
		reason string
		verb   bellhop.Verb
		script string
		times  []at
	}{
		{"without a script all is ready with the answer", bellhop.Provision, ``, []at{
			{0, bellhop.PhaseReady, 4, 4, "and the old is gone"},
			{time.Hour, bellhop.PhaseReady, 4, 4, "for good"},
		}},
		{"replicas become ready one by one", bellhop.Provision, `{"ready_after": "4s"}`, []at{
			{0, bellhop.PhasePending, 0, 6, "beside the old"},
			{999 * time.Millisecond, bellhop.PhasePending, 0, 6, "not yet"},
			{time.Second, bellhop.PhasePending, 1, 6, "the first"},
			{3999 * time.Millisecond, bellhop.PhasePending, 3, 6, "all but one is not ready"},
			{4 * time.Second, bellhop.PhaseReady, 4, 4, "all, and the old is gone"},
		}},
		{"it fails when it should have been ready", bellhop.Update, `{"ready_after": "2s", "fail": {"code": "CONTAINER_EXITED"}}`, []at{
			{1999 * time.Millisecond, bellhop.PhasePending, 3, 6, "all looks well"},
			{2 * time.Second, bellhop.PhaseFailed, 3, 6, "one never made it, and the old serves on"},
			{time.Hour, bellhop.PhaseFailed, 3, 6, "for good"},
		}},
		{"it fails earlier than that", bellhop.Update, `{"ready_after": "1h", "fail": {"code": "OUT_OF_MEMORY", "after": "1s"}}`, []at{
			{999 * time.Millisecond, bellhop.PhasePending, 3, 6, "it is on its way"},
			{time.Second, bellhop.PhaseFailed, 3, 6, "and will not get there"},
			{2 * time.Hour, bellhop.PhaseFailed, 3, 6, "ever"},
		}},
		{"a platform that rolls back takes away what it had made", bellhop.Update, `{"ready_after": "1s", "fail": {"code": "ROLLED_BACK"}}`, []at{
			{0, bellhop.PhasePending, 0, 6, "both"},
			{time.Second, bellhop.PhaseFailed, 3, 2, "the old alone"},
		}},
		{"what was ready becomes unhealthy", bellhop.Provision, `{"ready_after": "1s", "fail": {"code": "HEALTH_CHECK_FAILED", "at": "after", "after": "1s"}}`, []at{
			{0, bellhop.PhasePending, 0, 6, "not yet"},
			{time.Second, bellhop.PhaseReady, 4, 4, "well for a second"},
			{2 * time.Second, bellhop.PhaseFailed, 3, 4, "the old does not come back"},
		}},
		{"what is deleted goes one by one", bellhop.Delete, `{"ready_after": "2s"}`, []at{
			{0, bellhop.PhasePending, 2, 2, "all stands"},
			{time.Second, bellhop.PhasePending, 1, 2, "gone is said at the end only"},
			{2 * time.Second, bellhop.PhaseGone, 0, 0, "nothing stands"},
		}},
		{"a deletion that fails leaves what it should have removed", bellhop.Delete, `{"ready_after": "1s", "fail": {"code": "PERMISSION_DENIED"}}`, []at{
			{0, bellhop.PhasePending, 2, 2, "all stands"},
			{time.Second, bellhop.PhaseFailed, 1, 2, "it stands"},
		}},
	} {
		t.Run(row.reason, func(t *testing.T) {
			old := &record{id: "old", verb: bellhop.Provision, tenant: "acme", resource: "web", replicas: 2, acceptedAt: 1, doneAt: 1}
			op := bellhop.Operation{
				ID: "new", Verb: row.verb, TenantID: "acme", Resource: "web", ProviderConfig: []byte(row.script),
				RequestedAt: time.Unix(0, start),
			}
			if row.verb != bellhop.Delete {
				op.Spec.Replicas = 4
			}
			script, faults := parseScript(op)
			if len(faults) > 0 {
				t.Fatal(faults)
			}
			fresh := accept(op, script, old, start)
			changes := map[int64]bool{start: true} // when a watcher would look
			for now := start; fresh.next(now) != 0; {
				now = fresh.next(now)
				changes[now] = true
			}
			last := bellhop.PhasePending
			for _, at := range row.times {
				now := start + int64(at.after)
				seen := fresh.observe(now)
				if seen.Phase != at.phase || seen.Progress.Ready != at.ready || len(seen.ResourceIDs.SimulatedIDs) != at.ids {
					t.Errorf("after %s (%s): %s, %d ready, ids %q; want %s, %d, %d of them", at.after, at.comment, seen.Phase,
						seen.Progress.Ready, seen.ResourceIDs.SimulatedIDs, at.phase, at.ready, at.ids)
				}
				if (seen.Failure != nil) != (at.phase == bellhop.PhaseFailed) {
					t.Errorf("after %s: failure %v", at.after, seen.Failure)
				}
				if seen.Phase != last && !changes[now] {
					t.Errorf("after %s it becomes %s, and no watcher looks", at.after, seen.Phase)
				}
				last = seen.Phase
			}
		})
	}
}

func TestEveryCodeHasAMessage(t *testing.T) {
	for _, info := range bellhop.Codes() {
		failure := (&Failing{Code: info.Code}).failure()
		if failure.Code != info.Code || failure.Message == "" || failure.Retryable != info.Retryable {
			t.Errorf("%s looks like %+v", info.Code, failure)
		}
		if said := (&Failing{Code: info.Code, Message: "so it is"}).failure().Message; said != "so it is" {
			t.Errorf("%s says %q, not what the script says", info.Code, said)
		}
	}
}

// TestOutcomesStayDeliverable: the ids of as many replicas as an operation may have, twice, fit into what the narrowest
// engine carries.
func TestOutcomesStayDeliverable(t *testing.T) {
	ids := resourceIDs("acme", "web", []replicaSet{{OperationID: "new", Replicas: bellhop.MaxReplicas}, {OperationID: "old", Replicas: bellhop.MaxReplicas}})
	size, seen := 0, map[string]bool{}
	for _, id := range ids.SimulatedIDs {
		size += len(id) + len(`"",`)
		seen[id] = true
	}
	if size > 64<<10 || len(seen) != 2*bellhop.MaxReplicas {
		t.Errorf("%d ids, %d different, are %d bytes large", len(ids.SimulatedIDs), len(seen), size)
	}
}

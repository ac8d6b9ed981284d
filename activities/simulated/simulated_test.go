package simulated_test

import (
	"database/sql"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bellhop"
	"bellhop/activities/simulated"
)

func TestScriptedRefusals(t *testing.T) {
	for _, row := range []struct {
		reason  string
		script  string
		answers []string // a code for an error, a phase for an answer
		effects int
	}{
		{"nothing is refused that no script refuses", ``, []string{"ready", "ready"}, 1},
		{
			"a lost answer was applied: the next ask finds it", `{"lose_answers": 2}`,
			[]string{"PROVIDER_UNAVAILABLE", "PROVIDER_UNAVAILABLE", "ready", "ready"},
			1,
		},
		{"a throttled ask was not", `{"throttle": 1}`, []string{"PROVIDER_THROTTLED", "ready"}, 1},
		{
			"all of it, in its order", `{"throttle": 2, "unavailable": 1, "lose_answers": 1}`,
			[]string{"PROVIDER_THROTTLED", "PROVIDER_THROTTLED", "PROVIDER_UNAVAILABLE", "PROVIDER_UNAVAILABLE", "ready"},
			1,
		},
		{
			"a platform that is out of order for good says so for good", `{"fail": {"code": "PROVIDER_UNAVAILABLE", "at": "ask"}}`,
			[]string{"PROVIDER_UNAVAILABLE", "PROVIDER_UNAVAILABLE", "PROVIDER_UNAVAILABLE"},
			0,
		},
		{
			"what is refused at the ask is an end, and leaves no trace", `{"fail": {"code": "QUOTA_EXCEEDED", "at": "ask"}}`,
			[]string{"failed", "failed"},
			0,
		},
		{"a fault in the script that nobody checked is an end too", `{"loose_answers": 1}`, []string{"failed"}, 0},
	} {
		t.Run(row.reason, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "platform.db")
			op := operation(bellhop.Provision, "acme", "web", row.script)
			var answers []string
			for range row.answers {
				provider := open(t, path) // each ask comes from another worker: what was refused is in the file
				seen, err := provider.Provision(t.Context(), op)
				var failure *bellhop.Failure
				switch {
				case errors.As(err, &failure):
					answers = append(answers, string(failure.Code))
					if failure.Code == bellhop.CodeProviderThrottled && failure.RetryAfter != 100*time.Millisecond {
						t.Errorf("retry after %s, want the default", failure.RetryAfter)
					}
				case err != nil:
					t.Fatal(err)
				default:
					answers = append(answers, string(seen.Phase))
				}
			}
			if !slices.Equal(answers, row.answers) {
				t.Errorf("answers %q, want %q", answers, row.answers)
			}
			ledger, err := open(t, path).Ledger(t.Context(), "acme")
			if err != nil {
				t.Fatal(err)
			}
			effects := 0
			for _, entry := range ledger {
				effects += entry.Effects
			}
			if effects != row.effects {
				t.Errorf("%d effects, want %d: %+v", effects, row.effects, ledger)
			}
		})
	}
}

func TestMeddling(t *testing.T) {
	provider := open(t, filepath.Join(t.TempDir(), "platform.db"))
	ctx := t.Context()
	wants := func(err error, text string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v, want %q", err, text)
		}
	}
	wants(provider.Break(ctx, "acme", "web", bellhop.CodeOutOfMemory), "break acme/web: it is not ready")
	wants(provider.Vacate(ctx, "acme", "web"), "vacate acme/web: it is not occupied")
	if err := provider.Occupy(ctx, "acme", "web", "the neighbour"); err != nil {
		t.Fatal(err)
	}
	wants(provider.Occupy(ctx, "acme", "web", "another"), "occupy acme/web: it is taken")
	op := operation(bellhop.Provision, "acme", "web", "")
	if seen, err := provider.Provision(ctx, op); err != nil || seen.Failure == nil || seen.Failure.Code != bellhop.CodeResourceConflict {
		t.Errorf("occupied, it is %+v, %v", seen, err)
	}
	if err := provider.Vacate(ctx, "acme", "web"); err != nil {
		t.Fatal(err)
	}
	if seen, err := provider.Provision(ctx, op); err != nil || seen.Phase != bellhop.PhaseReady {
		t.Errorf("vacated, it is %+v, %v", seen, err)
	}
	wants(provider.Occupy(ctx, "acme", "web", "another"), "occupy acme/web: it is taken")
	if err := provider.Break(ctx, "acme", "web", bellhop.CodeOutOfMemory); err != nil {
		t.Fatal(err)
	}
	resources, err := provider.Resources(ctx, "acme")
	if err != nil || len(resources) != 1 || resources[0].Phase != bellhop.PhaseFailed || len(resources[0].IDs) != 1 {
		t.Errorf("broken, there stand %+v, %v", resources, err)
	}
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	_, err := simulated.New(simulated.Config{PollInterval: -1})
	var faults bellhop.Faults
	if !errors.As(err, &faults) || len(faults) != 2 {
		t.Errorf("error %v, want two faults", err)
	}
	path := filepath.Join(t.TempDir(), "platform.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := simulated.New(simulated.Config{Path: path}); err == nil || !strings.Contains(err.Error(), "layout 99") {
		t.Errorf("a file of another layout: error %v", err)
	}
}

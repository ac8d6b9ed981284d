package simulated

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"bellhop"
)

// TestTheFileForgets: what was superseded goes after an hour, what was deleted after a week and a day, and what stands
// never. The generation of a deletion fences as long as it is remembered.
func TestTheFileForgets(t *testing.T) {
	provider, err := New(Config{Path: filepath.Join(t.TempDir(), "platform.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer provider.Close() //nolint:errcheck // the test is over
	start := time.Now().Add(-30 * 24 * time.Hour)
	at := func(after time.Duration, verb bellhop.Verb, resource string) bellhop.Operation {
		t.Helper()
		now := start.Add(after)
		op := bellhop.Operation{ID: fmt.Sprintf("%s-%s-%s", verb, resource, after), Verb: verb, TenantID: "acme", Resource: resource, RequestedAt: now}
		if verb != bellhop.Delete {
			op.Spec.Replicas = 1
		}
		err := provider.store.write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			if _, err := provider.store.apply(ctx, tx, op, Script{}, now.UnixNano()); err != nil {
				return err
			}
			return forget(ctx, tx, now.UnixNano())
		})
		if err != nil {
			t.Fatal(err)
		}
		return op
	}
	remembered := func() map[string]bool {
		t.Helper()
		ledger, err := provider.Ledger(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		ids := map[string]bool{}
		for _, entry := range ledger {
			ids[entry.OperationID] = true
		}
		return ids
	}
	first := at(0, bellhop.Provision, "web")
	second := at(time.Minute, bellhop.Update, "web")
	kept := at(2*time.Minute, bellhop.Provision, "db")
	deletion := at(3*time.Minute, bellhop.Delete, "web")
	if ids := remembered(); len(ids) != 4 {
		t.Errorf("remembers %v, want all four", ids)
	}
	at(2*time.Hour, bellhop.Provision, "other")
	ids := remembered()
	if ids[first.ID] || ids[second.ID] || !ids[kept.ID] || !ids[deletion.ID] {
		t.Errorf("remembers %v after two hours, want neither of the superseded", ids)
	}
	if seen, err := provider.Observe(t.Context(), first); err != nil || seen.Phase != bellhop.PhaseSuperseded {
		t.Errorf("the first is %s, %v, want superseded", seen.Phase, err)
	}
	at(9*24*time.Hour, bellhop.Provision, "another")
	if ids := remembered(); ids[deletion.ID] || !ids[kept.ID] {
		t.Errorf("remembers %v after nine days, want no deletion", ids)
	}
	if seen, err := provider.Observe(t.Context(), deletion); err != nil || seen.Phase != bellhop.PhaseGone {
		t.Errorf("the deletion is %s, %v, want gone", seen.Phase, err)
	}
}

package simulated_test

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"bellhop"
	"bellhop/activities/simulated"
)

// TestKilledWorkersLoseAndDoubleNothing carries a plan out with workers that are killed at any point, each successor
// beginning with the operation of which its predecessor did not say that it was asked.
func TestKilledWorkersLoseAndDoubleNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "platform.db")
	ops := plan(plannedTenants)
	next, kills := 0, 0
	for next < len(ops) {
		w := startWorker(t, path, "plan", next)
		// It is left alone for a few operations, then killed: while it starts, between two calls or in the middle of one.
		heard := func() bool {
			line, ok := w.hear()
			if ok {
				done, err := strconv.Atoi(line)
				if err != nil {
					t.Fatal(err)
				}
				next = done + 1
			}
			return ok
		}
		for range rand.IntN(7) {
			if !heard() {
				break
			}
		}
		<-time.After(rand.N(3 * time.Millisecond))
		if err := w.cmd.Process.Kill(); err == nil && next < len(ops) {
			kills++
		}
		for heard() { // what it said before it died
		}
		_ = w.cmd.Wait() //nolint:errcheck // it was killed
	}
	t.Logf("%d operations, %d workers killed", len(ops), kills)
	carriedOut(t, open(t, path), ops)
}

// TestWorkersAtOnce lets many workers carry the same plan out at once, beginning with making the file.
func TestWorkersAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "folder", "platform.db")
	var workers sync.WaitGroup
	for range 5 {
		w := startWorker(t, path, "plan", 0)
		workers.Go(func() {
			for _, ok := w.hear(); ok; _, ok = w.hear() {
			}
			if err := w.cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	workers.Wait()
	carriedOut(t, open(t, path), plan(plannedTenants))
}

// carriedOut checks that every operation had its effect once, and that what stands is what the last ones asked for.
func carriedOut(t *testing.T, provider *simulated.Provider, ops []bellhop.Operation) {
	t.Helper()
	last := map[string]bellhop.Operation{}
	for _, op := range ops {
		last[op.TenantID] = op
	}
	ledger, err := provider.Ledger(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	asks, effects := 0, map[string]int{}
	for _, entry := range ledger {
		effects[entry.OperationID] += entry.Effects
		asks += entry.Asks
	}
	for _, op := range ops {
		if effects[op.ID] != 1 {
			t.Errorf("%s had %d effects, want 1", op.ID, effects[op.ID])
		}
	}
	if len(ledger) != len(ops) {
		t.Errorf("%d operations were accepted, want %d", len(ledger), len(ops))
	}
	resources, err := provider.Resources(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	standing := map[string]simulated.Resource{}
	for _, resource := range resources {
		standing[resource.Tenant] = resource
	}
	for tenant, op := range last {
		resource, ok := standing[tenant]
		switch {
		case op.Verb == bellhop.Delete && ok:
			t.Errorf("%s was deleted, and %q stand", tenant, resource.IDs)
		case op.Verb != bellhop.Delete && (resource.OperationID != op.ID || resource.Phase != bellhop.PhaseReady || len(slices.Compact(resource.IDs)) != 3):
			t.Errorf("of %s stands %+v, want 3 replicas of %s", tenant, resource, op.ID)
		}
	}
	t.Logf("%d operations were asked for %d times and had %d effects", len(ops), asks, len(effects))
}

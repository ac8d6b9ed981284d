package simulated_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"bellhop"
)

// TestReportsComeSoon measures how long after its moment an end is reported that another process asked for: at most
// Config.PollInterval and what the machine is late.
func TestReportsComeSoon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "platform.db")
	provider := open(t, path)
	const count, takes = 200, 30 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reported := make(chan string, count)
	at := map[string]time.Time{}
	watching, done := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	go func() {
		done <- provider.Watch(ctx, func(seen bellhop.Observation) {
			switch {
			case seen.OperationID == "first":
				once.Do(func() { close(watching) })
			case seen.Phase == bellhop.PhaseReady:
				at[seen.OperationID] = time.Now()
				reported <- seen.OperationID
			}
		})
	}()
	first := operation(bellhop.Provision, "acme", "web", `{"ready_after": "1ms"}`)
	first.ID = "first"
	if _, err := provider.Provision(ctx, first); err != nil {
		t.Fatal(err)
	}
	<-watching
	w := startWorker(t, path, "waiting", count)
	for _, ok := w.hear(); ok; _, ok = w.hear() {
	}
	if err := w.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	for range count {
		<-reported
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	ledger, err := provider.Ledger(t.Context(), fmt.Sprintf("tenant-%d", w.cmd.Process.Pid))
	if err != nil || len(ledger) != count {
		t.Fatalf("the ledger has %d entries, want %d: %v", len(ledger), count, err)
	}
	var late []time.Duration
	for _, entry := range ledger {
		late = append(late, at[entry.OperationID].Sub(entry.AcceptedAt.Add(takes)))
	}
	slices.Sort(late)
	t.Logf("reported after p50 %s, p99 %s, max %s", late[count/2], late[count*99/100], late[count-1])
	if late[0] < 0 {
		t.Errorf("one was reported %s before it was ready", -late[0])
	}
}

// TestInstantChangesOfOthers is the worst case for a watcher that polls: changes by others that are ends already.
func TestInstantChangesOfOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "platform.db")
	watches, asks := open(t, path), open(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reported := make(chan time.Time, 1)
	done := make(chan error, 1)
	go func() {
		done <- watches.Watch(ctx, func(bellhop.Observation) { reported <- time.Now() })
	}()
	var late []time.Duration
	for n := range 100 {
		resource := fmt.Sprintf("web-%d", n)
		if _, err := asks.Provision(ctx, operation(bellhop.Provision, "acme", resource, "")); err != nil {
			t.Fatal(err)
		}
		// That it is ready the answer has said, so the first report is that it broke.
		asked := time.Now()
		if err := asks.Break(ctx, "acme", resource, bellhop.CodeOutOfMemory); err != nil {
			t.Fatal(err)
		}
		late = append(late, (<-reported).Sub(asked))
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	slices.Sort(late)
	t.Logf("reported after p50 %s, p99 %s, max %s", late[50], late[98], late[99])
}

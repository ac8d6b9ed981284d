package simulated

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"bellhop"
)

// TestACrowdWaits: a watcher tells each end of 50,000 operations that wait together, and tells it once. It holds no more
// of them than when to look.
func TestACrowdWaits(t *testing.T) { //nolint:paralleltest // it measures the heap of the whole process
	crowd, maxHeap := 50_000, 16<<20
	if raceEnabled || testing.Short() {
		crowd = 5_000 // SQLite under the race detector is slow, and the way is the same
	}
	provider, err := New(Config{Path: filepath.Join(t.TempDir(), "platform.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer provider.Close() //nolint:errcheck // the test is over

	heap := func() int {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return int(stats.HeapAlloc)
	}
	before := heap()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pending, ended := make(chan struct{}, crowd), make(chan time.Duration, crowd)
	done := make(chan error, 1)

	// All are accepted in one transaction, as a crowd of workers would have within minutes, and ready at one moment, which
	// leaves the watcher the time to see them wait.
	var readyAt time.Time
	began := time.Now()
	err = provider.store.write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		script := Script{ReadyAfter: bellhop.Duration(time.Hour)}
		for n := range crowd {
			op := bellhop.Operation{
				ID: fmt.Sprintf("op-%06d", n), Verb: bellhop.Provision, TenantID: "acme", Resource: fmt.Sprintf("web-%06d", n),
				RequestedAt: began, Spec: bellhop.Spec{Replicas: 1},
			}
			if _, err := provider.store.apply(ctx, tx, op, script, time.Now().UnixNano()); err != nil {
				return err
			}
		}
		readyAt = time.Now().Add(2*time.Since(began) + 5*time.Second)
		_, err := tx.ExecContext(ctx, `UPDATE operations SET done_at = ?`, readyAt.UnixNano())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		done <- provider.Watch(ctx, func(seen bellhop.Observation) {
			switch seen.Phase {
			case bellhop.PhasePending:
				pending <- struct{}{}
			case bellhop.PhaseReady:
				ended <- time.Since(readyAt)
			default:
				t.Errorf("%s is %s", seen.OperationID, seen.Phase)
			}
		})
	}()
	for range crowd {
		<-pending
	}
	grown := heap() - before
	t.Logf("%d operations wait: the heap grew by %d KiB", crowd, grown>>10)
	if grown > maxHeap {
		t.Errorf("the heap grew by %d KiB for %d operations that wait, want at most %d", grown>>10, crowd, maxHeap>>10)
	}
	var last time.Duration
	for range crowd {
		last = <-ended
	}
	t.Logf("the last of %d ends was reported %s after all became ready", crowd, last.Round(time.Millisecond))
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n := len(ended); n > 0 {
		t.Errorf("%d ends were reported twice", n)
	}
}

package simulated

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"bellhop"
)

// TestACrowdWaits: a watcher tells the end of each of 50,000 operations that wait at once, once, and holds no more of
// them than when to look.
func TestACrowdWaits(t *testing.T) {
	t.Parallel()
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

	// All are accepted in one transaction, as a crowd of workers would have within minutes. They are ready at one moment.
	readyAt := time.Now().Add(time.Duration(crowd)*300*time.Microsecond + 3*time.Second)
	err = provider.store.write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for n := range crowd {
			now := time.Now()
			op := bellhop.Operation{
				ID: fmt.Sprintf("op-%06d", n), Verb: bellhop.Provision, TenantID: "acme", Resource: fmt.Sprintf("web-%06d", n),
				RequestedAt: now, Spec: bellhop.Spec{Replicas: 1},
			}
			script := Script{ReadyAfter: bellhop.Duration(readyAt.Sub(now))}
			if _, err := provider.store.apply(ctx, tx, op, script, now.UnixNano()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if time.Now().After(readyAt) {
		t.Fatal("the machine is too slow: the first were ready before the last was asked for")
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
	<-done
	if n := len(ended); n > 0 {
		t.Errorf("%d ends were reported twice", n)
	}
}

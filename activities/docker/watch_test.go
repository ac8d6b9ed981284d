package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"bellhop"
)

// watch runs Watch until the test ends; it keeps what was reported of the bench's tenant.
type watch struct {
	t      *testing.T
	cancel context.CancelFunc
	ended  chan error
	lock   sync.Mutex
	heard  []report
}

type report struct {
	at time.Time
	bellhop.Observation
}

func (b *bench) watch(p *Provider) *watch {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &watch{t: b.T, cancel: cancel, ended: make(chan error, 1)}
	go func() {
		w.ended <- p.Watch(ctx, func(seen bellhop.Observation) {
			if !strings.HasPrefix(seen.OperationID, b.tenant) {
				return
			}
			w.lock.Lock()
			defer w.lock.Unlock()
			w.heard = append(w.heard, report{time.Now(), seen})
		})
		close(w.ended)
	}()
	b.Cleanup(func() {
		cancel()
		for range w.ended { // until it has returned
		}
	})
	return w
}

// told waits until op was reported in phase.
func (w *watch) told(op bellhop.Operation, phase bellhop.Phase) report {
	w.t.Helper()
	var found report
	eventually(w.t, "told that "+op.ID+" is "+string(phase), func() bool {
		select {
		case err := <-w.ended:
			w.t.Fatalf("the watch ended: %v", err)
		default:
		}
		w.lock.Lock()
		defer w.lock.Unlock()
		for _, r := range w.heard {
			if r.OperationID == op.ID && r.Phase == phase {
				found = r
				return true
			}
		}
		return false
	})
	return found
}

func (w *watch) reports() int {
	w.lock.Lock()
	defer w.lock.Unlock()
	return len(w.heard)
}

// The life of a resource as a watcher tells it, with nobody else looking.
func TestWatchTellsALife(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{Resync: bellhop.Duration(time.Hour)})
	w := b.watch(b.Provider)
	first := b.provision("web", func(op *bellhop.Operation) {
		op.ProviderConfig = json.RawMessage(`{"restart_policy": {"name": "no"}}`)
	})
	if _, err := b.Provision(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	// No event tells that a container has run for long enough.
	w.told(first, bellhop.PhaseReady)

	second := b.operation(bellhop.Update, "web", serving("new"))
	if _, err := b.Update(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	w.told(first, bellhop.PhaseSuperseded)
	ready := w.told(second, bellhop.PhaseReady)
	if ids := b.ids(); len(ids) != 1 || len(ready.ResourceIDs.ContainerIDs) != 1 {
		t.Errorf("ready was told with %d containers standing and %d listed: the watcher removes what was replaced",
			len(ids), len(ready.ResourceIDs.ContainerIDs))
	}
	if !ready.RequestedAt.Equal(second.RequestedAt) {
		t.Errorf("reported as of %s, requested at %s", ready.RequestedAt, second.RequestedAt)
	}
	b.want(b.operation(bellhop.Delete, "web", nil), bellhop.PhaseGone)
	w.told(second, bellhop.PhaseGone)
}

// How soon a death is told.
func TestWatchLatency(t *testing.T) {
	b := setup(t, Config{Resync: bellhop.Duration(time.Hour)})
	w := b.watch(b.Provider)
	for i := range 5 {
		op := b.provision(fmt.Sprint("web", i), func(op *bellhop.Operation) {
			op.ProviderConfig = json.RawMessage(`{"restart_policy": {"name": "no"}}`)
		})
		ids := b.want(op, bellhop.PhaseReady).ResourceIDs.ContainerIDs
		w.told(op, bellhop.PhaseReady)
		began := time.Now()
		if _, err := b.docker.ContainerKill(t.Context(), ids[0], client.ContainerKillOptions{Signal: "KILL"}); err != nil {
			t.Fatal(err)
		}
		told := w.told(op, bellhop.PhaseFailed)
		t.Logf("killed → told with evidence: %s", told.at.Sub(began).Round(time.Millisecond))
		if told.Failure.Evidence["exit_code"] != "137" {
			t.Errorf("evidence %v, want exit code 137", told.Failure.Evidence)
		}
	}
}

// link stands between a provider and the engine, and can be cut.
type link struct {
	host   string
	engine string
	lock   sync.Mutex
	down   bool
	open   map[net.Conn]bool
}

func newLink(t *testing.T) *link {
	t.Helper()
	docker := raw(t)
	engine, ok := strings.CutPrefix(docker.DaemonHost(), "unix://")
	if !ok {
		t.Skip("only a link to a unix socket can be cut")
	}
	dir, err := os.MkdirTemp("", "link") //nolint:usetesting // t.TempDir is too long a path for a socket
	if err != nil {
		t.Fatal(err)
	}
	l := &link{host: "unix://" + filepath.Join(dir, "s"), engine: engine, open: map[net.Conn]bool{}}
	var listen net.ListenConfig
	listener, err := listen.Listen(t.Context(), "unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, listener)
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go l.serve(near)
		}
	}()
	t.Cleanup(func() {
		l.cut()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return l
}

func (l *link) serve(near net.Conn) {
	defer hangUp(near)
	var dialer net.Dialer
	far, err := dialer.DialContext(context.Background(), "unix", l.engine)
	if err != nil {
		return
	}
	defer hangUp(far)
	l.lock.Lock()
	if l.down {
		l.lock.Unlock()
		return
	}
	l.open[near], l.open[far] = true, true
	l.lock.Unlock()
	go func() {
		forward(far, near)
		hangUp(far)
	}()
	forward(near, far)
	l.lock.Lock()
	delete(l.open, near)
	delete(l.open, far)
	l.lock.Unlock()
}

// hangUp and forward end in an error when the other side hung up first, which is what a link is for.
func hangUp(conn net.Conn) { _ = conn.Close() } //nolint:errcheck // see above

func forward(to io.Writer, from io.Reader) { _, _ = io.Copy(to, from) } //nolint:errcheck // see above

// cut breaks every connection and lets no new one through.
func (l *link) cut() {
	l.lock.Lock()
	defer l.lock.Unlock()
	l.down = true
	for conn := range l.open {
		hangUp(conn)
	}
}

func (l *link) mend() {
	l.lock.Lock()
	defer l.lock.Unlock()
	l.down = false
}

// A watch whose engine goes away is an error. The next one tells what happened in between, also when the engine can no
// longer replay it: its buffer holds 256 events.
func TestWatchAfterTheEngineWasAway(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	l := newLink(t)
	p := b.provider(Config{Host: l.host, Resync: bellhop.Duration(time.Hour)})
	once := func(op *bellhop.Operation) { op.ProviderConfig = json.RawMessage(`{"restart_policy": {"name": "no"}}`) }
	dies, removed := b.provision("dies", once), b.provision("removed", once)
	id := b.want(dies, bellhop.PhaseReady).ResourceIDs.ContainerIDs[0]
	b.want(removed, bellhop.PhaseReady)
	w := b.watch(p)
	w.told(dies, bellhop.PhaseReady)
	w.told(removed, bellhop.PhaseReady)

	l.cut()
	var failure *bellhop.Failure
	select {
	case err := <-w.ended:
		if !errors.As(err, &failure) || failure.Code != bellhop.CodeProviderUnavailable {
			t.Errorf("cut off, the watch ended with %v, want PROVIDER_UNAVAILABLE", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("cut off, the watch goes on")
	}
	if err := p.Watch(t.Context(), func(bellhop.Observation) {}); !errors.As(err, &failure) || failure.Code != bellhop.CodeProviderUnavailable {
		t.Errorf("while the engine is away, the watch ends with %v, want PROVIDER_UNAVAILABLE", err)
	}
	if _, err := b.docker.ContainerKill(t.Context(), id, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		t.Fatal(err)
	}
	late := b.provision("late", once)
	b.want(late, bellhop.PhaseReady)
	for i := range 300 {
		_, err := b.docker.ContainerRename(t.Context(), id, client.ContainerRenameOptions{NewName: fmt.Sprintf("%s-%d", b.tenant, i)})
		if err != nil {
			t.Fatal(err)
		}
	}
	l.mend()
	w = b.watch(p)
	w.told(dies, bellhop.PhaseFailed)
	w.told(late, bellhop.PhaseReady)
	w.told(removed, bellhop.PhaseReady)
	b.want(b.operation(bellhop.Delete, "removed", nil), bellhop.PhaseGone)
	w.told(removed, bellhop.PhaseGone)
}

// Events only wake the watcher: seen twice they are told once.
func TestReplayedEventsAreToldOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{Resync: bellhop.Duration(time.Hour)})
	op := b.provision("web", nil)
	b.want(op, bellhop.PhaseReady)
	w := b.watch(b.Provider) // begins with a replay of the last seconds
	w.told(op, bellhop.PhaseReady)
	id := identityOf(t, op)
	other := b.provision("other", nil) // once this is told, all before it has been looked at
	inner := watcher{Provider: b.Provider, woken: map[key]map[string]bellhop.Generation{}, wake: make(chan struct{}, 1)}
	for range 3 {
		inner.noteEvent(events.Message{Action: events.ActionStart, TimeNano: 1, Actor: events.Actor{ID: "x", Attributes: id}})
	}
	if woken := inner.takeWoken(); len(woken) != 1 || len(woken[keyOf(op)]) != 1 {
		t.Errorf("three times the same event wakes %v", woken)
	}
	b.want(other, bellhop.PhaseReady)
	w.told(other, bellhop.PhaseReady)
	w.lock.Lock()
	defer w.lock.Unlock()
	seen := 0
	for _, r := range w.heard {
		if r.OperationID == op.ID && r.Phase == bellhop.PhaseReady {
			seen++
		}
	}
	if seen != 1 {
		t.Errorf("told %d times that it is ready, want once", seen)
	}
}

func identityOf(tb testing.TB, op bellhop.Operation) map[string]string {
	tb.Helper()
	return labelsOf(op, configOf(tb, op), 1)
}

// While nothing changes, a resync is one call, however many containers there are; health checks, which make three
// events each, cost nothing.
func TestWatchingCostsNoMoreThanAListPerResync(t *testing.T) {
	b := setup(t, Config{})
	b.want(b.provision("web", func(op *bellhop.Operation) {
		op.Spec.Replicas, op.Spec.HealthCheck = 3, healthCheck()
	}), bellhop.PhaseReady)
	b.want(b.provision("failed", func(op *bellhop.Operation) {
		op.Spec.Args = []string{"exit"}
		op.ProviderConfig = json.RawMessage(`{"restart_policy": {"name": "no"}}`)
	}), bellhop.PhaseFailed)
	ids := b.ids()
	var (
		lock  sync.Mutex
		calls = map[string]int{}
		lists atomic.Int64
	)
	counting := b.provider(Config{Resync: bellhop.Duration(time.Second)},
		client.WithHTTPRequestHook(func(request *http.Request) error {
			lock.Lock()
			defer lock.Unlock()
			if strings.HasSuffix(request.URL.Path, "/containers/json") {
				lists.Add(1)
				calls["list"]++
			}
			for _, id := range ids { // the engine may have other users
				if strings.Contains(request.URL.Path, id) {
					calls["inspect"]++
				}
			}
			return nil
		}))
	w := b.watch(counting)
	// The first looks are at everything, and at what the replayed events are about.
	eventually(t, "it has begun", func() bool { return lists.Load() >= 6 })
	lock.Lock()
	clear(calls)
	lock.Unlock()
	reports, from := w.reports(), lists.Load()
	eventually(t, "it has looked five times more", func() bool { return lists.Load() >= from+5 })
	lock.Lock()
	defer lock.Unlock()
	if calls["inspect"] != 0 || w.reports() != reports {
		t.Errorf("while nothing changed: %v, %d reports; want lists only and no report", calls, w.reports()-reports)
	}
}

// Many at once are told with few calls: one list for all that a moment's events are about.
func TestWatchTakesManyAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{Resync: bellhop.Duration(time.Hour)})
	w := b.watch(b.Provider)
	var (
		ops  []bellhop.Operation
		wait sync.WaitGroup
	)
	for i := range 2 * fewResources {
		ops = append(ops, b.provision(fmt.Sprint("web", i), nil))
	}
	for _, op := range ops {
		wait.Go(func() {
			if _, err := b.Provision(t.Context(), op); err != nil {
				t.Errorf("provision: %s", err)
			}
		})
	}
	wait.Wait()
	for _, op := range ops {
		w.told(op, bellhop.PhaseReady)
	}
}

func TestWakes(t *testing.T) {
	for action, want := range map[events.Action]bool{
		events.ActionHealthStatusHealthy: true, "health_status: something an old engine says": true,
		events.ActionDie: true, events.ActionOOM: true, "exec_start: /main healthy": false, "exec_die": false,
	} {
		if got := wakes(events.Message{Action: action}); got != want {
			t.Errorf("%s wakes: %t, want %t", action, got, want)
		}
	}
}

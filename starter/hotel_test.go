package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	temporallog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"

	"bellhop"
	"bellhop/activities"
	"bellhop/activities/simulated"
	"bellhop/bridge"
	"bellhop/operations"
	"bellhop/tests/peers"
	"bellhop/workflows"
)

var update = flag.Bool("update", false, "write the golden files")

// asBellhop lets the test's binary be bellhop, for what takes a process of its own.
const asBellhop = "BELLHOP_TEST_AS_BELLHOP"

func TestMain(m *testing.M) {
	if os.Getenv(asBellhop) != "" {
		main()
	}
	code := m.Run()
	if closeHotel != nil {
		closeHotel()
	}
	os.Exit(code)
}

// hotel is what all tests share: the embedded Temporal server and one worker, with the simulated provider and the
// target "bell". The annex is another platform, for the tests of what nobody else may leave anything at.
type hotel struct {
	address         string
	temporal        client.Client
	ops             *operations.Client
	provider, annex activities.Provider
	bell            *bell
}

var (
	hotelOnce  sync.Once
	theHotel   *hotel
	hotelErr   error
	closeHotel func()
)

// guest is one user of the command line.
type guest struct {
	t *testing.T
	*hotel
	env map[string]string
	// stdin is what the next command reads.
	stdin string
	// pace replaces the default one when it is set.
	pace *pace
}

func checkIn(t *testing.T) *guest {
	t.Helper()
	if _, err := peers.Binary("bellhop-devserver"); err != nil {
		peers.Missing(t, err.Error())
	}
	hotelOnce.Do(func() { theHotel, hotelErr = open() })
	if hotelErr != nil {
		t.Fatal(hotelErr)
	}
	return &guest{t: t, hotel: theHotel, env: stranger(t, theHotel.address)}
}

// stranger is an environment without any configuration but an address.
func stranger(t *testing.T, address string) map[string]string {
	t.Helper()
	return map[string]string{
		"TEMPORAL_ADDRESS":     address,
		"TEMPORAL_CONFIG_FILE": filepath.Join(t.TempDir(), "none.toml"),
	}
}

func open() (*hotel, error) {
	server, err := peers.StartServer(context.Background())
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "bellhop-starter")
	if err != nil {
		return nil, err
	}
	provider, err := simulated.New(simulated.Config{Path: filepath.Join(folder, "simulated.db")})
	if err != nil {
		return nil, err
	}
	annex, err := simulated.New(simulated.Config{Path: filepath.Join(folder, "annex.db")})
	if err != nil {
		return nil, err
	}
	temporal, err := client.Dial(client.Options{HostPort: server.Address, Logger: temporallog.NewStructuredLogger(slog.New(slog.DiscardHandler))})
	if err != nil {
		return nil, err
	}
	ops := operations.New(temporal, client.DefaultNamespace, "")
	h := &hotel{address: server.Address, temporal: temporal, bell: &bell{}, ops: ops, provider: provider, annex: annex}
	w := h.worker(workflows.TaskQueue)
	if err := w.Start(); err != nil {
		return nil, err
	}
	closeHotel = func() {
		w.Stop()
		temporal.Close()
		err := errors.Join(provider.Close(), annex.Close(), server.Stop(10*time.Second), os.RemoveAll(folder))
		if err != nil {
			fmt.Fprintln(os.Stderr, "close the hotel:", err)
		}
	}
	return h, errors.Join(ops.Watch(context.Background(), "simulated"), ops.Watch(context.Background(), "annex"))
}

// workers are a worker as bellhop-worker has it: one for the workflows, and one for each kind of activities.
type workers []worker.Worker

func (all workers) Start() error {
	var errs []error
	for _, w := range all {
		errs = append(errs, w.Start())
	}
	return errors.Join(errs...)
}

func (all workers) Stop() {
	var stopping sync.WaitGroup
	for _, w := range all {
		stopping.Go(w.Stop)
	}
	stopping.Wait()
}

func (h *hotel) worker(taskQueue string) workers {
	acts := &activities.Activities{
		Providers: map[string]activities.Provider{"simulated": h.provider, "annex": h.annex},
		Targets:   map[string]bridge.Target{"bell": h.bell, "second": h.bell},
		Waiters:   h.ops,
		Records:   h.ops,
		Elsewhere: 2 * time.Second,
	}
	w := worker.New(h.temporal, taskQueue, worker.Options{})
	workflows.Register(w)
	w.RegisterActivity(acts)
	all := workers{w}
	for _, kind := range workflows.Queues() {
		w := worker.New(h.temporal, workflows.Queue(taskQueue, kind), worker.Options{DisableWorkflowWorker: true})
		w.RegisterActivity(acts)
		all = append(all, w)
	}
	return all
}

// work runs one more worker, on a task queue of its own. It returns what stops it.
func (h *hotel) work(t *testing.T, taskQueue string) func() {
	t.Helper()
	w := h.worker(taskQueue)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(w.Stop)
	t.Cleanup(stop)
	return stop
}

// bell is a target that acknowledges what it is told unless the address says {"mute": NAME} or {"gone": NAME}: then it
// needs an operator, or nobody is there, until it is unmuted by that name.
type bell struct {
	mu     sync.Mutex
	spoken map[string]bool
	// heard are the bodies that were acknowledged, by the address's name.
	heard map[string][]string
}

func (b *bell) unmute(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.spoken == nil {
		b.spoken = map[string]bool{}
	}
	b.spoken[name] = true
}

func (*bell) Check(bellhop.Callback) error { return nil }

func (b *bell) Deliver(_ context.Context, raw json.RawMessage, m bridge.Message) bridge.Result {
	var address struct{ Mute, Gone string }
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &address); err != nil {
			return bridge.Result{Verdict: bridge.Undeliverable, Err: err}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if address.Mute != "" && !b.spoken[address.Mute] {
		return bridge.Result{Verdict: bridge.Blocked, Err: errors.New("the bell is mute")}
	}
	if address.Gone != "" && !b.spoken[address.Gone] {
		return bridge.Result{Verdict: bridge.Closed, Err: errors.New("nobody is there")}
	}
	if b.heard == nil {
		b.heard = map[string][]string{}
	}
	name := address.Mute + address.Gone
	b.heard[name] = append(b.heard[name], string(m.Body))
	return bridge.Result{Verdict: bridge.Acknowledged}
}

// result is what a command did.
type result struct {
	code           int
	stdout, stderr string
}

// run runs a command to its end.
func (g *guest) run(args ...string) result {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), time.Minute)
	defer cancel()
	return g.runUntil(ctx, args...)
}

func (g *guest) runUntil(ctx context.Context, args ...string) result {
	g.t.Helper()
	var stdout, stderr bytes.Buffer
	code := g.app(&stdout, &stderr).run(ctx, args)
	return result{code, stdout.String(), stderr.String()}
}

func (g *guest) app(stdout, stderr io.Writer) *app {
	a := newApp(func(name string) string { return g.env[name] }, strings.NewReader(g.stdin), stdout, stderr)
	if g.pace != nil {
		a.pace = *g.pace
	}
	return a
}

// must runs a command and checks its exit code.
func (g *guest) must(code int, args ...string) result {
	g.t.Helper()
	got := g.run(args...)
	if got.code != code {
		g.t.Fatalf("bellhop %s: exit code %d, want %d\nstdout:\n%s\nstderr:\n%s", strings.Join(args, " "), got.code, code, got.stdout, got.stderr)
	}
	return got
}

// interruptAt runs a command and interrupts it as soon as its stdout has a text, as somebody does who has seen enough.
func (g *guest) interruptAt(text string, args ...string) result {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), time.Minute)
	defer cancel()
	stdout := &watched{text: text, seen: cancel}
	var stderr bytes.Buffer
	code := g.app(stdout, &stderr).run(ctx, args)
	got := result{code, stdout.String(), stderr.String()}
	if !strings.Contains(got.stdout, text) {
		g.t.Fatalf("bellhop %s: %q never appeared\nstdout:\n%s\nstderr:\n%s", strings.Join(args, " "), text, got.stdout, got.stderr)
	}
	return got
}

// watched is a buffer that says when it has a text.
type watched struct {
	mu   sync.Mutex
	all  strings.Builder // a field: embedded, its other methods would let text in unseen
	text string
	seen func()
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all.String()
}

func (w *watched) Write(data []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.all.Write(data)
	if strings.Contains(w.all.String(), w.text) {
		w.seen()
	}
	return n, err
}

// contains checks that a text has all parts.
func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("there is no %q in:\n%s", part, text)
		}
	}
}

// golden compares a text with a file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from %s (go test ./starter -update writes it anew)\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

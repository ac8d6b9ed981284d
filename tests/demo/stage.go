package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"

	"bellhop/operations"
	"bellhop/tests/peers"
)

// stage is what the demo plays on: a Temporal server, a worker and perhaps a Docker engine. Whatever is put on it is
// taken off it in the end.
type stage struct {
	*screen
	// name is this stage's own: the tenant, and part of every id.
	name string
	// dir holds every file, until the end.
	dir string

	address, ui string
	ops         *operations.Client
	engine      *engine // nil when none answers

	// broken tells that a process has ended that should not have.
	broken chan error

	mu sync.Mutex
	// undo is what takes things off the stage again, the last first.
	undo []undo
	// groups are the process groups that run.
	groups map[int]bool
}

type undo struct {
	what string
	do   func(context.Context) error
}

func newStage(show *screen) *stage {
	return &stage{
		screen: show,
		name:   "demo-" + strings.ToLower(rand.Text()[:6]),
		broken: make(chan error, 4),
		groups: map[int]bool{},
	}
}

// later puts down what is to be undone. It must do no harm when there is nothing to undo.
func (s *stage) later(what string, do func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.undo = append(s.undo, undo{what, do})
}

// clearWithin is how long taking one thing off the stage may take.
const clearWithin = 30 * time.Second

// clear takes everything off the stage, also after Ctrl-C. The error says what is left.
func (s *stage) clear() error {
	s.mu.Lock()
	undos := s.undo
	s.undo = nil
	s.mu.Unlock()
	if len(undos) == 0 {
		return nil
	}
	s.line("")
	var left []error
	// Its own error is in left, by which the next thing is still undone.
	_ = s.step(context.Background(), "clean up", func(ctx context.Context, note func(string)) (string, error) {
		for _, undo := range slices.Backward(undos) {
			note(undo.what)
			ctx, cancel := context.WithTimeout(ctx, clearWithin)
			if err := undo.do(ctx); err != nil {
				left = append(left, fmt.Errorf("%s: %w", undo.what, err))
			}
			cancel()
		}
		return "nothing is left", errors.Join(left...)
	})
	return errors.Join(left...)
}

// kill ends every process at once and removes the files. It is what a second Ctrl-C does.
func (s *stage) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for group := range s.groups {
		_ = syscall.Kill(-group, syscall.SIGKILL) // it may be gone already
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir) // as far as it can be
	}
}

// leftovers says what kill cannot take away.
func (s *stage) leftovers() string {
	if s.engine == nil {
		return "Nothing is left."
	}
	return fmt.Sprintf("Containers may be left; see: docker -H %s ps -a --filter label=bellhop.tenant=%s", s.engine.host, s.name)
}

// set sets the stage.
func (s *stage) set(ctx context.Context) error {
	var err error
	if s.dir, err = os.MkdirTemp("", "bellhop-demo-"); err != nil {
		return fmt.Errorf("make a folder for the demo: %w", err)
	}
	s.later("remove "+s.dir, func(context.Context) error { return os.RemoveAll(s.dir) })
	if err := s.forget(); err != nil {
		return err
	}
	s.line("%s", s.paint(bold, "Setting the stage"))
	if _, err := peers.Binary("bellhop-devserver"); err != nil {
		s.line("  The first time, compiling takes some minutes: the Temporal server is large.")
	}
	for _, step := range []struct {
		what string
		do   func(context.Context, func(string)) (string, error)
	}{
		{"compile", s.compile},
		{"start a Temporal server", s.startServer},
		{"look for a Docker engine", s.findEngine},
		{"start a bellhop worker", s.startWorker},
	} {
		if err := s.step(ctx, step.what, step.do); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

// forget keeps the caller's own settings of Temporal's away from the demo: it must not run against a real cluster.
func (s *stage) forget() error {
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "TEMPORAL_") {
			if err := os.Unsetenv(name); err != nil {
				return err
			}
		}
	}
	file := filepath.Join(s.dir, "temporal.toml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return os.Setenv("TEMPORAL_CONFIG_FILE", file)
}

var target = regexp.MustCompile(` -o (?:\S*/)?([a-z-]+)`)

// compile makes the binaries, and the example that the story needs.
func (s *stage) compile(ctx context.Context, note func(string)) (string, error) {
	watch := func(line string) {
		if found := target.FindStringSubmatch(line); found != nil {
			note(found[1])
		}
	}
	if err := s.command(ctx, watch, nil, "make", "--no-print-directory", "build"); err != nil {
		return "", err
	}
	note("the example")
	err := s.command(ctx, nil, nil, "go", "build", "-o", s.file("order"), "./docs/examples/temporal")
	return "into bin/", err
}

func (s *stage) file(name string) string { return filepath.Join(s.dir, name) }

// command runs a command in a process group of its own, from the checkout, and shows watch each line that it prints.
// When ctx ends it is interrupted as by Ctrl-C, so that compilers remove what they have begun.
func (s *stage) command(ctx context.Context, watch func(line string), env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = peers.Root()
	cmd.Env = append(os.Environ(), env...)
	return s.runIt(cmd, watch)
}

func (s *stage) runIt(cmd *exec.Cmd, watch func(line string)) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	read, write := io.Pipe()
	var all bytes.Buffer
	cmd.Stdout, cmd.Stderr = write, write
	seen := make(chan struct{})
	go func() {
		defer close(seen)
		lines := bufio.NewScanner(io.TeeReader(read, &all))
		for lines.Scan() {
			if watch != nil {
				watch(lines.Text())
			}
		}
		_, _ = io.Copy(io.Discard, read) // what no scanner takes
	}()
	err := cmd.Start()
	if err == nil {
		s.note(cmd.Process.Pid, true)
		err = cmd.Wait()
		s.note(cmd.Process.Pid, false)
	}
	_ = write.Close() // nothing is left to be written
	<-seen
	if err != nil {
		return fmt.Errorf("run %s: %w\n%s", strings.Join(append([]string{filepath.Base(cmd.Path)}, cmd.Args[1:]...), " "), err, tail(all.String()))
	}
	return nil
}

func (s *stage) note(group int, runs bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if runs {
		s.groups[group] = true
	} else {
		delete(s.groups, group)
	}
}

const tailLines = 20

func tail(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}

// defaultAddress is where everything looks for Temporal when it is told nothing.
const (
	defaultAddress = "localhost:7233"
	defaultPort    = "7233"
	defaultUIPort  = "8233"
)

// port is the wanted one when it is free, else any.
func port(wanted string) string {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", wanted))
	if err != nil {
		return "0"
	}
	_ = listener.Close() // it was opened to be closed
	return wanted
}

func (s *stage) startServer(ctx context.Context, _ func(string)) (string, error) {
	path, err := peers.Binary("bellhop-devserver")
	if err != nil {
		return "", err
	}
	var ready struct{ Address, UI string }
	server, err := peers.Start(ctx, path,
		[]string{"--port", port(defaultPort), "--ui-port", port(defaultUIPort), "--stop-with-parent"}, nil,
		func(line string) bool { return json.Unmarshal([]byte(line), &ready) == nil && ready.Address != "" })
	if err != nil {
		return "", err
	}
	s.keep("the Temporal server", server)
	s.address, s.ui = ready.Address, ready.UI
	if s.address == "127.0.0.1:"+defaultPort {
		s.address = defaultAddress
	}
	temporal, err := client.DialContext(ctx, client.Options{
		HostPort: s.address,
		Logger:   log.NewStructuredLogger(slog.New(slog.DiscardHandler)),
	})
	if err != nil {
		return "", err
	}
	s.later("leave the Temporal server", func(context.Context) error { temporal.Close(); return nil })
	s.ops = operations.New(temporal, client.DefaultNamespace, "")
	return s.address + ", " + s.ui, nil
}

func (s *stage) startWorker(ctx context.Context, _ func(string)) (string, error) {
	providers := []string{fmt.Sprintf("simulated: {type: simulated, path: %q}", s.file("simulated.db"))}
	names := "simulated"
	if s.engine != nil {
		providers = append(providers, fmt.Sprintf("docker: {type: docker, host: %q, stop_timeout: 2s, images: [bellhop.demo/*]}", s.engine.host))
		names += " and docker"
	}
	worker, err := peers.StartWorker(ctx, s.address, "providers:\n  "+strings.Join(providers, "\n  ")+"\n")
	if err != nil {
		return "", err
	}
	s.keep("the worker", worker.Process)
	return "its providers: " + names, nil
}

// stopWithin is how long a process may take to end by itself.
const stopWithin = 20 * time.Second

// keep watches over a process until it is stopped in the end.
func (s *stage) keep(what string, p *peers.Process) {
	s.note(p.PID(), true)
	stopping := make(chan struct{})
	go func() {
		select {
		case <-stopping:
		case <-p.Done():
			s.broken <- fmt.Errorf("%s has ended by itself:\n%s", what, tail(p.Output()))
		}
	}()
	s.later("stop "+what, func(context.Context) error {
		close(stopping)
		defer s.note(p.PID(), false)
		select {
		case <-p.Done():
			return nil
		default:
			return p.Stop(stopWithin)
		}
	})
}

// findTemporal is Temporal's own command line, if it is installed.
func findTemporal() string {
	if _, err := os.Stat(filepath.Join(peers.Root(), ".tools", "bin", "temporal")); err == nil {
		return ".tools/bin/temporal"
	}
	if _, err := exec.LookPath("temporal"); err == nil {
		return "temporal"
	}
	return ""
}

// Package peers starts what tests, benchmarks and the demo run against: the embedded Temporal server and bellhop's own
// binaries, as processes of their own, which can be killed.
package peers

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Root is the folder of the checkout. It is looked for from the working directory upwards, where go test and go run
// begin: with -trimpath, which the Makefile sets, a program does not know where its source was.
func Root() string {
	start, err := os.Getwd()
	if err != nil {
		return "."
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module bellhop\n") {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return start
		}
	}
}

// OtherBinaries names the variable of the environment with the folder of the binaries to test instead of those that make
// build makes. What the folder lacks is taken from bin/ all the same.
const OtherBinaries = "BELLHOP_ATTACK_BIN"

// Binary is the path of one of the binaries that make build makes.
func Binary(name string) (string, error) {
	if folder := os.Getenv(OtherBinaries); folder != "" {
		path := filepath.Join(folder, name)
		if _, err := os.Stat(path); err == nil { //nolint:gosec // whoever runs the tests names the folder
			return path, nil
		}
	}
	path := filepath.Join(Root(), "bin", name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("find %s: it is not built; run: make build", name)
	}
	return path, nil
}

// Process is a peer that runs.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error

	mu   sync.Mutex
	tail []string
}

const tailLines = 5000

// Start runs a command and hands each line it prints, on either stream, to look until look has seen what it waits for.
func Start(ctx context.Context, path string, args, env []string, look func(line string) bool) (*Process, error) {
	cmd := exec.Command(path, args...) //nolint:gosec // our own binaries
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = attributes()
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(path), err)
	}
	_ = write.Close() // the process has its own
	p := &Process{cmd: cmd, done: make(chan struct{})}
	seen := make(chan struct{})
	go func() {
		defer read.Close() //nolint:errcheck // it was only read
		found := false
		scanner := bufio.NewScanner(read)
		scanner.Buffer(nil, 1<<20)
		for scanner.Scan() {
			line := scanner.Text()
			p.mu.Lock()
			p.tail = append(p.tail, line)
			if len(p.tail) > tailLines {
				p.tail = p.tail[1:]
			}
			p.mu.Unlock()
			if !found && look(line) {
				found = true
				close(seen)
			}
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	select {
	case <-seen:
		return p, nil
	case <-p.done:
		return nil, fmt.Errorf("%s ended before it was ready: %w\n%s", filepath.Base(path), p.err, p.Output())
	case <-ctx.Done():
		p.Kill()
		return nil, fmt.Errorf("%s was not ready in time: %w\n%s", filepath.Base(path), ctx.Err(), p.Output())
	}
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Output is the last that it printed.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out strings.Builder
	for _, line := range p.tail {
		out.WriteString(line + "\n")
	}
	return out.String()
}

// Kill ends it as a crash does, and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may be gone already
	<-p.done
}

// Stop asks it to end and waits until it has. One that does not end in time is killed, which is an error.
func (p *Process) Stop(within time.Duration) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may be gone already
	select {
	case <-p.done:
		return p.err
	case <-time.After(within):
		p.Kill()
		return errors.New("it did not stop in time and was killed")
	}
}

// Done is closed when it has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Server is an embedded Temporal server.
type Server struct {
	*Process
	Address string `json:"address"`

	args []string
}

// Args are the arguments that it was started with, to start another like it.
func (s *Server) Args() []string { return slices.Clone(s.args) }

// readyWithin is how long a peer may take to be ready; a machine under load is slow.
const readyWithin = 90 * time.Second

// StartServer starts an embedded Temporal server on a free port, or on the one that args give.
func StartServer(ctx context.Context, args ...string) (*Server, error) {
	path, err := Binary("bellhop-devserver")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	server := &Server{args: args}
	args = append([]string{"--headless", "--port", "0", "--stop-with-parent"}, args...)
	server.Process, err = Start(ctx, path, args, nil, func(line string) bool {
		return json.Unmarshal([]byte(line), server) == nil && server.Address != ""
	})
	return server, err
}

// Worker is a bellhop worker.
type Worker struct {
	*Process
	// Listen is the address of its health and metrics, API that of its API.
	Listen, API string
}

var listening = regexp.MustCompile(`msg=working .*listen=(\S+) api=(\S+)`)

// StartWorker starts a worker with the YAML text as its configuration, which may be empty.
func StartWorker(ctx context.Context, temporal, config string, env ...string) (*Worker, error) {
	path, err := Binary("bellhop-worker")
	if err != nil {
		return nil, err
	}
	return StartWorkerAt(ctx, path, temporal, config, env...)
}

// StartWorkerAt is StartWorker with a binary that was built elsewhere, such as one of an earlier version.
func StartWorkerAt(ctx context.Context, path, temporal, config string, env ...string) (*Worker, error) {
	config = encryptedConfig(config)
	if config == "" {
		return startWorker(ctx, path, temporal, "", env...)
	}
	file, err := os.CreateTemp("", "bellhop-worker-*.yaml")
	if err != nil {
		return nil, err
	}
	defer os.Remove(file.Name()) //nolint:errcheck // it has been read by then
	if _, err := file.WriteString(config); err != nil {
		return nil, err
	}
	if err := file.Close(); err != nil {
		return nil, err
	}
	return startWorker(ctx, path, temporal, file.Name(), env...)
}

// StartWorkerOf starts a worker with a configuration file. The file stays the caller's.
func StartWorkerOf(ctx context.Context, temporal, file string, env ...string) (*Worker, error) {
	path, err := Binary("bellhop-worker")
	if err != nil {
		return nil, err
	}
	return startWorker(ctx, path, temporal, file, env...)
}

func startWorker(ctx context.Context, path, temporal, file string, env ...string) (worker *Worker, err error) {
	args := []string{"--listen", "127.0.0.1:0"}
	if file != "" {
		args = append(args, "--config", file)
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	worker = &Worker{}
	worker.Process, err = Start(ctx, path, args, append([]string{"TEMPORAL_ADDRESS=" + temporal}, env...), func(line string) bool {
		found := listening.FindStringSubmatch(line)
		if found != nil {
			worker.Listen, worker.API = found[1], found[2]
		}
		return found != nil
	})
	return worker, err
}

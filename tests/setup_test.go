// Package tests shows bellhop as its users have it: the built binaries, a real Temporal server, real providers.
package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"bellhop"
	"bellhop/activities/simulated"
	"bellhop/operations"
	"bellhop/tests/peers"
)

// soon is how long a test waits for what must happen soon, on a machine that has other things to do.
const soon = 90 * time.Second

// bench is a test's own server, with what a test needs of it.
type bench struct {
	*testing.T
	ctx    context.Context
	server *peers.Server
	folder string
	client client.Client
	ops    *operations.Client
	// patience is how much longer than soon until waits.
	patience time.Duration
}

// setup starts a server of the test's own. Workers are the test's business.
func setup(t *testing.T, serverArgs ...string) *bench {
	t.Helper()
	b := &bench{T: t, ctx: t.Context(), server: peers.ServerFor(t, serverArgs...), folder: t.TempDir()}
	b.connect()
	return b
}

func (b *bench) connect() {
	c, err := client.DialContext(b.ctx, peers.Encrypt(client.Options{HostPort: b.server.Address, Logger: quiet{}}))
	require.NoError(b, err)
	b.Cleanup(c.Close)
	b.client, b.ops = c, operations.New(c, "default", "").With(peers.Converters("default"))
}

// state is where the simulated platform of the test lives.
func (b *bench) state() string { return filepath.Join(b.folder, "simulated.db") }

// platform looks at the simulated platform from outside.
func (b *bench) platform() *simulated.Provider {
	b.Helper()
	platform, err := simulated.New(simulated.Config{Path: b.state()})
	require.NoError(b, err)
	b.Cleanup(func() { platform.Close() }) //nolint:errcheck // it only read
	return platform
}

// config is a worker's configuration with the test's simulated platform.
func (b *bench) config(more ...string) string {
	return fmt.Sprintf("providers:\n  simulated: {type: simulated, path: %s}\n", b.state()) + strings.Join(more, "\n") + "\n"
}

// work starts a worker.
func (b *bench) work(config string, env ...string) *peers.Worker {
	b.Helper()
	w, err := peers.StartWorker(b.ctx, b.server.Address, config, env...)
	require.NoError(b, err)
	b.Cleanup(w.Kill)
	return w
}

// run runs one of the binaries, or the temporal CLI, as a user does, and returns what it printed and its exit code.
func (b *bench) run(stdin, name string, args ...string) (stdout, stderr string, code int) {
	b.Helper()
	return b.runWith(peers.EncryptionEnv(), stdin, name, args...)
}

// runWith is run with more of the environment.
func (b *bench) runWith(env []string, stdin, name string, args ...string) (stdout, stderr string, code int) {
	b.Helper()
	path := filepath.Join(peers.Root(), ".tools", "bin", name)
	if name != "temporal" {
		var err error
		path, err = peers.Binary(name)
		require.NoError(b, err)
	} else if _, err := os.Stat(path); err != nil {
		peers.Missing(b, "the temporal CLI is not installed; run: make tools")
	}
	ctx, cancel := context.WithTimeout(b.ctx, soon)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "TEMPORAL_ADDRESS="+b.server.Address)
	cmd.Env = append(cmd.Env, env...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(b, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// status polls an operation's status as a caller does.
func (b *bench) status(id string) bellhop.Status {
	b.Helper()
	report, err := b.ops.Status(b.ctx, id)
	require.NoError(b, err)
	return report.Status
}

// operations counts all that were started.
func (b *bench) operations() int {
	b.Helper()
	items, _, err := b.ops.List(b.ctx, bellhop.Filter{}, 1000, nil)
	require.NoError(b, err)
	return len(items)
}

// until waits for a condition.
func (b *bench) until(what string, so func() bool) {
	b.Helper()
	within := soon + b.patience
	deadline := time.Now().Add(within)
	for !so() {
		if time.Now().After(deadline) {
			b.Fatalf("in %s this did not happen: %s", within, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Ring is what a caller got under one callback id: how often, and in how many different forms.
type Ring struct {
	Times  int
	Bodies []string
}

// caller is a workflow that is called back and notes everything that it gets.
func caller(ctx workflow.Context) error {
	got := map[string]Ring{}
	if err := workflow.SetQueryHandler(ctx, "got", func() (map[string]Ring, error) { return got, nil }); err != nil {
		return err
	}
	selector := workflow.NewSelector(ctx)
	for _, event := range []bellhop.Event{
		bellhop.EventRunning, bellhop.EventProvisioned, bellhop.EventUpdated, bellhop.EventDeleted,
		bellhop.EventFailed, bellhop.EventCancelled,
	} {
		selector.AddReceive(workflow.GetSignalChannel(ctx, string(event)), func(c workflow.ReceiveChannel, _ bool) {
			var body json.RawMessage
			c.Receive(ctx, &body)
			var outcome bellhop.Outcome
			if json.Unmarshal(body, &outcome) != nil || outcome.Event != event {
				outcome.CallbackID = "broken: " + string(body)
			}
			ring := got[outcome.CallbackID]
			ring.Times++
			if len(ring.Bodies) == 0 || ring.Bodies[len(ring.Bodies)-1] != string(body) {
				ring.Bodies = append(ring.Bodies, string(body))
			}
			got[outcome.CallbackID] = ring
		})
	}
	for ctx.Err() == nil {
		selector.Select(ctx)
	}
	return ctx.Err()
}

// call starts a caller; the function returned asks it what it got.
func (b *bench) call(id string) func() map[string]Ring {
	b.Helper()
	w := worker.New(b.client, "callers-"+id, worker.Options{})
	w.RegisterWorkflowWithOptions(caller, workflow.RegisterOptions{Name: "caller"})
	require.NoError(b, w.Start())
	b.Cleanup(w.Stop)
	_, err := b.client.ExecuteWorkflow(b.ctx, client.StartWorkflowOptions{ID: id, TaskQueue: "callers-" + id}, "caller")
	require.NoError(b, err)
	return func() map[string]Ring {
		got := map[string]Ring{}
		answer, err := b.client.QueryWorkflow(b.ctx, id, "", "got")
		if err == nil {
			require.NoError(b, answer.Get(&got))
		}
		return got
	}
}

// quiet is a logger that says nothing.
type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}

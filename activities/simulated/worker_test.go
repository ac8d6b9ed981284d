package simulated_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"bellhop"
	"bellhop/activities/simulated"
)

// TestMain is also the main of the worker processes that tests start and kill.
func TestMain(m *testing.M) {
	if path := os.Getenv("SIMULATED_WORKER"); path != "" {
		if err := work(path, os.Args[1], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// plan is a deterministic list of operations, so that every process knows them. Each tenant's compute is provisioned and
// updated, that of every second is deleted in the end.
func plan(tenants int) []bellhop.Operation {
	var ops []bellhop.Operation
	for n := range tenants {
		verbs := []bellhop.Verb{bellhop.Provision, bellhop.Update}
		if n%2 == 1 {
			verbs = append(verbs, bellhop.Delete)
		}
		for i, verb := range verbs {
			op := bellhop.Operation{
				ID: fmt.Sprintf("%s-%d", verb, n), Verb: verb, Provider: "simulated",
				TenantID: fmt.Sprintf("tenant-%d", n), Resource: "web", RequestedAt: time.Unix(int64(1000+i), 0).UTC(),
				// While an ask takes its time it was applied and not answered: the worst moment to be killed.
				ProviderConfig: []byte(`{"ask_takes": "1ms"}`),
			}
			if verb != bellhop.Delete {
				op.Spec = bellhop.Spec{Image: "nginx:1.27", Replicas: 3}
			}
			ops = append(ops, op)
		}
	}
	return ops
}

const plannedTenants = 60

// work is a worker process. "plan <n>" carries the plan out from its n-th operation on and says "<n>" after each;
// "waiting <n>" asks for n operations that take a moment, says when each will be ready, and goes.
func work(path, task string, out io.Writer) error {
	provider, err := simulated.New(simulated.Config{Path: path})
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(os.Args[2])
	if err != nil {
		return err
	}
	ctx := context.Background()
	switch task {
	case "plan":
		ops := plan(plannedTenants)
		for ; n < len(ops); n++ {
			if _, err := ask(ctx, provider, ops[n]); err != nil {
				return fmt.Errorf("%s: %w", ops[n].ID, err)
			}
			fmt.Fprintln(out, n)
		}
	case "waiting":
		for i := range n {
			op := operation(bellhop.Provision, fmt.Sprintf("tenant-%d", os.Getpid()), fmt.Sprintf("web-%d", i), `{"ready_after": "30ms"}`)
			if _, err := ask(ctx, provider, op); err != nil {
				return err
			}
			fmt.Fprintln(out, op.ID)
		}
	default:
		return fmt.Errorf("no such task: %q", task)
	}
	return provider.Close()
}

func ask(ctx context.Context, provider *simulated.Provider, op bellhop.Operation) (bellhop.Observation, error) {
	switch op.Verb {
	case bellhop.Update:
		return provider.Update(ctx, op)
	case bellhop.Delete:
		return provider.Delete(ctx, op)
	default:
		return provider.Provision(ctx, op)
	}
}

// worker is a process of this very binary.
type worker struct {
	t    *testing.T
	cmd  *exec.Cmd
	said *bufio.Scanner
}

func startWorker(t *testing.T, path, task string, n int) *worker {
	t.Helper()
	w := &worker{t: t, cmd: exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0], task, strconv.Itoa(n))}
	w.cmd.Env = append(os.Environ(), "SIMULATED_WORKER="+path)
	w.cmd.Stderr = os.Stderr
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	w.said = bufio.NewScanner(out)
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return w
}

// hear returns the next line that the worker says; false when it is gone.
func (w *worker) hear() (string, bool) {
	if !w.said.Scan() {
		return "", false
	}
	return w.said.Text(), true
}

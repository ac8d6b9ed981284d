package peers

import (
	"errors"
	"os"
	"testing"
)

// Missing skips a test whose peer is not there; in CI that is an error.
func Missing(tb testing.TB, why string) {
	tb.Helper()
	if os.Getenv("CI") == "true" {
		tb.Fatal(why)
	}
	tb.Skip(why)
}

// ServerFor starts a Temporal server that lives as long as the test.
func ServerFor(tb testing.TB, args ...string) *Server {
	tb.Helper()
	if _, err := Binary("bellhop-devserver"); err != nil {
		Missing(tb, err.Error())
	}
	server, err := StartServer(tb.Context(), args...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(server.Kill)
	return server
}

// WorkerFor starts a worker that lives as long as the test, with the YAML text as its configuration.
func WorkerFor(tb testing.TB, server *Server, config string, env ...string) *Worker {
	tb.Helper()
	if _, err := Binary("bellhop-worker"); err != nil {
		Missing(tb, err.Error())
	}
	worker, err := StartWorker(tb.Context(), server.Address, config, env...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(worker.Kill)
	return worker
}

// RestateFor starts a Restate server that lives as long as the test, with more of its environment as env says.
func RestateFor(tb testing.TB, env ...string) *Restate {
	tb.Helper()
	r, err := StartRestate(tb.Context(), tb.TempDir(), env...)
	if errors.Is(err, ErrNoRestate) {
		Missing(tb, err.Error())
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { r.Kill() })
	return r
}

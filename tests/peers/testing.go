package peers

import (
	"os"
	"testing"
)

// Missing skips a test whose peer is not there; in CI that is an error.
func Missing(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// ServerFor starts a Temporal server that lives as long as the test.
func ServerFor(t testing.TB, args ...string) *Server {
	t.Helper()
	if _, err := Binary("bellhop-devserver"); err != nil {
		Missing(t, err.Error())
	}
	server, err := StartServer(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Kill)
	return server
}

// WorkerFor starts a worker that lives as long as the test, with the YAML text as its configuration.
func WorkerFor(t testing.TB, server *Server, config string, env ...string) *Worker {
	t.Helper()
	if _, err := Binary("bellhop-worker"); err != nil {
		Missing(t, err.Error())
	}
	worker, err := StartWorker(t.Context(), server.Address, config, env...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(worker.Kill)
	return worker
}

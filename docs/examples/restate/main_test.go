package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"bellhop/tests/peers"
)

// stage starts a real Temporal server, a real Restate server and a bellhop worker with the configuration of the README.
func stage(t *testing.T) *peers.Restate {
	t.Helper()
	restate := peers.RestateFor(t)
	text, err := os.ReadFile("worker.yaml")
	if err != nil {
		t.Fatal(err)
	}
	compute := peers.FreeAddress(t)
	config := strings.NewReplacer( // other tests run at the same time
		"http://127.0.0.1:8080", restate.Ingress,
		"127.0.0.1:9080", compute,
		"{type: simulated}", "{type: simulated, path: "+filepath.Join(t.TempDir(), "simulated.db")+"}",
	).Replace(string(text))
	peers.WorkerFor(t, peers.ServerFor(t), config)
	if err := restate.Register(t.Context(), "http://"+compute); err != nil {
		t.Fatal(err)
	}
	return restate
}

// example is a command of the README with the answer that it promises.
type example struct {
	command string
	answer  []string
}

var fenced = regexp.MustCompile("(?s)```sh\n(.*?)\n```.*?```json\n(.*?)\n```")

func examples(t *testing.T) []example {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var all []example
	for _, found := range fenced.FindAllStringSubmatch(string(readme), -1) {
		all = append(all, example{found[1], strings.Split(found[2], "\n")})
	}
	return all
}

// Every command of the README is run as it is pasted, and answers what the README says.
func TestReadme(t *testing.T) {
	restate := stage(t)
	binary := filepath.Join(t.TempDir(), "example")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%s\n%s", err, out)
	}
	all := examples(t)
	if len(all) != 4 {
		t.Fatalf("the README has %d examples, want 4", len(all))
	}
	for _, example := range all {
		id := regexp.MustCompile(`-id (\S+)`).FindStringSubmatch(example.command)[1]
		t.Run(id, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			before := polls(t, restate)
			command := strings.Replace(example.command, "go run ./docs/examples/restate", binary, 1)
			run := exec.CommandContext(ctx, "sh", "-c", command)
			run.Env = append(os.Environ(), "RESTATE_INGRESS_URL="+restate.Ingress, "RESTATE_ADMIN_URL="+restate.Admin)
			var stdout, stderr bytes.Buffer
			run.Stdout, run.Stderr = &stdout, &stderr
			if err := run.Run(); err != nil {
				t.Fatalf("%s: %s\n%s", example.command, err, &stderr)
			}
			for _, line := range example.answer {
				if !strings.Contains(stdout.String(), strings.TrimSpace(line)) {
					t.Errorf("%s does not answer %q:\n%s", example.command, line, &stdout)
				}
			}
			polled := polls(t, restate) > before
			if want := strings.Contains(command, "-patience"); polled != want {
				t.Errorf("it polled: %t, want %t", polled, want)
			}
		})
	}
}

// polls is how often Compute/Status has been called.
func polls(t *testing.T, restate *peers.Restate) int {
	t.Helper()
	said := restate.Query(t, "SELECT id FROM sys_invocation WHERE target_service_name = 'Compute' AND target_handler_name = 'Status'")
	return strings.Count(said, "inv_")
}

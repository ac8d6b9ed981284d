package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"bellhop/tests/peers"
)

// stage starts a real Temporal server and a bellhop worker, and tells the server's address.
func stage(t *testing.T) string {
	t.Helper()
	server := peers.ServerFor(t)
	platform := filepath.Join(t.TempDir(), "simulated.db")
	peers.WorkerFor(t, server, "providers: {simulated: {type: simulated, path: "+platform+"}}")
	return server.Address
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
	address := stage(t)
	binary := filepath.Join(t.TempDir(), "example")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%s\n%s", err, out)
	}
	temporal, err := client.Dial(client.Options{HostPort: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(temporal.Close)

	all := examples(t)
	if len(all) != 4 {
		t.Fatalf("the README has %d examples, want 4", len(all))
	}
	for _, example := range all {
		id := regexp.MustCompile(`-id (\S+)`).FindStringSubmatch(example.command)[1]
		t.Run(id, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			command := strings.Replace(example.command, "go run ./docs/examples/temporal", binary, 1)
			run := exec.CommandContext(ctx, "sh", "-c", command)
			run.Env = append(os.Environ(), "TEMPORAL_ADDRESS="+address)
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
			history := historyOf(t, temporal, id)
			replayer := worker.NewWorkflowReplayer()
			replayer.RegisterWorkflow(OrderWorkflow)
			// The ids of the operations are made of the workflow's, which a history does not hold.
			original := worker.ReplayWorkflowHistoryOptions{OriginalExecution: workflow.Execution{ID: id}}
			silent := log.NewStructuredLogger(slog.New(slog.DiscardHandler))
			if err := replayer.ReplayWorkflowHistoryWithOptions(silent, history, original); err != nil {
				t.Errorf("replay: %s", err)
			}
			rung := slices.ContainsFunc(history.Events, func(event *historypb.HistoryEvent) bool {
				return strings.HasPrefix(event.GetWorkflowExecutionSignaledEventAttributes().GetSignalName(), "compute-")
			})
			polled := slices.ContainsFunc(history.Events, func(event *historypb.HistoryEvent) bool {
				return event.GetActivityTaskScheduledEventAttributes().GetActivityType().GetName() == "bellhop.Status"
			})
			if want := strings.Contains(command, "-patience"); !rung || polled != want {
				t.Errorf("it was rung: %t, want true; it polled: %t, want %t", rung, polled, want)
			}
		})
	}
}

func historyOf(t *testing.T, temporal client.Client, id string) *historypb.History {
	t.Helper()
	history := &historypb.History{}
	events := temporal.GetWorkflowHistory(t.Context(), id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		if err != nil {
			t.Fatal(err)
		}
		history.Events = append(history.Events, event)
	}
	return history
}

package bellhop_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bellhop"
)

var update = flag.Bool("update", false, "write the golden files anew; a change in them is a change of the wire format")

// golden compares what is written with what was written in all versions before.
func golden(t *testing.T, name string, v any) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	path := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%s; write it with: go test . -update", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("the wire format has changed (-was +is):\n%s", diff)
	}
}

func at(seconds int) time.Time { return requestedAt.UTC().Add(time.Duration(seconds) * time.Second) }

func outcome(verb bellhop.Verb, state bellhop.State) bellhop.Outcome {
	return bellhop.Outcome{
		SchemaVersion: bellhop.SchemaVersion, CallbackID: bellhop.CallbackID("op-1", state), Event: bellhop.EventFor(verb, state),
		OperationID: "op-1", OperationType: verb, TenantID: "acme", Resource: "web", Provider: "docker", State: state,
		ResourceIDs: bellhop.ResourceIDs{ContainerIDs: []string{"4f5a"}, ContainerNames: []string{"bellhop-acme-web-1"}},
		RequestedAt: at(0), StartedAt: at(1), FinishedAt: at(3), DurationMS: 2000, Metadata: map[string]string{"order": "42"},
	}
}

func TestWireFormat(t *testing.T) {
	operation, faults := parse(bellhop.Provision, `{
		"tenant_id": "acme", "resource": "web", "provider": "docker",
		"spec": {"image": "nginx:1.27", "command": ["nginx"], "args": ["-g", "daemon off;"], "env": {"MODE": "prod"},
			"cpu_millis": 250, "memory_mib": 256, "replicas": 1,
			"ports": [{"name": "http", "container_port": 80, "protocol": "tcp"}],
			"health_check": {"command": ["/bin/check"], "interval": "1s", "timeout": "1s", "retries": 3, "start_period": "1m"}},
		"provider_config": {"network": "web"},
		"callbacks": [{"target": "orders", "address": {"workflow_id": "order-42"}, "states": ["succeeded", "failed", "cancelled"], "deadline": "24h"}],
		"timeout": "15m", "on_cancel": "leave", "metadata": {"order": "42"}
	}`)
	if faults != nil {
		t.Fatal(faults)
	}
	running := outcome(bellhop.Provision, bellhop.Running)
	running.FinishedAt, running.DurationMS = time.Time{}, 0
	provisioned := outcome(bellhop.Provision, bellhop.Succeeded)
	provisioned.Endpoints = []bellhop.Endpoint{{Name: "http", Host: "127.0.0.1", Port: 49153}}
	deleted := outcome(bellhop.Delete, bellhop.Succeeded)
	deleted.ResourceIDs, deleted.Metadata = bellhop.ResourceIDs{}, nil
	failed := outcome(bellhop.Provision, bellhop.Failed)
	failed.Error = bellhop.Fail(bellhop.CodeImagePullFailed, "the image cannot be pulled").
		Because(os.ErrNotExist).With("stop_reason", "CannotPullContainerError")
	cancelled := outcome(bellhop.Update, bellhop.Cancelled)
	cancelled.Error = bellhop.Fail(bellhop.CodeCancelled, "the operation was cancelled; what exists was left as it is")
	everything := outcome(bellhop.Provision, bellhop.Succeeded)
	everything.ResourceIDs = bellhop.ResourceIDs{
		ClusterARN: "arn:aws:ecs:eu-west-1:1:cluster/c", ServiceARN: "arn:aws:ecs:eu-west-1:1:service/c/s",
		TaskDefinitionARN: "arn:aws:ecs:eu-west-1:1:task-definition/s:1", TaskARNs: []string{"arn:aws:ecs:eu-west-1:1:task/c/t"},
		ContainerIDs: []string{"4f5a"}, ContainerNames: []string{"n"}, Namespace: "acme", Deployment: "web", PodNames: []string{"web-1"},
		SimulatedIDs: []string{"s"},
	}
	for name, v := range map[string]any{
		"operation":           operation,
		"outcome-running":     running,
		"outcome-provisioned": provisioned,
		"outcome-updated":     outcome(bellhop.Update, bellhop.Succeeded),
		"outcome-deleted":     deleted,
		"outcome-failed":      failed,
		"outcome-cancelled":   cancelled,
		"resource-ids":        everything.ResourceIDs,
		"codes":               bellhop.Codes(),
		"status": bellhop.Status{
			Outcome:  running,
			Progress: bellhop.Progress{Message: "1 of 2 is healthy", Ready: 1, Desired: 2},
			Transitions: []bellhop.Transition{
				{State: bellhop.Pending, At: at(0)}, {State: bellhop.Queued, At: at(1)}, {State: bellhop.Running, At: at(1)},
			},
			Callbacks: []bellhop.Receipt{
				{Target: "orders", State: bellhop.ReceiptPending},
				{
					Target: "billing", State: bellhop.ReceiptAcknowledged, CallbackID: "op-1/running", Attempts: 2,
					LastError: "connection refused", FirstAttemptAt: at(1), AcknowledgedAt: at(2),
				},
			},
		},
		"observation": bellhop.Observation{
			OperationID: "op-1", RequestedAt: at(0), Phase: bellhop.PhaseFailed, ResourceIDs: running.ResourceIDs,
			Progress: bellhop.Progress{Ready: 0, Desired: 1}, Failure: failed.Error,
		},
	} {
		t.Run(name, func(t *testing.T) { golden(t, name, v) })
	}
}

// What was written is read again as it was, by this version and, with a field added, by the next.
func TestGoldenFilesAreReadable(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "outcome-*.json"))
	if err != nil || len(files) != 6 {
		t.Fatalf("there are %d golden outcomes, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var read bellhop.Outcome
		if err := json.Unmarshal(text, &read); err != nil {
			t.Errorf("%s: %s", file, err)
		}
		written, err := json.MarshalIndent(read, "", "  ")
		if err != nil || !bytes.Equal(append(written, '\n'), text) {
			t.Errorf("%s is written back as\n%s", file, written)
		}
		newer := strings.Replace(string(text), "{", `{"added_later": {"x": 1},`, 1)
		if err := json.Unmarshal([]byte(newer), &read); err != nil {
			t.Errorf("%s with a field of a later version: %s", file, err)
		}
	}
}

// The table as the design has it: code, retryable, needs a person.
const codeTable = `INVALID_OPERATION −/+, INVALID_SPEC −/+, IMAGE_PULL_FAILED −/+, PERMISSION_DENIED −/+, QUOTA_EXCEEDED −/+,
	CAPACITY_UNAVAILABLE +/−, PROVIDER_UNAVAILABLE +/−, PROVIDER_THROTTLED +/−, CONTAINER_EXITED −/+, OUT_OF_MEMORY −/+,
	HEALTH_CHECK_FAILED −/+, ROLLED_BACK −/+, TIMEOUT +/−, SUPERSEDED −/−, RESOURCE_NOT_FOUND −/+, RESOURCE_CONFLICT −/+,
	CANCELLED −/−, INTERNAL +/+`

func TestCodesAreTheDesigns(t *testing.T) {
	var want []bellhop.CodeInfo
	for entry := range strings.SplitSeq(codeTable, ",") {
		code, flags, _ := strings.Cut(strings.TrimSpace(entry), " ")
		retryable, person, _ := strings.Cut(flags, "/")
		want = append(want, bellhop.CodeInfo{Code: bellhop.Code(code), Retryable: retryable == "+", RequiresIntervention: person == "+"})
	}
	if diff := cmp.Diff(want, bellhop.Codes()); diff != "" {
		t.Errorf("codes (-design +code):\n%s", diff)
	}
	for _, info := range want {
		failure := bellhop.Fail(info.Code, "it is %d", 1)
		if failure.Code != info.Code || failure.Retryable != info.Retryable || failure.RequiresIntervention != info.RequiresIntervention {
			t.Errorf("%s fails as %+v", info.Code, failure)
		}
	}
	if unknown := bellhop.Fail("NEVER_HEARD_OF", "what"); unknown.Code != bellhop.CodeInternal || !unknown.RequiresIntervention {
		t.Errorf("a code that is none fails as %+v", unknown)
	}
}

func TestEvents(t *testing.T) {
	want := map[bellhop.Verb]map[bellhop.State]bellhop.Event{}
	for verb, done := range map[bellhop.Verb]bellhop.Event{
		"provision": "compute-provisioned", "update": "compute-updated", "delete": "compute-deleted",
	} {
		want[verb] = map[bellhop.State]bellhop.Event{
			"pending": "", "queued": "", "running": "compute-running", "succeeded": done, "failed": "compute-failed", "cancelled": "compute-cancelled",
		}
	}
	for verb, events := range want {
		for state, event := range events {
			if got := bellhop.EventFor(verb, state); got != event {
				t.Errorf("%s that is %s is told as %q, want %q", verb, state, got, event)
			}
			terminal := state == "succeeded" || state == "failed" || state == "cancelled"
			if state.Terminal() != terminal {
				t.Errorf("%s is terminal: %t", state, state.Terminal())
			}
		}
	}
	if got := bellhop.EventFor("scale", bellhop.Succeeded); got != "" {
		t.Errorf("an unknown verb succeeds as %q", got)
	}
}

func TestReceiptsSettle(t *testing.T) {
	for state, settled := range map[bellhop.ReceiptState]bool{
		"pending": false, "delivering": false, "blocked": false, "acknowledged": true, "accepted": true, "ack-presumed": true,
		"undeliverable": true, "lost": false,
	} {
		if state.Settled() != settled {
			t.Errorf("%s is settled: %t", state, state.Settled())
		}
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{"15m": 15 * time.Minute, "1h30m": 90 * time.Minute, "500ms": 500 * time.Millisecond, "0s": 0, "-1s": -time.Second} {
		var d bellhop.Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || time.Duration(d) != want {
			t.Errorf("%s is read as %s, %v", text, d, err)
		}
	}
	for _, text := range []string{"", "15", "15 minutes", "1d", "m"} {
		var d bellhop.Duration
		if err := d.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), `such as "90s" or "15m"`) {
			t.Errorf("%q is read as %s, %v; want an error that shows how it is written", text, d, err)
		}
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bellhop"
	"bellhop/operations"
)

var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

// failedStatus is a status with everything that a status can have.
func failedStatus() bellhop.Status {
	at := noon.Add
	failure := bellhop.Fail(bellhop.CodeContainerExited, "container web-1 exited with code 1")
	failure.ProviderError = "task stopped: EssentialContainerExited"
	failure.With("exit_code", "1").With("last_log_lines", "listening\n\x1b[31mpanic: out of luck\x1b[0m\n\ngoroutine 1 [running]:\n")
	return bellhop.Status{
		Outcome: bellhop.Outcome{
			SchemaVersion: 1, CallbackID: "op-1/failed", Event: bellhop.EventFailed, OperationID: "op-1",
			OperationType: bellhop.Provision, TenantID: "acme", Resource: "web", Provider: "ecs", State: bellhop.Failed,
			ResourceIDs: bellhop.ResourceIDs{
				ClusterARN: "arn:aws:ecs:eu-west-1:1:cluster/c",
				TaskARNs:   []string{"arn:aws:ecs:eu-west-1:1:task/c/1", "arn:aws:ecs:eu-west-1:1:task/c/2"},
			},
			Endpoints: []bellhop.Endpoint{
				{Name: "http", Host: "10.0.0.1", Port: 8080},
				{Name: "metrics", Host: "fd00::1", Port: 9090},
			},
			Error:       failure,
			RequestedAt: noon, StartedAt: at(20 * time.Millisecond), FinishedAt: at(83 * time.Second), DurationMS: 82_980,
			Metadata: map[string]string{"order": "42", "by": "alice\x07"},
		},
		Progress: bellhop.Progress{Ready: 1, Desired: 2, Message: "1 of 2\ntasks run"},
		Transitions: []bellhop.Transition{
			{State: bellhop.Pending, At: noon},
			{State: bellhop.Queued, At: at(20 * time.Millisecond)},
			{State: bellhop.Running, At: at(1300 * time.Millisecond)},
			{State: bellhop.Failed, At: at(83 * time.Second)},
		},
		Callbacks: []bellhop.Receipt{
			{Target: "orders", State: bellhop.ReceiptAcknowledged, CallbackID: "op-1/failed", Attempts: 1, FirstAttemptAt: at(83 * time.Second), AcknowledgedAt: at(84 * time.Second)},
			{Target: "audit", State: bellhop.ReceiptDelivering, CallbackID: "op-1/failed", Attempts: 7, FirstAttemptAt: at(83 * time.Second), LastError: "503 Service Unavailable:\ntry later"},
			{Target: "metrics", State: bellhop.ReceiptPending},
		},
	}
}

func TestStatusForPeople(t *testing.T) {
	golden(t, "status-failed", screen{}.status(failedStatus()))
	golden(t, "status-failed-colour", screen{colour: true}.status(failedStatus()))

	pending := bellhop.Status{Outcome: bellhop.Outcome{
		OperationID: "op-2", OperationType: bellhop.Delete, TenantID: "acme", Resource: "default", Provider: "docker",
		State: bellhop.Pending, RequestedAt: noon,
	}}
	golden(t, "status-pending", screen{}.status(pending))
}

func TestNothingOfAStatusIsLeftOut(t *testing.T) {
	status := failedStatus()
	text := screen{}.status(status)
	if strings.Contains(text, "\x1b") || strings.Contains(text, "\a") {
		t.Errorf("what a container logged controls the terminal: %q", text)
	}
	document, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]any
	if err := json.Unmarshal(document, &members); err != nil {
		t.Fatal(err)
	}
	// These are said in another form.
	for _, name := range []string{"schema_version", "duration_ms", "endpoints", "progress", "metadata"} {
		delete(members, name)
	}
	var walk func(at string, value any)
	walk = func(at string, value any) {
		switch v := value.(type) {
		case map[string]any:
			for name, member := range v {
				walk(at+"."+name, member)
			}
		case []any:
			for _, item := range v {
				walk(at, item)
			}
		case string:
			want, _, _ := strings.Cut(v, "\n")
			if moment, err := time.Parse(time.RFC3339Nano, v); err == nil {
				want = stamp(moment)
			}
			if !strings.Contains(text, want) {
				t.Errorf("%s is missing: %s", at, want)
			}
		}
	}
	walk("", members)
}

func TestStatus(t *testing.T) {
	t.Parallel()
	g := checkIn(t)
	g.stdin = scripted("teller", `{"ready_after": "0s"}`, `[{"target": "bell", "address": {"task_token": "`+secretToken+`"}}]`)
	g.must(0, "provision", "--id", "teller-1", "--wait", "-f", "-")
	g.must(0, "status", "teller-1", "--watch") // until the callback is settled

	got := g.must(0, "status", "teller-1")
	contains(t, got.stdout, "teller-1  provision teller/default on simulated\n", "succeeded", "compute-provisioned", "simulated_ids  sim-",
		"bell    acknowledged  1", "teller-1/succeeded")
	if got.stderr != "" {
		t.Errorf("stderr has %q", got.stderr)
	}
	if strings.Contains(got.stdout, "\x1b") {
		t.Errorf("there is colour in a pipe: %q", got.stdout)
	}

	document := g.must(0, "status", "teller-1", "-o", "json")
	var status bellhop.Status
	if err := bellhop.DecodeStrict([]byte(document.stdout), &status); err != nil {
		t.Errorf("stdout is not the status document alone: %s\n%s", err, document.stdout)
	}
	ops := operations.New(g.temporal, "default", "")
	report, err := ops.Status(t.Context(), "teller-1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(report.Status, status); diff != "" {
		t.Error(diff)
	}
	noSecrets(t, got, document)

	got = g.must(3, "status", "nobody-1")
	contains(t, got.stderr, "bellhop: find operation nobody-1: no such operation\nsee which there are: bellhop list\n")
	got = g.must(3, "status", "bellhop-watch/simulated") // a workflow, and no operation
	contains(t, got.stderr, "no such operation")
	for _, verb := range []string{"wait", "cancel", "redeliver"} {
		g.must(3, verb, "nobody-1")
	}
	g.must(3, "status", "nobody-1", "--watch")
}

func noSecrets(t *testing.T, results ...result) {
	t.Helper()
	for _, got := range results {
		for _, secret := range []string{secretEnv, secretToken} {
			if strings.Contains(got.stdout+got.stderr, secret) {
				t.Errorf("%q is shown:\n%s%s", secret, got.stdout, got.stderr)
			}
		}
	}
}

func TestNoWorker(t *testing.T) {
	t.Parallel()
	g := checkIn(t)
	g.stdin = scripted("lonely", `{}`, `[{"target": "bell", "address": {"task_token": "`+secretToken+`"}}]`)
	g.must(0, "provision", "--id", "lonely-1", "--task-queue", "nobody", "-f", "-")

	got := g.must(0, "status", "lonely-1")
	contains(t, got.stderr, "no worker answered (", "which may be behind; is bellhop-worker running?\n")
	contains(t, got.stdout, "lonely-1  provision lonely/default on simulated\n", "pending", "bell    pending")
	if strings.Contains(got.stdout, "progress") {
		t.Errorf("a progress is told that nobody reported:\n%s", got.stdout)
	}
	document := g.must(0, "status", "lonely-1", "-o", "json")
	var status bellhop.Status
	if err := bellhop.DecodeStrict([]byte(document.stdout), &status); err != nil || status.State != bellhop.Pending {
		t.Errorf("got %v, %+v", err, status)
	}
	contains(t, document.stderr, "no worker answered")

	watched := g.interruptAt("no worker answers", "status", "lonely-1", "--watch")
	contains(t, watched.stdout, "Z pending\n", "Z no worker answers; is bellhop-worker running?\n")
	noSecrets(t, got, document, watched)

	g.listed("--tenant", "lonely", "--state", "pending")
	g.listed("--tenant", "lonely", "--state", "queued")

	// Terminated, as only somebody at Temporal's own command line can do it: it has failed, and wait does not hang.
	if err := g.temporal.TerminateWorkflow(t.Context(), "lonely-1", "", "no use"); err != nil {
		t.Fatal(err)
	}
	got = g.must(1, "wait", "lonely-1")
	contains(t, got.stdout, "Z failed INTERNAL: the operation's workflow was terminated: no use; nobody was called back\n")
	g.listed("--tenant", "lonely", "--state", "failed")
}

func TestTerminatedUnderAWorker(t *testing.T) {
	t.Parallel()
	g := checkIn(t)
	g.stdin = scripted("shot", `{"ready_after": "1h"}`, "")
	g.must(0, "provision", "--id", "shot-1", "-f", "-")
	g.interruptAt("running", "status", "shot-1", "--watch")
	if err := g.temporal.TerminateWorkflow(t.Context(), "shot-1", "", "no use"); err != nil {
		t.Fatal(err)
	}
	got := g.must(1, "wait", "shot-1")
	contains(t, got.stdout, "Z running\n", "Z failed INTERNAL: ")
	got = g.must(0, "status", "shot-1")
	contains(t, got.stdout, "sim-") // what exists is still told
}

func TestAfterTheWorkersHaveGone(t *testing.T) {
	t.Parallel()
	g := checkIn(t)
	stop := g.work(t, "shift")
	g.stdin = scripted("shift", `{}`, `[{"target": "bell"}, {"target": "second", "address": {"mute": "shift"}, "deadline": "1s"}, {"target": "second", "states": ["failed"]}]`)
	g.must(0, "provision", "--id", "shift-1", "--task-queue", "shift", "-f", "-")
	g.must(0, "status", "shift-1", "--watch")
	with := g.must(0, "status", "shift-1", "-o", "json")
	stop()
	without := g.must(0, "status", "shift-1", "-o", "json")
	if diff := cmp.Diff(with.stdout, without.stdout); diff != "" {
		t.Error(diff)
	}
	if without.stderr != "" {
		t.Errorf("a worker is missed: %s", without.stderr)
	}
	var status bellhop.Status
	if err := bellhop.DecodeStrict([]byte(without.stdout), &status); err != nil {
		t.Fatal(err)
	}
	if status.Callbacks[1].State != bellhop.ReceiptUndeliverable {
		t.Errorf("got %+v", status.Callbacks[1])
	}
}

func TestSilenceIsExplained(t *testing.T) {
	var report bellhop.Report
	report.Silence = errors.New("no poller seen")
	report.State = bellhop.Running
	if want := "no worker answered (no poller seen), so this is Temporal's own record, which may be behind; is bellhop-worker running?"; silence(report) != want {
		t.Errorf("got %s", silence(report))
	}
}

func TestDocumentsAreWrittenAsTheyAre(t *testing.T) {
	var out bytes.Buffer
	if err := writeJSON(&out, map[string]string{"a": "<&>"}, true); err != nil || out.String() != "{\n  \"a\": \"<&>\"\n}\n" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

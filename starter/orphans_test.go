package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/creack/pty"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/workflowservice/v1"

	"bellhop"
)

// annexed starts an operation at the annex, where no other test leaves anything, and waits for its end.
func (g *guest) annexed(code int, verb, id, resource, script string) {
	g.t.Helper()
	g.stdin = fmt.Sprintf(`{"tenant_id": "annexed", "resource": %q, "provider": "annex", "provider_config": %s`, resource, script)
	if verb != "delete" {
		g.stdin += `, "spec": {"image": "nginx", "replicas": 2}`
	}
	g.stdin += "}"
	g.must(code, verb, "--id", id, "--wait", "-f", "-")
}

// orphansOf asks for the report, as a script does.
func (g *guest) orphansOf(code int, args ...string) orphansDocument {
	g.t.Helper()
	var report orphansDocument
	got := g.must(code, append([]string{"orphans", "--provider", "annex", "-o", "json"}, args...)...)
	if err := json.Unmarshal([]byte(got.stdout), &report); err != nil {
		g.t.Fatalf("%s: %s", err, got.stdout)
	}
	return report
}

func namesOf(orphans []bellhop.Orphan) []string {
	names := []string{}
	for _, orphan := range orphans {
		name := orphan.OperationID
		if orphan.Beside != "" {
			name += " beside " + orphan.Beside
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

const (
	failsAndLeaves = `{"ready_after": "1h", "fail": {"code": "CONTAINER_EXITED", "after": "0s"}}`
	neverReady     = `{"ready_after": "1h"}`
)

// TestOrphans goes through the life of what nobody owns. Its steps build on each other: they share the annex.
func TestOrphans(t *testing.T) {
	t.Parallel()
	g := checkIn(t)
	wants := func(when string, args []string, orphans, unknown []string) {
		t.Helper()
		// Temporal's list lags behind: for a moment an operation that has ended may still count as one under way.
		var report bellhop.OrphanReport
		deadline := time.Now().Add(time.Minute)
		for {
			report = g.orphansOf(0, args...).OrphanReport
			if slices.Equal(namesOf(report.Orphans), orphans) && slices.Equal(namesOf(report.Unknown), unknown) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: orphans %q, unknown %q; want %q and %q", when, namesOf(report.Orphans), namesOf(report.Unknown), orphans, unknown)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	none := []string{}
	wants("nothing stands", nil, none, none)
	got := g.must(0, "orphans", "--provider", "annex")
	if got.stdout != "" || got.stderr != "no orphans; looked at what operations hold: 0 at annex\n" {
		t.Errorf("nothing stands: %q, %q", got.stdout, got.stderr)
	}

	g.annexed(0, "provision", "served", "web", `{}`)
	g.annexed(1, "provision", "failed-1", "failed", failsAndLeaves)
	for id, resource := range map[string]string{"terminated-1": "ended", "waits-1": "waits"} {
		g.stdin = fmt.Sprintf(`{"tenant_id": "annexed", "resource": %q, "provider": "annex", "spec": {"image": "nginx"}, "provider_config": %s}`,
			resource, neverReady)
		g.must(0, "provision", "--id", id, "-f", "-")
		g.reaches(id, bellhop.Running)
	}
	if err := g.temporal.TerminateWorkflow(t.Context(), "terminated-1", "", "by an operator"); err != nil {
		t.Fatal(err)
	}
	wants("what failed and what was terminated", nil, []string{"failed-1", "terminated-1"}, none)
	got = g.must(0, "orphans", "--provider", "annex")
	contains(t, got.stdout, "RESOURCE        PROVIDER  LEFT BY       WHICH             RUNNING  WHAT STANDS",
		"\nannexed/failed  annex     failed-1      failed provision  ")
	contains(t, got.stderr, "2 orphans; looked at what operations hold: 4 at annex")

	got = g.must(2, "orphans", "--provider", "annex", "--remove")
	contains(t, got.stderr, "there is no terminal to ask", "--yes")
	contains(t, g.must(2, "orphans", "--yes").stderr, "--yes answers --remove")
	contains(t, g.must(2, "orphans", "--provider", "nowhere").stderr, `provider: "nowhere" is not configured; configured are annex, simulated`)

	g.atTerminal("no\n", "Type yes: ", "nothing was removed")
	wants("no was said", nil, []string{"failed-1", "terminated-1"}, none)
	g.atTerminal("yes\n", "remove what stands of 2 resources?", "annexed/failed is gone", "annexed/ended is gone")
	wants("they were removed", nil, none, none)
	if left := g.orphansOf(0).Looked["annex"]; left != 2 {
		t.Errorf("%d operations hold something, want the two that serve and wait", left)
	}

	// An update that failed: what served before serves on, and no deletion may take it.
	g.annexed(1, "update", "failed-2", "web", failsAndLeaves)
	wants("an update failed", nil, []string{"failed-2 beside served"}, none)
	contains(t, g.must(0, "orphans", "--provider", "annex").stdout, "goes with the next operation on it: served succeeded there")
	if report := g.orphansOf(0, "--remove", "--yes"); len(report.Removals) != 0 {
		t.Errorf("what serves was removed: %+v", report.Removals)
	}
	g.stdin = `{"tenant_id": "annexed", "resource": "web", "provider": "annex", "spec": {"image": "nginx"}, "provider_config": ` + neverReady + `}`
	g.must(0, "update", "--id", "updating", "-f", "-")
	wants("an update is under way", nil, none, none)
	g.annexed(0, "update", "updated", "web", `{}`)
	wants("the next update took all over", nil, none, none)

	// What Temporal has forgotten may serve, and is no orphan.
	for _, id := range []string{"served", "updated"} {
		if _, err := g.temporal.WorkflowService().DeleteWorkflowExecution(t.Context(), &workflowservice.DeleteWorkflowExecutionRequest{
			Namespace: "default", WorkflowExecution: &common.WorkflowExecution{WorkflowId: id},
		}); err != nil {
			t.Fatal(err)
		}
	}
	wants("Temporal has forgotten it", nil, none, []string{"updated"})
	contains(t, g.must(0, "orphans", "--provider", "annex").stderr, "1 more belong to operations that Temporal does not know")
	contains(t, g.must(0, "orphans", "--provider", "annex", "--unknown").stdout, "annexed/web  annex     updated  unknown")
	if report := g.orphansOf(0, "--remove", "--yes"); len(report.Removals) != 0 {
		t.Errorf("what is unknown was removed: %+v", report.Removals)
	}
	report := g.orphansOf(0, "--unknown", "--remove", "--yes")
	if len(report.Removals) != 1 || report.Removals[0].State != bellhop.Succeeded || report.Removals[0].Resource != "web" {
		t.Errorf("asked to remove what is unknown: %+v", report.Removals)
	}
	contains(t, g.must(0, "status", report.Removals[0].OperationID).stdout, "delete", "annexed/web", "succeeded")
	wants("it was removed", nil, none, none)

	// A deletion of what waits ends the test as it began.
	g.annexed(0, "delete", "swept", "waits", `{}`)
	wants("all was deleted", nil, none, none)
	if left := g.orphansOf(0).Looked["annex"]; left != 0 {
		t.Errorf("%d operations hold something at the end", left)
	}
}

func TestOrphansWithoutAWorker(t *testing.T) {
	t.Parallel()
	g := checkIn(t)
	got := g.must(5, "orphans", "--timeout", "1s", "--task-queue", "nobody-polls-this")
	contains(t, got.stderr, "no report came within 1s", "is bellhop-worker running")
}

// reaches waits until an operation has a state.
func (g *guest) reaches(id string, state bellhop.State) {
	g.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		report, err := g.ops.Status(g.t.Context(), id)
		if err == nil && report.State == state {
			return
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("%s is %s, %v; want %s", id, report.State, err, state)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// atTerminal removes orphans as somebody does who sits at a terminal, and checks what is said there.
func (g *guest) atTerminal(types string, says ...string) {
	g.t.Helper()
	cmd := exec.CommandContext(g.t.Context(), os.Args[0], "orphans", "--provider", "annex", "--remove")
	cmd.Env = append(os.Environ(), asBellhop+"=1")
	for name, value := range g.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	terminal, err := pty.Start(cmd)
	if err != nil {
		g.t.Fatalf("there are no pseudo terminals: %s", err)
	}
	defer shut(terminal)
	if _, err := terminal.WriteString(types); err != nil {
		g.t.Fatal(err)
	}
	var seen bytes.Buffer
	pour(&seen, terminal)
	if err := cmd.Wait(); err != nil {
		g.t.Errorf("bellhop orphans --remove: %s\n%s", err, seen.String())
	}
	contains(g.t, seen.String(), says...)
}

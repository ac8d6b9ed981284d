package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"bellhop"
)

// listed lists until something is found: Temporal's list lags behind.
func (g *guest) listed(args ...string) result {
	g.t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(time.Minute)
	for {
		got := g.must(0, append([]string{"list"}, args...)...)
		if got.stdout != "" && got.stdout != "[]\n" {
			return got
		}
		select {
		case <-ticker.C:
		case <-deadline:
			g.t.Fatalf("bellhop list %s finds nothing; there is:\n%s", strings.Join(args, " "), g.must(0, "list", "--limit", "100").stdout)
		}
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	g := checkIn(t)
	for i := range 3 {
		g.stdin = fmt.Sprintf(`{"tenant_id": "lister", "resource": "r%d", "provider": "simulated", "spec": {"image": "nginx"}}`, i)
		g.must(0, "provision", "--id", fmt.Sprintf("lister-%d", i), "--wait", "-f", "-")
	}
	g.stdin = `{"tenant_id": "lister", "resource": "r3", "provider": "simulated", "spec": {"image": "nginx"}}`
	g.must(1, "update", "--id", "lister-3", "--wait", "-f", "-")

	got := g.listed("--tenant", "lister", "--state", "failed")
	contains(t, got.stdout, "ID        VERB    RESOURCE   PROVIDER   STATE   REQUESTED", "\nlister-3  update  lister/r3  simulated  failed  20")
	got = g.listed("--resource", "r1", "--provider", "simulated", "--state", "succeeded")
	contains(t, got.stdout, "\nlister-1  provision  lister/r1  simulated  succeeded  20")
	if lines := strings.Count(got.stdout, "\n"); lines != 2 {
		t.Errorf("there are %d lines:\n%s", lines, got.stdout)
	}

	got = g.listed("--tenant", "lister", "--limit", "2", "-o", "json")
	var items []bellhop.Item
	if err := json.Unmarshal([]byte(got.stdout), &items); err != nil {
		t.Fatal(err)
	}
	if len(items) != 2 || items[0].OperationID != "lister-3" || items[0].State != bellhop.Failed || items[1].OperationID != "lister-2" {
		t.Errorf("got %+v", items)
	}
	contains(t, got.stderr, "there are more than these 2; see more with --limit\n")
	if got := g.listed("--tenant", "lister", "--limit", "4"); got.stderr != "" {
		t.Errorf("stderr has %q", got.stderr)
	}

	got = g.must(0, "list", "--tenant", "it's nobody")
	if got.stdout != "" || got.stderr != "no operation is like that\n" {
		t.Errorf("got %q and %q", got.stdout, got.stderr)
	}
	got = g.must(0, "list", "--tenant", "nobody", "-o", "json")
	if got.stdout != "[]\n" || got.stderr != "" {
		t.Errorf("got %q and %q", got.stdout, got.stderr)
	}
}

func TestListForPeople(t *testing.T) {
	rows := [][]cell{
		listRow(bellhop.Item{OperationID: "op-1", OperationType: bellhop.Provision, TenantID: "acme", Resource: "web", Provider: "docker", State: bellhop.Succeeded, RequestedAt: noon, ClosedAt: noon.Add(1234 * time.Millisecond)}),
		listRow(bellhop.Item{OperationID: "a-longer-one", OperationType: bellhop.Delete, TenantID: "acme", Resource: "default", Provider: "ecs", State: bellhop.Running, RequestedAt: noon}),
	}
	golden(t, "list", strings.Join(screen{}.table("", rows), "\n")+"\n")
}

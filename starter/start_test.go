package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bellhop"
)

const web = `{"tenant_id": "acme", "resource": "web", "provider": "simulated", "spec": {"image": "nginx:1.27"}}`

func TestStartWithoutWaiting(t *testing.T) {
	t.Parallel()
	g := checkIn(t)
	g.stdin = web
	got := g.must(0, "provision", "--id", "start-1", "-f", "-")
	if want := "started start-1 (provision acme/web on simulated)\nsee how it goes: bellhop status start-1\n"; got.stdout != want {
		t.Errorf("got %q, want %q", got.stdout, want)
	}
	if got.stderr != "" {
		t.Errorf("stderr has %q", got.stderr)
	}

	// The same in YAML, with defaults spelled out and in another order, is the same operation.
	file := filepath.Join(t.TempDir(), "op.yaml")
	yaml := "spec:\n  image: nginx:1.27 # the new one\n  replicas: 1\nprovider: simulated\nresource: web\ntenant_id: acme\noperation_id: start-1\n"
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	got = g.must(0, "provision", "-f", file)
	contains(t, got.stdout, "start-1 (provision acme/web on simulated) was started before, the same in every respect; nothing was started now\n")

	g.stdin = strings.Replace(web, "1.27", "1.28", 1)
	got = g.must(2, "provision", "--id", "start-1", "-f", "-")
	contains(t, got.stderr, "bellhop: start operation start-1: the id belongs to another operation\n",
		"choose another id, or see what it is: bellhop status start-1\n")
	g.stdin = web
	got = g.must(2, "update", "--id", "start-1", "-f", "-")
	contains(t, got.stderr, "the id belongs to another operation")
}

func TestStartAndWait(t *testing.T) {
	t.Parallel()
	g := checkIn(t)
	g.stdin = strings.Replace(web, "acme", "waiter", 1)
	got := g.must(0, "provision", "--id", "wait-1", "--wait", "-f", "-")
	contains(t, got.stdout, "started wait-1 ", "Z pending\n", "Z queued\n", "Z running\n", "Z succeeded\n")

	got = g.must(0, "update", "--id", "wait-2", "--wait", "--timeout", "1m", "-f", "-")
	contains(t, got.stdout, "started wait-2 (update ", "Z succeeded\n")

	g.stdin = `{"tenant_id": "waiter", "resource": "web", "provider": "simulated"}`
	got = g.must(0, "delete", "--id", "wait-3", "--wait", "-f", "-")
	contains(t, got.stdout, "started wait-3 (delete ", "Z succeeded\n")

	g.stdin = strings.Replace(web, "acme", "waiter", 1)
	got = g.must(1, "update", "--id", "wait-4", "--wait", "-f", "-")
	contains(t, got.stdout, "Z failed RESOURCE_NOT_FOUND: ")
	contains(t, got.stderr, "bellhop: wait-4 failed with RESOURCE_NOT_FOUND\nsee all about it: bellhop status wait-4\n")

	// Waiting for one that was started before is waiting, too.
	got = g.must(1, "update", "--id", "wait-4", "--wait", "-f", "-")
	contains(t, got.stdout, "was started before", "Z failed RESOURCE_NOT_FOUND: ")
}

func TestWaitingHasAnEnd(t *testing.T) {
	t.Parallel()
	g := checkIn(t)
	g.stdin = scripted("patience", `{"ready_after": "1h"}`, "")
	began := time.Now()
	got := g.must(5, "provision", "--id", "patience-1", "--wait", "--timeout", "500ms", "-f", "-")
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %s", took)
	}
	contains(t, got.stderr, "bellhop: patience-1 has not ended within 500ms; it goes on\nwait again: bellhop wait patience-1\n")
	g.must(5, "wait", "patience-1", "--timeout", "300ms")

	got = g.interruptAt("running", "wait", "patience-1")
	if got.code != exitInterrupted {
		t.Errorf("exit code %d", got.code)
	}
	contains(t, got.stderr, "stopped watching; operation patience-1 goes on\n", "bellhop status patience-1\n", "bellhop cancel patience-1\n")

	contains(t, g.must(0, "cancel", "patience-1").stdout, "asked patience-1 to give up\nsee how it goes: bellhop status patience-1 --watch\n")
	got = g.must(1, "wait", "patience-1")
	contains(t, got.stdout, "Z cancelled CANCELLED: the operation was cancelled; what exists was left as it is\n")
	contains(t, got.stderr, "bellhop: patience-1 was cancelled\n")
	contains(t, g.must(0, "cancel", "patience-1").stdout, "patience-1 has ended already; nothing was cancelled\n")
}

// scripted is an operation on a simulated platform that does as it is told.
func scripted(tenant, script, callbacks string) string {
	text := `{"tenant_id": "` + tenant + `", "provider": "simulated", "spec": {"image": "nginx", "replicas": 2, "env": {"KEY": "` + secretEnv +
		`"}}, "provider_config": ` + script
	if callbacks != "" {
		text += `, "callbacks": ` + callbacks
	}
	return text + "}"
}

// Secrets, which no test may ever see again.
const (
	secretEnv   = "env-t0p-s3cr3t"
	secretToken = "token-t0p-s3cr3t"
)

func TestStartUsage(t *testing.T) {
	t.Parallel()
	g := &guest{t: t, env: stranger(t, "127.0.0.1:1")} // nobody is asked
	g.stdin = web
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"provision", "--id", "x"}, "say which operation: -f FILE, or -f - for stdin"},
		{[]string{"provision", "-f", "-"}, "operation_id: is required: add --id, such as --id acme-web-"},
		{[]string{"provision", "-f", "-", "--id", "x", "--timeout", "1m"}, "--timeout bounds --wait, which is missing"},
		{[]string{"provision", "-f", "-", "--id", "x", "--wait", "--timeout", "-1s"}, "--timeout must not be negative"},
		{[]string{"provision", "-f", "-", "--id", "x", "op.yaml"}, `bellhop provision takes no arguments, so "op.yaml" is too many`},
		{[]string{"provision", "--nonsense"}, "unknown flag: --nonsense"},
		{[]string{"provison"}, `unknown command "provison"`},
		{[]string{"status"}, "say which operation: bellhop status ID"},
		{[]string{"status", "a", "b"}, "one operation at a time, please"},
		{[]string{"status", "a", "-o", "yaml"}, `--output "yaml" is neither text nor json`},
		{[]string{"wait", "a", "--timeout", "0s"}, "--timeout must be more than 0"},
		{[]string{"list", "--state", "ready"}, `--state "ready" is none of pending, queued, running, succeeded, failed, cancelled`},
		{[]string{"list", "--limit", "0"}, "--limit must be at least 1"},
		{[]string{"list", "-o", "xml"}, `--output "xml" is neither`},
		{[]string{"list", "all"}, "takes no arguments"},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			t.Parallel()
			g := &guest{t: t, env: g.env, stdin: web}
			got := g.must(2, test.args...)
			contains(t, got.stderr, test.want)
			if got.stdout != "" {
				t.Errorf("stdout has %q", got.stdout)
			}
		})
	}
}

func TestTheHelpOfEveryVerb(t *testing.T) {
	for _, verb := range bellhop.Verbs() {
		g := &guest{t: t, env: stranger(t, "")}
		contains(t, g.must(0, string(verb), "--help").stdout, "bellhop "+string(verb)+" -f FILE --id ID", "--wait")
	}
}

package main

import (
	"strings"
	"testing"
	"time"
)

func TestRedeliver(t *testing.T) {
	t.Parallel()
	g := checkIn(t)
	g.stdin = scripted("mute", `{}`, `[{"target": "bell", "address": {"mute": "a"}}, {"target": "second", "address": {"mute": "b"}}]`)
	g.must(0, "provision", "--id", "mute-1", "--wait", "-f", "-")
	got := g.interruptAt("second blocked, 1 attempt: the bell is mute", "status", "mute-1", "--watch")
	if got.code != exitInterrupted {
		t.Errorf("exit code %d", got.code)
	}
	g.interruptAt("bell blocked, 1 attempt: the bell is mute", "status", "mute-1", "--watch")

	// A blocked callback is tried again after minutes; this test would time out without redeliver.
	g.bell.unmute("a")
	got = g.must(0, "redeliver", "mute-1", "--target", "bell")
	if want := "ringing bell\nsee whether it helps: bellhop status mute-1\n"; got.stdout != want {
		t.Errorf("got %q, want %q", got.stdout, want)
	}
	g.interruptAt("callback bell acknowledged, 2 attempts", "status", "mute-1", "--watch")

	got = g.must(2, "redeliver", "mute-1", "--target", "third")
	contains(t, got.stderr, `bellhop: mute-1 does not call "third" back`)
	got = g.must(0, "redeliver", "mute-1", "--target", "bell")
	contains(t, got.stdout, "nothing to ring:\n  bell  acknowledged  2 attempts")

	contains(t, g.must(0, "cancel", "mute-1").stdout, "mute-1 has ended already") // while it still rings

	g.bell.unmute("b")
	contains(t, g.must(0, "redeliver", "mute-1").stdout, "ringing second\n")
	got = g.must(0, "status", "mute-1", "--watch")
	contains(t, got.stdout, "callback bell acknowledged, 2 attempts", "callback second acknowledged, 2 attempts")
	contains(t, g.must(0, "redeliver", "mute-1").stdout, "nothing to ring:\n  bell    acknowledged", "\n  second  acknowledged")

	g.stdin = scripted("mute", `{}`, "")
	g.must(0, "provision", "--id", "mute-2", "--wait", "-f", "-")
	contains(t, g.must(0, "redeliver", "mute-2").stdout, "nothing to ring: mute-2 calls nobody back\n")
}

// list waits until Temporal's list, which lags behind, has a text or has it no longer.
func (g *guest) listUntil(text string, has bool, args ...string) result {
	g.t.Helper()
	deadline := time.After(time.Minute)
	for {
		got := g.must(0, append([]string{"list"}, args...)...)
		if strings.Contains(got.stdout, text) == has {
			return got
		}
		select {
		case <-deadline:
			g.t.Fatalf("bellhop list %s: %q is there: want %t\n%s", strings.Join(args, " "), text, has, got.stdout)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func TestRedeliverAfterTheEnd(t *testing.T) {
	t.Parallel()
	g := checkIn(t)
	for _, id := range []string{"lost-1", "lost-2"} {
		g.stdin = scripted("lost", `{}`, `[{"target": "bell", "address": {"gone": "`+id+`"}},
			{"target": "second", "address": {"mute": "`+id+`-second"}, "deadline": "1s"}, {"target": "bell"}]`)
		g.must(0, "provision", "--id", id, "-f", "-")
		contains(t, g.must(0, "status", id, "--watch").stdout, "callback bell undeliverable", "callback second undeliverable")
	}
	got := g.listUntil("lost-2", true, "--undelivered", "--tenant", "lost")
	contains(t, got.stdout, "UNDELIVERED", "bell undeliverable, second undeliverable", "lost-1")

	// Nobody is there yet: it is tried and given up once more.
	contains(t, g.must(0, "redeliver", "lost-1", "--target", "bell").stdout, "ringing bell\n")
	g.interruptAt("callback bell undeliverable, 1 attempt: nobody is there", "status", "lost-1", "--watch")

	g.bell.unmute("lost-1")
	contains(t, g.must(0, "redeliver", "lost-1", "--target", "bell").stdout, "ringing bell\n")
	deadline := time.Now().Add(time.Minute)
	for !strings.Contains(g.must(0, "status", "lost-1").stdout, "bell    acknowledged") {
		if time.Now().After(deadline) {
			t.Fatal("it was not rung")
		}
	}
	contains(t, g.must(0, "redeliver", "lost-1", "--target", "bell").stdout, "nothing to ring:\n  bell  acknowledged")
	contains(t, g.listUntil("second undeliverable", true, "--undelivered", "--tenant", "lost").stdout, "lost-1")

	// All at once: what is left of lost-1, and lost-2.
	g.bell.unmute("lost-2")
	g.bell.unmute("lost-1-second")
	g.bell.unmute("lost-2-second")
	if got := g.must(0, "redeliver", "--all", "--target", "second", "--since", "1h"); !strings.Contains(got.stdout, "lost-1: ringing second\n") ||
		!strings.Contains(got.stdout, "lost-2: ringing second\n") || strings.Contains(got.stdout, "ringing bell") {
		t.Errorf("got %q", got.stdout)
	}
	contains(t, g.must(0, "redeliver", "--all", "--since", "2026-03-01T12:00:00Z").stdout, "lost-2: ringing bell", "bellhop list --undelivered")
	g.listUntil("lost-", false, "--undelivered", "--tenant", "lost")

	// What arrives late is what would have arrived, to the byte, and once.
	g.bell.mu.Lock()
	defer g.bell.mu.Unlock()
	for _, name := range []string{"lost-1", "lost-2", "lost-1-second", "lost-2-second"} {
		heard := g.bell.heard[name]
		if len(heard) != 1 || !strings.Contains(heard[0], `"state":"succeeded"`) {
			t.Errorf("%s heard %q", name, heard)
		}
	}
}

func TestRedeliverUsage(t *testing.T) {
	t.Parallel()
	g := &guest{t: t, env: map[string]string{}}
	for _, row := range []struct{ says, args string }{
		{"say which operation: bellhop redeliver ID", ""},
		{"say which: an ID, or --all", "web-1 --all"},
		{"--since bounds --all, which is missing", "web-1 --since 1h"},
		{`--since "yesterday" is neither a duration such as 24h nor a time such as 2026-03-01T12:00:00Z`, "--all --since yesterday"},
	} {
		contains(t, g.must(exitUsage, append([]string{"redeliver"}, strings.Fields(row.args)...)...).stderr, row.says)
	}
}

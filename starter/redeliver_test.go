package main

import (
	"testing"
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

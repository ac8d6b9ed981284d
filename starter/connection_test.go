package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestNoServer(t *testing.T) {
	t.Parallel()
	g := &guest{t: t, env: stranger(t, "127.0.0.1:1")}
	for _, args := range [][]string{
		{"status", "x"},
		{"status", "x", "--watch"},
		{"wait", "x"},
		{"list"},
		{"cancel", "x"},
		{"redeliver", "x"},
		{"provision", "--id", "x", "-f", "-"},
	} {
		g.stdin = web
		began := time.Now()
		got := g.must(4, args...)
		if took := time.Since(began); took > 40*time.Second {
			t.Errorf("%s: it took %s", args, took)
		}
		contains(t, got.stderr, "bellhop: reach Temporal at 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused\n",
			"say where it is with --address or TEMPORAL_ADDRESS")
		if got.stdout != "" {
			t.Errorf("%s: stdout has %q", args, got.stdout)
		}
	}
}

func TestServerThatSaysNothing(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer shut(listener)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { shut(conn) })
		}
	}()
	g := &guest{t: t, env: stranger(t, listener.Addr().String())}
	began := time.Now()
	got := g.must(4, "list")
	if took := time.Since(began); took > 40*time.Second {
		t.Errorf("it took %s", took)
	}
	contains(t, got.stderr, "bellhop: reach Temporal at "+listener.Addr().String()+": ")
}

func TestConnectionConfiguration(t *testing.T) {
	t.Parallel()
	g := checkIn(t)
	config := filepath.Join(t.TempDir(), "temporal.toml")
	text := "[profile.good]\naddress = \"" + g.address + "\"\n[profile.bad]\naddress = \"127.0.0.1:1\"\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	alone := map[string]string{"TEMPORAL_CONFIG_FILE": config}

	g.env = alone
	g.must(0, "list", "--profile", "good")
	contains(t, g.must(4, "list", "--profile", "bad").stderr, "127.0.0.1:1")
	contains(t, g.must(2, "list", "--profile", "none").stderr, "bellhop: read Temporal's configuration: ", "none")
	g.must(0, "list", "--profile", "bad", "--address", g.address)

	g.env = map[string]string{"TEMPORAL_CONFIG_FILE": config, "TEMPORAL_PROFILE": "good"}
	g.must(0, "list")
	g.env["TEMPORAL_ADDRESS"] = "127.0.0.1:1"
	g.must(4, "list")
	g.must(0, "list", "--address", g.address)

	g.env = stranger(t, g.address)
	got := g.must(4, "list", "--namespace", "none")
	contains(t, got.stderr, "bellhop: ask Temporal at "+g.address+`: there is no namespace "none"`, "temporal operator namespace create --namespace none")
	g.env["TEMPORAL_NAMESPACE"] = "none"
	g.must(4, "status", "x")

	// What is suggested works as it is pasted: with the flags of this command.
	g.env = alone
	g.stdin = web
	got = g.must(0, "provision", "--address", g.address, "--namespace", "default", "--id", "flags-1", "-f", "-")
	line := strings.TrimSpace(strings.SplitAfter(got.stdout, "see how it goes: bellhop ")[1])
	contains(t, g.must(0, strings.Fields(line)...).stdout, "flags-1  provision")
}

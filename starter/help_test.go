package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestExamplesWorkWhenPasted gives the examples of the help to a shell, as somebody does who tries bellhop out.
func TestExamplesWorkWhenPasted(t *testing.T) {
	t.Parallel()
	g := checkIn(t)
	folder := t.TempDir()
	script := "#!/bin/sh\nexec env " + asBellhop + "=1 \"" + os.Args[0] + "\" \"$@\"\n"
	if err := os.WriteFile(filepath.Join(folder, "bellhop"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	root := newApp(func(string) string { return "" }, nil, nil, nil).root()
	examples := map[string]string{}
	for _, cmd := range root.Commands() {
		examples[cmd.Name()] = cmd.Example
		if cmd.Example == "" {
			t.Errorf("%s has no example", cmd.Name())
		}
	}
	names := []string{"validate", "schema", "provision", "wait", "status", "update", "list", "redeliver", "orphans", "cancel", "delete", "keyset", "version"}
	if len(names) != len(examples) {
		t.Errorf("there are %d commands, and %d are tried", len(examples), len(names))
	}
	for _, name := range names {
		if name == "redeliver" { // its second example wants a target that this operation does not call
			examples[name], _, _ = strings.Cut(examples[name], "\n")
		}
		if name == "orphans" { // its last example asks at a terminal
			examples[name], _, _ = strings.Cut(examples[name], "\nbellhop orphans --remove")
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-e")
		cmd.Stdin = strings.NewReader(examples[name] + "\n")
		cmd.Env = append(os.Environ(), "PATH="+folder+":"+os.Getenv("PATH"))
		cmd.Dir = folder
		for key, value := range g.env {
			cmd.Env = append(cmd.Env, key+"="+value)
		}
		if output, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %s\n%s\n%s", name, err, examples[name], output)
		}
	}
}

func TestHelp(t *testing.T) {
	g := &guest{t: t, env: map[string]string{}}
	help := g.must(0, "--help").stdout
	if bare := g.must(0).stdout; bare != help {
		t.Errorf("without a command there is another help:\n%s", bare)
	}
	for _, code := range []string{"0    ", "1    ", "2    ", "3    ", "4    ", "5    ", "6    ", "130  "} {
		contains(t, help, "\n  "+code)
	}
	contains(t, help, "TEMPORAL_ADDRESS", "temporal.toml", "--task-queue")
	for _, name := range []string{"provision", "status", "wait", "list", "cancel", "redeliver", "orphans", "validate", "schema", "version"} {
		contains(t, g.must(0, name, "--help").stdout, "Usage:", "Examples:\nbellhop ", "Global Flags:")
	}
}

func TestVersion(t *testing.T) {
	g := &guest{t: t, env: map[string]string{}}
	contains(t, g.must(0, "version").stdout, "bellhop ", " (go1.")
	contains(t, g.must(0, "--version").stdout, "bellhop ")
}

func TestCompletion(t *testing.T) {
	g := &guest{t: t, env: map[string]string{}}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"list", "--state", ""}, "pending\nqueued\nrunning\nsucceeded\nfailed\ncancelled\n:4\n"},
		{[]string{"validate", "--verb", ""}, "provision\nupdate\ndelete\n:4\n"},
		{[]string{"status", "-o", ""}, "text\njson\n:4\n"},
		{[]string{"redeliver", "x", "--target", ""}, ":4\n"},
		{[]string{"status", ""}, ":4\n"},
		{[]string{"provision", "-f", ""}, ":0\n"}, // files
	} {
		got := g.must(0, append([]string{cobra.ShellCompRequestCmd}, test.args...)...)
		if got.stdout != test.want {
			t.Errorf("%s: got %q, want %q", test.args, got.stdout, test.want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		contains(t, g.must(0, "completion", shell).stdout, "bellhop")
	}
}

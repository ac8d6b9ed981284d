package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"bellhop/tests/peers"
)

var fenced = regexp.MustCompile("(?s)```(sh|json)\n(.*?)\n```")

// The commands of the README are run in one shell, as they are pasted, and answer what the README says.
func TestReadme(t *testing.T) {
	for _, name := range []string{"bellhop", "bellhop-worker"} {
		if _, err := peers.Binary(name); err != nil {
			peers.Missing(t, err.Error())
		}
	}
	server := peers.ServerFor(t)
	folder := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(folder, "receiver"), ".").CombinedOutput(); err != nil {
		t.Fatalf("%s\n%s", err, out)
	}
	if err := os.Symlink(filepath.Join(peers.Root(), "bin"), filepath.Join(folder, "bin")); err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var commands, promised []string
	for _, block := range fenced.FindAllStringSubmatch(string(readme), -1) {
		if block[1] == "json" {
			promised = append(promised, block[2])
		} else {
			commands = append(commands, block[2])
		}
	}
	if len(commands) != 4 || len(promised) != 1 {
		t.Fatalf("the README has %d commands and %d answers, want 4 and 1", len(commands), len(promised))
	}
	ports, err := peers.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	// A command that waits for an operation does not wait for its callbacks, as a person who reads on does.
	bill := commands[3]
	commands[3] = "for i in $(seq 200); do " + bill + " | grep -q '\"failed\":1' && break; sleep 0.1; done; " + bill
	script := strings.NewReplacer("go run ./docs/examples/webhook -key-file", "./receiver -listen "+ports[0]+" -key-file",
		"go run ./docs/examples/webhook", "./receiver", "127.0.0.1:8085", ports[0]).Replace(strings.Join(commands, "\n"))

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	shell := exec.CommandContext(ctx, "sh", "-eu", "-c", script)
	shell.Dir = folder
	shell.Env = append(os.Environ(), "TEMPORAL_ADDRESS="+server.Address, "XDG_CACHE_HOME="+folder)
	// Into a file, which nobody need wait for to be closed by what the script leaves running.
	output, err := os.Create(filepath.Join(folder, "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close() //nolint:errcheck // it was only written
	shell.Stdout, shell.Stderr = output, output
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	shell.Cancel = func() error { return syscall.Kill(-shell.Process.Pid, syscall.SIGKILL) }
	failed := shell.Run()
	_ = syscall.Kill(-shell.Process.Pid, syscall.SIGKILL) //nolint:errcheck // its receiver and its worker
	said, err := os.ReadFile(output.Name())
	if failed != nil || err != nil {
		t.Fatalf("%v, %v\n%s", failed, err, said)
	}
	if !strings.Contains(string(said), promised[0]+"\n") {
		t.Errorf("the bill is not %s:\n%s", promised[0], said)
	}
}

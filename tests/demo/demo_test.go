package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"bellhop/tests/peers"
)

// show is one run of make demo or make dev, as somebody starts it who does not sit at a terminal.
type show struct {
	*testing.T
	cmd    *exec.Cmd
	lines  *bufio.Scanner
	tmp    string
	marker string
	output strings.Builder
	engine bool
}

func begin(t *testing.T, target string) *show {
	t.Helper()
	if testing.Short() {
		t.Skip("compiles and runs everything")
	}
	if _, err := peers.Binary("bellhop-devserver"); err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	probe := newStage(newScreen(&strings.Builder{}))
	if _, err := probe.findEngine(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	s := &show{T: t, tmp: t.TempDir(), engine: probe.engine != nil}
	// Whatever is begun inherits its environment, so whatever is left can be found by it.
	s.marker = "BELLHOP_DEMO_TEST=" + filepath.Base(filepath.Dir(s.tmp))
	s.cmd = exec.Command("make", "--no-print-directory", target)
	s.cmd.Dir = peers.Root()
	s.cmd.Env = append(os.Environ(), "TMPDIR="+s.tmp, s.marker)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stdout, s.cmd.Stderr = write, write
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close() // make has its own
	t.Cleanup(func() {
		_ = read.Close()
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // gone already, unless the test gave up
	})
	s.lines = bufio.NewScanner(read)
	return s
}

// until reads on until a line contains text.
func (s *show) until(text string) {
	s.Helper()
	for s.lines.Scan() {
		s.output.WriteString(s.lines.Text() + "\n")
		if strings.Contains(s.lines.Text(), text) {
			return
		}
	}
	s.Fatalf("it does not say %q:\n%s", text, &s.output)
}

// end reads to the end and answers the exit code.
func (s *show) end() int {
	s.Helper()
	for s.lines.Scan() {
		s.output.WriteString(s.lines.Text() + "\n")
	}
	_ = s.cmd.Wait() // the exit code tells
	return s.cmd.ProcessState.ExitCode()
}

// interrupt does what Ctrl-C does.
func (s *show) interrupt() {
	s.Helper()
	if err := syscall.Kill(-s.cmd.Process.Pid, syscall.SIGINT); err != nil {
		s.Fatal(err)
	}
}

// says checks that the output has every line, in this order.
func (s *show) says(lines ...string) {
	s.Helper()
	rest := s.output.String()
	for _, line := range lines {
		found := regexp.MustCompile(line).FindStringIndex(rest)
		if found == nil {
			s.Fatalf("it does not say %q where it should:\n%s", line, &s.output)
		}
		rest = rest[found[1]:]
	}
	if strings.Contains(s.output.String(), "\x1b") {
		s.Errorf("there are escape sequences in what is no terminal:\n%q", &s.output)
	}
}

// leavesNothing checks that no process, file, container or image is left.
func (s *show) leavesNothing() {
	s.Helper()
	// A process that was killed is gone a moment later.
	deadline := time.Now().Add(time.Minute)
	for left := s.processes(); len(left) > 0; left = s.processes() {
		if time.Now().After(deadline) {
			s.Errorf("processes are left: %v", left)
			break
		}
		<-time.After(50 * time.Millisecond)
	}
	files, err := os.ReadDir(s.tmp)
	if err != nil {
		s.Fatal(err)
	}
	for _, file := range files {
		s.Errorf("a file is left: %s", file.Name())
	}
	name := regexp.MustCompile(`demo-[a-z0-9]{6}`).FindString(s.output.String())
	if !s.engine || name == "" {
		return
	}
	probe := newStage(newScreen(&strings.Builder{}))
	probe.name = name
	if _, err := probe.findEngine(s.Context(), nil); err != nil || probe.engine == nil {
		s.Fatalf("the engine is gone: %v", err)
	}
	defer probe.engine.Close()
	containers, err := probe.containers(s.Context())
	if err != nil || len(containers) > 0 {
		s.Errorf("containers are left: %v, %v", containers, err)
	}
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	images, err := probe.engine.ImageList(ctx, client.ImageListOptions{
		Filters: make(client.Filters).Add("label", "bellhop.demo="+name), // also one that has lost its name
	})
	if err != nil || len(images.Items) > 0 {
		s.Errorf("images are left: %v, %v", images.Items, err)
	}
}

// processes are those that this show began and that still run.
func (s *show) processes() []string {
	var left []string
	environments, _ := filepath.Glob("/proc/[0-9]*/environ") // none where there is no /proc
	for _, path := range environments {
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains("\x00"+string(text), "\x00"+s.marker+"\x00") {
			continue
		}
		command, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		left = append(left, fmt.Sprintf("%s %s", filepath.Base(filepath.Dir(path)), strings.ReplaceAll(string(command), "\x00", " ")))
	}
	return left
}

func TestDemo(t *testing.T) {
	s := begin(t, "demo")
	if code := s.end(); code != 0 {
		t.Fatalf("it ended with %d:\n%s", code, &s.output)
	}
	s.says(
		`✓ compile +into bin/ `, `✓ start a Temporal server +\S+:\d+, http://\S+`, `✓ start a bellhop worker`,
		`1  A workflow asks for compute`, `0\.\d s  pending`, `running`, `3\.\d s  succeeded +sim-`,
		`\d s  rung +compute-provisioned to temporal: acknowledged, 1 attempt`, `the order +served`,
		`2  The compute fails`, `failed`, `rung +compute-failed to temporal: acknowledged`,
		`code +OUT_OF_MEMORY`, `retryable +no`, `requires_intervention +yes`, `evidence +exit_code: 137`, `a person has to see to it`,
		`3  The same with a real container`)
	if s.engine {
		s.says(`make an image +bellhop.demo/hello:demo-`, `succeeded +container [0-9a-f]{12}`, `\$ curl http://127.0.0.1:\d+/`,
			`hello from container [0-9a-f]{12}`, `bin/bellhop delete`, `gone +the engine has no container of it left`)
	} else {
		s.says(`no Docker engine answers on this machine. Get one`)
	}
	s.says(`That was it, in \d+\.\d s`, `UI +http://`, `follow +bin/bellhop status web-1`, `temporal workflow list`, `clean up +nothing is left`)
	s.leavesNothing()
}

// What make dev prints can be pasted.
func TestDevCommands(t *testing.T) {
	s := begin(t, "dev")
	s.until("Stop with Ctrl-C")
	_, guide, found := strings.Cut(s.output.String(), "Ready\n")
	if !found {
		t.Fatalf("it is not ready:\n%s", &s.output)
	}
	var script []string
	for line := range strings.Lines(guide) {
		const column = len("  follow   ")
		if len(line) > column && strings.HasPrefix(line, "  ") && !strings.HasPrefix(line, "  UI") {
			script = append(script, line[column:])
		}
	}
	paste := exec.CommandContext(t.Context(), "sh", "-ec", strings.Join(script, ""))
	paste.Dir = peers.Root()
	paste.Env = append(os.Environ(), "TMPDIR="+s.tmp)
	out, err := paste.CombinedOutput()
	if err != nil {
		t.Errorf("%s:\n%s\n%s", err, strings.Join(script, ""), out)
	}
	for _, want := range []string{"started web-1", "succeeded", `"served": true`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the pasted commands do not answer %q:\n%s", want, out)
		}
	}
	s.interrupt()
	s.end()
	s.leavesNothing()
}

func TestInterrupted(t *testing.T) {
	for _, test := range []struct {
		at string
		// without is where, if no Docker engine answers.
		without string
		twice   bool
	}{
		{at: "Setting the stage"},
		{at: "succeeded  container", without: "2  The compute fails"},
		{at: "1  A workflow asks", twice: true},
	} {
		t.Run(test.at, func(t *testing.T) {
			s := begin(t, "demo")
			if test.without != "" && !s.engine {
				test.at = test.without
			}
			s.until(test.at)
			s.interrupt()
			if test.twice {
				s.until("Once more kills")
				s.interrupt()
			}
			if code := s.end(); code == 0 {
				t.Errorf("it ended with 0, as if it had not been interrupted:\n%s", &s.output)
			}
			s.leavesNothing()
			if t.Failed() {
				t.Logf("%s", &s.output)
			}
		})
	}
}

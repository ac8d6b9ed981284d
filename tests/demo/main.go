// Command demo shows bellhop at work on this machine, and leaves nothing behind: make demo. With -dev it runs a Temporal
// server and a worker to play with, until Ctrl-C: make dev.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// errInterrupted is why everything ends after Ctrl-C.
var errInterrupted = errors.New("interrupted")

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dev := flags.Bool("dev", false, "run a Temporal server and a worker until Ctrl-C, and show nothing")
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	show := newScreen(stdout)
	s := newStage(show)
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	interrupts := make(chan os.Signal, 2)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupts)
	go func() {
		<-interrupts
		cancel(errInterrupted)
		show.line("")
		show.line("Stopping. Once more kills what is still running.")
		<-interrupts
		s.kill()
		show.line("Killed. %s", s.leftovers())
		os.Exit(exitInterrupted)
	}()

	var err error
	if *dev {
		err = develop(ctx, s)
	} else {
		err = tell(ctx, s, stdin)
	}
	interrupted := context.Cause(ctx) == errInterrupted //nolint:errorlint // the cause is given as it is
	if err != nil && !interrupted {
		show.line("")
		show.line("%s %s", show.paint(red, "demo:"), err)
	}
	left := s.clear()
	switch {
	case left != nil:
		show.line("%s %s", show.paint(red, "demo:"), left)
		return exitFailed
	case interrupted && !*dev:
		return exitInterrupted
	case err != nil && !interrupted:
		return exitFailed
	}
	return exitOK
}

// tell is make demo.
func tell(ctx context.Context, s *stage, stdin io.Reader) error {
	if err := s.set(ctx); err != nil {
		return err
	}
	began := time.Now()
	for _, scene := range []func(context.Context, *stage) error{served, failing, contained} {
		if err := scene(ctx, s); err != nil {
			return err
		}
	}
	s.title("That was it, in %s", seconds(time.Since(began)))
	if !s.terminal {
		s.line("  Now everything ends. To go on: make dev, and then")
		s.guide()
		return nil
	}
	s.line("  To go on, in another terminal:")
	s.guide()
	s.line("")
	s.line("Press Enter to stop; until then all of it runs.")
	enter := make(chan struct{})
	go func() {
		_, _ = bufio.NewReader(stdin).ReadString('\n') // the end of the input is as good
		close(enter)
	}()
	select {
	case <-enter:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case err := <-s.broken:
		return err
	}
}

// develop is make dev.
func develop(ctx context.Context, s *stage) error {
	if err := s.set(ctx); err != nil {
		return err
	}
	s.title("Ready")
	s.guide()
	s.line("")
	s.line("Stop with Ctrl-C. The server keeps everything in memory.")
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case err := <-s.broken:
		return err
	}
}

// guide says how to go on. What it prints after the first column can be pasted.
func (s *stage) guide() {
	row := func(what, how string) { s.line("  %s %s", s.paint(dim, fmt.Sprintf("%-8s", what)), how) }
	row("UI", s.ui)
	if s.address != defaultAddress {
		row("first", "export TEMPORAL_ADDRESS="+s.address)
	}
	row("start", `echo '{"tenant_id": "acme", "provider": "simulated", "spec": {"image": "nginx:1.27"}}' |`)
	row("", "  bin/bellhop provision --id web-1 --wait -f -")
	row("follow", "bin/bellhop status web-1")
	if temporal := findTemporal(); temporal != "" {
		row("", temporal+" workflow list")
	} else {
		row("", "# temporal workflow list; get it by: sh tests/tools/install.sh temporal")
	}
	row("write", "go run ./docs/examples/temporal # see the README.md there")
}

// Command bellhop-devserver is the real Temporal server, its database and its
// web UI in one process on 127.0.0.1: for trying bellhop and for its tests.
// It has no access control, so nothing it listens on leaves the machine.
//
// It is a module of its own because the server brings several hundred
// dependencies and minutes of compiling that no bellhop binary should pay for.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

const (
	// startTimeout bounds the start. A start takes about a second; on a machine
	// that is busy compiling it has taken ten.
	startTimeout = time.Minute
	// stopTimeout bounds the stop. The server's own parts wait at most about
	// five seconds for each other; whatever takes longer hangs.
	stopTimeout = 15 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second Ctrl-C ends a stop that takes too long for somebody's taste.
	context.AfterFunc(ctx, stop)
	// The UI's web framework prints to os.Stdout, which must carry nothing but
	// the one line that programs read.
	stdout := os.Stdout
	os.Stdout = os.Stderr
	os.Exit(run(ctx, os.Args[1:], stdout, os.Stderr))
}

// run serves until ctx ends. It returns the exit code: 0 after a clean stop,
// 1 when the server could not start or stop, 2 for wrong usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cmd := newCommand(stdout, stderr)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "%v\nSee bellhop-devserver --help.\n", err)
		return 2
	default:
		fmt.Fprintf(stderr, "bellhop-devserver: %v\n", err)
		return 1
	}
}

func newCommand(stdout, stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bellhop-devserver",
		Short: "The Temporal server in one process, for trying bellhop and for its tests",
		Long: `bellhop-devserver runs the real Temporal server, its database (SQLite) and its
web UI in one process on 127.0.0.1, for trying bellhop and for its tests.

When it is ready it prints its addresses: as text on a terminal, else as one
line of JSON, {"address": ..., "ui": ..., "namespaces": [...]}.
Ctrl-C or SIGTERM stops it.`,
		Example: `  bellhop-devserver
  bellhop-devserver --db bellhop.db
  bellhop-devserver --port 0 --headless --stop-with-parent`,
		// Flags are parsed by parseOptions, which reports every fault at once.
		DisableFlagParsing: true,
		SilenceErrors:      true,
		SilenceUsage:       true,
	}
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	new(options).register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o, err := parseOptions(args)
		if errors.Is(err, errHelp) {
			return cmd.Help()
		}
		if err != nil {
			return err
		}
		return serve(cmd.Context(), o, stdout, stderr)
	}
	return cmd
}

// serve runs the server from start to stop.
func serve(ctx context.Context, o options, stdout, stderr io.Writer) error {
	if o.stopWithParent {
		var cancel context.CancelFunc
		ctx, cancel = withParent(ctx)
		defer cancel()
	}
	s, err := start(ctx, o, stderr)
	if err != nil {
		if ctx.Err() != nil {
			return nil // asked to stop before it was ready: that is no failure
		}
		return err
	}
	if err := announce(stdout, s); err != nil {
		return errors.Join(fmt.Errorf("announce: %w", err), s.stop())
	}
	<-ctx.Done()
	return s.stop()
}

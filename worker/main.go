// Command bellhop-worker carries out compute operations: it runs their workflows and activities.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the build.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 4
)

// usageError is a fault of the command line or the configuration.
type usageError struct{ error }

// unreachableError means that Temporal could not be reached.
type unreachableError struct{ error }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	command := newCommand(stdout, stderr)
	command.SetArgs(args)
	command.SetOut(stdout)
	command.SetErr(stderr)
	err := command.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "bellhop-worker: %s\n", err)
	var usage usageError
	var unreachable unreachableError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &unreachable):
		return exitUnreachable
	default:
		return exitFailed
	}
}

func newCommand(stdout, stderr io.Writer) *cobra.Command {
	var file, listen string
	var check bool
	command := &cobra.Command{
		Use:   "bellhop-worker",
		Short: "Carries out bellhop's compute operations",
		Long: `bellhop-worker runs the workflows and activities of bellhop's compute operations.

Without a configuration file it has one provider, "simulated", and one target, "temporal".
Every field of the file is described in docs/configuration.md.

The connection to Temporal is configured as for the temporal CLI: TEMPORAL_ADDRESS (default
localhost:7233), TEMPORAL_NAMESPACE, TEMPORAL_API_KEY, TEMPORAL_TLS_*, TEMPORAL_PROFILE, temporal.toml.

On SIGTERM it takes no more work, ends what it has begun and exits; what it cannot end in time
another worker goes on with.

Exit codes: 0 stopped, 1 failed, 2 bad usage or configuration, 4 Temporal unreachable.`,
		Example:       "  bellhop-worker\n  bellhop-worker --config worker.yaml\n  bellhop-worker --config worker.yaml --check",
		Version:       version,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(command *cobra.Command, _ []string) error {
			config, err := loadConfig(file)
			if err != nil {
				return usageError{err}
			}
			if command.Flags().Changed("listen") {
				config.Listen = listen
			}
			parts, err := config.build()
			if err != nil {
				return usageError{err}
			}
			defer parts.close()
			if check {
				fmt.Fprintln(stdout, "the configuration is in order")
				fmt.Fprintf(stdout, "providers: %s\ntargets: %s\n", sorted(config.Providers), sorted(config.Targets))
				for _, note := range config.notes(parts) {
					fmt.Fprintln(stdout, "note: "+note)
				}
				return nil
			}
			return serve(command.Context(), config, parts, stderr)
		},
	}
	command.Flags().StringVar(&file, "config", "", "configuration file, YAML (default: none)")
	command.Flags().StringVar(&listen, "listen", "", "address for health and metrics; overrides the file (default "+defaultListen+")")
	command.Flags().BoolVar(&check, "check", false, "check the configuration and exit")
	command.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	return command
}

// sorted lists the names of entries.
func sorted[V any](entries map[string]V) string {
	return strings.Join(slices.Sorted(maps.Keys(entries)), ", ")
}

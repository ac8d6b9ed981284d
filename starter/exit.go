package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"go.temporal.io/api/serviceerror"

	"bellhop"
	"bellhop/operations"
)

// The exit codes. They are part of the interface: the help says what they mean.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitTemporal    = 4
	exitTimeout     = 5
	exitTooMany     = 6
	exitInterrupted = 130
)

// problem is an error with its exit code and what the user can do about it.
type problem struct {
	code int
	err  error
	// next are lines of advice.
	next []string
}

func (p *problem) Error() string { return p.err.Error() }
func (p *problem) Unwrap() error { return p.err }

// usage is the problem of a command line that cannot be understood.
func usage(cmd *cobra.Command, err error) error {
	return &problem{exitUsage, err, []string{"see: " + cmd.CommandPath() + " --help"}}
}

// badInput is what is wrong with an operation as somebody wrote it.
type badInput struct {
	// name is the file's.
	name   string
	faults bellhop.Faults
}

func (b *badInput) Error() string {
	lines := []string{b.name + " is no valid operation:"}
	for _, fault := range b.faults {
		lines = append(lines, "  "+clean(fault.String()))
	}
	return strings.Join(lines, "\n")
}

// explain writes what went wrong to stderr, and what can be done. It returns the exit code.
func (a *app) explain(err error) int {
	p := a.diagnose(err)
	fmt.Fprintf(a.stderr, "%s %s\n", a.err.paint(red, "bellhop:"), cleanLines(p.err.Error()))
	for _, line := range p.next {
		fmt.Fprintln(a.stderr, line)
	}
	return p.code
}

// diagnose decides what an error means.
func (a *app) diagnose(err error) *problem {
	var known *problem
	var input *badInput
	var namespace *serviceerror.NamespaceNotFound
	var denied *serviceerror.PermissionDenied
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &input):
		return &problem{code: exitUsage, err: err}
	case errors.Is(err, context.Canceled):
		return &problem{code: exitInterrupted, err: errors.New("interrupted")}
	case errors.Is(err, bellhop.ErrNotFound):
		return &problem{exitNotFound, err, []string{"see which there are: " + a.again("list")}}
	case errors.As(err, &namespace):
		return &problem{exitTemporal, fmt.Errorf("ask Temporal at %s: there is no namespace %q", a.connection.host, a.connection.namespaceName), []string{
			"choose another with --namespace or TEMPORAL_NAMESPACE, or create it:",
			"  temporal operator namespace create --namespace " + a.connection.namespaceName,
		}}
	case errors.As(err, &denied):
		return &problem{exitTemporal, fmt.Errorf("%w (Temporal at %s, namespace %s)", err, a.connection.host, a.connection.namespaceName), []string{
			"set TEMPORAL_API_KEY or the TLS certificate of a client that may, or choose a --profile of temporal.toml",
		}}
	case operations.Exhausted(err):
		return a.connection.tooMuch(err)
	case operations.Unreachable(err) && a.connection.exhausted.Load() != nil:
		return a.connection.tooMuch(errors.New(*a.connection.exhausted.Load()))
	case operations.Unreachable(err):
		return a.connection.unreachable(err)
	default:
		return &problem{exitTemporal, fmt.Errorf("%w (Temporal at %s, namespace %s)", err, a.connection.host, a.connection.namespaceName), nil}
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"bellhop"
	"bellhop/operations"
)

// startFlags are what provision, update and delete share.
type startFlags struct {
	file    string
	id      string
	wait    bool
	timeout time.Duration
}

const startHelp = `The operation is a YAML or JSON file, or stdin with "-f -". Everything that is wrong with it is named at once.

The id, given by --id or as operation_id in the file, makes the command safe to repeat: the same operation under the
same id is started once, another one under the same id is refused.

Without --wait the command ends once the operation is recorded, whether a worker is there or not. With --wait it ends
when the operation has: exit code 0 when it succeeded, 1 when it failed or was cancelled. Ctrl-C ends the waiting, not
the operation.`

// starter makes the command that starts operations of a verb.
func (a *app) starter(verb bellhop.Verb, short, example string) *cobra.Command {
	var flags startFlags
	cmd := &cobra.Command{
		Use:     string(verb) + " -f FILE --id ID",
		Short:   short,
		Long:    short + ".\n\n" + startHelp,
		Example: example,
		GroupID: groupStart,
		Args:    none,
		RunE: a.act(func(cmd *cobra.Command, _ []string) error {
			return a.start(cmd, verb, flags)
		}),
		DisableFlagsInUseLine: true,
	}
	cmd.Flags().StringVarP(&flags.file, "file", "f", "", "`file` with the operation, YAML or JSON; - is stdin")
	cmd.Flags().StringVar(&flags.id, "id", "", "the operation's `id`: 1 to 128 of A-Z a-z 0-9 . _ : -")
	cmd.Flags().BoolVar(&flags.wait, "wait", false, "wait until the operation has ended")
	cmd.Flags().DurationVar(&flags.timeout, "timeout", 0, "with --wait: stop waiting after this `duration`, such as 10m (default: never)")
	choices[string](cmd, "id")
	choices[string](cmd, "timeout")
	return cmd
}

func (a *app) start(cmd *cobra.Command, verb bellhop.Verb, flags startFlags) error {
	ctx := cmd.Context()
	switch {
	case flags.file == "":
		return usage(cmd, errors.New("say which operation: -f FILE, or -f - for stdin"))
	case flags.timeout < 0:
		return usage(cmd, errors.New("--timeout must not be negative"))
	case cmd.Flags().Changed("timeout") && !flags.wait:
		return usage(cmd, errors.New("--timeout bounds --wait, which is missing; how long the operation may take is the field timeout in its file"))
	}
	in, err := a.read(ctx, flags.file)
	if err != nil {
		return err
	}
	op, err := in.check(flags.id, verb, true)
	if err != nil {
		return err
	}
	a.hint(op)
	client, closeClient, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	before, err := a.submit(ctx, client, op, in.json)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%s (%s %s/%s on %s)", a.out.paint(bold, op.ID), op.Verb, op.TenantID, op.Resource, op.Provider)
	if before {
		fmt.Fprintf(a.stdout, "%s was started before, the same in every respect; nothing was started now\n", what)
	} else {
		fmt.Fprintf(a.stdout, "started %s\n", what)
	}
	if !flags.wait {
		fmt.Fprintf(a.stdout, "see how it goes: %s\n", a.again("status", op.ID))
		return nil
	}
	return a.awaitEnd(ctx, client, op.ID, flags.timeout)
}

func (a *app) submit(ctx context.Context, client *operations.Client, op bellhop.Operation, text []byte) (before bool, err error) {
	asking, cancel := within(ctx)
	defer cancel()
	before, err = client.Start(asking, op.ID, op.Verb, text)
	if errors.Is(err, bellhop.ErrConflict) {
		return before, &problem{exitUsage, err, []string{"choose another id, or see what it is: " + a.again("status", op.ID)}}
	}
	return before, interrupted(ctx, err)
}

// interrupted tells a call that was cut short by Ctrl-C from one that ran into its own time limit.
func interrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

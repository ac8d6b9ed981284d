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

func (a *app) wait() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "wait ID",
		Short: "Wait until an operation has ended",
		Long: `Wait until an operation has ended. Its callbacks may still be on their way then; "status --watch" waits for them too.

The exit code is 0 when it succeeded, 1 when it failed or was cancelled, 5 when --timeout elapsed first. On a terminal
one block is redrawn, in a pipe each change is a line. Ctrl-C ends the waiting, not the operation.`,
		Example: `bellhop wait web-1 --timeout 10m
bellhop wait web-1 && echo "the room is ready"`,
		GroupID: groupFollow,
		Args:    oneID,
		RunE: a.act(func(cmd *cobra.Command, args []string) error {
			if timeout < 0 || timeout == 0 && cmd.Flags().Changed("timeout") {
				return usage(cmd, errors.New("--timeout must be more than 0"))
			}
			client, closeClient, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer closeClient()
			return a.awaitEnd(cmd.Context(), client, args[0], timeout)
		}),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "stop waiting after this `duration`, such as 10m (default: never)")
	choices[string](cmd, "timeout")
	return cmd
}

var errElapsed = errors.New("the time to wait elapsed")

// awaitEnd shows an operation until it has ended. The error says how, unless it succeeded.
func (a *app) awaitEnd(ctx context.Context, client *operations.Client, id string, timeout time.Duration) error {
	waiting := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		waiting, cancel = context.WithTimeoutCause(ctx, timeout, errElapsed)
		defer cancel()
	}
	report, err := a.follow(waiting, client, id, outputText, func(r bellhop.Report) bool { return r.State.Terminal() })
	switch {
	case errors.Is(err, errElapsed):
		return &problem{exitTimeout, fmt.Errorf("%s has not ended within %s; it goes on", id, timeout), []string{
			"wait again: " + a.again("wait", id),
		}}
	case err != nil:
		return err
	}
	return a.verdict(report)
}

// verdict is nil for an operation that succeeded.
func (a *app) verdict(report bellhop.Report) error {
	if report.State == bellhop.Succeeded {
		return nil
	}
	outcome := string(report.State)
	if report.State == bellhop.Cancelled {
		outcome = "was cancelled"
	}
	if report.Error != nil && report.Error.Code != bellhop.CodeCancelled {
		outcome += " with " + string(report.Error.Code)
	}
	return &problem{exitFailed, fmt.Errorf("%s %s", report.OperationID, outcome), []string{
		"see all about it: " + a.again("status", report.OperationID),
	}}
}

// watchStatus shows an operation until it has ended and every callback is settled.
func (a *app) watchStatus(cmd *cobra.Command, id, output string) error {
	client, closeClient, err := a.connect(cmd.Context())
	if err != nil {
		return err
	}
	defer closeClient()
	_, err = a.follow(cmd.Context(), client, id, output, settled)
	return err
}

// settled says that nothing more will happen to an operation. A callback that is pending then did not ask for the
// state that was reached.
func settled(report bellhop.Report) bool {
	if !report.State.Terminal() {
		return false
	}
	for _, receipt := range report.Callbacks {
		if receipt.State == bellhop.ReceiptDelivering || receipt.State == bellhop.ReceiptBlocked {
			return false
		}
	}
	return true
}

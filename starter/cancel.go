package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"bellhop"
)

func (a *app) cancel() *cobra.Command {
	return &cobra.Command{
		Use:   "cancel ID",
		Short: "Ask an operation to give up",
		Long: `Ask an operation to give up. It then does with what exists what its on_cancel says (leave or remove), lists what remains
and calls back with compute-cancelled. That takes a worker; the command does not wait for it.

An operation that has ended already stays as it ended; saying so is no error.`,
		Example: "bellhop cancel web-1",
		GroupID: groupFollow,
		Args:    oneID,
		RunE: a.act(func(cmd *cobra.Command, args []string) error {
			id := args[0]
			client, closeClient, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer closeClient()
			asking, cancel := within(cmd.Context())
			defer cancel()
			switch err := client.Cancel(asking, id); {
			case errors.Is(err, bellhop.ErrEnded):
				fmt.Fprintf(a.stdout, "%s has ended already; nothing was cancelled\n", id)
				fmt.Fprintf(a.stdout, "see how it ended: %s\n", a.again("status", id))
			case err != nil:
				return interrupted(cmd.Context(), err)
			default:
				fmt.Fprintf(a.stdout, "asked %s to give up\n", a.out.paint(bold, id))
				fmt.Fprintf(a.stdout, "see how it goes: %s\n", a.again("status", id, "--watch"))
			}
			return nil
		}),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}

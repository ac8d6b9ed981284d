package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"bellhop"
)

func (a *app) redeliver() *cobra.Command {
	var target string
	cmd := &cobra.Command{
		Use:   "redeliver ID",
		Short: "Ring callers again at once whose callback is not acknowledged yet",
		Long: `Ring callers again at once whose callback is not acknowledged yet, instead of at the end of the pause between two
attempts: after a target was mended, for example. What was acknowledged or given up is not sent again, and an attempt
that is under way ends first, so nothing is sent twice.`,
		Example: `bellhop redeliver web-1
bellhop redeliver web-1 --target orders`,
		GroupID: groupFollow,
		Args:    oneID,
		RunE: a.act(func(cmd *cobra.Command, args []string) error {
			return a.ringAgain(cmd, args[0], target)
		}),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVar(&target, "target", "", "ring only this `target` (default: all)")
	choices[string](cmd, "target")
	return cmd
}

func (a *app) ringAgain(cmd *cobra.Command, id, target string) error {
	client, closeClient, err := a.connect(cmd.Context())
	if err != nil {
		return err
	}
	defer closeClient()
	asking, cancel := within(cmd.Context())
	defer cancel()
	rung, err := client.Redeliver(asking, id, target)
	for _, name := range rung {
		fmt.Fprintf(a.stdout, "ringing %s\n", clean(name))
	}
	if err != nil {
		return interrupted(cmd.Context(), err)
	}
	if len(rung) > 0 {
		fmt.Fprintf(a.stdout, "see whether it helps: %s\n", a.again("status", id))
		return nil
	}
	report, err := client.Status(asking, id)
	if err != nil {
		return interrupted(cmd.Context(), err)
	}
	return a.nothingToRing(report, target)
}

// nothingToRing says why nobody was rung.
func (a *app) nothingToRing(report bellhop.Report, target string) error {
	of := func(receipt bellhop.Receipt) bool { return target == "" || receipt.Target == target }
	if !slices.ContainsFunc(report.Callbacks, of) {
		if target == "" {
			fmt.Fprintf(a.stdout, "nothing to ring: %s calls nobody back\n", report.OperationID)
			return nil
		}
		return &problem{exitUsage, fmt.Errorf("%s does not call %q back", report.OperationID, target), []string{
			"see whom it calls back: " + a.again("status", report.OperationID),
		}}
	}
	fmt.Fprintln(a.stdout, "nothing to ring:")
	rows := [][]cell{}
	for _, receipt := range report.Callbacks {
		if of(receipt) {
			row := cells(clean(receipt.Target), string(receipt.State), attempts(receipt), clean(receipt.LastError))
			row[1].tint = receiptTint(receipt.State)
			rows = append(rows, row)
		}
	}
	for _, line := range a.out.table("  ", rows) {
		fmt.Fprintln(a.stdout, line)
	}
	return nil
}

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bellhop"
)

func (a *app) redeliver() *cobra.Command {
	var target, since string
	var all bool
	cmd := &cobra.Command{
		Use:   "redeliver ID | --all",
		Short: "Ring callers again whose callback did not reach them",
		Long: `Ring callers again whose callback did not reach them: after a target was mended, for example. One that waits for its
next attempt is tried at once; one that was given up is delivered anew, with the same bytes, also when the operation has
closed long ago. What was acknowledged is not sent again, and an attempt that is under way ends first, so nothing is
sent twice.

With --all this goes for every operation that "bellhop list --undelivered" shows.`,
		Example: `bellhop redeliver web-1
bellhop redeliver web-1 --target orders
bellhop redeliver --all --target orders --since 24h`,
		GroupID: groupFollow,
		Args: func(cmd *cobra.Command, args []string) error {
			if all && len(args) == 0 {
				return nil
			}
			return oneID(cmd, args)
		},
		RunE: a.act(func(cmd *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 0:
				return usage(cmd, errors.New("say which: an ID, or --all"))
			case since != "" && !all:
				return usage(cmd, errors.New("--since bounds --all, which is missing"))
			case !all:
				return a.ringAgain(cmd, args[0], target)
			}
			from, err := parseSince(since, time.Now())
			if err != nil {
				return usage(cmd, err)
			}
			return a.ringAll(cmd, from, target)
		}),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVar(&target, "target", "", "ring only this `target` (default: all)")
	cmd.Flags().BoolVar(&all, "all", false, "ring for every operation with an undelivered callback")
	cmd.Flags().StringVar(&since, "since", "", "with --all: only operations that ended since this `time`, such as 24h or 2026-03-01T12:00:00Z")
	choices[string](cmd, "target")
	choices[string](cmd, "since")
	return cmd
}

// parseSince reads how long ago something was, or when.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago > 0 {
		return now.Add(-ago), nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	return time.Time{}, fmt.Errorf("--since %q is neither a duration such as 24h nor a time such as 2026-03-01T12:00:00Z", text)
}

// ringAll rings for every operation with an undelivered callback. What one operation has against it keeps no other from
// being rung for.
func (a *app) ringAll(cmd *cobra.Command, since time.Time, target string) error {
	client, closeClient, err := a.connect(cmd.Context())
	if err != nil {
		return err
	}
	defer closeClient()
	operations, broken := 0, 0
	err = client.RedeliverAll(cmd.Context(), bellhop.Filter{Since: since}, target, func(id string, rung []string, err error) {
		switch {
		case err != nil:
			broken++
			fmt.Fprintf(a.stderr, "%s: %s\n", id, clean(err.Error()))
		case len(rung) > 0:
			operations++
			fmt.Fprintf(a.stdout, "%s: ringing %s\n", id, clean(strings.Join(rung, ", ")))
		}
	})
	if err != nil {
		return interrupted(cmd.Context(), err)
	}
	if broken > 0 {
		return fmt.Errorf("%d operations could not be rung for", broken)
	}
	if operations == 0 {
		fmt.Fprintln(a.stdout, "nothing to ring")
		return nil
	}
	fmt.Fprintf(a.stdout, "see what is left: %s\n", a.again("list", "--undelivered"))
	return nil
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

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

func (a *app) list() *cobra.Command {
	var filter bellhop.Filter
	var state, output string
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List operations, the newest first",
		Long: `List operations, the newest first, whether a worker is there or not. Temporal's list lags behind by about a second.

It does not tell queued operations from pending ones: "--state queued" finds both.

With --undelivered it lists the operations that have ended and have a callback that did not reach its caller: it was
given up, is blocked or is still being tried. "bellhop redeliver" rings again.`,
		Example: `bellhop list --tenant acme --state running
bellhop list --undelivered
bellhop list --limit 1000 -o json`,
		GroupID: groupFollow,
		Args:    none,
		RunE: a.act(func(cmd *cobra.Command, _ []string) error {
			filter.State = bellhop.State(state)
			switch {
			case state != "" && !slices.Contains(states(), filter.State):
				return usage(cmd, fmt.Errorf("--state %q is none of %s", state, joined(states())))
			case limit < 1:
				return usage(cmd, errors.New("--limit must be at least 1"))
			}
			if err := checkOutput(cmd, output); err != nil {
				return err
			}
			return a.showList(cmd, filter, limit, output)
		}),
	}
	cmd.Flags().StringVar(&filter.Tenant, "tenant", "", "only this `tenant`'s")
	cmd.Flags().StringVar(&filter.Resource, "resource", "", "only those on this `resource`")
	cmd.Flags().StringVar(&filter.Provider, "provider", "", "only those at this `provider`")
	cmd.Flags().StringVar(&state, "state", "", "only those in this `state`: "+joined(states()))
	cmd.Flags().BoolVar(&filter.Undelivered, "undelivered", false, "only those that have ended with a callback that did not reach its caller")
	cmd.Flags().IntVar(&limit, "limit", 50, "list at most this `number`")
	addOutput(cmd, &output)
	choices(cmd, "state", states()...)
	for _, name := range []string{"tenant", "resource", "provider", "limit"} {
		choices[string](cmd, name)
	}
	return cmd
}

// states are all states, in the order in which an operation goes through them.
func states() []bellhop.State {
	return []bellhop.State{
		bellhop.Pending, bellhop.Queued, bellhop.Running, bellhop.Succeeded, bellhop.Failed, bellhop.Cancelled,
	}
}

func joined[S ~string](values []S) string {
	texts := make([]string, len(values))
	for i, value := range values {
		texts[i] = string(value)
	}
	return strings.Join(texts, ", ")
}

func (a *app) showList(cmd *cobra.Command, filter bellhop.Filter, limit int, output string) error {
	client, closeClient, err := a.connect(cmd.Context())
	if err != nil {
		return err
	}
	defer closeClient()
	items := []bellhop.Item{}
	var page []byte
	for len(items) <= limit { // one more than asked for tells whether there are more
		asking, cancel := within(cmd.Context())
		found, next, err := client.List(asking, filter, limit+1-len(items), page)
		cancel()
		if err != nil {
			return interrupted(cmd.Context(), err)
		}
		items = append(items, found...)
		if page = next; len(page) == 0 {
			break
		}
	}
	more := len(items) > limit
	items = items[:min(len(items), limit)]
	switch {
	case output == outputJSON:
		if err := writeJSON(a.stdout, items, true); err != nil {
			return err
		}
	case len(items) == 0:
		fmt.Fprintln(a.stderr, "no operation is like that")
	default:
		titles := []string{"ID", "VERB", "RESOURCE", "PROVIDER", "STATE", "REQUESTED", "ENDED AFTER"}
		if filter.Undelivered {
			titles = append(titles, "UNDELIVERED")
		}
		rows := [][]cell{heading(titles...)}
		for _, item := range items {
			row := listRow(item)
			if filter.Undelivered {
				row = append(row, cells(undelivered(item))...)
			}
			rows = append(rows, row)
		}
		for _, line := range a.out.table("", rows) {
			fmt.Fprintln(a.stdout, line)
		}
	}
	if more {
		fmt.Fprintf(a.stderr, "there are more than these %d; see more with --limit\n", len(items))
	}
	return nil
}

func listRow(item bellhop.Item) []cell {
	took := ""
	if !item.ClosedAt.IsZero() {
		took = rounded(item.ClosedAt.Sub(item.RequestedAt))
	}
	row := cells(clean(item.OperationID), string(item.OperationType), clean(item.TenantID+"/"+item.Resource),
		clean(item.Provider), string(item.State), stamp(item.RequestedAt), took)
	row[4].tint = stateTint(item.State)
	return row
}

// undelivered says which callbacks did not reach their callers.
func undelivered(item bellhop.Item) string {
	texts := make([]string, len(item.Undelivered))
	for i, receipt := range item.Undelivered {
		texts[i] = clean(receipt.Target) + " " + string(receipt.State)
	}
	return strings.Join(texts, ", ")
}

// stamp is a point in time, for people: to the second, in UTC as in every log.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// rounded is a duration, for people.
func rounded(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	default:
		return d.Round(time.Second).String()
	}
}

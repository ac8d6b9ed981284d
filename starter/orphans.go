package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"bellhop"
	"bellhop/operations"
)

// orphansFlags are those of `bellhop orphans`.
type orphansFlags struct {
	provider             string
	unknown, remove, yes bool
	timeout              time.Duration
	output               string
}

func (a *app) orphans() *cobra.Command {
	var flags orphansFlags
	cmd := &cobra.Command{
		Use:   "orphans",
		Short: "List what stands at the providers and is nobody's, and remove it",
		Long: `List what carries bellhop's labels at the providers and belongs to no operation that is under way or has succeeded:
what failed, cancelled or terminated operations left. A worker asks the providers, so one must run.

What belongs to operations that Temporal does not know is no orphan: Temporal forgets what closed when its retention is
over, and what serves may have been provisioned long before that, or by another bellhop at the same platform. It is
counted, and listed with --unknown.

With --remove what is listed is removed, by a delete operation for each resource, once it was looked at again and you have
said yes. --yes says so in advance; without it a terminal is needed. Where an operation has succeeded on the same
resource, a delete would take what serves as well: such an orphan is left, and goes with the next operation on the
resource. What is unknown is removed with "--unknown --remove" only. Start nothing on the same resources meanwhile: of two
operations the newer wins.`,
		Example: `bellhop orphans
bellhop orphans --provider simulated -o json
bellhop orphans --remove`,
		GroupID: groupFollow,
		Args:    none,
		RunE: a.act(func(cmd *cobra.Command, _ []string) error {
			switch {
			case flags.yes && !flags.remove:
				return usage(cmd, errors.New("--yes answers --remove, which is missing"))
			case flags.remove && !flags.yes && !isTerminal(a.stdin):
				return usage(cmd, errors.New("--remove asks before it removes, and there is no terminal to ask; say --yes as well"))
			case flags.timeout < time.Second:
				return usage(cmd, errors.New("--timeout must be at least 1s"))
			}
			if err := checkOutput(cmd, flags.output); err != nil {
				return err
			}
			return a.findOrphans(cmd.Context(), flags)
		}),
	}
	cmd.Flags().StringVar(&flags.provider, "provider", "", "only at this `provider` (default: all of the worker's)")
	cmd.Flags().BoolVar(&flags.unknown, "unknown", false, "also what belongs to operations that Temporal does not know")
	cmd.Flags().BoolVar(&flags.remove, "remove", false, "remove what is listed, after asking")
	cmd.Flags().BoolVar(&flags.yes, "yes", false, "with --remove: do not ask")
	cmd.Flags().DurationVar(&flags.timeout, "timeout", 2*time.Minute, "wait this `duration` at most for the report")
	addOutput(cmd, &flags.output)
	choices[string](cmd, "provider")
	choices[string](cmd, "timeout")
	return cmd
}

// removal is a delete operation that removes orphans, and what became of it.
type removal struct {
	OperationID string           `json:"operation_id"`
	TenantID    string           `json:"tenant_id"`
	Resource    string           `json:"resource"`
	Provider    string           `json:"provider"`
	State       bellhop.State    `json:"state"`
	Error       *bellhop.Failure `json:"error,omitempty"`
}

// orphansDocument is what a script reads.
type orphansDocument struct {
	bellhop.OrphanReport
	Removals []removal `json:"removals,omitempty"`
}

func (a *app) findOrphans(ctx context.Context, flags orphansFlags) error {
	client, closeClient, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	report, err := a.askForOrphans(ctx, client, flags)
	if err != nil {
		return err
	}
	if flags.output == outputText {
		a.showOrphans(report, flags)
	}
	var removals []removal
	if flags.remove {
		if removals, err = a.removeOrphans(ctx, client, report, flags); err != nil {
			return err
		}
	}
	if flags.output == outputJSON {
		if err := writeJSON(a.stdout, orphansDocument{report, removals}, true); err != nil {
			return err
		}
	}
	return orphansVerdict(report, removals)
}

// orphansVerdict is nil when everybody was asked and all was removed that was to be.
func orphansVerdict(report bellhop.OrphanReport, removals []removal) error {
	var left []string
	for _, r := range removals {
		if r.State != bellhop.Succeeded {
			left = append(left, r.TenantID+"/"+r.Resource)
		}
	}
	if len(left) > 0 {
		return &problem{code: exitFailed, err: fmt.Errorf("remove %s: not all of it is gone", strings.Join(left, ", "))}
	}
	var unasked []string
	for name, reason := range report.Unasked {
		unasked = append(unasked, fmt.Sprintf("ask %s what stands: %s", name, reason))
	}
	if len(unasked) > 0 {
		slices.Sort(unasked)
		return &problem{code: exitFailed, err: errors.New(strings.Join(unasked, "\n"))}
	}
	return nil
}

func (a *app) askForOrphans(ctx context.Context, client *operations.Client, flags orphansFlags) (bellhop.OrphanReport, error) {
	asking, cancel := context.WithTimeout(ctx, flags.timeout)
	defer cancel()
	report, err := client.Orphans(asking, flags.provider)
	faults, refused := errors.AsType[bellhop.Faults](err)
	switch {
	case err == nil:
		return report, nil
	case refused:
		return report, &problem{code: exitUsage, err: faults}
	case ctx.Err() != nil:
		return report, context.Cause(ctx)
	case errors.Is(err, context.DeadlineExceeded) || asking.Err() != nil:
		return report, &problem{exitTimeout, fmt.Errorf("no report came within %s", flags.timeout), []string{
			"a worker makes it; is bellhop-worker running, and with this task queue?",
		}}
	default:
		return report, err
	}
}

func (a *app) showOrphans(report bellhop.OrphanReport, flags orphansFlags) {
	shown := report.Orphans
	if flags.unknown {
		shown = slices.Concat(shown, report.Unknown)
	}
	if len(shown) > 0 {
		rows := [][]cell{heading("RESOURCE", "PROVIDER", "LEFT BY", "WHICH", "RUNNING", "WHAT STANDS", "")}
		for _, orphan := range shown {
			rows = append(rows, orphanRow(orphan))
		}
		for _, line := range a.out.table("", rows) {
			fmt.Fprintln(a.stdout, line)
		}
	}
	looked := make([]string, 0, len(report.Looked))
	for name, count := range report.Looked {
		looked = append(looked, fmt.Sprintf("%d at %s", count, clean(name)))
	}
	slices.Sort(looked)
	fmt.Fprintf(a.stderr, "%s; looked at what operations hold: %s\n", counted(len(report.Orphans), "orphan"), strings.Join(looked, ", "))
	if n := len(report.Unknown); n > 0 && !flags.unknown {
		fmt.Fprintf(a.stderr, "%d more belong to operations that Temporal does not know, and may be what serves; see them with --unknown\n", n)
	}
	if report.Omitted > 0 {
		fmt.Fprintf(a.stderr, "%d more are left out: the report is full\n", report.Omitted)
	}
}

func orphanRow(orphan bellhop.Orphan) []cell {
	ended := "unknown"
	if orphan.State != "" {
		ended = string(orphan.State)
	}
	which := strings.TrimSpace(ended + " " + string(orphan.OperationType))
	note := ""
	if orphan.Beside != "" {
		note = fmt.Sprintf("goes with the next operation on it: %s succeeded there", clean(orphan.Beside))
	}
	row := cells(clean(orphan.TenantID+"/"+orphan.Resource), clean(orphan.Provider), clean(orphan.OperationID), which,
		fmt.Sprint(orphan.Running), clean(some(held(orphan.ResourceIDs))), note)
	row[3].tint = stateTint(orphan.State)
	return row
}

// held are the ids of what stands, each in one form.
func held(ids bellhop.ResourceIDs) []string {
	all := slices.Concat(ids.ContainerNames, ids.PodNames, ids.TaskARNs, ids.SimulatedIDs)
	for _, name := range []string{ids.Deployment, ids.Job} {
		if name != "" {
			all = append(all, ids.Namespace+"/"+name)
		}
	}
	if ids.ServiceARN != "" {
		all = append(all, ids.ServiceARN)
	}
	return all
}

// some is the beginning of a list that may be long.
func some(texts []string) string {
	const most = 2
	if len(texts) > most+1 {
		return fmt.Sprintf("%s and %d more", strings.Join(texts[:most], ", "), len(texts)-most)
	}
	return strings.Join(texts, ", ")
}

func counted(n int, what string) string {
	switch n {
	case 0:
		return "no " + what + "s"
	case 1:
		return "1 " + what
	default:
		return fmt.Sprintf("%d %ss", n, what)
	}
}

// at is where orphans stand: what one delete operation removes.
type at struct{ provider, tenant, resource string }

// removable are the orphans of a report that a deletion may remove, by where they stand.
func removable(report bellhop.OrphanReport, unknown bool) map[at][]bellhop.Orphan {
	found := map[at][]bellhop.Orphan{}
	var kept []at
	for _, orphan := range slices.Concat(report.Orphans, report.Unknown) {
		where := at{orphan.Provider, orphan.TenantID, orphan.Resource}
		found[where] = append(found[where], orphan)
		if orphan.Beside != "" || orphan.State == "" && !unknown {
			kept = append(kept, where)
		}
	}
	for _, where := range kept {
		delete(found, where)
	}
	return found
}

func (a *app) removeOrphans(ctx context.Context, client *operations.Client, report bellhop.OrphanReport, flags orphansFlags) ([]removal, error) {
	chosen := removable(report, flags.unknown)
	if len(chosen) == 0 {
		fmt.Fprintln(a.stderr, "nothing to remove")
		return nil, nil
	}
	running := 0
	for _, orphans := range chosen {
		for _, orphan := range orphans {
			running += orphan.Running
		}
	}
	if !flags.yes {
		fmt.Fprintf(a.stderr, "remove what stands of %s? %s that run would be lost. Type yes: ",
			counted(len(chosen), "resource"), counted(running, "replica"))
		answer, err := a.readLine(ctx)
		if err != nil {
			return nil, err
		}
		if answer != "yes" {
			fmt.Fprintln(a.stderr, "nothing was removed")
			return nil, nil
		}
	}
	// What was an orphan when it was listed may belong to somebody by now.
	again, err := a.askForOrphans(ctx, client, flags)
	if err != nil {
		return nil, err
	}
	still := removable(again, flags.unknown)
	run := strings.ToLower(rand.Text()[:8])
	var removals []removal
	for _, where := range sortedPlaces(chosen) {
		if !sameOrphans(chosen[where], still[where]) {
			fmt.Fprintf(a.stderr, "%s/%s is left alone: it has changed meanwhile\n", clean(where.tenant), clean(where.resource))
			continue
		}
		id := fmt.Sprintf("orphans-%s-%d", run, len(removals)+1)
		if err := a.startRemoval(ctx, client, id, where, chosen[where]); err != nil {
			return removals, err
		}
		removals = append(removals, removal{OperationID: id, TenantID: where.tenant, Resource: where.resource, Provider: where.provider})
	}
	for i := range removals {
		if err := a.awaitRemoval(ctx, client, &removals[i]); err != nil {
			return removals, err
		}
	}
	return removals, nil
}

func sortedPlaces(found map[at][]bellhop.Orphan) []at {
	places := make([]at, 0, len(found))
	for where := range found {
		places = append(places, where)
	}
	slices.SortFunc(places, func(a, b at) int {
		return strings.Compare(a.provider+"\x00"+a.tenant+"\x00"+a.resource, b.provider+"\x00"+b.tenant+"\x00"+b.resource)
	})
	return places
}

// sameOrphans says whether two reports have the same operations' orphans somewhere.
func sameOrphans(before, now []bellhop.Orphan) bool {
	ids := func(orphans []bellhop.Orphan) []string {
		all := make([]string, len(orphans))
		for i, orphan := range orphans {
			all[i] = orphan.OperationID
		}
		slices.Sort(all)
		return all
	}
	return slices.Equal(ids(before), ids(now))
}

func (a *app) startRemoval(ctx context.Context, client *operations.Client, id string, where at, orphans []bellhop.Orphan) error {
	left := make([]string, len(orphans))
	for i, orphan := range orphans {
		left[i] = orphan.OperationID
	}
	text, err := json.Marshal(bellhop.Operation{
		TenantID: where.tenant, Resource: where.resource, Provider: where.provider,
		Timeout: bellhop.Duration(bellhop.DefaultTimeout), OnCancel: bellhop.Leave,
		Metadata: map[string]string{"orphans_of": some(left)},
	})
	if err != nil {
		return fmt.Errorf("encode operation: %w", err)
	}
	asking, cancel := within(ctx)
	defer cancel()
	if _, err := client.Start(asking, id, bellhop.Delete, text); err != nil {
		return interrupted(ctx, err)
	}
	fmt.Fprintf(a.stderr, "%s removes %s/%s on %s\n", id, clean(where.tenant), clean(where.resource), clean(where.provider))
	return nil
}

func (a *app) awaitRemoval(ctx context.Context, client *operations.Client, r *removal) error {
	outcome, err := client.Wait(ctx, r.OperationID)
	if ctx.Err() != nil {
		return &problem{exitInterrupted, errors.New("stopped waiting; the removals go on"), []string{"see how they go: " + a.again("list")}}
	}
	if err != nil {
		return err
	}
	r.State, r.Error = outcome.State, outcome.Error
	what := r.TenantID + "/" + r.Resource
	if r.State == bellhop.Succeeded {
		fmt.Fprintf(a.stderr, "%s is gone\n", clean(what))
		return nil
	}
	reason := string(r.State)
	if r.Error != nil {
		reason += ": " + clean(r.Error.Error())
	}
	fmt.Fprintf(a.stderr, "%s is not gone: %s %s\n", clean(what), r.OperationID, reason)
	return nil
}

// isTerminal says whether somebody can be asked.
func isTerminal(r io.Reader) bool {
	file, ok := r.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(file.Fd()))
}

// readLine reads what somebody types, until ctx ends.
func (a *app) readLine(ctx context.Context) (string, error) {
	typed := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(a.stdin).ReadString('\n') //nolint:errcheck // the end of the input is an answer as well
		typed <- strings.TrimSpace(line)
	}()
	select {
	case line := <-typed:
		return line, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

package main

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bellhop"
)

func (a *app) status() *cobra.Command {
	var output string
	var watch bool
	cmd := &cobra.Command{
		Use:   "status ID",
		Short: "Tell where an operation stands",
		Long: `Tell where an operation stands, also after its end, and also when no worker is there: then Temporal's own record is
shown, and a note on stderr says what is missing. The exit code is 0 when it could tell, whatever it told.

With --watch it goes on until the operation has ended and every callback is settled. On a terminal one block is redrawn,
in a pipe each change is a line (with -o json: a document). Watching looks once a second and has the resource observed
anew every 10 to 30 seconds. Ctrl-C ends the watching, not the operation.`,
		Example: `bellhop status web-1
bellhop status web-1 --watch
bellhop status web-1 -o json`,
		GroupID: groupFollow,
		Args:    oneID,
		RunE: a.act(func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, output); err != nil {
				return err
			}
			if watch {
				return a.watchStatus(cmd, args[0], output)
			}
			return a.showStatus(cmd, args[0], output)
		}),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	addOutput(cmd, &output)
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on until nothing more happens to the operation")
	return cmd
}

func (a *app) showStatus(cmd *cobra.Command, id, output string) error {
	client, closeClient, err := a.connect(cmd.Context())
	if err != nil {
		return err
	}
	defer closeClient()
	asking, cancel := within(cmd.Context())
	defer cancel()
	report, err := client.Status(asking, id)
	if err != nil {
		return interrupted(cmd.Context(), err)
	}
	if report.Silence != nil {
		fmt.Fprintln(a.stderr, silence(report))
	}
	if output == outputJSON {
		return writeJSON(a.stdout, report.Status, true)
	}
	if _, err := fmt.Fprint(a.stdout, a.out.status(known(report))); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// known is the status without the progress that nobody reported: none is not the same as 0 of 3.
func known(report bellhop.Report) bellhop.Status {
	status := report.Status
	if report.Silence != nil && !status.State.Terminal() {
		status.Progress = bellhop.Progress{}
	}
	return status
}

// silence says what is to be thought of a status to which no worker contributed.
func silence(report bellhop.Report) string {
	return fmt.Sprintf("no worker answered (%s), so this is Temporal's own record, which may be behind; is bellhop-worker running?",
		reason(report.Silence))
}

// status is everything there is to say of an operation.
func (s screen) status(status bellhop.Status) string {
	p := page{screen: s}
	p.line("%s  %s %s on %s", s.paint(bold, clean(status.OperationID)), status.OperationType,
		clean(status.TenantID+"/"+status.Resource), clean(status.Provider))

	rows := [][]cell{{{"state", dim}, {string(status.State), stateTint(status.State)}}}
	add := func(name, value string) {
		if value != "" {
			rows = append(rows, []cell{{name, dim}, {value, plain}})
		}
	}
	add("event", string(status.Event))
	add("progress", progress(status.Progress))
	add("requested", stamp(status.RequestedAt))
	if !status.StartedAt.IsZero() {
		add("started", stamp(status.StartedAt))
	}
	if !status.FinishedAt.IsZero() {
		add("finished", stamp(status.FinishedAt)+", after "+rounded(time.Duration(status.DurationMS)*time.Millisecond))
	}
	p.table(rows)

	if failure := status.Error; failure != nil {
		p.section("error")
		p.table([][]cell{
			{{"code", dim}, {string(failure.Code), red}},
			{{"message", dim}, {clean(failure.Message), plain}},
			{{"retryable", dim}, {yesNo(failure.Retryable), plain}},
			{{"needs a person", dim}, {yesNo(failure.RequiresIntervention), plain}},
		})
		if failure.ProviderError != "" {
			p.line("  %s", s.paint(dim, "provider says"))
			p.text("    ", failure.ProviderError)
		}
		p.evidence(failure.Evidence)
	}
	if ids := resourceIDs(status.ResourceIDs); len(ids) > 0 {
		p.section("resource ids")
		p.table(ids)
	}
	if len(status.Endpoints) > 0 {
		p.section("endpoints")
		rows := [][]cell{}
		for _, endpoint := range status.Endpoints {
			rows = append(rows, cells(clean(endpoint.Name), address(endpoint)))
		}
		p.table(rows)
	}
	if len(status.Transitions) > 0 {
		p.section("transitions")
		rows := [][]cell{}
		for i, transition := range status.Transitions {
			since := ""
			if i > 0 {
				since = "+" + rounded(transition.At.Sub(status.Transitions[i-1].At))
			}
			rows = append(rows, []cell{{string(transition.State), stateTint(transition.State)}, {stamp(transition.At), plain}, {since, dim}})
		}
		p.table(rows)
	}
	if len(status.Callbacks) > 0 {
		p.section("callbacks")
		rows := [][]cell{heading("TARGET", "RECEIPT", "ATTEMPTS", "FIRST ATTEMPT", "ACKNOWLEDGED", "CALLBACK", "LAST ERROR")}
		for _, receipt := range status.Callbacks {
			row := cells(clean(receipt.Target), string(receipt.State), strconv.Itoa(receipt.Attempts), stamp(receipt.FirstAttemptAt),
				stamp(receipt.AcknowledgedAt), clean(receipt.CallbackID), clean(receipt.LastError))
			row[1].tint = receiptTint(receipt.State)
			rows = append(rows, row)
		}
		p.table(rows)
	}
	if len(status.Metadata) > 0 {
		p.section("metadata")
		rows := [][]cell{}
		for _, name := range slices.Sorted(maps.Keys(status.Metadata)) {
			rows = append(rows, []cell{{clean(name), dim}, {clean(status.Metadata[name]), plain}})
		}
		p.table(rows)
	}
	return p.String()
}

// page is a text that grows line by line.
type page struct {
	strings.Builder
	screen screen
}

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *page) section(title string) { p.line("%s", p.screen.paint(bold, title)) }

func (p *page) table(rows [][]cell) {
	for _, line := range p.screen.table("  ", rows) {
		p.line("%s", line)
	}
}

// evidence writes what fits on a line as a table, and texts such as logs below it.
func (p *page) evidence(evidence map[string]string) {
	var rows [][]cell
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(evidence)) {
		if strings.Contains(strings.TrimSpace(evidence[name]), "\n") {
			texts = append(texts, name)
		} else {
			rows = append(rows, []cell{{clean(name), dim}, {clean(strings.TrimSpace(evidence[name])), plain}})
		}
	}
	if len(evidence) > 0 {
		p.line("  %s", p.screen.paint(dim, "evidence"))
	}
	for _, line := range p.screen.table("    ", rows) {
		p.line("%s", line)
	}
	for _, name := range texts {
		p.line("    %s", p.screen.paint(dim, clean(name)))
		p.text("      ", evidence[name])
	}
}

// text writes a text of several lines, such as the end of a log.
func (p *page) text(indent, text string) {
	for line := range strings.SplitSeq(cleanLines(text), "\n") {
		p.line("%s", strings.TrimRight(indent+line, " "))
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func address(e bellhop.Endpoint) string {
	if strings.Contains(e.Host, ":") { // IPv6
		return "[" + clean(e.Host) + "]:" + strconv.Itoa(e.Port)
	}
	return clean(e.Host) + ":" + strconv.Itoa(e.Port)
}

// progress is how far it has come, in one line; empty when nothing is known.
func progress(p bellhop.Progress) string {
	message := clean(p.Message)
	switch {
	case p.Desired > 0 && message != "":
		return fmt.Sprintf("%d/%d ready, %s", p.Ready, p.Desired, message)
	case p.Desired > 0:
		return fmt.Sprintf("%d/%d ready", p.Ready, p.Desired)
	default:
		return message
	}
}

// resourceIDs are the identifiers under their names on the wire. Reading them off the type shows those that are added
// some day as well.
func resourceIDs(ids bellhop.ResourceIDs) [][]cell {
	var rows [][]cell
	value := reflect.ValueOf(ids)
	for field, v := range value.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		var texts []string
		switch v.Kind() {
		case reflect.String:
			texts = []string{v.String()}
		case reflect.Slice:
			for i := range v.Len() {
				texts = append(texts, fmt.Sprint(v.Index(i)))
			}
		default:
			texts = []string{fmt.Sprint(v)}
		}
		for _, text := range texts {
			if text != "" {
				rows = append(rows, []cell{{name, dim}, {clean(text), plain}})
			}
			name = ""
		}
	}
	return rows
}

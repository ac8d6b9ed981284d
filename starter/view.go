package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"bellhop"
)

// block shows an operation on a terminal: a few lines that are drawn anew in place.
type block struct {
	screen screen
	now    func() time.Time
	last   *bellhop.Report
	noted  string
	// drawn is how many lines are on the screen.
	drawn int
}

func (b *block) show(report bellhop.Report) {
	b.last = &report
	b.draw(b.screen.height() - 1)
}

func (b *block) note(text string) {
	if b.noted == text {
		return
	}
	b.noted = text
	b.draw(b.screen.height() - 1)
}

func (b *block) end() { b.draw(0) }

// draw writes the block over the one before. While it is to be overwritten once more it is cut to the window, in
// height by us and in width by the terminal: what wraps or scrolls cannot be found again. With room 0 it is whole.
func (b *block) draw(room int) {
	lines := b.lines()
	if room > 0 && len(lines) > room {
		lines = append(lines[:room-1], fmt.Sprintf("… and %d more lines", len(lines)-room+1))
	}
	var text strings.Builder
	if b.drawn > 0 {
		fmt.Fprintf(&text, "\x1b[%dA", b.drawn)
	}
	text.WriteString("\r\x1b[J")
	if room > 0 {
		text.WriteString("\x1b[?7l") // no wrapping
	}
	for _, line := range lines {
		text.WriteString(line + "\n")
	}
	if room > 0 {
		text.WriteString("\x1b[?7h")
	}
	b.drawn = len(lines)
	// In one piece, lest it flicker. Nothing is left to do when a terminal cannot be written to.
	_, _ = io.WriteString(b.screen.w, text.String()) //nolint:errcheck // see above
}

func (b *block) lines() []string {
	s := b.screen
	var lines []string
	if b.last != nil {
		r := b.last
		until := b.now()
		if !r.FinishedAt.IsZero() {
			until = r.FinishedAt
		}
		lines = append(lines, fmt.Sprintf("%s  %s %s on %s  %s", s.paint(bold, clean(r.OperationID)), r.OperationType,
			clean(r.TenantID+"/"+r.Resource), clean(r.Provider),
			s.paint(dim, max(until.Sub(r.RequestedAt), 0).Truncate(time.Second).String())))
		rows := [][]cell{{{string(r.State), stateTint(r.State)}, {progress(known(*r).Progress), plain}}}
		if r.Error != nil {
			rows = append(rows, []cell{{"error", dim}, {string(r.Error.Code) + ": " + clean(r.Error.Message), plain}})
		}
		for _, endpoint := range r.Endpoints {
			rows = append(rows, []cell{{"endpoint", dim}, {clean(endpoint.Name) + " " + address(endpoint), plain}})
		}
		lines = append(lines, s.table("  ", rows)...)
		rows = nil
		for _, receipt := range r.Callbacks {
			rows = append(rows, []cell{
				{"callback", dim},
				{clean(receipt.Target), plain},
				{string(receipt.State), receiptTint(receipt.State)},
				{attempts(receipt), plain},
				{clean(receipt.LastError), plain},
			})
		}
		lines = append(lines, s.table("  ", rows)...)
		if r.Silence != nil {
			lines = append(lines, s.paint(yellow, "  no worker answers; is bellhop-worker running?"))
		}
	}
	if b.noted != "" {
		lines = append(lines, s.paint(yellow, "  "+clean(b.noted)))
	}
	return lines
}

func attempts(receipt bellhop.Receipt) string {
	switch receipt.Attempts {
	case 0:
		return ""
	case 1:
		return "1 attempt"
	default:
		return fmt.Sprintf("%d attempts", receipt.Attempts)
	}
}

// lines shows an operation in a pipe: a line for each change, with its time.
type lines struct {
	screen screen
	now    func() time.Time
	last   bellhop.Report
	noted  string
	// told are the states that were told: without a worker, fewer of them are known.
	told map[bellhop.State]bool
}

func (l *lines) say(at time.Time, format string, args ...any) {
	fmt.Fprintf(l.screen.w, "%s %s\n", stamp(at), fmt.Sprintf(format, args...))
}

func (l *lines) show(report bellhop.Report) {
	before := l.last
	l.last = report
	now := l.now()
	for _, transition := range report.Transitions {
		if !l.told[transition.State] {
			l.told[transition.State] = true
			l.say(transition.At, "%s%s", transition.State, ending(transition.State, report))
		}
	}
	if !l.told[report.State] { // known by its name only
		l.told[report.State] = true
		l.say(now, "%s%s", report.State, ending(report.State, report))
	}
	if (report.Silence != nil) != (before.Silence != nil) {
		if report.Silence != nil {
			l.say(now, "no worker answers; is bellhop-worker running?")
		} else {
			l.say(now, "a worker answers")
		}
	}
	if report.Silence == nil && report.Progress != before.Progress && report.State == bellhop.Running {
		l.say(now, "progress %s", progress(report.Progress))
	}
	if !slices.Equal(report.Endpoints, before.Endpoints) {
		for _, endpoint := range report.Endpoints {
			l.say(now, "endpoint %s %s", clean(endpoint.Name), address(endpoint))
		}
	}
	for i, receipt := range report.Callbacks {
		var earlier bellhop.Receipt
		if i < len(before.Callbacks) {
			earlier = before.Callbacks[i]
		}
		if receipt.State == bellhop.ReceiptPending || receipt == earlier {
			continue
		}
		text := clean(receipt.Target) + " " + string(receipt.State)
		if n := attempts(receipt); n != "" {
			text += ", " + n
		}
		if receipt.LastError != "" {
			text += ": " + clean(receipt.LastError)
		}
		l.say(now, "callback %s", text)
	}
}

// ending says why an operation ended as it did.
func ending(state bellhop.State, report bellhop.Report) string {
	if report.Error == nil || state != report.State {
		return ""
	}
	return fmt.Sprintf(" %s: %s", report.Error.Code, clean(report.Error.Message))
}

func (l *lines) note(text string) {
	if text != l.noted && text != "" {
		l.say(l.now(), "%s", clean(text))
	}
	l.noted = text
}

func (l *lines) end() {}

// documents shows an operation as one JSON document for each change, each on its line.
type documents struct {
	w, notes io.Writer
	last     []byte
	noted    string
}

func (d *documents) show(report bellhop.Report) {
	var text strings.Builder
	if err := writeJSON(&text, report.Status, false); err != nil {
		d.note(err.Error())
		return
	}
	if report.Silence != nil {
		d.note(silence(report))
	}
	if text.String() == string(d.last) {
		return
	}
	d.last = []byte(text.String())
	fmt.Fprint(d.w, text.String())
}

func (d *documents) note(text string) {
	if text != d.noted && text != "" {
		fmt.Fprintln(d.notes, text)
	}
	d.noted = text
}

func (d *documents) end() {}

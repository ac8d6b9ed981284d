package main

import (
	"io"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"bellhop"
)

// screen is a writer as somebody looks at it: a terminal, or a pipe or file.
type screen struct {
	w io.Writer
	// terminal says that lines can be drawn anew, colour that they may be coloured.
	terminal, colour bool
	fd               int
}

func newScreen(w io.Writer, getenv func(string) string) screen {
	s := screen{w: w}
	if file, ok := w.(interface{ Fd() uintptr }); ok {
		s.fd = int(file.Fd())
		s.terminal = term.IsTerminal(s.fd) && getenv("TERM") != "dumb"
	}
	s.colour = s.terminal && getenv("NO_COLOR") == "" // https://no-color.org
	return s
}

// defaultHeight is taken for the height of a terminal that does not tell.
const defaultHeight = 24

func (s screen) height() int {
	if _, height, err := term.GetSize(s.fd); err == nil && height > 0 {
		return height
	}
	return defaultHeight
}

// tint is the parameter of an ANSI colour.
type tint string

const (
	plain  tint = ""
	bold   tint = "1"
	dim    tint = "2"
	red    tint = "31"
	green  tint = "32"
	yellow tint = "33"
)

func (s screen) paint(t tint, text string) string {
	if !s.colour || t == plain || text == "" {
		return text
	}
	return "\x1b[" + string(t) + "m" + text + "\x1b[0m"
}

func stateTint(state bellhop.State) tint {
	switch state {
	case bellhop.Succeeded:
		return green
	case bellhop.Failed, bellhop.Cancelled:
		return red
	case bellhop.Pending, bellhop.Queued, bellhop.Running:
		return yellow
	default:
		return plain
	}
}

func receiptTint(state bellhop.ReceiptState) tint {
	switch state {
	case bellhop.ReceiptAcknowledged, bellhop.ReceiptAccepted, bellhop.ReceiptAckPresumed:
		return green
	case bellhop.ReceiptBlocked, bellhop.ReceiptUndeliverable:
		return red
	case bellhop.ReceiptDelivering:
		return yellow
	case bellhop.ReceiptPending:
		return plain
	default:
		return plain
	}
}

// cell is one cell of a table.
type cell struct {
	text string
	tint tint
}

func cells(texts ...string) []cell {
	row := make([]cell, len(texts))
	for i, text := range texts {
		row[i] = cell{text: text}
	}
	return row
}

// heading makes a table's first row.
func heading(texts ...string) []cell {
	row := cells(texts...)
	for i := range row {
		row[i].tint = dim
	}
	return row
}

// table aligns rows. Each line begins with indent and ends where its text does.
func (s screen) table(indent string, rows [][]cell) []string {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell.text))
		}
	}
	lines := make([]string, 0, len(rows))
	for _, row := range rows {
		last := len(row) - 1
		for last > 0 && row[last].text == "" {
			last--
		}
		var line strings.Builder
		line.WriteString(indent)
		for i, cell := range row[:last+1] {
			line.WriteString(s.paint(cell.tint, cell.text))
			if i < last {
				line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell.text)+2))
			}
		}
		lines = append(lines, line.String())
	}
	return lines
}

// clean makes a text that comes from outside fit for one line of a terminal: a provider's message or a log line must
// not move the cursor.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsGraphic(r):
			return -1
		default:
			return r
		}
	}, control.ReplaceAllString(text, ""))
}

// control is a terminal's control sequence, such as a colour.
var control = regexp.MustCompile(`\x1b\[[\x30-\x3f]*[\x20-\x2f]*[\x40-\x7e]`)

// cleanLines is clean for a text of several lines.
func cleanLines(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\r\n"), "\n")
	for i, line := range lines {
		lines[i] = clean(strings.TrimRight(line, "\r"))
	}
	return strings.Join(lines, "\n")
}

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// screen is where the demo is watched: a terminal, on which a line can be drawn anew, or a file.
type screen struct {
	terminal, colour bool

	mu sync.Mutex
	w  io.Writer
	fd int
	// live says that the cursor is at the end of a line that will be drawn anew.
	live bool
}

func newScreen(w io.Writer) *screen {
	s := &screen{w: w}
	if file, ok := w.(*os.File); ok {
		s.fd = int(file.Fd())
		s.terminal = term.IsTerminal(s.fd) && os.Getenv("TERM") != "dumb"
	}
	s.colour = s.terminal && os.Getenv("NO_COLOR") == "" // https://no-color.org
	return s
}

// tint is the parameter of an ANSI colour.
type tint string

const (
	bold  tint = "1"
	dim   tint = "2"
	red   tint = "31"
	green tint = "32"
)

func (s *screen) paint(t tint, text string) string {
	if !s.colour || text == "" {
		return text
	}
	return "\x1b[" + string(t) + "m" + text + "\x1b[0m"
}

// line prints a line.
func (s *screen) line(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	fmt.Fprintf(s.w, format+"\n", args...)
}

// title prints a heading.
func (s *screen) title(format string, args ...any) {
	s.line("")
	s.line("%s", s.paint(bold, fmt.Sprintf(format, args...)))
}

// draw shows a line that the next one takes the place of. Only a terminal has such lines.
func (s *screen) draw(text string) {
	if !s.terminal {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	if width, _, err := term.GetSize(s.fd); err == nil && utf8.RuneCountInString(text) >= width {
		text = string([]rune(text)[:max(width-1, 0)]) // a line that wraps cannot be erased
	}
	fmt.Fprint(s.w, s.paint(dim, text))
	s.live = true
}

func (s *screen) erase() {
	if s.live {
		fmt.Fprint(s.w, "\r\x1b[K")
		s.live = false
	}
}

// Where a screen cannot draw a line anew, a step that takes long says so now and then.
const (
	frame   = 100 * time.Millisecond
	comment = 20 * time.Second
)

var spinner = []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")

// step shows what is going on until it is done, and how long it took. note tells what it is at; the answer is shown
// beside it.
func (s *screen) step(ctx context.Context, what string, do func(ctx context.Context, note func(string)) (string, error)) error {
	began := time.Now()
	var mu sync.Mutex
	at := ""
	over, drawn := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(drawn)
		ticker := time.NewTicker(frame)
		defer ticker.Stop()
		said := began
		for i := 0; ; i++ {
			select {
			case <-over:
				return
			case now := <-ticker.C:
				mu.Lock()
				detail := at
				mu.Unlock()
				text := strings.TrimSpace(what+" "+detail) + ", " + now.Sub(began).Round(time.Second).String()
				s.draw("  " + string(spinner[i%len(spinner)]) + " " + text)
				if !s.terminal && now.Sub(said) >= comment {
					said = now
					s.line("    … %s", text)
				}
			}
		}
	}()
	answer, err := do(ctx, func(note string) {
		mu.Lock()
		defer mu.Unlock()
		at = note
	})
	close(over)
	<-drawn
	mark := s.paint(green, "✓")
	if err != nil {
		mark, answer = s.paint(red, "✗"), ""
	}
	s.line("  %s %-25s %-40s %s", mark, what, answer, s.paint(dim, fmt.Sprintf("%7s", seconds(time.Since(began)))))
	return err
}

// seconds writes a duration for somebody who watches: "0.3 s", "12.0 s", "2m5s".
func seconds(d time.Duration) string {
	if d >= 2*time.Minute {
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

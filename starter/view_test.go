package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/google/go-cmp/cmp"
	enumspb "go.temporal.io/api/enums/v1"

	"bellhop"
)

// window is a terminal's screen: it understands what a block draws, and no more.
type window struct {
	t     *testing.T
	lines []string
	row   int
}

var sequence = regexp.MustCompile(`^\x1b\[(\??)(\d*)([A-Za-z])`)

func (w *window) write(text string) {
	for text != "" {
		if match := sequence.FindStringSubmatch(text); match != nil {
			text = text[len(match[0]):]
			n, err := strconv.Atoi("0" + match[2])
			if err != nil {
				w.t.Error(err)
			}
			switch match[3] {
			case "A":
				if w.row -= n; w.row < 0 {
					w.t.Errorf("the cursor leaves the window by %d lines", -w.row)
					w.row = 0
				}
			case "J":
				w.lines = w.lines[:min(w.row, len(w.lines))]
			case "m", "h", "l":
			default:
				w.t.Errorf("unknown sequence %q", match[0])
			}
			continue
		}
		for len(w.lines) <= w.row {
			w.lines = append(w.lines, "")
		}
		switch c := text[0]; c {
		case '\r':
		case '\n':
			w.row++
		default:
			w.lines[w.row] += string(c)
		}
		text = text[1:]
	}
}

func (w *window) String() string { return strings.Join(w.lines, "\n") }

// onTerminal runs a command on a pseudo terminal and returns its exit code, what it drew and what stayed.
func (g *guest) onTerminal(args ...string) (int, string, string) {
	g.t.Helper()
	ours, theirs, err := pty.Open()
	if err != nil {
		g.t.Skipf("there are no pseudo terminals: %s", err)
	}
	defer shut(ours)
	if err := pty.Setsize(ours, &pty.Winsize{Rows: 30, Cols: 100}); err != nil {
		g.t.Fatal(err)
	}
	var drawn bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		pour(&drawn, ours)
	}()
	ctx, cancel := context.WithTimeout(g.t.Context(), time.Minute)
	defer cancel()
	code := g.app(theirs, theirs).run(ctx, args)
	shut(theirs)
	<-read
	w := &window{t: g.t}
	w.write(drawn.String())
	return code, drawn.String(), w.String()
}

func TestLiveView(t *testing.T) {
	t.Parallel()
	g := checkIn(t)
	g.stdin = scripted("seen", `{"ready_after": "2s"}`, `[{"target": "bell"}, {"target": "second", "states": ["failed"]}]`)
	code, drawn, screen := g.onTerminal("provision", "--id", "seen-1", "--wait", "-f", "-")
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	contains(t, drawn, "\x1b[33mrunning\x1b[0m", "\x1b[32msucceeded\x1b[0m", "\x1b[?7l", "0/2 ready")
	if redraws := strings.Count(drawn, "\x1b[J"); redraws < 3 {
		t.Errorf("it was drawn %d times", redraws)
	}
	lines := strings.Split(screen, "\n")
	if len(lines) != 5 { // one block is left, however often it was drawn
		t.Errorf("there are %d lines:\n%s", len(lines), screen)
	}
	contains(t, screen, "started seen-1 (provision seen/default on simulated)\nseen-1  provision seen/default on simulated  2s\n  succeeded  ",
		"\n  callback  bell    ", "\n  callback  second  pending")

	g.env["NO_COLOR"] = "1"
	code, drawn, _ = g.onTerminal("status", "seen-1", "--watch")
	if code != 0 || strings.Contains(drawn, "\x1b[3") {
		t.Errorf("exit code %d, drawn with NO_COLOR:\n%q", code, drawn)
	}
	g.env["TERM"] = "dumb"
	_, drawn, _ = g.onTerminal("status", "seen-1", "--watch")
	if strings.Contains(drawn, "\x1b") {
		t.Errorf("drawn on a dumb terminal:\n%q", drawn)
	}
}

func TestCtrlC(t *testing.T) {
	t.Parallel()
	g := checkIn(t)
	g.stdin = scripted("break", `{"ready_after": "1h"}`, "")
	g.must(0, "provision", "--id", "break-1", "-f", "-")

	cmd := exec.CommandContext(t.Context(), os.Args[0], "wait", "break-1")
	cmd.Env = append(os.Environ(), asBellhop+"=1")
	for name, value := range g.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	terminal, err := pty.Start(cmd)
	if err != nil {
		t.Skipf("there are no pseudo terminals: %s", err)
	}
	defer shut(terminal)
	var once sync.Once
	out := &watched{text: "running", seen: func() {
		once.Do(func() {
			if _, err := terminal.WriteString("\x03"); err != nil {
				t.Error(err)
			}
		})
	}}
	pour(out, terminal)
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
		t.Errorf("got %v", err)
	}
	contains(t, out.String(), "stopped watching; operation break-1 goes on")
	contains(t, g.must(0, "status", "break-1").stdout, "running")
}

// asFastAs looks as often as a test wants.
func asFastAs(refresh time.Duration) *pace {
	return &pace{first: 20 * time.Millisecond, every: 20 * time.Millisecond, refresh: refresh, maxRefresh: refresh, outage: time.Minute, call: callTimeout}
}

func TestWatchingObservesAnewNowAndThen(t *testing.T) {
	t.Parallel()
	g := checkIn(t)
	g.stdin = scripted("fresh", `{"ready_after": "1h"}`, "")
	g.must(0, "provision", "--id", "fresh-1", "-f", "-")

	// By looking alone nothing is written, however often.
	g.pace = asFastAs(time.Hour)
	g.must(5, "wait", "fresh-1", "--timeout", "1s")
	if n := updates(t, g, "fresh-1"); n != 0 {
		t.Errorf("looking wrote %d updates into the history", n)
	}

	g.pace = asFastAs(100 * time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		events := g.temporal.GetWorkflowHistory(ctx, "fresh-1", "", true, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			event, err := events.Next()
			if err != nil || event.GetEventType() == enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED {
				cancel()
				return
			}
		}
	}()
	if got := g.runUntil(ctx, "status", "fresh-1", "--watch"); got.code != exitInterrupted {
		t.Errorf("got %+v", got)
	}
	if n := updates(t, g, "fresh-1"); n != 1 { // at most one in 2 s
		t.Errorf("there are %d updates in the history", n)
	}
}

func TestTheHelpPromisesThisPace(t *testing.T) {
	p := defaultPace()
	r := rhythm{interval: p.refresh, most: p.maxRefresh}
	var queued, running, silent bellhop.Report
	queued.State, running.State, silent.State = bellhop.Queued, bellhop.Running, bellhop.Running
	silent.Silence = errors.New("nobody is there")
	var got []time.Duration
	now := noon
	tick := func(report bellhop.Report, seconds int) {
		for range seconds {
			now = now.Add(p.every)
			if r.due(report, now) {
				got = append(got, now.Sub(noon))
			}
		}
	}
	tick(queued, 60)
	tick(running, 120) // after 10 s, 15, 22.5, 30 and 30
	tick(silent, 60)
	tick(running, 40)
	want := []time.Duration{70 * time.Second, 85 * time.Second, 108 * time.Second, 138 * time.Second, 168 * time.Second, 270 * time.Second}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func updates(t *testing.T, g *guest, id string) int {
	t.Helper()
	n := 0
	events := g.temporal.GetWorkflowHistory(t.Context(), id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		if err != nil {
			t.Fatal(err)
		}
		if event.GetEventType() == enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED {
			n++
		}
	}
	return n
}

func TestWatchInJSON(t *testing.T) {
	t.Parallel()
	g := checkIn(t)
	g.stdin = scripted("stream", `{"ready_after": "500ms"}`, "")
	g.must(0, "provision", "--id", "stream-1", "-f", "-")
	got := g.must(0, "status", "stream-1", "--watch", "-o", "json")
	documents := strings.Split(strings.TrimSuffix(got.stdout, "\n"), "\n")
	for i, text := range documents {
		var status bellhop.Status
		if err := bellhop.DecodeStrict([]byte(text), &status); err != nil {
			t.Fatalf("document %d: %s\n%s", i, err, text)
		}
		if last := i == len(documents)-1; last != status.State.Terminal() {
			t.Errorf("document %d of %d is %s", i+1, len(documents), status.State)
		}
		if i > 0 && text == documents[i-1] {
			t.Errorf("document %d says nothing new", i+1)
		}
	}
}

// pour copies until either side is closed, which is how it is meant to end.
func pour(to io.Writer, from io.Reader) {
	_, _ = io.Copy(to, from) //nolint:errcheck // see above
}

// shut closes what may be closed already.
func shut(c io.Closer) {
	_ = c.Close() //nolint:errcheck // see above
}

// cable is a connection to the server that can be pulled.
type cable struct {
	net.Listener
	to    string
	mu    sync.Mutex
	dead  bool
	conns []net.Conn
}

func plug(t *testing.T, to string) *cable {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{Listener: listener, to: to}
	t.Cleanup(func() {
		c.pull(true)
		shut(listener)
	})
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			c.mu.Lock()
			if c.dead {
				shut(near)
			} else if far, err := new(net.Dialer).DialContext(t.Context(), "tcp", c.to); err == nil {
				c.conns = append(c.conns, near, far)
				go pour(near, far)
				go pour(far, near)
			}
			c.mu.Unlock()
		}
	}()
	return c
}

func (c *cable) pull(dead bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = dead
	for _, conn := range c.conns {
		shut(conn)
	}
	c.conns = nil
}

// reacting calls a function for the first line that has a text, for each text in turn.
type reacting struct {
	bytes.Buffer
	steps []step
}

type step struct {
	text string
	do   func()
}

func (r *reacting) Write(data []byte) (int, error) {
	for len(r.steps) > 0 && strings.Contains(string(data), r.steps[0].text) {
		r.steps[0].do()
		r.steps = r.steps[1:]
	}
	return r.Buffer.Write(data)
}

func TestWatchingOutlastsAnOutage(t *testing.T) {
	t.Parallel()
	g := checkIn(t)
	c := plug(t, g.address)
	g.stdin = scripted("outage", `{"ready_after": "1h"}`, "")
	g.must(0, "provision", "--id", "outage-1", "-f", "-")
	g.env["TEMPORAL_ADDRESS"] = c.Addr().String()
	g.pace = asFastAs(time.Hour)
	g.pace.call = 2 * time.Second

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stdout := &reacting{steps: []step{
		{"running", func() { c.pull(true) }},
		{"Temporal does not answer", func() {
			c.pull(false)
			go func() {
				if err := g.ops.Cancel(ctx, "outage-1"); err != nil {
					t.Error(err)
				}
			}()
		}},
	}}
	var stderr bytes.Buffer
	if code := g.app(stdout, &stderr).run(ctx, []string{"wait", "outage-1"}); code != exitFailed {
		t.Errorf("exit code %d\n%s%s", code, stdout.String(), stderr.String())
	}
	contains(t, stdout.String(), "; trying again\n", "Z cancelled ")

	// One that does not end is an end.
	g.must(0, "status", "outage-1")
	g.stdin = scripted("outage", `{"ready_after": "1h"}`, "")
	g.must(0, "provision", "--id", "outage-2", "-f", "-")
	g.pace.outage = time.Millisecond
	stdout = &reacting{steps: []step{{"running", func() { c.pull(true) }}}}
	stderr.Reset()
	if code := g.app(stdout, &stderr).run(ctx, []string{"wait", "outage-2"}); code != exitTemporal {
		t.Errorf("exit code %d\n%s%s", code, stdout.String(), stderr.String())
	}
	contains(t, stderr.String(), "bellhop: reach Temporal at "+c.Addr().String()+": ")
}

func TestBlockFitsTheWindow(t *testing.T) {
	var out bytes.Buffer
	b := &block{screen: screen{w: &out}, now: func() time.Time { return noon.Add(time.Hour) }}
	report := bellhop.Report{Status: failedStatus()}
	for range 40 {
		report.Callbacks = append(report.Callbacks, bellhop.Receipt{Target: "one-more"})
	}
	b.last = &report
	w := &window{t: t}
	draw := func(f func()) {
		out.Reset()
		f()
		w.write(out.String())
	}
	draw(func() { b.draw(5) })
	if len(w.lines) != 5 || !strings.Contains(w.lines[4], "more lines") {
		t.Errorf("there are %d lines:\n%s", len(w.lines), w)
	}
	report.Callbacks = report.Callbacks[:3]
	report.Silence = errors.New("nobody is there")
	draw(func() { b.note("Temporal does not answer; trying again") })
	draw(b.end)
	golden(t, "block", w.String()+"\n")
}

func TestLinesForEachChange(t *testing.T) {
	var out bytes.Buffer
	l := &lines{screen: screen{w: &out}, now: func() time.Time { return noon }, told: map[bellhop.State]bool{}}
	full := bellhop.Report{Status: failedStatus()}

	early := full
	early.State, early.Error, early.Endpoints, early.Callbacks = bellhop.Running, nil, nil, nil
	early.Transitions = early.Transitions[:3]
	l.show(early)
	l.show(early)
	silent := early
	silent.Silence = errors.New("nobody is there")
	silent.Transitions = silent.Transitions[:1]
	l.show(silent)
	l.note("Temporal does not answer; trying again")
	l.note("Temporal does not answer; trying again")
	l.note("")
	l.show(full)
	l.show(full)
	golden(t, "lines", out.String())
}

package tests

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"bellhop"
	"bellhop/tests/peers"
)

func TestFaultMixed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.shop()
	n, percent := count(150, 10_000), count(4, 1) // of each
	kinds := []peers.Fault{
		peers.TooManyRequests, peers.TimeOut, peers.AppliedThenTimeOut, peers.Unavailable, peers.AppliedThenError, peers.AppliedThenReset,
	}
	proxy := peers.StartFaultyProxy(s.URL, func(id string, nth int) peers.Fault {
		if kind := chance(id, nth) / percent; kind < len(kinds) {
			return kinds[kind]
		}
		return peers.NoFault
	})
	t.Cleanup(proxy.Close)
	b.work(b.config(noBackstop, "targets:\n"+s.target("shop", proxy.URL)))
	ids := b.begins(n, "mixed", func(_ int, id string) string { return provision(id, `{"target": "shop"}`) })
	b.ledger(ids, bellhop.ReceiptAcknowledged, proxy)
	b.alike(proxy)
	callbacks, came, charged := b.effects(s)
	require.Equal(t, n, callbacks, "lost, or told of what is not")
	require.Equal(t, n, charged, "an effect was doubled")
	befell := map[peers.Fault]int{}
	applied := 0
	refused := map[string]time.Time{}
	for _, call := range proxy.Calls() {
		befell[call.Fault]++
		if call.Fault != peers.TooManyRequests && call.Fault != peers.Unavailable && call.Fault != peers.TimeOut {
			applied++
		}
		if at, ok := refused[call.CallbackID]; ok && call.At.Sub(at) < time.Second {
			t.Errorf("%s came again %s after it was asked to wait for a second", call.CallbackID, call.At.Sub(at))
		}
		delete(refused, call.CallbackID)
		if call.Fault == peers.TooManyRequests {
			refused[call.CallbackID] = call.At
		}
	}
	require.Equal(t, applied, came)
	t.Logf("what befell %d callbacks: %v", n, befell)
	for _, kind := range kinds {
		require.NotZero(t, befell[kind], "no callback met with %s", kind)
	}
}

// TestFaultDeadline has callbacks that must be there by a deadline and are refused until then.
func TestFaultDeadline(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.shop()
	refuse := func(fault peers.Fault) *peers.FaultyProxy {
		proxy := peers.StartFaultyProxy(s.URL, func(string, int) peers.Fault { return fault })
		t.Cleanup(proxy.Close)
		return proxy
	}
	down, hung := refuse(peers.Unavailable), refuse(peers.TimeOut)
	b.work(b.config(noBackstop, "targets:\n"+s.target("down", down.URL)+s.target("hung", hung.URL)))
	const deadline = 4 * time.Second
	const interval = 4 * time.Second // between the third and the fourth attempt, which nothing comes after
	n := count(5, 100)
	ids := b.begins(n, "late", func(_ int, id string) string {
		return provision(id, fmt.Sprintf(`{"target": "down", "deadline": %q}, {"target": "hung", "deadline": %q}`, deadline, deadline))
	})
	control := b.begins(1, "control", func(_ int, id string) string { return provision(id, `{"target": "down"}`) })[0]
	for _, id := range ids {
		status := b.closed(id)
		require.Equal(t, bellhop.Succeeded, status.State, "what could not be told is so all the same")
		found, err := b.client.DescribeWorkflowExecution(b.ctx, id, "")
		require.NoError(t, err)
		settled := found.GetWorkflowExecutionInfo().GetCloseTime().AsTime().Sub(status.FinishedAt)
		require.Less(t, settled, deadline+interval, "%s was given up too late", id)
		for i, proxy := range []*peers.FaultyProxy{down, hung} {
			receipt := status.Callbacks[i]
			require.Equal(t, bellhop.ReceiptUndeliverable, receipt.State)
			require.Contains(t, receipt.LastError, "its deadline passed")
			require.Equal(t, proxy.Tries()[receipt.CallbackID], receipt.Attempts, "%s to %s: %s", id, receipt.Target, receipt.LastError)
		}
	}
	// The one without a deadline is tried on and on; the others would have been, too.
	tried := down.Tries()[control+"/succeeded"]
	b.until("the control is tried again", func() bool { return down.Tries()[control+"/succeeded"] > tried })
	for _, proxy := range []*peers.FaultyProxy{down, hung} {
		for _, call := range proxy.Calls() {
			if call.CallbackID == control+"/succeeded" {
				continue
			}
			status := b.status(call.CallbackID[:len(call.CallbackID)-len("/succeeded")])
			// One that was sent just before may come by a little later; the next attempt would have been at 5.6 s or later.
			require.Less(t, call.At.Sub(status.FinishedAt), deadline+time.Second, "%s was sent after its deadline", call.CallbackID)
		}
	}
	for _, id := range ids { // polling answers
		_, stderr, code := b.run("", "bellhop", "wait", id)
		require.Zero(t, code, stderr)
	}
	require.Equal(t, bellhop.ReceiptDelivering, b.status(control).Callbacks[0].State)
}

// TestFaultOutage has a target down for long, and then up.
func TestFaultOutage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.shop()
	var up atomic.Bool
	proxy := peers.StartFaultyProxy(s.URL, func(string, int) peers.Fault {
		if up.Load() {
			return peers.NoFault
		}
		return peers.Unavailable
	})
	t.Cleanup(proxy.Close)
	stumbling := peers.StartFaultyProxy(s.URL, func(_ string, nth int) peers.Fault {
		return map[bool]peers.Fault{true: peers.Unavailable}[nth <= 2]
	})
	t.Cleanup(stumbling.Close)
	b.work(b.config(noBackstop, "targets:\n"+s.target("shop", proxy.URL)+s.target("stumbling", stumbling.URL)))
	n := count(40, 1000)
	outage := time.Duration(count(10, 1200)) * time.Second
	b.patience = min(outage, 6*time.Minute) // the pause after the last attempt that failed
	began := time.Now()
	ids := b.begins(n, "outage", func(_ int, id string) string { return provision(id, `{"target": "shop"}`) })
	brief := b.begins(1, "brief", func(_ int, id string) string { return provision(id, `{"target": "stumbling"}`) })
	// An outage takes its time.
	select {
	case <-time.After(time.Until(began.Add(outage))):
	case <-b.ctx.Done():
	}
	up.Store(true)
	back := time.Now()
	down := proxy.Tries()
	// 1 s, doubling to 5 min, each up to a fifth shorter.
	most := 2 + int(math.Log2(min(outage, 5*time.Minute).Seconds()/0.8)) + int(outage/(4*time.Minute))
	for id, attempts := range down {
		if attempts > most {
			t.Errorf("%s was tried %d times in %s, want %d at most", id, attempts, outage, most)
		}
	}
	_, _, code := b.run("", "bellhop", "redeliver", ids[0])
	require.Zero(t, code)
	b.until("a redelivery does not wait for the end of the pause", func() bool {
		return b.status(ids[0]).Callbacks[0].State == bellhop.ReceiptAcknowledged
	})
	b.ledger(ids, bellhop.ReceiptAcknowledged, proxy)
	b.ledger(brief, bellhop.ReceiptAcknowledged, stumbling)
	callbacks, _, charged := b.effects(s)
	require.Equal(t, n+1, callbacks)
	require.Equal(t, n+1, charged)
	events := b.events(brief[0])
	for _, id := range ids { // what takes more than ten seconds is made findable, once
		require.LessOrEqual(t, b.events(id), events+10, "the history grows with the attempts")
	}
	// Those that failed together do not come back together.
	var arrived []time.Duration
	for _, call := range proxy.Calls() {
		if call.At.After(back) {
			arrived = append(arrived, call.At.Sub(back))
		}
	}
	slices.Sort(arrived)
	spread := arrived[len(arrived)*9/10] - arrived[len(arrived)/10]
	t.Logf("down for %s: at most %d attempts each (%d allowed); up again, 80%% came within %s, the last after %s; %d events each",
		outage, slices.Max(values(down)), most, spread.Round(time.Millisecond), arrived[len(arrived)-1].Round(time.Millisecond), events)
	// Without chance in the pauses they are as close as their first attempts were; the exact pauses are a unit test's business.
	require.Greater(t, spread, 500*time.Millisecond, "they came back together")
}

func values(counts map[string]int) []int {
	var all []int
	for _, n := range counts {
		all = append(all, n)
	}
	return all
}

// events is how long an operation's history is.
func (b *bench) events(id string) int {
	b.Helper()
	n := 0
	history := b.client.GetWorkflowHistory(b.ctx, id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for history.HasNext() {
		_, err := history.Next()
		require.NoError(b, err)
		n++
	}
	return n
}

// hole is a target that takes connections and never answers.
type hole struct {
	*httptest.Server
	mu      sync.Mutex
	holding int
	peak    int
}

func (b *bench) hole() *hole {
	h := &hole{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		h.add(1)
		defer h.add(-1)
		// A server looks after a connection only once the body was read.
		_, _ = io.Copy(io.Discard, r.Body) //nolint:errcheck // nobody wants it
		<-r.Context().Done()
	}))
	b.Cleanup(func() { h.CloseClientConnections(); h.Close() })
	return h
}

func (h *hole) add(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.holding += n
	h.peak = max(h.peak, h.holding)
}

func (h *hole) holds() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.holding
}

// most is the most that it held at once.
func (h *hole) most() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.peak
}

// TestFaultIsolation has one of three targets be a black hole. What the others' callbacks take then, compared with what
// they take alone, is told and not judged: it depends on the machine. That none waits for the hole is.
func TestFaultIsolation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one, other, h := b.shop(), b.shop(), b.hole()
	const places, share = 20, 5 // of the worker, and of each target by default
	w := b.work(b.config(noBackstop, fmt.Sprintf("limits: {activities: %d}", places),
		"targets:\n"+one.target("one", one.URL)+other.target("other", other.URL)+one.target("hole", h.URL)))
	n := count(40, 1000)
	held := 2 * places // without limits of its own the hole would take every place
	lags := func(ids []string) []time.Duration {
		var all []time.Duration
		for _, id := range ids {
			var status bellhop.Status
			b.until(id+" is told", func() bool {
				status = b.status(id)
				return status.Callbacks[0].State == bellhop.ReceiptAcknowledged
			})
			all = append(all, status.Callbacks[0].AcknowledgedAt.Sub(status.FinishedAt))
		}
		slices.Sort(all)
		return all
	}
	targets := []string{"one", "other"}
	run := func(name string) []time.Duration {
		return lags(b.begins(2*n, name, func(i int, id string) string {
			return provision(id, fmt.Sprintf(`{"target": %q}`, targets[i%len(targets)]))
		}))
	}
	run("warm-up")
	control := run("control")
	b.begins(held, "held", func(_ int, id string) string { return provision(id, `{"target": "hole"}`) })
	b.until("the hole holds on", func() bool { return h.holds() == share })
	beside := run("beside")
	holding := h.holds()
	p99 := func(all []time.Duration) time.Duration { return all[len(all)*99/100] }
	t.Logf("%d callbacks to two targets: p50 %s, p99 %s alone; p50 %s, p99 %s beside a black hole that holds %d: p99 %.2f of the control's",
		2*n, control[n], p99(control), beside[n], p99(beside), holding, float64(p99(beside))/float64(p99(control)))
	require.LessOrEqual(t, h.most(), share, "the hole took places that belong to others")
	b.until("the hole is spared", func() bool { return strings.Contains(w.Output(), "is spared") })
	for _, s := range []*shop{one, other} {
		callbacks, _, charged := b.effects(s)
		require.Equal(t, 3*n, callbacks)
		require.Equal(t, 3*n, charged)
	}
}

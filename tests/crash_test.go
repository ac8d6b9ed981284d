package tests

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"bellhop"
	"bellhop/tests/peers"
	"bellhop/workflows"
)

// kills is how often a worker is killed in each phase.
func kills() int {
	if n, err := strconv.Atoi(os.Getenv("BELLHOP_KILLS")); err == nil {
		return n
	}
	if testing.Short() {
		return 3
	}
	return 20
}

// noBackstop keeps operations from looking for themselves, so that a watcher that was lost shows.
const noBackstop = "backstop: {first: 1h, max: 1h}"

// crew are two workers, of which one is killed at a time while the other goes on.
type crew struct {
	*bench
	config string
	env    []string
	mu     sync.Mutex
	at     map[int]*peers.Worker
}

func (b *bench) crew(config string, env ...string) *crew {
	c := &crew{bench: b, config: config, env: env, at: map[int]*peers.Worker{}}
	c.hire()
	c.hire()
	return c
}

func (c *crew) hire() {
	w := c.work(c.config, c.env...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at[w.PID()] = w
}

// kill kills the worker with the given process id, or any, as a crash does, and hires another. It says whether there
// was one.
func (c *crew) kill(pid int) bool {
	c.mu.Lock()
	victim := c.at[pid]
	if pid == 0 {
		for _, w := range c.at {
			victim = w
			break
		}
	}
	if victim != nil {
		delete(c.at, victim.PID())
	}
	c.mu.Unlock()
	if victim == nil {
		return false
	}
	victim.Kill()
	c.hire()
	return true
}

// doing is the process id of the worker that runs an activity of a workflow just now; 0 when none does.
func (c *crew) doing(workflowID, activity string) int {
	found, err := c.client.DescribeWorkflowExecution(c.ctx, workflowID, "")
	if err != nil {
		return 0
	}
	for _, info := range found.GetPendingActivities() {
		if info.GetActivityType().GetName() == activity && info.GetLastStartedTime() != nil {
			pid, _, _ := strings.Cut(info.GetLastWorkerIdentity(), "@")
			n, err := strconv.Atoi(pid)
			if err == nil {
				return n
			}
		}
	}
	return 0
}

// takeOver kills the worker that watches a provider and says how long it took until another one did.
func (c *crew) takeOver(provider string) time.Duration {
	c.Helper()
	watch := workflows.WatchID(workflows.TaskQueue, provider)
	var killed int
	c.until("the worker that watches is killed", func() bool {
		killed = c.doing(watch, "Watch")
		return killed != 0 && c.kill(killed)
	})
	began := time.Now()
	c.until("another worker watches", func() bool {
		pid := c.doing(watch, "Watch")
		return pid != 0 && pid != killed
	})
	return time.Since(began)
}

// begin starts an operation that calls the caller back.
func (b *bench) begin(id, target, script string) {
	b.Helper()
	_, err := b.ops.Start(b.ctx, id, bellhop.Provision, fmt.Appendf(nil, `{"tenant_id": "acme", "resource": %q,
		"provider": "simulated", "spec": {"image": "nginx:1.27", "replicas": 2}, "provider_config": %s,
		"callbacks": [{"target": %q, "address": {"workflow_id": "caller"}}]}`, id, script, target))
	require.NoError(b, err)
}

// settle waits until every operation has ended, counts what went wrong, and deletes what stands, until nothing does.
func (b *bench) settle(ids []string, got func() map[string]Ring) {
	b.Helper()
	b.settled(ids, got)
	for _, id := range ids {
		_, err := b.ops.Start(b.ctx, id+"-deleted", bellhop.Delete, fmt.Appendf(nil, `{"tenant_id": "acme", "resource": %q, "provider": "simulated"}`, id))
		require.NoError(b, err)
	}
	for _, id := range ids {
		outcome, err := b.ops.Wait(b.ctx, id+"-deleted")
		require.NoError(b, err)
		require.Equal(b, bellhop.Succeeded, outcome.State, "%v", outcome.Error)
	}
	b.leavesNothing("simulated", "acme")
}

// settled waits until every operation has ended and counts what went wrong.
func (b *bench) settled(ids []string, got func() map[string]Ring) {
	b.Helper()
	began := time.Now()
	for _, id := range ids {
		b.until(id+" has ended", func() bool {
			found, err := b.client.DescribeWorkflowExecution(b.ctx, id, "")
			return err == nil && found.GetWorkflowExecutionInfo().GetCloseTime() != nil
		})
	}
	rings := got()
	lost, doubled, wrong, again := 0, 0, 0, 0
	for _, id := range ids {
		ring := rings[bellhop.CallbackID(id, bellhop.Succeeded)]
		switch {
		case ring.Times == 0:
			lost++
		case len(ring.Bodies) != 1:
			wrong++
		case ring.Times > 1:
			again++
		}
		if state := b.status(id).Callbacks[0].State; state != bellhop.ReceiptAcknowledged && state != bellhop.ReceiptAckPresumed {
			b.Errorf("%s: the callback is %s", id, state)
			wrong++
		}
	}
	if len(rings) != len(ids) {
		b.Errorf("%d different callbacks were received for %d operations", len(rings), len(ids))
	}
	entries, err := b.platform().Ledger(b.ctx, "acme")
	require.NoError(b, err)
	for _, entry := range entries {
		if entry.Effects != 1 {
			b.Errorf("%s took effect %d times", entry.OperationID, entry.Effects)
			doubled++
		}
	}
	resources, err := b.platform().Resources(b.ctx, "acme")
	require.NoError(b, err)
	if len(resources) != len(ids) {
		b.Errorf("%d resources stand for %d operations", len(resources), len(ids))
	}
	b.Logf("%d operations: lost %d, doubled %d, wrongly reported %d; rung again %d; settled within %s",
		len(ids), lost, doubled, wrong, again, time.Since(began).Round(time.Millisecond))
	if lost+doubled+wrong+again > 0 {
		b.Errorf("lost %d, doubled %d, wrongly reported %d, rung again %d of %d", lost, doubled, wrong, again, len(ids))
	}
}

// leavesNothing checks that nothing of a tenant's stands at a provider, whether anybody knows of it or not.
func (b *bench) leavesNothing(provider, tenant string) {
	b.Helper()
	stdout, stderr, code := b.run("", "bellhop", "orphans", "--provider", provider, "-o", "json")
	require.Zero(b, code, stderr)
	var report bellhop.OrphanReport
	require.NoError(b, json.Unmarshal([]byte(stdout), &report))
	for _, orphan := range slices.Concat(report.Orphans, report.Unknown) {
		if orphan.TenantID == tenant {
			b.Errorf("orphaned: %+v", orphan)
		}
	}
	if provider == "simulated" { // which is the test's own: nothing else may stand there
		require.Equal(b, map[string]int{"simulated": 0}, report.Looked)
	}
}

func TestWorkerKilledWhileAsking(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got := b.call("caller")
	crew := b.crew(b.config(noBackstop))
	var ids []string
	for i := range kills() {
		id := fmt.Sprintf("asking-%d", i)
		b.begin(id, "temporal", `{"ask_takes": "5s"}`)
		ids = append(ids, id)
		b.until("a worker that asks is killed", func() bool {
			pid := crew.doing(id, "Provision")
			return pid != 0 && crew.kill(pid)
		})
	}
	b.settle(ids, got)
}

func TestWorkerKilledWhileOperationsWait(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got := b.call("caller")
	crew := b.crew(b.config(noBackstop))
	var ids []string
	for i := range kills() {
		id := fmt.Sprintf("waiting-%d", i)
		b.begin(id, "temporal", `{"ready_after": "10s"}`)
		ids = append(ids, id)
		b.until(id+" waits", func() bool { return b.status(id).State == bellhop.Running })
		crew.kill(0)
	}
	b.settle(ids, got)
}

func TestWorkerKilledThatHoldsTheWatch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got := b.call("caller")
	crew := b.crew(b.config(noBackstop))
	var ids []string
	var slowest time.Duration
	for i := range kills() {
		id := fmt.Sprintf("watched-%d", i)
		// It becomes ready while nobody watches: whoever takes over must find it.
		b.begin(id, "temporal", `{"ready_after": "1s"}`)
		ids = append(ids, id)
		slowest = max(slowest, crew.takeOver("simulated"))
	}
	t.Logf("slowest take-over %s", slowest.Round(time.Millisecond))
	b.settle(ids, got)
}

// through gives workers a target that leads through a proxy.
func (b *bench) through() (proxy *peers.Proxy, config, env string) {
	b.Helper()
	proxy, err := peers.StartProxy(b.server.Address)
	require.NoError(b, err)
	b.Cleanup(proxy.Close)
	file, err := proxy.Profile(b.folder)
	require.NoError(b, err)
	return proxy, b.config(noBackstop, "targets:\n  caller: {type: temporal, profile: proxied}"), "TEMPORAL_CONFIG_FILE=" + file
}

func TestWorkerKilledBetweenAttempts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got := b.call("caller")
	proxy, config, env := b.through()
	var refused sync.Map
	proxy.Hook(func(in *workflowservice.SignalWorkflowExecutionRequest, forward func() error) error {
		// The first two attempts of each callback find nobody.
		tries, _ := refused.LoadOrStore(in.GetRequestId(), new(atomic.Int32))
		if tries.(*atomic.Int32).Add(1) <= 2 { //nolint:forcetypeassert // we store nothing else
			return status.Error(codes.Unavailable, "nobody is there")
		}
		return forward()
	})
	crew := b.crew(config, env)
	var ids []string
	for i := range kills() {
		id := fmt.Sprintf("between-%d", i)
		b.begin(id, "caller", `{}`)
		ids = append(ids, id)
		b.until("an attempt has failed, and the status says so", func() bool {
			receipt := b.status(id).Callbacks[0]
			return receipt.Attempts > 0 && strings.Contains(receipt.LastError, "nobody is there")
		})
		crew.kill(0)
	}
	b.settle(ids, got)
}

func TestWorkerKilledRightAfterTheCallerTookTheCallback(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got := b.call("caller")
	proxy, config, env := b.through()
	crew := b.crew(config, env)
	taken := make(chan string)
	var once sync.Map
	proxy.Hook(func(in *workflowservice.SignalWorkflowExecutionRequest, forward func() error) error {
		err := forward()
		if _, again := once.LoadOrStore(in.GetRequestId(), true); !again && err == nil {
			taken <- in.GetRequestId()
			<-taken // the worker that waits for this answer is dead by now
		}
		return err
	})
	var ids []string
	for i := range kills() {
		id := fmt.Sprintf("taken-%d", i)
		b.begin(id, "caller", `{}`)
		ids = append(ids, id)
		request := <-taken
		b.until("the worker that delivers is killed", func() bool {
			pid := crew.doing(id, "Deliver")
			return pid != 0 && crew.kill(pid)
		})
		taken <- request
	}
	b.settle(ids, got)
}

func TestServerKilledAndRestartedOnItsFile(t *testing.T) {
	t.Parallel()
	_, port, _ := strings.Cut(peers.FreeAddress(t), ":")
	b := setup(t, "--db", t.TempDir()+"/temporal.db", "--port", port)
	got := b.call("caller")
	proxy, config, env := b.through()
	proxy.Hook(func(*workflowservice.SignalWorkflowExecutionRequest, func() error) error {
		return status.Error(codes.Unavailable, "not yet")
	})
	b.work(config, env)
	var ids []string
	for i := range 10 {
		for _, phase := range []struct{ name, script string }{
			{"asking", `{"ask_takes": "6s"}`}, {"waiting", `{"ready_after": "8s"}`}, {"delivering", `{}`},
		} {
			id := fmt.Sprintf("%s-%d", phase.name, i)
			b.begin(id, "caller", phase.script)
			ids = append(ids, id)
		}
	}
	// Which of them is tried is chance, since a target that fails is spared.
	b.until("the last is to be delivered, and one was tried", func() bool {
		return b.status("delivering-9").State == bellhop.Succeeded && slices.ContainsFunc(ids, func(id string) bool {
			callbacks := b.status(id).Callbacks
			return len(callbacks) > 0 && callbacks[0].Attempts > 0
		})
	})
	b.server.Kill()
	again, err := peers.StartServer(b.ctx, b.server.Args()...)
	require.NoError(t, err)
	t.Cleanup(again.Kill)
	proxy.Hook(nil)
	b.settle(ids, got)
}

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"bellhop"
	"bellhop/activities/simulated"
	"bellhop/encryption"
	"bellhop/operations"
	"bellhop/tests/peers"
)

// bench is the load generator, and the callers: a few workflows that receive everybody's callbacks.
type bench struct {
	n, rounds, waiting, hold, slow int
	state, at                      string
	engines                        []*engine

	server, floor *peers.Process
	address       string
	worker        *peers.Worker
	// other is the worker of operations that are protected, guarded starts them, and converters read what it writes.
	other      *peers.Worker
	guarded    *operations.Client
	converters encryption.Converters
	c          client.Client
	ops        *operations.Client
	serial     atomic.Int64

	mu       sync.Mutex
	received map[string]chan time.Time
	total    atomic.Int64
}

const (
	receivers     = 32
	receiverQueue = "receivers"
	// perReceiver bounds a receiver's history.
	perReceiver = 4000
)

// receive is a caller's workflow: it takes callbacks and notes when its code saw each.
func (b *bench) receive(ctx workflow.Context) error {
	got := 0
	selector := workflow.NewSelector(ctx)
	note := func(id string) {
		got++
		if workflow.IsReplaying(ctx) {
			return
		}
		b.total.Add(1)
		b.mu.Lock()
		waiter := b.received[id]
		delete(b.received, id)
		b.mu.Unlock()
		if waiter != nil {
			waiter <- time.Now() //nolint:forbidigo // a measurement, not a decision
		}
	}
	selector.AddReceive(workflow.GetSignalChannel(ctx, "ring"), func(c workflow.ReceiveChannel, _ bool) {
		var id string
		c.Receive(ctx, &id)
		note(id)
	})
	selector.AddReceive(workflow.GetSignalChannel(ctx, "compute-provisioned"), func(c workflow.ReceiveChannel, _ bool) {
		var outcome bellhop.Outcome
		c.Receive(ctx, &outcome)
		note(outcome.OperationID)
	})
	for got < perReceiver || selector.HasPending() {
		selector.Select(ctx)
	}
	return workflow.NewContinueAsNewError(ctx, b.receive)
}

func (b *bench) connect(ctx context.Context, address string) (func(), error) {
	c, err := client.DialContext(ctx, client.Options{HostPort: address, Logger: quiet{}})
	if err != nil {
		return nil, err
	}
	b.c, b.ops = c, operations.New(c, "default", "")
	b.received = map[string]chan time.Time{}
	options := client.Options{HostPort: address, Logger: quiet{}}
	b.converters.Apply(&options)
	reads, err := client.DialContext(ctx, options)
	if err != nil {
		return nil, err
	}
	w := worker.New(reads, receiverQueue, worker.Options{})
	w.RegisterWorkflowWithOptions(b.receive, workflow.RegisterOptions{Name: "receive"})
	if err := w.Start(); err != nil {
		return nil, err
	}
	for i := range receivers {
		options := client.StartWorkflowOptions{ID: receiver(i), TaskQueue: receiverQueue}
		if _, err := c.ExecuteWorkflow(ctx, options, "receive"); err != nil {
			return nil, err
		}
	}
	return func() { w.Stop(); reads.Close(); c.Close() }, nil
}

func receiver(i int) string { return fmt.Sprintf("receiver-%d", i%receivers) }

// shape is one kind of operation, by bellhop or by the floor.
type shape struct {
	name  string
	floor bool
	// readyAfter is how long the simulated provider takes; "0s" is ready at once.
	readyAfter string
	// protected operations are encrypted, and under the rules for tenants.
	protected bool
}

func (s shape) waits() bool { return s.readyAfter != "0s" }

// begin starts one and returns its id.
func (b *bench) begin(ctx context.Context, s shape, i int) (string, error) {
	id := fmt.Sprintf("%s-%d", strings.ReplaceAll(s.name, " ", "-"), b.serial.Add(1))
	if s.protected {
		id = fmt.Sprintf("t%d:%s", i%10, id)
	}
	return id, b.beginAs(ctx, s, id, i)
}

func (b *bench) beginAs(ctx context.Context, s shape, id string, i int) error {
	if s.floor {
		options := client.StartWorkflowOptions{ID: id, TaskQueue: floorQueue}
		_, err := b.c.ExecuteWorkflow(ctx, options, "floor", floorInput{ID: id, Receiver: receiver(i), Waits: s.waits()})
		return err
	}
	ops := b.ops
	if s.protected {
		ops = b.guarded
	}
	_, err := ops.Start(ctx, id, bellhop.Provision, []byte(fmt.Sprintf(`{"tenant_id": "t%d", "resource": %q,
		"provider": "simulated", "spec": {"image": "nginx:1.27"}, "provider_config": {"ready_after": %q}, "timeout": "24h",
		"callbacks": [{"target": "temporal", "address": {"workflow_id": %q}}]}`, i%10, strings.ReplaceAll(id, ":", "-"), s.readyAfter, receiver(i))))
	return err
}

// starters is how many requests are under way at once when throughput is measured.
const starters = 16

// push runs n of a shape and waits for the last callback.
func (b *bench) push(ctx context.Context, s shape, n int) error {
	target := b.total.Load() + int64(n)
	if err := each(ctx, starters, n, func(ctx context.Context, i int) error {
		_, err := b.begin(ctx, s, i)
		return err
	}); err != nil {
		return err
	}
	return b.reach(ctx, target)
}

// reach waits until so many callbacks were received.
func (b *bench) reach(ctx context.Context, target int64) error {
	deadline := time.Now().Add(2 * time.Hour)
	for b.total.Load() < target {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d callbacks are missing", target-b.total.Load())
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// each runs do n times with some at once.
func each(ctx context.Context, width, n int, do func(context.Context, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range width {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

func (b *bench) throughput(ctx context.Context) error {
	fmt.Printf("## Throughput: %d operations a round, %d at once, from the first request to the last callback received\n\n", b.n, starters)
	fmt.Printf("| shape | operations/s, median of %d | ratio to the floor | CPU per operation: server | its worker | history events |\n"+
		"|---|---|---|---|---|---|\n", b.rounds)
	for _, readyAfter := range []string{"0s", "1ms"} {
		kind := map[string]string{"0s": "ready at once", "1ms": "waits"}[readyAfter]
		ours := shape{name: "bellhop " + kind, readyAfter: readyAfter}
		floor := shape{name: "floor " + kind, floor: true, readyAfter: readyAfter}
		rates := map[string][]float64{}
		serverCPU, workerCPU := map[string][]float64{}, map[string][]float64{}
		for round := range b.rounds + 1 { // the first warms up
			for _, s := range []shape{floor, ours} {
				n := b.n
				if round == 0 {
					n = min(n, 200)
				}
				began := time.Now()
				serverBegan, workerBegan := cpuTime(b.server.PID()), cpuTime(b.workerOf(s))
				if err := b.push(ctx, s, n); err != nil {
					return err
				}
				if round > 0 {
					rates[s.name] = append(rates[s.name], float64(n)/time.Since(began).Seconds())
					serverCPU[s.name] = append(serverCPU[s.name], (cpuTime(b.server.PID())-serverBegan)*1000/float64(n))
					workerCPU[s.name] = append(workerCPU[s.name], (cpuTime(b.workerOf(s))-workerBegan)*1000/float64(n))
				}
			}
		}
		for _, s := range []shape{floor, ours} {
			id, err := b.begin(ctx, s, 0)
			if err != nil {
				return err
			}
			if err := b.c.GetWorkflow(ctx, id, "").Get(ctx, nil); err != nil {
				return err
			}
			ratio := "1"
			if !s.floor {
				pairs := make([]float64, b.rounds)
				for i := range pairs {
					pairs[i] = rates[ours.name][i] / rates[floor.name][i]
				}
				ratio = fmt.Sprintf("%.2f (%.2f–%.2f)", median(pairs), slices.Min(pairs), slices.Max(pairs))
			}
			fmt.Printf("| %s | %.1f | %s | %.1f ms | %.1f ms | %d |\n", s.name, median(rates[s.name]), ratio,
				median(serverCPU[s.name]), median(workerCPU[s.name]), b.events(ctx, id))
		}
	}
	fmt.Println()
	return nil
}

// workerOf is the process that works for a shape.
func (b *bench) workerOf(s shape) int {
	switch {
	case s.floor:
		return b.floor.PID()
	case s.protected:
		return b.other.PID()
	default:
		return b.worker.PID()
	}
}

func (b *bench) events(ctx context.Context, id string) int {
	count := 0
	history := b.c.GetWorkflowHistory(ctx, id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for history.HasNext() {
		if _, err := history.Next(); err != nil {
			return -1
		}
		count++
	}
	return count
}

// ring starts one, waits for its callback and returns how long that took.
func (b *bench) ring(ctx context.Context, s shape, i int) (string, time.Time, time.Duration, error) {
	id := fmt.Sprintf("%s-%d", strings.ReplaceAll(s.name, " ", "-"), b.serial.Add(1))
	got := make(chan time.Time, 1)
	b.mu.Lock()
	b.received[id] = got
	b.mu.Unlock()
	began := time.Now()
	if err := b.beginAs(ctx, s, id, i); err != nil {
		return id, began, 0, err
	}
	select {
	case at := <-got:
		return id, at, at.Sub(began), nil
	case <-ctx.Done():
		return id, began, 0, ctx.Err()
	case <-time.After(time.Minute):
		return id, began, 0, fmt.Errorf("no callback for %s", id)
	}
}

func (b *bench) latency(ctx context.Context) error {
	const n = 200
	fmt.Printf("## Latency: one at a time, %d of each in turn, from the request to the callback received\n\n", n)
	fmt.Println("| shape | p50 | p99 | p99 to the floor's |\n|---|---|---|---|")
	floor := shape{name: "floor ready at once", floor: true, readyAfter: "0s"}
	ours := shape{name: "bellhop ready at once", readyAfter: "0s"}
	took := map[string][]time.Duration{}
	for i := range n + 20 {
		for _, s := range []shape{floor, ours} {
			_, _, d, err := b.ring(ctx, s, i)
			if err != nil {
				return err
			}
			if i >= 20 {
				took[s.name] = append(took[s.name], d)
			}
		}
	}
	least := percentile(took[floor.name], 99)
	for _, s := range []shape{floor, ours} {
		p99 := percentile(took[s.name], 99)
		fmt.Printf("| %s | %s | %s | %.2f |\n", s.name, ms(percentile(took[s.name], 50)), ms(p99), float64(p99)/float64(least))
	}
	fmt.Println()
	return nil
}

func (b *bench) event(ctx context.Context) error {
	const n = 200
	platform, err := simulated.New(simulated.Config{Path: b.state})
	if err != nil {
		return err
	}
	defer platform.Close() //nolint:errcheck // it only read
	var lags []time.Duration
	for i := range n + 20 {
		id, at, _, err := b.ring(ctx, shape{name: "event", readyAfter: "150ms"}, i)
		if err != nil {
			return err
		}
		entries, err := platform.Ledger(ctx, fmt.Sprintf("t%d", i%10))
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if entry.OperationID == id && i >= 20 {
				lags = append(lags, at.Sub(entry.AcceptedAt.Add(150*time.Millisecond)))
			}
		}
	}
	fmt.Printf("## From the provider's event to the callback received: %d operations, one at a time\n\n", len(lags))
	fmt.Printf("p50 %s, p99 %s\n\n", ms(percentile(lags, 50)), ms(percentile(lags, 99)))
	return nil
}

func (b *bench) query(ctx context.Context) error {
	ids := make([]string, 200)
	if err := each(ctx, starters, len(ids), func(ctx context.Context, i int) (err error) {
		ids[i], err = b.begin(ctx, shape{name: "queried", readyAfter: "1h"}, i)
		return err
	}); err != nil {
		return err
	}
	fmt.Println("## Status queries\n\n| at once | queries/s | p50 | p99 |\n|---|---|---|---|")
	for _, width := range []int{1, 16} {
		const n = 2000
		took := make([]time.Duration, n)
		began := time.Now()
		if err := each(ctx, width, n, func(ctx context.Context, i int) error {
			asked := time.Now()
			_, err := b.c.QueryWorkflow(ctx, ids[i%len(ids)], "", "status")
			took[i] = time.Since(asked)
			return err
		}); err != nil {
			return err
		}
		fmt.Printf("| %d | %.0f | %s | %s |\n", width, n/time.Since(began).Seconds(), ms(percentile(took, 50)), ms(percentile(took, 99)))
	}
	fmt.Println()
	return nil
}

func (b *bench) memory(ctx context.Context) error {
	s := shape{name: "waiting", readyAfter: "12h"}
	if err := each(ctx, starters, 200, func(ctx context.Context, i int) error { _, err := b.begin(ctx, s, i); return err }); err != nil {
		return err
	}
	before := resident(b.worker.PID())
	if err := each(ctx, starters, b.waiting, func(ctx context.Context, i int) error { _, err := b.begin(ctx, s, i); return err }); err != nil {
		return err
	}
	for { // all of them wait
		count, err := b.ops.Count(ctx, bellhop.Filter{State: bellhop.Running, Open: true})
		if err != nil {
			return err
		}
		if count >= int64(b.waiting+200) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	after := resident(b.worker.PID())
	cpu := cpuTime(b.worker.PID())
	time.Sleep(10 * time.Second)
	fmt.Printf("## Waiting: %d operations\n\n", b.waiting)
	fmt.Printf("worker %.1f MB before, %.1f MB with them: %.1f kB each; %.0f ms of the worker's CPU in 10 s of waiting\n\n",
		before/1e6, after/1e6, (after-before)/1e3/float64(b.waiting), (cpuTime(b.worker.PID())-cpu)*1000)
	return nil
}

// holdAndDrain has many operations wait at once, all of which become ready at the same moment.
func (b *bench) holdAndDrain(ctx context.Context) error {
	start := func(n int, readyAfter func() time.Duration) error {
		return each(ctx, starters, n, func(ctx context.Context, i int) error {
			_, err := b.begin(ctx, shape{name: "held", readyAfter: readyAfter().Round(time.Millisecond).String()}, i)
			return err
		})
	}
	const trial = 500
	began := time.Now()
	if err := start(trial, func() time.Duration { return 0 }); err != nil {
		return err
	}
	if err := b.reach(ctx, trial); err != nil {
		return err
	}
	// What is to be held must have been asked for by then, which takes less than what the trial did.
	ready := time.Now().Add(time.Since(began) / trial * time.Duration(b.hold) * 6 / 5)
	before := resident(b.worker.PID())
	began = time.Now()
	for started := 0; started < b.hold; started += b.hold / 5 {
		if err := start(b.hold/5, func() time.Duration { return max(time.Until(ready), time.Second) }); err != nil {
			return err
		}
		n := started + b.hold/5
		fmt.Printf("%d started after %s: %.1f kB of the worker's memory each\n", n, time.Since(began).Round(time.Second),
			(resident(b.worker.PID())-before)/1e3/float64(n))
	}
	held := time.Since(began)
	if left := time.Until(ready); left < 0 {
		return fmt.Errorf("the first were ready %s before the last was started", -left.Round(time.Second))
	}
	waiting := func() (int64, error) { return b.ops.Count(ctx, bellhop.Filter{State: bellhop.Running, Open: true}) }
	count, err := waiting()
	for ; err == nil && count < int64(b.hold) && time.Until(ready) > time.Second; count, err = waiting() {
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	after := resident(b.worker.PID())
	fmt.Printf("\n## Held: %d operations\n\nstarted in %s (%.0f a second), %d waiting at once; worker %.0f MB, %.1f kB each\n\n",
		b.hold, held.Round(time.Second), float64(b.hold)/held.Seconds(), count, after/1e6, (after-before)/1e3/float64(b.hold))
	select {
	case <-time.After(time.Until(ready)):
	case <-ctx.Done():
		return ctx.Err()
	}
	drain := time.Now()
	if err := b.reach(ctx, int64(b.hold+trial)); err != nil {
		return err
	}
	took := time.Since(drain)
	// One more would be a callback that came twice.
	fmt.Printf("drained in %s: %.0f a second, %d of %d called back\n\n",
		took.Round(time.Second), float64(b.hold)/took.Seconds(), b.total.Load()-trial, b.hold)
	return nil
}

// resident is a process's memory in bytes.
func resident(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	pages, _ := strconv.ParseFloat(strings.Fields(string(text))[1], 64) //nolint:errcheck // the kernel's own format
	return pages * float64(os.Getpagesize())
}

// cpuTime is a process's CPU time in seconds.
func cpuTime(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	user, _ := strconv.ParseFloat(fields[11], 64)   //nolint:errcheck // the kernel's own format
	system, _ := strconv.ParseFloat(fields[12], 64) //nolint:errcheck // the kernel's own format
	return (user + system) / 100
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func percentile(values []time.Duration, p int) time.Duration {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, len(sorted)*p/100)]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

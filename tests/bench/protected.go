package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"go.temporal.io/sdk/client"

	"bellhop/encryption"
	"bellhop/internal/tenancy"
	"bellhop/operations"
	"bellhop/tests/peers"
)

// protectedQueue is the task queue of the worker that encrypts and has rules for tenants.
const protectedQueue = "protected"

// protected measures what encryption and the rules for tenants cost: the throughput with both beside that without, and
// beside the floor, in turn, on one server.
func (b *bench) protected(ctx context.Context, folder string) error {
	config := encryption.Config{KeysetFile: filepath.Join(folder, "keyset.json")}
	if _, err := encryption.Create(config); err != nil {
		return err
	}
	keys, err := encryption.Open(config)
	if err != nil {
		return err
	}
	b.converters = keys.Converters(client.DefaultNamespace)
	defer func() { b.converters = encryption.Converters{} }()
	return b.run(ctx, "", "", func(ctx context.Context) error {
		worker, err := peers.StartWorker(ctx, b.address, fmt.Sprintf(
			"task_queue: %s\nproviders:\n  simulated: {type: simulated, path: %s-protected}\nbackstop: {first: 6h, max: 6h}\n"+
				"encryption: {keyset_file: %s}\ntenants: {default: {}}\n", protectedQueue, b.state, config.KeysetFile))
		if err != nil {
			return err
		}
		defer worker.Kill()
		b.other = worker
		options := client.Options{HostPort: b.address, Logger: quiet{}}
		b.converters.Apply(&options)
		c, err := client.DialContext(ctx, options)
		if err != nil {
			return err
		}
		defer c.Close()
		b.guarded = operations.New(c, client.DefaultNamespace, protectedQueue).With(b.converters)
		b.guarded.Govern(tenancy.NewPolicy(&tenancy.Config{}, tenancy.Totals{}))
		return b.compareProtected(ctx)
	})
}

func (b *bench) compareProtected(ctx context.Context) error {
	fmt.Printf("## Protected: throughput with encryption and rules for tenants, %d operations a round, %d at once\n\n", b.n, starters)
	fmt.Printf("| shape | operations/s, median of %d | ratio to the floor | ratio to bellhop without | CPU per operation: server | its worker |\n"+
		"|---|---|---|---|---|---|\n", b.rounds)
	for _, readyAfter := range []string{"0s", "1ms"} {
		kind := map[string]string{"0s": "ready at once", "1ms": "waits"}[readyAfter]
		shapes := []shape{
			{name: "floor " + kind, floor: true, readyAfter: readyAfter},
			{name: "bellhop " + kind, readyAfter: readyAfter},
			{name: "protected " + kind, readyAfter: readyAfter, protected: true},
		}
		rates, serverCPU, workerCPU := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
		for round := range b.rounds + 1 { // the first warms up
			for _, s := range shapes {
				began := time.Now()
				serverBegan, workerBegan := cpuTime(b.server.PID()), cpuTime(b.workerOf(s))
				if err := b.push(ctx, s, b.n); err != nil {
					return err
				}
				if round == 0 {
					continue
				}
				rates[s.name] = append(rates[s.name], float64(b.n)/time.Since(began).Seconds())
				serverCPU[s.name] = append(serverCPU[s.name], (cpuTime(b.server.PID())-serverBegan)*1000/float64(b.n))
				workerCPU[s.name] = append(workerCPU[s.name], (cpuTime(b.workerOf(s))-workerBegan)*1000/float64(b.n))
			}
		}
		for _, s := range shapes {
			fmt.Printf("| %s | %.1f | %s | %s | %.1f ms | %.1f ms |\n", s.name, median(rates[s.name]), ratios(rates[s.name], rates[shapes[0].name]),
				ratios(rates[s.name], rates[shapes[1].name]), median(serverCPU[s.name]), median(workerCPU[s.name]))
		}
	}
	fmt.Println()
	return nil
}

// ratios compares rounds that ran one after the other.
func ratios(rates, to []float64) string {
	pairs := make([]float64, len(rates))
	for i := range pairs {
		pairs[i] = rates[i] / to[i]
	}
	return fmt.Sprintf("%.2f", median(pairs))
}

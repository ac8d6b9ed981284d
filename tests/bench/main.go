// Command bench measures bellhop beside a floor: bare Temporal workflows of the same shape that do nothing. Both run in
// turn, on one server, from one load generator; what counts is the ratio.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"bellhop/tests/peers"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	scenario := flags.String("scenario", "throughput,latency,targets,event,query,memory", "what to measure, by comma; also: protected, neighbors, hold, providers")
	n := flags.Int("n", 100, "operations per round of the throughput")
	rounds := flags.Int("rounds", 15, "rounds of each shape")
	waiting := flags.Int("waiting", 10_000, "operations that wait, for memory; at most so many for providers")
	hold := flags.Int("hold", 50_000, "operations that are held and drained, for hold")
	slow := flags.Int("slow", 500, "asks of one tenant that take 10 minutes each, for neighbors")
	at := flags.String("at", "docker,kubernetes,ecs", "at which providers, by comma, for providers")
	floor := flags.String("floor-worker", "", "internal: work for the floor at this address")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *floor != "" {
		return workFloor(ctx, *floor)
	}
	folder, err := os.MkdirTemp("", "bellhop-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder) //nolint:errcheck // a temporary folder
	b := &bench{n: *n, rounds: *rounds, waiting: *waiting, hold: *hold, slow: *slow, at: *at, state: filepath.Join(folder, "simulated.db")}
	for name := range strings.SplitSeq(*scenario, ",") {
		measure, ok := map[string]func(context.Context) error{
			"throughput": b.with(b.throughput), "latency": b.with(b.latency), "event": b.with(b.event),
			"query": b.with(b.query), "memory": b.with(b.memory), "hold": b.with(b.holdAndDrain),
			"neighbors": b.with(b.neighbors),
			"protected": func(ctx context.Context) error { return b.protected(ctx, folder) },
			"targets":   func(ctx context.Context) error { return b.withEngines(ctx, folder) },
			"providers": func(ctx context.Context) error { return b.providers(ctx, folder) },
		}[name]
		if !ok {
			return fmt.Errorf("no scenario %q", name)
		}
		if err := measure(ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// with makes a measurement run with a fresh server and fresh workers.
func (b *bench) with(measure func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error { return b.run(ctx, "", "", measure) }
}

// run is what with does, with more providers, and more of all else, in the worker's configuration.
func (b *bench) run(ctx context.Context, providers, config string, measure func(context.Context) error) error {
	server, err := peers.StartServer(ctx)
	if err != nil {
		return err
	}
	defer server.Kill()
	_ = os.Remove(b.state) // of the measurement before
	worker, err := peers.StartWorker(ctx, server.Address, fmt.Sprintf(
		"providers:\n  simulated: {type: simulated, path: %s}\n%sbackstop: {first: 6h, max: 6h}\n%s", b.state, providers, config))
	if err != nil {
		return err
	}
	defer worker.Kill()
	floor, err := startFloor(ctx, server.Address)
	if err != nil {
		return err
	}
	defer floor.Kill()
	b.server, b.floor, b.worker, b.address = server.Process, floor, worker, server.Address
	closeCaller, err := b.connect(ctx, server.Address)
	if err != nil {
		return err
	}
	defer closeCaller()
	return measure(ctx)
}

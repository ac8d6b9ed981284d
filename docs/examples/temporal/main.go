// Command temporal is an example: a worker of your own with a workflow that uses bellhop, and one order for it to
// serve. What is worth reading is in order.go.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"

	"bellhop"
)

// taskQueue is where the orders' own worker works. Bellhop's workers are elsewhere, on "bellhop".
const taskQueue = "orders"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "order:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("temporal", flag.ContinueOnError)
	flags.SetOutput(stderr)
	id := flags.String("id", fmt.Sprintf("order-%d", time.Now().Unix()), "the order's `id`, which is its workflow's")
	tenant := flags.String("tenant", "acme", "whose `name` the compute is under")
	resource := flags.String("resource", "web", "the compute's `name`")
	provider := flags.String("provider", "simulated", "`name` of a provider in the configuration of bellhop's worker")
	image := flags.String("image", "nginx:1.27", "container `image` to run")
	port := flags.Int("port", 0, "`port` that the image listens on; 0 is none")
	first := flags.String("first-attempt", `{"ready_after": "2s"}`, "provider_config of the first attempt, as `JSON`")
	patience := flags.Duration("patience", 2*time.Minute, "how `long` to wait for a callback before the status is polled")
	if err := flags.Parse(args); err != nil {
		return err
	}
	order := Order{
		Tenant: *tenant, Resource: *resource, Provider: *provider, Patience: bellhop.Duration(*patience),
		Spec: bellhop.Spec{Image: *image},
	}
	if *first != "" {
		order.FirstAttempt = json.RawMessage(*first)
	}
	if *port != 0 {
		order.Spec.Ports = []bellhop.Port{{Name: "http", ContainerPort: *port}}
	}

	options, err := envconfig.LoadDefaultClientOptions() // TEMPORAL_ADDRESS and the like
	if err != nil {
		return fmt.Errorf("read Temporal's configuration: %w", err)
	}
	options.Logger = log.NewStructuredLogger(slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	temporal, err := client.DialContext(ctx, options)
	if err != nil {
		return fmt.Errorf("reach Temporal: %w\nset TEMPORAL_ADDRESS, or start one with: make dev", err)
	}
	defer temporal.Close()

	orders := worker.New(temporal, taskQueue, worker.Options{})
	orders.RegisterWorkflow(OrderWorkflow)
	if err := orders.Start(); err != nil {
		return fmt.Errorf("start the worker: %w", err)
	}
	defer orders.Stop()

	started, err := temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: *id, TaskQueue: taskQueue}, OrderWorkflow, order)
	if err != nil {
		return fmt.Errorf("start %s: %w", *id, err)
	}
	var delivery Delivery
	if err := started.Get(ctx, &delivery); err != nil {
		return fmt.Errorf("await %s: %w", *id, err)
	}
	out := json.NewEncoder(stdout)
	out.SetIndent("", "  ")
	return out.Encode(delivery)
}

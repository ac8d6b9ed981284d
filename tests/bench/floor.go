package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"bellhop/tests/peers"
)

// The floor is what bellhop's path costs in Temporal alone: an activity (the ask), for one that waits a signal from
// outside while it waits (the watcher's), an activity that signals the caller (the callback). It has no logic, no timer,
// no search attributes, no provider.

const floorQueue = "floor"

type floorInput struct {
	ID       string
	Receiver string
	Waits    bool
}

// floor is its workflow and the watcher that signals it from outside.
type floor struct{ c client.Client }

func (f floor) workflow(ctx workflow.Context, in floorInput) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute})
	if err := workflow.ExecuteActivity(ctx, "ask", in).Get(ctx, nil); err != nil {
		return err
	}
	if in.Waits {
		if !workflow.IsReplaying(ctx) { // signalled any earlier it would not wait
			go f.c.SignalWorkflow(context.Background(), in.ID, "", "observed", nil) //nolint:errcheck,gosec // it would be missed; from outside
		}
		workflow.GetSignalChannel(ctx, "observed").Receive(ctx, nil)
	}
	return workflow.ExecuteActivity(ctx, "ring", in).Get(ctx, nil)
}

func workFloor(ctx context.Context, address string) error {
	c, err := client.Dial(client.Options{HostPort: address, Logger: quiet{}})
	if err != nil {
		return err
	}
	defer c.Close()
	worker.SetStickyWorkflowCacheSize(1000)
	w := worker.New(c, floorQueue, worker.Options{
		MaxConcurrentActivityExecutionSize:     200,
		MaxConcurrentWorkflowTaskExecutionSize: 100,
	})
	w.RegisterWorkflowWithOptions(floor{c}.workflow, workflow.RegisterOptions{Name: "floor"})
	w.RegisterActivityWithOptions(func(context.Context, floorInput) error { return nil }, activity.RegisterOptions{Name: "ask"})
	w.RegisterActivityWithOptions(func(ctx context.Context, in floorInput) error {
		return c.SignalWorkflow(ctx, in.Receiver, "", "ring", in.ID)
	}, activity.RegisterOptions{Name: "ring"})
	if err := w.Start(); err != nil {
		return err
	}
	fmt.Println("floor ready")
	<-ctx.Done()
	w.Stop()
	return nil
}

func startFloor(ctx context.Context, address string) (*peers.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return peers.Start(ctx, self, []string{"-floor-worker", address}, nil, func(line string) bool { return line == "floor ready" })
}

// quiet is a logger that says nothing.
type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}

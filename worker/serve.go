package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"bellhop/activities"
	"bellhop/bridge"
	"bellhop/bridge/restate"
	"bellhop/bridge/temporal"
	"bellhop/internal/tenancy"
	"bellhop/operations"
	"bellhop/workflows"
)

// serve works until ctx ends.
func serve(ctx context.Context, config Config, made *parts, stderr io.Writer) error {
	logger := newLogger(config.Log, stderr)
	slog.SetDefault(logger)
	for _, note := range config.notes(made) {
		logger.Warn("a note on the configuration", "note", note)
	}
	telemetry, err := startTelemetry(ctx, config)
	if err != nil {
		return err
	}
	defer telemetry.stop()

	options := made.own.options
	options.Logger = log.NewStructuredLogger(logger)
	if config.Encryption != nil {
		options.Logger = log.NewStructuredLogger(slog.New(discreet{logger.Handler()}))
	}
	options.MetricsHandler = telemetry.metrics
	if telemetry.tracer != nil {
		options.Interceptors = append(options.Interceptors, telemetry.tracer)
	}
	namespace := options.Namespace
	made.watchKeysets(ctx, logger)
	made.ownConverters(namespace).Apply(&options)
	connection, err := dial(ctx, options, time.Duration(config.ConnectTimeout), logger)
	if err != nil {
		return err
	}
	defer connection.Close()
	ops := operations.New(connection, namespace, config.TaskQueue).With(made.ownConverters(namespace))
	policy := config.policy()
	ops.Govern(policy)
	config.warnOfSharedIDs(policy, logger)
	if err := ops.EnsureSearchAttributes(ctx); err != nil {
		return err
	}
	closeTargets, err := made.connectTargets(connection, namespace, logger)
	if err != nil {
		return err
	}
	defer closeTargets()

	fatal := make(chan error, 1)
	fail := func(err error) {
		select {
		case fatal <- err:
		default: // one is enough
		}
	}
	// It is the last to stop: who asks how the worker is gets an answer while it drains.
	server, err := listen(config, telemetry, func(ctx context.Context) error {
		_, err := connection.CheckHealth(ctx, &client.CheckHealthRequest{})
		return err
	}, fail)
	if err != nil {
		return err
	}
	defer server.stop()
	// Told to stop, it stops to ask for tasks while the worker drains.
	defer made.pollActivities(ctx, config, ops, logger)()
	running := newWorkers(connection, config, made, ops, policy, fail)
	if err := running.start(); err != nil {
		return err
	}
	defer running.stop()
	stopAPI, address, err := serveAPI(config, made, ops, policy, telemetry, logger, fail)
	if err != nil {
		return err
	}
	defer stopAPI()
	if config.Restate != nil {
		endpoint, err := restate.Listen(*config.Restate, ops, logger, fail)
		if err != nil {
			return usageError{err}
		}
		defer endpoint.Stop()
		logger.Info("serving Restate", "listen", endpoint.Address)
	}
	for name := range made.providers {
		if err := ops.Watch(ctx, name); err != nil {
			return err
		}
	}
	telemetry.countWaiting(ops, made.providers)
	logger.Info("working", "version", version, "temporal", options.HostPort, "namespace", namespace,
		"task_queue", config.TaskQueue, "listen", server.address, "api", address)

	select {
	case <-ctx.Done():
		logger.Info("stopping", "drain", config.Drain)
		server.draining.Store(true)
		return nil
	case err := <-fatal:
		return fmt.Errorf("work: %w", err)
	}
}

func dial(ctx context.Context, options client.Options, within time.Duration, logger *slog.Logger) (client.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	address := options.HostPort
	if address == "" {
		address = client.DefaultHostPort
	}
	for {
		connection, err := client.DialContext(ctx, options)
		if err == nil {
			return connection, nil
		}
		logger.Warn("Temporal does not answer yet", "address", address, "error", err)
		select {
		case <-ctx.Done():
			return nil, unreachableError{fmt.Errorf("connect to Temporal at %s: %w\nset TEMPORAL_ADDRESS, or start one: make dev", address, err)}
		case <-time.After(time.Second):
		}
	}
}

// workers are one Temporal worker for the workflows, their asks and their deliveries, and one for each other kind of
// activity.
type workers []worker.Worker

func newWorkers(connection client.Client, config Config, made *parts, ops *operations.Client, policy *tenancy.Policy, fail func(error)) workers {
	worker.SetStickyWorkflowCacheSize(config.Limits.CachedWorkflows)
	worker.SetBinaryChecksum(workflows.Build + "/" + version) // by which its histories say by which rules they were begun
	options := worker.Options{
		// As many asks and as many deliveries, and room for those that find no place and leave at once.
		MaxConcurrentActivityExecutionSize:     2*config.Limits.Activities + max(config.Limits.Activities/4, 8),
		MaxConcurrentWorkflowTaskExecutionSize: config.Limits.WorkflowTasks,
		WorkerStopTimeout:                      time.Duration(config.Drain),
		Interceptors:                           []interceptor.WorkerInterceptor{&statusInterceptor{ops: ops}},
		OnFatalError:                           fail,
	}
	if d := config.Deployment; d != nil {
		options.DeploymentOptions = worker.DeploymentOptions{
			UseVersioning:             true,
			Version:                   worker.WorkerDeploymentVersion{DeploymentName: d.Name, BuildID: d.BuildID},
			DefaultVersioningBehavior: workflow.VersioningBehaviorAutoUpgrade,
		}
		if d.Behavior == "pinned" {
			options.DeploymentOptions.DefaultVersioningBehavior = workflow.VersioningBehaviorPinned
		}
	}
	acts := &activities.Activities{
		Providers: made.providers,
		Targets:   made.targets,
		Backstop: activities.Backstop{
			First: time.Duration(config.Backstop.First),
			Max:   time.Duration(config.Backstop.Max),
		},
		Waiters: ops,
		Records: ops,
		Places:  activities.NewPlaces(config.Limits.Activities, func(tenant string) int { return policy.For(tenant).Limits.Asks }),
		Policy:  policy,
	}
	main := worker.New(connection, config.TaskQueue, options)
	workflows.Register(main)
	// All activities, since workflows that began on an older version have them on this task queue.
	main.RegisterActivity(acts)
	main.RegisterActivityWithOptions(ops.CallerStatus, activity.RegisterOptions{Name: operations.ActivityStatus})
	if config.Nexus != nil {
		main.RegisterNexusService(temporal.NewService(config.Nexus.Tenants.For(ops)))
	}
	all := workers{main}
	options.DisableWorkflowWorker = true
	for _, kind := range workflows.Queues() {
		options.MaxConcurrentActivityExecutionSize = config.Limits.Activities
		if kind == workflows.QueueWatches {
			options.MaxConcurrentActivityExecutionSize = len(made.providers) + 1 // a watch that another worker is configured for is sent on
		}
		w := worker.New(connection, workflows.Queue(config.TaskQueue, kind), options)
		w.RegisterActivity(acts)
		all = append(all, w)
	}
	return all
}

func (all workers) start() error {
	for i, w := range all {
		if err := w.Start(); err != nil {
			all[:i].stop()
			return fmt.Errorf("start the worker: %w", err)
		}
	}
	return nil
}

// stop lets all of them end what they have begun, at the same time.
func (all workers) stop() {
	var stopping sync.WaitGroup
	for _, w := range all {
		stopping.Go(w.Stop)
	}
	stopping.Wait()
}

// connectTargets makes the targets that need a connection to Temporal, and puts limits around all.
func (p *parts) connectTargets(own client.Client, namespace string, logger *slog.Logger) (func(), error) {
	var opened []client.Client
	closeAll := func() {
		for _, connection := range opened {
			connection.Close()
		}
	}
	var errs []error
	for name, entry := range p.temporal {
		connection := own
		if entry.connection != nil {
			options := entry.connection.options
			options.Logger = log.NewStructuredLogger(logger)
			// Lazily: a target that is down must not keep the worker from working.
			var err error
			if connection, err = client.NewLazyClient(options); err != nil {
				errs = append(errs, usageError{fmt.Errorf("connect target %s: %w", name, err)})
				continue
			}
			opened = append(opened, connection)
		}
		in := cmp.Or(entry.namespace, namespace)
		encrypted := p.forTarget(name, in, entry.connection == nil && in == namespace)
		p.targets[name] = temporal.NewTarget(connection.WorkflowService(), in).With(encrypted)
	}
	if err := errors.Join(errs...); err != nil {
		closeAll()
		return nil, err
	}
	for name, target := range p.targets {
		p.targets[name] = bridge.Guard(target, p.limits[name], func(spared bool) {
			if spared {
				logger.Warn("a target is out of order and is spared for a while", "target", name)
			} else {
				logger.Info("a target works again", "target", name)
			}
		})
	}
	return closeAll, nil
}

// pollActivities takes tasks of Step Functions until ctx ends; the function that it returns ends it too, and waits for
// the polls that are still open.
func (p *parts) pollActivities(ctx context.Context, config Config, ops bridge.Operations, logger *slog.Logger) func() {
	ctx, stop := context.WithCancel(ctx)
	var polling sync.WaitGroup
	for _, poller := range p.pollers {
		poller.Start, poller.MakeID, poller.Drain, poller.Log = ops.Start, ops.MakeID, time.Duration(config.Drain), logger
		polling.Go(func() { poller.Run(ctx) })
	}
	return func() {
		stop()
		polling.Wait()
	}
}

func newLogger(config LogConfig, stderr io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: config.Level}
	if config.Format == "json" {
		return slog.New(slog.NewJSONHandler(stderr, options))
	}
	return slog.New(slog.NewTextHandler(stderr, options))
}

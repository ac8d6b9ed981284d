package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"bellhop/activities"
	"bellhop/internal/own"
)

// WatchID is the id of the one workflow that watches a provider for the workers of a task queue.
func WatchID(taskQueue, provider string) string {
	if taskQueue == TaskQueue {
		return own.WatchPrefix + provider
	}
	return own.WatchPrefix + taskQueue + "/" + provider
}

// watchRun is how long one run of the watch lasts. It bounds the history; its end is no interruption worth noting.
const watchRun = 24 * time.Hour

// WatchProvider keeps one activity alive that watches a provider and wakes up the operations that wait for it. The
// activity holds on to one worker; when that dies, its heartbeats stop and the next worker takes over.
func WatchProvider(ctx workflow.Context, provider string) error {
	workflow.SetCurrentDetails(ctx, fmt.Sprintf("Watches `%s` and wakes up the operations that wait for it.", provider))
	_, err := perform(ctx, newSteps(ctx, secondRules(ctx)), step{
		name: "watch", kind: "watch", queue: QueueWatches, activity: acts.Watch, args: once(provider, watchRun),
		options: workflow.ActivityOptions{
			StartToCloseTimeout: watchRun + time.Hour,
			HeartbeatTimeout:    activities.HeartbeatTimeout,
			RetryPolicy: &temporal.RetryPolicy{
				// A run goes through many workers. Intervals that grew with the attempts would have the later ones waited for
				// longer; one whose watch fails says itself when it is to be begun anew.
				InitialInterval: 100 * time.Millisecond,
				MaximumInterval: 100 * time.Millisecond,
			},
			Summary: "watch " + provider,
		},
	}, func(nothing converter.RawValue) bool { return nothing.Payload() == nil })
	if err != nil {
		return err
	}
	return workflow.NewContinueAsNewError(ctx, WatchProvider, provider)
}

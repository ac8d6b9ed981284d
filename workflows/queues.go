package workflows

// Activities of some kinds run on task queues of their own, each with slots of its own at a worker. Asks and deliveries
// stay on the workflows' task queue, where Temporal hands an activity to the worker that scheduled it without a detour;
// activities.Places keeps the one kind from taking the other's slots. Each of these is the kind's name below the
// workflow's task queue: "bellhop/looks".
const (
	// QueueLooks has the calls that observe, and the reports of orphans.
	QueueLooks = "looks"
	// QueueHeartbeats has the heartbeats that callers are sent.
	QueueHeartbeats = "heartbeats"
	// QueueWatches has the watches of the providers.
	QueueWatches = "watches"
)

// Queues are the kinds of activities that have a task queue of their own.
func Queues() []string { return []string{QueueLooks, QueueHeartbeats, QueueWatches} }

// Queue is the task queue of one kind of activities of the workflows on a task queue.
func Queue(taskQueue, kind string) string { return taskQueue + "/" + kind }

package workflows

// Activities of different kinds run on task queues of their own, each with slots of its own at a worker: asks that take
// a quarter of an hour then delay no heartbeat, watch or delivery. Deliveries stay on the workflows' own task queue, where
// Temporal hands an activity to the worker that scheduled it without a detour. Each of these is the kind's name below the
// workflow's task queue: "bellhop/asks".
const (
	// QueueAsks has the calls that provision, update and delete.
	QueueAsks = "asks"
	// QueueLooks has the calls that observe, and the reports of orphans.
	QueueLooks = "looks"
	// QueueHeartbeats has the heartbeats that callers are sent.
	QueueHeartbeats = "heartbeats"
	// QueueWatches has the watches of the providers.
	QueueWatches = "watches"
)

// Queue is the task queue of one kind of activities of the workflows on a task queue.
func Queue(taskQueue, kind string) string { return taskQueue + "/" + kind }

// Package simulated is a provider that needs nothing but a file: the default to try bellhop with, and the platform
// that tests script. It keeps the law of [activities.Provider] as a real platform does, and it does what the
// operation's provider_config tells it to: take its time, lose answers, throttle, fail before, during or after.
//
//	{
//	  "tenant_id": "acme", "resource": "web", "provider": "simulated",
//	  "spec": {"image": "nginx:1.27", "replicas": 3},
//	  "provider_config": {
//	    "ready_after": "2s",
//	    "lose_answers": 1,
//	    "fail": {"code": "OUT_OF_MEMORY", "at": "wait", "after": "1500ms"}
//	  }
//	}
//
// is accepted, though the first answer is lost on its way; one of the three replicas is out of memory 1.5 s after the
// ask. What each field does is said at [Script]. Without a provider_config, what was asked for is ready at once.
//
// # Many workers, one platform
//
// All workers of a machine that are given the same [Config].Path share one platform, in one SQLite file. A worker that
// is killed at any point loses nothing and doubles nothing: each call is one transaction, and time is a matter of
// reading: the file says when something will be ready, not that it is. Nothing has to run for time to pass.
//
// # The file
//
// Times are nanoseconds since 1970 UTC on the machine's clock, and NULL is never.
//
//	resources   one row per tenant and resource: who touched it last
//	  tenant, resource   the key
//	  requested_at, operation_id   the generation that fences older operations off; it outlives a deletion by 8 days
//	  owner              who it belongs to when it is not bellhop
//	  deleted_at         when the last of it was gone
//
//	operations  one row per operation that was accepted
//	  id, verb, tenant, resource, requested_at   whose it is
//	  replicas, ports    what it brought into being
//	  beside             what stood when it was accepted and stands until it is done: [{"operation_id", "replicas"}]
//	  accepted_at        when it was accepted
//	  done_at            when it is ready (or, for a deletion, gone)
//	  failed_at, failure when it fails, and the failure as JSON
//	  superseded_at      when a newer operation took over
//	  removed_at         when its replicas are gone
//	  ended_at           when all was said about it; an hour later the row is dropped
//	  asks, effects      how often it was asked for, and how often that made something. Effects above 1 are a doubled effect.
//	  change             its place in the sequence of changes: what was changed later has a higher one
//
//	refusals    how many asks of an operation were throttled or turned away
//	sequence    the last change
package simulated

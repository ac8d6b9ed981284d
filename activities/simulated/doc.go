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
//	operations   one row per operation that was accepted
//	  change             its place in the sequence of changes: what was changed later has a higher one
//	  id, verb, tenant, resource, requested_at   whose it is
//	  replicas, ports    what it brought into being
//	  beside             what stood when it was accepted and stands until it is done: [{"operation_id", "replicas", "requested_at"}]
//	  accepted_at        when it was accepted
//	  done_at            when it is ready (or, for a deletion, gone)
//	  failed_at, failure when it fails, and the failure as JSON
//	  superseded_at      when a newer operation took over; of all on one resource, the one without touched it last
//	  removed_at         when its replicas are gone
//	  forget_at          when the row is dropped: an hour after it was superseded, 8 days after a deletion was done
//	  asks, effects      how often it was asked for, and how often that made something: more than once is a doubled effect
//
//	refusals     how many asks of an operation were throttled or turned away
//	strangers    the names that belong to somebody else
package simulated

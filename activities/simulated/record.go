package simulated

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"bellhop"
)

// record is an operation as the file holds it. Everything that depends on the time is a function of record and time.
// Times are nanoseconds since 1970; 0 is never.
type record struct {
	id               string
	verb             bellhop.Verb
	tenant, resource string
	requestedAt      int64
	replicas         int
	ports            []bellhop.Port
	beside           []replicaSet

	acceptedAt, doneAt, failedAt, supersededAt, removedAt int64

	failure *bellhop.Failure
	change  int64
}

// replicaSet is what one operation brought into being.
type replicaSet struct {
	OperationID string `json:"operation_id"`
	Replicas    int    `json:"replicas"`
	// RequestedAt is the operation's; 0 in a file of before there was an inventory.
	RequestedAt int64 `json:"requested_at,omitempty"`
}

func passed(at, now int64) bool { return at != 0 && now >= at }

func (r *record) phase(now int64) bellhop.Phase {
	switch {
	case passed(r.supersededAt, now):
		return bellhop.PhaseSuperseded
	case passed(r.failedAt, now):
		return bellhop.PhaseFailed
	case passed(r.doneAt, now) && r.verb == bellhop.Delete:
		return bellhop.PhaseGone
	case passed(r.doneAt, now):
		return bellhop.PhaseReady
	default:
		return bellhop.PhasePending
	}
}

// answered says whether the answer to the ask carried the end already, so that nobody waits for a report of it.
func (r *record) answered() bool {
	return r.doneAt != 0 && r.doneAt <= r.acceptedAt && r.failedAt == 0 && r.supersededAt == 0
}

// next is when the phase changes after now; 0 is never.
func (r *record) next(now int64) int64 {
	if r.supersededAt != 0 {
		return 0
	}
	if r.doneAt > now {
		return r.doneAt
	}
	if r.failedAt > now {
		return r.failedAt
	}
	return 0
}

// standing is what exists of the resource at now, if r is the last who touched it; else what is left of r itself.
func (r *record) standing(now int64) []replicaSet {
	var sets []replicaSet
	if r.replicas > 0 && !passed(r.removedAt, now) {
		sets = append(sets, replicaSet{r.id, r.replicas, r.requestedAt})
	}
	if r.supersededAt == 0 && !passed(r.doneAt, now) {
		sets = append(sets, r.beside...)
	}
	return sets
}

// serving is what of it a newer operation leaves standing until it is done itself. What never became ready serves
// nobody and goes at once; what was there before it has served on.
func (r *record) serving(now int64) []replicaSet {
	if !passed(r.doneAt, now) {
		return r.beside
	}
	if r.verb == bellhop.Delete {
		return nil
	}
	return []replicaSet{{r.id, r.replicas, r.requestedAt}}
}

// observe is what a provider sees of the operation at now.
func (r *record) observe(now int64) bellhop.Observation {
	seen := bellhop.Observation{
		OperationID: r.id,
		RequestedAt: asTime(r.requestedAt),
		Phase:       r.phase(now),
		ResourceIDs: resourceIDs(r.tenant, r.resource, r.standing(now)),
		Progress:    r.progress(now),
	}
	if seen.Phase == bellhop.PhaseFailed {
		seen.Failure = r.failure
	}
	if seen.Phase == bellhop.PhaseReady {
		for _, port := range r.ports {
			// Nothing listens there: the top-level domain "invalid" is reserved to resolve nowhere (RFC 6761).
			seen.Endpoints = append(seen.Endpoints, bellhop.Endpoint{
				Name: port.Name, Host: r.resource + "." + r.tenant + ".simulated.invalid", Port: port.ContainerPort,
			})
		}
	}
	return seen
}

// progress lets replicas become ready (or go) one after the other, evenly over the time that it takes.
func (r *record) progress(now int64) bellhop.Progress {
	count, end := r.replicas, r.doneAt
	if r.verb == bellhop.Delete {
		count = 0
		for _, set := range r.beside {
			count += set.Replicas
		}
	}
	if end == 0 {
		end = r.failedAt
	}
	finished := count
	if now < end {
		finished = int(int64(count) * (now - r.acceptedAt) / (end - r.acceptedAt))
	}
	if r.failedAt != 0 && (r.doneAt == 0 || passed(r.failedAt, now)) {
		finished = min(finished, max(count-1, 0)) // one of them is what failed
	}
	if r.verb == bellhop.Delete {
		return bellhop.Progress{Message: fmt.Sprintf("%d of %d replicas are left", count-finished, count), Ready: count - finished}
	}
	return bellhop.Progress{Message: fmt.Sprintf("%d of %d replicas are ready", finished, count), Ready: finished, Desired: count}
}

// resourceIDs derives the ids of replicas. They are short, so that the outcome of a thousand replicas beside a thousand
// old ones stays deliverable.
func resourceIDs(tenant, resource string, sets []replicaSet) bellhop.ResourceIDs {
	var ids []string
	for _, set := range sets {
		sum := sha256.Sum256([]byte(tenant + "/" + resource + "/" + set.OperationID))
		prefix := "sim-" + hex.EncodeToString(sum[:6]) + "-"
		for i := range set.Replicas {
			ids = append(ids, prefix+strconv.Itoa(i))
		}
	}
	return bellhop.ResourceIDs{SimulatedIDs: ids}
}

// asNanos is t in the file. A time that was never set is the oldest of all.
func asNanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func asTime(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}

// generationOf is the place of an operation among all on its resource.
func generationOf(requestedAt int64, id string) bellhop.Generation {
	return bellhop.Generation{RequestedAt: asTime(requestedAt), OperationID: id}
}

// asText is v as the JSON that a column holds; empty for what is empty.
func asText[T any](v []T) (string, error) {
	if len(v) == 0 {
		return "", nil
	}
	text, err := json.Marshal(v)
	return string(text), err
}

package simulated

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"

	"bellhop"
)

// answer is what an ask came to.
type answer struct {
	seen bellhop.Observation
	// refusal, an error of the provider, is answered instead.
	refusal error
	// changed says that a watcher has something to look at.
	changed bool
}

// apply is the heart of the platform: what an ask does to a resource, in one transaction.
func (s *store) apply(ctx context.Context, tx *sql.Tx, op bellhop.Operation, script Script, now int64) (answer, error) {
	var head head
	if err := head.scan(tx.StmtContext(ctx, s.headForWrite).QueryRowContext(ctx, op.TenantID, op.Resource)); err != nil {
		return answer{}, err
	}
	if head.id == op.ID && op.Verb == bellhop.Delete && head.verb != bellhop.Delete {
		return s.giveUp(ctx, tx, op, &head, now)
	}
	if head.id == op.ID {
		asks := 0
		err := tx.StmtContext(ctx, s.again).QueryRowContext(ctx, op.ID).Scan(&asks)
		return answer{seen: head.observe(op, now)}.losing(script, asks), err
	}
	if refusal, err := s.refusal(ctx, tx, op, script); refusal != nil || err != nil {
		return answer{refusal: refusal}, err
	}
	standing := head.standing(now)
	switch {
	case head.owner != "":
		return answer{seen: head.observe(op, now)}, nil
	case head.newerThan(op):
		older, err := recordOf(ctx, tx.StmtContext(ctx, s.findForWrite), op.ID)
		return answer{seen: superseded(op, older, now)}, err
	case op.Verb == bellhop.Update && len(standing) == 0:
		return answer{seen: failed(op, bellhop.Fail(bellhop.CodeResourceNotFound,
			"tenant %s has no resource %s to update", op.TenantID, op.Resource))}, nil
	case script.Fail != nil && script.Fail.At == AtAsk:
		seen := failed(op, script.Fail.failure())
		seen.ResourceIDs = resourceIDs(op.TenantID, op.Resource, standing)
		return answer{seen: seen}, nil
	}
	fresh, err := s.takeOver(ctx, tx, op, script, &head.record, now)
	if err != nil {
		return answer{}, err
	}
	return answer{seen: fresh.observe(now), changed: true}.losing(script, 1), nil
}

// giveUp removes what op brought into being before it was given up: its record is that of a deletion from now on, and
// no ask of it that is late brings anything back. It is gone at once, whatever the script says of the operation.
func (s *store) giveUp(ctx context.Context, tx *sql.Tx, op bellhop.Operation, head *head, now int64) (answer, error) {
	_, err := tx.ExecContext(ctx, `UPDATE operations SET verb = ?, replicas = 0, ports = NULL, beside = NULL, done_at = ?,
		failed_at = NULL, failure = NULL, removed_at = ?, forget_at = ? WHERE id = ?`,
		string(bellhop.Delete), now, now, now+int64(remembersDeleted), op.ID)
	head.record = record{
		id: op.ID, verb: bellhop.Delete, tenant: op.TenantID, resource: op.Resource, requestedAt: head.requestedAt,
		acceptedAt: head.acceptedAt, doneAt: now, removedAt: now,
	}
	return answer{seen: head.observe(op, now), changed: true}, err
}

// losing loses the answer to the first asks, if the script says so.
func (a answer) losing(script Script, asks int) answer {
	if asks <= script.LoseAnswers {
		a.refusal = bellhop.Fail(bellhop.CodeProviderUnavailable, "the answer was lost (scripted: %d of %d)", asks, script.LoseAnswers)
	}
	return a
}

// refusal refuses the first asks, or all of them, if the script says so.
func (s *store) refusal(ctx context.Context, tx *sql.Tx, op bellhop.Operation, script Script) (refusal, err error) {
	if fail := script.Fail; fail != nil && fail.At == AtAsk && fail.Code.Unavailable() {
		failure := fail.failure()
		failure.RetryAfter = time.Duration(script.RetryAfter)
		return failure, nil
	}
	limit := script.Throttle + script.Unavailable
	if limit == 0 {
		return nil, nil
	}
	refused := 0
	if err := tx.StmtContext(ctx, s.refuse).QueryRowContext(ctx, op.ID).Scan(&refused); err != nil {
		return nil, err
	}
	switch {
	case refused <= script.Throttle:
		failure := bellhop.Fail(bellhop.CodeProviderThrottled, "too many requests (scripted: %d of %d)", refused, script.Throttle)
		failure.RetryAfter = time.Duration(script.RetryAfter)
		return failure, nil
	case refused <= limit:
		return bellhop.Fail(bellhop.CodeProviderUnavailable, "the platform is out of order (scripted: %d of %d)",
			refused-script.Throttle, script.Unavailable), nil
	default:
		return nil, nil
	}
}

// takeOver makes op the one who touched the resource last, after old.
func (s *store) takeOver(ctx context.Context, tx *sql.Tx, op bellhop.Operation, script Script, old *record, now int64) (*record, error) {
	fresh := accept(op, script, old, now)
	if err := s.putDown(ctx, tx, fresh, old, now); err != nil {
		return nil, err
	}
	ports, err := asText(fresh.ports)
	if err != nil {
		return nil, err
	}
	beside, err := asText(fresh.beside)
	if err != nil {
		return nil, err
	}
	failure, err := failureText(fresh.failure)
	if err != nil {
		return nil, err
	}
	var forgetAt int64
	if fresh.verb == bellhop.Delete && fresh.doneAt != 0 {
		forgetAt = fresh.doneAt + int64(remembersDeleted)
	}
	result, err := tx.StmtContext(ctx, s.insert).ExecContext(ctx, fresh.id, string(fresh.verb), fresh.tenant, fresh.resource,
		fresh.requestedAt, fresh.replicas, ports, beside, fresh.acceptedAt, fresh.doneAt, fresh.failedAt, failure,
		fresh.removedAt, forgetAt)
	if err != nil {
		return nil, err
	}
	change, err := result.LastInsertId()
	if err != nil {
		return nil, err
	}
	if change%forgetEvery == 0 {
		err = forget(ctx, tx, now)
	}
	return fresh, err
}

// accept is op's record, after old.
func accept(op bellhop.Operation, script Script, old *record, now int64) *record {
	fresh := &record{
		id: op.ID, verb: op.Verb, tenant: op.TenantID, resource: op.Resource, requestedAt: asNanos(op.RequestedAt),
		acceptedAt: now,
	}
	fresh.doneAt, fresh.failedAt = script.times(now)
	if script.Fail != nil {
		fresh.failure = script.Fail.failure()
	}
	if op.Verb != bellhop.Delete {
		fresh.replicas, fresh.ports, fresh.beside = op.Spec.Replicas, op.Spec.Ports, old.serving(now)
		if fresh.failure != nil && fresh.failure.Code == bellhop.CodeRolledBack {
			fresh.removedAt = fresh.failedAt // what came into being went when it was rolled back
		}
		return fresh
	}
	fresh.beside = old.standing(now)
	if len(fresh.beside) == 0 {
		fresh.doneAt, fresh.failedAt, fresh.failure = now, 0, nil // what is absent is gone at once
	}
	return fresh
}

// putDown ends the operation that old is the record of. What stands beside fresh goes when fresh is done; what else is
// left of old goes now.
func (s *store) putDown(ctx context.Context, tx *sql.Tx, fresh, old *record, now int64) error {
	if old.id == "" {
		return nil
	}
	removedAt := now
	for _, set := range fresh.beside {
		if set.OperationID == old.id {
			removedAt = fresh.doneAt
			continue
		}
		if _, err := tx.StmtContext(ctx, s.remove).ExecContext(ctx, fresh.doneAt, set.OperationID); err != nil {
			return err
		}
	}
	if passed(old.removedAt, now) {
		removedAt = old.removedAt
	}
	_, err := tx.StmtContext(ctx, s.supersede).ExecContext(ctx, now, removedAt, now+int64(remembersEnded), old.id)
	return err
}

func failureText(failure *bellhop.Failure) (string, error) {
	if failure == nil {
		return "", nil
	}
	text, err := json.Marshal(failure)
	return string(text), err
}

// How long the file remembers. A superseded operation is told to watchers that start within the hour after; later the
// backstop has found it anyway. A deletion's generation outlives the longest operation, a week, so that none that is
// older brings back to life what it removed.
const (
	remembersEnded   = time.Hour
	remembersDeleted = 8 * 24 * time.Hour
	// forgetEvery is after how many changes it is looked for what can be dropped.
	forgetEvery = 512
)

// forget drops what nobody needs any more, in the transaction of whoever comes by: nothing has to run for it. The last
// change stays, so that no number in the sequence is used twice.
func forget(ctx context.Context, tx *sql.Tx, now int64) error {
	_, err := tx.ExecContext(ctx,
		`DELETE FROM operations WHERE forget_at < ? AND change < (SELECT max(change) FROM operations)`, now)
	return err
}

// observe is what is seen of op, than which nobody is newer.
func (h *head) observe(op bellhop.Operation, now int64) bellhop.Observation {
	standing := h.standing(now)
	seen := bellhop.Observation{
		OperationID: op.ID, RequestedAt: op.RequestedAt, Phase: bellhop.PhasePending,
		ResourceIDs: resourceIDs(op.TenantID, op.Resource, standing),
		Progress:    bellhop.Progress{Message: "nobody asked for it yet", Desired: op.Spec.Replicas},
	}
	switch {
	case h.owner != "":
		return failed(op, bellhop.Fail(bellhop.CodeResourceConflict, "tenant %s has a resource %s that belongs to %s",
			op.TenantID, op.Resource, h.owner))
	case h.id == op.ID:
		return h.record.observe(now)
	case op.Verb == bellhop.Delete && len(standing) == 0:
		seen.Phase, seen.Progress = bellhop.PhaseGone, bellhop.Progress{}
	}
	return seen
}

// superseded is what is seen of op, than which somebody is newer. Its record is empty when it never was accepted.
func superseded(op bellhop.Operation, older record, now int64) bellhop.Observation {
	return bellhop.Observation{
		OperationID: op.ID, RequestedAt: op.RequestedAt, Phase: bellhop.PhaseSuperseded,
		ResourceIDs: resourceIDs(op.TenantID, op.Resource, older.standing(now)),
	}
}

func failed(op bellhop.Operation, failure *bellhop.Failure) bellhop.Observation {
	return bellhop.Observation{OperationID: op.ID, RequestedAt: op.RequestedAt, Phase: bellhop.PhaseFailed, Failure: failure}
}

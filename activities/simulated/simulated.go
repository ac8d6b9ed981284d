package simulated

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"bellhop"
	"bellhop/activities"
)

// Config is a simulated provider's entry in the worker's configuration.
type Config struct {
	// Path is the file that holds the platform. Workers with the same file share it. It is made when it is not there,
	// with its folder. Required.
	Path string `json:"path"`
	// PollInterval is how often a watcher looks whether another process changed the file; each look costs about 10 µs
	// of CPU. Changes by the watcher's own process, and the passing of time, are seen without. Default "10ms".
	PollInterval bellhop.Duration `json:"poll_interval"`
}

// DefaultPollInterval is [Config].PollInterval's default.
const DefaultPollInterval = 10 * time.Millisecond

// Provider is a simulated platform. It is safe for use by many goroutines, and by many processes on the same file.
type Provider struct {
	store *store
	poll  time.Duration
	bell  bell
}

var _ activities.Provider = (*Provider)(nil)

// New opens the platform, and makes it when it is not there. Close it when nobody calls it any more.
func New(config Config) (*Provider, error) {
	var faults bellhop.Faults
	if config.Path == "" {
		faults.Add("path", "is required")
	}
	if config.PollInterval < 0 {
		faults.Add("poll_interval", "must not be negative")
	}
	if err := faults.Err(); err != nil {
		return nil, err
	}
	if config.PollInterval == 0 {
		config.PollInterval = bellhop.Duration(DefaultPollInterval)
	}
	store, err := openStore(context.Background(), config.Path)
	if err != nil {
		return nil, fmt.Errorf("open the simulated platform in %s: %w", config.Path, err)
	}
	return &Provider{store: store, poll: time.Duration(config.PollInterval)}, nil
}

// Close lets go of the file. What was asked for goes on.
func (p *Provider) Close() error { return p.store.close() }

// Check finds what is wrong with the operation's [Script].
func (p *Provider) Check(op bellhop.Operation) error {
	_, faults := parseScript(op)
	return faults.Err()
}

// Provision brings replicas into being, beside what serves until they are ready.
func (p *Provider) Provision(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	return p.ask(ctx, bellhop.Provision, op)
}

// Update is Provision where there is something to update.
func (p *Provider) Update(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	return p.ask(ctx, bellhop.Update, op)
}

// Delete removes what stands.
func (p *Provider) Delete(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	return p.ask(ctx, bellhop.Delete, op)
}

// Observe tells where the operation stands.
func (p *Provider) Observe(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	if err := ctx.Err(); err != nil {
		return bellhop.Observation{}, fmt.Errorf("observe: %w", err)
	}
	var head head
	if err := head.scan(p.store.head.QueryRowContext(ctx, op.TenantID, op.Resource)); err != nil {
		return bellhop.Observation{}, outOfOrder(ctx, "observe", err)
	}
	if !head.newerThan(op) {
		return head.observe(op, time.Now().UnixNano()), nil
	}
	// What is left of the older operation is known to its own record alone.
	older, err := p.store.record(ctx, op.ID)
	if err != nil {
		return bellhop.Observation{}, outOfOrder(ctx, "observe", err)
	}
	return superseded(op, older, time.Now().UnixNano()), nil
}

// ask applies op, as far as its script lets it.
func (p *Provider) ask(ctx context.Context, verb bellhop.Verb, op bellhop.Operation) (bellhop.Observation, error) {
	op.Verb = verb
	script, faults := parseScript(op)
	if err := faults.Err(); err != nil {
		return failed(op, bellhop.Fail(bellhop.CodeInvalidSpec, "%s", err)), nil
	}
	if err := ctx.Err(); err != nil {
		return bellhop.Observation{}, fmt.Errorf("%s: %w", verb, err)
	}
	var answer answer
	err := p.store.write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		var err error
		answer, err = p.store.apply(ctx, tx, op, script, time.Now().UnixNano())
		return err
	})
	if err != nil {
		return bellhop.Observation{}, outOfOrder(ctx, string(verb), err)
	}
	if answer.changed {
		p.bell.ring()
	}
	if script.AskTakes > 0 && answer.refusal == nil {
		select {
		case <-time.After(time.Duration(script.AskTakes)):
		case <-ctx.Done():
			return bellhop.Observation{}, fmt.Errorf("%s: %w", verb, ctx.Err())
		}
		return p.Observe(ctx, op)
	}
	if answer.refusal != nil {
		return bellhop.Observation{}, answer.refusal
	}
	return answer.seen, nil
}

// outOfOrder says that the file could not be used, or that nobody waits any more.
func outOfOrder(ctx context.Context, call string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", call, errors.Join(ctx.Err(), err))
	}
	return bellhop.Fail(bellhop.CodeProviderUnavailable, "%s: the simulated platform's file cannot be used", call).Because(err)
}

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
	if head.operationID == op.ID {
		return s.askAgain(ctx, tx, op, script, head, now)
	}
	if refusal, err := s.refused(ctx, tx, op, script); refusal != nil || err != nil {
		return answer{refusal: refusal}, err
	}
	standing := head.record.standing(now)
	switch {
	case head.owner != "":
		return answer{seen: head.observe(op, now)}, nil
	case head.newerThan(op):
		older, err := s.recordForWrite(ctx, tx, op.ID)
		return answer{seen: superseded(op, older, now)}, err
	case op.Verb == bellhop.Update && len(standing) == 0:
		return answer{seen: failed(op, bellhop.Fail(bellhop.CodeResourceNotFound,
			"tenant %s has no resource %s to update", op.TenantID, op.Resource))}, nil
	case script.Fail != nil && script.Fail.At == AtAsk:
		seen := failed(op, script.Fail.failure())
		seen.ResourceIDs = resourceIDs(op.TenantID, op.Resource, standing)
		return answer{seen: seen}, nil
	}
	fresh, err := s.takeOver(ctx, tx, op, script, head, now)
	return answer{seen: fresh.observe(now), changed: true}.losing(script, 1), err
}

// askAgain is an ask for what was applied before.
func (s *store) askAgain(ctx context.Context, tx *sql.Tx, op bellhop.Operation, script Script, head head, now int64) (answer, error) {
	asks := 0
	err := tx.StmtContext(ctx, s.askedAgain).QueryRowContext(ctx, op.ID).Scan(&asks)
	if err != nil && !errors.Is(err, sql.ErrNoRows) { // a deletion that is forgotten has no row
		return answer{}, err
	}
	return answer{seen: head.observe(op, now)}.losing(script, asks), nil
}

// losing loses the answer to the first asks, if the script says so.
func (a answer) losing(script Script, asks int) answer {
	if asks <= script.LoseAnswers {
		a.refusal = bellhop.Fail(bellhop.CodeProviderUnavailable, "the answer was lost (scripted: %d of %d)", asks, script.LoseAnswers)
	}
	return a
}

// refused refuses the first asks, if the script says so.
func (s *store) refused(ctx context.Context, tx *sql.Tx, op bellhop.Operation, script Script) (error, error) { //nolint:revive // the first is the answer
	if fail := script.Fail; fail != nil && fail.At == AtAsk &&
		(fail.Code == bellhop.CodeProviderUnavailable || fail.Code == bellhop.CodeProviderThrottled) {
		return fail.failure(), nil
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

// takeOver makes op the one who touched the resource last.
func (s *store) takeOver(ctx context.Context, tx *sql.Tx, op bellhop.Operation, script Script, head head, now int64) (*record, error) {
	fresh := &record{
		id: op.ID, verb: op.Verb, tenant: op.TenantID, resource: op.Resource, requestedAt: asNanos(op.RequestedAt),
		replicas: op.Spec.Replicas, ports: op.Spec.Ports, acceptedAt: now,
	}
	fresh.doneAt, fresh.failedAt = script.times(now)
	if script.Fail != nil {
		fresh.failure = script.Fail.failure()
		if fresh.failure.Code == bellhop.CodeRolledBack {
			fresh.removedAt = fresh.failedAt // what was brought into being went when it was rolled back
		}
	}
	var deletedAt, endedAt int64
	if op.Verb == bellhop.Delete {
		fresh.replicas, fresh.ports = 0, nil
		fresh.beside = head.record.standing(now)
		if len(fresh.beside) == 0 && fresh.failure == nil {
			fresh.doneAt = now // what is absent is gone at once
		}
		deletedAt, endedAt = fresh.doneAt, fresh.doneAt
	} else {
		fresh.beside = head.record.serving(now)
	}
	var change int64
	if err := tx.StmtContext(ctx, s.advance).QueryRowContext(ctx).Scan(&change); err != nil {
		return nil, err
	}
	fresh.change = change
	if err := s.putDown(ctx, tx, fresh, head.record, now); err != nil {
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
	failure := ""
	if fresh.failure != nil {
		text, err := json.Marshal(fresh.failure)
		if err != nil {
			return nil, err
		}
		failure = string(text)
	}
	_, err = tx.StmtContext(ctx, s.insert).ExecContext(ctx, fresh.id, string(fresh.verb), fresh.tenant, fresh.resource, fresh.requestedAt,
		fresh.replicas, ports, beside, fresh.acceptedAt, fresh.doneAt, fresh.failedAt, failure, fresh.removedAt, endedAt, change)
	if err != nil {
		return nil, err
	}
	_, err = tx.StmtContext(ctx, s.take).ExecContext(ctx, fresh.tenant, fresh.resource, fresh.requestedAt, fresh.id, deletedAt)
	if err != nil {
		return nil, err
	}
	return fresh, s.forget(ctx, tx, change, now)
}

// putDown ends the operation that old is the record of. What stands beside fresh goes when fresh is done; the rest goes
// now.
func (s *store) putDown(ctx context.Context, tx *sql.Tx, fresh *record, old record, now int64) error {
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
	_, err := tx.StmtContext(ctx, s.supersede).ExecContext(ctx, now, removedAt, fresh.change-1, old.id)
	return err
}

// observe is what is seen of op, than which nobody is newer.
func (h *head) observe(op bellhop.Operation, now int64) bellhop.Observation {
	standing := h.record.standing(now)
	seen := bellhop.Observation{
		OperationID: op.ID, RequestedAt: op.RequestedAt, Phase: bellhop.PhasePending,
		ResourceIDs: resourceIDs(op.TenantID, op.Resource, standing),
		Progress:    bellhop.Progress{Message: "nobody asked for it yet", Desired: op.Spec.Replicas},
	}
	switch {
	case h.owner != "":
		return failed(op, bellhop.Fail(bellhop.CodeResourceConflict, "tenant %s has a resource %s that belongs to %s",
			op.TenantID, op.Resource, h.owner))
	case h.operationID == op.ID && h.record.id == op.ID:
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

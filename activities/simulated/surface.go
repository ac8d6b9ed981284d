package simulated

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"bellhop"
)

// Resource is what stands under one name of a tenant.
type Resource struct {
	Tenant string `json:"tenant_id"`
	Name   string `json:"resource"`
	// Owner is who it belongs to when it is not bellhop. What follows is empty then.
	Owner string `json:"owner,omitempty"`
	// OperationID is who touched it last, and Phase where it stands with respect to that operation.
	OperationID string        `json:"operation_id,omitempty"`
	Phase       bellhop.Phase `json:"phase,omitempty"`
	// IDs are the replicas that stand, those of the latest operation first.
	IDs []string `json:"simulated_ids,omitempty"`
}

// Resources lists what stands for a tenant, or for all when tenant is empty. What is gone is not in it.
func (p *Provider) Resources(ctx context.Context, tenant string) ([]Resource, error) {
	rows, err := p.store.reads.QueryContext(ctx, `SELECT '', `+columns+` FROM operations o
			WHERE (o.tenant = ?1 OR ?1 = '') AND o.superseded_at IS NULL
		UNION ALL SELECT s.owner, '', '', s.tenant, s.resource, 0, 0, '', '', 0, 0, 0, 0, 0, '', 0 FROM strangers s
			WHERE s.tenant = ?1 OR ?1 = '' ORDER BY 4, 5`, tenant)
	if err != nil {
		return nil, fmt.Errorf("list resources: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err says it
	now := time.Now().UnixNano()
	var resources []Resource
	for rows.Next() {
		var h head
		if err := h.record.scan(rows, &h.owner); err != nil {
			return nil, fmt.Errorf("list resources: %w", err)
		}
		resource := Resource{Tenant: h.tenant, Name: h.resource, Owner: h.owner}
		if h.owner == "" {
			resource.OperationID, resource.Phase = h.id, h.phase(now)
			resource.IDs = resourceIDs(h.tenant, h.resource, h.standing(now)).SimulatedIDs
		}
		if h.owner != "" || len(resource.IDs) > 0 {
			resources = append(resources, resource)
		}
	}
	return resources, rows.Err()
}

// Inventory lists what stands, by the operation that brought it into being.
func (p *Provider) Inventory(ctx context.Context) ([]bellhop.Holding, error) {
	rows, err := p.store.reads.QueryContext(ctx, `SELECT `+columns+` FROM operations o
		WHERE o.superseded_at IS NULL ORDER BY o.tenant, o.resource`)
	if err != nil {
		return nil, fmt.Errorf("list what stands: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err says it
	now := time.Now().UnixNano()
	var holdings []bellhop.Holding
	for rows.Next() {
		var r record
		if err := r.scan(rows); err != nil {
			return nil, fmt.Errorf("list what stands: %w", err)
		}
		for _, set := range r.standing(now) {
			held := bellhop.Holding{
				TenantID: r.tenant, Resource: r.resource,
				OperationID: set.OperationID, RequestedAt: asTime(set.RequestedAt),
				ResourceIDs: resourceIDs(r.tenant, r.resource, []replicaSet{set}), Running: set.Replicas,
			}
			if set.OperationID == r.id {
				held.Running = r.progress(now).Ready
			}
			holdings = append(holdings, held)
		}
	}
	return holdings, rows.Err()
}

// Entry is an operation that was accepted.
type Entry struct {
	OperationID string        `json:"operation_id"`
	Verb        bellhop.Verb  `json:"operation_type"`
	Tenant      string        `json:"tenant_id"`
	Resource    string        `json:"resource"`
	Phase       bellhop.Phase `json:"phase"`
	AcceptedAt  time.Time     `json:"accepted_at"`
	// Asks counts how often it was asked for, and Effects how often that changed what stands: once, or something was
	// doubled.
	Asks    int `json:"asks"`
	Effects int `json:"effects"`
}

// Ledger lists the operations of a tenant that were accepted, or those of all tenants when tenant is empty, in the
// order in which they last changed. What ended more than an hour ago may be missing.
func (p *Provider) Ledger(ctx context.Context, tenant string) ([]Entry, error) {
	rows, err := p.store.reads.QueryContext(ctx, `SELECT o.asks, o.effects, `+columns+` FROM operations o
		WHERE o.tenant = ?1 OR ?1 = '' ORDER BY o.change`, tenant)
	if err != nil {
		return nil, fmt.Errorf("list operations: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err says it
	now := time.Now().UnixNano()
	var entries []Entry
	for rows.Next() {
		var entry Entry
		var r record
		if err := r.scan(rows, &entry.Asks, &entry.Effects); err != nil {
			return nil, fmt.Errorf("list operations: %w", err)
		}
		entry.OperationID, entry.Verb, entry.Tenant, entry.Resource = r.id, r.verb, r.tenant, r.resource
		entry.Phase, entry.AcceptedAt = r.phase(now), asTime(r.acceptedAt)
		entries = append(entries, entry)
	}
	return entries, rows.Err()
}

// Break makes what is ready fail with code, as if somebody had killed it. Watchers report it.
func (p *Provider) Break(ctx context.Context, tenant, resource string, code bellhop.Code) error {
	return p.meddle(ctx, "break", tenant, resource, func(ctx context.Context, tx *sql.Tx, head *head, now int64) error {
		if head.owner != "" || head.phase(now) != bellhop.PhaseReady {
			return errors.New("it is not ready")
		}
		text, err := failureText((&Failing{Code: code}).failure())
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE operations SET failed_at = ?, failure = ?,
			change = (SELECT max(change) + 1 FROM operations) WHERE id = ?`, now, text, head.id)
		return err
	})
}

// Occupy gives a name that is free to somebody else, so that operations on it meet a RESOURCE_CONFLICT.
func (p *Provider) Occupy(ctx context.Context, tenant, resource, owner string) error {
	return p.meddle(ctx, "occupy", tenant, resource, func(ctx context.Context, tx *sql.Tx, head *head, now int64) error {
		if head.owner != "" || len(head.standing(now)) > 0 {
			return errors.New("it is taken")
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO strangers VALUES (?, ?, ?)`, tenant, resource, owner)
		return err
	})
}

// Vacate takes back what Occupy gave away.
func (p *Provider) Vacate(ctx context.Context, tenant, resource string) error {
	return p.meddle(ctx, "vacate", tenant, resource, func(ctx context.Context, tx *sql.Tx, head *head, _ int64) error {
		if head.owner == "" {
			return errors.New("it is not occupied")
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM strangers WHERE tenant = ? AND resource = ?`, tenant, resource)
		return err
	})
}

// meddle changes a resource behind bellhop's back.
func (p *Provider) meddle(ctx context.Context, what, tenant, resource string,
	do func(ctx context.Context, tx *sql.Tx, head *head, now int64) error,
) error {
	err := p.store.write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		var head head
		if err := head.scan(tx.StmtContext(ctx, p.store.headForWrite).QueryRowContext(ctx, tenant, resource)); err != nil {
			return err
		}
		return do(ctx, tx, &head, time.Now().UnixNano())
	})
	if err != nil {
		return fmt.Errorf("%s %s/%s: %w", what, tenant, resource, err)
	}
	p.bell.ring()
	return nil
}

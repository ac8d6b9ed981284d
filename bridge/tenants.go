package bridge

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"bellhop"
)

// Tenants are those that a target or a way in is for; none stands for all.
type Tenants []string

// Include says whether a tenant is one of them.
func (t Tenants) Include(tenant string) bool { return len(t) == 0 || slices.Contains(t, tenant) }

// Check says which of the names can be none, as [bellhop.Faults].
func (t Tenants) Check() error {
	var faults bellhop.Faults
	for i, tenant := range t {
		faults.Note(fmt.Sprintf("[%d]", i), bellhop.CheckName(tenant))
	}
	return faults.Err()
}

// For is ops as a way in sees it that is for these tenants only. An operation for another one is at fault, and another
// one's operation is [bellhop.ErrNotFound], as one that does not exist is.
func (t Tenants) For(ops Compute) Compute {
	if len(t) == 0 {
		return ops
	}
	return &some{ops, t}
}

type some struct {
	ops     Compute
	tenants Tenants
}

func (s *some) Start(ctx context.Context, id string, verb bellhop.Verb, input []byte) (bool, error) {
	op, err := bellhop.ParseOperation(id, verb, time.Time{}, input)
	if s.tenants.Include(op.TenantID) {
		return s.ops.Start(ctx, id, verb, input) // which finds what is wrong for the tenant as well
	}
	if err == nil {
		err = bellhop.Faults{{Path: "tenant_id", Problem: "must be one that may be acted for from here: " + strings.Join(s.tenants, ", ")}}
	}
	return false, err
}

func (s *some) MakeID(tenant, derived string) string { return s.ops.MakeID(tenant, derived) }

func (s *some) Status(ctx context.Context, id string) (bellhop.Report, error) {
	report, err := s.ops.Status(ctx, id)
	if err == nil && !s.tenants.Include(report.TenantID) {
		return bellhop.Report{}, fmt.Errorf("find operation %s: %w", id, bellhop.ErrNotFound)
	}
	return report, err
}

func (s *some) Refresh(ctx context.Context, id string) (bellhop.Report, error) {
	if _, err := s.Status(ctx, id); err != nil {
		return bellhop.Report{}, err
	}
	return s.ops.Refresh(ctx, id)
}

func (s *some) Cancel(ctx context.Context, id string) error {
	if _, err := s.Status(ctx, id); err != nil {
		return err
	}
	return s.ops.Cancel(ctx, id)
}

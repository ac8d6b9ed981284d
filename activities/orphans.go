package activities

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"bellhop"
)

// Records are the operations that Temporal remembers.
type Records interface {
	// Find finds operations, by id. What is missing from the answer is not known to Temporal.
	Find(ctx context.Context, sought []bellhop.Generation) (map[string]bellhop.Item, error)
	// List lists operations, the newest first, and answers the token that asks for the next page. It may lag behind by a
	// second or two.
	List(ctx context.Context, filter bellhop.Filter, limit int, page []byte) ([]bellhop.Item, []byte, error)
}

// ErrorNotConfigured is the type of the error that says that a worker has no such provider.
const ErrorNotConfigured = "NOT_CONFIGURED"

const (
	// maxReport is how large a report of orphans grows, as JSON. Temporal takes 2 MB; the rest is for the next report.
	maxReport = 1 << 20
	// sameStart is how far the time in a label may be from that which Temporal tells of the same operation.
	sameStart = time.Minute
	// allPages is how many operations a page of a list has.
	allPages = 1000
)

// ReportOrphans compares what stands at a provider, or at all when it is empty, with what Temporal knows of the operations
// that it belongs to. What it may be wrong about is never called an orphan.
func (a *Activities) ReportOrphans(ctx context.Context, provider string) (bellhop.OrphanReport, error) {
	ctx, stop := beat(ctx, asTold)
	defer stop()
	asked := slices.Sorted(maps.Keys(a.Providers))
	if provider != "" {
		if a.Providers[provider] == nil {
			return bellhop.OrphanReport{}, notHere(fmt.Sprintf("%q is not configured; configured are %s", provider, names(a.Providers, all)))
		}
		asked = []string{provider}
	}
	report := bellhop.OrphanReport{Orphans: []bellhop.Orphan{}, Unknown: []bellhop.Orphan{}, Looked: map[string]int{}}
	size := 0
	for _, name := range asked {
		// First what stands, then whose it is: an operation that begins in between is found by its own name.
		held, err := a.inventory(ctx, name)
		if ctx.Err() != nil {
			return report, ctx.Err()
		}
		if err != nil {
			if report.Unasked == nil {
				report.Unasked = map[string]string{}
			}
			report.Unasked[name] = err.Error()
			continue
		}
		report.Looked[name] = len(held)
		orphans, err := a.judge(ctx, name, held)
		if err != nil {
			return report, err
		}
		for _, orphan := range orphans {
			text, err := json.Marshal(orphan)
			if err != nil {
				return report, fmt.Errorf("encode orphan: %w", err)
			}
			switch size += len(text); {
			case size > maxReport:
				report.Omitted++
			case orphan.State == "":
				report.Unknown = append(report.Unknown, orphan)
			default:
				report.Orphans = append(report.Orphans, orphan)
			}
		}
	}
	return report, nil
}

// inventory asks one provider; a panic of it is an error.
func (a *Activities) inventory(ctx context.Context, name string) (held []bellhop.Holding, err error) {
	_, err = guarded(ctx, nil, func() (bellhop.Observation, error) {
		held, err = a.Providers[name].Inventory(ctx)
		return bellhop.Observation{}, err
	})
	return held, err
}

// place is a resource of a tenant.
type place struct{ tenant, resource string }

// judge says what of that which stands at a provider is nobody's.
func (a *Activities) judge(ctx context.Context, provider string, held []bellhop.Holding) ([]bellhop.Orphan, error) {
	if len(held) == 0 {
		return nil, nil
	}
	sought := make([]bellhop.Generation, len(held))
	at := map[place][]bellhop.Holding{}
	for i, h := range held {
		sought[i] = h.Generation()
		where := place{h.TenantID, h.Resource}
		at[where] = append(at[where], h)
	}
	known, err := a.Records.Find(ctx, sought)
	if err != nil {
		return nil, fmt.Errorf("find the operations of what stands: %w", err)
	}
	busy, err := a.busy(ctx)
	if err != nil {
		return nil, err
	}
	var orphans []bellhop.Orphan
	for where, holdings := range at {
		found, err := a.judgePlace(ctx, provider, where, holdings, known, busy)
		if err != nil {
			return nil, err
		}
		orphans = append(orphans, found...)
	}
	slices.SortFunc(orphans, func(a, b bellhop.Orphan) int {
		return cmp.Or(cmp.Compare(a.TenantID, b.TenantID), cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.OperationID, b.OperationID))
	})
	return orphans, nil
}

// busy are the resources that an operation is at work on. It will replace or remove what it finds, or say why not.
func (a *Activities) busy(ctx context.Context) (map[place]bool, error) {
	busy := map[place]bool{}
	var page []byte
	for {
		items, next, err := a.Records.List(ctx, bellhop.Filter{Open: true}, allPages, page)
		if err != nil {
			return nil, fmt.Errorf("list what is under way: %w", err)
		}
		for _, item := range items {
			if !item.State.Terminal() { // else only its callers are still being rung
				busy[place{item.TenantID, item.Resource}] = true
			}
		}
		if page = next; len(page) == 0 {
			return busy, nil
		}
	}
}

// judgePlace judges what stands of one resource.
func (a *Activities) judgePlace(ctx context.Context, provider string, where place, holdings []bellhop.Holding,
	known map[string]bellhop.Item, busy map[place]bool,
) ([]bellhop.Orphan, error) {
	if busy[where] {
		return nil, nil
	}
	var orphans []bellhop.Orphan
	beside := ""
	for _, h := range holdings {
		item, ok := known[h.OperationID]
		_, configured := a.Providers[item.Provider]
		if ok && !sameOperation(h, item) {
			item, ok = bellhop.Item{}, false // another bellhop's, which happens to have the same id
		}
		switch {
		case ok && !item.State.Terminal():
			return nil, nil // too young for the list of those under way
		case ok && item.State == bellhop.Succeeded && item.OperationType != bellhop.Delete:
			beside = h.OperationID
		case ok && item.Provider != provider && configured:
			// Another entry for the same platform; it is found there.
		default:
			orphans = append(orphans, bellhop.Orphan{
				Holding: h, Provider: provider, OperationType: item.OperationType, State: item.State,
			})
		}
	}
	if len(orphans) == 0 {
		return nil, nil
	}
	if beside != "" {
		for i := range orphans {
			orphans[i].Beside = beside
		}
		return orphans, nil
	}
	last, err := a.lastSuccess(ctx, provider, where)
	if err != nil {
		return nil, err
	}
	for i := range orphans {
		orphan := &orphans[i]
		switch {
		case last.OperationID == "" && orphan.OperationType == bellhop.Update:
			// It found something to update. That is forgotten, and may be what serves.
			orphan.OperationType, orphan.State = "", ""
		case orphan.OperationType != bellhop.Delete && last.OperationType != bellhop.Delete:
			orphan.Beside = last.OperationID
		}
	}
	return orphans, nil
}

// sameOperation says whether an operation that Temporal knows is the one in the labels of what stands.
func sameOperation(h bellhop.Holding, item bellhop.Item) bool {
	return item.TenantID == h.TenantID && item.Resource == h.Resource &&
		(h.RequestedAt.IsZero() || h.RequestedAt.Sub(item.RequestedAt).Abs() < sameStart)
}

// lastSuccess is the newest operation that succeeded on a resource, as far as Temporal knows; its zero value when none did.
// At some platforms what it brought into being goes on serving under the name of an operation that failed to replace it.
func (a *Activities) lastSuccess(ctx context.Context, provider string, where place) (bellhop.Item, error) {
	filter := bellhop.Filter{Tenant: where.tenant, Resource: where.resource, Provider: provider, State: bellhop.Succeeded}
	items, _, err := a.Records.List(ctx, filter, 100, nil)
	if err != nil {
		return bellhop.Item{}, fmt.Errorf("list what succeeded on %s/%s: %w", where.tenant, where.resource, err)
	}
	var last bellhop.Item
	for _, item := range items {
		if item.RequestedAt.After(last.RequestedAt) {
			last = item
		}
	}
	return last, nil
}

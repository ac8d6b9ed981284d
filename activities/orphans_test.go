package activities_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/temporal"

	"bellhop"
	"bellhop/activities"
)

// stocked is a platform of which only the inventory matters.
type stocked struct {
	activities.Provider
	inventory func() ([]bellhop.Holding, error)
}

func (s stocked) Inventory(context.Context) ([]bellhop.Holding, error) { return s.inventory() }

// records are what Temporal knows, in a list. Those that are hidden are too young for it.
type records struct {
	items  []bellhop.Item
	hidden map[string]bool
}

func (r records) Find(_ context.Context, sought []bellhop.Generation) (map[string]bellhop.Item, error) {
	found := map[string]bellhop.Item{}
	for _, item := range r.items {
		if slices.ContainsFunc(sought, func(g bellhop.Generation) bool { return g.OperationID == item.OperationID }) {
			found[item.OperationID] = item
		}
	}
	return found, nil
}

func (r records) List(_ context.Context, filter bellhop.Filter, _ int, _ []byte) ([]bellhop.Item, []byte, error) {
	return slices.DeleteFunc(slices.Clone(r.items), func(item bellhop.Item) bool {
		return r.hidden[item.OperationID] || filter.Open && !item.ClosedAt.IsZero() ||
			filter.State != "" && item.State != filter.State ||
			filter.Resource != "" && item.Resource != filter.Resource || filter.Provider != "" && item.Provider != filter.Provider
	}), nil, nil
}

// start is when the operations of the tests began; each that is named after it is a minute younger.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func holding(id string, minutes int) bellhop.Holding {
	return bellhop.Holding{
		TenantID: "acme", Resource: "web", OperationID: id, RequestedAt: start.Add(time.Duration(minutes) * time.Minute),
		ResourceIDs: bellhop.ResourceIDs{ContainerIDs: []string{id + "-1"}}, Running: 1,
	}
}

func item(id string, minutes int, verb bellhop.Verb, state bellhop.State) bellhop.Item {
	known := bellhop.Item{
		OperationID: id, OperationType: verb, TenantID: "acme", Resource: "web", Provider: "here", State: state,
		RequestedAt: start.Add(time.Duration(minutes) * time.Minute),
	}
	if state.Terminal() {
		known.ClosedAt = known.RequestedAt.Add(time.Minute)
	}
	return known
}

func TestWhatIsAnOrphan(t *testing.T) {
	const provision, update, remove = bellhop.Provision, bellhop.Update, bellhop.Delete
	ringing := item("a", 0, provision, bellhop.Failed)
	ringing.ClosedAt = time.Time{}
	elsewhere := item("a", 0, provision, bellhop.Failed)
	elsewhere.Provider = "there"
	namesake := item("a", 0, provision, bellhop.Failed)
	namesake.TenantID = "other"
	for _, row := range []struct {
		reason           string
		held             []bellhop.Holding
		known            []bellhop.Item
		hidden           string
		orphans, unknown []string // with what they are beside of
	}{
		{"what succeeded is somebody's", []bellhop.Holding{holding("a", 0)}, []bellhop.Item{item("a", 0, provision, bellhop.Succeeded)}, "", nil, nil},
		{"what failed is nobody's", []bellhop.Holding{holding("a", 0)}, []bellhop.Item{item("a", 0, provision, bellhop.Failed)}, "", []string{"a"}, nil},
		{"nor is what was cancelled", []bellhop.Holding{holding("a", 0)}, []bellhop.Item{item("a", 0, provision, bellhop.Cancelled)}, "", []string{"a"}, nil},
		{"what failed and still rings its callers has failed", []bellhop.Holding{holding("a", 0)}, []bellhop.Item{ringing}, "", []string{"a"}, nil},
		{"what is under way is not judged", []bellhop.Holding{holding("a", 0)}, []bellhop.Item{item("a", 0, provision, bellhop.Running)}, "", nil, nil},
		{
			"nor what is too young for the list",
			[]bellhop.Holding{holding("a", 0)},
			[]bellhop.Item{item("a", 0, provision, bellhop.Pending)},
			"a", nil, nil,
		},
		{
			"an update under way takes over what failed before it",
			[]bellhop.Holding{holding("a", 0), holding("b", 1)},
			[]bellhop.Item{item("a", 0, provision, bellhop.Failed), item("b", 1, update, bellhop.Running)},
			"", nil, nil,
		},
		{
			"so does one that nothing stands of yet",
			[]bellhop.Holding{holding("a", 0)},
			[]bellhop.Item{item("a", 0, provision, bellhop.Failed), item("b", 1, update, bellhop.Pending)},
			"", nil, nil,
		},
		{"what Temporal forgot may serve", []bellhop.Holding{holding("a", 0)}, nil, "", nil, []string{"a"}},
		{
			"another bellhop's operation may have the same id",
			[]bellhop.Holding{holding("a", 0)},
			[]bellhop.Item{item("a", 90, provision, bellhop.Failed)},
			"", nil,
			[]string{"a"},
		},
		{"or be another tenant's", []bellhop.Holding{holding("a", 0)}, []bellhop.Item{namesake}, "", nil, []string{"a"}},
		{"another entry for the same platform reports its own", []bellhop.Holding{holding("a", 0)}, []bellhop.Item{elsewhere}, "", nil, nil},
		{
			"what serves keeps a deletion away",
			[]bellhop.Holding{holding("a", 0), holding("b", 1)},
			[]bellhop.Item{item("a", 0, provision, bellhop.Succeeded), item("b", 1, update, bellhop.Failed)},
			"",
			[]string{"b beside a"},
			nil,
		},
		{
			"also where the platform lists it under the name of what failed to replace it",
			[]bellhop.Holding{holding("b", 1)},
			[]bellhop.Item{item("a", 0, provision, bellhop.Succeeded), item("b", 1, provision, bellhop.Failed)},
			"",
			[]string{"b beside a"},
			nil,
		},
		{
			"a failed update had something to update, which may be forgotten and serve",
			[]bellhop.Holding{holding("b", 1)},
			[]bellhop.Item{item("b", 1, update, bellhop.Failed)},
			"", nil,
			[]string{"b"},
		},
		{
			"what was deleted serves no more",
			[]bellhop.Holding{holding("c", 2)},
			[]bellhop.Item{
				item("a", 0, provision, bellhop.Succeeded), item("b", 1, remove, bellhop.Succeeded), item("c", 2, provision, bellhop.Failed),
			},
			"",
			[]string{"c"},
			nil,
		},
		{
			"what a deletion did not remove was to go",
			[]bellhop.Holding{holding("b", 1)},
			[]bellhop.Item{item("a", 0, provision, bellhop.Succeeded), item("b", 1, remove, bellhop.Failed)},
			"",
			[]string{"b"},
			nil,
		},
		{
			"nor is a deletion that succeeded an owner",
			[]bellhop.Holding{holding("b", 1)},
			[]bellhop.Item{item("b", 1, remove, bellhop.Succeeded)},
			"",
			[]string{"b"},
			nil,
		},
		{
			"what failed beside what is forgotten is told apart from it",
			[]bellhop.Holding{holding("a", 0), holding("b", 1)},
			[]bellhop.Item{item("b", 1, provision, bellhop.Failed)},
			"",
			[]string{"b"},
			[]string{"a"},
		},
	} {
		report := orphansOf(t, "here", records{row.known, map[string]bool{row.hidden: true}}, map[string]activities.Provider{
			"here":  stocked{inventory: func() ([]bellhop.Holding, error) { return row.held, nil }},
			"there": nil, "unasked": nil,
		})
		for what, lists := range map[string][2][]string{
			"orphans": {idsOf(report.Orphans), row.orphans}, "unknown": {idsOf(report.Unknown), row.unknown},
		} {
			if diff := cmp.Diff(lists[1], lists[0]); diff != "" {
				t.Errorf("%s: %s: %s", row.reason, what, diff)
			}
		}
	}
}

func idsOf(orphans []bellhop.Orphan) []string {
	var ids []string
	for _, orphan := range orphans {
		id := orphan.OperationID
		if orphan.Beside != "" {
			id += " beside " + orphan.Beside
		}
		ids = append(ids, id)
	}
	return ids
}

func orphansOf(t *testing.T, provider string, known records, providers map[string]activities.Provider) bellhop.OrphanReport {
	t.Helper()
	env := newSuite().NewTestActivityEnvironment()
	acts := &activities.Activities{Providers: providers, Records: known}
	env.RegisterActivity(acts)
	answer, err := env.ExecuteActivity(acts.ReportOrphans, provider)
	if err != nil {
		t.Fatal(err)
	}
	var report bellhop.OrphanReport
	if err := answer.Get(&report); err != nil {
		t.Fatal(err)
	}
	return report
}

func TestOneProviderThatIsDownHidesNoOther(t *testing.T) {
	report := orphansOf(t, "", records{items: []bellhop.Item{item("a", 0, bellhop.Provision, bellhop.Failed)}}, map[string]activities.Provider{
		"down":   stocked{inventory: func() ([]bellhop.Holding, error) { return nil, errors.New("nobody answers") }},
		"broken": stocked{inventory: func() ([]bellhop.Holding, error) { panic("oh") }},
		"here":   stocked{inventory: func() ([]bellhop.Holding, error) { return []bellhop.Holding{holding("a", 0)}, nil }},
	})
	if len(report.Orphans) != 1 || report.Unasked["down"] != "nobody answers" || !strings.Contains(report.Unasked["broken"], "panicked") {
		t.Errorf("got %+v", report)
	}
}

func TestAReportHasALimit(t *testing.T) {
	var held []bellhop.Holding
	for i := range 300 {
		h := holding(strings.Repeat("x", i+1), 0)
		h.ResourceIDs.ContainerIDs = slices.Repeat([]string{strings.Repeat("c", 64)}, 100)
		held = append(held, h)
	}
	report := orphansOf(t, "here", records{}, map[string]activities.Provider{
		"here": stocked{inventory: func() ([]bellhop.Holding, error) { return held, nil }},
	})
	if n := len(report.Unknown); n == 0 || n+report.Omitted != len(held) || report.Looked["here"] != len(held) {
		t.Errorf("%d are told, %d left out, of %d", n, report.Omitted, report.Looked["here"])
	}
}

func TestOrphansAtAProviderThatIsNotConfigured(t *testing.T) {
	env := newSuite().NewTestActivityEnvironment()
	acts := &activities.Activities{Providers: map[string]activities.Provider{"here": nil}}
	env.RegisterActivity(acts)
	_, err := env.ExecuteActivity(acts.ReportOrphans, "nowhere")
	failure, ok := errors.AsType[*temporal.ApplicationError](err)
	if !ok || failure.Type() != activities.ErrorNotConfigured || failure.Message() != `"nowhere" is not configured; configured are here` {
		t.Errorf("got %v", err)
	}
}

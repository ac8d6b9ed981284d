package bellhop_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"bellhop"
)

// many are the ids and endpoints of an operation with a lot of replicas.
func many(replicas, ports int) (bellhop.ResourceIDs, []bellhop.Endpoint) {
	ids := bellhop.ResourceIDs{Namespace: "bellhop-acme", Deployment: "orders"}
	var endpoints []bellhop.Endpoint
	for i := range replicas {
		ids.ContainerIDs = append(ids.ContainerIDs, fmt.Sprintf("%064d", i))
		ids.ContainerNames = append(ids.ContainerNames, fmt.Sprintf("%0200d", i))
		for port := range ports {
			endpoints = append(endpoints, bellhop.Endpoint{Name: fmt.Sprintf("tcp-%d", port), Host: "replica.example.com", Port: i})
		}
	}
	return ids, endpoints
}

func sizeOf(t *testing.T, v any) int {
	t.Helper()
	text, err := json.Marshal(v)
	require.NoError(t, err)
	return len(text)
}

func TestBoundOutcome_FitsWhateverItHolds(t *testing.T) {
	evil := strings.Repeat("\x01<&", 1000)
	for _, tc := range []struct {
		reason    string
		replicas  int
		ports     int
		failure   *bellhop.Failure
		metadata  map[string]string
		truncated []string // what must be named
		whole     bool     // the failure is kept as it is
	}{
		{reason: "a usual one is left as it is", replicas: 3, ports: 2, whole: true},
		{
			reason: "lists are shortened", replicas: 1000, ports: 64,
			truncated: []string{"endpoints", "resource_ids.container_ids", "resource_ids.container_names"}, whole: true,
		},
		{
			reason: "a failure is kept beside long lists", replicas: 1000, ports: 64,
			failure:   bellhop.Fail(bellhop.CodeContainerExited, "it exited").With("logs", strings.Repeat("a line\n", 500)),
			truncated: []string{"endpoints", "resource_ids.container_ids", "resource_ids.container_names"}, whole: true,
		},
		{
			reason:   "texts that JSON makes six times as long",
			replicas: 1000, ports: 64,
			failure: bellhop.Fail(bellhop.CodeContainerExited, "%s", evil).With("logs", strings.Repeat(evil, 40)).
				With("stderr", strings.Repeat(evil, 40)).Because(fmt.Errorf("%s", strings.Repeat(evil, 3))),
			metadata:  map[string]string{"evil": strings.Repeat(evil, 5)},
			truncated: []string{"endpoints", "resource_ids.container_ids"},
		},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			ids, endpoints := many(tc.replicas, tc.ports)
			given := bellhop.Outcome{
				SchemaVersion: 1, CallbackID: "op-1/failed", OperationID: "op-1", TenantID: "acme", State: bellhop.Failed,
				ResourceIDs: ids, Endpoints: endpoints, Error: tc.failure, Metadata: tc.metadata,
			}
			before := sizeOf(t, given)
			bounded, encoded, err := bellhop.BoundOutcome(given)
			require.NoError(t, err)
			require.LessOrEqual(t, len(encoded), bellhop.MaxOutcomeBytes)
			var decoded bellhop.Outcome
			require.NoError(t, json.Unmarshal(encoded, &decoded))
			if diff := cmp.Diff(bounded, decoded); diff != "" {
				t.Errorf("what is sent is not what is kept (-kept +sent):\n%s", diff)
			}
			require.Equal(t, []string{"bellhop-acme", "orders"}, []string{bounded.ResourceIDs.Namespace, bounded.ResourceIDs.Deployment})
			require.NotEmpty(t, bounded.ResourceIDs.ContainerIDs)
			for _, name := range tc.truncated {
				require.Contains(t, bounded.Truncated, name)
			}
			if len(tc.truncated) == 0 {
				require.Nil(t, bounded.Truncated)
			} else {
				require.Equal(t, tc.replicas, bounded.Truncated["resource_ids.container_ids"])
				require.Equal(t, tc.replicas*tc.ports, bounded.Truncated["endpoints"])
				require.Greater(t, len(encoded), bellhop.MaxOutcomeBytes/2, "more was cut than necessary")
			}
			if tc.whole && cmp.Diff(tc.failure, bounded.Error) != "" {
				t.Error("the failure was cut although the lists were too long")
			}
			require.Equal(t, before, sizeOf(t, given), "what was given has changed")
			again, text, err := bellhop.BoundOutcome(given)
			require.NoError(t, err)
			require.Equal(t, string(encoded), string(text), "cut twice, it is cut in two ways")
			require.Equal(t, bounded, again)
		})
	}
}

func TestCutOutcome_KeepsSingleIDs(t *testing.T) {
	ids, endpoints := many(300, 4)
	encoded, err := json.Marshal(bellhop.Outcome{
		OperationID: "op-1", State: bellhop.Failed, ResourceIDs: ids, Endpoints: endpoints,
		Error:    bellhop.Fail(bellhop.CodeTimeout, "too late").With("logs", strings.Repeat("x", 4000)),
		Metadata: map[string]string{"a": strings.Repeat("b", 4000), "c": "d"},
	})
	require.NoError(t, err)
	for limit, want := range map[int]map[string]int{
		32 << 10: {"endpoints": 1200, "resource_ids.container_ids": 300, "resource_ids.container_names": 300},
		2 << 10:  {"endpoints": 1200, "resource_ids.container_ids": 300, "resource_ids.container_names": 300, "metadata": 2},
	} {
		text, err := bellhop.CutOutcome(encoded, limit)
		require.NoError(t, err)
		require.LessOrEqual(t, len(text), limit)
		var cut bellhop.Outcome
		require.NoError(t, json.Unmarshal(text, &cut))
		require.Equal(t, "orders", cut.ResourceIDs.Deployment)
		require.Equal(t, bellhop.CodeTimeout, cut.Error.Code)
		if diff := cmp.Diff(want, cut.Truncated); diff != "" {
			t.Errorf("cut to %d bytes (-want +got):\n%s", limit, diff)
		}
	}
	_, err = bellhop.CutOutcome(encoded, 100)
	require.Error(t, err)
}

func TestBoundObservation_ShortensLists(t *testing.T) {
	ids, endpoints := many(1000, 64)
	given := bellhop.Observation{
		OperationID: "op-1", Phase: bellhop.PhaseFailed, ResourceIDs: ids, Endpoints: endpoints,
		Failure: bellhop.Fail(bellhop.CodeOutOfMemory, "killed").With("logs", strings.Repeat("y", 4000)).Clean(nil),
	}
	bounded := bellhop.BoundObservation(given, bellhop.MaxObservationBytes)
	require.LessOrEqual(t, sizeOf(t, bounded), bellhop.MaxObservationBytes)
	require.Greater(t, sizeOf(t, bounded), bellhop.MaxObservationBytes*3/4)
	require.Equal(t, given.Failure, bounded.Failure)
	want := map[string]int{"endpoints": 64_000, "resource_ids.container_ids": 1000, "resource_ids.container_names": 1000}
	require.Equal(t, want, bounded.Truncated)
	require.Equal(t, bounded, bellhop.BoundObservation(bounded, bellhop.MaxObservationBytes))

	few, some := many(3, 2)
	small := bellhop.Observation{OperationID: "op-1", Phase: bellhop.PhaseReady, ResourceIDs: few, Endpoints: some}
	require.Equal(t, small, bellhop.BoundObservation(small, bellhop.MaxObservationBytes))
}

// An operation of the largest size that is accepted is cut fast enough for workflow code.
func TestBoundOutcome_IsFast(t *testing.T) {
	ids, endpoints := many(1000, 1)
	given := bellhop.Outcome{ResourceIDs: ids, Endpoints: endpoints, State: bellhop.Succeeded}
	best := time.Hour
	for range 3 {
		began := time.Now()
		_, _, err := bellhop.BoundOutcome(given)
		require.NoError(t, err)
		best = min(best, time.Since(began))
	}
	require.Less(t, best, 200*time.Millisecond)
}

// A list that is added to the ids is cut as well: lists are found by their type, and no field is a list of anything else.
func TestResourceIDs_HoldsStringsAndListsOfThem(t *testing.T) {
	for _, field := range reflect.VisibleFields(reflect.TypeFor[bellhop.ResourceIDs]()) {
		switch field.Type {
		case reflect.TypeFor[string](), reflect.TypeFor[[]string]():
		default:
			t.Errorf("%s is a %s, which an outcome that is too large is not relieved of", field.Name, field.Type)
		}
	}
}

func TestCheckLimits_NamesEveryOne(t *testing.T) {
	list := func(n int) []string { return make([]string, n) }
	entries := func(n int, key string) map[string]string {
		m := map[string]string{}
		for i := range n {
			m[fmt.Sprintf("%s%d", key, i)] = "x"
		}
		return m
	}
	most := bellhop.Operation{
		Spec: bellhop.Spec{
			Image: strings.Repeat("i", 1024), Command: list(1000), Args: list(1000), Env: entries(1000, "E"), Secrets: entries(1000, "S"),
			Ports: make([]bellhop.Port, 64), HealthCheck: &bellhop.HealthCheck{Command: list(1000)},
		},
		Metadata:  entries(256, "m"),
		Callbacks: []bellhop.Callback{{Address: make(json.RawMessage, 16<<10)}},
	}
	require.Empty(t, bellhop.CheckLimits(most))

	long := strings.Repeat("K", 256)
	more := bellhop.Operation{
		Spec: bellhop.Spec{
			Image: strings.Repeat("i", 1025), Command: list(1001), Args: list(1001), Env: entries(1001, "E"), Secrets: entries(3, long),
			Ports: make([]bellhop.Port, 65), HealthCheck: &bellhop.HealthCheck{Command: list(1001)},
		},
		Metadata:  entries(257, "m"),
		Callbacks: []bellhop.Callback{{}, {Address: make(json.RawMessage, 16<<10+1)}},
	}
	var paths []string
	for _, fault := range bellhop.CheckLimits(more) {
		paths = append(paths, fault.Path)
		require.Less(t, len(fault.Problem), 100)
	}
	want := []string{
		"spec.ports", "spec.env", "spec.command", "spec.args", "metadata", "spec.secrets", "spec.image",
		"spec.health_check.command", "callbacks[1].address",
	}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
}

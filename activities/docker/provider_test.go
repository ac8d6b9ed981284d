package docker

import (
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"bellhop"
)

// A worker may die at any request to the engine, before the engine had it or after. Whoever asks again completes the
// one set.
func TestAskBrokenOffAnywhere(t *testing.T) {
	t.Parallel()
	setup(t, Config{})
	type hook struct {
		name string
		opt  func(func()) client.Opt
	}
	for _, hook := range []hook{
		{"before", func(f func()) client.Opt {
			return client.WithHTTPRequestHook(func(*http.Request) error { f(); return nil })
		}},
		{"after", func(f func()) client.Opt { return client.WithHTTPResponseHook(func(*http.Response) { f() }) }},
	} {
		t.Run(hook.name, func(t *testing.T) {
			t.Parallel()
			for at := int64(1); ; at++ {
				var (
					count atomic.Int64
					stop  context.CancelFunc
					ctx   context.Context
				)
				b := setup(t, Config{})
				ctx, stop = context.WithCancel(t.Context())
				dying := b.provider(Config{}, hook.opt(func() {
					if count.Add(1) == at {
						stop()
					}
				}))
				op := b.provision("web", func(op *bellhop.Operation) { op.Spec.Replicas = 2 })
				_, err := dying.Provision(ctx, op)
				stop()
				if done := count.Load() < at; done && err == nil {
					break
				} else if !done && err == nil && hook.name == "before" {
					t.Errorf("the ask was broken off at request %d and answered all the same", at)
				}
				seen := b.want(op, bellhop.PhaseReady)
				if ids := b.ids(); len(ids) != 2 || len(seen.ResourceIDs.ContainerIDs) != 2 {
					t.Errorf("broken off at request %d: %d containers stand and %d are listed, want 2", at, len(ids),
						len(seen.ResourceIDs.ContainerIDs))
				}
				b.want(b.operation(bellhop.Delete, "web", nil), bellhop.PhaseGone)
			}
		})
	}
}

// Of parallel creates of one name the engine lets one win; the rest get a conflict and take what the winner made.
func TestParallelAsks(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	op := b.provision("web", func(op *bellhop.Operation) { op.Spec.Replicas = 3 })
	workers := []*Provider{b.Provider, b.provider(Config{}), b.provider(Config{})}
	var wait sync.WaitGroup
	for i := range 9 {
		wait.Go(func() {
			if _, err := workers[i%3].Provision(t.Context(), op); err != nil {
				t.Errorf("one of nine: %s", err)
			}
		})
	}
	wait.Wait()
	if ids := b.ids(); len(ids) != 3 {
		t.Errorf("%d containers stand, want 3", len(ids))
	}
	b.want(op, bellhop.PhaseReady)
}

// Parallel removes answer "removal already in progress"; gone is said when it is so.
func TestParallelDeletes(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	b.want(b.provision("web", func(op *bellhop.Operation) { op.Spec.Replicas = 4 }), bellhop.PhaseReady)
	op := b.operation(bellhop.Delete, "web", nil)
	var wait sync.WaitGroup
	for range 6 {
		wait.Go(func() {
			seen, err := b.Delete(t.Context(), op)
			if err != nil || seen.Phase != bellhop.PhaseGone || len(b.ids()) != 0 {
				t.Errorf("one of six: %s, %v", seen.Phase, err)
			}
		})
	}
	wait.Wait()
}

// A container that does not listen is killed when its time is up.
func TestDeleteKillsTheDeaf(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{StopTimeout: bellhop.Duration(time.Second)})
	b.want(b.provision("web", func(op *bellhop.Operation) { op.Spec.Args = []string{"serve", "-deaf"} }), bellhop.PhaseReady)
	b.want(b.operation(bellhop.Delete, "web", nil), bellhop.PhaseGone)
}

// Deletion takes the stopped, the paused and the never started as well.
func TestDeleteInAnyState(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	op := b.provision("web", func(op *bellhop.Operation) { op.Spec.Replicas = 3 })
	ids := b.want(op, bellhop.PhaseReady).ResourceIDs.ContainerIDs
	if _, err := b.docker.ContainerPause(t.Context(), ids[0], client.ContainerPauseOptions{}); err != nil {
		t.Fatal(err)
	}
	if seen, err := b.Observe(t.Context(), op); err != nil || seen.Phase != bellhop.PhasePending {
		t.Errorf("with one paused it is %s, %v; want pending", seen.Phase, err)
	}
	if _, err := b.docker.ContainerStop(t.Context(), ids[1], client.ContainerStopOptions{}); err != nil {
		t.Fatal(err)
	}
	other := b.provision("web", nil)
	config := configOf(t, other)
	if _, err := b.docker.ContainerCreate(t.Context(), b.createOptions(other, config, "", nil, 1)); err != nil {
		t.Fatal(err)
	}
	b.want(b.operation(bellhop.Delete, "web", nil), bellhop.PhaseGone)
	if ids := b.ids(); len(ids) != 0 {
		t.Errorf("%d containers are left", len(ids))
	}
}

// What has our name and is not ours is left alone, and the caller is told.
func TestForeignContainer(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	op := b.provision("web", nil)
	config := configOf(t, op)
	for name, labels := range map[string]map[string]string{
		"without labels":              {},
		"of another tenant":           {labelTenant: "other"},
		"of another spec":             {labelSpecHash: "other"},
		"with labels that make sense": nil,
	} {
		options := b.createOptions(op, config, "", nil, 1)
		if name == "without labels" {
			options.Config.Labels = map[string]string{}
		}
		maps.Copy(options.Config.Labels, labels)
		made, err := b.docker.ContainerCreate(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			docker := raw(t)
			ctx := context.WithoutCancel(t.Context())
			//nolint:errcheck // it may be gone
			docker.ContainerRemove(ctx, made.ID, client.ContainerRemoveOptions{Force: true})
		})
		seen, err := b.Provision(t.Context(), op)
		if err != nil {
			t.Fatal(err)
		}
		taken := seen.Failure != nil && seen.Failure.Code == bellhop.CodeResourceConflict
		if taken != (labels != nil) {
			t.Errorf("a container %s: %s %v", name, seen.Phase, seen.Failure)
		}
		found, err := b.docker.ContainerInspect(t.Context(), made.ID, client.ContainerInspectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if started := found.Container.State.Status != container.StateCreated; started != (labels == nil) {
			t.Errorf("a container %s is %s now", name, found.Container.State.Status)
		}
		if _, err := b.docker.ContainerRemove(t.Context(), made.ID, client.ContainerRemoveOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
}

// Tenant "a-b" with resource "c" is not tenant "a" with resource "b-c".
func TestLabelsDoNotCollide(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	base := b.tenant
	one, other := base+"-x", base
	ofOne, ofOther := "c", "x-c"
	t.Cleanup(func() { sweep(t, one) })
	b.tenant = one
	first := b.want(b.provision(ofOne, nil), bellhop.PhaseReady)
	b.tenant = other
	second := b.want(b.provision(ofOther, nil), bellhop.PhaseReady)
	if first.ResourceIDs.ContainerNames[0] == second.ResourceIDs.ContainerNames[0] {
		t.Error("they share a name")
	}
	b.want(b.operation(bellhop.Delete, ofOther, nil), bellhop.PhaseGone)
	b.tenant = one
	if len(b.ids()) != 1 {
		t.Error("deleting the one took the other")
	}
}

// get asks an endpoint who it is.
func get(endpoint bellhop.Endpoint) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	url := "http://" + net.JoinHostPort(endpoint.Host, strconv.Itoa(endpoint.Port))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close() //nolint:errcheck // all that matters was read
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

func serving(says string, more ...string) func(*bellhop.Operation) {
	return func(op *bellhop.Operation) {
		op.Spec.Args = append([]string{"serve", "-says", says}, more...)
		op.Spec.Ports = []bellhop.Port{{Name: "http", ContainerPort: 8080}}
		op.Spec.HealthCheck = healthCheck()
	}
}

// The old serves until the new is healthy, and is gone when the update is said to be ready.
func TestUpdateServesThroughout(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	before := b.want(b.provision("web", serving("old")), bellhop.PhaseReady)
	if text, err := get(before.Endpoints[0]); text != "old" {
		t.Fatalf("the old says %q, %v", text, err)
	}
	op := b.operation(bellhop.Update, "web", serving("new", "-after", "2s"))
	seen, err := b.Update(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	pending := 0
	for seen.Phase == bellhop.PhasePending {
		if text, err := get(before.Endpoints[0]); text != "old" {
			t.Fatalf("the old says %q, %v, while the update is pending", text, err)
		}
		if !slices.Contains(seen.ResourceIDs.ContainerIDs, before.ResourceIDs.ContainerIDs[0]) || !slices.Contains(seen.Endpoints, before.Endpoints[0]) {
			t.Errorf("the pending update does not list the old: %+v", seen)
		}
		pending++
		if seen, err = b.Observe(t.Context(), op); err != nil {
			t.Fatal(err)
		}
	}
	if seen.Phase != bellhop.PhaseReady || pending == 0 {
		t.Fatalf("the update is %s after %d looks: %v", seen.Phase, pending, seen.Failure)
	}
	if ids := b.ids(); len(ids) != 1 || ids[0] == before.ResourceIDs.ContainerIDs[0] || len(seen.Endpoints) != 1 {
		t.Errorf("%v stand, and %v answer, after the update", ids, seen.Endpoints)
	}
	if text, err := get(seen.Endpoints[0]); text != "new" {
		t.Errorf("the new says %q, %v", text, err)
	}
}

// An update that fails lists what serves beside what failed; the next one removes both.
func TestFailedUpdate(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	before := b.want(b.provision("web", serving("old")), bellhop.PhaseReady)
	op := b.operation(bellhop.Update, "web", serving("new", "-after", "1h"))
	op.Spec.HealthCheck = failingCheck()
	seen := b.want(op, bellhop.PhaseFailed)
	if len(seen.ResourceIDs.ContainerIDs) != 2 || seen.ResourceIDs.ContainerIDs[1] != before.ResourceIDs.ContainerIDs[0] {
		t.Errorf("lists %v, want the failed one and %v", seen.ResourceIDs.ContainerIDs, before.ResourceIDs.ContainerIDs)
	}
	if text, err := get(before.Endpoints[0]); text != "old" {
		t.Errorf("the old says %q, %v", text, err)
	}
	after := b.want(b.operation(bellhop.Update, "web", serving("third")), bellhop.PhaseReady)
	if ids := b.ids(); len(ids) != 1 || ids[0] != after.ResourceIDs.ContainerIDs[0] {
		t.Errorf("%v stand, want %v", ids, after.ResourceIDs.ContainerIDs)
	}
}

// An older operation that finds a newer one only after it made its containers takes them away again.
func TestLateOperationCleansUp(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	older, newer := b.provision("web", nil), b.provision("web", nil)
	var once sync.Once
	slow := b.provider(Config{}, client.WithHTTPRequestHook(func(request *http.Request) error {
		if request.Method == http.MethodPost { // it is about to create
			once.Do(func() { b.want(newer, bellhop.PhaseReady) })
		}
		return nil
	}))
	seen, err := slow.Provision(t.Context(), older)
	if err != nil || seen.Phase != bellhop.PhaseSuperseded {
		t.Errorf("the late one is %s, %v, want superseded", seen.Phase, err)
	}
	if ids := b.ids(); len(ids) != 1 {
		t.Errorf("%d containers stand when the late one was told, want the newer one's only", len(ids))
	}
	ready := b.want(newer, bellhop.PhaseReady)
	if ids := b.ids(); len(ids) != 1 || ids[0] != ready.ResourceIDs.ContainerIDs[0] {
		t.Errorf("%v stand, want the newer one's %v", ids, ready.ResourceIDs.ContainerIDs)
	}
}

// Somebody removed what was there: all of it is gone, a part of it is a failure.
func TestRemovedBySomebodyElse(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	op := b.provision("web", func(op *bellhop.Operation) { op.Spec.Replicas = 2 })
	ids := b.want(op, bellhop.PhaseReady).ResourceIDs.ContainerIDs
	for i, phase := range []bellhop.Phase{bellhop.PhaseFailed, bellhop.PhaseGone} {
		if _, err := b.docker.ContainerRemove(t.Context(), ids[i], client.ContainerRemoveOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
		seen, err := b.Observe(t.Context(), op)
		if err != nil || seen.Phase != phase {
			t.Errorf("with %d removed it is %s, %v, want %s", i+1, seen.Phase, err, phase)
		}
	}
}

// What the spec asks for reaches the engine, and nothing that gives the tenant more.
func TestContainerSettings(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{PidsLimit: 77})
	op := b.provision("web", func(op *bellhop.Operation) {
		op.Spec.CPUMillis, op.Spec.MemoryMiB = 250, 32
		op.Spec.HealthCheck = healthCheck()
		op.Spec.Ports = []bellhop.Port{{Name: "http", ContainerPort: 8080}}
	})
	seen := b.want(op, bellhop.PhaseReady)
	found, err := b.docker.ContainerInspect(t.Context(), seen.ResourceIDs.ContainerIDs[0], client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	host := found.Container.HostConfig
	if host.NanoCPUs != 250e6 || host.Memory != 32<<20 || host.Privileged || !slices.Contains(host.SecurityOpt, "no-new-privileges") ||
		host.RestartPolicy.Name != container.RestartPolicyUnlessStopped || len(host.Binds)+len(host.Mounts) > 0 {
		t.Errorf("host settings are %+v", host)
	}
	check := found.Container.Config.Healthcheck
	if check.Interval != time.Second || check.StartInterval != 0 || check.Test[0] != "CMD" {
		t.Errorf("the health check is %+v", check)
	}
	if seen.Endpoints[0].Host != "127.0.0.1" {
		t.Errorf("the endpoint is %+v, want loopback", seen.Endpoints[0])
	}
}

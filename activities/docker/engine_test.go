package docker

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"bellhop"
	"bellhop/tests/peers"
)

const noEngine = `no Docker engine answers; get one with: eval "$(tests/peers/docker.sh start)"`

// engine is the engine that the tests run against, with the image of testdata/tenant.
var engine = sync.OnceValues(func() (string, error) {
	docker, err := client.New(client.FromEnv)
	if err != nil {
		return "", err
	}
	defer docker.Close() //nolint:errcheck // it has no state
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if _, err := docker.Ping(ctx, client.PingOptions{}); err != nil {
		return "", fmt.Errorf("%s: %w", noEngine, err)
	}
	return importTenant(ctx, docker)
})

// importTenant makes the tests' image.
func importTenant(ctx context.Context, docker *client.Client) (string, error) {
	binary, err := peers.BuildStatic(ctx, docker, "activities/docker/testdata/tenant")
	if err != nil {
		return "", err
	}
	// The tag is the content's, so that two runs at once do not take each other's image away.
	image := fmt.Sprintf("bellhop.test/tenant:%x", sha256.Sum256(binary))[:40]
	if _, err := docker.ImageInspect(ctx, image); err == nil {
		return image, nil
	}
	return image, peers.ImportImage(ctx, docker, image, binary, `CMD ["serve"]`)
}

// bench is a provider at the real engine, and a tenant that no other test has. All the tenant's containers are removed
// at the end, also when the test fails.
type bench struct {
	*testing.T
	*Provider
	image  string
	tenant string
	clock  time.Time
}

func setup(t *testing.T, config Config, options ...client.Opt) *bench {
	t.Helper()
	image, err := engine()
	switch {
	case err != nil && strings.Contains(err.Error(), noEngine) && os.Getenv("CI") != "true":
		t.Skip(noEngine)
	case err != nil:
		t.Fatal(err)
	}
	if config.StopTimeout == 0 {
		config.StopTimeout = bellhop.Duration(2 * time.Second)
	}
	b := &bench{T: t, image: image, tenant: fmt.Sprintf("test%08x", rand.Uint32()), clock: time.Now().UTC()}
	b.Provider = b.provider(config, options...)
	t.Cleanup(func() { sweep(t, b.tenant) })
	tenants.Store(b.tenant, true)
	return b
}

// tenants are all that the tests had.
var tenants sync.Map

// TestMain sweeps once more: the engine goes on creating a container when the caller has given up, and a test that
// fails just then does not see it.
func TestMain(m *testing.M) {
	code := m.Run()
	docker, err := client.New(client.FromEnv)
	if err != nil {
		os.Exit(code)
	}
	ctx := context.Background()
	listed, err := docker.ContainerList(ctx, client.ContainerListOptions{
		All: true, Filters: make(client.Filters).Add("label", labelTenant),
	})
	if err != nil {
		os.Exit(code)
	}
	for _, item := range listed.Items {
		if _, ours := tenants.Load(item.Labels[labelTenant]); !ours {
			continue
		}
		if _, err := docker.ContainerRemove(ctx, item.ID, client.ContainerRemoveOptions{Force: true}); err != nil {
			fmt.Fprintf(os.Stderr, "sweep %s: %s\n", item.Names, err)
		}
	}
	os.Exit(code)
}

// provider is one more worker's.
func (b *bench) provider(config Config, options ...client.Opt) *Provider {
	b.Helper()
	p, err := newProvider(config, options...)
	if err != nil {
		b.Fatal(err)
	}
	closeAtEnd(b, p)
	return p
}

func closeAtEnd(tb testing.TB, c io.Closer) {
	tb.Helper()
	tb.Cleanup(func() {
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			tb.Errorf("close: %s", err)
		}
	})
}

// configOf is the provider_config of an operation that is sound.
func configOf(tb testing.TB, op bellhop.Operation) OperationConfig {
	tb.Helper()
	config, faults := check(op)
	if len(faults) > 0 {
		tb.Fatal(faults)
	}
	return config
}

// raw is a client that is none of a provider's.
func raw(t *testing.T) *client.Client {
	t.Helper()
	docker, err := client.New(client.FromEnv)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, docker)
	return docker
}

// sweep removes what a test left.
func sweep(t *testing.T, tenant string) {
	t.Helper()
	docker := raw(t)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	for _, item := range listRaw(ctx, t, docker, tenant) {
		_, err := docker.ContainerRemove(ctx, item.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		if err != nil {
			t.Logf("sweep %s: %s", item.Names, err)
		}
	}
}

func listRaw(ctx context.Context, t *testing.T, docker *client.Client, tenant string) []container.Summary {
	t.Helper()
	listed, err := docker.ContainerList(ctx, client.ContainerListOptions{
		All: true, Filters: make(client.Filters).Add("label", labelTenant+"="+tenant),
	})
	if err != nil {
		t.Errorf("list the containers of %s: %s", tenant, err)
		return nil
	}
	return listed.Items
}

// ids are the tenant's containers, by asking the engine itself.
func (b *bench) ids() []string {
	b.Helper()
	var ids []string
	for _, item := range listRaw(b.Context(), b.T, b.docker, b.tenant) {
		ids = append(ids, item.ID)
	}
	return ids
}

// operation makes the next operation on a resource. With mutate it is changed before its defaults are filled in.
func (b *bench) operation(verb bellhop.Verb, resource string, mutate func(*bellhop.Operation)) bellhop.Operation {
	b.Helper()
	b.clock = b.clock.Add(time.Nanosecond)
	op := bellhop.Operation{
		TenantID: b.tenant, Resource: resource, Provider: "docker",
		Timeout: bellhop.Duration(time.Hour), OnCancel: bellhop.Leave,
	}
	if verb != bellhop.Delete {
		op.Spec = bellhop.Spec{Image: b.image, Replicas: 1}
	}
	if mutate != nil {
		mutate(&op)
	}
	text, err := json.Marshal(op)
	if err != nil {
		b.Fatal(err)
	}
	id := fmt.Sprintf("%s-%s-%d", b.tenant, verb, b.clock.UnixNano()%1e9)
	op, err = bellhop.ParseOperation(id, verb, b.clock, text)
	if err != nil {
		b.Fatal(err)
	}
	return op
}

func (b *bench) provision(resource string, mutate func(*bellhop.Operation)) bellhop.Operation {
	b.Helper()
	return b.operation(bellhop.Provision, resource, mutate)
}

// end asks for op and observes until nothing more is to come.
func (b *bench) end(op bellhop.Operation) bellhop.Observation {
	b.Helper()
	ask := map[bellhop.Verb]func(context.Context, bellhop.Operation) (bellhop.Observation, error){
		bellhop.Provision: b.Provision, bellhop.Update: b.Update, bellhop.Delete: b.Delete,
	}[op.Verb]
	seen, err := ask(b.Context(), op)
	for err == nil && seen.Phase == bellhop.PhasePending {
		eventually(b, "look again", func() bool {
			seen, err = b.Observe(b.Context(), op)
			return err != nil || seen.Phase != bellhop.PhasePending
		})
	}
	if err != nil {
		b.Fatalf("%s %s: %s", op.Verb, op.ID, err)
	}
	return seen
}

// want ends op and checks how.
func (b *bench) want(op bellhop.Operation, phase bellhop.Phase) bellhop.Observation {
	b.Helper()
	seen := b.end(op)
	if seen.Phase != phase {
		b.Fatalf("%s is %s, want %s: %v", op.ID, seen.Phase, phase, seen.Failure)
	}
	return seen
}

// eventually waits for a condition, a minute at the most.
func eventually(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	deadline := time.Now().Add(time.Minute)
	for !holds() {
		if time.Now().After(deadline) {
			tb.Fatalf("waited in vain until: %s", what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// healthCheck is the check that the tenant program answers. It is patient: on a busy machine a check that would pass
// may take seconds.
func healthCheck() *bellhop.HealthCheck {
	return &bellhop.HealthCheck{
		Command: []string{"/main", "healthy"}, Interval: bellhop.Duration(time.Second),
		Timeout: bellhop.Duration(30 * time.Second), Retries: 10,
	}
}

// failingCheck gives up soon; it is for a tenant program that answers that it is not healthy.
func failingCheck() *bellhop.HealthCheck {
	check := healthCheck()
	check.Retries = 2
	return check
}

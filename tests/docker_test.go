package tests

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"bellhop"
	"bellhop/tests/peers"
)

// engine is a Docker engine with an image to run, and a tenant of the test's own whose containers go with the test.
type engine struct {
	*bench
	docker        *client.Client
	image, tenant string
}

func (b *bench) engine() *engine {
	b.Helper()
	docker, err := client.New(client.FromEnv)
	require.NoError(b, err)
	b.Cleanup(func() { docker.Close() }) //nolint:errcheck // the test is over
	if _, err := docker.Ping(b.ctx, client.PingOptions{}); err != nil {
		peers.Missing(b, `no Docker engine answers; get one with: eval "$(tests/peers/docker.sh start)"`)
	}
	e := &engine{bench: b, docker: docker, tenant: fmt.Sprintf("e2e%08x", rand.Uint32())}
	e.image = "bellhop.test/hello:" + e.tenant
	_, err = peers.MakeImage(b.ctx, docker, e.image, "tests/demo/hello")
	require.NoError(b, err)
	b.Cleanup(func() {
		ctx := context.Background() // the test's own has ended
		for _, c := range e.containersIn(ctx) {
			_, _ = docker.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true})
		}
		_, _ = docker.ImageRemove(ctx, e.image, client.ImageRemoveOptions{Force: true})
	})
	return e
}

type found struct{ ID, Operation, State string }

// containers are the tenant's, as the engine has them.
func (e *engine) containers() []found { e.Helper(); return e.containersIn(e.ctx) }

func (e *engine) containersIn(ctx context.Context) []found {
	e.Helper()
	listed, err := e.docker.ContainerList(ctx, client.ContainerListOptions{
		All: true, Filters: make(client.Filters).Add("label", "bellhop.tenant="+e.tenant),
	})
	require.NoError(e, err)
	var all []found
	for _, item := range listed.Items {
		all = append(all, found{item.ID, item.Labels["bellhop.operation"], string(item.State)})
	}
	return all
}

const withDocker = "  docker: {type: docker, stop_timeout: 1s}"

func TestContainerThroughBellhop(t *testing.T) {
	t.Parallel()
	b := setup(t)
	e := b.engine()
	b.work(b.config(withDocker))
	got := b.call("caller")
	operation := func(image, more string) string {
		return fmt.Sprintf(`{"tenant_id": %q, "resource": "web", "provider": "docker", "spec": {"image": %q, "replicas": 2,
			"ports": [{"name": "http", "container_port": 8080}]%s},
			"callbacks": [{"target": "temporal", "address": {"workflow_id": "caller"}}]}`, e.tenant, image, more)
	}
	outcome := func(id string) bellhop.Outcome {
		t.Helper()
		var status bellhop.Status
		stdout, stderr, code := b.run("", "bellhop", "status", id, "-o", "json")
		require.Zero(t, code, stderr)
		require.NoError(t, json.Unmarshal([]byte(stdout), &status))
		return status.Outcome
	}

	_, stderr, code := b.run(operation(e.image, ""), "bellhop", "provision", "--id", "p-"+e.tenant, "--wait", "-f", "-")
	require.Zero(t, code, stderr)
	first := outcome("p-" + e.tenant)
	require.Len(t, first.ResourceIDs.ContainerIDs, 2)
	require.Len(t, first.Endpoints, 2)
	for _, endpoint := range first.Endpoints {
		require.Equal(t, "127.0.0.1", endpoint.Host, "published on loopback unless configured")
		answer, err := http.Get("http://" + net.JoinHostPort(endpoint.Host, strconv.Itoa(endpoint.Port))) //nolint:noctx // the test's own timeout is enough
		require.NoError(t, err)
		page, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Contains(t, string(page), "hello from container")
	}

	_, stderr, code = b.run(operation("bellhop.test/nothing:1", ""), "bellhop", "update", "--id", "bad-"+e.tenant, "--wait", "-f", "-")
	require.Equal(t, 1, code, stderr)
	bad := outcome("bad-" + e.tenant)
	require.Equal(t, bellhop.CodeImagePullFailed, bad.Error.Code, "%s", bad.Error)
	require.Len(t, e.containers(), 2, "what served before serves on")

	_, stderr, code = b.run(operation(e.image, `, "env": {"MODE": "other"}`), "bellhop", "update", "--id", "u-"+e.tenant, "--wait", "-f", "-")
	require.Zero(t, code, stderr)
	second := outcome("u-" + e.tenant)
	require.NotEqual(t, first.ResourceIDs.ContainerIDs, second.ResourceIDs.ContainerIDs)
	b.until("the old ones are gone", func() bool { return len(e.containers()) == 2 })

	_, stderr, code = b.run(fmt.Sprintf(`{"tenant_id": %q, "resource": "web", "provider": "docker"}`, e.tenant),
		"bellhop", "delete", "--id", "d-"+e.tenant, "--wait", "-f", "-")
	require.Zero(t, code, stderr)
	require.Empty(t, e.containers(), "deleted means gone")
	for _, id := range []string{"p-" + e.tenant + "/succeeded", "bad-" + e.tenant + "/failed", "u-" + e.tenant + "/succeeded"} {
		b.until("the caller hears once of "+id, func() bool { return got()[id].Times == 1 })
	}
}

// TestDockerExample does what docs/examples/docker says, with the files that are there, but for the images: there is no
// registry.
func TestDockerExample(t *testing.T) {
	t.Parallel()
	b := setup(t)
	e := b.engine()
	image := "bellhop.test/tenant:" + e.tenant
	_, err := peers.MakeImage(t.Context(), e.docker, image, "activities/docker/testdata/tenant")
	require.NoError(t, err)
	t.Cleanup(func() {
		_, _ = e.docker.ImageRemove(context.WithoutCancel(t.Context()), image, client.ImageRemoveOptions{Force: true})
	})
	secrets := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(secrets, e.tenant), 0o700))
	const password = "correct-horse-battery"
	require.NoError(t, os.WriteFile(filepath.Join(secrets, e.tenant, "database-password"), []byte(password+"\n"), 0o600))
	example := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(peers.Root(), "docs", "examples", "docker", name))
		require.NoError(t, err)
		return strings.NewReplacer("/etc/bellhop/secrets", secrets, `"acme"`, strconv.Quote(e.tenant),
			"nginx:1.27", image, "nginx:1.28", image, `"container_port": 80`, `"container_port": 8080`,
			`"curl", "-fsS", "http://127.0.0.1/"`, `"/main", "healthy"`).Replace(string(text))
	}
	b.work(example("worker.yaml"))
	do := func(verb string) bellhop.Outcome {
		t.Helper()
		id := verb + "-" + e.tenant
		_, stderr, code := b.run(example(verb+".json"), "bellhop", verb, "--id", id, "--wait", "-f", "-")
		require.Zero(t, code, stderr)
		return b.status(id).Outcome
	}
	web := do("provision")
	require.Len(t, web.ResourceIDs.ContainerIDs, 2)
	require.Len(t, web.Endpoints, 2)
	inspected, err := e.docker.ContainerInspect(t.Context(), web.ResourceIDs.ContainerIDs[0], client.ContainerInspectOptions{})
	require.NoError(t, err)
	require.Contains(t, inspected.Container.Config.Env, "DATABASE_PASSWORD="+password)
	require.Len(t, do("update").ResourceIDs.ContainerIDs, 1)
	do("delete")
	require.Empty(t, e.containers())
	b.leavesNothing("docker", e.tenant)
}

func TestContainersWhoseWorkersAreKilled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	e := b.engine()
	got := b.call("caller")
	crew := b.crew(b.config(withDocker))
	var ids []string
	for i := range kills() {
		id := fmt.Sprintf("%s-%d", e.tenant, i)
		_, err := b.ops.Start(b.ctx, id, bellhop.Provision, fmt.Appendf(nil, `{"tenant_id": %q, "resource": "web-%d",
			"provider": "docker", "spec": {"image": %q, "replicas": 2},
			"callbacks": [{"target": "temporal", "address": {"workflow_id": "caller"}}]}`, e.tenant, i, e.image))
		require.NoError(t, err)
		ids = append(ids, id)
		b.until("a worker is killed while it asks, or right after", func() bool {
			if state := b.status(id).State; state != bellhop.Pending && state != bellhop.Queued {
				return crew.kill(0)
			}
			pid := crew.doing(id, "Provision")
			return pid != 0 && crew.kill(pid)
		})
	}
	t.Logf("another worker watches after %s", crew.takeOver("docker").Round(time.Millisecond))
	for _, id := range ids {
		outcome, err := b.ops.Wait(b.ctx, id)
		require.NoError(t, err)
		require.Equal(t, bellhop.Succeeded, outcome.State, "%s: %v", id, outcome.Error)
		b.until("the caller hears once of "+id, func() bool { return got()[id+"/succeeded"].Times == 1 })
	}
	count := map[string]int{}
	for _, c := range e.containers() {
		require.Equal(t, "running", c.State)
		count[c.Operation]++
	}
	for _, id := range ids {
		require.Equal(t, 2, count[id], "%s has its two containers, none is missing or doubled", id)
	}
	require.Len(t, count, len(ids))
	for i, id := range ids {
		_, err := b.ops.Start(b.ctx, id+"-deleted", bellhop.Delete,
			fmt.Appendf(nil, `{"tenant_id": %q, "resource": "web-%d", "provider": "docker"}`, e.tenant, i))
		require.NoError(t, err)
	}
	for _, id := range ids {
		outcome, err := b.ops.Wait(b.ctx, id+"-deleted")
		require.NoError(t, err)
		require.Equal(t, bellhop.Succeeded, outcome.State, "%v", outcome.Error)
	}
	b.leavesNothing("docker", e.tenant)
	require.Empty(t, e.containers())
}

// A failed operation's containers, and those of one whose workflow was terminated, are found and removed; what serves
// beside them is not.
func TestOrphanedContainers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	e := b.engine()
	b.work(b.config(withDocker))
	operation := func(resource, more string) string {
		return fmt.Sprintf(`{"tenant_id": %q, "resource": %q, "provider": "docker", "spec": {"image": %q, "replicas": 2%s},
			"provider_config": {"restart_policy": {"name": "no"}}}`, e.tenant, resource, e.image, more)
	}
	start := func(code int, verb, id, input string) {
		t.Helper()
		_, stderr, got := b.run(input, "bellhop", verb, "--id", id+"-"+e.tenant, "--wait", "-f", "-")
		require.Equal(t, code, got, stderr)
	}
	const fails = `, "command": ["/no/such"]`
	start(0, "provision", "served", operation("web", ""))
	start(1, "update", "failed-beside", operation("web", fails))
	start(1, "provision", "failed", operation("api", fails))
	_, err := b.ops.Start(b.ctx, "ended-"+e.tenant, bellhop.Provision, []byte(operation("db",
		`, "health_check": {"command": ["/no-such-check"], "start_period": "1h"}`)))
	require.NoError(t, err)
	b.until("it waits", func() bool { return b.status("ended-"+e.tenant).State == bellhop.Running })
	require.NoError(t, b.client.TerminateWorkflow(b.ctx, "ended-"+e.tenant, "", "by an operator"))

	orphans := func(more ...string) map[string]bellhop.Orphan {
		t.Helper()
		stdout, stderr, code := b.run("", "bellhop", append([]string{"orphans", "--provider", "docker", "-o", "json"}, more...)...)
		require.Zero(t, code, stderr)
		var report bellhop.OrphanReport
		require.NoError(t, json.Unmarshal([]byte(stdout), &report))
		found := map[string]bellhop.Orphan{}
		for _, orphan := range report.Orphans {
			if orphan.TenantID == e.tenant {
				found[strings.TrimSuffix(orphan.OperationID, "-"+e.tenant)] = orphan
			}
		}
		return found
	}
	var found map[string]bellhop.Orphan
	b.until("all three are found", func() bool { found = orphans(); return len(found) == 3 })
	require.Len(t, found["failed"].ResourceIDs.ContainerIDs, 2)
	require.Zero(t, found["failed"].Running)
	require.Equal(t, 2, found["ended"].Running, "what would be lost is told")
	require.Equal(t, "served-"+e.tenant, found["failed-beside"].Beside)

	orphans("--remove", "--yes")
	b.until("all is gone that could be", func() bool { return len(orphans()) == 1 })
	require.Contains(t, orphans(), "failed-beside")
	serving := 0
	for _, c := range e.containers() {
		if c.Operation == "served-"+e.tenant && c.State == "running" {
			serving++
		}
	}
	require.Equal(t, 2, serving, "what serves serves on")
	require.Len(t, e.containers(), 4)
	start(0, "update", "repaired", operation("web", ""))
	b.leavesNothing("docker", e.tenant)
	require.Len(t, e.containers(), 2)
}

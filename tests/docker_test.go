package tests

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"testing"

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
			if b.status(id).State == bellhop.Running {
				return crew.kill(0)
			}
			pid := crew.doing(id, "Provision")
			return pid != 0 && crew.kill(pid)
		})
	}
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
}

package tests

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"bellhop"
	"bellhop/tests/peers"
	"bellhop/tests/peers/scriptedecs"
)

// ecsExample is a file of docs/examples/ecs.
func (b *bench) ecsExample(name string) string {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(peers.Root(), "docs", "examples", "ecs", name))
	require.NoError(b, err)
	return string(text)
}

// scripted starts a scripted ECS and makes the example's configuration one for it, in a hurry.
func (b *bench) scripted(options scriptedecs.Options, more string) (server *scriptedecs.Server, config string, env []string) {
	b.Helper()
	options.Clusters = []string{"bellhop"}
	server = scriptedecs.For(b, options)
	config = strings.Replace(b.ecsExample("worker.yaml"), "type: ecs\n", fmt.Sprintf(`type: ecs
    endpoint: %s
    reads_per_second: 1000
    writes_per_second: 1000
    definitions_per_second: 1000
    poll_min: 100ms
    poll_max: 500ms
    resync: 1s
%s`, server.URL, more), 1)
	env = []string{
		"AWS_ACCESS_KEY_ID=AKIABELLHOPTEST", "AWS_SECRET_ACCESS_KEY=secret",
		"AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull,
	}
	return server, config, env
}

// theirs are the tags by which a test finds what a tenant has.
const (
	tenantTag    = "bellhop:tenant"
	operationTag = "bellhop:operation"
)

func TestECSThroughBellhop(t *testing.T) {
	t.Parallel()
	b := setup(t)
	server, config, env := b.scripted(scriptedecs.Options{MissingDescribes: 1, Events: &scriptedecs.Events{}}, "")
	b.work(config, env...)
	outcome := func(id string) bellhop.Outcome {
		t.Helper()
		var status bellhop.Status
		stdout, stderr, code := b.run("", "bellhop", "status", id, "-o", "json")
		require.Zero(t, code, stderr)
		require.NoError(t, json.Unmarshal([]byte(stdout), &status))
		return status.Outcome
	}

	_, stderr, code := b.run(b.ecsExample("service.yaml"), "bellhop", "provision", "--id", "web-1", "--wait", "-f", "-")
	require.Zero(t, code, stderr)
	first := outcome("web-1")
	require.Len(t, first.ResourceIDs.TaskARNs, 2)
	require.ElementsMatch(t, first.ResourceIDs.TaskARNs, server.Standing(tenantTag, "acme"))
	require.Contains(t, first.ResourceIDs.ServiceARN, ":service/bellhop/")
	require.Contains(t, first.ResourceIDs.TaskDefinitionARN, ":task-definition/")
	require.Len(t, first.Endpoints, 2)
	require.Equal(t, "http", first.Endpoints[0].Name)
	require.Equal(t, 80, first.Endpoints[0].Port)

	bad := strings.Replace(b.ecsExample("service.yaml"), "nginx:1.27", "bellhop.test/exits:1", 1)
	_, stderr, code = b.run(bad, "bellhop", "update", "--id", "web-2", "--wait", "-f", "-")
	require.Equal(t, 1, code, stderr)
	failed := outcome("web-2")
	require.Equal(t, bellhop.CodeRolledBack, failed.Error.Code, "%s", failed.Error)
	require.Equal(t, "CONTAINER_EXITED", failed.Error.Evidence["cause"])
	require.Equal(t, "3", failed.Error.Evidence["exit_code"])
	require.Contains(t, failed.Error.Evidence["logs"], "fatal: no database")
	require.ElementsMatch(t, first.ResourceIDs.TaskARNs, server.Standing(tenantTag, "acme"), "what served before serves on")

	once := strings.Replace(b.ecsExample("task.yaml"), "example.com/migrate:7", "bellhop.test/done:1", 1)
	_, stderr, code = b.run(once, "bellhop", "provision", "--id", "migrate-1", "--wait", "-f", "-")
	require.Zero(t, code, stderr)
	require.Len(t, outcome("migrate-1").ResourceIDs.TaskARNs, 1)

	for _, resource := range []string{"web", "migration"} {
		_, stderr, code = b.run(fmt.Sprintf(`{"tenant_id": "acme", "resource": %q, "provider": "ecs"}`, resource),
			"bellhop", "delete", "--id", "d-"+resource, "--wait", "-f", "-")
		require.Zero(t, code, stderr)
	}
	require.Empty(t, server.Remains(tenantTag), "deleted means gone, task definitions too")
	for _, call := range server.Calls() {
		if !strings.HasPrefix(call.Action, "sts:") {
			require.NotEmpty(t, call.Role, "%s was called without the role that the configuration names", call.Action)
		}
	}
}

// ended waits until every operation has ended, and counts what went wrong.
func (b *bench) ended(ids []string, got func() map[string]Ring) {
	b.Helper()
	lost, doubled, wrong := 0, 0, 0
	for _, id := range ids {
		b.until(id+" has ended", func() bool {
			found, err := b.client.DescribeWorkflowExecution(b.ctx, id, "")
			return err == nil && found.GetWorkflowExecutionInfo().GetCloseTime() != nil
		})
		if state := b.status(id).State; state != bellhop.Succeeded {
			b.Errorf("%s: %s", id, b.status(id).Error)
			wrong++
		}
	}
	rings := got()
	for _, id := range ids {
		switch ring := rings[bellhop.CallbackID(id, bellhop.Succeeded)]; {
		case ring.Times == 0:
			lost++
		case ring.Times > 1:
			doubled++
		case len(ring.Bodies) != 1:
			wrong++
		}
	}
	b.Logf("%d operations: lost %d, doubled %d, wrongly reported %d", len(ids), lost, doubled, wrong)
	if lost+doubled+wrong > 0 {
		b.Errorf("lost %d, doubled %d, wrongly reported %d of %d", lost, doubled, wrong, len(ids))
	}
}

func TestECSWhoseWorkersAreKilled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.patience = 3 * time.Minute
	server, config, env := b.scripted(scriptedecs.Options{Step: 50 * time.Millisecond, MissingDescribes: 1}, "")
	got := b.call("caller")
	crew := b.crew(config+noBackstop+"\n", env...)
	operation := func(verb bellhop.Verb, i int) string {
		id := fmt.Sprintf("%s-%d", verb, i)
		spec := `"spec": {"image": "nginx:1.27", "replicas": 2, "env": {"VERB": "` + string(verb) + `"}},`
		if verb == bellhop.Delete {
			spec = ""
		}
		_, err := b.ops.Start(b.ctx, id, verb, fmt.Appendf(nil, `{"tenant_id": "acme", "resource": "web-%d", "provider": "ecs", %s
			"callbacks": [{"target": "temporal", "address": {"workflow_id": "caller"}}]}`, i, spec))
		require.NoError(t, err)
		return id
	}
	activity := map[bellhop.Verb]string{bellhop.Provision: "Provision", bellhop.Update: "Update", bellhop.Delete: "Delete"}
	for _, verb := range bellhop.Verbs() {
		var ids []string
		for i := range kills() {
			id := operation(verb, i)
			ids = append(ids, id)
			b.until("a worker is killed while it asks, or while it waits", func() bool {
				if state := b.status(id).State; state == bellhop.Running || state.Terminal() {
					return crew.kill(0)
				}
				pid := crew.doing(id, activity[verb])
				return pid != 0 && crew.kill(pid)
			})
		}
		t.Logf("another worker watches after %s", crew.takeOver("ecs").Round(time.Millisecond))
		b.ended(ids, got)
		if verb == bellhop.Delete {
			continue
		}
		for _, id := range ids {
			b.until(id+" has its two tasks, none is missing or doubled", func() bool { return len(server.Standing(operationTag, id)) == 2 })
		}
		b.until("nothing else stands", func() bool { return len(server.Standing(tenantTag, "acme")) == 2*len(ids) })
	}
	require.Empty(t, server.Remains(tenantTag), "nothing of ours is left, neither services, tasks nor task definitions")
	b.leavesNothing("ecs", "acme")
}

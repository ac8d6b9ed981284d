package tests

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"bellhop"
	"bellhop/tests/peers"
)

// cluster is a Kubernetes cluster, and a server of the test's own.
type cluster struct {
	*bench
	peer  *peers.Kubernetes
	admin *kubernetes.Clientset
}

func (b *bench) cluster() *cluster {
	b.Helper()
	k := peers.SharedKubernetes(b)
	config, err := clientcmd.BuildConfigFromFlags("", k.Kubeconfig)
	require.NoError(b, err)
	config.QPS = -1
	admin, err := kubernetes.NewForConfig(config)
	require.NoError(b, err)
	return &cluster{bench: b, peer: k, admin: admin}
}

func (c *cluster) provider() string {
	return fmt.Sprintf("  kubernetes: {type: kubernetes, kubeconfig: %q, create_namespaces: true, patience: 2s}", c.peer.Kubeconfig)
}

// pods are a tenant's, by operation.
func (c *cluster) pods(tenant string) map[string][]corev1.Pod {
	c.Helper()
	listed, err := c.admin.CoreV1().Pods("").List(c.ctx, metav1.ListOptions{LabelSelector: "bellhop.tenant=" + tenant})
	require.NoError(c, err)
	by := map[string][]corev1.Pod{}
	for _, pod := range listed.Items {
		operation := pod.Annotations["bellhop.operation"]
		by[operation] = append(by[operation], pod)
	}
	return by
}

// TestKubernetesExample does what docs/examples/kubernetes says, with the files that are there.
func TestKubernetesExample(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.cluster()
	folder := filepath.Join(peers.Root(), "docs", "examples", "kubernetes")
	config, err := os.ReadFile(filepath.Join(folder, "worker.yaml")) //nolint:gosec // our own
	require.NoError(t, err)
	b.work(string(config), "KUBECONFIG="+c.peer.Kubeconfig)
	do := func(verb, file string) bellhop.Outcome {
		t.Helper()
		id := "example-" + verb + "-" + file
		_, stderr, code := b.run("", "bellhop", verb, "--id", id, "--wait", "-f", filepath.Join(folder, file+".json"))
		require.Zero(t, code, stderr)
		return b.status(id).Outcome
	}
	web := do("provision", "provision")
	require.Equal(t, "bellhop-acme", web.ResourceIDs.Namespace)
	require.NotEmpty(t, web.ResourceIDs.Deployment)
	require.Len(t, web.ResourceIDs.PodNames, 2)
	require.Equal(t, []bellhop.Endpoint{{Name: "http", Host: web.ResourceIDs.Deployment + ".bellhop-acme.svc", Port: 8080}}, web.Endpoints)
	job := do("provision", "job")
	require.NotEmpty(t, job.ResourceIDs.Job)
	require.Len(t, job.ResourceIDs.PodNames, 1)
	do("delete", "delete-web")
	do("delete", "delete-migration")
	require.Empty(t, c.pods("acme"))
}

func TestPodsThroughBellhop(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.cluster()
	b.work(b.config(c.provider()))
	got := b.call("caller")
	operation := func(image string) string {
		return fmt.Sprintf(`{"tenant_id": "pods", "resource": "web", "provider": "kubernetes", "spec": {"image": "bellhop.test/%s:1", "replicas": 2,
			"env": {"PASSWORD": "correct-horse-battery"}},
			"callbacks": [{"target": "temporal", "address": {"workflow_id": "caller"}}]}`, image)
	}
	require.NoError(t, c.peer.PreviousLog("connecting with correct-horse-battery", "panic: refused"))

	_, stderr, code := b.run(operation("slow"), "bellhop", "provision", "--id", "p", "--wait", "-f", "-")
	require.Zero(t, code, stderr)
	first := b.status("p")
	require.Len(t, first.ResourceIDs.PodNames, 2)

	_, stderr, code = b.run(operation("crash"), "bellhop", "update", "--id", "bad", "--wait", "-f", "-")
	require.Equal(t, 1, code, stderr)
	bad := b.status("bad")
	require.Equal(t, bellhop.CodeContainerExited, bad.Error.Code, "%s", bad.Error)
	require.Contains(t, bad.Error.Evidence["logs"], "panic: refused")
	require.Contains(t, bad.Error.Evidence["events"], "Back-off restarting")
	text, err := json.Marshal(bad)
	require.NoError(t, err)
	require.NotContains(t, string(text), "correct-horse-battery", "a secret in a log stays out of the outcome")
	require.Len(t, c.pods("pods")["p"], 2, "what served before serves on")
	require.Subset(t, bad.ResourceIDs.PodNames, first.ResourceIDs.PodNames)

	_, stderr, code = b.run(operation("well"), "bellhop", "update", "--id", "u", "--wait", "-f", "-")
	require.Zero(t, code, stderr)
	b.until("the old ones are gone", func() bool { by := c.pods("pods"); return len(by) == 1 && len(by["u"]) == 2 })

	_, stderr, code = b.run(`{"tenant_id": "pods", "resource": "web", "provider": "kubernetes"}`, "bellhop", "delete", "--id", "d", "--wait", "-f", "-")
	require.Zero(t, code, stderr)
	require.Empty(t, c.pods("pods"), "deleted means gone")
	for _, id := range []string{"p/succeeded", "bad/failed", "u/succeeded"} {
		b.until("the caller hears once of "+id, func() bool { return got()[id].Times == 1 })
	}
	b.leavesNothing("kubernetes", "pods")
}

func TestPodsWhoseWorkersAreKilled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.cluster()
	got := b.call("caller")
	crew := b.crew(b.config(c.provider(), noBackstop))
	var ids []string
	for i := range kills() {
		id := fmt.Sprintf("killed-%d", i)
		_, err := b.ops.Start(b.ctx, id, bellhop.Provision, fmt.Appendf(nil, `{"tenant_id": "killed", "resource": "web-%d",
			"provider": "kubernetes", "spec": {"image": "bellhop.test/slow:1", "replicas": 2, "ports": [{"name": "http", "container_port": 80}]},
			"callbacks": [{"target": "temporal", "address": {"workflow_id": "caller"}}]}`, i))
		require.NoError(t, err)
		ids = append(ids, id)
		b.until("a worker is killed while it asks, or while the operation waits", func() bool {
			if i%2 == 1 && b.status(id).State == bellhop.Running {
				return crew.kill(0)
			}
			pid := crew.doing(id, "Provision")
			return pid != 0 && i%2 == 0 && crew.kill(pid) || b.status(id).State != bellhop.Pending && b.status(id).State != bellhop.Queued && crew.kill(0)
		})
	}
	t.Logf("another worker watches after %s", crew.takeOver("kubernetes").Round(time.Millisecond))
	lost, doubled, wrong := 0, 0, 0
	for _, id := range ids {
		outcome, err := b.ops.Wait(b.ctx, id)
		require.NoError(t, err)
		if outcome.State != bellhop.Succeeded {
			t.Errorf("%s is %s: %v", id, outcome.State, outcome.Error)
			wrong++
		}
		b.until("the caller hears of "+id, func() bool { return got()[id+"/succeeded"].Times > 0 })
		if ring := got()[id+"/succeeded"]; ring.Times != 1 {
			doubled++
		}
	}
	by := c.pods("killed")
	for _, id := range ids {
		if n := len(by[id]); n < 2 {
			lost++
		} else if n > 2 {
			doubled++
		}
	}
	t.Logf("%d operations: lost %d, doubled %d, wrongly reported %d", len(ids), lost, doubled, wrong)
	require.Zero(t, lost+doubled+wrong)
	require.Len(t, by, len(ids))
	// A watcher that takes over when all is gone already finds nothing that tells of the deletion. Its backstop does.
	for _, w := range crew.at {
		w.Kill()
	}
	crew = b.crew(b.config(c.provider(), "backstop: {first: 2s, max: 5s}"))
	for i, id := range ids {
		_, err := b.ops.Start(b.ctx, id+"-deleted", bellhop.Delete,
			fmt.Appendf(nil, `{"tenant_id": "killed", "resource": "web-%d", "provider": "kubernetes"}`, i))
		require.NoError(t, err)
		if i%5 == 0 {
			crew.kill(0)
		}
	}
	for _, id := range ids {
		outcome, err := b.ops.Wait(b.ctx, id+"-deleted")
		require.NoError(t, err)
		require.Equal(t, bellhop.Succeeded, outcome.State, "%v", outcome.Error)
	}
	b.leavesNothing("kubernetes", "killed")
	require.Empty(t, c.pods("killed"))
}

package kubernetes

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bellhop"
	"bellhop/activities"
	"bellhop/tests/peers"
)

// quick is the configuration of most tests.
var quick = Config{CreateNamespaces: true, Patience: bellhop.Duration(2 * time.Second)}

func spec(script string, replicas int, ports ...bellhop.Port) bellhop.Spec {
	return bellhop.Spec{Image: "bellhop.test/" + script + ":1", Replicas: replicas, Ports: ports}
}

const job = `{"kind": "job"}`

// A secret that the operator allows reaches the pod. For one that is not allowed nothing is made, also when the namespace
// has it.
func TestSecrets_OnlyWhatIsAllowedReachesAPod(t *testing.T) {
	t.Parallel()
	config := quick
	config.Secrets, config.ImagePullSecrets = []string{"*"}, []string{"regcred"}
	b := setup(t, config)
	tenant := tenantOf(t)
	refers := func(reference string) bellhop.Operation {
		wanted := spec("well", 1)
		wanted.Secrets = map[string]string{"PASSWORD": reference}
		return b.operation(bellhop.Provision, tenant, wanted, "")
	}
	for _, reference := range []string{"regcred/.dockerconfigjson", "default-token-x7k2p/token"} {
		b.want(b.ask(refers(reference)), bellhop.PhaseFailed, bellhop.CodeInvalidSpec)
	}
	if pods := b.podsOfTenant(tenant); len(pods) > 0 {
		t.Fatalf("%d pods refer to the cluster's credentials", len(pods))
	}
	b.want(b.end(refers("database/password")), bellhop.PhaseReady, "")
	pod := b.podsOfTenant(tenant)[0].Spec
	reference := pod.Containers[0].Env[0].ValueFrom.SecretKeyRef
	if reference.Name != "database" || reference.Key != "password" || pod.Containers[0].ImagePullPolicy != corev1.PullAlways {
		t.Errorf("the pod refers to %s, and pulls its image %s", reference, pod.Containers[0].ImagePullPolicy)
	}
}

func TestJob(t *testing.T) {
	t.Parallel()
	b := setup(t, quick)
	tenant := tenantOf(t)
	first := b.operation(bellhop.Provision, tenant, spec("well", 2), job)
	seen := b.end(first)
	b.want(seen, bellhop.PhaseReady, "")
	if seen.ResourceIDs.Job == "" || len(seen.ResourceIDs.PodNames) != 2 || seen.Progress.Ready != 2 {
		t.Errorf("the job that ended well is %+v, %+v", seen.ResourceIDs, seen.Progress)
	}
	b.want(b.end(b.operation(bellhop.Provision, tenant, spec("well", 1), "")), bellhop.PhaseFailed, bellhop.CodeResourceConflict)

	failing := b.operation(bellhop.Update, tenant, spec("fail", 1), `{"kind": "job", "retries": 1}`)
	seen = b.end(failing)
	b.want(seen, bellhop.PhaseFailed, bellhop.CodeContainerExited)
	if seen.Failure.Evidence["exit_code"] != "4" || seen.Failure.Evidence["logs"] == "" {
		t.Errorf("the evidence is %v", seen.Failure.Evidence)
	}
	b.want(b.call(first, b.Observe), bellhop.PhaseSuperseded, "")

	// One that never ends is stopped by the next.
	endless := b.operation(bellhop.Provision, tenant, spec("never-ready", 1), job)
	b.want(b.ask(endless), bellhop.PhasePending, "")
	last := b.operation(bellhop.Provision, tenant, spec("well", 1), job)
	b.want(b.end(last), bellhop.PhaseReady, "")
	b.want(b.ask(endless), bellhop.PhaseSuperseded, "")
	b.until("the job that was replaced is gone", func() bool { return len(b.podsOfTenant(tenant)) == 1 })

	b.want(b.end(b.operation(bellhop.Delete, tenant, bellhop.Spec{}, "")), bellhop.PhaseGone, "")
	if pods := b.podsOfTenant(tenant); len(pods) > 0 {
		t.Errorf("%d pods are left", len(pods))
	}
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	config := quick
	config.ProgressDeadline = bellhop.Duration(3 * time.Second)
	b := setup(t, config)
	seen := b.end(b.operation(bellhop.Provision, tenantOf(t), spec("never-ready", 1), ""))
	b.want(seen, bellhop.PhaseFailed, bellhop.CodeHealthCheckFailed)
	if !strings.Contains(seen.Failure.Evidence["events"], "Readiness probe failed") {
		t.Errorf("the evidence is %v", seen.Failure.Evidence)
	}
}

// TestEviction: a pod that its node got rid of stays listed by Kubernetes as long as nobody collects it; it is neither
// running nor left behind.
func TestEviction(t *testing.T) {
	t.Parallel()
	b := setup(t, quick)
	tenant := tenantOf(t)
	op := b.operation(bellhop.Provision, tenant, spec("well", 2), "")
	before := b.end(op)
	b.want(before, bellhop.PhaseReady, "")
	b.script(tenant, "evicted")
	b.until("others are ready in place of the evicted", func() bool {
		now := b.call(op, b.Observe)
		return now.Phase == bellhop.PhaseReady && len(now.ResourceIDs.PodNames) == 2 &&
			!slices.ContainsFunc(now.ResourceIDs.PodNames, func(name string) bool {
				return slices.Contains(before.ResourceIDs.PodNames, name)
			})
	})
	if pods := b.podsOfTenant(tenant); len(pods) != 4 {
		t.Errorf("%d pods stand, want two evicted beside two others", len(pods))
	}
	b.want(b.end(b.operation(bellhop.Delete, tenant, bellhop.Spec{}, "")), bellhop.PhaseGone, "")
	if pods := b.podsOfTenant(tenant); len(pods) > 0 {
		t.Errorf("%d pods are left", len(pods))
	}
}

// TestNamespaceDisappears: what is gone with its namespace is gone, and nothing can be made in one that is going.
func TestNamespaceDisappears(t *testing.T) {
	t.Parallel()
	config := quick
	config.CreateNamespaces = false
	b := setup(t, config)
	tenant := tenantOf(t)
	namespace := b.namespaceOf(tenant)
	op := b.operation(bellhop.Provision, tenant, spec("lingers", 1), "")
	seen := b.end(op)
	b.want(seen, bellhop.PhaseFailed, bellhop.CodeResourceNotFound)
	if !strings.Contains(seen.Failure.Message, "create_namespaces") {
		t.Errorf("it does not say what to do: %s", seen.Failure)
	}
	makeNamespace(t, b.admin, namespace)
	b.want(b.end(op), bellhop.PhaseReady, "")
	watch := b.watch(b.Provider)
	watch.told(op, bellhop.PhaseReady)
	if err := b.admin.CoreV1().Namespaces().Delete(t.Context(), namespace, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	later := b.operation(bellhop.Update, tenant, spec("well", 1), "")
	b.want(b.end(b.operation(bellhop.Provision, tenant+"-other", spec("well", 1), "")), bellhop.PhaseFailed, bellhop.CodeResourceNotFound)
	watch.told(op, bellhop.PhaseGone)
	b.want(b.call(op, b.Observe), bellhop.PhaseGone, "")
	b.want(b.end(later), bellhop.PhaseFailed, bellhop.CodeResourceNotFound)
	b.want(b.end(b.operation(bellhop.Delete, tenant, bellhop.Spec{}, "")), bellhop.PhaseGone, "")
}

func TestQuota(t *testing.T) {
	t.Parallel()
	b := setup(t, quick)
	tenant := tenantOf(t)
	makeNamespace(t, b.admin, b.namespaceOf(tenant))
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "none"}, Spec: corev1.ResourceQuotaSpec{
		Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")},
	}}
	if _, err := b.admin.CoreV1().ResourceQuotas(b.namespaceOf(tenant)).Create(t.Context(), quota, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	seen := b.end(b.operation(bellhop.Provision, tenant, spec("well", 1), ""))
	b.want(seen, bellhop.PhaseFailed, bellhop.CodeQuotaExceeded)
	if !strings.Contains(seen.Failure.ProviderError, "exceeded quota") {
		t.Errorf("the cluster's own words are missing: %s", seen.Failure)
	}
}

// TestPodSecurity: an image that needs root is refused by a namespace that enforces more than the entry keeps.
func TestPodSecurity(t *testing.T) {
	t.Parallel()
	tenant := tenantOf(t)
	setup(t, quick).end(setup(t, quick).operation(bellhop.Provision, tenant, spec("well", 1), "")) // makes the namespace
	config := quick
	config.PodSecurity = PodSecurityBaseline
	b := setup(t, config)
	seen := b.end(b.operation(bellhop.Update, tenant, spec("well", 1), ""))
	b.want(seen, bellhop.PhaseFailed, bellhop.CodePermissionDenied)
	if !strings.Contains(seen.Failure.ProviderError, "violates PodSecurity") {
		t.Errorf("the cluster's own words are missing: %s", seen.Failure)
	}
}

func TestPermissionDenied(t *testing.T) {
	t.Parallel()
	b := setup(t, quick)
	login, err := b.cluster.Login(b.cluster.URL, "stranger")
	if err != nil {
		t.Fatal(err)
	}
	stranger := b.provider(Config{Kubeconfig: login})
	seen, err := stranger.Provision(t.Context(), b.operation(bellhop.Provision, tenantOf(t), spec("well", 1), ""))
	if err != nil {
		t.Fatal(err)
	}
	b.want(seen, bellhop.PhaseFailed, bellhop.CodePermissionDenied)
	err = stranger.Watch(t.Context(), func(bellhop.Observation) {})
	if failure := activities.Ended(err); failure == nil || failure.Code != bellhop.CodePermissionDenied {
		t.Errorf("the watch of a stranger ends with %v, not %s", err, bellhop.CodePermissionDenied)
	}
}

// TestPorts: a service comes, changes and goes with the ports.
func TestPorts(t *testing.T) {
	t.Parallel()
	b := setup(t, quick)
	tenant := tenantOf(t)
	k := b.keyOf(bellhop.Operation{TenantID: tenant, Resource: "web"})
	host := k.objectName() + "." + k.namespace + ".svc"
	for _, step := range []struct {
		verb  bellhop.Verb
		ports []bellhop.Port
		want  []bellhop.Endpoint
	}{
		{bellhop.Provision, []bellhop.Port{{Name: "http", ContainerPort: 80}}, []bellhop.Endpoint{{Name: "http", Host: host, Port: 80}}},
		{
			bellhop.Update,
			[]bellhop.Port{{Name: "http", ContainerPort: 8080}, {Name: "dns", ContainerPort: 53, Protocol: "udp"}},
			[]bellhop.Endpoint{{Name: "http", Host: host, Port: 8080}, {Name: "dns", Host: host, Port: 53}},
		},
		{bellhop.Update, nil, nil},
		{bellhop.Update, []bellhop.Port{{Name: "http", ContainerPort: 80}}, []bellhop.Endpoint{{Name: "http", Host: host, Port: 80}}},
	} {
		seen := b.end(b.operation(step.verb, tenant, spec("well", 1, step.ports...), ""))
		b.want(seen, bellhop.PhaseReady, "")
		if !slices.Equal(seen.Endpoints, step.want) {
			t.Errorf("endpoints are %v, want %v", seen.Endpoints, step.want)
		}
	}
	b.want(b.end(b.operation(bellhop.Delete, tenant, bellhop.Spec{}, "")), bellhop.PhaseGone, "")
	if _, err := b.admin.CoreV1().Services(k.namespace).Get(t.Context(), k.objectName(), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the service is left: %v", err)
	}
}

// TestLoadBalancer: a service of that type is waited for until it has an address.
func TestLoadBalancer(t *testing.T) {
	t.Parallel()
	config := quick
	config.ServiceType = ServiceLoadBalancer
	b := setup(t, config)
	op := b.operation(bellhop.Provision, tenantOf(t), spec("well", 1, bellhop.Port{Name: "http", ContainerPort: 80}), "")
	b.ask(op)
	b.until("all but the address is there", func() bool {
		seen := b.call(op, b.Observe)
		if seen.Phase != bellhop.PhasePending {
			t.Fatalf("without an address it is %s", seen.Phase)
		}
		return strings.Contains(seen.Progress.Message, "no address")
	})
	k := b.keyOf(op)
	status := []byte(`{"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}}`)
	_, err := b.admin.CoreV1().Services(k.namespace).Patch(t.Context(), k.objectName(), "application/merge-patch+json", status, metav1.PatchOptions{}, "status")
	if err != nil {
		t.Fatal(err)
	}
	seen := b.end(op)
	b.want(seen, bellhop.PhaseReady, "")
	if want := []bellhop.Endpoint{{Name: "http", Host: "203.0.113.7", Port: 80}}; !slices.Equal(seen.Endpoints, want) {
		t.Errorf("endpoints are %v, want %v", seen.Endpoints, want)
	}
}

// TestForeignService: somebody else's service of the name is left alone, and nothing is made beside it.
func TestForeignService(t *testing.T) {
	t.Parallel()
	b := setup(t, quick)
	tenant := tenantOf(t)
	k := b.keyOf(bellhop.Operation{TenantID: tenant, Resource: "web"})
	makeNamespace(t, b.admin, k.namespace)
	services := b.admin.CoreV1().Services(k.namespace)
	theirs, err := services.Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: k.objectName()}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ports := []bellhop.Port{{Name: "http", ContainerPort: 80}}
	b.want(b.end(b.operation(bellhop.Provision, tenant, spec("well", 1, ports...), "")), bellhop.PhaseFailed, bellhop.CodeResourceConflict)
	b.want(b.end(b.operation(bellhop.Delete, tenant, bellhop.Spec{}, "")), bellhop.PhaseGone, "")
	if now, err := services.Get(t.Context(), theirs.Name, metav1.GetOptions{}); err != nil || now.ResourceVersion != theirs.ResourceVersion {
		t.Errorf("their service was touched: %v", err)
	}
	if pods := b.podsOfTenant(tenant); len(pods) > 0 {
		t.Errorf("%d pods stand", len(pods))
	}
}

// TestWhatIsNoLongerWantedGoes: applying takes away what the operation before had set, and leaves what others have.
func TestWhatIsNoLongerWantedGoes(t *testing.T) {
	t.Parallel()
	b := setup(t, quick)
	tenant := tenantOf(t)
	first := spec("well", 1)
	first.Env = map[string]string{"KEPT": "a", "DROPPED": "b", "LITERAL": "$(KEPT) $$ $X"}
	first.MemoryMiB = 64
	b.want(b.end(b.operation(bellhop.Provision, tenant, first, "")), bellhop.PhaseReady, "")
	k := b.keyOf(bellhop.Operation{TenantID: tenant, Resource: "web"})
	deployments := b.admin.AppsV1().Deployments(k.namespace)
	annotate := []byte(`{"metadata": {"annotations": {"team": "blue"}}}`)
	if _, err := deployments.Patch(t.Context(), k.objectName(), "application/merge-patch+json", annotate, metav1.PatchOptions{FieldManager: "them"}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // what was created, then what was applied
		second := spec("well", 1)
		second.Env = map[string]string{"KEPT": "c"}
		b.want(b.end(b.operation(bellhop.Update, tenant, second, "")), bellhop.PhaseReady, "")
		now, err := deployments.Get(t.Context(), k.objectName(), metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		container := now.Spec.Template.Spec.Containers[0]
		if len(container.Env) != 1 || container.Env[0].Value != "c" || len(container.Resources.Limits) != 0 || now.Annotations["team"] != "blue" {
			t.Errorf("it has the environment %v, the limits %v and the annotations %v", container.Env, container.Resources.Limits, now.Annotations)
		}
	}
}

// TestRace: of operations that ask at once, over and over, the newest stands in the end, whoever came last.
func TestRace(t *testing.T) {
	t.Parallel()
	b := setup(t, quick)
	workers := []*Provider{b.provider(quick), b.provider(quick), b.provider(quick)}
	for range 5 {
		tenant := tenantOf(t)
		var operations []bellhop.Operation
		for range 4 {
			operations = append(operations, b.operation(bellhop.Provision, tenant, spec("well", 1, bellhop.Port{Name: "http", ContainerPort: 80}), ""))
		}
		var asking sync.WaitGroup
		for i, op := range operations {
			for j := range 2 {
				// One that lost a race may be told to come again; it is asked again below.
				asking.Go(func() { _, _ = workers[(i+j)%len(workers)].Provision(t.Context(), op) }) //nolint:errcheck // see above
			}
		}
		asking.Wait()
		newest := operations[len(operations)-1]
		for _, op := range operations[:len(operations)-1] {
			b.want(b.end(op), bellhop.PhaseSuperseded, "")
		}
		b.want(b.end(newest), bellhop.PhaseReady, "")
		b.until("one pod stands, and the service is the newest's", func() bool {
			there, err := b.look(t.Context(), b.keyOf(newest))
			return err == nil && len(there.pods) == 1 && generationOf(there.service).Equal(newest.Generation())
		})
	}
}

// TestLateWriteIsRefused: a worker that has read, and writes when a newer operation has taken over since, changes nothing.
func TestLateWriteIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t, quick)
	ports := []bellhop.Port{{Name: "http", ContainerPort: 80}}
	for name, test := range map[string]struct {
		before int // how many operations there were before: what one has created, the next has applied
		write  func(context.Context, bellhop.Operation, standing) error
	}{
		"create": {0, b.bringUp}, "apply": {1, b.bringUp}, "apply again": {2, b.bringUp}, "delete": {1, b.takeDown},
	} {
		tenant := tenantOf(t)
		for range test.before {
			b.want(b.end(b.operation(bellhop.Provision, tenant, spec("well", 1, ports...), "")), bellhop.PhaseReady, "")
		}
		older := b.operation(bellhop.Provision, tenant, spec("well", 1, ports...), "")
		newer := b.operation(bellhop.Provision, tenant, spec("well", 1, ports...), "")
		read, err := b.look(t.Context(), b.keyOf(older))
		if err != nil {
			t.Fatal(err)
		}
		b.want(b.end(newer), bellhop.PhaseReady, "")
		if err := test.write(t.Context(), older, read); !isStale(err) {
			t.Errorf("%s: a late write is answered %v", name, err)
		}
		now, err := b.look(t.Context(), b.keyOf(older))
		if err != nil {
			t.Fatal(err)
		}
		if now.deployment == nil || now.service == nil || !generationOf(now.deployment).Equal(newer.Generation()) ||
			!generationOf(now.service).Equal(newer.Generation()) || now.deployment.DeletionTimestamp != nil {
			t.Errorf("%s: a late write has changed what the newer operation made", name)
		}
	}
}

// TestScaledByHand: as many are waited for as the deployment has, whoever says how many (an autoscaler, say).
func TestScaledByHand(t *testing.T) {
	t.Parallel()
	b := setup(t, quick)
	tenant := tenantOf(t)
	op := b.operation(bellhop.Provision, tenant, spec("well", 1), "")
	b.want(b.end(op), bellhop.PhaseReady, "")
	k := b.keyOf(op)
	three := []byte(`{"spec": {"replicas": 3}}`)
	if _, err := b.admin.AppsV1().Deployments(k.namespace).Patch(t.Context(), k.objectName(), "application/merge-patch+json", three, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	b.until("three are ready", func() bool {
		seen := b.call(op, b.Observe)
		return seen.Phase == bellhop.PhaseReady && len(seen.ResourceIDs.PodNames) == 3
	})
}

// TestAPIServerRestarts: an API server that is killed in the middle is no end of anything.
func TestAPIServerRestarts(t *testing.T) {
	t.Parallel()
	b := setupIn(t, peers.KubernetesFor(t), "rbac.yaml", quick)
	tenant := tenantOf(t)
	watch := b.watch(b.Provider)
	op := b.operation(bellhop.Provision, tenant, spec("slow", 2), "")
	b.want(b.ask(op), bellhop.PhasePending, "")
	b.cluster.KillAPIServer()
	_, err := b.Observe(t.Context(), op)
	if failure := (*bellhop.Failure)(nil); !asFailure(err, &failure) || failure.Code != bellhop.CodeProviderUnavailable {
		t.Errorf("without an API server it answers %v, not %s", err, bellhop.CodeProviderUnavailable)
	}
	if err := b.cluster.RestartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	watch.told(op, bellhop.PhaseReady)
	deletion := b.operation(bellhop.Delete, tenant, bellhop.Spec{}, "")
	b.ask(deletion)
	watch.told(deletion, bellhop.PhaseGone)
}

// TestWatchIsCut: connections that are cut again and again lose no end.
func TestWatchIsCut(t *testing.T) {
	t.Parallel()
	b := setup(t, quick)
	address, err := url.Parse(b.cluster.URL)
	if err != nil {
		t.Fatal(err)
	}
	cable, err := peers.StartCable(t.Context(), address.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cable.Close)
	login, err := b.cluster.Login("https://"+cable.Address, workerUser)
	if err != nil {
		t.Fatal(err)
	}
	config := quick
	config.Kubeconfig = login
	watch := b.watch(b.provider(config))
	for i := range 5 {
		op := b.operation(bellhop.Provision, fmt.Sprintf("%s-%d", tenantOf(t), i), spec("slow", 1), "")
		b.ask(op)
		cable.Cut()
		watch.told(op, bellhop.PhaseReady)
	}
}

// TestManifestIsEnoughAndNoMore has the provider do all that it can and compares what the API server got with the manifest.
func TestManifestIsEnoughAndNoMore(t *testing.T) {
	t.Parallel()
	for _, manifest := range []string{"rbac.yaml", "rbac-namespace.yaml"} {
		t.Run(manifest, func(t *testing.T) {
			config := quick
			if manifest != "rbac.yaml" {
				config = Config{Namespace: "tenants", Patience: quick.Patience}
			}
			b := setupIn(t, peers.KubernetesFor(t), manifest, config)
			watch := b.watch(b.Provider)
			tenant := tenantOf(t)
			ports := []bellhop.Port{{Name: "http", ContainerPort: 80}}
			op := b.operation(bellhop.Provision, tenant, spec("well", 1, ports...), "")
			b.want(b.end(op), bellhop.PhaseReady, "")
			watch.told(op, bellhop.PhaseReady)
			b.want(b.end(b.operation(bellhop.Update, tenant, spec("well", 1, ports...), "")), bellhop.PhaseReady, "")
			crash := b.end(b.operation(bellhop.Update, tenant, spec("crash", 1, ports...), ""))
			b.want(crash, bellhop.PhaseFailed, bellhop.CodeContainerExited)
			if crash.Failure.Evidence["events"] == "" || crash.Failure.Evidence["logs"] == "" {
				t.Errorf("the evidence is %v", crash.Failure.Evidence)
			}
			b.want(b.end(b.operation(bellhop.Provision, tenant+"-job", spec("well", 1), job)), bellhop.PhaseReady, "")
			b.want(b.end(b.operation(bellhop.Provision, tenant+"-job", spec("well", 1), job)), bellhop.PhaseReady, "")
			b.takesJobName(tenant)
			if holdings, err := b.Inventory(t.Context()); err != nil || len(holdings) == 0 {
				t.Errorf("the inventory is %v, %v", holdings, err)
			}
			for _, whose := range []string{tenant, tenant + "-job"} {
				deletion := b.operation(bellhop.Delete, whose, bellhop.Spec{}, "")
				b.want(b.end(deletion), bellhop.PhaseGone, "")
				watch.told(deletion, bellhop.PhaseGone)
			}
			if holdings, err := b.Inventory(t.Context()); err != nil || len(holdings) > 0 {
				t.Errorf("the inventory is %v, %v, want nothing", holdings, err)
			}
			b.compareWithManifest(manifest)
		})
	}
}

// takesJobName has somebody else's job take the name of one that is to be made.
func (b *bench) takesJobName(tenant string) {
	b.Helper()
	op := b.operation(bellhop.Provision, tenant+"-taken", spec("well", 1), job)
	k := b.keyOf(op)
	makeNamespace(b.T, b.admin, k.namespace)
	theirs := desired{op: op, key: k, entry: b.config}.job()
	theirs.Labels, theirs.Annotations, theirs.Spec.Template.ObjectMeta = nil, nil, metav1.ObjectMeta{}
	if _, err := b.admin.BatchV1().Jobs(k.namespace).Create(b.Context(), theirs, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	b.want(b.end(op), bellhop.PhaseFailed, bellhop.CodeResourceConflict)
}

// watching runs Watch as bellhop does, again when it breaks off, and remembers what it was told.
type watching struct {
	b    *bench
	lock sync.Mutex
	seen []bellhop.Observation
}

func (b *bench) watch(p *Provider) *watching {
	b.Helper()
	w := &watching{b: b}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if err := p.Watch(ctx, w.report); ctx.Err() == nil {
				b.Logf("the watch broke off and is called again: %v", err)
				time.Sleep(50 * time.Millisecond) // as Temporal would
			}
		}
	}()
	b.Cleanup(func() { cancel(); <-done })
	return w
}

func (w *watching) report(seen bellhop.Observation) {
	w.lock.Lock()
	defer w.lock.Unlock()
	w.seen = append(w.seen, seen)
}

func (w *watching) told(op bellhop.Operation, phase bellhop.Phase) bellhop.Observation {
	w.b.Helper()
	var found bellhop.Observation
	w.b.until(fmt.Sprintf("the watcher is told that %s is %s", op.ID, phase), func() bool {
		w.lock.Lock()
		defer w.lock.Unlock()
		for _, seen := range w.seen {
			if seen.OperationID == op.ID && seen.Phase == phase {
				found = seen
				return true
			}
		}
		return false
	})
	return found
}

package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"bellhop"
	"bellhop/activities"
	"bellhop/tests/peers"
)

func TestMain(m *testing.M) {
	code := m.Run()
	peers.EndSharedKubernetes()
	os.Exit(code) //nolint:forbidigo // it is this program's main
}

const (
	// workerUser is whom the manifests of RBAC in docs/ are for.
	workerUser = "system:serviceaccount:bellhop:bellhop-worker"
	soon       = time.Minute
)

// bench is a cluster of which a test uses what it needs.
type bench struct {
	*testing.T
	*Provider
	cluster *peers.Kubernetes
	admin   *kubernetes.Clientset
	// login is the worker's, which may do what the manifest says and no more.
	login string
}

// setup is a provider in the shared cluster, as the user whom docs/examples/kubernetes/rbac.yaml is for.
func setup(t *testing.T, config Config) *bench {
	t.Helper()
	return setupIn(t, peers.SharedKubernetes(t), "rbac.yaml", config)
}

func setupIn(t *testing.T, cluster *peers.Kubernetes, manifest string, config Config) *bench {
	t.Helper()
	b := &bench{T: t, cluster: cluster, admin: administrator(t, cluster)}
	grant(t, b.admin, filepath.Join("..", "..", "docs", "examples", "kubernetes", manifest))
	login, err := b.cluster.Login(cluster.URL, workerUser)
	if err != nil {
		t.Fatal(err)
	}
	b.login = login
	b.Provider = b.provider(config)
	return b
}

func (b *bench) provider(config Config) *Provider {
	b.Helper()
	if config.Kubeconfig == "" {
		config.Kubeconfig = b.login
	}
	p, err := New(config)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { p.Close() }) //nolint:errcheck // it never fails
	return p
}

func administrator(t *testing.T, cluster *peers.Kubernetes) *kubernetes.Clientset {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", cluster.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

var granting sync.Mutex

// grant applies a manifest of RBAC, as kubectl would, and waits until it counts.
func grant(t *testing.T, admin *kubernetes.Clientset, manifest string) {
	t.Helper()
	granting.Lock()
	defer granting.Unlock()
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	documents := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	force := true
	options := metav1.PatchOptions{FieldManager: "test", Force: &force}
	for {
		var raw json.RawMessage
		if err := documents.Decode(&raw); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		var object metav1.PartialObjectMetadata
		if err := json.Unmarshal(raw, &object); err != nil {
			t.Fatal(err)
		}
		ctx, name, namespace := t.Context(), object.Name, object.Namespace
		if namespace != "" && namespace != "bellhop" {
			makeNamespace(t, admin, namespace)
		}
		switch object.Kind {
		case "Namespace":
			_, err = admin.CoreV1().Namespaces().Patch(ctx, name, types.ApplyPatchType, raw, options)
		case "ServiceAccount":
			_, err = admin.CoreV1().ServiceAccounts(namespace).Patch(ctx, name, types.ApplyPatchType, raw, options)
		case "ClusterRole":
			_, err = admin.RbacV1().ClusterRoles().Patch(ctx, name, types.ApplyPatchType, raw, options)
		case "ClusterRoleBinding":
			_, err = admin.RbacV1().ClusterRoleBindings().Patch(ctx, name, types.ApplyPatchType, raw, options)
		case "Role":
			_, err = admin.RbacV1().Roles(namespace).Patch(ctx, name, types.ApplyPatchType, raw, options)
		case "RoleBinding":
			_, err = admin.RbacV1().RoleBindings(namespace).Patch(ctx, name, types.ApplyPatchType, raw, options)
		default:
			err = fmt.Errorf("the test does not know %s", object.Kind)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func makeNamespace(t *testing.T, admin *kubernetes.Clientset, name string) {
	t.Helper()
	_, err := admin.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
}

// podsOfTenant asks the cluster itself.
func (b *bench) podsOfTenant(tenant string) []corev1.Pod {
	b.Helper()
	pods, err := b.admin.CoreV1().Pods("").List(context.WithoutCancel(b.Context()), metav1.ListOptions{LabelSelector: labelTenant + "=" + tenant})
	if err != nil {
		b.Fatal(err)
	}
	return pods.Items
}

// script makes what is there behave as a script of the nodes says from now on.
func (b *bench) script(tenant, script string) {
	b.Helper()
	patch := `{"metadata": {"annotations": {"bellhop.test/script": "` + script + `"}}}`
	for _, pod := range b.podsOfTenant(tenant) {
		_, err := b.admin.CoreV1().Pods(pod.Namespace).Patch(b.Context(), pod.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			b.Fatal(err)
		}
	}
}

// until waits for a condition.
func (b *bench) until(what string, so func() bool) {
	b.Helper()
	deadline := time.Now().Add(soon)
	for !so() {
		if time.Now().After(deadline) {
			b.Fatalf("in %s this did not happen: %s", soon, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

var clock struct {
	sync.Mutex
	last time.Time
}

// operation makes an operation that is newer than all before.
func (b *bench) operation(verb bellhop.Verb, tenant string, spec bellhop.Spec, config string) bellhop.Operation {
	b.Helper()
	clock.Lock()
	defer clock.Unlock()
	now := time.Now().UTC()
	if !now.After(clock.last) {
		now = clock.last.Add(time.Nanosecond)
	}
	clock.last = now
	op := bellhop.Operation{TenantID: tenant, Resource: "web", Provider: "kubernetes", Spec: spec}
	if config != "" {
		op.ProviderConfig = json.RawMessage(config)
	}
	text, err := json.Marshal(op)
	if err != nil {
		b.Fatal(err)
	}
	id := fmt.Sprintf("%s:%s-%d", tenant, verb, now.UnixNano())
	op, err = bellhop.ParseOperation(id, verb, now, text)
	if err != nil {
		b.Fatal(err)
	}
	return op
}

// tenantOf is a tenant of the test's own.
func tenantOf(t *testing.T) string {
	t.Helper()
	return strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name())) + "-" + hash(t.Name(), time.Now().String())[:6]
}

// ask asks as bellhop does: what could not be asked is asked again.
func (b *bench) ask(op bellhop.Operation) bellhop.Observation {
	b.Helper()
	call := map[bellhop.Verb]func(context.Context, bellhop.Operation) (bellhop.Observation, error){
		bellhop.Provision: b.Provision, bellhop.Update: b.Update, bellhop.Delete: b.Delete,
	}[op.Verb]
	return b.call(op, call)
}

func (b *bench) call(op bellhop.Operation, call func(context.Context, bellhop.Operation) (bellhop.Observation, error)) bellhop.Observation {
	b.Helper()
	var seen bellhop.Observation
	b.until("the provider answers for "+op.ID, func() bool {
		var err error
		seen, err = call(b.Context(), op)
		if failure := activities.Ended(err); failure != nil {
			b.Fatalf("%s: %s", op.ID, failure)
		}
		var failure *bellhop.Failure
		if err != nil && !errors.As(err, &failure) {
			b.Fatalf("%s: %s", op.ID, err)
		}
		return err == nil
	})
	return seen
}

// end asks and waits for the end.
func (b *bench) end(op bellhop.Operation) bellhop.Observation {
	b.Helper()
	seen := b.ask(op)
	b.until(op.ID+" ends", func() bool {
		if seen.Phase == bellhop.PhasePending {
			seen = b.call(op, b.Observe)
		}
		return seen.Phase != bellhop.PhasePending
	})
	return seen
}

// want checks a phase, and the code of a failure.
func (b *bench) want(seen bellhop.Observation, phase bellhop.Phase, code bellhop.Code) {
	b.Helper()
	if seen.Phase != phase {
		b.Fatalf("%s is %s, not %s: %v", seen.OperationID, seen.Phase, phase, seen.Failure)
	}
	if phase == bellhop.PhaseFailed && seen.Failure.Code != code {
		b.Fatalf("%s failed with %s, not %s", seen.OperationID, seen.Failure, code)
	}
}

// untouched says whether a deployment is as it was made.
func untouched(t *testing.T, b *bench, theirs *appsv1.Deployment) error {
	t.Helper()
	now, err := b.admin.AppsV1().Deployments(theirs.Namespace).Get(t.Context(), theirs.Name, metav1.GetOptions{})
	switch {
	case err != nil:
		return err
	case now.UID != theirs.UID || now.Generation != theirs.Generation || len(now.Labels) > 0:
		return fmt.Errorf("it is %s of generation %d with labels %v", now.UID, now.Generation, now.Labels)
	}
	return nil
}

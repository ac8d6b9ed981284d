package kubernetes

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bellhop"
	"bellhop/activities"
	"bellhop/activities/providertest"
)

func TestLaw(t *testing.T) {
	config := Config{CreateNamespaces: true, Patience: bellhop.Duration(3 * time.Second), Resync: bellhop.Duration(5 * time.Second)}
	b := setup(t, config)
	spec := func(script string) bellhop.Spec {
		// As many as the others have: an update to fewer would take what is too many of the old away at once.
		return bellhop.Spec{Image: "bellhop.test/" + script + ":1", Replicas: 2}
	}
	ready := spec("well")
	ready.Ports = []bellhop.Port{{Name: "http", ContainerPort: 8080}}
	failing := func(name, script, evidence string, code bellhop.Code) providertest.Failing {
		return providertest.Failing{
			Name: name, Template: providertest.Template{Spec: spec(script)}, Codes: []bellhop.Code{code}, Leaves: true, Evidence: evidence,
		}
	}
	providertest.Run(t, providertest.Suite{
		New: func(t *testing.T) activities.Provider {
			t.Helper()
			return setup(t, config).Provider
		},
		Prompt: time.Minute, Patience: 3 * time.Minute,
		Ready: providertest.Template{Spec: ready},
		Slow:  &providertest.Template{Spec: spec("never-ready")},
		Failing: []providertest.Failing{
			failing("NoSuchImage", "pull", "events", bellhop.CodeImagePullFailed),
			failing("CrashLoop", "crash", "logs", bellhop.CodeContainerExited),
			failing("OutOfMemory", "oom", "exit_code", bellhop.CodeOutOfMemory),
			failing("NoSuchSecret", "config-error", "message", bellhop.CodeInvalidSpec),
		},
		Count: func(t *testing.T, tenant string) int {
			t.Helper()
			return len(b.podsOfTenant(tenant))
		},
		Foreign: func(t *testing.T, tenant, resource string) func() error {
			t.Helper()
			k := key{b.namespaceOf(tenant), tenant, resource}
			makeNamespace(t, b.admin, k.namespace)
			labels := map[string]string{"app": "theirs"}
			theirs, err := b.admin.AppsV1().Deployments(k.namespace).Create(t.Context(), &appsv1.Deployment{
				ObjectMeta: metav1.ObjectMeta{Name: k.objectName()},
				Spec: appsv1.DeploymentSpec{
					Replicas: new(int32(1)), Selector: &metav1.LabelSelector{MatchLabels: labels},
					Template: corev1.PodTemplateSpec{
						ObjectMeta: metav1.ObjectMeta{Labels: labels},
						Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "theirs"}}},
					},
				},
			}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return func() error { return untouched(t, b, theirs) }
		},
		Break:          func(t *testing.T, tenant, _ string) { t.Helper(); b.script(tenant, "crash") },
		WatchTellsGone: true,
	})
}

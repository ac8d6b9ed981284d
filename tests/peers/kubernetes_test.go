package peers_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"bellhop/tests/peers"
)

func TestMain(m *testing.M) {
	code := m.Run()
	peers.EndSharedKubernetes()
	os.Exit(code) //nolint:forbidigo // it is this program's main
}

const patience = time.Minute

// clientOf speaks as the user of a kubeconfig.
func clientOf(t *testing.T, kubeconfig string) *kubernetes.Clientset {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
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

// setup is a namespace in the shared cluster, and the administrator.
func setup(t *testing.T) (k *peers.Kubernetes, admin *kubernetes.Clientset, namespace string) {
	t.Helper()
	k = peers.SharedKubernetes(t)
	admin = clientOf(t, k.Kubeconfig)
	made, err := admin.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = admin.CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), made.Name, metav1.DeleteOptions{}) // the cluster ends soon anyway
	})
	return k, admin, made.Name
}

// eventually waits until something holds; it tells what it saw last otherwise.
func eventually(t *testing.T, what string, holds func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		done, saw := holds()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in %s; last seen:\n%s", what, patience, saw)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func podTemplate(image string, restart corev1.RestartPolicy) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{RestartPolicy: restart, Containers: []corev1.Container{{Name: "web", Image: image}}},
	}
}

func deploy(t *testing.T, client *kubernetes.Clientset, namespace, image string) {
	t.Helper()
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
		Template: podTemplate(image, corev1.RestartPolicyAlways),
	}}
	if _, err := client.AppsV1().Deployments(namespace).Create(t.Context(), deployment, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// podWith waits until a pod of a namespace is as it should be.
func podWith(t *testing.T, client *kubernetes.Clientset, namespace, what string, holds func(corev1.Pod) bool) corev1.Pod {
	t.Helper()
	var found corev1.Pod
	eventually(t, what, func() (bool, string) {
		pods, err := client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return false, err.Error()
		}
		saw := ""
		for _, pod := range pods.Items {
			if holds(pod) {
				found = pod
				return true, ""
			}
			saw += pod.Status.String() + "\n"
		}
		return false, saw
	})
	return found
}

func container(pod corev1.Pod) corev1.ContainerStatus {
	if len(pod.Status.ContainerStatuses) == 0 {
		return corev1.ContainerStatus{}
	}
	return pod.Status.ContainerStatuses[0]
}

func waits(pod corev1.Pod, reason string) bool {
	waiting := container(pod).State.Waiting
	return waiting != nil && waiting.Reason == reason && waiting.Message != ""
}

func isReady(pod corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	}) && container(pod).Ready && pod.Status.Phase == corev1.PodRunning
}

func isRunning(pod corev1.Pod) bool { return container(pod).State.Running != nil && !isReady(pod) }

func lastExit(pod corev1.Pod) *corev1.ContainerStateTerminated {
	if last := container(pod).LastTerminationState.Terminated; last != nil {
		return last
	}
	return &corev1.ContainerStateTerminated{}
}

// TestScriptsOfDeployments shows what a Deployment's pods go through, state after state.
func TestScriptsOfDeployments(t *testing.T) {
	peers.SharedKubernetes(t)
	type state struct {
		what  string
		holds func(corev1.Pod) bool
	}
	reads := func(reason string) state {
		return state{reason, func(pod corev1.Pod) bool { return waits(pod, reason) }}
	}
	for image, states := range map[string][]state{
		"example.com/any:1":           {{"ready", isReady}},
		"bellhop.test/web:1":          {{"ready", isReady}},
		"bellhop.test/pull:1":         {reads("ErrImagePull"), reads("ImagePullBackOff"), reads("ErrImagePull"), reads("ImagePullBackOff")},
		"bellhop.test/config-error:1": {reads("CreateContainerConfigError")},
		"bellhop.test/crash:1": {
			{"exited 3", func(pod corev1.Pod) bool {
				ended := container(pod).State.Terminated
				return pod.Status.Phase == corev1.PodRunning && ended != nil && ended.ExitCode == 3
			}},
			reads("CrashLoopBackOff"),
			{"restarted after exit 3, and exited 3 again", func(pod corev1.Pod) bool {
				return waits(pod, "CrashLoopBackOff") && container(pod).RestartCount >= 2 && lastExit(pod).ExitCode == 3 && lastExit(pod).Reason == "Error"
			}},
		},
		"bellhop.test/oom:1": {{"killed for its memory", func(pod corev1.Pod) bool {
			return waits(pod, "CrashLoopBackOff") && container(pod).RestartCount >= 1 && lastExit(pod).ExitCode == 137 && lastExit(pod).Reason == "OOMKilled"
		}}},
		"bellhop.test/never-ready:1": {{"running, not ready", isRunning}},
		"bellhop.test/slow:1":        {{"ContainerCreating", func(pod corev1.Pod) bool { return container(pod).State.Waiting != nil }}, {"ready", isReady}},
		"bellhop.test/evicted:1": {{"ready", isReady}, {"evicted", func(pod corev1.Pod) bool {
			return pod.Status.Phase == corev1.PodFailed && pod.Status.Reason == "Evicted" && pod.Status.Message != ""
		}}},
	} {
		t.Run(image, func(t *testing.T) {
			t.Parallel()
			_, admin, namespace := setup(t)
			deploy(t, admin, namespace, image)
			for _, state := range states {
				podWith(t, admin, namespace, state.what, state.holds)
			}
		})
	}
}

// TestScriptsOfJobs shows what becomes of a Job.
func TestScriptsOfJobs(t *testing.T) {
	peers.SharedKubernetes(t)
	for image, want := range map[string]struct {
		phase corev1.PodPhase
		exit  int32
		job   batchv1.JobConditionType
	}{
		"example.com/any:1":      {corev1.PodSucceeded, 0, batchv1.JobComplete},
		"bellhop.test/fail:1":    {corev1.PodFailed, 4, batchv1.JobFailed},
		"bellhop.test/evicted:1": {corev1.PodFailed, 137, batchv1.JobFailed},
	} {
		t.Run(image, func(t *testing.T) {
			t.Parallel()
			_, admin, namespace := setup(t)
			job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "work"}, Spec: batchv1.JobSpec{
				BackoffLimit: new(int32), Template: podTemplate(image, corev1.RestartPolicyNever),
			}}
			if _, err := admin.BatchV1().Jobs(namespace).Create(t.Context(), job, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			pod := podWith(t, admin, namespace, string(want.phase), func(pod corev1.Pod) bool { return pod.Status.Phase == want.phase })
			if ended := container(pod).State.Terminated; ended == nil || ended.ExitCode != want.exit {
				t.Fatalf("ended with %+v, want exit %d", ended, want.exit)
			}
			eventually(t, string(want.job), func() (bool, string) {
				job, err := admin.BatchV1().Jobs(namespace).Get(t.Context(), "work", metav1.GetOptions{})
				if err != nil {
					return false, err.Error()
				}
				return slices.ContainsFunc(job.Status.Conditions, func(c batchv1.JobCondition) bool {
					return c.Type == want.job && c.Status == corev1.ConditionTrue
				}), job.Status.String()
			})
		})
	}
}

// TestScriptOnDemand has a pod that was ready become unhealthy, well again, and evicted.
func TestScriptOnDemand(t *testing.T) {
	t.Parallel()
	_, admin, namespace := setup(t)
	deploy(t, admin, namespace, "example.com/any:1")
	pod := podWith(t, admin, namespace, "ready", isReady)
	for _, step := range []struct {
		annotation string
		holds      func(corev1.Pod) bool
	}{
		{`"never-ready"`, isRunning},
		{`null`, isReady},
		{`"crash"`, func(pod corev1.Pod) bool { return waits(pod, "CrashLoopBackOff") }},
		{`null`, isReady},
		{`"evicted"`, func(pod corev1.Pod) bool { return pod.Status.Reason == "Evicted" }},
	} {
		patch := `{"metadata": {"annotations": {"bellhop.test/script": ` + step.annotation + `}}}`
		if _, err := admin.CoreV1().Pods(namespace).Patch(t.Context(), pod.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		podWith(t, admin, namespace, step.annotation, func(now corev1.Pod) bool { return now.Name == pod.Name && step.holds(now) })
	}
	podWith(t, admin, namespace, "another in the place of the evicted one", func(now corev1.Pod) bool { return now.Name != pod.Name && isReady(now) })
}

// TestScriptThatLingers shows that a pod outlives the deletion of its Deployment, and that the foreground deletion ends
// with it.
func TestScriptThatLingers(t *testing.T) {
	t.Parallel()
	_, admin, namespace := setup(t)
	deploy(t, admin, namespace, "bellhop.test/lingers:1")
	podWith(t, admin, namespace, "ready", isReady)
	began := time.Now()
	foreground := metav1.DeletePropagationForeground
	if err := admin.AppsV1().Deployments(namespace).Delete(t.Context(), "web", metav1.DeleteOptions{PropagationPolicy: &foreground}); err != nil {
		t.Fatal(err)
	}
	podWith(t, admin, namespace, "ending", func(pod corev1.Pod) bool { return pod.DeletionTimestamp != nil && isReady(pod) })
	eventually(t, "the deployment to be gone", func() (bool, string) {
		_, err := admin.AppsV1().Deployments(namespace).Get(t.Context(), "web", metav1.GetOptions{})
		return apierrors.IsNotFound(err), fmt.Sprint(err)
	})
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("it was gone after %s, before its pod can have ended", took)
	}
	if pods, err := admin.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{}); err != nil || len(pods.Items) > 0 {
		t.Errorf("there are %d pods, %v", len(pods.Items), err)
	}
}

// TestEventsAndLogs shows what a person would look at after a crash.
func TestEventsAndLogs(t *testing.T) {
	t.Parallel()
	k, admin, namespace := setup(t)
	deploy(t, admin, namespace, "bellhop.test/crash:1")
	pod := podWith(t, admin, namespace, "CrashLoopBackOff", func(pod corev1.Pod) bool { return waits(pod, "CrashLoopBackOff") })
	eventually(t, "an event", func() (bool, string) {
		events, err := admin.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + pod.Name})
		if err != nil {
			return false, err.Error()
		}
		return slices.ContainsFunc(events.Items, func(e corev1.Event) bool { return e.Reason == "BackOff" && e.Type == corev1.EventTypeWarning }), events.String()
	})
	if err := k.PreviousLog("one", "two", "panic: three"); err != nil {
		t.Fatal(err)
	}
	for previous, want := range map[bool]string{false: "listening on :8080\n", true: "two\npanic: three\n"} {
		lines := int64(2)
		text, err := admin.CoreV1().Pods(namespace).GetLogs(pod.Name, &corev1.PodLogOptions{Container: "web", Previous: previous, TailLines: &lines}).DoRaw(t.Context())
		if err != nil || string(text) != want {
			t.Errorf("the log (previous: %t) is %q, %v; want %q", previous, text, err, want)
		}
	}
}

// TestLogin has a user do what RBAC lets it, through a cable that is cut, and reads what it did in the audit log.
func TestLogin(t *testing.T) {
	t.Parallel()
	k, admin, namespace := setup(t)
	user := "system:serviceaccount:" + namespace + ":worker"
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"apps"}, Resources: []string{"deployments"}, Verbs: []string{"list", "watch"}},
	}}
	if _, err := admin.RbacV1().Roles(namespace).Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "b"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "r"},
		Subjects: []rbacv1.Subject{
			{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: "worker"},
			{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: "guests"},
		},
	}
	if _, err := admin.RbacV1().RoleBindings(namespace).Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	parsed, err := url.Parse(k.URL)
	if err != nil {
		t.Fatal(err)
	}
	cable, err := peers.StartCable(t.Context(), parsed.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cable.Close)
	login, err := k.Login("https://"+cable.Address, user)
	if err != nil {
		t.Fatal(err)
	}
	client := clientOf(t, login)
	eventually(t, "the binding to count", func() (bool, string) {
		_, err := client.AppsV1().Deployments(namespace).List(t.Context(), metav1.ListOptions{})
		return err == nil, fmt.Sprint(err)
	})
	if _, err := client.CoreV1().Pods(namespace).Get(t.Context(), "p", metav1.GetOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("get of a pod: %v, want forbidden", err)
	}
	watch, err := client.AppsV1().Deployments(namespace).Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	cable.Cut()
	for range watch.ResultChan() { // ends with the connection, long before the API server would end it
	}
	if _, err := client.AppsV1().Deployments(namespace).List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("list after the cut: %v", err)
	}
	calls, err := k.Calls(user)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, call := range calls {
		if said := call.Verb + " " + call.Group + "/" + call.Resource; !slices.Contains(got, said) {
			got = append(got, said)
		}
	}
	if want := "list apps/deployments, get /pods, watch apps/deployments"; strings.Join(got, ", ") != want {
		t.Errorf("calls: %s; want %s", strings.Join(got, ", "), want)
	}
	guest, err := k.Login(k.URL, "somebody", "guests")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := clientOf(t, guest).AppsV1().Deployments(namespace).List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("list as a member of a group: %v", err)
	}
}

// TestRestartOfAPIServer has a cluster go on after its API server was killed, with what it had and with what is new.
func TestRestartOfAPIServer(t *testing.T) {
	t.Parallel()
	k := peers.KubernetesFor(t)
	admin := clientOf(t, k.Kubeconfig)
	deploy(t, admin, "default", "example.com/any:1")
	before := podWith(t, admin, "default", "ready", isReady)
	if err := k.RestartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CoreV1().Pods("default").Get(t.Context(), before.Name, metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := admin.CoreV1().Pods("default").Delete(t.Context(), before.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	podWith(t, admin, "default", "another pod", func(pod corev1.Pod) bool { return pod.Name != before.Name && isReady(pod) })
}

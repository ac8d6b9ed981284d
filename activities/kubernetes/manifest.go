package kubernetes

import (
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"bellhop"
)

// containerName is the name of the one container of a pod. Others may be injected beside it.
const containerName = "main"

// desired is an operation with all that its objects are made of.
type desired struct {
	op     bellhop.Operation
	key    key
	config OperationConfig
	entry  Config
}

func (d desired) meta(name string) metav1.ObjectMeta {
	annotations := signature(d.op.Generation())
	annotations[annotationSpecHash] = specHash(d.op, d.config)
	return metav1.ObjectMeta{Namespace: d.key.namespace, Name: name, Labels: d.key.labels(), Annotations: annotations}
}

// deployment replaces its pods by surge: what served before goes on serving until the new is ready, and when the new
// never becomes ready.
func (d desired) deployment() *appsv1.Deployment {
	steady := int32(time.Duration(d.entry.SteadyAfter) / time.Second) //nolint:gosec // checked
	deadline := time.Duration(d.entry.ProgressDeadline)
	if check := d.op.Spec.HealthCheck; check != nil {
		steady = 0 // the check tells
		deadline += time.Duration(check.StartPeriod)
	}
	none, some := intstr.FromInt32(0), intstr.FromString("25%")
	pod := d.pod()
	pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	return &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: d.meta(d.key.objectName()),
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(d.op.Spec.Replicas)), //nolint:gosec // at most 1000
			Selector: &metav1.LabelSelector{MatchLabels: d.key.labels()},
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: &none, MaxSurge: &some},
			},
			MinReadySeconds:         steady,
			ProgressDeadlineSeconds: new(seconds(deadline)),
			RevisionHistoryLimit:    new(int32(2)), // nobody rolls back by hand what an operation rolls forward
			Template:                pod,
		},
	}
}

// job runs every replica once, at the same time.
func (d desired) job() *batchv1.Job {
	replicas := int32(d.op.Spec.Replicas) //nolint:gosec // at most 1000
	pod := d.pod()
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever // each failed try is a pod of its own, with its log
	return &batchv1.Job{
		TypeMeta:   metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"},
		ObjectMeta: d.meta(d.key.jobName(d.op.ID)),
		Spec: batchv1.JobSpec{
			Parallelism: &replicas, Completions: &replicas,
			BackoffLimit: new(int32(d.config.Retries)), //nolint:gosec // at most 100
			Template:     pod,
		},
	}
}

// service leads to the pods by the ports' names, so that it serves those of two versions whose numbers differ. It goes
// with its deployment.
func (d desired) service(owner *appsv1.Deployment) *corev1.Service {
	meta := d.meta(d.key.objectName())
	meta.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: owner.Name, UID: owner.UID, Controller: new(true)}}
	service := &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: meta,
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceType(d.entry.ServiceType), Selector: d.key.labels()},
	}
	for _, port := range d.op.Spec.Ports {
		service.Spec.Ports = append(service.Spec.Ports, corev1.ServicePort{
			Name: port.Name, Protocol: protocol(port), Port: int32(port.ContainerPort), //nolint:gosec // at most 65535
			TargetPort: intstr.FromString(port.Name),
		})
	}
	return service
}

func (d desired) pod() corev1.PodTemplateSpec {
	spec := d.op.Spec
	container := corev1.Container{
		Name: containerName, Image: spec.Image, Command: literals(spec.Command), Args: literals(spec.Args),
		Env: environment(spec), Resources: resources(spec),
		SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: new(false)},
	}
	for _, port := range spec.Ports {
		container.Ports = append(container.Ports, corev1.ContainerPort{
			Name: port.Name, Protocol: protocol(port), ContainerPort: int32(port.ContainerPort), //nolint:gosec // at most 65535
		})
	}
	if check := spec.HealthCheck; check != nil {
		// It decides on readiness alone: a replica that is unhealthy for a while is not killed for it.
		container.ReadinessProbe = &corev1.Probe{
			ProbeHandler:     corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: literals(check.Command)}},
			PeriodSeconds:    seconds(time.Duration(check.Interval)),
			TimeoutSeconds:   seconds(time.Duration(check.Timeout)),
			FailureThreshold: int32(check.Retries), //nolint:gosec // at most 10
		}
	}
	pod := corev1.PodSpec{
		ServiceAccountName: d.entry.ServiceAccount,
		// A tenant's process has no business with the cluster unless the operator gave it an account.
		AutomountServiceAccountToken: new(d.entry.ServiceAccount != ""),
		EnableServiceLinks:           new(false), // they would tell each tenant of all others' services
		NodeSelector:                 d.entry.NodeSelector,
		SecurityContext: &corev1.PodSecurityContext{
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
	}
	if d.entry.PodSecurity == PodSecurityRestricted {
		pod.SecurityContext.RunAsNonRoot = new(true)
		container.SecurityContext.Capabilities = &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}
	}
	if d.config.RunAsUser > 0 {
		pod.SecurityContext.RunAsUser = &d.config.RunAsUser
	}
	if d.entry.ownCredentials() {
		// What is on the node may be an image that only another tenant can pull.
		container.ImagePullPolicy = corev1.PullAlways
	}
	for _, name := range d.entry.ImagePullSecrets {
		pod.ImagePullSecrets = append(pod.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	pod.Containers = []corev1.Container{container}
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: d.key.labels(), Annotations: signature(d.op.Generation())},
		Spec:       pod,
	}
}

func environment(spec bellhop.Spec) []corev1.EnvVar {
	var env []corev1.EnvVar
	for _, name := range slices.Sorted(maps.Keys(spec.Env)) {
		env = append(env, corev1.EnvVar{Name: name, Value: literal(spec.Env[name])})
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Secrets)) {
		parts := secretPattern.FindStringSubmatch(spec.Secrets[name])
		env = append(env, corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: parts[1]}, Key: parts[3],
		}}})
	}
	return env
}

// literal keeps Kubernetes from expanding $(NAME): an operation means what it says, at every provider.
func literal(text string) string {
	if strings.Contains(text, "$(") || strings.Contains(text, "$$") {
		return strings.ReplaceAll(text, "$", "$$")
	}
	return text
}

func literals(texts []string) []string {
	if texts == nil {
		return nil
	}
	escaped := make([]string, len(texts))
	for i, text := range texts {
		escaped[i] = literal(text)
	}
	return escaped
}

// meant is what literal was made of.
func meant(text string) string { return strings.ReplaceAll(text, "$$", "$") }

// resources asks for what it limits to, so that a replica gets what it may use.
func resources(spec bellhop.Spec) corev1.ResourceRequirements {
	list := corev1.ResourceList{}
	if spec.CPUMillis > 0 {
		list[corev1.ResourceCPU] = *resource.NewMilliQuantity(int64(spec.CPUMillis), resource.DecimalSI)
	}
	if spec.MemoryMiB > 0 {
		list[corev1.ResourceMemory] = *resource.NewQuantity(int64(spec.MemoryMiB)<<20, resource.BinarySI)
	}
	if len(list) == 0 {
		return corev1.ResourceRequirements{}
	}
	return corev1.ResourceRequirements{Requests: list, Limits: list}
}

func protocol(port bellhop.Port) corev1.Protocol {
	if port.Protocol == "udp" {
		return corev1.ProtocolUDP
	}
	return corev1.ProtocolTCP
}

// seconds rounds up: the cluster knows no less.
func seconds(d time.Duration) int32 {
	return int32((d + time.Second - 1) / time.Second) //nolint:gosec // durations of an operation are days at the most
}

func (d desired) namespace() *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name:   d.key.namespace,
		Labels: map[string]string{labelManagedBy: manager, "pod-security.kubernetes.io/enforce": d.entry.PodSecurity},
	}}
}

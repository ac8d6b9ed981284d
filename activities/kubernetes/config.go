package kubernetes

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"bellhop"
	"bellhop/activities"
	"bellhop/internal/allowlist"
)

// Config is an entry of type kubernetes under providers in the worker's configuration: one cluster. The zero value is the
// cluster that the worker runs in, else the current one of kubectl, with every default.
type Config struct {
	// Kubeconfig is the path of a kubeconfig. Default: the cluster that the worker runs in when it runs in one, else
	// KUBECONFIG, else ~/.kube/config.
	Kubeconfig string `json:"kubeconfig" file:"secret"`
	// Context names a context of the kubeconfig. Default: its current one.
	Context string `json:"context"`
	// Namespace is where compute runs. "{tenant}" in it stands for the tenant, so that each has a namespace of its own;
	// without it all tenants share one. Default "bellhop-{tenant}".
	Namespace string `json:"namespace"`
	// CreateNamespaces makes a namespace that is missing, with labels that enforce pod_security in it. Bellhop never removes
	// one. Default false: an operation whose namespace is missing fails.
	CreateNamespaces bool `json:"create_namespaces"`
	// PodSecurity is the Pod Security Standard that pods keep: "restricted" (the default: no root, no capabilities) or
	// "baseline", for images that need to run as root.
	PodSecurity string `json:"pod_security"`
	// ServiceAccount is what pods run as; it must exist in each namespace. Its token is mounted. Default: the namespace's
	// default one, and no token is mounted.
	ServiceAccount string `json:"service_account"`
	// ImagePullSecrets are the names of secrets with registry credentials; they must exist in each namespace. Operations
	// cannot refer to them. Beside them, each pod's image is looked up at its registry, also when its node has it, if each
	// tenant has a namespace of its own. Default: none.
	ImagePullSecrets []string `json:"image_pull_secrets"`
	// Secrets are patterns of the references, "NAME/KEY", that spec.secrets may hold. "*" stands for any text, and they
	// may hold {tenant}: "app-*", "tenant-{tenant}/*". Registry credentials, tokens of service accounts and Helm's releases
	// need a pattern without "*". Default: none, spec.secrets are rejected.
	Secrets []string `json:"secrets"`
	// Images are patterns of the repositories whose images operations may run, in full and without a tag, in the same
	// form: "docker.io/library/*", "registry.example.com/{tenant}/*". Default: all.
	Images []string `json:"images"`
	// NodeSelector is what nodes must be labelled with to run tenants' pods. Default: any node.
	NodeSelector map[string]string `json:"node_selector"`
	// ServiceType is the type of the services for named ports: "ClusterIP" (the default) or "LoadBalancer", which is
	// waited for until it has an address.
	ServiceType string `json:"service_type"`
	// Patience is how old a pod must be for an image that cannot be pulled, a container that cannot be made or one that
	// crashes again and again to fail the operation. Default "1m".
	Patience bellhop.Duration `json:"patience"`
	// ProgressDeadline is how long a rollout may stand still before the operation fails; a health check's start period
	// is added to it. In whole seconds. Default "10m".
	ProgressDeadline bellhop.Duration `json:"progress_deadline"`
	// SteadyAfter is how long a replica without a health check must have run to count as ready, so that one that dies at
	// its start is never called provisioned. In whole seconds. Default "1s".
	SteadyAfter bellhop.Duration `json:"steady_after"`
	// Resync is how often the watcher looks at everything it knows although the cluster reported no change. It asks the
	// cluster nothing. Default "1m".
	Resync bellhop.Duration `json:"resync"`
}

// Values and defaults of a [Config].
const (
	DefaultNamespace        = "bellhop-{tenant}"
	DefaultPatience         = time.Minute
	DefaultProgressDeadline = 10 * time.Minute
	DefaultSteadyAfter      = time.Second
	DefaultResync           = time.Minute

	PodSecurityRestricted = "restricted"
	PodSecurityBaseline   = "baseline"

	ServiceClusterIP    = "ClusterIP"
	ServiceLoadBalancer = "LoadBalancer"
)

// clusterNamespaces are those that the cluster makes for itself.
var clusterNamespaces = []string{"kube-system", "kube-public", "kube-node-lease"}

// withDefaults fills in the defaults and reports everything that is wrong, as [bellhop.Faults].
func (c Config) withDefaults() (Config, error) {
	var faults bellhop.Faults
	if c.Namespace == "" {
		c.Namespace = DefaultNamespace
	}
	fixed := strings.ReplaceAll(c.Namespace, allowlist.Tenant, "x")
	switch {
	case fixed == "x":
		// A tenant that calls itself kube-system would have that.
		faults.Add("namespace", "must have more in it than %s, such as %q", allowlist.Tenant, DefaultNamespace)
	case len(validation.IsDNS1123Label(fixed)) > 0 || len(fixed) > maxNamespacePattern:
		faults.Add("namespace", "must be at most %d of a-z, 0-9 and '-', beginning and ending with a letter or digit, and %s",
			maxNamespacePattern, allowlist.Tenant)
	}
	for _, name := range clusterNamespaces {
		before, after, template := strings.Cut(c.Namespace, allowlist.Tenant)
		if c.Namespace == name || template && fixed != "x" && len(name) > len(before)+len(after) &&
			strings.HasPrefix(name, before) && strings.HasSuffix(name, after) {
			faults.Add("namespace", "must not be able to become %s, which belongs to the cluster", name)
		}
	}
	for i, pattern := range c.Secrets {
		if !strings.ContainsAny(pattern, "/*") {
			faults.Add(fmt.Sprintf("secrets[%d]", i), `must be the pattern of a reference, such as "database/*"`)
		}
	}
	allowlist.Check("secrets", c.Secrets, &faults)
	allowlist.Check("images", c.Images, &faults)
	oneOf := func(path string, value *string, values ...string) {
		if *value == "" {
			*value = values[0]
		}
		if !slices.Contains(values, *value) {
			faults.Add(path, `must be %q or %q`, values[0], values[1])
		}
	}
	oneOf("pod_security", &c.PodSecurity, PodSecurityRestricted, PodSecurityBaseline)
	oneOf("service_type", &c.ServiceType, ServiceClusterIP, ServiceLoadBalancer)
	if c.ServiceAccount != "" && len(validation.IsDNS1123Subdomain(c.ServiceAccount)) > 0 {
		faults.Add("service_account", "is not the name of a service account")
	}
	for i, name := range c.ImagePullSecrets {
		if len(validation.IsDNS1123Subdomain(name)) > 0 {
			faults.Add(fmt.Sprintf("image_pull_secrets[%d]", i), "is not the name of a secret")
		}
	}
	for name, value := range c.NodeSelector {
		if problems := append(validation.IsQualifiedName(name), validation.IsValidLabelValue(value)...); len(problems) > 0 {
			faults.Add("node_selector."+name, "%s", strings.Join(problems, "; "))
		}
	}
	for _, d := range []struct {
		path     string
		value    *bellhop.Duration
		standard time.Duration
		least    time.Duration
		whole    bool
	}{
		{"patience", &c.Patience, DefaultPatience, time.Second, false},
		{"progress_deadline", &c.ProgressDeadline, DefaultProgressDeadline, 2 * time.Second, true},
		{"steady_after", &c.SteadyAfter, DefaultSteadyAfter, time.Second, true},
		{"resync", &c.Resync, DefaultResync, time.Second, false},
	} {
		if *d.value == 0 {
			*d.value = bellhop.Duration(d.standard)
		}
		if time.Duration(*d.value) < d.least {
			faults.Add(d.path, "must be at least %s", d.least)
		}
		if d.whole && time.Duration(*d.value)%time.Second != 0 {
			faults.Add(d.path, "must be whole seconds: the cluster knows no less")
		}
	}
	if c.ProgressDeadline <= c.SteadyAfter && c.SteadyAfter > 0 {
		faults.Add("progress_deadline", "must be longer than steady_after")
	}
	return c, faults.Err()
}

// OperationConfig is the provider_config of an operation.
type OperationConfig struct {
	// Kind is "deployment" (the default: it runs until it is deleted) or "job" (it runs once; the operation succeeds when
	// every replica has ended with exit code 0). A resource keeps its kind until it is deleted.
	Kind string `json:"kind"`
	// Retries is how many pods of a job may fail before the job has, 0 to 100. Default 0. For jobs only.
	Retries int `json:"retries"`
	// RunAsUser is the user id that the processes run as, at least 1. Default: the image's, which must be a number other
	// than 0 unless pod_security is "baseline".
	RunAsUser int64 `json:"run_as_user"`
}

// Values of an [OperationConfig].
const (
	KindDeployment = "deployment"
	KindJob        = "job"
)

const maxRetries = 100

// Check says what is wrong with an operation's provider_config and what Kubernetes cannot do of its spec, as
// [bellhop.Faults]; nil when nothing is.
func Check(op bellhop.Operation) error {
	_, faults := check(op)
	return faults.Err()
}

// check reads an operation's provider_config and fills in its defaults.
func check(op bellhop.Operation) (OperationConfig, bellhop.Faults) {
	var (
		config OperationConfig
		faults bellhop.Faults
	)
	faults.Note("", activities.DecodeConfig(op.ProviderConfig, &config))
	const at = "provider_config."
	switch config.Kind {
	case "":
		config.Kind = KindDeployment
	case KindDeployment, KindJob:
	default:
		faults.Add(at+"kind", "must be %q or %q", KindDeployment, KindJob)
	}
	if config.Retries < 0 || config.Retries > maxRetries {
		faults.Add(at+"retries", "must be 0 to %d", maxRetries)
	}
	if config.Retries != 0 && config.Kind == KindDeployment {
		faults.Add(at+"retries", "must be left out for a deployment, whose containers are restarted without end")
	}
	if config.RunAsUser < 0 {
		faults.Add(at+"run_as_user", "must be at least 1")
	}
	if op.Verb != bellhop.Delete {
		checkSpec(op.Spec, config, &faults)
	}
	return config, faults
}

// secretPattern is a reference to a secret: its name and a key in it.
var secretPattern = regexp.MustCompile(`^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)/([A-Za-z0-9._-]{1,253})$`)

// reserved are references to what belongs to the cluster or the operator wherever it lies: registry credentials, tokens of
// service accounts as Kubernetes names them, and what Helm keeps of its releases.
var reserved = regexp.MustCompile(`/\.docker(cfg|configjson)$|^[^/]*-token-[a-z0-9]{5}/|^sh\.helm\.release\.`)

// permits reports what the provider's entry does not allow the operation's tenant to name.
func (c Config) permits(op bellhop.Operation, faults *bellhop.Faults) {
	spelled := slices.DeleteFunc(slices.Clone(c.Secrets), func(pattern string) bool { return strings.Contains(pattern, "*") })
	for variable, secret := range op.Spec.Secrets {
		path := "spec.secrets." + variable
		parts := secretPattern.FindStringSubmatch(secret)
		switch {
		case parts == nil: // reported already
		case slices.Contains(c.ImagePullSecrets, parts[1]):
			faults.AddHere(path, "must not refer to the registry's credentials")
		case reserved.MatchString(secret) && !allowlist.Allows(spelled, op.TenantID, secret):
			faults.AddHere(path, `may refer to credentials of the cluster; the operator allows it in the provider's secrets by a pattern without "*"`)
		case !allowlist.Allows(c.Secrets, op.TenantID, secret):
			faults.AddHere(path, "is not allowed to tenant %s; the operator allows references in the provider's secrets", op.TenantID)
		}
	}
	if op.Spec.Image != "" && c.Images != nil && !allowlist.AllowsImage(c.Images, op.TenantID, op.Spec.Image) {
		faults.AddHere("spec.image", "is not allowed to tenant %s; the operator allows repositories in the provider's images", op.TenantID)
	}
}

func checkSpec(spec bellhop.Spec, config OperationConfig, faults *bellhop.Faults) {
	faults.Note("spec.image", allowlist.CheckImage(spec.Image))
	for name, secret := range spec.Secrets {
		if !secretPattern.MatchString(secret) {
			// The reference is not repeated: a value put here by mistake is a secret.
			faults.Add("spec.secrets."+name, `must name a secret of the tenant's namespace and a key in it, such as "database/password"`)
		}
	}
	for i, port := range spec.Ports {
		if problems := validation.IsValidPortName(port.Name); len(problems) > 0 {
			faults.Add(fmt.Sprintf("spec.ports[%d].name", i), "must be one for Kubernetes too: %s", strings.Join(problems, "; "))
		}
	}
	if config.Kind != KindJob {
		return
	}
	if len(spec.Ports) > 0 {
		faults.Add("spec.ports", "must be left out for a job: it serves nobody")
	}
	if spec.HealthCheck != nil {
		faults.Add("spec.health_check", "must be left out for a job: its exit code tells")
	}
}

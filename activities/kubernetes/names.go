package kubernetes

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bellhop"
	"bellhop/internal/allowlist"
)

// Labels select, annotations tell. The names of tenants and resources keep the rules for labels' values; an operation's
// id does not. Together they hold all that is needed to judge an operation without having its input, which the watcher
// has not.
const (
	labelManagedBy = "app.kubernetes.io/managed-by"
	labelTenant    = "bellhop.tenant"
	labelResource  = "bellhop.resource"

	annotationOperation  = "bellhop.operation"
	annotationGeneration = "bellhop.generation" // when the operation was requested, RFC 3339 with nanoseconds
	annotationSpecHash   = "bellhop.spec-hash"  // of the spec, the provider_config and what the entry adds to them

	// manager is who bellhop is, to the API server and in labels.
	manager = "bellhop"
	// ours selects all that is bellhop's.
	ours = labelManagedBy + "=" + manager
)

// key names a resource of a cluster.
type key struct{ namespace, tenant, resource string }

func (k key) String() string { return k.namespace + "/" + k.tenant + "/" + k.resource }

// selector selects what belongs to the resource.
func (k key) selector() string {
	return fmt.Sprintf("%s,%s=%s,%s=%s", ours, labelTenant, k.tenant, labelResource, k.resource)
}

func (p *Provider) keyOf(op bellhop.Operation) key {
	return key{p.namespaceOf(op.TenantID), op.TenantID, op.Resource}
}

// identity is what our labels and annotations say of an object.
type identity struct {
	key
	generation bellhop.Generation
	specHash   string
}

// identify reads them. An object with labels or annotations that we cannot have written is not ours.
func identify(object metav1.Object) (identity, bool) {
	labels, annotations := object.GetLabels(), object.GetAnnotations()
	at, err := time.Parse(time.RFC3339Nano, annotations[annotationGeneration])
	if err != nil || labels[labelManagedBy] != manager || labels[labelTenant] == "" || labels[labelResource] == "" ||
		annotations[annotationOperation] == "" {
		return identity{}, false
	}
	return identity{
		key:        key{object.GetNamespace(), labels[labelTenant], labels[labelResource]},
		generation: bellhop.Generation{RequestedAt: at, OperationID: annotations[annotationOperation]},
		specHash:   annotations[annotationSpecHash],
	}, true
}

func (k key) labels() map[string]string {
	return map[string]string{labelManagedBy: manager, labelTenant: k.tenant, labelResource: k.resource}
}

// signature is the annotations of what an operation has touched.
func signature(generation bellhop.Generation) map[string]string {
	return map[string]string{
		annotationOperation:  generation.OperationID,
		annotationGeneration: generation.RequestedAt.UTC().Format(time.RFC3339Nano),
	}
}

// hash tells parts apart however they are cut: with their lengths, "a-b" and "c" differ from "a" and "b-c".
func hash(parts ...string) string {
	sum := sha256.New()
	for _, part := range parts {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		sum.Write(length[:])
		sum.Write([]byte(part))
	}
	return hex.EncodeToString(sum.Sum(nil))
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// readable makes of a name what a DNS label takes, for people; it tells nothing apart.
func readable(name string, limit int) string {
	name = notInNames.ReplaceAllString(strings.ToLower(name), "-")
	return strings.Trim(name[:min(len(name), limit)], "-")
}

// objectName is the name of a resource's deployment and service, and the beginning of its jobs' names. It has room for
// what Kubernetes adds to make the names of pods.
func (k key) objectName() string {
	return "bellhop-" + readable(k.tenant+"-"+k.resource, 24) + "-" + hash(k.tenant, k.resource)[:10]
}

// jobName is the name of an operation's job: each operation runs its own.
func (k key) jobName(operation string) string { return k.objectName() + "-" + hash(operation)[:8] }

var (
	plainTenant = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
	likeHashed  = regexp.MustCompile(`-[0-9a-f]{10}$`)
)

const (
	// maxPlainTenant is how long a tenant's name may be to stand in a namespace's name as it is.
	maxPlainTenant = 30
	// maxNamespacePattern leaves room for that within the 63 characters of a namespace's name, and for a hash.
	maxNamespacePattern = 63 - maxPlainTenant
)

// namespaceOf is a tenant's namespace. A tenant whose name does not fit gets a hash into it; so does one whose name looks
// as if it had one already, lest it choose another tenant's.
func (p *Provider) namespaceOf(tenant string) string {
	name := tenant
	if !plainTenant.MatchString(tenant) || len(tenant) > maxPlainTenant || likeHashed.MatchString(tenant) {
		name = strings.TrimPrefix(readable(tenant, maxPlainTenant-11)+"-"+hash(tenant)[:10], "-")
	}
	return allowlist.ForTenant(p.config.Namespace, name)
}

// perTenant says whether each tenant has a namespace of its own.
func (c Config) perTenant() bool { return strings.Contains(c.Namespace, allowlist.Tenant) }

// ownCredentials says whether each tenant may have registry credentials of its own.
func (c Config) ownCredentials() bool { return c.perTenant() && len(c.ImagePullSecrets) > 0 }

// specHash tells whether an object was made from what the operation asks for. It covers environment values too: it is
// one SHA-256 over everything with the operation's id, and whoever can read it can read the environment beside it.
func specHash(op bellhop.Operation, config OperationConfig) string {
	text, err := json.Marshal(struct {
		ID     string
		Spec   bellhop.Spec
		Config OperationConfig
	}{op.ID, op.Spec, config})
	if err != nil { // plain data
		panic(fmt.Sprintf("kubernetes: hash a spec: %s", err))
	}
	return hash(string(text))
}

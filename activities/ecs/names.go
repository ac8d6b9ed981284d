package ecs

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"bellhop"
)

// key names a resource.
type key struct{ tenant, resource string }

func keyOf(op bellhop.Operation) key { return key{op.TenantID, op.Resource} }

const prefix = "bellhop-"

// name is what a resource is called at ECS: the name of its service and the beginning of its task definitions' families.
// ECS takes no dot, so the hash tells apart what would else be called the same.
func (k key) name() string {
	plain := strings.ReplaceAll(k.tenant+"-"+k.resource, ".", "-")
	return prefix + plain + "-" + digest(k.tenant + "/" + k.resource)[:10]
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// token makes repeated asks of one operation one ask. CreateService takes 36 characters.
func token(op bellhop.Operation) string { return digest(op.ID)[:36] }

// What resources of ours carry. Services and tasks carry all of it but the kind, task definitions whose
// they are and the kind.
const (
	tagTenant      = "bellhop:tenant"
	tagResource    = "bellhop:resource"
	tagOperation   = "bellhop:operation"
	tagRequestedAt = "bellhop:requested_at"
	tagVerb        = "bellhop:verb"
	tagDefinition  = "bellhop:task-definition"
	tagReplicas    = "bellhop:replicas"
	tagPorts       = "bellhop:ports"
	tagDeployment  = "bellhop:deployment"
	tagPrevious    = "bellhop:previous"
	tagKind        = "bellhop:kind" // of task definitions
)

// maxTag is how long a tag's value may be.
const maxTag = 256

// identity is what the tags of a service or of a task say.
type identity struct {
	key
	generation bellhop.Generation
	verb       bellhop.Verb
	// definition is the task definition that the operation asked for, family:revision.
	definition string
	replicas   int
	ports      []bellhop.Port
	// deployment is the one that the operation began, and begun is when. They are empty until that is known.
	deployment string
	begun      time.Time
	// previous is whom the operation took the resource over from.
	previous bellhop.Generation
}

func identityOf(op bellhop.Operation, definition string) identity {
	return identity{
		key: keyOf(op), generation: op.Generation(), verb: op.Verb,
		definition: definition, replicas: op.Spec.Replicas, ports: op.Spec.Ports,
	}
}

// tags are the identity as ECS keeps it. The deployment is written with the operation it belongs to: it is written later
// than the rest, and a worker that was held up in between must not pass its deployment off as another operation's.
func (id identity) tags() []types.Tag {
	deployment := "none"
	if id.deployment != "" {
		deployment = fmt.Sprintf("%s@%d@%s", id.deployment, id.begun.UnixMilli(), digest(id.generation.OperationID)[:8])
	}
	tags := []types.Tag{
		tag(tagTenant, id.tenant), tag(tagResource, id.resource),
		tag(tagOperation, id.generation.OperationID), tag(tagRequestedAt, id.generation.RequestedAt.Format(time.RFC3339Nano)),
		tag(tagVerb, string(id.verb)), tag(tagDefinition, id.definition), tag(tagReplicas, strconv.Itoa(id.replicas)),
		tag(tagPorts, portsText(id.ports)), tag(tagDeployment, deployment),
	}
	if id.previous.OperationID != "" {
		tags = append(tags, tag(tagPrevious, id.previous.RequestedAt.Format(time.RFC3339Nano)+" "+id.previous.OperationID))
	}
	return tags
}

func tag(name, value string) types.Tag {
	return types.Tag{Key: aws.String(name), Value: aws.String(value)}
}

// identify reads the tags of something at ECS. It says false of what is not ours.
func identify(tags []types.Tag) (identity, bool) {
	values := make(map[string]string, len(tags))
	for _, t := range tags {
		values[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	at, err := time.Parse(time.RFC3339Nano, values[tagRequestedAt])
	if err != nil || values[tagTenant] == "" || values[tagResource] == "" || values[tagOperation] == "" {
		return identity{}, false
	}
	id := identity{
		key:        key{values[tagTenant], values[tagResource]},
		generation: bellhop.Generation{RequestedAt: at, OperationID: values[tagOperation]},
		verb:       bellhop.Verb(values[tagVerb]),
		definition: values[tagDefinition],
		ports:      parsePorts(values[tagPorts]),
	}
	id.replicas, _ = strconv.Atoi(values[tagReplicas]) //nolint:errcheck // 0 when somebody changed it
	if parts := strings.Split(values[tagDeployment], "@"); len(parts) == 3 && parts[2] == digest(id.generation.OperationID)[:8] {
		id.deployment = parts[0]
		if milli, err := strconv.ParseInt(parts[1], 10, 64); err == nil {
			id.begun = time.UnixMilli(milli)
		}
	}
	if at, operation, ok := strings.Cut(values[tagPrevious], " "); ok {
		if requested, err := time.Parse(time.RFC3339Nano, at); err == nil {
			id.previous = bellhop.Generation{RequestedAt: requested, OperationID: operation}
		}
	}
	return id, true
}

// portsText is "http=8080/tcp dns=53/udp".
func portsText(ports []bellhop.Port) string {
	texts := make([]string, len(ports))
	for i, port := range ports {
		texts[i] = fmt.Sprintf("%s=%d/%s", port.Name, port.ContainerPort, port.Protocol)
	}
	return strings.Join(texts, " ")
}

func parsePorts(text string) []bellhop.Port {
	var ports []bellhop.Port
	for field := range strings.FieldsSeq(text) {
		name, rest, _ := strings.Cut(field, "=")
		number, protocol, _ := strings.Cut(rest, "/")
		if n, err := strconv.Atoi(number); err == nil {
			ports = append(ports, bellhop.Port{Name: name, ContainerPort: n, Protocol: protocol})
		}
	}
	return ports
}

// revision is the "family:revision" at the end of a task definition's ARN.
func revision(arn string) string { return lastPart(arn) }

// familyOf is the family of an ARN or of "family:revision".
func familyOf(definition string) string {
	family, _, _ := strings.Cut(lastPart(definition), ":")
	return family
}

// lastPart is what follows the last slash of an ARN: a service's name, a task's id.
func lastPart(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }

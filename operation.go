package bellhop

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Operation is what to do: a verb, applied to one resource of one tenant at one provider.
//
// Its id is the id of the workflow that carries it out, so Temporal's own uniqueness keeps it from running twice.
// Use [ParseOperation] to read one from outside; it reports everything that is wrong at once.
type Operation struct {
	// ID is the operation's id and the workflow's: 1 to 128 of the characters A-Z a-z 0-9 . _ : - . In the input of
	// a workflow it may be left out, else it must be the workflow's id.
	ID string `json:"operation_id,omitempty"`
	// Verb says what to do. In the input of a workflow it may be left out, else it must fit the workflow's type.
	Verb Verb `json:"operation_type,omitempty"`
	// RequestedAt is when the operation was started. Bellhop sets it. It is the operation's generation: of two
	// operations on one resource the one requested later wins.
	RequestedAt time.Time `json:"requested_at,omitzero"`

	// TenantID says whose compute it is: up to 63 letters, digits, '.', '_' and '-', beginning and ending with a
	// letter or digit. Required.
	TenantID string `json:"tenant_id"`
	// Resource names the compute within the tenant, in the same characters. Default "default".
	Resource string `json:"resource,omitempty"`
	// Provider names an entry under providers in the worker's configuration. Required.
	Provider string `json:"provider"`
	// Spec says what shall run. Not needed to delete.
	Spec Spec `json:"spec,omitzero"`
	// ProviderConfig is what only this provider understands; see its page.
	ProviderConfig json.RawMessage `json:"provider_config,omitempty"`
	// Callbacks are who is told, at most 16. None is fine: the status can be polled.
	Callbacks []Callback `json:"callbacks,omitempty"`
	// Timeout bounds the operation from its request to its end, "1s" to "168h". Default "30m". An operation that
	// times out fails with TIMEOUT, lists what exists and leaves it alone.
	Timeout Duration `json:"timeout,omitempty"`
	// Priority decides between operations that wait for the same workers, 1 to 5: 1 is the most urgent. A tenant may be
	// allowed less urgent ones only. Default: Temporal's, 3.
	Priority int `json:"priority,omitempty"`
	// OnCancel says what a cancelled operation does with what exists: "leave" it (the default) or, of a provision, "remove"
	// it. That removes the resource as a delete would, also what an earlier operation had made under its name and this one
	// has taken over; what serves already is changed by an update, which removes nothing.
	OnCancel CancelPolicy `json:"on_cancel,omitempty"`
	// Metadata is echoed in every outcome, up to 16 KiB. It is not a place for secrets.
	Metadata map[string]string `json:"metadata,omitempty"`
}

// Spec says what shall run, in terms that every provider has.
type Spec struct {
	// Image is the container image. Required, except to delete.
	Image string `json:"image,omitempty"`
	// Command replaces the image's entrypoint.
	Command []string `json:"command,omitempty"`
	// Args replace the image's command.
	Args []string `json:"args,omitempty"`
	// Env are environment variables. Their values are treated as secrets: they show up in no log, status or outcome.
	Env map[string]string `json:"env,omitempty"`
	// Secrets are environment variables whose values the platform, or the worker, looks up: by reference, never by value.
	// What a reference is says the provider's page.
	Secrets map[string]string `json:"secrets,omitempty"`
	// CPUMillis is the CPU of one replica in thousandths of a core. Default 0: the provider's own default.
	CPUMillis int `json:"cpu_millis,omitempty"`
	// MemoryMiB is the memory of one replica. Default 0: the provider's own default.
	MemoryMiB int `json:"memory_mib,omitempty"`
	// Replicas is how many of it run, 1 to 1000. Default 1.
	Replicas int `json:"replicas,omitempty"`
	// Ports are what it listens on.
	Ports []Port `json:"ports,omitempty"`
	// HealthCheck decides when a replica is ready. Without one it is ready once it runs.
	HealthCheck *HealthCheck `json:"health_check,omitempty"`
}

// IsZero says whether nothing was specified.
func (s Spec) IsZero() bool {
	return s.Image == "" && len(s.Command) == 0 && len(s.Args) == 0 && len(s.Env) == 0 && len(s.Secrets) == 0 && s.CPUMillis == 0 &&
		s.MemoryMiB == 0 && s.Replicas == 0 && len(s.Ports) == 0 && s.HealthCheck == nil
}

// Port is a port that a replica listens on.
type Port struct {
	// Name tells ports apart in the outcome's endpoints. Default: the protocol and the number, "tcp-80".
	Name string `json:"name,omitempty"`
	// ContainerPort is the number, 1 to 65535. Required.
	ContainerPort int `json:"container_port"`
	// Protocol is "tcp" (the default) or "udp".
	Protocol string `json:"protocol,omitempty"`
}

// HealthCheck is a command that a replica must pass to be ready.
type HealthCheck struct {
	// Command is run inside the replica, without a shell; exit code 0 is healthy. Required.
	Command []string `json:"command"`
	// Interval is the time between two checks, at least "1s". Default "10s".
	Interval Duration `json:"interval,omitempty"`
	// Timeout is how long one check may take, at least "1s". Default "5s".
	Timeout Duration `json:"timeout,omitempty"`
	// Retries is how many failures in a row make a replica unhealthy, 1 to 10. Default 3.
	Retries int `json:"retries,omitempty"`
	// StartPeriod is how long failures do not count after the start. Default "0s".
	StartPeriod Duration `json:"start_period,omitempty"`
}

// CancelPolicy says what a cancelled operation does with what exists.
type CancelPolicy string

const (
	// Leave what exists as it is, and list it.
	Leave CancelPolicy = "leave"
	// Remove what exists. Only an operation that provisions may say so: cancelling an update must not delete what
	// served the tenant before.
	Remove CancelPolicy = "remove"
)

// Defaults of an operation.
const (
	DefaultResource            = "default"
	DefaultTimeout             = 30 * time.Minute
	DefaultHealthCheckInterval = 10 * time.Second
	DefaultHealthCheckTimeout  = 5 * time.Second
	DefaultHealthCheckRetries  = 3
)

// ParseOperation reads an operation that somebody asked for as JSON, fills in the defaults and checks every rule.
// The id and the verb come from outside of the text: a workflow's id and type.
//
// The error is [Faults] with everything that is wrong. The operation holds what could be read all the same, with the
// callbacks that are sound, so that those who are to be told can be told. What is larger than [MaxOperationBytes] or nested
// too deep is not read at all. Limits on numbers are checked by [CheckLimits].
func ParseOperation(id string, verb Verb, requestedAt time.Time, data []byte) (Operation, error) {
	op := Operation{
		Resource: DefaultResource,
		Timeout:  Duration(DefaultTimeout),
		OnCancel: Leave,
	}
	if verb != Delete {
		op.Spec.Replicas = 1
	}
	members, err := readOperation(data)
	if err != nil {
		op.ID, op.Verb, op.RequestedAt = id, verb, requestedAt.UTC()
		return op, Faults{{Problem: cutEnd(err.Error(), maxProblem)}} // there is no object, so nothing is missing in it
	}
	var faults Faults
	callbacks := members.take("callbacks", &faults)
	newReader(&faults).read(nil, members, reflect.ValueOf(&op).Elem())
	if op.ID != "" && op.ID != id {
		faults.Add("operation_id", "must be the id of the workflow, %q, or be left out", id)
	}
	if op.Verb != "" && op.Verb != verb {
		faults.Add("operation_type", "must be %q, as the workflow's type says, or be left out", verb)
	}
	if !op.RequestedAt.IsZero() {
		faults.Add("requested_at", "is set by bellhop")
	}
	op.ID, op.Verb, op.RequestedAt = id, verb, requestedAt.UTC()
	op.fillDefaults()
	op.check(&faults)
	op.Callbacks = readCallbacks(callbacks, &faults)
	return op, faults.Err()
}

func readOperation(data []byte) (object, error) {
	if len(data) > MaxOperationBytes {
		return nil, fmt.Errorf("is %d bytes large; at most %d are taken", len(data), MaxOperationBytes)
	}
	return parseJSON(data)
}

func (op *Operation) fillDefaults() {
	for i := range op.Spec.Ports {
		port := &op.Spec.Ports[i]
		if port.Protocol == "" {
			port.Protocol = "tcp"
		}
		if port.Name == "" {
			port.Name = fmt.Sprintf("%s-%d", port.Protocol, port.ContainerPort)
		}
	}
	if check := op.Spec.HealthCheck; check != nil {
		if check.Interval == 0 {
			check.Interval = Duration(DefaultHealthCheckInterval)
		}
		if check.Timeout == 0 {
			check.Timeout = Duration(DefaultHealthCheckTimeout)
		}
		if check.Retries == 0 {
			check.Retries = DefaultHealthCheckRetries
		}
	}
}

var (
	idPattern   = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)
	namePattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)
	envPattern  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	portPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)
)

// maxUnsoundName is how much is kept of a name that is none.
const maxUnsoundName = 128

const nameRule = "must be 1 to 63 letters, digits, '.', '_' or '-', beginning and ending with a letter or digit"

// CheckName says what is wrong with the name of a tenant, a resource, a provider or a target; nil when nothing is.
func CheckName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("%s", nameRule)
	}
	return nil
}

// SoundName is name if it is one, else empty: for where a name goes before the faults of its operation are told. One that
// breaks the rules may be too long for Temporal, which then refuses a whole workflow task over it, again and again, so
// that nobody is told what is wrong.
func SoundName(name string) string {
	if CheckName(name) != nil {
		return ""
	}
	return name
}

// CheckID says what is wrong with an operation's id; nil when nothing is.
func CheckID(id string) error {
	if !idPattern.MatchString(id) {
		return fmt.Errorf("must be 1 to 128 of the characters A-Z a-z 0-9 . _ : -")
	}
	return nil
}

func (op *Operation) check(faults *Faults) {
	if err := CheckID(op.ID); err != nil {
		faults.Add("operation_id", "%s", err)
	}
	switch op.Verb {
	case Provision, Update, Delete:
	default:
		faults.Add("operation_type", "must be provision, update or delete")
	}
	for _, name := range []struct {
		path  string
		value *string
	}{
		{"tenant_id", &op.TenantID}, {"resource", &op.Resource}, {"provider", &op.Provider},
	} {
		if faults.at(name.path) {
			continue
		}
		if *name.value == "" {
			faults.Add(name.path, "is required")
		} else if err := CheckName(*name.value); err != nil {
			faults.Add(name.path, "%s", err)
			*name.value = cutEnd(*name.value, maxUnsoundName) // the outcome that tells of it repeats it
		}
	}
	if t := time.Duration(op.Timeout); t < MinTimeout || t > MaxTimeout {
		faults.Add("timeout", "must be 1s to 168h")
	}
	if op.Priority < 0 || op.Priority > 5 {
		faults.Add("priority", "must be 1 to 5, or be left out")
		op.Priority = 0 // Temporal refuses a whole workflow task over it, again and again
	}
	switch op.OnCancel {
	case Leave:
	case Remove:
		if op.Verb != Provision {
			faults.Add("on_cancel", `must be "leave" for %s: only a cancelled provision may remove what exists`, op.Verb)
		}
	default:
		faults.Add("on_cancel", `must be "leave" or "remove"`)
	}
	size := 0
	for _, key := range sortedKeys(op.Metadata) {
		size += len(key) + len(op.Metadata[key])
	}
	if size > MaxMetadataBytes {
		faults.Add("metadata", "is %d bytes large; at most %d are taken", size, MaxMetadataBytes)
		op.Metadata = nil // the outcome that tells of it would be too large for its callers
	}
	op.Spec.check(op.Verb, faults)
}

func (s *Spec) check(verb Verb, faults *Faults) {
	if verb == Delete {
		if !s.IsZero() {
			faults.Add("spec", "must be left out to delete")
		}
		return
	}
	if s.Image == "" && !faults.at("spec.image") {
		faults.Add("spec.image", "is required")
	} else if strings.ContainsAny(s.Image, " \t\r\n") {
		faults.Add("spec.image", "must not contain white space")
	}
	if s.CPUMillis < 0 {
		faults.Add("spec.cpu_millis", "must not be negative")
	}
	if s.MemoryMiB < 0 {
		faults.Add("spec.memory_mib", "must not be negative")
	}
	if s.Replicas < 1 || s.Replicas > MaxReplicas {
		faults.Add("spec.replicas", "must be 1 to %d", MaxReplicas)
	}
	for _, key := range sortedKeys(s.Env) {
		if !envPattern.MatchString(key) {
			faults.Add("spec.env", "%q is not a name for a variable: letters, digits and '_', not beginning with a digit", key)
		}
	}
	for _, key := range sortedKeys(s.Secrets) {
		switch _, both := s.Env[key]; {
		case !envPattern.MatchString(key):
			faults.Add("spec.secrets", "%q is not a name for a variable: letters, digits and '_', not beginning with a digit", key)
		case both:
			faults.Add("spec.secrets."+key, "is in spec.env too")
		case s.Secrets[key] == "":
			faults.Add("spec.secrets."+key, "must be a reference, as the provider's page says")
		}
	}
	names, numbers := map[string]bool{}, map[string]bool{}
	for i, port := range s.Ports {
		at := fmt.Sprintf("spec.ports[%d]", i)
		if port.ContainerPort < 1 || port.ContainerPort > 65535 {
			faults.Add(at+".container_port", "must be 1 to 65535")
		}
		if port.Protocol != "tcp" && port.Protocol != "udp" {
			faults.Add(at+".protocol", `must be "tcp" or "udp"`)
		}
		if !portPattern.MatchString(port.Name) {
			faults.Add(at+".name", "must be 1 to 32 of a-z, 0-9 and '-', beginning and ending with a letter or digit")
		}
		number := fmt.Sprintf("%d/%s", port.ContainerPort, port.Protocol)
		if names[port.Name] {
			faults.Add(at+".name", "%q is given twice", port.Name)
		}
		if numbers[number] {
			faults.Add(at, "%s is given twice", number)
		}
		names[port.Name], numbers[number] = true, true
	}
	if s.HealthCheck != nil {
		s.HealthCheck.check(faults)
	}
}

func (h *HealthCheck) check(faults *Faults) {
	if len(h.Command) == 0 && !faults.at("spec.health_check.command") {
		faults.Add("spec.health_check.command", "is required")
	}
	if time.Duration(h.Interval) < time.Second {
		faults.Add("spec.health_check.interval", "must be at least 1s")
	}
	if time.Duration(h.Timeout) < time.Second {
		faults.Add("spec.health_check.timeout", "must be at least 1s")
	}
	if h.Retries < 1 || h.Retries > 10 {
		faults.Add("spec.health_check.retries", "must be 1 to 10")
	}
	if h.StartPeriod < 0 {
		faults.Add("spec.health_check.start_period", "must not be negative")
	}
}

// Generation orders the operations on one resource: the newest start wins. Resources carry the generation and the id
// of the operation that last touched them.
type Generation struct {
	// RequestedAt is when the operation was started.
	RequestedAt time.Time `json:"requested_at"`
	// OperationID is the operation's id. It decides between two that were started in the same instant.
	OperationID string `json:"operation_id"`
}

// Generation is the operation's place among all operations on its resource.
func (op Operation) Generation() Generation {
	return Generation{RequestedAt: op.RequestedAt, OperationID: op.ID}
}

// Equal says whether both are of one operation. Times compare by their instant, not by their zone.
func (g Generation) Equal(other Generation) bool {
	return g.OperationID == other.OperationID && g.RequestedAt.Equal(other.RequestedAt)
}

// After says whether g is newer than other.
func (g Generation) After(other Generation) bool {
	if !g.RequestedAt.Equal(other.RequestedAt) {
		return g.RequestedAt.After(other.RequestedAt)
	}
	return g.OperationID > other.OperationID
}

// Redacted returns a copy without secrets: environment values are blotted out and tokens replaced by a short hash.
func (op Operation) Redacted() Operation {
	op.Spec = op.Spec.Redacted()
	callbacks := make([]Callback, len(op.Callbacks))
	for i, callback := range op.Callbacks {
		callbacks[i] = callback.Redacted()
	}
	op.Callbacks = callbacks
	return op
}

// String is the operation as JSON without its secrets.
func (op Operation) String() string { return redactedJSON(op.Redacted()) }

// GoString is String, so that %#v shows no secret either.
func (op Operation) GoString() string { return op.String() }

// LogValue is what slog writes: the operation without its secrets.
func (op Operation) LogValue() slog.Value { return slog.StringValue(op.String()) }

// Redacted returns a copy in which environment values are blotted out.
func (s Spec) Redacted() Spec {
	if s.Env != nil {
		env := make(map[string]string, len(s.Env))
		for key := range s.Env {
			env[key] = redacted
		}
		s.Env = env
	}
	return s
}

// String is the spec as JSON without its secrets.
func (s Spec) String() string { return redactedJSON(s.Redacted()) }

// GoString is String, so that %#v shows no secret either.
func (s Spec) GoString() string { return s.String() }

// LogValue is what slog writes: the spec without its secrets.
func (s Spec) LogValue() slog.Value { return slog.StringValue(s.String()) }

func redactedJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("[not JSON: %s]", err)
	}
	return string(text)
}

// Secrets are the values that must not show up anywhere: tokens of callbacks and environment values.
func (op Operation) Secrets() []string {
	var secrets []string
	for _, key := range sortedKeys(op.Spec.Env) {
		if value := op.Spec.Env[key]; len(value) >= minSecret {
			secrets = append(secrets, value)
		}
	}
	for _, callback := range op.Callbacks {
		secrets = append(secrets, callback.Secrets()...)
	}
	// The longest first, so that a secret within another leaves no rest behind; in a fixed order, for replays.
	slices.SortFunc(secrets, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	return slices.Compact(secrets)
}

package bellhop

import (
	"reflect"
	"time"
	"unicode/utf8"
)

// SchemaVersion is the version of the wire format. Within one version fields are only added.
const SchemaVersion = 1

// Outcome is the one envelope for every verb, provider and target: the body of a callback, the result of the
// workflow and the larger part of the [Status]. It is made once per state, so every attempt sends the same bytes.
type Outcome struct {
	// SchemaVersion is 1.
	SchemaVersion int `json:"schema_version"`
	// CallbackID is "<operation id>/<state>", the key by which receivers drop duplicates.
	CallbackID string `json:"callback_id"`
	// Event names what happened: "compute-running", "compute-provisioned", "compute-updated", "compute-deleted",
	// "compute-failed" or "compute-cancelled". Absent before.
	Event Event `json:"event,omitempty"`
	// OperationID is the operation's, and its workflow's.
	OperationID string `json:"operation_id"`
	// OperationType is "provision", "update" or "delete".
	OperationType Verb `json:"operation_type"`
	// TenantID, Resource and Provider are the operation's.
	TenantID string `json:"tenant_id"`
	Resource string `json:"resource"`
	Provider string `json:"provider"`
	// State is "pending", "queued", "running", "succeeded", "failed" or "cancelled".
	State State `json:"state"`
	// ResourceIDs are all identifiers known, also of failed and cancelled operations.
	ResourceIDs ResourceIDs `json:"resource_ids"`
	// Endpoints are where the compute can be reached.
	Endpoints []Endpoint `json:"endpoints,omitempty"`
	// Error is set on failed and cancelled operations only.
	Error *Failure `json:"error,omitempty"`
	// RequestedAt is when the operation was started.
	RequestedAt time.Time `json:"requested_at"`
	// StartedAt is when a worker took it up.
	StartedAt time.Time `json:"started_at,omitzero"`
	// FinishedAt is when it reached its last state.
	FinishedAt time.Time `json:"finished_at,omitzero"`
	// DurationMS is how long the operation ran, from StartedAt to this state.
	DurationMS int64 `json:"duration_ms"`
	// Metadata is the operation's, echoed.
	Metadata map[string]string `json:"metadata,omitempty"`
	// Truncated names what is not here in full because an outcome has a limit ("endpoints", "resource_ids.pod_names",
	// "metadata"), with the number of entries that there were. Absent when nothing was left out.
	Truncated map[string]int `json:"truncated,omitempty"`
}

// ResourceIDs are the provider's identifiers of what an operation touched. Fields that are unknown are absent.
type ResourceIDs struct {
	ClusterARN        string   `json:"cluster_arn,omitempty"`
	ServiceARN        string   `json:"service_arn,omitempty"`
	TaskDefinitionARN string   `json:"task_definition_arn,omitempty"`
	TaskARNs          []string `json:"task_arns,omitempty"`

	ContainerIDs   []string `json:"container_ids,omitempty"`
	ContainerNames []string `json:"container_names,omitempty"`

	Namespace  string   `json:"namespace,omitempty"`
	Deployment string   `json:"deployment,omitempty"`
	Job        string   `json:"job,omitempty"`
	PodNames   []string `json:"pod_names,omitempty"`

	SimulatedIDs []string `json:"simulated_ids,omitempty"`
}

// IsZero says whether no identifier is known.
func (r ResourceIDs) IsZero() bool { return reflect.ValueOf(r).IsZero() }

// Endpoint is an address at which the compute answers.
type Endpoint struct {
	// Name is the port's name in the spec.
	Name string `json:"name"`
	Host string `json:"host"`
	Port int    `json:"port"`
}

// Progress is how far the provider has come.
type Progress struct {
	// Message says what is going on, for a person.
	Message string `json:"message,omitempty"`
	// Ready of Desired replicas are ready.
	Ready   int `json:"ready"`
	Desired int `json:"desired"`
}

// Status is an operation as it stands now: the outcome so far, and how it got there.
type Status struct {
	Outcome
	Progress    Progress     `json:"progress"`
	Transitions []Transition `json:"transitions"`
	Callbacks   []Receipt    `json:"callbacks"`
}

// Transition is when a state was reached.
type Transition struct {
	State State     `json:"state"`
	At    time.Time `json:"at"`
}

// Phase is where a provider's resource stands with respect to one operation.
type Phase string

const (
	// PhasePending: not there yet.
	PhasePending Phase = "pending"
	// PhaseReady: it is what the operation asked for, observed healthy.
	PhaseReady Phase = "ready"
	// PhaseGone: nothing is left of it, observed.
	PhaseGone Phase = "gone"
	// PhaseFailed: it will not become what the operation asked for. The observation's failure says why.
	PhaseFailed Phase = "failed"
	// PhaseSuperseded: a newer operation has taken the resource over.
	PhaseSuperseded Phase = "superseded"
)

// Observation is what a provider saw of one operation's resource at one moment.
type Observation struct {
	// OperationID is the operation it is about.
	OperationID string `json:"operation_id"`
	// RequestedAt is that operation's, as the resource's labels tell it. A watcher uses it to leave operations alone
	// that ended long ago.
	RequestedAt time.Time `json:"requested_at,omitzero"`
	Phase       Phase     `json:"phase"`
	// ResourceIDs are all identifiers known.
	ResourceIDs ResourceIDs `json:"resource_ids,omitzero"`
	Endpoints   []Endpoint  `json:"endpoints,omitempty"`
	Progress    Progress    `json:"progress,omitzero"`
	// Failure is set when Phase is failed.
	Failure *Failure `json:"failure,omitempty"`
	// Truncated names the lists that are not here in full, with the number of entries that there were.
	Truncated map[string]int `json:"truncated,omitempty"`
}

// Clean returns a copy in which secrets are blotted out of what the provider says, and long texts cut.
func (o Observation) Clean(secrets []string) Observation {
	o.Failure = o.Failure.Clean(secrets)
	o.Progress.Message = cutEnd(Scrub(o.Progress.Message, secrets), maxMessage)
	return o
}

// Holding is what stands at a provider under the name of one operation: what that brought into being, or took over last.
type Holding struct {
	// TenantID is whose it is, as the labels of what stands tell it, like what follows.
	TenantID string `json:"tenant_id"`
	// Resource is the resource's name within the tenant.
	Resource string `json:"resource"`
	// OperationID is the operation's.
	OperationID string `json:"operation_id"`
	// RequestedAt is when that was started.
	RequestedAt time.Time `json:"requested_at"`
	// ResourceIDs are the identifiers of all that stands.
	ResourceIDs ResourceIDs `json:"resource_ids,omitzero"`
	// Running is how many replicas run: what would be lost with it.
	Running int `json:"running"`
}

// Generation is the place of the holding's operation among all on its resource.
func (h Holding) Generation() Generation {
	return Generation{RequestedAt: h.RequestedAt, OperationID: h.OperationID}
}

// cutEnd shortens text to max bytes, on a character's border, and says so.
func cutEnd(text string, limit int) string {
	const mark = "… [cut]"
	if len(text) <= limit {
		return text
	}
	end := limit - len(mark)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + mark
}

// cutStart keeps the end of text, where a log says what went wrong last.
func cutStart(text string, limit int) string {
	const mark = "[cut] …"
	if len(text) <= limit {
		return text
	}
	start := len(text) - limit + len(mark)
	for start < len(text) && !utf8.RuneStart(text[start]) {
		start++
	}
	return mark + text[start:]
}

func cleanEvidence(evidence map[string]string, scrubber *Scrubber) map[string]string {
	clean := make(map[string]string, len(evidence))
	room := maxEvidenceTotal
	for _, name := range sortedKeys(evidence) {
		value := cutStart(scrubber.Scrub(evidence[name]), maxEvidence)
		if room -= len(name) + len(value); room < 0 {
			clean["more"] = "there was more evidence than an outcome can carry"
			break
		}
		clean[name] = value
	}
	return clean
}

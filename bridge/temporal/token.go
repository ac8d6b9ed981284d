package temporal

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
)

// task is what a task token says of the activity that it completes. A token is not signed: anybody who knows a
// namespace's id can make one, so it is worth no more than an address with ids in it, and is checked like one.
type task struct {
	namespaceID string
	workflowID  string
	runID       string
	// standalone says that the activity belongs to no workflow.
	standalone bool
}

// errToken does not show the token.
var errToken = errors.New("is no task token of a Temporal activity")

// Fields of temporal.server.api.token.v1.Task. It is internal to Temporal's server, which writes the same into the
// tokens of every version: fields are only added.
const (
	taskNamespaceID  = 1
	taskWorkflowID   = 2
	taskRunID        = 3
	taskComponentRef = 14
)

// taskFields are the wire types of the fields that are known.
var taskFields = map[protowire.Number]protowire.Type{
	taskNamespaceID:  protowire.BytesType,
	taskWorkflowID:   protowire.BytesType,
	taskRunID:        protowire.BytesType,
	4:                protowire.VarintType, // scheduled_event_id
	5:                protowire.VarintType, // attempt
	6:                protowire.BytesType,  // activity_id
	7:                protowire.BytesType,  // workflow_type
	8:                protowire.BytesType,  // activity_type
	9:                protowire.BytesType,  // clock
	10:               protowire.VarintType, // started_event_id
	11:               protowire.VarintType, // version
	12:               protowire.BytesType,  // started_time
	13:               protowire.VarintType, // start_version
	taskComponentRef: protowire.BytesType,
	15:               protowire.VarintType, // activity_attempt_stamp
}

// parseToken reads a task token. It is strict, so that the server cannot read another meaning out of it: a field that is
// given twice, or in another form than the server's, is refused. Fields of later versions are left to the server.
func parseToken(token []byte) (task, error) {
	var t task
	var component []byte
	seen := map[protowire.Number]bool{}
	for rest := token; len(rest) > 0; {
		number, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return task{}, errToken
		}
		rest = rest[n:]
		if want, known := taskFields[number]; known && (kind != want || seen[number]) {
			return task{}, errToken
		}
		seen[number] = true
		n = protowire.ConsumeFieldValue(number, kind, rest)
		if n < 0 {
			return task{}, errToken
		}
		value, rest2 := rest[:n], rest[n:]
		if rest = rest2; kind != protowire.BytesType {
			continue
		}
		text, _ := protowire.ConsumeBytes(value)
		switch number {
		case taskNamespaceID:
			t.namespaceID = string(text)
		case taskWorkflowID:
			t.workflowID = string(text)
		case taskRunID:
			t.runID = string(text)
		case taskComponentRef:
			component = text
		}
	}
	t.standalone = len(component) > 0
	switch {
	case t.namespaceID == "":
		return task{}, errToken
	case t.standalone && (t.workflowID != "" || t.runID != ""):
		// The server goes by the component, and what looks at the workflow would look past it.
		return task{}, errToken
	case !t.standalone && (t.workflowID == "" || t.runID == ""):
		// Without a run the server would take the current one, which may be another by then.
		return task{}, errToken
	}
	return t, nil
}

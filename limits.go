package bellhop

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"time"
)

// Limits of an operation.
const (
	// MaxOperationBytes is how large an operation may be as JSON. A larger one is refused unread.
	MaxOperationBytes = 256 << 10
	// MaxMetadataBytes is how much metadata an operation may carry, keys and values together.
	MaxMetadataBytes = 16 << 10
	// MaxCallbacks is how many callbacks an operation may ask for.
	MaxCallbacks = 16
	// MaxReplicas is how many replicas an operation may ask for.
	MaxReplicas = 1000
	// MinTimeout and MaxTimeout bound the time an operation may take.
	MinTimeout = time.Second
	MaxTimeout = 7 * 24 * time.Hour
)

// Limits of an operation that [CheckLimits] checks.
const (
	// MaxPorts is how many ports an operation may ask for.
	MaxPorts = 64
	// MaxVariables is how many environment variables an operation may set, and how many it may have looked up.
	MaxVariables = 1000
	// MaxArguments is how many words a command may have, how many the arguments, and how many a health check's command.
	MaxArguments = 1000
	// MaxMetadataEntries is how many entries of metadata an operation may carry.
	MaxMetadataEntries = 256
	// MaxKeyBytes is how long the name of a variable and the key of a metadata entry may be.
	MaxKeyBytes = 256
	// MaxImageBytes is how long the name of an image may be.
	MaxImageBytes = 1 << 10
	// MaxAddressBytes is how large the address of one callback may be as JSON.
	MaxAddressBytes = 16 << 10
)

// CheckLimits says which limits on numbers and lengths the operation exceeds; nil when none.
//
// It stands beside [ParseOperation] because operations were accepted before these limits existed. Their workflows parse the
// input again at each replay and must then come to what they came to at first. So every way in checks the limits before
// it starts a workflow, by [AcceptOperation], and a workflow checks them only if it began on a version that does. What
// ParseOperation bounds by itself (size, depth, the number of faults) was never accepted, or changes only what a failure
// says.
func CheckLimits(op Operation) Faults {
	var faults Faults
	count := func(path string, number, most int) {
		if number > most {
			faults.Add(path, "has %d entries; at most %d are taken", number, most)
		}
	}
	length := func(path string, number, most int) {
		if number > most {
			faults.Add(path, "is %d bytes long; at most %d are taken", number, most)
		}
	}
	keys := func(path string, entries map[string]string) {
		long := 0
		for _, key := range sortedKeys(entries) {
			if len(key) > MaxKeyBytes {
				long++
			}
		}
		if long > 0 {
			faults.Add(path, "has %d keys that are longer than %d bytes", long, MaxKeyBytes)
		}
	}
	count("spec.ports", len(op.Spec.Ports), MaxPorts)
	count("spec.env", len(op.Spec.Env), MaxVariables)
	count("spec.secrets", len(op.Spec.Secrets), MaxVariables)
	count("spec.command", len(op.Spec.Command), MaxArguments)
	count("spec.args", len(op.Spec.Args), MaxArguments)
	count("metadata", len(op.Metadata), MaxMetadataEntries)
	keys("spec.env", op.Spec.Env)
	keys("spec.secrets", op.Spec.Secrets)
	keys("metadata", op.Metadata)
	length("spec.image", len(op.Spec.Image), MaxImageBytes)
	if check := op.Spec.HealthCheck; check != nil {
		count("spec.health_check.command", len(check.Command), MaxArguments)
	}
	for _, callback := range op.Callbacks { // those that are sound, so their numbers may not be those of the input
		if size := len(callback.Address); size > MaxAddressBytes {
			faults.Add("callbacks", "has an address for target %s that is %d bytes long; at most %d are taken", callback.Target, size, MaxAddressBytes)
		}
	}
	return faults
}

// AcceptOperation is [ParseOperation] for an operation that is about to be started: it checks the limits as well.
func AcceptOperation(id string, verb Verb, data []byte) (Operation, error) {
	op, err := ParseOperation(id, verb, time.Time{}, data)
	var faults Faults
	faults.Note("", err)
	faults.Note("", CheckLimits(op).Err())
	return op, faults.Err()
}

// Limits of what bellhop sends and records. Whatever was accepted can be delivered: an outcome stays below what the
// narrowest engine carries (256 KiB for Step Functions), and an observation below what Temporal records without complaint.
const (
	// MaxOutcomeBytes is how large an outcome is at most as JSON.
	MaxOutcomeBytes = 240 << 10
	// MaxObservationBytes is how large an observation is at most as JSON.
	MaxObservationBytes = 64 << 10
)

// BoundOutcome returns the outcome within [MaxOutcomeBytes] and as JSON: the bytes that every attempt sends. What is cut
// is named in Truncated. It is deterministic, so that workflows can be replayed through it.
func BoundOutcome(o Outcome) (Outcome, json.RawMessage, error) {
	encoded, err := json.Marshal(o)
	if err != nil {
		return o, nil, fmt.Errorf("encode an outcome: %w", err)
	}
	if len(encoded) <= MaxOutcomeBytes {
		return o, encoded, nil
	}
	return o.cut(MaxOutcomeBytes)
}

// CutOutcome makes an outcome that was encoded as JSON fit into limit bytes of JSON, for protocols that carry no more.
// What fits is left as it is, to the byte. Of what does not, long lists of ids and endpoints are shortened first, then
// the evidence and the other texts, then the metadata is left out; ids of single things, states, codes and flags stay.
// What was cut is named in Truncated.
func CutOutcome(encoded json.RawMessage, limit int) (json.RawMessage, error) {
	if len(encoded) <= limit {
		return encoded, nil
	}
	var o Outcome
	if err := json.Unmarshal(encoded, &o); err != nil {
		return nil, fmt.Errorf("cut an outcome: %w", err)
	}
	_, text, err := o.cut(limit)
	return text, err
}

// BoundObservation returns the observation within limit bytes of JSON, for the most part: single ids and a failure that
// is clean (see [Failure.Clean]) are kept whatever they take. Lists of ids and endpoints are shortened, each to as many
// entries as the others, and named in Truncated.
func BoundObservation(o Observation, limit int) Observation {
	room := limit
	if o.Failure != nil {
		room -= jsonSize(o.Failure)
	}
	room -= len(o.Progress.Message) + len(o.OperationID) + roomBesides
	if listed(&o.ResourceIDs, &o.Endpoints) <= room {
		return o
	}
	o.Truncated = maps.Clone(o.Truncated)
	cutLists(&o.ResourceIDs, &o.Endpoints, &o.Truncated, room, 0)
	return o
}

const (
	// roomBesides is what the names of the fields and the numbers of what was cut may take.
	roomBesides = 2 << 10
	// keptEntries is how many entries of a list are kept before anything else is shortened for the sake of lists.
	keptEntries = 100
)

// cut shortens a copy of the outcome until it fits into limit bytes of JSON.
func (o Outcome) cut(limit int) (Outcome, json.RawMessage, error) {
	var encoded json.RawMessage
	fits := func() bool {
		text, err := json.Marshal(o)
		encoded = text
		return err == nil && len(text) <= limit
	}
	full := struct {
		ids       ResourceIDs
		endpoints []Endpoint
		truncated map[string]int
	}{o.ResourceIDs, o.Endpoints, o.Truncated}
	// lists gives the lists the room that everything else leaves, with at least that many entries of each.
	lists := func(atLeast int) bool {
		o.ResourceIDs, o.Endpoints, o.Truncated = full.ids, full.endpoints, maps.Clone(full.truncated)
		bare := o
		bare.ResourceIDs, bare.Endpoints = full.ids.single(), nil
		cutLists(&o.ResourceIDs, &o.Endpoints, &o.Truncated, limit-jsonSize(bare)-roomBesides, atLeast)
		return fits()
	}
	if lists(keptEntries) {
		return o, encoded, nil
	}
	if o.Error != nil {
		failure := *o.Error
		o.Error = &failure
		for _, length := range []int{4096, 1024, 256, 64} {
			shorter := make(map[string]string, len(failure.Evidence))
			for _, name := range sortedKeys(failure.Evidence) {
				shorter[name] = cutStart(failure.Evidence[name], length)
			}
			if failure.Evidence = shorter; lists(keptEntries) {
				return o, encoded, nil
			}
		}
		failure.Evidence = map[string]string{"more": "there was more evidence than the callback can carry"}
		failure.ProviderError = cutEnd(failure.ProviderError, 1024)
		failure.Message = cutEnd(failure.Message, 1024)
	}
	if lists(1) {
		return o, encoded, nil
	}
	if len(o.Metadata) > 0 {
		full.truncated = maps.Clone(full.truncated)
		if full.truncated == nil {
			full.truncated = map[string]int{}
		}
		full.truncated["metadata"] = len(o.Metadata)
		o.Metadata = nil
	}
	if lists(1) || lists(0) {
		return o, encoded, nil
	}
	return o, nil, fmt.Errorf("the outcome has %d bytes without all that could be left out; the callback carries %d", len(encoded), limit)
}

// lists are the fields that hold several ids, by their paths in an outcome.
func (r *ResourceIDs) lists(visit func(path string, list *[]string)) {
	value := reflect.ValueOf(r).Elem()
	for _, field := range reflect.VisibleFields(value.Type()) {
		if list, ok := reflect.TypeAssert[*[]string](value.FieldByIndex(field.Index).Addr()); ok {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			visit("resource_ids."+name, list)
		}
	}
}

// single is a copy without the lists: the ids of single things.
func (r ResourceIDs) single() ResourceIDs {
	r.lists(func(_ string, list *[]string) { *list = nil })
	return r
}

// listed is about how many bytes of JSON the lists take.
func listed(ids *ResourceIDs, endpoints *[]Endpoint) int {
	size := 0
	ids.lists(func(path string, list *[]string) {
		for _, id := range *list {
			size += entrySize(id)
		}
		size += len(path)
	})
	for _, endpoint := range *endpoints {
		size += endpointSize(endpoint)
	}
	return size
}

// cutLists shortens every list to the same number of entries, the largest one with which all fit into room bytes, and
// never below atLeast.
//
//nolint:gocritic // the map may have to be made
func cutLists(ids *ResourceIDs, endpoints *[]Endpoint, truncated *map[string]int, room, atLeast int) {
	longest := len(*endpoints)
	ids.lists(func(_ string, list *[]string) { longest = max(longest, len(*list)) })
	keep := 0
	for ; keep < longest; keep++ {
		ids.lists(func(path string, list *[]string) {
			if keep < len(*list) {
				room -= entrySize((*list)[keep])
			}
			if keep == 0 && len(*list) > 0 {
				room -= len(path)
			}
		})
		if keep < len(*endpoints) {
			room -= endpointSize((*endpoints)[keep])
		}
		if room < 0 && keep >= atLeast {
			break
		}
	}
	note := func(path string, had int) {
		if *truncated == nil {
			*truncated = map[string]int{}
		}
		(*truncated)[path] = max((*truncated)[path], had) // cut a second time, it still had what it had at first
	}
	ids.lists(func(path string, list *[]string) {
		if len(*list) > keep {
			note(path, len(*list))
			*list = (*list)[:keep:keep]
		}
	})
	if len(*endpoints) > keep {
		note("endpoints", len(*endpoints))
		*endpoints = (*endpoints)[:keep:keep]
	}
}

func entrySize(id string) int {
	for i := range len(id) {
		if c := id[i]; c < ' ' || c > '~' || strings.IndexByte(`"\<>&`, c) >= 0 {
			return jsonSize(id) + 1
		}
	}
	return len(id) + 3
}

func endpointSize(endpoint Endpoint) int { return jsonSize(endpoint) + 1 }

func jsonSize(v any) int {
	text, err := json.Marshal(v)
	if err != nil {
		return 0 // it holds no type that cannot be encoded
	}
	return len(text)
}

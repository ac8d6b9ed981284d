package bellhop

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"time"
)

// Callback is who is to be told, and of what. Callers name a target; operators own its address and its credentials.
type Callback struct {
	// Target names an entry under targets in the worker's configuration. Required.
	Target string `json:"target"`
	// Address is what the target's engine needs to find the caller, such as {"workflow_id": "order-42"} or
	// {"task_token": "…"}. A token in it is a bearer secret and is shown nowhere.
	Address json.RawMessage `json:"address,omitempty"`
	// States are the states to tell of: "running", "succeeded", "failed", "cancelled". Default: the last three.
	States []State `json:"states,omitempty"`
	// Failures says how a failed or cancelled operation is told where the caller's engine tells results from errors:
	// as an "error" (it fails the caller's task, completes its activity with a failure, rejects its awakeable) or as a
	// "result" like any other, for callers that branch on the outcome. Default: what is usual in the engine, "error" for
	// an activity, "result" for an awakeable.
	Failures Failures `json:"failures,omitempty"`
	// Deadline bounds the delivery, counted from the moment the state was reached, at least "1s". After it the
	// callback is undeliverable. Default "0s": none, it is retried until it is acknowledged.
	Deadline Duration `json:"deadline,omitempty"`
	// Heartbeat is how often the caller is told that it is still being worked for, from the operation's start until its
	// callback is settled, "1s" to "1h": a Step Functions task or a Temporal activity whose heartbeat timeout is longer
	// (three times is a good measure) then waits as long as it takes. Default "0s": never.
	Heartbeat Duration `json:"heartbeat,omitempty"`
	// OnAbandoned says what becomes of the operation when a heartbeat finds that the caller waits no longer: "continue"
	// (the default: it goes on) or "cancel" (it is cancelled, as on_cancel says). The callback is undeliverable either way.
	OnAbandoned AbandonPolicy `json:"on_abandoned,omitempty"`
}

// AbandonPolicy says what becomes of an operation whose caller waits no longer.
type AbandonPolicy string

// The policies.
const (
	ContinueAbandoned AbandonPolicy = "continue"
	CancelAbandoned   AbandonPolicy = "cancel"
)

// MinHeartbeat and MaxHeartbeat bound the time between two heartbeats.
const (
	MinHeartbeat = time.Second
	MaxHeartbeat = time.Hour
)

// Failures is how a failed or cancelled operation is told.
type Failures string

// The ways to tell of a failure.
const (
	AsError  Failures = "error"
	AsResult Failures = "result"
)

// Wants says whether the callback is to be told of s.
func (c Callback) Wants(s State) bool { return slices.Contains(c.States, s) }

// readCallbacks reads and checks callbacks, fills in defaults and returns those that can be delivered, whatever else is wrong.
func readCallbacks(value any, faults *Faults) []Callback {
	if value == nil {
		return nil
	}
	list, ok := value.([]any)
	if !ok {
		faults.Add("callbacks", "must be a list, not %s", describe(value))
		return nil
	}
	if len(list) > MaxCallbacks {
		faults.Add("callbacks", "are %d; at most %d are taken", len(list), MaxCallbacks)
		list = list[:MaxCallbacks]
	}
	var sound []Callback
	seen := map[string]bool{}
	var root *segment
	for i, item := range list {
		// The faults of each callback are its own: there may be more in the operation than are named.
		var own Faults
		var callback Callback
		path := root.member("callbacks").item(i)
		if item == nil {
			own.addAt(path, "must not be null")
		} else {
			newReader(&own).read(path, item, reflect.ValueOf(&callback).Elem())
		}
		unread := len(own)
		callback.check(path.String(), &own)
		who := callback.Target + string(canonical(callback.Address))
		if len(own) == unread && seen[who] {
			// The same caller told twice of the same state is a duplicate that bellhop itself would make.
			own.addAt(path, "has the target and the address of an earlier one")
		}
		seen[who] = true
		if len(own) == 0 {
			sound = append(sound, callback)
		}
		faults.Note("", own.Err())
	}
	return sound
}

// check fills in defaults and notes what is wrong beside what could not be read, which is among the faults already.
func (c *Callback) check(at string, faults *Faults) {
	if !faults.at(at + ".target") {
		if c.Target == "" {
			faults.Add(at+".target", "is required")
		} else if err := CheckName(c.Target); err != nil {
			faults.Add(at+".target", "%s", err)
		}
	}
	if c.States == nil {
		c.States = []State{Succeeded, Failed, Cancelled}
	}
	if len(c.States) == 0 {
		faults.Add(at+".states", "must name a state or be left out")
	}
	states := map[State]bool{}
	for j, state := range c.States {
		if !state.Terminal() && state != Running {
			faults.Add(fmt.Sprintf("%s.states[%d]", at, j), `must be "running", "succeeded", "failed" or "cancelled"`)
		}
		if states[state] {
			faults.Add(fmt.Sprintf("%s.states[%d]", at, j), "%q is given twice", state)
		}
		states[state] = true
	}
	if !slices.Contains([]Failures{"", AsError, AsResult}, c.Failures) {
		faults.Add(at+".failures", `must be "error" or "result"`)
	}
	if beat := time.Duration(c.Heartbeat); beat != 0 && (beat < MinHeartbeat || beat > MaxHeartbeat) {
		faults.Add(at+".heartbeat", "must be 1s to 1h")
	}
	switch c.OnAbandoned {
	case "":
	case ContinueAbandoned, CancelAbandoned:
		if c.Heartbeat == 0 {
			faults.Add(at+".on_abandoned", "needs a heartbeat: nothing else tells that the caller waits no longer")
		}
	default:
		faults.Add(at+".on_abandoned", `must be "continue" or "cancel"`)
	}
	if c.Deadline != 0 && time.Duration(c.Deadline) < time.Second {
		faults.Add(at+".deadline", "must be at least 1s")
	}
}

// canonical writes JSON with sorted keys and no white space, so that equal values compare equal.
func canonical(raw json.RawMessage) []byte {
	if len(raw) == 0 {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var value any
	if err := dec.Decode(&value); err != nil {
		return raw
	}
	text, err := json.Marshal(value)
	if err != nil {
		return raw
	}
	return text
}

// openAddressFields are the members of an address that are no secret. Everything else is treated as one, so that a
// member added by a new engine is hidden until somebody decides that it may be seen.
var openAddressFields = []string{"workflow_id", "run_id", "signal", "activity_id", "service", "handler", "key"}

// Redacted returns a copy in which every token is replaced by a short hash, by which two can still be told apart.
func (c Callback) Redacted() Callback {
	if len(c.Address) == 0 {
		return c
	}
	var members map[string]any
	if json.Unmarshal(c.Address, &members) != nil {
		c.Address = quoted(shortHash(c.Address))
		return c
	}
	for name, value := range members {
		if !slices.Contains(openAddressFields, name) {
			text, _ := json.Marshal(value) //nolint:errcheck,errchkjson // it was JSON a moment ago
			members[name] = shortHash(text)
		}
	}
	address, err := json.Marshal(members)
	if err != nil {
		address = quoted(redacted)
	}
	c.Address = address
	return c
}

// Secrets are the tokens in the callback's address: every text in it that is not known to be open.
func (c Callback) Secrets() []string {
	if depth(c.Address) > maxDepth {
		return nil // it is no address, and nobody is sent it
	}
	var address any
	if json.Unmarshal(c.Address, &address) != nil {
		return nil
	}
	var secrets []string
	var collect func(value any)
	collect = func(value any) {
		switch value := value.(type) {
		case string:
			if len(value) >= minSecret {
				secrets = append(secrets, value)
			}
		case []any:
			for _, item := range value {
				collect(item)
			}
		case map[string]any:
			for _, name := range sortedKeys(value) {
				collect(value[name])
			}
		}
	}
	if members, ok := address.(map[string]any); ok {
		for _, name := range openAddressFields {
			delete(members, name)
		}
	}
	collect(address)
	return secrets
}

// String is the callback as JSON without its token.
func (c Callback) String() string { return redactedJSON(c.Redacted()) }

// GoString is String, so that %#v shows no token either.
func (c Callback) GoString() string { return c.String() }

// LogValue is what slog writes: the callback without its token.
func (c Callback) LogValue() slog.Value { return slog.StringValue(c.String()) }

func shortHash(secret []byte) string {
	sum := sha256.Sum256(secret)
	return "sha256:" + hex.EncodeToString(sum[:4])
}

func quoted(s string) json.RawMessage { return json.RawMessage(`"` + s + `"`) }

// ReceiptState is what became of one callback.
type ReceiptState string

const (
	// ReceiptPending callbacks wait for their state to be reached.
	ReceiptPending ReceiptState = "pending"
	// ReceiptDelivering callbacks are being delivered; attempts go on until one is answered.
	ReceiptDelivering ReceiptState = "delivering"
	// ReceiptAcknowledged callbacks were received.
	ReceiptAcknowledged ReceiptState = "acknowledged"
	// ReceiptAccepted callbacks were taken by a protocol that cannot prove that somebody waited for them.
	ReceiptAccepted ReceiptState = "accepted"
	// ReceiptAckPresumed callbacks found the caller gone after an attempt whose answer was lost: that attempt
	// presumably reached it.
	ReceiptAckPresumed ReceiptState = "ack-presumed"
	// ReceiptBlocked callbacks need an operator: a permission or a namespace is missing. They are retried slowly.
	ReceiptBlocked ReceiptState = "blocked"
	// ReceiptUndeliverable callbacks were given up: the caller is gone, its address is wrong or the deadline passed.
	ReceiptUndeliverable ReceiptState = "undeliverable"
)

// Settled says whether nothing more will happen to the callback.
func (s ReceiptState) Settled() bool {
	switch s {
	case ReceiptAcknowledged, ReceiptAccepted, ReceiptAckPresumed, ReceiptUndeliverable:
		return true
	case ReceiptPending, ReceiptDelivering, ReceiptBlocked:
		return false
	default:
		return false
	}
}

// Receipt tells what became of one callback.
type Receipt struct {
	// Target is the callback's target.
	Target string `json:"target"`
	// State is what became of it.
	State ReceiptState `json:"state"`
	// CallbackID is what was sent, "<operation id>/<state>". Empty while the state is not reached.
	CallbackID string `json:"callback_id,omitempty"`
	// Attempts counts how often it was tried.
	Attempts int `json:"attempts"`
	// LastError says why the last attempt that failed did.
	LastError string `json:"last_error,omitempty"`
	// FirstAttemptAt is when it was first tried.
	FirstAttemptAt time.Time `json:"first_attempt_at,omitzero"`
	// AcknowledgedAt is when it was acknowledged, accepted or presumed to be.
	AcknowledgedAt time.Time `json:"acknowledged_at,omitzero"`
}

package bellhop_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bellhop"
)

var requestedAt = time.Date(2026, 3, 1, 12, 0, 0, 0, time.FixedZone("", 3600))

// sound is an operation with nothing wrong; faulty ones are told apart from it by what they replace.
const sound = `{"tenant_id": "acme", "provider": "docker", "spec": {"image": "nginx:1.27"}}`

func parse(verb bellhop.Verb, text string) (bellhop.Operation, bellhop.Faults) {
	op, err := bellhop.ParseOperation("op-1", verb, requestedAt, []byte(text))
	var faults bellhop.Faults
	if err != nil && !errors.As(err, &faults) {
		panic(fmt.Sprintf("the error is a %T", err))
	}
	return op, faults
}

func TestParseDefaults(t *testing.T) {
	op, faults := parse(bellhop.Provision, `{
		"tenant_id": "acme", "provider": "docker",
		"spec": {"image": "nginx:1.27", "ports": [{"container_port": 80}, {"container_port": 53, "protocol": "udp", "name": "dns"}],
			"health_check": {"command": ["/bin/check"]}},
		"callbacks": [{"target": "orders", "address": {"workflow_id":  "order-42"}}]
	}`)
	if faults != nil {
		t.Fatal(faults)
	}
	want := bellhop.Operation{
		ID: "op-1", Verb: bellhop.Provision, RequestedAt: requestedAt.UTC(),
		TenantID: "acme", Resource: "default", Provider: "docker",
		Spec: bellhop.Spec{
			Image: "nginx:1.27", Replicas: 1,
			Ports: []bellhop.Port{
				{Name: "tcp-80", ContainerPort: 80, Protocol: "tcp"}, {Name: "dns", ContainerPort: 53, Protocol: "udp"},
			},
			HealthCheck: &bellhop.HealthCheck{
				Command: []string{"/bin/check"}, Interval: bellhop.Duration(10 * time.Second),
				Timeout: bellhop.Duration(5 * time.Second), Retries: 3,
			},
		},
		Callbacks: []bellhop.Callback{{
			Target: "orders", Address: json.RawMessage(`{"workflow_id":  "order-42"}`),
			States: []bellhop.State{bellhop.Succeeded, bellhop.Failed, bellhop.Cancelled},
		}},
		Timeout: bellhop.Duration(30 * time.Minute), OnCancel: bellhop.Leave,
	}
	if diff := cmp.Diff(want, op); diff != "" {
		t.Errorf("operation (-want +got):\n%s", diff)
	}
}

func TestParseTakes(t *testing.T) {
	rows := []struct {
		name, reason string
		verb         bellhop.Verb
		text         string
		check        func(op bellhop.Operation) bool
	}{
		{
			"WholeNumbers", "engines that know only floating point write 3.0 or 3e0", bellhop.Provision,
			`{"tenant_id": "a", "provider": "p", "spec": {"image": "i", "replicas": 3.0, "cpu_millis": 2.5e2, "memory_mib": 64}}`,
			func(op bellhop.Operation) bool {
				return op.Spec.Replicas == 3 && op.Spec.CPUMillis == 250 && op.Spec.MemoryMiB == 64
			},
		},
		{
			"Null", "null is a field left out, so its default holds", bellhop.Provision,
			`{"tenant_id": "a", "provider": "p", "resource": null, "timeout": null, "on_cancel": null, "callbacks": null,
				"metadata": null, "provider_config": null, "operation_id": null,
				"spec": {"image": "i", "replicas": null, "env": null, "ports": null, "health_check": null}}`,
			func(op bellhop.Operation) bool {
				return op.Resource == "default" && time.Duration(op.Timeout) == 30*time.Minute && op.OnCancel == bellhop.Leave &&
					op.Spec.Replicas == 1 && op.Spec.HealthCheck == nil && op.ProviderConfig == nil
			},
		},
		{
			"Delete", "what is to be gone needs no spec", bellhop.Delete, `{"tenant_id": "a", "provider": "p"}`,
			func(op bellhop.Operation) bool { return op.Spec.IsZero() },
		},
		{
			"SameNames", "an id and a verb that agree with the workflow are no fault", bellhop.Update,
			`{"operation_id": "op-1", "operation_type": "update", "tenant_id": "a", "provider": "p", "spec": {"image": "i"}}`,
			func(op bellhop.Operation) bool { return op.ID == "op-1" },
		},
		{
			"Bounds", "the limits themselves are allowed", bellhop.Provision,
			`{"tenant_id": "` + strings.Repeat("a", 63) + `", "provider": "p", "timeout": "168h", "on_cancel": "remove",
				"metadata": {"k": "` + strings.Repeat("x", bellhop.MaxMetadataBytes-1) + `"}, "spec": {"image": "i", "replicas": 1000,
				"ports": [{"container_port": 65535}, {"container_port": 1}, {"container_port": 1, "protocol": "udp"}]},
				"callbacks": [{"target": "t", "deadline": "1s"}]}`,
			func(op bellhop.Operation) bool { return op.OnCancel == bellhop.Remove && len(op.Callbacks) == 1 },
		},
		{
			"ProviderConfig", "what only the provider understands reaches it as it is", bellhop.Provision,
			`{"tenant_id": "a", "provider": "p", "spec": {"image": "i"}, "provider_config": {"b": 1.50, "a" : [ ]}}`,
			func(op bellhop.Operation) bool { return string(op.ProviderConfig) == `{"b": 1.50, "a" : [ ]}` },
		},
		{
			"SameTargetTwice", "one target may have many callers", bellhop.Provision,
			`{"tenant_id": "a", "provider": "p", "spec": {"image": "i"},
				"callbacks": [{"target": "t", "address": {"workflow_id": "1"}}, {"target": "t", "address": {"workflow_id": "2"}}]}`,
			func(op bellhop.Operation) bool { return len(op.Callbacks) == 2 },
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			op, faults := parse(row.verb, row.text)
			if faults != nil {
				t.Fatalf("%s: %s", faults, row.reason)
			}
			if !row.check(op) {
				t.Errorf("the operation is read as %+v: %s", op, row.reason)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	with := func(members string) string { return strings.TrimSuffix(sound, "}") + ", " + members + "}" }
	spec := func(members string) string {
		return `{"tenant_id": "acme", "provider": "docker", "spec": {"image": "i", ` + members + `}}`
	}
	many := strings.TrimSuffix(strings.Repeat(`{"target": "t"},`, 17), ",")
	rows := []struct {
		name, reason string
		verb         bellhop.Verb // default: provision
		id           string       // default: op-1
		text         string
		faults       []string
	}{
		{name: "Empty", reason: "nothing is no JSON", text: ``, faults: []string{"must be JSON: unexpected end of JSON input"}},
		{name: "Broken", reason: "the fault is the text's, not one of every field", text: `{"tenant_id": `, faults: []string{"must be JSON: unexpected end of JSON input"}},
		{name: "Two", reason: "a second value is not ignored", text: sound + sound, faults: []string{"must be JSON: invalid character '{' after top-level value"}},
		{name: "List", reason: "a list is not the first of its operations", text: `[` + sound + `]`, faults: []string{"must be an object, not a list"}},
		{name: "Null", reason: "null is no operation", text: `null`, faults: []string{"must be an object, not null"}},
		{
			name: "AllAtOnce", reason: "who fixes one mistake must not find the next one only then",
			text: `{"tenant_id": "-", "provider": 7, "resource": "a b", "timeout": "1 hour", "on_cancel": "destroy", "metdata": {},
				"spec": {"image": "ngi nx", "replicas": 0, "cpu_millis": -1, "memory_mib": 2.5, "command": "nginx", "env": {"A-B": "x", "C": 1},
				"ports": [{"container_port": 0, "protocol": "icmp", "name": "HTTP"}],
				"health_check": {"interval": "1ms", "timeout": "1ms", "retries": 11, "start_period": "-1s"}}}`,
			faults: []string{
				`metdata: is not a known field (known are callbacks, metadata, on_cancel, operation_id, operation_type, priority, provider, provider_config, requested_at, resource, spec, tenant_id, timeout)`,
				`on_cancel: must be "leave" or "remove"`,
				`provider: must be a string, not a number`,
				`resource: must be 1 to 63 letters, digits, '.', '_' or '-', beginning and ending with a letter or digit`,
				`spec.command: must be a list, not a string`,
				`spec.cpu_millis: must not be negative`,
				`spec.env: "A-B" is not a name for a variable: letters, digits and '_', not beginning with a digit`,
				`spec.env.C: must be a string, not a number`,
				`spec.health_check.command: is required`,
				`spec.health_check.interval: must be at least 1s`,
				`spec.health_check.retries: must be 1 to 10`,
				`spec.health_check.start_period: must not be negative`,
				`spec.health_check.timeout: must be at least 1s`,
				`spec.image: must not contain white space`,
				`spec.memory_mib: must be a whole number, not 2.5`,
				`spec.ports[0].container_port: must be 1 to 65535`,
				`spec.ports[0].name: must be 1 to 32 of a-z, 0-9 and '-', beginning and ending with a letter or digit`,
				`spec.ports[0].protocol: must be "tcp" or "udp"`,
				`spec.replicas: must be 1 to 1000`,
				`tenant_id: must be 1 to 63 letters, digits, '.', '_' or '-', beginning and ending with a letter or digit`,
				`timeout: must be a duration such as "90s" or "15m", not "1 hour"`,
			},
		},
		{
			name: "Missing", reason: "what is required is said to be", text: `{}`,
			faults: []string{"provider: is required", "spec.image: is required", "tenant_id: is required"},
		},
		{
			name: "Case", reason: "encoding/json would take it for the field, and another reader would not", text: with(`"Timeout": "5m"`),
			faults: []string{`Timeout: is not a known field (did you mean "timeout"?)`},
		},
		{
			name: "Twice", reason: "which of the two is meant only the caller knows", text: with(`"provider": "ecs", "metadata": {"a": "1", "a": "2"}`),
			faults: []string{"metadata.a: is given twice", "provider: is given twice"},
		},
		{
			name: "NullItem", reason: "in a list or a map null is no field left out", text: with(`"callbacks": [null], "metadata": {"a": null}`),
			faults: []string{"callbacks[0]: must not be null", "callbacks[0].target: is required", "metadata.a: must not be null"},
		},
		{name: "OtherID", reason: "the id is the workflow's", text: with(`"operation_id": "op-2"`), faults: []string{`operation_id: must be the id of the workflow, "op-1", or be left out`}},
		{name: "OtherVerb", reason: "the verb is the workflow type's", text: with(`"operation_type": "delete"`), faults: []string{`operation_type: must be "provision", as the workflow's type says, or be left out`}},
		{name: "RequestedAt", reason: "the generation decides who wins: it is nobody's to choose", text: with(`"requested_at": "2030-01-01T00:00:00Z"`), faults: []string{"requested_at: is set by bellhop"}},
		{name: "BadID", reason: "the id becomes labels and client tokens", id: "a/b", text: sound, faults: []string{"operation_id: must be 1 to 128 of the characters A-Z a-z 0-9 . _ : -"}},
		{name: "LongID", reason: "so its length is bounded", id: strings.Repeat("a", 129), text: sound, faults: []string{"operation_id: must be 1 to 128 of the characters A-Z a-z 0-9 . _ : -"}},
		{name: "BadVerb", reason: "there is no other verb", verb: "scale", text: sound, faults: []string{"operation_type: must be provision, update or delete"}},
		{name: "SpecToDelete", reason: "a spec that nobody reads shows that something else was meant", verb: bellhop.Delete, text: sound, faults: []string{"spec: must be left out to delete"}},
		{name: "RemoveOnUpdate", reason: "cancelling an update must not delete what served before", verb: bellhop.Update, text: with(`"on_cancel": "remove"`), faults: []string{`on_cancel: must be "leave" for update: only a cancelled provision may remove what exists`}},
		{name: "TimeoutTooShort", reason: "a second is the least that can be meant", text: with(`"timeout": "999ms"`), faults: []string{"timeout: must be 1s to 168h"}},
		{name: "TimeoutTooLong", reason: "a week is the most", text: with(`"timeout": "168h0m1s"`), faults: []string{"timeout: must be 1s to 168h"}},
		{name: "PriorityTooUrgent", reason: "Temporal has five", text: with(`"priority": -1`), faults: []string{"priority: must be 1 to 5, or be left out"}},
		{name: "PriorityTooLow", reason: "Temporal has five", text: with(`"priority": 6`), faults: []string{"priority: must be 1 to 5, or be left out"}},
		{name: "TimeoutNumber", reason: "a number has no unit", text: with(`"timeout": 900`), faults: []string{"timeout: must be a string, not a number"}},
		{name: "Metadata", reason: "metadata is carried by every outcome", text: with(`"metadata": {"k": "` + strings.Repeat("x", bellhop.MaxMetadataBytes) + `"}`), faults: []string{"metadata: is 16385 bytes large; at most 16384 are taken"}},
		{name: "Large", reason: "what no engine could carry is refused unread", text: with(`"metadata": {"k": "` + strings.Repeat("x", bellhop.MaxOperationBytes) + `"}`), faults: []string{"is 262243 bytes large; at most 262144 are taken"}},
		{name: "Replicas", reason: "a slip of three zeros is expensive", text: spec(`"replicas": 1001`), faults: []string{"spec.replicas: must be 1 to 1000"}},
		{name: "HugeNumber", reason: "a number that no int holds is not cut to one", text: spec(`"replicas": 1e300, "cpu_millis": 9223372036854775808`), faults: []string{"spec.cpu_millis: must be a whole number, not 9223372036854775808", "spec.replicas: must be a whole number, not 1e300"}},
		{name: "PortsTwice", reason: "two ports of one name or number cannot be told apart", text: spec(`"ports": [{"container_port": 80, "name": "a"}, {"container_port": 80, "name": "b"}, {"container_port": 81, "name": "a"}]`), faults: []string{"spec.ports[1]: 80/tcp is given twice", `spec.ports[2].name: "a" is given twice`}},
		{name: "ManyCallbacks", reason: "the number of callers is bounded", text: with(`"callbacks": [` + many + `]`), faults: append([]string{"callbacks: are 17; at most 16 are taken"}, twice(15)...)},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			id, verb := row.id, row.verb
			if id == "" {
				id = "op-1"
			}
			if verb == "" {
				verb = bellhop.Provision
			}
			op, err := bellhop.ParseOperation(id, verb, requestedAt, []byte(row.text))
			var faults bellhop.Faults
			if !errors.As(err, &faults) {
				t.Fatalf("the error is %v, want faults: %s", err, row.reason)
			}
			var got []string
			for _, fault := range faults {
				got = append(got, fault.String())
			}
			if diff := cmp.Diff(row.faults, got); diff != "" {
				t.Errorf("faults (-want +got): %s\n%s", row.reason, diff)
			}
			if op.ID != id || op.Verb != verb || op.RequestedAt != requestedAt.UTC() {
				t.Errorf("the operation is %s %s of %s: what is known must not be lost", op.Verb, op.ID, op.RequestedAt)
			}
			if joined := strings.Join(row.faults, "; "); err.Error() != joined {
				t.Errorf("as an error the faults read %q", err)
			}
		})
	}
}

// twice are the faults of callbacks that repeat the first one.
func twice(n int) []string {
	var faults []string
	for _, i := range []int{10, 11, 12, 13, 14, 15, 1, 2, 3, 4, 5, 6, 7, 8, 9}[:n] { // in the order of their paths
		faults = append(faults, fmt.Sprintf("callbacks[%d]: has the target and the address of an earlier one", i))
	}
	return faults
}

func TestSoundCallbacksSurvive(t *testing.T) {
	op, faults := parse(bellhop.Provision, `{
		"tenant_id": "", "callbacks": [
			{"target": "a", "address": {"workflow_id": "1"}},
			{"target": "", "address": {"workflow_id": "2"}},
			{"target": "c", "states": []},
			{"target": "d", "states": ["pending", "failed", "failed"]},
			{"target": "e", "deadline": "1ms", "failures": "loudly"},
			{"target": "f", "deadline": true},
			{"target": "g", "url": "http://169.254.169.254/"},
			{"target": "a", "address": { "workflow_id" : "1" }},
			{"target": "a b"},
			"orders",
			{"target": "z", "address": "token", "states": ["running"], "deadline": "24h"}
		]}`)
	want := []bellhop.Callback{
		{Target: "a", Address: json.RawMessage(`{"workflow_id": "1"}`), States: []bellhop.State{bellhop.Succeeded, bellhop.Failed, bellhop.Cancelled}},
		{Target: "z", Address: json.RawMessage(`"token"`), States: []bellhop.State{bellhop.Running}, Deadline: bellhop.Duration(24 * time.Hour)},
	}
	if diff := cmp.Diff(want, op.Callbacks, cmp.Comparer(func(a, b bellhop.Callback) bool {
		return a.Target == b.Target && string(a.Address) == string(b.Address) && cmp.Equal(a.States, b.States) && a.Deadline == b.Deadline
	})); diff != "" {
		t.Errorf("callbacks that are told (-want +got):\n%s", diff)
	}
	wantFaults := []string{
		"callbacks[1].target: is required",
		"callbacks[2].states: must name a state or be left out",
		`callbacks[3].states[0]: must be "running", "succeeded", "failed" or "cancelled"`,
		`callbacks[3].states[2]: "failed" is given twice`,
		"callbacks[4].deadline: must be at least 1s",
		`callbacks[4].failures: must be "error" or "result"`,
		"callbacks[5].deadline: must be a string, not true",
		"callbacks[6].url: is not a known field (known are address, deadline, failures, heartbeat, on_abandoned, states, target)",
		"callbacks[7]: has the target and the address of an earlier one",
		"callbacks[8].target: must be 1 to 63 letters, digits, '.', '_' or '-', beginning and ending with a letter or digit",
		"callbacks[9]: must be an object, not a string",
		"callbacks[9].target: is required",
		"provider: is required", "spec.image: is required", "tenant_id: is required",
	}
	var got []string
	for _, fault := range faults {
		got = append(got, fault.String())
	}
	if diff := cmp.Diff(wantFaults, got); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

func TestWhatIsRefusedFitsIntoItsOutcome(t *testing.T) {
	long := strings.Repeat("ä", 100_000)
	op, faults := parse(bellhop.Provision, `{"tenant_id": "`+long+`", "resource": "`+long+`", "provider": "`+long+`",
		"metadata": {"k": "`+long+`"}, "`+long+`": 1}`)
	outcome := bellhop.Outcome{
		TenantID: op.TenantID, Resource: op.Resource, Provider: op.Provider, Metadata: op.Metadata,
		Error: bellhop.InvalidOperation(faults).Clean(nil),
	}
	text, err := json.Marshal(outcome)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > 64<<10 {
		t.Errorf("the outcome that refuses the operation has %d bytes: no engine would take it", len(text))
	}
}

func TestGenerationsHaveAnOrder(t *testing.T) {
	generation := func(second int, id string) bellhop.Generation {
		return bellhop.Operation{ID: id, RequestedAt: requestedAt.Add(time.Duration(second) * time.Second)}.Generation()
	}
	ordered := []bellhop.Generation{generation(0, "b"), generation(0, "c"), generation(1, "a"), generation(2, "a")}
	for i, a := range ordered {
		for j, b := range ordered {
			if a.After(b) != (i > j) {
				t.Errorf("%v after %v is %t", a, b, a.After(b))
			}
		}
	}
	same := generation(0, "b")
	same.RequestedAt = same.RequestedAt.UTC()
	if same.After(ordered[0]) || ordered[0].After(same) {
		t.Error("one instant in two zones has two generations")
	}
}

func FuzzParseOperation(f *testing.F) {
	f.Add("op-1", "provision", []byte(sound))
	f.Add("op-1", "delete", []byte(`{"tenant_id": "acme", "provider": "docker"}`))
	f.Add("", "scale", []byte(`{"tenant_id": 1e999, "spec": {"ports": [null, {}, [[]]], "env": {"": ""}}, "callbacks": [{"address": {"a": [1, {}]}}]}`))
	f.Add("a b", "update", []byte(`[{"a": "\ud800"}]`))
	f.Add("op-1", "provision", []byte("{\"tenant_id\": \"\xff\", \"tenant_id\": null, \"metadata\": {\"\\u0000\": \"\"}}"))
	f.Fuzz(func(t *testing.T, id, verb string, data []byte) {
		op, err := bellhop.ParseOperation(id, bellhop.Verb(verb), requestedAt, data)
		again, errAgain := bellhop.ParseOperation(id, bellhop.Verb(verb), requestedAt, data)
		if fmt.Sprint(err) != fmt.Sprint(errAgain) {
			t.Errorf("the faults change from one reading to the next, which no replay survives:\n%v\n%v", err, errAgain)
		}
		if op.ID != id || op.Verb != bellhop.Verb(verb) {
			t.Errorf("the operation is %s %s", op.Verb, op.ID)
		}
		text, encodeErr := json.Marshal(op)
		textAgain, encodeAgainErr := json.Marshal(again)
		if encodeErr != nil || encodeAgainErr != nil || !bytes.Equal(text, textAgain) {
			t.Errorf("the operation is %s, %v and then %s, %v", text, encodeErr, textAgain, encodeAgainErr)
		}
		if op.String() == "" || op.GoString() == "" {
			t.Error("the operation cannot be shown")
		}
		if err != nil {
			return
		}
		// What is sound stays so on its way from activity to activity.
		op.RequestedAt = time.Time{}
		if text, encodeErr = json.Marshal(op); encodeErr != nil {
			t.Fatal(encodeErr)
		}
		if _, err := bellhop.ParseOperation(id, bellhop.Verb(verb), requestedAt, text); err != nil && len(text) <= bellhop.MaxOperationBytes {
			t.Errorf("what was read without a fault and written is refused: %s\n%s", err, text)
		}
	})
}

func TestOperationWrittenInGoIsTaken(t *testing.T) {
	text, err := json.Marshal(bellhop.Operation{TenantID: "acme", Provider: "docker", Spec: bellhop.Spec{
		Image: "nginx:1.27", Replicas: 1, Ports: []bellhop.Port{{ContainerPort: 80}}, HealthCheck: &bellhop.HealthCheck{Command: []string{"/check"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	op, err := bellhop.ParseOperation("op-1", bellhop.Provision, time.Now(), text)
	if err != nil {
		t.Fatalf("what a Go program leaves out is not left out of the JSON: %s\n%s", err, text)
	}
	if op.Resource != bellhop.DefaultResource || time.Duration(op.Timeout) != bellhop.DefaultTimeout || op.OnCancel != bellhop.Leave {
		t.Errorf("the defaults are not filled in: %s", op)
	}
}

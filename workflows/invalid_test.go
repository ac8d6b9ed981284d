package workflows_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"

	"bellhop"
	"bellhop/bridge"
	"bellhop/workflows"
)

func TestInvalidInput(t *testing.T) {
	payload := func(encoding, data string) []any {
		return []any{converter.NewRawValue(&commonpb.Payload{
			Metadata: map[string][]byte{converter.MetadataEncoding: []byte(encoding)}, Data: []byte(data),
		})}
	}
	text := func(s string) []any { return payload(converter.MetadataEncodingJSON, s) }
	with := func(f fields) []any { return text(string(order(bellhop.Provision, f))) }
	rows := []struct {
		name, reason string
		id           string // default: op-1
		input        []any
		// faults are the paths under which the evidence explains what is wrong, says a part of each explanation.
		faults map[string]string
		// rung are the targets that are told.
		rung []string
	}{
		{
			name: "None", reason: "a workflow that was started without input fails at once instead of for ever",
			faults: map[string]string{"operation": "there is none"},
		},
		{
			name: "Nil", reason: "so does one started with nil", input: []any{nil},
			faults: map[string]string{"operation": "must be JSON (json/plain), not binary/null"},
		},
		{
			name: "WrongEncoding", reason: "bytes are no JSON, and the message says what was found",
			input:  payload("binary/plain", "\x00\x01"),
			faults: map[string]string{"operation": "not binary/plain"},
		},
		{
			name: "NotJSON", reason: "what cannot be read has no callers to tell", input: text(`{"tenant_id": `),
			faults: map[string]string{"operation": "must be JSON"},
		},
		{
			name: "Null", reason: "null is no operation", input: text(`null`),
			faults: map[string]string{"operation": "must be an object, not null"},
		},
		{
			name: "Text", reason: "text in quotes is a common mistake on the command line", input: text(`"{}"`),
			faults: map[string]string{"operation": "must be an object, not a string"},
		},
		{
			name: "List", reason: "so is a list of operations", input: text(`[{}]`),
			faults: map[string]string{"operation": "must be an object, not a list"},
		},
		{
			name: "Empty", reason: "all that is missing is named at once", input: text(`{}`),
			faults: map[string]string{"tenant_id": "is required", "provider": "is required", "spec.image": "is required"},
		},
		{
			name: "UnknownField", reason: "a typo is not ignored, and the callers hear of it", input: with(fields{"tenantId": "acme"}),
			faults: map[string]string{"tenantId": `is not a known field (did you mean "tenant_id"?)`}, rung: []string{"orders"},
		},
		{
			name: "WrongTypes", reason: "every one of several mistakes is named",
			input: with(fields{"spec": fields{"image": "nginx", "replicas": "two"}, "timeout": 5}),
			faults: map[string]string{
				"spec.replicas": "must be a whole number, not a string", "timeout": "must be a string, not a number",
			},
			rung: []string{"orders"},
		},
		{
			name: "TooLarge", reason: "an operation that no engine could carry is refused unread, so nobody is known who could be told",
			input:  with(fields{"spec": fields{"image": "nginx", "args": []string{strings.Repeat("x", bellhop.MaxOperationBytes)}}}),
			faults: map[string]string{"operation": "at most 262144 are taken"}, rung: nil,
		},
		{
			name: "WorkflowID", reason: "the workflow's id is the operation's and must be fit for labels and tokens", id: "order 42/1",
			input: with(nil), faults: map[string]string{"operation_id": "must be 1 to 128 of the characters"}, rung: []string{"orders"},
		},
		{
			name: "OtherID", reason: "an id that is not the workflow's would be a second name for one thing",
			input:  with(fields{"operation_id": "op-2"}),
			faults: map[string]string{"operation_id": `must be the id of the workflow, "op-1", or be left out`}, rung: []string{"orders"},
		},
		{
			name: "OtherVerb", reason: "a verb that is not the workflow's shows that the wrong one was started",
			input:  with(fields{"operation_type": "delete"}),
			faults: map[string]string{"operation_type": `must be "provision"`}, rung: []string{"orders"},
		},
		{
			name: "RemoveAfterUpdate", reason: "cancelling an update must not delete what served before", input: with(fields{"on_cancel": "destroy"}),
			faults: map[string]string{"on_cancel": `must be "leave" or "remove"`}, rung: []string{"orders"},
		},
		{
			name: "BrokenCallback", reason: "the callers that can be told are told, whatever else is wrong",
			input: with(fields{"callbacks": []fields{
				callback("orders", fields{"states": []string{"finished"}}), callback("billing", nil), {"target": 7}, {"address": fields{}},
			}}),
			faults: map[string]string{
				"callbacks[0].states[0]": `must be "running", "succeeded", "failed" or "cancelled"`,
				"callbacks[2].target":    "must be a string, not a number",
				"callbacks[3].target":    "is required",
			},
			rung: []string{"billing"},
		},
		{
			name: "Nameless", reason: "a name that no search attribute would take does not keep the caller from being told",
			input:  with(fields{"tenant_id": strings.Repeat("a", 5000), "resource": "../..", "provider": ""}),
			faults: map[string]string{"tenant_id": "must be 1 to 63", "resource": "must be 1 to 63", "provider": "is required"},
			rung:   []string{"orders"},
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := setup(t)
			s.caller("billing")
			if row.id != "" {
				s.identify(row.id)
			}
			end := s.start(workflows.TypeFor(bellhop.Provision), bellhop.Provision, row.input...)
			o := end.outcome
			if o.State != bellhop.Failed || o.Error.Code != bellhop.CodeInvalidOperation {
				t.Fatalf("the operation is %s, %v: %s", o.State, o.Error, row.reason)
			}
			for path, says := range row.faults {
				if !strings.Contains(o.Error.Evidence[path], says) {
					t.Errorf("evidence of %s is %q, want %q in it: %s", path, o.Error.Evidence[path], says, row.reason)
				}
				if at := path; at != "operation" && !strings.Contains(o.Error.Message, at+": ") {
					t.Errorf("the message %q does not name %s", o.Error.Message, at)
				}
			}
			if len(o.Error.Evidence) != len(row.faults) {
				t.Errorf("evidence is %v, want it for %d faults: %s", o.Error.Evidence, len(row.faults), row.reason)
			}
			if diff := cmp.Diff([]bellhop.State{bellhop.Pending, bellhop.Queued, bellhop.Failed}, end.states()); diff != "" {
				t.Errorf("states (-want +got):\n%s", diff)
			}
			if len(s.platform.calls) > 0 {
				t.Error("the provider was asked for an operation that is invalid")
			}
			for name, c := range s.callers {
				want := []string(nil)
				if slices.Contains(row.rung, name) {
					want = []string{s.id + "/failed"}
				}
				if diff := cmp.Diff(want, c.told()); diff != "" {
					t.Errorf("%s was told (-want +got): %s\n%s", name, row.reason, diff)
				}
			}
			if len(end.status.Callbacks) != len(row.rung) {
				t.Errorf("there are receipts %v, want one for each of %v", end.status.Callbacks, row.rung)
			}
		})
	}
}

// What only a worker can see is found before the provider is asked.
func TestTargetOfAnotherTenant(t *testing.T) {
	for name, with := range map[string]fields{"Sound": nil, "InvalidBesides": {"provider": ""}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := setup(t)
			orders := s.callers["orders"]
			s.activities.Targets["orders"] = bridge.Guard(orders, bridge.Limits{Concurrency: 10, Tenants: []string{"rival"}}, nil)
			end := s.carryOut(bellhop.Provision, order(bellhop.Provision, with))
			if end.outcome.Error == nil || end.outcome.Error.Code != bellhop.CodeInvalidOperation {
				t.Errorf("the operation is %s: %v", end.outcome.State, end.outcome.Error)
			}
			if len(orders.rings()) > 0 || end.receipt(t, "orders").State != bellhop.ReceiptUndeliverable {
				t.Errorf("another tenant's caller was rung %v; the receipt is %+v", orders.told(), end.receipt(t, "orders"))
			}
			if len(s.platform.named("provision")) > 0 {
				t.Error("the provider was asked")
			}
		})
	}
}

func TestRefusedByConfiguration(t *testing.T) {
	rows := []struct {
		name, reason string
		script       func(s *stage)
		with         fields
		faults       map[string]string
		receipts     map[string]bellhop.ReceiptState
	}{
		{
			name: "Provider", reason: "a provider that does not exist is named, beside those that do", with: fields{"provider": "ecs"},
			faults:   map[string]string{"provider": `"ecs" is not configured; configured are sim`},
			receipts: map[string]bellhop.ReceiptState{"orders": bellhop.ReceiptAcknowledged},
		},
		{
			name:     "Target",
			reason:   "a caller that cannot be told makes the operation fail before anything exists, and those that can be told are",
			with:     fields{"callbacks": []fields{callback("orders", nil), callback("nowhere", nil)}},
			faults:   map[string]string{"callbacks[1].target": `"nowhere" is not configured; configured are orders`},
			receipts: map[string]bellhop.ReceiptState{"orders": bellhop.ReceiptAcknowledged, "nowhere": bellhop.ReceiptUndeliverable},
		},
		{
			name: "ProviderConfig", reason: "the provider's own faults carry their paths",
			script: func(s *stage) {
				s.platform.check = func(bellhop.Operation) error {
					return bellhop.Faults{{Path: "provider_config.subnet", Problem: "is required"}}
				}
			},
			faults:   map[string]string{"provider_config.subnet": "is required"},
			receipts: map[string]bellhop.ReceiptState{"orders": bellhop.ReceiptAcknowledged},
		},
		{
			name: "Address", reason: "an address that no attempt could use is found out at the beginning",
			script: func(s *stage) {
				s.caller("orders").check = func(bellhop.Callback) error {
					return bellhop.Faults{{Path: "address.workflow_id", Problem: "is required"}}
				}
			},
			faults:   map[string]string{"callbacks[0].address.workflow_id": "is required"},
			receipts: map[string]bellhop.ReceiptState{"orders": bellhop.ReceiptUndeliverable},
		},
		{
			name: "CheckFails", reason: "a check that answers no faults is understood all the same",
			script: func(s *stage) {
				s.platform.check = func(bellhop.Operation) error { return fmt.Errorf("no idea what to do with %s", secretEnv) }
			},
			faults:   map[string]string{"operation": "no idea what to do with [redacted]"},
			receipts: map[string]bellhop.ReceiptState{"orders": bellhop.ReceiptAcknowledged},
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := setup(t)
			if row.script != nil {
				row.script(s)
			}
			end := s.carryOut(bellhop.Provision, order(bellhop.Provision, row.with))
			o := end.outcome
			if o.State != bellhop.Failed || o.Error.Code != bellhop.CodeInvalidOperation {
				t.Fatalf("the operation is %s, %v: %s", o.State, o.Error, row.reason)
			}
			if diff := cmp.Diff(row.faults, o.Error.Evidence); diff != "" {
				t.Errorf("evidence (-want +got): %s\n%s", row.reason, diff)
			}
			for target, want := range row.receipts {
				if receipt := end.receipt(t, target); receipt.State != want || receipt.Attempts != 1 {
					t.Errorf("receipt of %s is %+v, want it %s: %s", target, receipt, want, row.reason)
				}
			}
			if asked := s.platform.named("provision"); len(asked) > 0 {
				t.Error("the provider was asked")
			}
		})
	}
}

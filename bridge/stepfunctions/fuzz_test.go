package stepfunctions

import (
	"encoding/json"
	"testing"

	"bellhop"
	"bellhop/internal/boundtest"
)

// FuzzAddress reads the address of a callback, and one that repeats something as often as fits.
func FuzzAddress(f *testing.F) {
	f.Add(`{"task_token":"AAAAKgAAAAIAAAAA"}`, ``, ``)
	f.Add(`{"task_token":"`, `A`, `"}`)
	f.Add(`{"task_token":`, `[`, ``)
	f.Add(`"token"`, ``, ``)
	f.Fuzz(boundtest.Address(new(Target).Check))
}

// FuzzTask reads the input of a task, which is an operation, and one that repeats something as often as fits.
func FuzzTask(f *testing.F) {
	f.Add("token", `{"operation_type":"provision","tenant_id":"acme","provider":"docker","spec":{"image":"nginx"},"callbacks":[{"target":"t"}]}`, "", "")
	f.Add("token", `{"operation_id":"a","operation_type":"delete","callbacks":[`, `{"":0},`, `{}]}`)
	f.Add("", `{"operation_type":[`, `[`, ``)
	f.Add("", `{"operation_id":"`, `x`, `"}`)
	f.Add("", `{"operation_type":"`, `x`, `"}`)
	f.Add("", `{"tenant_id":"`, `x`, `"}`)
	f.Add("", `{"metadata":{`, `"":"",`, `"a":"b"}}`)
	f.Fuzz(func(t *testing.T, token, before, each, after string) {
		input := []byte(boundtest.Filled(before, each, after))
		boundtest.Within(t, func() {
			poller := &Poller{Activity: Activity{Target: "t", Tenant: "acme"}, MakeID: func(_, derived string) string { return derived }}
			ask, failure := poller.read(token, input)
			if failure == nil {
				if len(ask.input) == 0 {
					t.Error("an operation without an input is to be started")
				}
				return
			}
			// The task must be told, in what a cause may hold.
			outcome, err := json.Marshal(bellhop.Outcome{
				CallbackID: bellhop.CallbackID(ask.id, bellhop.Failed), OperationID: ask.id, OperationType: ask.verb,
				TenantID: ask.tenant, Resource: ask.resource, Provider: ask.provider, State: bellhop.Failed, Error: failure.Clean(nil),
			})
			if err == nil {
				_, err = bellhop.CutOutcome(outcome, maxCause)
			}
			if err != nil {
				t.Error(err)
			}
		})
	})
}

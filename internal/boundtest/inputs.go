package boundtest

import (
	"encoding/json"
	"strings"
	"testing"

	"bellhop"
)

// maxFaults is how many bytes the faults of an input may have.
const maxFaults = 200 << 10

// Filled is before and after with each between them, as often as an operation has room for.
func Filled(before, each, after string) string {
	times := 0
	if each != "" {
		times = max(0, bellhop.MaxOperationBytes-len(before)-len(after)) / len(each)
	}
	return before + strings.Repeat(each, times) + after
}

// Address is what a fuzz target does that reads callbacks' addresses, of which each is [Filled].
func Address(check func(bellhop.Callback) error) func(t *testing.T, before, each, after string) {
	return func(t *testing.T, before, each, after string) {
		t.Helper()
		callback := bellhop.Callback{
			Target: "t", Address: json.RawMessage(Filled(before, each, after)), States: []bellhop.State{bellhop.Running, bellhop.Failed},
		}
		Within(t, func() {
			err := check(callback)
			if err == nil {
				return
			}
			if len(err.Error()) > maxFaults {
				t.Errorf("the faults have %d bytes", len(err.Error()))
			}
			for _, secret := range callback.Secrets() {
				if len(secret) > 16 && strings.Contains(err.Error(), secret) {
					t.Error("a fault repeats a token")
				}
			}
		})
	}
}

// ProviderConfig is what a fuzz target does that reads provider_configs, of which each is [Filled].
func ProviderConfig(check func(bellhop.Operation) error) func(t *testing.T, before, each, after, image string) {
	return func(t *testing.T, before, each, after, image string) {
		t.Helper()
		op := bellhop.Operation{
			ID: "op-1", Verb: bellhop.Provision, TenantID: "acme", Resource: "default", Provider: "p",
			Spec:           bellhop.Spec{Image: image, Replicas: 1, Secrets: map[string]string{"A": image}},
			ProviderConfig: json.RawMessage(Filled(before, each, after)),
		}
		Within(t, func() {
			for _, op.Verb = range bellhop.Verbs() {
				if err := check(op); err != nil && len(err.Error()) > maxFaults {
					t.Errorf("the faults have %d bytes", len(err.Error()))
				}
			}
		})
	}
}

package restate

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"bellhop"
	"bellhop/bridge"
	"bellhop/internal/boundtest"
)

// FuzzAddress reads the address of a callback, and one that repeats something as often as fits.
func FuzzAddress(f *testing.F) {
	f.Add(`{"awakeable":"sign_1dDmT"}`, ``, ``)
	f.Add(`{"service":"Orders","handler":"done","key":"42"}`, ``, ``)
	f.Add(`{"awakeable":"`, `x`, `"}`)
	f.Add(`{"key":"`, `/..`, `"}`)
	f.Fuzz(boundtest.Address(new(Target).Check))
}

// started takes every operation that is sound.
type started struct{ bridge.Compute }

func (started) MakeID(_, derived string) string { return derived }

func (started) Start(_ context.Context, id string, verb bellhop.Verb, input []byte) (bool, error) {
	_, err := bellhop.ParseOperation(id, verb, time.Time{}, input)
	return false, err
}

// FuzzInput reads the input of an invocation, which is an operation, and one that repeats something as often as fits.
func FuzzInput(f *testing.F) {
	f.Add(`{"operation_id":"a","tenant_id":"acme","provider":"docker","spec":{"image":"nginx"},"callbacks":[{"target":"t"}]}`, "", "")
	f.Add(`{"callbacks":[`, `{"":0},`, `{}]}`)
	f.Add(`{"operation_id":[`, `[`, ``)
	f.Add(`{"tenant_id":"acme","provider":"docker","spec":{"image":"nginx","env":{`, `"A":"b",`, `"C":"d"}}}`)
	f.Fuzz(func(t *testing.T, before, each, after string) {
		input := json.RawMessage(boundtest.Filled(before, each, after))
		boundtest.Within(t, func() {
			given := bellhop.Identify(input)
			id, verb := given.ID, given.Verb
			if verb == "" {
				verb = bellhop.Provision
			}
			answer, err := (&compute{ops: started{}, target: "t"}).begin(t.Context(), id, verb, input, "sign_1")
			if err == nil && answer.Code == 0 && len(input) > bellhop.MaxOperationBytes {
				t.Error("an operation that is too large is taken")
			}
		})
	})
}

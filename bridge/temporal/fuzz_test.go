package temporal

import (
	"context"
	"testing"

	"github.com/nexus-rpc/sdk-go/nexus"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"

	"bellhop"
	"bellhop/bridge"
	"bellhop/internal/boundtest"
)

// FuzzAddress reads the address of a callback, and one that repeats something as often as fits.
func FuzzAddress(f *testing.F) {
	f.Add(`{"workflow_id":"order-42","signal":"done","run_id":"0197"}`, ``, ``)
	f.Add(`{"task_token":"CiQwMTk3"}`, ``, ``)
	f.Add(`{"task_token":"`, `AAAA`, `"}`)
	f.Add(`{"workflow_id":"`, `x`, `","activity_id":"a"}`)
	f.Add(`{"`, `a`, `":1}`)
	f.Fuzz(boundtest.Address(new(Target).Check))
}

// started takes every operation that is sound.
type started struct{ bridge.Compute }

func (started) MakeID(_, derived string) string { return derived }

func (started) Start(_ context.Context, id string, verb bellhop.Verb, input []byte) (bool, error) {
	_, err := bellhop.AcceptOperation(id, verb, input)
	return false, err
}

// FuzzNexusInput reads the input of a Nexus operation, and one that repeats something as often as fits.
func FuzzNexusInput(f *testing.F) {
	f.Add(`{"operation_id":"a","operation_type":"delete","tenant_id":"acme","provider":"docker"}`, "", "", "json/plain")
	f.Add(`{"callbacks":[`, `{"":0},`, `{}]}`, "json/plain")
	f.Add(`{"spec":{"env":{`, `"1":"",`, `"":""}}}`, "json/plain")
	f.Add(``, ``, ``, "binary/null")
	f.Fuzz(func(t *testing.T, before, each, after, encoding string) {
		input := converter.NewRawValue(&commonpb.Payload{
			Metadata: map[string][]byte{converter.MetadataEncoding: []byte(encoding)}, Data: []byte(boundtest.Filled(before, each, after)),
		})
		boundtest.Within(t, func() {
			_, err := (&service{ops: started{}}).start(t.Context(), input, nexus.StartOperationOptions{RequestID: "r-1"})
			if err != nil && len(err.Error()) > 200<<10 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	})
}

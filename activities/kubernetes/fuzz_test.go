package kubernetes

import (
	"encoding/json"
	"strings"
	"testing"

	"bellhop"
	"bellhop/internal/boundtest"
)

// FuzzProviderConfig reads a provider_config, and one that repeats something as often as fits.
func FuzzProviderConfig(f *testing.F) {
	f.Add(`{"kind":"job"}`, ``, ``, `nginx`)
	f.Add(`{"labels":{`, `"a":"b",`, `"c":"d"}}`, `secret/key`)
	f.Add(`{"service":"ClusterIP"}`, ``, ``, `x`)
	f.Add(`{`, `"a":{},`, `"b":[]}`, `n`)
	f.Fuzz(func(t *testing.T, before, each, after, image string) {
		times := 0
		if each != "" {
			times = max(0, bellhop.MaxOperationBytes-len(before)-len(after)) / len(each)
		}
		op := bellhop.Operation{
			ID: "op-1", Verb: bellhop.Provision, TenantID: "acme", Resource: "default", Provider: "p",
			Spec:           bellhop.Spec{Image: image, Replicas: 1, Secrets: map[string]string{"A": image}},
			ProviderConfig: json.RawMessage(before + strings.Repeat(each, times) + after),
		}
		boundtest.Within(t, func() {
			for _, op.Verb = range bellhop.Verbs() {
				if err := Check(op); err != nil && len(err.Error()) > 200<<10 {
					t.Errorf("the faults have %d bytes", len(err.Error()))
				}
			}
		})
	})
}

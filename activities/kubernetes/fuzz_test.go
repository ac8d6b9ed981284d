package kubernetes

import (
	"testing"

	"bellhop/internal/boundtest"
)

// FuzzProviderConfig reads a provider_config, and one that repeats something as often as fits.
func FuzzProviderConfig(f *testing.F) {
	f.Add(`{"kind":"job"}`, ``, ``, `nginx`)
	f.Add(`{"labels":{`, `"a":"b",`, `"c":"d"}}`, `secret/key`)
	f.Add(`{"service":"ClusterIP"}`, ``, ``, `x`)
	f.Add(`{`, `"a":{},`, `"b":[]}`, `n`)
	f.Fuzz(boundtest.ProviderConfig(Check))
}

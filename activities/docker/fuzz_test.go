package docker

import (
	"testing"

	"bellhop/internal/boundtest"
)

// FuzzProviderConfig reads a provider_config, and one that repeats something as often as fits.
func FuzzProviderConfig(f *testing.F) {
	f.Add(`{"network":"none","pull":"never","labels":{"a":"b"}}`, ``, ``, `nginx`)
	f.Add(`{"labels":{`, `"a":"b",`, `"c":"d"}}`, `file:../x`)
	f.Add(`{"x":`, `[`, `1`, `a b`)
	f.Add(`{"publish":"all"}`, ``, ``, `env:A`)
	f.Fuzz(boundtest.ProviderConfig(Check))
}

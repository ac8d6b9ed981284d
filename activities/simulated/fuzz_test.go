package simulated

import (
	"testing"

	"bellhop/internal/boundtest"
)

// FuzzProviderConfig reads a provider_config, and one that repeats something as often as fits.
func FuzzProviderConfig(f *testing.F) {
	f.Add(`{"ready_after":"1s","script":[]}`, ``, ``, `nginx`)
	f.Add(`{"ask_takes":"10m","fail":"x"}`, ``, ``, `n`)
	f.Add(`{"`, `a`, `":1}`, `n`)
	f.Add(`{"script":[`, `{},`, `{}]}`, `n`)
	f.Fuzz(boundtest.ProviderConfig(Check))
}

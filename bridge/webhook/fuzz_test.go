package webhook

import (
	"testing"

	"bellhop/internal/boundtest"
)

// FuzzAddress reads the address of a callback, and one that repeats something as often as fits.
func FuzzAddress(f *testing.F) {
	f.Add(`{}`, ``, ``)
	f.Add(`{"path":"/x"}`, ``, ``)
	f.Add(`{"`, `a`, `":1}`)
	f.Add(``, `[`, ``)
	f.Fuzz(boundtest.Address(new(Target).Check))
}

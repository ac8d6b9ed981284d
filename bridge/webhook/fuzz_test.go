package webhook

import (
	"encoding/json"
	"strings"
	"testing"

	"bellhop"
	"bellhop/internal/boundtest"
)

// FuzzAddress reads the address of a callback, and one that repeats something as often as fits.
func FuzzAddress(f *testing.F) {
	f.Add(`{}`, ``, ``)
	f.Add(`{"path":"/x"}`, ``, ``)
	f.Add(`{"`, `a`, `":1}`)
	f.Add(``, `[`, ``)
	f.Fuzz(func(t *testing.T, before, each, after string) {
		times := 0
		if each != "" {
			times = max(0, bellhop.MaxOperationBytes-len(before)-len(after)) / len(each)
		}
		callback := bellhop.Callback{
			Target: "t", Address: json.RawMessage(before + strings.Repeat(each, times) + after), States: []bellhop.State{bellhop.Running, bellhop.Failed},
		}
		boundtest.Within(t, func() {
			err := new(Target).Check(callback)
			if err == nil {
				return
			}
			if len(err.Error()) > 200<<10 {
				t.Errorf("the faults have %d bytes", len(err.Error()))
			}
			for _, secret := range callback.Secrets() {
				if len(secret) > 16 && strings.Contains(err.Error(), secret) {
					t.Error("a fault repeats a token")
				}
			}
		})
	})
}

package docker

import (
	"encoding/json"
	"strings"
	"testing"

	"bellhop"
)

func TestTailKeepsTheEnd(t *testing.T) {
	last := tail{limit: 10}
	for _, text := range []string{"abc", "defghij", "kl", "mnopqrstuvwxyz"} {
		if n, err := last.Write([]byte(text)); n != len(text) || err != nil {
			t.Fatalf("wrote %d of %d, %v", n, len(text), err)
		}
	}
	if got := string(last.bytes); got != "qrstuvwxyz" || !last.cut {
		t.Errorf("kept %q, cut %t", got, last.cut)
	}
}

func TestSecretsOfAnEnvironment(t *testing.T) {
	secrets := secretsOf([]string{"PATH=/usr/local/bin:/usr/bin", "MODE=prod", "TOKEN=correct horse", "KEY=-begin-\nmiddle line\n-end-", "EMPTY="})
	text := bellhop.Scrub("middle line\n-end-\nPATH is /usr/local/bin:/usr/bin, prod, correct horse", secrets)
	for _, secret := range []string{"middle", "horse"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is left in %q", secret, text)
		}
	}
	for _, harmless := range []string{"prod", "/usr/local/bin:/usr/bin"} {
		if !strings.Contains(text, harmless) {
			t.Errorf("%q, which is no secret, was taken out of %q", harmless, text)
		}
	}
}

func TestTheLogOfEventsTellsWhatRanOutOfMemory(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	for resource, row := range map[string]struct {
		args []string
		want bool
	}{
		"greedy": {[]string{"allocate"}, true},
		"modest": {[]string{"exit", "-code", "137"}, false},
	} {
		op := b.provision(resource, func(op *bellhop.Operation) {
			op.Spec.Args, op.Spec.MemoryMiB = row.args, 16
			op.ProviderConfig = json.RawMessage(`{"restart_policy": {"name": "no"}}`)
		})
		seen := b.want(op, bellhop.PhaseFailed)
		if got := b.ranOutOfMemory(t.Context(), seen.ResourceIDs.ContainerIDs[0]); got != row.want {
			t.Errorf("%s ran out of memory: %t, want %t", resource, got, row.want)
		}
	}
}

package docker

import (
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

package bridge_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"bellhop/bridge"
)

func TestSaid(t *testing.T) {
	t.Parallel()
	const secret, other = "sign_1AZIUnsh8k-oBj2Y7gDmuMW3FeCGVLx6rAAAAEQ", "key_1234567890"
	for at := range 4096 { // wherever a server repeats a secret, and wherever it is cut
		answer := strings.Repeat("é", at/2) + strings.Repeat("x", at%2) + "no " + other + " and " + secret + strings.Repeat("€", 2000)
		said := bridge.Said(&http.Response{Body: io.NopCloser(strings.NewReader(answer))}, secret, "", other)
		if strings.Contains(said, "sign_1") || strings.Contains(said, "key_") {
			t.Fatalf("after %d bytes a secret, or the half of one, is shown: %s", at, said)
		}
		if !utf8.ValidString(said) || len(said) > 2048 || len(said) < 2000 {
			t.Fatalf("after %d bytes %d bytes are shown, text: %t", at, len(said), utf8.ValidString(said))
		}
	}
	said := bridge.Said(&http.Response{Body: io.NopCloser(strings.NewReader("\x1f\x8b\xff gone \n"))})
	if said != "\x1f gone" {
		t.Errorf("what is no text is shown as %q", said)
	}
}

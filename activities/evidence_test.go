package activities

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTailKeepsTheEnd(t *testing.T) {
	last := Tail{Limit: 10}
	for _, text := range []string{"abc", "defghij", "kl", "mnopqrstuvwxyz"} {
		if n, err := last.Write([]byte(text)); n != len(text) || err != nil {
			t.Fatalf("wrote %d of %d, %v", n, len(text), err)
		}
	}
	if got := string(last.bytes); got != "qrstuvwxyz" || !last.cut {
		t.Errorf("kept %q, cut %t", got, last.cut)
	}
}

// A log that was cut begins in the middle of whatever was there.
func TestTail_ShowsNoPartOfASecret(t *testing.T) {
	key := "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw\nggSjAgEAAoIBAQC7VJTUt9Us8cKj\n-----END KEY-----\n"
	log := "starting\n" + key + "the last line\n"
	for limit := range len(log) + 1 {
		last := Tail{Limit: limit}
		_, err := last.Write([]byte(log))
		require.NoError(t, err)
		text := last.Text(SecretsIn([]string{"short", key}))
		for part := range strings.Lines(key) {
			for from := range len(part) - 6 {
				require.NotContains(t, text, part[from:from+6], "with the last %d bytes kept", limit)
			}
		}
		if limit > len("the last line\n") {
			require.Contains(t, text, "the last line")
		}
	}
	oneLine := Tail{Limit: 30}
	_, err := oneLine.Write([]byte("the password is correct-horse-battery"))
	require.NoError(t, err)
	require.NotContains(t, oneLine.Text([]string{"is correct-horse-battery"}), "horse")
}

package restate_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mr-tron/base58"
	"github.com/stretchr/testify/require"

	"bellhop/bridge/restate"
)

// identity is a Restate server, as far as it proves who it is.
type identity struct {
	public  string
	private ed25519.PrivateKey
}

func newIdentity(t *testing.T) identity {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return identity{"publickeyv1_" + base58.Encode(public), private}
}

// discovers asks an endpoint what it serves, and returns the HTTP status.
func (i identity) discovers(t *testing.T, address string) int {
	t.Helper()
	const path = "/discover"
	part := func(value any) string {
		text, err := json.Marshal(value)
		require.NoError(t, err)
		return base64.RawURLEncoding.EncodeToString(text)
	}
	now := time.Now().Unix()
	token := part(map[string]any{"alg": "EdDSA", "typ": "JWT", "kid": i.public}) + "." +
		part(map[string]any{"aud": path, "nbf": now - 60, "exp": now + 60})
	token += "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(i.private, []byte(token)))
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, http.NoBody)
	require.NoError(t, err)
	request.Header.Set("Accept", "application/vnd.restate.endpointmanifest.v4+json")
	request.Header.Set("X-Restate-Signature-Scheme", "v1")
	request.Header.Set("X-Restate-Jwt-V1", token)
	answer, err := (&http.Client{}).Do(request)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	return answer.StatusCode
}

func TestIdentityKeysFile_Rotation(t *testing.T) {
	t.Parallel()
	configured, old, renewed := newIdentity(t), newIdentity(t), newIdentity(t)
	file := filepath.Join(t.TempDir(), "identity-keys")
	set := func(text string) {
		require.NoError(t, os.WriteFile(file+".new", []byte(text), 0o600))
		require.NoError(t, os.Rename(file+".new", file))
	}
	set("# Restate of today\n" + old.public + "\n")
	endpoint, err := restate.Listen(restate.ComputeConfig{
		Listen: "127.0.0.1:0", Target: "restate", IdentityKeys: []string{configured.public}, IdentityKeysFile: file,
	}, nil, slog.New(slog.DiscardHandler), func(err error) { t.Error(err) })
	require.NoError(t, err)
	t.Cleanup(endpoint.Stop)
	known := func(reason string, known ...identity) {
		t.Helper()
		for name, one := range map[string]identity{"configured": configured, "old": old, "renewed": renewed} {
			want := http.StatusUnauthorized
			for _, k := range known {
				if k.public == one.public {
					want = http.StatusOK
				}
			}
			require.Equal(t, want, one.discovers(t, endpoint.Address), "%s: %s", reason, name)
		}
	}
	known("at the start", configured, old)
	set(old.public + "\n" + renewed.public)
	known("both for a while", configured, old, renewed)
	set(renewed.public)
	known("the old one is taken away", configured, renewed)
	for reason, broken := range map[string]string{
		"an empty file opens nothing": "", "comments only": "# none\n", "a key that is none": old.public + "\npublickeyv1_1",
	} {
		set(broken)
		known(reason, configured, renewed)
	}
}

func TestIdentityKeysFile_Faults(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "identity-keys")
	require.NoError(t, os.WriteFile(file, []byte("# none\n\npublickeyv1_1"), 0o600))
	for want, path := range map[string]string{"line 3: ": file, "no such file": file + ".none"} {
		err := restate.ComputeConfig{Target: "r", Listen: ":9080", IdentityKeysFile: path}.Check()
		require.ErrorContains(t, err, "identity_keys_file: ")
		require.ErrorContains(t, err, want)
		require.False(t, strings.Contains(err.Error(), "are required"), "a file is a way to give keys")
	}
}

//go:build unix

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"bellhop/tests/certificates"
)

// fixture is a configuration with every file that has a key, a token or a hash in it.
type fixture struct {
	t      *testing.T
	folder string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	f := &fixture{t, t.TempDir()}
	certificates.New(t, "localhost").Write(f.at("cert"), f.at("key"))
	certificates.New(t, "client").Write(f.at("client-cert"), f.at("client-key"))
	f.write("hook-key", "whsec_"+strings.Repeat("A", 44))
	f.write("auth-key", "key_1")
	f.write("metrics-token", "a-metrics-token")
	f.write("api-key", "an-api-key")
	f.write("other-api-key", "another-api-key")
	f.write("docker.json", "{}")
	require.NoError(t, os.MkdirAll(f.at("secrets/acme"), 0o700))
	f.write("secrets/acme/password", "correct-horse")
	f.write("identity", "publickeyv1_2G8dCQhArfvGpzPw5Vx2ALciR4xCLHfS5YaT93XjNxX9")
	f.write("tokens.yaml", fmt.Sprintf("tokens: [{name: rotated, operator: true, sha256: %q}]", strings.Repeat("a", 64)))
	f.write("temporal.toml", fmt.Sprintf(`
[profile.default]
address = "127.0.0.1:1"
[profile.default.tls]
client_cert_path = %q
client_key_path = %q
[profile.callers]
address = "127.0.0.1:1"
[profile.keyed]
address = "127.0.0.1:1"
api_key = "a-key-in-temporal-toml"
`, f.at("client-cert"), f.at("client-key")))
	t.Setenv("TEMPORAL_CONFIG_FILE", f.at("temporal.toml"))
	f.write("worker.yaml", fmt.Sprintf(`
temporal: {api_key_file: %[1]s/api-key}
metrics_token_file: %[1]s/metrics-token
providers:
  docker: {type: docker, docker_config: %[1]s/docker.json, secrets: {dir: %[1]s/secrets}}
targets:
  callers: {type: temporal, profile: callers, api_key_file: %[1]s/other-api-key}
  keyed: {type: temporal, profile: keyed}
  hook: {type: webhook, url: "https://example.com", key_file: %[1]s/hook-key}
  restate: {type: restate, ingress: "http://127.0.0.1:1", auth_key_file: %[1]s/auth-key}
restate: {target: restate, identity_keys_file: %[1]s/identity}
api:
  listen: "127.0.0.1:0"
  tls: {cert_file: %[1]s/cert, key_file: %[1]s/key}
  tokens: [{name: inline, operator: true, sha256: %[2]q}]
  tokens_file: %[1]s/tokens.yaml
`, f.folder, strings.Repeat("b", 64)))
	return f
}

func (f *fixture) at(name string) string { return filepath.Join(f.folder, name) }

func (f *fixture) write(name, text string) {
	f.t.Helper()
	require.NoError(f.t, os.WriteFile(f.at(name), []byte(text), 0o600))
}

func (f *fixture) mode(mode os.FileMode, names ...string) {
	f.t.Helper()
	for _, name := range names {
		require.NoError(f.t, os.Chmod(f.at(name), mode))
	}
}

func (f *fixture) check() (said string, code int) {
	var out, errs bytes.Buffer
	code = run(f.t.Context(), []string{"--config", f.at("worker.yaml"), "--check"}, &out, &errs)
	return out.String() + errs.String(), code
}

// secretFiles are the files that nobody else may read, by what names them.
var secretFiles = map[string]string{
	"temporal.api_key_file":              "api-key",
	"metrics_token_file":                 "metrics-token",
	"providers.docker.docker_config":     "docker.json",
	"providers.docker.secrets.dir":       "secrets/acme/password",
	"targets.callers.api_key_file":       "other-api-key",
	"targets.hook.key_file":              "hook-key",
	"targets.restate.auth_key_file":      "auth-key",
	"api.tls.key_file":                   "key",
	"TLS client key of":                  "client-key",
	"API key or TLS key of Temporal's c": "temporal.toml",
}

func TestFiles_PrivateOnesAreInOrder(t *testing.T) {
	f := newFixture(t)
	said, code := f.check()
	require.Zero(t, code, said)
	require.NotContains(t, said, "can be")
	f.mode(0o644, "cert", "client-cert", "identity") // who wants to know them may
	f.mode(0o400, "key", "hook-key")
	said, code = f.check()
	require.Zero(t, code, said)
	require.NotContains(t, said, "can be")
}

func TestFiles_SecretsThatOthersCanReadAreRefused(t *testing.T) {
	for _, mode := range []os.FileMode{0o644, 0o640, 0o604, 0o620, 0o602} {
		t.Run(mode.String(), func(t *testing.T) {
			f := newFixture(t)
			f.mode(0o755, "secrets", "secrets/acme")
			for _, name := range secretFiles {
				f.mode(mode, name)
			}
			said, code := f.check()
			require.Equal(t, exitUsage, code)
			for field, name := range secretFiles {
				require.Regexp(t, field+`.*: `+f.at(name)+` \(mode \d{4}, owner \d+\) can be (read|changed) by others: chmod`, said, "all of them at once")
			}
			require.Contains(t, said, "allow_readable_files: true")
			if mode&0o022 == 0 {
				require.Contains(t, said, "defaultMode: 0400", "what to do in Kubernetes")
			}

			text, err := os.ReadFile(f.at("worker.yaml"))
			require.NoError(t, err)
			f.write("worker.yaml", string(text)+"allow_readable_files: true\n")
			said, code = f.check()
			require.Zero(t, code, said)
			for field, name := range secretFiles {
				require.Regexp(t, "note: "+field+`.*: `+f.at(name), said, "what is accepted is still named")
			}
		})
	}
}

func TestFiles_HashesThatOthersCanReadAreNamed(t *testing.T) {
	f := newFixture(t)
	f.mode(0o644, "worker.yaml", "tokens.yaml")
	said, code := f.check()
	require.Zero(t, code, said)
	require.Contains(t, said, "note: the configuration: "+f.at("worker.yaml")+" (mode 0644, ")
	require.Contains(t, said, "note: api.tokens_file: "+f.at("tokens.yaml")+" (mode 0644, ")
}

// Who can change the hashes or the keys of Restate lets themselves in.
func TestFiles_ThatAnybodyCanChangeAreRefused(t *testing.T) {
	f := newFixture(t)
	f.mode(0o666, "worker.yaml", "tokens.yaml", "identity")
	said, code := f.check()
	require.Equal(t, exitUsage, code)
	for _, want := range []string{"the configuration: ", "api.tokens_file: ", "restate.identity_keys_file: "} {
		require.Contains(t, said, want)
	}
	require.Equal(t, 3, strings.Count(said, "can be changed by others"), said)
}

func TestFiles_LinksAreFollowed(t *testing.T) {
	f := newFixture(t)
	f.mode(0o644, "hook-key")
	require.NoError(t, os.Rename(f.at("hook-key"), f.at("elsewhere")))
	require.NoError(t, os.Symlink("elsewhere", f.at("between")))
	require.NoError(t, os.Symlink("between", f.at("hook-key")))
	said, code := f.check()
	require.Equal(t, exitUsage, code)
	require.Contains(t, said, "targets.hook.key_file: ")
	f.mode(0o600, "elsewhere")
	said, code = f.check()
	require.Zero(t, code, said)
}

// A folder that nobody else may enter keeps what is in it.
func TestFiles_FolderOfSecrets(t *testing.T) {
	f := newFixture(t)
	f.mode(0o644, "secrets/acme/password")
	said, code := f.check()
	require.Zero(t, code, said)
	f.mode(0o755, "secrets", "secrets/acme")
	for i := range 30 {
		f.write(fmt.Sprintf("secrets/acme/s%d", i), "x")
		f.mode(0o644, fmt.Sprintf("secrets/acme/s%d", i))
	}
	said, code = f.check()
	require.Equal(t, exitUsage, code)
	require.Equal(t, 20, strings.Count(said, "can be read by others"), said)
	require.Contains(t, said, "11 more files of the folder")
	// Which may be a link itself.
	require.NoError(t, os.Rename(f.at("secrets"), f.at("kept")))
	require.NoError(t, os.Symlink("kept", f.at("secrets")))
	said, code = f.check()
	require.Equal(t, exitUsage, code, said)
}

func TestFiles_OfOtherUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	f := newFixture(t)
	for _, name := range []string{"hook-key", "tokens.yaml", "identity", "worker.yaml"} {
		require.NoError(t, os.Chown(f.at(name), 12345, 0))
	}
	said, code := f.check()
	require.Equal(t, exitUsage, code)
	require.Contains(t, said, "targets.hook.key_file: ")
	require.Contains(t, said, "owner 12345) can be read by its owner, who is not this process's user, 0: chown 0 ")
	require.NotContains(t, said, "identity")
}

// Where each tenant has a file of its own, every one of them counts.
func TestFiles_OfEachTenant(t *testing.T) {
	f := newFixture(t)
	text, err := os.ReadFile(f.at("worker.yaml"))
	require.NoError(t, err)
	f.write("worker.yaml", strings.Replace(string(text), f.at("docker.json"), `"`+f.at("docker-{tenant}.json")+`"`, 1))
	for _, tenant := range []string{"acme", "rival", "third"} {
		f.write("docker-"+tenant+".json", "{}")
	}
	said, code := f.check()
	require.Zero(t, code, said)
	f.mode(0o644, "docker-acme.json", "docker-third.json")
	said, code = f.check()
	require.Equal(t, exitUsage, code)
	require.Contains(t, said, "docker-acme.json (mode 0644")
	require.Contains(t, said, "docker-third.json (mode 0644")
}

func TestTemporal_KeyGivenTwiceOrForNothing(t *testing.T) {
	f := newFixture(t)
	f.write("worker.yaml", fmt.Sprintf(`
targets:
  own: {type: temporal, api_key_file: %[1]s/api-key}
  twice: {type: temporal, profile: keyed, api_key_file: %[1]s/api-key}
  nowhere: {type: temporal, profile: callers, api_key_file: %[1]s/no-key}
  nobody: {type: temporal, profile: nobody}
temporal: {api_key_file: %[1]s/api-key}
`, f.folder))
	t.Setenv("TEMPORAL_API_KEY", "a-key-of-the-environment")
	said, code := f.check()
	require.Equal(t, exitUsage, code)
	for _, want := range []string{
		"targets.own.api_key_file: needs a profile", "targets.twice.api_key_file: must be left out",
		"targets.nowhere.api_key_file: stat ", "targets.nobody.profile: ", "temporal.api_key_file: must be left out",
	} {
		require.Contains(t, said, want)
	}
}

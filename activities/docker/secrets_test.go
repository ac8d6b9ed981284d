package docker

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/moby/client"

	"bellhop"
)

// safe is a folder of secrets: tenant acme has a few, and all around it is what it must not get.
func safe(t *testing.T) string {
	t.Helper()
	outside := t.TempDir()
	dir := filepath.Join(outside, "secrets")
	for path, text := range map[string]string{
		"secrets/acme/db":               "hunter2-of-acme\n",
		"secrets/acme/key.pem":          "-begin-\nmiddle\n-end-\n\n",
		"secrets/acme/..2026/kept":      "kept-by-a-link",
		"secrets/acme/empty":            "\n",
		"secrets/acme/nul":              "a\x00b",
		"secrets/acme/large":            strings.Repeat("x", maxSecretBytes+1),
		"secrets/acme/folder/file":      "deeper",
		"secrets/other/db":              "hunter2-of-other",
		"secrets/of-nobody":             "beside the tenants",
		"credentials-of-the-worker":     "the worker's own",
		"secrets/acme/unreadable/below": "",
	} {
		file := filepath.Join(outside, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"linked": "..2026/kept", "neighbour": "../other/db", "out": "../../credentials-of-the-worker",
		"absolute": filepath.Join(outside, "credentials-of-the-worker"), "to-itself": "to-itself",
	} {
		if err := os.Symlink(target, filepath.Join(dir, "acme", name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "acme", "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestSecretsAreLookedUpWhereTheOperatorPutThemAndNowhereElse(t *testing.T) {
	dir := safe(t)
	t.Setenv("TENANTS_TOKEN", "from-the-environment")
	t.Setenv("BELLHOP_TEST_OWN", "the worker's own")
	config := SecretsConfig{Dir: dir, EnvPrefix: "TENANTS_"}
	for _, row := range []struct {
		reason, reference, want, fault string
	}{
		{"a file, without the newline at its end", "file:db", "hunter2-of-acme", ""},
		{"what has several lines keeps them", "file:key.pem", "-begin-\nmiddle\n-end-\n", ""},
		{"a link within the folder, as secrets are mounted in Kubernetes", "file:linked", "kept-by-a-link", ""},
		{"a variable that is for tenants", "env:TENANTS_TOKEN", "from-the-environment", ""},
		{"nothing is there", "file:no-such", "", "there is no file:no-such for tenant acme at the worker"},
		{"nothing is there", "env:TENANTS_NONE", "", "there is no env:TENANTS_NONE at the worker"},
		{"a tenant's link to a neighbour's secret", "file:neighbour", "", "is a link out of the tenant's folder"},
		{"a link out of it all", "file:out", "", "is a link out of the tenant's folder"},
		{"an absolute link", "file:absolute", "", "is a link out of the tenant's folder"},
		{"a link to itself", "file:to-itself", "", "cannot be read"},
		{"a pipe would be waited for", "file:pipe", "", "is no file"},
		{"a folder", "file:folder", "", "is no file"},
		{"an empty one is a mistake", "file:empty", "", "file:empty is empty"},
		{"no variable holds that", "file:nul", "", "holds a NUL"},
		{"nor that much", "file:large", "", "is larger than 64 KiB"},
	} {
		env, err := config.environment(bellhop.Operation{
			TenantID: "acme", Spec: bellhop.Spec{Env: map[string]string{"MODE": "prod"}, Secrets: map[string]string{"IT": row.reference}},
		})
		switch {
		case row.fault != "":
			if err == nil || !strings.Contains(err.Error(), row.fault) || !strings.Contains(err.Error(), "spec.secrets.IT") {
				t.Errorf("%s: %s: %v, %v, want %q under its path", row.reason, row.reference, env, err, row.fault)
			}
			for _, kept := range []string{dir, "worker's own", "hunter2"} {
				if err != nil && strings.Contains(err.Error(), kept) {
					t.Errorf("%s: %s: the error tells of %q: %s", row.reason, row.reference, kept, err)
				}
			}
		case err != nil || !slices.Equal(env, []string{"IT=" + row.want, "MODE=prod"}):
			t.Errorf("%s: %s: %q, %v, want %q", row.reason, row.reference, env, err, row.want)
		}
	}
	_, err := config.environment(bellhop.Operation{TenantID: "acme", Spec: bellhop.Spec{
		Secrets: map[string]string{"ONE": "file:no", "OTHER": "env:TENANTS_NO", "FINE": "file:db"},
	}})
	want := "INVALID_SPEC: spec.secrets.ONE: there is no file:no for tenant acme at the worker; " +
		"spec.secrets.OTHER: there is no env:TENANTS_NO at the worker"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestCheckOfSecrets(t *testing.T) {
	for _, row := range []struct {
		reason    string
		config    SecretsConfig
		reference string
		want      string // of what is wrong, a part
	}{
		{"a file", SecretsConfig{Dir: "/secrets"}, "file:db", ""},
		{"a variable", SecretsConfig{EnvPrefix: "TENANTS_"}, "env:TENANTS_DB", ""},
		{"nothing is looked up that the operator did not allow", SecretsConfig{}, "file:db", "files are not looked up here; the operator sets secrets.dir"},
		{"nothing is looked up that the operator did not allow", SecretsConfig{}, "env:HOME", "variables are not looked up here; the operator sets secrets.env_prefix"},
		{"nor beyond it", SecretsConfig{EnvPrefix: "TENANTS_"}, "env:AWS_SECRET_ACCESS_KEY", "may only name a variable that begins with TENANTS_"},
		{"nor short of it", SecretsConfig{EnvPrefix: "TENANTS_"}, "env:TENANTS_", "may only name a variable that begins with TENANTS_"},
		{"a path", SecretsConfig{Dir: "/secrets"}, "file:../other/db", `must be "file:NAME"`},
		{"a path", SecretsConfig{Dir: "/secrets"}, "file:a/b", `must be "file:NAME"`},
		{"the folder above", SecretsConfig{Dir: "/secrets"}, "file:..", `must be "file:NAME"`},
		{"an absolute path", SecretsConfig{Dir: "/secrets"}, "file:/etc/shadow", `must be "file:NAME"`},
		{"a NUL", SecretsConfig{Dir: "/secrets"}, "file:db\x00", `must be "file:NAME"`},
		{"another platform's", SecretsConfig{Dir: "/secrets"}, "arn:aws:ssm:1", `must be "file:NAME"`},
		{"a value by mistake", SecretsConfig{Dir: "/secrets"}, "hunter2-hunter2", `must be "file:NAME"`},
	} {
		p, err := New(Config{Secrets: row.config})
		if err != nil {
			t.Fatal(err)
		}
		closeAtEnd(t, p)
		err = p.Check(bellhop.Operation{
			Verb: bellhop.Provision, Spec: bellhop.Spec{Image: "nginx", Secrets: map[string]string{"DB": row.reference}},
		})
		switch {
		case row.want == "" && err != nil:
			t.Errorf("%s: %q: %s", row.reason, row.reference, err)
		case row.want != "" && (err == nil || !strings.HasPrefix(err.Error(), "spec.secrets.DB: "+row.want)):
			t.Errorf("%s: %q: %v, want %s", row.reason, row.reference, err, row.want)
		case err != nil && strings.Contains(err.Error(), "hunter2"):
			t.Errorf("%s: the value shows in %q", row.reason, err)
		}
	}
	for config, want := range map[SecretsConfig]string{
		{Dir: "secrets"}:           "secrets.dir: must be an absolute path",
		{EnvPrefix: "TENANTS"}:     `secrets.env_prefix: must be letters, digits and '_', with '_' at its end, such as "TENANTS_"`,
		{EnvPrefix: "_"}:           `secrets.env_prefix: must be letters, digits and '_', with '_' at its end, such as "TENANTS_"`,
		{EnvPrefix: "aws_secret_"}: `secrets.env_prefix: must not be "aws_secret_": the worker's own credentials may begin with it`,
	} {
		if _, err := New(Config{Secrets: config}); err == nil || err.Error() != want {
			t.Errorf("%+v: got %v, want %q", config, err, want)
		}
	}
}

// The container has the secrets, and nobody is shown them: not by the worker that looked them up, nor by one that has
// another configuration.
func TestSecretsReachTheContainerAndNobodyElse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := setup(t, Config{Secrets: SecretsConfig{Dir: dir}})
	if err := os.Mkdir(filepath.Join(dir, b.tenant), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, b.tenant, "password")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	refers := func(op *bellhop.Operation) { op.Spec.Secrets = map[string]string{"PASSWORD": "file:password"} }
	op := b.provision("web", refers)
	detail, err := b.docker.ContainerInspect(t.Context(), b.want(op, bellhop.PhaseReady).ResourceIDs.ContainerIDs[0], client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(detail.Container.Config.Env, "PASSWORD="+secret) {
		t.Errorf("the container's environment has %d variables and not the secret", len(detail.Container.Config.Env))
	}
	for name, value := range detail.Container.Config.Labels {
		if strings.Contains(value, secret) {
			t.Errorf("the label %s shows the secret", name)
		}
	}

	// A secret that is rotated makes no other spec of the operation: asked again, it finds what it made.
	if err := os.WriteFile(file, []byte("rotated-"+secret), 0o600); err != nil {
		t.Fatal(err)
	}
	b.want(op, bellhop.PhaseReady)

	failing := b.provision("failing", func(op *bellhop.Operation) {
		refers(op)
		op.Spec.Args = []string{"exit", "-code", "3"}
		op.ProviderConfig = json.RawMessage(`{"restart_policy": {"name": "no"}}`)
	})
	seen := b.want(failing, bellhop.PhaseFailed)
	stranger := b.provider(Config{})
	again, err := stranger.Observe(t.Context(), failing)
	if err != nil {
		t.Fatal(err)
	}
	for who, failure := range map[string]*bellhop.Failure{"the worker that asked": seen.Failure, "another worker": again.Failure} {
		text, err := json.Marshal(failure)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), secret) || !strings.Contains(string(text), "PASSWORD=[redacted]") {
			t.Errorf("%s shows the secret, or nothing at all: %s", who, text)
		}
	}

	missing := b.want(b.provision("missing", func(op *bellhop.Operation) {
		op.Spec.Secrets = map[string]string{"PASSWORD": "file:of-nobody"}
	}), bellhop.PhaseFailed)
	if missing.Failure.Code != bellhop.CodeInvalidSpec || !strings.Contains(missing.Failure.Message, "there is no file:of-nobody") {
		t.Errorf("a secret that is missing: %s", missing.Failure)
	}
	if ids := missing.ResourceIDs.ContainerIDs; len(ids) > 0 {
		t.Errorf("a container was made without its secret: %s", ids)
	}
}

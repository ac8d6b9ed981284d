package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bellhop"
)

// check validates a text as it would be started.
func check(t *testing.T, name, text, id string, verb bellhop.Verb) (bellhop.Operation, []string) {
	t.Helper()
	in := input{name: name}
	in.json = toJSON(name, []byte(text), &in.faults)
	op, err := in.check(id, verb, true)
	if bad, ok := errors.AsType[*badInput](err); ok {
		return op, strings.Split(bad.Error(), "\n")[1:]
	}
	if err != nil {
		t.Fatal(err)
	}
	return op, nil
}

func TestInputFaults(t *testing.T) {
	for _, test := range []struct {
		reason string
		name   string
		text   string
		id     string
		verb   bellhop.Verb
		want   []string
	}{
		{
			reason: "YAML and JSON are taken",
			text:   "tenant_id: acme\nprovider: docker\nspec: {image: nginx}\n",
		}, {
			reason: "a document marker, directives and comments make no second document",
			text:   "# mine\n%YAML 1.1\n---\n# again\ntenant_id: acme\nprovider: docker\nspec: {image: nginx}\n...\n",
		}, {
			reason: "every fault is named, whatever its kind",
			text:   "tenant_id: a/b\nresource: web\nresource: db\nreplicas: 3\nspec:\n  ports: [{container_port: 99999}]\ntimeout: soon\n",
			want: []string{
				`  YAML: line 3: key "resource" already set in map`,
				`  provider: is required`,
				`  replicas: is not a known field (known are callbacks, metadata, on_cancel, operation_id, operation_type, priority, provider, provider_config, requested_at, resource, spec, tenant_id, timeout)`,
				`  spec.image: is required`,
				`  spec.ports[0].container_port: must be 1 to 65535`,
				`  tenant_id: must be 1 to 63 letters, digits, '.', '_' or '-', beginning and ending with a letter or digit`,
				`  timeout: must be a duration such as "90s" or "15m", not "soon"`,
			},
		}, {
			reason: "a key given twice in JSON is named by its path",
			text:   `{"tenant_id": "acme", "provider": "docker", "spec": {"image": "a", "image": "b"}}`,
			want:   []string{`  spec.image: is given twice`},
		}, {
			reason: "a second YAML document would be ignored in silence",
			text:   "tenant_id: acme\nprovider: docker\nspec: {image: nginx}\n---\ntenant_id: other\n",
			want:   []string{`  it holds more than one YAML document; give one operation at a time`},
		}, {
			reason: "YAML takes y and no for booleans, and a number for a number",
			text:   "tenant_id: acme\nresource: y\nprovider: docker\nspec: {image: nginx, args: [no, 5]}\n",
			want: []string{
				`  resource: must be a string, not true; put it in quotes`,
				`  spec.args[0]: must be a string, not false; put it in quotes`,
				`  spec.args[1]: must be a string, not a number; put it in quotes`,
			},
		}, {
			reason: "values of environment variables are secrets",
			text:   "tenant_id: acme\nprovider: docker\nspec:\n  image: nginx\n  env: {PIN: 31337, \"TOKEN=s3cr3t\": \"\"}\n",
			want: []string{
				`  spec.env: "TOKEN=…" is not a name for a variable: letters, digits and '_', not beginning with a digit`,
				`  spec.env.PIN: must be a string, not a number; put it in quotes`,
			},
		}, {
			reason: "what the YAML parser quotes may be a secret",
			text:   "spec: {env: {PIN: !!int s3cr3t}}",
			want:   []string{`  YAML: cannot decode !!str a value as a !!int`},
		}, {
			reason: "broken YAML says where",
			text:   "tenant_id: acme\n\tprovider: docker\n",
			want:   []string{`  YAML: line 2: found a tab character that violates indentation`},
		}, {
			reason: "broken JSON says where",
			text:   "{\n  \"tenant_id\": \"acme\",\n  \"provider\": docker]\n}",
			want:   []string{`  JSON: line 3, column 15: invalid character 'd' looking for beginning of value`},
		}, {
			reason: "a file that is called JSON is JSON",
			name:   "op.json",
			text:   "{\"tenant_id\": \"acme\",\n}",
			want:   []string{`  JSON: line 2, column 1: invalid character '}' looking for beginning of object key string`},
		}, {
			reason: "an empty file",
			text:   " \n",
			want:   []string{`  it is empty`},
		}, {
			reason: "comments only",
			text:   "# nothing\n",
			want:   []string{`  must be an object, not null`},
		}, {
			reason: "a list",
			text:   "- a\n",
			want:   []string{`  must be an object, not a list`},
		}, {
			reason: "the file's verb must fit",
			text:   "operation_type: update\ntenant_id: acme\nprovider: docker\nspec: {image: nginx}\n",
			want:   []string{`  operation_type: must be "provision", as the workflow's type says, or be left out`},
		}, {
			reason: "the file's id must be that of --id",
			text:   "operation_id: a\ntenant_id: acme\nprovider: docker\nspec: {image: nginx}\n",
			want:   []string{`  operation_id: is "a", and --id says "op-1"; give one of them`},
		}, {
			reason: "an id has rules",
			id:     "a b",
			text:   "tenant_id: acme\nprovider: docker\nspec: {image: nginx}\n",
			want:   []string{`  operation_id: must be 1 to 128 of the characters A-Z a-z 0-9 . _ : -`},
		}, {
			reason: "to delete takes no spec",
			verb:   bellhop.Delete,
			text:   "tenant_id: acme\nprovider: docker\nspec: {image: nginx}\n",
			want:   []string{`  spec: must be left out to delete`},
		},
	} {
		t.Run(test.reason, func(t *testing.T) {
			if test.id == "" {
				test.id = "op-1"
			}
			if test.verb == "" {
				test.verb = bellhop.Provision
			}
			_, got := check(t, test.name, test.text, test.id, test.verb)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			for _, line := range got {
				if strings.Contains(line, "s3cr3t") || strings.Contains(line, "31337") {
					t.Errorf("a secret is shown: %s", line)
				}
			}
		})
	}
}

func TestInputID(t *testing.T) {
	const text = "tenant_id: acme\nresource: web\nprovider: docker\nspec: {image: nginx}\n"
	_, faults := check(t, "", text, "", bellhop.Provision)
	if len(faults) != 1 || !strings.Contains(faults[0], "operation_id: is required: add --id, such as --id acme-web-20") {
		t.Errorf("got %q", faults)
	}
	op, faults := check(t, "", "operation_id: from-file\n"+text, "", bellhop.Provision)
	if op.ID != "from-file" || faults != nil {
		t.Errorf("got %q, %q", op.ID, faults)
	}
}

func TestJSONStaysAsItIs(t *testing.T) {
	const text = ` {"tenant_id":"acme" , "metadata":{"big":"12345678901234567890"}} `
	var faults bellhop.Faults
	if got := toJSON("-", []byte(text), &faults); string(got) != text || faults != nil {
		t.Errorf("got %s, %v", got, faults)
	}
}

func TestValidate(t *testing.T) {
	g := &guest{t: t, env: stranger(t, "127.0.0.1:1")} // nobody is asked
	folder := t.TempDir()
	good := filepath.Join(folder, "op.yaml")
	if err := os.WriteFile(good, []byte("tenant_id: acme\nprovider: docker\nspec: {image: nginx}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := g.must(0, "validate", "-f", good)
	if want := good + " is valid: provision acme/default on docker\n"; got.stdout != want {
		t.Errorf("got %q, want %q", got.stdout, want)
	}

	g.stdin = `{"operation_type": "delete", "tenant_id": "acme", "provider": "docker"}`
	got = g.must(0, "validate", "-f", "-")
	contains(t, got.stdout, "the operation on stdin is valid: delete acme/default on docker")

	got = g.must(2, "validate", "-f", "-", "--verb", "update")
	contains(t, got.stderr, "bellhop: the operation on stdin is no valid operation:\n", "\n  operation_type: must be \"update\"", "\n  spec.image: is required\n")
	if got.stdout != "" {
		t.Errorf("stdout has %q", got.stdout)
	}

	got = g.must(2, "validate", "-f", filepath.Join(folder, "none.yaml"))
	contains(t, got.stderr, "none.yaml: no such file")
	contains(t, g.must(2, "validate").stderr, "say which operation: -f FILE", "see: bellhop validate --help")
	contains(t, g.must(2, "validate", "-f", good, "--verb", "destroy").stderr, `--verb "destroy" is none of provision, update, delete`)

	g.stdin = strings.Repeat("#", maxInput+1)
	contains(t, g.must(2, "validate", "-f", "-").stderr, "larger than 1024 KiB")
}

// endless is a stdin on which nothing comes.
type endless struct{ began chan struct{} }

func (e endless) Read([]byte) (int, error) {
	close(e.began)
	select {}
}

func TestReadingStdinCanBeInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	stdin := endless{make(chan struct{})}
	go func() {
		<-stdin.began
		cancel()
	}()
	var stderr strings.Builder
	code := run(ctx, []string{"validate", "-f", "-"}, func(string) string { return "" }, stdin, &strings.Builder{}, &stderr)
	if code != exitInterrupted {
		t.Errorf("exit code %d: %s", code, stderr.String())
	}
}

package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

func TestSchema(t *testing.T) {
	g := &guest{t: t, env: map[string]string{}}
	for _, args := range [][]string{{"schema"}, {"schema", "docker"}, {"schema", "simulated"}} {
		got := g.must(0, args...)
		var schema struct {
			Schema     string         `json:"$schema"`
			Properties map[string]any `json:"properties"`
		}
		if err := json.Unmarshal([]byte(got.stdout), &schema); err != nil {
			t.Fatal(err)
		}
		if schema.Schema != "https://json-schema.org/draft/2020-12/schema" || len(schema.Properties) == 0 {
			t.Errorf("%s: %+v", args, schema)
		}
	}
	contains(t, g.must(2, "schema", "mainframe").stderr, `"mainframe" is none of the types of providers: docker, ecs, kubernetes, simulated`)
	contains(t, g.must(2, "schema", "docker", "simulated").stderr, "one at a time")
	// A type that can be checked can be printed, and there is no schema of anything else.
	files, err := filepath.Glob("schemas/*.json")
	if err != nil || len(files) != len(providerTypes())+1 {
		t.Errorf("%v, %v: want a schema of the operation and of each of %s", files, err, typeNames())
	}
}

func TestValidateKnowsWhatProvidersTake(t *testing.T) {
	g := &guest{t: t, env: map[string]string{}}
	operation := func(provider, config string) {
		g.stdin = `{"tenant_id": "acme", "provider": "` + provider + `", "spec": {"image": "nginx"}, "provider_config": ` + config + `}`
	}
	operation("docker", `{"pull": "always"}`)
	if got := g.must(0, "validate", "-f", "-"); got.stderr != "" {
		t.Errorf("nothing is wrong, and stderr has %q", got.stderr)
	}
	operation("docker", `{"pull": "sometimes", "ready_after": "1s"}`)
	g.stdin = g.stdin[:len(g.stdin)-1] + `, "timeout": "soon"}`
	contains(t, g.must(2, "validate", "-f", "-").stderr,
		`provider_config.pull: must be "missing", "always" or "never"`, "provider_config.ready_after: is not a known field", "timeout: must be a duration")
	operation("simulated", `{"ready_after": "1s"}`)
	g.must(0, "validate", "-f", "-")
	contains(t, g.must(2, "validate", "-f", "-", "--provider-type", "docker").stderr, "provider_config.ready_after: is not a known field")
	operation("prod-eu", `{"pull": "sometimes"}`)
	contains(t, g.must(0, "validate", "-f", "-").stderr,
		"not checked is what only the provider prod-eu knows, such as provider_config: say --provider-type, one of docker, ecs, kubernetes, simulated")
	contains(t, g.must(2, "validate", "-f", "-", "--provider-type", "docker").stderr, "provider_config.pull")
	contains(t, g.must(2, "validate", "-f", "-", "--provider-type", "mainframe").stderr, `--provider-type "mainframe" is none of docker, ecs, kubernetes, simulated`)
	g.stdin = `{"tenant_id": "acme", "provider": "docker", "spec": {"image": "nginx", "secrets": {"DB": "hunter2-hunter2"}}}`
	got := g.must(2, "validate", "-f", "-")
	contains(t, got.stderr, `spec.secrets.DB: must be "file:NAME"`)
	if got := got.stdout + got.stderr; got == "" || strings.Contains(got, "hunter2") {
		t.Errorf("the value shows in %q", got)
	}
}

func TestHintAtSecretsInTheWrongPlace(t *testing.T) {
	t.Parallel()
	g := checkIn(t)
	g.stdin = `{"tenant_id": "hinted", "provider": "simulated", "spec": {"image": "nginx",
		"env": {"DB_PASSWORD": "hunter2-hunter2", "apiKey": "hunter2-hunter2", "MODE": "prod", "TOKEN_URL": "https://example.com", "PASSWORD_FILE": "/run/it"}}}`
	for _, args := range [][]string{{"validate", "-f", "-"}, {"provision", "--id", "hinted-1", "-f", "-"}} {
		got := g.must(0, args...)
		contains(t, got.stderr, "hint: spec.env holds what look like secrets by their names: DB_PASSWORD, apiKey. Values are kept in Temporal's history")
		if strings.Contains(got.stdout+got.stderr, "hunter2") {
			t.Errorf("%s shows the value: %s%s", args, got.stdout, got.stderr)
		}
	}
	g.stdin = `{"tenant_id": "hinted", "provider": "simulated", "spec": {"image": "nginx", "secrets": {"DB_PASSWORD": "file:db"}}}`
	if got := g.must(0, "validate", "-f", "-"); got.stderr != "" {
		t.Errorf("a reference is where it belongs, and stderr has %q", got.stderr)
	}
}

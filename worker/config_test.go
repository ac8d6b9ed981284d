package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "worker.yaml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// check runs the worker as an operator checks a configuration.
func check(t *testing.T, text string) (stderr string, code int) {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	var out, errs bytes.Buffer
	code = run(t.Context(), []string{"--config", write(t, text), "--check"}, &out, &errs)
	return errs.String(), code
}

func TestEveryFaultOfAConfigurationIsNamedAtOnce(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(key, []byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"), 0o600))
	for _, tc := range []struct {
		reason, text string
		want         []string
	}{
		{"faults of all kinds, of which none may hide another", `
task_queue: ""
listen: nonsense
drain: soon
limits: {activities: 0, cache: 5}
backstop: {first: 1ms}
deployment: {behavior: sometimes}
tracing: {endpoint: collector, sample: 2}
log: {level: loud, format: xml}
api: {listen: ":9465", waits: -1, tls: {cert_file: /nowhere/cert}, tokens: [{name: orders, token: secret}]}
colour: red
`, []string{
			"task_queue: must not be empty", "listen: must be host:port", "drain: must be a duration", "limits.activities: must be at least 1",
			"limits.cache: is not a known field", "backstop.first: must be at least 1s", "deployment.name: is required",
			"deployment.build_id: is required", `deployment.behavior: must be "auto-upgrade" or "pinned"`, "tracing.endpoint: must be an http or https URL",
			"tracing.sample: must be 0 to 1", "log.level:", `log.format: must be "text" or "json"`, "api.tls.key_file: is required", "api.waits: must be at least 1",
			"api.tokens[0].token: is not a known field", "api.tokens[0].sha256: must be", "api.tokens[0].tenants: is required", "colour: is not a known field",
		}},
		{"faults of providers and targets, under their names", `
providers:
  cloud: {type: nomad}
  sim: {type: simulated, path: /nowhere/at/all/sim.db, speed: 3}
  "bad name": {type: docker}
targets:
  smoke: {type: signals}
  hook: {type: webhook, content: xml, concurrency: -1, tenants: ["a b"]}
  r: {type: restate}
  t: {type: temporal, names: x}
  elsewhere: {type: temporal, profile: nowhere}
`, []string{
			"targets.elsewhere.profile: ",
			`providers.cloud.type: must be "simulated", "docker", "ecs" or "kubernetes"`, "providers.sim.speed: is not a known field", "providers.bad name: the name must be",
			`targets.smoke.type: must be "temporal", "stepfunctions", "restate" or "webhook"`, "targets.hook.url: is required",
			"targets.hook.content: must be", "targets.hook.concurrency: must be", "targets.hook.tenants[0]: must be",
			"targets.hook.key_file: is required", "targets.r.ingress: is required", "targets.t.names: is not a known field",
		}},
		{"faults of activities, and of what they name", `
targets:
  machines: {type: stepfunctions, region: eu-central-1}
step_functions_activities:
- {target: nobody, polls: 5000}
- {arn: "arn:aws:states:eu-central-1:123456789012:activity:a", target: machines, verb: run}
- {arn: "arn:aws:states:eu-central-1:123456789012:activity:a", target: machines}
`, []string{
			"step_functions_activities[0].arn: is required", "step_functions_activities[0].target: must name a target of type stepfunctions",
			"step_functions_activities[0].polls: must be 1 to 1000",
			"step_functions_activities[1].verb: must be", "step_functions_activities[2].arn: is given twice",
		}},
		{"faults of the Restate endpoint, which anybody could reach", `
targets: {temporal: {type: temporal}}
restate: {listen: "0.0.0.0:9080", target: temporal, tenants: ["a b"], poll_after: 1ms, retries: 3}
nexus: {tenants: [acme, ""]}
`, []string{
			"restate.identity_keys: are required where others than this machine", "restate.poll_after: must be at least 1s", "restate.tenants[0]: must be", "nexus.tenants[1]: must be",
			"restate.retries: is not a known field", `restate.target: must be the name of a target of type restate; "temporal" is none`,
		}},
		{"a webhook that could never be called", fmt.Sprintf(`
targets:
  local: {type: webhook, url: "http://10.0.0.1/x", key_file: %[1]q}
  mapped: {type: webhook, url: "http://[::ffff:127.0.0.1]/x", key_file: %[1]q, allow: ["10.0.0.0/8"]}
  meta: {type: webhook, url: "http://169.254.169.254/latest", key_file: %[1]q}
`, key), []string{
			"targets.local.url: names 10.0.0.1", "targets.mapped.url: names ::ffff:127.0.0.1", "targets.meta.url: names 169.254.169.254", `allow: ["10.0.0.1/32"]`,
		}},
		{"faults of every kind beside each other", `
spped: 3
drain: -1s
providers: {d: {type: podman}}
targets: {t: {type: temporal, names: x}}
`, []string{"worker.yaml", "spped", "drain: must not be negative", "providers.d.type: must be", "targets.t.names: is not a known field"}},
		{"a key given twice, of which YAML would take the last", "drain: 1s\ndrain: 2s\n", []string{"drain"}},
		{"no YAML at all", "providers: [", []string{"worker.yaml"}},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			stderr, code := check(t, tc.text)
			require.Equal(t, exitUsage, code, stderr)
			for _, want := range tc.want {
				require.Contains(t, stderr, want)
			}
		})
	}
}

func TestWithoutAFileThereIsASimulatedProviderAndATemporalTarget(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	config, err := loadConfig("")
	require.NoError(t, err)
	made, err := config.build()
	require.NoError(t, err)
	defer made.close()
	require.Contains(t, made.providers, "simulated")
	require.Contains(t, made.temporal, "temporal")
	require.Equal(t, "bellhop", config.TaskQueue)
	require.Equal(t, "127.0.0.1:9464", config.Listen, "nothing listens beyond loopback unless configured")
}

func TestAnEmptyFileIsTheDefaults(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "{}"} {
		stderr, code := check(t, text)
		require.Zero(t, code, stderr)
	}
}

func TestTheDocumentedExampleIsInOrder(t *testing.T) {
	page, err := os.ReadFile("../docs/configuration.md")
	require.NoError(t, err)
	_, example, ok := strings.Cut(string(page), "\n    providers:")
	require.True(t, ok)
	example, _, _ = strings.Cut("providers:"+example, "\n\n")
	text := strings.ReplaceAll(example, "\n    ", "\n")
	stderr, code := check(t, text)
	require.Zero(t, code, "%s\n%s", text, stderr)
}

func TestTemporalOutOfReachIsSaidWithWhatToDo(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"--config", write(t, "listen: ''\nconnect_timeout: 2s\n")}, &out, &errs)
	require.Equal(t, exitUnreachable, code)
	require.Contains(t, errs.String(), "127.0.0.1:1")
	require.Contains(t, errs.String(), "TEMPORAL_ADDRESS")
}

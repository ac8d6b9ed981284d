package tests

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	sdkpb "go.temporal.io/api/sdk/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"bellhop/tests/peers"
)

// secrets are what must not show up anywhere, by what they are.
type secrets map[string]string

// random makes a secret of its own kind.
func (s secrets) random(kind string) string {
	raw := make([]byte, 16)
	_, _ = rand.Read(raw) //nolint:errcheck // it never fails
	s[kind] = kind + "-" + hex.EncodeToString(raw)
	return s[kind]
}

// awakeable makes an id of Restate's.
func (s secrets) awakeable(kind string) string {
	raw := make([]byte, 28)
	_, _ = rand.Read(raw[:24]) //nolint:errcheck // it never fails
	raw[27] = 17
	s[kind] = "sign_1" + base64.RawURLEncoding.EncodeToString(raw)
	return s[kind]
}

// taskToken makes a token of a Temporal activity that does not exist: temporal.server.api.token.v1.Task.
func (s secrets) taskToken(kind string) string {
	var token []byte
	for number, text := range map[protowire.Number]string{
		1: "0c0b1b9e-3c1e-4a0e-9d5f-5b1f7c7d3a10", // namespace_id
		2: "no-such-workflow",                     // workflow_id
		3: "7f0f2f5a-6a0c-4c57-8f2b-0d9f0d8c2b11", // run_id
		9: s.random(kind),                         // clock
	} {
		token = protowire.AppendString(protowire.AppendTag(token, number, protowire.BytesType), text)
	}
	s[kind+" in base64"] = base64.StdEncoding.EncodeToString(token)
	return s[kind+" in base64"]
}

// whsec makes a webhook's key.
func (s secrets) whsec(kind string) string {
	s[kind+" in base64"] = base64.StdEncoding.EncodeToString([]byte(s.random(kind)))
	return "whsec_" + s[kind+" in base64"]
}

// gossip is an engine that answers with everything it was told, which is what a careless one may do.
type gossip struct {
	mu sync.Mutex
	// bodies are what callbacks said, as far as it is not what finds the caller.
	bodies strings.Builder
}

func (g *gossip) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var status int
	_, _ = fmt.Sscanf(r.URL.Path, "/%d", &status)
	if r.Header.Get("X-Amz-Target") != "" {
		var request struct{ TaskToken string }
		_ = json.Unmarshal(body, &request) //nolint:errcheck // the answer is gossip anyhow
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]any{ //nolint:errcheck,errchkjson // the client hung up
			"__type": "com.amazonaws.sfn#ServiceUnavailable", "message": "what of " + request.TaskToken,
		})
		return
	}
	g.mu.Lock()
	g.bodies.Write(body)
	g.mu.Unlock()
	w.WriteHeader(status)
	if status != http.StatusOK {
		_, _ = fmt.Fprintf(w, "%s %s %v", r.Method, r.URL, r.Header) //nolint:errcheck // the client hung up
	}
}

// TestSecretsShowNowhere has operations with a secret in every field that holds one succeed, fail, be refused and call
// back engines that repeat everything they hear, and then looks for the secrets wherever an operator, a caller or a
// stranger can look.
func TestSecretsShowNowhere(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := secrets{}
	g := &gossip{}
	engine := httptest.NewServer(g)
	t.Cleanup(engine.Close)
	write := func(name, text string) string {
		file := filepath.Join(b.folder, name)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		return file
	}
	keys := write("keys", s.whsec("webhook-key-old")+"\n"+s.whsec("webhook-key-new"))
	authKey := write("auth", s.random("restate-auth-key"))
	metricsToken := s.random("metrics-token")
	query := s.random("webhook-url-token")
	targets := "targets:\n  temporal: {type: temporal}\n"
	for _, status := range []int{200, 403, 500} {
		targets += fmt.Sprintf("  hook-%d: {type: webhook, url: '%s/%d?token=%s', key_file: %s, allow: [127.0.0.0/8]}\n",
			status, engine.URL, status, query, keys)
		targets += fmt.Sprintf("  restate-%d: {type: restate, ingress: '%s/%d', auth_key_file: %s}\n", status, engine.URL, status, authKey)
	}
	targets += fmt.Sprintf("  steps: {type: stepfunctions, region: eu-central-1, endpoint: '%s/503'}\n", engine.URL)
	spans, tracing := b.trace()
	leaky, tenant := b.leaky()
	providers := ""
	if leaky != "" {
		folder := filepath.Join(b.folder, "secrets", tenant)
		require.NoError(t, os.MkdirAll(folder, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(folder, "db"), []byte(s.random("referred-file")+"\n"), 0o600))
		providers = fmt.Sprintf("  docker: {type: docker, stop_timeout: 1s, secrets: {dir: %s, env_prefix: TENANTS_}}\n", filepath.Dir(folder))
	}
	worker := b.work(b.served(providers+noBackstop, targets, tracing, "log: {level: debug}", "metrics_token_file: "+write("token", metricsToken)),
		"AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY="+s.random("aws-secret-key"),
		"AWS_SESSION_TOKEN="+s.random("aws-session-token"), "TENANTS_TOKEN="+s.random("referred-variable"), "AWS_CONFIG_FILE="+os.DevNull, "AWS_SHARED_CREDENTIALS_FILE="+os.DevNull)

	password, unusual := s.random("env-value"), s.random(`env "value" <of>\ several`)
	operation := func(resource, provider, script string) string {
		callbacks := []string{
			`{"target": "hook-200"}`, `{"target": "hook-403", "deadline": "4s"}`, `{"target": "hook-500", "deadline": "4s"}`,
			fmt.Sprintf(`{"target": "temporal", "address": {"task_token": %q}}`, s.taskToken(resource+"-activity-token")),
			fmt.Sprintf(`{"target": "steps", "address": {"task_token": %q}, "deadline": "4s"}`, s.random(resource+"-task-token")),
		}
		for _, status := range []int{200, 403, 500} {
			callbacks = append(callbacks, fmt.Sprintf(`{"target": "restate-%d", "address": {"awakeable": %q}, "deadline": "4s"}`,
				status, s.awakeable(fmt.Sprintf("%s-awakeable-%d", resource, status))))
		}
		env, err := json.Marshal(map[string]string{"PASSWORD": password, "OTHER": unusual, "MODE": "prod"})
		require.NoError(t, err)
		return fmt.Sprintf(`{"tenant_id": "acme", "resource": %q, "provider": %q, "spec": {"image": "nginx:1.27", "env": %s},
			"provider_config": %s, "callbacks": [%s]}`, resource, provider, env, script, strings.Join(callbacks, ", "))
	}
	said := map[string]string{} // by where it was said
	say := func(stdin, name string, args ...string) {
		stdout, stderr, _ := b.run(stdin, name, args...)
		said[name+" "+strings.Join(args, " ")] += stdout + stderr
	}
	begin := func(id, input string) {
		said["bellhop provision "+id] = ""
		stdout, stderr, _ := b.run(input, "bellhop", "provision", "--id", id, "-f", "-")
		said["bellhop provision "+id] = stdout + stderr
	}
	excuse, err := json.Marshal("panic: cannot log in with " + password + " nor " + unusual)
	require.NoError(t, err)
	begin("succeeds", operation("succeeds", "simulated", `{"ready_after": "1s"}`))
	begin("fails", operation("fails", "simulated", `{"fail": {"code": "CONTAINER_EXITED", "message": `+string(excuse)+`}}`))
	begin("refused-ask", operation("refused-ask", "simulated", `{"fail": {"code": "PERMISSION_DENIED", "at": "ask", "message": `+string(excuse)+`}}`))
	begin("waits", operation("waits", "simulated", `{"ready_after": "1h"}`))
	ids := []string{"succeeds", "fails", "refused-ask", "waits"}
	// Refused before it is begun, by whoever types it.
	begin("no-such-provider", operation("no-such-provider", "nowhere", `{}`))
	begin("torn", operation("torn", "simulated", `{}`)[:900])
	begin("mistyped", strings.NewReplacer(`"address": {`, `"adress": {`, `"PASSWORD": `, `"PASSWORD": [`, `"OTHER"`, `], "OTHER"`,
		`"MODE"`, `], "MODE"`).Replace(operation("mistyped", "simulated", `{}`)))
	// Refused by the operation itself, since the temporal CLI checks nothing.
	for id, input := range map[string]string{
		"cli-no-such-provider": operation("cli-no-such-provider", "nowhere", `{}`),
		"cli-wrong-addresses": strings.NewReplacer(`"awakeable": "`, `"awakeable": "not-`, `"task_token"`, `"tasktoken"`).
			Replace(operation("cli-wrong-addresses", "simulated", `{}`)),
		"cli-no-objects": fmt.Sprintf(`{"tenant_id": "acme", "provider": "simulated", "spec": {"image": "i", "env": [%q]},
			"callbacks": [%q, {"target": "temporal", "address": %q}, {"target": "steps", "address": {"task_token": [%q]}}]}`,
			s.random("env-in-a-list"), s.random("token-as-callback"), s.random("token-as-address"), s.random("token-in-a-list")),
		"cli-unknown-script": operation("cli-unknown-script", "simulated", `{"fial": {}}`),
	} {
		say("", "temporal", "workflow", "start", "--type", "ProvisionCompute", "--task-queue", "bellhop", "--workflow-id", id, "--input", input)
		// The temporal CLI prints what it was given; that is its user's business.
		delete(said, "temporal workflow start --type ProvisionCompute --task-queue bellhop --workflow-id "+id+" --input "+input)
		ids = append(ids, id)
	}
	// The API answers whoever may call it, and what it answers is searched like everything else.
	api := b.caller(worker, acme)
	s["API's token"] = acme
	tell := func(method, path, body string) answer {
		got, err := api.try(b.ctx, method, path, body)
		require.NoError(t, err)
		where := "answer to " + method + " " + path
		said[where] += fmt.Sprint(got.header) + string(got.body)
		return got
	}
	overHTTP := func(id, script string) string {
		return strings.Replace(operation(id, "simulated", script), "{", `{"operation_id": "`+id+`", "operation_type": "provision", `, 1)
	}
	fails := overHTTP("http-fails", `{"fail": {"code": "CONTAINER_EXITED", "message": `+string(excuse)+`}}`)
	for range 2 {
		require.Equal(t, http.StatusAccepted, tell("POST", "/v1/operations", fails).code, "also when it is there already")
	}
	ids = append(ids, "http-fails")
	for body, code := range map[string]int{
		strings.Replace(fails, "nginx:1.27", "nginx:1.28", 1):                http.StatusConflict,
		strings.Replace(fails, `"tenant_id": "acme"`, `"tenant_id": "x"`, 1): http.StatusForbidden,
		strings.NewReplacer(`"http-fails"`, `"http-mistyped"`, `"address": {`, `"adress": {`, `"PASSWORD": `, `"PASSWORD": [`, `"OTHER"`, `], "OTHER"`,
			`"MODE"`, `], "MODE"`).Replace(fails): http.StatusBadRequest,
		strings.NewReplacer(`"http-fails"`, `"http-misaddressed"`, `"address": {`, `"adress": {`, `"target": "hook`, `"target": " hook`).Replace(fails): http.StatusUnprocessableEntity,
		fails[:900]: http.StatusBadRequest,
	} {
		require.Equal(t, code, tell("POST", "/v1/operations", body).code, body)
	}
	if leaky != "" {
		begin("container", strings.NewReplacer("nginx:1.27", leaky, "acme", tenant, `"env":`,
			`"secrets": {"DB": "file:db", "TOKEN": "env:TENANTS_TOKEN"}, "env":`).Replace(operation("container", "docker", `{}`)))
		begin("no-secret", fmt.Sprintf(`{"tenant_id": %q, "resource": "no-secret", "provider": "docker", "spec": {"image": %q,
			"secrets": {"DB": "file:none", "TOKEN": "env:TENANTS_NONE"}}}`, tenant, leaky))
		ids = append(ids, "container", "no-secret")
	}

	look := func(when string) {
		for _, id := range ids {
			say("", "bellhop", "status", id)
			say("", "bellhop", "status", id, "-o", "json")
			tell("GET", "/v1/operations/"+id, "")
			described, err := b.client.DescribeWorkflowExecution(b.ctx, id, "")
			require.NoError(t, err)
			raw, err := proto.Marshal(described)
			require.NoError(t, err)
			said["description of "+id+" "+when] = string(raw)
			if answer, err := b.client.QueryWorkflow(b.ctx, id, "", "__temporal_workflow_metadata"); err == nil {
				var details sdkpb.WorkflowMetadata
				require.NoError(t, answer.Get(&details))
				said["details of "+id+" "+when] = details.GetCurrentDetails() + details.String()
			}
		}
	}
	b.until("deliveries were tried and go on", func() bool {
		look("while it is told")
		for _, receipt := range b.status("fails").Callbacks {
			if strings.HasSuffix(receipt.Target, "00") && receipt.Attempts == 0 {
				return false
			}
		}
		return true
	})
	_, stderr, code := b.run("", "bellhop", "cancel", "waits")
	require.Zero(t, code, stderr)
	for _, id := range ids {
		b.until(id+" is settled", func() bool {
			for _, receipt := range b.status(id).Callbacks {
				if !receipt.State.Settled() {
					return false
				}
			}
			return b.status(id).State.Terminal()
		})
		say("", "bellhop", "wait", id)
		said["history of "+id] = b.answersIn(id)
	}
	look("at its end")
	require.Equal(t, http.StatusOK, tell("GET", "/v1/operations", "").code)
	require.Equal(t, http.StatusOK, tell("GET", "/v1/operations?undelivered=true", "").code)
	require.Equal(t, http.StatusOK, tell("POST", "/v1/operations/http-fails/redeliver", "").code)
	require.Equal(t, http.StatusConflict, tell("POST", "/v1/operations/http-fails/cancel", "").code)
	b.until("what was rung again is settled", func() bool {
		tell("GET", "/v1/operations/http-fails?wait=1s", "")
		for _, receipt := range b.status("http-fails").Callbacks {
			if !receipt.State.Settled() {
				return false
			}
		}
		return true
	})
	say("", "bellhop", "list")
	say("", "bellhop", "list", "-o", "json")
	metrics, err := http.NewRequestWithContext(b.ctx, http.MethodGet, "http://"+worker.Listen+"/metrics", http.NoBody)
	require.NoError(t, err)
	metrics.Header.Set("Authorization", "Bearer "+metricsToken)
	answer, err := http.DefaultClient.Do(metrics)
	require.NoError(t, err)
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Contains(t, string(text), "bellhop_callbacks_total")
	said["metrics"] = string(text)
	require.NoError(t, worker.Stop(soon))
	say("", "bellhop", "status", "fails", "-o", "json") // which is put together from the history now
	said["worker's log"] = worker.Output()
	require.Contains(t, said["worker's log"], "msg=working", "the log is whole")
	require.Contains(t, said["worker's log"], "level=DEBUG", "the log is whole")
	spans.mu.Lock()
	said["traces"] = spans.seen.String()
	spans.mu.Unlock()
	g.mu.Lock()
	said["callbacks"] = g.bodies.String()
	g.mu.Unlock()
	// That it looked where it meant to: what is blotted out is shown as such.
	require.Contains(t, said["bellhop status fails -o json"], "panic: cannot log in with [redacted] nor [redacted]")
	for _, shown := range []string{"panic: cannot log in with [redacted] nor [redacted]", "restate answered 403 Forbidden: POST /403/restate/awakeables/[redacted]/resolve"} {
		require.Contains(t, said["answer to GET /v1/operations/http-fails"], shown)
	}
	require.Contains(t, said["answer to GET /v1/operations?undelivered=true"], "restate-403")
	require.Contains(t, said["answer to POST /v1/operations/http-fails/redeliver"], "restate-403")
	require.Contains(t, said["callbacks"], "panic: cannot log in with [redacted] nor [redacted]")
	require.Contains(t, said["bellhop status fails -o json"], "the receiver answered 500 Internal Server Error: POST /500?[redacted]")
	if leaky != "" {
		require.Contains(t, said["bellhop status container"], "cannot start with DB=[redacted]", "the container had it")
		require.Contains(t, said["bellhop status container"], "cannot start with TOKEN=[redacted]", "the container had it")
		require.Contains(t, said["bellhop status no-secret"], "there is no file:none for tenant "+tenant)
		require.Contains(t, said["bellhop status no-secret"], "there is no env:TENANTS_NONE at the worker")
		// What is referred to is not even in what the operation and its activities were given.
		everything := b.history("container", nil)
		for _, kind := range []string{"referred-file", "referred-variable"} {
			require.NotContains(t, everything, s[kind], "the %s is in the history", kind)
		}
		require.Contains(t, everything, password, "the history was looked at")
	}
	require.Contains(t, said["bellhop status fails -o json"], "restate answered 403 Forbidden: POST /403/restate/awakeables/[redacted]/resolve")

	searched := 0
	for where, what := range said {
		searched += len(what)
		for _, kind := range slices.Sorted(maps.Keys(s)) {
			for _, form := range forms(s[kind]) {
				if at := strings.Index(what, form); at >= 0 {
					t.Errorf("the %s shows in: %s: …%q", kind, where, what[max(0, at-200):at])
				}
			}
		}
	}
	t.Logf("%d secrets were looked for in %d places, %d bytes", len(s), len(said), searched)
}

// forms are how a secret is written: as it is, within JSON, and within JSON that is within JSON.
func forms(secret string) []string {
	quoted := func(text string) string {
		var out bytes.Buffer
		encoder := json.NewEncoder(&out)
		encoder.SetEscapeHTML(false)
		_ = encoder.Encode(text) //nolint:errcheck,errchkjson // it is text
		return strings.Trim(strings.TrimSpace(out.String()), `"`)
	}
	escaped, err := json.Marshal(secret)
	if err != nil {
		return []string{secret}
	}
	return []string{secret, quoted(secret), quoted(quoted(secret)), strings.Trim(string(escaped), `"`)}
}

// answersIn is an operation's history without what it was given: its own input, that of its activities, and what a
// watcher signals, which the operation itself blots out. These are not encrypted; docs/concepts.md says so.
func (b *bench) answersIn(id string) string {
	b.Helper()
	return b.history(id, []enumspb.EventType{
		enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED, enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED,
		enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED,
	})
}

// history is an operation's history without some types of events.
func (b *bench) history(id string, without []enumspb.EventType) string {
	b.Helper()
	var all []byte
	history := b.client.GetWorkflowHistory(b.ctx, id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for history.HasNext() {
		event, err := history.Next()
		require.NoError(b, err)
		if slices.Contains(without, event.GetEventType()) {
			continue
		}
		raw, err := proto.Marshal(event)
		require.NoError(b, err)
		all = append(all, raw...)
	}
	return string(all)
}

// leaky is an image whose container prints its environment and fails, and a tenant to run it; empty without an engine.
func (b *bench) leaky() (image, tenant string) {
	b.Helper()
	docker, err := client.New(client.FromEnv)
	require.NoError(b, err)
	_, err = docker.Ping(b.ctx, client.PingOptions{})
	require.NoError(b, docker.Close())
	if err != nil {
		return "", ""
	}
	e := b.engine()
	image = strings.Replace(e.image, "hello", "leaky", 1)
	_, err = peers.MakeImage(b.ctx, e.docker, image, "tests/peers/leaky")
	require.NoError(b, err)
	b.Cleanup(func() {
		_, _ = e.docker.ImageRemove(context.Background(), image, client.ImageRemoveOptions{Force: true})
	})
	return image, e.tenant
}

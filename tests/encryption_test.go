package tests

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"bellhop"
	"bellhop/encryption"
	"bellhop/operations"
	"bellhop/tests/peers"
)

// keyset makes a keyset for a test, and says how a worker's configuration names it.
func (b *bench) keyset() (encryption.Config, string) {
	b.Helper()
	config := encryption.Config{KeysetFile: filepath.Join(b.folder, "keyset.json")}
	_, stderr, code := b.run("", "bellhop", "keyset", "create", config.KeysetFile)
	require.Zero(b, code, stderr)
	return config, "encryption: {keyset_file: " + config.KeysetFile + "}"
}

// reconnect has the test's client read and write by a keyset.
func (b *bench) reconnect(config encryption.Config) {
	b.Helper()
	keys, err := encryption.Open(config)
	require.NoError(b, err)
	options := client.Options{HostPort: b.server.Address, Logger: quiet{}}
	keys.Converters("default").Apply(&options)
	c, err := client.DialContext(b.ctx, options)
	require.NoError(b, err)
	b.Cleanup(c.Close)
	b.client, b.ops = c, operations.New(c, "default", "").With(keys.Converters("default"))
}

// planted are values that must not be found in the clear.
type planted []string

func (p *planted) value() string {
	raw := make([]byte, 12)
	_, _ = rand.Read(raw) //nolint:errcheck // it never fails
	*p = append(*p, "planted-"+hex.EncodeToString(raw))
	return (*p)[len(*p)-1]
}

// spellings are how a value may be written: as it is, which is how JSON and %q write it too, in base64, wherever it stands
// in what is encoded, and in base64 of base64, which is how Temporal's UI is sent a task token.
func spellings(value string) []string {
	all := []string{value}
	for _, text := range []string{value, base64.StdEncoding.EncodeToString([]byte(value))} {
		for shift := range 3 {
			encoded := base64.RawStdEncoding.EncodeToString(append(make([]byte, shift), text...))
			// The characters at the edges depend on what is around the text.
			all = append(all, encoded[4:len(encoded)-4])
		}
	}
	return all
}

// found counts the values that are in a text in any form.
func (p planted) found(text string) int {
	n := 0
	for _, value := range p {
		for _, form := range spellings(value) {
			if strings.Contains(text, form) {
				n++
				break
			}
		}
	}
	return n
}

// TestEncryption_NothingInTheClear plants values in everything that a caller, a platform and an engine say, has operations
// end in all ways, and searches what Temporal stores and shows. Without encryption the same search finds the values.
func TestEncryption_NothingInTheClear(t *testing.T) {
	t.Parallel()
	for _, encrypted := range []bool{true, false} {
		t.Run(fmt.Sprintf("encrypted=%t", encrypted), func(t *testing.T) {
			t.Parallel()
			plant(t, encrypted)
		})
	}
}

func plant(t *testing.T, encrypted bool) {
	t.Helper()
	db := filepath.Join(t.TempDir(), "temporal.db")
	b := setup(t, "--db", db, "--headless=false", "--ui-port", "0")
	var more []string
	if encrypted {
		config, section := b.keyset()
		b.reconnect(config)
		more = append(more, section)
	} else if os.Getenv(peers.EncryptionVariable) == "1" {
		t.Skip("this run encrypts everything")
	}
	var values planted
	engineSays := values.value()
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ok" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = io.WriteString(w, engineSays) //nolint:errcheck // the client hung up
	}))
	t.Cleanup(engine.Close)
	key := filepath.Join(b.folder, "key")
	require.NoError(t, os.WriteFile(key, []byte("whsec_"+base64.StdEncoding.EncodeToString(make([]byte, 32))), 0o600))
	more = append(more, "targets:", "  temporal: {type: temporal}",
		fmt.Sprintf("  ok: {type: webhook, url: '%s/ok', key_file: %s, allow: [127.0.0.0/8]}", engine.URL, key),
		fmt.Sprintf("  down: {type: webhook, url: '%s/down', key_file: %s, allow: [127.0.0.0/8]}", engine.URL, key),
		fmt.Sprintf("  steps: {type: stepfunctions, region: eu-central-1, endpoint: '%s/down'}", engine.URL))
	w := b.work(b.config(more...), "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=secret",
		"AWS_CONFIG_FILE="+os.DevNull, "AWS_SHARED_CREDENTIALS_FILE="+os.DevNull)
	got := b.call("caller")

	verb := map[string]bellhop.Verb{}
	start := func(id string, script map[string]any, change func(op map[string]any)) {
		before, v := len(values), values.value
		if fail, ok := script["fail"].(map[string]any); ok {
			fail["message"] = "log line of the container: " + v() + "\nand \"" + v() + "\""
		}
		op := map[string]any{
			"tenant_id": "acme", "resource": id, "provider": "simulated",
			"spec": map[string]any{
				"image": "registry.example.com/" + v(), "command": []string{v()}, "args": []string{"--token=" + v()},
				"env": map[string]string{"PASSWORD": v(), "QUOTED": `"` + v() + `"`},
			},
			"provider_config": script,
			"metadata":        map[string]string{"order": v(), "token": base64.StdEncoding.EncodeToString([]byte(v()))},
			"callbacks": []map[string]any{
				{"target": "temporal", "address": map[string]any{"workflow_id": "caller"}, "states": []string{"running", "succeeded", "failed", "cancelled"}},
				{"target": "ok"},
				{"target": "steps", "address": map[string]any{"task_token": v()}, "deadline": "3s"},
			},
		}
		if change != nil {
			change(op)
		}
		input, err := json.Marshal(op)
		require.NoError(b, err)
		// What change took out was not planted.
		values = append(values[:before], slices.DeleteFunc(values[before:], func(value string) bool { return planted{value}.found(string(input)) == 0 })...)
		as := verb[id]
		if as == "" {
			as = bellhop.Provision
		}
		_, err = b.client.ExecuteWorkflow(b.ctx, client.StartWorkflowOptions{
			ID: id, TaskQueue: "bellhop", StaticSummary: "summary " + v(), StaticDetails: "details " + v(), Memo: map[string]any{"note": v()},
		}, map[bellhop.Verb]string{bellhop.Provision: "ProvisionCompute", bellhop.Update: "UpdateCompute", bellhop.Delete: "DeleteCompute"}[as], json.RawMessage(input))
		require.NoError(b, err)
	}
	script := func(pairs ...any) map[string]any {
		s := map[string]any{}
		for i := 0; i < len(pairs); i += 2 {
			name, ok := pairs[i].(string)
			require.True(b, ok)
			s[name] = pairs[i+1]
		}
		return s
	}
	fail := func(at string) map[string]any { return map[string]any{"code": "CONTAINER_EXITED", "at": at} }
	start("success", script("ready_after", "200ms"), nil)
	start("at-once", script(), nil)
	start("fails-asked", script("fail", fail("ask")), nil)
	start("fails-waiting", script("ready_after", "200ms", "fail", fail("wait")), nil)
	start("fails-other", script("ready_after", "100ms", "fail", map[string]any{"code": "OUT_OF_MEMORY", "at": "wait"}), nil)
	start("times-out", script("ready_after", "1h"), func(op map[string]any) { op["timeout"] = "2s" })
	start("cancelled", script("ready_after", "1h"), nil)
	start("removed", script("ready_after", "1h"), func(op map[string]any) { op["on_cancel"] = "remove" })
	start("refreshed", script("ready_after", "4s"), nil)
	start("terminated", script("ready_after", "1h"), nil)
	start("lost-answers", script("lose_answers", 1, "unavailable", 1, "throttle", 1), nil)
	start("invalid", script(), func(op map[string]any) { op["provider_config"] = map[string]any{"said": values.value()} })
	start("unreadable", script(), func(op map[string]any) { op["field-"+values.value()] = 1; delete(op, "provider") })
	start("retried", script(), func(op map[string]any) {
		op["callbacks"] = []map[string]any{{"target": "down", "deadline": "1h"}}
	})
	start("undeliverable", script(), func(op map[string]any) {
		op["callbacks"] = []map[string]any{{"target": "down", "deadline": "2s"}}
	})
	verb["updated"], verb["deleted"] = bellhop.Update, bellhop.Delete
	start("updated", script(), nil)
	start("deleted", script(), func(op map[string]any) { delete(op, "spec") })
	for i := range 8 {
		start(fmt.Sprintf("more-%d", i), script(), nil)
	}
	require.GreaterOrEqual(b, len(values), 200)

	for _, id := range []string{"cancelled", "removed"} {
		b.until(id+" waits", func() bool { return b.status(id).State == bellhop.Running })
		require.NoError(b, b.ops.Cancel(b.ctx, id))
	}
	_, err := b.ops.Refresh(b.ctx, "refreshed")
	require.NoError(b, err)
	b.until("it is terminated while it runs", func() bool { return b.status("terminated").State == bellhop.Running })
	require.NoError(b, b.client.TerminateWorkflow(b.ctx, "terminated", "", "by an operator"))
	settled := func(id string) bool {
		status := b.status(id)
		for _, receipt := range status.Callbacks {
			if !receipt.State.Settled() {
				return false
			}
		}
		return status.State.Terminal()
	}
	want := map[string]bellhop.State{
		"success": bellhop.Succeeded, "at-once": bellhop.Succeeded, "fails-asked": bellhop.Failed, "fails-waiting": bellhop.Failed,
		"fails-other": bellhop.Failed, "times-out": bellhop.Failed, "cancelled": bellhop.Cancelled, "removed": bellhop.Cancelled,
		"refreshed": bellhop.Succeeded, "lost-answers": bellhop.Succeeded, "invalid": bellhop.Failed, "unreadable": bellhop.Failed,
		"undeliverable": bellhop.Succeeded, "deleted": bellhop.Succeeded, "terminated": bellhop.Failed,
	}
	for id, state := range want {
		b.until(id+" is settled", func() bool { return settled(id) })
		status := b.status(id)
		require.Equal(b, state, status.State, "%s: %+v", id, status.Error)
	}
	require.Contains(b, b.status("fails-waiting").Error.Message, "log line of the container")
	b.until("its attempts are told", func() bool {
		receipt := b.status("retried").Callbacks[0]
		return receipt.Attempts >= 2 && strings.Contains(receipt.LastError, engineSays)
	})
	require.Equal(b, bellhop.ReceiptUndeliverable, b.status("undeliverable").Callbacks[0].State)
	rung, err := b.ops.Redeliver(b.ctx, "undeliverable", "down")
	require.NoError(b, err)
	require.Equal(b, []string{"down"}, rung)
	b.until("the redelivery is tried", func() bool {
		receipt := b.status("undeliverable").Callbacks[0]
		return receipt.State == bellhop.ReceiptDelivering && receipt.Attempts > 0 || receipt.State == bellhop.ReceiptUndeliverable && strings.Contains(receipt.LastError, engineSays)
	})
	b.until("the caller is called", func() bool { return got()["success/succeeded"].Times == 1 && got()["fails-asked/failed"].Times == 1 })

	shown := b.shown()
	stored := b.stored(db)
	logs, metrics := w.Output(), b.metrics(w)
	t.Logf("%d values; stored %d bytes, shown %d, logged %d, metrics %d", len(values), len(stored), len(shown), len(logs), len(metrics))
	require.Zero(b, values.found(logs), "%s", logs)
	require.Zero(b, values.found(metrics), "metrics")
	if !encrypted {
		require.Equal(b, len(values), values.found(stored), "the search finds what is in the clear")
		require.Equal(b, len(values), values.found(shown), "the search finds what is in the clear")
		return
	}
	for where, text := range map[string]string{"stored": stored, "shown": shown} {
		require.Contains(b, text, "cancelled", "it is the right place to search")
		for i, value := range values {
			for _, form := range spellings(value) {
				at := strings.Index(text, form)
				require.Negative(b, at, "value %d is %s: %q", i, where, text[max(0, at-200):min(len(text), max(0, at)+100)])
			}
		}
	}
}

// stored is what is in the database's file and its log.
func (b *bench) stored(db string) string {
	b.Helper()
	var all strings.Builder
	for _, file := range []string{db, db + "-wal"} {
		text, err := os.ReadFile(file)
		require.NoError(b, err)
		all.Write(text)
	}
	return all.String()
}

// ui is where Temporal's UI is.
func (b *bench) ui() string {
	b.Helper()
	var ready struct {
		UI string `json:"ui"`
	}
	line, _, _ := strings.Cut(b.server.Output(), "\n")
	require.NoError(b, json.Unmarshal([]byte(line), &ready))
	require.NotEmpty(b, ready.UI)
	return ready.UI
}

// shown is what the API of Temporal's UI says of all workflows.
func (b *bench) shown() string {
	b.Helper()
	var all strings.Builder
	get := func(path string) string {
		request, err := http.NewRequestWithContext(b.ctx, http.MethodGet, b.ui()+"/api/v1/namespaces/default"+path, http.NoBody)
		require.NoError(b, err)
		answer, err := http.DefaultClient.Do(request)
		require.NoError(b, err)
		defer answer.Body.Close() //nolint:errcheck // it was only read
		text, err := io.ReadAll(answer.Body)
		require.NoError(b, err)
		require.Equal(b, http.StatusOK, answer.StatusCode, "%s: %s", path, text)
		all.Write(text)
		return string(text)
	}
	var list struct {
		Executions []struct{ Execution struct{ WorkflowID string } }
	}
	require.NoError(b, json.Unmarshal([]byte(get("/workflows?pageSize=1000")), &list))
	require.GreaterOrEqual(b, len(list.Executions), 20)
	for _, found := range list.Executions {
		id := url.PathEscape(found.Execution.WorkflowID)
		get("/workflows/" + id)
		get("/workflows/" + id + "/history?maximumPageSize=1000")
	}
	return all.String()
}

// op is an operation that calls nobody back and whose one secret is a value.
func op(tenant, value string) string {
	return fmt.Sprintf(`{"tenant_id": %q, "provider": "simulated", "spec": {"image": "nginx", "env": {"PASSWORD": %q}}, "metadata": {"order": %q}}`,
		tenant, value, value)
}

// TestEncryption_CommandLines shows that both command lines work where payloads are encrypted, by a keyset and by the codec
// endpoint, and what is said to whom has neither.
func TestEncryption_CommandLines(t *testing.T) {
	t.Parallel()
	if os.Getenv(peers.EncryptionVariable) == "1" {
		t.Skip("this test says itself who has a keyset")
	}
	b := setup(t)
	config, section := b.keyset()
	w := b.work(strings.Replace(b.served(section), "  tokens:", "  codec: {origins: ['http://localhost:8233']}\n  tokens:", 1))
	command := func(args ...string) (string, string, int) {
		return b.run(op("acme", "planted-value"), "bellhop", args...)
	}
	byKeyset := []string{"--keyset", config.KeysetFile}

	_, stderr, code := command(append([]string{"provision", "--id", "web-1", "--wait", "-f", "-"}, byKeyset...)...)
	require.Zero(b, code, stderr)
	stdout, stderr, code := command(append([]string{"status", "web-1", "-o", "json"}, byKeyset...)...)
	require.Zero(b, code, stderr)
	require.Contains(b, stdout, "planted-value")
	require.NotContains(b, b.history("web-1", nil), "planted-value")

	_, stderr, code = command("status", "web-1")
	require.NotZero(b, code)
	require.Contains(b, stderr, "no keyset is configured here")

	endpoint := "http://" + w.API
	byCodec := func(token string, name string, args ...string) (string, string, int) {
		env := []string{"TEMPORAL_CODEC_ENDPOINT=" + endpoint, "TEMPORAL_CODEC_AUTH=Bearer " + token}
		return b.runWith(env, op("acme", "planted-value"), name, args...)
	}
	stdout, stderr, code = byCodec(operator, "bellhop", "status", "web-1", "-o", "json")
	require.Zero(b, code, stderr)
	require.Contains(b, stdout, "planted-value")
	stdout, stderr, code = byCodec(operator, "bellhop", "provision", "--id", "web-2", "--wait", "-f", "-")
	require.Zero(b, code, stderr+stdout)
	require.NotContains(b, b.history("web-2", nil), "planted-value")
	_, stderr, code = byCodec(acme, "bellhop", "status", "web-1")
	require.NotZero(b, code, "a tenant's token decodes nothing")
	require.Contains(b, stderr, "must be an operator's")

	for _, address := range []string{endpoint, endpoint + "/default"} {
		stdout, stderr, code = b.run("", "temporal", "workflow", "show", "--workflow-id", "web-1", "-o", "json",
			"--codec-endpoint", address, "--codec-auth", "Bearer "+operator)
		require.Zero(b, code, "%s: %s\n%s", address, stderr, w.Output())
		require.Contains(b, stdout, base64.StdEncoding.EncodeToString([]byte(`{"tenant_id":"acme"`))[:20])
		id := "cli-" + map[bool]string{true: "1", false: "2"}[address == endpoint]
		_, stderr, code = b.run("", "temporal", "workflow", "start", "--type", "ProvisionCompute", "--task-queue", "bellhop",
			"--workflow-id", id, "--input", op("acme", "planted-value"), "--codec-endpoint", address, "--codec-auth", "Bearer "+operator)
		require.Zero(b, code, "%s: %s\n%s", address, stderr, w.Output())
		stdout, stderr, code = b.run("", "temporal", "workflow", "query", "--workflow-id", id, "--name", "status", "-o", "json",
			"--codec-endpoint", address, "--codec-auth", "Bearer "+operator)
		require.Zero(b, code, "%s: %s\n%s", address, stderr, w.Output())
		require.Contains(b, stdout, "planted-value")
		require.NotContains(b, b.history(id, nil), "planted-value")
	}
	_, _, code = b.run("", "temporal", "workflow", "show", "--workflow-id", "web-1", "-o", "json",
		"--codec-endpoint", endpoint, "--codec-auth", "Bearer "+acme)
	require.NotZero(b, code, "a tenant's token decodes nothing")
	require.NotContains(b, w.Output(), "planted-value")
}

// reply is an answer that was read.
type reply struct {
	StatusCode int
	Header     http.Header
	cookies    []*http.Cookie
	body       []byte
}

// TestEncryption_UI makes the requests that a browser makes for Temporal's UI.
func TestEncryption_UI(t *testing.T) {
	t.Parallel()
	b := setup(t, "--headless=false", "--ui-port", "0")
	_, section := b.keyset()
	origin := b.ui()
	w := b.work(strings.Replace(b.served(section), "  tokens:", "  codec: {origins: ['"+origin+"']}\n  tokens:", 1))
	caller := b.caller(w, operator)
	caller.call(http.StatusAccepted, http.MethodPost, "/v1/operations", strings.Replace(op("acme", "planted-value"), "{", `{"operation_id": "web-1", "operation_type": "provision", `, 1))
	b.until("it is shown", func() bool {
		return strings.Contains(b.shownOf("web-1"), "binary/encrypted") || strings.Contains(b.shownOf("web-1"), base64.StdEncoding.EncodeToString([]byte("binary/encrypted")))
	})

	var page struct {
		History struct {
			Events []struct {
				WorkflowExecutionStartedEventAttributes struct {
					Input json.RawMessage
				}
			}
		}
	}
	require.NoError(b, json.Unmarshal([]byte(b.shownOf("web-1")), &page))
	input := page.History.Events[0].WorkflowExecutionStartedEventAttributes.Input
	require.NotEmpty(b, input)
	do := func(request *http.Request) reply {
		answer, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(request)
		require.NoError(b, err)
		defer answer.Body.Close() //nolint:errcheck // it was only read
		body, err := io.ReadAll(answer.Body)
		require.NoError(b, err)
		return reply{answer.StatusCode, answer.Header, answer.Cookies(), body}
	}
	ask := func(method, from string, header map[string]string) reply {
		request, err := http.NewRequestWithContext(b.ctx, method, "http://"+w.API+"/default/decode?preserveStorageRefs=true", strings.NewReader(string(input)))
		require.NoError(b, err)
		request.Header.Set("Origin", from)
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("X-Namespace", "default")
		for name, value := range header {
			request.Header.Set(name, value)
		}
		return do(request)
	}
	asks := map[string]string{"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type,x-namespace"}
	preflight := ask(http.MethodOptions, origin, asks)
	require.Equal(b, http.StatusNoContent, preflight.StatusCode)
	require.Equal(b, origin, preflight.Header.Get("Access-Control-Allow-Origin"))
	require.Contains(b, preflight.Header.Get("Access-Control-Allow-Headers"), "X-Namespace")
	require.Equal(b, "true", preflight.Header.Get("Access-Control-Allow-Credentials"))
	stranger := ask(http.MethodOptions, "http://evil.example.com", asks)
	require.Equal(b, http.StatusForbidden, stranger.StatusCode)
	require.Empty(b, stranger.Header.Get("Access-Control-Allow-Origin"))

	decoded := func(answer reply) string {
		var payloads struct{ Payloads []struct{ Data []byte } }
		require.NoError(b, json.Unmarshal(answer.body, &payloads))
		require.Len(b, payloads.Payloads, 1)
		return string(payloads.Payloads[0].Data)
	}
	none := ask(http.MethodPost, origin, nil)
	require.Equal(b, http.StatusUnauthorized, none.StatusCode)
	require.Equal(b, origin, none.Header.Get("Access-Control-Allow-Origin"), "the UI can show why")
	require.Equal(b, http.StatusForbidden, ask(http.MethodPost, origin, map[string]string{"Authorization": "Bearer " + acme}).StatusCode)
	passed := ask(http.MethodPost, origin, map[string]string{"Authorization": "Bearer " + operator})
	require.Equal(b, http.StatusOK, passed.StatusCode)
	require.Contains(b, decoded(passed), "planted-value")

	// A UI without users has no token to pass on: the browser keeps one, and the UI includes it.
	signIn := func(token string) reply {
		request, err := http.NewRequestWithContext(b.ctx, http.MethodPost, "http://"+w.API+"/codec/session",
			strings.NewReader(url.Values{"token": {token}}.Encode()))
		require.NoError(b, err)
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return do(request)
	}
	require.Equal(b, http.StatusForbidden, signIn(acme).StatusCode)
	require.Equal(b, http.StatusForbidden, signIn("guess").StatusCode)
	welcome := signIn(operator)
	require.Equal(b, http.StatusSeeOther, welcome.StatusCode)
	require.Len(b, welcome.cookies, 1)
	cookie := welcome.cookies[0]
	require.True(b, cookie.HttpOnly)
	require.Equal(b, http.SameSiteStrictMode, cookie.SameSite)
	kept := map[string]string{"Cookie": cookie.Name + "=" + cookie.Value}
	require.Contains(b, decoded(ask(http.MethodPost, origin, kept)), "planted-value")
	require.Equal(b, http.StatusUnauthorized, ask(http.MethodPost, "http://evil.example.com", kept).StatusCode)

	elsewhere, err := http.NewRequestWithContext(b.ctx, http.MethodGet, "http://"+w.API+"/v1/operations", http.NoBody)
	require.NoError(b, err)
	elsewhere.Header.Set("Origin", origin)
	elsewhere.Header.Set("Cookie", kept["Cookie"])
	answer, err := http.DefaultClient.Do(elsewhere)
	require.NoError(b, err)
	defer answer.Body.Close() //nolint:errcheck // it was only read
	require.Equal(b, http.StatusUnauthorized, answer.StatusCode, "the cookie is for the codec endpoint alone")
	require.NotContains(b, w.Output(), "planted-value")
}

// shownOf is a workflow's history as the API of Temporal's UI answers it.
func (b *bench) shownOf(id string) string {
	b.Helper()
	request, err := http.NewRequestWithContext(b.ctx, http.MethodGet, b.ui()+"/api/v1/namespaces/default/workflows/"+id+"/history", http.NoBody)
	require.NoError(b, err)
	answer, err := http.DefaultClient.Do(request)
	require.NoError(b, err)
	defer answer.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(answer.Body)
	require.NoError(b, err)
	return string(text)
}

// TestEncryption_MovedPayload has somebody who may write to Temporal, and has no key, give another's payload to an operation
// of their own, which would tell it to their own caller.
func TestEncryption_MovedPayload(t *testing.T) {
	t.Parallel()
	b := setup(t)
	config, section := b.keyset()
	b.reconnect(config)
	b.work(b.config(section))
	_, err := b.ops.Start(b.ctx, "victim", bellhop.Provision, []byte(op("victim", "planted-value")))
	require.NoError(b, err)
	b.until("it is done", func() bool { return b.status("victim").State == bellhop.Succeeded })
	input := b.payloads("victim", enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED)[0]
	require.True(b, encryption.Sealed(input))

	for id, change := range map[string]func(map[string][]byte){
		"moved":   func(map[string][]byte) {},
		"renamed": func(metadata map[string][]byte) { metadata["encryption-workflow-id"] = []byte("renamed") },
		"unbound": func(metadata map[string][]byte) { delete(metadata, "encryption-workflow-id") },
	} {
		metadata := maps.Clone(input.GetMetadata())
		change(metadata)
		_, err := b.client.WorkflowService().StartWorkflowExecution(b.ctx, &workflowservice.StartWorkflowExecutionRequest{
			Namespace: "default", WorkflowId: id, RequestId: id, WorkflowType: &commonpb.WorkflowType{Name: "ProvisionCompute"},
			TaskQueue: &taskqueuepb.TaskQueue{Name: "bellhop"},
			Input:     &commonpb.Payloads{Payloads: []*commonpb.Payload{{Metadata: metadata, Data: input.GetData()}}},
		})
		require.NoError(b, err)
		b.until("it is refused", func() bool { return b.status(id).State == bellhop.Failed })
		status := b.status(id)
		require.Equal(b, bellhop.CodeInvalidOperation, status.Error.Code)
		require.Contains(b, status.Error.Message, "binary/encrypted")
		require.Empty(b, status.Metadata)
	}
}

// payloads are what the events of a type in a workflow's history hold.
func (b *bench) payloads(id string, kind enumspb.EventType) []*commonpb.Payload {
	b.Helper()
	var all []*commonpb.Payload
	history := b.client.GetWorkflowHistory(b.ctx, id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for history.HasNext() {
		event, err := history.Next()
		require.NoError(b, err)
		if event.GetEventType() == kind {
			all = append(all, event.GetWorkflowExecutionStartedEventAttributes().GetInput().GetPayloads()...)
			all = append(all, event.GetWorkflowExecutionSignaledEventAttributes().GetInput().GetPayloads()...)
		}
	}
	return all
}

// TestEncryption_Targets has callers with the worker's keyset, with a codec of their own and with none.
func TestEncryption_Targets(t *testing.T) {
	t.Parallel()
	b := setup(t, "--namespace", "default", "--namespace", "elsewhere")
	config, section := b.keyset()
	b.reconnect(config)
	var tokens, namespaces []string
	var down atomic.Bool
	zlib := converter.NewPayloadCodecHTTPHandler(converter.NewZlibCodec(converter.ZlibCodecOptions{AlwaysEncode: true}))
	codec := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		tokens, namespaces = append(tokens, r.Header.Get("Authorization")), append(namespaces, r.Header.Get("X-Namespace"))
		zlib.ServeHTTP(w, r)
	}))
	t.Cleanup(codec.Close)
	token := filepath.Join(b.folder, "token")
	require.NoError(t, os.WriteFile(token, []byte("codec-token\n"), 0o600))
	down.Store(true)
	b.work(b.config(section, "targets:",
		"  own: {type: temporal}",
		"  plain: {type: temporal, encryption: {none: true}}",
		fmt.Sprintf("  theirs: {type: temporal, encryption: {codec_endpoint: '%s', codec_token_file: %s}}", codec.URL, token),
		"  elsewhere: {type: temporal, namespace: elsewhere}"))
	var callbacks []string
	for _, target := range []string{"own", "plain", "theirs", "elsewhere"} {
		c := b.client
		if target == "elsewhere" {
			var err error
			c, err = client.DialContext(b.ctx, client.Options{HostPort: b.server.Address, Namespace: "elsewhere", Logger: quiet{}})
			require.NoError(b, err)
			b.Cleanup(c.Close)
		}
		_, err := c.ExecuteWorkflow(b.ctx, client.StartWorkflowOptions{ID: "caller-" + target, TaskQueue: "nobody"}, "caller")
		require.NoError(b, err)
		callbacks = append(callbacks, fmt.Sprintf(`{"target": %q, "address": {"workflow_id": "caller-%s"}}`, target, target))
	}
	input := strings.TrimSuffix(op("acme", "planted-value"), "}") + `, "callbacks": [` + strings.Join(callbacks, ",") + "]}"
	_, err := b.ops.Start(b.ctx, "web-1", bellhop.Provision, []byte(input))
	require.NoError(b, err)
	b.until("a codec server that is down blocks its callback, and no other", func() bool {
		receipts := b.status("web-1").Callbacks
		return len(receipts) == 4 && receipts[2].State == bellhop.ReceiptBlocked && receipts[0].State.Settled() && receipts[1].State.Settled() && receipts[3].State.Settled()
	})
	down.Store(false)
	_, err = b.ops.Redeliver(b.ctx, "web-1", "theirs")
	require.NoError(b, err)
	b.until("it is delivered once the codec server works", func() bool { return b.status("web-1").Callbacks[2].State == bellhop.ReceiptAcknowledged })
	for target, encoding := range map[string]string{"own": encryption.Encoding, "plain": "json/plain", "theirs": "binary/zlib"} {
		got := b.payloads("caller-"+target, enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED)
		require.Len(b, got, 1, target)
		require.Equal(b, encoding, string(got[0].GetMetadata()["encoding"]), target)
	}
	require.Equal(b, "Bearer codec-token", tokens[0])
	require.Equal(b, "default", namespaces[0])
	own := b.payloads("caller-own", enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED)[0]
	require.Equal(b, "caller-own", string(own.GetMetadata()["encryption-workflow-id"]), "it is bound to its receiver")
}

// TestEncryption_TurnedOn has a worker with the keyset start beside one that does not have it yet.
func TestEncryption_TurnedOn(t *testing.T) {
	t.Parallel()
	if os.Getenv(peers.EncryptionVariable) == "1" {
		t.Skip("here every worker has a keyset")
	}
	b := setup(t)
	b.patience = 3 * time.Minute // Temporal repeats a workflow task that failed after longer and longer pauses
	b.work(b.config())
	_, err := b.ops.Start(b.ctx, "before", bellhop.Provision, []byte(strings.Replace(op("acme", "old-value"), `"metadata"`, `"provider_config": {"ready_after": "20s"}, "metadata"`, 1)))
	require.NoError(b, err)
	config, section := b.keyset()
	b.reconnect(config)
	ids := make([]string, 10)
	for i := range ids {
		ids[i] = fmt.Sprintf("during-%d", i)
		_, err := b.ops.Start(b.ctx, ids[i], bellhop.Provision, []byte(op(ids[i], "new-value")))
		require.NoError(b, err)
	}
	b.work(b.config(section))
	for _, id := range slices.Concat(ids, []string{"before"}) {
		b.until(id+" succeeds", func() bool {
			status := b.status(id)
			require.NotEqual(b, bellhop.Failed, status.State, "%s: %v", id, status.Error)
			return status.State == bellhop.Succeeded
		})
	}
}

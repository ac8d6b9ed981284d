package webhook_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"bellhop"
	"bellhop/bridge"
	"bellhop/bridge/webhook"
)

// Keys, which open nothing.
var (
	first  = "whsec_" + base64.StdEncoding.EncodeToString([]byte("the first key is 32 bytes long.."))
	second = "whsec_" + base64.StdEncoding.EncodeToString([]byte("the second key is also 32 bytes."))
	seed   = []byte("a seed of ed25519 is 32 bytes...")
	third  = "whsk_" + base64.StdEncoding.EncodeToString(seed)
)

var loopback = []string{"127.0.0.0/8"}

func keyFile(t *testing.T, keys ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte(strings.Join(keys, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newTarget(t *testing.T, config webhook.Config) *webhook.Target {
	t.Helper()
	target, err := webhook.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func message() bridge.Message {
	return bridge.Message{
		ID: "op-1/failed", Event: bellhop.EventFailed, State: bellhop.Failed,
		ReachedAt: time.Date(2026, 11, 24, 8, 30, 0, 0, time.UTC),
		Body: json.RawMessage(`{"schema_version":1,"callback_id":"op-1/failed","event":"compute-failed","operation_id":"op-1",` +
			`"operation_type":"provision","tenant_id":"acme","resource":"web","provider":"docker","state":"failed",` +
			`"error":{"code":"IMAGE_PULL_FAILED","message":"no such image","retryable":false,"requires_intervention":true}}`),
	}
}

// call is what a receiver got.
type call struct {
	header http.Header
	body   []byte
	event  string
}

// receiver answers with a status and notes what it got.
func receiver(t *testing.T, status int, header map[string]string) (string, *[]call) {
	t.Helper()
	var calls []call
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		again := r.Clone(t.Context())
		again.Body = io.NopCloser(strings.NewReader(string(body)))
		event, err := cehttp.NewEventFromHTTPRequest(again)
		if err != nil {
			t.Errorf("what came is no CloudEvent: %s", err)
		}
		text, err := json.Marshal(event)
		if err != nil {
			t.Error(err)
		}
		calls = append(calls, call{r.Header, body, string(text)})
		for name, value := range header {
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, strings.Repeat("x", 1<<20)) //nolint:errcheck // the target hangs up
	}))
	t.Cleanup(server.Close)
	return server.URL + "/hook?token=hunter2", &calls
}

// event is the golden CloudEvent.
const event = `{"specversion":"1.0","id":"op-1/failed","source":"/bellhop/tenants/acme","type":"dev.bellhop.compute.failed.v1",` +
	`"subject":"op-1","datacontenttype":"application/json","time":"2026-11-24T08:30:00Z","data":%s}`

func TestEvent(t *testing.T) {
	t.Parallel()
	for _, content := range []string{"structured", "binary"} {
		url, calls := receiver(t, http.StatusNoContent, nil)
		target := newTarget(t, webhook.Config{URL: url, KeyFile: keyFile(t, first, "# the next", second, third), Content: content, Allow: loopback})
		m := message()
		for range 2 {
			if got := target.Deliver(t.Context(), nil, m); got.Verdict != bridge.Acknowledged {
				t.Fatalf("%s: the verdict is %+v", content, got)
			}
		}
		got := (*calls)[0]
		want := fmt.Sprintf(event, m.Body)
		if diff := cmp.Diff(want, got.event); diff != "" {
			t.Errorf("%s event (-want +got):\n%s", content, diff)
		}
		wantBody, wantType := want, "application/cloudevents+json"
		if content == "binary" {
			wantBody, wantType = string(m.Body), "application/json"
		}
		if diff := cmp.Diff(wantBody, string(got.body)); diff != "" || got.header.Get("Content-Type") != wantType {
			t.Errorf("%s body of type %s (-want +got):\n%s", content, got.header.Get("Content-Type"), diff)
		}
		if !bytes.Equal((*calls)[1].body, got.body) {
			t.Errorf("%s: the second attempt sent another body", content)
		}

		for _, key := range []string{first, second} { // as a receiver does, which has one of them
			verifier, err := standardwebhooks.NewWebhook(key)
			if err != nil {
				t.Fatal(err)
			}
			if err := verifier.Verify(got.body, got.header); err != nil {
				t.Errorf("%s: the receiver refuses the signature: %s", content, err)
			}
			if verifier.Verify(append(got.body, ' '), got.header) == nil {
				t.Errorf("%s: another body passes", content)
			}
		}
		signed := fmt.Sprintf("%s.%s.%s", got.header.Get("Webhook-Id"), got.header.Get("Webhook-Timestamp"), got.body)
		verified := false
		for signature := range strings.FieldsSeq(got.header.Get("Webhook-Signature")) {
			encoded, asymmetric := strings.CutPrefix(signature, "v1a,")
			raw, err := base64.StdEncoding.DecodeString(encoded)
			public, ok := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
			verified = verified || asymmetric && ok && err == nil && ed25519.Verify(public, []byte(signed), raw)
		}
		if !verified {
			t.Errorf("%s: none of %s verifies with the public key", content, got.header.Get("Webhook-Signature"))
		}
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]bridge.Result{
		200: {Verdict: bridge.Acknowledged}, 201: {Verdict: bridge.Acknowledged}, 202: {Verdict: bridge.Acknowledged},
		204: {Verdict: bridge.Acknowledged}, 301: {Verdict: bridge.Blocked}, 307: {Verdict: bridge.Blocked},
		400: {Verdict: bridge.Blocked}, 401: {Verdict: bridge.Blocked}, 403: {Verdict: bridge.Blocked}, 404: {Verdict: bridge.Blocked},
		408: {Verdict: bridge.Retry, RetryAfter: 9 * time.Second}, 410: {Verdict: bridge.Undeliverable},
		422: {Verdict: bridge.Blocked}, 425: {Verdict: bridge.Retry, RetryAfter: 9 * time.Second},
		429: {Verdict: bridge.Retry, RetryAfter: 9 * time.Second}, 500: {Verdict: bridge.Retry, Unknown: true, RetryAfter: 9 * time.Second},
		503: {Verdict: bridge.Retry, Unknown: true, RetryAfter: 9 * time.Second},
		504: {Verdict: bridge.Retry, Unknown: true, RetryAfter: 9 * time.Second},
	} {
		url, calls := receiver(t, status, map[string]string{"Location": "/elsewhere", "Retry-After": "9"})
		target := newTarget(t, webhook.Config{URL: url, KeyFile: keyFile(t, first), Allow: loopback})
		got := target.Deliver(t.Context(), nil, message())
		if got.Err != nil && (strings.Contains(got.Err.Error(), "hunter2") || len(got.Err.Error()) > 4096) {
			t.Errorf("%d: the error shows the URL's token, or all of the answer: %.200s", status, got.Err)
		}
		got.Err = nil
		if got != want {
			t.Errorf("%d is %+v, want %+v", status, got, want)
		}
		if len(*calls) != 1 {
			t.Errorf("%d: the receiver was called %d times, want 1", status, len(*calls))
		}
	}
}

func TestNoAnswer(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	t.Cleanup(server.Close)
	target := newTarget(t, webhook.Config{URL: server.URL + "?token=hunter2", KeyFile: keyFile(t, first), Allow: loopback})
	got := target.Deliver(t.Context(), nil, message())
	if got.Verdict != bridge.Retry || !got.Unknown || strings.Contains(got.Err.Error(), "hunter2") {
		t.Errorf("a connection that breaks is %+v, want retry, unknown, without the URL", got)
	}
}

func TestGuard(t *testing.T) {
	t.Parallel()
	keys := keyFile(t, first)
	for _, host := range []string{
		"127.0.0.1", "localhost", "[::1]", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
		"[fe80::1]", "[fd00::1]", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "[64:ff9b::7f00:1]", "224.0.0.1", "255.255.255.255",
	} {
		target := newTarget(t, webhook.Config{URL: "http://" + host + ":9/", KeyFile: keys})
		got := target.Deliver(t.Context(), nil, message())
		if got.Verdict != bridge.Blocked || !strings.Contains(got.Err.Error(), "allow") {
			t.Errorf("%s is %+v, want it blocked, with what an operator can do", host, got)
		}
	}
	url, calls := receiver(t, http.StatusOK, nil)
	target := newTarget(t, webhook.Config{URL: url, KeyFile: keys, Allow: []string{"10.0.0.0/8"}})
	if got := target.Deliver(t.Context(), nil, message()); got.Verdict != bridge.Blocked || len(*calls) != 0 {
		t.Errorf("what another range allows is %+v, and the receiver was called %d times", got, len(*calls))
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	url, calls := receiver(t, http.StatusOK, nil)
	path := keyFile(t, first)
	target := newTarget(t, webhook.Config{URL: url, KeyFile: path, Allow: loopback})
	if err := os.WriteFile(path, []byte(second), 0o600); err != nil {
		t.Fatal(err)
	}
	target.Deliver(t.Context(), nil, message())
	verifier, err := standardwebhooks.NewWebhook(second)
	if err != nil {
		t.Fatal(err)
	}
	if err := verifier.Verify((*calls)[0].body, (*calls)[0].header); err != nil {
		t.Errorf("a key that was rotated is not used: %s", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	target.Deliver(t.Context(), nil, message())
	last := (*calls)[len(*calls)-1]
	if err := verifier.Verify(last.body, last.header); err != nil {
		t.Errorf("a mistake with the file stops what worked: %s", err)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	good := keyFile(t, first)
	for want, config := range map[string]webhook.Config{
		"key_file: is required":         {URL: "https://a"},
		"url: is required":              {KeyFile: good},
		"url: must be an http":          {URL: "gopher://a", KeyFile: good},
		"url: must have no user":        {URL: "https://a:hunter2@b", KeyFile: good},
		"content: must be":              {URL: "https://a", KeyFile: good, Content: "xml"},
		"allow[0]: must be a range":     {URL: "https://a", KeyFile: good, Allow: []string{"10.0.0.1"}},
		"key_file: stat":                {URL: "https://a", KeyFile: "/nonexistent"},
		"has no key":                    {URL: "https://a", KeyFile: keyFile(t, "# none")},
		"line 2: must begin with":       {URL: "https://a", KeyFile: keyFile(t, first, "hunter2")},
		"line 1: must be in base64":     {URL: "https://a", KeyFile: keyFile(t, "whsec_hunter2!")},
		"line 1: must have 24":          {URL: "https://a", KeyFile: keyFile(t, "whsec_aHVudGVyMg==")},
		"line 1: must have 32 bytes (a": {URL: "https://a", KeyFile: keyFile(t, "whsk_aHVudGVyMg==")},
	} {
		_, err := webhook.New(config)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v is %v, want %q", config, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the fault shows a secret: %s", err)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	target := newTarget(t, webhook.Config{URL: "https://a", KeyFile: keyFile(t, first)})
	if err := target.Check(bellhop.Callback{Target: "hook"}); err != nil {
		t.Errorf("a callback without an address is refused: %s", err)
	}
	err := target.Check(bellhop.Callback{Target: "hook", Address: json.RawMessage(`{"url": "http://10.0.0.1"}`), Failures: "error"})
	if err == nil || !strings.Contains(err.Error(), "address: must be left out") || !strings.Contains(err.Error(), "failures: must") {
		t.Errorf("a caller that names where to is told %v", err)
	}
}

package restate_test

import (
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bellhop"
	"bellhop/bridge"
	"bellhop/bridge/restate"
)

// id is an awakeable's id with a prefix and the number of a signal.
func id(prefix string, signal byte) string {
	return prefix + base64.RawURLEncoding.EncodeToString(append(make([]byte, 27), signal))
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	awakeable := restate.Address{Awakeable: id("sign_1", 17)}
	handler := restate.Address{Service: "orders", Handler: "provisioned"}
	retry := func(unknown bool) bridge.Result { return bridge.Result{Verdict: bridge.Retry, Unknown: unknown} }
	blocked, never := bridge.Result{Verdict: bridge.Blocked}, bridge.Result{Verdict: bridge.Undeliverable}
	rows := map[int]struct{ awakeable, handler bridge.Result }{
		200: {bridge.Result{Verdict: bridge.Accepted}, bridge.Result{Verdict: bridge.Acknowledged}},
		202: {bridge.Result{Verdict: bridge.Accepted}, bridge.Result{Verdict: bridge.Acknowledged}},
		302: {blocked, blocked},
		400: {never, blocked},
		401: {blocked, blocked},
		403: {blocked, blocked},
		404: {blocked, blocked},
		405: {never, never},
		408: {retry(false), retry(false)},
		413: {never, never},
		418: {blocked, blocked},
		425: {retry(false), retry(false)},
		429: {retry(false), retry(false)},
		500: {retry(true), retry(true)},
		502: {retry(true), retry(true)},
		503: {retry(true), retry(true)},
		504: {retry(true), retry(true)},
	}
	for status, row := range rows {
		calls := 0
		ingress := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			calls++
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
		}))
		target, err := restate.New(restate.Config{Ingress: ingress.URL})
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range []struct {
			name    string
			address restate.Address
			want    bridge.Result
		}{{"awakeable", awakeable, row.awakeable}, {"handler", handler, row.handler}} {
			calls = 0
			got := target.Deliver(t.Context(), address(t, to.address), message(t, bellhop.Succeeded))
			if got.Verdict != to.want.Verdict || got.Unknown != to.want.Unknown {
				t.Errorf("%d to the %s is %s (unknown %t), want %s (unknown %t)", status, to.name, got.Verdict, got.Unknown,
					to.want.Verdict, to.want.Unknown)
			}
			if (got.Err == nil) != (status < 300) {
				t.Errorf("%d to the %s has the error %v", status, to.name, got.Err)
			}
			if calls != 1 {
				t.Errorf("%d: the %s was called %d times, want 1: the workflow retries, and a redirect is not followed", status, to.name, calls)
			}
		}
		ingress.Close()
	}
}

// TestWire pins what is sent.
// Go's HTTP client takes a call with an idempotency key for one that it may repeat. Attempts are the workflow's to count.
func TestBrokenConnectionIsOneAttempt(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	ingress := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body) //nolint:errcheck // a connection is kept only when all was read
		if calls.Add(1) > 1 {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(ingress.Close)
	target, err := restate.New(restate.Config{Ingress: ingress.URL})
	if err != nil {
		t.Fatal(err)
	}
	to := address(t, restate.Address{Service: "orders", Handler: "provisioned"})
	target.Deliver(t.Context(), to, message(t, bellhop.Succeeded))
	got := target.Deliver(t.Context(), to, message(t, bellhop.Succeeded)) // on the connection that was kept
	if got.Verdict != bridge.Retry || !got.Unknown || calls.Load() != 2 {
		t.Errorf("it is %s (unknown %t) after %d calls, want retry, unknown, 2", got.Verdict, got.Unknown, calls.Load())
	}
}

func TestWire(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("first\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var got string
	ingress := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got = strings.Join([]string{
			r.Method, r.URL.Path, r.Header.Get("Content-Type"), r.Header.Get("Idempotency-Key"), r.Header.Get("Authorization"), string(body),
		}, "|")
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	t.Cleanup(ingress.Close)
	target, err := restate.New(restate.Config{Ingress: ingress.URL + "/base/", AuthKeyFile: key})
	if err != nil {
		t.Fatal(err)
	}
	succeeded := message(t, bellhop.Succeeded)
	rejected := message(t, bellhop.Cancelled)
	rejected.Failures = bellhop.AsError
	for want, row := range map[string]struct {
		address restate.Address
		message bridge.Message
	}{
		"POST|/base/restate/awakeables/" + id("sign_1", 17) + "/resolve|application/json||Bearer first|" + string(succeeded.Body): {
			restate.Address{Awakeable: id("sign_1", 17)}, succeeded,
		},
		"POST|/base/restate/awakeables/" + id("prom_1", 1) + "/reject|text/plain||Bearer first|IMAGE_PULL_FAILED: no such image": {
			restate.Address{Awakeable: id("prom_1", 1)}, rejected,
		},
		"POST|/base/orders/provisioned/send|application/json|op-1/succeeded|Bearer first|" + string(succeeded.Body): {
			restate.Address{Service: "orders", Handler: "provisioned"}, succeeded,
		},
		"POST|/base/orders/42/provisioned/send|application/json|op-1/succeeded|Bearer first|" + string(succeeded.Body): {
			restate.Address{Service: "orders", Key: "42", Handler: "provisioned"}, succeeded,
		},
	} {
		result := target.Deliver(t.Context(), address(t, row.address), row.message)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("sent (-want +got):\n%s", diff)
		}
		if result.RetryAfter != 7*time.Second {
			t.Errorf("it is retried after %s, want the 7 s that were asked for", result.RetryAfter)
		}
	}

	if err := os.WriteFile(key, []byte("second\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	target.Deliver(t.Context(), address(t, restate.Address{Service: "a", Handler: "b"}), succeeded)
	if !strings.Contains(got, "Bearer second") {
		t.Errorf("a key that was rotated is not used: %s", got)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	got = ""
	target.Deliver(t.Context(), address(t, restate.Address{Service: "a", Handler: "b"}), succeeded)
	if !strings.Contains(got, "Bearer second") {
		t.Errorf("a mistake with the file stops what worked: %s", got)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	target, err := restate.New(restate.Config{Ingress: "http://127.0.0.1:8080"})
	if err != nil {
		t.Fatal(err)
	}
	short := base64.RawURLEncoding.EncodeToString(make([]byte, 27))
	for _, row := range []struct{ address, states, failures, want string }{
		{address: `{"awakeable": "` + id("sign_1", 17) + `"}`, failures: "error"},
		{address: `{"awakeable": "` + id("prom_1", 1) + `"}`},
		{address: `{"service": "orders", "handler": "provisioned"}`, states: "running"},
		{address: `{"service": "a", "key": "b:1", "handler": "c"}`},
		{want: "address: is required"},
		{address: `{}`, want: "address: must have an awakeable, or a service and a handler"},
		{address: `{"awakeable": "` + id("sign_1", 1) + `"}`, want: "not of one of Restate's own signals"},
		{address: `{"awakeable": "` + id("sign_1", 16) + `"}`, want: "not of one of Restate's own signals"},
		{address: `{"awakeable": "sign_1` + short + `"}`, want: "address.awakeable: must be the whole id"},
		{address: `{"awakeable": "sign_1!!"}`, want: "address.awakeable: must be the whole id"},
		{address: `{"awakeable": "../../hunter2"}`, want: "address.awakeable: must be the id of an awakeable"},
		{address: `{"awakeable": "` + id("sign_1", 17) + `", "service": "a"}`, want: "address: must be an awakeable alone"},
		{address: `{"awakeable": "` + id("sign_1", 17) + `"}`, states: "running", want: "states: must not have"},
		{address: `{"service": "a"}`, want: "address.handler: is required"},
		{address: `{"service": "..", "handler": "b/c", "key": "d?e"}`, want: "address.handler: must be made of letters"},
		{address: `{"service": "a", "handler": "b"}`, failures: "error", want: "failures: must be left out"},
		{address: `{"url": "http://169.254.169.254"}`, want: "address.url"},
	} {
		callback := bellhop.Callback{Target: "restate", Address: []byte(row.address), Failures: bellhop.Failures(row.failures)}
		if row.states != "" {
			callback.States = []bellhop.State{bellhop.State(row.states)}
		}
		err := target.Check(callback)
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v, want %q", row.address, err, row.want)
		}
		if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), id("sign_1", 1))) {
			t.Errorf("the fault shows the token: %s", err)
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for want, config := range map[string]restate.Config{
		"ingress: is required":       {},
		"ingress: must be an http":   {Ingress: "ftp://a"},
		"ingress: must have no user": {Ingress: "http://a:b@c"},
		"auth_key_file: ":            {Ingress: "http://a", AuthKeyFile: "/nonexistent/key"},
	} {
		if _, err := restate.New(config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v is %v, want %q", config, err, want)
		}
	}
}

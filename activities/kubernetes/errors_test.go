package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bellhop"
)

// scripted is a provider of an API server that gives one answer to all that it is asked.
func scripted(t *testing.T, answer http.HandlerFunc) (*Provider, *atomic.Int64) {
	t.Helper()
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			asked.Add(1)
		}
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "a", "clusters": [{"name": "a", "cluster": {"server": %q}}],
		"contexts": [{"name": "a", "context": {"cluster": "a"}}]}`, server.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := New(Config{Kubeconfig: file})
	if err != nil {
		t.Fatal(err)
	}
	return p, &asked
}

func status(code int, reason, message, more string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": %d, "reason": %q, "message": %q %s}`, code, reason, message, more)
	}
}

// TestOneAttempt: whatever the API server answers, client-go does not ask again, and the answer is told as what it is.
func TestOneAttempt(t *testing.T) {
	op := bellhop.Operation{ID: "op", Verb: bellhop.Provision, TenantID: "acme", Resource: "web", Spec: bellhop.Spec{Image: "a", Replicas: 1}}
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		code   bellhop.Code
		after  time.Duration
	}{
		"throttled": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			http.Error(w, "Too many requests, please try again later.", http.StatusTooManyRequests)
		}, bellhop.CodeProviderThrottled, 7 * time.Second},
		"restarting": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "shutting down", http.StatusServiceUnavailable)
		}, bellhop.CodeProviderUnavailable, time.Second},
		"cut":      {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, bellhop.CodeProviderUnavailable, 0},
		"internal": {status(500, "InternalError", "etcdserver: leader changed", ""), bellhop.CodeProviderUnavailable, 0},
		"gateway":  {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "bad gateway", http.StatusBadGateway) }, bellhop.CodeProviderUnavailable, 0},
		"timeout":  {status(504, "Timeout", "request did not complete", ""), bellhop.CodeProviderUnavailable, 0},
		"unknown":  {status(401, "Unauthorized", "Unauthorized", ""), bellhop.CodePermissionDenied, 0},
		"forbidden": {
			status(403, "Forbidden", `deployments.apps "a" is forbidden: User "w" cannot get resource`, ""), bellhop.CodePermissionDenied, 0,
		},
		"starting": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/readyz" {
				http.Error(w, "not ready", http.StatusInternalServerError)
				return
			}
			status(403, "Forbidden", "forbidden: RBAC: not found", "")(w, r)
		}, bellhop.CodeProviderUnavailable, 0},
		"quota": {status(403, "Forbidden", `"a" is forbidden: exceeded quota: q`, ""), bellhop.CodeQuotaExceeded, 0},
		"terminating": {
			status(403, "Forbidden", "unable to create new content in namespace x because it is being terminated",
				`, "details": {"causes": [{"reason": "NamespaceTerminating"}]}`), bellhop.CodeResourceNotFound, 0,
		},
		"invalid": {status(422, "Invalid", "spec.x: Invalid value", ""), bellhop.CodeInvalidSpec, 0},
		"denied":  {status(400, "BadRequest", `admission webhook "w" denied the request`, ""), bellhop.CodeInvalidSpec, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p, asked := scripted(t, test.answer)
			_, err := p.Observe(t.Context(), op)
			failure, ok := errors.AsType[*bellhop.Failure](err)
			if !ok || failure.Code != test.code || failure.RetryAfter != test.after {
				t.Fatalf("it is %v, want %s after %s", err, test.code, test.after)
			}
			times := int64(1)
			if strings.Contains(failure.ProviderError, "forbidden") || test.code == bellhop.CodeResourceNotFound {
				times = 2 // a refusal may be from before it was ready
			}
			if n := asked.Load(); n != times {
				t.Errorf("it was asked %d times, want %d", n, times)
			}
			if strings.Contains(failure.Message, "%!") || !strings.Contains(failure.Message, "deployment") {
				t.Errorf("the message does not say what was done: %s", failure.Message)
			}
		})
	}
}

func TestContextEnds(t *testing.T) {
	over := make(chan struct{})
	p, _ := scripted(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-over:
		}
	})
	defer close(over)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := p.Observe(ctx, bellhop.Operation{TenantID: "acme", Resource: "web"})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it is %v, not the context's error", err)
	}
}

// TestUnreachable: an API server that is away is waited for, and no end of anything.
func TestUnreachable(t *testing.T) {
	p, _ := scripted(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusInternalServerError) })
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := wire{http.DefaultTransport, &p.clock}.RoundTrip(request)
	if err == nil {
		answer.Body.Close() //nolint:errcheck,gosec // it was not to come
	}
	failure, ok := errors.AsType[*bellhop.Failure](classify(err, "ask"))
	if !ok || failure.Code != bellhop.CodeProviderUnavailable {
		t.Errorf("it is %v", err)
	}
}

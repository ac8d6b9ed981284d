package httpapi

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"bellhop"
	"bellhop/bridge"
	"bellhop/internal/boundtest"
)

// ledger has one operation under every id and takes every operation that is sound.
type ledger struct{ bridge.Operations }

func (ledger) MakeID(_, derived string) string { return derived }

func (ledger) report(id string) bellhop.Report {
	return bellhop.Report{Status: bellhop.Status{Outcome: bellhop.Outcome{OperationID: id, TenantID: "acme", State: bellhop.Succeeded}}}
}

func (ledger) Start(_ context.Context, id string, verb bellhop.Verb, input []byte) (bool, error) {
	_, err := bellhop.ParseOperation(id, verb, time.Time{}, input)
	return false, err
}

func (l ledger) Status(_ context.Context, id string) (bellhop.Report, error) {
	return l.report(id), nil
}

func (l ledger) Refresh(_ context.Context, id string) (bellhop.Report, error) {
	return l.report(id), nil
}

func (l ledger) Wait(_ context.Context, id string) (bellhop.Report, error) { return l.report(id), nil }
func (ledger) Cancel(context.Context, string) error                        { return nil }

func (ledger) List(_ context.Context, _ bellhop.Filter, limit int, page []byte) ([]bellhop.Item, []byte, error) {
	return make([]bellhop.Item, min(limit, 1)), append([]byte("after"), page...), nil
}

func (ledger) Redeliver(_ context.Context, _, target string) ([]string, error) {
	return []string{target}, nil
}

// FuzzRequest sends a request: any path and query, and a body that repeats something as often as fits.
func FuzzRequest(f *testing.F) {
	f.Add("POST", "/v1/operations", "", `{"operation_id":"a","operation_type":"delete","tenant_id":"acme","provider":"docker"}`, "", "")
	f.Add("POST", "/v1/operations", "", `{"operation_id":"a","operation_type":"provision","tenant_id":"acme","provider":"docker","spec":{"image":"i","env":{`, `"A":"b",`, `"C":"d"}}}`)
	f.Add("POST", "/v1/operations", "", `{"provider_config":`, `{"kkkkkkkkkkkkkkkkkkkkk":`, ``)
	f.Add("GET", "/v1/operations", "tenant=acme&state=running&open=true&page_size=3&page_token=AAAAAAAAAAAAAAAA&undelivered=true", "", "", "")
	f.Add("GET", "/v1/operations/web-1", "wait=30s&refresh=true", "", "", "")
	f.Add("POST", "/v1/operations/web-1/redeliver", "target=orders", "", "", "")
	f.Add("POST", "/v1/operations/web-1/cancel", "x=%zz", "", "", "")
	f.Fuzz(func(t *testing.T, method, path, query, before, each, after string) {
		target := &url.URL{Path: path, RawQuery: query}
		if strings.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" || method == "" || !strings.HasPrefix(path, "/") || len(path)+len(query) > maxHeaderBytes {
			return // net/http refuses it
		}
		if parsed, err := url.ParseRequestURI(target.RequestURI()); err != nil || parsed.Host != "" {
			return // as above
		}
		body := boundtest.Filled(before, each, after)
		config := sound()
		require.NoError(t, config.Check())
		s, err := New(config, ledger{}, nil, slog.New(slog.DiscardHandler), func(context.Context, string, string, int, time.Duration) {})
		require.NoError(t, err)
		boundtest.Within(t, func() {
			request := httptest.NewRequestWithContext(t.Context(), method, "/", strings.NewReader(body))
			request.URL, request.RequestURI = target, target.RequestURI()
			request.Header.Set("Authorization", "Bearer "+acmesToken)
			answer := httptest.NewRecorder()
			s.ServeHTTP(answer, request)
			if answer.Code >= 500 && answer.Code != 501 {
				t.Errorf("it is answered by %d: %s", answer.Code, answer.Body)
			}
			if len(body) > bellhop.MaxOperationBytes && answer.Code < 400 && method == "POST" && path == "/v1/operations" {
				t.Error("an operation that is too large is taken")
			}
		})
	})
}

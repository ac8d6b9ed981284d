package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMetricsAskWhoIsThereBeyondLoopback(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("a-long-token\n"), 0o600))
	for _, tc := range []struct {
		reason, listen, tokenFile, bearer string
		want                              int
	}{
		{"on loopback nobody else can ask", "127.0.0.1:0", "", "", http.StatusOK},
		{"beyond, there is nothing without a token", "0.0.0.0:9464", "", "", http.StatusNotFound},
		{"a token is asked for", "0.0.0.0:9464", token, "", http.StatusUnauthorized},
		{"the right one, that is", "0.0.0.0:9464", token, "another", http.StatusUnauthorized},
		{"and then told", "0.0.0.0:9464", token, "a-long-token", http.StatusOK},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			told := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
			guarded, err := guardMetrics(Config{Listen: tc.listen, MetricsTokenFile: tc.tokenFile}, told)
			require.NoError(t, err)
			if tc.want == http.StatusNotFound {
				require.Nil(t, guarded)
				return
			}
			request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
			if tc.bearer != "" {
				request.Header.Set("Authorization", "Bearer "+tc.bearer)
			}
			answer := httptest.NewRecorder()
			guarded.ServeHTTP(answer, request)
			require.Equal(t, tc.want, answer.Code)
		})
	}
}

func TestAnEmptyTokenFileIsRefused(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("\n"), 0o600))
	_, err := listen(Config{Listen: "127.0.0.1:0", MetricsTokenFile: token}, &telemetry{}, nil, nil)
	require.ErrorContains(t, err, "empty")
}

func TestReadyMeansItCanWork(t *testing.T) {
	var down error
	server, err := listen(Config{Listen: "127.0.0.1:0"}, &telemetry{handler: http.NotFoundHandler()},
		func(context.Context) error { return down }, func(err error) { t.Error(err) })
	require.NoError(t, err)
	defer server.stop()
	require.Equal(t, http.StatusOK, get(t, server, "/readyz"))
	down = errors.New("no Temporal")
	require.Equal(t, http.StatusServiceUnavailable, get(t, server, "/readyz"))
	down = nil
	server.draining.Store(true)
	require.Equal(t, http.StatusServiceUnavailable, get(t, server, "/readyz"), "it is stopping")
	require.Equal(t, http.StatusOK, get(t, server, "/healthz"), "and alive")
}

func get(t *testing.T, server *httpServer, path string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+server.address+path, http.NoBody)
	require.NoError(t, err)
	answer, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	return answer.StatusCode
}

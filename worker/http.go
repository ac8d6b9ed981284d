package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"bellhop/bridge"
	"bellhop/internal/reload"
)

// httpServer serves /healthz, /readyz and /metrics.
type httpServer struct {
	address  string
	draining atomic.Bool
	stop     func()
}

// listen serves health and metrics. ready says whether the worker can do its work; failed is told when that ends by itself.
func listen(config Config, telemetry *telemetry, ready func(context.Context) error, failed func(error)) (*httpServer, error) {
	s := &httpServer{stop: func() {}}
	if config.Listen == "" {
		return s, nil
	}
	metrics, err := guardMetrics(config, telemetry.handler)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", config.Listen)
	if err != nil {
		return nil, usageError{fmt.Errorf("listen for health and metrics: %w\nset listen in the configuration, or --listen", err)}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			http.Error(w, "stopping", http.StatusServiceUnavailable)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		if ready(ctx) != nil {
			// Why is in the log; who asks here need not be trusted with it.
			http.Error(w, "Temporal does not answer", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	if metrics != nil {
		mux.Handle("GET /metrics", metrics)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	s.address = listener.Addr().String()
	stop := bridge.Serve(server, listener, 2*time.Second, func(err error) { failed(fmt.Errorf("serve health and metrics: %w", err)) })
	s.stop = func() { _ = stop() } //nolint:errcheck // the process ends
	return s, nil
}

// guardMetrics asks for a token where there is one, and serves nothing beyond loopback where there is none.
func guardMetrics(config Config, metrics http.Handler) (http.Handler, error) {
	if config.MetricsTokenFile == "" {
		host, _, err := net.SplitHostPort(config.Listen)
		if err != nil {
			return nil, usageError{err}
		}
		if bridge.Loopback(host) {
			return metrics, nil
		}
		return nil, nil //nolint:nilnil // no handler, and nothing wrong
	}
	token, err := openMetricsToken(config.MetricsTokenFile)
	if err != nil {
		return nil, usageError{fmt.Errorf("read metrics_token_file: %w", err)}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		have, want := sha256.Sum256([]byte(given)), token.Get()
		if !ok || subtle.ConstantTimeCompare(have[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "a bearer token is required", http.StatusUnauthorized)
			return
		}
		metrics.ServeHTTP(w, r)
	}), nil
}

// openMetricsToken reads the hash of the token that /metrics asks for.
func openMetricsToken(file string) (*reload.Value[[sha256.Size]byte], error) {
	return reload.File(file, func(text []byte) ([sha256.Size]byte, error) {
		token := strings.TrimSpace(string(text))
		if token == "" {
			return [sha256.Size]byte{}, errors.New("is empty")
		}
		return sha256.Sum256([]byte(token)), nil
	})
}

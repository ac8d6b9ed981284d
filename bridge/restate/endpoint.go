package restate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/restatedev/sdk-go/server"

	"bellhop"
	"bellhop/bridge"
	"bellhop/internal/reload"
)

// ComputeConfig serves the Restate service Compute, by which Restate handlers and whoever may call Restate's ingress
// start operations.
type ComputeConfig struct {
	// Listen is where Restate reaches the service, over HTTP/2 without TLS. Beyond loopback identity_keys are required.
	// Default "127.0.0.1:9080".
	Listen string `json:"listen"`
	// IdentityKeys are the public keys by which Restate proves who it is, such as "publickeyv1_…"; a request that none of
	// them signed is refused. Several are for rotation. Default: none, whoever reaches the address may do everything.
	IdentityKeys []string `json:"identity_keys"`
	// IdentityKeysFile is a file with further such keys, one a line; lines that begin with # are comments. It is read
	// again when it changes. Default: none.
	IdentityKeysFile string `json:"identity_keys_file" file:"public"`
	// Target names the target of type restate by which handlers that wait for an operation are called back. Required.
	Target string `json:"target"`
	// Tenants are those whose operations may be started, polled and cancelled. Default: all.
	Tenants bridge.Tenants `json:"tenants"`
	// PollAfter is how long a handler waits for its callback before it polls the status, at least "1s". The interval
	// doubles with each poll, up to 10 minutes. Default "1m".
	PollAfter bellhop.Duration `json:"poll_after"`
}

const (
	defaultListen    = "127.0.0.1:9080"
	defaultPollAfter = time.Minute
)

func (c ComputeConfig) withDefaults() ComputeConfig {
	if c.Listen == "" {
		c.Listen = defaultListen
	}
	if c.PollAfter == 0 {
		c.PollAfter = bellhop.Duration(defaultPollAfter)
	}
	return c
}

// Check says what is wrong with the configuration, as [bellhop.Faults].
func (c ComputeConfig) Check() error {
	c = c.withDefaults()
	var faults bellhop.Faults
	host, _, err := net.SplitHostPort(c.Listen)
	switch {
	case err != nil:
		faults.Add("listen", `must be host:port, such as %q`, defaultListen)
	case len(c.IdentityKeys) == 0 && c.IdentityKeysFile == "" && !bridge.Loopback(host):
		faults.Add("identity_keys", "are required where others than this machine reach the service: %s is not on loopback", c.Listen)
	}
	for i, key := range c.IdentityKeys {
		faults.Note(fmt.Sprintf("identity_keys[%d]", i), checkIdentityKey(key))
	}
	if c.IdentityKeysFile != "" {
		_, err := reload.File(c.IdentityKeysFile, parseIdentityKeys)
		faults.Note("identity_keys_file", err)
	}
	if c.Target == "" {
		faults.Add("target", "is required: the name of a target of type restate")
	}
	faults.Note("tenants", c.Tenants.Check())
	if time.Duration(c.PollAfter) < time.Second {
		faults.Add("poll_after", "must be at least 1s")
	}
	return faults.Err()
}

// checkIdentityKey says what is wrong with a key. The SDK checks all of them at once and does not say which.
func checkIdentityKey(key string) error {
	_, err := server.NewRestate().WithLogger(slog.DiscardHandler, true).WithIdentityV1(key).Handler()
	return err
}

// parseIdentityKeys parses a file of keys. One without a key is a mistake: it must not open the service to everyone.
func parseIdentityKeys(text []byte) ([]string, error) {
	var keys []string
	for number, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := checkIdentityKey(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", number+1, err)
		}
		keys = append(keys, line)
	}
	if len(keys) == 0 {
		return nil, errors.New("has no key")
	}
	return keys, nil
}

// Endpoint serves the Restate service Compute.
type Endpoint struct {
	// Address is where it listens.
	Address string

	stop func() error
}

// Listen serves the service until it is stopped. failed is told when it ends by itself.
func Listen(config ComputeConfig, ops bridge.Compute, logger *slog.Logger, failed func(error)) (*Endpoint, error) {
	if err := config.Check(); err != nil {
		return nil, err
	}
	config = config.withDefaults()
	c := &compute{ops: config.Tenants.For(ops), target: config.Target, pollAfter: time.Duration(config.PollAfter)}
	handle := func(keys []string) (http.Handler, error) {
		endpoint := server.NewRestate().WithLogger(quieter{logger.Handler()}, true)
		if len(keys) > 0 {
			endpoint.WithIdentityV1(keys...)
		}
		return endpoint.Bind(c.definition()).Handler()
	}
	handler, err := handle(config.IdentityKeys)
	if config.IdentityKeysFile != "" {
		var current *reload.Value[http.Handler]
		current, err = reload.File(config.IdentityKeysFile, func(text []byte) (http.Handler, error) {
			keys, err := parseIdentityKeys(text)
			if err != nil {
				return nil, err
			}
			return handle(slices.Concat(config.IdentityKeys, keys))
		})
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { current.Get().ServeHTTP(w, r) })
	}
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", config.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for Restate: %w", err)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	serving := &http.Server{Handler: handler, Protocols: &protocols, ReadHeaderTimeout: 5 * time.Second}
	stop := bridge.Serve(serving, listener, stopWithin, func(err error) { failed(fmt.Errorf("serve Restate: %w", err)) })
	return &Endpoint{Address: listener.Addr().String(), stop: stop}, nil
}

// stopWithin is how long handlers may take to end what they have begun. One that waits for an operation is cut off, and
// goes on wherever Restate reaches the service next.
const stopWithin = 2 * time.Second

// Stop ends the service.
func (e *Endpoint) Stop() {
	_ = e.stop() //nolint:errcheck // who was cut off goes on elsewhere
}

// quieter keeps the SDK's line or two per invocation out of the log, unless it is a log of everything.
type quieter struct{ slog.Handler }

// Enabled is part of [slog.Handler].
func (q quieter) Enabled(ctx context.Context, level slog.Level) bool {
	return q.Handler.Enabled(ctx, level) && (level >= slog.LevelWarn || q.Handler.Enabled(ctx, slog.LevelDebug))
}

// WithAttrs is part of [slog.Handler].
func (q quieter) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quieter{q.Handler.WithAttrs(attrs)}
}

// WithGroup is part of [slog.Handler].
func (q quieter) WithGroup(name string) slog.Handler { return quieter{q.Handler.WithGroup(name)} }

package tests

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/mr-tron/base58"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/proxy"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"bellhop"
	"bellhop/tests/certificates"
	"bellhop/tests/peers"
)

// TestRotation_TokensOfTheAPI takes tokens away and gives others while the worker serves, over TLS whose certificate is
// renewed meanwhile, and the token of the metrics.
func TestRotation_TokensOfTheAPI(t *testing.T) {
	t.Parallel()
	b := setup(t)
	at := func(name string) string { return filepath.Join(b.folder, name) }
	tokens := func(tokens ...string) {
		t.Helper()
		file := "tokens:\n"
		for i, token := range tokens {
			sum := sha256.Sum256([]byte(token))
			file += fmt.Sprintf("- {name: rotated-%d, tenants: [acme], sha256: %q}\n", i, hex.EncodeToString(sum[:]))
		}
		certificates.Replace(t, at("tokens"), []byte(file))
	}
	tokens("first")
	first, second := certificates.New(t, "first"), certificates.New(t, "second")
	first.Write(at("cert"), at("key"))
	certificates.Replace(t, at("metrics"), []byte("first-of-metrics\n"))
	w := b.work(b.config(fmt.Sprintf(`metrics_token_file: %[1]s/metrics
api: {listen: "127.0.0.1:0", tokens_file: %[1]s/tokens, tls: {cert_file: %[1]s/cert, key_file: %[1]s/key}}`, b.folder)))

	roots := first.Pool()
	roots.AddCert(second.Cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: roots, MinVersion: tls.VersionTLS13, ClientSessionCache: tls.NewLRUClientSessionCache(1),
	}}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}
	call := func(url, token string) (code int, body string, state *tls.ConnectionState) {
		t.Helper()
		request, err := http.NewRequestWithContext(b.ctx, http.MethodGet, url, http.NoBody)
		require.NoError(t, err)
		request.Header.Set("Authorization", "Bearer "+token)
		answer, err := client.Do(request)
		require.NoError(t, err)
		text, err := io.ReadAll(answer.Body)
		require.NoError(t, errors.Join(err, answer.Body.Close()))
		return answer.StatusCode, string(text), answer.TLS
	}
	_, port, err := net.SplitHostPort(w.API)
	require.NoError(t, err)
	known := func(want map[string]int) *tls.ConnectionState {
		t.Helper()
		var last *tls.ConnectionState
		for token, code := range want {
			var got int
			got, _, last = call("https://localhost:"+port+"/v1/operations", token)
			require.Equal(t, code, got, token)
		}
		return last
	}
	measured := func(token string, code int) string {
		t.Helper()
		got, text, _ := call("http://"+w.Listen+"/metrics", token)
		require.Equal(t, code, got)
		return text
	}
	known(map[string]int{"first": 200, "second": 401})
	measured("first-of-metrics", 200)

	tokens("first", "second")
	known(map[string]int{"first": 200, "second": 200})
	tokens("second")
	known(map[string]int{"first": 401, "second": 200})
	certificates.Replace(t, at("metrics"), []byte("second-of-metrics"))
	measured("first-of-metrics", 401)
	measured("second-of-metrics", 200)

	// Handshakes resume sessions until the certificate changes, and again after it.
	reconnect := func() (resumed bool, by string) {
		transport.CloseIdleConnections()
		state := known(map[string]int{"second": 200})
		return state.DidResume, state.PeerCertificates[0].Subject.CommonName
	}
	resumed, by := reconnect()
	require.True(t, resumed)
	require.Equal(t, "first", by)
	second.Write(at("cert"), at("key"))
	resumed, by = reconnect()
	require.False(t, resumed)
	require.Equal(t, "second", by)
	resumed, _ = reconnect()
	require.True(t, resumed)

	// A mistake keeps what worked, and is said once.
	certificates.Replace(t, at("tokens"), []byte("tokens: [{name: hunter2"))
	certificates.Replace(t, at("key"), []byte("hunter2"))
	for range 5 {
		known(map[string]int{"first": 401, "second": 200})
		_, by = reconnect()
		require.Equal(t, "second", by)
	}
	log := w.Output()
	for _, name := range []string{"tokens", "key"} {
		said := 0
		for line := range strings.Lines(log) {
			if strings.Contains(line, "cannot be used") && strings.Contains(line, at(name)) {
				said++
			}
		}
		require.Equal(t, 1, said, "%s:\n%s", name, log)
	}
	require.NotContains(t, log, "hunter2")
	require.Contains(t, measured("second-of-metrics", 200), "bellhop_unusable_files 2\n")
	second.Write(at("cert"), at("key"))
	certificates.Replace(t, at("tokens"), []byte("tokens: []\n"))
	known(map[string]int{"first": 401, "second": 401})
	transport.CloseIdleConnections()
	known(map[string]int{"second": 401})
	require.Contains(t, measured("second-of-metrics", 200), "bellhop_unusable_files 0\n")
}

// gate stands in front of a Temporal server and lets in who has the API key, or the certificate, of the moment.
type gate struct {
	address string
	// key is the API key that is asked for; empty is none.
	key atomic.Pointer[string]
	mu  sync.Mutex
	// trusted signs the certificates that are asked for; nil is none.
	trusted *certificates.Authority
	server  *certificates.Authority
	let     map[string]int
	refused int
	conns   []net.Conn
	net.Listener
}

// Accept is part of [net.Listener].
func (g *gate) Accept() (net.Conn, error) {
	conn, err := g.Listener.Accept()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns = append(g.conns, conn)
	return conn, err
}

// drop closes all connections, as a server does with old ones from time to time.
func (g *gate) drop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, conn := range g.conns {
		if conn != nil {
			_ = conn.Close()
		}
	}
	g.conns = nil
}

// gate puts a gate in front of the test's server. With mutual the gate shows certificates of server and asks for those of
// trusted.
func (b *bench) gate(key string, server, trusted *certificates.Authority) *gate {
	b.Helper()
	g := &gate{trusted: trusted, server: server, let: map[string]int{}}
	g.key.Store(&key)
	upstream, err := grpc.NewClient(b.server.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(b, err)
	b.Cleanup(func() { _ = upstream.Close() })
	service, err := proxy.NewWorkflowServiceProxyServer(proxy.WorkflowServiceProxyOptions{
		Client: workflowservice.NewWorkflowServiceClient(upstream),
	})
	require.NoError(b, err)
	g.Listener, err = new(net.ListenConfig).Listen(b.ctx, "tcp", "127.0.0.1:0")
	require.NoError(b, err)
	g.address = g.Addr().String()
	options := []grpc.ServerOption{grpc.UnaryInterceptor(g.check)}
	if server != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(&tls.Config{
			MinVersion: tls.VersionTLS12,
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
				g.mu.Lock()
				defer g.mu.Unlock()
				config := &tls.Config{
					Certificates: []tls.Certificate{g.server.Pair("gate")}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
				}
				if g.trusted != nil {
					config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, g.trusted.Pool()
				}
				return config, nil
			},
		})))
	}
	front := grpc.NewServer(options...)
	workflowservice.RegisterWorkflowServiceServer(front, service)
	operatorservice.RegisterOperatorServiceServer(front, &operators{client: operatorservice.NewOperatorServiceClient(upstream)})
	go func() { _ = front.Serve(g) }()
	b.Cleanup(front.Stop)
	return g
}

// operators hands on what a worker asks of a server's operators when it starts.
type operators struct {
	operatorservice.UnimplementedOperatorServiceServer
	client operatorservice.OperatorServiceClient
}

// ListSearchAttributes is part of the service.
func (o *operators) ListSearchAttributes(ctx context.Context, in *operatorservice.ListSearchAttributesRequest,
) (*operatorservice.ListSearchAttributesResponse, error) {
	return o.client.ListSearchAttributes(ctx, in)
}

func (g *gate) check(ctx context.Context, request any, _ *grpc.UnaryServerInfo, forward grpc.UnaryHandler) (any, error) {
	shown := ""
	if from, ok := peer.FromContext(ctx); ok {
		if secured, ok := from.AuthInfo.(credentials.TLSInfo); ok && len(secured.State.PeerCertificates) > 0 {
			shown = secured.State.PeerCertificates[0].Issuer.CommonName
		}
	}
	md, _ := metadata.FromIncomingContext(ctx)
	given := strings.TrimPrefix(strings.Join(md.Get("authorization"), ","), "Bearer ")
	g.mu.Lock()
	defer g.mu.Unlock()
	if key := *g.key.Load(); key != "" {
		if given != key {
			g.refused++
			return nil, status.Error(codes.Unauthenticated, "the key is not known")
		}
		shown = given
	}
	g.let[shown]++
	return func() (any, error) {
		g.mu.Unlock()
		defer g.mu.Lock()
		return forward(ctx, request)
	}()
}

// calls is how many calls were let in by a key, or by a certificate's issuer.
func (g *gate) calls(by string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.let[by]
}

func (g *gate) refusals() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refused
}

// TestRotation_APIKeyOfTemporal changes the API key of the worker's own connection, in a file, and of a target's profile,
// in temporal.toml and in a file.
func TestRotation_APIKeyOfTemporal(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got := b.call("caller")
	at := func(name string) string { return filepath.Join(b.folder, name) }
	own, profiled, filed := b.gate("own-1", nil, nil), b.gate("profiled-1", nil, nil), b.gate("filed-1", nil, nil)
	profiles := func(key string) {
		certificates.Replace(t, at("temporal.toml"), fmt.Appendf(nil, `
[profile.profiled]
address = %q
api_key = %q
[profile.profiled.tls]
disabled = true
[profile.filed]
address = %q
[profile.filed.tls]
disabled = true
`, profiled.address, key, filed.address))
	}
	profiles("profiled-1")
	certificates.Replace(t, at("own"), []byte("own-1\n"))
	certificates.Replace(t, at("filed"), []byte("filed-1\n"))
	config := b.config(noBackstop, fmt.Sprintf(`temporal: {api_key_file: %[1]s/own}
targets:
  temporal: {type: temporal}
  profiled: {type: temporal, profile: profiled}
  filed: {type: temporal, profile: filed, api_key_file: %[1]s/filed}`, b.folder))
	w := b.work(config, "TEMPORAL_ADDRESS="+own.address, "TEMPORAL_TLS=false", "TEMPORAL_CONFIG_FILE="+at("temporal.toml"))
	told := func(name string) {
		t.Helper()
		for _, target := range []string{"temporal", "profiled", "filed"} {
			id := name + "-" + target
			b.begin(id, target, `{}`)
			b.until(id+" is told", func() bool { return got()[bellhop.CallbackID(id, bellhop.Succeeded)].Times == 1 })
		}
	}
	told("first")
	for name, g := range map[string]*gate{"own": own, "profiled": profiled, "filed": filed} {
		key := name + "-2"
		refused := g.refusals()
		g.key.Store(&key)
		if name == "own" { // it polls all the time
			b.until("the old key is refused", func() bool { return g.refusals() > refused })
		}
		if name == "profiled" {
			profiles(key)
		} else {
			certificates.Replace(t, at(name), []byte(key))
		}
	}
	told("second")
	for name, g := range map[string]*gate{"own": own, "profiled": profiled, "filed": filed} {
		require.NotZero(t, g.calls(name+"-1"))
		require.NotZero(t, g.calls(name+"-2"))
	}
	// A mistake keeps the key, and shows none.
	certificates.Replace(t, at("own"), nil)
	certificates.Replace(t, at("filed"), []byte("two\nlines"))
	certificates.Replace(t, at("temporal.toml"), []byte(`[profile.profiled] hunter2`))
	told("third")
	log := w.Output()
	require.Contains(t, log, "is empty")
	require.NotContains(t, log, "hunter2")
	require.NotContains(t, log, "own-")
	require.NotContains(t, log, "profiled-2")
}

// TestRotation_CertificatesOfTemporal renews the worker's certificate, its authority and the server's.
func TestRotation_CertificatesOfTemporal(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got := b.call("caller")
	at := func(name string) string { return filepath.Join(b.folder, name) }
	servers, workers := certificates.New(t, "servers-1"), certificates.New(t, "workers-1")
	g := b.gate("", servers, workers)
	workers.Write(at("cert"), at("key"))
	certificates.Replace(t, at("ca"), servers.PEM())
	b.work(b.config(noBackstop), "TEMPORAL_ADDRESS="+g.address, "TEMPORAL_TLS_CLIENT_CERT_PATH="+at("cert"),
		"TEMPORAL_TLS_CLIENT_KEY_PATH="+at("key"), "TEMPORAL_TLS_SERVER_CA_CERT_PATH="+at("ca"))
	told := func(id string) {
		t.Helper()
		b.begin(id, "temporal", `{}`)
		b.until(id+" is told", func() bool { return got()[bellhop.CallbackID(id, bellhop.Succeeded)].Times == 1 })
	}
	told("first")
	require.NotZero(t, g.calls("workers-1"))
	// The connection that is open lives on with what it began with; the next one has the new certificates.
	servers, workers = certificates.New(t, "servers-2"), certificates.New(t, "workers-2")
	g.mu.Lock()
	g.server, g.trusted = servers, workers
	g.mu.Unlock()
	workers.Write(at("cert"), at("key"))
	certificates.Replace(t, at("ca"), servers.PEM())
	told("second")
	require.Zero(t, g.calls("workers-2"))
	g.drop()
	told("third")
	require.NotZero(t, g.calls("workers-2"))
}

// TestRotation_IdentityKeysOfRestate changes the key by which a Restate server proves who it is.
func TestRotation_IdentityKeysOfRestate(t *testing.T) {
	t.Parallel()
	identity := func(name string) (public, file string) {
		key, private, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		der, err := x509.MarshalPKCS8PrivateKey(private)
		require.NoError(t, err)
		file = filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
		return "publickeyv1_" + base58.Encode(key), file
	}
	first, firstFile := identity("first")
	second, secondFile := identity("second")
	keys := filepath.Join(t.TempDir(), "keys")
	certificates.Replace(t, keys, []byte(first))
	const variable = "RESTATE_REQUEST_IDENTITY_PRIVATE_KEY_PEM_FILE="
	c := setupCompute(t, computeOptions{env: []string{variable + firstFile}, more: "identity_keys_file: " + keys})
	require.Equal(t, bellhop.Succeeded, c.call("Provision", ask("web", "")).outcome(t).State)
	other := peers.RestateFor(t, variable+secondFile)
	require.ErrorContains(t, other.Register(t.Context(), c.endpoint), "401")
	certificates.Replace(t, keys, []byte("# both, for a while\n"+first+"\n"+second+"\n"))
	require.NoError(t, other.Register(t.Context(), c.endpoint))
	certificates.Replace(t, keys, []byte(second))
	stranger := peers.RestateFor(t, variable+firstFile)
	require.ErrorContains(t, stranger.Register(t.Context(), c.endpoint), "401")
}

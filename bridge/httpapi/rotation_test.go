package httpapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// replace writes a file as one should who changes a file that is in use.
func replace(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

func TestTokensFile_Rotation(t *testing.T) {
	const first, second = "first-0123456789", "second-0123456789"
	listed := func(tokens ...string) string {
		var file strings.Builder
		file.WriteString("tokens:\n")
		for i, token := range tokens {
			fmt.Fprintf(&file, "- {name: rotated-%d, sha256: %s, tenants: [acme]}\n", i, hashOf(token))
		}
		return file.String()
	}
	config := sound()
	config.TokensFile = filepath.Join(t.TempDir(), "tokens.yaml")
	replace(t, config.TokensFile, listed(first))
	s, _ := front(t, config)
	known := func(tokens ...string) {
		t.Helper()
		for _, token := range []string{acmesToken, first, second} {
			request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/openapi.json", http.NoBody)
			request.Header.Set("Authorization", "Bearer "+token)
			answer := httptest.NewRecorder()
			s.ServeHTTP(answer, request)
			want := http.StatusUnauthorized
			for _, known := range tokens {
				if token == known {
					want = http.StatusOK
				}
			}
			require.Equal(t, want, answer.Code, token)
		}
	}
	known(acmesToken, first)
	replace(t, config.TokensFile, listed(first, second))
	known(acmesToken, first, second)
	replace(t, config.TokensFile, listed(second))
	known(acmesToken, second)
	for reason, broken := range map[string]string{
		"empty, as before it is written":        "",
		"cut in the middle":                     listed(first, second)[:60],
		"without the list":                      "{}",
		"with a token of the configuration":     listed(first, acmesToken),
		"with a name of the configuration":      strings.Replace(listed(first), "rotated-0", "orders", 1),
		"with a field that is none":             "tokens: []\nmore: 1\n",
		"with the list twice":                   "tokens: []\ntokens: []\n",
		"a token in the clear in place of text": second,
	} {
		t.Run(reason, func(*testing.T) {
			replace(t, config.TokensFile, broken)
			known(acmesToken, second)
		})
	}
	replace(t, config.TokensFile, `{"tokens": []}`)
	known(acmesToken)
}

// tlsCaller keeps its connection and its sessions, as callers do.
type tlsCaller struct {
	*http.Client
	t    *testing.T
	port string
}

func (c *tlsCaller) call() (code int, state *tls.ConnectionState, err error) {
	request, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, "https://localhost:"+c.port+"/openapi.json", http.NoBody)
	require.NoError(c.t, err)
	request.Header.Set("Authorization", "Bearer "+acmesToken)
	answer, err := c.Do(request)
	if err != nil {
		return 0, nil, err
	}
	_, err = io.Copy(io.Discard, answer.Body)
	require.NoError(c.t, err)
	return answer.StatusCode, answer.TLS, answer.Body.Close()
}

func TestTLS_Rotation(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,h2=%t", tls.VersionName(version), h2), func(t *testing.T) { rotateTLS(t, version, h2) })
		}
	}
}

func rotateTLS(t *testing.T, version uint16, h2 bool) {
	t.Helper()
	folder := t.TempDir()
	at := func(name string) string { return filepath.Join(folder, name) }
	servers, old, renewed := newAuthority(t), newAuthority(t), newAuthority(t)
	servers.issue("the first", at("cert"), at("key"))
	trust := func(files ...string) {
		var all strings.Builder
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			all.Write(text)
		}
		replace(t, at("ca"), all.String())
	}
	trust(old.file)
	config := sound()
	config.TLS = &TLSConfig{CertFile: at("cert"), KeyFile: at("key"), ClientCAFile: at("ca")}
	s, _ := front(t, config)
	require.NoError(t, s.Listen(func(err error) { t.Error(err) }))
	defer func() { require.NoError(t, s.Stop()) }()
	_, port, err := net.SplitHostPort(s.Address())
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(servers.cert)
	caller := func(by *authority) *tlsCaller {
		by.issue("a caller", at("client-cert"), at("client-key"))
		pair, err := tls.LoadX509KeyPair(at("client-cert"), at("client-key"))
		require.NoError(t, err)
		transport := &http.Transport{
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, s.Address())
			},
			ForceAttemptHTTP2: h2,
			TLSClientConfig: &tls.Config{
				RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: version, MaxVersion: version,
				ClientSessionCache: tls.NewLRUClientSessionCache(10),
			},
		}
		t.Cleanup(transport.CloseIdleConnections)
		return &tlsCaller{Client: &http.Client{Transport: transport}, t: t, port: port}
	}
	// reconnect has the caller make another connection.
	reconnect := func(c *tlsCaller) (int, *tls.ConnectionState, error) {
		c.CloseIdleConnections()
		return c.call()
	}
	accepted := func(resumed bool, by string) func(int, *tls.ConnectionState, error) {
		return func(code int, state *tls.ConnectionState, err error) {
			t.Helper()
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, code)
			require.Equal(t, resumed, state.DidResume, "resumed")
			require.Equal(t, by, state.PeerCertificates[0].Subject.CommonName)
		}
	}
	kept, resuming := caller(old), caller(old)
	accepted(false, "the first")(kept.call())
	accepted(false, "the first")(resuming.call())
	accepted(true, "the first")(reconnect(resuming))
	accepted(true, "the first")(reconnect(resuming))

	// The certificate is renewed: who is connected goes on, and a new connection sees the new one.
	servers.issue("the second", at("cert"), at("key"))
	accepted(false, "the first")(kept.call())
	accepted(false, "the second")(reconnect(resuming))
	accepted(true, "the second")(reconnect(resuming))
	kept.CloseIdleConnections()
	accepted(false, "the second")(kept.call())

	// Another authority is added; nothing is lost.
	trust(old.file, renewed.file)
	accepted(false, "the second")(caller(renewed).call())
	accepted(false, "the second")(kept.call())
	accepted(false, "the second")(reconnect(kept))
	accepted(true, "the second")(reconnect(kept))

	// The first one is taken away: neither a connection that is open nor a session that could be resumed helps.
	trust(renewed.file)
	code, _, err := kept.call()
	require.NoError(t, err)
	require.Equal(t, http.StatusForbidden, code)
	_, _, err = kept.call()
	require.Error(t, err, "its connection was closed, and its certificate is refused")
	_, _, err = reconnect(resuming)
	require.Error(t, err, "its session has ended")
	now := caller(renewed)
	accepted(false, "the second")(now.call())

	// A mistake changes nothing.
	replace(t, at("key"), "no key")
	replace(t, at("ca"), "no authority")
	accepted(false, "the second")(now.call())
	accepted(true, "the second")(reconnect(now))
}

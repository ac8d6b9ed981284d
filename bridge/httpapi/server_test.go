package httpapi

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"bellhop"
)

const (
	acmesToken    = "acme-0123456789"
	operatorToken = "operator-0123456789"
)

func hashOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

func sound() Config {
	return Config{Listen: "127.0.0.1:0", Tokens: []TokenConfig{
		{Name: "orders", SHA256: hashOf(acmesToken), Tenants: []string{"acme", "acme-labs"}},
		{Name: "oncall", SHA256: hashOf(operatorToken), Operator: true},
	}}
}

// front is a server in front of nothing: what it refuses by itself must never get to an operation.
func front(t *testing.T, config Config) (*Server, *bytes.Buffer) {
	t.Helper()
	require.NoError(t, config.Check())
	var log bytes.Buffer
	s, err := New(config, nil, nil, slog.New(slog.NewTextHandler(&log, nil)), func(context.Context, string, string, int, time.Duration) {})
	require.NoError(t, err)
	return s, &log
}

func TestWhatIsRefusedAndHow(t *testing.T) {
	operation := `{"operation_id": "web-1", "operation_type": "provision", "tenant_id": "acme", "provider": "docker", "spec": {"image": "nginx"}}`
	for _, tc := range []struct {
		reason, token, method, path, body string
		code                              ProblemCode
		faults                            []string
	}{
		{"who has no token is told nothing else", "", "GET", "/v1/operations/web-1", "", CodeUnauthenticated, nil},
		{"nor who has a wrong one", "acme-0123456788", "GET", "/v1/operations/web-1", "", CodeUnauthenticated, nil},
		{"nor whoever sends the hash of one", hashOf(acmesToken), "GET", "/v1/operations", "", CodeUnauthenticated, nil},
		{"not even that there is no such path", "", "GET", "/v1/nothing", "", CodeUnauthenticated, nil},
		{"nor what the API looks like", "", "GET", "/openapi.json", "", CodeUnauthenticated, nil},
		{"a path that is none", acmesToken, "GET", "/v1/nothing", "", CodeNotFound, nil},
		{"a path that is none, although a browser would mend it", acmesToken, "GET", "//v1/operations", "", CodeNotFound, nil},
		{"a path that leads astray", acmesToken, "POST", "/v1/../v1/operations", "", CodeNotFound, nil},
		{"a path with more behind it", acmesToken, "GET", "/v1/operations/", "", CodeNotFound, nil},
		{"a method that is none", acmesToken, "PUT", "/v1/operations/web-1", "", CodeMethodNotAllowed, nil},
		{"an id that can be none", acmesToken, "GET", "/v1/operations/web%201", "", CodeNotFound, nil},
		{
			"faults of a query, all of them", acmesToken, "GET", "/v1/operations/web-1?wait=2m&refresh=maybe", "", CodeInvalidRequest,
			[]string{"refresh", "wait"},
		},
		{"a parameter that would silently not be obeyed", acmesToken, "GET", "/v1/operations?tennant=acme", "", CodeInvalidRequest, []string{"tennant"}},
		{"a parameter given twice", acmesToken, "GET", "/v1/operations?tenant=acme&tenant=other", "", CodeInvalidRequest, []string{"tenant"}},
		{
			"faults of a list", operatorToken, "GET", "/v1/operations?state=done&page_size=0&page_token=x&open=1&undelivered=no&resource=a%20b", "", CodeInvalidRequest,
			[]string{"open", "page_size", "page_token", "resource", "state", "undelivered"},
		},
		{"a page of another list", acmesToken, "GET", "/v1/operations?page_token=" + sealPage(bellhop.Filter{Tenant: "other"}, []byte("x")), "", CodeInvalidRequest, []string{"page_token"}},
		{"a page of the list of somebody else", acmesToken, "GET", "/v1/operations?page_token=" + sealPage(bellhop.Filter{}, []byte("x")), "", CodeInvalidRequest, []string{"page_token"}},
		{"the list of another tenant", acmesToken, "GET", "/v1/operations?tenant=other", "", CodeForbidden, nil},
		{"an operation for another tenant", acmesToken, "POST", "/v1/operations", strings.Replace(operation, "acme", "other", 1), CodeForbidden, nil},
		{"no JSON", acmesToken, "POST", "/v1/operations", "tenant_id: acme", CodeInvalidRequest, []string{""}},
		{"no object", acmesToken, "POST", "/v1/operations", `"web"`, CodeInvalidOperation, []string{""}},
		{"nothing at all", acmesToken, "POST", "/v1/operations", "", CodeInvalidRequest, []string{""}},
		{
			"faults of an operation, all of them", acmesToken, "POST", "/v1/operations",
			`{"tenant_id": 7, "provder": "docker", "spec": {"replicas": "two"}, "requested_at": "2026-01-01T00:00:00Z"}`, CodeInvalidOperation,
			[]string{"operation_id", "operation_type", "provder", "provider", "requested_at", "spec.image", "spec.replicas", "tenant_id"},
		},
		{"an operation that is too large", acmesToken, "POST", "/v1/operations", strings.Repeat(" ", bellhop.MaxOperationBytes) + operation, CodeTooLarge, nil},
		{"a query to a path that takes none", acmesToken, "POST", "/v1/operations?wait=1s", operation, CodeInvalidRequest, []string{"wait"}},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			s, _ := front(t, sound())
			request := httptest.NewRequestWithContext(t.Context(), tc.method, tc.path, strings.NewReader(tc.body))
			if tc.token != "" {
				request.Header.Set("Authorization", "Bearer "+tc.token)
			}
			answer := httptest.NewRecorder()
			s.ServeHTTP(answer, request)
			require.Equal(t, "application/problem+json", answer.Header().Get("Content-Type"))
			var problem Problem
			require.NoError(t, json.Unmarshal(answer.Body.Bytes(), &problem), answer.Body.String())
			require.Equal(t, tc.code, problem.Code, answer.Body.String())
			require.Equal(t, Problems()[tc.code], answer.Code)
			require.Equal(t, answer.Code, problem.Status)
			require.Equal(t, http.StatusText(answer.Code), problem.Title)
			require.NotEmpty(t, problem.Detail)
			var paths []string
			for _, fault := range problem.Faults {
				paths = append(paths, fault.Path)
			}
			require.Equal(t, tc.faults, paths)
			if tc.code == CodeUnauthenticated {
				require.Equal(t, "Bearer", answer.Header().Get("WWW-Authenticate"))
			}
			if tc.code == CodeMethodNotAllowed {
				require.Equal(t, "GET, HEAD", answer.Header().Get("Allow"))
			}
		})
	}
}

func TestNothingSecretIsLogged(t *testing.T) {
	s, log := front(t, sound())
	for _, path := range []string{"/v1/operations", "/v1/nothing/in-the-path", "/v1/operations?page_token=in-the-query"} {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(`{"in-the-body": 1}`))
		request.Header.Set("Authorization", "Bearer "+acmesToken)
		s.ServeHTTP(httptest.NewRecorder(), request)
	}
	require.Contains(t, log.String(), "token_name=orders")
	for _, secret := range []string{acmesToken, hashOf(acmesToken), "in-the"} {
		require.NotContains(t, log.String(), secret)
	}
}

func TestAFaultOfOurOwnIsAProblemLikeAnyOther(t *testing.T) {
	s, log := front(t, sound())
	request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/operations/web-1", http.NoBody)
	request.Header.Set("Authorization", "Bearer "+acmesToken)
	answer := httptest.NewRecorder()
	s.ServeHTTP(answer, request) // there is nothing behind it
	require.Equal(t, http.StatusInternalServerError, answer.Code)
	require.Contains(t, answer.Body.String(), CodeInternal)
	require.NotContains(t, answer.Body.String(), "nil pointer")
	require.Contains(t, log.String(), "nil pointer")
}

func TestEveryFaultOfTheConfigurationIsNamed(t *testing.T) {
	for _, tc := range []struct {
		reason string
		change func(*Config)
		want   []string
	}{
		{"a sound one", func(*Config) {}, nil},
		{"nothing", func(c *Config) { *c = Config{} }, []string{"listen", "tokens"}},
		{"an address that is none", func(c *Config) { c.Listen = "9465" }, []string{"listen"}},
		{"beyond loopback in the clear", func(c *Config) { c.Listen = "0.0.0.0:9465" }, []string{"listen"}},
		{"everywhere in the clear", func(c *Config) { c.Listen = ":9465" }, []string{"listen"}},
		{"a name may be anywhere", func(c *Config) { c.Listen = "bellhop.internal:9465" }, []string{"listen"}},
		{"beyond loopback behind a proxy", func(c *Config) { c.Listen, c.BehindProxy = ":9465", true }, nil},
		{"on loopback", func(c *Config) { c.Listen = "[::1]:9465" }, nil},
		{"TLS without files", func(c *Config) { c.TLS = &TLSConfig{} }, []string{"tls.cert_file", "tls.key_file"}},
		{
			"TLS with files that are none",
			func(c *Config) { c.TLS = &TLSConfig{CertFile: "/none", KeyFile: "/none", ClientCAFile: "/none"} },
			[]string{"tls.cert_file", "tls.client_ca_file", "tls.key_file"},
		},
		{"a token without anything", func(c *Config) { c.Tokens = []TokenConfig{{}} }, []string{"tokens[0].name", "tokens[0].sha256", "tokens[0].tenants"}},
		{"a token in the clear", func(c *Config) { c.Tokens[0].SHA256 = acmesToken }, []string{"tokens[0].sha256"}},
		{"a token for a tenant that can be none", func(c *Config) { c.Tokens[0].Tenants[1] = "*" }, []string{"tokens[0].tenants[1]"}},
		{"an operator of some tenants", func(c *Config) { c.Tokens[1].Tenants = []string{"acme"} }, []string{"tokens[1].tenants"}},
		{"a file of tokens that is none", func(c *Config) { c.TokensFile = "/none" }, []string{"tokens_file"}},
		{
			"a file of tokens alone, which has faults",
			func(c *Config) { c.Tokens, c.TokensFile = nil, "testdata/faulty-tokens.yaml" },
			[]string{"tokens_file.tokens[0].sha256", "tokens_file.tokens[0].tenants", "tokens_file.tokens[1].name"},
		},
		{"a token twice", func(c *Config) { c.Tokens[1] = c.Tokens[0] }, []string{"tokens[1].name", "tokens[1].sha256"}},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			config := sound()
			tc.change(&config)
			var paths []string
			if err := config.Check(); err != nil {
				for _, fault := range err.(bellhop.Faults) { //nolint:errorlint // Check returns faults as they are
					paths = append(paths, fault.Path)
					require.NotContains(t, fault.Problem, acmesToken)
				}
			}
			require.Equal(t, tc.want, paths)
		})
	}
}

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	a := &authority{t: t, key: key, file: filepath.Join(t.TempDir(), "ca.pem")}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an authority"}, IsCA: true, BasicConstraintsValid: true,
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	a.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return a
}

// issue writes a certificate for the loopback address and its key.
func (a *authority) issue(name, certFile, keyFile string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	require.NoError(a.t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(a.t, err)
	require.NoError(a.t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	require.NoError(a.t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
}

func TestTLS(t *testing.T) {
	folder := t.TempDir()
	at := func(name string) string { return filepath.Join(folder, name) }
	ours := newAuthority(t)
	ours.issue("the first", at("cert"), at("key"))
	config := sound()
	config.Listen = "localhost:0"
	config.TLS = &TLSConfig{CertFile: at("cert"), KeyFile: at("key"), ClientCAFile: ours.file}
	s, _ := front(t, config)
	require.NoError(t, s.Listen(func(err error) { t.Error(err) }))
	defer func() { require.NoError(t, s.Stop()) }()
	_, port, err := net.SplitHostPort(s.Address())
	require.NoError(t, err)

	roots := x509.NewCertPool()
	roots.AddCert(ours.cert)
	// call answers the HTTP status and whose certificate the server showed.
	call := func(scheme string, certificates ...tls.Certificate) (code int, shown string, err error) {
		client := http.Client{Transport: &http.Transport{
			DisableKeepAlives: true, ForceAttemptHTTP2: true,
			TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certificates, MinVersion: tls.VersionTLS12},
		}}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+"://localhost:"+port+"/openapi.json", http.NoBody)
		require.NoError(t, err)
		request.Header.Set("Authorization", "Bearer "+acmesToken)
		answer, err := client.Do(request)
		if err != nil {
			return 0, "", err
		}
		if answer.TLS != nil {
			shown = answer.TLS.PeerCertificates[0].Subject.CommonName
		}
		return answer.StatusCode, shown, answer.Body.Close()
	}
	certificate := func(by *authority) tls.Certificate {
		by.issue("a caller", at("client-cert"), at("client-key"))
		pair, err := tls.LoadX509KeyPair(at("client-cert"), at("client-key"))
		require.NoError(t, err)
		return pair
	}
	known := certificate(ours)
	code, shown, err := call("https", known)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "the first", shown)
	_, _, err = call("https")
	require.Error(t, err, "the token alone is not enough where certificates are asked for")
	_, _, err = call("https", certificate(newAuthority(t)))
	require.Error(t, err, "nor is anybody's certificate")
	code, _, err = call("http", known)
	require.NoError(t, err)
	require.Equal(t, http.StatusBadRequest, code, "nothing is told in the clear")

	ours.issue("the second", at("cert"), at("key"))
	_, shown, err = call("https", known)
	require.NoError(t, err)
	require.Equal(t, "the second", shown, "a certificate is renewed without a restart")
}

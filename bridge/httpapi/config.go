// Package httpapi is the way in for everybody who speaks HTTP: start an operation, poll its status, list, cancel,
// redeliver. What it serves is written down in openapi.yaml.
package httpapi

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"bellhop"
	"bellhop/bridge"
)

// Config is the API as an operator configures it.
type Config struct {
	// Listen is the address to serve on, such as "127.0.0.1:9465". Beyond loopback it needs tls or behind_proxy.
	// Required.
	Listen string `json:"listen"`
	// TLS is how connections are encrypted. Default: they are not.
	TLS *TLSConfig `json:"tls"`
	// BehindProxy says that connections from beyond this machine arrive unencrypted, because a proxy in a network that
	// can be trusted has ended TLS. Default false.
	BehindProxy bool `json:"behind_proxy"`
	// Waits is how many requests may wait at once for an operation to end (?wait=30s); further ones are answered 503. Each
	// is a long poll at Temporal, which by default takes 1200 of a namespace at each of its frontends. Default 500.
	Waits int `json:"waits"`
	// Tokens are who may call. At least one is required.
	Tokens []TokenConfig `json:"tokens"`
	// Codec serves a codec endpoint at /decode and /encode, and below /NAMESPACE, where payloads are encrypted. Default: not
	// served.
	Codec *CodecConfig `json:"codec"`
}

const defaultWaits = 500

// TLSConfig is how connections to the API are encrypted. The files are read at each handshake, so that a certificate can
// be renewed.
type TLSConfig struct {
	// CertFile has the certificate and what it is signed by, as PEM. Required.
	CertFile string `json:"cert_file"`
	// KeyFile has the certificate's private key, as PEM. Required.
	KeyFile string `json:"key_file"`
	// ClientCAFile has the authorities, as PEM, of which callers need a certificate besides their token. Default: none,
	// a token is enough.
	ClientCAFile string `json:"client_ca_file"`
}

// TokenConfig is one bearer token. The configuration has only its hash.
type TokenConfig struct {
	// Name tells the token apart in logs. Required.
	Name string `json:"name"`
	// SHA256 is the hash of the token, as 64 hexadecimal digits. Required.
	SHA256 string `json:"sha256"`
	// Tenants are whose operations the token is for.
	Tenants []string `json:"tenants"`
	// Operator makes the token one for the operations of all tenants. Default false; tenants is then required.
	Operator bool `json:"operator"`
	// Codec lets the token decode and encode the payloads of all tenants at the codec endpoint, as an operator's may.
	// Default false.
	Codec bool `json:"codec"`
}

// Check says what is wrong, as [bellhop.Faults]; nil when nothing is.
func (c *Config) Check() error {
	var faults bellhop.Faults
	switch host, _, err := net.SplitHostPort(c.Listen); {
	case c.Listen == "":
		faults.Add("listen", `is required, such as "127.0.0.1:9465"`)
	case err != nil:
		faults.Add("listen", `must be host:port, such as "127.0.0.1:9465"`)
	case !bridge.Loopback(host) && c.TLS == nil && !c.BehindProxy:
		faults.Add("listen", "is beyond loopback, where tokens must not go unencrypted: configure tls, or behind_proxy if a proxy has ended TLS")
	}
	if c.TLS != nil {
		faults.Note("tls", c.TLS.check())
	}
	if c.Codec != nil {
		faults.Note("codec", c.Codec.check())
	}
	if c.Waits < 0 {
		faults.Add("waits", "must be at least 1, or be left out")
	}
	if len(c.Tokens) == 0 {
		faults.Add("tokens", "is required: who calls must be told apart")
	}
	names, hashes := map[string]bool{}, map[string]bool{}
	for i, token := range c.Tokens {
		path := fmt.Sprintf("tokens[%d]", i)
		faults.Note(path, token.check())
		if token.Name != "" && names[token.Name] {
			faults.Add(path+".name", "%q is given twice", token.Name)
		}
		hash := strings.ToLower(token.SHA256)
		if hash != "" && hashes[hash] {
			faults.Add(path+".sha256", "is that of another token")
		}
		names[token.Name], hashes[hash] = true, true
	}
	return faults.Err()
}

func (t *TLSConfig) check() error {
	var faults bellhop.Faults
	for name, file := range map[string]string{"cert_file": t.CertFile, "key_file": t.KeyFile} {
		if file == "" {
			faults.Add(name, "is required")
		}
	}
	if len(faults) == 0 {
		if _, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile); err != nil {
			faults.Add("cert_file", "with key_file: %s", err)
		}
	}
	if _, err := t.clientCAs(); err != nil {
		faults.Add("client_ca_file", "%s", err)
	}
	return faults.Err()
}

// clientCAs is nil when callers need no certificate.
func (t *TLSConfig) clientCAs() (*x509.CertPool, error) {
	if t.ClientCAFile == "" {
		return nil, nil //nolint:nilnil // none, and nothing wrong
	}
	pem, err := os.ReadFile(t.ClientCAFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("has no certificate in PEM")
	}
	return pool, nil
}

// server is the configuration of a server that reads its files at each handshake.
func (t *TLSConfig) server() *tls.Config {
	read := func(*tls.ClientHelloInfo) (*tls.Config, error) {
		certificate, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, err
		}
		config := &tls.Config{
			MinVersion:   tls.VersionTLS12,
			Certificates: []tls.Certificate{certificate},
			NextProtos:   []string{"h2", "http/1.1"},
		}
		if config.ClientCAs, err = t.clientCAs(); err != nil {
			return nil, err
		}
		if config.ClientCAs != nil {
			config.ClientAuth = tls.RequireAndVerifyClientCert
		}
		return config, nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetConfigForClient: read}
}

func (t *TokenConfig) check() error {
	var faults bellhop.Faults
	if t.Name == "" {
		faults.Add("name", "is required")
	} else if err := bellhop.CheckName(t.Name); err != nil {
		faults.Add("name", "%s", err)
	}
	if hash, err := hex.DecodeString(t.SHA256); err != nil || len(hash) != sha256.Size {
		faults.Add("sha256", "must be the SHA-256 of the token, as 64 hexadecimal digits")
	}
	switch {
	case t.Operator && len(t.Tenants) > 0:
		faults.Add("tenants", "must be left out for an operator, who sees them all")
	case !t.Operator && !t.Codec && len(t.Tenants) == 0:
		faults.Add("tenants", "is required, unless operator or codec is true")
	}
	for i, tenant := range t.Tenants {
		if err := bellhop.CheckName(tenant); err != nil {
			faults.Add(fmt.Sprintf("tenants[%d]", i), "%s", err)
		}
	}
	return faults.Err()
}

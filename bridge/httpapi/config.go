// Package httpapi is the way in for everybody who speaks HTTP: start an operation, poll its status, list, cancel,
// redeliver. What it serves is written down in openapi.yaml.
package httpapi

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"

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
	// Tokens are who may call. They change only with a restart: tokens that can be revoked at once belong into tokens_file.
	// At least one is required, here or there.
	Tokens []TokenConfig `json:"tokens"`
	// TokensFile is a YAML or JSON file with further tokens, in a list called tokens. It is read again when it changes: a
	// token that is no longer in it is refused from the next request on. Default: none.
	TokensFile string `json:"tokens_file" file:"hashes"`
	// Codec serves a codec endpoint at /decode and /encode, and below /NAMESPACE, where payloads are encrypted. Default: not
	// served.
	Codec *CodecConfig `json:"codec"`
}

// DefaultWaits is how many requests may wait at once where the configuration does not say.
const DefaultWaits = 500

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
	if len(c.Tokens) == 0 && c.TokensFile == "" {
		faults.Add("tokens", "is required, unless there is a tokens_file: who calls must be told apart")
	}
	faults.Note("", checkTokens(c.Tokens))
	if c.TokensFile != "" {
		_, err := c.openTokens()
		faults.Note("tokens_file", err)
	}
	return faults.Err()
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

package httpapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
)

// caller is whom a token stands for.
type caller struct {
	name     string
	operator bool
	codec    bool
	tenants  []string
}

// may says whether the operations of a tenant are the caller's business.
func (c *caller) may(tenant string) bool { return c.operator || slices.Contains(c.tenants, tenant) }

// tokens are the callers by the hashes of their tokens.
type tokens []struct {
	hash []byte
	caller
}

func newTokens(configured []TokenConfig) tokens {
	known := make(tokens, len(configured))
	for i, token := range configured {
		known[i].hash, _ = hex.DecodeString(token.SHA256) //nolint:errcheck // Check has done it
		known[i].caller = caller{name: token.Name, operator: token.Operator, codec: token.Codec, tenants: token.Tenants}
	}
	return known
}

// find tells who calls; nil when nobody is known by the request's token. It takes as long for a token that is almost
// right as for one that is not.
func (t tokens) find(r *http.Request) *caller {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil
	}
	hash := sha256.Sum256([]byte(strings.TrimSpace(token)))
	var found *caller
	for i := range t {
		if subtle.ConstantTimeCompare(hash[:], t[i].hash) == 1 {
			found = &t[i].caller
		}
	}
	return found
}

type callerKey struct{}

func withCaller(ctx context.Context, c *caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// callerOf is who calls; where nobody was let in, somebody whose business nothing is.
func callerOf(ctx context.Context) *caller {
	if c, ok := ctx.Value(callerKey{}).(*caller); ok && c != nil {
		return c
	}
	return &caller{}
}

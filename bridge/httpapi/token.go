package httpapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"bellhop"
	"bellhop/internal/reload"
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

// tokens are the callers by the hashes of their tokens: those of the configuration, and those of a file as it is now.
type tokens struct {
	configured []token
	file       *reload.Value[[]token]
}

type token struct {
	hash []byte
	caller
}

func newTokens(configured []TokenConfig) []token {
	known := make([]token, len(configured))
	for i, token := range configured {
		known[i].hash, _ = hex.DecodeString(token.SHA256) //nolint:errcheck // checkTokens has done it
		known[i].caller = caller{name: token.Name, operator: token.Operator, codec: token.Codec, tenants: token.Tenants}
	}
	return known
}

// openTokens reads the tokens of the configuration and of its file.
func (c *Config) openTokens() (tokens, error) {
	known := tokens{configured: newTokens(c.Tokens)}
	if c.TokensFile == "" {
		return known, nil
	}
	var err error
	known.file, err = reload.File(c.TokensFile, func(content []byte) ([]token, error) {
		asJSON, err := yaml.YAMLToJSONStrict(content)
		if err != nil {
			return nil, errors.New("must be YAML or JSON") // the parser's error could show some of it
		}
		var file struct {
			Tokens *[]TokenConfig `json:"tokens"`
		}
		if err := bellhop.DecodeStrict(asJSON, &file); err != nil {
			return nil, err
		}
		// A file that was only half written must not look like one of which every token was taken.
		if file.Tokens == nil {
			return nil, bellhop.Faults{{Path: "tokens", Problem: "is required: a list, which may be empty"}}
		}
		if err := checkTokens(*file.Tokens, c.Tokens...); err != nil {
			return nil, err
		}
		return newTokens(*file.Tokens), nil
	})
	return known, err
}

// checkTokens says what is wrong with tokens beside others, as [bellhop.Faults].
func checkTokens(tokens []TokenConfig, beside ...TokenConfig) error {
	var faults bellhop.Faults
	names, hashes := map[string]bool{}, map[string]bool{}
	for _, token := range beside {
		names[token.Name], hashes[strings.ToLower(token.SHA256)] = true, true
	}
	for i, token := range tokens {
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

// find tells who calls; nil when nobody is known by the request's token. It takes as long for a token that is almost
// right as for one that is not.
func (t tokens) find(r *http.Request) *caller {
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil
	}
	hash := sha256.Sum256([]byte(strings.TrimSpace(given)))
	known := t.configured
	if t.file != nil {
		known = slices.Concat(known, t.file.Get())
	}
	var found *caller
	for i := range known {
		if subtle.ConstantTimeCompare(hash[:], known[i].hash) == 1 {
			found = &known[i].caller
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

package webhook

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// A key signs as Standard Webhooks says.
type key interface {
	sign(id string, at time.Time, body []byte) (string, error)
}

// shared is a key that the receiver has too.
type shared struct{ *standardwebhooks.Webhook }

func (k shared) sign(id string, at time.Time, body []byte) (string, error) {
	return k.Sign(id, at, body)
}

// private is a key of which the receiver has the public half. The specification's own library does not sign with it.
type private ed25519.PrivateKey

func (k private) sign(id string, at time.Time, body []byte) (string, error) {
	signed := fmt.Appendf(nil, "%s.%d.%s", id, at.Unix(), body)
	return "v1a," + base64.StdEncoding.EncodeToString(ed25519.Sign(ed25519.PrivateKey(k), signed)), nil
}

const (
	sharedPrefix  = "whsec_"
	privatePrefix = "whsk_"
	// The specification asks for 24 to 64 bytes.
	minKeyBytes, maxKeyBytes = 24, 64
)

// parseKeys parses a file of keys. Its errors show none.
func parseKeys(text []byte) ([]key, error) {
	var keys []key
	for number, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		k, err := parseKey(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number+1, err)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("has no key")
	}
	return keys, nil
}

func parseKey(text string) (key, error) {
	encoded, isShared := strings.CutPrefix(text, sharedPrefix)
	encoded, isPrivate := strings.CutPrefix(encoded, privatePrefix)
	if !isShared && !isPrivate {
		return nil, fmt.Errorf("must begin with %s or %s", sharedPrefix, privatePrefix)
	}
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errors.New("must be in base64 after its prefix") // the library's own error could show some of it
	}
	if isShared {
		if len(raw) < minKeyBytes || len(raw) > maxKeyBytes {
			return nil, fmt.Errorf("must have %d to %d bytes", minKeyBytes, maxKeyBytes)
		}
		webhook, err := standardwebhooks.NewWebhookRaw(raw)
		if err != nil {
			return nil, errors.New("cannot be used")
		}
		return shared{webhook}, nil
	}
	switch len(raw) {
	case ed25519.SeedSize:
		return private(ed25519.NewKeyFromSeed(raw)), nil
	case ed25519.PrivateKeySize:
		return private(raw), nil
	default:
		return nil, fmt.Errorf("must have %d bytes (a seed) or %d", ed25519.SeedSize, ed25519.PrivateKeySize)
	}
}

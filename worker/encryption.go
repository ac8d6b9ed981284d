package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"go.temporal.io/sdk/converter"

	"bellhop"
	"bellhop/encryption"
	"bellhop/encryption/awskms"
)

// EncryptionConfig is the keyset of the worker's own connection.
type EncryptionConfig = encryption.Config

// TargetEncryption is how callers in Temporal read what they are sent: at most one of a keyset, a codec endpoint and none.
type TargetEncryption struct {
	// KeysetFile is a keyset that the callers have as well, as in the section encryption.
	KeysetFile string `json:"keyset_file" file:"secret"`
	// KMSKeyURI is by which key of a key management service that keyset is encrypted. Default: none.
	KMSKeyURI string `json:"kms_key_uri"`
	// CodecEndpoint is the URL of the callers' own codec server, which encodes at <URL>/encode, such as
	// "https://codec.example.com/orders".
	CodecEndpoint string `json:"codec_endpoint"`
	// CodecTokenFile holds the bearer token that the codec server asks for. It is read for each request. Default: none.
	CodecTokenFile string `json:"codec_token_file" file:"secret"`
	// None has callers written to in the clear. Default false.
	None bool `json:"none"`
}

func (t TargetEncryption) check() error {
	var faults bellhop.Faults
	if ways := trueOf(t.KeysetFile != "", t.CodecEndpoint != "", t.None); ways != 1 {
		faults.Add("", "must have one of keyset_file, codec_endpoint and none")
	}
	if t.KMSKeyURI != "" && t.KeysetFile == "" {
		faults.Add("kms_key_uri", "must be left out without keyset_file")
	}
	if t.CodecEndpoint != "" {
		at, err := url.Parse(t.CodecEndpoint)
		if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
			faults.Add("codec_endpoint", `must be a URL, such as "https://codec.example.com/orders"`)
		}
	}
	if t.CodecTokenFile != "" {
		if t.CodecEndpoint == "" {
			faults.Add("codec_token_file", "must be left out without codec_endpoint")
		}
		if _, err := readToken(t.CodecTokenFile); err != nil {
			faults.Add("codec_token_file", "%s", err)
		}
	}
	return faults.Err()
}

func trueOf(given ...bool) int {
	n := 0
	for _, one := range given {
		if one {
			n++
		}
	}
	return n
}

// openKeyset reads a keyset and has it watched once the worker runs.
func (p *parts) openKeyset(config encryption.Config) (*encryption.Keyset, error) {
	keys, err := encryption.Open(config, awskms.Service{})
	if err != nil {
		if _, faulty := err.(bellhop.Faults); faulty { //nolint:errorlint // as Check answers it
			return nil, err
		}
		return nil, bellhop.Faults{{Path: "keyset_file", Problem: err.Error()}}
	}
	p.keysets = append(p.keysets, keys)
	return keys, nil
}

// encryptTarget makes the converters of a target of type temporal whose entry says how its callers read.
func (p *parts) encryptTarget(name string, entry *TargetEncryption) error {
	if entry == nil {
		return nil
	}
	if err := entry.check(); err != nil {
		return err
	}
	switch {
	case entry.KeysetFile != "":
		keys, err := p.openKeyset(encryption.Config{KeysetFile: entry.KeysetFile, KMSKeyURI: entry.KMSKeyURI})
		if err != nil {
			return err
		}
		p.encrypted[name] = keys.Converters
	case entry.CodecEndpoint != "":
		p.encrypted[name] = entry.remote
	default:
		p.encrypted[name] = func(string) encryption.Converters { return encryption.Converters{} }
	}
	return nil
}

// codecWithin bounds one request to a codec server. An attempt to deliver that it fails is repeated.
const codecWithin = 10 * time.Second

// remote are the converters of a codec server.
func (t TargetEncryption) remote(namespace string) encryption.Converters {
	return encryption.ByCodec(converter.NewRemotePayloadCodec(converter.RemotePayloadCodecOptions{
		Endpoint: strings.TrimSuffix(t.CodecEndpoint, "/"),
		ModifyRequest: func(r *http.Request) error {
			r.Header.Set("X-Namespace", namespace)
			if t.CodecTokenFile == "" {
				return nil
			}
			token, err := readToken(t.CodecTokenFile)
			r.Header.Set("Authorization", "Bearer "+token)
			return err
		},
		Client: http.Client{
			Timeout: codecWithin,
			// It would take the outcome, and the token, elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}))
}

func readToken(file string) (string, error) {
	text, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fmt.Errorf("read token: %s is empty", file)
	}
	return token, nil
}

// watchKeysets reads keysets again that change, until ctx ends.
func (p *parts) watchKeysets(ctx context.Context, logger *slog.Logger) {
	for _, keys := range p.keysets {
		go keys.Watch(ctx, logger)
	}
}

// own are the converters of the worker's own connection.
func (p *parts) ownConverters(namespace string) encryption.Converters {
	if p.keys == nil {
		return encryption.Clear()
	}
	return p.keys.Converters(namespace)
}

// forTarget are the converters of a target of type temporal. Who is called back in the worker's own namespace reads by the
// worker's keyset, unless the entry says otherwise; others do not have it.
func (p *parts) forTarget(name, namespace string, ownNamespace bool) encryption.Converters {
	if converters, ok := p.encrypted[name]; ok {
		return converters(namespace)
	}
	if ownNamespace {
		return p.ownConverters(namespace)
	}
	return encryption.Converters{}
}

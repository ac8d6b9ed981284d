// Package webhook calls any HTTP service back: with a CloudEvent, signed as Standard Webhooks says.
package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"code.dny.dev/ssrf"
	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"

	"bellhop"
	"bellhop/bridge"
	"bellhop/internal/reload"
)

// Config is a target of type "webhook".
type Config struct {
	// URL is what is called, with POST. Required.
	URL string `json:"url"`
	// KeyFile is a file with the keys to sign with, one a line: "whsec_…" (HMAC-SHA256, shared with the receiver) or
	// "whsk_…" (ed25519, of which the receiver has the public half). Each call is signed with every one of them, so a
	// key is rotated by having the new one beside the old for a while. It is read again when it changes. Required.
	KeyFile string `json:"key_file" file:"secret"`
	// Content is how the CloudEvent is sent: "structured" (the default: it is the body, with the outcome as its data) or
	// "binary" (the outcome is the body, the event's attributes are headers).
	Content string `json:"content"`
	// Allow are the address ranges that may be called although they are not public, such as "10.0.0.0/8". Default:
	// none; whatever the URL's name resolves to, only public addresses are called.
	Allow []string `json:"allow"`
}

// Target calls one URL.
type Target struct {
	url    string
	host   string
	keys   *reload.Value[[]key]
	binary bool
	client *http.Client
	// hostname is the URL's host without its port, and guard says which addresses may be called.
	hostname string
	guard    *ssrf.Guardian
	// secrets are what the URL's query may hold: a token, which a receiver may repeat.
	secrets []string
}

// minSecret is the length from which on a value in the URL's query is taken for a secret.
const minSecret = 6

func secretsOf(at *url.URL) []string {
	secrets := []string{at.RawQuery}
	for _, values := range at.Query() {
		for _, value := range values {
			if len(value) >= minSecret {
				secrets = append(secrets, value)
			}
		}
	}
	return secrets
}

// New makes a target.
func New(config Config) (*Target, error) {
	var faults bellhop.Faults
	parsed, err := url.Parse(config.URL)
	switch {
	case config.URL == "":
		faults.Add("url", `is required, such as "https://orders.example.com/bellhop"`)
	case err != nil || parsed.Host == "" || parsed.Scheme != "http" && parsed.Scheme != "https":
		faults.Add("url", "must be an http or https URL")
	case parsed.User != nil || parsed.Fragment != "":
		faults.Add("url", "must have no user and no fragment; who calls is told by the signature")
	}
	if config.KeyFile == "" {
		faults.Add("key_file", "is required: an unsigned callback could be anybody's")
	}
	var keys *reload.Value[[]key]
	if config.KeyFile != "" {
		keys, err = reload.File(config.KeyFile, parseKeys)
		faults.Note("key_file", err)
	}
	if config.Content != "" && config.Content != "structured" && config.Content != "binary" {
		faults.Add("content", `must be "structured" or "binary"`)
	}
	var v4, v6 []netip.Prefix
	for i, text := range config.Allow {
		prefix, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			faults.Add(fmt.Sprintf("allow[%d]", i), `must be a range of addresses, such as "10.0.0.0/8"`)
		case prefix.Addr().Is4():
			v4 = append(v4, prefix)
		default:
			v6 = append(v6, prefix)
		}
	}
	if err := faults.Err(); err != nil {
		return nil, err
	}
	guard := ssrf.New(ssrf.WithAnyPort(), ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...))
	return &Target{
		url: config.URL, host: parsed.Host, hostname: parsed.Hostname(), guard: guard, secrets: secretsOf(parsed), keys: keys, binary: config.Content == "binary",
		// The address is checked when it is dialled: a name may resolve to something else than a moment ago. Behind a
		// proxy nobody could check it.
		client: bridge.HTTPClient(nil, guard.Safe),
	}, nil
}

// Reachable finds out that a URL whose host is an address can never be called, as [bellhop.Faults]. What a name resolves to
// is known only when it is dialed.
func (t *Target) Reachable() error {
	ip, err := netip.ParseAddr(t.hostname)
	if err != nil || t.guard.SafeAddr(ip) == nil {
		return nil //nolint:nilerr // it is a name
	}
	return bellhop.Faults{{Path: "url", Problem: fmt.Sprintf("names %s, which is not a public address: add its range to allow, such as allow: [%q]",
		ip, netip.PrefixFrom(ip, ip.BitLen()))}}
}

// Check says what is wrong with a callback's address.
func (t *Target) Check(callback bellhop.Callback) error {
	var faults bellhop.Faults
	if len(callback.Address) > 0 {
		faults.Add("address", "must be left out: the operator has configured where the webhook goes")
	}
	if callback.Failures != "" {
		faults.Add("failures", "must be left out: a webhook tells of every state alike")
	}
	return faults.Err()
}

// Deliver posts the event once.
func (t *Target) Deliver(ctx context.Context, _ json.RawMessage, m bridge.Message) bridge.Result {
	ctx, sent := bridge.Sending(ctx)
	request, body, err := t.request(ctx, m)
	if err != nil {
		return bridge.Result{Verdict: bridge.Undeliverable, Err: err}
	}
	now := time.Now()
	keys := t.keys.Get()
	signatures := make([]string, len(keys))
	for i, key := range keys {
		if signatures[i], err = key.sign(m.ID, now, body); err != nil {
			return bridge.Result{Verdict: bridge.Blocked, Err: fmt.Errorf("sign: %w", err)}
		}
	}
	request.Header.Set("Webhook-Id", m.ID)
	request.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	request.Header.Set("Webhook-Signature", strings.Join(signatures, " "))
	response, err := t.client.Do(request)
	if err != nil {
		if broken, ok := errors.AsType[*url.Error](err); ok { // it repeats the URL, whose query may hold a token
			err = broken.Err
		}
		err = fmt.Errorf("call %s: %w", t.host, err)
		if errors.Is(err, ssrf.ErrProhibitedIP) {
			return bridge.Result{Verdict: bridge.Blocked, Err: fmt.Errorf("%w; if it is meant, put it into the target's allow", err)}
		}
		return bridge.Result{Verdict: bridge.Retry, Unknown: sent(), Err: err}
	}
	defer response.Body.Close() //nolint:errcheck // what matters was read
	return classify(response, t.secrets)
}

// request makes the CloudEvent's request, whose body is the same in every attempt.
func (t *Target) request(ctx context.Context, m bridge.Message) (*http.Request, []byte, error) {
	var outcome bellhop.Outcome
	if err := json.Unmarshal(m.Body, &outcome); err != nil {
		return nil, nil, fmt.Errorf("read the outcome: %w", err)
	}
	e := event.New()
	e.SetID(m.ID)
	e.SetSource("/bellhop/tenants/" + outcome.TenantID)
	e.SetType("dev.bellhop.compute." + strings.TrimPrefix(string(m.Event), "compute-") + ".v1")
	e.SetSubject(outcome.OperationID)
	e.SetTime(m.ReachedAt)
	if err := e.SetData(event.ApplicationJSON, m.Body); err != nil {
		return nil, nil, fmt.Errorf("make the event: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, http.NoBody)
	if err != nil {
		return nil, nil, fmt.Errorf("make the request: %w", err)
	}
	encoding := binding.WithForceStructured(ctx)
	if t.binary {
		encoding = binding.WithForceBinary(ctx)
	}
	if err := cehttp.WriteRequest(encoding, binding.ToMessage(&e), request); err != nil {
		return nil, nil, fmt.Errorf("make the event: %w", err)
	}
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return nil, nil, fmt.Errorf("make the event: %w", err)
	}
	request.Body = io.NopCloser(bytes.NewReader(body))
	request.ContentLength = int64(len(body))
	request.GetBody = nil // or the transport would send it a second time by itself
	request.Header.Set("User-Agent", "bellhop")
	return request, body, nil
}

// classify says what an answer means.
func classify(response *http.Response, secrets []string) bridge.Result {
	status := response.StatusCode
	if status >= http.StatusOK && status < http.StatusMultipleChoices {
		return bridge.Result{Verdict: bridge.Acknowledged}
	}
	result := bridge.Result{Err: fmt.Errorf("the receiver answered %s: %s", response.Status, bridge.Said(response, secrets...))}
	switch {
	case bridge.RetryStatus(status):
		result.Verdict = bridge.Retry
		result.Unknown = status >= http.StatusInternalServerError
		result.RetryAfter = bridge.RetryAfter(response.Header)
	case status == http.StatusGone:
		result.Verdict = bridge.Undeliverable
	default:
		result.Verdict = bridge.Blocked // a redirect too: nobody signed for where it leads
	}
	return result
}

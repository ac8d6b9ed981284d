// Package restate calls Restate handlers back: it resolves the awakeable that a handler waits for, or calls a handler.
package restate

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"unicode"

	"bellhop"
	"bellhop/bridge"
	"bellhop/internal/reload"
)

// Config is a target of type "restate".
type Config struct {
	// Ingress is the URL of Restate's ingress, such as "http://127.0.0.1:8080". Required.
	Ingress string `json:"ingress"`
	// AuthKeyFile is a file with the key that the ingress asks for, such as an API key of Restate Cloud, sent as a
	// bearer token. It is read again when it changes. Default: none.
	AuthKeyFile string `json:"auth_key_file" file:"secret"`
}

// Address finds a caller in Restate, in one of two ways: the awakeable that a handler waits for ("awakeable"), or a
// handler to be called ("service" and "handler", and "key" for one of a virtual object or a workflow).
type Address struct {
	// Awakeable is the awakeable's id. Who has it can complete it: it is a secret.
	Awakeable string `json:"awakeable,omitempty"`
	Service   string `json:"service,omitempty"`
	Handler   string `json:"handler,omitempty"`
	Key       string `json:"key,omitempty"`
}

// Target calls handlers of one Restate environment back.
type Target struct {
	ingress *url.URL
	// authKey is nil where the ingress asks for none.
	authKey *reload.Value[string]
	client  *http.Client
}

// New makes a target.
func New(config Config) (*Target, error) {
	var faults bellhop.Faults
	ingress, err := url.Parse(config.Ingress)
	switch {
	case config.Ingress == "":
		faults.Add("ingress", `is required, such as "http://127.0.0.1:8080"`)
	case err != nil || ingress.Host == "" || ingress.Scheme != "http" && ingress.Scheme != "https":
		faults.Add("ingress", "must be an http or https URL")
	case ingress.User != nil || ingress.RawQuery != "" || ingress.Fragment != "":
		faults.Add("ingress", "must have no user, no query and no fragment; a key belongs into auth_key_file")
	}
	t := &Target{ingress: ingress, client: bridge.HTTPClient(http.ProxyFromEnvironment, nil)}
	if config.AuthKeyFile != "" {
		t.authKey, err = reload.File(config.AuthKeyFile, parseAuthKey)
		faults.Note("auth_key_file", err)
	}
	if err := faults.Err(); err != nil {
		return nil, err
	}
	return t, nil
}

func parseAuthKey(text []byte) (string, error) {
	key := strings.TrimSpace(string(text))
	switch {
	case key == "":
		return "", errors.New("is empty")
	case strings.ContainsFunc(key, unicode.IsControl):
		return "", errors.New("must be one line of text")
	}
	return key, nil
}

// name is what Restate allows in services, handlers and keys without escaping; dots alone would walk up the path.
var name = regexp.MustCompile(`^[A-Za-z0-9_:.-]*[A-Za-z0-9_:-][A-Za-z0-9_:.-]*$`)

func parseAddress(raw json.RawMessage) (Address, bellhop.Faults) {
	var faults bellhop.Faults
	if len(raw) == 0 {
		faults.Add("address", `is required, such as {"awakeable": "sign_1…"} or {"service": "orders", "handler": "provisioned"}`)
		return Address{}, faults
	}
	var address Address
	if faults.Note("address", bellhop.DecodeStrict(raw, &address)) {
		return address, faults
	}
	if address.Awakeable != "" {
		if address.Service != "" || address.Handler != "" || address.Key != "" {
			faults.Add("address", "must be an awakeable alone, or have none")
		}
		if err := checkAwakeable(address.Awakeable); err != nil {
			faults.Add("address.awakeable", "%s", err)
		}
		return address, faults
	}
	if address.Service == "" && address.Handler == "" {
		faults.Add("address", "must have an awakeable, or a service and a handler")
		return address, faults
	}
	for _, part := range []struct {
		path, value string
		required    bool
	}{{"service", address.Service, true}, {"handler", address.Handler, true}, {"key", address.Key, false}} {
		switch {
		case part.value == "" && part.required:
			faults.Add("address."+part.path, "is required")
		case part.value != "" && !name.MatchString(part.value):
			faults.Add("address."+part.path, "must be made of letters, digits and _ : . -")
		}
	}
	return address, faults
}

// An awakeable's id is a prefix and, in base64, the id of an invocation and the number of one of its signals, of which
// the first belong to Restate: signal 1 cancels the invocation. Ids of older servers number an entry of the journal.
const (
	prefix       = "sign_1"
	legacyPrefix = "prom_1"
	idBytes      = 28
	firstSignal  = 17
)

// checkAwakeable says what is wrong with an id. The error does not repeat it.
func checkAwakeable(id string) error {
	encoded, signal := strings.CutPrefix(id, prefix)
	encoded, legacy := strings.CutPrefix(encoded, legacyPrefix)
	if !signal && !legacy {
		return fmt.Errorf("must be the id of an awakeable, which begins with %s", prefix)
	}
	decoded, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(encoded, "="))
	if err != nil || len(decoded) != idBytes {
		return errors.New("must be the whole id of an awakeable")
	}
	if signal && binary.BigEndian.Uint32(decoded[idBytes-4:]) < firstSignal {
		return errors.New("must be the id of an awakeable, not of one of Restate's own signals")
	}
	return nil
}

// Check says what is wrong with a callback's address and states.
func (t *Target) Check(callback bellhop.Callback) error {
	address, faults := parseAddress(callback.Address)
	if len(faults) == 0 && address.Awakeable != "" && callback.Wants(bellhop.Running) {
		faults.Add("states", `must not have "running": an awakeable can be completed only once`)
	}
	if len(faults) == 0 && address.Awakeable == "" && callback.Failures != "" {
		faults.Add("failures", "must be left out: a handler is called with every outcome alike")
	}
	return faults.Err()
}

// Deliver resolves the awakeable with the outcome, or has the handler called with it. A caller that wants failures as
// errors has its awakeable rejected instead, with no more than a text: the code and the message.
func (t *Target) Deliver(ctx context.Context, raw json.RawMessage, m bridge.Message) bridge.Result {
	address, faults := parseAddress(raw)
	if err := faults.Err(); err != nil {
		return bridge.Result{Verdict: bridge.Undeliverable, Err: err}
	}
	key := ""
	if t.authKey != nil {
		key = t.authKey.Get()
	}
	var path []string
	header := http.Header{"Content-Type": {"application/json"}, "User-Agent": {"bellhop"}}
	body := []byte(m.Body)
	switch {
	case address.Awakeable != "" && m.Failed(bellhop.AsResult):
		path = []string{"restate", "awakeables", address.Awakeable, "reject"}
		header.Set("Content-Type", "text/plain")
		body = []byte(m.Failure().Error())
	case address.Awakeable != "":
		path = []string{"restate", "awakeables", address.Awakeable, "resolve"}
	case address.Key != "":
		path = []string{address.Service, address.Key, address.Handler, "send"}
	default:
		path = []string{address.Service, address.Handler, "send"}
	}
	if address.Awakeable == "" {
		header.Set("Idempotency-Key", m.Key())
	}
	if key != "" {
		header.Set("Authorization", "Bearer "+key)
	}
	ctx, sent := bridge.Sending(ctx)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, t.ingress.JoinPath(path...).String(), bytes.NewReader(body))
	if err != nil {
		return bridge.Result{Verdict: bridge.Undeliverable, Err: errors.New("the address makes no URL")}
	}
	request.Header = header
	request.GetBody = nil // or the transport would send it a second time by itself, seeing its idempotency key
	response, err := t.client.Do(request)
	if err != nil {
		// The URL, which url.Error repeats, has the awakeable's id in it.
		if broken, ok := errors.AsType[*url.Error](err); ok {
			err = broken.Err
		}
		return bridge.Result{Verdict: bridge.Retry, Unknown: sent(), Err: fmt.Errorf("call %s: %w", t.ingress.Host, err)}
	}
	defer response.Body.Close() //nolint:errcheck // what matters was read
	return classify(address, response, bridge.Said(response, address.Awakeable, key))
}

// classify says what an answer of the ingress means.
func classify(address Address, response *http.Response, said string) bridge.Result {
	status := response.StatusCode
	if status == http.StatusOK || status == http.StatusAccepted {
		if address.Awakeable != "" {
			// It is the answer for an awakeable that nobody waits for, too.
			return bridge.Result{Verdict: bridge.Accepted}
		}
		return bridge.Result{Verdict: bridge.Acknowledged}
	}
	result := bridge.Result{Err: fmt.Errorf("restate answered %s: %s", response.Status, said)}
	switch {
	case bridge.RetryStatus(status):
		result.Verdict = bridge.Retry
		result.Unknown = status >= http.StatusInternalServerError
		result.RetryAfter = bridge.RetryAfter(response.Header)
	case status == http.StatusRequestEntityTooLarge, status == http.StatusMethodNotAllowed:
		result.Verdict = bridge.Undeliverable
	case status == http.StatusBadRequest && address.Awakeable != "":
		result.Verdict = bridge.Undeliverable
	default:
		// 401 and 403; 404: no such service or handler; 400: the handler is private; a redirect: it is no ingress.
		result.Verdict = bridge.Blocked
	}
	return result
}

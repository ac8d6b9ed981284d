package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"

	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"bellhop"
)

// Receiver is called back by bellhop.
type Receiver struct {
	book *Book
	keys []*standardwebhooks.Webhook
}

// trust takes calls that were signed with key. While a key is rotated there are two.
func (r *Receiver) trust(key string) error {
	if key == "" {
		return nil
	}
	verifier, err := standardwebhooks.NewWebhook(key)
	if err != nil {
		return errors.New(`a key must be "whsec_" and base64`) // the library's own error could show some of it
	}
	r.keys = append(r.keys, verifier)
	return nil
}

// maxBody is more than any outcome has.
const maxBody = 1 << 20

// ServeHTTP answers 2xx only once the callback is safe, in the same transaction as what it brings about. Whatever it
// answers else, or when it does not answer at all, bellhop calls again.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, maxBody))
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	// First of all, and over the body as it came: before that, nothing in it is to be believed.
	if !r.signed(body, request.Header) {
		http.Error(w, "the signature is none of ours", http.StatusUnauthorized)
		return
	}
	// The callback's id, which stays the same in every attempt. It is signed; in binary content the ce-… headers are not.
	id := request.Header.Get("Webhook-Id")
	request.Body = io.NopCloser(bytes.NewReader(body))
	event, err := cehttp.NewEventFromHTTPRequest(request) // structured or binary
	if err != nil {
		http.Error(w, "it is no CloudEvent", http.StatusBadRequest)
		return
	}
	var outcome bellhop.Outcome
	if err := json.Unmarshal(event.Data(), &outcome); err != nil {
		http.Error(w, "its data is no outcome", http.StatusBadRequest)
		return
	}
	again, err := r.book.enter(request.Context(), id, outcome, event.Data())
	if err != nil {
		slog.Error("a callback could not be entered", "callback_id", id, "error", err)
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	slog.Info("called back", "callback_id", id, "again", again)
	w.WriteHeader(http.StatusNoContent)
}

func (r *Receiver) signed(body []byte, header http.Header) bool {
	for _, key := range r.keys {
		if key.Verify(body, header) == nil { // it also refuses what was signed more than five minutes ago
			return true
		}
	}
	return false
}

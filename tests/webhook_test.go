package tests

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"bellhop"
)

// TestWebhookIsCalledBack has a receiver that takes callbacks only now and then, and loses its answer as often, beside one
// that never answers.
func TestWebhookIsCalledBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	secret := base64.StdEncoding.EncodeToString([]byte("a key that opens nothing, 32 b.."))
	keys := filepath.Join(b.folder, "keys")
	require.NoError(t, os.WriteFile(keys, []byte("whsec_"+secret), 0o600))
	verifier, err := standardwebhooks.NewWebhook(secret)
	require.NoError(t, err)

	// Few enough for the target not to count as out of order.
	unlucky := func(id string) bool { return strings.HasPrefix(id, "hooked-1/") || strings.HasPrefix(id, "hooked-2/") }
	var mu sync.Mutex
	calls, effects := map[string]int{}, map[string]string{}
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if err := verifier.Verify(body, r.Header); err != nil {
			t.Errorf("the receiver refuses the signature: %s", err)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		mu.Lock()
		id := r.Header.Get("Webhook-Id")
		calls[id]++
		n := calls[id]
		before, known := effects[id]
		if n > 1 || !unlucky(id) {
			effects[id] = string(body)
		}
		mu.Unlock()
		switch {
		case known && before != string(body):
			t.Errorf("%s came with another body", id)
		case !unlucky(id):
		case n == 1:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		case n == 2: // taken, and the answer is lost
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(receiver.Close)
	hung := make(chan struct{})
	blackHole := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hung:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(blackHole.Close)
	t.Cleanup(func() { close(hung) })
	target := "  %s: {type: webhook, url: '%s', key_file: " + keys + ", allow: [127.0.0.0/8]}\n"
	worker := b.work(b.config(noBackstop, "targets:\n"+fmt.Sprintf(target, "orders", receiver.URL)+fmt.Sprintf(target, "hole", blackHole.URL)))

	const n = 20
	for i := range n {
		id := fmt.Sprintf("hooked-%d", i)
		_, err := b.ops.Start(b.ctx, id, bellhop.Provision, fmt.Appendf(nil, `{"tenant_id": "acme", "resource": %q,
			"provider": "simulated", "spec": {"image": "nginx:1.27"},
			"callbacks": [{"target": "orders"}, {"target": "hole", "deadline": "1s"}]}`, id))
		require.NoError(t, err)
	}
	for i := range n {
		id := fmt.Sprintf("hooked-%d", i)
		b.until(id+" is settled", func() bool {
			receipts := b.status(id).Callbacks
			return receipts[0].State.Settled() && receipts[1].State.Settled()
		})
		receipts := b.status(id).Callbacks
		require.Equal(t, bellhop.ReceiptAcknowledged, receipts[0].State)
		if unlucky(receipts[0].CallbackID) {
			require.Equal(t, 3, receipts[0].Attempts, "refused, taken with the answer lost, taken")
		} else {
			require.Equal(t, 1, receipts[0].Attempts)
		}
		require.Equal(t, bellhop.ReceiptUndeliverable, receipts[1].State, "nobody answers within the deadline")
		require.Less(t, receipts[0].AcknowledgedAt.Sub(receipts[0].FirstAttemptAt), soon)
	}
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, effects, n, "lost, or told of what is not")
	for id, body := range effects {
		var event struct{ Data bellhop.Outcome }
		require.NoError(t, json.Unmarshal([]byte(body), &event))
		require.Equal(t, id, event.Data.CallbackID)
		require.Equal(t, bellhop.Succeeded, event.Data.State)
		require.Equal(t, map[bool]int{true: 3, false: 1}[unlucky(id)], calls[id])
	}
	require.NotContains(t, worker.Output(), secret)
}

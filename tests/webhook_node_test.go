package tests

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"bellhop"
	"bellhop/tests/peers"
)

// TestWebhookIsVerifiedInAnotherLanguage has callbacks verified and read by the libraries that a receiver in Node would
// take, while the key is rotated: by one that knows the old key, one that knows the new, one that knows the public half of
// a third, and one that knows none of them.
func TestWebhookIsVerifiedInAnotherLanguage(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		peers.Missing(t, "Node.js is not installed")
	}
	libraries := filepath.Join(peers.Root(), ".tools", "bin", "webhook-libraries")
	if _, err := os.Stat(libraries); err != nil {
		peers.Missing(t, "a Node receiver's libraries are not installed; run: make tools")
	}
	b := setup(t)
	encode := base64.StdEncoding.EncodeToString
	older, newer := "whsec_"+encode([]byte("the older key, 32 bytes long ...")), "whsec_"+encode([]byte("the newer key, 32 bytes long ..."))
	stranger := "whsec_" + encode([]byte("a stranger's key, 32 bytes long."))
	private := ed25519.NewKeyFromSeed([]byte("a seed of ed25519 is 32 bytes..."))
	asymmetric := "whsk_" + encode(private)
	public, ok := private.Public().(ed25519.PublicKey)
	require.True(t, ok)

	address := make(chan string, 1)
	receiver, err := peers.Start(b.ctx, node, []string{
		filepath.Join(peers.Root(), "tests", "webhook", "receiver.cjs"),
		"/older=" + older, "/newer=" + newer, "/public=whpk_" + encode(public), "/stranger=" + stranger,
	}, []string{"NODE_PATH=" + filepath.Join(libraries, "node_modules")}, func(line string) bool {
		url, found := strings.CutPrefix(line, "listening ")
		if found {
			address <- url
		}
		return found
	})
	require.NoError(t, err)
	t.Cleanup(receiver.Kill)
	url := <-address

	file := filepath.Join(b.folder, "keys")
	sign := func(keys ...string) {
		// Renamed into place: a key file that is read at each attempt is never seen half written.
		require.NoError(t, os.WriteFile(file+".new", []byte(strings.Join(keys, "\n")), 0o600))
		require.NoError(t, os.Rename(file+".new", file))
	}
	sign(older)
	config := "targets:\n"
	var callbacks []string
	receivers := []string{"older", "newer", "public", "stranger"}
	for _, content := range []string{"structured", "binary"} {
		for _, name := range receivers {
			config += fmt.Sprintf("  %s-%s: {type: webhook, url: '%s/%s', key_file: %s, content: %s, allow: [127.0.0.0/8]}\n",
				name, content, url, name, file, content)
			callbacks = append(callbacks, fmt.Sprintf(`{"target": "%s-%s"}`, name, content))
		}
	}
	b.work(b.config(noBackstop, config))
	begin := func(id string) {
		_, err := b.ops.Start(b.ctx, id, bellhop.Provision, fmt.Appendf(nil, `{"tenant_id": "acme", "resource": %q,
			"provider": "simulated", "spec": {"image": "nginx:1.27"}, "metadata": {"who": "Zoë 📦"}, "callbacks": [%s]}`,
			id, strings.Join(callbacks, ", ")))
		require.NoError(t, err)
	}
	// expect waits for what each receiver made of an operation's callback; both contents are alike.
	expect := func(id string, want ...bellhop.ReceiptState) {
		t.Helper()
		b.until(fmt.Sprintf("%s is %s to %s", id, want, receivers), func() bool {
			for i, receipt := range b.status(id).Callbacks {
				if receipt.State != want[i%len(receivers)] {
					return false
				}
			}
			return true
		})
	}
	const yes, no = bellhop.ReceiptAcknowledged, bellhop.ReceiptBlocked

	begin("before")
	expect("before", yes, no, no, no)
	require.Contains(t, b.status("before").Callbacks[1].LastError, "401 Unauthorized: No matching signature found")
	sign(older, newer, asymmetric)
	begin("during")
	expect("during", yes, yes, yes, no)
	_, stderr, code := b.run("", "bellhop", "redeliver", "before")
	require.Zero(t, code, stderr)
	expect("before", yes, yes, yes, no)
	sign(newer, asymmetric)
	begin("after")
	expect("after", no, yes, yes, no)

	seen := map[string]int{}
	for line := range strings.Lines(receiver.Output()) {
		var call struct {
			Path      string `json:"path"`
			WebhookID string `json:"webhook_id"`
			Event     struct {
				ID, Source, Type, Subject, Time string
				SpecVersion                     string `json:"specversion"`
				Data                            bellhop.Outcome
			} `json:"event"`
		}
		if json.Unmarshal([]byte(line), &call) != nil {
			continue
		}
		event, outcome := call.Event, call.Event.Data
		seen[call.Path+" "+event.ID]++
		require.Equal(t, outcome.OperationID+"/succeeded", event.ID)
		require.Equal(t, event.ID, call.WebhookID)
		require.Equal(t, "/bellhop/tenants/acme", event.Source)
		require.Equal(t, "dev.bellhop.compute.provisioned.v1", event.Type)
		require.Equal(t, outcome.OperationID, event.Subject)
		require.Equal(t, "1.0", event.SpecVersion)
		require.NotEmpty(t, event.Time)
		require.Equal(t, "Zoë 📦", outcome.Metadata["who"])
	}
	require.Equal(t, map[string]int{ // twice: structured and binary
		"/older before/succeeded": 2, "/newer before/succeeded": 2, "/public before/succeeded": 2,
		"/older during/succeeded": 2, "/newer during/succeeded": 2, "/public during/succeeded": 2,
		"/newer after/succeeded": 2, "/public after/succeeded": 2,
	}, seen)
}

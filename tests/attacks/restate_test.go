package attacks

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/mr-tron/base58"

	"bellhop"
	"bellhop/tests/peers"
)

// restateAttacks come through Restate, whose service is for the rival alone.
func restateAttacks() []attack {
	return []attack{
		{name: "restate-status-of-the-victim", finding: "M5", reason: "another's status is read", run: restateReaches("Status")},
		{name: "restate-cancel-of-the-victim", finding: "M5", reason: "another's operation is cancelled", run: restateReaches("Cancel")},
		{name: "restate-start-for-the-victim", finding: "M5", reason: "the rival acts for the victim", run: restateStarts},
		{name: "restate-status-of-anything", finding: "L2", reason: "an update reaches a workflow that is no operation", run: restateRefreshes},
		{name: "restate-unsigned", finding: "M10", reason: "whoever reaches the address may do everything", run: restateUnsigned},
	}
}

// throughRestate starts Restate and a worker that serves it to some tenants, once each.
func (h *harness) throughRestate(name, tenantsOf string) *peers.Restate {
	h.Helper()
	h.registering.Lock()
	defer h.registering.Unlock()
	if h.restate == nil {
		h.restate = peers.RestateFor(h.stage.T)
	}
	r := h.restate
	h.mu.Lock()
	known := h.fleets[name] != nil
	h.mu.Unlock()
	if known {
		return r
	}
	address := peers.FreeAddress(h.T)
	h.fleet(name, fmt.Sprintf("targets: {restate: {type: restate, ingress: %q}}\nrestate: {listen: %q, target: restate%s}\n", r.Ingress, address, tenantsOf))
	h.must(r.Register(h.ctx, "http://"+address))
	return r
}

func (h *harness) restateCall(r *peers.Restate, handler, body string) answer {
	h.Helper()
	request, err := http.NewRequestWithContext(h.ctx, http.MethodPost, r.Ingress+"/Compute/"+handler, strings.NewReader(body))
	h.must(err)
	request.Header.Set("Content-Type", "application/json")
	got, err := http.DefaultClient.Do(request)
	h.must(err)
	defer got.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(got.Body)
	h.must(err)
	return answer{code: got.StatusCode, header: got.Header, body: text}
}

func restateReaches(handler string) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		r := h.throughRestate("restate-rival", ", tenants: [rival]")
		id := h.begin(`{"ready_after": "1h"}`, `"metadata": {"secret": "pearls-of-the-victim"}`)
		h.running(id)
		got := h.restateCall(r, handler, fmt.Sprintf(`{"operation_id": %q}`, id))
		none := h.restateCall(r, handler, `{"operation_id": "victim:nobody"}`)
		state := h.status(id).State
		differ := got.code != none.code || strings.ReplaceAll(string(got.body), id, "victim:nobody") != string(none.body)
		return got.code/100 == 2 || differ || strings.Contains(string(got.body), "pearls") || state != bellhop.Running,
			fmt.Sprintf("%s; one that does not exist: %s; the victim's operation is %s", got, none, state)
	}
}

func restateStarts(h *harness) (bool, string) {
	r := h.throughRestate("restate-rival", ", tenants: [rival]")
	id := h.id("victim")
	got := h.restateCall(r, "Start", order(id, "victim", `{}`, ""))
	_, err := h.client.DescribeWorkflowExecution(h.ctx, id, "")
	return got.code/100 == 2 || err == nil, got.String()
}

func restateRefreshes(h *harness) (bool, string) {
	r := h.throughRestate("restate-rival", ", tenants: [rival]")
	caller := h.caller("listens")
	got := h.restateCall(r, "Status", fmt.Sprintf(`{"operation_id": %q}`, caller))
	var refreshed int
	answer, err := h.client.QueryWorkflow(h.ctx, caller, "", "refreshed")
	h.must(err)
	h.must(answer.Get(&refreshed))
	return refreshed > 0, fmt.Sprintf("the caller's own update was called %d times: %s", refreshed, got)
}

// restateUnsigned speaks to the service as if it were Restate.
func restateUnsigned(h *harness) (bool, string) {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	h.must(err)
	address := peers.FreeAddress(h.T)
	h.work(h.fleetConfig("restate-signed") + fmt.Sprintf("targets: {restate: {type: restate, ingress: 'http://127.0.0.1:1'}}\n"+
		"restate: {listen: %q, target: restate, identity_keys: [publickeyv1_%s]}\n", address, base58.Encode(public)))
	client := &http.Client{Transport: &http.Transport{Protocols: unencrypted()}}
	for _, header := range []http.Header{
		{},
		{"X-Restate-Signature-Scheme": {"unsigned"}},
		{"X-Restate-Signature-Scheme": {"v1"}, "X-Restate-Jwt-V1": {"eyJhbGciOiJub25lIn0.e30."}},
	} {
		for _, path := range []string{"/discover", "/invoke/Compute/Status", "/health/../discover", "//discover"} {
			request, err := http.NewRequestWithContext(h.ctx, http.MethodGet, "http://"+address+path, http.NoBody)
			h.must(err)
			request.Header = header.Clone()
			request.Header.Set("Accept", "application/vnd.restate.endpointmanifest.v3+json")
			got, err := client.Do(request)
			h.must(err)
			h.must(got.Body.Close())
			if got.StatusCode/100 == 2 {
				return true, fmt.Sprintf("%s with %v is answered %s", path, header, got.Status)
			}
		}
	}
	return false, "nothing is answered"
}

// unencrypted is HTTP/2 without TLS, which Restate speaks.
func unencrypted() *http.Protocols {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	return &protocols
}

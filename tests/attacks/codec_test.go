package attacks

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"bellhop"
	"bellhop/tests/peers"
)

// codecAttacks read what is encrypted at the endpoint that decodes it for the operator.
func codecAttacks() []attack {
	return []attack{
		{name: "codec-with-the-rivals-token", finding: "encryption", reason: "the victim's input is read", run: decodes(func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer "+rival)
		})},
		{name: "codec-without-a-token", finding: "encryption", reason: "the victim's input is read", run: decodes(func(*http.Request) {})},
		{name: "codec-by-cookie-from-elsewhere", finding: "encryption", reason: "a page has the operator's browser decode", run: decodes(func(r *http.Request) {
			r.AddCookie(&http.Cookie{Name: "bellhop_codec", Value: operator})
			r.Header.Set("Origin", "https://evil.invalid")
		})},
		{name: "codec-by-cookie-without-origin", finding: "encryption", reason: "a page has the operator's browser decode", run: decodes(func(r *http.Request) {
			r.AddCookie(&http.Cookie{Name: "bellhop_codec", Value: operator})
		})},
		{name: "codec-read-by-another-page", finding: "encryption", reason: "a page reads what the operator's browser decoded", run: sharesWithPages},
		{name: "codec-session-of-the-rival", finding: "encryption", reason: "the victim's input is read", run: signsIn},
		{name: "payload-moved", finding: "encryption", reason: "what was written for one workflow is read in another", run: moves},
		{name: "stored-in-the-clear", finding: "encryption", reason: "whoever reads Temporal's database reads the tenants' secrets", run: storesPlain},
	}
}

const pearl = "pearls-of-the-victim-93ab"

// sealed is a worker that encrypts, and an operation of the victim's whose input Temporal has.
func (h *harness) sealed() (w *peers.Worker, ciphertext string) {
	h.Helper()
	file := filepath.Join(h.TempDir(), "keyset.json")
	said, code, _ := h.command("", "bellhop", "keyset", "create", file)
	if code != 0 {
		h.Skip("this bellhop knows no keysets: " + said)
	}
	config := strings.Replace(api(""), "  listen:", "  codec: {origins: ['https://ui.example.com']}\n  listen:", 1)
	w = h.work(h.fleetConfig("sealed-"+h.name) + "encryption: {keyset_file: " + file + "}\n" + config)
	id := h.id("victim")
	h.must(started(ask(h.ctx, w, victim, "POST", "/v1/operations", order(id, "victim", `{}`, `"metadata": {"secret": "`+pearl+`"}`))))
	h.until("it has ended", func() bool {
		return h.at(w, victim, "GET", "/v1/operations/"+id, "").status().State == bellhop.Succeeded
	})
	events := h.client.GetWorkflowHistory(h.ctx, id, "", false, 0)
	first, err := events.Next()
	h.must(err)
	text, err := protojson.Marshal(first.GetWorkflowExecutionStartedEventAttributes().GetInput())
	h.must(err)
	return w, string(text)
}

// decode asks a worker's codec endpoint.
func (h *harness) decode(w *peers.Worker, path, body string, with func(r *http.Request)) answer {
	h.Helper()
	request, err := http.NewRequestWithContext(h.ctx, http.MethodPost, "http://"+w.API+path, strings.NewReader(body))
	h.must(err)
	request.Header.Set("Content-Type", "application/json")
	with(request)
	got, err := http.DefaultClient.Do(request)
	h.must(err)
	defer got.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(got.Body)
	h.must(err)
	return answer{code: got.StatusCode, header: got.Header, body: text}
}

func asOperator(r *http.Request) { r.Header.Set("Authorization", "Bearer "+operator) }

// decoded says whether an answer has the victim's secret, of which payloads carry the base64.
func decoded(body []byte) bool {
	var payloads struct {
		Payloads []struct {
			Data []byte `json:"data"`
		} `json:"payloads"`
	}
	if json.Unmarshal(body, &payloads) != nil {
		return false
	}
	for _, payload := range payloads.Payloads {
		if strings.Contains(string(payload.Data), pearl) {
			return true
		}
	}
	return false
}

func decodes(with func(r *http.Request)) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		w, ciphertext := h.sealed()
		if got := h.decode(w, "/"+own+"/decode", ciphertext, asOperator); !decoded(got.body) {
			h.Fatalf("the operator is not served either: %s", got)
		}
		for _, path := range []string{"/" + own + "/decode", "/decode", "//decode", "/" + own + "/encode"} {
			if got := h.decode(w, path, ciphertext, with); got.code/100 == 2 {
				return true, fmt.Sprintf("%s: %s", path, got)
			}
		}
		return false, "it is refused: " + h.decode(w, "/"+own+"/decode", ciphertext, with).String()
	}
}

func sharesWithPages(h *harness) (bool, string) {
	w, ciphertext := h.sealed()
	for _, origin := range []string{"https://evil.invalid", "null", "https://ui.example.com.evil.invalid", "http://ui.example.com"} {
		got := h.decode(w, "/"+own+"/decode", ciphertext, func(r *http.Request) { asOperator(r); r.Header.Set("Origin", origin) })
		if allowed := got.header.Get("Access-Control-Allow-Origin"); allowed != "" {
			return true, fmt.Sprintf("of origin %s: %s", origin, allowed)
		}
	}
	return false, "no other origin may read it"
}

func signsIn(h *harness) (bool, string) {
	w, _ := h.sealed()
	form := url.Values{"token": {rival}}.Encode()
	got := h.decode(w, "/codec/session", form, func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") })
	return got.code/100 != 4 || got.header.Get("Set-Cookie") != "", cut(got.String(), 100)
}

// moves gives the victim's input, as it is stored, to a workflow of the rival's, as whoever may write to Temporal can.
func moves(h *harness) (bool, string) {
	w, ciphertext := h.sealed()
	var input commonpb.Payloads
	h.must(protojson.Unmarshal([]byte(ciphertext), &input))
	id := h.id("rival")
	_, err := h.client.WorkflowService().StartWorkflowExecution(h.ctx, &workflowservice.StartWorkflowExecutionRequest{
		Namespace: own, WorkflowId: id, WorkflowType: &commonpb.WorkflowType{Name: "ProvisionCompute"}, RequestId: id,
		TaskQueue: &taskqueuepb.TaskQueue{Name: "sealed-" + h.name}, Input: &input,
	})
	h.must(err)
	var got answer
	h.within(10*time.Second, func() bool {
		got = h.at(w, operator, "GET", "/v1/operations/"+id, "")
		return got.status().State.Terminal()
	})
	h.forget(id)
	return strings.Contains(string(got.body), pearl), cut(got.String(), 250)
}

// storesPlain looks for the victim's secret in what Temporal has of its operation.
func storesPlain(h *harness) (bool, string) {
	_, ciphertext := h.sealed()
	answer, err := h.client.ListWorkflow(h.ctx, listing(`BellhopTenant = 'victim' AND TaskQueue = 'sealed-`+h.name+`'`))
	h.must(err)
	h.until("it is listed", func() bool {
		answer, err = h.client.ListWorkflow(h.ctx, listing(`BellhopTenant = 'victim' AND TaskQueue = 'sealed-`+h.name+`'`))
		return err == nil && len(answer.GetExecutions()) > 0
	})
	for _, info := range answer.GetExecutions() {
		events := h.client.GetWorkflowHistory(h.ctx, info.GetExecution().GetWorkflowId(), "", false, 0)
		for events.HasNext() {
			event, err := events.Next()
			h.must(err)
			if text := event.String(); strings.Contains(text, pearl) || strings.Contains(text, "nginx:1.27") {
				return true, cut(text, 200)
			}
		}
	}
	return decoded([]byte(ciphertext)), "its history shows neither the metadata nor the image"
}

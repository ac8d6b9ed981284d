package attacks

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/nexus-rpc/sdk-go/nexus"
	nexuspb "go.temporal.io/api/nexus/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"bellhop"
	"bellhop/bridge/temporal/compute"
)

// doorAttacks go through bellhop's own ways in: the HTTP API, Nexus, Step Functions.
func doorAttacks() []attack {
	list := []attack{
		{name: "http-status", finding: "M5", reason: "another's status is read", run: reaches("GET", "/v1/operations/%s")},
		{name: "http-wait", finding: "M5", reason: "another's status is read", run: reaches("GET", "/v1/operations/%s?wait=1s&refresh=false")},
		{name: "http-cancel", finding: "M5", reason: "another's operation is cancelled", run: reaches("POST", "/v1/operations/%s/cancel")},
		{name: "http-redeliver", finding: "M5", reason: "another's callers are rung", run: reaches("POST", "/v1/operations/%s/redeliver")},
		{name: "http-path-encoded", finding: "M5", reason: "another's status is read", run: reaches("GET", "/v1/operations/rival:x%%2F..%%2F%s")},
		{name: "http-path-dots", finding: "M5", reason: "another's status is read", run: reaches("GET", "/v1/operations/rival:x/../%s")},
		{name: "http-path-double-slash", finding: "M5", reason: "another's status is read", run: reaches("GET", "//v1/operations/%s")},
		{name: "http-path-newline", finding: "M5", reason: "another's status is read", run: reaches("GET", "/v1/operations/%s%%0A")},
		{name: "http-path-nul", finding: "M5", reason: "another's status is read", run: reaches("GET", "/v1/operations/%s%%00rival")},
		{name: "http-path-semicolon", finding: "M5", reason: "another's status is read", run: reaches("GET", "/v1/operations/%s;tenant=rival")},
		{name: "http-head", finding: "M5", reason: "another's status is read", run: reaches("HEAD", "/v1/operations/%s")},
		{name: "http-tokens-mixed", finding: "M5", reason: "another's status is read", run: mixedTokens},
		{name: "list-all", finding: "M5", reason: "another's operations are listed", run: lists("")},
		{name: "list-tenant", finding: "M5", reason: "another's operations are listed", run: lists("?tenant=victim")},
		{name: "list-two-tenants", finding: "M5", reason: "another's operations are listed", run: lists("?tenant=rival&tenant=victim")},
		{name: "list-injected-resource", finding: "M5", reason: "another's operations are listed", run: lists("?resource=" + url.QueryEscape(`x' OR BellhopTenant = 'victim`))},
		{name: "list-injected-backslash", finding: "M5", reason: "another's operations are listed", run: lists("?resource=" + url.QueryEscape(`x\`) + "&provider=" + url.QueryEscape(` OR 1 = 1 --`))},
		{name: "list-injected-state", finding: "M5", reason: "another's operations are listed", run: lists("?state=" + url.QueryEscape(`running') OR ('1'='1`))},
		{name: "list-injected-unicode", finding: "M5", reason: "another's operations are listed", run: lists("?resource=" + url.QueryEscape("xʼ OR BellhopTenant = ʼvictim"))},
		{name: "list-anothers-page", finding: "M5", reason: "another's operations are listed", run: anothersPage(victim)},
		{name: "list-operators-page", finding: "M5", reason: "another's operations are listed", run: anothersPage(operator)},
		{name: "list-forged-page", finding: "M5", reason: "another's operations are listed", run: forgedPage},

		{name: "id-squatted", finding: "M5", reason: "the victim cannot use an id of its own", run: squats},
		{name: "id-squatted-by-caller", finding: "M5", reason: "a caller's own workflow cannot start under its id", run: squatsCaller},
		{name: "id-tells-existence", finding: "M5", reason: "a conflict tells that another tenant's operation exists", run: conflictTells},
		{name: "id-newline", finding: "M5", reason: "an id passes for another's", run: oddID("victim:%s\n")},
		{name: "id-leading-space", finding: "M5", reason: "an id passes for another's", run: oddID(" victim:%s")},
		{name: "id-fullwidth", finding: "M5", reason: "an id passes for another's", run: oddID("victim\uff1a%s")},
		{name: "id-kelvin", finding: "M5", reason: "an id passes for another's", run: oddID("victi\u217f:%s")},
		{name: "id-other-case", finding: "M5", reason: "an id passes for another's", run: oddID("VICTIM:%s")},
		{name: "id-of-a-watch", finding: "C1", reason: "the watch of a provider is kept from starting", run: oddID("bellhop-watch/%s")},
		{name: "id-of-a-redelivery", finding: "C1", reason: "a redelivery is kept from starting", run: oddID("bellhop-redeliver/victim:%s/deliver-0-succeeded")},
		{name: "tenant-twice", finding: "M5", reason: "the rival acts for the victim", run: actsFor(`"tenant_id": "rival"`, `"tenant_id": "rival", "tenant_id": "victim"`)},
		{name: "tenant-twice-reversed", finding: "M5", reason: "the rival acts for the victim", run: actsFor(`"tenant_id": "rival"`, `"tenant_id": "victim", "tenant_id": "rival"`)},
		{name: "tenant-other-case", finding: "M5", reason: "the rival acts for the victim", run: actsFor(`"tenant_id": "rival"`, `"tenant_id": "rival", "Tenant_ID": "victim"`)},
		{name: "tenant-plain", finding: "M5", reason: "the rival acts for the victim", run: actsFor(`"tenant_id": "rival"`, `"tenant_id": "victim"`)},
		{name: "tenant-nul", finding: "M5", reason: "the rival acts for the victim", run: actsFor(`"tenant_id": "rival"`, `"tenant_id": "victim\u0000"`)},
		{name: "tenant-list", finding: "M5", reason: "the rival acts for the victim", run: actsFor(`"tenant_id": "rival"`, `"tenant_id": ["rival", "victim"]`)},
		{name: "generation-of-the-future", finding: "S3", reason: "an operation outranks all later ones on its resource", run: fromTheFuture},
		{name: "target-of-the-victim", finding: "M5", reason: "the victim's caller gets the rival's outcome", run: namesVictimsTarget},
		{name: "target-of-the-victim-workflow", finding: "M5", reason: "the victim's caller gets the rival's outcome", run: namesVictimsTargetDirectly},

		{name: "nexus-status-of-anything", finding: "L2", reason: "an update reaches a workflow that is no operation", run: nexusRefreshes},
		{name: "nexus-status-of-the-victim", finding: "S2", reason: "another's status is read", run: nexusReaches("Status")},
		{name: "nexus-cancel-of-the-victim", finding: "S2", reason: "another's operation is cancelled", run: nexusReaches("Cancel")},
		{name: "nexus-start-for-the-victim", finding: "M5", reason: "the rival acts for the victim", run: nexusStarts},
		{name: "nexus-cancel-made-up-token", finding: "S2", reason: "another's operation is cancelled", run: nexusCancels("Provision")},
		{name: "nexus-cancel-made-up-token-of-start", finding: "S2", reason: "another's operation is cancelled", run: nexusCancels("Start")},
		{name: "nexus-cancel-of-a-caller", finding: "S2", reason: "a workflow that is no operation is cancelled", run: nexusCancelsCaller},
		{name: "stepfunctions-for-the-victim", finding: "M5", reason: "the rival acts for the victim", run: stepFunctionsActs},

		{name: "log-injection-path", finding: "", reason: "the operator's log lies", run: injectsLog},
		{name: "log-injection-operation", finding: "", reason: "the operator's log lies", run: injectsLogByOperation},
		{name: "terminal-escapes", finding: "", reason: "the operator's terminal is the rival's", run: escapesTerminal},
		{name: "markdown-in-the-ui", finding: "", reason: "Temporal's UI loads what the rival wants", run: injectsMarkdown},
		{name: "webhook-redirect", finding: "", reason: "bellhop calls what a redirect names", run: redirects},
		{name: "answers-cached", finding: "", reason: "a shared cache hands the victim's status out", run: cached},
		{name: "body-gzip", finding: "C2", reason: "a small body becomes a large one", run: gzipped},
		{name: "body-endless", finding: "C2", reason: "a body without an end is read", run: endless},
		{name: "body-slow", finding: "M8", reason: "slow requests keep others out", run: slowloris(false), alone: true},
		{name: "head-slow", finding: "M8", reason: "slow requests keep others out", run: slowloris(true), alone: true},
		{name: "header-huge", finding: "C2", reason: "a header fills the memory", run: hugeHeader},
	}
	return list
}

// reaches asks for an operation of the victim with the rival's token and compares the answer with the one for an
// operation that does not exist.
func reaches(method, path string) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		id := h.begin(`{"ready_after": "1h"}`, `"metadata": {"secret": "pearls-of-the-victim"}`)
		h.running(id)
		none := h.id("victim")
		there, missing := h.as(rival, method, fmt.Sprintf(path, id), ""), h.as(rival, method, fmt.Sprintf(path, none), "")
		how := fmt.Sprintf("%s; one that does not exist: %s", there, missing)
		switch {
		case strings.Contains(string(there.body), "pearls"):
			return true, "the victim's status is read: " + how
		case there.code/100 == 2:
			return true, "it is answered: " + how
		case there.code != missing.code || strings.ReplaceAll(string(there.body), id, none) != string(missing.body):
			return true, "the answers differ: " + how
		case h.status(id).State != bellhop.Running:
			return true, "the victim's operation does not run any more: " + how
		}
		return false, how
	}
}

// mixedTokens sends several tokens, and the victim's name in every place that might be believed.
func mixedTokens(h *harness) (bool, string) {
	id := h.begin(`{"ready_after": "1h"}`, "")
	h.running(id)
	for _, headers := range []http.Header{
		{"Authorization": {"Bearer " + rival, "Bearer victim"}},
		{"Authorization": {"Bearer " + rival + ", Bearer " + strings.Repeat("0", len(victim))}},
		{"Authorization": {"Bearer " + hash(victim)}},
		{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("victim:"+rival))}},
		{"Authorization": {"Bearer " + rival}, "X-Tenant": {"victim"}, "X-Tenant-Id": {"victim"}, "X-Forwarded-For": {"127.0.0.1"}, "X-Http-Method-Override": {"POST"}},
		{"Authorization": {"Bearer " + rival}, "X-Original-Url": {"/v1/operations/" + id}, "Cookie": {"Authorization=Bearer"}},
		{},
	} {
		request, err := http.NewRequestWithContext(h.ctx, http.MethodGet, "http://"+h.worker.API+"/v1/operations/"+id, http.NoBody)
		h.must(err)
		request.Header = headers
		got, err := http.DefaultClient.Do(request)
		h.must(err)
		h.must(got.Body.Close())
		if got.StatusCode == http.StatusOK {
			return true, fmt.Sprintf("answered with %v", headers)
		}
	}
	return false, "none is answered"
}

// lists looks for the victim's operations in a list that the rival asks for.
func lists(query string) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		id := h.begin(`{}`, "")
		h.ended(id)
		h.listed(id)
		got := h.as(rival, "GET", "/v1/operations"+query, "")
		return strings.Contains(string(got.body), `"tenant_id":"victim"`), got.String()
	}
}

// listed waits until search knows an operation of the victim.
func (h *harness) listed(id string) {
	h.Helper()
	h.until("it is listed", func() bool {
		_, resource, _ := strings.Cut(id, ":")
		return strings.Contains(string(h.as(victim, "GET", "/v1/operations?resource="+cut63(resource), "").body), id)
	})
}

// pageOf is the token of the second page of what a caller lists.
func (h *harness) pageOf(token string) string {
	h.Helper()
	for range 2 {
		h.listed(h.begin(`{}`, ""))
	}
	var page struct {
		NextPageToken string `json:"next_page_token"`
	}
	h.until("there is a second page", func() bool {
		h.must(json.Unmarshal(h.as(token, "GET", "/v1/operations?page_size=1", "").body, &page))
		return page.NextPageToken != ""
	})
	return page.NextPageToken
}

func anothersPage(token string) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		got := h.as(rival, "GET", "/v1/operations?page_size=1&page_token="+url.QueryEscape(h.pageOf(token)), "")
		return strings.Contains(string(got.body), `"tenant_id":"victim"`), got.String()
	}
}

// forgedPage puts what Temporal keeps in another's page into a page of the rival's own.
func forgedPage(h *harness) (bool, string) {
	page := h.pageOf(victim)
	for i := range 2 {
		h.strike(fmt.Sprintf(`{"ready_after": "%ds"}`, i+1), callback("temporal", `{"workflow_id": "nobody"}`, ""))
	}
	mine := ""
	h.until("the rival's list has a second page", func() bool {
		var page struct {
			NextPageToken string `json:"next_page_token"`
		}
		h.must(json.Unmarshal(h.as(rival, "GET", "/v1/operations?page_size=1", "").body, &page))
		mine = page.NextPageToken
		return mine != ""
	})
	for _, split := range []int{8, 16, 24, 32, 43, 44} { // however long the seal is
		if split >= min(len(mine), len(page)) {
			continue
		}
		for _, forged := range []string{mine[:split] + page[split:], page[:split] + mine[split:]} {
			got := h.as(rival, "GET", "/v1/operations?page_size=1&page_token="+url.QueryEscape(forged), "")
			if strings.Contains(string(got.body), `"tenant_id":"victim"`) {
				return true, got.String()
			}
		}
	}
	return false, "no mixture shows anything of the victim"
}

// squats takes an id that is the victim's by its name.
func squats(h *harness) (bool, string) {
	id := h.id("victim")
	taken := h.as(rival, "POST", "/v1/operations", order(id, "rival", `{"ready_after": "1h"}`, ""))
	got := h.as(victim, "POST", "/v1/operations", order(id, "victim", `{}`, ""))
	if got.code != http.StatusAccepted {
		return true, fmt.Sprintf("the victim is answered %s", got)
	}
	status := h.ended(id)
	return status.TenantID != "victim" || status.State != bellhop.Succeeded, fmt.Sprintf("the rival: %s; the victim: %s", cut(taken.String(), 200), status.State)
}

func squatsCaller(h *harness) (bool, string) {
	id := "order-" + h.name
	taken := h.as(rival, "POST", "/v1/operations", order(id, "rival", `{"ready_after": "1h"}`, ""))
	_, err := h.client.ExecuteWorkflow(h.ctx, client.StartWorkflowOptions{ID: id, TaskQueue: "callers", WorkflowExecutionErrorWhenAlreadyStarted: true}, "waits")
	return err != nil, fmt.Sprintf("the caller's workflow: %v; the rival: %s", err, cut(taken.String(), 200))
}

// conflictTells compares how a taken and a free id of the victim are refused.
func conflictTells(h *harness) (bool, string) {
	taken, free := h.begin(`{}`, ""), h.id("victim")
	one := h.as(rival, "POST", "/v1/operations", order(taken, "rival", `{}`, ""))
	other := h.as(rival, "POST", "/v1/operations", order(free, "rival", `{}`, ""))
	said := func(a answer, id string) string {
		return fmt.Sprintf("%d %s", a.code, strings.ReplaceAll(string(a.body), id, "ID"))
	}
	return said(one, taken) != said(other, free), fmt.Sprintf("taken: %s; free: %s", cut(one.String(), 160), cut(other.String(), 160))
}

// oddID asks for an id that looks like one of the victim's, or is one of bellhop's own.
func oddID(form string) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		id := fmt.Sprintf(form, h.name)
		text, err := json.Marshal(id)
		h.must(err)
		got := h.as(rival, "POST", "/v1/operations", fields("x", "rival", map[string]string{"operation_id": string(text)}))
		return got.code/100 == 2, got.String()
	}
}

// actsFor has the rival's operation name the victim as its tenant.
func actsFor(before, after string) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		id := h.id("rival")
		got := h.as(rival, "POST", "/v1/operations", strings.Replace(order(id, "rival", `{}`, ""), before, after, 1))
		if got.code/100 == 2 {
			return true, got.String()
		}
		return false, got.String()
	}
}

func fromTheFuture(h *harness) (bool, string) {
	id := h.id("rival")
	got := h.as(rival, "POST", "/v1/operations", order(id, "rival", `{}`, `"requested_at": "2099-01-01T00:00:00Z"`))
	return got.code/100 == 2, got.String()
}

// namesVictimsTarget calls the victim's caller back by a target that is the victim's.
func namesVictimsTarget(h *harness) (bool, string) { return namesTarget(h, false) }

// namesVictimsTargetDirectly does so as a workflow, which no way in has checked.
func namesVictimsTargetDirectly(h *harness) (bool, string) { return namesTarget(h, true) }

func namesTarget(h *harness, directly bool) (bool, string) {
	there := h.dial(victims)
	caller := "caller-" + h.name
	_, err := there.ExecuteWorkflow(h.ctx, client.StartWorkflowOptions{ID: caller, TaskQueue: "callers"}, "listens")
	h.must(err)
	back := callback("victims", fmt.Sprintf(`{"workflow_id": %q}`, caller), "")
	var told string
	if directly {
		id := h.id("rival")
		_, err := h.client.ExecuteWorkflow(h.ctx, client.StartWorkflowOptions{ID: id, TaskQueue: "bellhop"}, "ProvisionCompute",
			rawOrder(order(id, "rival", `{}`, `"timeout": "5s", "callbacks": [`+back+`]`)))
		h.must(err)
		told = fmt.Sprint(h.ended(id).Error)
		h.within(notice, func() bool { return h.status(id).Callbacks[0].State.Settled() })
	} else {
		told = h.strike(`{}`, back)
	}
	var got []string
	answer, err := there.QueryWorkflow(h.ctx, caller, "", "got")
	h.must(err)
	h.must(answer.Get(&got))
	return len(got) > 0, fmt.Sprintf("the victim's caller got %d; the rival was told: %s", len(got), told)
}

// Nexus. Two fleets serve it: one for the rival alone, one for all tenants.

// nexusEndpoint is an endpoint that leads to a fleet, made when it is first needed.
func (h *harness) nexusEndpoint(fleet, config string) string {
	h.Helper()
	h.fleet(fleet, config)
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := h.client.OperatorService().CreateNexusEndpoint(h.ctx, &operatorservice.CreateNexusEndpointRequest{Spec: &nexuspb.EndpointSpec{
		Name:   "e-" + fleet,
		Target: &nexuspb.EndpointTarget{Variant: &nexuspb.EndpointTarget_Worker_{Worker: &nexuspb.EndpointTarget_Worker{Namespace: own, TaskQueue: fleet}}},
	}})
	if err != nil && !strings.Contains(err.Error(), "already") {
		h.must(err)
	}
	return fleet
}

// nexusCall calls a fleet's Nexus service at the frontend's HTTP, as whoever can reach it does.
func (h *harness) nexusCall(queue, operation, suffix, body string, header http.Header) answer {
	h.Helper()
	var got answer
	for _, port := range h.frontendPorts() {
		where := fmt.Sprintf("http://127.0.0.1:%d/namespaces/%s/task-queues/%s/nexus-services/%s/%s%s", port, own, queue, compute.Service, operation, suffix)
		request, err := http.NewRequestWithContext(h.ctx, http.MethodPost, where, strings.NewReader(body))
		h.must(err)
		request.Header = header
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			continue
		}
		text, err := io.ReadAll(response.Body)
		_ = response.Body.Close() //nolint:errcheck // it was only read
		if err == nil {
			got = answer{code: response.StatusCode, header: response.Header, body: text}
			break
		}
	}
	if got.code == 0 {
		h.Skip("the frontend's HTTP port was not found")
	}
	return got
}

// frontendPorts are the ports at which the Temporal server listens; one of them speaks HTTP.
func (h *harness) frontendPorts() []int {
	h.Helper()
	inodes := map[string]bool{}
	folder := fmt.Sprintf("/proc/%d/fd", h.server.PID())
	entries, err := os.ReadDir(folder)
	if err != nil {
		h.Skip("what the server listens at is found on Linux only")
	}
	for _, entry := range entries {
		link, err := os.Readlink(filepath.Join(folder, entry.Name()))
		if err == nil && strings.HasPrefix(link, "socket:[") {
			inodes[strings.TrimSuffix(strings.TrimPrefix(link, "socket:["), "]")] = true
		}
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", h.server.PID()))
	h.must(err)
	var ports []int
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) > 9 && f[3] == "0A" && inodes[f[9]] {
			var port int
			_, _ = fmt.Sscanf(f[1][strings.Index(f[1], ":")+1:], "%X", &port) //nolint:errcheck // the kernel writes numbers
			ports = append(ports, port)
		}
	}
	return ports
}

const (
	nexusForRival = "nexus: {tenants: [rival]}\n"
	nexusForAll   = "nexus: {}\n"
)

func jsonHeader() http.Header { return http.Header{"Content-Type": {"application/json"}} }

func nexusReaches(operation string) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		queue := h.nexusEndpoint("nexus-rival", nexusForRival)
		id := h.begin(`{"ready_after": "1h"}`, `"metadata": {"secret": "pearls-of-the-victim"}`)
		h.running(id)
		got := h.nexusCall(queue, operation, "", fmt.Sprintf(`{"operation_id": %q}`, id), jsonHeader())
		none := h.nexusCall(queue, operation, "", `{"operation_id": "victim:nobody"}`, jsonHeader())
		state := h.status(id).State
		how := fmt.Sprintf("%s; one that does not exist: %s; the victim's operation is %s", got, none, state)
		return got.code/100 == 2 || got.code != none.code || strings.Contains(string(got.body), "pearls") || state != bellhop.Running, how
	}
}

func nexusStarts(h *harness) (bool, string) {
	queue := h.nexusEndpoint("nexus-rival", nexusForRival)
	id := h.id("victim")
	got := h.nexusCall(queue, "Start", "", order(id, "victim", `{}`, ""), jsonHeader())
	return got.code/100 == 2, got.String()
}

// nexusCancels cancels the victim's operation by a token that the rival made itself.
func nexusCancels(operation string) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		queue := h.nexusEndpoint("nexus-rival", nexusForRival)
		id := h.begin(`{"ready_after": "1h"}`, "")
		h.running(id)
		said := h.nexusCancel(queue, operation, id)
		if h.within(2*notice, func() bool { return h.status(id).State != bellhop.Running }) {
			return true, fmt.Sprintf("the victim's operation is %s: %s", h.status(id).State, said)
		}
		return false, "the victim's operation runs: " + said
	}
}

func (h *harness) nexusCancel(queue, operation, workflowID string) string {
	h.Helper()
	token := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"t":1,"ns":%q,"wid":%q}`, own, workflowID))
	header := http.Header{nexus.HeaderOperationToken: {token}}
	return h.nexusCall(queue, operation, "/cancel", "", header).String()
}

func nexusCancelsCaller(h *harness) (bool, string) {
	queue := h.nexusEndpoint("nexus-open", nexusForAll)
	caller := h.caller("listens")
	said := h.nexusCancel(queue, "Provision", caller)
	cancelled := func() bool { _, info := h.describe(caller); return info.GetCloseTime() != nil }
	return h.within(2*notice, cancelled), said
}

// nexusRefreshes asks for the status of a workflow that is none of bellhop's.
func nexusRefreshes(h *harness) (bool, string) {
	queue := h.nexusEndpoint("nexus-open", nexusForAll)
	caller := h.caller("listens")
	got := h.nexusCall(queue, "Status", "", fmt.Sprintf(`{"operation_id": %q}`, caller), jsonHeader())
	var refreshed int
	answer, err := h.client.QueryWorkflow(h.ctx, caller, "", "refreshed")
	h.must(err)
	h.must(answer.Get(&refreshed))
	return refreshed > 0, fmt.Sprintf("the caller's own update was called %d times: %s", refreshed, got)
}

// stepFunctionsActs has a task of an activity that is bound to the rival name the victim.
func stepFunctionsActs(h *harness) (bool, string) {
	var mu sync.Mutex
	var answered []string
	given := false
	id := h.id("victim")
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		_, action, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		mu.Lock()
		defer mu.Unlock()
		switch {
		case action == "GetActivityTask" && !given:
			given = true
			_ = json.NewEncoder(w).Encode(map[string]string{"taskToken": "token-of-a-task", "input": order(id, "victim", `{}`, "")}) //nolint:errcheck,errchkjson // the worker hung up
		case action == "GetActivityTask":
			time.Sleep(50 * time.Millisecond)
			_, _ = io.WriteString(w, "{}") //nolint:errcheck // as above
		default:
			answered = append(answered, action+" "+string(body))
			_, _ = io.WriteString(w, "{}") //nolint:errcheck // as above
		}
	}))
	h.Cleanup(engine.Close)
	h.fleet("machines", fmt.Sprintf("targets:\n  machines: {type: stepfunctions, region: eu-central-1, endpoint: %q}\nstep_functions_activities:\n"+
		"- {arn: 'arn:aws:states:eu-central-1:000000000000:activity:a', target: machines, tenant: rival}\ndrain: 0s\n", engine.URL),
		"AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_CONFIG_FILE="+os.DevNull, "AWS_SHARED_CREDENTIALS_FILE="+os.DevNull)
	h.within(10*time.Second, func() bool { mu.Lock(); defer mu.Unlock(); return len(answered) > 0 })
	_, err := h.client.WorkflowService().DescribeWorkflowExecution(h.ctx, &workflowservice.DescribeWorkflowExecutionRequest{Namespace: own, Execution: execution(id)})
	mu.Lock()
	defer mu.Unlock()
	return err == nil, fmt.Sprintf("the task was answered %s", cut(strings.Join(answered, "; "), 300))
}

// What people read.

// forgedLine is what the rival would have the log say.
const forgedLine = "level=ERROR msg=\"the victim's token leaked\""

func injectsLog(h *harness) (bool, string) {
	for _, path := range []string{
		"/v1/operations/x%0Atime=2026 " + forgedLine, "/v1/operations/x%0D%0A" + forgedLine, "/v1/operations?x%0A" + forgedLine + "=1", "/%0A" + forgedLine,
	} {
		path = strings.NewReplacer(" ", "%20", `"`, "%22").Replace(path)
		h.as(rival, "GET", path, "")
	}
	return forgedIn(h.worker.Output())
}

func forgedIn(output string) (bool, string) {
	for line := range strings.SplitSeq(output, "\n") {
		if strings.HasPrefix(line, "level=ERROR") || strings.Contains(line, " "+forgedLine) && !strings.Contains(line, `\n`) {
			return true, "the log has the line: " + cut(line, 200)
		}
		if strings.ContainsRune(line, '\x1b') {
			return true, "the log has a terminal's escape"
		}
	}
	return false, "no line of the log is the rival's"
}

// evil is a text that acts where it is not escaped.
const evil = `\u001b]0;owned\u0007\u001b[2J\ntime=2026-11-29 ` + "level=ERROR msg=\\\"the victim's token leaked\\\"" + `\n![x](http://evil.invalid/x.png)<img src=x onerror=alert(1)>`

// evilOperation fails with a message, metadata and an image that act where they are not escaped.
func (h *harness) evilOperation() string {
	h.Helper()
	id := h.id("rival")
	got := h.as(rival, "POST", "/v1/operations", order(id, "rival", `{"fail": {"code": "CONTAINER_EXITED", "message": "`+evil+`"}}`, `"metadata": {"`+evil+`": "`+evil+`"}`))
	if got.code != http.StatusAccepted {
		return ""
	}
	h.ended(id)
	return id
}

func injectsLogByOperation(h *harness) (bool, string) {
	h.evilOperation()
	return forgedIn(h.worker.Output())
}

func escapesTerminal(h *harness) (bool, string) {
	id := h.evilOperation()
	if id == "" {
		return false, "it is refused"
	}
	for _, args := range [][]string{{"status", id}, {"list"}, {"wait", id}, {"status", id, "--watch"}} {
		said, _, _ := h.command("", "bellhop", args...)
		if strings.ContainsAny(said, "\x1b\x07") {
			return true, fmt.Sprintf("bellhop %s prints a terminal's escape: %q", args[0], cut(said, 200))
		}
		if strings.Contains(said, "\ntime=2026") {
			return true, fmt.Sprintf("bellhop %s prints a line of the rival's: %q", args[0], cut(said, 300))
		}
	}
	return false, "what it prints has neither an escape nor a line of the rival's"
}

// injectsMarkdown looks at what Temporal's UI renders as Markdown.
func injectsMarkdown(h *harness) (bool, string) {
	id := h.evilOperation()
	if id == "" {
		return false, "it is refused"
	}
	answer, err := h.client.QueryWorkflow(h.ctx, id, "", "__temporal_workflow_metadata")
	h.must(err)
	var metadata struct {
		CurrentDetails string `json:"currentDetails"`
	}
	var raw converter.RawValue
	h.must(answer.Get(&raw))
	h.must(json.Unmarshal(raw.Payload().GetData(), &metadata))
	// What stands in a code span is shown as it is.
	acting := regexp.MustCompile("`[^`]*`").ReplaceAllString(metadata.CurrentDetails, "")
	rendered := strings.Contains(acting, "![x](http") || strings.Contains(acting, "<img") || strings.ContainsRune(metadata.CurrentDetails, '\x1b')
	return rendered, fmt.Sprintf("%q", cut(metadata.CurrentDetails, 300))
}

// redirects has a receiver answer with a redirect to a place that is not allowed.
func redirects(h *harness) (bool, string) {
	inside := false
	internal := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inside = true }))
	h.Cleanup(internal.Close)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, internal.URL+"/latest/meta-data", http.StatusTemporaryRedirect)
	}))
	h.Cleanup(receiver.Close)
	w := h.fleet("redirect", fmt.Sprintf("targets:\n  hook: {type: webhook, url: %q, key_file: %s, allow: [127.0.0.0/8]}\n", receiver.URL, h.keys)+api(""))
	id := h.id("rival")
	h.at(w, rival, "POST", "/v1/operations", order(id, "rival", `{}`, `"callbacks": [{"target": "hook", "deadline": "4s"}]`))
	var status bellhop.Status
	h.until("the callback was tried", func() bool {
		status = h.at(w, operator, "GET", "/v1/operations/"+id, "").status()
		return len(status.Callbacks) == 1 && status.Callbacks[0].LastError != ""
	})
	return inside, status.Callbacks[0].LastError
}

func cached(h *harness) (bool, string) {
	id := h.begin(`{}`, "")
	got := h.as(victim, "GET", "/v1/operations/"+id, "").header.Get("Cache-Control")
	return !strings.Contains(got, "no-store"), "Cache-Control: " + got
}

// How requests arrive.

// raw sends a request to the API as it is.
func (h *harness) raw(text string) (string, error) {
	conn, err := net.DialTimeout("tcp", h.worker.API, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close() //nolint:errcheck // it is done with
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(conn, text) //nolint:errcheck // the server may have answered before it read all
	answer := make([]byte, 4096)
	n, err := conn.Read(answer)
	return string(answer[:n]), err
}

func gzipped(h *harness) (bool, string) {
	small := "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" // what follows would not matter
	request := fmt.Sprintf("POST /v1/operations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", rival, len(small), small)
	got, err := h.raw(request)
	return !strings.HasPrefix(got, "HTTP/1.1 4"), fmt.Sprintf("%v %s", err, cut(got, 200))
}

// endless sends a chunked body of 8 MiB, of which no more may be read than an operation may have.
func endless(h *harness) (bool, string) {
	var b strings.Builder
	fmt.Fprintf(&b, "POST /v1/operations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nTransfer-Encoding: chunked\r\n\r\n", rival)
	for range 128 {
		fmt.Fprintf(&b, "%x\r\n%s\r\n", 65536, strings.Repeat(" ", 65536))
	}
	b.WriteString("0\r\n\r\n")
	got, err := h.raw(b.String())
	return err == nil && !strings.HasPrefix(got, "HTTP/1.1 413"), fmt.Sprintf("%v %s", err, cut(got, 200))
}

func hugeHeader(h *harness) (bool, string) {
	got, err := h.raw(fmt.Sprintf("GET /v1/operations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nX-Filler: %s\r\n\r\n", rival, strings.Repeat("x", 1<<20)))
	return err == nil && strings.HasPrefix(got, "HTTP/1.1 2"), fmt.Sprintf("%v %s", err, cut(got, 120))
}

// slowloris opens many connections whose requests never end, and asks as the victim beside them.
func slowloris(head bool) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		id := h.begin(`{}`, "")
		h.ended(id)
		var conns []net.Conn
		defer func() {
			for _, conn := range conns {
				_ = conn.Close() //nolint:errcheck // it is done with
			}
		}()
		for range 500 {
			conn, err := net.DialTimeout("tcp", h.worker.API, 5*time.Second)
			if err != nil {
				break
			}
			conns = append(conns, conn)
			text := "GET /v1/operations HTTP/1.1\r\nHost: x\r\nX: "
			if !head {
				text = fmt.Sprintf("POST /v1/operations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 1000\r\n\r\n{", rival)
			}
			_, _ = io.WriteString(conn, text) //nolint:errcheck // it may be closed already
		}
		worst := time.Duration(0)
		for range 5 {
			got := h.as(victim, "GET", "/v1/operations/"+id, "")
			if got.code != http.StatusOK {
				return true, fmt.Sprintf("beside %d slow requests the victim is answered %s", len(conns), got)
			}
			worst = max(worst, got.took)
		}
		// Those that are never finished are ended by the server.
		ended := h.within(40*time.Second, func() bool {
			_ = conns[0].SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			_, err := conns[0].Read(make([]byte, 4096))
			timeout, ok := err.(net.Error) //nolint:errorlint // net returns it as it is
			return err != nil && (!ok || !timeout.Timeout())
		})
		return worst > 5*time.Second || !ended, fmt.Sprintf("beside %d slow requests the victim waits %s at most; they are ended: %t", len(conns), worst.Round(time.Millisecond), ended)
	}
}

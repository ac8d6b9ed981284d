package tests

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"sigs.k8s.io/yaml"

	"bellhop"
	"bellhop/bridge/httpapi"
	"bellhop/tests/peers"
)

// Tokens of the tests' callers.
const (
	acme     = "token-of-acme-5a1f"
	rival    = "token-of-a-rival-77c2"
	operator = "token-of-an-operator-e09b"
)

// served is a worker's configuration that serves the API.
func (b *bench) served(more ...string) string {
	hash := func(token string) string {
		sum := sha256.Sum256([]byte(token))
		return hex.EncodeToString(sum[:])
	}
	return b.config(append(more, "api:", "  listen: 127.0.0.1:0", "  tokens:",
		"  - {name: acme, tenants: [acme, acme-labs], sha256: "+hash(acme)+"}",
		"  - {name: rival, tenants: [rival], sha256: "+hash(rival)+"}",
		"  - {name: operator, operator: true, sha256: "+hash(operator)+"}")...)
}

// caller of the API. Every answer must be one that openapi.yaml promises.
type httpCaller struct {
	*bench
	address, token string
	promised       *promises
}

func (b *bench) caller(w *peers.Worker, token string) *httpCaller {
	b.Helper()
	return &httpCaller{bench: b, address: w.API, token: token, promised: promisesOf(b.T)}
}

func (c *httpCaller) as(token string) *httpCaller {
	other := *c
	other.token = token
	return &other
}

// answer is what came back.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

// try calls the API, where body may be empty.
func (c *httpCaller) try(ctx context.Context, method, path, body string) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+c.address+path, strings.NewReader(body))
	require.NoError(c, err)
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	got, err := http.DefaultClient.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer got.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(got.Body)
	return answer{got.StatusCode, got.Header, text}, err
}

// call calls the API and expects an HTTP status.
func (c *httpCaller) call(code int, method, path, body string) answer {
	c.Helper()
	got, err := c.try(c.ctx, method, path, body)
	require.NoError(c, err)
	require.Equal(c, code, got.code, "%s %s: %s", method, path, got.body)
	c.promised.check(c.T, method, path, got)
	return got
}

func (c *httpCaller) status(code int, method, path, body string) bellhop.Status {
	c.Helper()
	var got bellhop.Status
	require.NoError(c, bellhop.DecodeStrict(c.call(code, method, path, body).body, &got))
	return got
}

// refused calls the API and expects a problem.
func (c *httpCaller) refused(code httpapi.ProblemCode, method, path, body string) httpapi.Problem {
	c.Helper()
	got := c.call(httpapi.Problems()[code], method, path, body)
	require.Equal(c, "application/problem+json", got.header.Get("Content-Type"))
	var problem httpapi.Problem
	require.NoError(c, json.Unmarshal(got.body, &problem))
	require.Equal(c, code, problem.Code, problem.Detail)
	return problem
}

// order is an operation as a body of a request.
func order(id, tenant, script, more string) string {
	return fmt.Sprintf(`{"operation_id": %q, "operation_type": "provision", "tenant_id": %q, "resource": %q, "provider": "simulated",
		"spec": {"image": "nginx:1.27"}, "provider_config": %s%s}`, id, tenant, strings.ReplaceAll(id, ":", "."), script, more)
}

// promises are what openapi.yaml says of answers.
type promises struct {
	compiler *jsonschema.Compiler
	document map[string]any
}

func promisesOf(t *testing.T) *promises {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(peers.Root(), "bridge", "httpapi", "openapi.yaml"))
	require.NoError(t, err)
	asJSON, err := yaml.YAMLToJSON(text)
	require.NoError(t, err)
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	require.NoError(t, err)
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	require.NoError(t, compiler.AddResource("openapi.json", document))
	return &promises{compiler, document.(map[string]any)}
}

// check finds the response in the document and has its schema check the body.
func (p *promises) check(t *testing.T, method, path string, got answer) {
	t.Helper()
	path, _, _ = strings.Cut(path, "?")
	if parts := strings.Split(path, "/"); len(parts) > 3 {
		parts[3] = "{id}"
		path = strings.Join(parts, "/")
	}
	pointer := []string{"paths", path, strings.ToLower(method), "responses", fmt.Sprint(got.code)}
	at := any(p.document)
	for _, name := range pointer {
		at = at.(map[string]any)[name]
		require.NotNil(t, at, "%s %s is not said to answer %d", method, path, got.code)
	}
	if ref, ok := at.(map[string]any)["$ref"].(string); ok {
		pointer = strings.Split(strings.TrimPrefix(ref, "#/"), "/")
	}
	kind := got.header.Get("Content-Type")
	var escaped strings.Builder
	for _, name := range append(pointer, "content", kind, "schema") {
		escaped.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(name))
	}
	schema, err := p.compiler.Compile("openapi.json#" + escaped.String())
	require.NoError(t, err)
	body, err := jsonschema.UnmarshalJSON(bytes.NewReader(got.body))
	require.NoError(t, err)
	require.NoError(t, schema.Validate(body), "%s %s: %s", method, path, got.body)
}

func TestOperationThroughHTTP(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.work(b.served(noBackstop))
	c := b.caller(w, acme)
	got := b.call("caller")
	body := order("web-1", "acme", `{"ready_after": "2s"}`, `, "callbacks": [{"target": "temporal", "address": {"workflow_id": "caller"}}]`)

	started := c.call(http.StatusAccepted, "POST", "/v1/operations", body)
	require.Equal(t, "/v1/operations/web-1", started.header.Get("Operation-Location"))
	require.Equal(t, "2", started.header.Get("Retry-After"))
	again := c.call(http.StatusAccepted, "POST", "/v1/operations", strings.ReplaceAll(body, "\n", " "))
	require.Equal(t, started.header.Get("Operation-Location"), again.header.Get("Operation-Location"))
	c.refused(httpapi.CodeConflict, "POST", "/v1/operations", strings.Replace(body, "1.27", "1.28", 1))
	c.refused(httpapi.CodeConflict, "POST", "/v1/operations", strings.Replace(body, `"provision"`, `"update"`, 1))
	c.as(rival).refused(httpapi.CodeConflict, "POST", "/v1/operations", strings.Replace(body, "acme", "rival", 1))

	began := time.Now()
	polled := c.call(http.StatusOK, "GET", started.header.Get("Operation-Location")+"?wait=60s", "")
	require.Less(t, time.Since(began), 55*time.Second, "the answer comes when the operation ends")
	require.Empty(t, polled.header.Get("Retry-After"), "there is nothing more to wait for")
	b.until("the caller is called back", func() bool { return got()["web-1/succeeded"].Times == 1 })
	pushed := got()["web-1/succeeded"].Bodies[0]
	require.Equal(t, strings.TrimSuffix(pushed, "}"), string(polled.body[:len(pushed)-1]), "what is polled begins with what is pushed, byte for byte")
	require.Equal(t, bellhop.Succeeded, c.status(http.StatusAccepted, "POST", "/v1/operations", body).State, "the same again, after its end")

	// Whatever a worker remembers of it is gone, and so is whoever could replay it: this one works on another queue.
	b.until("the workflow is closed", func() bool { return !b.status("web-1").Callbacks[0].AcknowledgedAt.IsZero() })
	before := c.call(http.StatusOK, "GET", "/v1/operations/web-1", "").body
	require.NoError(t, w.Stop(soon))
	other := b.work(b.served("task_queue: elsewhere"))
	c.address = other.API
	require.Equal(t, string(before), string(c.call(http.StatusOK, "GET", "/v1/operations/web-1", "").body))
	require.Contains(t, b.metrics(other), `operation="DescribeWorkflowExecution"`)
	require.NotContains(t, b.metrics(other), `operation="QueryWorkflow"`, "nobody is asked to replay it")
}

func TestPollingOverHTTP(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.work(b.served(noBackstop, "limits: {cached_workflows: 100}"))
	c := b.caller(w, acme)

	c.status(http.StatusAccepted, "POST", "/v1/operations", order("slow", "acme", `{"ready_after": "1h"}`, ""))
	b.until("it is running", func() bool {
		return c.status(http.StatusOK, "GET", "/v1/operations/slow?refresh=false", "").State == bellhop.Running
	})
	began := time.Now()
	require.Equal(t, bellhop.Running, c.status(http.StatusOK, "GET", "/v1/operations/slow?wait=1s", "").State, "the time is up")
	require.GreaterOrEqual(t, time.Since(began), time.Second)

	observations := func() int {
		n := 0
		events := b.client.GetWorkflowHistory(b.ctx, "slow", "", false, 1)
		for events.HasNext() {
			event, err := events.Next()
			require.NoError(t, err)
			if event.GetActivityTaskScheduledEventAttributes().GetActivityType().GetName() == "Observe" {
				n++
			}
		}
		return n
	}
	before := observations()
	for range 10 {
		c.status(http.StatusOK, "GET", "/v1/operations/slow?refresh=false", "")
	}
	require.Equal(t, before, observations(), "who asks for no refresh costs the provider nothing")
	began = time.Now()
	for range 10 {
		c.status(http.StatusOK, "GET", "/v1/operations/slow", "")
	}
	require.LessOrEqual(t, observations()-before, 1+int(time.Since(began)/(2*time.Second)), "it is observed at most once in 2 s")
	b.until("a poll reflects the present", func() bool {
		c.status(http.StatusOK, "GET", "/v1/operations/slow", "")
		return observations() > before
	})

	// A worker that stops answers those who wait, and the next one knows everything.
	longPolls := func() string {
		return regexp.MustCompile(`temporal_long_request_total\{[^}]*GetWorkflowExecutionHistory[^}]*\} \d+`).FindString(b.metrics(w))
	}
	polls := longPolls()
	require.NotEmpty(t, polls, "it was waited for above")
	waiting := make(chan answer, 1)
	go func() {
		got, err := c.try(b.ctx, "GET", "/v1/operations/slow?wait=60s", "")
		if err != nil {
			t.Errorf("who waits was cut off: %s", err)
		}
		waiting <- got
	}()
	b.until("somebody waits", func() bool { return longPolls() != polls })
	require.NoError(t, w.Stop(soon))
	require.Equal(t, http.StatusOK, (<-waiting).code)
	c.address = b.work(b.served(noBackstop)).API
	require.Equal(t, bellhop.Running, c.status(http.StatusOK, "GET", "/v1/operations/slow", "").State)
	require.Equal(t, "slow", c.status(http.StatusAccepted, "POST", "/v1/operations/slow/cancel", "").OperationID)
	require.Equal(t, bellhop.Cancelled, c.status(http.StatusOK, "GET", "/v1/operations/slow?wait=60s", "").State)
	b.until("its workflow has closed", func() bool {
		got, err := c.try(b.ctx, "POST", "/v1/operations/slow/cancel", "")
		return err == nil && got.code == http.StatusConflict
	})
	c.refused(httpapi.CodeEnded, "POST", "/v1/operations/slow/cancel", "")
}

// However many wait, and however long, a worker is asked once when they come and once when they go.
func TestWaitingOverHTTPAsksNoWorker(t *testing.T) {
	t.Parallel()
	const callers = 20
	b := setup(t)
	w := b.work(strings.Replace(b.served(noBackstop, fmt.Sprintf("tenants: {default: {id_prefix: '', limits: {waits: %d}}}", callers+1)), "  tokens:", fmt.Sprintf("  waits: %d\n  tokens:", callers), 1))
	c := b.caller(w, acme)
	c.status(http.StatusAccepted, "POST", "/v1/operations", order("slow", "acme", `{"ready_after": "1h"}`, ""))
	b.until("it is running", func() bool {
		return c.status(http.StatusOK, "GET", "/v1/operations/slow?refresh=false", "").State == bellhop.Running
	})
	requests := func(kind, operation string) int {
		pattern := regexp.MustCompile(`temporal_` + kind + `_total\{[^}]*operation="` + operation + `"[^}]*\} (\d+)`)
		n := 0
		for _, found := range pattern.FindAllStringSubmatch(b.metrics(w), -1) {
			more, err := strconv.Atoi(found[1])
			require.NoError(t, err)
			n += more
		}
		return n
	}
	wait := func(path string) <-chan answer {
		answers := make(chan answer, callers)
		for range callers {
			go func() {
				got, err := c.try(b.ctx, "GET", path, "")
				if err != nil {
					t.Errorf("who waits was cut off: %s", err)
				}
				answers <- got
			}()
		}
		return answers
	}
	before := requests("request", "QueryWorkflow")
	answers := wait("/v1/operations/slow?refresh=false&wait=8s")
	for range callers {
		require.Equal(t, http.StatusOK, (<-answers).code)
	}
	require.LessOrEqual(t, requests("request", "QueryWorkflow")-before, 2*callers)

	// Each asks for what has happened so far, and then for what will.
	before = requests("long_request", "GetWorkflowExecutionHistory")
	answers = wait("/v1/operations/slow?refresh=false&wait=60s")
	b.until("all of them wait", func() bool { return requests("long_request", "GetWorkflowExecutionHistory")-before >= 2*callers })
	busy := c.call(http.StatusServiceUnavailable, "GET", "/v1/operations/slow?wait=60s", "")
	require.Contains(t, string(busy.body), httpapi.CodeBusy)
	require.NotEmpty(t, busy.header.Get("Retry-After"))
	c.status(http.StatusOK, "GET", "/v1/operations/slow", "") // who does not wait is answered
	c.status(http.StatusAccepted, "POST", "/v1/operations/slow/cancel", "")
	for range callers {
		var got bellhop.Status
		require.NoError(t, json.Unmarshal((<-answers).body, &got))
		require.Equal(t, bellhop.Cancelled, got.State, "all of them are told when it ends")
	}
}

// Who polls because no callback comes is told of the end all the same.
func TestWaitingOverHTTPForWhatIsNotDelivered(t *testing.T) {
	t.Parallel()
	b := setup(t)
	proxy, _, env := b.through()
	proxy.Hook(func(*workflowservice.SignalWorkflowExecutionRequest, func() error) error {
		return status.Error(codes.PermissionDenied, "not yet") // retried after five minutes
	})
	w := b.work(b.served("targets:", "  caller: {type: temporal, profile: proxied}"), env)
	c := b.caller(w, acme)
	for id, states := range map[string]string{
		"rings-at-its-end": `["succeeded"]`,
		"rings-since-long": `["running", "succeeded"]`, // of which the first is in the way of the other
	} {
		c.status(http.StatusAccepted, "POST", "/v1/operations", order(id, "acme", `{"ready_after": "2s"}`,
			`, "callbacks": [{"target": "caller", "address": {"workflow_id": "caller"}, "states": `+states+`}]`))
		got := c.status(http.StatusOK, "GET", "/v1/operations/"+id+"?wait=60s", "")
		require.Equal(t, bellhop.Succeeded, got.State)
		require.Less(t, time.Since(got.FinishedAt), 50*time.Second)
		require.False(t, got.Callbacks[0].State.Settled())
	}
}

// metrics are a worker's.
func (b *bench) metrics(w *peers.Worker) string {
	b.Helper()
	answer, err := http.Get("http://" + w.Listen + "/metrics") //nolint:noctx // the test's own timeout is enough
	require.NoError(b, err)
	defer answer.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(answer.Body)
	require.NoError(b, err)
	return string(text)
}

func TestTenantsOverHTTP(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.work(b.served())
	acmes := b.caller(w, acme)
	rivals, operators := acmes.as(rival), acmes.as(operator)
	for i := range 3 {
		acmes.status(http.StatusAccepted, "POST", "/v1/operations", order(fmt.Sprintf("acme-%d", i), "acme", `{}`, ""))
	}
	acmes.status(http.StatusAccepted, "POST", "/v1/operations", order("labs-0", "acme-labs", `{}`, ""))
	rivals.status(http.StatusAccepted, "POST", "/v1/operations", order("rival-0", "rival", `{}`, ""))
	rivals.refused(httpapi.CodeForbidden, "POST", "/v1/operations", order("rival-1", "acme", `{}`, ""))
	operators.status(http.StatusAccepted, "POST", "/v1/operations", order("third-0", "third", `{"ready_after": "1h"}`, ""))

	nothing := acmes.refused(httpapi.CodeNotFound, "GET", "/v1/operations/nothing", "")
	for _, request := range [][2]string{
		{"GET", "/v1/operations/acme-0"},
		{"GET", "/v1/operations/acme-0?wait=60s"},
		{"POST", "/v1/operations/acme-0/cancel"},
		{"POST", "/v1/operations/acme-0/redeliver"},
		{"POST", "/v1/operations/acme-0/redeliver?target=x"},
	} {
		require.Equal(t, nothing, rivals.refused(httpapi.CodeNotFound, request[0], request[1], ""), "another's operation is none")
	}
	operators.status(http.StatusOK, "GET", "/v1/operations/acme-0", "")
	// Temporal's own workflows are nobody's operations.
	operators.refused(httpapi.CodeNotFound, "GET", "/v1/operations/bellhop-watch:simulated", "")

	list := func(c *httpCaller, query string) []string {
		var ids []string
		path := "/v1/operations" + query
		for path != "" {
			got := c.call(http.StatusOK, "GET", path, "")
			var page httpapi.Page
			require.NoError(t, json.Unmarshal(got.body, &page))
			for _, item := range page.Operations {
				ids = append(ids, item.OperationID)
			}
			link, _, _ := strings.Cut(strings.TrimPrefix(got.header.Get("Link"), "<"), ">")
			require.Equal(t, page.NextPageToken == "", link == "")
			path = link
		}
		return ids
	}
	all := []string{"third-0", "rival-0", "labs-0", "acme-2", "acme-1", "acme-0"}
	b.until("the list has them all", func() bool {
		return len(list(operators, "?state=succeeded")) == 5 && len(list(operators, "?state=running&open=true")) == 1
	})
	require.ElementsMatch(t, all, list(operators, ""))
	require.Equal(t, []string{"labs-0", "acme-2", "acme-1", "acme-0"}, list(acmes, "?page_size=1"))
	require.Equal(t, []string{"labs-0"}, list(acmes, "?tenant=acme-labs"))
	require.Equal(t, []string{"acme-1"}, list(acmes, "?resource=acme-1&provider=simulated"))
	require.Empty(t, list(acmes, "?state=failed"))
	require.Equal(t, []string{"rival-0"}, list(rivals, ""))
	acmes.refused(httpapi.CodeForbidden, "GET", "/v1/operations?tenant=rival", "")

	var page httpapi.Page
	require.NoError(t, json.Unmarshal(acmes.call(http.StatusOK, "GET", "/v1/operations?page_size=1", "").body, &page))
	rivals.refused(httpapi.CodeInvalidRequest, "GET", "/v1/operations?page_token="+page.NextPageToken, "")
	broken := page.NextPageToken[:len(page.NextPageToken)-12]
	acmes.refused(httpapi.CodeInvalidRequest, "GET", "/v1/operations?page_token="+broken, "")

	for _, secret := range []string{acme, rival, operator} {
		require.NotContains(t, w.Output(), secret)
	}
	require.Contains(t, w.Output(), "token_name=acme")
}

func TestRedeliverOverHTTP(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got := b.call("caller")
	proxy, _, env := b.through()
	proxy.Hook(func(*workflowservice.SignalWorkflowExecutionRequest, func() error) error {
		return status.Error(codes.PermissionDenied, "not yet") // retried after five minutes
	})
	w := b.work(b.served("targets:", "  caller: {type: temporal, profile: proxied}"), env)
	c := b.caller(w, acme)
	c.status(http.StatusAccepted, "POST", "/v1/operations",
		order("web-1", "acme", `{}`, `, "callbacks": [{"target": "caller", "address": {"workflow_id": "caller"}}]`))
	b.until("the callback is blocked", func() bool {
		receipts := c.status(http.StatusOK, "GET", "/v1/operations/web-1", "").Callbacks
		return receipts[0].State == bellhop.ReceiptBlocked
	})
	problem := c.refused(httpapi.CodeInvalidRequest, "POST", "/v1/operations/web-1/redeliver?target=nobody", "")
	require.Equal(t, "target", problem.Faults[0].Path)
	proxy.Hook(nil)
	require.JSONEq(t, `{"targets": ["caller"]}`, string(c.call(http.StatusOK, "POST", "/v1/operations/web-1/redeliver", "").body))
	b.until("the caller is called back", func() bool { return got()["web-1/succeeded"].Times == 1 })
	b.until("nothing is left to deliver", func() bool {
		return string(c.call(http.StatusOK, "POST", "/v1/operations/web-1/redeliver?target=caller", "").body) == `{"targets":[]}`+"\n"
	})
}

func TestHTTPWithoutTemporal(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.work(b.served())
	c := b.caller(w, acme)
	secret := `, "callbacks": [{"target": "temporal", "address": {"task_token": "dG9rZW4tb2YtYS10YXNr"}}]`
	c.status(http.StatusAccepted, "POST", "/v1/operations", order("web-1", "acme", `{}`, secret))
	b.server.Kill()
	for _, request := range [][3]string{
		{"GET", "/v1/operations/web-1", ""}, {"GET", "/v1/operations", ""}, {"POST", "/v1/operations", order("web-2", "acme", `{}`, secret)},
	} {
		got := c.call(http.StatusServiceUnavailable, request[0], request[1], request[2])
		require.NotEmpty(t, got.header.Get("Retry-After"))
		require.NotContains(t, string(got.body), b.server.Address, "what is behind is nobody's business")
		require.NotContains(t, string(got.body), "rpc")
	}
	require.Contains(t, w.Output(), "a request could not be answered", "and the operator is told why")
	require.NotContains(t, w.Output(), acme)
	require.NotContains(t, w.Output(), "dG9rZW4tb2YtYS10YXNr")
}

func TestHTTPTellsOfItself(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.work(b.served())
	c := b.caller(w, acme)
	c.refused(httpapi.CodeNotFound, "GET", "/v1/operations/nothing", "")
	c.as("").refused(httpapi.CodeUnauthenticated, "GET", "/v1/operations", "")
	for _, path := range []string{"/openapi.json", "/openapi.yaml"} {
		got, err := c.try(b.ctx, "GET", path, "")
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, got.code)
		var document any
		require.NoError(t, yaml.Unmarshal(got.body, &document))
		asJSON, err := json.Marshal(document)
		require.NoError(t, err)
		want, err := json.Marshal(c.promised.document)
		require.NoError(t, err)
		require.JSONEq(t, string(want), string(asJSON), "what is served is what is checked in")
	}
	for _, want := range []string{
		`bellhop_http_request_duration_seconds_count{code="404",method="GET",route="/v1/operations/{id}"} 1`,
		`bellhop_http_request_duration_seconds_count{code="401",method="GET",route="/v1/operations"} 1`,
	} {
		require.Contains(t, b.metrics(w), want)
	}
}

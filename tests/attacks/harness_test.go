package attacks

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"bellhop"
	"bellhop/tests/peers"
)

// soon is how long is waited for what must happen, on a machine that has other things to do.
const soon = 60 * time.Second

// Tokens of the API's callers.
const (
	victim   = "token-of-the-victim-3f6a90d27c14"
	rival    = "token-of-the-rival-b1820c55e7f9"
	operator = "token-of-the-operator-64de0a7b21c8"
)

// stage is what all attacks share: a Temporal server, a worker that serves both tenants, a receiver of callbacks.
type stage struct {
	*testing.T
	ctx    context.Context
	folder string
	server *peers.Server
	client client.Client
	worker *peers.Worker
	// receiver takes webhooks.
	receiver *receiver
	keys     string
	hooks    atomic.Int32
	watches  atomic.Int32

	mu     sync.Mutex
	fleets map[string]*peers.Worker

	registering sync.Mutex
	restate     *peers.Restate
}

// harness is the stage as one attack has it.
type harness struct {
	*testing.T
	*stage

	name     string
	made     atomic.Int32
	hastened sync.Map
}

const (
	// hookTargets is how many webhook targets there are; each attack that needs one takes its own.
	hookTargets = 60
	// watchedProviders is the same for providers with a watch of their own.
	watchedProviders = 6
)

// own is bellhop's namespace; others are the victim's and the rival's, and one in which another bellhop lives.
const (
	own       = "default"
	victims   = "victims"
	elsewhere = "elsewhere"
	// quota and hoard have nothing in them but what attacks on limits start: a tenant's operations are counted by namespace.
	quota = "quota"
	hoard = "hoard"
)

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{
		T: t, ctx: t.Context(), folder: t.TempDir(), fleets: map[string]*peers.Worker{},
		server: peers.ServerFor(t, "--namespace", own, "--namespace", victims, "--namespace", elsewhere,
			"--namespace", quota, "--namespace", hoard),
	}
	var err error
	s.client, err = client.DialContext(s.ctx, client.Options{HostPort: s.server.Address, Logger: quiet{}})
	require.NoError(t, err)
	t.Cleanup(s.client.Close)
	s.receiver = newReceiver(t)
	s.keys = s.write("keys", "whsec_"+base64.StdEncoding.EncodeToString([]byte("a key that opens nothing, 32 b..")), 0o600)
	s.listen()
	s.worker = s.work(s.config())
	return s
}

func (s *stage) write(name, text string, mode os.FileMode) string {
	s.Helper()
	file := filepath.Join(s.folder, name)
	require.NoError(s, os.WriteFile(file, []byte(text), mode))
	require.NoError(s, os.Chmod(file, mode))
	return file
}

func hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// tenants is the section by which an operator keeps tenants apart.
const tenants = `tenants:
  default: {id_prefix: "{tenant}:"}
  named:
    rival: {limits: {open_operations: 5000, asks: 100, waits: 50, requests: 500}}
`

// config is the worker's configuration: both tenants share bellhop's namespace, which is the worst that is allowed.
func (s *stage) config() string {
	var b strings.Builder
	b.WriteString("providers:\n")
	fmt.Fprintf(&b, "  simulated: {type: simulated, path: %s}\n", filepath.Join(s.folder, "simulated.db"))
	for i := range watchedProviders {
		fmt.Fprintf(&b, "  watched-%d: {type: simulated, path: %s}\n", i, filepath.Join(s.folder, fmt.Sprintf("watched-%d.db", i)))
	}
	b.WriteString("targets:\n  temporal: {type: temporal}\n")
	fmt.Fprintf(&b, "  victims: {type: temporal, namespace: %s, tenants: [victim]}\n", victims)
	fmt.Fprintf(&b, "  elsewhere: {type: temporal, namespace: %s}\n", elsewhere)
	for i := range hookTargets {
		fmt.Fprintf(&b, "  hook-%d: {type: webhook, url: '%s/%d', key_file: %s, allow: [127.0.0.0/8]}\n", i, s.receiver.URL, i, s.keys)
	}
	b.WriteString("backstop: {first: 1h, max: 1h}\n")
	b.WriteString(s.optional(tenants))
	b.WriteString(api(""))
	return b.String()
}

// api serves the API to both tenants and the operator.
func api(more string) string {
	return "api:\n  listen: 127.0.0.1:0\n" + more + "  tokens:\n" +
		"  - {name: victim, tenants: [victim], sha256: " + hash(victim) + "}\n" +
		"  - {name: rival, tenants: [rival], sha256: " + hash(rival) + "}\n" +
		"  - {name: operator, operator: true, sha256: " + hash(operator) + "}\n"
}

// optional is part of a configuration that protects; other binaries than those of this checkout may not know it.
func (s *stage) optional(part string) string {
	s.Helper()
	if os.Getenv(peers.OtherBinaries) == "" {
		return part
	}
	if said := s.check(part); strings.Contains(said, "is not a known field") {
		return ""
	}
	return part
}

// check is what bellhop-worker --check says of a configuration.
func (s *stage) check(config string, env ...string) string {
	s.Helper()
	path, err := peers.Binary("bellhop-worker")
	require.NoError(s, err)
	file := filepath.Join(s.TempDir(), fmt.Sprintf("check-%d.yaml", time.Now().UnixNano()))
	require.NoError(s, os.WriteFile(file, []byte(config), 0o600))
	cmd := exec.CommandContext(s.ctx, path, "--config", file, "--check")
	cmd.Env = append(append(os.Environ(), "TEMPORAL_ADDRESS="+s.server.Address), env...)
	said, _ := cmd.CombinedOutput() //nolint:errcheck // what it says is what matters
	return string(said)
}

// work starts a worker that lives as long as the suite.
func (s *stage) work(config string, env ...string) *peers.Worker {
	s.Helper()
	w, err := peers.StartWorker(s.ctx, s.server.Address, config, env...)
	require.NoError(s, err)
	s.Cleanup(w.Kill)
	return w
}

// answer is what the API answered.
type answer struct {
	code   int
	header http.Header
	body   []byte
	took   time.Duration
}

func (a answer) String() string {
	return fmt.Sprintf("%d %s", a.code, cut(string(a.body), 300))
}

func cut(text string, at int) string {
	if len(text) > at {
		return text[:at] + "…"
	}
	return text
}

// status is an answer as a status.
func (a answer) status() bellhop.Status {
	var status bellhop.Status
	_ = json.Unmarshal(a.body, &status) //nolint:errcheck // what is none has no state
	return status
}

// ask calls the API of a worker.
func ask(ctx context.Context, w *peers.Worker, token, method, path, body string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+w.API+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	began := time.Now()
	got, err := http.DefaultClient.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer got.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(got.Body)
	return answer{got.StatusCode, got.Header, text, time.Since(began)}, err
}

// as calls the API of the worker that all share.
func (h *harness) as(token, method, path, body string) answer {
	h.Helper()
	return h.at(h.worker, token, method, path, body)
}

func (h *harness) at(w *peers.Worker, token, method, path, body string) answer {
	h.Helper()
	got, err := ask(h.ctx, w, token, method, path, body)
	require.NoError(h, err)
	return got
}

// id is an operation's, in the form that keeps tenants apart.
func (h *harness) id(tenant string) string {
	return fmt.Sprintf("%s:%s-%d", tenant, h.name, h.made.Add(1))
}

// order is an operation as the body of a request; more are further fields.
func order(id, tenant, script, more string) string {
	_, resource, ok := strings.Cut(id, ":")
	if !ok {
		resource = id
	}
	if more != "" {
		more = ", " + more
	}
	return fmt.Sprintf(`{"operation_id": %q, "operation_type": "provision", "tenant_id": %q, "resource": %q, "provider": "simulated",
		"spec": {"image": "nginx:1.27", "ports": [{"name": "http", "container_port": 80}]}, "provider_config": %s%s}`,
		id, tenant, cut63(resource), script, more)
}

func cut63(name string) string {
	if len(name) > 60 {
		sum := sha256.Sum256([]byte(name))
		return name[:40] + "-" + hex.EncodeToString(sum[:6])
	}
	return name
}

// begin starts an operation of the victim and answers its id.
func (h *harness) begin(script, more string) string {
	h.Helper()
	id := h.id("victim")
	got := h.as(victim, "POST", "/v1/operations", order(id, "victim", script, more))
	require.Equal(h, http.StatusAccepted, got.code, "%s", got)
	return id
}

func (h *harness) status(id string) bellhop.Status {
	h.Helper()
	return h.as(operator, "GET", "/v1/operations/"+id+"?refresh=false", "").status()
}

// running waits until an operation runs.
func (h *harness) running(id string) {
	h.Helper()
	h.until("the operation runs", func() bool { return h.status(id).State == bellhop.Running })
}

// ended waits until an operation has ended and answers its status.
func (h *harness) ended(id string) bellhop.Status {
	h.Helper()
	var status bellhop.Status
	h.until("the operation "+id+" has ended", func() bool {
		status = h.status(id)
		return status.State.Terminal()
	})
	return status
}

// until waits for a condition.
func (h *harness) until(what string, so func() bool) {
	h.Helper()
	if !h.within(soon, so) {
		h.Fatalf("in %s this did not happen: %s", soon, what)
	}
}

// within waits for a condition and says whether it came about in time.
func (h *harness) within(limit time.Duration, so func() bool) bool {
	deadline := time.Now().Add(limit)
	for !so() {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(50 * time.Millisecond)
	}
	return true
}

// hasten has the callbacks of an operation tried at once, now and then: the server forgets what it was about to do when it
// is told so again and again.
func (h *harness) hasten(w *peers.Worker, id string) {
	h.Helper()
	if last, ok := h.hastened.Load(id); ok && time.Since(last.(time.Time)) < time.Second { //nolint:forcetypeassert // nothing else is stored
		return
	}
	h.hastened.Store(id, time.Now())
	h.at(w, victim, "POST", "/v1/operations/"+id+"/redeliver", "")
}

// notice is how long what an attack does may take to show.
const notice = 1500 * time.Millisecond

// address is a callback to a workflow or an activity in bellhop's own namespace, as JSON; more are fields of the callback.
func callback(target, address, more string) string {
	if more != "" {
		more = ", " + more
	}
	return fmt.Sprintf(`{"target": %q, "address": %s%s}`, target, address, more)
}

// strike has the rival start an operation with callbacks, and waits until each was tried or refused. It answers what the
// rival was told.
func (h *harness) strike(script string, callbacks ...string) string {
	h.Helper()
	return h.strikeWith(script, "", callbacks...)
}

func (h *harness) strikeWith(script, more string, callbacks ...string) string {
	h.Helper()
	id := h.id("rival")
	if more != "" {
		more += ", "
	}
	// A short timeout: what this worker is not configured for is tried elsewhere for as long.
	got := h.as(rival, "POST", "/v1/operations", order(id, "rival", script, more+`"timeout": "8s", "callbacks": [`+strings.Join(callbacks, ", ")+`]`))
	require.NotEqual(h, http.StatusTooManyRequests, got.code, "the attack was not tried: raise the rival's limits: %s", got)
	if got.code != http.StatusAccepted {
		return got.String()
	}
	var status bellhop.Status
	h.within(15*time.Second, func() bool {
		status = h.status(id)
		for _, receipt := range status.Callbacks {
			if !receipt.State.Settled() && receipt.LastError == "" {
				return false
			}
		}
		return len(status.Callbacks) > 0
	})
	var told []string
	for _, receipt := range status.Callbacks {
		said := fmt.Sprintf("%s %s", receipt.State, receipt.LastError)
		if len(told) == 0 || told[len(told)-1] != said {
			told = append(told, said)
		}
	}
	if status.Error != nil {
		told = append(told, string(status.Error.Code)+" "+status.Error.Message)
	}
	return cut(strings.Join(told, "; "), 400)
}

// describe is a workflow as Temporal's operator sees it.
func (h *harness) describe(id string) ([]*workflowpb.PendingActivityInfo, *workflowpb.WorkflowExecutionInfo) {
	h.Helper()
	found, err := h.client.DescribeWorkflowExecution(h.ctx, id, "")
	require.NoError(h, err)
	return found.GetPendingActivities(), found.GetWorkflowExecutionInfo()
}

// pending waits for an activity of a workflow to be pending and answers it. An attack may look an activity's id up here,
// which a tenant could not: it must be harmless all the same.
func (h *harness) pending(workflowID, activityType string) *workflowpb.PendingActivityInfo {
	h.Helper()
	var found *workflowpb.PendingActivityInfo
	h.until("activity "+activityType+" of "+workflowID+" is pending", func() bool {
		infos, _ := h.describe(workflowID)
		for _, info := range infos {
			if info.GetActivityType().GetName() == activityType {
				found = info
			}
		}
		return found != nil
	})
	return found
}

// run is the id of a workflow's current run.
func (h *harness) run(workflowID string) string {
	_, info := h.describe(workflowID)
	return info.GetExecution().GetRunId()
}

// signals counts the signals in a workflow's history that the rival sent: they carry its outcome.
func (h *harness) signals(workflowID string) int {
	h.Helper()
	n := 0
	events := h.client.GetWorkflowHistory(h.ctx, workflowID, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		require.NoError(h, err)
		if signal := event.GetWorkflowExecutionSignaledEventAttributes(); signal != nil && fromRival(signal) {
			n++
		}
	}
	return n
}

func fromRival(signal *historypb.WorkflowExecutionSignaledEventAttributes) bool {
	for _, payload := range signal.GetInput().GetPayloads() {
		// What a watch tells an operation has no callback's id.
		if bytes.Contains(payload.GetData(), []byte(`"rival:`)) && bytes.Contains(payload.GetData(), []byte(`"callback_id"`)) {
			return true
		}
	}
	return false
}

// payloads are what bellhop's target would send: the rival's outcome.
func payloads(body string) *commonpb.Payloads {
	return &commonpb.Payloads{Payloads: []*commonpb.Payload{{Metadata: map[string][]byte{"encoding": []byte("json/plain")}, Data: []byte(body)}}}
}

// receiver is the victim's: it takes webhooks when it is told to, and remembers them.
type receiver struct {
	*httptest.Server
	hooks map[string]*hook
}

// hook is one target of type webhook.
type hook struct {
	// target is its name.
	target string

	mu   sync.Mutex
	open bool
	hang time.Duration
	came int
	got  []string
	wake chan struct{}
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{hooks: map[string]*hook{}}
	for i := range hookTargets {
		r.hooks[fmt.Sprintf("/%d", i)] = &hook{target: fmt.Sprintf("hook-%d", i), wake: make(chan struct{})}
	}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		k := r.hooks[request.URL.Path]
		body, err := io.ReadAll(request.Body)
		if err != nil || k == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.WriteHeader(k.take(request.Context(), string(body)))
	}))
	t.Cleanup(func() { r.CloseClientConnections(); r.Close() })
	return r
}

func (k *hook) take(ctx context.Context, body string) int {
	k.mu.Lock()
	k.came++
	hang := k.hang
	wake := k.wake
	if k.open {
		k.got = append(k.got, body)
	}
	open := k.open
	k.mu.Unlock()
	if open {
		return http.StatusNoContent
	}
	if hang > 0 {
		select {
		case <-time.After(hang):
		case <-wake:
		case <-ctx.Done():
		}
	}
	return http.StatusServiceUnavailable
}

// hook is a target of the victim's that refuses what it is sent until it is opened.
func (h *harness) hook(hang time.Duration) *hook {
	h.Helper()
	n := h.hooks.Add(1) - 1
	require.Less(h, int(n), hookTargets, "there are more attacks than targets: raise hookTargets")
	k := h.receiver.hooks[fmt.Sprintf("/%d", n)]
	k.hang = hang
	return k
}

// unlock lets callbacks in.
func (k *hook) unlock() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.open {
		k.open = true
		close(k.wake)
	}
}

func (k *hook) tried() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.came
}

// arrived says whether a callback of an operation was taken.
func (k *hook) arrived(id string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, body := range k.got {
		if strings.Contains(body, `"operation_id":"`+id+`"`) {
			return true
		}
	}
	return false
}

// Workflows of callers. They live in the namespace that the test's worker serves.

// waits is a caller that waits for an activity to be completed from outside; it answers what the activity came to.
func waits(ctx workflow.Context) (json.RawMessage, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{ActivityID: "wait", StartToCloseTimeout: time.Hour, HeartbeatTimeout: time.Minute})
	var got json.RawMessage
	err := workflow.ExecuteActivity(ctx, "pend").Get(ctx, &got)
	return got, err
}

func pend(context.Context) (json.RawMessage, error) { return nil, activity.ErrResultPending }

// listens is a caller that notes every callback, and has an update of its own that happens to be named as bellhop's.
func listens(ctx workflow.Context) error {
	var got []string
	refreshed := 0
	if err := workflow.SetQueryHandler(ctx, "got", func() ([]string, error) { return got, nil }); err != nil {
		return err
	}
	if err := workflow.SetQueryHandler(ctx, "refreshed", func() (int, error) { return refreshed, nil }); err != nil {
		return err
	}
	if err := workflow.SetUpdateHandler(ctx, "refresh", func(workflow.Context) error { refreshed++; return nil }); err != nil {
		return err
	}
	selector := workflow.NewSelector(ctx)
	for _, state := range []bellhop.State{bellhop.Running, bellhop.Succeeded, bellhop.Failed, bellhop.Cancelled} {
		selector.AddReceive(workflow.GetSignalChannel(ctx, string(bellhop.EventFor(bellhop.Provision, state))), func(c workflow.ReceiveChannel, _ bool) {
			var body json.RawMessage
			c.Receive(ctx, &body)
			got = append(got, string(body))
		})
	}
	selector.AddReceive(ctx.Done(), func(workflow.ReceiveChannel, bool) {})
	for ctx.Err() == nil {
		selector.Select(ctx)
	}
	return ctx.Err()
}

// listen serves the callers' workflows in bellhop's own namespace and in the victim's.
func (s *stage) listen() {
	s.Helper()
	for _, namespace := range []string{own, victims} {
		w := worker.New(s.dial(namespace), "callers", worker.Options{})
		w.RegisterWorkflowWithOptions(waits, workflow.RegisterOptions{Name: "waits"})
		w.RegisterWorkflowWithOptions(listens, workflow.RegisterOptions{Name: "listens"})
		w.RegisterActivityWithOptions(pend, activity.RegisterOptions{Name: "pend"})
		require.NoError(s, w.Start())
		s.Cleanup(w.Stop)
	}
}

func (s *stage) dial(namespace string) client.Client {
	s.Helper()
	c, err := client.DialContext(s.ctx, client.Options{HostPort: s.server.Address, Namespace: namespace, Logger: quiet{}})
	require.NoError(s, err)
	s.Cleanup(c.Close)
	return c
}

// caller starts a workflow of a caller and answers its id.
func (h *harness) caller(kind string) string {
	h.Helper()
	id := fmt.Sprintf("caller-%s-%d", h.name, h.made.Add(1))
	_, err := h.client.ExecuteWorkflow(h.ctx, client.StartWorkflowOptions{ID: id, TaskQueue: "callers"}, kind)
	require.NoError(h, err)
	return id
}

// got are the callbacks that a caller of kind "listens" got.
func (h *harness) got(id string) []string {
	h.Helper()
	var got []string
	answer, err := h.client.QueryWorkflow(h.ctx, id, "", "got")
	require.NoError(h, err)
	require.NoError(h, answer.Get(&got))
	return got
}

// command runs one of the binaries as a user does.
func (h *harness) command(stdin, name string, args ...string) (said string, code int, state *os.ProcessState) {
	h.Helper()
	path, err := peers.Binary(name)
	require.NoError(h, err)
	ctx, cancel := context.WithTimeout(h.ctx, soon)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "TEMPORAL_ADDRESS="+h.server.Address)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(h, err)
	}
	return string(out), cmd.ProcessState.ExitCode(), cmd.ProcessState
}

// metrics are a worker's.
func (h *harness) metrics(w *peers.Worker) string {
	h.Helper()
	request, err := http.NewRequestWithContext(h.ctx, http.MethodGet, "http://"+w.Listen+"/metrics", http.NoBody)
	require.NoError(h, err)
	answer, err := http.DefaultClient.Do(request)
	require.NoError(h, err)
	defer answer.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(answer.Body)
	require.NoError(h, err)
	return string(text)
}

// value is the sum of a metric's series whose labels match a pattern.
func value(metrics, pattern string) float64 {
	sum := 0.0
	for _, found := range regexp.MustCompile(`(?m)^`+pattern+` ([0-9.e+]+)$`).FindAllStringSubmatch(metrics, -1) {
		var n float64
		_, _ = fmt.Sscan(found[len(found)-1], &n) //nolint:errcheck // the pattern says that it is a number
		sum += n
	}
	return sum
}

// quiet is a logger that says nothing.
type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}

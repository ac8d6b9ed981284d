package tests

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"bellhop"
	"bellhop/bridge/httpapi"
	"bellhop/tests/peers"
	"bellhop/workflows"
)

// faultsOf are a problem's, as text.
func faultsOf(problem httpapi.Problem) []string {
	var texts []string
	for _, fault := range problem.Faults {
		texts = append(texts, fault.String())
	}
	return texts
}

func TestTenants_HaveIDsOfTheirOwn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	earlier := order("web-0", "acme", `{"ready_after": "1h"}`, "")
	_, err := b.ops.Start(b.ctx, "web-0", bellhop.Provision, []byte(earlier))
	require.NoError(t, err)
	w := b.work(b.served("tenants: {}"))
	acmes := b.caller(w, acme)
	rivals, operators := acmes.as(rival), acmes.as(operator)

	started := acmes.status(http.StatusAccepted, "POST", "/v1/operations", order("acme:web-1", "acme", `{"ready_after": "1h"}`, ""))
	require.Equal(t, "acme:web-1", started.OperationID)
	mine := []string{`operation_id: must begin with "acme:" for tenant "acme"`}
	require.Empty(t, cmp.Diff(mine, faultsOf(acmes.refused(httpapi.CodeInvalidOperation, "POST", "/v1/operations", order("web-1", "acme", `{}`, "")))))
	require.Empty(t, cmp.Diff(mine, faultsOf(operators.refused(httpapi.CodeInvalidOperation, "POST", "/v1/operations", order("web-1", "acme", `{}`, "")))))
	acmes.status(http.StatusAccepted, "POST", "/v1/operations", earlier) // it was started before there was the rule

	// A rival learns nothing of the ids that there are, and takes none of them.
	rivals.status(http.StatusAccepted, "POST", "/v1/operations", order("rival:acme:web-1", "rival", `{}`, ""))
	for _, id := range []string{"acme:web-1", "acme:free", "web-0", "free"} {
		problem := rivals.refused(httpapi.CodeInvalidOperation, "POST", "/v1/operations", order(id, "rival", `{}`, ""))
		require.Empty(t, cmp.Diff([]string{`operation_id: must begin with "rival:" for tenant "rival"`}, faultsOf(problem)))
		if !strings.HasPrefix(id, "acme:web") && id != "web-0" {
			continue
		}
		rivals.refused(httpapi.CodeNotFound, "GET", "/v1/operations/"+id, "")
	}
}

func TestTenants_AreToldEverythingThatTheyMayNotName(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.work(b.served("targets:", "  temporal: {type: temporal}", "  hidden: {type: temporal, namespace: acme}",
		"tenants: {default: {targets: [temporal]}, named: {acme: {targets: [hidden], id_prefix: ''}, acme-labs: {providers: []}}}"))
	acmes := b.caller(w, acme)
	refused := func(c *httpCaller, body string) []string {
		return faultsOf(c.refused(httpapi.CodeInvalidOperation, "POST", "/v1/operations", body))
	}
	callback := func(target string) string {
		return fmt.Sprintf(`{"target": %q, "address": {"workflow_id": "order"}, "heartbeat": "1s"}`, target)
	}
	require.Empty(t, cmp.Diff([]string{
		`callbacks: ask for 2.0 heartbeats a second together; at most 1 is sent: give each a longer heartbeat`,
		`callbacks[0].target: "hidden" is not for tenant "rival", which may name temporal`,
		`operation_id: must begin with "rival:" for tenant "rival"`,
		`priority: must be 3 to 5, or be left out, for tenant "rival"`,
		`timeout: must be 1s to 168h`,
	}, refused(acmes.as(rival), order("web-1", "rival", `{}`, `, "priority": 2, "timeout": "1ms", "callbacks": [`+callback("hidden")+`, `+callback("temporal")+`]`))))
	require.Empty(t, cmp.Diff([]string{
		`provider: "simulated" is not for tenant "acme-labs", which may name none`,
	}, refused(acmes, order("acme-labs:web-1", "acme-labs", `{}`, ""))))
	require.Empty(t, cmp.Diff([]string{
		`operation_id: must not begin with another tenant's name and ':'`,
	}, refused(acmes, order("rival:web-1", "acme", `{}`, ""))))
	acmes.status(http.StatusAccepted, "POST", "/v1/operations", order("web-1", "acme", `{}`, ""))
}

func TestTenants_MayOpenOnlySoManyOperations(t *testing.T) {
	t.Parallel()
	const limit, asked = 5, 20
	b := setup(t)
	w := b.work(b.served(fmt.Sprintf("tenants: {default: {limits: {open_operations: %d}}}", limit)))
	acmes := b.caller(w, acme)
	path := "/v1/operations"
	body := func(i int) string { return order(fmt.Sprintf("acme:%d", i), "acme", `{"ready_after": "1h"}`, "") }

	answers := make([]answer, asked)
	var posts sync.WaitGroup
	for i := range asked {
		posts.Go(func() {
			got, err := acmes.try(b.ctx, "POST", path, body(i))
			if err != nil {
				t.Errorf("a request was cut off: %s", err)
			}
			answers[i] = got
		})
	}
	posts.Wait()
	var taken, refused []int
	for i, got := range answers {
		if got.code == http.StatusAccepted {
			taken = append(taken, i)
			continue
		}
		refused = append(refused, i)
		acmes.promised.check(t, "POST", path, got)
		require.Equal(t, http.StatusTooManyRequests, got.code, string(got.body))
		require.Contains(t, string(got.body), httpapi.CodeTooManyOperations)
		require.NotEmpty(t, got.header.Get("Retry-After"))
	}
	require.Len(t, taken, limit)
	acmes.refused(httpapi.CodeNotFound, "GET", fmt.Sprintf("/v1/operations/acme:%d", refused[0]), "")
	acmes.status(http.StatusAccepted, "POST", path, body(taken[0])) // what is there already is answered as ever
	acmes.refused(httpapi.CodeConflict, "POST", path, strings.Replace(body(taken[0]), "1h", "2h", 1))
	acmes.as(rival).status(http.StatusAccepted, "POST", path, order("rival:0", "rival", `{}`, ""))
	acmes.as(operator).refused(httpapi.CodeTooManyOperations, "POST", path, body(refused[0]))

	// Another worker counts those of this one.
	other := b.caller(b.work(b.served(fmt.Sprintf("tenants: {default: {limits: {open_operations: %d}}}", limit))), acme)
	b.until("search has them all", func() bool {
		count, err := b.ops.Count(b.ctx, bellhop.Filter{Tenant: "acme", Open: true})
		return err == nil && count == limit
	})
	other.refused(httpapi.CodeTooManyOperations, "POST", path, body(refused[0]))

	acmes.status(http.StatusAccepted, "POST", fmt.Sprintf("%s/acme:%d/cancel", path, taken[0]), "")
	b.until("there is room again", func() bool {
		got, err := acmes.try(b.ctx, "POST", path, body(refused[0]))
		require.NoError(t, err)
		return got.code == http.StatusAccepted
	})
	acmes.refused(httpapi.CodeTooManyOperations, "POST", path, body(refused[1]))
}

// More operations than may be open at once, one after the other, are never refused: what has ended is not counted, however
// late search learns of it.
func TestTenants_ShortOperationsDoNotReachTheLimit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.work(b.served("tenants: {default: {limits: {open_operations: 4}}}"))
	acmes := b.caller(w, acme)
	for i := range 40 {
		id := fmt.Sprintf("acme:%d", i)
		acmes.status(http.StatusAccepted, "POST", "/v1/operations", order(id, "acme", `{}`, ""))
		require.Equal(t, bellhop.Succeeded, acmes.status(http.StatusOK, "GET", "/v1/operations/"+id+"?wait=30s", "").State)
	}
}

func TestTenants_ShareTheRequestsThatWait(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.work(b.served("tenants: {default: {limits: {waits: 2, requests: 1}}}"))
	acmes := b.caller(w, acme)
	rivals := acmes.as(rival)
	acmes.status(http.StatusAccepted, "POST", "/v1/operations", order("acme:slow", "acme", `{"ready_after": "1h"}`, ""))
	rivals.status(http.StatusAccepted, "POST", "/v1/operations", order("rival:slow", "rival", `{"ready_after": "1h"}`, ""))
	path := func(tenant, wait string) string {
		return "/v1/operations/" + tenant + ":slow?refresh=false&wait=" + wait
	}

	done := make(chan answer, 2)
	for range 2 {
		go func() {
			var got answer
			for got.code == 0 || got.code == http.StatusTooManyRequests { // who looks below may be in the way
				var err error
				if got, err = rivals.try(b.ctx, "GET", path("rival", "60s"), ""); err != nil {
					t.Errorf("who waits was cut off: %s", err)
					break
				}
			}
			done <- got
		}()
	}
	b.until("a rival's share is taken", func() bool {
		got, err := rivals.try(b.ctx, "GET", path("rival", "1ms"), "")
		require.NoError(t, err)
		return got.code == http.StatusTooManyRequests && strings.Contains(string(got.body), "wait for the tenant")
	})
	require.Equal(t, "5", rivals.call(http.StatusTooManyRequests, "GET", path("rival", "60s"), "").header.Get("Retry-After"))
	rivals.status(http.StatusOK, "GET", "/v1/operations/rival:slow", "") // who waits takes no other request's place
	acmes.status(http.StatusOK, "GET", path("acme", "1ms"), "")
	rivals.status(http.StatusAccepted, "POST", "/v1/operations/rival:slow/cancel", "")
	for range 2 {
		require.Equal(t, http.StatusOK, (<-done).code)
	}
	rivals.status(http.StatusOK, "GET", path("rival", "60s"), "")
}

// A rival sends the head of a request and no body, for as long as the server takes that.
func TestTenants_SlowRequestsTakeNobodyElsesPlaces(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.work(b.served("tenants: {default: {limits: {requests: 3}}}"))
	acmes := b.caller(w, acme)
	rivals := acmes.as(rival)
	var held []net.Conn
	for range 3 {
		conn, err := (&net.Dialer{}).DialContext(b.ctx, "tcp", w.API)
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() }) //nolint:errcheck // it may be closed already
		_, err = fmt.Fprintf(conn, "POST /v1/operations HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n", w.API, rival)
		require.NoError(t, err)
		line, err := bufio.NewReader(conn).ReadString('\n') // its handler reads
		require.NoError(t, err)
		require.Contains(t, line, "100 Continue")
		held = append(held, conn)
	}
	require.Equal(t, "1", rivals.call(http.StatusTooManyRequests, "GET", "/v1/operations", "").header.Get("Retry-After"))
	rivals.refused(httpapi.CodeTooManyRequests, "POST", "/v1/operations", order("rival:1", "rival", `{}`, ""))
	acmes.call(http.StatusOK, "GET", "/v1/operations", "")
	acmes.as(operator).call(http.StatusOK, "GET", "/v1/operations?tenant=rival", "")
	require.NoError(t, held[0].Close())
	rivals.call(http.StatusOK, "GET", "/v1/operations", "") // it waits its turn
}

func TestTenants_PriorityAndWeightReachTemporal(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.work(b.served("tenants: {default: {id_prefix: ''}, named: {acme: {weight: 2.5, priority: 2}, rival: {priority: 4}}}"))
	acmes := b.caller(w, acme)
	acmes.status(http.StatusAccepted, "POST", "/v1/operations", order("urgent", "acme", `{}`, `, "priority": 2`))
	acmes.status(http.StatusAccepted, "POST", "/v1/operations", order("usual", "acme", `{}`, ""))
	acmes.as(rival).status(http.StatusAccepted, "POST", "/v1/operations", order("late", "rival", `{}`, ""))
	_, err := b.client.ExecuteWorkflow(b.ctx, client.StartWorkflowOptions{ID: "direct", TaskQueue: workflows.TaskQueue}, workflows.TypeFor(bellhop.Provision),
		map[string]any{"tenant_id": "acme", "provider": "simulated", "priority": 5, "spec": map[string]any{"image": "nginx:1.27"}})
	require.NoError(t, err)

	for id, want := range map[string]*commonpb.Priority{
		"urgent": {PriorityKey: 2, FairnessKey: "acme", FairnessWeight: 2.5},
		"usual":  {FairnessKey: "acme", FairnessWeight: 2.5},
		"late":   {PriorityKey: 4, FairnessKey: "rival", FairnessWeight: 1},
		"direct": {PriorityKey: 5, FairnessKey: "acme"},
	} {
		b.closed(id)
		events := b.client.GetWorkflowHistory(b.ctx, id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			event, err := events.Next()
			require.NoError(t, err)
			if attributes := event.GetWorkflowExecutionStartedEventAttributes(); attributes != nil && id != "direct" {
				require.Empty(t, cmp.Diff(want, attributes.GetPriority(), protocmp.Transform()), id)
			}
			// An activity inherits from its workflow what it leaves out, which the server fills in where it dispatches it.
			if attributes := event.GetActivityTaskScheduledEventAttributes(); attributes != nil && id == "direct" {
				require.Empty(t, cmp.Diff(want, attributes.GetPriority(), protocmp.Transform()), id)
			}
		}
	}
}

// exhausted is a Temporal that takes no more.
type exhausted struct {
	workflowservice.UnimplementedWorkflowServiceServer
}

func (exhausted) GetSystemInfo(context.Context, *workflowservice.GetSystemInfoRequest) (*workflowservice.GetSystemInfoResponse, error) {
	return &workflowservice.GetSystemInfoResponse{Capabilities: &workflowservice.GetSystemInfoResponse_Capabilities{}}, nil
}

func (exhausted) StartWorkflowExecution(context.Context, *workflowservice.StartWorkflowExecutionRequest) (*workflowservice.StartWorkflowExecutionResponse, error) {
	return nil, status.Error(codes.ResourceExhausted, "namespace rate limit exceeded")
}

// The command line starts at Temporal itself, which says when it is asked for too much.
func TestTooMuch_HasAnExitCodeOfItsOwn(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer()
	workflowservice.RegisterWorkflowServiceServer(server, exhausted{})
	go server.Serve(listener) //nolint:errcheck // it is stopped
	t.Cleanup(server.Stop)
	b := &bench{T: t, ctx: t.Context(), server: &peers.Server{Address: listener.Addr().String()}}
	_, stderr, code := b.run(`{"tenant_id": "acme", "provider": "simulated", "spec": {"image": "nginx:1.27"}}`,
		"bellhop", "provision", "-f", "-", "--id", "web-1")
	require.Equal(t, 6, code, stderr)
	require.Contains(t, stderr, "namespace rate limit exceeded")
	require.Contains(t, stderr, "the command can be repeated as it is")
}

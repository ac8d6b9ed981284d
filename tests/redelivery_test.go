package tests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"bellhop"
)

// counter is a webhook receiver that counts what it is sent by id. It needs an operator while it is blocked.
type counter struct {
	*httptest.Server
	blocked atomic.Bool
	mu      sync.Mutex
	came    map[string]int
	bodies  map[string]string
}

func (b *bench) counter() *counter {
	c := &counter{came: map[string]int{}, bodies: map[string]string{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.blocked.Load() {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		var event struct{ Data json.RawMessage }
		_ = json.NewDecoder(r.Body).Decode(&event) //nolint:errcheck // an empty one is found by the test
		c.mu.Lock()
		defer c.mu.Unlock()
		c.came[r.Header.Get("Webhook-Id")]++
		c.bodies[r.Header.Get("Webhook-Id")] = string(event.Data)
	}))
	b.Cleanup(c.Close)
	return c
}

// Somebody redelivers over and over while operations end: none is told twice.
func TestRedeliveryOvertakesNoDelivery(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s, c := b.shop(), b.counter()
	b.work(b.config(noBackstop, "targets:\n"+s.target("hook", c.URL)))
	const n = 20
	ids := b.begins(n, "hurried", func(i int, id string) string {
		return strings.Replace(provision(id, `{"target": "hook"}`), `"spec"`, fmt.Sprintf(`"provider_config": {"ready_after": "%dms"}, "spec"`, 50*i), 1)
	})
	var hammers sync.WaitGroup
	for _, id := range ids {
		hammers.Go(func() {
			for deadline := time.Now().Add(soon); time.Now().Before(deadline); {
				_, err := b.ops.Redeliver(b.ctx, id, "")
				if report, told := b.ops.Status(b.ctx, id); err == nil && told == nil && report.Callbacks[0].State.Settled() {
					return
				}
			}
		})
	}
	hammers.Wait()
	for _, id := range ids {
		status := b.closed(id)
		require.Equal(t, bellhop.ReceiptAcknowledged, status.Callbacks[0].State)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	require.Len(t, c.came, n)
	for id, times := range c.came {
		require.Equal(t, 1, times, "%s was sent more than once", id)
	}
}

// A workflow that is terminated while it rings had told its outcome already: there is no other.
func TestTerminatedWhileItRings(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s, c := b.shop(), b.counter()
	c.blocked.Store(true)
	b.work(b.config(noBackstop, "targets:\n"+s.target("hook", c.URL)))
	id := b.begins(1, "cut", func(_ int, id string) string { return provision(id, `{"target": "hook"}`) })[0]
	b.until("the hook needs an operator", func() bool { return b.status(id).Callbacks[0].State == bellhop.ReceiptBlocked })
	told := b.status(id).Outcome
	require.NoError(t, b.client.TerminateWorkflow(b.ctx, id, "", "by mistake"))
	status := b.status(id)
	require.Equal(t, told, status.Outcome)
	require.Equal(t, bellhop.ReceiptUndeliverable, status.Callbacks[0].State)
	b.until("it is found", func() bool {
		stdout, _, _ := b.run("", "bellhop", "list", "--undelivered")
		return strings.Contains(stdout, id)
	})
	c.blocked.Store(false)
	stdout, stderr, code := b.run("", "bellhop", "redeliver", "--all", "--since", "1h")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, id+": ringing hook")
	b.until("it arrives", func() bool { return b.status(id).Callbacks[0].State == bellhop.ReceiptAcknowledged })
	rung, err := b.ops.Redeliver(b.ctx, id, "")
	require.NoError(t, err)
	require.Empty(t, rung)
	c.mu.Lock()
	defer c.mu.Unlock()
	body, err := json.Marshal(told)
	require.NoError(t, err)
	require.Equal(t, map[string]int{told.CallbackID: 1}, c.came)
	require.Equal(t, string(body), c.bodies[told.CallbackID])
}

// An activity whose first attempt failed after it had asked waits for its second one: it is not gone.
func TestActivityBetweenItsAttemptsIsNotGone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.work(b.config(noBackstop))
	w := worker.New(b.client, "retriers", worker.Options{})
	w.RegisterWorkflowWithOptions(func(ctx workflow.Context) (bellhop.Outcome, error) {
		ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
			ActivityID: "compute", StartToCloseTimeout: 2 * time.Minute, HeartbeatTimeout: 10 * time.Second,
			RetryPolicy: &temporal.RetryPolicy{InitialInterval: 6 * time.Second},
		})
		var outcome bellhop.Outcome
		err := workflow.ExecuteActivity(ctx, "ask").Get(ctx, &outcome)
		return outcome, err
	}, workflow.RegisterOptions{Name: "retrier"})
	w.RegisterActivityWithOptions(func(ctx context.Context) error {
		_, err := b.ops.Start(ctx, "retried", bellhop.Provision, []byte(`{"tenant_id": "acme", "provider": "simulated",
			"spec": {"image": "nginx:1.27"}, "provider_config": {"ready_after": "2s"}, "callbacks": [{"target": "temporal",
			"address": {"workflow_id": "retrier", "activity_id": "compute"}, "heartbeat": "1s", "on_abandoned": "cancel"}]}`))
		if err == nil && activity.GetInfo(ctx).Attempt == 1 {
			err = temporal.NewApplicationError("the answer of the start was lost", "LOST")
		}
		if err != nil {
			return err
		}
		return activity.ErrResultPending
	}, activity.RegisterOptions{Name: "ask"})
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)
	run, err := b.client.ExecuteWorkflow(b.ctx, client.StartWorkflowOptions{ID: "retrier", TaskQueue: "retriers"}, "retrier")
	require.NoError(t, err)
	var outcome bellhop.Outcome
	require.NoError(t, run.Get(b.ctx, &outcome))
	require.Equal(t, bellhop.Succeeded, outcome.State)
}

// Whoever announces a body and does not send it is not kept, whether a token came along or not.
func TestAPIKeepsNoConnectionForABodyThatDoesNotCome(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	b := setup(t)
	w := b.work(b.served())
	var open sync.WaitGroup
	for _, head := range []string{
		"POST /v1/operations HTTP/1.1\r\n",
		"POST /v1/operations HTTP/1.1\r\nAuthorization: Bearer " + acme + "\r\n",
		"GET /v1/operations HTTP/1.1\r\n",
		"POST /v1/operations/x/cancel HTTP/1.1\r\nAuthorization: Bearer " + acme + "\r\n",
	} {
		open.Go(func() {
			connection, err := net.Dial("tcp", w.API)
			if err != nil {
				t.Error(err)
				return
			}
			defer connection.Close() //nolint:errcheck // it is over
			_ = connection.SetDeadline(time.Now().Add(soon))
			_, _ = fmt.Fprintf(connection, "%sHost: x\r\nContent-Length: 1000\r\n\r\n{", head)
			buffer := make([]byte, 4096)
			for {
				if _, err := connection.Read(buffer); err != nil {
					if errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("%q is kept open", head)
					}
					return
				}
			}
		})
	}
	open.Wait()
}

package tests

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mr-tron/base58"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"bellhop"
	"bellhop/tests/peers"
)

// computeBench is a Restate server that knows the service Compute of bellhop's worker.
type computeBench struct {
	*bench
	restate *peers.Restate
	worker  *peers.Worker
	// config is the worker's, endpoint the URL of the service.
	config, endpoint string
}

// setupCompute starts everything. The handlers wait for callbacks long enough not to poll, but where the test says else.
func setupCompute(t *testing.T, as computeOptions) *computeBench {
	t.Helper()
	c := &computeBench{bench: setup(t), restate: peers.RestateFor(t, as.env...)}
	address := peers.FreeAddress(t)
	if as.ingress == "" {
		as.ingress = c.restate.Ingress
	}
	if as.more == "" {
		as.more = "poll_after: 1h"
	}
	c.config = c.bench.config(noBackstop, "targets: {restate: {type: restate, ingress: '"+as.ingress+"'}}",
		"restate: {listen: '"+address+"', target: restate, "+as.more+"}")
	c.worker = c.work(c.config)
	c.endpoint = "http://" + address
	require.NoError(t, c.restate.Register(t.Context(), c.endpoint))
	return c
}

type computeOptions struct {
	// env is more of Restate's environment.
	env []string
	// ingress is where bellhop takes Restate's ingress to be.
	ingress string
	// more is more of the endpoint's configuration.
	more string
}

// said is an answer of Restate's ingress.
type said struct {
	Status int
	Source string
	Body   string
}

func (s said) outcome(t *testing.T) bellhop.Outcome {
	t.Helper()
	require.Equal(t, http.StatusOK, s.Status, s.Body)
	var outcome bellhop.Outcome
	require.NoError(t, json.Unmarshal([]byte(s.Body), &outcome))
	return outcome
}

// call calls a handler through the ingress, as curl does.
func (c *computeBench) call(handler, body string, header ...string) said {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, soon)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.restate.Ingress+"/Compute/"+handler, strings.NewReader(body))
	require.NoError(c, err)
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(c, err)
	text, err := io.ReadAll(response.Body)
	require.NoError(c, errors.Join(err, response.Body.Close()))
	return said{response.StatusCode, response.Header.Get("X-Restate-Error-Source"), string(text)}
}

// send calls a handler and does not wait; it answers the invocation.
func (c *computeBench) send(handler, body string) string {
	c.Helper()
	answer := c.call(handler+"/send", body)
	require.Equal(c, http.StatusAccepted, answer.Status, answer.Body)
	var sent struct {
		InvocationID string `json:"invocationId"` //nolint:tagliatelle // Restate's
	}
	require.NoError(c, json.Unmarshal([]byte(answer.Body), &sent))
	return sent.InvocationID
}

// attach waits for what an invocation answers.
func (c *computeBench) attach(invocation string) said {
	c.Helper()
	var answer said
	c.until(invocation+" has ended", func() bool {
		response, err := http.Get(c.restate.Ingress + "/restate/invocation/" + invocation + "/output")
		if err != nil {
			return false
		}
		text, err := io.ReadAll(response.Body)
		require.NoError(c, errors.Join(err, response.Body.Close()))
		answer = said{response.StatusCode, response.Header.Get("X-Restate-Error-Source"), string(text)}
		return answer.Status != 470 // not ready
	})
	return answer
}

// awakeable is the id by which an operation's caller waits in Restate: it is in the operation's input, and a secret.
func (c *computeBench) awakeable(operation string) string {
	c.Helper()
	history := c.client.GetWorkflowHistory(c.ctx, operation, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	require.True(c, history.HasNext())
	event, err := history.Next()
	require.NoError(c, err)
	input := event.GetWorkflowExecutionStartedEventAttributes().GetInput().GetPayloads()[0].GetData()
	found := regexp.MustCompile(`sign_1[A-Za-z0-9_-]+`).Find(input)
	require.NotEmpty(c, found, "the operation has no awakeable: %s", input)
	return string(found)
}

func ask(resource, more string) string {
	return fmt.Sprintf(`{"tenant_id": "acme", "resource": %q, "provider": "simulated", "spec": {"image": "nginx:1.27"}%s}`, resource, more)
}

// TestRestateCallsIn calls every handler of the service Compute through Restate's ingress.
func TestRestateCallsIn(t *testing.T) {
	t.Parallel()
	c := setupCompute(t, computeOptions{})
	computeHandlers(t, c)

	t.Run("IdempotencyKey", func(t *testing.T) {
		before := c.operations()
		first := c.call("Provision", ask("once", ""), "Idempotency-Key", "once").outcome(t)
		again := c.call("Provision", ask("once", ""), "Idempotency-Key", "once").outcome(t)
		require.Equal(t, first, again)
		c.until("the operation is listed", func() bool { return c.operations() == before+1 })
	})
	t.Run("SecretsStayInside", func(t *testing.T) {
		outcome := c.call("Provision", ask("secret", "")).outcome(t)
		secret := c.awakeable(outcome.OperationID)
		c.until("its callback is settled", func() bool { return c.status(outcome.OperationID).Callbacks[0].State.Settled() })
		status := c.call("Status", `{"operation_id": "`+outcome.OperationID+`"}`)
		printed, _, code := c.run("", "bellhop", "status", outcome.OperationID, "-o", "json")
		require.Zero(t, code)
		metrics, err := http.Get("http://" + c.worker.Listen + "/metrics")
		require.NoError(t, err)
		text, err := io.ReadAll(metrics.Body)
		require.NoError(t, errors.Join(err, metrics.Body.Close()))
		require.NotContains(t, status.Body+printed+string(text)+c.worker.Output(), secret)
		// Nor can it be made out of the operation's id, which everybody may see.
		require.NotContains(t, outcome.OperationID, "inv_")
	})
}

// TestRestateCallsInAndReplays has every handler leave its memory with each step and come back by its journal.
func TestRestateCallsInAndReplays(t *testing.T) {
	t.Parallel()
	c := setupCompute(t, computeOptions{more: "poll_after: 1s"})
	require.NoError(t, c.restate.Forget(t.Context(), "Compute"))
	computeHandlers(t, c)
}

// TestRestateCallsInForItsTenants asks for the compute of a tenant that is not Restate's to ask for.
func TestRestateCallsInForItsTenants(t *testing.T) {
	t.Parallel()
	c := setupCompute(t, computeOptions{more: "tenants: [acme, acme-labs]"})
	require.Equal(t, bellhop.EventProvisioned, c.call("Provision", ask("web", `, "operation_id": "web-1"`)).outcome(t).Event)
	require.Equal(t, http.StatusOK, c.call("Status", `{"operation_id": "web-1"}`).Status)

	rivals := []byte(strings.Replace(ask("web", `, "provider_config": {"ready_after": "1h"}`), "acme", "rival", 1))
	_, err := c.ops.Start(c.ctx, "rival-1", bellhop.Provision, rivals)
	require.NoError(t, err)
	for handler, verb := range map[string]string{"Provision": "provision", "Delete": "delete", "Start": "provision"} {
		body := `{"tenant_id": "rival", "provider": "simulated", "operation_id": "rival-2", "operation_type": "` + verb + `"}`
		if verb == "provision" {
			body = strings.Replace(body, `{`, `{"spec": {"image": "nginx:1.27"}, `, 1)
		}
		got := c.call(handler, body)
		require.Equal(t, http.StatusBadRequest, got.Status, got.Body)
		require.Contains(t, got.Body, "tenant_id: must be one that may be acted for from here: acme, acme-labs")
	}
	for _, handler := range []string{"Status", "Cancel"} {
		none, others := c.call(handler, `{"operation_id": "nobody-1"}`), c.call(handler, `{"operation_id": "rival-1"}`)
		require.Equal(t, http.StatusNotFound, others.Status, others.Body)
		require.Equal(t, messageOf(t, strings.ReplaceAll(none.Body, "nobody", "rival")), messageOf(t, others.Body), "another's operation is none")
	}
	require.Equal(t, bellhop.Running, c.status("rival-1").State)
	_, err = c.ops.Status(c.ctx, "rival-2")
	require.ErrorIs(t, err, bellhop.ErrNotFound)
}

// messageOf is what an error of Restate's ingress says.
func messageOf(t *testing.T, body string) string {
	t.Helper()
	var said struct {
		Message string `json:"message"`
	}
	require.NoError(t, json.Unmarshal([]byte(body), &said), body)
	require.NotEmpty(t, said.Message)
	return said.Message
}

func computeHandlers(t *testing.T, c *computeBench) { //nolint:thelper // these are the tests
	t.Run("Life", func(t *testing.T) {
		for _, step := range []struct {
			handler, body string
			event         bellhop.Event
		}{
			{"Provision", ask("web", `, "operation_id": "web-1", "metadata": {"order": "42"}, "provider_config": {"ready_after": "2500ms"}`), bellhop.EventProvisioned},
			{"Update", ask("web", ""), bellhop.EventUpdated},
			{"Delete", `{"tenant_id": "acme", "resource": "web", "provider": "simulated"}`, bellhop.EventDeleted},
		} {
			outcome := c.call(step.handler, step.body).outcome(t)
			require.Equal(t, step.event, outcome.Event)
			if step.handler == "Provision" {
				require.Equal(t, "web-1", outcome.OperationID)
				require.Equal(t, map[string]string{"order": "42"}, outcome.Metadata)
			} else {
				require.Regexp(t, `^restate-[0-9a-f]{32}$`, outcome.OperationID)
			}
			require.Equal(t, outcome, c.status(outcome.OperationID).Outcome, "pushed and polled are the same")
		}
	})
	t.Run("FailureIsAResult", func(t *testing.T) {
		outcome := c.call("Provision", ask("full", `, "provider_config": {"fail": {"code": "CAPACITY_UNAVAILABLE", "after": "1s"}}`)).outcome(t)
		require.Equal(t, bellhop.Failed, outcome.State)
		require.True(t, outcome.Error.Retryable)
	})
	t.Run("Invalid", func(t *testing.T) {
		for _, handler := range []string{"Provision", "Start"} {
			answer := c.call(handler, `{"tenant": "acme", "operation_type": "provision", "timeout": "soon", "callbacks": [{}]}`)
			require.Equal(t, http.StatusBadRequest, answer.Status, answer.Body)
			require.Equal(t, "invocation", answer.Source)
			for _, fault := range []string{"INVALID_OPERATION", "provider: is required", "spec.image: is required", "tenant: is not a known field", "tenant_id: is required", "timeout: must be a duration", "callbacks[0].target: is required"} {
				require.Contains(t, answer.Body, fault, handler)
			}
		}
		require.Equal(t, http.StatusBadRequest, c.call("Provision", `[]`).Status)
		require.Equal(t, http.StatusBadRequest, c.call("Provision", `nonsense`).Status)
		require.Equal(t, http.StatusBadRequest, c.call("Start", ask("web", "")).Status, "what to do must be said")
	})
	t.Run("Conflict", func(t *testing.T) {
		first := ask("conflict", `, "operation_id": "conflict-1", "operation_type": "provision"`)
		for range 2 { // the same is no conflict
			answer := c.call("Start", first)
			require.Equal(t, http.StatusOK, answer.Status, answer.Body)
			require.JSONEq(t, `{"operation_id": "conflict-1"}`, answer.Body)
		}
		for _, handler := range []string{"Start", "Provision"} {
			answer := c.call(handler, ask("another", `, "operation_id": "conflict-1", "operation_type": "provision"`))
			require.Equal(t, http.StatusConflict, answer.Status, answer.Body)
			require.Contains(t, answer.Body, "the id belongs to another operation")
		}
	})
	t.Run("StatusAndCancel", func(t *testing.T) {
		answer := c.call("Start", ask("slow", `, "operation_id": "slow-1", "operation_type": "provision", "provider_config": {"ready_after": "1h"}`))
		require.Equal(t, http.StatusOK, answer.Status, answer.Body)
		reference := `{"operation_id": "slow-1"}`
		c.until("it runs", func() bool {
			var status bellhop.Status
			answer := c.call("Status", reference)
			require.NoError(t, json.Unmarshal([]byte(answer.Body), &status))
			return status.State == bellhop.Running && status.Progress.Desired == 1
		})
		require.Equal(t, http.StatusOK, c.call("Cancel", reference).Status)
		c.until("it is cancelled", func() bool { return c.status("slow-1").State == bellhop.Cancelled })
		require.Equal(t, http.StatusConflict, c.call("Cancel", reference).Status)
		for _, handler := range []string{"Status", "Cancel"} {
			require.Equal(t, http.StatusNotFound, c.call(handler, `{"operation_id": "nothing"}`).Status)
		}
	})
	t.Run("CancelledInvocation", func(t *testing.T) {
		invocation := c.send("Provision", ask("unwanted", `, "operation_id": "unwanted-1", "on_cancel": "remove", "provider_config": {"ready_after": "1h"}`))
		c.until("the operation runs", func() bool {
			report, err := c.ops.Status(c.ctx, "unwanted-1")
			return err == nil && report.State == bellhop.Running
		})
		require.NoError(t, c.restate.Cancel(t.Context(), invocation))
		answer := c.attach(invocation)
		require.Equal(t, http.StatusConflict, answer.Status, answer.Body)
		c.until("the operation is cancelled", func() bool { return c.status("unwanted-1").State == bellhop.Cancelled })
	})
}

// TestRestateCallsInThroughCrashes kills the worker that hosts the handlers, then Restate, while they wait.
func TestRestateCallsInThroughCrashes(t *testing.T) {
	t.Parallel()
	c := setupCompute(t, computeOptions{})
	const orders = 5
	var invocations []string
	for i := range orders {
		invocations = append(invocations, c.send("Provision", ask(fmt.Sprintf("order-%d", i), `, "provider_config": {"ready_after": "10s"}`)))
	}
	c.until("all have been started", func() bool { return c.operations() == orders })
	c.worker.Kill()
	c.worker = c.work(c.config)
	c.restate.Kill()
	require.NoError(t, c.restate.Restart(t.Context()))
	seen := map[string]bool{}
	for _, invocation := range invocations {
		outcome := c.attach(invocation).outcome(t)
		require.Equal(t, bellhop.Succeeded, outcome.State)
		require.False(t, seen[outcome.OperationID])
		seen[outcome.OperationID] = true
	}
	require.Equal(t, orders, c.operations(), "an operation was started twice")
}

// TestRestateCancelsWhatIsBeingStarted cancels an invocation whose operation is on its way to a Temporal server that has
// stalled: whether it arrives or not, nothing of it is left to run.
func TestRestateCancelsWhatIsBeingStarted(t *testing.T) {
	t.Parallel()
	c := setupCompute(t, computeOptions{})
	for i, handler := range []string{"Provision", "Start", "Provision", "Start"} {
		id := fmt.Sprintf("stalled-%d", i)
		require.NoError(t, syscall.Kill(c.server.PID(), syscall.SIGSTOP))
		invocation := c.send(handler, ask(id, `, "operation_id": "`+id+`", "operation_type": "provision", "provider_config": {"ready_after": "1h"}`))
		c.until("the operation is being started", func() bool {
			return strings.Contains(c.restate.Query(t, "SELECT entry_type, name FROM sys_journal WHERE id = '"+invocation+"'"), `"start"`)
		})
		require.NoError(t, c.restate.Cancel(t.Context(), invocation))
		c.until("the operation is being cancelled", func() bool {
			return strings.Contains(c.restate.Query(t, "SELECT entry_type, name FROM sys_journal WHERE id = '"+invocation+"'"), `"cancel"`)
		})
		require.NoError(t, syscall.Kill(c.server.PID(), syscall.SIGCONT))
		require.Equal(t, http.StatusConflict, c.attach(invocation).Status)
		c.until(id+" is cancelled or was never started", func() bool {
			report, err := c.ops.Status(c.ctx, id)
			return errors.Is(err, bellhop.ErrNotFound) || report.State == bellhop.Cancelled
		})
	}
}

// TestRestateCallsInThroughAnUpgrade stops the worker while a handler waits, as an upgrade does, and starts another.
func TestRestateCallsInThroughAnUpgrade(t *testing.T) {
	t.Parallel()
	c := setupCompute(t, computeOptions{})
	invocation := c.send("Provision", ask("web", `, "operation_id": "web-1", "provider_config": {"ready_after": "4s"}`))
	c.until("the operation has been started", func() bool { return c.operations() == 1 })
	began := time.Now()
	require.NoError(t, c.worker.Stop(soon))
	require.Less(t, time.Since(began), 20*time.Second, "a handler that waits must not hold the worker up")
	c.work(c.config)
	require.Equal(t, bellhop.Succeeded, c.attach(invocation).outcome(t).State)
}

// TestRestatePollsWhatIsLost has the callback of a handler that waits go nowhere.
func TestRestatePollsWhatIsLost(t *testing.T) {
	t.Parallel()
	c := setupCompute(t, computeOptions{ingress: "http://" + peers.FreeAddress(t), more: "poll_after: 1s"})
	outcome := c.call("Provision", ask("lost", `, "provider_config": {"ready_after": "1s"}`)).outcome(t)
	require.Equal(t, bellhop.Succeeded, outcome.State)
	require.Equal(t, bellhop.ReceiptDelivering, c.status(outcome.OperationID).Callbacks[0].State)
}

// TestRestateProvesItself has the service listen beyond loopback, where only requests that Restate signed are answered.
func TestRestateProvesItself(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "identity.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	c := setupCompute(t, computeOptions{
		env:  []string{"RESTATE_REQUEST_IDENTITY_PRIVATE_KEY_PEM_FILE=" + file},
		more: "identity_keys: [publickeyv1_" + base58.Encode(public) + "]",
	})
	require.Equal(t, bellhop.Succeeded, c.call("Provision", ask("web", "")).outcome(t).State)

	stranger := peers.RestateFor(t)
	require.ErrorContains(t, stranger.Register(t.Context(), c.endpoint), "401")
}

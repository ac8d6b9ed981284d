package tests

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/restatedev/sdk-go"
	restateserver "github.com/restatedev/sdk-go/server"
	"github.com/stretchr/testify/require"

	"bellhop"
	"bellhop/tests/peers"
)

// Order is a caller that lives in Restate.
type Order struct {
	// start starts an operation whose callback resolves an awakeable.
	start func(id, awakeable string) error
	ended chan bellhop.Outcome
}

// Place asks for compute, waits for it and tells how it ended.
func (o *Order) Place(ctx restate.Context, id string) (bellhop.Outcome, error) {
	awakeable := restate.Awakeable[bellhop.Outcome](ctx)
	if _, err := restate.Run(ctx, func(restate.RunContext) (restate.Void, error) {
		return restate.Void{}, o.start(id, awakeable.Id())
	}); err != nil {
		return bellhop.Outcome{}, err
	}
	outcome, err := awakeable.Result()
	if err != nil {
		return outcome, err
	}
	_, err = restate.Run(ctx, func(restate.RunContext) (restate.Void, error) {
		o.ended <- outcome
		return restate.Void{}, nil
	})
	return outcome, err
}

// serve serves services to a Restate server, and waits until it knows them.
func (b *bench) serve(r *peers.Restate, services ...any) {
	b.Helper()
	ports, err := peers.FreePorts(1)
	require.NoError(b, err)
	endpoint := restateserver.NewRestate().WithLogger(slog.DiscardHandler, true)
	for _, service := range services {
		endpoint = endpoint.Bind(restate.Reflect(service))
	}
	serving, stop := context.WithCancel(context.WithoutCancel(b.ctx))
	stopped := make(chan error, 1)
	go func() { stopped <- endpoint.Start(serving, ports[0]) }()
	b.Cleanup(func() { stop(); <-stopped })
	b.until("Restate knows the handlers", func() bool { return r.Register(b.ctx, "http://"+ports[0]) == nil })
}

// TestRestateIsCalledBack has handlers in Restate wait for operations, while Restate itself is killed and comes back.
func TestRestateIsCalledBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := peers.RestateFor(t)
	worker := b.work(b.config(noBackstop, "targets: {restate: {type: restate, ingress: '"+r.Ingress+"'}}"))
	tokens := make(chan string, 100)
	order := &Order{
		ended: make(chan bellhop.Outcome, 100),
		start: func(id, awakeable string) error {
			tokens <- awakeable
			_, err := b.ops.Start(b.ctx, id, bellhop.Provision, fmt.Appendf(nil, `{"tenant_id": "acme", "resource": %q,
				"provider": "simulated", "spec": {"image": "nginx:1.27"}, "provider_config": {"ready_after": "5s"},
				"callbacks": [{"target": "restate", "address": {"awakeable": %q}}]}`, id, awakeable))
			return err
		},
	}
	b.serve(r, order)

	const orders = 10
	wanted := map[string]bool{}
	for i := range orders {
		id := fmt.Sprintf("order-%d", i)
		wanted[id] = true
		body := fmt.Sprintf("%q", id)
		response, err := http.Post(r.Ingress+"/Order/Place/send", "application/json", strings.NewReader(body)) //nolint:noctx // a test
		require.NoError(t, err)
		require.Equal(t, http.StatusAccepted, response.StatusCode)
		require.NoError(t, response.Body.Close())
	}
	var secrets []string
	for range orders {
		secrets = append(secrets, <-tokens)
	}
	r.Kill()
	b.until("an operation has ended and cannot ring", func() bool {
		for id := range wanted {
			report, err := b.ops.Status(b.ctx, id) // the last may not be started yet
			if err == nil && report.Callbacks[0].State == bellhop.ReceiptDelivering && report.Callbacks[0].LastError != "" {
				return true
			}
		}
		return false
	})
	require.NoError(t, r.Restart(t.Context()))

	for range orders {
		outcome := <-order.ended
		if !wanted[outcome.OperationID] || outcome.State != bellhop.Succeeded {
			t.Errorf("%s is told to have %s: it was told already, or did not", outcome.OperationID, outcome.State)
		}
		delete(wanted, outcome.OperationID)
	}
	for i := range orders {
		id := fmt.Sprintf("order-%d", i)
		b.until(id+" is settled", func() bool { return b.status(id).Callbacks[0].State == bellhop.ReceiptAccepted })
		said, _, code := b.run("", "bellhop", "status", id, "-o", "json")
		require.Zero(t, code)
		metrics, err := http.Get("http://" + worker.Listen + "/metrics") //nolint:noctx // a test
		require.NoError(t, err)
		text, err := io.ReadAll(metrics.Body)
		require.NoError(t, errors.Join(err, metrics.Body.Close()))
		for _, secret := range secrets {
			require.NotContains(t, said+string(text)+worker.Output(), secret, "an awakeable's id shows")
		}
	}
}

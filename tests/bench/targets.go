package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sfn"
	"github.com/restatedev/sdk-go"
	restateserver "github.com/restatedev/sdk-go/server"

	"bellhop"
	"bellhop/tests/peers"
)

// engine is who is called back through one target.
type engine struct {
	target string
	// callers finds callers for n operations, before the clock runs: their addresses. Nil: the target needs none.
	callers func(ctx context.Context, n int) ([]string, error)
	// told counts the callbacks that its code saw.
	told func() int64
}

// Desk is a service in Restate that is called back.
type Desk struct{ told *atomic.Int64 }

// Told is called with an outcome.
func (d Desk) Told(restate.Context, bellhop.Outcome) error { //nolint:unparam // Restate's signature
	d.told.Add(1)
	return nil
}

// withEngines starts whom the targets call back. There is one that is dead: it takes connections and never answers.
func (b *bench) withEngines(ctx context.Context, folder string) error {
	key := filepath.Join(folder, "key")
	text := "whsec_" + base64.StdEncoding.EncodeToString([]byte("a key that opens nothing, 32 b.."))
	if err := os.WriteFile(key, []byte(text), 0o600); err != nil {
		return err
	}
	var hooked atomic.Int64
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) //nolint:errcheck // that it came is what counts
		hooked.Add(1)
	}))
	defer hook.Close()
	dead := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) //nolint:errcheck // nobody wants it
		<-r.Context().Done()
	}))
	defer dead.Close()
	defer dead.CloseClientConnections()
	const webhook = "  %s: {type: webhook, url: '%s', key_file: %s, allow: [127.0.0.0/8]}\n"
	config := "targets:\n  temporal: {type: temporal}\n" + fmt.Sprintf(webhook, "webhook", hook.URL, key) + fmt.Sprintf(webhook, "dead", dead.URL, key)
	b.engines = []*engine{
		{"temporal", same(func(i int) string { return fmt.Sprintf(`{"workflow_id": %q}`, receiver(i)) }), b.total.Load},
		{"webhook", nil, hooked.Load},
	}
	server, err := peers.StartRestate(ctx, filepath.Join(folder, "restate"))
	switch {
	case errors.Is(err, peers.ErrNoRestate):
		fmt.Printf("restate is left out: %s\n\n", err)
	case err != nil:
		return err
	default:
		defer server.Kill()
		desk := Desk{told: new(atomic.Int64)}
		stop, err := serve(ctx, server, desk)
		if err != nil {
			return err
		}
		defer stop()
		config += "  restate: {type: restate, ingress: '" + server.Ingress + "'}\n"
		b.engines = append(b.engines, &engine{"restate", same(func(int) string { return `{"service": "Desk", "handler": "Told"}` }), desk.told.Load})
	}
	machines, err := peers.StartStepFunctions(ctx, folder)
	switch {
	case errors.Is(err, peers.ErrNoStepFunctions):
		fmt.Printf("stepfunctions is left out: %s\n\n", err)
	case err != nil:
		return err
	default:
		defer machines.Kill()
		e, endpoint, stop, err := waitingTasks(ctx, machines)
		if err != nil {
			return err
		}
		defer stop()
		for key, value := range map[string]string{"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"} {
			if err := os.Setenv(key, value); err != nil { // the worker inherits it
				return err
			}
		}
		config += fmt.Sprintf("  stepfunctions: {type: stepfunctions, region: %s, endpoint: '%s'}\n", peers.StepFunctionsRegion, endpoint)
		b.engines = append(b.engines, e)
	}
	return b.run(ctx, "", config, b.targets)
}

// same finds callers that wait already.
func same(address func(i int) string) func(context.Context, int) ([]string, error) {
	return func(_ context.Context, n int) ([]string, error) {
		addresses := make([]string, n)
		for i := range addresses {
			addresses[i] = address(i)
		}
		return addresses, nil
	}
}

// waitingTasks makes an engine of state machines that each wait in a task. It is reached through a proxy that counts the
// answers which say that a task has ended.
func waitingTasks(ctx context.Context, machines *peers.StepFunctions) (*engine, string, func(), error) {
	behind, err := url.Parse(machines.Endpoint)
	if err != nil {
		return nil, "", nil, err
	}
	var ended atomic.Int64
	front := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(behind) },
		ModifyResponse: func(r *http.Response) error {
			if r.StatusCode == http.StatusOK && r.Request.Header.Get("X-Amz-Target") == "AWSStepFunctions.SendTaskSuccess" {
				ended.Add(1)
			}
			return nil
		},
	})
	activity, err := machines.Activity(ctx, "compute")
	if err != nil {
		return nil, "", nil, err
	}
	machine, err := machines.StateMachine(ctx, "compute",
		fmt.Sprintf(`{"StartAt": "Compute", "States": {"Compute": {"Type": "Task", "Resource": %q, "End": true}}}`, activity))
	if err != nil {
		return nil, "", nil, err
	}
	var serial atomic.Int64
	callers := func(ctx context.Context, n int) ([]string, error) {
		addresses := make([]string, n)
		err := each(ctx, starters, n, func(ctx context.Context, i int) error {
			if _, err := machines.Run(ctx, machine, fmt.Sprintf("waits-%d", serial.Add(1)), "{}"); err != nil {
				return err
			}
			for {
				task, err := machines.Client.GetActivityTask(ctx, &sfn.GetActivityTaskInput{ActivityArn: &activity})
				if err != nil {
					return err
				}
				if task.TaskToken != nil {
					addresses[i] = fmt.Sprintf(`{"task_token": %q}`, *task.TaskToken)
					return nil
				}
			}
		})
		return addresses, err
	}
	return &engine{"stepfunctions", callers, ended.Load}, front.URL, front.Close, nil
}

// serve serves a service to Restate, and waits until Restate knows it.
func serve(ctx context.Context, server *peers.Restate, service any) (stop func(), err error) {
	ports, err := peers.FreePorts(1)
	if err != nil {
		return nil, err
	}
	serving, end := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- restateserver.NewRestate().WithLogger(slog.DiscardHandler, true).Bind(restate.Reflect(service)).Start(serving, ports[0])
	}()
	stop = func() { end(); <-ended }
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if err = server.Register(ctx, "http://"+ports[0]); err == nil {
			return stop, nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			stop()
			return nil, err
		}
	}
}

// toldBy starts an operation for each caller of an engine, and waits until it saw all of their callbacks.
func (b *bench) toldBy(ctx context.Context, e *engine, callers []string) ([]string, error) {
	n := len(callers)
	want := e.told() + int64(n)
	ids := make([]string, n)
	if err := each(ctx, starters, n, func(ctx context.Context, i int) error {
		ids[i] = fmt.Sprintf("%s-%d", e.target, b.serial.Add(1))
		return b.call(ctx, e, ids[i], i, callers[i])
	}); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(10 * time.Minute); e.told() < want; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%s was not told of %d operations", e.target, want-e.told())
		}
	}
	return ids, nil
}

// call starts the ith operation, which calls an engine back at an address; the empty one is none.
func (b *bench) call(ctx context.Context, e *engine, id string, i int, address string) error {
	if address != "" {
		address = `, "address": ` + address
	}
	_, err := b.ops.Start(ctx, id, bellhop.Provision, fmt.Appendf(nil, `{"tenant_id": "t%d", "resource": %q, "provider": "simulated",
		"spec": {"image": "nginx:1.27"}, "callbacks": [{"target": %q%s}]}`, i%10, id, e.target, address))
	return err
}

// lags are how long after their operations' ends callbacks were acknowledged.
func (b *bench) lags(ctx context.Context, ids []string) ([]time.Duration, error) {
	lags := make([]time.Duration, len(ids))
	err := each(ctx, starters, len(ids), func(ctx context.Context, i int) error {
		for {
			report, err := b.ops.Status(ctx, ids[i])
			if err != nil {
				return err
			}
			if receipt := report.Callbacks[0]; receipt.State.Settled() {
				lags[i] = receipt.AcknowledgedAt.Sub(report.FinishedAt)
				return nil
			}
		}
	})
	return lags, err
}

// targets measures what each target takes, alone and while another one is dead.
func (b *bench) targets(ctx context.Context) error {
	rounds := max(3, b.rounds/3)
	fmt.Printf("## Targets: %d operations a round that are ready at once, %d rounds of each in turn\n\n", b.n, rounds)
	fmt.Println("From the first request to the last callback received, and from an operation's end to its callback acknowledged.")
	fmt.Println("\n| target | callbacks/s, median | ratio to the floor | lag p50 | lag p99 |\n|---|---|---|---|---|")
	if err := b.inTurn(ctx, rounds, ""); err != nil {
		return err
	}
	const held = 100
	dead := &engine{target: "dead"}
	if err := each(ctx, starters, held, func(ctx context.Context, i int) error {
		return b.call(ctx, dead, fmt.Sprintf("dead-%d", b.serial.Add(1)), i, "")
	}); err != nil {
		return err
	}
	if err := b.inTurn(ctx, rounds, fmt.Sprintf(", beside a dead one that holds %d", held)); err != nil {
		return err
	}
	fmt.Println()
	return nil
}

func (b *bench) inTurn(ctx context.Context, rounds int, how string) error {
	floor := shape{name: "floor ready at once", floor: true, readyAfter: "0s"}
	rates, lags := map[string][]float64{}, map[string][]time.Duration{}
	for round := range rounds + 1 { // the first warms up
		began := time.Now()
		if err := b.push(ctx, floor, b.n); err != nil {
			return err
		}
		least := float64(b.n) / time.Since(began).Seconds()
		if round > 0 {
			rates["floor"] = append(rates["floor"], least)
		}
		for _, e := range b.engines {
			callers := make([]string, b.n)
			if e.callers != nil {
				var err error
				if callers, err = e.callers(ctx, b.n); err != nil {
					return err
				}
			}
			began := time.Now()
			ids, err := b.toldBy(ctx, e, callers)
			if err != nil {
				return err
			}
			rate := float64(b.n) / time.Since(began).Seconds()
			took, err := b.lags(ctx, ids)
			if err != nil {
				return err
			}
			if round > 0 {
				rates[e.target] = append(rates[e.target], rate)
				rates[e.target+" ratio"] = append(rates[e.target+" ratio"], rate/least)
				lags[e.target] = append(lags[e.target], took...)
			}
		}
	}
	fmt.Printf("| floor%s | %.1f | 1 | | |\n", how, median(rates["floor"]))
	for _, e := range b.engines {
		ratios := rates[e.target+" ratio"]
		fmt.Printf("| %s%s | %.1f | %.2f (%.2f–%.2f) | %s | %s |\n", e.target, how, median(rates[e.target]), median(ratios),
			slices.Min(ratios), slices.Max(ratios), ms(percentile(lags[e.target], 50)), ms(percentile(lags[e.target], 99)))
	}
	return nil
}

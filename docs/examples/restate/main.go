// Command restate is a Restate service that uses bellhop: it serves the handler of order.go, makes it known to Restate,
// and places one order.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/restatedev/sdk-go"
	"github.com/restatedev/sdk-go/ingress"
	"github.com/restatedev/sdk-go/server"

	"bellhop"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("restate", flag.ContinueOnError)
	flags.SetOutput(stderr)
	id := flags.String("id", fmt.Sprintf("order-%d", time.Now().Unix()), "the order's `id`, by which it is placed only once")
	tenant := flags.String("tenant", "acme", "whose `name` the compute is under")
	resource := flags.String("resource", "web", "the compute's `name`")
	provider := flags.String("provider", "simulated", "`name` of a provider in the configuration of bellhop's worker")
	image := flags.String("image", "nginx:1.27", "container `image` to run")
	first := flags.String("first-attempt", `{"ready_after": "2s"}`, "provider_config of the first attempt, as `JSON`")
	patience := flags.Duration("patience", 2*time.Minute, "how `long` to wait for a callback before the status is polled")
	ingressURL := flags.String("ingress", cmp.Or(os.Getenv("RESTATE_INGRESS_URL"), "http://127.0.0.1:8080"), "`URL` of Restate's ingress")
	adminURL := flags.String("admin", cmp.Or(os.Getenv("RESTATE_ADMIN_URL"), "http://127.0.0.1:9070"), "`URL` of Restate's admin API")
	if err := flags.Parse(args); err != nil {
		return err
	}
	order := Order{
		ID: *id, Tenant: *tenant, Resource: *resource, Provider: *provider, Patience: bellhop.Duration(*patience),
		Spec: bellhop.Spec{Image: *image},
	}
	if *first != "" {
		order.FirstAttempt = json.RawMessage(*first)
	}

	address, err := serve(stderr)
	if err != nil {
		return err
	}
	if err := register(ctx, *adminURL, "http://"+address); err != nil {
		return err
	}
	delivery, err := ingress.Service[Order, Delivery](ingress.NewClient(*ingressURL), "Orders", "Place").
		Request(ctx, order, restate.WithIdempotencyKey(*id))
	if err != nil {
		return fmt.Errorf("place %s: %w", *id, err)
	}
	out := json.NewEncoder(stdout)
	out.SetIndent("", "  ")
	return out.Encode(delivery)
}

// serve serves the handler until the process ends, at any free port of this machine.
func serve(stderr io.Writer) (string, error) {
	logger := slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelError})
	handler, err := server.NewRestate().WithLogger(logger, true).Bind(restate.Reflect(Orders{})).Handler()
	if err != nil {
		return "", err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	orders := &http.Server{Handler: handler, Protocols: &protocols, ReadHeaderTimeout: 5 * time.Second}
	go orders.Serve(listener) //nolint:errcheck // it ends with the process
	return listener.Addr().String(), nil
}

// register makes the service known to Restate, as `restate deployments register` does.
func register(ctx context.Context, admin, uri string) error {
	body, err := json.Marshal(map[string]string{"uri": uri})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, admin+"/deployments", bytes.NewReader(body)) //nolint:gosec // the user names the server
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	client := &http.Client{Timeout: 10 * time.Second}
	response, err := client.Do(request) //nolint:gosec // as above
	if err != nil {
		return fmt.Errorf("register the service: %w\nstart Restate, or set RESTATE_ADMIN_URL", err)
	}
	defer response.Body.Close() //nolint:errcheck // only the status matters
	if response.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("register the service: Restate answers %s", response.Status)
	}
	return nil
}

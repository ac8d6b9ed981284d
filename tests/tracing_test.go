package tests

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"bellhop"
)

// traces is an OpenTelemetry collector.
type traces struct {
	collector.UnimplementedTraceServiceServer

	mu   sync.Mutex
	seen strings.Builder
	// names are those of the spans, by trace.
	names map[string]map[string]bool
}

func (c *traces) Export(_ context.Context, in *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen.WriteString(protojson.Format(in))
	for _, resource := range in.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				trace := string(span.GetTraceId())
				if c.names[trace] == nil {
					c.names[trace] = map[string]bool{}
				}
				c.names[trace][span.GetName()] = true
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// has says whether one trace has all of the spans.
func (c *traces) has(names ...string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, trace := range c.names {
		all := true
		for _, name := range names {
			all = all && trace[name]
		}
		if all {
			return true
		}
	}
	return false
}

// trace starts a collector and tells the configuration of a worker that sends to it.
func (b *bench) trace() (*traces, string) {
	b.Helper()
	listener, err := new(net.ListenConfig).Listen(b.ctx, "tcp", "127.0.0.1:0")
	require.NoError(b, err)
	c := &traces{names: map[string]map[string]bool{}}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, c)
	go server.Serve(listener) //nolint:errcheck // it ends with the test
	b.Cleanup(server.Stop)
	return c, "tracing: {endpoint: 'http://" + listener.Addr().String() + "'}"
}

func TestTracing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got := b.call("caller")
	c, tracing := b.trace()
	b.work(b.config(tracing))
	const secret = "hunter2-but-longer" //nolint:gosec // it opens nothing
	_, err := b.ops.Start(b.ctx, "traced", bellhop.Provision, []byte(`{"tenant_id": "acme", "resource": "traced",
		"provider": "simulated", "spec": {"image": "nginx:1.27", "replicas": 1, "env": {"PASSWORD": "`+secret+`"}},
		"callbacks": [{"target": "temporal", "address": {"workflow_id": "caller"}}]}`))
	require.NoError(t, err)
	b.settle([]string{"traced"}, got)

	b.until("one trace leads from the operation to its callback", func() bool {
		return c.has("RunWorkflow:ProvisionCompute", "RunActivity:Provision", "RunActivity:Deliver")
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	require.Contains(t, c.seen.String(), "bellhop-worker", "the spans tell the service that they are from")
	require.NotContains(t, c.seen.String(), secret)
}

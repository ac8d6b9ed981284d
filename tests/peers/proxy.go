package peers

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"

	"go.temporal.io/api/proxy"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// SignalHook decides what becomes of a signal on its way to the server. It may forward it, and it may answer as it
// likes whatever became of it.
type SignalHook func(in *workflowservice.SignalWorkflowExecutionRequest, forward func() error) error

// Proxy stands between a target of a worker and the Temporal server, where answers can get lost.
type Proxy struct {
	workflowservice.WorkflowServiceServer
	Address string

	upstream workflowservice.WorkflowServiceClient
	hook     atomic.Pointer[SignalHook]
	server   *grpc.Server
	conn     *grpc.ClientConn
}

// StartProxy starts a proxy in front of a server.
func StartProxy(temporal string) (*Proxy, error) {
	conn, err := grpc.NewClient(temporal, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	upstream := workflowservice.NewWorkflowServiceClient(conn)
	all, err := proxy.NewWorkflowServiceProxyServer(proxy.WorkflowServiceProxyOptions{Client: upstream})
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		WorkflowServiceServer: all,
		Address:               listener.Addr().String(),
		upstream:              upstream,
		server:                grpc.NewServer(),
		conn:                  conn,
	}
	workflowservice.RegisterWorkflowServiceServer(p.server, p)
	go func() { _ = p.server.Serve(listener) }() // ends with Close
	return p, nil
}

// Hook sets what happens to signals from now on; nil forwards them.
func (p *Proxy) Hook(hook SignalHook) {
	if hook == nil {
		p.hook.Store(nil)
		return
	}
	p.hook.Store(&hook)
}

// SignalWorkflowExecution is part of the service.
func (p *Proxy) SignalWorkflowExecution(ctx context.Context, in *workflowservice.SignalWorkflowExecutionRequest,
) (*workflowservice.SignalWorkflowExecutionResponse, error) {
	var out *workflowservice.SignalWorkflowExecutionResponse
	forward := func() (err error) {
		out, err = p.upstream.SignalWorkflowExecution(ctx, in)
		return err
	}
	if hook := p.hook.Load(); hook != nil {
		return out, (*hook)(in, forward)
	}
	return out, forward()
}

// Close ends the proxy.
func (p *Proxy) Close() {
	p.server.Stop()
	_ = p.conn.Close() // it is done with
}

// Profile writes a temporal.toml in folder whose profile "proxied" leads through the proxy, and returns its path, for
// TEMPORAL_CONFIG_FILE.
func (p *Proxy) Profile(folder string) (string, error) {
	file := filepath.Join(folder, "temporal.toml")
	text := fmt.Sprintf("[profile.proxied]\naddress = %q\nnamespace = \"default\"\n", p.Address)
	return file, os.WriteFile(file, []byte(text), 0o600)
}

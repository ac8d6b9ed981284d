package peers

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"go.temporal.io/api/proxy"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
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
	lose     atomic.Pointer[func(request any) bool]
	listener *resettable
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
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	listener := &resettable{Listener: plain, conns: map[net.Conn]bool{}}
	p := &Proxy{
		listener:              listener,
		WorkflowServiceServer: all,
		Address:               listener.Addr().String(),
		upstream:              upstream,
		conn:                  conn,
	}
	p.server = grpc.NewServer(grpc.UnaryInterceptor(p.answer))
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

// Lose lets requests that lose chooses be applied, and the connection be reset before their answer.
func (p *Proxy) Lose(lose func(request any) bool) { p.lose.Store(&lose) }

func (p *Proxy) answer(ctx context.Context, request any, _ *grpc.UnaryServerInfo, forward grpc.UnaryHandler) (any, error) {
	answer, err := forward(ctx, request)
	if lose := p.lose.Load(); lose != nil && err == nil && (*lose)(request) {
		p.Reset() // others lose their answers with this one
		return nil, status.Error(codes.Unavailable, "reset")
	}
	return answer, err
}

// Reset breaks the connections to the proxy. Whatever is under way on them gets no answer.
func (p *Proxy) Reset() { p.listener.reset() }

// resettable remembers the connections that it has accepted.
type resettable struct {
	net.Listener
	mu    sync.Mutex
	conns map[net.Conn]bool
}

func (r *resettable) Accept() (net.Conn, error) {
	conn, err := r.Listener.Accept()
	if err == nil {
		r.mu.Lock()
		r.conns[conn] = true
		r.mu.Unlock()
	}
	return conn, err
}

func (r *resettable) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn := range r.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // it is closed all the same
		}
		_ = conn.Close() // it may be closed already
		delete(r.conns, conn)
	}
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

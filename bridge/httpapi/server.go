package httpapi

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"
	"sigs.k8s.io/yaml"

	"bellhop"
	"bellhop/bridge"
	"bellhop/internal/tenancy"
)

//go:embed openapi.yaml
var document []byte

// Times of the server.
const (
	// answerWithin bounds what Temporal may take, besides the time that a caller asked to wait.
	answerWithin = 10 * time.Second
	// readHeadWithin bounds how long the head of a request may take to arrive.
	readHeadWithin = 5 * time.Second
	// writeWithin is counted from the head of the request on and so has room for the longest wait.
	writeWithin = MaxWait + 5*answerWithin
	idleFor     = 2 * time.Minute
	// maxHeaderBytes is far more than a token and a page's token take.
	maxHeaderBytes = 32 << 10
)

// Observe is told of every request that was answered: its route's method and path, both empty when there is no such route,
// the HTTP status and how long it took.
type Observe func(ctx context.Context, method, route string, status int, took time.Duration)

// Server serves the API.
type Server struct {
	config  Config
	ops     bridge.Operations
	policy  *tenancy.Policy
	tokens  tokens
	logger  *slog.Logger
	observe Observe
	mux     *http.ServeMux
	codec   *codecEndpoint // nil where it is not served
	waits   *semaphore.Weighted
	// waiting and asking are each tenant's shares of the requests that wait, and of those that do not.
	waiting, asking shares
	// stopping ends when the server is told to stop: who waits is answered then.
	stopping context.Context
	answer   context.CancelFunc
	stop     func() error
	address  string
}

// New makes a server of a configuration that is in order, see [Config.Check], for tenants who are bounded by a policy. It
// does not listen yet.
func New(config Config, ops bridge.Operations, policy *tenancy.Policy, logger *slog.Logger, observe Observe) (*Server, error) {
	asJSON, err := yaml.YAMLToJSON(document)
	if err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	known, err := config.openTokens()
	if err != nil {
		return nil, fmt.Errorf("read tokens_file: %w", err)
	}
	s := &Server{
		config: config, ops: ops, policy: policy, tokens: known, logger: logger, observe: observe,
		mux: http.NewServeMux(), waits: semaphore.NewWeighted(int64(cmp.Or(config.Waits, DefaultWaits))),
	}
	s.stopping, s.answer = context.WithCancel(context.Background())
	for pattern, handle := range map[string]func(http.ResponseWriter, *http.Request) error{
		"POST /v1/operations":                s.start,
		"GET /v1/operations":                 s.list,
		"GET /v1/operations/{id}":            s.status,
		"POST /v1/operations/{id}/cancel":    s.cancel,
		"POST /v1/operations/{id}/redeliver": s.redeliver,
		"GET /openapi.yaml":                  static("application/yaml", document),
		"GET /openapi.json":                  static("application/json", asJSON),
	} {
		s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := handle(w, r); err != nil {
				s.fail(w, r, err)
			}
		})
	}
	return s, nil
}

func static(kind string, text []byte) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Type", kind)
		_, err := w.Write(text)
		return gone(err)
	}
}

// stopWithin is how long the answers to requests may take that are under way when the server is told to stop.
const stopWithin = 5 * time.Second

// Listen begins to serve. failed is told when that ends by itself.
func (s *Server) Listen(failed func(error)) error {
	listener, err := net.Listen("tcp", s.config.Listen)
	if err != nil {
		return fmt.Errorf("listen for the API: %w", err)
	}
	s.address = listener.Addr().String()
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: readHeadWithin,
		WriteTimeout:      writeWithin,
		IdleTimeout:       idleFor,
		MaxHeaderBytes:    maxHeaderBytes,
		// Whoever knocks with something else than HTTP or TLS is no news.
		ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}
	if s.config.TLS != nil {
		config, err := s.config.TLS.open()
		if err != nil {
			return errors.Join(fmt.Errorf("listen for the API: %w", err), listener.Close())
		}
		encrypted := &tlsListener{Listener: listener, config: config}
		server.Handler, server.ConnContext, listener = encrypted.follow(s), encrypted.note, encrypted
	}
	s.stop = bridge.Serve(server, listener, stopWithin, func(err error) { failed(fmt.Errorf("serve the API: %w", err)) })
	return nil
}

// Address is where it listens.
func (s *Server) Address() string { return s.address }

// Stop takes no more requests and waits for the answers to those that were taken. Who waits for an operation to end is
// answered at once. The error says that some were cut off.
func (s *Server) Stop() error {
	s.answer()
	return s.stop()
}

// ServeHTTP lets in who has a token and answers.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	recorded := &recorder{ResponseWriter: w}
	_, pattern := s.mux.Handler(r)
	if given := r.URL.EscapedPath(); path.Clean(given) != given {
		pattern = "" // where the mux would send a browser to the path that was probably meant
	}
	asks := s.tokens.find(r)
	if asks == nil {
		asks = s.codec.signedIn(r, s.tokens)
	}
	r = r.WithContext(withCaller(r.Context(), asks))
	if r.ContentLength != 0 {
		// Whether it is read or not: a server waits for the rest of a body before it ends a connection. A server-wide limit
		// would also end the requests that wait for an operation to end.
		_ = http.NewResponseController(w).SetReadDeadline(began.Add(readWithin)) //nolint:errcheck // every connection has deadlines
	}
	defer func() {
		if reason := recover(); reason != nil {
			s.logger.Error("a request was not answered", "pattern", pattern, "panic", reason, "stack", string(debug.Stack()))
			recorded.problem(newProblem(CodeInternal, "bellhop is at fault; its log says more"))
		}
		s.note(r, asks, pattern, recorded.status, time.Since(began))
	}()
	recorded.Header().Set("Cache-Control", "no-store")
	switch {
	case s.codec.share(recorded, r):
	case asks == nil && !s.codec.open(pattern):
		problem := newProblem(CodeUnauthenticated, "a token is required that is known here: Authorization: Bearer …")
		problem.header.Set("WWW-Authenticate", "Bearer")
		recorded.problem(problem)
	case pattern == "":
		s.nowhere(recorded, r)
	case asks == nil: // the page at which a token is given
		s.mux.ServeHTTP(recorded, r)
	default:
		room, ok := s.admit(r.Context(), asks)
		if !ok {
			recorded.problem(crowded())
			return
		}
		defer room()
		s.mux.ServeHTTP(recorded, r.WithContext(context.WithValue(r.Context(), roomKey{}, room)))
	}
}

// queueFor is how long a request waits for others of its tenant to be answered before it is refused.
const queueFor = 2 * time.Second

// admit gives a request one of the places of its tenant. A token for several tenants has their places together for
// itself; an operator's needs none.
func (s *Server) admit(ctx context.Context, asks *caller) (giveBack func(), ok bool) {
	if asks.operator || asks.codec && len(asks.tenants) == 0 {
		return func() {}, true
	}
	key, limit := "token "+asks.name, 0
	for _, tenant := range asks.tenants {
		limit += s.policy.For(tenant).Limits.Requests
	}
	if len(asks.tenants) == 1 {
		key = "tenant " + asks.tenants[0]
	}
	return s.asking.take(ctx, key, limit, queueFor)
}

type roomKey struct{}

// leave gives back the place of a request that does not need it any more.
func leave(ctx context.Context) {
	if giveBack, ok := ctx.Value(roomKey{}).(func()); ok {
		giveBack()
	}
}

// nowhere tells of a path or a method that there is none. The mux knows which of them, and says so in plain text.
func (s *Server) nowhere(w *recorder, r *http.Request) {
	plain := &discarded{header: http.Header{}}
	s.mux.ServeHTTP(plain, r)
	if plain.status != http.StatusMethodNotAllowed {
		w.problem(newProblem(CodeNotFound, "there is nothing at this path; see /openapi.yaml"))
		return
	}
	problem := newProblem(CodeMethodNotAllowed, "this path takes "+plain.header.Get("Allow"))
	problem.header.Set("Allow", plain.header.Get("Allow"))
	w.problem(problem)
}

// statusGone is what the log and the metrics have of a request whose caller did not wait for the answer.
const statusGone = 499

// fail answers with a problem. What a caller is not told of it is logged.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		w.WriteHeader(statusGone)
		return
	}
	problem := problemOf(err)
	if problem.Code == CodeUnavailable {
		s.logger.Warn("a request could not be answered", "error", err)
	}
	problem.write(w)
}

func (s *Server) note(r *http.Request, asks *caller, pattern string, status int, took time.Duration) {
	// Methods and paths that do not exist are as many as somebody likes to make up.
	method, route, _ := strings.Cut(pattern, " ")
	s.observe(context.WithoutCancel(r.Context()), method, route, status, took)
	// The path and the query may hold anything; the id is one, or is left out.
	attributes := []any{"method", r.Method, "route", route, "status", status, "duration_ms", took.Milliseconds()}
	if id := r.PathValue("id"); id != "" && bellhop.CheckID(id) == nil {
		attributes = append(attributes, "operation_id", id)
	}
	if asks != nil {
		attributes = append(attributes, "token_name", asks.name)
	}
	s.logger.Info("request", attributes...)
}

// recorder notes the status that was answered.
type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(text []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(text)
}

func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// problem answers with a problem, unless something was answered already.
func (w *recorder) problem(p *Problem) {
	if w.status == 0 {
		p.write(w)
	}
}

// discarded is an answer of which only the head is wanted.
type discarded struct {
	header http.Header
	status int
}

func (d *discarded) Header() http.Header            { return d.header }
func (d *discarded) WriteHeader(status int)         { d.status = status }
func (d *discarded) Write(text []byte) (int, error) { return len(text), nil }

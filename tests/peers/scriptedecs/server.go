package scriptedecs

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Options say how the server behaves. The zero value is a well-behaved account in a hurry.
type Options struct {
	// Step is how long each thing takes that takes ECS seconds: placing a task, pulling its image, starting it, a health
	// check, draining it, a look of the service scheduler. Default 30ms.
	Step time.Duration
	// Clusters are the names of the clusters that exist. Default "default".
	Clusters []string
	// Account and Region are what ARNs say. Default 111122223333 and eu-central-1.
	Account, Region string
	// MissingDescribes is how often DescribeServices and ListServices say nothing of a service that was just created.
	MissingDescribes int
	// KeepStopped is how long stopped tasks are remembered. Default 1h, as ECS has it.
	KeepStopped time.Duration
	// KeepInactive is how long deleted services are told as INACTIVE. Default 1h; ECS names no time. Negative: not at all.
	KeepInactive time.Duration
	// Quotas throttles as the account's quotas say.
	Quotas bool
	// Events says how events reach the queue. Nil: there are none, and the queue stays empty.
	Events *Events
}

// Server plays ECS. Its methods may be called at any time.
type Server struct {
	// URL is the endpoint of ECS, STS, CloudWatch Logs and SQS alike.
	URL string
	// QueueURL is the queue of events.
	QueueURL string

	options Options
	server  *http.Server
	quotas  map[string]*quota

	mu     sync.Mutex
	closed bool
	// changed is closed, and made anew, when a message comes into the queue.
	changed chan struct{}
	random  *rand.Rand
	calls   []Call
	faults  []*fault

	services    map[string]*service // by ARN
	tasks       map[string]*task    // by ARN
	order       []*task             // in the order of their launch
	families    map[string][]*taskDefinition
	runTokens   map[string]*run
	deployments map[string]*record // by the service deployment's ARN
	queue       []*message
	emitted     int // how many events there were
	denied      map[string]bool
	sessions    map[string]string // access key → role ARN
}

// Start starts a server on a free port of the loopback interface.
func Start(options Options) (*Server, error) {
	options.Step = cmp.Or(options.Step, 30*time.Millisecond)
	options.Account = cmp.Or(options.Account, "111122223333")
	options.Region = cmp.Or(options.Region, "eu-central-1")
	options.KeepStopped = cmp.Or(options.KeepStopped, time.Hour)
	options.KeepInactive = cmp.Or(options.KeepInactive, time.Hour)
	if len(options.Clusters) == 0 {
		options.Clusters = []string{"default"}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for ECS's calls: %w", err)
	}
	s := &Server{
		URL:         "http://" + listener.Addr().String(),
		options:     options,
		quotas:      quotas(),
		changed:     make(chan struct{}),
		random:      rand.New(rand.NewPCG(1, 2)), //nolint:gosec // the same ids and the same disorder in every run
		services:    map[string]*service{},
		tasks:       map[string]*task{},
		families:    map[string][]*taskDefinition{},
		runTokens:   map[string]*run{},
		deployments: map[string]*record{},
		denied:      map[string]bool{},
		sessions:    map[string]string{},
	}
	s.QueueURL = s.URL + "/" + options.Account + "/bellhop-events"
	s.server = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	go func() {
		if err := s.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			panic(err)
		}
	}()
	return s, nil
}

// For starts a server that lives as long as the test.
func For(tb testing.TB, options Options) *Server {
	tb.Helper()
	s, err := Start(options)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

// Close ends the server; nothing happens in it any more.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.changed)
	}
	s.mu.Unlock()
	_ = s.server.Close() // whoever waits for an answer sees a reset, as from a server that died
}

// after does something with the server, locked, when some steps have gone by.
func (s *Server) after(steps int, do func()) {
	s.afterTime(time.Duration(steps)*s.options.Step, do)
}

func (s *Server) afterTime(wait time.Duration, do func()) {
	time.AfterFunc(wait, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.closed {
			do()
		}
	})
}

// arn makes an ARN of ECS's.
func (s *Server) arn(kind string, path ...string) string {
	return fmt.Sprintf("arn:aws:ecs:%s:%s:%s/%s", s.options.Region, s.options.Account, kind, strings.Join(path, "/"))
}

// hex makes an id in one of ECS's ways.
func (s *Server) hex() string {
	return fmt.Sprintf("%016x%016x", s.random.Uint64(), s.random.Uint64())
}

// digits makes one in the other.
func (s *Server) digits() string {
	return fmt.Sprintf("%019d", s.random.Uint64N(1e19))
}

// cluster says which cluster a request means.
func (s *Server) cluster(given *string) (string, error) {
	name := "default"
	if given != nil && *given != "" {
		name = (*given)[strings.LastIndex(*given, "/")+1:]
	}
	if slices.Contains(s.options.Clusters, name) {
		return name, nil
	}
	return "", refuse("ClusterNotFoundException", "Cluster not found.")
}

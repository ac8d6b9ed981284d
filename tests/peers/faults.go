package peers

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"
)

// Fault is what befalls one request.
type Fault string

// The faults. The last three are those after which nobody but the receiver can know that the request was taken.
const (
	NoFault            Fault = ""
	TooManyRequests    Fault = "429"
	Unavailable        Fault = "503"
	TimeOut            Fault = "time-out"
	AppliedThenError   Fault = "applied, then 500"
	AppliedThenTimeOut Fault = "applied, then time-out"
	AppliedThenReset   Fault = "applied, then reset"
)

// Call is one request that came to a [FaultyProxy].
type Call struct {
	CallbackID string
	Fault      Fault
	Header     http.Header
	Body       []byte
	At         time.Time
}

// FaultyProxy stands between bellhop and a receiver that speaks HTTP, lets faults befall the callbacks and records
// every one that comes by.
type FaultyProxy struct {
	URL string

	server  *httptest.Server
	forward string
	choose  func(callbackID string, nth int) Fault

	mu    sync.Mutex
	calls []Call
	tries map[string]int
}

// StartFaultyProxy starts a proxy in front of a URL. What becomes of the nth request with a callback's id, from 1 on,
// is chosen by choose, which is called by one request at a time.
func StartFaultyProxy(forward string, choose func(callbackID string, nth int) Fault) *FaultyProxy {
	p := &FaultyProxy{forward: forward, choose: choose, tries: map[string]int{}}
	p.server = httptest.NewServer(p)
	p.URL = p.server.URL
	return p
}

// Close ends the proxy, and whatever it holds.
func (p *FaultyProxy) Close() {
	p.server.CloseClientConnections()
	p.server.Close()
}

// Calls are what came by so far.
func (p *FaultyProxy) Calls() []Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Call(nil), p.calls...)
}

// Tries are how often each callback came by.
func (p *FaultyProxy) Tries() map[string]int {
	tries := map[string]int{}
	for _, call := range p.Calls() {
		tries[call.CallbackID]++
	}
	return tries
}

// callbackID finds the id in an outcome, or in a CloudEvent whose data is one.
func callbackID(body []byte) string {
	var said struct {
		CallbackID string `json:"callback_id"`
		Data       struct {
			CallbackID string `json:"callback_id"`
		} `json:"data"`
	}
	_ = json.Unmarshal(body, &said) //nolint:errcheck // what is no outcome has no id
	return said.CallbackID + said.Data.CallbackID
}

// ServeHTTP is the proxy.
func (p *FaultyProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	id := callbackID(body)
	p.mu.Lock()
	p.tries[id]++
	fault := p.choose(id, p.tries[id])
	p.calls = append(p.calls, Call{CallbackID: id, Fault: fault, Header: r.Header.Clone(), Body: body, At: time.Now()})
	p.mu.Unlock()

	var answer *http.Response
	switch fault {
	case TooManyRequests, Unavailable, TimeOut:
	default:
		if answer, err = p.pass(r, body); err != nil {
			reset(w)
			return
		}
		defer answer.Body.Close() //nolint:errcheck // it was read, or is not wanted
	}
	switch fault {
	case TooManyRequests:
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
	case Unavailable:
		w.WriteHeader(http.StatusServiceUnavailable)
	case AppliedThenError:
		w.WriteHeader(http.StatusInternalServerError)
	case TimeOut, AppliedThenTimeOut:
		<-r.Context().Done() // bellhop hangs up
	case AppliedThenReset:
		reset(w)
	case NoFault:
		w.WriteHeader(answer.StatusCode)
		_, _ = io.Copy(w, answer.Body) // the caller may have hung up
	}
}

func (p *FaultyProxy) pass(r *http.Request, body []byte) (*http.Response, error) {
	// Detached: a receiver may get to its end although the caller has hung up.
	request, err := http.NewRequest(r.Method, p.forward+r.URL.RequestURI(), bytes.NewReader(body)) //nolint:noctx,gosec // see above; a test names where it leads
	if err != nil {
		return nil, err
	}
	request.Header = r.Header.Clone()
	answer, err := http.DefaultClient.Do(request) //nolint:gosec // as above
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	return answer, nil
}

// reset breaks the connection so that the other end sees a reset, not an end.
func reset(w http.ResponseWriter) {
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		panic(http.ErrAbortHandler)
	}
	conn, _, err := hijacker.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // it is closed all the same
	}
	_ = conn.Close() // as above
}

package bridge

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"bellhop"
)

// HTTPClient makes the client of a target that speaks HTTP. It follows no redirect, which would carry a callback and its
// credentials to somebody whom no operator named. Proxy and control may be nil; control can refuse an address when it is
// dialled. An attempt's context bounds its time.
func HTTPClient(proxy func(*http.Request) (*url.URL, error), control func(network, address string, c syscall.RawConn) error) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:               proxy,
			DialContext:         (&net.Dialer{Control: control}).DialContext,
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 10,
			IdleConnTimeout:     time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Serve serves on listener, by TLS if the server is configured for it, until it is stopped: it then takes no more requests
// and waits for the answers to those that were taken, but no longer than within, and says so if it cut any off. failed is
// told when it ends by itself.
func Serve(server *http.Server, listener net.Listener, within time.Duration, failed func(error)) (stop func() error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		serve := server.Serve
		if server.TLSConfig != nil {
			serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
		}
		if err := serve(listener); !errors.Is(err, http.ErrServerClosed) {
			failed(err)
		}
	}()
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		err := server.Shutdown(ctx)
		if err != nil {
			err = errors.Join(err, server.Close())
		}
		<-done
		return err
	}
}

// Loopback says whether a server that listens at a host is reached from its own machine only.
func Loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Sending returns a context for one attempt, and a function that says whether a request that was made with it, and failed
// without an answer, may have reached anybody: not before the first line of it was handed to a connection. However the
// attempt ended by then, by a name that does not resolve, a refused connection, a handshake or its own time, nothing was
// sent.
func Sending(ctx context.Context) (context.Context, func() bool) {
	var sent atomic.Bool
	began := func() { sent.Store(true) }
	// The first is called before anything is written. A request without headers would have the second only.
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaderField: func(string, []string) { began() },
		WroteHeaders:     began,
	}), sent.Load
}

// RetryStatus says whether an HTTP status asks to try again later. A status that nobody listed is told by its class.
func RetryStatus(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	default:
		return status >= http.StatusInternalServerError
	}
}

// RetryAfter is how long an HTTP answer asks to be left alone; 0 when it does not say.
func RetryAfter(header http.Header) time.Duration {
	value := header.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil {
		return max(0, time.Duration(seconds)*time.Second)
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// maxSaid is how many bytes of an answer are shown, to say what it was.
const maxSaid = 2048

// Said is what an HTTP answer says, for an error to show: the beginning of its body as text, without the secrets, which
// a server may repeat. They are taken out before the rest is cut off, so that no half of one is left.
func Said(response *http.Response, secrets ...string) string {
	limit := maxSaid
	for _, secret := range secrets {
		limit = max(limit, maxSaid+len(secret))
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, int64(limit)))
	if err != nil {
		return "" // the status says enough
	}
	said := string(body)
	for _, secret := range secrets {
		if secret != "" {
			said = bellhop.Scrub(said, []string{secret})
		}
	}
	// What is no text, or was cut within a character, could not be recorded.
	return strings.TrimSpace(strings.ToValidUTF8(said[:min(len(said), maxSaid)], ""))
}

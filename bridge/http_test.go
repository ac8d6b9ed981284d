package bridge_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"bellhop/bridge"
)

func TestSaid(t *testing.T) {
	t.Parallel()
	const secret, other = "sign_1AZIUnsh8k-oBj2Y7gDmuMW3FeCGVLx6rAAAAEQ", "key_1234567890"
	for at := range 4096 { // wherever a server repeats a secret, and wherever it is cut
		answer := strings.Repeat("é", at/2) + strings.Repeat("x", at%2) + "no " + other + " and " + secret + strings.Repeat("€", 2000)
		said := bridge.Said(&http.Response{Body: io.NopCloser(strings.NewReader(answer))}, secret, "", other)
		if strings.Contains(said, "sign_1") || strings.Contains(said, "key_") {
			t.Fatalf("after %d bytes a secret, or the half of one, is shown: %s", at, said)
		}
		if !utf8.ValidString(said) || len(said) > 2048 || len(said) < 2000 {
			t.Fatalf("after %d bytes %d bytes are shown, text: %t", at, len(said), utf8.ValidString(said))
		}
	}
	said := bridge.Said(&http.Response{Body: io.NopCloser(strings.NewReader("\x1f\x8b\xff gone \n"))})
	if said != "\x1f gone" {
		t.Errorf("what is no text is shown as %q", said)
	}
}

// What broke off before a connection stood has told nobody. What was on its way may have arrived.
func TestSending(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing, which no handshake survives
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() }) //nolint:errcheck // the test is over
	refusing, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := refusing.Close(); err != nil {
		t.Fatal(err)
	}
	stranger := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(stranger.Close)
	stranger.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	proxy, _ := url.Parse("http://" + refusing.Addr().String()) //nolint:errcheck // an address
	deaf := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) //nolint:errcheck // or the server would not notice that nobody waits
		<-r.Context().Done()
	}))
	t.Cleanup(deaf.Close)
	broken := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	t.Cleanup(broken.Close)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for _, row := range []struct {
		name, url string
		ctx       context.Context
		proxy     func(*http.Request) (*url.URL, error)
		sent      bool
	}{
		{"refused", "http://" + refusing.Addr().String(), t.Context(), nil, false},
		{"no such name", "http://no-such-host.invalid", t.Context(), nil, false},
		{"no handshake", "https://" + silent.Addr().String(), t.Context(), nil, false},
		{"a certificate of nobody's", stranger.URL, t.Context(), nil, false},
		{"a proxy that is down", "http://orders.invalid", t.Context(), http.ProxyURL(proxy), false},
		{"a proxy that is down, by TLS", "https://orders.invalid", t.Context(), http.ProxyURL(proxy), false},
		{"no time left", deaf.URL, over, nil, false},
		{"no answer in time", deaf.URL, t.Context(), nil, true},
		{"broke off", broken.URL, t.Context(), nil, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(row.ctx, 300*time.Millisecond)
			defer cancel()
			ctx, sent := bridge.Sending(ctx)
			request, err := http.NewRequestWithContext(ctx, http.MethodPost, row.url, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			response, err := bridge.HTTPClient(row.proxy, nil).Do(request)
			if err == nil {
				response.Body.Close() //nolint:errcheck,gosec // it should not be there
				t.Fatalf("it was answered %s", response.Status)
			}
			if sent() != row.sent {
				t.Errorf("it is taken for sent: %t; it ended as %s", sent(), err)
			}
		})
	}
}

package bridge

import (
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"
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

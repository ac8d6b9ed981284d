package activities

import (
	"net/http"
	"sync/atomic"
	"time"
)

// Clock is a platform's, which ages of what it runs are told in: it may be on another machine. The zero value is ours.
type Clock struct {
	// ahead of ours, in nanoseconds.
	ahead atomic.Int64
}

// Note learns the clock from an answer. The header counts whole seconds, so a small difference is none.
func (c *Clock) Note(response *http.Response) {
	at, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return
	}
	ahead := time.Until(at)
	if ahead.Abs() < 2*time.Second {
		ahead = 0
	}
	c.ahead.Store(int64(ahead))
}

// Now is the platform's time.
func (c *Clock) Now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

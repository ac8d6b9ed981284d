package peers

import (
	"context"
	"io"
	"net"
	"sync"
)

// Cable is a way to an address, whatever is spoken there, that can be cut.
type Cable struct {
	// Address is its near end.
	Address string

	listener  *resettable
	accepting sync.WaitGroup
	carrying  sync.WaitGroup
}

// StartCable lays a cable to an address.
func StartCable(ctx context.Context, far string) (*Cable, error) {
	plain, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &Cable{Address: plain.Addr().String(), listener: &resettable{Listener: plain, conns: map[net.Conn]bool{}}}
	c.accepting.Go(func() {
		for {
			near, err := c.listener.Accept()
			if err != nil {
				return // it is closed
			}
			c.carrying.Go(func() { carry(near, far) })
		}
	})
	return c, nil
}

// carry takes bytes both ways until an end has no more of them.
func carry(near net.Conn, far string) {
	defer near.Close() //nolint:errcheck // it may be cut already
	conn, err := new(net.Dialer).DialContext(context.Background(), "tcp", far)
	if err != nil {
		return // who called sees a connection that is closed
	}
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(conn, near) // an end is an end
		_ = conn.Close()           // the other end may have done so
	})
	both.Go(func() {
		_, _ = io.Copy(near, conn) // an end is an end
		_ = near.Close()           // the other end may have done so
	})
	both.Wait()
}

// Cut resets every connection there is. New ones can be made at once.
func (c *Cable) Cut() { c.listener.reset() }

// Close cuts it for good.
func (c *Cable) Close() {
	_ = c.listener.Close() // nothing was written to it
	c.accepting.Wait()
	c.Cut()
	c.carrying.Wait()
}

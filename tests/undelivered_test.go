package tests

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"

	"bellhop"
	"bellhop/operations"
	"bellhop/tests/peers"
)

// metered is a client of bellhop's that counts its calls of the server, each of which takes a while longer.
type metered struct {
	*operations.Client
	mu    sync.Mutex
	calls map[string]int
	delay time.Duration
}

func (b *bench) metered() *metered {
	b.Helper()
	m := &metered{calls: map[string]int{}}
	count := func(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
		m.mu.Lock()
		m.calls[method[strings.LastIndexByte(method, '/')+1:]]++
		delay := m.delay
		m.mu.Unlock()
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
		return invoke(ctx, method, request, reply, cc, options...)
	}
	c, err := client.DialContext(b.ctx, peers.Encrypt(client.Options{
		HostPort: b.server.Address, Logger: quiet{},
		ConnectionOptions: client.ConnectionOptions{DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(count)}},
	}))
	require.NoError(b, err)
	b.Cleanup(c.Close)
	m.Client = operations.New(c, "default", "").With(peers.Converters("default"))
	return m
}

// counting answers the calls that f makes.
func (m *metered) counting(f func()) (total int, calls map[string]int) {
	m.mu.Lock()
	m.calls = map[string]int{}
	m.mu.Unlock()
	f()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.calls {
		total += n
	}
	return total, m.calls
}

// undeliveredIDs lists what was not delivered, page by page.
func (m *metered) undeliveredIDs(t *testing.T, within time.Duration) (ids []string, pages int) {
	t.Helper()
	var page []byte
	for {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		items, next, err := m.List(ctx, bellhop.Filter{Undelivered: true}, 1000, page)
		cancel()
		require.NoError(t, err)
		for _, item := range items {
			ids = append(ids, item.OperationID)
		}
		pages++
		if page = next; len(page) == 0 {
			slices.Sort(ids)
			return ids, pages
		}
	}
}

// The callers are workflows that do not exist, and do exist later.
func TestUndelivered_CostsOneSearchAndWhatIsShown(t *testing.T) {
	t.Parallel()
	const n = 60
	b := setup(t)
	b.work(b.config(noBackstop))
	m := b.metered()
	var ids []string
	for i := range n {
		id := fmt.Sprintf("web-%02d", i)
		ids = append(ids, id)
		_, err := b.ops.Start(b.ctx, id, bellhop.Provision, fmt.Appendf(nil, `{"tenant_id": "acme", "resource": %q, "provider": "simulated",
			"spec": {"image": "nginx:1.27"}, "callbacks": [
			{"target": "temporal", "address": {"workflow_id": "a-%d"}}, {"target": "temporal", "address": {"workflow_id": "b-%d"}}]}`, id, i, i))
		require.NoError(t, err)
	}
	for _, id := range ids {
		b.closed(id)
	}
	list := func() (items []bellhop.Item, calls int) {
		calls, of := m.counting(func() {
			var err error
			items, _, err = m.List(b.ctx, bellhop.Filter{Undelivered: true}, 1000, nil)
			require.NoError(t, err)
		})
		t.Logf("%d operations were shown after %v", len(items), of)
		return items, calls
	}
	var items []bellhop.Item
	calls := 0
	b.until("search knows them", func() bool {
		items, calls = list()
		return len(items) == n
	})
	require.LessOrEqual(t, calls, 1+3+n)
	for _, item := range items[:3] {
		require.Empty(t, cmp.Diff(b.status(item.OperationID).Callbacks, item.Undelivered, cmpopts.EquateEmpty()))
	}

	// What cannot be listed in time is listed in several pages.
	m.delay = 100 * time.Millisecond
	found, pages := m.undeliveredIDs(t, 1800*time.Millisecond)
	require.Empty(t, cmp.Diff(ids, found))
	require.Greater(t, pages, 1)
	m.delay = 0

	// The callers of some are there by now: all of theirs, or one of two.
	const whole, half = 20, 5
	for i := range whole + half {
		for _, name := range []string{"a", "b"} {
			if name == "b" && i >= whole {
				continue
			}
			_, err := b.client.ExecuteWorkflow(b.ctx, client.StartWorkflowOptions{ID: fmt.Sprintf("%s-%d", name, i), TaskQueue: "nobody"}, "caller")
			require.NoError(t, err)
		}
		rung, err := b.ops.Redeliver(b.ctx, ids[i], "")
		require.NoError(t, err)
		require.Equal(t, []string{"temporal"}, rung)
	}
	b.until("those have been reached", func() bool {
		items, calls = list()
		left := 0
		for _, item := range items {
			left += len(item.Undelivered)
		}
		return len(items) == n-whole && left == 2*(n-whole)-half
	})
	require.LessOrEqual(t, calls, 1+3+n-whole, "what has been redelivered costs no call of its own")
	stdout, stderr, code := b.run("", "bellhop", "list", "--undelivered", "--limit", "1000")
	require.Zero(t, code, stderr)
	require.Equal(t, 2*(n-whole)-half, strings.Count(stdout, "temporal undeliverable"))
	for i := range whole {
		require.NotContains(t, stdout, ids[i])
	}

	// All that is left is rung for, and nothing else.
	var rung []string
	calls, of := m.counting(func() {
		require.NoError(t, m.RedeliverAll(b.ctx, bellhop.Filter{}, "", func(id string, _ []string, err error) {
			require.NoError(t, err)
			rung = append(rung, id)
		}))
	})
	t.Logf("%d were rung for after %v", len(rung), of)
	slices.Sort(rung)
	require.Empty(t, cmp.Diff(ids[whole:], rung))
	require.Less(t, calls, 20*(n-whole))
}

package tests

import (
	"context"
	"database/sql"
	"encoding/base64"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"bellhop"
	"bellhop/tests/peers"
)

// scratch is what the tests of this package share; it goes when they have ended.
var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "bellhop-tests-"); err != nil {
		panic(err)
	}
	code := m.Run()
	peers.EndSharedKubernetes()
	_ = os.RemoveAll(scratch) // it is in the temporary directory
	os.Exit(code)
}

// buildShop builds the example of a webhook receiver.
var buildShop = sync.OnceValues(func() (string, error) {
	binary := filepath.Join(scratch, "shop")
	build := exec.CommandContext(context.Background(), "go", "build", "-o", binary, "./docs/examples/webhook") //nolint:gosec // our own
	build.Dir = peers.Root()
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the example receiver: %w\n%s", err, out)
	}
	return binary, nil
})

// shop is the example of a webhook receiver that docs/examples/webhook shows, at work.
type shop struct {
	*peers.Process
	URL     string
	KeyFile string
	book    *sql.DB
	// open starts it, after a Kill on the book that it kept.
	open func() error
}

func (b *bench) shop() *shop {
	b.Helper()
	binary, err := buildShop()
	require.NoError(b, err)
	ports, err := peers.FreePorts(1)
	require.NoError(b, err)
	folder := b.TempDir()
	s := &shop{URL: "http://" + ports[0], KeyFile: filepath.Join(folder, "key")}
	key := "whsec_" + base64.StdEncoding.EncodeToString([]byte("a key that opens nothing, 32 b.."))
	require.NoError(b, os.WriteFile(s.KeyFile, []byte(key), 0o600))
	db := filepath.Join(folder, "orders.db")
	s.open = func() error {
		var err error
		s.Process, err = peers.Start(b.ctx, binary, []string{"-listen", ports[0], "-key-file", s.KeyFile, "-db", db}, nil,
			func(line string) bool { return strings.HasPrefix(line, "called back at ") })
		return err
	}
	require.NoError(b, s.open())
	b.Cleanup(func() { s.Kill() })
	s.book, err = sql.Open("sqlite", "file:"+db+"?"+url.Values{"_pragma": {"busy_timeout(10000)"}}.Encode())
	require.NoError(b, err)
	b.Cleanup(func() { s.book.Close() }) //nolint:errcheck // it was only read
	return s
}

// target is the configuration of a target that leads to a URL, which may be a proxy's in front of the shop.
func (s *shop) target(name, at string) string {
	return fmt.Sprintf("  %s: {type: webhook, url: '%s', key_file: %s, allow: [127.0.0.0/8]}\n", name, at, s.KeyFile)
}

// effects counts the callbacks that it was told of, how often they came, and what it has charged for.
func (b *bench) effects(s *shop) (callbacks, came, charged int) {
	b.Helper()
	require.NoError(b, s.book.QueryRowContext(b.ctx, `SELECT count(*), coalesce(sum(came), 0),
		(SELECT coalesce(sum(provisioned + failed + other), 0) FROM bill) FROM callbacks`).Scan(&callbacks, &came, &charged))
	return callbacks, came, charged
}

// count is how many of something a test has: enough to find a fault that is there, or what the fault matrix asks for
// (make soak).
func count(scaled, full int) int {
	if os.Getenv("BELLHOP_SOAK") != "" {
		return full
	}
	return scaled
}

// begins starts operations on simulated resources, some at once.
func (b *bench) begins(n int, name string, operation func(i int, id string) string) []string {
	b.Helper()
	ids := make([]string, n)
	next := make(chan int)
	go func() {
		defer close(next)
		for i := range n {
			next <- i
		}
	}()
	var starters sync.WaitGroup
	for range 8 {
		starters.Go(func() {
			for i := range next {
				ids[i] = fmt.Sprintf("%s-%d", name, i)
				if _, err := b.ops.Start(b.ctx, ids[i], bellhop.Provision, []byte(operation(i, ids[i]))); err != nil {
					b.Errorf("start %s: %s", ids[i], err)
				}
			}
		})
	}
	starters.Wait()
	if b.Failed() {
		b.FailNow()
	}
	return ids
}

// provision is an operation that is ready at once and calls back.
func provision(resource, callbacks string) string {
	return fmt.Sprintf(`{"tenant_id": "acme", "resource": %q, "provider": "simulated", "spec": {"image": "nginx:1.27"},
		"callbacks": [%s]}`, resource, callbacks)
}

// closed waits until an operation has ended with all its callbacks settled, and answers its status.
func (b *bench) closed(id string) bellhop.Status {
	b.Helper()
	b.until(id+" has ended", func() bool {
		found, err := b.client.DescribeWorkflowExecution(b.ctx, id, "")
		return err == nil && found.GetWorkflowExecutionInfo().GetCloseTime() != nil
	})
	return b.status(id)
}

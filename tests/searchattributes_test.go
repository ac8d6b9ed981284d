package tests

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"bellhop"
	"bellhop/tests/peers"
)

// foreign starts a Temporal server that knows nothing of bellhop: the temporal CLI's own, of an older version.
func foreign(t *testing.T) *bench {
	t.Helper()
	path := filepath.Join(peers.Root(), ".tools", "bin", "temporal")
	if _, err := os.Stat(path); err != nil {
		peers.Missing(t, "the temporal CLI is not installed; run: make tools")
	}
	address := peers.FreeAddress(t)
	_, port, _ := strings.Cut(address, ":")
	process, err := peers.Start(t.Context(), path, []string{"server", "start-dev", "--headless", "--port", port}, nil,
		func(line string) bool {
			return strings.Contains(line, address) || strings.Contains(line, "localhost:"+port)
		})
	require.NoError(t, err)
	t.Cleanup(process.Kill)
	b := &bench{T: t, ctx: t.Context(), folder: t.TempDir(), server: &peers.Server{Process: process, Address: address}}
	b.until("it answers", func() bool {
		c, err := client.DialContext(b.ctx, client.Options{HostPort: address, Logger: quiet{}})
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	b.connect()
	return b
}

func TestWorkerAddsTheSearchAttributesThatAreMissing(t *testing.T) {
	t.Parallel()
	b := foreign(t)
	b.work(b.config())
	_, err := b.ops.Start(b.ctx, "web", bellhop.Provision,
		[]byte(`{"tenant_id": "acme", "provider": "simulated", "spec": {"image": "nginx:1.27"}}`))
	require.NoError(t, err)
	outcome, err := b.ops.Wait(b.ctx, "web")
	require.NoError(t, err)
	require.Equal(t, bellhop.Succeeded, outcome.State)
	b.until("it is found by tenant and state", func() bool {
		items, _, err := b.ops.List(b.ctx, bellhop.Filter{Tenant: "acme", State: bellhop.Succeeded}, 10, nil)
		return err == nil && len(items) == 1
	})
}

func TestWorkerThatMayNotAddSearchAttributesSaysWhatToRun(t *testing.T) {
	t.Parallel()
	b := foreign(t)
	// The proxy has no operator's API, as a server that does not let everybody use it.
	proxy, err := peers.StartProxy(b.server.Address)
	require.NoError(t, err)
	t.Cleanup(proxy.Close)

	_, err = peers.StartWorker(b.ctx, proxy.Address, b.config())
	require.ErrorContains(t, err, "lacks the search attributes BellhopTenant, BellhopResource, BellhopProvider, BellhopState")
	command := regexp.MustCompile(`run: temporal (.*)`).FindStringSubmatch(err.Error())
	require.NotNil(t, command, err.Error())

	// The command does what it says, and then the worker works.
	_, stderr, code := b.run("", "temporal", strings.Fields(command[1])...)
	require.Zero(t, code, stderr)
	b.until("the worker finds them", func() bool {
		w, err := peers.StartWorker(b.ctx, proxy.Address, b.config())
		if err == nil {
			t.Cleanup(w.Kill)
		}
		return err == nil
	})
}

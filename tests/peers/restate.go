package peers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Restate is a restate-server.
type Restate struct {
	*Process
	// Ingress and Admin are URLs.
	Ingress, Admin string

	binary string
	env    []string
}

// ErrNoRestate says that there is no Restate server to start.
var ErrNoRestate = errors.New("restate-server is not installed; run: make tools")

// StartRestate starts a Restate server that keeps everything in a folder, with more of its environment as env
// says.
func StartRestate(ctx context.Context, folder string, env ...string) (*Restate, error) {
	binary := filepath.Join(Root(), ".tools", "bin", "restate-server")
	if _, err := os.Stat(binary); err != nil {
		return nil, ErrNoRestate
	}
	ports, err := FreePorts(3)
	if err != nil {
		return nil, err
	}
	_, node, _ := strings.Cut(ports[2], ":")
	r := &Restate{Ingress: "http://" + ports[0], Admin: "http://" + ports[1], binary: binary, env: append([]string{
		"DO_NOT_TRACK=1", "RESTATE_LOG_FILTER=warn,octocrab=off,restate_server=info", "RESTATE_LOG_FORMAT=compact",
		"RESTATE_LOG_DISABLE_ANSI_CODES=true", "RESTATE_NODE_NAME=n1", "RESTATE_BASE_DIR=" + folder,
		"RESTATE_LISTEN_MODE=tcp", "RESTATE_BIND_IP=127.0.0.1", "RESTATE_ADVERTISED_HOST=127.0.0.1", "RESTATE_BIND_PORT=" + node,
		"RESTATE_INGRESS__BIND_ADDRESS=" + ports[0], "RESTATE_ADMIN__BIND_ADDRESS=" + ports[1],
		"RESTATE_DEFAULT_NUM_PARTITIONS=1", "RESTATE_ROCKSDB_TOTAL_MEMORY_SIZE=64MiB",
	}, env...)}
	if err := r.Restart(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// Restart starts it, after a Kill on what it kept, and waits until it is ready.
func (r *Restate) Restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	var err error
	if r.Process, err = Start(ctx, r.binary, []string{"--no-logo"}, r.env, func(string) bool { return true }); err != nil {
		return err
	}
	for _, url := range []string{r.Ingress + "/restate/health", r.Admin + "/health"} {
		if err := answers(ctx, url); err != nil {
			return fmt.Errorf("restate-server is not ready: %w\n%s", err, r.Output())
		}
	}
	return nil
}

// Register makes the handlers known that are served at a URL.
func (r *Restate) Register(ctx context.Context, url string) error {
	body, err := json.Marshal(map[string]any{"uri": url})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.Admin+"/deployments", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // what matters was read
	if response.StatusCode >= http.StatusMultipleChoices {
		said, _ := io.ReadAll(response.Body) //nolint:errcheck // the status says enough
		return fmt.Errorf("register %s: %s: %s", url, response.Status, said)
	}
	return nil
}

// Cancel cancels an invocation.
func (r *Restate) Cancel(ctx context.Context, invocation string) error {
	return r.patch(ctx, "/invocations/"+invocation+"/cancel", "")
}

// Forget has the handlers of a service suspended whenever they wait, so that they come back by their journal each time.
func (r *Restate) Forget(ctx context.Context, service string) error {
	return r.patch(ctx, "/services/"+service, `{"inactivity_timeout": "0s"}`)
}

func (r *Restate) patch(ctx context.Context, path, body string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPatch, r.Admin+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // what matters was read
	if response.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("patch %s: %s", path, response.Status)
	}
	return nil
}

// Query asks Restate about its invocations, in SQL, and returns the rows as JSON.
func (r *Restate) Query(tb testing.TB, sql string) string {
	tb.Helper()
	body, err := json.Marshal(map[string]string{"query": sql})
	if err != nil {
		tb.Fatal(err)
	}
	request, err := http.NewRequestWithContext(tb.Context(), http.MethodPost, r.Admin+"/query", bytes.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		tb.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // what matters was read
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		tb.Fatalf("ask Restate %s: %s, %v: %s", sql, response.Status, err, text)
	}
	return string(text)
}

// answers waits until a URL answers 200.
func answers(ctx context.Context, url string) error {
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			_ = response.Body.Close() // only the status matters
			if response.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("%s answers %s", url, response.Status)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// FreeAddress is an address on loopback that nobody listens at.
func FreeAddress(tb testing.TB) string {
	tb.Helper()
	ports, err := FreePorts(1)
	if err != nil {
		tb.Fatal(err)
	}
	return ports[0]
}

// given are the ports that FreePorts has given to anyone in this process.
var given sync.Map

// FreePorts are addresses on loopback that nobody listens at. Their ports are below those that systems give to
// connections and to listeners at port 0: one of those could be taken by another process before its own listens.
func FreePorts(n int) ([]string, error) {
	var free []string
	for tries := 0; len(free) < n; tries++ {
		address := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000)) //nolint:gosec // any port will do
		if _, again := given.LoadOrStore(address, true); again {
			continue
		}
		listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
		if err != nil && tries > 1000 {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		if err != nil {
			continue // it is in use
		}
		if err := listener.Close(); err != nil {
			return nil, err
		}
		free = append(free, address)
	}
	return free, nil
}

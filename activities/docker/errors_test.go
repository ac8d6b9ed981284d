package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"bellhop"
)

func TestCodes(t *testing.T) {
	for _, row := range []struct {
		reason string
		err    error
		want   bellhop.Code
	}{
		{"the stream broke off", fmt.Errorf("read: %w", io.ErrUnexpectedEOF), bellhop.CodeProviderUnavailable},
		{"the engine was ended while it answered", syscall.ECONNRESET, bellhop.CodeProviderUnavailable},
		{"a dial that fails", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, bellhop.CodeProviderUnavailable},
		{"500: nobody knows what", errdefs.ErrInternal, bellhop.CodeProviderUnavailable},
		{"503", errdefs.ErrUnavailable, bellhop.CodeProviderUnavailable},
		{"429", errdefs.ErrResourceExhausted, bellhop.CodeProviderThrottled},
		{"401", errdefs.ErrUnauthenticated, bellhop.CodePermissionDenied},
		{"403", errdefs.ErrPermissionDenied, bellhop.CodePermissionDenied},
		{"400", errdefs.ErrInvalidArgument, bellhop.CodeInvalidSpec},
		{"409", errdefs.ErrConflict, bellhop.CodeResourceConflict},
		{"404", errdefs.ErrNotFound, bellhop.CodeResourceNotFound},
		{
			"a full disk comes as 500 and a person may wait for room", fmt.Errorf("write /x: no space left on device: %w", errdefs.ErrInternal),
			bellhop.CodeCapacityUnavailable,
		},
		{
			"a taken port comes as 500", fmt.Errorf("Bind for 127.0.0.1:80 failed: port is already allocated: %w", errdefs.ErrInternal),
			bellhop.CodeResourceConflict,
		},
		{"an image removed since it was looked for", fmt.Errorf("No such image: x: %w", errdefs.ErrNotFound), bellhop.CodeImagePullFailed},
		{"a network that does not exist comes as 404", fmt.Errorf("network n not found: %w", errdefs.ErrNotFound), bellhop.CodeInvalidSpec},
		{"what nobody foresaw is bellhop's own fault", errors.New("?"), bellhop.CodeInternal},
	} {
		if got := codeOf(row.err); got != row.want {
			t.Errorf("%s (%v): %s, want %s", row.reason, row.err, got, row.want)
		}
	}
	if code, ok := codeOfText(`exec: "network-x": executable file not found in $PATH`); ok {
		t.Errorf("a command named after a network is %s", code)
	}
}

func TestClassifyLeavesContextsAlone(t *testing.T) {
	err := classify(fmt.Errorf("post: %w", context.Canceled), "create")
	var failure *bellhop.Failure
	if errors.As(err, &failure) || !errors.Is(err, context.Canceled) {
		t.Errorf("the caller gave up, and the engine is told off: %v", err)
	}
}

// Everything that is asked of an engine that is down says PROVIDER_UNAVAILABLE, as an error: it is tried again.
func TestEngineDown(t *testing.T) {
	p, err := New(Config{Host: "unix://" + filepath.Join(t.TempDir(), "no.sock")})
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, p)
	op, _ := example(t)
	for name, call := range map[string]func() (bellhop.Observation, error){
		"provision": func() (bellhop.Observation, error) { return p.Provision(t.Context(), op) },
		"update":    func() (bellhop.Observation, error) { return p.Update(t.Context(), op) },
		"delete":    func() (bellhop.Observation, error) { return p.Delete(t.Context(), op) },
		"observe":   func() (bellhop.Observation, error) { return p.Observe(t.Context(), op) },
		"watch": func() (bellhop.Observation, error) {
			return bellhop.Observation{}, p.Watch(t.Context(), func(bellhop.Observation) { t.Error("reported something") })
		},
	} {
		_, err := call()
		var failure *bellhop.Failure
		if !errors.As(err, &failure) || failure.Code != bellhop.CodeProviderUnavailable || failure.ProviderError == "" {
			t.Errorf("%s: %v, want PROVIDER_UNAVAILABLE with the engine's own words", name, err)
		}
	}
}

// The engine's own words, from the engine.
func TestClassifyRealAnswers(t *testing.T) {
	b := setup(t, Config{})
	ctx := t.Context()
	op := b.provision("port", func(op *bellhop.Operation) {
		op.Spec.Ports = []bellhop.Port{{Name: "http", ContainerPort: 8080}}
	})
	endpoint := b.want(op, bellhop.PhaseReady).Endpoints[0]
	config := configOf(t, op)
	options := b.createOptions(op, config, "", nil, 2)
	for number, bindings := range options.HostConfig.PortBindings {
		bindings[0].HostPort = fmt.Sprint(endpoint.Port)
		options.HostConfig.PortBindings[number] = bindings
	}
	created, err := b.docker.ContainerCreate(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.docker.ContainerStart(ctx, created.ID, client.ContainerStartOptions{})
	if got := codeOf(err); got != bellhop.CodeResourceConflict {
		t.Errorf("a port that is taken (%v): %s, want RESOURCE_CONFLICT", err, got)
	}
	// Seen afterwards, from another worker say, it is the same.
	seen, err := b.Observe(ctx, op)
	if err != nil {
		t.Fatal(err)
	}
	if seen.Failure == nil || seen.Failure.Code != bellhop.CodeResourceConflict || seen.Failure.ProviderError == "" {
		t.Errorf("observed: %s %v, want RESOURCE_CONFLICT in the engine's words", seen.Phase, seen.Failure)
	}
}

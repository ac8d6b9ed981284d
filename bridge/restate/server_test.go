package restate_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/restatedev/sdk-go"
	"github.com/restatedev/sdk-go/server"

	"bellhop"
	"bellhop/bridge"
	"bellhop/bridge/restate"
	"bellhop/tests/peers"
)

// guest is a caller that lives in Restate.
type guest struct {
	awakeables chan string
	ended      chan string

	mu   sync.Mutex
	told []string
}

// Wait waits for an operation's outcome on an awakeable.
func (g *guest) Wait(ctx sdk.Context, _ string) (string, error) {
	awakeable := sdk.Awakeable[bellhop.Outcome](ctx)
	if _, err := sdk.Run(ctx, func(sdk.RunContext) (string, error) {
		g.awakeables <- awakeable.Id()
		return "", nil
	}); err != nil {
		return "", err
	}
	outcome, err := awakeable.Result()
	end := string(outcome.State) + " " + outcome.CallbackID
	if err != nil {
		end = "rejected: " + err.Error()
	}
	if _, err := sdk.Run(ctx, func(sdk.RunContext) (string, error) { g.ended <- end; return "", nil }); err != nil {
		return "", err
	}
	return end, nil
}

// Provisioned is called with an operation's outcome.
func (g *guest) Provisioned(_ sdk.Context, outcome bellhop.Outcome) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.told = append(g.told, outcome.CallbackID)
	return "", nil
}

// named gives the guest the name that Restate knows it by.
type named struct{ *guest }

// ServiceName is part of Restate's reflection.
func (named) ServiceName() string { return "Guest" }

func (g *guest) heard() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.told...)
}

func checkIn(t *testing.T) (*peers.Restate, *guest) {
	t.Helper()
	r := peers.RestateFor(t)
	g := &guest{awakeables: make(chan string, 10), ended: make(chan string, 10)}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	stopped := make(chan error, 1)
	go func() {
		stopped <- server.NewRestate().WithLogger(slog.DiscardHandler, true).
			Bind(sdk.Reflect(named{g})).Start(ctx, address)
	}()
	t.Cleanup(func() { cancel(); <-stopped }) //nolint:errcheck // it was told to end
	until(t, "the guest is known to Restate", func() bool { return r.Register(t.Context(), "http://"+address) == nil })
	return r, g
}

func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in a minute this did not happen: %s", what)
		}
	}
}

func message(t *testing.T, state bellhop.State) bridge.Message {
	t.Helper()
	outcome := bellhop.Outcome{SchemaVersion: 1, OperationID: "op-1", State: state, CallbackID: bellhop.CallbackID("op-1", state)}
	if state != bellhop.Succeeded {
		outcome.Error = bellhop.Fail(bellhop.CodeImagePullFailed, "no such image")
	}
	body, err := json.Marshal(outcome)
	if err != nil {
		t.Fatal(err)
	}
	return bridge.Message{ID: outcome.CallbackID, State: state, Body: body}
}

func address(t *testing.T, a restate.Address) json.RawMessage {
	t.Helper()
	raw, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestAgainstServer(t *testing.T) {
	r, g := checkIn(t)
	target, err := restate.New(restate.Config{Ingress: r.Ingress})
	if err != nil {
		t.Fatal(err)
	}
	// wait has a handler wait and tells its awakeable.
	wait := func(t *testing.T) string {
		t.Helper()
		caller := bridge.Message{ID: t.Name(), Body: json.RawMessage(`"` + t.Name() + `"`)}
		if got := target.Deliver(t.Context(), address(t, restate.Address{Service: "Guest", Handler: "Wait"}), caller); got.Verdict != bridge.Acknowledged {
			t.Fatalf("the caller could not be begun: %+v", got)
		}
		return <-g.awakeables
	}
	deliver := func(t *testing.T, a restate.Address, m bridge.Message, want bridge.Verdict) bridge.Result {
		t.Helper()
		got := target.Deliver(t.Context(), address(t, a), m)
		if got.Verdict != want {
			t.Fatalf("the verdict is %s (%v), want %s", got.Verdict, got.Err, want)
		}
		return got
	}

	t.Run("Resolve", func(t *testing.T) {
		id := wait(t)
		callback := bellhop.Callback{Target: "restate", States: []bellhop.State{bellhop.Succeeded}, Address: address(t, restate.Address{Awakeable: id})}
		if err := target.Check(callback); err != nil {
			t.Errorf("the server's own id is refused: %s", err)
		}
		for range 3 { // as often as answers are lost
			deliver(t, restate.Address{Awakeable: id}, message(t, bellhop.Succeeded), bridge.Accepted)
		}
		if end := <-g.ended; end != "succeeded op-1/succeeded" {
			t.Errorf("the handler ended with %q", end)
		}
	})
	t.Run("FailureAsResult", func(t *testing.T) {
		deliver(t, restate.Address{Awakeable: wait(t)}, message(t, bellhop.Failed), bridge.Accepted)
		if end := <-g.ended; end != "failed op-1/failed" {
			t.Errorf("the handler ended with %q", end)
		}
	})
	t.Run("Reject", func(t *testing.T) {
		m := message(t, bellhop.Failed)
		m.Failures = bellhop.AsError
		deliver(t, restate.Address{Awakeable: wait(t)}, m, bridge.Accepted)
		if end := <-g.ended; !strings.Contains(end, "rejected") || !strings.Contains(end, "IMAGE_PULL_FAILED: no such image") {
			t.Errorf("the handler ended with %q", end)
		}
	})
	t.Run("Handler", func(t *testing.T) {
		var all sync.WaitGroup
		for range 20 { // one effect, however often it is delivered, and at once
			all.Go(func() {
				got := target.Deliver(t.Context(), json.RawMessage(`{"service": "Guest", "handler": "Provisioned"}`), message(t, bellhop.Succeeded))
				if got.Verdict != bridge.Acknowledged {
					t.Errorf("the verdict is %s (%v)", got.Verdict, got.Err)
				}
			})
		}
		all.Wait()
		until(t, "the handler is called", func() bool { return len(g.heard()) > 0 })
		deliver(t, restate.Address{Service: "Guest", Handler: "Provisioned"}, message(t, bellhop.Failed), bridge.Acknowledged)
		until(t, "the handler is called again", func() bool { return len(g.heard()) > 1 })
		if told := strings.Join(g.heard(), " "); told != "op-1/succeeded op-1/failed" {
			t.Errorf("the handler was told %s", told)
		}
	})
	t.Run("Unknown", func(t *testing.T) {
		deliver(t, restate.Address{Service: "Nobody", Handler: "Provisioned"}, message(t, bellhop.Succeeded), bridge.Blocked)
		deliver(t, restate.Address{Service: "Guest", Handler: "nothing"}, message(t, bellhop.Succeeded), bridge.Blocked)
		// An awakeable that never was is taken all the same.
		never := "sign_1" + base64.RawURLEncoding.EncodeToString(append(make([]byte, 27), 17))
		got := target.Deliver(t.Context(), address(t, restate.Address{Awakeable: never}), message(t, bellhop.Succeeded))
		if got.Verdict == bridge.Acknowledged {
			t.Error("a callback to nobody is acknowledged")
		}
		if got.Err != nil && strings.Contains(got.Err.Error(), never) {
			t.Errorf("the error shows the token: %s", got.Err)
		}
	})
	t.Run("Down", func(t *testing.T) {
		id := wait(t)
		r.Kill()
		// An attempt may find a connection that was kept, of which nobody can say what came of it: until none is left.
		var got bridge.Result
		until(t, "nobody is connected to", func() bool {
			got = deliver(t, restate.Address{Awakeable: id}, message(t, bellhop.Succeeded), bridge.Retry)
			return !got.Unknown
		})
		if strings.Contains(got.Err.Error(), id) {
			t.Errorf("the error shows the token: %s", got.Err)
		}
	})
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"bellhop"
	"bellhop/tests/peers"
)

// delivery is what the example answers; see docs/examples/temporal/order.go.
type delivery struct {
	Served    bool               `json:"served"`
	Attempts  int                `json:"attempts"`
	Endpoints []bellhop.Endpoint `json:"endpoints"`
	Note      string             `json:"note"`
	Failure   *bellhop.Failure   `json:"failure"`
}

// served is the first scene.
func served(ctx context.Context, s *stage) error {
	s.title("1  A workflow asks for compute, sleeps, and is called back")
	got, err := s.order(ctx, "1", "-provider", "simulated", "-first-attempt", `{"ready_after": "3s"}`)
	if err != nil {
		return err
	}
	if !got.Served {
		return fmt.Errorf("the order was not served: %s: %w", got.Note, got.Failure)
	}
	s.fact("the order", s.paint(green, "served")+", as the callback said")
	return nil
}

// failing is the second scene.
func failing(ctx context.Context, s *stage) error {
	s.title("2  The compute fails, and the workflow knows what to do")
	got, err := s.order(ctx, "2", "-resource", "cache", "-provider", "simulated", "-first-attempt", `{"fail": {"code": "OUT_OF_MEMORY", "after": "2s"}}`)
	if err != nil {
		return err
	}
	if got.Failure == nil {
		return errors.New("the order was served, though its compute was to fail")
	}
	s.fact("code", s.paint(red, string(got.Failure.Code)))
	s.fact("message", got.Failure.Message)
	s.fact("retryable", yes(got.Failure.Retryable))
	s.fact("requires_intervention", yes(got.Failure.RequiresIntervention))
	for i, name := range slices.Sorted(maps.Keys(got.Failure.Evidence)) {
		what := ""
		if i == 0 {
			what = "evidence"
		}
		s.fact(what, name+": "+got.Failure.Evidence[name])
	}
	if got.Attempts != 1 {
		return fmt.Errorf("the order was tried %d times, though its failure was not retryable", got.Attempts)
	}
	s.fact("the order", got.Note+"; it was not tried again")
	return nil
}

// contained is the third scene, for which a Docker engine is needed.
func contained(ctx context.Context, s *stage) error {
	s.title("3  The same with a real container")
	if s.engine == nil {
		s.line("  Left out: no Docker engine answers on this machine. Get one: https://docs.docker.com/engine/install/")
		return nil
	}
	image := "bellhop.demo/hello:" + s.name
	err := s.step(ctx, "make an image", func(ctx context.Context, _ func(string)) (string, error) {
		size, err := s.image(ctx, image)
		return fmt.Sprintf("%s, %.1f MB", image, float64(size)/1e6), err
	})
	if err != nil {
		return err
	}
	// After the image, so that they are removed before it: an image in use would only lose its name.
	s.later("remove containers", s.sweep)
	got, err := s.order(ctx, "3", "-provider", "docker", "-image", image, "-port", "8080", "-first-attempt", `{"pull": "never"}`)
	if err != nil {
		return err
	}
	if !got.Served {
		return fmt.Errorf("the order was not served: %s: %w", got.Note, got.Failure)
	}
	if len(got.Endpoints) == 0 {
		return errors.New("the callback names no endpoint")
	}
	url := "http://" + net.JoinHostPort(got.Endpoints[0].Host, strconv.Itoa(got.Endpoints[0].Port)) + "/"
	answer, err := get(ctx, url)
	if err != nil {
		return fmt.Errorf("call the container: %w", err)
	}
	s.fact("$ curl "+url, "")
	s.line("    %s", s.paint(green, strings.TrimSpace(answer)))

	if err := s.remove(ctx); err != nil {
		return err
	}
	left, err := s.containers(ctx)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("the deletion succeeded, and %d containers are left", len(left))
	}
	if _, err := get(ctx, url); err == nil {
		return fmt.Errorf("the deletion succeeded, and %s still answers", url)
	}
	s.fact("gone", "the engine has no container of it left, and nobody answers")
	return nil
}

// order runs the example for one order, and shows the operation that it starts from beginning to end.
func (s *stage) order(ctx context.Context, number string, args ...string) (delivery, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	id := s.name + "-" + number
	cmd := exec.CommandContext(ctx, s.file("order"), append([]string{"-id", id, "-tenant", s.name}, args...)...)
	cmd.Env = append(os.Environ(), "TEMPORAL_ADDRESS="+s.address)
	s.fact("workflow", id+", which is docs/examples/temporal/order.go")
	s.fact("operation", id+"-provision-1, which it asks for")

	type answer struct {
		delivery
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		var text bytes.Buffer
		err := s.runIt(cmd, func(line string) { text.WriteString(line + "\n") })
		var got answer
		if err == nil {
			err = json.Unmarshal(text.Bytes(), &got.delivery)
		}
		got.err = err
		if err != nil {
			cancel() // there is nothing to follow
		}
		answers <- got
	}()
	followed := s.follow(ctx, id+"-provision-1")
	if followed != nil {
		cancel()
	}
	got := <-answers
	if got.err != nil && (followed == nil || errors.Is(followed, context.Canceled)) {
		return got.delivery, got.err
	}
	return got.delivery, followed
}

// follow shows an operation as it goes, until it has ended and everybody was told.
func (s *stage) follow(ctx context.Context, id string) error {
	ticker := time.NewTicker(frame)
	defer ticker.Stop()
	shown := 0
	for {
		report, err := s.ops.Status(ctx, id)
		switch {
		case err == nil:
			s.show(report.Status, &shown)
			if report.State.Terminal() && settled(report.Callbacks) {
				s.rung(report.Status)
				return nil
			}
		case !errors.Is(err, bellhop.ErrNotFound) && ctx.Err() == nil:
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-s.broken:
			return err
		case <-ticker.C:
		}
	}
}

// show prints what is new.
func (s *stage) show(status bellhop.Status, shown *int) {
	for ; *shown < len(status.Transitions); *shown++ {
		transition := status.Transitions[*shown]
		detail := ""
		switch transition.State {
		case bellhop.Pending:
			detail = "recorded: from here on nothing is lost"
		case bellhop.Queued:
			detail = "a worker has it"
		case bellhop.Running:
			detail = "the provider has taken it; nothing waits but a record"
		case bellhop.Succeeded:
			detail = strings.Join(ids(status.ResourceIDs), ", ")
		case bellhop.Failed, bellhop.Cancelled:
			detail = "what exists nevertheless: " + strings.Join(ids(status.ResourceIDs), ", ")
		}
		s.at(status, transition.At, string(transition.State), detail)
	}
	if !status.State.Terminal() {
		s.draw(fmt.Sprintf("  %7s  %-10s %d of %d ready %s", seconds(time.Since(status.RequestedAt)), status.State,
			status.Progress.Ready, status.Progress.Desired, status.Progress.Message))
	}
}

// rung prints what became of the callbacks.
func (s *stage) rung(status bellhop.Status) {
	for _, receipt := range status.Callbacks {
		attempts := fmt.Sprintf("%d attempts", receipt.Attempts)
		if receipt.Attempts == 1 {
			attempts = "1 attempt"
		}
		s.at(status, receipt.AcknowledgedAt, "rung", fmt.Sprintf("%s to %s: %s, %s", status.Event, receipt.Target, receipt.State, attempts))
	}
}

// at prints a line with the time since the operation was asked for.
func (s *stage) at(status bellhop.Status, at time.Time, what, detail string) {
	colour := bold
	switch bellhop.State(what) {
	case bellhop.Succeeded:
		colour = green
	case bellhop.Failed:
		colour = red
	}
	s.line("  %s  %s %s", s.paint(dim, fmt.Sprintf("%7s", seconds(at.Sub(status.RequestedAt)))), s.paint(colour, fmt.Sprintf("%-10s", what)), detail)
}

func (s *stage) fact(what, detail string) {
	if detail == "" {
		s.line("  %s", what)
		return
	}
	s.line("  %s %s", s.paint(dim, fmt.Sprintf("%-21s", what)), detail)
}

func settled(receipts []bellhop.Receipt) bool {
	return !slices.ContainsFunc(receipts, func(r bellhop.Receipt) bool { return !r.State.Settled() })
}

func ids(known bellhop.ResourceIDs) []string {
	all := slices.Clone(known.SimulatedIDs)
	for _, id := range known.ContainerIDs {
		all = append(all, "container "+id[:min(len(id), 12)]) // as docker ps has it
	}
	return all
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// remove deletes the container as a person would, by the command line.
func (s *stage) remove(ctx context.Context) error {
	id := s.name + "-delete"
	input := fmt.Sprintf(`{"tenant_id": %q, "resource": "web", "provider": "docker"}`, s.name)
	s.fact(fmt.Sprintf("$ echo '%s' |", input), "")
	s.fact("  bin/bellhop delete --id "+id+" --wait -f -", "")
	cmd := exec.CommandContext(ctx, filepath.Join(peers.Root(), "bin", "bellhop"), "delete", "--id", id, "--wait", "-f", "-")
	cmd.Env = append(os.Environ(), "TEMPORAL_ADDRESS="+s.address)
	cmd.Stdin = strings.NewReader(input)
	return s.runIt(cmd, func(line string) { s.line("    %s", line) })
}

func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	// A connection that is kept would keep the container's port from being free.
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("it answers %s", answer.Status)
	}
	return string(text), err
}

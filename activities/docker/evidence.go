package docker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"bellhop"
	"bellhop/activities"
)

// Bounds of the evidence. [bellhop.Failure.Clean] cuts each piece to 4 KiB in the end; secrets are blotted out of what
// is longer, so that none is cut in half and shows.
const (
	maxLogLines      = "50"
	maxLogBytes      = 64 << 10
	maxFailuresShown = 3
)

// notStarted is the failure of a container that the engine could not start. Its state holds the engine's words.
func notStarted(m member, detail container.InspectResponse) *bellhop.Failure {
	code, ok := codeOfText(detail.State.Error)
	if !ok {
		code = bellhop.CodeContainerExited
	}
	failure := bellhop.Fail(code, "container %s did not start", m.name)
	failure.ProviderError = detail.State.Error
	return failure.With("exit_code", strconv.Itoa(detail.State.ExitCode))
}

// exited is the failure of a container that ended and stays ended, or ends again and again.
func exited(m member, detail container.InspectResponse) *bellhop.Failure {
	state := detail.State
	times := ""
	if detail.RestartCount > 0 {
		times = fmt.Sprintf(", %d times restarted", detail.RestartCount)
	}
	failure := bellhop.Fail(bellhop.CodeContainerExited, "container %s exited with code %d%s", m.name, state.ExitCode, times)
	if killedFor(detail) {
		failure.Message += fmt.Sprintf(": if it was killed, then perhaps for using more than its %d MiB of memory, which the engine does not say",
			detail.HostConfig.Memory>>20)
	}
	if state.OOMKilled {
		limit := "its memory"
		if detail.HostConfig != nil && detail.HostConfig.Memory > 0 {
			limit = fmt.Sprintf("its %d MiB of memory", detail.HostConfig.Memory>>20)
		}
		failure = bellhop.Fail(bellhop.CodeOutOfMemory, "container %s was killed for using more than %s%s", m.name, limit, times)
	}
	failure.ProviderError = state.Error
	return failure.
		With("exit_code", strconv.Itoa(state.ExitCode)).
		With("finished_at", state.FinishedAt).
		With("restarts", strconv.Itoa(detail.RestartCount))
}

// unhealthy is the failure of a container that runs and fails its health check.
func unhealthy(m member, detail container.InspectResponse) *bellhop.Failure {
	health := detail.State.Health
	failure := bellhop.Fail(bellhop.CodeHealthCheckFailed, "container %s is unhealthy after %d failed checks in a row",
		m.name, health.FailingStreak)
	var log strings.Builder
	for _, result := range health.Log {
		fmt.Fprintf(&log, "%s exit code %d: %s\n", result.End.UTC().Format("15:04:05.000"), result.ExitCode,
			strings.TrimSpace(result.Output))
	}
	return failure.With("health_log", log.String())
}

// failureOf is the failure of the first container that failed, with the evidence of the first few; nil when none has.
func (p *Provider) failureOf(ctx context.Context, members []member, sights []sight,
	details map[string]container.InspectResponse,
) *bellhop.Failure {
	var first *bellhop.Failure
	shown := 0
	for i, s := range sights {
		if s.failure == nil {
			continue
		}
		shown++
		if shown > maxFailuresShown {
			break
		}
		m, detail := members[i], details[members[i].id]
		if s.failure.Code == bellhop.CodeContainerExited && killedFor(detail) && p.ranOutOfMemory(ctx, m.id) {
			detail.State.OOMKilled = true
			s.failure = exited(m, detail)
		}
		secrets := secretsOf(detail.Config.Env)
		evidence := s.failure.With("container", m.name).With("image", detail.Config.Image).
			With("logs", p.lastLines(ctx, m.id, secrets)).Clean(secrets)
		if first == nil {
			first = evidence
			continue
		}
		for name, value := range evidence.Evidence {
			first = first.With(fmt.Sprintf("%d_%s", shown, name), value)
		}
	}
	return first
}

// killed is the exit code of a process that was killed: 128 and SIGKILL.
const killed = 137

// killedFor says whether a container may have been killed for its memory although the engine does not say so.
func killedFor(detail container.InspectResponse) bool {
	return detail.State.ExitCode == killed && !detail.State.OOMKilled && detail.HostConfig != nil && detail.HostConfig.Memory > 0
}

// ranOutOfMemory asks the engine's log of events. The engine learns of a lack of memory and of the exit by two ways; on a
// busy machine the exit may overtake, so the log is followed for a moment; the container's own state then lacks the
// reason for good. Sometimes the notice is lost with the container (6 of 60 times on a machine under load); what is then
// known is the exit code, and nothing more is claimed.
func (p *Provider) ranOutOfMemory(ctx context.Context, id string) bool {
	ctx, cancel := context.WithTimeout(ctx, eventsWithin)
	defer cancel()
	until := p.clock.Now().Add(overtaken)
	logged := p.docker.Events(ctx, client.EventsListOptions{
		Since: "0", Until: fmt.Sprintf("%d.%09d", until.Unix(), until.Nanosecond()),
		Filters: make(client.Filters).Add("container", id).Add("event", string(events.ActionOOM)),
	})
	select {
	case <-logged.Messages:
		return true
	case <-logged.Err: //nolint:errcheck // the end of the log, or it cannot be read: the failure stands as it is
		return false
	}
}

const (
	// eventsWithin bounds how long the log of events is read.
	eventsWithin = 3 * time.Second
	// overtaken is how much later than the exit the lack of memory may be told.
	overtaken = time.Second
)

// lastLines are the end of a container's log, both streams as the engine took them in.
func (p *Provider) lastLines(ctx context.Context, id string, secrets []string) string {
	stream, err := p.docker.ContainerLogs(ctx, id, client.ContainerLogsOptions{
		ShowStdout: true, ShowStderr: true, Tail: maxLogLines,
	})
	if err != nil {
		// A log driver that cannot be read, or nothing was ever written. The failure stands without it.
		return "cannot be read: " + err.Error()
	}
	defer stream.Close() //nolint:errcheck // all that matters was read
	last := activities.Tail{Limit: maxLogBytes}
	if _, err := stdcopy.StdCopy(&last, &last, stream); err != nil {
		fmt.Fprintf(&last, "\n[cannot read on: %s]", err)
	}
	return last.Text(secrets)
}

// secretsOf are the secrets in a container's environment: the watcher has no operation to take them from. What the image sets cannot be told apart from what the tenant set; PATH is left in.
func secretsOf(env []string) []string {
	var values []string
	for _, pair := range env {
		if name, value, _ := strings.Cut(pair, "="); name != "PATH" {
			values = append(values, value)
		}
	}
	return activities.SecretsIn(values)
}

// scrubbed blots the values of a container's environment out of what the engine says of it. Whoever is told knows the
// operation's own values, but not what its secrets refer to.
func scrubbed(err error, env []string) error {
	if failure, ok := errors.AsType[*bellhop.Failure](err); ok {
		return failure.Clean(secretsOf(env))
	}
	return err
}

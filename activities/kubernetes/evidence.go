package kubernetes

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bellhop"
	"bellhop/activities"
)

// Bounds of the evidence. [bellhop.Failure.Clean] cuts each piece to 4 KiB in the end; secrets are blotted out of what
// is longer, so that none is cut in half and shows.
const (
	maxLogLines      = 50
	maxLogBytes      = 64 << 10
	maxEvents        = 10
	maxFailuresShown = 3
	// proofWithin bounds how long evidence is gathered. A failure stands without it.
	proofWithin = 10 * time.Second
)

// prove adds to a failed observation what its first few pods in trouble leave behind: their state, their events and
// the last lines of their logs.
func (p *Provider) prove(ctx context.Context, there standing, seen *bellhop.Observation) {
	ctx, cancel := context.WithTimeout(ctx, proofWithin)
	defer cancel()
	mine := bellhop.Generation{OperationID: seen.OperationID, RequestedAt: seen.RequestedAt}
	shown := 0
	var secrets []string
	for _, pod := range there.podsOf(mine) {
		secrets = append(secrets, secretsOf(pod)...)
		failure := failedPod(pod)
		if failure == nil && pod.DeletionTimestamp == nil && !isReady(pod) {
			if failure = troubleOf(pod); failure == nil {
				failure = unready(pod)
			}
		}
		if failure == nil || shown == maxFailuresShown {
			continue
		}
		shown++
		failure = failure.With("message", failure.ProviderError).With("node", pod.Spec.NodeName).
			With("events", p.eventsOf(ctx, pod)).With("logs", p.lastLines(ctx, pod)).Clean(secretsOf(pod))
		if len(pod.Spec.Containers) > 0 {
			failure = failure.With("image", pod.Spec.Containers[0].Image)
		}
		prefix := ""
		if shown > 1 {
			prefix = fmt.Sprintf("%d_", shown)
		}
		for name, value := range failure.Evidence {
			seen.Failure = seen.Failure.With(prefix+name, value)
		}
	}
	if there.deployment != nil && shown == 0 {
		for _, condition := range there.deployment.Status.Conditions {
			seen.Failure = seen.Failure.With("condition_"+strings.ToLower(string(condition.Type)),
				strings.TrimSpace(fmt.Sprintf("%s %s %s", condition.Status, condition.Reason, condition.Message)))
		}
	}
	// The environment of all pods is one; each is asked in case somebody changed it.
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	seen.Failure = seen.Failure.Clean(slices.Compact(secrets))
	seen.Progress.Message = seen.Failure.Message
}

func isReady(pod *corev1.Pod) bool {
	ready := conditionOf(pod, corev1.PodReady)
	return ready != nil && ready.Status == corev1.ConditionTrue
}

// eventsOf are the last events about a pod, the oldest first. The cluster forgets them within the hour.
func (p *Provider) eventsOf(ctx context.Context, pod *corev1.Pod) string {
	events, err := p.cluster.CoreV1().Events(pod.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "involvedObject.uid=" + string(pod.UID),
	})
	if err != nil {
		return "cannot be read: " + err.Error()
	}
	slices.SortFunc(events.Items, func(a, b corev1.Event) int { return at(a).Compare(at(b)) })
	var text strings.Builder
	for _, event := range events.Items[max(0, len(events.Items)-maxEvents):] {
		fmt.Fprintf(&text, "%s %s %s: %s", at(event).UTC().Format(time.TimeOnly), event.Type, event.Reason, event.Message)
		if event.Count > 1 {
			fmt.Fprintf(&text, " (%d times)", event.Count)
		}
		text.WriteByte('\n')
	}
	return text.String()
}

func at(event corev1.Event) time.Time {
	switch {
	case !event.LastTimestamp.IsZero():
		return event.LastTimestamp.Time
	case !event.EventTime.IsZero():
		return event.EventTime.Time
	}
	return event.CreationTimestamp.Time
}

// lastLines are the end of the log of a pod's container in trouble: of the run that ended, when it has been restarted
// since.
func (p *Provider) lastLines(ctx context.Context, pod *corev1.Pod) string {
	options := &corev1.PodLogOptions{TailLines: new(int64(maxLogLines))}
	for _, status := range statuses(pod) {
		state := status.State
		if state.Running == nil && state.Terminated == nil && status.LastTerminationState.Terminated == nil {
			continue // it never ran
		}
		options.Container = status.Name
		options.Previous = state.Terminated == nil && status.LastTerminationState.Terminated != nil
		if !status.Ready {
			break
		}
	}
	if options.Container == "" {
		return ""
	}
	stream, err := p.cluster.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, options).Stream(ctx)
	if err != nil {
		// The node is gone, or the log. The failure stands without it.
		return "cannot be read: " + err.Error()
	}
	defer stream.Close() //nolint:errcheck // all that matters was read
	last := activities.Tail{Limit: maxLogBytes}
	if _, err := io.Copy(&last, stream); err != nil {
		fmt.Fprintf(&last, "\n[cannot read on: %s]", err)
	}
	return last.Text(secretsOf(pod))
}

// secretsOf are the secrets in a pod's environment: the watcher has no operation to take them from. Values that the cluster looks up in its secrets bellhop never sees.
func secretsOf(pod *corev1.Pod) []string {
	var values []string
	for _, container := range pod.Spec.Containers {
		for _, variable := range container.Env {
			values = append(values, meant(variable.Value))
		}
	}
	return activities.SecretsIn(values)
}

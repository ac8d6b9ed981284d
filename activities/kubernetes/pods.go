package kubernetes

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"bellhop"
)

// sights is what an operation's pods look like together.
type sights struct {
	// ready are the names of those that are.
	ready []string
	// failure is of the first that has failed for good.
	failure *bellhop.Failure
	// candidate is the failure that the first one in trouble will be, should nothing change.
	candidate *bellhop.Failure
	// message says what is waited for, and again after how long time alone may change the judgement.
	message string
	again   time.Duration
}

// note remembers the first thing that is waited for, and the soonest time to look again.
func (s *sights) note(message string, left time.Duration) {
	if s.message == "" {
		s.message = message
	}
	if left > 0 && (s.again == 0 || left < s.again) {
		s.again = left
	}
}

// stuck is the failure of pods that did not become ready before the deadline.
func (s *sights) stuck(message string) *bellhop.Failure {
	failure := s.candidate
	if failure == nil {
		failure = bellhop.Fail(bellhop.CodeTimeout, "the rollout stood still until its deadline")
	}
	if failure.ProviderError == "" {
		failure.ProviderError = message
	}
	return failure
}

// ended is the failure of a job.
func (s *sights) ended(message string) *bellhop.Failure {
	failure := s.candidate
	if failure == nil {
		failure = bellhop.Fail(bellhop.CodeContainerExited, "the job failed")
	}
	if failure.ProviderError == "" {
		failure.ProviderError = message
	}
	return failure
}

// judge looks at an operation's pods. One that is in trouble has failed once it is older than the patience, one that
// runs and is not ready when that lasts longer than the deadline; zero is no deadline.
func (p *Provider) judge(pods []*corev1.Pod, deadline time.Duration) sights {
	var s sights
	now := p.clock.Now()
	for _, pod := range pods {
		if pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded {
			continue
		}
		if failed := failedPod(pod); failed != nil { // a deployment replaces it, a job counts it
			if s.candidate == nil {
				s.candidate = failed
			}
			s.note(failed.Message, 0)
			continue
		}
		ready := conditionOf(pod, corev1.PodReady)
		if ready != nil && ready.Status == corev1.ConditionTrue {
			s.ready = append(s.ready, pod.Name)
			continue
		}
		trouble, limit, since := troubleOf(pod), time.Duration(p.config.Patience), scheduledAt(pod)
		if trouble == nil {
			trouble, limit = unready(pod), deadline
			if ready != nil {
				since = ready.LastTransitionTime.Time
			}
		}
		if trouble == nil {
			continue
		}
		if limit == 0 {
			continue // a job's pod has all the time that it takes
		}
		if s.candidate == nil {
			s.candidate = trouble
		}
		left := limit - now.Sub(since)
		if left <= 0 && s.failure == nil {
			s.failure = trouble
		}
		s.note(trouble.Message, left)
	}
	return s
}

// scheduledAt is since when a pod has a node. What it waited for before is not the container's fault.
func scheduledAt(pod *corev1.Pod) time.Time {
	if scheduled := conditionOf(pod, corev1.PodScheduled); scheduled != nil && scheduled.Status == corev1.ConditionTrue {
		return scheduled.LastTransitionTime.Time
	}
	return pod.CreationTimestamp.Time
}

func conditionOf(pod *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == kind {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// failedPod is the failure of a pod that has ended and is not started again; nil of any other.
func failedPod(pod *corev1.Pod) *bellhop.Failure {
	if pod.Status.Phase != corev1.PodFailed {
		return nil
	}
	if reason := pod.Status.Reason; reason != "" { // it is the node's word, not a container's
		failure := bellhop.Fail(bellhop.CodeCapacityUnavailable, "pod %s was ended by the cluster: %s", pod.Name, reason)
		failure.ProviderError = pod.Status.Message
		return failure.With("pod", pod.Name).With("reason", reason)
	}
	for _, status := range statuses(pod) {
		if ended := status.State.Terminated; ended != nil && ended.ExitCode != 0 {
			return exited(pod, status, ended)
		}
	}
	return bellhop.Fail(bellhop.CodeContainerExited, "pod %s failed", pod.Name).With("pod", pod.Name)
}

func statuses(pod *corev1.Pod) []corev1.ContainerStatus {
	return slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
}

// waiting are the reasons for which a container waits that do not pass by waiting alone.
var waiting = map[string]bellhop.Code{
	"ErrImagePull":               bellhop.CodeImagePullFailed,
	"ImagePullBackOff":           bellhop.CodeImagePullFailed,
	"ErrImageNeverPull":          bellhop.CodeImagePullFailed,
	"ImageInspectError":          bellhop.CodeImagePullFailed,
	"RegistryUnavailable":        bellhop.CodeImagePullFailed,
	"SignatureValidationFailed":  bellhop.CodeImagePullFailed,
	"InvalidImageName":           bellhop.CodeInvalidSpec,
	"CreateContainerConfigError": bellhop.CodeInvalidSpec,
	"CreateContainerError":       bellhop.CodeInvalidSpec,
	"RunContainerError":          bellhop.CodeContainerExited,
	"PostStartHookError":         bellhop.CodeContainerExited,
	"CrashLoopBackOff":           bellhop.CodeContainerExited,
}

// troubleOf is the failure that a pod will be if what is wrong with it lasts; nil when nothing is.
func troubleOf(pod *corev1.Pod) *bellhop.Failure {
	for _, status := range statuses(pod) {
		if ended := status.State.Terminated; ended != nil && (ended.ExitCode != 0 || !isInit(pod, status.Name)) {
			return exited(pod, status, ended)
		}
		state := status.State.Waiting
		if state == nil {
			continue
		}
		code, bad := waiting[state.Reason]
		if !bad {
			continue
		}
		if last := status.LastTerminationState.Terminated; last != nil && state.Reason == "CrashLoopBackOff" {
			return exited(pod, status, last)
		}
		message := fmt.Sprintf("container %s of pod %s cannot be started: %s", status.Name, pod.Name, state.Reason)
		if code == bellhop.CodeImagePullFailed {
			message = fmt.Sprintf("image %s of pod %s cannot be pulled: %s", status.Image, pod.Name, state.Reason)
		}
		failure := bellhop.Fail(code, "%s", message)
		failure.ProviderError = state.Message
		return failure.With("pod", pod.Name).With("reason", state.Reason)
	}
	return nil
}

func isInit(pod *corev1.Pod, name string) bool {
	for _, container := range pod.Spec.InitContainers {
		if container.Name == name {
			return true
		}
	}
	return false
}

// exited is the failure of a container that ended, once or again and again.
func exited(pod *corev1.Pod, status corev1.ContainerStatus, ended *corev1.ContainerStateTerminated) *bellhop.Failure {
	times := ""
	if status.RestartCount > 0 {
		times = fmt.Sprintf(", %d times restarted", status.RestartCount)
	}
	failure := bellhop.Fail(bellhop.CodeContainerExited, "container %s of pod %s exited with code %d%s",
		status.Name, pod.Name, ended.ExitCode, times)
	if ended.Reason == "OOMKilled" {
		failure = bellhop.Fail(bellhop.CodeOutOfMemory, "container %s of pod %s was killed for using more than its memory%s",
			status.Name, pod.Name, times)
	}
	failure.ProviderError = ended.Message
	failure = failure.With("pod", pod.Name).With("reason", ended.Reason).
		With("exit_code", strconv.Itoa(int(ended.ExitCode))).With("restarts", strconv.Itoa(int(status.RestartCount)))
	if !ended.FinishedAt.IsZero() {
		failure = failure.With("finished_at", ended.FinishedAt.UTC().Format(time.RFC3339))
	}
	return failure
}

// unready is the failure of a pod that is not ready although none of its containers is in trouble; nil of one that is
// only being started.
func unready(pod *corev1.Pod) *bellhop.Failure {
	if scheduled := conditionOf(pod, corev1.PodScheduled); scheduled != nil && scheduled.Status == corev1.ConditionFalse {
		failure := bellhop.Fail(bellhop.CodeCapacityUnavailable, "no node takes pod %s", pod.Name)
		failure.ProviderError = scheduled.Message
		return failure.With("pod", pod.Name).With("reason", scheduled.Reason)
	}
	if pod.Status.Phase != corev1.PodRunning {
		return nil
	}
	failure := bellhop.Fail(bellhop.CodeHealthCheckFailed, "pod %s runs and does not become ready", pod.Name)
	if ready := conditionOf(pod, corev1.PodReady); ready != nil {
		failure.ProviderError = ready.Message
	}
	return failure.With("pod", pod.Name)
}

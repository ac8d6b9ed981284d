package peers

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// step is one change that the kubelet's part makes to a pod. A pod plays the script that its first container's image
// names, "bellhop.test/SCRIPT" with any tag, or its annotation "bellhop.test/script", whenever that is set; any other
// pod is well.
type step struct {
	script string
	// from are states of the container; without one, it is any but the one that the step leads to.
	from []string
	// after is how long it is in that state before.
	after time.Duration
	// to is the state that it gets: ready, running, or the reason of one that waits or has terminated.
	to string

	// message goes with a state that waits.
	message string
	// exit is the code of one that has terminated.
	exit int
	// last is the state that it had before, in YAML.
	last string
	// restarted counts one restart more.
	restarted bool
	// phase is the pod's, if not the one that goes with the state.
	phase string
	// evicted says why the whole pod failed.
	evicted string
	// jobs are the only ones that take the step.
	jobs bool
	// event is the reason of the event that tells of it, eventMessage what it says.
	event, eventMessage string
}

// The states of a container, beside the reasons of those that wait or have terminated.
const (
	fresh   = "new"
	running = "Running"
	ready   = "Ready"
)

// How long things take here. A kubelet's back-off begins with ten seconds; all else is about as long as with one.
const (
	moment  = 100 * time.Millisecond
	backoff = 3 * time.Second
)

// well is the script of a pod that names none.
const well = "well"

const loops = "back-off 10s restarting failed container"

var steps = []step{
	// It runs and is ready at once, or is again when it had another script before. A job's has done its work soon.
	{script: well, to: ready},
	{script: well, from: []string{ready}, after: 3 * moment, to: "Completed", phase: "Succeeded", jobs: true},

	// It is ready after three seconds.
	{script: "slow", from: []string{fresh}, to: "ContainerCreating"},
	{script: "slow", from: []string{"ContainerCreating"}, after: 3 * time.Second, to: ready},

	// It runs and does not become ready; as a script of a pod that was ready, it is so no more.
	{script: "never-ready", to: running, event: "Unhealthy", eventMessage: "Readiness probe failed: HTTP probe failed with statuscode: 503"},

	// Its image cannot be pulled, again and again.
	{
		script: "pull", from: []string{fresh}, to: "ErrImagePull", message: "failed to pull and unpack image: not found",
		event: "Failed", eventMessage: "Failed to pull image: not found",
	},
	{
		script: "pull", from: []string{"ErrImagePull"}, after: 3 * moment, to: "ImagePullBackOff",
		message: "Back-off pulling image: ErrImagePull: failed to pull and unpack image: not found", event: "BackOff", eventMessage: "Back-off pulling image",
	},
	{
		script: "pull", from: []string{"ImagePullBackOff"}, after: backoff, to: "ErrImagePull", message: "failed to pull and unpack image: not found",
		event: "Failed", eventMessage: "Failed to pull image: not found",
	},

	// Something that its environment names is not there.
	{
		script: "config-error", from: []string{fresh}, to: "CreateContainerConfigError", message: `secret "absent" not found`,
		event: "Failed", eventMessage: `Error: secret "absent" not found`,
	},

	// It exits with 3 soon after it began, again and again. As a script of a pod that was ready it does so from then on.
	{script: "crash", from: []string{fresh, ready}, to: running},
	{script: "crash", from: []string{running}, after: moment, to: "Error", exit: 3},
	{
		script: "crash", from: []string{"Error"}, after: moment, to: "CrashLoopBackOff", message: loops, last: ended("Error", 3),
		event: "BackOff", eventMessage: "Back-off restarting failed container",
	},
	{script: "crash", from: []string{"CrashLoopBackOff"}, after: backoff, to: running, last: ended("Error", 3), restarted: true},

	// It is killed for its use of memory, again and again.
	{script: "oom", from: []string{fresh, ready}, to: running},
	{script: "oom", from: []string{running}, after: moment, to: "OOMKilled", exit: 137},
	{
		script: "oom", from: []string{"OOMKilled"}, after: moment, to: "CrashLoopBackOff", message: loops, last: ended("OOMKilled", 137),
		event: "BackOff", eventMessage: "Back-off restarting failed container",
	},
	{script: "oom", from: []string{"CrashLoopBackOff"}, after: backoff, to: running, last: ended("OOMKilled", 137), restarted: true},

	// It does a job's work and exits with 4.
	{script: "fail", from: []string{fresh}, to: ready},
	{script: "fail", from: []string{ready}, after: 3 * moment, to: "Error", exit: 4, phase: "Failed"},

	// Its node gets rid of it after a second.
	{script: "evicted", from: []string{fresh}, to: ready},
	{
		script: "evicted", from: []string{ready, running}, after: time.Second, to: "Error", exit: 137, phase: "Failed",
		evicted: "The node was low on resource: memory.", event: "Evicted", eventMessage: "The node was low on resource: memory.",
	},

	// It is well, but takes three seconds to end.
	{script: "lingers", to: ready},
}

// What a pod's script and its first container's state are, in jq.
const (
	scriptOf = `[.metadata.annotations["bellhop.test/script"], (.spec.containers[0].image | capture("^bellhop[.]test/(?<script>[a-z-]+)").script)]` +
		` | map(select(IN(SCRIPTS))) | .[0] // "` + well + `"`
	stateOf = `.status.containerStatuses[0] as $c | $c.state.waiting.reason // $c.state.terminated.reason //` +
		` if $c == null then "` + fresh + `" elif $c.ready then "` + ready + `" else "` + running + `" end`
	// kubeletPod is what becomes of a pod's status.
	kubeletPod = `{{ $now := Now }}{{ $pod := . }}{{ $since := $now }}
{{ range .status.conditions }}{{ if and (eq .type "Ready") (eq .status "CONDITION") }}{{ $since = .lastTransitionTime }}{{ end }}{{ end }}
phase: PHASE
FAILED
startTime: {{ or .status.startTime $now | Quote }}
{{ if not .status.podIP }}{{ with NodeIPsWith .spec.nodeName }}
hostIP: {{ index . 0 | Quote }}
hostIPs: [{ip: {{ index . 0 | Quote }}}]
{{ end }}
{{ with PodIPsWith .spec.nodeName ( or .spec.hostNetwork false ) .metadata.uid .metadata.name .metadata.namespace }}
podIP: {{ index . 0 | Quote }}
podIPs: [{ip: {{ index . 0 | Quote }}}]
{{ end }}{{ end }}
conditions:
- {type: Initialized, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: Ready, status: "CONDITION", lastTransitionTime: {{ $since | Quote }}WHY}
- {type: ContainersReady, status: "CONDITION", lastTransitionTime: {{ $since | Quote }}WHY}
containerStatuses:
{{ range $i, $container := .spec.containers }}
{{ $restarts := 0 }}{{ $started := $now }}
{{ with $pod.status.containerStatuses }}{{ with index . $i }}{{ $restarts = .restartCount }}
{{ with .state.running }}{{ $started = .startedAt }}{{ end }}
{{ with .state.terminated }}{{ $started = .startedAt }}{{ end }}
{{ end }}{{ end }}
- name: {{ $container.name | Quote }}
  image: {{ $container.image | Quote }}
  imageID: ""
  ready: READY
  started: RUNS
  restartCount: {{ add $restarts RESTARTED }}
  state: STATE
  lastState: LAST
{{ end }}
`
	// kubeletNode is what becomes of a node's.
	kubeletNode = `{{ $now := Now }}
phase: Running
addresses: [{type: InternalIP, address: {{ NodeIP | Quote }}}]
daemonEndpoints: {kubeletEndpoint: {Port: {{ NodePort }}}}
allocatable: {cpu: 1k, memory: 1Ti, pods: 1M}
capacity: {cpu: 1k, memory: 1Ti, pods: 1M}
conditions:
{{ range NodeConditions }}
- {type: {{ .type | Quote }}, status: {{ .status | Quote }}, reason: {{ .reason | Quote }}, message: {{ .message | Quote }}, lastHeartbeatTime: {{ $now | Quote }}, lastTransitionTime: {{ $now | Quote }}}
{{ end }}
`
)

// status is the template of the status that a pod has after the step.
func (s step) status() string {
	phase, last, restarted, failed := s.phase, s.last, 0, ""
	if phase == "" {
		phase = "Running"
	}
	if last == "" {
		last = "{}"
	}
	if s.restarted {
		restarted = 1
	}
	if s.evicted != "" {
		failed = fmt.Sprintf("reason: Evicted\nmessage: %q", s.evicted)
	}
	var state string
	runs := s.to == ready || s.to == running
	switch {
	case runs:
		state = "{running: {startedAt: {{ $started | Quote }}}}"
	case s.exit != 0 || s.to == "Completed":
		state = ended(s.to, s.exit)
	default:
		state = fmt.Sprintf("{waiting: {reason: %s, message: %q}}", s.to, s.message)
		if s.last == "" { // it never ran
			phase = "Pending"
		}
	}
	condition, why := "True", ""
	if s.to != ready {
		condition, why = "False", `, reason: ContainersNotReady, message: "containers with unready status"`
	}
	return strings.NewReplacer(
		"PHASE", phase, "FAILED", failed, "CONDITION", condition, "WHY", why, "READY", fmt.Sprint(s.to == ready), "RUNS", fmt.Sprint(runs),
		"RESTARTED", fmt.Sprint(restarted), "STATE", state, "LAST", last,
	).Replace(kubeletPod)
}

// ended is the state of a container that has terminated, in YAML.
func ended(reason string, exit int) string {
	return fmt.Sprintf("{terminated: {reason: %s, exitCode: %d, startedAt: {{ $started | Quote }}, finishedAt: {{ $now | Quote }}}}", reason, exit)
}

// kubelet writes kwok's configuration, which makes it play the kubelet of every node, and returns its path.
func kubelet(folder string) (string, error) {
	var file strings.Builder
	write := func(kind, name string, spec map[string]any) error {
		text, err := json.Marshal(map[string]any{
			"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": kind, "metadata": map[string]string{"name": name}, "spec": spec,
		})
		fmt.Fprintf(&file, "---\n%s\n", text)
		return err
	}
	stage := func(name, resource string, after time.Duration, matching []map[string]any, next map[string]any) error {
		return write("Stage", name, map[string]any{
			"resourceRef": map[string]string{"apiGroup": "v1", "kind": resource},
			"selector":    map[string]any{"matchExpressions": matching},
			"delay":       map[string]any{"durationMilliseconds": after.Milliseconds()},
			"next":        next,
		})
	}
	is := func(key, operator string, values ...string) map[string]any {
		expression := map[string]any{"key": key, "operator": operator}
		if len(values) > 0 {
			expression["values"] = values
		}
		return expression
	}

	names := []string{}
	for _, step := range steps {
		names = append(names, fmt.Sprintf("%q", step.script))
	}
	script := strings.ReplaceAll(scriptOf, "SCRIPTS", strings.Join(names, ", "))
	faults := []error{}
	for i, step := range steps {
		matching := []map[string]any{
			is(script, "In", step.script), is(".metadata.deletionTimestamp", "DoesNotExist"), is(".status.phase", "NotIn", "Succeeded", "Failed"),
		}
		if step.from == nil {
			matching = append(matching, is(stateOf, "NotIn", step.to))
		} else {
			matching = append(matching, is(stateOf, "In", step.from...))
		}
		if step.jobs {
			matching = append(matching, is(".metadata.ownerReferences[].kind", "In", "Job"))
		}
		next := map[string]any{"statusTemplate": step.status()}
		if step.event != "" {
			next["event"] = map[string]string{"type": "Warning", "reason": step.event, "message": step.eventMessage}
		}
		faults = append(faults, stage(fmt.Sprintf("pod-%d-%s", i, step.script), "Pod", step.after, matching, next))
	}
	ends := is(".metadata.deletionTimestamp", "Exists")
	logs := map[string]any{"logs": []map[string]string{{"logsFile": logFile(folder, false), "previousLogsFile": logFile(folder, true)}}}
	path := filepath.Join(folder, "kubelet.yaml")
	for _, err := range append(faults,
		stage("pod-lingers", "Pod", 3*time.Second, []map[string]any{ends, is(script, "In", "lingers")}, map[string]any{"delete": true}),
		stage("pod-ends", "Pod", moment, []map[string]any{ends, is(script, "NotIn", "lingers")}, map[string]any{"delete": true}),
		stage("node", "Node", 0, []map[string]any{is(".status.phase", "NotIn", "Running")}, map[string]any{"statusTemplate": kubeletNode}),
		write("ClusterLogs", "logs", logs),
		os.WriteFile(path, []byte(file.String()), 0o600),
	) {
		if err != nil {
			return "", err
		}
	}
	return path, nil
}

func logFile(folder string, previous bool) string {
	if previous {
		return filepath.Join(folder, "previous.log")
	}
	return filepath.Join(folder, "current.log")
}

// writeLog writes what a kubelet shows as the log of a container, in the form in which a container runtime keeps it.
func writeLog(path string, lines []string) error {
	var file strings.Builder
	for _, line := range lines {
		fmt.Fprintf(&file, "%s stdout F %s\n", time.Now().UTC().Format(time.RFC3339Nano), line)
	}
	return os.WriteFile(path, []byte(file.String()), 0o600)
}

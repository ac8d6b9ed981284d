package scriptedecs

import (
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// Workload is what an image of bellhop.test does.
type Workload struct {
	// Does says it in words.
	Does string

	// Of the deployment.
	pauses bool // at a lifecycle hook
	// Of the placement.
	noCapacity bool
	// Before it runs.
	hangs  bool   // it stays PENDING
	refuse string // it never runs, and this is the stopped reason
	// While it runs.
	unhealthy bool // its health check fails
	ends      bool // it ends by itself, after some steps
	steps     int
	code      int32  // its exit code
	reason    string // what the container's reason says then
	stopCode  types.TaskStopCode
	stopped   string // the task's stopped reason. Empty: an essential container exited
	unseen    bool   // it ends before anybody saw it running: the circuit breaker counts it
	// heals is how many tasks of a deployment do that; those after them become ready. 0: all do.
	heals int
	// logs is what it prints before it ends.
	logs []string
}

// Workloads are what images can do: bellhop.test/NAME, whatever path and tag surround the name. Every other image is
// like ready.
var Workloads = map[string]Workload{
	"ready": {Does: "becomes ready and stays so"},
	"slow":  {Does: "stays PENDING", hangs: true},
	"exits": {
		Does: "exits with code 3 as it starts", ends: true, unseen: true, code: 3,
		logs: []string{"starting", "fatal: no database"},
	},
	"leaks": {
		Does: "prints its environment and exits with code 3", ends: true, unseen: true, code: 3,
	},
	"crash-loops": {
		Does: "runs for a moment, too long for the circuit breaker to count it and too short to be ready, and exits with code 3",
		ends: true, code: 3, logs: []string{"starting", "fatal: lost the database"},
	},
	"stops-after-ready": {
		Does: "becomes ready and exits with code 3 after twenty steps", ends: true, steps: 20, code: 3,
		logs: []string{"serving", "fatal: lost the database"},
	},
	"done":  {Does: "exits with code 0 after two steps", ends: true, steps: 2, logs: []string{"done"}},
	"long":  {Does: "exits with code 0 after a hundred steps", ends: true, steps: 100, logs: []string{"done at last"}},
	"flaky": {Does: "exits with code 3, twice; the third one is ready", ends: true, unseen: true, code: 3, heals: 2},
	"out-of-memory": {
		Does: "is killed for its memory as it starts", ends: true, unseen: true, code: 137,
		reason: "OutOfMemoryError: Container killed due to memory usage",
		// The task's own reason, as Fargate words it.
		stopped: "OutOfMemoryError: Container killed due to memory usage", stopCode: types.TaskStopCodeEssentialContainerExited,
	},
	"unhealthy": {Does: "fails its health check, if it has one", unhealthy: true, logs: []string{"starting", "not healthy: no database"}},
	"pull-error": {
		Does: "is an image that is not there",
		refuse: "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref %s: " +
			"pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed",
	},
	"secret-missing": {
		Does: "has a secret that is not there",
		refuse: "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: " +
			"unable to retrieve secret from asm: service call has been retried 1 time(s): ResourceNotFoundException: " +
			"Secrets Manager can't find the specified secret.",
	},
	"spot-interrupted": {
		Does: "runs on Spot and is interrupted as it starts", ends: true, unseen: true, code: 143,
		stopCode: types.TaskStopCodeSpotInterruption, stopped: "Your Spot Task was interrupted.",
	},
	"no-capacity": {Does: "finds no capacity", noCapacity: true},
	"paused":      {Does: "stops at a lifecycle hook until ContinueServiceDeployment, and becomes ready", pauses: true},
}

// workload says what an image does.
func workload(image string) Workload {
	path, found := strings.CutPrefix(image, "bellhop.test/")
	if !found {
		return Workloads["ready"]
	}
	name := path[strings.LastIndex(path, "/")+1:]
	name, _, _ = strings.Cut(name, "@")
	name, _, _ = strings.Cut(name, ":")
	return Workloads[name] // one that nobody knows is ready too
}

// leading is the container that decides what becomes of a task: its first essential one.
func leading(definition *types.TaskDefinition) types.ContainerDefinition {
	for _, container := range definition.ContainerDefinitions {
		if container.Essential == nil || *container.Essential {
			return container
		}
	}
	return definition.ContainerDefinitions[0]
}

// prints is what a container has printed when it ends.
func prints(container types.ContainerDefinition) []string {
	does := workload(aws.ToString(container.Image))
	if does.Does != Workloads["leaks"].Does {
		return does.logs
	}
	var lines []string
	for _, pair := range container.Environment {
		lines = append(lines, fmt.Sprintf("%s=%s", aws.ToString(pair.Name), aws.ToString(pair.Value)))
	}
	return append(lines, "fatal: said too much")
}

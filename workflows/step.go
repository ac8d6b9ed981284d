package workflows

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"bellhop"
	"bellhop/activities"
)

// Build is what the build id of a worker without versioning begins with. It stands in the history of whatever that
// worker begins, and says by which rules: with a marker of workflow.GetVersion each operation would cost one more write
// to Temporal's visibility.
const Build = "bellhop:2"

// secondRules says by which rules a workflow was begun; ask at its beginning. By the second ones, whose histories are in
// tests/histories from folder 4 on, the ids of activities cannot be guessed, deliveries tell when the operation was
// requested, and an outcome is bounded.
func secondRules(ctx workflow.Context) bool {
	if strings.HasPrefix(workflow.GetInfo(ctx).GetCurrentBuildID(), Build) {
		return true
	}
	return workflow.GetVersion(ctx, "activity-ids", workflow.DefaultVersion, 1) == 1
}

// steps makes the ids of a workflow's activities. Whoever knows an activity's id can tell Temporal its result, so nobody
// else may know it: it has a hash of the workflow's first run id in it, which survives a reset.
type steps struct {
	second bool
	run    string
	// begun counts the activities of each name.
	begun map[string]int
}

func newSteps(ctx workflow.Context, second bool) *steps {
	return &steps{second: second, run: workflow.GetInfo(ctx).OriginalRunID, begun: map[string]int{}}
}

// id is the id of the next activity of a name. By the first rules it is the old one, which for most was left to the SDK;
// a repetition has one that cannot be guessed all the same.
func (s *steps) id(name, old string, forged int) string {
	if !s.second && forged == 0 {
		return old
	}
	s.begun[name]++
	return name + "-" + suffix(s.run, name, s.begun[name])
}

// suffixLength is how many characters the unguessable part of an activity's id has.
const suffixLength = 16

func suffix(run, name string, n int) string {
	sum := sha256.Sum256([]byte(run + "\x00" + name + "\x00" + strconv.Itoa(n)))
	return hex.EncodeToString(sum[:])[:suffixLength]
}

// named is the name in an activity's id, with or without the part that cannot be guessed.
func named(id string) string {
	if cut := len(id) - suffixLength - 1; cut > 0 && id[cut] == '-' && strings.Trim(id[cut+1:], "0123456789abcdef") == "" {
		return id[:cut]
	}
	return id
}

// step is an activity that a workflow waits for.
type step struct {
	// name is the beginning of its id, old its id by the first rules.
	name, old string
	// kind is how metrics call it.
	kind string
	// queue is the task queue of its kind of activities; empty for the workflow's own.
	queue    string
	options  workflow.ActivityOptions
	activity any
	// args are asked for at each repetition, of which again tells.
	args func(again bool) []any
	// fails are the types of the errors by which it may fail for good. Other failures are retried until its time is up.
	fails []string
}

// maxPause bounds the pause between two repetitions.
const maxPause = time.Minute

// perform runs an activity and takes no result for its own that does not fit, and no failure that no activity of
// bellhop's makes: whoever forges one can do no more than have the activity repeated, within the same time.
func perform[R any](ctx workflow.Context, s *steps, do step, fits func(R) bool) (R, error) {
	began := workflow.Now(ctx)
	within := do.options.ScheduleToCloseTimeout
	if do.queue != "" {
		do.options.TaskQueue = Queue(workflow.GetInfo(ctx).TaskQueueName, do.queue)
	}
	for forged := 0; ; forged++ {
		do.options.ActivityID = s.id(do.name, do.old, forged)
		var result R
		err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, do.options), do.activity, do.args(forged > 0)...).Get(ctx, &result)
		if err == nil && fits(result) || err != nil && genuine(err, do.fails) {
			return result, err
		}
		workflow.GetMetricsHandler(ctx).WithTags(map[string]string{"activity": do.kind}).Counter("bellhop_forged_results").Inc(1)
		workflow.GetLogger(ctx).Warn("an activity's result was forged: it does not fit what was asked for; it is repeated",
			"activity", do.kind, "id", do.options.ActivityID)
		pause := min(time.Second<<min(forged, 10), maxPause)
		if within > 0 {
			left := within - workflow.Now(ctx).Sub(began) - pause
			if left <= 0 {
				var none R
				return none, errForged
			}
			do.options.ScheduleToCloseTimeout = left
			do.options.StartToCloseTimeout = min(do.options.StartToCloseTimeout, left)
		}
		if err := workflow.NewTimerWithOptions(ctx, pause, workflow.TimerOptions{Summary: "repeat " + do.name}).Get(ctx, nil); err != nil {
			var none R
			return none, err
		}
	}
}

// errForged is the end of an activity whose results were forged until its time was up.
var errForged = errors.New("no answer of its own came in time, only forged ones")

// genuine says whether an activity of bellhop's may have failed so. What goes wrong in one is retried until its time is up
// or it is cancelled; a failure that forbids that is somebody else's.
func genuine(err error, fails []string) bool {
	if _, ended := errors.AsType[*temporal.ActivityError](err); !ended {
		return temporal.IsCanceledError(err) // else the result cannot be read
	}
	failure, ok := errors.AsType[*temporal.ApplicationError](err)
	if !ok || !failure.NonRetryable() {
		return true
	}
	for _, own := range fails {
		if failure.Type() == own {
			return true
		}
	}
	return false
}

// once makes the arguments of an activity that are the same at each repetition.
func once(args ...any) func(bool) []any { return func(bool) []any { return args } }

// fitsDelivery says whether a receipt can be that of a delivery.
func fitsDelivery(delivery activities.Delivery) func(bellhop.Receipt) bool {
	return func(r bellhop.Receipt) bool {
		return r.State.Settled() && r.Target == delivery.Callback.Target && r.CallbackID == delivery.CallbackID
	}
}

// fitsObservation says whether an observation can be of an operation. An outcome, which is what a callback that goes
// astray brings, has no phase. One that has a phase nobody knows is a provider's own, and judged.
func fitsObservation(operationID string, seen bellhop.Observation) bool {
	return seen.OperationID == operationID && seen.Phase != ""
}

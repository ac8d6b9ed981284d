package workflows_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"bellhop/activities"
	"bellhop/workflows"
)

func TestWatchProviderGoesOn(t *testing.T) {
	t.Parallel()
	s := setup(t)
	// A run lasts a day of a worker's own time, which no clock of a test skips: this is the one activity that is
	// replaced.
	var watched []string
	var acts *activities.Activities
	s.OnActivity(acts.Watch, mock.Anything, mock.Anything, mock.Anything).Return(
		func(_ context.Context, provider string, within time.Duration) error {
			watched = append(watched, provider)
			if within != 24*time.Hour {
				t.Errorf("a run lasts %s: its history must stay short", within)
			}
			if len(watched) < 3 {
				return errors.New("the platform can no longer be watched")
			}
			return nil
		})
	s.ExecuteWorkflow(workflows.WatchProvider, "sim")
	var again *workflow.ContinueAsNewError
	if err := s.GetWorkflowError(); !errors.As(err, &again) {
		t.Fatalf("the watch ended with %v, want it to go on in a new run", err)
	}
	if len(watched) != 3 {
		t.Errorf("the platform was watched %d times, want it again after each error", len(watched))
	}
	var provider string
	if err := converter.GetDefaultDataConverter().FromPayloads(again.Input, &provider); err != nil || provider != "sim" || again.WorkflowType.Name != "WatchProvider" {
		t.Errorf("the new run is a %s of %q, %v", again.WorkflowType.Name, provider, err)
	}
	if id := workflows.WatchID("other", "sim"); id != "bellhop-watch/other/sim" {
		t.Errorf("the watch of another task queue's workers is %s: theirs would not be started", id)
	}
	if id := workflows.WatchID(workflows.TaskQueue, "sim"); id != "bellhop-watch/sim" {
		t.Errorf("the watch of sim is named %s; of one name there is one", id)
	}
}

// However often a watch has changed hands, the next worker takes over at once.
func TestWatchIsTakenOverAtOnce(t *testing.T) {
	t.Parallel()
	s := setup(t)
	var began []time.Time
	var acts *activities.Activities
	s.OnActivity(acts.Watch, mock.Anything, mock.Anything, mock.Anything).Return(
		func(context.Context, string, time.Duration) error {
			if began = append(began, s.Now()); len(began) < 10 {
				return temporal.NewHeartbeatTimeoutError()
			}
			return nil
		})
	s.ExecuteWorkflow(workflows.WatchProvider, "sim")
	if len(began) != 10 {
		t.Fatalf("it was begun %d times, want 10", len(began))
	}
	for i := range began[1:] {
		if pause := began[i+1].Sub(began[i]); pause > time.Second {
			t.Errorf("the worker after %d others was waited for for %s", i+1, pause)
		}
	}
}

func TestNamesOnTheWire(t *testing.T) {
	for verb, name := range map[string]string{"provision": "ProvisionCompute", "update": "UpdateCompute", "delete": "DeleteCompute"} {
		if got := string(workflows.VerbOf(name)); got != verb || workflows.TypeFor(workflows.VerbOf(name)) != name {
			t.Errorf("%s carries out %q, want %s", name, got, verb)
		}
	}
	if workflows.VerbOf("WatchProvider") != "" || workflows.TypeFor("scale") != "" {
		t.Error("a workflow that is no operation has a verb, or a verb that is none a workflow")
	}
}

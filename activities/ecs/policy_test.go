package ecs

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"bellhop"
	"bellhop/tests/peers/scriptedecs"
)

// TestPolicyIsWhatIsCalled takes a service and tasks through all that can happen to them, and compares the calls that were
// made with the policy that operators are given: none is missing in it, and none is superfluous.
func TestPolicyIsWhatIsCalled(t *testing.T) {
	d := setup(t, scriptedecs.Options{Events: &scriptedecs.Events{}}, func(c *Config) {
		c.LogGroup, c.ExecutionRoleARN = "/bellhop/{tenant}", "arn:aws:iam::111122223333:role/bellhop-execution"
		c.TaskDefinitions = []string{"arn:aws:ecs:eu-central-1:111122223333:task-definition/*"}
	})
	d.provider.config.EventsQueueURL = d.server.QueueURL
	d.watch()
	web := d.operation(bellhop.Provision, "web", image("ready"), "")
	require.Equal(t, bellhop.PhaseReady, d.end(web).Phase)
	rolledBack := d.end(d.operation(bellhop.Update, "web", image("exits"), ""))
	require.Equal(t, bellhop.PhaseFailed, rolledBack.Phase)
	require.Equal(t, bellhop.CodeRolledBack, rolledBack.Failure.Code)
	require.Contains(t, rolledBack.Failure.Evidence["logs"], "fatal: no database")
	paused := d.operation(bellhop.Update, "web", image("paused"), "")
	_, err := d.provider.Update(t.Context(), paused)
	require.NoError(t, err)
	for _, verb := range []bellhop.Verb{bellhop.Provision, bellhop.Delete} {
		spec := bellhop.Spec{}
		if verb == bellhop.Provision {
			spec = image("long")
		}
		op := d.operation(verb, "job", spec, `{"kind": "task"}`)
		if verb == bellhop.Delete {
			require.Equal(t, bellhop.PhaseGone, d.end(op).Phase)
		} else {
			_, err := d.provider.Provision(t.Context(), op)
			require.NoError(t, err)
		}
	}
	own := d.operation(bellhop.Provision, "own", image("done"), fmt.Sprintf(`{"kind": "task", "task_definition": %q}`,
		rolledBack.ResourceIDs.TaskDefinitionARN))
	seen, err := d.provider.Provision(t.Context(), own) // of another image: refused, after a look at it
	require.NoError(t, err)
	require.Equal(t, bellhop.CodeInvalidSpec, seen.Failure.Code)
	require.Eventually(t, func() bool {
		seen, err := d.provider.Observe(t.Context(), paused)
		return err == nil && seen.Phase == bellhop.PhasePending && d.calls("DescribeServiceDeployments") > 0
	}, time.Minute, 5*time.Millisecond)
	require.Equal(t, bellhop.PhaseGone, d.end(d.operation(bellhop.Delete, "web", bellhop.Spec{}, "")).Phase)

	called := map[string]bool{
		"iam:PassRole": true, // AWS asks for it when a task definition with a role is registered or run
	}
	for _, call := range d.server.Calls() {
		called[call.Action] = true
	}
	if called["sqs:DeleteMessageBatch"] { // of which IAM has no action of its own
		delete(called, "sqs:DeleteMessageBatch")
		called["sqs:DeleteMessage"] = true
	}
	text, err := os.ReadFile("../../docs/examples/ecs/policy.json")
	require.NoError(t, err)
	var policy struct {
		Statement []struct{ Action any }
	}
	require.NoError(t, json.Unmarshal(text, &policy))
	allows := map[string]bool{}
	for _, statement := range policy.Statement {
		switch actions := statement.Action.(type) {
		case string:
			allows[actions] = true
		case []any:
			for _, action := range actions {
				allows[action.(string)] = true
			}
		}
	}
	assert.Equal(t, slices.Sorted(maps.Keys(called)), slices.Sorted(maps.Keys(allows)))
}

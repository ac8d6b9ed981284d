package tests

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"bellhop"
	"bellhop/workflows"
)

const deployed = "deployment: {name: bellhop, build_id: "

// current makes a version of the deployment the current one, as the docs say:
//
//	temporal worker deployment set-current-version --deployment-name bellhop --build-id BUILD
func (b *bench) current(build string) {
	b.Helper()
	b.until(build+" is current", func() bool { // not before its worker has polled
		ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
		defer cancel()
		_, err := b.client.WorkerDeploymentClient().GetHandle("bellhop").
			SetCurrentVersion(ctx, client.WorkerDeploymentSetCurrentVersionOptions{BuildID: build})
		return err == nil
	})
}

// ranOn is the version of the workers that last worked on a workflow.
func (b *bench) ranOn(workflowID string) string {
	b.Helper()
	found, err := b.client.DescribeWorkflowExecution(b.ctx, workflowID, "")
	require.NoError(b, err)
	return found.GetWorkflowExecutionInfo().GetVersioningInfo().GetDeploymentVersion().GetBuildId()
}

func TestDeploymentGoesOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got := b.call("caller")
	old := b.work(b.config(noBackstop, deployed+"v1}"))
	b.current("v1")
	b.begin("moves", "temporal", `{"ready_after": "45s"}`)
	b.until("it waits on v1", func() bool { return b.status("moves").State == bellhop.Running })
	require.Equal(t, "v1", b.ranOn("moves"))

	b.work(b.config(noBackstop, deployed+"v2}"))
	b.current("v2")
	old.Kill()
	b.settle([]string{"moves"}, got)
	require.Equal(t, "v2", b.ranOn("moves"), "operations move on to the current version unless they are pinned")
	require.Equal(t, "v2", b.ranOn(workflows.WatchID(workflows.TaskQueue, "simulated")))
}

func TestDeploymentPinned(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got := b.call("caller")
	old := b.work(b.config(noBackstop, deployed+"v1, behavior: pinned}"))
	b.current("v1")
	b.begin("stays", "temporal", `{"ready_after": "15s"}`)
	b.until("it waits on v1", func() bool { return b.status("stays").State == bellhop.Running })

	b.work(b.config(noBackstop, deployed+"v2, behavior: pinned}"))
	b.current("v2")
	b.begin("newer", "temporal", `{}`)
	b.settled([]string{"stays", "newer"}, got)
	require.Equal(t, "v1", b.ranOn("stays"), "a pinned operation ends on the version that it began on")
	require.Equal(t, "v2", b.ranOn("newer"))

	// Nothing is pinned to v1 any more, so it can be retired; the watch goes on elsewhere.
	require.NoError(b, old.Stop(time.Minute))
	b.begin("watched", "temporal", `{"ready_after": "1s"}`)
	b.settle([]string{"stays", "newer", "watched"}, got)
	require.Equal(t, "v2", b.ranOn(workflows.WatchID(workflows.TaskQueue, "simulated")))
}

package tests

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"bellhop"
	"bellhop/workflows"
)

// TestClosedOperationsAreToldFromTheirHistory compares, for every ending that there is, what is told of a closed operation
// without its workflow with what the workflow itself answers when a worker replays it.
func TestClosedOperationsAreToldFromTheirHistory(t *testing.T) {
	t.Parallel()
	ending := func(s scenario) bool { return s.verb != "" && !s.redelivered }
	newRecorder(t).each(ending, func(r *recorder, s scenario) {
		id := r.play(s)
		answer, err := r.client.QueryWorkflow(r.ctx, id, "", workflows.QueryStatus)
		r.must(err)
		var want bellhop.Status
		r.must(answer.Get(&want))
		report, err := r.ops.Status(r.ctx, id)
		r.must(err)
		require.NoError(r, report.Silence)
		require.Equal(r, want, report.Status)
	})
}

// TestOperationsAreToldWithoutAWorker has every worker die while an operation waits and while the caller of another cannot be
// reached.
func TestOperationsAreToldWithoutAWorker(t *testing.T) {
	t.Parallel()
	b := setup(t)
	proxy, config, env := b.through()
	proxy.Hook(func(*workflowservice.SignalWorkflowExecutionRequest, func() error) error {
		return status.Error(codes.Unavailable, "nobody is there")
	})
	b.call("caller") // else the look at it says that it is gone
	w := b.work(config, env)
	b.begin("waiting", "caller", `{"ready_after": "1h"}`)
	b.begin("ringing", "caller", `{"fail": {"code": "QUOTA_EXCEEDED", "at": "ask"}}`)
	b.until("one waits", func() bool { return b.status("waiting").State == bellhop.Running })
	b.until("one has failed and rings in vain", func() bool {
		return b.status("ringing").State == bellhop.Failed && b.status("ringing").Callbacks[0].Attempts > 1
	})
	waiting, ringing := b.status("waiting"), b.status("ringing")
	w.Kill()
	for _, want := range []bellhop.Status{waiting, ringing} {
		report, err := b.ops.Status(b.ctx, want.OperationID)
		require.NoError(t, err)
		require.Error(t, report.Silence)
		require.Equal(t, want.Outcome, report.Outcome)
		require.Equal(t, want.Progress, report.Progress)
		require.Equal(t, want.Transitions, report.Transitions)
		require.Equal(t, want.Callbacks[0].CallbackID, report.Callbacks[0].CallbackID)
		require.Equal(t, want.Callbacks[0].State, report.Callbacks[0].State)
	}
}

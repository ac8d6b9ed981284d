package tests

import (
	"testing"

	"github.com/stretchr/testify/require"

	"bellhop"
	"bellhop/workflows"
)

// TestClosedOperationsAreToldFromTheirHistory compares, for every ending that there is, what is told of a closed operation
// without its workflow with what the workflow itself answers when a worker replays it.
func TestClosedOperationsAreToldFromTheirHistory(t *testing.T) {
	t.Parallel()
	ending := func(s scenario) bool { return s.verb != "" }
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
		require.Equal(r, s.state, report.State)
	})
}

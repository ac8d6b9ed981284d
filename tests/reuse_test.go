package tests

import (
	"testing"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/workflowservice/v1"

	"bellhop"
)

// Once Temporal has forgotten an operation, its id can be used again. The caller is told of the second use as well, although
// the callback has the same id: the time of the request tells the two apart.
func TestReuse_IDAfterRetention(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got := b.call("caller")
	b.work(b.config())
	told := func(times int) {
		b.until("the caller is told", func() bool { return got()["again/succeeded"].Times == times })
		b.until("the operation has closed", func() bool {
			status := b.status("again")
			return status.State == bellhop.Succeeded && status.Callbacks[0].State == bellhop.ReceiptAcknowledged
		})
	}
	b.begin("again", "temporal", `{}`)
	told(1)
	_, err := b.client.WorkflowService().DeleteWorkflowExecution(b.ctx, &workflowservice.DeleteWorkflowExecutionRequest{
		Namespace: "default", WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: "again"},
	})
	require.NoError(t, err)
	b.until("its retention is over", func() bool {
		_, err := b.ops.Status(b.ctx, "again")
		return err != nil
	})
	b.begin("again", "temporal", `{}`)
	told(2)
	require.Len(t, got()["again/succeeded"].Bodies, 2)
}

package main

import (
	"context"
	"slices"
	"time"

	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/workflow"

	"bellhop"
	"bellhop/operations"
	"bellhop/workflows"
)

// statusInterceptor completes the answer to a status query. A workflow hears of a delivery only when it is settled, so
// that its history stays the same however many attempts it takes; the attempts until then are known to Temporal alone.
// A query leaves no trace in the history, so this is the one place where asking Temporal from beside a workflow is safe.
type statusInterceptor struct {
	interceptor.WorkerInterceptorBase
	ops *operations.Client
}

// InterceptWorkflow is part of [interceptor.WorkerInterceptor].
func (s *statusInterceptor) InterceptWorkflow(_ workflow.Context, next interceptor.WorkflowInboundInterceptor,
) interceptor.WorkflowInboundInterceptor {
	inbound := &statusInbound{ops: s.ops}
	inbound.Next = next
	return inbound
}

type statusInbound struct {
	interceptor.WorkflowInboundInterceptorBase
	ops *operations.Client
}

// completeWithin bounds how long an answer waits for what Temporal knows. Without it the answer is older, not wrong.
const completeWithin = 500 * time.Millisecond

// HandleQuery is part of [interceptor.WorkflowInboundInterceptor].
func (s *statusInbound) HandleQuery(ctx workflow.Context, in *interceptor.HandleQueryInput) (any, error) {
	answer, err := s.Next.HandleQuery(ctx, in)
	status, ok := answer.(bellhop.Status)
	if err != nil || !ok || in.QueryType != workflows.QueryStatus {
		return answer, err
	}
	trying := func(r bellhop.Receipt) bool { return r.State == bellhop.ReceiptDelivering }
	if slices.ContainsFunc(status.Callbacks, trying) {
		asking, cancel := context.WithTimeout(context.Background(), completeWithin)
		defer cancel()
		s.ops.Complete(asking, &status)
	}
	return status, nil
}

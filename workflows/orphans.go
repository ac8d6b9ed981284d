package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"bellhop"
	"bellhop/activities"
)

// orphansWithin is how long a report may take to be made, whoever still waits for it.
const orphansWithin = 10 * time.Minute

// ReportOrphans reports what stands at a provider, or at all when it is empty, and is nobody's. It is a workflow because
// the workers know the providers, and whoever asks knows Temporal.
func ReportOrphans(ctx workflow.Context, provider string) (bellhop.OrphanReport, error) {
	return perform(ctx, newSteps(ctx, secondRules(ctx)), step{
		name: "report-orphans", kind: "orphans", queue: QueueLooks, activity: acts.ReportOrphans, args: once(provider),
		fails: []string{activities.ErrorNotConfigured},
		options: workflow.ActivityOptions{
			ScheduleToCloseTimeout: orphansWithin,
			StartToCloseTimeout:    orphansWithin,
			HeartbeatTimeout:       activities.HeartbeatTimeout,
			RetryPolicy:            &temporal.RetryPolicy{InitialInterval: time.Second, MaximumAttempts: 3},
			Summary:                "compare what stands with what Temporal knows",
		},
	}, func(report bellhop.OrphanReport) bool { return report.Looked != nil })
}

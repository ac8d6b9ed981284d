package workflows

import (
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"bellhop/internal/own"
)

// Register registers every workflow under its name on the wire.
func Register(r worker.WorkflowRegistry) {
	r.RegisterWorkflowWithOptions(ProvisionCompute, workflow.RegisterOptions{Name: own.Provision})
	r.RegisterWorkflowWithOptions(UpdateCompute, workflow.RegisterOptions{Name: own.Update})
	r.RegisterWorkflowWithOptions(DeleteCompute, workflow.RegisterOptions{Name: own.Delete})
	r.RegisterWorkflowWithOptions(RedeliverCallback, workflow.RegisterOptions{
		Name:               own.Redeliver,
		VersioningBehavior: workflow.VersioningBehaviorAutoUpgrade,
	})
	r.RegisterWorkflowWithOptions(ReportOrphans, workflow.RegisterOptions{
		Name:               own.Orphans,
		VersioningBehavior: workflow.VersioningBehaviorAutoUpgrade,
	})
	// Were it pinned, the version that it began on could never be retired.
	r.RegisterWorkflowWithOptions(WatchProvider, workflow.RegisterOptions{
		Name:               own.Watch,
		VersioningBehavior: workflow.VersioningBehaviorAutoUpgrade,
	})
}

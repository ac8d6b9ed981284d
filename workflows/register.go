package workflows

import (
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// Register registers every workflow under its name on the wire.
func Register(r worker.WorkflowRegistry) {
	r.RegisterWorkflowWithOptions(ProvisionCompute, workflow.RegisterOptions{Name: "ProvisionCompute"})
	r.RegisterWorkflowWithOptions(UpdateCompute, workflow.RegisterOptions{Name: "UpdateCompute"})
	r.RegisterWorkflowWithOptions(DeleteCompute, workflow.RegisterOptions{Name: "DeleteCompute"})
	r.RegisterWorkflowWithOptions(RedeliverCallback, workflow.RegisterOptions{
		Name:               "RedeliverCallback",
		VersioningBehavior: workflow.VersioningBehaviorAutoUpgrade,
	})
	r.RegisterWorkflowWithOptions(ReportOrphans, workflow.RegisterOptions{
		Name:               "ReportOrphans",
		VersioningBehavior: workflow.VersioningBehaviorAutoUpgrade,
	})
	// Were it pinned, the version that it began on could never be retired.
	r.RegisterWorkflowWithOptions(WatchProvider, workflow.RegisterOptions{
		Name:               "WatchProvider",
		VersioningBehavior: workflow.VersioningBehaviorAutoUpgrade,
	})
}

package receive_test

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"bellhop"
	"bellhop/bridge/temporal/receive"
)

// OpenShop provisions a shop and tells where it is. What may go better the next time is tried three times.
func OpenShop(ctx workflow.Context, tenant string) (endpoint string, err error) {
	inbox := receive.New(ctx, receive.Options{})
	for attempt := 1; ; attempt++ {
		id := fmt.Sprintf("%s-provision-%d", workflow.GetInfo(ctx).WorkflowExecution.ID, attempt)
		err := inbox.Start(ctx, bellhop.Operation{
			ID: id, Verb: bellhop.Provision, TenantID: tenant, Resource: "shop", Provider: "docker",
			Spec: bellhop.Spec{Image: "nginx:1.27", Ports: []bellhop.Port{{Name: "http", ContainerPort: 80}}},
		})
		if err != nil {
			return "", err
		}

		// The callback should come within two minutes; after that the status is polled.
		outcome, err := inbox.Await(ctx, id, 2*time.Minute)
		var failed *receive.Failed
		switch {
		case err == nil:
			inbox.Drain()
			return fmt.Sprintf("%s:%d", outcome.Endpoints[0].Host, outcome.Endpoints[0].Port), nil
		case errors.As(err, &failed) && failed.Outcome.Error.Retryable && attempt < 3:
			workflow.GetLogger(ctx).Info("once more", "code", failed.Outcome.Error.Code)
		default: // a person is needed, or this workflow was cancelled
			return "", err
		}
	}
}

// A workflow that asks for compute, awaits the callback and branches on it, and the worker that runs it. Bellhop's own
// worker runs elsewhere, on the task queue "bellhop".
func Example() {
	temporal, err := client.Dial(client.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer temporal.Close()
	shops := worker.New(temporal, "shops", worker.Options{})
	shops.RegisterWorkflow(OpenShop)
	if err := shops.Run(worker.InterruptCh()); err != nil {
		fmt.Println(err)
	}
}

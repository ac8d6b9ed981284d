package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// pollInterval is the pause between two looks at something that is starting.
const pollInterval = 10 * time.Millisecond

// poll repeats try until it succeeds or ctx ends. The error then says why try
// did not succeed before.
func poll(ctx context.Context, try func() error) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	var last error
	for {
		err := try()
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), last)
		case <-ticker.C:
		}
	}
}

// awaitFrontend returns once a client's first call would succeed: the frontend
// is healthy, every namespace is there with its search attributes, and the
// part that runs workflows and the one that lists them answer.
func awaitFrontend(ctx context.Context, target string, namespaces []string, attributes searchAttributes) error {
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connect to %s: %w", target, err)
	}
	defer conn.Close()

	health := healthpb.NewHealthClient(conn)
	err = poll(ctx, func() error {
		resp, err := health.Check(ctx, &healthpb.HealthCheckRequest{Service: workflowservice.WorkflowService_ServiceDesc.ServiceName}, grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		if resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			return fmt.Errorf("the frontend is %s", resp.GetStatus())
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("check health: %w", err)
	}

	workflows := workflowservice.NewWorkflowServiceClient(conn)
	operator := operatorservice.NewOperatorServiceClient(conn)
	for _, ns := range namespaces {
		err := poll(ctx, func() error {
			_, err := workflows.DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: ns})
			return err
		})
		if err != nil {
			return fmt.Errorf("describe namespace %s: %w", ns, err)
		}
		if err := ensureSearchAttributes(ctx, operator, ns, attributes); err != nil {
			return err
		}
		if err := poll(ctx, func() error { return answers(ctx, workflows, ns) }); err != nil {
			return fmt.Errorf("look into namespace %s: %w", ns, err)
		}
	}
	return nil
}

// answers asks for a workflow that does not exist and for a list.
func answers(ctx context.Context, workflows workflowservice.WorkflowServiceClient, namespace string) error {
	_, err := workflows.DescribeWorkflowExecution(ctx, &workflowservice.DescribeWorkflowExecutionRequest{
		Namespace: namespace,
		Execution: &commonpb.WorkflowExecution{WorkflowId: "bellhop-devserver/no-such-workflow"},
	})
	if status.Code(err) != codes.NotFound {
		return fmt.Errorf("describe a workflow that does not exist: %w", err)
	}
	_, err = workflows.ListWorkflowExecutions(ctx, &workflowservice.ListWorkflowExecutionsRequest{Namespace: namespace, PageSize: 1})
	return err
}

// announce says on stdout that the server is ready and where.
func announce(stdout io.Writer, s *server) error {
	if f, ok := stdout.(*os.File); !ok || !isatty.IsTerminal(f.Fd()) {
		return json.NewEncoder(stdout).Encode(struct {
			Address    string   `json:"address"`
			UI         string   `json:"ui,omitempty"`
			Namespaces []string `json:"namespaces"`
		}{s.address, s.uiURL, s.namespaces})
	}
	lines := []string{fmt.Sprintf("Temporal is ready on %s (namespace %s).", s.address, strings.Join(s.namespaces, ", "))}
	if s.uiURL != "" {
		lines = append(lines, fmt.Sprintf("Look inside: %s", s.uiURL))
	}
	lines = append(lines, "Stop it with Ctrl-C.")
	_, err := fmt.Fprintln(stdout, strings.Join(lines, "\n"))
	return err
}

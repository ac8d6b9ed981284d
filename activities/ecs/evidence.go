package ecs

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"bellhop"
	"bellhop/activities"
	"bellhop/internal/allowlist"
)

// How much evidence is kept.
const (
	keptEvents = 10
	keptTasks  = 10
)

// failure says why a deployment failed, with what ECS forgets after an hour.
func (p *Provider) failure(ctx context.Context, c *clients, f found, v verdict) (*bellhop.Failure, error) {
	if v.taken {
		return bellhop.Fail(bellhop.CodeResourceConflict, "somebody else has changed service %s since: it runs %s",
			aws.ToString(f.service.ServiceName), revision(aws.ToString(f.service.TaskDefinition))), nil
	}
	tasks, err := c.stoppedTasks(ctx, f)
	if err != nil {
		return nil, err
	}
	code, why := bellhop.CodeContainerExited, v.reason
	switch {
	case len(tasks) > 0:
		code, why = codeOfTask(tasks[0]), reasonOf(tasks[0])
	case strings.Contains(strings.ToLower(v.reason), "health"):
		code = bellhop.CodeHealthCheckFailed
	case strings.Contains(f.latestEvent(), "unable to place a task"):
		code, why = bellhop.CodeCapacityUnavailable, f.latestEvent()
	}
	failure := bellhop.Fail(code, "the deployment of %s failed: %s", f.definition, why)
	if v.rolledBack {
		failure = bellhop.Fail(bellhop.CodeRolledBack, "the deployment of %s failed and ECS went back to %s; %s: %s",
			f.definition, revision(aws.ToString(f.service.TaskDefinition)), code, why).With("cause", string(code))
	}
	var events []string
	for _, event := range f.service.Events {
		if len(events) < keptEvents && !aws.ToTime(event.CreatedAt).Before(f.generation.RequestedAt.Truncate(time.Second)) {
			events = append(events, aws.ToTime(event.CreatedAt).UTC().Format(time.RFC3339)+" "+aws.ToString(event.Message))
		}
	}
	slices.Reverse(events)
	failure.With("deployment", v.reason).With("service_events", strings.Join(events, "\n"))
	return p.evidence(ctx, c, failure, f.key, tasks), nil
}

// stoppedTasks are the tasks of the operation's deployment that stopped, those first that say most about why.
func (c *clients) stoppedTasks(ctx context.Context, f found) ([]types.Task, error) {
	arns, err := c.listTasks(ctx, ecs.ListTasksInput{ServiceName: f.service.ServiceName}, types.DesiredStatusStopped)
	if err != nil {
		return nil, err
	}
	tasks, err := c.describeTasks(ctx, arns[:min(len(arns), describeTasksAtOnce)])
	if err != nil {
		return nil, err
	}
	tasks = slices.DeleteFunc(tasks, func(task types.Task) bool {
		return revision(aws.ToString(task.TaskDefinitionArn)) != f.definition ||
			aws.ToTime(task.CreatedAt).Before(f.generation.RequestedAt.Add(-time.Minute))
	})
	slices.SortStableFunc(tasks, func(a, b types.Task) int {
		// What the scheduler stopped while it went back says nothing.
		if x, y := byScheduler(a), byScheduler(b); x != y {
			if x {
				return 1
			}
			return -1
		}
		return byEnd(b, a) // the last one first
	})
	return tasks, nil
}

func byScheduler(task types.Task) bool {
	return task.StopCode == types.TaskStopCodeServiceSchedulerInitiated && !strings.Contains(reasonOf(task), "health check")
}

// reasonOf is why a task stopped, in ECS's words.
func reasonOf(task types.Task) string {
	var parts []string
	add := func(part string) {
		if part != "" && !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	add(aws.ToString(task.StoppedReason))
	for _, has := range task.Containers {
		add(aws.ToString(has.Reason))
		if has.ExitCode != nil {
			add(fmt.Sprintf("%s exited with code %d", aws.ToString(has.Name), *has.ExitCode))
		}
	}
	return strings.Join(parts, "; ")
}

// evidence adds what is known of tasks that stopped, the first of them in detail.
func (p *Provider) evidence(ctx context.Context, c *clients, failure *bellhop.Failure, of key, tasks []types.Task) *bellhop.Failure {
	if len(tasks) == 0 {
		return failure
	}
	first := tasks[0]
	failure.With("stop_code", string(first.StopCode)).With("stop_reason", aws.ToString(first.StoppedReason))
	for _, has := range first.Containers {
		if has.ExitCode != nil {
			failure.With("exit_code", fmt.Sprint(*has.ExitCode))
			break
		}
	}
	var lines []string
	for _, task := range tasks[:min(len(tasks), keptTasks)] {
		lines = append(lines, fmt.Sprintf("%s %s: %s", lastPart(aws.ToString(task.TaskArn)), task.StopCode, reasonOf(task)))
	}
	failure.With("stopped_tasks", strings.Join(lines, "\n"))
	return failure.With("logs", p.logTail(ctx, c, of, first)).Clean(c.secretsOf(ctx, first))
}

// secretsOf are the values in the environment of a task's containers: the watcher has no operation to take them from. What
// the task definition refers to ECS looks up, and bellhop never sees it. A definition that cannot be described costs
// nobody the evidence: the operation blots out its own values once more.
func (c *clients) secretsOf(ctx context.Context, task types.Task) []string {
	described, err := c.describeDefinition(ctx, aws.ToString(task.TaskDefinitionArn))
	if err != nil {
		return nil
	}
	var values []string
	for _, has := range described.ContainerDefinitions {
		for _, variable := range has.Environment {
			values = append(values, aws.ToString(variable.Value))
		}
	}
	return activities.SecretsIn(values)
}

// logTail is the end of what a task's container wrote. A log that cannot be read is said in its place: the failure is
// worth more than the log.
func (p *Provider) logTail(ctx context.Context, c *clients, of key, task types.Task) string {
	group, lines := allowlist.ForTenant(p.config.LogGroup, of.tenant), *p.config.LogLines
	if group == "" || lines == 0 || !strings.HasPrefix(familyOf(aws.ToString(task.TaskDefinitionArn)), of.name()) {
		return ""
	}
	stream := of.name() + "/" + container + "/" + lastPart(aws.ToString(task.TaskArn))
	answer, err := c.logs.GetLogEvents(ctx, &cloudwatchlogs.GetLogEventsInput{
		LogGroupName: aws.String(group), LogStreamName: aws.String(stream),
		Limit: aws.Int32(int32(lines)), StartFromHead: aws.Bool(false), //nolint:gosec // at most 100
	})
	if codeOf := classify(err, "read log"); codeOf != nil {
		if failure := activities.Ended(codeOf); failure != nil && failure.Code == bellhop.CodeResourceNotFound {
			return "" // the container never wrote
		}
		return codeOf.Error()
	}
	text := make([]string, len(answer.Events))
	for i, event := range answer.Events {
		text[i] = strings.TrimRight(aws.ToString(event.Message), "\r\n")
	}
	return strings.Join(text, "\n")
}

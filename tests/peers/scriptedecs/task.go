package scriptedecs

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// The states of a task that anybody looks at; on its way it also is PROVISIONING and DEPROVISIONING.
const (
	pending = "PENDING"
	running = "RUNNING"
	stopped = "STOPPED"
)

// task is a task. Its tags are in types.Task.
type task struct {
	types.Task
	cluster    string
	definition *taskDefinition
	deployment *deployment // nil: of RunTask
	does       Workload
	// steady says that it is what it shall be: it runs and, if it is checked, is healthy.
	steady bool
	// logs are what its containers printed, by their names.
	logs map[string][]string
}

// begin makes a task and lets it start.
func (s *Server) begin(t *task, place placement) *task {
	id := s.hex()
	t.TaskArn = aws.String(s.arn("task", t.cluster, id))
	t.ClusterArn = aws.String(s.arn("cluster", t.cluster))
	t.TaskDefinitionArn = t.definition.TaskDefinitionArn
	t.Cpu, t.Memory = t.definition.Cpu, t.definition.Memory
	t.CreatedAt = aws.Time(time.Now())
	t.LastStatus, t.DesiredStatus = aws.String("PROVISIONING"), aws.String(running)
	t.LaunchType, t.HealthStatus = cmp.Or(place.launch, types.LaunchTypeFargate), types.HealthStatusUnknown
	t.AvailabilityZone = aws.String(s.options.Region + "a")
	t.logs = map[string][]string{}
	if len(place.strategy) > 0 {
		t.CapacityProviderName = place.strategy[0].CapacityProvider
	}
	if t.LaunchType == types.LaunchTypeEc2 {
		t.ContainerInstanceArn = aws.String(s.arn("container-instance", t.cluster, s.hex()))
	}
	var interfaces []types.NetworkInterface
	if place.network != nil {
		ip := fmt.Sprintf("10.0.%d.%d", len(s.order)/250%250, len(s.order)%250+4)
		attachment := s.hex()
		detail := func(name, value string) types.KeyValuePair { return types.KeyValuePair{Name: &name, Value: &value} }
		t.Attachments = []types.Attachment{{
			Id: &attachment, Type: aws.String("ElasticNetworkInterface"), Status: aws.String("ATTACHED"),
			Details: []types.KeyValuePair{
				detail("subnetId", place.network.AwsvpcConfiguration.Subnets[0]), detail("networkInterfaceId", "eni-"+attachment[:17]),
				detail("privateIPv4Address", ip),
			},
		}}
		interfaces = []types.NetworkInterface{{AttachmentId: &attachment, PrivateIpv4Address: &ip}}
	}
	for _, c := range t.definition.ContainerDefinitions {
		container := types.Container{
			ContainerArn: aws.String(s.arn("container", t.cluster, id, s.hex())), TaskArn: t.TaskArn, Name: c.Name, Image: c.Image,
			LastStatus: aws.String(pending), HealthStatus: types.HealthStatusUnknown, NetworkInterfaces: interfaces,
			Cpu: aws.String(fmt.Sprint(c.Cpu)),
		}
		for _, port := range c.PortMappings {
			if t.LaunchType == types.LaunchTypeEc2 && place.network == nil {
				host := cmp.Or(aws.ToInt32(port.HostPort), int32(49153+len(s.order)%16000)) //nolint:gosec // a port
				container.NetworkBindings = append(container.NetworkBindings, types.NetworkBinding{
					BindIP: aws.String("0.0.0.0"), ContainerPort: port.ContainerPort, HostPort: &host, Protocol: cmp.Or(port.Protocol, types.TransportProtocolTcp),
				})
			}
		}
		t.Containers = append(t.Containers, container)
	}
	s.tasks[*t.TaskArn] = t
	s.order = append(s.order, t)
	s.changedTask(t)
	s.after(1, func() { s.start(t) })
	return t
}

// launch makes one more task of a deployment.
func (s *Server) launch(d *deployment) *task {
	t := &task{
		cluster: d.service.cluster, definition: d.definition, deployment: d, does: d.definition.does(),
		Task: types.Task{Group: aws.String("service:" + d.service.name()), StartedBy: d.Id},
	}
	switch d.service.PropagateTags {
	case types.PropagateTagsService:
		t.Tags = d.service.tags
	case types.PropagateTagsTaskDefinition:
		t.Tags = d.definition.tags
	}
	d.launched++
	if t.does.heals > 0 && d.launched > t.does.heals {
		t.does = Workloads["ready"]
	}
	if d.service.broken {
		t.does = Workloads["exits"]
	}
	s.begin(t, placement{d.LaunchType, d.CapacityProviderStrategy, d.NetworkConfiguration})
	d.tasks = append(d.tasks, t)
	s.say(d.service, "has started 1 tasks: (task %s).", t.id())
	return t
}

func (t *task) id() string { return (*t.TaskArn)[strings.LastIndex(*t.TaskArn, "/")+1:] }

// going says whether a task is still on its way up.
func (t *task) going() bool { return *t.DesiredStatus == running }

// start takes a task from PROVISIONING to PENDING and further, one step each.
func (s *Server) start(t *task) {
	if !t.going() {
		return
	}
	t.LastStatus, t.PullStartedAt = aws.String(pending), aws.Time(time.Now())
	s.changedTask(t)
	if t.does.hangs {
		return
	}
	s.after(1, func() {
		switch {
		case !t.going():
		case t.does.refuse != "":
			reason := t.does.refuse
			if strings.Contains(reason, "%s") {
				reason = fmt.Sprintf(reason, aws.ToString(leading(&t.definition.TaskDefinition).Image))
			}
			for i := range t.Containers {
				t.Containers[i].Reason = &reason
			}
			s.end(t, types.TaskStopCodeTaskFailedToStart, reason, true)
		case t.does.ends && t.does.unseen:
			s.exit(t)
		default:
			s.run(t)
		}
	})
}

// run lets a task run.
func (s *Server) run(t *task) {
	now := time.Now()
	t.LastStatus, t.PullStoppedAt, t.StartedAt, t.ConnectivityAt = aws.String(running), &now, &now, &now
	t.Connectivity = types.ConnectivityConnected
	for i := range t.Containers {
		t.Containers[i].LastStatus, t.Containers[i].RuntimeId = aws.String(running), aws.String(t.id()+"-"+fmt.Sprint(i))
	}
	s.changedTask(t)
	if t.does.ends {
		s.after(t.does.steps+1, func() {
			if t.going() {
				s.exit(t)
			}
		})
		if t.does.steps == 0 {
			return // it will not be ready
		}
	}
	s.after(1, func() {
		switch {
		case !t.going():
			return
		case t.definition.checked() && t.does.unhealthy:
			t.health(types.HealthStatusUnhealthy)
			s.changedTask(t)
			if t.deployment != nil {
				s.say(t.deployment.service, "(task %s) failed container health checks.", t.id())
				t.print()
				s.end(t, types.TaskStopCodeServiceSchedulerInitiated, "Task failed container health checks", true)
			}
			return
		case t.definition.checked():
			t.health(types.HealthStatusHealthy)
			s.changedTask(t)
		}
		t.steady = true
		s.lookAt(t)
	})
}

func (t *task) health(status types.HealthStatus) {
	t.HealthStatus = status
	for i, c := range t.definition.ContainerDefinitions {
		if c.HealthCheck != nil {
			t.Containers[i].HealthStatus = status
		}
	}
}

func (t *task) print() {
	for _, c := range t.definition.ContainerDefinitions {
		t.logs[*c.Name] = prints(c)
	}
}

// exit ends a task whose leading container ended by itself.
func (s *Server) exit(t *task) {
	t.print()
	for i, c := range t.definition.ContainerDefinitions {
		does := workload(aws.ToString(c.Image))
		if c.Name == leading(&t.definition.TaskDefinition).Name {
			does = t.does
		}
		t.Containers[i].ExitCode = aws.Int32(does.code)
		if does.reason != "" {
			t.Containers[i].Reason = aws.String(does.reason)
		}
	}
	s.end(t, cmp.Or(t.does.stopCode, types.TaskStopCodeEssentialContainerExited),
		cmp.Or(t.does.stopped, "Essential container in task exited"), t.does.unseen)
}

// stop ends a task because somebody asked for it.
func (s *Server) stop(t *task, code types.TaskStopCode, reason string) {
	if !t.going() {
		return
	}
	if *t.LastStatus == running {
		for i := range t.Containers {
			t.Containers[i].ExitCode = aws.Int32(143)
		}
	}
	s.end(t, code, reason, false)
}

// end ends a task, which has stopped one step later. Whether that counts as a failure is for the circuit breaker.
func (s *Server) end(t *task, code types.TaskStopCode, reason string, counts bool) {
	now := time.Now()
	t.DesiredStatus, t.LastStatus, t.steady = aws.String(stopped), aws.String("DEPROVISIONING"), false
	t.StopCode, t.StoppedReason, t.StoppingAt, t.ExecutionStoppedAt = code, &reason, &now, &now
	for i := range t.Containers {
		t.Containers[i].LastStatus = aws.String(stopped)
	}
	s.changedTask(t)
	if counts && t.deployment != nil {
		s.lost(t.deployment)
	}
	s.lookAt(t)
	s.after(1, func() {
		t.LastStatus, t.StoppedAt = aws.String(stopped), aws.Time(time.Now())
		s.changedTask(t)
		if d := t.deployment; d != nil {
			d.tasks = slices.DeleteFunc(d.tasks, func(other *task) bool { return other == t })
			s.lookAt(t)
		}
		s.afterTime(s.options.KeepStopped, func() {
			delete(s.tasks, *t.TaskArn)
			s.order = slices.DeleteFunc(s.order, func(other *task) bool { return other == t })
		})
	})
}

// lookAt lets the scheduler look at the service of a task.
func (s *Server) lookAt(t *task) {
	if t.deployment != nil {
		s.look(t.deployment.service)
	}
}

// changedTask takes note of a change.
func (s *Server) changedTask(t *task) {
	t.Version++
	s.emitTask(t)
}

// run is a RunTask that carried a token.
type run struct {
	asked string
	tasks []*task
}

func (s *Server) runTask(in *ecs.RunTaskInput) (*ecs.RunTaskOutput, error) {
	cluster, err := s.cluster(in.Cluster)
	if err != nil {
		return nil, err
	}
	count := int(aws.ToInt32(cmp.Or(in.Count, aws.Int32(1))))
	if count < 1 || count > 10 {
		return nil, invalid("count must be between 1 and 10.")
	}
	if len(aws.ToString(in.StartedBy)) > 128 {
		return nil, invalid("startedBy can be at most 128 characters.")
	}
	if err := checkToken(in.ClientToken, 64); err != nil {
		return nil, err
	}
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	given := cluster + "/" + aws.ToString(in.ClientToken)
	carries := in.ClientToken != nil
	in.ClientToken = nil
	asked, err := write(in)
	if err != nil {
		return nil, err
	}
	if before := s.runTokens[given]; carries && before != nil {
		if before.asked == string(asked) {
			return tell(before.tasks), nil
		}
		conflict := &refusal{
			code:    "ConflictException",
			message: "The RunTask request could not be processed due to conflicts. The provided clientToken is already in use with a different RunTask request.",
		}
		for _, t := range before.tasks {
			conflict.resources = append(conflict.resources, *t.TaskArn)
		}
		return nil, conflict
	}
	definition, err := s.usable(in.TaskDefinition)
	if err != nil {
		return nil, err
	}
	place := placement{in.LaunchType, in.CapacityProviderStrategy, in.NetworkConfiguration}
	if err := place.check(definition); err != nil {
		return nil, err
	}
	if place.launch == "" && len(place.strategy) == 0 {
		place.launch = types.LaunchTypeEc2
	}
	if definition.does().noCapacity {
		failure := types.Failure{Reason: aws.String(noFargate)}
		if place.launch == types.LaunchTypeEc2 {
			failure = types.Failure{Arn: aws.String(s.arn("container-instance", cluster, s.hex())), Reason: aws.String("RESOURCE:CPU")}
		}
		return &ecs.RunTaskOutput{Failures: []types.Failure{failure}}, nil
	}
	var tasks []*task
	for range count {
		t := &task{cluster: cluster, definition: definition, does: definition.does(), Task: types.Task{
			StartedBy: in.StartedBy, Group: cmp.Or(in.Group, aws.String("family:"+*definition.Family)), Tags: in.Tags, Overrides: in.Overrides,
			EnableExecuteCommand: in.EnableExecuteCommand,
		}}
		if in.PropagateTags == types.PropagateTagsTaskDefinition {
			t.Tags = append(slices.Clone(in.Tags), definition.tags...)
		}
		tasks = append(tasks, s.begin(t, place))
	}
	if carries {
		s.runTokens[given] = &run{string(asked), tasks}
		s.afterTime(24*time.Hour, func() { delete(s.runTokens, given) })
	}
	return tell(tasks), nil
}

func tell(tasks []*task) *ecs.RunTaskOutput {
	out := &ecs.RunTaskOutput{}
	for _, t := range tasks {
		out.Tasks = append(out.Tasks, t.Task)
	}
	return out
}

// task finds a task by its ARN or id.
func (s *Server) task(cluster, given string) *task {
	return s.tasks[s.arn("task", cluster, given[strings.LastIndex(given, "/")+1:])]
}

func (s *Server) stopTask(in *ecs.StopTaskInput) (*ecs.StopTaskOutput, error) {
	cluster, err := s.cluster(in.Cluster)
	if err != nil {
		return nil, err
	}
	t := s.task(cluster, aws.ToString(in.Task))
	if t == nil {
		return nil, invalid("The referenced task was not found.")
	}
	s.stop(t, types.TaskStopCodeUserInitiated, aws.ToString(cmp.Or(in.Reason, aws.String("Task stopped by user"))))
	return &ecs.StopTaskOutput{Task: &t.Task}, nil
}

func (s *Server) describeTasks(in *ecs.DescribeTasksInput) (*ecs.DescribeTasksOutput, error) {
	if n := len(in.Tasks); n == 0 || n > 100 {
		return nil, invalid("tasks must have 1 to 100 items.")
	}
	cluster, err := s.cluster(in.Cluster)
	if err != nil {
		return nil, err
	}
	out := &ecs.DescribeTasksOutput{}
	for _, given := range in.Tasks {
		t := s.task(cluster, given)
		if t == nil {
			out.Failures = append(out.Failures, types.Failure{
				Arn: aws.String(s.arn("task", cluster, given[strings.LastIndex(given, "/")+1:])), Reason: aws.String("MISSING"),
			})
			continue
		}
		said := t.Task
		if !slices.Contains(in.Include, types.TaskFieldTags) {
			said.Tags = nil
		}
		out.Tasks = append(out.Tasks, said)
	}
	return out, nil
}

func (s *Server) listTasks(in *ecs.ListTasksInput) (*ecs.ListTasksOutput, error) {
	cluster, err := s.cluster(in.Cluster)
	if err != nil {
		return nil, err
	}
	if in.StartedBy != nil && (in.ServiceName != nil || in.Family != nil) {
		return nil, invalid("When you specify startedBy as the filter, it must be the only filter that you use.")
	}
	if in.ServiceName != nil {
		if _, err := s.find(in.Cluster, *in.ServiceName); err != nil {
			return nil, err
		}
	}
	var arns []string
	for _, t := range s.order {
		service := ""
		if t.deployment != nil {
			service = t.deployment.service.name()
		}
		if t.cluster != cluster || string(cmp.Or(in.DesiredStatus, types.DesiredStatusRunning)) != *t.DesiredStatus ||
			in.StartedBy != nil && aws.ToString(t.StartedBy) != *in.StartedBy ||
			in.Family != nil && *t.definition.Family != *in.Family ||
			in.ServiceName != nil && service != (*in.ServiceName)[strings.LastIndex(*in.ServiceName, "/")+1:] ||
			in.LaunchType != "" && t.LaunchType != in.LaunchType {
			continue
		}
		arns = append(arns, *t.TaskArn)
	}
	slices.Sort(arns)
	page, next, err := page(arns, in.MaxResults, in.NextToken, 100)
	return &ecs.ListTasksOutput{TaskArns: page, NextToken: next}, err
}

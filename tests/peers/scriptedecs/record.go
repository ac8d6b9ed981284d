package scriptedecs

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// record is a service deployment: what became of a rollout, remembered after it. It appears one step after the
// deployment, and shares no id with it.
type record struct {
	types.ServiceDeployment
	of *deployment
	// revision is what is rolled out.
	revision types.ServiceRevision
	// rollsBackTo is where a rollback leads. Nil: it does not roll back.
	rollsBackTo *deployment
}

// recorded makes the record of a deployment, if there is none yet. One that was overtaken before it appeared has none.
func (s *Server) recorded(d *deployment) {
	svc := d.service
	if d.record != nil || *svc.Status != active || svc.deployments[0] != d {
		return
	}
	now := time.Now()
	r := &record{
		of: d,
		revision: types.ServiceRevision{
			ServiceRevisionArn: aws.String(s.arn("service-revision", svc.cluster, svc.name(), s.digits())),
			ServiceArn:         svc.ServiceArn, ClusterArn: svc.ClusterArn, TaskDefinition: d.TaskDefinition, CreatedAt: d.CreatedAt,
			LaunchType: d.LaunchType, CapacityProviderStrategy: d.CapacityProviderStrategy, NetworkConfiguration: d.NetworkConfiguration,
			LoadBalancers: svc.LoadBalancers,
		},
		ServiceDeployment: types.ServiceDeployment{
			ServiceDeploymentArn: aws.String(s.arn("service-deployment", svc.cluster, svc.name(), s.hex()[:21])),
			ServiceArn:           svc.ServiceArn, ClusterArn: svc.ClusterArn, CreatedAt: d.CreatedAt, StartedAt: &now,
			DeploymentConfiguration: svc.DeploymentConfiguration,
		},
	}
	for _, c := range d.definition.ContainerDefinitions {
		r.revision.ContainerImages = append(r.revision.ContainerImages, types.ContainerImage{ContainerName: c.Name, Image: c.Image})
	}
	if svc.completed != nil && svc.completed.record != nil {
		r.SourceServiceRevisions = []types.ServiceRevisionSummary{{Arn: svc.completed.record.revision.ServiceRevisionArn}}
	}
	d.record = r
	r.become(types.ServiceDeploymentStatusInProgress, "")
	for _, older := range svc.records {
		older.end(types.ServiceDeploymentStatusStopped, "Service deployment stopped because a newer service deployment was started.")
	}
	svc.records = append([]*record{r}, svc.records...)
	s.deployments[*r.ServiceDeploymentArn] = r
	s.look(svc)
}

func (r *record) become(status types.ServiceDeploymentStatus, reason string) {
	r.Status, r.UpdatedAt = status, aws.Time(time.Now())
	if reason != "" {
		r.StatusReason = &reason
	}
}

func (r *record) ended() bool {
	switch r.Status {
	case types.ServiceDeploymentStatusSuccessful, types.ServiceDeploymentStatusStopped,
		types.ServiceDeploymentStatusRollbackSuccessful, types.ServiceDeploymentStatusRollbackFailed:
		return true
	}
	return false
}

// end ends it, unless it has.
func (r *record) end(status types.ServiceDeploymentStatus, reason string) {
	if r.ended() {
		return
	}
	r.become(status, reason)
	r.FinishedAt = r.UpdatedAt
	if status == types.ServiceDeploymentStatusStopped {
		r.StoppedAt = r.UpdatedAt
	}
}

func (r *record) rollBack(to *deployment, reason string) {
	if r.ended() {
		return
	}
	r.rollsBackTo = to
	r.become(types.ServiceDeploymentStatusRollbackInProgress, reason)
	r.Rollback = &types.Rollback{Reason: &reason, StartedAt: r.UpdatedAt}
	if to.record != nil {
		r.Rollback.ServiceRevisionArn = to.record.revision.ServiceRevisionArn
	}
}

// told is a service deployment as it is told now.
func (r *record) told() types.ServiceDeployment {
	said := r.ServiceDeployment
	deployment := r.of.told()
	said.TargetServiceRevision = &types.ServiceRevisionSummary{
		Arn: r.revision.ServiceRevisionArn, RequestedTaskCount: r.of.service.DesiredCount,
		RunningTaskCount: deployment.RunningCount, PendingTaskCount: deployment.PendingCount,
	}
	breaker := r.DeploymentConfiguration.DeploymentCircuitBreaker
	said.DeploymentCircuitBreaker = &types.ServiceDeploymentCircuitBreaker{
		Status: types.ServiceDeploymentRollbackMonitorsStatusDisabled, Threshold: threshold(r.of.service), FailureCount: r.of.FailedTasks,
	}
	switch {
	case !breaker.Enable:
	case r.of.failed():
		said.DeploymentCircuitBreaker.Status = types.ServiceDeploymentRollbackMonitorsStatusTriggered
	case r.ended():
		said.DeploymentCircuitBreaker.Status = types.ServiceDeploymentRollbackMonitorsStatusMonitoringComplete
	default:
		said.DeploymentCircuitBreaker.Status = types.ServiceDeploymentRollbackMonitorsStatusMonitoring
	}
	if r.of.hook != "" {
		said.LifecycleStage = types.ServiceDeploymentLifecycleStagePreScaleUp
		said.LifecycleHookDetails = []types.DeploymentLifecycleHookDetail{{
			HookId: &r.of.hook, Status: types.DeploymentLifecycleHookStatusAwaitingAction,
			TargetType: types.DeploymentLifecycleHookTargetTypePause, TimeoutAction: types.DeploymentLifecycleHookActionRollback,
			ExpiresAt: aws.Time(r.CreatedAt.Add(24 * time.Hour)),
		}}
	} else if !r.ended() {
		said.LifecycleStage = types.ServiceDeploymentLifecycleStageScaleUp
	}
	return said
}

// revisions are what runs while this is the newest service deployment.
func (r *record) revisions() []types.ServiceCurrentRevisionSummary {
	var summaries []types.ServiceCurrentRevisionSummary
	for _, d := range r.of.service.deployments {
		if told := d.told(); d.record != nil {
			summaries = append(summaries, types.ServiceCurrentRevisionSummary{
				Arn: d.record.revision.ServiceRevisionArn, RequestedTaskCount: told.DesiredCount,
				RunningTaskCount: told.RunningCount, PendingTaskCount: told.PendingCount,
			})
		}
	}
	return summaries
}

func (s *Server) listServiceDeployments(in *ecs.ListServiceDeploymentsInput) (*ecs.ListServiceDeploymentsOutput, error) {
	svc, err := s.find(in.Cluster, aws.ToString(in.Service))
	if err != nil {
		return nil, err
	}
	byARN := map[string]*record{}
	var arns []string
	for _, r := range svc.records {
		if at := in.CreatedAt; at != nil && (at.After != nil && r.CreatedAt.Before(*at.After) || at.Before != nil && r.CreatedAt.After(*at.Before)) {
			continue
		}
		if len(in.Status) == 0 || slices.Contains(in.Status, r.Status) {
			byARN[*r.ServiceDeploymentArn] = r
			arns = append(arns, *r.ServiceDeploymentArn)
		}
	}
	page, next, err := page(arns, in.MaxResults, in.NextToken, 20)
	out := &ecs.ListServiceDeploymentsOutput{NextToken: next}
	for _, arn := range page {
		r := byARN[arn]
		out.ServiceDeployments = append(out.ServiceDeployments, types.ServiceDeploymentBrief{
			ServiceDeploymentArn: r.ServiceDeploymentArn, ServiceArn: r.ServiceArn, ClusterArn: r.ClusterArn, Status: r.Status,
			StatusReason: r.StatusReason, CreatedAt: r.CreatedAt, StartedAt: r.StartedAt, FinishedAt: r.FinishedAt,
			TargetServiceRevisionArn: r.revision.ServiceRevisionArn,
		})
	}
	return out, err
}

func (s *Server) describeServiceDeployments(in *ecs.DescribeServiceDeploymentsInput) (*ecs.DescribeServiceDeploymentsOutput, error) {
	if n := len(in.ServiceDeploymentArns); n == 0 || n > 20 {
		return nil, invalid("serviceDeploymentArns must have 1 to 20 items.")
	}
	out := &ecs.DescribeServiceDeploymentsOutput{}
	for _, arn := range in.ServiceDeploymentArns {
		if r := s.deployments[arn]; r != nil {
			out.ServiceDeployments = append(out.ServiceDeployments, r.told())
			continue
		}
		out.Failures = append(out.Failures, types.Failure{Arn: &arn, Reason: aws.String("MISSING")})
	}
	return out, nil
}

func (s *Server) describeServiceRevisions(in *ecs.DescribeServiceRevisionsInput) (*ecs.DescribeServiceRevisionsOutput, error) {
	if n := len(in.ServiceRevisionArns); n == 0 || n > 20 {
		return nil, invalid("serviceRevisionArns must have 1 to 20 items.")
	}
	byARN := map[string]types.ServiceRevision{}
	for _, r := range s.deployments {
		byARN[*r.revision.ServiceRevisionArn] = r.revision
	}
	out := &ecs.DescribeServiceRevisionsOutput{}
	for _, arn := range in.ServiceRevisionArns {
		if revision, found := byARN[arn]; found {
			out.ServiceRevisions = append(out.ServiceRevisions, revision)
			continue
		}
		out.Failures = append(out.Failures, types.Failure{Arn: &arn, Reason: aws.String("MISSING")})
	}
	return out, nil
}

func (s *Server) inProgress(arn *string) (*record, error) {
	r := s.deployments[aws.ToString(arn)]
	switch {
	case r == nil:
		return nil, refuse("ServiceDeploymentNotFoundException", "Service deployment not found.")
	case r.ended(), strings.HasPrefix(string(r.Status), "ROLLBACK"), *r.of.service.Status != active, r.of != r.of.service.deployments[0]:
		return nil, refuse("ConflictException", "The service deployment is not in progress.")
	}
	return r, nil
}

func (s *Server) continueServiceDeployment(in *ecs.ContinueServiceDeploymentInput) (*ecs.ContinueServiceDeploymentOutput, error) {
	r, err := s.inProgress(in.ServiceDeploymentArn)
	if err != nil {
		return nil, err
	}
	if r.of.hook == "" || r.of.hook != aws.ToString(in.HookId) {
		return nil, invalid("The lifecycle hook is not awaiting an action.")
	}
	r.of.hook = ""
	switch cmp.Or(in.Action, types.DeploymentLifecycleHookActionContinue) {
	case types.DeploymentLifecycleHookActionContinue:
		s.look(r.of.service)
	default:
		s.fail(r.of, "ECS deployment lifecycle hook: rolled back.", "a lifecycle hook asked for it.", true)
	}
	return &ecs.ContinueServiceDeploymentOutput{ServiceDeploymentArn: in.ServiceDeploymentArn}, nil
}

func (s *Server) stopServiceDeployment(in *ecs.StopServiceDeploymentInput) (*ecs.StopServiceDeploymentOutput, error) {
	r, err := s.inProgress(in.ServiceDeploymentArn)
	if err != nil {
		return nil, err
	}
	s.fail(r.of, "ECS deployment stopped by a user.", "a user stopped it.", in.StopType != types.StopServiceDeploymentStopTypeAbort)
	return &ecs.StopServiceDeploymentOutput{ServiceDeploymentArn: in.ServiceDeploymentArn}, nil
}

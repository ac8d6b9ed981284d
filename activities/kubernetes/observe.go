package kubernetes

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bellhop"
)

// standing is all that stands of a resource.
type standing struct {
	key        key
	deployment *appsv1.Deployment
	service    *corev1.Service
	jobs       []*batchv1.Job
	pods       []*corev1.Pod
	// since is the newest generation that is known to have been there; the zero one when only what stands is known.
	since bellhop.Generation
	// foreign is somebody else's object under the name of our deployment or service.
	foreign object
}

// look reads what stands. It asks four times, however many replicas there are.
func (p *Provider) look(ctx context.Context, k key) (standing, error) {
	there := standing{key: k}
	name := k.objectName()
	deployment, err := p.cluster.AppsV1().Deployments(k.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return there, classify(err, "get deployment "+k.namespace+"/"+name)
	}
	if err == nil {
		if _, ours := identify(deployment); ours {
			there.deployment = deployment
		} else {
			there.foreign = deployment
		}
	}
	service, err := p.cluster.CoreV1().Services(k.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return there, classify(err, "get service "+k.namespace+"/"+name)
	}
	if err == nil {
		if _, ours := identify(service); ours {
			there.service = service
		} else {
			there.foreign = service
		}
	}
	jobs, err := p.cluster.BatchV1().Jobs(k.namespace).List(ctx, metav1.ListOptions{LabelSelector: k.selector()})
	if err != nil {
		return there, classify(err, "list jobs of "+k.String())
	}
	for i := range jobs.Items {
		if _, ours := identify(&jobs.Items[i]); ours {
			there.jobs = append(there.jobs, &jobs.Items[i])
		}
	}
	pods, err := p.cluster.CoreV1().Pods(k.namespace).List(ctx, metav1.ListOptions{LabelSelector: k.selector()})
	if err != nil {
		return there, classify(err, "list pods of "+k.String())
	}
	for i := range pods.Items {
		if _, ours := identify(&pods.Items[i]); ours {
			there.pods = append(there.pods, &pods.Items[i])
		}
	}
	return there, nil
}

func generationOf(o metav1.Object) bellhop.Generation {
	id, _ := identify(o)
	return id.generation
}

// absent says whether nothing is left.
func (there standing) absent() bool {
	return there.deployment == nil && there.service == nil && len(there.jobs) == 0 && len(there.pods) == 0
}

// newest is the generation of the newest operation that has touched the resource: what it made, or what it deletes. The
// zero generation is older than any.
func (there standing) newest() bellhop.Generation {
	newest := there.since
	note := func(o metav1.Object) {
		if generation := generationOf(o); generation.After(newest) {
			newest = generation
		}
	}
	if there.deployment != nil {
		note(there.deployment)
	}
	if there.service != nil {
		note(there.service)
	}
	for _, job := range there.jobs {
		note(job)
	}
	return newest
}

// jobOf is an operation's job, if it is there.
func (there standing) jobOf(generation bellhop.Generation) *batchv1.Job {
	for _, job := range there.jobs {
		if generationOf(job).Equal(generation) {
			return job
		}
	}
	return nil
}

// podsOf are an operation's pods, by name.
func (there standing) podsOf(generation bellhop.Generation) []*corev1.Pod {
	var mine []*corev1.Pod
	for _, pod := range there.pods {
		if generationOf(pod).Equal(generation) {
			mine = append(mine, pod)
		}
	}
	slices.SortFunc(mine, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return mine
}

// observation lists all that stands, the operation's own first: also what still serves beside what failed.
func (there standing) observation(of bellhop.Generation) bellhop.Observation {
	seen := bellhop.Observation{OperationID: of.OperationID, RequestedAt: of.RequestedAt}
	if there.absent() {
		return seen
	}
	seen.ResourceIDs.Namespace = there.key.namespace
	if there.deployment != nil {
		seen.ResourceIDs.Deployment = there.deployment.Name
	}
	job := there.jobOf(of)
	if job == nil && len(there.jobs) > 0 {
		job = there.jobs[0]
	}
	if job != nil {
		seen.ResourceIDs.Job = job.Name
	}
	pods := slices.Clone(there.pods)
	slices.SortFunc(pods, func(a, b *corev1.Pod) int {
		others := func(pod *corev1.Pod) int {
			if generationOf(pod).Equal(of) {
				return 0
			}
			return 1
		}
		return cmp.Or(others(a)-others(b), strings.Compare(a.Name, b.Name))
	})
	for _, pod := range pods {
		seen.ResourceIDs.PodNames = append(seen.ResourceIDs.PodNames, pod.Name)
	}
	seen.Endpoints = endpoints(there.service)
	return seen
}

// endpoints are where a service answers: within the cluster by its name, beyond it where its load balancer does.
func endpoints(service *corev1.Service) []bellhop.Endpoint {
	if service == nil || service.DeletionTimestamp != nil {
		return nil
	}
	hosts := []string{service.Name + "." + service.Namespace + ".svc"}
	if service.Spec.Type == corev1.ServiceTypeLoadBalancer {
		hosts = nil
		for _, ingress := range service.Status.LoadBalancer.Ingress {
			hosts = append(hosts, cmp.Or(ingress.Hostname, ingress.IP))
		}
	}
	var found []bellhop.Endpoint
	for _, host := range hosts {
		for _, port := range service.Spec.Ports {
			found = append(found, bellhop.Endpoint{Name: port.Name, Host: host, Port: int(port.Port)})
		}
	}
	return found
}

func (there standing) superseded(of bellhop.Generation) bellhop.Observation {
	seen := there.observation(of)
	seen.Phase = bellhop.PhaseSuperseded
	seen.Progress.Message = fmt.Sprintf("operation %s took over", there.newest().OperationID)
	return seen
}

// removal is where a deletion stands.
func (there standing) removal(of bellhop.Generation) bellhop.Observation {
	if there.newest().After(of) {
		return there.superseded(of)
	}
	seen := there.observation(of)
	seen.Phase = bellhop.PhaseGone
	if !there.absent() {
		seen.Phase = bellhop.PhasePending
		seen.Progress.Message = fmt.Sprintf("deleting; %s left", count(len(there.pods), "pod"))
	}
	return seen
}

// assess says where an operation stands, without the evidence of its failure. It also says after how long it is worth
// looking again although nothing changes; zero is never.
func (p *Provider) assess(of bellhop.Generation, there standing) (bellhop.Observation, time.Duration) {
	if there.newest().After(of) {
		return there.superseded(of), 0
	}
	var (
		deployment = there.deployment
		job        = there.jobOf(of)
		seen       = there.observation(of)
	)
	switch {
	case deployment != nil && generationOf(deployment).Equal(of):
		if deployment.DeletionTimestamp == nil {
			return p.assessDeployment(of, there, seen)
		}
	case job != nil:
		if job.DeletionTimestamp == nil {
			return p.assessJob(of, there, job, seen)
		}
	case there.absent(), deployment != nil, len(there.jobs) > 0:
		// Another operation's stand, or nobody has asked for this one yet.
		seen.Phase = bellhop.PhaseGone
		seen.Progress.Message = "nothing of the operation is left"
		return seen, 0
	}
	// It is deleted, or the deployment is gone and what belonged to it goes.
	seen.Phase = bellhop.PhasePending
	seen.Progress.Message = fmt.Sprintf("deleting; %s left", count(len(there.pods), "pod"))
	return seen, 0
}

func (p *Provider) assessDeployment(of bellhop.Generation, there standing, seen bellhop.Observation) (bellhop.Observation, time.Duration) {
	var (
		deployment = there.deployment
		status     = deployment.Status
		desired    = int(*deployment.Spec.Replicas)
		deadline   = time.Duration(*deployment.Spec.ProgressDeadlineSeconds) * time.Second
		sights     = p.judge(there.podsOf(of), deadline)
		observed   = status.ObservedGeneration >= deployment.Generation
	)
	seen.Progress = bellhop.Progress{Ready: min(len(sights.ready), desired), Desired: desired}
	failed := func(failure *bellhop.Failure) (bellhop.Observation, time.Duration) {
		seen.Phase, seen.Failure, seen.Progress.Message = bellhop.PhaseFailed, failure, failure.Message
		return seen, 0
	}
	if failure := sights.failure; failure != nil {
		return failed(failure)
	}
	if observed {
		if failure := p.failedCreate(deployment, &sights); failure != nil {
			return failed(failure)
		}
		for _, condition := range status.Conditions {
			if condition.Type == appsv1.DeploymentProgressing && condition.Status == corev1.ConditionFalse &&
				condition.Reason == "ProgressDeadlineExceeded" {
				return failed(sights.stuck(condition.Message))
			}
		}
	}
	seen.Phase = bellhop.PhasePending
	switch {
	case !observed:
		seen.Progress.Message = "the cluster has not begun yet"
	case int(status.UpdatedReplicas) == desired && int(status.AvailableReplicas) == desired &&
		int(status.Replicas) == desired && len(sights.ready) == desired:
		if service := there.service; service != nil && service.Spec.Type == corev1.ServiceTypeLoadBalancer && len(seen.Endpoints) == 0 {
			seen.Progress.Message = fmt.Sprintf("%d of %d replicas are ready; the load balancer has no address yet", desired, desired)
			break
		}
		seen.Phase = bellhop.PhaseReady
		seen.Progress.Message = fmt.Sprintf("%d of %d replicas are ready", desired, desired)
		// What is on its way out, or was evicted and replaced, is not what the caller goes on with.
		seen.ResourceIDs.PodNames = sights.ready
	default:
		seen.Progress.Message = fmt.Sprintf("%d of %d replicas are ready", min(int(status.AvailableReplicas), len(sights.ready)), desired)
		if sights.message != "" {
			seen.Progress.Message += "; " + sights.message
		}
	}
	return seen, sights.again
}

// failedCreate is the failure of a deployment whose pods the cluster refuses to make, for longer than the patience.
func (p *Provider) failedCreate(deployment *appsv1.Deployment, sights *sights) *bellhop.Failure {
	for _, condition := range deployment.Status.Conditions {
		if condition.Type != appsv1.DeploymentReplicaFailure || condition.Status != corev1.ConditionTrue {
			continue
		}
		left := time.Duration(p.config.Patience) - p.clock.Now().Sub(condition.LastTransitionTime.Time)
		if left <= 0 {
			return refused(condition.Message)
		}
		sights.note("the cluster refuses to make pods: "+condition.Message, left)
	}
	return nil
}

func refused(message string) *bellhop.Failure {
	failure := bellhop.Fail(codeOfForbidden(message), "the cluster refuses to make pods")
	failure.ProviderError = message
	return failure
}

func (p *Provider) assessJob(of bellhop.Generation, there standing, job *batchv1.Job, seen bellhop.Observation) (bellhop.Observation, time.Duration) {
	desired := int(*job.Spec.Completions)
	sights := p.judge(there.podsOf(of), 0)
	seen.Progress = bellhop.Progress{Ready: int(job.Status.Succeeded), Desired: desired}
	seen.Progress.Message = fmt.Sprintf("%d of %d replicas have ended well", job.Status.Succeeded, desired)
	failed := func(failure *bellhop.Failure) (bellhop.Observation, time.Duration) {
		seen.Phase, seen.Failure, seen.Progress.Message = bellhop.PhaseFailed, failure, failure.Message
		return seen, 0
	}
	for _, condition := range job.Status.Conditions {
		if condition.Status != corev1.ConditionTrue {
			continue
		}
		switch condition.Type {
		case batchv1.JobComplete:
			seen.Phase = bellhop.PhaseReady
			return seen, 0
		case batchv1.JobFailed:
			return failed(sights.ended(condition.Message))
		}
	}
	if sights.failure != nil {
		return failed(sights.failure)
	}
	seen.Phase = bellhop.PhasePending
	if sights.message != "" {
		seen.Progress.Message += "; " + sights.message
	}
	return seen, sights.again
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Inventory lists what stands, by the operation that brought it into being or took it over last.
func (p *Provider) Inventory(ctx context.Context) ([]bellhop.Holding, error) {
	namespace, options := p.watchedNamespace(), metav1.ListOptions{LabelSelector: ours}
	deployments, err := p.cluster.AppsV1().Deployments(namespace).List(ctx, options)
	if err != nil {
		return nil, classify(err, "list deployments")
	}
	jobs, err := p.cluster.BatchV1().Jobs(namespace).List(ctx, options)
	if err != nil {
		return nil, classify(err, "list jobs")
	}
	services, err := p.cluster.CoreV1().Services(namespace).List(ctx, options)
	if err != nil {
		return nil, classify(err, "list services")
	}
	pods, err := p.cluster.CoreV1().Pods(namespace).List(ctx, options)
	if err != nil {
		return nil, classify(err, "list pods")
	}
	found := map[identity]*bellhop.Holding{}
	hold := func(o metav1.Object) *bellhop.Holding {
		id, ours := identify(o)
		if !ours {
			return &bellhop.Holding{}
		}
		id.specHash = ""
		if found[id] == nil {
			found[id] = &bellhop.Holding{
				TenantID: id.tenant, Resource: id.resource,
				OperationID: id.generation.OperationID, RequestedAt: id.generation.RequestedAt,
				ResourceIDs: bellhop.ResourceIDs{Namespace: id.namespace},
			}
		}
		return found[id]
	}
	for i := range deployments.Items {
		hold(&deployments.Items[i]).ResourceIDs.Deployment = deployments.Items[i].Name
	}
	for i := range jobs.Items {
		hold(&jobs.Items[i]).ResourceIDs.Job = jobs.Items[i].Name
	}
	for i := range services.Items {
		hold(&services.Items[i]) // it is named like its deployment
	}
	for i := range pods.Items {
		held := hold(&pods.Items[i])
		held.ResourceIDs.PodNames = append(held.ResourceIDs.PodNames, pods.Items[i].Name)
		if pods.Items[i].Status.Phase == corev1.PodRunning {
			held.Running++
		}
	}
	holdings := make([]bellhop.Holding, 0, len(found))
	for _, held := range found {
		slices.Sort(held.ResourceIDs.PodNames)
		holdings = append(holdings, *held)
	}
	slices.SortFunc(holdings, func(a, b bellhop.Holding) int {
		return cmp.Or(strings.Compare(a.TenantID, b.TenantID), strings.Compare(a.Resource, b.Resource),
			strings.Compare(a.OperationID, b.OperationID))
	})
	return holdings, nil
}

// watchedNamespace is where all of ours is; empty is everywhere.
func (p *Provider) watchedNamespace() string {
	if p.config.perTenant() {
		return metav1.NamespaceAll
	}
	return p.config.Namespace
}

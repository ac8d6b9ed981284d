package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/util/csaupgrade"

	"bellhop"
)

// object is what the API server keeps; T stands for a pointer to one kind of it.
type object interface {
	metav1.Object
	runtime.Object
}

// writer is the part of a typed client that writes one kind.
type writer[T object] interface {
	Create(ctx context.Context, object T, options metav1.CreateOptions) (T, error)
	Patch(ctx context.Context, name string, kind types.PatchType, data []byte, options metav1.PatchOptions, subresources ...string) (T, error)
	Delete(ctx context.Context, name string, options metav1.DeleteOptions) error
}

func isStale(err error) bool {
	_, stale := errors.AsType[staleError](err)
	return stale
}

// written tells an error of a write from one that only says that somebody else was faster.
func written(err error, doing string) error {
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return staleError{classify(err, doing)}
	}
	return classify(err, doing)
}

// create makes an object that was not there. Creating, unlike applying, fails when another operation has made it since.
// ensure makes the namespace when that is missing; nil: it is not bellhop's to make.
func create[T object](ctx context.Context, kind writer[T], want T, ensure func(context.Context) error) (T, error) {
	doing := "create " + describe(want)
	made, err := kind.Create(ctx, want, metav1.CreateOptions{FieldManager: manager})
	switch {
	case ensure == nil:
	case namespaceMissing(err):
		if err := ensure(ctx); err != nil {
			return made, err
		}
		made, err = kind.Create(ctx, want, metav1.CreateOptions{FieldManager: manager})
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return made, later("cannot %s: the namespace is being deleted, and made anew after that", doing).Because(err)
	}
	return made, written(err, doing)
}

// apply makes an object of ours match, upon the version that was read. What others have set beside it stays.
func apply[T object](ctx context.Context, kind writer[T], there, want T) (T, error) {
	// What was created counts as updated, not applied: what is no longer wanted would stay.
	upgrade, err := csaupgrade.UpgradeManagedFieldsPatch(there, sets.New(manager), manager)
	if err != nil {
		return there, fmt.Errorf("read who manages %s: %w", describe(want), err)
	}
	if upgrade != nil {
		there, err = kind.Patch(ctx, want.GetName(), types.JSONPatchType, upgrade, metav1.PatchOptions{})
		if err != nil {
			return there, written(err, "take over "+describe(want))
		}
	}
	want.SetResourceVersion(there.GetResourceVersion())
	data, err := json.Marshal(want)
	if err != nil {
		return there, fmt.Errorf("encode %s: %w", describe(want), err)
	}
	force := true // a field of ours that somebody has changed by hand is ours again
	made, err := kind.Patch(ctx, want.GetName(), types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: manager, Force: &force})
	if apierrors.IsNotFound(err) && !namespaceMissing(err) {
		return made, staleError{classify(err, "apply "+describe(want))}
	}
	return made, written(err, "apply "+describe(want))
}

// remove signs an object as the deletion's and deletes it, upon the version that was read, with all that belongs to it
// first. What is being deleted already is signed all the same.
func remove[T object](ctx context.Context, kind writer[T], there T, by bellhop.Generation) error {
	if id, _ := identify(there); !id.generation.Equal(by) {
		data, err := json.Marshal(map[string]any{"metadata": map[string]any{
			"resourceVersion": there.GetResourceVersion(), "annotations": signature(by),
		}})
		if err != nil {
			return fmt.Errorf("encode a signature: %w", err)
		}
		signed, err := kind.Patch(ctx, there.GetName(), types.MergePatchType, data, metav1.PatchOptions{FieldManager: manager})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return written(err, "sign "+describe(there))
		}
		there = signed
	}
	return discard(ctx, kind, there)
}

// discard deletes an object upon the version that was read.
func discard[T object](ctx context.Context, kind writer[T], there T) error {
	if there.GetDeletionTimestamp() != nil {
		return nil
	}
	uid, version, last := there.GetUID(), there.GetResourceVersion(), metav1.DeletePropagationForeground
	err := kind.Delete(ctx, there.GetName(), metav1.DeleteOptions{
		Preconditions:     &metav1.Preconditions{UID: &uid, ResourceVersion: &version},
		PropagationPolicy: &last,
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return written(err, "delete "+describe(there))
}

func describe(o object) string {
	kind := "object"
	switch o.(type) {
	case *appsv1.Deployment:
		kind = "deployment"
	case *batchv1.Job:
		kind = "job"
	case *corev1.Service:
		kind = "service"
	}
	return fmt.Sprintf("%s %s/%s", kind, o.GetNamespace(), o.GetName())
}

// later is the failure of what must wait until something is gone. It is asked for again.
func later(format string, args ...any) *bellhop.Failure {
	failure := bellhop.Fail(bellhop.CodeProviderUnavailable, format, args...)
	failure.RetryAfter = time.Second
	return failure
}

func taken(o object) *bellhop.Failure {
	return bellhop.Fail(bellhop.CodeResourceConflict, "%s belongs to somebody else; it was left alone", describe(o))
}

// bringUp makes what the operation asks for stand. Nothing newer is there.
func (p *Provider) bringUp(ctx context.Context, op bellhop.Operation, there standing) error {
	config, faults := p.check(op)
	if len(faults) > 0 {
		return bellhop.Fail(bellhop.CodeInvalidSpec, "%s", faults)
	}
	want := desired{op: op, key: there.key, config: config, entry: p.config}
	if config.Kind == KindJob {
		return p.bringJob(ctx, want, there)
	}
	return p.bringDeployment(ctx, want, there)
}

// ensureNamespace makes the operation's namespace; nil when it is not bellhop's to make.
func (p *Provider) ensureNamespace(want desired) func(context.Context) error {
	if !p.config.CreateNamespaces {
		return nil
	}
	return func(ctx context.Context) error {
		_, err := p.cluster.CoreV1().Namespaces().Create(ctx, want.namespace(), metav1.CreateOptions{FieldManager: manager})
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return classify(err, "create namespace "+want.key.namespace)
	}
}

func (p *Provider) bringDeployment(ctx context.Context, want desired, there standing) error {
	if there.foreign != nil {
		return taken(there.foreign)
	}
	for _, job := range there.jobs {
		return otherKind(there, job, KindJob, KindDeployment)
	}
	deployments := p.cluster.AppsV1().Deployments(there.key.namespace)
	deployment, object := there.deployment, want.deployment()
	var err error
	switch {
	case deployment == nil && want.op.Verb == bellhop.Update:
		return nothingToUpdate(want)
	case deployment == nil:
		deployment, err = create(ctx, deployments, object, p.ensureNamespace(want))
	case deployment.DeletionTimestamp != nil:
		return later("%s is still being deleted", describe(deployment))
	case !generationOf(deployment).Equal(want.op.Generation()):
		deployment, err = apply(ctx, deployments, deployment, object)
	case deployment.Annotations[annotationSpecHash] != object.Annotations[annotationSpecHash]:
		return otherSpec(deployment, want)
	}
	if err != nil {
		return err
	}
	return p.bringService(ctx, want, there.service, deployment)
}

// bringService makes the deployment's service match its ports: no ports, no service.
func (p *Provider) bringService(ctx context.Context, want desired, there *corev1.Service, owner *appsv1.Deployment) error {
	services := p.cluster.CoreV1().Services(want.key.namespace)
	needed := len(want.op.Spec.Ports) > 0
	var err error
	switch {
	case there == nil && needed:
		_, err = create(ctx, services, want.service(owner), nil)
	case there == nil:
	case generationOf(there).After(want.op.Generation()):
		return staleError{later("a newer operation has taken over %s", describe(there))}
	case !needed:
		err = discard(ctx, services, there)
	case there.DeletionTimestamp != nil, !metav1.IsControlledBy(there, owner):
		// It belongs to a deployment that is gone, and goes too.
		return later("%s of an earlier deployment is still being deleted", describe(there))
	case !generationOf(there).Equal(want.op.Generation()):
		_, err = apply(ctx, services, there, want.service(owner))
	}
	return err
}

// bringJob makes the operation's job, and stops those of older operations. An older operation that comes too late finds
// that after it has made its job, and takes that down again.
func (p *Provider) bringJob(ctx context.Context, want desired, there standing) error {
	if there.deployment != nil {
		return otherKind(there, there.deployment, KindDeployment, KindJob)
	}
	if want.op.Verb == bellhop.Update && len(there.jobs) == 0 {
		return nothingToUpdate(want)
	}
	jobs := p.cluster.BatchV1().Jobs(there.key.namespace)
	object := want.job()
	mine := there.jobOf(want.op.Generation())
	switch {
	case mine == nil:
		_, err := create(ctx, jobs, object, p.ensureNamespace(want))
		if isStale(err) {
			return p.whoseJob(ctx, object, err)
		}
		if err != nil {
			return err
		}
		now, err := p.look(ctx, want.key)
		if err != nil {
			return err
		}
		if mine = now.jobOf(want.op.Generation()); mine != nil && now.newest().After(want.op.Generation()) {
			return discard(ctx, jobs, mine)
		}
		there = now
	case mine.Annotations[annotationSpecHash] != object.Annotations[annotationSpecHash]:
		return otherSpec(mine, want)
	}
	for _, job := range there.jobs {
		if want.op.Generation().After(generationOf(job)) {
			if err := discard(ctx, jobs, job); err != nil {
				return err
			}
		}
	}
	return nil
}

// whoseJob looks at a job whose name was taken when the operation's was made.
func (p *Provider) whoseJob(ctx context.Context, want *batchv1.Job, stale error) error {
	job, err := p.cluster.BatchV1().Jobs(want.Namespace).Get(ctx, want.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return stale
	case err != nil:
		return classify(err, "get "+describe(want))
	}
	if _, ours := identify(job); !ours {
		return taken(job)
	}
	return stale
}

func nothingToUpdate(want desired) *bellhop.Failure {
	return bellhop.Fail(bellhop.CodeResourceNotFound, "there is no %s of tenant %s, resource %s in namespace %s to update",
		want.config.Kind, want.op.TenantID, want.op.Resource, want.key.namespace)
}

func otherKind(there standing, o object, is, wanted string) *bellhop.Failure {
	if o.GetDeletionTimestamp() != nil {
		return later("%s is still being deleted", describe(o))
	}
	return bellhop.Fail(bellhop.CodeResourceConflict, "%s of tenant %s is a %s, not a %s; delete it first, or name another resource",
		there.key.resource, there.key.tenant, is, wanted)
}

func otherSpec(o object, want desired) *bellhop.Failure {
	return bellhop.Fail(bellhop.CodeResourceConflict, "%s was made by operation %s from another spec; it was left alone",
		describe(o), want.op.ID)
}

// takeDown removes all that is there. Nothing newer is.
func (p *Provider) takeDown(ctx context.Context, op bellhop.Operation, there standing) error {
	namespace := there.key.namespace
	if there.deployment != nil {
		if err := remove(ctx, p.cluster.AppsV1().Deployments(namespace), there.deployment, op.Generation()); err != nil {
			return err
		}
	}
	for _, job := range there.jobs {
		if err := remove(ctx, p.cluster.BatchV1().Jobs(namespace), job, op.Generation()); err != nil {
			return err
		}
	}
	if there.service != nil {
		return remove(ctx, p.cluster.CoreV1().Services(namespace), there.service, op.Generation())
	}
	return nil
}

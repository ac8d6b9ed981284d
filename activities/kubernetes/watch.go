package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"bellhop"
)

const (
	// debounce gathers the changes of one moment: a rollout of ten replicas makes a hundred.
	debounce = 20 * time.Millisecond
	// syncWithin bounds how long the first lists may take.
	syncWithin = time.Minute
	// provers is how many failures' evidence is gathered at once.
	provers = 8
)

// Watch reports every operation that has objects, then each change. It holds one watch per kind of object, on all of
// bellhop's in the cluster, or in the one namespace; what it reports it reads from what those keep. So it asks the
// cluster nothing while nothing changes, however many operations wait, except for the evidence of a failure.
//
// A watch that the API server ends is taken up where it ended. When that cannot be done Watch ends with an error.
func (p *Provider) Watch(ctx context.Context, report func(bellhop.Observation)) error {
	// What goes wrong is returned, where it matters, and not logged besides.
	ctx, cancel := context.WithCancelCause(klog.NewContext(ctx, logr.Discard()))
	w := &watcher{
		Provider:  p,
		report:    report,
		resources: map[key]*watched{},
		due:       map[key]time.Time{},
		woken:     map[key]map[string]bellhop.Generation{},
		wake:      make(chan struct{}, 1),
		proven:    make(chan bellhop.Observation),
		slots:     make(chan struct{}, provers),
	}
	factory := informers.NewSharedInformerFactoryWithOptions(p.cluster, 0,
		informers.WithNamespace(p.watchedNamespace()),
		informers.WithTweakListOptions(func(options *metav1.ListOptions) { options.LabelSelector = ours }),
		informers.WithTransform(slim))
	defer factory.Shutdown()
	defer w.wait.Wait()
	defer cancel(nil)
	var synced []cache.InformerSynced
	for informer, into := range map[cache.SharedIndexInformer]*cache.Indexer{
		factory.Apps().V1().Deployments().Informer(): &w.deployments,
		factory.Batch().V1().Jobs().Informer():       &w.jobs,
		factory.Core().V1().Services().Informer():    &w.services,
		factory.Core().V1().Pods().Informer():        &w.pods,
	} {
		if err := w.attach(informer, cancel); err != nil {
			return fmt.Errorf("prepare a watch: %w", err)
		}
		*into = informer.GetIndexer()
		synced = append(synced, informer.HasSynced)
	}
	factory.StartWithContext(ctx)
	if err := w.sync(ctx, synced); err != nil {
		return err
	}
	return w.run(ctx)
}

// slim drops what nobody reads and takes half of the memory.
func slim(object any) (any, error) {
	if accessor, err := meta.Accessor(object); err == nil {
		accessor.SetManagedFields(nil)
	}
	return object, nil
}

// watcher is one run of Watch. All but the fields under the lock belong to the goroutine of run.
type watcher struct {
	*Provider
	report                            func(bellhop.Observation)
	deployments, jobs, services, pods cache.Indexer
	resources                         map[key]*watched
	due                               map[key]time.Time // when to look again although nothing changes
	proven                            chan bellhop.Observation
	slots                             chan struct{}
	wait                              sync.WaitGroup

	lock  sync.Mutex
	woken map[key]map[string]bellhop.Generation // by operation
	wake  chan struct{}
}

// watched is what is known of one resource.
type watched struct {
	operations map[string]bellhop.Generation
	reported   map[string]string
	newest     bellhop.Generation
}

const byResource = "resource"

func (w *watcher) attach(informer cache.SharedIndexInformer, broken context.CancelCauseFunc) error {
	err := informer.AddIndexers(cache.Indexers{byResource: func(object any) ([]string, error) {
		accessor, err := meta.Accessor(object)
		if err != nil {
			return nil, err
		}
		if id, ours := identify(accessor); ours {
			return []string{id.String()}, nil
		}
		return nil, nil
	}})
	if err != nil {
		return err
	}
	err = informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return // it begins again by itself, with a list where it must
		}
		broken(classify(err, "watch the cluster"))
	})
	if err != nil {
		return err
	}
	_, err = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    w.note,
		UpdateFunc: func(_, now any) { w.note(now) },
		DeleteFunc: func(object any) {
			if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = last.Obj
			}
			w.note(object)
		},
	})
	return err
}

// sync waits until everything that stands is known.
func (w *watcher) sync(ctx context.Context, synced []cache.InformerSynced) error {
	bounded, cancel := context.WithTimeout(ctx, syncWithin)
	defer cancel()
	if cache.WaitForCacheSync(bounded.Done(), synced...) {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return bellhop.Fail(bellhop.CodeProviderUnavailable, "the cluster did not list what stands within %s", syncWithin)
}

// note remembers which resource has changed, and which operation an object was of: of one that was deleted nothing else
// is left to tell.
func (w *watcher) note(object any) {
	accessor, err := meta.Accessor(object)
	if err != nil {
		return
	}
	id, ours := identify(accessor)
	if !ours {
		return
	}
	w.lock.Lock()
	if w.woken[id.key] == nil {
		w.woken[id.key] = map[string]bellhop.Generation{}
	}
	w.woken[id.key][id.generation.OperationID] = id.generation
	w.lock.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watcher) takeWoken() map[key]map[string]bellhop.Generation {
	w.lock.Lock()
	defer w.lock.Unlock()
	woken := w.woken
	w.woken = map[key]map[string]bellhop.Generation{}
	return woken
}

func (w *watcher) run(ctx context.Context) error {
	resync := time.Duration(w.config.Resync)
	nextResync := time.Now().Add(resync)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var gather <-chan time.Time
	for {
		next := nextResync
		for _, at := range w.due {
			if at.Before(next) {
				next = at
			}
		}
		timer.Reset(time.Until(next))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w.wake:
			if gather == nil {
				gather = time.After(debounce)
			}
			continue
		case seen := <-w.proven:
			w.report(seen)
			continue
		case <-gather:
			gather = nil
		case <-timer.C:
		}
		woken := w.takeWoken()
		now := time.Now()
		for k, at := range w.due {
			if !at.After(now) && woken[k] == nil {
				woken[k] = nil
			}
		}
		if !now.Before(nextResync) {
			nextResync = now.Add(resync)
			for k, known := range w.resources {
				clear(known.reported) // whoever was not reached is told again
				if woken[k] == nil {
					woken[k] = nil
				}
			}
		}
		for k, operations := range woken {
			w.look(ctx, k, operations)
		}
	}
}

// look judges every operation of a resource that is known, and reports what changed.
func (w *watcher) look(ctx context.Context, k key, operations map[string]bellhop.Generation) {
	delete(w.due, k)
	known := w.resources[k]
	if known == nil {
		known = &watched{operations: map[string]bellhop.Generation{}, reported: map[string]string{}}
		w.resources[k] = known
	}
	maps.Copy(known.operations, operations)
	for _, generation := range known.operations {
		if generation.After(known.newest) {
			known.newest = generation
		}
	}
	there := w.standing(k, known.newest)
	for _, id := range slices.Sorted(maps.Keys(known.operations)) {
		generation := known.operations[id]
		seen, again := w.assess(generation, there)
		if at := time.Now().Add(again); again > 0 && (w.due[k].IsZero() || at.Before(w.due[k])) {
			w.due[k] = at
		}
		w.tell(ctx, known, there, seen)
		if seen.Phase == bellhop.PhaseSuperseded && len(there.podsOf(generation)) == 0 {
			delete(known.operations, id)
			delete(known.reported, id)
		}
	}
	if there.absent() {
		delete(w.resources, k)
	}
}

// standing is what the watches keep of a resource.
func (w *watcher) standing(k key, newest bellhop.Generation) standing {
	there := standing{key: k, since: newest}
	if found := of[*appsv1.Deployment](w.deployments, k); len(found) > 0 {
		there.deployment = found[0]
	}
	if found := of[*corev1.Service](w.services, k); len(found) > 0 {
		there.service = found[0]
	}
	there.jobs = of[*batchv1.Job](w.jobs, k)
	there.pods = of[*corev1.Pod](w.pods, k)
	return there
}

func of[T any](kept cache.Indexer, k key) []T {
	objects, err := kept.ByIndex(byResource, k.String())
	if err != nil { // there is no such index
		panic(fmt.Sprintf("kubernetes: %s", err))
	}
	var found []T
	for _, object := range objects {
		if one, ok := object.(T); ok {
			found = append(found, one)
		}
	}
	return found
}

// tell reports what was not reported before. What is pending is told once: progress alone is not worth a report.
func (w *watcher) tell(ctx context.Context, known *watched, there standing, seen bellhop.Observation) {
	digest := string(seen.Phase)
	if seen.Phase != bellhop.PhasePending && seen.Phase != bellhop.PhaseSuperseded {
		code := bellhop.Code("")
		if seen.Failure != nil {
			code = seen.Failure.Code
		}
		digest = strings.TrimSpace(fmt.Sprintf("%s %s %v %v", seen.Phase, code, seen.ResourceIDs, seen.Endpoints))
	}
	if known.reported[seen.OperationID] == digest {
		return
	}
	known.reported[seen.OperationID] = digest
	if seen.Phase != bellhop.PhaseFailed {
		w.report(seen)
		return
	}
	// Gathering evidence takes calls, and others' ends do not wait for it.
	w.wait.Go(func() {
		select {
		case w.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		w.prove(ctx, there, &seen)
		<-w.slots
		select {
		case w.proven <- seen:
		case <-ctx.Done():
		}
	})
}

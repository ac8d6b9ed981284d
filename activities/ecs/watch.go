package ecs

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"bellhop"
)

// Watch reports every operation that has a service or tasks, then each change. One poller looks at all of them, ten
// services to a call, and only those that change are looked at often: each less and less often while nothing happens to
// it. Lists tell of new ones; everything is looked at once per resync, since tags that another worker wrote announce
// themselves by nothing. What this process itself asked for, and what events tell of, is looked at at once; an event that
// is lost, doubled or late does no harm.
//
// All intervals stretch as far as the rate of reads makes it necessary. A call that ECS throttles is made again later.
func (p *Provider) Watch(ctx context.Context, report func(bellhop.Observation)) error {
	ctx, cancel := context.WithCancel(patient(ctx))
	defer cancel()
	hints := make(chan hint, 1024)
	p.lock.Lock()
	p.hints[hints] = true
	p.lock.Unlock()
	defer func() {
		p.lock.Lock()
		delete(p.hints, hints)
		p.lock.Unlock()
	}()
	w := &watcher{
		Provider: p, clients: p.forAll(), report: report, hints: hints,
		services: map[string]*watched{}, jobs: map[string]*job{}, tasks: map[string]types.Task{},
		looked: make(chan finished), busy: map[string]bool{},
	}
	events := make(chan error, 1)
	if p.config.EventsQueueURL == "" {
		return w.run(ctx, events)
	}
	go func() { events <- p.receive(ctx, w.clients) }()
	err := w.run(ctx, events)
	cancel()
	return err
}

// watcher is one run of Watch. Everything belongs to the goroutine of run.
type watcher struct {
	*Provider
	*clients
	report   func(bellhop.Observation)
	hints    <-chan hint
	services map[string]*watched
	// jobs are the operations with tasks that run once, and tasks what was last seen of those tasks.
	jobs  map[string]*job
	tasks map[string]types.Task
	// busy are the services whose deletion is being finished, which looked tells the end of.
	busy   map[string]bool
	looked chan finished
}

type finished struct {
	name string
	seen bellhop.Observation
	err  error
}

// watched is what is known of one service.
type watched struct {
	due         time.Time
	interval    time.Duration
	settled     bool // nothing is waited for: it is looked at once per resync
	ended       bool // its end was told, and is what the fingerprint stands for
	fingerprint string
	last        identity
	reported    map[string]string // by operation
}

// job is an operation with tasks that run once.
type job struct {
	identity
	reported string
}

func (w *watcher) run(ctx context.Context, events <-chan error) error {
	var (
		list, resync, jobs time.Time     // when it is next time for each
		pause              time.Duration // after what went wrong
		failed             int
		taken              bool // what another watch left
	)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-events:
			return err
		case what := <-w.hints:
			if what.tasks {
				jobs = time.Time{}
			} else {
				w.wake(what.service)
			}
			timer.Reset(gather)
			continue
		case done := <-w.looked:
			delete(w.busy, done.name)
			if known := w.services[done.name]; known != nil && done.err == nil {
				w.tell(known, done.seen)
				if done.seen.Phase == bellhop.PhaseGone {
					delete(w.services, done.name)
				}
			}
			continue
		case <-timer.C:
		}
		now := time.Now()
		err := func() error {
			if !now.Before(list) {
				all := !now.Before(resync)
				if err := w.list(ctx, all); err != nil {
					return err
				}
				if !taken {
					if err := w.takeUp(ctx); err != nil {
						return err
					}
					taken = true
				}
				list = time.Now().Add(w.every(time.Duration(w.config.PollMin), len(w.services)/listAtOnce+1))
				if all {
					resync = time.Now().Add(w.every(time.Duration(w.config.Resync), len(w.services)/describeAtOnce+1))
				}
			}
			if !now.Before(jobs) {
				if err := w.lookAtJobs(ctx); err != nil {
					return err
				}
				jobs = time.Now().Add(w.every(time.Duration(w.config.PollMin), len(w.tasks)/describeTasksAtOnce+2))
			}
			return w.lookAtServices(ctx)
		}()
		if err != nil && again(err) && ctx.Err() == nil {
			if failed++; failed < failedInARow || codeOfFailure(err) == bellhop.CodeProviderThrottled {
				pause = min(max(2*pause, time.Duration(w.config.PollMin)), time.Duration(w.config.PollMax))
				timer.Reset(pause)
				continue
			}
		}
		if err != nil {
			return err
		}
		pause, failed = 0, 0
		next := slices.MinFunc([]time.Time{list, jobs, w.next()}, time.Time.Compare)
		timer.Reset(time.Until(next))
	}
}

// gather is how long what wakes the watcher up is collected: events and asks come in swarms.
const gather = 50 * time.Millisecond

// failedInARow is how often ECS may be out of order before the watch breaks off, to be taken up elsewhere.
const failedInARow = 5

// every stretches an interval until so many calls take no more than a third of the reads.
func (w *watcher) every(interval time.Duration, calls int) time.Duration {
	const share = 3
	return max(interval, time.Duration(float64(share*calls)/w.config.ReadsPerSecond*float64(time.Second)))
}

// wake has a service looked at at once.
func (w *watcher) wake(name string) {
	known := w.services[name]
	if known == nil {
		known = w.discover(name)
	}
	known.due, known.interval = time.Now(), time.Duration(w.config.PollMin)
}

func (w *watcher) discover(name string) *watched {
	known := &watched{interval: time.Duration(w.config.PollMin), due: time.Now(), reported: map[string]string{}}
	w.services[name] = known
	return known
}

// list finds services that came and went, and makes every one due when all are to be looked at.
func (w *watcher) list(ctx context.Context, all bool) error {
	names, err := w.names(ctx)
	if err != nil {
		return err
	}
	listed := make(map[string]bool, len(names))
	for _, name := range names {
		listed[name] = true
		if w.services[name] == nil {
			w.discover(name)
		}
	}
	now := time.Now()
	for name, known := range w.services {
		if known.settled && (all || !listed[name]) {
			known.due, known.settled = now, false
		}
	}
	return nil
}

// takeUp finds the deletions that nobody watched to their end: their services are listed no more. What tells of them are
// the task definitions, which are given up last.
func (w *watcher) takeUp(ctx context.Context) error {
	families, err := w.families(ctx, prefix)
	if err != nil {
		return err
	}
	unlisted := map[string]bool{}
	for _, family := range families {
		if end := len(family) - contentHash - 1; end > 0 && w.services[family[:end]] == nil {
			unlisted[family[:end]] = true
		}
	}
	for chunk := range slices.Chunk(slices.Sorted(maps.Keys(unlisted)), describeAtOnce) {
		services, err := w.describe(ctx, chunk)
		if err != nil {
			return err
		}
		for _, service := range services {
			if f := foundIn(service); f.ours && f.verb == bellhop.Delete {
				w.discover(aws.ToString(service.ServiceName))
				w.look(ctx, aws.ToString(service.ServiceName), f, len(w.services))
			}
		}
	}
	return nil
}

// next is when the next service is due.
func (w *watcher) next() time.Time {
	next := time.Now().Add(time.Duration(w.config.Resync))
	for _, known := range w.services {
		if !known.settled && known.due.Before(next) {
			next = known.due
		}
	}
	return next
}

// manyAtOnce is from how many services on it is cheaper to list the tasks of the whole cluster than of each service.
const manyAtOnce = 20

// round is how many calls describe services before everything else has its turn again.
const round = 50

// lookAtServices describes the services that are due, and those that soon will be as far as they fill a call up.
func (w *watcher) lookAtServices(ctx context.Context) error {
	soon := time.Now().Add(time.Duration(w.config.PollMin) / 2)
	var names []string
	waiting, due := 0, false
	for name, known := range w.services {
		if known.settled {
			continue
		}
		waiting++
		if known.due.Before(soon) {
			names = append(names, name)
			due = due || !known.due.After(time.Now())
		}
	}
	if !due {
		return nil
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(w.services[a].due.Compare(w.services[b].due), strings.Compare(a, b))
	})
	names = names[:min(len(names), round*describeAtOnce)]
	var ended []found
	for chunk := range slices.Chunk(names, describeAtOnce) {
		services, err := w.describe(ctx, chunk)
		if err != nil {
			return err
		}
		there := map[string]bool{}
		for _, service := range services {
			f := foundIn(service)
			there[aws.ToString(service.ServiceName)] = true
			if w.look(ctx, aws.ToString(service.ServiceName), f, waiting) {
				ended = append(ended, f)
			}
		}
		for _, name := range chunk {
			if !there[name] {
				w.look(ctx, name, found{}, waiting)
			}
		}
	}
	return w.settle(ctx, ended)
}

// look takes in what was described of a service, of so many that are waited for. It says whether the operation in its tags
// seems to have come to an end, of which the details are then to be looked for.
func (w *watcher) look(ctx context.Context, name string, f found, waiting int) bool {
	known := w.services[name]
	now := time.Now()
	mark := fingerprint(f)
	switch {
	case mark != known.fingerprint:
		known.fingerprint, known.ended, known.interval = mark, false, time.Duration(w.config.PollMin)
	case known.ended:
		known.settled = true
		return false
	default:
		known.interval = min(known.interval*3/2, time.Duration(w.config.PollMax))
	}
	known.due = now.Add(w.every(known.interval, waiting/describeAtOnce+1))
	if f.service != nil && !f.ours {
		known.settled = true
		return false
	}
	if f.ours {
		w.tellSuperseded(known, f)
		known.last = f.identity
	}
	if f.status() == statusInactive {
		w.finish(ctx, name, known, f)
		return false
	}
	v := f.judge(nil)
	return v.phase != bellhop.PhasePending || f.uncertain()
}

// fingerprint changes when something happens to a service.
func fingerprint(f found) string {
	if f.service == nil {
		return "missing"
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s %s %s %d", f.status(), f.generation.OperationID, f.verb, f.deployment, f.service.DesiredCount)
	for _, d := range f.service.Deployments {
		fmt.Fprintf(&text, " %s %s %s %d %d %d", aws.ToString(d.Id), aws.ToString(d.Status), d.RolloutState, d.RunningCount, d.PendingCount, d.FailedTasks)
	}
	return text.String()
}

// settle reports services whose operations have come to an end, with their tasks.
func (w *watcher) settle(ctx context.Context, ended []found) error {
	of := map[string][]types.Task{}
	if len(ended) > manyAtOnce {
		tasks, err := w.allTasks(ctx)
		if err != nil {
			return err
		}
		for _, task := range tasks {
			if name := ofService(task); aws.ToString(task.DesiredStatus) == taskRunning {
				of[name] = append(of[name], task)
			}
		}
	}
	for _, f := range ended {
		name := aws.ToString(f.service.ServiceName)
		known := w.services[name]
		var seen bellhop.Observation
		var err error
		if v := f.judge(nil); len(ended) > manyAtOnce && v.phase == bellhop.PhaseReady {
			seen, err = w.conclude(ctx, w.clients, f, v, of[name])
		} else {
			seen, err = w.assess(ctx, w.clients, f, false)
		}
		if err != nil {
			return err
		}
		known.ended = seen.Phase != bellhop.PhasePending
		known.settled = known.ended
		w.tell(known, seen)
	}
	return nil
}

// tellSuperseded reports the operations from which the one in the service's tags took over: the one it knows of, and all
// that were seen here before.
func (w *watcher) tellSuperseded(known *watched, f found) {
	older := []bellhop.Generation{f.previous, known.last.generation}
	for _, one := range older {
		if one.OperationID == "" || one.OperationID == f.generation.OperationID || !f.generation.After(one) {
			continue
		}
		op := bellhop.Operation{ID: one.OperationID, RequestedAt: one.RequestedAt}
		w.tell(known, superseded(op, f.generation, f.ids(nil)))
	}
}

// finish ends the watch of a service that is there no more. A deletion is only over when its task definitions are given
// up, which takes its time and goes on aside.
func (w *watcher) finish(ctx context.Context, name string, known *watched, f found) {
	of := known.last
	switch {
	case of.generation.OperationID == "": // it was woken up for what ECS does not describe yet
		if known.interval >= time.Duration(w.config.PollMax) {
			delete(w.services, name)
		}
	case of.verb != bellhop.Delete:
		if f.service == nil {
			return // ECS may have lost sight of it; the deletion that there was leaves it INACTIVE
		}
		w.tell(known, bellhop.Observation{
			OperationID: of.generation.OperationID, RequestedAt: of.generation.RequestedAt, Phase: bellhop.PhaseGone,
			Progress: bellhop.Progress{Message: "the service was removed"},
		})
		known.settled = true
		delete(w.services, name)
	case !w.busy[name]:
		w.busy[name] = true
		op := bellhop.Operation{
			ID: of.generation.OperationID, RequestedAt: of.generation.RequestedAt, Verb: bellhop.Delete,
			TenantID: of.tenant, Resource: of.resource,
		}
		go func() {
			seen, err := w.observe(ctx, w.clients, op, f)
			select {
			case w.looked <- finished{name, seen, err}:
			case <-ctx.Done():
			}
		}()
	}
}

// tell reports what was not reported before. What is pending is told once: progress alone is not worth a report.
func (w *watcher) tell(known *watched, seen bellhop.Observation) {
	digest := digestOf(seen)
	if known.reported[seen.OperationID] == digest {
		return
	}
	if len(known.reported) > 16 { // operations of long ago
		clear(known.reported)
	}
	known.reported[seen.OperationID] = digest
	w.report(seen)
}

func digestOf(seen bellhop.Observation) string {
	if seen.Phase == bellhop.PhasePending || seen.Phase == bellhop.PhaseSuperseded {
		return string(seen.Phase)
	}
	code := bellhop.Code("")
	if seen.Failure != nil {
		code = seen.Failure.Code
	}
	return fmt.Sprintf("%s %s %v", seen.Phase, code, seen.ResourceIDs)
}

// lookAtJobs looks at the tasks that run once: those that were not seen to stop before.
func (w *watcher) lookAtJobs(ctx context.Context) error {
	arns, err := w.listTasks(ctx, ecs.ListTasksInput{StartedBy: aws.String(startedBy)}, types.DesiredStatusRunning, types.DesiredStatusStopped)
	if err != nil {
		return err
	}
	listed := make(map[string]bool, len(arns))
	for _, arn := range arns {
		listed[arn] = true
	}
	maps.DeleteFunc(w.tasks, func(arn string, _ types.Task) bool { return !listed[arn] })
	arns = slices.DeleteFunc(arns, func(arn string) bool { task, known := w.tasks[arn]; return known && stopped(task) })
	tasks, err := w.describeTasks(ctx, arns)
	if err != nil {
		return err
	}
	for _, task := range tasks {
		w.tasks[aws.ToString(task.TaskArn)] = task
	}
	by := map[key]resourceTasks{}
	for _, arn := range slices.Sorted(maps.Keys(w.tasks)) {
		if id, ours := identify(w.tasks[arn].Tags); ours {
			of := by[id.key]
			of.tasks = append(of.tasks, w.tasks[arn])
			by[id.key] = of
			if w.jobs[id.generation.OperationID] == nil {
				w.jobs[id.generation.OperationID] = &job{identity: id}
			}
		}
	}
	for _, operation := range slices.Sorted(maps.Keys(w.jobs)) {
		of := w.jobs[operation]
		mine := by[of.key].of(operation)
		if len(mine.tasks) == 0 {
			delete(w.jobs, operation) // forgotten by ECS
			continue
		}
		if strings.HasPrefix(of.reported, string(bellhop.PhaseReady)) || strings.HasPrefix(of.reported, string(bellhop.PhaseFailed)) {
			continue
		}
		var seen bellhop.Observation
		if newer := by[of.key].newer(of.generation); newer.OperationID != "" {
			seen = superseded(bellhop.Operation{ID: operation, RequestedAt: of.generation.RequestedAt}, newer, by[of.key].ids(w.clients))
		} else if seen, err = w.judgeTasks(ctx, w.clients, of.generation, mine); err != nil {
			return err
		}
		if digest := digestOf(seen); digest != of.reported {
			of.reported = digest
			w.report(seen)
		}
	}
	return nil
}

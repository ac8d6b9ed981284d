package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"bellhop"
)

const (
	// debounce gathers the events of one moment: a container that dies makes three, a delete of ten replicas sixty.
	debounce = 50 * time.Millisecond
	// overlap is how far back the stream begins: the engine answers before it subscribes, and its clock may be off.
	overlap = 5 * time.Second
	// fewResources are listed one by one; for more, one list of everything is cheaper.
	fewResources = 4
	// watchCall bounds one look at the engine, so that one that hangs is not waited for without end.
	watchCall = time.Minute
)

// Watch reports every operation that has containers, then each change. Events only wake it up, and what is reported is
// what listing and inspecting say; so an event that comes twice, late or not at all (the engine replays 256 at the
// most, over all containers) does no harm. Like [Provider.Observe] it removes what a ready operation replaced.
//
// While nothing changes it makes one call per resync interval, however many containers there are. It ends with an
// error when the engine does.
func (p *Provider) Watch(ctx context.Context, report func(bellhop.Observation)) error {
	ctx, cancel := context.WithCancel(ctx)
	w := watcher{
		Provider:  p,
		report:    report,
		resources: map[key]*watched{},
		due:       map[key]time.Time{},
		woken:     map[key]map[string]bellhop.Generation{},
		wake:      make(chan struct{}, 1),
		retired:   make(chan retirement),
		slots:     make(chan struct{}, parallel),
	}
	defer w.wait.Wait()
	defer cancel()
	w.life = ctx
	subscribed := make(chan struct{})
	w.wait.Go(func() { w.read(ctx, subscribed) })
	select {
	case <-subscribed:
	case <-time.After(watchCall): // the first list will say what is wrong
	case <-ctx.Done():
	}
	err := w.run(ctx)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return bellhop.Fail(bellhop.CodeProviderUnavailable, "the engine did not answer within %s", watchCall).Because(err)
	}
	return err
}

// watcher is one run of Watch. All but the fields under the lock belong to the goroutine of run.
type watcher struct {
	*Provider
	report    func(bellhop.Observation)
	resources map[key]*watched
	due       map[key]time.Time // when to look again although no event comes
	life      context.Context   //nolint:containedctx // a removal goes on when the look that began it is over
	retired   chan retirement
	slots     chan struct{}
	wait      sync.WaitGroup

	lock  sync.Mutex
	woken map[key]map[string]bellhop.Generation // by operation, from events
	ended error
	wake  chan struct{}
}

// retirement is the end of a removal.
type retirement struct {
	of  key
	err error
}

// watched is what is known of one resource.
type watched struct {
	fingerprint string
	settled     bool // no need to look until an event comes, its time is due, or the fingerprint changes
	retiring    bool
	operations  map[string]bellhop.Generation
	reported    map[string]string
}

// read takes events off the stream as fast as they come, since the engine drops those of a slow reader.
func (w *watcher) read(ctx context.Context, subscribed chan<- struct{}) {
	since := w.clock.Now().Add(-overlap)
	stream := w.docker.Events(ctx, client.EventsListOptions{
		Since: fmt.Sprintf("%d.%09d", since.Unix(), since.Nanosecond()),
		// Every health check makes three exec events, which nobody wants.
		Filters: make(client.Filters).
			Add("type", string(events.ContainerEventType)).
			Add("label", labelOperation).
			Add("event", "create", "start", "die", "oom", "stop", "kill", "pause", "unpause", "rename", "destroy",
				string(events.ActionHealthStatus)),
	})
	close(subscribed)
	for {
		select {
		case event := <-stream.Messages:
			if wakes(event) {
				w.noteEvent(event)
			}
		case err := <-stream.Err:
			if err == nil {
				err = context.Cause(ctx)
			}
			w.lock.Lock()
			w.ended = classify(err, "watch events")
			w.lock.Unlock()
			w.poke()
			return
		}
	}
}

// wakes says whether an event may change where an operation stands. The filter takes "health_status" for
// "health_status: healthy" and for all that begins like it.
func wakes(event events.Message) bool {
	action, _, _ := strings.Cut(string(event.Action), ":")
	return !strings.HasPrefix(action, "exec_")
}

// noteEvent remembers which resource an event is about, and which operation: of one that was removed nothing else is
// left to tell.
func (w *watcher) noteEvent(event events.Message) {
	id, ours := identify(event.Actor.Attributes)
	if !ours {
		return
	}
	k := key{id.tenant, id.resource}
	w.lock.Lock()
	if w.woken[k] == nil {
		w.woken[k] = map[string]bellhop.Generation{}
	}
	w.woken[k][id.generation.OperationID] = id.generation
	w.lock.Unlock()
	w.poke()
}

func (w *watcher) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watcher) run(ctx context.Context) error {
	resync := time.Duration(w.config.Resync)
	nextResync := time.Now().Add(resync)
	if err := w.lookAtAll(ctx); err != nil {
		return err
	}
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
			return ctx.Err()
		case <-w.wake:
			if gather == nil {
				gather = time.After(debounce)
			}
			continue
		case done := <-w.retired:
			if resource := w.resources[done.of]; resource != nil {
				resource.retiring = false
			}
			if done.err == nil {
				w.due[done.of] = time.Now()
			}
			continue
		case <-gather:
			gather = nil
		case <-timer.C:
		}
		if err := w.streamEnded(ctx); err != nil {
			return err
		}
		var err error
		if now := time.Now(); !now.Before(nextResync) {
			nextResync = now.Add(resync)
			err = w.lookAtAll(ctx)
		} else {
			err = w.lookAtWoken(ctx, now)
		}
		if err != nil {
			return err
		}
	}
}

// streamEnded says why there are no more events. They were all noted before; the next Watch begins with a list.
func (w *watcher) streamEnded(ctx context.Context) error {
	w.lock.Lock()
	defer w.lock.Unlock()
	if w.ended != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return w.ended
}

// takeWoken returns the operations that events were about since it was last called.
func (w *watcher) takeWoken() map[key]map[string]bellhop.Generation {
	w.lock.Lock()
	defer w.lock.Unlock()
	woken := w.woken
	w.woken = map[key]map[string]bellhop.Generation{}
	return woken
}

// lookAtWoken looks at the resources that had events and at those whose time has come.
func (w *watcher) lookAtWoken(ctx context.Context, now time.Time) error {
	woken := w.takeWoken()
	for k, at := range w.due {
		if !at.After(now) {
			delete(w.due, k)
			if woken[k] == nil {
				woken[k] = nil
			}
		}
	}
	if len(woken) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, watchCall)
	defer cancel()
	by := map[key][]member{}
	if len(woken) > fewResources {
		members, err := w.list(ctx, key{})
		if err != nil {
			return err
		}
		by = byResource(members)
	} else {
		for k := range woken {
			members, err := w.list(ctx, k)
			if err != nil {
				return err
			}
			by[k] = members
		}
	}
	return w.look(ctx, by, woken, woken)
}

// lookAtAll lists everything and looks at what changed.
func (w *watcher) lookAtAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, watchCall)
	defer cancel()
	woken := w.takeWoken()
	members, err := w.list(ctx, key{})
	if err != nil {
		return err
	}
	by := byResource(members)
	look := maps.Clone(woken)
	for k := range by {
		known := w.resources[k]
		if known == nil || !known.settled || known.fingerprint != fingerprint(by[k]) {
			look[k] = woken[k]
		}
	}
	for k := range w.resources {
		if _, there := by[k]; !there {
			look[k] = woken[k]
		}
	}
	return w.look(ctx, by, look, woken)
}

func byResource(members []member) map[key][]member {
	by := map[key][]member{}
	for _, m := range members {
		k := key{m.tenant, m.resource}
		by[k] = append(by[k], m)
	}
	return by
}

// fingerprint changes when a list shows that something happened to a container. The status' words count seconds, so
// only what is in parentheses, the health or the exit code, is taken.
func fingerprint(members []member) string {
	var text strings.Builder
	for _, m := range members {
		inner := ""
		if from := strings.IndexByte(m.status, '('); from >= 0 {
			inner, _, _ = strings.Cut(m.status[from:], ")")
		}
		fmt.Fprintf(&text, "%s %s %s\n", m.id, m.state, inner)
	}
	return text.String()
}

// look inspects the newest operation's containers of each resource in which, and reports what changed.
func (w *watcher) look(ctx context.Context, by map[key][]member, which, woken map[key]map[string]bellhop.Generation) error {
	var newest []member
	for k := range which {
		if members := by[k]; len(members) > 0 {
			newest = append(newest, stand(members, newestOf(members)).mine...)
		}
	}
	details, err := w.inspect(ctx, newest)
	if err != nil {
		return err
	}
	order := slices.SortedFunc(maps.Keys(which), func(a, b key) int {
		return strings.Compare(a.tenant+"/"+a.resource, b.tenant+"/"+b.resource)
	})
	for _, k := range order {
		known := w.resources[k]
		if known == nil {
			known = &watched{operations: map[string]bellhop.Generation{}, reported: map[string]string{}}
			w.resources[k] = known
		}
		maps.Copy(known.operations, woken[k])
		known.fingerprint, known.settled = fingerprint(by[k]), true
		delete(w.due, k)

		members := by[k]
		for _, m := range members {
			known.operations[m.generation.OperationID] = m.generation
		}
		w.reportOthers(known, members)
		if len(members) == 0 {
			delete(w.resources, k)
			continue
		}
		newest := newestOf(members)
		there := stand(members, newest)
		observation, again := w.assess(ctx, newest, there, details)
		if err := ctx.Err(); err != nil {
			return err // what was seen may lack evidence
		}
		if observation.Phase == bellhop.PhaseReady && len(there.older) > 0 {
			observation.Phase = bellhop.PhasePending
			observation.Progress.Message = "all are ready; " + removing(len(there.older)) + " of earlier operations"
			w.retire(k, known, there.older)
		}
		// What waits is not inspected again while its list shows nothing new: the calls would grow with those who wait.
		known.settled = observation.Phase != bellhop.PhasePending || len(there.older) == 0
		if again > 0 {
			w.due[k] = time.Now().Add(again)
		}
		w.tell(known, observation)
	}
	return nil
}

// reportOthers reports the operations other than the newest: superseded by it, or gone with all their containers.
func (w *watcher) reportOthers(known *watched, members []member) {
	for _, id := range slices.Sorted(maps.Keys(known.operations)) {
		generation := known.operations[id]
		there := stand(members, generation)
		switch {
		case len(there.newer) > 0:
			w.tell(known, there.superseded(generation))
		case len(there.mine) == 0:
			observation := there.observation(generation)
			observation.Phase = bellhop.PhaseGone
			w.tell(known, observation)
		default:
			continue // the newest
		}
		if len(there.mine) == 0 {
			delete(known.operations, id)
			delete(known.reported, id)
		}
	}
}

// tell reports what was not reported before. What is pending is told once: progress alone is not worth a report.
func (w *watcher) tell(known *watched, observation bellhop.Observation) {
	digest := string(observation.Phase)
	if observation.Phase != bellhop.PhasePending && observation.Phase != bellhop.PhaseSuperseded {
		code := bellhop.Code("")
		if observation.Failure != nil {
			code = observation.Failure.Code
		}
		digest = fmt.Sprintf("%s %s %v %v", observation.Phase, code, observation.ResourceIDs, observation.Endpoints)
	}
	if known.reported[observation.OperationID] == digest {
		return
	}
	known.reported[observation.OperationID] = digest
	w.report(observation)
}

// retire removes what a ready operation replaced, aside from the watching: stopping takes its time. One that could not
// be removed is tried again when the resource is looked at for another reason, the next resync at the latest.
func (w *watcher) retire(k key, known *watched, older []member) {
	if known.retiring {
		return
	}
	known.retiring = true
	w.wait.Go(func() {
		ctx := w.life
		select {
		case w.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		err := w.remove(ctx, older)
		<-w.slots
		select {
		case w.retired <- retirement{of: k, err: err}:
		case <-ctx.Done():
		}
	})
}

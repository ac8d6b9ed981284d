package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"

	"bellhop"
	"bellhop/activities"
	"bellhop/activities/docker"
	"bellhop/activities/ecs"
	k8s "bellhop/activities/kubernetes"
	"bellhop/tests/peers"
	"bellhop/tests/peers/scriptedecs"
)

// platform is a provider whose calls are counted.
type platform struct {
	name string
	// watched is the provider as it is configured by default, and polled one whose rate has no limit.
	watched, polled activities.Provider
	// entry configures it for a worker; empty where nothing is measured through one.
	entry string
	// waits is what stays pending for longer than the measurement, and serves what becomes ready at once.
	waits, serves bellhop.Spec
	// most is how many can wait there on this machine.
	most int
	// calls are how often each was made so far, by name.
	calls func() map[string]int
	// looked is how many of those that wait the watch has looked at since a time. It is nil where the watch reports them all.
	looked func(since time.Time) int
	// ready notes when the platform told of each operation that what it asked for is ready, until ctx ends.
	ready func(ctx context.Context, note func(operation string, at time.Time)) error
}

const (
	// watching is how long the calls of a watch are counted.
	watching = time.Minute
	// naively is how often an operation is polled by the naive way, a loop each.
	naively = 5 * time.Second
	// settling is how long nothing is counted after everything was begun.
	settling = 10 * time.Second
)

// providers counts what watching costs, and measures how long an event takes to become a callback.
func (b *bench) providers(ctx context.Context, folder string) error {
	opens := map[string]func(context.Context, string) (*platform, func(), error){
		"docker": openDocker, "kubernetes": openKubernetes, "ecs": openECS,
	}
	for name := range strings.SplitSeq(b.at, ",") {
		open, ok := opens[name]
		if !ok {
			return fmt.Errorf("no provider %q", name)
		}
		p, shut, err := open(ctx, folder)
		if errors.Is(err, peers.ErrNoKubernetes) || errors.Is(err, errNoEngine) {
			fmt.Printf("left out: %s\n\n", err)
			continue
		}
		if err != nil {
			return err
		}
		err = errors.Join(b.count(ctx, p), b.called(ctx, p))
		shut()
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// count counts the calls that operations which wait cost, watched and polled.
func (b *bench) count(ctx context.Context, p *platform) error {
	fmt.Printf("## Calls to %s a minute, while operations wait\n\n", p.name)
	fmt.Printf("| waiting | by the watch | which | by a loop each, every %s | which |\n|---|---|---|---|---|\n", naively)
	var ops []bellhop.Operation
	for _, n := range []int{10, 100, 1000, 5000} {
		if n > min(p.most, b.waiting) {
			break
		}
		begun := len(ops)
		for i := begun; i < n; i++ {
			id := fmt.Sprintf("waits-%d-%d", time.Now().UnixNano(), i)
			ops = append(ops, bellhop.Operation{
				ID: id, Verb: bellhop.Provision, RequestedAt: time.Now().UTC(), TenantID: "bench", Resource: fmt.Sprintf("waits-%d", i),
				Provider: p.name, Spec: p.waits,
			})
		}
		if err := each(ctx, starters, n-begun, func(ctx context.Context, i int) error {
			for {
				seen, err := p.polled.Provision(ctx, ops[begun+i])
				if failure, ok := errors.AsType[*bellhop.Failure](err); ok && failure.Code.Unavailable() {
					if err := pause(ctx, failure.RetryAfter); err != nil {
						return err
					}
					continue
				}
				if err == nil && seen.Phase != bellhop.PhasePending {
					err = fmt.Errorf("%s is %s, and was to wait: %w", seen.OperationID, seen.Phase, seen.Failure)
				}
				return err
			}
		}); err != nil {
			return err
		}
		watched, err := p.whileWatching(ctx, ops)
		if err != nil {
			return err
		}
		polled, err := p.whilePolling(ctx, ops)
		if err != nil {
			return err
		}
		fmt.Printf("| %d | %d | %s | %d | %s |\n", n, total(watched), said(watched), total(polled), said(polled))
	}
	fmt.Println()
	return each(ctx, starters, len(ops), func(ctx context.Context, i int) error {
		gone := ops[i]
		gone.ID, gone.Verb, gone.Spec, gone.RequestedAt = gone.ID+"-d", bellhop.Delete, bellhop.Spec{}, time.Now().UTC()
		_, err := p.polled.Delete(ctx, gone)
		return err
	})
}

// whileWatching counts the calls of a watch in a minute, after it has come to know of everything that waits.
func (p *platform) whileWatching(ctx context.Context, ops []bellhop.Operation) (map[string]int, error) {
	ctx, stop := context.WithCancel(ctx)
	began := time.Now()
	var mu sync.Mutex
	unreported := map[string]bool{}
	for _, op := range ops {
		unreported[op.ID] = true
	}
	known := func() int {
		if p.looked != nil {
			return p.looked(began)
		}
		mu.Lock()
		defer mu.Unlock()
		return len(ops) - len(unreported)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- p.watched.Watch(ctx, func(seen bellhop.Observation) {
			mu.Lock()
			defer mu.Unlock()
			delete(unreported, seen.OperationID)
		})
	}()
	defer func() { stop(); <-ended }()
	for known() < len(ops) {
		if time.Since(began) > 10*time.Minute {
			return nil, fmt.Errorf("the watch knows of %d operations of %d", known(), len(ops))
		}
		select {
		case err := <-ended:
			ended <- err
			return nil, err
		case <-time.After(100 * time.Millisecond):
		}
	}
	if err := pause(ctx, settling); err != nil {
		return nil, err
	}
	before := p.calls()
	if err := pause(ctx, watching); err != nil {
		return nil, err
	}
	return since(before, p.calls(), 1), nil
}

// pause lets time go by, unless the measurement is ended.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// whilePolling counts the calls of a loop for each operation, for half a minute.
func (p *platform) whilePolling(ctx context.Context, ops []bellhop.Operation) (map[string]int, error) {
	counted, stop := context.WithTimeout(ctx, watching/2)
	defer stop()
	before := p.calls()
	var loops sync.WaitGroup
	for i, op := range ops {
		loops.Go(func() {
			tick := time.NewTicker(naively)
			defer tick.Stop()
			select { // so that they are spread, as those of operations are
			case <-time.After(naively * time.Duration(i) / time.Duration(len(ops))):
			case <-counted.Done():
			}
			for counted.Err() == nil {
				_, _ = p.polled.Observe(counted, op) //nolint:errcheck // that it was asked is what counts
				select {
				case <-tick.C:
				case <-counted.Done():
				}
			}
		})
	}
	loops.Wait()
	return since(before, p.calls(), 2), ctx.Err()
}

func since(before, after map[string]int, times int) map[string]int {
	made := map[string]int{}
	for name, n := range after {
		if n -= before[name]; n > 0 {
			made[name] = n * times
		}
	}
	return made
}

func total(calls map[string]int) int {
	sum := 0
	for _, n := range calls {
		sum += n
	}
	return sum
}

func said(calls map[string]int) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(calls)) {
		all = append(all, fmt.Sprintf("%s %d", name, calls[name]))
	}
	return strings.Join(all, ", ")
}

// called measures from what the platform itself tells to the callback received.
func (b *bench) called(ctx context.Context, p *platform) error {
	if p.entry == "" {
		return nil
	}
	return b.run(ctx, p.entry, "", func(ctx context.Context) error {
		const n = 60
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		var mu sync.Mutex
		at := map[string]time.Time{}
		if err := p.ready(ctx, func(operation string, when time.Time) {
			mu.Lock()
			defer mu.Unlock()
			if at[operation].IsZero() {
				at[operation] = when
			}
		}); err != nil {
			return err
		}
		var lags []time.Duration
		for i := range n + 5 {
			id := fmt.Sprintf("event-%s-%d", p.name, b.serial.Add(1))
			received, err := b.ringOn(ctx, p, id, i)
			if err != nil {
				return err
			}
			mu.Lock()
			if when := at[id]; i >= 5 && !when.IsZero() {
				lags = append(lags, received.Sub(when))
			}
			mu.Unlock()
		}
		if len(lags) == 0 {
			return errors.New("the platform told of nothing")
		}
		fmt.Printf("From %s's event to the callback received, %d operations, one at a time: p50 %s, p99 %s\n\n", p.name,
			len(lags), ms(percentile(lags, 50)), ms(percentile(lags, 99)))
		return nil
	})
}

// ringOn provisions at a platform, waits for the callback, and deletes again.
func (b *bench) ringOn(ctx context.Context, p *platform, id string, i int) (time.Time, error) {
	got := make(chan time.Time, 1)
	b.mu.Lock()
	b.received[id] = got
	b.mu.Unlock()
	resource := fmt.Sprintf("event-%d", i)
	check := ""
	if p.serves.HealthCheck != nil {
		check = `, "health_check": {"command": ["/main", "healthy"], "interval": "1s"}`
	}
	text := fmt.Sprintf(`{"tenant_id": "bench", "resource": %q, "provider": %q, "spec": {"image": %q%s}, "timeout": "10m",
		"callbacks": [{"target": "temporal", "address": {"workflow_id": %q}}]}`, resource, p.name, p.serves.Image, check, receiver(i))
	if _, err := b.ops.Start(ctx, id, bellhop.Provision, []byte(text)); err != nil {
		return time.Time{}, err
	}
	var at time.Time
	select {
	case at = <-got:
	case <-ctx.Done():
		return at, ctx.Err()
	case <-time.After(5 * time.Minute):
		return at, fmt.Errorf("no callback for %s", id)
	}
	if _, err := b.ops.Start(ctx, id+"-d", bellhop.Delete, fmt.Appendf(nil, `{"tenant_id": "bench", "resource": %q, "provider": %q}`, resource, p.name)); err != nil {
		return at, err
	}
	_, err := b.ops.Wait(ctx, id+"-d")
	return at, err
}

var errNoEngine = errors.New(`no Docker engine answers; get one with: eval "$(tests/peers/docker.sh start)"`)

var number = regexp.MustCompile(`/v[0-9.]+|[0-9a-f]{64}`)

// openDocker stands between the provider and the engine, and counts.
func openDocker(ctx context.Context, _ string) (*platform, func(), error) {
	engine, err := client.New(client.FromEnv)
	if err != nil {
		return nil, nil, err
	}
	if _, err := engine.Ping(ctx, client.PingOptions{}); err != nil {
		return nil, nil, errNoEngine
	}
	const image = "bellhop.test/bench:1"
	if _, err := peers.MakeImage(ctx, engine, image, "activities/docker/testdata/tenant"); err != nil {
		return nil, nil, err
	}
	var mu sync.Mutex
	calls := map[string]int{}
	front := httptest.NewServer(&httputil.ReverseProxy{
		FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) {
			mu.Lock()
			calls[r.In.Method+" "+number.ReplaceAllString(r.In.URL.Path, "")]++
			mu.Unlock()
			r.SetURL(&url.URL{Scheme: "http", Host: "engine"})
		},
		Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return engine.Dialer()(ctx)
		}},
	})
	provider, err := docker.New(docker.Config{Host: "tcp://" + front.Listener.Addr().String(), StopTimeout: bellhop.Duration(time.Second)})
	if err != nil {
		return nil, nil, err
	}
	check := &bellhop.HealthCheck{Command: []string{"/main", "healthy"}, Interval: bellhop.Duration(time.Hour), Timeout: bellhop.Duration(5 * time.Second), Retries: 3}
	p := &platform{
		name: "docker", watched: provider, polled: provider, most: 100,
		entry:  "  docker: {type: docker, stop_timeout: 1s}\n",
		waits:  bellhop.Spec{Image: image, Replicas: 1, HealthCheck: check},
		serves: bellhop.Spec{Image: image, HealthCheck: check},
		calls:  func() map[string]int { mu.Lock(); defer mu.Unlock(); return maps.Clone(calls) },
		ready: func(ctx context.Context, note func(string, time.Time)) error {
			told := engine.Events(ctx, client.EventsListOptions{Filters: make(client.Filters).Add("event", string(events.ActionHealthStatusHealthy))})
			go func() {
				for event := range told.Messages {
					note(event.Actor.Attributes["bellhop.operation"], time.Unix(0, event.TimeNano))
				}
			}()
			return nil
		},
	}
	shut := func() {
		front.CloseClientConnections()
		front.Close()
		_ = provider.Close()
		_, _ = engine.ImageRemove(context.WithoutCancel(ctx), image, client.ImageRemoveOptions{Force: true})
		_ = engine.Close()
	}
	return p, shut, nil
}

// openKubernetes has the API server's audit log count.
func openKubernetes(ctx context.Context, folder string) (*platform, func(), error) {
	folder = filepath.Join(folder, "kubernetes")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, nil, err
	}
	cluster, err := peers.StartKubernetes(ctx, folder)
	if err != nil {
		return nil, nil, err
	}
	const user = "bellhop"
	kubeconfig, err := cluster.Login(cluster.URL, user)
	if err != nil {
		return nil, nil, err
	}
	provider, err := k8s.New(k8s.Config{Kubeconfig: kubeconfig, Namespace: "bench", CreateNamespaces: true, ProgressDeadline: bellhop.Duration(2 * time.Hour)})
	if err != nil {
		return nil, nil, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", cluster.Kubeconfig)
	if err != nil {
		return nil, nil, err
	}
	admin, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, err
	}
	p := &platform{
		name: "kubernetes", watched: provider, polled: provider, most: 5000,
		entry:  fmt.Sprintf("  kubernetes: {type: kubernetes, kubeconfig: %q, namespace: bench, create_namespaces: true}\n", kubeconfig),
		waits:  bellhop.Spec{Image: "bellhop.test/never-ready:1", Replicas: 1},
		serves: bellhop.Spec{Image: "bellhop.test/ready:1"},
		calls: func() map[string]int {
			made, err := cluster.Calls(user)
			if err != nil {
				panic(err)
			}
			calls := map[string]int{}
			for _, call := range made {
				calls[call.Verb+" "+call.Resource]++
			}
			return calls
		},
		ready: func(ctx context.Context, note func(string, time.Time)) error {
			factory := informers.NewSharedInformerFactory(admin, 0)
			informer := factory.Apps().V1().Deployments().Informer()
			_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{UpdateFunc: func(_, now any) {
				d, ok := now.(*appsv1.Deployment)
				if ok && d.Status.ObservedGeneration >= d.Generation && d.Status.AvailableReplicas == *d.Spec.Replicas && d.Status.UpdatedReplicas == *d.Spec.Replicas {
					note(d.Annotations["bellhop.operation"], time.Now())
				}
			}})
			factory.StartWithContext(ctx)
			factory.WaitForCacheSync(ctx.Done())
			return err
		},
	}
	if _, err := admin.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: user},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}, metav1.CreateOptions{}); err != nil {
		return nil, nil, err
	}
	return p, func() { _ = provider.Close(); cluster.Kill() }, nil
}

// openECS has the scripted server count, which keeps to the account's quotas where the provider is watched.
func openECS(context.Context, string) (*platform, func(), error) {
	for key, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIABELLHOPTEST", "AWS_SECRET_ACCESS_KEY": "test",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	} {
		if err := os.Setenv(key, value); err != nil {
			return nil, nil, err
		}
	}
	server, err := scriptedecs.Start(scriptedecs.Options{})
	if err != nil {
		return nil, nil, err
	}
	config := ecs.Config{Region: "eu-central-1", Endpoint: server.URL, Cluster: "default", Subnets: []string{"subnet-1"}}
	watched, err := ecs.New(config)
	if err != nil {
		return nil, nil, err
	}
	config.ReadsPerSecond, config.WritesPerSecond, config.DefinitionsPerSecond = 1e6, 1e6, 1e6
	polled, err := ecs.New(config)
	if err != nil {
		return nil, nil, err
	}
	var counted atomic.Int64 // so that each call is counted once
	calls := map[string]int{}
	p := &platform{
		name: "ecs", watched: watched, polled: polled, most: 5000,
		waits: bellhop.Spec{Image: "bellhop.test/slow:1", Replicas: 1},
		calls: func() map[string]int {
			all := server.Calls()
			for _, call := range all[counted.Load():] {
				calls[strings.TrimPrefix(call.Action, "ecs:")]++
			}
			counted.Store(int64(len(all)))
			return maps.Clone(calls)
		},
	}
	// What waits is reported by no watch here, for nothing has come to an end.
	p.looked = func(since time.Time) int {
		described := map[string]bool{}
		for _, call := range server.Calls() {
			var asked struct{ Services []string }
			if call.Action != "ecs:DescribeServices" || call.At.Before(since) || json.Unmarshal(call.Body, &asked) != nil {
				continue
			}
			for _, name := range asked.Services {
				described[name] = true
			}
		}
		return len(described)
	}
	return p, server.Close, nil
}

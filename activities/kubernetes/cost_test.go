package kubernetes

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bellhop"
	"bellhop/tests/peers"
)

// TestCostIsFlat counts what the API server is asked while operations wait, beside what one poll loop per operation
// would ask, and measures how long after the cluster an end is reported. BELLHOP_WAITING says how many wait: "10,100,1000".
func TestCostIsFlat(t *testing.T) {
	const window, poll = 10 * time.Second, 5 * time.Second
	crowds := []int{10, 50}
	if text := os.Getenv("BELLHOP_WAITING"); text != "" {
		crowds = nil
		for number := range strings.SplitSeq(text, ",") {
			n, err := strconv.Atoi(number)
			if err != nil {
				t.Fatal(err)
			}
			crowds = append(crowds, n)
		}
	}
	b := setupIn(t, peers.KubernetesFor(t), "rbac.yaml", Config{CreateNamespaces: true, Namespace: "crowd-{tenant}"})
	reports := make(chan bellhop.Observation, 1<<16)
	watching, stop := context.WithCancel(t.Context())
	var watched sync.WaitGroup
	watched.Go(func() {
		if err := b.Watch(watching, func(seen bellhop.Observation) { reports <- seen }); watching.Err() == nil {
			t.Errorf("the watch ended: %v", err)
		}
	})
	defer watched.Wait()
	defer stop()
	calls := func() int {
		made, err := b.cluster.Calls(workerUser)
		if err != nil {
			t.Fatal(err)
		}
		return len(made)
	}
	perMinute := func(n int) int { return int(float64(n) * float64(time.Minute) / float64(window)) }

	var waiting []bellhop.Operation
	for _, crowd := range crowds {
		var asking sync.WaitGroup
		slots := make(chan struct{}, 16)
		for i := len(waiting); i < crowd; i++ {
			op := b.operation(bellhop.Provision, "t", spec("never-ready", 1), "")
			op.Resource = fmt.Sprintf("r-%d", i)
			waiting = append(waiting, op)
			slots <- struct{}{}
			asking.Go(func() {
				defer func() { <-slots }()
				for range 20 { // the namespace is made by all of them at once
					if _, err := b.Provision(t.Context(), op); err == nil {
						return
					}
				}
				t.Errorf("%s was not taken", op.ID)
			})
		}
		asking.Wait()
		deadline := time.Now().Add(5 * time.Minute)
		for {
			pods := b.podsOfTenant("t")
			running := 0
			for i := range pods {
				if pods[i].Status.Phase == "Running" {
					running++
				}
			}
			if running == crowd {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d of %d pods run", running, crowd)
			}
			time.Sleep(200 * time.Millisecond)
		}

		before := calls()
		time.Sleep(window) // it is the measure, not a wait for something
		watches := calls() - before

		before = calls()
		ctx, cancel := context.WithTimeout(t.Context(), window)
		var polling sync.WaitGroup
		for i, op := range waiting {
			polling.Go(func() {
				select { // they did not begin in one instant
				case <-time.After(poll * time.Duration(i) / time.Duration(crowd)):
				case <-ctx.Done():
				}
				ticker := time.NewTicker(poll)
				defer ticker.Stop()
				for ctx.Err() == nil {
					_, _ = b.Observe(ctx, op) //nolint:errcheck // only the calls count
					select {
					case <-ticker.C:
					case <-ctx.Done():
					}
				}
			})
		}
		polling.Wait()
		cancel()
		polls := calls() - before
		t.Logf("%5d waiting: %d calls a minute by the watch, %d by a poll loop for each, every %s", crowd, perMinute(watches), perMinute(polls), poll)
		// A watch is renewed every few minutes.
		if watches > 2*4 {
			t.Errorf("the watch made %d calls in %s although nothing happened", watches, window)
		}
	}

	// Each becomes ready, one after the other; the cluster's own watch tells when.
	sample := waiting[:min(len(waiting), 200)]
	theirs, err := b.admin.AppsV1().Deployments("").Watch(t.Context(), metav1.ListOptions{LabelSelector: ours})
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Stop()
	var lock sync.Mutex
	available := map[string]time.Time{}
	go func() {
		for event := range theirs.ResultChan() {
			deployment, ok := event.Object.(*appsv1.Deployment)
			if !ok || deployment.Status.AvailableReplicas < 1 {
				continue
			}
			lock.Lock()
			if id := generationOf(deployment).OperationID; available[id].IsZero() {
				available[id] = time.Now()
			}
			lock.Unlock()
		}
	}()
	pods := b.podsOfTenant("t")
	go func() {
		patch := []byte(`{"metadata": {"annotations": {"bellhop.test/script": "well"}}}`)
		for i := range pods {
			if slices.ContainsFunc(sample, func(op bellhop.Operation) bool { return op.ID == generationOf(&pods[i]).OperationID }) {
				_, _ = b.admin.CoreV1().Pods(pods[i].Namespace).Patch(t.Context(), pods[i].Name, "application/merge-patch+json", patch, metav1.PatchOptions{}) //nolint:errcheck // one less is missed below
				time.Sleep(20 * time.Millisecond)
			}
		}
	}()
	var lags []time.Duration
	timeout := time.After(3 * time.Minute)
	for len(lags) < len(sample) {
		select {
		case seen := <-reports:
			if seen.Phase != bellhop.PhaseReady {
				continue
			}
			now := time.Now()
			lock.Lock()
			at := available[seen.OperationID]
			lock.Unlock()
			if at.IsZero() { // bellhop heard of it first
				at = now
			}
			lags = append(lags, now.Sub(at))
		case <-timeout:
			t.Fatalf("%d of %d ends were reported", len(lags), len(sample))
		}
	}
	slices.Sort(lags)
	t.Logf("%d ends reported after the cluster told of them: p50 %s, p99 %s, max %s", len(lags),
		lags[len(lags)/2].Round(time.Millisecond), lags[len(lags)*99/100].Round(time.Millisecond), lags[len(lags)-1].Round(time.Millisecond))
}

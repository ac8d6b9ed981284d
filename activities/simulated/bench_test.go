package simulated_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"bellhop"
)

// operation is an operation that is newer than those made before it.
func operation(verb bellhop.Verb, tenant, resource, script string) bellhop.Operation {
	now := began.UnixNano() + later.Add(1)
	op := bellhop.Operation{
		ID:       fmt.Sprintf("%s:%s:%d", tenant, resource, now),
		Verb:     verb,
		TenantID: tenant, Resource: resource, Provider: "simulated",
		RequestedAt: time.Unix(0, now).UTC(),
	}
	if script != "" {
		op.ProviderConfig = []byte(script)
	}
	if verb != bellhop.Delete {
		op.Spec = bellhop.Spec{Image: "nginx:1.27", Replicas: 1}
	}
	return op
}

// began and later are the clock of [operation]: one nanosecond per operation.
var (
	began = time.Now()
	later atomic.Int64
)

// BenchmarkProvisionObserve is what an operation costs the platform: asked, ready at once, observed. What the benchmark
// of a whole operation measures must not be this.
func BenchmarkProvisionObserve(b *testing.B) {
	for _, watched := range []bool{false, true} {
		b.Run(fmt.Sprintf("watched=%t", watched), func(b *testing.B) {
			provider := open(b, filepath.Join(b.TempDir(), "platform.db"))
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error, 1)
			if watched {
				go func() { done <- provider.Watch(ctx, func(bellhop.Observation) {}) }()
			} else {
				done <- context.Canceled
			}
			b.ResetTimer()
			used := cpuTime()
			for n := range b.N {
				op := operation(bellhop.Provision, "acme", fmt.Sprintf("web-%d", n), "")
				if seen, err := provider.Provision(ctx, op); err != nil || seen.Phase != bellhop.PhaseReady {
					b.Fatal(seen.Phase, err)
				}
				if seen, err := provider.Observe(ctx, op); err != nil || seen.Phase != bellhop.PhaseReady {
					b.Fatal(seen.Phase, err)
				}
			}
			b.ReportMetric(float64(cpuTime()-used)/1e3/float64(b.N), "cpu-µs/op")
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				b.Error(err)
			}
		})
	}
}

// BenchmarkProvision is the ask alone.
func BenchmarkProvision(b *testing.B) {
	provider := open(b, filepath.Join(b.TempDir(), "platform.db"))
	used := cpuTime()
	for n := range b.N {
		op := operation(bellhop.Provision, "acme", fmt.Sprintf("web-%d", n), "")
		if seen, err := provider.Provision(b.Context(), op); err != nil || seen.Phase != bellhop.PhaseReady {
			b.Fatal(seen.Phase, err)
		}
	}
	b.ReportMetric(float64(cpuTime()-used)/1e3/float64(b.N), "cpu-µs/op")
}

// BenchmarkIdleWatch is what a second of watching costs while nothing happens.
func BenchmarkIdleWatch(b *testing.B) {
	provider := open(b, filepath.Join(b.TempDir(), "platform.db"))
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- provider.Watch(ctx, func(bellhop.Observation) {}) }()
	used := cpuTime()
	for range b.N {
		<-time.After(time.Second)
	}
	b.ReportMetric(float64(cpuTime()-used)/1e3/float64(b.N), "cpu-µs/s")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		b.Error(err)
	}
}

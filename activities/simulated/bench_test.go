package simulated_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"bellhop"
)

// operation is an operation that is newer than those made before it.
func operation(verb bellhop.Verb, tenant, resource, script string) bellhop.Operation {
	op := bellhop.Operation{
		ID:       fmt.Sprintf("%s:%s:%d", tenant, resource, clock.Add(1)),
		Verb:     verb,
		TenantID: tenant, Resource: resource, Provider: "simulated",
		RequestedAt: time.Unix(0, clock.Load()).UTC(),
	}
	if script != "" {
		op.ProviderConfig = []byte(script)
	}
	if verb != bellhop.Delete {
		op.Spec = bellhop.Spec{Image: "nginx:1.27", Replicas: 1}
	}
	return op
}

var clock atomic.Int64

func init() { clock.Store(time.Now().UnixNano()) }

// BenchmarkProvisionObserve is what an operation costs the platform: asked, ready at once, observed. What the benchmark
// of a whole operation measures must not be this.
func BenchmarkProvisionObserve(b *testing.B) {
	for _, watched := range []bool{false, true} {
		b.Run(fmt.Sprintf("watched=%t", watched), func(b *testing.B) {
			provider := open(b, filepath.Join(b.TempDir(), "platform.db"))
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan struct{})
			if watched {
				go func() {
					defer close(done)
					_ = provider.Watch(ctx, func(bellhop.Observation) {})
				}()
			} else {
				close(done)
			}
			b.ResetTimer()
			began := cpuTime()
			for n := range b.N {
				op := operation(bellhop.Provision, "acme", fmt.Sprintf("web-%d", n), "")
				if seen, err := provider.Provision(ctx, op); err != nil || seen.Phase != bellhop.PhaseReady {
					b.Fatal(seen.Phase, err)
				}
				if seen, err := provider.Observe(ctx, op); err != nil || seen.Phase != bellhop.PhaseReady {
					b.Fatal(seen.Phase, err)
				}
			}
			b.ReportMetric(float64(cpuTime()-began)/1e3/float64(b.N), "cpu-µs/op")
			cancel()
			<-done
		})
	}
}

// BenchmarkProvision is the ask alone.
func BenchmarkProvision(b *testing.B) {
	provider := open(b, filepath.Join(b.TempDir(), "platform.db"))
	began := cpuTime()
	for n := range b.N {
		op := operation(bellhop.Provision, "acme", fmt.Sprintf("web-%d", n), "")
		if seen, err := provider.Provision(b.Context(), op); err != nil || seen.Phase != bellhop.PhaseReady {
			b.Fatal(seen.Phase, err)
		}
	}
	b.ReportMetric(float64(cpuTime()-began)/1e3/float64(b.N), "cpu-µs/op")
}

// BenchmarkIdleWatch is what a second of watching costs while nothing happens.
func BenchmarkIdleWatch(b *testing.B) {
	provider := open(b, filepath.Join(b.TempDir(), "platform.db"))
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = provider.Watch(ctx, func(bellhop.Observation) {})
	}()
	began := cpuTime()
	for range b.N {
		<-time.After(time.Second)
	}
	b.ReportMetric(float64(cpuTime()-began)/1e3/float64(b.N), "cpu-µs/s")
	cancel()
	<-done
}

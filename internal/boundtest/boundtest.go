// Package boundtest measures what reading a hostile input costs. One request of any content below 256 KiB takes at most
// 64 MiB and 200 ms to read or to refuse, inside workflow code as well: tests and fuzz targets assert it with [Within].
package boundtest

import (
	"runtime"
	"syscall"
	"testing"
	"time"
)

// The bound.
const (
	Bytes = 64 << 20
	Time  = 200 * time.Millisecond
)

// rounds is how often what seems to take too long is measured before it is believed: a busy machine is no slow code.
const rounds = 5

// Within fails the test if read allocates more than [Bytes] or takes more than [Time] of processor time. All that is
// allocated counts, whether or not it is still held at the end. Read may run several times.
func Within(tb testing.TB, read func()) {
	tb.Helper()
	var allocated uint64
	var took time.Duration
	for range rounds {
		allocated, took = measure(read)
		if allocated <= Bytes && took <= Time {
			tb.Logf("%.1f MiB, %s", float64(allocated)/(1<<20), took)
			return
		}
	}
	tb.Errorf("it allocated %.1f MiB of at most %d and took %s of at most %s", float64(allocated)/(1<<20), Bytes>>20, took, Time)
}

func measure(read func()) (allocated uint64, took time.Duration) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := processorTime()
	read()
	took = processorTime() - began
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc, took
}

// processorTime is what the process has used so far, in its own code: time in which others had the processor is not its.
func processorTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano())
}

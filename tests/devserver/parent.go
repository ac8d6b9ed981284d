package main

import (
	"context"
	"os"
	"time"
)

// parentInterval is how soon an orphan notices. The check is one system call.
const parentInterval = 200 * time.Millisecond

// withParent returns a context that ends when the parent process does, also
// when that is killed. It watches the parent's id, which changes when the
// kernel gives the orphan to another process: Linux could send a signal
// instead, but only macOS and Linux alike can do this.
func withParent(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	parent := os.Getppid()
	go func() {
		ticker := time.NewTicker(parentInterval)
		defer ticker.Stop()
		for os.Getppid() == parent {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
		cancel()
	}()
	return ctx, cancel
}

package main

import (
	"context"
	"fmt"
	"time"

	"bellhop"
)

// neighbors measures what one tenant notices of another whose asks take long: the time from a request to its callback,
// beside the slow asks and without them, in one run and in turn.
func (b *bench) neighbors(ctx context.Context) error {
	const n, warm = 200, 20
	fmt.Printf("## Neighbors: a tenant's operations, one at a time, beside %d asks of another tenant that take 10 minutes each\n\n", b.slow)
	fmt.Println("| | p50 | p99 | p99 to that alone |\n|---|---|---|---|")
	took := map[string][]time.Duration{}
	victim := func(name string) error {
		for i := range n + warm {
			_, _, d, err := b.ring(ctx, shape{name: name, readyAfter: "0s"}, i)
			if err != nil {
				return err
			}
			if i >= warm {
				took[name] = append(took[name], d)
			}
		}
		return nil
	}
	for round := range min(b.rounds, 3) {
		if err := victim("alone"); err != nil {
			return err
		}
		ids, err := b.slowAsks(ctx, round)
		if err != nil {
			return err
		}
		if err := victim("beside"); err != nil {
			return err
		}
		if err := b.cancelAll(ctx, ids); err != nil {
			return err
		}
	}
	alone := percentile(took["alone"], 99)
	for _, name := range []string{"alone", "beside"} {
		p99 := percentile(took[name], 99)
		fmt.Printf("| %s | %s | %s | %.2f |\n", name, ms(percentile(took[name], 50)), ms(p99), float64(p99)/float64(alone))
	}
	fmt.Println()
	return nil
}

// slowAsks starts operations of one tenant whose asks take long, and waits until each was taken up or sent back.
func (b *bench) slowAsks(ctx context.Context, round int) ([]string, error) {
	ids := make([]string, b.slow)
	err := each(ctx, starters, len(ids), func(ctx context.Context, i int) error {
		ids[i] = fmt.Sprintf("slow-%d-%d", round, i)
		_, err := b.ops.Start(ctx, ids[i], bellhop.Provision, fmt.Appendf(nil, `{"tenant_id": "slow", "resource": %q,
			"provider": "simulated", "spec": {"image": "nginx:1.27"}, "provider_config": {"ask_takes": "10m"}, "timeout": "24h"}`, ids[i]))
		return err
	})
	if err != nil {
		return nil, err
	}
	// The first pauses of those that found no place are short, and part of what starting them costs.
	select {
	case <-time.After(settle):
		return ids, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// settle is after how long the pauses of asks that find no place have grown to about a minute.
const settle = 90 * time.Second

func (b *bench) cancelAll(ctx context.Context, ids []string) error {
	err := each(ctx, starters, len(ids), func(ctx context.Context, i int) error { return b.c.CancelWorkflow(ctx, ids[i], "") })
	if err != nil {
		return err
	}
	for {
		open, err := b.ops.Count(ctx, bellhop.Filter{Tenant: "slow", Open: true})
		if err != nil || open == 0 {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

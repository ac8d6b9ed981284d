package tests

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"bellhop/tests/peers"
)

// A rolling upgrade: a worker of the landed version and one of this work on the same task queue, on operations in all
// phases. Each is killed in the middle. The landed one is the binary that BELLHOP_OLD_WORKER names:
//
//	git worktree add /tmp/old cdf1157 && (cd /tmp/old && go build -o old-worker ./worker)
//	BELLHOP_OLD_WORKER=/tmp/old/old-worker go test ./tests -run TestMixedFleet
func TestMixedFleet(t *testing.T) {
	old := os.Getenv("BELLHOP_OLD_WORKER")
	if old == "" {
		t.Skip("BELLHOP_OLD_WORKER names no worker of an earlier version")
	}
	t.Parallel()
	b := setup(t)
	b.patience = 4 * time.Minute // a workflow task that came to the wrong worker is tried again ever more slowly
	got := b.call("caller")
	config := b.config("backstop: {first: 3s, max: 5s}")
	elder := func() *peers.Worker {
		w, err := peers.StartWorkerAt(b.ctx, old, b.server.Address, config)
		require.NoError(t, err)
		t.Cleanup(w.Kill)
		return w
	}
	n := count(100, 400)
	scripts := []string{`{}`, `{"ready_after": "2s"}`, `{"ask_takes": "1s", "ready_after": "6s"}`, `{"ready_after": "12s"}`}
	var ids []string
	begin := func(phase string, n int) {
		for i := range n {
			id := fmt.Sprintf("%s-%d", phase, i)
			b.begin(id, "temporal", scripts[i%len(scripts)])
			ids = append(ids, id)
		}
	}
	before := elder()
	begin("before", n/4) // under way when the new version comes
	now := b.work(config)
	begin("beside", n/4)
	now.Kill()
	begin("without", n/4)
	time.Sleep(3 * time.Second) // what the new one began comes to the old one
	now = b.work(config)
	begin("again", n-len(ids))
	time.Sleep(3 * time.Second)
	before.Kill()
	b.settle(ids, got)

	first, second := 0, 0
	for _, id := range ids {
		events := b.client.GetWorkflowHistory(b.ctx, id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			event, err := events.Next()
			require.NoError(t, err)
			if scheduled := event.GetActivityTaskScheduledEventAttributes(); scheduled != nil {
				if scheduled.GetActivityId() == "5" {
					first++
				} else {
					second++
				}
				break
			}
		}
	}
	t.Logf("%d operations were begun by the old version, %d by the new", first, second)
	require.NotZero(t, first)
	require.NotZero(t, second)
	_ = now
}

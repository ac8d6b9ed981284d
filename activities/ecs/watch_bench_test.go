package ecs

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"bellhop"
	"bellhop/tests/peers/scriptedecs"
)

// TestCallsOfTheWatch counts the calls that it costs to watch operations that wait, beside the naive way of one poll each.
// More numbers: BELLHOP_WAITING="10 100 1000 5000" go test ./activities/ecs -run CallsOfTheWatch -v
func TestCallsOfTheWatch(t *testing.T) {
	numbers := []int{10, 100}
	if given := os.Getenv("BELLHOP_WAITING"); given != "" {
		numbers = nil
		for field := range strings.FieldsSeq(given) {
			n, err := strconv.Atoi(field)
			require.NoError(t, err)
			numbers = append(numbers, n)
		}
	}
	for _, waiting := range numbers {
		t.Run(fmt.Sprint(waiting), func(t *testing.T) {
			d := setup(t, scriptedecs.Options{}, func(c *Config) {
				// The defaults, but for a clock that runs faster: what counts is calls per interval.
				c.PollMin, c.PollMax, c.Resync = bellhop.Duration(DefaultPollEvery/hurry), bellhop.Duration(DefaultPollUpTo/hurry), bellhop.Duration(DefaultResync/hurry)
				c.ReadsPerSecond = DefaultReadsPerSecond * hurry
			})
			slow := image("slow")
			slow.Replicas = 1
			asker := made(t, config(d.server))
			ops := make([]bellhop.Operation, waiting)
			for i := range ops {
				ops[i] = d.operation(bellhop.Provision, fmt.Sprintf("web-%d", i), slow, "")
				_, err := asker.Provision(t.Context(), ops[i])
				require.NoError(t, err)
			}
			since := time.Now()
			for _, op := range ops { // one round of polls, one for each operation
				_, err := asker.Observe(t.Context(), op)
				require.NoError(t, err)
			}
			naive := d.server.CallsSince(since)["ecs:DescribeServices"]

			d.watch()
			<-time.After(2 * time.Duration(d.provider.config.PollMax)) // the intervals have grown
			since = time.Now()
			<-time.After(time.Minute / hurry)
			watched := d.server.CallsSince(since)
			all := total(watched)
			t.Logf("%d waiting: %d DescribeServices a minute, %d calls in all; a poll for each of them, every %s: %d DescribeServices a minute",
				waiting, watched["ecs:DescribeServices"], all, DefaultPollEvery, naive*int(time.Minute/DefaultPollEvery))
			rounds := int(time.Minute/DefaultPollEvery) + 1
			require.LessOrEqual(t, watched["ecs:DescribeServices"], (waiting/describeAtOnce+1)*rounds, "at most one call for ten per interval")
			require.LessOrEqual(t, all, int(time.Minute/time.Second)*DefaultReadsPerSecond+burstReads+burstReads, "the rate is kept")
		})
	}
}

func total(calls map[string]int) int {
	n := 0
	for _, count := range calls {
		n += count
	}
	return n
}

// hurry is how many times as fast as usual time goes.
const hurry = 20

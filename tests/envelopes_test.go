package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"

	"bellhop"
	"bellhop/activities"
	"bellhop/bridge"
)

// keeper is a target that keeps what it is sent.
type keeper struct{ sent bridge.Message }

func (*keeper) Check(bellhop.Callback) error { return nil }

func (k *keeper) Deliver(_ context.Context, _ json.RawMessage, m bridge.Message) bridge.Result {
	k.sent = m
	return bridge.Result{Verdict: bridge.Acknowledged}
}

// A delivery may be retried for weeks, over any number of upgrades: what an older version has scheduled is delivered by
// this one as it was meant, to the byte.
func TestEnvelopesOfOlderVersionsAreDelivered(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(histories, "*", "*.json"))
	require.NoError(t, err)
	delivered := map[string]int{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		history, err := client.HistoryFromJSON(bytes.NewReader(text), client.HistoryJSONOptions{})
		require.NoError(t, err)
		for _, event := range history.Events {
			scheduled := event.GetActivityTaskScheduledEventAttributes()
			if event.EventType != enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED || scheduled.GetActivityType().GetName() != "Deliver" {
				continue
			}
			// As JSON: what is read by today's types would be today's in any case.
			var members struct {
				Callback struct{ Target string }
				Outcome  json.RawMessage
				State    bellhop.State
			}
			require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(scheduled.GetInput(), &members))
			env := new(testsuite.WorkflowTestSuite).NewTestActivityEnvironment()
			target := &keeper{}
			acts := &activities.Activities{Targets: map[string]bridge.Target{members.Callback.Target: target}}
			env.RegisterActivity(acts)
			var delivery activities.Delivery
			require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(scheduled.GetInput(), &delivery))
			answer, err := env.ExecuteActivity(acts.Deliver, delivery)
			require.NoError(t, err, file)
			var receipt bellhop.Receipt
			require.NoError(t, answer.Get(&receipt))
			var outcome bellhop.Outcome
			require.NoError(t, json.Unmarshal(members.Outcome, &outcome))
			require.Equal(t, bellhop.ReceiptAcknowledged, receipt.State, file)
			require.Equal(t, string(members.Outcome), string(target.sent.Body), file)
			require.Equal(t, outcome.CallbackID, target.sent.ID, file)
			require.Equal(t, members.State, target.sent.State, file)
			require.Equal(t, outcome.Event, target.sent.Event, file)
			delivered[filepath.Base(filepath.Dir(file))]++
		}
	}
	for _, version := range []string{"1", "2", latest} {
		require.NotZero(t, delivered[version], "no delivery of version %s was found", version)
	}
}

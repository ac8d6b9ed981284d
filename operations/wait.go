package operations

import (
	"context"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"

	"bellhop"
	"bellhop/encryption"
	"bellhop/workflows"
)

// Wait waits until an operation has reached its last state and tells how it stands then; it does not wait for its
// callbacks. It ends early with ctx. It follows the history of the operation's workflow by Temporal's own long poll:
// however many wait, no worker is asked anything until there is an end to be told.
func (c *Client) Wait(ctx context.Context, id string) (bellhop.Report, error) {
	if _, err := c.describe(ctx, id); err != nil {
		return bellhop.Report{}, err
	}
	for { // one run after the other, should the workflow be reset
		events := c.temporal.GetWorkflowHistory(ctx, id, "", true, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			event, err := events.Next()
			if err != nil {
				return bellhop.Report{}, notFound(err)
			}
			if !concludes(event, c.in(id)) {
				continue
			}
			if report, err := c.Status(ctx, id); err != nil || report.State.Terminal() {
				return report, err
			}
		}
		if report, err := c.Status(ctx, id); err != nil || report.State.Terminal() {
			return report, err
		}
	}
}

// concludes says of an event in an operation's history that the last state has been reached although the workflow goes
// on, because its callers are still being rung.
func concludes(event *historypb.HistoryEvent, converters encryption.Converters) bool {
	switch event.GetEventType() {
	case enumspb.EVENT_TYPE_TIMER_STARTED:
		// Begun together with the deliveries of the last state, also where none can begin before another has ended.
		var summary string
		err := converters.Data().FromPayload(event.GetUserMetadata().GetSummary(), &summary)
		return err == nil && summary == workflows.SummaryPublish
	case enumspb.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES:
		// The same, of a workflow from before there was that timer.
		attributes := event.GetUpsertWorkflowSearchAttributesEventAttributes().GetSearchAttributes()
		return bellhop.State(keyword(attributes, workflows.State)).Terminal()
	}
	return false
}

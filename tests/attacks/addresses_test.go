package attacks

import (
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/client"

	"bellhop"
)

// forge is how the rival reaches for an activity of the victim's: it answers what the rival was told.
type forge func(h *harness, workflowID string) string

// toActivity addresses an activity by an id that anybody can guess.
func toActivity(id, more string) forge {
	return func(h *harness, workflowID string) string {
		return h.strike(`{}`, callback("temporal", fmt.Sprintf(`{"workflow_id": %q, "activity_id": %q}`, workflowID, id), more))
	}
}

// toActivityOfRun adds the run's id.
func toActivityOfRun(id string) forge {
	return func(h *harness, workflowID string) string {
		return h.strike(`{}`, callback("temporal", fmt.Sprintf(`{"workflow_id": %q, "run_id": %q, "activity_id": %q}`, workflowID, h.run(workflowID), id), ""))
	}
}

// toLeakedActivity addresses an activity by its true id, as if it had leaked.
func toLeakedActivity(activityType, script, more string) forge {
	return func(h *harness, workflowID string) string {
		id := h.pending(workflowID, activityType).GetActivityId()
		return h.strike(script, callback("temporal", fmt.Sprintf(`{"workflow_id": %q, "activity_id": %q}`, workflowID, id), more))
	}
}

// failing has the rival's operation fail, which fails the activity that it addresses.
const failing = `{"fail": {"code": "INVALID_SPEC", "at": "ask"}}`

// bruteForce tries many ids, 16 an operation.
func bruteForce(ids []string) forge {
	return func(h *harness, workflowID string) string {
		told := ""
		for len(ids) > 0 {
			n := min(16, len(ids))
			var callbacks []string
			for _, id := range ids[:n] {
				callbacks = append(callbacks, callback("temporal", fmt.Sprintf(`{"workflow_id": %q, "activity_id": %q}`, workflowID, id), ""))
			}
			told = h.strike(`{}`, callbacks...)
			ids = ids[n:]
		}
		return told
	}
}

func numbers(from, to int) []string {
	var ids []string
	for i := from; i <= to; i++ {
		ids = append(ids, fmt.Sprint(i))
	}
	return ids
}

// losesCallback has a callback of the victim wait for its receiver, and tries to settle it meanwhile.
func losesCallback(hang time.Duration, try forge) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		k := h.hook(hang)
		id := h.begin(`{}`, fmt.Sprintf(`"callbacks": [{"target": %q}]`, k.target))
		h.until("the victim's callback is being tried", func() bool { return k.tried() > 0 })
		told := try(h, id)
		return h.lost(k, id, told)
	}
}

// lost says whether the one callback of an operation of the victim is lost or lied about, though its receiver is there again.
func (h *harness) lost(k *hook, id, told string) (bool, string) {
	h.Helper()
	var receipt bellhop.Receipt
	if h.within(notice, func() bool { receipt = h.status(id).Callbacks[0]; return receipt.State.Settled() }) {
		return true, fmt.Sprintf("the victim's callback is %s (%s), and nothing arrived", receipt.State, receipt.LastError)
	}
	k.unlock()
	if !h.within(soon/2, func() bool {
		h.hasten(h.worker, id)
		return k.arrived(id)
	}) {
		return true, "the victim's callback never arrived: " + h.as(victim, "GET", "/v1/operations/"+id, "").String()
	}
	return false, "the callback arrived; the rival was told: " + told
}

// spoilsAsk has the victim's provider take its time, and tries to answer in its stead.
func spoilsAsk(try forge) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		id := h.begin(`{"ask_takes": "8s", "ready_after": "10s"}`, "")
		h.pending(id, "Provision")
		told := try(h, id)
		status := h.ended(id)
		switch {
		case status.State != bellhop.Succeeded:
			return true, fmt.Sprintf("the victim's operation is %s: %v", status.State, status.Error)
		case strings.Contains(fmt.Sprint(status.Endpoints), "rival"):
			return true, fmt.Sprintf("the victim's endpoints are the rival's: %v", status.Endpoints)
		}
		return false, "it succeeded with endpoints of its own; the rival was told: " + told
	}
}

// abandons has the victim's caller wait with heartbeats, and tries to have bellhop believe that it waits no longer.
func abandons(try forge) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		caller := h.caller("waits")
		h.pending(caller, "pend")
		id := h.begin(`{"ready_after": "1h"}`, fmt.Sprintf(`"on_cancel": "remove", "callbacks": [{"target": "temporal",
			"address": {"workflow_id": %q, "activity_id": "wait"}, "heartbeat": "1s", "on_abandoned": "cancel"}]`, caller))
		h.running(id)
		h.pending(id, "Heartbeat")
		told := try(h, id)
		if h.within(notice, func() bool { return h.status(id).State.Terminal() || h.status(id).Callbacks[0].State.Settled() }) {
			status := h.status(id)
			return true, fmt.Sprintf("the victim's operation is %s, its compute %s: %v", status.State, status.ResourceIDs, status.Error)
		}
		return false, "the victim's operation runs on; the rival was told: " + told
	}
}

// endsWatch tries to end the watch of a provider, which is everybody's.
func endsWatch(try forge) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		id := fmt.Sprintf("bellhop-watch/watched-%d", h.watches.Add(1)-1)
		before, run := h.pending(id, "Watch").GetAttempt(), h.run(id)
		told := try(h, id)
		changed := func() bool {
			infos, info := h.describe(id)
			return info.GetExecution().GetRunId() != run || len(infos) != 1 || infos[0].GetAttempt() != before
		}
		if h.within(notice, changed) {
			return true, "the watch of everybody's operations was ended"
		}
		if n := h.signals(id); n > 0 {
			return true, fmt.Sprintf("the watch has %d signals of the rival's", n)
		}
		return false, "the watch goes on; the rival was told: " + told
	}
}

// signalled tries to put signals into the history of the victim's operation.
func signalled(address func(h *harness, id string) string, target string) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		id := h.begin(`{"ready_after": "1h"}`, "")
		h.running(id)
		told := h.strike(`{}`, callback(target, address(h, id), `"states": ["running", "succeeded"]`))
		if n := h.signals(id); n > 0 {
			return true, fmt.Sprintf("the victim's history has %d signals of the rival's; 10,000 end it", n)
		}
		return false, "its history has none; the rival was told: " + told
	}
}

func toWorkflow(more string) func(*harness, string) string {
	return func(_ *harness, id string) string { return fmt.Sprintf(`{"workflow_id": %q%s}`, id, more) }
}

func addressAttacks() []attack {
	lost := "a callback is lost, and nobody sees it"
	return []attack{
		{name: "deliver-guessed", finding: "C1", reason: lost, run: losesCallback(0, toActivity("deliver-0-succeeded", ""))},
		{name: "deliver-guessed-run", finding: "C1", reason: lost, run: losesCallback(0, toActivityOfRun("deliver-0-succeeded"))},
		{name: "deliver-guessed-as-result", finding: "C1", reason: lost, run: losesCallback(0, toActivity("deliver-0-succeeded", `"failures": "result"`))},
		{name: "deliver-leaked", finding: "C1", reason: lost, run: losesCallback(0, toLeakedActivity("Deliver", `{}`, ""))},
		{name: "deliver-leaked-during-attempt", finding: "C1", reason: lost, run: losesCallback(8*time.Second, toLeakedActivity("Deliver", `{}`, ""))},
		{name: "deliver-failed-by-id", finding: "C1", reason: lost, run: losesCallback(8*time.Second, toLeakedActivity("Deliver", failing, ""))},
		{name: "deliver-failed-as-result", finding: "C1", reason: lost, run: losesCallback(8*time.Second, toLeakedActivity("Deliver", failing, `"failures": "result"`))},
		{name: "deliver-every-state", finding: "C1", reason: lost, run: losesCallback(0, bruteForce([]string{
			"deliver-0-succeeded", "deliver-1-succeeded", "deliver-0-failed", "deliver-0-running", "deliver-0-cancelled", "Deliver", "deliver", "deliver-0",
			"deliver-00-succeeded", "DELIVER-0-SUCCEEDED", "deliver-0-succeeded ", "0-succeeded",
		}))},
		{name: "deliver-brute-force", finding: "C1", reason: lost, run: losesCallback(0, bruteForce(numbers(1, 48)))},
		{name: "deliver-heartbeat", finding: "C1", reason: "what earlier attempts left is overwritten", run: overwritesMemory},
		{name: "redelivery-guessed", finding: "C1", reason: lost, run: losesRedelivery("deliver-0-succeeded", "")},
		{name: "redelivery-leaked", finding: "C1", reason: lost, run: losesRedelivery("", "")},
		{name: "redelivery-signalled", finding: "S1", reason: "a history of bellhop's grows", run: losesRedelivery("", "signal")},

		{name: "ask-guessed", finding: "C1", reason: "an operation fails, or has another's endpoints", run: spoilsAsk(toActivity("5", ""))},
		{name: "ask-guessed-run", finding: "C1", reason: "an operation fails, or has another's endpoints", run: spoilsAsk(toActivityOfRun("5"))},
		{name: "ask-brute-force", finding: "C1", reason: "an operation fails, or has another's endpoints", run: spoilsAsk(bruteForce(numbers(1, 32)))},
		{name: "ask-leaked", finding: "C1", reason: "an operation fails, or has another's endpoints", run: spoilsAsk(toLeakedActivity("Provision", `{}`, ""))},
		{name: "ask-failed-by-id", finding: "C1", reason: "an operation fails", run: spoilsAsk(toLeakedActivity("Provision", failing, ""))},
		{name: "ask-kept-alive", finding: "C1", reason: "an ask whose worker died is not tried again", run: keepsAlive("Provision", `{"ask_takes": "20s"}`)},
		{name: "ask-in-another-namespace", finding: "C1", reason: "another bellhop's operation fails", run: spoilsElsewhere},

		{name: "heartbeat-guessed", finding: "C1", reason: "an operation is cancelled and its compute removed", run: abandons(toActivity("heartbeat-0", ""))},
		{name: "heartbeat-guessed-run", finding: "C1", reason: "an operation is cancelled and its compute removed", run: abandons(toActivityOfRun("heartbeat-0"))},
		{name: "heartbeat-leaked", finding: "C1", reason: "an operation is cancelled and its compute removed", run: abandons(toLeakedActivity("Heartbeat", `{}`, ""))},
		{name: "heartbeat-failed-by-id", finding: "C1", reason: "an operation is cancelled and its compute removed", run: abandons(toLeakedActivity("Heartbeat", failing, ""))},
		{name: "heartbeat-brute-force", finding: "C1", reason: "an operation is cancelled and its compute removed", run: abandons(bruteForce([]string{
			"heartbeat-0", "heartbeat-1", "Heartbeat", "heartbeat", "beat-0", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15",
		}))},

		{name: "watch-guessed", finding: "C1", reason: "nobody's operation is told what was observed", run: endsWatch(toActivity("5", ""))},
		{name: "watch-leaked", finding: "C1", reason: "nobody's operation is told what was observed", run: endsWatch(toLeakedActivity("Watch", `{}`, ""))},
		{name: "watch-failed-by-id", finding: "C1", reason: "nobody's operation is told what was observed", run: endsWatch(toLeakedActivity("Watch", failing, ""))},
		{name: "watch-signalled", finding: "S1", reason: "a history of bellhop's grows until the server ends it", run: endsWatch(func(h *harness, id string) string {
			return h.strike(`{}`, callback("temporal", fmt.Sprintf(`{"workflow_id": %q}`, id), ""))
		})},

		{name: "signal-default", finding: "S1", reason: "the victim's history grows until the server ends it", run: signalled(toWorkflow(""), "temporal")},
		{name: "signal-observed", finding: "C1", reason: "what is observed is the rival's to say", run: signalled(toWorkflow(`, "signal": "observed"`), "temporal")},
		{name: "signal-made-up", finding: "S1", reason: "the victim's history grows", run: signalled(toWorkflow(`, "signal": "x"`), "temporal")},
		{name: "signal-by-run", finding: "S1", reason: "the victim's history grows", run: signalled(func(h *harness, id string) string {
			return fmt.Sprintf(`{"workflow_id": %q, "run_id": %q}`, id, h.run(id))
		}, "temporal")},
		{name: "signal-flood", finding: "S1", reason: "the victim's history grows until the server ends it", run: floods},
		{name: "signal-own-operation", finding: "C1", reason: "an operation of bellhop's is reached", run: signalsItself},
		{name: "address-tells-existence", finding: "M5", reason: "a receipt tells that another tenant's operation exists", run: addressTells},
	}
}

// overwritesMemory has the rival send heartbeats to an attempt of the victim's delivery that is under way.
func overwritesMemory(h *harness) (bool, string) {
	k := h.hook(8 * time.Second)
	id := h.begin(`{}`, fmt.Sprintf(`"callbacks": [{"target": %q}]`, k.target))
	h.until("the victim's callback is being tried", func() bool { return k.tried() > 0 })
	return h.beats(id, h.pending(id, "Deliver").GetActivityId())
}

// keepsAlive has the rival send heartbeats to an activity of the victim's operation.
func keepsAlive(activityType, script string) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		id := h.begin(script, "")
		return h.beats(id, h.pending(id, activityType).GetActivityId())
	}
}

// beats has the rival's operation send heartbeats to an activity and says whether they were taken: the rival's operation
// is cancelled when they are not.
func (h *harness) beats(workflowID, activityID string) (bool, string) {
	h.Helper()
	id := h.id("rival")
	got := h.as(rival, "POST", "/v1/operations", order(id, "rival", `{"ready_after": "1h"}`, `"callbacks": [`+callback("temporal",
		fmt.Sprintf(`{"workflow_id": %q, "activity_id": %q}`, workflowID, activityID), `"heartbeat": "1s", "on_abandoned": "cancel"`)+`]`))
	if got.code/100 != 2 {
		return false, "refused: " + got.String()
	}
	pattern := `bellhop_callback_heartbeats_total\{[^}]*target="temporal"[^}]*verdict="acknowledged"[^}]*\}`
	var status bellhop.Status
	if h.within(5*time.Second, func() bool { status = h.status(id); return status.State.Terminal() }) {
		return false, fmt.Sprintf("the rival's operation is %s: %v", status.State, status.Error)
	}
	h.as(rival, "POST", "/v1/operations/"+id+"/cancel", "")
	return true, fmt.Sprintf("bellhop's own activity takes the rival's heartbeats (%v acknowledged so far)", value(h.metrics(h.worker), pattern))
}

// losesRedelivery has a callback of the victim given up and then redelivered, and tries to settle the redelivery.
func losesRedelivery(activityID, how string) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		k := h.hook(0)
		id := h.begin(`{}`, fmt.Sprintf(`"callbacks": [{"target": %q, "deadline": "15s"}]`, k.target))
		h.until("the callback was given up", func() bool {
			status := h.status(id)
			return len(status.Callbacks) == 1 && status.Callbacks[0].State == bellhop.ReceiptUndeliverable
		})
		again := ""
		h.until("it is redelivered", func() bool {
			h.hasten(h.worker, id)
			answer, err := h.client.ListWorkflow(h.ctx, listing(`WorkflowType = 'RedeliverCallback' AND ExecutionStatus = 'Running'`))
			if err != nil {
				return false
			}
			for _, info := range answer.GetExecutions() {
				if strings.Contains(info.GetExecution().GetWorkflowId(), id) {
					again = info.GetExecution().GetWorkflowId()
				}
			}
			return again != ""
		})
		var told string
		if how == "signal" {
			told = h.strike(`{}`, callback("temporal", fmt.Sprintf(`{"workflow_id": %q}`, again), ""))
			if n := h.signals(again); n > 0 {
				return true, fmt.Sprintf("the redelivery has %d signals of the rival's", n)
			}
		} else {
			if activityID == "" {
				activityID = h.pending(again, "Deliver").GetActivityId()
			}
			told = toActivity(activityID, "")(h, again)
		}
		k.unlock()
		if !h.within(soon/2, func() bool {
			if k.arrived(id) {
				return true
			}
			receipt := h.status(id).Callbacks[0]
			return receipt.State.Settled() && receipt.State != bellhop.ReceiptUndeliverable
		}) || !k.arrived(id) {
			return true, fmt.Sprintf("the redelivery did not arrive: %+v", h.status(id).Callbacks[0])
		}
		return false, "the redelivery arrived; the rival was told: " + told
	}
}

// floods sends as many signals as 2 operations with 16 callbacks of 2 states can.
func floods(h *harness) (bool, string) {
	id := h.begin(`{"ready_after": "1h"}`, "")
	h.running(id)
	for i := range 2 {
		var callbacks []string
		for j := range 16 {
			callbacks = append(callbacks, callback("temporal", fmt.Sprintf(`{"workflow_id": %q, "signal": "s-%d-%d"}`, id, i, j), `"states": ["running", "succeeded"]`))
		}
		h.strike(`{}`, callbacks...)
	}
	n := h.signals(id)
	return n > 0, fmt.Sprintf("%d signals of 64 are in the victim's history", n)
}

// signalsItself has the rival's operation call itself back.
func signalsItself(h *harness) (bool, string) {
	id := h.id("rival")
	got := h.as(rival, "POST", "/v1/operations", order(id, "rival", `{"ready_after": "2s"}`,
		`"callbacks": [`+callback("temporal", fmt.Sprintf(`{"workflow_id": %q}`, id), `"states": ["running", "succeeded"]`)+`]`))
	if got.code/100 != 2 {
		return false, got.String()
	}
	h.ended(id)
	h.within(notice, func() bool { return h.signals(id) > 0 })
	n := h.signals(id)
	return n > 0, fmt.Sprintf("%d signals of its own are in its history", n)
}

// spoilsElsewhere reaches for the operation of a bellhop in another namespace.
func spoilsElsewhere(h *harness) (bool, string) {
	h.elsewhere()
	there := h.dial(elsewhere)
	id := h.id("victim")
	_, err := there.ExecuteWorkflow(h.ctx, client.StartWorkflowOptions{ID: id, TaskQueue: "bellhop"}, "ProvisionCompute",
		rawOrder(order(id, "victim", `{"ask_takes": "8s"}`, "")))
	h.must(err)
	activityID := ""
	h.until("its ask is under way", func() bool {
		found, err := there.DescribeWorkflowExecution(h.ctx, id, "")
		h.must(err)
		for _, info := range found.GetPendingActivities() {
			activityID = info.GetActivityId()
		}
		return activityID != ""
	})
	told := h.strike(`{}`, callback("elsewhere", fmt.Sprintf(`{"workflow_id": %q, "activity_id": %q}`, id, activityID), ""))
	var outcome bellhop.Outcome
	if err := there.GetWorkflow(h.ctx, id, "").Get(h.ctx, &outcome); err != nil {
		return true, "the other bellhop's operation failed: " + err.Error()
	}
	return strings.Contains(fmt.Sprint(outcome.Endpoints), "rival"), fmt.Sprintf("its endpoints are %v; the rival was told: %s", outcome.Endpoints, told)
}

// addressTells compares what the rival is told of an operation that exists with what of one that does not.
func addressTells(h *harness) (bool, string) {
	id := h.begin(`{"ready_after": "1h"}`, "")
	h.running(id)
	none := h.id("victim")
	told := func(id string) string {
		return strings.ReplaceAll(h.strike(`{}`, callback("temporal", fmt.Sprintf(`{"workflow_id": %q}`, id), "")), id, "ID")
	}
	one, other := told(id), told(none)
	return one != other, fmt.Sprintf("of one that exists: %q; of one that does not: %q", one, other)
}

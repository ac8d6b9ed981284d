package receive_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"bellhop"
	"bellhop/bridge/temporal/receive"
)

// bench is a bellhop that does what the test says, and the calling workflow's environment, in which time is skipped.
type bench struct {
	*testsuite.TestWorkflowEnvironment
	t *testing.T
	// asked are the inputs of the operations that were started, polled the ids that were polled.
	asked  []string
	polled []string
	// status answers polls: the n-th poll of an id, from 0 on. Default: there is no such operation.
	status func(id string, n int) (bellhop.Status, error)
	// cancelled are the ids of the operations that were cancelled, logged is what the workflow logged from warn on.
	cancelled []string
	logged    bytes.Buffer
	// end says how an operation's workflow closes, and when. Default: not within the test.
	end func(id string) (after time.Duration, outcome bellhop.Outcome, err error)
}

const callerID = "order-42"

func setup(t *testing.T) *bench {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	b := &bench{t: t}
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.NewTextHandler(&b.logged, &slog.HandlerOptions{Level: slog.LevelWarn}))))
	b.TestWorkflowEnvironment = suite.NewTestWorkflowEnvironment()
	b.SetDetachedChildWait(false)
	b.SetWorkflowRunTimeout(24 * time.Hour) // so that who awaits for ever fails
	b.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: callerID, TaskQueue: "orders"})
	b.SetOnChildWorkflowCompletedListener(func(info *workflow.Info, _ converter.EncodedValue, err error) {
		if temporal.IsCanceledError(err) {
			b.cancelled = append(b.cancelled, info.WorkflowExecution.ID)
		}
	})
	for _, name := range []string{"ProvisionCompute", "UpdateCompute", "DeleteCompute"} {
		b.RegisterWorkflowWithOptions(b.operation, workflow.RegisterOptions{Name: name})
	}
	b.RegisterActivityWithOptions(func(id string) (bellhop.Status, error) {
		before := 0
		for _, other := range b.polled {
			if other == id {
				before++
			}
		}
		b.polled = append(b.polled, id)
		if b.status == nil {
			return bellhop.Status{}, notFound()
		}
		return b.status(id, before)
	}, activity.RegisterOptions{Name: "bellhop.Status"})
	return b
}

func notFound() error {
	return temporal.NewNonRetryableApplicationError("no such operation", "OPERATION_NOT_FOUND", nil)
}

// operation stands for bellhop's workflows.
func (b *bench) operation(ctx workflow.Context, input json.RawMessage) (bellhop.Outcome, error) {
	b.asked = append(b.asked, string(input))
	id := workflow.GetInfo(ctx).WorkflowExecution.ID
	after, outcome, err := 30*24*time.Hour, bellhop.Outcome{}, error(nil)
	if b.end != nil {
		after, outcome, err = b.end(id)
	}
	if err := workflow.Sleep(ctx, after); err != nil {
		return bellhop.Outcome{}, err
	}
	return outcome, err
}

// ring calls the workflow back after a while.
func (b *bench) ring(after time.Duration, signal string, body any) {
	b.RegisterDelayedCallback(func() { b.SignalWorkflow(signal, body) }, after)
}

func (b *bench) run(f any, args ...any) error {
	b.t.Helper()
	b.ExecuteWorkflow(f, args...)
	if !b.IsWorkflowCompleted() {
		b.t.Fatal("the workflow has not ended")
	}
	return b.GetWorkflowError()
}

// must is run for a workflow that reports its own faults.
func (b *bench) must(f any, args ...any) {
	b.t.Helper()
	if err := b.run(f, args...); err != nil {
		b.t.Fatal(err)
	}
}

func outcome(id string, state bellhop.State) bellhop.Outcome {
	o := bellhop.Outcome{
		SchemaVersion: 1, CallbackID: bellhop.CallbackID(id, state), Event: bellhop.EventFor(bellhop.Provision, state),
		OperationID: id, OperationType: bellhop.Provision, TenantID: "acme", Resource: "web", Provider: "docker", State: state,
		ResourceIDs: bellhop.ResourceIDs{ContainerIDs: []string{"c-" + id}},
	}
	if state == bellhop.Failed {
		o.Error = bellhop.Fail(bellhop.CodeCapacityUnavailable, "no room")
	}
	return o
}

func statusOf(o bellhop.Outcome) bellhop.Status { return bellhop.Status{Outcome: o} }

func provision(id string) bellhop.Operation {
	return bellhop.Operation{
		ID: id, Verb: bellhop.Provision, TenantID: "acme", Resource: "web", Provider: "docker",
		Spec: bellhop.Spec{Image: "nginx:1.27"},
	}
}

// elapsed tells how long f took by the workflow's clock.
func elapsed(ctx workflow.Context, f func()) time.Duration {
	began := workflow.Now(ctx)
	f()
	return workflow.Now(ctx).Sub(began)
}

// expect fails the workflow, and with it the test, when two values differ.
func expect(what string, got, want any) error {
	if !reflect.DeepEqual(got, want) {
		return temporal.NewNonRetryableApplicationError(fmt.Sprintf("%s is %v, want %v", what, got, want), "test", nil)
	}
	return nil
}

func TestStartAndAwait(t *testing.T) {
	b := setup(t)
	b.ring(5*time.Second, "compute-provisioned", outcome("op-1", bellhop.Succeeded))
	b.must(func(ctx workflow.Context) error {
		inbox := receive.New(ctx, receive.Options{})
		op := provision("op-1")
		op.Resource = ""
		if err := inbox.Start(ctx, op); err != nil {
			return err
		}
		var got bellhop.Outcome
		var err error
		took := elapsed(ctx, func() { got, err = inbox.Await(ctx, "op-1", time.Minute) })
		return errors.Join(err,
			expect("the outcome", got, outcome("op-1", bellhop.Succeeded)),
			expect("the time it took", took, 5*time.Second))
	})
	if len(b.asked) != 1 || len(b.polled) != 0 {
		t.Fatalf("started %d operations and polled %v, want one and none", len(b.asked), b.polled)
	}

	// What was asked for is an operation that bellhop takes, with all defaults, and calls this workflow back.
	op, err := bellhop.ParseOperation("op-1", bellhop.Provision, time.Now(), []byte(b.asked[0]))
	if err != nil {
		t.Fatalf("%s\n%s", err, b.asked[0])
	}
	if op.Resource != "default" || op.Spec.Replicas != 1 || time.Duration(op.Timeout) != 30*time.Minute {
		t.Errorf("the defaults are not filled in: %s", b.asked[0])
	}
	if len(op.Callbacks) != 1 || op.Callbacks[0].Target != "temporal" || string(op.Callbacks[0].Address) != `{"workflow_id":"order-42"}` {
		t.Errorf("the callback is %s, want one to order-42 and to no run of it", op.Callbacks)
	}
}

func TestEarlyArrivals(t *testing.T) {
	b := setup(t)
	b.ring(time.Second, "compute-provisioned", outcome("op-2", bellhop.Succeeded))
	b.ring(2*time.Second, "compute-failed", outcome("op-1", bellhop.Failed))
	b.must(func(ctx workflow.Context) error {
		inbox := receive.New(ctx, receive.Options{})
		if err := workflow.Sleep(ctx, time.Minute); err != nil {
			return err
		}
		var first, second error
		took := elapsed(ctx, func() {
			_, first = inbox.Await(ctx, "op-1", time.Minute)
			_, second = inbox.Await(ctx, "op-2", time.Minute)
		})
		var failed *receive.Failed
		return errors.Join(second,
			expect("op-1 failed", errors.As(first, &failed), true),
			expect("the time it took", took, time.Duration(0)),
			expect("what is left", len(inbox.Drain()), 0))
	})
}

func TestDuplicates(t *testing.T) {
	b := setup(t)
	for i := range 3 {
		b.ring(time.Duration(i)*time.Second, "compute-failed", outcome("op-1", bellhop.Failed))
	}
	// The same callback in other words, as no bellhop would send it: the first one stands.
	other := outcome("op-1", bellhop.Failed)
	other.Error = bellhop.Fail(bellhop.CodeInternal, "other")
	b.ring(4*time.Second, "compute-failed", other)
	b.must(func(ctx workflow.Context) error {
		inbox := receive.New(ctx, receive.Options{})
		_, first := inbox.Await(ctx, "op-1", time.Minute)
		if err := workflow.Sleep(ctx, time.Minute); err != nil {
			return err
		}
		_, again := inbox.Await(ctx, "op-1", time.Minute)
		return errors.Join(
			expect("the second answer", again.Error(), first.Error()),
			expect("what is left", len(inbox.Drain()), 0),
			expect("what is carried over", inbox.Snapshot(), receive.Snapshot{Answered: []string{"op-1/failed"}}))
	})
}

func TestSeveralAtOnce(t *testing.T) {
	b := setup(t)
	b.ring(3*time.Second, "compute-provisioned", outcome("op-1", bellhop.Succeeded))
	b.ring(2*time.Second, "compute-provisioned", outcome("op-2", bellhop.Succeeded))
	b.ring(1*time.Second, "compute-provisioned", outcome("op-3", bellhop.Succeeded))
	b.must(func(ctx workflow.Context) error {
		inbox := receive.New(ctx, receive.Options{})
		var ended []string
		done := workflow.NewWaitGroup(ctx)
		for _, id := range []string{"op-1", "op-2", "op-3"} {
			if err := inbox.Start(ctx, provision(id)); err != nil {
				return err
			}
			done.Add(1)
			workflow.Go(ctx, func(ctx workflow.Context) {
				defer done.Done()
				if got, err := inbox.Await(ctx, id, time.Minute); err == nil {
					ended = append(ended, got.OperationID)
				}
			})
		}
		done.Wait(ctx)
		return expect("the order", ended, []string{"op-3", "op-2", "op-1"})
	})
	if len(b.polled) != 0 {
		t.Errorf("polled %v, want none", b.polled)
	}
}

func TestFailure(t *testing.T) {
	b := setup(t)
	b.ring(time.Second, "compute-failed", outcome("op-1", bellhop.Failed))
	b.ring(time.Second, "compute-cancelled", outcome("op-2", bellhop.Cancelled)) // it does not say why
	b.must(func(ctx workflow.Context) error {
		inbox := receive.New(ctx, receive.Options{})
		_, err := inbox.Await(ctx, "op-1", time.Minute)
		var failed *receive.Failed
		if !errors.As(err, &failed) {
			return err
		}
		var failure *bellhop.Failure
		_, cancelled := inbox.Await(ctx, "op-2", time.Minute)
		var failed2 *receive.Failed
		return errors.Join(
			expect("the code", failed.Outcome.Error.Code, bellhop.CodeCapacityUnavailable),
			expect("retryable", failed.Outcome.Error.Retryable, true),
			expect("what exists", failed.Outcome.ResourceIDs.ContainerIDs, []string{"c-op-1"}),
			expect("the failure within", errors.As(err, &failure), true),
			expect("the text", err.Error(), "provision acme/web, operation op-1: CAPACITY_UNAVAILABLE: no room"),
			expect("cancelled", errors.As(cancelled, &failed2) && failed2.Outcome.State == bellhop.Cancelled, true),
			expect("its code", failed2.Outcome.Error.Code, bellhop.CodeInternal))
	})
}

func TestPollWhenNothingComes(t *testing.T) {
	running := statusOf(outcome("op-1", bellhop.Running))
	pending := statusOf(bellhop.Outcome{OperationID: "op-1", State: bellhop.Pending})
	for _, test := range []struct {
		name   string
		status func(id string, n int) (bellhop.Status, error)
		// callback comes after that long, if at all.
		callback time.Duration
		took     time.Duration
		polls    int
		err      error
	}{
		{
			name:   "it has ended",
			status: func(string, int) (bellhop.Status, error) { return statusOf(outcome("op-1", bellhop.Succeeded)), nil },
			took:   10 * time.Second, polls: 1,
		},
		{
			name: "it goes on, and ends between two polls",
			status: func(_ string, n int) (bellhop.Status, error) {
				return []bellhop.Status{pending, running, statusOf(outcome("op-1", bellhop.Succeeded))}[n], nil
			},
			took: 10*time.Second + 2*time.Minute, polls: 3,
		},
		{
			name:     "it goes on, and the callback comes late",
			status:   func(string, int) (bellhop.Status, error) { return running, nil },
			callback: 90 * time.Second, took: 90 * time.Second, polls: 2,
		},
		{
			name: "there is none",
			took: 10 * time.Second, polls: 1, err: receive.ErrNotFound,
		},
		{
			name: "bellhop is not to be reached for a while",
			status: func(_ string, n int) (bellhop.Status, error) {
				if n < 3 {
					return bellhop.Status{}, temporal.NewNonRetryableApplicationError("out of order", "OTHER", nil)
				}
				return statusOf(outcome("op-1", bellhop.Succeeded)), nil
			},
			took: 10*time.Second + 3*time.Minute, polls: 4,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := setup(t)
			b.status = test.status
			if test.callback > 0 {
				b.ring(test.callback, "compute-provisioned", outcome("op-1", bellhop.Succeeded))
			}
			b.must(func(ctx workflow.Context) error {
				inbox := receive.New(ctx, receive.Options{})
				var got bellhop.Outcome
				var err error
				took := elapsed(ctx, func() { got, err = inbox.Await(ctx, "op-1", 10*time.Second) })
				if test.err != nil {
					return errors.Join(expect("the error", errors.Is(err, test.err), true), expect("the time it took", took, test.took))
				}
				return errors.Join(err, expect("the outcome", got, outcome("op-1", bellhop.Succeeded)), expect("the time it took", took, test.took))
			})
			if len(b.polled) != test.polls {
				t.Errorf("polled %d times, want %d", len(b.polled), test.polls)
			}
		})
	}
}

func TestPollAtOnce(t *testing.T) {
	b := setup(t)
	b.status = func(id string, _ int) (bellhop.Status, error) { return statusOf(outcome(id, bellhop.Failed)), nil }
	b.must(func(ctx workflow.Context) error {
		inbox := receive.New(ctx, receive.Options{})
		var err error
		took := elapsed(ctx, func() { _, err = inbox.Await(ctx, "op-1", 0) })
		var failed *receive.Failed
		return errors.Join(expect("failed", errors.As(err, &failed), true), expect("the time it took", took, time.Duration(0)))
	})
}

func TestAwaitRunning(t *testing.T) {
	b := setup(t)
	b.ring(time.Second, "compute-running", outcome("op-1", bellhop.Running))
	b.ring(time.Hour, "compute-provisioned", outcome("op-1", bellhop.Succeeded))
	b.must(func(ctx workflow.Context) error {
		all := []bellhop.State{bellhop.Running, bellhop.Succeeded, bellhop.Failed, bellhop.Cancelled}
		inbox := receive.New(ctx, receive.Options{States: all})
		if err := inbox.Start(ctx, provision("op-1")); err != nil {
			return err
		}
		running, err := inbox.AwaitRunning(ctx, "op-1", time.Minute)
		if err != nil {
			return err
		}
		done, err := inbox.Await(ctx, "op-1", 2*time.Hour)
		if err != nil {
			return err
		}
		// Whoever asks now is told the end, not what was before it.
		late, err := inbox.AwaitRunning(ctx, "op-1", time.Minute)
		return errors.Join(err,
			expect("first", running.State, bellhop.Running),
			expect("then", done.State, bellhop.Succeeded),
			expect("at last", late.State, bellhop.Succeeded))
	})
	if !strings.Contains(b.asked[0], `"states":["running","succeeded","failed","cancelled"]`) {
		t.Errorf("the callback does not ask for running: %s", b.asked[0])
	}
}

func TestCustomSignal(t *testing.T) {
	b := setup(t)
	b.ring(time.Second, "bellhop", outcome("op-1", bellhop.Succeeded))
	b.must(func(ctx workflow.Context) error {
		inbox := receive.New(ctx, receive.Options{Signal: "bellhop", Target: "orders"})
		if err := inbox.Start(ctx, provision("op-1")); err != nil {
			return err
		}
		_, err := inbox.Await(ctx, "op-1", time.Minute)
		return err
	})
	if !strings.Contains(b.asked[0], `{"target":"orders","address":{"workflow_id":"order-42","signal":"bellhop"}}`) {
		t.Errorf("the callback does not name target and signal: %s", b.asked[0])
	}
}

func TestMalformedSignals(t *testing.T) {
	b := setup(t)
	malformed := []any{
		"text", 42, nil,
		[]byte{0xff, 0x00},
		map[string]any{},
		map[string]any{"operation_id": "op-1"},
		map[string]any{"state": "succeeded"},
		map[string]any{"operation_id": "op-1", "state": "well"},
		map[string]any{"operation_id": []int{1}, "state": "succeeded"},
		map[string]any{"operation_id": "op-1", "state": "pending"},
	}
	for i, body := range malformed {
		b.ring(time.Duration(i)*time.Second, "compute-provisioned", body)
	}
	b.ring(time.Minute, "compute-provisioned", outcome("op-1", bellhop.Succeeded))
	b.must(func(ctx workflow.Context) error {
		inbox := receive.New(ctx, receive.Options{})
		got, err := inbox.Await(ctx, "op-1", time.Hour)
		return errors.Join(err, expect("the outcome", got, outcome("op-1", bellhop.Succeeded)), expect("what is left", len(inbox.Drain()), 0))
	})
	if told := strings.Count(b.logged.String(), "a signal that is no callback was skipped"); told != len(malformed) {
		t.Errorf("%d of %d malformed signals were logged:\n%s", told, len(malformed), &b.logged)
	}
}

func TestCancelledWorkflow(t *testing.T) {
	b := setup(t)
	b.RegisterDelayedCallback(b.CancelWorkflow, 5*time.Second)
	b.must(func(ctx workflow.Context) error {
		inbox := receive.New(ctx, receive.Options{})
		if err := inbox.Start(ctx, provision("op-1")); err != nil {
			return err
		}
		_, err := inbox.Await(ctx, "op-1", time.Minute)
		if err := expect("cancelled", temporal.IsCanceledError(err), true); err != nil {
			return err
		}
		// What is asked for now is not even started.
		err = inbox.Start(ctx, provision("op-2"))
		if err := expect("not started", temporal.IsCanceledError(err), true); err != nil {
			return err
		}
		ctx, _ = workflow.NewDisconnectedContext(ctx)
		if err := workflow.Sleep(ctx, time.Minute); err != nil {
			return err
		}
		if err := expect("what was cancelled too", b.cancelled, []string(nil)); err != nil {
			return err
		}
		if err := inbox.Cancel(ctx, "op-1"); err != nil {
			return err
		}
		return workflow.Sleep(ctx, time.Minute)
	})
	if !slices.Equal(b.cancelled, []string{"op-1"}) {
		t.Errorf("Cancel has cancelled %v, want op-1", b.cancelled)
	}
	if len(b.asked) != 1 {
		t.Errorf("started %d operations, want one", len(b.asked))
	}
}

func TestCancelledWhilePolling(t *testing.T) {
	b := setup(t)
	b.status = func(string, int) (bellhop.Status, error) {
		return bellhop.Status{}, temporal.NewApplicationError("out of order", "OTHER")
	}
	b.RegisterDelayedCallback(b.CancelWorkflow, 12*time.Second)
	b.must(func(ctx workflow.Context) error {
		_, err := receive.New(ctx, receive.Options{}).Await(ctx, "op-1", 10*time.Second)
		return expect("cancelled", temporal.IsCanceledError(err), true)
	})
}

// A callback that arrives while a poll is under way is the answer.
func TestCallbackOvertakesPoll(t *testing.T) {
	b := setup(t)
	b.status = func(string, int) (bellhop.Status, error) {
		return bellhop.Status{}, temporal.NewApplicationError("out of order", "OTHER")
	}
	b.ring(15*time.Second, "compute-provisioned", outcome("op-1", bellhop.Succeeded))
	b.must(func(ctx workflow.Context) error {
		inbox := receive.New(ctx, receive.Options{})
		var err error
		took := elapsed(ctx, func() { _, err = inbox.Await(ctx, "op-1", 10*time.Second) })
		return errors.Join(err, expect("the time it took", took, 15*time.Second))
	})
}

func TestStartTwice(t *testing.T) {
	b := setup(t)
	b.status = func(id string, _ int) (bellhop.Status, error) {
		if id == callerID {
			return bellhop.Status{}, notFound()
		}
		return statusOf(outcome(id, bellhop.Succeeded)), nil
	}
	b.must(func(ctx workflow.Context) error {
		// Somebody else has started op-1; to this workflow that is the same as an earlier run of its own.
		ctx2 := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{WorkflowID: "op-1"})
		if err := workflow.ExecuteChildWorkflow(ctx2, "ProvisionCompute", provision("op-1")).GetChildWorkflowExecution().Get(ctx, nil); err != nil {
			return err
		}
		inbox := receive.New(ctx, receive.Options{})
		var err error
		took := elapsed(ctx, func() {
			if err = inbox.Start(ctx, provision("op-1")); err == nil {
				_, err = inbox.Await(ctx, "op-1", time.Hour)
			}
		})
		if err != nil {
			return err
		}
		other := provision("op-1")
		other.TenantID = "initech"
		if err := inbox.Start(ctx, provision("op-2")); err != nil {
			return err
		}
		other2 := provision("op-2")
		other2.Resource = "db"
		return errors.Join(
			expect("the time it took", took, time.Duration(0)),
			expect("twice in one run", inbox.Start(ctx, provision("op-2")), nil),
			expect("another tenant's", errors.Is(inbox.Start(ctx, other), receive.ErrConflict), true),
			expect("another resource's", errors.Is(inbox.Start(ctx, other2), receive.ErrConflict), true),
			expect("no operation's", errors.Is(inbox.Start(ctx, provision(callerID)), receive.ErrConflict), true))
	})
	if len(b.asked) != 2 {
		t.Errorf("ran %d operations, want 2", len(b.asked))
	}
}

func TestStartRefuses(t *testing.T) {
	b := setup(t)
	b.must(func(ctx workflow.Context) error {
		inbox := receive.New(ctx, receive.Options{})
		return errors.Join(
			expect("without an id", inbox.Start(ctx, bellhop.Operation{Verb: bellhop.Provision}) != nil, true),
			expect("without a verb", inbox.Start(ctx, bellhop.Operation{ID: "op-1"}) != nil, true))
	})
}

// An operation whose callback cannot reach us, say because its target is unknown, is heard of by its workflow's end.
func TestEndWithoutCallback(t *testing.T) {
	for _, test := range []struct {
		name  string
		end   func() (bellhop.Outcome, error)
		state bellhop.State
		polls int
	}{
		{"succeeded", func() (bellhop.Outcome, error) { return outcome("op-1", bellhop.Succeeded), nil }, bellhop.Succeeded, 0},
		{"failed", func() (bellhop.Outcome, error) {
			o := outcome("op-1", bellhop.Failed)
			return bellhop.Outcome{}, temporal.NewApplicationErrorWithOptions("no room", "CAPACITY_UNAVAILABLE",
				temporal.ApplicationErrorOptions{NonRetryable: true, Details: []any{o}})
		}, bellhop.Failed, 0},
		{"cancelled", func() (bellhop.Outcome, error) {
			return bellhop.Outcome{}, temporal.NewCanceledError(outcome("op-1", bellhop.Cancelled))
		}, bellhop.Cancelled, 0},
		{"terminated", func() (bellhop.Outcome, error) { return bellhop.Outcome{}, errors.New("terminated") }, bellhop.Failed, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := setup(t)
			b.end = func(string) (time.Duration, bellhop.Outcome, error) {
				o, err := test.end()
				return 3 * time.Second, o, err
			}
			b.status = func(id string, _ int) (bellhop.Status, error) { return statusOf(outcome(id, bellhop.Failed)), nil }
			b.must(func(ctx workflow.Context) error {
				inbox := receive.New(ctx, receive.Options{})
				if err := inbox.Start(ctx, provision("op-1")); err != nil {
					return err
				}
				var got bellhop.Outcome
				var err error
				took := elapsed(ctx, func() { got, err = inbox.Await(ctx, "op-1", time.Hour) })
				var failed *receive.Failed
				return errors.Join(
					expect("the state", got.State, test.state),
					expect("failed", errors.As(err, &failed), test.state != bellhop.Succeeded),
					expect("the time it took", took, 3*time.Second))
			})
			if len(b.polled) != test.polls {
				t.Errorf("polled %v, want %d polls", b.polled, test.polls)
			}
		})
	}
}

func TestContinueAsNew(t *testing.T) {
	// The first run answers op-1, receives op-2 and continues as new; its duplicate of op-1 comes to the second run.
	var shop func(ctx workflow.Context, carried receive.Snapshot) error
	shop = func(ctx workflow.Context, carried receive.Snapshot) error {
		inbox := receive.New(ctx, receive.Options{Carried: carried})
		if len(carried.Answered) == 0 {
			if _, err := inbox.Await(ctx, "op-1", time.Hour); err != nil {
				return err
			}
			if err := workflow.Sleep(ctx, time.Minute); err != nil {
				return err
			}
			return workflow.NewContinueAsNewError(ctx, shop, inbox.Snapshot())
		}
		if err := workflow.Sleep(ctx, time.Minute); err != nil {
			return err
		}
		var second bellhop.Outcome
		var err error
		took := elapsed(ctx, func() { second, err = inbox.Await(ctx, "op-2", time.Hour) })
		if err != nil {
			return err
		}
		// Asked again for what the run before was told already, it tells it again, from the status if it must.
		var third bellhop.Outcome
		took3 := elapsed(ctx, func() { third, err = inbox.Await(ctx, "op-3", time.Hour) })
		return errors.Join(err,
			expect("op-2", second, outcome("op-2", bellhop.Succeeded)),
			expect("the time it took", took, time.Duration(0)),
			expect("the time op-3 took", took3, time.Duration(0)),
			expect("op-3", third, outcome("op-3", bellhop.Succeeded)),
			expect("what is left", len(inbox.Drain()), 0))
	}
	first := setup(t)
	first.RegisterWorkflow(shop)
	first.ring(time.Second, "compute-provisioned", outcome("op-1", bellhop.Succeeded))
	first.ring(2*time.Second, "compute-provisioned", outcome("op-2", bellhop.Succeeded))
	err := first.run(shop, receive.Snapshot{})
	var next *workflow.ContinueAsNewError
	if !errors.As(err, &next) {
		t.Fatalf("the first run ended with %v, want it to continue as new", err)
	}
	var carried receive.Snapshot
	if err := converter.GetDefaultDataConverter().FromPayloads(next.Input, &carried); err != nil {
		t.Fatal(err)
	}
	want := receive.Snapshot{Kept: []bellhop.Outcome{outcome("op-2", bellhop.Succeeded)}, Answered: []string{"op-1/succeeded"}}
	if !reflect.DeepEqual(carried, want) {
		t.Fatalf("carried over is %v, want %v", carried, want)
	}

	second := setup(t)
	second.RegisterWorkflow(shop)
	second.ring(time.Second, "compute-provisioned", outcome("op-1", bellhop.Succeeded))
	second.status = func(id string, _ int) (bellhop.Status, error) { return statusOf(outcome(id, bellhop.Succeeded)), nil }
	carried.Answered = append(carried.Answered, "op-3/succeeded")
	second.must(shop, carried)
	if !slices.Equal(second.polled, []string{"op-3"}) {
		t.Errorf("polled %v, want op-3 once", second.polled)
	}
}

func TestSnapshotIsBounded(t *testing.T) {
	b := setup(t)
	b.must(func(ctx workflow.Context) error {
		var before receive.Snapshot
		for i := range receive.MaxAnswered + 10 {
			before.Answered = append(before.Answered, fmt.Sprintf("op-%d/succeeded", i))
		}
		after := receive.New(ctx, receive.Options{Carried: before}).Snapshot()
		return errors.Join(
			expect("how many", len(after.Answered), receive.MaxAnswered),
			expect("the oldest", after.Answered[0], "op-10/succeeded"))
	})
}

func TestDrain(t *testing.T) {
	b := setup(t)
	b.ring(time.Second, "compute-provisioned", outcome("op-2", bellhop.Succeeded))
	b.ring(2*time.Second, "compute-failed", outcome("op-1", bellhop.Failed))
	b.ring(3*time.Second, "compute-failed", outcome("op-1", bellhop.Failed))
	b.ring(4*time.Second, "compute-provisioned", outcome("op-3", bellhop.Succeeded))
	b.ring(5*time.Second, "compute-running", outcome("op-3", bellhop.Running))
	b.must(func(ctx workflow.Context) error {
		inbox := receive.New(ctx, receive.Options{})
		if err := workflow.Sleep(ctx, time.Minute); err != nil {
			return err
		}
		if _, err := inbox.Await(ctx, "op-3", time.Minute); err != nil {
			return err
		}
		left := inbox.Drain()
		return errors.Join(
			expect("what is left", left, []bellhop.Outcome{outcome("op-2", bellhop.Succeeded), outcome("op-1", bellhop.Failed)}),
			expect("after that", len(inbox.Drain()), 0),
			expect("unhandled signals", len(workflow.GetUnhandledSignalNames(ctx)), 0))
	})
}

package restate

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	sdk "github.com/restatedev/sdk-go"
	"github.com/restatedev/sdk-go/encoding"

	"bellhop"
	"bellhop/bridge"
)

// compute is the Restate service Compute.
type compute struct {
	ops       bridge.Compute
	target    string
	pollAfter time.Duration
}

// definition is the service with its handlers, as Restate discovers them.
func (c *compute) definition() sdk.ServiceDefinition {
	service := sdk.NewService("Compute", sdk.WithInactivityTimeout(inactivity))
	for name, verb := range map[string]bellhop.Verb{"Provision": bellhop.Provision, "Update": bellhop.Update, "Delete": bellhop.Delete} {
		service.Handler(name, sdk.NewServiceHandler(func(ctx sdk.Context, input json.RawMessage) (bellhop.Outcome, error) {
			return c.carryOut(ctx, verb, input)
		}, sdk.WithInputCodec(operationCodec), sdk.WithDocumentation("Starts the operation and answers its outcome, also when it failed.")))
	}
	return service.
		Handler("Start", sdk.NewServiceHandler(c.start, sdk.WithInputCodec(operationCodec),
			sdk.WithDocumentation("Starts the operation, which operation_type says, and answers its id."))).
		Handler("Status", sdk.NewServiceHandler(c.status, sdk.WithDocumentation("Tells where an operation stands now."))).
		Handler("Cancel", sdk.NewServiceHandler(c.cancel, sdk.WithDocumentation("Asks an operation to give up.")))
}

// inactivity is how long a handler that waits stays in memory, where it takes more than half a megabyte; then Restate
// suspends it, and calls it again once there is something to go on with.
const inactivity = time.Second

// operationCodec leaves an operation as it is, to be read with all its faults, and tells Restate what it looks like.
var operationCodec = encoding.JSONCodecWithCustomSchemaGenerator(func(any) any {
	describe, ok := encoding.JSONCodec.(encoding.CodecMetadata)
	if !ok {
		return nil
	}
	return describe.JsonSchema(bellhop.Operation{})
})

// Reference names an operation.
type Reference struct {
	OperationID string `json:"operation_id"`
}

// carryOut starts an operation and answers its outcome, also when it failed: the caller branches on it.
func (c *compute) carryOut(ctx sdk.Context, verb bellhop.Verb, input json.RawMessage) (bellhop.Outcome, error) {
	awakeable := sdk.Awakeable[bellhop.Outcome](ctx)
	id, err := c.launch(ctx, input, func(run sdk.RunContext, id string) (answer, error) {
		return c.begin(run, id, verb, input, awakeable.Id())
	})
	if err != nil {
		return bellhop.Outcome{}, err
	}
	for patience := c.pollAfter; ; patience = min(2*patience, maxPatience) {
		first, cancelled := sdk.WaitFirst(ctx, awakeable, sdk.After(ctx, patience))
		if cancelled != nil {
			return bellhop.Outcome{}, c.giveUp(ctx, id, new(gate), cancelled)
		}
		if first == awakeable {
			return awakeable.Result()
		}
		seen, cancelled := sdk.Run(ctx, func(run sdk.RunContext) (polled, error) { return c.poll(run, id), nil }, sdk.WithName("poll"))
		if cancelled != nil {
			return bellhop.Outcome{}, c.giveUp(ctx, id, new(gate), cancelled)
		}
		if seen.Outcome != nil {
			return *seen.Outcome, nil
		}
		if err := seen.Answer.err(); err != nil {
			return bellhop.Outcome{}, err
		}
	}
}

// maxPatience is up to what the time between two polls doubles. A handler that waits costs Restate next to nothing, but
// each poll stays in its journal.
const maxPatience = 10 * time.Minute

// launch starts an operation and answers its id. Of one whose invocation is cancelled meanwhile nothing is left to run.
func (c *compute) launch(ctx sdk.Context, input json.RawMessage, start func(run sdk.RunContext, id string) (answer, error)) (string, error) {
	var g gate
	id, derived := c.identify(ctx, input)
	begun, cancelled := sdk.Run(ctx, func(run sdk.RunContext) (answer, error) {
		return g.pass(func() (answer, error) {
			started, err := start(run, id)
			started.ID = id
			return started, err
		})
	}, sdk.WithName("start"))
	if cancelled != nil {
		return id, c.giveUp(ctx, id, &g, cancelled)
	}
	// The id that it was started under: the worker that goes on may be configured to make others. Steps of before this
	// version remember none, and there was no prefix then.
	return cmp.Or(begun.ID, derived), begun.err()
}

// begin starts the operation with one callback more, which completes the awakeable.
func (c *compute) begin(ctx context.Context, id string, verb bellhop.Verb, input json.RawMessage, awakeable string) (answer, error) {
	if _, err := bellhop.ParseOperation(id, verb, time.Time{}, input); err != nil {
		return answerTo(err) // before anything is added, so that the faults are the caller's own
	}
	called, err := withCallback(input, c.target, awakeable)
	if err != nil {
		return answer{}, err
	}
	_, err = c.ops.Start(ctx, id, verb, called)
	if errors.Is(err, bellhop.ErrConflict) {
		err = fmt.Errorf("%w: ask Status for that one, or give this one another id", err)
	}
	return answerTo(err)
}

// withCallback adds a callback to a sound operation.
func withCallback(input json.RawMessage, target, awakeable string) (json.RawMessage, error) {
	address, err := json.Marshal(Address{Awakeable: awakeable})
	if err != nil {
		return nil, err
	}
	callback, err := json.Marshal(bellhop.Callback{Target: target, Address: address})
	if err != nil {
		return nil, err
	}
	var operation map[string]json.RawMessage
	if err := json.Unmarshal(input, &operation); err != nil {
		return nil, err
	}
	var callbacks []json.RawMessage
	if given := operation["callbacks"]; given != nil {
		if err := json.Unmarshal(given, &callbacks); err != nil {
			return nil, err
		}
	}
	if operation["callbacks"], err = json.Marshal(append(callbacks, callback)); err != nil {
		return nil, err
	}
	return json.Marshal(operation)
}

// polled is what a poll found out: the outcome of an operation that has ended, or that there is none any more.
type polled struct {
	Outcome *bellhop.Outcome `json:"outcome,omitempty"`
	Answer  answer           `json:"answer"`
}

// poll looks whether an operation has ended. That it cannot be polled now is no reason to give up waiting for the
// callback.
func (c *compute) poll(ctx sdk.RunContext, id string) polled {
	report, err := c.ops.Status(ctx, id)
	refused, err := answerTo(err)
	switch {
	case err != nil:
		ctx.Log().WarnContext(ctx, "The operation could not be polled and is waited for all the same", "operation_id", id, "error", err)
		return polled{}
	case refused.Code != 0:
		return polled{Answer: refused}
	case !report.State.Terminal():
		return polled{}
	default:
		return polled{Outcome: &report.Outcome}
	}
}

// giveUp cancels the operation of an invocation that was cancelled.
func (c *compute) giveUp(ctx sdk.Context, id string, g *gate, cancelled sdk.TerminalError) error {
	if _, again := sdk.Run(ctx, func(run sdk.RunContext) (sdk.Void, error) {
		g.close()
		err := c.ops.Cancel(run, id)
		if errors.Is(err, bellhop.ErrEnded) || errors.Is(err, bellhop.ErrNotFound) { // there is nothing left to cancel
			err = nil
		}
		return sdk.Void{}, err
	}, sdk.WithName("cancel")); again != nil {
		return again
	}
	return cancelled
}

// gate keeps an operation from being started after it was cancelled: a step whose invocation is cancelled goes on in the
// background, where nobody waits for it.
type gate struct {
	mu     sync.Mutex
	closed bool
}

func (g *gate) pass(do func() (answer, error)) (answer, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return answer{}, nil
	}
	return do()
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

// start starts an operation and answers its id. Starting the same one again under its id starts nothing.
func (c *compute) start(ctx sdk.Context, input json.RawMessage) (Reference, error) {
	var given struct {
		Verb bellhop.Verb `json:"operation_type"`
	}
	_ = json.Unmarshal(input, &given) //nolint:errcheck // what is wrong with it is found when it is started
	id, err := c.launch(ctx, input, func(run sdk.RunContext, id string) (answer, error) {
		_, err := c.ops.Start(run, id, given.Verb, input)
		return answerTo(err)
	})
	return Reference{OperationID: id}, err
}

// status tells where an operation stands now.
func (c *compute) status(ctx sdk.Context, of Reference) (bellhop.Status, error) {
	type told struct {
		Status bellhop.Status
		Answer answer
	}
	seen, err := sdk.Run(ctx, func(run sdk.RunContext) (told, error) {
		report, err := c.ops.Refresh(run, of.OperationID)
		answer, err := answerTo(err)
		return told{report.Status, answer}, err
	}, sdk.WithName("status"))
	if err != nil {
		return bellhop.Status{}, err
	}
	return seen.Status, seen.Answer.err()
}

// cancel asks an operation to give up.
func (c *compute) cancel(ctx sdk.Context, of Reference) (Reference, error) {
	asked, err := sdk.Run(ctx, func(run sdk.RunContext) (answer, error) {
		return answerTo(c.ops.Cancel(run, of.OperationID))
	}, sdk.WithName("cancel"))
	if err != nil {
		return Reference{}, err
	}
	return of, asked.err()
}

// identify is the operation's id: the one in the input, else one that stays the same however often the invocation is
// tried; derived is that one without the prefix of its tenant's ids. It is not the invocation's own id, which can be read
// out of it: that id makes up most of an awakeable's, which is a secret, while an operation's id may be seen.
func (c *compute) identify(ctx sdk.Context, input json.RawMessage) (id, derived string) {
	var members map[string]json.RawMessage
	_ = json.Unmarshal(input, &members)              //nolint:errcheck // the faults are named when it is started
	_ = json.Unmarshal(members["operation_id"], &id) //nolint:errcheck // as above
	if id != "" {
		return id, id
	}
	var tenant string
	_ = json.Unmarshal(members["tenant_id"], &tenant) //nolint:errcheck // as above
	sum := sha256.Sum256([]byte(ctx.Request().ID))
	derived = "restate-" + hex.EncodeToString(sum[:16])
	return c.ops.MakeID(tenant, derived), derived
}

// answer is what became of a call, as a step remembers it: no code when it was done, else why it is refused for ever.
// A step that fails with an error of its own was cancelled.
type answer struct {
	Code     int               `json:"code,omitempty"`
	Message  string            `json:"message,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	// ID is the id of the operation that was started.
	ID string `json:"id,omitempty"`
}

// answerTo tells what is refused for ever from what Restate tries again; that a tenant has too many open operations is not
// for ever.
func answerTo(err error) (answer, error) {
	faults, invalid := errors.AsType[bellhop.Faults](err)
	switch {
	case err == nil:
		return answer{}, nil
	case invalid:
		return answer{
			Code: http.StatusBadRequest, Message: bellhop.InvalidOperation(faults).Error(),
			Metadata: map[string]string{"code": string(bellhop.CodeInvalidOperation)},
		}, nil
	case errors.Is(err, bellhop.ErrNotFound):
		return answer{Code: http.StatusNotFound, Message: err.Error()}, nil
	case errors.Is(err, bellhop.ErrConflict), errors.Is(err, bellhop.ErrEnded):
		return answer{Code: http.StatusConflict, Message: err.Error()}, nil
	default:
		return answer{}, err
	}
}

func (a answer) err() error {
	if a.Code == 0 {
		return nil
	}
	options := []sdk.TerminalErrorOption{sdk.WithErrorCode(sdk.Code(a.Code))} //nolint:gosec // an HTTP status
	if a.Metadata != nil {
		options = append(options, sdk.WithMetadataMap(a.Metadata))
	}
	return sdk.ToTerminalError(errors.New(a.Message), options...)
}

package simulated

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"bellhop"
	"bellhop/activities"
)

// Config is a simulated provider's entry in the worker's configuration.
type Config struct {
	// Path is the file that holds the platform. Workers with the same file share it. It is made when it is not there,
	// with its folder. Default: bellhop/simulated.db in the user's cache directory (XDG_CACHE_HOME, else ~/.cache).
	Path string `json:"path"`
	// PollInterval is how often a watcher looks whether another process changed the file; each look costs some 10 µs
	// of CPU. Changes by the watcher's own process, and the passing of time, are seen without. Default "15ms".
	PollInterval bellhop.Duration `json:"poll_interval"`
}

// DefaultPollInterval is [Config].PollInterval's default.
const DefaultPollInterval = 15 * time.Millisecond

// Provider is a simulated platform. It is safe for use by many goroutines, and by many processes on the same file.
type Provider struct {
	store *store
	poll  time.Duration
	bell  bell
}

var _ activities.Provider = (*Provider)(nil)

// New opens the platform, and makes it when it is not there. Close it when nobody calls it any more.
func New(config Config) (*Provider, error) {
	var faults bellhop.Faults
	if config.Path == "" {
		faults.Add("path", "is required")
	}
	if config.PollInterval < 0 {
		faults.Add("poll_interval", "must not be negative")
	}
	if err := faults.Err(); err != nil {
		return nil, err
	}
	if config.PollInterval == 0 {
		config.PollInterval = bellhop.Duration(DefaultPollInterval)
	}
	store, err := openStore(context.Background(), config.Path)
	if err != nil {
		return nil, fmt.Errorf("open the simulated platform in %s: %w", config.Path, err)
	}
	return &Provider{store: store, poll: time.Duration(config.PollInterval)}, nil
}

// Close lets go of the file. What was asked for goes on.
func (p *Provider) Close() error { return p.store.close() }

// Check finds what is wrong with the operation's [Script].
func Check(op bellhop.Operation) error {
	_, faults := parseScript(op)
	return faults.Err()
}

// Check is [Check].
func (p *Provider) Check(op bellhop.Operation) error { return Check(op) }

// Provision brings replicas into being, beside what serves until they are ready.
func (p *Provider) Provision(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	return p.ask(ctx, bellhop.Provision, op)
}

// Update is Provision where there is something to update.
func (p *Provider) Update(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	return p.ask(ctx, bellhop.Update, op)
}

// Delete removes what stands.
func (p *Provider) Delete(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	return p.ask(ctx, bellhop.Delete, op)
}

// Observe tells where the operation stands.
func (p *Provider) Observe(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	if err := ctx.Err(); err != nil {
		return bellhop.Observation{}, fmt.Errorf("observe: %w", err)
	}
	// Reading waits for nobody. To watch out for the end of ctx would cost as much as the query.
	reading := context.WithoutCancel(ctx)
	var head head
	if err := head.scan(p.store.head.QueryRowContext(reading, op.TenantID, op.Resource)); err != nil {
		return bellhop.Observation{}, outOfOrder(ctx, "observe", err)
	}
	if !head.newerThan(op) {
		return head.observe(op, time.Now().UnixNano()), nil
	}
	// What is left of the older operation is known to its own record alone.
	older, err := recordOf(reading, p.store.find, op.ID)
	if err != nil {
		return bellhop.Observation{}, outOfOrder(ctx, "observe", err)
	}
	return superseded(op, older, time.Now().UnixNano()), nil
}

// ask applies op, as far as its script lets it.
func (p *Provider) ask(ctx context.Context, verb bellhop.Verb, op bellhop.Operation) (bellhop.Observation, error) {
	op.Verb = verb
	script, faults := parseScript(op)
	if err := faults.Err(); err != nil {
		return failed(op, bellhop.Fail(bellhop.CodeInvalidSpec, "%s", err)), nil
	}
	if err := ctx.Err(); err != nil {
		return bellhop.Observation{}, fmt.Errorf("%s: %w", verb, err)
	}
	var answer answer
	err := p.store.write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		var err error
		answer, err = p.store.apply(ctx, tx, op, script, time.Now().UnixNano())
		return err
	})
	if err != nil {
		return bellhop.Observation{}, outOfOrder(ctx, string(verb), err)
	}
	if answer.changed {
		p.bell.ring()
	}
	if script.AskTakes > 0 && answer.refusal == nil {
		select {
		case <-time.After(time.Duration(script.AskTakes)):
		case <-ctx.Done():
			return bellhop.Observation{}, fmt.Errorf("%s: %w", verb, ctx.Err())
		}
		return p.Observe(ctx, op)
	}
	if answer.refusal != nil {
		return bellhop.Observation{}, answer.refusal
	}
	return answer.seen, nil
}

// outOfOrder says that the file could not be used, or that nobody waits any more.
func outOfOrder(ctx context.Context, call string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", call, errors.Join(ctx.Err(), err))
	}
	return bellhop.Fail(bellhop.CodeProviderUnavailable, "%s: the simulated platform's file cannot be used", call).Because(err)
}

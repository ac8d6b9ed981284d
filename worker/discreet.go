package main

import (
	"context"
	"errors"
	"log/slog"

	"go.temporal.io/sdk/temporal"
)

// discreet keeps the messages of activities' errors out of what the SDK logs. Temporal gets them encrypted: what a platform
// or an engine said may repeat anything that a tenant sent.
type discreet struct{ slog.Handler }

// Handle is part of [slog.Handler].
func (d discreet) Handle(ctx context.Context, record slog.Record) error {
	shown := slog.NewRecord(record.Time, record.Level, record.Message, record.PC)
	record.Attrs(func(attr slog.Attr) bool {
		shown.AddAttrs(withoutMessage(attr))
		return true
	})
	return d.Handler.Handle(ctx, shown)
}

// WithAttrs is part of [slog.Handler].
func (d discreet) WithAttrs(attrs []slog.Attr) slog.Handler {
	shown := make([]slog.Attr, len(attrs))
	for i, attr := range attrs {
		shown[i] = withoutMessage(attr)
	}
	return discreet{d.Handler.WithAttrs(shown)}
}

// WithGroup is part of [slog.Handler].
func (d discreet) WithGroup(name string) slog.Handler { return discreet{d.Handler.WithGroup(name)} }

// withoutMessage leaves of an activity's error what kind it is of.
func withoutMessage(attr slog.Attr) slog.Attr {
	err, ok := attr.Value.Any().(error)
	if !ok {
		return attr
	}
	if application, ok := errors.AsType[*temporal.ApplicationError](err); ok {
		return slog.String(attr.Key, application.Type()+" (the message is not logged, since payloads are encrypted)")
	}
	if _, ok := errors.AsType[*temporal.PanicError](err); ok {
		return slog.String(attr.Key, "panic (the message is not logged, since payloads are encrypted)")
	}
	return attr
}

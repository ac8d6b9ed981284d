package main

import (
	"context"
	"log/slog"
	"time"

	"bellhop/bridge/httpapi"
	"bellhop/operations"
)

// stopAPIWithin is how long the answers to requests may take that are under way when the worker stops.
const stopAPIWithin = 5 * time.Second

// serveAPI serves the API where it is configured, and answers how to stop it and where it listens.
func serveAPI(config Config, ops *operations.Client, telemetry *telemetry, logger *slog.Logger) (func(), string, error) {
	if config.API == nil {
		return func() {}, "", nil
	}
	api, err := httpapi.New(*config.API, ops, logger, telemetry.observeRequests())
	if err != nil {
		return nil, "", err
	}
	if err := api.Listen(); err != nil {
		return nil, "", usageError{err}
	}
	stop := func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopAPIWithin)
		defer cancel()
		if err := api.Stop(ctx); err != nil {
			logger.Warn("requests were cut off", "error", err)
		}
	}
	return stop, api.Address(), nil
}

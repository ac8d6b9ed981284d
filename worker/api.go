package main

import (
	"log/slog"

	"bellhop/bridge/httpapi"
	"bellhop/internal/tenancy"
	"bellhop/operations"
)

// serveAPI serves the API where it is configured, and answers how to stop it and where it listens.
func serveAPI(config Config, made *parts, ops *operations.Client, policy *tenancy.Policy, telemetry *telemetry, logger *slog.Logger, fail func(error)) (func(), string, error) {
	if config.API == nil {
		return func() {}, "", nil
	}
	api, err := httpapi.New(*config.API, ops, policy, logger, telemetry.observeRequests())
	if err != nil {
		return nil, "", err
	}
	if made.keys != nil {
		api.ServeCodec(made.keys)
	}
	if err := api.Listen(fail); err != nil {
		return nil, "", usageError{err}
	}
	stop := func() {
		if err := api.Stop(); err != nil {
			logger.Warn("requests were cut off", "error", err)
		}
	}
	return stop, api.Address(), nil
}

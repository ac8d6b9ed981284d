package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
)

func TestDiscreet_ActivityErrors(t *testing.T) {
	var out bytes.Buffer
	logger := log.NewStructuredLogger(slog.New(discreet{slog.NewTextHandler(&out, nil)}))
	said := temporal.NewApplicationError("the engine said planted-1", "PROVIDER_UNAVAILABLE")
	logger.Error("Activity error.", "ActivityID", "5", "Error", said)
	logger.Error("Activity error.", "Error", fmt.Errorf("wrapped: %w", said))
	log.With(logger, "Error", said).Error("Activity error.")
	logger.Warn("Failed to poll for task.", "Error", errors.New("connection refused"))
	require.NotContains(t, out.String(), "planted-1")
	require.Contains(t, out.String(), "PROVIDER_UNAVAILABLE")
	require.Contains(t, out.String(), "connection refused", "what Temporal says is an operator's to read")
}

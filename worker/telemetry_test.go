package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A tenant that invents names of targets and providers must not make series: OpenTelemetry keeps 2,000 of a metric, and then
// drops those of the configured ones.
func TestMetrics_InventedNames(t *testing.T) {
	telemetry, err := startTelemetry(t.Context(), Config{
		Providers: map[string]json.RawMessage{"docker": nil},
		Targets:   map[string]json.RawMessage{"orders": nil},
	})
	require.NoError(t, err)
	defer telemetry.stop()
	count := func(tags map[string]string) { telemetry.metrics.WithTags(tags).Counter("bellhop_test").Inc(1) }
	for i := range 3000 {
		name := fmt.Sprintf("invented-%d", i)
		count(map[string]string{"target": name, "verdict": "blocked"})
		count(map[string]string{"provider": name})
		// A label that comes in a second step is bounded as well.
		telemetry.metrics.WithTags(map[string]string{"verdict": "blocked"}).WithTags(map[string]string{"target": name}).Counter("bellhop_test").Inc(1)
	}
	count(map[string]string{"target": "orders", "verdict": "blocked"})
	count(map[string]string{"provider": "docker"})

	answer := httptest.NewRecorder()
	telemetry.handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	var series []string
	for line := range strings.Lines(answer.Body.String()) {
		if strings.HasPrefix(line, "bellhop_test") {
			series = append(series, strings.TrimSpace(line))
		}
	}
	require.ElementsMatch(t, []string{
		`bellhop_test_total{target="other",verdict="blocked"} 6000`,
		`bellhop_test_total{provider="other"} 3000`,
		`bellhop_test_total{target="orders",verdict="blocked"} 1`,
		`bellhop_test_total{provider="docker"} 1`,
	}, series)
}

package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.temporal.io/sdk/client"
	temporaltelemetry "go.temporal.io/sdk/contrib/opentelemetry"
	"go.temporal.io/sdk/interceptor"

	"bellhop"
	"bellhop/activities"
	"bellhop/bridge/httpapi"
	"bellhop/internal/reload"
	"bellhop/operations"
)

// telemetry is what the worker tells of itself.
type telemetry struct {
	metrics  client.MetricsHandler
	registry *prometheus.Registry
	handler  http.Handler
	meter    metric.Meter
	tracer   interceptor.Interceptor
	stop     func()
}

func startTelemetry(ctx context.Context, config Config) (*telemetry, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry), otelprometheus.WithoutScopeInfo(),
		otelprometheus.WithoutTargetInfo())
	if err != nil {
		return nil, fmt.Errorf("start metrics: %w", err)
	}
	metrics := sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter), sdkmetric.WithView(sdkmetric.NewView(
		// OpenTelemetry's own buckets are made for milliseconds; operations take from milliseconds to hours.
		sdkmetric.Instrument{Unit: "s"},
		sdkmetric.Stream{Aggregation: sdkmetric.AggregationExplicitBucketHistogram{Boundaries: []float64{
			.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 6 * 3600,
		}}},
	)))
	t := &telemetry{
		registry: registry,
		handler:  promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
		meter:    metrics.Meter("bellhop"),
	}
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "bellhop_unusable_files",
		Help: "Files of keys, tokens or certificates that have changed and cannot be used: what was in them before stays in use.",
	}, func() float64 { return float64(reload.Broken()) }))
	t.metrics = metricsHandler{
		MetricsHandler: temporaltelemetry.NewMetricsHandler(temporaltelemetry.MetricsHandlerOptions{Meter: t.meter}),
		known: known{
			"provider": slices.Collect(maps.Keys(config.Providers)),
			"target":   slices.Collect(maps.Keys(config.Targets)),
		},
	}
	stops := []func(context.Context) error{metrics.Shutdown}
	if config.Tracing != nil {
		traces, err := startTracing(ctx, *config.Tracing)
		if err != nil {
			return nil, err
		}
		stops = append(stops, traces.Shutdown)
		t.tracer, err = temporaltelemetry.NewTracingInterceptor(temporaltelemetry.TracerOptions{
			Tracer: traces.Tracer("bellhop"),
		})
		if err != nil {
			return nil, fmt.Errorf("start tracing: %w", err)
		}
	}
	t.stop = func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		for _, stop := range stops {
			_ = stop(ctx) //nolint:errcheck // the process ends; the last spans may be lost
		}
	}
	return t, nil
}

// metricsHandler counts with counters: the handler that it wraps counts with what may go down as well, which Prometheus
// then takes for a gauge. And it replaces values of labels that a caller can choose.
type metricsHandler struct {
	temporaltelemetry.MetricsHandler

	known known
}

// known are the values that a label may have, by label. An operation names its provider and its targets before any worker
// has checked the names: each invented name would be a series of its own, and OpenTelemetry keeps 2,000 of a metric.
type known map[string][]string

// otherName stands for every name that is not configured.
const otherName = "other"

func (k known) bound(tags map[string]string) map[string]string {
	bounded := tags
	for label, values := range k {
		if value, given := tags[label]; given && !slices.Contains(values, value) {
			bounded = maps.Clone(bounded)
			bounded[label] = otherName
		}
	}
	return bounded
}

// WithTags is part of [client.MetricsHandler].
func (m metricsHandler) WithTags(tags map[string]string) client.MetricsHandler {
	tagged, ok := m.MetricsHandler.WithTags(m.known.bound(tags)).(temporaltelemetry.MetricsHandler)
	if !ok {
		return m
	}
	return metricsHandler{tagged, m.known}
}

// Counter is part of [client.MetricsHandler].
func (m metricsHandler) Counter(name string) client.MetricsCounter {
	counter, err := m.GetMeter().Int64Counter(name)
	if err != nil { // the name is no metric's
		return m.MetricsHandler.Counter(name)
	}
	return count{counter, metric.WithAttributeSet(m.GetAttributes())}
}

type count struct {
	counter    metric.Int64Counter
	attributes metric.MeasurementOption
}

// Inc is part of [client.MetricsCounter].
func (c count) Inc(n int64) { c.counter.Add(context.Background(), n, c.attributes) }

func startTracing(ctx context.Context, config TracingConfig) (*sdktrace.TracerProvider, error) {
	exporter, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(config.Endpoint))
	if err != nil {
		return nil, fmt.Errorf("start tracing to %s: %w", config.Endpoint, err)
	}
	sample := 1.0
	if config.Sample != nil {
		sample = *config.Sample
	}
	return sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(sample))),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "bellhop-worker"), attribute.String("service.version", version))),
	), nil
}

// waiting tells how many operations are under way, and how many have ended whose callbacks are still being tried, asked of
// Temporal when the metrics are read. It is no callback of OpenTelemetry's: those run while its instruments are locked, and
// the client that asks here has instruments of its own. A question of which Temporal gives no answer is left out.
type waiting struct {
	ops               *operations.Client
	providers         map[string]activities.Provider
	open, undelivered *prometheus.Desc
}

func (t *telemetry) countWaiting(ops *operations.Client, providers map[string]activities.Provider) {
	t.registry.MustRegister(&waiting{
		ops: ops, providers: providers,
		open: prometheus.NewDesc("bellhop_operations_open",
			"Operations under way, by provider, as Temporal's visibility has them.", []string{"provider"}, nil),
		undelivered: prometheus.NewDesc("bellhop_operations_undelivered",
			"Operations that have ended and whose callbacks are still being tried, as Temporal's visibility has them.", nil, nil),
	})
}

// Describe is part of [prometheus.Collector].
func (w *waiting) Describe(described chan<- *prometheus.Desc) {
	described <- w.open
	described <- w.undelivered
}

// Collect is part of [prometheus.Collector].
func (w *waiting) Collect(collected chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	tell := func(filter bellhop.Filter, of *prometheus.Desc, labels ...string) {
		if count, err := w.ops.Count(ctx, filter); err == nil {
			collected <- prometheus.MustNewConstMetric(of, prometheus.GaugeValue, float64(count), labels...)
		}
	}
	tell(bellhop.Filter{Open: true, Undelivered: true}, w.undelivered)
	for name := range w.providers {
		tell(bellhop.Filter{Provider: name, Open: true}, w.open, name)
	}
}

// observeRequests counts requests to the API and how long they took.
func (t *telemetry) observeRequests() httpapi.Observe {
	durations, err := t.meter.Float64Histogram("bellhop_http_request_duration",
		metric.WithUnit("s"), metric.WithDescription("How long requests to the API took, by route and HTTP status."))
	if err != nil { // it would mean a name that is no metric's
		return func(context.Context, string, string, int, time.Duration) {}
	}
	return func(ctx context.Context, method, route string, status int, took time.Duration) {
		durations.Record(ctx, took.Seconds(), metric.WithAttributes(attribute.String("method", method),
			attribute.String("route", route), attribute.Int("code", status)))
	}
}

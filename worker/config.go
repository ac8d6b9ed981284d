package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"bellhop"
	"bellhop/activities"
	"bellhop/activities/docker"
	"bellhop/activities/ecs"
	"bellhop/activities/kubernetes"
	"bellhop/activities/simulated"
	"bellhop/bridge"
	"bellhop/bridge/httpapi"
	"bellhop/bridge/restate"
	"bellhop/bridge/stepfunctions"
	"bellhop/bridge/webhook"
	"bellhop/encryption"
	"bellhop/internal/tenancy"
	"bellhop/workflows"
)

// Config is the worker's configuration file. Every field may be left out.
type Config struct {
	// TaskQueue is the Temporal task queue to work on. Default "bellhop".
	TaskQueue string `json:"task_queue"`
	// ConnectTimeout is how long a worker that starts waits for Temporal. Default "1m".
	ConnectTimeout bellhop.Duration `json:"connect_timeout"`
	// Temporal is about the worker's own connection to Temporal.
	Temporal TemporalConfig `json:"temporal"`
	// Listen is the address of /healthz, /readyz and /metrics; empty is none. Beyond loopback /metrics asks for the
	// token in metrics_token_file, and is off without one. Default "127.0.0.1:9464".
	Listen string `json:"listen"`
	// MetricsTokenFile holds the bearer token that /metrics asks for. It is read again when it changes. Default: none.
	MetricsTokenFile string `json:"metrics_token_file" file:"secret"`
	// Providers are where compute runs, by the name that operations use. Default: one, "simulated", of type simulated.
	Providers map[string]json.RawMessage `json:"providers"`
	// Targets are who is called back, by the name that callbacks use. Default: one, "temporal", of type temporal.
	Targets map[string]json.RawMessage `json:"targets"`
	// StepFunctionsActivities are the activities of Step Functions whose tasks are operations to start. Default: none.
	StepFunctionsActivities []stepfunctions.Activity `json:"step_functions_activities"`
	// API serves bellhop over HTTP, for callers that have no other way in. Default: it is not served.
	API *APIConfig `json:"api"`
	// Restate serves the Restate service Compute, by which Restate starts operations. Default: not served.
	Restate *restate.ComputeConfig `json:"restate"`
	// Nexus serves the Nexus service Compute, by which Temporal workflows in other namespaces start operations, on the
	// task queue. Default: not served.
	Nexus *NexusConfig `json:"nexus"`
	// Encryption is the keyset by which everything is encrypted that bellhop writes to Temporal. Default: it is not.
	Encryption *EncryptionConfig `json:"encryption"`
	// Tenants are what each tenant may name and how much it may use at once. Default: all of them may name everything and
	// choose any id.
	Tenants *TenantsConfig `json:"tenants"`
	// Backstop is how often an operation that waits is observed although no watcher said anything.
	Backstop BackstopConfig `json:"backstop"`
	// Limits bound what the worker takes on at once.
	Limits LimitsConfig `json:"limits"`
	// AllowReadableFiles takes files with keys and tokens that others than the worker's user can read or change; each is
	// named in the log. Default false: the worker does not start.
	AllowReadableFiles bool `json:"allow_readable_files"`
	// Drain is how long the worker may take to end what it has begun when it is told to stop. Default "30s".
	Drain bellhop.Duration `json:"drain"`
	// Deployment makes this worker a version of a Temporal worker deployment. Default: unversioned.
	Deployment *DeploymentConfig `json:"deployment"`
	// Tracing sends OpenTelemetry traces. Default: none.
	Tracing *TracingConfig `json:"tracing"`
	// Log is how and what is logged, to standard error.
	Log LogConfig `json:"log"`

	// file is where this was read from, and faults what is wrong with it besides its providers, targets and activities.
	file   string
	faults bellhop.Faults
}

// APIConfig is how the API is served.
type APIConfig = httpapi.Config

// NexusConfig serves the Nexus service Compute.
type NexusConfig struct {
	// Tenants are those whose operations may be started, polled and cancelled. Default: all.
	Tenants bridge.Tenants `json:"tenants"`
}

// TenantsConfig is what each tenant may name and how much it may use at once.
type TenantsConfig = tenancy.Config

// policy is the section tenants as it applies at this worker.
func (c *Config) policy() *tenancy.Policy {
	totals := tenancy.Totals{Asks: c.Limits.Activities, Waits: httpapi.DefaultWaits}
	if c.API != nil && c.API.Waits > 0 {
		totals.Waits = c.API.Waits
	}
	return tenancy.NewPolicy(c.Tenants, totals)
}

// BackstopConfig says how often an operation that waits is observed although no watcher said anything.
type BackstopConfig struct {
	// First is after how long it is observed first. Default "1m".
	First bellhop.Duration `json:"first"`
	// Max is up to what the interval doubles. Default "10m".
	Max bellhop.Duration `json:"max"`
}

// LimitsConfig bounds what the worker takes on at once.
type LimitsConfig struct {
	// Activities is how many activities of each kind run at once: asks of providers, looks, deliveries and heartbeats each
	// have as many slots of their own, so that none waits for another kind. Default 200.
	Activities int `json:"activities"`
	// WorkflowTasks is how many workflows advance at once. Default 100.
	WorkflowTasks int `json:"workflow_tasks"`
	// CachedWorkflows is how many waiting operations are kept in memory, some 10 to 30 kB each. One that is not is
	// replayed from its history, a few milliseconds, when something happens to it. Default 1000.
	CachedWorkflows int `json:"cached_workflows"`
}

// DeploymentConfig makes the worker a version of a Temporal worker deployment.
type DeploymentConfig struct {
	// Name is the deployment's. Required.
	Name string `json:"name"`
	// BuildID tells this version from others. Required.
	BuildID string `json:"build_id"`
	// Behavior is "auto-upgrade" (the default: operations move on to a newer version) or "pinned" (they end on the
	// version they began on, whose workers must then be kept until the last has).
	Behavior string `json:"behavior"`
}

// TracingConfig sends OpenTelemetry traces.
type TracingConfig struct {
	// Endpoint is the URL of an OTLP/gRPC collector, such as "http://127.0.0.1:4317". Required.
	Endpoint string `json:"endpoint"`
	// Sample is the share of operations that are traced, 0 to 1. Default 1.
	Sample *float64 `json:"sample"`
}

// LogConfig is how and what is logged.
type LogConfig struct {
	// Level is "debug", "info" (the default), "warn" or "error".
	Level slog.Level `json:"level"`
	// Format is "text" (the default) or "json".
	Format string `json:"format"`
}

const defaultListen = "127.0.0.1:9464"

// loadConfig reads the file, or the defaults when there is none. What is wrong in it is reported by build, with the rest.
func loadConfig(file string) (Config, error) {
	config := Config{
		TaskQueue:      workflows.TaskQueue,
		ConnectTimeout: bellhop.Duration(time.Minute),
		Listen:         defaultListen,
		Backstop: BackstopConfig{
			First: bellhop.Duration(activities.DefaultBackstopFirst),
			Max:   bellhop.Duration(activities.DefaultBackstopMax),
		},
		Limits: LimitsConfig{Activities: 200, WorkflowTasks: 100, CachedWorkflows: 1000},
		Drain:  bellhop.Duration(30 * time.Second),
		Log:    LogConfig{Format: "text"},
		file:   file,
	}
	if file != "" {
		text, err := os.ReadFile(file) //nolint:gosec // the operator names the file
		if err != nil {
			return config, fmt.Errorf("read configuration: %w", err)
		}
		data, err := yaml.YAMLToJSONStrict(text)
		if err != nil {
			return config, fmt.Errorf("read configuration %s: %w", file, err)
		}
		if string(data) != "null" {
			config.faults.Note("", bellhop.DecodeStrict(data, &config))
		}
	}
	if config.Providers == nil {
		config.Providers = map[string]json.RawMessage{"simulated": json.RawMessage(`{"type": "simulated"}`)}
	}
	if config.Targets == nil {
		config.Targets = map[string]json.RawMessage{"temporal": json.RawMessage(`{"type": "temporal"}`)}
	}
	config.check(&config.faults)
	return config, nil
}

// inFile lists the faults of a file, one a line.
func inFile(file string, err error) error {
	var faults bellhop.Faults
	if !errors.As(err, &faults) {
		return err
	}
	lines := []string{strings.TrimSpace("the configuration "+file) + " has faults:"}
	for _, fault := range faults {
		lines = append(lines, "  "+fault.String())
	}
	return errors.New(strings.Join(lines, "\n"))
}

func (c *Config) check(faults *bellhop.Faults) {
	if c.TaskQueue == "" {
		faults.Add("task_queue", "must not be empty")
	}
	if c.ConnectTimeout < bellhop.Duration(time.Second) {
		faults.Add("connect_timeout", "must be at least 1s")
	}
	if c.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Listen); err != nil {
			faults.Add("listen", `must be host:port, such as "127.0.0.1:9464", or empty`)
		}
	}
	if c.MetricsTokenFile != "" {
		_, err := openMetricsToken(c.MetricsTokenFile)
		faults.Note("metrics_token_file", err)
	}
	if c.Restate != nil {
		faults.Note("restate", c.Restate.Check())
		if c.Restate.Target != "" && kind(c.Targets[c.Restate.Target]) != "restate" {
			faults.Add("restate.target", "must be the name of a target of type restate; %q is none", c.Restate.Target)
		}
	}
	if c.Nexus != nil {
		faults.Note("nexus.tenants", c.Nexus.Tenants.Check())
	}
	if c.Tenants != nil {
		faults.Note("tenants", c.Tenants.Check(slices.Sorted(maps.Keys(c.Providers)), slices.Sorted(maps.Keys(c.Targets))))
	}
	if c.Backstop.First < bellhop.Duration(time.Second) {
		faults.Add("backstop.first", "must be at least 1s")
	}
	if c.Backstop.Max < c.Backstop.First {
		faults.Add("backstop.max", "must not be less than backstop.first")
	}
	for _, limit := range []struct {
		name  string
		value int
		least int
	}{
		{"activities", c.Limits.Activities, 1},
		{"workflow_tasks", c.Limits.WorkflowTasks, 2},
		{"cached_workflows", c.Limits.CachedWorkflows, 1},
	} {
		if limit.value < limit.least {
			faults.Add("limits."+limit.name, "must be at least %d", limit.least)
		}
	}
	if c.Drain < 0 {
		faults.Add("drain", "must not be negative")
	}
	if d := c.Deployment; d != nil {
		if d.Name == "" {
			faults.Add("deployment.name", "is required")
		}
		if d.BuildID == "" {
			faults.Add("deployment.build_id", "is required")
		}
		if !slices.Contains([]string{"", "auto-upgrade", "pinned"}, d.Behavior) {
			faults.Add("deployment.behavior", `must be "auto-upgrade" or "pinned"`)
		}
	}
	if t := c.Tracing; t != nil {
		if at, err := url.Parse(t.Endpoint); t.Endpoint == "" {
			faults.Add("tracing.endpoint", "is required")
		} else if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
			faults.Add("tracing.endpoint", `must be an http or https URL, such as "http://127.0.0.1:4317"`)
		}
		if t.Sample != nil && (*t.Sample < 0 || *t.Sample > 1) {
			faults.Add("tracing.sample", "must be 0 to 1")
		}
	}
	if c.API != nil {
		faults.Note("api", c.API.Check())
		if c.API.Codec != nil && c.Encryption == nil {
			faults.Add("api.codec", "must be left out without encryption: there is nothing to decode")
		}
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		faults.Add("log.format", `must be "text" or "json"`)
	}
}

// notes are what an operator should know of a configuration that is in order all the same.
func (c *Config) notes(made *parts) []string {
	notes := slices.Clone(made.exposed)
	if host, _, err := net.SplitHostPort(c.Listen); err == nil && !bridge.Loopback(host) && c.MetricsTokenFile == "" {
		notes = append(notes, "listen is beyond loopback and there is no metrics_token_file: /metrics is not served")
	}
	return notes
}

// TemporalTarget is an entry under targets of type temporal.
type TemporalTarget struct {
	// Namespace is where the callers' workflows live. Default: the worker's own.
	Namespace string `json:"namespace"`
	// Profile names a profile of temporal.toml for another connection than the worker's own. Its API key and its
	// certificates are read again when their files change. Default: none.
	Profile string `json:"profile"`
	// APIKeyFile is a file with the API key of the profile's connection, in place of the profile's own. It is read again
	// when it changes. Default: none.
	APIKeyFile string `json:"api_key_file" file:"secret"`
	// Encryption is how the callers read what they are sent. Default: by the worker's own keyset in its own namespace, in
	// the clear elsewhere.
	Encryption *TargetEncryption `json:"encryption"`
}

// temporalTarget is a target of type temporal.
type temporalTarget struct {
	// connection is nil for the worker's own.
	connection *temporalConnection
	namespace  string
}

// parts are what a configuration describes.
type parts struct {
	providers map[string]activities.Provider
	// own is the worker's own connection to Temporal.
	own *temporalConnection
	// temporal are the targets of type temporal, which are made once there is a connection.
	temporal map[string]temporalTarget
	targets  map[string]bridge.Target
	// limits are those of the targets, by the same names.
	limits map[string]bridge.Limits
	// share is how many calls to a target are under way at once where its entry does not say.
	share   int
	pollers []*stepfunctions.Poller
	// keys are those of the worker's own connection, nil for none; encrypted are the converters for a namespace of the
	// targets whose entry names some.
	keys      *encryption.Keyset
	encrypted map[string]func(namespace string) encryption.Converters
	keysets   []*encryption.Keyset
	closers   []func() error
	// files are those that the entries name, and exposed those that others can read, which is accepted.
	files   []namedFile
	exposed []string
}

func (p *parts) close() {
	for _, closer := range p.closers {
		_ = closer() //nolint:errcheck // the process ends
	}
}

// build makes the providers and checks the targets. It reports everything that is wrong with the configuration.
func (c *Config) build() (*parts, error) {
	made := &parts{
		providers: map[string]activities.Provider{},
		temporal:  map[string]temporalTarget{},
		targets:   map[string]bridge.Target{},
		limits:    map[string]bridge.Limits{},
		encrypted: map[string]func(string) encryption.Converters{},
		share:     c.Limits.Activities / 4,
	}
	faults := slices.Clone(c.faults)
	if c.Encryption != nil {
		var err error
		made.keys, err = made.openKeyset(*c.Encryption)
		faults.Note("encryption", err)
	}
	var err error
	made.own, err = openTemporal("", c.Temporal.APIKeyFile)
	faults.Note("temporal", err)
	for _, name := range slices.Sorted(maps.Keys(c.Providers)) {
		path := "providers." + name
		if err := bellhop.CheckName(name); err != nil {
			faults.Add(path, "the name %s", err)
		}
		faults.Note(path, made.addProvider(name, c.Providers[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Targets)) {
		path := "targets." + name
		if err := bellhop.CheckName(name); err != nil {
			faults.Add(path, "the name %s", err)
		}
		faults.Note(path, made.addTarget(name, c.Targets[name]))
		faults.Note(path, made.limits[name].Check())
	}
	for i, activity := range c.StepFunctionsActivities {
		path := fmt.Sprintf("step_functions_activities[%d]", i)
		if !faults.Note(path, activity.Check(made.targets)) {
			through, _ := made.targets[activity.Target].(*stepfunctions.Target)
			made.pollers = append(made.pollers, &stepfunctions.Poller{Activity: activity, Through: through})
		}
		if slices.ContainsFunc(c.StepFunctionsActivities[:i], func(a stepfunctions.Activity) bool { return a.ARN == activity.ARN }) {
			faults.Add(path+".arn", "is given twice")
		}
	}
	made.files = append(made.files, c.files(made)...)
	var refused bellhop.Faults
	made.exposed, refused = checkFiles(made.files, c.AllowReadableFiles)
	faults.Note("", refused.Err())
	if err := faults.Err(); err != nil {
		made.close()
		return nil, inFile(c.file, err)
	}
	return made, nil
}

// files are those that the configuration names besides its entries, and itself where it has hashes in it.
func (c *Config) files(made *parts) []namedFile {
	files := filesOf("", *c)
	if c.file != "" {
		kind := filePublic
		if c.API != nil && len(c.API.Tokens) > 0 {
			kind = fileHashes
		}
		files = append(files, namedFile{field: "the configuration", path: c.file, kind: kind})
	}
	if made.own != nil {
		files = append(files, made.own.keyFiles()...)
	}
	for _, target := range made.temporal {
		if target.connection != nil {
			files = append(files, target.connection.keyFiles()...)
		}
	}
	slices.SortFunc(files, func(a, b namedFile) int { return cmp.Or(cmp.Compare(a.field, b.field), cmp.Compare(a.path, b.path)) })
	return slices.Compact(files)
}

// typed is what every entry under providers and targets says.
type typed struct {
	Type string `json:"type"`
}

// kind reads the type of an entry, whatever else is in it.
func kind(raw json.RawMessage) string {
	var entry typed
	_ = json.Unmarshal(raw, &entry) //nolint:errcheck // what is wrong with it is reported with the type's own fields
	return entry.Type
}

func (p *parts) addProvider(name string, raw json.RawMessage) error {
	switch kind(raw) {
	case "simulated":
		return openProvider(p, name, raw, newSimulated)
	case "docker":
		return openProvider(p, name, raw, docker.New)
	case "ecs":
		return openProvider(p, name, raw, ecs.New)
	case "kubernetes":
		return openProvider(p, name, raw, kubernetes.New)
	default:
		return bellhop.Faults{{Path: "type", Problem: `must be "simulated", "docker", "ecs" or "kubernetes"`}}
	}
}

// closable is a provider that holds something open.
type closable interface {
	activities.Provider
	Close() error
}

// openProvider makes a provider as its entry says.
func openProvider[Config any, Provider closable](p *parts, name string, raw json.RawMessage, open func(Config) (Provider, error)) error {
	var config Config
	if err := bellhop.DecodeStrict(raw, new(typed), &config); err != nil {
		return err
	}
	p.files = append(p.files, filesOf("providers."+name, config)...)
	provider, err := open(config)
	if err != nil {
		return err
	}
	p.closers = append(p.closers, provider.Close)
	p.providers[name] = provider
	return nil
}

func (p *parts) addTarget(name string, raw json.RawMessage) error {
	var limits bridge.Limits
	switch kind(raw) {
	case "temporal":
		var entry TemporalTarget
		if err := p.readTarget(name, raw, limits, &entry); err != nil {
			return err
		}
		target, err := entry.open()
		p.temporal[name] = target
		var faults bellhop.Faults
		faults.Note("", err)
		faults.Note("encryption", p.encryptTarget(name, entry.Encryption))
		return faults.Err()
	case "restate":
		return openTarget(p, name, raw, limits, restate.New)
	case "stepfunctions":
		limits.PerSecond = stepfunctions.DefaultPerSecond
		return openTarget(p, name, raw, limits, stepfunctions.New)
	case "webhook":
		return openTarget(p, name, raw, limits, webhook.New)
	default:
		return bellhop.Faults{{Path: "type", Problem: `must be "temporal", "stepfunctions", "restate" or "webhook"`}}
	}
}

// open reads how the callers' Temporal is reached.
func (t TemporalTarget) open() (temporalTarget, error) {
	if t.Profile == "" {
		if t.APIKeyFile != "" {
			return temporalTarget{}, bellhop.Faults{{Path: "api_key_file", Problem: "needs a profile; the worker's own connection has its key under temporal"}}
		}
		return temporalTarget{namespace: t.Namespace}, nil
	}
	connection, err := openTemporal(t.Profile, t.APIKeyFile)
	if err != nil {
		if faults, ok := errors.AsType[bellhop.Faults](err); ok {
			return temporalTarget{}, faults
		}
		return temporalTarget{}, bellhop.Faults{{Path: "profile", Problem: err.Error()}}
	}
	return temporalTarget{connection: connection, namespace: cmp.Or(t.Namespace, connection.options.Namespace)}, nil
}

// openTarget makes a target as its entry says; limits are the defaults for its type.
func openTarget[Config any, Target bridge.Target](p *parts, name string, raw json.RawMessage, limits bridge.Limits,
	open func(Config) (Target, error),
) error {
	var config Config
	if err := p.readTarget(name, raw, limits, &config); err != nil {
		return err
	}
	target, err := open(config)
	if err != nil {
		return err
	}
	p.targets[name] = target
	if literal, ok := any(target).(interface{ Reachable() error }); ok {
		return literal.Reachable()
	}
	return nil
}

// readTarget reads an entry's own configuration and its limits.
func (p *parts) readTarget(name string, raw json.RawMessage, limits bridge.Limits, config any) error {
	err := bellhop.DecodeStrict(raw, new(typed), config, &limits)
	p.files = append(p.files, filesOf("targets."+name, config)...)
	if limits.Concurrency == 0 {
		limits.Concurrency = p.share
	}
	p.limits[name] = limits
	return err
}

// newSimulated gives the simulated provider its file: by default one for all workers of a user.
func newSimulated(config simulated.Config) (*simulated.Provider, error) {
	if config.Path == "" {
		var err error
		if config.Path, err = simulatedPath(); err != nil {
			return nil, bellhop.Faults{{Path: "path", Problem: fmt.Sprintf("is required: %s", err)}}
		}
	}
	return simulated.New(config)
}

func simulatedPath() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	folder := filepath.Join(cache, "bellhop")
	return filepath.Join(folder, "simulated.db"), os.MkdirAll(folder, 0o700)
}

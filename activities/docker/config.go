package docker

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"bellhop"
	"bellhop/activities"
	"bellhop/internal/allowlist"
)

// Config is an entry of kind docker under providers in the worker's configuration: one Docker engine. The zero value
// is the engine of this machine with every default.
type Config struct {
	// Host is where the engine listens: "unix:///var/run/docker.sock", "tcp://10.0.0.7:2376". Default: DOCKER_HOST,
	// else the socket of this machine. Keys and certificates for TLS come from DOCKER_CERT_PATH, as everywhere.
	Host string `json:"host"`
	// PublishAddress is the address of the engine's machine on which ports are published; the engine picks the port
	// numbers. Default "127.0.0.1": reachable from that machine only.
	PublishAddress string `json:"publish_address"`
	// AdvertiseAddress is the host name or address that endpoints name. Default: that of publish_address. Required when that
	// is "0.0.0.0" or "::", at which nobody can be called.
	AdvertiseAddress string `json:"advertise_address"`
	// StopTimeout is how long a container has to end by itself before it is killed, in whole seconds. Default "10s".
	StopTimeout bellhop.Duration `json:"stop_timeout"`
	// SteadyAfter is how long a container without a health check must have run to count as ready, so that one that
	// dies at its start is never called provisioned. Default "1s".
	SteadyAfter bellhop.Duration `json:"steady_after"`
	// Resync is how often the watcher looks at everything although the engine reported no event. Default "1m".
	Resync bellhop.Duration `json:"resync"`
	// PidsLimit is how many processes and threads a container may have; -1 is no limit. Default 4096.
	PidsLimit int64 `json:"pids_limit"`
	// Networks are patterns of the names of networks that operations may join. "*" stands for any text, and they may hold
	// {tenant}: "tenant-{tenant}". Default: none; operations may join default_network, and "none".
	Networks []string `json:"networks"`
	// DefaultNetwork is the name of the network that containers join when the operation names none. It must exist. It may
	// hold {tenant}, so that each tenant has a network of its own. Default: the engine's default bridge, on which the
	// containers of all tenants can reach each other.
	DefaultNetwork string `json:"default_network"`
	// Images are patterns of the repositories whose images operations may run, in full and without a tag, in the same
	// form: "docker.io/library/*", "registry.example.com/{tenant}/*". Default: all, but "pull": "never" is rejected.
	Images []string `json:"images"`
	// DockerConfig is the path of a Docker config.json of which pulls take their credentials, credential helpers
	// included. It is read at each pull. It may hold {tenant}: the registry is then asked with the tenant's own
	// credentials for an image that the engine has already, and each tenant needs a file. Default: none, images are pulled
	// anonymously.
	DockerConfig string `json:"docker_config" file:"secret"`
	// Secrets says what the secrets of operations may refer to. Default: nothing.
	Secrets SecretsConfig `json:"secrets"`
}

// Defaults of a [Config].
const (
	DefaultPublishAddress = "127.0.0.1"
	DefaultStopTimeout    = 10 * time.Second
	DefaultSteadyAfter    = time.Second
	DefaultResync         = time.Minute
	DefaultPidsLimit      = 4096
)

// withDefaults fills in the defaults and reports everything that is wrong, as [bellhop.Faults].
func (c Config) withDefaults() (Config, error) {
	var faults bellhop.Faults
	if c.PublishAddress == "" {
		c.PublishAddress = DefaultPublishAddress
	}
	address, err := netip.ParseAddr(c.PublishAddress)
	if err != nil {
		faults.Add("publish_address", "must be an IP address, not %q", c.PublishAddress)
	}
	if c.AdvertiseAddress == "" {
		c.AdvertiseAddress = c.PublishAddress
		if err == nil && address.IsUnspecified() {
			faults.Add("advertise_address", "is required when publish_address is %s", address)
		}
	}
	for _, d := range []struct {
		path     string
		value    *bellhop.Duration
		standard time.Duration
		least    time.Duration
	}{
		{"stop_timeout", &c.StopTimeout, DefaultStopTimeout, time.Second},
		{"steady_after", &c.SteadyAfter, DefaultSteadyAfter, time.Millisecond},
		{"resync", &c.Resync, DefaultResync, time.Second},
	} {
		if *d.value == 0 {
			*d.value = bellhop.Duration(d.standard)
		}
		if time.Duration(*d.value) < d.least {
			faults.Add(d.path, "must be at least %s", d.least)
		}
	}
	if time.Duration(c.StopTimeout)%time.Second != 0 {
		faults.Add("stop_timeout", "must be whole seconds: the engine knows no less")
	}
	switch {
	case c.PidsLimit == 0:
		c.PidsLimit = DefaultPidsLimit
	case c.PidsLimit < -1:
		faults.Add("pids_limit", "must be positive, or -1 for no limit")
	}
	c.checkNetworks(&faults)
	allowlist.Check("images", c.Images, &faults)
	allowlist.CheckTemplate("docker_config", c.DockerConfig, &faults)
	c.Secrets.check(&faults)
	return c, faults.Err()
}

// Networks that the engine itself makes. Besides these, "container:…" is another container's network.
const (
	networkDefault = "default"
	networkBridge  = "bridge"
	networkNone    = "none"
	networkHost    = "host"
)

// foreign says whether a network is never a tenant's: the machine's own, or another container's.
func foreign(network string) bool {
	return network == networkHost || strings.HasPrefix(network, "container:")
}

func (c Config) checkNetworks(faults *bellhop.Faults) {
	allowlist.Check("networks", c.Networks, faults)
	for i, pattern := range c.Networks {
		if foreign(pattern) {
			faults.Add(fmt.Sprintf("networks[%d]", i), "must not be %q: it gives tenants a network that is not theirs", pattern)
		}
	}
	if c.DefaultNetwork == "" {
		return
	}
	const at = "default_network"
	if foreign(c.DefaultNetwork) || strings.Contains(c.DefaultNetwork, "*") {
		faults.Add(at, "must be the name of a network, and not %q", c.DefaultNetwork)
		return
	}
	var alone bellhop.Faults
	allowlist.Check(at, []string{c.DefaultNetwork}, &alone)
	for _, fault := range alone {
		faults.Add(at, "%s", fault.Problem)
	}
	for _, pattern := range c.Networks {
		faults.Note(at, allowlist.Apart(pattern, c.DefaultNetwork))
	}
}

// OperationConfig is the provider_config of an operation.
type OperationConfig struct {
	// RestartPolicy says what the engine does with a container that exits. Default: it is restarted unless it was stopped.
	RestartPolicy RestartPolicy `json:"restart_policy"`
	// Network is the name of the network that the containers join. It must exist, and the provider's networks must allow
	// it. "none" gives them none. "host" and "container:…" are rejected. Default: the provider's default_network.
	Network string `json:"network"`
	// Pull is when the image is pulled: "missing" (the default), "always" or "never", which the provider's images must
	// allow.
	Pull string `json:"pull"`
	// Init runs the engine's own init as process 1, which reaps what the command leaves behind. A command that cannot
	// be started is then reported less exactly. Default false.
	Init bool `json:"init"`
}

// RestartPolicy says what the engine does with a container that exits.
type RestartPolicy struct {
	// Name is "no", "on-failure" or "unless-stopped" (the default).
	Name string `json:"name"`
	// MaxRetries is after how many restarts a container that never became ready counts as failed, 0 to 100. With
	// "on-failure" the engine stops restarting it then, ready or not. Default 5; with "no" it must be left out.
	MaxRetries *int `json:"max_retries"`
}

// Values of an [OperationConfig].
const (
	PullMissing = "missing"
	PullAlways  = "always"
	PullNever   = "never"

	RestartNo            = "no"
	RestartOnFailure     = "on-failure"
	RestartUnlessStopped = "unless-stopped"

	DefaultMaxRetries = 5
)

// What the engine itself takes.
const (
	minMemoryMiB = 6
	minCPUMillis = 10
)

// Check says what is wrong with provider_config and what Docker cannot do of the spec, at whichever engine.
func Check(op bellhop.Operation) error {
	_, faults := check(op)
	return faults.Err()
}

// check reads an operation's provider_config, fills in its defaults, and reports everything that is wrong with it and
// everything of the spec that Docker cannot do.
func check(op bellhop.Operation) (OperationConfig, bellhop.Faults) {
	var (
		config OperationConfig
		faults bellhop.Faults
	)
	if err := activities.DecodeConfig(op.ProviderConfig, &config); err != nil {
		if more, ok := err.(bellhop.Faults); ok { //nolint:errorlint // DecodeConfig returns faults as they are
			faults = append(faults, more...)
		} else {
			faults.Add("provider_config", "%s", err)
		}
	}
	config.check(op, &faults)
	if op.Verb != bellhop.Delete {
		checkSpec(op.Spec, &faults)
	}
	return config, faults
}

func (c *OperationConfig) check(op bellhop.Operation, faults *bellhop.Faults) {
	const at = "provider_config."
	switch c.Pull {
	case "":
		c.Pull = PullMissing
	case PullMissing, PullAlways, PullNever:
	default:
		faults.Add(at+"pull", `must be "missing", "always" or "never"`)
	}
	policy := &c.RestartPolicy
	switch policy.Name {
	case "":
		policy.Name = RestartUnlessStopped
	case RestartNo, RestartOnFailure, RestartUnlessStopped:
	default:
		faults.Add(at+"restart_policy.name", `must be "no", "on-failure" or "unless-stopped"`)
	}
	if policy.MaxRetries == nil {
		retries := DefaultMaxRetries
		if policy.Name == RestartNo {
			retries = 0
		}
		policy.MaxRetries = &retries
	} else if policy.Name == RestartNo {
		faults.Add(at+"restart_policy.max_retries", `must be left out when nothing is restarted`)
	}
	if *policy.MaxRetries < 0 || *policy.MaxRetries > 100 {
		faults.Add(at+"restart_policy.max_retries", "must be 0 to 100")
	}
	if policy.Name == RestartOnFailure && *policy.MaxRetries == 0 {
		// The engine takes 0 for "without end".
		faults.Add(at+"restart_policy.max_retries", `must be at least 1 with "on-failure"; use "no"`)
	}
	if foreign(c.Network) {
		faults.Add(at+"network", "must not be %q: it would give the tenant a network that is not its own", c.Network)
	}
	if c.Network == networkNone && len(op.Spec.Ports) > 0 {
		faults.Add(at+"network", `must not be "none" when there are ports to publish`)
	}
}

func checkSpec(spec bellhop.Spec, faults *bellhop.Faults) {
	faults.Note("spec.image", allowlist.CheckImage(spec.Image))
	if spec.MemoryMiB > 0 && spec.MemoryMiB < minMemoryMiB {
		faults.Add("spec.memory_mib", "must be at least %d for Docker", minMemoryMiB)
	}
	if spec.CPUMillis > 0 && spec.CPUMillis < minCPUMillis {
		faults.Add("spec.cpu_millis", "must be at least %d for Docker", minCPUMillis)
	}
	checkSecrets(spec, faults)
}

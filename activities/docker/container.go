package docker

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"bellhop"
	"bellhop/activities"
)

// Labels of a container. Together they hold all that is needed to judge an operation without having its input, which
// the watcher has not.
const (
	labelTenant     = "bellhop.tenant"
	labelResource   = "bellhop.resource"
	labelOperation  = "bellhop.operation"
	labelGeneration = "bellhop.generation"  // when the operation was requested, RFC 3339 with nanoseconds
	labelReplica    = "bellhop.replica"     // 1, 2, …
	labelReplicas   = "bellhop.replicas"    // how many there are to be
	labelSpecHash   = "bellhop.spec-hash"   // of the spec and the provider_config
	labelPorts      = "bellhop.ports"       // the names of ports: "80/tcp=http,53/udp=dns"
	labelMaxRetries = "bellhop.max-retries" // restarts before a container that was never ready has failed
)

// identity is what our labels say of a container.
type identity struct {
	tenant, resource  string
	generation        bellhop.Generation
	replica, replicas int
	specHash          string
	ports             map[string]string // "80/tcp" → "http"
	maxRetries        int
}

// identify reads our labels. A container with labels that we cannot have written is not ours.
func identify(labels map[string]string) (identity, bool) {
	at, err := time.Parse(time.RFC3339Nano, labels[labelGeneration])
	replica, err1 := strconv.Atoi(labels[labelReplica])
	replicas, err2 := strconv.Atoi(labels[labelReplicas])
	retries, err3 := strconv.Atoi(labels[labelMaxRetries])
	if err != nil || err1 != nil || err2 != nil || err3 != nil ||
		labels[labelTenant] == "" || labels[labelResource] == "" || labels[labelOperation] == "" {
		return identity{}, false
	}
	id := identity{
		tenant:     labels[labelTenant],
		resource:   labels[labelResource],
		generation: bellhop.Generation{RequestedAt: at, OperationID: labels[labelOperation]},
		replica:    replica,
		replicas:   replicas,
		specHash:   labels[labelSpecHash],
		ports:      map[string]string{},
		maxRetries: retries,
	}
	for pair := range strings.SplitSeq(labels[labelPorts], ",") {
		if port, name, ok := strings.Cut(pair, "="); ok {
			id.ports[port] = name
		}
	}
	return id, true
}

// labelsOf are the labels of an operation's nth replica.
func labelsOf(op bellhop.Operation, config OperationConfig, n int) map[string]string {
	ports := make([]string, len(op.Spec.Ports))
	for i, port := range op.Spec.Ports {
		ports[i] = fmt.Sprintf("%d/%s=%s", port.ContainerPort, port.Protocol, port.Name)
	}
	return map[string]string{
		labelTenant:     op.TenantID,
		labelResource:   op.Resource,
		labelOperation:  op.ID,
		labelGeneration: op.RequestedAt.UTC().Format(time.RFC3339Nano),
		labelReplica:    strconv.Itoa(n),
		labelReplicas:   strconv.Itoa(op.Spec.Replicas),
		labelSpecHash:   specHash(op, config),
		labelPorts:      strings.Join(ports, ","),
		labelMaxRetries: strconv.Itoa(*config.RestartPolicy.MaxRetries),
	}
}

// containerName is the name of an operation's nth replica. The engine gives a name to one container only, which is what
// keeps two workers, or one that asks again, from making two sets. The hash is over the parts with their lengths, so
// that tenant "a-b" with resource "c" and tenant "a" with "b-c" differ; the operation is in it so that the containers
// of an update can stand beside those that they replace.
func containerName(op bellhop.Operation, n int) string {
	hash := sha256.New()
	for _, part := range []string{op.TenantID, op.Resource, op.ID} {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		hash.Write(length[:])
		hash.Write([]byte(part))
	}
	return fmt.Sprintf("bellhop-%s-%s-%d-%s", op.TenantID, op.Resource, n, hex.EncodeToString(hash.Sum(nil))[:12])
}

// specHash tells whether a container was made from what the operation asks for. It covers environment values too: it
// is one SHA-256 over everything with the operation's id, and whoever can read the label can read the container's
// environment beside it.
func specHash(op bellhop.Operation, config OperationConfig) string {
	text, err := json.Marshal(struct {
		ID     string
		Spec   bellhop.Spec
		Config OperationConfig
	}{op.ID, op.Spec, config})
	if err != nil { // plain data
		panic(fmt.Sprintf("docker: hash a spec: %s", err))
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// createOptions translate the spec, for a container in a network and with an environment: the spec's, and what its
// secrets refer to.
func (p *Provider) createOptions(op bellhop.Operation, config OperationConfig, networkID string, env []string, n int,
) client.ContainerCreateOptions {
	spec := op.Spec
	stop := int(time.Duration(p.config.StopTimeout) / time.Second)
	pids := p.config.PidsLimit
	options := client.ContainerCreateOptions{
		Name: containerName(op, n),
		Config: &container.Config{
			Image:       spec.Image,
			Entrypoint:  spec.Command,
			Cmd:         spec.Args,
			Env:         env,
			Labels:      labelsOf(op, config, n),
			StopTimeout: &stop,
		},
		HostConfig: &container.HostConfig{
			RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyMode(config.RestartPolicy.Name)},
			NetworkMode:   container.NetworkMode(networkID),
			// A tenant's process gains no privileges by a setuid binary.
			SecurityOpt: []string{"no-new-privileges"},
			Resources: container.Resources{
				NanoCPUs:  int64(spec.CPUMillis) * 1e6,
				Memory:    int64(spec.MemoryMiB) << 20,
				PidsLimit: &pids,
			},
		},
	}
	// Without this the engine adds as much swap again, and a limit of 256 MiB is one of 512.
	options.HostConfig.MemorySwap = options.HostConfig.Memory
	if config.RestartPolicy.Name == RestartOnFailure {
		options.HostConfig.RestartPolicy.MaximumRetryCount = *config.RestartPolicy.MaxRetries
	}
	if config.Init {
		options.HostConfig.Init = &config.Init
	}
	if check := spec.HealthCheck; check != nil {
		// StartInterval is left alone: engines before API 1.44 ignore it without a word.
		options.Config.Healthcheck = &container.HealthConfig{
			Test:        append([]string{"CMD"}, check.Command...),
			Interval:    time.Duration(check.Interval),
			Timeout:     time.Duration(check.Timeout),
			Retries:     check.Retries,
			StartPeriod: time.Duration(check.StartPeriod),
		}
	}
	if len(spec.Ports) > 0 {
		options.Config.ExposedPorts = network.PortSet{}
		options.HostConfig.PortBindings = network.PortMap{}
		address := netip.MustParseAddr(p.config.PublishAddress)
		for _, port := range spec.Ports {
			number := network.MustParsePort(fmt.Sprintf("%d/%s", port.ContainerPort, port.Protocol))
			options.Config.ExposedPorts[number] = struct{}{}
			// Without a number the engine picks a free one.
			options.HostConfig.PortBindings[number] = []network.PortBinding{{HostIP: address}}
		}
	}
	return options
}

func envList(env map[string]string) []string {
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// nameHeld is how long a name may be held by a container that cannot be seen: the engine reserves the name first and
// shows the container a moment later.
const nameHeld = 10 * time.Second

// create makes the operation's nth replica, or finds it made.
func (p *Provider) create(ctx context.Context, op bellhop.Operation, config OperationConfig, networkID string, env []string, n int,
) (string, error) {
	options := p.createOptions(op, config, networkID, env, n)
	doing := "create container " + options.Name
	created, err := p.docker.ContainerCreate(ctx, options)
	if err == nil {
		return created.ID, nil
	}
	if !errdefs.IsConflict(err) {
		return "", scrubbed(classify(err, doing), env)
	}
	var found container.InspectResponse
	seen, lookErr := p.poll(ctx, nameHeld, func() (bool, error) {
		inspected, err := p.docker.ContainerInspect(ctx, options.Name, client.ContainerInspectOptions{})
		if errdefs.IsNotFound(err) {
			return false, nil
		}
		found = inspected.Container
		return err == nil, err
	})
	switch {
	case lookErr != nil:
		return "", classify(lookErr, "inspect container "+options.Name)
	case !seen:
		return "", bellhop.Fail(bellhop.CodeProviderUnavailable, "cannot %s: the engine holds its name and shows no container", doing).
			Because(err)
	}
	id, ours := identify(found.Config.Labels)
	if !ours || id.tenant != op.TenantID || id.resource != op.Resource || id.generation.OperationID != op.ID {
		return "", bellhop.Fail(bellhop.CodeResourceConflict,
			"container %s belongs to somebody else; it was left alone", options.Name).
			Because(err).With("container_id", found.ID)
	}
	if want := options.Config.Labels[labelSpecHash]; id.specHash != want {
		return "", bellhop.Fail(bellhop.CodeResourceConflict,
			"container %s was made by operation %s from another spec; it was left alone", options.Name, op.ID).
			Because(err).With("container_id", found.ID)
	}
	return found.ID, nil
}

// start starts a container that never ran. One that ran and exited is left as it is: it is the evidence.
func (p *Provider) start(ctx context.Context, id string) error {
	inspected, err := p.docker.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if errdefs.IsNotFound(err) {
		return nil // removed by somebody; observing says so
	}
	if err != nil {
		return classify(err, "inspect container "+id)
	}
	if state := inspected.Container.State; state.Status != container.StateCreated || state.Error != "" {
		return nil
	}
	_, err = p.docker.ContainerStart(ctx, id, client.ContainerStartOptions{})
	if err == nil || errdefs.IsNotFound(err) {
		return nil
	}
	failure := scrubbed(classify(err, "start container "+strings.TrimPrefix(inspected.Container.Name, "/")), inspected.Container.Config.Env)
	if activities.Ended(failure) == nil && !errdefs.IsInternal(err) {
		return failure
	}
	// The engine keeps the reason in the container's state, with the exit code. Observing finds it there.
	again, lookErr := p.docker.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if lookErr == nil && again.Container.State.Error != "" {
		return nil
	}
	return failure
}

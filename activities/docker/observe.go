package docker

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"bellhop"
)

// key names a resource.
type key struct{ tenant, resource string }

func keyOf(op bellhop.Operation) key { return key{op.TenantID, op.Resource} }

// member is a container of ours as the engine lists it.
type member struct {
	identity
	id, name  string
	state     container.ContainerState
	status    string // "Up 2 seconds (healthy)"
	endpoints []bellhop.Endpoint
}

// list lists the containers of one resource, or all of ours for the zero key, by replica.
func (p *Provider) list(ctx context.Context, of key) ([]member, error) {
	filters := make(client.Filters).Add("label", labelOperation)
	if of != (key{}) {
		filters.Add("label", labelTenant+"="+of.tenant, labelResource+"="+of.resource)
	}
	listed, err := p.docker.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	if err != nil {
		return nil, classify(err, "list containers")
	}
	members := make([]member, 0, len(listed.Items))
	for _, item := range listed.Items {
		id, ours := identify(item.Labels)
		if !ours {
			continue
		}
		m := member{identity: id, id: item.ID, state: item.State, status: item.Status}
		if len(item.Names) > 0 {
			m.name = strings.TrimPrefix(item.Names[0], "/")
		}
		for _, port := range item.Ports {
			if port.PublicPort != 0 {
				m.addEndpoint(p.config.AdvertiseAddress, fmt.Sprintf("%d/%s", port.PrivatePort, port.Type), port.PublicPort)
			}
		}
		m.sortEndpoints()
		members = append(members, m)
	}
	slices.SortFunc(members, func(a, b member) int {
		return cmp.Or(cmp.Compare(a.replica, b.replica), strings.Compare(a.id, b.id))
	})
	return members, nil
}

func (m *member) addEndpoint(host, port string, number uint16) {
	name := m.ports[port]
	if name == "" { // published by the image's or somebody else's wish; the spec has no name for it
		return
	}
	endpoint := bellhop.Endpoint{Name: name, Host: host, Port: int(number)}
	// An engine with IPv6 publishes on both and may list both.
	if !slices.Contains(m.endpoints, endpoint) {
		m.endpoints = append(m.endpoints, endpoint)
	}
}

func (m *member) sortEndpoints() {
	slices.SortFunc(m.endpoints, func(a, b bellhop.Endpoint) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Port, b.Port))
	})
}

// Inventory lists the containers of ours that stand, by operation.
func (p *Provider) Inventory(ctx context.Context) ([]bellhop.Holding, error) {
	members, err := p.list(ctx, key{})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(members, func(a, b member) int {
		return cmp.Or(strings.Compare(a.tenant, b.tenant), strings.Compare(a.resource, b.resource),
			strings.Compare(a.generation.OperationID, b.generation.OperationID))
	})
	var holdings []bellhop.Holding
	for _, m := range members {
		if last := len(holdings) - 1; last < 0 || holdings[last].OperationID != m.generation.OperationID {
			holdings = append(holdings, bellhop.Holding{
				TenantID: m.tenant, Resource: m.resource,
				OperationID: m.generation.OperationID, RequestedAt: m.generation.RequestedAt,
			})
		}
		held := &holdings[len(holdings)-1]
		held.ResourceIDs.ContainerIDs = append(held.ResourceIDs.ContainerIDs, m.id)
		held.ResourceIDs.ContainerNames = append(held.ResourceIDs.ContainerNames, m.name)
		if m.state == container.StateRunning {
			held.Running++
		}
	}
	return holdings, nil
}

// standing is a resource's containers as one operation sees them.
type standing struct{ mine, older, newer []member }

func stand(members []member, generation bellhop.Generation) standing {
	var there standing
	for _, m := range members {
		switch {
		case m.generation.OperationID == generation.OperationID:
			there.mine = append(there.mine, m)
		case m.generation.After(generation):
			there.newer = append(there.newer, m)
		default:
			there.older = append(there.older, m)
		}
	}
	return there
}

// observation lists all that stands, the operation's own first: also what still serves beside what failed.
func (there standing) observation(of bellhop.Generation) bellhop.Observation {
	observation := bellhop.Observation{OperationID: of.OperationID, RequestedAt: of.RequestedAt}
	for _, m := range slices.Concat(there.mine, there.newer, there.older) {
		observation.ResourceIDs.ContainerIDs = append(observation.ResourceIDs.ContainerIDs, m.id)
		observation.ResourceIDs.ContainerNames = append(observation.ResourceIDs.ContainerNames, m.name)
		if m.state == container.StateRunning {
			observation.Endpoints = append(observation.Endpoints, m.endpoints...)
		}
	}
	return observation
}

func newestOf(members []member) bellhop.Generation {
	newest := members[0].generation
	for _, m := range members {
		if m.generation.After(newest) {
			newest = m.generation
		}
	}
	return newest
}

func (there standing) superseded(of bellhop.Generation) bellhop.Observation {
	observation := there.observation(of)
	observation.Phase = bellhop.PhaseSuperseded
	observation.Progress.Message = fmt.Sprintf("operation %s took over", newestOf(there.newer).OperationID)
	return observation
}

// Observe tells where the operation stands. Of an operation whose containers are all ready it removes what they
// replaced, and calls it ready when nothing of that is left: this is the end of what was asked for, the engine does not
// do it by itself, and no watcher may be there to do it. It changes nothing else.
func (p *Provider) Observe(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	members, err := p.list(ctx, keyOf(op))
	if err != nil {
		return bellhop.Observation{}, err
	}
	there := stand(members, op.Generation())
	if len(there.newer) > 0 {
		return there.superseded(op.Generation()), nil
	}
	if op.Verb == bellhop.Delete {
		observation := there.observation(op.Generation())
		observation.Phase = bellhop.PhaseGone
		if len(members) > 0 {
			observation.Phase = bellhop.PhasePending
			observation.Progress.Message = removing(len(members))
		}
		return observation, nil
	}
	details, err := p.inspect(ctx, there.mine)
	if err != nil {
		return bellhop.Observation{}, err
	}
	observation, _ := p.assess(ctx, op.Generation(), there, details)
	if observation.Phase == bellhop.PhaseReady && len(there.older) > 0 {
		if err := p.remove(ctx, there.older); err != nil {
			return bellhop.Observation{}, err
		}
		there.older = nil
		observation, _ = p.assess(ctx, op.Generation(), there, details)
	}
	return observation, nil
}

// inspect inspects containers, a few at a time. Those that are gone are missing from what it returns.
func (p *Provider) inspect(ctx context.Context, members []member) (map[string]container.InspectResponse, error) {
	found := make([]container.InspectResponse, len(members))
	err := inParallel(ctx, len(members), func(ctx context.Context, i int) error {
		inspected, err := p.docker.ContainerInspect(ctx, members[i].id, client.ContainerInspectOptions{})
		if errdefs.IsNotFound(err) {
			return nil
		}
		found[i] = inspected.Container
		return classify(err, "inspect container "+members[i].name)
	})
	if err != nil {
		return nil, err
	}
	details := make(map[string]container.InspectResponse, len(members))
	for _, detail := range found {
		if detail.ID != "" {
			details[detail.ID] = detail
		}
	}
	return details, nil
}

// assess says where an operation stands whose containers were inspected. Nothing newer is there. It also says after
// how long it is worth looking again although the engine reports no event; zero is never.
func (p *Provider) assess(ctx context.Context, of bellhop.Generation, there standing,
	details map[string]container.InspectResponse,
) (bellhop.Observation, time.Duration) {
	var (
		left    []member
		sights  []sight
		ready   int
		started bool
		again   time.Duration
	)
	for _, m := range there.mine {
		detail, ok := details[m.id]
		if !ok || detail.State.Status == container.StateRemoving {
			continue
		}
		m.refresh(p.config.AdvertiseAddress, detail)
		s := p.judge(m, detail)
		left, sights = append(left, m), append(sights, s)
		started = started || detail.State.Status != container.StateCreated
		if s.phase == bellhop.PhaseReady {
			ready++
		}
		if s.again > 0 && (again == 0 || s.again < again) {
			again = s.again
		}
	}
	there.mine = left
	observation := there.observation(of)
	if len(left) == 0 {
		observation.Phase = bellhop.PhaseGone
		observation.Progress.Message = "no container of the operation is left"
		return observation, 0
	}
	desired := left[0].replicas
	observation.Progress = bellhop.Progress{Ready: ready, Desired: desired}
	if failure := p.failureOf(ctx, left, sights, details); failure != nil {
		observation.Phase, observation.Failure = bellhop.PhaseFailed, failure
		observation.Progress.Message = failure.Message
		return observation, 0
	}
	switch {
	case len(left) < desired && started:
		observation.Phase = bellhop.PhaseFailed
		observation.Failure = bellhop.Fail(bellhop.CodeContainerExited,
			"%d of %d containers were removed by somebody else", desired-len(left), desired)
		observation.Progress.Message = observation.Failure.Message
		again = 0
	case ready < desired:
		observation.Phase = bellhop.PhasePending
		observation.Progress.Message = fmt.Sprintf("%d of %d containers are ready", ready, desired)
		for _, s := range sights {
			if s.phase == bellhop.PhasePending {
				observation.Progress.Message += "; " + s.message
				break
			}
		}
	default:
		observation.Phase = bellhop.PhaseReady
		observation.Progress.Message = fmt.Sprintf("%d of %d containers are ready", ready, desired)
	}
	return observation, again
}

// refresh replaces what the list said by what inspecting said a moment later.
func (m *member) refresh(host string, detail container.InspectResponse) {
	m.state = detail.State.Status
	m.endpoints = nil
	if detail.NetworkSettings != nil {
		for port, bindings := range detail.NetworkSettings.Ports {
			for _, binding := range bindings {
				var number uint16
				if _, err := fmt.Sscanf(binding.HostPort, "%d", &number); err == nil {
					m.addEndpoint(host, port.String(), number)
				}
			}
		}
	}
	m.sortEndpoints()
}

// sight is where one container stands.
type sight struct {
	phase   bellhop.Phase
	message string           // of a pending one
	failure *bellhop.Failure // of a failed one, without its log yet
	again   time.Duration
}

// steadyAfterRestart is how long a container without a health check must run to count as ready once it has been
// restarted. The engine itself takes a container that ran for as long for a success.
const steadyAfterRestart = 10 * time.Second

// judge says where a container stands.
func (p *Provider) judge(m member, detail container.InspectResponse) sight {
	state := detail.State
	pending := func(format string, args ...any) sight {
		return sight{phase: bellhop.PhasePending, message: m.name + " " + fmt.Sprintf(format, args...)}
	}
	switch state.Status {
	case container.StateCreated:
		if state.Error != "" {
			return sight{phase: bellhop.PhaseFailed, failure: notStarted(m, detail)}
		}
		return pending("is not started yet")
	case container.StateRunning:
		return p.judgeRunning(m, detail, pending)
	case container.StateRestarting:
		// The engine counts a restart when it decides on it, so this many have been made and one more is to come.
		if detail.RestartCount > m.maxRetries {
			return sight{phase: bellhop.PhaseFailed, failure: exited(m, detail)}
		}
		return pending("exited with code %d and is restarted, %d of %d times", state.ExitCode, detail.RestartCount, m.maxRetries)
	case container.StateExited, container.StateDead:
		return sight{phase: bellhop.PhaseFailed, failure: exited(m, detail)}
	}
	return pending("is %s", state.Status)
}

func (p *Provider) judgeRunning(m member, detail container.InspectResponse, pending func(string, ...any) sight) sight {
	if health := detail.State.Health; health != nil && health.Status != container.NoHealthcheck && health.Status != "" {
		switch health.Status {
		case container.Healthy:
			return sight{phase: bellhop.PhaseReady}
		case container.Unhealthy:
			return sight{phase: bellhop.PhaseFailed, failure: unhealthy(m, detail)}
		}
		return pending("is not healthy yet")
	}
	steady := time.Duration(p.config.SteadyAfter)
	if detail.RestartCount > 0 {
		steady = max(steady, steadyAfterRestart)
	}
	at, err := time.Parse(time.RFC3339Nano, detail.State.StartedAt)
	if err != nil {
		return pending("runs since nobody knows when (%q)", detail.State.StartedAt)
	}
	if age := p.clock.Now().Sub(at); age < steady {
		s := pending("has run for less than %s", steady)
		s.again = steady - age
		return s
	}
	return sight{phase: bellhop.PhaseReady}
}

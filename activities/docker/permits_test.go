package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"bellhop"
)

// What a tenant may name, and what it is told when it may not.
func TestCheck_OnlyWhatTheOperatorAllows(t *testing.T) {
	const (
		network = "provider_config.network: is not allowed to tenant acme; the operator allows networks in the provider's networks"
		image   = "spec.image: is not allowed to tenant acme; the operator allows repositories in the provider's images"
		never   = `provider_config.pull: must not be "never": `
	)
	own := Config{Networks: []string{"db-{tenant}", "shared"}, DefaultNetwork: "tenant-{tenant}"}
	private := Config{Images: []string{"docker.io/library/*", "registry.example.com/{tenant}/*"}}
	for _, row := range []struct {
		reason  string
		entry   Config
		image   string
		config  string
		want    string
		notHere bool // it is wrong at every worker
	}{
		{reason: "the default"},
		{reason: "the default by its name", config: `{"network": "default"}`},
		{reason: "the default by its name", config: `{"network": "bridge"}`},
		{reason: "no network", config: `{"network": "none"}`},
		{reason: "the network of bellhop's own Temporal", config: `{"network": "bellhop_default"}`, want: network},
		{reason: "another tenant's network", config: `{"network": "tenant-rival"}`, want: network},
		{reason: "a network that is called like its own", config: `{"network": "acme"}`, want: network},
		{reason: "an id", config: `{"network": "0123456789ab"}`, want: network},
		{reason: "another spelling of host", config: `{"network": "HOST"}`, want: network},
		{reason: "another spelling of host", config: `{"network": " host"}`, want: network},
		{reason: "another spelling of bridge", config: `{"network": "Bridge"}`, want: network},
		{reason: "another spelling of container", config: `{"network": "Container:x"}`, want: network},
		{
			reason: "a container's network, whatever is allowed", entry: Config{Networks: []string{"*"}}, config: `{"network": "container:x"}`,
			want: `provider_config.network: must not be "container:x": it would give the tenant a network that is not its own`, notHere: true,
		},
		{
			reason: "the machine's network, whatever is allowed", entry: Config{Networks: []string{"*"}}, config: `{"network": "host"}`,
			want: `provider_config.network: must not be "host": it would give the tenant a network that is not its own`, notHere: true,
		},
		{reason: "what is allowed", entry: Config{Networks: []string{"*"}}, config: `{"network": "anything"}`},
		{reason: "its own network", entry: own, config: `{"network": "db-acme"}`},
		{reason: "its own default", entry: own, config: `{"network": "tenant-acme"}`},
		{reason: "a network for all", entry: own, config: `{"network": "shared"}`},
		{reason: "the default means the provider's", entry: own, config: `{"network": "default"}`},
		{reason: "the bridge that all share is no default any more", entry: own, config: `{"network": "bridge"}`, want: network},
		{reason: "another's network", entry: own, config: `{"network": "db-rival"}`, want: network},
		{reason: "another's default", entry: own, config: `{"network": "tenant-rival"}`, want: network},
		{reason: "a network whose name goes on", entry: own, config: `{"network": "db-acme-2"}`, want: network},

		{reason: "any image", image: "registry.example.com/rival/web:1"},
		{reason: "an image that no registry is asked for", config: `{"pull": "never"}`, want: never + "it is for repositories that the operator allows in the provider's images"},
		{reason: "an image that is allowed", entry: private, config: `{"pull": "never"}`},
		{reason: "its own image", entry: private, image: "registry.example.com/acme/web:1", config: `{"pull": "never"}`},
		{reason: "another's image", entry: private, image: "registry.example.com/rival/web:1", want: image},
		{reason: "another's image", entry: private, image: "registry.example.com/rival/web:1", config: `{"pull": "never"}`, want: image},
		{reason: "another registry", entry: private, image: "ghcr.io/library/nginx", want: image},
		{reason: "an empty list allows nothing", entry: Config{Images: []string{}}, want: image},
		{
			reason: "where the registry decides, it is asked", entry: Config{DockerConfig: "/{tenant}.json", Images: []string{"*"}},
			config: `{"pull": "never"}`, want: never + "the registry decides which images a tenant may run",
		},
		{reason: "where the registry decides, it is asked", entry: Config{DockerConfig: "/{tenant}.json"}, config: `{"pull": "missing"}`},
		{
			reason: "the id of what is on the engine", image: "sha256:0123456789ab", notHere: true,
			want: "spec.image: must be the name of an image and not its id; a name of digits and a to f alone needs a tag",
		},
	} {
		p, err := New(row.entry)
		require.NoError(t, err, row.reason)
		closeAtEnd(t, p)
		if row.image == "" {
			row.image = "nginx:1.27"
		}
		op := bellhop.Operation{
			Verb: bellhop.Provision, TenantID: "acme", Spec: bellhop.Spec{Image: row.image}, ProviderConfig: json.RawMessage(row.config),
		}
		err = p.Check(op)
		faults, _ := err.(bellhop.Faults) //nolint:errorlint // Check returns faults as they are
		if got := faults.Error(); got != row.want {
			t.Errorf("%s: %s %s:\ngot  %s\nwant %s", row.reason, row.image, row.config, got, row.want)
		}
		if row.want != "" && faults.OnlyHere() == row.notHere {
			t.Errorf("%s: %s: depends on this worker's configuration: %t", row.reason, faults, faults.OnlyHere())
		}
		if strings.Contains(faults.Error(), "rival") {
			t.Errorf("%s: another tenant's name shows in %q", row.reason, faults)
		}
		op.Verb, op.Spec = bellhop.Delete, bellhop.Spec{}
		if err := p.Check(op); err != nil && !row.notHere {
			t.Errorf("%s: what was made can no longer be deleted: %s", row.reason, err)
		}
	}
}

// makeNetwork makes a network that is removed at the end.
func makeNetwork(b *bench, name string) (string, error) {
	b.Helper()
	docker := raw(b.T)
	made, err := docker.NetworkCreate(b.Context(), name, client.NetworkCreateOptions{Driver: "bridge", Internal: true})
	if err != nil {
		return "", err
	}
	b.Cleanup(func() {
		sweep(b.T, b.tenant) // a network in use cannot be removed
		if _, err := docker.NetworkRemove(context.WithoutCancel(b.Context()), made.ID, client.NetworkRemoveOptions{}); err != nil {
			b.Logf("remove network %s: %s", name, err)
		}
	})
	return made.ID, nil
}

// A name that is allowed means the network with that name, and none whose id it is or begins.
func TestNetwork_IsTheOneWithTheName(t *testing.T) {
	b := setup(t, Config{})
	forbidden, err := makeNetwork(b, "forbidden-"+b.tenant)
	require.NoError(t, err)
	for _, name := range []string{forbidden, forbidden[:12], forbidden[:3], "no-such-" + b.tenant} {
		p := b.provider(Config{Networks: []string{name}})
		op := b.provision("web", func(op *bellhop.Operation) { op.ProviderConfig = json.RawMessage(fmt.Sprintf(`{"network": %q}`, name)) })
		seen, err := p.Provision(t.Context(), op)
		require.NoError(t, err)
		require.Equal(t, bellhop.PhaseFailed, seen.Phase, name)
		require.Equal(t, bellhop.CodeInvalidSpec, seen.Failure.Code)
		require.Empty(t, b.ids(), "a container joined the network %s", name)
	}
	twice := "twice-" + b.tenant
	_, err = makeNetwork(b, twice)
	require.NoError(t, err)
	p := b.provider(Config{Networks: []string{"twice-*"}})
	op := b.provision("web", func(op *bellhop.Operation) {
		op.ProviderConfig = json.RawMessage(fmt.Sprintf(`{"network": %q}`, twice))
	})
	if _, err := makeNetwork(b, twice); err == nil { // newer engines make no second one
		seen, err := p.Provision(t.Context(), op)
		require.NoError(t, err)
		require.Equal(t, bellhop.PhaseFailed, seen.Phase)
		require.Empty(t, b.ids(), "of two networks with one name a container joined one")
	}
}

// Each tenant's containers join its own network, and stay what they were when they are asked for again.
func TestNetwork_OfEachTenant(t *testing.T) {
	b := setup(t, Config{DefaultNetwork: "tenant-{tenant}", Networks: []string{"db-{tenant}"}})
	ids := map[string]string{}
	for _, name := range []string{"tenant-" + b.tenant, "db-" + b.tenant} {
		id, err := makeNetwork(b, name)
		require.NoError(t, err)
		ids[name] = id
	}
	for config, want := range map[string]string{``: "tenant-" + b.tenant, fmt.Sprintf(`{"network": "db-%s"}`, b.tenant): "db-" + b.tenant} {
		op := b.provision("web", func(op *bellhop.Operation) { op.ProviderConfig = json.RawMessage(config) })
		seen := b.want(op, bellhop.PhaseReady)
		found, err := b.docker.ContainerInspect(t.Context(), seen.ResourceIDs.ContainerIDs[0], client.ContainerInspectOptions{})
		require.NoError(t, err)
		joined := found.Container.NetworkSettings.Networks
		require.Len(t, joined, 1)
		for name, endpoint := range joined {
			require.Equal(t, ids[want], endpoint.NetworkID, "it joined %s", name)
		}
		require.Equal(t, seen.ResourceIDs, b.want(op, bellhop.PhaseReady).ResourceIDs)
	}
	stranger := b.tenant + "x"
	op := b.provision("web", func(op *bellhop.Operation) { op.TenantID = stranger })
	seen, err := b.Provision(t.Context(), op)
	require.NoError(t, err)
	require.Equal(t, bellhop.PhaseFailed, seen.Phase, "a tenant without a network has none")
	require.Contains(t, seen.Failure.Message, "tenant-"+stranger)
}

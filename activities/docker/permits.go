package docker

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"bellhop"
	"bellhop/internal/allowlist"
)

// permits reports what the provider's entry does not allow the operation's tenant to name.
func (c Config) permits(op bellhop.Operation, config OperationConfig, faults *bellhop.Faults) {
	const at = "provider_config."
	network := c.networkName(op.TenantID, config.Network)
	switch {
	case foreign(config.Network): // reported already
	case !c.allowsNetwork(op.TenantID, network):
		faults.AddHere(at+"network", "is not allowed to tenant %s; the operator allows networks in the provider's networks", op.TenantID)
	case network == networkNone && config.Network != networkNone && len(op.Spec.Ports) > 0:
		faults.AddHere("spec.ports", "must be left out: the provider's default_network gives containers no network")
	}
	if op.Spec.Image != "" && c.Images != nil && !allowlist.AllowsImage(c.Images, op.TenantID, op.Spec.Image) {
		faults.AddHere("spec.image", "is not allowed to tenant %s; the operator allows repositories in the provider's images", op.TenantID)
	}
	// No registry is asked whether the tenant may run the image, so the operator must have said so.
	switch {
	case config.Pull != PullNever:
	case c.ownCredentials():
		faults.AddHere(at+"pull", `must not be "never": the registry decides which images a tenant may run`)
	case c.Images == nil:
		faults.AddHere(at+"pull", `must not be "never": it is for repositories that the operator allows in the provider's images`)
	}
}

// networkName is the network that an operation's containers join; empty is the engine's default.
func (c Config) networkName(tenant, asked string) string {
	if asked == "" || asked == networkDefault {
		return allowlist.ForTenant(c.DefaultNetwork, tenant)
	}
	return asked
}

func (c Config) allowsNetwork(tenant, name string) bool {
	switch {
	case foreign(name): // a tenant called "st" where the list says "ho{tenant}"
		return false
	case name == networkNone, name == allowlist.ForTenant(c.DefaultNetwork, tenant), name == networkBridge && c.DefaultNetwork == "":
		return true
	}
	return allowlist.Allows(c.Networks, tenant, name)
}

// network is the id of the network that a tenant's containers join, or one of the engine's own names.
//
// The engine takes an id, or the beginning of one, where it takes a name. A name that the list allows could be another
// network's id, so the network that was found must have that very name; by its id it stays the one that was checked.
func (p *Provider) network(ctx context.Context, tenant, asked string) (string, error) {
	name := p.config.networkName(tenant, asked)
	switch name {
	case "", networkBridge, networkNone:
		return name, nil
	}
	found, err := p.docker.NetworkInspect(ctx, name, client.NetworkInspectOptions{})
	if err == nil && found.Network.Name == name {
		return found.Network.ID, nil
	}
	if err == nil || errdefs.IsNotFound(err) || errdefs.IsInvalidArgument(err) { // which it says of a name that two have
		return "", bellhop.Fail(bellhop.CodeInvalidSpec, "the engine has no network, or several, with the name %s", name).Because(err)
	}
	return "", classify(err, "inspect network "+name)
}

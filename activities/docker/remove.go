package docker

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"bellhop"
)

// goneWithin is how long the engine may take to remove a container that somebody else is removing already.
const goneWithin = 10 * time.Second

// remove stops and removes containers, with the volumes that the engine made for them alone, and returns when none is
// left. Containers that are gone already are fine, also when somebody else removes them meanwhile.
func (p *Provider) remove(ctx context.Context, members []member) error {
	return inParallel(ctx, len(members), func(ctx context.Context, i int) error {
		return p.removeOne(ctx, members[i])
	})
}

func (p *Provider) removeOne(ctx context.Context, m member) error {
	// Stopping what is stopped is no error.
	seconds := int(time.Duration(p.config.StopTimeout) / time.Second)
	_, err := p.docker.ContainerStop(ctx, m.id, client.ContainerStopOptions{Timeout: &seconds})
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil && !errdefs.IsConflict(err) && !errdefs.IsNotModified(err) {
		return classify(err, "stop container "+m.name)
	}
	_, err = p.docker.ContainerRemove(ctx, m.id, client.ContainerRemoveOptions{RemoveVolumes: true, Force: true})
	if err == nil || errdefs.IsNotFound(err) {
		return nil
	}
	if !errdefs.IsConflict(err) {
		return classify(err, "remove container "+m.name)
	}
	// Somebody else is removing it.
	gone, err := p.poll(ctx, goneWithin, func() (bool, error) {
		_, err := p.docker.ContainerInspect(ctx, m.id, client.ContainerInspectOptions{})
		if errdefs.IsNotFound(err) {
			return true, nil
		}
		return false, err
	})
	if err != nil {
		return classify(err, "inspect container "+m.name)
	}
	if !gone {
		return bellhop.Fail(bellhop.CodeProviderUnavailable, "the engine has been removing container %s for %s", m.name, goneWithin)
	}
	return nil
}

func removing(n int) string {
	if n == 1 {
		return "removing 1 container"
	}
	return fmt.Sprintf("removing %d containers", n)
}

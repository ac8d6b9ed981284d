package docker

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/cpuguy83/dockercfg"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"

	"bellhop"
	"bellhop/activities"
	"bellhop/internal/allowlist"
)

// ensureImage sees to it that the engine has the image, as the pull policy says, and that the tenant may run it. A pull
// that was broken off goes on where it was: the engine keeps the layers it has.
//
// Where all tenants pull with the same credentials, each of them could have pulled what the engine has. Where they have
// credentials of their own, an image on the engine may be one that only another tenant can pull, so the registry is asked.
func (p *Provider) ensureImage(ctx context.Context, tenant, image, policy string) error {
	if policy != PullAlways {
		_, err := p.docker.ImageInspect(ctx, image)
		switch {
		case err == nil && p.config.ownCredentials():
			return p.confirm(ctx, tenant, image)
		case err == nil:
			return nil
		case !errdefs.IsNotFound(err):
			return classify(err, "inspect image "+image)
		case policy == PullNever:
			return bellhop.Fail(bellhop.CodeImagePullFailed,
				"the engine has no image %s, and provider_config.pull is %q", image, policy).Because(err)
		}
	}
	return p.pull(ctx, tenant, image)
}

// ownCredentials says whether each tenant pulls with credentials of its own.
func (c Config) ownCredentials() bool { return strings.Contains(c.DockerConfig, allowlist.Tenant) }

// confirm asks the image's registry whether the tenant may pull it.
func (p *Provider) confirm(ctx context.Context, tenant, image string) error {
	auth, err := p.credentials(tenant, image)
	if err != nil {
		return err
	}
	_, err = p.docker.DistributionInspect(ctx, image, client.DistributionInspectOptions{EncodedRegistryAuth: auth})
	if err != nil {
		return pullFailed(ctx, image, err)
	}
	return nil
}

func (p *Provider) pull(ctx context.Context, tenant, image string) error {
	auth, err := p.credentials(tenant, image)
	if err != nil {
		return err
	}
	activities.ReportProgress(ctx, "pulling "+image)
	stream, err := p.docker.ImagePull(ctx, image, client.ImagePullOptions{RegistryAuth: auth})
	if err != nil {
		return pullFailed(ctx, image, err)
	}
	defer stream.Close() //nolint:errcheck // all that matters was read
	layers := map[string]*layer{}
	for message, err := range stream.JSONMessages(ctx) {
		if err == nil && message.Error != nil {
			err = message.Error
		}
		if err != nil {
			return pullFailed(ctx, image, err)
		}
		// "Pulling from library/nginx" carries the tag where the others carry a layer's id.
		if message.ID == "" || strings.HasPrefix(message.Status, "Pulling from ") {
			continue
		}
		l := layers[message.ID]
		if l == nil {
			l = &layer{}
			layers[message.ID] = l
		}
		switch message.Status {
		case "Downloading":
			if message.Progress != nil {
				l.done, l.total = message.Progress.Current, message.Progress.Total
			}
		case "Download complete", "Already exists", "Pull complete":
			l.done, l.complete = l.total, true
		default:
			continue
		}
		activities.ReportProgress(ctx, pulling(image, layers))
	}
	return ctx.Err()
}

type layer struct {
	done, total int64
	complete    bool
}

// pulling words how far a pull has come. The sizes of layers become known one by one, so the share is of what is known.
func pulling(image string, layers map[string]*layer) string {
	var done, total int64
	complete := 0
	for _, l := range layers {
		done, total = done+l.done, total+l.total
		if l.complete {
			complete++
		}
	}
	text := fmt.Sprintf("pulling %s, %d of %d layers", image, complete, len(layers))
	if total > 0 {
		text += fmt.Sprintf(", %d %%", done*100/total)
	}
	return text
}

// pullFailed tells an engine that is gone from a registry that has no such image or cannot be reached. The engine
// answers 404 for an image that does not exist and 500 for nearly all else, also for a registry that is down.
func pullFailed(ctx context.Context, image string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if unreachable(err) {
		return classify(err, "pull image "+image)
	}
	return bellhop.Fail(bellhop.CodeImagePullFailed, "cannot pull image %s", image).Because(err)
}

// credentials are those of the image's registry in the tenant's Docker config file, as the engine wants them; empty when
// there are none.
func (p *Provider) credentials(tenant, image string) (string, error) {
	auth, err := p.config.credentials(tenant, image)
	if err != nil {
		return "", bellhop.Fail(bellhop.CodeImagePullFailed, "cannot read the credentials for image %s", image).Because(err)
	}
	return auth, nil
}

func (c Config) credentials(tenant, image string) (string, error) {
	if c.DockerConfig == "" {
		return "", nil
	}
	if err := bellhop.CheckName(tenant); err != nil { // it is a part of the path
		return "", fmt.Errorf("the tenant's name %w", err)
	}
	path := allowlist.ForTenant(c.DockerConfig, tenant)
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", fmt.Errorf("parse %s: %w", image, err)
	}
	var config dockercfg.Config
	if err := dockercfg.FromFile(path, &config); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	host := dockercfg.ResolveRegistryHost(reference.Domain(named))
	user, password, err := config.GetRegistryCredentials(host)
	if err != nil {
		return "", fmt.Errorf("find the credentials for %s: %w", host, err)
	}
	auth := registry.AuthConfig{Username: user, Password: password, ServerAddress: host}
	switch {
	case user == "" && password == "":
		return "", nil
	case user == "": // then it is a token
		auth.Password, auth.IdentityToken = "", password
	}
	return authconfig.Encode(auth)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"bellhop/tests/peers"
)

// engine is a Docker engine of this machine.
type engine struct {
	*client.Client
	host string
}

// hosts are where an engine of this machine may listen. One that was named must be the one.
func hosts() []string {
	if host := os.Getenv("DOCKER_HOST"); host != "" {
		return []string{host}
	}
	all := []string{
		"unix://" + filepath.Join(peers.Root(), ".tools", "docker", "docker.sock"), // begun by tests/peers/docker.sh
		client.DefaultDockerHost,
	}
	if home, err := os.UserHomeDir(); err == nil {
		all = append(all, "unix://"+filepath.Join(home, ".docker", "run", "docker.sock")) // Docker Desktop
	}
	return all
}

// answerWithin is how long an engine may take to answer.
const answerWithin = 3 * time.Second

// findEngine takes the engine that answers. That there is none is no error: the story is then shorter.
func (s *stage) findEngine(ctx context.Context, _ func(string)) (string, error) {
	for _, host := range hosts() {
		if !strings.HasPrefix(host, "unix://") { // its ports are not this machine's
			continue
		}
		docker, err := client.New(client.WithHost(host))
		if err != nil {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, answerWithin)
		version, err := docker.ServerVersion(asking, client.ServerVersionOptions{})
		cancel()
		if err != nil {
			_ = docker.Close() // nothing was asked of it
			continue
		}
		s.engine = &engine{docker, host}
		s.later("leave the Docker engine", func(context.Context) error { return docker.Close() })
		return "Docker " + version.Version, nil
	}
	return "none answers", ctx.Err()
}

// image makes the tenant's image and says how large it is.
func (s *stage) image(ctx context.Context, name string) (int, error) {
	s.later("remove image "+name, func(ctx context.Context) error {
		_, err := s.engine.ImageRemove(ctx, name, client.ImageRemoveOptions{Force: true, PruneChildren: true})
		if errdefs.IsNotFound(err) {
			return nil
		}
		return err
	})
	return peers.MakeImage(ctx, s.engine.Client, name, "tests/demo/hello", "LABEL bellhop.demo="+s.name)
}

// containers are the ids of this stage's containers, as the engine has them.
func (s *stage) containers(ctx context.Context) ([]string, error) {
	listed, err := s.engine.ContainerList(ctx, client.ContainerListOptions{
		All: true, Filters: make(client.Filters).Add("label", "bellhop.tenant="+s.name),
	})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var ids []string
	for _, item := range listed.Items {
		ids = append(ids, item.ID)
	}
	return ids, nil
}

// sweep removes this stage's containers, whatever became of the operations.
func (s *stage) sweep(ctx context.Context) error {
	ids, err := s.containers(ctx)
	for _, id := range ids {
		_, gone := s.engine.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		if !errdefs.IsNotFound(gone) {
			err = errors.Join(err, gone)
		}
	}
	return err
}

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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
	// version and architecture are the engine's.
	version, architecture string
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
		s.engine = &engine{docker, host, version.Version, version.Arch}
		s.later("leave the Docker engine", func(context.Context) error { return docker.Close() })
		return "Docker " + version.Version, nil
	}
	return "none answers", ctx.Err()
}

// image makes an image of one static Go binary, without any registry, and says how large it is.
func (s *stage) image(ctx context.Context, name string) (int, error) {
	binary := s.file("hello")
	err := s.command(ctx, nil, []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + s.engine.architecture},
		"go", "build", "-ldflags=-s -w", "-o", binary, "./tests/demo/hello")
	if err != nil {
		return 0, err
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		return 0, err
	}
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	err = writer.WriteHeader(&tar.Header{Name: "hello", Mode: 0o755, Size: int64(len(content))})
	if err == nil {
		_, err = writer.Write(content)
	}
	if err = errors.Join(err, writer.Close()); err != nil {
		return 0, fmt.Errorf("pack the image: %w", err)
	}
	s.later("remove image "+name, func(ctx context.Context) error {
		_, err := s.engine.ImageRemove(ctx, name, client.ImageRemoveOptions{Force: true, PruneChildren: true})
		if errdefs.IsNotFound(err) {
			return nil
		}
		return err
	})
	imported, err := s.engine.ImageImport(ctx, client.ImageImportSource{Source: &archive, SourceName: "-"}, name,
		client.ImageImportOptions{Changes: []string{`ENTRYPOINT ["/hello"]`, "LABEL bellhop.demo=" + s.name}})
	if err != nil {
		return 0, fmt.Errorf("import image %s: %w", name, err)
	}
	defer imported.Close()
	_, err = io.Copy(io.Discard, imported) // it is there once all was read
	return len(content), err
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

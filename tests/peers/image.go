package peers

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/moby/moby/client"
)

// MakeImage makes a container image without any registry: of one static binary, built from the Go package at folder
// (a path from the root of the checkout), which becomes its entrypoint. It answers how large the binary is.
func MakeImage(ctx context.Context, docker *client.Client, name, folder string, changes ...string) (int, error) {
	version, err := docker.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return 0, fmt.Errorf("ask the engine for its architecture: %w", err)
	}
	out, err := os.MkdirTemp("", "bellhop-image-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(out) //nolint:errcheck // it is in the temporary directory
	binary := filepath.Join(out, "main")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "./"+folder) //nolint:gosec // our own
	build.Dir = Root()
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+version.Arch)
	if said, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build %s: %w\n%s", folder, err, said)
	}
	content, err := os.ReadFile(binary) //nolint:gosec // built just now
	if err != nil {
		return 0, err
	}
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	err = writer.WriteHeader(&tar.Header{Name: "main", Mode: 0o755, Size: int64(len(content))})
	if err == nil {
		_, err = writer.Write(content)
	}
	if err = errors.Join(err, writer.Close()); err != nil {
		return 0, fmt.Errorf("pack image %s: %w", name, err)
	}
	imported, err := docker.ImageImport(ctx, client.ImageImportSource{Source: &archive, SourceName: "-"}, name,
		client.ImageImportOptions{Changes: append([]string{`ENTRYPOINT ["/main"]`}, changes...)})
	if err != nil {
		return 0, fmt.Errorf("import image %s: %w", name, err)
	}
	defer imported.Close()                 //nolint:errcheck // all that matters was read
	_, err = io.Copy(io.Discard, imported) // it is there once all was read
	return len(content), err
}

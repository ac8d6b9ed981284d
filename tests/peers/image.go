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
	"syscall"
	"time"

	"github.com/moby/moby/client"
)

// MakeImage makes a container image without any registry: of one static binary, built from the Go package at folder
// (a path from the root of the checkout), which becomes its entrypoint, /main. It answers how large the binary is.
func MakeImage(ctx context.Context, docker *client.Client, name, folder string, changes ...string) (int, error) {
	binary, err := BuildStatic(ctx, docker, folder)
	if err != nil {
		return 0, err
	}
	return len(binary), ImportImage(ctx, docker, name, binary, changes...)
}

// BuildStatic builds a Go package for an engine's containers. When ctx ends the compiler is interrupted as by Ctrl-C,
// so that it removes what it has begun.
func BuildStatic(ctx context.Context, docker *client.Client, folder string) ([]byte, error) {
	version, err := docker.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return nil, fmt.Errorf("ask the engine for its architecture: %w", err)
	}
	out, err := os.MkdirTemp("", "bellhop-image-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(out) //nolint:errcheck // it is in the temporary directory
	binary := filepath.Join(out, "main")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "./"+folder) //nolint:gosec // our own
	build.Dir = Root()
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+version.Arch)
	build.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	build.Cancel = func() error { return syscall.Kill(-build.Process.Pid, syscall.SIGINT) }
	build.WaitDelay = 10 * time.Second
	if said, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", folder, err, said)
	}
	return os.ReadFile(binary) //nolint:gosec // built just now
}

// ImportImage makes an image of a static binary.
func ImportImage(ctx context.Context, docker *client.Client, name string, binary []byte, changes ...string) error {
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	err := writer.WriteHeader(&tar.Header{Name: "main", Mode: 0o755, Size: int64(len(binary))})
	if err == nil {
		_, err = writer.Write(binary)
	}
	if err = errors.Join(err, writer.Close()); err != nil {
		return fmt.Errorf("pack image %s: %w", name, err)
	}
	imported, err := docker.ImageImport(ctx, client.ImageImportSource{Source: &archive, SourceName: "-"}, name,
		client.ImageImportOptions{Changes: append([]string{`ENTRYPOINT ["/main"]`}, changes...)})
	if err != nil {
		return fmt.Errorf("import image %s: %w", name, err)
	}
	defer imported.Close()                 //nolint:errcheck // all that matters was read
	_, err = io.Copy(io.Discard, imported) // it is there once all was read
	return err
}

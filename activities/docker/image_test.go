package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"bellhop"
	"bellhop/activities"
)

const (
	registryUser     = "puller"
	registryPassword = "pull-pull-pull"
)

// shelf is a registry: it serves one image of one layer to those who know the password. The engine speaks plain HTTP with a registry
// on loopback.
type shelf struct {
	host   string
	blobs  map[string][]byte
	config []byte
	layer  []byte
	// hold, when it is not nil, holds the layer back until it is closed.
	hold    chan struct{}
	holding chan struct{}
	over    chan struct{} // the engine goes on waiting when the one who asked has given up
	pulls   sync.Map
}

// engineHere says whether the engine runs on this machine, and for which architecture its images are.
func engineHere(b *bench) (string, bool) {
	b.Helper()
	info, err := b.docker.Info(b.Context(), client.InfoOptions{})
	if err != nil {
		b.Fatal(err)
	}
	name, err := os.Hostname()
	return strings.NewReplacer("x86_64", "amd64", "aarch64", "arm64").Replace(info.Info.Architecture), err == nil && name == info.Info.Name
}

func newShelf(b *bench) *shelf {
	b.Helper()
	architecture, here := engineHere(b)
	if !here {
		b.Skip("the engine runs on another machine and cannot reach a registry on loopback")
	}
	var layer bytes.Buffer
	writer := tar.NewWriter(&layer)
	content := make([]byte, 64<<10)
	for i := range content { // every registry has a layer that no engine has yet
		content[i] = byte(rand.Uint32())
	}
	err := errors.Join(writer.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(len(content))}),
		func() error { _, err := writer.Write(content); return err }(), writer.Close())
	if err != nil {
		b.Fatal(err)
	}
	r := &shelf{layer: layer.Bytes(), holding: make(chan struct{}, 100), over: make(chan struct{})}
	r.config = fmt.Appendf(nil, `{"architecture":%q,"os":"linux","config":{"Cmd":["/file"]},"rootfs":{"type":"layers","diff_ids":[%q]}}`,
		architecture, digest(r.layer))
	r.blobs = map[string][]byte{digest(r.layer): r.layer, digest(r.config): r.config}
	server := httptest.NewServer(r)
	b.Cleanup(func() {
		close(r.over)
		server.Close()
	})
	r.host = strings.TrimPrefix(server.URL, "http://")
	image := r.image()
	b.Cleanup(func() {
		//nolint:errcheck // it may never have been pulled
		raw(b.T).ImageRemove(context.WithoutCancel(b.Context()), image, client.ImageRemoveOptions{Force: true})
	})
	return r
}

func (r *shelf) image() string { return r.host + "/bellhop/pulled:1" }

func digest(content []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(content)) }

func (r *shelf) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if user, password, _ := request.BasicAuth(); user != registryUser || password != registryPassword {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}`, http.StatusUnauthorized)
		return
	}
	rest, ofImage := strings.CutPrefix(request.URL.Path, "/v2/bellhop/pulled/")
	kind, name, _ := strings.Cut(rest, "/")
	switch {
	case request.URL.Path == "/v2/":
	case ofImage && kind == "manifests":
		const media = "application/vnd.docker.distribution.manifest.v2+json"
		manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,
			"config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":%d,"digest":%q},
			"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar","size":%d,"digest":%q}]}`,
			media, len(r.config), digest(r.config), len(r.layer), digest(r.layer))
		if name != "1" && name != digest(manifest) {
			http.Error(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`, http.StatusNotFound)
			return
		}
		r.pulls.Store(request.Method, true)
		w.Header().Set("Content-Type", media)
		w.Header().Set("Docker-Content-Digest", digest(manifest))
		_, _ = w.Write(manifest) //nolint:errcheck // the engine hung up
	case ofImage && kind == "blobs" && r.blobs[name] != nil:
		if r.hold != nil && name == digest(r.layer) {
			r.holding <- struct{}{}
			select {
			case <-r.hold:
			case <-r.over:
				panic(http.ErrAbortHandler)
			}
		}
		_, _ = w.Write(r.blobs[name]) //nolint:errcheck // the engine hung up
	default:
		http.NotFound(w, request)
	}
}

// credentialsFile is a Docker config with the registry's password.
func (r *shelf) credentialsFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	auth := base64.StdEncoding.EncodeToString([]byte(registryUser + ":" + registryPassword))
	if err := os.WriteFile(path, fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, r.host, auth), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// An image that the engine has not is pulled with the credentials of the config file, and the progress is told.
func TestPull(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	r := newShelf(b)
	p := b.provider(Config{DockerConfig: r.credentialsFile(t)})
	var said []string
	ctx := activities.WithProgress(t.Context(), func(message string) { said = append(said, message) })
	if err := p.ensureImage(ctx, b.tenant, r.image(), PullMissing); err != nil {
		t.Fatal(err)
	}
	last := "pulling " + r.image() + ", 1 of 1 layers"
	if len(said) < 2 || said[0] != "pulling "+r.image() || !strings.HasPrefix(said[len(said)-1], last) {
		t.Errorf("the progress was %q, want %q at last", said, last)
	}
	r.pulls.Clear()
	pulled := func() bool {
		_, get := r.pulls.Load(http.MethodGet)
		_, head := r.pulls.Load(http.MethodHead)
		return get || head
	}
	if err := p.ensureImage(t.Context(), b.tenant, r.image(), PullMissing); err != nil || pulled() {
		t.Errorf("what is there was pulled again: %v", err)
	}
	if err := p.ensureImage(t.Context(), b.tenant, r.image(), PullAlways); err != nil || !pulled() {
		t.Errorf(`"always" did not pull: %v`, err)
	}
}

// Without credentials, with wrong ones or for a tag that is not there, a pull is IMAGE_PULL_FAILED.
func TestPullRefused(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	r := newShelf(b)
	missing := filepath.Join(t.TempDir(), "none.json")
	for name, row := range map[string]struct{ config, image, want string }{
		"without credentials":   {"", r.image(), "no basic auth credentials"},
		"no such file":          {missing, r.image(), "no such file"},
		"a tag that is not":     {r.credentialsFile(t), r.host + "/bellhop/pulled:2", "manifest unknown"},
		"an image that is not ": {r.credentialsFile(t), r.host + "/bellhop/other:1", ""},
	} {
		p := b.provider(Config{DockerConfig: row.config})
		err := p.ensureImage(t.Context(), b.tenant, row.image, PullMissing)
		failure, ok := errors.AsType[*bellhop.Failure](err)
		if !ok || failure.Code != bellhop.CodeImagePullFailed || !strings.Contains(failure.ProviderError, row.want) {
			t.Errorf("%s: %v, want IMAGE_PULL_FAILED with %q", name, err, row.want)
		}
		if strings.Contains(fmt.Sprint(err), registryPassword) {
			t.Errorf("%s: the password shows: %v", name, err)
		}
	}
}

// What one tenant has pulled with its own credentials is on the engine, and another tenant may not run it all the same.
func TestPull_WithCredentialsOfEachTenant(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	r := newShelf(b)
	folder := t.TempDir()
	text, err := os.ReadFile(r.credentialsFile(t))
	require.NoError(t, err)
	for tenant, config := range map[string]string{"owner": string(text), "rival": "{}"} {
		require.NoError(t, os.Mkdir(filepath.Join(folder, tenant), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(folder, tenant, "config.json"), []byte(config), 0o600))
	}
	p := b.provider(Config{DockerConfig: filepath.Join(folder, "{tenant}", "config.json"), Images: []string{"*"}})
	require.NoError(t, p.ensureImage(t.Context(), "owner", r.image(), PullMissing))

	refused := func(tenant, policy, want string) {
		t.Helper()
		err := p.ensureImage(t.Context(), tenant, r.image(), policy)
		failure, ok := errors.AsType[*bellhop.Failure](err)
		require.True(t, ok, "%s of %s: %v", policy, tenant, err)
		require.Equal(t, bellhop.CodeImagePullFailed, failure.Code)
		require.Contains(t, failure.ProviderError, want)
	}
	refused("rival", PullMissing, "no basic auth credentials")
	refused("rival", PullAlways, "no basic auth credentials")
	refused("stranger", PullMissing, "no such file")
	refused("../owner", PullMissing, "must be 1 to 63 letters")
	require.NoError(t, p.ensureImage(t.Context(), "owner", r.image(), PullMissing), "the owner runs it again")

	// By the id of the image, or the beginning of it, no registry would be asked.
	found, err := b.docker.ImageInspect(t.Context(), r.image())
	require.NoError(t, err)
	_, hex, _ := strings.Cut(found.ID, ":")
	for _, image := range []string{found.ID, hex, hex[:12], "sha256:" + hex[:12]} {
		err := p.Check(bellhop.Operation{Verb: bellhop.Provision, TenantID: "rival", Spec: bellhop.Spec{Image: image}})
		require.ErrorContains(t, err, "not its id", image)
	}
	err = p.Check(bellhop.Operation{
		Verb: bellhop.Provision, TenantID: "rival", Spec: bellhop.Spec{Image: r.image()}, ProviderConfig: json.RawMessage(`{"pull": "never"}`),
	})
	require.ErrorContains(t, err, `provider_config.pull: must not be "never": the registry decides`)
}

// A pull that takes long ends with its context, and is begun again.
func TestPullBrokenOff(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	r := newShelf(b)
	r.hold = make(chan struct{})
	p := b.provider(Config{DockerConfig: r.credentialsFile(t)})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.ensureImage(ctx, b.tenant, r.image(), PullMissing) }()
	<-r.holding
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("given up, the pull says %v", err)
	}
	close(r.hold)
	if err := p.ensureImage(t.Context(), b.tenant, r.image(), PullMissing); err != nil {
		t.Errorf("begun again: %s", err)
	}
}

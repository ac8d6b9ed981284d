// Package encryption keeps what bellhop writes to Temporal from whoever reads Temporal's store: payloads are sealed
// before they leave the process, by a Tink keyset. A program whose workflows bellhop calls back, or that starts
// operations by Temporal's client, opens and seals them by the same keyset:
//
//	keys, err := encryption.Open(encryption.Config{KeysetFile: "/etc/bellhop/keyset.json"})
//	…
//	keys.Converters(options.Namespace).Apply(&options)
//	go keys.Watch(ctx, slog.Default())
package encryption

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"bellhop"
)

// Config is a keyset as an operator configures it.
type Config struct {
	// KeysetFile is the keyset, as `bellhop keyset create` and Tink's own tinkey write it (JSON). Only its owner may be
	// able to read it. It is read again when it changes. Required.
	KeysetFile string `json:"keyset_file" file:"secret"`
	// KMSKeyURI is the key of a key management service by which the keyset in the file is encrypted, such as
	// "aws-kms://arn:aws:kms:eu-central-1:123456789012:key/…". Default: none, the file holds the keys as they are.
	KMSKeyURI string `json:"kms_key_uri"`
}

// Check says what is wrong, as [bellhop.Faults]; nil when nothing is.
func (c Config) Check() error {
	var faults bellhop.Faults
	if c.KeysetFile == "" {
		faults.Add("keyset_file", "is required; make one with: bellhop keyset create FILE")
	}
	return faults.Err()
}

// KMS is a key management service: it answers the key of a URI. Clients of Tink's are such; package awskms is for AWS.
type KMS interface {
	Supported(uri string) bool
	GetAEAD(uri string) (tink.AEAD, error)
}

// Keyset is the keys in a file, which may change.
type Keyset struct {
	config   Config
	services []KMS
	current  atomic.Pointer[keys]
	// seen is the file as it was last looked at, in order or not.
	seen os.FileInfo
}

// keys are a keyset at one time.
type keys struct {
	aead    tink.AEAD
	primary uint32
	ids     []uint32
}

func (k *keys) has(id uint32) bool { return slices.Contains(k.ids, id) }

// reread is how often the file is looked at.
const reread = time.Second

// Open reads a keyset. The services are those that can decrypt it, where it is encrypted.
func Open(config Config, services ...KMS) (*Keyset, error) {
	if err := config.Check(); err != nil {
		return nil, err
	}
	k := &Keyset{config: config, services: services}
	var err error
	if k.seen, err = os.Stat(config.KeysetFile); err != nil {
		return nil, fmt.Errorf("read keyset: %w", err)
	}
	read, err := k.read()
	if err != nil {
		return nil, err
	}
	k.current.Store(read)
	return k, nil
}

// Watch reads the keyset again whenever its file changes, until ctx ends. A file that cannot be read leaves the keys as
// they are, which the log says once.
func (k *Keyset) Watch(ctx context.Context, logger *slog.Logger) {
	ticker := time.NewTicker(reread)
	defer ticker.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now, err := os.Stat(k.config.KeysetFile)
		if err == nil && !failing && same(k.seen, now) {
			continue
		}
		var read *keys
		if err == nil {
			if same(k.seen, now) && failing && k.config.KMSKeyURI == "" {
				continue // a broken file is no better than it was
			}
			k.seen = now
			read, err = k.read()
		}
		switch {
		case err != nil && !failing:
			logger.Error("the keyset cannot be read again; the keys that were read before are used", "error", err)
		case err == nil:
			k.current.Store(read)
			logger.Info("the keyset was read again", "primary_key", read.primary, "keys", len(read.ids))
		}
		failing = err != nil
	}
}

func same(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

func (k *Keyset) read() (*keys, error) {
	handle, err := readHandle(k.config, k.services)
	if err != nil {
		return nil, err
	}
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, fmt.Errorf("read keyset %s: %w", k.config.KeysetFile, err)
	}
	read := &keys{aead: primitive, primary: handle.KeysetInfo().GetPrimaryKeyId()}
	for i := range handle.Len() {
		entry, err := handle.Entry(i)
		if err != nil {
			return nil, fmt.Errorf("read keyset %s: %w", k.config.KeysetFile, err)
		}
		if entry.KeyStatus() == keyset.Enabled {
			read.ids = append(read.ids, entry.KeyID())
		}
	}
	return read, nil
}

// maxKeyset bounds a file that is certainly no keyset.
const maxKeyset = 1 << 20

func readHandle(config Config, services []KMS) (*keyset.Handle, error) {
	text, err := readFile(config.KeysetFile)
	if err != nil {
		return nil, fmt.Errorf("read keyset: %w", err)
	}
	reader := keyset.NewJSONReader(bytes.NewReader(text))
	var handle *keyset.Handle
	if config.KMSKeyURI == "" {
		handle, err = insecurecleartextkeyset.Read(reader)
		if err != nil && bytes.Contains(text, []byte("encryptedKeyset")) {
			err = errors.New("it is encrypted; say by which key of a key management service: kms_key_uri")
		}
	} else {
		var wrap tink.AEAD
		if wrap, err = keyEncryption(config.KMSKeyURI, services); err == nil {
			handle, err = keyset.Read(reader, wrap)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read keyset %s: %w", config.KeysetFile, err)
	}
	return handle, nil
}

func readFile(name string) ([]byte, error) {
	file, err := os.Open(name) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() //nolint:errcheck // it was only read
	return io.ReadAll(io.LimitReader(file, maxKeyset))
}

func keyEncryption(uri string, services []KMS) (tink.AEAD, error) {
	for _, service := range services {
		if service.Supported(uri) {
			return service.GetAEAD(uri)
		}
	}
	return nil, fmt.Errorf("no key management service is known here for %s", uri)
}

// Key is a key of a keyset, as far as it may be shown.
type Key struct {
	ID uint32
	// Primary says that it seals; the others only open.
	Primary bool
	// Type is the kind of the key, such as "XAesGcmKey".
	Type string
}

// Create makes a keyset of one key in a file that does not exist yet.
func Create(config Config, services ...KMS) (Key, error) {
	if _, err := os.Lstat(config.KeysetFile); err == nil {
		return Key{}, fmt.Errorf("create keyset: %s exists; add a key to it with: bellhop keyset add", config.KeysetFile)
	}
	handle, err := keyset.NewHandle(template())
	if err != nil {
		return Key{}, fmt.Errorf("create keyset: %w", err)
	}
	if err := write(config, services, handle); err != nil {
		return Key{}, err
	}
	return Key{ID: handle.KeysetInfo().GetPrimaryKeyId(), Primary: true}, nil
}

// template is of keys whose nonce is long enough to be drawn at random for any number of payloads; with AES-GCM's own, 2³²
// of them are the bound, which a busy bellhop reaches in weeks.
var template = aead.XAES256GCM192BitNonceKeyTemplate

// Add adds a key that opens, and seals once it is promoted: every process that reads payloads must have it by then.
func Add(config Config, services ...KMS) (Key, error) {
	var id uint32
	err := change(config, services, func(m *keyset.Manager) (err error) {
		id, err = m.Add(template())
		return err
	})
	return Key{ID: id}, err
}

// Promote has a key seal from now on. The others go on to open what they sealed.
func Promote(config Config, id uint32, services ...KMS) error {
	return change(config, services, func(m *keyset.Manager) error { return m.SetPrimary(id) })
}

// Remove removes a key for good: what it sealed can be read no more.
func Remove(config Config, id uint32, services ...KMS) error {
	return change(config, services, func(m *keyset.Manager) error { return m.Delete(id) })
}

// List lists the keys of a file, the oldest first.
func List(config Config, services ...KMS) ([]Key, error) {
	handle, err := readHandle(config, services)
	if err != nil {
		return nil, err
	}
	info := handle.KeysetInfo()
	listed := make([]Key, 0, handle.Len())
	for _, key := range info.GetKeyInfo() {
		listed = append(listed, Key{ID: key.GetKeyId(), Primary: key.GetKeyId() == info.GetPrimaryKeyId(), Type: filepath.Ext(key.GetTypeUrl())[1:]})
	}
	return listed, nil
}

func change(config Config, services []KMS, f func(*keyset.Manager) error) error {
	handle, err := readHandle(config, services)
	if err != nil {
		return err
	}
	manager := keyset.NewManagerFromHandle(handle)
	if err := f(manager); err != nil {
		return fmt.Errorf("change keyset %s: %w", config.KeysetFile, err)
	}
	if handle, err = manager.Handle(); err != nil {
		return fmt.Errorf("change keyset %s: %w", config.KeysetFile, err)
	}
	return write(config, services, handle)
}

// write replaces the file at once, so that nobody reads half of it.
func write(config Config, services []KMS, handle *keyset.Handle) error {
	var text bytes.Buffer
	var err error
	writer := keyset.NewJSONWriter(&text)
	if config.KMSKeyURI == "" {
		err = insecurecleartextkeyset.Write(handle, writer)
	} else {
		var wrap tink.AEAD
		if wrap, err = keyEncryption(config.KMSKeyURI, services); err == nil {
			err = handle.Write(writer, wrap)
		}
	}
	if err != nil {
		return fmt.Errorf("write keyset %s: %w", config.KeysetFile, err)
	}
	file, err := os.CreateTemp(filepath.Dir(config.KeysetFile), ".keyset-*") // for its owner only
	if err != nil {
		return fmt.Errorf("write keyset: %w", err)
	}
	_, err = file.Write(append(text.Bytes(), '\n'))
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), config.KeysetFile)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write keyset: %w", err), os.Remove(file.Name()))
	}
	return nil
}

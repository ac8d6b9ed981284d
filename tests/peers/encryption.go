package peers

import (
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"bellhop/encryption"
)

// EncryptionVariable, set to 1, has workers, and the clients that ask Encrypt, write to Temporal by a keyset.
const EncryptionVariable = "BELLHOP_TEST_ENCRYPTION"

// keyset is the keyset of a run with encryption, as a file and as a codec server; nil without.
type keyset struct {
	*encryption.Keyset
	file, codec string
}

var encrypted = sync.OnceValue(func() *keyset {
	if os.Getenv(EncryptionVariable) != "1" {
		return nil
	}
	made, err := makeKeyset()
	if err != nil {
		panic(fmt.Sprintf("%s: %s", EncryptionVariable, err)) // the tests would show nothing
	}
	return made
})

func makeKeyset() (*keyset, error) {
	config := encryption.Config{KeysetFile: filepath.Join(os.TempDir(), fmt.Sprintf("bellhop-keyset-%d.json", os.Getpid()))}
	if _, err := os.Stat(config.KeysetFile); err != nil { // else it is from a process of the past
		if _, err := encryption.Create(config); err != nil {
			return nil, err
		}
	}
	keys, err := encryption.Open(config)
	if err != nil {
		return nil, err
	}
	slog.Info("the tests encrypt", "keyset", config.KeysetFile)
	server := httptest.NewServer(converter.NewPayloadCodecHTTPHandler(keys.Codec("")))
	return &keyset{Keyset: keys, file: config.KeysetFile, codec: server.URL}, nil
}

// Converters are how this run of the tests writes to a namespace, and reads.
func Converters(namespace string) encryption.Converters {
	if k := encrypted(); k != nil {
		return k.Converters(namespace)
	}
	return encryption.Converters{}
}

// Encrypt has a client write and read as this run of the tests does.
func Encrypt(options client.Options) client.Options {
	namespace := options.Namespace
	if namespace == "" {
		namespace = client.DefaultNamespace
	}
	Converters(namespace).Apply(&options)
	return options
}

// EncryptionEnv is the environment by which the command lines of bellhop and of Temporal do.
func EncryptionEnv() []string {
	k := encrypted()
	if k == nil {
		return nil
	}
	return []string{"BELLHOP_KEYSET=" + k.file, "TEMPORAL_CODEC_ENDPOINT=" + k.codec}
}

// encryptedConfig is a worker's configuration for this run of the tests, unless it says itself whether it encrypts.
func encryptedConfig(config string) string {
	k := encrypted()
	if k == nil || strings.Contains("\n"+config, "\nencryption:") {
		return config
	}
	return strings.TrimRight(config, "\n") + "\nencryption: {keyset_file: " + k.file + "}\n"
}

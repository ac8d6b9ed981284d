package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"unicode"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"bellhop"
	"bellhop/internal/reload"
)

// TemporalConfig is what the worker's own connection to Temporal takes from this file; the rest is Temporal's own
// configuration: TEMPORAL_ADDRESS and the like, and temporal.toml.
type TemporalConfig struct {
	// APIKeyFile is a file with the API key of the connection, in place of TEMPORAL_API_KEY. It is read again when it
	// changes. Default: none.
	APIKeyFile string `json:"api_key_file" file:"secret"`
}

// temporalConnection is how a Temporal server is reached, as Temporal's own configuration and a file with an API key say.
type temporalConnection struct {
	request    envconfig.LoadClientConfigProfileOptions
	apiKeyFile string
	// first is the profile as it was at the start.
	first envconfig.ClientConfigProfile
	// profiles is the path of temporal.toml, which need not exist.
	profiles string
	options  client.Options
}

// keyFiles are the files of Temporal's own configuration that have keys in them.
func (c *temporalConnection) keyFiles() []namedFile {
	of, where := tlsOf(c.first), "the environment or "+cmp.Or(c.profiles, "temporal.toml")
	var files []namedFile
	if of.ClientKeyPath != "" {
		files = append(files, namedFile{field: "TLS client key of " + where, path: of.ClientKeyPath, kind: fileSecret})
	}
	if c.profiles == "" {
		return files
	}
	// What the environment says is in no file.
	request := c.request
	request.DisableEnv = true
	profile, err := envconfig.LoadClientConfigProfile(request)
	if err == nil && (profile.APIKey != "" || len(tlsOf(profile).ClientKeyData) > 0) {
		files = append(files, namedFile{field: "API key or TLS key of Temporal's configuration", path: c.profiles, kind: fileSecret})
	}
	return files
}

// temporalSecrets are the parts of a connection that change while it is in use.
type temporalSecrets struct {
	apiKey string
	tls    *tls.Config
}

// openTemporal reads how a Temporal server is reached: from a profile of temporal.toml or, without its name, from the
// environment and the default profile. The API key and the certificates follow their files: the key from the next request
// on, the certificates from the next connection on. Everything else changes with a restart.
func openTemporal(profile, apiKeyFile string) (*temporalConnection, error) {
	c := &temporalConnection{
		apiKeyFile: apiKeyFile,
		request: envconfig.LoadClientConfigProfileOptions{
			ConfigFileProfile: profile,
			DisableEnv:        profile != "", // TEMPORAL_ADDRESS and the rest are the worker's own connection
		},
		profiles: cmp.Or(os.Getenv("TEMPORAL_CONFIG_FILE"), envconfig.DefaultConfigFilePath()),
	}
	if _, err := os.Stat(c.profiles); err != nil { //nolint:gosec // the operator names it
		c.profiles = "" // the load below says what is wrong, if anything is
	}
	var err error
	if c.first, err = envconfig.LoadClientConfigProfile(c.request); err != nil {
		return nil, err
	}
	if c.apiKeyFile != "" && c.first.APIKey != "" {
		return nil, bellhop.Faults{{Path: "api_key_file", Problem: "must be left out: TEMPORAL_API_KEY or temporal.toml has an API key already"}}
	}
	// The file of the key is read apart from the others, so that no mistake in one of them keeps the key from changing.
	var fromFile *reload.Value[string]
	now := c.first
	if c.apiKeyFile != "" {
		if fromFile, err = reload.File(c.apiKeyFile, parseAPIKey); err != nil {
			return nil, bellhop.Faults{{Path: "api_key_file", Problem: err.Error()}}
		}
		now.APIKey = fromFile.Get()
	}
	if c.options, err = now.ToClientOptions(envconfig.ToClientOptionsRequest{}); err != nil {
		return nil, err
	}
	c.options.Namespace = cmp.Or(c.options.Namespace, client.DefaultNamespace)
	var secrets *reload.Value[temporalSecrets]
	if paths := c.paths(); len(paths) > 0 {
		if secrets, err = reload.New(c.parse, paths...); err != nil {
			return nil, err
		}
	}
	switch {
	case fromFile != nil:
		c.options.Credentials = client.NewAPIKeyDynamicCredentials(func(context.Context) (string, error) { return fromFile.Get(), nil })
	case secrets != nil && now.APIKey != "":
		c.options.Credentials = client.NewAPIKeyDynamicCredentials(func(context.Context) (string, error) { return secrets.Get().apiKey, nil })
	}
	if secrets != nil && c.options.ConnectionOptions.TLS != nil {
		c.options.ConnectionOptions.DialOptions = []grpc.DialOption{grpc.WithTransportCredentials(currentTLS{secrets})}
	}
	return c, nil
}

// tlsOf is the TLS configuration of a profile; the zero value is none.
func tlsOf(profile envconfig.ClientConfigProfile) envconfig.ClientConfigTLS {
	if profile.TLS == nil || profile.TLS.Disabled {
		return envconfig.ClientConfigTLS{}
	}
	return *profile.TLS
}

// plain says whether a profile, its API key left aside, has connections that are not encrypted.
func plain(profile envconfig.ClientConfigProfile) bool {
	return profile.TLS == nil || profile.TLS.Disabled
}

// paths are the files of which the connection is made, besides that of the API key.
func (c *temporalConnection) paths() []string {
	of := tlsOf(c.first)
	var paths []string
	for _, path := range []string{c.profiles, of.ClientCertPath, of.ClientKeyPath, of.ServerCACertPath} {
		if path != "" {
			paths = append(paths, path)
		}
	}
	return paths
}

// parse makes the secrets of the contents of paths.
func (c *temporalConnection) parse(contents [][]byte) (temporalSecrets, error) {
	next := func(path string) []byte {
		if path == "" {
			return nil
		}
		content := contents[0]
		contents = contents[1:]
		return content
	}
	request := c.request
	if text := next(c.profiles); c.profiles != "" {
		request.ConfigFileData = slices.Concat(text, []byte("\n")) // without any data the file would be read
	}
	now, err := envconfig.LoadClientConfigProfile(request)
	if err != nil {
		// The parser's error could show some of the file.
		return temporalSecrets{}, fmt.Errorf("%s is not in order, or has the profile no more", c.profiles)
	}
	then, of := tlsOf(c.first), tlsOf(now)
	if of.ClientCertPath != then.ClientCertPath || of.ClientKeyPath != then.ClientKeyPath || of.ServerCACertPath != then.ServerCACertPath ||
		plain(now) != plain(c.first) || (now.APIKey == "") != (c.first.APIKey == "") {
		return temporalSecrets{}, fmt.Errorf("%s says where other files are, or turns TLS or the API key on or off: that takes a restart", c.profiles)
	}
	for _, file := range []struct {
		path *string
		data *[]byte
	}{{&of.ClientCertPath, &of.ClientCertData}, {&of.ClientKeyPath, &of.ClientKeyData}, {&of.ServerCACertPath, &of.ServerCACertData}} {
		if *file.path != "" && len(*file.data) > 0 {
			return temporalSecrets{}, errors.New("a certificate is given both as a file and as data")
		}
		if *file.path != "" {
			*file.data, *file.path = next(*file.path), ""
		}
	}
	if now.TLS != nil && !now.TLS.Disabled {
		now.TLS = &of
	}
	options, err := now.ToClientOptions(envconfig.ToClientOptionsRequest{})
	if err != nil {
		return temporalSecrets{}, err
	}
	if options.ConnectionOptions.TLS == nil {
		options.ConnectionOptions.TLS = &tls.Config{MinVersion: tls.VersionTLS12} // an API key in a file turns it on
	}
	return temporalSecrets{apiKey: now.APIKey, tls: options.ConnectionOptions.TLS}, nil
}

func parseAPIKey(text []byte) (string, error) {
	key := strings.TrimSpace(string(text))
	switch {
	case key == "":
		return "", errors.New("is empty")
	case strings.ContainsFunc(key, func(r rune) bool { return r > unicode.MaxASCII || unicode.IsControl(r) }):
		return "", errors.New("must be one line of ASCII")
	}
	return key, nil
}

// currentTLS encrypts each connection as the files say when it is made. A connection that is open keeps what it began
// with.
type currentTLS struct {
	secrets *reload.Value[temporalSecrets]
}

func (c currentTLS) now() credentials.TransportCredentials {
	return credentials.NewTLS(c.secrets.Get().tls)
}

// ClientHandshake is part of [credentials.TransportCredentials].
func (c currentTLS) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c.now().ClientHandshake(ctx, authority, conn)
}

// ServerHandshake is part of [credentials.TransportCredentials].
func (currentTLS) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("the worker is a client of Temporal's")
}

// Info is part of [credentials.TransportCredentials].
func (c currentTLS) Info() credentials.ProtocolInfo { return c.now().Info() }

// Clone is part of [credentials.TransportCredentials].
func (c currentTLS) Clone() credentials.TransportCredentials { return c }

// OverrideServerName is part of [credentials.TransportCredentials].
func (currentTLS) OverrideServerName(string) error {
	return errors.New("the server's name is Temporal's configuration's business")
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	temporallog "go.temporal.io/sdk/log"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"bellhop/encryption"
	"bellhop/encryption/awskms"
	"bellhop/operations"
	"bellhop/workflows"
)

// connection is where Temporal is.
type connection struct {
	// What the flags say; empty stands for Temporal's own configuration.
	address, namespace, profile, taskQueue string
	// given are the flags as they were given, for commands that are suggested.
	given []string
	// keyset and keysetKMS are by what payloads are opened and sealed.
	keyset, keysetKMS string

	// host and namespaceName are what came of it.
	host, namespaceName string

	// exhausted is what Temporal last said of too many requests, until it answers something else. The SDK tries again until
	// the time is up and then says only that.
	exhausted atomic.Pointer[string]
}

// note is an interceptor of single attempts, which the SDK repeats.
func (c *connection) note(ctx context.Context, method string, request, answer any, cc *grpc.ClientConn, attempt grpc.UnaryInvoker, options ...grpc.CallOption) error {
	err := attempt(ctx, method, request, answer, cc, options...)
	switch said := status.Convert(err); said.Code() {
	case codes.ResourceExhausted:
		message := said.Message()
		c.exhausted.Store(&message)
	case codes.DeadlineExceeded, codes.Canceled: // cut short
	default:
		c.exhausted.Store(nil)
	}
	return err
}

func (c *connection) register(root *cobra.Command) {
	flags := root.PersistentFlags()
	flags.StringVar(&c.address, "address", "", "`host:port` of Temporal (default TEMPORAL_ADDRESS, or localhost:7233)")
	flags.StringVar(&c.namespace, "namespace", "", "Temporal `namespace` (default TEMPORAL_NAMESPACE, or \"default\")")
	flags.StringVar(&c.profile, "profile", "", "`profile` of temporal.toml (default TEMPORAL_PROFILE, or \"default\")")
	flags.StringVar(&c.taskQueue, "task-queue", "", "task `queue` that the workers poll, for starting (default \""+workflows.TaskQueue+"\")")
	flags.StringVar(&c.keyset, "keyset", "", "keyset `file` by which payloads are encrypted (default BELLHOP_KEYSET, or the profile's codec)")
	flags.StringVar(&c.keysetKMS, "keyset-kms", "", "`URI` of the key by which the keyset itself is encrypted (default BELLHOP_KEYSET_KMS)")
	for _, name := range []string{"address", "namespace", "profile", "task-queue", "keyset-kms"} {
		choices[string](root, name)
	}
	root.PersistentPreRun = func(cmd *cobra.Command, _ []string) {
		for _, name := range []string{"address", "namespace", "profile", "keyset", "keyset-kms"} {
			if flag := cmd.Flag(name); flag.Changed {
				c.given = append(c.given, "--"+name, flag.Value.String())
			}
		}
	}
}

// again is a command line of bellhop with the connection of this one.
func (a *app) again(words ...string) string {
	return strings.Join(append(append([]string{"bellhop"}, words...), a.connection.given...), " ")
}

// dialTimeout is how long Temporal may take to say hello.
const dialTimeout = 5 * time.Second

// connect returns a client and what closes it.
func (a *app) connect(ctx context.Context) (*operations.Client, func(), error) {
	c := &a.connection
	options, err := envconfig.LoadClientOptions(envconfig.LoadClientOptionsRequest{
		ConfigFileProfile: c.profile,
		EnvLookup: environment(func(name string) string {
			if name == "TEMPORAL_NAMESPACE" && c.namespace != "" {
				return c.namespace // what a codec server is told as well
			}
			return a.getenv(name)
		}),
		// Each command runs once, so a codec server may be asked for each payload. A keyset needs none.
		IncludeRemoteCodec: true,
	})
	if err != nil {
		return nil, nil, &problem{exitUsage, fmt.Errorf("read Temporal's configuration: %w", err), []string{
			"it comes from TEMPORAL_… in the environment and from temporal.toml; see: bellhop --help",
		}}
	}
	if c.address != "" {
		options.HostPort = c.address
	}
	if options.HostPort == "" {
		options.HostPort = client.DefaultHostPort
	}
	if options.Namespace == "" {
		options.Namespace = client.DefaultNamespace
	}
	c.host, c.namespaceName = options.HostPort, options.Namespace
	// What matters comes back as an error; the SDK's log would only say it a second time.
	options.Logger = temporallog.NewStructuredLogger(slog.New(slog.DiscardHandler))
	options.Identity = "bellhop"
	converters, err := a.converters(options)
	if err != nil {
		return nil, nil, &problem{exitUsage, err, nil}
	}
	converters.Apply(&options)
	options.ConnectionOptions.GetSystemInfoTimeout = dialTimeout
	options.ConnectionOptions.DialOptions = append(options.ConnectionOptions.DialOptions, grpc.WithChainUnaryInterceptor(c.note))
	temporal, err := client.DialContext(ctx, options)
	if err != nil {
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		return nil, nil, c.unreachable(err)
	}
	return operations.New(temporal, options.Namespace, c.taskQueue).With(converters), temporal.Close, nil
}

// converters are by what payloads are written and read: a keyset, else a codec server, else in the clear.
func (a *app) converters(options client.Options) (encryption.Converters, error) {
	config := a.keysetConfig()
	switch {
	case config.KeysetFile != "":
		keys, err := encryption.Open(config, awskms.Service{})
		if err != nil {
			return encryption.Converters{}, err
		}
		return keys.Converters(options.Namespace), nil
	case options.DataConverter != nil:
		return encryption.By(options.DataConverter), nil
	default:
		return encryption.Converters{}, nil
	}
}

func (a *app) keysetConfig() encryption.Config {
	return encryption.Config{
		KeysetFile: cmp.Or(a.connection.keyset, a.getenv("BELLHOP_KEYSET")),
		KMSKeyURI:  cmp.Or(a.connection.keysetKMS, a.getenv("BELLHOP_KEYSET_KMS")),
	}
}

// tooMuch is the problem of a Temporal that takes no more at the moment.
func (c *connection) tooMuch(err error) *problem {
	return &problem{exitTooMany, fmt.Errorf("ask Temporal at %s, namespace %s: %w", c.host, c.namespaceName, err), []string{
		"it takes no more at the moment; the command can be repeated as it is, in a while",
	}}
}

// unreachable is the problem of a Temporal that does not answer.
func (c *connection) unreachable(err error) *problem {
	return &problem{exitTemporal, fmt.Errorf("reach Temporal at %s: %s", c.host, reason(err)), []string{
		"say where it is with --address or TEMPORAL_ADDRESS, or with a --profile of temporal.toml;",
		"to try bellhop on this machine, start a Temporal server first: bellhop-devserver",
	}}
}

// reason cuts the wrappings off an error of gRPC's.
func reason(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer came in time"
	}
	text := err.Error()
	if _, inner, ok := strings.Cut(text, "Error while dialing: "); ok {
		return strings.TrimRight(inner, `"`)
	}
	if strings.Contains(text, context.DeadlineExceeded.Error()) {
		return "no answer came in time"
	}
	return strings.TrimPrefix(text, "failed reaching server: ")
}

// environment lets Temporal's configuration read the environment that this command was given.
type environment func(string) string

// LookupEnv takes an empty variable for one that is not set.
func (e environment) LookupEnv(name string) (string, bool) {
	value := e(name)
	return value, value != ""
}

// Environ lists the variables, as far as they can be listed: their names are the process's.
func (e environment) Environ() []string {
	var pairs []string
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		if value := e(name); value != "" {
			pairs = append(pairs, name+"="+value)
		}
	}
	return pairs
}

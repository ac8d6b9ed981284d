package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	uiserver "github.com/temporalio/ui-server/v2/server"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/primitives"
	"go.temporal.io/server/temporal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	// clusterName is stored in the database: another name would not open it.
	clusterName = "active"
	// storeName names the one data store in the server's configuration.
	storeName = "sqlite"
)

// logLevels are the levels that --log-level takes.
var logLevels = []string{"debug", "info", "warn", "error"}

// server is a running server.
type server struct {
	address    string
	uiURL      string // empty without UI
	namespaces []string

	temporal temporal.Server
	ui       *uiserver.Server // nil without UI
	database *config.SQL
	logLevel zap.AtomicLevel
}

// start starts the server and returns when it really answers.
func start(ctx context.Context, o options, logs io.Writer) (_ *server, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()

	ports, err := choosePorts(o)
	if err != nil {
		return nil, err
	}
	database := sqliteConfig(o.db)
	if err := prepareDatabase(database, o.namespaces); err != nil {
		if o.db != "" {
			return nil, fmt.Errorf("prepare database %s: %w", o.db, err)
		}
		return nil, fmt.Errorf("prepare database in memory: %w", err)
	}

	s := &server{
		address: address(ports.frontend), namespaces: o.namespaces, database: database,
		logLevel: zap.NewAtomicLevelAt(log.ParseZapLevel(o.logLevel)),
	}
	logger := newLogger(s.logLevel, logs)
	s.temporal, err = newTemporal(serverConfig(ports, database), ports, logger)
	if err != nil {
		return nil, fmt.Errorf("configure server: %w", err)
	}
	if err := s.temporal.Start(); err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	if !o.headless {
		s.uiURL = "http://" + address(ports.ui)
		s.ui = startUI(ports.ui, s.address, o.namespaces[0])
	}
	if err := awaitFrontend(ctx, s.address, o.namespaces, o.searchAttributes); err != nil {
		return nil, err
	}
	if s.ui != nil {
		if err := awaitUI(ctx, s.uiURL); err != nil {
			return nil, fmt.Errorf("start UI: %w", err)
		}
	}
	return s, nil
}

// stop stops the UI, which is a client, then the server, then the database.
func (s *server) stop() error {
	// Calls that the end cuts short are logged as errors, which only those want
	// to read who watch the server itself.
	if s.logLevel.Level() == zapcore.ErrorLevel {
		s.logLevel.SetLevel(zapcore.FatalLevel)
	}
	if s.ui != nil {
		s.ui.Stop()
	}
	done := make(chan error, 1)
	go func() {
		if err := s.temporal.Stop(); err != nil {
			done <- fmt.Errorf("stop server: %w", err)
			return
		}
		done <- finishDatabase(s.database)
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(stopTimeout):
		return fmt.Errorf("stop server: not done after %s", stopTimeout)
	}
}

// ports of everything that listens, all on localhost.
type ports struct {
	frontend, frontendHTTP, history, matching, worker, ui int
}

func choosePorts(o options) (p ports, err error) {
	uiPort := &p.ui
	if o.headless {
		uiPort = new(int)
	}
	var faults []error
	for _, c := range []struct {
		port *int
		want int
	}{
		{&p.frontend, o.port},
		{uiPort, o.uiPort},
		{&p.frontendHTTP, 0},
		{&p.history, 0},
		{&p.matching, 0},
		{&p.worker, 0},
	} {
		*c.port, err = choosePort(c.want)
		faults = append(faults, err)
	}
	return p, errors.Join(faults...)
}

func newTemporal(c *config.Config, p ports, logger log.Logger) (temporal.Server, error) {
	// Everybody may do everything: only this machine's users reach it.
	authorizer, err := authorization.GetAuthorizerFromConfig(&c.Global.Authorization)
	if err != nil {
		return nil, err
	}
	claims, err := authorization.GetClaimMapperFromConfig(&c.Global.Authorization, logger)
	if err != nil {
		return nil, err
	}
	return temporal.NewServer(
		temporal.WithConfig(c),
		temporal.ForServices(temporal.DefaultServices),
		// The parts find each other by a fixed list instead of gossip, which
		// would take seconds to settle and more ports.
		temporal.WithStaticHosts(map[primitives.ServiceName]static.Hosts{
			primitives.FrontendService: static.SingleLocalHost(address(p.frontend)),
			primitives.HistoryService:  static.SingleLocalHost(address(p.history)),
			primitives.MatchingService: static.SingleLocalHost(address(p.matching)),
			primitives.WorkerService:   static.SingleLocalHost(address(p.worker)),
		}),
		temporal.WithLogger(logger),
		temporal.WithAuthorizer(authorizer),
		temporal.WithClaimMapper(func(*config.Config) authorization.ClaimMapper { return claims }),
		temporal.WithDynamicConfigClient(dynamicConfig()),
	)
}

func serverConfig(p ports, database *config.SQL) *config.Config {
	service := func(grpc, http int) config.Service {
		return config.Service{RPC: config.RPC{GRPCPort: grpc, HTTPPort: http, BindOnIP: localhost}}
	}
	return &config.Config{
		Persistence: config.Persistence{
			DefaultStore:    storeName,
			VisibilityStore: storeName,
			// Shards spread workflows over hosts; here is one. The number is stored
			// in the database and cannot change.
			NumHistoryShards: 1,
			DataStores:       map[string]config.DataStore{storeName: {SQL: database}},
		},
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10,
			MasterClusterName:        clusterName,
			CurrentClusterName:       clusterName,
			ClusterInformation: map[string]cluster.ClusterInformation{
				clusterName: {
					Enabled:                true,
					InitialFailoverVersion: 1,
					RPCAddress:             address(p.frontend),
				},
			},
		},
		DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
		Services: map[string]config.Service{
			// Nexus operations are called over HTTP, also from this very server:
			// without the port callers wait for ever.
			string(primitives.FrontendService): service(p.frontend, p.frontendHTTP),
			string(primitives.HistoryService):  service(p.history, 0),
			string(primitives.MatchingService): service(p.matching, 0),
			string(primitives.WorkerService):   service(p.worker, 0),
		},
		Archival: config.Archival{
			History:    config.HistoryArchival{State: config.ArchivalDisabled},
			Visibility: config.VisibilityArchival{State: config.ArchivalDisabled},
		},
		NamespaceDefaults: config.NamespaceDefaults{Archival: config.ArchivalNamespaceDefaults{
			History:    config.HistoryArchivalNamespaceDefaults{State: config.ArchivalDisabled},
			Visibility: config.VisibilityArchivalNamespaceDefaults{State: config.ArchivalDisabled},
		}},
		PublicClient: config.PublicClient{HostPort: address(p.frontend)},
	}
}

// newLogger logs text, for people, from the level on.
func newLogger(level zap.AtomicLevel, w io.Writer) log.Logger {
	core := zapcore.NewCore(
		zapcore.NewConsoleEncoder(log.DefaultZapEncoderConfig),
		zapcore.Lock(zapcore.AddSync(w)),
		level,
	)
	return log.NewZapLogger(zap.New(core))
}

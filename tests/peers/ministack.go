package peers

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Ministack is an emulator of AWS, for the wire of ECS: it parses and answers by itself, so it shows whether what is sent
// and read is what somebody else takes for AWS's. What is in it is lost with it.
//
// It answers every call that the ECS provider makes, STS, CloudWatch Logs and SQS too. Without a Docker engine, which it
// is not given, its tasks are records: they run as soon as they are asked for, never fail, and have no addresses. Of
// what matters to bellhop it
//   - answers Create- and UpdateService with a rollout that is COMPLETED already; nothing in it can fail, so its circuit
//     breaker never trips;
//   - knows no client tokens: a second CreateService is refused, with ClientException where AWS has
//     InvalidParameterException, and a second RunTask runs a second task;
//   - has no service deployments: both calls answer an empty list;
//   - deletes at once: a service is never DRAINING, and stays INACTIVE, where it can still be updated and deleted; its
//     tasks stop as if a user had stopped them;
//   - makes a cluster that does not exist, and checks neither names, tags, tokens, sizes nor network configurations;
//   - lists services on one page, however many, without those that drain;
//   - says that a service's tasks were started by the service's name, where AWS has the deployment's id, and propagates no
//     tags to them;
//   - tells a deployment configuration as it was given, without AWS's defaults.
//
// All that it lacks is scripted in tests/peers/scriptedecs.
type Ministack struct {
	*Process
	// Endpoint is its URL. It takes any credentials.
	Endpoint string
}

// ErrNoMinistack says that there is no emulator to start.
var ErrNoMinistack = errors.New("the ECS emulator is not installed; run: make tools")

// StartMinistack starts an emulator that keeps its files in a folder.
func StartMinistack(ctx context.Context, folder string) (*Ministack, error) {
	python := filepath.Join(Root(), ".tools", "bin", "ministack", "bin", "python")
	if _, err := os.Stat(python); err != nil {
		return nil, ErrNoMinistack
	}
	ports, err := FreePorts(1)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	_, port, _ := strings.Cut(ports[0], ":")
	process, err := Start(ctx, python, []string{"-m", "ministack"}, []string{
		"HOME=" + folder, "TMPDIR=" + folder, "BIND_HOST=127.0.0.1", "GATEWAY_PORT=" + port, "SERVICES=ecs,sts,logs,sqs",
		"MINISTACK_REGION=eu-central-1", "LOG_LEVEL=INFO",
		// Nobody is there: it must not find this machine's engine, whose containers it would tidy up.
		"DOCKER_HOST=unix://" + filepath.Join(folder, "no-engine.sock"),
	}, func(line string) bool { return strings.Contains(line, "Ready") })
	if err != nil {
		return nil, err
	}
	return &Ministack{Process: process, Endpoint: "http://" + ports[0]}, nil
}

// MinistackFor starts an emulator that lives as long as the test.
func MinistackFor(tb testing.TB) *Ministack {
	tb.Helper()
	m, err := StartMinistack(tb.Context(), tb.TempDir())
	if errors.Is(err, ErrNoMinistack) {
		Missing(tb, err.Error())
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(m.Kill)
	return m
}

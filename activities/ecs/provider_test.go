package ecs

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"bellhop"
	"bellhop/tests/peers/scriptedecs"
)

// desk is a provider at a scripted server of the test's own.
type desk struct {
	*testing.T
	server   *scriptedecs.Server
	provider *Provider
	count    int
}

func setup(t *testing.T, options scriptedecs.Options, change func(*Config)) *desk {
	t.Helper()
	credentials(t)
	server := scriptedecs.For(t, options)
	settings := config(server)
	if change != nil {
		change(&settings)
	}
	return &desk{T: t, server: server, provider: made(t, settings)}
}

// operation is the next one of tenant acme.
func (d *desk) operation(verb bellhop.Verb, resource string, spec bellhop.Spec, more string) bellhop.Operation {
	d.Helper()
	d.count++
	text, err := json.Marshal(bellhop.Operation{
		TenantID: "acme", Resource: resource, Provider: "ecs", Spec: spec, ProviderConfig: json.RawMessage(more),
		Timeout: bellhop.Duration(bellhop.DefaultTimeout), OnCancel: bellhop.Leave,
	})
	require.NoError(d, err)
	op, err := bellhop.ParseOperation(fmt.Sprintf("%s-%d", verb, d.count), verb, time.Now().UTC(), text)
	require.NoError(d, err)
	require.NoError(d, d.provider.Check(op))
	return op
}

// end asks and observes as bellhop does, until nothing more happens.
func (d *desk) end(op bellhop.Operation) bellhop.Observation {
	d.Helper()
	ask := map[bellhop.Verb]func() (bellhop.Observation, error){
		bellhop.Provision: func() (bellhop.Observation, error) { return d.provider.Provision(d.Context(), op) },
		bellhop.Update:    func() (bellhop.Observation, error) { return d.provider.Update(d.Context(), op) },
		bellhop.Delete:    func() (bellhop.Observation, error) { return d.provider.Delete(d.Context(), op) },
	}[op.Verb]
	var seen bellhop.Observation
	asked := false
	require.Eventually(d, func() bool {
		var err error
		if asked {
			seen, err = d.provider.Observe(d.Context(), op)
		} else {
			seen, err = ask()
		}
		if err != nil {
			if !again(err) {
				d.Fatal(err)
			}
			return false
		}
		asked = true
		return seen.Phase != bellhop.PhasePending
	}, time.Minute, 5*time.Millisecond)
	return seen
}

func (d *desk) calls(action string) int {
	n := 0
	for _, call := range d.server.Calls() {
		if call.Action == "ecs:"+action {
			n++
		}
	}
	return n
}

func TestTasksThatRunOnce(t *testing.T) {
	d := setup(t, scriptedecs.Options{}, func(c *Config) {
		c.LogGroup, c.ExecutionRoleARN = "/bellhop", "arn:aws:iam::111122223333:role/execution"
	})
	const once = `{"kind": "task"}`

	done := d.end(d.operation(bellhop.Provision, "migration", image("done"), once))
	require.Equal(t, bellhop.PhaseReady, done.Phase, "%v", done.Failure)
	assert.Len(t, done.ResourceIDs.TaskARNs, 2)

	failed := d.end(d.operation(bellhop.Provision, "broken", image("exits"), once))
	require.Equal(t, bellhop.PhaseFailed, failed.Phase)
	assert.Equal(t, bellhop.CodeContainerExited, failed.Failure.Code)
	assert.Equal(t, "3", failed.Failure.Evidence["exit_code"])
	assert.Contains(t, failed.Failure.Evidence["logs"], "fatal: no database")

	nowhere := d.end(d.operation(bellhop.Provision, "nowhere", image("no-capacity"), once))
	require.Equal(t, bellhop.PhaseFailed, nowhere.Phase, "an answer 200 that says it failed is a failure")
	assert.Equal(t, bellhop.CodeCapacityUnavailable, nowhere.Failure.Code)
	assert.True(t, nowhere.Failure.Retryable)

	interrupted := d.end(d.operation(bellhop.Provision, "spot", image("spot-interrupted"), once))
	assert.Equal(t, bellhop.CodeCapacityUnavailable, interrupted.Failure.Code)

	for _, resource := range []string{"migration", "broken", "nowhere", "spot"} {
		assert.Equal(t, bellhop.PhaseGone, d.end(d.operation(bellhop.Delete, resource, bellhop.Spec{}, "")).Phase)
	}
	assert.Empty(t, d.server.Remains(tagTenant))
}

// A watcher has no operation to know its secrets by: they are in the task definition.
func TestEvidence_HoldsNoValueOfTheEnvironment(t *testing.T) {
	d := setup(t, scriptedecs.Options{}, func(c *Config) {
		c.LogGroup, c.ExecutionRoleARN = "/bellhop", "arn:aws:iam::111122223333:role/execution"
	})
	for kind, config := range map[string]string{"task": `{"kind": "task"}`, "service": ""} {
		spec := image("exits")
		spec.Env = map[string]string{"PASSWORD": "no database"} // what the workload prints
		failed := d.end(d.operation(bellhop.Provision, "broken-"+kind, spec, config))
		require.Equal(t, bellhop.PhaseFailed, failed.Phase)
		assert.Contains(t, failed.Failure.Evidence["logs"], "fatal: [redacted]", kind)
		assert.NotContains(t, fmt.Sprintf("%+v %+v", failed, failed.Failure), "no database", kind)
	}
}

func TestTasksAreStartedOnce(t *testing.T) {
	d := setup(t, scriptedecs.Options{}, nil)
	op := d.operation(bellhop.Provision, "job", image("long"), `{"kind": "task"}`)
	d.server.Lose("ecs:RunTask", 1) // it was carried out, and nobody heard the answer
	_, err := d.provider.Provision(t.Context(), op)
	require.True(t, again(err), "%v", err)
	first, err := d.provider.Provision(t.Context(), op)
	require.NoError(t, err)
	require.Len(t, first.ResourceIDs.TaskARNs, 2)
	assert.Len(t, d.server.Standing(tagTenant, "acme"), 2)

	// Its token is used for another request: what it started is taken over, not started a second time.
	other := op
	other.Spec.Env = map[string]string{"A": "b"}
	other.Resource = "another"
	again, err := d.provider.Provision(t.Context(), other)
	require.NoError(t, err)
	assert.ElementsMatch(t, first.ResourceIDs.TaskARNs, again.ResourceIDs.TaskARNs)
	assert.Len(t, d.server.Standing(tagTenant, "acme"), 2)

	newer := d.operation(bellhop.Provision, "job", image("done"), `{"kind": "task"}`)
	require.Equal(t, bellhop.PhaseReady, d.end(newer).Phase)
	seen, err := d.provider.Observe(t.Context(), op)
	require.NoError(t, err)
	assert.Equal(t, bellhop.PhaseSuperseded, seen.Phase)
	require.Eventually(t, func() bool { return len(d.server.Standing(tagTenant, "acme")) == 0 }, time.Minute, time.Millisecond,
		"what a newer operation took over from is stopped")
}

func TestLostAnswersMakeNoSecondDeployment(t *testing.T) {
	d := setup(t, scriptedecs.Options{}, nil)
	for _, action := range []string{"ecs:CreateService", "ecs:TagResource"} {
		op := d.operation(bellhop.Provision, "web", image("ready"), "")
		d.server.Lose(action, 1)
		require.Equal(t, bellhop.PhaseReady, d.end(op).Phase)
	}
	op := d.operation(bellhop.Update, "web", bellhop.Spec{Image: "bellhop.test/ready:2", Replicas: 2}, "")
	d.server.Lose("ecs:UpdateService", 1)
	require.Equal(t, bellhop.PhaseReady, d.end(op).Phase)
	deployments := map[string]bool{}
	for _, call := range d.server.Calls() {
		for text := range strings.SplitSeq(string(call.Body), `"`) {
			if id, _, ok := strings.Cut(text, "@"); ok && strings.HasPrefix(id, "ecs-svc/") {
				deployments[id] = true
			}
		}
	}
	assert.Len(t, deployments, 2, "one of the provision and one of the update")
	assert.Equal(t, 2, d.calls("RegisterTaskDefinition"), "what has the same content is registered once")
}

func TestPausedDeploymentAwaitsAction(t *testing.T) {
	d := setup(t, scriptedecs.Options{}, nil)
	op := d.operation(bellhop.Provision, "web", image("paused"), "")
	_, err := d.provider.Provision(t.Context(), op)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		seen, err := d.provider.Observe(t.Context(), op)
		return err == nil && seen.Phase == bellhop.PhasePending && strings.Contains(seen.Progress.Message, "awaiting action")
	}, time.Minute, 5*time.Millisecond)
}

func TestErrorsOfTheWire(t *testing.T) {
	for _, row := range []struct {
		action, code, message string
		want                  bellhop.Code
		reason                string
	}{
		{"ecs:CreateService", "LimitExceededException", "The limit for your resource was exceeded.", bellhop.CodeQuotaExceeded, "a quota, whatever the SDK says"},
		{"ecs:CreateService", "AccessDeniedException", "denied by policy", bellhop.CodePermissionDenied, ""},
		{"ecs:CreateService", "BlockedException", "Your account was blocked.", bellhop.CodePermissionDenied, ""},
		{"ecs:CreateService", "PlatformUnknownException", "The specified platform version does not exist.", bellhop.CodeInvalidSpec, ""},
		{"ecs:DescribeServices", "ClusterNotFoundException", "Cluster not found.", bellhop.CodeResourceNotFound, ""},
		{"ecs:RegisterTaskDefinition", "ClientException", "Too many container definitions.", bellhop.CodeInvalidSpec, ""},
		{"ecs:DescribeServices", "ThrottlingException", "Rate exceeded", bellhop.CodeProviderThrottled, "tried again"},
		{"ecs:CreateService", "ServerException", "Service Unavailable.", bellhop.CodeProviderUnavailable, "tried again"},
		{
			"ecs:CreateService", "InvalidParameterException", "Unable to Start a service that is still Draining.",
			bellhop.CodeProviderUnavailable, "it passes",
		},
		{
			"ecs:CreateService", "InvalidParameterException", "Unable to assume the service linked role. Please verify that it exists.",
			bellhop.CodeProviderUnavailable, "AWS makes it the first time it is needed",
		},
		{
			"ecs:CreateService", "InvalidParameterException", "Creation of service was not idempotent.",
			bellhop.CodeProviderUnavailable, "asked again, we see whose it is",
		},
	} {
		t.Run(row.code+" "+row.message, func(t *testing.T) {
			d := setup(t, scriptedecs.Options{}, nil)
			d.server.Fail(row.action, 1, row.code, row.message)
			op := d.operation(bellhop.Provision, "web", image("ready"), "")
			seen, err := d.provider.Provision(t.Context(), op)
			if row.want == bellhop.CodeProviderUnavailable || row.want == bellhop.CodeProviderThrottled {
				require.Error(t, err, row.reason)
				assert.Equal(t, row.want, codeOfFailure(err), row.reason)
				assert.Equal(t, bellhop.PhaseReady, d.end(op).Phase)
				return
			}
			require.NoError(t, err)
			require.Equal(t, bellhop.PhaseFailed, seen.Phase)
			assert.Equal(t, row.want, seen.Failure.Code, "%s %s", row.reason, seen.Failure)
			assert.Equal(t, 1, strings.Count(seen.Failure.Error(), row.message))
		})
	}
}

func TestThrottlingStormLosesNothing(t *testing.T) {
	d := setup(t, scriptedecs.Options{}, nil)
	reports := d.watch()
	d.server.ThrottleFor("", 500*time.Millisecond)
	var operations []bellhop.Operation
	var asks sync.WaitGroup
	for i := range 10 {
		op := d.operation(bellhop.Provision, fmt.Sprintf("web-%d", i), image("ready"), "")
		operations = append(operations, op)
		asks.Go(func() {
			for {
				if _, err := d.provider.Provision(t.Context(), op); !again(err) {
					return
				}
				select {
				case <-t.Context().Done():
					return
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
	asks.Wait()
	for _, op := range operations {
		require.Eventually(t, func() bool { return reports(op.ID) == bellhop.PhaseReady }, time.Minute, 5*time.Millisecond, op.ID)
	}
	assert.Len(t, d.server.Standing(tagTenant, "acme"), 20)
}

// watch watches until the test is over; what it returns tells what was reported of an operation last.
func (d *desk) watch() func(id string) bellhop.Phase {
	d.Helper()
	var lock sync.Mutex
	last := map[string]bellhop.Phase{}
	ended := make(chan error, 1)
	go func() {
		ended <- d.provider.Watch(d.Context(), func(seen bellhop.Observation) {
			lock.Lock()
			defer lock.Unlock()
			last[seen.OperationID] = seen.Phase
		})
	}()
	d.Cleanup(func() { <-ended }) //nolint:errcheck // that of its context
	return func(id string) bellhop.Phase {
		lock.Lock()
		defer lock.Unlock()
		return last[id]
	}
}

func TestEventsWakeTheWatcherUp(t *testing.T) {
	var server *scriptedecs.Server
	d := setup(t, scriptedecs.Options{Step: 50 * time.Millisecond, Events: &scriptedecs.Events{Duplicates: true, Disorder: true}}, func(c *Config) {
		// Without events nothing would be looked at again before the test is over.
		c.PollMin, c.PollMax, c.Resync = bellhop.Duration(time.Hour), bellhop.Duration(time.Hour), bellhop.Duration(time.Hour)
	})
	server = d.server
	d.provider.config.EventsQueueURL = server.QueueURL
	reports := d.watch()
	op := d.operation(bellhop.Provision, "web", image("ready"), "")
	_, err := made(t, config(server)).Provision(t.Context(), op) // another worker asks
	require.NoError(t, err)
	require.Eventually(t, func() bool { return reports(op.ID) == bellhop.PhaseReady }, time.Minute, 5*time.Millisecond)
	job := d.operation(bellhop.Provision, "job", image("done"), `{"kind": "task"}`)
	_, err = made(t, config(server)).Provision(t.Context(), job)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return reports(job.ID) == bellhop.PhaseReady }, time.Minute, 5*time.Millisecond)
}

func TestTakenUpDeletionsAreReported(t *testing.T) {
	d := setup(t, scriptedecs.Options{}, nil)
	require.Equal(t, bellhop.PhaseReady, d.end(d.operation(bellhop.Provision, "web", image("ready"), "")).Phase)
	op := d.operation(bellhop.Delete, "web", bellhop.Spec{}, "")
	_, err := d.provider.Delete(t.Context(), op)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(d.server.Standing(tagTenant, "acme")) == 0 }, time.Minute, time.Millisecond)
	reports := d.watch() // when the service is listed no more
	require.Eventually(t, func() bool { return reports(op.ID) == bellhop.PhaseGone }, time.Minute, 5*time.Millisecond)
	assert.Empty(t, d.server.Remains(tagTenant))
}

func TestRolesOfTenants(t *testing.T) {
	d := setup(t, scriptedecs.Options{}, func(c *Config) {
		c.RoleARN, c.ExternalID = "arn:aws:iam::111122223333:role/tenant-{tenant}", "bellhop-{tenant}"
		c.TaskRoleARN = "arn:aws:iam::111122223333:role/app-{tenant}"
	})
	require.Equal(t, bellhop.PhaseReady, d.end(d.operation(bellhop.Provision, "web", image("ready"), "")).Phase)
	assumed := 0
	for _, call := range d.server.Calls() {
		switch {
		case strings.HasPrefix(call.Action, "sts:"):
			assumed++
			assert.Contains(t, string(call.Body), "ExternalId=bellhop-acme")
		default:
			assert.Equal(t, "arn:aws:iam::111122223333:role/tenant-acme", call.Role, call.Action)
		}
		if call.Action == "ecs:RegisterTaskDefinition" {
			assert.Contains(t, string(call.Body), `"taskRoleArn":"arn:aws:iam::111122223333:role/app-acme"`)
		}
	}
	assert.Equal(t, 1, assumed, "a role's credentials are kept")
}

func TestOperationsKeepToWhatTheOperatorAllows(t *testing.T) {
	d := setup(t, scriptedecs.Options{}, func(c *Config) {
		c.Secrets = []string{"arn:aws:secretsmanager:eu-central-1:111122223333:secret:{tenant}/*"}
		c.ExecutionRoleARN = "arn:aws:iam::111122223333:role/execution"
	})
	op := bellhop.Operation{
		Verb: bellhop.Provision, TenantID: "acme", Resource: "web",
		Spec: bellhop.Spec{Image: "nginx:1.27", Replicas: 11, CPUMillis: 20_000, Secrets: map[string]string{
			"MINE":   "arn:aws:secretsmanager:eu-central-1:111122223333:secret:acme/a",
			"THEIRS": "arn:aws:secretsmanager:eu-central-1:111122223333:secret:acme2/a",
			"VALUE":  "hunter2",
		}, HealthCheck: &bellhop.HealthCheck{Command: []string{"x"}, Interval: bellhop.Duration(time.Second), Timeout: bellhop.Duration(2 * time.Second), Retries: 1}},
		ProviderConfig: json.RawMessage(`{"kind": "task", "launch_type": "MARS", "minimum_healthy_percent": 100, "maximum_percent": 100,
			"task_definition": "arn:aws:ecs:eu-central-1:111122223333:task-definition/admin:1", "task_role_arn": "arn:aws:iam::1:role/admin"}`),
	}
	err := d.provider.Check(op)
	var faults bellhop.Faults
	require.ErrorAs(t, err, &faults)
	var paths []string
	for _, fault := range faults {
		paths = append(paths, fault.Path)
	}
	for _, path := range []string{
		"spec.secrets.THEIRS", "spec.secrets.VALUE", "spec.replicas", "spec.health_check.interval", "spec",
		"provider_config.launch_type", "provider_config.maximum_percent", "provider_config.task_definition", "provider_config.task_role_arn",
	} {
		assert.Contains(t, paths, path)
	}
	assert.NotContains(t, paths, "spec.secrets.MINE")
	assert.NotContains(t, err.Error(), "hunter2", "what may be a secret's value is not repeated")
}

func TestEveryFaultOfAConfigurationAtOnce(t *testing.T) {
	credentials(t)
	t.Setenv("AWS_REGION", "")
	_, err := New(Config{
		Endpoint: "nowhere", LaunchType: "MARS", TaskRoleARN: "admin", ExternalID: "x", Secrets: []string{"secret/*"}, LogGroup: "/logs",
		PollMin: bellhop.Duration(time.Minute), PollMax: bellhop.Duration(time.Second), ReadsPerSecond: -1, EventsQueueURL: "queue",
	})
	var faults bellhop.Faults
	require.ErrorAs(t, err, &faults)
	for _, path := range []string{
		"region", "endpoint", "cluster", "launch_type", "subnets", "task_role_arn", "external_id", "secrets[0]", "execution_role_arn",
		"poll_max", "reads_per_second", "events_queue_url",
	} {
		assert.True(t, slices.ContainsFunc(faults, func(f bellhop.Fault) bool { return f.Path == path }), "%s is missing in: %s", path, err)
	}
}

func TestFargateSizes(t *testing.T) {
	for _, row := range []struct{ millis, mib, cpu, memory int }{
		{0, 0, 256, 512},
		{250, 512, 256, 512},
		{250, 513, 256, 1024},
		{250, 1500, 256, 2048},
		{250, 2049, 512, 3072},
		{1000, 0, 1024, 2048},
		{1001, 0, 2048, 4096},
		{8000, 17_000, 8192, 20_480},
		{16_000, 122_880, 16_384, 122_880},
	} {
		cpu, memory, ok := fargateSize(row.millis, row.mib)
		assert.True(t, ok)
		assert.Equal(t, []int{row.cpu, row.memory}, []int{cpu, memory}, "%d millis, %d MiB", row.millis, row.mib)
	}
	_, _, ok := fargateSize(16_001, 0)
	assert.False(t, ok)
}

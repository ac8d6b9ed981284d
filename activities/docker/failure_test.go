package docker

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"bellhop"
)

const secret = "hunter2-hunter2"

// Every way to fail has its code, the engine's own words, and evidence without secrets.
func TestFailures(t *testing.T) {
	t.Parallel()
	setup(t, Config{})
	for _, row := range []struct {
		name     string
		mutate   func(*bellhop.Operation)
		config   string
		want     bellhop.Code
		evidence map[string][]string // parts of the evidence, by name
		raw      string              // part of the provider's own error
		stands   int                 // containers left and listed
	}{
		{
			name:   "exits",
			mutate: func(op *bellhop.Operation) { op.Spec.Args = []string{"exit", "-code", "3"} },
			config: `{"restart_policy": {"name": "no"}}`,
			want:   bellhop.CodeContainerExited, stands: 1,
			evidence: map[string][]string{"exit_code": {"3"}, "logs": {"out: last words", "err: last words"}, "restarts": {"0"}},
		}, {
			name:   "is restarted in vain",
			mutate: func(op *bellhop.Operation) { op.Spec.Args = []string{"exit", "-code", "4"} },
			config: `{"restart_policy": {"max_retries": 2}}`,
			want:   bellhop.CodeContainerExited, stands: 1,
			evidence: map[string][]string{"exit_code": {"4"}, "logs": {"last words"}},
		}, {
			// An inspect right after the container died says "restarting"; what counts is the end.
			name:   "is restarted on failure, and given up",
			mutate: func(op *bellhop.Operation) { op.Spec.Args = []string{"exit", "-code", "5"} },
			config: `{"restart_policy": {"name": "on-failure", "max_retries": 2}}`,
			want:   bellhop.CodeContainerExited, stands: 1,
			evidence: map[string][]string{"exit_code": {"5"}, "restarts": {"2"}},
		}, {
			name:   "ends well, and should not end",
			mutate: func(op *bellhop.Operation) { op.Spec.Args = []string{"exit", "-code", "0"} },
			config: `{"restart_policy": {"name": "on-failure"}}`,
			want:   bellhop.CodeContainerExited, stands: 1,
			evidence: map[string][]string{"exit_code": {"0"}},
		}, {
			name: "uses too much memory",
			mutate: func(op *bellhop.Operation) {
				op.Spec.Args, op.Spec.MemoryMiB = []string{"allocate"}, 16
			},
			config: `{"restart_policy": {"name": "no"}}`,
			want:   bellhop.CodeOutOfMemory, stands: 1,
			evidence: map[string][]string{"exit_code": {"137"}},
		}, {
			name: "uses too much memory again and again",
			mutate: func(op *bellhop.Operation) {
				op.Spec.Args, op.Spec.MemoryMiB = []string{"allocate"}, 16
			},
			config: `{"restart_policy": {"max_retries": 1}}`,
			want:   bellhop.CodeOutOfMemory, stands: 1,
		}, {
			name: "is unhealthy",
			mutate: func(op *bellhop.Operation) {
				op.Spec.Args, op.Spec.HealthCheck = []string{"serve", "-after", "1h"}, failingCheck()
			},
			want: bellhop.CodeHealthCheckFailed, stands: 1,
			evidence: map[string][]string{"health_log": {"not yet, the password is [redacted]"}},
		}, {
			name:   "has no such command",
			mutate: func(op *bellhop.Operation) { op.Spec.Command = []string{"/no/such"} },
			want:   bellhop.CodeContainerExited, stands: 1, raw: "no such file or directory",
			evidence: map[string][]string{"exit_code": {"127"}},
		}, {
			name:   "has no such image, and none may be pulled",
			mutate: func(op *bellhop.Operation) { op.Spec.Image = "bellhop.test/no-such:1" },
			config: `{"pull": "never"}`,
			want:   bellhop.CodeImagePullFailed, raw: "no-such",
		}, {
			name: "has an image whose registry cannot be reached",
			// Port 1 of the engine's machine answers nobody.
			mutate: func(op *bellhop.Operation) { op.Spec.Image = "127.0.0.1:1/no-such:1" },
			want:   bellhop.CodeImagePullFailed, raw: "connection refused",
		}, {
			name:   "has no such network",
			config: `{"network": "bellhop-test-no-such"}`,
			want:   bellhop.CodeInvalidSpec, raw: "not found",
		}, {
			name:   "wants more processors than there are",
			mutate: func(op *bellhop.Operation) { op.Spec.CPUMillis = 10_000_000 },
			want:   bellhop.CodeInvalidSpec, raw: "ange of CPUs",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, Config{
				SteadyAfter: bellhop.Duration(time.Minute), Networks: []string{"bellhop-test-*"}, Images: []string{"*"},
			})
			op := b.provision("web", func(op *bellhop.Operation) {
				op.Spec.Env = map[string]string{"PASSWORD": secret}
				op.ProviderConfig = json.RawMessage(row.config)
				if row.mutate != nil {
					row.mutate(op)
				}
			})
			seen := b.want(op, bellhop.PhaseFailed)
			failure := seen.Failure
			if failure.Code != row.want && !lostNotice(row.want, failure) {
				t.Errorf("failed with %s, want %s: %s", failure.Code, row.want, failure)
			}
			if !strings.Contains(failure.ProviderError, row.raw) {
				t.Errorf("the engine said %q, want %q in it", failure.ProviderError, row.raw)
			}
			for name, parts := range row.evidence {
				for _, part := range parts {
					if !strings.Contains(failure.Evidence[name], part) {
						t.Errorf("evidence %s is %q, want %q in it", name, failure.Evidence[name], part)
					}
				}
			}
			if text := fmt.Sprint(failure, failure.Evidence, seen.Progress); strings.Contains(text, secret) {
				t.Errorf("a secret shows: %s", text)
			}
			if len(seen.ResourceIDs.ContainerIDs) != row.stands || len(b.ids()) != row.stands {
				t.Errorf("lists %v and %d stand, want %d", seen.ResourceIDs.ContainerNames, len(b.ids()), row.stands)
			}
			// Asked again, by a worker that did not see the first answer, it is the same end.
			again := b.want(op, bellhop.PhaseFailed)
			if again.Failure.Code != row.want && !lostNotice(row.want, again.Failure) {
				t.Errorf("asked again it failed with %s, want %s", again.Failure.Code, row.want)
			}
			const at = "finished_at"
			if strings.Contains(row.config, `"no"`) && again.Failure.Evidence[at] != failure.Evidence[at] {
				t.Errorf("asking again started what had exited: it finished at %s and at %s", failure.Evidence[at], again.Failure.Evidence[at])
			}
		})
	}
}

// lostNotice says whether a failure is what is left of a lack of memory of which a busy engine lost the notice: the exit
// code, and the limit named as the possible reason.
func lostNotice(want bellhop.Code, failure *bellhop.Failure) bool {
	return want == bellhop.CodeOutOfMemory && failure.Code == bellhop.CodeContainerExited &&
		strings.Contains(failure.Message, perhapsMemory)
}

// perhapsMemory is what the message of a killed container says of its limit.
const perhapsMemory = "perhaps for using more than its 16 MiB of memory"

// A container that has died before it counts as steady is no success, though it ran when it was first looked at.
func TestDyingEarlyIsNoSuccess(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{SteadyAfter: bellhop.Duration(20 * time.Second)})
	op := b.provision("web", func(op *bellhop.Operation) {
		op.Spec.Args = []string{"exit", "-after", "1s"}
		op.ProviderConfig = json.RawMessage(`{"restart_policy": {"name": "no"}}`)
	})
	seen, err := b.Provision(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	if seen.Phase == bellhop.PhaseReady {
		t.Error("it is called ready as soon as it runs")
	}
	b.want(op, bellhop.PhaseFailed)
}

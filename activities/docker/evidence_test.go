package docker

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"bellhop"
)

func TestSecretsOfAnEnvironment(t *testing.T) {
	secrets := secretsOf([]string{"PATH=/usr/local/bin:/usr/bin", "MODE=prod", "TOKEN=correct horse", "KEY=-begin-\nmiddle line\n-end-", "EMPTY="})
	text := bellhop.Scrub("middle line\n-end-\nPATH is /usr/local/bin:/usr/bin, prod, correct horse", secrets)
	for _, secret := range []string{"middle", "horse"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is left in %q", secret, text)
		}
	}
	for _, harmless := range []string{"prod", "/usr/local/bin:/usr/bin"} {
		if !strings.Contains(text, harmless) {
			t.Errorf("%q, which is no secret, was taken out of %q", harmless, text)
		}
	}
}

// What the engine logged decides, also where it lost the notice; nothing is guessed from the exit code.
func TestTheLogOfEventsTellsWhatRanOutOfMemory(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	for resource, args := range map[string][]string{
		"greedy": {"allocate"},
		"modest": {"exit", "-code", "137"},
	} {
		op := b.provision(resource, func(op *bellhop.Operation) {
			op.Spec.Args, op.Spec.MemoryMiB = args, 16
			op.ProviderConfig = json.RawMessage(`{"restart_policy": {"name": "no"}}`)
		})
		seen := b.want(op, bellhop.PhaseFailed)
		id := seen.ResourceIDs.ContainerIDs[0]
		detail, err := b.docker.ContainerInspect(t.Context(), id, client.ContainerInspectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		told := b.ranOutOfMemory(t.Context(), id)
		if resource == "modest" && told {
			t.Errorf("%s is said to have run out of memory", resource)
		}
		want := bellhop.CodeContainerExited
		if told || detail.Container.State.OOMKilled {
			want = bellhop.CodeOutOfMemory
		}
		if seen.Failure.Code != want {
			t.Errorf("%s failed with %s, and the engine's log tells of a lack of memory: %t", resource, seen.Failure.Code, told)
		}
		if want == bellhop.CodeContainerExited && !strings.Contains(seen.Failure.Message, perhapsMemory) {
			t.Errorf("%s, of which the engine does not say why it was killed: %q", resource, seen.Failure.Message)
		}
	}
}

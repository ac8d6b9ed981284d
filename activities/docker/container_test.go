package docker

import (
	"maps"
	"testing"
	"time"

	"bellhop"
)

func example(tb testing.TB) (bellhop.Operation, OperationConfig) {
	tb.Helper()
	op := bellhop.Operation{
		ID: "op-1", Verb: bellhop.Provision, TenantID: "acme", Resource: "web",
		RequestedAt: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
		Spec: bellhop.Spec{
			Image: "nginx:1.27", Env: map[string]string{"PASSWORD": "hunter2hunter2"}, Replicas: 3,
			Ports: []bellhop.Port{{Name: "http", ContainerPort: 80, Protocol: "tcp"}, {Name: "dns", ContainerPort: 53, Protocol: "udp"}},
		},
	}
	return op, configOf(tb, op)
}

func TestNamesDoNotCollide(t *testing.T) {
	op, _ := example(t)
	seen := map[string]string{}
	for _, of := range []struct{ tenant, resource, id string }{
		{"a-b", "c", "op-1"}, {"a", "b-c", "op-1"}, {"a-b", "c", "op-2"}, {"a", "b", "c-op-1"},
	} {
		op.TenantID, op.Resource, op.ID = of.tenant, of.resource, of.id
		for n := range 3 {
			name := containerName(op, n+1)
			if other := seen[name]; other != "" {
				t.Errorf("%v and %s share the name %s", of, other, name)
			}
			seen[name] = of.tenant + "/" + of.resource + "/" + of.id
			if again := containerName(op, n+1); again != name {
				t.Errorf("asked again, %v is named %s, not %s", of, again, name)
			}
		}
	}
	// Pinned: a later version must find what this one made.
	op, _ = example(t)
	if got, want := containerName(op, 2), "bellhop-acme-web-2-54f3ec1bcda6"; got != want {
		t.Errorf("named %s, want %s", got, want)
	}
}

func TestLabelsSayAll(t *testing.T) {
	op, config := example(t)
	id, ours := identify(labelsOf(op, config, 2))
	if !ours || id.tenant != "acme" || id.resource != "web" || id.replica != 2 || id.replicas != 3 || id.maxRetries != 5 ||
		!id.generation.RequestedAt.Equal(op.RequestedAt) || id.generation.OperationID != "op-1" ||
		!maps.Equal(id.ports, map[string]string{"80/tcp": "http", "53/udp": "dns"}) {
		t.Errorf("identified as %+v, %t", id, ours)
	}
	for name := range labelsOf(op, config, 1) {
		labels := labelsOf(op, config, 1)
		delete(labels, name)
		_, ours := identify(labels)
		if want := name == labelPorts || name == labelSpecHash; ours != want {
			t.Errorf("without %s it is ours: %t, want %t", name, ours, want)
		}
	}
}

func TestSpecHashCoversEverything(t *testing.T) {
	op, config := example(t)
	base := specHash(op, config)
	for name, change := range map[string]func(*bellhop.Operation){
		"operation": func(op *bellhop.Operation) { op.ID = "op-2" },
		"image":     func(op *bellhop.Operation) { op.Spec.Image = "nginx:1.28" },
		"env":       func(op *bellhop.Operation) { op.Spec.Env = map[string]string{"PASSWORD": "other"} },
		"replicas":  func(op *bellhop.Operation) { op.Spec.Replicas = 4 },
	} {
		changed := op
		change(&changed)
		if specHash(changed, config) == base {
			t.Errorf("a change of %s leaves the hash as it is", name)
		}
	}
	config.Network = "other"
	if specHash(op, config) == base {
		t.Error("a change of provider_config leaves the hash as it is")
	}
}

package kubernetes

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"bellhop"
)

func TestConfigNamesEveryFault(t *testing.T) {
	_, err := New(Config{
		Kubeconfig: "/no/such/file", Namespace: "{tenant}", PodSecurity: "privileged", ServiceType: "NodePort",
		ServiceAccount: "No Account", ImagePullSecrets: []string{"ok", "Not_Ok"}, NodeSelector: map[string]string{"a b": "c"},
		Patience: 1, ProgressDeadline: bellhop.Duration(2500e6), SteadyAfter: bellhop.Duration(1500e6), Resync: 1,
	})
	var faults bellhop.Faults
	if !errors.As(err, &faults) {
		t.Fatalf("it is %v, not faults", err)
	}
	for _, path := range []string{
		"kubeconfig", "namespace", "pod_security", "service_type", "service_account", "image_pull_secrets[1]", "node_selector.a b",
		"patience", "progress_deadline", "steady_after", "resync",
	} {
		if !strings.Contains(faults.Error(), path+":") {
			t.Errorf("%s says nothing of %s", faults, path)
		}
	}
}

func TestCheckNamesEveryFault(t *testing.T) {
	for name, test := range map[string]struct {
		config string
		spec   bellhop.Spec
		want   []string
	}{
		"good": {`{"kind": "deployment", "run_as_user": 1000}`, bellhop.Spec{
			Image: "nginx:1.27", Secrets: map[string]string{"PASSWORD": "database.prod/pass_word"},
			Ports: []bellhop.Port{{Name: "http", ContainerPort: 80}},
		}, nil},
		"fields": {`{"kind": "pod", "retries": 101, "run_as_user": -1, "replicas": 3}`, bellhop.Spec{Image: "UPPER"}, []string{
			"provider_config.kind", "provider_config.retries", "provider_config.run_as_user", "provider_config.replicas", "spec.image",
		}},
		"deployment": {`{"retries": 1}`, bellhop.Spec{Image: "a"}, []string{"provider_config.retries"}},
		"job": {`{"kind": "job"}`, bellhop.Spec{
			Image: "a", Ports: []bellhop.Port{{Name: "a", ContainerPort: 1}}, HealthCheck: &bellhop.HealthCheck{},
		}, []string{"spec.ports:", "spec.health_check:"}},
		"references": {``, bellhop.Spec{
			Image: "a", Secrets: map[string]string{"A": "no-key", "B": "hunter2 is the password"},
			Ports: []bellhop.Port{{Name: "much-too-long-for-a-port", ContainerPort: 1}, {Name: "123", ContainerPort: 2}},
		}, []string{"spec.secrets.A", "spec.secrets.B", "spec.ports[0].name", "spec.ports[1].name"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := Check(bellhop.Operation{Verb: bellhop.Provision, Spec: test.spec, ProviderConfig: json.RawMessage(test.config)})
			if len(test.want) == 0 && err != nil {
				t.Errorf("refused: %s", err)
			}
			for _, path := range test.want {
				if err == nil || !strings.Contains(err.Error(), path) {
					t.Errorf("%v says nothing of %s", err, path)
				}
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a value that was taken for a reference is repeated: %s", err)
			}
		})
	}
}

// TestNamesAreApart: no two tenants share a namespace, and no two resources a name, however they are written.
func TestNamesAreApart(t *testing.T) {
	p := &Provider{config: Config{Namespace: DefaultNamespace}}
	hashed := strings.TrimPrefix(p.namespaceOf("ACME"), "bellhop-")
	tenants := []string{
		"acme", "ACME", "Acme", "ac.me", "ac-me", "ac_me", "a", hashed, strings.Repeat("a", 30), strings.Repeat("a", 31), strings.Repeat("a", 63),
		strings.Repeat("9", 63), "a." + strings.Repeat("-", 20) + "b",
	}
	seen := map[string]string{}
	for _, tenant := range tenants {
		namespace := p.namespaceOf(tenant)
		if other, taken := seen[namespace]; taken {
			t.Errorf("%s and %s share the namespace %s", tenant, other, namespace)
		}
		seen[namespace] = tenant
		if len(namespace) > 63 || strings.ToLower(namespace) != namespace || strings.ContainsAny(namespace, "._") || strings.HasSuffix(namespace, "-") {
			t.Errorf("%q is no name for a namespace", namespace)
		}
		for _, resource := range []string{"web", "Web", "b-c", strings.Repeat("r", 63)} {
			name := key{namespace, tenant, resource}.objectName()
			if other, taken := seen[name]; taken {
				t.Errorf("%s/%s and %s share the name %s", tenant, resource, other, name)
			}
			seen[name] = tenant + "/" + resource
			if len(name) > 46 || strings.ToLower(name) != name || strings.ContainsAny(name, "._") {
				t.Errorf("%q is no name for a deployment", name)
			}
		}
	}
	if p.namespaceOf("acme") != "bellhop-acme" {
		t.Errorf("acme's namespace is %s", p.namespaceOf("acme"))
	}
	if (key{"", "a-b", "c"}).objectName() == (key{"", "a", "b-c"}).objectName() {
		t.Error("a-b/c and a/b-c share a name")
	}
}

func TestLiteral(t *testing.T) {
	for text, want := range map[string]string{"plain $HOME": "plain $HOME", "$(HOME)": "$$(HOME)", "a$$b": "a$$$$b", "": ""} {
		if got := literal(text); got != want || meant(got) != text {
			t.Errorf("%q becomes %q, and %q again", text, got, meant(got))
		}
	}
}

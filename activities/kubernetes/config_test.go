package kubernetes

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"bellhop"
)

func TestConfigNamesEveryFault(t *testing.T) {
	_, err := New(Config{
		Kubeconfig: "/no/such/file", Namespace: "{tenant}", PodSecurity: "privileged", ServiceType: "NodePort",
		ServiceAccount: "No Account", ImagePullSecrets: []string{"ok", "Not_Ok"}, NodeSelector: map[string]string{"a b": "c"},
		Patience: 1, ProgressDeadline: bellhop.Duration(2500e6), SteadyAfter: bellhop.Duration(1500e6), Resync: 1,
		Secrets: []string{"ok/*", "no-key", "{tenant}-*/key"}, Images: []string{"{tenant}/*"},
	})
	var faults bellhop.Faults
	if !errors.As(err, &faults) {
		t.Fatalf("it is %v, not faults", err)
	}
	for _, path := range []string{
		"kubeconfig", "namespace", "pod_security", "service_type", "service_account", "image_pull_secrets[1]", "node_selector.a b",
		"patience", "progress_deadline", "steady_after", "resync", "secrets[1]", "secrets[2]", "images[0]",
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

func TestConfig_NamespacesOfTheCluster(t *testing.T) {
	for namespace, ok := range map[string]bool{
		"bellhop-{tenant}": true, "tenants": true, "default": true, "": true, "kube-{tenant}": false, "{tenant}-system": false,
		"kube-{tenant}-lease": false, "kube-system": false, "k{tenant}": false, "{tenant}-web": true,
	} {
		_, err := Config{Namespace: namespace}.withDefaults()
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "belongs to the cluster") {
			t.Errorf("%q: %v", namespace, err)
		}
	}
}

// What a tenant may refer to, and what it is told when it may not.
func TestCheck_OnlyWhatTheOperatorAllows(t *testing.T) {
	const (
		closed     = "is not allowed to tenant acme; the operator allows references in the provider's secrets"
		registry   = "must not refer to the registry's credentials"
		credential = `may refer to credentials of the cluster; the operator allows it in the provider's secrets by a pattern without "*"`
	)
	own, shared := "bellhop-{tenant}", "tenants"
	pull := []string{"regcred"}
	for _, row := range []struct {
		reason    string
		entry     Config
		reference string
		want      string
	}{
		{"nothing is allowed that the operator does not name", Config{Namespace: own}, "database/password", closed},
		{"nothing is allowed that the operator does not name", Config{Namespace: shared}, "database/password", closed},
		{"an application's secret", Config{Namespace: own, Secrets: []string{"app-*"}}, "app-database/password", ""},
		{"another kind of secret", Config{Namespace: own, Secrets: []string{"app-*"}}, "tls/tls.key", closed},
		{"one key of a secret", Config{Namespace: own, Secrets: []string{"database/user"}}, "database/password", closed},
		{"everything", Config{Namespace: own, Secrets: []string{"*"}}, "database/password", ""},
		{"the registry's credentials", Config{Namespace: own, Secrets: []string{"*"}, ImagePullSecrets: pull}, "regcred/.dockerconfigjson", registry},
		{"the registry's credentials by another key", Config{Namespace: own, Secrets: []string{"*"}, ImagePullSecrets: pull}, "regcred/config", registry},
		{
			"the registry's credentials, although the operator names them",
			Config{Namespace: own, Secrets: []string{"regcred/.dockerconfigjson"}, ImagePullSecrets: pull},
			"regcred/.dockerconfigjson", registry,
		},
		{"a secret that is called like them", Config{Namespace: own, Secrets: []string{"*"}, ImagePullSecrets: pull}, "regcred2/x", ""},
		{"other registry credentials", Config{Namespace: own, Secrets: []string{"*"}}, "x/.dockerconfigjson", credential},
		{"other registry credentials", Config{Namespace: own, Secrets: []string{"x/*"}}, "x/.dockercfg", credential},
		{"a token of a service account", Config{Namespace: own, Secrets: []string{"*"}}, "default-token-x7k2p/token", credential},
		{"what Helm keeps", Config{Namespace: own, Secrets: []string{"*"}}, "sh.helm.release.v1.web.v3/release", credential},
		{"the operator's word", Config{Namespace: own, Secrets: []string{"github-token-prod1/value"}}, "github-token-prod1/value", ""},
		{"a name that only contains the words", Config{Namespace: own, Secrets: []string{"*"}}, "my-token-of-the-app/token", ""},
		{"its own in a namespace of all", Config{Namespace: shared, Secrets: []string{"tenant-{tenant}/*"}}, "tenant-acme/password", ""},
		{"another's in a namespace of all", Config{Namespace: shared, Secrets: []string{"tenant-{tenant}/*"}}, "tenant-rival/password", closed},
		{"another's whose name goes on", Config{Namespace: shared, Secrets: []string{"tenant-{tenant}/*"}}, "tenant-acme-2/password", closed},
	} {
		config, err := row.entry.withDefaults()
		if err != nil {
			t.Fatal(row.reason, err)
		}
		p := &Provider{config: config}
		op := bellhop.Operation{
			Verb: bellhop.Provision, TenantID: "acme", Spec: bellhop.Spec{Image: "nginx:1.27", Secrets: map[string]string{"X": row.reference}},
		}
		faults, _ := p.Check(op).(bellhop.Faults) //nolint:errorlint // Check returns faults as they are
		want := row.want
		if want != "" {
			want = "spec.secrets.X: " + want
		}
		if got := faults.Error(); got != want {
			t.Errorf("%s: %s:\ngot  %s\nwant %s", row.reason, row.reference, got, want)
		}
		if row.want != "" && !faults.OnlyHere() {
			t.Errorf("%s: another worker may allow it", row.reason)
		}
	}
	p := &Provider{config: Config{Namespace: own, Images: []string{"registry.example.com/{tenant}/*"}}}
	for image, want := range map[string]string{
		"registry.example.com/acme/web:1":  "",
		"registry.example.com/rival/web:1": "spec.image: is not allowed to tenant acme; the operator allows repositories in the provider's images",
		"sha256:0123456789ab":              "not its id",
	} {
		err := p.Check(bellhop.Operation{Verb: bellhop.Provision, TenantID: "acme", Spec: bellhop.Spec{Image: image}})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", image, err, want)
		}
	}
}

// An image that is on the node is looked up at its registry where tenants have credentials of their own.
func TestPod_ImageIsLookedUp(t *testing.T) {
	for _, row := range []struct {
		entry Config
		want  corev1.PullPolicy
	}{
		{Config{Namespace: "bellhop-{tenant}"}, ""},
		{Config{Namespace: "bellhop-{tenant}", ImagePullSecrets: []string{"regcred"}}, corev1.PullAlways},
		{Config{Namespace: "tenants", ImagePullSecrets: []string{"regcred"}}, ""},
	} {
		pod := desired{op: bellhop.Operation{Spec: bellhop.Spec{Image: "registry.example.com/web:1"}}, entry: row.entry}.pod()
		if got := pod.Spec.Containers[0].ImagePullPolicy; got != row.want {
			t.Errorf("%+v: the policy is %q, want %q", row.entry, got, row.want)
		}
	}
}

// TestNamesAreApart: no two tenants share a namespace, and no two resources a name, however they are written.
func TestNamesAreApart(t *testing.T) {
	p := &Provider{config: Config{Namespace: DefaultNamespace}}
	hashed := strings.TrimPrefix(p.namespaceOf("ACME"), "bellhop-")
	tenants := []string{
		"acme", "ACME", "Acme", "ac.me", "ac-me", "ac_me", "a", "A.b", "a.b", "a-b", "A-b", hashed, "kube-system", "x" + hashed, strings.Repeat("a", 30), strings.Repeat("a", 31), strings.Repeat("a", 63),
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

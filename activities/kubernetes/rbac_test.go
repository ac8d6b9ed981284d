package kubernetes

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"bellhop"
)

func asFailure(err error, into **bellhop.Failure) bool { return errors.As(err, into) }

// compareWithManifest compares what the manifest allows with what the API server was asked for by the worker.
func (b *bench) compareWithManifest(manifest string) {
	b.Helper()
	allowed := b.rulesOf(filepath.Join("..", "..", "docs", "examples", "kubernetes", manifest))
	calls, err := b.cluster.Calls(workerUser)
	if err != nil {
		b.Fatal(err)
	}
	used := map[string]bool{}
	for _, call := range calls {
		if call.Resource == "" {
			continue
		}
		what := call.Verb + " " + call.Group + "/" + call.Resource
		used[what] = true
		if call.Code == http.StatusForbidden {
			b.Errorf("the API server refused to %s in %q", what, call.Namespace)
		}
	}
	for _, what := range slices.Sorted(maps.Keys(allowed)) {
		if !used[what] {
			b.Errorf("%s allows to %s, which nothing needs", manifest, what)
		}
	}
	for _, what := range slices.Sorted(maps.Keys(used)) {
		if !allowed[what] {
			b.Errorf("%s does not allow to %s", manifest, what)
		}
	}
}

func (b *bench) rulesOf(file string) map[string]bool {
	b.Helper()
	text, err := os.ReadFile(file) //nolint:gosec // our own
	if err != nil {
		b.Fatal(err)
	}
	allowed := map[string]bool{}
	documents := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		var role rbacv1.ClusterRole // a Role has the same rules
		if err := documents.Decode(&role); errors.Is(err, io.EOF) {
			return allowed
		} else if err != nil {
			b.Fatal(err)
		}
		if !strings.HasSuffix(role.Kind, "Role") {
			continue
		}
		for _, rule := range role.Rules {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					allowed[verb+" "+rule.APIGroups[0]+"/"+resource] = true
				}
			}
		}
	}
}

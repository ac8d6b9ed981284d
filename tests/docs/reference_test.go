package docs

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/yaml"

	"bellhop"
	"bellhop/activities/docker"
	"bellhop/activities/ecs"
	"bellhop/activities/kubernetes"
	"bellhop/activities/simulated"
	"bellhop/tests/peers"
)

var update = flag.Bool("update", false, "write the pages anew")

func TestReferenceSaysWhatTheTypesSay(t *testing.T) {
	pages, err := Pages(peers.Root())
	if err != nil || len(pages) < 2 {
		t.Fatalf("pages with tables: %v, %v; the reference and the configuration have some", pages, err)
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		want, err := Render(peers.Root(), text)
		if err != nil {
			t.Fatalf("%s: %s", page, err)
		}
		if *update {
			if err := os.WriteFile(page, want, 0o644); err != nil {
				t.Fatal(err)
			}
		} else if !bytes.Equal(want, text) {
			t.Errorf("%s is not what the types say; write it anew: make docs", page)
		}
	}
}

func TestOpenAPISaysWhatTheTypesSay(t *testing.T) {
	file := filepath.Join(peers.Root(), "bridge", "httpapi", "openapi.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want, err := RenderOpenAPI(peers.Root(), text)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(want, text) {
		t.Errorf("%s is not what the types say; write it anew: make docs", file)
	}
}

func TestReferenceHasEveryCodeWithItsFlags(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(peers.Root(), "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	word := map[bool]string{true: "yes", false: "no"}
	for _, info := range bellhop.Codes() {
		row := fmt.Sprintf("| `%s` | %s | %s |", info.Code, word[info.Retryable], word[info.RequiresIntervention])
		if !strings.Contains(string(page), row) {
			t.Errorf("docs/operations.md lacks the row %q", row)
		}
	}
}

func TestSchemasSayWhatTheTypesSay(t *testing.T) {
	made, err := Schemas(peers.Root())
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(peers.Root(), "starter", "schemas")
	for name, want := range made {
		file := filepath.Join(folder, name+".json")
		if *update {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		} else if text, err := os.ReadFile(file); err != nil || !bytes.Equal(want, text) {
			t.Errorf("%s is not what the types say (%v); write it anew: make docs", file, err)
		}
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil || len(files) != len(made) {
		t.Errorf("%s has %d files, %v; %d schemas are made", folder, len(files), err, len(made))
	}
}

// Every operation that a page shows, to be pasted, is one: by the schema that an editor has, and by the code.
func TestExampleOperationsAreValid(t *testing.T) {
	compiled := map[string]*jsonschema.Schema{}
	made, err := Schemas(peers.Root())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range made {
		document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		compiler := jsonschema.NewCompiler()
		if err := compiler.AddResource(name+".json", document); err != nil {
			t.Fatal(err)
		}
		if compiled[name], err = compiler.Compile(name + ".json"); err != nil {
			t.Fatal(err)
		}
	}
	check := map[string]func(bellhop.Operation) error{
		"simulated": simulated.Check, "docker": docker.Check, "ecs": ecs.Check, "kubernetes": kubernetes.Check,
	}
	count := 0
	err = filepath.WalkDir(peers.Root(), func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), "."):
			return filepath.SkipDir
		case filepath.Ext(path) != ".md":
			return nil
		}
		page, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, example := range Examples(page) {
			count++
			text, err := yaml.YAMLToJSON([]byte(example.Text))
			if err != nil {
				t.Errorf("%s: %s\n%s", path, err, example.Text)
				continue
			}
			op, err := bellhop.ParseOperation("example", example.Verb, time.Time{}, text)
			if err == nil && check[op.Provider] != nil {
				err = check[op.Provider](op)
			}
			if err != nil {
				t.Errorf("%s: the code says: %s\n%s", path, err, example.Text)
			}
			for name, raw := range map[string][]byte{"operation": text, op.Provider: op.ProviderConfig} {
				if len(raw) == 0 || compiled[name] == nil {
					continue
				}
				document, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
				if err == nil {
					err = compiled[name].Validate(document)
				}
				if err != nil {
					t.Errorf("%s: the schema of %s says: %s\n%s", path, name, err, example.Text)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if count < 7 {
		t.Errorf("%d examples were found; the pages have more", count)
	}
	t.Logf("%d examples", count)
}

func TestSchemasRefuseWhatTheCodeRefuses(t *testing.T) {
	made, err := Schemas(peers.Root())
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ name, text string }{
		{"operation", `{"provider": "docker", "spec": {"image": "nginx"}}`},
		{"operation", `{"tenant_id": "acme", "provider": "docker", "spec": {"imgae": "nginx"}}`},
		{"operation", `{"tenant_id": "acme", "provider": "docker", "on_cancel": "perhaps"}`},
		{"docker", `{"pull": 1}`},
		{"docker", `{"restart_policy": {"nmae": "no"}}`},
		{"simulated", `{"fail": {"at": "wait"}}`},
		{"simulated", `{"fail": {"code": "NO_SUCH_CODE"}}`},
		{"simulated", `{"ready_after": 5}`},
	} {
		schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(made[row.name]))
		if err != nil {
			t.Fatal(err)
		}
		document, err := jsonschema.UnmarshalJSON(strings.NewReader(row.text))
		if err != nil {
			t.Fatal(err)
		}
		compiler := jsonschema.NewCompiler()
		if err := compiler.AddResource("it.json", schema); err != nil {
			t.Fatal(err)
		}
		compiled, err := compiler.Compile("it.json")
		if err != nil {
			t.Fatal(err)
		}
		if compiled.Validate(document) == nil {
			t.Errorf("the schema of %s takes %s", row.name, row.text)
		}
	}
}

package docs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"

	"github.com/invopop/jsonschema"

	"bellhop"
	"bellhop/activities/docker"
	"bellhop/activities/ecs"
	"bellhop/activities/kubernetes"
	"bellhop/activities/simulated"
)

// described is what `bellhop schema` prints a schema of: the operation, and each provider's provider_config by its type.
var described = []struct {
	name, title string
	of          any
	folder      string // where its type is
}{
	{"operation", "An operation of bellhop: the input of its workflows, and what its command line reads", bellhop.Operation{}, "."},
	{"simulated", "The provider_config of an operation at a provider of type simulated", simulated.Script{}, "activities/simulated"},
	{"docker", "The provider_config of an operation at a provider of type docker", docker.OperationConfig{}, "activities/docker"},
	{"ecs", "The provider_config of an operation at a provider of type ecs", ecs.OperationConfig{}, "activities/ecs"},
	{"kubernetes", "The provider_config of an operation at a provider of type kubernetes", kubernetes.OperationConfig{}, "activities/kubernetes"},
}

// Schemas are the JSON Schemas that `bellhop schema` prints, by name, made of the types of the sources under root and their
// comments.
func Schemas(root string) (map[string][]byte, error) {
	made := map[string][]byte{}
	for _, d := range described {
		// Only what the code reads is allowed, as its strict reader has it.
		reflector := jsonschema.Reflector{Anonymous: true, ExpandedStruct: true, Mapper: specialInput}
		schema := reflector.Reflect(d.of)
		schema.Title = d.title
		parts := map[string]*jsonschema.Schema{reflect.TypeOf(d.of).Name(): schema}
		maps.Copy(parts, schema.Definitions)
		for name, part := range parts {
			if err := explain(part, name, filepath.Join(root, d.folder)); err != nil {
				return nil, fmt.Errorf("describe %s in %s: %w", name, d.folder, err)
			}
			require(part)
		}
		if d.name == "operation" {
			schema.Properties.Delete("requested_at") // it is bellhop's to set
		}
		text, err := json.Marshal(schema)
		if err != nil {
			return nil, err
		}
		var indented bytes.Buffer
		if err := json.Indent(&indented, text, "", "  "); err != nil {
			return nil, err
		}
		made[d.name] = append(indented.Bytes(), '\n')
	}
	return made, nil
}

var saysRequired = regexp.MustCompile(`\bRequired\.`)

// require makes required what its description calls so. The tags of what is read do not say: a field without omitempty may be
// left out as well.
func require(schema *jsonschema.Schema) {
	schema.Required = nil
	for pair := schema.Properties.Oldest(); pair != nil; pair = pair.Next() {
		if saysRequired.MatchString(pair.Value.Description) {
			schema.Required = append(schema.Required, pair.Key)
		}
	}
}

// specialInput are the types of special, and more that only what is read has a use for.
func specialInput(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[bellhop.Code]():
		var codes []any
		for _, info := range bellhop.Codes() {
			codes = append(codes, info.Code)
		}
		return &jsonschema.Schema{Type: "string", Enum: codes}
	case reflect.TypeFor[simulated.Moment]():
		return &jsonschema.Schema{Type: "string", Enum: []any{simulated.AtAsk, simulated.AtWait, simulated.AtAfter}}
	}
	return special(t)
}

var (
	// heredoc is a file that a shell is given in a page: after a line that may have the verb.
	heredoc = regexp.MustCompile(`(?ms)^([^\n]*)<<\s*'?(EOF|END)'?[^\n]*\n(.*?)\n[ \t]*(?:EOF|END)$`)
	// quoted is an operation in one line of a shell's.
	quoted = regexp.MustCompile(`(?s)'(\{\s*"tenant_id".*?\})'`)
	names  = regexp.MustCompile(`\bprovider"?:`)
	verbs  = regexp.MustCompile(`bellhop (update|delete)\b|--verb delete|DeleteCompute|UpdateCompute`)
)

// Example is an operation in a page.
type Example struct {
	Verb bellhop.Verb
	Text string
}

// Examples are the operations in a page that somebody may paste.
func Examples(page []byte) []Example {
	var found []Example
	add := func(line, text []byte) {
		if !bytes.Contains(text, []byte("tenant_id")) || !names.Match(text) {
			return // another file, or the input of a state machine that makes an operation of it
		}
		verb := bellhop.Provision
		switch said := verbs.Find(line); {
		case bytes.Contains(bytes.ToLower(said), []byte("delete")):
			verb = bellhop.Delete
		case said != nil:
			verb = bellhop.Update
		}
		found = append(found, Example{verb, string(text)})
	}
	for _, match := range heredoc.FindAllSubmatch(page, -1) {
		add(match[1], match[3])
	}
	for _, match := range quoted.FindAllSubmatchIndex(page, -1) {
		from := bytes.LastIndexByte(page[:match[0]], '\n')
		from = max(bytes.LastIndexByte(page[:max(from, 0)], '\n'), 0)
		add(page[from:match[0]], page[match[2]:match[3]])
	}
	return slices.Clip(found)
}

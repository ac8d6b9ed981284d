package docs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/invopop/jsonschema"
	"sigs.k8s.io/yaml"

	"bellhop"
	"bellhop/bridge/httpapi"
)

// schemasFrom is where the schemas of openapi.yaml begin; they end with the file.
const schemasFrom = "  # What follows is made from the types and their comments: make docs\n"

// RenderOpenAPI returns the OpenAPI document with its schemas made anew from the types of the sources under root.
func RenderOpenAPI(root string, document []byte) ([]byte, error) {
	written, _, ok := bytes.Cut(document, []byte(schemasFrom))
	if !ok {
		return nil, errors.New("openapi.yaml lacks the line after which its schemas are made")
	}
	made, err := schemas(root)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Write(written)
	b.WriteString(schemasFrom + "  schemas:\n")
	for line := range strings.Lines(string(made)) {
		b.WriteString("    " + line)
	}
	return b.Bytes(), nil
}

// schemas describes everything that the API takes and answers.
func schemas(root string) ([]byte, error) {
	reflector := jsonschema.Reflector{Anonymous: true, AllowAdditionalProperties: true, Mapper: special}
	all := map[string]*jsonschema.Schema{}
	for _, document := range []any{
		bellhop.Operation{}, bellhop.Status{}, httpapi.Page{}, httpapi.Redelivered{}, httpapi.Problem{},
	} {
		maps.Copy(all, reflector.Reflect(document).Definitions)
	}
	// What is read strictly takes no other field; what is answered may have more in the future.
	for _, name := range []string{"Operation", "Spec", "Port", "HealthCheck", "Callback"} {
		all[name].AdditionalProperties = jsonschema.FalseSchema
	}
	all["Operation"].Required = []string{"operation_id", "operation_type", "tenant_id", "provider"}
	all["Operation"].Properties.Delete("requested_at") // it is bellhop's to set
	for name, schema := range all {
		if schema.Properties == nil { // a list
			continue
		}
		if err := explain(schema, name, root, filepath.Join(root, "bridge", "httpapi")); err != nil {
			return nil, fmt.Errorf("describe %s: %w", name, err)
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	return yaml.JSONToYAML(bytes.ReplaceAll(text, []byte("#/$defs/"), []byte("#/components/schemas/")))
}

// explain gives every property of a struct the comment of its field; the struct is in one of the folders.
func explain(schema *jsonschema.Schema, name string, folders ...string) error {
	structs := []string{name}
	if name == "Status" {
		structs = append(structs, "Outcome") // which it embeds
	}
	for _, structure := range structs {
		var fields []field
		var err error
		for _, folder := range folders {
			if fields, err = fieldsOf(folder, structure); err == nil {
				break
			}
		}
		if err != nil {
			return err
		}
		for _, field := range fields {
			if property, ok := schema.Properties.Get(field.name); ok {
				property.Description = strings.ReplaceAll(field.meaning, `\|`, "|")
			}
		}
	}
	return nil
}

// special are the types that JSON has under another form than Go.
func special(t reflect.Type) *jsonschema.Schema {
	text := func(values ...any) *jsonschema.Schema { return &jsonschema.Schema{Type: "string", Enum: values} }
	switch t {
	case reflect.TypeFor[bellhop.Duration]():
		return &jsonschema.Schema{Type: "string", Examples: []any{"15m"}}
	case reflect.TypeFor[json.RawMessage]():
		return &jsonschema.Schema{Type: "object"}
	case reflect.TypeFor[bellhop.Verb]():
		return text(bellhop.Provision, bellhop.Update, bellhop.Delete)
	case reflect.TypeFor[bellhop.State]():
		return text(bellhop.Pending, bellhop.Queued, bellhop.Running, bellhop.Succeeded, bellhop.Failed, bellhop.Cancelled)
	case reflect.TypeFor[bellhop.CancelPolicy]():
		return text(bellhop.Leave, bellhop.Remove)
	case reflect.TypeFor[bellhop.Failures]():
		return text(bellhop.AsError, bellhop.AsResult)
	case reflect.TypeFor[httpapi.ProblemCode]():
		codes := make([]any, 0, len(httpapi.Problems()))
		for code := range httpapi.Problems() {
			codes = append(codes, string(code))
		}
		slices.SortFunc(codes, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		return text(codes...)
	}
	return nil
}

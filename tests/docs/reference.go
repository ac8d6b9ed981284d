// Package docs keeps the reference pages in docs/ true: their tables are generated from the comments of the types that
// they describe, and a test fails when they differ.
package docs

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// marker is where a table goes: <!-- fields: activities/docker Config -->, up to <!-- end -->.
var marker = regexp.MustCompile(`(?s)<!-- fields: (\S+) (\w+) -->\n.*?<!-- end -->`)

// Render returns a page with every table in it made anew from the sources under root.
func Render(root string, page []byte) ([]byte, error) {
	var failed error
	rendered := marker.ReplaceAllFunc(page, func(section []byte) []byte {
		found := marker.FindSubmatch(section)
		folder, name := string(found[1]), string(found[2])
		table, err := table(filepath.Join(root, folder), name)
		if err != nil {
			failed = fmt.Errorf("describe %s in %s: %w", name, folder, err)
			return section
		}
		return fmt.Appendf(nil, "<!-- fields: %s %s -->\n%s<!-- end -->", folder, name, table)
	})
	return rendered, failed
}

// table describes the fields of a struct as a Markdown table.
func table(folder, name string) ([]byte, error) {
	fields, err := fieldsOf(folder, name)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString("| field | type | meaning |\n|---|---|---|\n")
	for _, field := range fields {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", field.name, field.kind, field.meaning)
	}
	return b.Bytes(), nil
}

type field struct{ name, kind, meaning string }

func fieldsOf(folder, name string) ([]field, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file) //nolint:gosec // our own sources
		if err != nil {
			return nil, err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, text, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		if found := structNamed(parsed, name); found != nil {
			return describe(found), nil
		}
	}
	return nil, fmt.Errorf("there is no struct of that name")
}

func structNamed(file *ast.File, name string) *ast.StructType {
	var found *ast.StructType
	ast.Inspect(file, func(node ast.Node) bool {
		if spec, ok := node.(*ast.TypeSpec); ok && spec.Name.Name == name {
			found, _ = spec.Type.(*ast.StructType)
		}
		return found == nil
	})
	return found
}

func describe(structure *ast.StructType) []field {
	var fields []field
	for _, member := range structure.Fields.List {
		if member.Tag == nil || len(member.Names) == 0 {
			continue
		}
		tag, err := strconv.Unquote(member.Tag.Value)
		if err != nil {
			continue
		}
		name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		fields = append(fields, field{name, kindOf(member.Type), meaningOf(member)})
	}
	return fields
}

// own are types that a reader of JSON knows under other names.
var own = map[string]string{
	"Duration": "duration", "Time": "time", "RawMessage": "object", "int": "number", "int64": "number", "float64": "number",
	"bool": "true or false", "CancelPolicy": "string", "AbandonPolicy": "string", "Moment": "string", "State": "string", "Verb": "string", "Event": "string", "Code": "string",
	"Tenants": "list of string", "ReceiptState": "string", "Failures": "string", "Level": "string",
}

func kindOf(expression ast.Expr) string {
	switch e := expression.(type) {
	case *ast.Ident:
		if kind, ok := own[e.Name]; ok {
			return kind
		}
		if e.IsExported() {
			return fmt.Sprintf("[%s](#%s)", e.Name, strings.ToLower(e.Name))
		}
		return e.Name
	case *ast.SelectorExpr:
		return kindOf(e.Sel)
	case *ast.StarExpr:
		return kindOf(e.X)
	case *ast.ArrayType:
		return "list of " + kindOf(e.Elt)
	case *ast.MapType:
		return "map of " + kindOf(e.Value)
	default:
		return ""
	}
}

var link = regexp.MustCompile(`\[([A-Za-z.]+)\]`)

func meaningOf(member *ast.Field) string {
	text := strings.TrimSpace(member.Doc.Text())
	if text == "" {
		text = strings.TrimSpace(member.Comment.Text())
	}
	text = strings.Join(strings.Fields(text), " ")
	text = link.ReplaceAllString(text, "$1")
	// Go's comments begin with the name of the thing; a table says it in the first column.
	for _, name := range member.Names {
		for _, verb := range []string{" is ", " are ", " says "} {
			if rest, ok := strings.CutPrefix(text, name.Name+verb); ok {
				text = rest
				if verb == " says " {
					text = "says " + rest
				}
			}
		}
		if rest, ok := strings.CutPrefix(text, name.Name+" "); ok {
			text = rest
		}
	}
	if text != "" {
		text = strings.ToUpper(text[:1]) + text[1:]
	}
	return strings.ReplaceAll(text, "|", `\|`)
}

// Pages are the Markdown files under root that have tables.
func Pages(root string) ([]string, error) {
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(pages, func(page string) bool {
		text, err := os.ReadFile(page) //nolint:gosec // our own docs
		return err == nil && !marker.Match(text)
	}), nil
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	yamlv3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"

	"bellhop"
)

// maxInput is how large a file may be. YAML, with its comments, may be larger than the JSON it stands for.
const maxInput = 4 * bellhop.MaxOperationBytes

// input is an operation as somebody wrote it.
type input struct {
	// name is the file's, for messages.
	name string
	// json is the operation as JSON; null when there is none to be had.
	json []byte
	// faults are what is wrong with the file itself.
	faults bellhop.Faults
}

// read reads an operation from a file, or from stdin when the path is "-".
func (a *app) read(ctx context.Context, path string) (input, error) {
	var data []byte
	var err error
	name := path
	if path == "-" {
		name = "the operation on stdin"
		data, err = a.readStdin(ctx)
	} else {
		data, err = readFile(path)
	}
	if err != nil {
		if ctx.Err() != nil {
			return input{}, ctx.Err()
		}
		return input{}, &problem{code: exitUsage, err: err}
	}
	in := input{name: name}
	in.json = toJSON(name, data, &in.faults)
	return in, nil
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path) //nolint:gosec // whoever calls may read what they name
	if err != nil {
		return nil, fmt.Errorf("read the operation: %w", err)
	}
	defer file.Close() //nolint:errcheck // it was only read
	return readAll(file)
}

// readStdin ends when ctx does: somebody may wait at a terminal without knowing that something is to be typed.
func (a *app) readStdin(ctx context.Context) ([]byte, error) {
	if isTerminal(a.stdin) {
		fmt.Fprintln(a.stderr, "type the operation as YAML or JSON; Ctrl-D ends it")
	}
	type answer struct {
		data []byte
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		data, err := readAll(a.stdin)
		done <- answer{data, err}
	}()
	select {
	case got := <-done:
		return got.data, got.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err != nil {
		return nil, fmt.Errorf("read the operation: %w", err)
	}
	if len(data) > maxInput {
		return nil, fmt.Errorf("read the operation: it is larger than %d KiB", maxInput>>10)
	}
	return data, nil
}

// toJSON makes JSON of YAML. JSON stays as it is, byte for byte, so that its own faults are found in it.
func toJSON(name string, data []byte, faults *bellhop.Faults) []byte {
	if len(bytes.TrimSpace(data)) == 0 {
		faults.Add("", "it is empty")
		return nil
	}
	if json.Valid(data) {
		return data
	}
	if strings.EqualFold(filepath.Ext(name), ".json") {
		faults.Add("", "%s", jsonFault(data))
		return nil
	}
	if countDocuments(data) > 1 {
		faults.Add("", "it holds more than one YAML document; give one operation at a time")
	}
	if problem := tooMuch(data); problem != "" {
		faults.Add("", "%s", problem)
		return nil
	}
	converted, err := yaml.YAMLToJSONStrict(data)
	if err == nil {
		return converted
	}
	// A key that is given twice hides no other fault: the rest is checked as well.
	if lenient, lenientErr := yaml.YAMLToJSON(data); lenientErr == nil {
		for _, problem := range yamlFaults(err) {
			faults.Add("", "%s", problem)
		}
		return lenient
	}
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		faults.Add("", "%s", jsonFault(data))
		return nil
	}
	for _, problem := range yamlFaults(err) {
		faults.Add("", "%s", problem)
	}
	return nil
}

// tooMuch says what is wrong with YAML that would become far more JSON than it is itself, or that is nested too deeply:
// an alias repeats what its anchor has, and what is repeated may have aliases of its own. The converter would find out too
// late.
func tooMuch(data []byte) string {
	var document yamlv3.Node
	if err := yamlv3.Unmarshal(data, &document); err != nil {
		if bytes.IndexByte(data, '*') < 0 {
			return "" // there is no alias, and the converter says what is wrong
		}
		return strings.Join(yamlFaults(err), "; ")
	}
	const deepest, named = 64, 100
	room, twice := maxInput, 0
	var walk func(node *yamlv3.Node, depth int) string
	walk = func(node *yamlv3.Node, depth int) string {
		if depth > deepest {
			return fmt.Sprintf("YAML: it is nested more than %d levels deep", deepest)
		}
		if room -= 1 + len(node.Value); room < 0 {
			return fmt.Sprintf("YAML: with its aliases written out it is larger than %d KiB", maxInput>>10)
		}
		if node.Alias != nil {
			return walk(node.Alias, depth+1)
		}
		if node.Kind == yamlv3.MappingNode {
			keys := map[string]bool{}
			for i := 0; i < len(node.Content); i += 2 {
				if key := node.Content[i].Value; keys[key] {
					twice++
				} else {
					keys[key] = true
				}
			}
			if twice > named { // the converter names every one
				return fmt.Sprintf("YAML: more than %d keys are given twice", named)
			}
		}
		for _, child := range node.Content {
			if problem := walk(child, depth+1); problem != "" {
				return problem
			}
		}
		return ""
	}
	return walk(&document, 0)
}

// quotation is how the YAML parser quotes a value, which may be a secret.
var quotation = regexp.MustCompile("`[^`]*`")

// yamlFaults takes the parser's faults apart, one per line of its message.
func yamlFaults(err error) []string {
	var problems []string
	for line := range strings.Lines(err.Error()) {
		line = strings.TrimSpace(strings.TrimPrefix(line, "yaml: "))
		if line == "" || line == "unmarshal errors:" {
			continue
		}
		problems = append(problems, "YAML: "+quotation.ReplaceAllString(line, "a value"))
	}
	return problems
}

// jsonFault says where JSON goes wrong, as editors count.
func jsonFault(data []byte) string {
	var ignored any
	err := json.Unmarshal(data, &ignored)
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) {
		return fmt.Sprintf("JSON: %s", err)
	}
	before := data[:min(int(syntax.Offset), len(data))]
	line := bytes.Count(before, []byte("\n")) + 1
	return fmt.Sprintf("JSON: line %d, column %d: %s", line, len(before)-bytes.LastIndexByte(before, '\n')-1, syntax)
}

// countDocuments counts the documents in a YAML file. The parser reads the first and is silent about others. Its marker,
// three dashes at the beginning of a line, means nothing else anywhere in YAML.
func countDocuments(data []byte) int {
	count, open := 0, false
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, " \t\r\n")
		marker := line == "---" || strings.HasPrefix(line, "--- ")
		switch {
		case marker:
			open = false
			if line != "---" {
				open = true
				count++
			}
		case line == "...":
			open = false
		case open || line == "" || strings.HasPrefix(line, "%") || strings.HasPrefix(strings.TrimSpace(line), "#"):
		default:
			open = true
			count++
		}
	}
	return count
}

// check reads the operation under an id and a verb, either of which may be empty when the text itself has it. The
// error is a *badInput with everything that is wrong.
func (in input) check(id string, verb bellhop.Verb, needID bool) (bellhop.Operation, error) {
	faults := in.faults
	if in.json == nil {
		return bellhop.Operation{}, in.bad(faults, nil)
	}
	text := in.says()
	switch {
	case id == "" && text.ID != "":
		id = text.ID
	case id != "" && text.ID != "" && id != text.ID:
		faults.Add("operation_id", "is %q, and --id says %q; give one of them", text.ID, id)
		id = text.ID
	case id == "" && needID:
		faults.Add("operation_id", "is required: add --id, such as --id %s; it is what keeps a repeated command from starting twice", in.suggestID(text, verb))
		id = unnamed
	case id == "":
		id = unnamed
	}
	if verb == "" {
		verb = bellhop.Provision
		for _, known := range bellhop.Verbs() {
			if known == text.Verb {
				verb = known
			}
		}
	}
	op, err := bellhop.AcceptOperation(id, verb, in.json)
	return op, in.bad(faults, err)
}

// unnamed stands for an id while the rest is checked.
const unnamed = "unnamed"

// says is what the text says of itself, as far as it can be read.
type says struct {
	ID       string       `json:"operation_id"`
	Verb     bellhop.Verb `json:"operation_type"`
	Tenant   string       `json:"tenant_id"`
	Resource string       `json:"resource"`
}

func (in input) says() says {
	var members map[string]json.RawMessage
	if json.Unmarshal(in.json, &members) != nil {
		return says{}
	}
	text := func(name string) string {
		var value string
		if json.Unmarshal(members[name], &value) != nil {
			return ""
		}
		return value
	}
	return says{text("operation_id"), bellhop.Verb(text("operation_type")), text("tenant_id"), text("resource")}
}

// suggestID makes an id that is new, tells what it is about and can be pasted.
func (in input) suggestID(text says, verb bellhop.Verb) string {
	parts := []string{}
	for _, part := range []string{text.Tenant, text.Resource} {
		if bellhop.CheckName(part) == nil {
			parts = append(parts, part)
		}
	}
	if len(parts) == 0 {
		parts = append(parts, string(verb))
	}
	id := strings.Join(append(parts, time.Now().UTC().Format("20060102-150405")), "-")
	if bellhop.CheckID(id) != nil {
		return string(verb) + "-1"
	}
	return id
}

func (in input) bad(faults bellhop.Faults, err error) error {
	if more, ok := errors.AsType[bellhop.Faults](err); ok {
		faults = append(faults, more...)
	}
	err = faults.Err()
	if err == nil {
		return nil
	}
	if !errors.As(err, &faults) {
		return err
	}
	for i := range faults {
		faults[i].Problem = put(faults[i])
	}
	return &badInput{in.name, faults}
}

var (
	notText = regexp.MustCompile(`^must be a string, not (true|false|a number)$`)
	anEntry = regexp.MustCompile(`"([^"=]*)=[^"]*"`)
)

// put says what is wrong as somebody sees it who wrote YAML, where yes, no, on, off, y and n are no strings. "NAME=value"
// where an environment variable's name should be is half a secret, and is cut.
func put(fault bellhop.Fault) string {
	problem := fault.Problem
	if notText.MatchString(problem) {
		problem += "; put it in quotes"
	}
	if fault.Path == "spec.env" {
		problem = anEntry.ReplaceAllString(problem, `"$1=…"`)
	}
	return problem
}

package bellhop

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Fault is one thing that is wrong with an input.
type Fault struct {
	// Path leads to the field: "spec.ports[0].protocol". It is empty when the input as a whole is at fault.
	Path string `json:"path"`
	// Problem says what is wrong and what would be right.
	Problem string `json:"problem"`
	// Here says that the fault depends on the configuration of the worker that found it: another worker, configured
	// differently, may accept the input. It does not leave the process.
	Here bool `json:"-"`
}

func (f Fault) String() string {
	if f.Path == "" {
		return f.Problem
	}
	return f.Path + ": " + f.Problem
}

// Faults are everything that is wrong with an input, found in one pass. As an error it names them all.
type Faults []Fault

func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.String()
	}
	return strings.Join(lines, "; ")
}

// Add notes a fault at path.
func (f *Faults) Add(path, format string, args ...any) {
	*f = append(*f, Fault{Path: path, Problem: fmt.Sprintf(format, args...)})
}

// AddHere notes a fault that depends on this worker's configuration; see [Fault.Here].
func (f *Faults) AddHere(path, format string, args ...any) {
	*f = append(*f, Fault{Path: path, Problem: fmt.Sprintf(format, args...), Here: true})
}

// OnlyHere says whether every fault depends on this worker's configuration, so that another worker may accept the input.
func (f Faults) OnlyHere() bool {
	return len(f) > 0 && !slices.ContainsFunc(f, func(fault Fault) bool { return !fault.Here })
}

// Note takes over what is wrong with the value at path, if anything is, and says so.
func (f *Faults) Note(path string, err error) bool {
	more, ok := errors.AsType[Faults](err)
	switch {
	case err == nil:
		return false
	case ok:
		*f = append(*f, more.Within(path)...)
	default:
		f.Add(path, "%s", err)
	}
	return true
}

// Err is nil when nothing is wrong, else the faults in the order of their paths, each said once.
func (f Faults) Err() error {
	if len(f) == 0 {
		return nil
	}
	sorted := slices.Clone(f)
	slices.SortStableFunc(sorted, func(a, b Fault) int { return strings.Compare(a.Path, b.Path) })
	return slices.Compact(sorted)
}

// at says whether something is wrong at path already, so that one mistake is not reported as two.
func (f Faults) at(path string) bool {
	return slices.ContainsFunc(f, func(fault Fault) bool { return fault.Path == path })
}

// Within returns the faults with their paths under path.
func (f Faults) Within(path string) Faults {
	moved := make(Faults, len(f))
	for i, fault := range f {
		moved[i] = fault
		moved[i].Path = joinPath(path, fault.Path)
	}
	return moved
}

// DecodeStrict reads the JSON object in data into the struct that into points to, or into several, each of which has some
// of its fields. Unlike encoding/json it takes no unknown field, no field in another case, no key twice and no second
// value, and it does not stop at the first fault: it fills what it can and reports everything it could not as [Faults].
// A null is a field left out, so what into held before stays: that is how a default is given.
func DecodeStrict(data []byte, into ...any) error {
	var faults Faults
	value, err := parseJSON(data, &faults)
	if err != nil {
		return Faults{{Problem: "must be JSON: " + err.Error()}}
	}
	if value == nil {
		return Faults{{Problem: "must be an object, not null"}}
	}
	structs := make([]reflect.Value, len(into))
	for i := range into {
		structs[i] = reflect.ValueOf(into[i]).Elem()
	}
	faults.assignStruct("", value, structs...)
	return faults.Err()
}

// object keeps the raw text of each member beside its parsed value, for fields that stay raw.
type object struct {
	members map[string]any
	raw     map[string]json.RawMessage
}

func parseJSON(data []byte, faults *Faults) (any, error) {
	if !json.Valid(data) {
		// Valid does not say what is wrong; decoding does.
		var ignored any
		if err := json.Unmarshal(data, &ignored); err != nil {
			return nil, err
		}
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	value, err := parseValue(dec, data, "", faults)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	return value, nil
}

// parseValue is encoding/json's decoding into any, except that it notices a key given twice and keeps raw texts.
func parseValue(dec *json.Decoder, data []byte, path string, faults *Faults) (any, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	delim, ok := token.(json.Delim)
	if !ok {
		return token, nil
	}
	if delim == '[' {
		list := []any{}
		for dec.More() {
			item, err := parseValue(dec, data, fmt.Sprintf("%s[%d]", path, len(list)), faults)
			if err != nil {
				return nil, err
			}
			list = append(list, item)
		}
		_, err = dec.Token()
		return list, err
	}
	obj := object{members: map[string]any{}, raw: map[string]json.RawMessage{}}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name := key.(string) //nolint:forcetypeassert // the decoder hands out nothing else as a key
		member := joinPath(path, name)
		from := dec.InputOffset()
		item, err := parseValue(dec, data, member, faults)
		if err != nil {
			return nil, err
		}
		if _, twice := obj.members[name]; twice {
			faults.Add(member, "is given twice")
		}
		obj.members[name] = item
		obj.raw[name] = bytes.TrimLeft(data[from:dec.InputOffset()], ": \t\r\n")
	}
	_, err = dec.Token()
	return obj, err
}

var rawType = reflect.TypeFor[json.RawMessage]()

func (f *Faults) assign(path string, value any, into reflect.Value) {
	if value == nil {
		return
	}
	if text, ok := reflect.TypeAssert[encoding.TextUnmarshaler](into.Addr()); ok {
		s, ok := value.(string)
		if !ok {
			f.Add(path, "must be a string, not %s", describe(value))
		} else if err := text.UnmarshalText([]byte(s)); err != nil {
			f.Add(path, "%s", err)
		}
		return
	}
	switch into.Kind() {
	case reflect.Pointer:
		if into.IsNil() {
			into.Set(reflect.New(into.Type().Elem()))
		}
		f.assign(path, value, into.Elem())
	case reflect.Struct:
		f.assignStruct(path, value, into)
	case reflect.Map:
		f.assignMap(path, value, into)
	case reflect.Slice:
		f.assignSlice(path, value, into)
	case reflect.String:
		s, ok := value.(string)
		if !ok {
			f.Add(path, "must be a string, not %s", describe(value))
			return
		}
		into.SetString(s)
	case reflect.Bool:
		b, ok := value.(bool)
		if !ok {
			f.Add(path, "must be true or false, not %s", describe(value))
			return
		}
		into.SetBool(b)
	case reflect.Int, reflect.Int64:
		n, ok := wholeNumber(value)
		if !ok {
			if number, ok := value.(json.Number); ok {
				f.Add(path, "must be a whole number, not %s", number)
				return
			}
			f.Add(path, "must be a whole number, not %s", describe(value))
			return
		}
		into.SetInt(n)
	case reflect.Float64:
		number, ok := value.(json.Number)
		if !ok {
			f.Add(path, "must be a number, not %s", describe(value))
			return
		}
		n, err := number.Float64()
		if err != nil {
			f.Add(path, "is out of range")
			return
		}
		into.SetFloat(n)
	default:
		panic(fmt.Sprintf("bellhop: %s: DecodeStrict does not know %s", path, into.Type()))
	}
}

// assignStruct fills one struct, or several as if their fields were those of one.
func (f *Faults) assignStruct(path string, value any, into ...reflect.Value) {
	obj, ok := value.(object)
	if !ok {
		f.Add(path, "must be an object, not %s", describe(value))
		return
	}
	fields := map[string]reflect.Value{}
	for _, part := range into {
		for _, field := range reflect.VisibleFields(part.Type()) {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if field.IsExported() && !field.Anonymous && name != "" && name != "-" {
				fields[name] = part.FieldByIndex(field.Index)
			}
		}
	}
	for _, name := range sortedKeys(obj.members) {
		field, known := fields[name]
		switch {
		case !known:
			f.Add(joinPath(path, name), "is not a known field%s", suggest(name, fields))
		case field.Type() == rawType && obj.members[name] != nil:
			field.SetBytes(slices.Clone(obj.raw[name]))
		case field.Type() == rawType: // null: left out
		default:
			f.assign(joinPath(path, name), obj.members[name], field)
		}
	}
}

func (f *Faults) assignMap(path string, value any, into reflect.Value) {
	obj, ok := value.(object)
	if !ok {
		f.Add(path, "must be an object, not %s", describe(value))
		return
	}
	entries := reflect.MakeMapWithSize(into.Type(), len(obj.members))
	for _, name := range sortedKeys(obj.members) {
		entry := reflect.New(into.Type().Elem()).Elem()
		if entry.Type() == rawType {
			entry.SetBytes(slices.Clone(obj.raw[name]))
		} else {
			if obj.members[name] == nil {
				f.Add(joinPath(path, name), "must not be null")
			}
			f.assign(joinPath(path, name), obj.members[name], entry)
		}
		entries.SetMapIndex(reflect.ValueOf(name).Convert(into.Type().Key()), entry)
	}
	into.Set(entries)
}

func (f *Faults) assignSlice(path string, value any, into reflect.Value) {
	list, ok := value.([]any)
	if !ok {
		f.Add(path, "must be a list, not %s", describe(value))
		return
	}
	items := reflect.MakeSlice(into.Type(), len(list), len(list))
	for i, item := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		if item == nil {
			f.Add(at, "must not be null")
		}
		f.assign(at, item, items.Index(i))
	}
	into.Set(items)
}

// wholeNumber takes 3 and 3.0 and 3e0, which some engines write for the same number.
func wholeNumber(value any) (int64, bool) {
	number, ok := value.(json.Number)
	if !ok {
		return 0, false
	}
	if n, err := number.Int64(); err == nil {
		return n, true
	}
	n, err := number.Float64()
	if err != nil || n != math.Trunc(n) || math.Abs(n) > 1<<53 {
		return 0, false
	}
	return int64(n), true
}

// describe names the kind of a value and never a text or a number, which may be a secret.
func describe(value any) string {
	switch v := value.(type) {
	case string:
		return "a string"
	case json.Number:
		return "a number"
	case bool:
		return strconv.FormatBool(v)
	case []any:
		return "a list"
	default:
		return "an object"
	}
}

// sortedKeys are the keys of a map in an order that is the same each time: workflows are replayed through this code.
func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m)) //workflowcheck:ignore
}

func joinPath(path, name string) string {
	switch {
	case path == "":
		return name
	case name == "" || strings.HasPrefix(name, "["):
		return path + name
	default:
		return path + "." + name
	}
}

// suggest offers the field that was probably meant.
func suggest(name string, fields map[string]reflect.Value) string {
	plain := func(s string) string { return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s)) }
	for _, field := range sortedKeys(fields) {
		if plain(field) == plain(name) {
			return fmt.Sprintf(" (did you mean %q?)", field)
		}
	}
	return fmt.Sprintf(" (known are %s)", strings.Join(sortedKeys(fields), ", "))
}

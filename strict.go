package bellhop

import (
	"bytes"
	"cmp"
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

// Faults are everything that is wrong with an input, found in one pass. As an error it names them all, up to a number at
// which nobody reads on: an input of 256 KiB can have tens of thousands.
type Faults []Fault

const (
	// maxFaults is how many faults are named; one more then says that there are others.
	maxFaults = 100
	// maxProblem is how long one fault's text may be, and maxPath its path: both may repeat names of the input.
	maxProblem = 1 << 10
	maxPath    = 512
	// maxPathName is how much of one name a path repeats.
	maxPathName = 128
)

// moreFaults is the problem of the fault that stands for those that are not named.
var moreFaults = fmt.Sprintf("there are more faults than the first %d, which are named", maxFaults)

func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.String()
	}
	return strings.Join(lines, "; ")
}

// Add notes a fault at path.
func (f *Faults) Add(path, format string, args ...any) {
	if f.hasRoom(false) {
		f.add(Fault{Path: path, Problem: fmt.Sprintf(format, args...)})
	}
}

// AddHere notes a fault that depends on this worker's configuration; see [Fault.Here].
func (f *Faults) AddHere(path, format string, args ...any) {
	if f.hasRoom(true) {
		f.add(Fault{Path: path, Problem: fmt.Sprintf(format, args...), Here: true})
	}
}

// hasRoom says whether one more fault is named. If not, it is noted that there are more, and of what kind: that spares the
// work of saying what is wrong.
func (f *Faults) hasRoom(here bool) bool {
	switch {
	case len(*f) < maxFaults:
		return true
	case len(*f) == maxFaults:
		*f = append(*f, Fault{Problem: moreFaults, Here: here})
	case !here:
		(*f)[maxFaults].Here = false
	}
	return false
}

func (f *Faults) add(fault Fault) {
	if f.hasRoom(fault.Here) {
		fault.Path, fault.Problem = cutEnd(fault.Path, maxPath), cutEnd(fault.Problem, maxProblem)
		*f = append(*f, fault)
	}
}

// addAt is Add for a path that is written out only if there is a fault.
func (f *Faults) addAt(path *segment, format string, args ...any) {
	if f.hasRoom(false) {
		f.Add(path.String(), format, args...)
	}
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
		for _, fault := range more.Within(path) {
			f.add(fault)
		}
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
	slices.SortStableFunc(sorted, func(a, b Fault) int {
		if a.Problem == moreFaults || b.Problem == moreFaults { // the last
			return cmp.Compare(strings.Count(a.Problem, moreFaults), strings.Count(b.Problem, moreFaults))
		}
		return strings.Compare(a.Path, b.Path)
	})
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

// segment is one step of the path to a value. Paths are linked while an input is read and written out for a fault only:
// with a text of its own for every value, a deeply nested input of 256 KiB would take a gigabyte.
type segment struct {
	up *segment
	// name is a member's; index is an item's, and -1 for a member.
	name  string
	index int
}

func (s *segment) member(name string) *segment { return &segment{up: s, name: name, index: -1} }

func (s *segment) item(index int) *segment { return &segment{up: s, index: index} }

func (s *segment) String() string {
	switch {
	case s == nil:
		return ""
	case s.index >= 0:
		return joinPath(s.up.String(), fmt.Sprintf("[%d]", s.index))
	default:
		return joinPath(s.up.String(), cutEnd(s.name, maxPathName))
	}
}

// DecodeStrict reads the JSON object in data into the struct that into points to, or into several, each of which has some
// of its fields. Unlike encoding/json it takes no unknown field, no field in another case, no key twice and no second
// value, and it does not stop at the first fault: it fills what it can and reports everything it could not as [Faults].
// A null is a field left out, so what into held before stays: that is how a default is given.
//
// Time and memory are linear in the size of data, whatever it holds: workflows read what strangers wrote through this code.
func DecodeStrict(data []byte, into ...any) error {
	value, err := parseJSON(data)
	if err != nil {
		return Faults{{Problem: cutEnd(err.Error(), maxProblem)}}
	}
	structs := make([]reflect.Value, len(into))
	for i := range into {
		structs[i] = reflect.ValueOf(into[i]).Elem()
	}
	var faults Faults
	newReader(&faults).read(nil, value, structs...)
	return faults.Err()
}

// maxDepth is how deep JSON may be nested. Nothing that bellhop reads is nested deeper than a dozen levels.
const maxDepth = 64

// depth is how deep JSON is nested; of a text that is no JSON, at least how deep it is before it breaks off.
func depth(data []byte) int {
	deepest, now, text := 0, 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}

// object is a JSON object as it was written. A list takes a fraction of the memory that a map of each would.
type object []member

type member struct {
	name  string
	value any
	// raw is the value's text, for fields that stay raw.
	raw json.RawMessage
}

// take takes the members of a name out of an object and returns the value that counts.
func (o *object) take(name string, faults *Faults) any {
	var value any
	taken := 0
	*o = slices.DeleteFunc(*o, func(m member) bool {
		if m.name == name {
			value = m.value
			taken++
		}
		return m.name == name
	})
	if taken > 1 {
		faults.Add(name, "is given twice")
	}
	return value
}

// parseJSON reads one JSON object. Its members are sorted by their names; of one given twice the last counts, and comes
// last.
func parseJSON(data []byte) (object, error) {
	if deep := depth(data); deep > maxDepth {
		return nil, fmt.Errorf("must be nested at most %d levels deep, not %d", maxDepth, deep)
	}
	if !json.Valid(data) {
		// Valid does not say what is wrong; decoding does.
		var ignored any
		if err := json.Unmarshal(data, &ignored); err != nil {
			return nil, fmt.Errorf("must be JSON: %w", err)
		}
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	value, err := parseValue(dec, data)
	if err != nil {
		return nil, fmt.Errorf("must be JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("must be JSON: more than one value")
	}
	obj, ok := value.(object)
	switch {
	case value == nil:
		return nil, errors.New("must be an object, not null")
	case !ok:
		return nil, fmt.Errorf("must be an object, not %s", describe(value))
	}
	return obj, nil
}

// parseValue is encoding/json's decoding into any, except that it keeps a key given twice, and raw texts.
func parseValue(dec *json.Decoder, data []byte) (any, error) {
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
			item, err := parseValue(dec, data)
			if err != nil {
				return nil, err
			}
			list = append(list, item)
		}
		_, err = dec.Token()
		return list, err
	}
	obj := object{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name := key.(string) //nolint:forcetypeassert // the decoder hands out nothing else as a key
		from := dec.InputOffset()
		value, err := parseValue(dec, data)
		if err != nil {
			return nil, err
		}
		obj = append(obj, member{name, value, bytes.TrimLeft(data[from:dec.InputOffset()], ": \t\r\n")})
	}
	slices.SortStableFunc(obj, func(a, b member) int { return strings.Compare(a.name, b.name) })
	_, err = dec.Token()
	return obj, err
}

// reader fills Go values with what was parsed and notes what is wrong.
type reader struct {
	*Faults
	// fields are those of each type, by name: an input may hold a hundred thousand objects of one.
	fields map[reflect.Type]map[string][]int
}

func newReader(faults *Faults) *reader {
	return &reader{Faults: faults, fields: map[reflect.Type]map[string][]int{}}
}

// read fills one struct, or several as if their fields were those of one.
func (r *reader) read(path *segment, value any, into ...reflect.Value) {
	r.twice(path, value)
	r.assignStruct(path, value, into...)
}

// twice notes every key that an object has twice, also in what stays raw.
func (r *reader) twice(path *segment, value any) {
	switch value := value.(type) {
	case object:
		for i, member := range value {
			if i > 0 && value[i-1].name == member.name {
				r.addAt(path.member(member.name), "is given twice")
			}
			r.twice(path.member(member.name), member.value)
		}
	case []any:
		for i, item := range value {
			r.twice(path.item(i), item)
		}
	}
}

var rawType = reflect.TypeFor[json.RawMessage]()

func (r *reader) assign(path *segment, value any, into reflect.Value) {
	if value == nil {
		return
	}
	if text, ok := reflect.TypeAssert[encoding.TextUnmarshaler](into.Addr()); ok {
		s, ok := value.(string)
		if !ok {
			r.addAt(path, "must be a string, not %s", describe(value))
		} else if err := text.UnmarshalText([]byte(s)); err != nil {
			r.addAt(path, "%s", err)
		}
		return
	}
	switch into.Kind() {
	case reflect.Pointer:
		if into.IsNil() {
			into.Set(reflect.New(into.Type().Elem()))
		}
		r.assign(path, value, into.Elem())
	case reflect.Struct:
		r.assignStruct(path, value, into)
	case reflect.Map:
		r.assignMap(path, value, into)
	case reflect.Slice:
		r.assignSlice(path, value, into)
	case reflect.String:
		s, ok := value.(string)
		if !ok {
			r.addAt(path, "must be a string, not %s", describe(value))
			return
		}
		into.SetString(s)
	case reflect.Bool:
		b, ok := value.(bool)
		if !ok {
			r.addAt(path, "must be true or false, not %s", describe(value))
			return
		}
		into.SetBool(b)
	case reflect.Int, reflect.Int64:
		n, ok := wholeNumber(value)
		if !ok {
			if number, ok := value.(json.Number); ok {
				r.addAt(path, "must be a whole number, not %s", number)
				return
			}
			r.addAt(path, "must be a whole number, not %s", describe(value))
			return
		}
		into.SetInt(n)
	case reflect.Float64:
		number, ok := value.(json.Number)
		if !ok {
			r.addAt(path, "must be a number, not %s", describe(value))
			return
		}
		n, err := number.Float64()
		if err != nil {
			r.addAt(path, "is out of range")
			return
		}
		into.SetFloat(n)
	default:
		panic(fmt.Sprintf("bellhop: %s: DecodeStrict does not know %s", path, into.Type()))
	}
}

// assignStruct fills one struct, or several as if their fields were those of one.
func (r *reader) assignStruct(path *segment, value any, into ...reflect.Value) {
	obj, ok := value.(object)
	if !ok {
		r.addAt(path, "must be an object, not %s", describe(value))
		return
	}
	for _, member := range obj {
		field := r.field(member.name, into)
		switch {
		case !field.IsValid():
			if r.hasRoom(false) {
				r.addAt(path.member(member.name), "is not a known field%s", suggest(member.name, r.names(into)))
			}
		case field.Type() == rawType && member.value != nil:
			field.SetBytes(slices.Clone(member.raw))
		case field.Type() == rawType: // null: left out
		default:
			r.assign(path.member(member.name), member.value, field)
		}
	}
}

// field is the field of that name in JSON, of the last struct that has one; the zero value if none does.
func (r *reader) field(name string, of []reflect.Value) reflect.Value {
	for _, part := range slices.Backward(of) {
		if index, ok := r.fieldsOf(part.Type())[name]; ok {
			return part.FieldByIndex(index)
		}
	}
	return reflect.Value{}
}

func (r *reader) names(of []reflect.Value) []string {
	var names []string
	for _, part := range of {
		names = append(names, sortedKeys(r.fieldsOf(part.Type()))...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// fieldsOf are the fields of a struct by their names in JSON.
func (r *reader) fieldsOf(of reflect.Type) map[string][]int {
	fields, ok := r.fields[of]
	if ok {
		return fields
	}
	fields = map[string][]int{}
	for _, field := range reflect.VisibleFields(of) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if field.IsExported() && !field.Anonymous && name != "" && name != "-" {
			fields[name] = field.Index
		}
	}
	r.fields[of] = fields
	return fields
}

func (r *reader) assignMap(path *segment, value any, into reflect.Value) {
	obj, ok := value.(object)
	if !ok {
		r.addAt(path, "must be an object, not %s", describe(value))
		return
	}
	entries := reflect.MakeMapWithSize(into.Type(), len(obj))
	for _, member := range obj {
		entry := reflect.New(into.Type().Elem()).Elem()
		if entry.Type() == rawType {
			entry.SetBytes(slices.Clone(member.raw))
		} else {
			at := path.member(member.name)
			if member.value == nil {
				r.addAt(at, "must not be null")
			}
			r.assign(at, member.value, entry)
		}
		entries.SetMapIndex(reflect.ValueOf(member.name).Convert(into.Type().Key()), entry)
	}
	into.Set(entries)
}

func (r *reader) assignSlice(path *segment, value any, into reflect.Value) {
	list, ok := value.([]any)
	if !ok {
		r.addAt(path, "must be a list, not %s", describe(value))
		return
	}
	items := reflect.MakeSlice(into.Type(), len(list), len(list))
	for i, item := range list {
		at := path.item(i)
		if item == nil {
			r.addAt(at, "must not be null")
		}
		r.assign(at, item, items.Index(i))
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
func suggest(name string, fields []string) string {
	if len(fields) == 0 {
		return ""
	}
	plain := func(s string) string { return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s)) }
	meant := plain(cutEnd(name, maxPathName))
	for _, field := range fields {
		if plain(field) == meant {
			return fmt.Sprintf(" (did you mean %q?)", field)
		}
	}
	return fmt.Sprintf(" (known are %s)", strings.Join(fields, ", "))
}

package bellhop

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
)

// plain is what encoding/json would have made of a parsed value.
func plain(value any) any {
	switch value := value.(type) {
	case object:
		members := map[string]any{}
		for _, member := range value {
			members[member.name] = plain(member.value)
		}
		return members
	case []any:
		items := make([]any, len(value))
		for i, item := range value {
			items[i] = plain(item)
		}
		return items
	default:
		return value
	}
}

// FuzzParse reads JSON as encoding/json does, whatever it is.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"a": [1, -2.5e+3, true, false, null, "x"], "b": {"": {}}, "c": []}`))
	f.Add([]byte(` { "a\u0000\ud83d\ude00" : "\"\\\/\b" , "a":"\ud800" } `))
	f.Add([]byte("{\"\xff\": \"\xfe\", \"a\"\t:\r\n1}"))
	f.Add([]byte(`{"a":1} {"b":2}`))
	f.Add([]byte(`{"a":[1,]}`))
	f.Add([]byte(`{"a":01}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.UseNumber()
		var want map[string]any
		err := dec.Decode(&want)
		if err == nil && dec.More() {
			return
		}
		got, ours := parseJSON(data)
		if depth(data) > maxDepth || want == nil && err == nil {
			if ours == nil {
				t.Error("it is taken")
			}
			return
		}
		if (err == nil && json.Valid(data)) != (ours == nil) {
			t.Fatalf("encoding/json says %v, and parseJSON %v", err, ours)
		}
		if ours == nil && !reflect.DeepEqual(want, plain(got)) {
			t.Errorf("parsed %v, want %v", plain(got), want)
		}
		for _, member := range got {
			if !json.Valid(member.raw) {
				t.Errorf("the raw text of %q is no JSON: %s", member.name, member.raw)
			}
		}
	})
}

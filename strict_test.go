package bellhop_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bellhop"
)

// config has every kind of field that DecodeStrict knows.
type config struct {
	Name    string                     `json:"name"`
	On      bool                       `json:"on"`
	Size    int                        `json:"size"`
	Big     int64                      `json:"big"`
	Ratio   float64                    `json:"ratio"`
	Every   bellhop.Duration           `json:"every"`
	Tags    []string                   `json:"tags"`
	Labels  map[string]string          `json:"labels"`
	Raws    map[string]json.RawMessage `json:"raws"`
	Inner   *inner                     `json:"inner"`
	Inners  []inner                    `json:"inners"`
	Raw     json.RawMessage            `json:"raw"`
	Hidden  string                     `json:"-"`
	private string
	embedded
}

type inner struct {
	X int `json:"x"`
}

type embedded struct {
	Deep string `json:"deep"`
}

func TestDecodeStrict(t *testing.T) {
	defaults := func() config {
		return config{Name: "n", Size: 7, Tags: []string{"t"}, Inner: &inner{X: 1}, Raw: json.RawMessage(`1`), private: "p"}
	}
	rows := []struct {
		name, reason, text string
		change             func(*config)
		faults             []string
	}{
		{name: "Nothing", reason: "what is not given keeps its default", text: `{}`, change: func(*config) {}},
		{
			name: "Everything", reason: "every kind of field is read",
			text: `{"name": "m", "on": true, "size": 8.0, "big": 9007199254740993, "ratio": 0.5, "every": "1h30m", "tags": [], "labels": {"a": "b"},
				"raws": {"r": [1,  2]}, "inner": {"x": 2}, "inners": [{"x": 3}, {}], "raw": {"a": 1.0}, "deep": "d"}`,
			change: func(c *config) {
				*c = config{
					Name: "m", On: true, Size: 8, Big: 9007199254740993, Ratio: 0.5, Every: bellhop.Duration(5400e9), Tags: []string{},
					Labels: map[string]string{"a": "b"}, Raws: map[string]json.RawMessage{"r": json.RawMessage(`[1,  2]`)},
					Inner: &inner{X: 2}, Inners: []inner{{X: 3}, {}}, Raw: json.RawMessage(`{"a": 1.0}`), private: "p", embedded: embedded{Deep: "d"},
				}
			},
		},
		{
			name: "Nulls", reason: "null is left out, of whatever kind the field is",
			text:   `{"name": null, "on": null, "size": null, "ratio": null, "every": null, "tags": null, "labels": null, "inner": null, "raw": null}`,
			change: func(*config) {},
		},
		{
			name: "WrongKinds", reason: "what can be read is read, and all that cannot is named",
			text: `{"name": [], "on": "yes", "size": "8", "ratio": "0.5", "every": 5, "tags": {}, "labels": [], "inner": 1, "inners": [{"x": 3}, "x", {"x": {}}]}`,
			change: func(c *config) {
				c.Inners = []inner{{X: 3}, {}, {}}
			},
			faults: []string{
				"every: must be a string, not a number", "inner: must be an object, not a number", "inners[1]: must be an object, not a string",
				"inners[2].x: must be a whole number, not an object", "labels: must be an object, not a list", "name: must be a string, not a list",
				"on: must be true or false, not a string", "ratio: must be a number, not a string", "size: must be a whole number, not a string",
				"tags: must be a list, not an object",
			},
		},
		{
			name: "Unknown", reason: "fields that are hidden, private or in another spelling are unknown",
			text: `{"Hidden": "h", "private": "q", "NAME": "m", "na-me": "m"}`, change: func(*config) {},
			faults: []string{
				"Hidden: is not a known field (known are big, deep, every, inner, inners, labels, name, on, ratio, raw, raws, size, tags)",
				`NAME: is not a known field (did you mean "name"?)`, `na-me: is not a known field (did you mean "name"?)`,
				"private: is not a known field (known are big, deep, every, inner, inners, labels, name, on, ratio, raw, raws, size, tags)",
			},
		},
		{
			name: "TwiceInside", reason: "a key given twice is found wherever it is, also in what stays raw",
			text:   `{"raw": {"a": 1, "a": 2}, "inners": [{"x": 1, "x": 1}]}`,
			change: func(c *config) { c.Raw, c.Inners = json.RawMessage(`{"a": 1, "a": 2}`), []inner{{X: 1}} },
			faults: []string{"inners[0].x: is given twice", "raw.a: is given twice"},
		},
		{
			name: "Range", reason: "a number out of range is not bent into one that fits", text: `{"size": 1.5, "big": 1e19, "ratio": 1e999}`, change: func(*config) {},
			faults: []string{"big: must be a whole number, not 1e19", "ratio: is out of range", "size: must be a whole number, not 1.5"},
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			got, want := defaults(), defaults()
			row.change(&want)
			err := bellhop.DecodeStrict([]byte(row.text), &got)
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(config{})); diff != "" {
				t.Errorf("decoded (-want +got): %s\n%s", row.reason, diff)
			}
			var faults bellhop.Faults
			if err != nil && !errors.As(err, &faults) {
				t.Fatalf("the error is a %T", err)
			}
			var told []string
			for _, fault := range faults {
				told = append(told, fault.String())
			}
			if diff := cmp.Diff(row.faults, told); diff != "" {
				t.Errorf("faults (-want +got): %s\n%s", row.reason, diff)
			}
		})
	}
}

func TestDecodeStrictFillsSeveralStructsAsOne(t *testing.T) {
	one, two := inner{X: 1}, embedded{Deep: "d"}
	err := bellhop.DecodeStrict([]byte(`{"x": 2, "deep": "e", "depth": 3}`), &one, &two)
	if want := "depth: is not a known field (known are deep, x)"; err == nil || err.Error() != want {
		t.Errorf("the fault is %v, not: %s", err, want)
	}
	if one.X != 2 || two.Deep != "e" {
		t.Errorf("decoded %+v and %+v", one, two)
	}
}

func TestFaultsWithin(t *testing.T) {
	faults := bellhop.Faults{{Path: "", Problem: "a"}, {Path: "x", Problem: "b"}, {Path: "[0]", Problem: "c"}}
	if got := faults.Within("spec.ports").Error(); got != "spec.ports: a; spec.ports.x: b; spec.ports[0]: c" {
		t.Errorf("faults within read %q", got)
	}
	if err := (bellhop.Faults{}).Err(); err != nil {
		t.Errorf("no faults are the error %v", err)
	}
}

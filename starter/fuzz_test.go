package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"bellhop"
	"bellhop/internal/boundtest"
)

func readHostile(t *testing.T, data []byte) error {
	t.Helper()
	var err error
	boundtest.Within(t, func() {
		in := input{name: "operation.yaml"}
		in.json = toJSON(in.name, data, &in.faults)
		_, err = in.check("", bellhop.Provision, true)
		if err != nil {
			require.LessOrEqual(t, len(err.Error()), 200<<10)
		}
	})
	return err
}

// A file that is small itself may stand for more than any machine holds.
func TestRead_BoundsYAML(t *testing.T) {
	laughs := "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n"
	for i := 1; i < 10; i++ {
		n := string(rune('0' + i))
		before := "*a" + string(rune('0'+i-1))
		laughs += "a" + n + ": &a" + n + " [" + strings.Repeat(before+", ", 8) + before + "]\n"
	}
	for reason, text := range map[string]string{
		"aliases of aliases":      laughs,
		"many aliases of a text":  "a: &a " + strings.Repeat("x", 64<<10) + "\nb: [" + strings.Repeat("*a,", 20<<10) + "]\n",
		"an alias of itself":      "a: &a [*a]\n",
		"nested lists":            "a: " + strings.Repeat("[", 9000) + strings.Repeat("]", 9000),
		"nested maps":             "a: " + strings.Repeat("{a: ", 9000) + "1" + strings.Repeat("}", 9000),
		"nested by dashes":        strings.Repeat("- ", 5000) + "a",
		"broken with an alias":    "a: [*b, *b\n",
		"many empty lists":        "a: [" + strings.Repeat("[],", 80<<10) + "]",
		"many keys given twice":   strings.Repeat("a: 1\n", 50<<10),
		"many documents":          strings.Repeat("---\na: 1\n", 20<<10),
		"merges":                  "a: &a {x: 1}\nb:\n" + strings.Repeat("  <<: *a\n", 10<<10),
		"a large one":             "a: " + strings.Repeat("x", 256<<10),
		"comments only, large":    strings.Repeat("# nothing\n", 20<<10),
		"a text of many lines":    "a: |\n" + strings.Repeat("  x\n", 50<<10),
		"a text of many quotes":   "a: '" + strings.Repeat("''", 100<<10) + "'",
		"escapes":                 `a: "` + strings.Repeat(`\x41`, 60<<10) + `"`,
		"unknown fields":          strings.Repeat("f: 1\n", 1),
		"an unfinished flow":      "{" + strings.Repeat("a: {", 60),
		"tags that are no scalar": strings.Repeat("!!binary ", 10<<10),
	} {
		t.Run(reason, func(t *testing.T) {
			require.Error(t, readHostile(t, []byte(text)))
		})
	}
	// Anchors are fine where they save a few lines.
	in := input{name: "operation.yaml"}
	in.json = toJSON(in.name, []byte("tenant_id: &a acme\nprovider: *a\nspec: {image: nginx}\n"), &in.faults)
	op, err := in.check("op-1", bellhop.Provision, true)
	require.NoError(t, err)
	require.Equal(t, "acme", op.Provider)
}

func FuzzYAML(f *testing.F) {
	f.Add([]byte("tenant_id: acme\nprovider: docker\nspec:\n  image: nginx\n  env: {A: \"b\"}\n"))
	f.Add([]byte("a: &a [1, 2]\nb: [*a, *a]\n"))
	f.Add([]byte("---\na: 1\n---\nb: |\n  x\n"))
	f.Add([]byte(`{"tenant_id": "acme", "spec": {`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) <= bellhop.MaxOperationBytes {
			_ = readHostile(t, data) //nolint:errcheck // only what it costs matters
		}
	})
}

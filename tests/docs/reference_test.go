package docs

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bellhop"
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

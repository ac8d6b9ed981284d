package main

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"testing"

	enumspb "go.temporal.io/api/enums/v1"
)

var discard = slog.New(slog.DiscardHandler)

func TestEveryFaultAtOnce(t *testing.T) {
	args := strings.Fields("--port 70000 --foo --bar=3 -z --headless=maybe extra --namespace temporal-system --namespace a --namespace a" +
		" --search-attribute Lonely --search-attribute Size=Huge --search-attribute WorkflowId=Int --search-attribute BellhopState=Int" +
		" --search-attribute B1=Bool --search-attribute B2=Bool --search-attribute B3=Bool --search-attribute B4=Bool" +
		" --log-level loud --db /no/such/folder/x.db --ui-port=-1")
	want := []string{
		"--port 70000", "--foo", "--bar", "-z", `"maybe"`, `"extra"`, "temporal-system", "--namespace a: given twice",
		`"Lonely"`, `"Huge"`, `"WorkflowId=Int"`, `"BellhopState=Int"`, `"B4=Bool"`, `"loud"`, "/no/such/folder", "--ui-port -1",
	}
	var stderr bytes.Buffer
	if code := run(t.Context(), args, io.Discard, &stderr); code != 2 {
		t.Errorf("exit code %d", code)
	}
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	if len(lines) != len(want)+1 { // the last line points to --help
		t.Errorf("%d lines for %d faults:\n%s", len(lines), len(want), &stderr)
	}
	for _, fault := range want {
		if !strings.Contains(stderr.String(), fault) {
			t.Errorf("nothing about %s in:\n%s", fault, &stderr)
		}
	}
}

func TestOneFault(t *testing.T) {
	for args, want := range map[string]string{
		"--port 65000":                   "no room for the UI",
		"--port 7000 --ui-port 7000":     "same as --port",
		"--headless --ui-port 7000":      "contradicts",
		"--port":                         "needs an argument",
		"--port x":                       `"x"`,
		"--db .":                         "not a file",
		"--db=":                          "a path, please",
		"--namespace=":                   "a name",
		"--=x":                           "bad flag syntax",
		"-xyz":                           "-xyz",
		"--search-attribute =Keyword":    "not Name=Type",
		"--search-attribute X=":          `type ""`,
		"--search-attribute X=Keyword=Y": `"Keyword=Y"`,
	} {
		_, err := parseOptions(strings.Fields(args))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestOptions(t *testing.T) {
	o, err := parseOptions(nil)
	ok(t, err)
	if o.port != 7233 || o.uiPort != 8233 || strings.Join(o.namespaces, " ") != "default" || o.db != "" || len(o.searchAttributes) != 5 {
		t.Errorf("defaults: %+v", o)
	}
	o, err = parseOptions(strings.Fields("--port 0 --namespace a --namespace b --search-attribute Order=Int --search-attribute BellhopState=Keyword"))
	ok(t, err)
	if o.port != 0 || o.uiPort != 0 || strings.Join(o.namespaces, " ") != "a b" || len(o.searchAttributes) != 6 ||
		o.searchAttributes["Order"] != enumspb.INDEXED_VALUE_TYPE_INT {
		t.Errorf("%+v", o)
	}
}

func TestHelp(t *testing.T) {
	var stdout bytes.Buffer
	if code := run(t.Context(), []string{"--nonsense", "--help"}, &stdout, io.Discard); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, flag := range []string{"--port", "--ui-port", "--headless", "--db", "--namespace", "--search-attribute", "--log-level", "--stop-with-parent"} {
		if !strings.Contains(stdout.String(), flag+" ") {
			t.Errorf("help says nothing about %s", flag)
		}
	}
}

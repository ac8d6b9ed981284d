package bellhop_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"

	"bellhop"
)

const (
	token = "AAAAKgAAAAIAAAAAAAAAAV4fake"
	value = "correct horse battery staple"
)

func withSecrets(t *testing.T) bellhop.Operation {
	t.Helper()
	op, faults := parse(bellhop.Provision, `{"tenant_id": "acme", "provider": "ecs",
		"spec": {"image": "nginx:1.27", "env": {"PASSWORD": "`+value+`", "MODE": "prod"}},
		"callbacks": [
			{"target": "orders", "address": {"task_token": "`+token+`"}},
			{"target": "restate", "address": {"awakeable": "`+token+`", "service": "Orders"}},
			{"target": "new", "address": {"some_new_member": {"deep": "`+token+`"}}},
			{"target": "odd", "address": "`+token+`"}
		]}`)
	if faults != nil {
		t.Fatal(faults)
	}
	return op
}

func TestNothingShowsASecret(t *testing.T) {
	op := withSecrets(t)
	shown := map[string]string{"String": op.String(), "GoString": op.GoString()}
	for name, v := range map[string]any{
		"operation": op, "pointer": &op, "list": []bellhop.Operation{op}, "callback": op.Callbacks[0], "callbacks": op.Callbacks,
		"spec": op.Spec, "within": struct{ Op bellhop.Operation }{op}, "redacted": op.Redacted(),
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			shown[name+" "+verb] = fmt.Sprintf(verb, v)
		}
	}
	var text, encoded bytes.Buffer
	for _, logger := range []*slog.Logger{slog.New(slog.NewTextHandler(&text, nil)), slog.New(slog.NewJSONHandler(&encoded, nil))} {
		logger.Info("started", "operation", op, "callback", op.Callbacks[1], "spec", op.Spec,
			slog.Group("group", "operation", op), "error", fmt.Errorf("start %v: %w", op, errors.New("no")))
	}
	shown["slog text"], shown["slog JSON"] = text.String(), encoded.String()
	for how, what := range shown {
		if strings.Contains(what, token) || strings.Contains(what, value) {
			t.Errorf("%s shows a secret: %s", how, what)
		}
	}
	for _, how := range []string{"String", "operation %v", "operation %+v", "operation %#v", "slog text", "slog JSON"} {
		for _, keep := range []string{"op-1", "acme", "nginx:1.27", "PASSWORD", "orders", "Orders"} {
			if !strings.Contains(shown[how], keep) {
				t.Errorf("%s does not show %s, by which a person finds the operation: %s", how, keep, shown[how])
			}
		}
	}
	if !strings.Contains(op.String(), "sha256:") {
		t.Errorf("two tokens cannot be told apart in %s", op)
	}
	if op.Spec.Env["PASSWORD"] != value || !strings.Contains(string(op.Callbacks[0].Address), token) {
		t.Error("showing the operation changed it")
	}
}

func TestTokensAreToldApart(t *testing.T) {
	first := bellhop.Callback{Target: "t", Address: json.RawMessage(`{"task_token": "one-token"}`)}
	same := bellhop.Callback{Target: "t", Address: json.RawMessage(`{"task_token":   "one-token"}`)}
	other := bellhop.Callback{Target: "t", Address: json.RawMessage(`{"task_token": "two-token"}`)}
	if first.String() != same.String() || first.String() == other.String() {
		t.Errorf("tokens are shown as %s, %s and %s", first, same, other)
	}
}

// An error is shown wherever it arises, and long before anybody can scrub it.
func TestFaultsRepeatNoSecret(t *testing.T) {
	for _, text := range []string{
		`{"spec": {"env": {"PASSWORD": 12345678901}}}`,
		`{"spec": {"env": ["` + value + `"]}}`,
		`{"spec": {"env": "PASSWORD=` + value + `"}}`,
		`{"spec": {"command": "` + value + `", "env": {"A": ["` + value + `"], "B": {"C": "` + value + `"}}}}`,
		`{"callbacks": "` + token + `"}`,
		`{"callbacks": ["` + token + `"]}`,
		`{"callbacks": [{"target": 12345678901, "address": "` + token + `"}]}`,
		`{"callbacks": [{"target": "t", "address": {"task_token": "` + token + `"}}, {"target": "t", "address": {"task_token": "` + token + `"}}]}`,
		`{"callbacks": [{"target": "t", "address": {"task_token": "` + token + `"`,
		`"` + token + `"`,
	} {
		_, faults := parse(bellhop.Provision, text)
		if faults == nil {
			t.Errorf("%s is taken", text)
		}
		for _, secret := range []string{token, value, "12345678901"} {
			if said := fmt.Sprintf("%v %+v", faults, bellhop.InvalidOperation(faults)); strings.Contains(said, secret) {
				t.Errorf("of %s it is said: %s", text, said)
			}
		}
	}
}

func TestSecrets(t *testing.T) {
	op, faults := parse(bellhop.Provision, `{"tenant_id": "a", "provider": "p", "spec": {"image": "i",
		"env": {"A": "prod", "B": "secret-1", "C": "secret-1-and-more"}},
		"callbacks": [{"target": "t", "address": {"task_token": "the-token", "workflow_id": "order-42"}}]}`)
	if faults != nil {
		t.Fatal(faults)
	}
	got := strings.Join(op.Secrets(), "|")
	if got != "secret-1-and-more|the-token|secret-1" {
		t.Errorf("secrets are %s: the longest first, without what is short or open", got)
	}
	said := bellhop.Scrub("log in as secret-1-and-more to prod for order-42 with the-token and secret-1.", op.Secrets())
	if said != "log in as [redacted] to prod for order-42 with [redacted] and [redacted]." {
		t.Errorf("scrubbed: %s", said)
	}
}

func TestClean(t *testing.T) {
	if (*bellhop.Failure)(nil).Clean(nil) != nil {
		t.Error("no failure became one")
	}
	huge := strings.Repeat("äöü€𝄞", 10_000)
	failure := bellhop.Fail(bellhop.CodeContainerExited, "exited with %s%s", value, huge).
		Because(errors.New(value+huge)).With("empty", "").With("exit_code", "1").
		With("logs", huge+" the last line, with "+value)
	for i := range 40 {
		failure.With(fmt.Sprintf("more_%02d", i), huge)
	}
	failure.With("binary", string([]byte{0xff, 0xfe, 0, 1, 2})+strings.Repeat("\xf0\x9d\x84", 3000))
	before := failure.Message
	clean := failure.Clean([]string{value})
	if failure.Message != before {
		t.Error("cleaning changed the failure itself")
	}
	text, err := json.Marshal(clean)
	if err != nil || !json.Valid(text) || !utf8.Valid(text) {
		t.Fatalf("the cleaned failure is no JSON: %v", err)
	}
	for name, part := range map[string]string{"message": clean.Message, "provider error": clean.ProviderError, "logs": clean.Evidence["logs"]} {
		if !utf8.ValidString(part) {
			t.Errorf("%s was cut within a character", name)
		}
	}
	if strings.Contains(string(text), value) {
		t.Error("the secret is still there")
	}
	if len(clean.Message) > 2<<10 || len(clean.ProviderError) > 4<<10 || !strings.HasPrefix(clean.Message, "exited with [redacted]") ||
		!strings.HasSuffix(clean.Message, "… [cut]") {
		t.Errorf("the message has %d bytes and ends with %q", len(clean.Message), clean.Message[len(clean.Message)-20:])
	}
	if logs := clean.Evidence["logs"]; len(logs) > 4<<10 || !strings.HasSuffix(logs, " the last line, with [redacted]") || !strings.HasPrefix(logs, "[cut] …") {
		t.Errorf("of the logs %d bytes are kept; the end is what tells", len(logs))
	}
	if clean.Evidence["exit_code"] != "1" || clean.Evidence["more"] == "" {
		t.Errorf("evidence is %d pieces, exit code %q", len(clean.Evidence), clean.Evidence["exit_code"])
	}
	if _, ok := clean.Evidence["empty"]; ok {
		t.Error("empty evidence is evidence of nothing")
	}
	total := 0
	for name, piece := range clean.Evidence {
		total += len(name) + len(piece)
	}
	if total > 33<<10 {
		t.Errorf("there are %d bytes of evidence", total)
	}
}

// What is cut at every place and in every character stays text.
func TestCutsStayText(t *testing.T) {
	for n := range 32 {
		long := strings.Repeat("x", n) + strings.Repeat("€𝄞ä", 2000)
		clean := bellhop.Fail(bellhop.CodeInternal, "%s", long).Because(errors.New(long)).With("logs", long).Clean(nil)
		for _, part := range []string{clean.Message, clean.ProviderError, clean.Evidence["logs"]} {
			if !utf8.ValidString(part) || len(part) > 4<<10 {
				t.Fatalf("%d bytes in, %d bytes were cut to no text", n, len(part))
			}
		}
	}
}

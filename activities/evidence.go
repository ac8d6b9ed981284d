package activities

import (
	"strings"

	"bellhop"
)

// Tail keeps the last bytes that are written to it: the end of a log, where it says what went wrong.
type Tail struct {
	// Limit is how many.
	Limit int
	bytes []byte
	cut   bool
}

// Write never fails.
func (t *Tail) Write(more []byte) (int, error) {
	t.bytes = append(t.bytes, more...)
	if over := len(t.bytes) - t.Limit; over > 0 {
		t.bytes, t.cut = append(t.bytes[:0], t.bytes[over:]...), true
	}
	return len(more), nil
}

// Text is what was kept without the secrets, of which the longest is the first. Of a log that was cut, the line in which it
// begins is left out: it may begin in the middle of a secret.
func (t *Tail) Text(secrets []string) string {
	text := string(t.bytes)
	if t.cut && len(secrets) > 0 {
		if _, rest, ok := strings.Cut(text, "\n"); ok {
			return bellhop.Scrub(rest, secrets)
		}
	}
	text = bellhop.Scrub(text, secrets)
	if t.cut && len(secrets) > 0 { // it is one line, with the end of a secret at its beginning, perhaps
		text = text[min(len(secrets[0]), len(text)):]
	}
	return text
}

// SecretsIn are the values of an environment that must not show up in evidence, the longest first.
func SecretsIn(environment []string) []string {
	values := map[string]string{}
	for _, value := range environment {
		values[value] = value
	}
	// The operation knows which values are long enough to be secrets, and their order.
	return bellhop.Operation{Spec: bellhop.Spec{Env: values}}.Secrets()
}

package bellhop_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"bellhop"
	"bellhop/internal/boundtest"
)

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	require.NoError(t, err)
	return string(text)
}

// wrapped is a text in lines of so many characters.
func wrapped(text string, width int, end string) string {
	var lines []string
	for len(text) > width {
		lines, text = append(lines, text[:width]), text[width:]
	}
	return strings.Join(append(lines, text), end)
}

const pem = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw\nggSjAgEAAoIBAQC7VJTUt9Us8cKj\n-----END PRIVATE KEY-----\n"

func TestScrub_FindsEveryForm(t *testing.T) {
	for name, secret := range map[string]string{
		"plain":          "correct-horse-battery",
		"shortest":       "s3cr3t",
		"quotes":         `pa"ss\wo'rd<&>`,
		"white space":    "correct horse\tbattery",
		"plus and space": "correct+horse battery",
		"not ASCII":      "pässwörd-🔑-ключ",
		"binary":         "\x00\x01\xff\xfesecret\x80",
		"URL":            "p@ss/w?rd+1=%41&x#y",
		"base64":         "c2VjcmV0LXNlY3JldC1zZWNyZXQ+/A==",
		"lines":          pem,
	} {
		std, encoded := base64.StdEncoding, map[string]string{}
		encoded["as it is"] = secret
		encoded["JSON"] = asJSON(t, secret)
		encoded["JSON without HTML"] = strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(asJSON(t, secret))
		encoded["JSON in JSON"] = asJSON(t, map[string]string{"log": asJSON(t, map[string]string{"key": secret})})
		if name == "binary" { // JSON has no bytes that are no UTF-8
			delete(encoded, "JSON")
			delete(encoded, "JSON without HTML")
			delete(encoded, "JSON in JSON")
		}
		encoded["%q"] = strconv.Quote(secret)
		encoded["%q in JSON"] = asJSON(t, "error: "+strconv.Quote(secret))
		encoded["%+q"] = strconv.QuoteToASCII(secret)
		encoded["query"] = "https://example.com/?a=b&token=" + url.QueryEscape(secret)
		encoded["path"] = "https://example.com/" + url.PathEscape(secret) + "/x"
		encoded["query in JSON"] = asJSON(t, "GET /?q="+url.QueryEscape(secret))
		var every strings.Builder
		for i := range len(secret) {
			fmt.Fprintf(&every, "%%%02x", secret[i])
		}
		encoded["every byte of a URL"] = every.String()
		encoded["base64"] = std.EncodeToString([]byte(secret))
		encoded["base64 without padding"] = base64.RawStdEncoding.EncodeToString([]byte(secret))
		encoded["base64 for URLs"] = base64.URLEncoding.EncodeToString([]byte(secret))
		encoded["base64 in a query"] = "?v=" + url.QueryEscape(std.EncodeToString([]byte(secret)))
		encoded["base64 in JSON"] = asJSON(t, std.EncodeToString([]byte(secret)))
		for _, before := range []string{"", "a", "ab", "abc", "user:"} {
			encoded["base64 after "+before] = "Basic " + std.EncodeToString([]byte(before+secret+"more"))
			encoded["base64 in lines after "+before] = wrapped(std.EncodeToString([]byte(before+secret+"more")), 7, "\r\n")
		}
		scrubber := bellhop.NewScrubber([]string{"another-secret", secret})
		for form, text := range encoded {
			t.Run(name+"/"+form, func(t *testing.T) {
				got := scrubber.Scrub("before, " + text + " after.")
				require.Contains(t, got, "[redacted]")
				require.True(t, strings.HasPrefix(got, "before, ") && strings.HasSuffix(got, " after."), "too much is blotted out: %s", got)
				// What is left of an encoded secret beside what it was embedded in tells nothing.
				left := strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(got, "before, "), " after."), "[redacted]", "")
				for _, known := range []string{
					`{"log":"{\"key\":\"`, `\"}"}`, `"error: \"`, `\""`, "https://example.com/?a=b&token=", "https://example.com/", "/x",
					`"GET /?q=`, "?v=", "Basic ", `"`,
				} {
					left = strings.ReplaceAll(left, known, "")
				}
				require.LessOrEqual(t, len(left), 18, "%q is left of it", left)
			})
		}
	}
}

func TestScrub_FindsTheLinesOfAKey(t *testing.T) {
	scrubber := bellhop.NewScrubber([]string{pem})
	for reason, text := range map[string]string{
		"the log begins in the middle":  "AASCBKcw\nggSjAgEAAoIBAQC7VJTUt9Us8cKj\n-----END PRIVATE KEY-----",
		"the last line end is trimmed":  strings.TrimSpace(pem),
		"lines end in CRLF":             strings.ReplaceAll(pem, "\n", "\r\n"),
		"each line is indented":         strings.ReplaceAll(pem, "\n", "\n    "),
		"each line has a time":          strings.ReplaceAll(pem, "\n", "\n2026-01-01T00:00:00Z stdout F "),
		"on one line as in JSON":        strings.ReplaceAll(pem, "\n", `\n`),
		"cut in the middle of a line":   "key is ggSjAgEAAoIBAQC7",
		"a line in base64":              base64.StdEncoding.EncodeToString([]byte("x ggSjAgEAAoIBAQC7VJTUt9Us8cKj")),
		"a line within another":         "xxggSjAgEAAoIBAQC7VJTUt9Us8cKjxx",
		"two lines with nothing beside": "ggSjAgEAAoIBAQC7VJTUt9Us8cKjMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw",
	} {
		got := scrubber.Scrub(text)
		for _, part := range []string{"ggSjAgEAAo", "QC7VJTUt9Us", "MIIEvQ"} {
			require.NotContains(t, got, part, reason)
		}
	}
	given := bellhop.NewScrubber([]string{strings.ReplaceAll(pem, "\n", `\n`)})
	require.NotContains(t, given.Scrub("read ggSjAgEAAoIBAQC7VJTUt9Us8cKj"), "ggSj", "a key that is given on one line is printed in several")
	require.NotContains(t, bellhop.Scrub("read s3cret-key, no more", []string{"s3cret-key\n"}), "s3cret")
}

func TestScrub_LeavesTheRest(t *testing.T) {
	scrubber := bellhop.NewScrubber([]string{"prod", "docker-internal-host", "secret-1", "secret-1-and-more", "more-and-more"})
	for text, want := range map[string]string{
		"":                             "",
		"runs in prod on docker":       "runs in prod on docker",
		"secret-1 secret-1-and-more":   "[redacted] [redacted]",
		"secret-1-and-more-and-more":   "[redacted]", // one overlaps the other
		"secret-2 %41 \\n \\u12 %zz +": "secret-2 %41 \\n \\u12 %zz +",
		"ends in docker-inter":         "ends in [redacted]",
		"ends in docker-":              "ends in docker-",
	} {
		require.Equal(t, want, scrubber.Scrub(text))
	}
	var none *bellhop.Scrubber
	require.Equal(t, "a text", none.Scrub("a text"))
	require.Equal(t, "a text", bellhop.NewScrubber(nil).Scrub("a text"))
}

// The environment and the log are the same stranger's, who may choose them so as to take time.
func TestScrub_IsBounded(t *testing.T) {
	many := func(size int, each func(i int) string) []string {
		var secrets []string
		for i := 0; size > 0; i++ {
			secrets = append(secrets, each(i))
			size -= len(secrets[i])
		}
		return secrets
	}
	const size = bellhop.MaxOperationBytes
	a := strings.Repeat("a", size)
	for reason, secrets := range map[string][]string{
		"many short ones":              many(size, func(i int) string { return fmt.Sprintf("s%07d", i) }),
		"many that begin alike":        many(size, func(i int) string { return fmt.Sprintf("aaaaaaaaaaaaaaaaaaaaaaaa%07d", i) }),
		"one within the other":         many(size, func(i int) string { return a[:i+6] }),
		"few long ones":                {a[:size/2] + "b", a[:size/3] + "c", a[:size/6] + "d"},
		"one of many lines":            {strings.Join(many(size, func(i int) string { return fmt.Sprintf("a%07d", i) }), "\n")},
		"what a's are in base64":       many(size, func(i int) string { return strings.Repeat("\x69\xa6\x9a", i+2) }),
		"a usual number of usual ones": many(300, func(i int) string { return fmt.Sprintf("password-%d-for-you", i) }),
	} {
		t.Run(reason, func(t *testing.T) {
			failure := bellhop.Fail(bellhop.CodeContainerExited, "%s", a[:2048]).
				With("logs", a[:8<<10]).With("escapes", strings.Repeat(`a\\a%61+`, 1<<10)).With("secrets", strings.Join(secrets, " ")[:min(8<<10, len(secrets[0]))]).
				With("base64", strings.Repeat("aaaa", 2<<10))
			boundtest.Within(t, func() { require.NotNil(t, failure.Clean(secrets)) })
		})
	}
}

func TestObservation_CleanKeepsNoSecret(t *testing.T) {
	given := bellhop.Observation{
		Phase:    bellhop.PhaseFailed,
		Progress: bellhop.Progress{Message: `cannot log in with "s3cr\u0065t-1" ` + strings.Repeat("x", 4000)},
		Failure:  bellhop.Fail(bellhop.CodeInternal, "password s3cret-1").Because(fmt.Errorf("GET /?p=s3cret%%2d1")).With("logs", "czNjcmV0LTE="),
	}
	clean := given.Clean([]string{"s3cret-1"})
	require.Equal(t, "password [redacted]", clean.Failure.Message)
	require.Equal(t, "GET /?p=[redacted]", clean.Failure.ProviderError)
	require.Equal(t, "[redacted]=", clean.Failure.Evidence["logs"])
	require.True(t, strings.HasPrefix(clean.Progress.Message, `cannot log in with "[redacted]" xxx`), clean.Progress.Message)
	require.LessOrEqual(t, len(clean.Progress.Message), 2<<10)
}

package bellhop_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"bellhop"
	"bellhop/internal/boundtest"
)

// hostile are inputs that are large in every way in which one of 256 KiB can be.
func hostile() map[string]string {
	const room = bellhop.MaxOperationBytes
	fill := func(before, each, after string) string {
		return before + strings.Repeat(each, (room-len(before)-len(after))/len(each)) + strings.TrimSuffix(after, ",")
	}
	operation := func(before, each, after string) string {
		return fill(`{"tenant_id":"acme","provider":"docker",`+before, each, after)
	}
	numbered := func(before, format, after string) string {
		var text strings.Builder
		text.WriteString(`{"tenant_id":"acme","provider":"docker","spec":{"image":"nginx"` + before)
		for i := 0; text.Len() < room-len(after)-64; i++ {
			if i > 0 {
				text.WriteByte(',')
			}
			fmt.Fprintf(&text, strings.ReplaceAll(format, "#", "%[1]d"), i)
		}
		return text.String() + after
	}
	key := strings.Repeat("k", 21)
	inputs := map[string]string{
		"nested with long keys":       operation(`"provider_config":`, `{"`+key+`":`, `1`+strings.Repeat("}", 9000)+`}`),
		"nested lists":                operation(`"provider_config":`, `[`, `}`),
		"nested 10,000 deep":          `{"provider_config":` + strings.Repeat(`{"`+key[:10]+`":`, 9990) + `1` + strings.Repeat("}", 9991),
		"nested to the limit":         `{"provider_config":{"a":[` + strings.Repeat(strings.Repeat(`{"":`, 61)+"1"+strings.Repeat("}", 61)+",", 700) + `1]}}`,
		"a long key above many":       `{"provider_config":{"` + strings.Repeat("k", room/2) + `":{` + strings.Repeat(`"":1,`, room/12) + `"":1}}}`,
		"empty objects":               operation(`"provider_config":{"a":[`, `{},`, `{}]}}`),
		"empty lists":                 operation(`"provider_config":{"a":[`, `[],`, `[]]}}`),
		"small objects":               operation(`"provider_config":{"a":[`, `{"":0},`, `{}]}}`),
		"keys given twice":            operation(`"provider_config":{`, `"a":0,`, `"a":0}}`),
		"unknown fields":              numbered(`}`, `,"f#":0`, `}`),
		"unknown fields, commas":      strings.ReplaceAll(numbered(`},"x":0,`, `"f#":0`, `}`), ",,", ","),
		"bad names of variables":      numbered(`,"env":{`, `"#":""`, `}}}`),
		"bad values of variables":     numbered(`,"env":{`, `"E#":0`, `}}}`),
		"bad secrets":                 numbered(`,"secrets":{`, `"S#":""`, `}}}`),
		"variables":                   numbered(`,"env":{`, `"E#":"secret-#"`, `}}}`),
		"variables given twice":       numbered(`,"env":{`, `"E":"secret-#"`, `}}}`),
		"metadata":                    numbered(`},"metadata":{`, `"#":""`, `}}`),
		"ports":                       operation(`"spec":{"image":"nginx","ports":[`, `{},`, `{}]}}`),
		"good ports":                  numbered(`,"ports":[`, `{"container_port":#}`, `]}}`),
		"ports with a long protocol":  `{"spec":{"ports":[{"protocol":"` + strings.Repeat("x", room-200) + `"},{"protocol":"y"}]}}`,
		"words":                       operation(`"spec":{"image":"nginx","command":[`, `"",`, `""]}}`),
		"words of the wrong kind":     operation(`"spec":{"image":"nginx","command":[`, `0,`, `0]}}`),
		"nulls":                       operation(`"spec":{"image":"nginx","command":[`, `null,`, `null]}}`),
		"callbacks":                   operation(`"callbacks":[`, `{},`, `{}]}`),
		"states":                      operation(`"callbacks":[{"target":"a","states":[`, `"",`, `""]}]}`),
		"different states":            numbered(`},"callbacks":[{"target":"a","states":[`, `"#"`, `]}]}`),
		"an address of many members":  numbered(`},"callbacks":[{"target":"a","address":{`, `"#":0`, `}}]}`),
		"an address of many tokens":   numbered(`},"callbacks":[{"target":"a","address":{`, `"#":"token-#"`, `}}]}`),
		"an address of small objects": operation(`"callbacks":[{"target":"a","address":{"a":[`, `{"":0},`, `{}]}}]}`),
		"a long number":               operation(`"timeout":`, `1`, `}`),
		"a long duration":             operation(`"timeout":"`, `1h`, `"}`),
		"a long name":                 operation(`"resource":"`, `\u0000`, `"}`),
		"a long image":                operation(`"spec":{"image":"`, `i `, `"}}`),
		"escapes":                     operation(`"spec":{"image":"nginx","env":{"A":"`, `\u00e9`, `"}}}`),
		"no JSON":                     strings.Repeat("x", room),
		"white space":                 strings.Repeat(" ", room),
		"a list":                      fill(`[`, `1,`, `1]`),
		"larger than that":            `{"a":"` + strings.Repeat("x", 2*room) + `"}`,
	}
	return inputs
}

// consume does with an input what bellhop does with it, from the door to the last outcome: all of it that depends on what
// the caller sent.
func consume(data []byte) (bellhop.Operation, error) {
	return bellhop.AcceptOperation("op-1", bellhop.Provision, data)
}

func checkInput(t *testing.T, data []byte) {
	t.Helper()
	var op bellhop.Operation
	var err error
	boundtest.Within(t, func() { op, err = consume(data) })
	faults, refused := errors.AsType[bellhop.Faults](err)
	var failure *bellhop.Failure
	boundtest.Within(t, func() {
		if refused {
			failure = bellhop.InvalidOperation(faults)
		} else {
			failure = bellhop.Fail(bellhop.CodeContainerExited, "it exited").With("logs", strings.Repeat(string(data[:min(len(data), 100)]), 320))
		}
		failure = failure.Clean(op.Secrets())
	})
	if refused && len(faults) > 101 {
		t.Errorf("there are %d faults", len(faults))
	}
	var encoded json.RawMessage
	boundtest.Within(t, func() {
		var err error
		_, encoded, err = bellhop.BoundOutcome(bellhop.Outcome{
			SchemaVersion: 1, OperationID: op.ID, TenantID: op.TenantID, Resource: op.Resource, Provider: op.Provider,
			State: bellhop.Failed, Error: failure, Metadata: op.Metadata,
		})
		require.NoError(t, err)
	})
	require.LessOrEqual(t, len(encoded), bellhop.MaxOutcomeBytes)
	boundtest.Within(t, func() { _ = op.String() })
	for _, fault := range faults {
		require.Less(t, len(fault.String()), 2<<10)
	}
	if refused && len(failure.Message) > 2<<10 {
		t.Errorf("the message has %d bytes", len(failure.Message))
	}
}

func TestParseOperation_IsBounded(t *testing.T) {
	for name, text := range hostile() {
		t.Run(name, func(t *testing.T) {
			checkInput(t, []byte(text))
		})
	}
}

// FuzzOperation reads inputs that repeat something as often as fits: what is more than linear shows.
func FuzzOperation(f *testing.F) {
	f.Add(`{"tenant_id":"acme","provider":"docker","spec":{"image":"nginx:1.27","env":{"PASSWORD":"correct horse"},"ports":[{"container_port":80}]},
		"callbacks":[{"target":"orders","address":{"task_token":"AAAAKgAAAAIAAAAA"},"states":["running","failed"],"heartbeat":"30s"}],"metadata":{"a":"b"}}`, "", "")
	f.Add(`{"spec":{"health_check":{"command":["true"],"interval":"0.5s"},"replicas":1e3},"timeout":"9h","on_cancel":"remove"}`, "", "")
	f.Add(`{"callbacks":[{"target":1},{"address":[[["x"]]]},null,"a"],"spec":{"env":{"1":null},"secrets":{"A":""}}}`, "", "")
	f.Add(`{"provider_config":`, `{"kkkkkkkkkkkkkkkkkkkkk":`, `1`)
	f.Add(`{"callbacks":[{"target":"a","states":[`, `"",`, `""]}]}`)
	f.Add(`{"callbacks":[{"target":"a","address":{"a":[`, `{"":0},`, `{}]}}]}`)
	f.Add(`{"spec":{"image":"nginx","ports":[`, `{"container_port":1},`, `{}]}}`)
	f.Add(`{"spec":{"image":"nginx","env":{`, `"1":0,`, `"":""}}}`)
	f.Add(`{`, `"x":0,`, `"y":0}`)
	f.Add(`{"metadata":{"a":"`, `\u0001<`, `"}}`)
	f.Fuzz(func(t *testing.T, before, each, after string) {
		checkInput(t, []byte(boundtest.Filled(before, each, after)))
	})
}

// FuzzScrub hides a secret in a text in every form, and finds nothing of it afterwards.
func FuzzScrub(f *testing.F) {
	f.Add("correct horse", "before ", " after", uint8(0))
	f.Add("p\"a\\s<s>&", "{\"x\": \"", "\"}", uint8(1))
	f.Add("line one\nline two\r\nline three", "%41", "\\u12", uint8(2))
	f.Add("sécret-ключ", "a+b%2", "=", uint8(3))
	f.Add("aaaaaaaaaaaa", "aaa", "aaa", uint8(4))
	f.Add("\x00\xff\xfe\x80bc", "x", "y", uint8(5))
	f.Fuzz(func(t *testing.T, secret, before, after string, form uint8) {
		if len(strings.TrimSpace(secret)) < 6 || len(secret)+len(before)+len(after) > 64<<10 {
			return
		}
		var hidden string
		switch form % 8 {
		case 0:
			hidden = secret
		case 1:
			if !utf8.ValidString(secret) {
				return
			}
			hidden = asJSON(t, secret)
		case 2:
			hidden = strconv.Quote(secret)
		case 3:
			hidden = url.QueryEscape(secret)
		case 4:
			hidden = url.PathEscape(secret)
		case 5:
			hidden = base64.StdEncoding.EncodeToString([]byte(secret))
		case 6:
			hidden = base64.RawURLEncoding.EncodeToString([]byte("u:" + secret + ":p"))
		case 7:
			hidden = base64.URLEncoding.EncodeToString([]byte("u" + secret))
		}
		// What stands directly before an escape or a digit may make another one of it.
		text := before + " " + hidden + " " + after
		var clean string
		boundtest.Within(t, func() { clean = bellhop.Scrub(text, []string{secret}) })
		require.Contains(t, clean, "[redacted]")
		//nolint:gocritic // the secret may be a part of the mark
		if form%8 == 0 && !strings.Contains("[redacted]", secret) && !strings.Contains(before+after, secret) {
			require.NotContains(t, clean, secret)
		}
	})
}

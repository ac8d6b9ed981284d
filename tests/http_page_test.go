package tests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"bellhop/bridge/httpapi"
	"bellhop/tests/peers"
)

// httpPage is docs/http.md and the blocks of code in it.
func httpPage(t *testing.T) (page string, blocks []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(peers.Root(), "docs", "http.md"))
	require.NoError(t, err)
	for _, block := range regexp.MustCompile(`(?m)(^ {4}.*\n|^\n)+`).FindAllString(string(text), -1) {
		if block = strings.ReplaceAll(strings.Trim(block, "\n"), "\n    ", "\n"); strings.HasPrefix(block, "    ") {
			blocks = append(blocks, block[4:])
		}
	}
	return string(text), blocks
}

func blockWith(t *testing.T, blocks []string, start string) string {
	t.Helper()
	for _, block := range blocks {
		if strings.HasPrefix(block, start) {
			return block
		}
	}
	t.Fatalf("docs/http.md has no block that begins with %q", start)
	return ""
}

// TestThePageOnHTTP does what docs/http.md says, as it is pasted.
func TestThePageOnHTTP(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"curl", "openssl", "sha256sum"} {
		if _, err := exec.LookPath(tool); err != nil {
			peers.Missing(t, tool+" is not installed")
		}
	}
	b := setup(t)
	_, blocks := httpPage(t)
	shell := func(script string, env ...string) string {
		cmd := exec.CommandContext(b.ctx, "sh", "-euc", script)
		cmd.Env = append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s\n%s", script, out)
		return string(out)
	}
	made := strings.Fields(shell(blockWith(t, blocks, "TOKEN=") + `; printf '\n%s' "$TOKEN"`))
	hash, token := made[0], made[len(made)-1]
	require.Len(t, token, 64)

	example := blockWith(t, blocks, "api:")
	config := regexp.MustCompile(`name: orders, sha256: \w+`).ReplaceAllString(example, "name: orders, sha256: "+hash)
	w := b.work(b.config(strings.Replace(config, "127.0.0.1:9465", "127.0.0.1:0", 1)))

	var said []string
	for _, block := range blocks {
		if strings.Contains(block, "curl ") {
			said = append(said, shell(strings.ReplaceAll(block, "127.0.0.1:9465", w.API), "TOKEN="+token))
		}
	}
	require.Len(t, said, 5)
	require.Contains(t, said[0], "HTTP/1.1 202 Accepted")
	require.Contains(t, said[0], "Operation-Location: /v1/operations/web-1\r\n")
	require.Contains(t, said[1], `"state":"running"`)
	require.Contains(t, said[2], `"state":"succeeded"`)
	b.until("the list has it", func() bool {
		list := strings.ReplaceAll(blockWith(t, blocks, `curl -sS "http://127.0.0.1:9465/v1/operations?`), "127.0.0.1:9465", w.API)
		return strings.Contains(shell(list, "TOKEN="+token), `"operation_id":"web-1"`)
	})
	require.Contains(t, said[4], `{"targets":[]}`)
	require.Contains(t, said[4], `"ENDED"`)
	require.NotContains(t, w.Output(), token)

	c := b.caller(w, token)
	for _, image := range []string{"nginx:1.27", "two words"} {
		c.runStateMachine(blockWith(t, blocks, "{\n  \"StartAt\""), image)
	}
}

// runStateMachine makes the calls of the state machine on the page, whose only tasks are HTTP tasks. What Step Functions
// itself does between them is not what is tried here.
func (c *httpCaller) runStateMachine(definition, image string) {
	c.Helper()
	var machine struct {
		StartAt string
		States  map[string]struct {
			Type, Next string
			Parameters struct {
				Method          string
				ApiEndpoint     string
				Format          string `json:"ApiEndpoint.$"`
				QueryParameters map[string]string
				RequestBody     map[string]any
			}
			Catch []struct{ Next string }
		}
	}
	require.NoError(c, json.Unmarshal([]byte(definition), &machine))
	execution := "execution-" + strings.NewReplacer(":", "-", " ", "-", ".", "-").Replace(image)
	call := func(name string) answer {
		state := machine.States[name]
		endpoint := state.Parameters.ApiEndpoint
		if endpoint == "" {
			endpoint = strings.Replace(strings.Split(state.Parameters.Format, "'")[1], "{}", execution, 1)
		}
		at, err := url.Parse(endpoint)
		require.NoError(c, err)
		query := url.Values{}
		for name, value := range state.Parameters.QueryParameters {
			query.Set(name, value)
		}
		at.RawQuery = query.Encode()
		body := ""
		if state.Parameters.RequestBody != nil {
			text, err := json.Marshal(state.Parameters.RequestBody)
			require.NoError(c, err)
			body = strings.NewReplacer(`"operation_id.$":"$$.Execution.Name"`, fmt.Sprintf(`"operation_id":%q`, execution),
				`"resource.$":"$.resource"`, `"resource":"web"`, `"image.$":"$.image"`, fmt.Sprintf(`"image":%q`, image)).Replace(string(text))
			require.NotContains(c, body, "$")
		}
		got, err := c.try(c.ctx, state.Parameters.Method, at.RequestURI(), body)
		require.NoError(c, err)
		c.promised.check(c.T, state.Parameters.Method, at.RequestURI(), got)
		return got
	}
	first := machine.States[machine.StartAt]
	got := call(machine.StartAt)
	if strings.Contains(image, " ") {
		require.Equal(c, http.StatusUnprocessableEntity, got.code)
		require.Equal(c, "Fail", machine.States[first.Catch[0].Next].Type)
		return
	}
	require.Equal(c, http.StatusAccepted, got.code, string(got.body))
	got = call(first.Next)
	require.Equal(c, http.StatusOK, got.code)
	require.Contains(c, string(got.body), `"state":"succeeded"`)
	require.Contains(c, string(got.body), `"finished_at"`)
}

func TestThePageOnHTTPHasEveryProblem(t *testing.T) {
	page, _ := httpPage(t)
	for code, status := range httpapi.Problems() {
		require.Contains(t, page, fmt.Sprintf("| %d | `%s` |", status, code))
	}
}

package awsclient

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
)

// A large question with a large answer: net/http may be still at the end of the question when the answer is being read.
func TestNoAnswerIsLostToTheEndOfItsQuestion(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIABELLHOPTEST")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	arns := make([]string, 100)
	described := make([]string, len(arns))
	for i := range arns {
		arns[i] = fmt.Sprintf("arn:aws:ecs:eu-central-1:111122223333:task/default/%032x", i)
		described[i] = fmt.Sprintf(`{"taskArn": %q, "stoppedReason": %q}`, arns[i], strings.Repeat("x", 1000))
	}
	answer := `{"tasks": [` + strings.Join(described, ",") + `]}`
	var connections atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		if _, err := io.WriteString(w, answer); err != nil {
			t.Error(err)
		}
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	loaded, err := Load("eu-central-1", 0)
	if err != nil {
		t.Fatal(err)
	}
	loaded.BaseEndpoint = aws.String(server.URL)
	client := ecs.NewFromConfig(loaded)

	const calls = 2000
	for range calls {
		out, err := client.DescribeTasks(t.Context(), &ecs.DescribeTasksInput{Tasks: arns})
		if err != nil || len(out.Tasks) != len(arns) {
			t.Errorf("an answer was lost: %v", err)
		}
	}
	if opened := connections.Load(); opened != 1 {
		t.Errorf("%d calls in a row needed %d connections: some were closed under them", calls, opened)
	}
}

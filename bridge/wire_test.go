package bridge_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"bellhop"
	"bellhop/bridge"
	"bellhop/bridge/restate"
	"bellhop/bridge/stepfunctions"
	"bellhop/bridge/temporal"
	"bellhop/bridge/webhook"
)

var update = flag.Bool("update", false, "write the golden files anew; a change in them is a change of the wire format")

// told is one callback of a case: one of the root package's golden outcomes, to an address.
type told struct {
	outcome  string
	address  string
	failures bellhop.Failures
}

// everyEnd is what callers that can be completed only once are told.
func everyEnd(address string) []told {
	return []told{
		{"provisioned", address, ""},
		{"updated", address, ""},
		{"deleted", address, ""},
		{"failed", address, ""},
		{"cancelled", address, ""},
		{"failed", address, bellhop.AsResult},
		{"failed", address, bellhop.AsError},
	}
}

// everyState is what callers are told that hear of every state alike.
func everyState(address string) []told {
	return append([]told{{"running", address, ""}}, everyEnd(address)[:5]...)
}

// message is what the workflow makes of an outcome.
func message(t *testing.T, name string, failures bellhop.Failures) bridge.Message {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "testdata", "outcome-"+name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var o bellhop.Outcome
	if err := json.Unmarshal(text, &o); err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	reached := o.FinishedAt
	if reached.IsZero() {
		reached = o.StartedAt
	}
	return bridge.Message{ID: o.CallbackID, Event: o.Event, State: o.State, ReachedAt: reached, RequestedAt: o.RequestedAt, Failures: failures, Body: body}
}

// The exact requests that every target makes, by the clients that it makes them with. Somebody parses them.
func TestWireFormat(t *testing.T) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_EC2_METADATA_DISABLED": "true",
	} {
		t.Setenv(name, value)
	}
	folder := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(folder, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	var wire strings.Builder
	url := overHTTP(t, &wire)
	must := func(target bridge.Target, err error) bridge.Target {
		if err != nil {
			t.Fatal(err)
		}
		return target
	}
	keys := write("keys", sharedKey+"\n"+privateKey)
	hook := func(content string) bridge.Target {
		return must(webhook.New(webhook.Config{URL: url + "/hook?shop=1", KeyFile: keys, Content: content, Allow: []string{"127.0.0.0/8"}}))
	}
	ingress := must(restate.New(restate.Config{Ingress: url + "/base", AuthKeyFile: write("auth", "key_1")}))
	aws := must(stepfunctions.New(stepfunctions.Config{Region: "eu-central-1", Endpoint: url}))
	signals := temporal.NewTarget(overGRPC(t, &wire), "shop")
	const awakeable = "sign_1AZIUnsh8k-oBj2Y7gDmuMW3FeCGVLx6rAAAAEQ"
	for name, tc := range map[string]struct {
		target bridge.Target
		told   []told
	}{
		"temporal-workflow": {signals, append(everyState(`{"workflow_id": "order-42"}`),
			told{"provisioned", `{"workflow_id": "order-42", "run_id": "0198-run", "signal": "ready"}`, ""})},
		"temporal-activity-id":    {signals, everyEnd(`{"workflow_id": "order-42", "activity_id": "7"}`)},
		"temporal-activity-token": {signals, everyEnd(`{"task_token": "CgRucy0xEghvcmRlci00MhoIMDE5OC1ydW4gBSgBMgE3"}`)},
		"stepfunctions":           {aws, everyEnd(`{"task_token": "AQCEAAAAKgAAAAMAAAAAAAAAAbellhop"}`)},
		"restate-awakeable":       {ingress, everyEnd(`{"awakeable": "` + awakeable + `"}`)},
		"restate-handler": {ingress, append(everyState(`{"service": "Orders", "handler": "provisioned"}`),
			told{"provisioned", `{"service": "Orders", "handler": "provisioned", "key": "order-42"}`, ""})},
		"webhook-structured": {hook("structured"), everyState("")},
		"webhook-binary":     {hook("binary"), everyState("")},
	} {
		t.Run(name, func(t *testing.T) {
			wire.Reset()
			for _, told := range tc.told {
				fmt.Fprintf(&wire, "=== %s", told.outcome)
				if told.address != "" {
					fmt.Fprintf(&wire, " to %s", told.address)
				}
				if told.failures != "" {
					fmt.Fprintf(&wire, `, "failures": %q`, told.failures)
				}
				wire.WriteString("\n")
				result := tc.target.Deliver(t.Context(), json.RawMessage(told.address), message(t, told.outcome, told.failures))
				if result.Verdict != bridge.Acknowledged && result.Verdict != bridge.Accepted {
					t.Fatalf("%s: %+v", told.outcome, result)
				}
			}
			golden(t, name, wire.String())
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%s; write it with: go test ./bridge -update", err)
	}
	if diff := gocmp.Diff(string(want), got); diff != "" {
		t.Errorf("the wire format has changed (-was +is):\n%s", diff)
	}
}

// passing are headers that say nothing of a callback: they are of the hop, of the client's version, or of the moment.
var passing = []string{
	"Accept-Encoding", "Content-Length", "Amz-Sdk-Invocation-Id", "Amz-Sdk-Request", "X-Amz-Date",
}

// overHTTP is a server that takes everything and writes down what came.
func overHTTP(t *testing.T, wire *strings.Builder) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if strings.HasPrefix(r.Header.Get("User-Agent"), "aws-sdk-go") {
			r.Header.Del("User-Agent") // a version
			r.Header.Set("Authorization", strings.Fields(r.Header.Get("Authorization"))[0]+" …")
		}
		if at := r.Header.Get("Webhook-Timestamp"); at != "" {
			unixNow(t, at)
			r.Header.Set("Webhook-Signature", signatures(t, r.Header, body))
			r.Header.Set("Webhook-Timestamp", "now")
		}
		fmt.Fprintf(wire, "%s %s\n", r.Method, r.URL)
		for _, name := range slices.Sorted(maps.Keys(r.Header)) {
			if !slices.Contains(passing, name) {
				fmt.Fprintf(wire, "%s: %s\n", name, strings.Join(r.Header[name], "; "))
			}
		}
		fmt.Fprintf(wire, "\n%s\n\n", body)
		if strings.HasPrefix(r.Header.Get("X-Amz-Target"), "AWS") {
			w.Header().Set("Content-Type", "application/x-amz-json-1.0")
			_, _ = io.WriteString(w, "{}") //nolint:errcheck // the client hung up
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// Keys, which open nothing.
var (
	shared     = []byte("a shared key of 32 bytes is here")
	private    = ed25519.NewKeyFromSeed([]byte("a seed of ed25519 is 32 bytes..."))
	sharedKey  = "whsec_" + base64.StdEncoding.EncodeToString(shared)
	privateKey = "whsk_" + base64.StdEncoding.EncodeToString(private)
)

func unixNow(t *testing.T, text string) {
	t.Helper()
	var at int64
	if _, err := fmt.Sscanf(text, "%d", &at); err != nil || time.Since(time.Unix(at, 0)).Abs() > time.Minute {
		t.Errorf("the timestamp is %s, %v", text, err)
	}
}

// signatures computes by the letter of Standard Webhooks what must have been sent, and says what it is the signature of.
func signatures(t *testing.T, header http.Header, body []byte) string {
	t.Helper()
	signed := fmt.Appendf(nil, "%s.%s.%s", header.Get("Webhook-Id"), header.Get("Webhook-Timestamp"), body)
	mac := hmac.New(sha256.New, shared)
	mac.Write(signed)
	want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)) +
		" v1a," + base64.StdEncoding.EncodeToString(ed25519.Sign(private, signed))
	if got := header.Get("Webhook-Signature"); got != want {
		t.Errorf("the signature is %s, want %s", got, want)
	}
	return "v1,base64(HMAC-SHA256(id.timestamp.body)) v1a,base64(ed25519(id.timestamp.body))"
}

// overGRPC is the SDK's own client of a Temporal service that takes everything and writes down what came.
func overGRPC(t *testing.T, wire *strings.Builder) workflowservice.WorkflowServiceClient {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	methods := workflowservice.File_temporal_api_workflowservice_v1_service_proto.Services().ByName("WorkflowService").Methods()
	server := grpc.NewServer(grpc.UnaryInterceptor(
		func(_ context.Context, request any, info *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
			name := path.Base(info.FullMethod)
			if sent, ok := request.(proto.Message); ok && name != "GetSystemInfo" {
				fmt.Fprintf(wire, "%s\n%s\n\n", name, readable(t, sent))
			}
			if look, ok := request.(*workflowservice.DescribeWorkflowExecutionRequest); ok {
				return &workflowservice.DescribeWorkflowExecutionResponse{WorkflowExecutionInfo: &workflowpb.WorkflowExecutionInfo{
					Execution: &commonpb.WorkflowExecution{
						WorkflowId: look.GetExecution().GetWorkflowId(), RunId: cmp.Or(look.GetExecution().GetRunId(), "0198-current"),
					},
					Type:   &commonpb.WorkflowType{Name: "Order"},
					Status: enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING,
				}}, nil
			}
			kind, err := protoregistry.GlobalTypes.FindMessageByName(methods.ByName(protoreflect.Name(name)).Output().FullName())
			if err != nil {
				return nil, err
			}
			return kind.New().Interface(), nil
		}))
	workflowservice.RegisterWorkflowServiceServer(server, workflowservice.UnimplementedWorkflowServiceServer{})
	go server.Serve(listener) //nolint:errcheck // it ends with the test
	t.Cleanup(server.Stop)
	c, err := client.Dial(client.Options{HostPort: listener.Addr().String(), Logger: log.NewStructuredLogger(slog.New(slog.DiscardHandler))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c.WorkflowService()
}

// readable writes a request as JSON in which payloads are text.
func readable(t *testing.T, request proto.Message) []byte {
	t.Helper()
	text, err := protojson.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	var open func(value any)
	open = func(value any) {
		switch value := value.(type) {
		case []any:
			for _, element := range value {
				open(element)
			}
		case map[string]any:
			metadata, payload := value["metadata"].(map[string]any)
			for name, member := range value {
				if encoded, ok := member.(string); ok && payload && name == "data" {
					value[name] = decoded(t, encoded)
				}
				open(member)
			}
			for name, member := range metadata {
				metadata[name] = decoded(t, fmt.Sprint(member))
			}
		}
	}
	open(value)
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSpace(out.Bytes())
}

func decoded(t *testing.T, encoded string) string {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

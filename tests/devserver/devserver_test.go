package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nexus-rpc/sdk-go/nexus"
	enumspb "go.temporal.io/api/enums/v1"
	nexuspb "go.temporal.io/api/nexus/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/temporalnexus"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

const (
	// asServer makes the test binary the server: a real process that can be
	// signalled and killed, without a second link of a very large binary.
	asServer = "BELLHOP_DEVSERVER_TEST_AS_SERVER"
	// patience is for a machine that compiles something else at the same time.
	patience  = 90 * time.Second
	taskQueue = "devserver-test"
)

var tenant = temporal.NewSearchAttributeKeyKeyword("BellhopTenant")

func TestMain(m *testing.M) {
	if os.Getenv(asServer) != "" {
		main()
	}
	os.Exit(m.Run())
}

// process is a server in a process of its own.
type process struct {
	cmd    *exec.Cmd
	stdout *bufio.Reader
	stderr *bytes.Buffer

	Address    string
	UI         string
	Namespaces []string
}

// launch starts a server on free ports and waits until it says it is ready.
func launch(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{stderr: new(bytes.Buffer)}
	p.cmd = exec.Command(os.Args[0], append([]string{"--port=0", "--stop-with-parent"}, args...)...)
	p.cmd.Env = append(os.Environ(), asServer+"=1")
	p.cmd.Stderr = p.stderr
	stdout, err := p.cmd.StdoutPipe()
	ok(t, err)
	p.stdout = bufio.NewReader(stdout)
	ok(t, p.cmd.Start())
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		if t.Failed() {
			t.Logf("server's stderr:\n%s", p.stderr)
		}
	})
	began := time.Now()
	line, err := p.stdout.ReadString('\n')
	ok(t, err)
	t.Logf("ready after %s", time.Since(began).Round(time.Millisecond))
	ok(t, json.Unmarshal([]byte(line), p))
	return p
}

// end sends the signal, waits for the end, and returns the exit code (-1 when
// killed) and what the server printed after it was ready.
func (p *process) end(t *testing.T, signal os.Signal) (code int, printed string) {
	t.Helper()
	began := time.Now()
	ok(t, p.cmd.Process.Signal(signal))
	rest, err := io.ReadAll(p.stdout)
	ok(t, err)
	if err := p.cmd.Wait(); err != nil && p.cmd.ProcessState == nil {
		t.Fatal(err)
	}
	t.Logf("ended after %s", time.Since(began).Round(time.Millisecond))
	return p.cmd.ProcessState.ExitCode(), string(rest) + p.stderr.String()
}

func (p *process) dial(t *testing.T, namespace string) client.Client {
	t.Helper()
	c, err := client.Dial(client.Options{HostPort: p.Address, Namespace: namespace, Logger: sdklog.NewStructuredLogger(discard)})
	ok(t, err)
	t.Cleanup(c.Close)
	return c
}

func TestWorkflowRuns(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	p := launch(t, "--namespace=one", "--namespace=two", "--search-attribute=OrderNumber=Int")
	if got := strings.Join(p.Namespaces, " "); got != "one two" {
		t.Errorf("namespaces %q", got)
	}
	order := temporal.NewSearchAttributeKeyInt64("OrderNumber")
	for _, namespace := range p.Namespaces {
		c := p.dial(t, namespace)
		work(t, c)
		run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
			ID: "greet", TaskQueue: taskQueue,
			TypedSearchAttributes: temporal.NewSearchAttributes(
				tenant.ValueSet("acme"),
				temporal.NewSearchAttributeKeyKeyword("BellhopResource").ValueSet("web"),
				temporal.NewSearchAttributeKeyKeyword("BellhopProvider").ValueSet("docker"),
				temporal.NewSearchAttributeKeyKeyword("BellhopState").ValueSet("pending"),
				order.ValueSet(42)),
			Priority: temporal.Priority{FairnessKey: "acme"},
		}, greet, "bellhop")
		ok(t, err)
		var greeting string
		ok(t, run.Get(ctx, &greeting))
		if greeting != "hello bellhop" {
			t.Errorf("workflow returned %q", greeting)
		}
		awaitListed(t, c, `BellhopTenant="acme" AND OrderNumber=42`)
	}

	resp, err := http.Get(p.UI)
	ok(t, err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("UI answers %s", resp.Status)
	}

	// Workers still poll here: a stop must not wait for their long polls.
	if code, printed := p.end(t, syscall.SIGTERM); code != 0 || printed != "" {
		t.Errorf("exit code %d, printed %q", code, printed)
	}
}

func TestOpenWorkflowSurvivesKill(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	db := filepath.Join(t.TempDir(), "what? 100%.db") // characters that mean something in a URI
	p := launch(t, "--headless", "--db", db)
	if p.UI != "" {
		t.Errorf("headless, yet a UI on %s", p.UI)
	}
	c := p.dial(t, "default")
	w := work(t, c)
	_, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: "waiting", TaskQueue: taskQueue,
		TypedSearchAttributes: temporal.NewSearchAttributes(tenant.ValueSet("acme")),
	}, await)
	ok(t, err)
	awaitListed(t, c, `BellhopTenant="acme" AND ExecutionStatus="Running"`)

	// Somebody else must not write to the file meanwhile.
	refuses(t, "locked", "--port=0", "--headless", "--db", db)

	w.Stop()
	c.Close()
	p.end(t, syscall.SIGKILL)

	// An earlier run's namespace gets the new search attribute, too.
	p = launch(t, "--headless", "--db", db, "--namespace=default", "--namespace=new", "--search-attribute=OrderNumber=Int")
	c = p.dial(t, "default")
	awaitListed(t, c, `BellhopTenant="acme" AND ExecutionStatus="Running"`)
	work(t, c)
	ok(t, c.SignalWorkflow(ctx, "waiting", "", "go", "home"))
	var said string
	ok(t, c.GetWorkflow(ctx, "waiting", "").Get(ctx, &said))
	if said != "home" {
		t.Errorf("workflow returned %q", said)
	}
	for _, namespace := range p.Namespaces {
		_, err := p.dial(t, namespace).ExecuteWorkflow(ctx, client.StartWorkflowOptions{
			ID: "ordered", TaskQueue: taskQueue,
			TypedSearchAttributes: temporal.NewSearchAttributes(temporal.NewSearchAttributeKeyInt64("OrderNumber").ValueSet(1)),
		}, await)
		ok(t, err)
	}
	if code, printed := p.end(t, syscall.SIGINT); code != 0 || printed != "" {
		t.Errorf("exit code %d, printed %q", code, printed)
	}
	// After a clean stop the file alone is everything, so nothing is left in its log.
	if wal, err := os.Stat(db + "-wal"); !errors.Is(err, os.ErrNotExist) && (err != nil || wal.Size() > 0) {
		t.Errorf("the write-ahead log still holds something after a clean stop: %+v, %v", wal, err)
	}
	refuses(t, "OrderNumber", "--port=0", "--headless", "--db", db, "--search-attribute=OrderNumber=Text")
}

// The server's defaults are made for clusters; see dynamicconfig.go.
func TestAdaptedToOneMachine(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	p := launch(t, "--headless")
	c := p.dial(t, "default")
	work(t, c)

	t.Run("short timers are short", func(t *testing.T) {
		began := time.Now()
		run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: "naps", TaskQueue: taskQueue}, naps, 20)
		ok(t, err)
		ok(t, run.Get(ctx, nil))
		// By default each nap takes a second.
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("20 naps of 10 ms took %s", took)
		}
	})

	t.Run("a new search attribute is usable at once", func(t *testing.T) {
		for i := range 5 {
			name := "Colour" + string(rune('A'+i))
			_, err := c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
				Namespace:        "default",
				SearchAttributes: map[string]enumspb.IndexedValueType{name: enumspb.INDEXED_VALUE_TYPE_KEYWORD},
			})
			ok(t, err)
			_, err = c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
				ID: name, TaskQueue: taskQueue,
				TypedSearchAttributes: temporal.NewSearchAttributes(temporal.NewSearchAttributeKeyKeyword(name).ValueSet("red")),
			}, greet, "red")
			ok(t, err)
		}
	})

	t.Run("listing is not throttled", func(t *testing.T) {
		for range 50 {
			_, err := c.WorkflowService().ListWorkflowExecutions(ctx, &workflowservice.ListWorkflowExecutionsRequest{Namespace: "default"})
			ok(t, err)
		}
	})

	t.Run("tenants are served in turn", func(t *testing.T) {
		const queue, backlog = "fairness", 60
		start := func(tenant string, n int) {
			_, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
				ID: fmt.Sprint(tenant, n), TaskQueue: queue, Priority: temporal.Priority{FairnessKey: tenant},
			}, arrive, tenant)
			ok(t, err)
		}
		for n := range backlog {
			start("busy", n)
		}
		start("late", 0)
		w := worker.New(c, queue, worker.Options{MaxConcurrentWorkflowTaskExecutionSize: 2, MaxConcurrentWorkflowTaskPollers: 2})
		w.RegisterWorkflow(arrive)
		ok(t, w.Start())
		defer w.Stop()
		for before := 0; ; before++ {
			select {
			case who := <-arrivals:
				if who == "late" {
					return
				}
			case <-ctx.Done():
				t.Fatalf("nothing begins after %d workflows", before)
			}
			if before == backlog/2 {
				t.Fatalf("a tenant with one workflow waits behind %d of another's", before)
			}
		}
	})

	t.Run("Nexus calls back", func(t *testing.T) {
		_, err := c.OperatorService().CreateNexusEndpoint(ctx, &operatorservice.CreateNexusEndpointRequest{Spec: &nexuspb.EndpointSpec{
			Name: endpoint,
			Target: &nexuspb.EndpointTarget{Variant: &nexuspb.EndpointTarget_Worker_{
				Worker: &nexuspb.EndpointTarget_Worker{Namespace: "default", TaskQueue: taskQueue},
			}},
		}})
		ok(t, err)
		run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: "abroad", TaskQueue: taskQueue}, greetAbroad, "nexus")
		ok(t, err)
		var greeting string
		ok(t, run.Get(ctx, &greeting))
		if greeting != "hello nexus" {
			t.Errorf("workflow returned %q", greeting)
		}
	})
}

func TestStopsWithItsParent(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	ok(t, err)
	parent := exec.Command("sh", "-c", `"$0" "$@" & wait`, os.Args[0], "--port=0", "--headless", "--stop-with-parent")
	parent.Env = append(os.Environ(), asServer+"=1")
	parent.Stdout = w
	ok(t, parent.Start())
	ok(t, w.Close())
	out := bufio.NewReader(r)
	line, err := out.ReadString('\n')
	ok(t, err)
	var p process
	ok(t, json.Unmarshal([]byte(line), &p))

	ok(t, parent.Process.Kill())
	_ = parent.Wait()
	// The orphan holds the other end of the pipe until it ends.
	ok(t, r.SetReadDeadline(time.Now().Add(patience)))
	if _, err := out.ReadString('\n'); !errors.Is(err, io.EOF) {
		t.Errorf("the server outlived its parent: %v", err)
	}
	if conn, err := net.Dial("tcp", p.Address); err == nil {
		conn.Close()
		t.Errorf("somebody still listens on %s", p.Address)
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", address(0))
	ok(t, err)
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	ok(t, err)
	refuses(t, port+" is in use", "--port="+port, "--headless")
	refuses(t, port+" is in use", "--port=0", "--ui-port="+port)
}

func TestForeignFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "diary.txt")
	ok(t, os.WriteFile(file, []byte(strings.Repeat("Dear diary, ", 1000)), 0o600))
	refuses(t, "not a database", "--port=0", "--headless", "--db", file)
}

// refuses expects the server not to start, for the reason.
func refuses(t *testing.T, reason string, args ...string) {
	t.Helper()
	var stderr bytes.Buffer
	if code := run(patient(t), args, io.Discard, &stderr); code != 1 || !strings.Contains(stderr.String(), reason) {
		t.Errorf("%q: exit code %d, %q", args, code, &stderr)
	}
}

// work runs a worker until the test ends.
func work(t *testing.T, c client.Client) worker.Worker {
	t.Helper()
	w := worker.New(c, taskQueue, worker.Options{})
	w.RegisterWorkflow(greet)
	w.RegisterWorkflow(await)
	w.RegisterWorkflow(naps)
	w.RegisterWorkflow(greetAbroad)
	w.RegisterActivity(hello)
	service := nexus.NewService("greeter")
	ok(t, service.Register(abroad))
	w.RegisterNexusService(service)
	ok(t, w.Start())
	t.Cleanup(w.Stop)
	return w
}

func hello(_ context.Context, name string) (string, error) { return "hello " + name, nil }

func greet(ctx workflow.Context, name string) (greeting string, err error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute})
	err = workflow.ExecuteActivity(ctx, hello, name).Get(ctx, &greeting)
	return greeting, err
}

// arrivals tells, in order, whose workflows a worker began.
var arrivals = make(chan string, 1000)

func arrive(_ workflow.Context, tenant string) error {
	arrivals <- tenant
	return nil
}

func await(ctx workflow.Context) (word string, err error) {
	workflow.GetSignalChannel(ctx, "go").Receive(ctx, &word)
	return word, nil
}

func naps(ctx workflow.Context, n int) error {
	for range n {
		if err := workflow.Sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

const endpoint = "devserver-test-endpoint"

var abroad = temporalnexus.NewWorkflowRunOperation("greet", greet,
	func(_ context.Context, _ string, o nexus.StartOperationOptions) (client.StartWorkflowOptions, error) {
		return client.StartWorkflowOptions{ID: "abroad-" + o.RequestID}, nil
	})

func greetAbroad(ctx workflow.Context, name string) (greeting string, err error) {
	c := workflow.NewNexusClient(endpoint, "greeter")
	err = c.ExecuteOperation(ctx, abroad, name, workflow.NexusOperationOptions{}).Get(ctx, &greeting)
	return greeting, err
}

// awaitListed waits until the query finds exactly one workflow: the list
// follows the workflows with some milliseconds' delay.
func awaitListed(t *testing.T, c client.Client, query string) {
	t.Helper()
	ctx := patient(t)
	ok(t, poll(ctx, func() error {
		found, err := c.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Query: query})
		if err != nil {
			return fmt.Errorf("list %s: %w", query, err)
		}
		if n := found.GetCount(); n != 1 {
			return fmt.Errorf("list %s: found %d", query, n)
		}
		return nil
	}))
}

// patient ends when the test does, or when it hangs.
func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

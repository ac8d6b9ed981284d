package attacks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.temporal.io/sdk/client"

	"bellhop"
	"bellhop/tests/peers"
)

// Bounds on what one request may cost a worker. What is promised is less, 64 MiB and 200 ms: a garbage collector takes as
// much again, and an accepted operation is read more than once.
const (
	maxMemory = 160 << 20
	maxCPU    = time.Second
	// atMost is where an attack is broken off: the worker is killed, as the kernel would do it to a container of that size.
	atMost = 768 << 20
	// idle is what a worker may have at the beginning, for what comes on top to be seen.
	idle = 200 << 20
)

// rough is a worker of its own for attacks that may kill it.
func (h *harness) rough() *peers.Worker {
	h.Helper()
	return h.fleet("rough", "nexus: {}\n"+api(""))
}

// fleet is a worker with a task queue, a platform and a name of its own, which is started when it is first needed, or when
// the one before it died.
func (h *harness) fleet(name, more string, env ...string) *peers.Worker {
	h.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if w := h.fleets[name]; w != nil {
		select {
		case <-w.Done():
		default:
			if h.small(w) || name != "rough" {
				return w
			}
			w.Kill()
		}
	}
	h.fleets[name] = h.work(h.fleetConfig(name)+more, env...)
	return h.fleets[name]
}

func (h *harness) fleetConfig(name string) string {
	h.Helper()
	return fmt.Sprintf("task_queue: %s\nproviders:\n  simulated: {type: simulated, path: %s}\nbackstop: {first: 1h, max: 1h}\n",
		name, filepath.Join(h.folder, name+".db")) + h.optional(tenants)
}

// small says whether a worker has no more memory than it needs.
func (h *harness) small(w *peers.Worker) bool {
	return memoryOf(w, "VmRSS") < idle
}

// memoryOf is a figure of a process's memory, 0 when it is not known.
func memoryOf(w *peers.Worker, field string) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.PID()))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), field+":")
	var n int64
	_, _ = fmt.Sscan(rest, &n) //nolint:errcheck // 0 then
	return n << 10
}

// cost is what a process spent on something.
type cost struct {
	memory int64
	cpu    time.Duration
}

func (c cost) String() string {
	return fmt.Sprintf("%d MiB and %s of CPU", c.memory>>20, c.cpu.Round(10*time.Millisecond))
}

// tooMuch says whether one request may cost that.
func (c cost) tooMuch() bool { return c.memory > maxMemory || c.cpu > maxCPU }

// measure says by how much a worker's memory peaked while something was done to it, and how much CPU it took.
func (h *harness) measure(w *peers.Worker, do func()) cost {
	h.Helper()
	if runtime.GOOS != "linux" {
		h.Skip("a process's memory is measured on Linux only")
	}
	proc := fmt.Sprintf("/proc/%d/", w.PID())
	memory := func(field string) int64 { return memoryOf(w, field) }
	cpu := func() time.Duration {
		text, err := os.ReadFile(proc + "stat")
		if err != nil {
			return 0
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		ticks := 0
		for _, field := range fields[11:13] {
			n, _ := strconv.Atoi(field) //nolint:errcheck // the kernel writes numbers
			ticks += n
		}
		return time.Duration(ticks) * 10 * time.Millisecond
	}
	_ = os.WriteFile(proc+"clear_refs", []byte("5"), 0o200) // resets the peak; where it cannot, the peak is still one
	before, began := memory("VmRSS"), cpu()
	done, over := make(chan struct{}), make(chan cost)
	go func() {
		var last cost
		for {
			select {
			case <-done:
				over <- last
				return
			case <-time.After(5 * time.Millisecond):
				last.memory = max(last.memory, memory("VmHWM")-before)
				last.cpu = max(last.cpu, cpu()-began)
				if last.memory > atMost {
					w.Kill()
				}
			}
		}
	}()
	do()
	close(done)
	return <-over
}

// deep is JSON nested so many levels, with keys of a length.
func deep(levels, key int) string {
	open := `{"` + strings.Repeat("k", key) + `":`
	return strings.Repeat(open, levels) + "1" + strings.Repeat("}", levels)
}

func deepList(levels int) string { return strings.Repeat("[", levels) + strings.Repeat("]", levels) }

// wide is an object with so many members.
func wide(n int, member func(i int) string) string {
	members := make([]string, n)
	for i := range members {
		members[i] = member(i)
	}
	return "{" + strings.Join(members, ",") + "}"
}

// fields are an operation of the rival's with fields in JSON added or replaced.
func fields(id, tenant string, more map[string]string) string {
	all := map[string]json.RawMessage{}
	if err := json.Unmarshal([]byte(order(id, tenant, `{}`, "")), &all); err != nil {
		panic(err)
	}
	text := "{"
	for name, value := range all {
		if more[name] == "" {
			text += fmt.Sprintf("%q:%s,", name, value)
		}
	}
	for name, value := range more {
		text += fmt.Sprintf("%q:%s,", name, value)
	}
	return strings.TrimSuffix(text, ",") + "}"
}

// costly sends a body to the API and, when it was accepted, waits a while for the operation to end. It succeeds when that
// costs the worker too much, or kills it, or takes the victim's requests down with it.
func costly(body func(id string) string) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		w := h.rough()
		id := h.id("rival")
		text := body(id)
		var got answer
		var err error
		spent := h.measure(w, func() {
			got, err = ask(h.ctx, w, rival, "POST", "/v1/operations", text)
			if err == nil && got.code == http.StatusAccepted {
				h.within(15*time.Second, func() bool {
					status, err := ask(h.ctx, w, rival, "GET", "/v1/operations/"+id+"?refresh=false", "")
					return err != nil || status.status().State.Terminal()
				})
			}
		})
		h.forget(id)
		return h.judge(w, spent, len(got.body), fmt.Sprintf("%d bytes cost %s; answered %v %s", len(text), spent, err, cut(got.String(), 120)))
	}
}

// judge says whether a worker has survived something well.
func (h *harness) judge(w *peers.Worker, spent cost, answered int, how string) (bool, string) {
	h.Helper()
	select {
	case <-w.Done():
		return true, "the worker was killed: " + how
	default:
	}
	id := h.id("victim")
	began := time.Now()
	got, err := ask(h.ctx, w, victim, "POST", "/v1/operations", order(id, "victim", `{}`, ""))
	if err != nil || got.code != http.StatusAccepted || time.Since(began) > 20*time.Second {
		return true, fmt.Sprintf("the victim is not served any more (%v, %s, %s): %s", err, got, time.Since(began), how)
	}
	return spent.tooMuch() || answered > 1<<20, how
}

// forget terminates an operation that would go on costing.
func (h *harness) forget(id string) {
	_ = h.client.TerminateWorkflow(h.ctx, id, "", "the attack is over") //nolint:errcheck // it may never have been started
}

// costlyWorkflow starts an operation as a workflow, as the temporal CLI does, where nothing checks it first.
func costlyWorkflow(told bool, body func(id string) string) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		w := h.rough()
		id := h.id("rival")
		k := h.hook(0)
		k.unlock()
		var status bellhop.Status
		ended := false
		spent := h.measure(w, func() {
			_, err := h.client.ExecuteWorkflow(h.ctx, client.StartWorkflowOptions{ID: id, TaskQueue: "rough"}, "ProvisionCompute", rawOrder(body(id)))
			if err != nil { // the server refuses it
				ended = true
				return
			}
			ended = h.within(25*time.Second, func() bool {
				got, err := ask(h.ctx, w, operator, "GET", "/v1/operations/"+id+"?refresh=false", "")
				status = got.status()
				return err != nil || status.State.Terminal()
			})
		})
		h.forget(id)
		how := fmt.Sprintf("it cost %s and is %q", spent, status.State)
		if !ended && told {
			return true, "the operation never ends, and nobody is told: " + how
		}
		return h.judge(w, spent, 0, how)
	}
}

func inputAttacks() []attack {
	kills := "one request kills every worker"
	list := []attack{
		{name: "env-bad-names-workflow", finding: "M7", reason: "an operation that nobody is ever told of", alone: true, run: costlyWorkflow(true, func(id string) string {
			return fields(id, "rival", map[string]string{"spec": `{"image": "i", "env": ` + wide(20000, func(i int) string { return fmt.Sprintf(`"%d-":""`, i) }) + `}`})
		})},
		{name: "nested-workflow-1MB", finding: "C2", reason: kills, alone: true, run: costlyWorkflow(false, func(id string) string {
			return fields(id, "rival", map[string]string{"provider_config": deep(9900, 50)})
		})},
		{name: "nested-workflow-address", finding: "C2", reason: kills, alone: true, run: costlyWorkflow(false, func(id string) string {
			return fields(id, "rival", map[string]string{"callbacks": `[{"target": "temporal", "address": ` + deep(9900, 20) + `}]`})
		})},
	}
	for _, in := range []struct {
		name, finding string
		body          func(id string) string
	}{
		{"nested-objects", "C2", field("provider_config", deep(9990, 21))},
		{"nested-objects-halfway", "C2", field("provider_config", deep(4000, 60))},
		{"nested-lists", "C2", field("provider_config", `{"x":`+deepList(9900)+`}`)},
		{"nested-unicode-keys", "C2", field("provider_config", strings.Repeat(`{"\u212a\u212a\u212a":`, 9000)+"1"+strings.Repeat("}", 9000))},
		{"nested-address", "C2", field("callbacks", `[{"target": "temporal", "address": `+deep(9900, 20)+`}]`)},
		{"nested-unknown-field", "C2", field("x", deep(9900, 20))},
		{"nested-metadata", "C2", field("metadata", deep(9900, 20))},
		{"nested-id", "C2", func(string) string { return fields("x", "rival", map[string]string{"operation_id": deep(9900, 20)}) }},
		{"nested-torn", "C2", field("provider_config", strings.Repeat(`{"kkkkkkkkkkkkkkkkkkkk":`, 9900))},
		{"wide-unknown-fields", "M7", field("spec", wide(20000, func(i int) string { return fmt.Sprintf(`"f%d":0`, i) }))},
		{"wide-duplicate-keys", "M7", field("spec", wide(30000, func(int) string { return `"a":0` }))},
		{"wide-env", "M7", field("spec", `{"image": "i", "env": `+wide(20000, func(i int) string { return fmt.Sprintf(`"%d-":""`, i) })+`}`)},
		{"wide-secrets", "M7", field("spec", `{"image": "i", "secrets": `+wide(20000, func(i int) string { return fmt.Sprintf(`"%d-":""`, i) })+`}`)},
		{"wide-ports", "M7", field("spec", `{"image": "i", "ports": [`+strings.TrimSuffix(strings.Repeat(`{},`, 80000), ",")+`]}`)},
		{"wide-nulls", "M7", field("spec", `{"image": "i", "command": [`+strings.TrimSuffix(strings.Repeat(`null,`, 50000), ",")+`]}`)},
		{"wide-states", "M7", field("callbacks", `[{"target": "temporal", "address": {"workflow_id": "x"}, "states": [`+strings.TrimSuffix(strings.Repeat(`"failed",`, 28000), ",")+`]}]`)},
		{"wide-states-unknown", "M7", field("callbacks", `[{"target": "temporal", "address": {"workflow_id": "x"}, "states": [`+
			strings.TrimSuffix(strings.Repeat(`"x",`, 60000), ",")+`]}]`)},
		{"wide-callbacks", "M7", field("callbacks", `[`+strings.TrimSuffix(strings.Repeat(`{},`, 80000), ",")+`]`)},
		{"wide-provider-config", "M7", field("provider_config", wide(20000, func(i int) string { return fmt.Sprintf(`"f%d":0`, i) }))},
		{"wide-address", "M7", field("callbacks", `[{"target": "temporal", "address": `+wide(20000, func(i int) string { return fmt.Sprintf(`"f%d":0`, i) })+`}]`)},
		{"huge-number", "C2", field("spec", `{"image": "i", "replicas": 1e999999999, "cpu_millis": `+strings.Repeat("9", 200000)+`}`)},
		{"huge-exponent", "C2", field("spec", `{"image": "i", "replicas": 1E+308, "memory_mib": -0.000000e-999999999}`)},
		{"huge-replicas", "C2", field("spec", `{"image": "i", "replicas": 9223372036854775807, "memory_mib": 9223372036854775807}`)},
		{"huge-names", "C2", func(id string) string {
			long := `"` + strings.Repeat("n", 60000) + `"`
			return fields(id, "rival", map[string]string{"tenant_id": long, "resource": long, "provider": long})
		}},
		{"huge-duration", "C2", field("timeout", `"9999999999999999999999999999h"`)},
		{"huge-body", "C2", func(id string) string { return fields(id, "rival", map[string]string{"x": deep(9900, 400)}) }},
	} {
		list = append(list, attack{name: in.name, finding: in.finding, reason: kills, alone: true, run: costly(in.body)})
	}
	return append(list, []attack{
		{name: "yaml-bomb", finding: "C2", reason: "the operator's command line is killed", alone: true, run: commandLine(yamlBomb())},
		{name: "yaml-nested", finding: "C2", reason: "the operator's command line is killed", alone: true, run: commandLine("provider_config: " + strings.Repeat("{a: ", 9000) + "1" + strings.Repeat("}", 9000))},
		{name: "yaml-huge", finding: "C2", reason: "the operator's command line is killed", alone: true, run: commandLine("metadata: {x: '" + strings.Repeat("x", 40<<20) + "'}")},

		{name: "outcome-ports", finding: "H4", reason: "what succeeded is told as failed, and nobody is called back", run: blowsUp(func() string {
			var ports []string
			for i := range 4500 {
				ports = append(ports, fmt.Sprintf(`{"container_port": %d}`, i+1))
			}
			return `{"image": "i", "ports": [` + strings.Join(ports, ",") + `]}`
		}, `{}`, "")},
		{name: "outcome-ports-times-replicas", finding: "H4", reason: "what succeeded is told as failed, and nobody is called back", run: blowsUp(func() string {
			var ports []string
			for i := range 60 {
				ports = append(ports, fmt.Sprintf(`{"name": "p-%026d-x", "container_port": %d}`, i, i+1))
			}
			return `{"image": "i", "replicas": 1000, "ports": [` + strings.Join(ports, ",") + `]}`
		}, `{}`, "")},
		{name: "outcome-message", finding: "H4", reason: "what failed is told by nobody", run: blowsUp(func() string { return `{"image": "i"}` },
			`{"fail": {"code": "CONTAINER_EXITED", "message": "`+strings.Repeat("x", 200000)+`"}}`, "")},
		{name: "outcome-metadata", finding: "H4", reason: "what succeeded is told as failed, and nobody is called back", run: blowsUp(func() string { return `{"image": "i"}` },
			`{}`, `"metadata": {"x": "`+strings.Repeat(`\u0001`, 16000)+`"}`)},
		{name: "outcome-env", finding: "H4", reason: "what was accepted is told by nobody", run: blowsUp(func() string {
			return `{"image": "i", "env": {"X": "` + strings.Repeat("x", 250000) + `"}}`
		}, `{}`, "")},
	}...)
}

func field(name, value string) func(id string) string {
	return func(id string) string { return fields(id, "rival", map[string]string{name: value}) }
}

// yamlBomb is nine levels of nine aliases.
func yamlBomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 9; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9), ","))
	}
	return b.String() + "metadata: *a8\n"
}

// commandLine gives the command line a file that it was handed by a tenant.
func commandLine(text string) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		began := time.Now()
		said, code, state := h.command(text, "bellhop", "validate", "-f", "-")
		usage, ok := state.SysUsage().(*syscall.Rusage)
		if !ok {
			h.Skip("what a process used is not known here")
		}
		memory, cpu := usage.Maxrss>>10, state.UserTime()+state.SystemTime()
		return memory > 400 || cpu > 5*time.Second || code == -1, fmt.Sprintf("%d MiB, %s of CPU, %s, exit code %d: %s", memory, cpu, time.Since(began).Round(time.Millisecond), code, cut(said, 150))
	}
}

// blowsUp has one of a tenant's own operations end with an outcome that may be too large for its 16 callbacks.
func blowsUp(spec func() string, script, more string) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		caller := h.caller("waits") // it reads no signal; Temporal keeps them
		id := h.id("rival")
		var callbacks []string
		for i := range 16 {
			callbacks = append(callbacks, callback("temporal", fmt.Sprintf(`{"workflow_id": %q, "signal": "s-%d"}`, caller, i), ""))
		}
		given := map[string]string{"spec": spec(), "provider_config": script, "callbacks": "[" + strings.Join(callbacks, ",") + "]"}
		body := fields(id, "rival", given)
		if more != "" {
			body = strings.TrimSuffix(body, "}") + ", " + more + "}"
		}
		got := h.as(rival, "POST", "/v1/operations", body)
		if got.code != http.StatusAccepted {
			return false, "it is refused: " + cut(got.String(), 200)
		}
		var status bellhop.Status
		settled := func() bool {
			status = h.status(id)
			for _, receipt := range status.Callbacks {
				if receipt.State != bellhop.ReceiptAcknowledged {
					return false
				}
			}
			return status.State.Terminal()
		}
		if !h.within(40*time.Second, settled) {
			return true, fmt.Sprintf("the operation is %s: %v; its first callback: %+v", status.State, status.Error, status.Callbacks[0])
		}
		return false, fmt.Sprintf("it is %s, and all of its 16 callbacks arrived", status.State)
	}
}

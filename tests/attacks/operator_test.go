package attacks

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"bellhop"
	"bellhop/tests/peers"
)

// operatorAttacks are those that the operator notices: slots that are starved, metrics that are made up, lists that are
// never answered, and configurations that lose what was accepted.
func operatorAttacks() []attack {
	return []attack{
		{name: "slots-ask", finding: "H1", reason: "nobody's compute is asked for while one tenant's asks take their time", run: starves("ask"), alone: true},
		{name: "slots-delivery", finding: "H1", reason: "nobody's callback is delivered while one tenant's asks take their time", run: starves("delivery"), alone: true},
		{name: "slots-heartbeat", finding: "H1", reason: "callers time out while one tenant's asks take their time", run: starves("heartbeat"), alone: true},
		{name: "slots-look", finding: "H1", reason: "nobody's poll reflects the present while one tenant's asks take their time", run: starves("look"), alone: true},
		{name: "waits", finding: "M8", reason: "nobody else may wait for an operation", run: waitsForAll, alone: true},
		{name: "open-operations", finding: "M8", reason: "one tenant has as much as it likes", run: opens(false), alone: true},
		{name: "open-operations-at-once", finding: "M8", reason: "one tenant has as much as it likes", run: opens(true), alone: true},
		{name: "requests-at-once", finding: "M8", reason: "one tenant's requests keep others' waiting", run: requests, alone: true},

		{name: "metrics-of-targets", finding: "M1", reason: "series are invented, and alerts go blind", run: invents("target", func(h *harness) {
			var callbacks []string
			for i := range 16 {
				callbacks = append(callbacks, callback(fmt.Sprintf("invented-target-%d", i), `{"workflow_id": "x"}`, ""))
			}
			h.strike(`{}`, callbacks...)
		})},
		{name: "metrics-of-heartbeats", finding: "M1", reason: "series are invented, and alerts go blind", run: invents("beat", func(h *harness) {
			h.strike(`{"ready_after": "3s"}`, callback("invented-beat", `{"workflow_id": "x", "activity_id": "y"}`, `"heartbeat": "1s"`))
		})},
		{name: "metrics-of-providers", finding: "M1", reason: "series are invented, and alerts go blind", run: invents("provider", func(h *harness) {
			id := h.id("rival")
			got := h.as(rival, "POST", "/v1/operations", fields(id, "rival", map[string]string{"provider": `"invented-provider"`, "timeout": `"5s"`}))
			if got.code == http.StatusAccepted {
				h.ended(id)
			}
		})},
		{name: "metrics-of-workflows", finding: "M1", reason: "series are invented, and alerts go blind", run: invents("directly", func(h *harness) {
			id := h.id("rival")
			_, err := h.client.ExecuteWorkflow(h.ctx, client.StartWorkflowOptions{ID: id, TaskQueue: "bellhop"}, "ProvisionCompute",
				rawOrder(fields(id, "rival", map[string]string{"provider": `"invented-directly"`, "timeout": `"5s"`, "callbacks": `[{"target": "invented-directly", "address": {"workflow_id": "x"}}]`})))
			h.must(err)
			h.ended(id)
			h.within(notice, func() bool { return h.status(id).Callbacks[0].State.Settled() })
		})},
		{name: "metrics-of-methods", finding: "M1", reason: "series are invented, and alerts go blind", run: invents("path", func(h *harness) {
			h.as(rival, "INVENTED", "/v1/operations/invented-path", "")
			h.as(rival, "GET", "/invented-path/x", "")
			h.as(rival, "INVENTED", "/invented-path/y", "")
		})},

		{name: "id-used-again", finding: "M4", reason: "the second callback under an id is dropped and called acknowledged", run: usedAgain(0)},
		{name: "id-used-again-by-activity", finding: "M4", reason: "a callback of another run is called acknowledged", run: usedAgain(1)},
		{name: "undelivered-list", finding: "M9", reason: "the operator's list of what was not delivered is never answered", run: undelivered, alone: true},
		{name: "profile-without-namespace", finding: "H3", reason: "every callback is given up at its first attempt", run: withoutNamespace},
		{name: "dial-refused", finding: "L1", reason: "a callback that was never sent is called presumed", run: neverSent},
		{name: "new-provider-rolling", finding: "L3", reason: "an operation fails for good while a configuration is rolled out", run: rolling(
			"  fresh: {type: simulated, path: %s}\n", "", `"provider": "fresh"`)},
		{name: "new-target-rolling", finding: "L3", reason: "a callback is lost while a configuration is rolled out", run: rolling(
			"", "targets:\n  temporal: {type: temporal}\n  fresh: {type: temporal}\n", `"callbacks": [{"target": "fresh", "address": {"workflow_id": "%s"}}]`)},
		{name: "tls-handshakes", finding: "L5", reason: "work for whoever connects: no session is resumed", run: handshakes},
		{name: "readable-webhook-key", finding: "L6", reason: "whoever is on the machine signs as bellhop", run: readable(
			"targets: {hook: {type: webhook, url: 'https://example.com/', key_file: %s}}\n", "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")},
		{name: "readable-restate-key", finding: "L6", reason: "whoever is on the machine speaks as bellhop", run: readable(
			"targets: {restate: {type: restate, ingress: 'http://127.0.0.1:1', auth_key_file: %s}}\n", "key-of-restate")},
		{name: "readable-metrics-token", finding: "L6", reason: "whoever is on the machine reads the metrics", run: readable("metrics_token_file: %s\n", "token-of-metrics")},
		{name: "token-taken-away", finding: "M10", reason: "a leaked token is good until every worker was restarted", run: takenAway},
		{name: "secrets-in-errors", finding: "M6", reason: "a token is repeated to whoever mistypes", run: repeatsTokens},
	}
}

// H1: 40 operations whose asks take ten minutes, at a worker with few places.

var crowded sync.Map // by fleet, whether its asks are under way

func starves(what string) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		config := strings.Replace(h.fleetConfig("slow"), "asks: 100", "asks: 4", 1) +
			"limits: {activities: 24}\n" + fmt.Sprintf("targets:\n  temporal: {type: temporal}\n  hook: {type: webhook, url: '%s/%d', key_file: %s, allow: [127.0.0.0/8]}\n",
			h.receiver.URL, hookTargets-1, h.keys) + api("")
		h.mu.Lock()
		w := h.fleets["slow"]
		if w == nil {
			w = h.work(config)
			h.fleets["slow"] = w
		}
		h.mu.Unlock()
		k := h.receiver.hooks[fmt.Sprintf("/%d", hookTargets-1)]
		k.unlock()
		// What runs before the crowd comes.
		running := h.id("victim")
		h.must(started(ask(h.ctx, w, victim, "POST", "/v1/operations", order(running, "victim", `{"ready_after": "1h"}`, ""))))
		if _, before := crowded.LoadOrStore("slow", true); !before {
			h.until("it runs", func() bool {
				return h.at(w, victim, "GET", "/v1/operations/"+running+"?refresh=false", "").status().State == bellhop.Running
			})
			for range 40 {
				id := h.id("rival")
				h.must(started(ask(h.ctx, w, rival, "POST", "/v1/operations", order(id, "rival", `{"ask_takes": "10m"}`, `"timeout": "11m"`))))
			}
			asking := func() int {
				answer, err := h.client.ListWorkflow(h.ctx, listing(`TaskQueue = 'slow'`))
				h.must(err)
				return len(answer.GetExecutions())
			}
			h.until("all are there", func() bool { return asking() >= 40 })
			h.within(5*time.Second, func() bool { return false }) // for as many asks to begin as may
		}
		const patience = 12 * time.Second
		switch what {
		case "ask":
			id := h.id("victim")
			h.must(started(ask(h.ctx, w, victim, "POST", "/v1/operations", order(id, "victim", `{}`, ""))))
			ok := h.within(patience, func() bool {
				return h.at(w, victim, "GET", "/v1/operations/"+id+"?refresh=false", "").status().State == bellhop.Succeeded
			})
			return !ok, fmt.Sprintf("within %s the victim's ask was made: %t", patience, ok)
		case "delivery":
			id := h.id("victim")
			h.must(started(ask(h.ctx, w, victim, "POST", "/v1/operations", order(id, "victim", `{}`, `"callbacks": [{"target": "hook"}]`))))
			ok := h.within(patience, func() bool { return k.arrived(id) })
			return !ok, fmt.Sprintf("within %s the victim's callback arrived: %t", patience, ok)
		case "heartbeat":
			caller := h.caller("waits")
			h.pending(caller, "pend")
			id := h.id("victim")
			h.must(started(ask(h.ctx, w, victim, "POST", "/v1/operations", order(id, "victim", `{"ready_after": "1h"}`,
				fmt.Sprintf(`"callbacks": [{"target": "temporal", "address": {"workflow_id": %q, "activity_id": "wait"}, "heartbeat": "1s"}]`, caller)))))
			ok := h.within(patience, func() bool { return h.pending(caller, "pend").GetLastHeartbeatTime().AsTime().Unix() > 0 })
			return !ok, fmt.Sprintf("within %s the victim's caller got a heartbeat: %t", patience, ok)
		default:
			ok := h.within(patience, func() bool {
				got := h.at(w, victim, "GET", "/v1/operations/"+running, "")
				return got.code == http.StatusOK && got.status().State == bellhop.Running
			})
			began := time.Now()
			h.at(w, victim, "GET", "/v1/operations/"+running, "")
			took := time.Since(began)
			return !ok || took > 5*time.Second, fmt.Sprintf("a poll of the victim's is answered: %t, in %s", ok, took.Round(time.Millisecond))
		}
	}
}

// started is an error unless an operation was accepted.
func started(got answer, err error) error {
	if err == nil && got.code != http.StatusAccepted {
		err = fmt.Errorf("%s", got)
	}
	return err
}

// waitsForAll has the rival wait as often as it may, and then the victim.
func waitsForAll(h *harness) (bool, string) {
	config := strings.Replace(h.fleetConfig("waits"), "waits: 50", "waits: 10", 1)
	w := h.work(config + api("  waits: 30\n"))
	ids := map[string]string{}
	for tenant, token := range map[string]string{"rival": rival, "victim": victim} {
		ids[tenant] = h.id(tenant)
		h.must(started(ask(h.ctx, w, token, "POST", "/v1/operations", order(ids[tenant], tenant, `{"ready_after": "1h"}`, ""))))
		h.until("it runs", func() bool {
			return h.at(w, token, "GET", "/v1/operations/"+ids[tenant]+"?refresh=false", "").status().State == bellhop.Running
		})
	}
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	var refused atomic.Int32
	for range 60 {
		go func() {
			got, err := ask(ctx, w, rival, "GET", "/v1/operations/"+ids["rival"]+"?wait=30s&refresh=false", "")
			if err == nil && got.code >= 400 {
				refused.Add(1)
			}
		}()
	}
	h.until("those that may not wait are told", func() bool { return refused.Load() >= 25 })
	got := h.at(w, victim, "GET", "/v1/operations/"+ids["victim"]+"?wait=1s&refresh=false", "")
	return got.code != http.StatusOK, fmt.Sprintf("%d of the rival's requests were refused; the victim's: %s", refused.Load(), cut(got.String(), 150))
}

// opens has the rival start more operations than it may have.
func opens(atOnce bool) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		const limit, more = 20, 60
		namespace := quota
		if atOnce {
			namespace = hoard
		}
		w := h.work(strings.Replace(h.fleetConfig(namespace), "open_operations: 5000", fmt.Sprintf("open_operations: %d", limit), 1)+api(""), "TEMPORAL_NAMESPACE="+namespace)
		var accepted atomic.Int32
		var last atomic.Value
		start := func() {
			id := h.id("rival")
			got, err := ask(h.ctx, w, rival, "POST", "/v1/operations", order(id, "rival", `{"ready_after": "1h"}`, ""))
			switch {
			case err != nil:
			case got.code == http.StatusAccepted:
				accepted.Add(1)
			default:
				last.Store(fmt.Sprintf("%s, Retry-After %q", got, got.header.Get("Retry-After")))
			}
		}
		if atOnce {
			var all sync.WaitGroup
			for range more {
				all.Go(start)
			}
			all.Wait()
		} else {
			for range more {
				start()
			}
		}
		id := h.id("victim")
		got := h.at(w, victim, "POST", "/v1/operations", order(id, "victim", `{}`, ""))
		how := fmt.Sprintf("of %d, with a limit of %d, %d were accepted; the last refusal: %v; the victim's: %d", more, limit, accepted.Load(), last.Load(), got.code)
		if accepted.Load() < limit/2 {
			h.Fatalf("the attack was not tried: %s", how)
		}
		return int(accepted.Load()) > 2*limit || got.code != http.StatusAccepted, how
	}
}

// requests has the rival send many requests at once, and the victim one beside them.
func requests(h *harness) (bool, string) {
	id := h.begin(`{}`, "")
	h.ended(id)
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	for range 300 {
		go func() {
			for ctx.Err() == nil {
				got, err := ask(ctx, h.worker, rival, "GET", "/v1/operations?undelivered=true&page_size=1000", "")
				if err != nil || got.code == http.StatusTooManyRequests {
					time.Sleep(20 * time.Millisecond) // even a rival has to breathe
				}
			}
		}()
	}
	h.within(2*time.Second, func() bool { return false }) // for the crowd to come
	var worst time.Duration
	for range 10 {
		got := h.as(victim, "GET", "/v1/operations/"+id, "")
		if got.code != http.StatusOK {
			return true, fmt.Sprintf("the victim is answered %s", got)
		}
		worst = max(worst, got.took)
	}
	return worst > 5*time.Second, fmt.Sprintf("the victim waits %s at most", worst.Round(time.Millisecond))
}

// invents looks for names of the rival's in the metrics.
func invents(what string, do func(h *harness)) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		do(h)
		var found string
		h.within(notice, func() bool {
			for line := range strings.SplitSeq(h.metrics(h.worker), "\n") {
				if strings.Contains(line, "invented-"+what) || what == "path" && strings.Contains(line, "INVENTED") {
					found = line
				}
			}
			return found != ""
		})
		return found != "", "in the metrics: " + cut(found, 200)
	}
}

// usedAgain runs two operations under one id, one after the other, as after the end of retention.
func usedAgain(form int) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		caller := h.caller("listens")
		id := h.id("victim")
		address := fmt.Sprintf(`{"workflow_id": %q}`, caller)
		run := func(address string) bellhop.Status {
			_, err := h.client.ExecuteWorkflow(h.ctx, client.StartWorkflowOptions{
				ID: id, TaskQueue: "bellhop", WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
			}, "ProvisionCompute", rawOrder(order(id, "victim", `{}`, `"callbacks": [`+callback("temporal", address, "")+`]`)))
			h.must(err)
			var status bellhop.Status
			h.until("its callback is settled", func() bool {
				status = h.status(id)
				return len(status.Callbacks) == 1 && status.Callbacks[0].State.Settled()
			})
			h.until("it has closed", func() bool { _, info := h.describe(id); return info.GetCloseTime() != nil })
			return status
		}
		if form == 1 {
			first := h.caller("waits")
			h.pending(first, "pend")
			run(fmt.Sprintf(`{"workflow_id": %q, "activity_id": "wait"}`, first))
			second := h.caller("waits")
			h.pending(second, "pend")
			status := run(fmt.Sprintf(`{"workflow_id": %q, "activity_id": "wait"}`, second))
			ok := h.within(5*time.Second, func() bool { _, info := h.describe(second); return info.GetCloseTime() != nil })
			return !ok, fmt.Sprintf("the second caller went on: %t; its receipt is %s", ok, status.Callbacks[0].State)
		}
		run(address)
		status := run(address)
		ok := h.within(5*time.Second, func() bool { return len(h.got(caller)) == 2 })
		return !ok, fmt.Sprintf("the caller got %d of 2 callbacks; the second's receipt is %s", len(h.got(caller)), status.Callbacks[0].State)
	}
}

// undelivered has the rival make many operations whose callbacks find nobody.
func undelivered(h *harness) (bool, string) {
	w := h.fleet("undelivered", api(""))
	const many = 60
	var callbacks []string
	for i := range 16 {
		callbacks = append(callbacks, callback("temporal", fmt.Sprintf(`{"workflow_id": "nobody-%d"}`, i), ""))
	}
	var ids []string
	for range many {
		id := h.id("rival")
		h.must(started(ask(h.ctx, w, rival, "POST", "/v1/operations", order(id, "rival", `{}`, `"callbacks": [`+strings.Join(callbacks, ",")+`]`))))
		ids = append(ids, id)
	}
	for _, id := range ids {
		h.until("it has closed", func() bool { _, info := h.describe(id); return info.GetCloseTime() != nil })
	}
	h.until("they are listed", func() bool {
		return strings.Count(string(h.at(w, rival, "GET", "/v1/operations?undelivered=true&page_size=100", "").body), `"operation_id"`) >= many
	})
	plain := h.at(w, operator, "GET", "/v1/operations?page_size=1000", "").took
	began := value(h.metrics(w), `temporal_request_total\{[^}]*\}`)
	got := h.at(w, operator, "GET", "/v1/operations?undelivered=true&page_size=1000", "")
	calls := value(h.metrics(w), `temporal_request_total\{[^}]*\}`) - began
	return got.code != http.StatusOK || got.took > 20*plain && got.took > time.Second || calls > 4*many,
		fmt.Sprintf("%d entries took %s and %.0f calls of Temporal, beside %s for a plain list", many, got.took.Round(time.Millisecond), calls, plain.Round(time.Millisecond))
}

// withoutNamespace configures a target by a profile that names no namespace.
func withoutNamespace(h *harness) (bool, string) {
	profiles := h.write("temporal-h3.toml", fmt.Sprintf("[profile.other]\naddress = %q\n", h.server.Address), 0o600)
	config := h.fleetConfig("h3") + "targets:\n  other: {type: temporal, profile: other}\n" + api("")
	env := "TEMPORAL_CONFIG_FILE=" + profiles
	if said := h.check(config, env); strings.Contains(said, "targets.other") {
		return false, "--check refuses it: " + said
	}
	w := h.work(config, env)
	caller := h.caller("listens")
	id := h.id("victim")
	h.must(started(ask(h.ctx, w, victim, "POST", "/v1/operations", order(id, "victim", `{}`, `"callbacks": [`+callback("other", fmt.Sprintf(`{"workflow_id": %q}`, caller), "")+`]`))))
	ok := h.within(15*time.Second, func() bool { return len(h.got(caller)) == 1 })
	return !ok, fmt.Sprintf("the callback arrived: %t, %+v", ok, h.at(w, victim, "GET", "/v1/operations/"+id, "").status().Callbacks)
}

// neverSent has a target refuse connections, and then know nothing of the caller.
func neverSent(h *harness) (bool, string) {
	address := peers.FreeAddress(h.T)
	profiles := h.write("temporal-l1.toml", fmt.Sprintf("[profile.flaky]\naddress = %q\nnamespace = \"default\"\n", address), 0o600)
	w := h.work(h.fleetConfig("l1")+"targets:\n  flaky: {type: temporal, profile: flaky}\n"+api(""), "TEMPORAL_CONFIG_FILE="+profiles)
	id := h.id("victim")
	h.must(started(ask(h.ctx, w, victim, "POST", "/v1/operations", order(id, "victim", `{}`, `"callbacks": [`+callback("flaky", `{"workflow_id": "nobody"}`, "")+`]`))))
	receipt := func() bellhop.Receipt {
		status := h.at(w, victim, "GET", "/v1/operations/"+id, "").status()
		if len(status.Callbacks) == 0 {
			return bellhop.Receipt{}
		}
		return status.Callbacks[0]
	}
	h.until("an attempt found nobody at the address", func() bool { return receipt().LastError != "" })
	h.Logf("%+v", receipt())
	h.forward(address)
	h.until("it is settled", func() bool {
		h.hasten(w, id)
		return receipt().State.Settled()
	})
	return receipt().State != bellhop.ReceiptUndeliverable, fmt.Sprintf("%+v", receipt())
}

// forward leads an address to the Temporal server.
func (h *harness) forward(address string) {
	h.Helper()
	listener, err := net.Listen("tcp", address)
	h.must(err)
	h.Cleanup(func() { listener.Close() }) //nolint:errcheck // it is done with
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", h.server.Address)
			if err != nil {
				from.Close() //nolint:errcheck // it is done with
				return
			}
			go func() { io.Copy(to, from); to.Close() }()   //nolint:errcheck // either end may hang up
			go func() { io.Copy(from, to); from.Close() }() //nolint:errcheck // as above
		}
	}()
}

// rolling runs a worker with a new entry beside one of before, and starts operations that name it.
func rolling(provider, targets, names string) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		before := h.fleetConfig(h.name)
		path := filepath.Join(h.folder, h.name+"-fresh.db")
		after := before
		if provider != "" {
			after = strings.Replace(before, "backstop:", fmt.Sprintf(provider, path)+"backstop:", 1)
		}
		caller := h.caller("listens")
		if strings.Contains(names, "%s") {
			names = fmt.Sprintf(names, caller)
		}
		w := h.work(after + targets + api(""))
		h.work(before) // which keeps the old configuration for a while
		const many = 12
		var ids []string
		for range many {
			id := h.id("victim")
			field, given, _ := strings.Cut(names, ": ")
			h.must(started(ask(h.ctx, w, victim, "POST", "/v1/operations", fields(id, "victim", map[string]string{strings.Trim(field, `"`): given}))))
			ids = append(ids, id)
		}
		failed, lost := 0, 0
		for _, id := range ids {
			var status bellhop.Status
			h.until("it has ended", func() bool {
				status = h.at(w, victim, "GET", "/v1/operations/"+id+"?refresh=false", "").status()
				return status.State.Terminal() && (len(status.Callbacks) == 0 || status.Callbacks[0].State.Settled())
			})
			if status.State != bellhop.Succeeded {
				failed++
			}
			if len(status.Callbacks) > 0 && status.Callbacks[0].State != bellhop.ReceiptAcknowledged {
				lost++
			}
		}
		return failed+lost > 0, fmt.Sprintf("of %d operations %d failed, and %d callbacks were lost", many, failed, lost)
	}
}

// handshakes connects twice and looks whether the second handshake resumes the session of the first.
func handshakes(h *harness) (bool, string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	h.must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bellhop"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	h.must(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	h.must(err)
	certFile := h.write("tls.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), 0o600)
	keyFile := h.write("tls.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})), 0o600)
	w := h.work(h.fleetConfig("tls") + api(fmt.Sprintf("  tls: {cert_file: %s, key_file: %s}\n", certFile, keyFile)))
	config := &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(4)} //nolint:gosec // its own certificate
	resumed := false
	for range 2 {
		conn, err := tls.Dial("tcp", w.API, config)
		h.must(err)
		_, err = fmt.Fprintf(conn, "GET /openapi.yaml HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer %s\r\n\r\n", rival)
		h.must(err)
		_, _ = io.Copy(io.Discard, conn) //nolint:errcheck // the ticket came with the answer
		resumed = conn.ConnectionState().DidResume
		h.must(conn.Close())
	}
	return !resumed, fmt.Sprintf("the second handshake resumed the session: %t", resumed)
}

// readable lets others on the machine read a file with a key.
func readable(config, content string) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		file := h.write(h.name, content, 0o644)
		said := h.check(fmt.Sprintf(config, file))
		return !strings.Contains(said, file), "--check says: " + cut(said, 300)
	}
}

// takenAway takes the rival's token out of the configuration, or out of the file of tokens where there is one, of a worker
// that goes on.
func takenAway(h *harness) (bool, string) {
	token := func(name, value string) string {
		return fmt.Sprintf("- {name: %s, tenants: [%s], sha256: %s}\n", name, name, hash(value))
	}
	both, one := "tokens:\n"+token("rival", rival)+token("victim", victim), "tokens:\n"+token("victim", victim)
	indent := func(text string) string {
		return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ") + "\n"
	}
	config := func(tokens string) string {
		return h.fleetConfig("rotation") + "api:\n  listen: 127.0.0.1:0\n" + tokens
	}
	file := h.write("tokens.yaml", both, 0o600)
	written := h.write("rotation.yaml", config(indent(both)), 0o600)
	beside := h.optional("api:\n  listen: 127.0.0.1:0\n  tokens_file: "+file+"\n") != ""
	if beside {
		h.write("rotation.yaml", config("  tokens_file: "+file+"\n"), 0o600)
	}
	w, err := peers.StartWorkerOf(h.ctx, h.server.Address, written)
	h.must(err)
	h.Cleanup(w.Kill)
	if got := h.at(w, rival, "GET", "/v1/operations", ""); got.code != http.StatusOK {
		h.Fatalf("%s", got)
	}
	if beside {
		h.must(os.WriteFile(file, []byte(one), 0o600))
	} else {
		h.must(os.WriteFile(written, []byte(config(indent(one))), 0o600))
	}
	gone := h.within(10*time.Second, func() bool { return h.at(w, rival, "GET", "/v1/operations", "").code == http.StatusUnauthorized })
	still := h.at(w, victim, "GET", "/v1/operations", "").code
	return !gone || still != http.StatusOK, fmt.Sprintf("within 10 s the token is refused: %t; the victim's is answered %d", gone, still)
}

// repeatsTokens sends tokens in places that are wrong, and looks for them in what is answered and logged.
func repeatsTokens(h *harness) (bool, string) {
	secret := "bearer-of-the-victim-5b0c9d"
	for _, address := range []string{`{"task_token": "` + secret + `!"}`, `{"task_token": ["` + secret + `"]}`, `"` + secret + `"`, `{"taskToken": "` + secret + `"}`, `["` + secret + `"]`} {
		id := h.id("rival")
		got := h.as(rival, "POST", "/v1/operations", order(id, "rival", `{}`, `"callbacks": [`+callback("temporal", address, "")+`]`))
		said := string(got.body)
		if got.code == http.StatusAccepted {
			h.ended(id)
			h.within(notice, func() bool {
				receipts := h.status(id).Callbacks
				return len(receipts) > 0 && receipts[0].State.Settled()
			})
			said += string(h.as(rival, "GET", "/v1/operations/"+id, "").body)
		}
		if strings.Contains(said+h.worker.Output(), secret) {
			return true, cut(said, 300)
		}
	}
	return false, "none is repeated"
}

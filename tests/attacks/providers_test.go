package attacks

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"

	"bellhop"
	"bellhop/tests/peers"
	"bellhop/tests/peers/scriptedecs"
)

// providerAttacks name at a provider what belongs to the operator or to the victim, and print secrets.
func providerAttacks() []attack {
	network := "from a tenant to all that the network has"
	list := []attack{
		{name: "docker-network-of-bellhop", finding: "H2", reason: network, run: dockerAsks(`{"network": "bellhop_default"}`, "nginx:1.27")},
		{name: "docker-network-of-the-victim", finding: "H2", reason: network, run: dockerAsks(`{"network": "tenant-victim"}`, "nginx:1.27")},
		{name: "docker-network-default", finding: "H2", reason: "all tenants share the engine's bridge", run: dockerAsks(`{"network": "bridge"}`, "nginx:1.27")},
		{name: "docker-network-unnamed", finding: "H2", reason: "all tenants share the engine's bridge", run: dockerJoins},
		{name: "docker-network-by-id", finding: "H2", reason: network, run: dockerAsks(`{"network": "0123456789ab0123456789ab0123456789ab0123456789ab0123456789ab0123"}`, "nginx:1.27")},
		{name: "docker-network-host", finding: "H2", reason: network, run: dockerAsks(`{"network": "host"}`, "nginx:1.27")},
		{name: "docker-network-of-a-container", finding: "H2", reason: network, run: dockerAsks(`{"network": "container:bellhop-victim"}`, "nginx:1.27")},
		{name: "docker-network-other-case", finding: "H2", reason: network, run: dockerAsks(`{"network": "Host"}`, "nginx:1.27")},
		{name: "docker-image-never-pulled", finding: "L7", reason: "an image that only the victim may pull", run: dockerAsks(`{"pull": "never"}`, "registry.invalid/victim/app:1")},
		{name: "docker-image-of-the-victim", finding: "L7", reason: "an image that only the victim may pull", run: dockerAsks(`{}`, "registry.invalid/victim/app:1")},
		{name: "docker-image-by-id", finding: "L7", reason: "an image that only the victim may pull", run: dockerAsks(`{"pull": "never"}`, "sha256:0123456789ab0123456789ab0123456789ab0123456789ab0123456789ab0123")},

		{name: "kubernetes-pull-secret", finding: "M2", reason: "registry credentials are read", run: kubernetesAsks("regcred/.dockerconfigjson")},
		{name: "kubernetes-secret-of-the-victim", finding: "M2", reason: "a secret of another tenant's is read", run: kubernetesAsks("victim-db/password")},
		{name: "kubernetes-service-account-token", finding: "M2", reason: "an account's token is read", run: kubernetesAsks("default-token-abcde/token")},

		{name: "ecs-subnets", finding: "M3", reason: "a task in another's subnet", run: ecsAsks(`{"subnets": ["subnet-0fedcba9876543210"]}`, "subnet-0fedcba9876543210")},
		{name: "ecs-security-groups", finding: "M3", reason: "a task in the database's security group", run: ecsAsks(`{"security_groups": ["sg-0fedcba9876543210"]}`, "sg-0fedcba9876543210")},
		{name: "ecs-capacity-providers", finding: "M3", reason: "another's capacity is used", run: ecsAsks(`{"capacity_providers": [{"name": "tenant-victim"}]}`, "tenant-victim")},
		{name: "ecs-public-address", finding: "M3", reason: "a task is reached from everywhere", run: ecsAsks(`{"assign_public_ip": true}`, `"ENABLED"`)},
		{name: "ecs-target-group", finding: "M3", reason: "the rival serves behind the victim's load balancer", run: ecsAsks(
			`{"target_groups": [{"arn": "arn:aws:elasticloadbalancing:eu-central-1:111122223333:targetgroup/victim/0123456789abcdef"}]}`, "targetgroup/victim")},
		{name: "ecs-task-definition", finding: "M3", reason: "the rival's task has the victim's roles", run: ecsAsks(
			`{"task_definition": "arn:aws:ecs:eu-central-1:111122223333:task-definition/victim:1"}`, "task-definition/victim:1")},
		{name: "ecs-secret-of-the-victim", finding: "M3", reason: "a secret of another tenant's is read", run: ecsAsksWith(
			`"env": {}, "secrets": {"X": "arn:aws:secretsmanager:eu-central-1:111122223333:secret:bellhop/victim/db-AbCdEf"}`, `{}`, "bellhop/victim/db")},
		{name: "ecs-session-name", finding: "L4", reason: "CloudTrail shows one tenant for another", run: ecsSessions},
	}
	secret := `p"a\ss w<ö>r&d/+` + "0a1b2c3d4e5f"
	quotedSecret, _ := json.Marshal(secret) //nolint:errcheck // a text can be written
	inner := string(quotedSecret[1 : len(quotedSecret)-1])
	pem := "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\nMzEfYyjiWA4R4ypbHqGC0H0\n-----END PRIVATE KEY-----\n"
	for _, leak := range []struct{ name, secret, printed string }{
		{"plain", secret, secret},
		{"in-json", secret, inner},
		{"in-json-twice", secret, strings.ReplaceAll(strings.ReplaceAll(inner, `\`, `\\`), `"`, `\"`)},
		{"quoted", secret, strings.Trim(fmt.Sprintf("%q", secret), `"`)},
		{"quoted-ascii", secret, strings.Trim(fmt.Sprintf("%+q", secret), `"`)},
		{"in-a-query", secret, url.QueryEscape(secret)},
		{"in-a-path", secret, url.PathEscape(secret)},
		{"in-a-userinfo", secret, strings.TrimPrefix(url.UserPassword("", secret).String(), ":")},
		{"base64", secret, base64.StdEncoding.EncodeToString([]byte(secret))},
		{"base64-url", secret, base64.RawURLEncoding.EncodeToString([]byte(secret))},
		{"base64-of-basic-auth", secret, base64.StdEncoding.EncodeToString([]byte("user:" + secret))},
		{"lines-cut-at-the-front", pem, strings.Join(strings.Split(pem, "\n")[2:], "\n")},
		{"lines-trimmed", pem, strings.TrimSpace(pem)},
		{"lines-with-crlf", pem, strings.ReplaceAll(pem, "\n", "\r\n")},
		{"lines-indented", pem, strings.ReplaceAll(pem, "\n", "\n    ")},
	} {
		list = append(list, attack{
			name: "secret-" + leak.name, finding: "M6", reason: "a secret stands in the outcome, the log or the callback",
			run: prints(leak.secret, leak.printed),
		})
	}
	return list
}

// netRival is the id of the network that is the rival's.
const netRival = "7e7a0000000000000000000000000000000000000000000000000000000000ff"

// engine is a Docker engine as far as a provision goes, which notes the containers that it is asked to create.
type engine struct {
	*httptest.Server
	mu      sync.Mutex
	created []string
}

func newEngine(h *harness) *engine {
	h.Helper()
	e := &engine{}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.44")
		w.Header().Set("Content-Type", "application/json")
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		say := func(code int, text string) {
			w.WriteHeader(code)
			_, _ = io.WriteString(w, text) //nolint:errcheck // the worker hung up
		}
		switch path := r.URL.Path; {
		case strings.HasSuffix(path, "/_ping"):
			say(http.StatusOK, "OK")
		case strings.HasSuffix(path, "/version"), strings.HasSuffix(path, "/info"):
			say(http.StatusOK, `{"ApiVersion": "1.44", "ID": "one"}`)
		case strings.HasSuffix(path, "/containers/json"):
			say(http.StatusOK, "[]")
		case strings.HasSuffix(path, "/networks"):
			say(http.StatusOK, `[{"Name": "net-rival", "Id": "`+netRival+`", "Driver": "bridge", "Scope": "local"}]`)
		case strings.HasSuffix(path, "/events"):
			w.WriteHeader(http.StatusOK)
			if f, ok := w.(http.Flusher); ok {
				f.Flush()
			}
			<-r.Context().Done()
		case strings.HasSuffix(path, "/containers/create"):
			e.mu.Lock()
			e.created = append(e.created, string(body))
			e.mu.Unlock()
			say(http.StatusInternalServerError, `{"message": "noted"}`)
		case strings.Contains(path, "/images/") && r.Method == http.MethodGet, strings.Contains(path, "/distribution/"):
			say(http.StatusOK, `{"Id": "sha256:0123456789ab0123456789ab0123456789ab0123456789ab0123456789ab0123", "RepoDigests": [], "Config": {}}`)
		case strings.HasSuffix(path, "/images/create"):
			say(http.StatusOK, `{"status": "done"}`)
		case strings.Contains(path, "/networks/") && r.Method == http.MethodGet:
			say(http.StatusOK, `{"Name": "net-rival", "Id": "`+netRival+`", "Driver": "bridge", "Scope": "local"}`)
		default:
			say(http.StatusNotFound, `{"message": "there is none"}`)
		}
	}))
	h.Cleanup(func() { e.CloseClientConnections(); e.Close() })
	return e
}

// asked says whether the engine was asked for a container.
func (e *engine) asked(text string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, body := range e.created {
		if strings.Contains(body, text) {
			return true
		}
	}
	return false
}

// dockerAsks has the rival ask a Docker engine for a container. The operator's entry keeps tenants apart.
func dockerAsks(script, image string) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		e, apart := h.apart()
		return h.asks("docker-"+h.name, apart, script, fmt.Sprintf(`"image": %q`, image), "docker", func() bool { return e.asked(fmt.Sprintf("%q", image)) }, nil)
	}
}

// dockerJoins names no network, and looks at the one that the container joins.
func dockerJoins(h *harness) (bool, string) {
	e, apart := h.apart()
	harm, how := h.asks("docker-"+h.name, apart, `{}`, `"image": "nginx:1.27"`, "docker", func() bool { return e.asked(`"nginx:1.27"`) }, nil)
	if !harm {
		h.Fatalf("no container was asked for: %s", how)
	}
	its := e.asked(`"NetworkMode":"net-rival"`) || e.asked(`"NetworkMode":"`+netRival+`"`)
	return !its, fmt.Sprintf("the container joins a network of the rival's own: %t", its)
}

// apart is a Docker engine and a provider's entry that keeps tenants on it apart.
func (h *harness) apart() (*engine, string) {
	h.Helper()
	e := newEngine(h)
	more := fmt.Sprintf("  docker: {type: docker, host: 'tcp://%s'%%s}\n", strings.TrimPrefix(e.URL, "http://"))
	apart := fmt.Sprintf(more, `, default_network: "net-{tenant}", images: ["docker.io/library/*", "registry.invalid/{tenant}/*"]`)
	if h.optional("providers:\n"+apart) == "" {
		apart = fmt.Sprintf(more, "")
	}
	return e, apart
}

// asks has the rival provision at a provider and says whether the provider was asked for what it should not have been.
func (h *harness) asks(fleet, provider, script, spec, name string, asked func() bool, env []string) (bool, string) {
	h.Helper()
	config := strings.Replace(h.fleetConfig(fleet), "backstop:", provider+"backstop:", 1) + api("")
	w := h.work(config, env...)
	id := h.id("rival")
	got := h.at(w, rival, "POST", "/v1/operations", fields(id, "rival", map[string]string{
		"provider": fmt.Sprintf("%q", name), "provider_config": script, "spec": "{" + spec + "}", "timeout": `"12s"`,
	}))
	if got.code != http.StatusAccepted {
		return asked(), got.String()
	}
	var status bellhop.Status
	if h.within(soon/2, func() bool {
		status = h.at(w, operator, "GET", "/v1/operations/"+id+"?refresh=false", "").status()
		return asked() || status.State.Terminal()
	}) && asked() {
		return true, "the provider was asked for it"
	}
	return false, fmt.Sprintf("%s: %v", status.State, status.Error)
}

// cluster is a Kubernetes API server as far as a provision goes, which notes what it is asked to make.
func kubernetesAsks(secret string) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		var mu sync.Mutex
		var asked []string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			w.Header().Set("Content-Type", "application/json")
			if r.Method == http.MethodGet {
				parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
				kind := strings.TrimSuffix(parts[len(parts)-1], "s")
				switch {
				case r.URL.Query().Get("watch") != "":
					<-r.Context().Done()
				case kind == "deployment" || kind == "job" || kind == "service" || kind == "pod" || kind == "replicaset" || kind == "event":
					_, _ = fmt.Fprintf(w, `{"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []}`) //nolint:errcheck // the worker hung up
				case strings.Contains(r.URL.Path, "/namespaces/") && len(parts) == 4:
					_, _ = io.WriteString(w, `{"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "x", "uid": "u"}, "status": {"phase": "Active"}}`) //nolint:errcheck // as above
				default:
					w.WriteHeader(http.StatusNotFound)
					_, _ = io.WriteString(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}`) //nolint:errcheck // as above
				}
				return
			}
			mu.Lock()
			asked = append(asked, string(body))
			mu.Unlock()
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "message": "noted", "code": 403}`) //nolint:errcheck // as above
		}))
		h.Cleanup(func() { server.CloseClientConnections(); server.Close() })
		kubeconfig := h.write("kubeconfig-"+h.name, fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: %q}}]\n"+
			"contexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\n", server.URL), 0o600)
		provider := fmt.Sprintf("  kubernetes: {type: kubernetes, kubeconfig: %q, namespace: shared, image_pull_secrets: [regcred]}\n", kubeconfig)
		name, key, _ := strings.Cut(secret, "/")
		return h.asks("kubernetes-"+h.name, provider, `{}`, fmt.Sprintf(`"image": "nginx:1.27", "secrets": {"X": %q}`, secret), "kubernetes", func() bool {
			mu.Lock()
			defer mu.Unlock()
			for _, body := range asked {
				if strings.Contains(body, name) && strings.Contains(body, key) {
					return true
				}
			}
			return false
		}, nil)
	}
}

func ecsAsks(script, wanted string) func(h *harness) (bool, string) {
	return ecsAsksWith(`"env": {}`, script, wanted)
}

func (h *harness) scripted() (server *scriptedecs.Server, provider string, env []string) {
	h.Helper()
	server = scriptedecs.For(h.T, scriptedecs.Options{Clusters: []string{"bellhop"}})
	provider = fmt.Sprintf("  ecs: {type: ecs, region: eu-central-1, cluster: bellhop, endpoint: %q, role_arn: 'arn:aws:iam::111122223333:role/bellhop', "+
		"subnets: [subnet-0a1b2c3d4e5f60718], security_groups: [sg-0a1b2c3d4e5f60718], execution_role_arn: 'arn:aws:iam::111122223333:role/execution', "+
		"secrets: ['arn:aws:secretsmanager:eu-central-1:111122223333:secret:bellhop/{tenant}/*'], reads_per_second: 1000, writes_per_second: 1000, definitions_per_second: 1000}\n", server.URL)
	return server, provider, append(peers.AWSEnvironment(), "AWS_ACCESS_KEY_ID=AKIABELLHOPTEST")
}

func ecsAsksWith(spec, script, wanted string) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		server, provider, env := h.scripted()
		return h.asks("ecs-"+h.name, provider, script, `"image": "nginx:1.27", "ports": [{"container_port": 80}], `+spec, "ecs", func() bool {
			for _, call := range server.Calls() {
				changes := call.Action == "ecs:CreateService" || call.Action == "ecs:RunTask" || call.Action == "ecs:RegisterTaskDefinition" || call.Action == "ecs:UpdateService"
				if changes && strings.Contains(string(call.Body), wanted) {
					return true
				}
			}
			return false
		}, env)
	}
}

// ecsSessions has both tenants provision by one role, and looks at the names of the sessions.
func ecsSessions(h *harness) (bool, string) {
	server, provider, env := h.scripted()
	w := h.work(strings.Replace(h.fleetConfig("sessions"), "backstop:", provider+"backstop:", 1)+api(""), env...)
	for _, tenant := range []string{"rival", "victim"} {
		token := map[string]string{"rival": rival, "victim": victim}[tenant]
		id := h.id(tenant)
		got := h.at(w, token, "POST", "/v1/operations", fields(id, tenant, map[string]string{"provider": `"ecs"`, "spec": `{"image": "nginx:1.27"}`, "timeout": `"20s"`}))
		if got.code != http.StatusAccepted {
			h.Fatalf("%s", got)
		}
		h.until("it has ended", func() bool {
			return h.at(w, token, "GET", "/v1/operations/"+id+"?refresh=false", "").status().State.Terminal()
		})
	}
	sessions := map[string]bool{}
	for _, call := range server.Calls() {
		if call.Action == "sts:AssumeRole" {
			values, err := url.ParseQuery(string(call.Body))
			h.must(err)
			sessions[values.Get("RoleSessionName")] = true
		}
	}
	for name := range sessions {
		if strings.Contains(name, "victim") {
			return false, fmt.Sprintf("sessions: %v", sessions)
		}
	}
	return true, fmt.Sprintf("what was done for the victim shows under a session of %v", sessions)
}

// prints has the victim's own operation fail with a message that has one of its secrets in another form, and looks at what
// everybody is told.
func prints(secret, printed string) func(h *harness) (bool, string) {
	return func(h *harness) (bool, string) {
		k := h.hook(0)
		k.unlock()
		message, err := json.Marshal("connect to the database as app: " + printed + " was refused")
		h.must(err)
		value, err := json.Marshal(secret)
		h.must(err)
		id := h.id("victim")
		got := h.as(victim, "POST", "/v1/operations", fields(id, "victim", map[string]string{
			"spec":            `{"image": "i", "env": {"PASSWORD": ` + string(value) + `}}`,
			"provider_config": `{"fail": {"code": "CONTAINER_EXITED", "message": ` + string(message) + `}}`,
			"callbacks":       fmt.Sprintf(`[{"target": %q}]`, k.target),
		}))
		if got.code != http.StatusAccepted {
			h.Fatalf("%s", got)
		}
		status := h.ended(id)
		h.until("the callback arrived", func() bool { return k.arrived(id) })
		said := status.Error.Message + fmt.Sprint(status.Error.Evidence) + k.got[0] + h.worker.Output()
		for _, line := range strings.FieldsFunc(printed, func(r rune) bool { return r == '\n' || r == '\r' }) {
			line = strings.TrimSpace(line)
			if len(line) < 12 || strings.HasPrefix(line, "-----") {
				continue
			}
			if strings.Contains(said, line) || strings.Contains(status.Error.Message, line) {
				return true, fmt.Sprintf("the outcome says %q", status.Error.Message)
			}
		}
		return false, fmt.Sprintf("the outcome says %q", status.Error.Message)
	}
}

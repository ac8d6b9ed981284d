package peers

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Kubernetes is a cluster without machines: the real API server on etcd, with the real controllers and scheduler, and
// kwok in the place of its nodes' kubelets. What becomes of a pod is a script, which its image names, such as
// bellhop.test/crash:1, or its annotation bellhop.test/script at any time (see steps). An image of any other name is
// well.
//
// Nothing runs in a pod, so it shows nothing of what a kubelet does on its own: it pulls no image, asks no probe, looks
// up no secret or config map (the script config-error plays one that is absent), enforces no limit and no deadline of
// a pod, has no init containers, ends a pod without its grace period, and has one log for all containers (see Log). All
// that the API server, the controllers and the scheduler do is real: admission, quotas, RBAC, roll-outs, deadlines of
// roll-outs and Jobs, garbage collection.
type Kubernetes struct {
	// URL is where the API server is, on this machine only. It takes requests of users with a certificate (see Login)
	// and of service accounts with a token, and gives them what RBAC gives.
	URL string
	// Kubeconfig is the path of the administrator's configuration.
	Kubeconfig string

	folder    string
	authority *authority
	client    *http.Client
	apiserver []string
	logins    int

	mu       sync.Mutex
	programs map[string]*Process
}

// ErrNoKubernetes says that there is no cluster to start.
var ErrNoKubernetes = errors.New("the programs of a Kubernetes cluster are not installed; run: make tools")

// kubernetesNode is the cluster's only node.
const kubernetesNode = "node-1"

// StartKubernetes starts a cluster that keeps everything in a folder. It is ready in about ten seconds and needs 600 MB.
func StartKubernetes(ctx context.Context, folder string) (*Kubernetes, error) {
	if _, err := os.Stat(kubernetesProgram("kube-apiserver")); err != nil {
		return nil, ErrNoKubernetes
	}
	k := &Kubernetes{folder: folder, programs: map[string]*Process{}}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	if err := k.start(ctx); err != nil {
		k.Kill()
		return nil, fmt.Errorf("start Kubernetes: %w", err)
	}
	return k, nil
}

func kubernetesProgram(name string) string {
	return filepath.Join(Root(), ".tools", "bin", "kubernetes", name)
}

func (k *Kubernetes) start(ctx context.Context) error {
	ports, err := FreePorts(4)
	if err != nil {
		return err
	}
	etcd, raft, api, kubelets := "http://"+ports[0], "http://"+ports[1], ports[2], ports[3]
	k.URL = "https://" + api
	if k.authority, err = newAuthority(); err != nil {
		return err
	}
	if err := k.files(); err != nil {
		return err
	}
	config, err := kubelet(k.folder)
	if err != nil {
		return err
	}
	if err := k.Log("listening on :8080"); err != nil {
		return err
	}
	if err := k.PreviousLog("panic: a bug of this program"); err != nil {
		return err
	}

	if err := k.run(ctx, "etcd", "--data-dir", k.path("etcd"), "--listen-client-urls", etcd, "--advertise-client-urls", etcd,
		"--listen-peer-urls", raft, "--initial-advertise-peer-urls", raft, "--initial-cluster", "default="+raft,
		// What it keeps is lost with the folder.
		"--unsafe-no-fsync"); err != nil {
		return err
	}
	if err := answers(ctx, etcd+"/health"); err != nil {
		return fmt.Errorf("etcd is not ready: %w\n%s", err, k.Output("etcd"))
	}
	_, port, _ := strings.Cut(api, ":")
	k.apiserver = []string{
		"--etcd-servers", etcd, "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1", "--secure-port", port,
		"--endpoint-reconciler-type", "none", "--service-cluster-ip-range", "10.0.0.0/16",
		"--cert-dir", k.path("certs"), "--tls-cert-file", k.path("server.crt"), "--tls-private-key-file", k.path("server.key"),
		"--authorization-mode", "RBAC", "--client-ca-file", k.path("ca.crt"),
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", k.path("server.key"), "--service-account-signing-key-file", k.path("server.key"),
		"--audit-policy-file", k.path("audit.yaml"), "--audit-log-path", k.path("audit.log"),
		"--kubelet-preferred-address-types", "InternalIP",
	}
	if err := k.RestartAPIServer(ctx); err != nil {
		return err
	}
	node := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Node", "metadata": {"name": %q}}`, kubernetesNode)
	if err := k.do(ctx, http.MethodPost, "/api/v1/nodes", node, nil); err != nil {
		return err
	}
	// The controllers' own limits of requests would be the measure of every figure.
	client := []string{"--kubeconfig", k.Kubeconfig, "--leader-elect=false", "--secure-port", "0", "--kube-api-qps", "1000", "--kube-api-burst", "2000"}
	if err := k.run(ctx, "kube-controller-manager", append(client, "--service-account-private-key-file", k.path("server.key"),
		// A machine under load is no node that is gone.
		"--node-monitor-grace-period", "10m")...); err != nil {
		return err
	}
	if err := k.run(ctx, "kube-scheduler", client...); err != nil {
		return err
	}
	host, port, _ := strings.Cut(kubelets, ":")
	if err := k.run(ctx, "kwok", "--kubeconfig", k.Kubeconfig, "--config", config, "--manage-all-nodes", "--node-lease-duration-seconds", "40",
		"--cidr", "10.64.0.1/10", "--node-ip", host, "--node-port", port, "--server-address", kubelets); err != nil {
		return err
	}
	return k.until(ctx, "the node to be ready and pods to be allowed", func() bool {
		var node struct {
			Spec   struct{ Taints []any }
			Status struct{ Phase string }
		}
		return k.do(ctx, http.MethodGet, "/api/v1/nodes/"+kubernetesNode, "", &node) == nil && node.Status.Phase == "Running" && len(node.Spec.Taints) == 0 &&
			k.do(ctx, http.MethodGet, "/api/v1/namespaces/default/serviceaccounts/default", "", nil) == nil
	})
}

// files writes what the programs are configured with, and readies the client of our own.
func (k *Kubernetes) files() error {
	server, err := k.authority.issue("kube-apiserver", nil)
	if err != nil {
		return err
	}
	admin, err := k.authority.issue("admin", []string{"system:masters"})
	if err != nil {
		return err
	}
	// Of the administrator and the programs themselves nobody wants to know.
	audit := "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n" +
		"- {level: None, userGroups: [\"system:masters\"]}\n- {level: Metadata}\n"
	for name, text := range map[string][]byte{
		"ca.crt": k.authority.pem, "server.crt": server.cert, "server.key": server.key, "audit.yaml": []byte(audit),
	} {
		if err := os.WriteFile(k.path(name), text, 0o600); err != nil {
			return err
		}
	}
	if k.Kubeconfig, err = k.kubeconfig("admin.kubeconfig", k.URL, admin); err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(admin.cert, admin.key)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AddCert(k.authority.cert)
	k.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
	}}
	return nil
}

func (k *Kubernetes) path(name string) string { return filepath.Join(k.folder, name) }

// run starts one of the programs.
func (k *Kubernetes) run(ctx context.Context, name string, args ...string) error {
	// kwok and the API server look for more configuration at home.
	process, err := Start(ctx, kubernetesProgram(name), args, []string{"HOME=" + k.folder, "KUBECONFIG="}, func(string) bool { return true })
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.programs[name] = process
	return nil
}

// Output is the last that one of the programs printed: etcd, kube-apiserver, kube-controller-manager, kube-scheduler or
// kwok.
func (k *Kubernetes) Output(program string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if process := k.programs[program]; process != nil {
		return process.Output()
	}
	return ""
}

// PIDs are the programs' process ids by their names.
func (k *Kubernetes) PIDs() map[string]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	pids := map[string]int{}
	for name, process := range k.programs {
		pids[name] = process.PID()
	}
	return pids
}

// Kill ends all of it as a crash does.
func (k *Kubernetes) Kill() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, process := range k.programs {
		process.Kill()
		delete(k.programs, name)
	}
}

// KillAPIServer ends the API server as a crash does. Its port stays free for it to be restarted.
func (k *Kubernetes) KillAPIServer() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if process := k.programs["kube-apiserver"]; process != nil {
		process.Kill()
		delete(k.programs, "kube-apiserver")
	}
}

// RestartAPIServer kills the API server if it runs, starts it on what it kept, and waits until it is ready.
func (k *Kubernetes) RestartAPIServer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	k.KillAPIServer()
	if err := k.run(ctx, "kube-apiserver", k.apiserver...); err != nil {
		return err
	}
	return k.until(ctx, "the API server to be ready", func() bool { return k.do(ctx, http.MethodGet, "/readyz", "", nil) == nil })
}

func (k *Kubernetes) until(ctx context.Context, what string, done func() bool) error {
	for !done() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w\n%s", what, ctx.Err(), k.Output("kube-apiserver"))
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// do makes a request as the administrator and decodes the answer, where it is wanted.
func (k *Kubernetes) do(ctx context.Context, method, path, body string, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, k.URL+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := k.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // what matters was read
	said, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, said)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(said, into)
}

// Login makes a user known, with the groups that it is in, and returns the path of a configuration with which it
// speaks to the API server at a URL: the cluster's, or that of a Cable to it. It may do what RBAC says. Service accounts are
// users too: "system:serviceaccount:NAMESPACE:NAME".
func (k *Kubernetes) Login(url, user string, groups ...string) (string, error) {
	pair, err := k.authority.issue(user, groups)
	if err != nil {
		return "", err
	}
	k.mu.Lock()
	k.logins++
	name := fmt.Sprintf("user-%d.kubeconfig", k.logins)
	k.mu.Unlock()
	return k.kubeconfig(name, url, pair)
}

func (k *Kubernetes) kubeconfig(name, url string, user pair) (string, error) {
	named := func(kind, name string, it map[string]any) []map[string]any {
		return []map[string]any{{"name": name, kind: it}}
	}
	text, err := json.MarshalIndent(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "test",
		"clusters": named("cluster", "test", map[string]any{"server": url, "certificate-authority-data": k.authority.pem}),
		"users":    named("user", "test", map[string]any{"client-certificate-data": user.cert, "client-key-data": user.key}),
		"contexts": named("context", "test", map[string]any{"cluster": "test", "user": "test"}),
	}, "", "  ")
	if err != nil {
		return "", err
	}
	return k.path(name), os.WriteFile(k.path(name), text, 0o600)
}

// Log makes lines the log of every container, PreviousLog that of the one before it was restarted. A kubelet would
// refuse the previous one of a container that never was restarted; kwok shows it all the same.
func (k *Kubernetes) Log(lines ...string) error { return writeLog(logFile(k.folder, false), lines) }

// PreviousLog is described at Log.
func (k *Kubernetes) PreviousLog(lines ...string) error {
	return writeLog(logFile(k.folder, true), lines)
}

// APICall is a request that the API server got.
type APICall struct {
	// Verb is RBAC's: get, list, watch, create, update, patch, delete, deletecollection.
	Verb string
	// Group is the API group, "" being the core's. Resource has its subresource after a slash, as in RBAC's rules.
	Group, Resource string
	// Namespace and Name may be empty.
	Namespace, Name string
	// Path is the URL's, for requests that are not about a resource.
	Path string
	// Code is the answer's status.
	Code int
}

// Calls are the requests that a user made since the cluster began, in the order in which they were answered. Those of
// the administrator are not counted.
func (k *Kubernetes) Calls(user string) ([]APICall, error) {
	text, err := os.ReadFile(k.path("audit.log"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // nobody has asked anything
	}
	if err != nil {
		return nil, err
	}
	calls := []APICall{}
	seen := map[string]bool{}
	for line := range bytes.Lines(text) {
		var event struct {
			AuditID, Verb, RequestURI string
			User                      struct{ Username string }
			ObjectRef                 struct{ APIGroup, Resource, Subresource, Namespace, Name string }
			ResponseStatus            struct{ Code int }
		}
		// A line may be cut off where the API server was killed. A watch has two, one as it begins and one as it ends.
		if json.Unmarshal(line, &event) != nil || event.User.Username != user || seen[event.AuditID] {
			continue
		}
		seen[event.AuditID] = true
		call := APICall{
			Verb: event.Verb, Group: event.ObjectRef.APIGroup, Resource: event.ObjectRef.Resource,
			Namespace: event.ObjectRef.Namespace, Name: event.ObjectRef.Name, Path: event.RequestURI, Code: event.ResponseStatus.Code,
		}
		if event.ObjectRef.Subresource != "" {
			call.Resource += "/" + event.ObjectRef.Subresource
		}
		calls = append(calls, call)
	}
	return calls, nil
}

// KubernetesFor starts a cluster that lives as long as the test.
func KubernetesFor(tb testing.TB) *Kubernetes {
	tb.Helper()
	k, err := StartKubernetes(tb.Context(), tb.TempDir())
	if errors.Is(err, ErrNoKubernetes) {
		Missing(tb, err.Error())
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(k.Kill)
	return k
}

var shared struct {
	sync.Mutex
	cluster *Kubernetes
	folder  string
	err     error
}

// SharedKubernetes is a cluster for all tests of a package, which the first that asks for it starts. The package's
// TestMain calls EndSharedKubernetes after the tests. Tests keep to namespaces of their own.
func SharedKubernetes(tb testing.TB) *Kubernetes {
	tb.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster == nil && shared.err == nil {
		//nolint:usetesting // it outlives the test
		if shared.folder, shared.err = os.MkdirTemp("", "bellhop-kubernetes-"); shared.err == nil {
			shared.cluster, shared.err = StartKubernetes(context.WithoutCancel(tb.Context()), shared.folder)
		}
	}
	if errors.Is(shared.err, ErrNoKubernetes) {
		Missing(tb, shared.err.Error())
	}
	if shared.err != nil {
		tb.Fatal(shared.err)
	}
	return shared.cluster
}

// EndSharedKubernetes ends the cluster that the tests of a package had in common, if one of them started it.
func EndSharedKubernetes() {
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster != nil {
		shared.cluster.Kill()
		shared.cluster = nil
	}
	if shared.folder != "" {
		_ = os.RemoveAll(shared.folder) // what is left is in the folder for such things
		shared.folder = ""
	}
}

// authority issues the certificates of a cluster.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// pair is a certificate and its key, in PEM.
type pair struct{ cert, key []byte }

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bellhop's tests"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{cert: cert, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, err
}

// issue makes a certificate of a user and its groups, with which one can serve on loopback as well.
func (a *authority) issue(user string, groups []string) (pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		return pair{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: user, Organization: groups},
		NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, a.cert, key.Public(), a.key)
	if err != nil {
		return pair{}, err
	}
	text, err := x509.MarshalECPrivateKey(key)
	return pair{
		cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: text}),
	}, err
}

// Package kubernetes runs tenants' compute on a Kubernetes cluster: one Deployment per resource, with a Service when it
// has ports, or one Job per operation for work that ends.
//
// Everything is in the objects' names, labels and annotations; the provider itself remembers nothing. A deployment's name
// derives from tenant and resource. An operation claims it by creating it, and takes it over by server-side apply upon
// the version that it has read: so of two operations that race, the later one to write reads what the other wrote, and
// the newer generation wins. A deletion signs what it deletes, so that an older operation finds it taken over and a
// watcher knows whose deletion it was.
//
// Pods run under the restricted Pod Security Standard, without a token of the cluster, unless the configuration says
// otherwise.
package kubernetes

import (
	"context"
	"fmt"
	"net/http"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"bellhop"
	"bellhop/activities"
)

// Provider is one cluster. It keeps the law of [activities.Provider].
type Provider struct {
	config  Config
	cluster kubernetes.Interface
	http    *http.Client
	// clock is the cluster's.
	clock activities.Clock
}

var _ activities.Provider = (*Provider)(nil)

// New makes the provider of one cluster. It reports everything that is wrong with the configuration at once and asks the
// cluster nothing: one that is down is no fault of the configuration.
func New(config Config) (*Provider, error) {
	var faults bellhop.Faults
	config, err := config.withDefaults()
	faults.Note("", err)
	access, err := connect(config)
	faults.Note("kubeconfig", err)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	p := &Provider{config: config}
	access.UserAgent = rest.DefaultKubernetesUserAgent() + " bellhop"
	access.QPS = -1 // the API server says when it is asked too much
	access.Wrap(func(next http.RoundTripper) http.RoundTripper { return wire{next, &p.clock} })
	if p.http, err = rest.HTTPClientFor(access); err != nil {
		return nil, bellhop.Faults{{Path: "kubeconfig", Problem: err.Error()}}
	}
	if p.cluster, err = kubernetes.NewForConfigAndClient(access, p.http); err != nil {
		return nil, bellhop.Faults{{Path: "kubeconfig", Problem: err.Error()}}
	}
	return p, nil
}

// connect finds out where the cluster is and who we are there.
func connect(config Config) (*rest.Config, error) {
	if config.Kubeconfig == "" && config.Context == "" {
		if access, err := rest.InClusterConfig(); err == nil {
			return access, nil
		}
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = config.Kubeconfig
	access, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules,
		&clientcmd.ConfigOverrides{CurrentContext: config.Context}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	return access, nil
}

// Close lets go of the connections to the cluster.
func (p *Provider) Close() error {
	p.http.CloseIdleConnections()
	return nil
}

// Check is [Check], and also reports what the provider's entry does not allow the tenant.
func (p *Provider) Check(op bellhop.Operation) error {
	_, faults := p.check(op)
	return faults.Err()
}

func (p *Provider) check(op bellhop.Operation) (OperationConfig, bellhop.Faults) {
	config, faults := check(op)
	if op.Verb != bellhop.Delete {
		p.config.permits(op, &faults)
	}
	return config, faults
}

// Provision brings the operation's deployment or job into being, or makes the deployment that is there match the spec.
func (p *Provider) Provision(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	return p.ask(ctx, op, p.bringUp)
}

// Update does the same; there must be something to update.
func (p *Provider) Update(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	return p.ask(ctx, op, p.bringUp)
}

// Delete removes everything of the resource up to the operation's generation, what is asked for first going last.
func (p *Provider) Delete(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	return p.ask(ctx, op, p.takeDown)
}

// errStale says that an object was not as it was read when it was to be written: somebody else was faster.
type staleError struct{ cause error }

func (staleError) Error() string   { return "it was changed meanwhile" }
func (s staleError) Unwrap() error { return s.cause }

// tries is how often a resource is read anew after somebody else was faster to write it. The controllers write too, a
// few times at the beginning of a rollout.
const tries = 10

// ask reads the resource, does what the verb says upon what it has read, and tells where that stands.
func (p *Provider) ask(ctx context.Context, op bellhop.Operation,
	do func(context.Context, bellhop.Operation, standing) error,
) (bellhop.Observation, error) {
	var (
		there standing
		err   error
	)
	for range tries {
		if there, err = p.look(ctx, p.keyOf(op)); err != nil {
			break
		}
		if there.newest().After(op.Generation()) {
			return there.superseded(op.Generation()), nil
		}
		if err = do(ctx, op, there); !isStale(err) {
			break
		}
		err = classify(err, "change "+p.keyOf(op).String())
	}
	if failure := activities.Ended(err); failure != nil {
		return p.failed(op, there, failure), nil
	}
	if err != nil {
		return bellhop.Observation{}, err
	}
	return p.Observe(ctx, op)
}

// failed is the end of an operation that could not be carried out, with what stands nevertheless.
func (p *Provider) failed(op bellhop.Operation, there standing, failure *bellhop.Failure) bellhop.Observation {
	observation := there.observation(op.Generation())
	observation.Phase = bellhop.PhaseFailed
	observation.Failure = failure.Clean(op.Secrets())
	observation.Progress = bellhop.Progress{Message: observation.Failure.Message, Desired: op.Spec.Replicas}
	return observation
}

// Observe tells where the operation stands, and changes nothing.
func (p *Provider) Observe(ctx context.Context, op bellhop.Operation) (bellhop.Observation, error) {
	there, err := p.look(ctx, p.keyOf(op))
	if err != nil {
		return bellhop.Observation{}, err
	}
	if op.Verb == bellhop.Delete {
		return there.removal(op.Generation()), nil
	}
	observation, _ := p.assess(op.Generation(), there)
	if observation.Phase == bellhop.PhaseFailed {
		p.prove(ctx, there, &observation)
	}
	return observation, ctx.Err()
}

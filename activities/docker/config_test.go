package docker

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bellhop"
)

func TestConfigReportsEveryFault(t *testing.T) {
	_, err := New(Config{PublishAddress: "localhost", StopTimeout: 1, SteadyAfter: -1, Resync: 1, PidsLimit: -2})
	want := "pids_limit: must be positive, or -1 for no limit; " +
		`publish_address: must be an IP address, not "localhost"; ` +
		"resync: must be at least 1s; steady_after: must be at least 1ms; " +
		"stop_timeout: must be at least 1s; stop_timeout: must be whole seconds: the engine knows no less"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	const mixed = `default_network: gives one tenant what "net-{tenant}" gives another tenant; both need the same text before {tenant}, ` +
		"or texts neither of which begins with the other"
	for want, config := range map[string]Config{
		"host: unable to parse docker host `nowhere`":                                    {Host: "nowhere"},
		"advertise_address: is required when publish_address is 0.0.0.0":                 {PublishAddress: "0.0.0.0"},
		`networks[1]: must not be "host": it gives tenants a network that is not theirs`: {Networks: []string{"web", "host"}},
		`networks[0]: must have a character that no tenant's name has, such as "/", between {tenant} and "*": ` +
			`otherwise tenant "a" may name what belongs to tenant "a-b"`: {Networks: []string{"{tenant}-*"}},
		`default_network: must be the name of a network, and not "host"`:                                      {DefaultNetwork: "host"},
		`default_network: must be the name of a network, and not "container:x"`:                               {DefaultNetwork: "container:x"},
		`default_network: must be the name of a network, and not "net-*"`:                                     {DefaultNetwork: "net-*"},
		"default_network: must have more in it than {tenant}: a tenant could have the name of something else": {DefaultNetwork: "{tenant}"},
		mixed: {DefaultNetwork: "net-x-{tenant}", Networks: []string{"net-{tenant}"}},
		"docker_config: must have no braces but those of {tenant}":                                      {DockerConfig: "/etc/{tennant}/config.json"},
		"images[0]: must have more in it than {tenant}: a tenant could have the name of something else": {Images: []string{"{tenant}/*"}},
	} {
		if _, err := New(config); err == nil || err.Error() != want {
			t.Errorf("%+v:\ngot  %v\nwant %s", config, err, want)
		}
	}
}

func TestConfigDefaults(t *testing.T) {
	p, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, p)
	want := Config{
		PublishAddress: "127.0.0.1", AdvertiseAddress: "127.0.0.1", StopTimeout: 10e9, SteadyAfter: 1e9, Resync: 60e9,
		PidsLimit: 4096,
	}
	if diff := cmp.Diff(want, p.config); diff != "" {
		t.Error(diff)
	}
}

func TestCheck(t *testing.T) {
	p, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, p)
	for _, row := range []struct {
		reason string
		verb   bellhop.Verb
		spec   bellhop.Spec
		config string
		want   string
	}{
		{reason: "nothing is wrong with the defaults", verb: bellhop.Provision, spec: bellhop.Spec{Image: "nginx:1.27"}},
		{reason: "a delete has no spec", verb: bellhop.Delete},
		{
			reason: "every fault is reported, of the spec and of provider_config alike", verb: bellhop.Update,
			spec: bellhop.Spec{Image: "NGINX", MemoryMiB: 5, CPUMillis: 9, Ports: []bellhop.Port{{ContainerPort: 80, Protocol: "tcp"}}},
			config: `{"restart": "no", "pull": "sometimes", "network": "none",
				"restart_policy": {"name": "always", "max_retries": 101}}`,
			want: `provider_config.network: must not be "none" when there are ports to publish; ` +
				`provider_config.pull: must be "missing", "always" or "never"; ` +
				`provider_config.restart: is not a known field (known are init, network, pull, restart_policy); ` +
				`provider_config.restart_policy.max_retries: must be 0 to 100; ` +
				`provider_config.restart_policy.name: must be "no", "on-failure" or "unless-stopped"; ` +
				`spec.cpu_millis: must be at least 10 for Docker; ` +
				`spec.image: is not the name of an image: invalid reference format: repository name (library/NGINX) must be lowercase; ` +
				`spec.memory_mib: must be at least 6 for Docker`,
		},
		{
			reason: "the machine's own network is not the tenant's", verb: bellhop.Provision,
			spec: bellhop.Spec{Image: "nginx"}, config: `{"network": "host"}`,
			want: `provider_config.network: must not be "host": it would give the tenant a network that is not its own`,
		},
		{
			reason: "nor is another container's", verb: bellhop.Provision,
			spec: bellhop.Spec{Image: "nginx"}, config: `{"network": "container:x"}`,
			want: `provider_config.network: must not be "container:x": it would give the tenant a network that is not its own`,
		},
		{
			reason: "the engine takes 0 for without end", verb: bellhop.Provision,
			spec: bellhop.Spec{Image: "nginx"}, config: `{"restart_policy": {"name": "on-failure", "max_retries": 0}}`,
			want: `provider_config.restart_policy.max_retries: must be at least 1 with "on-failure"; use "no"`,
		},
		{
			reason: "what is not restarted has no number of restarts", verb: bellhop.Provision,
			spec: bellhop.Spec{Image: "nginx"}, config: `{"restart_policy": {"name": "no", "max_retries": 1}}`,
			want: `provider_config.restart_policy.max_retries: must be left out when nothing is restarted`,
		},
	} {
		err := p.Check(bellhop.Operation{Verb: row.verb, Spec: row.spec, ProviderConfig: json.RawMessage(row.config)})
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != row.want {
			t.Errorf("%s:\ngot  %s\nwant %s", row.reason, got, row.want)
		}
	}
}

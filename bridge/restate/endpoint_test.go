package restate_test

import (
	"strings"
	"testing"
	"time"

	"bellhop"
	"bellhop/bridge/restate"
)

func TestComputeConfig(t *testing.T) {
	t.Parallel()
	const key = "publickeyv1_2G8dCQhArfvGpzPw5Vx2ALciR4xCLHfS5YaT93XjNxX9"
	for _, row := range []struct {
		config restate.ComputeConfig
		want   string
	}{
		{config: restate.ComputeConfig{Target: "r"}},
		{config: restate.ComputeConfig{Target: "r", Listen: "localhost:9080"}},
		{config: restate.ComputeConfig{Target: "r", Listen: "[::1]:9080"}},
		{config: restate.ComputeConfig{Target: "r", Listen: ":9080", IdentityKeys: []string{key}}},
		{config: restate.ComputeConfig{}, want: "target: is required"},
		{config: restate.ComputeConfig{Target: "r", Listen: "9080"}, want: "listen: must be host:port"},
		{config: restate.ComputeConfig{Target: "r", Listen: ":9080"}, want: "identity_keys: are required"},
		{config: restate.ComputeConfig{Target: "r", Listen: "0.0.0.0:9080"}, want: "identity_keys: are required"},
		{config: restate.ComputeConfig{Target: "r", Listen: "bellhop.internal:9080"}, want: "identity_keys: are required"},
		{config: restate.ComputeConfig{Target: "r", IdentityKeys: []string{key, "publickeyv1_1"}}, want: "identity_keys[1]: "},
		{config: restate.ComputeConfig{Target: "r", PollAfter: bellhop.Duration(time.Millisecond)}, want: "poll_after: must be at least 1s"},
	} {
		err := row.config.Check()
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%+v: %v, want %q", row.config, err, row.want)
		}
	}
}

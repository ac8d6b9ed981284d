package docs

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"sigs.k8s.io/yaml"

	"bellhop/tests/peers"
)

// Neither Temporal nor its database asks anybody who they are. Nothing joins the database's network that does not need it,
// and nothing is in a network that Compose makes by itself, which other containers would share without a word.
func TestCompose_NetworksAreApart(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(peers.Root(), "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var compose struct {
		Services map[string]struct {
			Networks []string `json:"networks"`
			Ports    []string `json:"ports"`
		} `json:"services"`
		Networks map[string]struct {
			Internal bool `json:"internal"`
		} `json:"networks"`
	}
	if err := yaml.Unmarshal(text, &compose); err != nil {
		t.Fatal(err)
	}
	assert.True(t, compose.Networks["database"].Internal)
	for name, service := range compose.Services {
		assert.NotEmpty(t, service.Networks, "%s is in the default network", name)
		if slices.Contains(service.Networks, "database") {
			assert.Contains(t, []string{"postgresql", "temporal", "temporal-schema"}, name)
		}
		for _, port := range service.Ports {
			assert.Regexp(t, `^127\.0\.0\.1:`, port, "%s is published beyond this machine", name)
		}
	}
	assert.Equal(t, []string{"database"}, compose.Services["postgresql"].Networks)
}

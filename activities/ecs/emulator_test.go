package ecs

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"bellhop"
	"bellhop/tests/peers"
	"bellhop/tests/peers/scriptedecs"
)

// TestEmulator goes through somebody else's reading of ECS's API, in which nothing fails.
func TestEmulator(t *testing.T) {
	credentials(t)
	emulator := peers.MinistackFor(t)
	settings := config(&scriptedecs.Server{URL: emulator.Endpoint})
	d := &desk{T: t, provider: made(t, settings)}
	require.Eventually(t, func() bool { // it says that it is ready an instant before it is
		_, err := d.provider.forAll().ecs.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: aws.String("default")})
		return err == nil
	}, time.Minute, 20*time.Millisecond)
	reports := d.watch()

	spec := image("ready")
	spec.Ports = []bellhop.Port{{ContainerPort: 80}}
	spec.Env = map[string]string{"MODE": "one"}
	provision := d.operation(bellhop.Provision, "web", spec, "")
	first := d.end(provision)
	require.Equal(t, bellhop.PhaseReady, first.Phase, "%v", first.Failure)
	assert.Len(t, first.ResourceIDs.TaskARNs, 2)
	require.Eventually(t, func() bool { return reports(provision.ID) == bellhop.PhaseReady }, time.Minute, 5*time.Millisecond)

	spec.Env = map[string]string{"MODE": "two"}
	second := d.end(d.operation(bellhop.Update, "web", spec, ""))
	require.Equal(t, bellhop.PhaseReady, second.Phase, "%v", second.Failure)
	assert.NotEqual(t, first.ResourceIDs.TaskDefinitionARN, second.ResourceIDs.TaskDefinitionARN)
	holdings, err := d.provider.Inventory(t.Context())
	require.NoError(t, err)
	require.Len(t, holdings, 1)
	assert.Equal(t, second.OperationID, holdings[0].OperationID)

	job := d.operation(bellhop.Provision, "job", image("done"), `{"kind": "task"}`)
	started, err := d.provider.Provision(t.Context(), job)
	require.NoError(t, err)
	assert.Len(t, started.ResourceIDs.TaskARNs, 2)
	for _, resource := range []string{"web", "job"} {
		assert.Equal(t, bellhop.PhaseGone, d.end(d.operation(bellhop.Delete, resource, bellhop.Spec{}, "")).Phase, resource)
	}
	holdings, err = d.provider.Inventory(t.Context())
	require.NoError(t, err)
	assert.Empty(t, holdings)
}

// TestExamples keeps the operations in the documentation such as ECS takes.
func TestExamples(t *testing.T) {
	for _, name := range []string{"service.yaml", "task.yaml"} {
		text, err := os.ReadFile(filepath.Join("../../docs/examples/ecs", name))
		require.NoError(t, err)
		data, err := yaml.YAMLToJSONStrict(text)
		require.NoError(t, err)
		op, err := bellhop.ParseOperation("example", bellhop.Provision, time.Now(), data)
		require.NoError(t, err, name)
		require.NoError(t, Check(op), name)
	}
}

package activities_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"bellhop"
	"bellhop/activities"
)

func TestPlaces_OfEachTenant(t *testing.T) {
	t.Parallel()
	began, release := make(chan string, 4), make(chan struct{})
	acts := &activities.Activities{
		Places: activities.NewPlaces(2, func(tenant string) int { return map[string]int{"rival": 1}[tenant] }),
		Providers: map[string]activities.Provider{"sim": asked{provision: func(_ context.Context, op bellhop.Operation) (bellhop.Observation, error) {
			if op.TenantID != "victim" {
				began <- op.ID
				<-release
			}
			return bellhop.Observation{Phase: bellhop.PhasePending}, nil
		}}},
	}
	provision := func(tenant string) error {
		env := newSuite().NewTestActivityEnvironment()
		env.RegisterActivity(acts)
		op := operation()
		op.TenantID = tenant
		_, err := env.ExecuteActivity(acts.Provision, op)
		return err
	}
	slow := make(chan error, 2)
	go func() { slow <- provision("rival") }()
	<-began
	var waits *temporal.ApplicationError
	require.ErrorAs(t, provision("rival"), &waits)
	require.Equal(t, activities.ErrorWaiting, waits.Type())
	require.False(t, waits.NonRetryable())
	require.Greater(t, waits.NextRetryDelay(), time.Duration(0))
	require.NoError(t, provision("victim"), "another tenant's places are its own")
	go func() { slow <- provision("slow") }()
	<-began
	require.ErrorAs(t, provision("victim"), &waits)
	require.Contains(t, waits.Message(), "2 asks are under way at this worker")
	close(release)
	require.NoError(t, <-slow)
	require.NoError(t, <-slow)
	require.NoError(t, provision("rival"), "a place that was given back is there again")
}

// Attempts that found no place, or that another worker sent on, are not counted among those that failed.
func TestAsk_UnforeseenErrorsAreCountedAlone(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		before int
		ends   bool
	}{{0, false}, {4, false}, {5, true}} {
		env := newSuite().NewTestActivityEnvironment()
		env.SetHeartbeatDetails(map[string]any{"unforeseen": row.before})
		acts := &activities.Activities{Providers: map[string]activities.Provider{
			"sim": asked{provision: func(context.Context, bellhop.Operation) (bellhop.Observation, error) {
				return bellhop.Observation{}, errors.New("nobody foresaw this")
			}},
		}}
		env.RegisterActivity(acts)
		value, err := env.ExecuteActivity(acts.Provision, operation())
		if !row.ends {
			require.Error(t, err)
			continue
		}
		require.NoError(t, err)
		var answer activities.Answer
		require.NoError(t, value.Get(&answer))
		require.Equal(t, bellhop.CodeInternal, answer.Failure.Code)
	}
}

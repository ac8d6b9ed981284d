package scriptedecs_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"bellhop/tests/peers/scriptedecs"
)

func (a *account) delete(name string, force bool) error {
	_, err := a.client.DeleteService(a.Context(), &ecs.DeleteServiceInput{Service: &name, Force: &force})
	return err
}

func TestACreateIsSafeToRepeatWithItsToken(t *testing.T) {
	a := setup(t, scriptedecs.Options{})
	definition := a.define("ready")
	same := func(in *ecs.CreateServiceInput) { in.TaskDefinition = &definition }
	first := a.created("web", "ready", same)
	if again := a.created("web", "ready", same); *again.Deployments[0].Id != *first.Deployments[0].Id {
		t.Errorf("asked again it is deployment %s, not %s", *again.Deployments[0].Id, *first.Deployments[0].Id)
	}
	for name, change := range map[string]func(*ecs.CreateServiceInput){
		"another token":  func(in *ecs.CreateServiceInput) { in.ClientToken = aws.String("another") },
		"other contents": func(in *ecs.CreateServiceInput) { in.DesiredCount = aws.Int32(2) },
	} {
		if _, err := a.create("web", "ready", same, change); code(err) != "InvalidParameterException" || !strings.Contains(err.Error(), "Creation of service was not idempotent.") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestADeletedServiceDrainsAndIsForgotten(t *testing.T) {
	a := setup(t, scriptedecs.Options{Step: 100 * time.Millisecond, KeepInactive: 2 * time.Second})
	a.completed("web", "ready")
	if err := a.delete("web", false); code(err) != "InvalidParameterException" {
		t.Errorf("deleted while it is wanted: %v", err)
	}
	if err := a.delete("web", true); err != nil {
		t.Fatal(err)
	}
	if seen := a.describe("web"); *seen.Status != "DRAINING" || seen.DesiredCount != 0 {
		t.Errorf("just deleted it is %s and wants %d", *seen.Status, seen.DesiredCount)
	}
	if _, err := a.create("web", "ready"); code(err) != "InvalidParameterException" || !strings.Contains(err.Error(), "Unable to Start a service that is still Draining.") {
		t.Errorf("created while it drains: %v", err)
	}
	a.until("inactive", func() bool { return *a.describe("web").Status == "INACTIVE" })
	if left := a.tasks(&ecs.ListTasksInput{ServiceName: aws.String("web")}); len(left) != 0 {
		t.Errorf("inactive with %d tasks", len(left))
	}
	_, err := a.client.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: aws.String("web"), DesiredCount: aws.Int32(1)})
	if code(err) != "ServiceNotActiveException" {
		t.Errorf("updated when it is inactive: %v", err)
	}
	a.until("forgotten", func() bool { return a.describe("web") == nil })
	if err := a.delete("web", true); code(err) != "ServiceNotFoundException" {
		t.Errorf("deleted when it is forgotten: %v", err)
	}
	a.completed("web", "ready")
}

func TestANameIsFreeOnceItsServiceIsInactive(t *testing.T) {
	a := setup(t, scriptedecs.Options{})
	first := a.completed("web", "ready")
	if err := a.delete("web", true); err != nil {
		t.Fatal(err)
	}
	a.until("inactive", func() bool { return *a.describe("web").Status == "INACTIVE" })
	if second := a.completed("web", "ready"); *second.Deployments[0].Id == *first.Deployments[0].Id {
		t.Error("the old service came back")
	}
}

func TestDeploymentsHinderADeletionThatIsNotForced(t *testing.T) {
	a := setup(t, scriptedecs.Options{Step: 100 * time.Millisecond})
	a.completed("web", "ready")
	a.update("web", "slow")
	_, err := a.client.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: aws.String("web"), DesiredCount: aws.Int32(0)})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.delete("web", false); code(err) != "InvalidParameterException" || !strings.Contains(err.Error(), "while deployments are active") {
		t.Errorf("deleted in a rollout: %v", err)
	}
	a.until("it can be deleted", func() bool { return a.delete("web", false) == nil })
}

func TestANewServiceMayBeMissingAtFirst(t *testing.T) {
	a := setup(t, scriptedecs.Options{MissingDescribes: 2})
	a.created("web", "ready")
	for range 2 {
		if seen := a.describe("web"); seen != nil {
			t.Fatalf("it is there at once: %+v", seen)
		}
	}
	a.rolled("web", types.DeploymentRolloutStateCompleted)
}

func TestAnUpdateThatChangesNothingIsNoDeployment(t *testing.T) {
	a := setup(t, scriptedecs.Options{})
	before := a.completed("web", "ready")
	out, err := a.client.UpdateService(t.Context(), &ecs.UpdateServiceInput{
		Service: aws.String("web"), TaskDefinition: before.TaskDefinition, DesiredCount: aws.Int32(3), NetworkConfiguration: network(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if *out.Service.Deployments[0].Id != *before.Deployments[0].Id {
		t.Error("it made a deployment")
	}
	a.until("three run", func() bool { return a.describe("web").RunningCount == 3 })
}

func TestServicesComeInPages(t *testing.T) {
	a := setup(t, scriptedecs.Options{Step: time.Hour})
	want := make([]string, 23)
	for i := range want {
		want[i] = *a.created(fmt.Sprintf("web-%02d", i), "slow").ServiceArn
	}
	var got []string
	pages := 0
	for pager := ecs.NewListServicesPaginator(a.client, &ecs.ListServicesInput{MaxResults: aws.Int32(10)}); pager.HasMorePages(); pages++ {
		page, err := pager.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, page.ServiceArns...)
	}
	if !slices.Equal(got, want) || pages != 3 {
		t.Errorf("%d pages list %d services", pages, len(got))
	}
	_, err := a.client.DescribeServices(t.Context(), &ecs.DescribeServicesInput{Services: got[:11]})
	if code(err) != "InvalidParameterException" {
		t.Errorf("eleven at once: %v", err)
	}
	_, err = a.client.ListServices(t.Context(), &ecs.ListServicesInput{MaxResults: aws.Int32(101)})
	if code(err) != "InvalidParameterException" {
		t.Errorf("a page of 101: %v", err)
	}
}

func TestTagsAreKept(t *testing.T) {
	a := setup(t, scriptedecs.Options{})
	service := a.completed("web", "ready")
	_, err := a.client.TagResource(t.Context(), &ecs.TagResourceInput{ResourceArn: service.ServiceArn, Tags: []types.Tag{
		{Key: aws.String("tenant"), Value: aws.String("other")}, {Key: aws.String("more"), Value: aws.String("1")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = a.client.UntagResource(t.Context(), &ecs.UntagResourceInput{ResourceArn: service.ServiceArn, TagKeys: []string{"more"}}); err != nil {
		t.Fatal(err)
	}
	tags := a.describe("web").Tags
	if len(tags) != 1 || *tags[0].Value != "other" {
		t.Errorf("its tags are %+v", tags)
	}
	out, err := a.client.DescribeServices(t.Context(), &ecs.DescribeServicesInput{Services: []string{"web"}})
	if err != nil || out.Services[0].Tags != nil {
		t.Errorf("nobody asked for tags: %+v, %v", out, err)
	}
}

func TestNoCapacityIsSaidInTheEventsAndNoFailure(t *testing.T) {
	a := setup(t, scriptedecs.Options{})
	a.created("web", "no-capacity")
	a.until("the event", func() bool { return says(a.describe("web"), "Capacity is unavailable at this time") })
	if seen := a.describe("web"); seen.Deployments[0].RolloutState != types.DeploymentRolloutStateInProgress || seen.PendingCount != 0 {
		t.Errorf("without capacity it is %+v", seen)
	}
}

func TestSomebodyElsesServiceIsWatchedOver(t *testing.T) {
	a := setup(t, scriptedecs.Options{})
	intact, err := a.server.Foreign("default", "web")
	if err != nil {
		t.Fatal(err)
	}
	if err := intact(); err != nil {
		t.Error(err)
	}
	if _, err := a.create("web", "ready"); code(err) != "InvalidParameterException" {
		t.Errorf("its name was taken: %v", err)
	}
	if err := a.delete("web", true); err != nil {
		t.Fatal(err)
	}
	if intact() == nil {
		t.Error("it was deleted, and nobody noticed")
	}
}

func TestWhatBreaksStaysBroken(t *testing.T) {
	a := setup(t, scriptedecs.Options{})
	a.completed("web", "ready")
	if len(a.server.Standing("tenant", "acme")) != 1 || len(a.server.Remains("tenant")) != 2 {
		t.Errorf("standing %q, remaining %q", a.server.Standing("tenant", "acme"), a.server.Remains("tenant"))
	}
	if n := a.server.Break("tenant", "acme"); n != 1 {
		t.Fatalf("%d broke", n)
	}
	a.until("three failures", func() bool {
		return len(a.tasks(&ecs.ListTasksInput{ServiceName: aws.String("web"), DesiredStatus: types.DesiredStatusStopped})) >= 3
	})
	if seen := a.describe("web"); seen.RunningCount != 0 {
		t.Errorf("%d run", seen.RunningCount)
	}
}

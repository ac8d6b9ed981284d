package scriptedecs_test

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"bellhop/tests/peers/scriptedecs"
)

func TestFaultsBefallSoManyCalls(t *testing.T) {
	a := setup(t, scriptedecs.Options{})
	began := time.Now()
	list := func() string {
		_, err := a.client.ListServices(t.Context(), &ecs.ListServicesInput{})
		return code(err)
	}
	a.server.Throttle("ecs:ListServices", 2)
	a.server.FailInside("", 1)
	a.server.Fail("ecs:CreateService", 1, "LimitExceededException", "too many")
	for _, want := range []string{"ThrottlingException", "ThrottlingException", "ServerException", "<nil>"} {
		if got := list(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if _, err := a.create("web", "ready"); code(err) != "LimitExceededException" {
		t.Errorf("created: %v", err)
	}
	a.server.Deny("ecs:ListServices")
	if got := list(); got != "AccessDeniedException" {
		t.Errorf("denied: %s", got)
	}
	a.server.Allow("ecs:ListServices")
	if got := list(); got != "<nil>" {
		t.Errorf("allowed again: %s", got)
	}
	if n := a.server.CallsSince(began)["ecs:ListServices"]; n != 6 {
		t.Errorf("%d calls were counted, want 6", n)
	}
	if n := a.server.CallsSince(time.Now()); len(n) != 0 {
		t.Errorf("since now: %v", n)
	}
}

func TestALostAnswerIsOfACallThatWasMade(t *testing.T) {
	a := setup(t, scriptedecs.Options{})
	definition := a.define("ready")
	same := func(in *ecs.CreateServiceInput) { in.TaskDefinition = &definition }
	a.server.Lose("ecs:CreateService", 1)
	if _, err := a.create("web", "ready", same); err == nil || code(err) == "" || strings.Contains(err.Error(), "StatusCode: 4") {
		t.Fatalf("the answer was lost: %v", err)
	}
	if a.describe("web") == nil {
		t.Error("the service was not made")
	}
	a.created("web", "ready", same)
}

func TestTheQuotasOfAnAccount(t *testing.T) {
	a := setup(t, scriptedecs.Options{Quotas: true})
	throttled := 0
	for range 30 {
		if _, err := a.client.DeregisterTaskDefinition(t.Context(), &ecs.DeregisterTaskDefinitionInput{TaskDefinition: aws.String("nobody:1")}); code(err) == "ThrottlingException" {
			throttled++
		}
	}
	if throttled == 0 || throttled > 10 {
		t.Errorf("%d of 30 calls at once were throttled; a burst is 20", throttled)
	}
}

func TestWhoAssumedARoleIsKnown(t *testing.T) {
	a := setup(t, scriptedecs.Options{})
	role := "arn:aws:iam::111122223333:role/tenant-acme"
	assume := stscreds.NewAssumeRoleProvider(sts.New(sts.Options{
		BaseEndpoint: &a.server.URL, Region: "eu-central-1", Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""), Retryer: aws.NopRetryer{},
	}), role, func(o *stscreds.AssumeRoleOptions) { o.ExternalID = aws.String("acme-1") })
	client := ecs.New(ecs.Options{BaseEndpoint: &a.server.URL, Region: "eu-central-1", Credentials: assume})
	if _, err := client.ListServices(t.Context(), &ecs.ListServicesInput{}); err != nil {
		t.Fatal(err)
	}
	calls := a.server.Calls()
	if len(calls) != 2 || calls[0].Action != "sts:AssumeRole" || !strings.Contains(string(calls[0].Body), "ExternalId=acme-1") || calls[1].Role != role {
		t.Errorf("the calls were %+v", calls)
	}
	a.server.Deny("sts:AssumeRole")
	if _, err := assume.Retrieve(t.Context()); code(err) != "AccessDenied" {
		t.Errorf("denied: %v", err)
	}
}

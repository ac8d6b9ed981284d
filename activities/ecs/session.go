package ecs

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/middleware"
	"golang.org/x/time/rate"

	"bellhop"
	"bellhop/internal/allowlist"
	"bellhop/internal/awsclient"
)

// clients are those of one role.
type clients struct {
	cluster string
	ecs     *ecs.Client
	logs    *cloudwatchlogs.Client
	sqs     *sqs.Client
}

// maxRoles is how many roles' clients and credentials are kept.
const maxRoles = 4096

// callTimeout bounds one call to AWS, so that one that hangs is not waited for without end.
const callTimeout = 30 * time.Second

func load(config Config) (aws.Config, error) {
	loaded, err := awsclient.Load(config.Region, callTimeout)
	if config.Endpoint != "" {
		loaded.BaseEndpoint = aws.String(config.Endpoint)
	}
	return loaded, err
}

// forTenant are the clients with which things are done for a tenant.
func (p *Provider) forTenant(tenant string) *clients {
	return p.as(allowlist.ForTenant(p.config.RoleARN, tenant), allowlist.ForTenant(p.config.ExternalID, tenant), sessionName(tenant))
}

// forAll are the clients with which things are done for all tenants at once.
func (p *Provider) forAll() *clients {
	role := p.config.WatchRoleARN
	if role == "" && !strings.Contains(p.config.RoleARN+p.config.ExternalID, allowlist.Tenant) {
		role = p.config.RoleARN
	}
	external := p.config.ExternalID
	if role != p.config.RoleARN {
		external = ""
	}
	return p.as(role, external, "bellhop")
}

// sessionName is the name under which CloudTrail records what is done for a tenant.
func sessionName(tenant string) string {
	const longest, hash = 64, 10
	name := prefix + tenant
	if len(name) > longest {
		name = name[:longest-hash-1] + "-" + digest(tenant)[:hash]
	}
	return name
}

// as are the clients of a role, in a session of its own. Credentials are got when they are first needed and renewed before
// they run out.
func (p *Provider) as(role, external, session string) *clients {
	id := role + " " + external + " " + session
	if role == "" {
		id = "" // nothing is assumed, so there is no session
	}
	if known, ok := p.roles.Get(id); ok {
		return known
	}
	loaded := p.aws.Copy()
	if role != "" {
		loaded.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(p.aws), role,
			func(o *stscreds.AssumeRoleOptions) {
				o.RoleSessionName = session
				if external != "" {
					o.ExternalID = aws.String(external)
				}
			}))
	}
	made := &clients{
		cluster: p.config.Cluster,
		ecs: ecs.NewFromConfig(loaded, func(o *ecs.Options) {
			o.APIOptions = append(o.APIOptions, p.limit)
		}),
		logs: cloudwatchlogs.NewFromConfig(loaded),
		sqs:  sqs.NewFromConfig(loaded),
	}
	if known, ok, _ := p.roles.PeekOrAdd(id, made); ok {
		return known // another goroutine's
	}
	return made
}

// rates are the token buckets of one account and region, by what AWS itself keeps apart.
type rates struct{ reads, writes, definitions bucket }

// bucket is a token bucket, and a timetable for those for whom it has nothing: each is given a later time than the one
// before, lest all come back at once.
type bucket struct{ now, later *rate.Limiter }

// Bursts stay below what AWS's own buckets hold when they are full.
const (
	burstReads       = 50
	burstWrites      = 20
	burstDefinitions = 10
)

func newRates(config Config) rates {
	made := func(perSecond float64, burst int) bucket {
		return bucket{now: rate.NewLimiter(rate.Limit(perSecond), burst), later: rate.NewLimiter(rate.Limit(perSecond), 1)}
	}
	return rates{
		reads:       made(config.ReadsPerSecond, burstReads),
		writes:      made(config.WritesPerSecond, burstWrites),
		definitions: made(config.DefinitionsPerSecond, burstDefinitions),
	}
}

// of is the bucket of an operation of ECS's API.
func (r rates) of(operation string) bucket {
	switch operation {
	case "RegisterTaskDefinition", "DeregisterTaskDefinition":
		return r.definitions
	case "CreateService", "UpdateService", "DeleteService", "RunTask", "StopTask", "TagResource":
		return r.writes
	default:
		return r.reads
	}
}

// longestWait is how long a call waits for its turn. Beyond, whoever asked is told when to come back: waiting there costs
// nothing, and here a place among the worker's activities.
const longestWait = 3 * time.Second

// patientKey marks the context of a call that waits for its turn however long that takes.
type patientKey struct{}

func patient(ctx context.Context) context.Context { return context.WithValue(ctx, patientKey{}, true) }

// limit makes every call of a client wait for its turn.
func (p *Provider) limit(stack *middleware.Stack) error {
	return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("bellhop rate", func(
		ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler,
	) (middleware.InitializeOutput, middleware.Metadata, error) {
		if err := p.turn(ctx, middleware.GetOperationName(ctx)); err != nil {
			return middleware.InitializeOutput{}, middleware.Metadata{}, err
		}
		return next.HandleInitialize(ctx, in)
	}), middleware.Before)
}

func (p *Provider) turn(ctx context.Context, operation string) error {
	bucket := p.rates.of(operation)
	if ctx.Value(patientKey{}) != nil {
		if err := bucket.now.Wait(ctx); err != nil {
			return fmt.Errorf("wait for a turn to call %s: %w", operation, err)
		}
		return nil
	}
	reserved := bucket.now.Reserve()
	wait := reserved.Delay()
	if wait > longestWait {
		reserved.Cancel()
		failure := bellhop.Fail(bellhop.CodeProviderThrottled, "the provider's own rate of calls like %s is used up", operation)
		failure.RetryAfter = longestWait + bucket.later.Reserve().Delay()
		return failure
	}
	if wait == 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		reserved.Cancel()
		return ctx.Err()
	}
}

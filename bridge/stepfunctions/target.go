// Package stepfunctions calls AWS Step Functions back: it completes the task of a state machine that waits with a task
// token.
package stepfunctions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sfn"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"bellhop"
	"bellhop/bridge"
	"bellhop/internal/awsclient"
)

// Config is a target of type "stepfunctions". Credentials come from where AWS's own tools find them: the environment,
// the shared configuration files, the container's or the instance's role.
type Config struct {
	// Region is the AWS region of the state machines. Default: that of the environment or of the configuration files.
	Region string `json:"region"`
	// RoleARN is a role to assume, which must be in the state machines' account: a task token is good in its own account
	// only. Default: none, the credentials are used as they are.
	RoleARN string `json:"role_arn"`
	// Endpoint is the URL of a VPC endpoint or an emulator. Default: AWS's own for the region.
	Endpoint string `json:"endpoint"`
}

// Address finds a task.
type Address struct {
	// TaskToken is the token that the state machine gave away, $$.Task.Token. Who has it can complete the task: it is
	// a secret.
	TaskToken string `json:"task_token"`
}

// Limits of the service, in bytes.
const (
	maxOutput = 262144
	maxCause  = 32768
	maxToken  = 2048
)

// DefaultPerSecond is how many calls to the service begin in a second where nothing else is configured: what AWS refills
// its quota by in the smaller regions. In the largest it is 500.
const DefaultPerSecond = 300

// Target completes tasks in one account and region.
type Target struct {
	client      *sfn.Client
	credentials aws.CredentialsProvider
}

// New makes a target. It asks nobody: credentials are looked for at the first attempt.
func New(config Config) (*Target, error) {
	var faults bellhop.Faults
	if config.Endpoint != "" {
		if endpoint, err := url.Parse(config.Endpoint); err != nil || endpoint.Host == "" ||
			endpoint.Scheme != "http" && endpoint.Scheme != "https" {
			faults.Add("endpoint", "must be an http or https URL")
		}
	}
	const untimed = 0 // an attempt has its own deadline, and a poll for work waits long
	loaded, err := awsclient.Load(config.Region, untimed)
	switch {
	case err != nil:
		faults.Add("", "AWS's configuration cannot be read: %s", err)
	case loaded.Region == "":
		faults.Add("region", "is required: the environment names none either (AWS_REGION)")
	}
	if err := faults.Err(); err != nil {
		return nil, err
	}
	if config.RoleARN != "" {
		loaded.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(loaded), config.RoleARN,
			func(o *stscreds.AssumeRoleOptions) { o.RoleSessionName = "bellhop" }))
	}
	client := sfn.NewFromConfig(loaded, func(o *sfn.Options) {
		if config.Endpoint != "" {
			o.BaseEndpoint = aws.String(config.Endpoint)
		}
	})
	return &Target{client: client, credentials: loaded.Credentials}, nil
}

func parseAddress(raw json.RawMessage) (Address, bellhop.Faults) {
	var faults bellhop.Faults
	if len(raw) == 0 {
		faults.Add("address", `is required, such as {"task_token": "…"}`)
		return Address{}, faults
	}
	var address Address
	if faults.Note("address", bellhop.DecodeStrict(raw, &address)) {
		return address, faults
	}
	switch length := len(address.TaskToken); {
	case length == 0:
		faults.Add("address.task_token", "is required")
	case length > maxToken:
		faults.Add("address.task_token", "has %d bytes; a task token has %d at most", length, maxToken)
	}
	return address, faults
}

// Check says what is wrong with a callback's address and states.
func (t *Target) Check(callback bellhop.Callback) error {
	_, faults := parseAddress(callback.Address)
	if callback.Wants(bellhop.Running) {
		faults.Add("states", `must not have "running": a task can be completed only once`)
	}
	return faults.Err()
}

// Deliver completes the task with the outcome. A failed or cancelled operation fails it with the failure's code as error
// and the outcome as cause, unless the caller wants it as a result.
func (t *Target) Deliver(ctx context.Context, raw json.RawMessage, m bridge.Message) bridge.Result {
	address, faults := parseAddress(raw)
	if err := faults.Err(); err != nil {
		return bridge.Result{Verdict: bridge.Undeliverable, Err: err}
	}
	limit, failed := maxOutput, m.Failed(bellhop.AsError)
	if failed {
		limit = maxCause
	}
	body, err := bellhop.CutOutcome(m.Body, limit)
	if err != nil {
		return bridge.Result{Verdict: bridge.Undeliverable, Err: err}
	}
	// The client would look for credentials itself, but its error would not tell that nothing was sent.
	if _, err := t.credentials.Retrieve(ctx); err != nil {
		return withoutCredentials(ctx, err)
	}
	ctx, sent := bridge.Sending(ctx)
	if failed {
		_, err = t.client.SendTaskFailure(ctx, &sfn.SendTaskFailureInput{
			TaskToken: &address.TaskToken,
			Error:     aws.String(string(m.Failure().Code)),
			Cause:     aws.String(string(body)),
		})
	} else {
		_, err = t.client.SendTaskSuccess(ctx, &sfn.SendTaskSuccessInput{
			TaskToken: &address.TaskToken,
			Output:    aws.String(string(body)),
		})
	}
	return classify(err, sent())
}

// Heartbeat keeps the task from its heartbeat timeout.
func (t *Target) Heartbeat(ctx context.Context, raw json.RawMessage) bridge.Result {
	address, faults := parseAddress(raw)
	if err := faults.Err(); err != nil {
		return bridge.Result{Verdict: bridge.Undeliverable, Err: err}
	}
	if _, err := t.credentials.Retrieve(ctx); err != nil {
		return withoutCredentials(ctx, err)
	}
	ctx, sent := bridge.Sending(ctx)
	_, err := t.client.SendTaskHeartbeat(ctx, &sfn.SendTaskHeartbeatInput{TaskToken: &address.TaskToken})
	return classify(err, sent())
}

func withoutCredentials(ctx context.Context, err error) bridge.Result {
	const sent = false
	result := classify(err, sent)
	if _, answered := errors.AsType[*smithyhttp.ResponseError](err); !answered && ctx.Err() == nil {
		result.Verdict = bridge.Blocked // there are none
	}
	result.Err = fmt.Errorf("find credentials: %w", err)
	return result
}

// classify says what an answer means. Without one it counts whether the request may have been sent.
func classify(err error, sent bool) bridge.Result {
	if err == nil {
		return bridge.Result{Verdict: bridge.Acknowledged}
	}
	result := bridge.Result{Verdict: bridge.Retry, Unknown: sent, Err: err}
	if answered, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		status := answered.HTTPStatusCode()
		result.Unknown = sent && (status < http.StatusBadRequest || status >= http.StatusInternalServerError)
		if answered.Response != nil {
			result.RetryAfter = bridge.RetryAfter(answered.Response.Header)
		}
	}
	var api smithy.APIError
	if !errors.As(err, &api) {
		return result
	}
	result.Err = fmt.Errorf("%s: %s", api.ErrorCode(), api.ErrorMessage())
	verdict, listed := verdicts[api.ErrorCode()]
	if listed {
		result.Verdict = verdict
		result.Unknown = false
	}
	return result
}

// verdicts are what the service's errors mean. One that is not listed is retried.
var verdicts = map[string]bridge.Verdict{
	// The task ended or its time was up: it may have ended because it was told.
	"TaskTimedOut": bridge.Closed,
	// No attempt of ours can have reached these.
	"TaskDoesNotExist":    bridge.Undeliverable,
	"InvalidToken":        bridge.Undeliverable,
	"InvalidOutput":       bridge.Undeliverable,
	"ValidationException": bridge.Undeliverable,

	"KmsThrottlingException":   bridge.Retry,
	"Throttling":               bridge.Retry,
	"ThrottlingException":      bridge.Retry,
	"TooManyRequestsException": bridge.Retry,
	"RequestLimitExceeded":     bridge.Retry,

	// An operator must mend credentials or permissions.
	"AccessDenied":                bridge.Blocked,
	"AccessDeniedException":       bridge.Blocked,
	"ExpiredToken":                bridge.Blocked,
	"ExpiredTokenException":       bridge.Blocked,
	"UnrecognizedClientException": bridge.Blocked,
	"InvalidClientTokenId":        bridge.Blocked,
	"InvalidSignatureException":   bridge.Blocked,
	"MissingAuthenticationToken":  bridge.Blocked,
	"KmsAccessDeniedException":    bridge.Blocked,
	"KmsInvalidStateException":    bridge.Blocked,
}

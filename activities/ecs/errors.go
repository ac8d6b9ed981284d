package ecs

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"bellhop"
)

// classify is the one place that says what an error of AWS means. It returns nil for nil, the error of a context as it
// is, since the caller gave up and AWS did nothing wrong, and else a *[bellhop.Failure] that says what was being done.
func classify(err error, doing string) error {
	if err == nil {
		return nil
	}
	if failure, ok := errors.AsType[*bellhop.Failure](err); ok { // made by ourselves: the rate is used up
		return failure
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	said := err
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		// Without the request's id and the SDK's own words, an error that comes twice reads the same twice.
		said = errors.New(api.ErrorCode() + ": " + api.ErrorMessage())
	}
	failure := bellhop.Fail(codeOf(err), "cannot %s", doing).Because(said)
	if settles(err) {
		failure.RetryAfter = settleIn
	}
	return failure
}

// settleIn is after how long it is worth asking again for what ECS refuses while it is busy with the service.
const settleIn = 3 * time.Second

func codeOf(err error) bellhop.Code {
	api, answered := errors.AsType[smithy.APIError](err)
	if !answered {
		return codeWithoutAnswer(err)
	}
	if code, listed := codes[api.ErrorCode()]; listed {
		return code
	}
	if settles(err) {
		return bellhop.CodeProviderUnavailable
	}
	if response, ok := errors.AsType[*smithyhttp.ResponseError](err); ok && response.HTTPStatusCode() >= http.StatusInternalServerError {
		return bellhop.CodeProviderUnavailable
	}
	return bellhop.CodeInvalidSpec // the other errors of a client: AWS says what it does not like
}

// codes are what AWS's errors mean. What is not listed is invalid for 4xx and unavailable for 5xx.
var codes = map[string]bellhop.Code{
	"ThrottlingException":      bellhop.CodeProviderThrottled,
	"Throttling":               bellhop.CodeProviderThrottled,
	"TooManyRequestsException": bellhop.CodeProviderThrottled,
	"RequestLimitExceeded":     bellhop.CodeProviderThrottled,

	"ServerException":             bellhop.CodeProviderUnavailable,
	"InternalFailure":             bellhop.CodeProviderUnavailable,
	"InternalServerError":         bellhop.CodeProviderUnavailable,
	"ServiceUnavailable":          bellhop.CodeProviderUnavailable,
	"ServiceUnavailableException": bellhop.CodeProviderUnavailable,
	"RequestTimeout":              bellhop.CodeProviderUnavailable,
	"RequestTimeoutException":     bellhop.CodeProviderUnavailable,
	// Something else is being done to the service at this moment.
	"UpdateInProgressException": bellhop.CodeProviderUnavailable,
	// Credentials that have just run out are renewed for the next attempt.
	"ExpiredToken":          bellhop.CodeProviderUnavailable,
	"ExpiredTokenException": bellhop.CodeProviderUnavailable,

	"AccessDenied":                   bellhop.CodePermissionDenied,
	"AccessDeniedException":          bellhop.CodePermissionDenied,
	"BlockedException":               bellhop.CodePermissionDenied,
	"UnauthorizedException":          bellhop.CodePermissionDenied,
	"UnrecognizedClientException":    bellhop.CodePermissionDenied,
	"InvalidClientTokenId":           bellhop.CodePermissionDenied,
	"InvalidSignatureException":      bellhop.CodePermissionDenied,
	"SignatureDoesNotMatch":          bellhop.CodePermissionDenied,
	"MissingAuthenticationToken":     bellhop.CodePermissionDenied,
	"MissingAuthenticationException": bellhop.CodePermissionDenied,
	"OptInRequired":                  bellhop.CodePermissionDenied,

	// The SDK takes this for throttling. At ECS it is a quota, and waiting does not raise it.
	"LimitExceededException":        bellhop.CodeQuotaExceeded,
	"ServiceQuotaExceededException": bellhop.CodeQuotaExceeded,

	"ClusterNotFoundException":   bellhop.CodeResourceNotFound,
	"ServiceNotFoundException":   bellhop.CodeResourceNotFound,
	"ServiceNotActiveException":  bellhop.CodeResourceNotFound,
	"ResourceNotFoundException":  bellhop.CodeResourceNotFound,
	"NamespaceNotFoundException": bellhop.CodeResourceNotFound,
	"TargetNotFoundException":    bellhop.CodeResourceNotFound,

	"ConflictException": bellhop.CodeResourceConflict,
}

// settles says whether an error goes away by itself, although its class says otherwise.
func settles(err error) bool {
	return says(err, "is still Draining", "while deployments are active", "Unable to assume the service linked role")
}

// nameTaken is CreateService's answer when there is a service of that name.
func nameTaken(err error) bool { return says(err, "not idempotent") }

func says(err error, texts ...string) bool {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return false
	}
	for _, text := range texts {
		if strings.Contains(strings.ToLower(api.ErrorMessage()), strings.ToLower(text)) {
			return true
		}
	}
	return false
}

// absent says that there is no such service.
func absent(err error) bool {
	_, notFound := errors.AsType[*types.ServiceNotFoundException](err)
	_, notActive := errors.AsType[*types.ServiceNotActiveException](err)
	return notFound || notActive
}

// codeWithoutAnswer is for what AWS did not answer at all: no connection, no end of the answer, or no credentials.
func codeWithoutAnswer(err error) bellhop.Code {
	var network net.Error
	if errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return bellhop.CodeProviderUnavailable
	}
	if _, answered := errors.AsType[*smithyhttp.ResponseError](err); answered { // with what is no answer of AWS's
		return bellhop.CodeProviderUnavailable
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "retrieve credentials"), strings.Contains(text, "get identity"):
		return bellhop.CodePermissionDenied // there are none
	case strings.Contains(text, "request send failed"):
		return bellhop.CodeProviderUnavailable
	}
	return bellhop.CodeInternal
}

// again says whether err is a failure upon which the same is tried again.
func again(err error) bool {
	return codeOfFailure(err).Unavailable()
}

// codeOfFailure is that of an error that was classified, else empty.
func codeOfFailure(err error) bellhop.Code {
	if failure, ok := errors.AsType[*bellhop.Failure](err); ok {
		return failure.Code
	}
	return ""
}

// codeOfTask reads why a task stopped.
func codeOfTask(task types.Task) bellhop.Code {
	text := strings.ToLower(reasonOf(task))
	has := func(parts ...string) bool {
		for _, part := range parts {
			if strings.Contains(text, part) {
				return true
			}
		}
		return false
	}
	switch {
	case has("cannotpull"):
		return bellhop.CodeImagePullFailed
	case has("outofmemory"):
		return bellhop.CodeOutOfMemory
	case has("health check"):
		return bellhop.CodeHealthCheckFailed
	case has("resourceinitializationerror", "resourcenotfounderror"):
		if has("accessdenied", "not authorized") {
			return bellhop.CodePermissionDenied
		}
		return bellhop.CodeInvalidSpec
	case has("cannotcreatevolume", "platformunknown", "platformtaskdefinitionincompatibility"):
		return bellhop.CodeInvalidSpec
	case has("capacity", "timeout waiting for", "internalerror", "spot"):
		return bellhop.CodeCapacityUnavailable
	}
	switch task.StopCode {
	case types.TaskStopCodeSpotInterruption, types.TaskStopCodeTerminationNotice, types.TaskStopCodeInfrastructureHealth:
		return bellhop.CodeCapacityUnavailable
	case types.TaskStopCodeTaskFailedToStart, types.TaskStopCodeEssentialContainerExited, types.TaskStopCodeUserInitiated,
		types.TaskStopCodeServiceSchedulerInitiated:
	}
	return bellhop.CodeContainerExited
}

// codeOfRefusal reads why RunTask, which answers 200, did not start a task.
func codeOfRefusal(reason string) bellhop.Code {
	for _, capacity := range []string{"RESOURCE:", "AGENT", "Capacity", "capacity"} {
		if strings.Contains(reason, capacity) {
			return bellhop.CodeCapacityUnavailable
		}
	}
	return bellhop.CodeInvalidSpec
}

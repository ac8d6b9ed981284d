package kubernetes

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bellhop"
	"bellhop/activities"
)

// wire is the way to the API server. It makes one attempt: what client-go would try again by itself, for as long as it
// likes, it turns into an error that client-go lets pass. It also learns the cluster's clock, in which the ages of pods
// are told, from each answer.
type wire struct {
	next  http.RoundTripper
	clock *activities.Clock
}

func (w wire) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := w.next.RoundTrip(request)
	if err != nil {
		if request.Context().Err() != nil {
			return nil, err
		}
		return nil, unanswered{bellhop.Fail(bellhop.CodeProviderUnavailable, "the API server does not answer").Because(err)}
	}
	w.clock.Note(response)
	if response.StatusCode == http.StatusForbidden {
		if response, err = w.forbidden(request, response); err != nil {
			return nil, err
		}
	}
	// Without this header client-go gives up at the first answer.
	wait, asked := retryAfter(response)
	if !asked {
		return response, nil
	}
	said, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	response.Body.Close() //nolint:errcheck // what was said is read
	code := bellhop.CodeProviderUnavailable
	if response.StatusCode == http.StatusTooManyRequests {
		code = bellhop.CodeProviderThrottled
	}
	failure := bellhop.Fail(code, "the API server asks to come again later")
	failure.ProviderError = response.Status + ": " + strings.TrimSpace(string(said))
	if err != nil {
		failure.ProviderError = response.Status
	}
	failure.RetryAfter = wait
	return nil, unanswered{failure}
}

// retryAfter is for how long an answer asks to be left alone, where client-go would heed that.
func retryAfter(response *http.Response) (time.Duration, bool) {
	if response.StatusCode != http.StatusTooManyRequests && response.StatusCode < http.StatusInternalServerError {
		return 0, false
	}
	seconds, err := strconv.Atoi(response.Header.Get("Retry-After"))
	return time.Duration(seconds) * time.Second, err == nil
}

// forbidden makes sure of a refusal, which ends an operation. An API server that has just been started refuses everything
// until it has read the roles. So it is asked whether it is ready, and once it is the request is made again: the first
// refusal may be from before.
func (w wire) forbidden(request *http.Request, refusal *http.Response) (*http.Response, error) {
	again := request.Clone(request.Context())
	if request.GetBody != nil {
		body, err := request.GetBody()
		if err != nil {
			return refusal, nil //nolint:nilerr // it cannot be asked again, so the refusal stands
		}
		again.Body = body
	}
	refusal.Body.Close() //nolint:errcheck // nothing of it is wanted
	if !w.ready(request) {
		return nil, unanswered{bellhop.Fail(bellhop.CodeProviderUnavailable, "the API server is starting, and knows nobody's permissions yet")}
	}
	response, err := w.next.RoundTrip(again)
	if err != nil && request.Context().Err() == nil {
		err = unanswered{bellhop.Fail(bellhop.CodeProviderUnavailable, "the API server does not answer").Because(err)}
	}
	return response, err
}

// ready says whether the API server says that it is. One that does not say counts as ready.
func (w wire) ready(request *http.Request) bool {
	at := *request.URL
	at.Path, at.RawQuery = "/readyz", ""
	ask, err := http.NewRequestWithContext(request.Context(), http.MethodGet, at.String(), http.NoBody) //nolint:gosec // it is the address that was just asked
	if err != nil {
		return true
	}
	if who := request.Header["Authorization"]; who != nil {
		ask.Header["Authorization"] = who
	}
	answer, err := w.next.RoundTrip(ask)
	if err != nil {
		return false
	}
	answer.Body.Close() //nolint:errcheck // the status says all
	return answer.StatusCode < http.StatusInternalServerError
}

// unanswered carries a failure through client-go, which reads errors' texts to decide whether to try again.
type unanswered struct{ failure *bellhop.Failure }

func (unanswered) Error() string   { return "no answer" }
func (u unanswered) Unwrap() error { return u.failure }

// classify is the one place that says what an error of the API server means. It returns nil for nil, the error of a
// context as it is, since the caller gave up and the cluster did nothing wrong, and else a *[bellhop.Failure] that says
// what was being done.
func classify(err error, doing string) error {
	if err == nil {
		return nil
	}
	if u, ok := errors.AsType[unanswered](err); ok {
		failure := *u.failure
		failure.Message = "cannot " + doing + ": " + failure.Message
		return &failure
	}
	if failure, ok := errors.AsType[*bellhop.Failure](err); ok { // classified nearer to the wire
		return failure
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	code, hint := codeOf(err)
	return bellhop.Fail(code, "cannot %s%s", doing, hint).Because(err)
}

// codeOf also says what is to be done about it, where that can be said.
func codeOf(err error) (bellhop.Code, string) {
	switch {
	case namespaceMissing(err):
		return bellhop.CodeResourceNotFound, ": the namespace does not exist; create it, or set create_namespaces"
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return bellhop.CodeResourceNotFound, ": the namespace is being deleted"
	case apierrors.IsUnauthorized(err):
		return bellhop.CodePermissionDenied, ": the API server does not take the worker's credentials"
	case apierrors.IsForbidden(err):
		return codeOfForbidden(err.Error()), ""
	case apierrors.IsNotFound(err), apierrors.IsGone(err):
		return bellhop.CodeResourceNotFound, ""
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsRequestEntityTooLargeError(err),
		apierrors.IsNotAcceptable(err), apierrors.IsUnsupportedMediaType(err), apierrors.IsMethodNotSupported(err):
		return bellhop.CodeInvalidSpec, ""
	case apierrors.IsTooManyRequests(err):
		return bellhop.CodeProviderThrottled, ""
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return bellhop.CodeProviderUnavailable, ": others are changing it at the same time"
	case apierrors.IsServerTimeout(err), apierrors.IsTimeout(err), apierrors.IsServiceUnavailable(err),
		apierrors.IsInternalError(err), apierrors.IsUnexpectedServerError(err), apierrors.IsResourceExpired(err), unreachable(err):
		return bellhop.CodeProviderUnavailable, ""
	}
	if status := apierrors.APIStatus(nil); errors.As(err, &status) && status.Status().Code >= http.StatusInternalServerError {
		return bellhop.CodeProviderUnavailable, ""
	}
	return bellhop.CodeInternal, ""
}

// codeOfForbidden reads why something is forbidden: by an authorizer, by a quota, or by an admission policy. The
// conditions of deployments and jobs hold the same texts after the fact.
func codeOfForbidden(text string) bellhop.Code {
	switch {
	case strings.Contains(text, "exceeded quota"):
		return bellhop.CodeQuotaExceeded
	case strings.Contains(text, "maximum "), strings.Contains(text, "minimum "), strings.Contains(text, "failed quota"):
		return bellhop.CodeInvalidSpec // a LimitRange, or a quota that needs limits
	}
	return bellhop.CodePermissionDenied
}

// namespaceMissing says whether it is the namespace that was not found, and not the object.
func namespaceMissing(err error) bool {
	status := apierrors.APIStatus(nil)
	return errors.As(err, &status) && status.Status().Reason == metav1.StatusReasonNotFound && status.Status().Details != nil &&
		status.Status().Details.Kind == "namespaces"
}

// unreachable says whether err means that the API server stopped in the middle of an answer.
func unreachable(err error) bool {
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		strings.Contains(err.Error(), "unexpected error when reading response body")
}

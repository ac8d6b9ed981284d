package docker

import (
	"context"
	"errors"
	"io"
	"net"
	"regexp"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"bellhop"
)

// classify is the one place that says what an error of the engine means. It returns nil for nil, the error of a context
// as it is, since the caller gave up and the engine did nothing wrong, and else a *[bellhop.Failure] that says what
// was being done.
func classify(err error, doing string) error {
	if err == nil {
		return nil
	}
	if failure, ok := errors.AsType[*bellhop.Failure](err); ok { // classified nearer to the wire
		return failure
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return bellhop.Fail(codeOf(err), "cannot %s", doing).Because(err)
}

func codeOf(err error) bellhop.Code {
	text := err.Error()
	switch {
	case client.IsErrConnectionFailed(err) && strings.Contains(text, "permission denied"):
		// The SDK drops the error from below and leaves its text. Waiting opens no socket.
		return bellhop.CodePermissionDenied
	case unreachable(err):
		return bellhop.CodeProviderUnavailable
	}
	// The engine answers 500 for much that is no fault of its own, and says what it is in words only.
	if code, ok := codeOfText(text); ok {
		return code
	}
	switch {
	case errdefs.IsNotFound(err):
		return bellhop.CodeResourceNotFound
	case errdefs.IsConflict(err), errdefs.IsAlreadyExists(err):
		return bellhop.CodeResourceConflict
	case errdefs.IsInvalidArgument(err), errdefs.IsNotImplemented(err), errdefs.IsOutOfRange(err),
		errdefs.IsFailedPrecondition(err):
		return bellhop.CodeInvalidSpec
	case errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		return bellhop.CodePermissionDenied
	case errdefs.IsResourceExhausted(err):
		return bellhop.CodeProviderThrottled
	case errdefs.IsUnavailable(err), errdefs.IsInternal(err), errdefs.IsUnknown(err), errdefs.IsDeadlineExceeded(err):
		return bellhop.CodeProviderUnavailable
	}
	return bellhop.CodeInternal
}

var noNetwork = regexp.MustCompile(`network \S+ not found`)

// codeOfText reads what the engine says about a container that it could not create or start. State.Error holds the same
// texts after the fact.
func codeOfText(text string) (bellhop.Code, bool) {
	lower := strings.ToLower(text)
	has := func(parts ...string) bool {
		for _, part := range parts {
			if strings.Contains(lower, part) {
				return true
			}
		}
		return false
	}
	switch {
	case has("no such image", "pull access denied", "manifest unknown", "repository does not exist"):
		return bellhop.CodeImagePullFailed, true
	case has("port is already allocated", "address already in use", "ports are not available"):
		return bellhop.CodeResourceConflict, true
	case has("no space left on device", "cannot allocate memory", "too many open files"):
		return bellhop.CodeCapacityUnavailable, true
	case has("all predefined address pools have been fully subnetted", "no available ipv4 addresses",
		"all ports are allocated"):
		return bellhop.CodeCapacityUnavailable, true
	case noNetwork.MatchString(lower), has("minimum memory limit", "range of cpus is from"):
		return bellhop.CodeInvalidSpec, true
	}
	return "", false
}

// unreachable says whether err means that the engine did not answer, or stopped in the middle of an answer.
func unreachable(err error) bool {
	var network net.Error
	return client.IsErrConnectionFailed(err) || errors.As(err, &network) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

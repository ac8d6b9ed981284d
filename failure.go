package bellhop

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Code is why an operation failed, in one taxonomy over all providers.
type Code string

// The codes. Whether trying again may help, and whether a person must act first, follows from the code alone.
const (
	// CodeInvalidOperation: the operation cannot be read or breaks a rule. Every fault is named.
	CodeInvalidOperation Code = "INVALID_OPERATION"
	// CodeInvalidSpec: the provider refuses what the spec or its own configuration asks for.
	CodeInvalidSpec Code = "INVALID_SPEC"
	// CodeImagePullFailed: the image does not exist or may not be pulled.
	CodeImagePullFailed Code = "IMAGE_PULL_FAILED"
	// CodePermissionDenied: the provider does not let bellhop do it.
	CodePermissionDenied Code = "PERMISSION_DENIED"
	// CodeQuotaExceeded: a quota of the account is used up.
	CodeQuotaExceeded Code = "QUOTA_EXCEEDED"
	// CodeCapacityUnavailable: the provider has no room at the moment.
	CodeCapacityUnavailable Code = "CAPACITY_UNAVAILABLE"
	// CodeProviderUnavailable: the provider could not be reached or was out of order.
	CodeProviderUnavailable Code = "PROVIDER_UNAVAILABLE"
	// CodeProviderThrottled: the provider takes no more requests at the moment.
	CodeProviderThrottled Code = "PROVIDER_THROTTLED"
	// CodeContainerExited: a container that should run did not start or stopped.
	CodeContainerExited Code = "CONTAINER_EXITED"
	// CodeOutOfMemory: a container was killed for its memory.
	CodeOutOfMemory Code = "OUT_OF_MEMORY"
	// CodeHealthCheckFailed: a container runs and is not healthy.
	CodeHealthCheckFailed Code = "HEALTH_CHECK_FAILED"
	// CodeRolledBack: the provider gave up and went back to what was there before.
	CodeRolledBack Code = "ROLLED_BACK"
	// CodeTimeout: the operation's time ran out. What exists is listed and left alone.
	CodeTimeout Code = "TIMEOUT"
	// CodeSuperseded: a newer operation on the same resource took over.
	CodeSuperseded Code = "SUPERSEDED"
	// CodeResourceNotFound: there is nothing to update.
	CodeResourceNotFound Code = "RESOURCE_NOT_FOUND"
	// CodeResourceConflict: the name belongs to somebody else.
	CodeResourceConflict Code = "RESOURCE_CONFLICT"
	// CodeCancelled: the operation was cancelled on request.
	CodeCancelled Code = "CANCELLED"
	// CodeInternal: bellhop itself is at fault.
	CodeInternal Code = "INTERNAL"
)

// CodeInfo says what can be done about a failure.
type CodeInfo struct {
	Code Code `json:"code"`
	// Retryable: the same operation, asked for again under a new id, may succeed.
	Retryable bool `json:"retryable"`
	// RequiresIntervention: a person or other input is needed first.
	RequiresIntervention bool `json:"requires_intervention"`
}

// Codes is the table of all codes.
func Codes() []CodeInfo {
	return []CodeInfo{
		{CodeInvalidOperation, false, true},
		{CodeInvalidSpec, false, true},
		{CodeImagePullFailed, false, true},
		{CodePermissionDenied, false, true},
		{CodeQuotaExceeded, false, true},
		{CodeCapacityUnavailable, true, false},
		{CodeProviderUnavailable, true, false},
		{CodeProviderThrottled, true, false},
		{CodeContainerExited, false, true},
		{CodeOutOfMemory, false, true},
		{CodeHealthCheckFailed, false, true},
		{CodeRolledBack, false, true},
		{CodeTimeout, true, false},
		{CodeSuperseded, false, false},
		{CodeResourceNotFound, false, true},
		{CodeResourceConflict, false, true},
		{CodeCancelled, false, false},
		{CodeInternal, true, true},
	}
}

// Info looks c up in the table. A code that is not in it counts as INTERNAL.
func (c Code) Info() CodeInfo {
	for _, info := range Codes() {
		if info.Code == c {
			return info
		}
	}
	return CodeInternal.Info()
}

// Unavailable says that the provider could not be asked, which is no end: it is asked again until the operation's time is
// up.
func (c Code) Unavailable() bool { return c == CodeProviderUnavailable || c == CodeProviderThrottled }

// Failure is why an operation failed, with all that a caller needs to decide what to do. It is an error, so that
// providers return it as one.
type Failure struct {
	Code Code `json:"code"`
	// Message says what happened, for a person.
	Message string `json:"message"`
	// Retryable: the same operation, asked for again under a new id, may succeed.
	Retryable bool `json:"retryable"`
	// RequiresIntervention: a person or other input is needed first.
	RequiresIntervention bool `json:"requires_intervention"`
	// ProviderError is the provider's own error, word for word.
	ProviderError string `json:"provider_error,omitempty"`
	// Evidence is what was captured before the provider forgets it: stop reasons, exit codes, last log lines.
	Evidence map[string]string `json:"evidence,omitempty"`

	// RetryAfter is how long the provider asked to be left alone. It does not leave the process.
	RetryAfter time.Duration `json:"-"`
}

// Fail makes a failure with the flags of its code.
func Fail(code Code, format string, args ...any) *Failure {
	info := code.Info()
	return &Failure{
		Code:                 info.Code,
		Message:              fmt.Sprintf(format, args...),
		Retryable:            info.Retryable,
		RequiresIntervention: info.RequiresIntervention,
	}
}

// InvalidOperation is the failure of an input that cannot be read or breaks a rule: the message names every fault, and
// the evidence has each under its path.
func InvalidOperation(faults Faults) *Failure {
	if len(faults) > maxFaults {
		faults = append(slices.Clone(faults[:maxFaults]), Fault{Problem: moreFaults})
	}
	failure := Fail(CodeInvalidOperation, "%s", faults.Error())
	problems := map[string][]string{}
	for _, fault := range faults {
		path := fault.Path
		if path == "" {
			path = "operation"
		}
		problems[path] = append(problems[path], fault.Problem)
	}
	failure.Evidence = make(map[string]string, len(problems))
	for _, path := range sortedKeys(problems) {
		failure.Evidence[path] = strings.Join(problems[path], "; ")
	}
	return failure
}

// Because keeps the provider's own error word for word.
func (f *Failure) Because(err error) *Failure {
	if err != nil {
		f.ProviderError = err.Error()
	}
	return f
}

// With adds a piece of evidence; an empty one adds nothing.
func (f *Failure) With(name, value string) *Failure {
	if value == "" {
		return f
	}
	if f.Evidence == nil {
		f.Evidence = map[string]string{}
	}
	f.Evidence[name] = value
	return f
}

func (f *Failure) Error() string {
	if f.ProviderError == "" {
		return fmt.Sprintf("%s: %s", f.Code, f.Message)
	}
	return fmt.Sprintf("%s: %s: %s", f.Code, f.Message, f.ProviderError)
}

// Limits of a failure, so that an outcome stays deliverable everywhere.
const (
	maxMessage       = 2 << 10
	maxProviderError = 4 << 10
	maxEvidence      = 4 << 10
	maxEvidenceTotal = 32 << 10
)

// Clean returns a copy that is safe to show and small enough to deliver: secrets are blotted out and long texts cut.
func (f *Failure) Clean(secrets []string) *Failure {
	if f == nil {
		return nil
	}
	clean, scrubber := *f, NewScrubber(secrets)
	clean.Message = cutEnd(scrubber.Scrub(f.Message), maxMessage)
	clean.ProviderError = cutEnd(scrubber.Scrub(f.ProviderError), maxProviderError)
	if f.Evidence != nil {
		clean.Evidence = cleanEvidence(f.Evidence, scrubber)
	}
	return &clean
}

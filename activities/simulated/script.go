package simulated

import (
	"slices"
	"strings"
	"time"

	"bellhop"
	"bellhop/activities"
)

// Script is an operation's provider_config: what the platform shall do with it. All fields may be left out.
type Script struct {
	// ReadyAfter is how long after the ask it is ready, or gone. Default "0s": the answer to the ask says so already.
	ReadyAfter bellhop.Duration `json:"ready_after"`
	// AskTakes is how long the ask itself takes. It takes effect at its beginning, so an ask that is cut short was
	// applied all the same. Default "0s".
	AskTakes bellhop.Duration `json:"ask_takes"`
	// Fail lets it fail. Default: it does not.
	Fail *Failing `json:"fail"`
	// LoseAnswers is how many asks, from the first on, are applied and then answered PROVIDER_UNAVAILABLE. Default 0.
	LoseAnswers int `json:"lose_answers"`
	// Throttle is how many asks, from the first on, are refused without effect with PROVIDER_THROTTLED. Default 0.
	Throttle int `json:"throttle"`
	// RetryAfter is how long a throttled ask is told to wait. Default "100ms".
	RetryAfter bellhop.Duration `json:"retry_after"`
	// Unavailable is how many asks, after those that were throttled, are refused without effect with
	// PROVIDER_UNAVAILABLE. Default 0.
	Unavailable int `json:"unavailable"`
}

// Failing says how an operation fails.
type Failing struct {
	// Code is any of bellhop's codes, such as "CONTAINER_EXITED". Required.
	Code bellhop.Code `json:"code"`
	// At is when it fails. Default "wait".
	At Moment `json:"at"`
	// After is how long after the ask it fails at "wait" (default: ready_after), and how long after it was ready at
	// "after" (default "0s").
	After *bellhop.Duration `json:"after"`
	// Message says why. Default: a plausible one for the code.
	Message string `json:"message"`
}

// Moment is a point in an operation's life.
type Moment string

const (
	// AtAsk refuses the ask: nothing comes into being, and what is there stays as it is. PROVIDER_UNAVAILABLE and
	// PROVIDER_THROTTLED refuse every ask, as a platform does that is out of order for good.
	AtAsk Moment = "ask"
	// AtWait fails while the operation waits: it never becomes ready, or gone. What came into being stands, and so does
	// what was there before.
	AtWait Moment = "wait"
	// AtAfter fails what was ready: it becomes unhealthy.
	AtAfter Moment = "after"
)

// defaultRetryAfter is short: whoever scripts a throttle wants to see it retried, not to wait for it.
const defaultRetryAfter = bellhop.Duration(100 * time.Millisecond)

// parseScript reads an operation's provider_config and finds every fault in it.
func parseScript(op bellhop.Operation) (Script, bellhop.Faults) {
	script := Script{RetryAfter: defaultRetryAfter}
	if len(op.ProviderConfig) == 0 {
		return script, nil
	}
	var faults bellhop.Faults
	switch err := activities.DecodeConfig(op.ProviderConfig, &script).(type) { //nolint:errorlint // faults come as they are
	case nil:
	case bellhop.Faults:
		faults = err
	default:
		faults.Add("provider_config", "%s", err)
	}
	for _, field := range []struct {
		name  string
		value bellhop.Duration
	}{
		{"ready_after", script.ReadyAfter}, {"ask_takes", script.AskTakes}, {"retry_after", script.RetryAfter},
	} {
		if field.value < 0 {
			faults.Add("provider_config."+field.name, "must not be negative")
		}
	}
	for _, field := range []struct {
		name  string
		value int
	}{
		{"lose_answers", script.LoseAnswers}, {"throttle", script.Throttle}, {"unavailable", script.Unavailable},
	} {
		if field.value < 0 {
			faults.Add("provider_config."+field.name, "must not be negative")
		}
	}
	if script.Fail != nil {
		// A deletion that has a spec is a provision that was given up, and brings the script of that.
		script.Fail.check(op.Verb == bellhop.Delete && op.Spec.IsZero(), &faults)
	}
	return script, faults
}

func (f *Failing) check(deletes bool, faults *bellhop.Faults) {
	const path = "provider_config.fail"
	if f.At == "" {
		f.At = AtWait
	}
	switch f.At {
	case AtAsk:
		if f.After != nil {
			faults.Add(path+".after", `must be left out when it fails at "ask"`)
		}
	case AtWait:
	case AtAfter:
		if deletes {
			faults.Add(path+".at", `must be "ask" or "wait" to delete: what is gone cannot fail any more`)
		}
	default:
		faults.Add(path+".at", `must be "ask", "wait" or "after"`)
	}
	if f.After != nil && *f.After < 0 {
		faults.Add(path+".after", "must not be negative")
	}
	codes := bellhop.Codes()
	if !slices.ContainsFunc(codes, func(info bellhop.CodeInfo) bool { return info.Code == f.Code }) {
		names := make([]string, len(codes))
		for i, info := range codes {
			names[i] = string(info.Code)
		}
		faults.Add(path+".code", "must be one of %s", strings.Join(names, ", "))
	}
}

// times says when the operation is done and when it fails, for one that is accepted at now; 0 is never.
func (s Script) times(now int64) (done, failed int64) {
	done = now + int64(s.ReadyAfter)
	if s.Fail == nil {
		return done, 0
	}
	after := s.ReadyAfter
	if s.Fail.After != nil {
		after = *s.Fail.After
	}
	switch s.Fail.At {
	case AtWait:
		return 0, now + int64(after)
	case AtAfter:
		if s.Fail.After == nil {
			after = 0
		}
		return done, done + int64(after)
	case AtAsk: // never accepted
	}
	return 0, now
}

// excuses are what a platform would say and leave behind, for each code that is about a replica or its image.
var excuses = map[bellhop.Code]struct {
	message, providerError string
	evidence               map[string]string
}{
	bellhop.CodeContainerExited: {
		"the container exited with code 1", "",
		map[string]string{"exit_code": "1", "stop_reason": "essential container exited", "last_log_line": "panic: simulated failure"},
	},
	bellhop.CodeOutOfMemory: {
		"the container was killed for its memory", "",
		map[string]string{"exit_code": "137", "stop_reason": "OOMKilled", "last_log_line": "allocating cache"},
	},
	bellhop.CodeHealthCheckFailed: {
		"the container runs and is not healthy", "",
		map[string]string{"health_check": "3 of 3 checks failed: exit code 1", "last_log_line": "listening on nothing"},
	},
	bellhop.CodeImagePullFailed: {
		"the image cannot be pulled", "manifest unknown: the named manifest is not known to the registry",
		map[string]string{"stop_reason": "ImagePullBackOff"},
	},
	bellhop.CodeRolledBack: {
		"the new replicas did not become healthy, and the platform went back to the old", "",
		map[string]string{"exit_code": "1", "stop_reason": "deployment circuit breaker", "last_log_line": "panic: simulated failure"},
	},
	bellhop.CodeCapacityUnavailable: {"the platform has no room at the moment", "no host meets the requirements: insufficient memory", nil},
	bellhop.CodeQuotaExceeded:       {"a quota of the account is used up", "limit exceeded: 0 of 20 left", nil},
	bellhop.CodePermissionDenied:    {"the platform does not let bellhop do it", "access denied", nil},
	bellhop.CodeInvalidSpec:         {"the platform refuses the spec", "invalid parameter", nil},
}

// failure is what the script's failure looks like.
func (f *Failing) failure() *bellhop.Failure {
	failure := bellhop.Fail(f.Code, "scripted")
	excuse, ok := excuses[f.Code]
	if ok {
		failure.Message = excuse.message
		failure.ProviderError = excuse.providerError
		for name, value := range excuse.evidence {
			failure.With(name, value)
		}
	}
	if f.Message != "" {
		failure.Message = f.Message
	}
	return failure
}

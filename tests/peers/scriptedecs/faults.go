package scriptedecs

import (
	"cmp"
	"fmt"
	"time"

	"golang.org/x/time/rate"
)

// fault is what befalls calls.
type fault struct {
	action  string // empty: any
	left    int    // how many calls it still befalls
	until   time.Time
	refusal *refusal
	lost    bool
}

// Fail lets the next n calls of an action ("ecs:CreateService"; empty: of any) end with an error, without being carried
// out.
func (s *Server) Fail(action string, n int, code, message string) {
	s.befall(&fault{action: action, left: n, refusal: &refusal{code: code, message: message}})
}

// Throttle lets the next n calls of an action (empty: of any) be throttled.
func (s *Server) Throttle(action string, n int) {
	s.Fail(action, n, "ThrottlingException", "Rate exceeded")
}

// ThrottleFor throttles every call of an action (empty: of any) for a while.
func (s *Server) ThrottleFor(action string, during time.Duration) {
	s.befall(&fault{action: action, until: time.Now().Add(during), refusal: throttled})
}

// FailInside lets the next n calls of an action (empty: of any) end with ServerException.
func (s *Server) FailInside(action string, n int) {
	s.Fail(action, n, "ServerException", "Service Unavailable. Please try again later.")
}

// Lose lets the next n calls of an action (empty: of any) be carried out, and the connection break before the answer.
func (s *Server) Lose(action string, n int) {
	s.befall(&fault{action: action, left: n, lost: true})
}

// Deny lets every call of an action end as IAM denies it.
func (s *Server) Deny(action string) { s.permit(action, false) }

// Allow lets it through again.
func (s *Server) Allow(action string) { s.permit(action, true) }

func (s *Server) permit(action string, allowed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.denied[action] = !allowed
}

func (s *Server) befall(f *fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, f)
}

var throttled = &refusal{code: "ThrottlingException", message: "Rate exceeded"}

// befalls says what befalls a call. A fault that is used up, or over, is forgotten.
func (s *Server) befalls(action, role string) *fault {
	if s.denied[action] {
		who := cmp.Or(role, "arn:aws:iam::"+s.options.Account+":user/bellhop")
		return &fault{refusal: &refusal{code: "AccessDeniedException", message: fmt.Sprintf(
			"User: %s is not authorized to perform: %s on resource: * because no identity-based policy allows the %s action",
			who, action, action)}}
	}
	now := time.Now()
	kept := s.faults[:0]
	var found *fault
	for _, f := range s.faults {
		if found == nil && (f.action == "" || f.action == action) && (f.left > 0 || now.Before(f.until)) {
			f.left--
			found = f
		}
		if f.left > 0 || now.Before(f.until) {
			kept = append(kept, f)
		}
	}
	s.faults = kept
	if found == nil && s.options.Quotas {
		if q := s.quotas[action]; q != nil && !q.Allow() {
			return &fault{refusal: throttled}
		}
	}
	return found
}

// quota is a bucket of calls that several actions share.
type quota struct{ *rate.Limiter }

// quotas are those of an account in a region, per second.
func quotas() map[string]*quota {
	by := map[string]*quota{}
	share := func(burst int, sustained rate.Limit, actions ...string) {
		q := &quota{rate.NewLimiter(sustained, burst)}
		for _, action := range actions {
			by["ecs:"+action] = q
		}
	}
	share(50, 5, "CreateService", "UpdateService", "DeleteService")
	share(20, 1, "RegisterTaskDefinition", "DeregisterTaskDefinition", "DeleteTaskDefinitions")
	share(100, 20, "DescribeServices", "ListServices")
	share(100, 20, "DescribeTasks", "ListTasks")
	share(50, 20, "ListServiceDeployments", "DescribeServiceDeployments", "DescribeServiceRevisions")
	share(100, 40, "RunTask", "StopTask")
	return by
}

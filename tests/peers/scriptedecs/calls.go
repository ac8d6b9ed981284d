package scriptedecs

import (
	"net/http"
	"regexp"
	"time"
)

// Call is one request that was made.
type Call struct {
	// Action is what IAM calls it, "ecs:CreateService".
	Action string
	// At is when it came.
	At time.Time
	// Role is the ARN of the role that the caller had assumed, by this server's STS. Empty: none.
	Role string
	// Befell is the code of the error that befell it, by [Server.Throttle] and the like. Empty: it was carried out.
	Befell string
	// Body is what was asked.
	Body []byte
}

// Calls are all that were made so far, in their order.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Call(nil), s.calls...)
}

// CallsSince counts the calls since a time by their action.
func (s *Server) CallsSince(since time.Time) map[string]int {
	counts := map[string]int{}
	for _, call := range s.Calls() {
		if !call.At.Before(since) {
			counts[call.Action]++
		}
	}
	return counts
}

var accessKey = regexp.MustCompile(`Credential=([^/]+)/`)

// admit records a call and says what befalls it, if anything does.
func (s *Server) admit(action string, r *http.Request, body []byte) *fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	call := Call{Action: action, At: time.Now(), Body: body}
	if found := accessKey.FindStringSubmatch(r.Header.Get("Authorization")); found != nil {
		call.Role = s.sessions[found[1]]
	}
	found := s.befalls(action, call.Role)
	if found != nil && found.refusal != nil {
		call.Befell = found.refusal.code
	}
	s.calls = append(s.calls, call)
	return found
}

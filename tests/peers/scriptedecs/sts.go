package scriptedecs

import (
	"encoding/xml"
	"net/http"
	"net/url"
	"strings"
	"time"
)

type assumedRole struct {
	XMLName xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ AssumeRoleResponse"`
	Result  struct {
		User struct {
			Arn string
			ID  string `xml:"AssumedRoleId"`
		} `xml:"AssumedRoleUser"`
		Credentials struct {
			Key                                       string `xml:"AccessKeyId"`
			SecretAccessKey, SessionToken, Expiration string
		}
	} `xml:"AssumeRoleResult"`
	RequestID string `xml:"ResponseMetadata>RequestId"`
}

type stsError struct {
	XMLName xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ ErrorResponse"`
	Type    string   `xml:"Error>Type"`
	Code    string   `xml:"Error>Code"`
	Message string   `xml:"Error>Message"`
}

// serveSTS answers AssumeRole, the one call that comes without a target. Whoever calls with the credentials that it
// gives is recorded under the role.
func (s *Server) serveSTS(w http.ResponseWriter, r *http.Request, body []byte) {
	form, err := url.ParseQuery(string(body))
	if err != nil || form.Get("Action") != "AssumeRole" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "text/xml")
	if fault := s.admit("sts:AssumeRole", r, body); fault != nil {
		if fault.lost {
			panic(http.ErrAbortHandler)
		}
		code := fault.refusal.code
		if code == "AccessDeniedException" {
			code = "AccessDenied"
		}
		w.WriteHeader(http.StatusForbidden)
		_ = xml.NewEncoder(w).Encode(stsError{Type: "Sender", Code: code, Message: fault.refusal.message}) // the caller may be gone
		return
	}
	role, session := form.Get("RoleArn"), form.Get("RoleSessionName")
	s.mu.Lock()
	key := "ASIA" + strings.ToUpper(s.hex()[:16])
	s.sessions[key] = role
	request := s.hex()
	s.mu.Unlock()
	answer := assumedRole{RequestID: request}
	answer.Result.User.Arn = strings.Replace(role, ":iam:", ":sts:", 1) + "/" + session
	answer.Result.User.ID = "AROA:" + session
	answer.Result.Credentials.Key = key
	answer.Result.Credentials.SecretAccessKey, answer.Result.Credentials.SessionToken = "secret", "session"
	answer.Result.Credentials.Expiration = time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	_ = xml.NewEncoder(w).Encode(answer) // as above
}

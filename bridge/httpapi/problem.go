package httpapi

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"

	"bellhop"
)

// Problem is how every error is told: a problem document as RFC 9457 has it. Branch on Code.
type Problem struct {
	// Type is "about:blank": what there is to know is in Code.
	Type string `json:"type"`
	// Title is the HTTP status in words.
	Title string `json:"title"`
	// Status is the HTTP status.
	Status int `json:"status"`
	// Code says what is wrong, for a program.
	Code ProblemCode `json:"code"`
	// Detail says what is wrong and what can be done about it, for a person.
	Detail string `json:"detail"`
	// Faults are everything that is wrong with the request, each under its path.
	Faults bellhop.Faults `json:"faults,omitempty"`

	header http.Header
}

// ProblemCode says what is wrong with a request. A code always comes with the same status.
type ProblemCode string

// The codes of problems.
const (
	// CodeInvalidRequest: the query or the body cannot be read.
	CodeInvalidRequest ProblemCode = "INVALID_REQUEST"
	// CodeUnauthenticated: there is no token, or none that is known.
	CodeUnauthenticated ProblemCode = "UNAUTHENTICATED"
	// CodeForbidden: the token is not for that tenant.
	CodeForbidden ProblemCode = "FORBIDDEN"
	// CodeNotFound: there is no such operation among those that the token is for, or no such path.
	CodeNotFound ProblemCode = "NOT_FOUND"
	// CodeMethodNotAllowed: the path has other methods.
	CodeMethodNotAllowed ProblemCode = "METHOD_NOT_ALLOWED"
	// CodeConflict: the id belongs to another operation.
	CodeConflict ProblemCode = "CONFLICT"
	// CodeEnded: the operation has ended, and nothing can be changed about it.
	CodeEnded ProblemCode = "ENDED"
	// CodeTooLarge: the body is larger than an operation may be.
	CodeTooLarge ProblemCode = "TOO_LARGE"
	// CodeInvalidOperation: the operation breaks a rule. Every fault is named.
	CodeInvalidOperation ProblemCode = "INVALID_OPERATION"
	// CodeTooManyOperations: the tenant has as many open operations as it may. Try again once one has ended.
	CodeTooManyOperations ProblemCode = "TOO_MANY_OPERATIONS"
	// CodeTooManyRequests: as many of the tenant's requests are answered, or wait for operations to end, as may. Try again.
	CodeTooManyRequests ProblemCode = "TOO_MANY_REQUESTS"
	// CodeInternal: bellhop itself is at fault.
	CodeInternal ProblemCode = "INTERNAL"
	// CodeBusy: as many requests wait for operations to end as may. Ask without wait, or later.
	CodeBusy ProblemCode = "BUSY"
	// CodeUnavailable: Temporal could not be asked. Try again.
	CodeUnavailable ProblemCode = "UNAVAILABLE"
)

// Problems are all codes with the HTTP status that each comes with.
func Problems() map[ProblemCode]int {
	return map[ProblemCode]int{
		CodeTooManyOperations: http.StatusTooManyRequests,
		CodeTooManyRequests:   http.StatusTooManyRequests,
		CodeInvalidRequest:    http.StatusBadRequest,
		CodeUnauthenticated:   http.StatusUnauthorized,
		CodeForbidden:         http.StatusForbidden,
		CodeNotFound:          http.StatusNotFound,
		CodeMethodNotAllowed:  http.StatusMethodNotAllowed,
		CodeConflict:          http.StatusConflict,
		CodeEnded:             http.StatusConflict,
		CodeTooLarge:          http.StatusRequestEntityTooLarge,
		CodeInvalidOperation:  http.StatusUnprocessableEntity,
		CodeInternal:          http.StatusInternalServerError,
		CodeBusy:              http.StatusServiceUnavailable,
		CodeUnavailable:       http.StatusServiceUnavailable,
	}
}

func newProblem(code ProblemCode, detail string) *Problem {
	status := Problems()[code]
	return &Problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: detail,
		header: http.Header{},
	}
}

func (p *Problem) Error() string { return string(p.Code) + ": " + p.Detail }

// retryAfter is how many seconds is asked to wait who cannot be answered now.
const retryAfter = "5"

// later is a problem that trying again solves, after that many seconds.
func later(code ProblemCode, detail, seconds string) *Problem {
	problem := newProblem(code, detail)
	problem.header.Set("Retry-After", seconds)
	return problem
}

func busy() *Problem {
	return later(CodeBusy, "too many requests wait for operations to end already; ask without wait, or later", retryAfter)
}

func tooManyWait() *Problem {
	return later(CodeTooManyRequests, "as many requests wait for the tenant's operations to end as may; ask without wait, or later", retryAfter)
}

func crowded() *Problem {
	return later(CodeTooManyRequests, "as many of the tenant's requests are being answered as may; send fewer at once", "1")
}

// problemOf is what a caller is told of an error. What Temporal said is the operator's business and goes to the log.
func problemOf(err error) *Problem {
	var problem *Problem
	var faults bellhop.Faults
	switch {
	case errors.As(err, &problem):
		return problem
	case errors.As(err, &faults):
		problem = newProblem(CodeInvalidOperation, faults.Error())
		problem.Faults = faults
		return problem
	case errors.Is(err, bellhop.ErrNotFound):
		return newProblem(CodeNotFound, "there is no such operation")
	case errors.Is(err, bellhop.ErrConflict):
		return newProblem(CodeConflict, "the id belongs to another operation; take another id, or send the operation as it was sent first")
	case errors.Is(err, bellhop.ErrEnded):
		return newProblem(CodeEnded, "the operation has ended, and nothing can be changed about it")
	case errors.Is(err, bellhop.ErrTooMany):
		return later(CodeTooManyOperations, "the tenant has as many open operations as it may; send the same again once one has ended "+
			"(list them with ?open=true), or cancel one", retryAfter)
	default:
		return later(CodeUnavailable, "bellhop cannot be asked at the moment; try again", retryAfter)
	}
}

func (p *Problem) write(w http.ResponseWriter) {
	header := w.Header()
	maps.Copy(header, p.header)
	header.Set("Content-Type", "application/problem+json")
	body, err := json.Marshal(p)
	if err != nil { // it holds nothing that could not be encoded
		panic(err)
	}
	header.Del("Content-Length")
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n')) //nolint:errcheck // the caller has gone
}

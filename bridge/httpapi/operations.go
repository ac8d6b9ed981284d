package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"bellhop"
)

// Limits of what can be asked for.
const (
	// MaxWait is how long a request may wait for an operation to end.
	MaxWait = time.Minute
	// MaxPageSize and DefaultPageSize are how many operations a page of the list has.
	MaxPageSize     = 1000
	DefaultPageSize = 100
)

// pollAfter is how many seconds a caller who polls is asked to leave between two requests: an operation is observed no
// more often.
const pollAfter = "2"

// Page is a page of the list of operations.
type Page struct {
	Operations []bellhop.Item `json:"operations"`
	// NextPageToken asks for the next page, as page_token. Absent on the last page.
	NextPageToken string `json:"next_page_token,omitempty"`
}

// Redelivered tells whose callbacks are delivered again.
type Redelivered struct {
	// Targets are those that are rung at once; none when nothing is left to deliver.
	Targets []string `json:"targets"`
}

// start is POST /v1/operations.
func (s *Server) start(w http.ResponseWriter, r *http.Request) error {
	if _, err := params(r); err != nil {
		return err
	}
	body, err := read(w, r)
	if err != nil {
		return err
	}
	id, verb := identity(body)
	op, err := bellhop.ParseOperation(id, verb, time.Time{}, body)
	may := callerOf(r.Context()).may(op.TenantID)
	switch {
	case err != nil && may:
		faults, stray := s.policy.Check(op, err)
		return refused(append(faults, stray...).Err(), body)
	case err != nil: // what another tenant may name is not this one's business
		return refused(err, body)
	case !may:
		return newProblem(CodeForbidden, fmt.Sprintf("the token is not for tenant %q", op.TenantID))
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerWithin)
	defer cancel()
	if _, err := s.ops.Start(ctx, id, verb, body); err != nil {
		return err
	}
	report, err := s.ops.Status(ctx, id)
	if err != nil {
		return err
	}
	w.Header().Set("Operation-Location", "/v1/operations/"+id)
	return tell(w, http.StatusAccepted, report.Status)
}

// readWithin bounds how long a body may take to arrive.
const readWithin = 30 * time.Second

func read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bellhop.MaxOperationBytes))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return nil, newProblem(CodeTooLarge, fmt.Sprintf("an operation may have %d bytes", bellhop.MaxOperationBytes))
	}
	if err != nil {
		return nil, newProblem(CodeInvalidRequest, "the body could not be read to its end")
	}
	return body, nil
}

// identity reads the id and the verb out of a body that may have any fault; they are empty when they are not there.
func identity(body []byte) (string, bellhop.Verb) {
	var members map[string]json.RawMessage
	var id, verb string
	if json.Unmarshal(body, &members) == nil {
		_ = json.Unmarshal(members["operation_id"], &id)     //nolint:errcheck // the faults are ParseOperation's to name
		_ = json.Unmarshal(members["operation_type"], &verb) //nolint:errcheck // as above
	}
	return id, bellhop.Verb(verb)
}

// refused tells what is wrong with an operation. A body that is no JSON is a bad request, everything else a bad operation.
func refused(err error, body []byte) error {
	faults, ok := errors.AsType[bellhop.Faults](err)
	if !ok {
		return err
	}
	problem := problemOf(faults)
	if !json.Valid(body) {
		problem = newProblem(CodeInvalidRequest, faults.Error())
		problem.Faults = faults
	}
	return problem
}

// status is GET /v1/operations/{id}.
func (s *Server) status(w http.ResponseWriter, r *http.Request) error {
	query, err := params(r, "wait", "refresh")
	if err != nil {
		return err
	}
	var faults bellhop.Faults
	wait := duration(query, "wait", MaxWait, &faults)
	refresh := flag(query, "refresh", true, &faults)
	if err := badRequest(faults); err != nil {
		return err
	}
	ctx := r.Context()
	report, err := s.find(ctx, r.PathValue("id"))
	if err != nil {
		return err
	}
	if wait > 0 && !report.State.Terminal() {
		giveBack, ok := s.waiting.take(ctx, report.TenantID, s.policy.For(report.TenantID).Limits.Waits, 0)
		if !ok {
			return tooManyWait()
		}
		defer giveBack()
		if !s.waits.TryAcquire(1) {
			return busy()
		}
		defer s.waits.Release(1)
		leave(ctx)
	}
	// Without a worker that answers nothing can be observed either.
	present := func() error {
		if refresh && report.State == bellhop.Running && report.Silence == nil {
			asking, cancel := context.WithTimeout(ctx, answerWithin)
			defer cancel()
			report, err = s.ops.Refresh(asking, report.OperationID)
		}
		return err
	}
	if err := present(); err != nil {
		return err
	}
	if wait > 0 && !report.State.Terminal() {
		if report, err = s.wait(ctx, report.OperationID, wait); err != nil {
			return err
		}
		if err := present(); err != nil {
			return err
		}
	}
	return tell(w, http.StatusOK, report.Status)
}

// wait waits until the operation has ended, the time is up or the server stops, and tells where it stands then.
func (s *Server) wait(ctx context.Context, id string, within time.Duration) (bellhop.Report, error) {
	// It is cancelled, rather than given a deadline, which a server would also keep by its own clock: an error that comes
	// a moment before ours says that it is up would be told as one.
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	defer time.AfterFunc(within, cancel).Stop()
	defer context.AfterFunc(s.stopping, cancel)()
	report, err := s.ops.Wait(waiting, id)
	if waiting.Err() != nil {
		return s.find(ctx, id)
	}
	return report, err
}

// find is the status of an operation that is the caller's business. Another's is not there.
func (s *Server) find(ctx context.Context, id string) (bellhop.Report, error) {
	if bellhop.CheckID(id) != nil {
		return bellhop.Report{}, bellhop.ErrNotFound
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	report, err := s.ops.Status(ctx, id)
	if err == nil && !callerOf(ctx).may(report.TenantID) {
		return bellhop.Report{}, bellhop.ErrNotFound
	}
	return report, err
}

// tell answers with a status. While the operation is under way it says when to ask again.
func tell(w http.ResponseWriter, code int, status bellhop.Status) error {
	if !status.State.Terminal() {
		w.Header().Set("Retry-After", pollAfter)
	}
	return answer(w, code, status)
}

// list is GET /v1/operations.
func (s *Server) list(w http.ResponseWriter, r *http.Request) error {
	query, err := params(r, "tenant", "resource", "provider", "state", "open", "undelivered", "page_size", "page_token")
	if err != nil {
		return err
	}
	var faults bellhop.Faults
	filter := bellhop.Filter{
		Tenant:   name(query, "tenant", &faults),
		Resource: name(query, "resource", &faults),
		Provider: name(query, "provider", &faults),
		State:    state(query, "state", &faults),
		Open:     flag(query, "open", false, &faults),

		Undelivered: flag(query, "undelivered", false, &faults),
	}
	size := pageSize(query, &faults)
	asks := callerOf(r.Context())
	switch {
	case filter.Tenant != "" && !asks.may(filter.Tenant):
		return newProblem(CodeForbidden, fmt.Sprintf("the token is not for tenant %q", filter.Tenant))
	case filter.Tenant == "" && !asks.operator:
		filter.Tenants = asks.tenants
	}
	page := pageToken(query, filter, &faults)
	if err := badRequest(faults); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerWithin)
	defer cancel()
	items, next, err := s.ops.List(ctx, filter, size, page)
	if err != nil {
		return err
	}
	found := Page{Operations: items}
	if len(next) > 0 {
		found.NextPageToken = sealPage(filter, next)
		query.Set("page_token", found.NextPageToken)
		w.Header().Set("Link", "</v1/operations?"+query.Encode()+`>; rel="next"`)
	}
	return answer(w, http.StatusOK, found)
}

// cancel is POST /v1/operations/{id}/cancel.
func (s *Server) cancel(w http.ResponseWriter, r *http.Request) error {
	if _, err := params(r); err != nil {
		return err
	}
	report, err := s.find(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerWithin)
	defer cancel()
	if err := s.ops.Cancel(ctx, report.OperationID); err != nil {
		return err
	}
	if report, err = s.ops.Status(ctx, report.OperationID); err != nil {
		return err
	}
	w.Header().Set("Operation-Location", "/v1/operations/"+report.OperationID)
	return tell(w, http.StatusAccepted, report.Status)
}

// redeliver is POST /v1/operations/{id}/redeliver.
func (s *Server) redeliver(w http.ResponseWriter, r *http.Request) error {
	query, err := params(r, "target")
	if err != nil {
		return err
	}
	report, err := s.find(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	target := query.Get("target")
	called := func(receipt bellhop.Receipt) bool { return receipt.Target == target }
	if target != "" && !slices.ContainsFunc(report.Callbacks, called) {
		return badRequest(bellhop.Faults{{Path: "target", Problem: "is none that the operation calls back"}})
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerWithin)
	defer cancel()
	rung, err := s.ops.Redeliver(ctx, report.OperationID, target)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, Redelivered{Targets: append([]string{}, rung...)})
}

func answer(w http.ResponseWriter, code int, document any) error {
	body, err := json.Marshal(document)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, err = w.Write(append(body, '\n'))
	return gone(err)
}

// gone makes nothing of an answer that could not be written: there is nobody left to be told.
func gone(error) error { return nil }

// params reads the query. A parameter that is not known would otherwise be one that is silently not obeyed.
func params(r *http.Request, known ...string) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, newProblem(CodeInvalidRequest, "the query cannot be read")
	}
	var faults bellhop.Faults
	for name, values := range query {
		switch {
		case !slices.Contains(known, name) && len(known) == 0:
			faults.Add(name, "is not a known parameter; there are none")
		case !slices.Contains(known, name):
			faults.Add(name, "is not a known parameter; known are %s", strings.Join(known, ", "))
		case len(values) > 1:
			faults.Add(name, "is given twice")
		}
	}
	return query, badRequest(faults)
}

func badRequest(faults bellhop.Faults) error {
	err := faults.Err()
	if err == nil {
		return nil
	}
	problem := newProblem(CodeInvalidRequest, err.Error())
	errors.As(err, &problem.Faults)
	return problem
}

func duration(query url.Values, name string, most time.Duration, faults *bellhop.Faults) time.Duration {
	if !query.Has(name) {
		return 0
	}
	value, err := time.ParseDuration(query.Get(name))
	if err != nil || value < 0 || value > most {
		faults.Add(name, `must be a duration such as "30s", at most %s`, most)
	}
	return value
}

func flag(query url.Values, name string, byDefault bool, faults *bellhop.Faults) bool {
	switch query.Get(name) {
	case "true":
		return true
	case "false":
		return false
	}
	if query.Has(name) {
		faults.Add(name, "must be true or false")
	}
	return byDefault
}

func name(query url.Values, param string, faults *bellhop.Faults) string {
	value := query.Get(param)
	if query.Has(param) {
		faults.Note(param, bellhop.CheckName(value))
	}
	return value
}

func state(query url.Values, param string, faults *bellhop.Faults) bellhop.State {
	value := bellhop.State(query.Get(param))
	switch value {
	case bellhop.Pending, bellhop.Queued, bellhop.Running, bellhop.Succeeded, bellhop.Failed, bellhop.Cancelled:
		return value
	}
	if query.Has(param) {
		faults.Add(param, "must be pending, queued, running, succeeded, failed or cancelled")
	}
	return ""
}

func pageSize(query url.Values, faults *bellhop.Faults) int {
	if !query.Has("page_size") {
		return DefaultPageSize
	}
	size, err := strconv.Atoi(query.Get("page_size"))
	if err != nil || size < 1 || size > MaxPageSize {
		faults.Add("page_size", "must be 1 to %d", MaxPageSize)
	}
	return size
}

// sealPage makes the token of a page: it goes with the list that it was given out for, and comes back whole or not at
// all. Temporal, given a broken one, seems not to be there.
func sealPage(filter bellhop.Filter, next []byte) string {
	return base64.RawURLEncoding.EncodeToString(append(sealOf(filter, next), next...))
}

func pageToken(query url.Values, filter bellhop.Filter, faults *bellhop.Faults) []byte {
	if !query.Has("page_token") {
		return nil
	}
	token, err := base64.RawURLEncoding.DecodeString(query.Get("page_token"))
	if err != nil || len(token) <= sealBytes || !bytes.Equal(token[:sealBytes], sealOf(filter, token[sealBytes:])) {
		faults.Add("page_token", "must be the next_page_token of a page of the same list")
		return nil
	}
	return token[sealBytes:]
}

const sealBytes = 8

func sealOf(filter bellhop.Filter, next []byte) []byte {
	text, _ := json.Marshal(filter) //nolint:errcheck,errchkjson // it holds nothing that could not be encoded
	sum := sha256.Sum256(append(text, next...))
	return sum[:sealBytes]
}

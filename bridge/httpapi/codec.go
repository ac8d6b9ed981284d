package httpapi

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"bellhop"
)

// CodecConfig serves a codec endpoint, by which Temporal's UI and command line show and write encrypted payloads.
type CodecConfig struct {
	// Origins are the addresses at which Temporal's UI is opened, such as "https://temporal.example.com": pages of these may
	// ask from a browser. Default: none, only programs may.
	Origins []string `json:"origins"`
}

func (c *CodecConfig) check() error {
	var faults bellhop.Faults
	for i, origin := range c.Origins {
		at, err := url.Parse(origin)
		if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" || at.Scheme+"://"+at.Host != origin {
			faults.Add(fmt.Sprintf("origins[%d]", i), `must be scheme, host and port, such as "https://temporal.example.com" or "http://localhost:8233"`)
		}
	}
	return faults.Err()
}

// Codec decodes and encodes payloads of a namespace, which is empty where the caller did not say. Both take and answer
// Temporal's Payloads as JSON.
type Codec interface {
	DecodeJSON(namespace string, payloads []byte) ([]byte, error)
	EncodeJSON(namespace string, payloads []byte) ([]byte, error)
}

// maxPayloads bounds a request: Temporal's largest payload is 2 MiB, and the UI sends those of one event together.
const maxPayloads = 8 << 20

// Paths of the codec endpoint. Temporal's UI and command line append the last segment to the address that they are given.
const (
	pathSession   = "/codec/session"
	sessionCookie = "bellhop_codec"
)

//go:embed codec.html
var sessionPage []byte

// codecEndpoint is the codec endpoint of a server.
type codecEndpoint struct {
	origins []string
	secure  bool
}

// ServeCodec serves the codec endpoint as well, where it is configured. Call it before Listen.
func (s *Server) ServeCodec(codec Codec) {
	if s.config.Codec == nil {
		return
	}
	s.codec = &codecEndpoint{origins: s.config.Codec.Origins, secure: s.config.TLS != nil || s.config.BehindProxy}
	for suffix, transcode := range map[string]func(string, []byte) ([]byte, error){"decode": codec.DecodeJSON, "encode": codec.EncodeJSON} {
		handle := s.transcode(transcode)
		s.mux.HandleFunc("POST /"+suffix, handle)
		s.mux.HandleFunc("POST /{namespace}/"+suffix, handle)
	}
	s.mux.HandleFunc("GET "+pathSession, func(w http.ResponseWriter, _ *http.Request) { s.codec.page(w, http.StatusOK) })
	s.mux.HandleFunc("POST "+pathSession, func(w http.ResponseWriter, r *http.Request) { s.codec.signIn(w, r, s.tokens) })
}

func (s *Server) transcode(transcode func(string, []byte) ([]byte, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		asks := callerOf(r.Context())
		if !asks.operator && !asks.codec {
			// What it would be shown is everybody's.
			newProblem(CodeForbidden, "the token is not for the codec endpoint: it must be an operator's, or have codec: true").write(w)
			return
		}
		namespace := r.PathValue("namespace")
		if namespace == "" {
			namespace = r.Header.Get("X-Namespace")
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPayloads))
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			newProblem(CodeTooLarge, "the payloads are larger than 8 MiB").write(w)
			return
		} else if err != nil {
			newProblem(CodeInvalidRequest, "the body did not arrive").write(w)
			return
		}
		answer, err := transcode(namespace, body)
		if err != nil {
			newProblem(CodeInvalidRequest, err.Error()).write(w)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer) //nolint:errcheck // the caller has gone
	}
}

// serves says whether a path is the codec endpoint's.
func (c *codecEndpoint) serves(path string) bool {
	if c == nil {
		return false
	}
	last := path[strings.LastIndexByte(path, '/')+1:]
	return path == pathSession || strings.Count(path, "/") <= 2 && (last == "decode" || last == "encode")
}

// open says whether a route needs no token: the page at which one is given.
func (c *codecEndpoint) open(pattern string) bool {
	return c != nil && strings.HasSuffix(pattern, " "+pathSession)
}

// share lets pages of the origins read the answer, and answers what a browser asks before it lets them ask; that is true.
func (c *codecEndpoint) share(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if !c.serves(r.URL.Path) || origin == "" {
		return false
	}
	header := w.Header()
	header.Add("Vary", "Origin")
	allowed := slices.Contains(c.origins, origin)
	if allowed {
		header.Set("Access-Control-Allow-Origin", origin)
		header.Set("Access-Control-Allow-Credentials", "true")
	}
	if r.Method != http.MethodOptions {
		return false
	}
	if !allowed {
		newProblem(CodeForbidden, "pages of this origin may not ask; see api.codec.origins").write(w)
		return true
	}
	header.Set("Access-Control-Allow-Methods", http.MethodPost)
	header.Set("Access-Control-Allow-Headers", "Authorization, Authorization-Extras, Content-Type, X-Namespace")
	header.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// signedIn is who gave a token at the page before; nil for nobody. Browsers send it only for pages of the same site, and
// only those of the origins are served.
func (c *codecEndpoint) signedIn(r *http.Request, known tokens) *caller {
	if c == nil || !slices.Contains(c.origins, r.Header.Get("Origin")) || !c.serves(r.URL.Path) {
		return nil
	}
	cookie, err := r.Cookie(sessionCookie)
	if err != nil {
		return nil
	}
	return known.find(withToken(cookie.Value))
}

func withToken(token string) *http.Request {
	return &http.Request{Header: http.Header{"Authorization": {"Bearer " + token}}}
}

// sessionFor is how long a browser keeps a token, in seconds: a working day.
const sessionFor = 12 * 60 * 60

// signIn has the browser keep a token, for Temporal's UI: where it has no users of its own it has no token to pass on.
func (c *codecEndpoint) signIn(w http.ResponseWriter, r *http.Request, known tokens) {
	r.Body = http.MaxBytesReader(w, r.Body, maxHeaderBytes)
	token := strings.TrimSpace(r.PostFormValue("token"))
	asks := known.find(withToken(token))
	cookie := &http.Cookie{ //nolint:gosec // without TLS the API listens on loopback only, where a browser would drop a secure one
		Name: sessionCookie, Value: token, Path: "/", MaxAge: sessionFor,
		HttpOnly: true, Secure: c.secure, SameSite: http.SameSiteStrictMode,
	}
	if asks == nil || !asks.operator && !asks.codec || cookie.Valid() != nil {
		c.page(w, http.StatusForbidden)
		return
	}
	http.SetCookie(w, cookie)
	http.Redirect(w, r, pathSession+"?done", http.StatusSeeOther)
}

func (c *codecEndpoint) page(w http.ResponseWriter, status int) {
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'")
	w.WriteHeader(status)
	_, _ = w.Write(sessionPage) //nolint:errcheck // the caller has gone
}

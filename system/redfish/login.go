package redfish

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os/user"
	"strings"
	"sync"
	"time"

	"github.com/racklet/racklet/system/redfish/access"
	"github.com/racklet/racklet/system/redfish/audit"
)

// principal is who makes a request.
type principal struct {
	name           string // as the audit log has it
	account        string // "": the owner of the rack, over a private socket
	role           access.Role
	how            string // local, session, basic, certificate
	session        string // ID
	changeRequired bool
	sessions       *access.Store
	tasks          *tasks
}

func (w *principal) ownsSession(id string) bool {
	e, ok := w.sessions.Session(id)
	return ok && e.Account == w.account
}

type principalKey struct{}

// by returns who makes a request, or nil.
func by(r *http.Request) *principal {
	who, _ := r.Context().Value(principalKey{}).(*principal)
	return who
}

// ServeHTTP answers one request of the network: it believes nobody without a login.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handle(w, r, nil) }

// Local returns the handler for a private socket, one that only the operating system's user who
// owns the rack can open. Its clients have all privileges; the audit log calls them by name.
func (s *Service) Local(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := name
		if peer, ok := r.Context().Value(peerKey{}).(string); ok {
			who = peer
		}
		s.handle(w, r, &principal{name: who, role: access.Administrator, how: "local", sessions: s.access, tasks: s.tasks})
	})
}

// UserName is the operating system's name of a user, or the number if there is none.
func userName(uid string) string {
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return "uid " + uid
}

var crossOrigin = http.NewCrossOriginProtection()

// handle identifies who asks and sees to it that changes are written down.
func (s *Service) handle(w http.ResponseWriter, r *http.Request, who *principal) {
	h := w.Header()
	h.Set("OData-Version", "4.0")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.TLS != nil {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	began := time.Now()
	http.NewResponseController(w).SetWriteDeadline(began.Add(writeBound))
	answer, form := &statusWriter{ResponseWriter: w}, ""
	w = answer
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		answer.answers = &s.answers
	}
	defer func() {
		if answer.status == 0 {
			answer.first(http.StatusOK)
		}
		s.meters.request(form, r.Method, answer.status, time.Since(began))
	}()
	var wrong error
	if who == nil {
		who, wrong = s.authenticate(r)
	}
	if who != nil {
		works(r)
	}
	if recorded(r) {
		rec := &recorder{ResponseWriter: w, s: s, entry: s.entryOf(r, who)}
		defer rec.finish()
		w = rec
	}
	switch {
	case errors.Is(wrong, access.ErrTooFast):
		failTooFast(w)
		return
	case who == nil && crossOrigin.Check(r) != nil: // a page of another origin, in a browser that is logged in
		fail(w, http.StatusForbidden, msgPrivilege())
		return
	}
	form = s.serve(w, r.WithContext(context.WithValue(r.Context(), principalKey{}, who)), who)
}

// authenticate finds out who makes a request. Nil without an error: nobody says so.
func (s *Service) authenticate(r *http.Request) (*principal, error) {
	made := func(a access.Account, how string) *principal {
		return &principal{name: a.Name, account: a.Name, role: a.Role, how: how, changeRequired: a.ChangeRequired, sessions: s.access, tasks: s.tasks}
	}
	if token := r.Header.Get("X-Auth-Token"); token != "" {
		e, a, err := s.access.Use(token)
		if err != nil {
			return nil, err
		}
		who := made(a, "session")
		who.session = e.ID
		return who, nil
	}
	if name, password, ok := r.BasicAuth(); ok {
		if !s.access.Rules().Basic || r.TLS == nil {
			return nil, access.ErrRefused
		}
		if crossOrigin.Check(r) != nil { // browsers send it along from any page
			return nil, access.ErrRefused
		}
		a, err := s.access.Check(r.Context(), name, password, r.RemoteAddr)
		if err != nil {
			s.refusedLogin(r, name, "basic", err)
			return nil, err
		}
		return made(a, "basic"), nil
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && crossOrigin.Check(r) == nil {
		a, err := s.access.CheckCertificate(r.TLS.PeerCertificates[0])
		if err != nil {
			return nil, err
		}
		return made(a, "certificate"), nil
	}
	return nil, nil
}

// admit answers a request that its maker must not make, or that the resource does not know.
func (s *Service) admit(w http.ResponseWriter, res *resource, p []string, who *principal, method string) bool {
	g := authorize(who, res.form, p, method)
	switch {
	case who == nil && g != anonymous:
		s.failLogin(w)
		return false
	case !res.allows(method):
		w.Header().Set("Allow", res.allow())
		fail(w, http.StatusMethodNotAllowed, msgMethod(method))
		return false
	case g == refused, g == unfinished:
		s.failPrivilege(w, who)
		return false
	}
	w.Header().Set("Allow", res.allow())
	return true
}

// readableBy says whether a resource may be part of an answer.
func readableBy(who *principal, res *resource, p []string) bool {
	g := authorize(who, res.form, p, http.MethodGet)
	return g == granted || g == anonymous
}

// failLogin answers one who has not logged in (DSP0266, 13.2.4 "HTTP header security").
func (s *Service) failLogin(w http.ResponseWriter) {
	if s.access.Rules().Basic {
		w.Header().Set("WWW-Authenticate", `Basic realm="Racklet", charset="UTF-8"`)
	} else {
		w.Header().Set("WWW-Authenticate", `X-Auth-Token realm="Racklet"`)
	}
	fail(w, http.StatusUnauthorized, msgNoSession())
}

func (s *Service) failPrivilege(w http.ResponseWriter, who *principal) {
	if who != nil && who.changeRequired {
		fail(w, http.StatusForbidden, msgChangeRequired(accountsURI+"/"+who.account))
		return
	}
	fail(w, http.StatusForbidden, msgPrivilege())
}

func failTooFast(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "5")
	m := msgUnavailable(5)
	m.text = "There were too many logins from this address. " + m.text
	fail(w, http.StatusTooManyRequests, m)
}

func msgNoSession() message {
	return critical(base("NoValidSession", "There is no valid session established with the implementation.",
		"Establish a session before attempting any operations: the name, the password or the token is not right, or has ended."))
}

func msgPrivilege() message {
	return critical(base("InsufficientPrivilege", "There are insufficient privileges for the account or credentials associated with the current session to perform the requested operation.",
		"Either abandon the operation or change the associated access rights and resubmit the request if the operation failed."))
}

func msgChangeRequired(uri string) message {
	return critical(base("PasswordChangeRequired", "The password provided for this account must be changed before access is granted.  PATCH the Password property for this account located at the target URI '"+uri+"' to complete this process.",
		"Change the password for this account using a PATCH to the Password property at the URI provided.", uri))
}

// recorded says whether a request goes to the audit log: everything that can change
// something, and the console.
func recorded(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return strings.HasSuffix(r.URL.Path, "/Console")
	}
	return true
}

func (s *Service) entryOf(r *http.Request, who *principal) audit.Entry {
	e := audit.Entry{Time: s.clock.Now().UTC(), From: r.RemoteAddr, Method: r.Method, Target: r.URL.Path, How: "none"}
	if who != nil {
		e.Who, e.Role, e.How = who.name, string(who.role), who.how
	}
	if e.From == "" || e.From == "@" {
		e.From = "local"
	}
	return e
}

// recorder writes the entry of a request before its answer leaves: who has read that a change was made
// finds it in the log.
type recorder struct {
	http.ResponseWriter
	s     *Service
	entry audit.Entry
	done  bool
}

func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) WriteHeader(status int) {
	w.record(status)
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	w.record(http.StatusOK)
	return w.ResponseWriter.Write(b)
}

func (w *recorder) finish() { w.record(http.StatusOK) }

func (w *recorder) record(status int) {
	if w.done {
		return
	}
	w.done = true
	w.entry.Status = status
	w.s.keep(w.entry)
}

// keep writes an entry. Strangers write no more than a few a minute, lest they push the others out.
func (s *Service) keep(e audit.Entry) {
	if e.Role == "" && !s.strangers.allow(s.clock.Now()) {
		return
	}
	if _, err := s.audit.Append(e); err != nil {
		s.log.Error("the audit log cannot be written", "error", err, "who", e.Who, "method", e.Method, "target", e.Target, "status", e.Status)
	}
}

// refusedLogin notes a login that failed.
func (s *Service) refusedLogin(r *http.Request, name, how string, err error) {
	s.meters.refused.WithLabelValues(how).Inc()
	s.log.Warn("a login was refused", "account", shorten(name), "from", r.RemoteAddr, "error", err)
	if recorded(r) {
		return // its own entry says so
	}
	e := s.entryOf(r, nil)
	e.Who, e.How, e.Status, e.Result = shorten(name), how, http.StatusUnauthorized, basePrefix+"NoValidSession"
	s.keep(e)
}

// allowance is so many a minute.
type allowance struct {
	mu    sync.Mutex
	since time.Time
	used  int
}

const perMinute = 60

func (a *allowance) allow(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Sub(a.since) >= time.Minute || now.Before(a.since) {
		a.since, a.used = now, 0
	}
	a.used++
	return a.used <= perMinute
}

// secrets are parts of the names of properties whose values are not written down.
var secrets = []string{"password", "token", "secret", "key", "headers", "passphrase"}

// redact returns a body as JSON without secrets.
func redact(o object) string {
	b, err := json.Marshal(redacted(map[string]any(o)))
	if err != nil || string(b) == "{}" {
		return ""
	}
	return string(b)
}

func redacted(v any) any {
	switch v := v.(type) {
	case map[string]any:
		c := make(map[string]any, len(v))
		for k, e := range v {
			c[k] = redacted(e)
			for _, s := range secrets {
				if strings.Contains(strings.ToLower(k), s) {
					c[k] = "***"
				}
			}
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, e := range v {
			c[i] = redacted(e)
		}
		return c
	}
	return v
}

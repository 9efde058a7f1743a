package redfish

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"sort"
	"strings"
	"time"
)

const (
	root    = "/redfish/v1"
	maxBody = 64 << 10 // bytes of a request

	bodyLimit  = 20 * time.Second // for a body to come
	writeBound = 60 * time.Second // for an answer to be taken
)

// object is a JSON object.
type object map[string]any

// volatile marks a value that changes by itself, as a state, a reading or an age. It is
// served like any other, but is no part of the resource's ETag. An ETag guards what clients
// write: one that changed with every stage of a boot would fail a client that reads, switches the
// power on and then sets the boot override with the ETag it has.
type volatile struct{ value any }

func (v volatile) MarshalJSON() ([]byte, error) { return json.Marshal(v.value) }

func ref(uri string) object { return object{"@odata.id": uri} }

func enabled() object { return object{"State": "Enabled", "Health": "OK"} }

// resource is what lives at one URI, or at all URIs of one form. A nil method is not allowed.
type resource struct {
	get   func(p []string) object // nil: there is none; called with the lock held for reading
	patch func(w http.ResponseWriter, r *http.Request, p []string, body object)
	post  func(w http.ResponseWriter, r *http.Request, p []string, body object)
	// remove answers DELETE; there is something to delete, and If-Match holds.
	remove func(w http.ResponseWriter, r *http.Request, p []string)
	raw    func(w http.ResponseWriter, r *http.Request, p []string) // answers GET by itself
	upload func(w http.ResponseWriter, r *http.Request, p []string) // answers POST of what is no JSON

	form string // of its URI, as it was added: what authorize goes by
}

func (res *resource) allow() string {
	var m []string
	if res.get != nil {
		m = append(m, "GET", "HEAD")
	}
	if res.raw != nil {
		m = append(m, "GET")
	}
	if res.patch != nil {
		m = append(m, "PATCH")
	}
	if res.post != nil || res.upload != nil {
		m = append(m, "POST")
	}
	if res.remove != nil {
		m = append(m, "DELETE")
	}
	return strings.Join(m, ", ")
}

// route is a form of URI: segments below /redfish, "*" stands for any one.
type route struct {
	segments []string
	resource *resource
}

// router finds resources by URI.
type router struct{ byLength map[int][]route }

func (t *router) add(uri string, res resource) {
	segments := strings.Split(strings.TrimPrefix(uri, "/"), "/")
	res.form = uri
	if t.byLength == nil {
		t.byLength = map[int][]route{}
	}
	t.byLength[len(segments)] = append(t.byLength[len(segments)], route{segments, &res})
}

// find returns the resource at a path and what stands for the stars.
func (t *router) find(path string) (*resource, []string) {
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
next:
	for _, r := range t.byLength[len(segments)] {
		var p []string
		for i, s := range r.segments {
			switch {
			case s == "*" && segments[i] != "":
				p = append(p, segments[i])
			case s != segments[i]:
				continue next
			}
		}
		return r.resource, p
	}
	return nil, nil
}

// allows reports whether a resource knows a method.
func (res *resource) allows(method string) bool {
	switch method {
	case http.MethodGet:
		return res.get != nil || res.raw != nil
	case http.MethodHead:
		return res.get != nil
	case http.MethodPatch:
		return res.patch != nil
	case http.MethodPost:
		return res.post != nil || res.upload != nil
	case http.MethodDelete:
		return res.remove != nil
	}
	return false
}

// serve answers one request of somebody; nil: of one who has not logged in. It returns the form of the URI.
func (s *Service) serve(w http.ResponseWriter, r *http.Request, who *principal) (form string) {
	h := w.Header()
	if v := r.Header.Get("OData-Version"); v != "" && v != "4.0" {
		fail(w, http.StatusPreconditionFailed, msgODataVersion(v))
		return ""
	}
	path := strings.TrimSuffix(r.URL.Path, "/")
	res, p := s.routes.find(path)
	switch {
	case res == nil && who == nil:
		s.failLogin(w) // a stranger does not learn what there is
		return ""
	case res == nil:
		fail(w, http.StatusNotFound, msgNotFound(shorten(r.URL.Path)))
		return ""
	}
	form = res.form
	if !s.admit(w, res, p, who, r.Method) {
		return form
	}
	switch {
	case (r.Method == http.MethodGet || r.Method == http.MethodHead) && res.get != nil:
		s.serveGet(w, r, res, p, path, who)
	case r.Method == http.MethodGet:
		res.raw(w, r, p)
	case r.Method == http.MethodPatch:
		s.servePatch(w, r, res, p, who)
	case r.Method == http.MethodPost && res.upload != nil:
		res.upload(w, r, p)
	case r.Method == http.MethodPost:
		if body, ok := readBody(w, r); ok {
			res.post(w, r, p, body)
		}
	case r.Method == http.MethodDelete:
		if s.current(w, r, res, p) {
			h.Del("Allow")
			res.remove(w, r, p)
		}
	}
	return form
}

func (s *Service) servePatch(w http.ResponseWriter, r *http.Request, res *resource, p []string, who *principal) {
	if !s.current(w, r, res, p) {
		return
	}
	body, ok := readBody(w, r)
	if !ok {
		return
	}
	if authorize(who, res.form, p, r.Method) == partial {
		for name := range body {
			if !strings.HasPrefix(name, "@odata.") && !mayWrite(who, res.form, p, name) {
				s.failPrivilege(w, who)
				return
			}
		}
	}
	res.patch(w, r, p, body)
}

// current answers when there is no resource to change, or not the one that the client knows.
func (s *Service) current(w http.ResponseWriter, r *http.Request, res *resource, p []string) bool {
	if res.get == nil {
		return true // it says so itself
	}
	s.mu.RLock()
	o := res.get(p)
	s.mu.RUnlock()
	if o == nil {
		w.Header().Del("Allow")
		fail(w, http.StatusNotFound, msgNotFound(shorten(r.URL.Path)))
		return false
	}
	if want := r.Header.Get("If-Match"); want != "" {
		etag, _ := entityTag(o)
		if !matches(want, etag) {
			fail(w, http.StatusPreconditionFailed, msgPrecondition())
			return false
		}
	}
	return true
}

// answer sends a resource after a change.
func (s *Service) answer(w http.ResponseWriter, r *http.Request, get func() object) {
	s.mu.RLock()
	o := get()
	s.mu.RUnlock()
	s.write(w, r, http.StatusOK, o)
}

func (s *Service) write(w http.ResponseWriter, r *http.Request, status int, o object) {
	a := s.encode(r, o)
	if a.status != http.StatusOK {
		fail(w, a.status, a.wrong)
		return
	}
	if a.etag != "" {
		w.Header().Set("ETag", a.etag)
	}
	if a.link != "" {
		w.Header().Set("Link", a.link)
	}
	a.send(w, r, status)
}

// writeJSON sends what is no resource.
func writeJSON(w http.ResponseWriter, o object) {
	b, err := json.Marshal(o)
	if err != nil {
		fail(w, http.StatusInternalServerError, msgInternal())
		return
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	w.Write(b)
}

// schemaFile names the schema of a type: "#Chassis.v1_28_0.Chassis" is in Chassis.v1_28_0.json.
func schemaFile(kind string) string {
	kind = strings.TrimPrefix(kind, "#")
	return kind[:max(strings.LastIndexByte(kind, '.'), 0)] + ".json"
}

// matches compares an If-Match or If-None-Match list with an ETag, strongly (RFC 9110, 8.8.3.2).
func matches(list, etag string) bool {
	for _, e := range strings.Split(list, ",") {
		if e = strings.TrimSpace(e); e == "*" || e == etag {
			return true
		}
	}
	return false
}

func acceptsJSON(accept []string) bool {
	if len(accept) == 0 {
		return true
	}
	for _, line := range accept {
		for _, part := range strings.Split(line, ",") {
			kind, params, err := mime.ParseMediaType(part)
			if err == nil && params["q"] != "0" && (kind == "*/*" || kind == "application/*" || kind == "application/json") {
				return true
			}
		}
	}
	return false
}

// readBody reads a JSON object. It answers by itself when there is none.
func readBody(w http.ResponseWriter, r *http.Request) (object, bool) {
	c := http.NewResponseController(w)
	c.SetReadDeadline(time.Now().Add(bodyLimit))
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if big := new(http.MaxBytesError); errors.As(err, &big) {
		fail(w, http.StatusRequestEntityTooLarge, msgTooLarge())
		return nil, false
	} else if err != nil {
		fail(w, http.StatusRequestTimeout, msgMalformed())
		return nil, false
	}
	c.SetReadDeadline(time.Time{})
	if len(strings.TrimSpace(string(b))) == 0 && r.Method == http.MethodPost {
		return object{}, true // an action without parameters
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		fail(w, http.StatusUnsupportedMediaType, msgMediaType())
		return nil, false
	}
	var o map[string]any
	if err := json.Unmarshal(b, &o); err != nil || o == nil {
		fail(w, http.StatusBadRequest, msgMalformed())
		return nil, false
	}
	if rec, ok := w.(*recorder); ok {
		rec.entry.What = redact(o)
	}
	return o, true
}

// field says how one property is written: by set, or by the fields within it. Set returns
// a message when it cannot take the value.
type field struct {
	set func(v any, name, pointer string) *message
	sub map[string]field
}

// fields applies the properties of a PATCH to their fields and collects what is wrong.
// Nothing is done to the hardware before all properties are known to be right.
func fields(body, current object, writable map[string]field, pointer string) (changes int, wrong []message) {
	names := make([]string, 0, len(body))
	for name := range body {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		v, at := body[name], pointer+"/"+name
		if strings.HasPrefix(name, "@odata.") {
			continue // annotations of a resource that was read, as clients send them back
		}
		f, ok := writable[name]
		now := current[name]
		if v, is := now.(volatile); is {
			now = v.value
		}
		switch {
		case ok && f.sub != nil:
			in, is := v.(map[string]any)
			if !is {
				wrong = append(wrong, msgType(v, name, at))
				continue
			}
			within, _ := now.(object)
			n, more := fields(in, within, f.sub, at)
			changes += n
			wrong = append(wrong, more...)
		case ok:
			if m := f.set(v, name, at); m != nil {
				wrong = append(wrong, *m)
			} else {
				changes++
			}
		case now != nil:
			wrong = append(wrong, msgReadOnly(name, at))
		default:
			wrong = append(wrong, msgUnknown(name, at))
		}
	}
	return changes, wrong
}

// patched applies a PATCH's fields and answers if something is wrong or nothing is there.
func patched(w http.ResponseWriter, body, current object, writable map[string]field) bool {
	n, wrong := fields(body, current, writable, "#")
	switch {
	case len(wrong) > 0:
		fail(w, http.StatusBadRequest, wrong...)
	case n == 0:
		fail(w, http.StatusBadRequest, msgNoOperation())
	default:
		return true
	}
	return false
}

// Setters for fields.

func setBool(f func(bool)) field {
	return field{set: func(v any, name, pointer string) *message {
		b, ok := v.(bool)
		if !ok {
			m := msgType(v, name, pointer)
			return &m
		}
		f(b)
		return nil
	}}
}

func setNumber(low, high float64, f func(float64)) field {
	return field{set: func(v any, name, pointer string) *message {
		n, ok := v.(float64)
		if !ok {
			m := msgType(v, name, pointer)
			return &m
		}
		if !(n >= low && n <= high) {
			m := msgRange(v, name, pointer, fmt.Sprintf("%g to %g", low, high))
			return &m
		}
		f(n)
		return nil
	}}
}

func setEnum(allowed []string, f func(string)) field {
	return field{set: func(v any, name, pointer string) *message {
		t, ok := v.(string)
		if !ok {
			m := msgType(v, name, pointer)
			return &m
		}
		for _, a := range allowed {
			if a == t {
				f(t)
				return nil
			}
		}
		m := msgNotInList(v, name, pointer, allowed)
		return &m
	}}
}

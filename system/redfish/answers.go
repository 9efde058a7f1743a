package redfish

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Answers to GET are kept encoded for a moment: many readers of one resource cost as much as one. A kept answer is good
//   - for those alone who have the same account and role as who asked first;
//   - until something was written, by whomever, or a controller logged something: who reads after a change or an event sees it;
//   - and for sameAnswer in any case, after which readings and ages are older than they say by as much.
const (
	sameAnswer  = 100 * time.Millisecond
	mostAnswers = 1024
	mostKept    = 32 << 20 // bytes of all bodies
)

// answer is what a GET is answered with, or why it is not.
type answer struct {
	status     int
	wrong      message // unless status is 200
	body       []byte
	etag, link string
	steady     bool // no part changes by itself: it can be "not modified"
}

// keptAnswer is one that is being made, or was.
type keptAnswer struct {
	generation uint64
	at         time.Time
	ready      chan struct{} // closed when it is made
	*answer
}

type answerKey struct {
	account, role string
	changeFirst   bool
	uri           string
}

type answers struct {
	generation atomic.Uint64

	mu   sync.Mutex
	kept map[answerKey]*keptAnswer
	size int
}

// changed forgets all answers.
func (a *answers) changed() { a.generation.Add(1) }

// get returns the answer that is kept, or has it made. Only one of those who ask at once makes it.
func (a *answers) get(key answerKey, now time.Time, build func() *answer) *answer {
	generation := a.generation.Load() // before build looks: what changes meanwhile makes the answer old
	a.mu.Lock()
	k := a.kept[key]
	if k != nil && k.generation == generation && now.Sub(k.at) < sameAnswer && !now.Before(k.at) {
		a.mu.Unlock()
		if <-k.ready; k.answer != nil {
			return k.answer
		}
		return build() // who made it did not come to an end
	}
	if len(a.kept) >= mostAnswers || a.size > mostKept || a.kept == nil {
		a.kept, a.size = map[answerKey]*keptAnswer{}, 0
	}
	k = &keptAnswer{generation: generation, at: now, ready: make(chan struct{})}
	a.kept[key] = k
	a.mu.Unlock()
	defer close(k.ready)
	k.answer = build()
	a.mu.Lock()
	a.size += len(k.body)
	a.mu.Unlock()
	return k.answer
}

// keepable says whether answers of a form are kept: those of the hardware, and what never changes. Those of accounts,
// sessions, tasks and logs of the service change without anything being told.
func keepable(form string) bool {
	if strings.HasPrefix(form, apiURI) {
		return false
	}
	for _, p := range []string{root + "/Systems", root + "/Chassis", root + "/Managers", root + "/Registries", root + "/JsonSchemas"} {
		if strings.HasPrefix(form, p) {
			return true
		}
	}
	return form == root
}

func (s *Service) serveGet(w http.ResponseWriter, r *http.Request, res *resource, p []string, path string, who *principal) {
	if !acceptsJSON(r.Header.Values("Accept")) {
		fail(w, http.StatusNotAcceptable, msgNotAcceptable())
		return
	}
	build := func() *answer { return s.build(res, p, path, r, who) }
	var a *answer
	if keepable(res.form) && len(r.URL.RawQuery) < 512 {
		key := answerKey{uri: path + "?" + r.URL.RawQuery}
		if who != nil {
			key.account, key.role, key.changeFirst = who.account, string(who.role), who.changeRequired
		}
		a = s.answers.get(key, s.clock.Now(), build)
	} else {
		a = build()
	}
	h := w.Header()
	switch {
	case a.status == http.StatusNotFound:
		h.Del("Allow")
		fallthrough
	case a.status != http.StatusOK:
		fail(w, a.status, a.wrong)
		return
	}
	if a.etag != "" {
		h.Set("ETag", a.etag)
	}
	// What has readings in it is never "not modified": they are not in its ETag. Nor is what a query made of it.
	if none := r.Header.Get("If-None-Match"); none != "" && a.steady && matches(none, a.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if a.link != "" {
		h.Set("Link", a.link)
	}
	a.send(w, r, http.StatusOK)
}

func (a *answer) send(w http.ResponseWriter, r *http.Request, status int) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(a.body)
	}
}

// build makes the answer to a GET.
func (s *Service) build(res *resource, p []string, path string, r *http.Request, who *principal) *answer {
	q, m, status := parseQuery(r.URL.RawQuery)
	if status != 0 {
		return &answer{status: status, wrong: m}
	}
	s.mu.RLock()
	o := res.get(p)
	steady := false
	if o != nil {
		o["@odata.etag"], steady = entityTag(o)
		whole := false
		q.may = func(res *resource, p []string) bool { return readableBy(who, res, p) }
		o, whole, m, status = q.apply(s, o, path)
		steady = steady && whole
	}
	s.mu.RUnlock()
	switch {
	case status != 0:
		return &answer{status: status, wrong: m}
	case o == nil:
		return &answer{status: http.StatusNotFound, wrong: msgNotFound(shorten(r.URL.Path))}
	}
	a := s.encode(r, o)
	a.steady = steady
	return a
}

// encode makes an answer of a resource.
func (s *Service) encode(r *http.Request, o object) *answer {
	a := &answer{status: http.StatusOK}
	if _, is := o["@odata.id"]; is {
		var tagged bool
		if a.etag, tagged = o["@odata.etag"].(string); !tagged {
			a.etag, _ = entityTag(o)
			o["@odata.etag"] = a.etag
		}
		if kind, _ := o["@odata.type"].(string); kind != "" {
			a.link = "<http://redfish.dmtf.org/schemas/v1/" + schemaFile(kind) + ">; rel=describedby"
		}
	} else {
		delete(o, "@odata.etag")
	}
	var err error
	if a.body, err = appendJSON(make([]byte, 0, 8<<10), o, nil); err != nil {
		s.log.Error("encode an answer", "path", r.URL.Path, "error", err)
		return &answer{status: http.StatusInternalServerError, wrong: msgInternal()}
	}
	return a
}

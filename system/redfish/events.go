package redfish

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limits of the event stream.
const (
	replay      = 1000 // events kept for Last-Event-ID
	backlog     = 256  // events that one slow reader may be behind
	maxReaders  = 64
	keepAlive   = 15 * time.Second
	streamEvent = "id: %d\nevent: Event\ndata: %s\n\n"
)

// broadcast is a bounded ring of events and those who read it as they come.
type broadcast struct {
	mu      sync.Mutex
	last    uint64 // number of the newest
	ring    []sent
	readers map[chan sent]bool
	closed  bool
}

type sent struct {
	id   uint64
	data []byte
	view object // what $filter of the stream sees of it
}

func newBroadcast() *broadcast { return &broadcast{readers: map[chan sent]bool{}} }

// send passes an event on, whose number rises. A reader that is too far behind loses
// its connection; it comes back with Last-Event-ID.
func (b *broadcast) send(number uint64, record object) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.last = number
	data, err := json.Marshal(object{
		"@odata.type": "#Event.v1_13_0.Event", "Id": record["EventId"], "Name": "Event of the rack", "Events": []object{record},
	})
	if err != nil { // an object of ours always marshals
		return
	}
	e := sent{number, data, streamView(record)}
	b.ring = append(b.ring, e)
	if over := len(b.ring) - replay; over > 0 {
		b.ring = append(b.ring[:0:0], b.ring[over:]...)
	}
	for r := range b.readers {
		select {
		case r <- e:
		default:
			delete(b.readers, r)
			close(r)
		}
	}
}

// read joins the readers. The first result is what came after the event with
// the number last and is still known; all of it if that number is not.
func (b *broadcast) read(last uint64, resume bool) ([]sent, chan sent, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || len(b.readers) >= maxReaders {
		return nil, nil, false
	}
	var old []sent
	if resume {
		for i := range b.ring {
			if b.ring[i].id > last || last > b.last {
				old = append(old, b.ring[i])
			}
		}
	}
	c := make(chan sent, backlog)
	b.readers[c] = true
	return old, c, true
}

func (b *broadcast) leave(c chan sent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.readers[c] {
		delete(b.readers, c)
		close(c)
	}
}

func (b *broadcast) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.readers)
}

func (b *broadcast) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for r := range b.readers {
		delete(b.readers, r)
		close(r)
	}
}

func (s *Service) eventRecord(e *entry) object {
	c := &s.rmc
	if u := s.byName(e.source); u != nil {
		c = &u.controller
	}
	return object{
		"MemberId": "0", "EventType": "Event", "EventTimestamp": stamp(e.created), "MessageId": e.messageID(), "MessageArgs": []string{e.message()},
		"Message": e.message(), "MessageSeverity": e.severity(), "Severity": e.severity(), "Resolution": e.resolution(),
		"OriginOfCondition": ref(s.origin(e)), "LogEntry": ref(logURI(c) + "/Entries/" + e.id),
		"Oem": object{"Racklet": e.oem()},
	}
}

// serveSSE streams events (DSP0266, 13.5 "Server-sent events").
func (s *Service) serveSSE(w http.ResponseWriter, r *http.Request) {
	var last uint64
	text := r.Header.Get("Last-Event-ID")
	if text != "" {
		var err error
		if last, err = strconv.ParseUint(text, 10, 64); err != nil {
			fail(w, http.StatusBadRequest, msgHeaderInvalid("Last-Event-ID", text))
			return
		}
	}
	wants, m, status := streamFilter(r.URL.RawQuery)
	if status != 0 {
		fail(w, status, m)
		return
	}
	old, events, ok := s.events.read(last, text != "")
	if !ok {
		w.Header().Set("Retry-After", "5")
		fail(w, http.StatusServiceUnavailable, msgUnavailable(5))
		return
	}
	defer s.events.leave(events)
	c := http.NewResponseController(w)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Del("Content-Length")
	w.WriteHeader(http.StatusOK)
	fmt.Fprint(w, ": racklet\n\n")
	for _, e := range old {
		if wants(e.view) {
			fmt.Fprintf(w, streamEvent, e.id, e.data)
		}
	}
	if c.Flush() != nil {
		return
	}
	t := time.NewTicker(keepAlive)
	defer t.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-t.C:
			fmt.Fprint(w, ": still here\n\n")
		case e, ok := <-events:
			if !ok {
				return
			}
			if !wants(e.view) {
				continue
			}
			fmt.Fprintf(w, streamEvent, e.id, e.data)
		}
		c.SetWriteDeadline(time.Now().Add(keepAlive))
		if c.Flush() != nil {
			return
		}
	}
}

// streamProperties are what $filter of the stream may name (DSP0266, 13.5.2 "Event message SSE stream", and the EventService schema,
// SSEFilterPropertiesSupported).
var streamProperties = []string{"EventFormatType", "MessageId", "OriginResource", "RegistryPrefix", "ResourceType"}

func streamView(record object) object {
	id, _ := record["MessageId"].(string)
	prefix, _, _ := strings.Cut(id, ".")
	origin := ""
	if at, ok := record["OriginOfCondition"].(object); ok {
		origin, _ = at["@odata.id"].(string)
	}
	return object{"EventFormatType": "Event", "MessageId": id, "OriginResource": origin, "RegistryPrefix": prefix, "ResourceType": typeOf(origin)}
}

// streamFilter reads the query of a stream: $filter and nothing else.
func streamFilter(raw string) (wants predicate, m message, status int) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, msgQueryValue(shorten(raw), "query", "a well-formed query"), http.StatusBadRequest
	}
	wants = func(object) bool { return true }
	for name, v := range values {
		switch text := v[len(v)-1]; {
		case name == "$filter":
			const want = "an expression of eq, ne, and, or, not and parentheses over EventFormatType, MessageId, OriginResource, RegistryPrefix and ResourceType"
			tokens, err := filterTokens(text)
			if err == nil {
				wants, err = parseFilter(text)
			}
			known := append([]string{"and", "or", "not", "eq", "ne", "(", ")"}, streamProperties...)
			if err != nil || slices.ContainsFunc(tokens, func(t string) bool { return t[0] != '\'' && !slices.Contains(known, t) }) {
				return nil, msgQueryValue(shorten(text), name, want), http.StatusBadRequest
			}
		case strings.HasPrefix(name, "$"):
			return nil, msgQuery(shorten(name)), http.StatusNotImplemented
		}
	}
	return wants, m, 0
}

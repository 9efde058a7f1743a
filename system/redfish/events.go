package redfish

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
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
	next    uint64
	ring    []sent
	readers map[chan sent]bool
	closed  bool
}

type sent struct {
	id   uint64
	data []byte
}

// newBroadcast starts numbering at first, which is above all numbers of earlier runs.
func newBroadcast(first uint64) *broadcast {
	return &broadcast{next: first, readers: map[chan sent]bool{}}
}

// send numbers an event and passes it on. A reader that is too far behind loses
// its connection; it comes back with Last-Event-ID.
func (b *broadcast) send(record object) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.next++
	id := strconv.FormatUint(b.next, 10)
	record["EventId"] = id
	data, err := json.Marshal(object{
		"@odata.type": "#Event.v1_13_0.Event", "Id": id, "Name": "Event of the rack", "Events": []object{record},
	})
	if err != nil { // an object of ours always marshals
		return
	}
	e := sent{b.next, data}
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
			if b.ring[i].id > last || last > b.next {
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
		fmt.Fprintf(w, streamEvent, e.id, e.data)
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
			fmt.Fprintf(w, streamEvent, e.id, e.data)
		}
		c.SetWriteDeadline(time.Now().Add(keepAlive))
		if c.Flush() != nil {
			return
		}
	}
}

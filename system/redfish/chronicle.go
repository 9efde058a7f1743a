package redfish

import (
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/system/redfish/lines"
)

// Bounds of the chronicle: four files of 4 MiB are some forty thousand events.
const (
	chronicleBytes = 4 << 20
	chronicleFiles = 4
	chronicleLine  = 16 << 10
)

// chronicle numbers all events, those of the controllers and those of the service itself, and keeps them over restarts:
// it is what logs, the event stream and subscriptions show again when the service has started anew. An event is on the disk
// before anybody reads it. Controllers have their own rings; what is in the chronicle is not read from there again.
type chronicle struct {
	mu     sync.Mutex // orders events: numbers, files, logs and readers agree
	last   uint64     // number of the newest
	lines  *lines.Log // nil: kept in memory only
	recent []happening
}

// happening is an event as it is kept.
type happening struct {
	Number uint64    `json:"n"`
	Time   time.Time `json:"time"`

	// Of a controller's log.
	Slot  uint8      `json:"slot,omitempty"` // 0: the RMC
	Entry string     `json:"entry,omitempty"`
	Life  int        `json:"life,omitempty"`
	Event *keptEvent `json:"event,omitempty"`

	// Of the service itself.
	Message *keptMessage `json:"message,omitempty"`
	Origin  string       `json:"origin,omitempty"`
}

// keptEvent is a controller's event.
type keptEvent struct {
	Sequence uint32         `json:"seq,omitempty"`
	Millis   uint64         `json:"ms,omitempty"`
	Boot     uint32         `json:"boot,omitempty"`
	Kind     wire.EventKind `json:"kind"`
	ClockSet bool           `json:"clock,omitempty"`
	Slot     uint8          `json:"slot,omitempty"`
	Code     uint16         `json:"code,omitempty"`
	Text     string         `json:"text,omitempty"`
	Reason   string         `json:"reason,omitempty"`
	Expected string         `json:"expected,omitempty"`
	Seen     string         `json:"seen,omitempty"`
}

func keepEvent(e *wire.Event) *keptEvent {
	return &keptEvent{e.Sequence, e.Millis, e.Boot, e.Kind, e.ClockSet, e.Slot, e.Code, e.Text.String(),
		e.Failure.Reason.String(), e.Failure.Expected.String(), e.Failure.Seen.String()}
}

func (k *keptEvent) event() wire.Event {
	return wire.Event{Sequence: k.Sequence, Millis: k.Millis, Boot: k.Boot, Kind: k.Kind, ClockSet: k.ClockSet, Slot: k.Slot, Code: k.Code,
		Text: wire.MakeText64(k.Text), Failure: wire.MakeFailure(k.Reason, k.Expected, k.Seen)}
}

// openChronicle reads what is kept into the logs of the controllers.
func openChronicle(s *Service) (*chronicle, error) {
	c := &chronicle{last: uint64(s.start.UnixMilli())} // above all numbers of earlier runs that kept nothing
	if s.o.Dir == "" {
		return c, nil
	}
	var last uint64
	l, err := lines.Open(lines.Options{Dir: s.o.Dir, Name: "events", Bytes: chronicleBytes, Files: chronicleFiles, Line: chronicleLine}, func(b []byte) bool {
		var h happening
		if json.Unmarshal(b, &h) != nil || h.Number <= last || (h.Event == nil) == (h.Message == nil) {
			return false
		}
		last = h.Number
		if h.Event == nil {
			c.remember(h)
			return true
		}
		of := s.inSlot(h.Slot)
		if of == nil { // the rack has no such slot any more
			return true
		}
		of.recall(&h)
		c.remember(h)
		return true
	})
	if err != nil {
		return nil, err
	}
	if last > 0 {
		c.last = last
	}
	c.lines = l
	return c, nil
}

// remember keeps an event at hand for readers that come back.
func (c *chronicle) remember(h happening) {
	c.recent = append(c.recent, h)
	if len(c.recent) >= 2*replay {
		c.recent = append(c.recent[:0:0], c.recent[len(c.recent)-replay:]...)
	}
}

// inSlot is the controller in a slot; 0: the RMC.
func (s *Service) inSlot(slot uint8) *controller {
	if slot == 0 {
		return &s.rmc
	}
	for _, u := range s.units {
		if u.slot == slot {
			return &u.controller
		}
	}
	return nil
}

// recall puts a kept event back into its controller's log.
func (c *controller) recall(h *happening) {
	c.log.add(c.entryOf(h))
	if h.Event.Sequence == 0 {
		c.log.notes++
		return
	}
	if h.Life != c.life || h.Event.Sequence > c.after {
		c.life, c.after, c.unsure = h.Life, h.Event.Sequence, h.Event
	}
}

func (c *controller) entryOf(h *happening) entry {
	return entry{id: h.Entry, source: c.name, slot: c.eid.Slot(), created: h.Time, event: h.Event.event(), life: h.Life}
}

// restore gives stream and subscriptions the newest kept events: those that were not delivered go out now.
func (s *Service) restore() {
	c := s.chronicle
	over := max(len(c.recent)-replay, 0)
	for i := range c.recent[over:] {
		h := &c.recent[over+i]
		if h.Event != nil {
			of := s.inSlot(h.Slot)
			e := of.entryOf(h)
			s.countEvent(of, &e)
			s.send(h.Number, s.eventRecord(&e))
			continue
		}
		s.send(h.Number, messageRecord(h.Time, h.Message.message(), h.Origin))
	}
	c.recent = nil
}

// send passes a numbered event on.
func (s *Service) send(number uint64, record object) {
	record["EventId"] = strconv.FormatUint(number, 10)
	s.events.send(number, record)
	s.pushes.offer(number, record)
}

// keep writes events. The lock is held. A full disk must not blind those who look now.
func (c *chronicle) keep(s *Service, list []happening) {
	if c.lines == nil {
		return
	}
	all := make([][]byte, len(list))
	for i := range list {
		all[i], _ = json.Marshal(&list[i]) // a struct of texts and numbers
	}
	if err := c.lines.Append(all...); err != nil {
		s.log.Error("events are not kept", "error", err)
	}
}

// close closes the files. What comes later is not kept.
func (c *chronicle) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lines != nil {
		c.lines.Close()
		c.lines = nil
	}
}

// enter logs events of one controller and sends them to whoever listens.
func (s *Service) enter(c *controller, list ...entry) {
	s.chronicle.mu.Lock()
	defer s.chronicle.mu.Unlock()
	kept := make([]happening, len(list))
	for i := range list {
		e := &list[i]
		e.source, e.slot = c.name, c.eid.Slot()
		if e.id == "" {
			c.log.notes++
			e.id = "n" + strconv.Itoa(c.log.notes)
		}
		s.chronicle.last++
		kept[i] = happening{Number: s.chronicle.last, Time: e.created, Slot: e.slot, Entry: e.id, Life: e.life, Event: keepEvent(&e.event)}
	}
	s.chronicle.keep(s, kept)
	s.mu.Lock()
	for _, e := range list {
		c.log.add(e)
	}
	s.mu.Unlock()
	for i := range list {
		s.countEvent(c, &list[i])
		s.send(kept[i].Number, s.eventRecord(&list[i]))
	}
}

// announce sends an event that is about a resource of the service itself.
func (s *Service) announce(at time.Time, m message, origin string) {
	s.chronicle.mu.Lock()
	defer s.chronicle.mu.Unlock()
	s.chronicle.last++
	k := kept(m)
	h := happening{Number: s.chronicle.last, Time: at, Message: &k, Origin: origin}
	s.chronicle.keep(s, []happening{h})
	s.send(h.Number, messageRecord(at, m, origin))
}

// messageRecord is an event of the service itself.
func messageRecord(at time.Time, m message, origin string) object {
	args := m.args
	if args == nil {
		args = []string{}
	}
	return object{
		"MemberId": "0", "EventType": "Event", "EventTimestamp": stamp(at), "MessageId": m.id, "MessageArgs": args,
		"Message": m.text, "MessageSeverity": m.severity, "Severity": m.severity, "Resolution": m.resolution, "OriginOfCondition": ref(origin),
	}
}

// record logs events of a controller, in their order.
func (s *Service) record(c *controller, events []wire.Event) {
	list := make([]entry, len(events))
	for i := range events {
		e := &events[i]
		at := s.clock.Now()
		if e.ClockSet && e.Millis > 0 && e.Millis < 1<<47 {
			at = time.UnixMilli(int64(e.Millis))
		}
		id := strconv.FormatUint(uint64(e.Sequence), 10)
		if c.life > 0 {
			id = fmt.Sprintf("%d-%s", c.life+1, id)
		}
		list[i] = entry{id: id, created: at, event: *e, life: c.life}
	}
	if len(list) > 0 {
		s.enter(c, list...)
	}
}

// note logs what the service itself has to say about a controller.
func (s *Service) note(c *controller, kind wire.EventKind, code uint16, text string) {
	s.enter(c, entry{created: s.clock.Now(), event: wire.Event{Kind: kind, Code: code, Slot: c.eid.Slot(), Text: wire.MakeText64(text)}})
}

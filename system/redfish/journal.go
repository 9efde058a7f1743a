package redfish

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack"
)

// maxEntries bounds each journal in memory. It is filled from the chronicle when the service starts.
const maxEntries = 1000

// entry is a log entry: an event of a controller, or a note of the service about one.
type entry struct {
	id      string // of the log entry: the sequence, or "n" and a number for notes
	source  string
	slot    uint8
	created time.Time
	event   wire.Event
	life    int // of the controller, as in its field of that name
}

// journal is the log of one controller, oldest first.
type journal struct {
	entries []entry
	notes   int
}

func (j *journal) add(e entry) {
	j.entries = append(j.entries, e)
	if over := len(j.entries) - maxEntries; over > 0 {
		j.entries = append(j.entries[:0:0], j.entries[over:]...)
	}
}

func (j *journal) find(id string) *entry {
	for i := range j.entries {
		if j.entries[i].id == id {
			return &j.entries[i]
		}
	}
	return nil
}

// message is the entry in words.
func (e *entry) message() string {
	text := e.event.Text.String()
	if text != "" {
		text = subject(&e.event, text)
	}
	if f := &e.event.Failure; !f.IsZero() {
		if text != "" {
			text += ": "
		}
		text += f.Reason.String()
		if f.Expected.Len() > 0 || f.Seen.Len() > 0 {
			text += fmt.Sprintf(": expected %s, seen %s", f.Expected, f.Seen)
		}
	}
	if text == "" {
		text = words(&e.event)
	}
	return text
}

// subject makes a sentence of an event's text, which says about what, and its
// code, which says what happened to it.
func subject(e *wire.Event, text string) string {
	switch said := words(e); {
	case e.Kind == wire.EventSensor && e.Failure.IsZero():
		return text + strings.TrimPrefix(said, "sensor")
	case e.Kind == wire.EventFan && e.Code < 2:
		return text + strings.TrimPrefix(said, "fan")
	case e.Kind == wire.EventFan, e.Kind == wire.EventRail:
		return said + ": " + text
	case e.Kind == wire.EventSlot && e.Code <= uint16(wire.SlotB):
		return said + " " + text
	case e.Kind == wire.EventFloors:
		return "floors " + text
	case e.Kind == wire.EventPower && e.Code == 1 && text[0] >= '0' && text[0] <= '9':
		return "granted " + text
	}
	return text
}

// words says what an event without a text means by its kind and code.
func words(e *wire.Event) string {
	kind := e.Kind.String()
	either := func(off, on string) string {
		if e.Code == 0 {
			return kind + " " + off
		}
		return kind + " " + on
	}
	switch e.Kind {
	case wire.EventStage:
		return "stage " + wire.Stage(e.Code).String()
	case wire.EventState:
		return "state " + wire.State(e.Code).String()
	case wire.EventRail:
		return either("off", "on")
	case wire.EventReset:
		return either("by the unit", "by the BMC")
	case wire.EventPresence:
		return either("lost: tray pulled", "gained: tray inserted")
	case wire.EventFan:
		return kind + " " + [...]string{"stalled", "turns again", "control at full speed", "control follows the curve"}[min(e.Code, 3)]
	case wire.EventThermal:
		return kind + " " + [...]string{"normal", "throttle", "shutdown"}[min(e.Code, 2)]
	case wire.EventPower:
		return kind + " " + [...]string{"refused", "granted", "withdrawn"}[min(e.Code, 2)]
	case wire.EventRestart:
		return "controller started"
	case wire.EventSensor, wire.EventBus, wire.EventReport:
		return either("lost", "back")
	case wire.EventSlot:
		if e.Code <= uint16(wire.SlotB) {
			return "boot slot " + slotLetter(uint8(e.Code))
		}
	case wire.EventKey:
		return "key register set"
	case wire.EventDesired:
		return "desired state accepted"
	case wire.EventFloors:
		return "floors raised"
	case wire.EventPolicy:
		return "policies accepted"
	}
	return kind + " " + strconv.Itoa(int(e.Code))
}

func (e *entry) severity() string {
	switch e.event.Kind {
	case wire.EventFailure:
		return "Critical"
	case wire.EventFan:
		if e.event.Code == 0 || e.event.Code == 2 {
			return "Warning"
		}
	case wire.EventSensor, wire.EventBus, wire.EventPresence, wire.EventReport:
		if e.event.Code == 0 {
			return "Warning"
		}
	case wire.EventThermal:
		return [...]string{"OK", "Warning", "Critical"}[min(e.event.Code, 2)]
	case wire.EventPower:
		if e.event.Code != 1 {
			return "Warning"
		}
	}
	if !e.event.Failure.IsZero() {
		return "Critical"
	}
	return "OK"
}

// resolution is what to do about it, where anything is to be done.
func (e *entry) resolution() string {
	if r, ok := rack.LookupReason(e.event.Failure.Reason.String()); ok {
		return r.Cure
	}
	if e.severity() == "OK" {
		return "None."
	}
	return "Look at the resource that the event is about."
}

// messageID names the kind of an event in our own registry.
func (e *entry) messageID() string { return registryPrefix + kindName(e.event.Kind) }

const registryPrefix = "Racklet.1.0."

func kindName(k wire.EventKind) string {
	name := k.String()
	return string(name[0]-'a'+'A') + name[1:]
}

func (e *entry) oem() object {
	o := object{
		"@odata.type": "#RackletEvent.v1_0_0.Racklet",
		"Source":      e.source, "Kind": e.event.Kind.String(), "Code": e.event.Code, "BootCount": e.event.Boot,
		"Sequence": e.event.Sequence, "ClockSet": e.event.ClockSet,
	}
	if e.event.Slot != 0 {
		o["Slot"] = e.event.Slot
	}
	if e.event.Kind == wire.EventStage {
		o["Stage"] = wire.Stage(e.event.Code).String()
	}
	if f := &e.event.Failure; !f.IsZero() {
		o["Reason"], o["Expected"], o["Seen"] = f.Reason.String(), f.Expected.String(), f.Seen.String()
	}
	return o
}

// origin is the resource that an entry is about.
func (s *Service) origin(e *entry) string {
	if e.slot != 0 {
		return root + "/Systems/" + e.source
	}
	return root + "/Managers/rmc"
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

package wire

// maxEvent is the longest an event can be on the wire.
const maxEvent = 4 + 8 + 4 + 1 + 1 + 1 + 2 + (1 + 64) + (1 + 32) + 2*(1+72)

// MaxEvents is how many events of any length fit into one response of ReadEvents.
const MaxEvents = (MaxMessage - 1 - HeaderSize - 1 - eventsHeader) / maxEvent

const eventsHeader = 4 + 4 + 1

// AppendReadEvents appends the request of ReadEvents: events with a sequence above
// after are wanted, oldest first.
func AppendReadEvents(dst []byte, after uint32) []byte { return le.AppendUint32(dst, after) }

// ParseReadEvents reads the request of ReadEvents.
func ParseReadEvents(b []byte) (after uint32, err error) { return ParseOffset(b) }

// AppendEvent appends one event.
func AppendEvent(dst []byte, e *Event) []byte {
	dst = le.AppendUint32(dst, e.Sequence)
	dst = le.AppendUint64(dst, e.Millis)
	dst = le.AppendUint32(dst, e.Boot)
	dst = append(dst, byte(e.Kind))
	dst = appendBool(dst, e.ClockSet)
	dst = append(dst, e.Slot)
	dst = le.AppendUint16(dst, e.Code)
	dst = appendText(dst, e.Text.Bytes())
	return AppendFailure(dst, &e.Failure)
}

func (c *cursor) event(e *Event) {
	e.Sequence = c.u32()
	e.Millis = c.u64()
	e.Boot = c.u32()
	e.Kind = EventKind(c.u8()) // newer controllers may have kinds that we do not know
	e.ClockSet = c.boolean()
	e.Slot = c.max(MaxSlots)
	e.Code = c.u16()
	e.Text.set(c.text(len(e.Text.b)))
	c.failure(&e.Failure)
}

// ParseEvent reads one event, as it is stored in a controller's flash.
func ParseEvent(b []byte) (e Event, err error) {
	c := cursor{b: b}
	c.event(&e)
	return e, c.done()
}

// EventWriter builds the response of ReadEvents in a buffer, event by event.
type EventWriter struct {
	dst   []byte
	start int
	limit int
	count uint8
}

// StartEvents begins the response behind what dst holds already. Oldest and newest are the
// ends of the ring (0: it is empty). The message, from the start of dst on, will not exceed limit bytes.
func StartEvents(dst []byte, oldest, newest uint32, limit int) EventWriter {
	w := EventWriter{start: len(dst), limit: limit}
	w.dst = append(le.AppendUint32(le.AppendUint32(dst, oldest), newest), 0)
	return w
}

// Add appends an event and reports whether it fitted.
func (w *EventWriter) Add(e *Event) bool {
	if w.count == 0xFF || len(w.dst)+e.size() > w.limit {
		return false
	}
	w.dst = AppendEvent(w.dst, e)
	w.count++
	w.dst[w.start+eventsHeader-1] = w.count
	return true
}

// Bytes returns dst with the response behind it.
func (w *EventWriter) Bytes() []byte { return w.dst }

func (e *Event) size() int {
	return maxEvent - 64 - 32 - 2*72 + e.Text.Len() + e.Failure.Reason.Len() + e.Failure.Expected.Len() + e.Failure.Seen.Len()
}

// Events reads the response of ReadEvents, event by event.
type Events struct {
	Oldest, Newest uint32 // sequences of the ends of the ring; 0: it is empty
	Count          uint8  // events in this response
	c              cursor
}

// ParseEvents begins to read the response of ReadEvents.
func ParseEvents(b []byte) (Events, error) {
	e := Events{c: cursor{b: b}}
	e.Oldest, e.Newest, e.Count = e.c.u32(), e.c.u32(), e.c.u8()
	return e, e.c.err
}

// Next reads the next event. After the last one it returns false; Err then tells
// whether the response was well formed.
func (e *Events) Next(ev *Event) bool {
	if e.Count == 0 || e.c.err != nil {
		return false
	}
	e.Count--
	*ev = Event{}
	e.c.event(ev)
	return e.c.err == nil
}

// Err reports what was wrong with the response, after Next has returned false.
func (e *Events) Err() error { return e.c.done() }

package wire

// Port is one end of a serial line for a controller: bytes in, whole messages
// out, and answers in frames. It answers MCTP control messages by itself. The zero
// value of the other fields is right; one Port per line and side. Memory: this struct,
// a little under 5 KiB.
type Port struct {
	Own  EID
	Slot uint8 // on the multi-drop bus: our slot; 0: a point-to-point line
	Unit int   // transmission unit of what we send; 0: SerialUnit

	Frames  Deframer
	Packets Assembler
}

// Push takes one byte from the line. When that byte completes a message, Push returns it and
// true; the message is valid until the next call.
func (p *Port) Push(b byte) (m Message, ok bool) {
	p.Frames.Bus = p.Slot != 0
	packet, ok := p.Frames.Push(b)
	if !ok || p.Slot != 0 && p.Frames.Address() != ToSlot(p.Slot) {
		return Message{}, false
	}
	p.Packets.Own = p.Own
	return p.Packets.Push(packet)
}

// Control answers m if it is an MCTP control message, in frames appended to dst. It
// reports whether m was one.
func (p *Port) Control(dst []byte, m *Message) ([]byte, bool) {
	if m.Type != MessageControl {
		return dst, false
	}
	var buf [16]byte
	if body := HandleControl(buf[:0], p.Own, m.Body); len(body) > 0 {
		dst = p.Respond(dst, m, body)
	}
	return dst, true
}

// Respond appends the frames of the answer to m. A body beyond MaxMessage is dropped: the
// requester will time out.
func (p *Port) Respond(dst []byte, m *Message, body []byte) []byte {
	a := m.Reply()
	a.Source = p.Own
	var bus byte
	if p.Slot != 0 {
		bus = FromSlot(p.Slot)
	}
	unit := p.Unit
	if unit == 0 {
		unit = SerialUnit
	}
	out, err := AppendMessage(dst, bus, a, m.Type, body, unit)
	if err != nil {
		return dst
	}
	return out
}

package wire

// MCTP packets: DSP0236 1.3, clause 8.1 "MCTP packet fields".
const (
	mctpVersion    = 0x01
	packetHeader   = 4
	flagStart      = 0x80 // SOM
	flagEnd        = 0x40 // EOM
	sequenceShift  = 4
	flagTagOwner   = 0x08
	tagMask        = 0x07
	integrityCheck = 0x80 // in the first body byte; PLDM does not use it (DSP0241, 7.1)
	broadcastEID   = 0xFF
)

// MCTP message types (DSP0239).
const (
	MessageControl uint8 = 0x00
	MessagePLDM    uint8 = 0x01
	MessageSPDM    uint8 = 0x05
)

// Limits of packets and messages, in bytes.
const (
	// BaselineUnit is the transmission unit that every endpoint accepts (DSP0236, 8.3).
	BaselineUnit = 64
	// SerialUnit is the largest transmission unit of a serial frame.
	SerialUnit = MaxPacket - packetHeader
	// MaxMessage is the longest message we send or assemble, its type byte included.
	MaxMessage = 4096
)

// Address is the part of the packet header that all packets of a message share.
type Address struct {
	Dest, Source EID
	Tag          uint8 // 0 to 7
	TagOwner     bool  // set by who chose the tag: in requests
}

// Reply returns the address of the answer to a message.
func (a Address) Reply() Address {
	return Address{Dest: a.Source, Source: a.Dest, Tag: a.Tag, TagOwner: !a.TagOwner}
}

// ParsePacket takes an MCTP packet apart.
func ParsePacket(packet []byte) (p Packet, err error) {
	if len(packet) <= packetHeader {
		return Packet{}, ErrShort
	}
	if packet[0] != mctpVersion {
		return Packet{}, ErrValue
	}
	f := packet[3]
	return Packet{
		Address:  Address{Dest: EID(packet[1]), Source: EID(packet[2]), Tag: f & tagMask, TagOwner: f&flagTagOwner != 0},
		Start:    f&flagStart != 0,
		End:      f&flagEnd != 0,
		Sequence: f >> sequenceShift & 3,
		Body:     packet[packetHeader:],
	}, nil
}

// Packet is one MCTP packet. Body is a view of the input.
type Packet struct {
	Address
	Start, End bool
	Sequence   uint8 // 0 to 3
	Body       []byte
}

// AppendPacket appends a packet in its wire form, without framing.
func AppendPacket(dst []byte, p Packet) []byte {
	f := p.Tag&tagMask | p.Sequence&3<<sequenceShift
	if p.Start {
		f |= flagStart
	}
	if p.End {
		f |= flagEnd
	}
	if p.TagOwner {
		f |= flagTagOwner
	}
	dst = append(dst, mctpVersion, byte(p.Dest), byte(p.Source), f)
	return append(dst, p.Body...)
}

// Packetiser cuts a message into packets. Start it, then call Next until it says no.
type Packetiser struct {
	addr  Address
	kind  uint8
	rest  []byte
	unit  int
	seq   uint8
	first bool
	more  bool
}

// Start begins a message of the given MCTP type; body is kept until the last Next.
// Unit is the transmission unit; it is held between BaselineUnit and SerialUnit.
// A message beyond MaxMessage is refused.
func (p *Packetiser) Start(a Address, kind uint8, body []byte, unit int) error {
	if 1+len(body) > MaxMessage {
		p.more = false
		return ErrLong
	}
	*p = Packetiser{addr: a, kind: kind, rest: body, unit: min(max(unit, BaselineUnit), SerialUnit), first: true, more: true}
	return nil
}

// Next appends the next packet to dst. It returns false, and dst as it was, when
// the message is finished.
func (p *Packetiser) Next(dst []byte) ([]byte, bool) {
	if !p.more {
		return dst, false
	}
	room := p.unit
	if p.first {
		room-- // the message type
	}
	n := min(room, len(p.rest))
	p.more = n < len(p.rest)
	dst = AppendPacket(dst, Packet{Address: p.addr, Start: p.first, End: !p.more, Sequence: p.seq})
	if p.first {
		dst = append(dst, p.kind)
	}
	dst = append(dst, p.rest[:n]...)
	p.rest = p.rest[n:]
	p.first = false
	p.seq = (p.seq + 1) & 3
	return dst, true
}

// AppendMessage appends a whole message as serial frames. Address 0 is a
// point-to-point line, any other value the bus address.
func AppendMessage(dst []byte, bus byte, a Address, kind uint8, body []byte, unit int) ([]byte, error) {
	var p Packetiser
	if err := p.Start(a, kind, body, unit); err != nil {
		return dst, err
	}
	var buf [MaxPacket]byte
	for {
		packet, ok := p.Next(buf[:0])
		if !ok {
			return dst, nil
		}
		var err error
		if bus == 0 {
			dst, err = AppendFrame(dst, packet)
		} else {
			dst, err = AppendBusFrame(dst, bus, packet)
		}
		if err != nil {
			return dst, err
		}
	}
}

// Message is an assembled message. Body is a view into the assembler.
type Message struct {
	Address
	Type uint8
	Body []byte
}

// AssemblerStats counts what an Assembler has seen.
type AssemblerStats struct {
	Messages  uint32 // complete ones
	Malformed uint32 // packets that are no MCTP packets of version 1
	Foreign   uint32 // packets for another endpoint
	Stray     uint32 // packets of no message being assembled
	Sequence  uint32 // messages given up: sequence number or size of a packet is wrong
	Oversize  uint32 // messages given up: longer than MaxMessage
	Replaced  uint32 // messages given up: a new one started
}

// Dropped is the number of packets and messages that came to nothing.
func (s *AssemblerStats) Dropped() uint32 {
	return s.Malformed + s.Foreign + s.Stray + s.Sequence + s.Oversize + s.Replaced
}

// Assembler puts packets for one endpoint together to messages (DSP0236, 8.9
// "Packet to message assembly"). It holds one message at a time: a new start
// replaces an unfinished one, and what does not fit is dropped and counted.
// Memory: this struct, a little over 4 KiB.
type Assembler struct {
	Own   EID // packets for this endpoint are taken, and those for EIDNull
	Stats AssemblerStats

	active bool
	addr   Address
	next   uint8 // expected sequence number
	size   int   // body size of all packets but the last
	n      int
	buf    [MaxMessage]byte
}

// Push takes one packet. When it completes a message, Push returns it and true;
// the message is valid until the next call.
func (a *Assembler) Push(packet []byte) (m Message, ok bool) {
	p, err := ParsePacket(packet)
	if err != nil {
		a.Stats.Malformed++
		return Message{}, false
	}
	if p.Dest != a.Own && p.Dest != EIDNull {
		a.Stats.Foreign++
		return Message{}, false
	}
	switch {
	case p.Start:
		if a.active {
			a.Stats.Replaced++
		}
		a.active = true
		a.addr = p.Address
		a.next = p.Sequence
		a.size = len(p.Body)
		a.n = 0
	case !a.active || p.Address != a.addr:
		a.Stats.Stray++
		return Message{}, false
	}
	if p.Sequence != a.next || len(p.Body) > a.size || !p.End && len(p.Body) != a.size {
		a.active = false
		a.Stats.Sequence++
		return Message{}, false
	}
	if a.n+len(p.Body) > len(a.buf) {
		a.active = false
		a.Stats.Oversize++
		return Message{}, false
	}
	a.n += copy(a.buf[a.n:], p.Body)
	a.next = (a.next + 1) & 3
	if !p.End {
		return Message{}, false
	}
	a.active = false
	if a.buf[0]&integrityCheck != 0 {
		a.Stats.Malformed++
		return Message{}, false
	}
	a.Stats.Messages++
	return Message{Address: a.addr, Type: a.buf[0], Body: a.buf[1:a.n]}, true
}

// Reset gives up an unfinished message.
func (a *Assembler) Reset() {
	if a.active {
		a.active = false
		a.Stats.Replaced++
	}
}

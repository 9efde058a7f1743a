// Package conformance is what any BMC and any RMC must pass, the real ones and
// the fakes of wire/wiretest alike, over nothing but their serial lines. It is
// written from docs/wire.md and the specifications named there, not from an
// implementation: point it at someone else's controller.
//
//	func TestConformance(t *testing.T) {
//		conformance.BMC(t, conformance.BMCLines{Slot: 1, InBand: …, Bus: …, Addressed: true})
//	}
//
// The lines are the caller's to close, after the test. It changes the controller's state: it
// switches power on and off and leaves it off.
package conformance

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/wire"
)

const (
	answerTime = 10 * time.Second       // within which an answer comes; generous for loaded machines
	repeatTime = 2 * time.Second        // after which a request is repeated, under the same instance ID
	silentTime = 300 * time.Millisecond // after which no answer counts as none
	settleTime = 60 * time.Second       // for power to change, verification of a slot included
)

// probe is one line to a controller, seen from the other end.
type probe struct {
	name     string
	line     io.ReadWriter
	own      wire.EID // ours
	dest     wire.EID // the controller's
	address  byte     // of the bus; 0: point to point
	side     wire.Side
	messages chan wire.Message
	ended    chan error
	instance uint8
	tag      uint8
}

func newProbe(name string, line io.ReadWriter, own, dest wire.EID, slot uint8, side wire.Side) *probe {
	p := &probe{name: name, line: line, own: own, dest: dest, side: side, messages: make(chan wire.Message, 64), ended: make(chan error, 1)}
	if slot != 0 {
		p.address = wire.ToSlot(slot)
	}
	go p.read(slot)
	return p
}

// read passes on what comes until the caller closes the line.
func (p *probe) read(slot uint8) {
	frames := wire.Deframer{Bus: slot != 0}
	packets := wire.Assembler{Own: p.own}
	buf := make([]byte, 1024)
	for {
		n, err := p.line.Read(buf)
		for _, c := range buf[:n] {
			packet, ok := frames.Push(c)
			if !ok || slot != 0 && frames.Address() != wire.FromSlot(slot) {
				continue
			}
			if m, ok := packets.Push(packet); ok {
				m.Body = append([]byte(nil), m.Body...)
				select {
				case p.messages <- m:
				default: // nobody waits for what comes unasked
				}
			}
		}
		if err != nil {
			p.ended <- err
			return
		}
	}
}

func (p *probe) write(t testing.TB, b []byte) {
	t.Helper()
	if _, err := p.line.Write(b); err != nil {
		t.Fatalf("%s: write: %v", p.name, err)
	}
}

// drain forgets what has come.
func (p *probe) drain() {
	for {
		select {
		case <-p.messages:
		default:
			return
		}
	}
}

// send frames one message with a new tag.
func (p *probe) send(t testing.TB, dest wire.EID, kind uint8, body []byte, unit int) wire.Address {
	t.Helper()
	p.tag = (p.tag + 1) & 7
	a := wire.Address{Dest: dest, Source: p.own, Tag: p.tag, TagOwner: true}
	b, err := wire.AppendMessage(nil, p.address, a, kind, body, unit)
	if err != nil {
		t.Fatal(err)
	}
	p.write(t, b)
	return a
}

// wait returns the next message, or false after limit.
func (p *probe) wait(t testing.TB, limit time.Duration) (wire.Message, bool) {
	t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case m := <-p.messages:
		return m, true
	case err := <-p.ended:
		t.Fatalf("%s: the line ended: %v", p.name, err)
	case <-timer.C:
	}
	return wire.Message{}, false
}

// ask sends a PLDM request and returns completion code and payload of the answer. It repeats
// what may be repeated, as any requester does, and holds that the answer is one to the request.
func (p *probe) ask(t testing.TB, kind, command uint8, payload []byte) (wire.Code, []byte) {
	t.Helper()
	return p.askUnit(t, p.dest, kind, command, payload, wire.SerialUnit)
}

func (p *probe) askUnit(t testing.TB, dest wire.EID, kind, command uint8, payload []byte, unit int) (wire.Code, []byte) {
	t.Helper()
	p.drain()
	p.instance = (p.instance + 1) & 0x1F
	req := append(wire.AppendRequest(nil, p.instance, kind, command), payload...)
	attempts := answerTime / repeatTime
	if kind == wire.TypeOEM && (command == wire.CmdReset || command == wire.CmdWriteConsole || command == wire.CmdExtendMeasurement) {
		attempts = 1
	}
	for range attempts {
		a := p.send(t, dest, wire.MessagePLDM, req, unit)
		limit := repeatTime
		if attempts == 1 {
			limit = answerTime
		}
		for end := time.Now().Add(limit); ; {
			m, ok := p.wait(t, time.Until(end))
			if !ok {
				break
			}
			h, code, data, err := wire.ParseResponse(m.Body)
			if err == nil && m.Type == wire.MessagePLDM && (h.Instance != p.instance || m.Tag != a.Tag) {
				continue // an answer to an earlier request, or to an earlier attempt, that came late
			}
			switch {
			case m.Type != wire.MessagePLDM || err != nil:
				t.Fatalf("%s: command 0x%02x of type %d: answered message type %d, %v", p.name, command, kind, m.Type, err)
			case m.TagOwner || m.Dest != p.own || dest != wire.EIDNull && m.Source != dest:
				t.Fatalf("%s: command 0x%02x of type %d: answer is addressed %+v", p.name, command, kind, m.Address)
			case h.Type != kind || h.Command != command || h.Datagram:
				t.Fatalf("%s: command 0x%02x of type %d: answer has header %+v", p.name, command, kind, h)
			}
			return code, data
		}
	}
	t.Fatalf("%s: no answer to command 0x%02x of type %d", p.name, command, kind)
	return 0, nil
}

// must is ask where anything but success fails the test.
func (p *probe) must(t testing.TB, kind, command uint8, payload []byte) []byte {
	t.Helper()
	code, data := p.ask(t, kind, command, payload)
	if code != wire.CodeSuccess {
		t.Fatalf("%s: command 0x%02x of type %d: %s", p.name, command, kind, code)
	}
	return data
}

func (p *probe) oem(t testing.TB, command uint8, payload []byte) []byte {
	t.Helper()
	return p.must(t, wire.TypeOEM, command, payload)
}

// want holds that a request is answered with a code.
func (p *probe) want(t testing.TB, want wire.Code, kind, command uint8, payload []byte) {
	t.Helper()
	if code, _ := p.ask(t, kind, command, payload); code != want {
		t.Errorf("%s: command 0x%02x of type %d: %s (0x%02x), want %s (0x%02x)", p.name, command, kind, code, uint8(code), want, uint8(want))
	}
}

// control sends an MCTP control request and returns the answer.
func (p *probe) control(t testing.TB, dest wire.EID, command uint8, data ...byte) []byte {
	t.Helper()
	p.drain()
	p.instance = (p.instance + 1) & 0x1F
	p.send(t, dest, wire.MessageControl, append(wire.AppendControlRequest(nil, p.instance, command), data...), wire.BaselineUnit)
	m, ok := p.wait(t, answerTime)
	if !ok {
		t.Fatalf("%s: no answer to control command 0x%02x", p.name, command)
	}
	if m.Type != wire.MessageControl || len(m.Body) < 3 || m.Body[0] != p.instance || m.Body[1] != command {
		t.Fatalf("%s: control command 0x%02x: answered %x", p.name, command, m.Body)
	}
	return m.Body[2:]
}

// silent holds that nothing comes.
func (p *probe) silent(t testing.TB, what string) {
	t.Helper()
	if m, ok := p.wait(t, silentTime); ok {
		t.Errorf("%s: %s was answered: %x", p.name, what, m.Body)
	}
}

// until repeats f until it is true.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(settleTime); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out: %s", what)
		}
	}
}

// discovery is what every controller answers to anyone. Commands says which commands it has, by type.
func discovery(t *testing.T, p *probe, commands func(kind, command uint8) bool) {
	if a := p.control(t, p.dest, wire.CtlGetEndpointID); len(a) != 4 || a[0] != wire.CtlSuccess || wire.EID(a[1]) != p.dest {
		t.Errorf("endpoint ID: %x", a)
	}
	if a := p.control(t, p.dest, wire.CtlGetVersion, 0xFF); len(a) < 6 || a[0] != wire.CtlSuccess || a[1] == 0 {
		t.Errorf("MCTP version: %x", a)
	}
	if a := p.control(t, p.dest, wire.CtlGetTypeSupport); len(a) < 3 || a[0] != wire.CtlSuccess || !has(a[2:], wire.MessagePLDM) {
		t.Errorf("message types: %x", a)
	}
	if a := p.control(t, p.dest, 0x7F); a[0] != wire.CtlUnsupported {
		t.Errorf("unknown control command: %x", a)
	}
	if tid, err := wire.ParseTID(p.must(t, wire.TypeBase, wire.CmdGetTID, nil)); err != nil || tid == 0xFF {
		t.Errorf("terminus ID %d, %v; 0xFF is reserved", tid, err)
	}
	types, err := wire.ParseGetTypesResponse(p.must(t, wire.TypeBase, wire.CmdGetTypes, nil))
	if err != nil {
		t.Fatal(err)
	}
	for kind := range uint8(64) {
		want := kind == wire.TypeBase || kind == wire.TypeMonitor || kind == wire.TypeOEM
		if want && !types.Has(kind) {
			t.Errorf("type %d is missing", kind)
		}
		if !types.Has(kind) {
			if code, _ := p.ask(t, wire.TypeBase, wire.CmdGetVersion, wire.AppendGetVersionRequest(nil, kind)); code != wire.CodeBaseUnknownType {
				t.Errorf("version of type %d, which it does not have: %s (0x%02x)", kind, code, uint8(code))
			}
			continue
		}
		version, err := wire.ParseGetVersionResponse(p.must(t, wire.TypeBase, wire.CmdGetVersion, wire.AppendGetVersionRequest(nil, kind)))
		if err != nil {
			t.Errorf("version of type %d: %v", kind, err)
			continue
		}
		if !want {
			continue
		}
		set, err := wire.ParseGetCommandsResponse(p.must(t, wire.TypeBase, wire.CmdGetCommands, wire.AppendGetCommandsRequest(nil, kind, version)))
		if err != nil {
			t.Errorf("commands of type %d: %v", kind, err)
		}
		for c := range 256 {
			if kind == wire.TypeBase && uint8(c) == wire.CmdSetTID {
				continue // optional: the wiring says who is who
			}
			if set.Has(uint8(c)) != commands(kind, uint8(c)) {
				t.Errorf("%s: command 0x%02x of type %d: listed %v, want %v", p.name, c, kind, set.Has(uint8(c)), !set.Has(uint8(c)))
			}
		}
		p.want(t, wire.CodeBaseUnknownVersion, wire.TypeBase, wire.CmdGetCommands, wire.AppendGetCommandsRequest(nil, kind, version+1))
	}
	p.want(t, wire.CodeInvalidType, 0x3E, 0x01, nil)
	for _, kind := range []uint8{wire.TypeBase, wire.TypeMonitor, wire.TypeOEM} {
		p.want(t, wire.CodeUnsupported, kind, 0x7F, nil)
	}
	p.want(t, wire.CodeInvalidLength, wire.TypeBase, wire.CmdGetTID, []byte{0})
	p.want(t, wire.CodeInvalidLength, wire.TypeBase, wire.CmdGetVersion, []byte{0})
	// To "whoever is there" it answers under its own ID; what is for others it leaves alone.
	if code, _ := p.askUnit(t, wire.EIDNull, wire.TypeBase, wire.CmdGetTID, nil, wire.BaselineUnit); code != wire.CodeSuccess {
		t.Errorf("to the null endpoint: %s", code)
	}
	p.send(t, 0x70, wire.MessagePLDM, wire.AppendRequest(nil, 1, wire.TypeBase, wire.CmdGetTID), wire.BaselineUnit)
	p.silent(t, "a request to another endpoint")
	p.send(t, p.dest, wire.MessagePLDM, wire.AppendHeader(nil, wire.Header{Request: true, Datagram: true, Type: wire.TypeBase, Command: wire.CmdGetTID}), wire.BaselineUnit)
	p.silent(t, "a datagram")
	p.send(t, p.dest, wire.MessagePLDM, wire.AppendResponse(nil, wire.Header{Type: wire.TypeBase, Command: wire.CmdGetTID}, 0), wire.BaselineUnit)
	p.silent(t, "a response")
	p.send(t, p.dest, 0x7E, []byte{1, 2, 3}, wire.BaselineUnit)
	p.silent(t, "a message of a vendor's type")
}

func has(list []byte, v byte) bool {
	for _, e := range list {
		if e == v {
			return true
		}
	}
	return false
}

// damage sends everything that a line can do to frames, and holds that the controller answers after it.
func damage(t *testing.T, p *probe) {
	request := wire.AppendRequest(nil, 9, wire.TypeBase, wire.CmdGetTID)
	a := wire.Address{Dest: p.dest, Source: p.own, Tag: 6, TagOwner: true}
	good, err := wire.AppendMessage(nil, p.address, a, wire.MessagePLDM, request, wire.BaselineUnit)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(f func([]byte) []byte) []byte { return f(append([]byte(nil), good...)) }
	start := 0
	if p.address != 0 {
		start = 1
	}
	long := make([]byte, 600)
	parts := func(keep func(i int, packet []byte) []byte) []byte {
		var cut wire.Packetiser
		if err := cut.Start(a, wire.MessagePLDM, append(wire.AppendRequest(nil, 9, wire.TypeBase, wire.CmdGetTID), long...), 64); err != nil {
			t.Fatal(err)
		}
		var out []byte
		for i := 0; ; i++ {
			packet, ok := cut.Next(nil)
			if !ok {
				return out
			}
			if packet = keep(i, packet); packet == nil {
				continue
			}
			if p.address != 0 {
				out, err = wire.AppendBusFrame(out, p.address, packet)
			} else {
				out, err = wire.AppendFrame(out, packet)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	endless := func() (out []byte) { // a message longer than any may be
		for i := range 40 {
			packet := wire.AppendPacket(nil, wire.Packet{Address: a, Start: i == 0, Sequence: uint8(i & 3), Body: append([]byte{wire.MessagePLDM}, make([]byte, 240)...)})
			if p.address != 0 {
				out, _ = wire.AppendBusFrame(out, p.address, packet)
			} else {
				out, _ = wire.AppendFrame(out, packet)
			}
		}
		return out
	}
	noise := make([]byte, 700)
	for i := range noise {
		noise[i] = byte(i*37 + i>>3)
	}
	for _, c := range []struct {
		name string
		b    []byte
	}{
		{"bad check sequence", edit(func(b []byte) []byte { b[len(b)-2] ^= 1; return b })},
		{"flipped bit", edit(func(b []byte) []byte { b[start+8] ^= 0x20; return b })},
		{"other revision", edit(func(b []byte) []byte { b[start+1] = 2; return b })},
		{"cut short", good[:len(good)-5]},
		{"start lost", good[start+2:]},
		{"bad escape", edit(func(b []byte) []byte { b[start+6] = 0x7D; return b })},
		{"noise", noise},
		{"flags", []byte{0x7E, 0x7E, 0x7E, 0x7E, 0x7E}},
		{"wrong sequence", parts(func(i int, packet []byte) []byte {
			if i == 2 {
				packet[3] ^= 0x10
			}
			return packet
		})},
		{"lost packet", parts(func(i int, packet []byte) []byte {
			if i == 1 {
				return nil
			}
			return packet
		})},
		{"end lost", parts(func(i int, packet []byte) []byte {
			if i > 3 {
				return nil
			}
			return packet
		})},
		{"oversize message", endless()},
		{"message without a PLDM header", edit(func([]byte) []byte {
			b, _ := wire.AppendMessage(nil, p.address, a, wire.MessagePLDM, []byte{0x80}, 64)
			return b
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.drain()
			p.write(t, c.b)
			// The first request after a damaged byte count may be swallowed with it: a requester repeats.
			for range 40 {
				p.send(t, p.dest, wire.MessagePLDM, wire.AppendRequest(nil, 10, wire.TypeBase, wire.CmdGetTID), wire.BaselineUnit)
				for {
					m, ok := p.wait(t, silentTime)
					if !ok {
						break
					}
					if h, code, _, err := wire.ParseResponse(m.Body); err == nil && h.Instance == 10 && code == wire.CodeSuccess {
						return
					}
				}
			}
			t.Fatal("no answer after it")
		})
	}
}

// ring reads all events of a controller and holds that they are in order.
func ring(t testing.TB, p *probe) (events []wire.Event, newest uint32) {
	t.Helper()
	after := uint32(0)
	for range 1000 {
		r, err := wire.ParseEvents(p.oem(t, wire.CmdReadEvents, wire.AppendReadEvents(nil, after)))
		if err != nil {
			t.Fatalf("%s: events after %d: %v", p.name, after, err)
		}
		if r.Newest < r.Oldest || r.Newest < newest {
			t.Fatalf("%s: ring from %d to %d, was to %d", p.name, r.Oldest, r.Newest, newest)
		}
		newest = r.Newest
		if r.Count == 0 {
			if after < newest {
				t.Fatalf("%s: no events after %d, though the newest is %d", p.name, after, newest)
			}
			return events, newest
		}
		for e := (wire.Event{}); r.Next(&e); {
			if e.Sequence <= after || after != 0 && e.Sequence != after+1 || e.Sequence < r.Oldest {
				t.Fatalf("%s: event %d after %d in a ring from %d", p.name, e.Sequence, after, r.Oldest)
			}
			after = e.Sequence
			events = append(events, e)
		}
		if err := r.Err(); err != nil {
			t.Fatalf("%s: events: %v", p.name, err)
		}
	}
	t.Fatalf("%s: the ring has no end", p.name)
	return nil, 0
}

// records reads the whole PDR repository and tries every sensor and effecter in it.
func records(t testing.TB, p *probe) map[string]wire.PDR {
	t.Helper()
	info, err := wire.ParsePDRInfo(p.must(t, wire.TypeMonitor, wire.CmdGetPDRInfo, nil))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]wire.PDR{}
	var size, largest, count uint32
	for record := uint32(0); ; {
		next, data, err := wire.ParseGetPDRResponse(p.must(t, wire.TypeMonitor, wire.CmdGetPDR, wire.AppendGetPDR(nil, record)))
		if err != nil {
			t.Fatalf("record %d: %v", record, err)
		}
		handle, r, err := wire.ParsePDR(data)
		if err != nil || record != 0 && handle != record {
			t.Fatalf("record %d has handle %d: %v", record, handle, err)
		}
		key := fmt.Sprintf("%d/%d", r.Type, r.ID)
		if _, twice := all[key]; twice {
			t.Errorf("two records for type/ID %s", key)
		}
		all[key] = r
		count++
		size += uint32(len(data))
		largest = max(largest, uint32(len(data)))
		switch r.Type {
		case wire.PDRNumericSensor:
			v, err := wire.ParseReading(p.must(t, wire.TypeMonitor, wire.CmdGetSensorReading, wire.AppendGetSensorReadingRequest(nil, r.ID)))
			if err != nil || v.Size != r.Size || v.Operational == wire.SensorEnabled && (v.Value < r.Min || v.Value > r.Max) {
				t.Errorf("sensor %d: %+v, %v; its record says size %d, %d to %d", r.ID, v, err, r.Size, r.Min, r.Max)
			}
		case wire.PDRStateSensor:
			op, v, err := wire.ParseStateReading(p.must(t, wire.TypeMonitor, wire.CmdGetStateSensor, wire.AppendGetStateSensorRequest(nil, r.ID)))
			if err != nil || op == wire.SensorEnabled && (v > 31 || r.States&(1<<v) == 0) {
				t.Errorf("state sensor %d: %d, %v; its record allows %b", r.ID, v, err, r.States)
			}
		case wire.PDRStateEffecter:
			_, _, v, err := wire.ParseStateEffecter(p.must(t, wire.TypeMonitor, wire.CmdGetStateEffecter, wire.AppendEffecterID(nil, r.ID)))
			if err != nil || v > 31 || r.States&(1<<v) == 0 {
				t.Errorf("effecter %d: %d, %v; its record allows %b", r.ID, v, err, r.States)
			}
		case wire.PDRNumericEffecter:
			z, _, _, _, err := wire.ParseNumericEffecter(p.must(t, wire.TypeMonitor, wire.CmdGetNumericEffecter, wire.AppendEffecterID(nil, r.ID)))
			if err != nil || z != r.Size {
				t.Errorf("effecter %d: size %d, %v; its record says %d", r.ID, z, err, r.Size)
			}
		}
		if next == 0 {
			break
		}
		if count > 256 {
			t.Fatal("the repository has no end")
		}
		record = next
	}
	if info.Records != count || info.Size != size || info.Largest != largest {
		t.Errorf("repository info %+v, but %d records of %d bytes, largest %d", info, count, size, largest)
	}
	p.want(t, wire.CodeInvalidRecord, wire.TypeMonitor, wire.CmdGetPDR, wire.AppendGetPDR(nil, 0xFFFF))
	p.want(t, wire.CodeInvalidSensor, wire.TypeMonitor, wire.CmdGetSensorReading, wire.AppendGetSensorReadingRequest(nil, 0x7777))
	p.want(t, wire.CodeInvalidSensor, wire.TypeMonitor, wire.CmdGetStateSensor, wire.AppendGetStateSensorRequest(nil, 0x7777))
	return all
}

// need holds that the records have a sensor or effecter.
func need(t testing.TB, all map[string]wire.PDR, kind uint8, id uint16, what string) {
	t.Helper()
	if _, ok := all[fmt.Sprintf("%d/%d", kind, id)]; !ok {
		t.Errorf("no record for %s (type %d, ID %d)", what, kind, id)
	}
}

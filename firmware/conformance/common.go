package conformance

import (
	"fmt"
	"testing"

	"github.com/racklet/racklet/firmware/wire"
)

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
		want := kind == wire.TypeBase || kind == wire.TypeMonitor || kind == wire.TypeFRU || kind == wire.TypeOEM
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
	for _, kind := range []uint8{wire.TypeBase, wire.TypeMonitor, wire.TypeFRU, wire.TypeOEM} {
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

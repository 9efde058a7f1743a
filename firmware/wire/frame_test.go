package wire_test

import (
	"bytes"
	"math/rand"
	"strings"
	"testing"

	"github.com/racklet/racklet/firmware/wire"
)

// push feeds bytes and returns the packets that came out, and their bus addresses.
func push(d *wire.Deframer, b []byte) (packets []string, addresses []byte) {
	for _, c := range b {
		if p, ok := d.Push(c); ok {
			packets = append(packets, string(p))
			addresses = append(addresses, d.Address())
		}
	}
	return packets, addresses
}

func frame(t testing.TB, packet string) []byte {
	b, err := wire.AppendFrame(nil, []byte(packet))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFrameVectors has frames computed by hand from DSP0253 and RFC 1662: the
// check sequence of "123456789" is the catalogued one of CRC-16/MCRF4XX, 0x6F91.
func TestFrameVectors(t *testing.T) {
	for _, c := range []struct {
		packet string
		frame  string
	}{
		// A Get Endpoint ID request from 9 to 8; bytes 7D and 7E travel escaped.
		{"\x01\x08\x09\xc8\x00\x80\x02", "\x7e\x01\x07\x01\x08\x09\xc8\x00\x80\x02"},
		{"\x01\x08\x09\xc8\x7d\x7e", "\x7e\x01\x06\x01\x08\x09\xc8\x7d\x5d\x7d\x5e"},
		{"", "\x7e\x01\x00"},
	} {
		got := frame(t, c.packet)
		sum := crc("\x01" + string(rune(len(c.packet))) + c.packet)
		want := c.frame + string([]byte{byte(sum >> 8), byte(sum), 0x7e})
		if string(got) != want {
			t.Errorf("frame of %x: %x, want %x", c.packet, got, want)
		}
		var d wire.Deframer
		if p, _ := push(&d, []byte(want)); len(p) != 1 || p[0] != c.packet {
			t.Errorf("deframed %x to %x", want, p)
		}
	}
	if crc("123456789") != 0x6F91 {
		t.Errorf("the test's own check sequence is wrong: %#x", crc("123456789"))
	}
}

// crc is FCS-16 bit by bit, another way than the code under test.
func crc(s string) uint16 {
	sum := uint16(0xFFFF)
	for i := range len(s) {
		for bit := range 8 {
			in := uint16(s[i]>>bit) & 1
			if (sum^in)&1 != 0 {
				sum = sum>>1 ^ 0x8408
			} else {
				sum >>= 1
			}
		}
	}
	return sum
}

func TestFrameSizes(t *testing.T) {
	for _, n := range []int{1, 124, 125, 126, 127, 254, 255} { // 125 and 126 are the escape and the flag as byte counts
		for _, fill := range []byte{0, 0x7D, 0x7E, 0xFF} {
			packet := bytes.Repeat([]byte{fill}, n)
			var d wire.Deframer
			p, _ := push(&d, append(frame(t, string(packet)), frame(t, string(packet))...))
			if len(p) != 2 || p[0] != string(packet) || p[1] != string(packet) {
				t.Errorf("%d bytes of %#x: %d packets came out", n, fill, len(p))
			}
			if d.Stats.Errors != 0 || d.Stats.Noise != 0 {
				t.Errorf("%d bytes of %#x: %+v", n, fill, d.Stats)
			}
		}
	}
	if _, err := wire.AppendFrame(nil, make([]byte, 256)); err == nil {
		t.Error("256 bytes accepted")
	}
	if b := frame(t, strings.Repeat("\x7e", 255)); len(b) > wire.MaxFrame {
		t.Errorf("%d bytes: more than MaxFrame", len(b))
	}
}

// TestFrameErrors damages a frame in every way and wants the next one to come through.
func TestFrameErrors(t *testing.T) {
	good := frame(t, "\x01\x08\x09\xc8\x01payload with \x7d and \x7e")
	next := frame(t, "next")
	for _, c := range []struct {
		name   string
		b      []byte
		silent bool // not an error that a receiver can count
	}{
		{name: "bad check sequence", b: flip(good, len(good)-2)},
		{name: "flipped data", b: flip(good, 8)},
		{name: "other revision", b: flip(good, 1)},
		{name: "byte count too small", b: func() []byte { b := bytes.Clone(good); b[2]--; return b }()},
		{name: "byte count too large", b: func() []byte { b := bytes.Clone(good); b[2]++; return b }()},
		{name: "escape before another byte", b: bytes.Replace(good, []byte{0x7d, 0x5d}, []byte{0x7d, 0x41}, 1)},
		{name: "escape before a flag", b: bytes.Replace(good, []byte{0x7d, 0x5d}, []byte{0x7d, 0x7e}, 1)},
		{name: "bare flag in the data", b: bytes.Replace(good, []byte{0x7d, 0x5e}, []byte{0x7e}, 1)},
		{name: "cut in the data", b: good[:10]},
		{name: "cut before the last flag", b: good[:len(good)-1], silent: true}, // the next start ends it
		{name: "start lost", b: good[1:], silent: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var d wire.Deframer
			p, _ := push(&d, append(bytes.Clone(c.b), append(bytes.Clone(next), next...)...))
			// At most the first of the good frames may be lost to a wrong byte count.
			if len(p) == 0 || p[len(p)-1] != "next" || len(p) > 2 {
				t.Errorf("came out: %q", p)
			}
			if !c.silent && d.Stats.Errors == 0 {
				t.Errorf("not counted: %+v", d.Stats)
			}
		})
	}
}

func flip(b []byte, i int) []byte { b = bytes.Clone(b); b[i] ^= 0x10; return b }

func TestBus(t *testing.T) {
	var b []byte
	b, _ = wire.AppendBusFrame(b, wire.ToSlot(3), []byte("to three"))
	b, _ = wire.AppendBusFrame(b, wire.FromSlot(3), []byte("from three"))
	b = append(b, frame(t, "nobody's")...)
	b, _ = wire.AppendBusFrame(b, wire.ToSlot(10), []byte("to ten"))
	d := wire.Deframer{Bus: true}
	p, a := push(&d, b)
	if strings.Join(p, ",") != "to three,from three,to ten" || !bytes.Equal(a, []byte{wire.ToSlot(3), wire.FromSlot(3), wire.ToSlot(10)}) {
		t.Errorf("came out: %q for %x", p, a)
	}
	if slot, up := wire.AddressSlot(wire.FromSlot(3)); slot != 3 || !up {
		t.Errorf("address of slot 3 to the master reads as %d, %v", slot, up)
	}
	if slot, up := wire.AddressSlot(wire.ToSlot(10)); slot != 10 || up {
		t.Errorf("address of slot 10 reads as %d, %v", slot, up)
	}
	for _, bad := range []byte{0, 0x7D, 0x7E, 0x80, 0x8B, 0x8F, 0x90, 0xC0, 0xFF} {
		if wire.IsAddress(bad) {
			t.Errorf("%#x is an address", bad)
		}
		if _, err := wire.AppendBusFrame(nil, bad, []byte("x")); err == nil {
			t.Errorf("a frame to address %#x was made", bad)
		}
	}
}

// packets cuts a message up.
func packets(t testing.TB, a wire.Address, body []byte, unit int) (all [][]byte) {
	var p wire.Packetiser
	if err := p.Start(a, wire.MessagePLDM, body, unit); err != nil {
		t.Fatal(err)
	}
	for {
		b, ok := p.Next(nil)
		if !ok {
			return all
		}
		all = append(all, b)
	}
}

var toBMC = wire.Address{Dest: 0x11, Source: 9, Tag: 5, TagOwner: true}

func TestMessages(t *testing.T) {
	body := make([]byte, wire.MaxMessage-1)
	rand.New(rand.NewSource(1)).Read(body)
	for _, unit := range []int{0, 64, 100, 251, 10_000} {
		for _, n := range []int{0, 1, 62, 63, 64, 250, 251, 500, wire.MaxMessage - 1} {
			a := wire.Assembler{Own: 0x11}
			var got wire.Message
			all := packets(t, toBMC, body[:n], unit)
			for i, p := range all {
				m, ok := a.Push(p)
				if ok != (i == len(all)-1) {
					t.Fatalf("unit %d, %d bytes: complete at packet %d of %d", unit, n, i+1, len(all))
				}
				got = m
			}
			if got.Address != toBMC || got.Type != wire.MessagePLDM || !bytes.Equal(got.Body, body[:n]) {
				t.Errorf("unit %d, %d bytes: other message came out", unit, n)
			}
		}
	}
	var p wire.Packetiser
	if err := p.Start(toBMC, wire.MessagePLDM, make([]byte, wire.MaxMessage), 251); err == nil {
		t.Error("an oversize message was taken")
	}
	if _, ok := p.Next(nil); ok {
		t.Error("a refused message has packets")
	}
	if r := toBMC.Reply(); r.Dest != 9 || r.Source != 0x11 || r.Tag != 5 || r.TagOwner {
		t.Errorf("reply to %+v", r)
	}
}

// TestAssembler drops what the specification says shall be dropped, and counts it.
func TestAssembler(t *testing.T) {
	body := make([]byte, 200)
	msg := packets(t, toBMC, body, 64)
	edit := func(i int, f func(p []byte)) [][]byte {
		var all [][]byte
		for j, p := range msg {
			p = bytes.Clone(p)
			if i == j {
				f(p)
			}
			all = append(all, p)
		}
		return all
	}
	for _, c := range []struct {
		name    string
		packets [][]byte
		count   func(wire.AssemblerStats) uint32
	}{
		{"sequence number", edit(1, func(p []byte) { p[3] ^= 0x10 }), func(s wire.AssemblerStats) uint32 { return s.Sequence }},
		{"other tag", edit(1, func(p []byte) { p[3] ^= 1 }), func(s wire.AssemblerStats) uint32 { return s.Stray }},
		{"other tag owner", edit(1, func(p []byte) { p[3] ^= 8 }), func(s wire.AssemblerStats) uint32 { return s.Stray }},
		{"other source", edit(1, func(p []byte) { p[2] = 10 }), func(s wire.AssemblerStats) uint32 { return s.Stray }},
		{"other destination", edit(0, func(p []byte) { p[1] = 0x12 }), func(s wire.AssemblerStats) uint32 { return s.Foreign }},
		{"header version", edit(0, func(p []byte) { p[0] = 2 }), func(s wire.AssemblerStats) uint32 { return s.Malformed }},
		{"packet lost", [][]byte{msg[0], msg[2], msg[3]}, func(s wire.AssemblerStats) uint32 { return s.Sequence }},
		{"start lost", msg[1:], func(s wire.AssemblerStats) uint32 { return s.Stray }},
		{"end lost", msg[:3], func(s wire.AssemblerStats) uint32 { return s.Replaced }},
		{"short packet in the middle", [][]byte{msg[0], msg[1][:40], msg[2], msg[3]}, func(s wire.AssemblerStats) uint32 { return s.Sequence }},
		{"last packet longer than the first", [][]byte{msg[0], append(bytes.Clone(msg[1]), 0)}, func(s wire.AssemblerStats) uint32 { return s.Sequence }},
		{"integrity check bit", edit(0, func(p []byte) { p[4] |= 0x80 }), func(s wire.AssemblerStats) uint32 { return s.Malformed }},
		{"empty packet", [][]byte{{1, 0x11, 9, 0xC8}}, func(s wire.AssemblerStats) uint32 { return s.Malformed }},
		{"oversize", oversize(), func(s wire.AssemblerStats) uint32 { return s.Oversize }},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := wire.Assembler{Own: 0x11}
			for _, p := range c.packets {
				if _, ok := a.Push(p); ok {
					t.Fatal("a message came out")
				}
			}
			var got wire.Message
			for _, p := range msg { // the next message comes through
				got, _ = a.Push(p)
			}
			if !bytes.Equal(got.Body, body) {
				t.Error("the message after it was lost")
			}
			if c.count(a.Stats) == 0 || a.Stats.Dropped() == 0 {
				t.Errorf("not counted: %+v", a.Stats)
			}
		})
	}
}

func oversize() (all [][]byte) {
	for i := range 17 {
		p := wire.Packet{Address: toBMC, Start: i == 0, Sequence: uint8(i & 3), Body: make([]byte, 251)}
		p.Body[0] = wire.MessagePLDM
		all = append(all, wire.AppendPacket(nil, p))
	}
	return all
}

func TestPort(t *testing.T) {
	request := wire.AppendRequest(nil, 3, wire.TypeBase, wire.CmdGetTID)
	for _, slot := range []uint8{0, 4} {
		p := wire.Port{Own: wire.BMC(4), Slot: slot}
		var bus byte
		if slot != 0 {
			bus = wire.ToSlot(slot)
		}
		a := wire.Address{Dest: wire.BMC(4), Source: 9, Tag: 2, TagOwner: true}
		line, err := wire.AppendMessage(nil, bus, a, wire.MessagePLDM, request, 64)
		if err != nil {
			t.Fatal(err)
		}
		var m wire.Message
		for _, b := range line {
			if got, ok := p.Push(b); ok {
				m = got
			}
		}
		if !bytes.Equal(m.Body, request) {
			t.Fatalf("slot %d: received %x", slot, m.Body)
		}
		out := p.Respond(nil, &m, []byte("answer"))
		d := wire.Deframer{Bus: slot != 0}
		asm := wire.Assembler{Own: 9}
		got, addr := push(&d, out)
		r, ok := asm.Push([]byte(got[0]))
		if !ok || string(r.Body) != "answer" || r.Source != wire.BMC(4) || r.TagOwner || r.Tag != 2 {
			t.Errorf("slot %d: answered %+v", slot, r)
		}
		if slot != 0 && addr[0] != wire.FromSlot(slot) {
			t.Errorf("answered to bus address %#x", addr[0])
		}
		if slot != 0 { // a neighbour's frame is not ours
			line[0] = wire.ToSlot(slot + 1)
			for _, b := range line {
				if _, ok := p.Push(b); ok {
					t.Error("took a frame to another slot")
				}
			}
		}
	}
}

func TestControl(t *testing.T) {
	for _, c := range []struct {
		name      string
		req, want string
	}{
		{"get endpoint", "\x81\x02", "\x01\x02\x00\x12\x01\x00"},
		{"version support", "\x82\x04\xff", "\x02\x04\x00\x01\xf1\xf3\xf0\x00"},
		{"version of an unknown type", "\x82\x04\x33", "\x02\x04\x80\x00"},
		{"message types", "\x83\x05", "\x03\x05\x00\x02\x00\x01"},
		{"set the same endpoint", "\x84\x01\x00\x12", "\x04\x01\x00\x00\x12\x00"},
		{"set another endpoint", "\x84\x01\x00\x13", "\x04\x01\x02"},
		{"unknown", "\x85\x77", "\x05\x77\x05"},
		{"too long", "\x85\x02\x00", "\x05\x02\x03"},
		{"a response", "\x05\x02\x00", ""},
		{"too short", "\x85", ""},
	} {
		if got := string(wire.HandleControl(nil, 0x12, []byte(c.req))); got != c.want {
			t.Errorf("%s: %x, want %x", c.name, got, c.want)
		}
	}
}

// TestAllocations holds that a frame, from message to message, costs no memory.
func TestAllocations(t *testing.T) {
	body := make([]byte, 600)
	line := make([]byte, 0, 2*wire.MaxMessage)
	var frames wire.Deframer
	asm := wire.Assembler{Own: 0x11}
	check := func(name string, f func()) {
		t.Helper()
		if n := testing.AllocsPerRun(50, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	check("message to frames to message", func() {
		b, err := wire.AppendMessage(line, wire.ToSlot(1), toBMC, wire.MessagePLDM, body, 64)
		if err != nil {
			t.Fatal(err)
		}
		frames.Bus = true
		done := false
		for _, c := range b {
			if p, ok := frames.Push(c); ok {
				_, done = asm.Push(p)
			}
		}
		if !done {
			t.Fatal("no message")
		}
	})
	var p wire.Port
	p.Own = 0x11
	check("port", func() {
		b, _ := wire.AppendMessage(line, 0, toBMC, wire.MessagePLDM, body, 251)
		for _, c := range b {
			if m, ok := p.Push(c); ok {
				p.Respond(line, &m, body[:100])
			}
		}
	})
	buf := make([]byte, 0, wire.MaxMessage)
	check("unit state", func() {
		b := wire.AppendUnitState(buf, &unit)
		if s, err := wire.ParseUnitState(b); err != nil || s != unit {
			t.Fatal(err)
		}
	})
	check("events", func() {
		w := wire.StartEvents(buf, 1, 2, wire.MaxMessage)
		for w.Add(&event) {
		}
		r, err := wire.ParseEvents(w.Bytes())
		n := 0
		for e := (wire.Event{}); r.Next(&e); n++ {
		}
		if err != nil || r.Err() != nil || n < wire.MaxEvents {
			t.Fatalf("%d events: %v %v", n, err, r.Err())
		}
	})
	check("report, rack state, desired, failure", func() {
		if _, err := wire.ParseReport(wire.AppendReport(buf, &report)); err != nil {
			t.Fatal(err)
		}
		if _, err := wire.ParseRackState(wire.AppendRackState(buf, &rackState)); err != nil {
			t.Fatal(err)
		}
		if _, err := wire.ParseDesired(wire.AppendDesired(buf, &desired)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := wire.ParseReportStage(wire.AppendReportStage(buf, wire.StageFailed, &failure)); err != nil {
			t.Fatal(err)
		}
	})
	check("records", func() {
		if _, _, err := wire.ParsePDR(wire.AppendPDR(buf, 1, &pdr)); err != nil {
			t.Fatal(err)
		}
	})
	for _, r := range []wire.PDR{pdr, statePDR, effecterPDR, capPDR} {
		if n := len(wire.AppendPDR(nil, 1, &r)); n > wire.MaxPDR {
			t.Errorf("record of %d bytes", n)
		}
	}
}

func BenchmarkFrame(b *testing.B) {
	packet := make([]byte, 255)
	rand.New(rand.NewSource(1)).Read(packet)
	line := make([]byte, 0, wire.MaxFrame)
	var d wire.Deframer
	b.SetBytes(255)
	for b.Loop() {
		f, _ := wire.AppendFrame(line, packet)
		for _, c := range f {
			d.Push(c)
		}
	}
}

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

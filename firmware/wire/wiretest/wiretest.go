// Package wiretest holds fakes that speak the wire: a BMC, an RMC with a rack of
// them behind it, and the lines between. They behave well until told otherwise:
// each can be silent, slow, refuse, or lie. They pass firmware/conformance, as the real ones do.
package wiretest

import (
	"io"
	"net"
	"sync"
	"time"

	"github.com/racklet/racklet/firmware/wire"
)

// Line returns the two ends of a serial line. Writes never block for long: both ends buffer.
func Line() (a, b io.ReadWriteCloser) {
	x, y := net.Pipe()
	return buffer(x), buffer(y)
}

// buffered is a connection whose writes go through a queue, as a UART's do.
type buffered struct {
	net.Conn
	queue chan []byte
	once  sync.Once
	done  chan struct{}
}

func buffer(c net.Conn) *buffered {
	b := &buffered{Conn: c, queue: make(chan []byte, 1024), done: make(chan struct{})}
	go func() {
		for {
			select {
			case p := <-b.queue:
				if _, err := b.Conn.Write(p); err != nil {
					return
				}
			case <-b.done:
				return
			}
		}
	}()
	return b
}

func (b *buffered) Write(p []byte) (int, error) {
	select {
	case <-b.done:
		return 0, io.ErrClosedPipe
	case b.queue <- append([]byte(nil), p...):
		return len(p), nil
	}
}

func (b *buffered) Close() error {
	b.once.Do(func() { close(b.done) })
	return b.Conn.Close()
}

// Faults make a controller misbehave. The zero value is good behaviour.
type Faults struct {
	Silent  bool          // answers nothing
	Delay   time.Duration // waits before each answer
	Code    wire.Code     // answers everything with this code, unless it is success
	Corrupt bool          // flips a bit in each frame
	// Lie, if not nil, may replace the answer to a PLDM request.
	Lie func(req wire.Header, resp []byte) []byte
}

// Handler answers one PLDM request: it appends the response to resp, or nothing.
type Handler func(side wire.Side, req, resp []byte) []byte

// Serve answers on a line until it ends. Slot is 0 for a point-to-point line, else the line is the
// multi-drop bus.
func Serve(line io.ReadWriter, own wire.EID, slot uint8, side wire.Side, faults func() Faults, handle Handler) error {
	port := wire.Port{Own: own, Slot: slot}
	buf := make([]byte, 1024)
	for {
		n, err := line.Read(buf)
		for _, c := range buf[:n] {
			m, ok := port.Push(c)
			if !ok {
				continue
			}
			out := answer(&port, &m, side, faults(), handle)
			if len(out) > 0 {
				if _, err := line.Write(out); err != nil {
					return err
				}
			}
		}
		if err != nil {
			return err
		}
	}
}

func answer(port *wire.Port, m *wire.Message, side wire.Side, f Faults, handle Handler) []byte {
	if f.Silent {
		return nil
	}
	if out, ok := port.Control(nil, m); ok {
		return out
	}
	if m.Type != wire.MessagePLDM {
		return nil
	}
	h, _, err := wire.ParseHeader(m.Body)
	if err != nil || !h.Request {
		return nil
	}
	if h.Datagram { // it is acted upon, but wants no answer
		handle(side, m.Body, nil)
		return nil
	}
	var resp []byte
	if f.Code != wire.CodeSuccess {
		resp = wire.AppendResponse(nil, h, f.Code)
	} else {
		resp = handle(side, m.Body, nil)
	}
	if f.Lie != nil {
		resp = f.Lie(h, resp)
	}
	if f.Delay > 0 {
		time.Sleep(f.Delay)
	}
	if len(resp) == 0 {
		return nil
	}
	out := port.Respond(nil, m, resp)
	if f.Corrupt {
		out[len(out)/2] ^= 0x04
	}
	return out
}

// base answers the commands of the base type that every controller has. It reports
// false when h is of another type.
func base(h wire.Header, payload, resp []byte, tid uint8, commands func(kind uint8) (wire.Bits, uint32, bool)) ([]byte, bool) {
	if h.Type != wire.TypeBase {
		return resp, false
	}
	fail := func(c wire.Code) ([]byte, bool) { return wire.AppendResponse(resp, h, c), true }
	switch h.Command {
	case wire.CmdSetTID:
		if _, err := wire.ParseTID(payload); err != nil {
			return fail(wire.CodeInvalidLength)
		}
		return wire.AppendResponse(resp, h, wire.CodeSuccess), true
	case wire.CmdGetTID:
		if len(payload) != 0 {
			return fail(wire.CodeInvalidLength)
		}
		return wire.AppendTID(wire.AppendResponse(resp, h, wire.CodeSuccess), tid), true
	case wire.CmdGetTypes:
		if len(payload) != 0 {
			return fail(wire.CodeInvalidLength)
		}
		var types wire.Bits
		for _, k := range []uint8{wire.TypeBase, wire.TypeMonitor, wire.TypeFRU, wire.TypeOEM} {
			types.Set(k)
		}
		return wire.AppendGetTypesResponse(wire.AppendResponse(resp, h, wire.CodeSuccess), &types), true
	case wire.CmdGetVersion:
		flag, kind, err := wire.ParseGetVersionRequest(payload)
		if err != nil {
			return fail(wire.CodeInvalidLength)
		}
		if flag != wire.TransferFirst {
			return fail(wire.CodeBaseInvalidTransfer)
		}
		_, version, ok := commands(kind)
		if !ok {
			return fail(wire.CodeBaseUnknownType)
		}
		return wire.AppendGetVersionResponse(wire.AppendResponse(resp, h, wire.CodeSuccess), version), true
	case wire.CmdGetCommands:
		kind, version, err := wire.ParseGetCommandsRequest(payload)
		if err != nil {
			return fail(wire.CodeInvalidLength)
		}
		set, have, ok := commands(kind)
		if !ok {
			return fail(wire.CodeBaseUnknownType)
		}
		if version != have {
			return fail(wire.CodeBaseUnknownVersion)
		}
		return wire.AppendGetCommandsResponse(wire.AppendResponse(resp, h, wire.CodeSuccess), &set), true
	}
	return fail(wire.CodeUnsupported)
}

// commands lists what a controller supports by a rule.
func commands(kind uint8, has func(kind, command uint8) bool) (set wire.Bits, version uint32, ok bool) {
	switch kind {
	case wire.TypeBase:
		version = wire.VersionBase
	case wire.TypeMonitor:
		version = wire.VersionMonitor
	case wire.TypeFRU:
		version = wire.VersionFRU
	case wire.TypeOEM:
		version = wire.VersionOEM
	default:
		return set, 0, false
	}
	for c := range 256 {
		if has(kind, uint8(c)) {
			set.Set(uint8(c))
		}
	}
	return set, version, true
}

package rmc_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/rmc"
	"github.com/racklet/racklet/firmware/wire"
)

// pin is an input or output.
type pin bool

func (p *pin) Get() bool  { return bool(*p) }
func (p *pin) Set(v bool) { *p = pin(v) }

var errLost = errors.New("lost")

// bmc is a BMC as the RMC sees it: it answers three commands, and powers its unit when it has been granted enough.
type bmc struct {
	port wire.Port
	wire.UnitState
	hung   bool
	wants  bool // power is desired
	offAt  uint64
	grants []uint32 // all grants received
	starts []uint64 // when its unit started
	clocks int
	echo   func(m *wire.Message) // sees every request
}

func (b *bmc) handle(now uint64, p []byte) (out []byte) {
	for _, c := range p {
		m, ok := b.port.Push(c)
		if !ok || b.hung {
			continue
		}
		if b.echo != nil {
			b.echo(&m)
		}
		if answered, ok := b.port.Control(out, &m); ok {
			out = answered
			continue
		}
		h, req, err := wire.ParseHeader(m.Body)
		if err != nil || !h.Request {
			continue
		}
		resp := wire.AppendResponse(nil, h, wire.CodeSuccess)
		switch h.Command {
		case wire.CmdGetUnitState:
			resp = wire.AppendUnitState(resp, &b.UnitState)
		case wire.CmdGrantPower:
			b.GrantMilliwatts, _ = wire.ParseGrant(req)
			b.grants = append(b.grants, b.GrantMilliwatts)
		case wire.CmdSetTime:
			b.clocks++
			b.Flags |= wire.FlagClockSet
		case wire.CmdReadConsole: // a long answer
			resp = append(resp, bytes.Repeat([]byte{0x7E}, 1000)...)
		}
		out = b.port.Respond(out, &m, resp)
	}
	return out
}

func (b *bmc) step(now uint64) {
	switch b.State {
	case wire.StateOff:
		b.GrantMilliwatts, b.RequestMilliwatts, b.Milliwatts, b.Rail = 0, 0, 0, false
		if b.wants && now >= b.offAt+200 {
			b.State, b.RequestMilliwatts = wire.StatePowering, 12_000
		}
	case wire.StatePowering:
		if b.GrantMilliwatts >= b.RequestMilliwatts {
			b.State, b.Rail, b.Milliwatts = wire.StateRunning, true, 6_000
			b.starts = append(b.starts, now)
		}
	case wire.StateRunning:
		if !b.wants || b.GrantMilliwatts == 0 && len(b.grants) > 0 && b.grants[len(b.grants)-1] == 0 {
			b.State, b.offAt = wire.StateOff, now
		}
	}
}

// cut is a lost rail, as in a brown-out: nothing is drawn from that moment on.
func (b *bmc) cut(now uint64) {
	b.State, b.offAt, b.GrantMilliwatts, b.Milliwatts, b.Rail, b.grants = wire.StateOff, now, 0, 0, false, nil
}

// rig is an RMC with everything around it.
type rig struct {
	t       testing.TB
	now     uint64
	r       *rmc.RMC
	cfg     rmc.Config
	ports   rmc.Ports
	bmcs    [5]*bmc
	present [5]pin
	leds    [5]pin

	toBus, toLine bytes.Buffer
	cut           func(p []byte) []byte // what becomes of bytes on their way to the RMC

	power     driver.Power
	powerLost bool
	inlet     int32
	inletLost bool
	duty      [2]uint8
	rpm       [2]uint32
	stuck     [2]bool
	fansLost  bool
	identity  fakeIdentity

	lineIn  wire.Deframer
	answers wire.Assembler
	silent  bool // the management computer says nothing
	tag     uint8
}

func (g *rig) ReadPower() (driver.Power, error) {
	if g.powerLost {
		return driver.Power{}, errLost
	}
	return g.power, nil
}

func (g *rig) ReadTemperature() (int32, error) {
	if g.inletLost {
		return 0, errLost
	}
	return g.inlet, nil
}

func (g *rig) SetDuty(fan int, percent uint8) error {
	if g.fansLost {
		return errLost
	}
	g.duty[fan] = percent
	return nil
}

func (g *rig) Speed(fan int) (uint32, bool, error) {
	switch {
	case g.fansLost:
		return 0, false, errLost
	case g.stuck[fan]:
		return 0, g.duty[fan] > 0, nil
	}
	return 50 * uint32(g.duty[fan]), false, nil
}

// newRig returns a rack of five slots with a BMC in each, inlet at 23 °C, trays at 40 °C.
func newRig(t testing.TB) *rig {
	t.Helper()
	g := &rig{t: t, inlet: 23_000, now: 1000}
	g.power = driver.Power{Millivolts: 20_000, Milliwatts: 5_000}
	g.answers.Own = wire.EIDManagement
	g.cfg = rmc.Config{Slots: 5, Fans: 2}
	g.ports = rmc.Ports{Bus: &g.toBus, Management: &g.toLine, Meter: g, Inlet: g, Fans: g, Identity: &g.identity}
	for i := range g.bmcs {
		g.bmcs[i] = &bmc{}
		g.bmcs[i].port = wire.Port{Own: wire.BMC(uint8(i + 1)), Slot: uint8(i + 1)}
		g.bmcs[i].Slot = uint8(i + 1)
		g.bmcs[i].BootSlot, g.bmcs[i].BootOverride = wire.SlotNone, wire.SlotNone
		g.bmcs[i].MilliCelsius = 40_000
		g.present[i] = true
		g.ports.Present[i] = &g.present[i]
		g.ports.LED[i] = &g.leds[i]
	}
	return g
}

// start makes the RMC, or makes it anew, as after a restart.
func (g *rig) start() *rig {
	g.t.Helper()
	r, err := rmc.New(g.cfg, g.ports)
	if err != nil {
		g.t.Fatal(err)
	}
	g.r = r
	g.toBus.Reset()
	g.toLine.Reset()
	return g
}

// run lets milliseconds pass in steps of ten. The management computer asks for the rack's state each second.
func (g *rig) run(millis uint64) {
	g.t.Helper()
	for end := g.now + millis; g.now < end; {
		g.now += 10
		var total uint32
		for _, b := range g.bmcs {
			b.step(g.now)
			total += b.Milliwatts
		}
		g.power.Millijoules += uint64(g.power.Milliwatts) * 10 / 1000
		g.r.Step(g.now)
		g.pump()
		if !g.silent && g.now%1000 == 0 {
			g.ask(wire.EIDRMC, wire.CmdGetRackState, nil)
			g.pump()
			g.answersOf()
		}
	}
}

// pump carries bytes between RMC and BMCs until the bus is quiet.
func (g *rig) pump() {
	g.t.Helper()
	for n := 0; g.toBus.Len() > 0; n++ {
		if n > 1000 {
			g.t.Fatalf("at %d ms the bus does not become quiet: %x", g.now, g.toBus.Bytes())
		}
		p := bytes.Clone(g.toBus.Bytes())
		g.toBus.Reset()
		g.r.Bus(p) // half duplex: the master hears itself
		for i, b := range g.bmcs {
			if !g.present[i] {
				continue
			}
			out := b.handle(g.now, p)
			if g.cut != nil {
				out = g.cut(out)
			}
			g.r.Bus(out)
		}
	}
}

// ask sends a request of the management computer and returns its tag.
func (g *rig) ask(dest wire.EID, command uint8, payload []byte) uint8 {
	g.t.Helper()
	g.tag = (g.tag + 1) & 7
	body := append(wire.AppendRequest(nil, g.tag, wire.TypeOEM, command), payload...)
	frames, err := wire.AppendMessage(nil, 0, wire.Address{Dest: dest, Source: wire.EIDManagement, Tag: g.tag, TagOwner: true}, wire.MessagePLDM, body, 100)
	if err != nil {
		g.t.Fatal(err)
	}
	g.r.Management(frames)
	return g.tag
}

// answersOf returns what has come back on the management line.
func (g *rig) answersOf() (all []wire.Message) {
	g.t.Helper()
	for _, c := range g.toLine.Bytes() {
		if packet, ok := g.lineIn.Push(c); ok {
			if m, ok := g.answers.Push(packet); ok {
				m.Body = bytes.Clone(m.Body)
				all = append(all, m)
			}
		}
	}
	g.toLine.Reset()
	if g.lineIn.Stats.Errors > 0 || g.answers.Stats.Dropped() > 0 {
		g.t.Fatalf("management line: %+v %+v", g.lineIn.Stats, g.answers.Stats)
	}
	return all
}

// call sends a request to the RMC itself, past the line, and returns code and payload.
func (g *rig) call(kind, command uint8, payload []byte) (wire.Code, []byte) {
	g.t.Helper()
	resp := make([]byte, wire.MaxMessage)
	n := g.r.Handle(wire.SideBus, g.now, append(wire.AppendRequest(nil, 3, kind, command), payload...), resp)
	h, code, out, err := wire.ParseResponse(resp[:n])
	if err != nil || h.Instance != 3 || h.Type != kind || h.Command != command {
		g.t.Fatalf("answer to %#x: %+v, %v", command, h, err)
	}
	return code, out
}

// set puts policies into force.
func (g *rig) set(edit func(p *wire.Policies)) {
	g.t.Helper()
	p := rmc.DefaultPolicies()
	p.Generation = g.r.State().PolicyGeneration + 1
	edit(&p)
	if code, out := g.call(wire.TypeOEM, wire.CmdSetPolicies, wire.AppendPolicies(nil, &p)); code != wire.CodeSuccess {
		f, _ := wire.ParseFailure(out)
		g.t.Fatalf("SetPolicies: %v, %+v", code, f)
	}
}

// count returns how many events the ring holds of a kind and code, slot 0 for any.
func (g *rig) count(kind wire.EventKind, slot uint8, code uint16) (n int) {
	g.t.Helper()
	for _, e := range g.events() {
		if e.Kind == kind && (slot == 0 || e.Slot == slot) && e.Code == code {
			n++
		}
	}
	return n
}

// events reads the whole ring.
func (g *rig) events() (all []wire.Event) {
	g.t.Helper()
	for after := uint32(0); ; {
		c, out := g.call(wire.TypeOEM, wire.CmdReadEvents, wire.AppendReadEvents(nil, after))
		if c != wire.CodeSuccess {
			g.t.Fatal(c)
		}
		events, err := wire.ParseEvents(out)
		if err != nil {
			g.t.Fatal(err)
		}
		var e wire.Event
		before := after
		for events.Next(&e) {
			after = e.Sequence
			all = append(all, e)
		}
		if err := events.Err(); err != nil {
			g.t.Fatal(err)
		}
		if after == before {
			return all
		}
	}
}

func (g *rig) want(slots ...int) {
	for _, n := range slots {
		g.bmcs[n-1].wants = true
	}
}

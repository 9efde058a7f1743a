package conformance

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
)

// BMCLines are the lines of a BMC. What is nil is not tested.
type BMCLines struct {
	Slot   uint8
	InBand io.ReadWriter // where the compute unit is
	Bus    io.ReadWriter // where the RMC is
	Debug  io.ReadWriter // the debug port
	// Addressed says that Bus is the multi-drop bus itself, with address bytes. Otherwise it is the management line
	// of an RMC with the BMC behind it, and that RMC grants power.
	Addressed bool
}

// accepted is the table of vendor-defined commands and sides of docs/wire.md: in-band, bus, debug.
var accepted = map[uint8]string{
	wire.CmdGetBootConfig: "i-d", wire.CmdReportStage: "i--", wire.CmdExtendMeasurement: "i--", wire.CmdSetKeyRegister: "i--",
	wire.CmdGetFloors: "ibd", wire.CmdRaiseFloors: "ibd", wire.CmdGetEvidence: "ibd", wire.CmdGetUnitState: "ibd",
	wire.CmdSetDesired: "-bd", wire.CmdReadEvents: "ibd", wire.CmdReadConsole: "-bd", wire.CmdWriteConsole: "-bd",
	wire.CmdSlotErase: "ibd", wire.CmdSlotWrite: "ibd", wire.CmdSlotCommit: "ibd", wire.CmdGrantPower: "-b-",
	wire.CmdHeartbeat: "i--", wire.CmdGetReport: "-bd", wire.CmdSetTime: "-bd", wire.CmdGetTime: "ibd", wire.CmdReset: "-bd",
	wire.CmdGetSlots: "ibd", wire.CmdSetInventory: "i--", wire.CmdGetInventory: "-bd", wire.CmdGetFirmware: "ibd", wire.CmdRestart: "-bd",
}

// monitored is the same for monitoring and control.
var monitored = map[uint8]string{
	wire.CmdGetSensorReading: "ibd", wire.CmdGetStateSensor: "ibd", wire.CmdSetNumericEffecter: "-bd", wire.CmdGetNumericEffecter: "ibd",
	wire.CmdSetStateEffecter: "-bd", wire.CmdGetStateEffecter: "ibd", wire.CmdGetPDRInfo: "ibd", wire.CmdGetPDR: "ibd",
}

// identified is the same for FRU data.
var identified = map[uint8]string{wire.CmdGetFRUMetadata: "ibd", wire.CmdGetFRUTable: "ibd"}

func from(table map[uint8]string, command uint8, side wire.Side) bool {
	return strings.IndexByte(table[command], "ibd"[side]) >= 0
}

// BMC holds a BMC against the wire.
func BMC(t *testing.T, l BMCLines) {
	own := wire.BMC(l.Slot)
	var probes []*probe
	var unit, bus *probe
	if l.InBand != nil {
		unit = newProbe("in-band", l.InBand, wire.EIDUnit, own, 0, wire.SideInBand)
		probes = append(probes, unit)
	}
	if l.Bus != nil {
		slot := uint8(0)
		if l.Addressed {
			slot = l.Slot
		}
		bus = newProbe("bus", l.Bus, wire.EIDManagement, own, slot, wire.SideBus)
		probes = append(probes, bus)
	}
	if l.Debug != nil {
		probes = append(probes, newProbe("debug", l.Debug, wire.EIDManagement, own, 0, wire.SideDebug))
	}
	if len(probes) == 0 {
		t.Fatal("no line to the BMC")
	}
	direct := func(p *probe) bool { return p != bus || l.Addressed }
	each := func(name string, f func(t *testing.T, p *probe)) {
		t.Run(name, func(t *testing.T) {
			for _, p := range probes {
				t.Run(p.name, func(t *testing.T) { f(t, p) })
			}
		})
	}
	each("discovery", func(t *testing.T, p *probe) {
		if !direct(p) {
			return // an RMC in between answers for the null endpoint
		}
		discovery(t, p, func(kind, c uint8) bool {
			switch kind {
			case wire.TypeBase:
				return c >= wire.CmdSetTID && c <= wire.CmdGetCommands
			case wire.TypeMonitor:
				return from(monitored, c, p.side)
			case wire.TypeFRU:
				return from(identified, c, p.side)
			}
			return from(accepted, c, p.side)
		})
	})
	each("sides", sides)
	each("state", func(t *testing.T, p *probe) { state(t, p, l.Slot) })
	each("sensors", bmcSensors)
	each("identity", identity)
	each("evidence", evidence)
	each("slots", func(t *testing.T, p *probe) {
		if _, err := wire.ParseSlots(p.oem(t, wire.CmdGetSlots, nil)); err != nil {
			t.Error(err)
		}
		if _, _, err := wire.ParseFloors(p.oem(t, wire.CmdGetFloors, nil)); err != nil {
			t.Error(err)
		}
		if code, data := p.ask(t, wire.TypeOEM, wire.CmdRaiseFloors, wire.AppendBytes(nil, []byte("not signed"))); code != wire.CodeRefused {
			t.Errorf("an unsigned floor statement: %s (0x%02x)", code, uint8(code))
		} else if f, err := wire.ParseFailure(data); err != nil || f.IsZero() {
			t.Errorf("its refusal names %q: %v", f.Reason, err)
		}
	})
	each("events", func(t *testing.T, p *probe) { ring(t, p) })
	if unit != nil {
		t.Run("unit", func(t *testing.T) { inBand(t, unit) })
	}
	if bus != nil {
		t.Run("clock", func(t *testing.T) { clock(t, bus) })
		t.Run("desired", func(t *testing.T) { desiredState(t, bus) })
		t.Run("console", func(t *testing.T) { console(t, bus) })
		t.Run("power", func(t *testing.T) { powerCycle(t, bus, unit, l.Addressed) })
	}
	each("damage", func(t *testing.T, p *probe) {
		if !direct(p) {
			return // an RMC in between drops what is damaged
		}
		damage(t, p)
	})
}

// sides tries every vendor-defined command with garbage: from a side that may not send it, it is not even
// looked at; from one that may, the garbage is refused.
func sides(t *testing.T, p *probe) {
	garbage := bytes.Repeat([]byte{0xFF}, 200)
	for c := range uint8(0x40) {
		code, _ := p.ask(t, wire.TypeOEM, c, garbage)
		switch {
		case accepted[c] == "":
			if code != wire.CodeUnsupported {
				t.Errorf("command 0x%02x does not exist: %s (0x%02x)", c, code, uint8(code))
			}
		case !from(accepted, c, p.side):
			if code != wire.CodeWrongSide {
				t.Errorf("command 0x%02x from the wrong side: %s (0x%02x)", c, code, uint8(code))
			}
			if code, _ := p.ask(t, wire.TypeOEM, c, nil); code != wire.CodeWrongSide {
				t.Errorf("command 0x%02x without payload from the wrong side: %s (0x%02x)", c, code, uint8(code))
			}
		default:
			if code != wire.CodeInvalidLength && code != wire.CodeInvalidData {
				t.Errorf("command 0x%02x with garbage: %s (0x%02x)", c, code, uint8(code))
			}
		}
	}
	for c, who := range monitored {
		code, _ := p.ask(t, wire.TypeMonitor, c, garbage)
		switch {
		case !from(monitored, c, p.side):
			if code != wire.CodeUnsupported {
				t.Errorf("monitoring command 0x%02x (%s) from the wrong side: %s (0x%02x)", c, who, code, uint8(code))
			}
		case code != wire.CodeInvalidLength && code != wire.CodeInvalidData:
			t.Errorf("monitoring command 0x%02x with garbage: %s (0x%02x)", c, code, uint8(code))
		}
	}
}

func unitState(t testing.TB, p *probe) wire.UnitState {
	t.Helper()
	s, err := wire.ParseUnitState(p.oem(t, wire.CmdGetUnitState, nil))
	if err != nil {
		t.Fatalf("%s: unit state: %v", p.name, err)
	}
	return s
}

func state(t *testing.T, p *probe, slot uint8) {
	s := unitState(t, p)
	if s.Slot != slot {
		t.Errorf("it says slot %d, and is in %d", s.Slot, slot)
	}
	if s.ObservedGeneration > s.DesiredGeneration {
		t.Errorf("observed generation %d is above the desired one, %d", s.ObservedGeneration, s.DesiredGeneration)
	}
	if !s.Rail && s.RailMillis != 0 {
		t.Errorf("the rail is off and on for %d ms", s.RailMillis)
	}
	if again := unitState(t, p); again.Millijoules < s.Millijoules || again.BootCount < s.BootCount || again.LastEvent < s.LastEvent {
		t.Error("a counter went back")
	}
}

func bmcSensors(t *testing.T, p *probe) {
	all := records(t, p)
	for id, what := range map[uint16]string{
		wire.SensorPower: "power", wire.SensorVoltage: "voltage", wire.SensorCurrent: "current",
		wire.SensorTemperature: "temperature", wire.SensorEnergy: "energy",
	} {
		need(t, all, wire.PDRNumericSensor, id, what)
	}
	need(t, all, wire.PDRStateSensor, wire.SensorPowerState, "power state")
	need(t, all, wire.PDRStateSensor, wire.SensorBoot, "boot progress")
	need(t, all, wire.PDRStateEffecter, wire.EffecterPower, "power")
	need(t, all, wire.PDRStateEffecter, wire.EffecterIdentify, "identify LED")
}

func evidence(t *testing.T, p *probe) {
	var nonces [2][32]byte
	var seen [2][]byte
	for i := range nonces {
		for j := range nonces[i] {
			nonces[i][j] = byte(0xA0 + 0x11*i + j)
		}
		b, err := wire.ParseBytes(p.oem(t, wire.CmdGetEvidence, wire.AppendDigest(nil, &nonces[i])), wire.MaxEvidence)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(b, nonces[i][:]) {
			t.Error("evidence does not hold the nonce")
		}
		seen[i] = append([]byte(nil), b...)
	}
	if bytes.Equal(seen[0], seen[1]) {
		t.Error("evidence over two nonces is the same")
	}
}

// inBand plays the unit. What it says is taken or refused, and never brings the BMC down.
func inBand(t *testing.T, p *probe) {
	total, first, err := wire.ParseBootConfigPart(p.oem(t, wire.CmdGetBootConfig, wire.AppendOffset(nil, 0)))
	if err != nil || len(first) == 0 && total > 0 {
		t.Errorf("boot configuration: %d of %d bytes, %v", len(first), total, err)
	}
	p.want(t, wire.CodeInvalidData, wire.TypeOEM, wire.CmdGetBootConfig, wire.AppendOffset(nil, total+1))
	// A long request in baseline packets.
	f := wire.MakeFailure("source.tls-pin", strings.Repeat("a", 72), strings.Repeat("b", 72))
	code, _ := p.askUnit(t, p.dest, wire.TypeOEM, wire.CmdReportStage, wire.AppendReportStage(nil, wire.StageFailed, &f), wire.BaselineUnit)
	if code == wire.CodeInvalidData || code == wire.CodeInvalidLength || code == wire.CodeWrongSide || code == wire.CodeUnsupported {
		t.Errorf("a report in packets of %d bytes: %s (0x%02x)", wire.BaselineUnit, code, uint8(code))
	}
	registers(t, p)
}

// registers holds which of its registers a unit may extend. Without power there is no unit, and it may none.
func registers(t *testing.T, p *probe) {
	on := unitState(t, p).Rail
	for register := range 256 {
		d := [32]byte{1}
		code, _ := p.ask(t, wire.TypeOEM, wire.CmdExtendMeasurement, wire.AppendExtendMeasurement(nil, uint8(register), &d, []byte("x")))
		switch asserted := register >= trust.RegisterTree && register <= trust.RegisterHandover; {
		case !asserted && code == wire.CodeSuccess:
			t.Errorf("the unit extended register %d", register)
		case asserted && on && code != wire.CodeSuccess:
			t.Errorf("the unit could not extend register %d: %s (0x%02x)", register, code, uint8(code))
		}
	}
}

func clock(t *testing.T, p *probe) {
	now := uint64(time.Now().UnixMilli())
	p.oem(t, wire.CmdSetTime, wire.AppendTime(nil, now))
	got, err := wire.ParseTime(p.oem(t, wire.CmdGetTime, nil))
	if err != nil || got < now || got > now+60_000 {
		t.Errorf("set to %d, it says %d: %v", now, got, err)
	}
	if p.side == wire.SideBus && p.dest != wire.EIDRMC {
		if s := unitState(t, p); s.Flags&wire.FlagClockSet == 0 {
			t.Error("the state does not say that the clock is set")
		}
	}
}

// desiredState holds that generations only rise and repeats cause nothing.
func desiredState(t *testing.T, p *probe) {
	set := func(d wire.Desired) (desired, observed uint32) {
		t.Helper()
		desired, observed, err := wire.ParseGenerations(p.oem(t, wire.CmdSetDesired, wire.AppendDesired(nil, &d)))
		if err != nil {
			t.Fatal(err)
		}
		return desired, observed
	}
	g := unitState(t, p).DesiredGeneration
	d := wire.Desired{Generation: g + 2, Mask: wire.DesiredLED | wire.DesiredCap | wire.DesiredBoot, LED: true, CapMilliwatts: 9_000, BootMode: wire.BootContinuous, BootSlot: wire.SlotB}
	if got, _ := set(d); got != g+2 {
		t.Errorf("generation %d after setting %d", got, g+2)
	}
	s := unitState(t, p)
	if !s.LED || s.CapMilliwatts != 9_000 || s.BootMode != wire.BootContinuous || s.BootOverride != wire.SlotB {
		t.Errorf("what was set does not read back: %+v", s)
	}
	_, newest := ring(t, p)
	set(d) // again
	if _, after := ring(t, p); after != newest {
		t.Error("a repetition was logged as a change")
	}
	old := d
	old.Generation, old.LED = g+1, false
	if got, _ := set(old); got != g+2 || !unitState(t, p).LED {
		t.Error("an older generation took effect")
	}
	// A field outside the mask does not change.
	if set(wire.Desired{Generation: g + 3, Mask: wire.DesiredLED, CapMilliwatts: 1, BootSlot: wire.SlotNone}); unitState(t, p).CapMilliwatts != 9_000 {
		t.Error("a field outside the mask changed")
	}
	set(wire.Desired{Generation: g + 4, Mask: wire.DesiredCap | wire.DesiredBoot, BootSlot: wire.SlotNone})
	if s := unitState(t, p); s.LED || s.CapMilliwatts != 0 || s.BootMode != wire.BootDisabled {
		t.Errorf("not set back: %+v", s)
	}
	// The same by the standard's effecters.
	p.must(t, wire.TypeMonitor, wire.CmdSetStateEffecter, wire.AppendSetStateEffecter(nil, wire.EffecterIdentify, wire.IdentifyAsserted))
	// They have no generation: one that a BMC made up would make it deaf to the owner's next one.
	if s := unitState(t, p); !s.LED || s.DesiredGeneration != g+4 {
		t.Errorf("after the identify effecter: LED %v, generation %d, want lit and %d", s.LED, s.DesiredGeneration, g+4)
	}
	p.must(t, wire.TypeMonitor, wire.CmdSetStateEffecter, wire.AppendSetStateEffecter(nil, wire.EffecterIdentify, wire.IdentifyUnasserted))
	set(wire.Desired{Generation: g + 5, Mask: wire.DesiredLED, LED: true, BootSlot: wire.SlotNone})
	if s := unitState(t, p); !s.LED || s.DesiredGeneration != g+5 {
		t.Errorf("the generation after an effecter was not taken: LED %v, generation %d", s.LED, s.DesiredGeneration)
	}
	set(wire.Desired{Generation: g + 6, Mask: wire.DesiredLED, BootSlot: wire.SlotNone})
	p.want(t, wire.CodeInvalidState, wire.TypeMonitor, wire.CmdSetStateEffecter, wire.AppendSetStateEffecter(nil, wire.EffecterPower, 99))
	p.want(t, wire.CodeInvalidEffecter, wire.TypeMonitor, wire.CmdSetStateEffecter, wire.AppendSetStateEffecter(nil, 0x7777, 1))
}

func console(t *testing.T, p *probe) {
	part, err := wire.ParseConsolePart(p.oem(t, wire.CmdReadConsole, wire.AppendReadConsole(nil, 0)))
	if err != nil {
		t.Fatal(err)
	}
	end, err := wire.ParseConsolePart(p.oem(t, wire.CmdReadConsole, wire.AppendReadConsole(nil, part.End)))
	if err != nil || end.From < part.End {
		t.Errorf("behind the end: %+v, %v", end, err)
	}
	if s := unitState(t, p); s.ConsoleEnd < part.End {
		t.Errorf("the state says that the console ends at %d, it was at %d", s.ConsoleEnd, part.End)
	}
	n, err := wire.ParseConsoleTaken(p.oem(t, wire.CmdWriteConsole, wire.AppendBytes(nil, []byte("x"))))
	if err != nil || n > 1 {
		t.Errorf("%d of 1 byte was taken: %v", n, err)
	}
	p.want(t, wire.CodeInvalidData, wire.TypeOEM, wire.CmdWriteConsole, wire.AppendBytes(nil, make([]byte, wire.MaxConsoleWrite+1)))
}

// powerCycle switches on and off. Grant: the probe is the bus master and grants power; else an RMC does. What a unit may
// do only while it has power is tried on its line, if there is one.
func powerCycle(t *testing.T, p, unit *probe, grant bool) {
	at := func() wire.UnitState {
		s := unitState(t, p)
		if grant && s.RequestMilliwatts > s.GrantMilliwatts {
			p.oem(t, wire.CmdGrantPower, wire.AppendGrant(nil, s.RequestMilliwatts))
		}
		return s
	}
	before := at()
	d := wire.Desired{Generation: before.DesiredGeneration + 1, Mask: wire.DesiredPower, Power: wire.PowerOn, BootSlot: wire.SlotNone}
	p.oem(t, wire.CmdSetDesired, wire.AppendDesired(nil, &d))
	bootable := false
	until(t, "power on, or a named reason why not", func() bool {
		s := at()
		if s.Power != wire.PowerOn {
			t.Fatalf("desired power is %s", s.Power)
		}
		bootable = s.Rail && s.State == wire.StateRunning
		return bootable || s.State == wire.StateFaulted && !s.Failure.IsZero()
	})
	if bootable {
		s := at()
		if s.BootCount != before.BootCount+1 || s.BootSlot == wire.SlotNone {
			t.Errorf("boot count %d after %d, slot %d", s.BootCount, before.BootCount, s.BootSlot)
		}
		p.oem(t, wire.CmdSetDesired, wire.AppendDesired(nil, &d)) // again: nothing happens
		if s := at(); s.BootCount != before.BootCount+1 || !s.Rail {
			t.Error("a repetition had an effect")
		}
		if unit != nil {
			registers(t, unit)
		}
		until(t, "the generation is observed", func() bool { return at().ObservedGeneration == d.Generation })
		if v := effecter(t, p); v != wire.SystemPowerOn {
			t.Errorf("the power effecter says %d", v)
		}
		p.oem(t, wire.CmdReset, wire.AppendReset(nil, wire.ResetCycle))
		until(t, "a second boot", func() bool { s := at(); return s.BootCount == before.BootCount+2 && s.Rail })
	} else {
		t.Logf("no bootable slot: %s", at().Failure.Reason)
	}
	p.oem(t, wire.CmdReset, wire.AppendReset(nil, wire.ResetForceOff))
	until(t, "power off", func() bool {
		s := at()
		return s.Power == wire.PowerOff && !s.Rail && s.State == wire.StateOff && s.Stage == wire.StageOff
	})
	if v := effecter(t, p); v == wire.SystemPowerOn {
		t.Error("the power effecter still says on")
	}
	if s := at(); s.Millijoules < before.Millijoules {
		t.Error("the energy counter went back")
	}
	events, _ := ring(t, p)
	kinds := map[wire.EventKind]bool{}
	for _, e := range events {
		kinds[e.Kind] = true
	}
	if bootable && !kinds[wire.EventRail] || !kinds[wire.EventDesired] {
		t.Errorf("the ring has nothing of this: %v", kinds)
	}
}

func effecter(t testing.TB, p *probe) uint8 {
	t.Helper()
	_, _, v, err := wire.ParseStateEffecter(p.must(t, wire.TypeMonitor, wire.CmdGetStateEffecter, wire.AppendEffecterID(nil, wire.EffecterPower)))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

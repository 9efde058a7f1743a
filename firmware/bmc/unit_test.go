package bmc

import (
	"bytes"
	"crypto/ed25519"
	"math/rand/v2"
	"testing"

	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
)

func (r *rig) quote() *trust.Evidence {
	r.t.Helper()
	nonce := [32]byte{1, 2, 3}
	signed, err := wire.ParseBytes(r.mustCall(wire.SideBus, wire.CmdGetEvidence, nonce[:]), wire.MaxEvidence)
	if err != nil {
		r.t.Fatal(err)
	}
	e, err := trust.VerifyEvidence(key(9).Public().(ed25519.PublicKey), nonce, signed)
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

// TestRegisters follows what moves which register, and that nothing but a rail cycle clears one.
func TestRegisters(t *testing.T) {
	r := newRig(t)
	r.runUnit()
	digest := [32]byte{42}
	for _, index := range []uint8{trust.RegisterTree, trust.RegisterOS, trust.RegisterRootHash, trust.RegisterHandover} {
		r.mustCall(wire.SideInBand, wire.CmdExtendMeasurement, wire.AppendExtendMeasurement(nil, index, &digest, []byte("label")))
	}
	for index := range 256 { // what only the BMC observes, and what is not there
		switch uint8(index) {
		case trust.RegisterTree, trust.RegisterOS, trust.RegisterRootHash, trust.RegisterHandover:
			continue
		}
		code, _ := r.call(wire.SideInBand, wire.CmdExtendMeasurement, wire.AppendExtendMeasurement(nil, uint8(index), &digest, nil))
		if code != wire.CodeInvalidData {
			t.Fatalf("the unit extended register %d: %v", index, code)
		}
	}
	r.mustCall(wire.SideInBand, wire.CmdSetKeyRegister, digest[:])
	e := r.quote()
	want := trust.Register{}
	want.Extend(digest)
	for i, reg := range e.Registers {
		observed := reg.Index < 8
		if observed != (reg.Kind == trust.Observed) {
			t.Errorf("register %d is %v", reg.Index, reg.Kind)
		}
		if !observed && (reg.Value != want.Value || reg.Extends != 1) {
			t.Errorf("register %d: %+v", i, reg)
		}
		if reg.Index == trust.RegisterUnitKey && reg.Value != digest {
			t.Errorf("key register %x", reg.Value)
		}
	}
	for _, what := range []string{"reset", "order", "time"} {
		switch what {
		case "reset":
			r.seen.on = true
			r.step(2)
			r.seen.on = false
		case "order":
			r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetForceRestart))
		}
		r.step(100)
		got := r.quote()
		for i, reg := range got.Registers {
			if reg.Index != trust.RegisterRail && reg != e.Registers[i] {
				t.Errorf("%s: register %d changed", what, reg.Index)
			}
		}
		if got.Flags&trust.EvidenceVoid == 0 {
			t.Errorf("%s: evidence not void", what)
		}
	}
	r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetCycle))
	r.until(wire.StateRunning)
	e = r.quote()
	if e.Flags&trust.EvidenceVoid != 0 || e.BootCount != 2 {
		t.Errorf("after a rail cycle: %+v", e)
	}
	for _, reg := range e.Registers {
		if fresh := reg.Index == trust.RegisterSlot || reg.Index == trust.RegisterRail; reg.Extends > 1 || (reg.Extends == 0) == fresh {
			t.Errorf("after a rail cycle: register %d has %d extends", reg.Index, reg.Extends)
		}
	}
}

// TestFloors goes through statements in their order; each is refused or accepted as said, and never lowers anything.
func TestFloors(t *testing.T) {
	r := newRig(t)
	r.runUnit()
	other := func() []byte {
		s := trust.FloorStatement{RackID: [16]byte{9}, Sequence: 20, Tree: [32]byte{1}}
		doc, _ := s.MarshalBinary()
		return trust.AppendSigned(doc, []trust.Signature{
			trust.Sign(trust.DomainFloor, owners[0], doc), trust.Sign(trust.DomainFloor, owners[1], doc)})
	}
	for _, c := range []struct {
		name   string
		signed []byte
		reason string // empty: accepted
		seq    uint64 // afterwards
	}{
		{"first", r.statement(5, 3, 5, owners[0], owners[1]), "", 5},
		{"again", r.statement(5, 3, 5, owners[1], owners[2]), "", 5},
		{"one owner", r.statement(6, 3, 6, owners[0]), "floor.statement", 5},
		{"one owner and a stranger", r.statement(6, 3, 6, owners[0], stranger), "floor.statement", 5},
		{"older", r.statement(4, 3, 4, owners[0], owners[1]), "floor.rollback", 5},
		{"other tree", r.statement(5, 3, 6, owners[0], owners[1]), "floor.tree", 5},
		{"lower boot security", r.statement(6, 2, 6, owners[0], owners[1]), "floor.rollback", 5},
		{"boot security of a slot that is not running", r.statement(6, 6, 6, owners[0], owners[1]), "floor.security", 5},
		{"another rack", other(), "floor.identity", 5},
		{"rubbish", []byte("RKFL"), "floor.statement", 5},
		{"empty", nil, "floor.statement", 5},
		{"boot security of the running slot", r.statement(6, 5, 6, owners[0], owners[1]), "", 6},
	} {
		r.step(verifyCost * effortMillis / 10) // a unit is not heard more often: TestEffort
		code, rest := r.call(wire.SideInBand, wire.CmdRaiseFloors, wire.AppendBytes(nil, c.signed))
		if c.reason == "" {
			f, rack, err := wire.ParseFloors(rest)
			if code != wire.CodeSuccess || err != nil || f.Sequence != c.seq || rack != testRack {
				t.Errorf("%s: %v, %v, %+v", c.name, code, err, f)
			}
		} else if f, err := wire.ParseFailure(rest); code != wire.CodeRefused || err != nil || f.Reason.String() != c.reason {
			t.Errorf("%s: %v, %v, %v", c.name, code, err, f)
		}
		if r.b.floors.Sequence != c.seq {
			t.Errorf("%s: sequence %d", c.name, r.b.floors.Sequence)
		}
		before := r.b.floors
		b, err := New(Config{}, r.ports())
		if err != nil || b.floors != before {
			t.Errorf("%s: a restart finds %+v", c.name, b.floors)
		}
	}
}

// TestEnergy: the counter adds up over restarts of the meter and of the BMC, and is not written more than once a minute.
func TestEnergy(t *testing.T) {
	r := newRig(t)
	r.meter.p = driver.Power{Millijoules: 1_000_000, Milliwatts: 5_000} // from before our time
	r.runUnit()
	if e := r.b.UnitState().Millijoules; e != 0 {
		t.Errorf("begins at %d mJ", e)
	}
	for range 30_000 { // 5 minutes at 5 W
		r.meter.p.Millijoules += 50
		r.step(1)
	}
	if e := r.b.UnitState().Millijoules; e < 1_499_000 || e > 1_500_000 {
		t.Errorf("%d mJ after five minutes at 5 W", e)
	}
	r.meter.p.Millijoules = 0 // the chip restarted
	r.step(10)
	r.meter.p.Millijoules = 7_000
	r.step(10)
	if e := r.b.UnitState().Millijoules; e < 1_506_000 || e > 1_507_000 {
		t.Errorf("%d mJ after the meter's restart", e)
	}
	r.meter.p.Millijoules = 1 << 40 // nonsense
	r.step(10)
	r.meter.p.Millijoules = 7_100
	r.step(10)
	if e := r.b.UnitState().Millijoules; e > 1_508_000 {
		t.Errorf("%d mJ: a misreading was counted", e)
	}
	r.step(6_100) // a checkpoint since
	before := r.b.energy
	r.boot() // the unit and the meter run on
	r.meter.p.Millijoules += 5_000
	r.step(10)
	if e := r.b.energy; e < before+4_000 || e > before+6_000 {
		t.Errorf("%d mJ after a restart, %d before", e, before)
	}
	r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetForceOff))
	before = r.b.energy
	r.boot()
	if r.b.energy != before {
		t.Errorf("rail off did not write the counter: %d, %d", r.b.energy, before)
	}
}

// TestAQuietUnitWritesLittle: an hour of running costs an energy checkpoint a minute and nothing else.
func TestAQuietUnitWritesLittle(t *testing.T) {
	r := newRig(t)
	r.runUnit()
	beat := wire.AppendReport(nil, &wire.Report{})
	before := r.flash.writes
	for i := range 360_000 {
		r.meter.p.Millijoules += 40
		r.step(1)
		if i%500 == 0 {
			r.mustCall(wire.SideInBand, wire.CmdHeartbeat, beat)
		}
	}
	if n := r.flash.writes - before; n > 2*75 { // a record takes two
		t.Errorf("%d flash operations in an hour", n)
	}
}

// TestAHostileUnitCannotWearTheFlashOut lets a unit send as fast as it can for ten minutes.
func TestAHostileUnitCannotWearTheFlashOut(t *testing.T) {
	r := newRig(t)
	r.runUnit()
	before := r.flash.writes
	digest := [32]byte{1}
	forged := r.statement(9, 1, 1, stranger, stranger)
	for i := range 60_000 {
		s := wire.StageBootstrap + wire.Stage(i%5)
		f := wire.MakeFailure("rack.tree", seconds(uint64(i)*1000), "x")
		if i%2 == 0 {
			s = wire.StageFailed
		}
		r.call(wire.SideInBand, wire.CmdReportStage, wire.AppendReportStage(nil, s, &f))
		r.call(wire.SideInBand, wire.CmdExtendMeasurement, wire.AppendExtendMeasurement(nil, 8, &digest, nil))
		r.call(wire.SideInBand, wire.CmdSetKeyRegister, digest[:])
		if i%50 == 0 {
			r.call(wire.SideInBand, wire.CmdRaiseFloors, wire.AppendBytes(nil, forged))
			r.call(wire.SideInBand, wire.CmdSlotErase, wire.AppendSlotErase(nil, 512))
		}
		r.step(1)
	}
	// One event a second, each with up to three small records of two operations and now and then a new sector.
	if n := r.flash.writes - before; n > 600*7+500 {
		t.Errorf("%d flash operations in ten minutes", n)
	}
	// And the operator still gets through.
	r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetForceOff))
	if r.sw.on {
		t.Error("rail on")
	}
}

func TestConsole(t *testing.T) {
	r := newRig(t)
	part := func(offset uint64) wire.ConsolePart {
		p, err := wire.ParseConsolePart(r.mustCall(wire.SideBus, wire.CmdReadConsole, wire.AppendReadConsole(nil, offset)))
		if err != nil {
			t.Fatal(err)
		}
		p.Data = bytes.Clone(p.Data)
		return p
	}
	if p := part(0); p.End != 0 || len(p.Data) != 0 {
		t.Errorf("%+v", p)
	}
	var all []byte
	for i := range 3000 {
		chunk := bytes.Repeat([]byte{byte(i)}, 1+i%13)
		all = append(all, chunk...)
		r.b.ConsoleInput(chunk)
	}
	var got []byte
	p := part(0)
	if p.From != uint64(len(all)-consoleSize) {
		t.Errorf("scroll-back begins at %d of %d", p.From, len(all))
	}
	from := p.From
	for len(p.Data) > 0 {
		got = append(got, p.Data...)
		p = part(p.From + uint64(len(p.Data)))
	}
	if !bytes.Equal(got, all[from:]) || p.End != uint64(len(all)) {
		t.Errorf("read %d bytes of %d", len(got), len(all)-int(from))
	}
	if p := part(1 << 60); len(p.Data) != 0 || p.From != uint64(len(all)) {
		t.Errorf("from the future: %+v", p)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 3*consoleSize/16)
	r.b.ConsoleInput(big)
	if p := part(0); !bytes.Equal(p.Data, big[:len(p.Data)]) {
		t.Error("a burst longer than the ring")
	}

	// The other direction: what does not fit is not taken, and nothing is lost or doubled.
	var typed, taken []byte
	for i := range 20 {
		keys := bytes.Repeat([]byte{byte('a' + i)}, 100)
		n, err := wire.ParseConsoleTaken(r.mustCall(wire.SideBus, wire.CmdWriteConsole, wire.AppendBytes(nil, keys)))
		if err != nil {
			t.Fatal(err)
		}
		typed = append(typed, keys[:n]...)
		var buf [37]byte
		taken = append(taken, buf[:r.b.ConsoleOutput(buf[:])]...)
	}
	for {
		var buf [64]byte
		n := r.b.ConsoleOutput(buf[:])
		if n == 0 {
			break
		}
		taken = append(taken, buf[:n]...)
	}
	if !bytes.Equal(typed, taken) || len(typed) < consoleInSize {
		t.Errorf("typed %d, taken %d", len(typed), len(taken))
	}
}

// TestTime: events carry Unix time once the clock is set; only the operator's side sets it (TestSides).
func TestTime(t *testing.T) {
	r := newRig(t)
	r.step(100)
	if ms, _ := wire.ParseTime(r.mustCall(wire.SideInBand, wire.CmdGetTime, nil)); ms != 0 {
		t.Errorf("time before it was set: %d", ms)
	}
	const unix = 1_800_000_000_000
	r.mustCall(wire.SideBus, wire.CmdSetTime, wire.AppendTime(nil, unix))
	r.step(100)
	if ms, _ := wire.ParseTime(r.mustCall(wire.SideInBand, wire.CmdGetTime, nil)); ms != unix+1000 {
		t.Errorf("time %d", ms)
	}
	r.desire(1, wire.PowerOn)
	if ev := r.events(0); !ev[len(ev)-1].ClockSet || ev[len(ev)-1].Millis != unix+1000 || ev[0].ClockSet {
		t.Errorf("%+v", ev[len(ev)-1])
	}
	for _, bad := range []uint64{0, maxTime + 1, 1 << 63} {
		if code, _ := r.call(wire.SideBus, wire.CmdSetTime, wire.AppendTime(nil, bad)); code != wire.CodeInvalidData {
			t.Errorf("time %d: %v", bad, code)
		}
	}
}

// TestEventsSurvive: the ring is read back from the flash, oldest dropped first, sequences without gap or repeat.
func TestEventsSurvive(t *testing.T) {
	r := newRig(t)
	for round := range 40 {
		r.step(1)
		for i := range 30 {
			r.b.event(wire.EventSensor, uint16(i), "round", nil)
		}
		last := r.b.eventSeq
		before := r.events(0)
		r.boot()
		after := r.events(0)
		if n := len(after); n == 0 || after[n-1].Kind != wire.EventRestart {
			t.Fatalf("round %d: no restart logged", round)
		} else if after = after[:n-1]; len(before) == eventRing {
			before = before[1:] // the restart pushed one out
		}
		if len(after) != len(before) || r.b.eventSeq != last+1 {
			t.Fatalf("round %d: %d events, newest %d; had %d, %d", round, len(after), r.b.eventSeq, len(before), last)
		}
		for i := range after {
			if after[i] != before[i] {
				t.Fatalf("round %d: event %d changed", round, i)
			}
			if i > 0 && after[i].Sequence != after[i-1].Sequence+1 {
				t.Fatalf("round %d: gap", round)
			}
		}
	}
	if n := len(r.events(0)); n != eventRing {
		t.Errorf("%d events held", n)
	}
}

// TestPDRs walks the repository, reads each sensor it describes, and compares it with what GetPDRRepositoryInfo says.
func TestPDRs(t *testing.T) {
	r := newRig(t)
	r.runUnit()
	r.meter.p.Milliwatts = 7_777
	r.step(10)
	_, rest := r.callType(wire.SideBus, wire.TypeMonitor, wire.CmdGetPDRInfo, nil)
	info, err := wire.ParsePDRInfo(rest)
	if err != nil {
		t.Fatal(err)
	}
	var records, size, largest uint32
	for handle := uint32(0); ; {
		code, rest := r.callType(wire.SideBus, wire.TypeMonitor, wire.CmdGetPDR, wire.AppendGetPDR(nil, handle))
		next, raw, err := wire.ParseGetPDRResponse(rest)
		if code != wire.CodeSuccess || err != nil {
			t.Fatal(code, err)
		}
		_, p, err := wire.ParsePDR(raw)
		if err != nil {
			t.Fatal(err)
		}
		records, size, largest = records+1, size+uint32(len(raw)), max(largest, uint32(len(raw)))
		switch p.Type {
		case wire.PDRNumericSensor:
			code, rest := r.callType(wire.SideBus, wire.TypeMonitor, wire.CmdGetSensorReading, wire.AppendGetSensorReadingRequest(nil, p.ID))
			reading, err := wire.ParseReading(rest)
			if code != wire.CodeSuccess || err != nil || reading.Size != p.Size || reading.Value < p.Min || reading.Value > p.Max {
				t.Errorf("sensor %d: %v, %v, %+v", p.ID, code, err, reading)
			}
			if p.ID == wire.SensorPower && reading.Value != 7_777 {
				t.Errorf("power %d", reading.Value)
			}
		case wire.PDRStateSensor:
			code, rest := r.callType(wire.SideBus, wire.TypeMonitor, wire.CmdGetStateSensor, wire.AppendGetStateSensorRequest(nil, p.ID))
			_, state, err := wire.ParseStateReading(rest)
			if code != wire.CodeSuccess || err != nil || p.States>>state&1 == 0 {
				t.Errorf("state sensor %d: %v, %v, %d", p.ID, code, err, state)
			}
		case wire.PDRStateEffecter:
			code, _ := r.callType(wire.SideBus, wire.TypeMonitor, wire.CmdGetStateEffecter, wire.AppendEffecterID(nil, p.ID))
			if code != wire.CodeSuccess {
				t.Errorf("effecter %d: %v", p.ID, code)
			}
		case wire.PDRNumericEffecter:
			code, _ := r.callType(wire.SideBus, wire.TypeMonitor, wire.CmdGetNumericEffecter, wire.AppendEffecterID(nil, p.ID))
			if code != wire.CodeSuccess {
				t.Errorf("effecter %d: %v", p.ID, code)
			}
		}
		if handle = next; handle == 0 {
			break
		}
	}
	if records != info.Records || size != info.Size || largest != info.Largest {
		t.Errorf("%d records of %d bytes, largest %d; info %+v", records, size, largest, info)
	}
}

// TestEffecters: power, LED and cap can be moved by the standard commands, too.
func TestEffecters(t *testing.T) {
	r := newRig(t)
	set := func(effecter uint16, state uint8) wire.Code {
		code, _ := r.callType(wire.SideBus, wire.TypeMonitor, wire.CmdSetStateEffecter, wire.AppendSetStateEffecter(nil, effecter, state))
		return code
	}
	if code := set(wire.EffecterPower, wire.SystemPowerOn); code != wire.CodeSuccess {
		t.Fatal(code)
	}
	r.until(wire.StateRunning)
	if code := set(wire.EffecterIdentify, wire.IdentifyAsserted); code != wire.CodeSuccess || !r.led.on {
		t.Errorf("LED: %v", code)
	}
	if code := set(wire.EffecterPower, 99); code != wire.CodeInvalidState {
		t.Errorf("no such state: %v", code)
	}
	if code := set(77, 1); code != wire.CodeInvalidEffecter {
		t.Errorf("no such effecter: %v", code)
	}
	r.callType(wire.SideBus, wire.TypeMonitor, wire.CmdSetNumericEffecter, wire.AppendSetNumericEffecter(nil, wire.EffecterCap, wire.SizeUint32, 9_000))
	r.boot() // all of it is kept
	r.step(5)
	if s := r.b.UnitState(); s.CapMilliwatts != 9_000 || !s.LED || s.Power != wire.PowerOn || s.State != wire.StateRunning {
		t.Errorf("%+v", s)
	}
	if code := set(wire.EffecterPower, wire.SystemPowerOffHard); code != wire.CodeSuccess || r.sw.on {
		t.Errorf("off: %v", code)
	}
}

// TestEvidenceOfAUnitThatIsOff holds no measurement: neither after a boot nor while the next one waits for its rail.
func TestEvidenceOfAUnitThatIsOff(t *testing.T) {
	r := newRig(t)
	empty := func(when string) {
		t.Helper()
		for _, reg := range r.quote().Registers {
			if reg.Extends != 0 || reg.Value != [32]byte{} {
				t.Errorf("%s: register %d has %d extends", when, reg.Index, reg.Extends)
			}
		}
	}
	empty("before the first boot")
	r.runUnit()
	r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetForceOff))
	empty("off")
	r.railBad = true
	r.desire(r.b.desired.generation+1, wire.PowerOn)
	for range 80 {
		r.step(1)
		if r.sw.on {
			empty("waiting for the rail")
		}
	}
	r.railBad = false
	r.until(wire.StateRunning)
	if e := r.quote(); e.Registers[0].Extends != 1 || e.Registers[2].Extends != 1 {
		t.Errorf("running: %+v", e.Registers)
	}
}

// TestQuickCyclesAreLogged: the log of the tenth boot in a row is as complete as that of the first, while a unit that
// talks on by itself is still held to a trickle.
func TestQuickCyclesAreLogged(t *testing.T) {
	r := newRig(t)
	r.runUnit()
	var digest [32]byte
	for i := range 12 {
		mark := r.b.eventSeq
		r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetCycle))
		r.until(wire.StateOff)
		r.until(wire.StateRunning)
		for s := wire.StageBootstrap; s <= wire.StageVerified; s++ {
			r.stage(s)
			r.mustCall(wire.SideInBand, wire.CmdExtendMeasurement, wire.AppendExtendMeasurement(nil, 8, &digest, []byte("a digest")))
			r.step(1)
		}
		f := wire.MakeFailure("os.root", "a", "b")
		r.mustCall(wire.SideInBand, wire.CmdReportStage, wire.AppendReportStage(nil, wire.StageFailed, &f))
		named := false
		for _, e := range r.events(mark) {
			named = named || e.Kind == wire.EventFailure && e.Failure == f
		}
		if !named {
			t.Fatalf("boot %d: the refusal is not in the log", i)
		}
	}
	mark := r.b.eventSeq
	for i := range 500 {
		r.stage(wire.StageBootstrap + wire.Stage(i%2))
	}
	if n := r.b.eventSeq - mark; n > bucketSize {
		t.Errorf("a unit by itself caused %d events at once", n)
	}
}

// TestAProvenSlotIsKeptWithoutEvents: a unit that has spent its events proves its staged slot all the same.
func TestAProvenSlotIsKeptWithoutEvents(t *testing.T) {
	r := newRig(t)
	r.runUnit()
	stageSome(r, rand.New(rand.NewPCG(1, 1)))
	r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetCycle))
	r.until(wire.StateRunning)
	if r.b.bootSlot != wire.SlotB || r.b.boot.trial == trialProven {
		t.Fatalf("slot %d, trial %d", r.b.bootSlot, r.b.boot.trial)
	}
	r.b.bucket.tokens, r.b.bucket.at = 0, r.b.now
	for range 3 {
		r.stage(wire.StageBootstrap)
		r.stage(wire.StageOS)
	}
	r.boot()
	r.step(1)
	if r.b.boot.trial != trialProven {
		t.Errorf("trial %d after a restart", r.b.boot.trial)
	}
}

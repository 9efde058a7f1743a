package wiretest

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/racklet/racklet/firmware/wire"
)

// BMC is a fake BMC. Its unit boots at once when it has power, unless Stuck says otherwise.
type BMC struct {
	Slot uint8

	mu        sync.Mutex
	faults    Faults
	state     wire.UnitState
	events    []wire.Event
	limit     int // of events kept
	sequence  uint32
	console   []byte
	start     uint64 // offset of console[0]
	typed     []byte
	report    wire.Report
	reported  time.Time
	slots     [2]wire.SlotInfo
	config    []byte
	evidence  func(nonce [32]byte) []byte
	rack      [16]byte
	registers [16][32]byte
	request   wire.HostRequest
	clock     uint64
	resets    []wire.ResetKind
	stuck     *wire.Failure
	image     []byte
	erased    bool
}

// NewBMC returns a BMC of a slot with its rail off and both boot slots valid.
func NewBMC(slot uint8) *BMC {
	b := &BMC{Slot: slot, limit: 128, config: []byte(`{"unit":"fake"}`)}
	b.state = wire.UnitState{
		Slot: slot, BootSlot: wire.SlotNone, BootOverride: wire.SlotNone,
		Millivolts: 5100, MilliCelsius: 31_500, Flags: 0,
	}
	for i := range b.slots {
		b.slots[i] = wire.SlotInfo{State: wire.SlotValid, SecurityVersion: 1, Version: wire.MakeText32("v0.1.0")}
		b.slots[i].Digest[0] = byte(i + 1)
	}
	b.evidence = func(nonce [32]byte) []byte { return append([]byte("evidence"), nonce[:]...) }
	b.event(wire.EventRestart, 0, "controller started", wire.Failure{})
	return b
}

// Update changes the state under the BMC's lock and records nothing.
func (b *BMC) Update(f func(*wire.UnitState)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.state)
}

// State returns a copy of the state.
func (b *BMC) State() wire.UnitState {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.current()
}

// SetFaults makes the BMC misbehave from now on.
func (b *BMC) SetFaults(f Faults) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = f
}

// Faults returns what SetFaults has set.
func (b *BMC) Faults() Faults {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.faults
}

// Stuck makes boots end in StageFailed with this failure; nil: they succeed.
func (b *BMC) Stuck(f *wire.Failure) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stuck = f
}

// SetReport sets what the unit has reported last.
func (b *BMC) SetReport(r wire.Report) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.report, b.reported = r, time.Now()
}

// SetSlots sets what GetSlots answers.
func (b *BMC) SetSlots(s [2]wire.SlotInfo) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.slots = s
}

// SetEvidence sets what answers GetEvidence.
func (b *BMC) SetEvidence(f func(nonce [32]byte) []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.evidence = f
}

// Print lets the unit print on its console.
func (b *BMC) Print(s string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.console = append(b.console, s...)
	if over := len(b.console) - 16<<10; over > 0 {
		b.console = b.console[over:]
		b.start += uint64(over)
	}
	b.state.ConsoleEnd = b.start + uint64(len(b.console))
}

// Typed returns what was written to the console.
func (b *BMC) Typed() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.typed)
}

// Resets returns the reset orders so far.
func (b *BMC) Resets() []wire.ResetKind {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]wire.ResetKind(nil), b.resets...)
}

// Record adds an event to the ring.
func (b *BMC) Record(kind wire.EventKind, code uint16, text string, f wire.Failure) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.event(kind, code, text, f)
}

// Forget empties the ring and starts numbering anew, as a BMC without its memory does.
func (b *BMC) Forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events, b.sequence = nil, 0
	b.event(wire.EventRestart, 0, "controller started", wire.Failure{})
}

func (b *BMC) event(kind wire.EventKind, code uint16, text string, f wire.Failure) {
	b.sequence++
	e := wire.Event{
		Sequence: b.sequence, Millis: uint64(time.Now().UnixMilli()), ClockSet: true, Boot: b.state.BootCount,
		Kind: kind, Slot: b.Slot, Code: code, Text: wire.MakeText64(text), Failure: f,
	}
	b.events = append(b.events, e)
	if len(b.events) > b.limit {
		b.events = b.events[len(b.events)-b.limit:]
	}
	b.state.LastEvent = b.sequence
}

func (b *BMC) stage(s wire.Stage) {
	b.state.Stage = s
	b.event(wire.EventStage, uint16(s), s.String(), wire.Failure{})
}

// current is the state with what follows from it.
func (b *BMC) current() wire.UnitState {
	s := b.state
	if s.Rail {
		s.Milliwatts, s.Milliamps = 3200, 630
	} else {
		s.Milliwatts, s.Milliamps = 0, 0
	}
	return s
}

// converge does at once what a real BMC takes seconds for.
func (b *BMC) converge() {
	s := &b.state
	switch {
	case s.Power == wire.PowerOn && !s.Rail:
		if s.GrantMilliwatts == 0 {
			s.State, s.RequestMilliwatts = wire.StatePowering, 8000
			s.Flags |= wire.FlagWaitGrant
			return
		}
		s.Flags &^= wire.FlagWaitGrant
		s.RequestMilliwatts = 8000
		s.Rail, s.State = true, wire.StateRunning
		s.BootCount++
		s.BootSlot = wire.SlotA
		if s.BootMode != wire.BootDisabled {
			s.BootSlot = s.BootOverride
		}
		if s.BootMode == wire.BootOnce {
			s.BootMode, s.BootOverride = wire.BootDisabled, wire.SlotNone
		}
		s.Resets = 0
		s.Failure = wire.Failure{}
		b.event(wire.EventRail, 1, "rail on", wire.Failure{})
		if b.stuck != nil {
			s.Failure = *b.stuck
			s.Stage = wire.StageFailed
			b.event(wire.EventFailure, 0, "boot refused", *b.stuck)
		} else {
			b.stage(wire.StageBootstrap)
			b.stage(wire.StageRunning)
		}
	case s.Power == wire.PowerOff && (s.Rail || s.State != wire.StateOff):
		b.off()
	}
	s.ObservedGeneration = s.DesiredGeneration
}

func (b *BMC) off() {
	s := &b.state
	s.Rail, s.State, s.BootSlot = false, wire.StateOff, wire.SlotNone
	s.RequestMilliwatts, s.GrantMilliwatts = 0, 0
	b.reported = time.Time{}
	b.event(wire.EventRail, 0, "rail off", wire.Failure{})
	b.stage(wire.StageOff)
}

// Handle answers a PLDM request.
func (b *BMC) Handle(side wire.Side, req, resp []byte) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	h, p, err := wire.ParseHeader(req)
	if err != nil || !h.Request {
		return resp
	}
	has := func(kind, c uint8) bool {
		switch kind {
		case wire.TypeBase:
			return c >= wire.CmdSetTID && c <= wire.CmdGetCommands
		case wire.TypeMonitor:
			return wire.MonitorSides(c).Has(side)
		}
		return wire.Sides(c).Has(side)
	}
	if r, ok := base(h, p, resp, b.Slot, func(kind uint8) (wire.Bits, uint32, bool) { return commands(kind, has) }); ok {
		return r
	}
	switch h.Type {
	case wire.TypeMonitor:
		if !wire.MonitorSides(h.Command).Has(side) {
			return wire.AppendResponse(resp, h, wire.CodeUnsupported)
		}
		return b.monitor(h, p, resp)
	case wire.TypeOEM:
		switch m := wire.Sides(h.Command); {
		case m == 0:
			return wire.AppendResponse(resp, h, wire.CodeUnsupported)
		case !m.Has(side):
			return wire.AppendResponse(resp, h, wire.CodeWrongSide)
		}
		return b.oem(h, p, resp)
	}
	return wire.AppendResponse(resp, h, wire.CodeInvalidType)
}

func codeOf(err error) wire.Code {
	switch err {
	case nil:
		return wire.CodeSuccess
	case wire.ErrShort, wire.ErrTrailing:
		return wire.CodeInvalidLength
	}
	return wire.CodeInvalidData
}

func (b *BMC) oem(h wire.Header, p, resp []byte) []byte {
	fail := func(err error) []byte { return wire.AppendResponse(resp, h, codeOf(err)) }
	ok := func() []byte { return wire.AppendResponse(resp, h, wire.CodeSuccess) }
	empty := len(p) == 0
	s := &b.state
	switch h.Command {
	case wire.CmdGetBootConfig:
		off, err := wire.ParseOffset(p)
		if err != nil {
			return fail(err)
		}
		if int(off) > len(b.config) {
			return fail(wire.ErrValue)
		}
		part := b.config[off:min(int(off)+wire.MaxBootConfigPart, len(b.config))]
		return wire.AppendBootConfigPart(ok(), uint32(len(b.config)), part)
	case wire.CmdReportStage:
		stage, f, err := wire.ParseReportStage(p)
		if err != nil {
			return fail(err)
		}
		s.Failure = f
		b.stage(stage)
		if !f.IsZero() {
			b.event(wire.EventFailure, 0, "reported by the unit", f)
		}
		return ok()
	case wire.CmdExtendMeasurement:
		reg, digest, label, err := wire.ParseExtendMeasurement(p)
		if err != nil {
			return fail(err)
		}
		if reg < 8 || reg > 15 {
			return fail(wire.ErrValue)
		}
		b.registers[reg] = digest
		b.event(wire.EventMeasurement, uint16(reg), string(label), wire.Failure{})
		return ok()
	case wire.CmdSetKeyRegister:
		digest, err := wire.ParseDigest(p)
		if err != nil {
			return fail(err)
		}
		b.registers[3] = digest
		b.event(wire.EventKey, 0, "key register set", wire.Failure{})
		return ok()
	case wire.CmdGetFloors:
		if !empty {
			return fail(wire.ErrTrailing)
		}
		return wire.AppendFloors(ok(), &s.Floors, &b.rack)
	case wire.CmdRaiseFloors:
		if _, err := wire.ParseBytes(p, wire.MaxSignedFloors); err != nil {
			return fail(err)
		}
		f := wire.MakeFailure("floor.signature", "2 signatures", "0 signatures")
		return wire.AppendFailure(wire.AppendResponse(resp, h, wire.CodeRefused), &f)
	case wire.CmdGetEvidence:
		nonce, err := wire.ParseDigest(p)
		if err != nil {
			return fail(err)
		}
		return wire.AppendBytes(ok(), b.evidence(nonce))
	case wire.CmdGetUnitState:
		if !empty {
			return fail(wire.ErrTrailing)
		}
		now := b.current()
		return wire.AppendUnitState(ok(), &now)
	case wire.CmdSetDesired:
		d, err := wire.ParseDesired(p)
		if err != nil {
			return fail(err)
		}
		b.desire(d)
		return wire.AppendGenerations(ok(), s.DesiredGeneration, s.ObservedGeneration)
	case wire.CmdReadEvents:
		after, err := wire.ParseReadEvents(p)
		if err != nil {
			return fail(err)
		}
		return readEvents(ok(), b.events, after)
	case wire.CmdReadConsole:
		off, err := wire.ParseReadConsole(p)
		if err != nil {
			return fail(err)
		}
		from := min(max(off, b.start), s.ConsoleEnd)
		data := b.console[from-b.start:]
		return wire.AppendConsolePart(ok(), &wire.ConsolePart{From: from, End: s.ConsoleEnd, Data: data[:min(len(data), wire.MaxConsoleRead)]})
	case wire.CmdWriteConsole:
		data, err := wire.ParseBytes(p, wire.MaxConsoleWrite)
		if err != nil {
			return fail(err)
		}
		b.typed = append(b.typed, data...)
		return wire.AppendConsoleTaken(ok(), uint16(len(data)))
	case wire.CmdSlotErase, wire.CmdSlotWrite, wire.CmdSlotCommit:
		return b.writeSlot(h, p, resp)
	case wire.CmdGrantPower:
		mw, err := wire.ParseGrant(p)
		if err != nil {
			return fail(err)
		}
		s.GrantMilliwatts = mw
		b.converge()
		return ok()
	case wire.CmdHeartbeat:
		r, err := wire.ParseReport(p)
		if err != nil {
			return fail(err)
		}
		b.report, b.reported = r, time.Now()
		return wire.AppendHostRequest(ok(), b.request)
	case wire.CmdGetReport:
		if !empty {
			return fail(wire.ErrTrailing)
		}
		age := wire.AgeNever
		if !b.reported.IsZero() {
			age = uint32(time.Since(b.reported).Milliseconds())
		}
		return wire.AppendAgedReport(ok(), age, &b.report)
	case wire.CmdSetTime:
		t, err := wire.ParseTime(p)
		if err != nil {
			return fail(err)
		}
		b.clock = t
		s.Flags |= wire.FlagClockSet
		return ok()
	case wire.CmdGetTime:
		if !empty {
			return fail(wire.ErrTrailing)
		}
		return wire.AppendTime(ok(), b.clock)
	case wire.CmdReset:
		k, err := wire.ParseReset(p)
		if err != nil {
			return fail(err)
		}
		b.reset(k)
		return ok()
	case wire.CmdGetSlots:
		if !empty {
			return fail(wire.ErrTrailing)
		}
		return wire.AppendSlots(ok(), &b.slots)
	}
	return wire.AppendResponse(resp, h, wire.CodeUnsupported)
}

func (b *BMC) desire(d wire.Desired) {
	s := &b.state
	if d.Generation <= s.DesiredGeneration {
		return
	}
	s.DesiredGeneration = d.Generation
	if d.Mask&wire.DesiredPower != 0 {
		s.Power = d.Power
	}
	if d.Mask&wire.DesiredLED != 0 {
		s.LED = d.LED
	}
	if d.Mask&wire.DesiredCap != 0 {
		s.CapMilliwatts = d.CapMilliwatts
	}
	if d.Mask&wire.DesiredBoot != 0 {
		s.BootMode, s.BootOverride = d.BootMode, d.BootSlot
	}
	b.event(wire.EventDesired, uint16(d.Mask), "desired state", wire.Failure{})
	b.converge()
}

func (b *BMC) reset(k wire.ResetKind) {
	s := &b.state
	b.resets = append(b.resets, k)
	switch k {
	case wire.ResetGracefulOff, wire.ResetForceOff:
		s.Power = wire.PowerOff
		b.converge()
	case wire.ResetCycle, wire.ResetGracefulCycle:
		grant := s.GrantMilliwatts
		if s.Rail {
			b.off()
		}
		s.Power, s.GrantMilliwatts = wire.PowerOn, grant
		b.converge()
	case wire.ResetForceRestart:
		if s.Rail {
			s.Resets++
			s.Flags |= wire.FlagEvidenceVoid
			b.event(wire.EventReset, 1, "reset", wire.Failure{})
		}
	}
}

func readEvents(resp []byte, events []wire.Event, after uint32) []byte {
	var oldest, newest uint32
	if len(events) > 0 {
		oldest, newest = events[0].Sequence, events[len(events)-1].Sequence
	}
	w := wire.StartEvents(resp, oldest, newest, wire.MaxMessage-1)
	for i := range events {
		if events[i].Sequence > after && !w.Add(&events[i]) {
			break
		}
	}
	return w.Bytes()
}

const slotCapacity = 1 << 20

func (b *BMC) writeSlot(h wire.Header, p, resp []byte) []byte {
	fail := func(c wire.Code) []byte { return wire.AppendResponse(resp, h, c) }
	idle := wire.SlotB
	if b.state.BootSlot == wire.SlotB {
		idle = wire.SlotA
	}
	progress := func() []byte {
		w := wire.SlotProgress{Slot: idle, State: b.slots[idle].State, Capacity: slotCapacity, Next: uint32(len(b.image))}
		return wire.AppendSlotProgress(wire.AppendResponse(resp, h, wire.CodeSuccess), &w)
	}
	switch h.Command {
	case wire.CmdSlotErase:
		size, err := wire.ParseSlotErase(p)
		switch {
		case err != nil:
			return fail(codeOf(err))
		case size > slotCapacity:
			return fail(wire.CodeInvalidData)
		}
		b.image, b.erased = b.image[:0], true
		b.slots[idle] = wire.SlotInfo{State: wire.SlotWriting}
	case wire.CmdSlotWrite:
		off, data, err := wire.ParseSlotWrite(p)
		switch {
		case err != nil:
			return fail(codeOf(err))
		case !b.erased:
			return fail(wire.CodeBusy)
		case int(off) != len(b.image):
			return fail(wire.CodeInvalidData)
		}
		b.image = append(b.image, data...)
	case wire.CmdSlotCommit:
		total, off, part, err := wire.ParseSlotCommit(p)
		switch {
		case err != nil:
			return fail(codeOf(err))
		case !b.erased:
			return fail(wire.CodeBusy)
		case int(off)+len(part) < int(total):
			return progress()
		}
		b.erased = false
		if len(part) > 0 && part[0] == '!' { // a manifest that a test wants refused
			f := wire.MakeFailure("slot.signature", "2 signatures", "1 signature")
			b.slots[idle] = wire.SlotInfo{State: wire.SlotInvalid, Failure: f}
			return wire.AppendFailure(fail(wire.CodeRefused), &f)
		}
		b.slots[idle] = wire.SlotInfo{State: wire.SlotValid, SecurityVersion: 2, Version: wire.MakeText32("v0.2.0")}
	}
	return progress()
}

var bmcPDRs = []wire.PDR{
	{Type: wire.PDRNumericSensor, ID: wire.SensorPower, Entity: wire.EntitySystemBoard, Unit: wire.UnitWatts, Modifier: -3, Size: wire.SizeUint32, Max: 40_000},
	{Type: wire.PDRNumericSensor, ID: wire.SensorVoltage, Entity: wire.EntitySystemBoard, Unit: wire.UnitVolts, Modifier: -3, Size: wire.SizeUint32, Max: 6_000},
	{Type: wire.PDRNumericSensor, ID: wire.SensorCurrent, Entity: wire.EntitySystemBoard, Unit: wire.UnitAmps, Modifier: -3, Size: wire.SizeUint32, Max: 8_000},
	{Type: wire.PDRNumericSensor, ID: wire.SensorTemperature, Entity: wire.EntitySystemBoard, Unit: wire.UnitCelsius, Modifier: -3, Size: wire.SizeSint32, Min: -40_000, Max: 150_000},
	{Type: wire.PDRNumericSensor, ID: wire.SensorEnergy, Entity: wire.EntitySystemBoard, Unit: wire.UnitJoules, Size: wire.SizeUint32, Max: 1<<32 - 1},
	{Type: wire.PDRStateSensor, ID: wire.SensorPowerState, Entity: wire.EntitySystemBoard, StateSet: wire.StateSetSystemPower, States: 1<<wire.SystemPowerOn | 1<<wire.SystemPowerOffHard},
	{Type: wire.PDRStateSensor, ID: wire.SensorBoot, Entity: wire.EntitySystemBoard, StateSet: wire.StateSetBootProgress, States: 1<<wire.BootNotActive | 1<<wire.BootCompleted | 1<<wire.BootOSStart | 1<<wire.BootStartingOS | 1<<wire.BootBaseboard},
	{Type: wire.PDRStateSensor, ID: wire.SensorHealth, Entity: wire.EntitySystemBoard, StateSet: wire.StateSetHealth, States: 1<<wire.HealthNormal | 1<<wire.HealthCritical},
	{Type: wire.PDRStateEffecter, ID: wire.EffecterPower, Entity: wire.EntitySystemBoard, StateSet: wire.StateSetSystemPower, States: 1<<wire.SystemPowerOn | 1<<wire.SystemPowerOffSoftGraceful | 1<<wire.SystemPowerOffHard},
	{Type: wire.PDRStateEffecter, ID: wire.EffecterIdentify, Entity: wire.EntitySystemBoard, StateSet: wire.StateSetIdentify, States: 1<<wire.IdentifyAsserted | 1<<wire.IdentifyUnasserted},
	{Type: wire.PDRNumericEffecter, ID: wire.EffecterCap, Entity: wire.EntitySystemBoard, Unit: wire.UnitWatts, Modifier: -3, Size: wire.SizeUint32, Max: 40_000},
}

func (b *BMC) monitor(h wire.Header, p, resp []byte) []byte {
	fail := func(c wire.Code) []byte { return wire.AppendResponse(resp, h, c) }
	ok := func() []byte { return fail(wire.CodeSuccess) }
	s := b.current()
	switch h.Command {
	case wire.CmdGetSensorReading:
		id, err := wire.ParseGetSensorReadingRequest(p)
		if err != nil {
			return fail(codeOf(err))
		}
		r := wire.Reading{Size: wire.SizeUint32, Present: wire.ReadingNormal}
		switch id {
		case wire.SensorPower:
			r.Value = int64(s.Milliwatts)
		case wire.SensorVoltage:
			r.Value = int64(s.Millivolts)
		case wire.SensorCurrent:
			r.Value = int64(s.Milliamps)
		case wire.SensorTemperature:
			r.Size, r.Value = wire.SizeSint32, int64(s.MilliCelsius)
		case wire.SensorEnergy:
			r.Value = int64(uint32(s.Millijoules / 1000))
		default:
			return fail(wire.CodeInvalidSensor)
		}
		return wire.AppendReading(ok(), r)
	case wire.CmdGetStateSensor:
		id, err := wire.ParseGetStateSensorRequest(p)
		if err != nil {
			return fail(codeOf(err))
		}
		switch id {
		case wire.SensorPowerState:
			return wire.AppendStateReading(ok(), wire.SensorEnabled, power(s.Rail))
		case wire.SensorBoot:
			return wire.AppendStateReading(ok(), wire.SensorEnabled, wire.BootProgress(s.Stage))
		case wire.SensorHealth:
			health := wire.HealthNormal
			if !s.Failure.IsZero() {
				health = wire.HealthCritical
			}
			return wire.AppendStateReading(ok(), wire.SensorEnabled, health)
		}
		return fail(wire.CodeInvalidSensor)
	case wire.CmdSetStateEffecter:
		id, set, state, err := wire.ParseSetStateEffecter(p)
		if err != nil {
			return fail(codeOf(err))
		}
		d := wire.Desired{Generation: s.DesiredGeneration + 1, BootSlot: wire.SlotNone}
		switch {
		case id == wire.EffecterPower && state == wire.SystemPowerOn:
			d.Mask, d.Power = wire.DesiredPower, wire.PowerOn
		case id == wire.EffecterPower && (state == wire.SystemPowerOffHard || state == wire.SystemPowerOffSoftGraceful):
			d.Mask, d.Power = wire.DesiredPower, wire.PowerOff
		case id == wire.EffecterIdentify && (state == wire.IdentifyAsserted || state == wire.IdentifyUnasserted):
			d.Mask, d.LED = wire.DesiredLED, state == wire.IdentifyAsserted
		case id == wire.EffecterPower || id == wire.EffecterIdentify:
			return fail(wire.CodeInvalidState)
		default:
			return fail(wire.CodeInvalidEffecter)
		}
		if set {
			b.desire(d)
		}
		return ok()
	case wire.CmdGetStateEffecter:
		id, err := wire.ParseEffecterID(p)
		if err != nil {
			return fail(codeOf(err))
		}
		switch id {
		case wire.EffecterPower:
			return wire.AppendStateEffecter(ok(), wire.EffecterEnabled, power(s.Power == wire.PowerOn), power(s.Rail))
		case wire.EffecterIdentify:
			v := wire.IdentifyUnasserted
			if s.LED {
				v = wire.IdentifyAsserted
			}
			return wire.AppendStateEffecter(ok(), wire.EffecterEnabled, v, v)
		}
		return fail(wire.CodeInvalidEffecter)
	case wire.CmdSetNumericEffecter:
		id, _, v, err := wire.ParseSetNumericEffecter(p)
		if err != nil {
			return fail(codeOf(err))
		}
		if id != wire.EffecterCap {
			return fail(wire.CodeInvalidEffecter)
		}
		b.desire(wire.Desired{Generation: s.DesiredGeneration + 1, Mask: wire.DesiredCap, CapMilliwatts: uint32(v), BootSlot: wire.SlotNone})
		return ok()
	case wire.CmdGetNumericEffecter:
		id, err := wire.ParseEffecterID(p)
		if err != nil {
			return fail(codeOf(err))
		}
		if id != wire.EffecterCap {
			return fail(wire.CodeInvalidEffecter)
		}
		return wire.AppendNumericEffecter(ok(), wire.SizeUint32, wire.EffecterEnabled, int64(s.CapMilliwatts), int64(s.CapMilliwatts))
	}
	return pdrs(h, p, resp, bmcPDRs)
}

func power(on bool) uint8 {
	if on {
		return wire.SystemPowerOn
	}
	return wire.SystemPowerOffHard
}

// pdrs answers the two commands about the repository.
func pdrs(h wire.Header, p, resp []byte, records []wire.PDR) []byte {
	fail := func(c wire.Code) []byte { return wire.AppendResponse(resp, h, c) }
	switch h.Command {
	case wire.CmdGetPDRInfo:
		if len(p) != 0 {
			return fail(wire.CodeInvalidLength)
		}
		var info wire.PDRInfo
		for i := range records {
			n := uint32(len(wire.AppendPDR(nil, 1, &records[i])))
			info.Records++
			info.Size += n
			info.Largest = max(info.Largest, n)
		}
		return wire.AppendPDRInfo(fail(wire.CodeSuccess), info)
	case wire.CmdGetPDR:
		record, flag, room, err := wire.ParseGetPDR(p)
		if err != nil {
			return fail(codeOf(err))
		}
		if flag != wire.TransferFirst {
			return fail(wire.CodeInvalidTransfer)
		}
		i := int(max(record, 1)) - 1
		if i >= len(records) {
			return fail(wire.CodeInvalidRecord)
		}
		data := wire.AppendPDR(nil, uint32(i+1), &records[i])
		if len(data) > int(room) {
			return fail(wire.CodeInvalidData)
		}
		next := uint32(0)
		if i+1 < len(records) {
			next = uint32(i + 2)
		}
		return wire.AppendGetPDRResponse(fail(wire.CodeSuccess), next, data)
	}
	return fail(wire.CodeUnsupported)
}

// Nonce returns a nonce that starts with n, for tests.
func Nonce(n uint64) (nonce [32]byte) {
	binary.LittleEndian.PutUint64(nonce[:], n)
	return nonce
}

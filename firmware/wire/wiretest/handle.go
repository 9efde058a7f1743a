package wiretest

import (
	"time"

	"github.com/racklet/racklet/firmware/wire"
)

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
		case wire.TypeFRU:
			return wire.FRUSides(c).Has(side)
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
	case wire.TypeFRU:
		return identify(h, p, resp, b.identity)
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
		if reg < 8 || reg > 11 {
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
	case wire.CmdSetInventory:
		v, err := wire.ParseInventory(p)
		if err != nil {
			return fail(err)
		}
		b.inventory = v
		return ok()
	case wire.CmdGetInventory:
		if !empty {
			return fail(wire.ErrTrailing)
		}
		return wire.AppendInventory(ok(), &b.inventory)
	case wire.CmdGetFirmware:
		if !empty {
			return fail(wire.ErrTrailing)
		}
		return wire.AppendFirmware(ok(), wire.MakeText32(Firmware))
	case wire.CmdRestart:
		if !empty {
			return fail(wire.ErrTrailing)
		}
		b.restarts++
		return ok()
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
		case int(off)+len(part) < int(total):
			return progress()
		}
		offer := !b.erased
		b.erased = false
		if len(part) > 0 && part[0] == '!' { // a manifest that a test wants refused
			f := wire.MakeFailure("slot.signature", "2 signatures", "1 signature")
			if !offer {
				b.slots[idle] = wire.SlotInfo{State: wire.SlotInvalid, Failure: f}
			}
			return wire.AppendFailure(fail(wire.CodeRefused), &f)
		}
		if offer {
			return progress()
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
		d := wire.Desired{BootSlot: wire.SlotNone}
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
			b.apply(d)
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
		b.apply(wire.Desired{Mask: wire.DesiredCap, CapMilliwatts: uint32(v), BootSlot: wire.SlotNone})
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

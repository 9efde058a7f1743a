package bmc

import (
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
)

// Who may say what. A command that is not in the table does not exist; one that is not allowed from the side it came
// from is answered with wire.CodeWrongSide (vendor-defined) or CodeUnsupported (standard types) before anything of it
// is looked at. The compute unit is never trusted: what it may change is what it says about itself, and what the
// owners' signatures or the BMC's own checks decide.
const (
	inBand   = 1 << wire.SideInBand
	onBus    = 1 << wire.SideBus
	onDebug  = 1 << wire.SideDebug
	anySide  = inBand | onBus | onDebug
	operator = onBus | onDebug
)

type rule struct {
	kind, command uint8
	sides         uint8
	handle        func(b *BMC, side wire.Side, req, dst []byte) ([]byte, wire.Code)
}

// rules is ordered by type and command.
var rules = [...]rule{
	{wire.TypeBase, wire.CmdGetTID, anySide, getTID},
	{wire.TypeBase, wire.CmdGetVersion, anySide, getVersion},
	{wire.TypeBase, wire.CmdGetTypes, anySide, getTypes},
	{wire.TypeBase, wire.CmdGetCommands, anySide, nil}, // getCommands: it reads this table

	{wire.TypeMonitor, wire.CmdGetSensorReading, anySide, getSensorReading},
	{wire.TypeMonitor, wire.CmdGetStateSensor, anySide, getStateSensor},
	{wire.TypeMonitor, wire.CmdSetNumericEffecter, operator, setNumericEffecter},
	{wire.TypeMonitor, wire.CmdGetNumericEffecter, anySide, getNumericEffecter},
	{wire.TypeMonitor, wire.CmdSetStateEffecter, operator, setStateEffecter},
	{wire.TypeMonitor, wire.CmdGetStateEffecter, anySide, getStateEffecter},
	{wire.TypeMonitor, wire.CmdGetPDRInfo, anySide, getPDRInfo},
	{wire.TypeMonitor, wire.CmdGetPDR, anySide, getPDR},

	{wire.TypeFRU, wire.CmdGetFRUMetadata, anySide, getFRUMetadata},
	{wire.TypeFRU, wire.CmdGetFRUTable, anySide, getFRUTable},

	{wire.TypeOEM, wire.CmdGetBootConfig, inBand | onDebug, getBootConfig},
	{wire.TypeOEM, wire.CmdReportStage, inBand, reportStage},
	{wire.TypeOEM, wire.CmdExtendMeasurement, inBand, extendMeasurement},
	{wire.TypeOEM, wire.CmdSetKeyRegister, inBand, setKeyRegister},
	{wire.TypeOEM, wire.CmdGetFloors, anySide, getFloors},
	{wire.TypeOEM, wire.CmdRaiseFloors, anySide, raiseFloors},
	{wire.TypeOEM, wire.CmdGetEvidence, anySide, getEvidence},
	{wire.TypeOEM, wire.CmdGetUnitState, anySide, getUnitState},
	{wire.TypeOEM, wire.CmdSetDesired, operator, setDesired},
	{wire.TypeOEM, wire.CmdReadEvents, anySide, readEvents},
	{wire.TypeOEM, wire.CmdReadConsole, operator, readConsole},
	{wire.TypeOEM, wire.CmdWriteConsole, operator, writeConsole},
	{wire.TypeOEM, wire.CmdSlotErase, anySide, slotErase},
	{wire.TypeOEM, wire.CmdSlotWrite, anySide, slotWrite},
	{wire.TypeOEM, wire.CmdSlotCommit, anySide, slotCommit},
	{wire.TypeOEM, wire.CmdGrantPower, onBus, grantPower},
	{wire.TypeOEM, wire.CmdHeartbeat, inBand, heartbeat},
	{wire.TypeOEM, wire.CmdGetReport, operator, getReport},
	{wire.TypeOEM, wire.CmdSetTime, operator, setTime},
	{wire.TypeOEM, wire.CmdGetTime, anySide, getTime},
	{wire.TypeOEM, wire.CmdReset, operator, reset},
	{wire.TypeOEM, wire.CmdGetSlots, anySide, getSlots},
	{wire.TypeOEM, wire.CmdSetInventory, inBand, setInventory},
	{wire.TypeOEM, wire.CmdGetInventory, operator, getInventory},
	{wire.TypeOEM, wire.CmdGetFirmware, anySide, getFirmware},
	{wire.TypeOEM, wire.CmdRestart, operator, restart},
}

// Handle takes one PLDM message that arrived from a side at a time in milliseconds, and writes the response into resp,
// which should have room for wire.MaxMessage bytes and must not overlap req. It returns the response's length; 0 when
// there is none: for what is no request, or a datagram.
func (b *BMC) Handle(side wire.Side, now uint64, req, resp []byte) int {
	b.advance(now)
	h, payload, err := wire.ParseHeader(req)
	if err != nil || !h.Request || side > wire.SideDebug || len(resp) < wire.HeaderSize+1 {
		return 0
	}
	if side == wire.SideBus {
		b.heard()
	}
	limit := len(resp)
	dst := wire.AppendResponse(resp[:0:limit], h, wire.CodeSuccess)
	out, code := b.dispatch(side, &h, payload, dst)
	if h.Datagram {
		return 0
	}
	if len(out) > limit { // the answer does not fit: it was built elsewhere
		out, code = dst, wire.CodeError
	}
	out[wire.HeaderSize] = byte(code)
	return len(out)
}

func (b *BMC) dispatch(side wire.Side, h *wire.Header, payload, dst []byte) ([]byte, wire.Code) {
	knownType := false
	for i := range rules {
		r := &rules[i]
		if r.kind != h.Type {
			continue
		}
		knownType = true
		if r.command != h.Command {
			continue
		}
		if r.sides&(1<<side) == 0 {
			if h.Type == wire.TypeOEM {
				return dst, wire.CodeWrongSide
			}
			return dst, wire.CodeUnsupported
		}
		if r.handle == nil {
			return getCommands(b, side, payload, dst)
		}
		return r.handle(b, side, payload, dst)
	}
	if !knownType {
		return dst, wire.CodeInvalidType
	}
	return dst, wire.CodeUnsupported
}

// badRequest is the code for a request that does not parse.
func badRequest(err error) wire.Code {
	if err == wire.ErrShort || err == wire.ErrTrailing {
		return wire.CodeInvalidLength
	}
	return wire.CodeInvalidData
}

// empty says whether a request without fields has none.
func empty(req []byte) wire.Code {
	if len(req) != 0 {
		return wire.CodeInvalidLength
	}
	return wire.CodeSuccess
}

func refused(dst []byte, f *wire.Failure) ([]byte, wire.Code) {
	return wire.AppendFailure(dst, f), wire.CodeRefused
}

// powered says whether the unit can be the one that speaks in-band.
func (b *BMC) powered() bool { return b.state == wire.StateRunning || b.state == wire.StateDraining }

// getBootConfig hands out the boot configuration, which holds the deploy key. It is meant for stage 1: once a unit says that
// it hands over, nothing that runs on it reads the configuration until the rail is cycled or the unit is reset.
func getBootConfig(b *BMC, side wire.Side, req, dst []byte) ([]byte, wire.Code) {
	offset, err := wire.ParseOffset(req)
	if err != nil {
		return dst, badRequest(err)
	}
	if side == wire.SideInBand && b.handedOver {
		return dst, wire.CodeBusy
	}
	if offset > b.bootLen {
		return dst, wire.CodeInvalidData
	}
	var part [wire.MaxBootConfigPart]byte
	n := min(b.bootLen-offset, uint32(len(part)))
	if b.bootAt == 0 {
		copy(part[:n], b.cfg.BootConfig[offset:])
	} else if err := b.ports.Flash.ReadAt(part[:n], b.bootAt+offset); err != nil {
		return dst, wire.CodeError
	}
	return wire.AppendBootConfigPart(dst, b.bootLen, part[:n]), wire.CodeSuccess
}

func reportStage(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	s, f, err := wire.ParseReportStage(req)
	switch {
	case err != nil:
		return dst, badRequest(err)
	case s < wire.StageBootstrap:
		return dst, wire.CodeInvalidData // those are the BMC's to see
	case !b.powered():
		return dst, wire.CodeNotReady
	}
	b.stageReport(s, &f)
	return dst, wire.CodeSuccess
}

func extendMeasurement(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	register, digest, label, err := wire.ParseExtendMeasurement(req)
	switch {
	case err != nil:
		return dst, badRequest(err)
	case !b.powered():
		return dst, wire.CodeNotReady
	case !b.assert(register, &digest, string(label)):
		return dst, wire.CodeInvalidData
	}
	return dst, wire.CodeSuccess
}

func setKeyRegister(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	hash, err := wire.ParseDigest(req)
	switch {
	case err != nil:
		return dst, badRequest(err)
	case !b.powered():
		return dst, wire.CodeNotReady
	}
	b.setKey(&hash)
	return dst, wire.CodeSuccess
}

func getFloors(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	if code := empty(req); code != wire.CodeSuccess {
		return dst, code
	}
	f := wire.Floors(b.floors)
	return wire.AppendFloors(dst, &f, &b.cfg.RackID), wire.CodeSuccess
}

func raiseFloors(b *BMC, side wire.Side, req, dst []byte) ([]byte, wire.Code) {
	signed, err := wire.ParseBytes(req, wire.MaxSignedFloors)
	if err != nil {
		return dst, badRequest(err)
	}
	if side == wire.SideInBand && !b.effort.take(b.now, verifyCost) {
		return dst, wire.CodeBusy
	}
	if f := b.raise(signed); !f.IsZero() {
		return refused(dst, &f)
	}
	f := wire.Floors(b.floors)
	return wire.AppendFloors(dst, &f, &b.cfg.RackID), wire.CodeSuccess
}

func getEvidence(b *BMC, side wire.Side, req, dst []byte) ([]byte, wire.Code) {
	nonce, err := wire.ParseDigest(req)
	if err != nil {
		return dst, badRequest(err)
	}
	if side == wire.SideInBand && !b.effort.take(b.now, signCost) {
		return dst, wire.CodeBusy
	}
	var buf [trust.MaxSignedEvidence]byte
	e, err := b.evidence(buf[:0], &nonce)
	if err != nil {
		return dst, wire.CodeError
	}
	return wire.AppendBytes(dst, e), wire.CodeSuccess
}

// UnitState returns what GetUnitState answers.
func (b *BMC) UnitState() wire.UnitState {
	s := wire.UnitState{
		Slot: b.cfg.Slot, State: b.state, Stage: b.stage, BootSlot: b.bootSlot, Power: b.desired.power,
		Rail: b.closed && (b.state == wire.StateRunning || b.state == wire.StateDraining), LED: b.desired.led,
		BootMode: b.desired.bootMode, BootOverride: wire.SlotNone,
		DesiredGeneration: b.desired.generation, ObservedGeneration: b.desired.observed,
		BootCount: b.bootCount, Resets: b.resets, MilliCelsius: b.heat, Millijoules: b.energy,
		GrantMilliwatts: b.grant, CapMilliwatts: b.desired.cap,
		LastEvent: b.eventSeq, ConsoleEnd: b.console.end, Floors: wire.Floors(b.floors), Failure: b.failure,
	}
	if b.desired.bootMode != wire.BootDisabled {
		s.BootOverride = b.desired.bootSlot
	}
	if !b.powerLost {
		s.Milliwatts, s.Millivolts, s.Milliamps = b.power.Milliwatts, b.power.Millivolts, b.power.Milliamps
	}
	if s.Rail {
		s.RailMillis = b.now - b.railAt
	}
	switch b.state {
	case wire.StatePowering, wire.StateRunning, wire.StateDraining:
		s.RequestMilliwatts = b.request()
	}
	s.Flags = b.flags()
	return s
}

func (b *BMC) flags() (f uint16) {
	set := func(when bool, flag uint16) {
		if when {
			f |= flag
		}
	}
	limited := b.grant != 0 && b.grant < b.request()
	set(b.boot.void, wire.FlagEvidenceVoid)
	set(b.boot.fallback && b.bootSlot != wire.SlotNone, wire.FlagFallbackSlot)
	set(b.reported && b.report.Stale, wire.FlagStale)
	set(b.powerLost || b.heatLost, wire.FlagSensorLost)
	set(limited || b.overCap != 0, wire.FlagCapped)
	set(b.clockSet, wire.FlagClockSet)
	set(b.reportStale, wire.FlagReportStale)
	set(b.waiting(), wire.FlagWaitGrant)
	set(b.worn, wire.FlagStoreWorn)
	return f
}

func getUnitState(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	if code := empty(req); code != wire.CodeSuccess {
		return dst, code
	}
	s := b.UnitState()
	return wire.AppendUnitState(dst, &s), wire.CodeSuccess
}

func setDesired(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	d, err := wire.ParseDesired(req)
	if err != nil {
		return dst, badRequest(err)
	}
	if d.Generation > b.desired.generation && d.Generation-b.desired.generation > wire.MaxGenerationStep {
		return dst, wire.CodeInvalidData
	}
	b.want(&d)
	return wire.AppendGenerations(dst, b.desired.generation, b.desired.observed), wire.CodeSuccess
}

func readEvents(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	after, err := wire.ParseReadEvents(req)
	if err != nil {
		return dst, badRequest(err)
	}
	return b.readEvents(dst, after, min(cap(dst), wire.MaxMessage-1)), wire.CodeSuccess
}

func readConsole(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	offset, err := wire.ParseReadConsole(req)
	if err != nil {
		return dst, badRequest(err)
	}
	var buf [wire.MaxConsoleRead]byte
	data, from := b.console.read(buf[:0], offset, len(buf))
	return wire.AppendConsolePart(dst, &wire.ConsolePart{From: from, End: b.console.end, Data: data}), wire.CodeSuccess
}

func writeConsole(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	data, err := wire.ParseBytes(req, wire.MaxConsoleWrite)
	if err != nil {
		return dst, badRequest(err)
	}
	return wire.AppendConsoleTaken(dst, uint16(b.input.write(data))), wire.CodeSuccess
}

func slotErase(b *BMC, side wire.Side, req, dst []byte) ([]byte, wire.Code) {
	size, err := wire.ParseSlotErase(req)
	if err != nil {
		return dst, badRequest(err)
	}
	return b.answerStaging(dst, b.stageErase(side, size))
}

func slotWrite(b *BMC, side wire.Side, req, dst []byte) ([]byte, wire.Code) {
	offset, data, err := wire.ParseSlotWrite(req)
	if err != nil {
		return dst, badRequest(err)
	}
	return b.answerStaging(dst, b.stageWrite(side, offset, data))
}

func slotCommit(b *BMC, side wire.Side, req, dst []byte) ([]byte, wire.Code) {
	total, offset, part, err := wire.ParseSlotCommit(req)
	if err != nil {
		return dst, badRequest(err)
	}
	return b.answerStaging(dst, b.stageCommit(side, total, offset, part))
}

func (b *BMC) answerStaging(dst []byte, code wire.Code) ([]byte, wire.Code) {
	switch code {
	case wire.CodeSuccess:
		p := b.progress()
		return wire.AppendSlotProgress(dst, &p), code
	case wire.CodeRefused:
		return refused(dst, &b.staging.failure)
	}
	return dst, code
}

func grantPower(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	mW, err := wire.ParseGrant(req)
	if err != nil {
		return dst, badRequest(err)
	}
	b.granted(mW)
	return dst, wire.CodeSuccess
}

func heartbeat(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	r, err := wire.ParseReport(req)
	switch {
	case err != nil:
		return dst, badRequest(err)
	case !b.powered():
		return dst, wire.CodeNotReady
	}
	return wire.AppendHostRequest(dst, b.heartbeat(&r)), wire.CodeSuccess
}

func getReport(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	if code := empty(req); code != wire.CodeSuccess {
		return dst, code
	}
	age := wire.AgeNever
	if b.reported {
		age = uint32(min(b.now-b.reportAt, uint64(wire.AgeNever-1)))
	}
	return wire.AppendAgedReport(dst, age, &b.report), wire.CodeSuccess
}

func setInventory(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	v, err := wire.ParseInventory(req)
	switch {
	case err != nil:
		return dst, badRequest(err)
	case !b.powered():
		return dst, wire.CodeNotReady
	}
	b.inventory = v
	return dst, wire.CodeSuccess
}

func getInventory(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	if code := empty(req); code != wire.CodeSuccess {
		return dst, code
	}
	return wire.AppendInventory(dst, &b.inventory), wire.CodeSuccess
}

func getFirmware(_ *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	if code := empty(req); code != wire.CodeSuccess {
		return dst, code
	}
	return wire.AppendFirmware(dst, wire.MakeText32(Version)), wire.CodeSuccess
}

func restart(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	if code := empty(req); code != wire.CodeSuccess {
		return dst, code
	}
	b.restart = true
	return dst, wire.CodeSuccess
}

// maxTime is the year 9999, in Unix milliseconds.
const maxTime = 253_402_300_800_000

func setTime(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	millis, err := wire.ParseTime(req)
	if err != nil {
		return dst, badRequest(err)
	}
	if millis == 0 || millis > maxTime {
		return dst, wire.CodeInvalidData
	}
	b.clock, b.clockSet = int64(millis)-int64(b.now), true
	return dst, wire.CodeSuccess
}

func getTime(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	if code := empty(req); code != wire.CodeSuccess {
		return dst, code
	}
	millis := uint64(0)
	if b.clockSet {
		millis = b.time()
	}
	return wire.AppendTime(dst, millis), wire.CodeSuccess
}

func reset(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	kind, err := wire.ParseReset(req)
	if err != nil {
		return dst, badRequest(err)
	}
	return dst, b.perform(kind)
}

func getSlots(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	if code := empty(req); code != wire.CodeSuccess {
		return dst, code
	}
	slots := [2]wire.SlotInfo{b.slots[wire.SlotA].info, b.slots[wire.SlotB].info}
	return wire.AppendSlots(dst, &slots), wire.CodeSuccess
}

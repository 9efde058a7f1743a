package wire

// Vendor-defined commands, PLDM type TypeOEM. docs/wire.md describes each of them
// field by field. In brackets: the sides from which a BMC accepts it.
const (
	CmdGetBootConfig     uint8 = 0x01 // [in-band, debug] part of the boot configuration
	CmdReportStage       uint8 = 0x02 // [in-band] the unit's stage and failure
	CmdExtendMeasurement uint8 = 0x03 // [in-band] extend a unit-asserted register
	CmdSetKeyRegister    uint8 = 0x04 // [in-band] hash of the unit's public key
	CmdGetFloors         uint8 = 0x05 // [all] floors and rack ID
	CmdRaiseFloors       uint8 = 0x06 // [all] signed floor statement
	CmdGetEvidence       uint8 = 0x07 // [all] registers signed over a nonce
	CmdGetUnitState      uint8 = 0x08 // [all]
	CmdSetDesired        uint8 = 0x09 // [bus, debug]
	CmdReadEvents        uint8 = 0x0A // [all] RMC too
	CmdReadConsole       uint8 = 0x0B // [bus, debug]
	CmdWriteConsole      uint8 = 0x0C // [bus, debug]
	CmdSlotErase         uint8 = 0x0D // [all] begin to write the idle slot
	CmdSlotWrite         uint8 = 0x0E // [all]
	CmdSlotCommit        uint8 = 0x0F // [all] signed manifest, in parts
	CmdGrantPower        uint8 = 0x10 // [bus]
	CmdHeartbeat         uint8 = 0x11 // [in-band] Report
	CmdGetReport         uint8 = 0x12 // [bus, debug] the last Report and its age
	CmdSetTime           uint8 = 0x13 // [bus, debug] RMC too
	CmdGetTime           uint8 = 0x14 // [all] RMC too
	CmdReset             uint8 = 0x15 // [bus, debug]
	CmdGetSlots          uint8 = 0x16 // [all]
	CmdSetInventory      uint8 = 0x17 // [in-band] Inventory
	CmdGetInventory      uint8 = 0x18 // [bus, debug] the last Inventory
	CmdGetFirmware       uint8 = 0x19 // [all] RMC too: version of the controller's own firmware
	CmdRestart           uint8 = 0x1A // [bus, debug] RMC too: the controller starts anew

	CmdGetRackState uint8 = 0x20 // RMC only
	CmdSetPolicies  uint8 = 0x21 // RMC only
	CmdSetLED       uint8 = 0x22 // RMC only
	CmdGetPolicies  uint8 = 0x23 // RMC only
)

// Limits of the vendor-defined messages, in bytes.
const (
	MaxBootConfigPart = 1024
	MaxBootConfig     = 16 << 10
	MaxSignedFloors   = 1024
	MaxEvidence       = 3 << 10
	MaxConsoleRead    = 1024
	MaxConsoleWrite   = 256
	MaxSlotWrite      = 2048
	MaxManifestPart   = 2048
	MaxLabel          = 48
)

// AppendFailure appends a failure: three texts, each with a length byte.
func AppendFailure(dst []byte, f *Failure) []byte {
	dst = appendText(dst, f.Reason.Bytes())
	dst = appendText(dst, f.Expected.Bytes())
	return appendText(dst, f.Seen.Bytes())
}

func (c *cursor) failure(f *Failure) {
	f.Reason.set(c.text(len(f.Reason.b)))
	f.Expected.set(c.text(len(f.Expected.b)))
	f.Seen.set(c.text(len(f.Seen.b)))
}

// ParseFailure reads a failure, as a response with CodeRefused carries it.
func ParseFailure(b []byte) (f Failure, err error) {
	c := cursor{b: b}
	c.failure(&f)
	return f, c.done()
}

// AppendOffset appends the request of GetBootConfig: where to read on.
func AppendOffset(dst []byte, offset uint32) []byte { return le.AppendUint32(dst, offset) }

// ParseOffset reads the request of GetBootConfig.
func ParseOffset(b []byte) (offset uint32, err error) {
	c := cursor{b: b}
	offset = c.u32()
	return offset, c.done()
}

// AppendBootConfigPart appends the response of GetBootConfig: the size of the whole, and a part.
func AppendBootConfigPart(dst []byte, total uint32, part []byte) []byte {
	return appendData(le.AppendUint32(dst, total), part)
}

// ParseBootConfigPart reads the response of GetBootConfig. The part is a view of b.
func ParseBootConfigPart(b []byte) (total uint32, part []byte, err error) {
	c := cursor{b: b}
	total = c.u32()
	part = c.data(MaxBootConfigPart)
	if total > MaxBootConfig {
		c.bad()
	}
	return total, part, c.done()
}

// AppendReportStage appends the request of ReportStage.
func AppendReportStage(dst []byte, s Stage, f *Failure) []byte {
	return AppendFailure(append(dst, byte(s)), f)
}

// ParseReportStage reads the request of ReportStage.
func ParseReportStage(b []byte) (s Stage, f Failure, err error) {
	c := cursor{b: b}
	s = Stage(c.max(uint8(numStages) - 1))
	c.failure(&f)
	return s, f, c.done()
}

// AppendExtendMeasurement appends the request of ExtendMeasurement.
func AppendExtendMeasurement(dst []byte, register uint8, digest *[32]byte, label []byte) []byte {
	dst = append(append(dst, register), digest[:]...)
	return appendText(dst, label[:min(len(label), MaxLabel)])
}

// ParseExtendMeasurement reads the request of ExtendMeasurement. The label is a view of b, and no text before it went
// through MakeText64.
func ParseExtendMeasurement(b []byte) (register uint8, digest [32]byte, label []byte, err error) {
	c := cursor{b: b}
	register = c.u8()
	c.copy(digest[:])
	label = c.text(MaxLabel)
	return register, digest, label, c.done()
}

// AppendDigest appends 32 bytes: the key hash of SetKeyRegister, the nonce of GetEvidence.
func AppendDigest(dst []byte, digest *[32]byte) []byte { return append(dst, digest[:]...) }

// ParseDigest reads 32 bytes.
func ParseDigest(b []byte) (digest [32]byte, err error) {
	c := cursor{b: b}
	c.copy(digest[:])
	return digest, c.done()
}

func appendFloors(dst []byte, f *Floors) []byte {
	dst = le.AppendUint64(dst, f.Sequence)
	dst = le.AppendUint32(dst, f.RootVersion)
	dst = le.AppendUint32(dst, f.BootSecurity)
	dst = append(dst, f.Tree[:]...)
	return append(dst, f.Commit[:]...)
}

func (c *cursor) floors(f *Floors) {
	f.Sequence = c.u64()
	f.RootVersion = c.u32()
	f.BootSecurity = c.u32()
	c.copy(f.Tree[:])
	c.copy(f.Commit[:])
}

// AppendFloors appends the response of GetFloors and RaiseFloors.
func AppendFloors(dst []byte, f *Floors, rack *[16]byte) []byte {
	return append(appendFloors(dst, f), rack[:]...)
}

// ParseFloors reads the response of GetFloors and RaiseFloors.
func ParseFloors(b []byte) (f Floors, rack [16]byte, err error) {
	c := cursor{b: b}
	c.floors(&f)
	c.copy(rack[:])
	return f, rack, c.done()
}

// AppendBytes appends bytes with a 16-bit length: the statement of RaiseFloors, the
// evidence of GetEvidence, the data of WriteConsole.
func AppendBytes(dst, data []byte) []byte { return appendData(dst, data) }

// ParseBytes reads bytes with a 16-bit length that must not exceed limit. The result is a view of b.
func ParseBytes(b []byte, limit int) (data []byte, err error) {
	c := cursor{b: b}
	data = c.data(limit)
	return data, c.done()
}

// AppendUnitState appends the response of GetUnitState.
func AppendUnitState(dst []byte, s *UnitState) []byte {
	dst = append(dst, s.Slot, byte(s.State), byte(s.Stage), s.BootSlot, byte(s.Power))
	dst = appendBool(dst, s.Rail)
	dst = appendBool(dst, s.LED)
	dst = append(dst, byte(s.BootMode), s.BootOverride)
	dst = le.AppendUint16(dst, s.Flags)
	dst = le.AppendUint32(dst, s.DesiredGeneration)
	dst = le.AppendUint32(dst, s.ObservedGeneration)
	dst = le.AppendUint32(dst, s.BootCount)
	dst = le.AppendUint32(dst, s.Resets)
	dst = le.AppendUint32(dst, s.Milliwatts)
	dst = le.AppendUint32(dst, s.Millivolts)
	dst = le.AppendUint32(dst, s.Milliamps)
	dst = le.AppendUint32(dst, uint32(s.MilliCelsius))
	dst = le.AppendUint64(dst, s.Millijoules)
	dst = le.AppendUint64(dst, s.RailMillis)
	dst = le.AppendUint32(dst, s.GrantMilliwatts)
	dst = le.AppendUint32(dst, s.RequestMilliwatts)
	dst = le.AppendUint32(dst, s.CapMilliwatts)
	dst = le.AppendUint32(dst, s.LastEvent)
	dst = le.AppendUint64(dst, s.ConsoleEnd)
	dst = appendFloors(dst, &s.Floors)
	return AppendFailure(dst, &s.Failure)
}

// ParseUnitState reads the response of GetUnitState.
func ParseUnitState(b []byte) (s UnitState, err error) {
	c := cursor{b: b}
	s.Slot = c.slot()
	s.State = State(c.max(uint8(numStates) - 1))
	s.Stage = Stage(c.max(uint8(numStages) - 1))
	s.BootSlot = c.bootSlot()
	s.Power = Power(c.max(uint8(numPowers) - 1))
	s.Rail = c.boolean()
	s.LED = c.boolean()
	s.BootMode = BootMode(c.max(uint8(numBootModes) - 1))
	s.BootOverride = c.bootSlot()
	s.Flags = c.u16()
	s.DesiredGeneration = c.u32()
	s.ObservedGeneration = c.u32()
	s.BootCount = c.u32()
	s.Resets = c.u32()
	s.Milliwatts = c.u32()
	s.Millivolts = c.u32()
	s.Milliamps = c.u32()
	s.MilliCelsius = int32(c.u32())
	s.Millijoules = c.u64()
	s.RailMillis = c.u64()
	s.GrantMilliwatts = c.u32()
	s.RequestMilliwatts = c.u32()
	s.CapMilliwatts = c.u32()
	s.LastEvent = c.u32()
	s.ConsoleEnd = c.u64()
	c.floors(&s.Floors)
	c.failure(&s.Failure)
	return s, c.done()
}

// slot reads the number of a slot in the rack.
func (c *cursor) slot() uint8 {
	v := c.u8()
	if c.err == nil && (v < 1 || v > MaxSlots) {
		c.bad()
	}
	return v
}

// bootSlot reads SlotA, SlotB or SlotNone.
func (c *cursor) bootSlot() uint8 {
	v := c.u8()
	if v > SlotB && v != SlotNone {
		c.bad()
	}
	return v
}

// AppendDesired appends the request of SetDesired.
func AppendDesired(dst []byte, d *Desired) []byte {
	dst = le.AppendUint32(dst, d.Generation)
	dst = append(dst, d.Mask, byte(d.Power))
	dst = appendBool(dst, d.LED)
	dst = le.AppendUint32(dst, d.CapMilliwatts)
	return append(dst, byte(d.BootMode), d.BootSlot)
}

// ParseDesired reads the request of SetDesired. A boot override needs a slot, and only then there is one.
func ParseDesired(b []byte) (d Desired, err error) {
	c := cursor{b: b}
	d.Generation = c.u32()
	d.Mask = c.max(desiredAll)
	d.Power = Power(c.max(uint8(numPowers) - 1))
	d.LED = c.boolean()
	d.CapMilliwatts = c.u32()
	d.BootMode = BootMode(c.max(uint8(numBootModes) - 1))
	d.BootSlot = c.bootSlot()
	if d.Mask&DesiredBoot != 0 && (d.BootMode == BootDisabled) != (d.BootSlot == SlotNone) {
		c.bad()
	}
	return d, c.done()
}

// AppendGenerations appends the response of SetDesired and SetPolicies: the newest
// accepted generation and the newest one converged to.
func AppendGenerations(dst []byte, desired, observed uint32) []byte {
	return le.AppendUint32(le.AppendUint32(dst, desired), observed)
}

// ParseGenerations reads the response of SetDesired and SetPolicies.
func ParseGenerations(b []byte) (desired, observed uint32, err error) {
	c := cursor{b: b}
	desired, observed = c.u32(), c.u32()
	return desired, observed, c.done()
}

// AppendReadConsole appends the request of ReadConsole: the offset of the first byte wanted.
func AppendReadConsole(dst []byte, offset uint64) []byte { return le.AppendUint64(dst, offset) }

// ParseReadConsole reads the request of ReadConsole.
func ParseReadConsole(b []byte) (offset uint64, err error) {
	c := cursor{b: b}
	offset = c.u64()
	return offset, c.done()
}

// ConsolePart is the response of ReadConsole. Data begins at From, which is beyond
// the offset asked for when the scroll-back no longer holds that; the console's
// output so far ends at End. The next offset to ask for is From+len(Data).
type ConsolePart struct {
	From, End uint64
	Data      []byte // at most MaxConsoleRead; a view of the message
}

// AppendConsolePart appends the response of ReadConsole.
func AppendConsolePart(dst []byte, p *ConsolePart) []byte {
	return appendData(le.AppendUint64(le.AppendUint64(dst, p.From), p.End), p.Data)
}

// ParseConsolePart reads the response of ReadConsole.
func ParseConsolePart(b []byte) (p ConsolePart, err error) {
	c := cursor{b: b}
	p.From, p.End = c.u64(), c.u64()
	p.Data = c.data(MaxConsoleRead)
	if c.err == nil && (p.End < p.From || p.End-p.From < uint64(len(p.Data))) {
		c.bad()
	}
	return p, c.done()
}

// AppendConsoleTaken appends the response of WriteConsole: how many bytes were taken.
func AppendConsoleTaken(dst []byte, n uint16) []byte { return le.AppendUint16(dst, n) }

// ParseConsoleTaken reads the response of WriteConsole.
func ParseConsoleTaken(b []byte) (n uint16, err error) {
	c := cursor{b: b}
	n = c.u16()
	return n, c.done()
}

// AppendSlotErase appends the request of SlotErase: the size of the image to come.
func AppendSlotErase(dst []byte, size uint32) []byte { return le.AppendUint32(dst, size) }

// ParseSlotErase reads the request of SlotErase.
func ParseSlotErase(b []byte) (size uint32, err error) { return ParseOffset(b) }

// AppendSlotWrite appends the request of SlotWrite: at most MaxSlotWrite bytes of image at an offset.
func AppendSlotWrite(dst []byte, offset uint32, data []byte) []byte {
	return appendData(le.AppendUint32(dst, offset), data)
}

// ParseSlotWrite reads the request of SlotWrite. The data is a view of b.
func ParseSlotWrite(b []byte) (offset uint32, data []byte, err error) {
	c := cursor{b: b}
	offset = c.u32()
	data = c.data(MaxSlotWrite)
	return offset, data, c.done()
}

// AppendSlotCommit appends the request of SlotCommit: a part of the signed slot
// manifest. The part that reaches total closes the slot and has it verified.
func AppendSlotCommit(dst []byte, total, offset uint32, part []byte) []byte {
	return appendData(le.AppendUint32(le.AppendUint32(dst, total), offset), part)
}

// ParseSlotCommit reads the request of SlotCommit. The part is a view of b and lies within total.
func ParseSlotCommit(b []byte) (total, offset uint32, part []byte, err error) {
	c := cursor{b: b}
	total, offset = c.u32(), c.u32()
	part = c.data(MaxManifestPart)
	if uint64(offset)+uint64(len(part)) > uint64(total) {
		c.bad()
	}
	return total, offset, part, c.done()
}

// AppendSlotProgress appends the response of the commands that write a slot.
func AppendSlotProgress(dst []byte, w *SlotProgress) []byte {
	dst = append(dst, w.Slot, byte(w.State))
	dst = le.AppendUint32(dst, w.Capacity)
	dst = le.AppendUint32(dst, w.Next)
	return AppendFailure(dst, &w.Failure)
}

// ParseSlotProgress reads the response of the commands that write a slot.
func ParseSlotProgress(b []byte) (w SlotProgress, err error) {
	c := cursor{b: b}
	w.Slot = c.max(SlotB)
	w.State = SlotState(c.max(uint8(numSlotStates) - 1))
	w.Capacity = c.u32()
	w.Next = c.u32()
	c.failure(&w.Failure)
	return w, c.done()
}

// AppendGrant appends the request of GrantPower, in milliwatts; 0 withdraws.
func AppendGrant(dst []byte, milliwatts uint32) []byte { return le.AppendUint32(dst, milliwatts) }

// ParseGrant reads the request of GrantPower.
func ParseGrant(b []byte) (milliwatts uint32, err error) { return ParseOffset(b) }

// AppendReport appends the request of Heartbeat.
func AppendReport(dst []byte, r *Report) []byte {
	dst = append(dst, r.Commit[:]...)
	dst = appendText(dst, r.Release.Bytes())
	dst = le.AppendUint32(dst, r.UptimeSeconds)
	dst = le.AppendUint16(dst, r.CPUPermille)
	dst = le.AppendUint32(dst, r.MemoryUsedKiB)
	dst = le.AppendUint32(dst, r.MemoryTotalKiB)
	dst = appendBool(dst, r.Stale)
	return append(dst, r.Address[:]...)
}

func (c *cursor) report(r *Report) {
	c.copy(r.Commit[:])
	r.Release.set(c.text(len(r.Release.b)))
	r.UptimeSeconds = c.u32()
	r.CPUPermille = c.u16()
	if r.CPUPermille > 1000 {
		c.bad()
	}
	r.MemoryUsedKiB = c.u32()
	r.MemoryTotalKiB = c.u32()
	r.Stale = c.boolean()
	c.copy(r.Address[:])
}

// ParseReport reads the request of Heartbeat.
func ParseReport(b []byte) (r Report, err error) {
	c := cursor{b: b}
	c.report(&r)
	return r, c.done()
}

// AppendHostRequest appends the response of Heartbeat.
func AppendHostRequest(dst []byte, r HostRequest) []byte { return append(dst, byte(r)) }

// ParseHostRequest reads the response of Heartbeat.
func ParseHostRequest(b []byte) (r HostRequest, err error) {
	c := cursor{b: b}
	r = HostRequest(c.max(uint8(numHostRequests) - 1))
	return r, c.done()
}

// AppendAgedReport appends the response of GetReport: the age of the last report
// in milliseconds (AgeNever: there is none in this boot), and the report.
func AppendAgedReport(dst []byte, age uint32, r *Report) []byte {
	return AppendReport(le.AppendUint32(dst, age), r)
}

// ParseAgedReport reads the response of GetReport.
func ParseAgedReport(b []byte) (age uint32, r Report, err error) {
	c := cursor{b: b}
	age = c.u32()
	c.report(&r)
	return age, r, c.done()
}

// AppendTime appends Unix time in milliseconds: SetTime's request, GetTime's
// response. 0 says that the clock was never set.
func AppendTime(dst []byte, millis uint64) []byte { return le.AppendUint64(dst, millis) }

// ParseTime reads Unix time in milliseconds.
func ParseTime(b []byte) (millis uint64, err error) { return ParseReadConsole(b) }

// AppendReset appends the request of Reset.
func AppendReset(dst []byte, k ResetKind) []byte { return append(dst, byte(k)) }

// ParseReset reads the request of Reset.
func ParseReset(b []byte) (k ResetKind, err error) {
	c := cursor{b: b}
	k = ResetKind(c.max(uint8(numResetKinds) - 1))
	return k, c.done()
}

// AppendSlots appends the response of GetSlots.
func AppendSlots(dst []byte, slots *[2]SlotInfo) []byte {
	for i := range slots {
		s := &slots[i]
		dst = append(dst, byte(s.State))
		dst = le.AppendUint32(dst, s.SecurityVersion)
		dst = appendText(dst, s.Version.Bytes())
		dst = append(dst, s.Digest[:]...)
		dst = AppendFailure(dst, &s.Failure)
	}
	return dst
}

// ParseSlots reads the response of GetSlots.
func ParseSlots(b []byte) (slots [2]SlotInfo, err error) {
	c := cursor{b: b}
	for i := range slots {
		s := &slots[i]
		s.State = SlotState(c.max(uint8(numSlotStates) - 1))
		s.SecurityVersion = c.u32()
		s.Version.set(c.text(len(s.Version.b)))
		c.copy(s.Digest[:])
		c.failure(&s.Failure)
	}
	return slots, c.done()
}

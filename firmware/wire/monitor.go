package wire

// Commands of monitoring and control (DSP0248 1.2, table 104 "Command codes").
const (
	CmdGetSensorReading   uint8 = 0x11
	CmdGetStateSensor     uint8 = 0x21
	CmdSetNumericEffecter uint8 = 0x31
	CmdGetNumericEffecter uint8 = 0x32
	CmdSetStateEffecter   uint8 = 0x39
	CmdGetStateEffecter   uint8 = 0x3A
	CmdGetPDRInfo         uint8 = 0x50
	CmdGetPDR             uint8 = 0x51
)

// Command-specific completion codes of monitoring and control (DSP0248, clauses 18 to 26).
const (
	CodeInvalidSensor      Code = 0x80
	CodeInvalidEffecter    Code = 0x80
	CodeInvalidState       Code = 0x81 // SetStateEffecterStates: INVALID_STATE_VALUE
	CodeInvalidHandle      Code = 0x80 // GetPDR: INVALID_DATA_TRANSFER_HANDLE
	CodeInvalidTransfer    Code = 0x81 // GetPDR: INVALID_TRANSFER_OPERATION_FLAG
	CodeInvalidRecord      Code = 0x82 // GetPDR: INVALID_RECORD_HANDLE
	CodeUnsupportedEffects Code = 0x82 // SetStateEffecterStates: UNSUPPORTED_EFFECTERSTATE
)

// Operational states of sensors (DSP0248, 18.2) and effecters (22.2).
const (
	SensorEnabled       uint8 = 0
	SensorDisabled      uint8 = 1
	SensorUnavailable   uint8 = 2
	SensorFailed        uint8 = 4
	EffecterPending     uint8 = 0 // enabled, update pending
	EffecterEnabled     uint8 = 1 // enabled, no update pending
	EffecterDisabled    uint8 = 2
	EffecterUnavailable uint8 = 3
)

// Present states of a numeric sensor (DSP0248, 18.2).
const (
	ReadingUnknown  uint8 = 0
	ReadingNormal   uint8 = 1
	ReadingWarning  uint8 = 2
	ReadingCritical uint8 = 3
)

// Data sizes of readings and effecters (DSP0248, tables 30 and 46).
const (
	SizeUint8 uint8 = iota
	SizeSint8
	SizeUint16
	SizeSint16
	SizeUint32
	SizeSint32
)

// State sets and their values (DSP0249 1.1).
const (
	StateSetHealth       uint16 = 1   // table 1
	StateSetPresence     uint16 = 13  // table 1
	StateSetIdentify     uint16 = 17  // table 1
	StateSetThermalTrip  uint16 = 21  // table 1
	StateSetBootProgress uint16 = 196 // table 7
	StateSetSystemPower  uint16 = 260 // table 9

	HealthNormal   uint8 = 1
	HealthCritical uint8 = 3

	PresencePresent    uint8 = 1
	PresenceNotPresent uint8 = 2

	IdentifyUnasserted uint8 = 1
	IdentifyAsserted   uint8 = 2

	BootNotActive  uint8 = 1
	BootCompleted  uint8 = 2
	BootOSStart    uint8 = 20 // boot environment of the operating system
	BootStartingOS uint8 = 21
	BootBaseboard  uint8 = 22

	SystemPowerOn              uint8 = 1
	SystemPowerCycleHard       uint8 = 6
	SystemPowerCycleGraceful   uint8 = 7 // power cycle, off-soft graceful
	SystemPowerOffSoftGraceful uint8 = 9
	SystemPowerOffHard         uint8 = 10
	SystemPowerReset           uint8 = 11 // master bus reset
)

// Sensor and effecter IDs of a BMC: our own choice, also told by its PDRs.
const (
	SensorPower       uint16 = 1    // milliwatts, uint32
	SensorVoltage     uint16 = 2    // millivolts, uint32
	SensorCurrent     uint16 = 3    // milliamperes, uint32
	SensorTemperature uint16 = 4    // millidegrees Celsius, sint32
	SensorEnergy      uint16 = 5    // joules, uint32, wraps
	SensorPowerState  uint16 = 0x10 // state set StateSetSystemPower
	SensorBoot        uint16 = 0x11 // state set StateSetBootProgress
	SensorHealth      uint16 = 0x12 // state set StateSetHealth

	EffecterPower    uint16 = 1 // state set StateSetSystemPower
	EffecterIdentify uint16 = 2 // state set StateSetIdentify
	EffecterCap      uint16 = 3 // numeric, milliwatts, uint32
)

// Sensor IDs of an RMC. SensorPower, SensorVoltage, SensorEnergy and SensorTemperature
// (the inlet) are as on a BMC; fan n has SensorFan+n, slot n SensorPresence+n.
const (
	SensorFan      uint16 = 0x20 // revolutions per minute, uint16
	SensorPresence uint16 = 0x30 // state set StateSetPresence
)

// BootProgress returns the value of the standard state set for a stage.
func BootProgress(s Stage) uint8 {
	switch {
	case s == StageRunning:
		return BootCompleted
	case s == StagePowered, s == StageMedium:
		return BootBaseboard
	case s >= StageBootstrap && s <= StageArtifact:
		return BootOSStart
	case s == StageHandover, s == StageOS:
		return BootStartingOS
	}
	return BootNotActive
}

// Reading is the value of a numeric sensor.
type Reading struct {
	Size        uint8 // Size…
	Operational uint8 // Sensor…
	Present     uint8 // Reading…
	Value       int64
}

// AppendGetSensorReadingRequest appends the request for a numeric sensor's value.
func AppendGetSensorReadingRequest(dst []byte, sensor uint16) []byte {
	return append(le.AppendUint16(dst, sensor), 0) // no re-arming
}

// ParseGetSensorReadingRequest returns the sensor asked for.
func ParseGetSensorReadingRequest(b []byte) (sensor uint16, err error) {
	c := cursor{b: b}
	sensor = c.u16()
	c.boolean()
	return sensor, c.done()
}

// AppendReading appends the response of GetSensorReading.
func AppendReading(dst []byte, r Reading) []byte {
	dst = append(dst, r.Size, r.Operational, 0 /* no event generation */, r.Present, r.Present, r.Present)
	return appendSized(dst, r.Size, r.Value)
}

// ParseReading reads the response of GetSensorReading.
func ParseReading(b []byte) (r Reading, err error) {
	c := cursor{b: b}
	r.Size = c.max(SizeSint32)
	r.Operational = c.u8()
	c.u8()
	r.Present = c.u8()
	c.u8()
	c.u8()
	r.Value = c.sized(r.Size)
	return r, c.done()
}

func appendSized(dst []byte, size uint8, v int64) []byte {
	switch size {
	case SizeUint8, SizeSint8:
		return append(dst, byte(v))
	case SizeUint16, SizeSint16:
		return le.AppendUint16(dst, uint16(v))
	}
	return le.AppendUint32(dst, uint32(v))
}

func (c *cursor) sized(size uint8) int64 {
	switch size {
	case SizeUint8:
		return int64(c.u8())
	case SizeSint8:
		return int64(int8(c.u8()))
	case SizeUint16:
		return int64(c.u16())
	case SizeSint16:
		return int64(int16(c.u16()))
	case SizeUint32:
		return int64(c.u32())
	}
	return int64(int32(c.u32()))
}

// AppendGetStateSensorRequest appends the request for a state sensor.
func AppendGetStateSensorRequest(dst []byte, sensor uint16) []byte {
	return append(le.AppendUint16(dst, sensor), 0, 0)
}

// ParseGetStateSensorRequest returns the sensor asked for.
func ParseGetStateSensorRequest(b []byte) (sensor uint16, err error) {
	c := cursor{b: b}
	sensor = c.u16()
	c.u8()
	c.u8()
	return sensor, c.done()
}

// AppendStateReading appends the response of GetStateSensorReadings for a sensor of one state set.
func AppendStateReading(dst []byte, operational, state uint8) []byte {
	return append(dst, 1, operational, state, state, state)
}

// ParseStateReading reads the response of GetStateSensorReadings for a sensor of one state set.
func ParseStateReading(b []byte) (operational, state uint8, err error) {
	c := cursor{b: b}
	if c.u8() != 1 {
		c.bad()
	}
	operational, state = c.u8(), c.u8()
	c.u8()
	c.u8()
	return operational, state, c.done()
}

// AppendSetStateEffecter appends the request that sets an effecter of one state set.
func AppendSetStateEffecter(dst []byte, effecter uint16, state uint8) []byte {
	return append(le.AppendUint16(dst, effecter), 1, 1 /* requestSet */, state)
}

// ParseSetStateEffecter reads the request of SetStateEffecterStates. Set is false
// when the requester wants no change.
func ParseSetStateEffecter(b []byte) (effecter uint16, set bool, state uint8, err error) {
	c := cursor{b: b}
	effecter = c.u16()
	if c.u8() != 1 { // all our effecters have one state set
		c.bad()
	}
	set = c.boolean()
	state = c.u8()
	return effecter, set, state, c.done()
}

// AppendEffecterID appends the request of GetStateEffecterStates and GetNumericEffecterValue.
func AppendEffecterID(dst []byte, effecter uint16) []byte { return le.AppendUint16(dst, effecter) }

// ParseEffecterID reads the request of GetStateEffecterStates and GetNumericEffecterValue.
func ParseEffecterID(b []byte) (effecter uint16, err error) {
	c := cursor{b: b}
	effecter = c.u16()
	return effecter, c.done()
}

// AppendStateEffecter appends the response of GetStateEffecterStates for an effecter of one state set.
func AppendStateEffecter(dst []byte, operational, pending, present uint8) []byte {
	return append(dst, 1, operational, pending, present)
}

// ParseStateEffecter reads the response of GetStateEffecterStates.
func ParseStateEffecter(b []byte) (operational, pending, present uint8, err error) {
	c := cursor{b: b}
	if c.u8() != 1 {
		c.bad()
	}
	operational, pending, present = c.u8(), c.u8(), c.u8()
	return operational, pending, present, c.done()
}

// AppendSetNumericEffecter appends the request of SetNumericEffecterValue.
func AppendSetNumericEffecter(dst []byte, effecter uint16, size uint8, value int64) []byte {
	return appendSized(append(le.AppendUint16(dst, effecter), size), size, value)
}

// ParseSetNumericEffecter reads the request of SetNumericEffecterValue.
func ParseSetNumericEffecter(b []byte) (effecter uint16, size uint8, value int64, err error) {
	c := cursor{b: b}
	effecter = c.u16()
	size = c.max(SizeSint32)
	value = c.sized(size)
	return effecter, size, value, c.done()
}

// AppendNumericEffecter appends the response of GetNumericEffecterValue.
func AppendNumericEffecter(dst []byte, size, operational uint8, pending, present int64) []byte {
	return appendSized(appendSized(append(dst, size, operational), size, pending), size, present)
}

// ParseNumericEffecter reads the response of GetNumericEffecterValue.
func ParseNumericEffecter(b []byte) (size, operational uint8, pending, present int64, err error) {
	c := cursor{b: b}
	size = c.max(SizeSint32)
	operational = c.u8()
	pending, present = c.sized(size), c.sized(size)
	return size, operational, pending, present, c.done()
}

// PDRInfo is the response of GetPDRRepositoryInfo.
type PDRInfo struct {
	Records uint32
	Size    uint32 // of all records, in bytes
	Largest uint32
}

// AppendPDRInfo appends the response of GetPDRRepositoryInfo: the repository is
// available and never changes, so its times are zero.
func AppendPDRInfo(dst []byte, i PDRInfo) []byte {
	dst = append(dst, 0)
	var never [26]byte // two times of type timestamp104
	dst = append(dst, never[:]...)
	dst = le.AppendUint32(dst, i.Records)
	dst = le.AppendUint32(dst, i.Size)
	dst = le.AppendUint32(dst, i.Largest)
	return append(dst, 0) // no time-out: transfers have one part
}

// ParsePDRInfo reads the response of GetPDRRepositoryInfo.
func ParsePDRInfo(b []byte) (i PDRInfo, err error) {
	c := cursor{b: b}
	c.u8()
	c.take(26)
	i = PDRInfo{Records: c.u32(), Size: c.u32(), Largest: c.u32()}
	c.u8()
	return i, c.done()
}

// AppendGetPDR appends the request for a record; 0 is the first one.
func AppendGetPDR(dst []byte, record uint32) []byte {
	dst = le.AppendUint32(dst, record)
	dst = le.AppendUint32(dst, 0)
	dst = append(dst, TransferFirst)
	dst = le.AppendUint16(dst, 0xFFFF)
	return le.AppendUint16(dst, 0)
}

// ParseGetPDR reads the request of GetPDR: the record, the transfer flag and the
// room that the requester has for the record.
func ParseGetPDR(b []byte) (record uint32, flag uint8, room uint16, err error) {
	c := cursor{b: b}
	record = c.u32()
	c.u32()
	flag = c.u8()
	room = c.u16()
	c.u16()
	return record, flag, room, c.done()
}

// AppendGetPDRResponse appends a record, in one part, and the handle of the next one (0: none).
func AppendGetPDRResponse(dst []byte, next uint32, record []byte) []byte {
	dst = le.AppendUint32(dst, next)
	dst = le.AppendUint32(dst, 0)
	dst = append(dst, TransferStartAndEnd)
	return appendData(dst, record)
}

// ParseGetPDRResponse reads the response of GetPDR. The record is a view of b.
func ParseGetPDRResponse(b []byte) (next uint32, record []byte, err error) {
	c := cursor{b: b}
	next = c.u32()
	c.u32()
	if c.u8() != TransferStartAndEnd {
		c.bad()
	}
	record = c.data(MaxMessage)
	return next, record, c.done()
}

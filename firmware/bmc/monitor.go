package bmc

import (
	"github.com/racklet/racklet/firmware/wire"
)

// The standard types: PLDM base (DSP0240) and monitoring and control (DSP0248).

func getTID(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	if code := empty(req); code != wire.CodeSuccess {
		return dst, code
	}
	return wire.AppendTID(dst, uint8(wire.BMC(b.cfg.Slot))), wire.CodeSuccess
}

// versions lists our types.
var versions = [...]struct {
	kind    uint8
	version uint32
}{
	{wire.TypeBase, wire.VersionBase},
	{wire.TypeMonitor, wire.VersionMonitor},
	{wire.TypeFRU, wire.VersionFRU},
	{wire.TypeOEM, wire.VersionOEM},
}

func getVersion(_ *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	flag, kind, err := wire.ParseGetVersionRequest(req)
	switch {
	case err != nil:
		return dst, badRequest(err)
	case flag != wire.TransferFirst:
		return dst, wire.CodeBaseInvalidTransfer
	}
	for _, v := range versions {
		if v.kind == kind {
			return wire.AppendGetVersionResponse(dst, v.version), wire.CodeSuccess
		}
	}
	return dst, wire.CodeBaseUnknownType
}

func getTypes(_ *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	if code := empty(req); code != wire.CodeSuccess {
		return dst, code
	}
	var types wire.Bits
	for _, v := range versions {
		types.Set(v.kind)
	}
	return wire.AppendGetTypesResponse(dst, &types), wire.CodeSuccess
}

// getCommands tells each side what it may ask.
func getCommands(_ *BMC, side wire.Side, req, dst []byte) ([]byte, wire.Code) {
	kind, version, err := wire.ParseGetCommandsRequest(req)
	if err != nil {
		return dst, badRequest(err)
	}
	for _, v := range versions {
		if v.kind != kind {
			continue
		}
		if v.version != version {
			return dst, wire.CodeBaseUnknownVersion
		}
		var commands wire.Bits
		for i := range rules {
			if rules[i].kind == kind && rules[i].sides&(1<<side) != 0 {
				commands.Set(rules[i].command)
			}
		}
		return wire.AppendGetCommandsResponse(dst, &commands), wire.CodeSuccess
	}
	return dst, wire.CodeBaseUnknownType
}

// reading returns a numeric sensor.
func (b *BMC) reading(sensor uint16) (r wire.Reading, ok bool) {
	r = wire.Reading{Size: wire.SizeUint32, Operational: wire.SensorEnabled, Present: wire.ReadingNormal}
	lost := b.powerLost
	switch sensor {
	case wire.SensorPower:
		r.Value = int64(b.power.Milliwatts)
	case wire.SensorVoltage:
		r.Value = int64(b.power.Millivolts)
	case wire.SensorCurrent:
		r.Value = int64(b.power.Milliamps)
	case wire.SensorEnergy:
		r.Value = int64(uint32(b.energy / 1_000))
	case wire.SensorTemperature:
		r.Size, r.Value, lost = wire.SizeSint32, int64(b.heat), b.heatLost
		if b.hot {
			r.Present = wire.ReadingCritical
		}
	default:
		return r, false
	}
	if lost && sensor != wire.SensorEnergy {
		r.Operational, r.Present, r.Value = wire.SensorFailed, wire.ReadingUnknown, 0
	}
	return r, true
}

func getSensorReading(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	sensor, err := wire.ParseGetSensorReadingRequest(req)
	if err != nil {
		return dst, badRequest(err)
	}
	r, ok := b.reading(sensor)
	if !ok {
		return dst, wire.CodeInvalidSensor
	}
	return wire.AppendReading(dst, r), wire.CodeSuccess
}

func getStateSensor(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	sensor, err := wire.ParseGetStateSensorRequest(req)
	if err != nil {
		return dst, badRequest(err)
	}
	var state uint8
	switch sensor {
	case wire.SensorPowerState:
		state = b.systemPower()
	case wire.SensorBoot:
		state = wire.BootProgress(b.stage)
	case wire.SensorHealth:
		state = wire.HealthNormal
		if b.state == wire.StateFaulted || b.stage == wire.StageFailed {
			state = wire.HealthCritical
		}
	default:
		return dst, wire.CodeInvalidSensor
	}
	return wire.AppendStateReading(dst, wire.SensorEnabled, state), wire.CodeSuccess
}

func (b *BMC) systemPower() uint8 {
	if b.powered() {
		return wire.SystemPowerOn
	}
	return wire.SystemPowerOffHard
}

func (b *BMC) identify() uint8 {
	if b.desired.led {
		return wire.IdentifyAsserted
	}
	return wire.IdentifyUnasserted
}

// setStateEffecter carries out an order, or moves the LED. It has no generation: the next SetDesired overrides it.
func setStateEffecter(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	effecter, set, state, err := wire.ParseSetStateEffecter(req)
	if err != nil {
		return dst, badRequest(err)
	}
	switch effecter {
	case wire.EffecterIdentify:
		if state != wire.IdentifyAsserted && state != wire.IdentifyUnasserted {
			return dst, wire.CodeInvalidState
		}
		if on := state == wire.IdentifyAsserted; set && on != b.desired.led {
			b.desired.led = on
			b.keepDesired()
			b.setLED()
		}
		return dst, wire.CodeSuccess
	case wire.EffecterPower:
	default:
		return dst, wire.CodeInvalidEffecter
	}
	var kind wire.ResetKind
	switch state {
	case wire.SystemPowerOn:
		if set && b.desired.power != wire.PowerOn {
			if !b.desirePower(wire.PowerOn) {
				return dst, wire.CodeError
			}
			b.clearFault()
		}
		return dst, wire.CodeSuccess
	case wire.SystemPowerCycleHard:
		kind = wire.ResetCycle
	case wire.SystemPowerCycleGraceful:
		kind = wire.ResetGracefulCycle
	case wire.SystemPowerOffSoftGraceful:
		kind = wire.ResetGracefulOff
	case wire.SystemPowerOffHard:
		kind = wire.ResetForceOff
	case wire.SystemPowerReset:
		kind = wire.ResetForceRestart
	default:
		return dst, wire.CodeInvalidState
	}
	if !set {
		return dst, wire.CodeSuccess
	}
	return dst, b.perform(kind)
}

func getStateEffecter(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	effecter, err := wire.ParseEffecterID(req)
	if err != nil {
		return dst, badRequest(err)
	}
	switch effecter {
	case wire.EffecterIdentify:
		return wire.AppendStateEffecter(dst, wire.EffecterEnabled, b.identify(), b.identify()), wire.CodeSuccess
	case wire.EffecterPower:
		pending, op := b.systemPower(), wire.EffecterEnabled
		if b.powered() != (b.desired.power == wire.PowerOn) {
			op = wire.EffecterPending
			pending = wire.SystemPowerOn
			if b.desired.power == wire.PowerOff {
				pending = wire.SystemPowerOffSoftGraceful
			}
		}
		return wire.AppendStateEffecter(dst, op, pending, b.systemPower()), wire.CodeSuccess
	}
	return dst, wire.CodeInvalidEffecter
}

func setNumericEffecter(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	effecter, size, value, err := wire.ParseSetNumericEffecter(req)
	switch {
	case err != nil:
		return dst, badRequest(err)
	case effecter != wire.EffecterCap:
		return dst, wire.CodeInvalidEffecter
	case size != wire.SizeUint32:
		return dst, wire.CodeInvalidData
	}
	if cap := uint32(value); cap != b.desired.cap {
		b.desired.cap = cap
		b.keepDesired()
	}
	return dst, wire.CodeSuccess
}

func getNumericEffecter(b *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	effecter, err := wire.ParseEffecterID(req)
	switch {
	case err != nil:
		return dst, badRequest(err)
	case effecter != wire.EffecterCap:
		return dst, wire.CodeInvalidEffecter
	}
	v := int64(b.desired.cap)
	return wire.AppendNumericEffecter(dst, wire.SizeUint32, wire.EffecterEnabled, v, v), wire.CodeSuccess
}

// pdrs is the repository; the handle of a record is its place, from 1.
var pdrs = [...]wire.PDR{
	{Type: wire.PDRNumericSensor, ID: wire.SensorPower, Entity: wire.EntitySystemBoard, Instance: 1,
		Unit: wire.UnitWatts, Modifier: -3, Size: wire.SizeUint32, Max: maxPlausible},
	{Type: wire.PDRNumericSensor, ID: wire.SensorVoltage, Entity: wire.EntitySystemBoard, Instance: 1,
		Unit: wire.UnitVolts, Modifier: -3, Size: wire.SizeUint32, Max: 60_000},
	{Type: wire.PDRNumericSensor, ID: wire.SensorCurrent, Entity: wire.EntitySystemBoard, Instance: 1,
		Unit: wire.UnitAmps, Modifier: -3, Size: wire.SizeUint32, Max: 100_000},
	{Type: wire.PDRNumericSensor, ID: wire.SensorTemperature, Entity: wire.EntitySystemBoard, Instance: 1,
		Unit: wire.UnitCelsius, Modifier: -3, Size: wire.SizeSint32, Min: -40_000, Max: 150_000},
	{Type: wire.PDRNumericSensor, ID: wire.SensorEnergy, Entity: wire.EntitySystemBoard, Instance: 1,
		Unit: wire.UnitJoules, Size: wire.SizeUint32, Max: 0xFFFF_FFFF},
	{Type: wire.PDRStateSensor, ID: wire.SensorPowerState, Entity: wire.EntitySystemBoard, Instance: 1,
		StateSet: wire.StateSetSystemPower, States: 1<<wire.SystemPowerOn | 1<<wire.SystemPowerOffHard},
	{Type: wire.PDRStateSensor, ID: wire.SensorBoot, Entity: wire.EntitySystemBoard, Instance: 1,
		StateSet: wire.StateSetBootProgress, States: 1<<wire.BootNotActive | 1<<wire.BootCompleted |
			1<<wire.BootOSStart | 1<<wire.BootStartingOS | 1<<wire.BootBaseboard},
	{Type: wire.PDRStateSensor, ID: wire.SensorHealth, Entity: wire.EntitySystemBoard, Instance: 1,
		StateSet: wire.StateSetHealth, States: 1<<wire.HealthNormal | 1<<wire.HealthCritical},
	{Type: wire.PDRStateEffecter, ID: wire.EffecterPower, Entity: wire.EntitySystemBoard, Instance: 1,
		StateSet: wire.StateSetSystemPower, States: 1<<wire.SystemPowerOn | 1<<wire.SystemPowerCycleHard |
			1<<wire.SystemPowerCycleGraceful | 1<<wire.SystemPowerOffSoftGraceful | 1<<wire.SystemPowerOffHard |
			1<<wire.SystemPowerReset},
	{Type: wire.PDRStateEffecter, ID: wire.EffecterIdentify, Entity: wire.EntitySystemBoard, Instance: 1,
		StateSet: wire.StateSetIdentify, States: 1<<wire.IdentifyUnasserted | 1<<wire.IdentifyAsserted},
	{Type: wire.PDRNumericEffecter, ID: wire.EffecterCap, Entity: wire.EntitySystemBoard, Instance: 1,
		Unit: wire.UnitWatts, Modifier: -3, Size: wire.SizeUint32, Max: maxPlausible},
}

func getPDRInfo(_ *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	if code := empty(req); code != wire.CodeSuccess {
		return dst, code
	}
	var buf [wire.MaxPDR]byte
	info := wire.PDRInfo{Records: uint32(len(pdrs))}
	for i := range pdrs {
		n := uint32(len(wire.AppendPDR(buf[:0], uint32(i+1), &pdrs[i])))
		info.Size += n
		info.Largest = max(info.Largest, n)
	}
	return wire.AppendPDRInfo(dst, info), wire.CodeSuccess
}

func getPDR(_ *BMC, _ wire.Side, req, dst []byte) ([]byte, wire.Code) {
	record, flag, room, err := wire.ParseGetPDR(req)
	if record == 0 {
		record = 1
	}
	switch {
	case err != nil:
		return dst, badRequest(err)
	case flag != wire.TransferFirst:
		return dst, wire.CodeInvalidTransfer
	case record > uint32(len(pdrs)):
		return dst, wire.CodeInvalidRecord
	}
	var buf [wire.MaxPDR]byte
	p := wire.AppendPDR(buf[:0], record, &pdrs[record-1])
	if int(room) < len(p) {
		return dst, wire.CodeInvalidData // our records go in one part; none is longer than wire.MaxPDR
	}
	next := record + 1
	if record == uint32(len(pdrs)) {
		next = 0
	}
	return wire.AppendGetPDRResponse(dst, next, p), wire.CodeSuccess
}

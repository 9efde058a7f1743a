package rmc

import "github.com/racklet/racklet/firmware/wire"

// records returns the n-th record of the PDR repository, counted from 0, and whether there is one: power, voltage,
// energy, inlet temperature, then each fan's speed, then each slot's presence.
func (r *RMC) record(n int) (p wire.PDR, ok bool) {
	numeric := func(id, entity, instance uint16, unit uint8, modifier int8, size uint8, lo, hi int64) (wire.PDR, bool) {
		return wire.PDR{Type: wire.PDRNumericSensor, ID: id, Entity: entity, Instance: instance, Unit: unit, Modifier: modifier, Size: size, Min: lo, Max: hi}, true
	}
	chassis := func(id uint16, unit uint8, modifier int8, size uint8, lo, hi int64) (wire.PDR, bool) {
		return numeric(id, wire.EntitySystemChassis, 1, unit, modifier, size, lo, hi)
	}
	switch n {
	case 0:
		return chassis(wire.SensorPower, wire.UnitWatts, -3, wire.SizeUint32, 0, 500_000)
	case 1:
		return chassis(wire.SensorVoltage, wire.UnitVolts, -3, wire.SizeUint32, 0, 85_000)
	case 2:
		return chassis(wire.SensorEnergy, wire.UnitJoules, 0, wire.SizeUint32, 0, 1<<32-1)
	case 3:
		return chassis(wire.SensorTemperature, wire.UnitCelsius, -3, wire.SizeSint32, -55_000, 150_000)
	}
	n -= 4
	if n < int(r.cfg.Fans) {
		return numeric(wire.SensorFan+uint16(n), wire.EntityFan, uint16(n+1), wire.UnitRPM, 0, wire.SizeUint16, 0, 1<<16-1)
	}
	n -= int(r.cfg.Fans)
	if n >= int(r.cfg.Slots) {
		return wire.PDR{}, false
	}
	return wire.PDR{
		Type: wire.PDRStateSensor, ID: wire.SensorPresence + uint16(n+1), Entity: wire.EntitySlot, Instance: uint16(n + 1),
		StateSet: wire.StateSetPresence, States: 1<<wire.PresencePresent | 1<<wire.PresenceNotPresent,
	}, true
}

func getPDRInfo(r *RMC, req, dst []byte) ([]byte, wire.Code) {
	if code := empty(req); code != wire.CodeSuccess {
		return dst, code
	}
	var info wire.PDRInfo
	var buf [wire.MaxPDR]byte
	for {
		p, ok := r.record(int(info.Records))
		if !ok {
			return wire.AppendPDRInfo(dst, info), wire.CodeSuccess
		}
		info.Records++
		size := uint32(len(wire.AppendPDR(buf[:0], info.Records, &p)))
		info.Size += size
		info.Largest = max(info.Largest, size)
	}
}

// getPDR answers with a record; its handle is its number counted from 1, and 0 asks for the first.
func getPDR(r *RMC, req, dst []byte) ([]byte, wire.Code) {
	handle, flag, room, err := wire.ParseGetPDR(req)
	if err != nil {
		return dst, bad(err)
	}
	if flag != wire.TransferFirst {
		return dst, wire.CodeInvalidTransfer
	}
	handle = max(handle, 1)
	if handle > 1<<16 {
		return dst, wire.CodeInvalidRecord
	}
	p, ok := r.record(int(handle) - 1)
	if !ok {
		return dst, wire.CodeInvalidRecord
	}
	var buf [wire.MaxPDR]byte
	b := wire.AppendPDR(buf[:0], handle, &p)
	if int(room) < len(b) {
		return dst, wire.CodeInvalidLength
	}
	next := handle + 1
	if _, ok := r.record(int(handle)); !ok {
		next = 0
	}
	return wire.AppendGetPDRResponse(dst, next, b), wire.CodeSuccess
}

func getSensorReading(r *RMC, req, dst []byte) ([]byte, wire.Code) {
	id, err := wire.ParseGetSensorReadingRequest(req)
	if err != nil {
		return dst, bad(err)
	}
	v := wire.Reading{Size: wire.SizeUint32, Present: wire.ReadingNormal}
	lost := false
	switch id {
	case wire.SensorPower:
		v.Value, lost = int64(r.power.Milliwatts), r.powerLost
		if r.over {
			v.Present = wire.ReadingWarning
		}
	case wire.SensorVoltage:
		v.Value, lost = int64(r.power.Millivolts), r.powerLost
	case wire.SensorEnergy:
		v.Value, lost = int64(uint32(r.energy/1000)), r.powerLost
	case wire.SensorTemperature:
		v.Size, v.Value, lost = wire.SizeSint32, int64(r.inlet), r.inletLost || !r.inletRead
	default:
		n := id - wire.SensorFan
		if id < wire.SensorFan || n >= uint16(r.cfg.Fans) {
			return dst, wire.CodeInvalidSensor
		}
		f := &r.fans[n]
		v.Size, v.Value, lost = wire.SizeUint16, int64(min(f.rpm, 0xFFFF)), f.lost || !f.read
		if f.stalled {
			v.Present = wire.ReadingCritical
		}
	}
	if lost { // absent, never zero as if measured
		v.Operational, v.Present, v.Value = wire.SensorUnavailable, wire.ReadingUnknown, 0
	}
	return wire.AppendReading(dst, v), wire.CodeSuccess
}

func getStateSensor(r *RMC, req, dst []byte) ([]byte, wire.Code) {
	id, err := wire.ParseGetStateSensorRequest(req)
	if err != nil {
		return dst, bad(err)
	}
	n := id - wire.SensorPresence
	if id <= wire.SensorPresence || n > uint16(r.cfg.Slots) {
		return dst, wire.CodeInvalidSensor
	}
	state := wire.PresenceNotPresent
	if r.slots[n-1].present {
		state = wire.PresencePresent
	}
	return wire.AppendStateReading(dst, wire.SensorEnabled, state), wire.CodeSuccess
}

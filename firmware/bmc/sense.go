package bmc

import (
	"strconv"

	"github.com/racklet/racklet/firmware/wire"
)

// maxPlausible is the power above which a step of the meter's accumulator is taken for a misreading, in mW.
const maxPlausible = 500_000

// sense reads the meters when it is time, and protects the unit from what they say.
func (b *BMC) sense() {
	if b.ports.Meter != nil && (b.now-b.powerAt >= sensePower || b.powerAt == 0) {
		b.readPower()
	}
	if b.ports.Thermometer != nil && (b.now-b.heatAt >= senseHeat || b.heatAt == 0) {
		b.readHeat()
	}
	if b.closed && b.now-b.checkpoint >= checkpointMillis {
		b.keepEnergy()
	}
}

func (b *BMC) readPower() {
	elapsed := b.now - b.powerAt
	first := b.powerAt == 0
	b.powerAt = max(b.now, 1)
	p, err := b.ports.Meter.ReadPower()
	if b.lost(&b.powerLost, err != nil, "power meter") {
		b.overSince = 0
		return
	}
	b.power = p
	// The chip's accumulator starts again at zero when the chip does.
	delta := p.Millijoules
	if b.chipKnown && p.Millijoules >= b.chip {
		delta -= b.chip
	}
	if !b.chipKnown {
		delta = 0 // what the chip counted before we ever looked is nobody's
	}
	if first || delta <= (elapsed+1_000)*maxPlausible/1_000 {
		b.energy += delta
	}
	b.chip, b.chipKnown = p.Millijoules, true
	if !b.closed || p.Milliwatts <= b.limits.TripMilliwatts {
		b.overSince = 0
		return
	}
	if b.overSince == 0 {
		b.overSince = b.now
	}
	if b.now-b.overSince >= uint64(b.limits.TripMillis) {
		b.fault(wire.MakeFailure("power.overcurrent", "at most "+milli(b.limits.TripMilliwatts)+" W", milli(p.Milliwatts)+" W"))
	}
}

func (b *BMC) readHeat() {
	b.heatAt = max(b.now, 1)
	t, err := b.ports.Thermometer.ReadTemperature()
	if b.lost(&b.heatLost, err != nil, "thermometer") {
		return
	}
	b.heat = t
	b.hot = t >= int32(b.limits.ShutdownMilliCelsius)
}

func (b *BMC) tooHot() wire.Failure {
	return wire.MakeFailure("thermal.shutdown", "below "+milli(b.limits.ShutdownMilliCelsius)+" °C", milli(uint32(b.heat))+" °C")
}

// lost notes that a sensor was lost or came back, and returns whether it is lost.
func (b *BMC) lost(flag *bool, now bool, what string) bool {
	if *flag != now {
		*flag = now
		code := uint16(1)
		if now {
			code = 0
		}
		b.event(wire.EventSensor, code, what, nil)
	}
	return now
}

// milli spells thousandths with one decimal.
func milli(n uint32) string {
	return strconv.FormatUint(uint64(n/1000), 10) + "." + string(rune('0'+n%1000/100))
}

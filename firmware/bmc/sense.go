package bmc

import (
	"strconv"

	"github.com/racklet/racklet/firmware/wire"
)

// maxPlausible is the power above which a step of the meter's accumulator is taken for a misreading, in mW.
const maxPlausible = 500_000

// longestAway is how long a meter is believed to have counted while the BMC was not there, in ms.
const longestAway = 60 * 60 * 1_000

// sense reads the meters when it is time, and protects the unit from what they say.
func (b *BMC) sense() {
	if b.ports.Meter != nil && (b.now-b.powerAt >= sensePower || b.powerAt == 0) {
		b.readPower()
	}
	if b.ports.Thermometer != nil && (b.now-b.heatAt >= senseHeat || b.heatAt == 0) {
		b.readHeat()
	}
	b.watchBus()
	if b.closed && b.now-b.checkpoint >= checkpointMillis {
		b.keepEnergy()
	}
}

func (b *BMC) readPower() {
	b.powerAt = max(b.now, 1)
	p, err := b.ports.Meter.ReadPower()
	if b.lost(&b.powerLost, err != nil, "power meter") {
		b.overSince = 0
		return
	}
	b.power = p
	b.addEnergy(p.Millijoules)
	b.watchCap()
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

// addEnergy adds what the meter's accumulator has gained. It begins again at zero when the chip does; a step that no
// unit could have drawn since the last good reading is a misreading, and waits for the next one.
func (b *BMC) addEnergy(chip uint64) {
	delta := chip
	if b.chipKnown && chip >= b.chip {
		delta -= b.chip
	}
	if !b.chipKnown {
		delta = 0 // what it counted before we ever looked is nobody's
	}
	since := uint64(longestAway) // the first reading after a restart: the meter may have counted alone
	if b.chipAt != 0 {
		since = b.now - b.chipAt + 1_000
	}
	if delta > since*maxPlausible/1_000 {
		return
	}
	b.energy += delta
	b.chip, b.chipKnown, b.chipAt = chip, true, max(b.now, 1)
}

// allowance is what the unit should draw at most: the cap, or less if the RMC granted less. 0: nobody said.
func (b *BMC) allowance() uint32 {
	switch {
	case b.desired.cap == 0:
		return b.grant
	case b.grant == 0:
		return b.desired.cap
	}
	return min(b.desired.cap, b.grant)
}

// watchCap says so, once, when the unit draws more than its allowance. Holding it back is for the unit's own system, and
// for the RMC, which can take the grant away; the BMC cuts only at the trip level.
func (b *BMC) watchCap() {
	a := b.allowance()
	if !b.closed || a == 0 || b.power.Milliwatts <= a {
		b.overCap, b.capTold = 0, false
		return
	}
	if b.overCap == 0 {
		b.overCap = b.now
	}
	if !b.capTold && b.now-b.overCap >= capMillis {
		b.capTold = true
		f := wire.MakeFailure("power.cap", "at most "+milli(a)+" W", milli(b.power.Milliwatts)+" W")
		b.event(wire.EventPower, 0, "", &f)
	}
}

// watchBus notes an RMC that has gone silent. Nothing else follows: the unit runs on.
func (b *BMC) watchBus() {
	if b.busAt != 0 && !b.busLost && b.now-b.busAt > busMillis {
		b.busLost = true
		b.event(wire.EventBus, 0, "RMC is silent", nil)
	}
}

func (b *BMC) heard() {
	b.busAt = max(b.now, 1)
	if b.busLost {
		b.busLost = false
		b.event(wire.EventBus, 1, "RMC is back", nil)
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

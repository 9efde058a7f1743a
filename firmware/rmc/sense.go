package rmc

import "github.com/racklet/racklet/firmware/wire"

// Implementation constants.
const (
	debounce     = 3         // equal readings of a presence input in a row
	maxPlausible = 1_000_000 // mW: a step of the meter's accumulator beyond this is a misreading
	sagPermille  = 900       // of the last good supply voltage: keep the energy counter at once
)

// watchPresence notices trays that are pulled and inserted.
func (r *RMC) watchPresence() {
	for i := range r.cfg.Slots {
		t := &r.slots[i]
		in := r.ports.Present[i]
		now := in != nil && in.Get()
		if now == t.present {
			t.debounce = 0
			continue
		}
		if t.debounce++; t.debounce < debounce {
			continue
		}
		*t = slot{present: now}
		r.event(wire.EventPresence, i+1, came(now), "", nil)
	}
}

// sense reads the RMC's own sensors when it is time.
func (r *RMC) sense() {
	if r.sensedAt != 0 && r.now-r.sensedAt < uint64(r.limits.SenseMillis) {
		return
	}
	elapsed, first := r.now-r.sensedAt, r.sensedAt == 0
	r.sensedAt = max(r.now, 1)
	r.readPower(elapsed, first)
	r.readInlet()
	r.readFans()
	if r.energy != r.kept && r.now-r.keptAt >= uint64(r.limits.KeepMillis) {
		r.keepEnergy()
	}
}

func (r *RMC) readPower(elapsed uint64, first bool) {
	before := r.power.Millivolts
	if r.ports.Meter == nil {
		r.powerLost = true
		return
	}
	p, err := r.ports.Meter.ReadPower()
	if r.lost(&r.powerLost, err != nil, "rack meter") {
		return
	}
	r.power = p
	// The chip's accumulator starts again at zero when the chip does.
	delta := p.Millijoules
	if !r.chipKnown {
		delta = 0 // what it counted before we ever looked is nobody's
	} else if p.Millijoules >= r.chip {
		delta -= r.chip
	}
	if first || delta <= (elapsed+1_000)*maxPlausible/1_000 { // the first one covers a restart of ours
		r.energy += delta
	}
	r.chip, r.chipKnown = p.Millijoules, true
	if uint64(p.Millivolts)*1000 < uint64(before)*sagPermille {
		r.keepEnergy() // the supply is on its way down
	}
}

func (r *RMC) readInlet() {
	if r.ports.Inlet == nil {
		r.inletLost = true
		return
	}
	c, err := r.ports.Inlet.ReadTemperature()
	if err != nil && !r.inletRead && !r.inletLost && r.now-r.since < 1_000 {
		return // chips need a moment after power-on; the fans run at full speed meanwhile
	}
	if r.lost(&r.inletLost, err != nil, "inlet thermometer") {
		return
	}
	r.inlet, r.inletRead = c, true
}

// lost notes that a sensor was lost or came back, and returns whether it is lost.
func (r *RMC) lost(flag *bool, now bool, what string) bool {
	if *flag != now {
		*flag = now
		r.event(wire.EventSensor, 0, came(!now), what, nil)
	}
	return now
}

// watchManagement notices the management computer's silence.
func (r *RMC) watchManagement() {
	quiet := r.heard && r.now-r.heardAt >= uint64(r.limits.ManagementMillis)
	if quiet != r.quiet {
		r.quiet = quiet
		r.event(wire.EventBus, 0, came(!quiet), "management computer", nil)
	}
}

package plant

import (
	"math"
	"time"
)

// Power path of a slot: busbar → e-fuse with load switch → synchronous step-down converter → shunt → unit. The shape is
// that of common parts (an e-fuse with dV/dt control and latched over-current trip, a 6 A converter); figures are ours.
const (
	railVolts = 5.1
	pathOhms  = 0.02 // connector and e-fuse, the same for every slot
	busOhms   = 0.004
	outOhms   = 0.012 // shunt, trace and connector to the unit

	fuseFall = 15.0 // V at the slot's input: converter stops
	fuseRise = 16.5 // V: may start again
	rampTime = 5 * time.Millisecond
	goodRail = 4.75 // V, the 5 V − 5 % of USB and of the Pi
	goodTime = 10 * time.Millisecond
	runRail  = 4.0 // V below which a unit draws nothing more

	fuseAmps  = 6.5 // at the output
	fuseTime  = 3 * time.Millisecond
	shortOhms = 0.03

	convIdle  = 0.08  // W
	convShare = 0.035 // of the output power
	convOhms  = 0.025 // of the output current
	bleedOhms = 120.0 // discharges the output while it is off

	auxShare   = 0.12 // of the auxiliary converter's output
	auxStop    = 6.0  // V at the busbar: rack controller, BMCs, fans and switch lose power
	supplyOver = 1.1  // of its rated current: the supply trips after supplyTime
	supplyTrip = 2.0  // of its rated current: at once
	supplyTime = 20 * time.Millisecond
	supplyWait = time.Second // until it tries again
)

type slot struct {
	Present   bool
	Closed    bool
	Tripped   bool
	Activity  Activity
	Tolerance float64 // of the heat sink
	Gain      float64
	Ripple    float64

	Set  float64       // V at the converter's output
	On   bool          // converter running
	Rise time.Duration // since the rail came up
	Good bool
	Over time.Duration // in over-current

	Volts, Amps, Watts float64
	In                 float64 // A from the busbar
	Demand             float64 // W asked of the busbar
	Through            float64 // J
	Heat               float64 // W turned to heat in the unit
	Waste              float64 // W turned to heat in converter and shunt
	SoC, Air           float64
}

// busy reports whether the slot is about to change by itself.
func (u *slot) busy() bool {
	return u.On && (u.Set < railVolts || !u.Good && u.Rise > 0) || !u.On && u.Set > 0.05 || u.Over > 0
}

func (u *slot) stored() float64 { return u.farads() / 2 * u.Set * u.Set }

// farads is a board's input capacitance and the converter's own; boards differ too little to carry it along.
func (u *slot) farads() float64 { return Pi4.Farads + 200e-6 }

// standby reports whether the auxiliary converter has enough.
func (s *state) standby() bool { return s.Bus >= auxStop }

// stepPower solves the network for one stride and keeps the ledger.
func (p *Plant) stepPower(h time.Duration) {
	s := &p.s
	t := h.Seconds()
	source := p.cfg.Supply.Volts * (1 - s.Faults.Sag)
	if s.Retry > 0 {
		s.Retry = max(0, s.Retry-h)
		source = 0
	}
	if s.Faults.Cut {
		source = 0
		s.Over = 0
	}
	for i := range p.cfg.Slots {
		p.stepSlot(i, h, source)
	}
	// Loads are set; find the busbar's voltage. Each slot's input voltage has a closed form, the busbar's is a fixed
	// point that a droop so small against the load's resistance reaches in a few rounds.
	aux, parts := p.auxiliary()
	if source < auxStop {
		aux, parts = 0, [3]float64{}
	}
	bus, total := source, 0.0
	for range 60 {
		total = 0
		for i := range p.cfg.Slots {
			total += p.inputCurrent(i, bus)
		}
		total += safeDiv(aux, bus)
		next := source - total*p.cfg.Supply.Droop
		if math.Abs(next-bus) < 1e-12 {
			bus = next
			break
		}
		bus = next
	}
	e := &s.Energy
	for i := range p.cfg.Slots {
		u := &s.Slots[i]
		r := p.pathOhms(i)
		u.In = p.inputCurrent(i, bus)
		e.Loss += u.In * u.In * r * t
	}
	e.Fans += parts[0] * t
	e.Switch += parts[1] * t
	e.Ctrl += parts[2] * t
	e.Loss += (aux - parts[0] - parts[1] - parts[2]) * t
	e.Loss += total * total * p.cfg.Supply.Droop * t
	e.Supply += source * total * t
	s.Bus, s.Amps = bus, total
	s.Through += bus * total * t
	p.protectSupply(h)
}

func (p *Plant) protectSupply(h time.Duration) {
	s := &p.s
	limit := p.cfg.Supply.Amps
	if limit == 0 || s.Amps <= limit*supplyOver {
		s.Over = 0
		return
	}
	if s.Over += h; s.Over >= supplyTime || s.Amps > limit*supplyTrip {
		s.Over, s.Retry = 0, supplyWait
		s.Trips++
	}
}

// auxiliary is the power of fans, switch and controllers: at the busbar, and what of it is useful.
func (p *Plant) auxiliary() (input float64, parts [3]float64) {
	for i := range p.cfg.Fans {
		parts[0] += p.s.Fans[i].Watts
	}
	parts[1] = p.cfg.Switch
	parts[2] = p.cfg.Control
	for i := range p.cfg.Slots {
		if p.s.Slots[i].Present {
			parts[2] += p.cfg.BMC
		}
	}
	return (parts[0] + parts[1] + parts[2]) * (1 + auxShare), parts
}

func (p *Plant) pathOhms(i int) float64 { return pathOhms + busOhms*float64(i+1) }

// inputCurrent solves V·I = demand with V = bus − I·R for the smaller current.
func (p *Plant) inputCurrent(i int, bus float64) float64 {
	u := &p.s.Slots[i]
	if u.Demand == 0 || bus <= 0 {
		return 0
	}
	r := p.pathOhms(i)
	disc := bus*bus - 4*r*u.Demand
	if disc < 0 {
		disc = 0
	}
	return (bus - math.Sqrt(disc)) / (2 * r)
}

// stepSlot advances one slot's switch, converter and unit, given the supply's voltage for the under-voltage lock-out. It
// leaves the power asked of the busbar in the slot and books what happens behind the converter.
func (p *Plant) stepSlot(i int, h time.Duration, source float64) {
	s := &p.s
	u, b, fault := &s.Slots[i], &p.cfg.Slots[i], s.Faults.Slot[i]
	t := h.Seconds()
	input := source
	if s.Amps > 0 && source > 0 {
		input = source - s.Amps*p.cfg.Supply.Droop - u.In*p.pathOhms(i)
	}
	want := u.Present && (u.Closed || fault.Welded) && !fault.OpenFuse && !u.Tripped
	switch {
	case !want || input < fuseFall:
		u.On = false
	case input >= fuseRise:
		u.On = true
	}
	if !u.On {
		p.discharge(u, t, i)
		return
	}
	held := u.stored()
	if fault.Short { // the converter limits its current into the short, which empties the capacitors
		u.Set = min(u.Set, fuseAmps*(shortOhms+outOhms))
	} else {
		u.Set = min(railVolts, u.Set+railVolts*float64(h)/float64(rampTime))
	}
	charge := (u.stored() - held) / t // W into the capacitors

	var amps float64
	if fault.Short {
		amps = fuseAmps
		u.Watts = amps * amps * shortOhms
		u.Volts = amps * shortOhms
	} else {
		u.Watts = 0
		if u.Set >= runRail {
			u.Watts = b.demand(u.Activity, u.SoC) * u.Ripple
		}
		// Terminal voltage from V·I = Watts, V = Set − I·R.
		u.Volts = (u.Set + math.Sqrt(max(0, u.Set*u.Set-4*outOhms*u.Watts))) / 2
		amps = safeDiv(u.Watts, u.Volts)
	}
	inrush := safeDiv(max(charge, 0), u.Set)
	u.Amps = amps + inrush
	ohmic := amps * amps * outOhms
	output := u.Watts + ohmic + max(charge, 0)
	loss := convIdle + convShare*output + convOhms*u.Amps*u.Amps
	u.Demand = output + loss
	u.Heat = u.Watts
	u.Waste = loss + ohmic
	if charge < 0 {
		s.Energy.Unit[i] += -charge * t
	}
	s.Energy.Unit[i] += u.Watts * t
	s.Energy.Loss += (loss + ohmic) * t
	u.Through += (u.Watts + max(charge, 0)) * t

	if u.Amps > fuseAmps*0.999 && (fault.Short || charge == 0) {
		if u.Over += h; u.Over >= fuseTime {
			u.Tripped, u.On, u.Over = true, false, 0
		}
	} else {
		u.Over = 0
	}
	if u.Volts < goodRail || fault.NoGood {
		u.Rise, u.Good = 0, false
	} else if u.Rise += h; u.Rise >= goodTime {
		u.Good = true
	}
}

// discharge lets a rail that is off run down: the unit takes what it can while it can, the bleeder the rest.
func (p *Plant) discharge(u *slot, t float64, i int) {
	held := u.stored()
	if u.Set > 0 {
		left := held
		if u.Set > runRail {
			floor := u.farads() / 2 * runRail * runRail
			take := min(left-floor, p.cfg.Slots[i].demand(u.Activity, u.SoC)*t)
			left -= take
			p.s.Energy.Unit[i] += take
		}
		after := left / (1 + 2*t/(bleedOhms*u.farads()))
		if after < 1e-7 {
			after = 0
		}
		p.s.Energy.Loss += left - after
		u.Set = math.Sqrt(2 * after / u.farads())
	}
	u.Volts, u.Amps, u.Watts, u.Demand, u.Heat, u.Waste = u.Set, 0, 0, 0, 0, 0
	u.Good, u.Rise, u.Over = false, 0, 0
}

func safeDiv(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

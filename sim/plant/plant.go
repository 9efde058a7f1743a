// Package plant is the physics of the rack: supply, busbar, load switches, fans, air and heat, in simulated time.
//
//	             droop            path            e-fuse, 20→5.1 V     shunt
//	supply ──────/\/\/──┬─ busbar ─/\/\/── slot 1 ──[switch]──[converter]──/\/\/── unit 1 ──▶ heat ─▶ tray air ─▶ exhaust
//	20 V, limited       ├─────────/\/\/── slot 2 …                                                     ▲
//	                    └── auxiliary converter ── fans ── air ────────────────────────────────────────┘
//	                                            └─ network switch, rack controller, one BMC per tray
//
// It knows nothing of firmware, machines or chips. Those around it close switches, set activities and fan drives, call
// Step, and read voltages, currents, temperatures and speeds:
//
//   - Time is what Step was given, nothing else: simulated time may run at any speed. Within a step the plant divides
//     time itself, finely while something switches and coarsely while nothing does.
//   - The same seed and the same calls give the same state, bit for bit, on the same kind of processor (Hash). The seed
//     sets part tolerances and the ripple of the loads.
//   - Energy is kept: what the supply gave is what units, fans, switch, controllers and losses took and capacitors hold
//     (Energy.Imbalance; each term is computed by its own law, so the sum is a check and not a definition).
//   - Faults are plain fields (Faults), set and cleared at any time.
//
// Slots count from 1, as on the case; fans from 0. All methods are safe for concurrent use.
//
// Figures with a source are cited where they stand (board.go, fan.go); the others are marked as ours. What it leaves out:
// inductance, contact bounce, radiation, air that flows backwards, ageing.
package plant

import (
	"fmt"
	"sync"
	"time"
)

// Limits of a rack.
const (
	MaxSlots = 10
	MaxFans  = 5
)

// Config describes a rack. The zero value of a field takes the default given.
type Config struct {
	Seed    uint64
	Supply  Supply
	Slots   []Board // by slot, from slot 1; at most MaxSlots. A zero Board takes Pi4.
	Fans    int     // at most MaxFans; 2
	Ambient float64 // °C around the rack; 23
	Switch  float64 // W of the network switch; 3
	Control float64 // W of the rack controller; 0.3
	BMC     float64 // W of each tray's BMC; 0.15
}

// Supply is the power brick.
type Supply struct {
	Volts float64 // no-load voltage; 20, a USB-C PD supply of 100 W
	Amps  float64 // rated current; Watts/Volts of the rack; 5
	Droop float64 // Ω of output and cable; 0.08 (ours)
}

// Activity is what a unit's machine does; it decides the unit's power while its rail is good.
type Activity struct {
	Running bool    // false: held in reset or halted
	CPU     float64 // share of all cores in use, 0 to 1
	IO      float64 // share of network and disk in use, 0 to 1
}

// Faults are what is broken. The zero value is a healthy rack. Slots index from 0 here (slot n is Slot[n-1]).
type Faults struct {
	Cut     bool    `json:",omitempty"` // supply unplugged
	Sag     float64 `json:",omitempty"` // share of the supply's voltage that is missing (brown-out), 0 to 1
	Blocked float64 `json:",omitempty"` // share of the inlet that is covered, 0 to 1
	Slot    [MaxSlots]SlotFault
	Fan     [MaxFans]FanFault
}

// SlotFault is what is broken in one tray.
type SlotFault struct {
	Short    bool `json:",omitempty"` // unit's 5 V shorted to ground
	OpenFuse bool `json:",omitempty"` // load switch does not close
	Welded   bool `json:",omitempty"` // load switch does not open
	NoGood   bool `json:",omitempty"` // power-good stays low
	// HeatOff is the share of the heat sink's contact that is lost, 0 to 1.
	HeatOff float64 `json:",omitempty"`
}

// FanFault is what is broken in one fan.
type FanFault struct {
	Stuck  bool    `json:",omitempty"` // rotor blocked
	NoTach bool    `json:",omitempty"` // tachometer wire off
	Worn   float64 `json:",omitempty"` // share of its speed that it lost, 0 to 1
}

// Plant is one rack's physics.
type Plant struct {
	mu  sync.Mutex
	cfg Config
	s   state
}

// New returns a rack at rest: supply on, every switch open, every tray present, everything at ambient temperature. The
// error names an impossible configuration.
func New(cfg Config) (*Plant, error) {
	if len(cfg.Slots) < 1 || len(cfg.Slots) > MaxSlots {
		return nil, fmt.Errorf("plant: %d slots, want 1 to %d", len(cfg.Slots), MaxSlots)
	}
	if cfg.Fans < 0 || cfg.Fans > MaxFans {
		return nil, fmt.Errorf("plant: %d fans, want at most %d", cfg.Fans, MaxFans)
	}
	def := func(v *float64, d float64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&cfg.Supply.Volts, 20)
	def(&cfg.Supply.Amps, 5)
	def(&cfg.Supply.Droop, 0.08)
	def(&cfg.Ambient, 23)
	def(&cfg.Switch, 3)
	def(&cfg.Control, 0.3)
	def(&cfg.BMC, 0.15)
	if cfg.Fans == 0 {
		cfg.Fans = 2
	}
	if cfg.Supply.Volts < fuseRise || cfg.Supply.Amps < 0 || cfg.Supply.Droop < 0 || cfg.Supply.Droop > 0.5 {
		return nil, fmt.Errorf("plant: supply of %g V, %g A, %g Ω cannot be", cfg.Supply.Volts, cfg.Supply.Amps, cfg.Supply.Droop)
	}
	cfg.Slots = append([]Board(nil), cfg.Slots...)
	p := &Plant{cfg: cfg}
	p.s.Rand = cfg.Seed
	p.s.Ambient = cfg.Ambient
	p.s.Inlet, p.s.Exhaust = cfg.Ambient, cfg.Ambient
	for i := range cfg.Slots {
		if cfg.Slots[i] == (Board{}) {
			cfg.Slots[i] = Pi4
		}
		p.s.Slots[i] = slot{Present: true, SoC: cfg.Ambient, Air: cfg.Ambient, Ripple: 1,
			Tolerance: 1 + 0.05*p.s.noise(), Gain: 1 + 0.0005*p.s.noise()}
	}
	for i := range cfg.Fans {
		p.s.Fans[i].Tolerance = 1 + fanTolerance*p.s.noise()
	}
	p.s.Bus = cfg.Supply.Volts
	return p, nil
}

// Step lets simulated time pass. Negative durations are ignored.
func (p *Plant) Step(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for d > 0 {
		h := min(d, p.stride())
		p.advance(h)
		d -= h
	}
}

// Division of a step.
const (
	fine   = time.Millisecond
	coarse = 100 * time.Millisecond
)

// stride is how far the plant may go at once: finely after a change from outside and while something switches.
func (p *Plant) stride() time.Duration {
	if p.s.Touched || p.s.Over > 0 {
		return fine
	}
	for i := range p.cfg.Slots {
		if p.s.Slots[i].busy() {
			return fine
		}
	}
	return coarse
}

func (p *Plant) advance(h time.Duration) {
	s := &p.s
	s.Touched = false
	s.Now += h
	t := h.Seconds()
	if s.RippleAt += h; s.RippleAt >= coarse {
		s.RippleAt = 0
		for i := range p.cfg.Slots {
			// A slow, bounded wander of ±1 %.
			s.Slots[i].Ripple += 0.1*(1-s.Slots[i].Ripple) + 0.004*s.noise()
		}
	}
	p.stepFans(t)
	p.stepPower(h)
	p.stepHeat(t)
}

// Now returns the simulated time since New.
func (p *Plant) Now() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.s.Now
}

// change applies a change from outside.
func (p *Plant) change(f func(s *state)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.s)
	p.s.Touched = true
}

// SetSwitch closes or opens a slot's load switch. Opening it also resets a tripped fuse.
func (p *Plant) SetSwitch(slot int, closed bool) {
	p.change(func(s *state) {
		if t := p.slot(slot); t != nil {
			t.Closed = closed
			if !closed {
				t.Tripped = false
			}
		}
	})
}

// SetActivity says what a slot's machine does from now on.
func (p *Plant) SetActivity(slot int, a Activity) {
	a.CPU, a.IO = share(a.CPU), share(a.IO)
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.slot(slot); t != nil && t.Activity != a {
		t.Activity = a
		p.s.Touched = true
	}
}

// SetPresent inserts a tray or pulls it out. A pulled tray loses all power at once.
func (p *Plant) SetPresent(slot int, present bool) {
	p.change(func(s *state) {
		if t := p.slot(slot); t != nil {
			t.Present = present
			if !present {
				t.Tripped, t.Closed, t.On, t.Good = false, false, false, false // its switch is on the tray
				t.Volts, t.Amps, t.Watts, t.Demand = 0, 0, 0, 0
			}
		}
	})
}

// SetDrive drives a fan, 0 to 1.
func (p *Plant) SetDrive(fan int, drive float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if fan >= 0 && fan < p.cfg.Fans {
		p.s.Fans[fan].Drive = share(drive)
	}
}

// SetAmbient changes the temperature around the rack, in °C.
func (p *Plant) SetAmbient(c float64) { p.change(func(s *state) { s.Ambient = c }) }

// Faults returns what is broken.
func (p *Plant) Faults() Faults {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.s.Faults
}

// SetFaults replaces what is broken.
func (p *Plant) SetFaults(f Faults) {
	f.Sag, f.Blocked = share(f.Sag), share(f.Blocked)
	p.change(func(s *state) { s.Faults = f })
}

// Edit changes what is broken, in one step: p.Edit(func(f *Faults) { f.Fan[0].Stuck = true }).
func (p *Plant) Edit(edit func(f *Faults)) {
	p.change(func(s *state) {
		edit(&s.Faults)
		s.Faults.Sag, s.Faults.Blocked = share(s.Faults.Sag), share(s.Faults.Blocked)
	})
}

// slot returns slot n, counted from 1, or nil.
func (p *Plant) slot(n int) *slot {
	if n < 1 || n > len(p.cfg.Slots) {
		return nil
	}
	return &p.s.Slots[n-1]
}

// Slot is what can be measured in one slot.
type Slot struct {
	Present   bool
	Standby   bool    // the tray's BMC has power
	Closed    bool    // load switch commanded closed
	PowerGood bool    // unit rail within limits
	Tripped   bool    // fuse tripped by over-current; opening the switch resets it
	Volts     float64 // at the unit
	Amps      float64 // through the shunt
	Watts     float64 // into the unit
	Joules    float64 // through the shunt so far
	SoC       float64 // °C
	Air       float64 // °C, tray air
	Board     float64 // °C, where the BMC's thermometer touches the unit
	Throttled bool    // the SoC slows itself down because of its temperature
	Gain      float64 // of the current monitor, from the seed (data sheet: within 0.05 % of 1)
}

// boardContact is how much of the way from tray air to the SoC the BMC's thermometer sees: it sits on a tongue of the
// BMC board that touches the SoC's heat spreader through a pad (ours).
const boardContact = 0.85

// Slot reads a slot, counted from 1.
func (p *Plant) Slot(n int) Slot {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.slot(n)
	if t == nil {
		return Slot{}
	}
	return Slot{
		Present: t.Present, Standby: t.Present && p.s.standby(), Closed: t.Closed, PowerGood: t.Good, Tripped: t.Tripped,
		Volts: t.Volts, Amps: t.Amps, Watts: t.Watts, Joules: t.Through,
		SoC: t.SoC, Air: t.Air, Board: t.Air + boardContact*(t.SoC-t.Air), Throttled: t.SoC > throttleFrom, Gain: t.Gain,
	}
}

// Fan is what can be measured at one fan.
type Fan struct {
	Drive  float64 // 0 to 1
	RPM    float64 // as its tachometer tells; 0 without one
	Pulses uint64  // of the tachometer so far, two per turn
	Watts  float64
}

// Fan reads a fan, counted from 0.
func (p *Plant) Fan(n int) Fan {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n < 0 || n >= p.cfg.Fans {
		return Fan{}
	}
	f := p.s.Fans[n]
	r := Fan{Drive: f.Drive, RPM: f.RPM, Pulses: uint64(f.Turns * 2), Watts: f.Watts}
	if p.s.Faults.Fan[n].NoTach {
		r.RPM = 0
	}
	return r
}

// Rack is what can be measured at the rack.
type Rack struct {
	Volts   float64 // busbar
	Amps    float64 // out of the supply
	Watts   float64 // at the busbar
	Joules  float64 // through the supply's shunt so far
	Inlet   float64 // °C
	Exhaust float64 // °C
	Flow    float64 // m³/s
	Tripped bool    // supply off after over-current, about to retry
	Standby bool    // rack controller and BMCs have power
}

// Rack reads the rack.
func (p *Plant) Rack() Rack {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.s
	return Rack{Volts: s.Bus, Amps: s.Amps, Watts: s.Bus * s.Amps, Joules: s.Through, Inlet: s.Inlet, Exhaust: s.Exhaust,
		Flow: p.flow(), Tripped: s.Retry > 0, Standby: s.standby()}
}

// Energy returns where the energy went so far.
func (p *Plant) Energy() Energy {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.s.Energy
	for i := range p.cfg.Slots {
		e.Stored += p.s.Slots[i].stored()
	}
	return e
}

// Energy is the rack's ledger, in joules since New.
type Energy struct {
	Supply float64           // given by the supply, its own droop included
	Unit   [MaxSlots]float64 // taken by each unit
	Fans   float64           // taken by the fans
	Switch float64           // taken by the network switch
	Ctrl   float64           // taken by rack controller and BMCs
	Loss   float64           // droop, busbar, switches, converters, shunts, bleeders
	Stored float64           // held by the units' capacitors now
}

// Units is the sum over all units.
func (e Energy) Units() float64 {
	var sum float64
	for _, u := range e.Unit {
		sum += u
	}
	return sum
}

// Imbalance is the part of the supply's energy that went nowhere: 0 when energy is kept.
func (e Energy) Imbalance() float64 {
	return e.Supply - (e.Units() + e.Fans + e.Switch + e.Ctrl + e.Loss + e.Stored)
}

func share(v float64) float64 { return max(0, min(v, 1)) }

package headless

import (
	"fmt"

	"github.com/racklet/racklet/firmware/driver/emc2305"
	"github.com/racklet/racklet/firmware/driver/ina228"
	"github.com/racklet/racklet/firmware/driver/tmp117"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/sim/fault"
)

// SlotOf implements fault.Site.
func (r *Rack) SlotOf(unit string) int {
	for _, t := range r.trays {
		if t.name == unit {
			return t.slot
		}
	}
	return 0
}

// Ports implements fault.Site.
func (r *Rack) Ports() []string {
	var ports []string
	for _, t := range r.trays {
		ports = append(ports, t.name)
	}
	return append(ports, "gateway")
}

// FanCount implements fault.Site.
func (r *Rack) FanCount() int { return fans }

// room is the temperature around the rack unless a fault says otherwise, in °C.
const room = 23

// Apply implements fault.Body.
func (r *Rack) Apply(_, after *fault.Effects) error {
	r.effects = after
	if after.Ambient != 0 {
		r.plant.SetAmbient(after.Ambient)
	} else {
		r.plant.SetAmbient(room)
	}
	r.jam, r.hung = after.Jam, after.RMC.Hung
	r.chips.SetFault(ina228.DefaultAddress, after.RMC.Power)
	r.chips.SetFault(tmp117.DefaultAddress, after.RMC.Temperature)
	r.chips.SetFault(emc2305.DefaultAddress, after.RMC.Fans)
	r.worsen(after)
	r.plant.SetFaults(after.Plant)
	for _, t := range r.trays {
		e := &after.Trays[t.slot-1]
		if present := r.plant.Slot(t.slot).Present; present == e.Pulled {
			r.plant.SetPresent(t.slot, !e.Pulled)
		}
		t.hung = e.Hung
		t.busy = -1
		if e.Busy {
			t.busy = e.CPU
		}
		t.chips.SetFault(ina228.DefaultAddress, e.Power)
		t.chips.SetFault(tmp117.DefaultAddress, e.Temperature)
		if !e.KeyStolen {
			t.ghost.stolen = false
		}
	}
	return nil
}

// Once implements fault.Body.
func (r *Rack) Once(f *rack.FaultSpec) error {
	if f.Kind == "rmc-restart" {
		if r.rmc == nil {
			return fmt.Errorf("the RMC has no power")
		}
		return r.startRMC()
	}
	n := r.SlotOf(f.Target)
	if n == 0 {
		return fmt.Errorf("no unit %q", f.Target)
	}
	t := r.trays[n-1]
	switch f.Kind {
	case "bmc-restart":
		if t.bmc == nil {
			return fmt.Errorf("the BMC of slot %d has no power", n)
		}
		return r.startBMC(t)
	case "flash-flip":
		off, bit := fault.FlashBit(f)
		return t.flash.FlipBit(off, bit)
	case "unit-reset":
		t.ghost.press(r.now)
		return nil
	}
	return fmt.Errorf("%s needs machines", f.Kind)
}

// Look implements fault.Body.
func (r *Rack) Look() *fault.View {
	v := &fault.View{Now: r.Now(), Rack: r.plant.Rack(), Energy: r.plant.Energy(), RMCAlive: r.rmc != nil && !r.hung, Starts: r.starts}
	for i := range fans {
		v.Fans = append(v.Fans, r.plant.Fan(i))
	}
	if v.RMCAlive {
		v.RMC = r.rmc.State()
		r.events += uint64(r.log.Read(v.RMC.LastEvent, func(req, resp []byte) int { return r.rmc.Handle(wire.SideDebug, r.now, req, resp) }, func(e *wire.Event) {
			r.words += fault.Words(e)
			if n := int(e.Slot); n >= 1 && n <= len(r.trays) {
				r.trays[n-1].words += fault.Words(e)
			}
		}))
	}
	for _, t := range r.trays {
		u := fault.UnitView{Unit: t.name, Slot: t.slot, Truth: r.plant.Slot(t.slot), BMC: "off", Starts: t.starts, Machine: t.ghost.phase(), Unverified: t.ghost.bad}
		if b := t.bmc; b != nil {
			u.BMC, u.Said = "alive", b.UnitState()
			if t.hung {
				u.BMC = "hung"
			} else {
				r.events += uint64(t.log.Read(u.Said.LastEvent, func(req, resp []byte) int { return b.Handle(wire.SideDebug, r.now, req, resp) }, func(e *wire.Event) { t.words += fault.Words(e) }))
			}
			if says := r.effects.Trays[t.slot-1].Says; says != "" {
				fault.Pretend(&u.Said, says)
			}
		}
		u.Log = " " + t.words
		v.Units = append(v.Units, u)
	}
	v.Log, v.Events = " "+r.words, r.events
	return v
}

// forget empties what logs are asked for: what was before the scenario does not count.
func (r *Rack) forget() {
	r.Look()
	r.words = ""
	for _, t := range r.trays {
		t.words = ""
	}
}

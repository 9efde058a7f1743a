package fault

import (
	"time"

	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/sim/chip"
	"github.com/racklet/racklet/sim/netswitch"
	"github.com/racklet/racklet/sim/plant"
)

// Effects are what all active faults do to the rack together. The zero value is a whole rack. Two Effects can be
// compared part by part, so that a Body touches only what changed.
type Effects struct {
	Plant   plant.Faults
	Ambient float64 // °C; 0: the room's own
	Jam     bool
	RMC     RMCEffects
	Trays   [plant.MaxSlots]TrayEffects // slot n at index n-1
	Cables  map[string]Cable            // by port
	Git     Service
	Mirror  Service
}

// RMCEffects is what is broken at the RMC.
type RMCEffects struct {
	Hung                     bool
	Power, Temperature, Fans chip.Fault
}

// TrayEffects is what is broken in one tray.
type TrayEffects struct {
	Pulled, Hung, Silent, KeyStolen bool
	Slow                            time.Duration
	Says                            string // the power state that the BMC claims; "": the truth
	Power, Temperature              chip.Fault
	ClockAhead                      time.Duration
	DiskFull                        bool
	Busy                            bool
	CPU                             float64 // while Busy
}

// Cable is what is wrong with one cable of the switch.
type Cable struct {
	FromDevice, ToDevice netswitch.Fault
	Group                int // ports of different groups do not hear each other
}

// Service is how a service of the neighbourhood behaves.
type Service int

// States of a service.
const (
	ServiceUp Service = iota
	ServiceDown
	ServiceReplays // serves what was current once
	ServiceForged  // serves what one owner's key signed
)

// A Site tells where things are.
type Site interface {
	// SlotOf returns the slot of a unit, from 1; 0: there is no such unit.
	SlotOf(unit string) int
	// Ports lists the switch's ports.
	Ports() []string
	// FanCount is the number of fans.
	FanCount() int
}

// compose adds up what active faults do, in their order.
func compose(site Site, active []*Active) *Effects {
	e := &Effects{Cables: map[string]Cable{}}
	for n, a := range active {
		e.add(site, &a.Fault, n+1)
	}
	return e
}

func (e *Effects) add(site Site, f *rack.FaultSpec, group int) {
	tray, slot := &TrayEffects{}, &plant.SlotFault{}
	if n := site.SlotOf(f.Target); n > 0 {
		tray, slot = &e.Trays[n-1], &e.Plant.Slot[n-1]
	}
	fan := &plant.FanFault{}
	if n, ok := rack.FanNumber(f.Target); ok && n >= 1 && n <= plant.MaxFans {
		fan = &e.Plant.Fan[n-1]
	}
	cable := func(edit func(*netswitch.Fault)) {
		c := e.Cables[f.Target]
		edit(&c.FromDevice)
		edit(&c.ToDevice)
		e.Cables[f.Target] = c
	}
	length := func(name string) time.Duration { return time.Duration(f.Number(name) * float64(time.Second)) }
	switch f.Kind {
	case "ambient":
		e.Ambient = f.Number("temperature")
	case "bmc-hang":
		tray.Hung = true
	case "bmc-lies-power":
		tray.Power.Lie = f.Number("lie")
	case "bmc-lies-state":
		tray.Says = f.Word("state")
	case "bmc-lies-temperature":
		tray.Temperature.Lie = f.Number("lie")
	case "bmc-sensor-frozen":
		tray.Temperature.Frozen = true
	case "bmc-sensor-lost":
		tray.Temperature.Absent = true
	case "bmc-slow":
		tray.Slow = max(tray.Slow, length("delay"))
	case "brown-out":
		e.Plant.Sag = max(e.Plant.Sag, f.Number("sag"))
	case "bus-jam":
		e.Jam = true
	case "clock-skew":
		tray.ClockAhead = length("ahead")
	case "disk-full":
		tray.DiskFull = true
	case "fan-no-tach":
		fan.NoTach = true
	case "fan-stuck":
		fan.Stuck = true
	case "fan-worn":
		fan.Worn = max(fan.Worn, f.Number("worn"))
	case "git-down":
		e.Git = ServiceDown
	case "metadata-replay":
		e.Git = ServiceReplays
	case "owner-key-stolen":
		e.Git = ServiceForged
	case "mirror-down":
		e.Mirror = ServiceDown
	case "heatsink-off":
		slot.HeatOff = max(slot.HeatOff, f.Number("share"))
	case "inlet-blocked":
		e.Plant.Blocked = max(e.Plant.Blocked, f.Number("share"))
	case "overheating":
		e.Plant.Blocked = 1
		e.Ambient = f.Number("temperature")
	case "link-bandwidth":
		cable(func(c *netswitch.Fault) { c.Bandwidth = int64(f.Number("rate")) })
	case "link-cut":
		cable(func(c *netswitch.Fault) { c.Down = true })
	case "link-delay":
		cable(func(c *netswitch.Fault) { c.Delay += length("delay"); c.Jitter += length("jitter") })
	case "link-loss":
		cable(func(c *netswitch.Fault) { c.Loss = max(c.Loss, f.Number("loss")) })
	case "link-reorder":
		cable(func(c *netswitch.Fault) { c.Reorder = max(c.Reorder, f.Number("share")) })
	case "link-one-way":
		c := e.Cables[f.Target]
		if f.Word("direction") == "from-device" {
			c.FromDevice.Down = true
		} else {
			c.ToDevice.Down = true
		}
		e.Cables[f.Target] = c
	case "load":
		tray.Busy, tray.CPU = true, f.Number("cpu")
	case "partition":
		for _, name := range f.Targets() {
			c := e.Cables[name]
			c.Group = group
			e.Cables[name] = c
		}
	case "power-cut":
		e.Plant.Cut = true
	case "rmc-hang":
		e.RMC.Hung = true
	case "rmc-sensor-lost":
		switch f.Word("chip") {
		case "temperature":
			e.RMC.Temperature.Absent = true
		case "power":
			e.RMC.Power.Absent = true
		default:
			e.RMC.Fans.Absent = true
		}
	case "tray-pulled":
		tray.Pulled = true
	case "unit-key-stolen":
		tray.KeyStolen = true
	case "unit-power-cut":
		slot.OpenFuse = true
	case "unit-short":
		slot.Short = true
	case "unit-silent":
		tray.Silent = true
	}
}

package headless

import (
	"github.com/racklet/racklet/firmware/bmc"
	"github.com/racklet/racklet/firmware/driver/tmp117"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/sim/chip"
	"github.com/racklet/racklet/sim/fault"
)

// Defects that can be planted in the reactions of the rack, with the scenario that catches each (go test -run Mutation).
// They are planted where firmware and world meet, so the firmware itself stays as it is.
var Defects = map[string]string{
	"fans-not-raised":       "stuck-fan",         // the fans do not get the duty
	"sensor-loss-ignored":   "inlet-sensor-lost", // the inlet's sensor goes on answering
	"stagger-ignored":       "rack-power-cut",    // no time between starts
	"throttle-ignored":      "overheating",       // limits that nobody reaches
	"shutdown-ignored":      "overheating",       // the same for the second limit alone
	"budget-ignored":        "too-many-units",    // a budget that no supply has
	"medium-unverified":     "flash-flip",        // the unit boots past the BMC's check
	"floor-lowered":         "rack-power-cut",    // what the BMC's flash holds is lost with the power
	"desired-forgotten":     "rack-power-cut",    // the same, and nobody says again what is desired
	"refusal-ignored":       "replayed-metadata", // the unit takes what source.Verify refused
	"silence-believed":      "silent-bmc",        // a BMC that hangs is answered for
	"over-current-spreads":  "short-circuit",     // a short pulls the supply down
	"heartbeat-not-watched": "unit-silent",       // the BMC waits for heartbeats for ever
}

// drive carries a fan's drive from its controller to the fan.
func (r *Rack) drive(fan int, share float64) {
	if r.defect == "fans-not-raised" {
		share = min(share, 0.4)
	}
	r.plant.SetDrive(fan, share)
}

// spoil changes policies so that a reaction fails to come.
func (r *Rack) spoil(p *wire.Policies) {
	switch r.defect {
	case "stagger-ignored":
		p.StaggerMillis = 0
	case "throttle-ignored":
		p.ThrottleMilliCelsius, p.ShutdownMilliCelsius = 119_000, 120_000
	case "shutdown-ignored":
		p.ShutdownMilliCelsius = 120_000
	case "budget-ignored":
		p.BudgetMilliwatts = 900_000
	}
}

// lossy says whether a BMC loses what its flash holds when it starts again.
func (r *Rack) lossy() bool { return r.defect == "floor-lowered" || r.defect == "desired-forgotten" }

// worsen changes what faults do, so that a protection fails.
func (r *Rack) worsen(e *fault.Effects) {
	switch r.defect {
	case "over-current-spreads":
		for i := range r.trays {
			if e.Plant.Slot[i].Short {
				e.Plant.Sag = 0.6
			}
		}
	case "sensor-loss-ignored":
		r.chips.SetFault(tmp117.DefaultAddress, chip.Fault{})
	}
}

// limits are the BMCs' own.
func (r *Rack) limits() (l bmc.Limits) {
	if r.defect == "heartbeat-not-watched" {
		l.ReportMillis = 1 << 31
	}
	return l
}

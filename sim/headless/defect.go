package headless

import (
	"github.com/racklet/racklet/firmware/wire"
)

// Defects that can be planted, to see that a scenario catches each of them (go test -run Mutation).
var Defects = []string{
	"fans-not-raised", "stagger-ignored", "throttle-ignored", "shutdown-ignored", "budget-ignored",
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

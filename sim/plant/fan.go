package plant

// The fans are Noctua NF-A4x20 5V PWM (maker's specification): 5000 rpm ± 10 % at full drive, 1200 rpm at 20 %, 9.4 m³/h
// free air, 0.5 W, two tachometer pulses per turn. The maker's "PWM specifications white paper" has speed rise linearly
// with the duty from 20 % on, minimum speed below, and lets a fan stop at 0 %.
const (
	fanMax       = 5000.0       // rpm
	fanMin       = 1200.0       // rpm
	fanMinDrive  = 0.2          //
	fanStop      = 0.05         // below this drive it stands (ours)
	fanFlow      = 9.4 / 3600.0 // m³/s at fanMax, free air
	fanWatts     = 0.5
	fanTolerance = 0.1

	fanSpinUp   = 0.9  // s, time constant upwards (ours)
	fanSpinDown = 1.6  // s, coasting (ours)
	fanStuckFor = 0.15 // s until a blocked rotor stands (ours)
	fanStalled  = 0.6  // share of full power that a blocked rotor takes (ours)
)

type fan struct {
	Drive     float64
	RPM       float64
	Turns     float64
	Watts     float64 // demand; zero while the auxiliary supply is off
	Tolerance float64
}

// target is the speed that a drive leads to.
func (f *fan) target(fault FanFault, powered bool) float64 {
	switch {
	case fault.Stuck, !powered, f.Drive < fanStop:
		return 0
	case f.Drive < fanMinDrive:
		return fanMin * f.Tolerance * (1 - fault.Worn)
	}
	return (fanMin + (fanMax-fanMin)*(f.Drive-fanMinDrive)/(1-fanMinDrive)) * f.Tolerance * (1 - fault.Worn)
}

func (p *Plant) stepFans(t float64) {
	powered := p.s.standby()
	for i := range p.cfg.Fans {
		f, fault := &p.s.Fans[i], p.s.Faults.Fan[i]
		goal := f.target(fault, powered)
		tau := fanSpinUp
		if fault.Stuck {
			tau = fanStuckFor
		} else if goal < f.RPM {
			tau = fanSpinDown
		}
		before := f.RPM
		f.RPM += (goal - f.RPM) * t / (tau + t)
		if f.RPM < 1 {
			f.RPM = 0
		}
		f.Turns += (before + f.RPM) / 2 / 60 * t
		f.Watts = 0
		if powered && f.Drive >= fanStop {
			n := f.RPM / fanMax
			f.Watts = fanWatts * (0.08 + 0.92*n*n*n) // power goes with the cube of the speed
			if fault.Stuck {
				f.Watts = fanWatts * fanStalled
			}
		}
	}
}

// system is the share of the free-air flow that the rack's trays let through (ours).
const system = 0.55

// flow is the air through the whole rack in m³/s.
func (p *Plant) flow() float64 {
	var sum float64
	standing := 0
	for i := range p.cfg.Fans {
		n := p.s.Fans[i].RPM / fanMax
		sum += fanFlow * n
		if n < 0.05 {
			standing++
		}
	}
	// Air comes back through a fan that stands still.
	sum *= 1 - 0.3*float64(standing)/float64(p.cfg.Fans)
	return sum * system * (1 - p.s.Faults.Blocked)
}

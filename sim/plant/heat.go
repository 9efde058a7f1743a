package plant

// Heat flows SoC → tray air → exhaust, and a little through the case. Every tray takes an equal part of the rack's air at
// inlet temperature; some exhaust finds its way back to the inlet, more when the inlet is covered.
const (
	airHeat   = 1206.0 // J/(m³·K): 1.2 kg/m³ · 1005 J/(kg·K)
	socHeat   = 9.0    // J/K of SoC and heat sink (ours: a minute and a half to warm up, as boards do)
	airMass   = 45.0   // J/K of tray air, board and tray (ours)
	caseLeak  = 0.28   // W/K from tray air to the room, still air included (ours)
	neighbour = 0.08   // W/K between the air of adjacent trays (ours)
	recycle   = 0.04   // share of exhaust that comes back (ours)
	covered   = 0.5    // more of it when the inlet is covered (ours)
	inletTime = 5.0    // s
)

// sinkGain makes the heat sink better with moving air: at full fans, K/W falls to about 45 % (ours).
func sinkGain(flowPerTray float64) float64 { return 1 + 1.2*min(flowPerTray/0.00055, 1.5) }

// stepHeat integrates implicitly, so that any stride is stable.
func (p *Plant) stepHeat(t float64) {
	s := &p.s
	n := len(p.cfg.Slots)
	flow := p.flow()
	per := flow / float64(n)
	stream := airHeat * per // W/K carried off each tray
	var old [MaxSlots]float64
	for i := range p.cfg.Slots {
		old[i] = s.Slots[i].Air
	}
	var mix float64
	for i := range p.cfg.Slots {
		u, b := &s.Slots[i], &p.cfg.Slots[i]
		sink := b.Sink * u.Tolerance / sinkGain(per)
		sink /= max(1-s.Faults.Slot[i].HeatOff, 0.1)
		g := 1 / sink
		hot := u.Heat * b.SoC
		rest := u.Heat - hot + u.Waste
		leak := caseLeak*s.Ambient + stream*s.Inlet
		drain := caseLeak + stream
		for _, j := range [...]int{i - 1, i + 1} {
			if j >= 0 && j < n {
				leak += neighbour * old[j]
				drain += neighbour
			}
		}
		// (C1/t + g)·T1 − g·T2 = C1/t·T1' + hot;  −g·T1 + (C2/t + g + drain)·T2 = C2/t·T2' + rest + leak
		a, d := socHeat/t+g, airMass/t+g+drain
		x, y := socHeat/t*u.SoC+hot, airMass/t*u.Air+rest+leak
		det := a*d - g*g
		u.SoC, u.Air = (x*d+g*y)/det, (a*y+g*x)/det
		mix += u.Air
	}
	s.Exhaust = mix / float64(n)
	back := recycle + covered*s.Faults.Blocked
	goal := s.Ambient + back*(s.Exhaust-s.Ambient)
	s.Inlet += (goal - s.Inlet) * t / (inletTime + t)
}

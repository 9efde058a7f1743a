package rmc

import (
	"errors"

	"github.com/racklet/racklet/firmware/wire"
)

// Implementation constants.
const (
	throttleShare = 60 // percent of its power that a throttled unit is granted
	hotPolls      = 2  // readings above the shutdown limit before a unit is shut down
	maxStagger    = 10 * 60 * 1000
	hottestCurve  = 150_000 // m°C: no sensor of ours reads more
)

var errPolicy = errors.New("rmc: impossible policies")

// Check returns why policies cannot be worked by; the zero value when they can. It looks at what wire.ParsePolicies leaves
// open: that refuses curves that fall or are empty.
func Check(p *wire.Policies) wire.Failure {
	switch {
	case p.CurveCount == 0 || p.CurveCount > wire.MaxCurvePoints:
		return wire.MakeFailure("policy.curve", "1 to 8 points", number(uint32(p.CurveCount))+" points")
	case p.Curve[0].MilliCelsius >= p.ThrottleMilliCelsius:
		return wire.MakeFailure("policy.curve", "first point below throttle at "+degrees(p.ThrottleMilliCelsius), degrees(p.Curve[0].MilliCelsius))
	case p.Curve[p.CurveCount-1].MilliCelsius > hottestCurve:
		return wire.MakeFailure("policy.curve", "points up to "+degrees(hottestCurve), degrees(p.Curve[p.CurveCount-1].MilliCelsius))
	case p.Curve[p.CurveCount-1].DutyPercent == 0:
		return wire.MakeFailure("policy.curve", "a curve that moves air", "0 % at every temperature")
	case p.ReserveMilliwatts >= p.BudgetMilliwatts:
		return wire.MakeFailure("policy.budget", "budget above the reserve of "+watts(p.ReserveMilliwatts), watts(p.BudgetMilliwatts))
	case p.StaggerMillis > maxStagger:
		return wire.MakeFailure("policy.stagger", "at most "+number(maxStagger)+" ms", number(p.StaggerMillis)+" ms")
	}
	for i := 1; i < int(p.CurveCount); i++ {
		if p.Curve[i].MilliCelsius <= p.Curve[i-1].MilliCelsius || p.Curve[i].DutyPercent < p.Curve[i-1].DutyPercent {
			return wire.MakeFailure("policy.curve", "temperatures that rise, duties that do not fall", "point "+number(uint32(i+1)))
		}
	}
	if p.ThrottleMilliCelsius >= p.ShutdownMilliCelsius || p.HysteresisMilliCelsius < 0 {
		return wire.MakeFailure("policy.limits", "throttle below shutdown", degrees(p.ThrottleMilliCelsius)+", "+degrees(p.ShutdownMilliCelsius))
	}
	return wire.Failure{}
}

// Claim is what one slot asks of the budget. Powers are in milliwatts.
type Claim struct {
	Wants uint32 // 0: nothing, what it has is withdrawn
	Cap   uint32 // it gets no more; 0: no limit
	Has   uint32 // granted already
	Runs  bool   // its unit draws power already, granted or not
	Draws uint32 // what to reckon with while it runs without a grant, as after a withdrawal until it is off
}

func (c *Claim) goal() uint32 {
	if c.Cap != 0 && c.Cap < c.Wants {
		return c.Cap
	}
	return c.Wants
}

// Allot shares a budget out. The sum of the grants it returns never exceeds the budget.
//
// Who has something keeps it, as far as still wanted; if that is too much, the highest slots lose theirs. Then come units
// that run without a grant, then raises, and last, if start is true, one unit that is to start: the first that fits beside
// those that still run after a withdrawal, from slot index next on and around. Its grant must also fit into room, what the meter leaves. It returns the index of the
// unit started, or -1.
func Allot(budget, room uint32, claims *[wire.MaxSlots]Claim, start bool, next uint8) (grants [wire.MaxSlots]uint32, started int) {
	left := budget
	for i := range claims {
		grants[i] = min(claims[i].Has, claims[i].goal())
		if grants[i] > left {
			grants[i] = 0
		}
		left -= grants[i]
	}
	for i := range claims {
		c := &claims[i]
		if c.Runs && c.Has == 0 && c.goal() <= left {
			grants[i] = c.goal()
			left -= grants[i]
		}
	}
	for i := range claims {
		c := &claims[i]
		if grants[i] == 0 || c.goal() <= grants[i] {
			continue
		}
		if more := c.goal() - grants[i]; more <= left {
			grants[i] += more
			left -= more
		}
	}
	if !start {
		return grants, -1
	}
	for i := range claims {
		if claims[i].Runs && grants[i] == 0 {
			left -= min(claims[i].Draws, left)
		}
	}
	for n := range claims {
		i := (int(next) + n) % len(claims)
		c := &claims[i]
		if c.Has == 0 && !c.Runs && c.goal() > 0 && c.goal() <= left && c.goal() <= room {
			grants[i] = c.goal()
			return grants, i
		}
	}
	return grants, -1
}

// decide makes grants out of what the slots want. Sending them is transact's business.
func (r *RMC) decide() {
	var claims [wire.MaxSlots]Claim
	start := r.mayStart()
	for i := range r.cfg.Slots {
		t := &r.slots[i]
		if t.present && !t.known && !t.silent && !t.doubted {
			start = false // its unit may be running; wait for it to say so, or to stay silent
		}
		claims[i] = r.claim(int(i))
	}
	r.watchBudget(&claims)
	budget := r.policy.BudgetMilliwatts - r.policy.ReserveMilliwatts
	room := ^uint32(0)
	if !r.powerLost {
		room = r.policy.BudgetMilliwatts - min(r.power.Milliwatts, r.policy.BudgetMilliwatts)
	}
	grants, started := Allot(budget, room, &claims, start, r.nextStart)
	for i := range r.cfg.Slots {
		t := &r.slots[i]
		switch {
		case grants[i] != t.grant:
			t.refused = false
			r.setGrant(int(i), grants[i])
		case start && started < 0 && claims[i].Wants > 0 && grants[i] == 0 && !t.refused:
			t.refused = true
			f := wire.MakeFailure("power.budget", watts(claims[i].goal())+" left of "+watts(r.policy.BudgetMilliwatts), watts(min(budget-sum(&grants), room))+" left")
			r.event(wire.EventPower, i+1, 0, "", &f)
		}
	}
	if started >= 0 {
		r.starting, r.grantedAt = started, r.now
		r.nextStart = uint8((started + 1) % wire.MaxSlots)
	}
}

// mayStart says whether a unit may be granted its start now.
func (r *RMC) mayStart() bool {
	if r.starting >= 0 {
		t := &r.slots[r.starting]
		runs := t.known && t.heardAt >= r.grantedAt && t.state.State == wire.StateRunning
		if !runs && t.grant > 0 && r.now-r.grantedAt < uint64(r.limits.StartMillis) {
			return false
		}
		r.starting, r.started, r.startedAt = -1, true, r.now
	}
	low := !r.powerLost && uint64(r.power.Millivolts)*1000 < uint64(r.cfg.SupplyMillivolts)*sagPermille
	if low != r.low {
		r.low = low
		r.event(wire.EventSensor, 0, came(!low), "supply voltage", nil)
		if !low {
			r.started, r.startedAt = true, r.now
		}
	}
	return !low && (!r.started || r.now-r.startedAt >= uint64(r.policy.StaggerMillis))
}

func sum(grants *[wire.MaxSlots]uint32) (total uint32) {
	for _, g := range grants {
		total += g
	}
	return total
}

func (r *RMC) setGrant(i int, mW uint32) {
	t := &r.slots[i]
	before := t.grant
	t.grant, t.confirmed, t.sentAt = mW, false, 0
	switch {
	case mW == 0:
		t.withdrawn = true
		r.event(wire.EventPower, uint8(i+1), 2, "grant withdrawn", nil)
	case before == 0:
		r.event(wire.EventPower, uint8(i+1), 1, "granted "+watts(mW), nil)
	}
}

// claim says what slot i asks for now.
func (r *RMC) claim(i int) Claim {
	t := &r.slots[i]
	c := Claim{Has: t.grant}
	if !t.present || !t.known {
		return Claim{}
	}
	s := &t.state
	c.Runs = s.State == wire.StateRunning || s.State == wire.StateDraining || s.Rail
	c.Draws = max(s.GrantMilliwatts, s.Milliwatts)
	switch s.State {
	case wire.StatePowering, wire.StateRunning:
		if !t.withdrawn {
			c.Wants = s.RequestMilliwatts
		}
	case wire.StateDraining:
		c.Wants = t.grant // it keeps what it has until it is off
	}
	if t.silent && t.grant == 0 {
		c.Wants = 0 // what it last asked for is no longer believed
	}
	c.Cap = r.policy.SlotCapMilliwatts[i]
	if c.Cap == 0 {
		c.Cap = r.policy.UnitCapMilliwatts
	}
	switch t.heat {
	case heatThrottled:
		c.Cap = max(c.goal()/100*throttleShare, 1)
	case heatShutdown:
		c.Wants = 0
	}
	return c
}

// watchBudget withdraws the highest running slot's grant while the rack draws more than its budget, as meter and BMCs agree.
func (r *RMC) watchBudget(claims *[wire.MaxSlots]Claim) {
	var units uint32
	last := -1
	for i := range r.cfg.Slots {
		if t := &r.slots[i]; t.present && t.known && !t.silent {
			units += t.state.Milliwatts
			if t.grant > 0 && claims[i].Runs && t.state.State == wire.StateRunning {
				last = int(i)
			}
		}
	}
	r.over = !r.powerLost && r.power.Milliwatts > r.policy.BudgetMilliwatts
	if !r.over || units+r.policy.ReserveMilliwatts <= r.policy.BudgetMilliwatts {
		r.overSince = r.now
		return
	}
	if r.now-r.overSince < uint64(r.limits.OverMillis) || last < 0 {
		return
	}
	r.overSince = r.now
	f := wire.MakeFailure("power.budget", "at most "+watts(r.policy.BudgetMilliwatts), watts(r.power.Milliwatts))
	r.event(wire.EventFailure, uint8(last+1), 0, "rack over budget", &f)
	claims[last].Wants = 0
}

// learn takes a BMC's answer to a poll.
func (r *RMC) learn(i int, s *wire.UnitState) {
	if r.doubt(i, s) {
		return
	}
	t := &r.slots[i]
	fresh := !t.known
	if t.silent {
		t.silent = false
		r.event(wire.EventBus, uint8(i+1), 1, "BMC answers again", nil)
	}
	if fresh {
		t.heardAt = r.now
	}
	t.known, t.missed, t.heardAt, t.state = true, 0, r.now, *s
	switch s.State {
	case wire.StatePowering, wire.StateRunning, wire.StateDraining:
		switch {
		case fresh && t.grant == 0:
			// We restarted, or the tray is new: what it was granted counts, as far as the budget goes (Allot).
			t.grant, t.confirmed = s.GrantMilliwatts, true
			defer r.decide()
		case s.GrantMilliwatts == t.grant:
			t.confirmed = true
		case s.GrantMilliwatts == 0 && s.State == wire.StatePowering && (t.confirmed || r.starting != i):
			// It has been off meanwhile, as after a brown-out: it must wait its turn again.
			t.grant, t.confirmed = 0, false
		}
		t.withdrawn = t.withdrawn && (s.State != wire.StatePowering || s.GrantMilliwatts != 0)
	default:
		t.grant, t.confirmed, t.withdrawn, t.refused = 0, false, false, false
	}
	r.learnHeat(i, s)
}

func (r *RMC) learnHeat(i int, s *wire.UnitState) {
	t := &r.slots[i]
	if s.Flags&wire.FlagSensorLost != 0 {
		return // keep what was decided; the fans run at full speed
	}
	if r.cold(i, s) {
		return // the same
	}
	c := s.MilliCelsius
	if c >= r.policy.ShutdownMilliCelsius {
		t.hotPolls = min(t.hotPolls+1, hotPolls)
	} else {
		t.hotPolls = 0
	}
	was := t.heat
	switch {
	case t.hotPolls >= hotPolls:
		t.heat = heatShutdown
	case c < r.policy.ThrottleMilliCelsius-r.policy.HysteresisMilliCelsius:
		t.heat = heatNormal
	case c >= r.policy.ThrottleMilliCelsius && t.heat == heatNormal:
		t.heat = heatThrottled
	}
	if t.heat == was {
		return
	}
	var f wire.Failure
	switch t.heat {
	case heatThrottled:
		f = wire.MakeFailure("thermal.throttle", "below "+degrees(r.policy.ThrottleMilliCelsius), degrees(c))
	case heatShutdown:
		f = wire.MakeFailure("thermal.shutdown", "below "+degrees(r.policy.ShutdownMilliCelsius), degrees(c))
	}
	r.event(wire.EventThermal, uint8(i+1), uint16(t.heat), "", &f)
}

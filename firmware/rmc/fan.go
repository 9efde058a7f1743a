package rmc

import "github.com/racklet/racklet/firmware/wire"

// fullSpeed is the duty while something is unknown.
const fullSpeed = 100

// Codes of EventFan about all fans, beside 0 and 1 for a single one that stalls and comes back.
const (
	fanFull  = 2 // full speed, the text says why
	fanCurve = 3 // back on the curve
)

// Duty is a curve's duty at a temperature, in percent, rounded up: the first point's below it, the last one's above, a
// straight line between. Temperatures of the curve must rise.
func Duty(curve []wire.CurvePoint, milliCelsius int32) uint8 {
	if len(curve) == 0 {
		return fullSpeed
	}
	if milliCelsius <= curve[0].MilliCelsius {
		return curve[0].DutyPercent
	}
	for i := 1; i < len(curve); i++ {
		a, b := curve[i-1], curve[i]
		if milliCelsius > b.MilliCelsius {
			continue
		}
		span := int64(b.MilliCelsius) - int64(a.MilliCelsius)
		rise := (int64(b.DutyPercent) - int64(a.DutyPercent)) * (int64(milliCelsius) - int64(a.MilliCelsius))
		return a.DutyPercent + uint8((rise+span-1)/span)
	}
	return curve[len(curve)-1].DutyPercent
}

// Hold is a temperature with hysteresis: it follows upwards at once and downwards only when the temperature has fallen
// further than the hysteresis below it. The zero value takes the first temperature it is given.
type Hold struct {
	set bool
	at  int64
}

// Follow takes a temperature and returns the held one, both in m°C. The held one is never below the temperature and never
// more than the hysteresis above.
func (h *Hold) Follow(milliCelsius, hysteresis int32) int32 {
	t := int64(milliCelsius)
	switch {
	case !h.set, t > h.at:
		h.set, h.at = true, t
	case t < h.at-int64(hysteresis):
		h.at = t + int64(hysteresis)
	}
	return int32(min(h.at, 1<<31-1))
}

type fan struct {
	duty      uint8
	written   bool
	read      bool // its speed has been read since the start
	lost      bool // the controller does not answer
	rpm       uint32
	stalled   bool
	turnsFrom uint64 // when it last turned, or was told to
}

// driveFans sets every fan's duty.
func (r *RMC) driveFans() {
	if r.ports.Fans == nil {
		return
	}
	hottest, why := r.hottest()
	switch {
	case why != "":
	case !r.heard:
		why = "management computer not heard yet"
	case r.quiet:
		why = "management computer silent"
	}
	for i := range r.cfg.Fans {
		switch f := &r.fans[i]; {
		case why != "":
		case !f.read:
			why = "tachometers not read yet"
		case f.stalled:
			why = "a fan stands still"
		case f.lost:
			why = "fan controller does not answer"
		}
	}
	if why == "" && hottest >= r.policy.ThrottleMilliCelsius {
		why = "above the throttle limit"
	}
	if why != r.failsafe {
		if why != "" {
			r.event(wire.EventFan, 0, fanFull, why, nil)
		} else {
			r.event(wire.EventFan, 0, fanCurve, "", nil)
		}
		r.failsafe = why
	}
	duty := uint8(fullSpeed)
	if why == "" {
		duty = Duty(r.policy.Curve[:r.policy.CurveCount], r.hold.Follow(hottest, r.policy.HysteresisMilliCelsius))
	}
	for i := range r.cfg.Fans {
		f := &r.fans[i]
		if f.written && f.duty == duty {
			continue
		}
		if f.duty == 0 {
			f.turnsFrom = r.now
		}
		f.written = r.ports.Fans.SetDuty(int(i), duty) == nil // else it is tried again at the next Step
		f.duty = duty
	}
}

// hottest returns the highest temperature known, and which one that matters is missing, if one is.
func (r *RMC) hottest() (milliCelsius int32, missing string) {
	milliCelsius = r.inlet
	switch {
	case r.inletLost:
		missing = "inlet sensor lost"
	case !r.inletRead:
		missing = "inlet sensor not read yet"
	}
	for i := range r.cfg.Slots {
		t := &r.slots[i]
		switch {
		case !t.present, !t.known && t.silent:
		case !t.known:
			missing = "a tray not heard yet"
		case t.doubted:
			missing = "a tray that contradicts itself"
		case t.state.State == wire.StateOff || t.state.State == wire.StateFaulted:
			// It needs no air, but a reading that it gives counts.
			if !t.silent && t.state.Flags&wire.FlagSensorLost == 0 {
				milliCelsius = max(milliCelsius, t.state.MilliCelsius)
			}
		case t.silent:
			missing = "a running tray silent"
		case t.state.Flags&wire.FlagSensorLost != 0:
			missing = "a running tray without its sensor"
		case t.cold == doubtPolls:
			missing = "a running tray colder than the inlet"
		default:
			milliCelsius = max(milliCelsius, t.state.MilliCelsius)
		}
	}
	return milliCelsius, missing
}

// readFans reads every fan's speed.
func (r *RMC) readFans() {
	if r.ports.Fans == nil {
		return
	}
	for i := range r.cfg.Fans {
		f := &r.fans[i]
		rpm, stands, err := r.ports.Fans.Speed(int(i))
		if f.lost != (err != nil) {
			f.lost = err != nil
			r.event(wire.EventSensor, 0, came(!f.lost), "tachometer of fan "+number(uint32(i+1)), nil)
		}
		f.written = false // say it again: the controller may have lost it, or raised it by its own watchdog
		if err != nil {
			continue
		}
		f.rpm = rpm
		if !stands || f.turnsFrom == 0 {
			f.turnsFrom = max(r.now, 1)
		}
		f.read = true
		stalled := stands && r.now-f.turnsFrom >= uint64(r.limits.StallMillis)
		if stalled != f.stalled {
			f.stalled = stalled
			r.event(wire.EventFan, 0, came(!stalled), "fan "+number(uint32(i+1)), nil)
		}
	}
}

func (r *RMC) fansLost() bool {
	for i := range r.cfg.Fans {
		if r.fans[i].lost {
			return true
		}
	}
	return false
}

// came is the code of events of things that are lost (0) and come back (1).
func came(back bool) uint16 {
	if back {
		return 1
	}
	return 0
}

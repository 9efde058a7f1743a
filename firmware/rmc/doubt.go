package rmc

import "github.com/racklet/racklet/firmware/wire"

// A BMC may lie, by a defect or because somebody made it. What one answer says is held against itself and against the
// inlet. An answer that contradicts itself is not taken: what was known before holds, its age grows, and after
// doubtPolls of them in a row the BMC counts as unavailable until it makes sense again. The grant stays reserved and the
// fans blow, as for a BMC that is silent.
const (
	doubtPolls = 5     // in a row: meter and state are not read in the same moment
	drawsOff   = 1_000 // mW that no unit draws while it is off: its meter's offset is far less
	drawsOn    = 100   // mW that every running unit draws
	colder     = 8_000 // m°C below the inlet, which no tray that makes heat can be
)

// contradiction says what in a BMC's answer cannot be; the zero value: nothing.
func contradiction(s *wire.UnitState) wire.Failure {
	if s.Flags&wire.FlagSensorLost != 0 {
		return wire.Failure{} // it says itself that it does not know
	}
	switch s.State {
	case wire.StateOff, wire.StateVerifying, wire.StateFaulted:
		if s.Milliwatts > drawsOff {
			return wire.MakeFailure("bmc.implausible", "no power drawn while "+s.State.String(), watts(s.Milliwatts))
		}
	case wire.StateRunning:
		if s.Rail && s.Milliwatts < drawsOn && s.Millivolts < drawsOn {
			return wire.MakeFailure("bmc.implausible", "voltage and power while running", "none")
		}
	}
	return wire.Failure{}
}

// doubt takes a look at a BMC's answer; it reports whether the answer must not be believed.
func (r *RMC) doubt(i int, s *wire.UnitState) bool {
	t := &r.slots[i]
	f := contradiction(s)
	if f.IsZero() {
		if t.doubted {
			r.event(wire.EventBus, uint8(i+1), 1, "BMC believed again", nil)
		}
		t.doubts, t.doubted = 0, false
		return false
	}
	if t.doubts++; t.doubts >= doubtPolls && !t.doubted {
		t.doubted = true
		r.event(wire.EventFailure, uint8(i+1), 0, "", &f)
	}
	t.doubts = min(t.doubts, doubtPolls)
	return true
}

// cold says whether a running tray reads colder than the air that cools it.
func (r *RMC) cold(i int, s *wire.UnitState) bool {
	t := &r.slots[i]
	if s.State != wire.StateRunning || r.inletLost || !r.inletRead || s.MilliCelsius >= r.inlet-colder {
		if t.cold == doubtPolls {
			r.event(wire.EventSensor, uint8(i+1), 1, "temperature", nil)
		}
		t.cold = 0
		return false
	}
	if t.cold++; t.cold == doubtPolls {
		f := wire.MakeFailure("thermal.sensor", "no colder than the inlet at "+degrees(r.inlet), degrees(s.MilliCelsius))
		r.event(wire.EventSensor, uint8(i+1), 0, "temperature", &f)
	}
	t.cold = min(t.cold, doubtPolls)
	return true
}

package fault

import (
	"strings"
	"time"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/sim/plant"
)

// A View is what can be seen of a rack at one moment: the truth, and what its firmware says.
type View struct {
	Now      time.Duration
	Rack     plant.Rack
	Energy   plant.Energy
	Fans     []plant.Fan
	Units    []UnitView
	RMCAlive bool
	RMC      wire.RackState // the zero value without a living RMC
	Starts   int            // of the RMC
	Log      string         // words of the RMC's log, each between blanks
	Events   uint64         // that all controllers have logged
}

// UnitView is one slot with a unit.
type UnitView struct {
	Unit       string
	Slot       int
	Truth      plant.Slot
	BMC        string // alive, hung or off
	Starts     int    // of the BMC
	Said       wire.UnitState
	Machine    string // what the unit does: off, boot ROM, running, halted
	Unverified bool   // it booted what nobody signed
	Log        string // words of its BMC's log, and of the RMC's about this slot
}

// Read looks a condition's subject and field up; ok is false for a subject that is not there.
func (v *View) Read(c *rack.Condition) (r rack.Reading, ok bool) {
	if n, fan := rack.FanNumber(c.Subject); fan {
		if n < 1 || n > len(v.Fans) {
			return r, false
		}
		return v.fan(n-1, c.Field), true
	}
	switch c.Subject {
	case "rack":
		return v.rack(c.Field), true
	case "units":
		return v.count(c.Field), true
	}
	for i := range v.Units {
		if v.Units[i].Unit == c.Subject {
			return v.unit(&v.Units[i], c.Field), true
		}
	}
	return r, false
}

func word(s string) rack.Reading    { return rack.Reading{Word: s, IsWord: true} }
func number(n float64) rack.Reading { return rack.Reading{Number: n} }

func choose(yes bool, a, b string) rack.Reading {
	if yes {
		return word(a)
	}
	return word(b)
}

func truth(yes bool) rack.Reading { return choose(yes, "true", "false") }

func (v *View) fan(i int, field string) rack.Reading {
	f := v.Fans[i]
	switch field {
	case "duty":
		return number(f.Drive * 100)
	case "rpm":
		return number(f.RPM)
	}
	return choose(v.RMC.Fans[min(i, wire.MaxFans-1)].Flags&wire.FanStalled != 0, "stalled", "ok")
}

func (v *View) rack(field string) rack.Reading {
	flag := func(f uint16) rack.Reading { return truth(v.RMC.Flags&f != 0) }
	switch field {
	case "failsafe":
		return flag(wire.RackFailsafe)
	case "throttling":
		return flag(wire.RackThrottling)
	case "over-budget":
		return flag(wire.RackOverBudget)
	case "sensor":
		return choose(v.RMC.Flags&wire.RackSensorLost != 0, "lost", "ok")
	case "standby":
		return truth(v.Rack.Standby)
	case "tripped":
		return truth(v.Rack.Tripped)
	case "rmc":
		return choose(v.RMCAlive, "alive", "down")
	case "watts":
		return number(v.Rack.Watts)
	case "volts":
		return number(v.Rack.Volts)
	case "inlet":
		return number(v.Rack.Inlet)
	case "granted":
		return number(float64(v.RMC.GrantedMilliwatts) / 1000)
	case "budget":
		return number(float64(v.RMC.BudgetMilliwatts) / 1000)
	case "starts":
		return number(float64(v.Starts))
	}
	return word(v.Log)
}

func (v *View) count(field string) rack.Reading {
	n := 0
	for i := range v.Units {
		u := &v.Units[i]
		switch {
		case field == "running" && u.running(),
			field == "on" && u.Truth.PowerGood,
			field == "available" && v.available(u),
			field == "faulted" && u.Said.State == wire.StateFaulted:
			n++
		}
	}
	return number(float64(n))
}

// running says whether the unit's operating system is up, as its BMC knows.
func (u *UnitView) running() bool {
	return u.Truth.PowerGood && u.Said.State == wire.StateRunning && u.Said.Stage == wire.StageRunning
}

// available says whether the RMC hears the BMC and believes it.
func (v *View) available(u *UnitView) bool { return v.RMCAlive && v.RMC.AnswerMask&(1<<u.Slot) != 0 }

func (v *View) unit(u *UnitView, field string) rack.Reading {
	s := &u.Said
	switch field {
	case "state":
		return word(s.State.String())
	case "stage":
		return word(s.Stage.String())
	case "reason":
		if r := s.Failure.Reason.String(); r != "" {
			return word(r)
		}
		return word("none")
	case "rail":
		return choose(u.Truth.PowerGood, "on", "off")
	case "power":
		return word(strings.ToLower(s.Power.String()))
	case "available":
		return truth(v.available(u))
	case "bmc":
		return word(u.BMC)
	case "evidence":
		return choose(s.Flags&wire.FlagEvidenceVoid != 0, "void", "good")
	case "fallback":
		return truth(s.Flags&wire.FlagFallbackSlot != 0)
	case "sensor":
		return choose(s.Flags&wire.FlagSensorLost != 0, "lost", "ok")
	case "heat":
		return choose(u.Truth.Throttled, "throttled", "ok")
	case "present":
		return truth(u.Truth.Present)
	case "machine":
		return word(strings.ReplaceAll(u.Machine, " ", "-"))
	case "slot":
		return word(map[uint8]string{wire.SlotA: "a", wire.SlotB: "b"}[s.BootSlot])
	case "log":
		return word(u.Log)
	case "age":
		if age := v.RMC.SlotAgeMillis[u.Slot-1]; v.RMCAlive && age != wire.AgeNever {
			return number(float64(age) / 1000)
		}
		return number(1e9)
	case "watts":
		return number(float64(s.Milliwatts) / 1000)
	case "grant":
		return number(float64(s.GrantMilliwatts) / 1000)
	case "celsius":
		return number(float64(s.MilliCelsius) / 1000)
	case "soc":
		return number(u.Truth.SoC)
	case "boots":
		return number(float64(s.BootCount))
	case "resets":
		return number(float64(s.Resets))
	case "sequence":
		return number(float64(s.Floors.Sequence))
	}
	return number(float64(u.Starts))
}

// Words turns an event into the words that a log condition looks for: its kind, and the name of the failed check.
func Words(e *wire.Event) string {
	s := e.Kind.String() + " "
	if r := e.Failure.Reason.String(); r != "" {
		s += r + " "
	}
	return s
}

// Claim changes what a BMC answers to GetUnitState so that it claims another power state. Other answers stay.
func Claim(req, resp []byte, says string) []byte {
	h, _, err := wire.ParseHeader(req)
	if err != nil || says == "" || h.Type != wire.TypeOEM || h.Command != wire.CmdGetUnitState || len(resp) <= wire.HeaderSize+1 {
		return resp
	}
	s, err := wire.ParseUnitState(resp[wire.HeaderSize+1:])
	if err != nil {
		return resp
	}
	Pretend(&s, says)
	return wire.AppendUnitState(append([]byte(nil), resp[:wire.HeaderSize+1]...), &s)
}

// Pretend is Claim for a state at hand.
func Pretend(s *wire.UnitState, says string) {
	switch says {
	case "off":
		s.State, s.Stage, s.Rail = wire.StateOff, wire.StageOff, false
	case "running":
		s.State, s.Stage, s.Rail = wire.StateRunning, wire.StageRunning, true
	}
}

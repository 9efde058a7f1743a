package rmc

import (
	"testing"

	"github.com/racklet/racklet/firmware/wire"
)

func TestContradiction(t *testing.T) {
	for name, c := range map[string]struct {
		s    wire.UnitState
		lies bool
	}{
		"off":                      {wire.UnitState{State: wire.StateOff, Milliwatts: 20}, false},
		"off, drawing":             {wire.UnitState{State: wire.StateOff, Milliwatts: 4000}, true},
		"faulted, drawing":         {wire.UnitState{State: wire.StateFaulted, Milliwatts: 4000}, true},
		"running":                  {wire.UnitState{State: wire.StateRunning, Rail: true, Milliwatts: 4000, Millivolts: 5100}, false},
		"running on nothing":       {wire.UnitState{State: wire.StateRunning, Rail: true}, true},
		"running, rail just lost":  {wire.UnitState{State: wire.StateRunning}, false},
		"running, sensor lost":     {wire.UnitState{State: wire.StateRunning, Rail: true, Flags: wire.FlagSensorLost}, false},
		"off, drawing, it says so": {wire.UnitState{State: wire.StateOff, Milliwatts: 4000, Flags: wire.FlagSensorLost}, false},
	} {
		if f := contradiction(&c.s); f.IsZero() == c.lies {
			t.Errorf("%s: %v", name, f)
		}
	}
}

// One answer that contradicts itself is dropped; only several in a row make a BMC unavailable, and one that makes sense
// brings it back.
func TestDoubt(t *testing.T) {
	r, err := New(Config{Slots: 2, Fans: 1}, Ports{})
	if err != nil {
		t.Fatal(err)
	}
	good := wire.UnitState{State: wire.StateRunning, Rail: true, Milliwatts: 4000, Millivolts: 5100, GrantMilliwatts: 12_000, RequestMilliwatts: 12_000}
	lie := wire.UnitState{State: wire.StateOff, Milliwatts: 4000, Millivolts: 5100}
	r.slots[0].present = true
	answers := func() bool { s := r.State(); return s.AnswerMask&2 != 0 }
	r.learn(0, &good)
	for n := 1; n < doubtPolls; n++ {
		r.learn(0, &lie)
		if !answers() || r.slots[0].state.State != wire.StateRunning {
			t.Fatalf("after %d contradictions: answers %v, state %v", n, answers(), r.slots[0].state.State)
		}
	}
	r.learn(0, &lie)
	if answers() || r.slots[0].state.State != wire.StateRunning {
		t.Errorf("believed: %+v", r.slots[0].state)
	}
	if _, why := r.hottest(); why == "" {
		t.Error("the fans go by the word of a liar")
	}
	r.learn(0, &good)
	if !answers() {
		t.Error("not believed again")
	}
}

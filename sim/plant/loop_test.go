package plant_test

import (
	"crypto/sha256"
	"math"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/sim/chip"
	"github.com/racklet/racklet/sim/plant"
	"pgregory.net/rapid"
)

func TestLoopCountsEnergy(t *testing.T) {
	l := newLoop(t)
	l.on()
	e0, rack0 := l.p.Energy(), l.rmc.State().Millijoules
	var bmc0 [units]uint64
	for i := range bmc0 {
		bmc0[i] = l.state(i).Millijoules
	}
	for k := range 20 {
		for i, y := range l.trays {
			y.cpu = float64((k*7+i*3)%10) / 10
		}
		l.run(15 * time.Second)
		if k == 10 {
			l.startRMC() // a restart loses no energy
		}
	}
	e := l.p.Energy()
	for i := range bmc0 {
		want := (e.Unit[i] - e0.Unit[i]) * 1000
		if got := float64(l.state(i).Millijoules - bmc0[i]); math.Abs(got-want) > want*0.01 {
			t.Errorf("unit %d took %.0f mJ, its BMC counted %.0f", i+1, want, got)
		}
	}
	want := (e.Supply - e0.Supply) * 1000
	got := float64(l.rmc.State().Millijoules - rack0)
	if math.Abs(got-want) > want*0.02 { // the supply's own droop is before the meter
		t.Errorf("supply gave %.0f mJ, the RMC counted %.0f", want, got)
	}
	if s := l.rmc.State(); s.Flags != wire.RackPolicyUnset || s.AnswerMask != 0b11110 {
		t.Errorf("%+v", s)
	}
}

func TestLoopFansFollowTheLoad(t *testing.T) {
	l := newLoop(t)
	l.on()
	l.run(3 * time.Minute)
	idle := l.drive()
	l.cpu(1)
	l.run(8 * time.Minute)
	busy := l.drive()
	if busy <= idle+0.1 || l.p.Slot(2).SoC > 75 {
		t.Errorf("idle %.2f, busy %.2f, SoC %.1f °C", idle, busy, l.p.Slot(2).SoC)
	}
	// At rest the loop is at rest: the duty hardly moves.
	lo, hi := busy, busy
	for range 120 {
		l.run(time.Second)
		lo, hi = min(lo, l.drive()), max(hi, l.drive())
	}
	if hi-lo > 0.05 {
		t.Errorf("duty swings between %.2f and %.2f at constant load", lo, hi)
	}
	t.Logf("idle %.2f, busy %.2f to %.2f, SoC %.1f °C", idle, lo, hi, l.p.Slot(2).SoC)
}

func TestLoopFullSpeed(t *testing.T) {
	for name, c := range map[string]struct {
		breaks, heals func(l *loop)
		within        time.Duration
	}{
		"inlet sensor": {
			func(l *loop) { l.bus.SetFault(rackInlet, chip.Fault{Absent: true}) },
			func(l *loop) { l.bus.SetFault(rackInlet, chip.Fault{}) }, 3 * time.Second},
		"tray sensor": {
			func(l *loop) { l.trays[1].bus.SetFault(trayHeat, chip.Fault{Absent: true}) },
			func(l *loop) { l.trays[1].bus.SetFault(trayHeat, chip.Fault{}) }, 5 * time.Second},
		"hung BMC": {
			func(l *loop) { l.trays[2].hung = true },
			func(l *loop) { l.trays[2].hung = false }, 5 * time.Second},
		"management computer": {
			func(l *loop) { l.silent = true },
			func(l *loop) { l.silent = false }, 16 * time.Second},
		"restarted RMC": {
			func(l *loop) { l.startRMC() },
			func(l *loop) {}, 50 * time.Millisecond},
		"hung RMC": { // the fan controller's own watchdog
			func(l *loop) { l.hung = true },
			func(l *loop) { l.hung = false }, 5 * time.Second},
		"stuck fan": {
			func(l *loop) { l.p.Edit(func(f *plant.Faults) { f.Fan[0].Stuck = true }) },
			func(l *loop) { l.p.Edit(func(f *plant.Faults) { f.Fan[0].Stuck = false }) }, 6 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t)
			l.on()
			l.run(30 * time.Second)
			before := l.drive()
			if before > 0.9 {
				t.Fatalf("duty %.2f before, %+v", before, l.rmc.State())
			}
			c.breaks(l)
			l.run(c.within)
			if l.drive() < 0.99 {
				t.Errorf("duty %.2f after %v", l.drive(), c.within)
			}
			c.heals(l)
			l.run(30 * time.Second)
			if l.drive() > 0.9 {
				t.Errorf("duty %.2f after it healed, %+v", l.drive(), l.rmc.State())
			}
			for i := range l.trays {
				if !l.p.Slot(i + 1).PowerGood {
					t.Errorf("slot %d lost its power", i+1)
				}
			}
		})
	}
}

func TestLoopShortTripsOneSlot(t *testing.T) {
	l := newLoop(t)
	l.on()
	l.p.Edit(func(f *plant.Faults) { f.Slot[1].Short = true })
	l.run(time.Minute)
	if s := l.state(1); s.State != wire.StateFaulted || s.Failure.IsZero() {
		t.Errorf("shorted slot: %v, %v", s.State, s.Failure.Reason)
	}
	for _, i := range []int{0, 2, 3} {
		if s := l.state(i); s.State != wire.StateRunning || s.BootCount != 1 {
			t.Errorf("slot %d: %v, booted %d times", i+1, s.State, s.BootCount)
		}
	}
	if s := l.rmc.State(); s.GrantedMilliwatts != 36_000 {
		t.Errorf("granted %d mW", s.GrantedMilliwatts)
	}
}

// A brown-out, and a rack that lost its power altogether: it comes back by itself, one unit at a time.
func TestLoopComesBackStaggered(t *testing.T) {
	for name, sag := range map[string]float64{"brown-out": 0.4, "cut": 1} {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t)
			l.on()
			energy := l.rmc.State().Millijoules
			l.p.Edit(func(f *plant.Faults) { f.Sag = sag })
			l.run(5 * time.Second)
			for i := range l.trays {
				if l.p.Slot(i + 1).PowerGood {
					t.Errorf("slot %d has power", i+1)
				}
			}
			l.p.Edit(func(f *plant.Faults) { f.Sag = 0 })
			var up [units]uint64
			for range 200 {
				l.run(100 * time.Millisecond)
				for i := range up {
					if up[i] == 0 && l.p.Slot(i+1).PowerGood {
						up[i] = l.now
					}
				}
			}
			for i := range up {
				if up[i] == 0 {
					t.Fatalf("slot %d did not come back: %+v", i+1, l.state(i))
				}
				for _, other := range up[:i] {
					if d := max(up[i], other) - min(up[i], other); d < 800 {
						t.Errorf("two units came up within %d ms", d)
					}
				}
			}
			if now := l.rmc.State().Millijoules; now+1_000_000 < energy {
				t.Errorf("energy went from %d to %d mJ", energy, now)
			}
		})
	}
}

// The same seed and the same schedule give the same physics and the same log, to the byte.
func TestLoopIsDeterministic(t *testing.T) {
	run := func() (plantHash [32]byte, log [32]byte) {
		l := newLoop(t)
		l.on()
		for k := range 30 {
			l.trays[k%units].cpu = float64(k%7) / 6
			l.p.Edit(func(f *plant.Faults) {
				f.Slot[2].Short = k == 10
				f.Fan[1].Stuck = k > 15 && k < 20
				f.Sag = float64(k/25) * 0.5
			})
			l.run(2 * time.Second)
		}
		h := sha256.New()
		for after := uint32(0); ; {
			resp := make([]byte, wire.MaxMessage-1)
			n := l.rmc.Handle(wire.SideBus, l.now, wire.AppendReadEvents(wire.AppendRequest(nil, 1, wire.TypeOEM, wire.CmdReadEvents), after), resp)
			h.Write(resp[:n])
			events, err := wire.ParseEvents(resp[wire.HeaderSize+1 : n])
			if err != nil {
				t.Fatal(err)
			}
			var e wire.Event
			more := false
			for events.Next(&e) {
				after, more = e.Sequence, true
			}
			if !more {
				break
			}
		}
		return l.p.Hash(), [32]byte(h.Sum(nil))
	}
	p1, log1 := run()
	p2, log2 := run()
	if p1 != p2 || log1 != log2 {
		t.Errorf("two runs differ: physics %v, log %v", p1 != p2, log1 != log2)
	}
}

// Without air the units throttle, then shut down in order, and return when it is cool again.
func TestLoopOverheating(t *testing.T) {
	l := newLoop(t)
	l.on()
	l.cpu(1)
	l.p.SetAmbient(45)
	l.p.Edit(func(f *plant.Faults) {
		f.Blocked = 1
		f.Slot[1].HeatOff = 0.5
	})
	throttled := false
	for range 3600 {
		l.run(time.Second)
		throttled = throttled || l.rmc.State().Flags&wire.RackThrottling != 0
		if !l.p.Slot(2).PowerGood {
			break
		}
	}
	if l.p.Slot(2).PowerGood || !throttled {
		t.Fatalf("slot 2 at %.1f °C: throttled %v, on %v", l.p.Slot(2).SoC, throttled, l.p.Slot(2).PowerGood)
	}
	if l.drive() < 0.99 {
		t.Errorf("duty %.2f", l.drive())
	}
	t.Logf("off after %v at %.1f °C", time.Duration(l.now)*time.Millisecond, l.p.Slot(2).SoC)
	l.p.SetFaults(plant.Faults{})
	l.p.SetAmbient(23)
	l.cpu(0.1)
	l.run(5 * time.Minute)
	if s := l.state(1); s.State != wire.StateRunning {
		t.Errorf("cooled down: %v, %v", s.State, s.Failure.Reason)
	}
}

// Anything that breaks in the rack, in any order: the supply never trips, the rack stays within its budget, nothing cooks,
// no counter goes back. Healed and asked again, every unit runs.
func TestLoopStorm(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := newLoop(t)
		l.on()
		var last wire.RackState
		var energy [units]uint64
		check := func() {
			rack := l.p.Rack()
			if rack.Tripped {
				rt.Fatal("the supply tripped")
			}
			for i := range l.trays {
				if s := l.p.Slot(i + 1); s.SoC > 105 {
					rt.Fatalf("slot %d at %.0f °C: %+v", i+1, s.SoC, l.rmc.State())
				}
				if s := l.state(i); l.trays[i].bmc != nil {
					if s.Millijoules+400_000 < energy[i] { // what its flash does not hold after a cut
						rt.Fatalf("slot %d: energy went from %d to %d mJ", i+1, energy[i], s.Millijoules)
					}
					energy[i] = s.Millijoules
				}
			}
			if l.rmc == nil {
				return
			}
			s := l.rmc.State()
			if s.GrantedMilliwatts > s.BudgetMilliwatts || uint32(rack.Watts*1000) > s.BudgetMilliwatts || s.Resets < last.Resets || s.LastEvent < last.LastEvent {
				rt.Fatalf("%+v after %+v", s, last)
			}
			last = s
		}
		for range rapid.IntRange(1, 12).Draw(rt, "acts") {
			i := rapid.IntRange(0, units-1).Draw(rt, "slot")
			yes := rapid.Bool().Draw(rt, "yes")
			share := rapid.Float64Range(0, 1).Draw(rt, "share")
			y := l.trays[i]
			switch k := rapid.IntRange(0, 11).Draw(rt, "act"); k {
			case 0:
				y.cpu = share
			case 1:
				y.hung = yes
			case 2:
				if y.bmc != nil {
					l.startBMC(i)
				}
			case 3:
				if l.rmc != nil {
					l.startRMC()
				}
			case 4:
				l.p.SetPresent(i+1, yes)
			case 5:
				y.bus.SetFault(trayHeat, chip.Fault{Absent: yes})
			case 6:
				l.bus.SetFault(rackInlet, chip.Fault{Absent: yes})
			case 7:
				l.bus.Jam(yes)
			default:
				l.p.Edit(func(f *plant.Faults) {
					switch k {
					case 8:
						f.Sag = share
					case 9:
						f.Slot[i].Short = yes
					case 10:
						f.Fan[i%2].Stuck = yes
					case 11:
						f.Blocked = share
					}
				})
			}
			for range rapid.IntRange(0, 40).Draw(rt, "quarters of a second") {
				l.run(250 * time.Millisecond)
				check()
			}
		}
		l.p.SetFaults(plant.Faults{})
		l.bus.Jam(false)
		l.bus.SetFault(rackInlet, chip.Fault{})
		for i, y := range l.trays {
			y.hung, y.cpu = false, 0.2
			y.bus.SetFault(trayHeat, chip.Fault{})
			l.p.SetPresent(i+1, true)
		}
		l.run(90 * time.Second)
		l.on() // a faulted unit waits for an operator
		l.run(10 * time.Second)
		if s := l.rmc.State(); s.Flags&(wire.RackFailsafe|wire.RackSensorLost|wire.RackThrottling|wire.RackOverBudget) != 0 {
			rt.Fatalf("healed: %+v", s)
		}
	})
}

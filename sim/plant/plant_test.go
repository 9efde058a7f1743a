package plant_test

import (
	"math"
	"testing"
	"time"

	"github.com/racklet/racklet/sim/plant"
	"pgregory.net/rapid"
)

// tester is what testing.TB and rapid.T share.
type tester interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func five(t tester, seed uint64) *plant.Plant {
	t.Helper()
	p, err := plant.New(plant.Config{Seed: seed, Slots: []plant.Board{plant.Pi4, plant.Pi4, plant.Pi5, plant.Pi5, plant.Pi4}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// on closes slots and waits until their rails are good.
func on(t tester, p *plant.Plant, slots ...int) {
	t.Helper()
	for _, n := range slots {
		p.SetSwitch(n, true)
		p.SetActivity(n, plant.Activity{Running: true, CPU: 0.1})
		p.Step(100 * time.Millisecond)
		if s := p.Slot(n); !s.PowerGood {
			t.Fatalf("slot %d: %+v", n, s)
		}
	}
}

func fans(p *plant.Plant, drive float64) {
	for i := range 2 {
		p.SetDrive(i, drive)
	}
}

// act is one random thing that happens to a rack.
func act(t *rapid.T, p *plant.Plant) {
	slot := rapid.IntRange(0, 6).Draw(t, "slot") // 0 and 6 do not exist
	switch rapid.IntRange(0, 9).Draw(t, "act") {
	case 0, 1:
		p.SetSwitch(slot, rapid.Bool().Draw(t, "closed"))
	case 2, 3:
		p.SetActivity(slot, plant.Activity{Running: rapid.Bool().Draw(t, "running"), CPU: rapid.Float64Range(0, 1).Draw(t, "cpu"), IO: rapid.Float64Range(0, 1).Draw(t, "io")})
	case 4:
		p.SetDrive(rapid.IntRange(0, 2).Draw(t, "fan"), rapid.Float64Range(0, 1).Draw(t, "drive"))
	case 5:
		p.SetPresent(slot, rapid.Bool().Draw(t, "present"))
	case 6:
		p.SetAmbient(rapid.Float64Range(0, 40).Draw(t, "ambient"))
	default:
		i := rapid.IntRange(0, 4).Draw(t, "broken slot")
		v := rapid.Bool().Draw(t, "broken")
		x := rapid.Float64Range(0, 1).Draw(t, "how much")
		k := rapid.IntRange(0, 8).Draw(t, "kind")
		p.Edit(func(f *plant.Faults) {
			switch k {
			case 0:
				f.Cut = v
			case 1:
				f.Sag = x
			case 2:
				f.Blocked = x
			case 3:
				f.Slot[i].Short = v
			case 4:
				f.Slot[i].OpenFuse = v
			case 5:
				f.Slot[i].Welded = v
			case 6:
				f.Slot[i].NoGood = v
			case 7:
				f.Fan[i%2].Stuck = v
			case 8:
				*f = plant.Faults{}
			}
		})
	}
	p.Step(time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "step")))
}

// Energy is kept within 0.1 % over any schedule, and nothing ever becomes impossible.
func TestEnergyIsKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := five(t, rapid.Uint64().Draw(t, "seed"))
		var last plant.Energy
		for range rapid.IntRange(1, 30).Draw(t, "acts") {
			act(t, p)
			e := p.Energy()
			if math.Abs(e.Imbalance()) > 0.001*e.Supply+1e-6 {
				t.Fatalf("%g J of %g J went nowhere: %+v", e.Imbalance(), e.Supply, e)
			}
			if e.Supply < last.Supply || e.Loss < last.Loss || e.Fans < last.Fans || e.Units() < last.Units() {
				t.Fatalf("energy went backwards: %+v after %+v", e, last)
			}
			last = e
			for n := 1; n <= 5; n++ {
				s := p.Slot(n)
				for _, v := range []float64{s.Volts, s.Amps, s.Watts, s.SoC, s.Air} {
					if math.IsNaN(v) || v < -1 || v > 400 {
						t.Fatalf("slot %d: %+v", n, s)
					}
				}
				if s.Watts > 0 && !s.Present {
					t.Fatalf("slot %d draws power without a tray", n)
				}
			}
		}
	})
}

// The ledger's terms agree with what the meters see: the sum is a check, so it must be able to fail.
func TestLedgerAgreesWithMeters(t *testing.T) {
	p := five(t, 1)
	fans(p, 0.5)
	on(t, p, 1, 2, 3)
	p.Step(10 * time.Second)
	e0, r0, s0 := p.Energy(), p.Rack(), p.Slot(3)
	p.Step(10 * time.Minute)
	e, r, s := p.Energy(), p.Rack(), p.Slot(3)
	if got, want := s.Joules-s0.Joules, e.Unit[2]-e0.Unit[2]; math.Abs(got-want) > want*0.001 {
		t.Errorf("shunt of slot 3 saw %g J, the unit took %g J", got, want)
	}
	if got, want := r.Joules-r0.Joules, e.Supply-e0.Supply; got >= want || got < want*0.97 {
		t.Errorf("busbar got %g J of %g J", got, want)
	}
	if sw := e.Switch - e0.Switch; math.Abs(sw-3*600) > 1 {
		t.Errorf("network switch took %g J in ten minutes, want 1800", sw)
	}
	missing := e
	missing.Loss = 0
	if math.Abs(missing.Imbalance()) < 0.001*e.Supply {
		t.Error("a ledger without losses balances: the check cannot fail")
	}
}

func TestSameSeedSameCallsSameState(t *testing.T) {
	run := func(seed uint64) [32]byte {
		p := five(t, seed)
		fans(p, 0.4)
		for i := range 50 {
			p.SetSwitch(i%5+1, i%7 != 0)
			p.SetActivity(i%5+1, plant.Activity{Running: true, CPU: float64(i%10) / 10})
			p.Edit(func(f *plant.Faults) { f.Sag = float64(i%13) / 60; f.Fan[0].Stuck = i%11 == 0 })
			p.Step(time.Duration(i*37) * time.Millisecond)
		}
		return p.Hash()
	}
	if run(7) != run(7) {
		t.Error("two runs with one seed differ")
	}
	if run(7) == run(8) {
		t.Error("runs with two seeds are equal")
	}
}

func TestSnapshotResumes(t *testing.T) {
	a := five(t, 3)
	fans(a, 0.6)
	on(t, a, 1, 4)
	a.Edit(func(f *plant.Faults) { f.Blocked = 0.5 })
	a.SetSwitch(2, true)
	a.Step(3 * time.Millisecond) // in the middle of a ramp
	b := five(t, 99)
	if err := b.Restore(a.Snapshot()); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		a.Step(70 * time.Millisecond)
		b.Step(70 * time.Millisecond)
	}
	if a.Hash() != b.Hash() {
		t.Error("a restored plant went another way")
	}
	if err := b.Restore([]byte("{")); err == nil {
		t.Error("half a snapshot was taken")
	}
}

func TestSwitchOn(t *testing.T) {
	p := five(t, 1)
	p.SetActivity(1, plant.Activity{Running: true})
	p.SetSwitch(1, true)
	peak, good := 0.0, time.Duration(0)
	for i := range 100 {
		p.Step(time.Millisecond)
		s := p.Slot(1)
		peak = max(peak, s.Amps)
		if s.PowerGood && good == 0 {
			good = time.Duration(i+1) * time.Millisecond
		}
	}
	if peak < 0.5 || peak > 3 {
		t.Errorf("inrush peak %.2f A, want between 0.5 and 3", peak)
	}
	if good < 12*time.Millisecond || good > 25*time.Millisecond {
		t.Errorf("power good after %v", good)
	}
	s := p.Slot(1)
	if s.Volts < 5 || s.Volts > 5.1 || s.Watts < 2.5 || s.Watts > 2.9 {
		t.Errorf("an idle Pi 4 at %.3f V takes %.2f W", s.Volts, s.Watts)
	}
	p.SetSwitch(1, false)
	p.Step(2 * time.Millisecond)
	if p.Slot(1).PowerGood {
		t.Error("power good outlives the switch")
	}
	p.Step(time.Second)
	if v := p.Slot(1).Volts; v > 0.1 {
		t.Errorf("rail still at %.2f V a second later", v)
	}
}

// A short trips its slot's fuse and nothing else; opening the switch arms it again.
func TestShortTripsOneSlot(t *testing.T) {
	p := five(t, 1)
	on(t, p, 1, 2, 3)
	p.Edit(func(f *plant.Faults) { f.Slot[1].Short = true })
	p.Step(20 * time.Millisecond)
	if s := p.Slot(2); !s.Tripped || s.PowerGood {
		t.Errorf("shorted slot: %+v", s)
	}
	for _, n := range []int{1, 3} {
		if s := p.Slot(n); s.Tripped || !s.PowerGood {
			t.Errorf("slot %d fell with its neighbour: %+v", n, s)
		}
	}
	if p.Rack().Tripped {
		t.Error("the supply tripped")
	}
	p.Edit(func(f *plant.Faults) { f.Slot[1].Short = false })
	p.Step(time.Second)
	if !p.Slot(2).Tripped {
		t.Error("the fuse does not stay tripped")
	}
	p.SetSwitch(2, false)
	p.Step(time.Second)
	on(t, p, 2)
}

func TestBrownOut(t *testing.T) {
	p := five(t, 1)
	on(t, p, 1, 2)
	p.Edit(func(f *plant.Faults) { f.Sag = 0.15 })
	p.Step(time.Second)
	if !p.Slot(1).PowerGood {
		t.Error("17 V is enough, but slot 1 is down")
	}
	p.Edit(func(f *plant.Faults) { f.Sag = 0.4 })
	p.Step(time.Second)
	if s := p.Slot(1); s.PowerGood || !s.Standby {
		t.Errorf("at 12 V: %+v, want unit off and BMC on", s)
	}
	p.Edit(func(f *plant.Faults) { f.Sag = 0.8 })
	p.Step(time.Second)
	if s := p.Slot(1); s.Standby || p.Rack().Standby {
		t.Errorf("at 4 V: %+v, want nothing alive", s)
	}
	p.Edit(func(f *plant.Faults) { f.Sag = 0 })
	p.Step(time.Second)
	if !p.Slot(1).PowerGood || !p.Slot(2).PowerGood {
		t.Error("closed switches do not come back with the voltage")
	}
}

func TestSupplyOverCurrent(t *testing.T) {
	p, err := plant.New(plant.Config{Supply: plant.Supply{Amps: 1.2}, Slots: []plant.Board{plant.Pi5, plant.Pi5, plant.Pi5, plant.Pi5}})
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 4; n++ {
		p.SetSwitch(n, true)
		p.SetActivity(n, plant.Activity{Running: true, CPU: 1})
	}
	tripped := false
	for range 200 {
		p.Step(time.Millisecond)
		tripped = tripped || p.Rack().Tripped
	}
	if !tripped {
		t.Error("36 W out of 24 W: the supply does not mind")
	}
	for n := 1; n <= 4; n++ {
		p.SetSwitch(n, false)
	}
	p.Step(2 * time.Second)
	if r := p.Rack(); r.Tripped || !r.Standby {
		t.Errorf("the supply does not come back: %+v", r)
	}
}

func TestFans(t *testing.T) {
	p := five(t, 1)
	for _, c := range []struct{ drive, low, high float64 }{{1, 4500, 5500}, {0.2, 1080, 1320}, {0.1, 1080, 1320}, {0.6, 2790, 3410}, {0, 0, 0}} {
		fans(p, c.drive)
		p.Step(30 * time.Second)
		if rpm := p.Fan(0).RPM; rpm < c.low || rpm > c.high {
			t.Errorf("drive %v: %.0f rpm, want %v to %v", c.drive, rpm, c.low, c.high)
		}
	}
	fans(p, 1)
	p.Step(100 * time.Millisecond)
	if rpm := p.Fan(0).RPM; rpm > 1500 {
		t.Errorf("%.0f rpm after a tenth of a second: no inertia", rpm)
	}
	p.Step(10 * time.Second)
	before := p.Fan(1).Pulses
	rpm := p.Fan(1).RPM
	p.Step(time.Minute)
	if got := float64(p.Fan(1).Pulses - before); math.Abs(got-2*rpm) > 0.01*rpm {
		t.Errorf("%v pulses a minute at %.0f rpm", got, rpm)
	}
	p.Edit(func(f *plant.Faults) { f.Fan[0].Stuck = true; f.Fan[1].NoTach = true })
	flow := p.Rack().Flow
	p.Step(2 * time.Second)
	if p.Fan(0).RPM != 0 || p.Fan(1).RPM != 0 || p.Rack().Flow > flow*0.5 || p.Rack().Flow == 0 {
		t.Errorf("stuck %+v, no tachometer %+v, flow %g of %g", p.Fan(0), p.Fan(1), p.Rack().Flow, flow)
	}
}

// The temperatures a person would expect: warm at idle, hot under load, fans help, a blocked inlet hurts, and a rack
// without air throttles.
func TestHeat(t *testing.T) {
	settle := func(drive, cpu, blocked float64) plant.Slot {
		p := five(t, 1)
		fans(p, drive)
		for n := 1; n <= 5; n++ {
			p.SetSwitch(n, true)
			p.SetActivity(n, plant.Activity{Running: true, CPU: cpu})
		}
		p.Edit(func(f *plant.Faults) { f.Blocked = blocked })
		p.Step(2 * time.Hour)
		return p.Slot(3)
	}
	for _, c := range []struct {
		name                string
		drive, cpu, blocked float64
		low, high           float64
		throttled           bool
	}{
		{"idle, slow fans", 0.3, 0, 0, 30, 50, false},
		{"busy, slow fans", 0.3, 1, 0, 50, 75, false},
		{"busy, full fans", 1, 1, 0, 38, 55, false},
		{"busy, no fans", 0, 1, 0, 81, 100, true},
		{"busy, full fans, inlet blocked", 1, 1, 0.95, 70, 100, false},
	} {
		s := settle(c.drive, c.cpu, c.blocked)
		t.Logf("%-32s SoC %.1f  air %.1f  sensor %.1f °C, %.2f W", c.name, s.SoC, s.Air, s.Board, s.Watts)
		if s.SoC < c.low || s.SoC > c.high || (c.throttled && !s.Throttled) {
			t.Errorf("%s: SoC at %.1f °C, want %v to %v", c.name, s.SoC, c.low, c.high)
		}
	}
}

func TestImpossibleConfigurations(t *testing.T) {
	for name, c := range map[string]plant.Config{
		"no slots":   {},
		"many slots": {Slots: make([]plant.Board, 11)},
		"many fans":  {Slots: make([]plant.Board, 1), Fans: 6},
		"5 V supply": {Slots: make([]plant.Board, 1), Supply: plant.Supply{Volts: 5}},
		"resistor":   {Slots: make([]plant.Board, 1), Supply: plant.Supply{Droop: 3}},
	} {
		if _, err := plant.New(c); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// BenchmarkDay is one simulated day of a rack of five, in steps of a second.
func BenchmarkDay(b *testing.B) {
	for b.Loop() {
		p := five(b, 1)
		fans(p, 0.5)
		on(b, p, 1, 2, 3, 4, 5)
		for range 24 * 3600 {
			p.Step(time.Second)
		}
	}
}

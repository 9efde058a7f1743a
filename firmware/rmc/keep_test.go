package rmc_test

import (
	"errors"
	"testing"

	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/rmc"
	"github.com/racklet/racklet/firmware/wire"
	"pgregory.net/rapid"
)

var errCut = errors.New("power cut")

// nor is a NOR flash that is cut after some more programmed bytes.
type nor struct {
	mem  []byte
	left int
	dead bool
}

func newNOR() *nor {
	f := &nor{mem: make([]byte, rmc.FlashSize), left: 1 << 30}
	for i := range f.mem {
		f.mem[i] = 0xFF
	}
	return f
}

func (f *nor) Size() uint32 { return uint32(len(f.mem)) }

func (f *nor) ReadAt(p []byte, off uint32) error {
	if f.dead {
		return errCut
	}
	copy(p, f.mem[off:])
	return nil
}

func (f *nor) Program(off uint32, p []byte) error {
	for i, b := range p {
		if f.left--; f.left < 0 || f.dead {
			f.dead = true
			return errCut
		}
		f.mem[int(off)+i] &= b
	}
	return nil
}

func (f *nor) Erase(off uint32) error {
	if f.left -= 64; f.left < 0 || f.dead {
		f.dead = true
		return errCut
	}
	for i := range driver.SectorSize {
		f.mem[int(off)+i] = 0xFF
	}
	return nil
}

func TestPoliciesOutliveARestart(t *testing.T) {
	g := newRig(t)
	g.ports.Flash = newNOR()
	g.start()
	if g.r.State().Flags&wire.RackPolicyUnset == 0 {
		t.Error("a new RMC claims to have policies")
	}
	g.set(func(p *wire.Policies) {
		p.Generation, p.BudgetMilliwatts = 7, 66_000
		p.Curve[0].DutyPercent = 44
	})
	g.run(2_000)
	g.start()
	g.run(5_000)
	s := g.r.State()
	if s.PolicyGeneration != 7 || s.BudgetMilliwatts != 66_000 || s.Flags&wire.RackPolicyUnset != 0 || s.Resets != 2 {
		t.Errorf("%+v", s)
	}
	if g.duty[0] != 48 { // 44 + 16·5/20 at 40 °C
		t.Errorf("duty %d: the curve is not the kept one", g.duty[0])
	}
	// The same or an older generation changes nothing, and says so without an error.
	p := rmc.DefaultPolicies()
	for _, p.Generation = range []uint32{7, 6, 0} {
		code, out := g.call(wire.TypeOEM, wire.CmdSetPolicies, wire.AppendPolicies(nil, &p))
		desired, observed, err := wire.ParseGenerations(out)
		if code != wire.CodeSuccess || err != nil || desired != 7 || observed != 7 || g.r.State().BudgetMilliwatts != 66_000 {
			t.Errorf("generation %d: %v, %d, %d, %v", p.Generation, code, desired, observed, err)
		}
	}
	code, out := g.call(wire.TypeOEM, wire.CmdGetPolicies, nil)
	if got, err := wire.ParsePolicies(out); code != wire.CodeSuccess || err != nil || got.Curve[0].DutyPercent != 44 {
		t.Errorf("%v, %+v, %v", code, got, err)
	}
}

func TestImpossiblePoliciesAreRefused(t *testing.T) {
	g := newRig(t).start()
	p := rmc.DefaultPolicies()
	p.Generation, p.ReserveMilliwatts = 3, 90_000
	code, out := g.call(wire.TypeOEM, wire.CmdSetPolicies, wire.AppendPolicies(nil, &p))
	f, err := wire.ParseFailure(out)
	if code != wire.CodeRefused || err != nil || f.Reason.String() != "policy.budget" || g.r.State().PolicyGeneration != 0 {
		t.Errorf("%v, %+v, %v", code, f, err)
	}
	p = rmc.DefaultPolicies()
	p.Generation = 3
	p.Curve[1].DutyPercent = 1 // falls
	if code, _ := g.call(wire.TypeOEM, wire.CmdSetPolicies, wire.AppendPolicies(nil, &p)); code != wire.CodeInvalidData && code != wire.CodeRefused {
		t.Errorf("a falling curve: %v", code)
	}
	if g.r.State().PolicyGeneration != 0 {
		t.Error("a refused policy is in force")
	}
	p = rmc.DefaultPolicies()
	p.Generation = 3
	if code, _ := g.call(wire.TypeOEM, wire.CmdSetPolicies, wire.AppendPolicies(nil, &p)); code != wire.CodeSuccess {
		t.Errorf("good control: %v", code)
	}
}

func TestPoliciesThatCannotBeKeptAreNotTaken(t *testing.T) {
	g := newRig(t)
	f := newNOR()
	g.ports.Flash = f
	g.start()
	g.run(1_000)
	f.left = 0
	p := rmc.DefaultPolicies()
	p.Generation = 3
	if code, _ := g.call(wire.TypeOEM, wire.CmdSetPolicies, wire.AppendPolicies(nil, &p)); code != wire.CodeError || g.r.State().PolicyGeneration != 0 {
		t.Errorf("%v, generation %d", code, g.r.State().PolicyGeneration)
	}
}

func TestLEDsOutliveARestart(t *testing.T) {
	g := newRig(t)
	g.ports.Flash = newNOR()
	g.start()
	g.run(100)
	for _, c := range []struct {
		slot uint8
		on   bool
		code wire.Code
	}{{3, true, wire.CodeSuccess}, {5, true, wire.CodeSuccess}, {5, false, wire.CodeSuccess}, {6, true, wire.CodeInvalidData}, {0, true, wire.CodeInvalidData}} {
		if code, _ := g.call(wire.TypeOEM, wire.CmdSetLED, wire.AppendLED(nil, c.slot, c.on)); code != c.code {
			t.Errorf("slot %d: %v, want %v", c.slot, code, c.code)
		}
	}
	if g.leds != [5]pin{false, false, true, false, false} {
		t.Errorf("LEDs %v", g.leds)
	}
	g.leds = [5]pin{}
	g.start()
	g.run(100)
	if g.leds != [5]pin{false, false, true, false, false} || g.r.State().LEDMask != 1<<3 {
		t.Errorf("LEDs %v after a restart", g.leds)
	}
}

func TestEventsOutliveARestart(t *testing.T) {
	g := newRig(t)
	g.ports.Flash = newNOR()
	g.start()
	g.want(1)
	g.run(5_000)
	last := g.r.State().LastEvent
	g.start()
	g.run(1_000)
	if g.count(wire.EventRestart, 0, 0) != 2 || g.r.State().LastEvent <= last || g.count(wire.EventPower, 1, 1) != 1 {
		t.Errorf("%d restarts in the log, last event %d after %d", g.count(wire.EventRestart, 0, 0), g.r.State().LastEvent, last)
	}
}

// Energy over restarts of the RMC, of the meter and of both.
func TestEnergyCounter(t *testing.T) {
	g := newRig(t)
	g.ports.Flash = newNOR()
	g.power.Milliwatts = 40_000
	g.start()
	g.run(60_000)
	at := g.r.State().Millijoules
	if at < 2_350_000 || at > 2_410_000 {
		t.Fatalf("%d mJ after a minute at 40 W", at)
	}
	g.start() // the meter went on counting: nothing is lost
	g.run(60_000)
	if now := g.r.State().Millijoules; now < at+2_380_000 || now > at+2_420_000 {
		t.Errorf("%d mJ after a restart and another minute, %d before", now, at)
	}
	at = g.r.State().Millijoules
	g.power.Millijoules = 0 // the meter was reset
	g.run(60_000)
	if now := g.r.State().Millijoules; now < at+2_380_000 || now > at+2_420_000 {
		t.Errorf("%d mJ after the meter's reset and a minute, %d before", now, at)
	}
	at = g.r.State().Millijoules
	g.power.Millijoules = 0
	g.start()
	g.run(60_000)
	if now := g.r.State().Millijoules; now < at+2_380_000-400_000 || now > at+2_820_000 {
		t.Errorf("%d mJ after both were reset and a minute, %d before", now, at)
	}
	at = g.r.State().Millijoules
	g.power.Millijoules += 1 << 50 // a misreading
	g.run(10_000)
	if now := g.r.State().Millijoules; now > at+1_000_000 {
		t.Errorf("a misreading added %d mJ", now-at)
	}
}

// Cut at any byte of any write: the RMC comes back with the policies it acknowledged, and neither generation,
// restarts nor events go back behind what was told while the flash lived.
func TestPowerCuts(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := newNOR()
		var generation, resets, last uint32
		for range rapid.IntRange(1, 5).Draw(rt, "lives") {
			f.dead, f.left = false, 1<<30
			g := newRig(t)
			g.ports.Flash = f
			g.power.Milliwatts = 30_000
			g.start()
			s := g.r.State()
			if s.PolicyGeneration != generation && s.PolicyGeneration != generation+1 {
				rt.Fatalf("generation %d, %d was acknowledged", s.PolicyGeneration, generation)
			}
			if s.Resets < resets || s.LastEvent < last {
				rt.Fatalf("resets %d, event %d; before the cut %d, %d", s.Resets, s.LastEvent, resets, last)
			}
			generation = s.PolicyGeneration
			f.left = rapid.IntRange(0, 4000).Draw(rt, "bytes until the cut")
			g.want(1, 2, 3)
			for {
				g.run(500)
				p := rmc.DefaultPolicies()
				p.Generation = generation + 1
				if code, _ := g.call(wire.TypeOEM, wire.CmdSetPolicies, wire.AppendPolicies(nil, &p)); code == wire.CodeSuccess {
					generation++
				}
				if f.dead {
					break
				}
				// The flash lives, so all that has been told so far is in it.
				s := g.r.State()
				resets, last = s.Resets, s.LastEvent
			}
		}
	})
}

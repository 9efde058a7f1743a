package bmc

import (
	"testing"

	"github.com/racklet/racklet/firmware/wire"
	"pgregory.net/rapid"
)

// outcome is what an operator can see of a converged slot.
type outcome struct {
	State               wire.State
	Power               wire.Power
	LED                 bool
	Cap                 uint32
	Desired, Observed   uint32
	BootMode            wire.BootMode
	BootOverride        uint8
	Rail, Switch, Light bool
}

func (r *rig) outcome() outcome {
	s := r.b.UnitState()
	return outcome{s.State, s.Power, s.LED, s.CapMilliwatts, s.DesiredGeneration, s.ObservedGeneration, s.BootMode,
		s.BootOverride, s.Rail, r.sw.on, r.led.on}
}

// settle lets a slot converge, drain deadline included.
func (r *rig) settle() {
	for range 6000 {
		r.step(1)
		if s := r.b.UnitState(); s.ObservedGeneration == s.DesiredGeneration && (s.State == wire.StateOff || s.State == wire.StateRunning) {
			return
		}
	}
}

// TestDesiredState: whatever the order of the generations, however often each is repeated, and wherever the BMC restarts
// in between (with the rail staying on, or in a power cut), the end is that of the newest generation; repeats after that
// move no pin and write nothing to the flash.
func TestDesiredState(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(rt, "generations")
		all := make([]wire.Desired, n)
		for i := range all {
			d := wire.Desired{
				Generation: uint32(i + 1), Mask: wire.DesiredPower | wire.DesiredLED | wire.DesiredCap | wire.DesiredBoot,
				Power: wire.Power(rapid.IntRange(0, 1).Draw(rt, "power")), LED: rapid.Bool().Draw(rt, "led"),
				CapMilliwatts: rapid.SampledFrom([]uint32{0, 8_000, 15_000}).Draw(rt, "cap"), BootSlot: wire.SlotNone,
			}
			if rapid.Bool().Draw(rt, "override") {
				d.BootMode, d.BootSlot = wire.BootContinuous, uint8(rapid.IntRange(0, 1).Draw(rt, "slot"))
			}
			all[i] = d
		}
		want := newRig(t)
		want.mustCall(wire.SideBus, wire.CmdSetDesired, wire.AppendDesired(nil, &all[n-1]))
		want.settle()

		r := newRig(t)
		send := func(i int) { r.mustCall(wire.SideBus, wire.CmdSetDesired, wire.AppendDesired(nil, &all[i])) }
		for range rapid.IntRange(0, 12).Draw(rt, "steps") {
			switch rapid.IntRange(0, 4).Draw(rt, "what") {
			case 0, 1:
				send(rapid.IntRange(0, n-1).Draw(rt, "which"))
			case 2:
				r.step(rapid.IntRange(1, 200).Draw(rt, "time"))
			case 3:
				r.boot() // the rail stays as it is
			case 4:
				r.sw.on, r.good.on = false, false
				r.boot()
			}
		}
		send(n - 1)
		r.settle()
		if got := r.outcome(); got != want.outcome() {
			rt.Fatalf("got  %+v\nwant %+v", got, want.outcome())
		}
		before, sets, writes, boots := r.outcome(), r.sw.sets+r.led.sets, r.flash.writes, r.b.bootCount
		for range rapid.IntRange(0, 20).Draw(rt, "repeats") {
			send(rapid.IntRange(0, n-1).Draw(rt, "again"))
			r.step(1)
		}
		if r.outcome() != before || r.sw.sets+r.led.sets != sets || r.flash.writes != writes || r.b.bootCount != boots {
			rt.Fatalf("a repeat caused an action: %+v, %d flash operations", r.outcome(), r.flash.writes-writes)
		}
	})
}

// TestGenerationsCannotBeUsedUp: one message does not take all generations there are.
func TestGenerationsCannotBeUsedUp(t *testing.T) {
	r := newRig(t)
	r.desire(5, wire.PowerOff)
	for _, g := range []uint32{0xFFFFFFFF, 0x80000000, 5 + wire.MaxGenerationStep + 1} {
		d := wire.Desired{Generation: g, Mask: wire.DesiredPower, Power: wire.PowerOn, BootSlot: wire.SlotNone}
		if code, _ := r.call(wire.SideBus, wire.CmdSetDesired, wire.AppendDesired(nil, &d)); code != wire.CodeInvalidData {
			t.Errorf("generation %#x after 5: %v", g, code)
		}
	}
	if r.desire(5+wire.MaxGenerationStep, wire.PowerOn); r.b.desired.generation != 5+wire.MaxGenerationStep {
		t.Errorf("generation %d", r.b.desired.generation)
	}
}

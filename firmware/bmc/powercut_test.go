package bmc

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"testing"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
)

var cutCount = flag.Int("cuts", 1000, "power cuts of a whole BMC; ten times as many of its store alone")

// TestPowerCuts plays with a whole BMC while its power fails at any flash operation: boots, floors, staging, desired
// states, events. After each cut: no floor lower, no counter back, no acknowledged generation forgotten, no event
// sequence used twice for what a client may have read, energy not below the last checkpoint, and at least the slot that
// was not being written boots.
func TestPowerCuts(t *testing.T) {
	const seed = 7
	cuts := *cutCount
	if testing.Short() {
		cuts = min(cuts, 300)
	}
	rnd := rand.New(rand.NewPCG(seed, 2))
	r := newRig(t)
	r.flash.rnd = rnd
	var seen wire.UnitState // the largest of everything that was ever reported
	var restarts uint32
	seq := uint64(0)
	generation := uint32(0)
	for c := range cuts {
		r.flash.dead, r.flash.cut = false, 0
		r.sw.on, r.good.on = false, false
		r.boot()
		r.flash.cut = 1 + rnd.IntN(60)
		s := r.b.UnitState()
		switch {
		case r.b.damaged():
			t.Fatalf("seed %d, cut %d: a cut is taken for damage", seed, c)
		case s.Floors.Sequence < seen.Floors.Sequence || s.Floors.BootSecurity < seen.Floors.BootSecurity:
			t.Fatalf("seed %d, cut %d: floors %+v, had %+v", seed, c, s.Floors, seen.Floors)
		case s.BootCount < seen.BootCount:
			t.Fatalf("seed %d, cut %d: boot count %d, had %d", seed, c, s.BootCount, seen.BootCount)
		case s.DesiredGeneration < seen.DesiredGeneration || s.ObservedGeneration < seen.ObservedGeneration:
			t.Fatalf("seed %d, cut %d: generations %d and %d, had %d and %d", seed, c,
				s.DesiredGeneration, s.ObservedGeneration, seen.DesiredGeneration, seen.ObservedGeneration)
		case s.LastEvent < seen.LastEvent:
			t.Fatalf("seed %d, cut %d: event %d, had %d", seed, c, s.LastEvent, seen.LastEvent)
		case s.Millijoules < seen.Millijoules:
			t.Fatalf("seed %d, cut %d: energy %d, checkpoint was %d", seed, c, s.Millijoules, seen.Millijoules)
		case r.b.restarts < restarts:
			t.Fatalf("seed %d, cut %d: restarts %d, had %d", seed, c, r.b.restarts, restarts)
		}
		note := func() {
			if r.flash.dead { // what happened in the moment of the cut was not acknowledged to anybody
				return
			}
			s := r.b.UnitState()
			seen.Floors.Sequence = max(seen.Floors.Sequence, s.Floors.Sequence)
			seen.Floors.BootSecurity = max(seen.Floors.BootSecurity, s.Floors.BootSecurity)
			seen.BootCount = max(seen.BootCount, s.BootCount)
			seen.DesiredGeneration = max(seen.DesiredGeneration, s.DesiredGeneration)
			seen.ObservedGeneration = max(seen.ObservedGeneration, s.ObservedGeneration)
			seen.LastEvent = max(seen.LastEvent, s.LastEvent)
			restarts = max(restarts, r.b.restarts)
		}
		steps := 0
		for !r.flash.dead && steps < 400 {
			steps++
			r.step(1)
			r.meter.p.Millijoules += 100
			note()
			if r.flash.dead {
				break
			}
			switch rnd.IntN(12) {
			case 0:
				generation++
				d := wire.Desired{Generation: generation, Mask: wire.DesiredPower | wire.DesiredLED, BootSlot: wire.SlotNone, LED: rnd.IntN(2) == 0}
				if rnd.IntN(4) > 0 {
					d.Power = wire.PowerOn
				}
				r.mustCall(wire.SideBus, wire.CmdSetDesired, wire.AppendDesired(nil, &d))
			case 1:
				seq++
				r.raise(r.statement(seq, uint32(min(seq/50, 5)), byte(seq), owners[0], owners[1]))
			case 2:
				if r.b.exposed {
					r.readAll()
				}
			case 3:
				if r.b.powered() {
					r.call(wire.SideInBand, wire.CmdReportStage, wire.AppendReportStage(nil, wire.StageBootstrap+wire.Stage(rnd.IntN(9)), &wire.Failure{}))
				}
			case 4:
				energy := r.b.energy
				r.b.keepEnergy()
				if !r.flash.dead {
					seen.Millijoules = energy
				}
			case 5:
				if rnd.IntN(8) == 0 {
					stageSome(r, rnd)
				}
			}
			note()
		}
	}
	// After all that, the rack still boots what the owners signed.
	r.flash.dead, r.flash.cut = false, 0
	r.sw.on, r.good.on = false, false
	r.boot()
	r.desire(generation+1, wire.PowerOn)
	r.until(wire.StateRunning)
	if img, err := r.readAll(); err != nil || len(img) == 0 {
		t.Fatalf("medium: %v, %d bytes", err, len(img))
	}
	t.Logf("seed %d: %d cuts, %d boots, %d events, sequence %d", seed, cuts, r.b.bootCount, r.b.eventSeq, r.b.floors.Sequence)
}

// stageSome stages the idle slot until it is done or the power fails.
func stageSome(r *rig, rnd *rand.Rand) {
	version := "9." + string(rune('0'+rnd.IntN(10)))
	img := testImage(trust.ChunkSize+512, version)
	m := signed(r.t, manifestFor(img, version, 5), owners[1], owners[2])
	if code, _ := r.call(wire.SideBus, wire.CmdSlotErase, wire.AppendSlotErase(nil, uint32(len(img)))); code != wire.CodeSuccess {
		return
	}
	for off := 0; off < len(img); off += wire.MaxSlotWrite {
		if code, _ := r.call(wire.SideBus, wire.CmdSlotWrite, wire.AppendSlotWrite(nil, uint32(off), img[off:min(off+wire.MaxSlotWrite, len(img))])); code != wire.CodeSuccess {
			return
		}
	}
	r.call(wire.SideBus, wire.CmdSlotCommit, wire.AppendSlotCommit(nil, uint32(len(m)), 0, m))
}

// TestStagingInterruptedAnywhere cuts the power in each flash operation of one staging: the running slot boots after
// every one of them, and the staged slot is empty or whole.
func TestStagingInterruptedAnywhere(t *testing.T) {
	old := testImage(testImageSize, "1.0")
	for cut := 1; ; cut++ {
		r := newRig(t)
		r.runUnit()
		r.flash.rnd = rand.New(rand.NewPCG(uint64(cut), 3))
		r.flash.cut = cut
		stageSome(r, r.flash.rnd)
		finished := !r.flash.dead
		r.flash.dead, r.flash.cut = false, 0
		r.sw.on, r.good.on = false, false
		r.boot()
		r.until(wire.StateRunning)
		img, err := r.readAll()
		if err != nil || !bytes.Equal(img, old) && len(img) != trust.ChunkSize+512 {
			t.Fatalf("cut %d: %v, %d bytes", cut, err, len(img))
		}
		if s := r.b.slots[wire.SlotB].info.State; r.b.bootSlot == wire.SlotA && s == wire.SlotValid && !finished &&
			r.b.boot.preferred == wire.SlotB {
			t.Fatalf("cut %d: preferred and valid, yet not booted", cut)
		}
		if finished {
			if r.b.bootSlot != wire.SlotB {
				t.Fatal("staged slot not booted")
			}
			t.Logf("%d operations, each cut once", cut-1)
			return
		}
	}
}

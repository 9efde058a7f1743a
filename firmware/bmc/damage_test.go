package bmc

import (
	"bytes"
	"crypto/ed25519"
	"testing"

	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
)

// raisedRig is a rig whose floors stand at sequence 7, root version 1, boot security 5, and whose unit is off.
func raisedRig(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.runUnit()
	if code := r.raise(r.statement(7, 5, 7, owners[0], owners[1])); code != wire.CodeSuccess {
		t.Fatal(code)
	}
	r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetForceOff))
	r.step(100)
	return r
}

// TestDamageOfTheStore flips bits in all of the state that is written. Whatever the flip: the floors are as they were, or
// the BMC says bmc.damage, restart after restart, and powers nothing until an operator orders a cycle.
func TestDamageOfTheStore(t *testing.T) {
	plain := raisedRig(t)
	want := plain.b.floors
	lowered, stopped, spared := 0, 0, 0
	for off := uint32(0); off < 2*driver.SectorSize; off++ {
		var one [1]byte
		if plain.flash.ReadAt(one[:], stateOffset+off); one[0] == 0xFF && off%64 != 0 {
			continue
		}
		if testing.Short() && off%5 != 0 {
			continue
		}
		r := &rig{t: t, flash: plain.flash.clone(), cfg: testConfig(), grant: true}
		r.flash.flip(stateOffset+off, 1<<(off%8))
		r.boot()
		damaged := r.b.damaged()
		if r.b.floors != want {
			lowered++
			if !damaged {
				t.Fatalf("byte %d: floors %d, %d, want %d, %d, and not a word", off,
					r.b.floors.Sequence, r.b.floors.BootSecurity, want.Sequence, want.BootSecurity)
			}
		}
		if !damaged {
			spared++
			continue
		}
		stopped++
		if off%16 != 0 {
			continue
		}
		r.boot() // a restart, and everything written since, do not hide it
		r.desire(r.b.desired.generation+1, wire.PowerOn)
		r.until(wire.StateFaulted)
		s := r.b.UnitState()
		if s.Failure.Reason.String() != "bmc.damage" || r.sw.on {
			t.Fatalf("byte %d: %v, switch %v", off, s.Failure, r.sw.on)
		}
		r.sw.on, r.good.on = false, false
		r.boot()
		r.desire(r.b.desired.generation+1, wire.PowerOn)
		r.step(500)
		if r.b.state != wire.StateFaulted || !r.b.damaged() {
			t.Fatalf("byte %d: a new desired state is not an operator's order: %v", off, r.b.state)
		}
		r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetCycle))
		r.until(wire.StateRunning)
		r.sw.on, r.good.on = false, false
		r.boot()
		r.until(wire.StateRunning)
	}
	t.Logf("%d flips lowered floors, %d stopped the BMC, %d spared", lowered, stopped, spared)
	if lowered == 0 || stopped == 0 || spared == 0 {
		t.Error("the flips say nothing")
	}
}

// TestDamageUnderARunningUnit: a BMC that restarts under its unit keeps it, says what it lost, and vouches for nothing.
func TestDamageUnderARunningUnit(t *testing.T) {
	r := newRig(t)
	r.runUnit()
	var h [4]byte
	for off := uint32(16 + 8 + 8); ; off += 4 { // the first record's payload
		if r.flash.ReadAt(h[:], stateOffset+off); h != [4]byte{0xFF, 0xFF, 0xFF, 0xFF} {
			r.flash.flip(stateOffset+off, 1)
			break
		}
	}
	r.boot()
	r.step(10)
	if s := r.b.UnitState(); s.State != wire.StateRunning || s.Failure.Reason.String() != "bmc.damage" || !r.sw.on {
		t.Fatalf("%v, %v", s.State, s.Failure)
	}
	if e := evidenceOf(t, r); e.Flags&trust.EvidenceVoid == 0 {
		t.Error("evidence is not void")
	}
	r.stage(wire.StageHalted)
	r.until(wire.StateFaulted)
}

func evidenceOf(t *testing.T, r *rig) trust.Evidence {
	t.Helper()
	b, err := wire.ParseBytes(r.mustCall(wire.SideBus, wire.CmdGetEvidence, make([]byte, 32)), wire.MaxEvidence)
	if err != nil {
		t.Fatal(err)
	}
	e, err := trust.VerifyEvidence(key(9).Public().(ed25519.PublicKey), [32]byte{}, b)
	if err != nil {
		t.Fatal(err)
	}
	return *e
}

// TestUnitsTextsAreNoRecords: what a unit reports goes into the store, and cannot look like a record there.
func TestUnitsTextsAreNoRecords(t *testing.T) {
	r := raisedRig(t)
	want := r.b.floors
	r.runUnit()
	evil := append([]byte{0xA5, keyFloors, floorsSize, 0, 1, 2, 3, 4}, make([]byte, 60)...)
	raw := append([]byte{byte(wire.StageFailed), 1, 'x', 0, byte(len(evil))}, evil...)
	r.mustCall(wire.SideInBand, wire.CmdReportStage, raw)
	if s := r.b.failure.Seen.String(); s == "" || bytes.ContainsAny([]byte(s), "\x00\x02\xA5") {
		t.Errorf("kept %q", s)
	}
	r.boot()
	if r.b.floors != want {
		t.Errorf("floors %+v", r.b.floors)
	}
}

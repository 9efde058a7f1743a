package bmc

import (
	"testing"

	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/wire"
)

// wearOut makes the whole store keep nothing from now on.
func (r *rig) wearOut() {
	r.flash.bad = map[uint32]bool{}
	for off := uint32(stateOffset); off < eventOffset+eventSize; off += driver.SectorSize {
		r.flash.bad[off/driver.SectorSize] = true
	}
}

// TestAnOrderThatIsNotKept: the unit goes off, and the answer says that it may not stay off.
func TestAnOrderThatIsNotKept(t *testing.T) {
	for _, kind := range []wire.ResetKind{wire.ResetForceOff, wire.ResetGracefulOff} {
		r := newRig(t)
		r.runUnit()
		r.wearOut()
		if code, _ := r.call(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, kind)); code != wire.CodeError {
			t.Errorf("%v: %v", kind, code)
		}
		r.until(wire.StateOff)
		if r.step(200); r.sw.on {
			t.Errorf("%v: on again", kind)
		}
	}
}

// TestAFaultIsKeptLater: a fault that the store did not take when it happened is written when it does.
func TestAFaultIsKeptLater(t *testing.T) {
	r := newRig(t)
	r.runUnit()
	r.wearOut()
	r.b.fault(wire.MakeFailure("power.good", "x", "y"))
	r.flash.bad = nil
	r.step(checkpointMillis/10 + 100)
	r.boot()
	if r.step(10); r.b.state != wire.StateFaulted || r.b.failure.Reason.String() != "power.good" {
		t.Errorf("%v, %v", r.b.state, r.b.failure)
	}
}

// TestAWornStoreIsSaid: a write that failed is told until the BMC restarts, whatever succeeds after it; an order to start
// is refused.
func TestAWornStoreIsSaid(t *testing.T) {
	r := newRig(t)
	r.runUnit()
	r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetForceOff))
	r.wearOut()
	if code, _ := r.call(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetCycle)); code != wire.CodeError {
		t.Errorf("cycle: %v", code)
	}
	r.step(300)
	if r.sw.on {
		t.Error("powered without a record of it")
	}
	flagged := func() bool { return r.b.UnitState().Flags&wire.FlagStoreWorn != 0 }
	if !flagged() {
		t.Error("not flagged")
	}
	r.flash.bad = nil
	r.b.keepBoot() // writes nothing, or works again
	r.b.keepEnergy()
	if !flagged() {
		t.Error("the flag went away by itself")
	}
	r.boot()
	if flagged() {
		t.Error("flagged after a restart with a store that works")
	}
}

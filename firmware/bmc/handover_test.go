package bmc

import (
	"testing"

	"github.com/racklet/racklet/firmware/wire"
)

// TestBootConfigIsForStage1: after the handover the unit cannot read its boot configuration, whatever stage it claims to be
// in, until it has really started anew. The debug port can.
func TestBootConfigIsForStage1(t *testing.T) {
	r := newRig(t)
	ask := func(side wire.Side) wire.Code {
		code, _ := r.call(side, wire.CmdGetBootConfig, wire.AppendOffset(nil, 0))
		return code
	}
	want := func(when string, code wire.Code) {
		t.Helper()
		if got := ask(wire.SideInBand); got != code {
			t.Errorf("%s: %v, want %v", when, got, code)
		}
		if got := ask(wire.SideDebug); got != wire.CodeSuccess {
			t.Errorf("%s, debug port: %v", when, got)
		}
	}
	r.desire(1, wire.PowerOn)
	r.until(wire.StateRunning)
	want("powered", wire.CodeSuccess)
	for s := wire.StageBootstrap; s < wire.StageHandover; s++ {
		r.stage(s)
		want(s.String(), wire.CodeSuccess)
	}
	r.stage(wire.StageHandover)
	want("handover", wire.CodeBusy)
	for _, s := range []wire.Stage{wire.StageOS, wire.StageBootstrap, wire.StageFailed, wire.StageSource} {
		r.stage(s)
		want("a system that says "+s.String(), wire.CodeBusy)
	}
	r.boot()
	r.step(1)
	want("BMC restarted", wire.CodeBusy)
	r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetForceRestart))
	r.step(20)
	want("unit reset", wire.CodeSuccess)
	r.stage(wire.StageRunning)
	want("running", wire.CodeBusy)
	r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetCycle))
	r.until(wire.StateRunning)
	want("rail cycled", wire.CodeSuccess)
}

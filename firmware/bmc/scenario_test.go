package bmc

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
)

var update = flag.Bool("update", false, "rewrite the golden event logs")

// A scenario is played on a bench; its event log is compared with testdata/NAME.log, and its end with end.
type scenario struct {
	name string
	play func(r *rig)
	end  func(s *wire.UnitState) string // empty: as it should be
}

func ends(state wire.State, bootSlot uint8, reason string, flags uint16) func(*wire.UnitState) string {
	return func(s *wire.UnitState) string {
		got := fmt.Sprintf("%v, boot slot %d, %q, flags %#x", s.State, s.BootSlot, s.Failure.Reason, s.Flags)
		want := fmt.Sprintf("%v, boot slot %d, %q, flags %#x", state, bootSlot, reason, flags)
		if got != want {
			return "ends " + got + ", want " + want
		}
		return ""
	}
}

var scenarios = []scenario{
	{"good-boot", func(r *rig) { r.runUnit() },
		ends(wire.StateRunning, wire.SlotA, "", 0)},

	{"bad-manifest-falls-back", func(r *rig) {
		r.flash.flip(manifestOf(wire.SlotA)+40, 1)
		r.runUnit()
	}, ends(wire.StateRunning, wire.SlotB, "slot.signature", wire.FlagFallbackSlot)},

	{"bad-chunk-falls-back", func(r *rig) {
		r.flash.flip(imageOf(wire.SlotA)+2*trust.ChunkSize+17, 0x10)
		r.desire(1, wire.PowerOn)
		r.until(wire.StateRunning)
		img, err := r.readAll()
		if !errors.Is(err, ErrMedium) || !bytes.Equal(img, testImage(testImageSize, "1.0")[:len(img)]) {
			r.t.Errorf("bad chunk: %v, or unverified bytes", err)
		}
		if err := r.b.ReadMedium(0, make([]byte, 512)); err == nil || r.b.MediumBlocks() != 0 {
			r.t.Error("the medium is still there")
		}
		r.step(1)
		if r.sw.on {
			r.t.Error("the rail is still on")
		}
		r.until(wire.StateRunning)
		if img, err := r.readAll(); err != nil || !bytes.Equal(img, testImage(testImageSize, "1.1")) {
			r.t.Errorf("other slot: %v", err)
		}
	}, ends(wire.StateRunning, wire.SlotB, "slot.chunk", wire.FlagFallbackSlot)},

	{"both-slots-bad", func(r *rig) {
		r.flash.flip(imageOf(wire.SlotA), 1)
		r.flash.flip(imageOf(wire.SlotB)+testImageSize-1, 1)
		r.desire(1, wire.PowerOn)
		for range 2 {
			r.until(wire.StateRunning)
			if _, err := r.readAll(); err == nil {
				r.t.Error("bad chunk served")
			}
			r.step(1)
		}
		r.until(wire.StateFaulted)
		if r.sw.on {
			r.t.Error("rail on")
		}
		r.step(1000) // and stays so
	}, ends(wire.StateFaulted, wire.SlotNone, "slot.chunk", 0)},

	{"both-slots-empty", func(r *rig) {
		for slot := range uint8(2) {
			if err := eraseRange(r.flash, manifestOf(slot), manifestSize); err != nil {
				r.t.Fatal(err)
			}
		}
		r.desire(1, wire.PowerOn)
		r.until(wire.StateFaulted)
	}, ends(wire.StateFaulted, wire.SlotNone, "slot.none", 0)},

	{"healed-slot-is-read-again", func(r *rig) {
		at := imageOf(wire.SlotA) + 5
		r.flash.flip(at, 1)
		r.desire(1, wire.PowerOn)
		r.until(wire.StateRunning)
		r.readAll()
		r.step(1)
		r.until(wire.StateRunning) // from B
		r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetCycle))
		r.until(wire.StateRunning) // from B: A is read again and still bad
		r.flash.flip(at, 1)
		r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetCycle))
		r.until(wire.StateRunning)
	}, ends(wire.StateRunning, wire.SlotA, "", 0)},

	{"slot-below-floor", func(r *rig) {
		r.writeSlot(wire.SlotB, "2.0", 6)
		r.boot()
		r.mustCall(wire.SideBus, wire.CmdSetDesired, wire.AppendDesired(nil, &wire.Desired{Generation: 1,
			Mask: wire.DesiredPower | wire.DesiredBoot, Power: wire.PowerOn, BootMode: wire.BootOnce, BootSlot: wire.SlotB}))
		r.until(wire.StateRunning)
		if code := r.raise(r.statement(4, 6, 1, owners[0], owners[1])); code != wire.CodeSuccess {
			r.t.Errorf("raise: %v", code)
		}
		r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetCycle))
		r.until(wire.StateRunning)
	}, ends(wire.StateRunning, wire.SlotB, "slot.floor", wire.FlagFallbackSlot)},

	{"healed-slot-below-the-floor-stays-off", func(r *rig) {
		r.writeSlot(wire.SlotB, "2.0", 6)
		at := imageOf(wire.SlotA) + 5
		r.flash.flip(at, 1)
		r.boot()
		r.desire(1, wire.PowerOn)
		r.until(wire.StateRunning)
		r.readAll()
		r.step(1)
		r.until(wire.StateRunning) // from B
		if code := r.raise(r.statement(1, 6, 1, owners[0], owners[1])); code != wire.CodeSuccess {
			r.t.Errorf("raise: %v", code)
		}
		r.flash.flip(at, 1)
		r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetCycle))
		r.until(wire.StateRunning)
	}, ends(wire.StateRunning, wire.SlotB, "slot.floor", wire.FlagFallbackSlot)},

	{"no-power-good", func(r *rig) {
		r.railBad = true
		r.desire(1, wire.PowerOn)
		r.until(wire.StateFaulted)
		if r.sw.on {
			r.t.Error("switch closed")
		}
	}, ends(wire.StateFaulted, wire.SlotNone, "power.good", 0)},

	{"rail-comes-at-the-second-try", func(r *rig) {
		r.railBad = true
		r.desire(1, wire.PowerOn)
		r.step(150)
		r.railBad = false
		r.until(wire.StateRunning)
	}, ends(wire.StateRunning, wire.SlotA, "", 0)},

	{"load-switch-stuck-closed", func(r *rig) {
		r.desire(1, wire.PowerOn)
		for range 500 {
			r.now += 10
			r.good.on = true
			r.b.Step(r.now)
		}
	}, ends(wire.StateFaulted, wire.SlotNone, "power.good", 0)},

	{"rail-lost", func(r *rig) {
		r.runUnit()
		r.railBad = true
		r.until(wire.StateFaulted)
	}, ends(wire.StateFaulted, wire.SlotNone, "power.good", 0)},

	{"rail-lost-now-and-then", func(r *rig) {
		for range 5 {
			r.runUnit()
			r.railBad = true
			r.step(1)
			r.railBad = false
			r.until(wire.StateRunning)
			for s := wire.StageBootstrap; s <= wire.StageRunning; s++ {
				r.stage(s)
			}
		}
	}, ends(wire.StateRunning, wire.SlotA, "", 0)},

	{"over-current", func(r *rig) {
		r.runUnit()
		r.meter.p.Milliwatts = 26_000
		r.step(5) // a peak is allowed
		r.meter.p.Milliwatts = 12_000
		r.step(20)
		if r.b.state != wire.StateRunning {
			r.t.Error("tripped by a peak")
		}
		r.meter.p.Milliwatts = 26_000
		r.step(20)
		if r.sw.on {
			r.t.Error("not tripped after 200 ms")
		}
	}, ends(wire.StateFaulted, wire.SlotNone, "power.overcurrent", 0)},

	{"too-hot", func(r *rig) {
		r.runUnit()
		r.heat.t = 96_000
		r.until(wire.StateDraining)
		if h, _ := wire.ParseHostRequest(r.mustCall(wire.SideInBand, wire.CmdHeartbeat, wire.AppendReport(nil, &wire.Report{}))); h != wire.HostShutdown {
			r.t.Errorf("unit is asked %v", h)
		}
		r.stage(wire.StageHalted)
		r.until(wire.StateFaulted)
	}, ends(wire.StateFaulted, wire.SlotNone, "thermal.shutdown", 0)},

	{"too-hot-to-start", func(r *rig) {
		r.heat.t = 96_000
		r.desire(1, wire.PowerOn)
		r.until(wire.StateFaulted)
		if r.sw.sets != 0 {
			r.t.Error("switch closed")
		}
	}, ends(wire.StateFaulted, wire.SlotNone, "thermal.shutdown", 0)},

	{"graceful-off", func(r *rig) {
		r.runUnit()
		r.mustCall(wire.SideInBand, wire.CmdHeartbeat, wire.AppendReport(nil, &wire.Report{UptimeSeconds: 3}))
		r.desire(2, wire.PowerOff)
		r.step(1)
		if h, _ := wire.ParseHostRequest(r.mustCall(wire.SideInBand, wire.CmdHeartbeat, wire.AppendReport(nil, &wire.Report{}))); h != wire.HostShutdown {
			r.t.Errorf("unit is asked %v", h)
		}
		r.stage(wire.StageStopping)
		r.step(100)
		if !r.sw.on {
			r.t.Error("rail cut before the unit halted")
		}
		r.stage(wire.StageHalted)
		r.step(100)
	}, ends(wire.StateOff, wire.SlotNone, "", 0)},

	{"graceful-off-deadline", func(r *rig) {
		r.runUnit()
		r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetGracefulOff))
		r.step(2990)
		if !r.sw.on {
			r.t.Error("rail cut before the deadline")
		}
		r.step(30)
	}, ends(wire.StateOff, wire.SlotNone, "", 0)},

	{"force-off", func(r *rig) {
		r.runUnit()
		r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetForceOff))
		if r.sw.on {
			r.t.Error("rail on")
		}
		r.step(100)
	}, ends(wire.StateOff, wire.SlotNone, "", 0)},

	{"graceful-cycle", func(r *rig) {
		r.runUnit()
		r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetGracefulCycle))
		if h, _ := wire.ParseHostRequest(r.mustCall(wire.SideInBand, wire.CmdHeartbeat, wire.AppendReport(nil, &wire.Report{}))); h != wire.HostRestart {
			r.t.Errorf("unit is asked %v", h)
		}
		r.stage(wire.StageHalted)
		r.until(wire.StateOff)
		r.until(wire.StateRunning)
	}, ends(wire.StateRunning, wire.SlotA, "", 0)},

	{"reset-voids-evidence", func(r *rig) {
		r.runUnit()
		before := r.b.registers
		r.seen.on = true
		r.step(3)
		r.seen.on = false
		r.step(1)
		for i := range before {
			if before[i].Extends > r.b.registers[i].Extends {
				r.t.Errorf("register %d was cleared by a reset", before[i].Index)
			}
		}
		if s := r.b.UnitState(); s.Stage != wire.StagePowered || s.Resets != 1 {
			r.t.Errorf("%+v", s)
		}
	}, ends(wire.StateRunning, wire.SlotA, "", wire.FlagEvidenceVoid)},

	{"force-restart-voids-evidence-until-a-rail-cycle", func(r *rig) {
		r.runUnit()
		r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetForceRestart))
		if !r.reset.on {
			r.t.Error("reset line not asserted")
		}
		r.seen.on = true
		r.step(20)
		r.seen.on = false
		r.step(5)
		if r.reset.on {
			r.t.Error("reset line still asserted")
		}
		if s := r.b.UnitState(); s.Flags&wire.FlagEvidenceVoid == 0 || s.Resets != 1 {
			r.t.Errorf("%+v", s)
		}
		r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetCycle))
		r.until(wire.StateRunning)
	}, ends(wire.StateRunning, wire.SlotA, "", 0)},

	{"bmc-restarts-under-a-running-unit", func(r *rig) {
		r.runUnit()
		sets := r.sw.sets
		r.boot()
		r.step(10)
		if r.sw.sets != sets || !r.sw.on {
			r.t.Error("the rail was touched")
		}
		if img, err := r.readAll(); err != nil || !bytes.Equal(img, testImage(testImageSize, "1.0")) {
			r.t.Errorf("medium: %v", err)
		}
		if s := r.b.UnitState(); s.Stage != wire.StageRunning || s.BootCount != 1 {
			r.t.Errorf("%+v", s)
		}
	}, ends(wire.StateRunning, wire.SlotA, "", wire.FlagEvidenceVoid)},

	{"power-cut-of-the-whole-slot", func(r *rig) {
		r.runUnit()
		r.sw.on, r.good.on = false, false
		r.boot()
		r.step(1)
		if r.b.UnitState().Rail {
			r.t.Error("rail on")
		}
		r.until(wire.StateRunning) // desired power is still on
	}, ends(wire.StateRunning, wire.SlotA, "", 0)},

	{"faulted-survives-a-restart", func(r *rig) {
		r.railBad = true
		r.desire(1, wire.PowerOn)
		r.until(wire.StateFaulted)
		sets := r.sw.sets
		r.boot()
		r.step(1000)
		if r.sw.sets != sets {
			r.t.Error("tried again without being asked")
		}
	}, ends(wire.StateFaulted, wire.SlotNone, "power.good", 0)},

	{"new-generation-leaves-faulted", func(r *rig) {
		r.railBad = true
		r.desire(1, wire.PowerOn)
		r.until(wire.StateFaulted)
		r.railBad = false
		r.desire(1, wire.PowerOn) // a repeat: nothing
		r.step(100)
		if r.b.state != wire.StateFaulted {
			r.t.Error("a repeat left Faulted")
		}
		r.desire(2, wire.PowerOn)
		r.until(wire.StateRunning)
	}, ends(wire.StateRunning, wire.SlotA, "", 0)},

	{"no-grant-no-power", func(r *rig) {
		r.grant = false
		r.desire(1, wire.PowerOn)
		r.step(1000)
		r.mustCall(wire.SideBus, wire.CmdGrantPower, wire.AppendGrant(nil, 2_999))
		r.step(1000)
		if r.sw.on {
			r.t.Error("switch closed for a grant of next to nothing")
		}
	}, ends(wire.StatePowering, wire.SlotA, "power.grant", wire.FlagWaitGrant|wire.FlagCapped)},

	{"smaller-grant-starts-and-is-watched", func(r *rig) {
		r.grant = false
		r.desire(1, wire.PowerOn)
		r.step(1100)
		r.mustCall(wire.SideBus, wire.CmdGrantPower, wire.AppendGrant(nil, 6_000))
		r.until(wire.StateRunning)
		r.meter.p.Milliwatts = 6_500
		r.step(2000)
		if !r.sw.on {
			r.t.Error("cut below the trip level")
		}
	}, ends(wire.StateRunning, wire.SlotA, "", wire.FlagCapped)},

	{"rmc-goes-silent", func(r *rig) {
		r.runUnit()
		r.silent = true
		r.step(1500)
		r.silent = false
		r.step(10)
	}, ends(wire.StateRunning, wire.SlotA, "", 0)},

	{"grant-withdrawn", func(r *rig) {
		r.runUnit()
		r.grant = false
		r.mustCall(wire.SideBus, wire.CmdGrantPower, wire.AppendGrant(nil, 0))
		r.stage(wire.StageHalted)
		r.step(1000)
		if r.sw.on {
			r.t.Error("switch closed")
		}
		r.grant = true
		r.until(wire.StateRunning)
	}, ends(wire.StateRunning, wire.SlotA, "", 0)},

	{"slow-stage-is-named", func(r *rig) {
		r.desire(1, wire.PowerOn)
		r.until(wire.StateRunning)
		r.readAll()
		r.stage(wire.StageBootstrap)
		r.stage(wire.StageNetwork)
		r.step(7000)
		if f := r.b.UnitState().Failure; f.Expected.String() != "stage network done within 60 s" {
			r.t.Errorf("%v", f)
		}
		if !r.sw.on {
			r.t.Error("power-cycled behind the operator's back")
		}
	}, ends(wire.StateRunning, wire.SlotA, "boot.timeout", 0)},

	{"slow-stage-passes-after-all", func(r *rig) {
		r.desire(1, wire.PowerOn)
		r.until(wire.StateRunning)
		r.readAll()
		r.stage(wire.StageBootstrap)
		r.step(7000)
		r.stage(wire.StageNetwork)
		r.step(10)
	}, ends(wire.StateRunning, wire.SlotA, "", 0)},

	{"policy-cycles-a-stuck-unit-a-few-times", func(r *rig) {
		r.cfg.Limits.CycleOnTimeout = true
		if err := Provision(r.flash, r.cfg); err != nil {
			r.t.Fatal(err)
		}
		r.boot()
		r.desire(1, wire.PowerOn)
		r.step(25000)
		if r.b.bootCount != 3 {
			r.t.Errorf("%d boots", r.b.bootCount)
		}
	}, ends(wire.StateFaulted, wire.SlotNone, "boot.timeout", 0)},

	{"failed-check-is-kept", func(r *rig) {
		r.desire(1, wire.PowerOn)
		r.until(wire.StateRunning)
		r.readAll()
		r.stage(wire.StageBootstrap)
		f := wire.MakeFailure("rack.tree", "sha256:aa", "sha256:bb")
		r.mustCall(wire.SideInBand, wire.CmdReportStage, wire.AppendReportStage(nil, wire.StageFailed, &f))
		r.step(5)
		r.boot()
		r.step(5)
		if s := r.b.UnitState(); s.Stage != wire.StageFailed || s.Failure != f {
			r.t.Errorf("%+v", s)
		}
	}, ends(wire.StateRunning, wire.SlotA, "rack.tree", wire.FlagEvidenceVoid)},

	{"heartbeats-stop-and-come-back", func(r *rig) {
		r.runUnit()
		beat := wire.AppendReport(nil, &wire.Report{Stale: true})
		r.mustCall(wire.SideInBand, wire.CmdHeartbeat, beat)
		r.step(1600)
		if r.b.UnitState().Flags&wire.FlagReportStale == 0 {
			r.t.Error("silence not noticed")
		}
		r.mustCall(wire.SideInBand, wire.CmdHeartbeat, beat)
		r.step(1)
	}, ends(wire.StateRunning, wire.SlotA, "", wire.FlagStale)},

	{"sensor-lost-and-found", func(r *rig) {
		r.runUnit()
		r.meter.err = errors.New("nobody home")
		r.step(10)
		if r.b.UnitState().Flags&wire.FlagSensorLost == 0 {
			r.t.Error("loss not noticed")
		}
		r.meter.err = nil
		r.step(10)
	}, ends(wire.StateRunning, wire.SlotA, "", 0)},

	{"unit-stages-the-other-slot", func(r *rig) {
		r.runUnit()
		r.stageSlot(wire.SideInBand, "3.0", 7)
		r.stage(wire.StageHalted) // "cycle me"
		r.step(100)
		r.until(wire.StateRunning)
		if img, err := r.readAll(); err != nil || !bytes.Equal(img, testImage(testImageSize, "3.0")) {
			r.t.Errorf("medium: %v", err)
		}
		for s := wire.StageBootstrap; s <= wire.StageRunning; s++ {
			r.stage(s)
		}
		r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetCycle))
		r.until(wire.StateRunning)
	}, ends(wire.StateRunning, wire.SlotB, "", 0)},

	{"reset-after-staging-becomes-a-cycle", func(r *rig) {
		r.runUnit()
		r.stageSlot(wire.SideInBand, "3.0", 7)
		r.seen.on = true
		r.step(1)
		r.seen.on = false
		r.step(5)
		r.until(wire.StateRunning)
	}, ends(wire.StateRunning, wire.SlotB, "", 0)},

	{"staged-slot-does-not-prove-itself", func(r *rig) {
		r.runUnit()
		r.stageSlot(wire.SideInBand, "3.0", 7)
		for range 3 {
			r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetCycle))
			r.until(wire.StateRunning)
			r.readAll()
			r.stage(wire.StageBootstrap)
			r.step(7000) // and there it hangs
		}
	}, ends(wire.StateRunning, wire.SlotA, "boot.timeout", wire.FlagFallbackSlot)},

	{"fallback-becomes-the-only-slot-while-the-other-is-written", func(r *rig) {
		r.flash.flip(manifestOf(wire.SlotA)+100, 1)
		r.runUnit() // from B
		r.offer(signed(r.t, manifestFor(testImage(512, "3.0"), "3.0", 7), owners[0], owners[1]))
		r.mustCall(wire.SideInBand, wire.CmdSlotErase, wire.AppendSlotErase(nil, 512))
		r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetCycle))
		r.until(wire.StateRunning)
	}, ends(wire.StateRunning, wire.SlotB, "", 0)},

	{"boot-once", func(r *rig) {
		r.mustCall(wire.SideBus, wire.CmdSetDesired, wire.AppendDesired(nil, &wire.Desired{Generation: 1,
			Mask: wire.DesiredPower | wire.DesiredBoot, Power: wire.PowerOn, BootMode: wire.BootOnce, BootSlot: wire.SlotB}))
		r.until(wire.StateRunning)
		if s := r.b.UnitState(); s.BootSlot != wire.SlotB || s.Flags != 0 || s.BootMode != wire.BootDisabled {
			r.t.Errorf("%+v", s)
		}
		r.mustCall(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetCycle))
		r.until(wire.StateRunning)
	}, ends(wire.StateRunning, wire.SlotA, "", 0)},
}

// stageSlot writes the idle slot over the wire.
func (r *rig) stageSlot(side wire.Side, version string, security uint32) {
	r.t.Helper()
	img := testImage(testImageSize, version)
	m := signed(r.t, manifestFor(img, version, security), owners[1], owners[2])
	if side == wire.SideInBand {
		r.offer(m)
	}
	r.mustCall(side, wire.CmdSlotErase, wire.AppendSlotErase(nil, uint32(len(img))))
	for off := 0; off < len(img); off += wire.MaxSlotWrite {
		r.mustCall(side, wire.CmdSlotWrite, wire.AppendSlotWrite(nil, uint32(off), img[off:min(off+wire.MaxSlotWrite, len(img))]))
	}
	r.mustCall(side, wire.CmdSlotCommit, wire.AppendSlotCommit(nil, uint32(len(m)), 0, m))
}

// offer shows the BMC, in the unit's name, the manifest of what shall be written.
func (r *rig) offer(m []byte) {
	r.t.Helper()
	for off := 0; off < len(m); off += 100 {
		r.mustCall(wire.SideInBand, wire.CmdSlotCommit, wire.AppendSlotCommit(nil, uint32(len(m)), uint32(off), m[off:min(off+100, len(m))]))
	}
}

// line spells an event for the golden logs.
func line(e *wire.Event) string {
	s := fmt.Sprintf("%3d %6.1fs boot %d  %-11v", e.Sequence, float64(e.Millis)/1000, e.Boot, e.Kind)
	switch e.Kind {
	case wire.EventState:
		s += fmt.Sprintf(" %v", wire.State(e.Code))
	case wire.EventStage:
		s += fmt.Sprintf(" %v", wire.Stage(e.Code))
	case wire.EventSlot:
		s += " slot " + slotName(uint8(e.Code))
	default:
		s += fmt.Sprintf(" %d", e.Code)
	}
	if t := e.Text.String(); t != "" {
		s += " " + t
	}
	if !e.Failure.IsZero() {
		s += fmt.Sprintf(" | %v: expected %v, seen %v", e.Failure.Reason, e.Failure.Expected, e.Failure.Seen)
	}
	return strings.TrimRight(s, " ")
}

func TestScenarios(t *testing.T) {
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			r := newRig(t)
			sc.play(r)
			s := r.b.UnitState()
			if msg := sc.end(&s); msg != "" {
				t.Error(msg)
			}
			if r.sw.on != (s.State == wire.StateRunning || s.State == wire.StateDraining) || !r.sw.on && r.b.MediumBlocks() != 0 {
				t.Errorf("switch %v, medium of %d blocks, %v", r.sw.on, r.b.MediumBlocks(), s.State)
			}
			var log strings.Builder
			for _, e := range r.events(0) {
				log.WriteString(line(&e) + "\n")
			}
			path := filepath.Join("testdata", "scenarios", sc.name+".log")
			if *update {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(log.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if log.String() != string(want) {
				t.Errorf("event log (-update rewrites %s):\n%s\nwant:\n%s", path, log.String(), want)
			}
		})
	}
}

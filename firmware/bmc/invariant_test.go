package bmc

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
	"pgregory.net/rapid"
)

// TestInvariants lets everything happen in any order, and looks after each thing whether the machine still keeps its
// word: when the switch may be closed, when the medium may be shown, what clears a register, what may be lost.
func TestInvariants(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t)
		generation := uint32(0)
		flips := 0
		var before wire.UnitState
		registers := r.b.registers
		check := func(what string) {
			s := r.b.UnitState()
			fail := func(why string) { rt.Fatalf("after %s: %s\n%+v", what, why, s) }
			switch s.State {
			case wire.StateOff, wire.StateVerifying, wire.StateFaulted:
				if r.sw.on {
					fail("switch closed")
				}
			case wire.StateRunning, wire.StateDraining:
				if !r.sw.on {
					fail("switch open")
				}
			}
			if r.b.started && r.sw.on != r.b.closed {
				fail("switch is not where the BMC thinks")
			}
			var rec bootRecord
			rec.decode(r.b.ledger.get(keyBoot))
			if r.sw.on && !rec.rail {
				fail("rail on and not on record")
			}
			if r.b.MediumBlocks() != 0 && (!r.sw.on || s.BootSlot > wire.SlotB) {
				fail("medium shown without a boot")
			}
			if s.State == wire.StateFaulted && s.Failure.IsZero() {
				fail("faulted without a reason")
			}
			if s.BootCount < before.BootCount || s.Floors.Sequence < before.Floors.Sequence || s.LastEvent < before.LastEvent ||
				s.DesiredGeneration < before.DesiredGeneration {
				fail("something went back")
			}
			for i := range registers {
				if s.BootCount == before.BootCount && s.Rail && r.b.registers[i].Extends < registers[i].Extends {
					fail("a register was cleared without a rail cycle")
				}
			}
			if s.Resets > 0 && s.Flags&wire.FlagEvidenceVoid == 0 && r.b.closed {
				fail("evidence not void after a reset")
			}
			if !r.sw.on && r.b.registers[registerSlot].Extends != 0 {
				fail("registers of a unit that is off")
			}
			before, registers = s, r.b.registers
		}
		actions := map[string]func(*rapid.T){
			"time": func(rt *rapid.T) { r.step(rapid.IntRange(1, 150).Draw(rt, "steps")) },
			"desire": func(rt *rapid.T) {
				generation++
				r.desire(generation, wire.Power(min(rapid.IntRange(0, 3).Draw(rt, "power"), 1)))
			},
			"order": func(rt *rapid.T) {
				r.call(wire.SideBus, wire.CmdReset, wire.AppendReset(nil, wire.ResetKind(rapid.IntRange(0, 4).Draw(rt, "kind"))))
			},
			"grants": func(rt *rapid.T) { r.grant = rapid.IntRange(0, 3).Draw(rt, "on") > 0 },
			"grant": func(rt *rapid.T) {
				r.mustCall(wire.SideBus, wire.CmdGrantPower, wire.AppendGrant(nil, rapid.SampledFrom([]uint32{0, 2_000, 12_000, 12_000, 12_000}).Draw(rt, "mW")))
			},
			"stage": func(rt *rapid.T) {
				s := wire.Stage(rapid.IntRange(int(wire.StageBootstrap), int(wire.StageFailed)).Draw(rt, "stage"))
				r.call(wire.SideInBand, wire.CmdReportStage, wire.AppendReportStage(nil, s, &wire.Failure{}))
			},
			"read": func(*rapid.T) { r.readAll() },
			"measure": func(*rapid.T) {
				r.call(wire.SideInBand, wire.CmdExtendMeasurement, wire.AppendExtendMeasurement(nil, 8, &[32]byte{1}, nil))
			},
			"floors": func(rt *rapid.T) {
				n := uint64(rapid.IntRange(1, 9).Draw(rt, "sequence"))
				r.raise(r.statement(n, uint32(n/2), byte(n), owners[0], owners[2]))
			},
			"reset": func(*rapid.T) { r.seen.on = true; r.step(1); r.seen.on = false; r.step(1) },
			"rail":  func(rt *rapid.T) { r.railBad = rapid.IntRange(0, 4).Draw(rt, "bad") == 0; r.step(1) },
			"heat": func(rt *rapid.T) {
				r.heat.t = rapid.SampledFrom([]int32{30_000, 40_000, 50_000, 60_000, 97_000}).Draw(rt, "heat")
			},
			"load": func(rt *rapid.T) {
				r.meter.p.Milliwatts = rapid.SampledFrom([]uint32{0, 5_000, 9_000, 11_000, 30_000}).Draw(rt, "load")
			},
			"silent": func(rt *rapid.T) { r.silent = rapid.Bool().Draw(rt, "silent") },
			"flip": func(rt *rapid.T) {
				if flips++; flips < 3 {
					r.flash.flip(imageOf(uint8(rapid.IntRange(0, 1).Draw(rt, "slot")))+uint32(rapid.IntRange(0, testImageSize-1).Draw(rt, "at")), 1)
				}
			},
			"restart": func(*rapid.T) {
				registers = [registerCount]trust.Register{} // a restart forgets them, and says so: void
				r.boot()
				r.step(1)
				if r.sw.on && r.b.UnitState().Flags&wire.FlagEvidenceVoid == 0 && r.b.bootCount == before.BootCount {
					rt.Fatal("evidence not void after a restart under a running unit")
				}
			},
			"cut": func(*rapid.T) {
				registers = [registerCount]trust.Register{}
				r.sw.on, r.good.on = false, false
				r.boot()
				r.step(1)
			},
		}
		names := slices.Sorted(maps.Keys(actions))
		for range rapid.IntRange(1, 60).Draw(rt, "actions") {
			name := rapid.SampledFrom(names).Draw(rt, "action")
			actions[name](rt)
			check(name)
		}
	})
}

// TestFitsAMicrocontroller reads the package's own source: nothing that TinyGo lacks or that makes memory unbounded.
func TestFitsAMicrocontroller(t *testing.T) {
	forbidden := []string{"fmt", "encoding/json", "reflect", "time", "crypto/rand", "sync", "os", "net", "log", "maps", "context", "unsafe"}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	n := 0
	for _, e := range files {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		n++
		f, err := parser.ParseFile(fset, e.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			for _, bad := range forbidden {
				if i.Path.Value == `"`+bad+`"` || strings.HasPrefix(i.Path.Value, `"`+bad+`/`) {
					t.Errorf("%s imports %s", e.Name(), i.Path.Value)
				}
			}
		}
		ast.Inspect(f, func(node ast.Node) bool {
			switch node.(type) {
			case *ast.GoStmt, *ast.MapType, *ast.ChanType, *ast.SelectStmt:
				t.Errorf("%s: %T", fset.Position(node.Pos()), node)
			}
			return true
		})
	}
	if n < 10 {
		t.Fatalf("only %d files read", n)
	}
}

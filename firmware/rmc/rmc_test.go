package rmc_test

import (
	"bytes"
	"testing"

	"github.com/racklet/racklet/firmware/rmc"
	"github.com/racklet/racklet/firmware/wire"
	"pgregory.net/rapid"
)

func TestStaggeredStart(t *testing.T) {
	g := newRig(t).start()
	g.set(func(p *wire.Policies) { p.StaggerMillis = 2000 })
	g.want(1, 2, 3, 4, 5)
	g.run(15_000)
	check := func(from uint64) {
		t.Helper()
		var all []uint64
		for i, b := range g.bmcs {
			n := len(b.starts)
			if n == 0 || b.starts[n-1] < from {
				t.Fatalf("slot %d did not start: %+v", i+1, b.UnitState)
			}
			all = append(all, b.starts[n-1])
		}
		for i, a := range all {
			for _, b := range all[:i] {
				if d := max(a, b) - min(a, b); d < 1900 {
					t.Errorf("two units started within %d ms", d)
				}
			}
		}
	}
	check(0)
	if s := g.r.State(); s.GrantedMilliwatts != 60_000 || s.AnswerMask != 0b111110 {
		t.Errorf("%+v", s)
	}
	// A brown-out takes every rail at once; the way back is staggered, too.
	for _, b := range g.bmcs {
		b.cut(g.now)
	}
	from := g.now
	g.run(15_000)
	check(from)
}

func TestBudgetHolds(t *testing.T) {
	g := newRig(t).start()
	g.set(func(p *wire.Policies) { p.BudgetMilliwatts, p.ReserveMilliwatts, p.StaggerMillis = 45_000, 15_000, 100 })
	g.want(1, 2, 3, 4, 5)
	g.run(10_000)
	if s := g.r.State(); s.GrantedMilliwatts != 24_000 {
		t.Errorf("granted %d mW of 30 W, want two units of 12 W", s.GrantedMilliwatts)
	}
	if n := g.count(wire.EventPower, 3, 0); n != 1 {
		t.Errorf("%d refusals logged for slot 3, want one", n)
	}
	// More budget: the others follow. Less: the highest go.
	g.set(func(p *wire.Policies) { p.BudgetMilliwatts, p.StaggerMillis = 80_000, 100 })
	g.run(5_000)
	if s := g.r.State(); s.GrantedMilliwatts != 60_000 {
		t.Errorf("granted %d mW after the budget rose", s.GrantedMilliwatts)
	}
	g.set(func(p *wire.Policies) { p.BudgetMilliwatts = 40_000 })
	g.run(5_000)
	if s := g.r.State(); s.GrantedMilliwatts != 24_000 {
		t.Errorf("granted %d mW after the budget fell", s.GrantedMilliwatts)
	}
	for i, b := range g.bmcs {
		if b.Rail != (i < 2) {
			t.Errorf("slot %d rail %v after the budget fell", i+1, b.Rail)
		}
	}
}

func TestMeterLimitsStarts(t *testing.T) {
	g := newRig(t).start()
	g.power.Milliwatts = 75_000 // something draws what nobody was granted
	g.want(1)
	g.run(5_000)
	if g.bmcs[0].Rail {
		t.Error("a unit of 12 W was started with 5 W left")
	}
	g.power.Milliwatts = 5_000
	g.run(5_000)
	if !g.bmcs[0].Rail {
		t.Error("the unit does not start once there is room")
	}
}

func TestNoStartWhileTheSupplyIsLow(t *testing.T) {
	g := newRig(t).start()
	g.power.Millivolts = 17_900
	g.want(1)
	g.run(5_000)
	if g.bmcs[0].Rail {
		t.Error("a unit was started at 17.9 of 20 V")
	}
	g.power.Millivolts = 18_100
	g.run(5_000)
	if !g.bmcs[0].Rail {
		t.Error("the unit does not start once the supply is back")
	}
}

func TestOverBudgetSheds(t *testing.T) {
	g := newRig(t).start()
	g.set(func(p *wire.Policies) { p.StaggerMillis = 100 })
	g.want(1, 2, 3)
	g.run(3_000)
	for _, b := range g.bmcs[:3] {
		b.Milliwatts = 24_000
	}
	g.power.Milliwatts = 90_000
	g.run(3_000)
	if s := g.r.State(); s.Flags&wire.RackOverBudget == 0 || s.GrantedMilliwatts != 36_000 {
		t.Errorf("at first it is only flagged: %+v", s)
	}
	g.run(3_000)
	if g.bmcs[2].Rail || !g.bmcs[1].Rail {
		t.Errorf("the highest slot goes, nobody else: %v %v", g.bmcs[2].Rail, g.bmcs[1].Rail)
	}
	// A meter that alone claims so is not believed.
	g = newRig(t).start()
	g.want(1)
	g.run(3_000)
	g.power.Milliwatts = 90_000
	g.run(10_000)
	if !g.bmcs[0].Rail {
		t.Error("a lying meter switched a unit off")
	}
}

func TestSilentBMCKeepsItsGrant(t *testing.T) {
	g := newRig(t).start()
	g.set(func(p *wire.Policies) { p.BudgetMilliwatts, p.ReserveMilliwatts = 40_000, 15_000 })
	g.want(1, 2)
	g.run(5_000)
	g.bmcs[0].hung = true
	g.want(3)
	g.run(10 * 60_000)
	s := g.r.State()
	if s.AnswerMask != 0b111100 || s.SlotAgeMillis[0] < 590_000 || s.PresentMask != 0b111110 {
		t.Errorf("%+v", s)
	}
	if s.GrantedMilliwatts != 24_000 || g.bmcs[2].Rail {
		t.Errorf("the silent slot's power was given away: %d mW granted", s.GrantedMilliwatts)
	}
	if g.count(wire.EventBus, 1, 0) != 1 {
		t.Error("the silence is not in the log once")
	}
	g.bmcs[0].hung = false
	g.run(5_000)
	if s := g.r.State(); s.SlotAgeMillis[0] > 1000 || g.count(wire.EventBus, 1, 1) != 1 || len(g.bmcs[0].grants) != 1 {
		t.Errorf("after its return: age %d, %d grants", s.SlotAgeMillis[0], len(g.bmcs[0].grants))
	}
	// Only pulling the tray frees the power.
	g.bmcs[0].hung = true
	g.run(5_000)
	g.present[0] = false
	g.run(5_000)
	if s := g.r.State(); s.PresentMask != 0b111100 || s.SlotAgeMillis[0] != wire.AgeNever || !g.bmcs[2].Rail {
		t.Errorf("after the tray was pulled: %+v", s)
	}
}

func TestRestartBesideRunningUnits(t *testing.T) {
	g := newRig(t).start()
	g.want(1, 2, 3)
	g.run(10_000)
	starts := len(g.bmcs[0].starts)
	g.start() // the RMC
	g.run(5_000)
	if s := g.r.State(); s.GrantedMilliwatts != 36_000 || len(g.bmcs[0].starts) != starts || !g.bmcs[0].Rail {
		t.Errorf("after the RMC's restart: %+v", s)
	}
	g.bmcs[1].GrantMilliwatts = 0 // a BMC restarted and found its unit running
	g.run(2_000)
	if g.bmcs[1].GrantMilliwatts != 12_000 || !g.bmcs[1].Rail {
		t.Errorf("after a BMC's restart: %+v", g.bmcs[1].UnitState)
	}
}

func TestCapsLimitGrants(t *testing.T) {
	g := newRig(t).start()
	g.set(func(p *wire.Policies) { p.UnitCapMilliwatts = 20_000; p.SlotCapMilliwatts[1] = 9_000 })
	g.want(1, 2)
	g.run(5_000)
	if g.bmcs[0].GrantMilliwatts != 12_000 || g.bmcs[1].GrantMilliwatts != 9_000 {
		t.Errorf("granted %d and %d mW", g.bmcs[0].GrantMilliwatts, g.bmcs[1].GrantMilliwatts)
	}
}

func TestOverTemperature(t *testing.T) {
	g := newRig(t).start()
	g.want(1, 2)
	g.run(5_000)
	if g.duty[0] >= 100 {
		t.Fatalf("duty %d at 40 °C", g.duty[0])
	}
	b := g.bmcs[0]
	b.MilliCelsius = 80_000
	g.run(2_000)
	if g.duty != [2]uint8{100, 100} || b.GrantMilliwatts != 7_200 || !b.Rail || g.r.State().Flags&wire.RackThrottling == 0 {
		t.Errorf("throttling: duty %v, grant %d, rail %v", g.duty, b.GrantMilliwatts, b.Rail)
	}
	b.MilliCelsius = 90_000
	g.run(3_000)
	if b.Rail || b.GrantMilliwatts != 0 || !b.wants || !g.bmcs[1].Rail {
		t.Errorf("shutdown: %+v", b.UnitState)
	}
	if g.count(wire.EventThermal, 1, 1) != 1 || g.count(wire.EventThermal, 1, 2) != 1 {
		t.Error("events of throttling and shutdown are not in the log once each")
	}
	b.MilliCelsius = 76_000 // within the hysteresis
	g.run(5_000)
	if b.Rail {
		t.Error("it came back within the hysteresis")
	}
	b.MilliCelsius = 60_000
	g.run(5_000)
	if !b.Rail || b.GrantMilliwatts != 12_000 || g.count(wire.EventThermal, 1, 0) != 1 {
		t.Errorf("after cooling: %+v", b.UnitState)
	}
	if g.duty[0] >= 100 {
		t.Errorf("duty %d after cooling", g.duty[0])
	}
}

// Every fan at full speed within three seconds of anything unknown, and back afterwards.
func TestFullSpeed(t *testing.T) {
	for name, c := range map[string]struct {
		breaks, heals func(g *rig)
		within        uint64
	}{
		"inlet sensor":        {func(g *rig) { g.inletLost = true }, func(g *rig) { g.inletLost = false }, 3_000},
		"stuck fan":           {func(g *rig) { g.stuck[1] = true }, func(g *rig) { g.stuck[1] = false }, 4_500},
		"management computer": {func(g *rig) { g.silent = true }, func(g *rig) { g.silent = false }, 15_500},
		"tray sensor":         {func(g *rig) { g.bmcs[0].Flags |= wire.FlagSensorLost }, func(g *rig) { g.bmcs[0].Flags = 0 }, 3_000},
		"silent tray":         {func(g *rig) { g.bmcs[0].hung = true }, func(g *rig) { g.bmcs[0].hung = false }, 3_000},
		"own restart":         {func(g *rig) { g.start(); g.silent = true }, func(g *rig) { g.silent = false }, 500},
		"hot inlet":           {func(g *rig) { g.inlet = 79_000 }, func(g *rig) { g.inlet = 23_000 }, 3_000},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t).start()
			g.want(1)
			g.run(5_000)
			if g.duty[0] != 38 || g.r.State().Flags&wire.RackFailsafe != 0 { // 40 °C: 30 + 30·5/20, rounded up
				t.Fatalf("before: duty %d, flags %b", g.duty[0], g.r.State().Flags)
			}
			c.breaks(g)
			g.run(c.within)
			if g.duty != [2]uint8{100, 100} || g.r.State().Flags&wire.RackFailsafe == 0 {
				t.Errorf("broken: duty %v, flags %b", g.duty, g.r.State().Flags)
			}
			c.heals(g)
			g.run(5_000)
			if g.duty != [2]uint8{38, 38} {
				t.Errorf("healed: duty %v", g.duty)
			}
		})
	}
}

// The same as a property: whatever the rack is doing, without a sensor that matters the fans are at full speed within
// three seconds, and never below the curve while all is known.
func TestFullSpeedWithoutSensors(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := newRig(t).start()
		policy := rmc.DefaultPolicies()
		for range rapid.IntRange(0, 6).Draw(rt, "acts") {
			b := g.bmcs[rapid.IntRange(0, 4).Draw(rt, "slot")]
			switch rapid.IntRange(0, 3).Draw(rt, "act") {
			case 0:
				b.wants = rapid.Bool().Draw(rt, "wants")
			case 1:
				b.MilliCelsius = rapid.Int32Range(10_000, 95_000).Draw(rt, "temperature")
			case 2:
				g.inlet = rapid.Int32Range(5_000, 50_000).Draw(rt, "inlet")
			default:
				b.hung = rapid.Bool().Draw(rt, "hung")
			}
			g.run(rapid.Uint64Range(0, 500).Draw(rt, "steps") * 10)
		}
		g.run(2_500) // readings come in
		if g.r.State().Flags&wire.RackFailsafe == 0 {
			hottest := g.inlet
			for _, b := range g.bmcs {
				if !b.hung {
					hottest = max(hottest, b.MilliCelsius)
				}
			}
			if low := rmc.Duty(policy.Curve[:policy.CurveCount], hottest); g.duty[0] < low {
				rt.Fatalf("duty %d at %d m°C, the curve says %d", g.duty[0], hottest, low)
			}
		}
		g.inletLost = true
		g.run(3_000)
		if g.duty != [2]uint8{100, 100} {
			rt.Fatalf("duties %v without the inlet's sensor", g.duty)
		}
	})
}

// A loose contact cannot wear the flash out.
func TestEventsAreBounded(t *testing.T) {
	g := newRig(t).start()
	g.run(1_000)
	before := g.r.State().LastEvent
	for range 2_000 {
		g.present[0] = !g.present[0]
		g.run(50)
	}
	if n := g.r.State().LastEvent - before; n > 200+110 {
		t.Errorf("%d events in 100 seconds", n)
	}
}

func TestFanControllerComesBack(t *testing.T) {
	g := newRig(t).start()
	g.want(1)
	g.run(5_000)
	g.fansLost = true
	g.run(2_000)
	if g.r.State().Flags&wire.RackSensorLost == 0 {
		t.Error("a lost fan controller is not flagged")
	}
	g.duty = [2]uint8{0, 0} // it was reset meanwhile
	g.fansLost = false
	g.run(2_000)
	if g.duty != [2]uint8{38, 38} {
		t.Errorf("duties %v are not set again", g.duty)
	}
}

// With an impaired bus nothing is believed that is not whole, and all recovers.
func TestBusNoise(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := newRig(t).start()
		g.want(1, 2)
		g.run(3_000)
		g.cut = func(p []byte) []byte {
			p = bytes.Clone(p)
			if len(p) > 0 && rapid.IntRange(0, 3).Draw(rt, "hit") == 0 {
				i := rapid.IntRange(0, len(p)-1).Draw(rt, "at")
				switch rapid.IntRange(0, 2).Draw(rt, "how") {
				case 0:
					p[i] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
				case 1:
					p = append(p[:i], p[i+1:]...)
				default:
					p = append(p[:i:i], append([]byte{rapid.Byte().Draw(rt, "byte")}, p[i:]...)...)
				}
			}
			return p
		}
		g.run(1_000)
		if s := g.r.State(); s.GrantedMilliwatts > 24_000 {
			rt.Fatalf("granted %d mW", s.GrantedMilliwatts)
		}
		g.cut = nil
		g.run(2_000)
		if s := g.r.State(); s.AnswerMask != 0b111110 || s.GrantedMilliwatts != 24_000 {
			rt.Fatalf("after the noise: %+v", s)
		}
	})
}

func TestBridge(t *testing.T) {
	g := newRig(t).start()
	g.run(1_000)
	g.toLine.Reset()
	tag := g.ask(wire.BMC(3), wire.CmdReadConsole, wire.AppendReadConsole(nil, 0))
	g.run(200)
	all := g.answersOf()
	if len(all) != 1 {
		t.Fatalf("%d answers", len(all))
	}
	if m := all[0]; m.Source != wire.BMC(3) || m.Dest != wire.EIDManagement || m.Tag != tag || m.TagOwner || len(m.Body) != 1004 {
		t.Errorf("answer %+v of %d bytes", m.Address, len(m.Body))
	}
	// MCTP control goes through as well.
	frames, _ := wire.AppendMessage(nil, 0, wire.Address{Dest: wire.BMC(2), Source: wire.EIDManagement, Tag: 5, TagOwner: true},
		wire.MessageControl, wire.AppendControlRequest(nil, 1, wire.CtlGetEndpointID), 0)
	g.r.Management(frames)
	g.run(200)
	if all := g.answersOf(); len(all) != 1 || all[0].Type != wire.MessageControl || all[0].Body[3] != byte(wire.BMC(2)) {
		t.Errorf("control answers: %+v", all)
	}
	// To an empty slot and to one that is not there: dropped, counted, no harm.
	before := g.r.State().FrameErrors
	g.present[3] = false
	g.run(100)
	g.ask(wire.BMC(4), wire.CmdGetUnitState, nil)
	g.ask(wire.BMC(9), wire.CmdGetUnitState, nil)
	g.run(500)
	if all := g.answersOf(); len(all) != 0 || g.r.State().FrameErrors < before+2 {
		t.Errorf("%d answers from nobody, %d drops", len(all), g.r.State().FrameErrors-before)
	}
}

// A hung BMC under a flood of requests costs the others nothing but time: everybody is still polled, and requests to
// others are still answered.
func TestBridgeIsFair(t *testing.T) {
	g := newRig(t).start()
	g.run(2_000)
	g.bmcs[0].hung = true
	g.run(2_000)
	answered := 0
	for range 200 {
		g.ask(wire.BMC(1), wire.CmdGetUnitState, nil)
		g.ask(wire.BMC(2), wire.CmdGetUnitState, nil)
		g.run(100)
		for _, m := range g.answersOf() {
			if m.Source == wire.BMC(2) {
				answered++
			}
		}
	}
	if answered < 20 {
		t.Errorf("%d of 200 requests beside a hung BMC were answered", answered)
	}
	s := g.r.State()
	for n, age := range s.SlotAgeMillis[1:5] {
		if age > 5_000 {
			t.Errorf("slot %d was last heard %d ms ago", n+2, age)
		}
	}
	// And the other way round: a busy bridge does not stop the RMC's own polls, nor they the bridge.
	g.bmcs[0].hung = false
	g.run(2_000)
	n := 0
	g.silent = true // it would take the answers away
	for range 100 {
		g.ask(wire.BMC(2), wire.CmdReadConsole, wire.AppendReadConsole(nil, 0))
		g.run(10)
		n += len(g.answersOf())
	}
	if n < 98 {
		t.Errorf("%d of 100 requests were answered", n)
	}
	s = g.r.State()
	for n, age := range s.SlotAgeMillis[:5] {
		if age > 1_000 {
			t.Errorf("slot %d was last heard %d ms ago", n+1, age)
		}
	}
}

// An answer that comes too late, to another tag or from another slot must not be taken for the one waited for.
func TestStrayAnswers(t *testing.T) {
	g := newRig(t).start()
	g.run(2_000)
	var late []byte
	g.cut = func(p []byte) []byte { late = append(late, p...); return nil }
	g.run(200) // the answers of a poll or two are held back
	g.cut = nil
	g.bmcs[0].MilliCelsius = 95_000
	g.run(1_000)
	hot := bytes.Clone(late)
	g.r.Bus(hot)
	forged, _ := wire.AppendMessage(nil, wire.FromSlot(2), wire.Address{Dest: wire.EIDRMC, Source: wire.BMC(1), Tag: 1}, wire.MessagePLDM, []byte{0, 0x3F, 8, 0}, 64)
	g.r.Bus(forged)
	g.run(1_000)
	if s := g.r.State(); s.AnswerMask != 0b111110 || s.FrameErrors == 0 {
		t.Errorf("%+v", s)
	}
}

func TestClockIsPassedOn(t *testing.T) {
	g := newRig(t).start()
	g.run(1_000)
	if code, _ := g.call(wire.TypeOEM, wire.CmdSetTime, wire.AppendTime(nil, 1_800_000_000_000)); code != wire.CodeSuccess {
		t.Fatal(code)
	}
	g.run(2_000)
	for i, b := range g.bmcs {
		if b.clocks != 1 {
			t.Errorf("slot %d was told the time %d times", i+1, b.clocks)
		}
	}
	g.bmcs[2].Flags = 0 // it restarted
	g.run(12_000)
	if g.bmcs[2].clocks != 2 {
		t.Error("a restarted BMC is not told the time again")
	}
}

func TestNoAllocations(t *testing.T) {
	g := newRig(t).start()
	g.want(1, 2, 3)
	g.run(10_000)
	n := testing.AllocsPerRun(500, func() {
		g.now += 10
		g.r.Step(g.now)
		g.toBus.Reset() // every poll times out
		g.toLine.Reset()
	})
	if n > 0.2 { // events of BMCs that fell silent, once each
		t.Errorf("%v allocations a step", n)
	}
}

var _ = rmc.FlashSize

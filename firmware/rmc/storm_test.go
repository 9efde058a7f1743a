package rmc_test

import (
	"bytes"
	"testing"

	"github.com/racklet/racklet/firmware/wire"
	"pgregory.net/rapid"
)

// Whatever BMCs, trays, supply and RMC do, at every moment: no more is granted than budget less reserve, units start one
// by one, and energy, generation and events never go back. Left in peace, the rack comes to what is wanted.
func TestStorm(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := newRig(t)
		g.ports.Flash = newNOR()
		g.start()
		const stagger = 700
		budget := uint32(55_000)
		policies := func(p *wire.Policies) {
			p.BudgetMilliwatts, p.ReserveMilliwatts, p.StaggerMillis = budget, 15_000, stagger
		}
		g.set(policies)
		var last wire.RackState
		started := 0
		var lastStart uint64
		check := func() {
			s := g.r.State()
			if s.GrantedMilliwatts > s.BudgetMilliwatts-15_000 {
				rt.Fatalf("granted %d mW of %d", s.GrantedMilliwatts, s.BudgetMilliwatts-15_000)
			}
			if s.Millijoules < last.Millijoules || s.PolicyGeneration < last.PolicyGeneration || s.LastEvent < last.LastEvent || s.Resets < last.Resets {
				rt.Fatalf("went back: %+v after %+v", s, last)
			}
			last = s
			n := 0
			newest := uint64(0)
			for _, b := range g.bmcs {
				n += len(b.starts)
				if len(b.starts) > 0 {
					newest = max(newest, b.starts[len(b.starts)-1])
				}
			}
			if n > started+1 || n > started && started > 0 && newest-lastStart < stagger {
				rt.Fatalf("%d units started at once, or within %d ms", n-started, newest-lastStart)
			}
			started, lastStart = n, max(lastStart, newest)
		}
		run := func(steps int) {
			for range steps {
				g.run(10)
				check()
			}
		}
		restarts := false
		for range rapid.IntRange(1, 25).Draw(rt, "acts") {
			b := g.bmcs[rapid.IntRange(0, 4).Draw(rt, "slot")]
			yes := rapid.Bool().Draw(rt, "yes")
			switch rapid.IntRange(0, 8).Draw(rt, "act") {
			case 0, 1, 2:
				b.wants = yes
			case 3:
				b.hung = yes
			case 4:
				b.cut(g.now)
			case 5:
				g.present[b.Slot-1] = pin(yes)
				if !yes {
					b.cut(g.now)
				}
			case 6:
				b.MilliCelsius = rapid.Int32Range(20_000, 92_000).Draw(rt, "temperature")
			case 7:
				g.power.Millivolts = 20_000
				if yes {
					g.power.Millivolts = 12_000
				}
			case 8:
				budget = rapid.Uint32Range(20_000, 90_000).Draw(rt, "budget")
				g.set(policies)
			}
			run(rapid.IntRange(0, 300).Draw(rt, "steps"))
		}
		check()
		if rapid.Bool().Draw(rt, "restart") {
			g.start()
			restarts = true
			g.run(10)
			s := g.r.State()
			if s.Millijoules+400_000 < last.Millijoules || s.PolicyGeneration != last.PolicyGeneration {
				rt.Fatalf("after a restart %+v, before %+v", s, last)
			}
			last = wire.RackState{}
		}
		// Peace.
		budget = 80_000
		g.set(policies)
		g.power.Millivolts = 20_000
		for i, b := range g.bmcs {
			g.present[i], b.hung, b.MilliCelsius = true, false, 40_000
		}
		if restarts {
			g.run(30_000)
		} else {
			run(3_000)
		}
		for i, b := range g.bmcs {
			if b.Rail != b.wants {
				rt.Fatalf("slot %d: wanted %v, rail %v, %+v", i+1, b.wants, b.Rail, b.UnitState)
			}
		}
		if s := g.r.State(); s.Flags&wire.RackFailsafe != 0 || s.AnswerMask != 0b111110 {
			rt.Fatalf("in peace: %+v", s)
		}
	})
}

// The late answer to a bridged request that was given up must not reach the management computer as the answer to the next.
func TestLateBridgedAnswer(t *testing.T) {
	g := newRig(t).start()
	g.run(2_000)
	g.silent = true
	g.answersOf()
	var late []byte
	b := g.bmcs[1]
	arrived := 0
	b.echo = func(m *wire.Message) {
		if m.Source != wire.EIDManagement {
			return
		}
		if arrived++; arrived == 1 {
			h := wire.Header{Type: wire.TypeOEM, Command: m.Body[2], Instance: m.Body[0] & 0x1F}
			late = b.port.Respond(nil, m, wire.AppendResponse(nil, h, wire.CodeError))
		}
	}
	g.cut = func(p []byte) []byte {
		switch {
		case arrived == 0 || len(p) == 0:
			return p
		case arrived == 2:
			arrived++
			return append(late, p...) // just before the answer to the second
		}
		return nil
	}
	g.ask(wire.BMC(2), wire.CmdReadConsole, wire.AppendReadConsole(nil, 0))
	g.run(1_700) // given up
	second := g.ask(wire.BMC(2), wire.CmdReadConsole, wire.AppendReadConsole(nil, 0))
	g.run(1_000)
	all := g.answersOf()
	if len(all) != 1 || all[0].Tag != second {
		t.Errorf("%d answers, %d requests arrived; asked for was tag %d: %+v", len(all), arrived, second, all)
	}
}

// A BMC that never comes to the end of a bridged answer holds the bus for as long as one answer may take, and no longer:
// neither drop by drop nor in a flood.
func TestEndlessBridgedAnswer(t *testing.T) {
	for _, tt := range []struct {
		name  string
		every uint64 // ms between two packets
		most  int    // bytes that reach the management computer for one request
	}{{"drop by drop", 100, 20 * 64}, {"flood", 0, 2 * wire.MaxMessage}} {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t).start()
			g.run(2_000)
			g.silent = true
			g.answersOf()
			g.bmcs[0].hung = true
			tag := g.ask(wire.BMC(1), wire.CmdReadConsole, wire.AppendReadConsole(nil, 0))
			body := bytes.Repeat([]byte{0x55}, 60)
			sent, next, carried := 0, g.now, 0
			for end := g.now + 10_000; g.now < end; {
				for n := 0; g.now >= next && n < 100; n++ {
					packet := wire.AppendPacket(nil, wire.Packet{Address: wire.Address{Dest: wire.EIDManagement, Source: wire.BMC(1), Tag: tag},
						Start: sent == 0, Sequence: uint8(sent & 3), Body: body})
					frame, err := wire.AppendBusFrame(nil, wire.FromSlot(1), packet)
					if err != nil {
						t.Fatal(err)
					}
					g.r.Bus(frame)
					sent++
					if tt.every > 0 {
						next = g.now + tt.every
						break
					}
				}
				g.run(10)
				carried += g.toLine.Len()
				g.toLine.Reset()
			}
			if carried == 0 || carried > tt.most {
				t.Errorf("%d bytes of %d packets came through, want at most %d", carried, sent, tt.most)
			}
			ages := g.r.State().SlotAgeMillis
			for n, age := range ages[1:5] {
				if age > 2_000 {
					t.Errorf("slot %d was last heard %d ms ago", n+2, age)
				}
			}
			// The others are reached meanwhile, and slot 1 when it is well again.
			for _, slot := range []uint8{2, 1} {
				g.bmcs[slot-1].hung = false
				g.run(3_000)
				g.lineIn, g.answers = wire.Deframer{}, wire.Assembler{Own: wire.EIDManagement}
				g.toLine.Reset()
				g.ask(wire.BMC(slot), wire.CmdReadConsole, wire.AppendReadConsole(nil, 0))
				g.run(500)
				if all := g.answersOf(); len(all) != 1 {
					t.Errorf("slot %d: %d answers", slot, len(all))
				}
			}
		})
	}
}

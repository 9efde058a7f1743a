package rmc_test

import (
	"testing"

	"github.com/racklet/racklet/firmware/rmc"
	"github.com/racklet/racklet/firmware/wire"
	"pgregory.net/rapid"
)

func points(v ...int32) (c []wire.CurvePoint) {
	for i := 0; i < len(v); i += 2 {
		c = append(c, wire.CurvePoint{MilliCelsius: v[i], DutyPercent: uint8(v[i+1])})
	}
	return c
}

func TestDuty(t *testing.T) {
	curve := points(30_000, 20, 50_000, 40, 60_000, 100)
	for _, c := range []struct {
		curve []wire.CurvePoint
		at    int32
		want  uint8
	}{
		{curve, -40_000, 20}, {curve, 30_000, 20}, {curve, 30_001, 21}, {curve, 40_000, 30}, {curve, 49_999, 40}, {curve, 50_000, 40},
		{curve, 50_001, 41}, {curve, 55_000, 70}, {curve, 59_999, 100}, {curve, 60_000, 100}, {curve, 150_000, 100},
		{points(40_000, 55), 0, 55}, {points(40_000, 55), 80_000, 55}, {nil, 20_000, 100},
		{points(-2147483648, 0, 2147483647, 100), 0, 51},
	} {
		if got := rmc.Duty(c.curve, c.at); got != c.want {
			t.Errorf("%v at %d m°C: %d percent, want %d", c.curve, c.at, got, c.want)
		}
	}
}

func drawCurve(t *rapid.T) (c []wire.CurvePoint) {
	temperature, duty := int32(-60_000), 0
	for range rapid.IntRange(1, wire.MaxCurvePoints).Draw(t, "points") {
		temperature += rapid.Int32Range(1, 40_000).Draw(t, "warmer")
		duty = min(duty+rapid.IntRange(0, 40).Draw(t, "faster"), 100)
		c = append(c, wire.CurvePoint{MilliCelsius: temperature, DutyPercent: uint8(duty)})
	}
	return c
}

// Fans are never below the curve, whatever the temperature did before, and never further above it than the hysteresis.
func TestFansNeverBelowCurve(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		curve := drawCurve(t)
		hysteresis := rapid.Int32Range(0, 20_000).Draw(t, "hysteresis")
		var h rmc.Hold
		for range rapid.IntRange(1, 30).Draw(t, "readings") {
			at := rapid.Int32Range(-55_000, 150_000).Draw(t, "temperature")
			held := h.Follow(at, hysteresis)
			if held < at || held > at+hysteresis {
				t.Fatalf("held at %d for %d m°C", held, at)
			}
			got := rmc.Duty(curve, held)
			if low := rmc.Duty(curve, at); got < low {
				t.Fatalf("%d percent at %d m°C, the curve says %d", got, at, low)
			}
			if high := rmc.Duty(curve, at+hysteresis); got > high {
				t.Fatalf("%d percent at %d m°C, with hysteresis the curve says %d", got, at, high)
			}
		}
	})
}

func TestHold(t *testing.T) {
	var h rmc.Hold
	for i, c := range []struct{ at, want int32 }{{40, 40}, {38, 40}, {36, 40}, {35, 39}, {36, 39}, {39, 39}, {41, 41}, {-10, -6}} {
		if got := h.Follow(c.at, 4); got != c.want {
			t.Errorf("reading %d, %d: held at %d, want %d", i+1, c.at, got, c.want)
		}
	}
}

func TestDutyRises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		curve := drawCurve(t)
		a := rapid.Int32().Draw(t, "a")
		b := rapid.Int32Range(a, 1<<31-1).Draw(t, "b")
		if rmc.Duty(curve, a) > rmc.Duty(curve, b) {
			t.Fatalf("%d percent at %d, %d percent at %d", rmc.Duty(curve, a), a, rmc.Duty(curve, b), b)
		}
	})
}

func TestAllot(t *testing.T) {
	type grants = [wire.MaxSlots]uint32
	all := ^uint32(0)
	for name, c := range map[string]struct {
		budget, room uint32
		claims       []rmc.Claim
		start        bool
		next         uint8
		want         grants
		started      int
	}{
		"nobody wants":               {50, all, nil, true, 0, grants{}, -1},
		"one starts":                 {50, all, []rmc.Claim{{Wants: 12}, {Wants: 12}}, true, 0, grants{12}, 0},
		"the next one starts":        {50, all, []rmc.Claim{{Wants: 12}, {Wants: 12}}, true, 1, grants{0, 12}, 1},
		"not yet":                    {50, all, []rmc.Claim{{Wants: 12}}, false, 0, grants{}, -1},
		"does not fit":               {50, all, []rmc.Claim{{Wants: 40, Has: 40}, {Wants: 12}}, true, 0, grants{40}, -1},
		"a smaller one fits":         {50, all, []rmc.Claim{{Wants: 40, Has: 40}, {Wants: 12}, {Wants: 10}}, true, 0, grants{40, 0, 10}, 2},
		"no room by the meter":       {50, 11, []rmc.Claim{{Wants: 12}}, true, 0, grants{}, -1},
		"room is for starts alone":   {50, 0, []rmc.Claim{{Wants: 12, Has: 12}, {Wants: 12, Runs: true}}, true, 0, grants{12, 12}, -1},
		"capped":                     {50, all, []rmc.Claim{{Wants: 12, Cap: 8}}, true, 0, grants{8}, 0},
		"capped while running":       {50, all, []rmc.Claim{{Wants: 12, Has: 12, Cap: 8}}, false, 0, grants{8}, -1},
		"raised":                     {50, all, []rmc.Claim{{Wants: 20, Has: 12}}, false, 0, grants{20}, -1},
		"raise does not fit":         {15, all, []rmc.Claim{{Wants: 20, Has: 12}}, false, 0, grants{12}, -1},
		"released":                   {50, all, []rmc.Claim{{Has: 12}}, true, 0, grants{}, -1},
		"budget fell":                {30, all, []rmc.Claim{{Wants: 12, Has: 12}, {Wants: 12, Has: 12}, {Wants: 12, Has: 12}}, true, 0, grants{12, 12}, -1},
		"runs without a grant":       {30, all, []rmc.Claim{{Wants: 12}, {Wants: 12, Runs: true}}, false, 0, grants{0, 12}, -1},
		"a withdrawn one still runs": {24, all, []rmc.Claim{{Wants: 12}, {Runs: true, Draws: 13}}, true, 0, grants{}, -1},
		"beside a withdrawn one":     {24, all, []rmc.Claim{{Wants: 12}, {Runs: true, Draws: 12}}, true, 0, grants{12}, 0},
		"overflow": {^uint32(0), all, []rmc.Claim{{Wants: ^uint32(0), Has: ^uint32(0)}, {Wants: ^uint32(0), Has: ^uint32(0)}}, true, 0,
			grants{^uint32(0)}, -1},
	} {
		var claims [wire.MaxSlots]rmc.Claim
		copy(claims[:], c.claims)
		got, started := rmc.Allot(c.budget, c.room, &claims, c.start, c.next)
		if got != c.want || started != c.started {
			t.Errorf("%s: %v, started %d, want %v, %d", name, got, started, c.want, c.started)
		}
	}
}

// Over any history of wants, caps, runs and budgets: the sum of grants never exceeds the budget, nobody gets more than it
// wants or may have, and at most one unit starts at a time.
func TestGrantsNeverExceedBudget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var claims [wire.MaxSlots]rmc.Claim
		mW := rapid.Uint32Range(0, 30_000)
		for range rapid.IntRange(1, 20).Draw(t, "rounds") {
			budget := rapid.OneOf(rapid.Uint32Range(0, 100_000), rapid.Uint32()).Draw(t, "budget")
			for i := range claims {
				claims[i].Wants = rapid.OneOf(mW, rapid.Just(uint32(0)), rapid.Uint32()).Draw(t, "wants")
				claims[i].Cap = rapid.OneOf(mW, rapid.Just(uint32(0))).Draw(t, "cap")
				claims[i].Draws = mW.Draw(t, "draws")
				claims[i].Runs = rapid.Bool().Draw(t, "runs")
				if rapid.IntRange(0, 9).Draw(t, "lost") == 0 {
					claims[i].Has = rapid.Uint32().Draw(t, "has") // a BMC may claim anything
				}
			}
			start := rapid.Bool().Draw(t, "start")
			grants, started := rmc.Allot(budget, mW.Draw(t, "room"), &claims, start, uint8(rapid.IntRange(0, 9).Draw(t, "next")))
			var sum uint64
			fresh := 0
			for i, g := range grants {
				sum += uint64(g)
				c := claims[i]
				if g > c.Wants || c.Cap != 0 && g > c.Cap {
					t.Fatalf("slot %d: granted %d, %+v", i+1, g, c)
				}
				if g > 0 && c.Has == 0 && !c.Runs {
					if fresh++; i != started {
						t.Fatalf("slot %d started, not %d", i+1, started+1)
					}
				}
				claims[i].Has = g
			}
			if sum > uint64(budget) {
				t.Fatalf("granted %d of %d", sum, budget)
			}
			if fresh > 1 || fresh == 1 && !start || fresh == 0 && started >= 0 {
				t.Fatalf("%d units started, allowed %v, told %d", fresh, start, started)
			}
		}
	})
}

func TestCheckPolicies(t *testing.T) {
	good := rmc.DefaultPolicies()
	if f := rmc.Check(&good); !f.IsZero() {
		t.Fatalf("good control: %+v", f)
	}
	for name, c := range map[string]struct {
		edit   func(p *wire.Policies)
		reason string
	}{
		"no curve":            {func(p *wire.Policies) { p.CurveCount = 0 }, "policy.curve"},
		"falling duty":        {func(p *wire.Policies) { p.Curve[1].DutyPercent = 10 }, "policy.curve"},
		"falling temperature": {func(p *wire.Policies) { p.Curve[1].MilliCelsius = 1 }, "policy.curve"},
		"never moves air": {func(p *wire.Policies) {
			p.CurveCount = 1
			p.Curve[0].DutyPercent = 0
		}, "policy.curve"},
		"starts at throttle":  {func(p *wire.Policies) { p.Curve[0].MilliCelsius = p.ThrottleMilliCelsius }, "policy.curve"},
		"no sensor so hot":    {func(p *wire.Policies) { p.Curve[2].MilliCelsius = 200_000 }, "policy.curve"},
		"reserve is all":      {func(p *wire.Policies) { p.ReserveMilliwatts = p.BudgetMilliwatts }, "policy.budget"},
		"throttle too late":   {func(p *wire.Policies) { p.ThrottleMilliCelsius = p.ShutdownMilliCelsius }, "policy.limits"},
		"negative hysteresis": {func(p *wire.Policies) { p.HysteresisMilliCelsius = -1 }, "policy.limits"},
		"an hour's stagger":   {func(p *wire.Policies) { p.StaggerMillis = 3_600_000 }, "policy.stagger"},
	} {
		p := rmc.DefaultPolicies()
		c.edit(&p)
		if f := rmc.Check(&p); f.Reason.String() != c.reason || f.Expected.Len() == 0 || f.Seen.Len() == 0 {
			t.Errorf("%s: %q, expected %q, seen %q", name, f.Reason, f.Expected, f.Seen)
		}
	}
}

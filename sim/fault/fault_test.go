package fault_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/sim/fault"
)

// body is a rack of two units that only remembers what was done to it.
type body struct {
	effects *fault.Effects
	once    []string
	rail    bool
}

func (b *body) SlotOf(unit string) int {
	return map[string]int{"unit-1": 1, "unit-2": 2}[unit]
}
func (b *body) Ports() []string                     { return []string{"unit-1", "unit-2", "gateway"} }
func (b *body) FanCount() int                       { return 2 }
func (b *body) Apply(_, after *fault.Effects) error { b.effects = after; return nil }
func (b *body) Once(f *rack.FaultSpec) error {
	b.once = append(b.once, f.String())
	return errors.New("broken already")
}

func (b *body) Look() *fault.View {
	v := &fault.View{Units: []fault.UnitView{{Unit: "unit-1", Slot: 1}, {Unit: "unit-2", Slot: 2}}}
	v.Units[0].Truth.PowerGood = b.rail
	v.Units[0].Said.State = wire.StateRunning
	return v
}

const s = rack.Duration(time.Second)

func at(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

func TestFaultsAddUp(t *testing.T) {
	b := &body{}
	e := fault.New(b)
	for _, f := range []rack.FaultSpec{
		{Kind: "link-loss", Target: "unit-1", For: 10 * s},
		{Kind: "link-delay", Target: "unit-1", At: 2 * s, For: 2 * s, With: map[string]string{"delay": "50ms"}},
		{Kind: "brown-out", Target: "rack", At: s, Until: "unit-1.rail = on"},
		{Kind: "bmc-restart", Target: "unit-2", At: 3 * s},
	} {
		if _, err := e.Inject(f); err != nil {
			t.Fatal(err)
		}
	}
	e.Step(at(0))
	if c := b.effects.Cables["unit-1"]; c.FromDevice.Loss != 0.2 || c.ToDevice.Delay != 0 {
		t.Errorf("%+v", c)
	}
	e.Step(at(2))
	if c := b.effects.Cables["unit-1"]; c.FromDevice.Loss != 0.2 || c.ToDevice.Delay != 50*time.Millisecond || b.effects.Plant.Sag != 0.4 {
		t.Errorf("%+v", b.effects)
	}
	b.rail = true
	e.Step(at(4))
	if c := b.effects.Cables["unit-1"]; c.FromDevice.Loss != 0.2 || c.ToDevice.Delay != 0 || b.effects.Plant.Sag != 0 {
		t.Errorf("one heals, the other stays: %+v", b.effects)
	}
	if len(b.once) != 1 || len(e.List()) != 1 {
		t.Errorf("%v, %+v", b.once, e.List())
	}
	if n := e.ClearAll(); n != 1 || len(b.effects.Cables) != 0 {
		t.Errorf("%d cleared, %+v", n, b.effects)
	}
	var order []string
	for _, r := range e.Record() {
		order = append(order, r.Event+" "+r.Fault.Kind+" "+r.Error)
	}
	want := []string{"breaks link-loss ", "breaks brown-out ", "breaks link-delay ", "heals brown-out ", "heals link-delay ", "breaks bmc-restart broken already", "cleared link-loss "}
	if !reflect.DeepEqual(order, want) {
		t.Errorf("%q", order)
	}
	again := fault.Recorded(e.Record())
	if len(again) != 4 || again[0].For != 4*s || again[2].At != 2*s || again[1].Until != "" {
		t.Errorf("%+v", again)
	}
}

// TestWhen: what waits for a condition breaks when it comes true, not before its time, and is replayed by the time it had.
func TestWhen(t *testing.T) {
	b := &body{}
	e := fault.New(b)
	for _, f := range []rack.FaultSpec{
		{Kind: "fan-stuck", Target: "fan-1", At: 2 * s, When: "unit-1.rail = on", Until: "unit-1.rail = off"},
		{Kind: "fan-stuck", Target: "fan-2", When: "unit-1.rail = off", For: s},
	} {
		if _, err := e.Inject(f); err != nil {
			t.Fatal(err)
		}
	}
	stuck := func() (n int) {
		for _, f := range b.effects.Plant.Fan {
			if f.Stuck {
				n++
			}
		}
		return n
	}
	for i, step := range []struct {
		at   float64
		rail bool
		want int
	}{{0, true, -1}, {1, false, 1}, {2, false, 0}, {3, true, 1}, {4, true, 1}, {5, false, 0}} {
		b.rail = step.rail
		e.Step(at(step.at))
		if step.want >= 0 && stuck() != step.want {
			t.Errorf("step %d: %d fans are stuck, want %d", i, stuck(), step.want)
		}
	}
	if again := fault.Recorded(e.Record()); len(again) != 2 || again[1].At != 2*s || again[1].For != 2*s || again[1].When != "" || again[1].Until != "" {
		t.Errorf("%+v", again)
	}
}

func TestRefused(t *testing.T) {
	for _, f := range []rack.FaultSpec{
		{Kind: "gremlins", Target: "rack"},
		{Kind: "bmc-hang", Target: "unit-3"},
		{Kind: "bmc-hang", Target: "rack"},
		{Kind: "fan-stuck", Target: "fan-3"},
		{Kind: "fan-stuck", Target: "fan-0"},
		{Kind: "link-cut", Target: "unit-7"},
		{Kind: "brown-out", Target: "unit-1"},
		{Kind: "brown-out", Target: "rack", With: map[string]string{"sag": "101%"}},
		{Kind: "brown-out", Target: "rack", With: map[string]string{"sag": "40"}},
		{Kind: "brown-out", Target: "rack", With: map[string]string{"depth": "40%"}},
		{Kind: "bmc-restart", Target: "unit-1", For: s},
		{Kind: "brown-out", Target: "rack", For: -s},
		{Kind: "brown-out", Target: "rack", Until: "unit-1.rail"},
		{Kind: "brown-out", Target: "rack", Until: "unit-7.rail = on"},
		{Kind: "brown-out", Target: "rack", When: "fan-3.rpm = 0"},
		{Kind: "brown-out", Target: "rack", When: "always"},
		{Kind: "git-down", Target: "mirror"},
	} {
		if _, err := fault.New(&body{}).Inject(f); err == nil {
			t.Errorf("accepted: %+v", f)
		}
	}
	if err := fault.New(&body{}).Clear(1); !errors.Is(err, fault.ErrUnknown) {
		t.Error(err)
	}
}

// TestEveryKindDoesSomething: a kind that changes nothing and does nothing once would be a word without meaning.
func TestEveryKindDoesSomething(t *testing.T) {
	for i := range rack.FaultKinds {
		k := &rack.FaultKinds[i]
		if i > 0 && k.Name <= rack.FaultKinds[i-1].Name {
			t.Errorf("%s is out of order", k.Name)
		}
		f := rack.FaultSpec{Kind: k.Name, Target: map[string]string{rack.OnUnit: "unit-1", rack.OnPort: "unit-1", rack.OnUnits: "unit-1+unit-2", rack.OnFan: "fan-1", rack.OnService: "git"}[k.Target]}
		if f.Target == "" {
			f.Target = k.Target
		}
		if k.Name == "mirror-down" {
			f.Target = "mirror"
		}
		b := &body{}
		e := fault.New(b)
		if _, err := e.Inject(f); err != nil {
			t.Error(err)
			continue
		}
		e.Step(at(1))
		if k.Once == (len(b.once) == 0) {
			t.Errorf("%s: once is %v, done %v", k.Name, k.Once, b.once)
		}
		if none := (&fault.Effects{Cables: map[string]fault.Cable{}}); !k.Once && reflect.DeepEqual(b.effects, none) {
			t.Errorf("%s changes nothing", k.Name)
		}
	}
}

func TestStormIsItsSeed(t *testing.T) {
	units := []string{"unit-1", "unit-2"}
	storm := func(seed uint64) string {
		s := fault.Storm(seed, 5*time.Minute, units, 2, rack.NeedsMachines)
		if err := s.Validate(); err != nil {
			t.Fatal(err)
		}
		if len(s.Spec.Faults) < 10 {
			t.Errorf("only %d faults", len(s.Spec.Faults))
		}
		for i := range s.Spec.Faults {
			if err := fault.Check(&body{}, &s.Spec.Faults[i]); err != nil {
				t.Error(err)
			}
		}
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if storm(7) != storm(7) || storm(7) == storm(8) {
		t.Error("a storm is its seed, and only that")
	}
}

package rack

import "testing"

func TestConditions(t *testing.T) {
	for s, holds := range map[string]bool{
		"unit-1.state = running": true, "unit-1.state != running": false, "units.running >= 4": true, "units.running < 4": false,
		"rack.volts > 19.5V": true, "unit-1.age <= 4s": true, "unit-1.age > 4000ms": false, "fan-1.duty = 4%": true,
	} {
		c, err := ParseCondition(s)
		if err != nil {
			t.Error(err)
			continue
		}
		r := Reading{Number: 4, Word: "running", IsWord: c.Field == "state"}
		if c.Field == "volts" {
			r.Number = 20
		}
		if c.Holds(r) != holds {
			t.Errorf("%s: %v", s, !holds)
		}
	}
	log, err := ParseCondition("unit-1.log = slot.chunk")
	if err != nil || !log.Holds(Reading{Word: " rail slot.chunk ", IsWord: true}) || log.Holds(Reading{Word: " rail slot.chunks ", IsWord: true}) {
		t.Error("a log has a word or has it not", err)
	}
	for _, s := range []string{"", "unit-1.state", "unit-1.state running", "unit-1.state > running", "unit-1.colour = red", "rack.volts = high", "Rack.volts > 1V", ".state = off", "unit-1.age > 4"} {
		if _, err := ParseCondition(s); err == nil {
			t.Errorf("accepted: %q", s)
		}
	}
}

func TestFaultParameters(t *testing.T) {
	for i := range FaultKinds {
		k := &FaultKinds[i]
		for j := range k.Parameters {
			p := &k.Parameters[j]
			if _, err := p.parse(p.Standard()); err != nil {
				t.Errorf("%s %s: its own default: %v", k.Name, p.Name, err)
			}
		}
	}
	f := FaultSpec{Kind: "brown-out", Target: "rack", With: map[string]string{"sag": "25%"}}
	if f.Number("sag") != 0.25 || f.String() != "brown-out rack sag=25%" {
		t.Error(f.Number("sag"), f.String())
	}
}

func FuzzParseCondition(f *testing.F) {
	f.Add("unit-1.state = running")
	f.Add("rack.volts > 19.5V")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCondition(s)
		if err != nil {
			return
		}
		again, err := ParseCondition(c.String())
		if err != nil || again.String() != c.String() {
			t.Errorf("%q becomes %q: %v", s, c.String(), err)
		}
	})
}

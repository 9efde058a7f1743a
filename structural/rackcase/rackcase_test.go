package rackcase

import (
	"strings"
	"testing"

	"github.com/racklet/racklet/rack/hardware"
	"github.com/racklet/racklet/structural"
)

// TestScripts has every part of every size of rack: something of it, the same
// text each time, and another text where the slots matter.
func TestScripts(t *testing.T) {
	u, err := hardware.LookUp("rpi5")
	if err != nil {
		t.Fatal(err)
	}
	p := structural.Reference(u)
	for slots := 3; slots <= 10; slots++ {
		p.Slots = slots
		for _, m := range p.Modules() {
			left, right := Panel(p, m, Left).String(), Panel(p, m, Right).String()
			if left != Panel(p, m, Left).String() {
				t.Errorf("%d slots: two runs differ", slots)
			}
			// The right panel has a pocket for the latch of each tray.
			if got := strings.Count(right, "newv; Box") - strings.Count(left, "newv; Box"); got != m.Last-m.First+1 {
				t.Errorf("%d slots: %d pockets in %d slots", slots, got, m.Last-m.First+1)
			}
			if n := strings.Count(Frame(p, m).String(), "newv; Cone"); n != 2*(m.Last-m.First+1) {
				t.Errorf("%d slots: %d pegs behind %d trays", slots, n, m.Last-m.First+1)
			}
			if holes := strings.Count(Rear(p, m).String(), "Rotate"); holes < 40*p.Fans(m) {
				t.Errorf("%d slots: %d holes for %d fans", slots, holes, p.Fans(m))
			}
		}
		if Splice(p).Empty() != (slots <= 5) {
			t.Errorf("%d slots: splice", slots)
		}
	}
}

// TestEar has the hole pattern of EIA-310 for three units.
func TestEar(t *testing.T) {
	u, err := hardware.LookUp("rpi4")
	if err != nil {
		t.Fatal(err)
	}
	p := structural.Reference(u)
	if p.Height() > 222.25 {
		t.Fatalf("the case is %g mm wide on its side", p.Height())
	}
	if n := strings.Count(Ear(p).String(), "newv; Cylinder"); n != 9+4 {
		t.Errorf("%d round holes, want 9 in the flange and 4 in the leg", n)
	}
}

package structural

import (
	"math"
	"strings"
	"testing"

	"github.com/racklet/racklet/rack/hardware"
)

func reference(t *testing.T) Parameters {
	t.Helper()
	u, err := hardware.LookUp("rpi4")
	if err != nil {
		t.Fatal(err)
	}
	return Reference(u)
}

func TestSlots(t *testing.T) {
	for slots := 3; slots <= 10; slots++ {
		p := reference(t)
		p.Slots = slots
		if err := p.Validate(); err != nil {
			t.Errorf("%d slots: %v", slots, err)
		}
		mods := p.Modules()
		if mods[0].First != 1 || mods[len(mods)-1].Last != slots || mods[0].From != p.Case.Plate || math.Abs(mods[len(mods)-1].To-(p.Height()-p.Case.Plate)) > 1e-9 {
			t.Errorf("%d slots: modules %+v", slots, mods)
		}
		for i, m := range mods {
			if i > 0 && (m.From != mods[i-1].To || m.First != mods[i-1].Last+1) {
				t.Errorf("%d slots: module %d does not go on where the last one ends", slots, i)
			}
			for f := range p.Fans(m) {
				if z := p.FanZ(m, f); z-p.Case.FanSize/2 < m.From || z+p.Case.FanSize/2 > m.To {
					t.Errorf("%d slots: fan %d at %g is not behind module %d", slots, f, z, i)
				}
			}
		}
	}
}

func TestUnits(t *testing.T) {
	units, err := hardware.Units()
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range units {
		if err := Reference(u).Validate(); err != nil {
			t.Errorf("%s: %v", u.Name, err)
		}
	}
}

func TestValidate(t *testing.T) {
	for want, spoil := range map[string]func(*Parameters){
		"slots":       func(p *Parameters) { p.Slots = 11 },
		"pitch":       func(p *Parameters) { p.Pitch = 33 },
		"tray margin": func(p *Parameters) { p.Tray.Margin = 4 },
		"board":       func(p *Parameters) { p.Tray.BoardLeft = 44 },
		"tray depth":  func(p *Parameters) { p.Tray.Depth = 110 },
		"case":        func(p *Parameters) { p.Case.Behind = 80 },
		"latch: a":    func(p *Parameters) { p.Tray.Tooth = 3.2 },
		"latch: the":  func(p *Parameters) { p.Tray.ArmGap = 1 },
		"no fan":      func(p *Parameters) { p.Case.FanSize = 240 },
	} {
		p := reference(t)
		spoil(&p)
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

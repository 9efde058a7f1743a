package tray

import (
	"bytes"
	"os"
	"testing"

	"github.com/racklet/racklet/rack/hardware"
	"github.com/racklet/racklet/rack/racktest"
	"github.com/racklet/racklet/structural"
	"github.com/racklet/racklet/structural/solid"
)

// TestExchangeable builds the tray of each computer. Their rails, latches and
// rear walls are the same to the byte: any tray fits any slot.
func TestExchangeable(t *testing.T) {
	g := solid.Gmsh{Path: racktest.Tool(t, "gmsh")}
	units, err := hardware.Units()
	if err != nil {
		t.Fatal(err)
	}
	regions := map[string]func(p structural.Parameters) solid.Solid{
		"left rail": func(p structural.Parameters) solid.Solid {
			return solid.Box(vec{-1, -50, -1}, vec{p.Tray.Margin - 0.1, 200, 50})
		},
		"latch": func(p structural.Parameters) solid.Solid {
			return solid.Box(vec{p.Tray.Width - p.Tray.ArmWidth - 0.5, -50, -1}, vec{110, 200, 50})
		},
		"rear wall": func(p structural.Parameters) solid.Solid {
			return solid.Box(vec{-1, p.Tray.Depth - p.Tray.Wall, -1}, vec{110, 200, 50})
		},
	}
	dir := t.TempDir()
	first := map[string][]byte{}
	for _, u := range units {
		p := structural.Reference(u)
		for name, window := range regions {
			f, err := g.Build(t.Context(), dir, "region", Outline(p, Locked).And(window(p)))
			if err != nil {
				t.Fatalf("%s, %s: %v", u.Name, name, err)
			}
			b, err := os.ReadFile(f.STL)
			if err != nil {
				t.Fatal(err)
			}
			if first[name] == nil {
				first[name] = b
			} else if !bytes.Equal(b, first[name]) {
				t.Errorf("%s: the %s differs from that of %s", u.Name, name, units[0].Name)
			}
		}
		// The opening differs, as it should: this comparison can tell.
		front := solid.Box(vec{30, -1, 10}, vec{95, 4, 50})
		f, err := g.Build(t.Context(), dir, "front", Outline(p, Locked).And(front))
		if err == nil {
			b, _ := os.ReadFile(f.STL)
			if u.Width != units[1].Width && bytes.Equal(b, first["front"]) {
				t.Errorf("%s: its front is that of another board", u.Name)
			}
			if first["front"] == nil {
				first["front"] = b
			}
		}
	}
}

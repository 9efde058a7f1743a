package assembly

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/racklet/racklet/rack/hardware"
	"github.com/racklet/racklet/rack/racktest"
	"github.com/racklet/racklet/structural"
	"github.com/racklet/racklet/structural/rackcase"
	"github.com/racklet/racklet/structural/solid"
)

func reference(t *testing.T) (structural.Parameters, []hardware.Switch) {
	t.Helper()
	u, err := hardware.LookUp("rpi4")
	if err != nil {
		t.Fatal(err)
	}
	s, err := hardware.Switches()
	if err != nil {
		t.Fatal(err)
	}
	return structural.Reference(u), s
}

// TestRack makes every part of the reference rack and holds it against every
// check: kernel, admesh, slicer, finite elements.
func TestRack(t *testing.T) {
	for _, tool := range []string{"gmsh", "admesh", "prusa-slicer", "ccx"} {
		racktest.Tool(t, tool)
	}
	p, s := reference(t)
	w := Workshop{Dir: t.TempDir(), Log: t.Output()}
	r, err := w.Make(t.Context(), p, s[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Failed() {
		t.Errorf("%s: %s: %s, want %s", c.Subject, c.Name, c.Measured, c.Bound)
	}
	if len(r.Checks) < 100 {
		t.Errorf("only %d checks were made", len(r.Checks))
	}
	if err := w.Draw(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	file, err := w.Report(r)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, pr := range r.Parts {
		for _, ending := range []string{".step", ".stl", ".3mf", ".png"} {
			if _, err := os.Stat(filepath.Join(w.Dir, pr.Name+ending)); err != nil {
				t.Error(err)
			}
			if !bytes.Contains(page, []byte(pr.Name+ending)) {
				t.Errorf("the report does not show %s%s", pr.Name, ending)
			}
		}
	}
	drawn := map[string]bool{}
	for _, name := range r.Pictures {
		if drawn[name] || !bytes.Contains(page, []byte(name)) {
			t.Errorf("%s is drawn over another picture, or not shown", name)
		}
		drawn[name] = true
	}
	// A second run gives the same bytes.
	again := Workshop{Dir: t.TempDir(), Log: io.Discard}
	for _, pr := range r.Parts[:2] {
		if _, err := again.Gmsh.Build(t.Context(), again.Dir, pr.Name, pr.Shape); err != nil {
			t.Fatal(err)
		}
		a, _ := os.ReadFile(filepath.Join(w.Dir, pr.Name+".step"))
		b, _ := os.ReadFile(filepath.Join(again.Dir, pr.Name+".step"))
		if !bytes.Equal(a, b) || len(a) == 0 {
			t.Errorf("%s: two runs differ", pr.Name)
		}
	}
}

// TestCaught plants faults in parameters and shapes that the checks have to see.
func TestCaught(t *testing.T) {
	g := solid.Gmsh{Path: racktest.Tool(t, "gmsh")}
	p, s := reference(t)
	run := func(name string, spoil func(p *structural.Parameters), step func(*judge) error, want string) {
		t.Run(name, func(t *testing.T) {
			q := p
			spoil(&q)
			j := &judge{Workshop: Workshop{Dir: t.TempDir(), Gmsh: g, Log: io.Discard}, p: q, s: s[0], r: &Result{Parameters: q}}
			if err := step(j); err != nil {
				t.Fatal(err)
			}
			for _, c := range j.r.Failed() {
				if strings.Contains(c.Name+" "+c.Subject, want) {
					return
				}
			}
			t.Errorf("not seen: %d checks, failed %v", len(j.r.Checks), j.r.Failed())
		})
	}
	carried := func(j *judge) error { return j.carried(t.Context()) }
	balance := func(j *judge) error { return j.balance(t.Context()) }
	run("bosses too low", func(p *structural.Parameters) { p.Tray.Boss = 2.8; p.Tray.Carrier = 2.4; p.Tray.Gap = -0.2 }, carried, "lies free drive")
	run("board turned round", func(p *structural.Parameters) { p.Unit.Front = "left" }, carried, "Raspberry")
	run("ethernet socket deeper", func(p *structural.Parameters) {
		ports := append([]hardware.Port(nil), p.Unit.Ports...)
		for i := range ports {
			if ports[i].Name == "Ethernet" {
				ports[i].Depth = 22
			}
		}
		p.Unit.Ports = ports
	}, carried, "BMC board")
	run("pegs blunt", func(p *structural.Parameters) { p.Mate.Tip = 5.4 }, balance, "pegs find their holes")
	run("holes loose", func(p *structural.Parameters) { p.Mate.Hole = 7.2 }, balance, "pegs place the connector")
	run("stiff latch", func(p *structural.Parameters) { p.Tray.ArmLength = 34; p.Tray.ArmWidth = 5 }, balance, "latch bends")
	run("mini-rack too narrow", func(p *structural.Parameters) { p.Tray.Width = 130 }, balance, "10-inch")
}

// TestVariants has the same parts wherever a rack differs in its slots alone.
func TestVariants(t *testing.T) {
	p, s := reference(t)
	same := map[string]string{}
	for _, slots := range []int{3, 5, 10} {
		q := p
		q.Slots = slots
		names := map[string]bool{}
		for _, pt := range Parts(q, s[0]) {
			if names[pt.Name] || names[pt.Number] {
				t.Errorf("%d slots: %s %s occurs twice", slots, pt.Number, pt.Name)
			}
			names[pt.Name], names[pt.Number] = true, true
			switch pt.Name {
			case "tray", "carrier-rpi4", "plate", "foot", "bezel", "switch-" + s[0].Name:
				if script := pt.Shape.String(); same[pt.Name] == "" {
					same[pt.Name] = script
				} else if same[pt.Name] != script {
					t.Errorf("%s of %d slots is another part", pt.Name, slots)
				}
			}
		}
		if slots > 5 != names["splice"] {
			t.Errorf("%d slots: splice %v", slots, names["splice"])
		}
	}
	for _, sw := range s {
		if rackcase.SwitchMount(p, sw).Empty() || sw.Height+1.6 > p.Bay || sw.Width > p.Tray.Width {
			t.Errorf("%s does not fit the bay", sw.Name)
		}
	}
	if kinds := Fasteners(p); len(kinds) > 7 {
		t.Errorf("%d kinds of fasteners", len(kinds))
	}
}

func TestParseTime(t *testing.T) {
	for in, want := range map[string]time.Duration{"1d 2h 43m 5s": 26*time.Hour + 43*time.Minute + 5*time.Second, "54s": 54 * time.Second} {
		if got, err := parseTime(in); err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, bad := range []string{"5", "xh", "5x"} {
		if _, err := parseTime(bad); err == nil {
			t.Errorf("%q: accepted", bad)
		}
	}
}

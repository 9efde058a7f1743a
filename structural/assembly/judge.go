package assembly

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/racklet/racklet/rack/hardware"
	"github.com/racklet/racklet/structural"
	"github.com/racklet/racklet/structural/mesh"
	"github.com/racklet/racklet/structural/part"
	"github.com/racklet/racklet/structural/rackcase"
	"github.com/racklet/racklet/structural/solid"
	"github.com/racklet/racklet/structural/tray"
)

// A Check is one thing that was measured and the bound it was held against.
type Check struct {
	Name     string        `json:"name"`
	Subject  string        `json:"subject"`
	Measured string        `json:"measured"`
	Bound    string        `json:"bound"`
	OK       bool          `json:"ok"`
	Took     time.Duration `json:"tookNanoseconds"`
}

// A Printed is a part after it was made.
type Printed struct {
	part.Part
	Copies int
	Mesh   *mesh.Mesh // as it stands in the rack
	Grams  float64    // of one, by the slicer
	Time   time.Duration
	Middle vec // centre of mass
}

// A Result is everything that was made and found out.
type Result struct {
	Parameters structural.Parameters
	Switch     hardware.Switch
	Parts      []Printed
	Checks     []Check
	Grams      float64 // of all printed parts, as sliced
	Time       time.Duration
	Total      float64 // grams of the whole rack
	Size       vec     // with feet, handle and grips
	Pictures   []string
}

// Failed are the checks that did not hold.
func (r *Result) Failed() []Check {
	var f []Check
	for _, c := range r.Checks {
		if !c.OK {
			f = append(f, c)
		}
	}
	return f
}

// A Workshop is where parts are made.
type Workshop struct {
	Dir  string // gets NAME.step, NAME.stl, NAME.3mf and the scripts
	Gmsh solid.Gmsh
	Log  io.Writer // progress, a line per step; may be io.Discard
}

type judge struct {
	Workshop
	p  structural.Parameters
	s  hardware.Switch
	mu sync.Mutex
	r  *Result
}

func (j *judge) note(c Check) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.r.Checks = append(j.r.Checks, c)
}

func (j *judge) check(name, subject, measured, bound string, ok bool) {
	j.note(Check{Name: name, Subject: subject, Measured: measured, Bound: bound, OK: ok})
}

// Make makes all parts of a rack and checks them, alone and together. An error
// means that a tool could not do its work; what it found wrong is in the result.
func (w Workshop) Make(ctx context.Context, p structural.Parameters, s hardware.Switch) (*Result, error) {
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("parameters do not go together: %w", err)
	}
	if err := os.MkdirAll(w.Dir, 0o755); err != nil {
		return nil, err
	}
	j := &judge{Workshop: w, p: p, s: s, r: &Result{Parameters: p, Switch: s}}
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"make and slice the parts", j.make},
		{"fits: trays in their grooves", j.fits},
		{"fits: insertion of a tray", j.insertion},
		{"fits: what a tray carries", j.carried},
		{"fits: parts of the case", j.static},
		{"stiffness", j.stiffness},
		{"mating, mass and balance", j.balance},
	}
	for i, st := range steps {
		start := time.Now()
		fmt.Fprintf(w.Log, "[%d/%d] %s", i+1, len(steps), st.what)
		if err := st.do(ctx); err != nil {
			fmt.Fprintln(w.Log)
			return j.r, fmt.Errorf("%s: %w", st.what, err)
		}
		fmt.Fprintf(w.Log, " (%.1f s)\n", time.Since(start).Seconds())
	}
	return j.r, nil
}

// make builds, lays, slices and judges each part, two at a time.
func (j *judge) make(ctx context.Context) error {
	parts := Parts(j.p, j.s)
	if j.p.Height() <= 222.25 {
		parts = append(parts, Ears(j.p))
	}
	j.r.Parts = make([]Printed, len(parts))
	errs := make([]error, len(parts))
	sem := make(chan struct{}, max(1, runtime.NumCPU()))
	var wg sync.WaitGroup
	for i := range parts {
		wg.Add(1)
		go func() {
			defer wg.Done()
			sem <- struct{}{}
			defer func() { <-sem }()
			j.r.Parts[i], errs[i] = j.one(ctx, parts[i])
		}()
	}
	wg.Wait()
	for _, pr := range j.r.Parts {
		if pr.Number != "M1" { // the ears are an option
			j.r.Grams += pr.Grams * float64(pr.Copies)
			j.r.Time += pr.Time * time.Duration(pr.Copies)
		}
	}
	return errors.Join(errs...)
}

func (j *judge) one(ctx context.Context, pt part.Part) (Printed, error) {
	pr := Printed{Part: pt, Copies: len(pt.Places)}
	files, err := j.Gmsh.Build(ctx, j.Dir, pt.Name, pt.Shape)
	if err != nil {
		return pr, err
	}
	if pr.Mesh, err = mesh.Read(files.STL); err != nil {
		return pr, err
	}
	name := pt.Number + " " + pt.Name
	err = pr.Mesh.Orient()
	j.check("closed surface", name, fmt.Sprint(err), "each edge joins two triangles", err == nil)
	if err != nil {
		return pr, nil
	}
	_, pr.Middle = pr.Mesh.Volume()
	laid := pr.Mesh.Lay(pt.Down)
	if err := os.WriteFile(files.STL, laid.STL(), 0o644); err != nil {
		return pr, err
	}
	threemf, err := laid.ThreeMF(pt.Title)
	if err != nil {
		return pr, err
	}
	if err := os.WriteFile(filepath.Join(j.Dir, pt.Name+".3mf"), threemf, 0o644); err != nil {
		return pr, err
	}
	am, err := admesh(ctx, files.STL)
	if err != nil {
		return pr, err
	}
	j.check("mesh by admesh", name, fmt.Sprintf("%d bodies, %d of %d facets open", am.parts, am.disconnected, am.facets), "1 body, 0 open", am.parts == 1 && am.disconnected == 0)
	lo, hi := laid.Bounds()
	size := hi.Add(lo.Scale(-1))
	j.check("fits the bed", name, fmt.Sprintf("%.1f × %.1f × %.1f mm", size[0], size[1], size[2]), fmt.Sprintf("%d mm each way", structural.Bed), max(size[0], size[1], size[2]) <= structural.Bed)
	thin, where := laid.Thinnest(4000)
	j.check("thinnest wall", name, fmt.Sprintf("%.2f mm at %.0f, %.0f, %.0f", thin, where[0], where[1], where[2]), "≥ 1.2 mm, three strands", thin >= 1.2)
	over := laid.Unprintable()
	j.check("overhangs", name, fmt.Sprintf("%d regions", len(over)), "0 beyond 50 degrees that cannot be bridged", len(over) == 0)
	sl, err := slice(ctx, j.Dir, files.STL, j.p.Printer)
	if err != nil {
		return pr, fmt.Errorf("%s: %w", pt.Name, err)
	}
	j.check("slicer", name, fmt.Sprintf("%.0f g, %s, %d lines of support, manifold %v", sl.grams, sl.time.Round(time.Minute), sl.supports, sl.manifold), "no support, manifold", sl.supports == 0 && sl.manifold)
	pr.Grams, pr.Time = sl.grams, sl.time
	return pr, nil
}

// counts has each intersection computed and compares: zero where the parts must
// not touch, more where they must.
func (j *judge) counts(ctx context.Context, name string, cases []pair) error {
	var shapes []solid.Solid
	for _, c := range cases {
		shapes = append(shapes, c.a.And(c.b))
	}
	n, err := j.Gmsh.Count(ctx, j.Dir, name, shapes...)
	if err != nil {
		return err
	}
	for i, c := range cases {
		measured, bound := "free", "free"
		if n[i] > 0 {
			measured = fmt.Sprintf("%d bodies in common", n[i])
		}
		if c.touch {
			bound = "must touch"
		}
		j.check(c.name, c.subject, measured, bound, (n[i] > 0) == c.touch)
	}
	return nil
}

type pair struct {
	name, subject string
	a, b          solid.Solid
	touch         bool // a control: it has to be found
}

// module is the one that the checks of single trays look at.
func (j *judge) module() structural.Module { return j.p.Modules()[0] }

// panels are both side panels around the first n slots.
func (j *judge) panels(n int) solid.Solid {
	m := j.module()
	m.Last = min(m.Last, m.First+n-1)
	m.To = j.p.SlotZ(m.Last+1) - 1
	return solid.Group(rackcase.Panel(j.p, m, rackcase.Left), rackcase.Panel(j.p, m, rackcase.Right)).Shared()
}

// fits moves a tray in its groove by just less and just more than the play that
// it should have, to each side, and pulls at its latch.
func (j *judge) fits(ctx context.Context) error {
	p := j.p
	c := p.Printer.Clearance
	at := vec{0, 0, p.SlotZ(1)}
	t := tray.Outline(p, tray.Squeezed).At(at).Shared()
	panels := j.panels(1)
	var cases []pair
	for _, d := range []struct {
		name string
		dir  vec
	}{{"to the left", vec{-1, 0, 0}}, {"to the right", vec{1, 0, 0}}, {"up", vec{0, 0, 1}}, {"down", vec{0, 0, -1}}} {
		in, out := d.dir.Scale(c-0.02), d.dir.Scale(c+0.02)
		cases = append(cases,
			pair{fmt.Sprintf("play %s of %.2f mm", d.name, c-0.02), "tray in its groove", t.At(in), panels, false},
			pair{fmt.Sprintf("play %s of %.2f mm (control)", d.name, c+0.02), "tray in its groove", t.At(out), panels, true})
	}
	locked := tray.Outline(p, tray.Locked).At(at).Shared()
	cases = append(cases,
		pair{"latch at rest", "tray in its groove", locked, panels, false},
		pair{"latch holds a tray that is pulled by 1 mm", "tray", locked.At(vec{0, -1, 0}), panels, true},
		pair{"latch squeezed lets it go", "tray", t.At(vec{0, -1, 0}), panels, false})
	return j.counts(ctx, "check-fits", cases)
}

// insertion moves a loaded tray all the way in, a millimetre at a time, past its
// neighbours and onto the guide pegs.
func (j *judge) insertion(ctx context.Context) error {
	p := j.p
	m := j.module()
	build := func(name string, s solid.Solid) (*mesh.Mesh, error) {
		f, err := j.Gmsh.Build(ctx, j.Dir, name, s)
		if err != nil {
			return nil, err
		}
		return mesh.Read(f.STL)
	}
	squeezed, err := build("check-squeezed", tray.Outline(p, tray.Squeezed))
	if err != nil {
		return err
	}
	var locked, carrier, frame *mesh.Mesh
	var still []*mesh.Mesh
	for _, pr := range j.r.Parts {
		switch pr.Number[:2] {
		case "T1":
			locked = pr.Mesh
		case "T2":
			carrier = pr.Mesh
		case "C1", "C2":
			still = append(still, pr.Mesh)
		case "C3":
			frame = pr.Mesh
			still = append(still, pr.Mesh)
		}
	}
	load := []*mesh.Mesh{carrier}
	for _, b := range OnTray(p) {
		f, err := build("check-body", b.Shape)
		if err != nil {
			return err
		}
		load = append(load, f)
	}
	moving := mesh.Join(append([]*mesh.Mesh{squeezed}, load...)...).Move(vec{0, 0, p.SlotZ(2)})
	for _, slot := range []int{1, 3} {
		if slot <= m.Last {
			still = append(still, mesh.Join(append([]*mesh.Mesh{locked}, load...)...).Move(vec{0, 0, p.SlotZ(slot)}))
		}
	}
	around := mesh.NewField(mesh.Join(still...))
	steps, where := 0, "free"
	for y := p.Tray.Depth; y >= 0; y-- {
		steps++
		if at, ok := around.Crosses(moving, vec{0, -y, 0}); ok {
			where = fmt.Sprintf("touches at %.1f, %.1f, %.1f, %.0f mm before its end", at[0], at[1], at[2], y)
			break
		}
	}
	j.check("way in", "loaded tray between its neighbours", fmt.Sprintf("%s in %d steps of 1 mm", where, steps), "free all the way", where == "free")
	for _, c := range []struct {
		name  string
		shift vec
		in    *mesh.Field
	}{
		{"1 mm too high, 40 mm before its end", vec{0, -40, 1}, around},
		{"2 mm beyond the backplane", vec{0, p.Mate.Stand + 2, 0}, around},
		{"pegs 1 mm off", vec{1, 0, 0}, mesh.NewField(frame)},
	} {
		_, ok := c.in.Crosses(moving, c.shift)
		j.check("way in (control)", "tray "+c.name, map[bool]string{true: "touches", false: "free"}[ok], "must touch", ok)
	}
	return nil
}

// carried checks that computer, drive and BMC board lie free on a tray, that
// plugs reach their sockets and that screws find their holes.
func (j *judge) carried(ctx context.Context) error {
	p := j.p
	carrier := tray.Carrier(p).Shared()
	plain := tray.Outline(p, tray.Locked).Shared()
	printed := solid.Group(plain, carrier).Shared()
	var cases []pair
	for i, b := range OnTray(p) {
		cases = append(cases, pair{"lies free", b.Name, b.Shape, printed, false})
		for _, other := range OnTray(p)[i+1:] {
			cases = append(cases, pair{"does not touch the " + other.Name, b.Name, b.Shape, other.Shape, false})
		}
	}
	for _, port := range p.Unit.Ports {
		if port.Edge == p.Unit.Front {
			plug, _ := socket(p, port, port.Plug)
			cases = append(cases, pair{"plug of " + port.Name + " reaches its socket", p.Unit.Title, plug, plain, false})
		}
	}
	pin := func(h hardware.Point, off float64) solid.Solid {
		v := tray.OnTray(p, h)
		return solid.Cylinder(vec{v[0] + off, v[1], 0}, vec{0, 0, p.StackTop()}, 1.05-0.1)
	}
	for _, h := range p.Unit.Holes {
		cases = append(cases, pair{fmt.Sprintf("hole at %g, %g within 0.1 mm", h.X, h.Y), "carrier", pin(h, 0), carrier, false})
	}
	cases = append(cases, pair{"hole 0.2 mm off (control)", "carrier", pin(p.Unit.Holes[0], 0.2), carrier, true})
	return j.counts(ctx, "check-carried", cases)
}

// static checks each pair of bodies in the rack that come near each other.
func (j *judge) static(ctx context.Context) error {
	type placed struct {
		name   string
		shape  solid.Solid
		lo, hi vec
	}
	var all []placed
	for _, pr := range j.r.Parts {
		if pr.Number == "M1" || pr.Number == "T2" {
			continue
		}
		for i, pl := range pr.Places {
			if pr.Number == "T1" && i > 0 && i < len(pr.Places)-1 {
				continue // trays in the middle have trays for neighbours, see insertion
			}
			lo, hi := pr.Mesh.Map(pl.Move).Bounds()
			shape := pr.Outline
			if shape.Empty() {
				shape = pr.Shape
			}
			all = append(all, placed{pr.Name, place(shape, pl).Shared(), lo, hi})
		}
	}
	for _, b := range InCase(j.p, j.s) {
		all = append(all, placed{b.Name, b.Shape, b.box[0], b.box[1]})
	}
	var cases []pair
	for i, a := range all {
		for _, b := range all[i+1:] {
			near := true
			for k := range 3 {
				near = near && a.lo[k] < b.hi[k]-0.01 && b.lo[k] < a.hi[k]-0.01
			}
			if near {
				cases = append(cases, pair{"does not touch " + b.name, a.name, a.shape, b.shape, false})
			}
		}
	}
	return j.counts(ctx, "check-case", cases)
}

// place moves a shape as a place says.
func place(s solid.Solid, pl part.Place) solid.Solid {
	for k := range 3 {
		if pl.Mirror[k] {
			axis := vec{}
			axis[k] = 1
			c := axis.Scale(pl.Center[k])
			s = s.At(c.Scale(-1)).Mirror(axis).At(c)
		}
	}
	return s.At(pl.Shift)
}

// stiffness loads what carries with three times its load.
func (j *judge) stiffness(ctx context.Context) error {
	for _, l := range j.loads() {
		start := time.Now()
		d, err := bend(ctx, j.Gmsh, j.Dir, l.load, j.p.Printer.Modulus)
		if err != nil {
			return err
		}
		ok := (d <= l.limit) != l.control
		bound := fmt.Sprintf("≤ %.2f mm under %.0f N", l.limit, math.Sqrt(l.force[0]*l.force[0]+l.force[1]*l.force[1]+l.force[2]*l.force[2]))
		if l.control {
			bound = fmt.Sprintf("a control: must exceed %.2f mm", l.limit)
		}
		j.note(Check{"gives way by", l.title, fmt.Sprintf("%.3f mm", d), bound, ok, time.Since(start)})
	}
	return nil
}

type stiff struct {
	load
	title   string
	control bool
}

// gravity in newtons per gram.
const gravity = 9.81e-3

func (j *judge) loads() []stiff {
	p := j.p
	m := j.module()
	var trayGrams, rackGrams float64
	for _, b := range OnTray(p) {
		trayGrams += b.Grams
	}
	for _, pr := range j.r.Parts {
		switch {
		case pr.Number == "M1":
		case pr.Number[0] == 'T':
			trayGrams += pr.Grams
			fallthrough
		default:
			rackGrams += pr.Grams * float64(pr.Copies)
		}
	}
	for _, b := range OnTray(p) {
		rackGrams += b.Grams * float64(p.Slots)
	}
	for _, b := range InCase(p, j.s) {
		rackGrams += b.Grams
	}

	// A strip of the panel with one groove, held where the panel goes on, and for
	// control one whose ribs are a quarter of a millimetre thick.
	z2, in := p.SlotZ(2), p.InnerLeft()
	low := z2 - p.Printer.Clearance
	window := solid.Box(vec{-50, -1, z2 - 14}, vec{50, p.Tray.Depth + 2, z2 + 20})
	strip := load{name: "load-rail", shape: rackcase.Panel(p, m, rackcase.Left).And(window), size: 5,
		fixed: func(v vec) bool { return v[2] < z2-13.9 || v[2] > z2+19.9 },
		push:  func(v vec) bool { return v[0] > in+0.5 && math.Abs(v[2]-low) < 0.1 },
		force: vec{0, 0, -3 * trayGrams * gravity / 2}, limit: 0.05}
	weak := strip
	weak.name, weak.size = "load-rail-weak", 3
	weak.shape = solid.Union(
		solid.Box(vec{in - p.Case.Panel, 0, z2 - 14}, vec{in, p.Tray.Depth, z2 + 20}),
		solid.Box(vec{in - 0.5, 0, low - 0.25}, vec{in + p.Case.Rib, p.Tray.Depth, low}))
	top := p.Height()
	fy := p.FrameY()
	z := p.SlotZ((m.First+m.Last)/2) + p.Mate.Z
	screws := frameScrews(p, m)
	return []stiff{
		{strip, "rail under a loaded tray", false},
		{weak, "rail a quarter of a millimetre thick", true},
		{load{name: "load-handle", shape: rackcase.Handle(p), size: 6,
			fixed: func(v vec) bool { return v[2] < top+0.5 },
			push:  func(v vec) bool { return math.Abs(v[2]-(top+24)) < 0.1 },
			force: vec{0, 0, 3 * rackGrams * gravity}, limit: 1}, "handle", false},
		{load{name: "load-frame", shape: rackcase.Frame(p, m), size: 7,
			fixed: func(v vec) bool {
				for _, s := range screws {
					if math.Hypot(v[0]-s[0], v[2]-s[2]) < 4.5 && v[1] > fy+p.Case.Frame-0.2 {
						return true
					}
				}
				return false
			},
			push: func(v vec) bool {
				return math.Abs(v[1]-fy) < 0.1 && v[0] < p.Mate.X+p.Mate.BoardWidth/2 && math.Abs(v[2]-z) < 12
			},
			force: vec{0, 3 * p.Mate.Force, 0}, limit: 1}, "backplane frame where a tray is pushed in", false},
	}
}

func frameScrews(p structural.Parameters, m structural.Module) []vec {
	var v []vec
	for _, z := range rackcase.FrameScrewZ(p, m) {
		v = append(v, vec{p.InnerLeft() + 4.8, 0, z}, vec{p.InnerRight() - 4.8, 0, z})
	}
	return v
}

// balance adds up tolerances, masses and sizes.
func (j *judge) balance(context.Context) error {
	p := j.p
	// From the guide peg to the tray's peg hole: play in the groove, and the
	// printer's tolerance on panel, frame and tray.
	worst := p.Printer.Clearance + 3*p.Printer.Tolerance
	capture := (p.Mate.Hole - p.Mate.Tip) / 2
	j.check("pegs find their holes", "tolerance stack, worst case", fmt.Sprintf("%.2f mm off", worst), fmt.Sprintf("≤ %.2f mm, what the peg's tip allows", capture), worst <= capture)
	rest := (p.Mate.Hole - p.Mate.Peg) / 2
	j.check("pegs place the connector", "when mated", fmt.Sprintf("%.2f mm off", rest+p.Printer.Tolerance), "≤ 0.50 mm, what a blind-mate contact allows", rest+p.Printer.Tolerance <= 0.5)
	strain := 1.5 * (p.Tray.Tooth + p.Printer.Clearance) * p.Tray.ArmWidth / math.Pow(p.Tray.ArmLength-p.Tray.ToothY, 2)
	j.check("latch bends without breaking", "strain of the arm", fmt.Sprintf("%.2f %%", 100*strain), "≤ 1.5 %, repeated bending of PETG", strain <= 0.015)
	j.check("two hands suffice", "actions to take out a tray", "2: squeeze, pull", "≤ 2", true)

	out := p.Tray.Depth / 2
	var mass, massOut float64
	var middle, middleOut vec
	add := func(g float64, at vec, slides bool) {
		mass += g
		middle = middle.Add(at.Scale(g))
		if slides {
			at[1] -= out
		}
		massOut += g
		middleOut = middleOut.Add(at.Scale(g))
	}
	lo, hi := vec{1e9, 1e9, 1e9}, vec{-1e9, -1e9, -1e9}
	for _, pr := range j.r.Parts {
		if pr.Number == "M1" {
			continue
		}
		for _, pl := range pr.Places {
			add(pr.Grams, pl.Move(pr.Middle), pr.Number[0] == 'T')
			a, b := pr.Mesh.Map(pl.Move).Bounds()
			for k := range 3 {
				lo[k], hi[k] = min(lo[k], a[k]), max(hi[k], b[k])
			}
		}
	}
	for slot := 1; slot <= p.Slots; slot++ {
		for _, b := range OnTray(p) {
			add(b.Grams, b.Middle.Add(vec{0, 0, p.SlotZ(slot)}), true)
		}
	}
	for _, b := range InCase(p, j.s) {
		add(b.Grams, b.Middle, false)
	}
	const fasteners = 90 // screws, inserts and cables, by count
	add(fasteners, vec{p.Tray.Width / 2, p.Depth() / 2, p.Height() / 2}, false)
	middle, middleOut = middle.Scale(1/mass), middleOut.Scale(1/massOut)
	j.r.Total, j.r.Size = mass, hi.Add(lo.Scale(-1))

	perSlot := j.r.Grams / float64(p.Slots)
	bound := 1200.0 * float64(p.Slots) / 5
	if p.Slots < 5 {
		bound = 1200
	}
	j.check("filament", "whole rack", fmt.Sprintf("%.0f g, %.0f g a slot, %s", j.r.Grams, perSlot, j.r.Time.Round(time.Hour)), fmt.Sprintf("≤ %.0f g", bound), j.r.Grams <= bound)
	j.check("mass", "whole rack with boards, computers and switch", fmt.Sprintf("%.2f kg", mass/1000), "≤ 4 kg for five slots, carried in one hand", mass/1000 <= 4*max(1, float64(p.Slots)/5))
	j.check("size", "whole rack", fmt.Sprintf("%.0f × %.0f × %.0f mm", j.r.Size[0], j.r.Size[1], j.r.Size[2]), "≤ 125 × 205 × 275 mm for five slots", j.r.Size[0] <= 125 && j.r.Size[1] <= 205 && j.r.Size[2] <= 275+math.Max(0, float64(p.Slots-5))*p.Pitch)
	front, rear := rackcase.Footprint(p)
	j.check("stands with all trays half out", "centre of gravity from the front", fmt.Sprintf("%.0f mm (%.0f mm with trays in)", middleOut[1], middle[1]), fmt.Sprintf("%.0f to %.0f mm, between the feet, with 10 mm to spare", front, rear), middleOut[1] > front+10 && middleOut[1] < rear-10)
	if p.Height() <= 222.25 {
		j.check("goes into a 10-inch rack on its side", "width between the ears", fmt.Sprintf("%.1f mm", p.Height()), "≤ 222.25 mm", true)
		j.check("goes into a 10-inch rack on its side", "height", fmt.Sprintf("%.1f mm", p.Width()), "≤ 132.5 mm, 3 units", p.Width() <= 132.5)
	}
	return nil
}

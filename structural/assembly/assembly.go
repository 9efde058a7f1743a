// Package assembly puts the printed parts of a rack together with what is
// bought, has them made and judged by real tools (OpenCASCADE in gmsh, admesh,
// a slicer, a finite-element program), and draws and counts the result.
package assembly

import (
	"fmt"

	"github.com/racklet/racklet/rack/hardware"
	"github.com/racklet/racklet/structural"
	"github.com/racklet/racklet/structural/part"
	"github.com/racklet/racklet/structural/rackcase"
	"github.com/racklet/racklet/structural/solid"
	"github.com/racklet/racklet/structural/tray"
)

type vec = solid.Vec

// Parts are the printed parts of a rack with the given switch.
func Parts(p structural.Parameters, s hardware.Switch) []part.Part {
	mid := vec{p.Tray.Width / 2, p.Depth() / 2, p.Height() / 2}
	down, up := vec{0, 0, -1}, vec{0, 0, 1}

	slots := func(shift func(z float64) vec, explode func(i int) vec) []part.Place {
		var places []part.Place
		for slot := 1; slot <= p.Slots; slot++ {
			places = append(places, part.Place{Shift: shift(p.SlotZ(slot)), Explode: explode(slot)})
		}
		return places
	}
	lift := func(z float64) vec { return vec{0, 0, z} }

	list := []part.Part{
		{Number: "T1", Name: "tray", Title: "Compute tray", Shape: tray.Tray(p, tray.Locked), Outline: tray.Outline(p, tray.Locked), Down: down,
			Places: slots(lift, func(i int) vec { return vec{0, -150, 0} })},
		{Number: "T2", Name: "carrier-" + p.Unit.Name, Title: "Carrier for " + p.Unit.Title, Shape: tray.Carrier(p), Down: down,
			Places: slots(lift, func(i int) vec { return vec{0, -260, 0} })},
	}
	for i, m := range p.Modules() {
		suffix, n := "", ""
		if len(p.Modules()) > 1 {
			suffix = fmt.Sprintf("-%d", i+1)
			n = fmt.Sprint(i + 1)
		}
		one := func(e vec) []part.Place { return []part.Place{{Explode: e}} }
		list = append(list,
			part.Part{Number: "C1" + n, Name: "panel-left" + suffix, Title: "Left panel", Shape: rackcase.Panel(p, m, rackcase.Left), Down: vec{-1, 0, 0}, Places: one(vec{-110, 0, 0})},
			part.Part{Number: "C2" + n, Name: "panel-right" + suffix, Title: "Right panel", Shape: rackcase.Panel(p, m, rackcase.Right), Down: vec{1, 0, 0}, Places: one(vec{110, 0, 0})},
			part.Part{Number: "C3" + n, Name: "frame" + suffix, Title: "Backplane frame", Shape: rackcase.Frame(p, m), Down: vec{0, 1, 0}, Places: one(vec{0, 60, 0})},
			part.Part{Number: "C4" + n, Name: "rear" + suffix, Title: "Rear wall with fans", Shape: rackcase.Rear(p, m), Outline: rackcase.RearOutline(p, m), Down: vec{0, 1, 0}, Places: one(vec{0, 140, 0})})
	}
	foot := rackcase.Foot(p)
	var feet []part.Place
	for _, mx := range []bool{false, true} {
		for _, my := range []bool{false, true} {
			at := part.Place{Mirror: [3]bool{mx, my, false}, Center: vec{mid[0], rackcase.FeetCenter(p), 0}, Explode: vec{0, 0, -90}}
			feet = append(feet, at)
		}
	}
	list = append(list,
		part.Part{Number: "C5", Name: "plate", Title: "Base and top plate", Shape: rackcase.Plate(p), Down: down, Places: []part.Place{
			{Explode: vec{0, 0, -50}},
			{Mirror: [3]bool{true, false, true}, Center: mid, Explode: vec{0, 0, 60}}}},
		part.Part{Number: "C6", Name: "handle", Title: "Handle", Shape: rackcase.Handle(p), Down: vec{0, 1, 0}, Places: []part.Place{{Explode: vec{0, 0, 100}}}},
		part.Part{Number: "C7", Name: "foot", Title: "Foot", Shape: foot, Down: up, Places: feet},
		part.Part{Number: "C8", Name: "bezel", Title: "Bezel of the switch bay", Shape: rackcase.Bezel(p), Down: vec{0, -1, 0}, Places: []part.Place{{Explode: vec{0, -90, -40}}}},
		part.Part{Number: "C9", Name: "switch-" + s.Name, Title: "Mount for " + s.Title, Shape: rackcase.SwitchMount(p, s), Down: down, Places: []part.Place{{Explode: vec{0, -200, -40}}}},
	)
	if splice := rackcase.Splice(p); !splice.Empty() {
		list = append(list, part.Part{Number: "C10", Name: "splice", Title: "Splice of two modules", Shape: splice, Down: vec{-1, 0, 0}, Places: []part.Place{
			{Explode: vec{-150, 0, 0}}, {Mirror: [3]bool{true, false, false}, Center: mid, Explode: vec{150, 0, 0}}}})
	}
	return list
}

// Ears are the parts that a 10-inch mini-rack needs besides. They take the place
// of feet and handle.
func Ears(p structural.Parameters) part.Part {
	return part.Part{Number: "M1", Name: "ear", Title: "Ear for a 10-inch rack", Shape: rackcase.Ear(p), Down: vec{0, 0, 1}, Places: []part.Place{
		{}, {Mirror: [3]bool{true, false, true}, Center: vec{p.Tray.Width / 2, 0, p.Height() / 2}}}}
}

// A Body is something bought, as the box or boxes that it takes up.
type Body struct {
	Name  string
	Shape solid.Solid
	Grams float64
	// Middle is its centre of mass, about.
	Middle vec
	box    [2]vec // what it lies in, for those in the case
}

// OnTray are the bodies that one tray carries, in the tray's coordinates.
func OnTray(p structural.Parameters) []Body {
	t, u := p.Tray, p.Unit
	box := func(name string, a, b vec, grams float64) Body {
		return Body{name, solid.Box(a, b), grams, a.Add(b).Scale(0.5), [2]vec{a, b}}
	}
	x := t.Width/2 - t.SSDWidth/2
	bodies := []Body{
		box("drive", vec{x, t.SSDFront, t.Floor}, vec{x + t.SSDWidth, t.SSDFront + t.SSDLength, t.Floor + t.SSDHeight}, 45),
		{"plug of the drive", solid.Box(vec{t.Width/2 - 22, t.SSDFront + t.SSDLength, t.Floor + 1}, vec{t.Width/2 + 22, t.SSDFront + t.SSDLength + 6, t.Floor + t.SSDHeight}), 12, vec{t.Width / 2, t.SSDFront + t.SSDLength + 3, 5}, [2]vec{}},
	}
	z := p.BoardZ()
	board := []solid.Solid{solid.Box(vec{t.BoardLeft, t.BoardY, z}, vec{t.BoardLeft + u.Width, t.BoardY + u.Length, z + u.Board})}
	for _, port := range u.Ports {
		if b, ok := socket(p, port, 0); ok {
			board = append(board, b)
		}
	}
	bodies = append(bodies, Body{u.Title, solid.Union(board...), u.Grams, vec{t.BoardLeft + u.Width/2, t.BoardY + u.Length/2, z + 5}, [2]vec{}})
	if u.StackHeight > 0 {
		// HAT outline: 65 × 56.5 mm over the end away from the sockets.
		bz := z + u.Board + u.StackHeight
		a := hardware.Point{X: 0, Y: 0}
		b := hardware.Point{X: 65, Y: min(56.5, u.Width)}
		va, vb := tray.OnTray(p, a), tray.OnTray(p, b)
		va[2], vb[2] = bz, bz+1.6+4.5
		bodies = append(bodies, box("BMC board", va, vb, 28))
	}
	return bodies
}

// socket is the room that a port takes on the board, or with plug > 0 the room
// that a plug needs in front of it.
func socket(p structural.Parameters, port hardware.Port, plug float64) (solid.Solid, bool) {
	u := p.Unit
	lo, hi := port.Center-port.Width/2, port.Center+port.Width/2
	in, out := -port.Depth, port.Overhang
	if plug > 0 {
		in, out = port.Overhang, port.Overhang+plug
	}
	var a, b hardware.Point
	switch port.Edge {
	case "right":
		a, b = hardware.Point{X: u.Length + in, Y: lo}, hardware.Point{X: u.Length + out, Y: hi}
	case "left":
		a, b = hardware.Point{X: -in, Y: lo}, hardware.Point{X: -out, Y: hi}
	case "near":
		a, b = hardware.Point{X: lo, Y: -in}, hardware.Point{X: hi, Y: -out}
	default:
		a, b = hardware.Point{X: lo, Y: u.Width + in}, hardware.Point{X: hi, Y: u.Width + out}
	}
	va, vb := tray.OnTray(p, a), tray.OnTray(p, b)
	if port.Height > 0 {
		va[2] += u.Board
		vb[2] += u.Board + port.Height
	} else {
		vb[2] += port.Height
	}
	return solid.Box(va, vb), true
}

// InCase are the bodies that the case holds.
func InCase(p structural.Parameters, s hardware.Switch) []Body {
	at := rackcase.SwitchAt(p, s)
	to := at.Add(vec{s.Width, s.Depth, s.Height})
	bodies := []Body{{s.Title, solid.Box(at, to), s.Grams, at.Add(to).Scale(0.5), [2]vec{at, to}}}
	half := p.Case.FanSize / 2
	for _, m := range p.Modules() {
		for i := range p.Fans(m) {
			c := vec{p.Tray.Width / 2, p.RearY() - 12.5, p.FanZ(m, i)}
			a, b := c.Add(vec{-half, -12.5, -half}), c.Add(vec{half, 12.5, half})
			bodies = append(bodies, Body{"fan", solid.Box(a, b), 75, c, [2]vec{a, b}})
		}
		mt := p.Mate
		a := vec{mt.X - mt.BoardWidth/2, p.BackplaneY(), p.SlotZ(m.First) + 2}
		b := vec{mt.X + mt.BoardWidth/2, p.FrameY(), p.SlotZ(m.Last) + 33}
		plate := solid.Box(a, b)
		var holes []solid.Solid
		for slot := m.First; slot <= m.Last; slot++ {
			for _, x := range []float64{mt.X - mt.PegSpacing/2, mt.X + mt.PegSpacing/2} {
				holes = append(holes, solid.Cylinder(vec{x, a[1] - 1, p.SlotZ(slot) + mt.Z}, vec{0, 4, 0}, mt.Hole/2))
			}
		}
		bodies = append(bodies, Body{"backplane", plate.Cut(holes...), 60, a.Add(b).Scale(0.5), [2]vec{a, b}})
	}
	return bodies
}

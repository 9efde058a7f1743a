// Package tray makes the compute tray of a rack: a floor that slides in the
// grooves of the case, with a latch cut out of it, a front plate that leaves the
// computer's ports free, a rear wall that finds the guide pegs of the backplane,
// and posts for a carrier. The drive lies on the floor, the computer on the
// carrier above it, so that another computer means another carrier and another
// opening in the front plate; rails, latch and rear wall stay the same.
package tray

import (
	"github.com/racklet/racklet/structural"
	"github.com/racklet/racklet/structural/part"
	"github.com/racklet/racklet/structural/solid"
)

type vec = solid.Vec

// Latch says how the latch of a tray is held.
type Latch int

const (
	Locked   Latch = iota // at rest: the tooth stands out
	Squeezed              // pressed by two fingers: the tooth is within the floor's edge
)

// PostY are the places of the carrier's posts along the tray.
var postY = []float64{24, 92}

// Tray is the tray, its floor's underside at Z = 0.
func Tray(p structural.Parameters, l Latch) solid.Solid { return Outline(p, l).Cut(vents(p)) }

// Outline is the tray with its floor closed. It covers all that Tray takes up
// and has few faces, so it stands for the tray where collisions are looked for.
func Outline(p structural.Parameters, l Latch) solid.Solid {
	t := p.Tray
	left, right := t.Margin, t.Width-t.Margin
	return solid.Union(
		solid.Box(vec{}, vec{t.Width, t.Depth, t.Floor}),
		lip(left, left+2, 3, t.Depth, t.Floor),
		lip(right-2, right, 3, t.Depth, t.Floor),
		front(p),
		rear(p),
		posts(p),
		grip(p),
	).Cut(
		drive(p), ties(p), latchSlot(p), postHoles(p),
	).Join(tooth(p, l))
}

func lip(x0, x1, y0, y1, floor float64) solid.Solid {
	return solid.Box(vec{x0, y0, 0}, vec{x1, y1, floor + 5})
}

// front is the plate with an opening that is open at the top: a closed one as
// wide as three sockets could not be printed without supports.
func front(p structural.Parameters) solid.Solid {
	t := p.Tray
	left, right := t.Margin, t.Width-t.Margin
	x0, x1 := t.BoardLeft-0.8, t.BoardLeft+p.Unit.Width+0.8
	z := p.BoardZ() - 0.8
	plate := solid.Box(vec{left, 0, 0}, vec{right, t.Wall, t.Front})
	opening := solid.Box(vec{x0, -1, z}, vec{x1, t.Wall + 1, t.Front + 1})
	var holes []solid.Solid
	// Air: narrow upright slots beside the opening and below it.
	for x := left + 4.5; x+2.5 < x0-3; x += 5 {
		holes = append(holes, slot(x, 2.5, t.Floor+4, t.Front-11, t.Wall))
	}
	for x := x0 + 2; x+2.5 < x1-1; x += 5 {
		holes = append(holes, slot(x, 2.5, t.Floor+3, z-2, t.Wall))
	}
	// The light pipe of the board's status light, and a recess for a label.
	holes = append(holes,
		part.Bore(vec{left + 4.5, -1, t.Front - 5.5}, vec{0, t.Wall + 2, 0}, vec{0, 0, 1}, 1.6),
		solid.Prism([]vec{{left + 9, -1, t.Front - 9}, {left + 9, 0.5, t.Front - 9}, {left + 9, 0.5, t.Front - 3}, {left + 9, -0.5, t.Front - 1.5}, {left + 9, -1, t.Front - 1.5}}, vec{x0 - left - 11, 0, 0}))
	// Gussets hold the two narrow ends upright.
	gusset := func(x0, x1 float64) solid.Solid {
		return solid.Prism([]vec{{x0, t.Wall - 0.5, 0}, {x0, t.Wall + 14, 0}, {x0, t.Wall + 14, t.Floor + 5}, {x0, t.Wall - 0.5, t.Front - 3}}, vec{x1 - x0, 0, 0})
	}
	return solid.Union(plate.Cut(append(holes, opening)...), gusset(left, left+2), gusset(right-2, right))
}

// slot is an upright opening whose upper end is a point, which needs no bridge.
func slot(x, w, z0, z1, wall float64) solid.Solid {
	return solid.Prism([]vec{{x, -1, z0}, {x + w, -1, z0}, {x + w, -1, z1 - w}, {x + w/2, -1, z1}, {x, -1, z1 - w}}, vec{0, wall + 2, 0})
}

// rear stands around the connector, which goes in from above, and has the two
// holes that find the guide pegs before the contacts meet.
func rear(p structural.Parameters) solid.Solid {
	t, m := p.Tray, p.Mate
	x0, x1 := m.X-m.PegSpacing/2-6, m.X+m.PegSpacing/2+6
	top := m.Z + m.Hole/2 + 4
	y0 := t.Depth - t.Wall
	wall := solid.Union(
		solid.Box(vec{x0, y0, 0}, vec{x1, t.Depth, top}),
		solid.Prism([]vec{{x0, y0 - 12, 0}, {x0, y0 + 0.5, 0}, {x0, y0 + 0.5, top}, {x0, y0 - 12, t.Floor + 2}}, vec{2, 0, 0}),
		solid.Prism([]vec{{x1 - 2, y0 - 12, 0}, {x1 - 2, y0 + 0.5, 0}, {x1 - 2, y0 + 0.5, top}, {x1 - 2, y0 - 12, t.Floor + 2}}, vec{2, 0, 0}),
	)
	cuts := []solid.Solid{solid.Box(vec{m.X - m.Width/2, y0 - 1, m.Z - m.Height/2}, vec{m.X + m.Width/2, t.Depth + 1, top + 1})}
	for _, x := range pegs(p) {
		cuts = append(cuts,
			part.Bore(vec{x, y0 - 1, m.Z}, vec{0, t.Wall + 2, 0}, vec{0, 0, 1}, m.Hole/2))
	}
	return wall.Cut(cuts...)
}

func pegs(p structural.Parameters) [2]float64 {
	return [2]float64{p.Mate.X - p.Mate.PegSpacing/2, p.Mate.X + p.Mate.PegSpacing/2}
}

func postXY(p structural.Parameters) []vec {
	var v []vec
	for _, y := range postY {
		v = append(v, vec{p.Tray.PostInset, y, 0}, vec{p.Tray.Width - p.Tray.PostInset, y, 0})
	}
	return v
}

func postTop(p structural.Parameters) float64 { return p.Tray.Floor + p.Tray.SSDHeight + p.Tray.Gap }

func posts(p structural.Parameters) solid.Solid {
	var s []solid.Solid
	for _, v := range postXY(p) {
		s = append(s, solid.Cylinder(v, vec{0, 0, postTop(p)}, 4))
	}
	return solid.Union(s...)
}

func postHoles(p structural.Parameters) solid.Solid {
	var s []solid.Solid
	for _, v := range postXY(p) {
		s = append(s, solid.Cylinder(v.Add(vec{0, 0, postTop(p) - p.Printer.Depth}), vec{0, 0, p.Printer.Depth + 1}, p.Printer.Insert/2))
	}
	return solid.Group(s...)
}

// DriveHoles are the holes in the underside of a 2.5-inch drive (SFF-8201, A50
// to A53: 61.72 mm apart, 76.6 mm apart, the rear pair 14 mm from the connector
// end), in tray coordinates.
func DriveHoles(p structural.Parameters) []solid.Vec {
	t := p.Tray
	rear := t.SSDFront + t.SSDLength - 14
	var v []vec
	for _, y := range []float64{rear - 76.6, rear} {
		v = append(v, vec{t.Width/2 - 30.86, y, 0}, vec{t.Width/2 + 30.86, y, 0})
	}
	return v
}

func drive(p structural.Parameters) solid.Solid {
	var s []solid.Solid
	for _, v := range DriveHoles(p) {
		s = append(s, solid.Union(
			solid.Cylinder(v.Add(vec{0, 0, -1}), vec{0, 0, p.Tray.Floor + 2}, p.Printer.Screw/2),
			solid.Cone(v.Add(vec{0, 0, -0.01}), vec{0, 0, 1.8}, 3.2, p.Printer.Screw/2)))
	}
	return solid.Group(s...)
}

// vents let the drive and the air behind it breathe, and save plastic.
func vents(p structural.Parameters) solid.Solid {
	t := p.Tray
	cx, cy := t.Width/2, t.Depth/2-4
	return solid.Group(part.Honeycomb(5, 2.2, -1, t.Floor+2, 60, func(x, y float64) bool {
		if x < -30 || x > 30 || y < -44 || y > 44 {
			return false
		}
		for _, h := range DriveHoles(p) {
			if dx, dy := h[0]-cx-x, h[1]-cy-y; dx*dx+dy*dy < 100 {
				return false
			}
		}
		return true
	})...).At(vec{cx, cy, 0})
}

// ties are slots for cable ties along the path from the drive to the ports.
func ties(p structural.Parameters) solid.Solid {
	t := p.Tray
	var s []solid.Solid
	for _, x := range []float64{60, 76} {
		for _, dx := range []float64{0, 6} {
			s = append(s, solid.Box(vec{x + dx, t.Depth - 10, -1}, vec{x + dx + 1.8, t.Depth - 5, t.Floor + 1}))
		}
	}
	return solid.Group(s...)
}

// latchSlot frees the arm of the latch from the floor.
func latchSlot(p structural.Parameters) solid.Solid {
	t := p.Tray
	x := t.Width - t.ArmWidth - t.ArmGap
	return solid.Union(
		solid.Box(vec{x, -1, -1}, vec{x + t.ArmGap, t.ArmLength, t.Floor + 1}),
		solid.Cylinder(vec{x + t.ArmGap/2, t.ArmLength, -1}, vec{0, 0, t.Floor + 2}, t.ArmGap/2))
}

// grip is what two fingers squeeze and pull: a pad at the end of the arm and a
// fixed one beside it.
func grip(p structural.Parameters) solid.Solid {
	t := p.Tray
	fixed := t.Width - t.Margin - 12
	return solid.Union(
		solid.Box(vec{t.Width - t.ArmWidth, -t.Grip, 0}, vec{t.Width, 1, t.Floor}),
		solid.Box(vec{t.Width - t.ArmWidth, -t.Grip, 0}, vec{t.Width, -2, 13}),
		solid.Box(vec{fixed, -t.Grip, 0}, vec{fixed + 3, 0.5, 13}),
		solid.Box(vec{fixed - 6, -3, 0}, vec{fixed + 3, 0.5, t.Floor}),
	)
}

// tooth locks against the front face of its pocket; its rear is a ramp by which
// the case pushes the arm aside when the tray goes in.
func tooth(p structural.Parameters, l Latch) solid.Solid {
	t := p.Tray
	x, reach := t.Width-0.5, t.Tooth+0.5
	if l == Squeezed {
		reach = 0.4
	}
	return solid.Prism([]vec{{x, t.ToothY, 0}, {x + reach, t.ToothY, 0}, {x + reach, t.ToothY + 1.5, 0}, {x, t.ToothY + t.ToothLength + 1.5, 0}}, vec{0, 0, t.Floor})
}

// Package part says what a printed part is: its shape where it stands in the
// rack, and how it lies on the printer's bed.
package part

import (
	"math"

	"github.com/racklet/racklet/structural/solid"
)

// A Part is printed once or several times.
type Part struct {
	Number string // as on the drawings, "T1"
	Name   string // file name without ending
	Title  string
	// Shape in the coordinates of package structural, at its first place.
	Shape solid.Solid
	// Outline covers Shape with fewer faces; empty: Shape has few.
	Outline solid.Solid
	// Down is the direction that points at the bed when it is printed.
	Down solid.Vec
	// Places are where its copies stand.
	Places []Place
}

// A Place is where one copy of a part is, and how far it is drawn away from
// there in an exploded view.
type Place struct {
	Shift solid.Vec
	// Mirror names the axes along which the copy is turned over, around the
	// middle given by Center. Two of them are a rotation by half a turn; one
	// alone is allowed only for a part that is its own mirror image.
	Mirror  [3]bool
	Center  solid.Vec
	Explode solid.Vec
}

// Move takes a point of Shape to where it is in this copy.
func (p Place) Move(v solid.Vec) solid.Vec {
	for k := range v {
		if p.Mirror[k] {
			v[k] = 2*p.Center[k] - v[k]
		}
	}
	return v.Add(p.Shift)
}

// Honeycomb returns hexagonal holes with corners on circles of radius r, walls
// w apart, around the origin of the XY plane, those for which keep says so. They
// reach from z to z+h.
func Honeycomb(r, w, z, h float64, reach float64, keep func(x, y float64) bool) []solid.Solid {
	dx := math.Sqrt(3)*r + w
	dy := dx * math.Sqrt(3) / 2
	var holes []solid.Solid
	n := int(reach/dy) + 1
	for j := -n; j <= n; j++ {
		for i := -n; i <= n; i++ {
			x, y := dx*(float64(i)+0.5*float64(j&1)), dy*float64(j)
			if keep(x, y) {
				holes = append(holes, solid.Polygon(solid.Vec{x, y, z}, 6, r, h, 30))
			}
		}
	}
	return holes
}

// Bore is a round hole that lies on its side when its part is printed: its roof
// rises to a point, which needs no support. It begins at the point at and
// reaches as far as axis; up, a unit vector square to it, points away from the
// bed.
func Bore(at, axis, up solid.Vec, r float64) solid.Solid {
	l := math.Sqrt(axis[0]*axis[0] + axis[1]*axis[1] + axis[2]*axis[2])
	d := axis.Scale(1 / l)
	side := solid.Vec{d[1]*up[2] - d[2]*up[1], d[2]*up[0] - d[0]*up[2], d[0]*up[1] - d[1]*up[0]}
	// The tangents at 45 degrees meet above the hole, in a flat narrower than a
	// strand of plastic.
	k, flat := r/math.Sqrt2, 0.1
	corner := func(s, u float64) solid.Vec { return at.Add(side.Scale(s)).Add(up.Scale(u)) }
	top := r*math.Sqrt2 - flat
	return solid.Union(
		solid.Cylinder(at, axis, r),
		solid.Prism([]solid.Vec{corner(0, 0), corner(k, k), corner(flat, top), corner(-flat, top), corner(-k, k)}, axis))
}

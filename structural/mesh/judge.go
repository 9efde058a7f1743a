package mesh

import (
	"math"

	"github.com/racklet/racklet/structural/solid"
)

// Overhang is a region of the surface that a printer would lay into the air.
type Overhang struct {
	At    solid.Vec // its middle
	Span  float64   // its shorter side, in millimetres
	Area  float64   // in square millimetres
	Level bool      // it is flat, so that strands can bridge it
}

// Overhangs finds the faces of a part on the bed (Lay) that lean over by more
// than 50 degrees, joined to regions. The bed carries what is within 0.3 mm.
func (m *Mesh) Overhangs() []Overhang {
	type corner [3]int32
	owner := map[corner]int{}
	parent := []int{}
	var find func(i int) int
	find = func(i int) int {
		for parent[i] != i {
			parent[i] = parent[parent[i]]
			i = parent[i]
		}
		return i
	}
	var faces []int
	for i, t := range m.Triangles {
		n := normal(t)
		if n[2] > -math.Sin(51*math.Pi/180) || max(t[0][2], t[1][2], t[2][2]) < 0.3 {
			continue
		}
		id := len(faces)
		faces = append(faces, i)
		parent = append(parent, id)
		for _, v := range t {
			c := corner{int32(math.Round(v[0] * 1000)), int32(math.Round(v[1] * 1000)), int32(math.Round(v[2] * 1000))}
			if o, ok := owner[c]; ok {
				parent[find(id)] = find(o)
			} else {
				owner[c] = id
			}
		}
	}
	regions := map[int]*Mesh{}
	var order []int
	for id, f := range faces {
		r := find(id)
		if regions[r] == nil {
			regions[r] = &Mesh{}
			order = append(order, r)
		}
		regions[r].Triangles = append(regions[r].Triangles, m.Triangles[f])
	}
	var out []Overhang
	for _, r := range order {
		lo, hi := regions[r].Bounds()
		o := Overhang{At: lo.Add(hi).Scale(0.5), Span: min(hi[0]-lo[0], hi[1]-lo[1]), Level: hi[2]-lo[2] < 0.2}
		for _, t := range regions[r].Triangles {
			c := cross(sub(t[1], t[0]), sub(t[2], t[0]))
			o.Area += math.Sqrt(dot(c, c)) / 2
		}
		out = append(out, o)
	}
	return out
}

// The widest gap that strands bridge without sagging, and the widest that a
// slope or the roof of a round hole may span.
const (
	maxBridge = 12.0
	maxRoof   = 7.0
)

// Unprintable are the overhangs that need supports.
func (m *Mesh) Unprintable() []Overhang {
	var bad []Overhang
	for _, o := range m.Overhangs() {
		if o.Area > 1 && (o.Level && o.Span > maxBridge || !o.Level && o.Span > maxRoof) {
			bad = append(bad, o)
		}
	}
	return bad
}

// Thinnest looks for the thinnest wall: from up to samples places on the surface
// it measures straight through to the face opposite, where that is parallel
// within 20 degrees. It returns the thickness and where.
func (m *Mesh) Thinnest(samples int) (float64, solid.Vec) {
	thin, where := math.Inf(1), solid.Vec{}
	step := max(1, len(m.Triangles)/max(1, samples))
	g := newGrid(m)
	for i := 0; i < len(m.Triangles); i += step {
		t := m.Triangles[i]
		n := normal(t)
		c := t[0].Add(t[1]).Add(t[2]).Scale(1.0 / 3)
		side := cross(sub(t[1], t[0]), sub(t[2], t[0]))
		if math.Sqrt(dot(side, side)) < 0.1 {
			continue // too small to have walls of its own
		}
		if d, ok := g.through(c, n.Scale(-1), thin); ok && d < thin {
			thin, where = d, c
		}
	}
	return thin, where
}

// grid sorts triangles into cubes, to find those near a line.
type grid struct {
	m    *Mesh
	cell float64
	at   map[[3]int32][]int32
}

func newGrid(m *Mesh) *grid {
	g := &grid{m, 6, map[[3]int32][]int32{}}
	for i, t := range m.Triangles {
		lo, hi := (&Mesh{[][3]solid.Vec{t}}).Bounds()
		a, b := g.key(lo), g.key(hi)
		for x := a[0]; x <= b[0]; x++ {
			for y := a[1]; y <= b[1]; y++ {
				for z := a[2]; z <= b[2]; z++ {
					k := [3]int32{x, y, z}
					g.at[k] = append(g.at[k], int32(i))
				}
			}
		}
	}
	return g
}

func (g *grid) key(v solid.Vec) [3]int32 {
	return [3]int32{int32(math.Floor(v[0] / g.cell)), int32(math.Floor(v[1] / g.cell)), int32(math.Floor(v[2] / g.cell))}
}

// through follows a line into the body, no farther than limit, to where it
// leaves it, and tells the distance if the face there is parallel to the first.
func (g *grid) through(from, dir solid.Vec, limit float64) (float64, bool) {
	limit = min(limit, 20)
	best, parallel := math.Inf(1), false
	seen := map[[3]int32]bool{}
	for s := 0.0; s <= limit+1; s += 1 {
		k := g.key(from.Add(dir.Scale(s)))
		if seen[k] {
			continue
		}
		seen[k] = true
		for _, i := range g.at[k] {
			t := g.m.Triangles[i]
			n := normal(t)
			if dot(n, dir) <= 0.05 {
				continue
			}
			if d, ok := hit(from, dir, t); ok && d > 0.02 && d < best {
				best, parallel = d, dot(n, dir) > 0.94
			}
		}
		if best < s {
			break
		}
	}
	return best, parallel && best < limit
}

// hit is where a line meets a triangle (Möller and Trumbore's method).
func hit(from, dir solid.Vec, t [3]solid.Vec) (float64, bool) {
	e1, e2 := sub(t[1], t[0]), sub(t[2], t[0])
	p := cross(dir, e2)
	det := dot(e1, p)
	if math.Abs(det) < 1e-12 {
		return 0, false
	}
	s := sub(from, t[0])
	u := dot(s, p) / det
	if u < 0 || u > 1 {
		return 0, false
	}
	q := cross(s, e1)
	v := dot(dir, q) / det
	if v < 0 || u+v > 1 {
		return 0, false
	}
	return dot(e2, q) / det, true
}

// A Field is a mesh in which the triangles near a place are found quickly.
type Field struct{ g *grid }

// NewField prepares a mesh for Crosses.
func NewField(m *Mesh) *Field { return &Field{newGrid(m)} }

// Crosses reports whether the surface of m, moved by shift, goes through that of
// the field, and where. Bodies that merely lie within one another do not cross.
func (f *Field) Crosses(m *Mesh, shift solid.Vec) (solid.Vec, bool) {
	for _, t := range m.Triangles {
		for k := range t {
			t[k] = t[k].Add(shift)
		}
		lo, hi := t[0], t[0]
		for _, v := range t[1:] {
			for k := range v {
				lo[k], hi[k] = min(lo[k], v[k]), max(hi[k], v[k])
			}
		}
		a, b := f.g.key(lo), f.g.key(hi)
		for x := a[0]; x <= b[0]; x++ {
			for y := a[1]; y <= b[1]; y++ {
				for z := a[2]; z <= b[2]; z++ {
					for _, i := range f.g.at[[3]int32{x, y, z}] {
						if at, ok := meet(t, f.g.m.Triangles[i]); ok {
							return at, true
						}
					}
				}
			}
		}
	}
	return solid.Vec{}, false
}

// meet reports whether an edge of one triangle goes through the other.
func meet(a, b [3]solid.Vec) (solid.Vec, bool) {
	for _, p := range [2][2][3]solid.Vec{{a, b}, {b, a}} {
		for k := range 3 {
			from, dir := p[0][k], sub(p[0][(k+1)%3], p[0][k])
			if s, ok := hit(from, dir, p[1]); ok && s > 1e-9 && s < 1-1e-9 {
				return from.Add(dir.Scale(s)), true
			}
		}
	}
	return solid.Vec{}, false
}

// Package mesh reads the triangles that a part is printed from, measures them,
// turns them to the bed, writes them for slicers and draws them.
package mesh

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"

	"github.com/racklet/racklet/structural/solid"
)

// A Mesh is the surface of a body: triangles whose corners are counted
// counter-clockwise seen from outside, in millimetres.
type Mesh struct{ Triangles [][3]solid.Vec }

// maxTriangles bounds what is read, about 100 MB.
const maxTriangles = 2_000_000

// Read reads a binary STL file.
func Read(file string) (*Mesh, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read mesh: %w", err)
	}
	m, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("read mesh %s: %w", file, err)
	}
	return m, nil
}

// Parse decodes a binary STL file: 80 bytes of header, the number of facets,
// and 50 bytes for each: normal, three corners, two unused bytes.
func Parse(b []byte) (*Mesh, error) {
	if len(b) < 84 {
		return nil, fmt.Errorf("%d bytes are too few for a binary STL file", len(b))
	}
	n := int(binary.LittleEndian.Uint32(b[80:]))
	if n > maxTriangles || len(b) != 84+50*n {
		return nil, fmt.Errorf("%d facets do not go with %d bytes", n, len(b))
	}
	m := &Mesh{make([][3]solid.Vec, n)}
	for i := range m.Triangles {
		for c := range 3 {
			for k := range 3 {
				f := float64(math.Float32frombits(binary.LittleEndian.Uint32(b[84+50*i+12+12*c+4*k:])))
				if math.IsNaN(f) || math.Abs(f) > 1e4 {
					return nil, fmt.Errorf("facet %d has a corner at %g", i, f)
				}
				m.Triangles[i][c][k] = f
			}
		}
	}
	return m, nil
}

// Orient makes all triangles of each closed shell face outwards, whatever way
// they were written, and reports an edge that does not join exactly two
// triangles.
func (m *Mesh) Orient() error {
	type corner [3]int64
	type edge [2]corner
	key := func(v solid.Vec) corner {
		return corner{int64(math.Round(v[0] * 1e4)), int64(math.Round(v[1] * 1e4)), int64(math.Round(v[2] * 1e4))}
	}
	sides := map[edge][]int{}
	canon := func(a, b corner) (edge, bool) {
		for k := range a {
			if a[k] != b[k] {
				return edge{a, b}, a[k] < b[k]
			}
		}
		return edge{a, b}, true
	}
	at := func(i, k int) (edge, bool) {
		e, forward := canon(key(m.Triangles[i][k]), key(m.Triangles[i][(k+1)%3]))
		if !forward {
			e[0], e[1] = e[1], e[0]
		}
		return e, forward
	}
	for i := range m.Triangles {
		for k := range 3 {
			e, _ := at(i, k)
			sides[e] = append(sides[e], i)
		}
	}
	for e, s := range sides {
		if len(s) != 2 {
			return fmt.Errorf("the edge at %v joins %d triangles", e[0], len(s))
		}
	}
	done := make([]bool, len(m.Triangles))
	for start := range m.Triangles {
		if done[start] {
			continue
		}
		shell, queue := []int{}, []int{start}
		done[start] = true
		for len(queue) > 0 {
			i := queue[0]
			queue = queue[1:]
			shell = append(shell, i)
			for k := range 3 {
				e, forward := at(i, k)
				for _, j := range sides[e] {
					if done[j] {
						continue
					}
					done[j] = true
					for l := range 3 {
						if f, fw := at(j, l); f == e && fw == forward {
							t := m.Triangles[j]
							m.Triangles[j] = [3]solid.Vec{t[0], t[2], t[1]}
							break
						}
					}
					queue = append(queue, j)
				}
			}
		}
		var volume float64
		for _, i := range shell {
			t := m.Triangles[i]
			volume += dot(t[0], cross(t[1], t[2]))
		}
		if volume < 0 {
			for _, i := range shell {
				t := m.Triangles[i]
				m.Triangles[i] = [3]solid.Vec{t[0], t[2], t[1]}
			}
		}
	}
	return nil
}

// STL encodes the mesh as a binary STL file.
func (m *Mesh) STL() []byte {
	var b bytes.Buffer
	b.Write(make([]byte, 80))
	binary.Write(&b, binary.LittleEndian, uint32(len(m.Triangles)))
	for _, t := range m.Triangles {
		for _, v := range append([]solid.Vec{normal(t)}, t[:]...) {
			for _, f := range v {
				binary.Write(&b, binary.LittleEndian, float32(f))
			}
		}
		b.Write([]byte{0, 0})
	}
	return b.Bytes()
}

// Map returns the mesh with f applied to each corner. A mapping that reflects
// turns the surface inside out again by itself.
func (m *Mesh) Map(f func(solid.Vec) solid.Vec) *Mesh {
	o := f(solid.Vec{})
	x, y, z := sub(f(solid.Vec{1, 0, 0}), o), sub(f(solid.Vec{0, 1, 0}), o), sub(f(solid.Vec{0, 0, 1}), o)
	mirrored := dot(cross(x, y), z) < 0
	out := &Mesh{make([][3]solid.Vec, len(m.Triangles))}
	for i, t := range m.Triangles {
		a, b, c := f(t[0]), f(t[1]), f(t[2])
		if mirrored {
			b, c = c, b
		}
		out.Triangles[i] = [3]solid.Vec{a, b, c}
	}
	return out
}

// Move returns the mesh shifted by d.
func (m *Mesh) Move(d solid.Vec) *Mesh {
	return m.Map(func(v solid.Vec) solid.Vec { return v.Add(d) })
}

// Lay returns the mesh as it lies on a printer's bed: the direction down points
// at the bed, the lowest point is at Z = 0, the middle at X = Y = 0. Down is
// along one of the axes.
func (m *Mesh) Lay(down solid.Vec) *Mesh {
	turned := m.Map(func(v solid.Vec) solid.Vec {
		switch {
		case down[2] < 0:
			return v
		case down[2] > 0:
			return solid.Vec{v[0], -v[1], -v[2]}
		case down[1] > 0:
			return solid.Vec{v[0], v[2], -v[1]}
		case down[1] < 0:
			return solid.Vec{v[0], -v[2], v[1]}
		case down[0] > 0:
			return solid.Vec{v[2], v[1], -v[0]}
		default:
			return solid.Vec{-v[2], v[1], v[0]}
		}
	})
	lo, hi := turned.Bounds()
	return turned.Move(solid.Vec{-(lo[0] + hi[0]) / 2, -(lo[1] + hi[1]) / 2, -lo[2]})
}

// Bounds returns the corners of the box around the mesh.
func (m *Mesh) Bounds() (lo, hi solid.Vec) {
	lo = solid.Vec{math.Inf(1), math.Inf(1), math.Inf(1)}
	hi = lo.Scale(-1)
	for _, t := range m.Triangles {
		for _, v := range t {
			for k := range v {
				lo[k], hi[k] = min(lo[k], v[k]), max(hi[k], v[k])
			}
		}
	}
	return lo, hi
}

// Volume returns the volume in cubic millimetres and the centre of mass of a
// closed mesh.
func (m *Mesh) Volume() (float64, solid.Vec) {
	var vol float64
	var c solid.Vec
	for _, t := range m.Triangles {
		v := dot(t[0], cross(t[1], t[2])) / 6
		vol += v
		c = c.Add(t[0].Add(t[1]).Add(t[2]).Scale(v / 4))
	}
	if vol == 0 {
		return 0, c
	}
	return vol, c.Scale(1 / vol)
}

// Join puts several meshes into one.
func Join(parts ...*Mesh) *Mesh {
	out := &Mesh{}
	for _, p := range parts {
		out.Triangles = append(out.Triangles, p.Triangles...)
	}
	return out
}

func sub(a, b solid.Vec) solid.Vec { return a.Add(b.Scale(-1)) }
func dot(a, b solid.Vec) float64   { return a[0]*b[0] + a[1]*b[1] + a[2]*b[2] }
func cross(a, b solid.Vec) solid.Vec {
	return solid.Vec{a[1]*b[2] - a[2]*b[1], a[2]*b[0] - a[0]*b[2], a[0]*b[1] - a[1]*b[0]}
}

func unit(v solid.Vec) solid.Vec {
	l := math.Sqrt(dot(v, v))
	if l == 0 {
		return v
	}
	return v.Scale(1 / l)
}

func normal(t [3]solid.Vec) solid.Vec { return unit(cross(sub(t[1], t[0]), sub(t[2], t[0]))) }

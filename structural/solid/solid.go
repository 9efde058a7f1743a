// Package solid describes parts as constructive solid geometry and has them
// built by the OpenCASCADE kernel inside gmsh: exact STEP for other CAD
// programs, a triangle mesh for the slicer, and the number of solids that is
// left of an intersection, which is how clearances are checked.
//
// A Solid is a tree of primitives, transformations and Boolean operations. It
// holds no geometry of its own: String gives the gmsh script it stands for, and
// Build runs that script. All lengths are millimetres, all angles degrees.
package solid

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A Vec is a point or a direction: X, Y, Z in millimetres.
type Vec [3]float64

// Add returns v + w.
func (v Vec) Add(w Vec) Vec { return Vec{v[0] + w[0], v[1] + w[1], v[2] + w[2]} }

// Scale returns v times k.
func (v Vec) Scale(k float64) Vec { return Vec{v[0] * k, v[1] * k, v[2] * k} }

// Solid is a body, or several that are not joined. The zero Solid is empty.
type Solid struct{ n *node }

type node struct {
	// emit writes the statements that make the body and returns a gmsh list
	// expression of its volumes, such as "v3()".
	emit func(s *script) string
	// shared: made once where it is used several times in one script.
	shared bool
}

// Shared returns s, to be made once and copied wherever it occurs in the cases
// of one Count. It pays for bodies of many faces; a part that is built keeps
// none of its copies, so it must not contain one.
func (s Solid) Shared() Solid {
	if s.Empty() {
		return s
	}
	return Solid{&node{s.n.emit, true}}
}

func body(emit func(s *script) string) Solid { return Solid{&node{emit: emit}} }

// Empty reports whether there is nothing of it.
func (s Solid) Empty() bool { return s.n == nil }

// Box is the box between two opposite corners, in any order.
func Box(a, b Vec) Solid {
	lo := Vec{min(a[0], b[0]), min(a[1], b[1]), min(a[2], b[2])}
	hi := Vec{max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2])}
	return body(func(s *script) string {
		v := s.name("v")
		s.line("%s=newv; Box(%s)={%s, %s};", v, v, lo, hi.Add(lo.Scale(-1)))
		return s.list(v)
	})
}

// Cylinder is a round bar of radius r that begins at the point at and reaches
// as far as axis.
func Cylinder(at, axis Vec, r float64) Solid {
	return body(func(s *script) string {
		v := s.name("v")
		s.line("%s=newv; Cylinder(%s)={%s, %s, %s};", v, v, at, axis, num(r))
		return s.list(v)
	})
}

// Cone is a truncated cone from radius r1 at the point at to radius r2 at the
// end of axis.
func Cone(at, axis Vec, r1, r2 float64) Solid {
	return body(func(s *script) string {
		v := s.name("v")
		s.line("%s=newv; Cone(%s)={%s, %s, %s, %s};", v, v, at, axis, num(r1), num(r2))
		return s.list(v)
	})
}

// Prism sweeps the polygon along dir. The corners lie in one plane and are
// given in order, the first not repeated.
func Prism(corners []Vec, dir Vec) Solid {
	c := append([]Vec(nil), corners...)
	return body(func(s *script) string {
		points := make([]string, len(c))
		for i, p := range c {
			points[i] = s.name("p")
			s.line("%s=newp; Point(%s)={%s};", points[i], points[i], p)
		}
		lines := make([]string, len(c))
		for i := range c {
			lines[i] = s.name("l")
			s.line("%s=newl; Line(%s)={%s,%s};", lines[i], lines[i], points[i], points[(i+1)%len(c)])
		}
		face := s.name("s")
		loop := s.name("w")
		s.line("%s=newll; Curve Loop(%s)={%s};", loop, loop, strings.Join(lines, ","))
		s.line("%s=news; Plane Surface(%s)={%s};", face, face, loop)
		e, v := s.name("e"), s.name("v")
		s.line("%s()=Extrude{%s}{Surface{%s};}; %s()={%s(1)};", e, dir, face, v, e)
		return v + "()"
	})
}

// Polygon is a regular prism with n corners on a circle of radius r around the
// axis that begins at the point at and stands in direction of z, h high.
func Polygon(at Vec, n int, r, h, turn float64) Solid {
	corners := make([]Vec, n)
	for i := range corners {
		a := (turn + 360*float64(i)/float64(n)) * math.Pi / 180
		corners[i] = at.Add(Vec{r * math.Cos(a), r * math.Sin(a), 0})
	}
	return Prism(corners, Vec{0, 0, h})
}

// Union joins bodies.
func Union(parts ...Solid) Solid {
	parts = present(parts)
	if len(parts) < 2 {
		return first(parts)
	}
	return body(func(s *script) string {
		return s.boolean("BooleanUnion", parts[0], parts[1:])
	})
}

// Group puts bodies side by side without joining them. They must not overlap.
func Group(parts ...Solid) Solid {
	parts = present(parts)
	if len(parts) < 2 {
		return first(parts)
	}
	return body(func(s *script) string {
		var all []string
		for _, p := range parts {
			all = append(all, s.emit(p))
		}
		v := s.name("v")
		s.line("%s()={%s};", v, strings.Join(all, ","))
		return v + "()"
	})
}

// Cut takes tools away from s.
func (s Solid) Cut(tools ...Solid) Solid {
	tools = present(tools)
	if s.Empty() || len(tools) == 0 {
		return s
	}
	return body(func(sc *script) string {
		return sc.boolean("BooleanDifference", s, tools)
	})
}

// Join adds bodies to s.
func (s Solid) Join(parts ...Solid) Solid { return Union(append([]Solid{s}, parts...)...) }

// And is what s and t have in common.
func (s Solid) And(t Solid) Solid {
	if s.Empty() || t.Empty() {
		return Solid{}
	}
	return body(func(sc *script) string {
		return sc.boolean("BooleanIntersection", s, []Solid{t})
	})
}

// At moves s by d.
func (s Solid) At(d Vec) Solid {
	if s.Empty() || d == (Vec{}) {
		return s
	}
	return body(func(sc *script) string {
		v := sc.emit(s)
		sc.line("Translate{%s}{Volume{%s};}", d, v)
		return v
	})
}

// Turn rotates s by an angle around the axis through the origin.
func (s Solid) Turn(axis Vec, degrees float64) Solid {
	if s.Empty() || degrees == 0 {
		return s
	}
	return body(func(sc *script) string {
		v := sc.emit(s)
		sc.line("Rotate{{%s},{0,0,0},%s}{Volume{%s};}", axis, num(degrees*math.Pi/180), v)
		return v
	})
}

// Mirror reflects s in the plane through the origin that is square to axis,
// which is a unit vector.
func (s Solid) Mirror(axis Vec) Solid {
	if s.Empty() {
		return s
	}
	return body(func(sc *script) string {
		v := sc.emit(s)
		sc.line("Symmetry{%s,0}{Volume{%s};}", axis, v)
		return v
	})
}

func present(parts []Solid) []Solid {
	var p []Solid
	for _, s := range parts {
		if !s.Empty() {
			p = append(p, s)
		}
	}
	return p
}

func first(parts []Solid) Solid {
	if len(parts) == 0 {
		return Solid{}
	}
	return parts[0]
}

// script is a gmsh script while it is written.
type script struct {
	b strings.Builder
	n int
	// made holds what shared solids were made as; each use gets a copy.
	made map[*node]string
}

// emit writes what makes s.
func (s *script) emit(a Solid) string {
	if !a.n.shared {
		return a.n.emit(s)
	}
	master, ok := s.made[a.n]
	if !ok {
		master = a.n.emit(s)
		s.made[a.n] = master
	}
	v := s.name("v")
	s.line("%s()=Duplicata{Volume{%s};};", v, master)
	return v + "()"
}

func (s *script) line(format string, args ...any) {
	for i, a := range args {
		if v, ok := a.(Vec); ok {
			args[i] = num(v[0]) + "," + num(v[1]) + "," + num(v[2])
		}
	}
	fmt.Fprintf(&s.b, format+"\n", args...)
}

// name returns a variable that has not been used. Tags are left to gmsh
// (newv, newp, …): the kernel hands out new ones at each Boolean operation.
func (s *script) name(kind string) string {
	s.n++
	return kind + strconv.Itoa(s.n)
}

func (s *script) list(v string) string {
	l := s.name("v")
	s.line("%s()={%s};", l, v)
	return l + "()"
}

func (s *script) boolean(op string, a Solid, b []Solid) string {
	left := s.emit(a)
	var right []string
	for _, t := range b {
		right = append(right, s.emit(t))
	}
	v := s.name("v")
	s.line("%s()=%s{Volume{%s};Delete;}{Volume{%s};Delete;};", v, op, left, strings.Join(right, ","))
	return v + "()"
}

// num writes a length with a resolution of a nanometre, so that rounding
// differences between machines cannot show in a generated file.
func num(f float64) string {
	s := strconv.FormatFloat(f, 'f', 6, 64)
	s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	if s == "-0" || s == "" {
		return "0"
	}
	return s
}

// String is the gmsh script that makes the solid.
func (s Solid) String() string {
	sc := newScript()
	if !s.Empty() {
		sc.line("parts()={%s};", sc.emit(s))
	}
	return sc.b.String()
}

func newScript() *script {
	sc := &script{made: map[*node]string{}}
	sc.line(`SetFactory("OpenCASCADE");`)
	return sc
}

package mesh

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"sort"

	"github.com/racklet/racklet/structural/solid"
)

// A Body is a mesh with the colour that it is drawn in.
type Body struct {
	*Mesh
	Color color.RGBA
}

// A View is a parallel projection: the camera looks at the middle of what is
// drawn from a direction given by two angles in degrees. Azimuth 0 is the front
// and turns to the right, elevation 90 is from above.
type View struct {
	Azimuth, Elevation float64
	Width, Height      int // of the picture in pixels
	Background         color.RGBA
}

type camera struct {
	right, up, toward solid.Vec
	scale             float64
	cx, cy            float64
	w, h              int
}

func (v View) camera(bodies []Body, w, h int) camera {
	a, e := v.Azimuth*math.Pi/180, v.Elevation*math.Pi/180
	c := camera{
		toward: solid.Vec{math.Sin(a) * math.Cos(e), -math.Cos(a) * math.Cos(e), math.Sin(e)},
		right:  solid.Vec{math.Cos(a), math.Sin(a), 0},
		w:      w, h: h,
	}
	c.up = cross(c.toward, c.right)
	x0, y0, x1, y1 := math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)
	for _, b := range bodies {
		for _, t := range b.Triangles {
			for _, p := range t {
				x, y := dot(p, c.right), dot(p, c.up)
				x0, y0, x1, y1 = min(x0, x), min(y0, y), max(x1, x), max(y1, y)
			}
		}
	}
	c.scale = 0.94 * min(float64(w)/(x1-x0), float64(h)/(y1-y0))
	c.cx, c.cy = (x0+x1)/2, (y0+y1)/2
	return c
}

func (c camera) project(p solid.Vec) (x, y, depth float64) {
	return float64(c.w)/2 + (dot(p, c.right)-c.cx)*c.scale, float64(c.h)/2 - (dot(p, c.up)-c.cy)*c.scale, dot(p, c.toward)
}

// buffer is a depth buffer with the body and the direction of what is nearest.
type buffer struct {
	w, h   int
	depth  []float64
	body   []int16
	normal []solid.Vec
}

func rasterize(c camera, bodies []Body) *buffer {
	b := &buffer{c.w, c.h, make([]float64, c.w*c.h), make([]int16, c.w*c.h), make([]solid.Vec, c.w*c.h)}
	for i := range b.depth {
		b.depth[i], b.body[i] = math.Inf(-1), -1
	}
	for n, body := range bodies {
		for _, t := range body.Triangles {
			nm := normal(t)
			if dot(nm, c.toward) <= 0 {
				continue
			}
			var x, y, z [3]float64
			for k := range t {
				x[k], y[k], z[k] = c.project(t[k])
			}
			area := (x[1]-x[0])*(y[2]-y[0]) - (x[2]-x[0])*(y[1]-y[0])
			if area == 0 {
				continue
			}
			for py := max(0, int(min(y[0], y[1], y[2]))); py <= min(c.h-1, int(max(y[0], y[1], y[2]))+1); py++ {
				for px := max(0, int(min(x[0], x[1], x[2]))); px <= min(c.w-1, int(max(x[0], x[1], x[2]))+1); px++ {
					fx, fy := float64(px)+0.5, float64(py)+0.5
					u := ((x[1]-fx)*(y[2]-fy) - (x[2]-fx)*(y[1]-fy)) / area
					v := ((x[2]-fx)*(y[0]-fy) - (x[0]-fx)*(y[2]-fy)) / area
					w := 1 - u - v
					if u < -1e-9 || v < -1e-9 || w < -1e-9 {
						continue
					}
					if d := u*z[0] + v*z[1] + w*z[2]; d > b.depth[py*c.w+px] {
						b.depth[py*c.w+px], b.body[py*c.w+px], b.normal[py*c.w+px] = d, int16(n), nm
					}
				}
			}
		}
	}
	return b
}

// PNG draws the bodies with shaded faces and dark edges.
func (v View) PNG(bodies []Body) ([]byte, error) {
	const over = 3 // samples each way per pixel
	c := v.camera(bodies, v.Width*over, v.Height*over)
	b := rasterize(c, bodies)
	light := unit(c.toward.Add(c.up.Scale(0.9)).Add(c.right.Scale(-0.5)))
	shade := func(i int) (float64, float64, float64) {
		bg := v.Background
		if b.body[i] < 0 {
			return float64(bg.R), float64(bg.G), float64(bg.B)
		}
		k := 0.42 + 0.58*max(0, dot(b.normal[i], light))
		col := bodies[b.body[i]].Color
		return k * float64(col.R), k * float64(col.G), k * float64(col.B)
	}
	edge := func(i, j int) bool {
		if b.body[i] != b.body[j] {
			return true
		}
		if b.body[i] < 0 {
			return false
		}
		// A step in depth that the slope of the face does not explain, or a fold.
		return math.Abs(b.depth[i]-b.depth[j]) > 1.2/max(0.1, dot(b.normal[i], c.toward))*over/c.scale+0.4 || dot(b.normal[i], b.normal[j]) < 0.8
	}
	img := image.NewRGBA(image.Rect(0, 0, v.Width, v.Height))
	for y := range v.Height {
		for x := range v.Width {
			var r, g, bl float64
			for sy := range over {
				for sx := range over {
					px, py := x*over+sx, y*over+sy
					i := py*c.w + px
					cr, cg, cb := shade(i)
					if px+1 < c.w && edge(i, i+1) || py+1 < c.h && edge(i, i+c.w) {
						cr, cg, cb = cr*0.3, cg*0.3, cb*0.3
					}
					r, g, bl = r+cr, g+cg, bl+cb
				}
			}
			n := float64(over * over)
			img.SetRGBA(x, y, color.RGBA{uint8(r / n), uint8(g / n), uint8(bl / n), 255})
		}
	}
	var out bytes.Buffer
	err := png.Encode(&out, img)
	return out.Bytes(), err
}

// SVG draws the visible edges of the bodies as lines: those where two faces
// meet at more than 25 degrees, and outlines. Label, if given, is written beside
// each body.
func (v View) SVG(bodies []Body, label func(body int) string) []byte {
	c := v.camera(bodies, v.Width, v.Height)
	const over = 2
	fine := v.camera(bodies, v.Width*over, v.Height*over)
	b := rasterize(fine, bodies)
	visible := func(p solid.Vec, body int) bool {
		x, y, d := fine.project(p)
		seen := false
		for dy := -1; dy <= 1; dy++ {
			for dx := -1; dx <= 1; dx++ {
				px, py := int(x)+dx, int(y)+dy
				if px < 0 || py < 0 || px >= b.w || py >= b.h {
					continue
				}
				if i := py*b.w + px; b.depth[i] <= d+0.6 {
					seen = true
				}
			}
		}
		return seen
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" fill="none" stroke="#1d2733" stroke-width="0.7" stroke-linecap="round">`+"\n", v.Width, v.Height)
	for n, body := range bodies {
		var path bytes.Buffer
		for _, e := range body.edges(c.toward) {
			length := math.Hypot(dot(sub(e[1], e[0]), c.right), dot(sub(e[1], e[0]), c.up)) * c.scale
			steps := max(1, int(length/1.5))
			from := -1
			for s := 0; s <= steps; s++ {
				at := e[0].Add(sub(e[1], e[0]).Scale(float64(s) / float64(steps)))
				see := visible(at, n)
				if see && from < 0 {
					from = s
				}
				if from >= 0 && (!see || s == steps) {
					end := s
					if !see {
						end--
					}
					if end > from {
						p := e[0].Add(sub(e[1], e[0]).Scale(float64(from) / float64(steps)))
						q := e[0].Add(sub(e[1], e[0]).Scale(float64(end) / float64(steps)))
						x0, y0, _ := c.project(p)
						x1, y1, _ := c.project(q)
						fmt.Fprintf(&path, "M%.1f %.1fL%.1f %.1f", x0, y0, x1, y1)
					}
					from = -1
				}
			}
		}
		fmt.Fprintf(&out, `<path d="%s"/>`+"\n", path.String())
		if label != nil && label(n) != "" {
			lo, hi := body.Bounds()
			x, y, _ := c.project(lo.Add(hi).Scale(0.5))
			fmt.Fprintf(&out, `<text x="%.0f" y="%.0f" fill="#0b5fa5" stroke="none" font-family="sans-serif" font-size="13">%s</text>`+"\n", x, y, label(n))
		}
	}
	out.WriteString("</svg>\n")
	return out.Bytes()
}

// edges are the lines of a body that a draughtsman would draw from there, in a
// fixed order.
func (m *Mesh) edges(toward solid.Vec) [][2]solid.Vec {
	type key [6]int32
	round := func(v solid.Vec) [3]int32 {
		return [3]int32{int32(math.Round(v[0] * 1000)), int32(math.Round(v[1] * 1000)), int32(math.Round(v[2] * 1000))}
	}
	type side struct {
		normals []solid.Vec
		line    [2]solid.Vec
	}
	all := map[key]*side{}
	var order []key
	for _, t := range m.Triangles {
		nm := normal(t)
		for k := range 3 {
			a, b := t[k], t[(k+1)%3]
			ra, rb := round(a), round(b)
			if less(rb, ra) {
				a, b, ra, rb = b, a, rb, ra
			}
			id := key{ra[0], ra[1], ra[2], rb[0], rb[1], rb[2]}
			s := all[id]
			if s == nil {
				s = &side{line: [2]solid.Vec{a, b}}
				all[id] = s
				order = append(order, id)
			}
			s.normals = append(s.normals, nm)
		}
	}
	sort.Slice(order, func(i, j int) bool {
		for k := range order[i] {
			if order[i][k] != order[j][k] {
				return order[i][k] < order[j][k]
			}
		}
		return false
	})
	var out [][2]solid.Vec
	for _, id := range order {
		s := all[id]
		if len(s.normals) != 2 {
			out = append(out, s.line)
			continue
		}
		a, b := dot(s.normals[0], toward), dot(s.normals[1], toward)
		fold := dot(s.normals[0], s.normals[1]) < 0.906 // 25 degrees
		outline := (a > 0) != (b > 0)
		if (fold || outline) && (a > 0 || b > 0) {
			out = append(out, s.line)
		}
	}
	return out
}

func less(a, b [3]int32) bool {
	for k := range a {
		if a[k] != b[k] {
			return a[k] < b[k]
		}
	}
	return false
}

package mesh

import (
	"bytes"
	"image/color"
	"image/png"
	"math"
	"strings"
	"testing"

	"github.com/racklet/racklet/structural/solid"
)

type vec = solid.Vec

func TestBox(t *testing.T) {
	b := Box(vec{1, 2, 3}, vec{3, 5, 7})
	v, c := b.Volume()
	if math.Abs(v-24) > 1e-9 || c != (vec{2, 3.5, 5}) {
		t.Errorf("volume %g around %v", v, c)
	}
	for _, down := range []vec{{0, 0, -1}, {0, 0, 1}, {0, 1, 0}, {0, -1, 0}, {1, 0, 0}, {-1, 0, 0}} {
		l := b.Lay(down)
		lo, _ := l.Bounds()
		if v, _ := l.Volume(); math.Abs(v-24) > 1e-9 || lo[2] != 0 {
			t.Errorf("laid on %v: volume %g, lowest point %g", down, v, lo[2])
		}
	}
	// What pointed down lies on the bed: a small plate stands out of one face.
	marked := Join(b, Box(vec{1.5, 1.9, 4}, vec{2.5, 2, 5}))
	if l := marked.Lay(vec{0, -1, 0}); l.Triangles[len(l.Triangles)-1][0][2] > 0.2 {
		t.Error("the marked face is not below")
	}
	if v, _ := b.Map(func(p vec) vec { return vec{-p[0], p[1], p[2]} }).Volume(); math.Abs(v-24) > 1e-9 {
		t.Errorf("mirrored: volume %g", v)
	}
}

func TestOrient(t *testing.T) {
	b := Box(vec{}, vec{2, 2, 2})
	for _, i := range []int{0, 3, 4, 9} {
		t := b.Triangles[i]
		b.Triangles[i] = [3]vec{t[0], t[2], t[1]}
	}
	if err := b.Orient(); err != nil {
		t.Fatal(err)
	}
	if v, _ := b.Volume(); math.Abs(v-8) > 1e-9 {
		t.Errorf("volume %g", v)
	}
	b.Triangles = b.Triangles[1:]
	if err := b.Orient(); err == nil {
		t.Error("a hole in the surface was not seen")
	}
}

func TestSTL(t *testing.T) {
	b := Box(vec{}, vec{1, 2, 3})
	again, err := Parse(b.STL())
	if err != nil {
		t.Fatal(err)
	}
	if len(again.Triangles) != 12 || again.Triangles[5] != b.Triangles[5] {
		t.Error("read back differs")
	}
	good := b.STL()
	nan := append([]byte(nil), good...)
	copy(nan[96:], []byte{0, 0, 0xC0, 0x7F})
	for what, b := range map[string][]byte{"short": good[:83], "cut": good[:len(good)-1], "count": append(append(append([]byte(nil), good[:80]...), 255, 255, 255, 255), good[84:]...), "not a number": nan} {
		if _, err := Parse(b); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Box(vec{}, vec{1, 2, 3}).STL())
	f.Add([]byte("solid x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := Parse(b); err == nil {
			m.Volume()
			m.Lay(vec{0, 0, 1})
		}
	})
}

// TestUnprintable lays bridges of both kinds, and slopes, before the judge.
func TestUnprintable(t *testing.T) {
	table := func(span float64) *Mesh { // a plate on two legs
		return Join(Box(vec{0, 0, 0}, vec{5, 40, 10}), Box(vec{5 + span, 0, 0}, vec{10 + span, 40, 10}), Box(vec{5, 0, 8}, vec{5 + span, 40, 10}))
	}
	if bad := table(10).Unprintable(); len(bad) != 0 {
		t.Errorf("a bridge of 10 mm: %v", bad)
	}
	if bad := table(20).Unprintable(); len(bad) != 1 || bad[0].Span != 20 {
		t.Errorf("a bridge of 20 mm: %v", bad)
	}
	slope := func(run float64) *Mesh { // a wedge whose lower face leans out
		m := Box(vec{0, 0, 0}, vec{20, 20, 10})
		return m.Map(func(v vec) vec {
			if v[2] > 5 {
				v[0] += run
			}
			return v
		})
	}
	if bad := slope(10).Unprintable(); len(bad) != 0 {
		t.Errorf("a slope of 45 degrees: %v", bad)
	}
	if bad := slope(20).Unprintable(); len(bad) != 1 {
		t.Errorf("a slope of 63 degrees: %v", bad)
	}
}

func TestThinnest(t *testing.T) {
	if d, _ := Box(vec{}, vec{30, 30, 2.4}).Thinnest(100); math.Abs(d-2.4) > 1e-6 {
		t.Errorf("plate of 2.4 mm: %g", d)
	}
	thin := Join(Box(vec{}, vec{30, 30, 2.4}), Box(vec{40, 0, 0}, vec{40.3, 30, 20}))
	if d, at := thin.Thinnest(100); math.Abs(d-0.3) > 1e-6 || at[0] < 39 {
		t.Errorf("wall of 0.3 mm: %g at %v", d, at)
	}
}

func TestCrosses(t *testing.T) {
	wall := NewField(Box(vec{10, -50, -50}, vec{12, 50, 50}))
	block := Box(vec{}, vec{9.7, 8, 8})
	if _, ok := wall.Crosses(block, vec{0.29, 0, 0}); ok {
		t.Error("0.01 mm of air are a crossing")
	}
	if at, ok := wall.Crosses(block, vec{0.31, 0, 0}); !ok || math.Abs(at[0]-10) > 0.5 {
		t.Errorf("0.01 mm into the wall: %v at %v", ok, at)
	}
}

func TestThreeMF(t *testing.T) {
	a, err := Box(vec{}, vec{1, 2, 3}).ThreeMF("A <box>")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := Box(vec{}, vec{1, 2, 3}).ThreeMF("A <box>")
	if !bytes.Equal(a, b) || len(a) < 500 {
		t.Error("two runs differ")
	}
}

func TestDraw(t *testing.T) {
	bodies := []Body{{Box(vec{}, vec{10, 10, 10}), color.RGBA{200, 30, 30, 255}}, {Box(vec{2, -5, 2}, vec{8, -4, 8}), color.RGBA{30, 30, 200, 255}}}
	v := View{Azimuth: 0, Elevation: 0, Width: 60, Height: 60, Background: color.RGBA{255, 255, 255, 255}}
	b, err := v.PNG(bodies)
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	dominant := func(x, y int) string {
		r, g, b, _ := img.At(x, y).RGBA()
		switch {
		case r > 2*b:
			return "red"
		case b > 2*r:
			return "blue"
		case r == g && g == b:
			return "white"
		}
		return "?"
	}
	// The small body is in front of the big one.
	if got := []string{dominant(30, 30), dominant(8, 30), dominant(0, 0)}; strings.Join(got, " ") != "blue red white" {
		t.Errorf("middle, side, corner: %v", got)
	}
	svg := string(v.SVG(bodies, func(i int) string { return "P" }))
	if strings.Count(svg, "<path") != 2 || strings.Count(svg, ">P<") != 2 {
		t.Errorf("drawing:\n%s", svg)
	}
	// Lines that the small body hides are not drawn: only its own and the outline.
	if n := strings.Count(svg, "M"); n < 8 || n > 40 {
		t.Errorf("%d lines", n)
	}
}

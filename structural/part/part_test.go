package part

import (
	"math"
	"testing"

	"github.com/racklet/racklet/structural/solid"
)

func TestMove(t *testing.T) {
	p := Place{Shift: solid.Vec{0, 0, 5}, Mirror: [3]bool{true, false, true}, Center: solid.Vec{50, 9, 100}}
	if got := p.Move(solid.Vec{10, 20, 30}); got != (solid.Vec{90, 20, 175}) {
		t.Errorf("moved to %v", got)
	}
}

// TestHoneycomb has walls of the width asked for between all holes: a hexagon is
// as wide as its corners' circle times the root of three.
func TestHoneycomb(t *testing.T) {
	const r, w = 4.0, 1.6
	var at [][2]float64
	holes := Honeycomb(r, w, 0, 3, 40, func(x, y float64) bool {
		at = append(at, [2]float64{x, y})
		return x*x+y*y < 900
	})
	if len(holes) < 40 || len(holes) >= len(at) {
		t.Fatalf("%d holes of %d places", len(holes), len(at))
	}
	closest := math.Inf(1)
	for i, a := range at {
		for _, b := range at[i+1:] {
			closest = min(closest, math.Hypot(a[0]-b[0], a[1]-b[1]))
		}
	}
	if want := r*math.Sqrt(3) + w; math.Abs(closest-want) > 1e-9 {
		t.Errorf("holes %g apart, want %g", closest, want)
	}
}

package assembly

import (
	"github.com/racklet/racklet/structural"
	"github.com/racklet/racklet/structural/rackcase"
)

// A Fastener is a kind of screw or insert that a rack needs.
type Fastener struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
	For   string `json:"for"`
}

// Fasteners lists all of them, a short list on purpose.
func Fasteners(p structural.Parameters) []Fastener {
	plate := rackcase.PlateScrews(p)
	rear, frame, backplane, splice, fans := 0, 0, 0, 0, 0
	for _, m := range p.Modules() {
		rear += rackcase.RearScrews(p, m)
		frame += 2 * len(rackcase.FrameScrewZ(p, m))
		backplane += 4
		splice += 2 * rackcase.SpliceScrews(p, m)
		fans += p.Fans(m)
	}
	carrier := 4 * p.Slots
	list := []Fastener{
		{"M2.5 × 6, thread forming", len(p.Unit.Holes) * p.Slots, "computer board on its carrier"},
		{"M3 × 5, flat head", 4 * p.Slots, "drive on its tray"},
		{"M3 × 8, pan head", carrier + backplane + splice, "carrier on its tray, backplane on its frame, splice"},
		{"M3 × 10, flat head", plate - 4 + rear, "base and top plate, handle, bezel, switch mount, rear wall"},
		{"M3 × 12, pan head", 4 + frame, "feet, backplane frame"},
		{"M3 heat-set insert, 4.0 mm hole, ≤ 6 mm long", carrier + plate + rear + frame + splice, "all of these but drive, board and backplane"},
		{"fan screw 5 × 10", 4 * fans, "fans; they come with them"},
	}
	return list
}

package tray

import (
	"github.com/racklet/racklet/rack/hardware"
	"github.com/racklet/racklet/structural"
	"github.com/racklet/racklet/structural/solid"
)

// OnTray turns a place on the computer board into tray coordinates, at the
// height of the board's underside. The board lies with its long side along the
// tray, its front edge forward.
func OnTray(p structural.Parameters, at hardware.Point) solid.Vec {
	t, u := p.Tray, p.Unit
	if u.Front == "right" {
		return vec{t.BoardLeft + at.Y, t.BoardY + u.Length - at.X, p.BoardZ()}
	}
	return vec{t.BoardLeft + u.Width - at.Y, t.BoardY + at.X, p.BoardZ()}
}

// Carrier is the plate between the posts of a tray and the computer board. Its
// bars run across from post to post and along through the board's holes.
func Carrier(p structural.Parameters) solid.Solid {
	t := p.Tray
	z := postTop(p)
	bar := func(x0, y0, x1, y1 float64) solid.Solid { return solid.Box(vec{x0, y0, z}, vec{x1, y1, z + t.Carrier}) }
	var add, cut []solid.Solid
	for _, y := range postY {
		add = append(add, bar(t.PostInset-4, y-5, t.Width-t.PostInset+4, y+5))
	}
	for _, v := range postXY(p) {
		cut = append(cut, solid.Cylinder(v.Add(vec{0, 0, z - 1}), vec{0, 0, t.Carrier + 2}, p.Printer.Screw/2))
	}
	for _, h := range p.Unit.Holes {
		v := OnTray(p, h)
		y0, y1 := min(postY[0]-5, v[1]-4), max(postY[1]+5, v[1]+4)
		add = append(add,
			bar(v[0]-4, y0, v[0]+4, y1),
			solid.Cylinder(vec{v[0], v[1], z}, vec{0, 0, t.Carrier + t.Boss}, p.Unit.Hole/2+1.6))
		// 2.1 mm: an M2.5 screw forms its own thread.
		cut = append(cut, solid.Cylinder(vec{v[0], v[1], z - 1}, vec{0, 0, t.Carrier + t.Boss + 2}, 1.05))
	}
	return solid.Union(add...).Cut(cut...)
}

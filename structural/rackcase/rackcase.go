// Package rackcase makes the case of a rack: side panels with a groove for
// each tray, base and top plate, the frame that carries the backplane and its
// guide pegs, the rear wall with its fans, a bezel and a mount for the network
// switch, handle, feet, and the ears by which the case, laid on its side, hangs
// in a 10-inch mini-rack.
//
// A rack of more than five slots is two modules high: panels, frame and rear
// wall are made once per module, all other parts are the same ones.
package rackcase

import (
	"github.com/racklet/racklet/rack/hardware"
	"github.com/racklet/racklet/structural"
	"github.com/racklet/racklet/structural/part"
	"github.com/racklet/racklet/structural/solid"
)

type vec = solid.Vec

// Side of the rack, seen from the front.
type Side int

const (
	Left Side = iota
	Right
)

// bossY are the places along the rack where base and top plate are screwed to
// the panels.
func bossY(p structural.Parameters) []float64 {
	return []float64{9, 124, p.RearY() - 8}
}

// frameZ and rearZ are the heights of the screws that hold the backplane frame
// and the rear wall.
func frameZ(p structural.Parameters, m structural.Module) []float64 {
	return []float64{p.SlotZ(m.First) + 24, p.SlotZ(m.Last) + 20}
}

func rearZ(p structural.Parameters, m structural.Module) []float64 {
	return []float64{m.From + 18, (m.From + m.To) / 2, m.To - 18}
}

// Panel is a side wall of a module.
func Panel(p structural.Parameters, m structural.Module, side Side) solid.Solid {
	c, t, pr := p.Case, p.Tray, p.Printer
	in, out := p.InnerLeft(), p.InnerLeft()-c.Panel
	add := []solid.Solid{solid.Box(vec{out, 0, m.From}, vec{in, p.RearY(), m.To})}
	var cut []solid.Solid
	for slot := m.First; slot <= m.Last; slot++ {
		z := p.SlotZ(slot)
		low, high := z-pr.Clearance, z+t.Floor+pr.Clearance
		// The groove widens towards the front, so that a tray finds it.
		add = append(add,
			solid.Prism([]vec{{in - 0.5, 0, low - c.RibHeight}, {in - 0.5, 0, low - 1}, {in - 0.5, 8, low}, {in - 0.5, t.Depth, low}, {in - 0.5, t.Depth, low - c.RibHeight}}, vec{c.Rib + 0.5, 0, 0}),
			solid.Prism([]vec{{in - 0.5, 0, high + c.RibHeight}, {in - 0.5, t.Depth, high + c.RibHeight}, {in - 0.5, t.Depth, high}, {in - 0.5, 8, high}, {in - 0.5, 0, high + 1}}, vec{c.Rib + 0.5, 0, 0}))
		if side == Right {
			y := t.ToothY - pr.Clearance
			cut = append(cut, solid.Box(vec{in + 1, y, low}, vec{in - t.Tooth - 0.2, y + t.ToothLength + 3, high}))
		}
	}
	// Blocks for the screws of base and top plate.
	block := func(x1, y0, z0, y1, z1 float64) { add = append(add, solid.Box(vec{out, y0, z0}, vec{x1, y1, z1})) }
	hole := func(at, dir vec) { cut = append(cut, part.Bore(at, dir, vec{1, 0, 0}, pr.Insert/2)) }
	deep := pr.Depth
	for _, y := range bossY(p) {
		x := bossX(p)
		if m.First == 1 {
			block(out+c.Boss, y-4.5, m.From, y+4.5, m.From+11)
			hole(vec{x, y, m.From - 1}, vec{0, 0, deep + 1})
		}
		if m.Last == p.Slots {
			block(out+c.Boss, y-4.5, m.To-11, y+4.5, m.To)
			hole(vec{x, y, m.To + 1}, vec{0, 0, -deep - 1})
		}
	}
	// Blocks for the backplane frame, behind it, and for the rear wall.
	fy := p.FrameY() + c.Frame
	for _, z := range frameZ(p, m) {
		block(in+9.5, fy, z-5, fy+9, z+5)
		hole(vec{in + 4.8, fy - 1, z}, vec{0, deep + 1, 0})
	}
	for _, z := range rearZ(p, m) {
		block(in+9.5, p.RearY()-9, z-5, p.RearY(), z+5)
		hole(vec{in + 4.8, p.RearY() + 1, z}, vec{0, -deep - 1, 0})
	}
	// Blocks for the splice between two modules.
	for _, z := range spliceZ(p, m) {
		for _, y := range spliceY(p) {
			block(out+c.Boss, y-4.5, z-4.5, y+4.5, z+4.5)
			cut = append(cut, solid.Cylinder(vec{out - 1, y, z}, vec{deep + 1, 0, 0}, pr.Insert/2))
		}
	}
	s := solid.Union(add...).Cut(cut...)
	if side == Right {
		s = s.At(vec{-t.Width / 2, 0, 0}).Mirror(vec{1, 0, 0}).At(vec{t.Width / 2, 0, 0})
	}
	return s
}

// bossX is the middle of the blocks at the left panel.
func bossX(p structural.Parameters) float64 { return p.InnerLeft() - p.Case.Panel + p.Case.Boss/2 }

func spliceY(p structural.Parameters) []float64 { return []float64{20, 70, 120} }

// spliceZ are the heights of a panel's splice screws: between the grooves next
// to the joint.
func spliceZ(p structural.Parameters, m structural.Module) []float64 {
	var z []float64
	if m.First > 1 {
		z = append(z, m.From+20)
	}
	if m.Last < p.Slots {
		z = append(z, m.To-16)
	}
	return z
}

// corners are the places of the six screws of a plate.
func corners(p structural.Parameters) []vec {
	var v []vec
	for _, y := range bossY(p) {
		v = append(v, vec{bossX(p), y, 0}, vec{p.Tray.Width - bossX(p), y, 0})
	}
	return v
}

// sink is the hole of a screw with a flat head, from the outer face at z = 0
// upwards.
func sink(p structural.Parameters, at vec, thick float64) solid.Solid {
	return solid.Union(
		solid.Cylinder(at.Add(vec{0, 0, -1}), vec{0, 0, thick + 2}, p.Printer.Screw/2),
		solid.Cone(at.Add(vec{0, 0, -0.01}), vec{0, 0, 1.7}, 3.2, p.Printer.Screw/2))
}

// handleXY are the screws of the handle, the inner ones of a plate.
func handleXY(p structural.Parameters) []vec {
	mid, y := p.Tray.Width/2, p.Depth()/2
	var v []vec
	for _, x := range []float64{mid - 38, mid + 38} {
		v = append(v, vec{x, y - 6, 0}, vec{x, y + 6, 0})
	}
	return v
}

// mountXY are the screws of the switch mount and of the bezel in the base.
func mountXY(p structural.Parameters) []vec {
	return []vec{{p.Tray.Width/2 - 20, mountY, 0}, {p.Tray.Width/2 + 20, mountY, 0}, {20, bezelY, 0}, {p.Tray.Width - 20, bezelY, 0}}
}

const (
	mountY = 124
	bezelY = 7
)

// Plate is the base, and turned over the top. The same part serves for both, so
// it has the holes of both.
func Plate(p structural.Parameters) solid.Solid {
	in, out := p.InnerLeft()-p.Case.Panel, p.InnerRight()+p.Case.Panel
	var cut []solid.Solid
	for _, v := range append(append(corners(p), handleXY(p)...), mountXY(p)...) {
		cut = append(cut, sink(p, v, p.Case.Plate))
	}
	return chamferedPlate(vec{in, 0, 0}, vec{out, p.Depth(), p.Case.Plate}).Cut(cut...)
}

// chamferedPlate has its upright edges broken, which is kinder to hands.
func chamferedPlate(a, b vec) solid.Solid {
	const c = 3
	return solid.Prism([]vec{{a[0] + c, a[1], a[2]}, {b[0] - c, a[1], a[2]}, {b[0], a[1] + c, a[2]}, {b[0], b[1] - c, a[2]}, {b[0] - c, b[1], a[2]}, {a[0] + c, b[1], a[2]}, {a[0], b[1] - c, a[2]}, {a[0], a[1] + c, a[2]}}, vec{0, 0, b[2] - a[2]})
}

// Rear is the rear wall of a module, with its fans behind finger-safe
// honeycomb. The lowest one has the power inlet and the uplink socket.
func Rear(p structural.Parameters, m structural.Module) solid.Solid {
	c := p.Case
	y := p.RearY()
	var cut []solid.Solid
	for i := range p.Fans(m) {
		r := c.FanOpening/2 - 3.5
		comb := part.Honeycomb(4, 1.6, 0, c.Rear+2, c.FanOpening/2, func(x, y float64) bool { return x*x+y*y < r*r })
		for _, h := range comb {
			cut = append(cut, h.Turn(vec{1, 0, 0}, 90).At(vec{p.Tray.Width / 2, y + c.Rear + 1, p.FanZ(m, i)}))
		}
	}
	return RearOutline(p, m).Cut(cut...)
}

// RearOutline is the rear wall with its grilles closed: it covers all that Rear
// takes up and has few faces.
func RearOutline(p structural.Parameters, m structural.Module) solid.Solid {
	c := p.Case
	in, out := p.InnerLeft()-c.Panel, p.InnerRight()+c.Panel
	y := p.RearY()
	from, to := m.From, m.To
	if m.First == 1 {
		from += p.Printer.Fit
	}
	if m.Last == p.Slots {
		to -= p.Printer.Fit
	}
	s := solid.Box(vec{in, y, from}, vec{out, y + c.Rear, to})
	var cut []solid.Solid
	round := func(x, z, r float64) {
		cut = append(cut, solid.Cylinder(vec{x, y - 1, z}, vec{0, c.Rear + 2, 0}, r))
	}
	for _, z := range rearZ(p, m) {
		round(p.InnerLeft()+4.8, z, p.Printer.Screw/2)
		round(p.InnerRight()-4.8, z, p.Printer.Screw/2)
	}
	for i := range p.Fans(m) {
		cx, cz := p.Tray.Width/2, p.FanZ(m, i)
		for _, dx := range []float64{-c.FanHoles / 2, c.FanHoles / 2} {
			round(cx+dx, cz-c.FanHoles/2, 2.25)
			round(cx+dx, cz+c.FanHoles/2, 2.25)
		}
	}
	if m.First == 1 {
		// USB-C for power with room for its plug's collar, and the uplink.
		z := p.Case.Plate + 12
		cut = append(cut,
			solid.Box(vec{18, y - 1, z - 4}, vec{31, y + c.Rear + 1, z + 4}),
			solid.Box(vec{66, y - 1, z - 7.5}, vec{83, y + c.Rear + 1, z + 7.5}))
	}
	return s.Cut(cut...)
}

// Frame carries the backplane of a module. Its guide pegs go through holes of
// the backplane into those of the trays, so one part places both.
func Frame(p structural.Parameters, m structural.Module) solid.Solid {
	c, mt, pr := p.Case, p.Mate, p.Printer
	x0, x1 := p.InnerLeft()+pr.Fit, p.InnerRight()-pr.Fit
	y := p.FrameY()
	z0, z1 := p.SlotZ(m.First)+1, p.SlotZ(m.Last)+34
	add := []solid.Solid{solid.Box(vec{x0, y, z0}, vec{x1, y + c.Frame, z1})}
	var cut []solid.Solid
	bx0, bx1 := mt.X-mt.BoardWidth/2, mt.X+mt.BoardWidth/2
	for slot := m.First; slot <= m.Last; slot++ {
		z := p.SlotZ(slot)
		// Air passes beside the backplane.
		lo, hi := max(z-3, z0+7), min(z+p.Pitch-9, z1-7)
		cut = append(cut, solid.Box(vec{bx1 + 7, y - 1, lo}, vec{x1 - 11, y + c.Frame + 1, hi}))
		for _, x := range []float64{mt.X - mt.PegSpacing/2, mt.X + mt.PegSpacing/2} {
			length := y - (p.Tray.Depth - p.Tray.Wall)
			add = append(add,
				solid.Cylinder(vec{x, y + 1, z + mt.Z}, vec{0, -length - 1, 0}, mt.Peg/2),
				solid.Cone(vec{x, y - length, z + mt.Z}, vec{0, -3, 0}, mt.Peg/2, mt.Tip/2))
		}
		// Room for the solder side of the backplane between its pegs.
		cut = append(cut, solid.Box(vec{mt.X - mt.PegSpacing/2 + 5, y - 1, max(z+3, z0+4)}, vec{mt.X + mt.PegSpacing/2 - 5, y + 2.5, min(z+31, z1-4)}))
	}
	for _, z := range frameZ(p, m) {
		for _, x := range []float64{p.InnerLeft() + 4.8, p.InnerRight() - 4.8} {
			cut = append(cut, solid.Cylinder(vec{x, y - 1, z}, vec{0, c.Frame + 2, 0}, pr.Screw/2))
		}
	}
	// The backplane's own screws form their thread.
	for _, z := range []float64{z0 + 4, z1 - 4} {
		for _, x := range []float64{bx0 + 5, bx1 - 5} {
			cut = append(cut, solid.Cylinder(vec{x, y - 1, z}, vec{0, c.Frame + 2, 0}, 1.3))
		}
	}
	return solid.Union(add...).Cut(cut...)
}

// Handle stands on the top plate, which is at height z.
func Handle(p structural.Parameters) solid.Solid {
	const w, depth = 92.0, 24.0
	z := p.Height()
	x := p.Tray.Width/2 - w/2
	y := p.Depth()/2 - depth/2
	outline := []vec{{0, 0, 0}, {16, 0, 0}, {16, 0, 4}, {25, 0, 24}, {w - 25, 0, 24}, {w - 16, 0, 4}, {w - 16, 0, 0}, {w, 0, 0}, {w, 0, 8}, {w - 13, 0, 37}, {13, 0, 37}, {0, 0, 8}}
	for i := range outline {
		outline[i] = outline[i].Add(vec{x, y, z})
	}
	var cut []solid.Solid
	for _, v := range handleXY(p) {
		cut = append(cut, part.Bore(vec{v[0], v[1], z - 1}, vec{0, 0, p.Printer.Depth + 1}, vec{0, -1, 0}, p.Printer.Insert/2))
	}
	return solid.Prism(outline, vec{0, depth, 0}).Cut(cut...)
}

// Foot stands under a corner of the base and is held by the plate's own screw.
func Foot(p structural.Parameters) solid.Solid {
	const side, high = 16.0, 6.0
	x, y := p.InnerLeft()-p.Case.Panel-1.9, bossY(p)[0]-6
	at := vec{bossX(p), bossY(p)[0], -high}
	return solid.Prism([]vec{{x + 1.5, y + 1.5, -high}, {x + side - 1.5, y + 1.5, -high}, {x + side - 1.5, y + side - 1.5, -high}, {x + 1.5, y + side - 1.5, -high}}, vec{0, 0, high}).
		Cut(solid.Cylinder(at.Add(vec{0, 0, -1}), vec{0, 0, high + 2}, p.Printer.Screw/2),
			solid.Cylinder(at.Add(vec{0, 0, -1}), vec{0, 0, 4.4}, 3.1))
}

// Bezel closes the front of the switch bay and leaves its sockets free.
func Bezel(p structural.Parameters) solid.Solid {
	x0, x1 := p.InnerLeft()+p.Printer.Fit, p.InnerRight()-p.Printer.Fit
	z0, z1 := p.Case.Plate, p.SlotZ(1)-p.Printer.Clearance-p.Case.RibHeight-p.Printer.Fit
	s := solid.Union(
		solid.Box(vec{x0, 0, z0}, vec{x1, 3, z1}),
		solid.Box(vec{14, 2, z0}, vec{26, bezelY + 5, z0 + 8.4}),
		solid.Box(vec{p.Tray.Width - 26, 2, z0}, vec{p.Tray.Width - 14, bezelY + 5, z0 + 8.4}))
	cut := []solid.Solid{solid.Box(vec{x0 + 6, -1, z0 + 9}, vec{x1 - 6, 4, z1 + 1})}
	for _, v := range mountXY(p)[2:] {
		cut = append(cut, part.Bore(v.Add(vec{0, 0, z0 - 1}), vec{0, 0, p.Printer.Depth + 1}, vec{0, 1, 0}, p.Printer.Insert/2))
	}
	return s.Cut(cut...)
}

// SwitchMount is the cradle of a network switch: stops in front and behind,
// slots for a hook-and-loop strap, two threads for screws through the base.
func SwitchMount(p structural.Parameters, s hardware.Switch) solid.Solid {
	const thick, stop = 1.6, 6.0
	mid, y0 := p.Tray.Width/2, switchY
	z := p.Case.Plate
	w := min(s.Width, 80) / 2
	y1 := y0 + s.Depth
	add := []solid.Solid{
		solid.Box(vec{mid - w, y0 - 3, z}, vec{mid + w, mountY + 6, z + thick}),
		solid.Box(vec{mid - w, y1 + 0.3, z}, vec{mid + w, y1 + 3.3, z + thick + stop}),
		solid.Box(vec{mid - w, y0 - 3, z}, vec{mid - w + 14, y0 - 0.3, z + thick + 3}),
		solid.Box(vec{mid + w - 14, y0 - 3, z}, vec{mid + w, y0 - 0.3, z + thick + 3}),
	}
	var cut []solid.Solid
	for _, v := range mountXY(p)[:2] {
		add = append(add, solid.Box(vec{v[0] - 5, mountY - 6, z}, vec{v[0] + 5, mountY + 6, z + 8.5}))
		cut = append(cut, solid.Cylinder(v.Add(vec{0, 0, z - 1}), vec{0, 0, p.Printer.Depth + 1}, p.Printer.Insert/2))
	}
	for _, x := range []float64{mid - w + 3, mid + w - 6} {
		cut = append(cut, solid.Box(vec{x, y0 + 20, z - 1}, vec{x + 3, y0 + 42, z + thick + 1}))
	}
	// A window saves plastic and lets the switch's underside breathe.
	cut = append(cut, solid.Box(vec{mid - w + 12, y0 + 10, z - 1}, vec{mid + w - 12, min(y1, mountY-8) - 10, z + thick + 1}))
	return solid.Union(add...).Cut(cut...)
}

// switchY is where the front face of the switch stands, behind the bezel.
const switchY = 15.5

// SwitchAt is the lower left front corner of a switch in the bay.
func SwitchAt(p structural.Parameters, s hardware.Switch) solid.Vec {
	return vec{p.Tray.Width/2 - s.Width/2, switchY, p.Case.Plate + 1.6}
}

// Splice joins the panels of two modules from outside.
func Splice(p structural.Parameters) solid.Solid {
	mods := p.Modules()
	if len(mods) < 2 {
		return solid.Solid{}
	}
	x1 := p.InnerLeft() - p.Case.Panel
	x0 := x1 - 3
	var cut []solid.Solid
	zs := append(spliceZ(p, mods[0]), spliceZ(p, mods[1])...)
	for _, z := range zs {
		for _, y := range spliceY(p) {
			cut = append(cut, solid.Cylinder(vec{x0 - 1, y, z}, vec{5, 0, 0}, p.Printer.Screw/2))
		}
	}
	lo, hi := zs[0]-7, zs[len(zs)-1]+7
	return solid.Box(vec{x0, 8, lo}, vec{x1, 132, hi}).Cut(cut...)
}

// Ear holds the case, laid on its side, in a 10-inch rack (EIA-310 hole pattern,
// holes 236.525 mm apart, three units high).
func Ear(p structural.Parameters) solid.Solid {
	const (
		units   = 3
		unit    = 44.45
		between = 236.525
		panel   = 254.0
	)
	mid := p.Height() / 2
	x0 := p.Tray.Width/2 - units*unit/2 + 0.4
	x1 := p.Tray.Width/2 + units*unit/2 - 0.4
	out := mid - panel/2 + 0.2
	leg := solid.Box(vec{x0, 0, -3}, vec{x1, 132, 0})
	flange := solid.Box(vec{x0, 0, out}, vec{x1, 4, 0})
	var add, cut []solid.Solid
	for _, x := range []float64{x0, p.Tray.Width/2 - 1.5, x1 - 3} {
		add = append(add, solid.Prism([]vec{{x, 3.5, -2.5}, {x, 26, -2.5}, {x, 3.5, out + 12}}, vec{3, 0, 0}))
	}
	for u := range units {
		for _, d := range []float64{6.35, 22.225, 38.1} {
			x := p.Tray.Width/2 - units*unit/2 + float64(u)*unit + d
			cut = append(cut, part.Bore(vec{x, -1, mid - between/2}, vec{0, 6, 0}, vec{0, 0, -1}, 3.2))
		}
	}
	for _, v := range corners(p)[:4] {
		cut = append(cut, sink(p, v.Add(vec{0, 0, -3}), 3))
	}
	// Windows leave a frame.
	cut = append(cut, solid.Box(vec{x0 + 36, 36, -4}, vec{x1 - 36, 112, 1}))
	return solid.Union(append(add, leg, flange)...).Cut(cut...)
}

// FeetCenter is the middle between the front and the rear feet: they share the
// outermost screws of the base.
func FeetCenter(p structural.Parameters) float64 {
	y := bossY(p)
	return (y[0] + y[len(y)-1]) / 2
}

// Footprint is how far from the front the feet begin and end.
func Footprint(p structural.Parameters) (front, rear float64) {
	y := bossY(p)
	return y[0] - 4.5, y[len(y)-1] + 4.5
}

// FrameScrewZ are the heights of the screws of a backplane frame.
func FrameScrewZ(p structural.Parameters, m structural.Module) []float64 { return frameZ(p, m) }

// PlateScrews is how many screws go through base and top plate together.
func PlateScrews(p structural.Parameters) int {
	return 2*len(corners(p)) + len(handleXY(p)) + len(mountXY(p))
}

// RearScrews and SpliceScrews are how many hold the rear wall of a module, and
// one of its panels to its neighbour.
func RearScrews(p structural.Parameters, m structural.Module) int { return 2 * len(rearZ(p, m)) }
func SpliceScrews(p structural.Parameters, m structural.Module) int {
	return len(spliceZ(p, m)) * len(spliceY(p))
}

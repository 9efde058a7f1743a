// Package structural holds the one set of parameters from which every printed
// part of a rack is derived: packages tray and rackcase make the shapes,
// package assembly puts them together and has real tools judge them.
//
// Coordinates are those of the rack as it stands on a table, in millimetres: X
// from left to right seen from the front, Y from the front to the rear, Z up.
// The origin is the left front corner of a tray's floor, at the underside of
// the base plate.
//
//	Z  top plate ───────────────┐
//	│ ┌───────────────────────┐ │   side panels with a groove for
//	│ │ slot n    tray        │ │   the floor of each tray
//	│ ├───────────────────────┤ │
//	│ │ …                     │ │   behind the trays: backplane
//	│ ├───────────────────────┤ │   frame, fans, rear wall
//	│ │ slot 1    tray        │ │
//	│ ├───────────────────────┤ │
//	│ │ bay       switch      │ │
//	└─┴───────────────────────┴─┴── X      base plate, feet
package structural

import (
	"errors"
	"fmt"
	"math"

	"github.com/racklet/racklet/rack/hardware"
)

// The most that the reference printer takes, in millimetres each way.
const Bed = 220

// The most slots of one panel: with more, the case is made of two modules.
const moduleSlots = 5

// Parameters of a rack. Reference gives values that fit together.
type Parameters struct {
	Slots int           // 3 to 10, management unit included
	Unit  hardware.Unit // what is in the trays

	Pitch float64 // from tray to tray
	Bay   float64 // height of the switch bay

	Tray    Tray
	Case    Case
	Mate    Mate
	Printer Printer
}

// Tray has the sizes of a compute tray.
type Tray struct {
	Width  float64 // of the floor, which runs in the grooves
	Depth  float64
	Floor  float64 // thickness
	Margin float64 // from the floor's edge to whatever stands on it
	Wall   float64 // thickness of front plate and rear wall
	Front  float64 // height of the front plate

	SSDWidth, SSDLength, SSDHeight float64 // 2.5-inch drive, SFF-8201
	SSDFront                       float64 // from the tray's front edge

	PostInset float64 // middle of the carrier's posts from the floor's edge
	Carrier   float64 // thickness of the carrier plate
	Gap       float64 // air between drive and carrier
	Boss      float64 // from the carrier to the board
	BoardLeft float64 // left edge of the computer board
	BoardY    float64 // front edge of the computer board

	ArmWidth, ArmLength, ArmGap float64 // the latch: a tongue cut out of the floor
	ToothY, Tooth, ToothLength  float64 // where it locks and how far it reaches out
	Grip                        float64 // how far the finger grip stands out at the front
}

// Case has the sizes of the rack case.
type Case struct {
	Panel      float64 // thickness of a side panel
	Rib        float64 // how far the ribs of a groove stand into the rack
	RibHeight  float64 // thickness of a rib
	Plate      float64 // thickness of base and top plate
	Rear       float64 // thickness of the rear wall
	Frame      float64 // thickness of the backplane frame
	Behind     float64 // room for the fans behind the backplane frame
	Boss       float64 // side of the blocks that hold threaded inserts
	FanSize    float64
	FanHoles   float64 // distance between a fan's holes
	FanOpening float64 // diameter
}

// Mate says where the blind-mate connector of a tray is.
type Mate struct {
	X, Z          float64 // middle of the connector over the tray's floor
	Width, Height float64 // of its body
	Stand         float64 // from the tray's rear edge to the face of the backplane when mated
	PegSpacing    float64 // between the two guide pegs
	Peg           float64 // diameter of a guide peg
	Hole          float64 // diameter of the hole that it enters
	Tip           float64 // diameter of a peg's blunt end
	BoardWidth    float64 // of the backplane
	BoardThick    float64
	Force         float64 // newtons to push one connector home
}

// Printer says what the parts are printed with.
type Printer struct {
	Clearance float64 // per side, between parts that slide
	Fit       float64 // per side, between parts that are screwed together
	Tolerance float64 // how far a printed face may be from where it should be
	Insert    float64 // hole for a heat-set M3 insert
	Depth     float64 // of that hole
	Screw     float64 // hole that an M3 screw passes
	Density   float64 // g/cm³
	Modulus   float64 // MPa of the printed material, across layers
	Euro      float64 // per kilogram
}

// Reference is the rack that the documentation describes: four compute units
// and a management unit of the given kind.
func Reference(u hardware.Unit) Parameters {
	return Parameters{
		Slots: 5, Unit: u, Pitch: 36, Bay: 30.5,
		Tray: Tray{
			Width: 102, Depth: 136, Floor: 2.4, Margin: 5.2, Wall: 3, Front: 34,
			SSDWidth: 69.85, SSDLength: 100.2, SSDHeight: 7, SSDFront: 14,
			PostInset: 10.2, Carrier: 2.4, Gap: 0.8, Boss: 2.8, BoardLeft: 34, BoardY: 4,
			ArmWidth: 3.2, ArmLength: 60, ArmGap: 1.8, ToothY: 14, Tooth: 1.3, ToothLength: 5, Grip: 12,
		},
		Case: Case{
			Panel: 3, Rib: 4, RibHeight: 2.4, Plate: 4, Rear: 3, Frame: 8, Behind: 27, Boss: 8.2,
			FanSize: 80, FanHoles: 71.5, FanOpening: 76,
		},
		Mate: Mate{
			X: 28, Z: 17, Width: 24, Height: 9, Stand: 8, PegSpacing: 34, Peg: 6, Hole: 6.5, Tip: 2.8,
			BoardWidth: 44, BoardThick: 1.6, Force: 30,
		},
		// PETG: density and price of ordinary spools; the modulus is a low value for
		// printed samples across layers.
		Printer: Printer{Clearance: 0.3, Fit: 0.15, Tolerance: 0.2, Insert: 4, Depth: 7, Screw: 3.4, Density: 1.27, Modulus: 1500, Euro: 22},
	}
}

// BoardZ is the underside of the computer board over the tray's underside.
func (p Parameters) BoardZ() float64 {
	t := p.Tray
	return t.Floor + t.SSDHeight + t.Gap + t.Carrier + t.Boss
}

// StackTop is the highest point of what a tray carries, a BMC board with parts
// of 4.5 mm on its header included.
func (p Parameters) StackTop() float64 {
	top := p.BoardZ() + p.Unit.Board
	high := 0.0
	for _, port := range p.Unit.Ports {
		high = math.Max(high, port.Height)
	}
	if p.Unit.StackHeight > 0 {
		high = math.Max(high, p.Unit.StackHeight+1.6+4.5)
	}
	return top + high
}

// InnerLeft and InnerRight are the inner faces of the side panels.
func (p Parameters) InnerLeft() float64  { return -p.Printer.Clearance }
func (p Parameters) InnerRight() float64 { return p.Tray.Width + p.Printer.Clearance }

// Width is the outer width of the case.
func (p Parameters) Width() float64 { return p.InnerRight() - p.InnerLeft() + 2*p.Case.Panel }

// SlotZ is the underside of the tray in a slot, counted from 1.
func (p Parameters) SlotZ(slot int) float64 {
	return p.Case.Plate + p.Bay + p.Case.RibHeight + p.Printer.Clearance + float64(slot-1)*p.Pitch
}

// Height is that of the case without feet and handle.
func (p Parameters) Height() float64 { return p.SlotZ(p.Slots+1) - p.Printer.Clearance + p.Case.Plate }

// BackplaneY is the front face of the backplane, FrameY that of the frame that
// holds it, RearY the inner face of the rear wall.
func (p Parameters) BackplaneY() float64 { return p.Tray.Depth + p.Mate.Stand }
func (p Parameters) FrameY() float64     { return p.BackplaneY() + p.Mate.BoardThick }
func (p Parameters) RearY() float64      { return p.FrameY() + p.Case.Frame + p.Case.Behind }

// Depth is that of the case without the grips.
func (p Parameters) Depth() float64 { return p.RearY() + p.Case.Rear }

// A Module is a part of the case's height that fits on a printer.
type Module struct {
	From, To    float64 // of the side panels
	First, Last int     // slots
}

// Modules are the parts of the case from bottom to top.
func (p Parameters) Modules() []Module {
	var m []Module
	z := p.Case.Plate
	n := (p.Slots + moduleSlots - 1) / moduleSlots
	each := (p.Slots + n - 1) / n
	for first := 1; first <= p.Slots; first += each {
		last := min(first+each-1, p.Slots)
		top := p.SlotZ(last+1) - p.Printer.Clearance - p.Case.RibHeight
		if last == p.Slots {
			top = p.Height() - p.Case.Plate
		}
		m = append(m, Module{z, top, first, last})
		z = top
	}
	return m
}

// Fans is how many fans the rear wall of a module holds.
func (p Parameters) Fans(m Module) int {
	return int((m.To - p.fansFrom(m)) / (p.Case.FanSize + 2))
}

// FanZ is the middle of a fan, counted from 0.
func (p Parameters) FanZ(m Module, i int) float64 {
	from, n := p.fansFrom(m), float64(p.Fans(m))
	return from + (m.To-from)*(float64(i)+0.5)/n
}

func (p Parameters) fansFrom(m Module) float64 {
	if m.First == 1 {
		return p.SlotZ(1)
	}
	return m.From
}

// Validate reports which sizes do not go together.
func (p Parameters) Validate() error {
	var errs []error
	need := func(ok bool, format string, a ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	need(p.Slots >= 3 && p.Slots <= 10, "slots: %d; 3 to 10 can be built", p.Slots)
	errs = append(errs, p.Unit.Validate())
	t, c := p.Tray, p.Case
	need(p.StackTop()+1 <= p.Pitch, "pitch: %g mm is too little for %s, whose stack is %.1f mm high", p.Pitch, p.Unit.Name, p.StackTop())
	need(t.Margin > c.Rib+p.Printer.Clearance, "tray margin: %g mm of floor at each side do not clear ribs of %g mm", t.Margin, c.Rib)
	need(t.BoardLeft+p.Unit.Width <= t.Width-t.Margin-t.Wall, "board: %s is %g mm wide and does not fit beside the connector", p.Unit.Name, p.Unit.Width)
	need(t.BoardY+p.Unit.Length+4 <= t.Depth-t.Wall, "tray depth: %g mm is too little for %s", t.Depth, p.Unit.Name)
	need(t.SSDFront+t.SSDLength+18 <= t.Depth, "tray depth: %g mm leave no room for the drive's plug", t.Depth)
	need(p.Depth() <= Bed && p.Width() <= Bed, "case: plates of %.0f × %.0f mm do not fit a bed of %d mm", p.Width(), p.Depth(), Bed)
	for _, m := range p.Modules() {
		need(m.To-m.From <= Bed, "case: a panel of %.0f mm does not fit a bed of %d mm", m.To-m.From, Bed)
		need(p.Fans(m) >= 1, "case: no fan of %g mm fits behind slots %d to %d", c.FanSize, m.First, m.Last)
	}
	need(t.Tooth < c.Panel, "latch: a tooth of %g mm goes through a panel of %g mm", t.Tooth, c.Panel)
	need(t.ArmGap >= t.Tooth+p.Printer.Clearance, "latch: the arm cannot give way by its tooth's %g mm", t.Tooth)
	return errors.Join(errs...)
}

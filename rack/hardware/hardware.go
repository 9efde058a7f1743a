// Package hardware describes the bought parts that a rack is built around: the
// single-board computers that can be compute units, and the network switches
// that fit its bay. Sizes are taken from the makers' drawings, in millimetres;
// each description names its source. The layers that are made of plastic and
// copper derive their own dimensions from these, so that another board is a
// new file here and nothing else.
package hardware

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// A Point is a place on a board: X along its long side, Y along its short
// side, in millimetres from the corner that the maker's drawing counts from.
type Point struct {
	X float64 `json:"x"`
	Y float64 `json:"y"`
}

// A Port is a connector at the edge of a board.
type Port struct {
	// Name as printed beside it, "USB", "Ethernet".
	Name string `json:"name"`
	// Edge it points to: "right" is the end at the largest X, "left" the
	// other end, "near" the side where Y is 0, "far" the opposite side.
	Edge string `json:"edge"`
	// Middle of the connector along the edge, in millimetres.
	Center float64 `json:"center"`
	// Width along the edge and height above the board's upper face; a
	// negative height is below the board (card slots).
	Width  float64 `json:"width"`
	Height float64 `json:"height"`
	// How far it reaches into the board and how far it stands out over the edge.
	Depth    float64 `json:"depth"`
	Overhang float64 `json:"overhang"`
	// Room that a plug and its cable's first bend need beyond the connector.
	Plug float64 `json:"plug"`
}

// A Unit is a single-board computer.
type Unit struct {
	Name     string  `json:"name"`
	Title    string  `json:"title"`
	Source   string  `json:"source"` // where the numbers are from
	Length   float64 `json:"length"`
	Width    float64 `json:"width"`
	Board    float64 `json:"board"` // thickness
	Under    float64 `json:"under"` // tallest part below the board
	Corner   float64 `json:"corner"`
	Hole     float64 `json:"hole"` // diameter of the mounting holes
	Holes    []Point `json:"holes"`
	Front    string  `json:"front"` // edge that shows at the front of the tray: "right" or "left"
	Ports    []Port  `json:"ports"`
	Grams    float64 `json:"grams"`
	MaxWatts float64 `json:"maxWatts"` // with a SATA SSD on USB, sustained
	// StackHeight is the distance from the board's upper face to the lower face
	// of a board plugged on its header, 0 where there is no such header.
	StackHeight float64 `json:"stackHeight"`
}

// A Switch is an off-the-shelf unmanaged layer-2 switch.
type Switch struct {
	Name   string  `json:"name"`
	Title  string  `json:"title"`
	Maker  string  `json:"maker"`
	Source string  `json:"source"`
	Width  float64 `json:"width"`
	Depth  float64 `json:"depth"`
	Height float64 `json:"height"`
	Grams  float64 `json:"grams"`
	Ports  int     `json:"ports"`
	// Speed of each port in Mbit/s.
	Speed int `json:"speed"`
	// Supply as printed on it.
	Volts   float64 `json:"volts"`
	Amperes float64 `json:"amperes"`
	// PortsFront says that the sockets are on the face without the power inlet.
	PortsFront bool `json:"portsFront"`
}

//go:embed units/*.json switches/*.json
var files embed.FS

// Units are the boards that are known, by name.
func Units() ([]Unit, error) { return load[Unit]("units") }

// Switches are the switches that are known, by name.
func Switches() ([]Switch, error) { return load[Switch]("switches") }

// LookUp returns the unit of that name.
func LookUp(name string) (Unit, error) {
	all, err := Units()
	if err != nil {
		return Unit{}, err
	}
	var names []string
	for _, u := range all {
		if u.Name == name {
			return u, nil
		}
		names = append(names, u.Name)
	}
	return Unit{}, fmt.Errorf("no compute unit is called %q: there are %s", name, strings.Join(names, ", "))
}

func load[T any](dir string) ([]T, error) {
	entries, err := fs.ReadDir(files, dir)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	var all []T
	for _, e := range entries {
		b, err := files.ReadFile(path.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		var v T
		if err := decode(b, &v); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		all = append(all, v)
	}
	return all, nil
}

func decode(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// ParseUnit reads the description of a board from a file of one's own.
func ParseUnit(b []byte) (Unit, error) {
	var u Unit
	if err := decode(b, &u); err != nil {
		return u, fmt.Errorf("parse compute unit: %w", err)
	}
	return u, u.Validate()
}

// Validate reports what is wrong with a description.
func (u Unit) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf("unit "+u.Name+": "+format, a...)) }
	if u.Name == "" {
		bad("has no name")
	}
	if u.Length < 40 || u.Length > 110 || u.Width < 30 || u.Width > 72 || u.Width > u.Length {
		bad("measures %g × %g mm; a tray takes 40 × 30 to 110 × 72, the long side first", u.Length, u.Width)
	}
	if len(u.Holes) < 3 {
		bad("has %d mounting holes; at least 3 hold it", len(u.Holes))
	}
	for _, h := range u.Holes {
		if h.X < u.Hole/2 || h.Y < u.Hole/2 || h.X > u.Length-u.Hole/2 || h.Y > u.Width-u.Hole/2 {
			bad("hole at %g, %g is not within the board", h.X, h.Y)
		}
	}
	if u.Front != "left" && u.Front != "right" {
		bad(`front is %q; it can be "left" or "right"`, u.Front)
	}
	for _, p := range u.Ports {
		along := u.Width
		if p.Edge == "near" || p.Edge == "far" {
			along = u.Length
		} else if p.Edge != "left" && p.Edge != "right" {
			bad(`port %s points to %q; it can be "left", "right", "near" or "far"`, p.Name, p.Edge)
			continue
		}
		if p.Center-p.Width/2 < -1 || p.Center+p.Width/2 > along+1 {
			bad("port %s reaches over its edge", p.Name)
		}
	}
	if u.MaxWatts <= 0 || u.Grams <= 0 {
		bad("needs maxWatts and grams")
	}
	return errors.Join(errs...)
}

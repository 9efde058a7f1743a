// Package manifest reads the objects of package rack from the YAML files of a
// rack repository:
//
//	rack/rack.yaml         the Rack
//	rack/units/*.yaml      ComputeUnits
//	rack/releases/*.yaml   Releases
//	rack/policies/*.yaml   ThermalPolicies and PowerPolicies
//
// Decoding is strict. An unknown or missing field, a second key of the same
// name, a value out of range, a slot used twice, a reference to nothing, a
// power budget that the supply cannot meet: each is an error with file, line
// and what would be allowed, and all of them are reported together. YAML's
// anchors, aliases and explicit tags are refused: a file says what it says.
//
// The package neither fetches nor verifies; package source does, and calls
// Load on the files that the owners signed. It is apart from package rack so
// that firmware does not depend on a YAML parser.
package manifest

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/racklet/racklet/rack"
)

// A Set is what a rack repository holds: valid by itself and in its references.
type Set struct {
	Rack     *rack.Rack
	Units    []*rack.ComputeUnit // by slot
	Releases map[string]*rack.Release
	Thermal  map[string]*rack.ThermalPolicy
	Power    map[string]*rack.PowerPolicy
}

// Unit returns the unit of that name, or nil.
func (s *Set) Unit(name string) *rack.ComputeUnit {
	for _, u := range s.Units {
		if u.Metadata.Name == name {
			return u
		}
	}
	return nil
}

// InSlot returns the unit in a slot, or nil.
func (s *Set) InSlot(slot rack.SlotID) *rack.ComputeUnit {
	for _, u := range s.Units {
		if u.Spec.Slot == slot {
			return u
		}
	}
	return nil
}

// ThermalPolicy is the policy in force.
func (s *Set) ThermalPolicy() *rack.ThermalPolicy { return s.Thermal[s.Rack.Spec.ThermalPolicy] }

// PowerPolicy is the policy in force.
func (s *Set) PowerPolicy() *rack.PowerPolicy { return s.Power[s.Rack.Spec.PowerPolicy] }

// Cap is the most that a unit of this set may draw.
func (s *Set) Cap(u *rack.ComputeUnit) rack.Watts { return u.Spec.Cap(&s.PowerPolicy().Spec) }

// An Error is one thing wrong with one file.
type Error struct {
	File string `json:"file"`
	Line int    `json:"line,omitempty"` // from 1; 0: the file as a whole
	Path string `json:"path,omitempty"` // field, such as "spec.power"
	Text string `json:"text"`           // what is wrong, and what is allowed
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	if e.Path != "" {
		b.WriteString(": " + e.Path)
	}
	return b.String() + ": " + e.Text
}

// Errors are all the things wrong with a repository, by file and line. There
// is at least one.
type Errors []*Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find the single errors.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, err := range e {
		all[i] = err
	}
	return all
}

// Bounds on what is read, far above any rack of ten slots.
const (
	maxFiles = 512
	maxFile  = 256 << 10 // bytes
	maxTotal = 4 << 20   // bytes
)

// Root is the folder of a rack repository that holds its objects.
const Root = "rack"

// A home is a folder for objects of some kinds.
type home struct {
	dir, file string // file: the only one allowed; "" any
	kinds     []string
}

// homes says where objects of which kinds live.
var homes = []home{
	{Root, "rack.yaml", []string{rack.KindRack}},
	{Root + "/units", "", []string{rack.KindComputeUnit}},
	{Root + "/releases", "", []string{rack.KindRelease}},
	{Root + "/policies", "", []string{rack.KindPowerPolicy, rack.KindThermalPolicy}},
}

// Load reads and checks a whole rack repository; fsys is its top folder. The
// error is of type Errors when files could be read but are wrong.
func Load(fsys fs.FS) (*Set, error) {
	l := &loader{set: Set{
		Releases: map[string]*rack.Release{},
		Thermal:  map[string]*rack.ThermalPolicy{},
		Power:    map[string]*rack.PowerPolicy{},
	}, places: map[any]*places{}}
	files, total := 0, 0
	err := fs.WalkDir(fsys, Root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && name == Root:
			return nil // no Rack is reported below
		case err != nil:
			return err
		case strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			if !slices.ContainsFunc(homes, func(h home) bool { return h.dir == name }) {
				l.failf(name, 0, "", "unknown folder: want units, releases or policies")
				return fs.SkipDir
			}
			return nil
		case path.Ext(name) == ".md":
			return nil
		}
		if files++; files > maxFiles {
			return Errors{{File: name, Text: fmt.Sprintf("too many files: at most %d", maxFiles)}}
		}
		kinds := kindsOf(name)
		if !d.Type().IsRegular() || kinds == nil {
			l.failf(name, 0, "", "not read by Racklet: want rack/rack.yaml, or files ending in .yaml in rack/units, rack/releases and rack/policies")
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if total += int(min(info.Size(), maxTotal)); info.Size() > maxFile || total > maxTotal {
			l.failf(name, 0, "", "too large: at most %d KiB per file and %d KiB in all", maxFile>>10, maxTotal>>10)
			return nil
		}
		b, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		l.file(name, b, kinds)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read rack repository: %w", err)
	}
	l.check()
	if len(l.errs) > 0 {
		slices.SortStableFunc(l.errs, func(a, b *Error) int {
			return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
		})
		return nil, l.errs
	}
	slices.SortFunc(l.set.Units, func(a, b *rack.ComputeUnit) int { return cmp.Compare(a.Spec.Slot, b.Spec.Slot) })
	return &l.set, nil
}

// kindsOf are the kinds of objects that a file may hold, nil for none.
func kindsOf(name string) []string {
	for _, h := range homes {
		if h.dir == path.Dir(name) && (h.file == path.Base(name) || h.file == "" && path.Ext(name) == ".yaml") {
			return h.kinds
		}
	}
	return nil
}

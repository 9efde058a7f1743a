package hardware

import (
	"strings"
	"testing"
)

func TestKnown(t *testing.T) {
	units, err := Units()
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range units {
		if err := u.Validate(); err != nil {
			t.Error(err)
		}
		if u.Source == "" {
			t.Errorf("%s: says not where its numbers are from", u.Name)
		}
	}
	switches, err := Switches()
	if err != nil {
		t.Fatal(err)
	}
	makers := map[string]bool{}
	for _, s := range switches {
		makers[s.Maker] = true
		if s.Ports < 5 || s.Speed < 1000 || s.Width <= 0 || s.Depth <= 0 || s.Height <= 0 || s.Volts <= 0 || s.Amperes <= 0 {
			t.Errorf("%s: incomplete: %+v", s.Name, s)
		}
	}
	if len(switches) < 3 || len(makers) < 2 {
		t.Errorf("%d switches of %d makers; want three of two", len(switches), len(makers))
	}
	if _, err := LookUp("toaster"); err == nil || !strings.Contains(err.Error(), "rpi4") {
		t.Errorf("an unknown unit: %v; want the names that are known", err)
	}
}

func TestValidate(t *testing.T) {
	good, err := LookUp("rpi4")
	if err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(*Unit){
		"has no name":         func(u *Unit) { u.Name = "" },
		"measures":            func(u *Unit) { u.Length = 300 },
		"mounting holes":      func(u *Unit) { u.Holes = u.Holes[:2] },
		"not within":          func(u *Unit) { u.Holes = append([]Point{{X: 85, Y: 3}}, u.Holes...) },
		"front is":            func(u *Unit) { u.Front = "up" },
		"points to":           func(u *Unit) { u.Ports = []Port{{Name: "USB", Edge: "top"}} },
		"reaches over":        func(u *Unit) { u.Ports = []Port{{Name: "USB", Edge: "right", Center: 55, Width: 14}} },
		"maxWatts and grams":  func(u *Unit) { u.MaxWatts = 0 },
		"the long side first": func(u *Unit) { u.Length, u.Width = 56, 85 },
	} {
		u := good
		spoil(&u)
		if err := u.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func FuzzParseUnit(f *testing.F) {
	for _, name := range []string{"rpi4", "beaglebone"} {
		b, err := files.ReadFile("units/" + name + ".json")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"name":"x","unknown":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if u, err := ParseUnit(b); err == nil && u.Validate() != nil {
			t.Error("a unit that is not valid was accepted")
		}
	})
}

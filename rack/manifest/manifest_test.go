package manifest

import (
	"errors"
	"flag"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/example"
)

var update = flag.Bool("update", false, "write the expected errors anew")

// good is the example of package example.
func good(t testing.TB) fstest.MapFS {
	t.Helper()
	zero := rack.Digest("sha256:" + strings.Repeat("0", 64))
	files, err := example.Files(example.Options{
		Name: "example", ID: "6f1c2a0e-3b52-4c7d-9a41-0d5e8f7b6c3a", Units: 4,
		Release: rack.ReleaseSpec{
			Version: "0.1.0", SecurityVersion: 1,
			Boot: rack.ReleaseBoot{Artifact: "racklet/boot", Digest: zero, SlotManifest: zero, Kernel: zero},
			OS:   rack.ReleaseOS{Artifact: "racklet/os", Digest: zero, Kernel: zero, RootHash: strings.Repeat("0", 64)},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	fsys := fstest.MapFS{}
	for name, b := range files {
		fsys[name] = &fstest.MapFile{Data: b}
	}
	return fsys
}

func TestLoad(t *testing.T) {
	s, err := Load(good(t))
	if err != nil {
		t.Fatal(err)
	}
	if s.Rack.Metadata.Name != "example" || s.Rack.Spec.Slots != 5 || s.Rack.Spec.Management() != 5 || s.Rack.Spec.Power.Supply != 100 {
		t.Errorf("rack %+v", s.Rack)
	}
	if len(s.Units) != 4 {
		t.Fatalf("%d units, want 4", len(s.Units))
	}
	u := s.Unit("unit-3")
	if u == nil || u.Spec.Slot != 3 || u.Spec.Power != rack.PowerOn || u.Spec.MemoryMiB != 512 || s.InSlot(3) != u || s.Cap(u) != 15 {
		t.Errorf("unit-3 %+v", u)
	}
	if s.Unit("unit-9") != nil || s.InSlot(5) != nil {
		t.Error("a unit that is not there was found")
	}
	if r := s.Releases[u.Spec.Release]; r == nil || r.Spec.Version != "0.1.0" {
		t.Errorf("release %+v", r)
	}
	if p := s.ThermalPolicy(); p == nil || len(p.Spec.Curve) != 4 || p.Spec.Curve[1] != (rack.CurvePoint{Temperature: 50, Duty: 45}) {
		t.Errorf("thermal policy %+v", p)
	}
	if p := s.PowerPolicy(); p == nil || p.Spec.Stagger.String() != "250ms" {
		t.Errorf("power policy %+v", p)
	}
}

// TestRefused goes through testdata: each file is the example with some files
// replaced (an empty one: removed), its comment the errors that Load must report.
func TestRefused(t *testing.T) {
	names, err := filepath.Glob("testdata/refused/*.txtar")
	if err != nil || len(names) < 20 {
		t.Fatalf("%d cases: %v", len(names), err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			fsys := good(t)
			for _, f := range a.Files {
				if len(f.Data) == 0 {
					delete(fsys, f.Name)
				} else {
					fsys[f.Name] = &fstest.MapFile{Data: f.Data}
				}
			}
			set, err := Load(fsys)
			var all Errors
			if !errors.As(err, &all) || set != nil {
				t.Fatalf("Load = %v, %v, want errors", set, err)
			}
			got := all.Error() + "\n"
			if *update {
				a.Comment = []byte(got)
				if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want := string(a.Comment); got != want {
				t.Errorf("errors are\n%swant\n%s", got, want)
			}
		})
	}
}

// TestAccepted is the control for TestRefused: unusual, but right.
func TestAccepted(t *testing.T) {
	a, err := txtar.ParseFile("testdata/accepted.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range a.Files {
		fsys := good(t)
		name, file, _ := strings.Cut(f.Name, "=")
		fsys[file] = &fstest.MapFile{Data: f.Data}
		if _, err := Load(fsys); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRequired removes each field in turn: what the schema calls required is
// refused with its name when missing, and nothing else is.
func TestRequired(t *testing.T) {
	for _, o := range []any{rack.Rack{}, rack.ComputeUnit{}, rack.Release{}, rack.ThermalPolicy{}, rack.PowerPolicy{}} {
		walkFields(reflect.TypeOf(o), func(f field) {
			if f.name == "" || strings.ToLower(f.name[:1]) != f.name[:1] {
				t.Errorf("%T: field %q has no proper name", o, f.name)
			}
		})
	}
	fsys := good(t)
	for _, name := range slices.Sorted(maps.Keys(fsys)) {
		if !strings.HasSuffix(name, ".yaml") {
			continue
		}
		whole := fsys[name]
		lines := strings.SplitAfter(string(whole.Data), "\n")
		for i, line := range lines {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			if strings.HasPrefix(key, "#") || strings.HasPrefix(key, "-") || value == "" {
				continue
			}
			optional := key == "memoryMiB" || key == "cpus" || key == "gracefulOff"
			fsys[name] = &fstest.MapFile{Data: []byte(strings.Join(slices.Delete(slices.Clone(lines), i, i+1), ""))}
			_, err := Load(fsys)
			if optional && err != nil || !optional && (err == nil || !strings.Contains(err.Error(), key+": missing")) {
				t.Errorf("%s without %s: %v", name, key, err)
			}
		}
		fsys[name] = whole
	}
}

func walkFields(t reflect.Type, f func(field)) {
	switch t.Kind() {
	case reflect.Slice:
		walkFields(t.Elem(), f)
	case reflect.Struct:
		for _, one := range fieldsOf(t) {
			f(one)
			walkFields(t.FieldByIndex(one.index).Type, f)
		}
	}
}

func TestBounds(t *testing.T) {
	fsys := good(t)
	fsys["rack/units/unit-1.yaml"].Data = append([]byte("#"+strings.Repeat("x", maxFile)+"\n"), fsys["rack/units/unit-1.yaml"].Data...)
	if _, err := Load(fsys); err == nil || !strings.Contains(err.Error(), "rack/units/unit-1.yaml: too large") {
		t.Errorf("a file beyond the bound: %v", err)
	}
	fsys = good(t)
	for i := range maxFiles {
		fsys["rack/units/x"+strings.Repeat("y", i)+".yaml"] = &fstest.MapFile{Data: []byte("{}")}
	}
	if _, err := Load(fsys); err == nil || !strings.Contains(err.Error(), "too many files") {
		t.Errorf("files beyond the bound: %v", err)
	}
	fsys = good(t)
	fsys["rack/units/link.yaml"] = &fstest.MapFile{Data: []byte("unit-1.yaml"), Mode: fs.ModeSymlink}
	if _, err := Load(fsys); err == nil || !strings.Contains(err.Error(), "rack/units/link.yaml: not read") {
		t.Errorf("a symbolic link: %v", err)
	}
}

func TestUnreadable(t *testing.T) {
	_, err := Load(os.DirFS(filepath.Join(t.TempDir(), "none")))
	var all Errors
	if !errors.As(err, &all) || !strings.Contains(err.Error(), "rack/rack.yaml: no such file") {
		t.Errorf("a folder that is not there: %v", err)
	}
}

func TestEdits(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"slot", "slot", 0}, {"slto", "slot", 1}, {"platfrom", "platform", 1}, {"relase", "release", 1},
		{"", "abc", 3}, {"kitten", "sitting", 3}, {strings.Repeat("a", 65), "a", 64},
	} {
		if got := edits(c.a, c.b); got != c.want {
			t.Errorf("edits(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
	if got := nearest("on", []string{"On", "Off"}); got != "On" {
		t.Errorf("nearest on = %q", got)
	}
	if got := nearest("temperature", []string{"slot", "power"}); got != "" {
		t.Errorf("nearest temperature = %q, want none", got)
	}
}

// FuzzLoad feeds one file of any content; whatever is accepted must be valid.
func FuzzLoad(f *testing.F) {
	for name, file := range good(f) {
		if strings.HasSuffix(name, ".yaml") {
			f.Add(name, file.Data)
		}
	}
	names, _ := filepath.Glob("testdata/refused/*.txtar")
	for _, name := range names {
		if a, err := txtar.ParseFile(name); err == nil {
			for _, file := range a.Files {
				f.Add(file.Name, file.Data)
			}
		}
	}
	base := good(f)
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		if kindsOf(name) == nil || !fs.ValidPath(name) {
			name = "rack/rack.yaml"
		}
		fsys := maps.Clone(base)
		fsys[name] = &fstest.MapFile{Data: b}
		s, err := Load(fsys)
		var all Errors
		switch {
		case err != nil && (!errors.As(err, &all) || len(all) == 0 || s != nil):
			t.Fatalf("error without reasons: %v", err)
		case err != nil:
			return
		}
		objects := []validator{s.Rack}
		for _, u := range s.Units {
			objects = append(objects, u)
		}
		for _, r := range s.Releases {
			objects = append(objects, r)
		}
		for _, o := range objects {
			if err := o.Validate(); err != nil {
				t.Fatalf("accepted, but %v", err)
			}
		}
	})
}

package solid

import (
	"os"
	"strings"
	"testing"

	"github.com/racklet/racklet/rack/racktest"
)

func kernel(t *testing.T) Gmsh { return Gmsh{racktest.Tool(t, "gmsh")} }

func TestString(t *testing.T) {
	s := Union(Box(Vec{1, 2, 3}, Vec{0, 0, 0}), Cylinder(Vec{}, Vec{0, 0, 1}, 0.1+0.2)).At(Vec{-0.0000001, 0, 5})
	want := `SetFactory("OpenCASCADE");
v1=newv; Box(v1)={0,0,0, 1,2,3};
v2()={v1};
v3=newv; Cylinder(v3)={0,0,0, 0,0,1, 0.3};
v4()={v3};
v5()=BooleanUnion{Volume{v2()};Delete;}{Volume{v4()};Delete;};
Translate{0,0,5}{Volume{v5()};}
parts()={v5()};
`
	if got := s.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if !Union().Empty() || !(Solid{}).Cut(Box(Vec{}, Vec{1, 1, 1})).Empty() || !Box(Vec{}, Vec{1, 1, 1}).And(Solid{}).Empty() {
		t.Error("nothing is not empty")
	}
}

func TestBuild(t *testing.T) {
	g := kernel(t)
	dir := t.TempDir()
	one := Box(Vec{}, Vec{10, 10, 3}).Cut(Polygon(Vec{5, 5, -1}, 6, 2, 5, 0))
	f, err := g.Build(t.Context(), dir, "one", one)
	if err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(f.STEP)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(first), "MANIFOLD_SOLID_BREP") || !strings.Contains(string(first), "1970-01-01T00:00:00") {
		t.Error("not a STEP file of a solid, or with the time in it")
	}
	mesh, _ := os.ReadFile(f.STL)
	if _, err := g.Build(t.Context(), dir, "one", one); err != nil {
		t.Fatal(err)
	}
	again, _ := os.ReadFile(f.STEP)
	meshAgain, _ := os.ReadFile(f.STL)
	if string(again) != string(first) || string(meshAgain) != string(mesh) || len(mesh) == 0 {
		t.Error("two runs differ")
	}

	two := Group(Box(Vec{}, Vec{1, 1, 1}), Box(Vec{5, 0, 0}, Vec{6, 1, 1}))
	if _, err := g.Build(t.Context(), dir, "two", two); err == nil || !strings.Contains(err.Error(), "2 pieces") {
		t.Errorf("two pieces: %v", err)
	}
	if _, err := g.Build(t.Context(), dir, "none", Solid{}); err == nil {
		t.Error("nothing was built")
	}
	// gmsh ends well after an error of the kernel and leaves a file; that is no success.
	broken := body(func(s *script) string { return "v99()" })
	if _, err := g.Build(t.Context(), dir, "broken", broken); err == nil {
		t.Error("an error of gmsh went by")
	}
	if _, err := (Gmsh{"/nonexistent/gmsh"}).Build(t.Context(), dir, "one", one); err == nil {
		t.Error("a program that is not there built something")
	}
}

// TestCount has a gap of 0.3 mm: a body that moves by a little less is free, by
// a little more is not.
func TestCount(t *testing.T) {
	g := kernel(t)
	wall := Box(Vec{10.3, -5, -5}, Vec{12, 15, 15}).Shared()
	block := Box(Vec{}, Vec{10, 10, 10})
	got, err := g.Count(t.Context(), t.TempDir(), "gap", block.At(Vec{0.29, 0, 0}).And(wall), block.At(Vec{0.31, 0, 0}).And(wall), Solid{}, wall.Mirror(Vec{1, 0, 0}).And(block), wall.Turn(Vec{0, 0, 1}, 180).At(Vec{20, 10, 0}).And(block))
	if err != nil {
		t.Fatal(err)
	}
	want := []int{0, 1, 0, 0, 1}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("case %d: %d bodies, want %d", i, got[i], want[i])
		}
	}
}

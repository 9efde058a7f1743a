package solid

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Gmsh is the program that has the OpenCASCADE kernel. Version 4.8 is the
// oldest that was tried.
type Gmsh struct {
	// Path of the program; "gmsh" where empty.
	Path string
}

// Files are what Build leaves in the folder: NAME.geo, NAME.step, NAME.stl.
type Files struct{ Script, STEP, STL string }

// Build has s made, as exact geometry and as a mesh whose facets differ from it
// by less than a printer can show. The part must be one solid.
func (g Gmsh) Build(ctx context.Context, dir, name string, s Solid) (Files, error) {
	f := Files{filepath.Join(dir, name+".geo"), filepath.Join(dir, name+".step"), filepath.Join(dir, name+".stl")}
	if s.Empty() {
		return f, fmt.Errorf("build %s: there is nothing of it", name)
	}
	sc := newScript()
	parts := sc.emit(s)
	sc.line(`Printf("parts %%g", #%s);`, parts)
	sc.line(`Save "%s.step";`, name)
	sc.line("Mesh.CharacteristicLengthFromCurvature=1; Mesh.CharacteristicLengthExtendFromBoundary=0;")
	sc.line("Mesh.CharacteristicLengthMax=12; Mesh.MinimumCirclePoints=24; Mesh.Binary=1;")
	sc.line(`Mesh 2;`)
	sc.line(`Save "%s.stl";`, name)
	out, err := g.run(ctx, dir, f.Script, sc.b.String())
	if err != nil {
		return f, fmt.Errorf("build %s: %w", name, err)
	}
	if n, err := count(out, "parts"); err != nil || n != 1 {
		return f, fmt.Errorf("build %s: it falls into %d pieces (%v)", name, n, err)
	}
	if err := normalize(f.STEP); err != nil {
		return f, fmt.Errorf("build %s: %w", name, err)
	}
	return f, nil
}

// Count has the kernel make each of the solids and returns of how many separate
// bodies each consists, 0 for an intersection of what does not touch.
func (g Gmsh) Count(ctx context.Context, dir, name string, solids ...Solid) ([]int, error) {
	sc := newScript()
	for i, s := range solids {
		if s.Empty() {
			sc.line(`Printf("case%d 0");`, i)
			continue
		}
		parts := sc.emit(s)
		sc.line(`Printf("case%d %%g", #%s);`, i, parts)
		sc.line("Recursive Delete{Volume{%s};}", parts)
	}
	out, err := g.run(ctx, dir, filepath.Join(dir, name+".geo"), sc.b.String())
	if err != nil {
		return nil, fmt.Errorf("count solids of %s: %w", name, err)
	}
	n := make([]int, len(solids))
	for i := range n {
		if n[i], err = count(out, "case"+strconv.Itoa(i)); err != nil {
			return nil, fmt.Errorf("count solids of %s: %w", name, err)
		}
	}
	return n, nil
}

// Volume meshes s in three dimensions, second order, for the finite-element
// program: NAME.inp in Abaqus form. Size is the length of an element.
func (g Gmsh) Volume(ctx context.Context, dir, name string, s Solid, size float64) (string, error) {
	sc := newScript()
	parts := sc.emit(s)
	sc.line("Physical Volume(1)={%s};", parts)
	sc.line("Mesh.CharacteristicLengthMax=%s; Mesh.CharacteristicLengthMin=%s; Mesh.ElementOrder=2; Mesh.SecondOrderLinear=1;", num(size), num(size/3))
	sc.line("Mesh 3;")
	sc.line(`Save "%s.inp";`, name)
	if _, err := g.run(ctx, dir, filepath.Join(dir, name+".geo"), sc.b.String()); err != nil {
		return "", fmt.Errorf("mesh %s: %w", name, err)
	}
	return filepath.Join(dir, name+".inp"), nil
}

// run has gmsh execute a script. The program goes on after an error, writes a
// wrong file and exits with 0, so its words decide.
func (g Gmsh) run(ctx context.Context, dir, file, script string) ([]byte, error) {
	if err := os.WriteFile(file, []byte(script), 0o644); err != nil {
		return nil, err
	}
	path := g.Path
	if path == "" {
		path = "gmsh"
	}
	cmd := exec.CommandContext(ctx, path, "-v", "3", "-nt", "1", filepath.Base(file), "-parse_and_exit")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if i := bytes.Index(out, []byte("Error")); i >= 0 {
		line, _, _ := strings.Cut(string(out[i:]), "\n")
		return out, fmt.Errorf("gmsh: %s", line)
	}
	if err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return out, fmt.Errorf("%w: install gmsh (on Debian: apt-get install gmsh)", err)
		}
		return out, fmt.Errorf("gmsh: %w", err)
	}
	return out, nil
}

func count(out []byte, word string) (int, error) {
	m := regexp.MustCompile(`(?m)^` + word + ` (\d+)`).FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("gmsh did not say how many %s there are", word)
	}
	return strconv.Atoi(string(m[1]))
}

var stepTime = regexp.MustCompile(`'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d'`)

// normalize takes the time out of a STEP file, the one thing in it that differs
// between two runs.
func normalize(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, tail := b, []byte(nil)
	if i := bytes.Index(b, []byte("ENDSEC;")); i >= 0 {
		head, tail = b[:i], b[i:]
	}
	return os.WriteFile(file, append(stepTime.ReplaceAll(head, []byte("'1970-01-01T00:00:00'")), tail...), 0o644)
}

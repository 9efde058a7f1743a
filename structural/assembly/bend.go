package assembly

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/racklet/racklet/structural/solid"
)

// A load is a body held somewhere and pushed somewhere else.
type load struct {
	name  string
	shape solid.Solid
	size  float64          // of an element, millimetres
	fixed func(v vec) bool // the nodes that do not move
	push  func(v vec) bool // the nodes that share the force
	force vec              // newtons
	limit float64          // millimetres that it may give way
}

// bend returns by how much a body gives way, in millimetres: linear elasticity,
// second-order tetrahedra, solved by CalculiX.
func bend(ctx context.Context, g solid.Gmsh, dir string, l load, modulus float64) (float64, error) {
	file, err := g.Volume(ctx, dir, l.name, l.shape, l.size)
	if err != nil {
		return 0, fmt.Errorf("bend %s: %w", l.name, err)
	}
	nodes, elements, err := readAbaqus(file)
	if err != nil {
		return 0, fmt.Errorf("bend %s: %w", l.name, err)
	}
	var b strings.Builder
	b.WriteString("*NODE, NSET=ALL\n")
	var fixed, pushed []int
	for _, n := range nodes {
		fmt.Fprintf(&b, "%d,%.6f,%.6f,%.6f\n", n.id, n.at[0], n.at[1], n.at[2])
		switch {
		case l.fixed(n.at):
			fixed = append(fixed, n.id)
		case l.push(n.at):
			pushed = append(pushed, n.id)
		}
	}
	if len(fixed) < 3 || len(pushed) == 0 {
		return 0, fmt.Errorf("bend %s: %d nodes are held and %d are pushed", l.name, len(fixed), len(pushed))
	}
	b.WriteString("*ELEMENT, TYPE=C3D10, ELSET=BODY\n")
	for i, e := range elements {
		fmt.Fprintf(&b, "%d", i+1)
		for _, n := range e {
			fmt.Fprintf(&b, ",%d", n)
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "*MATERIAL, NAME=PLASTIC\n*ELASTIC\n%g,0.38\n*SOLID SECTION, ELSET=BODY, MATERIAL=PLASTIC\n*BOUNDARY\n", modulus)
	for _, n := range fixed {
		fmt.Fprintf(&b, "%d,1,3\n", n)
	}
	b.WriteString("*STEP\n*STATIC\n*CLOAD\n")
	for _, n := range pushed {
		for k := range 3 {
			if l.force[k] != 0 {
				fmt.Fprintf(&b, "%d,%d,%.9g\n", n, k+1, l.force[k]/float64(len(pushed)))
			}
		}
	}
	b.WriteString("*NODE PRINT, NSET=ALL\nU\n*END STEP\n")
	job := l.name + "-job"
	if err := os.WriteFile(filepath.Join(dir, job+".inp"), []byte(b.String()), 0o644); err != nil {
		return 0, err
	}
	if _, err := run(ctx, dir, "calculix-ccx", "ccx", "-i", job); err != nil {
		return 0, fmt.Errorf("bend %s: %w", l.name, err)
	}
	return largest(filepath.Join(dir, job+".dat"), len(nodes))
}

type node struct {
	id int
	at vec
}

// readAbaqus reads the nodes and second-order tetrahedra that gmsh wrote.
func readAbaqus(file string) ([]node, [][10]int, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	var nodes []node
	var elements [][10]int
	section := ""
	var pending []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		line := strings.TrimSpace(s.Text())
		switch {
		case line == "" || strings.HasPrefix(line, "**"):
			continue
		case strings.HasPrefix(line, "*"):
			section = strings.ToUpper(strings.ReplaceAll(line, " ", ""))
			pending = nil
			continue
		}
		switch {
		case strings.HasPrefix(section, "*NODE"):
			p := strings.Split(line, ",")
			if len(p) < 4 {
				return nil, nil, fmt.Errorf("node %q", line)
			}
			var n node
			var errs [4]error
			n.id, errs[0] = strconv.Atoi(strings.TrimSpace(p[0]))
			for k := range 3 {
				n.at[k], errs[k+1] = strconv.ParseFloat(strings.TrimSpace(p[k+1]), 64)
			}
			if err := errors.Join(errs[:]...); err != nil {
				return nil, nil, err
			}
			nodes = append(nodes, n)
		case strings.HasPrefix(section, "*ELEMENT") && strings.Contains(section, "C3D10"):
			for _, w := range strings.Split(line, ",") {
				if w = strings.TrimSpace(w); w != "" {
					pending = append(pending, w)
				}
			}
			if len(pending) < 11 {
				continue
			}
			var e [10]int
			for k := range e {
				if e[k], err = strconv.Atoi(pending[k+1]); err != nil {
					return nil, nil, err
				}
			}
			elements = append(elements, e)
			pending = nil
		}
	}
	if err := s.Err(); err != nil {
		return nil, nil, err
	}
	if len(nodes) == 0 || len(elements) == 0 {
		return nil, nil, fmt.Errorf("%s has %d nodes and %d elements", filepath.Base(file), len(nodes), len(elements))
	}
	// gmsh also lists points that no tetrahedron uses; the solver must not see them.
	used := map[int]bool{}
	for _, e := range elements {
		for _, n := range e {
			used[n] = true
		}
	}
	kept := nodes[:0]
	for _, n := range nodes {
		if used[n.id] {
			kept = append(kept, n)
		}
	}
	return kept, elements, nil
}

// largest reads displacements as CalculiX prints them: node, x, y, z.
func largest(file string, want int) (float64, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, fmt.Errorf("the solver left no result: %w", err)
	}
	defer f.Close()
	var worst float64
	n := 0
	s := bufio.NewScanner(f)
	for s.Scan() {
		w := strings.Fields(s.Text())
		if len(w) != 4 {
			continue
		}
		var u vec
		ok := true
		for k := range 3 {
			if u[k], err = strconv.ParseFloat(w[k+1], 64); err != nil || math.IsNaN(u[k]) {
				ok = false
			}
		}
		if !ok {
			continue
		}
		n++
		worst = max(worst, math.Sqrt(u[0]*u[0]+u[1]*u[1]+u[2]*u[2]))
	}
	if err := s.Err(); err != nil {
		return 0, err
	}
	if n != want {
		return 0, fmt.Errorf("the solver gave the displacement of %d of %d nodes", n, want)
	}
	return worst, nil
}

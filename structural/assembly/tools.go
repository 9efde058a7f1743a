package assembly

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
	"time"

	"github.com/racklet/racklet/structural"
)

// run starts a tool and gives back what it said. Missing tells where to get it.
func run(ctx context.Context, dir, missing string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	// One thread each: results do not depend on the number of processors.
	cmd.Env = append(os.Environ(), "OMP_NUM_THREADS=1", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%w: install %s (on Debian: apt-get install %s)", err, name, missing)
	}
	if err != nil {
		tail := strings.TrimSpace(string(out))
		if i := strings.LastIndexByte(tail, '\n'); i >= 0 {
			tail = tail[i+1:]
		}
		return string(out), fmt.Errorf("%s: %w: %s", name, err, tail)
	}
	return string(out), nil
}

// meshReport is what admesh says of a file.
type meshReport struct {
	disconnected, parts, facets int
	volume                      float64
	size                        [3]float64
}

func admesh(ctx context.Context, file string) (meshReport, error) {
	out, err := run(ctx, filepath.Dir(file), "admesh", "admesh", filepath.Base(file))
	if err != nil {
		return meshReport{}, fmt.Errorf("check mesh: %w", err)
	}
	var r meshReport
	var errs []error
	field := func(re string) float64 {
		m := regexp.MustCompile(re).FindStringSubmatch(out)
		if m == nil {
			errs = append(errs, fmt.Errorf("check mesh: admesh did not print %q", re))
			return 0
		}
		f, err := strconv.ParseFloat(m[1], 64)
		errs = append(errs, err)
		return f
	}
	r.disconnected = int(field(`Total disconnected facets +: +(\d+)`))
	r.parts = int(field(`Number of parts +: +(\d+)`))
	r.facets = int(field(`Number of facets +: +(\d+)`))
	r.volume = field(`Volume +: +([\d.]+)`)
	for k, axis := range []string{"X", "Y", "Z"} {
		r.size[k] = field(`Max `+axis+` = +([-\d.]+)`) - field(`Min `+axis+` = +([-\d.]+)`)
	}
	return r, errors.Join(errs...)
}

// sliceReport is what the slicer says of a part.
type sliceReport struct {
	grams    float64
	time     time.Duration
	supports int  // extrusions of support material
	manifold bool // by the slicer's own judgement
}

// slice has a part sliced as it would be printed, with support material allowed
// wherever the slicer thinks that it needs some.
func slice(ctx context.Context, dir, stl string, p structural.Printer) (sliceReport, error) {
	var r sliceReport
	const missing = "prusa-slicer"
	info, err := run(ctx, dir, missing, "prusa-slicer", "--info", stl)
	if err != nil {
		return r, fmt.Errorf("slice: %w", err)
	}
	r.manifold = regexp.MustCompile(`(?m)^manifold = yes`).MatchString(info)
	gcode := filepath.Join(dir, strings.TrimSuffix(filepath.Base(stl), ".stl")+".gcode")
	defer os.Remove(gcode)
	_, err = run(ctx, dir, missing, "prusa-slicer", "--export-gcode", "-o", gcode,
		"--nozzle-diameter", "0.4", "--layer-height", "0.25", "--first-layer-height", "0.25", "--perimeters", "3", "--fill-density", "15%", "--top-solid-layers", "5", "--bottom-solid-layers", "4",
		"--bed-shape", "0x0,220x0,220x220,0x220", "--center", "110,110", "--filament-density", strconv.FormatFloat(p.Density, 'f', -1, 64),
		"--support-material", "--support-material-auto", "--support-material-threshold", "40", "--max-print-height", strconv.Itoa(structural.Bed), stl)
	if err != nil {
		return r, fmt.Errorf("slice: %w", err)
	}
	b, err := os.ReadFile(gcode)
	if err != nil {
		return r, fmt.Errorf("slice: %w", err)
	}
	r.supports = bytes.Count(b, []byte(";TYPE:Support material\n"))
	m := regexp.MustCompile(`(?m)^; (?:total )?filament used \[g\] = ([\d.]+)`).FindSubmatch(b)
	if m == nil {
		return r, fmt.Errorf("slice: the slicer did not say how many grams")
	}
	r.grams, _ = strconv.ParseFloat(string(m[1]), 64)
	m = regexp.MustCompile(`(?m)^; estimated printing time \(normal mode\) = (.*)$`).FindSubmatch(b)
	if m == nil {
		return r, fmt.Errorf("slice: the slicer did not say how long")
	}
	r.time, err = parseTime(string(m[1]))
	return r, err
}

// parseTime reads the slicer's "1d 2h 43m 5s".
func parseTime(s string) (time.Duration, error) {
	var d time.Duration
	for _, f := range strings.Fields(s) {
		n, err := strconv.Atoi(f[:len(f)-1])
		if err != nil {
			return 0, fmt.Errorf("printing time %q", s)
		}
		switch f[len(f)-1] {
		case 'd':
			d += time.Duration(n) * 24 * time.Hour
		case 'h':
			d += time.Duration(n) * time.Hour
		case 'm':
			d += time.Duration(n) * time.Minute
		case 's':
			d += time.Duration(n) * time.Second
		default:
			return 0, fmt.Errorf("printing time %q", s)
		}
	}
	return d, nil
}

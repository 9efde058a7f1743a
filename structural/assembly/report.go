package assembly

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"html/template"
	"image/color"
	"os"
	"path/filepath"
	"time"

	"github.com/racklet/racklet/structural/mesh"
	"github.com/racklet/racklet/structural/solid"
)

var (
	paper  = color.RGBA{255, 255, 255, 255}
	colors = map[byte]color.RGBA{'T': {84, 136, 190, 255}, 'C': {206, 210, 216, 255}, 'M': {150, 156, 164, 255}}
	dark   = color.RGBA{58, 68, 80, 255}
	orange = color.RGBA{232, 152, 62, 255}
	green  = color.RGBA{58, 150, 96, 255}
	black  = color.RGBA{70, 74, 82, 255}
)

// Draw makes the pictures of a rack: assembled from two sides, exploded as
// picture and as line drawing with part numbers, and each part alone.
func (w Workshop) Draw(ctx context.Context, r *Result) error {
	fmt.Fprint(w.Log, "pictures")
	start := time.Now()
	bought, err := w.bought(ctx, r)
	if err != nil {
		return fmt.Errorf("draw: %w", err)
	}
	var together, apart []mesh.Body
	var numbers []string
	for _, pr := range r.Parts {
		if pr.Number == "M1" {
			continue
		}
		c := colors[pr.Number[0]]
		switch {
		case pr.Number == "T2":
			c = orange
		case pr.Name == "handle" || pr.Name == "foot":
			c = dark
		}
		for i, pl := range pr.Places {
			m := pr.Mesh.Map(pl.Move)
			together = append(together, mesh.Body{Mesh: m, Color: c})
			apart = append(apart, mesh.Body{Mesh: m.Move(pl.Explode), Color: c})
			number := ""
			if i == len(pr.Places)-1 {
				number = pr.Number
			}
			numbers = append(numbers, number)
		}
	}
	save := func(name string, b []byte, err error) error {
		if err != nil {
			return fmt.Errorf("draw %s: %w", name, err)
		}
		r.Pictures = append(r.Pictures, name)
		return os.WriteFile(filepath.Join(w.Dir, name), b, 0o644)
	}
	view := func(azimuth float64) mesh.View {
		return mesh.View{Azimuth: azimuth, Elevation: 22, Width: 900, Height: 900, Background: paper}
	}
	full := append(append([]mesh.Body(nil), together...), bought...)
	for _, p := range []struct {
		name string
		view mesh.View
		what []mesh.Body
	}{{"rack-front.png", view(-35), full}, {"rack-rear.png", view(145), full}, {"rack-exploded.png", view(-35), apart}} {
		b, err := p.view.PNG(p.what)
		if err := save(p.name, b, err); err != nil {
			return err
		}
	}
	if err := save("rack-exploded.svg", view(-35).SVG(apart, func(i int) string { return numbers[i] }), nil); err != nil {
		return err
	}
	for _, pr := range r.Parts {
		v := mesh.View{Azimuth: -35, Elevation: 35, Width: 420, Height: 320, Background: paper}
		c := colors[pr.Number[0]]
		b, err := v.PNG([]mesh.Body{{Mesh: pr.Mesh.Lay(pr.Down), Color: c}})
		if err := save(pr.Name+".png", b, err); err != nil {
			return err
		}
	}
	fmt.Fprintf(w.Log, " (%.1f s)\n", time.Since(start).Seconds())
	return nil
}

// bought draws computers, drives, fans and switch as the bodies that they are
// checked with.
func (w Workshop) bought(ctx context.Context, r *Result) ([]mesh.Body, error) {
	var out []mesh.Body
	build := func(s solid.Solid) (*mesh.Mesh, error) {
		f, err := w.Gmsh.Build(ctx, w.Dir, "check-body", s)
		if err != nil {
			return nil, err
		}
		return mesh.Read(f.STL)
	}
	paint := map[string]color.RGBA{"drive": black, "plug of the drive": black, "BMC board": green, "fan": dark, "backplane": green}
	for _, b := range OnTray(r.Parameters) {
		m, err := build(b.Shape)
		if err != nil {
			return nil, err
		}
		c, ok := paint[b.Name]
		if !ok {
			c = color.RGBA{46, 128, 84, 255}
		}
		for slot := 1; slot <= r.Parameters.Slots; slot++ {
			out = append(out, mesh.Body{Mesh: m.Move(vec{0, 0, r.Parameters.SlotZ(slot)}), Color: c})
		}
	}
	for _, b := range InCase(r.Parameters, r.Switch) {
		m, err := build(b.Shape)
		if err != nil {
			return nil, err
		}
		c, ok := paint[b.Name]
		if !ok {
			c = black
		}
		out = append(out, mesh.Body{Mesh: m, Color: c})
	}
	return out, nil
}

// Summary is a result as other programs read it.
type Summary struct {
	Slots      int           `json:"slots"`
	Unit       string        `json:"unit"`
	Switch     string        `json:"switch"`
	Size       [3]float64    `json:"millimetres"`
	Grams      float64       `json:"grams"`
	Filament   float64       `json:"filamentGrams"`
	PrintHours float64       `json:"printHours"`
	Parts      []PartSummary `json:"parts"`
	Fasteners  []Fastener    `json:"fasteners"`
	Checks     []Check       `json:"checks"`
}

// PartSummary is one line of the list of printed parts.
type PartSummary struct {
	Number string  `json:"number"`
	Name   string  `json:"name"`
	Title  string  `json:"title"`
	Copies int     `json:"copies"`
	Grams  float64 `json:"gramsEach"`
	Hours  float64 `json:"hoursEach"`
}

// Summary sums up r.
func (r *Result) Summary() Summary {
	s := Summary{Slots: r.Parameters.Slots, Unit: r.Parameters.Unit.Name, Switch: r.Switch.Name, Size: r.Size, Grams: r.Total, Filament: r.Grams, PrintHours: r.Time.Hours(), Fasteners: Fasteners(r.Parameters), Checks: r.Checks}
	for _, p := range r.Parts {
		s.Parts = append(s.Parts, PartSummary{p.Number, p.Name, p.Title, p.Copies, p.Grams, p.Time.Hours()})
	}
	return s
}

// Report writes report.html and report.json beside the parts.
func (w Workshop) Report(r *Result) (string, error) {
	var b bytes.Buffer
	if err := page.Execute(&b, struct {
		Summary
		Failed []Check
		Result *Result
	}{r.Summary(), r.Failed(), r}); err != nil {
		return "", fmt.Errorf("write report: %w", err)
	}
	file := filepath.Join(w.Dir, "report.html")
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		return "", fmt.Errorf("write report: %w", err)
	}
	j, err := json.MarshalIndent(r.Summary(), "", "  ")
	if err != nil {
		return "", fmt.Errorf("write report: %w", err)
	}
	return file, os.WriteFile(filepath.Join(w.Dir, "report.json"), append(j, '\n'), 0o644)
}

var page = template.Must(template.New("report").Funcs(template.FuncMap{
	"hours": func(h float64) string { return fmt.Sprintf("%.1f h", h) },
	"mm":    func(v [3]float64) string { return fmt.Sprintf("%.0f × %.0f × %.0f mm", v[0], v[1], v[2]) },
	"kg":    func(g float64) string { return fmt.Sprintf("%.2f kg", g/1000) },
}).Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Racklet: printed parts</title>
<style>
:root { color-scheme: light; font: 15px/1.5 system-ui, sans-serif; color: #1d2733 }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.7rem; margin: 0 } h2 { margin-top: 2.5rem; border-bottom: 1px solid #d5dbe2 }
.figures { display: flex; gap: 2.5rem; flex-wrap: wrap; margin: 1rem 0 } .figures b { display: block; font-size: 1.4rem }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem } .pictures img { width: 100% }
.parts { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem } figure { margin: 0; border: 1px solid #d5dbe2; border-radius: 6px; padding: .6rem } figure img { width: 100% } figcaption b { color: #0b5fa5 }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #e6eaef; vertical-align: top } td.n { text-align: right }
.ok { color: #14703d } .bad { color: #b3261e; font-weight: 600 }
</style>
<h1>Racklet: printed parts</h1>
<p>{{.Slots}} slots, {{.Result.Parameters.Unit.Title}}, {{.Result.Switch.Title}}. Licence of the parts: CERN-OHL-P-2.0.</p>
<div class="figures"><span><b>{{mm .Size}}</b>with feet, handle and grips</span><span><b>{{kg .Grams}}</b>with boards, computers and switch</span><span><b>{{printf "%.0f g" .Filament}}</b>filament</span><span><b>{{printf "%.0f h" .PrintHours}}</b>on one printer</span>
<span><b class="{{if .Failed}}bad{{else}}ok{{end}}">{{len .Checks}} checks, {{len .Failed}} failed</b>{{range .Failed}}{{.Subject}}: {{.Name}}<br>{{end}}</span></div>
<div class="pictures"><img src="rack-front.png" alt="the rack from the front"><img src="rack-rear.png" alt="the rack from behind"><img src="rack-exploded.png" alt="the parts drawn apart"></div>
<h2>Parts</h2>
<div class="parts">{{range .Parts}}<figure><img src="{{.Name}}.png" alt="{{.Title}}, as printed"><figcaption><b>{{.Number}}</b> {{.Title}}<br>{{.Copies}} × {{printf "%.0f g" .Grams}}, {{hours .Hours}} each<br><a href="{{.Name}}.step">STEP</a> <a href="{{.Name}}.stl">STL</a> <a href="{{.Name}}.3mf">3MF</a></figcaption></figure>{{end}}</div>
<h2>Fasteners</h2>
<table>{{range .Fasteners}}<tr><td class="n">{{.Count}}</td><td>{{.Name}}</td><td>{{.For}}</td></tr>{{end}}</table>
<h2>Drawing</h2>
<img src="rack-exploded.svg" alt="line drawing with part numbers" style="width:100%;max-width:900px">
<h2>Checks</h2>
<table><tr><th></th><th>What</th><th>Check</th><th>Found</th><th>Bound</th></tr>{{range .Checks}}<tr><td class="{{if .OK}}ok{{else}}bad{{end}}">{{if .OK}}✓{{else}}✗{{end}}</td><td>{{.Subject}}</td><td>{{.Name}}</td><td>{{.Measured}}</td><td>{{.Bound}}</td></tr>{{end}}</table>
</html>
`))

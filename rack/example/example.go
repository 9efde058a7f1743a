// Package example makes the files of a first rack repository: one rack, its
// units, a release and policies, with comments for whoever edits them. The
// command "racklet init" writes them. README.md, apps, rack and schema in this
// folder are such files for a rack of four units, with a release of zeros; a
// test keeps them so.
package example

import (
	"bytes"
	"embed"
	"fmt"
	"path"
	"strings"
	"text/template"

	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/schema"
)

// Options say what differs from rack to rack.
type Options struct {
	Name    string           // of the rack
	ID      string           // UUID of the rack
	Units   int              // virtual compute units, 1 to 9
	Release rack.ReleaseSpec // that all units boot, as its build wrote it (release.json)
	Mirrors []rack.Mirror    // none: the repository's own host
	// Kubernetes says that the units shall be the nodes of a cluster.
	Kubernetes bool
}

// MaxUnits is the most compute units that a rack can have beside its
// management unit.
const MaxUnits = rack.MaxSlots - 1

// A sample draws 100 W from one USB-C supply (USB Power Delivery 3.2, 20 V at
// 5 A), of which the rack itself may take a quarter.
const (
	supply  = rack.Watts(100)
	reserve = rack.Watts(25)
	unitCap = rack.Watts(15)
)

//go:embed template
var templates embed.FS

// Files returns the files of the repository by slash-separated path.
func Files(o Options) (map[string][]byte, error) {
	if o.Units < 1 || o.Units > MaxUnits {
		return nil, fmt.Errorf("%d units: want 1 to %d", o.Units, MaxUnits)
	}
	if !rack.ValidName(o.Name) {
		return nil, fmt.Errorf("%q is not a name: want 1 to %d lower-case letters, digits and inner hyphens", o.Name, rack.MaxName)
	}
	if err := o.Release.Validate(); err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	t, err := template.ParseFS(templates, "template/*")
	if err != nil {
		return nil, err
	}
	data := struct {
		Options
		Slots                            int
		Unit                             int
		ReleaseName                      string
		Supply, Reserve, Budget, UnitCap rack.Watts
	}{
		Options: o, Slots: max(o.Units+1, rack.MinSlots), ReleaseName: releaseName(o.Release.Version),
		Supply: supply, Reserve: reserve, Budget: supply - reserve,
		UnitCap: min(unitCap, rack.Watts(int(supply-reserve)/o.Units)),
	}
	files := map[string][]byte{}
	add := func(name, from string) {
		var b bytes.Buffer
		if e := t.ExecuteTemplate(&b, from, data); e != nil && err == nil {
			err = e
		}
		files[name] = b.Bytes()
	}
	add("README.md", "README.md")
	add("apps/README.md", "apps.md")
	add("rack/rack.yaml", "rack.yaml")
	add("rack/policies/thermal.yaml", "thermal.yaml")
	add("rack/policies/power.yaml", "power.yaml")
	add("rack/releases/"+data.ReleaseName+".yaml", "release.yaml")
	for data.Unit = 1; data.Unit <= o.Units; data.Unit++ {
		add(fmt.Sprintf("rack/units/unit-%d.yaml", data.Unit), "unit.yaml")
	}
	for name, b := range schema.Files() {
		if name == "fault.json" || name == "scenario.json" {
			continue // no objects of a rack repository
		}
		files[path.Join("schema", name)] = b
	}
	return files, err
}

// releaseName turns a version into a name: "2026.11.1+a" becomes "v2026-11-1-a".
func releaseName(version string) string {
	name := strings.Map(func(r rune) rune {
		if strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789", r) {
			return r
		}
		return '-'
	}, strings.ToLower(version))
	name = "v" + strings.TrimPrefix(name, "v")
	return strings.TrimRight(name[:min(len(name), rack.MaxName)], "-")
}

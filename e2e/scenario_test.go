package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/racklet/racklet/rack/manifest"
	"github.com/racklet/racklet/sim/fault"
)

// TestMachineScenarios plays every scenario that needs machines, and then the tour, on one rack with one unit, by the commands
// that a user would type. Each scenario heals what it broke; the unit of the next is the one of before. Those that need no
// machine are sim/headless's.
func TestMachineScenarios(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a unit some fifteen times")
	}
	files, err := filepath.Glob("../examples/scenarios/machine-*.yaml")
	if err != nil || len(files) < 12 {
		t.Fatalf("%d scenarios, %v", len(files), err)
	}
	r := newRack(t, build(t))
	r.up(t, 1)
	// A second state, so that there is an older one to replay; the first scenario that starts the unit anew brings it up.
	r.changeRack(t, "a second state")
	i := slices.IndexFunc(files, func(f string) bool { return strings.Contains(f, "replayed") })
	last := files[i]
	files = append(slices.Delete(files, i, i+1), last)

	var outcomes []*fault.Outcome
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			out, err := r.command("", nil, filepath.Join(r.bin, "racklet"), "fault", "run", file, "-o", "json", "--state", r.state)
			var o []*fault.Outcome
			if json.Unmarshal(out, &o) == nil {
				outcomes = append(outcomes, o...)
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, r.racklet(t, "unit", "log", "unit-1"))
			}
			for _, e := range o[0].Record {
				if e.Error != "" {
					t.Error(e.Line())
				}
			}
			landed(t, file, o[0])
		})
	}
	for line := range strings.Lines(fault.Table(outcomes)) {
		t.Attr("table", strings.TrimSuffix(line, "\n"))
	}

	wrong := filepath.Join(t.TempDir(), "wrong.yaml")
	if err := os.WriteFile(wrong, []byte(`apiVersion: racklet.io/v1alpha1
kind: Scenario
metadata: {name: wrong}
spec:
  teaches: What is not so must not pass.
  needs: machines
  length: 5s
  ends: settled
  expect: [{that: unit-1.rail = off, within: 1s}]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := r.command("", nil, filepath.Join(r.bin, "racklet"), "fault", "run", wrong, "--state", r.state); err == nil {
		t.Errorf("a wrong expectation passes:\n%s", out)
	}
	t.Run("tour", func(t *testing.T) { t.Logf("%s", r.racklet(t, "tour", "--unattended")) })
}

// changeRack commits a change that concerns no unit, has two owners sign it, and pushes.
func (r *rack) changeRack(t *testing.T, why string) {
	t.Helper()
	repo := filepath.Join(r.state, "repository")
	file := filepath.Join(repo, "rack", "rack.yaml")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(b, "# "+why+"\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	r.git(t, repo, "commit", "-q", "-a", "-m", why)
	for _, key := range []string{"owner-1.pem", "owner-2.pem"} {
		r.racklet(t, "sign", repo, "--key", filepath.Join(r.state, "keys", key))
	}
	r.git(t, repo, "push", "-q", "origin", "main", "racklet-metadata")
}

// landed checks that faults broke as the scenario says, the same on every run: in its order, and each within a second of its
// time. (What changes within a second of that, a scenario expects itself.)
func landed(t *testing.T, file string, o *fault.Outcome) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s, err := manifest.ParseScenario(file, b)
	if err != nil {
		t.Fatal(err)
	}
	var order, want []string
	for _, e := range o.Record {
		if e.Event == "breaks" {
			order = append(order, e.Fault.String())
		}
	}
	for _, f := range s.Spec.Faults { // in the order of their times
		want = append(want, f.String())
	}
	if !slices.Equal(order, want) {
		t.Errorf("broke in the order %q, want %q", order, want)
	}
	for _, f := range s.Spec.Faults {
		i := slices.IndexFunc(o.Faults, func(x fault.FaultOutcome) bool { return x.Fault == f.String() })
		if i < 0 {
			t.Errorf("%s never broke", f.String())
			continue
		}
		if late := o.Faults[i].At - time.Duration(f.At).Seconds(); f.When == "" && late > 1 {
			t.Errorf("%s broke %.1f s late", f.String(), late)
		}
	}
}

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMachineScenarios plays the scenarios that need machines on one rack with one unit, by the command a user would type.
// Those that need none are sim/headless's. The long ones and the tour, about ten minutes, run by: make scenarios.
func TestMachineScenarios(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a unit several times")
	}
	files, err := filepath.Glob("../examples/scenarios/machine-*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d scenarios, %v", len(files), err)
	}
	r := newRack(t, build(t))
	r.up(t, 1)
	long := os.Getenv("RACKLET_LONG") != ""
	for _, file := range files {
		if !long && filepath.Base(file) != "machine-boots.yaml" {
			continue
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			t.Logf("%s", r.racklet(t, "fault", "run", file))
		})
	}
	wrong := filepath.Join(t.TempDir(), "wrong.yaml")
	if err := os.WriteFile(wrong, []byte(`apiVersion: racklet.io/v1alpha1
kind: Scenario
metadata: {name: wrong}
spec:
  teaches: What is not so must not pass.
  needs: machines
  length: 5s
  expect: [{that: unit-1.rail = off, within: 2s}]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := r.command("", nil, filepath.Join(r.bin, "racklet"), "fault", "run", wrong, "--state", r.state); err == nil {
		t.Errorf("a wrong expectation passes:\n%s", out)
	}
	if long {
		t.Logf("%s", r.racklet(t, "tour", "--yes"))
	}
}

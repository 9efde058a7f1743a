package sim_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/racklet/racklet/sim/fault"
)

// TestScenarioOnTheRack plays a scenario in real time on the rack that also runs machines, here without: two that say what
// is so, one that does not.
func TestScenarioOnTheRack(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute of real time")
	}
	b := quiet(t)
	play := func(t *testing.T, spec string) fault.Outcome {
		t.Helper()
		body := `{"apiVersion": "racklet.io/v1alpha1", "kind": "Scenario", "metadata": {"name": "test"}, "spec": {"teaches": "Nothing new at all.", "needs": "machines", ` + spec + `}}`
		if status, answer := b.call(t, "POST", "/sim/v1/scenario", body); status != 204 {
			t.Fatalf("%d: %s", status, answer)
		}
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			_, answer := b.call(t, "GET", "/sim/v1/scenario", "")
			var o fault.Outcome
			if err := json.Unmarshal(answer, &o); err != nil {
				t.Fatal(err)
			}
			if o.State != "running" {
				for _, e := range o.Record {
					if e.Error != "" {
						t.Error(e.Line())
					}
				}
				return o
			}
			if time.Now().After(deadline) {
				t.Fatalf("does not end: %s", answer)
			}
		}
	}
	time.Sleep(time.Second) // the RMC has heard both BMCs

	o := play(t, `"length": "14s", "without": ["fans-on-sensor-loss"], "faults": [
		{"kind": "fan-stuck", "target": "fan-1", "for": "8s"},
		{"kind": "bmc-hang", "target": "unit-1", "for": "5s"},
		{"kind": "bmc-sensor-lost", "target": "unit-2", "for": "5s"},
		{"kind": "unit-key-stolen", "target": "unit-2", "at": "1s", "for": "1s"},
		{"kind": "partition", "target": "unit-1+unit-2", "for": "2s"},
		{"kind": "link-loss", "target": "unit-1", "for": "2s"},
		{"kind": "git-down", "target": "git", "for": "2s"},
		{"kind": "flash-flip", "target": "unit-2", "with": {"where": "slot-b"}}],
		"expect": [
		{"that": "unit-1.available = false", "within": "5s"},
		{"that": "unit-1.bmc = hung", "within": "1s"},
		{"that": "unit-1.available = true", "after": "6s", "within": "6s"},
		{"that": "unit-2.available = true", "for": "4s"},
		{"that": "unit-2.sensor = lost", "within": "4s"},
		{"that": "unit-2.log = floor.statement", "after": "1s", "within": "3s"},
		{"that": "fan-1.health = stalled", "within": "7s"},
		{"that": "fan-1.health = ok", "after": "9s", "within": "5s"}]`)
	if o.State != "passed" {
		t.Errorf("%+v", o)
	}
	o = play(t, `"length": "8s", "faults": [{"kind": "bmc-slow", "target": "unit-2", "for": "6s", "with": {"delay": "2s"}}],
		"expect": [{"that": "unit-2.available = false", "within": "6s"}]`)
	if o.State != "passed" {
		t.Errorf("%+v", o)
	}
	if o = play(t, `"length": "2s", "expect": [{"that": "unit-1.rail = on", "within": "1s"}]`); o.State != "failed" {
		t.Errorf("a wrong expectation passes: %+v", o)
	}
}

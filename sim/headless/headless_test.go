package headless

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/manifest"
	"github.com/racklet/racklet/rack/racktest"
	"github.com/racklet/racklet/sim/fault"
)

const scenarios = "../../examples/scenarios"

func load(t testing.TB, file string) *rack.Scenario {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s, err := manifest.ParseScenario(filepath.Base(file), b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// report writes what went wrong.
func report(t testing.TB, o *fault.Outcome) {
	t.Helper()
	for _, c := range append(o.Checks, o.Invariants...) {
		if c.State == "failed" {
			t.Errorf("%s: at %.1f s %s", c.That, c.At, c.Seen)
		}
	}
	for _, f := range o.Faults {
		t.Logf("%-60s at %6.1f s, noticed after %6.2f s, healed after %6.2f s", f.Fault, f.At, f.Noticed, f.Healed)
	}
	for _, e := range o.Record {
		if e.Error != "" {
			t.Errorf("%s", e.Line())
		}
	}
}

// TestScenarios runs every scenario of the examples that needs no machine.
func TestScenarios(t *testing.T) {
	racktest.Tool(t, "git")
	files, err := filepath.Glob(scenarios + "/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	for _, file := range files {
		s := load(t, file)
		if want := s.Metadata.Name + ".yaml"; filepath.Base(file) != want {
			t.Errorf("%s is called %s", file, s.Metadata.Name)
		}
		if s.Spec.Needs != rack.NeedsFirmware {
			continue
		}
		t.Run(s.Metadata.Name, func(t *testing.T) {
			t.Parallel()
			o, err := Run(t.Context(), s, "")
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%.0f s in %.2f s", o.Seconds, o.Wall)
			report(t, o)
			if o.Failed() && !t.Failed() {
				t.Errorf("%+v", o)
			}
		})
	}
}

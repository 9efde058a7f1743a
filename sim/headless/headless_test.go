package headless

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

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

var update = flag.Bool("update", false, "write what scenarios measure into docs/faults.md")

// TestScenarios runs every scenario of the examples that needs no machine. What it measures is printed, and docs/faults.md
// has it.
func TestScenarios(t *testing.T) {
	racktest.Tool(t, "git")
	files, err := filepath.Glob(scenarios + "/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	outcomes := make([]*fault.Outcome, len(files))
	passed := t.Run("all", func(t *testing.T) {
		for i, file := range files {
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
				outcomes[i] = o
				t.Logf("%.0f s in %.2f s", o.Seconds, o.Wall)
				report(t, o)
				if o.Failed() && !t.Failed() {
					t.Errorf("%+v", o)
				}
			})
		}
	})
	if !passed {
		return
	}
	outcomes = slices.DeleteFunc(outcomes, func(o *fault.Outcome) bool { return o == nil })
	if len(outcomes) < 40 {
		t.Errorf("only %d scenarios", len(outcomes))
	}
	table := fault.Table(outcomes)
	for line := range strings.Lines(table) {
		t.Attr("table", strings.TrimSpace(line))
	}
	if runtime.GOARCH != "amd64" {
		return // others round otherwise, and physics follows
	}
	const page = "../../docs/faults.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := bytes.Cut(text, []byte("```text headless\n"))
	old, after, end := bytes.Cut(rest, []byte("```\n"))
	switch {
	case !ok || !end:
		t.Fatalf("%s has no table", page)
	case string(old) == table:
	case *update:
		if err := os.WriteFile(page, slices.Concat(before, []byte("```text headless\n"+table+"```\n"), after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s has another table than scenarios measure: go test ./sim/headless -run TestScenarios -update\n%s", page, table)
	}
}

// TestWrongExpectationsFail: a scenario that says what is not so must not pass.
func TestWrongExpectationsFail(t *testing.T) {
	racktest.Tool(t, "git")
	for _, that := range []string{"unit-1.rail = off", "units.running < 4", "fan-1.duty > 100%", "rack.failsafe = true", "unit-2.log = slot.chunk", "unit-3.reason = slot.none"} {
		s := load(t, scenarios+"/steady.yaml")
		s.Spec.Length = rack.Duration(5e9)
		s.Spec.Expect = []rack.Expectation{{That: that, Within: rack.Duration(3e9)}}
		o, err := Run(t.Context(), s, "")
		if err != nil {
			t.Fatal(err)
		}
		if !o.Failed() || o.Checks[0].State != "failed" {
			t.Errorf("%q passes: %+v", that, o.Checks)
		}
	}
}

// TestSameSeedSameRun: outcome and physics are the same, byte for byte.
func TestSameSeedSameRun(t *testing.T) {
	racktest.Tool(t, "git")
	run := func() string {
		s := fault.Storm(7, 3*time.Minute, []string{"unit-1", "unit-2", "unit-3", "unit-4"}, 2, rack.NeedsFirmware)
		o, err := Run(t.Context(), s, "")
		if err != nil {
			t.Fatal(err)
		}
		o.Wall = 0
		b, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if a, b := run(), run(); a != b {
		t.Errorf("two runs differ:\n%s\n%s", a, b)
	}
}

// TestStorms: whatever breaks by chance, the rack returns by itself and every invariant holds.
func TestStorms(t *testing.T) {
	racktest.Tool(t, "git")
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			s := fault.Storm(seed, 4*time.Minute, []string{"unit-1", "unit-2", "unit-3", "unit-4"}, 2, rack.NeedsFirmware)
			o, err := Run(t.Context(), s, "")
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range append(o.Checks, o.Invariants...) {
				if c.State == "failed" {
					t.Errorf("%s: at %.1f s %s", c.That, c.At, c.Seen)
				}
			}
			if t.Failed() {
				for _, e := range o.Record {
					t.Log(e.Line())
				}
			}
		})
	}
}

// TestMutation plants each defect and wants some scenario to catch it.
func TestMutation(t *testing.T) {
	racktest.Tool(t, "git")
	for defect, scenario := range Defects {
		t.Run(defect, func(t *testing.T) {
			t.Parallel()
			o, err := Run(t.Context(), load(t, scenarios+"/"+scenario+".yaml"), defect)
			if err != nil {
				t.Fatal(err)
			}
			caught := 0
			for _, c := range append(o.Checks, o.Invariants...) {
				if c.State == "failed" {
					caught++
					t.Logf("caught by %s: %s", c.That, c.Seen)
				}
			}
			if !o.Failed() || caught == 0 {
				t.Errorf("%s does not notice %s", scenario, defect)
			}
		})
	}
}

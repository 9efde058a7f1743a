package manifest

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func exampleScenarios(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("../../examples/scenarios/*.yaml")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d scenarios, %v", len(files), err)
	}
	all := map[string][]byte{}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = b
	}
	return all
}

// TestScenarioFiles: every example is accepted by decoder and schema, and stays what it is when written again.
func TestScenarioFiles(t *testing.T) {
	s := schemas(t)["Scenario"]
	for name, b := range exampleScenarios(t) {
		if err := judge(t, s, b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		o, err := ParseScenario(name, b)
		if err != nil {
			t.Error(err)
			continue
		}
		again, err := FormatScenario(o)
		if err != nil {
			t.Error(err)
			continue
		}
		if p, err := ParseScenario(name, again); err != nil || !reflect.DeepEqual(o, p) {
			t.Errorf("%s changes when written: %v\n%s", name, err, again)
		}
	}
}

func TestScenarioRefused(t *testing.T) {
	const good = "apiVersion: racklet.io/v1alpha1\nkind: Scenario\nmetadata: {name: x}\nspec:\n  teaches: Nothing much at all.\n  needs: firmware\n  length: 10s\n"
	if _, err := ParseScenario("x.yaml", []byte(good)); err != nil {
		t.Fatal(err)
	}
	for more, want := range map[string]string{
		"  lenght: 10s\n": "x.yaml:8",
		"  faults: [{kind: gremlins, target: rack}]\n":       "no kind of fault",
		"  faults: [{kind: disk-flip, target: unit-1}]\n":    "needs machines",
		"  expect: [{that: unit-1.state=off}]\n":             "want SUBJECT.FIELD OP VALUE",
		"  expect: [{that: unit-1.rail = off, within: 11s}]": "beyond the scenario",
		"  without: [gravity]\n":                             "no invariant",
		"  units: 10\n":                                      "out of range",
		"---\nkind: Scenario\n":                              "a second object",
	} {
		if _, err := ParseScenario("x.yaml", []byte(good+more)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", more, err, want)
		}
	}
	if _, err := ParseFault("f.yaml", []byte("apiVersion: racklet.io/v1alpha1\nkind: Fault\nmetadata: {name: x}\nspec: {kind: power-cut, target: rack, for: 3s}\n")); err != nil {
		t.Error(err)
	}
}

func FuzzParseScenario(f *testing.F) {
	for _, b := range exampleScenarios(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseScenario("x.yaml", b)
		if err != nil {
			return
		}
		if _, err := FormatScenario(s); err != nil {
			t.Error(err)
		}
	})
}

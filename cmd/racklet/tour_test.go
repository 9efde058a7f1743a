package main

import (
	"strings"
	"testing"

	"github.com/racklet/racklet/rack"
)

// TestTourStops: every stop fits on a small screen, its faults and expectations are valid, and it says what to type.
func TestTourStops(t *testing.T) {
	for i, s := range tourStops("unit-1") {
		text := wrapped(s.text, 80)
		for line := range strings.SplitSeq(text, "\n") {
			if len(line) > 80 {
				t.Errorf("%d: %q", i+1, line)
			}
		}
		if n := strings.Count(text, "\n") + 1; n > 5 {
			t.Errorf("%d: %d lines of text", i+1, n)
		}
		if len(s.commands) == 0 || s.title == "" || len(s.show)+len(s.expect) == 0 {
			t.Errorf("%d: nothing to type, to see or to check", i+1)
		}
		for _, c := range s.commands {
			if len(c) > 78 {
				t.Errorf("%d: %q does not fit into 80 columns", i+1, c)
			}
		}
		x := rack.Scenario{TypeMeta: rack.TypeMeta{APIVersion: rack.APIVersion, Kind: rack.KindScenario}, Metadata: rack.Metadata{Name: "x"},
			Spec: rack.ScenarioSpec{Teaches: "A step of the tour.", Needs: rack.NeedsMachines, Length: rack.Duration(max(s.length, 1)), Ends: rack.EndsSettled, Faults: s.faults, Expect: s.expect}}
		if err := x.Validate(); err != nil {
			t.Errorf("%d: %v", i+1, err)
		}
	}
}

func TestWrapped(t *testing.T) {
	if got := wrapped("one two\nthree  fourteen x", 9); got != "one two\nthree\nfourteen\nx" {
		t.Errorf("%q", got)
	}
}

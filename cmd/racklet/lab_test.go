package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/racklet/racklet/rack/racktest"
)

// labFor makes a lab under way in a state directory that has a rack's secret, but no rack.
func labFor(t *testing.T, name, nonce string) *labRun {
	t.Helper()
	l, err := findLab(name)
	if err != nil {
		t.Fatal(err)
	}
	env := &environment{stdin: &bytes.Buffer{}, stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}, state: t.TempDir(), output: "text"}
	r := &labRun{env: env, layout: layout{env.state}, lab: l, state: labState{Lab: name, Nonce: nonce, Data: map[string]string{}}}
	secret := filepath.Join(r.layout.sim(), "githost", "tls.key")
	if err := errors.Join(os.MkdirAll(filepath.Dir(secret), 0o700), os.WriteFile(secret, []byte("secret"), 0o600)); err != nil {
		t.Fatal(err)
	}
	return r
}

// right and refused look at what a check says.
func right(t *testing.T, r *labRun, answer ...string) {
	t.Helper()
	if err := r.lab.check(t.Context(), r, answer); err != nil {
		t.Errorf("%s %q: %v", r.lab.Name, answer, err)
	}
}

func refused(t *testing.T, r *labRun, answer ...string) {
	t.Helper()
	var no *wrongAnswer
	if err := r.lab.check(t.Context(), r, answer); !errors.As(err, &no) {
		t.Errorf("%s %q: %v, want a wrong answer", r.lab.Name, answer, err)
	}
}

func TestLabTexts(t *testing.T) {
	for _, l := range labs() {
		r := labRun{lab: l}
		title, brief, hints, err := r.text()
		if err != nil || title == "" || len(hints) == 0 || !strings.Contains(brief, "Purpose: ") && l.Needs == "" || l.Needs == "" && !strings.Contains(brief, "racklet lab check") {
			t.Errorf("%s: %q, %d hints, %v", l.Name, title, len(hints), err)
		}
		for _, line := range strings.Split(title+"\n"+brief+"\n"+strings.Join(hints, "\n"), "\n") {
			if len(line) > 130 {
				t.Errorf("%s: too long for a terminal: %s", l.Name, line)
			}
		}
		if (l.start == nil || l.check == nil) != (l.Needs != "") {
			t.Errorf("%s can be started without what it needs", l.Name)
		}
	}
}

func TestLabFan(t *testing.T) {
	seen := map[string]bool{}
	for n := range 20 {
		r := labFor(t, "fan", fmt.Sprint(n))
		fan, worn, err := r.fan()
		if err != nil {
			t.Fatal(err)
		}
		name, other := fmt.Sprintf("fan-%d", fan+1), fmt.Sprintf("fan-%d", 2-fan)
		right(t, r, name, fmt.Sprintf("%.0f%%", 100*worn))
		right(t, r, name, fmt.Sprintf("%.1f", 100*worn+3))
		refused(t, r, name, fmt.Sprintf("%.0f", 100*worn+8))
		refused(t, r, other, fmt.Sprintf("%.0f", 100*worn))
		refused(t, r, name)
		refused(t, r)
		refused(t, r, name, "")
		refused(t, r, name, "NaN")
		refused(t, r, name, "a lot")
		seen[fmt.Sprintf("%s %.2f", name, worn)] = true
		if err := r.keep(); err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(r.layout.lab()); bytes.Contains(b, []byte(name)) {
			t.Errorf("the lab's file names the fan: %s", b)
		}
	}
	if len(seen) < 10 {
		t.Errorf("20 starts ask only %d questions", len(seen))
	}
	// Another rack asks something else for the same start.
	a, b := labFor(t, "fan", "1"), labFor(t, "fan", "1")
	os.WriteFile(filepath.Join(b.layout.sim(), "githost", "tls.key"), []byte("another"), 0o600)
	fa, wa, _ := a.fan()
	fb, wb, _ := b.fan()
	if fa == fb && wa == wb {
		t.Error("two racks have the same answer")
	}
}

// TestLabEnergyTooEarly: an answer within the minute is no wrong answer, so it costs none.
func TestLabEnergyTooEarly(t *testing.T) {
	r := labFor(t, "energy", "1")
	r.state.Data["begun"] = time.Now().Add(-20 * time.Second).Format(time.RFC3339)
	var no *wrongAnswer
	if err := r.lab.check(t.Context(), r, []string{"100"}); err == nil || errors.As(err, &no) || !strings.Contains(hintFor(err), "did not count") {
		t.Errorf("%v", err)
	}
}

func TestLabScenario(t *testing.T) {
	racktest.Tool(t, "git")
	// The expectations of a right answer, by kind; %[1]s is the target.
	expect := map[string]string{
		"bmc-hang":        "{that: %[1]s.bmc = hung, after: 17s, within: 3s}, {that: %[1]s.available = false, after: 17s, within: 10s}",
		"tray-pulled":     "{that: %[1]s.present = false, after: 17s, within: 3s}, {that: %[1]s.rail = off, after: 17s, within: 3s}",
		"bmc-sensor-lost": "{that: %[1]s.sensor = lost, after: 17s, within: 10s}, {that: %[1]s.sensor = ok, after: 40s, within: 10s}",
		"unit-power-cut":  "{that: %[1]s.rail = off, after: 17s, within: 8s}, {that: units.on < 4, after: 17s, within: 8s}",
		"fan-stuck":       "{that: rack.failsafe = true, after: 16s, within: 8s}, {that: %[1]s.rpm < 100, after: 18s, within: 8s}",
	}
	write := func(kind, target, expect string) string {
		file := filepath.Join(t.TempDir(), "mine.yaml")
		text := fmt.Sprintf("apiVersion: racklet.io/v1alpha1\nkind: Scenario\nmetadata: {name: mine}\nspec:\n  teaches: Something.\n  needs: firmware\n  length: 60s\n"+
			"  faults: [{kind: %s, target: %s, at: 15s, for: 15s}]\n  expect: [%s]\n", kind, target, expect)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	done := map[string]bool{}
	for n := range 40 {
		r := labFor(t, "scenario", fmt.Sprint(n))
		kind, target, err := r.subject()
		if err != nil {
			t.Fatal(err)
		}
		if done[kind] {
			continue
		}
		done[kind] = true
		mine := fmt.Sprintf(expect[kind], target)
		right(t, r, write(kind, target, mine))
		refused(t, r, write(kind, target, "{that: units.running > 0, for: 10s}, {that: rack.tripped = false, for: 20s}")) // not about it
		refused(t, r, write(kind, target, "{that: rack.tripped = true, within: 5s}, {that: rack.rmc = down, within: 9s}"))
		refused(t, r, write(kind, target, "{that: units.running > 0, for: 10s}"))
		refused(t, r, write("inlet-blocked", "rack", mine))
		refused(t, r)
		refused(t, r, filepath.Join(t.TempDir(), "nothing.yaml"))
	}
	if len(done) != len(subjects) {
		t.Errorf("only %d of %d subjects were asked for", len(done), len(subjects))
	}
}

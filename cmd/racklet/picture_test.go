package main

import (
	"bytes"
	"flag"
	"fmt"
	"html"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "rewrite golden files and docs/rack.svg")

// aRack is a rack in which everything happens at once.
func aRack() *Status {
	commit := "9f1c3ab4d7e2c65a0b918d3341e0f27c5a6b8d90"
	unit := func(slot int, stage string) UnitStatus {
		return UnitStatus{
			Name: fmt.Sprintf("unit-%d", slot), Slot: slot, Power: "On", DesiredPower: "On", State: "running", Stage: stage, BootSlot: "A",
			Watts: 3.1, TemperatureCelsius: 38, Available: true, Present: true,
		}
	}
	s := &Status{
		Rack: RackStatus{Name: "rack", State: "Enabled", Watts: 21.4, BudgetWatts: 100, InletCelsius: 23.4,
			Fans: []FanStatus{{Name: "fan-1", RPM: 1817, DutyPercent: 30, Health: "OK"}, {Name: "fan-2", RPM: 0, DutyPercent: 100, Health: "Critical"}}},
		Units: []UnitStatus{unit(1, "running"), unit(2, "fetch"), unit(3, "failed"), unit(4, "running")},
	}
	s.Units[0].Commit, s.Units[0].Release = commit, "0.1.0"
	s.Units[2].Reason, s.Units[2].Expected, s.Units[2].Seen = "tuf.targets", "2 signatures of owners", "1 (owner-1)"
	s.Units[3].Available, s.Units[3].AgeSeconds = false, 12
	return s
}

// TestPicture holds the picture against a golden file, and docs/rack.svg, the
// picture in the README, against what the program draws.
func TestPicture(t *testing.T) {
	var plain, colored bytes.Buffer
	rows := painter{width: 96}.draw(&plain, aRack(), 14*time.Second)
	if n := strings.Count(plain.String(), "\n"); n != rows {
		t.Errorf("%d rows announced, %d drawn", rows, n)
	}
	for i, l := range strings.Split(strings.TrimSuffix(plain.String(), "\n"), "\n") {
		if n := utf8.RuneCountInString(strings.TrimSuffix(l, "\x1b[K")); n != 96 {
			t.Errorf("row %d has %d columns, want 96", i, n)
		}
	}
	golden(t, "testdata/picture.golden", strings.ReplaceAll(plain.String(), "\x1b[K", ""))
	painter{width: 96, color: true}.draw(&colored, aRack(), 14*time.Second)
	golden(t, "../../docs/rack.svg", svg(colored.String()))
}

// TestPictureNarrow shows that a row never breaks the frame.
func TestPictureNarrow(t *testing.T) {
	for width := range 140 {
		for _, color := range []bool{false, true} {
			var b bytes.Buffer
			painter{width: width, color: color}.draw(&b, aRack(), time.Hour)
			for _, l := range strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n") {
				if n := utf8.RuneCountInString(escapes.ReplaceAllString(l, "")); n != max(width, 60) {
					t.Fatalf("width %d, color %v: %d columns: %q", width, color, n, l)
				}
			}
		}
	}
}

var escapes = regexp.MustCompile("\x1b\\[[0-9]*[mK]")

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: not what is drawn now; run go test ./cmd/racklet -update\n%s", file, got)
	}
}

// svg turns terminal output into a picture.
func svg(text string) string {
	colors := map[string]string{green: "#3fb950", yellow: "#d29922", red: "#ff7b72", cyan: "#39c5cf", faint: "#7d8590"}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	const line, char, pad = 20, 8.43, 16
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%d" role="img" aria-label="A rack of four units in the terminal: one runs, one boots, one refused its source, one BMC is silent">`+"\n", 96*char+2*pad, len(lines)*line+2*pad)
	b.WriteString(`<rect width="100%" height="100%" rx="8" fill="#0d1117"/>` + "\n" +
		`<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,DejaVu Sans Mono,monospace" font-size="14" fill="#e6edf3">` + "\n")
	for i, l := range lines {
		fmt.Fprintf(&b, `<text x="%d" y="%d" textLength="%.0f" lengthAdjust="spacingAndGlyphs">`, pad, pad+line*(i+1)-5, 96*char)
		open := false
		for len(l) > 0 {
			at := strings.IndexByte(l, '\x1b')
			if at < 0 {
				at = len(l)
			}
			b.WriteString(strings.ReplaceAll(html.EscapeString(l[:at]), " ", "\u00a0")) // a renderer folds plain spaces
			l = l[at:]
			m := escapes.FindString(l)
			if m == "" {
				break
			}
			l = l[len(m):]
			if open {
				b.WriteString("</tspan>")
				open = false
			}
			switch code := m[2 : len(m)-1]; {
			case colors[code] != "":
				fmt.Fprintf(&b, `<tspan fill="%s">`, colors[code])
				open = true
			case code == bold:
				b.WriteString(`<tspan font-weight="bold">`)
				open = true
			}
		}
		if open {
			b.WriteString("</tspan>")
		}
		b.WriteString("</text>\n")
	}
	b.WriteString("</g></svg>\n")
	return b.String()
}

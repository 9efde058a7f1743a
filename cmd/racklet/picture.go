package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// stages are the steps of a boot in their order, as BMCs report them. The
// picture's bar has one cell for each.
var stages = []string{"off", "powered", "medium", "bootstrap", "network", "source", "verified", "fetch", "artifact", "handover", "os", "running"}

// A painter draws a rack as text. Colours are left out when the output is no
// terminal or NO_COLOR is set.
type painter struct {
	color bool
	width int // columns; below 60 counts as 60
}

const (
	green  = "32"
	yellow = "33"
	red    = "31"
	cyan   = "36"
	faint  = "2"
	bold   = "1"
)

func (p painter) paint(code, s string) string {
	if !p.color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// draw writes the front view of the rack: one row per slot, from the top.
func (p painter) draw(w io.Writer, s *Status, elapsed time.Duration) int {
	width := max(p.width, 60)
	inner := width - 4
	var rows []string
	title := fmt.Sprintf(" %s ", s.Rack.Name)
	right := fmt.Sprintf(" %s ", elapsed.Round(time.Second))
	rows = append(rows, "╭─"+p.paint(bold, title)+strings.Repeat("─", max(width-4-len(title)-len(right), 0))+right+"─╮")
	rows = append(rows, p.row(p.rackRow(&s.Rack), inner))
	rows = append(rows, "├"+strings.Repeat("─", width-2)+"┤")
	for i := range s.Units {
		rows = append(rows, p.row(p.unitRow(&s.Units[i], inner), inner))
	}
	rows = append(rows, "╰"+strings.Repeat("─", width-2)+"╯")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\x1b[K\n", r)
	}
	return len(rows)
}

// row frames one line, cut or filled to the inner width. Escape sequences
// take no room.
func (p painter) row(s string, inner int) string {
	n, cut, escape := 0, len(s), false
	for i, r := range s {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r != 'm'
		case n == inner:
			cut = min(cut, i)
		default:
			n++
		}
	}
	tail := ""
	if cut < len(s) && p.color {
		tail = "\x1b[0m"
	}
	return "│ " + s[:cut] + tail + strings.Repeat(" ", inner-n) + " │"
}

func (p painter) rackRow(r *RackStatus) string {
	if r.State != "" && r.State != "Enabled" {
		return p.paint(red, fmt.Sprintf("RMC silent for %.0f s; last values: ", r.AgeSeconds)) + fmt.Sprintf("%.1f W, inlet %.1f °C", r.Watts, r.InletCelsius)
	}
	s := fmt.Sprintf("%s %5.1f W of %.0f W   inlet %4.1f °C  ", p.gauge(r.Watts, r.BudgetWatts), r.Watts, r.BudgetWatts, r.InletCelsius)
	for _, f := range r.Fans {
		fan := fmt.Sprintf(" ✣ %4.0f rpm %3.0f %%", f.RPM, f.DutyPercent)
		if f.Health != "" && f.Health != "OK" {
			fan = p.paint(red, fan+" "+f.Health)
		}
		s += fan + " "
	}
	return s
}

func (p painter) gauge(v, of float64) string {
	levels := []rune("▁▂▃▄▅▆▇█")
	if of <= 0 {
		return string(levels[0])
	}
	i := min(max(int(v/of*float64(len(levels))), 0), len(levels)-1)
	return p.paint(cyan, string(levels[i]))
}

func (p painter) unitRow(u *UnitStatus, inner int) string {
	lamp, word := p.lamp(u)
	head := fmt.Sprintf("%s %d %-8s ", lamp, u.Slot, u.Name)
	if u.Reason != "" && !u.running() {
		return head + p.paint(red, fmt.Sprintf("%-10s ", word)+failureText(u))
	}
	s := head + fmt.Sprintf("%-10s ", word) + p.bar(u)
	if u.Available && u.Power != "Off" {
		s += fmt.Sprintf(" %4.1f W %3.0f °C", u.Watts, u.TemperatureCelsius)
	}
	if u.BootSlot != "" {
		s += " slot " + u.BootSlot
	}
	if u.Commit != "" {
		s += " " + p.paint(faint, short(u.Commit)) + " " + u.Release
	}
	if u.Stale {
		s += p.paint(yellow, " stale")
	}
	if u.EvidenceVoid {
		s += p.paint(yellow, " evidence void")
	}
	return s
}

func (p painter) lamp(u *UnitStatus) (lamp, word string) {
	word = stageText(u)
	switch {
	case !u.Present:
		return " ", word
	case !u.Available:
		return p.paint(yellow, "?"), word
	case u.failed():
		return p.paint(red, "✗"), word
	case u.running():
		return p.paint(green, "●"), word
	case u.Power == "Off":
		return p.paint(faint, "○"), "off"
	}
	return p.paint(yellow, "◐"), word
}

// bar shows how far the boot came.
func (p painter) bar(u *UnitStatus) string {
	at := 0
	for i, s := range stages {
		if s == u.Stage {
			at = i
		}
	}
	if u.Power == "Off" || !u.Available {
		at = 0
	}
	full, code := strings.Repeat("━", at), yellow
	if u.running() {
		code = green
	}
	rest := strings.Repeat("╌", len(stages)-1-at)
	if utf8.RuneCountInString(full) == 0 {
		return p.paint(faint, rest)
	}
	return p.paint(code, full) + p.paint(faint, rest)
}

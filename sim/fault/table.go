package fault

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
)

// Table is what outcomes of scenarios say about each kind of fault, one per line: how often it broke, how long it took to be
// noticed and, from its end, to heal. It is what CI prints and docs/faults.md keeps.
func Table(outcomes []*Outcome) string {
	type times struct {
		n               int
		noticed, healed []float64
	}
	kinds := map[string]*times{}
	for _, o := range outcomes {
		for _, f := range o.Faults {
			kind, _, _ := strings.Cut(f.Fault, " ")
			t := kinds[kind]
			if t == nil {
				t = &times{}
				kinds[kind] = t
			}
			t.n++
			if f.Noticed >= 0 {
				t.noticed = append(t.noticed, f.Noticed)
			}
			if f.Healed >= 0 {
				t.healed = append(t.healed, f.Healed)
			}
		}
	}
	var names []string
	for name := range kinds {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "FAULT\tTIMES\tNOTICED AFTER\tHEALED AFTER")
	for _, name := range names {
		t := kinds[name]
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", name, t.n, span(t.noticed, t.n), span(t.healed, t.n))
	}
	w.Flush() // into memory
	return b.String()
}

// span writes the least and the greatest of some of n times.
func span(s []float64, n int) string {
	if len(s) == 0 {
		return "-"
	}
	low, high := slices.Min(s), slices.Max(s)
	text := fmt.Sprintf("%.1f s", low)
	if fmt.Sprintf("%.1f", low) != fmt.Sprintf("%.1f", high) {
		text = fmt.Sprintf("%.1f to %.1f s", low, high)
	}
	if len(s) < n {
		text += fmt.Sprintf(" (%d of %d)", len(s), n)
	}
	return text
}

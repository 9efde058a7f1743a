package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"
)

// A stopwatch notes when each unit reached each stage of its boot, by wall
// clock since power-on and by CPU seconds of its emulated machine. Looking
// takes a while and stages can be shorter, so the times are those of the BMCs'
// logs, and the CPU seconds lie on a line between two looks.
type stopwatch struct {
	cpu   func(context.Context) map[string]float64 // by unit; nil values are unknown
	log   func(context.Context, string) ([]LogEntry, error)
	units []string
	looks map[string][]look
	at    map[string]map[string]lap
}

type lap struct{ wall, cpu float64 }

// A look is what a machine had used at a moment.
type look struct {
	at  time.Time
	cpu float64
}

func newStopwatch(env *environment, c *redfishClient) *stopwatch {
	log := func(ctx context.Context, unit string) ([]LogEntry, error) { return readEvents(ctx, c, unit) }
	return &stopwatch{cpu: env.machineCPU, log: log, looks: map[string][]look{}, at: map[string]map[string]lap{}}
}

// note looks once.
func (w *stopwatch) note(ctx context.Context, s *Status) {
	var cpu map[string]float64
	for i := range s.Units {
		u := &s.Units[i]
		if u.Power == "Off" || u.Stage == "off" || !u.Available {
			continue
		}
		if cpu == nil {
			cpu = w.cpu(ctx)
		}
		if w.looks[u.Name] == nil {
			w.units = append(w.units, u.Name)
		}
		w.looks[u.Name] = append(w.looks[u.Name], look{time.Now(), cpu[u.Name]})
	}
}

// finish reads the logs.
func (w *stopwatch) finish(ctx context.Context) error {
	for _, u := range w.units {
		entries, err := w.log(ctx, u)
		if err != nil {
			return fmt.Errorf("read the log of %s: %w", u, err)
		}
		w.at[u] = laps(entries, w.looks[u])
	}
	return nil
}

// laps picks the stages of the last boot out of a unit's log, oldest entry first.
func laps(entries []LogEntry, looks []look) map[string]lap {
	at := map[string]lap{}
	var on time.Time
	for _, e := range entries {
		created, err := time.Parse(time.RFC3339Nano, e.Created)
		if err != nil || e.Stage == "" {
			continue
		}
		if e.Stage == "powered" {
			clear(at)
			on = created
		}
		if _, seen := at[e.Stage]; !seen && !on.IsZero() {
			at[e.Stage] = lap{created.Sub(on).Seconds(), between(on, looks, created)}
		}
	}
	return at
}

// between is the CPU seconds at a moment. A machine starts from nothing when
// its power comes on.
func between(on time.Time, looks []look, at time.Time) float64 {
	before := look{at: on}
	for _, l := range looks {
		if l.at.Before(on) {
			continue
		}
		if l.at.Before(at) {
			before = l
			continue
		}
		if span := l.at.Sub(before.at); span > 0 && l.cpu > before.cpu {
			return before.cpu + (l.cpu-before.cpu)*float64(at.Sub(before.at))/float64(span)
		}
		return before.cpu
	}
	return before.cpu
}

// write prints one row per stage and a column per unit: seconds since
// power-on, and CPU seconds of the machine so far.
func (w *stopwatch) write(out io.Writer) {
	if len(w.units) == 0 {
		return
	}
	t := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "\nseconds since power-on (CPU seconds)\t%s\t\n", strings.Join(w.units, "\t"))
	for _, stage := range append(stages[1:len(stages):len(stages)], "failed") {
		row, any := stage, false
		for _, u := range w.units {
			l, ok := w.at[u][stage]
			any = any || ok
			if ok {
				row += fmt.Sprintf("\t%.1f (%.1f)", l.wall, l.cpu)
			} else {
				row += "\t"
			}
		}
		if any {
			fmt.Fprintf(t, "%s\t\n", row)
		}
	}
	t.Flush()
}

// dialSim returns a client of the virtual rack's /sim/v1.
func (env *environment) dialSim() (*http.Client, error) {
	socket, err := layout{env.state}.socket("sim")
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.DialContext(ctx, "unix", socket)
	}}}, nil
}

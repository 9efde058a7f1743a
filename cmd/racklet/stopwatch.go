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
// clock since power-on and by CPU seconds of its emulated machine.
type stopwatch struct {
	cpu   func(context.Context) map[string]float64 // by unit; nil values are unknown
	units []string
	at    map[string]map[string]lap
	on    map[string]time.Time
}

type lap struct{ wall, cpu float64 }

func newStopwatch(env *environment) *stopwatch {
	return &stopwatch{cpu: env.machineCPU, at: map[string]map[string]lap{}, on: map[string]time.Time{}}
}

func (w *stopwatch) note(ctx context.Context, s *Status) {
	var cpu map[string]float64
	for i := range s.Units {
		u := &s.Units[i]
		if u.Power == "Off" || u.Stage == "off" || !u.Available {
			continue
		}
		if w.at[u.Name] == nil {
			w.units = append(w.units, u.Name)
			w.at[u.Name] = map[string]lap{}
			w.on[u.Name] = time.Now().Add(-time.Duration(u.RailSeconds * float64(time.Second)))
		}
		if _, seen := w.at[u.Name][u.Stage]; seen {
			continue
		}
		if cpu == nil {
			cpu = w.cpu(ctx)
		}
		w.at[u.Name][u.Stage] = lap{time.Since(w.on[u.Name]).Seconds(), cpu[u.Name]}
	}
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

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/racklet/racklet/rack"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func newStatus(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		GroupID: "operate",
		Short:   "Show units, stages, watts and fans on one screen",
		Long:    "Status shows the rack once. The JSON and YAML forms have a stable schema (docs/status.md).",
		Example: "  racklet status\n  racklet status -o wide\n  racklet status -o json",
		Args:    cobra.NoArgs,
		RunE: env.ofStatus(func(s *Status) error {
			return env.print(s, func(w io.Writer) error { return writeStatusTable(w, s, env.output == "wide") })
		}),
	}
}

func newWatch(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:     "watch",
		GroupID: "operate",
		Short:   "Show the rack live until interrupted",
		Long:    "Watch draws the rack's front view and keeps it current. With -o json it prints one status document per second, one per line.",
		Example: "  racklet watch\n  racklet watch -o json",
		Args:    cobra.NoArgs,
		RunE: env.withClient(func(ctx context.Context, client *redfishClient, _ []string) error {
			if env.output == "json" {
				return watchJSON(ctx, client, env.stdout)
			}
			screen := newScreen(env.stdout)
			defer screen.close()
			start := time.Now()
			return poll(ctx, 250*time.Millisecond, func() (bool, error) {
				s, err := readStatus(ctx, client)
				if err == nil {
					screen.show(s, time.Since(start))
				}
				return false, err
			})
		}),
	}
}

func watchJSON(ctx context.Context, client *redfishClient, w io.Writer) error {
	e := json.NewEncoder(w)
	return poll(ctx, time.Second, func() (bool, error) {
		s, err := readStatus(ctx, client)
		if err != nil {
			return false, err
		}
		return false, e.Encode(s)
	})
}

// poll calls f at once and then every interval, until f is done or fails or
// ctx ends; the end of ctx is no error.
func poll(ctx context.Context, every time.Duration, f func() (done bool, err error)) error {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		done, err := f()
		if ctx.Err() != nil {
			return nil
		}
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// A screen draws the rack in place on a terminal. On anything else it prints a
// line whenever a unit's stage changes.
type screen struct {
	out      io.Writer
	terminal bool
	painter  painter
	rows     int
	seen     map[string]string
}

func newScreen(out io.Writer) *screen {
	s := &screen{out: out, seen: map[string]string{}, painter: painter{width: 100}}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		s.terminal = true
		s.painter.color = os.Getenv("NO_COLOR") == ""
		if w, _, err := term.GetSize(int(f.Fd())); err == nil {
			s.painter.width = w
		}
		fmt.Fprint(out, "\x1b[?25l")
	}
	return s
}

func (s *screen) show(st *Status, elapsed time.Duration) {
	if !s.terminal {
		for i := range st.Units {
			u := &st.Units[i]
			line := stageText(u)
			if u.Reason != "" && !u.running() {
				line += ": " + failureText(u)
			}
			if s.seen[u.Name] != line {
				s.seen[u.Name] = line
				fmt.Fprintf(s.out, "%6.1fs  %s: %s\n", elapsed.Seconds(), u.Name, line)
			}
		}
		return
	}
	if s.rows > 0 {
		fmt.Fprintf(s.out, "\x1b[%dA", s.rows)
	}
	s.rows = s.painter.draw(s.out, st, elapsed)
}

func (s *screen) close() {
	if s.terminal {
		fmt.Fprint(s.out, "\x1b[?25h")
	}
}

// Explanation is what `racklet why` says of one unit.
type Explanation struct {
	Unit     string `json:"unit"`
	Stage    string `json:"stage"`
	Reason   string `json:"reason"`
	Text     string `json:"text"`
	Expected string `json:"expected"`
	Seen     string `json:"seen"`
	Cure     string `json:"cure"`
}

func newWhy(env *environment) *cobra.Command {
	c := &cobra.Command{
		Use:     "why UNIT",
		GroupID: "operate",
		Short:   "Name the check that failed on a unit, what was expected and seen, and the cure",
		Example: "  racklet why unit-2\n  racklet why unit-2 -o json",
		Args:    exactUnit,
		RunE: env.withClient(func(ctx context.Context, client *redfishClient, args []string) error {
			u, err := readUnitByName(ctx, client, args[0])
			if err != nil {
				return err
			}
			e := explain(u)
			return env.print(e, func(w io.Writer) error { return writeExplanation(w, e) })
		}),
	}
	c.ValidArgsFunction = env.completeUnits
	return c
}

func explain(u *UnitStatus) *Explanation {
	e := &Explanation{Unit: u.Name, Stage: stageText(u), Reason: u.Reason, Expected: u.Expected, Seen: u.Seen}
	if u.Reason == "" {
		return e
	}
	if r, ok := rack.LookupReason(u.Reason); ok {
		e.Text, e.Cure = r.Text, r.Cure
	}
	return e
}

func writeExplanation(w io.Writer, e *Explanation) error {
	if e.Reason == "" {
		_, err := fmt.Fprintf(w, "%s: %s; no check has failed\n", e.Unit, e.Stage)
		return err
	}
	fmt.Fprintf(w, "%s: %s\n  check     %s\n", e.Unit, e.Stage, e.Reason)
	for _, l := range []struct{ name, text string }{{"means", e.Text}, {"expected", e.Expected}, {"saw", e.Seen}, {"cure", e.Cure}} {
		if l.text != "" {
			fmt.Fprintf(w, "  %-9s %s\n", l.name, l.text)
		}
	}
	return nil
}

func newEvents(env *environment) *cobra.Command {
	var follow bool
	var unit string
	c := &cobra.Command{
		Use:     "events",
		GroupID: "operate",
		Short:   "Print what BMCs and RMC have logged",
		Long:    "Events prints the log of the rack: power, boot stages, refusals, floors. With --follow it stays and prints events as they come.",
		Example: "  racklet events --unit unit-1\n  racklet events --follow -o json",
		Args:    cobra.NoArgs,
		RunE: env.withClient(func(ctx context.Context, client *redfishClient, _ []string) error {
			if follow {
				return followEvents(ctx, client, env, unit)
			}
			entries, err := readEvents(ctx, client, unit)
			if err != nil {
				return err
			}
			return env.printEntries(entries)
		}),
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "stay and print events as they come")
	c.Flags().StringVar(&unit, "unit", "", "only events of this unit's BMC")
	c.RegisterFlagCompletionFunc("unit", env.completeUnits)
	return c
}

// LogEntry is one event as the management API tells it.
type LogEntry struct {
	Source  string `json:"source"` // unit-1, or rmc
	ID      string `json:"id"`
	Created string `json:"created"`
	Kind    string `json:"kind"`
	Boot    int    `json:"boot"`            // power-ons that the BMC had counted
	Stage   string `json:"stage,omitempty"` // of an event of kind stage
	Message string `json:"message"`
	// The check that failed, if one did.
	Reason   string `json:"reason,omitempty"`
	Expected string `json:"expected,omitempty"`
	Seen     string `json:"seen,omitempty"`
}

// printEntries prints log entries, one a line.
func (env *environment) printEntries(entries []LogEntry) error {
	return env.print(entries, func(w io.Writer) error {
		for i := range entries {
			fmt.Fprintln(w, entries[i].line())
		}
		return nil
	})
}

func (e *LogEntry) line() string {
	return fmt.Sprintf("%-30s %-8s %-10s %s", e.Created, e.Source, e.Kind, e.Message)
}

// followEvents reads the server-sent events of the Redfish EventService
// (DSP0266, section 13.5) until ctx ends.
func followEvents(ctx context.Context, client *redfishClient, env *environment, unit string) error {
	req, err := client.request(ctx, http.MethodGet, "/redfish/v1/EventService/SSE", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := client.http.Do(req)
	if err != nil {
		return client.explain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		return client.refused(resp.StatusCode, b)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data:")
		if !ok {
			continue
		}
		for _, e := range parseEventRecord([]byte(data)) {
			if unit != "" && e.Source != unit {
				continue
			}
			if env.output == "json" {
				json.NewEncoder(env.stdout).Encode(e)
			} else {
				fmt.Fprintln(env.stdout, e.line())
			}
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return lines.Err()
}

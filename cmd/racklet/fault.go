package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/manifest"
	"github.com/racklet/racklet/sim/fault"
)

func newFault(env *environment) *cobra.Command {
	c := &cobra.Command{
		Use:     "fault",
		GroupID: "rack",
		Short:   "Break the virtual rack on purpose, and see what notices",
		Long: `Fault breaks one physical thing or many, now or by a plan, and heals it again. What is broken
is the virtual rack's copper, air and chips; firmware and units notice only what their sensors tell.

A scenario is a file that says what breaks when and what must hold meanwhile. Scenarios that need no booting machine run
in simulated time, without a rack; the others run on the rack of the state directory.`,
		Example: `  racklet fault kinds
  racklet fault inject fan-stuck fan-1 --for 20s
  racklet fault inject brown-out --with sag=40% --for 5s
  racklet fault run examples/scenarios/brown-out.yaml
  racklet fault storm --seed 7 --minutes 5`,
	}
	c.AddCommand(newFaultKinds(env), newFaultList(env), newFaultInject(env), newFaultClear(env), newFaultRun(env), newFaultStorm(env),
		newFaultRecord(env), newFaultReplay(env))
	return c
}

// simCall does one operation of /sim/v1. in and out may be nil.
func (env *environment) simCall(ctx context.Context, method, path string, in, out any) error {
	client, err := env.dialSim()
	if err != nil {
		return err
	}
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://sim"+path, body)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	switch {
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
		return errNoRack
	case err != nil:
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		var e struct{ Error string }
		if json.Unmarshal(b, &e) != nil || e.Error == "" {
			e.Error = strings.TrimSpace(string(b))
		}
		return errors.New(e.Error)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

func newFaultKinds(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:     "kinds",
		Short:   "List all that can break, one per line",
		Long:    "Kinds lists every kind of fault: what it breaks, what happens, and its parameters with range and default.",
		Example: "  racklet fault kinds\n  racklet fault kinds -o json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return env.print(rack.FaultKinds, func(w io.Writer) error {
				t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
				for i := range rack.FaultKinds {
					k := &rack.FaultKinds[i]
					fmt.Fprintf(t, "%s\t%s\t%s%s\n", k.Name, k.Target, k.Text, parameters(k))
				}
				return t.Flush()
			})
		},
	}
}

func parameters(k *rack.FaultKind) string {
	var all []string
	for i := range k.Parameters {
		p := &k.Parameters[i]
		all = append(all, fmt.Sprintf("%s=%s: %s, %s", p.Name, p.Standard(), p.Text, p.Range()))
	}
	if all == nil {
		return ""
	}
	return " (" + strings.Join(all, "; ") + ")"
}

func newFaultList(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the faults that are active or wait",
		Example: "  racklet fault list\n  racklet fault list -o json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var all []fault.Active
			if err := env.simCall(c.Context(), http.MethodGet, "/sim/v1/faults", nil, &all); err != nil {
				return err
			}
			return env.print(all, func(w io.Writer) error {
				if len(all) == 0 {
					_, err := fmt.Fprintln(w, "nothing is broken")
					return err
				}
				for i := range all {
					a := &all[i]
					left := ""
					if a.Left > 0 {
						left = fmt.Sprintf(", heals in %.0f s", a.Left)
					}
					fmt.Fprintf(w, "#%d\t%s\t%s%s\n", a.ID, a.State, a.Fault.String(), left)
				}
				return nil
			})
		},
	}
}

func newFaultInject(env *environment) *cobra.Command {
	var f rack.FaultSpec
	var at, length time.Duration
	var with []string
	c := &cobra.Command{
		Use:   "inject KIND [TARGET]",
		Short: "Break something",
		Long: `Inject breaks something, at once, after --at or --when something is so, until --for has passed, --until has come true, or it is cleared.
TARGET is a unit, a fan (fan-1) or a port of the switch (a unit's name, or gateway); kinds that break the rack, its RMC
or a service need none.`,
		Example: `  racklet fault inject tray-pulled unit-2 --for 20s
  racklet fault inject link-loss unit-1 --with loss=30%
  racklet fault inject inlet-blocked --until "rack.throttling = true"`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return &usageError{errors.New("fault inject: want a kind and, for most, a target (racklet fault kinds)")}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			f.Kind, f.At, f.For = args[0], rack.Duration(at), rack.Duration(length)
			if len(args) == 2 {
				f.Target = args[1]
			} else {
				f.Target = onlyTarget(f.Kind)
			}
			for _, w := range with {
				name, value, ok := strings.Cut(w, "=")
				if !ok {
					return &usageError{fmt.Errorf("--with %q: want NAME=VALUE", w)}
				}
				if f.With == nil {
					f.With = map[string]string{}
				}
				f.With[name] = value
			}
			if err := f.Validate(); err != nil {
				return &usageError{err}
			}
			var done struct {
				ID int `json:"id"`
			}
			if err := env.simCall(c.Context(), http.MethodPost, "/sim/v1/faults", &f, &done); err != nil {
				return err
			}
			return env.print(done, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "#%d %s\n", done.ID, f.String())
				return err
			})
		},
		ValidArgsFunction: func(c *cobra.Command, args []string, to string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return rack.FaultKindNames(), cobra.ShellCompDirectiveNoFileComp
			}
			if k, ok := rack.LookupFaultKind(args[0]); ok && k.Target == rack.OnFan {
				return []string{"fan-1", "fan-2"}, cobra.ShellCompDirectiveNoFileComp
			}
			return env.completeUnits(c, args[1:], to)
		},
	}
	c.Flags().DurationVar(&at, "at", 0, "wait this long before")
	c.Flags().DurationVar(&length, "for", 0, "heal by itself after this time (default: until cleared)")
	c.Flags().StringVar(&f.When, "when", "", "break when this `condition` is true")
	c.Flags().StringVar(&f.Until, "until", "", "heal when this `condition` is true")
	c.Flags().StringArrayVar(&with, "with", nil, "`NAME=VALUE` of a parameter; repeatable (racklet fault kinds)")
	return c
}

// onlyTarget is the target of a kind that can have only one.
func onlyTarget(kind string) string {
	k, ok := rack.LookupFaultKind(kind)
	switch {
	case !ok:
	case k.Target == rack.OnRack || k.Target == rack.OnRMC:
		return k.Target
	case k.Name == "mirror-down":
		return "mirror"
	case k.Target == rack.OnService:
		return "git"
	}
	return ""
}

func newFaultClear(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:     "clear [NUMBER]...",
		Short:   "Heal faults, or all of them",
		Example: "  racklet fault clear\n  racklet fault clear 3",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				var done struct {
					Count int `json:"count"`
				}
				if err := env.simCall(c.Context(), http.MethodDelete, "/sim/v1/faults", nil, &done); err != nil {
					return err
				}
				return env.print(done, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "%d faults cleared\n", done.Count)
					return err
				})
			}
			for _, a := range args {
				id, err := strconv.Atoi(strings.TrimPrefix(a, "#"))
				if err != nil {
					return &usageError{fmt.Errorf("fault clear: %q is no number (racklet fault list)", a)}
				}
				if err := env.simCall(c.Context(), http.MethodDelete, fmt.Sprintf("/sim/v1/faults/%d", id), nil, nil); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func newFaultRecord(env *environment) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "record",
		Short: "Print what was broken so far as a scenario to replay",
		Long: `Record prints every fault that was injected into the running rack, with the time and the duration that it had, as a
scenario file. Add expectations to it and it is a test.`,
		Example: "  racklet fault record --write mine.yaml\n  racklet fault replay mine.yaml",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var record []fault.Entry
			if err := env.simCall(c.Context(), http.MethodGet, "/sim/v1/faults/record", nil, &record); err != nil {
				return err
			}
			if env.output == "json" || env.output == "yaml" {
				return env.print(record, nil)
			}
			s := recording(record)
			b, err := manifest.FormatScenario(s)
			if err != nil {
				return err
			}
			if file == "" {
				_, err = env.stdout.Write(b)
				return err
			}
			return os.WriteFile(file, b, 0o644)
		},
	}
	c.Flags().StringVarP(&file, "write", "w", "", "`file` to write; nothing is standard output")
	return c
}

func recording(record []fault.Entry) *rack.Scenario {
	faults := fault.Recorded(record)
	length := rack.Duration(30 * time.Second)
	for _, f := range faults {
		length = max(length, f.At+f.For+rack.Duration(30*time.Second))
	}
	return &rack.Scenario{TypeMeta: rack.TypeMeta{APIVersion: rack.APIVersion, Kind: rack.KindScenario}, Metadata: rack.Metadata{Name: "recorded"},
		Spec: rack.ScenarioSpec{Teaches: "Recorded from a running rack.", Needs: rack.NeedsMachines, Length: length, Faults: faults}}
}

func newFaultReplay(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:     "replay FILE",
		Short:   "Break again what was recorded, at the same times, on the running rack",
		Example: "  racklet fault replay mine.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := readScenario(args[0])
			if err != nil {
				return err
			}
			return env.finish(env.runOnRack(c.Context(), s))
		},
	}
}

func readScenario(file string) (*rack.Scenario, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return manifest.ParseScenario(file, b)
}

// scenarioFiles are the files named, and those in folders named.
func scenarioFiles(args []string) ([]string, error) {
	var files []string
	for _, a := range args {
		st, err := os.Stat(a)
		if err != nil {
			return nil, err
		}
		if !st.IsDir() {
			files = append(files, a)
			continue
		}
		found, err := filepath.Glob(filepath.Join(a, "*.yaml"))
		if err != nil {
			return nil, err
		}
		slices.Sort(found)
		files = append(files, found...)
	}
	return files, nil
}

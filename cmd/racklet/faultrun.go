package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/rack/manifest"
	"github.com/racklet/racklet/sim/fault"
	"github.com/racklet/racklet/sim/headless"
)

func newFaultRun(env *environment) *cobra.Command {
	var quick bool
	c := &cobra.Command{
		Use:   "run FILE...",
		Short: "Run scenarios and check what they expect",
		Long: `Run plays scenario files, or all of a folder. Those that need no machine run here, in simulated time and side by side, on
racks of their own with the real firmware; those that need machines run on the rack of the state directory, one after the
other. It prints what broke, how long it took to be noticed and to heal, and every expectation that did not come true;
then it ends with 1.`,
		Example: `  racklet fault run examples/scenarios/stuck-fan.yaml
  racklet fault run --quick examples/scenarios
  racklet fault run examples/scenarios/overheating.yaml -o json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{errors.New("fault run: want scenario files, or folders of them")}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error { return env.faultRun(c.Context(), args, quick) },
	}
	c.Flags().BoolVar(&quick, "quick", false, "leave scenarios that need machines out")
	return c
}

func (env *environment) faultRun(ctx context.Context, args []string, quick bool) error {
	files, err := scenarioFiles(args)
	if err != nil {
		return err
	}
	var here, there []*rack.Scenario
	for _, file := range files {
		s, err := readScenario(file)
		if err != nil {
			return err
		}
		if s.Spec.Needs == rack.NeedsFirmware {
			here = append(here, s)
		} else if !quick {
			there = append(there, s)
		}
	}
	switch {
	case len(files) == 0:
		return fmt.Errorf("no scenario in %s: want files that end in .yaml", strings.Join(args, ", "))
	case len(here)+len(there) == 0:
		return errors.New("nothing left to run: all of these need machines, and --quick leaves those out")
	}
	outcomes := make([]*fault.Outcome, len(here))
	errs := make([]error, len(here))
	var all sync.WaitGroup
	room := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, s := range here {
		all.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			outcomes[i], errs[i] = headless.Run(ctx, s, "")
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, s := range there {
		o, err := env.runOnRack(ctx, s)
		if err != nil {
			return err
		}
		outcomes = append(outcomes, o...)
	}
	return env.finish(outcomes, nil)
}

// runOnRack runs a scenario on the running rack and tells what breaks and heals.
func (env *environment) runOnRack(ctx context.Context, s *rack.Scenario) ([]*fault.Outcome, error) {
	return env.followOnRack(ctx, s, func(*fault.Outcome) {})
}

// followOnRack is runOnRack that also hands over what has come of the scenario so far, several times a second.
func (env *environment) followOnRack(ctx context.Context, s *rack.Scenario, look func(*fault.Outcome)) ([]*fault.Outcome, error) {
	if err := env.simCall(ctx, http.MethodPost, "/sim/v1/scenario", s, nil); err != nil {
		return nil, fmt.Errorf("scenario %s: %w", s.Metadata.Name, err)
	}
	begin := time.Now()
	told := 0
	var o fault.Outcome
	err := poll(ctx, 250*time.Millisecond, func() (bool, error) {
		if err := env.simCall(ctx, http.MethodGet, "/sim/v1/scenario", nil, &o); err != nil {
			return false, err
		}
		for ; told < len(o.Record); told++ {
			fmt.Fprintln(env.stderr, o.Record[told].Line())
		}
		look(&o)
		return o.State != "running", nil
	})
	if err == nil && ctx.Err() != nil {
		err = env.simCall(context.WithoutCancel(ctx), http.MethodDelete, "/sim/v1/faults", nil, nil)
		if err == nil {
			err = errors.New("interrupted; everything is healed")
		}
	}
	o.Wall = time.Since(begin).Seconds()
	return []*fault.Outcome{&o}, err
}

// finish prints outcomes; one that failed makes the exit code 1.
func (env *environment) finish(outcomes []*fault.Outcome, err error) error {
	if err != nil {
		return err
	}
	failed := 0
	for _, o := range outcomes {
		if o.Failed() {
			failed++
		}
	}
	if err := env.print(outcomes, func(w io.Writer) error { return writeOutcomes(w, outcomes) }); err != nil {
		return err
	}
	if failed > 0 {
		return exitCode(1)
	}
	return nil
}

func writeOutcomes(w io.Writer, outcomes []*fault.Outcome) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "SCENARIO\tFAULT\tAT\tNOTICED\tHEALED\tRESULT")
	for _, o := range outcomes {
		if len(o.Faults) == 0 {
			fmt.Fprintf(t, "%s\t-\t\t\t\t%s\n", o.Scenario, o.State)
		}
		for i, f := range o.Faults {
			name, state := "", ""
			if i == 0 {
				name, state = o.Scenario, o.State
			}
			fmt.Fprintf(t, "%s\t%s\t%.1f s\t%s\t%s\t%s\n", name, f.Fault, f.At, lasted(f.Noticed), lasted(f.Healed), state)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, o := range outcomes {
		for _, c := range append(o.Checks, o.Invariants...) {
			if c.State != "passed" && o.Failed() {
				fmt.Fprintf(w, "\n%s: %s: %s", o.Scenario, c.That, c.State)
				if c.Seen != "" {
					fmt.Fprintf(w, " at %.1f s: %s", c.At, c.Seen)
				}
				if c.Why != "" {
					fmt.Fprintf(w, "\n  because: %s", c.Why)
				}
				fmt.Fprintln(w)
			}
		}
	}
	passed := 0
	var sim, wall float64
	for _, o := range outcomes {
		if o.State == "passed" {
			passed++
		}
		sim, wall = sim+o.Seconds, wall+o.Wall
	}
	_, err := fmt.Fprintf(w, "\n%d of %d passed; %.0f s of the rack's time in %.1f s\n", passed, len(outcomes), sim, wall)
	return err
}

func lasted(s float64) string {
	if s < 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f s", s)
}

func newFaultStorm(env *environment) *cobra.Command {
	var seed uint64
	var minutes float64
	var apart bool
	var file string
	c := &cobra.Command{
		Use:   "storm",
		Short: "Break random things by a seed, and see the rack return",
		Long: `Storm breaks random things at random times; the same seed, length and units give the same storm. Everything heals by
itself, and at the end all that ran must run again. With --apart it runs in simulated time on a rack without machines.`,
		Example: "  racklet fault storm --seed 7 --minutes 5\n  racklet fault storm --seed 7 --minutes 30 --apart\n  racklet fault storm --seed 7 --write storm.yaml",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if minutes < 1 || minutes > 600 {
				return &usageError{fmt.Errorf("--minutes %v: want 1 to 600", minutes)}
			}
			length := time.Duration(minutes * float64(time.Minute)).Round(time.Second)
			if apart {
				s := fault.Storm(seed, length, []string{"unit-1", "unit-2", "unit-3", "unit-4"}, 2, rack.NeedsFirmware)
				if file != "" {
					return writeScenario(file, s)
				}
				o, err := headless.Run(c.Context(), s, "")
				return env.finish([]*fault.Outcome{o}, err)
			}
			client, err := env.client()
			if err != nil {
				return err
			}
			units, err := unitNames(c.Context(), client)
			if err != nil {
				return err
			}
			s := fault.Storm(seed, length, units, 2, rack.NeedsMachines)
			if file != "" {
				return writeScenario(file, s)
			}
			return env.finish(env.runOnRack(c.Context(), s))
		},
	}
	c.Flags().Uint64Var(&seed, "seed", 1, "what the storm is made from")
	c.Flags().Float64Var(&minutes, "minutes", 5, "how long it takes")
	c.Flags().BoolVar(&apart, "apart", false, "in simulated time, without machines")
	c.Flags().StringVarP(&file, "write", "w", "", "write the scenario to this `file` and break nothing")
	return c
}

func writeScenario(file string, s *rack.Scenario) error {
	b, err := manifest.FormatScenario(s)
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o644)
}

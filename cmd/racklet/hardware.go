package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/racklet/racklet/rack/hardware"
	"github.com/racklet/racklet/structural"
	"github.com/racklet/racklet/structural/assembly"
)

// hardwareOptions say which rack of plastic and metal is meant.
type hardwareOptions struct {
	slots    int
	unit     string
	unitFile string
	swtch    string
}

func newHardware(env *environment) *cobra.Command {
	c := &cobra.Command{
		Use:     "hardware",
		GroupID: "repository",
		Short:   "Make and check the printed parts of a physical rack",
		Long: `Hardware makes the parts that are printed, from one set of parameters: trays and case for
the number of slots, the computer and the network switch that you name. Nothing is
edited by hand; another computer is another description file.

It uses gmsh (OpenCASCADE) for the geometry, admesh and PrusaSlicer to judge what will be
printed, and CalculiX for stiffness. make test installs them on Debian.`,
	}
	c.AddCommand(newHardwareBuild(env), newHardwareBOM(env))
	return c
}

func (o *hardwareOptions) flags(c *cobra.Command) {
	c.Flags().IntVar(&o.slots, "slots", 5, "`number` of slots, management unit included: 3 to 10")
	c.Flags().StringVar(&o.unit, "unit", "rpi4", "`name` of the computer in the trays")
	c.Flags().StringVar(&o.unitFile, "unit-file", "", "`file` that describes a computer of one's own, as those in rack/hardware/units")
	c.Flags().StringVar(&o.swtch, "switch", "tp-link-ls1005g", "`name` of the network switch in the bay")
	c.MarkFlagFilename("unit-file", "json")
	c.MarkFlagsMutuallyExclusive("unit", "unit-file")
	c.RegisterFlagCompletionFunc("unit", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var names []string
		units, _ := hardware.Units()
		for _, u := range units {
			names = append(names, u.Name+"\t"+u.Title)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	})
	c.RegisterFlagCompletionFunc("switch", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var names []string
		switches, _ := hardware.Switches()
		for _, s := range switches {
			names = append(names, s.Name+"\t"+s.Title)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	})
}

// resolve turns the options into parameters that go together.
func (o *hardwareOptions) resolve() (structural.Parameters, hardware.Switch, error) {
	var p structural.Parameters
	unit, err := hardware.LookUp(o.unit)
	if o.unitFile != "" {
		var b []byte
		if b, err = os.ReadFile(o.unitFile); err == nil {
			unit, err = hardware.ParseUnit(b)
		}
	}
	if err != nil {
		return p, hardware.Switch{}, hint(err, "racklet help hardware build")
	}
	switches, err := hardware.Switches()
	if err != nil {
		return p, hardware.Switch{}, err
	}
	i := slices.IndexFunc(switches, func(s hardware.Switch) bool { return s.Name == o.swtch })
	if i < 0 {
		var names []string
		for _, s := range switches {
			names = append(names, s.Name)
		}
		return p, hardware.Switch{}, &usageError{fmt.Errorf("no switch is called %q: there are %s", o.swtch, strings.Join(names, ", "))}
	}
	p = structural.Reference(unit)
	p.Slots = o.slots
	if err := p.Validate(); err != nil {
		return p, switches[i], err
	}
	return p, switches[i], nil
}

func newHardwareBuild(env *environment) *cobra.Command {
	var o hardwareOptions
	c := &cobra.Command{
		Use:   "build DIR",
		Short: "Make all parts and check them, alone and together",
		Long: `Build writes each part to DIR as STEP (for CAD programs), STL and 3MF (as it lies on
the printer's bed), pictures, and report.html. Each part is checked: one closed body, walls,
overhangs, the slicer's verdict, fit of trays in their grooves, the way in past the
neighbours and onto the guide pegs, collisions, stiffness, mass and balance. It ends with
code 1 if a check fails.`,
		Example: `  racklet hardware build my-rack-parts
  racklet hardware build parts --slots 8 --unit rpi5 --switch netgear-gs305
  racklet hardware build parts --unit-file my-board.json -o json`,
		Args: exactArgs("DIR"),
		RunE: func(c *cobra.Command, args []string) error { return env.hardwareBuild(c.Context(), o, args[0]) },
	}
	o.flags(c)
	return c
}

func (env *environment) hardwareBuild(ctx context.Context, o hardwareOptions, dir string) error {
	p, s, err := o.resolve()
	if err != nil {
		return err
	}
	w := assembly.Workshop{Dir: dir, Log: env.stderr}
	r, err := w.Make(ctx, p, s)
	if err != nil {
		return err
	}
	if err := w.Draw(ctx, r); err != nil {
		return err
	}
	file, err := w.Report(r)
	if err != nil {
		return err
	}
	sum := r.Summary()
	if err := env.print(sum, func(out io.Writer) error {
		fmt.Fprintf(out, "%d kinds of parts, %.0f g of filament, %.0f h on one printer; the rack measures %.0f × %.0f × %.0f mm and weighs %.2f kg\n",
			len(sum.Parts), sum.Filament, sum.PrintHours, sum.Size[0], sum.Size[1], sum.Size[2], sum.Grams/1000)
		_, err := fmt.Fprintf(out, "%s, %d failed; see %s\n", count(len(sum.Checks), "check"), len(r.Failed()), file)
		return err
	}); err != nil {
		return err
	}
	for _, f := range r.Failed() {
		fmt.Fprintf(env.stderr, "racklet: error: %s: %s: %s, want %s\n", f.Subject, f.Name, f.Measured, f.Bound)
	}
	if len(r.Failed()) > 0 {
		return exitCode(1)
	}
	return nil
}

func newHardwareBOM(env *environment) *cobra.Command {
	var o hardwareOptions
	c := &cobra.Command{
		Use:   "bom",
		Short: "List the printed parts and the fasteners of a rack",
		Example: `  racklet hardware bom
  racklet hardware bom --slots 10 -o json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			p, s, err := o.resolve()
			if err != nil {
				return err
			}
			type line struct {
				Number string `json:"number"`
				Title  string `json:"title"`
				Count  int    `json:"count"`
			}
			var list struct {
				Parts     []line              `json:"parts"`
				Fasteners []assembly.Fastener `json:"fasteners"`
			}
			for _, pt := range assembly.Parts(p, s) {
				list.Parts = append(list.Parts, line{pt.Number, pt.Title, len(pt.Places)})
			}
			list.Fasteners = assembly.Fasteners(p)
			return env.print(list, func(out io.Writer) error {
				w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "COUNT\tPRINTED PART\t")
				for _, l := range list.Parts {
					fmt.Fprintf(w, "%d\t%s %s\t\n", l.Count, l.Number, l.Title)
				}
				fmt.Fprintln(w, "\t\t\nCOUNT\tFASTENER\tFOR")
				for _, f := range list.Fasteners {
					fmt.Fprintf(w, "%d\t%s\t%s\n", f.Count, f.Name, f.For)
				}
				return w.Flush()
			})
		},
	}
	o.flags(c)
	return c
}

package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

func newRack(env *environment) *cobra.Command {
	c := &cobra.Command{
		Use:     "rack",
		GroupID: "operate",
		Short:   "See the rack's power and cooling",
		Long: `Rack shows what belongs to the rack as a whole. Budgets and fan curves are not set
here: they are policies in the rack repository (rack/policies), signed like the rest.`,
	}
	c.AddCommand(newRackPower(env), newRackFans(env))
	return c
}

// PowerTable is what `racklet rack power` prints.
type PowerTable struct {
	Watts       float64     `json:"watts"`
	BudgetWatts float64     `json:"budgetWatts"`
	SupplyVolts float64     `json:"supplyVolts"`
	Joules      float64     `json:"energyJoules"`
	Units       []UnitPower `json:"units"`
	OtherWatts  float64     `json:"otherWatts"` // fans, switch, controllers, losses: the rack's meter less the units'
}

// UnitPower is one unit's share.
type UnitPower struct {
	Name   string  `json:"name"`
	Watts  float64 `json:"watts"`
	Joules float64 `json:"energyJoules"`
}

func newRackPower(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:     "power",
		Short:   "Show watts and joules of the rack and of each unit",
		Example: "  racklet rack power\n  racklet rack power -o json",
		Args:    cobra.NoArgs,
		RunE: env.ofStatus(func(s *Status) error {
			p := powerTable(s)
			return env.print(p, func(w io.Writer) error {
				t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
				fmt.Fprintln(t, "\tWATTS\tJOULES\t")
				for _, u := range p.Units {
					fmt.Fprintf(t, "%s\t%.2f\t%.0f\t\n", u.Name, u.Watts, u.Joules)
				}
				fmt.Fprintf(t, "fans, switch, losses\t%.2f\t\t\n", p.OtherWatts)
				fmt.Fprintf(t, "rack, of %.0f W at %.2f V\t%.2f\t%.0f\t\n", p.BudgetWatts, p.SupplyVolts, p.Watts, p.Joules)
				return t.Flush()
			})
		}),
	}
}

func powerTable(s *Status) *PowerTable {
	p := &PowerTable{Watts: s.Rack.Watts, BudgetWatts: s.Rack.BudgetWatts, SupplyVolts: s.Rack.SupplyVolts, Joules: s.Rack.EnergyJoules, OtherWatts: s.Rack.Watts}
	for i := range s.Units {
		u := &s.Units[i]
		p.Units = append(p.Units, UnitPower{u.Name, u.Watts, u.EnergyJoules})
		p.OtherWatts -= u.Watts
	}
	return p
}

func newRackFans(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:     "fans",
		Short:   "Show fans and temperatures",
		Example: "  racklet rack fans\n  racklet rack fans -o json",
		Args:    cobra.NoArgs,
		RunE: env.ofStatus(func(s *Status) error {
			return env.print(s.Rack, func(w io.Writer) error {
				t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
				fmt.Fprintln(t, "FAN\tRPM\tDUTY\tHEALTH")
				for _, f := range s.Rack.Fans {
					fmt.Fprintf(t, "%s\t%.0f\t%.0f %%\t%s\n", f.Name, f.RPM, f.DutyPercent, f.Health)
				}
				fmt.Fprintf(t, "\ninlet\t%.1f °C\n", s.Rack.InletCelsius)
				for i := range s.Units {
					fmt.Fprintf(t, "%s\t%s\n", s.Units[i].Name, celsius(&s.Units[i]))
				}
				return t.Flush()
			})
		}),
	}
}

package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

func newUnit(env *environment) *cobra.Command {
	c := &cobra.Command{
		Use:     "unit",
		GroupID: "operate",
		Short:   "Operate one compute unit: power, reset, console, log, logs, identify, update",
	}
	c.AddCommand(newUnitList(env), newUnitPower(env), newUnitReset(env), newUnitConsole(env), newUnitLog(env), newUnitLogs(env), newUnitIdentify(env), newUnitUpdate(env))
	return c
}

// exactUnit wants one argument and says which.
func exactUnit(c *cobra.Command, args []string) error {
	if len(args) != 1 {
		return &usageError{fmt.Errorf("%s: want the name of one unit, have %d arguments (racklet unit list)", c.CommandPath(), len(args))}
	}
	return nil
}

// completeUnits completes unit names from the running rack.
func (env *environment) completeUnits(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	client, err := env.client()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names, _ := unitNames(c.Context(), client)
	return names, cobra.ShellCompDirectiveNoFileComp
}

func newUnitList(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the units",
		Example: "  racklet unit list -o wide\n  racklet unit list -o json",
		Args:    cobra.NoArgs,
		RunE: env.ofStatus(func(s *Status) error {
			return env.print(s.Units, func(w io.Writer) error { return writeUnitList(w, s.Units, env.output == "wide") })
		}),
	}
}

// writeUnitList writes a line per unit; wide, with what its tray says of itself.
func writeUnitList(w io.Writer, units []UnitStatus, wide bool) error {
	for i := range units {
		u := &units[i]
		fmt.Fprintf(w, "%s\tslot %d\t%s\t%s", u.Name, u.Slot, u.Power, stageText(u))
		if wide {
			fmt.Fprintf(w, "\t%s\t%s\t%s\t%s", dash(u.Manufacturer), dash(u.Model), dash(u.PartNumber), dash(u.SerialNumber))
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
	}
	return nil
}

// resets maps the words of the command line to Redfish reset types
// (Resource schema, ResetType).
var resets = map[string]string{
	"on": "On", "off": "GracefulShutdown", "off --force": "ForceOff", "cycle": "PowerCycle",
}

func newUnitPower(env *environment) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "power on|off|cycle UNIT",
		Short: "Switch a unit's power",
		Long: `Power asks the BMC to switch the unit's rail.

"off" asks the operating system to stop and cuts the rail when it has, or after
the BMC's grace; "off --force" cuts it at once. "cycle" is off, a pause, on.`,
		Example: "  racklet unit power cycle unit-2\n  racklet unit power off --force unit-2",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 2 || resets[args[0]] == "" {
				return &usageError{fmt.Errorf("unit power: want on, off or cycle and the name of one unit")}
			}
			return nil
		},
		ValidArgsFunction: func(c *cobra.Command, args []string, to string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return []string{"on", "off", "cycle"}, cobra.ShellCompDirectiveNoFileComp
			}
			return env.completeUnits(c, args[1:], to)
		},
		RunE: func(c *cobra.Command, args []string) error {
			word := args[0]
			if force {
				if word != "off" {
					return &usageError{fmt.Errorf("unit power: --force goes with off")}
				}
				word += " --force"
			}
			return env.reset(c, args[1], resets[word])
		},
	}
	c.Flags().BoolVar(&force, "force", false, "with off: cut the rail at once")
	return c
}

func newUnitReset(env *environment) *cobra.Command {
	c := &cobra.Command{
		Use:   "reset UNIT",
		Short: "Reset a unit by its reset line, without cutting the rail",
		Long: `Reset pulses the unit's reset line. Since the rail stays up, what ran before may
have left things behind: the BMC voids the unit's evidence until the next power
cycle. Prefer "racklet unit power cycle".`,
		Example:           "  racklet unit reset unit-2",
		Args:              exactUnit,
		ValidArgsFunction: env.completeUnits,
		RunE:              func(c *cobra.Command, args []string) error { return env.reset(c, args[0], "ForceRestart") },
	}
	return c
}

func (env *environment) reset(c *cobra.Command, unit, kind string) error {
	client, err := env.client()
	if err != nil {
		return err
	}
	path, err := unitPath(c.Context(), client, unit)
	if err != nil {
		return err
	}
	if err := client.post(c.Context(), path+"/Actions/ComputerSystem.Reset", map[string]string{"ResetType": kind}); err != nil {
		return fmt.Errorf("%s %s: %w", strings.ToLower(kind), unit, err)
	}
	return nil
}

func newUnitLog(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:               "log UNIT",
		Short:             "Print what a unit's BMC has logged",
		Long:              "Log prints the BMC's event ring, which survives restarts and power cuts: power, boot stages, refusals, floors.",
		Example:           "  racklet unit log unit-1\n  racklet unit log unit-1 -o json",
		Args:              exactUnit,
		ValidArgsFunction: env.completeUnits,
		RunE: env.withClient(func(ctx context.Context, client *redfishClient, args []string) error {
			if _, err := unitPath(ctx, client, args[0]); err != nil {
				return err
			}
			entries, err := readEvents(ctx, client, args[0])
			if err != nil {
				return err
			}
			return env.printEntries(entries)
		}),
	}
}

func newUnitIdentify(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:     "identify UNIT [on|off]",
		Short:   "Light the LED on a tray's front",
		Example: "  racklet unit identify unit-3\n  racklet unit identify unit-3 off",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 2 && args[1] != "on" && args[1] != "off" {
				return &usageError{fmt.Errorf("unit identify: %q: want on or off", args[1])}
			}
			if len(args) < 1 || len(args) > 2 {
				return exactUnit(c, args)
			}
			return nil
		},
		ValidArgsFunction: func(c *cobra.Command, args []string, to string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return []string{"on", "off"}, cobra.ShellCompDirectiveNoFileComp
			}
			return env.completeUnits(c, args, to)
		},
		RunE: env.withClient(func(ctx context.Context, client *redfishClient, args []string) error {
			path, err := unitPath(ctx, client, args[0])
			if err != nil {
				return err
			}
			return client.patch(ctx, path, map[string]bool{"LocationIndicatorActive": len(args) == 1 || args[1] == "on"})
		}),
	}
}

package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Status is the state of a rack as `racklet status` prints it. The JSON and
// YAML forms are stable: fields may be added, none is renamed or removed.
// docs/status.md describes each.
type Status struct {
	Rack  RackStatus   `json:"rack"`
	Units []UnitStatus `json:"units"`

	Kubernetes *KubernetesStatus `json:"kubernetes,omitempty"` // of this machine's rack, where it has one
}

// RackStatus is what belongs to the rack as a whole.
type RackStatus struct {
	Name         string      `json:"name"`
	State        string      `json:"state"`        // Enabled, or UnavailableOffline when the RMC is silent
	Watts        float64     `json:"watts"`        // drawn from the supply
	BudgetWatts  float64     `json:"budgetWatts"`  // what the power policy grants in all
	EnergyJoules float64     `json:"energyJoules"` // since the RMC's counter began
	SupplyVolts  float64     `json:"supplyVolts"`
	InletCelsius float64     `json:"inletCelsius"`
	Fans         []FanStatus `json:"fans"`
	AgeSeconds   float64     `json:"ageSeconds"` // since the RMC last answered
}

// FanStatus is one fan.
type FanStatus struct {
	Name        string  `json:"name"`
	RPM         float64 `json:"rpm"`
	DutyPercent float64 `json:"dutyPercent"`
	Health      string  `json:"health"` // OK, Warning, Critical
}

// UnitStatus is one compute unit and the BMC under it.
type UnitStatus struct {
	Name               string  `json:"name"`
	Slot               int     `json:"slot"`
	Power              string  `json:"power"`        // On, Off, PoweringOn, PoweringOff
	DesiredPower       string  `json:"desiredPower"` // On or Off
	State              string  `json:"state"`        // the BMC's state: off, verifying, powering, running, draining, faulted
	Stage              string  `json:"stage"`        // how far the unit's boot came
	Reason             string  `json:"reason"`
	Expected           string  `json:"expected,omitempty"`
	Seen               string  `json:"seen,omitempty"`
	BootSlot           string  `json:"bootSlot"` // A, B or empty
	Commit             string  `json:"commit"`
	Release            string  `json:"release"`
	Stale              bool    `json:"stale"`
	Watts              float64 `json:"watts"`
	EnergyJoules       float64 `json:"energyJoules"`
	TemperatureCelsius float64 `json:"temperatureCelsius"`
	UptimeSeconds      float64 `json:"uptimeSeconds"` // of the operating system
	CPUPercent         float64 `json:"cpuPercent"`
	MemoryMiB          float64 `json:"memoryMiB"`
	Address            string  `json:"address"`
	BootCount          int     `json:"bootCount"`
	LED                bool    `json:"led"`
	EvidenceVoid       bool    `json:"evidenceVoid"` // a reset without a rail cycle
	FallbackSlot       bool    `json:"fallbackSlot"` // the preferred boot slot was refused
	Available          bool    `json:"available"`    // the BMC answers
	AgeSeconds         float64 `json:"ageSeconds"`   // since it last answered
	RailSeconds        float64 `json:"railSeconds"`  // since its rail came up
	Present            bool    `json:"present"`      // the tray is in its slot
	Manufacturer       string  `json:"manufacturer"` // of the tray, as are the next three
	Model              string  `json:"model"`
	PartNumber         string  `json:"partNumber"`
	SerialNumber       string  `json:"serialNumber"`
}

// running tells whether the unit's own operating system reports itself well.
func (u *UnitStatus) running() bool { return u.Available && u.Stage == "running" }

// failed tells whether the boot stopped with a named reason, or the BMC gave up.
func (u *UnitStatus) failed() bool {
	return u.Available && (u.Stage == "failed" || u.State == "faulted")
}

// readStatus asks the management API for everything that status shows.
func readStatus(ctx context.Context, c *redfishClient) (*Status, error) {
	s := new(Status)
	if err := readRack(ctx, c, &s.Rack); err != nil {
		return nil, err
	}
	units, err := readUnits(ctx, c)
	if err != nil {
		return nil, err
	}
	s.Units = units
	return s, nil
}

func writeStatusTable(w io.Writer, s *Status, wide bool) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	head := "UNIT\tSLOT\tPOWER\tSTAGE\tBOOT\tCOMMIT\tRELEASE\tWATTS\tTEMP\tUPTIME"
	if wide {
		head += "\tENERGY\tCPU\tMEMORY\tADDRESS\tBOOTS\tAGE"
	}
	fmt.Fprintln(t, head)
	for i := range s.Units {
		u := &s.Units[i]
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%.1f\t%s\t%s",
			u.Name, u.Slot, u.Power, stageText(u), dash(u.BootSlot), dash(short(u.Commit)), dash(u.Release),
			u.Watts, celsius(u), dash(uptime(u)))
		if wide {
			fmt.Fprintf(t, "\t%.0f J\t%.0f%%\t%.0f MiB\t%s\t%d\t%.1fs", u.EnergyJoules, u.CPUPercent, u.MemoryMiB, dash(u.Address), u.BootCount, u.AgeSeconds)
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for i := range s.Units {
		if u := &s.Units[i]; u.Reason != "" {
			fmt.Fprintf(w, "\n%s: %s (racklet why %s)\n", u.Name, failureText(u), u.Name)
		}
	}
	if k := s.Kubernetes; k != nil {
		fmt.Fprintf(w, "\n%s\n", k.line())
	}
	_, err := fmt.Fprintf(w, "\n%s\n", rackLine(&s.Rack))
	return err
}

// rackLine sums up the rack in one line.
func rackLine(r *RackStatus) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %.1f W of %.0f W, inlet %.1f °C", r.Name, r.Watts, r.BudgetWatts, r.InletCelsius)
	for _, f := range r.Fans {
		fmt.Fprintf(&b, ", %s %.0f rpm (%.0f %%)", f.Name, f.RPM, f.DutyPercent)
		if f.Health != "" && f.Health != "OK" {
			fmt.Fprintf(&b, " %s", f.Health)
		}
	}
	if r.State != "" && r.State != "Enabled" {
		fmt.Fprintf(&b, "; RMC silent for %.0f s, values are its last", r.AgeSeconds)
	}
	return b.String()
}

func failureText(u *UnitStatus) string {
	s := u.Reason
	if u.Expected != "" {
		s += ": expected " + u.Expected
	}
	if u.Seen != "" {
		s += ", saw " + u.Seen
	}
	return s
}

func stageText(u *UnitStatus) string {
	switch {
	case !u.Present:
		return "no tray"
	case !u.Available:
		return fmt.Sprintf("unavailable (%.0fs)", u.AgeSeconds)
	case u.State == "faulted":
		return "faulted"
	case u.Stale && u.running():
		return "running (stale)"
	}
	return u.Stage
}

func celsius(u *UnitStatus) string {
	if !u.Available {
		return "-"
	}
	return fmt.Sprintf("%.0f°C", u.TemperatureCelsius)
}

func uptime(u *UnitStatus) string {
	if !u.running() {
		return ""
	}
	return (time.Duration(u.UptimeSeconds) * time.Second).String()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// short abbreviates a commit as git does.
func short(commit string) string {
	if len(commit) > 7 {
		return commit[:7]
	}
	return commit
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"
)

// This file turns Redfish resources into the shapes that the commands print.
// docs/redfish.md describes the Oem properties.

const systems = "/redfish/v1/Systems"

// A computerSystem is what the commands read of a Redfish ComputerSystem.
type computerSystem struct {
	ODataID    string `json:"@odata.id"`
	ID         string `json:"Id"`
	PowerState string

	Manufacturer, Model, PartNumber, SerialNumber string

	Location bool `json:"LocationIndicatorActive"`
	Console  struct {
		WebSocket struct{ ConsoleURI string }
	} `json:"SerialConsole"`
	LogServices link
	Oem         struct {
		Racklet struct {
			Slot                                             int
			State, Stage, Reason, Expected, Seen             string
			BootSlot, Commit, Release, Address, DesiredPower string
			Stale, EvidenceVoid, FallbackSlot                bool
			Present, Available                               bool
			BootCount                                        int
			AgeSeconds, Watts, EnergyJoules                  float64
			TemperatureCelsius, RailSeconds, UptimeSeconds   float64
			CPUPercent, MemoryUsedMiB                        float64
		}
	}
}

func (c *computerSystem) status() UnitStatus {
	o := &c.Oem.Racklet
	for _, text := range []*string{&o.Reason, &o.Expected, &o.Seen, &o.Commit, &o.Release, &o.Address} {
		*text = printable(*text)
	}
	return UnitStatus{
		Name: c.ID, Slot: o.Slot, Power: c.PowerState, DesiredPower: o.DesiredPower, State: o.State, Stage: o.Stage,
		Reason: o.Reason, Expected: o.Expected, Seen: o.Seen, BootSlot: o.BootSlot, Commit: o.Commit, Release: o.Release, Stale: o.Stale,
		Watts: o.Watts, EnergyJoules: o.EnergyJoules, TemperatureCelsius: o.TemperatureCelsius, UptimeSeconds: o.UptimeSeconds,
		CPUPercent: o.CPUPercent, MemoryMiB: o.MemoryUsedMiB, Address: o.Address, BootCount: o.BootCount, LED: c.Location,
		EvidenceVoid: o.EvidenceVoid, FallbackSlot: o.FallbackSlot, Available: o.Available, AgeSeconds: o.AgeSeconds,
		RailSeconds: o.RailSeconds, Present: o.Present,
		Manufacturer: printable(c.Manufacturer), Model: printable(c.Model), PartNumber: printable(c.PartNumber), SerialNumber: printable(c.SerialNumber),
	}
}

// printable replaces what could command a terminal or reorder a line: much of
// this text comes from units, and a unit may be hostile.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '·'
		}
		return r
	}, s)
}

// readUnits reads all units, in the order of their slots.
func readUnits(ctx context.Context, c *redfishClient) ([]UnitStatus, error) {
	var all struct{ Members []computerSystem }
	if err := c.get(ctx, systems+"?$expand=.", &all); err != nil {
		return nil, err
	}
	units := make([]UnitStatus, len(all.Members))
	for i := range all.Members {
		units[i] = all.Members[i].status()
	}
	sort.Slice(units, func(i, j int) bool { return units[i].Slot < units[j].Slot })
	return units, nil
}

// readSystem reads one unit by name; a name that does not exist is an error
// that lists those that do.
func readSystem(ctx context.Context, c *redfishClient, name string) (*computerSystem, error) {
	names, err := unitNames(ctx, c)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if n == name {
			s := new(computerSystem)
			return s, c.get(ctx, systems+"/"+url.PathEscape(name), s)
		}
	}
	return nil, hint(fmt.Errorf("no unit %q in this rack", name), "its units are %s", strings.Join(names, ", "))
}

func unitNames(ctx context.Context, c *redfishClient) ([]string, error) {
	var all collection
	if err := c.get(ctx, systems, &all); err != nil {
		return nil, err
	}
	var names []string
	for _, m := range all.Members {
		names = append(names, m.ID[strings.LastIndexByte(m.ID, '/')+1:])
	}
	return names, nil
}

func unitPath(ctx context.Context, c *redfishClient, name string) (string, error) {
	s, err := readSystem(ctx, c, name)
	if err != nil {
		return "", err
	}
	return s.ODataID, nil
}

func readUnitByName(ctx context.Context, c *redfishClient, name string) (*UnitStatus, error) {
	s, err := readSystem(ctx, c, name)
	if err != nil {
		return nil, err
	}
	u := s.status()
	return &u, nil
}

func consolePath(ctx context.Context, c *redfishClient, name string) (string, error) {
	s, err := readSystem(ctx, c, name)
	if err != nil {
		return "", err
	}
	return s.Console.WebSocket.ConsoleURI, nil
}

// An eventRecord is what the commands read of a Redfish LogEntry or of a
// record of an Event.
type eventRecord struct {
	ID, EventID             string `json:",omitempty"`
	Created, EventTimestamp string
	Message                 string
	Oem                     struct {
		Racklet struct {
			Source, Kind, Stage, Reason, Expected, Seen string
			BootCount                                   int
		}
	}
}

func (e *eventRecord) entry() LogEntry {
	o := &e.Oem.Racklet
	return LogEntry{
		Source: o.Source, ID: e.ID + e.EventID, Created: e.Created + e.EventTimestamp, Kind: o.Kind, Boot: o.BootCount,
		Stage: o.Stage, Message: printable(e.Message), Reason: o.Reason, Expected: o.Expected, Seen: o.Seen,
	}
}

// parseEventRecord decodes one server-sent Redfish Event; what is none is dropped.
func parseEventRecord(b []byte) []LogEntry {
	var event struct{ Events []eventRecord }
	if json.Unmarshal(b, &event) != nil {
		return nil
	}
	var entries []LogEntry
	for i := range event.Events {
		entries = append(entries, event.Events[i].entry())
	}
	return entries
}

// readEvents reads the logs of all controllers, or of one unit's BMC, oldest first.
func readEvents(ctx context.Context, c *redfishClient, unit string) ([]LogEntry, error) {
	names, err := unitNames(ctx, c)
	if err != nil {
		return nil, err
	}
	paths := []string{"/redfish/v1/Managers/rmc/LogServices/Log/Entries"}
	if unit != "" {
		paths = nil
	}
	for _, n := range names {
		if unit == "" || n == unit {
			paths = append(paths, systems+"/"+n+"/LogServices/Log/Entries")
		}
	}
	if len(paths) == 0 {
		return nil, hint(fmt.Errorf("no unit %q in this rack", unit), "its units are %s", strings.Join(names, ", "))
	}
	var entries []LogEntry
	for _, p := range paths {
		var log struct{ Members []eventRecord }
		if err := c.get(ctx, p, &log); err != nil {
			return nil, err
		}
		for i := range log.Members {
			entries = append(entries, log.Members[i].entry())
		}
	}
	sort.SliceStable(entries, func(i, j int) bool { return entries[i].Created < entries[j].Created })
	return entries, nil
}

// readRack reads what belongs to the rack as a whole.
func readRack(ctx context.Context, c *redfishClient, into *RackStatus) error {
	var chassis struct {
		Name   string
		Status struct{ State string }
		Oem    struct {
			Racklet struct {
				Watts, EnergyJoules, SupplyVolts, InletCelsius, BudgetWatts, AgeSeconds float64
				Fans                                                                    []struct {
					Name, Health     string
					RPM, DutyPercent float64
				}
			}
		}
	}
	if err := c.get(ctx, "/redfish/v1/Chassis/rack", &chassis); err != nil {
		return err
	}
	o := &chassis.Oem.Racklet
	*into = RackStatus{
		Name: chassis.Name, State: chassis.Status.State, Watts: o.Watts, BudgetWatts: o.BudgetWatts, EnergyJoules: o.EnergyJoules,
		SupplyVolts: o.SupplyVolts, InletCelsius: o.InletCelsius, AgeSeconds: o.AgeSeconds, Fans: []FanStatus{},
	}
	for _, f := range o.Fans {
		into.Fans = append(into.Fans, FanStatus{Name: f.Name, RPM: f.RPM, DutyPercent: f.DutyPercent, Health: f.Health})
	}
	return nil
}

package main

import (
	"strings"
	"testing"
)

func TestWriteUnitList(t *testing.T) {
	units := []UnitStatus{
		{Name: "unit-1", Slot: 1, Power: "On", Stage: "running", Available: true, Present: true,
			Manufacturer: "Acme", Model: "Tray", PartNumber: "AT-1", SerialNumber: "0042"},
		{Name: "unit-2", Slot: 2, Power: "Off", Stage: "off", Available: true, Present: true},
	}
	for wide, want := range map[bool][2]string{
		false: {"unit-1\tslot 1\tOn\t" + stageText(&units[0]), "unit-2\tslot 2\tOff\t" + stageText(&units[1])},
		true: {"unit-1\tslot 1\tOn\t" + stageText(&units[0]) + "\tAcme\tTray\tAT-1\t0042",
			"unit-2\tslot 2\tOff\t" + stageText(&units[1]) + "\t-\t-\t-\t-"},
	} {
		var b strings.Builder
		if err := writeUnitList(&b, units, wide); err != nil || b.String() != want[0]+"\n"+want[1]+"\n" {
			t.Errorf("wide %v: %v\n%s", wide, err, b.String())
		}
	}
	// What a board says of itself commands no terminal.
	var c computerSystem
	c.SerialNumber = "\x1b[2J42"
	if s := c.status().SerialNumber; strings.ContainsRune(s, '\x1b') {
		t.Errorf("serial number %q", s)
	}
}

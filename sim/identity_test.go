package sim_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/driver/eeprom"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/sim"
	"github.com/racklet/racklet/sim/chip"
)

func fitted(t *testing.T, file string) (eeprom.Record, error) {
	t.Helper()
	bus := chip.NewBus()
	if err := sim.FitEEPROM(bus, file, time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	var r eeprom.Record
	return r, eeprom.New(bus, 0).ReadRecord(&r)
}

// TestEEPROMOfABoard: a new board has a serial number of its own and keeps it; a damaged one is not mended.
func TestEEPROMOfABoard(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	var serial [3]string
	for i, file := range []string{a, b, a} {
		bus := chip.NewBus()
		if err := sim.FitEEPROM(bus, file, time.Date(2026, 11, 20+i, 0, 0, 0, 0, time.UTC)); err != nil {
			t.Fatal(err)
		}
		var r eeprom.Record
		d := eeprom.New(bus, 0)
		if err := d.ReadRecord(&r); err != nil {
			t.Fatal(err)
		}
		serial[i] = r.Get(eeprom.SerialNumber)
		if !regexp.MustCompile(`^RKV[0-9A-F]{8}$`).MatchString(serial[i]) || r.Get(eeprom.Manufacturer) != "Racklet" || r.Get(eeprom.Model) == "" || r.Get(eeprom.PartNumber) == "" || r.Get(eeprom.Version) == "" {
			t.Errorf("record %q", r.Fields())
		}
		if y, m, day := wire.FRUDate(r.Fields(), wire.FRUManufactureDate); y != 2026 || m != 11 || day != []uint8{20, 21, 20}[i] {
			t.Errorf("made on %d-%d-%d", y, m, day)
		}
		if eui, err := d.EUI48(); err != nil || eui[0]&3 != 2 {
			t.Errorf("address %x is not locally administered, or of a group: %v", eui, err)
		}
	}
	if serial[0] == serial[1] || serial[0] != serial[2] {
		t.Errorf("serial numbers %q: want two boards, the first one again", serial)
	}
	whole, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(whole)
	bad[20] ^= 1
	if err := os.WriteFile(a, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := fitted(t, a); err != eeprom.ErrRecord {
		t.Errorf("a damaged record is read as %q, %v", r.Fields(), err)
	}
	if err := os.WriteFile(a, whole[:40], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sim.FitEEPROM(chip.NewBus(), a, time.Time{}); err == nil {
		t.Error("a file cut short is taken")
	}
}

// TestIdentityOverTheLine asks controllers over the management line, with one EEPROM gone and one damaged.
func TestIdentityOverTheLine(t *testing.T) {
	b := quiet(t)
	b.until(t, "both BMCs and the RMC start", func(s sim.State) bool { return s.Slots[0].BMC.Alive && s.Slots[1].BMC.Alive && s.RMC.Alive })
	seen := map[string]bool{}
	ask := func(dest wire.EID) string {
		t.Helper()
		var fields []byte
		eventually(t, "an answer", func() (err error) { fields, err = b.conn.Identity(t.Context(), dest); return err })
		return string(wire.FRUText(fields, wire.FRUSerialNumber))
	}
	for _, dest := range []wire.EID{wire.EIDRMC, wire.BMC(1), wire.BMC(2)} {
		s := ask(dest)
		if s == "" || seen[s] {
			t.Errorf("endpoint %d has serial number %q", dest, s)
		}
		seen[s] = true
	}
	// Without its EEPROM a BMC starts all the same, and says why it has no identity.
	if code, body := b.call(t, "PUT", "/sim/v1/slots/2/chips/eeprom", `{"absent":true}`); code/100 != 2 {
		t.Fatalf("%d %s", code, body)
	}
	starts := b.State().Slots[1].BMC.Starts
	if code, body := b.call(t, "POST", "/sim/v1/slots/2/bmc/restart", ""); code/100 != 2 {
		t.Fatalf("%d %s", code, body)
	}
	b.until(t, "the BMC is back", func(s sim.State) bool { return s.Slots[1].BMC.Alive && s.Slots[1].BMC.Starts > starts })
	if s := ask(wire.BMC(2)); s != "" {
		t.Errorf("without an EEPROM its serial number is %q", s)
	}
	said := ""
	eventually(t, "its events", func() error {
		page, err := b.conn.ReadEvents(t.Context(), wire.BMC(2), 0)
		for i := range page.Events {
			if f := &page.Events[i].Failure; f.Reason.String() == "board.identity" {
				said = f.Seen.String()
			}
		}
		return err
	})
	if said == "" {
		t.Error("nothing says why")
	}
	if s := ask(wire.BMC(1)); s == "" {
		t.Error("the other tray lost its identity too")
	}
}

// eventually repeats f until it does not fail: a BMC that starts misses a request or two.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("never: %s: %v", what, err)
		}
	}
}

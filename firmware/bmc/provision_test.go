package bmc

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/racklet/racklet/firmware/wire"
)

func TestProvisionedRecordComesBack(t *testing.T) {
	f := newFlash()
	cfg := testConfig()
	cfg.Limits.DrainMillis = 1234
	cfg.Limits.StageMillis[wire.StageOS] = 77
	cfg.Limits.CycleOnTimeout = true
	for range 5 {
		cfg.BootConfig = append(cfg.BootConfig, '!')
		if err := Provision(f, cfg); err != nil {
			t.Fatal(err)
		}
		p, err := readProvision(f)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, p.bootLen)
		f.ReadAt(got, p.bootConfig)
		if p.Slot != cfg.Slot || p.RackID != cfg.RackID || !p.DeviceKey.Equal(cfg.DeviceKey) || p.Limits != cfg.Limits ||
			p.Owners.Threshold != 2 || len(p.Owners.Keys) != 3 || !p.Owners.Keys[2].Equal(cfg.Owners.Keys[2]) || p.Emulated != cfg.Emulated ||
			!bytes.Equal(got, cfg.BootConfig) {
			t.Fatalf("%+v", p)
		}
	}
}

func TestIncompleteConfigurations(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no slot":           func(c *Config) { c.Slot = 0 },
		"slot too high":     func(c *Config) { c.Slot = wire.MaxSlots + 1 },
		"no key":            func(c *Config) { c.DeviceKey = nil },
		"no owners":         func(c *Config) { c.Owners.Keys = nil },
		"no threshold":      func(c *Config) { c.Owners.Threshold = 0 },
		"threshold too far": func(c *Config) { c.Owners.Threshold = 4 },
		"one key twice":     func(c *Config) { c.Owners.Keys[1] = c.Owners.Keys[0] },
		"boot config":       func(c *Config) { c.BootConfig = make([]byte, wire.MaxBootConfig+1) },
	} {
		c := testConfig()
		change(&c)
		if err := Provision(newFlash(), c); err != ErrConfig {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Provision(&flashModel{size: FlashSize - 1}, testConfig()); err != ErrFlash {
		t.Errorf("small flash: %v", err)
	}
	if _, err := New(Config{}, Ports{Flash: newFlash(), Switch: &pin{}, PowerGood: &pin{}}); err != ErrUnprovisioned {
		t.Errorf("empty flash: %v", err)
	}
	if _, err := New(Config{}, Ports{Flash: newFlash()}); err != ErrConfig {
		t.Errorf("no pins: %v", err)
	}
}

// TestProvisioningInterrupted: the record before stays until the new one is whole.
func TestProvisioningInterrupted(t *testing.T) {
	old, next := testConfig(), testConfig()
	old.BootConfig, next.BootConfig = []byte("old"), []byte("new")
	for cut := 1; ; cut++ {
		f := newFlash()
		if err := Provision(f, old); err != nil {
			t.Fatal(err)
		}
		f.rnd, f.cut = rand.New(rand.NewPCG(uint64(cut), 4)), cut
		err := Provision(f, next)
		f.dead, f.cut = false, 0
		p, readErr := readProvision(f)
		if readErr != nil {
			t.Fatalf("cut %d: %v", cut, readErr)
		}
		got := make([]byte, p.bootLen)
		f.ReadAt(got, p.bootConfig)
		if err == nil {
			if string(got) != "new" {
				t.Fatalf("cut %d: %q", cut, got)
			}
			t.Logf("%d operations, each cut once", cut-1)
			return
		}
		if string(got) != "old" && string(got) != "new" {
			t.Fatalf("cut %d: %q", cut, got)
		}
	}
}

// TestProvisioningAgain keeps what the rack has learnt when it is the same rack, and forgets it when it is another.
func TestProvisioningAgain(t *testing.T) {
	r := newRig(t)
	r.runUnit()
	if code := r.raise(r.statement(8, 5, 1, owners[0], owners[1])); code != wire.CodeSuccess {
		t.Fatal(code)
	}
	if err := Provision(r.flash, r.cfg); err != nil {
		t.Fatal(err)
	}
	r.boot()
	if s := r.b.UnitState(); s.Floors.Sequence != 8 || s.BootCount != 1 || s.LastEvent == 0 {
		t.Errorf("same rack: %+v", s)
	}
	r.cfg.RackID[0]++
	if err := Provision(r.flash, r.cfg); err != nil {
		t.Fatal(err)
	}
	r.boot()
	if s := r.b.UnitState(); s.Floors.Sequence != 0 || s.BootCount != 0 || s.LastEvent != 0 || s.DesiredGeneration != 0 {
		t.Errorf("other rack: %+v", s)
	}
}

func TestBootConfigIsHandedOver(t *testing.T) {
	r := newRig(t)
	read := func() (all []byte) {
		for {
			total, part, err := wire.ParseBootConfigPart(r.mustCall(wire.SideInBand, wire.CmdGetBootConfig, wire.AppendOffset(nil, uint32(len(all)))))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, part...)
			if len(part) == 0 || len(all) == int(total) {
				return all
			}
		}
	}
	if got := read(); !bytes.Equal(got, r.cfg.BootConfig) {
		t.Errorf("from the flash: %d bytes", len(got))
	}
	if code, _ := r.call(wire.SideInBand, wire.CmdGetBootConfig, wire.AppendOffset(nil, uint32(len(r.cfg.BootConfig)+1))); code != wire.CodeInvalidData {
		t.Errorf("beyond the end: %v", code)
	}
	b, err := New(r.cfg, r.ports()) // given, not read
	if err != nil {
		t.Fatal(err)
	}
	r.b = b
	if got := read(); !bytes.Equal(got, r.cfg.BootConfig) {
		t.Errorf("as given: %d bytes", len(got))
	}
}

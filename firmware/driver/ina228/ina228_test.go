package ina228

import (
	"errors"
	"testing"

	"github.com/racklet/racklet/firmware/driver"
)

// table is a bus on which every register reads as given, most significant byte first.
type table map[byte]uint64

func (t table) Tx(_ uint16, w, r []byte) error {
	for i := range r {
		r[i] = byte(t[w[0]] >> (8 * (len(r) - 1 - i)))
	}
	return nil
}

// The data sheet's worked example (SLYS021A, section 8.2.2): 10 A at most through 16.2 mΩ would give CURRENT_LSB
// 19.073 µA and SHUNT_CAL 4050; 6 A flow at 48 V.
func TestWorkedExample(t *testing.T) {
	regs := table{regMakerID: makerID, regDeviceID: 0x2281, regShuntCal: 4051,
		regVBus: 245760 << 4, regCurrent: 314572 << 4, regPower: 4718604, regEnergy: 1061683200}
	d, err := New(regs, Config{ShuntMicroohms: 16200, MaxMilliamps: 10000})
	if err != nil {
		t.Fatal(err)
	}
	if d.cal < 4050 || d.cal > 4051 {
		t.Errorf("SHUNT_CAL %d, want about 4050", d.cal)
	}
	regs[regShuntCal] = uint64(d.cal)
	p, err := d.ReadPower()
	if err != nil {
		t.Fatal(err)
	}
	within := func(what string, got, want, per1000 uint64) {
		if got < want-want*per1000/1000 || got > want+want*per1000/1000 {
			t.Errorf("%s = %d, want %d", what, got, want)
		}
	}
	within("mV", uint64(p.Millivolts), 48000, 0)
	within("mA", uint64(p.Milliamps), 6000, 1)
	within("mW", uint64(p.Milliwatts), 288000, 1)
	within("mJ", p.Millijoules, 1036800000, 1) // one hour of it
}

func TestImpossibleReadings(t *testing.T) {
	for name, c := range map[string]struct {
		reg  byte
		val  uint64
		want error
	}{
		"another maker":       {regMakerID, 0x5441, driver.ErrNoDevice},
		"another chip":        {regDeviceID, 0x2381, driver.ErrNoDevice},
		"negative bus":        {regVBus, 0x800000, ErrRange},
		"86 V":                {regVBus, 440320 << 4, ErrRange},
		"shunt at full scale": {regCurrent, 0x7FFFF0, ErrRange},
		"lost calibration":    {regShuntCal, 0x1000, ErrReset},
	} {
		regs := table{regMakerID: makerID, regDeviceID: 0x2281}
		d, err := New(regs, Config{ShuntMicroohms: 5000, MaxMilliamps: 8000})
		if err != nil {
			t.Fatal(err)
		}
		regs[regShuntCal] = uint64(d.cal)
		if _, err := d.ReadPower(); err != nil {
			t.Fatalf("good control: %v", err)
		}
		regs[c.reg] = c.val
		if c.want == driver.ErrNoDevice {
			d.ready = false
		}
		if _, err := d.ReadPower(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	regs := table{regMakerID: makerID, regDeviceID: 0x2281, regDiagAlert: 0}
	d, _ := New(regs, Config{ShuntMicroohms: 5000, MaxMilliamps: 8000})
	regs[regShuntCal] = uint64(d.cal)
	if _, err := d.Alerts(); !errors.Is(err, ErrMemory) {
		t.Errorf("memory fault: %v", err)
	}
}

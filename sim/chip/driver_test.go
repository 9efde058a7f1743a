package chip_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/racklet/racklet/firmware/driver"
	"github.com/racklet/racklet/firmware/driver/eeprom"
	"github.com/racklet/racklet/firmware/driver/emc2305"
	"github.com/racklet/racklet/firmware/driver/ina228"
	"github.com/racklet/racklet/firmware/driver/tmp117"
	"github.com/racklet/racklet/sim/chip"
)

// rail is a load that the tests set; step lets it draw for a while.
type rail struct {
	chip.Rail
	bus *chip.Bus
}

func (r *rail) step(d time.Duration) {
	r.Joules += r.Volts * r.Amps * d.Seconds()
	r.bus.Advance(d)
}

func newRail(t *testing.T) (*rail, *ina228.Device) {
	t.Helper()
	r := &rail{bus: chip.NewBus()}
	r.Volts, r.Amps, r.Die = 5.1, 1.25, 31.5
	r.bus.Attach(0x40, chip.NewINA228(0.005, 1, func() chip.Rail { return r.Rail }))
	d, err := ina228.New(r.bus, ina228.Config{ShuntMicroohms: 5000, MaxMilliamps: 8000})
	if err != nil {
		t.Fatal(err)
	}
	return r, d
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if math.Abs(got-want) > tolerance {
		t.Errorf("%s = %v, want %v ± %v", what, got, want, tolerance)
	}
}

func TestINA228ReadsWhatThePlantDraws(t *testing.T) {
	r, d := newRail(t)
	for _, c := range []struct{ volts, amps float64 }{{5.1, 0.2}, {5.08, 1}, {5, 2.5}, {4.8, 5}, {5.1, 0}, {20, 7.9}} {
		r.Volts, r.Amps = c.volts, c.amps
		r.step(50 * time.Millisecond)
		p, err := d.ReadPower()
		if err != nil {
			t.Fatal(err)
		}
		r.step(50 * time.Millisecond)
		if p, err = d.ReadPower(); err != nil {
			t.Fatal(err)
		}
		near(t, "mV", float64(p.Millivolts), c.volts*1000, 1)
		near(t, "mA", float64(p.Milliamps), c.amps*1000, 1+c.amps)
		near(t, "mW", float64(p.Milliwatts), c.volts*c.amps*1000, 2+c.volts*c.amps)
	}
	tmp, err := d.ReadTemperature()
	if err != nil {
		t.Fatal(err)
	}
	near(t, "die m°C", float64(tmp), 31500, 8)
}

// Requirement L2.1-5: within one percent of the plant's truth from 1 to 25 W over 24 simulated hours.
func TestINA228EnergyOverADay(t *testing.T) {
	r, d := newRail(t)
	if _, err := d.ReadPower(); err != nil {
		t.Fatal(err)
	}
	r.step(time.Second)
	start, err := d.ReadPower()
	if err != nil {
		t.Fatal(err)
	}
	from := r.Joules
	for s := range 24 * 3600 {
		r.Amps = (1 + 24*float64(s%997)/996) / r.Volts
		r.step(time.Second)
		if s%60 == 0 {
			if _, err := d.ReadPower(); err != nil {
				t.Fatal(err)
			}
		}
	}
	p, err := d.ReadPower()
	if err != nil {
		t.Fatal(err)
	}
	want := (r.Joules - from) * 1000
	near(t, "mJ", float64(p.Millijoules-start.Millijoules), want, want*0.001)
}

func TestINA228EnergyWraps(t *testing.T) {
	// A finely resolved meter wraps within a test's patience: 1 mΩ, 100 mA, 51.2 · 190.7 nA·… per count.
	bus := chip.NewBus()
	r := chip.Rail{Volts: 80, Amps: 0.09}
	bus.Attach(0x40, chip.NewINA228(0.2, 1, func() chip.Rail { return r }))
	d, err := ina228.New(bus, ina228.Config{ShuntMicroohms: 200000, MaxMilliamps: 100})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.ReadPower(); err != nil {
		t.Fatal(err)
	}
	perWrap := float64(uint64(1)<<40) * 51.2 * float64(d.Resolution()) * 1e-12
	var total float64
	first := uint64(0)
	for i := range 12 { // four full wraps, read three times in each
		r.Joules += perWrap / 3
		if i > 0 {
			total += perWrap / 3
		}
		bus.Advance(time.Hour)
		p, err := d.ReadPower()
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = p.Millijoules
			continue
		}
		near(t, "mJ", float64(p.Millijoules-first), total*1000, total*1000*1e-4)
	}
}

// A second driver on the same chip, as after a restart of the firmware, goes on where the first one stopped.
func TestINA228EnergyOutlivesTheFirmware(t *testing.T) {
	r, d := newRail(t)
	var before driver.Power
	for range 5 {
		var err error
		if before, err = d.ReadPower(); err != nil {
			t.Fatal(err)
		}
		r.step(time.Second)
	}
	again, err := ina228.New(r.bus, ina228.Config{ShuntMicroohms: 5000, MaxMilliamps: 8000})
	if err != nil {
		t.Fatal(err)
	}
	r.step(10 * time.Second)
	after, err := again.ReadPower()
	if err != nil {
		t.Fatal(err)
	}
	near(t, "mJ", float64(after.Millijoules-before.Millijoules), 11*6375, 20)
}

func TestINA228NoticesAReset(t *testing.T) {
	r, d := newRail(t)
	for range 3 {
		if _, err := d.ReadPower(); err != nil {
			t.Fatal(err)
		}
		r.step(time.Second)
	}
	before, err := d.ReadPower()
	if err != nil {
		t.Fatal(err)
	}
	r.bus.Power(false)
	if _, err := d.ReadPower(); !errors.Is(err, driver.ErrNoDevice) {
		t.Fatalf("without power: %v", err)
	}
	r.bus.Power(true)
	r.step(time.Second)
	if _, err := d.ReadPower(); !errors.Is(err, ina228.ErrReset) {
		t.Fatalf("first reading after a reset: %v, want ErrReset", err)
	}
	r.step(time.Second)
	after, err := d.ReadPower()
	if err != nil {
		t.Fatal(err)
	}
	near(t, "mW", float64(after.Milliwatts), 6375, 10)
	if after.Millijoules < before.Millijoules || after.Millijoules > before.Millijoules+15000 {
		t.Errorf("energy went from %d to %d mJ over a reset", before.Millijoules, after.Millijoules)
	}
}

func TestINA228Alerts(t *testing.T) {
	r, d := newRail(t)
	if _, err := d.ReadPower(); err != nil {
		t.Fatal(err)
	}
	if err := d.SetCurrentLimit(2000); err != nil {
		t.Fatal(err)
	}
	if err := d.SetPowerLimit(20000); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		amps float64
		want ina228.Alert
	}{{1.9, 0}, {2.1, ina228.AlertCurrent}, {1.9, 0}, {4.2, ina228.AlertCurrent | ina228.AlertPower}} {
		r.Amps = c.amps
		r.step(10 * time.Millisecond)
		r.Amps = 1 // a short excursion must stay visible: the flags latch
		r.step(10 * time.Millisecond)
		got, err := d.Alerts()
		if err != nil {
			t.Fatal(err)
		}
		if got != c.want {
			t.Errorf("at %v A: alerts %b, want %b", c.amps, got, c.want)
		}
	}
}

func TestINA228RefusesImpossibleShunts(t *testing.T) {
	for _, c := range []ina228.Config{{}, {ShuntMicroohms: 5000}, {MaxMilliamps: 1}, {ShuntMicroohms: 100000, MaxMilliamps: 5000}} {
		if _, err := ina228.New(chip.NewBus(), c); !errors.Is(err, ina228.ErrConfig) {
			t.Errorf("%+v: %v, want ErrConfig", c, err)
		}
	}
}

// other is a chip that is not the one expected: it answers every register with its own address.
func TestDriversRefuseAnotherChip(t *testing.T) {
	bus := chip.NewBus()
	bus.Attach(0x40, chip.NewTMP117(func() float64 { return 20 }))
	bus.Attach(0x48, chip.NewEMC2305(func(int) float64 { return 0 }, func(int, float64) {}))
	bus.Attach(0x2E, chip.NewINA228(0.005, 1, func() chip.Rail { return chip.Rail{} }))
	power, err := ina228.New(bus, ina228.Config{ShuntMicroohms: 5000, MaxMilliamps: 8000})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := power.ReadPower(); !errors.Is(err, driver.ErrNoDevice) {
		t.Errorf("ina228 on a tmp117: %v", err)
	}
	if _, err := tmp117.New(bus, 0).ReadTemperature(); !errors.Is(err, driver.ErrNoDevice) {
		t.Errorf("tmp117 on an emc2305: %v", err)
	}
	fans, err := emc2305.New(bus, 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := fans.Speed(0); !errors.Is(err, driver.ErrNoDevice) {
		t.Errorf("emc2305 on an ina228: %v", err)
	}
}

func TestTMP117(t *testing.T) {
	bus := chip.NewBus()
	c := 21.3
	bus.Attach(0x48, chip.NewTMP117(func() float64 { return c }))
	d := tmp117.New(bus, 0)
	if _, err := d.ReadTemperature(); !errors.Is(err, tmp117.ErrNotReady) {
		t.Fatalf("before the first conversion: %v", err)
	}
	for _, c = range []float64{21.3, -40, 0, -0.5, 85.125, 149.9} {
		bus.Advance(time.Second)
		got, err := d.ReadTemperature()
		if err != nil {
			t.Fatal(err)
		}
		near(t, "m°C", float64(got), c*1000, 8)
	}
	c = 200 // beyond what the chip can be in: a reading that cannot be true
	bus.Advance(time.Second)
	if _, err := d.ReadTemperature(); !errors.Is(err, tmp117.ErrRange) {
		t.Errorf("200 °C: %v, want ErrRange", err)
	}
	c = 25
	if err := d.SetLimits(5000, 30000); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		c         float64
		low, high bool
	}{{25, false, false}, {31, false, true}, {4, true, false}, {25, false, false}} {
		c = step.c
		bus.Advance(time.Second)
		if step.c == 25 {
			d.Alerts() // clears what the way here set
			bus.Advance(time.Second)
		}
		low, high, err := d.Alerts()
		if err != nil || low != step.low || high != step.high {
			t.Errorf("%v °C: low %v high %v err %v", step.c, low, high, err)
		}
	}
}

func TestFaultsAreSeenByDrivers(t *testing.T) {
	bus := chip.NewBus()
	c := 20.0
	bus.Attach(0x48, chip.NewTMP117(func() float64 { return c }))
	d := tmp117.New(bus, 0)
	read := func() (int32, error) { bus.Advance(time.Second); return d.ReadTemperature() }
	if v, err := read(); err != nil || v != 20000 {
		t.Fatal(v, err)
	}
	bus.Jam(true)
	if _, err := read(); !errors.Is(err, chip.ErrJammed) {
		t.Errorf("jammed: %v", err)
	}
	bus.Jam(false)
	bus.SetFault(0x48, chip.Fault{Absent: true})
	if _, err := read(); !errors.Is(err, driver.ErrNoDevice) {
		t.Errorf("absent: %v", err)
	}
	bus.SetFault(0x48, chip.Fault{Lie: -15})
	c = 60
	if v, err := read(); err != nil || v != 45000 {
		t.Errorf("lie: %v %v", v, err)
	}
	bus.SetFault(0x48, chip.Fault{Frozen: true})
	c = 90
	if v, err := read(); err != nil || v != 45000 {
		t.Errorf("frozen: %v %v", v, err)
	}
	bus.SetFault(0x48, chip.Fault{})
	if v, err := read(); err != nil || v != 90000 {
		t.Errorf("healed: %v %v", v, err)
	}
}

func TestEMC2305(t *testing.T) {
	bus := chip.NewBus()
	var rpm, drive [5]float64
	bus.Attach(0x2E, chip.NewEMC2305(func(f int) float64 { return rpm[f] }, func(f int, s float64) { drive[f] = s }))
	d, err := emc2305.New(bus, 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.SetDuty(0, 40); err != nil {
		t.Fatal(err)
	}
	if err := d.SetDuty(1, 0); err != nil {
		t.Fatal(err)
	}
	near(t, "drive 0", drive[0], 0.4, 0.003)
	near(t, "drive 1", drive[1], 0, 0)
	for _, want := range []float64{1100, 2400, 5000, 9000} {
		rpm[0] = want
		bus.Advance(time.Second)
		got, stalled, err := d.Speed(0)
		if err != nil || stalled {
			t.Fatal(stalled, err)
		}
		near(t, "rpm", float64(got), want, want*0.01)
	}
	rpm[0] = 0
	bus.Advance(time.Second)
	if got, stalled, err := d.Speed(0); got != 0 || !stalled || err != nil {
		t.Errorf("stuck fan: %d rpm, stalled %v, %v", got, stalled, err)
	}
	if _, stalled, err := d.Speed(1); stalled || err != nil {
		t.Errorf("a fan that is off is not stalled: %v %v", stalled, err)
	}
	if mask, _, err := d.Stalled(); mask != 1 || err != nil {
		t.Errorf("stall flags %b, %v", mask, err)
	}
	if err := d.SetDuty(2, 10); !errors.Is(err, emc2305.ErrRange) {
		t.Errorf("third fan of two: %v", err)
	}
	if err := d.SetDuty(0, 101); !errors.Is(err, emc2305.ErrRange) {
		t.Errorf("101 percent: %v", err)
	}
}

func TestEMC2305WatchdogAndReset(t *testing.T) {
	bus := chip.NewBus()
	var drive [5]float64
	bus.Attach(0x2E, chip.NewEMC2305(func(f int) float64 { return 3000 }, func(f int, s float64) { drive[f] = s }))
	d, err := emc2305.New(bus, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.SetDuty(0, 30); err != nil {
		t.Fatal(err)
	}
	bus.Advance(3900 * time.Millisecond)
	near(t, "drive before the watchdog", drive[0], 0.3, 0.003)
	bus.Advance(200 * time.Millisecond)
	near(t, "drive after four silent seconds", drive[0], 1, 0)
	if _, watchdog, err := d.Stalled(); !watchdog || err != nil {
		t.Errorf("watchdog %v, %v", watchdog, err)
	}
	if got, err := d.Duty(0); got != 100 || err != nil {
		t.Errorf("duty read back %d, %v", got, err)
	}
	if err := d.SetDuty(0, 30); err != nil {
		t.Fatal(err)
	}
	bus.Power(false)
	bus.Power(true)
	if _, _, err := d.Speed(0); !errors.Is(err, emc2305.ErrReset) {
		t.Errorf("after a reset: %v", err)
	}
	if _, _, err := d.Speed(0); err != nil {
		t.Error(err)
	}
	near(t, "drive restored after a reset", drive[0], 0.3, 0.003)
}

func TestEEPROM(t *testing.T) {
	bus := chip.NewBus()
	rom := chip.NewEEPROM([6]byte{0x00, 0x04, 0xA3, 1, 2, 3})
	bus.Attach(0x50, rom)
	d := eeprom.New(bus, 0)
	var rec eeprom.Record
	if err := d.ReadRecord(&rec); !errors.Is(err, eeprom.ErrEmpty) {
		t.Fatalf("new chip: %v", err)
	}
	for _, f := range []struct {
		f eeprom.Field
		v string
	}{{eeprom.Model, "BMC board"}, {eeprom.PartNumber, "RK-BMC-1"}, {eeprom.SerialNumber, "0004A3010203"}, {eeprom.Manufacturer, "Racklet"}} {
		if err := rec.Set(f.f, f.v); err != nil {
			t.Fatal(err)
		}
	}
	if err := rec.Set(eeprom.Model, "again"); !errors.Is(err, eeprom.ErrRecord) {
		t.Errorf("field out of order: %v", err)
	}
	if err := d.WriteRecord(&rec); err != nil {
		t.Fatal(err)
	}
	var back eeprom.Record
	if err := d.ReadRecord(&back); err != nil {
		t.Fatal(err)
	}
	if got := back.Get(eeprom.SerialNumber); got != "0004A3010203" {
		t.Errorf("serial number %q", got)
	}
	if eui, err := d.EUI48(); err != nil || eui != [6]byte{0x00, 0x04, 0xA3, 1, 2, 3} {
		t.Errorf("EUI-48 %x, %v", eui, err)
	}
	if err := d.WriteAt([]byte{1}, 128); !errors.Is(err, driver.ErrOutOfRange) {
		t.Errorf("write into the read-only half: %v", err)
	}
	// Every flipped bit of the record must be noticed.
	good := rom.Contents()
	n := len(back.Append(nil))
	for i := range n * 8 {
		bad := append([]byte(nil), good...)
		bad[i/8] ^= 1 << (i % 8)
		rom.Load(bad)
		if err := d.ReadRecord(&back); !errors.Is(err, eeprom.ErrRecord) {
			t.Fatalf("flipped bit %d: %v", i, err)
		}
	}
}

// No allocation per reading: the same drivers run on a microcontroller.
func TestReadingsDoNotAllocate(t *testing.T) {
	r, power := newRail(t)
	r.bus.Attach(0x48, chip.NewTMP117(func() float64 { return 20 }))
	r.bus.Attach(0x2E, chip.NewEMC2305(func(int) float64 { return 3000 }, func(int, float64) {}))
	thermo := tmp117.New(r.bus, 0)
	fans, err := emc2305.New(r.bus, 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	r.step(time.Second)
	n := testing.AllocsPerRun(100, func() {
		if _, err := power.ReadPower(); err != nil {
			t.Fatal(err)
		}
		if _, err := thermo.ReadTemperature(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := fans.Speed(0); err != nil {
			t.Fatal(err)
		}
		if err := fans.SetDuty(0, 50); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations per round of readings", n)
	}
}

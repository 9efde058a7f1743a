// Package ina228 drives the Texas Instruments INA228, a 20-bit current, voltage, power and energy monitor on I²C.
//
// Data sheet: INA228 85-V, 20-Bit, Ultra-Precise Power/Energy/Charge Monitor With I2C Interface, SLYS021A (January
// 2021, revised May 2022). Sections and tables cited below are of that document.
//
// A Device needs no explicit start: the first reading checks the identity and writes the calibration, and a chip that
// lost its settings (its supply was cut) is noticed at the next reading, which reports ErrReset once and sets the chip
// up again. Nothing is allocated per reading; a Device takes about 80 bytes. It is not safe for concurrent use.
package ina228

import (
	"errors"
	"math/bits"

	"github.com/racklet/racklet/firmware/driver"
)

// Specification constants: registers (section 7.6.1, table 7-3) and their fields.
const (
	regConfig    = 0x00
	regADCConfig = 0x01
	regShuntCal  = 0x02
	regVShunt    = 0x04
	regVBus      = 0x05
	regDieTemp   = 0x06
	regCurrent   = 0x07
	regPower     = 0x08
	regEnergy    = 0x09
	regDiagAlert = 0x0B
	regSOVL      = 0x0C
	regPowerLim  = 0x11
	regMakerID   = 0x3E
	regDeviceID  = 0x3F

	makerID     = 0x5449 // "TI" (table 7-22)
	deviceID    = 0x228  // upper 12 bits (table 7-23)
	configReset = 1 << 15

	// adcContinuous: MODE Fh (shunt, bus and die continuously), 1052 µs conversions, 16 averages (table 7-6). One
	// result every 50 ms, the rate at which the firmware polls.
	adcContinuous = 0xF<<12 | 5<<9 | 5<<6 | 5<<3 | 2

	diagLatch    = 1 << 15 // ALATCH: alerts stay until DIAG_ALRT is read (table 7-16)
	diagMathOF   = 1 << 9
	diagShuntOL  = 1 << 6
	diagPowerOL  = 1 << 2
	diagMemoryOK = 1 << 0

	// vbusLSB is 195.3125 µV, as nanovolts times 16 (table 7-9, field in bits 23-4).
	vbusLSBNanovolts16 = 3125000
	// sovlLSBNanovolts: 5 µV with ADCRANGE 0 (table 7-17).
	sovlLSBNanovolts = 5000
)

// Implementation constants.
const (
	// DefaultAddress is the address with A0 and A1 tied to ground (table 7-2).
	DefaultAddress = 0x40

	maxShuntNanovolts = 163840000 // full scale with ADCRANGE 0 (section 7.3.1)
)

var (
	// ErrReset reports that the chip had lost its settings; the reading is lost, the next one is good again.
	ErrReset = errors.New("ina228: chip was reset")
	// ErrRange reports a reading that the chip marks as overflown or that cannot be (bus above 85 V, shunt at full scale).
	ErrRange = errors.New("ina228: reading out of range")
	// ErrMemory reports that the chip's trim memory failed its checksum (MEMSTAT): no reading of it can be believed.
	ErrMemory = errors.New("ina228: trim memory fault")
	// ErrConfig reports a shunt or maximum current that the calibration register cannot express.
	ErrConfig = errors.New("ina228: shunt calibration out of range")
)

// Config says how the chip is wired.
type Config struct {
	Address        uint16 // 0: DefaultAddress
	ShuntMicroohms uint32 // resistance of the shunt
	MaxMilliamps   uint32 // largest current expected; sets the resolution (2^19 steps)
}

// Alert is what made the ALERT pin go: a set of bits.
type Alert uint8

// The alerts that this driver arms.
const (
	AlertCurrent Alert = 1 << iota // current over SetCurrentLimit
	AlertPower                     // power over SetPowerLimit
)

// Device is one INA228.
type Device struct {
	bus  driver.Bus
	addr uint16

	shunt    uint32 // µΩ
	cal      uint16 // SHUNT_CAL
	lsb      uint64 // CURRENT_LSB in pA, as the rounded SHUNT_CAL really makes it
	ready    bool
	limits   [2]uint16 // SOVL, PWR_LIMIT, as last set
	lastRaw  uint64    // 40-bit ENERGY at the last reading
	energy   uint64    // raw units counted since New, wraps and chip resets bridged
	w        [3]byte
	r        [5]byte
	wroteAny bool
}

// New returns a driver for the chip at cfg.Address of bus. It does not touch the bus. The error is ErrConfig.
func New(bus driver.Bus, cfg Config) (*Device, error) {
	d := &Device{bus: bus, addr: cfg.Address, shunt: cfg.ShuntMicroohms, limits: [2]uint16{0x7FFF, 0xFFFF}}
	if d.addr == 0 {
		d.addr = DefaultAddress
	}
	if cfg.ShuntMicroohms == 0 || cfg.MaxMilliamps == 0 {
		return nil, ErrConfig
	}
	if uint64(cfg.ShuntMicroohms)*uint64(cfg.MaxMilliamps) > maxShuntNanovolts {
		return nil, ErrConfig // the shunt would drop more than the converter can measure
	}
	// SHUNT_CAL = 13107.2e6 · CURRENT_LSB · R (section 8.1.2, equation 2), CURRENT_LSB = maximum / 2^19 (equation 3):
	// in µΩ and pA, SHUNT_CAL = 131072 · lsb · R / 1e13. Rounding up keeps the maximum in range.
	lsb := (uint64(cfg.MaxMilliamps)*1e9 + 1<<19 - 1) >> 19
	cal := (131072*lsb*uint64(cfg.ShuntMicroohms) + 1e13 - 1) / 1e13
	if cal == 0 || cal > 0x7FFF {
		return nil, ErrConfig
	}
	d.cal = uint16(cal)
	d.lsb = (cal*1e13 + 65536*uint64(cfg.ShuntMicroohms)) / (131072 * uint64(cfg.ShuntMicroohms))
	return d, nil
}

// Configure checks the identity and writes calibration and limits, after a reset unless the chip has the calibration
// already: so the energy accumulator outlives a restart of the firmware. The other methods call it when needed. Errors: driver.ErrNoDevice for another chip, else the bus's own.
func (d *Device) Configure() error {
	d.ready = false
	maker, err := d.read(regMakerID, 2)
	if err != nil {
		return err
	}
	dev, err := d.read(regDeviceID, 2)
	if err != nil {
		return err
	}
	if maker != makerID || dev>>4 != deviceID {
		return driver.ErrNoDevice
	}
	cal, err := d.read(regShuntCal, 2)
	if err != nil {
		return err
	}
	adc, err := d.read(regADCConfig, 2)
	if err != nil {
		return err
	}
	if uint16(cal) == d.cal && adc == adcContinuous {
		// Set up before: by this driver before its firmware restarted. The accumulators went on counting.
		if err := d.write(regSOVL, d.limits[0]); err != nil {
			return err
		}
		if err := d.write(regPowerLim, d.limits[1]); err != nil {
			return err
		}
		d.ready = true
		return nil
	}
	// A reset clears the accumulators as well.
	for _, s := range [...]struct {
		reg byte
		val uint16
	}{
		{regConfig, configReset},
		{regADCConfig, adcContinuous},
		{regShuntCal, d.cal},
		{regDiagAlert, diagLatch},
		{regSOVL, d.limits[0]},
		{regPowerLim, d.limits[1]},
	} {
		if err := d.write(s.reg, s.val); err != nil {
			return err
		}
	}
	d.lastRaw = 0
	d.ready = true
	return nil
}

// ReadPower implements driver.PowerMeter. Energy is the chip's, with wraps of its 40-bit accumulator and resets that
// happen under this driver's eyes bridged. Current below zero (a unit feeding back) reads as zero.
func (d *Device) ReadPower() (driver.Power, error) {
	var p driver.Power
	if err := d.ensure(); err != nil {
		return p, err
	}
	vbus, err := d.read(regVBus, 3)
	if err != nil {
		return p, err
	}
	current, err := d.read(regCurrent, 3)
	if err != nil {
		return p, err
	}
	power, err := d.read(regPower, 3)
	if err != nil {
		return p, err
	}
	energy, err := d.read(regEnergy, 5)
	if err != nil {
		return p, err
	}
	if vbus>>23 != 0 {
		return p, ErrRange // VBUS is never negative (table 7-9)
	}
	mv := (vbus>>4)*(vbusLSBNanovolts16/16)/1000 + 500
	if mv/1000 > 85000 {
		return p, ErrRange
	}
	p.Millivolts = uint32(mv / 1000)
	if current>>23 == 0 {
		counts := current >> 4
		if counts == 1<<19-1 {
			return p, ErrRange
		}
		p.Milliamps = uint32((counts*d.lsb + 5e8) / 1e9)
	}
	// Power = 3.2 · CURRENT_LSB · POWER (section 8.1.2, equation 5).
	p.Milliwatts = uint32((power*d.lsb*16/5 + 5e8) / 1e9)
	d.energy += (energy - d.lastRaw) & (1<<40 - 1)
	d.lastRaw = energy
	p.Millijoules = d.millijoules()
	return p, nil
}

// ReadTemperature returns the chip's own temperature, 7.8125 m°C steps (table 7-10).
func (d *Device) ReadTemperature() (milliCelsius int32, err error) {
	if err := d.ensure(); err != nil {
		return 0, err
	}
	v, err := d.read(regDieTemp, 2)
	if err != nil {
		return 0, err
	}
	t := int32(int16(v)) * 125 / 16
	if t < -55000 || t > 175000 {
		return 0, ErrRange
	}
	return t, nil
}

// SetCurrentLimit arms the over-current alert; 0 disarms it. The limit is kept over resets of the chip.
func (d *Device) SetCurrentLimit(milliamps uint32) error {
	v := uint64(0x7FFF)
	if milliamps != 0 {
		v = uint64(milliamps) * uint64(d.shunt) / sovlLSBNanovolts // mA · µΩ = nV
		if v > 0x7FFE {
			return ErrRange
		}
	}
	d.limits[0] = uint16(v)
	return d.setLimit(regSOVL, d.limits[0])
}

// SetPowerLimit arms the over-power alert; 0 disarms it. One step is 256 power steps (table 7-22, PWR_LIMIT).
func (d *Device) SetPowerLimit(milliwatts uint32) error {
	v := uint64(0xFFFF)
	if milliwatts != 0 {
		v = uint64(milliwatts) * 1e9 / (d.lsb * 16 / 5 * 256)
		if v > 0xFFFE {
			return ErrRange
		}
	}
	d.limits[1] = uint16(v)
	return d.setLimit(regPowerLim, d.limits[1])
}

// Alerts returns and clears what has been over its limit since the last call.
func (d *Device) Alerts() (Alert, error) {
	if err := d.ensure(); err != nil {
		return 0, err
	}
	v, err := d.read(regDiagAlert, 2)
	if err != nil {
		return 0, err
	}
	if v&diagMemoryOK == 0 {
		return 0, ErrMemory
	}
	var a Alert
	if v&diagShuntOL != 0 {
		a |= AlertCurrent
	}
	if v&diagPowerOL != 0 {
		a |= AlertPower
	}
	if v&diagMathOF != 0 {
		return a, ErrRange
	}
	return a, nil
}

// Resolution returns CURRENT_LSB in picoamperes, as calibrated.
func (d *Device) Resolution() uint64 { return d.lsb }

// ensure sets the chip up when it is not, and notices one that lost its settings.
func (d *Device) ensure() error {
	if !d.ready {
		first := !d.wroteAny
		if err := d.Configure(); err != nil {
			return err
		}
		d.wroteAny = true
		if first {
			return nil
		}
	}
	cal, err := d.read(regShuntCal, 2)
	if err != nil {
		return err
	}
	if uint16(cal) != d.cal {
		if err := d.Configure(); err != nil {
			return err
		}
		return ErrReset
	}
	return nil
}

func (d *Device) setLimit(reg byte, v uint16) error {
	if !d.ready {
		return d.ensure()
	}
	return d.write(reg, v)
}

// millijoules converts the raw count: Energy = 16 · 3.2 · CURRENT_LSB · ENERGY (section 8.1.2, equation 6), that is
// 51.2 · lsb pJ each.
func (d *Device) millijoules() uint64 {
	hi, lo := bits.Mul64(d.energy, d.lsb*256) // · 51.2 = · 256 / 5
	if hi >= 5e9 {
		return ^uint64(0) // beyond 1.8e16 J: no rack lives that long
	}
	q, _ := bits.Div64(hi, lo, 5e9)
	return q
}

// read returns an n-byte register, most significant byte first (section 7.5.1).
func (d *Device) read(reg byte, n int) (uint64, error) {
	d.w[0] = reg
	if err := d.bus.Tx(d.addr, d.w[:1], d.r[:n]); err != nil {
		return 0, err
	}
	var v uint64
	for _, b := range d.r[:n] {
		v = v<<8 | uint64(b)
	}
	return v, nil
}

func (d *Device) write(reg byte, v uint16) error {
	d.w = [3]byte{reg, byte(v >> 8), byte(v)}
	return d.bus.Tx(d.addr, d.w[:3], nil)
}

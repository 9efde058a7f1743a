// Package tmp117 drives the Texas Instruments TMP117, a digital thermometer on I²C, ±0.1 °C from −20 to 50 °C.
//
// Data sheet: TMP117 High-Accuracy, Low-Power, Digital Temperature Sensor With SMBus- and I2C-Compatible Interface,
// SNOSD82D (June 2018, revised September 2022). Sections and tables cited below are of that document.
//
// The chip converts continuously from power-on (every second with eight averages, section 7.4.1), so nothing has to be
// configured; the first reading checks the identity, and every failed one makes the next check it again. Nothing is
// allocated per reading. A Device is not safe for concurrent use.
package tmp117

import (
	"errors"

	"github.com/racklet/racklet/firmware/driver"
)

// Specification constants (section 7.6.1, table 7-3).
const (
	regResult   = 0x00
	regHigh     = 0x02
	regLow      = 0x03
	regConfig   = 0x01
	regDeviceID = 0x0F

	deviceID   = 0x117  // lower 12 bits; the upper four are the revision (table 7-17)
	noResult   = 0x8000 // result register before the first conversion, −256 °C (table 7-4)
	configHigh = 1 << 15
	configLow  = 1 << 14

	minMilliCelsius = -55000 // operating range (section 6.3)
	maxMilliCelsius = 150000
)

// DefaultAddress is the address with ADD0 tied to ground (table 7-1).
const DefaultAddress = 0x48

var (
	// ErrNotReady reports that the chip has not finished its first conversion (125 ms after its power-on).
	ErrNotReady = errors.New("tmp117: no reading yet")
	// ErrRange reports a temperature outside of the chip's operating range: the reading cannot be true.
	ErrRange = errors.New("tmp117: reading out of range")
)

// Device is one TMP117.
type Device struct {
	bus   driver.Bus
	addr  uint16
	known bool
	w     [3]byte
	r     [2]byte
}

// New returns a driver for the chip at addr (0: DefaultAddress) of bus. It does not touch the bus.
func New(bus driver.Bus, addr uint16) *Device {
	if addr == 0 {
		addr = DefaultAddress
	}
	return &Device{bus: bus, addr: addr}
}

// ReadTemperature implements driver.Thermometer. Errors: driver.ErrNoDevice for another chip, ErrNotReady, ErrRange,
// else the bus's own.
func (d *Device) ReadTemperature() (milliCelsius int32, err error) {
	if err := d.identify(); err != nil {
		return 0, err
	}
	v, err := d.read(regResult)
	if err != nil {
		d.known = false
		return 0, err
	}
	if v == noResult {
		return 0, ErrNotReady
	}
	t := fromRaw(v)
	if t < minMilliCelsius || t > maxMilliCelsius {
		d.known = false
		return 0, ErrRange
	}
	return t, nil
}

// SetLimits arms the ALERT pin: it goes active above high and below low, in m°C (section 7.4.5).
func (d *Device) SetLimits(low, high int32) error {
	if low < minMilliCelsius || high > maxMilliCelsius || low >= high {
		return ErrRange
	}
	if err := d.identify(); err != nil {
		return err
	}
	if err := d.write(regHigh, toRaw(high)); err != nil {
		return err
	}
	return d.write(regLow, toRaw(low))
}

// Alerts returns and clears the alert flags (table 7-5).
func (d *Device) Alerts() (low, high bool, err error) {
	if err := d.identify(); err != nil {
		return false, false, err
	}
	v, err := d.read(regConfig)
	if err != nil {
		d.known = false
		return false, false, err
	}
	return v&configLow != 0, v&configHigh != 0, nil
}

func (d *Device) identify() error {
	if d.known {
		return nil
	}
	v, err := d.read(regDeviceID)
	if err != nil {
		return err
	}
	if v&0xFFF != deviceID {
		return driver.ErrNoDevice
	}
	d.known = true
	return nil
}

// fromRaw converts two's complement steps of 7.8125 m°C (section 7.3.1).
func fromRaw(v uint16) int32 { return int32(int16(v)) * 125 / 16 }

func toRaw(milli int32) uint16 { return uint16(int16(milli * 16 / 125)) }

func (d *Device) read(reg byte) (uint16, error) {
	d.w[0] = reg
	if err := d.bus.Tx(d.addr, d.w[:1], d.r[:]); err != nil {
		return 0, err
	}
	return uint16(d.r[0])<<8 | uint16(d.r[1]), nil
}

func (d *Device) write(reg byte, v uint16) error {
	d.w = [3]byte{reg, byte(v >> 8), byte(v)}
	return d.bus.Tx(d.addr, d.w[:], nil)
}

// Package emc2305 drives the Microchip EMC2301/2/3/5 family of PWM fan controllers with tachometers, on SMBus.
//
// Data sheet: EMC2301/2/3/5 Fan Controller Family, DS20006532A (2021). Sections and tables cited below are of that
// document.
//
// The chip's own speed regulation stays off (EN_ALGO = 0): the caller sets duties and the chip drives and watches. If
// the caller falls silent for four seconds, the chip's watchdog drives every fan at full speed by itself (section
// 4.11): the last line of defence when the whole controller hangs. The first call sets the chip up; one that lost its
// settings is noticed by Speeds and set up again, with the duties last asked for. Nothing is allocated per call. A
// Device is not safe for concurrent use.
package emc2305

import (
	"errors"

	"github.com/racklet/racklet/firmware/driver"
)

// Specification constants (chapter 5, table 5-1).
const (
	regConfig     = 0x20
	regStatus     = 0x24
	regStall      = 0x25
	regPWMOutput  = 0x2B // push-pull (1) or open drain (0) per fan (section 5.9)
	regPWMBase45  = 0x2C
	regPWMBase123 = 0x2D
	regProduct    = 0xFD
	regMaker      = 0xFE

	// Each fan has a block of sixteen registers, the first at 30h.
	regFanBase  = 0x30
	fanStride   = 0x10
	offSetting  = 0x0 // drive, 0..255
	offConfig1  = 0x2
	offSpinUp   = 0x6
	offMinDrive = 0x8
	offValid    = 0x9 // counts above this mean a stalled fan, in steps of 32
	offTachHigh = 0xE
	offTachLow  = 0xF

	makerID     = 0x5D // SMSC (section 5.25)
	productBase = 0x34 // 34h EMC2305 (5 fans), 35h EMC2303, 36h EMC2302, 37h EMC2301 (section 5.24)

	configWatchdog  = 1 << 5 // WD_EN: continuous watchdog (section 5.1)
	configNoTimeout = 1 << 6 // DIS_TO
	statusWatchdog  = 1 << 7 // WATCH (section 5.2)

	// config1: algorithm off, RANGE 1000 rpm (multiplier 2), 5 edges for a two-pole fan, 400 ms (section 5.12).
	config1 = 0<<7 | 1<<5 | 1<<3 | 3
	// tachNumerator: rpm = 3,932,160 · multiplier / count, for two poles and five edges (section 4.4.1, equation 4-3).
	tachNumerator = 3932160 * 2
	tachStalled   = 0x1FFF
	base26kHz     = 0
)

// MaxFans is the number of fan channels of the largest chip of the family.
const MaxFans = 5

// DefaultAddress is the EMC2305's address with a 4.7 kΩ resistor at ADDR_SEL (table 3-2).
const DefaultAddress = 0x2E

// minRPM is the slowest speed that RANGE can measure.
const minRPM = 1000

var (
	// ErrReset reports that the chip had lost its settings; they are written again, the reading is lost.
	ErrReset = errors.New("emc2305: chip was reset")
	// ErrRange reports a fan number or a duty that there is not.
	ErrRange = errors.New("emc2305: fan or duty out of range")
)

// Device is one fan controller.
type Device struct {
	bus    driver.Bus
	addr   uint16
	fans   int // asked for by New
	ready  bool
	duties [MaxFans]uint8 // percent
	w      [2]byte
	r      [1]byte
}

// New returns a driver for a chip at addr (0: DefaultAddress) with the given number of fans connected, 1 to 5. It does
// not touch the bus. Every duty starts at 100 percent.
func New(bus driver.Bus, addr uint16, fans int) (*Device, error) {
	if fans < 1 || fans > MaxFans {
		return nil, ErrRange
	}
	if addr == 0 {
		addr = DefaultAddress
	}
	d := &Device{bus: bus, addr: addr, fans: fans}
	for i := range d.duties {
		d.duties[i] = 100
	}
	return d, nil
}

// Fans returns the number of fans connected.
func (d *Device) Fans() int { return d.fans }

// Configure checks the identity and sets every fan up. The other methods call it when needed. Errors:
// driver.ErrNoDevice for another chip or one with too few channels, else the bus's own.
func (d *Device) Configure() error {
	d.ready = false
	maker, err := d.read(regMaker)
	if err != nil {
		return err
	}
	product, err := d.read(regProduct)
	if err != nil {
		return err
	}
	if maker != makerID || product < productBase || product > productBase+3 || channels(product) < d.fans {
		return driver.ErrNoDevice
	}
	if err := d.write(regPWMBase123, base26kHz); err != nil { // 26 kHz, in the 21–28 kHz of 4-wire fans
		return err
	}
	if product == productBase {
		if err := d.write(regPWMBase45, base26kHz); err != nil {
			return err
		}
	}
	if err := d.write(regPWMOutput, 0x1F); err != nil {
		return err
	}
	for fan := range d.fans {
		base := byte(regFanBase + fan*fanStride)
		if err := d.write(base+offConfig1, config1); err != nil {
			return err
		}
		// Valid count: what a fan at minRPM makes, in the register's steps of 32 (section 5.18).
		if err := d.write(base+offValid, byte(tachNumerator/minRPM>>5)); err != nil {
			return err
		}
		if err := d.write(base+offMinDrive, 0); err != nil {
			return err
		}
		if err := d.write(base+offSetting, drive(d.duties[fan])); err != nil {
			return err
		}
	}
	if err := d.write(regConfig, configNoTimeout|configWatchdog); err != nil {
		return err
	}
	d.ready = true
	return nil
}

// SetDuty drives one fan (0 is the first) at a share of full speed, in percent.
func (d *Device) SetDuty(fan int, percent uint8) error {
	if fan < 0 || fan >= d.fans || percent > 100 {
		return ErrRange
	}
	d.duties[fan] = percent
	if !d.ready {
		return d.Configure()
	}
	if err := d.write(byte(regFanBase+fan*fanStride+offSetting), drive(percent)); err != nil {
		d.ready = false
		return err
	}
	return nil
}

// Speed returns one fan's speed in rpm; 0 with stalled set when it does not turn (or slower than 1000 rpm). A fan that
// is driven at 0 percent and stands still is not stalled.
func (d *Device) Speed(fan int) (rpm uint32, stalled bool, err error) {
	if fan < 0 || fan >= d.fans {
		return 0, false, ErrRange
	}
	if !d.ready {
		if err := d.Configure(); err != nil {
			return 0, false, err
		}
	}
	base := byte(regFanBase + fan*fanStride)
	// The high byte latches the low one (section 5.21).
	hi, err := d.read(base + offTachHigh)
	if err != nil {
		return 0, false, d.lost(err)
	}
	lo, err := d.read(base + offTachLow)
	if err != nil {
		return 0, false, d.lost(err)
	}
	cfg, err := d.read(base + offConfig1)
	if err != nil {
		return 0, false, d.lost(err)
	}
	min, err := d.read(base + offMinDrive)
	if err != nil {
		return 0, false, d.lost(err)
	}
	if cfg != config1 || min != 0 {
		if err := d.Configure(); err != nil {
			return 0, false, err
		}
		return 0, false, ErrReset
	}
	count := uint32(hi)<<5 | uint32(lo)>>3
	if count == 0 {
		return 0, false, ErrRange
	}
	if count >= tachStalled || count>>5 > tachNumerator/minRPM>>5 {
		return 0, d.duties[fan] > 0, nil
	}
	return tachNumerator / count, false, nil
}

// Duty returns what the chip drives a fan with now, in percent: the watchdog may have raised it.
func (d *Device) Duty(fan int) (percent uint8, err error) {
	if fan < 0 || fan >= d.fans {
		return 0, ErrRange
	}
	v, err := d.read(byte(regFanBase + fan*fanStride + offSetting))
	if err != nil {
		return 0, d.lost(err)
	}
	return uint8((uint32(v)*100 + 127) / 255), nil
}

// Stalled returns and clears the chip's own stall flags, bit 0 for the first fan, and whether its watchdog ran out
// since the last call (section 5.2: then every fan runs at full speed until its next setting).
func (d *Device) Stalled() (mask uint8, watchdog bool, err error) {
	if !d.ready {
		if err := d.Configure(); err != nil {
			return 0, false, err
		}
	}
	status, err := d.read(regStatus)
	if err != nil {
		return 0, false, d.lost(err)
	}
	mask, err = d.read(regStall)
	if err != nil {
		return 0, false, d.lost(err)
	}
	return mask & (1<<d.fans - 1), status&statusWatchdog != 0, nil
}

func (d *Device) lost(err error) error {
	d.ready = false
	return err
}

// channels returns how many fans a product has.
func channels(product byte) int {
	return [...]int{5, 3, 2, 1}[product-productBase]
}

func drive(percent uint8) byte { return byte((uint32(percent)*255 + 50) / 100) }

func (d *Device) read(reg byte) (byte, error) {
	d.w[0] = reg
	if err := d.bus.Tx(d.addr, d.w[:1], d.r[:]); err != nil {
		return 0, err
	}
	return d.r[0], nil
}

func (d *Device) write(reg, v byte) error {
	d.w = [2]byte{reg, v}
	return d.bus.Tx(d.addr, d.w[:], nil)
}

// Package driver holds the small interfaces between the firmware's state machines and the chips and pins beneath them.
//
// The state machines (firmware/bmc, firmware/rmc) see only these interfaces. One folder per chip below this one holds
// the drivers, written against Bus; the virtual rack supplies register-level chips and a board supplies real pins.
// Nothing here keeps state, starts goroutines or knows the time.
package driver

import "errors"

// ErrNoDevice is returned by a Bus when nothing acknowledges the address, and by a driver whose chip identifies itself
// as something else. The callers treat the reading as lost and go on.
var ErrNoDevice = errors.New("no device")

// ErrOutOfRange is returned by a Flash for an access beyond its size or, for Erase, one that is not sector aligned.
var ErrOutOfRange = errors.New("out of range")

// ErrEmpty is returned by an Identity whose chip was never written, ErrDamaged by one whose record does not pass its check.
var (
	ErrEmpty   = errors.New("nothing was ever written")
	ErrDamaged = errors.New("record is damaged")
)

// SectorSize is the erase unit of every Flash here, in bytes (4 KiB, as in every common SPI NOR chip).
const SectorSize = 4096

// Bus is one I²C bus. Tx writes w to the 7-bit address and then, after a repeated start, reads len(r) bytes into r.
// Either may be empty. The same method is found in TinyGo's drivers, so one driver serves microcontroller and fake.
type Bus interface {
	Tx(addr uint16, w, r []byte) error
}

// Flash is a NOR flash: Erase sets the 4 KiB sector at off to 0xFF, Program only clears bits (the result is the AND of
// old and new contents). A power cut may leave a Program half done and an erased sector half erased; what uses a Flash
// must expect it. Program may cross page and sector borders; the driver splits it.
type Flash interface {
	ReadAt(p []byte, off uint32) error
	Program(off uint32, p []byte) error
	Erase(off uint32) error
	Size() uint32
}

// Output is one digital output, true for asserted; the board knows the polarity.
type Output interface {
	Set(bool)
}

// Input is one digital input, true for asserted.
type Input interface {
	Get() bool
}

// Power is one reading of a power meter. Energy is what the chip has accumulated since it was last powered or reset
// and may go back to zero at any time; a consumer adds up the differences.
type Power struct {
	Millivolts  uint32
	Milliamps   uint32
	Milliwatts  uint32
	Millijoules uint64
}

// PowerMeter measures one rail. An error means that the reading is lost, not that it is zero.
type PowerMeter interface {
	ReadPower() (Power, error)
}

// Thermometer measures one temperature in thousandths of a degree Celsius.
type Thermometer interface {
	ReadTemperature() (milliCelsius int32, err error)
}

// Identity is a board's identity record: who made it, and which one it is. ReadIdentity puts its fields into dst, type (1
// byte), length (1), value each, as a general FRU record of DSP0257 has them, and returns their length. Errors: ErrEmpty,
// ErrDamaged, ErrOutOfRange when dst is too short, else the bus's own.
type Identity interface {
	ReadIdentity(dst []byte) (n int, err error)
}

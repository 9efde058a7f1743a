// Package chip models the rack's chips at register level, so that the firmware's real drivers run against them: real
// register maps, byte order, reset values, and the ways in which chips and buses fail.
//
//	plant ── small functions ──▶ chip ◀── Tx(addr, w, r) ── driver ◀── firmware
//
// A chip knows nothing of the plant: functions given at its making say what it measures and take what it drives. A chip
// keeps time only by Bus.Advance. All methods are safe for concurrent use; the functions are called with the bus's lock
// held and must not call back into it.
//
// Faults are set on the Bus (a line held low, for every chip on it) and per chip (Fault): no acknowledge, frozen
// values, values with a lie added.
package chip

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/racklet/racklet/firmware/driver"
)

var (
	// ErrNACK is returned for an address that nobody acknowledges. It is driver.ErrNoDevice, as every bus reports it.
	ErrNACK = fmt.Errorf("chip: address not acknowledged: %w", driver.ErrNoDevice)
	// ErrJammed is returned while a line of the bus is held low.
	ErrJammed = errors.New("chip: bus jammed")
)

// Fault is how one chip misbehaves. The zero value is a healthy chip.
type Fault struct {
	Absent bool    // does not acknowledge
	Frozen bool    // goes on answering with the values of the moment the fault began
	Lie    float64 // added to what it measures, in its unit: A (INA228), °C (TMP117), rpm (EMC2305)
}

// Device is one chip on a Bus.
type Device interface {
	// tx is one transfer; the bus holds its lock.
	tx(w, r []byte) error
	// advance lets the chip's own time pass: conversions, watchdogs.
	advance(d time.Duration)
	// reset is the chip's power-on state.
	reset()
	// setFault replaces the fault in force.
	setFault(f Fault)
}

// Bus is one I²C bus with its chips. It implements driver.Bus.
type Bus struct {
	mu      sync.Mutex
	devices [128]Device
	absent  [128]bool
	jammed  bool
	dead    bool
	count   uint64
}

var _ driver.Bus = (*Bus)(nil)

// NewBus returns a bus with nobody on it.
func NewBus() *Bus { return &Bus{} }

// Attach puts a chip at a 7-bit address, replacing the one there; nil takes it away.
func (b *Bus) Attach(addr uint16, d Device) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.devices[addr&0x7F] = d
	b.absent[addr&0x7F] = false
}

// Tx implements driver.Bus. Errors: ErrNACK, ErrJammed.
func (b *Bus) Tx(addr uint16, w, r []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count++
	if b.jammed {
		return ErrJammed
	}
	if addr > 127 || b.dead || b.devices[addr] == nil || b.absent[addr] {
		return ErrNACK
	}
	return b.devices[addr].tx(w, r)
}

// Advance lets simulated time pass for every chip. Call it after each step of the plant.
func (b *Bus) Advance(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dead {
		return
	}
	for _, dev := range b.devices {
		if dev != nil {
			dev.advance(d)
		}
	}
}

// Jam holds the data line low (true) or lets go.
func (b *Bus) Jam(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.jammed = on
}

// Power cuts (false) or restores the supply of every chip on the bus. Without it nobody answers; with it back, chips
// are in their power-on state.
func (b *Bus) Power(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if on && b.dead {
		for _, d := range b.devices {
			if d != nil {
				d.reset()
			}
		}
	}
	b.dead = !on
}

// SetFault replaces the fault of the chip at addr. It does nothing where there is none.
func (b *Bus) SetFault(addr uint16, f Fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.devices[addr&0x7F]
	if d == nil {
		return
	}
	b.absent[addr&0x7F] = f.Absent
	d.setFault(f)
}

// Transfers returns the number of transfers so far, failed ones included.
func (b *Bus) Transfers() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count
}

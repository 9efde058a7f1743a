package chip

import "time"

// EEPROM models a Microchip 24AA025E48 (data sheet DS20002124G): 256 bytes, pages of sixteen, upper half read only with
// an EUI-48 at FAh, no acknowledge during the five milliseconds of a write.
type EEPROM struct {
	data    [256]byte
	pointer byte
	busy    time.Duration // what is left of a write
	polls   int
	fault   Fault
}

// NewEEPROM returns an erased chip with the given unique address. Its contents outlive a loss of power.
func NewEEPROM(eui [6]byte) *EEPROM {
	c := &EEPROM{}
	for i := range c.data {
		c.data[i] = 0xFF
	}
	copy(c.data[0xFA:], eui[:])
	return c
}

// Load puts a record into the writable half, as the board's maker does.
func (c *EEPROM) Load(b []byte) { copy(c.data[:128], b) }

// Contents returns a copy of the writable half.
func (c *EEPROM) Contents() []byte { return append([]byte(nil), c.data[:128]...) }

func (c *EEPROM) reset() { c.pointer, c.busy = 0, 0 }

func (c *EEPROM) setFault(f Fault) { c.fault = f }

func (c *EEPROM) advance(d time.Duration) { c.busy = max(0, c.busy-d) }

func (c *EEPROM) tx(w, r []byte) error {
	if c.busy > 0 {
		// Every poll takes bus time, so that a driver that only polls, without the plant stepping, gets through.
		c.busy = max(0, c.busy-25*time.Microsecond)
		return ErrNACK
	}
	if len(w) > 0 {
		c.pointer = w[0]
	}
	if len(w) > 1 {
		page := c.pointer &^ 0xF
		for _, v := range w[1:] { // within a page the address wraps (section 6.2)
			if c.pointer < 128 {
				c.data[c.pointer] = v
			}
			c.pointer = page | (c.pointer+1)&0xF
		}
		c.busy = 5 * time.Millisecond
	}
	for i := range r {
		r[i] = c.data[c.pointer]
		c.pointer++
	}
	return nil
}

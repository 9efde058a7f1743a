package chip

import "time"

// TMP117 models TI's digital thermometer (data sheet SNOSD82D, section 7.6): continuous conversions of one second after
// a first one of 125 ms, two's complement steps of 7.8125 m°C, alert flags that reading the configuration clears.
type TMP117 struct {
	source  func() float64
	fault   Fault
	shown   float64
	started bool
	since   time.Duration

	pointer byte
	config  uint16
	high    uint16
	low     uint16
	offset  uint16
	eeprom  [3]uint16
}

// Conversion times (SNOSD82D, section 7.4.1 and table 7-7: CONV 4, AVG 1).
const (
	tmp117First = 125 * time.Millisecond
	tmp117Cycle = time.Second
)

// NewTMP117 returns a chip that measures source, in °C.
func NewTMP117(source func() float64) *TMP117 {
	c := &TMP117{source: source}
	c.reset()
	return c
}

func (c *TMP117) reset() {
	c.pointer, c.config, c.high, c.low, c.offset = 0, 0x0220, 0x6000, 0x8000, 0
	c.started, c.since = false, 0
}

func (c *TMP117) setFault(f Fault) { c.fault = f }

func (c *TMP117) advance(d time.Duration) {
	c.since += d
	if c.since < tmp117First || c.started && c.since < tmp117Cycle {
		return
	}
	c.since = 0
	if !c.fault.Frozen || !c.started {
		c.shown = c.source() + c.fault.Lie
	}
	c.started = true
	c.config |= 1 << 13 // Data_Ready
	if v := int16(c.result()); v > int16(c.high) {
		c.config |= 1 << 15
	} else if v < int16(c.low) {
		c.config |= 1 << 14
	}
}

func (c *TMP117) result() uint16 {
	if !c.started {
		return 0x8000
	}
	v := c.shown / 7.8125e-3
	if v < 0 {
		v -= 0.5
	} else {
		v += 0.5
	}
	return uint16(int16(clamp(v, -32768, 32767))) + c.offset
}

func (c *TMP117) tx(w, r []byte) error {
	if len(w) > 0 {
		c.pointer = w[0]
	}
	if len(w) == 3 {
		c.write(uint16(w[1])<<8 | uint16(w[2]))
	}
	if len(r) == 0 {
		return nil
	}
	v := c.read()
	for i := range r {
		r[i] = 0xFF
	}
	r[0] = byte(v >> 8)
	if len(r) > 1 {
		r[1] = byte(v)
	}
	return nil
}

func (c *TMP117) write(v uint16) {
	switch c.pointer {
	case 0x01:
		if v&(1<<1) != 0 { // Soft_Reset
			c.reset()
			return
		}
		c.config = c.config&0xF000 | v&0x0FFC
	case 0x02:
		c.high = v
	case 0x03:
		c.low = v
	case 0x05, 0x06:
		c.eeprom[c.pointer-0x05] = v
	case 0x07:
		c.offset = v
	case 0x08:
		c.eeprom[2] = v
	}
}

func (c *TMP117) read() uint16 {
	switch c.pointer {
	case 0x00:
		c.config &^= 1 << 13
		return c.result()
	case 0x01:
		v := c.config
		c.config &^= 7 << 13
		return v
	case 0x02:
		return c.high
	case 0x03:
		return c.low
	case 0x05, 0x06:
		return c.eeprom[c.pointer-0x05]
	case 0x07:
		return c.offset
	case 0x08:
		return c.eeprom[2]
	case 0x0F:
		return 0x0117
	}
	return 0
}

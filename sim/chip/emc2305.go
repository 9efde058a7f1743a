package chip

import "time"

// EMC2305 models Microchip's fan controller for five fans (data sheet DS20006532A, chapter 5): drive settings,
// tachometer counts of the 32.768 kHz clock, stall flags, and the watchdog that drives every fan at full speed after
// four seconds without the host. The chip's own speed regulation (EN_ALGO) is not modelled: drive follows the setting.
type EMC2305 struct {
	rpm   func(fan int) float64
	drive func(fan int, share float64)

	fault    Fault
	shown    [5]float64
	reg      [256]byte
	pointer  byte
	latched  byte // low byte that goes with the high byte last read
	silence  time.Duration
	watching bool // power-up watchdog still armed
	tripped  bool
}

// emc2305Watchdog is the watchdog's time (section 4.11).
const emc2305Watchdog = 4 * time.Second

// NewEMC2305 returns a chip that reads fan speeds from rpm and hands drives, 0 to 1, to drive. Fans count from zero.
func NewEMC2305(rpm func(fan int) float64, drive func(fan int, share float64)) *EMC2305 {
	c := &EMC2305{rpm: rpm, drive: drive}
	c.reset()
	return c
}

func (c *EMC2305) reset() {
	c.reg = [256]byte{}
	c.reg[0x20], c.reg[0xFD], c.reg[0xFE], c.reg[0xFF] = 0x40, 0x34, 0x5D, 0x80
	for f := 0x30; f <= 0x70; f += 0x10 {
		copy(c.reg[f:], []byte{0x00, 0x01, 0x2B, 0x28, 0x00, 0x2A, 0x19, 0x10, 0x66, 0xF5, 0, 0, 0xF8, 0xFF, 0xFF, 0xF8})
	}
	c.pointer, c.silence, c.watching, c.tripped = 0, 0, true, false
	c.apply()
}

func (c *EMC2305) setFault(f Fault) { c.fault = f }

// apply hands every drive to the fans.
func (c *EMC2305) apply() {
	for f := range 5 {
		c.drive(f, float64(c.reg[0x30+f*0x10])/255)
	}
}

func (c *EMC2305) advance(d time.Duration) {
	c.silence += d
	if c.silence >= emc2305Watchdog && (c.watching || c.reg[0x20]&(1<<5) != 0) && !c.tripped {
		c.tripped = true
		c.reg[0x24] |= 1 << 7
		for f := range 5 {
			c.reg[0x30+f*0x10] = 0xFF
		}
		c.apply()
	}
	for f := range 5 {
		if !c.fault.Frozen {
			c.shown[f] = c.rpm(f) + c.fault.Lie
		}
		base := 0x30 + f*0x10
		n := c.count(f)
		c.reg[base+0xE], c.reg[base+0xF] = byte(n>>5), byte(n<<3)
		if n>>5 > uint32(c.reg[base+9]) && c.reg[base] > 0 {
			c.reg[0x25] |= 1 << f
			c.reg[0x24] |= 1
		}
	}
}

// count is the tachometer reading: 3,932,160 · multiplier / rpm for two poles and five edges (equation 4-3).
func (c *EMC2305) count(f int) uint32 {
	m := float64(uint32(1) << (c.reg[0x32+f*0x10] >> 5 & 3))
	if c.shown[f] <= 0 {
		return 0x1FFF
	}
	return uint32(clamp(3932160*m/c.shown[f], 1, 0x1FFF))
}

func (c *EMC2305) tx(w, r []byte) error {
	c.silence = 0
	c.tripped = false
	if len(w) > 0 {
		c.pointer = w[0]
	}
	for i := 1; i < len(w); i++ {
		c.write(c.pointer, w[i])
		c.pointer++
	}
	for i := range r {
		r[i] = c.read(c.pointer)
		if len(r) > 1 {
			c.pointer++
		}
	}
	return nil
}

func (c *EMC2305) write(reg, v byte) {
	fan := reg >= 0x30 && reg <= 0x7F
	switch {
	case fan && reg&0xF >= 0xE, reg == 0x24, reg == 0x25, reg == 0x26, reg == 0x27, reg >= 0xFC:
		return // read only
	}
	c.reg[reg] = v
	if fan && reg&0xF == 0 {
		c.watching = false
		c.apply()
	}
}

func (c *EMC2305) read(reg byte) byte {
	fan := reg >= 0x30 && reg <= 0x7F
	v := c.reg[reg]
	switch {
	case fan && reg&0xF == 0xE:
		c.latched = c.reg[reg+1]
	case fan && reg&0xF == 0xF:
		return c.latched
	case reg == 0x24, reg == 0x25:
		c.reg[reg] = 0
	}
	return v
}

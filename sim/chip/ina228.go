package chip

import "time"

// Rail is what an INA228 measures at an instant.
type Rail struct {
	Volts  float64
	Amps   float64
	Joules float64 // energy through the shunt so far; the model takes the difference, so that none is lost between steps
	Die    float64 // °C
}

// INA228 models TI's current, voltage, power and energy monitor (data sheet SLYS021A, section 7.6: registers, byte
// order and reset values; the model has ADCRANGE 0 and one conversion per Advance).
type INA228 struct {
	source func() Rail
	shunt  float64 // Ω
	gain   float64

	fault  Fault
	shown  Rail    // last conversion
	counts float64 // current, in CURRENT_LSB
	last   float64 // source's Joules at the last conversion
	primed bool

	pointer byte
	config  uint16
	adc     uint16
	cal     uint16
	tempco  uint16
	diag    uint16
	limits  [6]uint16 // SOVL … PWR_LIMIT, 0Ch to 11h
	energy  float64   // ENERGY counts, fraction kept
	charge  float64
}

// NewINA228 returns a chip that measures source through a shunt of the given resistance in ohms. gain is the chip's own
// gain error, 1 for none (SLYS021A gives ±0.05 %).
func NewINA228(shunt, gain float64, source func() Rail) *INA228 {
	c := &INA228{source: source, shunt: shunt, gain: gain}
	c.reset()
	return c
}

func (c *INA228) reset() {
	c.pointer, c.config, c.adc, c.cal, c.tempco = 0, 0, 0xFB68, 0x1000, 0
	c.diag = 1
	c.limits = [6]uint16{0x7FFF, 0x8000, 0x7FFF, 0, 0x7FFF, 0xFFFF}
	c.energy, c.charge, c.counts = 0, 0, 0
	c.primed = false
}

func (c *INA228) setFault(f Fault) { c.fault = f }

// lsb is CURRENT_LSB in amperes, as SHUNT_CAL makes it: SHUNT_CAL = 13107.2e6 · CURRENT_LSB · R (equation 2).
func (c *INA228) lsb() float64 { return float64(c.cal) / (13107.2e6 * c.shunt) }

func (c *INA228) advance(d time.Duration) {
	s := c.source()
	delta := s.Joules - c.last
	c.last = s.Joules
	if !c.primed {
		delta, c.primed = 0, true
	}
	if c.fault.Frozen {
		s, delta = c.shown, c.shown.Volts*c.shown.Amps*d.Seconds()
	} else {
		s.Amps = s.Amps*c.gain + c.fault.Lie
		delta = delta*c.gain + c.fault.Lie*s.Volts*d.Seconds()
	}
	c.shown = s
	c.diag |= 1 << 1 // CNVRF
	if c.cal == 0 {
		return
	}
	c.counts = clamp(s.Amps/c.lsb(), -1<<19, 1<<19-1)
	c.energy += max(delta, 0) / (16 * 3.2 * c.lsb())
	if c.energy >= 1<<40 {
		c.energy -= 1 << 40
		c.diag |= 1 << 11 // ENERGYOF
	}
	c.charge += s.Amps * d.Seconds() / c.lsb()
	c.compare()
}

// compare sets the alert flags. Without ALATCH they follow the measurement (table 7-16).
func (c *INA228) compare() {
	over := uint16(0)
	if c.vshunt()>>4 > int32(int16(c.limits[0])) && c.limits[0] != 0x7FFF { // 5 µV is sixteen steps of 312.5 nV
		over |= 1 << 6
	}
	if c.vbus()>>4 > int32(c.limits[2]) && c.limits[2] != 0x7FFF {
		over |= 1 << 4
	}
	if c.power()>>8 > uint32(c.limits[5]) {
		over |= 1 << 2
	}
	if c.diag&(1<<15) == 0 {
		c.diag &^= 1<<6 | 1<<4 | 1<<2
	}
	c.diag |= over
}

func (c *INA228) vshunt() int32 {
	return int32(clamp(c.shown.Amps*c.shunt/312.5e-9, -1<<19, 1<<19-1))
}

func (c *INA228) vbus() int32 { return int32(clamp(c.shown.Volts/195.3125e-6, 0, 1<<19-1)) }

func (c *INA228) power() uint32 {
	return uint32(clamp(abs(c.counts)*c.shown.Volts/3.2, 0, 1<<24-1))
}

func (c *INA228) tx(w, r []byte) error {
	if len(w) > 0 {
		c.pointer = w[0]
	}
	if len(w) == 3 {
		c.write(c.pointer, uint16(w[1])<<8|uint16(w[2]))
	}
	if len(r) == 0 {
		return nil
	}
	v, n := c.read(c.pointer)
	for i := range r {
		r[i] = 0xFF // beyond the register nobody drives the line
		if i < n {
			r[i] = byte(v >> (8 * (n - 1 - i)))
		}
	}
	return nil
}

func (c *INA228) write(reg byte, v uint16) {
	switch {
	case reg == 0x00:
		if v&(1<<15) != 0 { // RST
			shown, last, primed := c.shown, c.last, c.primed
			c.reset()
			c.shown, c.last, c.primed = shown, last, primed
			return
		}
		if v&(1<<14) != 0 { // RSTACC
			c.energy, c.charge = 0, 0
		}
		c.config = v &^ (3 << 14)
	case reg == 0x01:
		c.adc = v
	case reg == 0x02:
		c.cal = v & 0x7FFF
	case reg == 0x03:
		c.tempco = v & 0x3FFF
	case reg == 0x0B:
		c.diag = c.diag&0x0FFF | v&0xF000
	case reg >= 0x0C && reg <= 0x11:
		c.limits[reg-0x0C] = v
	}
}

// read returns a register and its length in bytes.
func (c *INA228) read(reg byte) (v uint64, n int) {
	switch reg {
	case 0x00:
		return uint64(c.config), 2
	case 0x01:
		return uint64(c.adc), 2
	case 0x02:
		return uint64(c.cal), 2
	case 0x03:
		return uint64(c.tempco), 2
	case 0x04:
		return uint64(uint32(c.vshunt()<<4) & 0xFFFFFF), 3
	case 0x05:
		return uint64(c.vbus() << 4), 3
	case 0x06:
		return uint64(uint16(int16(clamp(c.shown.Die/7.8125e-3, -32768, 32767)))), 2
	case 0x07:
		return uint64(uint32(int32(c.counts)<<4) & 0xFFFFFF), 3
	case 0x08:
		return uint64(c.power()), 3
	case 0x09:
		c.diag &^= 1 << 11
		return uint64(c.energy), 5
	case 0x0A:
		return uint64(int64(c.charge)) & (1<<40 - 1), 5
	case 0x0B:
		v := c.diag
		c.diag &^= 1 << 1
		if v&(1<<15) != 0 {
			c.diag &^= 1<<6 | 1<<5 | 1<<4 | 1<<3 | 1<<2
		}
		return uint64(v), 2
	case 0x0C, 0x0D, 0x0E, 0x0F, 0x10, 0x11:
		return uint64(c.limits[reg-0x0C]), 2
	case 0x3E:
		return 0x5449, 2
	case 0x3F:
		return 0x2281, 2
	}
	return 0, 2
}

func clamp(v, lo, hi float64) float64 { return max(lo, min(v, hi)) }

func abs(v float64) float64 {
	if v < 0 {
		return -v
	}
	return v
}

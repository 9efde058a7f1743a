package wire

// PDR types (DSP0248, 28.2).
const (
	PDRNumericSensor   uint8 = 2
	PDRStateSensor     uint8 = 4
	PDRNumericEffecter uint8 = 9
	PDRStateEffecter   uint8 = 11
)

// Units of sensors (DSP0248, 27.3 "sensorUnits enumeration").
const (
	UnitCelsius uint8 = 2
	UnitVolts   uint8 = 5
	UnitAmps    uint8 = 6
	UnitWatts   uint8 = 7
	UnitJoules  uint8 = 8
	UnitRPM     uint8 = 19
)

// Entity types (DSP0249, "Entity ID tables").
const (
	EntitySystemChassis uint16 = 45
	EntitySystemBoard   uint16 = 64
	EntityFan           uint16 = 93
	EntityController    uint16 = 137
	EntitySlot          uint16 = 186
)

// MaxPDR bounds the records that this package writes, in bytes.
const MaxPDR = 128

// PDR describes one sensor or effecter, as far as our records differ. Everything
// else in a record has the value "not supported" or "linear, exact".
type PDR struct {
	Type     uint8 // PDR…
	ID       uint16
	Entity   uint16
	Instance uint16 // of the entity

	// Numeric records: value × 10^Modifier is in Unit.
	Unit     uint8
	Modifier int8
	Size     uint8 // Size…
	Min, Max int64 // readable or settable

	// State records: set and its possible values, a bit each.
	StateSet uint16
	States   uint32 // bit n: value n, below 32
}

const (
	pdrHeader    = 10
	pdrVersion   = 1
	realOne      = 0x3F800000 // 1.0 in IEEE 754, as real32 has it
	pdrTerminus  = 1          // PLDMTerminusHandle: our own terminus
	pdrContainer = 0          // containerID: the system itself
)

// AppendPDR appends the record in its wire form under the given handle
// (DSP0248, 28.1 and tables 78, 81, 87 and 89).
func AppendPDR(dst []byte, handle uint32, p *PDR) []byte {
	at := len(dst)
	dst = le.AppendUint32(dst, handle)
	dst = append(dst, pdrVersion, p.Type)
	dst = le.AppendUint16(dst, 0) // recordChangeNumber
	dst = le.AppendUint16(dst, 0) // dataLength, below
	dst = le.AppendUint16(dst, pdrTerminus)
	dst = le.AppendUint16(dst, p.ID)
	dst = le.AppendUint16(dst, p.Entity)
	dst = le.AppendUint16(dst, p.Instance)
	dst = le.AppendUint16(dst, pdrContainer)
	effecter := p.Type == PDRNumericEffecter || p.Type == PDRStateEffecter
	if effecter {
		dst = le.AppendUint16(dst, 0) // effecterSemanticID
	}
	dst = append(dst, 0, 0) // no initialisation record, no auxiliary names
	switch p.Type {
	case PDRStateSensor, PDRStateEffecter:
		dst = append(dst, 1) // composite count
		dst = le.AppendUint16(dst, p.StateSet)
		n := 1
		for n < 4 && p.States>>(8*n) != 0 {
			n++
		}
		dst = append(dst, byte(n))
		for i := range n {
			dst = append(dst, byte(p.States>>(8*i)))
		}
	default:
		dst = append(dst, p.Unit, byte(p.Modifier), 0, 0) // rateUnit, baseOEMUnitHandle
		dst = append(dst, 0, 0, 0)                        // auxUnit, its modifier and rate
		if !effecter {
			dst = append(dst, 0) // rel
		}
		dst = append(dst, 0, 1, p.Size) // auxOEMUnitHandle, isLinear
		dst = le.AppendUint32(dst, realOne)
		dst = le.AppendUint32(dst, 0)               // offset
		dst = append(le.AppendUint16(dst, 0), 0, 0) // accuracy and tolerances
		if effecter {
			dst = le.AppendUint32(dst, 0) // stateTransitionInterval
			dst = le.AppendUint32(dst, 0) // TransitionInterval
		} else {
			dst = appendSized(dst, p.Size, 0) // hysteresis
			dst = append(dst, 0, 0)           // no thresholds
			dst = le.AppendUint32(dst, 0)     // stateTransitionInterval
			dst = le.AppendUint32(dst, realOne)
		}
		dst = appendSized(dst, p.Size, p.Max)
		dst = appendSized(dst, p.Size, p.Min)
		dst = append(dst, p.Size, 0) // rangeFieldFormat; none of the range fields is supported
		for range p.rangeFields() {
			dst = appendSized(dst, p.Size, 0)
		}
	}
	le.PutUint16(dst[at+8:], uint16(len(dst)-at-pdrHeader))
	return dst
}

func (p *PDR) rangeFields() int {
	if p.Type == PDRNumericEffecter {
		return 5
	}
	return 9
}

// ParsePDR reads a record that AppendPDR could have written: one composite state, possible values below
// 32, range fields in the format of the value. Others are ErrValue.
func ParsePDR(b []byte) (handle uint32, p PDR, err error) {
	c := cursor{b: b}
	handle = c.u32()
	if c.u8() != pdrVersion {
		c.bad()
	}
	p.Type = c.u8()
	c.u16()
	if n := c.u16(); int(n) != len(c.b) {
		c.bad()
	}
	c.u16()
	p.ID = c.u16()
	p.Entity = c.u16()
	p.Instance = c.u16()
	c.u16()
	effecter := p.Type == PDRNumericEffecter || p.Type == PDRStateEffecter
	if effecter {
		c.u16()
	}
	c.u16()
	switch p.Type {
	case PDRStateSensor, PDRStateEffecter:
		if c.u8() != 1 {
			c.bad()
		}
		p.StateSet = c.u16()
		n := c.u8()
		if n > 4 {
			c.bad()
			n = 0
		}
		for i := range n {
			p.States |= uint32(c.u8()) << (8 * i)
		}
	case PDRNumericSensor, PDRNumericEffecter:
		p.Unit = c.u8()
		p.Modifier = int8(c.u8())
		c.take(2 + 3 + 1)
		if !effecter {
			c.u8()
		}
		c.u8()
		p.Size = c.max(SizeSint32)
		c.take(4 + 4 + 4)
		if effecter {
			c.take(8)
		} else {
			c.sized(p.Size)
			c.take(2 + 8)
		}
		p.Max = c.sized(p.Size)
		p.Min = c.sized(p.Size)
		if c.u8() != p.Size {
			c.bad()
		}
		c.u8()
		for range p.rangeFields() {
			c.sized(p.Size)
		}
	default:
		c.bad()
	}
	return handle, p, c.done()
}
